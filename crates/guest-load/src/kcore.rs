//! Saves kernel memory as /proc/kcore shows it, and compares two saves: a check of what a module did that
//! does not ask the module.
//!
//! Addresses in files and messages are those of the vmlinux file; KASLR is undone with one known symbol.

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Differing bytes listed before the rest is only counted.
const LISTED_MAX: usize = 50;

/// Subcommands of `kcore`.
#[derive(Subcommand)]
pub enum Command {
    /// Save the given ranges
    Save(SaveArgs),
    /// Compare two saves of the same ranges; lists the differing addresses and fails when there are any
    Compare(CompareArgs),
}

/// Arguments of `kcore save`.
#[derive(Args)]
pub struct SaveArgs {
    /// Lines of `start length name`, hexadecimal, addresses as linked
    #[arg(long, value_name = "FILE")]
    ranges: PathBuf,
    /// A symbol and its address as linked, which tell how far KASLR moved the kernel: `_text=ffffffff81000000`
    #[arg(long, value_name = "SYMBOL=ADDRESS")]
    anchor: String,
    /// Where to save
    out: PathBuf,
}

/// Arguments of `kcore compare`.
#[derive(Args)]
pub struct CompareArgs {
    /// Lines of `start length`: places that the kernel toggles by itself (jump labels, static calls, …)
    #[arg(long, value_name = "FILE")]
    ignore: Option<PathBuf>,
    /// The earlier save
    before: PathBuf,
    /// The later save
    after: PathBuf,
}

/// `kcore`.
pub fn run(command: &Command) -> Result<ExitCode> {
    match command {
        Command::Save(args) => save(args),
        Command::Compare(args) => compare(args),
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Span {
    start: u64,
    len: u64,
    name: String,
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn parse_spans(text: &str) -> Result<Vec<Span>> {
    let hex =
        |word: Option<&str>| -> Option<u64> { u64::from_str_radix(word?.trim_start_matches("0x"), 16).ok() };
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let mut words = line.split_whitespace();
            match (hex(words.next()), hex(words.next())) {
                (Some(start), Some(len)) => {
                    Ok(Span { start, len, name: words.next().unwrap_or("").to_string() })
                }
                _ => bail!("not `start length name` in hexadecimal: {line:?}"),
            }
        })
        .collect()
}

/// Run-time minus linked address, from `symbol=linked` and the text of /proc/kallsyms.
fn slide(anchor: &str, kallsyms: &str) -> Result<u64> {
    let (symbol, linked) = anchor.split_once('=').context("--anchor is SYMBOL=ADDRESS")?;
    let linked = u64::from_str_radix(linked.trim_start_matches("0x"), 16)
        .context("--anchor's address is hexadecimal")?;
    let line = kallsyms
        .lines()
        .find(|line| line.split_whitespace().nth(2) == Some(symbol))
        .with_context(|| format!("{symbol} is not in /proc/kallsyms"))?;
    let running = u64::from_str_radix(line.split_whitespace().next().unwrap_or(""), 16)?;
    if running == 0 {
        bail!("/proc/kallsyms hides addresses: run as root, with kernel.kptr_restrict below 2");
    }
    Ok(running.wrapping_sub(linked))
}

/// One PT_LOAD of /proc/kcore.
struct Segment {
    addr: u64,
    len: u64,
    offset: u64,
}

/// The loadable segments of a 64-bit little-endian ELF core: e_phoff at 32, e_phentsize at 54, e_phnum at
/// 56; in a program header p_type at 0, p_offset at 8, p_vaddr at 16, p_memsz at 40.
fn segments(core: &File) -> Result<Vec<Segment>> {
    let mut header = [0; 64];
    core.read_exact_at(&mut header, 0).context("cannot read /proc/kcore (locked down?)")?;
    if &header[..6] != b"\x7fELF\x02\x01" {
        bail!("/proc/kcore is not a 64-bit little-endian ELF file");
    }
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    let half = |bytes: &[u8], at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().expect("2 bytes"));
    let (table, size, count) = (word(&header, 32), half(&header, 54), half(&header, 56));
    if size < 56 {
        bail!("/proc/kcore has program headers of {size} bytes");
    }
    let mut segments = Vec::new();
    for index in 0..u64::from(count) {
        let mut entry = [0; 56];
        core.read_exact_at(&mut entry, table + index * u64::from(size))?;
        if u32::from_le_bytes(entry[..4].try_into().expect("4 bytes")) == 1 {
            segments.push(Segment { addr: word(&entry, 16), len: word(&entry, 40), offset: word(&entry, 8) });
        }
    }
    Ok(segments)
}

fn save(args: &SaveArgs) -> Result<ExitCode> {
    let spans = parse_spans(&String::from_utf8(read(&args.ranges)?)?)?;
    let slide = slide(&args.anchor, &String::from_utf8(read(Path::new("/proc/kallsyms"))?)?)?;
    let core = File::open("/proc/kcore").context("cannot open /proc/kcore")?;
    let segments = segments(&core)?;
    let file = File::create(&args.out).with_context(|| format!("cannot write {}", args.out.display()))?;
    let mut out = BufWriter::new(file);
    for span in spans {
        let at = span.start.wrapping_add(slide);
        let segment = segments
            .iter()
            .find(|s| s.addr <= at && at - s.addr < s.len && span.len <= s.len - (at - s.addr))
            .with_context(|| {
                format!("{:#x}+{:#x} {} is not in /proc/kcore", span.start, span.len, span.name)
            })?;
        let mut bytes = vec![0; span.len as usize];
        core.read_exact_at(&mut bytes, segment.offset + (at - segment.addr))
            .with_context(|| format!("cannot read {:#x} {} from /proc/kcore", span.start, span.name))?;
        writeln!(out, "{:x} {:x} {}", span.start, span.len, span.name)?;
        out.write_all(&bytes)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// The spans of a save with their bytes.
fn load(mut rest: &[u8]) -> Result<Vec<(Span, &[u8])>> {
    let mut spans = Vec::new();
    while !rest.is_empty() {
        let line = rest.iter().position(|b| *b == b'\n').context("cut short within a header")?;
        let span = parse_spans(std::str::from_utf8(&rest[..line])?)?.pop().context("an empty header")?;
        rest = &rest[line + 1..];
        if (rest.len() as u64) < span.len {
            bail!("cut short within {}", span.name);
        }
        let (bytes, after) = rest.split_at(span.len as usize);
        spans.push((span, bytes));
        rest = after;
    }
    Ok(spans)
}

/// A run of differing bytes.
#[derive(Debug, PartialEq)]
struct Difference {
    addr: u64,
    place: String,
    before: Vec<u8>,
    after: Vec<u8>,
}

/// Where two saves differ, outside `ignore` (sorted by start).
fn differences(before: &[u8], after: &[u8], ignore: &[Span]) -> Result<Vec<Difference>> {
    let (before, after) = (load(before).context("the earlier save")?, load(after).context("the later save")?);
    if before.iter().map(|(s, _)| s).ne(after.iter().map(|(s, _)| s)) {
        bail!("the saves are of different ranges");
    }
    let ignored = |addr: u64| {
        let after = ignore.partition_point(|span| span.start <= addr);
        ignore[..after].iter().rev().take(4).any(|span| addr - span.start < span.len)
    };
    let mut found: Vec<Difference> = Vec::new();
    for ((span, old), (_, new)) in before.iter().zip(&after) {
        if old == new {
            continue;
        }
        for (offset, (a, b)) in old.iter().zip(*new).enumerate().filter(|(_, (a, b))| a != b) {
            let addr = span.start + offset as u64;
            if ignored(addr) {
                continue;
            }
            match found.last_mut() {
                Some(last) if last.addr + last.before.len() as u64 == addr => {
                    last.before.push(*a);
                    last.after.push(*b);
                }
                _ => found.push(Difference {
                    addr,
                    place: format!("{}+{offset:#x}", span.name),
                    before: vec![*a],
                    after: vec![*b],
                }),
            }
        }
    }
    Ok(found)
}

fn compare(args: &CompareArgs) -> Result<ExitCode> {
    let mut ignore = match &args.ignore {
        Some(path) => parse_spans(&String::from_utf8(read(path)?)?)?,
        None => Vec::new(),
    };
    ignore.sort_by_key(|span| span.start);
    let mut before = Vec::new();
    File::open(&args.before)
        .with_context(|| format!("cannot open {}", args.before.display()))?
        .read_to_end(&mut before)?;
    let found = differences(&before, &read(&args.after)?, &ignore)?;
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
    for difference in found.iter().take(LISTED_MAX) {
        println!(
            "{:#x} {}: {} -> {}",
            difference.addr,
            difference.place,
            hex(&difference.before),
            hex(&difference.after)
        );
    }
    if found.len() > LISTED_MAX {
        println!("and {} more", found.len() - LISTED_MAX);
    }
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_named_and_ignored_sites_left_out() {
        let before = b"1000 4 a\nABCD2000 6 b\nabcdef";
        let after = b"1000 4 a\nAxyD2000 6 b\nabcdEF";
        let found = differences(before, after, &[]).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].addr, found[0].place.as_str()), (0x1001, "a+0x1"));
        assert_eq!((found[0].before.as_slice(), found[0].after.as_slice()), (&b"BC"[..], &b"xy"[..]));
        let ignore = parse_spans("1001 2\n2004 2 jump-label\n").unwrap();
        assert_eq!(differences(before, after, &ignore).unwrap(), []);
        let ignore = parse_spans("2004 1\n").unwrap();
        assert_eq!(differences(before, after, &ignore).unwrap()[1].addr, 0x2005);
    }

    #[test]
    fn saves_of_other_ranges_and_short_saves_are_refused() {
        assert!(differences(b"1000 1 a\nA", b"1001 1 a\nA", &[]).is_err());
        assert!(differences(b"1000 4 a\nA", b"1000 4 a\nA", &[]).is_err());
        assert!(differences(b"1000", b"1000", &[]).is_err());
    }

    #[test]
    fn slide_is_taken_from_the_anchor() {
        let kallsyms = "ffffffff9a000000 T _text\nffffffff9a000100 t other\n";
        assert_eq!(slide("_text=ffffffff81000000", kallsyms).unwrap(), 0x1900_0000);
        assert!(slide("missing=1", kallsyms).is_err());
        assert!(slide("_text=1", "0000000000000000 T _text\n").is_err());
    }
}
