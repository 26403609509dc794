//! SS202: the edited source compiles to what the kernel has.

use super::Facts;
use crate::check::compare::{Functions, Place, UnitBuilds};
use crate::check::finding::{Code, Finding, finding};
use crate::check::words::explain;
use std::collections::BTreeSet;

/// SS202.
pub fn nothing_changed(facts: &Facts) -> Option<Finding> {
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
    facts
        .builds
        .iter()
        .all(is_same)
        .then(|| finding(Code::NothingChanged, "", place, explain::nothing_changed()))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{NONE, SOURCE, check, compile, one};
    use super::*;
    use crate::check::finding::Severity;

    #[test]
    fn nothing_changed_is_a_warning() {
        assert_eq!(check(&[]), one(Code::NothingChanged, ""));
        assert_eq!(
            check(&[("static int boosted;", "/* more */ static int boosted;")]),
            one(Code::NothingChanged, "")
        );
        assert_eq!(Code::NothingChanged.severity(), Severity::Warning);
        // Data counts as well as code.
        let data = ("static int boosted;", "static int boosted;\nint sysctl_novel = 3;");
        assert_eq!(check(&[data]), NONE);
        let source = SOURCE.replace("static int boosted;", "static int boosted;\nint sysctl_novel = 3;");
        assert_ne!(compile(&source).sections.len(), compile(SOURCE).sections.len());
    }
}
