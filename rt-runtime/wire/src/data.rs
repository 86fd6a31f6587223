//! The data header: the first 64 bytes of every frame between runtimes.
//!
//! All fields are little-endian. Version 2:
//!
//! ```text
//!       0        1        2        3        4        5        6        7
//!    +--------+--------+--------+--------+--------+--------+--------+--------+
//!  0 |  'I'   |version | kind   |fl |lane|               check               |
//!    +--------+--------+--------+--------+--------+--------+--------+--------+
//!  8 |                              stream key                               |
//!    +-----------------------------------------------------------------------+
//! 16 |                          host of the sender                           |
//!    +-----------------------------------------------------------------------+
//! 24 |                       incarnation of the sender                       |
//!    +-----------------------------------------------------------------------+
//! 32 |                               sequence                                |
//!    +-----------------------------------------------------------------------+
//! 40 |               source instant and its clock (0: none)                  |
//!    +-----------------------------------+-----------------------------------+
//! 48 |              channel              |              source               |
//!    +-----------------------------------+-----------------------------------+
//! 56 |          message length           |          fragment offset          |
//!    +-----------------------------------+-----------------------------------+
//! 64 |  payload: bytes [fragment offset, fragment offset + rest of frame) of the message
//! ```
//!
//! Byte 3 holds the lane in bits 0 to 2 and the [`Flags`] in bits 3 to 7, of which the upper
//! three are the [`Leg`]. The source instant
//! is the word of [`insane_core::instant`], as the source gave it: it names its own clock,
//! so that receivers know whether they can compute an age from it.
//!
//! The check covers the header alone: a wrong field would hand a message to the
//! wrong stream or poison a flow, and a header may cross software that the link's
//! checksum no longer covers. The payload is covered by the link's checksum only.
//! The check finds accidents, not forgeries: it has no secret.
//!
//! # Fragments
//! A message that does not fit into one frame travels in fragments. Every fragment
//! starts at a multiple of [`FRAGMENT_UNIT`], and all but the last are whole units
//! long. Nothing else about their size is promised, so a receiver needs no field that
//! names it, and a message may finish on another link, with another frame size, than
//! it began on. A message without payload is one fragment.

use insane_core::limits::MESSAGE_BYTES_MAX;
use insane_core::{ChannelId, HostId, Incarnation, Lane, SourceId, StreamKey};
use insane_mutation::mutate;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 64;
/// The version of all that runtimes say to each other in such frames: of this header, and of
/// the bodies of [`crate::overlay`], [`crate::link`], [`crate::group`], [`crate::refusal`],
/// [`crate::schedule`] and [`crate::reliable`]. It is what this code writes, and the only one it
/// reads. Version 1 knew no fences, legs or recaps.
///
/// Whoever changes one of these formats raises it; `tests/formats.rs` sees to that.
pub const VERSION: u8 = 2;
/// Granularity of fragments, bytes: a cache line, so that a receiver's copies stay aligned.
pub const FRAGMENT_UNIT: u32 = 64;

/// First byte of every frame.
const MAGIC: u8 = b'I';

// Where each field starts; the diagram above.
pub(crate) const AT_CHECK: usize = 4;
const AT_STREAM: usize = 8;
const AT_HOST: usize = 16;
const AT_INCARNATION: usize = 24;
const AT_SEQUENCE: usize = 32;
const AT_INSTANT: usize = 40;
const AT_CHANNEL: usize = 48;
const AT_SOURCE: usize = 52;
const AT_MESSAGE_LEN: usize = 56;
const AT_FRAGMENT_OFFSET: usize = 60;

const _: () = assert!(AT_FRAGMENT_OFFSET + size_of::<u32>() == HEADER_BYTES);
const _: () = assert!(HEADER_BYTES.is_multiple_of(FRAGMENT_UNIT as usize), "a payload starts as aligned as its frame");
const _: () = assert!(MESSAGE_BYTES_MAX < u32::MAX - FRAGMENT_UNIT, "offsets are computed in u32");

/// What a frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// A message, or a fragment of one.
    Data = 1,
    /// A frame of the overlay itself: the payload is a body of [`crate::overlay`].
    Overlay = 2,
    /// A report on a reliable flow: the payload is a body of [`crate::reliable`].
    Reliable = 3,
    /// The end of a leg of an unreliable flow, sent by the link that its messages leave: the
    /// flags name the leg, `sequence` the last message of it. No payload. With [`CLOSING`] as its
    /// source instant it is the end of the flow itself, reliable or not: its source has closed, and
    /// `sequence` is the number behind its last message. To who does not know that it ends a leg of
    /// which nothing more comes.
    Fence = 4,
}

/// What stands for the source instant in the fence that ends a flow; 0 in one that ends a leg.
pub const CLOSING: u64 = 1;

/// Yes-or-no facts about a message. Bits that this version does not know are refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Flags(u8);

impl Flags {
    /// Nothing to say.
    pub const NONE: Flags = Flags(0);
    /// The message belongs to a reliable stream: it is acknowledged and repaired.
    pub const RELIABLE: Flags = Flags(2);
    const KNOWN: u8 = 2 | Leg::MASK << Self::LEG_SHIFT;
    const BITS: u32 = 5;
    /// Where the leg begins.
    const LEG_SHIFT: u32 = 2;

    /// On which leg of its flow the message goes.
    #[must_use]
    #[inline]
    pub const fn leg(self) -> Leg {
        Leg(self.0 >> Self::LEG_SHIFT & Leg::MASK)
    }

    /// The same, on another leg.
    #[must_use]
    pub const fn with_leg(self, leg: Leg) -> Flags {
        Flags(self.0 & !(Leg::MASK << Self::LEG_SHIFT) | leg.0 << Self::LEG_SHIFT)
    }

    /// Whether all of `other`'s flags are set.
    #[must_use]
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flags of both.
    #[must_use]
    pub const fn union(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

const _: () = assert!(Flags::KNOWN < 1 << Flags::BITS && Flags::BITS + 3 == u8::BITS);

/// A stretch of a flow between two moves from link to link: its number, modulo 8. A message
/// says on which it goes, so that a receiver knows, whatever else was lost, that what comes by
/// one link may have overtaken what is still to come by another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Leg(u8);

impl Leg {
    /// That on which every flow begins.
    pub const FIRST: Leg = Leg(0);
    pub(crate) const MASK: u8 = 7;
    /// Legs that a receiver can tell to lie ahead; all others lie behind.
    const AHEAD_MAX: u8 = 4;

    /// The one behind the next move.
    #[must_use]
    pub const fn next(self) -> Leg {
        Leg((self.0 + 1) & Self::MASK)
    }

    /// The one before the last move.
    #[must_use]
    pub const fn before(self) -> Leg {
        Leg(self.0.wrapping_sub(1) & Self::MASK)
    }

    /// Whether it begins behind `other`: by up to four moves.
    #[must_use]
    #[inline]
    pub const fn is_ahead_of(self, other: Leg) -> bool {
        let ahead = self.0.wrapping_sub(other.0) & Self::MASK;
        ahead != 0 && ahead <= Self::AHEAD_MAX
    }

    pub(crate) const fn get(self) -> u8 {
        self.0
    }

    /// That of the lowest bits.
    pub(crate) const fn of(bits: u8) -> Leg {
        Leg(bits & Self::MASK)
    }
}

/// The header of one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataHeader {
    /// What the frame carries.
    pub kind: Kind,
    /// The lane it travels in.
    pub lane: Lane,
    /// Facts about the message.
    pub flags: Flags,
    /// Stream of the message; 0 in an overlay frame.
    pub stream: StreamKey,
    /// Runtime that sent the frame.
    pub host: HostId,
    /// Which life of that runtime.
    pub incarnation: Incarnation,
    /// Number of the message in its flow (source and stream), from 0.
    pub sequence: u64,
    /// When the source emitted it: a word of [`insane_core::instant`]; 0: not said.
    pub source_instant: u64,
    /// Channel of the message; 0 in an overlay frame.
    pub channel: ChannelId,
    /// Source of the message; 0 in an overlay frame.
    pub source: SourceId,
    /// Bytes of the whole message, at most [`MESSAGE_BYTES_MAX`].
    pub message_len: u32,
    /// Where in the message this frame's payload starts; a multiple of [`FRAGMENT_UNIT`].
    pub fragment_offset: u32,
}

/// Why a frame was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderError {
    /// Shorter than a header.
    #[error("the frame is shorter than its header")]
    Short,
    /// Not a frame of this protocol.
    #[error("the frame does not start with the magic byte")]
    Magic,
    /// A version that this code does not read: this one.
    #[error("the frame is of version {0}, this runtime reads version {VERSION}")]
    Version(u8),
    /// The header was changed on its way.
    #[error("the header does not match its check")]
    Check,
    /// A kind or flag that this version does not know.
    #[error("the header holds a kind or flag unknown to its version")]
    Unknown,
    /// Message length, fragment offset and payload do not fit together.
    #[error("message length, fragment offset and payload do not fit together")]
    Range,
}

impl DataHeader {
    /// The header of an overlay frame with a body of `body_len` bytes.
    #[must_use]
    pub const fn overlay(host: HostId, incarnation: Incarnation, body_len: u32) -> Self {
        DataHeader {
            kind: Kind::Overlay,
            lane: Lane::CONTROL,
            flags: Flags::NONE,
            stream: StreamKey(0),
            host,
            incarnation,
            sequence: 0,
            source_instant: 0,
            channel: ChannelId(0),
            source: SourceId(0),
            message_len: body_len,
            fragment_offset: 0,
        }
    }

    /// The header of a report that `host`, in this life, sends on the flow of `source`.
    #[must_use]
    pub const fn reliable(
        (host, incarnation): (HostId, Incarnation),
        (stream, channel): (StreamKey, ChannelId),
        source: SourceId,
    ) -> Self {
        DataHeader {
            kind: Kind::Reliable,
            stream,
            channel,
            source,
            ..Self::overlay(host, incarnation, crate::reliable::BODY_BYTES as u32)
        }
    }

    /// The 64 bytes of the header.
    #[must_use]
    #[inline]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = MAGIC;
        bytes[1] = VERSION;
        bytes[2] = self.kind as u8;
        bytes[3] = self.lane.get() | self.flags.0 << 3;
        put_u64(&mut bytes, AT_STREAM, self.stream.0);
        put_u64(&mut bytes, AT_HOST, self.host.0);
        put_u64(&mut bytes, AT_INCARNATION, self.incarnation.0);
        put_u64(&mut bytes, AT_SEQUENCE, self.sequence);
        put_u64(&mut bytes, AT_INSTANT, self.source_instant);
        put_u32(&mut bytes, AT_CHANNEL, self.channel.0);
        put_u32(&mut bytes, AT_SOURCE, self.source.0);
        put_u32(&mut bytes, AT_MESSAGE_LEN, self.message_len);
        put_u32(&mut bytes, AT_FRAGMENT_OFFSET, self.fragment_offset);
        let check = header_check(&bytes);
        put_u32(&mut bytes, AT_CHECK, check);
        bytes
    }

    /// Reads the header at the start of `frame` and checks every field of it.
    ///
    /// # Errors
    /// Anything that [`DataHeader::encode`] would not have written for a header in range.
    #[inline]
    pub fn decode(frame: &[u8]) -> Result<Self, HeaderError> {
        let bytes = frame.first_chunk::<HEADER_BYTES>().ok_or(HeaderError::Short)?;
        if bytes[0] != MAGIC {
            return Err(HeaderError::Magic);
        }
        if bytes[1] != VERSION {
            return Err(HeaderError::Version(bytes[1]));
        }
        if get_u32(bytes, AT_CHECK) != header_check(bytes) {
            return Err(HeaderError::Check);
        }
        let kind = match bytes[2] {
            1 => Kind::Data,
            2 => Kind::Overlay,
            3 => Kind::Reliable,
            4 => Kind::Fence,
            _ => return Err(HeaderError::Unknown),
        };
        let flags = Flags(bytes[3] >> 3);
        let lane = Lane::new(bytes[3] & 7).ok_or(HeaderError::Unknown)?;
        if flags.0 & !Flags::KNOWN != 0 {
            return Err(HeaderError::Unknown);
        }
        let header = DataHeader {
            kind,
            lane,
            flags,
            stream: StreamKey(get_u64(bytes, AT_STREAM)),
            host: HostId(get_u64(bytes, AT_HOST)),
            incarnation: Incarnation(get_u64(bytes, AT_INCARNATION)),
            sequence: get_u64(bytes, AT_SEQUENCE),
            source_instant: get_u64(bytes, AT_INSTANT),
            channel: ChannelId(get_u32(bytes, AT_CHANNEL)),
            source: SourceId(get_u32(bytes, AT_SOURCE)),
            message_len: get_u32(bytes, AT_MESSAGE_LEN),
            fragment_offset: get_u32(bytes, AT_FRAGMENT_OFFSET),
        };
        if mutate!(RangeUnread, header.is_in_range(), true) { Ok(header) } else { Err(HeaderError::Range) }
    }

    /// Reads a whole frame: header and payload, and whether the two fit together.
    ///
    /// # Errors
    /// As [`DataHeader::decode`]; [`HeaderError::Range`] if the payload is not a fragment
    /// of a message of the header's length.
    #[inline]
    pub fn decode_frame(frame: &[u8]) -> Result<(Self, &[u8]), HeaderError> {
        let header = Self::decode(frame)?;
        let payload = &frame[HEADER_BYTES..];
        let is_piece = mutate!(PieceBeyondMessage, header.takes(payload.len()), true);
        if is_piece { Ok((header, payload)) } else { Err(HeaderError::Range) }
    }

    /// Whether the frame says that its flow has ended.
    #[must_use]
    pub fn closes_flow(&self) -> bool {
        self.kind == Kind::Fence && self.source_instant == CLOSING
    }

    /// Whether the frame carries the whole message.
    #[must_use]
    pub const fn is_whole(&self, payload_len: usize) -> bool {
        self.fragment_offset == 0 && self.message_len as usize == payload_len
    }

    const fn is_in_range(&self) -> bool {
        self.message_len <= MESSAGE_BYTES_MAX
            && self.fragment_offset.is_multiple_of(FRAGMENT_UNIT)
            && (self.fragment_offset < self.message_len || self.fragment_offset == 0)
    }

    /// Whether `payload_len` bytes are a fragment of this message at this offset.
    #[must_use]
    pub const fn takes(&self, payload_len: usize) -> bool {
        let rest = (self.message_len - self.fragment_offset) as usize;
        let whole_units = payload_len.is_multiple_of(FRAGMENT_UNIT as usize) && payload_len > 0;
        payload_len == rest || (payload_len < rest && whole_units)
    }
}

/// One fragment of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Where in the message it starts, bytes.
    pub offset: u32,
    /// Its bytes; 0 only for a message without payload.
    pub len: u32,
}

/// How a message is cut into frames. Also the iterator over what is left of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FragmentPlan {
    message_len: u32,
    fragment_len: u32,
    next: u32,
    left: u32,
}

impl FragmentPlan {
    /// Cuts `message_len` bytes for frames that carry at most `frame_payload_max` bytes
    /// behind their header.
    ///
    /// `None` if the message is larger than [`MESSAGE_BYTES_MAX`], or does not fit into one
    /// frame while a frame holds less than a [`FRAGMENT_UNIT`].
    #[must_use]
    pub const fn new(message_len: u32, frame_payload_max: u32) -> Option<Self> {
        if message_len > MESSAGE_BYTES_MAX {
            return None;
        }
        if message_len <= frame_payload_max {
            return Some(FragmentPlan { message_len, fragment_len: message_len, next: 0, left: 1 });
        }
        let fragment_len = frame_payload_max - frame_payload_max % FRAGMENT_UNIT;
        if fragment_len == 0 {
            return None;
        }
        Some(FragmentPlan { message_len, fragment_len, next: 0, left: message_len.div_ceil(fragment_len) })
    }

    /// Fragments not handed out yet.
    #[must_use]
    pub const fn remaining(&self) -> u32 {
        self.left
    }

    /// Bytes of every fragment but the last.
    #[must_use]
    pub const fn fragment_len(&self) -> u32 {
        self.fragment_len
    }
}

impl Iterator for FragmentPlan {
    type Item = Fragment;

    #[inline]
    fn next(&mut self) -> Option<Fragment> {
        if self.left == 0 {
            return None;
        }
        let offset = self.next;
        let len = self.fragment_len.min(self.message_len - offset);
        self.next += len;
        self.left -= 1;
        Some(Fragment { offset, len })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for FragmentPlan {}

/// Multipliers of the check, one for each 32-bit word of the header (that of the check
/// itself is not used). Any 64-bit odd numbers spread well; these are splitmix64's, and
/// a test proves for them that no change of up to three bits escapes.
const CHECK_KEYS: [u64; HEADER_BYTES / 4] = {
    let mut keys = [0; HEADER_BYTES / 4];
    let mut state = u64::from_le_bytes(*b"INSANEv1");
    let mut at = 0;
    while at < keys.len() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut key = state;
        key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        keys[at] = (key ^ (key >> 31)) | 1;
        at += 1;
    }
    keys
};

/// Puts the right check into what is to be taken for a header, or for a report: for tests of what
/// becomes of bytes that no encoder wrote. Too few bytes stay as they are.
#[doc(hidden)]
pub fn seal(frame: &mut [u8]) {
    if let Some(head) = frame.first_chunk_mut::<HEADER_BYTES>() {
        let check = header_check(head);
        put_u32(head, AT_CHECK, check);
    }
}

/// The check of a header: multilinear hashing (Lemire and Kaser, "Strongly universal
/// string hashing is fast", 2014): the upper half of the sum of words times keys. The
/// products do not wait for each other, so it takes about as long as loading the words.
#[inline]
pub(crate) fn header_check(bytes: &[u8; HEADER_BYTES]) -> u32 {
    let mut sum = 0_u64;
    for (word, key) in CHECK_KEYS.iter().enumerate() {
        if word != AT_CHECK / 4 {
            sum = sum.wrapping_add(u64::from(get_u32(bytes, word * 4)).wrapping_mul(*key));
        }
    }
    (sum >> 32) as u32
}

/// What the 64-bit word at place `at` adds to the check, as two words of 32 bits.
#[inline]
pub(crate) const fn check_of_word(at: usize, word: u64) -> u64 {
    let low = (word & u32::MAX as u64).wrapping_mul(CHECK_KEYS[at * 2]);
    low.wrapping_add((word >> u32::BITS).wrapping_mul(CHECK_KEYS[at * 2 + 1]))
}

#[inline]
pub(crate) fn put_u32(bytes: &mut [u8; HEADER_BYTES], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[inline]
pub(crate) fn put_u64(bytes: &mut [u8; HEADER_BYTES], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

#[inline]
pub(crate) fn get_u32(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

#[inline]
pub(crate) fn get_u64(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        pub(crate) fn any_header()(
            kind in 0..4_usize, lane in 0..8_u8, reliable: bool, leg in 0..8_u8, stream: u64, host: u64, incarnation: u64, sequence: u64,
            source_instant: u64, channel: u32, source: u32, message_len in 0..=MESSAGE_BYTES_MAX, at: u32,
        ) -> DataHeader {
            let units = message_len.div_ceil(FRAGMENT_UNIT);
            DataHeader {
                kind: [Kind::Data, Kind::Overlay, Kind::Reliable, Kind::Fence][kind],
                lane: Lane::new(lane).unwrap(),
                flags: if reliable { Flags::RELIABLE } else { Flags::NONE }.with_leg(Leg(leg)),
                stream: StreamKey(stream),
                host: HostId(host),
                incarnation: Incarnation(incarnation),
                sequence,
                source_instant,
                channel: ChannelId(channel),
                source: SourceId(source),
                message_len,
                fragment_offset: if units == 0 { 0 } else { at % units * FRAGMENT_UNIT },
            }
        }
    }

    #[test]
    fn a_leg_lies_ahead_of_the_four_before_it() {
        let mut leg = Leg::FIRST;
        for _ in 0..20 {
            let mut other = leg;
            for ahead in 1..=8 {
                other = other.next();
                assert_eq!(other.is_ahead_of(leg), ahead <= 4, "{ahead}");
                assert_eq!(other.before().next(), other);
            }
            assert_eq!(other, leg);
            leg = leg.next();
        }
    }

    fn example() -> DataHeader {
        DataHeader {
            kind: Kind::Data,
            lane: Lane::new(5).unwrap(),
            flags: Flags::RELIABLE,
            stream: StreamKey(0x1112_1314_1516_1718),
            host: HostId(0x2122_2324_2526_2728),
            incarnation: Incarnation(0x3132_3334_3536_3738),
            sequence: 0x4142_4344_4546_4748,
            source_instant: 0x5152_5354_5556_5758,
            channel: ChannelId(0x6162_6364),
            source: SourceId(0x7172_7374),
            message_len: 0x0182_8384,
            fragment_offset: 0x0092_9380,
        }
    }

    /// The bytes of version 2, written out: a change of layout must not pass unseen.
    #[test]
    fn the_layout_is_the_documented_one() {
        let bytes = example().encode();
        assert_eq!(&bytes[..4], [b'I', 2, 1, 5 | 2 << 3]);
        let words: [u64; 6] = std::array::from_fn(|i| get_u64(&bytes, 8 + 8 * i));
        assert_eq!(words[..3], [0x1112_1314_1516_1718, 0x2122_2324_2526_2728, 0x3132_3334_3536_3738]);
        assert_eq!(words[3..5], [0x4142_4344_4546_4748, 0x5152_5354_5556_5758]);
        assert_eq!(words[5], 0x7172_7374_6162_6364);
        assert_eq!(get_u64(&bytes, 56), 0x0092_9380_0182_8384);
    }

    proptest! {
        #[test]
        fn every_header_survives_the_way(header in any_header()) {
            prop_assert_eq!(DataHeader::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn every_flipped_bit_is_noticed(header in any_header()) {
            let bytes = header.encode();
            for bit in 0..HEADER_BYTES * 8 {
                let mut flipped = bytes;
                flipped[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(DataHeader::decode(&flipped).is_err(), "bit {}", bit);
            }
        }

        #[test]
        fn every_truncation_is_short(header in any_header(), len in 0..HEADER_BYTES) {
            prop_assert_eq!(DataHeader::decode(&header.encode()[..len]), Err(HeaderError::Short));
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), dress: bool) {
            // Half of the cases get past magic, version and check, to reach the fields.
            if let (true, Some(head)) = (dress, bytes.first_chunk_mut::<HEADER_BYTES>()) {
                (head[0], head[1]) = (MAGIC, VERSION);
                let check = header_check(head);
                put_u32(head, AT_CHECK, check);
            }
            if let Ok((header, payload)) = DataHeader::decode_frame(&bytes) {
                prop_assert!(dress && header.fragment_offset as usize + payload.len() <= header.message_len as usize);
            }
        }

        #[test]
        fn fragments_cover_the_message_once(message_len in 0..3_000_000_u32, frame_payload_max in 0..70_000_u32) {
            let Some(plan) = FragmentPlan::new(message_len, frame_payload_max) else {
                prop_assert!(frame_payload_max < FRAGMENT_UNIT && message_len > frame_payload_max);
                return Ok(());
            };
            let header = DataHeader { message_len, ..example() };
            let (mut end, mut count) = (0, 0);
            for fragment in plan {
                prop_assert_eq!(fragment.offset, end);
                prop_assert!(fragment.len <= frame_payload_max && (fragment.len > 0 || message_len == 0));
                let header = DataHeader { fragment_offset: fragment.offset, ..header };
                prop_assert!(header.is_in_range() && header.takes(fragment.len as usize));
                end += fragment.len;
                count += 1;
            }
            prop_assert_eq!((end, count), (message_len, plan.remaining()));
        }
    }

    /// No change of one, two or three bits escapes the check, whatever the header holds.
    ///
    /// Flipping bit `b` of word `w` changes the sum by `±2^b * key(w)`; flipping bit `b`
    /// of the check is as if the sum had changed by `±2^(32 + b)`. The change escapes only
    /// if the total stays within the 32 bits that the check does not show. So it is enough
    /// that no signed sum of up to three such terms lies within `±2^32`.
    #[test]
    fn no_change_of_up_to_three_bits_escapes() {
        let mut terms = Vec::new();
        for (word, key) in CHECK_KEYS.iter().enumerate() {
            let key = if word == AT_CHECK / 4 { 1 << 32 } else { *key };
            terms.extend((0..32).map(|bit| key << bit));
        }
        let escapes = |sum: u64| sum.wrapping_add((1 << 32) - 1) < (1 << 33) - 1;
        assert!(escapes(0) && escapes(u64::MAX) && escapes((1 << 32) - 1) && !escapes(1 << 32));
        for (i, a) in terms.iter().enumerate() {
            assert!(!escapes(*a));
            for (j, b) in terms[..i].iter().enumerate() {
                let (sum, difference) = (a.wrapping_add(*b), a.wrapping_sub(*b));
                assert!(!escapes(sum) && !escapes(difference));
                for c in &terms[..j] {
                    let any = escapes(sum.wrapping_add(*c))
                        | escapes(sum.wrapping_sub(*c))
                        | escapes(difference.wrapping_add(*c))
                        | escapes(difference.wrapping_sub(*c));
                    assert!(!any);
                }
            }
        }
    }

    /// The proof above is about the formula; this is about the code, for one header.
    #[test]
    fn no_pair_of_flipped_bits_escapes_in_one_header() {
        let bytes = example().encode();
        let flip = |bytes: &mut [u8; HEADER_BYTES], bit: usize| bytes[bit / 8] ^= 1 << (bit % 8);
        for a in 0..HEADER_BYTES * 8 {
            for b in 0..a {
                let mut flipped = bytes;
                flip(&mut flipped, a);
                flip(&mut flipped, b);
                assert!(get_u32(&flipped, AT_CHECK) != header_check(&flipped), "bits {a} and {b}");
            }
        }
    }

    #[test]
    fn a_payload_that_does_not_fit_its_header_is_refused() {
        let header = DataHeader { message_len: 200, fragment_offset: 64, ..example() };
        let frame = |len: usize| [&header.encode()[..], &vec![0; len]].concat();
        for (len, fits) in [(0, false), (1, false), (64, true), (65, false), (128, true), (136, true), (192, false)] {
            assert_eq!(DataHeader::decode_frame(&frame(len)).is_ok(), fits, "{len}");
        }
        let empty = DataHeader { message_len: 0, fragment_offset: 0, ..example() };
        assert!(DataHeader::decode_frame(&empty.encode()).is_ok_and(|(header, _)| header.is_whole(0)));
        let beyond = DataHeader { message_len: MESSAGE_BYTES_MAX + 1, fragment_offset: 0, ..example() };
        assert_eq!(DataHeader::decode(&beyond.encode()), Err(HeaderError::Range));
        let past = DataHeader { message_len: 64, fragment_offset: 64, ..example() };
        assert_eq!(DataHeader::decode(&past.encode()), Err(HeaderError::Range));
        let uneven = DataHeader { message_len: 640, fragment_offset: 65, ..example() };
        assert_eq!(DataHeader::decode(&uneven.encode()), Err(HeaderError::Range));
    }

    #[test]
    fn a_message_without_payload_is_one_fragment() {
        let plan = FragmentPlan::new(0, 0).unwrap();
        assert_eq!(plan.collect::<Vec<_>>(), [Fragment { offset: 0, len: 0 }]);
        assert_eq!(FragmentPlan::new(MESSAGE_BYTES_MAX + 1, 1400), None);
    }
}
