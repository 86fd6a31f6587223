//! A word to the host of a sink: its schema is not that of the sources here.
//!
//! A body travels as the payload of a frame of [`crate::data::Kind::Overlay`], like those of
//! [`crate::overlay`], of which it is one more kind. It is sent again as long as it holds,
//! and acknowledged by nobody: who does not hear it any more forgets it. It has its own
//! check, and all fields are little-endian:
//!
//! ```text
//!       0        1        2        3        4        5        6        7
//!    +--------+--------+-----------------+-----------------------------------+
//!  0 |  kind  |            0             |               check               |
//!    +--------+--------------------------+-----------------------------------+
//!  8 |                          host of the sender                           |
//! 16 |                 incarnation of the sender, not 0                      |
//! 24 |                 incarnation of the receiver, not 0                    |
//! 32 |                              stream key                               |
//! 40 |                         check hash of the stream                      |
//!    +-----------------------------------+-----------------------------------+
//! 48 |              channel              |                 0                 |
//!    +-----------------------------------+-----------------------------------+
//! 56 |                       hash of the sources' schema                     |
//! 64 |  name of the schema, 32 bytes of UTF-8, filled up with zeros          |
//! 96 +-----------------------------------------------------------------------+
//! ```

use crate::overlay::{AT_CHECK, BODY_BYTES_MAX, BodyError, body_check, get_u32, get_u64, put_u32, put_u64};
use insane_core::limits::SCHEMA_NAME_BYTES_MAX;
use insane_core::{ChannelId, HostId, Incarnation, Schema, StreamKey};

/// Bytes of a body.
pub const REFUSAL_BYTES: usize = 96;

const KIND_REFUSAL: u8 = 7;
const NAME_AT: usize = 64;

const _: () = assert!(REFUSAL_BYTES <= BODY_BYTES_MAX && NAME_AT + SCHEMA_NAME_BYTES_MAX == REFUSAL_BYTES);

/// The sender's sources on a channel send nothing to the receiver's sinks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Runtime that sent it.
    pub host: HostId,
    /// Which life of that runtime; not 0.
    pub incarnation: Incarnation,
    /// The receiver's life; not 0.
    pub to: Incarnation,
    /// The stream's wire name.
    pub stream: StreamKey,
    /// The second hash of the stream's name.
    pub check: u64,
    /// The channel.
    pub channel: ChannelId,
    /// What the sources' messages are.
    pub schema: Schema,
}

/// Whether a body of an overlay frame is, or pretends to be, a refusal.
#[must_use]
pub fn is_refusal(body: &[u8]) -> bool {
    body.first() == Some(&KIND_REFUSAL)
}

impl Refusal {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; REFUSAL_BYTES] {
        let mut bytes = [0; REFUSAL_BYTES];
        bytes[0] = KIND_REFUSAL;
        put_u64(&mut bytes, 8, self.host.0);
        put_u64(&mut bytes, 16, self.incarnation.0);
        put_u64(&mut bytes, 24, self.to.0);
        put_u64(&mut bytes, 32, self.stream.0);
        put_u64(&mut bytes, 40, self.check);
        put_u32(&mut bytes, 48, self.channel.0);
        let (hash, name) = self.schema.to_parts();
        put_u64(&mut bytes, 56, hash);
        bytes[NAME_AT..].copy_from_slice(&name);
        let check = body_check(&bytes);
        put_u32(&mut bytes, AT_CHECK, check);
        bytes
    }

    /// Reads a body and checks every field of it.
    ///
    /// # Errors
    /// Anything that [`Refusal::encode`] would not have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, BodyError> {
        if bytes.len() != REFUSAL_BYTES {
            return Err(BodyError::Length);
        }
        if get_u32(bytes, AT_CHECK) != body_check(bytes) {
            return Err(BodyError::Check);
        }
        if bytes[0] != KIND_REFUSAL {
            return Err(BodyError::Unknown);
        }
        let mut name = [0; SCHEMA_NAME_BYTES_MAX];
        name.copy_from_slice(&bytes[NAME_AT..]);
        let schema = Schema::from_parts(get_u64(bytes, 56), name).ok_or(BodyError::Range)?;
        let refusal = Refusal {
            host: HostId(get_u64(bytes, 8)),
            incarnation: Incarnation(get_u64(bytes, 16)),
            to: Incarnation(get_u64(bytes, 24)),
            stream: StreamKey(get_u64(bytes, 32)),
            check: get_u64(bytes, 40),
            channel: ChannelId(get_u32(bytes, 48)),
            schema,
        };
        let is_padded = bytes[1..AT_CHECK] == [0; 3] && get_u32(bytes, 52) == 0;
        let has_lives = refusal.incarnation.0 != 0 && refusal.to.0 != 0;
        if is_padded && has_lives { Ok(refusal) } else { Err(BodyError::Range) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refusal() -> Refusal {
        Refusal {
            host: HostId(0x1111),
            incarnation: Incarnation(0x2222),
            to: Incarnation(0x3333),
            stream: StreamKey(0x4444),
            check: 0x5555,
            channel: ChannelId(0x6666),
            schema: Schema::new("axis v1", 0x7777).unwrap(),
        }
    }

    #[test]
    fn it_survives_the_way_and_no_changed_byte_does() {
        let bytes = refusal().encode();
        assert_eq!(Refusal::decode(&bytes), Ok(refusal()));
        assert!(is_refusal(&bytes) && !is_refusal(&[6]) && !is_refusal(&[]));
        for bit in 0..REFUSAL_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Refusal::decode(&flipped).is_err(), "bit {bit}");
        }
        for len in 0..REFUSAL_BYTES {
            assert_eq!(Refusal::decode(&bytes[..len]), Err(BodyError::Length));
        }
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        for (at, byte) in [(1, 1), (52, 1), (NAME_AT, 0xff), (NAME_AT + 20, b'a')] {
            let mut forged = refusal().encode();
            forged[at] = byte;
            let check = body_check(&forged);
            put_u32(&mut forged, AT_CHECK, check);
            assert_eq!(Refusal::decode(&forged), Err(BodyError::Range), "byte {at}");
        }
        for none in [Refusal { incarnation: Incarnation(0), ..refusal() }, Refusal { to: Incarnation(0), ..refusal() }]
        {
            assert_eq!(Refusal::decode(&none.encode()), Err(BodyError::Range));
        }
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_and_never_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 90..100), dress: bool) {
            if dress {
                bytes[0] = KIND_REFUSAL;
                let check = body_check(&bytes);
                put_u32(&mut bytes, AT_CHECK, check);
            }
            if let Ok(refusal) = Refusal::decode(&bytes) {
                prop_assert_eq!(&refusal.encode()[..], &bytes[..]);
            }
        }
    }
}
