//! Which kernel memory must be as before once a scheduler is unloaded, and which the kernel itself changes.
//!
//! `guest-load kcore` compares it, inside the guest and without asking the module.

use super::{Error, Guest, Initramfs, Output, Result};
use schedswap_kernel::address::Addr;
use schedswap_kernel::vmlinux::{Image, SiteKind};
use std::fmt::Write;

/// SHF_EXECINSTR.
const EXECUTABLE: u64 = 4;

/// Where [`Memory::put_into`] puts the files.
const RANGES: &str = "/schedswap/memory-ranges";
const IGNORE: &str = "/schedswap/memory-ignore";
const COUNTED: &str = "/schedswap/memory-counted";

/// What to save and compare: the files that `guest-load kcore` reads.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Lines of `start length name`, hexadecimal, linked addresses.
    pub ranges: String,
    /// Lines of `start length`: what the kernel changes by itself at run time.
    pub ignore: String,
    /// Like `ignore`, for kernels that track the depth of calls: the padding before functions that is reserved for
    /// that. Loading a module makes the kernel write there, for each function that the module is the first to call.
    pub counted: String,
    /// `symbol=address`, which tells how far KASLR moved the kernel.
    pub anchor: String,
}

impl Memory {
    /// All of the text that stays after boot, and every `sched_class` object.
    ///
    /// Jump labels and static calls are left out, because the kernel changes them whenever it likes; a scheduler
    /// module never patches there. ftrace's call at each function's entry is compared: a comparison while a tracer is
    /// on will find it.
    pub fn of(image: &Image) -> Memory {
        let mut memory = Memory::default();
        for section in &image.sections {
            // .init.text is freed after boot, and so is .exit.text where modules cannot be built in.
            if section.flags & EXECUTABLE != 0 && matches!(section.name.as_str(), ".text" | ".noinstr.text") {
                let _ = writeln!(memory.ranges, "{:x} {:x} {}", section.addr.0, section.size, section.name);
            }
        }
        let mut classes: Vec<_> = image
            .symbols
            .iter()
            .filter(|s| s.name.ends_with("_sched_class") && s.size > 0 && s.section.is_some())
            .collect();
        classes.sort_by_key(|s| s.addr);
        classes.dedup_by_key(|s| s.addr);
        for class in classes {
            let _ = writeln!(memory.ranges, "{:x} {:x} {}", class.addr.0, class.size, class.name);
        }
        for site in &image.sites {
            // The others are rewritten only at boot, or on a user's request.
            if matches!(site.kind, SiteKind::JumpLabel | SiteKind::StaticCall) {
                let _ = writeln!(memory.ignore, "{:x} {:x}", site.addr.0, site.len);
            }
        }
        // The trampolines of static calls are rewritten together with the calls.
        for symbol in image.symbols.iter().filter(|s| s.name.starts_with("__SCT__")) {
            let _ = writeln!(
                memory.ignore,
                "{:x} {:x} static-call-trampoline",
                symbol.addr.0,
                symbol.size.max(8)
            );
        }
        memory.counted = counted(image);
        // Symbols before it are not in kallsyms without CONFIG_KALLSYMS_ALL: on arm64, _text.
        let anchor = image.unique_symbol("_stext").map_or(Addr(0), |symbol| symbol.addr);
        memory.anchor = format!("_stext={:x}", anchor.0);
        memory
    }

    /// Puts the files where the commands below expect them. Sent over the serial port they would take minutes.
    pub fn put_into(&self, initramfs: &mut Initramfs) {
        initramfs.bytes(RANGES, self.ranges.as_bytes(), 0o644).bytes(IGNORE, self.ignore.as_bytes(), 0o644);
        initramfs.bytes(COUNTED, self.counted.as_bytes(), 0o644);
    }

    /// Saves the memory, in the guest, under a name for [`Memory::compare`].
    ///
    /// # Errors
    /// [`Error::CommandFailed`] if the guest cannot read its memory, and those of [`Guest::run`].
    pub fn save(&self, guest: &Guest, name: &str) -> Result<()> {
        let anchor = &self.anchor;
        guest.sh(&format!("guest-load kcore save --ranges {RANGES} --anchor {anchor} /tmp/memory-{name}"))?;
        Ok(())
    }

    /// Compares two saves and returns how many bytes were found identical. Fails, naming the places, if any differ.
    ///
    /// # Errors
    /// [`Error::Scenario`] with the places that differ, and those of [`Guest::run`].
    pub fn compare(&self, guest: &Guest, before: &str, after: &str) -> Result<u64> {
        let files = format!("/tmp/memory-{before} /tmp/memory-{after}");
        let ignore = "/tmp/memory-ignored";
        guest.sh(&format!(
            "cp {IGNORE} {ignore}; \
             ! grep -qs Stuffing /sys/devices/system/cpu/vulnerabilities/retbleed || cat {COUNTED} >>{ignore}"
        ))?;
        let Output { status, stdout, stderr } =
            guest.run(&format!("guest-load kcore compare --ignore {ignore} {files}"))?;
        if status != 0 {
            return Err(Error::Scenario(format!(
                "kernel memory is not as it was before the first load:\n{stdout}{stderr}"
            )));
        }
        Ok(self.len_bytes())
    }

    /// The number of bytes in all ranges.
    fn len_bytes(&self) -> u64 {
        let len = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
        self.ranges.lines().filter_map(len).sum()
    }
}

/// Lines of `start length`: where `patch_dest()` of arch/x86/kernel/callthunks.c writes its template.
fn counted(image: &Image) -> String {
    let template = ["skl_call_thunk_template", "skl_call_thunk_tail"].map(|name| image.unique_symbol(name));
    let [Some(start), Some(end)] = template else { return String::new() };
    let length = end.addr.0.saturating_sub(start.addr.0);
    let mut entries: Vec<Addr> = image.symbols.iter().filter(|s| s.is_function()).map(|s| s.addr).collect();
    entries.sort_unstable();
    entries.dedup();
    let in_text = entries
        .into_iter()
        .filter(|entry| image.section_at(*entry).is_some_and(|(_, section)| section.is_text()));
    let mut lines = String::new();
    for entry in in_text {
        let _ = writeln!(lines, "{:x} {length:x} call-depth", entry.0.saturating_sub(length));
    }
    lines
}
