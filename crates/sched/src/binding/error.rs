//! What can go wrong while the scheduler's objects are bound to vmlinux.

/// Why objects could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An entry of a table does not describe code.
    #[error("{name} is damaged: {what}; delete it and build again")]
    Damaged {
        /// File.
        name: String,
        /// What does not fit.
        what: String,
    },
    /// Built for a machine that has no binding rules.
    #[error(
        "{name} is built for ELF machine {machine}, expected x86-64 (62) or arm64 (183); \
         compile it with the kernel's own compiler and delete what another one left in the work dir"
    )]
    Machine {
        /// File.
        name: String,
        /// e_machine.
        machine: u16,
    },
    /// A section that the policy table does not know.
    #[error(
        "{unit} has the section {section}, which is loaded into the kernel but which schedswap does not know: \
         the module's code may need entries in it. Please report it with the kernel's release; to try it, add the \
         section to the table in crates/sched/src/binding/place/special.rs with a reason"
    )]
    UnknownSection {
        /// Unit.
        unit: String,
        /// Section.
        section: String,
    },
    /// A section whose content only boot code patches.
    #[error("{function} in {unit} uses {section}: {reason}")]
    RefusedSection {
        /// Unit.
        unit: String,
        /// Section.
        section: String,
        /// The function that needs it.
        function: String,
        /// Why a module cannot have it.
        reason: String,
    },
    /// A relocation that the binding rules do not know.
    #[error(
        "{unit}: the relocation of type {kind} at {section}+{offset:#x} cannot be bound: {what}. \
         Please report it with the kernel's release and its compiler"
    )]
    Relocation {
        /// Unit.
        unit: String,
        /// Section that holds the field.
        section: String,
        /// Offset of the field.
        offset: u64,
        /// R_* number.
        kind: u32,
        /// What is wrong with it.
        what: String,
    },
    /// An undefined symbol that vmlinux does not define.
    #[error(
        "{function} in {unit} uses {symbol}, which neither the scheduler's files nor vmlinux define{hint}; \
         define it in the scheduler, or use something that this kernel has"
    )]
    UnknownSymbol {
        /// Unit.
        unit: String,
        /// The function (or object) that uses it.
        function: String,
        /// The symbol.
        symbol: String,
        /// What vmlinux has instead, or nothing.
        hint: String,
    },
    /// More than one thing of vmlinux could be meant.
    #[error("{user} uses {symbol}, of which vmlinux has {count} definitions, expected one; use another name")]
    Ambiguous {
        /// Who uses it.
        user: String,
        /// The symbol.
        symbol: String,
        /// How often.
        count: usize,
    },
    /// Only an optimised clone of the function exists, whose calling convention is not C's.
    #[error(
        "{user} uses {symbol}, of which vmlinux has only the optimised clone {clone}, whose arguments may be others; \
         call something else, or copy the function"
    )]
    OnlyClone {
        /// Who uses it.
        user: String,
        /// The symbol.
        symbol: String,
        /// The clone.
        clone: String,
    },
    /// The anchor is missing.
    #[error(
        "vmlinux does not export {0}, against which every address of vmlinux is written; \
         expected a kernel with CONFIG_MODULES and CONFIG_PRINTK"
    )]
    NoAnchor(String),
    /// Code or data refers to something that a module cannot refer to.
    #[error("{user} in {unit} refers to {target}: {why}")]
    Unbindable {
        /// Unit.
        unit: String,
        /// Function or object that holds the reference.
        user: String,
        /// What it refers to.
        target: String,
        /// Why not.
        why: String,
    },
    /// Shared data whose size the edit changed.
    #[error(
        "{name} in {unit} takes {found} bytes, but {expected} in vmlinux, where it stays: data that exists in vmlinux keeps its size. \
         Add a new variable instead, or give the module its own with global_var.force_private"
    )]
    SizeChanged {
        /// Unit.
        unit: String,
        /// Variable.
        name: String,
        /// Bytes in vmlinux.
        expected: u64,
        /// Bytes in the module's build.
        found: u64,
    },
    /// A variable that the configuration wants private lies where a module cannot have data of its own.
    #[error(
        "{name} in {unit} cannot be private: it is in section {section}, which a module does not carry ({reason}); \
         take it out of global_var.force_private"
    )]
    CannotBePrivate {
        /// Unit.
        unit: String,
        /// Variable.
        name: String,
        /// Section.
        section: String,
        /// What becomes of the section, and why.
        reason: String,
    },
    /// `__schedule` does not switch exactly once.
    #[error(
        "{function} in {unit} calls {callee} {count} times, expected once: at the switch of stacks the module hands over to \
         vmlinux. Leave exactly one call of it in {function}"
    )]
    Switch {
        /// Unit.
        unit: String,
        /// The springboard function.
        function: String,
        /// `__switch_to_asm`.
        callee: String,
        /// Calls found.
        count: usize,
    },
    /// Two units define one global name, or a unit is given twice.
    #[error("{0} is there twice among the scheduler's units, expected once; rename one, or make it static")]
    Twice(String),
    /// A table's size is not a whole number of entries.
    #[error(
        "{unit}: section {section} has {size} bytes, expected a whole number of {entry}-byte entries; this kernel's \
         structure may be another one: please report it with the kernel's release"
    )]
    OddTable {
        /// Unit.
        unit: String,
        /// Section.
        section: String,
        /// Its size, bytes.
        size: u64,
        /// An entry's size, bytes.
        entry: u64,
    },
}
