//! Names in the module. A module that carries a second `try_to_wake_up` makes kprobes on that name fail as not
//! unique by merely being loaded, so nothing keeps its name.

use super::live::Live;
use super::resolve::Destinations;
use super::slice::{Form, PieceId};
use std::collections::HashMap;

/// The names that the module's symbols get: by unit and piece, in the order of the piece's symbols.
pub struct Names(HashMap<(usize, PieceId), Vec<String>>);

impl Names {
    pub fn new(destinations: &Destinations, live: &Live) -> Names {
        let mut units_with: HashMap<&str, usize> = HashMap::new();
        let kept = || {
            destinations.units.iter().enumerate().flat_map(|(u, unit)| {
                unit.slices.ids().filter(move |p| live.has(u, *p)).map(move |piece| (u, unit, piece))
            })
        };
        for (_, unit, piece) in kept() {
            for name in unit.names(piece) {
                *units_with.entry(name).or_default() += 1;
            }
        }
        Names(
            kept()
                .map(|(u, unit, piece)| {
                    let names = unit
                        .names(piece)
                        .map(|name| {
                            if units_with[name] > 1 {
                                format!("{name}.{}.ss", stem(unit.name))
                            } else {
                                format!("{name}.ss")
                            }
                        })
                        .collect();
                    ((u, piece), names)
                })
                .collect(),
        )
    }

    /// The names of a kept piece.
    pub fn of(&self, unit: usize, piece: PieceId) -> &[String] {
        self.0.get(&(unit, piece)).map_or(&[], Vec::as_slice)
    }
}

/// `core` of `kernel/sched/core.c`.
pub fn stem(unit: &str) -> &str {
    let file = unit.rsplit('/').next().unwrap_or(unit);
    file.split_once('.').map_or(file, |(stem, _)| stem)
}

/// Whether a piece's symbols are visible to the rest of the module: functions, which patches lead to, and objects,
/// which the runtime may want: feature switches, and variables that the next version takes over.
pub fn is_global(form: Form, name: &str) -> bool {
    match form {
        Form::Function => !name.contains(".cold"),
        Form::Object => true,
        Form::Stub | Form::Anonymous => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stem_of_a_unit() {
        assert_eq!(stem("kernel/sched/build_policy.c"), "build_policy");
    }
}
