//! What goes where: each unit's object cut into pieces, and where each piece is to be found.

pub mod destination;
pub mod index;
pub mod initial;
pub mod literals;
pub mod live;
pub mod normalise;
pub mod rename;
pub mod resolve;
pub mod slice;
pub mod special;
pub mod tables;
pub mod through;
