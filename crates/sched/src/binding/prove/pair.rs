//! Addresses that two instructions make up.

use super::{Prover, relocations};
use object::elf;
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch::relocation::Filled;
use schedswap_kernel::objects::{Place, Relocation, SectionId, Symbol};

impl Prover<'_> {
    /// The whole address of which the field of `relocation`, at `place` in vmlinux, holds its page or the rest: the
    /// other part is in another instruction of the same function, with the same symbol and addend.
    pub fn pair(
        &self,
        section: SectionId,
        relocation: &Relocation,
        part: Filled,
        place: Addr,
    ) -> Result<Addr, String> {
        let source = self.object.section(section);
        let is_around = |s: &&Symbol| {
            s.place == Place::Section(section)
                && s.kind == elf::STT_FUNC.0
                && (s.value..s.value + s.size).contains(&relocation.offset)
        };
        let function = self.object.symbols.iter().find(is_around).ok_or("half an address in no function")?;
        let others = relocations(source, function.value, function.value + function.size)
            .iter()
            .filter(|other| other.symbol == relocation.symbol && other.addend == relocation.addend);
        let mut found: Option<Addr> = None;
        for other in others {
            let Some(rule) = self.arch.field(other.kind) else { continue };
            let at = place.offset(other.offset as i64 - relocation.offset as i64);
            let Some(bytes) = self.image.bytes(at, rule.width()) else { continue };
            let whole = match (part, rule.filled(bytes, at)) {
                (Filled::Page(page), Filled::Low12(rest)) | (Filled::Low12(rest), Filled::Page(page)) => {
                    page + rest
                }
                _ => continue,
            };
            if found.is_some_and(|found| found != whole) {
                return Err(format!("half an address, of which the others make {whole} and others"));
            }
            found = Some(whole);
        }
        found.ok_or_else(|| "half an address, of which no instruction has the other".into())
    }
}
