//! The runtime as the measured side: plans, the daemon's process, ends.

pub mod daemon;
pub mod dpdk;
pub mod end;
pub mod plan;
pub mod rdma;

use crate::harness::fault::Fault;
use std::fmt::Display;

/// For `map_err` on the runtime's own errors.
pub fn fault<E: Display>(what: &'static str) -> impl FnOnce(E) -> Fault {
    move |error| Fault::Party(format!("{what}: {error}"))
}
