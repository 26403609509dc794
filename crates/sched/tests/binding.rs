//! Binding a real kernel's scheduler, found through the environment: `SCHEDSWAP_TEST_VMLINUX` (a debug
//! vmlinux), `SCHEDSWAP_TEST_KBUILD` (a directory for `make -C`), `SCHEDSWAP_TEST_SOURCE` (the kernel's source,
//! or a tree with the private headers) and, to keep what is compiled, `SCHEDSWAP_TEST_OUT`. Skipped without them.

use schedswap_host::progress::Silent;
use schedswap_kernel::objects::{self, Object};
use schedswap_kernel::vmlinux::{Image, Machine};
use schedswap_sched::binding::{self, Binding, Carried, UnitObject};
use schedswap_sched::boundary::{self, Boundary, Fate};
use schedswap_sched::compile::{self, Build};
use schedswap_sched::identity::{self, Addresses};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Instant;

struct Kernel {
    image: Image,
    boundary: Boundary,
    addresses: Addresses,
    units: Vec<UnitObject>,
}

static NONE: BTreeSet<(String, String)> = BTreeSet::new();

impl Kernel {
    fn binding(&self) -> Binding<'_> {
        Binding {
            image: &self.image,
            boundary: &self.boundary,
            addresses: &self.addresses,
            anchor: "_printk",
            called_otherwise: &NONE,
        }
    }
}

fn path(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

/// Read and compiled once for all tests of this file; `None` without a kernel to test on.
fn kernel() -> Option<&'static Kernel> {
    static KERNEL: OnceLock<Option<Kernel>> = OnceLock::new();
    KERNEL
        .get_or_init(|| {
            let (Some(vmlinux), Some(kbuild), Some(source)) = (
                path("SCHEDSWAP_TEST_VMLINUX"),
                path("SCHEDSWAP_TEST_KBUILD"),
                path("SCHEDSWAP_TEST_SOURCE"),
            ) else {
                eprintln!("skipped: SCHEDSWAP_TEST_{{VMLINUX,KBUILD,SOURCE}} are not set");
                return None;
            };
            let image = schedswap_kernel::vmlinux::open(&vmlinux).unwrap();
            let boundary = boundary::compute(&image, &schedswap_sched::config::Config::default()).unwrap();
            let units: Vec<String> = image.units.iter().map(|u| u.name.clone()).collect();
            let commands = compile::commands(&kbuild, &source, &units, image.machine, None).unwrap();
            let out = path("SCHEDSWAP_TEST_OUT").unwrap_or_else(|| tempfile::tempdir().unwrap().keep());
            let build = |build: Build, dir: &str| -> Vec<(String, Object)> {
                let jobs = compile::scheduler_jobs(&commands, build, &source, &out.join(dir));
                compile::compile(&commands, &jobs, &Silent)
                    .unwrap()
                    .iter()
                    .map(|c| {
                        (
                            c.label.clone(),
                            objects::read(&c.label, &std::fs::read(&c.object).unwrap()).unwrap(),
                        )
                    })
                    .collect()
            };
            let gate_objects = build(Build::Gate, "gate");
            let gate = identity::gate(&image, &gate_objects).unwrap();
            let addresses = identity::addresses(&image, &gate_objects, &gate).unwrap();
            let units = build(Build::Module, "module")
                .into_iter()
                .map(|(unit, object)| UnitObject::new(unit, object))
                .collect();
            Some(Kernel { image, boundary, addresses, units })
        })
        .as_ref()
}

#[test]
fn the_unmodified_scheduler_is_bound() {
    let Some(kernel) = kernel() else { return };
    let clock = Instant::now();
    let rewritten = binding::rewrite(&kernel.units, &kernel.binding()).unwrap();
    eprintln!("rewritten in {:?}", clock.elapsed());
    let bytes = objects::write(&rewritten.object).unwrap();
    eprintln!("written in {:?}, {} bytes", clock.elapsed(), bytes.len());
    if let Some(out) = path("SCHEDSWAP_TEST_OUT") {
        std::fs::write(out.join("scheduler.o"), &bytes).unwrap();
    }
    eprintln!(
        "{} targets, {} missing, {} new, {} private, {} dropped, classes {:?}",
        rewritten.targets.len(),
        rewritten.missing.len(),
        rewritten.new_functions.len(),
        rewritten.private_data.len(),
        rewritten.dropped.len(),
        rewritten.classes
    );
    for (unit, name) in &rewritten.missing {
        eprintln!("missing {unit} {name}");
    }
    for new in rewritten.new_functions.iter().chain(&rewritten.private_data) {
        eprintln!("{} {}: {}", new.unit, new.symbol, new.reason);
    }
    for warning in &rewritten.warnings {
        eprintln!("warning: {warning}");
    }
    assert_eq!(rewritten.missing, []);
    assert_eq!(rewritten.new_functions, []);
    assert_eq!(rewritten.warnings, [""; 0]);
    let diverted = |f: &&boundary::BoundaryFunction| matches!(f.fate, Fate::Divert(_) | Fate::Springboard(_));
    assert_eq!(rewritten.targets.len(), kernel.boundary.functions.iter().filter(diverted).count());
}

/// The examples that `binding/place/destination.rs` has for its levels, on the line of kernels that they are from. What the
/// compiler numbers is named by what comes before the number.
#[test]
fn each_level_answers_for_its_example() {
    let Some(kernel) = kernel() else { return };
    if !kernel.image.release.starts_with("6.1.") || kernel.image.machine != Machine::X86_64 {
        eprintln!("skipped: the examples are those of 6.1 for x86-64");
        return;
    }
    let rewritten = binding::rewrite(&kernel.units, &kernel.binding()).unwrap();
    let is_in = |list: &[Carried], unit: &str, name: &str, reason: &str| {
        list.iter().any(|c| c.unit == unit && c.name.starts_with(name) && c.reason.starts_with(reason))
    };
    let (core, fair) = ("kernel/sched/core.c", "kernel/sched/fair.c");
    let diverted = |name: &str| rewritten.targets.contains_key(&(core.to_owned(), name.to_owned()));
    assert!(diverted("try_to_wake_up") && diverted("__schedule"), "functions, level 1");
    assert!(
        rewritten.object.symbols.iter().any(|s| s.name == "enqueue_task_rt.cold.ss"),
        "functions, level 2"
    );
    assert!(rewritten.classes.contains_key("fair_sched_class"), "objects, level 3");
    let dropped = [
        (core, "schedule", "stays in vmlinux: threads sleep inside"),
        (core, "__SCT__tp_func_sched_switch", "in vmlinux, but not part of the boundary"),
        (core, "runqueues", "shared with vmlinux"),
        (fair, "__UNIQUE_ID___addressable_", "the module does not carry its section .discard.addressable"),
    ];
    for (unit, name, reason) in dropped {
        assert!(is_in(&rewritten.dropped, unit, name, reason), "{name} of {unit}: {reason}");
    }
    let own = [
        (fair, "__already_done.", "the module prints its own warnings once"),
        (fair, "_rs.", "local to a function"),
        (core, "sysctl_sched_features", "private: "),
    ];
    for (unit, name, reason) in own {
        assert!(is_in(&rewritten.private_data, unit, name, reason), "{name} of {unit}: {reason}");
    }
}

#[test]
fn the_unmodified_scheduler_laid_over_vmlinux_is_vmlinux() {
    let Some(kernel) = kernel() else { return };
    let rewritten = binding::rewrite(&kernel.units, &kernel.binding()).unwrap();
    let clock = Instant::now();
    let proof = binding::prove_identity(&rewritten, &kernel.binding()).unwrap();
    eprintln!(
        "proved in {:?}: {} functions, {} identical, relaid {:?}, {} objects, {} entries",
        clock.elapsed(),
        proof.functions,
        proof.identical,
        proof.relaid,
        proof.objects,
        proof.entries
    );
    for difference in &proof.different {
        eprintln!("{}: {}", difference.symbol, difference.what);
    }
    assert_eq!(proof.different, []);
    assert_eq!(proof.functions, proof.identical + proof.relaid.len());
}

#[test]
fn one_wrong_reference_spoils_the_proof() {
    let Some(kernel) = kernel() else { return };
    let mut rewritten = binding::rewrite(&kernel.units, &kernel.binding()).unwrap();
    for name in [".text.ss", "__jump_table", ".static_call_sites", ".rodata"] {
        let section = rewritten.object.sections.iter_mut().find(|s| s.name == name).unwrap();
        let middle = section.relocations.len() / 2;
        section.relocations[middle].addend += 4;
        let proof = binding::prove_identity(&rewritten, &kernel.binding()).unwrap();
        assert!(!proof.different.is_empty(), "a wrong addend in {name} was not noticed");
        let section = rewritten.object.sections.iter_mut().find(|s| s.name == name).unwrap();
        section.relocations[middle].addend -= 4;
    }
}

/// What the linker makes of an object, as a value.
fn linked(bytes: &[u8], dir: &std::path::Path) -> String {
    let (input, output) = (dir.join("in.o"), dir.join("out.o"));
    std::fs::write(&input, bytes).unwrap();
    let status =
        std::process::Command::new("ld").arg("-r").arg("-o").args([&output, &input]).status().unwrap();
    assert!(status.success());
    format!("{:#?}", objects::read("linked", &std::fs::read(&output).unwrap()).unwrap())
}

#[test]
fn the_kernels_objects_survive_being_read_and_written() {
    let Some(kernel) = kernel() else { return };
    let Some(out) = path("SCHEDSWAP_TEST_OUT") else { return };
    let dir = tempfile::tempdir().unwrap();
    for unit in &kernel.units {
        let stem = unit.unit.rsplit('/').next().unwrap().trim_end_matches(".c");
        let found = walk(&out.join("module")).into_iter().find(|p| p.ends_with(format!("{stem}.o")));
        let original = std::fs::read(found.unwrap()).unwrap();
        let written = objects::write(&unit.object).unwrap();
        let again = objects::read(&unit.object.name, &written).unwrap();
        assert!(format!("{:?}", unit.object) == format!("{again:?}"), "{stem} changed by being written");
        assert!(linked(&original, dir.path()) == linked(&written, dir.path()), "{stem} links otherwise");
    }
}

fn walk(dir: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(walk(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

#[test]
fn the_written_object_stands_up_to_verification() {
    let Some(kernel) = kernel() else { return };
    let rewritten = binding::rewrite(&kernel.units, &kernel.binding()).unwrap();
    let bytes = objects::write(&rewritten.object).unwrap();
    let clock = Instant::now();
    let report = binding::verify(&bytes, &kernel.units, &kernel.binding(), &rewritten);
    eprintln!("verified in {:?}", clock.elapsed());
    match report {
        Ok(report) => eprintln!("{report:?}"),
        Err(faults) => {
            for fault in faults.iter().take(40) {
                eprintln!("{fault}");
            }
            panic!("{} faults", faults.len());
        }
    }
}
