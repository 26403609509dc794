//! NMIs come at any time, in the stop too: interrupts are off there, NMIs are not. Whatever an NMI finds in a window is
//! vmlinux's code or a jump to the module, and never half of one.
//!
//! The emulator delivers an NMI between two blocks of instructions. So the test sees a window that is written by a loop, but
//! not one that is written by two stores in a row.

use anyhow::{Context, Result, ensure};
use schedswap_guest::Guest;
use schedswap_sched::boundary::{self, Fate};
use schedswap_sched::config::Config;
use schedswap_tests::{MODULE, guest, image, kernel_module, memory, pristine};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const CYCLES: u32 = 5;
const WATCH: &str = "/watch.ko";
/// Of a jump.
const WINDOW_BYTES: usize = 5;

/// Reads all windows in each NMI, each by one load: no window crosses a 16-byte boundary, so neither does the load. What
/// is neither vmlinux's nor a jump into the modules' area is half of a jump: its target is a mix of two places.
const SOURCE: &str = r#"
#include <linux/module.h>
#include <asm/nmi.h>

static const long offsets[] = { @OFFSETS@ };
#define COUNT ARRAY_SIZE(offsets)

static u64 stock[COUNT];
static unsigned long nmis, midway, halves, half_at, half_bytes;
module_param(nmis, ulong, 0444);	/* seen, by all CPUs */
module_param(midway, ulong, 0444);	/* of them, how many found some windows with jumps and some without */
module_param(halves, ulong, 0444);	/* windows with half a jump */
module_param(half_at, ulong, 0444);	/* the last one: offset from the anchor, and what was there */
module_param(half_bytes, ulong, 0444);

static u64 read_window(unsigned int i)
{
	unsigned long at = (unsigned long)&@ANCHOR@ + offsets[i], from = min(at, (at | 15) + 1 - sizeof(u64));

	return (READ_ONCE(*(u64 *)from) >> 8 * (at - from)) & 0xffffffffff;
}

static int in_nmi_handler(unsigned int type, struct pt_regs *regs)
{
	unsigned int i, jumps = 0;

	for (i = 0; i < COUNT; i++) {
		unsigned long at = (unsigned long)&@ANCHOR@ + offsets[i];
		u64 found = read_window(i);
		unsigned long target = at + 5 + (long)(s32)(found >> 8);

		if (found == stock[i])
			continue;
		jumps++;
		if ((found & 0xff) == 0xe9 && target >= MODULES_VADDR && target < MODULES_END)
			continue;
		halves++;
		half_at = offsets[i];
		half_bytes = found;
	}
	nmis++;
	midway += jumps > 0 && jumps < COUNT;
	return NMI_HANDLED;
}

static int __init watch_init(void)
{
	unsigned int i;

	for (i = 0; i < COUNT; i++)
		stock[i] = read_window(i);
	return register_nmi_handler(NMI_LOCAL, in_nmi_handler, 0, "watch");
}

static void __exit watch_exit(void)
{
	unregister_nmi_handler(NMI_LOCAL, "watch");
}

module_init(watch_init);
module_exit(watch_exit);
MODULE_LICENSE("GPL");
"#;

fn source() -> Result<String> {
    let boundary = boundary::compute(image(), &Config::default())?;
    let named = |name: &str| image().unique_symbol(name).map(|symbol| symbol.addr.0);
    let anchors = ["_printk", "printk"];
    let (name, anchor) = anchors
        .iter()
        .find_map(|name| Some((name, named(name)?)))
        .context("a function that every module can refer to")?;
    let mut offsets = Vec::new();
    for function in &boundary.functions {
        if let Fate::Divert(site) | Fate::Springboard(site) = &function.fate {
            ensure!(
                site.at.0 % 16 + WINDOW_BYTES as u64 <= 16,
                "{} crosses a 16-byte boundary",
                function.name
            );
            offsets.push(format!("{}L", site.at.0.cast_signed() - anchor.cast_signed()));
        }
    }
    ensure!(offsets.len() > 500, "only {} windows", offsets.len());
    Ok(SOURCE.replace("@OFFSETS@", &offsets.join(", ")).replace("@ANCHOR@", name))
}

fn number(guest: &Guest, name: &str) -> Result<u64> {
    let text = guest.sh(&format!("cat /sys/module/watch/parameters/{name}"))?;
    text.parse().with_context(|| text.clone())
}

#[test]
fn an_nmi_never_finds_half_a_jump() -> Result<()> {
    let watch = std::fs::read(kernel_module("watch", &source()?)?)?;
    let guest = guest(&pristine()?, |config| {
        config.append.push("apic_extnmi=all".into());
        config.time_limit = Duration::from_secs(1200);
        config.initramfs.bytes(WATCH, &watch, 0o644);
    })?;
    memory().save(&guest, "stock")?;
    guest.sh(&format!("insmod {WATCH}"))?;
    let busy = "for cpu in $(nproc) $(nproc); do while ! [ -e /run/stop ]; do :; done & done; wait";
    let load = guest.start(busy, Duration::from_secs(1200))?;

    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let sender = threads.spawn(|| -> Result<()> {
            while !over.load(Ordering::Relaxed) {
                guest.nmi()?;
            }
            Ok(())
        });
        let cycles = || -> Result<()> {
            for cycle in 1..=CYCLES {
                for command in [&format!("install {MODULE}"), "uninstall"] {
                    guest
                        .sh(&format!("loader {command} --retries 30 --wait 1s"))
                        .with_context(|| format!("cycle {cycle}"))?;
                }
            }
            Ok(())
        };
        let done = cycles();
        over.store(true, Ordering::Relaxed);
        sender.join().expect("the sender does not panic")?;
        done
    })?;

    let (nmis, midway, halves) =
        (number(&guest, "nmis")?, number(&guest, "midway")?, number(&guest, "halves")?);
    eprintln!("{nmis} NMIs, {midway} of them while the windows were written");
    ensure!(
        halves == 0,
        "{halves} windows held half a jump, the last {:#x} at {:#x} from the anchor",
        number(&guest, "half_bytes")?,
        number(&guest, "half_at")?
    );
    ensure!(midway > 0, "none of {nmis} NMIs came while the windows were written: nothing was tested");
    guest.sh("touch /run/stop")?;
    let load = guest.finish(load)?;
    ensure!(load.status == 0, "the load failed: {load:?}");
    guest.sh("rmmod watch")?;
    memory().save(&guest, "after")?;
    memory().compare(&guest, "stock", "after")?;
    guest.shutdown()?;
    Ok(())
}

#[test]
fn a_cpu_that_cannot_write_a_window_in_one_store_is_refused() -> Result<()> {
    let guest = guest(&pristine()?, |config| config.cpu_model.push_str(",-cx16"))?;
    memory().save(&guest, "stock")?;
    let insmod = guest.run(&format!("insmod {MODULE}"))?;
    ensure!(insmod.status != 0, "the module was not refused");
    let log = guest.sh("dmesg | grep 'schedswap: '")?;
    let words = ["refused: ", " cannot be written in one store at ", "+0x", "the CPU has no cmpxchg16b"];
    ensure!(words.iter().all(|word| log.contains(word)), "{log}");
    guest.sh("! [ -e /sys/kernel/schedswap ]")?;
    memory().save(&guest, "after")?;
    memory().compare(&guest, "stock", "after")?;
    guest.shutdown()?;
    Ok(())
}
