//! Functions whose addresses a unit takes.

use super::Error;
use super::place::normalise::{Referent, Unit};
use super::place::slice::Form;
use super::place::special::Policy;
use object::elf;
use schedswap_kernel::objects::{Object, Symbol};
use std::collections::BTreeSet;

/// An address of a function, in code or data that a module would carry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Taken {
    /// The function or object that has it.
    pub by: String,
    /// The function.
    pub function: String,
    /// Whether the same unit defines it.
    pub is_own: bool,
}

/// All of them in an object of the compiler's.
///
/// # Errors
/// When the object's machine, a section or a relocation is one that the rules do not know.
pub fn addresses_taken(name: &str, object: &Object) -> Result<BTreeSet<Taken>, Error> {
    let unit = Unit::new(name, object)?;
    let mut taken = BTreeSet::new();
    for holder in unit.slices.ids() {
        if !matches!(unit.policy(holder).0, Policy::Code | Policy::Data(_)) {
            continue;
        }
        for reference in unit.references(holder).iter().filter(|r| !r.is_branch && r.offset == 0) {
            let function = match reference.referent {
                Referent::Piece(piece) if unit.slices.piece(piece).form == Form::Function => {
                    unit.describe(piece)
                }
                Referent::Symbol(id) if may_be_function(object.symbol(id)) => object.symbol(id).name.clone(),
                _ => continue,
            };
            let is_own = matches!(reference.referent, Referent::Piece(_));
            taken.insert(Taken { by: unit.describe(holder), function, is_own });
        }
    }
    Ok(taken)
}

/// Of an undefined symbol, objects do not say what it is.
fn may_be_function(symbol: &Symbol) -> bool {
    [elf::STT_NOTYPE.0, elf::STT_FUNC.0].contains(&symbol.kind)
}
