//! The gate and the addresses on a real kernel, found through the environment:
//! `SCHEDSWAP_TEST_VMLINUX` (a debug vmlinux), `SCHEDSWAP_TEST_KBUILD` (a directory for `make -C`) and
//! `SCHEDSWAP_TEST_SOURCE` (the kernel's source, or a tree with the private headers). Skipped without them.

use schedswap::compile::{self, Build};
use schedswap::identity::{self, KnownBy};
use schedswap::objects;
use schedswap::progress::Silent;
use std::path::PathBuf;
use std::time::Instant;

fn path(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

#[test]
fn the_pristine_scheduler_is_vmlinuxs() {
    let (Some(vmlinux), Some(kbuild), Some(source)) =
        (path("SCHEDSWAP_TEST_VMLINUX"), path("SCHEDSWAP_TEST_KBUILD"), path("SCHEDSWAP_TEST_SOURCE"))
    else {
        eprintln!("skipped: SCHEDSWAP_TEST_{{VMLINUX,KBUILD,SOURCE}} are not set");
        return;
    };
    let clock = Instant::now();
    let image = schedswap::vmlinux::open(&vmlinux).unwrap();
    eprintln!("open {:?}", clock.elapsed());
    let units: Vec<String> = image.units.iter().map(|u| u.name.clone()).collect();
    let makefile = source.join("kernel/sched/Makefile");
    let commands = compile::commands(&kbuild, &makefile, &units).unwrap();
    eprintln!("commands {:?} {:?}", clock.elapsed(), commands.compiler);
    assert!(commands.compiler.built(&image.compiler), "{} / {}", commands.compiler.comment, image.compiler);

    let out = path("SCHEDSWAP_TEST_OUT").unwrap_or_else(|| tempfile::tempdir().unwrap().keep());
    let jobs = compile::scheduler_jobs(&commands, Build::Gate, &source, &out);
    let compiled = compile::compile(&commands, &jobs, &Silent).unwrap();
    eprintln!("compiled {:?}", clock.elapsed());
    let objects: Vec<(String, objects::Object)> = compiled
        .iter()
        .map(|c| (c.label.clone(), objects::read(&c.label, &std::fs::read(&c.object).unwrap()).unwrap()))
        .collect();
    let gate = identity::gate(&image, &objects).unwrap();
    eprintln!("gate {:?}", clock.elapsed());
    for unit in &gate.units {
        eprintln!(
            "{}: {} {} {} overridden {:?}",
            unit.unit,
            unit.in_vmlinux(),
            unit.compiled(),
            unit.identical(),
            unit.overridden()
        );
        for (name, why) in unit.different() {
            eprintln!("  {name}: {why}");
        }
    }
    let addresses = identity::addresses(&image, &objects, &gate).unwrap();
    eprintln!("addresses {:?}", clock.elapsed());
    eprintln!(
        "{} relocations, {} externs, {} by relocation, {} by table, {} unplaced, different data {:?}",
        addresses.relocations,
        addresses.externs.len(),
        addresses.known_by(KnownBy::Relocation),
        addresses.known_by(KnownBy::SymbolTable),
        addresses.unplaced.len(),
        addresses.different_data
    );
    for u in &addresses.unplaced {
        eprintln!("  unplaced {} {} {}", u.unit, u.name, u.section);
    }
    for unit in &gate.units {
        assert_eq!(unit.different().count(), 0);
    }
}
