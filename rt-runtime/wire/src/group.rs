//! Who hears a group: a probe that a runtime sends to the group of a link, and the answer of
//! each peer that it reaches, to the prober alone.
//!
//! A body travels as the payload of a frame of [`crate::data::Kind::Overlay`], like those of
//! [`crate::overlay`], of which it is one more kind. It has its own check, and all fields
//! are little-endian:
//!
//! ```text
//!       0        1        2        3        4        5        6        7
//!    +--------+--------+-----------------+-----------------------------------+
//!  0 |  kind  |  what  |        0        |               check               |
//!    +--------+--------+-----------------+-----------------------------------+
//!  8 |                          host of the sender                           |
//! 16 |                 incarnation of the sender, not 0                      |
//! 24 |    answer: incarnation of the prober, not 0; probe: 0 (for all)       |
//! 32 |          number of the probe, or of the one answered, not 0           |
//! 40 +-----------------------------------------------------------------------+
//!
//!    what: 1 probe, 2 answer
//! ```

use crate::overlay::{AT_CHECK, BODY_BYTES_MAX, BodyError, body_check, get_u32, get_u64, put_u32, put_u64};
use insane_core::{HostId, Incarnation};
use insane_mutation::mutate;

/// Bytes of a body.
pub const GROUP_BYTES: usize = 40;

const KIND_GROUP: u8 = 8;
const WHAT_PROBE: u8 = 1;
const WHAT_ANSWER: u8 = 2;

const _: () = assert!(GROUP_BYTES <= BODY_BYTES_MAX);

/// A probe, or an answer to one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupBody {
    /// Runtime that sent it.
    pub host: HostId,
    /// Which life of that runtime; not 0.
    pub incarnation: Incarnation,
    /// The prober's life, in an answer; not 0. `None`: this is a probe.
    pub to: Option<Incarnation>,
    /// The probe's number; not 0.
    pub number: u64,
}

/// Whether a body of an overlay frame is, or pretends to be, one of these.
#[must_use]
pub fn is_group(body: &[u8]) -> bool {
    body.first() == Some(&KIND_GROUP)
}

impl GroupBody {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; GROUP_BYTES] {
        let mut bytes = [0; GROUP_BYTES];
        bytes[0] = KIND_GROUP;
        bytes[1] = if self.to.is_none() { WHAT_PROBE } else { WHAT_ANSWER };
        put_u64(&mut bytes, 8, self.host.0);
        put_u64(&mut bytes, 16, self.incarnation.0);
        put_u64(&mut bytes, 24, self.to.map_or(0, |to| to.0));
        put_u64(&mut bytes, 32, self.number);
        let check = body_check(&bytes);
        put_u32(&mut bytes, AT_CHECK, check);
        bytes
    }

    /// Reads a body and checks every field of it.
    ///
    /// # Errors
    /// Anything that [`GroupBody::encode`] would not have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, BodyError> {
        if bytes.len() != GROUP_BYTES {
            return Err(BodyError::Length);
        }
        if get_u32(bytes, AT_CHECK) != body_check(bytes) {
            return Err(BodyError::Check);
        }
        if bytes[0] != KIND_GROUP {
            return Err(BodyError::Unknown);
        }
        let to = match (bytes[1], get_u64(bytes, 24)) {
            (WHAT_PROBE, 0) => None,
            (WHAT_ANSWER, to) if to != 0 => Some(Incarnation(to)),
            _ => return Err(BodyError::Range),
        };
        let (host, incarnation) = (HostId(get_u64(bytes, 8)), Incarnation(get_u64(bytes, 16)));
        let number = get_u64(bytes, 32);
        let in_range = bytes[2..AT_CHECK] == [0; 2] && mutate!(ProbeOfNobody, incarnation.0 != 0, true) && number != 0;
        if in_range { Ok(GroupBody { host, incarnation, to, number }) } else { Err(BodyError::Range) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer() -> GroupBody {
        GroupBody {
            host: HostId(0x1111),
            incarnation: Incarnation(0x2222),
            to: Some(Incarnation(0x3333)),
            number: 0x4444,
        }
    }

    #[test]
    fn the_layout_is_as_drawn() {
        let bytes = answer().encode();
        assert_eq!(bytes[..4], [8, 2, 0, 0]);
        let words: [u64; 4] = std::array::from_fn(|at| get_u64(&bytes, 8 + 8 * at));
        assert_eq!(words, [0x1111, 0x2222, 0x3333, 0x4444]);
        assert_eq!(GroupBody { to: None, ..answer() }.encode()[..4], [8, 1, 0, 0]);
        assert!(is_group(&bytes) && !is_group(&[5]) && !is_group(&[]));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for wrong in [
            GroupBody { incarnation: Incarnation(0), ..answer() },
            GroupBody { to: Some(Incarnation(0)), ..answer() },
            GroupBody { number: 0, ..answer() },
        ] {
            assert_eq!(GroupBody::decode(&wrong.encode()), Err(BodyError::Range));
        }
        assert_eq!(GroupBody::decode(&answer().encode()[..39]), Err(BodyError::Length));
        // A probe for one alone.
        let mut probe = answer().encode();
        probe[1] = WHAT_PROBE;
        let check = body_check(&probe);
        put_u32(&mut probe, AT_CHECK, check);
        assert_eq!(GroupBody::decode(&probe), Err(BodyError::Range));
        assert!(crate::overlay::decode(&answer().encode()).is_err());
        assert!(crate::link::LinkBeat::decode(&answer().encode()).is_err());
    }

    proptest! {
        #[test]
        fn every_body_survives_the_way(
            host: u64, incarnation in 1..=u64::MAX, to in proptest::option::of(1..=u64::MAX), number in 1..=u64::MAX,
        ) {
            let to = to.map(Incarnation);
            let body = GroupBody { host: HostId(host), incarnation: Incarnation(incarnation), to, number };
            prop_assert_eq!(GroupBody::decode(&body.encode()), Ok(body));
        }

        #[test]
        fn a_changed_bit_is_noticed(bit in 0..GROUP_BYTES * 8) {
            let mut bytes = answer().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(GroupBody::decode(&bytes).is_err());
        }
    }
}
