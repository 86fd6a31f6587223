//! Rivals in the same topology, each built with the feature of its name; `peers` is all.

#[cfg(feature = "aeron")]
pub mod aeron;
#[cfg(feature = "iceoryx2")]
pub mod iceoryx2;
#[cfg(feature = "zeromq")]
pub mod zeromq;
