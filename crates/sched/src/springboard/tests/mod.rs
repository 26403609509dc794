//! Tests of the springboard: hand-assembled functions, and a real kernel.

mod arm64;
mod assembly;
mod kernel;
mod planted;
mod proof;
