//! The headers of the datagram that was taken last, by which the next of its kind is known.
//!
//! Nearly all frames of a busy link are alike in their 42 bytes of headers (IPv4 without tag and
//! options), but for two lengths, the identification and two checksums. Whoever has taken one
//! keeps the rest, as words with a mask, and compares the next with it, instead of taking it
//! apart, comparing each part and looking its sender up. Lengths and checksums of each are
//! looked at.
//!
//! It saves work and decides nothing: what it takes is taken the same way by
//! [`Stack::receive`](crate::Stack::receive) and [`Peers::find`](crate::Peers::find). So it is
//! to be [forgotten](Known::forget) with every change of those.

use crate::ip::{IPV4_BYTES, UDP_BYTES};
use crate::outgoing::{PLAIN_AT_IP, PLAIN_AT_UDP, PLAIN_BYTES};
use crate::stack::{Checksums, is_intact};
use core::ops::Range;
use insane_core::PeerIndex;

/// Words that are compared; the checksum of UDP is behind them.
const WORDS: usize = PLAIN_BYTES / 8;

/// Fields that differ from one datagram to the next: lengths, identification, checksum of IP.
const DIFFER: [Range<usize>; 3] =
    [PLAIN_AT_IP + 2..PLAIN_AT_IP + 6, PLAIN_AT_IP + 10..PLAIN_AT_IP + 12, PLAIN_AT_UDP + 4..PLAIN_AT_UDP + 6];

/// The bits that are compared.
const MASK: [u64; WORDS] = words(&mask());

const fn mask() -> [u8; PLAIN_BYTES] {
    let mut mask = [0xff; PLAIN_BYTES];
    let mut field = 0;
    while field < DIFFER.len() {
        let mut at = DIFFER[field].start;
        while at < DIFFER[field].end {
            mask[at] = 0;
            at += 1;
        }
        field += 1;
    }
    mask
}

#[inline(always)]
const fn words(head: &[u8; PLAIN_BYTES]) -> [u64; WORDS] {
    let (chunks, _) = head.as_chunks::<8>();
    let mut words = [0; WORDS];
    let mut at = 0;
    while at < WORDS {
        words[at] = u64::from_ne_bytes(chunks[at]);
        at += 1;
    }
    words
}

/// See the module's documentation. Each class of a link has one of its own, since it holds a port.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    words: [u64; WORDS],
    /// `None`: nothing is known.
    from: Option<PeerIndex>,
}

impl Default for Known {
    fn default() -> Self {
        Self::new()
    }
}

impl Known {
    /// Nothing.
    #[must_use]
    pub const fn new() -> Self {
        Known { words: [0; WORDS], from: None }
    }

    /// The peer and the payload's place of a frame that is like the last one, and intact. `None`: it
    /// is another, or something is wrong with it.
    #[must_use]
    #[inline]
    pub fn again(&self, frame: &[u8], checksums: Checksums) -> Option<(PeerIndex, Range<usize>)> {
        let from = self.from?;
        let (head, behind) = frame.split_first_chunk::<PLAIN_BYTES>()?;
        let alike = words(head).into_iter().zip(&self.words).zip(&MASK);
        let differ = alike.fold(0, |differ, ((word, known), mask)| differ | (word ^ known) & mask);
        let length = |at: usize| usize::from(u16::from_be_bytes([head[at], head[at + 1]]));
        let (ip_length, udp_length) = (length(PLAIN_AT_IP + 2), length(PLAIN_AT_UDP + 4));
        let fits =
            udp_length >= UDP_BYTES && IPV4_BYTES + udp_length <= ip_length && ip_length <= frame.len() - PLAIN_AT_IP;
        if differ != 0 || !fits {
            return None;
        }
        let payload = behind.get(..udp_length - UDP_BYTES)?;
        is_intact(head, payload, checksums).then_some((from, PLAIN_BYTES..PLAIN_BYTES + payload.len()))
    }

    /// This frame was taken as a datagram of this peer, by `Stack::receive`. Only of a plain
    /// one something is kept.
    #[inline]
    pub fn keep(&mut self, from: PeerIndex, frame: &[u8], payload: &Range<usize>) {
        if payload.start == PLAIN_BYTES
            && let Some(head) = frame.first_chunk()
        {
            *self = Known { words: words(head), from: Some(from) };
        }
    }

    /// What was known may not be so any more.
    pub const fn forget(&mut self) {
        self.from = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ethernet::Mac;
    use crate::marks::Marks;
    use crate::outgoing::Template;
    use crate::stack::tests::host;
    use crate::stack::{Received, Stack};
    use core::net::SocketAddr;
    use insane_core::{Lane, MonoTime};
    use proptest::prelude::*;
    use std::vec::Vec;

    const PEER: PeerIndex = PeerIndex(7);

    fn frame(payload: &[u8]) -> Vec<u8> {
        let to: SocketAddr = "10.0.0.2:7401".parse().unwrap();
        let template = Template::new(&host(1, Checksums::Verify), 7401, to, Marks::of(Lane::LAST, 46)).unwrap();
        let mut frame = std::vec![0; PLAIN_BYTES];
        frame.extend_from_slice(payload);
        assert!(template.write(Mac([2, 0, 0, 0, 0, 2]), false, &mut frame));
        frame
    }

    fn in_full(frame: &[u8], checksums: Checksums) -> Option<Range<usize>> {
        let mut stack = Stack::<1>::new(host(2, checksums)).unwrap();
        match stack.receive(MonoTime(0), frame, &mut [0; 2048]) {
            Received::Datagram { from, port: 7401, payload } if from == "10.0.0.1:7401".parse().unwrap() => {
                Some(payload)
            }
            _ => None,
        }
    }

    fn known(of: &[u8]) -> Known {
        let mut known = Known::new();
        assert_eq!(known.again(of, Checksums::Trust), None, "nothing is known yet");
        known.keep(PEER, of, &in_full(of, Checksums::Verify).unwrap());
        known
    }

    proptest! {
        /// Any byte of any frame changed: what is known takes nothing that is not taken in full,
        /// and what both take is the same.
        #[test]
        fn it_takes_what_is_taken_in_full(
            first in proptest::collection::vec(any::<u8>(), 0..200),
            second in proptest::collection::vec(any::<u8>(), 0..200),
            padding in 0_usize..20,
            changes in proptest::collection::vec((0_usize..260, any::<u8>()), 0..3),
            checksums in prop_oneof![
                Just(Checksums::Verify), Just(Checksums::VerifyOrUnfinished), Just(Checksums::Trust)
            ],
        ) {
            let known = known(&frame(&first));
            let mut frame = frame(&second);
            frame.resize(frame.len() + padding, 0);
            prop_assert_eq!(known.again(&frame, checksums), in_full(&frame, checksums).map(|at| (PEER, at)));
            for (at, by) in changes {
                let at = at % frame.len();
                frame[at] ^= by;
            }
            let taken = known.again(&frame, checksums);
            if taken.is_some() {
                prop_assert_eq!(taken, in_full(&frame, checksums).map(|at| (PEER, at)));
            }
        }
    }

    #[test]
    fn lengths_differ_and_nothing_else() {
        let known = known(&frame(b"first"));
        let mut next = frame(b"another length");
        assert_eq!(known.again(&next, Checksums::Verify), Some((PEER, PLAIN_BYTES..PLAIN_BYTES + 14)));
        for cut in 0..next.len() {
            assert_eq!(known.again(&next[..cut], Checksums::Trust), None, "{cut} bytes of it");
        }
        for at in (0..PLAIN_BYTES).filter(|at| !DIFFER.iter().any(|field| field.contains(at)) && *at < 8 * WORDS) {
            next[at] ^= 1;
            assert_eq!(known.again(&next, Checksums::Trust), None, "byte {at}");
            next[at] ^= 1;
        }
    }

    #[test]
    fn what_is_forgotten_is_not_known() {
        let first = frame(b"first");
        let mut known = known(&first);
        assert!(known.again(&first, Checksums::Verify).is_some());
        known.forget();
        assert_eq!(known.again(&first, Checksums::Verify), None);
    }
}
