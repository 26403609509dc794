//! A kernel and a scheduler of a few functions, small enough to say in a test what must become of each.

use super::{Binding, UnitObject};
use crate::boundary::{
    Boundary, BoundaryFunction, BoundaryVariable, Class, Fate, PatchSite, SchedClass, Sharing, StayReason,
};
use crate::identity::{Addresses, KnownBy, Placed};
use object::elf;
use schedswap_kernel::address::Addr;
use schedswap_kernel::objects::{self, Object, Place, Relocation, Section, SectionId, SymbolId};
use schedswap_kernel::vmlinux::{self, Image};
use std::collections::{BTreeMap, BTreeSet};

pub const UNIT: &str = "kernel/sched/core.c";
pub const TEXT: u64 = 0xffff_ffff_8100_0000;
pub const RODATA: u64 = 0xffff_ffff_8180_0000;
pub const DATA: u64 = 0xffff_ffff_8200_0000;

const A: u64 = elf::SHF_ALLOC.0;
const WA: u64 = A | elf::SHF_WRITE.0;
const AX: u64 = A | elf::SHF_EXECINSTR.0;

/// Functions of vmlinux and where they are.
pub const FUNCTIONS: [(&str, u64, bool); 9] = [
    ("_printk", 0x0, true),
    ("__fentry__", 0x40, true),
    ("tick", 0x100, true),
    ("helper", 0x200, false),
    ("sleeper", 0x300, true),
    ("__schedule", 0x400, false),
    ("preempt", 0x410, false),
    ("__switch_to_asm", 0x500, true),
    ("outsider.isra.0", 0x600, false),
];

/// An object in the making.
#[derive(Default)]
pub struct Build {
    pub object: Object,
}

impl Build {
    pub fn section(&mut self, name: &str, flags: u64, data: &[u8]) -> SectionId {
        let id = SectionId(self.object.sections.len() as u32);
        self.object.sections.push(Section {
            name: name.into(),
            kind: elf::SHT_PROGBITS.0,
            flags,
            align: if flags & 4 != 0 { 16 } else { 8 },
            data: data.to_vec(),
            size: data.len() as u64,
            ..Section::default()
        });
        self.symbol("", Place::Section(id), 0, 0, elf::STT_SECTION.0, false);
        id
    }

    pub fn symbol(
        &mut self,
        name: &str,
        place: Place,
        value: u64,
        size: u64,
        kind: u8,
        global: bool,
    ) -> SymbolId {
        self.object.symbols.push(objects::Symbol {
            name: name.into(),
            place,
            value,
            size,
            binding: if global { elf::STB_GLOBAL.0 } else { elf::STB_LOCAL.0 },
            kind,
            other: 0,
        });
        SymbolId(self.object.symbols.len() as u32 - 1)
    }

    pub fn function(&mut self, name: &str, code: &[u8], global: bool) -> SectionId {
        let id = self.section(&format!(".text.{name}"), AX, code);
        self.symbol(name, Place::Section(id), 0, code.len() as u64, elf::STT_FUNC.0, global);
        id
    }

    pub fn data(&mut self, section: &str, flags: u64, name: &str, data: &[u8]) -> SectionId {
        let id = self.section(section, flags, data);
        self.symbol(name, Place::Section(id), 0, data.len() as u64, elf::STT_OBJECT.0, false);
        id
    }

    /// A relocation against a name: a symbol, or `.section` for a section symbol.
    pub fn relocate(&mut self, section: SectionId, offset: u64, kind: u32, to: &str, addend: i64) {
        let existing = self.object.symbols.iter().position(|s| match s.place {
            Place::Section(id) if s.kind == elf::STT_SECTION.0 => self.object.section(id).name == to,
            _ => s.name == to,
        });
        let symbol = match existing {
            Some(i) => SymbolId(i as u32),
            None => self.symbol(to, Place::Undefined, 0, 0, elf::STT_NOTYPE.0, true),
        };
        let relocations = &mut self.object.sections[section.0 as usize].relocations;
        relocations.push(Relocation { offset, kind, symbol, addend });
        relocations.sort_by_key(|r| r.offset);
    }
}

pub const PLT32: u32 = elf::R_X86_64_PLT32.0;
pub const PC32: u32 = elf::R_X86_64_PC32.0;
pub const PC64: u32 = elf::R_X86_64_PC64.0;
pub const ABS32: u32 = elf::R_X86_64_32S.0;
pub const ABS64: u32 = elf::R_X86_64_64.0;

/// The scheduler's only unit: an edit has added `fresh`, `fresh_var` and `fresh_pcpu`.
pub fn unit() -> Build {
    let mut b = Build::default();
    b.object.name = "core.o".into();
    b.object.machine = elf::EM_X86_64.0;
    add_functions_and_data(&mut b);
    add_tick(&mut b);
    add_tables(&mut b);
    b
}

fn add_functions_and_data(b: &mut Build) {
    let helper = b.function("helper", &[0x48, 0xc7, 0xc0, 0, 0, 0, 0, 0xc3], false);
    let sleeper = b.function("sleeper", &[0x48, 0xc7, 0xc0, 0, 0, 0, 0, 0xc3], true);
    let fresh = b.function("fresh", &[0x48, 0xc7, 0xc7, 0, 0, 0, 0, 0xc3], false);
    b.data(".data.counter", WA, "counter", &[0; 4]);
    b.data(".data.fresh_var", WA, "fresh_var", &[7; 4]);
    b.data(".data.only_sleeper", WA, "only_sleeper", &[0; 4]);
    b.data(".data.once", WA, "__already_done.3", &[0]);
    let per_cpu = b.data(".data..percpu", WA, "runqueues", &[0; 72]);
    b.object.symbols.last_mut().unwrap().size = 64;
    b.symbol("fresh_pcpu", Place::Section(per_cpu), 64, 8, elf::STT_OBJECT.0, false);
    let strings = b.section(".rodata.tick.str1.1", A | 0x30, b"unused\0tick\0");
    b.object.sections[strings.0 as usize].entry_size = 1;
    b.relocate(helper, 3, ABS32, ".data.fresh_var", 0);
    b.relocate(sleeper, 3, ABS32, ".data.only_sleeper", 0);
    b.relocate(fresh, 3, ABS32, "fresh", 0);
}

/// A function with a reference of each kind.
fn add_tick(b: &mut Build) {
    let code = [
        0xe8, 0, 0, 0, 0, // call __fentry__
        0xe8, 0, 0, 0, 0, // call helper
        0xe8, 0, 0, 0, 0, // call sleeper
        0x48, 0xc7, 0xc7, 0, 0, 0, 0, // mov $helper,%rdi
        0x83, 0x3d, 0, 0, 0, 0, 1, // cmpl $1,counter(%rip)
        0x65, 0x8b, 0x05, 0, 0, 0, 0, // mov %gs:runqueues+8(%rip),%eax
        0x65, 0x8b, 0x05, 0, 0, 0, 0, // mov %gs:fresh_pcpu(%rip),%eax
        0x48, 0xc7, 0xc7, 0, 0, 0, 0, // mov $"tick",%rdi
        0x80, 0x3d, 0, 0, 0, 0, 0, // cmpb $0,__already_done.3(%rip)
        0xe9, 0, 0, 0, 0, // jmp fresh
    ];
    let tick = b.function("tick", &code, true);
    b.relocate(tick, 1, PLT32, "__fentry__", -4);
    b.relocate(tick, 6, PLT32, ".text.helper", -4);
    b.relocate(tick, 11, PLT32, "sleeper", -4);
    b.relocate(tick, 18, ABS32, ".text.helper", 0);
    b.relocate(tick, 24, PC32, ".data.counter", -5);
    b.relocate(tick, 32, PC32, "runqueues", 8 - 4);
    b.relocate(tick, 39, PC32, ".data..percpu", 64 - 4);
    b.relocate(tick, 46, ABS32, ".rodata.tick.str1.1", 7);
    b.relocate(tick, 52, PC32, ".data.once", -5);
    b.relocate(tick, 58, PLT32, ".text.fresh", -4);
}

/// `__schedule` and its neighbour, the class, and the tables that describe code.
fn add_tables(b: &mut Build) {
    // Two functions of one section: the call between them needs no relocation, its displacement is 0x10 - 0xa.
    let sched = [0xe8, 0, 0, 0, 0, 0xe8, 6, 0, 0, 0, 0xc3, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xc3];
    let sched = b.section(".sched.text", AX, &sched);
    b.symbol("__schedule", Place::Section(sched), 0, 11, elf::STT_FUNC.0, false);
    b.symbol("preempt", Place::Section(sched), 16, 1, elf::STT_FUNC.0, false);
    b.relocate(sched, 1, PLT32, "__switch_to_asm", -4);

    let class = b.section("__fair_sched_class", A, &[0; 16]);
    b.symbol("fair_sched_class", Place::Section(class), 0, 16, elf::STT_OBJECT.0, true);
    b.relocate(class, 0, ABS64, ".text.helper", 0);
    b.relocate(class, 8, ABS64, ".text.fresh", 0);

    let mcount = b.section("__mcount_loc", A, &[0; 16]);
    b.relocate(mcount, 0, ABS64, ".text.sleeper", 0);
    b.relocate(mcount, 8, ABS64, ".text.tick", 0);
    let jumps = b.section("__jump_table", WA, &[0; 32]);
    for (n, function) in [".text.tick", ".text.sleeper"].into_iter().enumerate() {
        let start = n as u64 * 16;
        b.relocate(jumps, start, PC32, function, 5);
        b.relocate(jumps, start + 4, PC32, function, 7);
        b.relocate(jumps, start + 8, PC64, ".data.counter", 1);
    }
    let ip = b.section(".orc_unwind_ip", A, &[0; 12]);
    b.section(".orc_unwind", A, &[1, 1, 2, 2, 3, 3]);
    b.relocate(ip, 0, PC32, ".text.tick", 0);
    b.relocate(ip, 4, PC32, ".text.sleeper", 0);
    b.relocate(ip, 8, PC32, ".sched.text", 0);
    b.section("___ksymtab+sleeper", A, &[0; 12]);
    b.section(".comment", 0x30, b"GCC\0");
}

/// Everything that objects are bound to.
pub struct Kernel {
    pub image: Image,
    pub boundary: Boundary,
    pub addresses: Addresses,
    pub called_otherwise: BTreeSet<(String, String)>,
}

impl Kernel {
    pub fn binding(&self) -> Binding<'_> {
        Binding {
            image: &self.image,
            boundary: &self.boundary,
            addresses: &self.addresses,
            anchor: "_printk",
            called_otherwise: &self.called_otherwise,
        }
    }
}

pub fn units(build: Build) -> Vec<UnitObject> {
    vec![UnitObject::new(UNIT, build.object)]
}

fn vmlinux_symbols() -> Vec<vmlinux::Symbol> {
    let mut symbols = Vec::new();
    let mut add = |name: &str, addr, size, kind, global, section| {
        symbols.push(vmlinux::Symbol {
            name: name.into(),
            addr: Addr(addr),
            size,
            kind,
            binding: if global { elf::STB_GLOBAL.0 } else { elf::STB_LOCAL.0 },
            section: Some(section),
            file: None,
        });
    };
    for (name, offset, global) in FUNCTIONS {
        add(name, TEXT + offset, 16, elf::STT_FUNC.0, global, 1);
    }
    add("fair_sched_class", RODATA + 0x20, 16, elf::STT_OBJECT.0, true, 2);
    add("counter", DATA + 0x10, 4, elf::STT_OBJECT.0, false, 3);
    add("only_sleeper", DATA + 0x20, 4, elf::STT_OBJECT.0, false, 3);
    add("limit", DATA + 0x30, 8, elf::STT_OBJECT.0, true, 3);
    add("runqueues", 0x80, 64, elf::STT_OBJECT.0, true, 4);
    symbols
}

pub fn kernel() -> Kernel {
    let section = |name: &str, flags, addr, size, file| vmlinux::Section {
        name: name.into(),
        kind: elf::SHT_PROGBITS.0,
        flags,
        addr: Addr(addr),
        size,
        file,
    };
    let sections = vec![
        section("", 0, 0, 0, 0..0),
        section(".text", AX, TEXT, 0x1000, 0..0x1000),
        section(".rodata", A, RODATA, 0x100, 0x1000..0x1100),
        section(".data", WA, DATA, 0x100, 0x1100..0x1200),
        section(".data..percpu", WA, 0, 0x100, 0x1200..0x1300),
    ];
    let symbols = vmlinux_symbols();
    let mut by_name: std::collections::HashMap<String, Vec<vmlinux::SymbolId>> = Default::default();
    for (i, symbol) in symbols.iter().enumerate() {
        by_name.entry(symbol.name.clone()).or_default().push(vmlinux::SymbolId(i as u32));
    }
    let elf = vmlinux::Elf {
        path: "vmlinux".into(),
        map: schedswap_kernel::elf::FileBytes::Owned(vec![0; 0x1300]),
        machine: vmlinux::Machine::X86_64,
        sections,
        functions_by_addr: (0..FUNCTIONS.len() as u32).map(vmlinux::SymbolId).collect(),
        symbols,
        by_name,
    };
    let image = Image {
        elf,
        release: "6.0.0".into(),
        build_id: vec![1; 20],
        producer: String::new(),
        compiler: String::new(),
        exports: [("_printk".to_owned(), false)].into(),
        units: Vec::new(),
        inlined_outside: Vec::new(),
        uses: Default::default(),
        sites: Vec::new(),
        entry_sizes: BTreeMap::new(),
        alternative_lengths: None,
        class_members: BTreeMap::new(),
    };
    Kernel { image, boundary: boundary(), addresses: addresses(), called_otherwise: BTreeSet::new() }
}

fn boundary() -> Boundary {
    let site =
        |addr| PatchSite { at: Addr(addr), expect: vec![0; 5], mask: vec![0xff; 5], after_fentry: false };
    let function = |name: &str, fate| {
        let offset = FUNCTIONS.iter().find(|f| f.0 == name).unwrap().1;
        BoundaryFunction {
            name: name.into(),
            unit: UNIT.into(),
            decl_file: UNIT.into(),
            decl_line: 1,
            addr: Addr(TEXT + offset),
            ranges: vec![Addr(TEXT + offset)..Addr(TEXT + offset + 16)],
            local: false,
            class: Class::Interface,
            class_configured: None,
            fate,
            called_from: Vec::new(),
            stored_in: Vec::new(),
            exported: false,
        }
    };
    let variable = |name: &str, addr, size| BoundaryVariable {
        name: name.into(),
        unit: UNIT.into(),
        in_function: None,
        decl_file: UNIT.into(),
        decl_line: 1,
        addr: Addr(addr),
        size,
        sharing: Sharing::Shared,
        carry: false,
        configured: None,
        used_from: Vec::new(),
        held_by: Vec::new(),
        not_private: Vec::new(),
    };
    let sleeps = || Fate::Stay(StayReason::Sleeps { via: vec!["__schedule".into()] });
    Boundary {
        functions: vec![
            function("tick", Fate::Divert(site(TEXT + 0x105))),
            function("helper", Fate::Divert(site(TEXT + 0x200))),
            function("sleeper", sleeps()),
            function("__schedule", Fate::Springboard(site(TEXT + 0x400))),
            function("preempt", sleeps()),
        ],
        variables: vec![
            variable("counter", DATA + 0x10, 4),
            variable("only_sleeper", DATA + 0x20, 4),
            variable("runqueues", 0x80, 64),
        ],
        classes: vec![SchedClass {
            name: "fair_sched_class".into(),
            unit: UNIT.into(),
            addr: Addr(RODATA + 0x20),
            size: 16,
        }],
        ..Boundary::default()
    }
}

fn addresses() -> Addresses {
    let placed = |addr, size, section: &str| Placed {
        addr: Addr(addr),
        size,
        section: section.into(),
        known_by: KnownBy::Relocation,
    };
    let unit = BTreeMap::from([
        ("counter".to_owned(), placed(DATA + 0x10, 4, ".data")),
        ("only_sleeper".to_owned(), placed(DATA + 0x20, 4, ".data")),
        ("runqueues".to_owned(), placed(0x80, 64, ".data..percpu")),
    ]);
    Addresses { units: [(UNIT.to_owned(), unit)].into(), ..Addresses::default() }
}
