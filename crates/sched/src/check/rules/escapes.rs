//! SS112 and SS203: new functions that the kernel may still call after the module is unloaded.
//!
//! The kernel calls a timer's, a work item's or a notifier's function through an address that it was given. The address
//! of a function of vmlinux stays valid; that of a new function is the module's. [`follow`] says where such addresses go
//! in the compiled code. An address does no harm if it is only called or compared, or passed to the module's own
//! functions that do no more with it. If it is stored, or passed to a function outside, it outlives the module unless
//! the module takes it back before it is unloaded.

use super::Facts;
use crate::boundary::{Boundary, Fate};
use crate::check::compare::{Place as SourcePlace, UnitBuilds, is_shared};
use crate::check::finding::{Code, Finding, finding};
use crate::check::follow::{self, AddressFate, UnitSymbol, Use};
use crate::check::words::explain;
use schedswap_kernel::objects::{Object, Place};
use std::collections::{BTreeSet, HashMap};

/// Sections in which an author declares something to the runtime, which forgets it with the module.
const DECLARED: &str = ".schedswap.";
/// How the symbols begin of functions that the runtime calls before and after unloading.
const CLEANUPS: [&str; 2] = ["ss_before_unload__", "ss_after_unload__"];

/// How many variables and arguments of the module an address is followed through, at most.
const HOPS_MAX: usize = 8;

/// New functions whose addresses get out.
pub fn escaping_functions(facts: &Facts) -> Vec<Finding> {
    let Facts { boundary, builds, arities, edited: objects, .. } = *facts;
    let new = new_functions(builds, boundary);
    if new.is_empty() {
        return Vec::new();
    }
    let has_cleanup = objects.iter().any(|(_, object)| registers_cleanup(object));
    let code = if has_cleanup { Code::EscapesWithCleanUp } else { Code::Escapes };
    let inside = Inside { objects, boundary, arities };
    let mut findings = Vec::new();
    for function in new {
        let Some(way) = inside.escape(&function) else { continue };
        let place = facts.sources.edited.place_of(&function.name, &function.unit);
        let place = place.unwrap_or(SourcePlace { file: function.unit.clone(), line: 0 });
        findings.push(finding(code, &function.name, place, explain::escapes(&way, has_cleanup)));
    }
    findings
}

fn registers_cleanup(object: &Object) -> bool {
    object.symbols.iter().any(|symbol| {
        let is_declared = |id| object.section(id).name.starts_with(DECLARED);
        let is_cleanup = CLEANUPS.iter().any(|cleanup| symbol.name.starts_with(cleanup));
        is_cleanup && matches!(symbol.place, Place::Section(id) if is_declared(id))
    })
}

/// Functions that only the module has, and carries.
fn new_functions(builds: &[UnitBuilds], boundary: &Boundary) -> Vec<UnitSymbol> {
    let mut new = Vec::new();
    for unit in builds {
        for symbol in unit.edited.carried_symbols() {
            let source_name = symbol.name.split('.').next().unwrap_or_default();
            let was_there = builds.iter().any(|b| b.pristine.has_source_name(source_name));
            let is_vmlinuxs = boundary.function(unit.unit, &symbol.name).is_some();
            if !was_there && !is_vmlinuxs {
                new.push(UnitSymbol { unit: unit.unit.to_owned(), name: symbol.name.clone() });
            }
        }
    }
    new
}

/// The code and data of the module-to-be.
struct Inside<'a> {
    objects: &'a [(String, Object)],
    boundary: &'a Boundary,
    arities: &'a HashMap<String, usize>,
}

/// Where the address is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Held {
    /// It is this one's; or this variable has it in it.
    By(UnitSymbol),
    /// It is an argument of one of the module's functions.
    As { function: String, argument: usize },
}

/// What becomes of an address that is used.
enum After {
    /// It goes nowhere.
    Nothing,
    /// It leaves the module; in words.
    Out(String),
    /// It is there; in words.
    On(Held, String),
}

impl Inside<'_> {
    /// How a function's address gets out, in words; `None` if it does not.
    fn escape(&self, function: &UnitSymbol) -> Option<String> {
        let itself = Held::By(function.clone());
        let mut open = vec![(itself.clone(), String::new())];
        let mut seen = BTreeSet::from([itself.clone()]);
        for _ in 0..HOPS_MAX {
            let mut next = Vec::new();
            for (held, way) in open {
                for used in self.uses(&held) {
                    match self.after(used, held == itself) {
                        After::Nothing => {}
                        After::Out(step) => return Some(format!("{way}{step}")),
                        After::On(to, step) => {
                            if seen.insert(to.clone()) {
                                next.push((to, format!("{way}{step}")));
                            }
                        }
                    }
                }
            }
            open = next;
        }
        None
    }

    fn uses(&self, held: &Held) -> Vec<Use> {
        match held {
            Held::By(target) => follow::uses(self.objects, target),
            Held::As { function, argument } => follow::uses_of_argument(self.objects, function, *argument),
        }
    }

    /// Where an address is after one use of it. `is_itself`: the function's own address, rather than that of a variable
    /// or argument that has it.
    fn after(&self, used: Use, is_itself: bool) -> After {
        let Use { unit, by, fate } = used;
        match fate {
            AddressFate::Passed { to, argument } if !self.takes(&to, argument) => After::Nothing,
            AddressFate::Passed { to, .. } if !self.is_the_modules(&to) => {
                After::Out(explain::handed_to(&to, &by))
            }
            AddressFate::Passed { to, argument } => {
                let step = format!("{}; ", explain::handed_to(&to, &by));
                After::On(Held::As { function: to, argument }, step)
            }
            AddressFate::Stored => After::Out(explain::stored_by(&by)),
            AddressFate::Unknown if is_itself => After::Out(explain::taken_by(&by)),
            AddressFate::Unknown => After::Nothing,
            AddressFate::Data { variable, section } => {
                let holder = UnitSymbol { unit, name: variable };
                if self.is_harmless(&holder, &section) {
                    return After::Nothing;
                }
                let step = explain::held_in(&holder.name);
                After::On(Held::By(holder), step)
            }
        }
    }

    /// Whether an address in this variable stays within the module, or has no effect.
    fn is_harmless(&self, holder: &UnitSymbol, section: &str) -> bool {
        section.ends_with("_sched_class")
            || section.starts_with(DECLARED)
            || is_shared(self.boundary, &holder.unit, &holder.name)
    }

    /// Whether a function has that many parameters; assumed if it is not known.
    fn takes(&self, function: &str, argument: usize) -> bool {
        self.arities.get(function).is_none_or(|arity| argument < *arity)
    }

    /// Whether a call of that name reaches code of the module.
    fn is_the_modules(&self, name: &str) -> bool {
        let defined = self.objects.iter().any(|(_, object)| follow::defines_function(object, name));
        let stays = self.boundary.functions.iter().any(|f| f.name == name && matches!(f.fate, Fate::Stay(_)));
        defined && !stays
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{NONE, check, one};
    use super::*;

    /// Code before `tick`, and code in it.
    fn with(before: &str, inside: &str) -> Vec<(Code, String)> {
        let before = format!("{before}\nvoid tick(struct task *task)");
        check(&[("void tick(struct task *task)", &before), ("clock_now & 15", &format!("({inside}, 4)"))])
    }

    const TIMER: &str = "struct timer { long at; void (*fn)(void *); };
        extern void start(struct timer *timer, long at); extern void call_later(void (*fn)(void *), void *data);
        extern struct timer *kernels_timer;
        extern long used;
        static __attribute__((noinline)) void fire(void *data) { used += (long)data; }";

    #[test]
    fn an_address_handed_to_a_function_outside_escapes() {
        assert_eq!(with(TIMER, "call_later(fire, task)"), one(Code::Escapes, "fire"));
    }

    #[test]
    fn an_address_stored_in_the_kernels_memory_escapes() {
        assert_eq!(with(TIMER, "kernels_timer->fn = fire"), one(Code::Escapes, "fire"));
    }

    #[test]
    fn an_address_in_a_variable_that_is_handed_out_escapes() {
        let before = format!("{TIMER}\nstatic struct timer novel = {{ 0, fire }};");
        assert_eq!(with(&before, "start(&novel, 5)"), one(Code::Escapes, "fire"));
    }

    #[test]
    fn an_address_that_a_function_of_the_module_hands_on_escapes() {
        let before = format!(
            "{TIMER}\nstatic __attribute__((noinline)) void arm(int when, void (*fn)(void *)) {{ used += when; call_later(fn, 0); }}"
        );
        assert_eq!(with(&before, "arm(5, fire), arm(clock_now, fire)"), one(Code::Escapes, "fire"));
    }

    #[test]
    fn a_clean_up_makes_it_a_warning_and_another_hook_does_not() {
        let hook = |point: &str| {
            format!(
                "{TIMER}\nstatic void stop(int event) {{ used = event; }}
                static const struct {{ int point; void (*call)(int); }} ss_{point}__stop
                __attribute__((used, section(\".schedswap.hooks\"))) = {{ 3, stop }};"
            )
        };
        assert_eq!(
            with(&hook("before_unload"), "call_later(fire, task)"),
            one(Code::EscapesWithCleanUp, "fire")
        );
        assert_eq!(with(&hook("before_swap"), "call_later(fire, task)"), one(Code::Escapes, "fire"));
    }

    #[test]
    fn what_is_called_compared_or_kept_inside_does_not_escape() {
        assert_eq!(with(TIMER, "fire(task)"), NONE);
        assert_eq!(with(TIMER, "used = kernels_timer->fn == fire"), NONE);
        let inside = format!(
            "{TIMER}\nstatic __attribute__((noinline)) void each(void (*fn)(void *), void *data) {{ fn(data); fn(0); }}
            static __attribute__((noinline)) void other(void *data) {{ used -= (long)data; }}"
        );
        assert_eq!(with(&inside, "each(fire, task), each(other, task)"), NONE);
        let table = format!(
            "{TIMER}\nstatic __attribute__((noinline)) void other(void *data) {{ used -= (long)data; }}
            static void (*const table[])(void *) = {{ fire, other }};"
        );
        assert_eq!(with(&table, "table[task->nice & 1](task)"), NONE);
    }

    #[test]
    fn the_address_of_a_function_that_vmlinux_has_is_safe() {
        assert_eq!(with(TIMER, "call_later((void *)inner, task)"), NONE);
    }
}
