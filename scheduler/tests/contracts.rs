//! Lanes are held to what is said to arrive in them.

mod common;

use common::{LAST, Timed, now, stream, timing, with};
use insane_core::{Lane, MonoTime};
use insane_scheduler::{Action, Arrivals, FlowIndex, LatePolicy, Limits, Policing, Scheduler, TimedStream};
use proptest::prelude::*;
use std::num::{NonZeroU32, NonZeroU64};

/// 100 bytes take 800 ns; three at once in lane 7, and one more each 10 us.
fn with_contract(streams: &[TimedStream]) -> Box<Timed> {
    under_contract(with(streams), 3, (100, 10_000))
}

/// Lane 7 is held to so many frames at once, and one more each interval.
fn under_contract(mut timed: Box<Timed>, burst_frames: u32, (frame, interval): (u32, u64)) -> Box<Timed> {
    let (frame_bytes, interval_ns) = (NonZeroU32::new(frame).unwrap(), NonZeroU64::new(interval).unwrap());
    let mut arrivals = [None; insane_scheduler::LANES];
    arrivals[7] = Some(Arrivals { frame_bytes, burst_frames, interval_ns });
    timed.set_arrivals(&arrivals);
    timed
}

#[test]
fn a_frame_that_is_larger_than_its_contract_says_is_owed_whole() {
    for burst_frames in [1, 3] {
        let mut lanes = Scheduler::new(Limits::new(1_500, 1_500).unwrap());
        lanes.add(LAST, Lane::LAST, 100_000).unwrap();
        let mut timed = under_contract(Box::new(Timed::new(timing(), lanes)), burst_frames, (100, 10_000));
        timed.ready(LAST, now(0).tai);
        let mut bytes = 0;
        for at in (0..3_000_000).step_by(1_000) {
            if let Action::Chunk { .. } = timed.poll(now(at), 0) {
                timed.sent(LAST, 1_500, true);
                bytes += 1_500;
            }
        }
        // 300 intervals of 100 bytes, the burst, and a last frame that runs over.
        let allowed = (300 + burst_frames) * 100;
        assert!((allowed - 1_500..=allowed + 1_500).contains(&bytes), "{bytes} of {allowed}");
    }
}

#[test]
fn a_lane_saves_nothing_up_while_its_flows_are_held_by_their_own_budgets() {
    let mut timed = with_contract(&[]);
    let slow = FlowIndex(6);
    timed.lanes().add(slow, Lane::LAST, 100_000).unwrap();
    let policing = Policing { rate_bytes_per_s: NonZeroU64::new(1_000).unwrap(), burst_bytes: 100 };
    timed.lanes().police(slow, Some(policing)).unwrap();
    timed.ready(slow, now(0).tai);
    assert!(matches!(timed.poll(now(0), 0), Action::Chunk { .. }));
    timed.sent(slow, 100, true);
    // It waits for its own budget for 100 ms, looked at each millisecond.
    for at in (1..99).map(|ms| ms * 1_000_000) {
        assert!(matches!(timed.poll(now(at), 0), Action::Wait(_)), "{at}");
    }
    timed.ready(LAST, now(99_000_000).tai);
    let mut frames = 0;
    while let Action::Chunk { flow: LAST, budget_bytes } = timed.poll(now(99_000_000), 0) {
        let sent = budget_bytes.div_ceil(100);
        timed.sent(LAST, sent * 100, true);
        frames += sent;
        assert!(frames <= 3, "no more than the burst at once");
    }
    assert_eq!(frames, 3);
}

#[test]
fn a_lane_that_is_flooded_sends_what_its_contract_allows_and_is_told_with_who_did_it() {
    let mut timed = with_contract(&[stream(0, 100_000, 50_000, LatePolicy::NextSlot)]);
    let other = FlowIndex(6);
    timed.lanes().add(other, Lane::new(6).unwrap(), 100_000).unwrap();
    timed.ready(LAST, now(0).tai);
    let (mut frames, mut cuts, mut others) = (0, 0, 0);
    for at in (0..1_000_000).step_by(1_000) {
        // The lane above has something each 100 us, and goes at once, but for the slot.
        if at % 100_000 == 0 {
            timed.ready(other, now(at).tai);
        }
        match timed.poll(now(at), 0) {
            Action::Chunk { flow: LAST, budget_bytes } => {
                let sent = budget_bytes.div_ceil(100);
                timed.sent(LAST, sent * 100, true);
                frames += sent;
            }
            Action::Chunk { flow, .. } => {
                assert_eq!((flow, at % 100_000), (other, 0));
                timed.sent(other, 100, false);
                others += 1;
            }
            Action::Wait(until) => assert!(until > MonoTime(at)),
            Action::Missed { .. } => {}
            told => panic!("{told:?} at {at}"),
        }
        if let Some(told) = timed.take_cut() {
            assert_eq!(told, (7, LAST));
            cuts += 1;
        }
    }
    assert!((99..=103).contains(&frames), "{frames}");
    assert!(others == 10 && (1..=100).contains(&cuts), "{others} {cuts}");
    timed.set_arrivals(&[None; insane_scheduler::LANES]);
    assert_eq!(timed.poll(now(1_000_000), 0), Action::Chunk { flow: LAST, budget_bytes: 1_000 });
}

proptest! {
    /// Arrivals that keep the contract, and a link that is kept from them for any time.
    #[test]
    fn who_keeps_a_contract_is_never_held_up_by_it(
        frame in 1_u32..=100,
        interval in prop_oneof![3..30_000_u64, 1_000_000_000..30_000_000_000_u64],
        // In 10,000ths of the interval, and of the frame.
        waits in prop::collection::vec((0_u64..30_000, 0_u64..60_000, 0_u32..=10_000), 1..100)
    ) {
        let mut timed = under_contract(with(&[]), 3, (frame, interval));
        // What the contract leaves, in nanoseconds: a frame takes an interval.
        let (mut at, mut left, mut queued) = (0, 3 * interval, Vec::new());
        for (gap, busy, share) in waits {
            let busy = if share % 3 == 0 { busy } else { 0 };
            let (gap, busy) = (gap * interval / 10_000, busy * interval / 10_000);
            let bytes = (frame * share / 10_000).max(1);
            at += gap;
            left = (left + gap).min(3 * interval);
            while left >= interval && share % 8 != 0 {
                left -= interval;
                // Most are as large as they may be.
                queued.push(if share % 4 == 0 { bytes } else { frame });
                timed.ready(LAST, now(at).tai);
            }
            // The link is full for so long.
            if busy > 0 {
                let full = u64::from(timing().in_flight_bytes);
                let told = timed.poll(now(at), full);
                prop_assert!(matches!(told, Action::Wait(_) | Action::Idle), "{:?}", told);
                at += busy;
                left = (left + busy).min(3 * interval);
            }
            while !queued.is_empty() {
                let told = timed.poll(now(at), 0);
                let Action::Chunk { budget_bytes, .. } = told else {
                    return Err(TestCaseError::fail(format!("{told:?} with {} queued", queued.len())));
                };
                let mut sent = 0;
                while sent < budget_bytes && let Some(next) = queued.pop() {
                    sent += next;
                }
                timed.sent(LAST, sent, !queued.is_empty());
            }
            prop_assert_eq!(timed.take_cut(), None);
        }
    }
}

/// Sends what is granted, all of it in frames of 100 bytes, of so many that there are.
fn send(timed: &mut Timed, at: u64, mut queued: u32) -> u32 {
    let mut frames = 0;
    while queued > 0
        && let Action::Chunk { flow: LAST, budget_bytes } = timed.poll(now(at), 0)
    {
        let sent = budget_bytes.div_ceil(100).min(queued);
        (queued, frames) = (queued - sent, frames + sent);
        timed.sent(LAST, sent * 100, queued > 0);
    }
    frames
}

#[test]
fn a_lane_that_runs_empty_saves_nothing() {
    let full = u64::from(timing().in_flight_bytes);
    let mut timed = with_contract(&[]);
    timed.ready(LAST, now(0).tai);
    // It waits for 100 intervals: whoever keeps the contract may have 103 frames by then.
    for at in (0..1_000_000).step_by(10_000) {
        assert!(matches!(timed.poll(now(at), full), Action::Wait(_)));
    }
    // But it has one, and has more before anybody looks again.
    assert_eq!(send(&mut timed, 1_000_000, 1), 1);
    timed.ready(LAST, now(1_000_000).tai);
    assert_eq!(send(&mut timed, 1_000_000, 50), 3, "no more than the burst");

    // The same where it is not emptied, but its last flow is taken out.
    let mut timed = with_contract(&[]);
    timed.ready(LAST, now(0).tai);
    for at in (0..1_000_000).step_by(10_000) {
        assert!(matches!(timed.poll(now(at), full), Action::Wait(_)));
    }
    timed.idle(LAST);
    timed.ready(LAST, now(1_000_000).tai);
    assert_eq!(send(&mut timed, 1_000_000, 50), 3);
}

#[test]
fn a_lane_that_is_found_late_is_not_cut() {
    for (polled, came, frames) in [(0, 0, 53), (0, 200_000, 33), (200_000, 0, 53), (0, 500_000, 3)] {
        let mut timed = with_contract(&[]);
        // What nobody found was there all the same while others were looked at.
        assert_eq!(timed.poll(now(polled), 0), Action::Idle);
        // The thread did not run: a burst came, and a frame more each 10 us.
        timed.ready(LAST, now(came).tai);
        assert_eq!(send(&mut timed, 500_000, frames), frames, "came at {came}");
        assert_eq!(timed.take_cut(), None);
        timed.ready(LAST, now(500_000).tai);
        assert_eq!(send(&mut timed, 500_000, 10), 0, "and not a frame more");
        assert_eq!(timed.take_cut(), Some((7, LAST)));
    }
    // Of two flows the first to come counts, whichever is found first.
    for order in [[FlowIndex(6), LAST], [LAST, FlowIndex(6)]] {
        let mut timed = with_contract(&[]);
        timed.lanes().add(FlowIndex(6), Lane::LAST, 100_000).unwrap();
        assert_eq!(timed.poll(now(0), 0), Action::Idle);
        for flow in order {
            timed.ready(flow, now(if flow == LAST { 0 } else { 490_000 }).tai);
        }
        let mut frames = 0;
        while let Action::Chunk { flow, budget_bytes } = timed.poll(now(500_000), 0) {
            let sent = budget_bytes.div_ceil(100);
            timed.sent(flow, sent * 100, true);
            frames += sent;
        }
        assert_eq!(frames, 53);
    }
    // A claim is believed for 10 ms.
    let mut timed = with_contract(&[]);
    assert_eq!(timed.poll(now(0), 0), Action::Idle);
    timed.ready(LAST, now(0).tai);
    assert_eq!(send(&mut timed, 1_000_000_000, 10_000), 1_003);
}

#[test]
fn what_the_link_does_not_take_goes_on_waiting() {
    let mut timed = with_contract(&[]);
    let (other, above) = (FlowIndex(6), FlowIndex(5));
    timed.lanes().add(other, Lane::LAST, 100_000).unwrap();
    timed.lanes().add(above, Lane::new(6).unwrap(), 100_000).unwrap();
    // The link of one flow is full for 100 intervals; others of its lane and above go meanwhile.
    for at in (0..=1_000_000).step_by(10_000) {
        timed.ready(LAST, now(at).tai);
        assert!(matches!(timed.poll(now(at), 0), Action::Chunk { flow: LAST, .. }));
        timed.blocked(LAST, 0);
        for flow in [above, other] {
            timed.ready(flow, now(at).tai);
            assert!(matches!(timed.poll(now(at), 0), Action::Chunk { .. }));
            timed.sent(flow, if flow == other { 10 } else { 100 }, false);
        }
        assert!(matches!(timed.poll(now(at), 0), Action::Idle));
    }
    timed.ready(LAST, now(1_000_000).tai);
    // 101 times the other had a tenth of a frame.
    assert_eq!(send(&mut timed, 1_000_000, 92), 92);
    assert_eq!(timed.take_cut(), None);
    // Once it has gone there is nothing to save for.
    timed.ready(LAST, now(1_100_000).tai);
    assert_eq!(send(&mut timed, 1_200_000, 1), 1);
    timed.ready(LAST, now(2_000_000).tai);
    assert_eq!(send(&mut timed, 2_000_000, 50), 3);
    assert_eq!(timed.misuses(), 0);
}

/// What a link refused may have left the lane with the schedule, without anybody saying so.
#[test]
fn who_a_link_refused_is_forgotten_with_the_schedule() {
    let mut timed = with_contract(&[]);
    let other = FlowIndex(6);
    timed.lanes().add(other, Lane::LAST, 100_000).unwrap();
    timed.ready(other, now(0).tai);
    assert!(matches!(timed.poll(now(0), 0), Action::Chunk { .. }));
    timed.blocked(other, 0);
    timed.set_arrivals(&[None; insane_scheduler::LANES]);
    let mut timed = under_contract(timed, 3, (100, 10_000));
    timed.ready(LAST, now(0).tai);
    assert_eq!(send(&mut timed, 0, 1), 1);
    timed.ready(LAST, now(1_000_000).tai);
    assert_eq!(send(&mut timed, 1_000_000, 50), 3, "it rested, and keeps no more than the burst");
    // It has something again after all: it is not taken from those that were refused twice.
    timed.ready(other, now(2_000_000).tai);
    assert_eq!(timed.misuses(), 0);
}

#[test]
fn a_cut_of_another_contract_is_not_told_of_this_one() {
    let mut timed = with_contract(&[]);
    let above = FlowIndex(5);
    timed.lanes().add(above, Lane::new(6).unwrap(), 100_000).unwrap();
    timed.ready(LAST, now(0).tai);
    let _burst = send(&mut timed, 0, 4);
    timed.ready(LAST, now(0).tai);
    assert!(matches!(timed.poll(now(0), 0), Action::Wait(_)));
    let mut timed = under_contract(timed, 3, (100, 5_000));
    assert_eq!(timed.take_cut(), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    /// Messages of 100 bytes that come at any time and are found when the thread runs, on a link
    /// that is full now and then. In no stretch of time that begins when nothing was there does
    /// more go than a burst and one frame more each interval; and while no more comes than the
    /// contract says all goes, at once where the link has room.
    #[test]
    fn what_goes_is_what_a_contract_allows_and_never_less(
        keeps in any::<bool>(),
        steps in prop::collection::vec((0_u64..100_000, 0_u32..12, 0_u64..60_000, 0_u8..4), 1..60),
    ) {
        const INTERVAL: u64 = 10_000;
        let full = u64::from(timing().in_flight_bytes);
        let mut timed = with_contract(&[]);
        // What the contract leaves, in nanoseconds: a frame takes an interval.
        let (mut at, mut left, mut left_at, mut queued, mut all) = (0, 3 * INTERVAL, 0, 0_u32, 0_u32);
        // When nothing was there, with all that had gone by then.
        let mut empty = vec![(0, 0)];
        let mut is_known = false;
        for (gap, frames, oversleeps, busy) in steps {
            at += gap;
            let arrives = if keeps {
                left = (left + (at - left_at)).min(3 * INTERVAL);
                left_at = at;
                let fits = (left / INTERVAL).min(frames.into());
                left -= fits * INTERVAL;
                fits as u32
            } else {
                frames
            };
            if queued == 0 {
                empty.push((at, all));
            }
            // Who is there first tells when it came, when somebody looks.
            let came = at;
            queued += arrives;
            at += oversleeps;
            if queued > 0 && !std::mem::replace(&mut is_known, true) {
                timed.ready(LAST, now(came).tai);
            }
            if busy == 0 {
                let told = timed.poll(now(at), full);
                prop_assert!(matches!(told, Action::Wait(_) | Action::Idle), "{:?}", told);
                continue;
            }
            if queued > 0 && busy == 1 {
                // Not seen by the scheduler, but by the link.
                if let Action::Chunk { .. } = timed.poll(now(at), 0) {
                    timed.blocked(LAST, 0);
                    prop_assert!(matches!(timed.poll(now(at), 0), Action::Idle));
                    is_known = false;
                }
                continue;
            }
            let gone = if queued > 0 { send(&mut timed, at, queued) } else { 0 };
            (queued, all) = (queued - gone, all + gone);
            is_known = queued > 0;
            if keeps {
                prop_assert_eq!((queued, timed.take_cut()), (0, None));
            }
            for (since, before) in &empty {
                let allowed = 3 + (at - since) / INTERVAL;
                prop_assert!(u64::from(all - before) <= allowed, "{} of {} since {}", all - before, allowed, since);
            }
            if queued == 0 {
                empty.push((at, all));
            }
        }
    }
}
