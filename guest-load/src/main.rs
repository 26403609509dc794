//! guest-load
fn main() {}
