//! A word between runtimes: under which schedule of several hosts one is.
//!
//! A body travels as the payload of a frame of [`crate::data::Kind::Overlay`], like those of
//! [`crate::overlay`], of which it is one more kind. It is said again and again, and
//! acknowledged by nobody. It has its own check, and all fields are little-endian:
//!
//! ```text
//!       0        1        2        3        4        5        6        7
//!    +--------+--------+-----------------+-----------------------------------+
//!  0 |  kind  | flags  |        0        |               check               |
//!    +--------+--------+-----------------+-----------------------------------+
//!  8 |                          host of the sender                           |
//! 16 |                 incarnation of the sender, not 0                      |
//! 24 |                 incarnation of the receiver, not 0                    |
//! 32 |            digest of the certificate; 0: under none                   |
//! 40 |     since this instant of TAI; 0: it never was under another          |
//! 48 +-----------------------------------------------------------------------+
//! ```
//! Flags: 1, the sender asks for the receiver's word; 2, the receiver is a host of the
//! sender's schedule.

use crate::overlay::{AT_CHECK, BODY_BYTES_MAX, BodyError, body_check, get_u32, get_u64, put_u32, put_u64};
use insane_core::{HostId, Incarnation, TaiTime};

/// Bytes of a body.
pub const SCHEDULE_BYTES: usize = 48;

const KIND_SCHEDULE: u8 = 9;
const FLAG_ASKS: u8 = 1;
const FLAG_NAMES: u8 = 2;

const _: () = assert!(SCHEDULE_BYTES <= BODY_BYTES_MAX);

/// Under which schedule the sender is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScheduleBody {
    /// Runtime that sent it.
    pub host: HostId,
    /// Which life of that runtime; not 0.
    pub incarnation: Incarnation,
    /// The receiver's life; not 0.
    pub to: Incarnation,
    /// Digest of the certificate; 0: it is under none.
    pub schedule: u64,
    /// Since when.
    pub since: TaiTime,
    /// The receiver is to say the same of itself.
    pub asks: bool,
    /// The receiver is a host of that schedule.
    pub names_receiver: bool,
}

/// Whether a body of an overlay frame is, or pretends to be, such a word.
#[must_use]
pub fn is_schedule(body: &[u8]) -> bool {
    body.first() == Some(&KIND_SCHEDULE)
}

impl ScheduleBody {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; SCHEDULE_BYTES] {
        let mut bytes = [0; SCHEDULE_BYTES];
        bytes[0] = KIND_SCHEDULE;
        bytes[1] = if self.asks { FLAG_ASKS } else { 0 } | if self.names_receiver { FLAG_NAMES } else { 0 };
        put_u64(&mut bytes, 8, self.host.0);
        put_u64(&mut bytes, 16, self.incarnation.0);
        put_u64(&mut bytes, 24, self.to.0);
        put_u64(&mut bytes, 32, self.schedule);
        put_u64(&mut bytes, 40, self.since.0);
        let check = body_check(&bytes);
        put_u32(&mut bytes, AT_CHECK, check);
        bytes
    }

    /// Reads a body and checks every field of it.
    ///
    /// # Errors
    /// Anything that [`ScheduleBody::encode`] would not have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, BodyError> {
        if bytes.len() != SCHEDULE_BYTES {
            return Err(BodyError::Length);
        }
        if get_u32(bytes, AT_CHECK) != body_check(bytes) {
            return Err(BodyError::Check);
        }
        if bytes[0] != KIND_SCHEDULE {
            return Err(BodyError::Unknown);
        }
        let body = ScheduleBody {
            host: HostId(get_u64(bytes, 8)),
            incarnation: Incarnation(get_u64(bytes, 16)),
            to: Incarnation(get_u64(bytes, 24)),
            schedule: get_u64(bytes, 32),
            since: TaiTime(get_u64(bytes, 40)),
            asks: bytes[1] & FLAG_ASKS != 0,
            names_receiver: bytes[1] & FLAG_NAMES != 0,
        };
        let is_padded = bytes[1] & !(FLAG_ASKS | FLAG_NAMES) == 0 && bytes[2..AT_CHECK] == [0; 2];
        let has_lives = body.incarnation.0 != 0 && body.to.0 != 0;
        if is_padded && has_lives { Ok(body) } else { Err(BodyError::Range) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body() -> ScheduleBody {
        ScheduleBody {
            host: HostId(0x1111),
            incarnation: Incarnation(0x2222),
            to: Incarnation(0x3333),
            schedule: 0x4444,
            since: TaiTime(0x5555),
            asks: true,
            names_receiver: true,
        }
    }

    #[test]
    fn it_survives_the_way_and_no_changed_bit_does() {
        for (asks, names_receiver) in [(false, false), (true, false), (false, true), (true, true)] {
            let body = ScheduleBody { asks, names_receiver, ..body() };
            assert_eq!(ScheduleBody::decode(&body.encode()), Ok(body));
        }
        let bytes = body().encode();
        assert!(is_schedule(&bytes) && !is_schedule(&[8]) && !is_schedule(&[]));
        for bit in 0..SCHEDULE_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(ScheduleBody::decode(&flipped).is_err(), "bit {bit}");
        }
        for len in 0..SCHEDULE_BYTES {
            assert_eq!(ScheduleBody::decode(&bytes[..len]), Err(BodyError::Length));
        }
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        for (at, byte) in [(1, 4), (2, 1), (3, 1)] {
            let mut forged = body().encode();
            forged[at] = byte;
            let check = body_check(&forged);
            put_u32(&mut forged, AT_CHECK, check);
            assert_eq!(ScheduleBody::decode(&forged), Err(BodyError::Range), "byte {at}");
        }
        for none in
            [ScheduleBody { incarnation: Incarnation(0), ..body() }, ScheduleBody { to: Incarnation(0), ..body() }]
        {
            assert_eq!(ScheduleBody::decode(&none.encode()), Err(BodyError::Range));
        }
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_and_never_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 44..52), dress: bool) {
            if dress && bytes.len() == SCHEDULE_BYTES {
                bytes[0] = KIND_SCHEDULE;
                let check = body_check(&bytes);
                put_u32(&mut bytes, AT_CHECK, check);
            }
            if let Ok(body) = ScheduleBody::decode(&bytes) {
                prop_assert_eq!(&body.encode()[..], &bytes[..]);
            }
        }
    }
}
