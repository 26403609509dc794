//! springboard (phase under construction)
