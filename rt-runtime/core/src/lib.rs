//! Words that every layer shares: identifiers, units, quality of service, lanes.
//!
//! Pure: `no_std`, no allocation, no clock, no socket.
#![no_std]
#![forbid(unsafe_code)]

pub mod counters;
pub mod heap;
pub mod ids;
pub mod limits;
pub mod qos;
pub mod time;

pub use ids::*;
pub use qos::{Consumption, Datapath, Determinism, Lane, LatePolicy, Priority, Qos, Reliability};
pub use time::{MonoTime, Nanos, TaiTime};
