//! SS108: functions that code outside the module calls with the old parameters.

use super::frozen::{Frozen, is_replaced};
use super::variants::is_variant;
use crate::boundary::{Boundary, Class};
use crate::check::compare::{Declared, Place};
use crate::check::finding::{Code, Finding, finding};
use crate::check::words::explain;
use gimli::constants as dw;
use schedswap_kernel::types::{Function, Type, TypeId, Types};
use std::collections::BTreeSet;

/// Changed prototypes of functions that are reached from outside.
pub fn changed_signatures(declared: &Declared, boundary: &Boundary, frozen: &Frozen) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    for (before, after) in declared.pairs() {
        for function in boundary.functions.iter().filter(|f| f.unit == before.unit && is_replaced(f)) {
            let users = users(function.class, &function.called_from, &function.stored_in, function.exported);
            let stayers = frozen.staying_callers.get(&function.addr);
            if users.is_none() && stayers.is_none() || function.name.contains('.') {
                continue;
            }
            let (Some(was), Some(is)) = (prototype(before, &function.name), prototype(after, &function.name))
            else {
                continue;
            };
            let convention = |types: &Types, function: &Function| Convention::of(types, function);
            if convention(before, was).serves(&convention(after, is)) {
                continue;
            }
            let users = users.or_else(|| explain::list(stayers?).map(|list| format!("it is used by {list}")));
            let text = explain::changed_signature(
                &before.prototype_words(&was.prototype),
                &after.prototype_words(&is.prototype),
                &users.unwrap_or_default(),
            );
            let place = Place { file: is.place.file.clone(), line: is.place.line };
            if seen.insert(function.name.clone()) {
                findings.push(finding(Code::ChangedSignature, &function.name, place, text));
            }
        }
    }
    findings
}

fn users(class: Class, called_from: &[String], stored_in: &[String], exported: bool) -> Option<String> {
    match class {
        Class::Insider => None,
        _ if !called_from.is_empty() => {
            explain::list(called_from).map(|list| format!("it is called from {list}"))
        }
        _ if exported => Some("it is exported to modules".to_owned()),
        _ => Some(match explain::list(stored_in) {
            Some(list) => format!("its address is stored in {list}"),
            None => "it is reached through stored addresses".to_owned(),
        }),
    }
}

/// Replaced functions, by unit and name, whose prototypes differ in what caller and callee must agree on. Nobody outside
/// the module calls them, or [`changed_signatures`] refuses the edit. Of variants nothing is said.
pub fn called_otherwise(declared: &Declared, boundary: &Boundary) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for (before, after) in declared.pairs() {
        let functions = boundary.functions.iter().filter(|f| f.unit == before.unit && is_replaced(f));
        for function in functions.filter(|f| !is_variant(&f.name)) {
            let was = prototype(before, &function.name).map(|f| Convention::of(before, f));
            let is = prototype(after, &function.name).map(|f| Convention::of(after, f));
            // Of a function without a prototype nothing is known.
            if was.is_none() || was != is {
                found.insert((function.unit.clone(), function.name.clone()));
            }
        }
    }
    found
}

/// The function's own prototype in a unit: of its definition, if there is one.
fn prototype<'t>(types: &'t Types, name: &str) -> Option<&'t Function> {
    let named = || types.functions.iter().filter(|f| f.name == name);
    named().find(|f| !f.is_declaration).or_else(|| named().next())
}

/// What caller and callee must agree on.
#[derive(PartialEq, Eq)]
struct Convention {
    returns: String,
    parameters: Vec<String>,
    is_variadic: bool,
}

impl Convention {
    fn of(types: &Types, function: &Function) -> Convention {
        let prototype = &function.prototype;
        Convention {
            returns: word(types, prototype.returns),
            parameters: prototype.parameters.iter().map(|p| word(types, *p)).collect(),
            is_variadic: prototype.is_variadic,
        }
    }

    /// Whether a caller compiled for this one works with `new`. A caller that expects no result ignores one.
    fn serves(&self, new: &Convention) -> bool {
        (self.returns == "void" || self.returns == new.returns)
            && (&self.parameters, self.is_variadic) == (&new.parameters, new.is_variadic)
    }
}

/// A type as the call sees it. Integers of four bytes and more are passed alike, signed or not; a smaller one is extended
/// by the caller, by its type.
fn word(types: &Types, id: Option<TypeId>) -> String {
    let Some(plain) = types.plain(id) else { return "void".to_owned() };
    match types.get(plain) {
        Type::Base { bytes, encoding, .. }
            if *bytes >= 4 && [dw::DW_ATE_signed.0, dw::DW_ATE_unsigned.0].contains(encoding) =>
        {
            format!("an integer of {bytes} bytes")
        }
        Type::Enumeration(enumeration) if enumeration.bytes >= 4 => {
            format!("an integer of {} bytes", enumeration.bytes)
        }
        _ => types.words(id),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{declarations, frozen, function};
    use super::*;
    use crate::boundary::{BoundaryFunction, Fate, PatchSite};
    use schedswap_kernel::address::Addr;
    use schedswap_kernel::types::Layouts;

    fn declared(before: &str, after: &str) -> Declared {
        let of = |source: &str| {
            let body = if source.starts_with("void") { "" } else { "return 0;" };
            declarations(&format!("struct rq; struct task;\n{source} {{ {body} }}"))
        };
        Declared { pristine: Layouts { units: vec![of(before)] }, edited: vec![of(after)] }
    }

    /// That `f` is replaced, and reached from outside.
    fn boundary(class: Class) -> Boundary {
        let fate = Fate::Divert(PatchSite { at: Addr(0), expect: vec![], mask: vec![], after_fentry: true });
        let function =
            BoundaryFunction { class, called_from: vec!["fork".into()], ..function("f", "void tick(", fate) };
        Boundary { functions: vec![function], ..Boundary::default() }
    }

    fn otherwise(before: &str, after: &str) -> BTreeSet<(String, String)> {
        called_otherwise(&declared(before, after), &boundary(Class::Insider))
    }

    /// Findings about the prototype of `f`, reached from outside.
    fn prototype(before: &str, after: &str, class: Class) -> Vec<(Code, String)> {
        let findings = changed_signatures(&declared(before, after), &boundary(class), &frozen());
        findings.into_iter().map(|finding| (finding.code, finding.symbol)).collect()
    }

    #[test]
    fn an_interface_keeps_its_parameters() {
        let before = "int f(struct rq *rq, int flags)";
        let refused = vec![(Code::ChangedSignature, "f".to_owned())];
        for after in [
            "int f(struct rq *rq, int flags, int more)",
            "int f(struct rq *rq)",
            "int f(struct task *rq, int flags)",
            "int f(struct rq *rq, long flags)",
            "long f(struct rq *rq, int flags)",
            "int f(int flags, struct rq *rq)",
        ] {
            assert_eq!(prototype(before, after, Class::Interface), refused, "{after}");
            assert_eq!(prototype(before, after, Class::Callback), refused, "{after}");
            assert_eq!(prototype(before, after, Class::Insider), [], "{after}");
        }
        for after in [
            "int f(struct rq *queue, int enqueue_flags)",
            "int f(const struct rq *rq, const unsigned flags)",
            "typedef int number; number f(struct rq *rq, number flags)",
        ] {
            assert_eq!(prototype(before, after, Class::Interface), [], "{after}");
        }
        assert_eq!(prototype("void f(struct rq *rq)", "int f(struct rq *rq)", Class::Interface), []);
    }

    #[test]
    fn what_the_edit_calls_otherwise() {
        let is_otherwise = |before: &str, after: &str| {
            let found = otherwise(before, after);
            assert!(
                found.is_empty()
                    || found == BTreeSet::from([(super::super::fixture::UNIT.into(), "f".into())])
            );
            !found.is_empty()
        };
        let before = "int f(struct rq *rq, int flags)";
        for after in [
            "int f(struct rq *rq, int flags, int more)",
            "int f(struct rq *rq)",
            "long f(struct rq *rq, int flags)",
            "void f(struct rq *rq, int flags)",
            "int g(struct rq *rq, int flags)",
        ] {
            assert!(is_otherwise(before, after), "{after}");
            assert!(is_otherwise(after, before), "{after}");
        }
        // A trampoline keeps the result of a function for which vmlinux declares one.
        assert!(is_otherwise("void f(struct rq *rq)", "int f(struct rq *rq)"));
        for after in [before, "int f(struct rq *queue, unsigned enqueue_flags)"] {
            assert!(!is_otherwise(before, after), "{after}");
        }
    }
}
