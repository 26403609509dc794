//! The kernel's own unwind table, as a second opinion on the frame.
//!
//! `.orc_unwind_ip` is an array of addresses, each a `s32` relative to itself; `.orc_unwind` holds one entry
//! for each, good from that address to the next (`arch/x86/include/asm/orc_types.h`):
//!
//! ```text
//! s16 sp_offset
//! s16 bp_offset
//! u16 sp_reg:4, bp_reg:4, …   (what follows changed over time and is not needed)
//! ```

use super::contract::{Base, CalleeSaved, Contract};
use super::error::Error;
use schedswap_kernel::address::Addr;

/// Bytes of an entry; any other size is a format unknown here.
pub const ENTRY_BYTES: usize = 6;

/// One entry; registers are numbered as in the first numbering.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Orc {
    /// How the CFA is found.
    pub sp_register: u8,
    /// Added to that register.
    pub sp_offset: i16,
    /// How the caller's rbp is found.
    pub bp_register: u8,
    /// Added to that register; the value is at the sum.
    pub bp_offset: i16,
}

/// The bytes of an entry.
pub type Raw = [u8; ENTRY_BYTES];

/// How a kernel numbers registers in its table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Numbering {
    /// Until 6.x: PREV_SP is 1, SP is 5.
    First,
    /// From 7.x on: SP is 3, PREV_SP is 8.
    Second,
}

impl Numbering {
    /// The table itself tells: where a function begins, the CFA is rsp+8, so the register named there is rsp. `None`
    /// for an entry that says something else in either numbering.
    pub fn of_entry_to_a_function(raw: Raw) -> Option<Numbering> {
        [Numbering::First, Numbering::Second].into_iter().find(|numbering| {
            let orc = Orc::parse(raw, *numbering);
            orc.sp_register == Orc::SP && orc.sp_offset == 8
        })
    }

    /// The first numbering's number of a register.
    fn in_the_first(self, register: u8) -> u8 {
        match (self, register) {
            (Numbering::First, register) => register,
            (Numbering::Second, 3) => Orc::SP,
            (Numbering::Second, 5) => Orc::DI,
            (Numbering::Second, 8) => Orc::CFA,
            (Numbering::Second, 10) => Orc::BP_INDIRECT,
            // rax, which the first numbering does not have.
            (Numbering::Second, 1) => Orc::UNKNOWN,
            (Numbering::Second, register) => register,
        }
    }
}

impl Orc {
    const DI: u8 = 3;
    const BP_INDIRECT: u8 = 8;
    const UNKNOWN: u8 = 15;
    /// ORC_REG_UNDEFINED: unchanged.
    pub const UNDEFINED: u8 = 0;
    /// ORC_REG_PREV_SP: the CFA.
    pub const CFA: u8 = 1;
    /// ORC_REG_BP.
    pub const BP: u8 = 4;
    /// ORC_REG_SP.
    pub const SP: u8 = 5;

    /// Decodes an entry.
    pub fn parse(raw: Raw, numbering: Numbering) -> Orc {
        let [a, b, c, d, e, _] = raw;
        Orc {
            sp_offset: i16::from_le_bytes([a, b]),
            bp_offset: i16::from_le_bytes([c, d]),
            sp_register: numbering.in_the_first(e & 15),
            bp_register: numbering.in_the_first(e >> 4),
        }
    }
}

impl std::fmt::Display for Orc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = |register| match register {
            Orc::UNDEFINED => "unchanged".to_owned(),
            Orc::CFA => "CFA".to_owned(),
            Orc::BP => "rbp".to_owned(),
            Orc::SP => "rsp".to_owned(),
            other => format!("register {other}"),
        };
        write!(f, "CFA = {}{:+}, caller's rbp ", name(self.sp_register), self.sp_offset)?;
        match self.bp_register {
            Orc::UNDEFINED => f.write_str("unchanged"),
            register => write!(f, "at {}{:+}", name(register), self.bp_offset),
        }
    }
}

/// The entry in force at `at`, from a table of addresses (first byte at `ip_table`) and one of entries.
///
/// Looks at all of them instead of searching: 0.4 million entries take about a millisecond, and whether the
/// table is sorted in the file depends on the kernel's build.
pub fn lookup(ip_table: Addr, ips: &[u8], entries: &[u8], at: Addr) -> Option<Raw> {
    let mut best: Option<(Addr, usize)> = None;
    for (index, ip) in ips.as_chunks::<4>().0.iter().enumerate() {
        let start = (ip_table + 4 * index as u64).offset(i64::from(i32::from_le_bytes(*ip)));
        if start <= at && best.is_none_or(|(earlier, _)| start >= earlier) {
            best = Some((start, index));
        }
    }
    entries.as_chunks::<ENTRY_BYTES>().0.get(best?.1).copied()
}

/// Checks that the kernel's unwinder finds the same frame at the springboard as the code does.
///
/// # Errors
/// When it does not.
pub fn confirm(contract: &Contract, orc: Orc, at: Addr) -> Result<(), Error> {
    let saved_bp = contract.slots.iter().find(|slot| slot.register == CalleeSaved::Rbp);
    let cfa_agrees = match contract.base {
        // Both are right for the unwinder when rbp is the frame base.
        Base::Rbp => {
            (orc.sp_register == Orc::BP && orc.sp_offset == 16)
                || (orc.sp_register == Orc::SP && i64::from(orc.sp_offset) == -contract.stack_pointer)
        }
        Base::Rsp | Base::X29(_) => {
            orc.sp_register == Orc::SP && i64::from(orc.sp_offset) == -contract.stack_pointer
        }
    };
    let bp_agrees = match saved_bp {
        Some(slot) => orc.bp_register == Orc::CFA && i64::from(orc.bp_offset) == slot.offset,
        None => orc.bp_register == Orc::UNDEFINED,
    };
    if cfa_agrees && bp_agrees {
        return Ok(());
    }
    let cfa = match contract.base {
        Base::Rbp => "rbp+16".to_owned(),
        Base::Rsp | Base::X29(_) => format!("rsp{:+}", -contract.stack_pointer),
    };
    let bp = saved_bp.map_or("unchanged".to_owned(), |slot| format!("at CFA{:+}", slot.offset));
    Err(Error::Unwind { at, orc: orc.to_string(), derived: format!("CFA = {cfa}, caller's rbp {bp}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_numberings_mean_the_same_frame() {
        // CFA = rsp+8; then CFA = rbp+16 with the caller's rbp at CFA-16.
        for (numbering, at_entry, inside) in [
            (Numbering::First, [8, 0, 0, 0, 0x05, 0], [16, 0, 0xf0, 0xff, 0x14, 0]),
            (Numbering::Second, [8, 0, 0, 0, 0x03, 0], [16, 0, 0xf0, 0xff, 0x84, 0]),
        ] {
            assert_eq!(Numbering::of_entry_to_a_function(at_entry), Some(numbering));
            assert_eq!(Numbering::of_entry_to_a_function(inside), None);
            let right = Orc { sp_register: Orc::BP, sp_offset: 16, bp_register: Orc::CFA, bp_offset: -16 };
            assert_eq!(Orc::parse(inside, numbering), right);
        }
    }
}
