//! The set of addresses at which functions begin.

use crate::address::Addr;
use crate::elf::Elf;

/// Entry addresses of all functions, for asking whether a number in code or data is one.
pub struct FunctionEntries {
    sorted: Vec<u64>,
}

impl FunctionEntries {
    /// The addresses of FUNC symbols, and of assembly code that has a size. A label alone is not an entry.
    pub fn of(elf: &Elf) -> FunctionEntries {
        let mut sorted: Vec<u64> = elf
            .functions_by_addr
            .iter()
            .map(|id| elf.symbol(*id))
            .filter(|s| s.is_function() || s.size > 0)
            .map(|s| s.addr.0)
            .collect();
        sorted.dedup();
        FunctionEntries { sorted }
    }

    /// Whether a function begins at `addr`.
    pub fn contains(&self, addr: Addr) -> bool {
        let (Some(first), Some(last)) = (self.sorted.first(), self.sorted.last()) else { return false };
        (*first..=*last).contains(&addr.0) && self.sorted.binary_search(&addr.0).is_ok()
    }
}
