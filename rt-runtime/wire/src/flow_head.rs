//! The headers of one flow: what is the same in each is worked out once.
//!
//! Of the eight words of a data header five say who sends what where, and stay as they
//! are as long as the flow lives; its check is a sum, so their part of it stays, too. A
//! sender keeps a [`FlowHead`] for each of its sources, a receiver one of the frame it had
//! last. Both only save work: every header is written, and is accepted, exactly as by
//! [`DataHeader::encode`] and [`DataHeader::decode_frame`].

use crate::data::{AT_CHECK, CLOSING, DataHeader, HEADER_BYTES, Kind, Leg, check_of_word, get_u64};
use insane_core::Lane;

/// Words of a header that differ from one frame of a flow to the next.
const SEQUENCE: usize = 4;
const INSTANT: usize = 5;
const LENGTH: usize = 7;
/// Words that do not, beside the lower half of word 0.
const ALIKE: [usize; 4] = [1, 2, 3, 6];

/// The lane, in word 0: byte 3, below the flags.
const LANE: u64 = 7 << 24;
/// Where the kind begins in word 0: byte 2.
const KIND_AT: u32 = 16;
/// Where the leg begins in word 0: the last bits of byte 3.
const LEG_AT: u32 = 29;

const _: () = assert!(AT_CHECK == 4, "the check is the upper half of word 0");

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct FlowHead {
    /// The check, and the words that differ, are 0.
    words: [u64; HEADER_BYTES / 8],
    /// What they add to the check.
    sum: u64,
}

impl FlowHead {
    /// That of the flow of a header.
    #[must_use]
    pub fn new(header: &DataHeader) -> Self {
        let plain = DataHeader { sequence: 0, source_instant: 0, message_len: 0, fragment_offset: 0, ..*header };
        let bytes = plain.encode();
        let mut words: [u64; HEADER_BYTES / 8] = std::array::from_fn(|word| get_u64(&bytes, word * 8));
        words[0] &= u64::from(u32::MAX);
        FlowHead { words, sum: sum_of(&words) }
    }

    /// Its frames travel in another lane from now on.
    pub fn set_lane(&mut self, lane: Lane) {
        self.words[0] = self.words[0] & !LANE | u64::from(lane.get()) << LANE.trailing_zeros();
        self.sum = sum_of(&self.words);
    }

    /// On which leg its frames go.
    #[must_use]
    pub const fn leg(&self) -> Leg {
        Leg::of((self.words[0] >> LEG_AT) as u8)
    }

    /// Its frames go on another leg from now on.
    pub fn set_leg(&mut self, leg: Leg) {
        let mask = (Leg::MASK as u64) << LEG_AT;
        self.words[0] = self.words[0] & !mask | u64::from(leg.get()) << LEG_AT;
        self.sum = sum_of(&self.words);
    }

    /// The fence that says that a leg of the flow ended with the message `last`.
    #[must_use]
    pub fn fence(&self, leg: Leg, last: u64) -> [u8; HEADER_BYTES] {
        self.end(leg, last, 0)
    }

    /// The fence that says that the flow has ended on its present leg, before message `next`.
    #[must_use]
    pub fn closing(&self, next: u64) -> [u8; HEADER_BYTES] {
        self.end(self.leg(), next, CLOSING)
    }

    fn end(&self, leg: Leg, sequence: u64, source_instant: u64) -> [u8; HEADER_BYTES] {
        let mut fence = self.clone();
        fence.words[0] = fence.words[0] & !(0xff << KIND_AT) | (Kind::Fence as u64) << KIND_AT;
        fence.set_leg(leg);
        fence.encode(sequence, source_instant, 0, 0)
    }

    /// The header of one frame of the flow.
    #[must_use]
    #[inline]
    pub fn encode(
        &self,
        sequence: u64,
        source_instant: u64,
        message_len: u32,
        fragment_offset: u32,
    ) -> [u8; HEADER_BYTES] {
        let length = u64::from(message_len) | u64::from(fragment_offset) << u32::BITS;
        let check = self.check(sequence, source_instant, length);
        let [first, stream, host, incarnation, _, _, ends, _] = self.words;
        let words = [first | check << u32::BITS, stream, host, incarnation, sequence, source_instant, ends, length];
        let mut bytes = [0; HEADER_BYTES];
        for (into, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *into = word.to_le_bytes();
        }
        bytes
    }

    /// Sequence, source instant and payload of a frame that carries a whole message of this
    /// flow. `None`: it is another frame, or no good one.
    #[must_use]
    #[inline]
    pub fn decode_whole<'f>(&self, frame: &'f [u8]) -> Option<(u64, u64, &'f [u8])> {
        let (head, payload) = frame.split_first_chunk::<HEADER_BYTES>()?;
        let word = |at: usize| get_u64(head, at * 8);
        let differ = ALIKE.iter().fold(0, |differ, at| differ | (word(*at) ^ self.words[*at]));
        let first = word(0) ^ self.words[0];
        let (sequence, source_instant, length) = (word(SEQUENCE), word(INSTANT), word(LENGTH));
        let check = self.check(sequence, source_instant, length);
        let is_whole = length == payload.len() as u64;
        (differ == 0 && first == check << u32::BITS && is_whole).then_some((sequence, source_instant, payload))
    }

    #[inline]
    fn check(&self, sequence: u64, source_instant: u64, length: u64) -> u64 {
        let own = [(SEQUENCE, sequence), (INSTANT, source_instant), (LENGTH, length)];
        own.iter().fold(self.sum, |sum, (at, word)| sum.wrapping_add(check_of_word(*at, *word))) >> u32::BITS
    }
}

/// What the words that are alike add to the check.
fn sum_of(words: &[u64; HEADER_BYTES / 8]) -> u64 {
    words.iter().enumerate().fold(0, |sum: u64, (at, word)| sum.wrapping_add(check_of_word(at, *word)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tests::any_header;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn headers_are_written_like_any_others(flow in any_header(), own in any_header()) {
            let DataHeader { sequence, source_instant, message_len, fragment_offset, .. } = own;
            let header = DataHeader { sequence, source_instant, message_len, fragment_offset, ..flow };
            let head = FlowHead::new(&flow);
            prop_assert_eq!(head.encode(sequence, source_instant, message_len, fragment_offset), header.encode());
        }

        #[test]
        fn a_flow_in_another_lane_is_written_like_any_other(flow in any_header(), lane in 0..8_u8) {
            let lane = Lane::new(lane).unwrap();
            let mut head = FlowHead::new(&flow);
            head.set_lane(lane);
            let header = DataHeader { lane, sequence: 5, source_instant: 7, message_len: 9, fragment_offset: 0, ..flow };
            prop_assert_eq!(head.encode(5, 7, 9, 0), header.encode());
        }

        #[test]
        fn a_flow_on_another_leg_is_written_like_any_other(flow in any_header(), leg in 0..8_u8) {
            let leg = Leg::of(leg);
            let mut head = FlowHead::new(&flow);
            head.set_leg(leg);
            prop_assert_eq!(head.leg(), leg);
            let flags = flow.flags.with_leg(leg);
            let header = DataHeader { flags, sequence: 5, source_instant: 7, message_len: 9, fragment_offset: 0, ..flow };
            prop_assert_eq!(header.flags.leg(), leg);
            prop_assert_eq!(head.encode(5, 7, 9, 0), header.encode());
            let fence = DataHeader { kind: Kind::Fence, source_instant: 0, message_len: 0, ..header };
            prop_assert_eq!(FlowHead::new(&flow).fence(leg, 5), fence.encode());
            let closing = DataHeader { source_instant: CLOSING, flags: flow.flags, ..fence };
            prop_assert_eq!(FlowHead::new(&flow).closing(5), closing.encode());
            prop_assert!(closing.closes_flow() && !fence.closes_flow());
        }

        #[test]
        fn whole_messages_of_the_flow_are_read_like_any_others(header in any_header(), len in 0..300_u32) {
            let header = DataHeader { message_len: len, fragment_offset: 0, ..header };
            let frame = [&header.encode()[..], &vec![7; len as usize]].concat();
            let read = FlowHead::new(&header).decode_whole(&frame);
            prop_assert_eq!(read, Some((header.sequence, header.source_instant, &frame[HEADER_BYTES..])));
        }

        /// Whatever it accepts, the decoder of any frame accepts, too, and reads the same.
        #[test]
        fn nothing_else_is_accepted(
            header in any_header(), len in 0..200_u32, cut in 0..300_usize, at in 0..HEADER_BYTES, bits: u8, other in any_header(),
        ) {
            let header = DataHeader { message_len: len, fragment_offset: 0, ..header };
            let head = FlowHead::new(&header);
            let good = [&header.encode()[..], &vec![7; len as usize]].concat();
            let mut changed = good.clone();
            changed[at] ^= bits;
            let foreign = [&other.encode()[..], &vec![7; len as usize]].concat();
            for frame in [&changed[..], &good[..cut.min(good.len())], &foreign[..]] {
                let read = head.decode_whole(frame);
                match DataHeader::decode_frame(frame) {
                    Ok((same, payload)) if same.is_whole(payload.len())
                        && DataHeader { sequence: 0, source_instant: 0, message_len: 0, ..same }
                            == DataHeader { sequence: 0, source_instant: 0, message_len: 0, ..header } =>
                    {
                        prop_assert_eq!(read, Some((same.sequence, same.source_instant, payload)));
                    }
                    _ => prop_assert_eq!(read, None),
                }
            }
        }
    }
}
