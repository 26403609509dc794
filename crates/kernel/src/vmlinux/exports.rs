//! Exported symbols. EXPORT_SYMBOL leaves a symbol `__ksymtab_<name>` on the entry that it makes.

use crate::elf::{Elf, Symbol};
use std::collections::HashMap;

/// Name → whether only GPL modules may link to it.
pub(super) fn read(elf: &Elf) -> HashMap<String, bool> {
    let flags = FlagTable::of(elf);
    elf.symbols
        .iter()
        .filter_map(|symbol| {
            let name = symbol.name.strip_prefix("__ksymtab_")?;
            let section = &elf.sections[symbol.section?].name;
            if !section.starts_with("__ksymtab") {
                return None;
            }
            let gpl = section.contains("_gpl") || flags.as_ref().is_some_and(|f| f.gpl_only(elf, symbol));
            Some((name.to_owned(), gpl))
        })
        .collect()
}

/// Kernels without `__ksymtab_gpl` keep one byte of flags for each export in `__kflagstab`, in `__ksymtab`'s order.
struct FlagTable {
    flags: u64,
    ksymtab: u64,
    /// Bytes of one `__ksymtab` entry.
    stride: u64,
}

/// `enum ksym_flags` of include/linux/module_symbol.h.
const KSYM_FLAG_GPL_ONLY: u8 = 1;

impl FlagTable {
    fn of(elf: &Elf) -> Option<FlagTable> {
        let at = |name| elf.unique_symbol(name).map(|s| s.addr.0);
        let (flags, flags_end) = (at("__start___kflagstab")?, at("__stop___kflagstab")?);
        let (ksymtab, ksymtab_end) = (at("__start___ksymtab")?, at("__stop___ksymtab")?);
        let (bytes, count) = (ksymtab_end.checked_sub(ksymtab)?, flags_end.checked_sub(flags)?);
        // If the tables do not describe the same exports (there may be flags for `__ksymtab_gpl` too), sections tell.
        let is_whole = count > 0 && bytes > 0 && bytes % count == 0;
        is_whole.then(|| FlagTable { flags, ksymtab, stride: bytes / count })
    }

    fn gpl_only(&self, elf: &Elf, entry: &Symbol) -> bool {
        let index = entry.addr.0.checked_sub(self.ksymtab).map(|offset| offset / self.stride);
        let flag = index.and_then(|i| elf.bytes(crate::address::Addr(self.flags.checked_add(i)?), 1));
        flag.is_some_and(|byte| byte[0] & KSYM_FLAG_GPL_ONLY != 0)
    }
}
