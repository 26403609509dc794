//! Functions of the scheduler inside which threads sleep. Some thread is always on such a function's stack
//! frame, so it can never be replaced.
//!
//! Three ways lead there. A function may reach `__schedule` by direct branches through other functions of the
//! scheduler. It may wait by calling a sleeping function that its caller handed to it
//! (`__wait_for_common(x, schedule_timeout, …)`). Or it calls such a function, which lies outside the
//! scheduler, by name (`wait_woken()` calls `schedule_timeout()`).

use super::callers::SchedulerText;
use super::exceptions::PREEMPTION;
use schedswap_kernel::address::Addr;
use schedswap_kernel::vmlinux::{Image, SymbolId};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// The functions of the scheduler that sleep: entry address → the path by which, down to `__schedule`.
pub fn sleepers(image: &Image, text: &SchedulerText, schedule: Addr) -> BTreeMap<Addr, Vec<String>> {
    let mut found = direct(image, text, schedule);
    let handed = handed_a_sleeper(image, text, &found);
    for (addr, via) in handed {
        found.entry(addr).or_insert(via);
    }
    found.retain(|addr, _| text.contains(*addr) && *addr != schedule);
    found
}

/// Everything in the scheduler that reaches `__schedule` by direct branches through the scheduler.
fn direct(image: &Image, text: &SchedulerText, schedule: Addr) -> BTreeMap<Addr, Vec<String>> {
    let mut callers: HashMap<Addr, BTreeSet<SymbolId>> = HashMap::new();
    for branch in &image.uses.branches {
        callers.entry(branch.callee).or_default().insert(branch.caller);
    }
    let mut found = BTreeMap::from([(schedule, Vec::new())]);
    let mut queue = VecDeque::from([schedule]);
    while let Some(callee) = queue.pop_front() {
        // Whoever calls it is interrupted there, and does not wait.
        let is_preemption = |id| PREEMPTION.iter().any(|(name, _)| image.symbol(id).name == *name);
        if image.function_at(callee).is_some_and(is_preemption) {
            continue;
        }
        let via = found[&callee].clone();
        let mut path = vec![image.name_at(callee)];
        path.extend(via);
        for caller in callers.get(&callee).into_iter().flatten() {
            let addr = image.entry_of(*caller);
            if found.contains_key(&addr) {
                continue;
            }
            if text.contains(addr) {
                found.insert(addr, path.clone());
                queue.push_back(addr);
            }
        }
    }
    found
}

/// Scheduler functions that call a sleeping function through a pointer handed to them, or one outside by name;
/// and those of the scheduler that call these.
fn handed_a_sleeper(
    image: &Image,
    text: &SchedulerText,
    direct: &BTreeMap<Addr, Vec<String>>,
) -> BTreeMap<Addr, Vec<String>> {
    let outside = sleep_outside(image, text, direct);
    let sleeps = |target: Addr| direct.contains_key(&target) || outside.contains_key(&target);
    let calls_through_pointer: BTreeSet<Addr> =
        image.uses.indirect.iter().map(|id| image.symbol(*id).addr).collect();

    let mut found: BTreeMap<Addr, Vec<String>> = BTreeMap::new();
    let mut queue = VecDeque::new();
    for passed in image.uses.passed.iter().filter(|p| sleeps(p.target) && text.contains(p.callee)) {
        let waits = if calls_through_pointer.contains(&passed.callee) {
            vec![passed.callee]
        } else {
            // The pointer is handed on: out_of_line_wait_on_bit() gives it to __wait_on_bit().
            image
                .uses
                .branches
                .iter()
                .filter(|b| image.symbol(b.caller).addr == passed.callee && b.callee != passed.callee)
                .map(|b| b.callee)
                .filter(|callee| text.contains(*callee) && calls_through_pointer.contains(callee))
                .collect()
        };
        for addr in waits {
            let via = vec![format!("{} handed to it", image.name_at(passed.target))];
            if found.insert(addr, via).is_none() {
                queue.push_back(addr);
            }
        }
    }
    // schedule_timeout() and its like are called by the scheduler's own waits (wait_woken()) as well, and by
    // all of those to which it was to be handed, where the compiler has made a copy of the wait for each.
    for branch in image.uses.branches.iter().filter(|b| text.contains(b.at)) {
        let Some(name) = outside.get(&branch.callee) else { continue };
        let caller = image.entry_of(branch.caller);
        if found.insert(caller, vec![name.clone()]).is_none() {
            queue.push_back(caller);
        }
    }
    while let Some(addr) = queue.pop_front() {
        let mut path = vec![image.name_at(addr)];
        path.extend(found[&addr].clone());
        for branch in image.uses.branches.iter().filter(|b| b.callee == addr && text.contains(b.at)) {
            let caller = image.entry_of(branch.caller);
            if let Entry::Vacant(vacant) = found.entry(caller) {
                vacant.insert(path.clone());
                queue.push_back(caller);
            }
        }
    }
    found
}

/// Functions outside the scheduler that sleep themselves, by calling `schedule()`: `schedule_timeout()`. What
/// only passes a preemption point (`__cond_resched()`), or sleeps further down, is not among them: threads do
/// not rest there, and the stack check finds those that happen to.
fn sleep_outside(
    image: &Image,
    text: &SchedulerText,
    direct: &BTreeMap<Addr, Vec<String>>,
) -> BTreeMap<Addr, String> {
    let sleep = image.unique_symbol("schedule").map(|s| s.addr).filter(|addr| direct.contains_key(addr));
    image
        .uses
        .branches
        .iter()
        .filter(|b| Some(b.callee) == sleep && !text.contains(b.at))
        .map(|b| (image.entry_of(b.caller), image.name_at(image.entry_of(b.caller))))
        .collect()
}
