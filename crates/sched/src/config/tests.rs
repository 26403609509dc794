//! What a configuration may say, and what it is told when it says something else.

use super::*;
use proptest::prelude::*;
use std::fs;

fn faults(text: &str) -> Vec<String> {
    match parse("b.yaml", text) {
        Ok(config) => panic!("accepted: {config:?}"),
        Err(Error::Faults(faults)) => faults.iter().map(Fault::to_string).collect(),
        Err(other) => panic!("{other}"),
    }
}

#[track_caller]
fn refused(text: &str, place: &str, says: &str) {
    let faults = faults(text);
    assert!(
        faults.iter().any(|fault| fault.starts_with(&format!("b.yaml:{place}: ")) && fault.contains(says)),
        "expected {place} and {says:?} in {faults:#?}"
    );
}

#[test]
fn plugscheds_shape_is_understood() {
    let text = "\
# a comment
mod_files:
    - kernel/sched/core.c
    - kernel/sched/sched.h
interface_prefix:
    - __x64_sys_
function:
    interface:
        - sched_fork
        - __schedule
global_var:
    extra_public:
    - nohz
    force_private:
    - sched_feat_keys
    - {name: max_load_balance_interval, carry: true}
    - name: nr_switches
      carry: true
sidecar: !!pairs
    - cpuset_attach: kernel/cgroup/cpuset.c
    - kthread_bind: kernel/kthread.c
stay_in_vmlinux:
    - sched_show_task
";
    let config = parse("b.yaml", text).unwrap();
    let names = |entries: &[ListedName]| entries.iter().map(|e| e.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(config.mod_files.as_deref().unwrap()), ["kernel/sched/core.c", "kernel/sched/sched.h"]);
    assert_eq!(names(&config.interface_prefix), ["__x64_sys_"]);
    assert_eq!(names(&config.interface), ["sched_fork", "__schedule"]);
    assert_eq!(config.interface[1].at, At { line: 10, column: 11 });
    assert_eq!(names(&config.extra_public), ["nohz"]);
    let private: Vec<_> = config.force_private.iter().map(|p| (p.variable.name.as_str(), p.carry)).collect();
    assert_eq!(
        private,
        [("sched_feat_keys", false), ("max_load_balance_interval", true), ("nr_switches", true)]
    );
    assert_eq!(config.force_private[1].variable.at.line, 16);
    let sidecar: Vec<_> =
        config.sidecar.iter().map(|s| (s.function.name.as_str(), s.file.name.as_str())).collect();
    assert_eq!(sidecar, [("cpuset_attach", "kernel/cgroup/cpuset.c"), ("kthread_bind", "kernel/kthread.c")]);
    assert_eq!(config.sidecar[1].function.at.line, 21);
    assert_eq!(names(&config.stay_in_vmlinux), ["sched_show_task"]);
    assert_eq!(config.data, DataRule::Shared);
}

#[test]
fn the_documentations_example_is_one() {
    let page = include_str!("../../../../docs/configuration.md");
    let (_, rest) = page.split_once("```yaml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let config = parse("example.yaml", example).unwrap();
    assert!(config.force_private.iter().any(|private| private.carry));
    assert!(!config.sidecar.is_empty() && !config.stay_in_vmlinux.is_empty());
}

#[test]
fn words_without_a_value_override_nothing() {
    for text in [
        "",
        "# nothing\n",
        "---\n",
        "sidecar:\n",
        "mod_files:\nfunction:\nglobal_var:\n  extra_public:\n  force_private:\n",
    ] {
        assert!(parse("b.yaml", text).unwrap().is_empty(), "{text:?}");
    }
    assert!(!parse("b.yaml", "data: plugsched\n").unwrap().is_empty());
}

#[test]
fn unknown_words_have_line_and_column() {
    refused("mod_files: []\nmodfiles: []\n", "2:1", "modfiles");
    refused("function:\n  interfaces:\n    - a\n", "2:3", "interfaces");
    refused("global_var:\n  force_private:\n    - {name: a, carried: true}\n", "3:17", "carried");
    assert_eq!(
        faults("data: neither\n"),
        ["b.yaml:1:7: unknown variant `neither`, expected one of shared, plugsched"]
    );
    assert_eq!(faults("data: shared\ndata: plugsched\n"), ["b.yaml:2:1: duplicate mapping key: data"]);
    refused("function: [a]\n", "1:11", "");
    refused("stay_in_vmlinux:\n  - [a]\n", "2:5", "");
    refused("mod_files: [\n", "1:12", "unclosed");
    refused("mod_files:\n\t- a\n", "2:2", "tab");
}

#[test]
fn a_symbol_is_in_one_list() {
    refused(
        "function:\n  interface:\n    - a\nstay_in_vmlinux:\n  - b\n  - a\n",
        "6:5",
        "function.interface in line 3",
    );
    refused("sidecar:\n  - a: kernel/fork.c\nstay_in_vmlinux: [a]\n", "2:5", "stay_in_vmlinux");
    refused(
        "global_var:\n  extra_public: [v]\n  force_private:\n    - {name: v, carry: true}\n",
        "4:7",
        "extra_public",
    );
    refused("stay_in_vmlinux: [a, b, a]\n", "1:25", "twice");
    refused("stay_in_vmlinux:\n  - \"\"\n", "2:5", "empty");
    // A function and a variable of one name are two things.
    parse("b.yaml", "global_var:\n  extra_public: [a]\nstay_in_vmlinux: [a]\n").unwrap();
}

#[test]
fn every_fault_is_said_at_once() {
    let faults = faults("mod_files:\n  - /etc/passwd\n  - kernel/fork.c\nstay_in_vmlinux: [a, a]\n");
    assert_eq!(faults.len(), 3, "{faults:#?}");
}

#[test]
fn files_are_the_kernels() {
    for path in ["/etc/passwd", "../x.c", "kernel/sched/../../x.c", "kernel/sched/.."] {
        refused(&format!("mod_files:\n  - {path}\n"), "2:5", "leads out of the kernel's source");
        refused(&format!("sidecar:\n  - f: {path}\n"), "2:5", "leads out of the kernel's source");
    }
    refused("mod_files: [kernel/sched//core.c]\n", "1:13", "not a plain path");
    refused("mod_files: [kernel/fork.c]\n", "1:13", "sidecar");
    refused("sidecar:\n  - f: include/linux/sched.h\n", "2:5", "not a C source");

    let root = tempfile::tempdir().unwrap();
    let sched = root.path().join("kernel/sched");
    fs::create_dir_all(&sched).unwrap();
    fs::write(sched.join("core.c"), "").unwrap();
    std::os::unix::fs::symlink("/etc/hostname", sched.join("linked.c")).unwrap();
    let check = |text: &str| parse("b.yaml", text).unwrap().check_files(root.path());
    check("mod_files: [kernel/sched/core.c]\n").unwrap();
    let said = check("mod_files:\n  - kernel/sched/coer.c\n").unwrap_err().to_string();
    assert!(
        said.starts_with("b.yaml:2:5: ") && said.ends_with("did you mean kernel/sched/core.c?"),
        "{said}"
    );
    let said = check("mod_files: [kernel/sched/linked.c]\n").unwrap_err().to_string();
    assert!(said.contains("leads out of the kernel's source"), "{said}");
}

#[test]
fn a_name_means_all_of_it_unless_it_says_more() {
    let entry = |name: &str| ListedName { name: name.into(), at: At::default() };
    let core = "kernel/sched/core.c";
    assert!(entry("x").means_variable(core, None, "x"));
    assert!(entry("x").means_variable(core, Some("f"), "x"));
    assert!(entry("kernel/sched/core.c:x").means_variable(core, None, "x"));
    assert!(!entry("kernel/sched/core.c:x").means_variable(core, Some("f"), "x"));
    assert!(entry("kernel/sched/core.c:f:x").means_variable(core, Some("f"), "x"));
    assert!(!entry("kernel/sched/fair.c:x").means_variable(core, None, "x"));
    let none = |_: &str| false;
    let all = |_: &str| true;
    assert!(entry("f").means_function(core, "f", all));
    assert!(entry("f").means_function(core, "f.isra.0", none));
    assert!(!entry("f").means_function(core, "f.part.0", all), "there is one without a suffix");
    assert!(!entry("f").means_function(core, "fork", none));
    assert!(entry("kernel/sched/core.c:f").means_function(core, "f", all));
    assert!(!entry("kernel/sched/fair.c:f").means_function(core, "f", all));
}

fn a_name() -> impl Strategy<Value = String> {
    "[a-z_][a-z0-9_]{0,12}"
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}") {
        let _ = parse("b.yaml", &text);
    }

    #[test]
    fn no_damage_makes_it_panic(at in 0usize..400, byte in any::<u8>()) {
        let mut text = b"mod_files:\n  - kernel/sched/core.c\nfunction:\n  interface:\n    - a\nglobal_var:\n  force_private:\n    - {name: b, carry: true}\nsidecar: !!pairs\n  - c: kernel/fork.c\n".to_vec();
        let at = at % text.len();
        text[at] = byte;
        let _ = parse("b.yaml", &String::from_utf8_lossy(&text));
    }

    #[test]
    fn what_is_written_is_read(names in prop::collection::btree_set(a_name(), 0..8), carry in any::<bool>()) {
        let quoted = |name: &String| format!("    - {{name: \"{name}\", carry: {carry}}}\n");
        let text = format!("global_var:\n  force_private:\n{}", names.iter().map(quoted).collect::<String>());
        let config = parse("b.yaml", &text).unwrap();
        let read: Vec<_> = config.force_private.iter().map(|p| p.variable.name.clone()).collect();
        prop_assert_eq!(read, names.into_iter().collect::<Vec<_>>());
        for (i, private) in config.force_private.iter().enumerate() {
            prop_assert_eq!(private.variable.at, At { line: i as u64 + 3, column: 7 });
            prop_assert_eq!(private.carry, carry);
        }
    }
}
