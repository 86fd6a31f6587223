//! Link over kernel UDP sockets, IPv4 and IPv6.
//!
//! A link has two sockets and never mixes their traffic: port P carries the
//! real-time lanes, port P+1 all others. A best-effort flood thus fills only its
//! own socket buffer, and a real-time frame is found without taking what came
//! before it.
//!
//! | | real-time, port P | best effort, port P+1 |
//! |---|---|---|
//! | lanes | 0 to 2 | 3 to 7 |
//! | host priority, code point | 6, from [`UdpConfig`] | as the system has it |
//!
//! Frames with a launch time, where configured, have a third socket, which sends only, in the
//! name of port P (`launch.rs`, ADR 0027).
//!
//! A frame that is alone when the link is flushed is one datagram, as it is. Of several,
//! small ones are packed into bundles ([`insane_wire::bundle`]), larger ones of one size
//! stand one behind the other, and the kernel gets all of them with one call, which it or
//! the device cuts into datagrams (UDP_SEGMENT); a receiver that has met a bundle lets the
//! kernel join them again (UDP_GRO). Where either cannot be, datagrams go and come singly.
//!
//! A link may be a member of a group, with two more sockets (module `group`): one frame
//! reaches all members.
//!
//! A peer is known by its address and port: a frame that
//! comes from any other is handed out without a peer. A link with one peer only is
//! connected to it; the kernel then drops frames of others, and, where the link is
//! bound to no particular address, uses the one that leads to the peer now. Nothing
//! is allocated after [`LinkSetup::open`].
#![forbid(unsafe_code)]

mod config;
mod group;
mod hint;
mod inbox;
mod launch;
mod link;
mod setup;
mod train;

pub use config::{FRAME_BYTES_LIMIT, FRAME_BYTES_LOW, UdpConfig, UdpGroup, frame_bytes_default};
pub use launch::{LAUNCH_PRIORITY, LaunchQueue, NotHonoured, launch_queue};
pub use link::{UdpCounts, UdpLink, UdpPeer};
pub use setup::{UdpError, UdpPeers, UdpSetup};

#[cfg(doc)]
use insane_link::LinkSetup;
