//! module (phase under construction)
