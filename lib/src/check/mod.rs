//! check (phase under construction)
