//! Configurations applied to the kernel under test: what they change in its boundary, and why they are refused.
//!
//! Names of functions and variables are the kernel's own, found in the computed boundary if the case does not need a
//! particular one.

use anyhow::{Context, Result, ensure};
use schedswap_sched::boundary::{
    self, Boundary, BoundaryFunction, BoundaryVariable, Class, Fate, Sharing, StayReason, effective,
};
use schedswap_sched::config::{self, Config};
use schedswap_tests::{configured_work_dir, image, kernel, schedswap};
use std::collections::BTreeSet;
use std::fs;
use std::sync::OnceLock;

fn computed() -> &'static Boundary {
    static BOUNDARY: OnceLock<Boundary> = OnceLock::new();
    BOUNDARY.get_or_init(|| boundary::compute(image(), &Config::default()).expect("a boundary"))
}

fn with(text: &str) -> Result<Boundary> {
    Ok(boundary::compute(image(), &config::parse("c.yaml", text)?)?)
}

fn refused(text: &str) -> String {
    match with(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(error) => error.to_string(),
    }
}

fn variable<'b>(boundary: &'b Boundary, name: &str) -> Result<&'b BoundaryVariable> {
    boundary.variables.iter().find(|v| v.name == name).with_context(|| format!("no variable {name}"))
}

/// A name that no other function has, with or without a suffix.
fn is_unique(f: &BoundaryFunction) -> bool {
    !f.name.contains('.')
        && computed().functions.iter().filter(|o| o.name.split('.').next() == Some(&f.name)).count() == 1
}

fn function(wanted: impl Fn(&BoundaryFunction) -> bool) -> Result<&'static BoundaryFunction> {
    computed().functions.iter().find(|f| is_unique(f) && wanted(f)).context("no such function")
}

#[test]
fn an_interface_by_name_or_prefix_is_one() -> Result<()> {
    let insider = function(|f| f.class == Class::Insider && f.local && matches!(f.fate, Fate::Divert(_)))?;
    for text in [
        format!("function:\n  interface: [{}]\n", insider.name),
        format!("interface_prefix: [{}]\n", insider.name),
    ] {
        let boundary = with(&text)?;
        let now = boundary.function(&insider.unit, &insider.name).context("gone")?;
        assert_eq!(now.class, Class::Interface);
        assert!(now.class_configured.is_some());
        assert_eq!(now.fate, insider.fate);
    }
    Ok(())
}

#[test]
fn what_is_kept_stays_and_schedule_cannot() -> Result<()> {
    let replaced = function(|f| matches!(f.fate, Fate::Divert(_)))?;
    let boundary = with(&format!("stay_in_vmlinux: [{}]\n", replaced.name))?;
    let now = boundary.function(&replaced.unit, &replaced.name).context("gone")?;
    ensure!(
        matches!(&now.fate, Fate::Stay(StayReason::Configured { by }) if by.contains("c.yaml:1")),
        "{now:?}"
    );
    let said = refused("stay_in_vmlinux:\n  - __schedule\n");
    ensure!(said.starts_with("c.yaml:2:5: __schedule cannot stay in vmlinux"), "{said}");
    Ok(())
}

#[test]
fn files_that_are_left_out_stay() -> Result<()> {
    let files: BTreeSet<&str> = computed()
        .functions
        .iter()
        .map(|f| f.decl_file.as_str())
        .filter(|file| file.starts_with("kernel/sched/"))
        .collect();
    ensure!(files.len() > 10, "{files:?}");
    let left_out = "kernel/sched/wait.c";
    ensure!(files.contains(left_out));
    let listed = |without: &str| -> String {
        let rest = files.iter().filter(|file| **file != without);
        format!("mod_files:\n{}", rest.map(|file| format!("  - {file}\n")).collect::<String>())
    };
    let boundary = with(&listed(left_out))?;
    for (now, before) in boundary.functions.iter().zip(&computed().functions) {
        if before.decl_file != left_out || matches!(before.fate, Fate::Stay(_)) {
            assert_eq!(now.fate, before.fate, "{}", before.name);
        } else {
            ensure!(
                matches!(now.fate, Fate::Stay(StayReason::Configured { .. })),
                "{}: {:?}",
                now.name,
                now.fate
            );
        }
    }
    let said = refused(&listed("kernel/sched/core.c"));
    ensure!(said.contains("kernel/sched/core.c has to be among mod_files"), "{said}");
    Ok(())
}

#[test]
fn symbols_that_are_not_there_are_named_with_the_nearest() -> Result<()> {
    let said = refused("function:\n  interface:\n    - try_to_wakeup\n    - sched_fork\n");
    ensure!(said.starts_with("c.yaml:3:7: ") && said.contains("did you mean try_to_wake_up?"), "{said}");
    ensure!(said.lines().count() == 1, "{said}");
    let said = refused("global_var:\n  extra_public: [runqeues]\n");
    ensure!(said.starts_with("c.yaml:2:18: ") && said.contains("did you mean runqueues?"), "{said}");
    let said = refused("stay_in_vmlinux: [kmem_cache_alloc]\n");
    ensure!(said.contains("naming it in sidecar"), "{said}");
    // vmlinux was read without that unit, although `init` would read it.
    let said = refused("sidecar:\n  - cpuset_attach: kernel/cgroup/cpuset.c\n");
    ensure!(said.starts_with("c.yaml:2:5: ") && said.contains("not read"), "{said}");
    let said = refused("global_var:\n  extra_public: [\"kernel/sched/fair.c:runqueues\"]\n");
    ensure!(said.contains("there is kernel/sched/core.c:runqueues"), "{said}");
    Ok(())
}

/// Each with a part of the expected reason.
const NEVER_PRIVATE: &[(&str, &str)] = &[
    ("runqueues", "what stays in vmlinux uses"),
    ("task_groups", "others are linked into it"),
    ("kernel_cpustat", "it is exported"),
    ("sched_domains_mutex", "a lock"),
    ("def_root_domain", "code outside the scheduler uses"),
    ("sysctl_sched_nr_migrate", "its address was handed out at boot by"),
    ("root_task_group", "its address is held by"),
];

#[test]
fn what_others_go_on_using_cannot_be_private() -> Result<()> {
    let mut wrong = Vec::new();
    for (name, because) in NEVER_PRIVATE {
        variable(computed(), name)?;
        let said = refused(&format!("global_var:\n  force_private:\n    - {name}\n"));
        if !said.starts_with(&format!("c.yaml:3:7: {name} (")) || !said.contains(because) {
            wrong.push(format!("{name}, {because}: {said}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    // A pointer may be made private by the author, but it must not be carried.
    let config = |carry: bool| {
        format!(
            "global_var:\n  force_private:\n    - {{name: sched_domain_topology_saved, carry: {carry}}}\n"
        )
    };
    if variable(computed(), "sched_domain_topology_saved").is_ok() {
        let boundary = with(&config(false))?;
        ensure!(boundary.notes.iter().any(|note| note.contains("holds a pointer")), "{:?}", boundary.notes);
        let said = refused(&config(true));
        ensure!(said.contains("cannot be carried") && said.contains("holds a pointer"), "{said}");
    }
    Ok(())
}

#[test]
fn both_directions_can_be_chosen() -> Result<()> {
    let name = "max_load_balance_interval";
    assert_eq!(variable(computed(), name)?.sharing, Sharing::Shared);
    let boundary = with(&format!("global_var:\n  force_private:\n    - {{name: {name}, carry: true}}\n"))?;
    let now = variable(&boundary, name)?;
    ensure!(matches!(now.sharing, Sharing::Private(_)) && now.carry, "{now:?}");

    let local = computed().variables.iter().find(|v| {
        matches!(&v.sharing, Sharing::Private(why) if why.contains("its number differs"))
            && computed().variables.iter().filter(|o| o.name == v.name).count() == 1
    });
    let local = local.context("no static in a function")?;
    let boundary = with(&format!("global_var:\n  extra_public: [{}]\n", local.name))?;
    assert_eq!(variable(&boundary, &local.name)?.sharing, Sharing::Shared);

    let said = refused("global_var:\n  extra_public: [sysctl_sched_features]\n");
    ensure!(said.contains("cannot be shared"), "{said}");
    Ok(())
}

#[test]
fn plugscheds_rule_makes_static_ones_private_where_that_is_possible() -> Result<()> {
    let boundary = with("data: plugsched\nglobal_var:\n  extra_public: [max_load_balance_interval]\n")?;
    let is_static = |v: &BoundaryVariable| {
        let mut all = image().units.iter().flat_map(|u| &u.variables);
        all.any(|other| other.addr == v.addr && other.name == v.name && !other.external)
    };
    assert_eq!(variable(&boundary, "max_load_balance_interval")?.sharing, Sharing::Shared);
    let mut made_private = 0;
    for (now, before) in boundary.variables.iter().zip(&computed().variables) {
        if now.sharing == before.sharing {
            continue;
        }
        ensure!(is_static(now) && now.not_private.is_empty() && !now.carry, "{now:?}");
        made_private += 1;
    }
    let kept = boundary.variables.iter().filter(|v| is_static(v) && !v.not_private.is_empty()).count();
    eprintln!("{made_private} static variables private, {kept} cannot be");
    ensure!(made_private > 5 && kept > 5, "{made_private} private, {kept} cannot be");
    Ok(())
}

/// In the form of plugsched's own configurations: one file per line, prefixes of system calls for all architectures,
/// `__schedule` and functions that sleep among the interfaces, scheduling classes among the private variables.
fn in_plugscheds_shape() -> String {
    let there = |name: &&str| computed().functions.iter().any(|f| f.name == *name);
    let interfaces =
        ["__schedule", "yield", "sched_fork", "scheduler_tick", "try_to_wake_up", "set_user_nice"];
    let classes = computed().classes.iter().map(|class| class.name.as_str());
    let list = |names: Vec<&str>| names.iter().map(|name| format!("    - {name}\n")).collect::<String>();
    format!(
        "mod_files:\n    - kernel/sched/core.c\n    - kernel/sched/fair.c\n    - kernel/sched/rt.c\n    - kernel/sched/sched.h\n\
         interface_prefix:\n    - __x64_sys_\n    - __arm64_sys_\nfunction:\n    interface:\n{}\
         global_var:\n    extra_public:\n    - task_group_cache\n    force_private:\n    - sysctl_sched_features\n    - sched_feat_keys\n{}sidecar:\n",
        list(interfaces.into_iter().filter(there).collect()),
        list(classes.collect()),
    )
}

#[test]
fn plugscheds_own_shape_is_understood() -> Result<()> {
    let boundary = with(&in_plugscheds_shape())?;
    let says = |what: &str| boundary.notes.iter().any(|note| note.contains(what));
    ensure!(says("yield stays in vmlinux although it is named an interface"), "{:#?}", boundary.notes);
    ensure!(says("fair_sched_class (kernel/sched/fair.c): vmlinux's stays"), "{:#?}", boundary.notes);
    Ok(())
}

#[test]
fn the_effective_configuration_leads_to_the_same_boundary() -> Result<()> {
    let files = |boundary: &Boundary| -> Vec<String> {
        let files = boundary.functions.iter().map(|f| f.decl_file.clone());
        files.filter(|file| file.starts_with("kernel/sched/")).collect::<BTreeSet<_>>().into_iter().collect()
    };
    for text in [String::new(), in_plugscheds_shape(), "data: plugsched\n".to_owned()] {
        let config = config::parse("c.yaml", &text)?;
        let before = boundary::compute(image(), &config)?;
        let written = serde_json::to_string(&effective(&before, &config, files(&before)))?;
        // JSON is YAML.
        let after = with(&written)?;
        for (a, b) in before.functions.iter().zip(&after.functions) {
            let by_configuration = |f: &Fate| matches!(f, Fate::Stay(StayReason::Configured { .. }));
            ensure!(
                a.class == b.class
                    && (a.fate == b.fate || by_configuration(&a.fate) && by_configuration(&b.fate)),
                "{text}{}: {:?} became {:?}",
                a.name,
                a.fate,
                b.fate
            );
        }
        for (a, b) in before.variables.iter().zip(&after.variables) {
            let private = |v: &BoundaryVariable| matches!(v.sharing, Sharing::Private(_));
            ensure!(
                private(a) == private(b) && a.carry == b.carry,
                "{text}{}: {:?} {:?}",
                a.name,
                a.sharing,
                b.sharing
            );
        }
    }
    Ok(())
}

#[test]
fn the_command_says_all_that_is_wrong_and_writes_what_is_effective() -> Result<()> {
    let (work, _lock) = configured_work_dir(Some("stay_in_vmlinux: [sched_show_task]\n"))?;
    let text = |file: &str| fs::read_to_string(work.join(file)).with_context(|| file.to_owned());
    let effective = text("boundary.yaml")?;
    config::parse("boundary.yaml", &effective)?;
    ensure!(effective.contains("- sched_show_task"), "{effective}");
    let extract = text("boundary_extract.yaml")?;
    ensure!(extract.contains("name: sched_show_task") && extract.contains("the configuration keeps it"));
    let doc: serde_json::Value = serde_json::from_str(&text(".schedswap/boundary_doc.json")?)?;
    let task = &doc["structures"]["task_struct"];
    ensure!(task["all_fields"].as_array().is_some_and(|fields| fields.len() > 100), "{task}");
    let users = task["public_fields"]["exit_code"].as_array().context("nobody uses exit_code")?;
    ensure!(users.iter().any(|user| user == "kernel/exit.c"), "{users:?}");
    let queue = &doc["structures"]["cfs_rq"];
    ensure!(queue["declared"].as_str().is_some_and(|at| at.starts_with("kernel/sched/sched.h:")), "{queue}");

    let file = work.join(".schedswap/wrong.yaml");
    fs::write(&file, "mod_files:\n  - kernel/sched/coer.c\nmod_file: 1\n")?;
    let kernel = kernel()?;
    let path = |path: &std::path::Path| path.display().to_string();
    let arguments = |config: &std::path::Path| -> Vec<String> {
        let fixed = [
            "init",
            &kernel.release,
            &path(&kernel.source),
            &path(&work),
            "--sysroot",
            &path(&kernel.sysroot),
        ];
        fixed.into_iter().map(str::to_owned).chain(["--config".to_owned(), path(config)]).collect()
    };
    let run = |config: &std::path::Path| -> Result<String> {
        let arguments = arguments(config);
        let output = schedswap(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
        assert_eq!(output.status.code(), Some(1));
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let said = run(&file)?;
    ensure!(said.contains("wrong.yaml:3:1: ") && said.contains("mod_file"), "{said}");
    fs::write(&file, "mod_files:\n  - kernel/sched/coer.c\n")?;
    let said = run(&file)?;
    ensure!(
        said.contains("wrong.yaml:2:5: ") && said.contains("did you mean kernel/sched/core.c?"),
        "{said}"
    );
    let said = run(&work.join("absent.yaml"))?;
    ensure!(said.contains("cannot read the configuration") && said.contains("absent.yaml"), "{said}");
    Ok(())
}
