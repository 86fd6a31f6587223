//! Frames of one peer and class between two flushes, made ready for one call.
//!
//! ```text
//!   lone frame      |head room|frame|                      one datagram, as it is
//!   equal frames    |head room|frame|frame|frame|          one datagram each
//!   small frames    |bundle   .pad|bundle   .pad|bundle|   one datagram each
//! ```
//! The first frame is put behind room for a bundle's head. If no other follows it goes as
//! it is, and has been copied once. The second decides: frames of which two fit into a
//! datagram are packed into bundles, larger ones of one size stand one behind the other.
//! The datagrams of a train are of one size, the *segment*, so that the kernel can cut
//! them; only the last may be shorter. A frame that does not fit that order is not taken,
//! and goes into the next train.
//!
//! Memory is bounded by what a train may hold, and taken once.

use insane_core::PeerIndex;
use insane_sys::SharedBytes;
use insane_sys::udp::{DATAGRAM_BYTES_MAX, SEGMENTS_MAX};
use insane_wire::bundle::{self, HEAD_BYTES, Packer, WHOLE_BYTES, is_bundle};
use insane_wire::data::HEADER_BYTES;
use std::ops::Range;

/// Bytes of a train that may grow no further: one best-effort chunk of the engine, which a
/// real-time message may have to wait for.
const TRAIN_BYTES: usize = 16 * 1024;
/// Frames above this size are not put into trains: copying them costs more than the calls
/// that it saves.
pub(crate) const TRAIN_FRAME_BYTES_MAX: usize = 4 * 1024;

const _: () = assert!(TRAIN_BYTES + HEAD_BYTES <= DATAGRAM_BYTES_MAX);
const _: () = assert!(TRAIN_FRAME_BYTES_MAX <= TRAIN_BYTES / 4);

/// What became of a frame.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pushed {
    Taken,
    /// It belongs into the next train.
    Full,
    /// It begins like a bundle, and would be taken for one.
    Refused,
}

#[derive(Debug)]
enum Shape {
    Empty,
    Lone,
    /// `is_last`: the last frame is shorter, so none may follow.
    Equal {
        segment: usize,
        is_last: bool,
    },
    /// `open`: where the bundle that still grows begins, and what is in it. The size of a
    /// segment is known once one bundle is finished.
    Bundles {
        segment: Option<usize>,
        open: usize,
        packer: Packer,
    },
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Train {
    bytes: Box<[u8]>,
    /// Largest datagram.
    datagram_bytes_max: usize,
    peer: PeerIndex,
    shape: Shape,
    /// Where the bytes end.
    len: usize,
    segments: usize,
    /// How far it has gone; from the first call on no frame is taken.
    gone: Option<usize>,
}

impl Train {
    pub(crate) fn new(frame_bytes_max: usize) -> Self {
        Train {
            bytes: vec![0; HEAD_BYTES + TRAIN_BYTES].into_boxed_slice(),
            datagram_bytes_max: frame_bytes_max.min(TRAIN_BYTES),
            peer: PeerIndex(0),
            shape: Shape::Empty,
            len: 0,
            segments: 0,
            gone: None,
        }
    }

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        matches!(self.shape, Shape::Empty)
    }

    #[inline]
    pub(crate) const fn peer(&self) -> PeerIndex {
        self.peer
    }

    /// Takes a frame of at most [`TRAIN_FRAME_BYTES_MAX`] bytes.
    #[inline]
    pub(crate) fn push(&mut self, peer: PeerIndex, head: &[u8], payload: SharedBytes<'_>) -> Pushed {
        if self.is_empty() {
            return self.start(peer, head, payload);
        }
        if self.peer != peer || self.gone.is_some() {
            return Pushed::Full;
        }
        self.join(head, payload)
    }

    #[inline]
    fn start(&mut self, peer: PeerIndex, head: &[u8], payload: SharedBytes<'_>) -> Pushed {
        let end = HEAD_BYTES + head.len() + payload.len();
        put(&mut self.bytes[HEAD_BYTES..end], head, payload);
        if is_bundle(&self.bytes[HEAD_BYTES..end]) {
            return Pushed::Refused;
        }
        self.peer = peer;
        self.shape = Shape::Lone;
        self.len = end;
        self.segments = 1;
        Pushed::Taken
    }

    /// A further frame.
    #[inline(never)]
    fn join(&mut self, head: &[u8], payload: SharedBytes<'_>) -> Pushed {
        let frame_len = head.len() + payload.len();
        if let Shape::Lone = self.shape {
            self.decide(frame_len);
        }
        match self.shape {
            Shape::Equal { segment, is_last } => self.append(segment, is_last, head, payload),
            Shape::Bundles { .. } => self.pack(head, payload),
            Shape::Empty | Shape::Lone => Pushed::Full,
        }
    }

    /// The second frame is here: it and the first say what the train will be.
    fn decide(&mut self, second_len: usize) {
        let first_len = self.len - HEAD_BYTES;
        let fits_twice = |len: usize| HEAD_BYTES + WHOLE_BYTES + 2 * len <= self.datagram_bytes_max;
        if fits_twice(first_len) && fits_twice(second_len) {
            if let Some(packer) = Packer::new(&self.bytes[HEAD_BYTES..self.len]) {
                self.shape = Shape::Bundles { segment: None, open: 0, packer };
            }
        } else if first_len > 0 && second_len <= first_len {
            self.shape = Shape::Equal { segment: first_len, is_last: false };
        }
    }

    fn append(&mut self, segment: usize, is_last: bool, head: &[u8], payload: SharedBytes<'_>) -> Pushed {
        let frame_len = head.len() + payload.len();
        let end = self.len + frame_len;
        let fits = frame_len > 0 && frame_len <= segment && end <= self.bytes.len() && self.segments < SEGMENTS_MAX;
        if is_last || !fits {
            return Pushed::Full;
        }
        put(&mut self.bytes[self.len..end], head, payload);
        if is_bundle(&self.bytes[self.len..end]) {
            return Pushed::Refused;
        }
        self.len = end;
        self.segments += 1;
        self.shape = Shape::Equal { segment, is_last: frame_len < segment };
        Pushed::Taken
    }

    fn pack(&mut self, head: &[u8], payload: SharedBytes<'_>) -> Pushed {
        let Shape::Bundles { segment, open, packer } = &mut self.shape else { return Pushed::Full };
        let limit = (*open + segment.unwrap_or(self.datagram_bytes_max)).min(self.bytes.len());
        if let Some(front) = packer.push(head, payload.len(), &mut self.bytes[self.len..limit]) {
            let at = self.len + front;
            self.len = at + payload.copy_to(&mut self.bytes[at..at + payload.len()]);
            return Pushed::Taken;
        }
        // The open bundle is finished, and the frame begins the next, if there is room for
        // a whole segment more.
        let segment_len = segment.unwrap_or(self.len - *open);
        let next = *open + segment_len;
        let frame_len = head.len() + payload.len();
        let is_small = frame_len > 0 && HEAD_BYTES + frame_len <= segment_len;
        if !is_small || next + segment_len > self.bytes.len() || self.segments == SEGMENTS_MAX {
            return Pushed::Full;
        }
        let end = next + HEAD_BYTES + frame_len;
        put(&mut self.bytes[next + HEAD_BYTES..end], head, payload);
        let Some(fresh) = Packer::new(&self.bytes[next + HEAD_BYTES..end]) else { return Pushed::Full };
        packer.finish(&mut self.bytes[*open..self.len]);
        // What an earlier train left there is nobody's business.
        self.bytes[self.len..next].fill(0);
        self.shape = Shape::Bundles { segment: Some(segment_len), open: next, packer: fresh };
        self.len = end;
        self.segments += 1;
        Pushed::Taken
    }

    /// What has not gone yet: its bytes, and the size of a segment. From now on the train
    /// takes no frame.
    #[inline]
    pub(crate) fn rest(&mut self) -> (Range<usize>, usize) {
        let start = match self.gone {
            Some(gone) => gone,
            None => self.close(),
        };
        (start..self.len, self.segment())
    }

    /// Where the first datagram begins.
    #[inline]
    fn close(&mut self) -> usize {
        let start = match &self.shape {
            Shape::Bundles { open, packer, .. } => {
                packer.finish(&mut self.bytes[*open..self.len]);
                0
            }
            _ => HEAD_BYTES,
        };
        self.gone = Some(start);
        start
    }

    fn segment(&self) -> usize {
        match &self.shape {
            Shape::Equal { segment, .. } | Shape::Bundles { segment: Some(segment), .. } => *segment,
            _ => self.len,
        }
    }

    pub(crate) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    /// All before `at` has gone.
    pub(crate) fn went_up_to(&mut self, at: usize) {
        self.gone = Some(at);
        if at >= self.len {
            self.clear();
        }
    }

    /// Frames in one of its datagrams.
    pub(crate) fn frames_in(&self, datagram: Range<usize>) -> u64 {
        match self.shape {
            Shape::Bundles { .. } => u64::from(bundle::frames_told(&self.bytes[datagram])),
            _ => 1,
        }
    }

    #[inline]
    pub(crate) fn clear(&mut self) {
        self.shape = Shape::Empty;
        self.gone = None;
    }
}

/// Copies a frame to where it belongs; `into` is as long as it.
#[inline]
fn put(into: &mut [u8], head: &[u8], payload: SharedBytes<'_>) {
    match (into.split_first_chunk_mut(), <&[u8; HEADER_BYTES]>::try_from(head)) {
        // A copy of constant length.
        (Some((front, behind)), Ok(head)) => {
            *front = *head;
            payload.copy_to(behind);
        }
        _ => {
            let (front, behind) = into.split_at_mut(head.len());
            front.copy_from_slice(head);
            payload.copy_to(behind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insane_core::{ChannelId, HostId, Incarnation, Lane, SourceId, StreamKey};
    use insane_wire::bundle::Opener;
    use insane_wire::data::{DataHeader, Flags, Kind};

    const MAX: usize = 1472;
    const PEER: PeerIndex = PeerIndex(3);

    fn frame(sequence: u64, payload_len: usize) -> ([u8; HEADER_BYTES], Vec<u8>) {
        let header = DataHeader {
            kind: Kind::Data,
            lane: Lane::LAST,
            flags: Flags::NONE,
            stream: StreamKey(1),
            host: HostId(2),
            incarnation: Incarnation(3),
            sequence,
            source_instant: 0,
            channel: ChannelId(4),
            source: SourceId(5),
            message_len: payload_len as u32,
            fragment_offset: 0,
        };
        (header.encode(), (0..payload_len).map(|at| (at as u64 + sequence) as u8).collect())
    }

    /// Pushes frames of these payloads until one is not taken; the frames that were.
    fn load(train: &mut Train, payloads: impl IntoIterator<Item = usize>) -> Vec<Vec<u8>> {
        let mut taken = Vec::new();
        for (sequence, payload_len) in payloads.into_iter().enumerate() {
            let (head, payload) = frame(sequence as u64, payload_len);
            if train.push(PEER, &head, SharedBytes::from(&payload[..])) != Pushed::Taken {
                break;
            }
            taken.push([&head[..], &payload].concat());
        }
        taken
    }

    /// The datagrams of a train, as the kernel cuts them.
    fn datagrams(train: &mut Train) -> Vec<Vec<u8>> {
        let (range, segment) = train.rest();
        let datagrams: Vec<_> = train.bytes(range.clone()).chunks(segment).map(<[u8]>::to_vec).collect();
        assert!(datagrams.len() <= SEGMENTS_MAX && range.len() <= TRAIN_BYTES + HEAD_BYTES);
        assert!(datagrams.iter().all(|datagram| datagram.len() <= MAX));
        let frames: u64 =
            (range.start..range.end).step_by(segment).map(|at| train.frames_in(at..range.end.min(at + segment))).sum();
        assert_eq!(frames as usize, open(&datagrams).len());
        datagrams
    }

    fn open(datagrams: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        for datagram in datagrams {
            let mut datagram = datagram.clone();
            if !is_bundle(&datagram) {
                frames.push(datagram);
                continue;
            }
            let mut opener = Opener::new(&datagram).unwrap();
            while let Some(frame) = opener.next(&mut datagram) {
                frames.push(datagram[frame].to_vec());
            }
        }
        frames
    }

    #[test]
    fn a_lone_frame_goes_as_it_is() {
        let mut train = Train::new(MAX);
        for len in [0, 1, 64, 1408] {
            let frames = load(&mut train, [len]);
            assert_eq!(datagrams(&mut train), frames);
            train.clear();
        }
    }

    #[test]
    fn small_frames_are_packed_into_bundles_of_one_size() {
        let mut train = Train::new(MAX);
        let frames = load(&mut train, [64; 1000]);
        let datagrams = datagrams(&mut train);
        assert_eq!(open(&datagrams), frames);
        // 10 + 128 for the first, 74 for each that follows: 19 in 1,472 bytes.
        assert!(
            datagrams[0].len() > MAX - 74 && datagrams.len() == 11,
            "{} of {}",
            datagrams.len(),
            datagrams[0].len()
        );
        assert_eq!(frames.len(), 11 * 19);
        let last = datagrams.len() - 1;
        assert!(datagrams[..last].iter().all(|datagram| datagram.len() == datagrams[0].len()));
    }

    #[test]
    fn small_frames_of_any_sizes_come_out_in_order() {
        for seed in 1..60_usize {
            let mut train = Train::new(MAX);
            let payloads = (0..500).map(|at| (at * seed * 37 + seed) % (1 + seed * 11));
            let frames = load(&mut train, payloads);
            assert_eq!(open(&datagrams(&mut train)), frames, "seed {seed}");
            assert!(frames.len() > 10);
        }
    }

    #[test]
    fn large_frames_of_one_size_stand_one_behind_the_other() {
        let mut train = Train::new(MAX);
        for payload_len in [1408, 1024, 800] {
            let frames = load(&mut train, [payload_len; 100]);
            assert_eq!(datagrams(&mut train), frames);
            assert_eq!(frames.len(), (TRAIN_BYTES) / (HEADER_BYTES + payload_len));
            train.clear();
        }
        // The last one of a message is shorter, and ends the train.
        let frames = load(&mut train, [1408, 1408, 100, 100]);
        assert_eq!(frames.len(), 3);
        assert_eq!(datagrams(&mut train), frames);
        train.clear();
        assert_eq!(load(&mut train, [100, 1408]).len(), 1, "a longer one begins the next");
    }

    #[test]
    fn a_train_is_of_one_peer_and_takes_nothing_once_it_goes() {
        let mut train = Train::new(MAX);
        let push = |train: &mut Train, peer| train.push(PeerIndex(peer), b"frame", SharedBytes::EMPTY);
        assert_eq!(push(&mut train, 1), Pushed::Taken);
        assert_eq!(push(&mut train, 2), Pushed::Full);
        assert_eq!(push(&mut train, 1), Pushed::Taken);
        assert_eq!(train.peer(), PeerIndex(1));
        let (range, _) = train.rest();
        assert_eq!(push(&mut train, 1), Pushed::Full);
        train.went_up_to(range.end);
        assert!(train.is_empty());
        assert_eq!(push(&mut train, 2), Pushed::Taken);
    }

    #[test]
    fn what_begins_like_a_bundle_is_refused() {
        let mut train = Train::new(MAX);
        assert_eq!(train.push(PEER, &bundle::MARK, SharedBytes::EMPTY), Pushed::Refused);
        assert!(train.is_empty());
        assert_eq!(train.push(PEER, b"B", SharedBytes::from(&bundle::MARK[1..])), Pushed::Refused);
        let long = [&bundle::MARK[..], &[0; 996]].concat();
        assert_eq!(train.push(PEER, &[1; 1000], SharedBytes::EMPTY), Pushed::Taken);
        assert_eq!(train.push(PEER, &long, SharedBytes::EMPTY), Pushed::Refused);
        assert_eq!(datagrams(&mut train), [[1; 1000]]);
    }

    #[test]
    fn nothing_of_an_earlier_train_is_sent_again() {
        let mut train = Train::new(MAX);
        train.bytes.fill(0xee);
        let frames = load(&mut train, (0..60).map(|at| 30 + at % 7 * 31));
        let datagrams = datagrams(&mut train);
        assert_eq!(open(&datagrams), frames);
        for datagram in &datagrams {
            let len = usize::from(u16::from_le_bytes([datagram[4], datagram[5]]));
            assert!(datagram[len..].iter().all(|byte| *byte == 0));
        }
    }
}
