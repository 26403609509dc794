//! SS108: functions that code outside the module calls, with the parameters that they had.
//! SS113: the same for system calls, which the source declares by a macro of their own.

use super::declared::Declared;
use super::explain;
use super::finding::finding;
use super::finding::{Code, Finding};
use super::frozen::{Frozen, is_replaced};
use super::lexer::{Item, Token};
use super::source::{Place, Sources};
use crate::boundary::{Boundary, Class};
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

    /// Whether a caller made for this one is served by `new`. Who expects no result ignores one.
    fn serves(&self, new: &Convention) -> bool {
        (self.returns == "void" || self.returns == new.returns)
            && (&self.parameters, self.is_variadic) == (&new.parameters, new.is_variadic)
    }
}

/// A type as the call sees it. Integers of four bytes and more travel alike, signed or not; the rest of the
/// register of a smaller one is the caller's doing, by its type.
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

/// System calls whose parameters were changed: their wrappers take them from the caller's registers by number.
pub fn changed_system_calls(sources: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (_, item) in sources.pristine.items() {
        let Some((name, was)) = system_call(item) else { continue };
        let edited: Vec<_> = sources
            .edited
            .items()
            .filter_map(|(file, item)| Some((file, item, system_call(item)?)))
            .filter(|(_, _, (found, _))| *found == name)
            .collect();
        let Some((file, item, (_, is))) = edited.first() else { continue };
        if edited.iter().all(|(_, _, (_, is))| *is != was) {
            let place = Place { file: (*file).to_owned(), line: item.name_line };
            let text = explain::changed_system_call(&was.join(", "), &is.join(", "));
            findings.push(finding(Code::ChangedSystemCall, &name, place, text));
        }
    }
    findings
}

/// Name and types of the parameters of a `SYSCALL_DEFINE` or `COMPAT_SYSCALL_DEFINE`; their names may change.
fn system_call(item: &Item) -> Option<(String, Vec<String>)> {
    let (macro_name, _) = item.key.split_once('(').filter(|_| item.is_function)?;
    if !macro_name.trim_end_matches(|c: char| c.is_ascii_digit()).ends_with("SYSCALL_DEFINE") {
        return None;
    }
    let open = item.tokens.iter().position(|token| token.text == "(")?;
    let mut depth = 0;
    let mut arguments: Vec<Vec<&Token>> = vec![Vec::new()];
    for token in &item.tokens[open..] {
        match token.text.as_str() {
            "(" => depth += 1,
            ")" => depth -= 1,
            "," if depth == 1 => {
                arguments.push(Vec::new());
                continue;
            }
            _ => {}
        }
        match depth {
            0 => break,
            _ if token.text == "(" && depth == 1 => {}
            _ => arguments.last_mut()?.push(token),
        }
    }
    let text = |tokens: &Vec<&Token>| tokens.iter().map(|t| t.text.as_str()).collect::<Vec<_>>().join(" ");
    let is_compat = macro_name.contains("COMPAT_");
    let name = format!("{}{}", if is_compat { "compat_sys_" } else { "sys_" }, text(arguments.first()?));
    // Behind the name, types and names take turns.
    Some((name, arguments.iter().skip(1).step_by(2).map(text).collect()))
}

#[cfg(test)]
mod tests {
    use super::super::source::SourceTree;
    use super::*;

    fn compare(before: &str, after: &str) -> Vec<Finding> {
        let tree = |text: &str| SourceTree::from_texts([("kernel/sched/a.c".to_owned(), text.to_owned())]);
        let (pristine, edited) = (tree(before), tree(after));
        changed_system_calls(&Sources { pristine: &pristine, edited: &edited })
    }

    const CALL: &str = "SYSCALL_DEFINE2(f, pid_t, pid, struct param __user *, p)\n{\n\treturn 0;\n}\n";

    #[test]
    fn types_and_number_of_a_system_calls_parameters_count_and_their_names_do_not() {
        assert_eq!(
            compare(CALL, &CALL.replace("pid_t, pid", "pid_t, who").replace("return 0", "return 1")),
            []
        );
        let other_type = CALL.replace("pid_t, pid", "long, pid");
        let one_more = CALL.replace("DEFINE2", "DEFINE3").replace(", p)", ", p, int, flags)");
        for edited in [other_type, one_more] {
            let found = compare(CALL, &format!("/* new */\n{edited}"));
            assert_eq!(found.len(), 1, "{edited}");
            assert_eq!((found[0].symbol.as_str(), found[0].line), ("sys_f", 2));
        }
    }

    #[test]
    fn a_new_system_call_and_one_under_two_conditions_are_no_change() {
        assert_eq!(compare(CALL, &format!("{CALL}{}", CALL.replace("(f,", "(g,"))), []);
        let both = format!("#ifdef A\n{CALL}#else\nSYSCALL_DEFINE0(f)\n{{\n\treturn 0;\n}}\n#endif\n");
        assert_eq!(compare(&both, &both), []);
    }
}
