//! The rules.

use super::code::{Functions, UnitBuilds};
use super::finding::{Code, Finding, finding};
use super::frozen::{Frozen, FrozenCopy, HeldBy, is_replaced, keeps_running};
use super::source::{Change, Place, Sources};
use super::{CheckError, escapes, explain, initial, signatures, variants};
use crate::boundary::{Boundary, BoundaryFunction, Class, Fate, Sharing, StayReason};
use object::elf;
use schedswap_kernel::objects::Object;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What the rules look at.
pub struct Facts<'a> {
    pub frozen: &'a Frozen,
    pub entry_sizes: &'a BTreeMap<String, u64>,
    pub boundary: &'a Boundary,
    pub pristine: &'a [(String, Object)],
    pub edited: &'a [(String, Object)],
    /// How many parameters functions take, as far as it is known.
    pub arities: &'a HashMap<String, usize>,
    pub sources: Sources<'a>,
}

/// Variables of which the module has a copy of its own.
pub fn private_variables(boundary: &Boundary) -> HashSet<String> {
    let private = boundary.variables.iter().filter(|v| matches!(v.sharing, Sharing::Private(_)));
    private.map(|v| v.name.clone()).collect()
}

/// Puts the two builds of each unit side by side.
pub fn builds<'a>(
    facts: &Facts<'a>,
    private: &'a HashSet<String>,
) -> Result<Vec<UnitBuilds<'a>>, CheckError> {
    let mut builds = Vec::new();
    for (unit, object) in facts.pristine {
        let edited = facts.edited.iter().find(|(name, _)| name == unit);
        let (_, edited) = edited.ok_or_else(|| CheckError::MissingUnit { unit: unit.clone() })?;
        builds.push(UnitBuilds {
            unit,
            pristine: Functions::new(object, facts.entry_sizes, private),
            edited: Functions::new(edited, facts.entry_sizes, private),
        });
    }
    Ok(builds)
}

/// Applies the rules that need no declarations; `others` is what those say that do.
pub fn run(facts: &Facts, builds: &[UnitBuilds], others: Vec<Finding>) -> Vec<Finding> {
    let rules = Rules { facts, builds };
    let (boundary, sources) = (facts.boundary, &facts.sources);
    let mut findings = others;
    findings.extend(rules.changed_functions());
    findings.extend(rules.changed_helpers());
    findings.extend(rules.vanished_functions());
    // A structure that grows makes variables of it grow, which then is said already.
    let is_said = findings.iter().any(|finding| finding.code == Code::ChangedLayout);
    for unit in builds {
        let values = initial::changed_initial_values(unit, boundary, sources);
        findings.extend(values.into_iter().filter(|value| !is_said || value.code != Code::ChangedLayout));
    }
    // With a system call's parameters its tables change.
    let calls = signatures::changed_system_calls(sources);
    let is_table = |finding: &Finding| {
        finding.code == Code::ChangedInitialValue
            && calls.iter().any(|call| (&call.file, call.line) == (&finding.file, finding.line))
    };
    findings.retain(|finding| !is_table(finding));
    findings.extend(calls);
    findings.extend(variants::new_variants(builds, facts.edited, boundary, sources));
    findings.extend(escapes::escaping_functions(builds, facts.edited, boundary, facts.arities, sources));
    if findings.is_empty() {
        findings.extend(rules.nothing_changed());
    }
    findings.sort_by(|a, b| {
        (a.severity, &a.file, a.line, a.code, &a.symbol)
            .cmp(&(b.severity, &b.file, b.line, b.code, &b.symbol))
    });
    // A system call is several functions from one definition; a variable's size and type are one change.
    findings.dedup_by(|a, b| a.line != 0 && (a.code, &a.file, a.line) == (b.code, &b.file, b.line));
    findings
}

struct Rules<'a> {
    facts: &'a Facts<'a>,
    builds: &'a [UnitBuilds<'a>],
}

impl Rules<'_> {
    fn builds_of(&self, unit: &str) -> Option<&UnitBuilds<'_>> {
        self.builds.iter().find(|builds| builds.unit == unit)
    }

    /// Whether a function compiles differently, or no longer does. One that the pristine build lacks too has
    /// not changed.
    fn differs(&self, unit: &str, name: &str) -> bool {
        self.builds_of(unit).is_some_and(|builds| {
            let pristine = builds.pristine.code(name);
            pristine.is_some() && pristine != builds.edited.code(name)
        })
    }

    /// SS101, SS102, SS103, SS106, SS201: functions that stay in vmlinux.
    fn changed_functions(&self) -> Vec<Finding> {
        let functions = self.facts.boundary.functions.iter();
        let mut findings: Vec<Finding> = functions.filter_map(|f| self.changed_function(f)).collect();
        for builds in self.builds {
            findings.extend(self.changed_weak_functions(builds));
        }
        findings
    }

    fn changed_function(&self, function: &BoundaryFunction) -> Option<Finding> {
        let Fate::Stay(reason) = &function.fate else { return None };
        if !self.differs(&function.unit, &function.name) {
            return None;
        }
        let sources = &self.facts.sources;
        let (file, line) = (function.decl_file.as_str(), function.decl_line);
        let is_edited = sources.change(file, line) != Change::Unchanged;
        let place = sources.place(file, line);
        let of = |code, text| Some(finding(code, &function.name, place.clone(), text));
        match reason {
            StayReason::Init => is_edited.then(|| of(Code::ChangedInit, explain::changed_init()))?,
            StayReason::OverriddenWeak => {
                is_edited.then(|| of(Code::ChangedWeak, explain::changed_weak()))?
            }
            _ if is_edited => {
                let callees = self.facts.frozen.replaced_callees.get(&function.addr);
                of(Code::ChangedOutsider, explain::changed_outsider(reason, callees))
            }
            // Reported once, under the helper's name.
            _ if self.has_changed_helper(function) => None,
            _ => match sources.changed_declaration() {
                Some(cause) => {
                    of(Code::ChangedUnderOutsider, explain::changed_under_outsider(reason, &cause))
                }
                None => match self.changed_variants_of(function) {
                    Some(callees) => of(Code::ChangedVariant, explain::changed_variant(&callees)),
                    None if self.is_variant_for_the_module(function) => {
                        of(Code::ChangedVariant, explain::changed_staying_variant(reason))
                    }
                    None => of(Code::CompiledDifferently, explain::compiled_differently(reason)),
                },
            },
        }
    }

    /// The variants of functions that a function that stays calls, and that are not what they were.
    fn changed_variants_of(&self, caller: &BoundaryFunction) -> Option<String> {
        let callees = self.facts.frozen.replaced_callees.get(&caller.addr)?;
        let is_changed = |name: &&String| variants::is_variant(name) && self.differs(&caller.unit, name);
        explain::list(callees.iter().filter(is_changed))
    }

    /// Whether it is a variant of a function, called by code of the module.
    fn is_variant_for_the_module(&self, function: &BoundaryFunction) -> bool {
        let object = self.facts.edited.iter().find(|(unit, _)| *unit == function.unit);
        variants::is_variant(&function.name)
            && object.is_some_and(|(unit, object)| {
                variants::calls_from_the_module(object, unit, &function.name, self.facts.boundary)
            })
    }

    fn has_changed_helper(&self, holder: &BoundaryFunction) -> bool {
        let in_holder = |copy: &&FrozenCopy| {
            copy.holder == holder.name && copy.held_by == HeldBy::Outsider { unit: holder.unit.clone() }
        };
        let mut copies = self.facts.frozen.copies.iter().filter(in_holder);
        copies.any(|copy| self.facts.sources.change(&copy.decl_file, copy.decl_line) != Change::Unchanged)
    }

    /// SS103 for weak functions that vmlinux does not have at all, so that the boundary does not list them.
    fn changed_weak_functions(&self, builds: &UnitBuilds) -> Vec<Finding> {
        let listed = |name: &str| self.facts.boundary.function(builds.unit, name).is_some();
        let weak = builds.pristine.symbols().filter(|s| s.binding == elf::STB_WEAK.0 && !listed(&s.name));
        weak.filter(|symbol| self.differs(builds.unit, &symbol.name))
            .filter_map(|symbol| {
                let sources = &self.facts.sources;
                let before = sources.pristine.place_of(&symbol.name, builds.unit)?;
                let is_edited = sources.change(&before.file, before.line) != Change::Unchanged;
                let place = sources.place(&before.file, before.line);
                is_edited.then(|| finding(Code::ChangedWeak, &symbol.name, place, explain::changed_weak()))
            })
            .collect()
    }

    /// SS104: helpers with inlined copies in code that is not replaced. Also SS102, for a helper of boot code.
    fn changed_helpers(&self) -> Vec<Finding> {
        let mut helpers: BTreeMap<(&str, u32), Vec<&FrozenCopy>> = BTreeMap::new();
        for copy in &self.facts.frozen.copies {
            helpers.entry((&copy.decl_file, copy.decl_line)).or_default().push(copy);
        }
        let helpers = helpers.into_iter();
        helpers.filter_map(|((file, line), copies)| self.changed_helper(file, line, &copies)).collect()
    }

    fn changed_helper(&self, file: &str, line: u32, copies: &[&FrozenCopy]) -> Option<Finding> {
        let sources = &self.facts.sources;
        if sources.change(file, line) == Change::Unchanged || self.is_changed_outsider(file, line) {
            return None;
        }
        let helper = copies[0].helper.as_str();
        let place = sources.place(file, line);
        let holders: BTreeSet<String> = copies.iter().filter_map(|copy| self.stale_holder(copy)).collect();
        if !holders.is_empty() {
            return Some(finding(Code::FrozenInline, helper, place, explain::frozen_inline(&holders)));
        }
        let in_boot_code = copies.iter().any(|copy| copy.held_by == HeldBy::Init);
        let is_init = in_boot_code && sources.has_word(file, line, "__init");
        is_init.then(|| finding(Code::ChangedInit, helper, place, explain::changed_init()))
    }

    /// The function that holds an old copy, if the copy is now out of date.
    fn stale_holder(&self, copy: &FrozenCopy) -> Option<String> {
        match &copy.held_by {
            HeldBy::Init => None,
            // The same source under the holder's own configuration: it is stale only if it compiles differently.
            HeldBy::Outsider { unit } => self.differs(unit, &copy.holder).then(|| copy.holder.clone()),
            HeldBy::Elsewhere { unit } => Some(format!("{} ({unit})", copy.holder)),
        }
    }

    /// Whether the definition there is a function that is reported itself, as one that stays.
    fn is_changed_outsider(&self, file: &str, line: u32) -> bool {
        let mut functions = self.facts.boundary.functions.iter();
        functions.any(|f| {
            (f.decl_file.as_str(), f.decl_line) == (file, line)
                && keeps_running(f)
                && self.differs(&f.unit, &f.name)
        })
    }

    /// SS105: functions that vmlinux goes on calling, but the module no longer has.
    fn vanished_functions(&self) -> Vec<Finding> {
        let replaced = self.facts.boundary.functions.iter().filter(|f| is_replaced(f));
        replaced.filter_map(|function| self.vanished_function(function)).collect()
    }

    fn vanished_function(&self, function: &BoundaryFunction) -> Option<Finding> {
        let builds = self.builds_of(&function.unit)?;
        let was_there = builds.pristine.has(&function.name);
        // A global one may have moved to another unit.
        let is_there = match function.local {
            true => builds.edited.has(&function.name),
            false => self.builds.iter().any(|builds| builds.edited.has(&function.name)),
        };
        if !was_there || is_there {
            return None;
        }
        let users = self.remaining_users(function);
        if users.is_empty()
            && function.class == Class::Insider
            && !matches!(function.fate, Fate::Springboard(_))
        {
            return None;
        }
        let sources = &self.facts.sources;
        let place = sources.place(&function.decl_file, function.decl_line);
        let is_defined = sources.change(&function.decl_file, function.decl_line) != Change::Removed;
        Some(finding(
            Code::Vanished,
            &function.name,
            place,
            explain::vanished(&function.name, &users, function, is_defined),
        ))
    }

    /// Who reaches vmlinux's function and stays, in words.
    fn remaining_users(&self, function: &BoundaryFunction) -> Vec<String> {
        let mut users = Vec::new();
        let mut add = |what: &str, names: &mut dyn Iterator<Item = &String>| {
            if let Some(list) = explain::list(names) {
                users.push(format!("{what} {list}"));
            }
        };
        add("it is called from", &mut function.called_from.iter());
        add(
            "it is used by",
            &mut self.facts.frozen.staying_callers.get(&function.addr).into_iter().flatten(),
        );
        add("its address is stored in", &mut function.stored_in.iter());
        if function.exported {
            users.push("it is exported to modules".to_owned());
        }
        users
    }

    /// SS202.
    fn nothing_changed(&self) -> Option<Finding> {
        let is_same = |builds: &UnitBuilds| {
            let names = |functions: &Functions| -> BTreeSet<String> {
                functions.symbols().map(|symbol| symbol.name.clone()).collect()
            };
            let before = names(&builds.pristine);
            before == names(&builds.edited)
                && builds.pristine.variables() == builds.edited.variables()
                && before.iter().all(|name| builds.pristine.code(name) == builds.edited.code(name))
        };
        let place = Place { file: String::new(), line: 0 };
        self.builds
            .iter()
            .all(is_same)
            .then(|| finding(Code::NothingChanged, "", place, explain::nothing_changed()))
    }
}
