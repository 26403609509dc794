//! What code refers to, and what the kernel itself rewrites: the values that each architecture yields.

use crate::address::Addr;
use crate::elf::SymbolId;

/// References found in code.
#[derive(Default)]
pub struct CodeUses {
    /// Direct branches (call, jmp, jcc) from one function to the entry of another. Sorted by callee.
    pub branches: Vec<Branch>,
    /// Instructions that take a function's address (`lea`, `mov $imm`, …). Sorted by target.
    pub taken: Vec<Taken>,
    /// Functions' addresses handed to a function that is called directly. Sorted by target.
    pub passed: Vec<Passed>,
    /// Functions that call or jump through a pointer (on retpoline kernels, through `__x86_indirect_thunk_*`).
    /// Calls that boot code makes direct (paravirt, alternatives) and static calls do not count. Sorted.
    pub indirect: Vec<SymbolId>,
    /// Instructions that refer to a variable of the scheduler's units. Sorted by target.
    pub data: Vec<DataUse>,
}

/// An instruction that refers to a variable of the scheduler, or a static branch, which depends on its key.
///
/// Per-CPU variables linked at 0 are recognised where the instruction uses this CPU's segment, and in functions that
/// use the table of all CPUs' offsets. In such a function every number that could be such an offset is taken for one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataUse {
    /// Address of the instruction.
    pub at: Addr,
    /// Function that holds it.
    pub function: SymbolId,
    /// The address it refers to: of the variable, or of a byte inside it.
    pub target: Addr,
    /// Whether it yields the address, rather than reads or writes what is there.
    pub is_taken: bool,
}

/// A direct branch to a function's entry.
#[derive(Clone, Copy, Debug)]
pub struct Branch {
    /// Address of the instruction.
    pub at: Addr,
    /// Function that holds it.
    pub caller: SymbolId,
    /// Entry address of the function reached.
    pub callee: Addr,
    /// Whether it is a call rather than a jump.
    pub is_call: bool,
}

/// An instruction that yields a function's address.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Address of the instruction.
    pub at: Addr,
    /// Function that holds it.
    pub function: SymbolId,
    /// Entry address that it yields.
    pub target: Addr,
}

/// A function's address in an argument register when another function is called directly, as in
/// `wait_for_common(x, schedule_timeout)`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Passed {
    /// The function whose address is passed.
    pub target: Addr,
    /// The function called with it.
    pub callee: Addr,
    /// Address of the instruction that loads the register.
    pub at: Addr,
    /// Function that holds the instruction.
    pub caller: SymbolId,
}

/// Why the kernel may rewrite a place in its own text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SiteKind {
    /// ftrace's nop at a function's entry (`__mcount_loc`, `__patchable_function_entries`).
    Fentry,
    /// `__jump_table`: toggles at run time.
    JumpLabel,
    /// `.static_call_sites`: toggles at run time.
    StaticCall,
    /// `.altinstructions`: rewritten once at boot.
    Alternative,
    /// `.parainstructions`: rewritten once at boot.
    Paravirt,
    /// `.smp_locks`: a lock prefix, rewritten when CPUs come and go.
    SmpLock,
    /// `.return_sites`: rewritten once at boot.
    Return,
    /// `.retpoline_sites`: rewritten once at boot.
    Retpoline,
    /// `.call_sites`: rewritten once at boot (call-depth tracking).
    Call,
    /// `.ibt_endbr_seal`: an endbr that boot code turns into a nop.
    SealedEndbr,
}

/// A place in the text that the kernel itself rewrites.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// First byte.
    pub addr: Addr,
    /// How many bytes may change.
    pub len: u8,
    /// Why they change.
    pub kind: SiteKind,
}
