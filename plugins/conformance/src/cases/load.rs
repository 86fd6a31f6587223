//! More than fits.

use crate::Fixture;
use crate::frames::{Keep, PATIENCE, fitting, links, must_send, receive, send_pattern, take_what_is_there, wait_for};
use insane_core::PeerIndex;
use insane_link::{Link, SendOutcome};
use std::time::Instant;

/// Frames of one burst: more than any queue that a test leaves at its default holds.
const BURST: u32 = 8_000;

/// Sends until the link is busy, or [`BURST`] frames; returns how many it took.
fn burst<L: Link>(link: &mut L, lane: u8, len: usize) -> u32 {
    for number in 0..BURST {
        match send_pattern(link, 1, lane, number, len) {
            SendOutcome::Sent => {}
            SendOutcome::Busy => {
                link.flush();
                return number;
            }
            SendOutcome::Failed => panic!("frame {number} of a burst failed"),
        }
    }
    link.flush();
    BURST
}

/// Of a burst that nobody takes, what arrives is whole, in order, and once; a
/// lossless link loses none of it.
pub fn a_burst_loses_nothing_unseen<F: Fixture>(fixture: &mut F) {
    for lane in [0, 7] {
        let [mut a, mut b] = links(fixture);
        let len = fitting(&a, 1000);
        let sent = burst(&mut a, lane, len);
        assert!(sent > 0, "not one frame was taken");
        let kept = take_what_is_there(fixture, &mut b);
        assert!(kept.0.iter().all(|arrival| arrival.from == Some(PeerIndex(0)) && arrival.bytes.len() == len));
        let numbers = kept.numbers();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "a burst arrives in order, and once");
        assert!(numbers.last().is_none_or(|last| *last < sent), "a frame that was refused arrived");
        assert_eq!(numbers.first(), Some(&0), "the first frame met an empty link");
        if a.capabilities().lossless {
            assert_eq!(numbers.len(), sent as usize, "a lossless link lost frames");
        }
    }
}

/// After a burst that filled it the link carries frames as before, on all lanes.
pub fn a_full_link_recovers<F: Fixture>(fixture: &mut F) {
    let [mut a, mut b] = links(fixture);
    let len = fitting(&a, 500);
    for lane in [7, 0, 7] {
        burst(&mut a, lane, len);
        // Frames that `a` took and found no room for follow with a later flush.
        while !take_what_is_there(fixture, &mut b).0.is_empty() {
            a.flush();
        }
        for number in 0..8 {
            offer(fixture, &mut a, number as u8, number);
        }
        let mut numbers = wait_for(fixture, &mut b, 8).numbers();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..8).collect::<Vec<_>>());
        must_send(&mut b, 0, lane, 9, len);
        b.flush();
        assert_eq!(wait_for(fixture, &mut a, 1).numbers(), [9]);
        assert_eq!(receive(&mut a, 1, true, &mut Keep::default()), 0);
    }
}

/// A link that tells what has not left says of frames that arrived that nothing is left of them.
pub fn what_has_left_is_told_as_gone<F: Fixture>(fixture: &mut F) {
    let [mut a, mut b] = links(fixture);
    let len = fitting(&a, 500);
    for (number, lane) in (0..).zip([0, 7, 0, 7]) {
        must_send(&mut a, 1, lane, number, len);
        a.flush();
        assert_eq!(wait_for(fixture, &mut b, 1).numbers(), [number]);
        let end = Instant::now() + PATIENCE;
        while a.unfinished(lane == 7).is_some_and(|unfinished| unfinished.amount > 0) {
            assert!(Instant::now() < end, "a frame of lane {lane} has arrived, and is told as not gone");
            fixture.settle();
        }
    }
}

/// Offers a frame again while the link is busy, as the engine does.
fn offer<F: Fixture>(fixture: &mut F, link: &mut F::Link, lane: u8, number: u32) {
    let end = Instant::now() + PATIENCE;
    while send_pattern(link, 1, lane, number, 64) != SendOutcome::Sent {
        assert!(Instant::now() < end, "the link stayed busy");
        fixture.settle();
    }
    link.flush();
}
