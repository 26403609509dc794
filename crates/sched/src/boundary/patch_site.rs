//! Where a jump may be written at a function's entry, and where it may not.

use super::PatchSite;
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch::{self, Arch};
use schedswap_kernel::vmlinux::{Function, Image, Site, SiteKind};

/// Bytes of a landing pad, at most.
const LANDING_PAD_MAX: u64 = 4;

/// Finds the window for `function`'s jump: after ftrace's nop where there is one, so that tracers stay
/// attachable, else at the entry, after what indirect branches land on.
///
/// # Errors
/// What is in the way, in words.
pub fn patch_site(image: &Image, function: &Function) -> Result<PatchSite, String> {
    let entry = function.addr;
    let arch = arch::of(image.machine);
    let jump_bytes = arch.jump_bytes();
    let body = entry + image.bytes(entry, LANDING_PAD_MAX).map_or(0, |bytes| arch.landing_pad(bytes));
    let fentry = sites_in(image, body, 1).into_iter().find(|s| s.addr == body && s.kind == SiteKind::Fentry);
    let at = fentry.map_or(body, |site| body + u64::from(site.len));
    let end = at + jump_bytes;

    let function_end = function.ranges.first().map_or(entry, |r| r.end);
    if end > function_end {
        room_after(arch, image, function_end, end)?;
    }
    let mut mask = vec![0xff; jump_bytes as usize];
    for site in sites_in(image, at, jump_bytes) {
        match site.kind {
            SiteKind::JumpLabel => return Err(format!("a jump label at {}", site.addr)),
            SiteKind::StaticCall => return Err(format!("a static call at {}", site.addr)),
            SiteKind::Fentry => return Err(format!("ftrace's nop at {}", site.addr)),
            // Rewritten again when a second CPU comes up.
            SiteKind::SmpLock => {
                return Err(format!("a lock prefix at {} that CPU hotplug rewrites", site.addr));
            }
            SiteKind::Alternative
            | SiteKind::Paravirt
            | SiteKind::Return
            | SiteKind::Retpoline
            | SiteKind::Call
            | SiteKind::SealedEndbr => {
                for byte in site.addr.0.max(at.0)..(site.addr.0 + u64::from(site.len)).min(end.0) {
                    mask[(byte - at.0) as usize] = 0;
                }
            }
        }
    }
    let expect = image.bytes(at, jump_bytes).ok_or_else(|| format!("no bytes in the file at {at}"))?.to_vec();
    Ok(PatchSite { at, expect, mask, after_fentry: fentry.is_some() })
}

/// A jump may reach past a short function's end only into the padding before the next symbol.
fn room_after(arch: &dyn Arch, image: &Image, function_end: Addr, window_end: Addr) -> Result<(), String> {
    let next = image.functions_by_addr.partition_point(|id| image.symbol(*id).addr < function_end);
    if let Some(id) = image.functions_by_addr.get(next) {
        let symbol = image.symbol(*id);
        if symbol.addr < window_end {
            return Err(format!("{} begins at {}, before the jump would end", symbol.name, symbol.addr));
        }
    }
    let padding = image.bytes(function_end, window_end - function_end).unwrap_or_default();
    if padding.is_empty() || !arch.is_padding(padding) {
        return Err(format!("the function ends at {function_end}, too close for a jump"));
    }
    Ok(())
}

/// The sites that overlap `len` bytes at `at`.
fn sites_in(image: &Image, at: Addr, len: u64) -> Vec<Site> {
    const LONGEST: u64 = 255;
    let first = image.sites.partition_point(|s| s.addr.0 + LONGEST < at.0);
    image.sites[first..]
        .iter()
        .take_while(|s| s.addr < at + len)
        .filter(|s| s.addr.0 + u64::from(s.len) > at.0)
        .copied()
        .collect()
}
