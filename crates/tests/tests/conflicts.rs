//! Real patchers and tracers at the scheduler's functions: a livepatch, a direct call of ftrace, and a hot fix by
//! hand. Those that cannot stay are refused by name; the others go on working.

use anyhow::{Context, Result, ensure};
use schedswap_guest::Guest;
use schedswap_tests::{MODULE, guest, kernel, kernel_module, pristine};

/// A livepatch takes effect at the function's first byte, before our jump, so ours would never run.
const LIVEPATCH: &str = r#"
#include <linux/kernel.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>
static int shown(struct seq_file *m, void *v)
{
	seq_puts(m, "livepatched\n");
	return 0;
}
static struct klp_func funcs[] = { { .old_name = "sched_feat_show", .new_func = shown }, { } };
static struct klp_object objs[] = { { .funcs = funcs }, { } };
static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objs };
static int __init start(void) { return klp_enable_patch(&patch); }
static void __exit stop(void) { }
module_init(start);
module_exit(stop);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
"#;

/// A direct call at ftrace's nop, which a swap leaves alone: BPF trampolines are attached like this.
const DIRECT: &str = r#"
#include <linux/ftrace.h>
#include <linux/module.h>
#include <linux/sched.h>
static unsigned long calls;
module_param(calls, ulong, 0444);
void direct_count(void);
void direct_count(void) { calls++; }
extern void direct_trampoline(void *);
asm(".text\n.globl direct_trampoline\n.type direct_trampoline, @function\ndirect_trampoline:\n"
    "	push %rbp\n	mov %rsp, %rbp\n	push %rdi\n	push %rsi\n	push %rdx\n	push %rcx\n	push %r8\n	push %r9\n"
    "	push %rax\n	push %r10\n	push %r11\n	call direct_count\n	pop %r11\n	pop %r10\n	pop %rax\n"
    "	pop %r9\n	pop %r8\n	pop %rcx\n	pop %rdx\n	pop %rsi\n	pop %rdi\n	leave\n	ret\n"
    ".size direct_trampoline, .-direct_trampoline\n");
static int __init start(void) { return register_ftrace_direct((unsigned long)wake_up_process, (unsigned long)direct_trampoline); }
static void __exit stop(void) { unregister_ftrace_direct((unsigned long)wake_up_process, (unsigned long)direct_trampoline); }
module_init(start);
module_exit(stop);
MODULE_LICENSE("GPL");
"#;

/// Changes one byte, without any kernel interface, and restores it when it is unloaded.
const HOT_FIX: &str = r#"
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/vmalloc.h>
static unsigned long at;
module_param(at, ulong, 0444);
static u8 *byte;
static int __init start(void)
{
	struct page *page = pfn_to_page(__pa_symbol(at) >> PAGE_SHIFT);
	void *alias = vmap(&page, 1, VM_MAP, PAGE_KERNEL);

	if (!alias)
		return -ENOMEM;
	byte = alias + offset_in_page(at);
	*byte ^= 1;
	return 0;
}
static void __exit stop(void)
{
	*byte ^= 1;
	vunmap((void *)((unsigned long)byte & PAGE_MASK));
}
module_init(start);
module_exit(stop);
MODULE_LICENSE("GPL");
"#;

/// Never called in these tests, so the content of its window is never run.
const UNUSED: &str = "normalize_rt_tasks";

fn said(guest: &Guest, command: &str) -> Result<(i32, String)> {
    let output = guest.run(command)?;
    Ok((output.status, format!("{}{}", output.stdout, output.stderr)))
}

/// Both the loader's check and an installation refuse with these words, and nothing is loaded.
fn refused(guest: &Guest, words: &[&str]) -> Result<()> {
    for command in ["check", "install"] {
        let (status, text) = said(guest, &format!("loader {command} {MODULE}"))?;
        ensure!(status == 3, "{command} ended with {status}: {text}");
        for word in words {
            ensure!(text.contains(word), "{command} does not say {word:?}: {text}");
        }
    }
    guest.sh("! [ -e /sys/kernel/schedswap ]")?;
    Ok(())
}

fn installed_and_back(guest: &Guest) -> Result<()> {
    guest.sh(&format!(
        "loader install --retries 30 --wait 1s {MODULE} && loader uninstall --retries 30 --wait 1s"
    ))?;
    Ok(())
}

#[test]
fn a_livepatch_is_refused_a_direct_call_stays_a_hot_fix_is_refused() -> Result<()> {
    let kernel = kernel()?;
    let modules = [("patch", LIVEPATCH), ("direct", DIRECT), ("hotfix", HOT_FIX)];
    let built = modules.map(|(name, source)| kernel_module(name, source));
    let guest = guest(&pristine()?, |config| {
        // The modules are our own: unsigned, and a livepatch taints the kernel.
        config.allowed_taints.push('K');
    })?;
    for ((name, _), built) in modules.iter().zip(built) {
        let bytes = std::fs::read(built.with_context(|| format!("{name} for {}", kernel.release))?)?;
        guest.put(&format!("/tmp/{name}.ko"), &bytes, 0o644)?;
    }

    guest.sh("insmod /tmp/patch.ko && grep -q livepatched /sys/kernel/debug/sched/features")?;
    refused(&guest, &["sched_feat_show", "livepatch"])?;
    guest.sh("echo 0 >/sys/kernel/livepatch/patch/enabled")?;
    guest.sh("n=0; while [ -e /sys/kernel/livepatch/patch ]; do n=$((n+1)); [ $n -lt 100 ] || exit 1; sleep 0.2; done; rmmod patch")?;
    installed_and_back(&guest)?;

    guest.sh("insmod /tmp/direct.ko")?;
    guest.sh(&format!("loader install --retries 30 --wait 1s {MODULE}"))?;
    let calls =
        || -> Result<u64> { Ok(guest.sh("sleep 0.3; cat /sys/module/direct/parameters/calls")?.parse()?) };
    let before = calls()?;
    ensure!(calls()? > before, "the direct call does not go on while the scheduler is replaced");
    guest.sh("rmmod direct && insmod /tmp/direct.ko")?;
    ensure!(calls()? > 0, "no direct call can be attached while the scheduler is replaced");
    guest.sh("loader uninstall --retries 30 --wait 1s")?;
    let before = calls()?;
    ensure!(calls()? > before, "the direct call did not outlive the scheduler");
    guest.sh("rmmod direct")?;

    let address = guest.sh(&format!("grep ' {UNUSED}$' /proc/kallsyms | cut -d' ' -f1"))?;
    let address = u64::from_str_radix(&address, 16).with_context(|| address.clone())?;
    guest.sh(&format!("insmod /tmp/hotfix.ko at={:#x}", address + 6))?;
    let (status, text) = said(&guest, &format!("loader install {MODULE}"))?;
    ensure!(
        status == 3 && text.contains(UNUSED),
        "a hot fix by hand was not refused by name: {status} {text}"
    );
    guest.sh("! [ -e /sys/kernel/schedswap ] && rmmod hotfix")?;
    installed_and_back(&guest)?;
    guest.shutdown()?;
    Ok(())
}
