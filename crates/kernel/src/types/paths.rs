//! Source file names. Units give them absolute, relative to their compilation directory, or already relative
//! to the kernel source (`-ffile-prefix-map`); here they become relative to the kernel source.

/// Where the scheduler's source is.
pub(crate) const SCHEDULER_DIR: &str = "kernel/sched/";

/// Whether a path that is relative to the kernel source is the scheduler's.
pub(crate) fn is_below_scheduler(path: &str) -> bool {
    path.starts_with(SCHEDULER_DIR)
}

/// The directory of a file, without the last `/`.
pub(crate) fn directory(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// `base/path`, or `path` where it is absolute, without `.` and `..` components.
pub(crate) fn join(base: &str, path: &str) -> String {
    let absolute = path.starts_with('/');
    let rooted = absolute || base.starts_with('/');
    let base = if absolute { "" } else { base };
    let mut parts: Vec<&str> = Vec::new();
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|p| *p != "..") => drop(parts.pop()),
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    if rooted { format!("/{joined}") } else { joined }
}

/// The directory of the kernel source, if `path` is its `kernel/sched/core.c`: empty or ending in `/`.
pub(crate) fn root_of_core(path: &str) -> Option<&str> {
    let root = path.strip_suffix("kernel/sched/core.c")?;
    (root.is_empty() || root.ends_with('/')).then_some(root)
}

/// `path` relative to the kernel source.
pub(crate) fn below_root<'p>(root: &str, path: &'p str) -> &'p str {
    path.strip_prefix(root).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_compilers_write_for_one_file() {
        let source = "/build/linux-6.1";
        for (comp_dir, name) in [
            (source, "kernel/sched/core.c"),
            ("/build/linux-6.1/debian/build/amd64", "../../../kernel/sched/core.c"),
            ("/elsewhere", "/build/linux-6.1/kernel/sched/core.c"),
            ("/build/./linux-6.1/", "./kernel//sched/../sched/core.c"),
        ] {
            let path = join(comp_dir, name);
            assert_eq!(path, "/build/linux-6.1/kernel/sched/core.c");
            assert_eq!(root_of_core(&path), Some("/build/linux-6.1/"));
        }
        // -ffile-prefix-map made both relative.
        let path = join("debian/build/amd64", "kernel/sched/core.c");
        let root = root_of_core(&path).unwrap();
        assert_eq!(
            below_root(root, &join("debian/build/amd64", "include/linux/sched.h")),
            "include/linux/sched.h"
        );
    }

    #[test]
    fn a_root_ends_at_a_component() {
        assert_eq!(root_of_core("/x/notkernel/sched/core.c"), None);
        assert_eq!(root_of_core("kernel/sched/core.c"), Some(""));
    }

    #[test]
    fn dots_beyond_the_root_stay_where_they_mean_something() {
        assert_eq!(join("a", "../../b"), "../b");
        assert_eq!(join("/a", "../../b"), "/b");
        assert_eq!(join("", "b"), "b");
    }
}
