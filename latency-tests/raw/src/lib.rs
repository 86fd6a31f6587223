//! Raw baselines: what a competent engineer would write without a middleware.
//!
//! The yardstick has to be honestly fast, so this crate may use `unsafe`. It
//! holds a copying single-producer single-consumer ring with cached indices,
//! the relay step between two such rings, their set-up between two parties that
//! share nothing but a socket, the processor's cycle counter, and the loops that touch payloads.
//! Nothing here trusts less than it must: both ends belong to one owner, as
//! they would in a hand-written program. Not for use outside `latency-tests`.

mod handshake;
mod memory;
mod ring;
mod ticks;
mod touch;
mod xdp;

pub use handshake::{accept_ring, offer_ring};
pub use ring::{BytesConsumer, BytesProducer, Consumer, Producer, bytes_ring, ring};
pub use ticks::ticks;
pub use touch::{count_up, sum, wide};
pub use xdp::{XdpSocket, mac_of};
