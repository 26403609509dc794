//! Where the scheduler's variables are, for asking whether a number in code or data is the address of one.

use crate::address::Addr;

/// The address ranges of the scheduler's variables.
pub struct VariableRanges {
    /// In the kernel's data, sorted, disjoint.
    addresses: Vec<(Addr, Addr)>,
    /// In a per-CPU section that is linked at 0.
    offsets: Vec<(Addr, Addr)>,
}

/// The kernel is in the upper half of the address space; a number below that is an offset.
const KERNEL_HALF: Addr = Addr(1 << 63);

impl VariableRanges {
    /// The ranges of `variables`, each given by its address and its size in bytes.
    pub fn of(variables: impl Iterator<Item = (Addr, u64)>) -> VariableRanges {
        let mut ranges: Vec<(Addr, Addr)> =
            variables.map(|(addr, size)| (addr, addr + size.max(1))).collect();
        ranges.sort_unstable();
        let (offsets, addresses) = ranges.into_iter().partition(|(start, _)| *start < KERNEL_HALF);
        VariableRanges { addresses: merged(addresses), offsets: merged(offsets) }
    }

    /// Whether the address is inside one of them.
    pub fn is_address(&self, addr: Addr) -> bool {
        covers(&self.addresses, addr)
    }

    /// Whether the number is the offset of a per-CPU variable that is linked at 0.
    pub fn is_per_cpu_offset(&self, addr: Addr) -> bool {
        covers(&self.offsets, addr)
    }
}

fn merged(ranges: Vec<(Addr, Addr)>) -> Vec<(Addr, Addr)> {
    let mut merged: Vec<(Addr, Addr)> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged
}

fn covers(ranges: &[(Addr, Addr)], addr: Addr) -> bool {
    let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else { return false };
    if addr < first.0 || addr >= last.1 {
        return false;
    }
    let after = ranges.partition_point(|range| range.0 <= addr);
    after > 0 && addr < ranges[after - 1].1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_merged_and_gaps_stay() {
        let ranges = [(8, 16), (16, 20), (12, 14), (32, 40)].map(|(a, b)| (Addr(a), Addr(b)));
        let mut sorted = ranges.to_vec();
        sorted.sort_unstable();
        let ranges = merged(sorted);
        assert_eq!(ranges, [(Addr(8), Addr(20)), (Addr(32), Addr(40))]);
        for (addr, is_inside) in
            [(7, false), (8, true), (19, true), (20, false), (31, false), (39, true), (40, false)]
        {
            assert_eq!(covers(&ranges, Addr(addr)), is_inside, "{addr}");
        }
        assert!(!covers(&[], Addr(0)));
    }
}
