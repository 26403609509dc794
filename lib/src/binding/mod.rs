//! binding (phase under construction)
