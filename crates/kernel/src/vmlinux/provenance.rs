//! Which kernel it is: release, build-id, compiler.

use super::error::Error;
use crate::elf::{Elf, Section};
use object::LittleEndian;
use object::elf;
use object::read::elf::NoteIterator;

/// `uname -r`, from `linux_banner` ("Linux version 6.1.0-…-amd64 (…").
pub(super) fn release(elf: &Elf) -> Result<String, Error> {
    let missing = |missing| Error::NotAKernel { path: elf.path.clone(), missing };
    let banner = elf.unique_symbol("linux_banner").ok_or(missing("it has no symbol linux_banner"))?;
    let len = banner.size.clamp(1, 4096);
    let text = elf.bytes(banner.addr, len).ok_or(missing("its linux_banner holds no text"))?;
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.strip_prefix("Linux version "))
        .and_then(|rest| rest.split([' ', '\0']).next())
        .filter(|release| !release.is_empty())
        .map(str::to_owned)
        .ok_or(missing("its linux_banner does not begin with \"Linux version\""))
}

/// The GNU build-id. Other vendors' notes (Xen's) come first in `.notes`, so owner and type are both asked for.
pub(super) fn build_id(elf: &Elf) -> Result<Vec<u8>, Error> {
    let notes = elf.sections.iter().filter(|s| s.kind == elf::SHT_NOTE.0);
    notes
        .filter_map(|section| gnu_build_id(elf.section_bytes(section)))
        .next()
        .ok_or_else(|| Error::NotAKernel { path: elf.path.clone(), missing: "it has no GNU build-id note" })
}

fn gnu_build_id(notes: &[u8]) -> Option<Vec<u8>> {
    type Header = elf::FileHeader64<LittleEndian>;
    let mut notes = NoteIterator::<Header>::new(LittleEndian, 4, notes).ok()?;
    while let Ok(Some(note)) = notes.next() {
        if note.name() == elf::ELF_NOTE_GNU && note.n_type(LittleEndian) == elf::NT_GNU_BUILD_ID {
            return Some(note.desc().to_vec());
        }
    }
    None
}

/// The strings of `.comment`, one compiler each, joined by `; `.
pub(super) fn compiler(elf: &Elf) -> String {
    let bytes = elf.sections.iter().find(|s: &&Section| s.name == ".comment");
    let text = bytes.map(|s| String::from_utf8_lossy(elf.section_bytes(s)).into_owned()).unwrap_or_default();
    text.split('\0').map(str::trim).filter(|s| !s.is_empty()).collect::<Vec<_>>().join("; ")
}
