//! Link over kernel TCP connections, IPv4 and IPv6.
//!
//! Two runtimes are joined by two connections, and their traffic never mixes: one for
//! the real-time lanes, one for all others. Each has its own socket buffers, so a
//! best-effort flood never holds a real-time frame back.
//!
//! | | real-time | best effort |
//! |---|---|---|
//! | lanes | 0 to 2 | 3 to 7 |
//! | the accepting side listens on | port P | port P+1 |
//! | host priority, code point | 6, from [`TcpConfig`] | as the system has it |
//!
//! **Who connects.** The side with the lower address (then port) connects, the other
//! accepts, for both classes. Both sides know both addresses, so nothing has to be
//! agreed on, and one connection carries both directions: the acknowledgement of a
//! question travels with its answer. (A connection for each direction would cost a
//! segment more for each exchange, and double the sockets.) The price is that a link
//! is bound to one particular address, the one that its peers have for it.
//!
//! **Who it is.** An accepted connection is a peer's if it comes from the peer's IP
//! address and begins with a hello of the right version that names the
//! peer's port, the class and the size of frames; it is answered with the like. Which
//! *runtime* that is stands in each frame and is checked above links, as with every
//! technology. Addresses that no peer has are closed on sight; callers that say
//! nothing are closed after two seconds, the eldest first when there are too many. All
//! this is done in [`tend`](insane_link::Link::tend), a bounded piece at a time: a
//! stranger can neither wake the datapath nor cost it more than that.
//!
//! **Frames** are prefixed with their length, four bytes, least significant first:
//!
//! ```text
//!  0        4
//! +--------+-----------------+--------+-------
//! | length | header, payload | length | ...
//! +--------+-----------------+--------+-------
//! ```
//!
//! A length of 0 or above `frame_bytes_max` ends the connection. Small frames of a burst
//! are gathered and leave with one system call, at [`flush`](insane_link::Link::flush)
//! at the latest; large ones are not copied. Received frames are handed out where the
//! kernel put them; only the cut frame at the end of the buffer is ever moved. A large one
//! whose place is known once its head is there is read straight into it, if the receiver
//! gives places ([`FrameSink::place`](insane_link::FrameSink::place)).
//!
//! **Losses.** Frames are never reordered, but the link is not lossless: what was under
//! way when a connection broke is lost, and nobody is told which frames those were.
//! `send` to a peer that is not connected fails at once, for data that nobody takes
//! must not pile up; for the same reason a connection that the kernel takes nothing for
//! is busy for 100 ms only, and then fails its frames until it moves again. Neither
//! costs reliable streams anything: they repair above links.
//!
//! A lost connection is made anew, after 50 ms at first, then after twice as long each
//! time, up to two seconds, each give or take a quarter. All memory is taken by
//! [`LinkSetup::open`]; see [`connection_bytes`].
#![forbid(unsafe_code)]

mod backoff;
mod class;
mod config;
mod connection;
mod door;
pub mod hello;
mod input;
mod link;
mod output;
mod placing;
mod setup;
mod side;

pub use config::{
    FRAME_BYTES_DEFAULT, FRAME_BYTES_LIMIT, FRAME_BYTES_LOW, TcpConfig, USER_TIMEOUT_MS_LIMIT, USER_TIMEOUT_MS_LOW,
};
pub use connection::connection_bytes;
pub use link::{TcpLink, TcpPeer};
pub use setup::{TcpError, TcpPeers, TcpSetup};
pub use side::TcpCounts;

/// Bytes in front of each frame: its length.
const PREFIX_BYTES: usize = 4;

#[cfg(doc)]
use insane_link::LinkSetup;
