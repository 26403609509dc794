//! The set of addresses at which functions begin.

use super::image::Image;
use crate::address::Addr;

/// Entry addresses of all functions, for asking whether a number found somewhere is one.
pub(crate) struct Entries {
    sorted: Vec<u64>,
}

impl Entries {
    /// Of FUNC symbols, and of assembly code that has a size; mere labels are no entries.
    pub(crate) fn of(image: &Image) -> Entries {
        let mut sorted: Vec<u64> = image
            .functions_by_addr
            .iter()
            .map(|id| image.symbol(*id))
            .filter(|s| s.is_function() || s.size > 0)
            .map(|s| s.addr.0)
            .collect();
        sorted.dedup();
        Entries { sorted }
    }

    /// Whether a function begins at `addr`.
    pub(crate) fn contains(&self, addr: Addr) -> bool {
        let (Some(first), Some(last)) = (self.sorted.first(), self.sorted.last()) else { return false };
        (*first..=*last).contains(&addr.0) && self.sorted.binary_search(&addr.0).is_ok()
    }
}
