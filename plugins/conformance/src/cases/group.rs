//! One frame to all members of a group. Where the technology has none, each case checks that
//! its links say so.

use crate::Fixture;
use crate::frames::{
    Arrival, Keep, PATIENCE, lane_of, must_send, number_of, pattern, receive, take_what_is_there, wait_for,
};
use insane_core::PeerIndex;
use insane_link::{FrameSink, Link, SendOutcome};
use insane_sys::clock::mono_now;
use insane_sys::{SharedBytes, guard};
use std::time::Instant;

/// Sends [`pattern`]`(number, len)` to the group, half of it as payload.
fn send_group<L: Link>(link: &mut L, lane: u8, number: u32, len: usize) -> SendOutcome {
    let frame = pattern(number, len);
    let (head, payload) = frame.split_at(len / 2);
    link.send_group(lane_of(lane), head, SharedBytes::from(payload))
}

fn must_send_group<L: Link>(link: &mut L, lane: u8, number: u32, len: usize) {
    assert_eq!(send_group(link, lane, number, len), SendOutcome::Sent, "frame {number} of {len} bytes to the group");
}

/// Members of a group; `None`, and what must hold then, where there are none.
fn members<F: Fixture>(fixture: &mut F, count: usize) -> Option<Vec<F::Link>> {
    if let Some(links) = fixture.open_group(count) {
        assert!(links.iter().all(|link| link.capabilities().multicast), "a member says that it is one");
        return Some(links);
    }
    let mut links = fixture.open(2);
    for link in &mut links {
        assert!(!link.capabilities().multicast, "a link without a group says that it has one");
        for lane in [0, 7] {
            assert_eq!(send_group(link, lane, 1, 40), SendOutcome::Failed, "there is no group");
        }
        link.flush();
    }
    for link in &mut links {
        assert_eq!(take_what_is_there(fixture, link).0, []);
    }
    None
}

/// Each of four members sends to the group: all others get the frame once, in the name of
/// its sender and in order, and the sender gets nothing.
pub fn a_group_frame_reaches_every_member_once<F: Fixture>(fixture: &mut F) {
    let Some(mut links) = members(fixture, 4) else { return };
    for round in 0..5_u32 {
        for (from, link) in links.iter_mut().enumerate() {
            for at in 0..10 {
                must_send_group(link, 6, round << 16 | (from as u32) << 8 | at, 90);
            }
            link.flush();
        }
        for (to, link) in links.iter_mut().enumerate() {
            let mut next = [0; 4];
            for Arrival { from, bytes } in wait_for(fixture, link, 30).0 {
                let number = number_of(&bytes);
                let sender = (number >> 8 & 0xff) as usize;
                assert_ne!(sender, to, "a frame came back to its sender");
                assert_eq!(from, Some(PeerIndex(sender as u16)), "the sender of a frame");
                assert_eq!((number >> 16, number & 0xff), (round, next[sender]), "the order of frames to the group");
                next[sender] += 1;
            }
        }
    }
    for link in &mut links {
        assert_eq!(take_what_is_there(fixture, link).0, [], "a frame came twice");
    }
}

/// Every lane, and every size up to the limit; nothing above it.
pub fn a_group_has_every_size_and_lane<F: Fixture>(fixture: &mut F) {
    let Some(mut links) = members(fixture, 3) else { return };
    let limit = links[0].capabilities().frame_bytes_max as usize;
    let sizes = [8, 63, 64, 256, 257, 508, limit / 2, limit - 1, limit];
    for lane in 0..8 {
        for (number, len) in (0..).zip(sizes) {
            must_send_group(&mut links[0], lane, number, len);
            links[0].flush();
            for receiver in [1, 2] {
                let kept = wait_for(fixture, &mut links[receiver], 1);
                assert_eq!((kept.numbers(), kept.0[0].bytes.len()), (vec![number], len), "lane {lane}");
            }
        }
        assert_eq!(send_group(&mut links[0], lane, 1, limit + 1), SendOutcome::Failed, "a frame above the limit");
        links[0].flush();
    }
    assert_eq!(take_what_is_there(fixture, &mut links[1]).0, []);
}

/// Frames to one peer between those to the group go to that peer alone, and none is lost.
pub fn frames_to_the_group_and_to_one_are_apart<F: Fixture>(fixture: &mut F) {
    let Some(mut links) = members(fixture, 3) else { return };
    for number in 0..30 {
        if number % 3 == 0 {
            must_send(&mut links[0], 1, 5, number, 100);
        } else {
            must_send_group(&mut links[0], 5, number, 100);
        }
    }
    links[0].flush();
    let of_all: Vec<u32> = (0..30).filter(|number| number % 3 != 0).collect();
    assert_eq!(wait_for(fixture, &mut links[2], of_all.len()).numbers(), of_all);
    let mut at_first = wait_for(fixture, &mut links[1], 30).numbers();
    let alone: Vec<u32> = at_first.iter().copied().filter(|number| number % 3 == 0).collect();
    assert_eq!(alone, (0..30).step_by(3).collect::<Vec<_>>(), "the order of frames to one");
    at_first.sort_unstable();
    assert_eq!(at_first, (0..30).collect::<Vec<_>>());
    assert_eq!(take_what_is_there(fixture, &mut links[2]).0, []);
}

#[derive(Default)]
struct Count(u32);

impl FrameSink for Count {
    fn frame(&mut self, _from: Option<PeerIndex>, _frame: &[u8]) {
        self.0 += 1;
    }
}

/// Neither sending to the group nor receiving from it allocates, bursts and refusals
/// included.
pub fn nothing_is_allocated_for_a_group<F: Fixture>(fixture: &mut F) {
    let Some(mut links) = members(fixture, 3) else { return };
    let frame = pattern(1, 200);
    let too_large = vec![0; links[0].capabilities().frame_bytes_max as usize + 1];
    let before = guard::violations_here();
    for round in 0..4 {
        guard::seal_thread();
        let mut sent = 0;
        for _ in 0..1 + 13 * round {
            let outcome = links[0].send_group(lane_of(round as u8), &frame, SharedBytes::EMPTY);
            sent += u32::from(outcome == SendOutcome::Sent);
        }
        let refused = links[0].send_group(lane_of(0), &too_large, SharedBytes::EMPTY);
        links[0].flush();
        guard::unseal_thread();
        assert_eq!(refused, SendOutcome::Failed);
        let mut count = Count::default();
        let end = Instant::now() + PATIENCE;
        while count.0 < sent && Instant::now() < end {
            fixture.settle();
            guard::seal_thread();
            links[1].tend(mono_now());
            links[1].receive(16, true, &mut count);
            guard::unseal_thread();
        }
        assert_eq!((count.0, sent), (1 + 13 * round, 1 + 13 * round), "frames of round {round}");
        receive(&mut links[2], 64, true, &mut Keep::default());
    }
    assert_eq!(guard::violations_here() - before, 0, "allocations in sending to a group, or receiving from it");
}
