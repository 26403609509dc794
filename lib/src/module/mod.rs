//! The module: runtime, tables, stub and the bound scheduler, linked into one `scheduler.ko`.

pub mod link;
pub mod tables;
