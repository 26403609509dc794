//! Compiling for a machine of another architecture than this one's.

use schedswap_kernel::arch;
use schedswap_kernel::vmlinux::Machine;
use std::collections::BTreeMap;

/// What the kernel's build system takes from the environment to build for `machine`: nothing where that is what this
/// machine is. Who has set a prefix for the compiler's programs keeps it.
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
