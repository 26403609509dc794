//! The assembled stub, as an object file.

use super::super::error::Error;
use super::super::orc::{ENTRY_BYTES, Numbering, Orc, Raw};
use super::super::paths::{Chunk, decode};
use object::{Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget};
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch::Arch;
use schedswap_kernel::arch::relocation::Fields;
use schedswap_kernel::arch::step::Step;
use std::collections::BTreeMap;

/// What an instruction of the stub refers to outside of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reference {
    /// Symbol.
    pub symbol: String,
    /// Bytes from it to what is meant.
    pub offset: i64,
}

/// The stub's text with its relocations and unwind table.
pub struct Stub<'a> {
    arch: &'static dyn Arch,
    text: &'a [u8],
    relocations: BTreeMap<u64, Reference>,
    /// Where ORC entries take effect, as offsets; empty when the object has none.
    unwind: BTreeMap<u64, Orc>,
    /// Offset of `ss_schedule_stub`.
    pub entry: u64,
    /// Offset of `ss_switch_to`.
    pub switch_to: u64,
}

fn broken(why: impl std::fmt::Display) -> Error {
    Error::StubObject { why: why.to_string() }
}

impl<'a> Stub<'a> {
    /// Reads an ELF object assembled from `stub.S`.
    ///
    /// # Errors
    /// When it is not such an object.
    pub fn read(object: &'a [u8], arch: &'static dyn Arch) -> Result<Stub<'a>, Error> {
        let file = object::File::parse(object).map_err(broken)?;
        let text = file.section_by_name(".text").ok_or_else(|| broken("no section .text"))?;
        let code = text.data().map_err(broken)?;
        let offset_of = |name: &str| {
            file.symbols()
                .find(|symbol| symbol.name() == Ok(name) && symbol.section_index() == Some(text.index()))
                .map(|symbol| symbol.address())
                .ok_or_else(|| broken(format!("no symbol {name} in .text")))
        };
        let mut fields = Fields::default();
        arch.fields(code, 0, &mut fields);
        let mut relocations = BTreeMap::new();
        for (offset, relocation) in text.relocations() {
            let RelocationTarget::Symbol(index) = relocation.target() else { continue };
            let RelocationFlags::Elf { r_type, .. } = relocation.flags() else { continue };
            let field = arch
                .field(r_type.0)
                .ok_or_else(|| broken(format!("relocation type {} at .text+{offset:#x}", r_type.0)))?;
            let symbol = file.symbol_by_index(index).map_err(broken)?;
            let symbol = symbol.name().map_err(broken)?.to_owned();
            let to_end = fields.to_end(&field, offset);
            relocations.insert(offset, Reference { symbol, offset: relocation.addend() + to_end });
        }
        let mut unwind: BTreeMap<u64, Raw> = BTreeMap::new();
        if let (Some(ips), Some(entries)) =
            (file.section_by_name(".orc_unwind_ip"), file.section_by_name(".orc_unwind"))
        {
            let entries = entries.data().map_err(broken)?.as_chunks::<ENTRY_BYTES>().0;
            for (offset, relocation) in ips.relocations() {
                let RelocationTarget::Symbol(index) = relocation.target() else { continue };
                let symbol = file.symbol_by_index(index).map_err(broken)?;
                let entry = usize::try_from(offset / 4).ok().and_then(|index| entries.get(index));
                let entry = entry.ok_or_else(|| broken("more ORC addresses than entries"))?;
                if symbol.section_index() == Some(text.index()) {
                    let at = symbol.address().wrapping_add_signed(relocation.addend());
                    unwind.insert(at, *entry);
                }
            }
        }
        let (entry, switch_to) = (offset_of("ss_schedule_stub")?, offset_of("ss_switch_to")?);
        let at_entry = unwind.range(..=entry).next_back();
        let numbering = at_entry.map_or(Ok(Numbering::First), |(_, raw)| {
            Numbering::of_entry_to_a_function(*raw)
                .ok_or_else(|| broken("its unwind table does not say that the CFA is rsp+8 at its entry"))
        })?;
        let unwind = unwind.into_iter().map(|(at, raw)| (at, Orc::parse(raw, numbering))).collect();
        Ok(Stub { arch, text: code, relocations, unwind, entry, switch_to })
    }

    /// The instruction at an offset, and what it refers to.
    pub fn instruction(&self, offset: u64) -> Result<(Step, Option<&Reference>), Error> {
        let step = decode(self.arch, Chunk { addr: Addr(0), bytes: self.text }, Addr(offset))
            .map_err(|_| broken(format!("no instruction at .text+{offset:#x}")))?;
        let reference = self.relocations.range(offset..step.end().0).next();
        Ok((step, reference.map(|(_, reference)| reference)))
    }

    /// What the unwinder goes by at an offset; `None` for an object without ORC.
    pub fn unwind_at(&self, offset: u64) -> Option<Orc> {
        self.unwind.range(..=offset).next_back().map(|(_, orc)| *orc)
    }
}
