//! Bundles: several frames in one datagram.
//!
//! All fields are little-endian. Version 1:
//!
//! ```text
//!       0        1        2        3        4        5        6        7
//!    +--------+--------+--------+--------+--------+--------+--------+--------+
//!  0 |  'B'      'n'      'd'   |version | bytes of bundle |     frames      |
//!    +--------+--------+--------+--------+-----------------+-----------------+
//!  8 | bytes of first  |  the first frame, whole ...
//!    +-----------------+----------
//!
//!    each further frame, one of
//!    +-----------------+----------
//!  0 | 0, bytes        |  the frame, whole ...
//!    +-----------------+-----------------------------------+-----------------+--
//!  0 | 1, payload bytes|   source instant, difference      |     check       ...
//!    +-----------------+-----------------------------------+-----------------+--
//!  8 |      check      |  payload ...
//!    +-----------------+----------
//! ```
//!
//! The top bit of a frame's first word says which form it has. The short form is a
//! *successor*: its header is that of the frame before it, with the next sequence number,
//! the source instant later by the difference, its own payload as the whole message, and
//! the check that stands here. The check is the sender's own, not made anew by who opens
//! the bundle, so what it protected it still protects. A sender writes the short form
//! only where it gives the header to the last bit.
//!
//! The bundle may be followed by padding up to the end of its datagram: segments that the
//! kernel cuts are of one size. A bundle in which any length does not add up is no bundle.
//!
//! No frame begins with these four bytes: a frame's first byte is another (see
//! [`data`](crate::data)).

use crate::data::HEADER_BYTES;
use insane_mutation::mutate;
use std::ops::Range;

/// The version of the format that this code writes, and the only one it reads.
pub const VERSION: u8 = 1;
/// How every bundle begins.
pub const MARK: [u8; 4] = [b'B', b'n', b'd', VERSION];
/// Bytes in front of the first frame.
pub const HEAD_BYTES: usize = 10;
/// Bytes in front of a further frame that is whole.
pub const WHOLE_BYTES: usize = 2;
/// Bytes in front of a successor's payload.
pub const SUCCESSOR_BYTES: usize = 10;
/// Largest frame, or payload of a successor, behind the first, bytes.
pub const ENTRY_BYTES_MAX: usize = SUCCESSOR as usize - 1;

/// In the first word of a frame: it is in the short form.
const SUCCESSOR: u16 = 1 << 15;

const AT_BYTES: usize = 4;
const AT_FRAMES: usize = 6;
const AT_FIRST: usize = 8;

const _: () = assert!(AT_FIRST + size_of::<u16>() == HEAD_BYTES);
const _: () = assert!(WHOLE_BYTES + size_of::<u32>() * 2 == SUCCESSOR_BYTES);
const _: () = assert!(SUCCESSOR_BYTES <= HEADER_BYTES, "a header is rebuilt over what was read already");

/// The header as words: 0 mark, kind, lane and check · 1 to 3 who and where · 4 sequence ·
/// 5 source instant · 6 channel and source · 7 message length and fragment offset.
type Words = [u64; HEADER_BYTES / 8];
const CHECK_SHIFT: u32 = 32;
const SEQUENCE: usize = 4;
const INSTANT: usize = 5;
const LENGTH: usize = 7;
/// Words in which a successor is like the frame before it.
const ALIKE: [usize; 4] = [1, 2, 3, 6];

/// Whether a datagram says that it is a bundle.
#[must_use]
#[inline]
pub fn is_bundle(datagram: &[u8]) -> bool {
    datagram.first_chunk() == Some(&MARK)
}

/// Puts frames into one bundle. The memory is the caller's; this knows where it is in it.
#[derive(Clone, Debug)]
pub struct Packer {
    frames: u16,
    first: u16,
    /// The header of the last frame, if a successor may follow.
    last: Option<Words>,
}

/// How the next frame is written.
#[derive(Clone, Copy, Debug)]
enum Form {
    Whole,
    Successor { later: u32, check: u32 },
}

impl Packer {
    /// A bundle whose first frame stands behind [`HEAD_BYTES`] already. `None` if it
    /// does not go into a bundle: it is empty or longer than 65,535 bytes.
    #[must_use]
    pub fn new(first: &[u8]) -> Option<Self> {
        let bytes = u16::try_from(first.len()).ok().filter(|bytes| *bytes > 0)?;
        Some(Packer { frames: 1, first: bytes, last: first.first_chunk().map(words) })
    }

    /// Frames so far.
    #[must_use]
    pub const fn frames(&self) -> u16 {
        self.frames
    }

    /// Takes one more frame, `head` followed by `payload_len` bytes, into `room`, which
    /// begins where the last frame ended. Writes all but the payload, and returns how many
    /// bytes that is: the payload follows them. `None` if the frame does not fit into
    /// `room` or into this format; then nothing has changed.
    #[inline]
    pub fn push(&mut self, head: &[u8], payload_len: usize, room: &mut [u8]) -> Option<usize> {
        if head.len() + payload_len == 0 || payload_len > ENTRY_BYTES_MAX || self.frames == u16::MAX {
            return None;
        }
        let header: Option<Words> = <&[u8; HEADER_BYTES]>::try_from(head).ok().map(words);
        let front = match self.form(header.as_ref(), payload_len) {
            Form::Successor { later, check } => {
                if SUCCESSOR_BYTES + payload_len > room.len() {
                    return None;
                }
                let front = room.first_chunk_mut::<SUCCESSOR_BYTES>()?;
                front[..2].copy_from_slice(&(payload_len as u16 | SUCCESSOR).to_le_bytes());
                front[2..6].copy_from_slice(&later.to_le_bytes());
                front[6..].copy_from_slice(&check.to_le_bytes());
                SUCCESSOR_BYTES
            }
            Form::Whole => {
                let len = head.len() + payload_len;
                if len > ENTRY_BYTES_MAX || WHOLE_BYTES + len > room.len() {
                    return None;
                }
                room[..WHOLE_BYTES].copy_from_slice(&(len as u16).to_le_bytes());
                room[WHOLE_BYTES..WHOLE_BYTES + head.len()].copy_from_slice(head);
                WHOLE_BYTES + head.len()
            }
        };
        self.frames += 1;
        self.last = header;
        Some(front)
    }

    #[inline]
    fn form(&self, header: Option<&Words>, payload_len: usize) -> Form {
        let (Some(last), Some(header)) = (&self.last, header) else { return Form::Whole };
        let later = header[INSTANT].wrapping_sub(last[INSTANT]);
        let differ = ALIKE.iter().fold(0, |differ, at| differ | (header[*at] ^ last[*at]))
            | u64::from(header[0] as u32 ^ last[0] as u32)
            | (header[SEQUENCE] ^ last[SEQUENCE].wrapping_add(1))
            | (header[LENGTH] ^ payload_len as u64);
        match u32::try_from(later) {
            Ok(later) if differ == 0 => Form::Successor { later, check: (header[0] >> CHECK_SHIFT) as u32 },
            _ => Form::Whole,
        }
    }

    /// Writes the head of the finished bundle, which fills `bundle`.
    ///
    /// # Panics
    /// `bundle` is shorter than a head, or longer than 65,535 bytes.
    pub fn finish(&self, bundle: &mut [u8]) {
        let bytes = u16::try_from(bundle.len()).expect("a datagram holds fewer bytes");
        bundle[..AT_BYTES].copy_from_slice(&MARK);
        bundle[AT_BYTES..AT_FRAMES].copy_from_slice(&bytes.to_le_bytes());
        bundle[AT_FRAMES..AT_FIRST].copy_from_slice(&self.frames.to_le_bytes());
        bundle[AT_FIRST..HEAD_BYTES].copy_from_slice(&self.first.to_le_bytes());
    }
}

/// Frames of a datagram that [`Packer::finish`] may have written: 0 if it is too short to
/// say.
#[must_use]
pub fn frames_told(datagram: &[u8]) -> u16 {
    get_u16(datagram, AT_FRAMES).unwrap_or(0)
}

/// Takes the frames out of one bundle, in their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opener {
    /// Where the next frame's first word stands.
    at: usize,
    end: usize,
    /// Where the last frame stands.
    last: usize,
}

impl Opener {
    /// Checks every length of a bundle; `None` if any does not add up, and then none of
    /// its frames counts.
    #[must_use]
    pub fn new(datagram: &[u8]) -> Option<Self> {
        if !is_bundle(datagram) {
            return None;
        }
        let end = usize::from(get_u16(datagram, AT_BYTES)?);
        let frames = get_u16(datagram, AT_FRAMES)?;
        let bundle = datagram.get(..end)?;
        let mut at = AT_FIRST;
        let mut has_header = false;
        for number in 0..frames {
            let word = get_u16(bundle, at)?;
            at += WHOLE_BYTES;
            // The first word of all is a length throughout.
            let (front, len) = if number > 0 && word & SUCCESSOR != 0 {
                if !has_header {
                    return None;
                }
                (SUCCESSOR_BYTES - WHOLE_BYTES, word & !SUCCESSOR)
            } else {
                if word == 0 {
                    return None;
                }
                has_header = usize::from(word) >= HEADER_BYTES;
                (0, word)
            };
            at += front + usize::from(len);
            if at > end && mutate!(BundleBeyondDatagram, true, number + 1 < frames) {
                return None;
            }
        }
        let is_whole = mutate!(BundleBeyondDatagram, at == end, at >= end);
        (frames > 0 && is_whole).then_some(Opener { at: AT_FIRST, end, last: 0 })
    }

    /// Whether all frames were taken.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.at >= self.end
    }

    /// Where the next frame stands in the datagram, which is that of [`new`](Self::new)
    /// and was changed by nobody else. A successor's header is written in front of its
    /// payload, over what was taken before.
    #[inline]
    pub fn next(&mut self, datagram: &mut [u8]) -> Option<Range<usize>> {
        if self.is_done() {
            return None;
        }
        let word = get_u16(datagram, self.at)?;
        let frame = if self.at > AT_FIRST && word & SUCCESSOR != 0 {
            let payload_len = word & !SUCCESSOR;
            let payload = self.at + SUCCESSOR_BYTES;
            let front: [u8; SUCCESSOR_BYTES] = *datagram.get(self.at..)?.first_chunk()?;
            let mut header = words(datagram.get(self.last..)?.first_chunk()?);
            let later = u32::from_le_bytes([front[2], front[3], front[4], front[5]]);
            let check = u32::from_le_bytes([front[6], front[7], front[8], front[9]]);
            header[0] = u64::from(header[0] as u32) | u64::from(check) << CHECK_SHIFT;
            header[SEQUENCE] = header[SEQUENCE].wrapping_add(1);
            header[INSTANT] = header[INSTANT].wrapping_add(u64::from(later));
            header[LENGTH] = u64::from(payload_len);
            let start = payload.checked_sub(HEADER_BYTES)?;
            let room = datagram.get_mut(start..payload)?;
            for (bytes, word) in room.chunks_exact_mut(8).zip(header) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
            start..payload + usize::from(payload_len)
        } else {
            let start = self.at + WHOLE_BYTES;
            start..start + usize::from(word)
        };
        self.at = frame.end;
        self.last = frame.start;
        Some(frame)
    }
}

#[inline]
fn words(head: &[u8; HEADER_BYTES]) -> Words {
    let mut words = [0; HEADER_BYTES / 8];
    for (word, bytes) in words.iter_mut().zip(head.chunks_exact(8)) {
        let mut word_bytes = [0; 8];
        word_bytes.copy_from_slice(bytes);
        *word = u64::from_le_bytes(word_bytes);
    }
    words
}

#[inline]
fn get_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|word| u16::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DataHeader, Flags, Kind};
    use insane_core::{ChannelId, HostId, Incarnation, Lane, SourceId, StreamKey};
    use proptest::prelude::*;

    fn header(sequence: u64, payload_len: usize) -> DataHeader {
        DataHeader {
            kind: Kind::Data,
            lane: Lane::new(5).unwrap(),
            flags: Flags::NONE,
            stream: StreamKey(0x1112_1314_1516_1718),
            host: HostId(2),
            incarnation: Incarnation(3),
            sequence,
            source_instant: 1_000 * sequence,
            channel: ChannelId(4),
            source: SourceId(5),
            message_len: payload_len as u32,
            fragment_offset: 0,
        }
    }

    /// What a sender does: the frames as one bundle, and how many bytes each took.
    fn pack(frames: &[(Vec<u8>, Vec<u8>)]) -> (Vec<u8>, Vec<usize>) {
        let first = [&frames[0].0[..], &frames[0].1].concat();
        let mut bytes = vec![0; HEAD_BYTES];
        bytes.extend_from_slice(&first);
        let mut packer = Packer::new(&first).unwrap();
        let mut taken = vec![bytes.len()];
        for (head, payload) in &frames[1..] {
            let mut room = vec![0; WHOLE_BYTES + SUCCESSOR_BYTES + head.len() + payload.len()];
            let front = packer.push(head, payload.len(), &mut room).unwrap();
            bytes.extend_from_slice(&room[..front]);
            bytes.extend_from_slice(payload);
            taken.push(front + payload.len());
        }
        packer.finish(&mut bytes);
        assert_eq!(usize::from(packer.frames()), frames.len());
        (bytes, taken)
    }

    fn open(mut datagram: Vec<u8>) -> Option<Vec<Vec<u8>>> {
        let mut opener = Opener::new(&datagram)?;
        let mut frames = Vec::new();
        while let Some(frame) = opener.next(&mut datagram) {
            frames.push(datagram[frame].to_vec());
        }
        assert!(opener.is_done());
        Some(frames)
    }

    fn run(count: u64, payload_len: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let payload = |sequence: u64| (0..payload_len).map(|at| (sequence as usize * 7 + at) as u8).collect();
        (0..count).map(|sequence| (header(sequence, payload_len).encode().to_vec(), payload(sequence))).collect()
    }

    fn whole(frames: &[(Vec<u8>, Vec<u8>)]) -> Vec<Vec<u8>> {
        frames.iter().map(|(head, payload)| [&head[..], payload].concat()).collect()
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let (bytes, _) = pack(&run(2, 3));
        assert_eq!(bytes[..10], [b'B', b'n', b'd', 1, 90, 0, 2, 0, 67, 0]);
        assert_eq!(bytes[77..79], [3, 0x80]);
        assert_eq!(bytes[79..83], 1_000_u32.to_le_bytes());
        assert_eq!(bytes[83..87], header(1, 3).encode()[4..8]);
        assert_eq!(bytes[87..], [7, 8, 9]);
    }

    #[test]
    fn messages_of_one_flow_take_ten_bytes_each_besides_their_payload() {
        for payload_len in [0, 1, 8, 63, 64, 65, 500] {
            let frames = run(20, payload_len);
            let (bytes, taken) = pack(&frames);
            assert!(taken[1..].iter().all(|bytes| *bytes == payload_len + SUCCESSOR_BYTES));
            let opened = open(bytes).unwrap();
            assert_eq!(opened, whole(&frames));
            assert!(opened.iter().all(|frame| DataHeader::decode_frame(frame).is_ok()));
        }
    }

    #[test]
    fn whatever_does_not_follow_goes_whole() {
        let first = header(7, 10);
        let next = header(8, 10);
        let others = [
            DataHeader { sequence: 9, ..next },
            DataHeader { sequence: 7, ..next },
            DataHeader { stream: StreamKey(1), ..next },
            DataHeader { channel: ChannelId(1), ..next },
            DataHeader { source: SourceId(1), ..next },
            DataHeader { host: HostId(1), ..next },
            DataHeader { incarnation: Incarnation(1), ..next },
            DataHeader { lane: Lane::new(4).unwrap(), ..next },
            DataHeader { flags: Flags::RELIABLE, ..next },
            DataHeader { message_len: 100, ..next },
            DataHeader { message_len: 100, fragment_offset: 64, ..next },
            DataHeader { source_instant: 1, ..next },
            DataHeader { source_instant: u64::MAX, ..next },
        ];
        for other in others {
            let frames = [(first.encode().to_vec(), vec![1; 10]), (other.encode().to_vec(), vec![2; 10])];
            let (bytes, taken) = pack(&frames);
            assert_eq!(taken[1], WHOLE_BYTES + HEADER_BYTES + 10, "{other:?}");
            assert_eq!(open(bytes).unwrap(), whole(&frames));
        }
        // The same fields, but the border between head and payload is elsewhere.
        let frame = [&next.encode()[..], &[2; 10]].concat();
        let frames = [(first.encode().to_vec(), vec![1; 10]), (frame[..30].to_vec(), frame[30..].to_vec())];
        let (bytes, taken) = pack(&frames);
        assert_eq!(taken[1], WHOLE_BYTES + HEADER_BYTES + 10);
        assert_eq!(open(bytes).unwrap(), whole(&frames));
    }

    #[test]
    fn what_has_no_room_changes_nothing() {
        let frames = run(3, 20);
        let first = [&frames[0].0[..], &frames[0].1].concat();
        let mut packer = Packer::new(&first).unwrap();
        let mut room = [0xee; 200];
        assert_eq!(packer.push(&frames[1].0, 20, &mut room[..29]), None);
        assert_eq!(packer.push(&frames[2].0, 20, &mut room[..85]), None);
        assert_eq!(packer.push(&[], 0, &mut room), None);
        assert_eq!(packer.push(&[1], ENTRY_BYTES_MAX, &mut vec![0; 70_000]), None);
        assert_eq!((packer.frames(), room), (1, [0xee; 200]));
        assert_eq!(packer.push(&frames[1].0, 20, &mut room[..30]), Some(SUCCESSOR_BYTES));
        assert!(Packer::new(&[]).is_none() && Packer::new(&vec![0; 65_536]).is_none());
    }

    #[test]
    fn every_cut_and_every_wrong_length_is_no_bundle() {
        let (bytes, _) = pack(&run(4, 9));
        for len in 0..bytes.len() {
            assert_eq!(Opener::new(&bytes[..len]), None, "{len} bytes");
        }
        let padded = [&bytes[..], &[0; 7]].concat();
        assert_eq!(open(padded), open(bytes.clone()), "padding is passed over");
        for at in [4, 5, 6, 7, 8, 9, 10 + 64 + 9, 10 + 64 + 9 + 1] {
            for change in 1..=255 {
                let mut wrong = bytes.clone();
                wrong[at] ^= change;
                assert_eq!(Opener::new(&wrong), None, "byte {at} ^ {change}");
            }
        }
        let nothing = [&MARK[..], &[10, 0, 0, 0, 0, 0]].concat();
        assert_eq!(Opener::new(&nothing), None, "a bundle of nothing");
        let follows_nothing = [&MARK[..], &[27, 0, 2, 0, 5, 0], &[1; 5], &[2, 0x80], &[0; 10]].concat();
        assert_eq!(Opener::new(&follows_nothing), None, "a successor of what has no header");
    }

    proptest! {
        #[test]
        fn any_frames_come_out_as_they_went_in(
            frames in prop::collection::vec((0..130_usize, 0..200_usize, any::<u8>(), any::<bool>()), 1..30)
        ) {
            let mut sequence = 0;
            let frames: Vec<_> = frames.into_iter().filter(|(head, len, ..)| head + len > 0).map(|(head, len, seed, follows)| {
                sequence += 1;
                let payload: Vec<u8> = (0..len).map(|at| (at as u8).wrapping_mul(seed)).collect();
                if follows { (header(sequence, len).encode().to_vec(), payload) } else { (vec![seed; head], payload) }
            }).filter(|(head, payload)| head.len() + payload.len() > 0).collect();
            prop_assume!(!frames.is_empty());
            let (bytes, _) = pack(&frames);
            prop_assert_eq!(open(bytes), Some(whole(&frames)));
        }

        #[test]
        fn garbage_is_never_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), dress: bool, len: u16) {
            if dress && bytes.len() >= HEAD_BYTES {
                bytes[..4].copy_from_slice(&MARK);
                let len = if len % 2 == 0 { bytes.len() as u16 } else { len };
                bytes[4..6].copy_from_slice(&len.to_le_bytes());
                (bytes[6], bytes[7]) = (bytes[6] % 6, 0);
            }
            let _ = open(bytes);
        }

        /// A walk over any bytes, as if they had been checked, ends and stays inside.
        #[test]
        fn a_changed_bundle_is_never_a_panic(at in 0..200_usize, change in 1..=255_u8) {
            let (mut bytes, _) = pack(&run(8, 9));
            let mut opener = Opener::new(&bytes).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= change;
            for _ in 0..8 {
                let _ = opener.next(&mut bytes);
            }
        }
    }
}
