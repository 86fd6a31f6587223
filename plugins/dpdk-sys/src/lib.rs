//! DPDK 22.11 (<https://doc.dpdk.org/guides-22.11/>), as far as a link needs it, behind safe
//! functions.
//!
//! Building this crate needs nothing of DPDK. What does is a small library in C, the shim
//! (`shim/shim.h`): it alone is linked with DPDK, made by `cargo xtask dpdk-shim`, and loaded
//! when a link asks for it. Where it is missing, or of another version, [`Eal::start`] says so.
//!
//! # Where the shim is looked for
//! 1. the path that is configured,
//! 2. the path in the environment variable [`SHIM_VARIABLE`],
//! 3. [`SHIM_NAME`] in the folder of the executable, and in the one above if that is cargo's
//!    folder `deps`,
//! 4. [`SHIM_NAME`], as the system looks for libraries.
//!
//! The first that is there is taken, and no other is tried.
//!
//! # Invariants
//! - DPDK is started once a process, and never ended; the shim is never unloaded.
//! - A frame has one owner: the caller, or the port. It is looked into only by way of the port
//!   that handed it out, which is then alive, and so is its memory.
//! - Calls that open, close or ask for more than counters are one at a time in the process.
//! - Moving frames neither allocates nor logs. How long a driver takes, its own code decides.
//!
//! One of the few crates with `unsafe`. No policy lives here.

mod abi;
mod cores;
mod eal;
mod library;
mod port;

pub use eal::{Eal, EalError, EalOptions};
pub use library::{SHIM_NAME, SHIM_VARIABLE, ShimError, check_shim};
pub use port::{BURST, Counts, Frame, Port, PortError, PortInfo, PortOptions};
