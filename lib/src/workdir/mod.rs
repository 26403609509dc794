//! workdir (phase under construction)
