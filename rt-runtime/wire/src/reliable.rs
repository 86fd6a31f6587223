//! Reports on a reliable flow: what its sender offers, what its receiver has.
//!
//! A body travels as the payload of a frame of [`crate::data::Kind::Reliable`], whose
//! header names the runtime that sent the report and the flow (stream, channel, source).
//! All fields are little-endian. Both bodies have one layout:
//!
//! ```text
//!       0        1        2        3        4        5        6        7
//!    +--------+--------+--------+--------+--------+--------+--------+--------+
//!  0 |  body  | flags  |        0        |               check               |
//!    +--------+--------+-----------------+-----------------------------------+
//!  8 |                                 token                                 |
//!    +-----------------------------------------------------------------------+
//! 16 |        sync: base                       ack: next, its message        |
//!    +-----------------------------------------------------------------------+
//! 24 |        sync: sent, its message          ack: limit                    |
//!    +-----------------------------------------------------------------------+
//! 32 |        sync: past                       ack: life                     |
//!    +-----------------------------------+-----------------------------------+
//! 40 | offset (sync: of sent, ack: next) |               recap               |
//!    +-----------------------------------+-----------------------------------+
//! 48 |                                   0                                   |
//!    +-----------------------------------------------------------------------+
//! 56 |                                   0                                   |
//!    +-----------------------------------------------------------------------+
//! ```
//!
//! A *recap* is a part of a flow of its own, for sinks that joined a host later than others:
//! the last messages that those had already. Recap 0 is the flow itself.
//!
//! The check is that of the data header, over these 64 bytes: a wrong acknowledgement
//! would free a message that nobody else holds.

use crate::data::{AT_CHECK, FRAGMENT_UNIT, HEADER_BYTES, get_u32, get_u64, header_check, put_u32, put_u64};
use insane_core::Incarnation;
use insane_mutation::mutate;

/// Bytes of a body.
pub const BODY_BYTES: usize = HEADER_BYTES;

const SYNC: u8 = 1;
const ACK: u8 = 2;
const FRESH: u8 = 1;
const KEEPS: u8 = 2;
const NAK: u8 = 1;
const GONE: u8 = 2;

const AT_TOKEN: usize = 8;
const AT_FIRST: usize = 16;
const AT_SECOND: usize = 24;
const AT_LIFE: usize = 32;
const AT_OFFSET: usize = 40;
const AT_RECAP: usize = 44;
const AT_ZERO: usize = 48;

const _: () = assert!(AT_ZERO + 16 == BODY_BYTES);

/// A place in a flow: everything before it, nothing from it on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position {
    /// The message.
    pub sequence: u64,
    /// Bytes into it; a multiple of [`FRAGMENT_UNIT`].
    pub offset: u32,
}

impl Position {
    /// Before the first byte of a message.
    #[must_use]
    pub const fn start_of(sequence: u64) -> Self {
        Position { sequence, offset: 0 }
    }
}

/// Sender to receiver: what it offers. Repeated until it is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sync {
    /// The sender's name for the flow; the receiver repeats it.
    pub token: u64,
    /// The first message that this receiver can still get.
    pub base: u64,
    /// Up to where it was sent: a receiver that has less has lost the rest.
    pub sent: Position,
    /// The receiver was not a member before `base`: what it lacks before is no loss.
    pub fresh: bool,
    /// The source keeps its last values: sinks that join the flow later get a recap.
    pub keeps: bool,
    /// The recap that this is about, or 0. Their numbers rise.
    pub recap: u32,
    /// Messages before this one were emitted before those joined who get the recap; without
    /// one 0.
    pub past: u64,
}

/// Receiver to sender: what it has, and what it would take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack {
    /// As in [`Sync`].
    pub token: u64,
    /// Which life of the sender's runtime this is about.
    pub life: Incarnation,
    /// Everything before it arrived and was handed on.
    pub next: Position,
    /// Messages before this one may be sent.
    pub limit: u64,
    /// What follows `next` was lost or had to be dropped: send again from there.
    pub nak: bool,
    /// Nobody listens here any more.
    pub gone: bool,
    /// As in [`Sync`]; a recap that is gone is over.
    pub recap: u32,
}

/// A report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    /// Of the sender.
    Sync(Sync),
    /// Of a receiver.
    Ack(Ack),
}

/// Why a report was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BodyError {
    /// Not of the size of a report.
    #[error("a report has {BODY_BYTES} bytes")]
    Size,
    /// It was changed on its way.
    #[error("the report does not match its check")]
    Check,
    /// A body or flag that this version does not know, or a position that cannot be.
    #[error("the report holds what its version does not know")]
    Unknown,
}

impl Body {
    /// The bytes of the report.
    #[must_use]
    pub fn encode(&self) -> [u8; BODY_BYTES] {
        let mut bytes = [0; BODY_BYTES];
        let (tag, flags, token, first, second, life, offset, recap) = match self {
            Body::Sync(sync) => {
                let flags = (u8::from(sync.fresh) * FRESH) | (u8::from(sync.keeps) * KEEPS);
                (SYNC, flags, sync.token, sync.base, sync.sent.sequence, sync.past, sync.sent.offset, sync.recap)
            }
            Body::Ack(ack) => {
                let flags = (u8::from(ack.nak) * NAK) | (u8::from(ack.gone) * GONE);
                (ACK, flags, ack.token, ack.next.sequence, ack.limit, ack.life.0, ack.next.offset, ack.recap)
            }
        };
        (bytes[0], bytes[1]) = (tag, flags);
        put_u64(&mut bytes, AT_TOKEN, token);
        put_u64(&mut bytes, AT_FIRST, first);
        put_u64(&mut bytes, AT_SECOND, second);
        put_u64(&mut bytes, AT_LIFE, life);
        put_u32(&mut bytes, AT_OFFSET, offset);
        put_u32(&mut bytes, AT_RECAP, recap);
        let check = header_check(&bytes);
        put_u32(&mut bytes, AT_CHECK, check);
        bytes
    }

    /// Reads a report and checks every field of it.
    ///
    /// # Errors
    /// Anything that [`Body::encode`] would not have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, BodyError> {
        let bytes: &[u8; BODY_BYTES] = bytes.try_into().map_err(|_| BodyError::Size)?;
        if get_u32(bytes, AT_CHECK) != header_check(bytes) {
            return Err(BodyError::Check);
        }
        let (token, first, second) = (get_u64(bytes, AT_TOKEN), get_u64(bytes, AT_FIRST), get_u64(bytes, AT_SECOND));
        let (life, offset) = (get_u64(bytes, AT_LIFE), get_u32(bytes, AT_OFFSET));
        let recap = get_u32(bytes, AT_RECAP);
        let is_blank = bytes[2..4].iter().chain(&bytes[AT_ZERO..]).all(|byte| *byte == 0);
        if !mutate!(ReportNotBlank, is_blank, true) || !offset.is_multiple_of(FRAGMENT_UNIT) {
            return Err(BodyError::Unknown);
        }
        match (bytes[0], bytes[1]) {
            (SYNC, flags @ 0..=3) if recap > 0 || life == 0 => {
                let sent = Position { sequence: second, offset };
                let (fresh, keeps) = (flags & FRESH != 0, flags & KEEPS != 0);
                Ok(Body::Sync(Sync { token, base: first, sent, fresh, keeps, recap, past: life }))
            }
            (ACK, flags @ 0..=3) => {
                let next = Position { sequence: first, offset };
                let (nak, gone) = (flags & NAK != 0, flags & GONE != 0);
                Ok(Body::Ack(Ack { token, life: Incarnation(life), next, limit: second, nak, gone, recap }))
            }
            _ => Err(BodyError::Unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn any_body()(
            sync: bool, token: u64, first: u64, second: u64, life: u64, units in 0..1_000_000_u32, a: bool, b: bool,
            recap: u32,
        ) -> Body {
            let offset = units * FRAGMENT_UNIT;
            if sync {
                Body::Sync(Sync { token, base: first, sent: Position { sequence: second, offset }, fresh: a, keeps: b, recap, past: if recap > 0 { life } else { 0 } })
            } else {
                let next = Position { sequence: first, offset };
                Body::Ack(Ack { token, life: Incarnation(life), next, limit: second, nak: a, gone: b, recap })
            }
        }
    }

    /// The bytes of version 1, written out: a change of layout must not pass unseen.
    #[test]
    fn the_layout_is_the_documented_one() {
        let next = Position { sequence: 0x2222, offset: 0x1240 };
        let ack =
            Ack { token: 0x1111, life: Incarnation(0x4444), next, limit: 0x3333, nak: false, gone: true, recap: 0x77 };
        let bytes = Body::Ack(ack).encode();
        assert_eq!(bytes[..4], [2, 2, 0, 0]);
        let words: [u64; 7] = std::array::from_fn(|i| get_u64(&bytes, 8 + 8 * i));
        assert_eq!(words, [0x1111, 0x2222, 0x3333, 0x4444, 0x77_0000_1240, 0, 0]);
        let sent = Position { sequence: 0x3333, offset: 64 };
        let bytes =
            Body::Sync(Sync { token: 0x1111, base: 0x2222, sent, fresh: true, keeps: true, recap: 5, past: 0x5555 })
                .encode();
        assert_eq!(bytes[..4], [1, 3, 0, 0]);
        let words: [u64; 7] = std::array::from_fn(|i| get_u64(&bytes, 8 + 8 * i));
        assert_eq!(words, [0x1111, 0x2222, 0x3333, 0x5555, 0x5_0000_0040, 0, 0]);
    }

    proptest! {
        #[test]
        fn every_report_survives_the_way(body in any_body()) {
            prop_assert_eq!(Body::decode(&body.encode()), Ok(body));
        }

        #[test]
        fn every_flipped_bit_is_noticed(body in any_body()) {
            for bit in 0..BODY_BYTES * 8 {
                let mut flipped = body.encode();
                flipped[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(Body::decode(&flipped).is_err(), "bit {}", bit);
            }
        }

        #[test]
        fn what_is_read_is_what_would_be_written(mut bytes: [u8; 32], tag in 0..4_u8, flags in 0..5_u8, sparse: bool) {
            if sparse {
                bytes[2..4].fill(0);
            }
            let mut body = [0; BODY_BYTES];
            body[..32].copy_from_slice(&bytes);
            (body[0], body[1]) = (tag, flags);
            let check = header_check(&body);
            put_u32(&mut body, AT_CHECK, check);
            if let Ok(read) = Body::decode(&body) {
                prop_assert_eq!(read.encode(), body);
            }
        }
    }

    #[test]
    fn another_size_is_no_report() {
        for len in [0, 1, 63, 65, 128] {
            assert_eq!(Body::decode(&vec![0; len]), Err(BodyError::Size));
        }
    }
}
