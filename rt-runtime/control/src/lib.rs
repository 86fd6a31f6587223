//! The control plane: sessions, streams, interest, connection set-up.
//!
//! [`hub::Hub`] decides: a pure state machine without I/O or clock, whose inputs are
//! packets, deaths, interest and the time, and whose output is a queue of
//! [`action::Action`]s.
#![forbid(unsafe_code)]

pub mod action;
pub mod hub;
pub mod quota;
pub mod spec;
