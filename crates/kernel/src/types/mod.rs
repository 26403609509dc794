//! What the debug information says of types: structures with their members and padding, functions' prototypes.
//!
//! Read from vmlinux ([`Layouts::of_kernel`]) and from relocatable objects compiled with debug information
//! ([`of_object`]) into the same values, so that the two can be compared: [`Types`] has everything that one unit
//! declares, [`RecordLayout`] one structure with nameless inner structures flattened and its padding found.

mod elsewhere;
mod entry;
mod holes;
mod kernel;
mod model;
mod object;
mod reach;
mod read;
#[cfg(test)]
mod tests;
mod view;
mod words;

pub use elsewhere::defined_elsewhere;
pub use entry::{
    EntryError, Parameter, ParameterPlace, Parameters, parameters_of_kernel, parameters_of_object,
};
pub use holes::{Hole, SpareBits};
pub use kernel::Layouts;
pub use model::{
    Array, Bits, Enumeration, Function, Kind, Member, Place, Prototype, Record, Type, TypeId, Types, Variable,
};
pub use object::of_object;
pub use object::{placed, relocated_debug_sections};
pub use reach::Reach;
pub use view::{Field, RecordLayout};
