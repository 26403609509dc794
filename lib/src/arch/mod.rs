//! arch (phase under construction)
