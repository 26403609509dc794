//! What one instruction does, in terms that are the same on every machine: enough to follow the stack, the frame
//! and the registers that hold it together.

use crate::address::Addr;

/// A general-purpose register, by the number that instructions encode it with; on A64 the stack pointer is 31.
pub type Register = u8;

/// A set of registers.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Registers(u64);

impl Registers {
    /// Adds one.
    pub fn insert(&mut self, register: Register) {
        self.0 |= 1 << register;
    }

    /// Takes one out.
    pub fn remove(&mut self, register: Register) {
        self.0 &= !(1 << register);
    }

    /// Whether it is among them.
    pub fn contains(self, register: Register) -> bool {
        self.0 & 1 << register != 0
    }

    /// All of them, by number.
    pub fn iter(self) -> impl Iterator<Item = Register> {
        (0..64).filter(move |register| self.contains(*register))
    }
}

impl FromIterator<Register> for Registers {
    fn from_iter<I: IntoIterator<Item = Register>>(registers: I) -> Registers {
        let mut set = Registers::default();
        registers.into_iter().for_each(|register| set.insert(register));
        set
    }
}

/// A place in memory, by how an instruction names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// At a register's value plus a constant.
    Based {
        /// The register.
        base: Register,
        /// The constant, in bytes.
        offset: i64,
    },
    /// In this CPU's own data, at this offset or address.
    PerCpu(u64),
    /// At an address that is made of these registers in another way, or, with none, at a fixed one.
    Other(Registers),
}

/// A stretch of memory that is read or written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Where it begins.
    pub place: Place,
    /// Its length in bytes.
    pub bytes: i64,
}

/// Everything that an instruction reads and writes, for instructions of which it is not known what they compute. The
/// registers that make up the place of an access are in the place only, unless they are operands as well.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Touched {
    /// Registers that are read.
    pub reads: Registers,
    /// Registers that are written, wholly or in part.
    pub writes: Registers,
    /// Memory that is read.
    pub loads: Vec<Access>,
    /// Memory that is written.
    pub stores: Vec<Access>,
}

/// One side of a comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operand {
    /// A whole register.
    Register(Register),
    /// As many bytes of memory as a register has.
    Memory(Place),
    /// Anything else.
    Other,
}

/// One thing that an instruction does. Registers are meant as a whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// `to` gets the value of `from`.
    Copy {
        /// The register that is written.
        to: Register,
        /// The register that is read.
        from: Register,
    },
    /// `to` gets the value of `from` plus a constant.
    Add {
        /// The register that is written.
        to: Register,
        /// The register that is read.
        from: Register,
        /// The constant.
        by: i64,
    },
    /// `to` gets what is in memory.
    Load {
        /// The register that is written.
        to: Register,
        /// The memory that is read, as many bytes as a register has.
        from: Place,
    },
    /// Memory gets the value of `from`.
    Store {
        /// The memory that is written, as many bytes as a register has.
        to: Place,
        /// The register that is read.
        from: Register,
    },
    /// `to` becomes a number.
    Set {
        /// The register that is written.
        to: Register,
        /// The number, sign bits included.
        value: u64,
    },
    /// `to` becomes 1 if the condition holds of the last comparison, else 0.
    Truth {
        /// The register that is written.
        to: Register,
        /// The condition; never [`Condition::Other`].
        condition: Condition,
    },
    /// `to` becomes the address of the running thread's `task_struct`.
    Current {
        /// The register that is written.
        to: Register,
    },
    /// A pointer is signed (arm64's pointer authentication).
    Sign {
        /// The register with the pointer, in which the signature is put.
        register: Register,
        /// The register that the signature depends on.
        modifier: Register,
    },
    /// A pointer's signature is checked and taken off.
    Authenticate {
        /// The register with the pointer.
        register: Register,
        /// The register that the signature depends on.
        modifier: Register,
    },
    /// Two values are compared.
    Compare {
        /// The first value.
        left: Operand,
        /// The second value, which is compared with, or subtracted from, the first.
        right: Operand,
        /// All that the instruction reads and writes, the comparison included.
        touched: Touched,
    },
    /// Anything else.
    Touch(Touched),
}

/// What a branch depends on, as far as it is known here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// The last comparison was of equal values.
    Equal,
    /// The last comparison was of different values.
    NotEqual,
    /// Something else.
    Other,
}

impl Condition {
    /// What holds where this does not.
    pub fn opposite(self) -> Condition {
        match self {
            Condition::Equal => Condition::NotEqual,
            Condition::NotEqual => Condition::Equal,
            Condition::Other => Condition::Other,
        }
    }
}

/// Where execution goes after an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// To the next instruction.
    Next,
    /// To a function, and after its return to the next instruction.
    Call(Addr),
    /// The same, to a function whose address is in this register, or in memory.
    CallIndirect(Option<Register>),
    /// To this address, without return.
    Jump(Addr),
    /// To an address that is in a register or in memory, without return.
    JumpIndirect,
    /// To `target` if the condition holds, else to the next instruction.
    Branch {
        /// Where it goes if the condition holds.
        target: Addr,
        /// What it depends on.
        condition: Condition,
    },
    /// Back to the caller.
    Return,
    /// Nowhere: a trap.
    Trap,
    /// It is not known where: an exception, say.
    Other,
}

/// One instruction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// Its address.
    pub at: Addr,
    /// Its length in bytes.
    pub len: u64,
    /// Its name, for messages.
    pub form: String,
    /// Where execution goes after it.
    pub flow: Flow,
    /// What it does, in order; empty for an instruction that only branches.
    pub effects: Vec<Effect>,
    /// Whether it overwrites the result of an earlier comparison.
    pub sets_flags: bool,
}

impl Step {
    /// Address of the instruction after it.
    pub fn end(&self) -> Addr {
        self.at + self.len
    }
}

/// One instruction, with what is needed to compare two builds of a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outline {
    /// Its address, or its offset in a section: it counts from where the code that was handed over begins.
    pub at: u64,
    /// Its length in bytes.
    pub len: u64,
    /// The same for all lengths and operands of one instruction.
    pub mnemonic: u32,
    /// The same for instructions that differ in their operands' values only.
    pub form: u32,
    /// Whether it does nothing.
    pub nop: bool,
    /// Where it goes if it calls, jumps or branches to a fixed place; counted as `at` is.
    pub target: Option<u64>,
}

/// How functions call each other.
pub struct Abi {
    /// How many general-purpose registers there are, the stack pointer included.
    pub registers: Register,
    /// The stack pointer.
    pub stack_pointer: Register,
    /// The register that frame records are chained through.
    pub frame_pointer: Register,
    /// The register in which a call leaves the return address; `None` if it is on the stack.
    pub link: Option<Register>,
    /// The stack pointer at a function's entry, in bytes from the CFA (the caller's stack pointer before the call).
    pub entry_sp: i64,
    /// The registers that arguments are passed in, in order.
    pub arguments: &'static [Register],
    /// The registers that results are returned in, in order.
    pub results: &'static [Register],
    /// The registers that a function returns as it got them, without the stack pointer.
    pub callee_saved: &'static [Register],
    /// A register's name in assembly.
    pub name: fn(Register) -> String,
}
