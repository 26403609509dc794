//! The runtime's sources, carried inside the program so that it works from wherever it is installed.

use schedswap_kernel::arch;
use schedswap_kernel::vmlinux::Machine;

macro_rules! runtime {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../runtime/", $path)) as &[u8])),*]
    };
}

/// What a module for that kind of machine is made of: path below `runtime/`, content.
pub fn sources(machine: Machine) -> impl Iterator<Item = (&'static str, &'static [u8])> {
    let directory = arch::of(machine).directory();
    SOURCES.iter().copied().filter(move |(path, _)| match path.strip_prefix("arch/") {
        Some(rest) => rest.split_once('/').is_some_and(|(of, _)| of == directory),
        None => true,
    })
}

/// Every file of `runtime/`.
const SOURCES: &[(&str, &[u8])] = runtime![
    "arch/arm64/stub.S",
    "arch/arm64/text.h",
    "arch/arm64/veneers.c",
    "arch/arm64/walk.c",
    "arch/x86/stub.S",
    "arch/x86/text.h",
    "checks.c",
    "compat.h",
    "extension.c",
    "extension.h",
    "features.c",
    "groups.c",
    "handover.c",
    "handover.h",
    "hooks.c",
    "hooks.h",
    "include/schedswap/author.h",
    "main.c",
    "rebuild.c",
    "report.c",
    "runtime.h",
    "schedswap.h",
    "slots.c",
    "stackcheck.c",
    "state.c",
    "swap.c",
    "switchlog.c",
    "sysfs.c",
    "table.c",
    "tasks.c",
    "text.c",
];

#[cfg(test)]
mod tests {
    use super::{SOURCES, sources};
    use schedswap_kernel::vmlinux::Machine;
    use std::path::Path;

    /// A file added to `runtime/` and forgotten here would be missing from every module.
    #[test]
    fn every_file_of_the_runtime_is_carried() {
        fn walk(dir: &Path, below: &str, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(dir).expect("runtime/").flatten() {
                let name = format!("{below}{}", entry.file_name().to_string_lossy());
                if entry.path().is_dir() {
                    walk(&entry.path(), &format!("{name}/"), found);
                } else if [".c", ".h", ".S"].iter().any(|e| name.ends_with(e)) {
                    found.push(name);
                }
            }
        }
        let mut there = Vec::new();
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtime"), "", &mut there);
        there.sort();
        let carried: Vec<&str> = SOURCES.iter().map(|(path, _)| *path).collect();
        assert_eq!(there, carried);
    }

    /// Files are compiled side by side, so no two may have one name.
    #[test]
    fn each_machine_has_its_own_stub() {
        for (machine, own) in [(Machine::X86_64, "arch/x86/stub.S"), (Machine::Aarch64, "arch/arm64/stub.S")]
        {
            let stubs: Vec<&str> =
                sources(machine).map(|(path, _)| path).filter(|path| path.ends_with("/stub.S")).collect();
            assert_eq!(stubs, [own]);
        }
    }
}
