//! Static branches: code that depends on a key without an instruction that refers to the key.

use super::dwarf::Layouts;
use crate::address::Addr;
use crate::arch::{DataUse, VariableRanges};
use crate::elf::Elf;

/// The low bits of a key's address in `jump_entry` are flags: which way the code branches, and whether it is init code.
const KEY_FLAGS: u64 = 3;

/// Uses of the scheduler's static keys by static branches, from `__jump_table`. A table that
/// cannot be read has been refused when the sites were read.
pub(super) fn branches_on_keys(elf: &Elf, variables: &VariableRanges, layouts: &Layouts) -> Vec<DataUse> {
    find(elf, variables, layouts).unwrap_or_default()
}

fn find(elf: &Elf, variables: &VariableRanges, layouts: &Layouts) -> Option<Vec<DataUse>> {
    let layout = layouts.get("jump_entry")?;
    let (code, key) = (*layout.members.get("code")?, *layout.members.get("key")?);
    let start = elf.unique_symbol("__start___jump_table")?.addr;
    let end = elf.unique_symbol("__stop___jump_table")?.addr;
    let bytes = elf.bytes(start, end.0.checked_sub(start.0)?)?;
    let stride = usize::try_from(layout.size).ok().filter(|size| *size > 0)?;
    let mut uses = Vec::new();
    for (entry, number) in bytes.chunks_exact(stride).zip(0u64..) {
        let entry_at = start + number * layout.size;
        let word = |at: u64| entry.get(usize::try_from(at).ok()?..);
        let distance = i64::from_le_bytes(word(key)?.get(..8)?.try_into().ok()?);
        let target = Addr((entry_at + key).offset(distance).0 & !KEY_FLAGS);
        if !variables.is_address(target) {
            continue;
        }
        let to_code = i32::from_le_bytes(word(code)?.get(..4)?.try_into().ok()?);
        let at = (entry_at + code).offset(i64::from(to_code));
        if let Some(function) = elf.function_at(at) {
            uses.push(DataUse { at, function, target, is_taken: false });
        }
    }
    Some(uses)
}
