//! Patchers that replace functions or the whole scheduler, as the files below `/sys/kernel` show them.

use super::{Functions, entries, line_of, split_sympos};
use crate::paths::Paths;
use schedswap_payload::report::{Conflict, Holder};
use std::path::Path;

/// All of them.
pub fn find(paths: &Paths, functions: &Functions) -> Vec<Conflict> {
    let kernel = paths.of("sys/kernel");
    let mut found = Vec::new();
    found.extend(livepatches(&kernel.join("livepatch"), functions));
    found.extend(kpatches(&kernel.join("kpatch"), functions));
    found.extend(plugsched(&kernel.join("plugsched")));
    found.extend(manual_fixes(&kernel, functions));
    found.extend(sched_ext(&kernel.join("sched_ext")));
    found
}

/// `livepatch/<patch>/vmlinux/<function>,<n>/`, beside `enabled` (`Documentation/ABI/testing/sysfs-kernel-livepatch`).
/// A patch that is being disabled counts until it is gone.
fn livepatches(dir: &Path, functions: &Functions) -> Vec<Conflict> {
    let of_patch = |patch: &String| {
        let dir = dir.join(patch);
        let at_rest = |file: &str| line_of(&dir.join(file)).is_none_or(|value| value == "0");
        let is_off = line_of(&dir.join("enabled")).as_deref() == Some("0") && at_rest("transition");
        let held = held_in(&dir.join("vmlinux"), functions);
        conflict(Holder::Livepatch, patch, held, !is_off)
    };
    entries(dir).iter().filter_map(of_patch).collect()
}

/// kpatch before 0.4: `kpatch/patches/<patch>/functions/<function>/`; 0.4: `kpatch/<patch>/functions/<function>/`;
/// later: `kpatch/<patch>/<object>/<function>,<n>/`. All with `kpatch/…/<patch>/enabled`.
fn kpatches(dir: &Path, functions: &Functions) -> Vec<Conflict> {
    let mut patches: Vec<_> = entries(dir).into_iter().filter(|name| name != "patches").collect();
    patches.extend(entries(&dir.join("patches")).into_iter().map(|name| format!("patches/{name}")));
    let of_patch = |patch: &String| {
        let dir = dir.join(patch);
        let mut held = held_in(&dir.join("functions"), functions);
        held.extend(held_in(&dir.join("vmlinux"), functions));
        let is_off = line_of(&dir.join("enabled")).as_deref() == Some("0");
        conflict(Holder::Kpatch, patch.trim_start_matches("patches/"), held, !is_off)
    };
    patches.iter().filter_map(of_patch).collect()
}

/// `plugsched/<module>/enable`. It replaces the whole scheduler, so its functions need not be compared.
fn plugsched(dir: &Path) -> Vec<Conflict> {
    let of_module = |name: &String| Conflict {
        holder: Holder::Plugsched,
        name: name.clone(),
        functions: Vec::new(),
        refuses: line_of(&dir.join(name).join("enable")).as_deref() != Some("0"),
    };
    entries(dir).iter().filter(|name| dir.join(name).is_dir()).map(of_module).collect()
}

/// `manual_<fix>/<function>/`: hot fixes that write into functions themselves.
fn manual_fixes(kernel: &Path, functions: &Functions) -> Vec<Conflict> {
    let names = entries(kernel).into_iter().filter(|name| name.starts_with("manual_"));
    names
        .filter_map(|name| conflict(Holder::ManualFix, &name, held_in(&kernel.join(&name), functions), true))
        .collect()
}

/// `sched_ext/state`, and the policy's name in `sched_ext/root/ops` (`kernel/sched/ext.c`).
fn sched_ext(dir: &Path) -> Option<Conflict> {
    let state = line_of(&dir.join("state")).filter(|state| state != "disabled")?;
    let name = line_of(&dir.join("root/ops")).unwrap_or(state);
    Some(Conflict { holder: Holder::SchedExt, name, functions: Vec::new(), refuses: true })
}

/// The functions in a directory that has one subdirectory for each, `function` or `function,n`.
fn held_in(dir: &Path, functions: &Functions) -> Vec<String> {
    let is_held = |entry: &&String| match split_sympos(entry) {
        Some((name, sympos)) => functions.contains(name, Some(sympos)),
        None => functions.contains(entry, None),
    };
    let name = |entry: &String| split_sympos(entry).map_or(entry.clone(), |(name, _)| name.to_owned());
    entries(dir).iter().filter(is_held).map(name).collect()
}

/// A patch that holds none of the functions is not a conflict.
fn conflict(holder: Holder, name: &str, functions: Vec<String>, refuses: bool) -> Option<Conflict> {
    (!functions.is_empty()).then(|| Conflict { holder, name: name.to_owned(), functions, refuses })
}

#[cfg(test)]
mod tests {
    use super::*;
    use schedswap_payload::manifest::DivertedFunction;
    use std::fs;

    /// The conflicts found below a `/sys/kernel` with these files; a path that ends in `/` is a directory.
    fn found(files: &[(&str, &str)]) -> Vec<Conflict> {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join("sys/kernel").join(path);
            if path.to_string_lossy().ends_with('/') {
                fs::create_dir_all(path).unwrap();
            } else {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
        }
        let function = |name: &str, sympos| DivertedFunction { name: name.into(), sympos };
        let ours =
            [function("pick_next_task_fair", 0), function("print_cfs_rq", 2), function("schedule_tail", 0)];
        find(&Paths::below(root.path()), &Functions::of(&ours))
    }

    #[test]
    fn a_livepatch_of_one_of_ours() {
        let files = [
            ("livepatch/fix_a/enabled", "1\n"),
            ("livepatch/fix_a/transition", "0\n"),
            ("livepatch/fix_a/vmlinux/pick_next_task_fair,1/stack_order", "1\n"),
            ("livepatch/fix_a/vmlinux/cmdline_proc_show,1/", ""),
            ("livepatch/fix_b/enabled", "1\n"),
            ("livepatch/fix_b/vmlinux/print_cfs_rq,1/", ""),
            ("livepatch/fix_b/ext4/schedule_tail,1/", ""),
        ];
        let expected = Conflict {
            holder: Holder::Livepatch,
            name: "fix_a".into(),
            functions: vec!["pick_next_task_fair".into()],
            refuses: true,
        };
        assert_eq!(found(&files), [expected]);
    }

    #[test]
    fn a_livepatch_that_is_off_is_in_nobody_s_way_but_one_on_its_way_off_is() {
        let off = |transition| {
            found(&[
                ("livepatch/fix/enabled", "0\n"),
                ("livepatch/fix/transition", transition),
                ("livepatch/fix/vmlinux/schedule_tail,1/", ""),
            ])
        };
        assert!(!off("0\n")[0].refuses);
        assert!(off("1\n")[0].refuses);
    }

    #[test]
    fn kpatch_in_all_three_layouts() {
        for (path, name) in [
            ("kpatch/patches/kpatch_D689377/functions/schedule_tail/old_addr", "kpatch_D689377"),
            ("kpatch/kpatch_5135717/functions/schedule_tail/old_addr", "kpatch_5135717"),
            ("kpatch/kpatch_5135717/vmlinux/schedule_tail,1/old_addr", "kpatch_5135717"),
        ] {
            let found = found(&[(path, "0xffffffff81090000\n")]);
            assert_eq!(found.len(), 1, "{path}");
            assert_eq!((found[0].holder, found[0].name.as_str()), (Holder::Kpatch, name));
            assert!(found[0].refuses);
        }
        assert!(found(&[("kpatch/other/functions/ext4_iget/old_addr", "0x1\n")]).is_empty());
        let off = [("kpatch/p/functions/schedule_tail/old_addr", "0x1\n"), ("kpatch/p/enabled", "0\n")];
        assert!(!found(&off)[0].refuses);
    }

    #[test]
    fn plugsched_manual_fixes_and_sched_ext() {
        let plugged = |value| found(&[("plugsched/plugsched/enable", value)]);
        assert_eq!((plugged("1\n")[0].holder, plugged("1\n")[0].refuses), (Holder::Plugsched, true));
        assert!(!plugged("0\n")[0].refuses);

        let fixed = found(&[("manual_fix1/schedule_tail/", ""), ("manual_fix2/ext4_iget/", "")]);
        assert_eq!(fixed.len(), 1);
        assert_eq!((fixed[0].holder, fixed[0].name.as_str()), (Holder::ManualFix, "manual_fix1"));

        assert!(found(&[("sched_ext/state", "disabled\n"), ("sched_ext/nr_rejected", "0\n")]).is_empty());
        let loaded = found(&[("sched_ext/state", "enabled\n"), ("sched_ext/root/ops", "simple\n")]);
        assert_eq!((loaded[0].holder, loaded[0].name.as_str()), (Holder::SchedExt, "simple"));
        assert_eq!(found(&[("sched_ext/state", "enabling\n")])[0].name, "enabling");
        assert!(found(&[]).is_empty());
    }
}
