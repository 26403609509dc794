//! `schedswap holes`: where a new member fits.

use crate::outcome::Outcome;
use crate::progress::Shown;
use anyhow::{Context, bail};
use clap::Args;
use schedswap_host::progress::Progress;
use schedswap_kernel::types::{Layouts, RecordLayout};
use schedswap_sdk::Workdir;
use std::path::PathBuf;

/// Show the padding in the scheduler's structures, which is where a new member fits
///
/// A structure that other code knows must keep its size and the offsets of its members, so a new member can only take
/// bytes that are free. Without TYPE, this shows every structure that the scheduler's own files declare, that its
/// variables are made of, or that one of these points to, and those inside them. Padding of an inner structure has room
/// for members of that inner structure only.
#[derive(Args)]
pub struct HolesArgs {
    /// The work dir
    work_dir: PathBuf,
    /// A structure or union: task_struct, rq, sched_entity
    #[arg(value_name = "TYPE")]
    name: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the padding.
pub fn run(args: HolesArgs) -> anyhow::Result<Outcome> {
    let progress = Shown::on_stderr();
    let work = Workdir::open(&args.work_dir)?;
    progress.begin("reading vmlinux", None);
    let layouts = Layouts::of_kernel(&work.image()?)?;
    progress.end("");
    let shown: Vec<RecordLayout> = match &args.name {
        Some(name) => {
            let name = name.trim_start_matches("struct ").trim_start_matches("union ");
            let Some(layout) = layouts.layout(name) else {
                bail!(
                    "there is no structure or union {name} in the scheduler of {}; without a name, `schedswap holes` shows all",
                    work.kernel().release
                );
            };
            vec![layout]
        }
        None => {
            let all = layouts.of_the_scheduler();
            let all = all.iter().filter_map(|name| layouts.layout(name));
            all.filter(|layout| !layout.holes.is_empty() || !layout.spare_bits.is_empty()).collect()
        }
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&shown).context("cannot write JSON")?);
    } else {
        for layout in &shown {
            print(layout);
        }
    }
    Ok(Outcome::Done)
}

fn print(layout: &RecordLayout) {
    let place = &layout.place;
    println!(
        "{} ({}:{}): {} bytes, aligned to {}",
        layout.title, place.file, place.line, layout.bytes, layout.align
    );
    for hole in &layout.holes {
        let inside = match hole.path.as_str() {
            "" => String::new(),
            path => format!(", in {path} ({})", hole.owner),
        };
        let between = match (&hole.after, &hole.before) {
            (Some(after), Some(before)) => format!("between {after} and {before}"),
            (Some(after), None) => format!("after {after}, at the end"),
            (None, Some(before)) => format!("before {before}"),
            (None, None) => "all of it".to_owned(),
        };
        println!("  {:>6}  {:>4} bytes  {between}{inside}", hole.offset, hole.bytes);
    }
    for spare in &layout.spare_bits {
        let inside = match spare.path.as_str() {
            "" => String::new(),
            path => format!(", in {path} ({})", spare.owner),
        };
        println!(
            "  {:>6}  {:>4} bits   of a bit-field's byte (mask {:#04x}){inside}",
            spare.offset,
            spare.mask.count_ones(),
            spare.mask
        );
    }
    if layout.holes.is_empty() && layout.spare_bits.is_empty() {
        println!("  no padding");
    }
}
