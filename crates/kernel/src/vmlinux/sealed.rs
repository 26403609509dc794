//! Functions that nothing may call by their address, where the processor enforces indirect-branch tracking (IBT).
//!
//! An indirect branch has to land on an `endbr`. The kernel's build lists the `endbr`s of functions whose address is
//! neither in code nor in data, in `.ibt_endbr_seal`, as 32-bit distances from each entry of the table. Boot code turns
//! them into nops.

use super::Image;
use crate::address::Addr;
use std::collections::HashSet;

const SECTION: &str = ".ibt_endbr_seal";

impl Image {
    /// Entries of functions whose `endbr` boot code takes away; `None` where the kernel has no IBT.
    pub fn sealed(&self) -> Option<HashSet<Addr>> {
        let section = self.section_named(SECTION)?;
        let entries = self.section_bytes(section).as_chunks::<4>().0.iter().zip(0u64..);
        let sealed = |(distance, n): (&[u8; 4], u64)| {
            (section.addr + 4 * n).offset(i64::from(i32::from_le_bytes(*distance)))
        };
        Some(entries.map(sealed).collect())
    }
}
