//! What can go wrong in a measurement.

use std::io;

/// Why a cell, a row or a scenario has no result.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The other side did not answer within the bound.
    #[error("{0} did not answer within its bound")]
    Timeout(&'static str),
    /// A payload was not what had been written.
    #[error("message {expected} came with a wrong payload (found {found})")]
    Corrupt {
        /// The sequence number, or checksum, that was due.
        expected: u64,
        /// What came instead.
        found: u64,
    },
    /// The operating system refused.
    #[error("{what}: {source}")]
    Os {
        /// What was tried.
        what: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// Something this machine or this build does not have; the row is left out and named.
    #[error("{0}")]
    Unavailable(String),
    /// A party of the measurement failed, with its own words.
    #[error("{0}")]
    Party(String),
    /// The floor moved in too many cells.
    #[error("{dropped} cells were dropped because the floor moved; no round was left")]
    Unsteady {
        /// How many.
        dropped: u32,
    },
}

impl Fault {
    /// For `map_err` on operating-system calls.
    pub fn os(what: &'static str) -> impl FnOnce(io::Error) -> Fault {
        move |source| Fault::Os { what, source }
    }
}
