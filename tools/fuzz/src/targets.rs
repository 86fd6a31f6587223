//! What is fed, and what must hold.

pub(crate) mod control;
pub(crate) mod data;
pub(crate) mod neighbours;
pub(crate) mod netstack;
pub(crate) mod overlay;
