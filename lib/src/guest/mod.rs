//! guest (phase under construction)
