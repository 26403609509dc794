//! What debug information says of types: structures with their members and padding, prototypes of functions,
//! variables. This is the only reader of types; everything that is asked of them is asked here.
//!
//! It knows sections and units, not what kernel they belong to. [`of_object`] reads a relocatable object. For vmlinux,
//! [`Layouts::of_kernel`] is in [`vmlinux`](crate::vmlinux), which is above this module. Both give the same values, so
//! that the two can be compared.
//!
//! | asked | answered by |
//! |---|---|
//! | what a unit declares | [`Types`]: types, functions, variables |
//! | where a structure's members and padding are | [`Types::layout`]: [`RecordLayout`], nameless inner structures flattened |
//! | whether two types are used alike | [`Types::words`], [`Types::prototype_words`] |
//! | whether another build can read a value | [`Types::shape`] |
//! | what cannot be copied as a value | [`Types::holds`] |
//! | what lies in, or is reachable from, some memory | [`Reach`], [`Types::structures_in`] |
//! | where a compiled function finds its parameters | [`parameters_of_object`] |
//!
//! Of a whole vmlinux, only the units that are asked for are walked; `debug_info` finds and names them.

pub(crate) mod debug_info;
mod holds;
mod holes;
pub(crate) mod index;
mod layouts;
mod model;
mod object;
mod outline;
pub(crate) mod parameters;
pub(crate) mod paths;
mod reach;
mod reader;
mod shape;
#[cfg(test)]
mod tests;
mod view;
mod words;

pub use holds::{Held, HeldKind, LOCK_TYPES};
pub use holes::{Hole, SpareBits};
pub use layouts::Layouts;
pub use model::{
    Array, Bits, Enumeration, Function, Kind, Member, Prototype, Record, SourceLine, Type, TypeId, Types,
    Variable,
};
pub use object::{of_object, parameters_of_object, symbol_at};
pub use parameters::{Parameter, ParameterPlace, Parameters};
pub use reach::Reach;
pub use shape::Shape;
pub use view::{Field, RecordLayout};
