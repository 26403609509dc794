//! What the two sources declare, side by side: types, prototypes, variables.

use crate::boundary::{Boundary, Sharing};
use schedswap_kernel::objects::Object;
use schedswap_kernel::types::{Function, Layouts, Types, Variable, of_object};
use schedswap_kernel::vmlinux::{self, Image};
use std::collections::HashMap;

/// The declarations of vmlinux's scheduler and of those edited units that were compiled with debug information.
pub struct Declared {
    /// From vmlinux.
    pub pristine: Layouts,
    /// From the edited source; only of units whose sources differ.
    pub edited: Vec<Types>,
}

/// Declarations cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// vmlinux's.
    #[error(transparent)]
    Kernel(#[from] vmlinux::Error),
    /// An object's.
    #[error(
        "cannot read the debug information that the compiler wrote for {unit}; `schedswap toolchain` gets the compiler that the kernel was built with"
    )]
    Object {
        /// `kernel/sched/core.c`
        unit: String,
        /// Why.
        source: gimli::Error,
    },
}

impl Declared {
    /// Reads both; nothing of vmlinux if nothing was edited.
    ///
    /// # Errors
    /// The debug information of vmlinux or of an object cannot be read.
    pub fn read(image: &Image, declarations: &[(String, Object)]) -> Result<Declared, Unreadable> {
        if declarations.is_empty() {
            return Ok(Declared { pristine: Layouts::default(), edited: Vec::new() });
        }
        let read = |(unit, object): &(String, Object)| {
            of_object(unit, object).map_err(|source| Unreadable::Object { unit: unit.clone(), source })
        };
        Ok(Declared {
            pristine: Layouts::of_kernel(image)?,
            edited: declarations.iter().map(read).collect::<Result<_, _>>()?,
        })
    }

    /// How many parameters each function takes that the edited units declare. A compiler's builtin may be declared
    /// without any.
    pub fn arities(&self) -> HashMap<String, usize> {
        let mut arities = HashMap::new();
        let is_told = |f: &&Function| !f.is_declaration || !f.prototype.parameters.is_empty();
        for function in self.edited.iter().flat_map(|types| &types.functions).filter(is_told) {
            let arity = match function.prototype.is_variadic {
                true => usize::MAX,
                false => function.prototype.parameters.len(),
            };
            let known: &mut usize = arities.entry(function.name.clone()).or_default();
            *known = (*known).max(arity);
        }
        arities
    }

    /// Each edited unit with its own pristine declarations.
    pub fn pairs(&self) -> impl Iterator<Item = (&Types, &Types)> {
        self.edited.iter().filter_map(|edited| Some((self.pristine.unit(&edited.unit)?, edited)))
    }
}

/// A variable at the top level of a unit: its definition if there is one, else a declaration.
pub fn variable<'t>(types: &'t Types, name: &str) -> Option<&'t Variable> {
    let named = || types.variables.iter().filter(|v| v.name == name && v.function.is_none());
    named().find(|v| !v.is_declaration).or_else(|| named().next())
}

/// Whether a variable at the top level of a unit is vmlinux's.
pub fn is_shared(boundary: &Boundary, unit: &str, name: &str) -> bool {
    let mut variables = boundary.variables.iter();
    variables
        .any(|v| v.unit == unit && v.name == name && v.in_function.is_none() && v.sharing == Sharing::Shared)
}
