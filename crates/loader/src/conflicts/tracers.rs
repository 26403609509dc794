//! Tracers that are called when a function runs: kprobes, and users of ftrace.

use super::Functions;
use crate::paths::Paths;
use schedswap_payload::report::{Conflict, Holder};
use std::fs;

/// Both kinds. If debugfs is not mounted, nothing is found.
pub fn find(paths: &Paths, functions: &Functions) -> Vec<Conflict> {
    let read = |path: &str| fs::read_to_string(paths.of(path)).ok();
    let kprobes = read("sys/kernel/debug/kprobes/list").unwrap_or_default();
    let traced = read("sys/kernel/tracing/enabled_functions")
        .or_else(|| read("sys/kernel/debug/tracing/enabled_functions"))
        .unwrap_or_default();
    let mut found = kprobes_among(&kprobes, functions);
    found.extend(traced_among(&traced, functions));
    found
}

/// The latest end of a window, counted from the function's entry: an endbr64, ftrace's nop, the jump. The jump of an
/// optimised kprobe continues for 4 more bytes, but only forwards, so what matters is where it begins.
const WINDOW_END: u64 = 4 + 5 + 5;

/// Lines such as
/// `ffffffff8a0b9b95  k  pick_next_task_fair+0x5    [DISABLED]` or `…  r  ext4_iget+0x0  ext4 [FTRACE]`
/// (`report_probe` in `kernel/kprobes.c`).
fn kprobes_among(list: &str, functions: &Functions) -> Vec<Conflict> {
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let (_address, _kind, place) = (words.next()?, words.next()?, words.next()?);
        let (name, offset) = place.split_once("+0x")?;
        let offset = u64::from_str_radix(offset, 16).ok()?;
        let rest: Vec<&str> = words.collect();
        let is = |flag: &str| rest.iter().any(|word| word.contains(flag));
        let is_in_a_module = rest.iter().any(|word| !word.starts_with('['));
        // Gone: it was in a module that has been unloaded.
        if is_in_a_module || is("[GONE]") || !functions.contains(name, None) {
            return None;
        }
        // One that ftrace serves is at ftrace's nop, which stays as it is. The code after the window never runs while
        // the scheduler is replaced: a probe there stays silent, and is not in the way.
        let may_cover_the_window = offset < WINDOW_END && !is("[FTRACE]");
        Some(Conflict {
            holder: Holder::Kprobe,
            name: place.to_owned(),
            functions: vec![name.to_owned()],
            refuses: may_cover_the_window,
        })
    };
    list.lines().filter_map(parse).collect()
}

/// Lines like `schedule_tail (1) R I     \ttramp: 0xffffffffc0a30000 (klp_ftrace_handler+0x0/0x1d0) ->…`, followed by
/// a line for a function that ftrace calls directly: `\tdirect-->bpf_trampoline_6442503238_1+0x0/0x5e` (`t_show` in
/// `kernel/trace/ftrace.c`).
fn traced_among(list: &str, functions: &Functions) -> Vec<Conflict> {
    let mut found = Vec::new();
    let mut lines = list.lines().peekable();
    while let Some(line) = lines.next() {
        let mut text = line.to_owned();
        while let Some(more) = lines.next_if(|next| next.starts_with(['\t', ' '])) {
            text.push_str(more);
        }
        let mut words = text.split_whitespace();
        // A name, the module if it is a module's function, and the number of users.
        let (Some(name), Some(count)) = (words.next(), words.next()) else { continue };
        if !count.starts_with('(') || !functions.contains(name, None) {
            continue;
        }
        let flags: Vec<&str> =
            words.take_while(|word| word.len() == 1 && word.as_bytes()[0].is_ascii_uppercase()).collect();
        let (is_direct, may_change_ip) = (flags.contains(&"D"), flags.contains(&"I"));
        // A kprobe with a post handler asks for IPMODIFY, but continues where the function would have. Before 6.0
        // every direct call had the flag. A livepatch always changes where the function continues.
        let is_livepatch = ["klp_ftrace_handler", "kpatch_ftrace_handler"].iter().any(|by| text.contains(by));
        let is_harmless = !is_livepatch && (is_direct || text.contains("kprobe_ftrace_handler"));
        let by = words_after(&text, "direct-->").or(words_after(&text, "tramp:")).unwrap_or_default();
        let holder = match (may_change_ip && !is_harmless, is_direct) {
            (true, _) => Holder::Ipmodify,
            (false, true) => Holder::Trampoline,
            (false, false) => Holder::Tracer,
        };
        found.push(Conflict {
            holder,
            name: by,
            functions: vec![name.to_owned()],
            refuses: holder == Holder::Ipmodify,
        });
    }
    found
}

/// The symbol after a marker: the one in parentheses after an address, or the one that follows directly.
fn words_after(text: &str, marker: &str) -> Option<String> {
    let rest = text.split_once(marker)?.1.trim_start();
    let symbol = match rest.split_once('(') {
        Some((address, symbol)) if address.trim().starts_with("0x") => symbol,
        _ => rest,
    };
    let symbol = symbol.split(['+', ')', ' ', '\t']).next()?;
    Some(symbol.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use schedswap_payload::manifest::DivertedFunction;

    fn ours() -> Functions {
        let function = |name: &str| DivertedFunction { name: name.into(), sympos: 0 };
        Functions::of(&["schedule_tail", "pick_next_task_fair", "wake_up_process"].map(function))
    }

    #[test]
    fn kprobes_in_a_window_refuse_and_others_do_not() {
        let list = "\
ffffffff8a0b9b90  k  schedule_tail+0x0    [FTRACE]
ffffffff8a0b9b90  k  schedule_tail+0x0    [DISABLED]
ffffffff8a0b9b95  k  pick_next_task_fair+0x5    
ffffffff8a0b9b96  k  pick_next_task_fair+0x6    [OPTIMIZED]
ffffffff8a0b9bb7  r  wake_up_process+0x27    [OPTIMIZED]
ffffffff8a0b9b95  k  pick_next_task_fair+0x5    [DISABLED]
ffffffffc0b9b950  k  schedule_tail+0x5  scheduler_0123abcd [OPTIMIZED]
ffffffff8a1b9b95  k  ext4_iget+0x5  ext4 
ffffffff8a1b9b95  k  do_sys_open+0x5    
";
        let found = kprobes_among(list, &ours());
        let seen: Vec<_> = found.iter().map(|c| (c.name.as_str(), c.refuses)).collect();
        assert_eq!(
            seen,
            [
                ("schedule_tail+0x0", false),
                ("schedule_tail+0x0", true),
                ("pick_next_task_fair+0x5", true),
                ("pick_next_task_fair+0x6", true),
                ("wake_up_process+0x27", false),
                ("pick_next_task_fair+0x5", true),
            ]
        );
    }

    #[test]
    fn ftrace_users_by_what_they_may_do() {
        let list = "\
schedule_tail (1) R I     \ttramp: 0xffffffffc0a30000 (klp_ftrace_handler+0x0/0x1d0) ->ftrace_ops_assist_func+0x0/0x100
pick_next_task_fair (1)             D   
\tdirect-->bpf_trampoline_6442503238_1+0x0/0x5e
wake_up_process (2)           \ttramp: 0xffffffffc0a32000 (function_trace_call+0x0/0x150) ->ftrace_ops_list_func+0x0
do_sys_open (1) R I     \ttramp: 0xffffffffc0a33000 (klp_ftrace_handler+0x0/0x1d0)
";
        let found = traced_among(list, &ours());
        let seen: Vec<_> = found.iter().map(|c| (c.holder, c.name.as_str(), c.refuses)).collect();
        assert_eq!(
            seen,
            [
                (Holder::Ipmodify, "klp_ftrace_handler", true),
                (Holder::Trampoline, "bpf_trampoline_6442503238_1", false),
                (Holder::Tracer, "function_trace_call", false),
            ]
        );
    }

    #[test]
    fn ipmodify_of_a_kprobe_or_of_an_older_kernel_s_direct_call_coexists() {
        let list = "\
schedule_tail (1) R I     \ttramp: 0xffffffffc0a30000 (kprobe_ftrace_handler+0x0/0x1d0)
pick_next_task_fair (1) R I D \tdirect-->bpf_trampoline_1+0x0/0x5e
wake_up_process (2) R I   \ttramp: ftrace_regs_caller+0x0/0x65 (ops_list_func+0x0)
";
        let refuses: Vec<_> = traced_among(list, &ours()).iter().map(|c| c.refuses).collect();
        assert_eq!(refuses, [false, false, true]);
    }
}
