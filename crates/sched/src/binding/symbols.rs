//! The names by which the scheduler's object, the runtime and the stub find each other.

/// The section that holds all of the module's scheduler code. Not `.text`, so that the runtime's own code stays
/// apart from it.
pub const TEXT: &str = ".text.ss";
/// First byte of [`TEXT`].
pub const TEXT_START: &str = "ss_text_start";
/// Last byte + 1 of [`TEXT`].
pub const TEXT_END: &str = "ss_text_end";
/// The few instructions that leave the module's frame and go on in vmlinux's `__schedule`.
pub const SWITCH_TO: &str = "ss_switch_to";
/// Absolute 0: what per-CPU offsets are counted from.
pub const ZERO: &str = "ss_zero";
