//! Other users of a scheduler's functions: patchers, which prevent an install, and tracers, which do not.
//!
//! The module checks its windows itself, byte by byte and with the kernel's locks held. This code names the other
//! users before anything is loaded, and finds those that the module cannot see, because they act before its windows:
//! a patcher at a function's entry would go on running its copy of the old scheduler's function.

mod patchers;
mod tracers;

use crate::error::LoaderError;
use crate::paths::Paths;
use schedswap_payload::manifest::DivertedFunction;
use schedswap_payload::report::{Conflict, Holder};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The functions that a scheduler replaces, each with its position among those of its name, counted from 1.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Functions {
    sympos_by_name: BTreeMap<String, BTreeSet<u32>>,
}

impl Functions {
    /// The functions of a manifest.
    pub fn of(functions: &[DivertedFunction]) -> Functions {
        let mut found = Functions::default();
        for function in functions {
            // In a manifest, 0 says that the name is unique; sysfs counts from 1.
            found.add(&function.name, function.sympos.max(1));
        }
        found
    }

    /// The functions of a loaded scheduler, from the names of its files `vmlinux/<function>,<sympos>`.
    pub fn of_loaded(dir: &Path) -> Functions {
        let mut found = Functions::default();
        for (name, sympos) in entries(&dir.join("vmlinux")).iter().filter_map(|entry| split_sympos(entry)) {
            found.add(name, sympos);
        }
        found
    }

    fn add(&mut self, name: &str, sympos: u32) {
        self.sympos_by_name.entry(name.to_owned()).or_default().insert(sympos);
    }

    /// Whether it replaces this function. A user that does not say which function of that name it means might mean
    /// any of them.
    fn contains(&self, name: &str, sympos: Option<u32>) -> bool {
        let found = self.sympos_by_name.get(name);
        found.is_some_and(|all| sympos.is_none_or(|sympos| all.contains(&sympos)))
    }
}

/// All other users of these functions, or of the scheduler as a whole.
pub fn find(paths: &Paths, functions: &Functions) -> Vec<Conflict> {
    let mut found = patchers::find(paths, functions);
    found.extend(tracers::find(paths, functions));
    found.sort_by(|a, b| (!a.refuses, a.holder, &a.name).cmp(&(!b.refuses, b.holder, &b.name)));
    found
}

/// Refuses if there are users that the module would not see, or could not name. Kprobes are left to the module, which
/// knows its windows to the byte.
pub fn refuse(paths: &Paths, functions: &Functions) -> Result<(), LoaderError> {
    let mut conflicts = find(paths, functions);
    conflicts.retain(|conflict| conflict.refuses && conflict.holder != Holder::Kprobe);
    if conflicts.is_empty() { Ok(()) } else { Err(LoaderError::Conflicts { conflicts }) }
}

/// `function,n`, with n counted from 1.
fn split_sympos(entry: &str) -> Option<(&str, u32)> {
    let (name, sympos) = entry.rsplit_once(',')?;
    Some((name, sympos.parse().ok()?))
}

/// Sorted names in a directory; none if it does not exist.
fn entries(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The content of a file, without the end of the line; `None` if it cannot be read.
fn line_of(path: &Path) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_its_place_means_any_of_that_name() {
        let function = |name: &str, sympos| DivertedFunction { name: name.into(), sympos };
        let functions = Functions::of(&[function("only", 0), function("twice", 2)]);
        assert!(functions.contains("only", Some(1)) && functions.contains("only", None));
        assert!(functions.contains("twice", Some(2)) && functions.contains("twice", None));
        assert!(!functions.contains("twice", Some(1)) && !functions.contains("other", None));
    }
}
