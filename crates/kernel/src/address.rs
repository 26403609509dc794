//! A kernel virtual address, as linked (before KASLR).

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, Sub};

/// An address in vmlinux as the linker laid it out. Printed in hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Addr(pub u64);

impl Addr {
    /// The signed distance in bytes from `origin` to `self`, wrapping as the CPU does.
    pub fn distance_from(self, origin: Addr) -> i64 {
        self.0.wrapping_sub(origin.0) as i64
    }

    /// `self` moved by a signed number of bytes.
    pub fn offset(self, bytes: i64) -> Addr {
        Addr(self.0.wrapping_add(bytes as u64))
    }
}

impl Add<u64> for Addr {
    type Output = Addr;
    fn add(self, bytes: u64) -> Addr {
        Addr(self.0.wrapping_add(bytes))
    }
}

impl Sub<Addr> for Addr {
    type Output = u64;
    fn sub(self, origin: Addr) -> u64 {
        self.0.wrapping_sub(origin.0)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
