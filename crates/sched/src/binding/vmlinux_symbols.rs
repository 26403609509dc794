//! What vmlinux has by a name, and what a symbol's name says.

use super::Error;
use object::elf;
use schedswap_kernel::vmlinux::{self, Image};

/// A global or weak symbol of vmlinux by name.
///
/// # Errors
/// When vmlinux has several; `user` is who the message says refers to it.
pub fn global<'a>(image: &'a Image, name: &str, user: &str) -> Result<Option<&'a vmlinux::Symbol>, Error> {
    let Some(ids) = image.by_name.get(name) else { return Ok(None) };
    let globals: Vec<_> =
        ids.iter().map(|id| image.symbol(*id)).filter(|s| s.binding != elf::STB_LOCAL.0).collect();
    match globals.as_slice() {
        [] => Ok(None),
        [symbol] => Ok(Some(symbol)),
        more => Err(Error::Ambiguous { user: user.into(), symbol: name.into(), count: more.len() }),
    }
}

/// Whether per-CPU data is in a section of that name.
pub fn is_per_cpu(section: &str) -> bool {
    section.starts_with(".data..percpu")
}

/// The base name of a function-local static: `__already_done` of `__already_done.21`. A dot cannot come from
/// the source, so any name of data that ends in a dot and a number is the compiler's.
pub fn local_static(name: &str) -> Option<&str> {
    let (base, number) = name.rsplit_once('.')?;
    (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some(base)
}

/// A function's name without what the compiler added (`.isra.0`, `.part.0`, `.constprop.0`, `.cold`).
pub fn source_name(name: &str) -> &str {
    name.split_once('.').map_or(name, |(base, _)| base)
}

/// What vmlinux has instead of a global symbol.
pub fn hint(image: &Image, name: &str) -> String {
    if image.by_name.contains_key(name) {
        return format!(" (vmlinux has {name}, but as a local symbol of another file)");
    }
    match clone_of(image, name) {
        Some(clone) => format!(" (vmlinux has only the clone {clone})"),
        None => String::new(),
    }
}

/// The first clone that the compiler made of a function (`outsider.isra.0` of `outsider`).
pub fn clone_of<'a>(image: &'a Image, name: &str) -> Option<&'a str> {
    let clones = image
        .by_name
        .keys()
        .filter(|k| k.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
        .map(String::as_str);
    clones.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statics_are_told_from_clones_and_files() {
        assert_eq!(local_static("__already_done.21"), Some("__already_done"));
        assert_eq!(local_static("runqueues"), None);
        assert_eq!(local_static("foo.isra"), None);
        assert_eq!(source_name("finish_task_switch.isra.0"), "finish_task_switch");
    }
}
