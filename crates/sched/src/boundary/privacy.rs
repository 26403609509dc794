//! What keeps a variable from being the module's own.
//!
//! A private copy is right only if nothing goes on using vmlinux's: neither code outside the scheduler, nor what of the
//! scheduler stays in vmlinux, nor code that got its address; and only if it may begin anew.

use super::callers::SchedulerText;
use super::{BoundaryFunction, Fate, StayReason};
use schedswap_kernel::address::Addr;
use schedswap_kernel::vmlinux::{HeldKind, Image, Variable};
use std::collections::{BTreeMap, BTreeSet};

/// Names listed of a kind before the rest is only counted.
const LISTED: usize = 4;

/// Who refers to the scheduler's variables, arranged for asking.
pub(super) struct Users<'a> {
    image: &'a Image,
    text: &'a SchedulerText,
    /// By entry: functions of the scheduler of which vmlinux's code goes on running, and why.
    stays: BTreeMap<Addr, Stays>,
    /// Entry → first address of each range of code.
    parts: Vec<(Addr, Addr, Addr)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stays {
    /// Runs again.
    Runs,
    /// Ran at boot.
    RanAtBoot,
}

/// What was found about one variable.
#[derive(Clone, Default, Debug)]
pub(super) struct Privacy {
    /// Functions outside the scheduler's units that refer to it.
    pub used_from: Vec<String>,
    /// Objects that hold its address.
    pub held_by: Vec<String>,
    /// Why it cannot be the module's own.
    pub obstacles: Vec<String>,
    /// Why it can only be if its value is carried.
    pub needs_value: Option<String>,
    /// Why its value cannot be carried.
    pub not_carried: Option<String>,
    /// Its pointers: what they lead to in vmlinux, those of a copy do not.
    pub pointers: Vec<String>,
    /// What else a person must have thought about if it is to be the module's own.
    pub doubts: Vec<String>,
}

impl<'a> Users<'a> {
    pub fn new(image: &'a Image, text: &'a SchedulerText, functions: &[BoundaryFunction]) -> Users<'a> {
        let mut users = Users { image, text, stays: BTreeMap::new(), parts: Vec::new() };
        for f in functions {
            let stays = match &f.fate {
                Fate::Stay(StayReason::Init) => Some(Stays::RanAtBoot),
                // vmlinux never runs it.
                Fate::Stay(StayReason::OverriddenWeak) => None,
                Fate::Stay(_) | Fate::Duplicate(_) => Some(Stays::Runs),
                Fate::Divert(_) | Fate::InsideOnly(_) | Fate::Springboard(_) => None,
            };
            users.stays.extend(stays.map(|stays| (f.addr, stays)));
            users.parts.extend(f.ranges.iter().map(|r| (r.start, r.end, f.addr)));
        }
        users.parts.sort_unstable();
        users
    }

    /// The entry of the scheduler's function that an instruction belongs to.
    fn function_at(&self, at: Addr) -> Option<Addr> {
        let after = self.parts.partition_point(|part| part.0 <= at);
        self.parts[..after].last().filter(|part| at < part.1).map(|part| part.2)
    }

    /// What is to be said of a variable.
    pub fn of(&self, variable: &Variable) -> Privacy {
        let mut found = Privacy::default();
        let name = |id| self.image.symbol(id).name.clone();
        let (mut outside, mut staying, mut at_boot, mut taken_at_boot, mut taken) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let end = variable.addr + variable.size.max(1);
        let uses = &self.image.uses.data;
        let first = uses.partition_point(|u| u.target < variable.addr);
        for used in uses[first..].iter().take_while(|u| u.target < end) {
            let function = name(used.function);
            let is_init = self.is_init(used.at);
            let stays = self.function_at(used.at).and_then(|entry| self.stays.get(&entry).copied());
            match stays {
                _ if is_init && used.is_taken => drop(taken_at_boot.insert(function)),
                _ if is_init => drop(at_boot.insert(function)),
                _ if !self.text.contains(used.at) => drop(outside.insert(function)),
                Some(Stays::RanAtBoot) if used.is_taken => drop(taken_at_boot.insert(function)),
                Some(Stays::RanAtBoot) => drop(at_boot.insert(function)),
                Some(Stays::Runs) => drop(staying.insert(function)),
                None if used.is_taken => drop(taken.insert(function)),
                None => {}
            }
        }
        let held = &self.image.uses.held;
        let first = held.partition_point(|h| h.target < variable.addr);
        let inside = variable.addr..end;
        let holders: BTreeSet<String> = held[first..]
            .iter()
            .take_while(|h| h.target < end)
            .filter(|h| !inside.contains(&h.at))
            .map(|h| match h.object {
                Some(object) => name(object),
                None => format!("{} at {}", self.image.sections[h.section].name, h.at),
            })
            .collect();

        if variable.external && self.image.exports.contains_key(&variable.name) {
            found.obstacles.push("it is exported, so modules use vmlinux's".to_owned());
        }
        found.add("code outside the scheduler uses vmlinux's:", &outside);
        found.add("what stays in vmlinux uses vmlinux's:", &staying);
        found.add("its address is held by", &holders);
        found.add("its address was handed out at boot by", &taken_at_boot);
        found.add_parts(variable);
        if let Some(what) = self.is_constant(variable) {
            found.not_carried.get_or_insert(what);
        }
        if !at_boot.is_empty() {
            found.needs_value = Some(format!("it was set up at boot by {}", some(&at_boot)));
        }
        if !taken.is_empty() {
            found.doubts.push(format!(
                "its address is taken by {}: code that keeps it has to let go of it before the module is unloaded",
                some(&taken)
            ));
        }
        found.used_from = outside.into_iter().collect();
        found.held_by = holders.into_iter().collect();
        found
    }

    /// Why a variable has no value that changes.
    fn is_constant(&self, variable: &Variable) -> Option<String> {
        let between = |start: &str, end: &str| {
            let at = |name: &str| self.image.unique_symbol(name).map(|s| s.addr);
            at(start).zip(at(end)).is_some_and(|(start, end)| start <= variable.addr && variable.addr < end)
        };
        if between("__start_ro_after_init", "__end_ro_after_init") {
            return Some(
                "it is read-only once the kernel has booted, so nothing could be carried back".to_owned(),
            );
        }
        let (_, section) = self.image.section_at(variable.addr)?;
        let is_writable = section.flags & object::elf::SHF_WRITE.0 != 0;
        (!is_writable || between("__start_rodata", "__end_rodata"))
            .then(|| "it is a constant, which has no value to carry".to_owned())
    }

    fn is_init(&self, at: Addr) -> bool {
        let at_of = |name: &str| self.image.unique_symbol(name).map(|s| s.addr);
        let of_section = || self.image.section_at(at).is_some_and(|(_, s)| s.name.starts_with(".init"));
        at_of("__init_begin").zip(at_of("__init_end")).is_some_and(|(a, b)| a <= at && at < b) || of_section()
    }
}

impl Privacy {
    fn add(&mut self, what: &str, who: &BTreeSet<String>) {
        if !who.is_empty() {
            self.obstacles.push(format!("{what} {}", some(who)));
        }
    }

    /// What its type has in the way.
    fn add_parts(&mut self, variable: &Variable) {
        let mut parts: BTreeMap<HeldKind, BTreeSet<String>> = BTreeMap::new();
        for held in &variable.holds {
            let part = if held.path.is_empty() { "itself".to_owned() } else { held.path.clone() };
            parts.entry(held.kind).or_default().insert(part);
        }
        for (kind, parts) in parts {
            let parts = some(&parts);
            match kind {
                HeldKind::Link => self.obstacles.push(format!("others are linked into it ({parts})")),
                HeldKind::Lock => {
                    self.obstacles
                        .push(format!("it is or holds a lock ({parts}), and vmlinux's may be held"));
                }
                HeldKind::Pointer => {
                    self.pointers
                        .push(format!("it holds a pointer ({parts}), which begins as the source says"));
                    let why =
                        format!("it holds a pointer ({parts}), which may lead into the module when it goes");
                    self.not_carried.get_or_insert(why);
                }
                HeldKind::Unknown => {
                    self.not_carried.get_or_insert(format!("its type is not fully described ({parts})"));
                }
            }
        }
        if variable.size == 0 {
            self.not_carried.get_or_insert("its size is not known".to_owned());
        }
    }
}

/// The first few names.
fn some(names: &BTreeSet<String>) -> String {
    let shown: Vec<&str> = names.iter().take(LISTED).map(String::as_str).collect();
    match names.len().saturating_sub(LISTED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
