//! Where each function and object of the scheduler is to be found: in vmlinux, in the module, or in both.
//!
//! The question is answered by levels, which are tried in order; the first that has an answer decides. The symbols
//! named are those of Debian's 6.1.0-57-cloud-amd64, where that level is the one that answers.
//!
//! Functions (and their cold parts):
//!
//! | level | asks | answers for |
//! |---|---|---|
//! | 1 | has the boundary a fate for it? | `try_to_wake_up` (diverted: both), `schedule` (threads sleep inside: vmlinux), `__schedule` (the body that the stub calls) |
//! | 2 | is it the cold part of another function of the unit? | `enqueue_task_rt.cold` |
//! | 3 | do the gate build's relocations, or vmlinux's symbols, say where it is? | `__SCT__tp_func_sched_switch`, a static call's trampoline, which vmlinux patches |
//! | 4 | is it weak, or in a section that is dropped, and vmlinux has a global of the name? | nothing unmodified; a weak function that an edit adds and the kernel defines elsewhere |
//! | 5 | does the module not carry its section? | nothing unmodified; an `__init` function that an edit adds |
//! | 6 | none of these: it is new | nothing unmodified; any other function that an edit adds |
//!
//! Objects:
//!
//! | level | asks | answers for |
//! |---|---|---|
//! | 1 | does it mark that something was done once? | `__already_done.18` of `fair.c`, in `.data.once` |
//! | 2 | is it local to a function? | `_rs.2` of `fair.c`, the rate limit of a message |
//! | 3 | is it a scheduling class? | `fair_sched_class` |
//! | 4 | is it private? | `sysctl_sched_features`, whose bits are in the order of the edited `features.h` |
//! | 5 | do the gate build's relocations, or vmlinux's symbols, say where it is? | `runqueues` |
//! | 6 | does vmlinux's debug information say where it is? | nothing here, since level 5 places every variable; one that no compared code refers to and whose symbol is not unique |
//! | 7 | is it global, and vmlinux has a global of the name? | nothing unmodified; the key of a tracepoint that only an edit makes the unit define |
//! | 8 | is it of a kind that vmlinux keeps a list of? | nothing unmodified; `__tracepoint_…` of a tracepoint that an edit adds |
//! | 9 | does the module not carry its section? | `__UNIQUE_ID___addressable_sched_smt_present1140` of `fair.c`, in `.discard.addressable` |
//! | 10 | none of these: it is new | nothing unmodified; a variable that an edit adds |
//!
//! What has no symbol, strings and code beside functions, always goes with the code that refers to it.

use super::index::{InVmlinux, Index};
use super::normalise::{Referent, Unit};
use super::slice::{Form, PieceId};
use super::special::{Kept, Policy};
use crate::binding::Error;
use crate::binding::vmlinux_symbols::{local_static, source_name};
use crate::boundary::{BoundaryVariable, Fate, Sharing, StayReason};
use object::elf;
use schedswap_kernel::address::Addr;

/// Where one piece is to be found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Destination {
    /// In the module only, for this reason.
    Module(String),
    /// In vmlinux only, for this reason.
    Vmlinux(InVmlinux, String),
    /// A function that vmlinux has too: branches go to the module's, its address is vmlinux's.
    Both(Addr),
    /// The same, but branches go through vmlinux's entry as well, which leads to the module's: tracers are attached there.
    Through(Addr),
    /// `__schedule`: a reference to it goes through vmlinux's entry, which leads to the stub; the module's copy is
    /// what the stub calls.
    Body(Addr),
    /// A `sched_class` object: vmlinux's is meant, the module's build of it serves the runtime.
    Class(Addr),
    /// The cold part of a function.
    ColdPartOf(PieceId),
    /// In neither, for this reason.
    Nowhere(String),
}

/// The reason for what neither the boundary nor vmlinux knows.
const NEW: &str = "new";
const SHARED: &str = "shared with vmlinux";

impl Destination {
    /// Whether it is in the module because vmlinux does not have it.
    pub fn is_new(&self) -> bool {
        matches!(self, Destination::Module(why) if why == NEW)
    }

    fn shared(place: InVmlinux) -> Destination {
        Destination::Vmlinux(place, SHARED.into())
    }
}

/// Finds the destination of a piece.
///
/// # Errors
/// When vmlinux has several symbols that could be meant, or the configuration or the edit wants what cannot be:
/// private data in a section that a module does not carry, a scheduling class of another size.
pub fn destination(index: &Index, unit: &Unit, piece: PieceId) -> Result<Destination, Error> {
    let levels = match unit.slices.piece(piece).form {
        Form::Function => FUNCTION_LEVELS,
        Form::Object => OBJECT_LEVELS,
        Form::Stub => return Ok(Destination::Module("code that goes with a function".into())),
        Form::Anonymous => return Ok(Destination::Module("constants without a name".into())),
    };
    let subject = Subject { index, unit, piece };
    for group in levels {
        for name in unit.names(piece) {
            for level in *group {
                if let Some(found) = level(&subject, name)? {
                    return Ok(found);
                }
            }
        }
    }
    Ok(Destination::Module(NEW.into()))
}

/// What a level says of a piece by one of its names; `None` leaves it to the next level.
type Level = fn(&Subject, &str) -> Result<Option<Destination>, Error>;

/// Grouped: a group is asked by each of the piece's names before the next group is.
const FUNCTION_LEVELS: &[&[Level]] = &[
    &[|s, name| s.boundary_decides(name)],
    &[
        |s, name| s.cold_part(name),
        |s, name| s.function_in_vmlinux(name),
        |s, name| s.definition_in_force(name),
    ],
    &[|s, name| s.code_not_carried(name)],
];

const OBJECT_LEVELS: &[&[Level]] = &[
    &[
        |s, name| s.once(name),
        |s, name| s.function_local_static(name),
        |s, name| s.scheduling_class(name),
        |s, name| s.private(name),
        |s, name| s.placed(name),
        |s, name| s.in_debug_information(name),
        |s, name| s.global_of_the_name(name),
        |s, name| s.announced(name),
    ],
    &[|s, name| s.data_not_carried(name)],
];

/// A piece that is asked about.
struct Subject<'s, 'a> {
    index: &'s Index<'a>,
    unit: &'s Unit<'a>,
    piece: PieceId,
}

/// The levels of functions.
impl Subject<'_, '_> {
    /// Level 1: the boundary has a fate for it.
    fn boundary_decides(&self, name: &str) -> Result<Option<Destination>, Error> {
        let Some(function) = self.index.function(self.unit.name, name) else { return Ok(None) };
        Ok(Some(match &function.fate {
            Fate::Divert(_) | Fate::InsideOnly(_) | Fate::Duplicate(_) => Destination::Both(function.addr),
            Fate::Springboard(_) => Destination::Body(function.addr),
            Fate::Stay(StayReason::OverriddenWeak) => match self.index.global(name, self.unit.name)? {
                Some(symbol) => {
                    Destination::Vmlinux(self.index.place(symbol), "weak, and overridden in vmlinux".into())
                }
                None => Destination::Nowhere("it is weak, and vmlinux's definition has no symbol".into()),
            },
            Fate::Stay(reason) => Destination::Vmlinux(
                InVmlinux { addr: function.addr, is_offset: false },
                format!("stays in vmlinux: {}", in_words(reason)),
            ),
        }))
    }

    /// Level 2: it is the cold part of another function of the unit, and shares that function's fate.
    fn cold_part(&self, name: &str) -> Result<Option<Destination>, Error> {
        let Some((parent, _)) = name.split_once(".cold") else { return Ok(None) };
        let is_parent = |p: &PieceId| *p != self.piece && self.unit.names(*p).any(|n| n == parent);
        Ok(self.unit.slices.ids().find(is_parent).map(Destination::ColdPartOf))
    }

    /// Level 3: it was found in vmlinux by the gate build's relocations or by vmlinux's symbols.
    fn function_in_vmlinux(&self, name: &str) -> Result<Option<Destination>, Error> {
        let placed = self.index.binding.addresses.get(self.unit.name, name);
        Ok(placed.map(|placed| {
            let place = InVmlinux { addr: placed.addr, is_offset: false };
            Destination::Vmlinux(place, "in vmlinux, but not part of the boundary".into())
        }))
    }

    /// Level 4: it is weak, or in a section that is dropped, and vmlinux has a global symbol of the name.
    fn definition_in_force(&self, name: &str) -> Result<Option<Destination>, Error> {
        if !self.has_symbol(|binding| binding == elf::STB_WEAK.0) && self.policy() != Policy::Drop {
            return Ok(None);
        }
        let symbol = self.index.global(name, self.unit.name)?;
        Ok(symbol.map(|symbol| {
            Destination::Vmlinux(self.index.place(symbol), "vmlinux's own definition is in force".into())
        }))
    }

    /// Level 5: vmlinux does not have it, and its section is one that a module does not carry.
    fn code_not_carried(&self, _: &str) -> Result<Option<Destination>, Error> {
        let (policy, reason) = self.unit.policy(self.piece);
        Ok((policy == Policy::Drop).then(|| {
            Destination::Nowhere(format!(
                "vmlinux does not have it, and the module does not carry its section ({reason})"
            ))
        }))
    }
}

/// The levels of objects.
impl Subject<'_, '_> {
    /// Level 1: it marks that something was done once. The module does its own things once.
    fn once(&self, _: &str) -> Result<Option<Destination>, Error> {
        let (policy, reason) = self.unit.policy(self.piece);
        Ok((policy == Policy::Data(Kept::Once)).then(|| Destination::Module(reason.into())))
    }

    /// Level 2: it is local to a function. Its number says nothing, so function and base name must: it is vmlinux's
    /// if the boundary shares the only static of that name, in the unit or in a function that refers to it here, else
    /// the module's.
    fn function_local_static(&self, name: &str) -> Result<Option<Destination>, Error> {
        let Some(base) = local_static(name) else { return Ok(None) };
        let is_shared = |v: &&&BoundaryVariable| v.in_function.is_some() && v.sharing == Sharing::Shared;
        let shared: Vec<_> = self.index.variables(self.unit.name, base).iter().filter(is_shared).collect();
        if let [only] = shared.as_slice()
            && self.index.variables(self.unit.name, base).len() == 1
            && self.is_only_piece(base)
        {
            return Ok(Some(Destination::shared(self.index.place_in(only.addr, self.section()))));
        }
        if !shared.is_empty() {
            let users = users(self.unit, self.piece);
            let mut hits = shared.iter().filter(|v| {
                let function = v.in_function.as_deref().unwrap_or_default();
                users.iter().any(|user| source_name(user) == function)
            });
            if let (Some(variable), None) = (hits.next(), hits.next()) {
                return Ok(Some(Destination::shared(self.index.place_in(variable.addr, self.section()))));
            }
        }
        Ok(Some(Destination::Module("local to a function".into())))
    }

    /// Whether no other object of the unit has that name, with whatever number.
    fn is_only_piece(&self, base: &str) -> bool {
        let slices = &self.unit.slices;
        let mut objects = slices.ids().filter(|p| slices.piece(*p).form == Form::Object && *p != self.piece);
        !objects.any(|p| self.unit.names(p).any(|name| local_static(name) == Some(base)))
    }

    /// Level 3: it is a scheduling class of this unit.
    fn scheduling_class(&self, name: &str) -> Result<Option<Destination>, Error> {
        let Some(class) = self.index.class(name).filter(|c| c.unit == self.unit.name) else {
            return Ok(None);
        };
        let slice = self.unit.slices.piece(self.piece);
        let found = slice.end - slice.start;
        if found != class.size {
            let (unit, name, expected) = (self.unit.name.into(), name.into(), class.size);
            return Err(Error::SizeChanged { unit, name, expected, found });
        }
        Ok(Some(Destination::Class(class.addr)))
    }

    /// Level 4: the boundary gives the module its own.
    fn private(&self, name: &str) -> Result<Option<Destination>, Error> {
        let Some(Sharing::Private(why)) = self.variable(name).map(|v| &v.sharing) else { return Ok(None) };
        let (policy, reason) = self.unit.policy(self.piece);
        if !matches!(policy, Policy::Data(_)) {
            return Err(Error::CannotBePrivate {
                unit: self.unit.name.into(),
                name: name.into(),
                section: self.section().into(),
                reason: reason.into(),
            });
        }
        Ok(Some(Destination::Module(format!("private: {why}"))))
    }

    /// Level 5: it was found in vmlinux by the gate build's relocations or by vmlinux's symbols.
    fn placed(&self, name: &str) -> Result<Option<Destination>, Error> {
        let placed = self.index.binding.addresses.get(self.unit.name, name);
        Ok(placed.map(|p| Destination::shared(self.index.place_in(p.addr, &p.section))))
    }

    /// Level 6: only vmlinux's debug information says where it is.
    fn in_debug_information(&self, name: &str) -> Result<Option<Destination>, Error> {
        let variable = self.variable(name);
        Ok(variable.map(|v| Destination::shared(self.index.place_in(v.addr, self.section()))))
    }

    /// Level 7: it is global, and vmlinux has a global symbol of the name.
    fn global_of_the_name(&self, name: &str) -> Result<Option<Destination>, Error> {
        if !self.has_symbol(|binding| binding != elf::STB_LOCAL.0) {
            return Ok(None);
        }
        let symbol = self.index.global(name, self.unit.name)?;
        Ok(symbol.map(|symbol| Destination::shared(self.index.place(symbol))))
    }

    /// Level 8: it is of a kind that vmlinux keeps a list of, and vmlinux does not have it.
    fn announced(&self, name: &str) -> Result<Option<Destination>, Error> {
        const KINDS: [(&str, &str); 4] = [
            ("__tracepoint_", "a tracepoint"),
            ("__SCK__", "a static call"),
            ("__event_", "a trace event"),
            ("event_class_", "a trace event"),
        ];
        let kind = KINDS.iter().find(|(prefix, _)| name.starts_with(prefix));
        Ok(kind.map(|(_, what)| {
            Destination::Nowhere(format!(
                "it is {what} that vmlinux does not have, and a module that comes and goes cannot add one"
            ))
        }))
    }

    /// Level 9: its section is one that a module does not carry.
    fn data_not_carried(&self, _: &str) -> Result<Option<Destination>, Error> {
        let (policy, reason) = self.unit.policy(self.piece);
        Ok(matches!(policy, Policy::Drop | Policy::Refuse).then(|| {
            let section = self.section();
            Destination::Nowhere(format!("the module does not carry its section {section}: {reason}"))
        }))
    }
}

impl<'a> Subject<'_, 'a> {
    fn policy(&self) -> Policy {
        self.unit.policy(self.piece).0
    }

    /// The section that it is in.
    fn section(&self) -> &str {
        &self.unit.object.section(self.unit.slices.piece(self.piece).section).name
    }

    /// Whether one of its symbols has such a binding (STB_*).
    fn has_symbol(&self, is_such: impl Fn(u8) -> bool) -> bool {
        let symbols = &self.unit.slices.piece(self.piece).symbols;
        symbols.iter().any(|s| is_such(self.unit.object.symbol(*s).binding))
    }

    /// What the boundary says of it, where it is not local to a function.
    fn variable(&self, name: &str) -> Option<&'a BoundaryVariable> {
        let named = self.index.variables(self.unit.name, name);
        named.iter().copied().find(|v| v.in_function.is_none())
    }
}

/// Names of the functions that refer to a piece.
fn users<'a>(unit: &Unit<'a>, piece: PieceId) -> Vec<&'a str> {
    let mut users: Vec<&str> = unit
        .slices
        .ids()
        .filter(|p| unit.slices.piece(*p).form == Form::Function)
        .filter(|p| unit.references(*p).iter().any(|r| r.referent == Referent::Piece(piece)))
        .filter_map(|p| unit.names(p).next())
        .collect();
    users.dedup();
    users
}

/// Why a function stays, in words.
fn in_words(reason: &StayReason) -> String {
    match reason {
        StayReason::Sleeps { via } if via.is_empty() => "threads sleep inside".into(),
        StayReason::Sleeps { via } => format!("threads sleep inside, through {}", via.join(", ")),
        StayReason::Init => "__init code, whose memory is gone".into(),
        StayReason::OverriddenWeak => "weak, and overridden in vmlinux".into(),
        StayReason::Nmi { via } => format!("NMIs run it, through {}", via.join(", ")),
        StayReason::NoInstr => "code that must not be diverted".into(),
        StayReason::NoRoom { obstacle } => format!("no room for a jump: {obstacle}"),
        StayReason::Configured { by } => format!("kept by configuration: {by}"),
        StayReason::NotNamed => "not among the sidecar's functions".into(),
        StayReason::NoSpringboard => "its frame cannot be rebuilt on this kernel".into(),
        StayReason::Unchanged => "the edit does not change it".into(),
    }
}
