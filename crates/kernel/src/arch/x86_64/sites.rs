//! How many bytes the kernel may rewrite at a place.

use super::decoder;
use crate::address::Addr;
use crate::arch::SiteKind;

/// Bytes of a direct call or jump, and of the nop in its place.
const BRANCH_BYTES: u8 = 5;

/// Bytes that may change at a place of that kind, where `code` begins there. For those kinds whose table has
/// no length of its own.
pub(super) fn site_len(kind: SiteKind, addr: Addr, code: &[u8]) -> u8 {
    match kind {
        SiteKind::JumpLabel => match code {
            // `jmp` with 8-bit distance, and the nop as long.
            [0xeb, ..] | [0x66, 0x90, ..] => 2,
            _ => BRANCH_BYTES,
        },
        // `call`, `jmp` or `jcc` to a thunk, perhaps with a `cs` prefix: as long as the instruction.
        SiteKind::Retpoline => decoder(code, addr.0).decode().len() as u8,
        SiteKind::SmpLock => 1,
        SiteKind::SealedEndbr => 4,
        SiteKind::Fentry
        | SiteKind::StaticCall
        | SiteKind::Return
        | SiteKind::Call
        | SiteKind::Alternative
        | SiteKind::Paravirt => BRANCH_BYTES,
    }
}
