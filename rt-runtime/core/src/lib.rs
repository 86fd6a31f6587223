//! Words that every layer shares: identifiers, units, quality of service, lanes.
//!
//! Pure: `no_std`, no allocation, no clock, no socket.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod counters;
pub mod heap;
pub mod ids;
pub mod instant;
pub mod limits;
pub mod miss;
pub mod network;
pub mod peers;
pub mod qos;
pub mod schema;
pub mod time;

pub use ids::*;
pub use instant::{ClockQuality, SourceInstant, Stamp};
pub use miss::{Cause, Fate};
pub use network::Network;
pub use qos::{Consumption, Datapath, Determinism, Lane, LatePolicy, Priority, Qos, Reliability};
pub use schema::Schema;
pub use time::{MonoTime, Nanos, TaiTime};
