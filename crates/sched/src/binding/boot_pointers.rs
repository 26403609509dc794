//! Pointers that boot code writes into instructions (`runtime_const_ptr` of the kernel's `asm/runtime-const.h`).
//!
//! The compiler leaves a placeholder, `movabs $0x0123456789abcdef, %reg`, and the section `runtime_ptr_NAME` lists
//! its immediate. At boot the value of the variable NAME is written there, in vmlinux and nowhere else: a module's
//! copy would run with the placeholder. The variable holds the same value, so the module reads that.

use object::elf;
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch;
use schedswap_kernel::objects::{Object, Place, Relocation, SectionId, Symbol, SymbolId};
use schedswap_kernel::vmlinux::Image;
use std::collections::BTreeMap;

/// What the name of such a section begins with; the variable's name follows.
pub(super) const SECTION: &str = "runtime_ptr_";
/// `movabs $imm64, %reg`: prefix and opcode, then the immediate.
const OPCODE_BYTES: usize = 2;
const MOVE_BYTES: usize = OPCODE_BYTES + 8;
/// `mov disp32(%rip), %reg`, which a nop fills up to the same length.
const LOAD_BYTES: usize = 7;
const NOP3: [u8; MOVE_BYTES - LOAD_BYTES] = [0x0f, 0x1f, 0x00];
/// Offset of the displacement in the load.
const DISPLACEMENT: usize = 3;

/// Turns every such instruction into a load of the variable. One of another form is left as it is, listed in its
/// section, and refused by name if the module would carry it; so are those of other architectures.
pub(super) fn read_variables(object: &mut Object) {
    if object.machine != elf::EM_X86_64.0 {
        return;
    }
    for table in 0..object.sections.len() {
        let Some(variable) = object.sections[table].name.strip_prefix(SECTION).map(str::to_owned) else {
            continue;
        };
        let listed = std::mem::take(&mut object.sections[table].relocations);
        let rest = listed.into_iter().filter(|entry| !read_variable(object, entry, &variable)).collect();
        object.sections[table].relocations = rest;
    }
}

fn read_variable(object: &mut Object, entry: &Relocation, variable: &str) -> bool {
    let symbol = object.symbol(entry.symbol);
    let field = arch::of_elf(object.machine).and_then(|arch| arch.field(entry.kind));
    let is_relative = field.is_some_and(|field| field.is_relative());
    let Place::Section(SectionId(code)) = symbol.place else { return false };
    let start = (symbol.value as i64).wrapping_add(entry.addend) - OPCODE_BYTES as i64;
    let Ok(start) = usize::try_from(start) else { return false };
    let bytes = object.sections[code as usize].data.get(start..start + MOVE_BYTES);
    let Some(load) = bytes.filter(|_| is_relative).and_then(|bytes| load_instead(bytes, 0)) else {
        return false;
    };
    let variable = undefined(object, variable);
    let section = &mut object.sections[code as usize];
    section.data[start..start + MOVE_BYTES].copy_from_slice(&load);
    let field = (start + DISPLACEMENT) as u64;
    let at = section.relocations.partition_point(|r| r.offset < field);
    let to_end = (LOAD_BYTES - DISPLACEMENT) as i64;
    let kind = elf::R_X86_64_PC32.0;
    section.relocations.insert(at, Relocation { offset: field, kind, symbol: variable, addend: -to_end });
    true
}

/// The load, with `distance` from its end to the variable, that takes the place of a move of an immediate.
fn load_instead(movabs: &[u8], distance: i32) -> Option<[u8; MOVE_BYTES]> {
    // REX.W, with B for r8 to r15, whose bit is R in the load; the opcode's low bits are the register's.
    let (&[prefix @ (0x48 | 0x49), opcode @ 0xb8..=0xbf], _) = movabs.split_first_chunk()? else {
        return None;
    };
    let extended = prefix & 1;
    let mut load = [0; MOVE_BYTES];
    load[..DISPLACEMENT].copy_from_slice(&[0x48 | extended << 2, 0x8b, (opcode & 7) << 3 | 0b101]);
    load[DISPLACEMENT..LOAD_BYTES].copy_from_slice(&distance.to_le_bytes());
    load[LOAD_BYTES..].copy_from_slice(&NOP3);
    Some(load)
}

/// The symbol of that name, made if the object has none.
fn undefined(object: &mut Object, name: &str) -> SymbolId {
    let named = |s: &Symbol| s.name == name && s.place == Place::Undefined;
    let id = object.symbols.iter().position(named).unwrap_or_else(|| {
        object.symbols.push(Symbol {
            name: name.to_owned(),
            place: Place::Undefined,
            value: 0,
            size: 0,
            binding: elf::STB_GLOBAL.0,
            kind: elf::STT_NOTYPE.0,
            other: 0,
        });
        object.symbols.len() - 1
    });
    SymbolId(id as u32)
}

/// The places in vmlinux that its boot code writes: where the instruction begins, and its variable.
pub(super) struct BootPointers(BTreeMap<Addr, Addr>);

impl BootPointers {
    /// Reads vmlinux's tables.
    pub fn of(image: &Image) -> BootPointers {
        let mut places = BTreeMap::new();
        let begin = format!("__start_{SECTION}");
        for name in image.by_name.keys().filter_map(|name| name.strip_prefix(&begin)) {
            let addr = |name: &str| image.unique_symbol(name).map(|symbol| symbol.addr);
            let (Some(start), Some(end), Some(variable)) =
                (addr(&format!("{begin}{name}")), addr(&format!("__stop_{SECTION}{name}")), addr(name))
            else {
                continue;
            };
            let table = image.bytes(start, end.0.saturating_sub(start.0)).unwrap_or_default();
            for (entry, field) in table.chunks_exact(4).zip((start.0..).step_by(4)) {
                let distance = i32::from_le_bytes(entry.try_into().expect("chunks of four"));
                let immediate = Addr(field).offset(i64::from(distance));
                places.insert(immediate.offset(-(OPCODE_BYTES as i64)), variable);
            }
        }
        BootPointers(places)
    }

    /// Puts vmlinux's placeholders back into `ours`, which stands for the code at `at`, wherever it reads the
    /// variable that boot code would have read.
    pub fn put_back(&self, ours: &mut [u8], theirs: &[u8], at: Addr) {
        let end = at + ours.len() as u64;
        for (place, variable) in self.0.range(at..end) {
            let start = (*place - at) as usize;
            let here = start..start + MOVE_BYTES;
            let after = *place + LOAD_BYTES as u64;
            let distance = i32::try_from(variable.0.wrapping_sub(after.0) as i64);
            if let (Some(original), Ok(distance)) = (theirs.get(here.clone()), distance)
                && load_instead(original, distance)
                    .is_some_and(|load| ours.get(here.clone()) == Some(&load[..]))
            {
                ours[here].copy_from_slice(original);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions, Mnemonic};

    #[test]
    fn each_register_is_loaded_in_place_of_moved_to() {
        for register in 0..16u8 {
            let mut movabs = vec![0x48 | register >> 3, 0xb8 | register & 7];
            movabs.extend(0x0123_4567_89ab_cdefu64.to_le_bytes());
            let load = load_instead(&movabs, 0x10).unwrap();
            let decode = |code: &[u8]| Decoder::with_ip(64, code, 0x1000, DecoderOptions::NONE).decode();
            let (theirs, ours) = (decode(&movabs), decode(&load));
            assert_eq!(ours.op0_register(), theirs.op0_register());
            assert_eq!((ours.mnemonic(), ours.memory_displacement64()), (Mnemonic::Mov, 0x1017));
            assert_eq!(decode(&load[LOAD_BYTES..]).mnemonic(), Mnemonic::Nop);
        }
        assert!(load_instead(&[0xe8; MOVE_BYTES], 0).is_none());
    }
}
