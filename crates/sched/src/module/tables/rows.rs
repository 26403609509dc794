//! The structures of `runtime/schedswap.h` and `runtime/extension.h` whose contents the build knows, member by member.
//!
//! Each structure here mirrors one of the C headers: a member's name is the C member's, its type has the C member's
//! width. Rows are written with designated initialisers, so the order of the members is the header's own business.

use super::text::{Address, Pointer, Text, Value, Writer};

/// What the build takes a structure of the runtime to be.
#[derive(Debug)]
pub(super) struct Expected {
    /// `ss_patch`
    pub tag: &'static str,
    /// Name and bytes of each member that the build fills in. All others are unknown to it.
    pub members: &'static [(&'static str, u64)],
}

/// A row of a table.
pub(super) trait Row {
    /// The structure that it is.
    const EXPECTED: Expected;

    /// Its initialiser in C.
    fn initialiser(&self, writer: &mut Writer) -> String;
}

macro_rules! row {
    ($(#[$doc:meta])* $name:ident as $tag:literal { $($member:ident: $of:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub(super) struct $name { $(pub $member: $of),* }

        impl Row for $name {
            const EXPECTED: Expected = Expected {
                tag: $tag,
                members: &[$((stringify!($member), <$of as Value>::BYTES)),*],
            };

            fn initialiser(&self, writer: &mut Writer) -> String {
                let members = [$(format!(".{} = {}", stringify!($member), self.$member.in_c(writer))),*];
                format!("{{ {} }}", members.join(", "))
            }
        }
    };
}

/// `SS_WINDOW_MAX` of `runtime/schedswap.h`.
pub(super) const WINDOW_MAX: usize = 16;

row! {
    /// One place in vmlinux's text that is diverted.
    Patch as "ss_patch" {
        site: Address,
        target: Address,
        func: Address,
        name: Text,
        len: u8,
        after_fentry: bool,
        expect: [u8; WINDOW_MAX],
        mask: [u8; WINDOW_MAX],
        sympos: u16,
    }
}

row! {
    /// Code of the module that no thread may be inside of when it goes.
    ModuleText as "ss_text" { start: Address, end: Address }
}

row! {
    /// Code of vmlinux that no thread may be inside of when it is diverted.
    VmlinuxRange as "ss_range" { start: Address, end: Address, name: Text }
}

row! {
    /// A `sched_class` object: vmlinux's, and the module's build of the same.
    SchedClass as "ss_class" { vmlinux: Pointer, module: Pointer, size: u64, name: Text }
}

row! {
    /// The feature switches on one side.
    Features as "ss_feature_set" { bits: Pointer, names: Pointer, keys: Pointer, count: u32, bits_size: u32 }
}

row! {
    /// A variable of the module whose value goes along.
    CarriedVariable as "ss_variable" {
        addr: Pointer,
        name: Text,
        size: u64,
        type_hash: u64,
        vmlinux: Pointer,
        per_cpu: bool,
    }
}

row! {
    /// A state that the author declares.
    StateRow as "ss_state_row" { state: Pointer, type_hash: u64, holds_pointers: u32 }
}

/// Every structure that the build fills in.
pub(super) const EXPECTED: [Expected; 7] = [
    Patch::EXPECTED,
    ModuleText::EXPECTED,
    VmlinuxRange::EXPECTED,
    SchedClass::EXPECTED,
    Features::EXPECTED,
    CarriedVariable::EXPECTED,
    StateRow::EXPECTED,
];
