//! source (phase under construction)
