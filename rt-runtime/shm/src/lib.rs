//! Shared memory behind safe functions: regions, rings, heaps and ports.
//!
//! One of the few crates with `unsafe`. What it upholds:
//!
//! - **One writer a region.** A [`Region`](region::Region) is mapped writable by one process (and
//!   there owned by one thread at a time); every other mapping is read-only.
//! - **No reference into what another may write.** Words are atomics; bytes are
//!   copied out or seen through [`SharedBytes`](insane_sys::SharedBytes).
//! - **What another wrote is a claim.** A head, a completion, a buffer number is
//!   read once and checked by one function; a false claim is a [`Violation`], which
//!   closes the connection and changes nothing else.
//! - **Bounds.** A ring holds `depth` messages, a completion ring at least as many
//!   entries as its sender's heap has buffers, so it never fills. Nothing here
//!   allocates after construction, and no loop is longer than a ring.
//!
//! Layers: [`ring`] moves cells, [`returns`] moves completions, [`wake`] wakes;
//! [`heap`] knows who holds which buffer; [`conn`] joins them into the two ends of a
//! connection; [`port`] joins connections into the hot half of a source and a sink.

#[cfg(not(loom))]
mod block;
pub mod cell;
#[cfg_attr(loom, allow(dead_code, reason = "the ports that call most of it are not built under loom"))]
pub mod returns;
#[cfg_attr(loom, allow(dead_code, reason = "the ports that call most of it are not built under loom"))]
pub mod ring;
pub(crate) mod stamped;
pub(crate) mod sync;
mod wish;

#[cfg(not(loom))]
pub mod conn;
#[cfg(not(loom))]
pub mod counters;
#[cfg(not(loom))]
pub mod heap;
#[cfg(not(loom))]
pub mod misses;
#[cfg(not(loom))]
pub mod port;
#[cfg(not(loom))]
pub mod region;
#[cfg(not(loom))]
pub mod trace;
#[cfg(not(loom))]
pub mod wake;

#[cfg(all(test, loom))]
mod loom_tests;

/// The other side of a connection wrote something that cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    /// A head that went back, or past what was sent.
    #[error("the receiver's head is not between its last value and the ring's tail")]
    Head,
    /// A completion for a buffer that the connection does not hold.
    #[error("a buffer was returned that the connection does not hold")]
    Return,
    /// A cell with a kind, length or buffer number that does not exist.
    #[error("a cell holds a kind, length or buffer that does not exist")]
    Cell,
}
