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

/// Where in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// At a register's value plus a constant.
    Based { base: Register, offset: i64 },
    /// In this CPU's own data, at this offset or address.
    PerCpu(u64),
    /// At an address that these registers make up otherwise, or that is fixed.
    Other(Registers),
}

/// A stretch of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    pub place: Place,
    pub bytes: i64,
}

/// Everything that is read and written, where no rule says what is computed. The registers that make up the
/// place of an access are in the place only, unless they are operands as well.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Touched {
    pub reads: Registers,
    pub writes: Registers,
    pub loads: Vec<Access>,
    pub stores: Vec<Access>,
}

/// One side of a comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operand {
    /// All of a register.
    Register(Register),
    /// As many bytes of memory as a register has.
    Memory(Place),
    /// Anything else.
    Other,
}

/// A thing that an instruction does. Registers are meant as a whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// A register becomes another's value.
    Copy {
        to: Register,
        from: Register,
    },
    /// … plus a constant.
    Add {
        to: Register,
        from: Register,
        by: i64,
    },
    /// It becomes what lies in memory.
    Load {
        to: Register,
        from: Place,
    },
    /// Memory becomes a register's value.
    Store {
        to: Place,
        from: Register,
    },
    /// A register becomes a number.
    Set {
        to: Register,
        value: u64,
    },
    /// It becomes 1 if the condition holds of the last comparison, else 0. The condition is not [`Condition::Other`].
    Truth {
        to: Register,
        condition: Condition,
    },
    /// It becomes the address of the running thread.
    Current {
        to: Register,
    },
    /// It is signed, or its signature checked and taken off, with another as the modifier.
    Sign {
        register: Register,
        modifier: Register,
    },
    Authenticate {
        register: Register,
        modifier: Register,
    },
    /// Two values are compared; `touched` is all of what the instruction does.
    Compare {
        left: Operand,
        right: Operand,
        touched: Touched,
    },
    /// Whatever else.
    Touch(Touched),
}

/// On what a branch depends, as far as it is known here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// Taken if the last comparison was of equals.
    Equal,
    /// … of different values.
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

/// Where execution goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// To the next instruction.
    Next,
    /// To a function, and on behind.
    Call(Addr),
    /// To the function whose address a register holds, or memory.
    CallIndirect(Option<Register>),
    /// There.
    Jump(Addr),
    JumpIndirect,
    /// There or to the next instruction.
    Branch {
        target: Addr,
        condition: Condition,
    },
    /// Back to the caller.
    Return,
    /// Nowhere: a trap.
    Trap,
    /// Where nothing here knows.
    Other,
}

/// One instruction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// Its address.
    pub at: Addr,
    /// Bytes.
    pub len: u64,
    /// Its name, for messages.
    pub form: String,
    pub flow: Flow,
    /// What it does, in order; nothing for one that only branches.
    pub effects: Vec<Effect>,
    /// Whether an earlier comparison is forgotten.
    pub sets_flags: bool,
}

impl Step {
    /// Address of the instruction behind it.
    pub fn end(&self) -> Addr {
        self.at + self.len
    }
}

/// One instruction, as far as comparing two builds of a function takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outline {
    pub at: u64,
    pub len: u64,
    /// The same for all lengths and operands of one instruction.
    pub mnemonic: u32,
    /// The same for instructions that differ in their operands' values only.
    pub form: u32,
    /// Whether it does nothing.
    pub nop: bool,
    /// Where it goes, if it calls, jumps or branches there.
    pub target: Option<u64>,
}

/// How functions call each other.
pub struct Abi {
    /// How many registers there are.
    pub registers: Register,
    pub stack_pointer: Register,
    pub frame_pointer: Register,
    /// Where a call leaves the return address; `None` if on the stack.
    pub link: Option<Register>,
    /// The stack pointer at a function's entry, from the CFA: the caller's stack pointer before the call.
    pub entry_sp: i64,
    /// In order.
    pub arguments: &'static [Register],
    pub results: &'static [Register],
    /// Handed back as they were, the stack pointer aside.
    pub callee_saved: &'static [Register],
    /// As assemblers call it.
    pub name: fn(Register) -> String,
}
