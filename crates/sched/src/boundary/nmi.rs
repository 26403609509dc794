//! Functions of the scheduler that NMIs run. The stop keeps interrupts off, but not NMIs: one that is between two
//! instructions of a window while that is written would go on in the middle of the jump. So these stay in vmlinux.
//!
//! From the handlers on, direct branches are followed through the whole kernel. Code that waits for a lock, or sleeps, is not
//! run by an NMI: it would wait for the very thread that the NMI has interrupted. Where code takes a lock only when it is not
//! run by an NMI, nothing in the binary tells; such places are in [`NMI_ENTRIES`].
//!
//! On arm64 a window is one instruction, and there is nothing in between.

use super::callers::SchedulerText;
use super::exceptions::{ENDS, NMI_ENTRIES};
use schedswap_kernel::address::Addr;
use schedswap_kernel::vmlinux::{Calls, Image, Machine};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What lies between these two takes and drops spinlocks (`__lockfunc`, `.spinlock.text`).
const LOCK_TEXT: [&str; 2] = ["__lock_text_start", "__lock_text_end"];
/// What `register_nmi_handler(type, fn, …)` calls the object that holds the handler: `fn_na`, and the compiler's number.
const HANDLER: &str = "_na";

/// The functions that NMIs run: entry → the path from the handler down to it, outermost first.
pub fn run_by_nmis(
    image: &Image,
    text: &SchedulerText,
    sleepers: &BTreeMap<Addr, Vec<String>>,
) -> BTreeMap<Addr, Vec<String>> {
    if image.machine != Machine::X86_64 {
        return BTreeMap::new();
    }
    let calls = Calls::of(image);
    let waiting = waiting(image, &calls, text, sleepers);
    let roots = handlers(image);
    let mut paths: BTreeMap<Addr, Vec<String>> = roots.iter().map(|addr| (*addr, Vec::new())).collect();
    let mut queue: VecDeque<Addr> = roots.iter().copied().collect();
    while let Some(caller) = queue.pop_front() {
        // A handler may take a lock of its own.
        if waiting.contains(&caller) && !roots.contains(&caller) {
            continue;
        }
        let mut path = paths[&caller].clone();
        path.push(image.name_at(caller));
        for callee in calls.callees(caller) {
            if !paths.contains_key(callee) && !ends(image, *callee) {
                paths.insert(*callee, path.clone());
                queue.push_back(*callee);
            }
        }
    }
    paths.retain(|addr, _| !waiting.contains(addr));
    paths
}

/// The machine does not go on after it.
fn ends(image: &Image, addr: Addr) -> bool {
    image.function_at(addr).is_some_and(|id| ENDS.iter().any(|(name, _)| *name == image.symbol(id).name))
}

/// What NMIs run first.
fn handlers(image: &Image) -> BTreeSet<Addr> {
    let is_entry = |name: &str| NMI_ENTRIES.iter().any(|(entry, _)| *entry == name);
    let entries = image.symbols.iter().filter(|s| s.is_function() && is_entry(&s.name)).map(|s| s.addr);
    let registered = image.uses.stored.iter().filter(|stored| {
        let (object, handler) = (stored.object.map(|id| image.symbol(id)), image.function_at(stored.target));
        let name = object.and_then(|object| object.name.split('.').next()?.strip_suffix(HANDLER));
        name.is_some() && name == handler.map(|id| &*image.symbol(id).name)
    });
    entries.chain(registered.map(|stored| stored.target)).collect()
}

/// Functions that may wait for a lock or sleep: they call what does, or a function of the scheduler that may.
fn waiting(
    image: &Image,
    calls: &Calls,
    text: &SchedulerText,
    sleepers: &BTreeMap<Addr, Vec<String>>,
) -> BTreeSet<Addr> {
    let mut waiting = BTreeSet::new();
    let mut next: Vec<Addr> = locks(image).chain(sleepers.keys().copied()).collect();
    while let Some(callee) = next.pop() {
        for caller in calls.callers(callee) {
            if waiting.insert(caller) && text.contains(caller) {
                next.push(caller);
            }
        }
    }
    waiting
}

/// The functions that wait for a spinlock: of those in its section, not the ones that try, and not those that drop it.
fn locks(image: &Image) -> impl Iterator<Item = Addr> {
    let [start, end] = LOCK_TEXT.map(|name| image.unique_symbol(name).map(|symbol| symbol.addr));
    let section = start.unwrap_or_default()..end.unwrap_or_default();
    let waits = |name: &str| name.contains("lock") && !name.contains("trylock") && !name.contains("unlock");
    let symbols = image.symbols.iter().filter(move |s| section.contains(&s.addr) && s.is_function());
    symbols.filter(move |symbol| waits(&symbol.name)).map(|symbol| symbol.addr)
}
