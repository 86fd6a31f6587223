//! Bodies of overlay frames: what runtimes tell each other about interest and liveness.
//!
//! A body travels as the payload of a frame of [`crate::data::Kind::Overlay`]. It names
//! its sender itself and carries its own check, so that the control plane needs nothing
//! but the body. All fields are little-endian:
//!
//! ```text
//!       0        1        2        3        4        5        6        7
//!    +--------+--------+-----------------+-----------------------------------+
//!  0 |  kind  | flags  |     changes     |               check               |
//!    +--------+--------+-----------------+-----------------------------------+
//!  8 |                          host of the sender                           |
//! 16 |                 incarnation of the sender, not 0                      |
//! 24 |       incarnation of the receiver, as far as known (0: unknown)       |
//! 32 |                  version of the sender's interests                    |
//! 40 |        version of the receiver's interests that is applied here       |
//!    +-----------------------------------+-----------------------------------+
//! 48 |              serves               |              follows              |
//!    +-----------------------------------+-----------------------------------+
//! 56 |  heartbeat: end.   digest: hash.     delta: base version              |
//! 64 |                    digest: count.    delta: version reached           |
//! 72 |                    digest: end.      delta: changes, 64 bytes each    |
//!    +-----------------------------------------------------------------------+
//!
//!    one change:
//!    +-----------------------------------------------------------------------+
//!  0 |                              stream key                               |
//!  8 |                         check hash of the stream                      |
//!    +-----------------------------------+-----------------------------------+
//! 16 |              channel              |  joins * 2, + 1: JOIN, + 0: LEAVE |
//!    +-----------------------------------+-----------------------------------+
//! 24 |                        hash of the sinks' schema                      |
//! 32 |  name of the schema, 32 bytes of UTF-8, filled up with zeros;         |
//!    |  all zeros, and the hash, too: the sinks name no schema               |
//! 64 +-----------------------------------------------------------------------+
//! ```
//!
//! A delta is kind 6. Kind 3 was a delta whose changes knew no schemas, kind 4 one whose
//! changes knew no joins; they are refused. Kind 5 is in [`crate::link`], kind 7 in
//! [`crate::refusal`].
//!
//! Every body is a heartbeat and an acknowledgement, whatever else it is. *Follows* is
//! the number of the sender's present attempt to copy the receiver's interests, and
//! *serves* is the receiver's number for the attempt that the sender answers. Changes
//! count only in the attempt they were sent for; a new number asks for the whole set.

use insane_core::limits::SCHEMA_NAME_BYTES_MAX;
use insane_core::{ChannelId, HostId, Incarnation, Schema, StreamKey};
use insane_mutation::mutate;

/// Largest number of joins; the one before the first is 0.
pub const JOINS_MAX: u32 = u32::MAX >> 1;
/// Most changes in one body.
pub const CHANGES_MAX: usize = 16;
/// Largest body, bytes. With the data header, IPv6 and UDP it stays below 1280 bytes,
/// which every path carries.
pub const BODY_BYTES_MAX: usize = DELTA_BYTES + CHANGES_MAX * CHANGE_BYTES;

const HEAD_BYTES: usize = 56;
const DIGEST_BYTES: usize = 72;
const DELTA_BYTES: usize = 72;
const CHANGE_BYTES: usize = 64;
const SCHEMA_AT: usize = 24;
const SCHEMA_NAME_AT: usize = 32;

const _: () = assert!(SCHEMA_NAME_AT + SCHEMA_NAME_BYTES_MAX == CHANGE_BYTES);

const _: () = assert!(BODY_BYTES_MAX + crate::data::HEADER_BYTES + 48 <= 1280);

const KIND_HEARTBEAT: u8 = 1;
const KIND_DIGEST: u8 = 2;
/// Kind of a body that is a delta.
pub const KIND_DELTA: u8 = 6;
const FLAG_RESTART: u8 = 1;

pub(crate) const AT_CHECK: usize = 4;

/// A sink's wish for the messages of one channel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Interest {
    /// The stream's wire name.
    pub stream: StreamKey,
    /// The second hash of the stream's name: two streams are the same only if both agree.
    pub check: u64,
    /// The channel.
    pub channel: ChannelId,
    /// What messages the sinks expect, if they say so.
    pub schema: Option<Schema>,
    /// Another number whenever one of the sinks has joined, at most [`JOINS_MAX`]: sources
    /// that keep the past send it then.
    pub joins: u32,
}

/// JOIN or LEAVE.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Change {
    /// Whose.
    pub interest: Interest,
    /// Whether the interest is there (JOIN) or no longer (LEAVE).
    pub on: bool,
}

/// What every body says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Runtime that sent it.
    pub host: HostId,
    /// Which life of that runtime; not 0.
    pub incarnation: Incarnation,
    /// The receiver's life, as far as the sender knows; 0: unknown.
    pub to: Incarnation,
    /// Version of the sender's interests.
    pub version: u64,
    /// Version of the receiver's interests that the sender has applied, in the attempt `follows`.
    pub applied: u64,
    /// The receiver's number for its attempt to copy the sender's interests; 0: not heard of.
    pub serves: u32,
    /// The sender's number for its attempt to copy the receiver's interests; 0: none.
    pub follows: u32,
    /// The sender asks the receiver to give up the attempt `serves` and begin a new one.
    pub restart: bool,
}

/// A fingerprint of the sender's interests at `Head::version`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Digest {
    /// Sum of the [`Interest::fingerprint`]s, wrapping.
    pub hash: u64,
    /// How many there are.
    pub count: u64,
}

/// What a body is, beside a heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body<'a> {
    /// Nothing else.
    Heartbeat,
    /// A fingerprint to compare with.
    Digest(Digest),
    /// All that changed from version `base` (excluded) to version `to` (included), as it
    /// stands now.
    Delta {
        /// Version before the first change.
        base: u64,
        /// Version behind the last change.
        to: u64,
        /// At most [`CHANGES_MAX`].
        changes: Changes<'a>,
    },
}

/// The changes in a received body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Changes<'a>(&'a [[u8; CHANGE_BYTES]]);

/// Why a body was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BodyError {
    /// The length is not what the kind and the number of changes ask for.
    #[error("the overlay frame has the wrong length")]
    Length,
    /// Changed on its way.
    #[error("the overlay frame does not match its check")]
    Check,
    /// A kind or flag that this version does not know.
    #[error("the overlay frame holds a kind or flag that is not known")]
    Unknown,
    /// A field out of its range.
    #[error("a field of the overlay frame is out of range")]
    Range,
}

impl Interest {
    /// A number that depends on every bit of the interest.
    #[must_use]
    pub const fn fingerprint(&self) -> u64 {
        let ends = self.channel.0 as u64 | (self.joins as u64) << u32::BITS;
        let topic = mix(mix(mix(self.stream.0) ^ self.check) ^ ends);
        let Some(schema) = self.schema else { return topic };
        let (hash, name) = schema.to_parts();
        let mut print = mix(topic ^ hash);
        let (words, _) = name.as_chunks::<8>();
        let mut at = 0;
        while at < words.len() {
            print = mix(print ^ u64::from_le_bytes(words[at]));
            at += 1;
        }
        print
    }
}

impl<'a> Changes<'a> {
    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = Change> + use<'a> {
        self.0.iter().map(|bytes| Change {
            interest: Interest {
                stream: StreamKey(get_u64(bytes, 0)),
                check: get_u64(bytes, 8),
                channel: ChannelId(get_u32(bytes, 16)),
                schema: get_schema(bytes).flatten(),
                joins: get_u32(bytes, 20) >> 1,
            },
            on: bytes[20] & 1 == 1,
        })
    }
}

/// Writes a heartbeat. Returns its length.
pub fn encode_heartbeat(head: &Head, into: &mut [u8; BODY_BYTES_MAX]) -> usize {
    finish(head, KIND_HEARTBEAT, 0, HEAD_BYTES, into)
}

/// Writes a digest. Returns its length.
pub fn encode_digest(head: &Head, digest: Digest, into: &mut [u8; BODY_BYTES_MAX]) -> usize {
    put_u64(into, HEAD_BYTES, digest.hash);
    put_u64(into, HEAD_BYTES + 8, digest.count);
    finish(head, KIND_DIGEST, 0, DIGEST_BYTES, into)
}

/// Writes a delta; of `changes` it takes at most [`CHANGES_MAX`]. Returns its length.
pub fn encode_delta(
    head: &Head,
    base: u64,
    to: u64,
    changes: impl Iterator<Item = Change>,
    into: &mut [u8; BODY_BYTES_MAX],
) -> usize {
    put_u64(into, HEAD_BYTES, base);
    put_u64(into, HEAD_BYTES + 8, to);
    let mut count = 0;
    for change in changes.take(CHANGES_MAX) {
        let at = DELTA_BYTES + count * CHANGE_BYTES;
        put_u64(into, at, change.interest.stream.0);
        put_u64(into, at + 8, change.interest.check);
        put_u32(into, at + 16, change.interest.channel.0);
        put_u32(into, at + 20, (change.interest.joins & JOINS_MAX) << 1 | u32::from(change.on));
        let (hash, name) = change.interest.schema.map_or((0, [0; SCHEMA_NAME_BYTES_MAX]), |schema| schema.to_parts());
        put_u64(into, at + SCHEMA_AT, hash);
        into[at + SCHEMA_NAME_AT..at + CHANGE_BYTES].copy_from_slice(&name);
        count += 1;
    }
    finish(head, KIND_DELTA, count as u16, DELTA_BYTES + count * CHANGE_BYTES, into)
}

/// Reads a body and checks every field of it.
///
/// # Errors
/// Anything that the functions of this module would not have written.
pub fn decode(bytes: &[u8]) -> Result<(Head, Body<'_>), BodyError> {
    if bytes.len() < HEAD_BYTES || bytes.len() > BODY_BYTES_MAX {
        return Err(BodyError::Length);
    }
    if get_u32(bytes, AT_CHECK) != body_check(bytes) {
        return Err(BodyError::Check);
    }
    if bytes[1] & !FLAG_RESTART != 0 {
        return Err(BodyError::Unknown);
    }
    let head = Head {
        host: HostId(get_u64(bytes, 8)),
        incarnation: Incarnation(get_u64(bytes, 16)),
        to: Incarnation(get_u64(bytes, 24)),
        version: get_u64(bytes, 32),
        applied: get_u64(bytes, 40),
        serves: get_u32(bytes, 48),
        follows: get_u32(bytes, 52),
        restart: bytes[1] & FLAG_RESTART != 0,
    };
    if head.incarnation.0 == 0 {
        return Err(BodyError::Range);
    }
    let count = usize::from(u16::from_le_bytes([bytes[2], bytes[3]]));
    let body = match (bytes[0], count) {
        (KIND_HEARTBEAT, 0) if bytes.len() == HEAD_BYTES => Body::Heartbeat,
        (KIND_DIGEST, 0) if bytes.len() == DIGEST_BYTES => {
            Body::Digest(Digest { hash: get_u64(bytes, HEAD_BYTES), count: get_u64(bytes, HEAD_BYTES + 8) })
        }
        (KIND_DELTA, _) if bytes.len() == DELTA_BYTES + count * CHANGE_BYTES => decode_delta(&head, bytes)?,
        (KIND_HEARTBEAT | KIND_DIGEST | KIND_DELTA, _) => return Err(BodyError::Length),
        _ => return Err(BodyError::Unknown),
    };
    Ok((head, body))
}

fn decode_delta<'a>(head: &Head, bytes: &'a [u8]) -> Result<Body<'a>, BodyError> {
    let (base, to) = (get_u64(bytes, HEAD_BYTES), get_u64(bytes, HEAD_BYTES + 8));
    let (changes, _) = bytes[DELTA_BYTES..].as_chunks::<CHANGE_BYTES>();
    let schemas_known = changes.iter().all(|change| get_schema(change).is_some());
    // Every change has a version of its own, so there are no more changes than versions.
    let are_too_many = mutate!(MoreChangesThanVersions, base <= to && changes.len() as u64 > to - base, false);
    if base > to || to > head.version || are_too_many || !schemas_known {
        return Err(BodyError::Range);
    }
    Ok(Body::Delta { base, to, changes: Changes(changes) })
}

/// The schema of a change; `None`: what stands there is none.
fn get_schema(change: &[u8; CHANGE_BYTES]) -> Option<Option<Schema>> {
    let hash = get_u64(change, SCHEMA_AT);
    let mut name = [0; SCHEMA_NAME_BYTES_MAX];
    name.copy_from_slice(&change[SCHEMA_NAME_AT..]);
    if hash == 0 && name == [0; SCHEMA_NAME_BYTES_MAX] {
        return Some(None);
    }
    Schema::from_parts(hash, name).map(Some)
}

fn finish(head: &Head, kind: u8, count: u16, len: usize, into: &mut [u8; BODY_BYTES_MAX]) -> usize {
    into[0] = kind;
    into[1] = if head.restart { FLAG_RESTART } else { 0 };
    into[2..4].copy_from_slice(&count.to_le_bytes());
    put_u64(into, 8, head.host.0);
    put_u64(into, 16, head.incarnation.0);
    put_u64(into, 24, head.to.0);
    put_u64(into, 32, head.version);
    put_u64(into, 40, head.applied);
    put_u32(into, 48, head.serves);
    put_u32(into, 52, head.follows);
    let check = body_check(&into[..len]);
    put_u32(into, AT_CHECK, check);
    len
}

/// Puts the right check into a body of any kind: for tests of what becomes of bytes that no
/// encoder wrote. Too few bytes stay as they are.
#[doc(hidden)]
pub fn seal(body: &mut [u8]) {
    if body.len() >= AT_CHECK + 4 {
        let check = body_check(body);
        put_u32(body, AT_CHECK, check);
    }
}

/// FNV-1a (64 bit) over all bytes but the check's own, folded to 32 bits.
pub(crate) fn body_check(bytes: &[u8]) -> u32 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes[..AT_CHECK].iter().chain(&bytes[AT_CHECK + 4..]) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (hash ^ hash >> 32) as u32
}

/// The output function of splitmix64: a bijection in which every bit of the input
/// moves about half of the output.
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

pub(crate) fn get_u64(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn any_head()(
            host: u64, incarnation in 1..=u64::MAX, to: u64, version: u64, applied: u64, serves: u32, follows: u32,
            restart: bool,
        ) -> Head {
            let (incarnation, to) = (Incarnation(incarnation), Incarnation(to));
            Head { host: HostId(host), incarnation, to, version, applied, serves, follows, restart }
        }
    }

    prop_compose! {
        fn any_change()(
            stream: u64, check: u64, channel: u32, joins in 0..=JOINS_MAX, on: bool, schema in prop::option::of(("[a-zäü ]{1,16}", any::<u64>())),
        ) -> Change {
            let schema = schema.map(|(name, hash)| Schema::new(&name, hash).unwrap());
            let interest = Interest { stream: StreamKey(stream), check, channel: ChannelId(channel), schema, joins };
            Change { interest, on }
        }
    }

    proptest! {
        #[test]
        fn every_body_survives_the_way(
            head in any_head(), hash: u64, count: u64, changes in prop::collection::vec(any_change(), 0..60), to: u64,
        ) {
            let mut bytes = [0xee; BODY_BYTES_MAX];
            let len = encode_heartbeat(&head, &mut bytes);
            prop_assert_eq!(decode(&bytes[..len]), Ok((head, Body::Heartbeat)));

            let digest = Digest { hash, count };
            let len = encode_digest(&head, digest, &mut bytes);
            prop_assert_eq!(decode(&bytes[..len]), Ok((head, Body::Digest(digest))));

            let fit = changes.len().min(CHANGES_MAX);
            let (base, to) = (to % 1000, to % 1000 + fit as u64);
            let head = Head { version: to.max(head.version), ..head };
            let len = encode_delta(&head, base, to, changes.iter().copied(), &mut bytes);
            let (head_back, body) = decode(&bytes[..len]).unwrap();
            let Body::Delta { base: base_back, to: to_back, changes: back } = body else { panic!("not a delta") };
            prop_assert_eq!((head_back, base_back, to_back), (head, base, to));
            prop_assert_eq!(back.iter().collect::<Vec<_>>(), &changes[..fit]);
        }

        #[test]
        fn truncated_stretched_and_flipped_bodies_are_refused(
            head in any_head(), changes in prop::collection::vec(any_change(), 0..CHANGES_MAX), cut: prop::sample::Index,
            more in 1..200_usize, bit: prop::sample::Index,
        ) {
            let mut bytes = [0; BODY_BYTES_MAX];
            let head = Head { version: u64::MAX, ..head };
            let len = encode_delta(&head, 1, u64::MAX, changes.into_iter(), &mut bytes);
            let body = &bytes[..len];
            prop_assert!(decode(&body[..cut.index(len)]).is_err());
            prop_assert!(decode(&[body, &vec![0; more]].concat()).is_err());
            let mut flipped = body.to_vec();
            let bit = bit.index(len * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode(&flipped).is_err());
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..1300), kind in 0..6_u8) {
            let _ = decode(&bytes);
            // Past the check, to reach the fields.
            if bytes.len() >= HEAD_BYTES {
                (bytes[0], bytes[1]) = (kind, bytes[1] & FLAG_RESTART);
                let check = body_check(&bytes);
                put_u32(&mut bytes, AT_CHECK, check);
                let _ = decode(&bytes);
            }
        }
    }

    #[test]
    fn forged_counts_and_versions_are_refused() {
        let head = Head {
            host: HostId(1),
            incarnation: Incarnation(1),
            to: Incarnation(1),
            version: 10,
            applied: 0,
            serves: 1,
            follows: 1,
            restart: false,
        };
        let interest = Interest { stream: StreamKey(1), check: 2, channel: ChannelId(3), schema: None, joins: 0 };
        let change = Change { interest, on: true };
        let mut bytes = [0; BODY_BYTES_MAX];
        let mut delta = |base, to, count| {
            let len = encode_delta(&head, base, to, std::iter::repeat_n(change, count), &mut bytes);
            decode(&bytes[..len]).map(|_| ())
        };
        assert_eq!(delta(3, 10, 7), Ok(()));
        assert_eq!(delta(3, 11, 1), Err(BodyError::Range), "beyond the sender's own version");
        assert_eq!(delta(4, 3, 0), Err(BodyError::Range));
        assert_eq!(delta(3, 5, 3), Err(BodyError::Range), "more changes than versions");

        let len = encode_delta(&head, 3, 10, std::iter::repeat_n(change, 2), &mut bytes);
        let with = |at: usize, byte: u8| {
            let mut forged = bytes[..len].to_vec();
            forged[at] = byte;
            let check = body_check(&forged);
            put_u32(&mut forged, AT_CHECK, check);
            decode(&forged).map(|_| ())
        };
        assert_eq!(with(2, 2), Ok(()));
        for (at, byte, error) in [
            (2, 1, BodyError::Length),
            (3, 0xff, BodyError::Length),
            (0, KIND_HEARTBEAT, BodyError::Length),
            (0, 9, BodyError::Unknown),
            (1, 2, BodyError::Unknown),
            (0, 3, BodyError::Unknown),
            (0, 4, BodyError::Unknown),
            (DELTA_BYTES + SCHEMA_AT, 1, BodyError::Range),
            (DELTA_BYTES + SCHEMA_NAME_AT, 0xff, BodyError::Range),
            (DELTA_BYTES + SCHEMA_NAME_AT + 1, b'a', BodyError::Range),
            (16, 0, BodyError::Range),
        ] {
            assert_eq!(with(at, byte), Err(error), "byte {at}");
        }
    }
}
