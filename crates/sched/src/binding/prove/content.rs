//! What is compared by content, as it has no name in vmlinux, or another one.

use super::Prover;
use crate::binding::place::special::{Policy, policy};
use crate::binding::place::tables::entry_size;
use object::elf;
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch::relocation::Filled;
use schedswap_kernel::objects::{Place, Section, SectionId, Symbol};

impl Prover<'_> {
    /// Whether an object that is never written has the same content as vmlinux has at `at`.
    pub fn is_constant(&self, symbol: &Symbol, at: Addr) -> bool {
        let Place::Section(section) = symbol.place else { return false };
        let holder = self.object.section(section);
        let is_readonly = holder.flags & elf::SHF_WRITE.0 == 0 && holder.kind == elf::SHT_PROGBITS.0;
        symbol.kind == elf::STT_OBJECT.0
            && is_readonly
            && self.compare_once(section, symbol.value, symbol.size, at).is_ok()
    }

    /// As `compare_bytes`, but not anew for each that refers to it, nor without end where data refers to itself.
    pub fn compare_once(&self, section: SectionId, start: u64, length: u64, at: Addr) -> Result<(), String> {
        let key = (section, start, at);
        if !self.met.borrow_mut().insert(key) {
            return Ok(());
        }
        let outcome = self.compare_bytes(section, start, length, at);
        if outcome.is_err() {
            self.met.borrow_mut().remove(&key);
        }
        outcome
    }

    /// What has no symbol.
    pub fn compare_unnamed(&self, section: SectionId, offset: i64, at: Addr) -> Result<(), String> {
        let source = self.object.section(section);
        if let Some((Policy::Table(entry), _)) = policy(self.arch, &source.name, source.flags) {
            let size = entry_size("the module", source, entry, &self.image.entry_sizes);
            return self.same_entry(source, size.map_err(|e| e.to_string())?, offset, at);
        }
        let start = u64::try_from(offset).unwrap_or_default();
        match self.anonymous.range(..=(section, start)).next_back() {
            Some((&(s, first), &length))
                if s == section && start < first + length && source.flags & elf::SHF_WRITE.0 != 0 =>
            {
                self.compare_once(section, first, length, at.offset(first as i64 - offset))
            }
            _ => self.compare_content(section, offset, at),
        }
    }

    /// Whether vmlinux has an entry of the table at `at`, for the same code; what they say is compared with the table.
    fn same_entry(&self, table: &Section, size: u64, offset: i64, at: Addr) -> Result<(), String> {
        let theirs = self.table_in_vmlinux(&table.name).ok_or("vmlinux has no such table")?;
        let start = u64::try_from(offset).map_err(|_| "refers to what is before a table")?;
        let first = table.relocations.iter().find(|r| r.offset == start);
        let first = first.and_then(|r| self.arch.field(r.kind)).ok_or("refers into an entry of a table")?;
        let ours = self.code_described(table, start)?;
        let is_entry = theirs.contains(&at) && (at - theirs.start).is_multiple_of(size);
        match self.image.bytes(at, first.width()).map(|bytes| first.filled(bytes, at)) {
            Some(Filled::Target(code)) if is_entry && ours == Some(code) => Ok(()),
            _ => Err(format!("refers to an entry of {}, and vmlinux to something else at {at}", table.name)),
        }
    }

    /// Whether a reference is to an alternative of no bytes: it holds where the next one begins, which in vmlinux is
    /// that of whatever unit was linked next.
    pub fn is_nothing(&self, section: SectionId, offset: u64) -> bool {
        let table = self.object.section(section);
        let size = self.image.entry_sizes.get("alt_instr").filter(|size| **size > 0);
        let (".altinstructions", Some(size), Some([_, len_at])) =
            (table.name.as_str(), size, self.image.alternative_lengths)
        else {
            return false;
        };
        let entry = offset - offset % size;
        table.data.get((entry + len_at) as usize) == Some(&0)
    }

    /// Strings, and code that stands beside functions.
    fn compare_content(&self, section: SectionId, offset: i64, at: Addr) -> Result<(), String> {
        let source = self.object.section(section);
        let ours = source.data.get(offset as usize..).unwrap_or_default();
        let is_code = source.flags & elf::SHF_EXECINSTR.0 != 0;
        let instruction = self.arch.instruction_bytes().unwrap_or(1) as usize;
        let length = if is_code {
            instruction
        } else {
            ours.iter().position(|b| *b == 0).map_or(ours.len(), |n| n + 1)
        };
        let in_section = self.image.sections.iter().find(|s| s.name == source.name);
        if is_code && in_section.is_some_and(|s| at < s.addr || at.0 > s.addr.0 + s.size) {
            return Err(format!("refers to {} here, but to {at} in vmlinux", source.name));
        }
        if is_code && offset as u64 == source.size {
            return Ok(());
        }
        if !is_code && self.is_name_of_same_file(&ours[..length], at) {
            return Ok(());
        }
        match self.image.bytes(at, length as u64) {
            Some(theirs) if theirs == &ours[..length.min(ours.len())] => Ok(()),
            _ => Err(format!(
                "refers to {:?}, and vmlinux to something else at {at}",
                lossy(&ours[..length.min(ours.len())])
            )),
        }
    }

    /// Whether a string names a source file, and vmlinux has that name with where it was built before it.
    fn is_name_of_same_file(&self, ours: &[u8], at: Addr) -> bool {
        let names_source = [&b".c\0"[..], b".h\0"].iter().any(|end| ours.ends_with(end));
        let theirs = self.image.string(at);
        let root = theirs.as_ref().and_then(|theirs| theirs.strip_suffix(ours.strip_suffix(b"\0")?));
        names_source
            && root.is_some_and(|root| root == b"./" || root.starts_with(b"/") && root.ends_with(b"/"))
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
