//! `schedswap build`: the edited scheduler as a module.

use crate::outcome::Outcome;
use crate::progress::Shown;
use anyhow::Context;
use clap::Args;
use schedswap::binding::UnitObject;
use schedswap::module;
use schedswap::progress::Progress;
use schedswap::workdir::Workdir;
use schedswap_payload::{BuildId, Manifest, manifest};
use std::fs;
use std::path::PathBuf;

/// Compile the edited scheduler, check it, and link it into scheduler.ko
///
/// Only units that an edit touches are compiled again. The result is WORK_DIR/scheduler.ko, with manifest.json
/// beside it.
#[derive(Args)]
pub struct BuildArgs {
    /// The work dir
    work_dir: PathBuf,
    /// Name of this scheduler, shown by the loader
    #[arg(long, default_value = "scheduler")]
    name: String,
    /// Its release, shown by the loader
    #[arg(long, default_value = "1")]
    release: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(serde::Serialize)]
struct Built {
    module: PathBuf,
    kernel_release: String,
    diverted: usize,
    new_functions: Vec<String>,
    private_data: Vec<String>,
    /// New variables whose values the next version takes over when it declares the same.
    handed_over: Vec<String>,
    warnings: Vec<String>,
}

/// Builds the module.
pub fn run(args: BuildArgs) -> anyhow::Result<Outcome> {
    let progress = Shown::on_stderr();
    let work = Workdir::open(&args.work_dir)?;
    if let Some(warning) = work.warning() {
        eprintln!("warning: {warning}");
    }
    let compiled = work.compile(&progress)?;
    let edited = work.objects(&compiled)?;
    progress.begin("reading vmlinux", None);
    let image = work.image()?;
    progress.end("");

    let boundary = work.boundary()?;
    if super::check::refuses(&work, &image, &boundary, &edited)? {
        return Ok(Outcome::Refused);
    }
    let units: Vec<UnitObject> =
        edited.into_iter().map(|(unit, object)| UnitObject { unit, object }).collect();
    let version = format!("{}-{}", args.name, args.release);
    let input = module::Input {
        image: &image,
        boundary: &boundary,
        addresses: &work.addresses()?,
        contract: &work.springboard()?,
        units: &units,
        kbuild: &work.kbuild()?,
        dir: &work.build_dir(),
        sched: &work.root().join("kernel/sched"),
        version: &version,
    };
    let bound = module::bind(&input, &progress)?;
    let wanted = module::units_with_state(&units, &bound.rewritten, &boundary);
    let declarations: Vec<UnitObject> = work
        .declarations(&wanted, &progress)?
        .into_iter()
        .map(|(unit, object)| UnitObject { unit, object })
        .collect();
    let states = module::states(&units, &bound.rewritten, &boundary, &declarations)
        .context("the compiler's debug information cannot be read")?;
    let module = module::build(&input, &bound, &states, &progress)?;
    let rewritten = bound.rewritten;
    let target = work.module();
    fs::copy(&module.path, &target).with_context(|| format!("cannot write {}", target.display()))?;
    let manifest = Manifest {
        format: manifest::FORMAT,
        name: args.name,
        version: env!("CARGO_PKG_VERSION").to_string(),
        release: args.release,
        sdk_version: env!("CARGO_PKG_VERSION").to_string(),
        source_commit: work.commit(),
        kernel_release: image.release.clone(),
        build_id: BuildId::from_bytes(&image.build_id).context("vmlinux has no build-id")?,
        machine: "x86_64".to_string(),
        module: "scheduler.ko".to_string(),
        summary: String::new(),
        module_name: schedswap_payload::MODULE_NAME.to_string(),
        boundary_hash: String::new(),
        digests: Default::default(),
        functions: module.functions.clone(),
        findings_allowed: Vec::new(),
    };
    let path = work.root().join(manifest::FILE_NAME);
    fs::write(&path, manifest.to_json()).with_context(|| format!("cannot write {}", path.display()))?;

    let names = |carried: &[schedswap::binding::Carried]| carried.iter().map(|c| c.name.clone()).collect();
    let mut warnings = rewritten.warnings;
    warnings.extend(states.left.into_iter().map(|left| format!("a next version cannot take over {left}")));
    let built = Built {
        module: target,
        kernel_release: image.release,
        diverted: module.functions.len(),
        new_functions: names(&rewritten.new_functions),
        private_data: names(&rewritten.private_data),
        handed_over: states.carried.into_iter().map(|state| state.name).collect(),
        warnings,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&built).context("cannot write JSON")?);
    } else {
        for warning in &built.warnings {
            eprintln!("warning: {warning}");
        }
        println!(
            "{}: {} functions of {} diverted, {} new functions, {} private variables",
            built.module.display(),
            built.diverted,
            built.kernel_release,
            built.new_functions.len(),
            built.private_data.len()
        );
    }
    Ok(Outcome::Done)
}
