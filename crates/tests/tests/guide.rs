//! The author guide's worked examples: each is a folder with a patch and a script `try.sh`, which loads the module
//! named by `$SCHEDSWAP_MODULE`, checks that it does what the guide says, and unloads it. One guest runs them all,
//! one after another; after each, the kernel's memory must be as before.

use anyhow::{Context, Result, ensure};
use schedswap_tests::edit::Tree;
use schedswap_tests::{Built, build, guest, memory};
use std::fs;
use std::path::{Path, PathBuf};

fn examples() -> Result<Vec<(String, PathBuf)>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/guide");
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().context("a name")?.to_string_lossy().into_owned();
        found.push((name, path));
    }
    found.sort();
    Ok(found)
}

fn apply(tree: &Tree, name: &str, dir: &Path) -> Result<()> {
    let mut patches = 0;
    for entry in fs::read_dir(dir)? {
        let file = entry?.file_name().to_string_lossy().into_owned();
        if file.ends_with(".patch") {
            tree.patch(&format!("examples/guide/{name}/{file}"))?;
            patches += 1;
        }
    }
    ensure!(patches == 1, "{name} has {patches} patches");
    Ok(())
}

#[test]
fn every_work_around_does_what_the_guide_says() -> Result<()> {
    let examples = examples()?;
    ensure!(examples.len() >= 4, "{examples:?}");
    let mut modules: Vec<(&str, &Path, Built)> = Vec::new();
    for (name, dir) in &examples {
        let module =
            build(&format!("guide-{name}"), |tree| apply(tree, name, dir)).with_context(|| name.clone())?;
        modules.push((name, dir, module));
    }
    let (_, _, first) = modules.first().context("no example")?;
    let guest = guest(first, |config| {
        for (name, dir, module) in &modules {
            let files =
                [("scheduler.ko", module.module()), ("manifest.json", module.dir.join("manifest.json"))];
            for (file, from) in files {
                config.initramfs.copy(&from, &format!("/guide/{name}/{file}")).expect("the module was built");
            }
            let script = fs::read(dir.join("try.sh")).expect("each example has a script");
            config.initramfs.bytes(&format!("/guide/{name}/try.sh"), &script, 0o755);
        }
    })?;
    memory().save(&guest, "stock")?;
    for (name, _, _) in &modules {
        let script = format!("SCHEDSWAP_MODULE=/guide/{name}/scheduler.ko /guide/{name}/try.sh");
        let said = guest.sh(&script).with_context(|| format!("examples/guide/{name}"))?;
        eprintln!("{name}: {said}");
        memory().save(&guest, name)?;
        memory().compare(&guest, "stock", name).with_context(|| format!("examples/guide/{name}"))?;
    }
    guest.shutdown()?;
    Ok(())
}

/// The guide links to every example, and every link leads to a file.
#[test]
fn the_guide_and_its_examples_belong_together() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut text = String::new();
    for entry in fs::read_dir(root.join("docs/guide"))? {
        let path = entry?.path();
        let page = fs::read_to_string(&path)?;
        for link in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            let is_there = target.is_empty() || root.join("docs/guide").join(target).exists();
            ensure!(is_there, "{} links to {link}, which is not there", path.display());
        }
        text += &page;
    }
    for (name, _) in examples()? {
        ensure!(text.contains(&format!("examples/guide/{name}")), "the guide does not mention {name}");
    }
    Ok(())
}
