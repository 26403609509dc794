//! Compiling for a machine of another architecture.

use schedswap_kernel::arch;
use schedswap_kernel::vmlinux::Machine;
use std::collections::BTreeMap;

/// What the kernel's build system takes from the environment to build for `machine`: nothing if this machine is of that
/// kind. A `CROSS_COMPILE` that the user has set is kept.
pub(super) fn environment(machine: Machine) -> BTreeMap<String, String> {
    if Machine::host() == Some(machine) {
        return BTreeMap::new();
    }
    let arch = arch::of(machine);
    let prefix = std::env::var("CROSS_COMPILE").ok().filter(|prefix| !prefix.is_empty());
    let prefix = prefix.unwrap_or_else(|| format!("{}-", arch.triplet()));
    [("ARCH", arch.directory().to_owned()), ("CROSS_COMPILE", prefix)]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_machine_is_cross_compiled_for() {
        for machine in [Machine::X86_64, Machine::Aarch64] {
            let environment = environment(machine);
            assert_eq!(environment.is_empty(), Machine::host() == Some(machine), "{environment:?}");
        }
    }
}
