//! SS113: a system call has other parameters. The source declares system calls by a macro of their own.

use crate::check::compare::{Item, Place, Sources, Token};
use crate::check::finding::{Code, Finding, finding};
use crate::check::words::explain;

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
    // After the name, types and names alternate.
    Some((name, arguments.iter().skip(1).step_by(2).map(text).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::compare::SourceTree;

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
