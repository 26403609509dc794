//! Where the scheduler's own symbols are in vmlinux.

use schedswap_kernel::address::Addr;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Addresses in vmlinux of the symbols that each scheduler unit defines. Kept in the work dir as JSON.
///
/// Function-local statics (`__already_done.21`) are listed under their full ELF name too, but a later build
/// numbers them otherwise: look those up by function and base name in the boundary, never here.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Addresses {
    /// Unit (`kernel/sched/core.c`) → ELF symbol name → place.
    pub units: BTreeMap<String, BTreeMap<String, Placed>>,
    /// What the units refer to but do not define → address in vmlinux, by relocations alone.
    #[serde(default)]
    pub externs: BTreeMap<String, Addr>,
    /// String literals: alignment of the section → text → address in vmlinux, by relocations alone.
    #[serde(default)]
    pub strings: BTreeMap<u64, BTreeMap<String, Addr>>,
    /// Symbols of which nothing tells the place.
    #[serde(default)]
    pub unplaced: Vec<Unplaced>,
    /// Data (unit, symbol or section) whose initial content is not vmlinux's; its references were not used.
    #[serde(default)]
    pub different_data: Vec<(String, String)>,
    /// Relocations that were laid over vmlinux and agreed.
    #[serde(default)]
    pub relocations: usize,
}

/// A symbol of which nothing tells the place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Unplaced {
    /// Unit.
    pub unit: String,
    /// ELF symbol name.
    pub name: String,
    /// Section in the gate object.
    pub section: String,
}

/// One symbol's place in vmlinux.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Placed {
    /// Address in vmlinux (for per-CPU data, within the per-CPU section).
    pub addr: Addr,
    /// st_size.
    pub size: u64,
    /// Name of the section that holds it in the gate object (`.data`, `.data..percpu`, …).
    pub section: String,
    /// How it is known.
    pub known_by: KnownBy,
}

/// How a symbol's address is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KnownBy {
    /// From vmlinux's bytes below a relocation of identical code.
    Relocation,
    /// From vmlinux's symbol table (FILE group, name and size).
    SymbolTable,
}

impl Addresses {
    /// The place of a unit's symbol.
    pub fn get(&self, unit: &str, name: &str) -> Option<&Placed> {
        self.units.get(unit)?.get(name)
    }

    /// The place of a string literal from a section of that alignment.
    pub fn string(&self, align: u64, text: &str) -> Option<Addr> {
        self.strings.get(&align)?.get(text).copied()
    }

    /// How many symbols are known in that way.
    pub fn known_by(&self, how: KnownBy) -> usize {
        self.units
            .values()
            .flat_map(|symbols| symbols.values())
            .filter(|placed| placed.known_by == how)
            .count()
    }
}
