//! Rivals in the same topology, built with feature `peers`.

pub mod iceoryx2;
