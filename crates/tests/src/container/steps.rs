//! A stage's steps, done in a chroot as an engine does them in a container.

use super::chroot::output;
use super::{Chroot, Copied, Stage, Step};
use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a stage may copy from.
pub struct Context {
    /// The directory that the engine is run in.
    pub checkout: PathBuf,
    /// Files of earlier stages, by their names.
    pub stages: BTreeMap<String, PathBuf>,
}

/// Does the steps in a chroot of the stage's base. `offline` says which of the scripts must do without a network.
/// Returns the directory that the image starts in.
///
/// # Errors
/// That of the step that failed, with all that it said.
pub fn make(stage: &Stage, chroot: &Chroot, context: &Context, offline: fn(&str) -> bool) -> Result<String> {
    let mut dir = PathBuf::from("/");
    for step in &stage.steps {
        let inside = |dir: &Path| dir.display().to_string();
        match step {
            Step::WorkDir(path) => {
                dir.push(path);
                fs::create_dir_all(chroot.path(&inside(&dir)))?;
            }
            Step::Copy(copied) => copy(copied, &chroot.path(&inside(&dir.join(&copied.to))), context)?,
            Step::Run(script) if offline(script) => drop(chroot.sh_offline(&inside(&dir), script)?),
            Step::Run(script) => drop(chroot.sh(&inside(&dir), script)?),
        }
    }
    Ok(dir.display().to_string())
}

/// Of a directory its content is copied, and all belongs to root.
fn copy(copied: &Copied, to: &Path, context: &Context) -> Result<()> {
    let root = match &copied.from {
        Some(name) => context.stages.get(name).with_context(|| format!("no stage {name}"))?,
        None => &context.checkout,
    };
    let source = root.join(copied.source.trim_start_matches('/'));
    let is_dir = source.metadata().with_context(|| format!("COPY {}", source.display()))?.is_dir();
    fs::create_dir_all(if is_dir { to } else { to.parent().context("a directory")? })?;
    let mut cp = Command::new("cp");
    cp.args(["--recursive", "--no-dereference", "--preserve=mode,timestamps"]);
    output(cp.arg(if is_dir { source.join(".") } else { source }).arg(to)).map(drop)
}
