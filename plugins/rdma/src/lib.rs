//! Link over RDMA, IPv4 and IPv6: reliable connections (RC) between verbs devices, made by
//! librdmacm.
//!
//! Two runtimes are joined by two connections, and their traffic never mixes: one for the
//! real-time lanes (0 to 2), one for all others. Who connects is as with tcp: the side with the
//! lower address, then port, calls, the other answers; both say a hello with the call and the
//! answer. Port P is all that a link takes, and it is none of tcp's.
//!
//! | | where |
//! |---|---|
//! | making and ending connections | a thread of the link's own: it allocates and takes its time |
//! | sending | frames are copied into registered buffers, small ones of a burst into one, and go with one request |
//! | receiving | into registered buffers that all connections share (SRQ), handed out where they are |
//! | credits | a side sends no more than the other has buffers for: none ever finds no buffer (RNR) |
//! | waiting | the completion channel's descriptor; a datapath that never sleeps does without interrupts |
//!
//! # One copy
//! A payload's memory is the link's until `send` returns and not longer, and a client may write
//! there meanwhile. To send it by reference, the link would have to know the extents, and the
//! engine would have to keep each buffer until its completion. So one copy is made, of some
//! tens of nanoseconds a KiB, and messages up to 128 bytes go inline. A received frame is not
//! copied by the link. `frame_bytes_max` bounds what one request carries; larger messages are
//! fragmented above. There is no rendezvous by WRITE: nobody may write into or read from the
//! memory of a link (local access only).
//!
//! # Losses
//! Frames are never reordered, but the link is not lossless: what was under way when a
//! connection broke is lost. `send` to a peer that is not connected fails at once; one without
//! a grant is busy for 100 ms, and then fails until it moves again. A lost connection is made
//! anew after 50 ms at first, then after twice as long each time, up to two seconds, give or
//! take a quarter.
//!
//! # A device that is missing
//! A link may open without the libraries, the device or its address, and lose and regain them: a
//! [`RdmaKeeper`] looks after it. Queues, connections and registered memory are of one device,
//! so the next brings new ones for all peers; the link and its peers stay.
//!
//! All memory of a peer is taken when it is prepared; see [`peer_bytes`]. It is locked: a
//! process without CAP_IPC_LOCK needs as much of `ulimit -l`.
#![forbid(unsafe_code)]

mod backoff;
mod bundle;
mod class;
mod config;
mod connection;
mod core;
mod counts;
mod credit;
mod device;
mod door;
mod hello;
mod keeper;
mod line;
mod link;
mod numbers;
mod setup;

pub use config::{FRAME_BYTES_DEFAULT, FRAME_BYTES_LIMIT, FRAME_BYTES_LOW, RdmaConfig};
pub use counts::RdmaCounts;
pub use keeper::RdmaKeeper;
pub use link::{RdmaLink, RdmaPeer};
pub use setup::{RdmaError, RdmaPeers, RdmaSetup, peer_bytes};
