//! The runtime's sources, carried inside the program so that it works from wherever it is installed.

macro_rules! runtime {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../runtime/", $path)) as &[u8])),*]
    };
}

/// Every file of `runtime/`: path below it, content.
pub const SOURCES: &[(&str, &[u8])] = runtime![
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
    use super::SOURCES;
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
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime"), "", &mut there);
        there.sort();
        let carried: Vec<&str> = SOURCES.iter().map(|(path, _)| *path).collect();
        assert_eq!(there, carried);
    }
}
