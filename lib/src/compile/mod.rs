//! compile (phase under construction)
