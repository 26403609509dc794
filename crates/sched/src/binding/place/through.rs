//! Functions that everybody calls through vmlinux's entry, the module too.
//!
//! A tracer, a kprobe or a BPF program is attached to vmlinux's name, at ftrace's nop, which comes before the jump to the
//! module. If the module called its own copy directly, they would not see the call. So where vmlinux's entry has that nop,
//! it is called there. The module's copy then needs no nop of its own, and is not in ftrace's list: each call is seen
//! once, under vmlinux's name.
//!
//! Called directly are functions
//! - whose entry in vmlinux has no such nop, so that nothing can be attached there;
//! - that the edit calls otherwise: with other parameters, or for another result. A BPF trampoline saves what vmlinux's
//!   type information says that there is, and the rest would be lost;
//! - that the edit hides from ftrace (`notrace`).

use super::destination::Destination;
use super::resolve::Destinations;
use super::slice::PieceId;
use super::tables::{TableEntry, Tables};
use crate::boundary::Fate;
use std::ops::Range;

/// Finds them.
pub fn settle(destinations: &mut Destinations, tables: &[Tables]) {
    for u in 0..destinations.units.len() {
        for piece in destinations.units[u].slices.ids() {
            if let Destination::Both(addr) = *destinations.of(u, piece)
                && is_traced(destinations, u, piece)
                && site(destinations, tables, u, piece).is_some()
                // Such a jump goes to the copy's own entry, whatever is done.
                && !destinations.units[u].begin_again.contains(&piece)
            {
                destinations.set(u, piece, Destination::Through(addr));
            }
        }
    }
}

/// Whether tracers can be attached to vmlinux's function, and can call it as the edit does.
fn is_traced(destinations: &Destinations, u: usize, piece: PieceId) -> bool {
    let (unit, index) = (&destinations.units[u], destinations.index);
    let mut functions = unit.names(piece).filter_map(|name| index.function(unit.name, name)).peekable();
    let called_otherwise = &index.binding.called_otherwise;
    functions.peek().is_some()
        && functions.all(|f| {
            matches!(&f.fate, Fate::Divert(site) if site.after_fentry)
                && !called_otherwise.contains(&(f.unit.clone(), f.name.clone()))
        })
}

/// Where the compiler has left room for ftrace in a piece, in the piece's section.
fn site(destinations: &Destinations, tables: &[Tables], u: usize, piece: PieceId) -> Option<Range<u64>> {
    let unit = &destinations.units[u];
    let entry = tables[u].entries.get(&piece)?.iter().find(|e| is_of_ftrace(destinations, u, e))?;
    let reference = unit.references_in(entry.section, entry.start, entry.start + 1).first()?;
    let start = unit.slices.piece(piece).origin.checked_add_signed(reference.offset)?;
    Some(start..start + unit.arch.fentry_nop().map_or(0, |nop| nop.len() as u64))
}

fn is_of_ftrace(destinations: &Destinations, u: usize, entry: &TableEntry) -> bool {
    let unit = &destinations.units[u];
    unit.object.section(entry.section).name == unit.arch.ftrace_table()
}

fn is_through(destinations: &Destinations, u: usize, piece: PieceId) -> bool {
    matches!(destinations.of(u, piece), Destination::Through(_))
}

/// Whether the module's tables leave an entry out: ftrace's, of a copy that is called through vmlinux's entry.
pub fn is_left_out(destinations: &Destinations, u: usize, piece: PieceId, entry: &TableEntry) -> bool {
    is_through(destinations, u, piece) && is_of_ftrace(destinations, u, entry)
}

/// The call for ftrace that such a copy does without.
pub fn untraced(
    destinations: &Destinations,
    tables: &[Tables],
    u: usize,
    piece: PieceId,
) -> Option<Range<u64>> {
    let traced = is_through(destinations, u, piece).then(|| site(destinations, tables, u, piece));
    traced.flatten().filter(|site| !site.is_empty())
}
