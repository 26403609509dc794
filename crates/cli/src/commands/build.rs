//! `schedswap build`: the edited scheduler as a module, and as packages.

use super::check::{Allowing, Edit, recorded};
use crate::outcome::Outcome;
use crate::packages::{FormatChoice, Packaging, SigningArgs};
use crate::progress::Shown;
use anyhow::Context;
use clap::Args;
use schedswap_host::progress::Progress;
use schedswap_package::Payload;
use schedswap_payload::{BuildId, manifest};
use schedswap_sched::binding::UnitObject;
use schedswap_sched::module::{self, extension::Extension};
use schedswap_sdk::workdir::Workdir;
use std::fs;
use std::path::PathBuf;

/// Compile the edited scheduler, check it, link it into scheduler.ko, and make packages of it
///
/// Only units that an edit touches are compiled again. The result is WORK_DIR/scheduler.ko, with manifest.json and
/// the packages beside it. A package holds the module, the manifest, the loader and the licences; installing it swaps
/// the scheduler in, removing it puts the kernel's own back.
///
/// The same sources make the same packages, byte for byte: their date is SOURCE_DATE_EPOCH, or that of the work dir's
/// last commit; their changelog is the work dir's git log.
#[derive(Args)]
pub struct BuildArgs {
    /// The work dir
    work_dir: PathBuf,
    /// Name of this scheduler: the packages are called scheduler-NAME-…
    #[arg(long, default_value = "custom")]
    name: String,
    /// Its release; several of one name can be installed, if they differ in this
    #[arg(long, default_value = "1")]
    release: String,
    /// One line on what it is for, shown by package managers
    #[arg(long, value_name = "TEXT")]
    summary: Option<String>,
    /// Which packages to make
    #[arg(long, value_name = "FORMAT", value_enum, value_delimiter = ',', default_value = "deb,rpm")]
    format: Vec<FormatChoice>,
    #[command(flatten)]
    signing: SigningArgs,
    #[command(flatten)]
    allowing: Allowing,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(serde::Serialize)]
struct Built {
    module: PathBuf,
    signed: bool,
    packages: Vec<PathBuf>,
    kernel_release: String,
    diverted: usize,
    new_functions: Vec<String>,
    private_data: Vec<String>,
    /// New variables whose values the next version takes over when it declares the same.
    handed_over: Vec<String>,
    /// Variables whose values come from vmlinux at load and go back at unload.
    carried: Vec<String>,
    warnings: Vec<String>,
}

/// Builds the module.
pub fn run(args: BuildArgs) -> anyhow::Result<Outcome> {
    let progress = Shown::on_stderr();
    let work = Workdir::open(&args.work_dir)?;
    if let Some(warning) = work.warning() {
        eprintln!("warning: {warning}");
    }
    // Before anything that takes long.
    let packaging = Packaging::new(&args.format, &work)?;
    let signer = args.signing.signer(&work)?;
    let name = schedswap_package::Name::new(&args.name, &args.release, &work.kernel().release)?;
    if let Some(summary) = &args.summary {
        schedswap_package::check_summary(summary)?;
    }
    let compiled = work.compile_with_runtime(&progress)?;
    let edited = work.objects(&compiled)?;
    progress.begin("reading vmlinux", None);
    let image = work.image()?;
    progress.end("");

    let boundary = work.boundary()?;
    let edit = Edit { work: &work, image: &image, boundary: &boundary, edited: &edited };
    let Some(findings) = edit.allowed(&args.allowing, &progress)? else {
        return Ok(Outcome::Refused);
    };
    let units: Vec<UnitObject> =
        edited.into_iter().map(|(unit, object)| UnitObject::new(unit, object)).collect();
    let version = name.version();
    let commands = work.commands()?;
    let input = module::Input {
        image: &image,
        boundary: &boundary,
        addresses: &work.addresses()?,
        contract: &work.springboard()?,
        units: &units,
        commands: &commands,
        dir: &work.build_dir(),
        tree: work.root(),
        version: &version,
    };
    let bound = module::bind(&input, &progress)?;
    let (mut edited, as_released) = module::units_with_state(&units, &bound.rewritten, &boundary);
    edited.extend(module::extension::units_with_declarations(&units));
    let unit_object = |(unit, object)| UnitObject { unit, object };
    let declarations = |list: Vec<_>| -> Vec<UnitObject> { list.into_iter().map(unit_object).collect() };
    let declarations = module::Declarations {
        edited: &declarations(work.declarations(&edited, &progress)?),
        pristine: &declarations(work.pristine_declarations(&as_released, &progress)?),
    };
    let states = module::states(&units, &bound.rewritten, &boundary, &declarations)?;
    let extension = Extension::of(&image, &boundary, &units, &bound.rewritten, declarations.edited)?;
    let module = module::build(&input, &bound, &states, &extension, &progress)?;
    let rewritten = bound.rewritten;
    let mut bytes =
        fs::read(&module.path).with_context(|| format!("cannot read {}", module.path.display()))?;
    if let Some(signer) = &signer {
        bytes = module::sign::sign(&bytes, signer)?;
    }
    let target = work.module();
    fs::write(&target, &bytes).with_context(|| format!("cannot write {}", target.display()))?;
    let payload = Payload::new(schedswap_package::Input {
        name,
        summary: args.summary,
        module: bytes,
        functions: module.functions.clone(),
        loader: packaging.loader(),
        build_id: BuildId::from_bytes(&image.build_id).context("vmlinux has no build-id")?,
        boundary: &boundary,
        findings_allowed: recorded(&findings, true),
        warnings: recorded(&findings, false),
        source_commit: work.commit(),
    })?;
    let path = work.root().join(manifest::FILE_NAME);
    fs::write(&path, payload.manifest.to_json())
        .with_context(|| format!("cannot write {}", path.display()))?;
    let packages = packaging.write(&payload, &progress)?;

    let names =
        |carried: &[schedswap_sched::binding::Carried]| carried.iter().map(|c| c.name.clone()).collect();
    let mut warnings = rewritten.warnings;
    warnings.extend(states.left.iter().map(|left| format!("a next version cannot take over {left}")));
    let named = |wanted: &dyn Fn(&module::tables::State) -> bool| {
        states.carried.iter().filter(|state| wanted(state)).map(|state| state.name.clone()).collect()
    };
    let built = Built {
        module: target,
        signed: signer.is_some(),
        packages,
        kernel_release: image.release,
        diverted: module.functions.len(),
        new_functions: names(&rewritten.new_functions),
        private_data: names(&rewritten.private_data),
        carried: named(&|state| state.vmlinux.is_some()),
        handed_over: named(&|state| state.vmlinux.is_none()),
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
        for package in &built.packages {
            println!("{}", package.display());
        }
    }
    Ok(Outcome::Done)
}
