//! The code of `__schedule` and the tables about it, out of an image of vmlinux.

use super::contract::Contract;
use super::derive::derive_from;
use super::error::Error;
use super::orc::{self, Numbering, Orc};
use super::paths::{Alternative, Callee, Chunk, Code};
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch::{self, Arch};
use schedswap_kernel::vmlinux::{Function, Image, SiteKind};
use std::collections::BTreeSet;

const DIVERGES: &str = "__stack_chk_fail";
/// arch/arm64/kernel/alternative.c
const WRITES_NOPS: &str = "alt_cb_patch_nops";

/// Functions outside the scheduler that the code after the switch may call, by how their names begin: static
/// calls' trampolines and trace points, and what takes and releases the run queue's lock. All are C functions that take
/// nothing from the frame.
const KNOWN: &[&str] = &["__SCT__", "__traceiter_", "_raw_spin_lock", "_raw_spin_unlock"];

/// Derives the contract of a kernel's `__schedule`.
///
/// # Errors
/// When vmlinux lacks the code or a table, or its `__schedule` expects of the frame what the stub cannot provide.
pub fn derive(image: &Image) -> Result<Contract, Error> {
    with_code(image, |code| {
        let orc = Unwind::read(image, code.entry())?;
        let lookup = |at| orc.as_ref().and_then(|orc| orc.lookup(at));
        derive_from(code, orc.is_some().then_some(&lookup as _))
    })
}

/// Hands the code of the function with the springboard to `then`.
///
/// # Errors
/// When there is not exactly one such function, or vmlinux has no bytes of it.
pub fn with_code<T>(image: &Image, then: impl FnOnce(&Code<'_>) -> Result<T, Error>) -> Result<T, Error> {
    let arch = arch::of(image.machine);
    let missing = |name: &str| Error::MissingSymbol { name: name.to_owned() };
    let name = arch.stack_switch();
    let switch = image.unique_symbol(name).ok_or_else(|| missing(name))?.addr;
    let return_thunk =
        arch.return_thunk().and_then(|name| image.unique_symbol(name)).map(|symbol| symbol.addr);
    let function = switching_function(image, name, switch)?;

    let callee = |addr: Addr| {
        if addr == switch {
            Callee::Switch
        } else if Some(addr) == return_thunk {
            Callee::Return
        } else {
            outsider_or_known(image, arch, addr)
        }
    };
    let mut chunks = Vec::new();
    for range in &function.ranges {
        let bytes = image
            .bytes(range.start, range.end - range.start)
            .filter(|bytes| !bytes.is_empty())
            .ok_or(Error::NoCode { at: range.start })?;
        chunks.push(Chunk { addr: range.start, bytes });
    }
    if chunks.first().is_none_or(|chunk| chunk.addr != function.addr) {
        return Err(Error::NoCode { at: function.addr });
    }
    let mut code = Code {
        arch,
        function: &function.name,
        chunks,
        labels: Default::default(),
        alternatives: Vec::new(),
        warns: BTreeSet::new(),
        patched_calls: image
            .sites
            .iter()
            .filter(|site| site.kind == SiteKind::Paravirt)
            .map(|site| site.addr)
            .collect(),
        callee: &callee,
    };
    read_labels(image, &mut code)?;
    read_alternatives(image, &mut code)?;
    read_warns(image, &mut code)?;
    then(&code)
}

/// `__schedule`, by whatever symbol: the one function that calls the switch.
fn switching_function<'a>(image: &'a Image, name: &str, switch: Addr) -> Result<&'a Function, Error> {
    let calls: Vec<_> = image.uses.branches.iter().filter(|branch| branch.callee == switch).collect();
    let is_schedule = |function: &&Function| {
        let symbol = function.symbol;
        function.source_name == "__schedule" && calls.iter().any(|call| call.caller == symbol)
    };
    let function = image.units.iter().flat_map(|unit| &unit.functions).find(is_schedule);
    let callers: BTreeSet<&str> = calls.iter().map(|call| image.symbol(call.caller).name.as_str()).collect();
    let found = if callers.is_empty() {
        "no function".to_owned()
    } else {
        callers.iter().copied().collect::<Vec<_>>().join(", ")
    };
    let function = function.ok_or(Error::NoSpringboard { callee: name.to_owned(), found: found.clone() })?;
    if calls.iter().any(|call| call.caller != function.symbol) {
        // Threads would sleep in frames that are not __schedule's.
        let at = calls.iter().map(|call| call.at).collect();
        return Err(Error::SeveralSpringboards { function: found, callee: name.to_owned(), at });
    }
    Ok(function)
}

fn outsider_or_known(image: &Image, arch: &dyn Arch, addr: Addr) -> Callee {
    let names = || image.functions_entered_at(addr).iter().map(|id| image.symbol(*id).name.as_str());
    let name = || names().next_back().map_or_else(|| addr.to_string(), str::to_owned);
    if let Some(register) = names().find_map(|name| arch.retpoline(name)) {
        Callee::Thunk(register)
    } else if names().any(|name| name == DIVERGES) {
        Callee::Diverges(DIVERGES.to_owned())
    } else if let Some(function) =
        image.units.iter().flat_map(|unit| &unit.functions).find(|function| function.addr == addr)
    {
        Callee::Known(function.name.clone())
    } else if names().any(|name| KNOWN.iter().any(|known| name.starts_with(known))) {
        Callee::Known(name())
    } else {
        Callee::Unknown(name())
    }
}

/// An entry of a table: where it is, and its bytes.
type TableEntry<'a> = (Addr, &'a [u8]);

/// A table between two symbols, as its entries and their size; empty where the kernel has none.
fn table<'a>(
    image: &'a Image,
    [start, stop]: [&str; 2],
    structure: &str,
) -> Result<(Vec<TableEntry<'a>>, usize), Error> {
    let (Some(start_symbol), Some(stop_symbol)) = (image.unique_symbol(start), image.unique_symbol(stop))
    else {
        return Ok((Vec::new(), 0));
    };
    let unreadable = |why: &str| Error::Table { table: start.to_owned(), why: why.to_owned() };
    let len =
        stop_symbol.addr.0.checked_sub(start_symbol.addr.0).ok_or(unreadable("it ends before it starts"))?;
    if len == 0 {
        return Ok((Vec::new(), 0));
    }
    let bytes = image.bytes(start_symbol.addr, len).ok_or(unreadable("the file has no bytes for it"))?;
    let size = image.entry_sizes.get(structure).and_then(|size| usize::try_from(*size).ok());
    let size = size
        .filter(|size| *size >= 8)
        .ok_or(unreadable(&format!("the size of struct {structure} is unknown")))?;
    let entries = bytes.chunks_exact(size).zip(0u64..);
    Ok((entries.map(|(entry, index)| (start_symbol.addr + index * size as u64, entry)).collect(), size))
}

/// The address that a `s32` at `offset` in an entry holds, relative to itself.
fn relative((addr, bytes): TableEntry<'_>, offset: usize) -> Addr {
    let distance =
        bytes.get(offset..).and_then(|bytes| bytes.first_chunk::<4>()).copied().unwrap_or_default();
    (addr + offset as u64).offset(i64::from(i32::from_le_bytes(distance)))
}

fn is_inside(code: &Code<'_>, addr: Addr) -> bool {
    code.chunks.iter().any(|chunk| (chunk.addr..chunk.end()).contains(&addr))
}

/// `struct jump_entry { s32 code; s32 target; long key; }`
fn read_labels(image: &Image, code: &mut Code<'_>) -> Result<(), Error> {
    let (entries, _) = table(image, ["__start___jump_table", "__stop___jump_table"], "jump_entry")?;
    for entry in entries {
        let site = relative(entry, 0);
        if is_inside(code, site) {
            code.labels.insert(site, relative(entry, 4));
        }
    }
    Ok(())
}

/// `struct alt_instr { s32 instr_offset; s32 repl_offset; …; u8 instrlen; u8 replacementlen; … }`: what is in between
/// has had several forms.
fn read_alternatives<'a>(image: &'a Image, code: &mut Code<'a>) -> Result<(), Error> {
    let name = "__alt_instructions";
    let (entries, size) = table(image, [name, "__alt_instructions_end"], "alt_instr")?;
    if entries.is_empty() {
        return Ok(());
    }
    let lengths = image.alternative_lengths.filter(|lengths| lengths.iter().all(|at| *at < size as u64));
    let lengths = lengths.ok_or_else(|| {
        let why = "the debug information does not say where struct alt_instr has its lengths".to_owned();
        Error::Table { table: name.to_owned(), why }
    })?;
    for entry in entries {
        let at = relative(entry, 0);
        if !is_inside(code, at) {
            continue;
        }
        let [len, replacement_len] = lengths.map(|at| u64::from(entry.1[at as usize]));
        let addr = relative(entry, 4);
        let bytes = match replacement_len {
            0 if is_written_by_code(image, addr) => return Err(unknown_writer(image, at, addr)),
            0 => &[],
            _ => image.bytes(addr, replacement_len).ok_or(Error::NoCode { at: addr })?,
        };
        code.alternatives.push(Alternative { at, len, replacement: Chunk { addr, bytes } });
    }
    Ok(())
}

/// What arm64 has boot code write for it: where the replacement would be, is a function of the kernel.
fn is_written_by_code(image: &Image, replacement: Addr) -> bool {
    let functions = || {
        let entered = image.functions_entered_at(replacement).iter().map(|id| image.symbol(*id));
        entered.filter(|symbol| symbol.is_function())
    };
    functions().next().is_some() && !functions().any(|symbol| symbol.name == WRITES_NOPS)
}

fn unknown_writer(image: &Image, at: Addr, writer: Addr) -> Error {
    let name = image.functions_entered_at(writer).last().map(|id| image.symbol(*id).name.clone());
    let why = format!(
        "{} writes what {at} becomes at boot, and only {WRITES_NOPS} is known",
        name.unwrap_or_default()
    );
    Error::Table { table: "__alt_instructions".to_owned(), why }
}

/// `struct bug_entry { s32 bug_addr_disp; …; u16 flags; }`: the flags are last but for the padding of the short
/// form (8 bytes, without file and line).
fn read_warns(image: &Image, code: &mut Code<'_>) -> Result<(), Error> {
    const BUGFLAG_WARNING: u8 = 1;
    let (entries, size) = table(image, ["__start___bug_table", "__stop___bug_table"], "bug_entry")?;
    let flags_at = if size == 8 { 4 } else { size.saturating_sub(2) };
    for entry in entries {
        let at = relative(entry, 0);
        if is_inside(code, at) && entry.1[flags_at] & BUGFLAG_WARNING != 0 {
            code.warns.insert(at);
        }
    }
    Ok(())
}

/// The kernel's ORC tables.
struct Unwind<'a> {
    ip_table: Addr,
    ips: &'a [u8],
    entries: &'a [u8],
    numbering: Numbering,
}

impl<'a> Unwind<'a> {
    fn read(image: &'a Image, entry: Addr) -> Result<Option<Unwind<'a>>, Error> {
        let (Some(ips), Some(entries)) =
            (image.section_named(".orc_unwind_ip"), image.section_named(".orc_unwind"))
        else {
            return Ok(None);
        };
        if let Some(size) = image.entry_sizes.get("orc_entry")
            && *size != orc::ENTRY_BYTES as u64
        {
            let why = format!("struct orc_entry takes {size} bytes, where {} are known", orc::ENTRY_BYTES);
            return Err(Error::Table { table: ".orc_unwind".to_owned(), why });
        }
        let (ip_bytes, entry_bytes) = (image.section_bytes(ips), image.section_bytes(entries));
        let at_entry = orc::lookup(ips.addr, ip_bytes, entry_bytes, entry);
        let numbering = at_entry.map_or(Ok(Numbering::First), |raw| {
            Numbering::of_entry_to_a_function(raw).ok_or_else(|| Error::Table {
                table: ".orc_unwind".to_owned(),
                why: format!(
                    "at {entry}, where a function begins, {raw:02x?} does not say that the CFA is rsp+8"
                ),
            })
        })?;
        Ok(Some(Unwind { ip_table: ips.addr, ips: ip_bytes, entries: entry_bytes, numbering }))
    }

    fn lookup(&self, at: Addr) -> Option<Orc> {
        orc::lookup(self.ip_table, self.ips, self.entries, at).map(|raw| Orc::parse(raw, self.numbering))
    }
}
