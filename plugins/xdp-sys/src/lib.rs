//! AF_XDP sockets (Linux: Documentation/networking/af_xdp.rst), the place of an XDP program at an
//! interface, and what one has to ask an interface, behind safe functions.
//!
//! One of the few crates with `unsafe`. No policy lives here: which frames come is the XDP
//! program's matter, what is in them the link's.

pub mod attachment;
mod further;
pub mod interface;
mod ring;
mod xsk;

pub use xsk::{Binding, Chunk, Kick, QueueRefused, SIDES, Xsk, XskCounts, XskOptions};
