//! What of the units the module carries: everything that its roots lead to.

use super::destination::Destination;
use super::normalise::Referent;
use super::resolve::{Destinations, Resolved};
use super::slice::{Form, PieceId};
use super::special::{Policy, is_for_the_runtime};
use super::tables::Tables;
use crate::binding::Error;

/// Which pieces are kept, by unit and piece.
pub struct Live(Vec<Vec<bool>>);

impl Live {
    pub fn has(&self, unit: usize, piece: PieceId) -> bool {
        self.0[unit][piece.0 as usize]
    }

    /// Roots are the functions that the module has a copy of, new functions, the classes, and what is declared to
    /// the runtime; what they, and the table entries that describe them, refer to is kept with them.
    ///
    /// # Errors
    /// When kept code refers to something that a module cannot refer to.
    pub fn new(destinations: &Destinations, tables: &[Tables]) -> Result<Live, Error> {
        let mut live = Live(destinations.units.iter().map(|u| vec![false; u.slices.pieces.len()]).collect());
        let mut work = Vec::new();
        for (u, unit) in destinations.units.iter().enumerate() {
            for piece in unit.slices.ids() {
                let is_function = unit.slices.piece(piece).form == Form::Function;
                let is_class = matches!(destinations.of(u, piece), Destination::Class(_));
                let section = &unit.object.section(unit.slices.piece(piece).section).name;
                if is_class || is_for_the_runtime(section) || is_function && destinations.is_kept(u, piece) {
                    live.0[u][piece.0 as usize] = true;
                    work.push((u, piece));
                }
            }
        }
        while let Some((u, piece)) = work.pop() {
            let unit = &destinations.units[u];
            if let Some((_, field, to)) = unit.short_jumps.iter().find(|(section, field, _)| {
                let slice = unit.slices.piece(piece);
                *section == slice.section && (slice.start..slice.end).contains(field)
            }) {
                return Err(Error::Unbindable {
                    unit: unit.name.into(),
                    user: unit.describe(piece),
                    target: unit.describe(*to),
                    why: format!(
                        "the jump at {field:#x} has room for one byte only, so it cannot be made to go to another section; \
                         keep the function in vmlinux, or do not end it with a call of its neighbour"
                    ),
                });
            }
            let own = unit.references(piece).iter().map(|r| (r, false));
            let described = tables[u]
                .entries
                .get(&piece)
                .into_iter()
                .flatten()
                .flat_map(|e| unit.references_in(e.section, e.start, e.end))
                .map(|r| (r, true));
            for (reference, describes) in own.chain(described) {
                if refuses(destinations, u, reference.referent) {
                    return Err(refused(destinations, u, piece, reference.referent));
                }
                if let Resolved::Own { unit, piece, .. } =
                    destinations.resolve(u, piece, reference, describes)?
                    && !std::mem::replace(&mut live.0[unit][piece.0 as usize], true)
                {
                    work.push((unit, piece));
                }
            }
        }
        live.check_refused_tables(destinations)?;
        Ok(live)
    }

    /// Sections that only boot code patches list the instructions that hold a placeholder: none of them may be in
    /// kept code.
    fn check_refused_tables(&self, destinations: &Destinations) -> Result<(), Error> {
        for (u, unit) in destinations.units.iter().enumerate() {
            for (i, (policy, _)) in unit.policies.iter().enumerate() {
                if *policy != Policy::Refuse {
                    continue;
                }
                for reference in unit.section_references(schedswap_kernel::objects::SectionId(i as u32)) {
                    if let Referent::Piece(piece) = reference.referent
                        && self.has(u, piece)
                    {
                        return Err(Error::RefusedSection {
                            unit: unit.name.into(),
                            section: unit.object.sections[i].name.clone(),
                            function: unit.describe(piece),
                            reason: unit.policies[i].1.into(),
                        });
                    }
                }
            }
        }
        Ok(())
    }
}

fn refuses(destinations: &Destinations, unit: usize, target: Referent) -> bool {
    matches!(target, Referent::Piece(piece) if destinations.units[unit].policy(piece).0 == Policy::Refuse)
}

fn refused(destinations: &Destinations, unit: usize, user: PieceId, target: Referent) -> Error {
    let owner = &destinations.units[unit];
    let Referent::Piece(piece) = target else { unreachable!("only pieces have a policy") };
    Error::RefusedSection {
        unit: owner.name.into(),
        section: owner.object.section(owner.slices.piece(piece).section).name.clone(),
        function: owner.describe(user),
        reason: owner.policy(piece).1.into(),
    }
}

/// `__schedule` hands over to vmlinux exactly once.
///
/// # Errors
/// When it does not.
pub fn check_switch(destinations: &Destinations) -> Result<(), Error> {
    for (u, unit) in destinations.units.iter().enumerate() {
        let bodies: Vec<PieceId> =
            unit.slices.ids().filter(|p| matches!(destinations.of(u, *p), Destination::Body(_))).collect();
        for body in bodies {
            let mut count = 0;
            for piece in unit.slices.ids().filter(|p| {
                *p == body
                    || matches!(destinations.of(u, *p), Destination::ColdPartOf(parent) if *parent == body)
            }) {
                for reference in unit.references(piece) {
                    if matches!(destinations.resolve(u, piece, reference, false)?, Resolved::Switch { .. }) {
                        count += 1;
                    }
                }
            }
            if count != 1 {
                return Err(Error::Switch {
                    unit: unit.name.into(),
                    function: unit.describe(body),
                    callee: destinations.units[u].arch.stack_switch().into(),
                    count,
                });
            }
        }
    }
    Ok(())
}
