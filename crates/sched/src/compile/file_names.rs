//! Names of source files in objects, as the kernel's own build has them: relative to its root.
//!
//! `-fmacro-prefix-map` does that to `__FILE__`, but not to the places that the undefined-behaviour sanitizer (UBSAN)
//! reports: gcc puts the names there as it was given them.

use super::{Error, Result, Template};
use object::{Object, ObjectSection, SectionFlags, elf};
use std::fs;
use std::path::Path;

/// Where the kernel's own headers are, with the slash at the end: the kernel's build had them below its root. When it
/// builds a module, Kbuild takes off only the module's own directory (since 7.x).
pub(super) fn headers_root(template: &Template) -> Option<&str> {
    let mut roots = template.compile.iter().filter_map(|word| word.strip_suffix("include/linux/kconfig.h"));
    // A tree that was built where it is names its headers relative to itself, and so does its vmlinux.
    roots.find(|root| root.starts_with('/'))
}

/// Takes `roots` off the strings of an object that begin with them. What follows a string moves up and leaves zeros
/// at its end, so nothing else in the object changes.
pub(super) fn shorten(path: &Path, roots: &[String]) -> Result<()> {
    let mut bytes = fs::read(path).map_err(|e| Error::io("read", path, e))?;
    let Ok(file) = object::File::parse(&*bytes) else { return Ok(()) };
    let strings: Vec<_> = file.sections().filter(holds_strings).filter_map(|s| s.file_range()).collect();
    let mut changed = false;
    for (start, length) in strings {
        let Some(section) = bytes.get_mut(start as usize..(start + length) as usize) else { continue };
        for string in section.split_inclusive_mut(|byte| *byte == 0) {
            changed |= roots.iter().any(|root| take_off(string, root.as_bytes()));
        }
    }
    if changed { fs::write(path, bytes).map_err(|e| Error::io("write", path, e)) } else { Ok(()) }
}

fn holds_strings<'o>(section: &impl ObjectSection<'o>) -> bool {
    let merged_strings = (elf::SHF_ALLOC | elf::SHF_MERGE | elf::SHF_STRINGS).0;
    matches!(section.flags(), SectionFlags::Elf { sh_flags, .. } if sh_flags.0 & merged_strings == merged_strings)
}

fn take_off(string: &mut [u8], root: &[u8]) -> bool {
    let begins = !root.is_empty() && string.starts_with(root);
    if begins {
        string.copy_within(root.len().., 0);
        let kept = string.len() - root.len();
        string[kept..].fill(0);
    }
    begins
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn headers_elsewhere_are_named_as_in_the_kernels_build() {
        let root = |word: &str| {
            let compile = ["gcc", "-include", word].map(str::to_owned).to_vec();
            headers_root(&Template { compile, objtool: None }).map(str::to_owned)
        };
        assert_eq!(root("/usr/src/x-common/include/linux/kconfig.h").as_deref(), Some("/usr/src/x-common/"));
        assert_eq!(root("./include/linux/kconfig.h"), None);
        assert_eq!(root("/usr/src/x/core.c"), None);
    }

    #[test]
    fn places_that_the_sanitizer_reports_are_named_as_in_the_kernels_build() {
        let dir = tempfile::tempdir().unwrap();
        let (source, object) = (dir.path().join("sched/fair.c"), dir.path().join("fair.o"));
        fs::create_dir(source.parent().unwrap()).unwrap();
        fs::write(&source, "int table[4]; int at(int n) { return table[n]; } const char *other = \"other\";")
            .unwrap();
        let compiled = Command::new("gcc")
            .args(["-fsanitize=bounds-strict", "-O2", "-c", "-o"])
            .args([&object, &source])
            .status()
            .unwrap();
        assert!(compiled.success());
        let root = format!("{}/", dir.path().display());
        let has = |text: &str| {
            fs::read(&object).unwrap().windows(text.len()).any(|window| window == text.as_bytes())
        };
        assert!(has(&format!("{root}sched/fair.c\0")));
        shorten(&object, std::slice::from_ref(&root)).unwrap();
        assert!(has("\0sched/fair.c\0\0") && has("other\0") && !has(&format!("{root}sched")));
    }
}
