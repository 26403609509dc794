//! Which kernel memory must be as before once a scheduler is unloaded, and which the kernel changes itself.
//!
//! `guest-load kcore` does the comparison, inside the guest and without asking the module.

use super::{Error, Guest, Initramfs, Output, Result};
use crate::address::Addr;
use crate::vmlinux::{Image, SiteKind};
use std::fmt::Write;

/// SHF_EXECINSTR.
const EXECUTABLE: u64 = 4;

/// Where [`Memory::put_into`] puts the files.
const RANGES: &str = "/schedswap/memory-ranges";
const IGNORE: &str = "/schedswap/memory-ignore";

/// What to save and compare: the files that `guest-load kcore` reads.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Lines of `start length name`, hexadecimal, linked addresses.
    pub ranges: String,
    /// Lines of `start length`: what the kernel toggles by itself at run time.
    pub ignore: String,
    /// `symbol=address`, by which KASLR is undone.
    pub anchor: String,
}

impl Memory {
    /// All of the text that stays after boot, and every `sched_class` object.
    ///
    /// Jump labels and static calls are left out, for the kernel toggles them whenever it likes; a
    /// scheduler module never patches there. ftrace's call at each function's entry counts: whoever compares
    /// while a tracer is on will find it.
    pub fn of(image: &Image) -> Memory {
        let mut memory = Memory::default();
        for section in &image.sections {
            // .init.text is freed after boot, .exit.text with it where modules cannot be built in.
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
            // The others are rewritten at boot only, or by who is asked to.
            if matches!(site.kind, SiteKind::JumpLabel | SiteKind::StaticCall) {
                let _ = writeln!(memory.ignore, "{:x} {:x}", site.addr.0, site.len);
            }
        }
        // Trampolines of static calls are rewritten together with the calls.
        for symbol in image.symbols.iter().filter(|s| s.name.starts_with("__SCT__")) {
            let _ = writeln!(
                memory.ignore,
                "{:x} {:x} static-call-trampoline",
                symbol.addr.0,
                symbol.size.max(8)
            );
        }
        // What is before it is in no kallsyms without CONFIG_KALLSYMS_ALL: on arm64, _text.
        let anchor = image.unique_symbol("_stext").map_or(Addr(0), |symbol| symbol.addr);
        memory.anchor = format!("_stext={:x}", anchor.0);
        memory
    }

    /// Puts the files where the commands below expect them. Over the serial port they would take minutes.
    pub fn put_into(&self, initramfs: &mut Initramfs) {
        initramfs.bytes(RANGES, self.ranges.as_bytes(), 0o644).bytes(IGNORE, self.ignore.as_bytes(), 0o644);
    }

    /// Saves it, in the guest, under a name for [`Memory::compare`].
    pub fn save(&self, guest: &Guest, name: &str) -> Result<()> {
        let anchor = &self.anchor;
        guest.sh(&format!("guest-load kcore save --ranges {RANGES} --anchor {anchor} /tmp/memory-{name}"))?;
        Ok(())
    }

    /// Compares two saves and returns how many bytes were found identical. Fails, naming the places, when any
    /// are not.
    pub fn compare(&self, guest: &Guest, before: &str, after: &str) -> Result<u64> {
        let files = format!("/tmp/memory-{before} /tmp/memory-{after}");
        let Output { status, stdout, stderr } =
            guest.run(&format!("guest-load kcore compare --ignore {IGNORE} {files}"))?;
        if status != 0 {
            return Err(Error::Scenario(format!(
                "kernel memory is not as it was before the first load:\n{stdout}{stderr}"
            )));
        }
        Ok(self.len_bytes())
    }

    /// Bytes in all ranges.
    fn len_bytes(&self) -> u64 {
        let len = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
        self.ranges.lines().filter_map(len).sum()
    }
}
