//! Addresses in the data of a kernel that is linked to be moved (arm64): the file has zeros in their place, and
//! `.rela.dyn` says what boot code writes there.

use super::error::Error;
use crate::elf::{FileBytes, Section};
use object::elf;
use std::path::Path;

/// Bytes of an `Elf64_Rela`: r_offset, r_info, r_addend.
const ENTRY_BYTES: usize = 24;
const WORD_BYTES: usize = 8;

/// Bytes of an `Elf64_Sym`, and where in it the value is.
const SYMBOL_BYTES: usize = 24;
const SYMBOL_VALUE: usize = 8;

/// Writes the addresses that the kernel has where it is linked to be. The file itself stays as it is.
pub(super) fn relocated(path: &Path, map: FileBytes, sections: &[Section]) -> Result<FileBytes, Error> {
    let is_list = |s: &&Section| s.is_alloc() && s.kind == elf::SHT_RELA.0 && !s.file.is_empty();
    let mut words = Vec::new();
    for list in sections.iter().filter(is_list) {
        words.extend(words_of(path, &map, sections, map.get(list.file.clone()).unwrap_or_default())?);
    }
    if words.is_empty() {
        return Ok(map);
    }
    match map {
        FileBytes::Owned(mut bytes) => {
            write(&mut bytes, sections, &words);
            Ok(FileBytes::Owned(bytes))
        }
        FileBytes::Mapped(map) => {
            let failed = |source| Error::Read { path: path.to_owned(), source };
            // A private mapping: only the pages that are written to are copied.
            let mut map = map.make_mut().map_err(failed)?;
            write(&mut map, sections, &words);
            Ok(FileBytes::Mapped(map.make_read_only().map_err(failed)?))
        }
    }
}

/// Where boot code writes what.
fn words_of(path: &Path, map: &[u8], sections: &[Section], list: &[u8]) -> Result<Vec<(u64, u64)>, Error> {
    let malformed = |detail: String| Error::Malformed {
        path: path.to_owned(),
        what: "the list of addresses that boot code writes".to_owned(),
        detail,
    };
    let symbols = [elf::SHT_DYNSYM.0, elf::SHT_SYMTAB.0]
        .iter()
        .find_map(|kind| sections.iter().find(|section| section.kind == *kind))
        .and_then(|section| map.get(section.file.clone()))
        .unwrap_or_default();
    let mut words = Vec::with_capacity(list.len() / ENTRY_BYTES);
    for entry in list.as_chunks::<ENTRY_BYTES>().0 {
        let word =
            |at: usize| u64::from_le_bytes(entry[at..at + WORD_BYTES].try_into().expect("eight bytes"));
        let (at, info, addend) = (word(0), word(WORD_BYTES), word(2 * WORD_BYTES));
        let (symbol, kind) = ((info >> 32) as usize, info as u32);
        let value = match elf::RelocationType(kind) {
            elf::R_AARCH64_NONE => continue,
            elf::R_AARCH64_RELATIVE => addend,
            // A few symbols that the linker treats as another file's.
            elf::R_AARCH64_ABS64 | elf::R_AARCH64_GLOB_DAT => {
                let record = symbols.as_chunks::<SYMBOL_BYTES>().0.get(symbol);
                let record = record
                    .ok_or_else(|| malformed(format!("{at:#x} is of symbol {symbol}, which is missing")))?;
                let value = record[SYMBOL_VALUE..SYMBOL_VALUE + WORD_BYTES].try_into().expect("eight bytes");
                u64::from_le_bytes(value).wrapping_add(addend)
            }
            _ => return Err(malformed(format!("type {kind} at {at:#x} is not known"))),
        };
        words.push((at, value));
    }
    Ok(words)
}

fn write(bytes: &mut [u8], sections: &[Section], words: &[(u64, u64)]) {
    let mut data: Vec<&Section> = sections.iter().filter(|s| s.is_alloc() && !s.file.is_empty()).collect();
    data.sort_unstable_by_key(|s| s.addr);
    for (at, value) in words {
        let after = data.partition_point(|s| s.addr.0 <= *at);
        let place = data[..after].last().and_then(|section| {
            let offset = usize::try_from(at - section.addr.0).ok()?;
            let start = section.file.start.checked_add(offset)?;
            let end = start.checked_add(WORD_BYTES).filter(|end| *end <= section.file.end)?;
            bytes.get_mut(start..end)
        });
        // .bss has no bytes, and is zero until boot code has done this.
        if let Some(place) = place {
            place.copy_from_slice(&value.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Addr;

    fn section(kind: u32, addr: u64, file: std::ops::Range<usize>) -> Section {
        let size = file.len() as u64;
        Section { name: "s".into(), kind, flags: elf::SHF_ALLOC.0, addr: Addr(addr), size, file }
    }

    fn entry(at: u64, kind: u32, value: u64) -> Vec<u8> {
        [at, u64::from(kind), value].iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn written(entries: &[Vec<u8>]) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; 16];
        bytes.extend(entries.concat());
        let sections = [
            section(elf::SHT_PROGBITS.0, 0xffff_8000_0001_0000, 0..16),
            section(elf::SHT_RELA.0, 0xffff_8000_0002_0000, 16..bytes.len()),
        ];
        relocated(Path::new("vmlinux"), FileBytes::Owned(bytes), &sections).map(|map| map[..16].to_vec())
    }

    #[test]
    fn addresses_are_where_boot_code_would_write_them() {
        let value = 0xffff_8000_0001_0004u64;
        let entries = [entry(0, 0, 0), entry(0xffff_8000_0001_0008, 1027, value)];
        assert_eq!(written(&entries).unwrap()[8..], value.to_le_bytes());
        // Where the file has no bytes there is nothing to write.
        for outside in [0, 0xffff_8000_0001_000c, 0xffff_8000_0001_0010, u64::MAX] {
            assert_eq!(written(&[entry(outside, 1027, value)]).unwrap(), [0; 16], "{outside:#x}");
        }
        let refusal = |kind| written(&[entry(0xffff_8000_0001_0008, kind, value)]).unwrap_err().to_string();
        assert!(refusal(1026).contains("type 1026 at 0xffff800000010008"), "{}", refusal(1026));
        assert!(refusal(257).contains("of symbol 0, which is missing"), "{}", refusal(257));
    }
}
