//! What needs no second thought about frames: waiting, memory, capabilities.

use crate::Fixture;
use crate::frames::{Keep, PATIENCE, fitting, lane_of, links, must_send, pattern, receive, wait_for};
use insane_core::PeerIndex;
use insane_link::{FrameSink, Link, SendOutcome};
use insane_sys::SharedBytes;
use insane_sys::clock::mono_now;
use insane_sys::guard;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::time::Instant;

/// A link that offers descriptors offers at most sixteen, and one of them is readable
/// when a frame waits, on whatever lane, and none when nothing does.
pub fn waiting_is_possible<F: Fixture>(fixture: &mut F) {
    let [mut a, mut b] = links(fixture);
    let offered = b.readable_fds().count();
    assert!(offered <= 16, "{offered} descriptors");
    assert_eq!(is_readable(&b, 0), None, "nothing was sent");
    for lane in 0..8 {
        must_send(&mut a, 1, lane, u32::from(lane), 50);
        a.flush();
        if offered > 0 {
            assert!(is_readable(&b, PATIENCE.as_millis() as u16).is_some(), "a frame waits on lane {lane}");
        }
        wait_for(fixture, &mut b, 1);
        assert_eq!(is_readable(&b, 0), None, "lane {lane} was taken");
    }
    for number in 0..3 {
        must_send(&mut a, 1, 7, number, 50);
    }
    a.flush();
    let mut kept = Keep::default();
    let end = Instant::now() + PATIENCE;
    while receive(&mut b, 1, true, &mut kept) == 0 && Instant::now() < end {
        fixture.settle();
    }
    let tells = offered == 0 || b.holds_frames() || is_readable(&b, PATIENCE.as_millis() as u16).is_some();
    assert!(tells, "two frames are left for want of budget, and a datapath would sleep");
    wait_for(fixture, &mut b, 2);
    assert!(!b.holds_frames(), "all were taken");
}

/// Which of the descriptors is readable first, within `time_ms`.
fn is_readable<L: Link>(link: &L, time_ms: u16) -> Option<usize> {
    let mut waits: Vec<_> = link.readable_fds().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    if waits.is_empty() {
        return None;
    }
    let Ok(_) = poll(&mut waits, PollTimeout::from(time_ms)) else { panic!("a descriptor cannot be waited for") };
    waits.iter().position(|wait| wait.any().unwrap_or(true))
}

/// Counts what comes, without memory.
#[derive(Default)]
struct Count {
    frames: u32,
    bytes: usize,
}

impl FrameSink for Count {
    fn frame(&mut self, _from: Option<PeerIndex>, frame: &[u8]) {
        self.frames += 1;
        self.bytes += frame.len();
    }
}

/// From the first frame on, nothing is allocated or released: neither in sending
/// (refusals included) nor in receiving (strangers, bursts and idle calls included).
pub fn nothing_is_allocated<F: Fixture>(fixture: &mut F) {
    let before = guard::violations_here();
    guard::seal_thread();
    drop(std::hint::black_box(Box::new(0)));
    guard::unseal_thread();
    assert!(guard::violations_here() > before, "this test binary lacks insane_conformance::watch_allocations!()");

    // Two links may refuse to hear strangers; three do not.
    let [mut a, mut b, _third] = links(fixture);
    let frame = pattern(1, fitting(&a, 900));
    let too_large = vec![0; a.capabilities().frame_bytes_max as usize + 1];
    let before = guard::violations_here();
    let mut count = Count::default();
    for round in 0..4u8 {
        fixture.send_as_stranger(1, &frame);
        let sent = sealed(|| send_round(&mut a, round, &frame, &too_large));
        let expected = count.frames + sent + u32::from(fixture.hands_out_strangers());
        let end = Instant::now() + PATIENCE;
        let mut call = 0u32;
        while count.frames < expected && Instant::now() < end {
            fixture.settle();
            sealed(|| {
                a.tend(mono_now());
                b.tend(mono_now());
                b.receive(1 + call % 40, call.is_multiple_of(4), &mut count)
            });
            call += 1;
        }
        assert_eq!(count.frames, expected, "frames of round {round}");
    }
    assert_eq!(guard::violations_here() - before, 0, "allocations in send, flush, receive or tend");
    assert!(count.bytes > 0);
}

/// Frames on all lanes, and every kind of refusal; returns how many were taken.
fn send_round<L: Link>(link: &mut L, round: u8, frame: &[u8], too_large: &[u8]) -> u32 {
    let mut sent = 0;
    for number in 0..40u8 {
        let (head, payload) = frame.split_at(24);
        let lane = lane_of((number + round) % 8);
        if link.send(PeerIndex(1), lane, head, SharedBytes::from(payload)) == SendOutcome::Sent {
            sent += 1;
        }
        let refused = link.send(PeerIndex(1), lane, head, SharedBytes::from(too_large));
        assert_eq!(refused, SendOutcome::Failed);
        assert_eq!(link.send(PeerIndex(99), lane, head, SharedBytes::EMPTY), SendOutcome::Failed);
    }
    link.flush();
    sent
}

/// Runs `action` on a sealed thread.
pub(super) fn sealed<T>(action: impl FnOnce() -> T) -> T {
    guard::seal_thread();
    let result = action();
    guard::unseal_thread();
    result
}

/// Capabilities say something, and always the same.
pub fn what_it_can_do_is_fixed<F: Fixture>(fixture: &mut F) {
    let [mut a, mut b] = links(fixture);
    let before = a.capabilities();
    assert!(!before.technology.is_empty());
    assert!(before.frame_bytes_max >= 256, "a frame holds a header and an in-line payload");
    must_send(&mut a, 1, 0, 1, 64);
    a.flush();
    wait_for(fixture, &mut b, 1);
    assert_eq!(a.capabilities(), before);
    assert_eq!(b.capabilities(), before, "links of one fixture are alike");
}
