//! RDMA verbs (libibverbs) and the connections for them (librdmacm), behind safe functions.
//!
//! One of the few crates with `unsafe`. No policy lives here. Both libraries are loaded when
//! they are asked for, never linked, and no header is needed to build: a machine without them
//! builds everything and is told what is missing ([`VerbsError`]).
//!
//! Invariants:
//! - what is made of a device holds it, and a queue pair holds its queues, so that everything
//!   is given back in the order that verbs want;
//! - a device reads and writes only memory of [`Region`]s, which it gives up before the memory
//!   goes; no other side may read or write them (local access only);
//! - a receive buffer is read only through a [`Buffer`], and there is one only from the instant
//!   at which the device said that it is done with it until it is given to the device again.
//!
//! All objects may be used from several threads: verbs lock what they share.

mod abi;
mod api;
mod cm;
mod device;
mod memory;
mod queue;

pub use cm::{Arrived, CmEvent, CmEvents, CmId, Connecting, PRIVATE_BYTES};
pub use device::{Channel, Cq, Device, Limits};
pub use memory::{Buffer, Inbox, Outbox, Region};
pub use queue::{Batch, Completion, Notice, Qp, QpOptions};

use insane_sys::OsError;
use std::net::IpAddr;

/// Why there is no RDMA here, or it refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VerbsError {
    /// A library cannot be loaded, or lacks a function.
    #[error("{library} cannot be loaded (Debian: apt install {package}): {reason}")]
    Absent {
        /// Its file name.
        library: &'static str,
        /// What brings it.
        package: &'static str,
        /// The loader's words.
        reason: String,
    },
    /// The kernel has no connections for RDMA, or this process no right to them.
    #[error("the kernel offers no RDMA connections (modules rdma_ucm and ib_uverbs): {source}")]
    NoKernel {
        /// What failed.
        source: OsError,
    },
    /// No device has this address.
    #[error("no RDMA device has the address {address}: {source}")]
    NoDevice {
        /// The address asked for.
        address: IpAddr,
        /// What failed.
        source: OsError,
    },
    /// A call failed.
    #[error(transparent)]
    Os(#[from] OsError),
}

/// Whether both libraries can be loaded.
///
/// # Errors
/// [`VerbsError::Absent`].
pub fn probe() -> Result<(), VerbsError> {
    api::load().map(|_| ())
}

/// Sizes and offsets of the foreign structures that this crate relies on, as a compiler with
/// the headers prints them: for the test that compares.
#[doc(hidden)]
#[must_use]
pub fn layout() -> Vec<(&'static str, usize)> {
    abi::layout()
}
