//! What findings say: each one's reason and advice, and the page about each code.

pub mod explain;
mod pages;
