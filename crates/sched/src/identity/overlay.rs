//! Comparing a compiled function with vmlinux's, relocated fields masked.

use super::gate::Why;
use super::{Error, Result};
use object::elf;
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch;
use schedswap_kernel::arch::relocation::{Field, Filled};
use schedswap_kernel::objects::{Object, Place, Relocation, Section, Symbol};
use schedswap_kernel::vmlinux::Image;
use std::ops::Range;

/// The relocations of a section whose fields begin in `range`.
pub(super) fn relocations_in(section: &Section, range: &Range<u64>) -> std::ops::Range<usize> {
    let start = section.relocations.partition_point(|r| r.offset < range.start);
    let end = section.relocations.partition_point(|r| r.offset < range.end);
    start..end
}

/// The field of a relocation, with an error that names it when its kind is not known.
pub(super) fn known_field(
    image: &Image,
    object: &Object,
    section: &Section,
    r: &Relocation,
) -> Result<Field> {
    arch::of(image.machine).field(r.kind).ok_or_else(|| Error::UnknownRelocation {
        object: object.name.clone(),
        section: section.name.clone(),
        offset: r.offset,
        kind: r.kind,
    })
}

/// Whether `section` holds strings that the linker merges, so that it has no one place in vmlinux.
pub(super) fn is_merged(section: &Section) -> bool {
    section.flags & elf::SHF_MERGE.0 != 0
}

/// vmlinux's bytes for a part of an object's section. Per-CPU data lies at address 0 up to 6.12, where no
/// address can tell its section.
pub(super) fn vmlinux_bytes<'a>(
    image: &'a Image,
    section: &Section,
    addr: Addr,
    len: u64,
) -> Option<&'a [u8]> {
    if section.name.starts_with(".data..percpu") {
        let percpu = image.sections.iter().find(|s| s.name == ".data..percpu")?;
        let offset = addr.0.checked_sub(percpu.addr.0)?;
        if offset.checked_add(len)? > percpu.size {
            return None;
        }
        let start = percpu.file.start.checked_add(offset as usize)?;
        return image.map.get(start..start + len as usize).filter(|_| !percpu.file.is_empty());
    }
    image.bytes(addr, len)
}

/// One stretch of an object's section laid over vmlinux.
pub(super) struct Overlay<'a> {
    pub image: &'a Image,
    pub object: &'a Object,
    pub section: &'a Section,
    /// Offsets in the section.
    pub range: Range<u64>,
    /// Where the range begins in vmlinux.
    pub addr: Addr,
}

impl<'a> Overlay<'a> {
    /// Where an offset of the section is in vmlinux.
    pub fn place(&self, offset: u64) -> Addr {
        self.addr + (offset - self.range.start)
    }

    /// vmlinux's bytes.
    pub fn theirs(&self) -> Option<&'a [u8]> {
        vmlinux_bytes(self.image, self.section, self.addr, self.range.end - self.range.start)
    }

    fn relocations(&self) -> &'a [Relocation] {
        &self.section.relocations[relocations_in(self.section, &self.range)]
    }

    /// Each relocation and what vmlinux's bytes say of its target.
    ///
    /// # Errors
    /// When the kind of a relocation is not known.
    pub fn filled(&self) -> Result<Vec<(&'a Relocation, Field, Filled)>> {
        let theirs = self.theirs().unwrap_or_default();
        let mut all = Vec::new();
        for r in self.relocations() {
            let field = known_field(self.image, self.object, self.section, r)?;
            let at = (r.offset - self.range.start) as usize;
            let filled = match theirs.get(at..at + field.len) {
                Some(bytes) => field.filled(bytes, self.place(r.offset)),
                None => Filled::Unknown,
            };
            all.push((r, field, filled));
        }
        Ok(all)
    }

    /// The first bytes that differ outside relocated fields, as an offset in the range.
    ///
    /// # Errors
    /// When the kind of a relocation is not known.
    pub fn first_difference(&self) -> Result<Option<usize>> {
        let ours = &self.section.data[self.range.start as usize..self.range.end as usize];
        let Some(theirs) = self.theirs() else { return Ok(Some(0)) };
        let mask = self.mask()?;
        let differ = |i: usize| (ours[i] ^ theirs[i]) & !mask[i] != 0;
        Ok((0..ours.len()).find(|i| differ(*i)))
    }

    /// Set bits are written by the linker.
    fn mask(&self) -> Result<Vec<u8>> {
        let mut mask = vec![0u8; (self.range.end - self.range.start) as usize];
        for r in self.relocations() {
            let field = known_field(self.image, self.object, self.section, r)?;
            let at = (r.offset - self.range.start) as usize;
            for (byte, bits) in mask.iter_mut().skip(at).take(field.len).zip(field.mask.to_le_bytes()) {
                *byte |= bits;
            }
        }
        Ok(mask)
    }

    /// Why the code is not the same, or `None` when it is: bytes first, then what it refers to.
    ///
    /// # Errors
    /// When the kind of a relocation is not known.
    pub fn why_different(&self) -> Result<Option<Why>> {
        if let Some(at) = self.first_difference()?
            && let Some(at) = self.first_instruction_that_differs(at)?
        {
            let window = |bytes: &[u8]| bytes[at..bytes.len().min(at + 8)].to_vec();
            let ours = &self.section.data[self.range.start as usize..self.range.end as usize];
            return Ok(Some(Why::Code {
                offset: at as u64,
                vmlinux: window(self.theirs().unwrap_or(&vec![0; ours.len()])),
                compiled: window(ours),
            }));
        }
        for (r, field, filled) in self.filled()? {
            let Filled::Target(target) = filled else { continue };
            let symbol = self.object.symbol(r.symbol);
            if let Some(why) =
                self.other_string(r, &field, target, symbol).or_else(|| self.other_target(r, target, symbol))
            {
                return Ok(Some(why));
            }
        }
        Ok(None)
    }

    /// A literal whose text is not vmlinux's.
    fn other_string(&self, r: &Relocation, field: &Field, target: Addr, symbol: &Symbol) -> Option<Why> {
        let Place::Section(id) = symbol.place else { return None };
        let strings = self.object.section(id);
        let is_strings = strings.flags & elf::SHF_STRINGS.0 != 0 && strings.entry_size == 1;
        // A PC-relative addend has the distance to the instruction's end in it.
        if !is_strings || !is_merged(strings) || !field.is_absolute() {
            return None;
        }
        let from = usize::try_from(symbol.value as i64 + r.addend).ok()?;
        let ours = strings.data.get(from..)?;
        let ours = &ours[..=ours.iter().position(|b| *b == 0)?];
        let theirs = self.image.bytes(target, ours.len() as u64).unwrap_or_default();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
        (ours != theirs).then(|| Why::Literal {
            offset: r.offset - self.range.start,
            vmlinux: text(theirs),
            compiled: text(ours),
        })
    }

    /// A symbol of whose name vmlinux has some, none of them where vmlinux's code goes.
    fn other_target(&self, r: &Relocation, target: Addr, symbol: &Symbol) -> Option<Why> {
        if symbol.name.is_empty() {
            return None;
        }
        let named = self.image.by_name.get(&symbol.name)?;
        let addr = target.offset(-r.addend);
        if named.iter().any(|id| self.image.symbol(*id).addr == addr) {
            return None;
        }
        let there = self.image.function_at(addr).map(|id| self.image.symbol(id).name.clone());
        Some(Why::Target {
            offset: r.offset - self.range.start,
            vmlinux: there.unwrap_or_else(|| addr.to_string()),
            compiled: symbol.name.clone(),
        })
    }

    /// The assembler resolves branches between functions of one section without leaving a relocation. When
    /// some function before has another size those distances change everywhere; so compare where they go.
    fn first_instruction_that_differs(&self, first_byte: usize) -> Result<Option<usize>> {
        let ours = &self.section.data[self.range.start as usize..self.range.end as usize];
        let Some(theirs) = self.theirs() else { return Ok(Some(first_byte)) };
        let mask = self.mask()?;
        let arch = arch::of(self.image.machine);
        let mine = arch.outlines(ours, self.range.start);
        let other = arch.outlines(theirs, self.addr.0);
        for (a, b) in mine.iter().zip(&other) {
            let at = (a.at - self.range.start) as usize;
            if a.len != b.len {
                return Ok(Some(at));
            }
            let differs = (at..at + a.len as usize).any(|i| (ours[i] ^ theirs[i]) & !mask[i] != 0);
            if !differs {
                continue;
            }
            let branch = a.target.zip(b.target).filter(|_| a.form == b.form);
            if !branch.is_some_and(|(a, b)| self.same_function_and_offset(a, Addr(b))) {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    fn same_function_and_offset(&self, ours: u64, theirs: Addr) -> bool {
        let in_this_section = |s: &&Symbol| {
            s.kind == elf::STT_FUNC.0
                && matches!(s.place, Place::Section(id) if std::ptr::eq(self.object.section(id), self.section))
                && (s.value..s.value + s.size.max(1)).contains(&ours)
        };
        let Some(function) = self.object.symbols.iter().find(in_this_section) else { return false };
        let Some(there) = self.image.function_at(theirs) else { return false };
        let there = self.image.symbol(there);
        there.name == function.name && theirs - there.addr == ours - function.value
    }
}
