//! What differs between kernels, as docs/design/kernels.md has it in its table: read from the kernel under test anew.

use anyhow::{Context, Result, ensure};
use schedswap_kernel::vmlinux::Image;
use schedswap_sched::springboard::{self, Base};
use schedswap_tests::image;
use std::fs;
use std::path::Path;

/// The two things that a row is found by: the line, and the compiler's major version, for Debian builds some lines with
/// two.
fn line(image: &Image) -> Result<(String, String)> {
    let mut numbers = image.release.split(['.', '-', '+']);
    let [major, minor] = [numbers.next(), numbers.next()].map(Option::unwrap_or_default);
    // `GNU C11 12.2.0 -mno-sse …`
    let version = image.producer.split(' ').nth(2).context("the compiler's version")?;
    let compiler = version.split('.').next().unwrap_or_default();
    Ok((format!("{major}.{minor}"), format!("gcc {compiler}")))
}

fn yes(there: bool) -> String {
    if there { "yes" } else { "no" }.to_owned()
}

/// The cells of a kernel's row, with the columns they belong to.
fn row(image: &Image) -> Result<Vec<(&'static str, String)>> {
    let (line, compiler) = line(image)?;
    let contract = springboard::derive(image)?;
    let frame = match contract.base {
        Base::Rsp => "rsp".to_owned(),
        Base::Rbp => "rbp".to_owned(),
        Base::X29(offset) => format!("x29 {offset}"),
    };
    // gcc's suffixes for what it made of a function are not the kernel's.
    let calls = contract.calls.iter().map(|name| format!("`{}`", name.split('.').next().unwrap_or(name)));
    let has = |name: &str| !image.symbols_named(name).is_empty();
    let size = |name: &str| image.entry_sizes.get(name).map_or("none".to_owned(), u64::to_string);
    Ok(vec![
        ("kernel", line),
        ("compiler", compiler),
        (
            "units",
            image.units.iter().filter(|unit| unit.name.starts_with("kernel/sched/")).count().to_string(),
        ),
        ("frame of `__schedule`", frame),
        ("its tail calls", calls.collect::<Vec<_>>().join(", ")),
        ("call padding", yes(image.symbols.iter().any(|symbol| symbol.name.starts_with("__pfx_")))),
        ("endbr sealed", yes(image.sealed().is_some_and(|sealed| !sealed.is_empty()))),
        ("UBSAN", yes(has("__ubsan_handle_out_of_bounds"))),
        ("sched_ext", yes(has("ext_sched_class"))),
        ("`alt_instr`, bytes", size("alt_instr")),
        ("`bug_entry`, bytes", size("bug_entry")),
    ])
}

fn cells(line: &str) -> Vec<&str> {
    line.trim().trim_matches('|').split('|').map(str::trim).collect()
}

#[test]
fn the_table_of_kernels_is_true() -> Result<()> {
    let row = row(image())?;
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/design/kernels.md"))?;
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
    let head =
        lines.iter().position(|line| line.starts_with("| kernel | compiler |")).context("the table")?;
    let columns: Vec<&str> = row.iter().map(|(column, _)| *column).collect();
    ensure!(cells(lines[head]) == columns, "the columns are {columns:?}");

    let seen: Vec<&str> = row.iter().map(|(_, cell)| cell.as_str()).collect();
    let found = lines[head..].iter().map(|line| cells(line)).find(|cells| cells[..2] == seen[..2]);
    let text = format!("| {} |", seen.join(" | "));
    match found {
        Some(cells) => {
            ensure!(
                cells == seen,
                "docs/design/kernels.md has {cells:?} of {}; it is\n{text}",
                image().release
            )
        }
        // A line that the archive has had since yesterday breaks nothing.
        None => println!("docs/design/kernels.md has no row for {} yet. It is\n{text}", image().release),
    }
    Ok(())
}
