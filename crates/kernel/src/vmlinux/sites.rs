//! Places in the text that the kernel itself rewrites, from the tables that it keeps of them.

use super::dwarf::Layouts;
use super::error::Error;
use crate::address::Addr;
use crate::arch::{self, Arch, Site, SiteKind};
use crate::elf::{Elf, Machine};

/// How a table refers to a place.
enum Reference {
    /// By its address, of 64 bits.
    Absolute,
    /// By its distance from the field itself, of 32 bits.
    Relative,
}

/// What a table's entries consist of.
enum EntryForm {
    /// Only the reference to the place.
    Bare,
    /// A structure: its name, the member with the reference, and the member with the length, of one byte.
    Structure(&'static str, &'static str, Option<&'static str>),
    /// `struct alt_instr`, whose members each architecture names in its own way.
    Alternative,
}

/// One table: its kind, the symbols at its start and end, how it refers to places, what its entries are.
struct Table(SiteKind, &'static str, &'static str, Reference, EntryForm);

#[rustfmt::skip]
const TABLES: &[Table] = &[
    Table(SiteKind::Fentry, "__start_mcount_loc", "__stop_mcount_loc", Reference::Absolute, EntryForm::Bare),
    Table(SiteKind::JumpLabel, "__start___jump_table", "__stop___jump_table", Reference::Relative,
        EntryForm::Structure("jump_entry", "code", None)),
    Table(SiteKind::StaticCall, "__start_static_call_sites", "__stop_static_call_sites", Reference::Relative,
        EntryForm::Structure("static_call_site", "addr", None)),
    Table(SiteKind::Alternative, "__alt_instructions", "__alt_instructions_end", Reference::Relative,
        EntryForm::Alternative),
    Table(SiteKind::Paravirt, "__parainstructions", "__parainstructions_end", Reference::Absolute,
        EntryForm::Structure("paravirt_patch_site", "instr", Some("len"))),
    Table(SiteKind::SmpLock, "__smp_locks", "__smp_locks_end", Reference::Relative, EntryForm::Bare),
    Table(SiteKind::Return, "__return_sites", "__return_sites_end", Reference::Relative, EntryForm::Bare),
    Table(SiteKind::Retpoline, "__retpoline_sites", "__retpoline_sites_end", Reference::Relative, EntryForm::Bare),
    Table(SiteKind::Call, "__call_sites", "__call_sites_end", Reference::Relative, EntryForm::Bare),
    Table(SiteKind::SealedEndbr, "__ibt_endbr_seal", "__ibt_endbr_seal_end", Reference::Relative, EntryForm::Bare),
];

/// The longest instruction, of x86.
const INSTRUCTION_BYTES_MAX: u64 = 15;

/// All places, sorted by address.
pub(super) fn read(elf: &Elf, layouts: &Layouts) -> Result<Vec<Site>, Error> {
    let mut sites = Vec::new();
    for table in TABLES {
        read_table(elf, layouts, table, &mut sites)?;
    }
    sites.sort_unstable_by_key(|s| (s.addr, s.kind, s.len));
    sites.dedup_by_key(|s| (s.addr, s.kind, s.len));
    Ok(sites)
}

fn read_table(elf: &Elf, layouts: &Layouts, table: &Table, sites: &mut Vec<Site>) -> Result<(), Error> {
    let Table(kind, start_name, end_name, reference, form) = table;
    let malformed = |detail: String| Error::Malformed {
        path: elf.path.clone(),
        what: format!("the table between {start_name} and {end_name}"),
        detail,
    };
    let (Some(start), Some(end)) = (elf.unique_symbol(start_name), elf.unique_symbol(end_name)) else {
        return Ok(());
    };
    let Some(len) = end.addr.0.checked_sub(start.addr.0) else {
        return Err(malformed("it ends before it starts".to_owned()));
    };
    if len == 0 {
        return Ok(());
    }
    let arch = arch::of(elf.machine);
    let columns = Columns::of(arch, reference, form, layouts).map_err(malformed)?;
    let bytes =
        elf.bytes(start.addr, len).ok_or_else(|| malformed("no section of the file holds it".to_owned()))?;
    for (record, number) in bytes.chunks_exact(columns.stride).zip(0u64..) {
        let field = start.addr + (number * columns.stride as u64 + columns.place as u64);
        let Some(addr) = read_reference(reference, field, record.get(columns.place..).unwrap_or_default())
        else {
            continue;
        };
        let listed_len = columns.len.map(|at| record.get(at).copied().unwrap_or(0));
        let addr = if *kind == SiteKind::Fentry { arch.fentry(elf, addr) } else { addr };
        // Tables are padded with zeros, and `.smp_locks` to a whole page; such entries do not lead to code.
        let Some(code) = code_at(elf, addr).filter(|_| listed_len != Some(0)) else { continue };
        let len = listed_len.unwrap_or_else(|| arch.site_len(*kind, addr, code));
        sites.push(Site { addr, len, kind: *kind });
    }
    Ok(())
}

/// Where `struct alt_instr` has its two lengths.
pub(super) fn alternative_lengths(machine: Machine, layouts: &Layouts) -> Option<[u64; 2]> {
    let [_, len, replacement_len] = arch::of(machine).alternative_members();
    let members = &layouts.get("alt_instr")?.members;
    Some([*members.get(len)?, *members.get(replacement_len)?])
}

/// The offsets in an entry, in bytes.
struct Columns {
    stride: usize,
    place: usize,
    len: Option<usize>,
}

impl Columns {
    fn of(
        arch: &dyn Arch,
        reference: &Reference,
        form: &EntryForm,
        layouts: &Layouts,
    ) -> Result<Columns, String> {
        let (name, place_member, len_member) = match form {
            EntryForm::Bare => {
                let stride = match reference {
                    Reference::Absolute => 8,
                    Reference::Relative => 4,
                };
                return Ok(Columns { stride, place: 0, len: None });
            }
            EntryForm::Structure(name, place, len) => (name, *place, *len),
            EntryForm::Alternative => {
                let [place, len, _] = arch.alternative_members();
                (&"alt_instr", place, Some(len))
            }
        };
        let layout =
            layouts.get(*name).ok_or_else(|| format!("the debug information lacks struct {name}"))?;
        let member = |member: &str| {
            let offset = layout.members.get(member).filter(|offset| **offset < layout.size);
            let offset = offset.and_then(|offset| usize::try_from(*offset).ok());
            offset.ok_or_else(|| format!("struct {name} has no member {member}"))
        };
        let stride = usize::try_from(layout.size).ok().filter(|size| *size > 0);
        Ok(Columns {
            stride: stride.ok_or_else(|| format!("struct {name} has no size"))?,
            place: member(place_member)?,
            len: len_member.map(member).transpose()?,
        })
    }
}

fn read_reference(reference: &Reference, field: Addr, bytes: &[u8]) -> Option<Addr> {
    match reference {
        Reference::Absolute => Some(Addr(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?))),
        Reference::Relative => {
            let distance = i32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
            Some(field.offset(i64::from(distance)))
        }
    }
}

/// The first bytes of code at `addr`; `None` where there is none.
fn code_at(elf: &Elf, addr: Addr) -> Option<&[u8]> {
    let (_, section) = elf.section_at(addr).filter(|(_, s)| s.is_text())?;
    let left = section.size - (addr - section.addr);
    elf.bytes(addr, left.min(INSTRUCTION_BYTES_MAX))
}
