//! Tables that describe code, entry by entry.

use super::{Difference, Prover, relocations};
use crate::binding::Error;
use crate::binding::place::special::{Policy, policy};
use crate::binding::place::tables::entry_size;
use object::elf;
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch::relocation::Filled;
use schedswap_kernel::objects::{Place, Section, SectionId};
use std::collections::HashMap;
use std::ops::Range;

impl Prover<'_> {
    /// Each entry of a table has its like in vmlinux's table, describing the same code.
    ///
    /// # Errors
    /// When a table is not a whole number of entries.
    pub fn compare_tables(&mut self) -> Result<(), Error> {
        let object = self.object;
        for (i, section) in object.sections.iter().enumerate() {
            let id = SectionId(i as u32);
            match policy(self.arch, &section.name, section.flags) {
                Some((Policy::Table(entry), _)) => {
                    let size = entry_size("the module", section, entry, &self.image.entry_sizes)?;
                    self.compare_table(id, section, size);
                }
                Some((Policy::OrcIp, _)) => self.compare_orc(id),
                _ => {}
            }
        }
        Ok(())
    }

    fn compare_table(&mut self, id: SectionId, section: &Section, size: u64) {
        let Some(theirs) = self.table_in_vmlinux(&section.name) else {
            let what = "vmlinux has no such table".into();
            self.proof.different.push(Difference { symbol: section.name.clone(), what });
            return;
        };
        let first = section.relocations.first().and_then(|r| self.arch.field(r.kind));
        let Some(first) = first else { return };
        let mut by_code: HashMap<Addr, Vec<Addr>> = HashMap::new();
        for at in (theirs.start.0..theirs.end.0).step_by(size as usize).map(Addr) {
            let bytes = self.image.bytes(at, first.width());
            if let Some(Filled::Target(code)) = bytes.map(|bytes| first.filled(bytes, at)) {
                by_code.entry(code).or_default().push(at);
            }
        }
        for start in (0..section.size).step_by(size as usize) {
            self.proof.entries += 1;
            let outcome = match self.code_described(section, start) {
                Ok(None) => continue,
                Ok(Some(code)) => by_code
                    .get(&code)
                    .into_iter()
                    .flatten()
                    .map(|at| self.compare_bytes(id, start, size, *at))
                    .min_by_key(Result::is_err)
                    .unwrap_or_else(|| Err(format!("vmlinux has no entry for {code}")))
                    .and_then(|()| self.compare_padding(section, start, code)),
                Err(what) => Err(what),
            };
            if let Err(what) = outcome {
                let symbol = format!("{}+{start:#x}", section.name);
                self.proof.different.push(Difference { symbol, what });
            }
        }
    }

    /// Where the entry at `start` describes what is before a function: the same is there in vmlinux, at `code`.
    fn compare_padding(&self, table: &Section, start: u64, code: Addr) -> Result<(), String> {
        let Some(relocation) = relocations(table, start, start + 1).first().filter(|r| r.addend < 0) else {
            return Ok(());
        };
        let symbol = self.object.symbol(relocation.symbol);
        let (Place::Section(section), Some(first)) =
            (symbol.place, symbol.value.checked_add_signed(relocation.addend))
        else {
            return Err(format!("describes what is before {} and its section", symbol.name));
        };
        self.compare_bytes(section, first, relocation.addend.unsigned_abs(), code)
    }

    fn compare_orc(&mut self, ip: SectionId) {
        let section = self.object.section(ip);
        let Some(orc) = self.object.sections.iter().find(|s| s.name == ".orc_unwind") else { return };
        let (Some(ips), Some(orcs)) =
            (self.table_in_vmlinux(".orc_unwind_ip"), self.table_in_vmlinux(".orc_unwind"))
        else {
            return;
        };
        let count = (section.size / 4).max(1);
        let size = orc.size / count;
        let Some(their_ips) = self.image.bytes(ips.start, ips.end - ips.start) else { return };
        let starts: Vec<Addr> = their_ips
            .chunks_exact(4)
            .enumerate()
            .map(|(n, bytes)| held(bytes, ips.start + n as u64 * 4))
            .collect();
        for n in 0..section.size / 4 {
            let ours = &orc.data[(n * size) as usize..((n + 1) * size) as usize];
            // Terminators hold where a function ends here, but another may begin there.
            if ours.iter().all(|b| *b == 0) {
                continue;
            }
            let Some(code) = self.code_unwound(section, n) else { continue };
            self.proof.entries += 1;
            let after = starts.partition_point(|a| *a <= code) as u64;
            let theirs = after.checked_sub(1).and_then(|k| self.image.bytes(orcs.start + k * size, size));
            if theirs != Some(ours) {
                let symbol = format!("{}+{:#x}", section.name, n * 4);
                let what = format!("vmlinux unwinds in another way at {code}");
                self.proof.different.push(Difference { symbol, what });
            }
        }
    }

    /// Where vmlinux's first instruction is for which the `n`-th entry of `.orc_unwind_ip` holds. An entry may begin
    /// in padding, which is elsewhere in vmlinux; of one that ends there as well, nothing is asked.
    fn code_unwound(&self, section: &Section, n: u64) -> Option<Addr> {
        let entry = |n: u64| relocations(section, n * 4, n * 4 + 1).first();
        let ours = entry(n)?;
        let Some(map) = &self.counterparts[ours.symbol.0 as usize].relaid else {
            return self.code_described(section, n * 4).ok()?;
        };
        let (first, theirs) = map.range(ours.addend as u64..).next()?;
        let next = entry(n + 1).filter(|next| next.symbol == ours.symbol);
        if next.is_some_and(|next| next.addend as u64 <= *first) {
            return None;
        }
        Some(*self.counterparts[ours.symbol.0 as usize].addrs.first()? + *theirs)
    }

    /// Where vmlinux's code is that the entry at `start` describes; nothing for code without a name.
    pub fn code_described(&self, section: &Section, start: u64) -> Result<Option<Addr>, String> {
        let relocation =
            relocations(section, start, start + 1).first().ok_or("an entry that describes nothing")?;
        let symbol = self.object.symbol(relocation.symbol);
        if symbol.kind == elf::STT_SECTION.0 {
            return Ok(None);
        }
        let counterpart = &self.counterparts[relocation.symbol.0 as usize];
        let addr = counterpart
            .addrs
            .first()
            .ok_or_else(|| format!("describes {}, which vmlinux does not have", symbol.name))?;
        let offset = match &counterpart.relaid {
            // Before the entry.
            _ if relocation.addend < 0 => relocation.addend,
            Some(map) => match map.get(&(relocation.addend as u64)) {
                Some(offset) => *offset as i64,
                // Inside an instruction: count from its start.
                None => {
                    let (from, to) = map
                        .range(..relocation.addend as u64)
                        .next_back()
                        .ok_or_else(|| format!("describes no instruction of {}", symbol.name))?;
                    *to as i64 + relocation.addend - *from as i64
                }
            },
            None => relocation.addend,
        };
        Ok(Some(addr.offset(offset)))
    }

    /// Where vmlinux has a table: a section of the name, or between the linker script's symbols.
    pub fn table_in_vmlinux(&self, name: &str) -> Option<Range<Addr>> {
        let name = if name == self.arch.ftrace_table() { "__mcount_loc" } else { name };
        if let Some(section) = self.image.sections.iter().find(|s| s.name == name && s.addr.0 != 0) {
            return Some(section.addr..section.addr + section.size);
        }
        let short = name.trim_start_matches('.');
        [short, short.trim_start_matches('_')]
            .iter()
            .find_map(|n| {
                let start = self.image.unique_symbol(&format!("__start_{n}"))?;
                let stop = self.image.unique_symbol(&format!("__stop_{n}"))?;
                Some(start.addr..stop.addr)
            })
            .or_else(|| self.blacklist(name))
    }

    fn blacklist(&self, name: &str) -> Option<Range<Addr>> {
        let start = self.image.unique_symbol(&format!("__start{name}"))?;
        let stop = self.image.unique_symbol(&format!("__stop{name}"))?;
        Some(start.addr..stop.addr)
    }
}

/// The address to which 32 bits of vmlinux hold the distance.
fn held(bytes: &[u8], place: Addr) -> Addr {
    place.offset(i64::from(i32::from_le_bytes(bytes.try_into().unwrap_or_default())))
}
