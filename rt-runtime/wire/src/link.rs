//! Heartbeats of links: whether frames pass by one way between two runtimes, in both
//! directions, and how long they take.
//!
//! A body travels as the payload of a frame of [`crate::data::Kind::Overlay`], like those of
//! [`crate::overlay`], of which it is one more kind. It has its own check, and all fields
//! are little-endian:
//!
//! ```text
//!       0        1        2        3        4        5        6        7
//!    +--------+--------+-----------------+-----------------------------------+
//!  0 |  kind  |            0             |               check               |
//!    +--------+--------------------------+-----------------------------------+
//!  8 |                          host of the sender                           |
//! 16 |                 incarnation of the sender, not 0                      |
//! 24 |       incarnation of the receiver, as far as known (0: unknown)       |
//! 32 |                stamp: the sender's instant of sending                 |
//! 40 |       echo: the newest stamp of the receiver by this way (0: none)    |
//! 48 |           held: time since that came in, nanoseconds                  |
//! 56 +-----------------------------------------------------------------------+
//! ```
//!
//! A stamp means something only to whoever made it: its clock is never compared with
//! another. When an echo comes back, the round trip is the time since the stamp, less the
//! time for which it was held (as in NTP, RFC 5905, with one clock on each side).

use crate::overlay::{AT_CHECK, BODY_BYTES_MAX, BodyError, body_check, get_u32, get_u64, put_u32, put_u64};
use insane_core::{HostId, Incarnation, Nanos};

/// Bytes of a body.
pub const LINK_BYTES: usize = 56;

const KIND_LINK: u8 = 5;

const _: () = assert!(LINK_BYTES <= BODY_BYTES_MAX);

/// A heartbeat of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkBeat {
    /// Runtime that sent it.
    pub host: HostId,
    /// Which life of that runtime; not 0.
    pub incarnation: Incarnation,
    /// The receiver's life, as far as the sender knows; 0: unknown.
    pub to: Incarnation,
    /// The sender's instant of sending; not 0.
    pub stamp: u64,
    /// The newest stamp of the receiver that came by this way; 0: none.
    pub echo: u64,
    /// Time since that came in.
    pub held: Nanos,
}

/// Whether a body of an overlay frame is, or pretends to be, a heartbeat of a link.
#[must_use]
pub fn is_link_beat(body: &[u8]) -> bool {
    body.first() == Some(&KIND_LINK)
}

impl LinkBeat {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; LINK_BYTES] {
        let mut bytes = [0; LINK_BYTES];
        bytes[0] = KIND_LINK;
        put_u64(&mut bytes, 8, self.host.0);
        put_u64(&mut bytes, 16, self.incarnation.0);
        put_u64(&mut bytes, 24, self.to.0);
        put_u64(&mut bytes, 32, self.stamp);
        put_u64(&mut bytes, 40, self.echo);
        put_u64(&mut bytes, 48, self.held.0);
        let check = body_check(&bytes);
        put_u32(&mut bytes, AT_CHECK, check);
        bytes
    }

    /// Reads a body and checks every field of it.
    ///
    /// # Errors
    /// Anything that [`LinkBeat::encode`] would not have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, BodyError> {
        if bytes.len() != LINK_BYTES {
            return Err(BodyError::Length);
        }
        if get_u32(bytes, AT_CHECK) != body_check(bytes) {
            return Err(BodyError::Check);
        }
        if bytes[0] != KIND_LINK {
            return Err(BodyError::Unknown);
        }
        let beat = LinkBeat {
            host: HostId(get_u64(bytes, 8)),
            incarnation: Incarnation(get_u64(bytes, 16)),
            to: Incarnation(get_u64(bytes, 24)),
            stamp: get_u64(bytes, 32),
            echo: get_u64(bytes, 40),
            held: Nanos(get_u64(bytes, 48)),
        };
        let in_range = bytes[1..AT_CHECK] == [0; 3] && beat.incarnation.0 != 0 && beat.stamp != 0;
        // Without an echo there is nothing to hold.
        let holds = beat.echo != 0 || beat.held == Nanos::ZERO;
        if in_range && holds { Ok(beat) } else { Err(BodyError::Range) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn beat() -> LinkBeat {
        LinkBeat {
            host: HostId(0x1111),
            incarnation: Incarnation(0x2222),
            to: Incarnation(0x3333),
            stamp: 0x4444,
            echo: 0x5555,
            held: Nanos(0x6666),
        }
    }

    #[test]
    fn the_layout_is_as_drawn() {
        let bytes = beat().encode();
        assert_eq!(bytes[..4], [5, 0, 0, 0]);
        let words: [u64; 6] = std::array::from_fn(|at| get_u64(&bytes, 8 + 8 * at));
        assert_eq!(words, [0x1111, 0x2222, 0x3333, 0x4444, 0x5555, 0x6666]);
        assert!(is_link_beat(&bytes) && !is_link_beat(&[4]) && !is_link_beat(&[]));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for wrong in [
            LinkBeat { incarnation: Incarnation(0), ..beat() },
            LinkBeat { stamp: 0, ..beat() },
            LinkBeat { echo: 0, ..beat() },
        ] {
            assert_eq!(LinkBeat::decode(&wrong.encode()), Err(BodyError::Range));
        }
        assert_eq!(LinkBeat::decode(&beat().encode()[..55]), Err(BodyError::Length));
        // No heartbeat of a link is a body of the overlay, and the other way round.
        assert!(crate::overlay::decode(&beat().encode()).is_err());
    }

    proptest! {
        #[test]
        fn every_beat_survives_the_way(
            host: u64, incarnation in 1..=u64::MAX, to: u64, stamp in 1..=u64::MAX, echo in 1..=u64::MAX, held: u64,
        ) {
            let (host, incarnation, to) = (HostId(host), Incarnation(incarnation), Incarnation(to));
            let beat = LinkBeat { host, incarnation, to, stamp, echo, held: Nanos(held) };
            prop_assert_eq!(LinkBeat::decode(&beat.encode()), Ok(beat));
        }

        #[test]
        fn a_changed_bit_is_noticed(bit in 0..LINK_BYTES * 8) {
            let mut bytes = beat().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(LinkBeat::decode(&bytes).is_err());
        }
    }
}
