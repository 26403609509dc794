//! What the tests share: edits, work dirs made from the stock kernel, guests.

pub mod edit;
