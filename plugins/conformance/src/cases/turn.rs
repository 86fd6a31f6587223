//! Lanes, order and budget.

use crate::Fixture;
use crate::frames::{
    Keep, PATIENCE, lane_of, links, must_send, number_of, pattern, receive, take_what_is_there, wait_for,
};
use insane_core::PeerIndex;
use insane_link::{Link, SendOutcome};
use std::time::Instant;

/// Bytes of the head of a frame that is sent alone.
const HEAD_BYTES: usize = 64;

/// A frame of each lane arrives.
pub fn every_lane_arrives<F: Fixture>(fixture: &mut F) {
    let [mut a, mut b] = links(fixture);
    for lane in 0..8 {
        must_send(&mut a, 1, lane, u32::from(lane), 64);
    }
    a.flush();
    let mut numbers = wait_for(fixture, &mut b, 8).numbers();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..8).collect::<Vec<_>>());
}

/// Frames of one lane arrive in the order in which they were sent, on a network
/// that does not reorder, however lanes are mixed and however they are taken.
pub fn order_is_kept_within_peer_and_lane<F: Fixture>(fixture: &mut F) {
    let [mut a, mut b] = links(fixture);
    let mut next = [0; 8];
    for round in 0..20u32 {
        for step in 0..32u32 {
            // Three in a row, then another lane; 5 and 8 have no common factor: all lanes,
            // in changing order.
            let lane = ((step / 3 * 5 + round) % 8) as u8;
            must_send(&mut a, 1, lane, u32::from(lane) << 24 | (round * 32 + step), 40);
        }
        a.flush();
        let mut kept = Keep::default();
        let end = Instant::now() + PATIENCE;
        let mut call = 0u32;
        while kept.0.len() < 32 && Instant::now() < end {
            fixture.settle();
            receive(&mut b, 1 + call % 7, call.is_multiple_of(3), &mut kept);
            call += 1;
        }
        assert_eq!(kept.0.len(), 32, "frames of round {round}");
        for number in kept.numbers() {
            let (lane, sequence) = ((number >> 24) as usize, number & 0xff_ffff);
            assert!(sequence >= next[lane], "lane {lane}: {sequence} after {}", next[lane]);
            next[lane] = sequence + 1;
        }
    }
}

/// A frame that is sent alone arrives, of any size, and overtakes none of its lane that
/// was sent before it; what is too large is refused as ever.
pub fn a_frame_sent_alone_keeps_its_place<F: Fixture>(fixture: &mut F) {
    let [mut a, mut b] = links(fixture);
    let limit = a.capabilities().frame_bytes_max as usize;
    let mut number = 0;
    for len in [40, 200, 1000, limit].map(|len| len.min(limit)) {
        for before in 0..4 {
            for _ in 0..before {
                must_send(&mut a, 1, 6, number, len.min(200));
                number += 1;
            }
            let frame = pattern(number, len);
            let (head, payload) = frame.split_at(len.min(HEAD_BYTES));
            let sent = a.send_alone(PeerIndex(1), lane_of(6), head, payload.into());
            assert_eq!(sent, SendOutcome::Sent, "frame {number} of {len} bytes");
            number += 1;
            a.flush();
            let kept = wait_for(fixture, &mut b, before as usize + 1);
            let expected: Vec<u32> = (number - 1 - before..number).collect();
            assert_eq!(kept.numbers(), expected, "{before} before one of {len} bytes");
        }
    }
    let large = vec![1; limit + 1 - HEAD_BYTES];
    let head = [1; HEAD_BYTES];
    assert_eq!(a.send_alone(PeerIndex(1), lane_of(6), &head, large[..].into()), SendOutcome::Failed, "too large");
    assert_eq!(a.send_alone(PeerIndex(7), lane_of(6), &head, (&head[..]).into()), SendOutcome::Failed, "no such peer");
}

/// A thorough call hands out waiting real-time frames before any other, also when
/// the others came earlier, and also when the budget ends among them.
pub fn real_time_goes_first<F: Fixture>(fixture: &mut F) {
    let [mut a, mut b] = links(fixture);
    // Frames may still be on their way when a call looks, which then cannot do better:
    // what counts is that rounds succeed one after another.
    let end = Instant::now() + PATIENCE;
    let (mut in_a_row, mut round) = (0, 0u32);
    while in_a_row < 8 && Instant::now() < end {
        for number in 0..10 {
            must_send(&mut a, 1, 3 + (number % 5) as u8, 100 + number, 50);
        }
        for number in 0..10 {
            must_send(&mut a, 1, (number % 3) as u8, number, 50);
        }
        a.flush();
        for _ in 0..10 {
            fixture.settle();
        }
        let mut kept = Keep::default();
        let budget = [20, 6, 15, 1][round as usize % 4];
        receive(&mut b, budget, true, &mut kept);
        let is_real_time: Vec<bool> = kept.numbers().iter().map(|number| *number < 100).collect();
        let expected: Vec<bool> = (0..budget).map(|place| place < 10).collect();
        in_a_row = if is_real_time == expected { in_a_row + 1 } else { 0 };
        let rest = take_what_is_there(fixture, &mut b);
        assert_eq!(kept.0.len() + rest.0.len(), 20, "frames of round {round}");
        round += 1;
    }
    assert!(in_a_row >= 8, "{round} rounds, but thorough calls do not hand out real-time frames first");
}

/// No call hands out more than asked; nothing is lost by asking for little.
pub fn the_budget_is_respected<F: Fixture>(fixture: &mut F) {
    let [mut a, mut b] = links(fixture);
    for (round, budget) in [1, 2, 7, 33, 1000].into_iter().enumerate() {
        for number in 0..50 {
            must_send(&mut a, 1, (number % 8) as u8, number, 60);
        }
        a.flush();
        let mut kept = Keep::default();
        let end = Instant::now() + PATIENCE;
        let mut call = 0u32;
        while kept.0.len() < 50 && Instant::now() < end {
            fixture.settle();
            assert_eq!(receive(&mut b, 0, true, &mut kept), 0);
            assert_eq!(receive(&mut b, 0, false, &mut kept), 0);
            receive(&mut b, budget, call.is_multiple_of(2), &mut kept);
            call += 1;
        }
        let mut numbers = kept.numbers();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..50).collect::<Vec<_>>(), "round {round}, budget {budget}");
    }
}

/// With one thorough call in sixteen every frame is found, whatever lanes are in use.
pub fn hurried_calls_find_everything<F: Fixture>(fixture: &mut F) {
    let [mut a, mut b] = links(fixture);
    let mut kept = Keep::default();
    let mut call = 0u32;
    for number in 0..64u32 {
        // Runs of eight frames in one lane, so that the link settles on a place to look.
        let lane = [7, 0, 4, 2, 3, 1, 5, 6][number as usize / 8];
        must_send(&mut a, 1, lane, number, 30);
        a.flush();
        let end = Instant::now() + PATIENCE;
        while kept.0.len() <= number as usize && Instant::now() < end {
            fixture.settle();
            receive(&mut b, 8, call.is_multiple_of(16), &mut kept);
            call += 1;
        }
        assert_eq!(kept.0.last().map(|arrival| number_of(&arrival.bytes)), Some(number), "lane {lane}");
    }
}
