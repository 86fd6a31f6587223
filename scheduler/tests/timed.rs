//! The slots above the lanes, case by case. The simulation (`scheduler/simulation`) goes
//! through what cannot be listed.

use insane_core::{Lane, MonoTime, Nanos, TaiTime};
use insane_scheduler::{
    Action, Arrivals, FilledTable, FlowIndex, GateEntry, Gates, LatePolicy, Limits, LinkRate, LinkTiming, MissCause,
    Now, Policing, Recurrence, Scheduler, TableError, TimedScheduler, TimedStream,
};
use proptest::prelude::*;
use std::num::{NonZeroU32, NonZeroU64};

type Timed = TimedScheduler<8, 4, 8>;

/// TAI is ahead of monotonic time by so much.
const APART: u64 = 1_000_000;
const LAST: FlowIndex = FlowIndex(7);

/// One gigabit: a byte takes 8 ns. Frames of 100 bytes, chunks of 1,000.
fn timing() -> LinkTiming {
    let rate = LinkRate::from_bits_per_s(1_000_000_000).unwrap();
    LinkTiming { rate, turn_ns: 1_000, foreign_bytes: 0, in_flight_bytes: 100_000, lead_ns: 0, step_ns: 500 }
}

fn timed(timing: LinkTiming) -> Box<Timed> {
    let mut lanes = Scheduler::new(Limits::new(1_000, 100).unwrap());
    lanes.add(LAST, Lane::LAST, 100_000).unwrap();
    let mut timed = Box::new(Timed::new(timing, lanes));
    assert_eq!(timed.poll(now(0), 0), Action::Idle);
    timed
}

fn now(tai_ns: u64) -> Now {
    Now { mono: MonoTime(tai_ns), tai: TaiTime(tai_ns + APART) }
}

fn stream(flow: u16, period: u64, offset: u64, late: LatePolicy) -> TimedStream {
    TimedStream {
        flow: FlowIndex(flow),
        slots: Recurrence::new(period, offset, 3_000).unwrap(),
        bytes: 250,
        early_ns: period / 2,
        deadline_ns: 20_000,
        late,
    }
}

/// With the streams in force from TAI = APART on.
fn with(streams: &[TimedStream]) -> Box<Timed> {
    let mut timed = timed(timing());
    timed.stage(TaiTime(APART), streams, None, TaiTime(0)).unwrap();
    assert_eq!(timed.poll(now(0), 0), Action::TookOver);
    timed
}

fn wait(ns: u64) -> Action {
    Action::Wait(MonoTime(ns))
}

fn slot(flow: u16, start: u64) -> Action {
    Action::Slot { flow: FlowIndex(flow), launch: TaiTime(start + APART), bytes_max: 250, newest: false }
}

#[test]
fn what_goes_besides_ends_before_the_slot_and_before_its_gate_shuts() {
    let mut timed = with(&[stream(0, 100_000, 50_000, LatePolicy::SendNow)]);
    // To the slot, less e_turn, at 8 ns a byte.
    for (at, below, room) in [(0, 0, 6_125), (41_000, 0, 1_000), (41_000, 900, 100), (41_000, 2_000, 0), (49_500, 0, 0)]
    {
        assert_eq!(timed.poll(now(at), below), wait(50_000));
        assert_eq!(timed.besides(7, below), room, "{below} below at {at}");
    }
    // In the window, as long as the slot may be used.
    assert!(matches!(timed.poll(now(50_000), 0), Action::Wait(_)));
    assert_eq!(timed.besides(7, 0), 0);
    assert!(matches!(timed.poll(now(60_000), 0), Action::Missed { .. }));
    assert!(matches!(timed.poll(now(60_000), 0), Action::Wait(_)));
    assert_eq!(timed.besides(7, 0), (150_000 - 60_000 - 1_000) / 8);

    let list = [GateEntry { open_lanes: 0, interval_ns: 30_000 }, GateEntry { open_lanes: 0x80, interval_ns: 70_000 }];
    let gates = Gates::new(TaiTime(APART), None, 0, &list).unwrap();
    let mut timed = self::timed(timing());
    timed.stage(TaiTime(APART), &[stream(0, 200_000, 150_000, LatePolicy::Drop)], Some(&gates), TaiTime(0)).unwrap();
    assert_eq!(timed.poll(now(0), 0), Action::TookOver);
    for (at, rooms) in [(0, [0, 0]), (30_000, [0, 8_625]), (99_500, [0, 0])] {
        assert!(matches!(timed.poll(now(at), 0), Action::Wait(_)));
        assert_eq!([0, 7].map(|lane| timed.besides(lane, 0)), rooms, "at {at}");
    }
}

#[test]
fn a_slot_is_granted_from_its_start_until_the_message_no_longer_fits() {
    let mut timed = with(&[stream(0, 100_000, 50_000, LatePolicy::NextSlot)]);
    timed.ready(FlowIndex(0), now(0).tai);
    assert_eq!(timed.poll(now(49_999), 0), wait(50_000));
    assert_eq!(timed.poll(now(50_000), 0), slot(0, 50_000));
    // 250 bytes and e_turn take all of the window: a nanosecond later is too late.
    let missed =
        Action::Missed { flow: FlowIndex(0), start: TaiTime(50_000 + APART), count: 1, cause: MissCause::PolledLate };
    assert_eq!(timed.poll(now(50_001), 0), missed);
    assert_eq!(timed.poll(now(150_000), 0), slot(0, 150_000));
    timed.sent(FlowIndex(0), 250, false);
    assert_eq!(timed.poll(now(150_000), 250), wait(250_000));
    assert_eq!(timed.misuses(), 0);
}

#[test]
fn best_effort_fills_what_the_guard_leaves_to_the_byte() {
    let mut timed = with(&[stream(0, 100_000, 50_000, LatePolicy::Drop)]);
    timed.ready(LAST, now(0).tai);
    let chunk = |budget_bytes| Action::Chunk { flow: LAST, budget_bytes };
    assert_eq!(timed.poll(now(0), 0), chunk(1_000));
    // At 48,192: 1,000 of e_turn and 808 for 101 bytes, of which the last frame may run over by 99.
    assert_eq!(timed.poll(now(48_192), 0), chunk(2));
    assert_eq!(timed.poll(now(48_200), 0), chunk(1));
    assert_eq!(timed.poll(now(48_201), 0), wait(50_000));
    assert_eq!(timed.poll(now(48_192), 1), chunk(1));
    assert_eq!(timed.poll(now(48_192), 2), wait(50_000));
    // On a link that is eight times as slow: of 49,000 ns 6,125 count, for 765 bytes.
    timed.set_slower(3);
    assert_eq!(timed.poll(now(0), 0), chunk(666));
    timed.set_slower(0);
    // In the window nothing else begins, while a message of it may still come.
    assert_eq!(timed.poll(now(50_000), 0), wait(50_001));
}

#[test]
fn a_slot_that_has_its_message_is_known_by_its_start() {
    let mut timed = with(&[stream(0, 100_000, 50_000, LatePolicy::NextSlot)]);
    assert_eq!(timed.poll(now(10_000), 0), wait(50_000));
    assert!(!timed.has_message_at(MonoTime(50_000)), "nobody waits for it");
    timed.ready(FlowIndex(0), now(0).tai);
    assert_eq!(timed.poll(now(10_000), 0), wait(50_000));
    assert!(timed.has_message_at(MonoTime(50_000)));
    assert!(!timed.has_message_at(MonoTime(49_999)), "that is no slot");
}

#[test]
fn late_messages_follow_their_policy() {
    let after_a_miss = |late| {
        let mut timed = with(&[stream(0, 100_000, 10_000, late)]);
        assert!(matches!(timed.poll(now(12_000), 0), Action::Missed { cause: MissCause::NoMessage, .. }));
        timed.ready(FlowIndex(0), now(12_000).tai);
        timed
    };
    let mut drop = after_a_miss(LatePolicy::Drop);
    assert_eq!(drop.poll(now(12_000), 0), Action::Drop { flow: FlowIndex(0) });
    drop.sent(FlowIndex(0), 0, false);
    assert_eq!(drop.poll(now(12_000), 0), wait(110_000));

    let mut send = after_a_miss(LatePolicy::SendNow);
    assert_eq!(send.poll(now(30_000), 0), Action::Late { flow: FlowIndex(0), bytes_max: 250 });
    assert_eq!(send.poll(now(30_001), 0), Action::Drop { flow: FlowIndex(0) }, "its deadline has passed");

    let mut next = after_a_miss(LatePolicy::NextSlot);
    assert_eq!(next.poll(now(12_000), 0), wait(110_000));
    assert_eq!(next.poll(now(110_000), 0), slot(0, 110_000));

    let mut newest = after_a_miss(LatePolicy::NewestWins);
    assert!(matches!(newest.poll(now(110_000), 0), Action::Slot { newest: true, .. }));
}

#[test]
fn a_late_message_that_the_link_does_not_take_goes_when_it_does() {
    let mut timed = with(&[stream(0, 100_000, 10_000, LatePolicy::SendNow)]);
    assert!(matches!(timed.poll(now(12_000), 0), Action::Missed { .. }));
    timed.ready(FlowIndex(0), now(12_000).tai);
    let late = Action::Late { flow: FlowIndex(0), bytes_max: 250 };
    for at in [12_000, 13_000] {
        assert_eq!(timed.poll(now(at), 0), late);
        timed.sent(FlowIndex(0), 0, true);
    }
    assert_eq!(timed.poll(now(14_000), 0), late);
    timed.sent(FlowIndex(0), 250, false);
    assert_eq!(timed.poll(now(14_000), 0), wait(110_000));
    assert_eq!(timed.misuses(), 0);
}

#[test]
fn a_message_belongs_to_the_next_slot_when_it_is_early_enough_for_it() {
    let mut timed = with(&[stream(0, 100_000, 10_000, LatePolicy::Drop)]);
    assert!(matches!(timed.poll(now(60_000), 0), Action::Missed { .. }));
    timed.ready(FlowIndex(0), now(60_000).tai);
    assert_eq!(timed.poll(now(60_000), 0), wait(110_000));
    assert_eq!(timed.poll(now(110_000), 0), slot(0, 110_000));
}

/// After a slot that went by without a message the host sleeps. Half a period is early.
fn asleep_after_a_miss(late: LatePolicy) -> Box<Timed> {
    let mut timed = with(&[stream(0, 100_000, 10_000, late)]);
    assert!(matches!(timed.poll(now(12_000), 0), Action::Missed { cause: MissCause::NoMessage, .. }));
    assert_eq!(timed.poll(now(12_000), 0), wait(110_000));
    timed
}

#[test]
fn what_comes_while_nobody_polls_is_judged_by_when_it_came() {
    for late in [LatePolicy::Drop, LatePolicy::SendNow] {
        let mut early = asleep_after_a_miss(late);
        early.ready(FlowIndex(0), now(60_000).tai);
        assert_eq!(early.poll(now(60_000), 0), wait(110_000), "{late:?}: it is early for the next slot");
        assert_eq!(early.poll(now(110_000), 0), slot(0, 110_000));

        let mut tardy = asleep_after_a_miss(late);
        tardy.ready(FlowIndex(0), now(59_999).tai);
        assert!(!matches!(tardy.poll(now(59_999), 0), Action::Wait(_)), "{late:?}: a nanosecond too early");
    }
}

#[test]
fn a_slot_that_went_by_while_nobody_polled_makes_late_only_what_was_there() {
    let after = |came: u64, looked: u64| {
        let mut timed = asleep_after_a_miss(LatePolicy::Drop);
        timed.ready(FlowIndex(0), now(came).tai);
        let missed = timed.poll(now(looked), 0);
        assert!(matches!(missed, Action::Missed { cause: MissCause::PolledLate, count: 1, .. }), "{missed:?}");
        (timed.poll(now(looked), 0), timed)
    };
    let dropped = Action::Drop { flow: FlowIndex(0) };
    assert_eq!(after(110_000, 170_000).0, dropped, "it was there at the only instant at which it could begin");
    assert_eq!(after(159_999, 170_000).0, dropped, "too early for the next slot");
    let (waits, mut timed) = after(160_000, 170_000);
    assert_eq!(waits, wait(210_000), "it came while the host slept, and is early");
    assert_eq!(timed.poll(now(210_000), 0), slot(0, 210_000));
}

#[test]
fn what_waits_behind_a_late_message_is_not_late_for_a_slot_that_went_by_before() {
    let mut timed = asleep_after_a_miss(LatePolicy::Drop);
    timed.ready(FlowIndex(0), now(20_000).tai);
    // The first is late for the slot at 10,000; meanwhile another went by. The one behind it
    // came at 160,000, and is early for the slot at 210,000.
    assert_eq!(timed.poll(now(170_000), 0), Action::Drop { flow: FlowIndex(0) });
    timed.sent(FlowIndex(0), 0, true);
    timed.came(FlowIndex(0), now(160_000).tai);
    assert!(matches!(timed.poll(now(170_000), 0), Action::Missed { .. }));
    assert_eq!(timed.poll(now(170_000), 0), wait(210_000));
    assert_eq!(timed.poll(now(210_000), 0), slot(0, 210_000));
}

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

#[test]
fn under_drop_who_waited_through_a_slot_gives_way() {
    let newest = |start, newest| {
        let (flow, launch) = (FlowIndex(0), TaiTime(start + APART));
        Action::Slot { flow, launch, bytes_max: 250, newest }
    };
    for (late, gives_way) in [(LatePolicy::Drop, true), (LatePolicy::SendNow, false), (LatePolicy::NextSlot, false)] {
        let mut timed = with(&[stream(0, 100_000, 10_000, late)]);
        timed.ready(FlowIndex(0), now(0).tai);
        assert_eq!(timed.poll(now(10_000), 0), newest(10_000, false));
        // Another is there that had to wait for this one.
        timed.sent(FlowIndex(0), 250, true);
        assert_eq!(timed.poll(now(110_000), 0), newest(110_000, gives_way), "{late:?}");
        timed.sent(FlowIndex(0), 250, false);
        // One that comes when there is none waits for its own slot.
        timed.ready(FlowIndex(0), now(190_000).tai);
        assert_eq!(timed.poll(now(210_000), 0), newest(210_000, false));
        assert_eq!(timed.late_policy(FlowIndex(0)), Some(late));
    }
}

#[test]
fn a_message_that_waits_while_the_clock_steps_keeps_being_there() {
    for step in [37_000_000_i64, -900_000] {
        let mut timed = with(&[stream(0, 100_000, 10_000, LatePolicy::Drop)]);
        timed.realign(now(900_000));
        assert!(matches!(timed.poll(now(912_000), 0), Action::Missed { cause: MissCause::NoMessage, .. }));
        timed.ready(FlowIndex(0), now(960_000).tai);
        let stepped = |ns: u64| Now { mono: MonoTime(ns), tai: TaiTime(((ns + APART) as i64 + step) as u64) };
        timed.realign(stepped(961_000));
        // The host sleeps beyond the next slot, until messages are early for the one after it.
        let missed = timed.poll(stepped(1_065_000), 0);
        assert!(matches!(missed, Action::Missed { cause: MissCause::PolledLate, .. }), "{missed:?}");
        assert_eq!(timed.poll(stepped(1_065_000), 0), Action::Drop { flow: FlowIndex(0) }, "by {step} ns");
    }
}

#[test]
fn a_launch_queue_gets_its_frames_ahead_and_in_order() {
    let mut timed = timed(LinkTiming { lead_ns: 30_000, ..timing() });
    let streams = [stream(0, 100_000, 50_000, LatePolicy::Drop), stream(1, 100_000, 55_000, LatePolicy::Drop)];
    timed.stage(TaiTime(APART), &streams, None, TaiTime(0)).unwrap();
    assert_eq!(timed.poll(now(0), 0), Action::TookOver);
    [FlowIndex(0), FlowIndex(1), LAST].into_iter().for_each(|flow| timed.ready(flow, now(0).tai));
    assert_eq!(timed.poll(now(20_000), 0), slot(0, 50_000));
    timed.sent(FlowIndex(0), 250, false);
    // Best effort still ends before the frame that waits for its launch; the next slot waits for it.
    assert_eq!(timed.poll(now(48_200), 250), Action::Chunk { flow: LAST, budget_bytes: 1 });
    assert_eq!(timed.poll(now(48_201), 250), wait(50_000));
    assert_eq!(timed.poll(now(50_000), 250), slot(1, 55_000));
}

#[test]
fn a_staged_table_takes_over_at_its_instant_and_lets_an_old_slot_end() {
    let mut timed = with(&[stream(0, 100_000, 50_000, LatePolicy::NextSlot)]);
    timed.ready(FlowIndex(0), now(0).tai);
    // It takes over in the middle of a slot; its own first slot would begin before that ends.
    let next = [stream(1, 100_000, 52_000, LatePolicy::NextSlot)];
    timed.stage(TaiTime(APART), &next, None, TaiTime(51_000 + APART)).unwrap();
    assert_eq!(timed.poll(now(50_000), 0), slot(0, 50_000));
    timed.sent(FlowIndex(0), 250, false);
    assert_eq!(timed.poll(now(50_999), 0), wait(51_000));
    assert_eq!(timed.poll(now(51_000), 0), Action::TookOver);
    timed.ready(FlowIndex(1), now(51_000).tai);
    assert_eq!(timed.poll(now(52_000), 0), wait(152_000));
    assert_eq!(timed.poll(now(152_000), 0), slot(1, 152_000));
}

#[test]
fn a_table_that_was_filled_elsewhere_is_staged_as_one_that_was_filled_here() {
    let mut timed = with(&[stream(0, 100_000, 50_000, LatePolicy::NextSlot)]);
    let mut filled = Box::new(FilledTable::new(timing()));
    filled.fill(TaiTime(APART), &[stream(1, 100_000, 52_000, LatePolicy::NextSlot)]).unwrap();
    // A table that cannot be leaves what was there.
    let overlap = [stream(2, 100_000, 0, LatePolicy::Drop), stream(3, 100_000, 0, LatePolicy::Drop)];
    assert_eq!(filled.fill(TaiTime(APART), &overlap), Err(TableError::Overlap(0, 1)));
    let mut other = Box::new(FilledTable::new(LinkTiming { foreign_bytes: 1, ..timing() }));
    assert_eq!(timed.stage_filled(&mut other, None, TaiTime(0)), Err(TableError::OtherTiming));
    assert!(!timed.is_staged());
    timed.stage_filled(&mut filled, None, TaiTime(51_000 + APART)).unwrap();
    assert!(timed.is_staged() && timed.has_slots(FlowIndex(0)));
    timed.ready(FlowIndex(0), now(0).tai);
    assert_eq!(timed.poll(now(50_000), 0), slot(0, 50_000));
    timed.sent(FlowIndex(0), 250, false);
    assert_eq!(timed.poll(now(51_000), 0), Action::TookOver);
    assert!(!timed.has_slots(FlowIndex(0)) && timed.has_slots(FlowIndex(1)));
    timed.ready(FlowIndex(1), now(51_000).tai);
    assert_eq!(timed.poll(now(152_000), 0), slot(1, 152_000));
}

#[test]
fn a_step_of_the_clock_is_told_until_it_is_answered() {
    let mut timed = with(&[stream(0, 100_000, 50_000, LatePolicy::Drop)]);
    timed.ready(LAST, now(0).tai);
    for step in [37_000_000_000_i64, 3_600_000_000_000, -700] {
        let stepped = Now { mono: MonoTime(1_000), tai: TaiTime((1_000 + APART as i64 + step) as u64) };
        assert_eq!(timed.poll(stepped, 0), Action::Stepped(step));
        assert_eq!(timed.poll(stepped, 0), Action::Stepped(step));
    }
    let late = Now { mono: MonoTime(1_000), tai: TaiTime(37_000_001_000 + APART) };
    timed.realign(late);
    // The phase is that of the cycle.
    timed.idle(LAST);
    assert_eq!(timed.poll(late, 0), wait(50_000));
}

#[test]
fn gates_shut_lanes_and_leave_slots_alone() {
    let list = [GateEntry { open_lanes: 0, interval_ns: 30_000 }, GateEntry { open_lanes: 0x80, interval_ns: 70_000 }];
    let gates = Gates::new(TaiTime(APART), None, 0, &list).unwrap();
    let mut timed = timed(timing());
    timed.stage(TaiTime(APART), &[stream(0, 100_000, 10_000, LatePolicy::Drop)], Some(&gates), TaiTime(0)).unwrap();
    assert_eq!(timed.poll(now(0), 0), Action::TookOver);
    [FlowIndex(0), LAST].into_iter().for_each(|flow| timed.ready(flow, now(0).tai));
    assert_eq!(timed.poll(now(0), 0), wait(10_000));
    assert_eq!(timed.poll(now(10_000), 0), slot(0, 10_000));
    timed.sent(FlowIndex(0), 250, false);
    assert_eq!(timed.poll(now(13_000), 0), wait(30_000));
    assert_eq!(timed.poll(now(30_000), 0), Action::Chunk { flow: LAST, budget_bytes: 1_000 });
    assert_eq!(timed.poll(now(98_200), 0), Action::Chunk { flow: LAST, budget_bytes: 1 });
    assert_eq!(timed.poll(now(98_201), 0), wait(100_000));
}

#[test]
fn far_apart_and_near_coprime_periods_are_not_written_down_and_come_in_order() {
    let of = |flow, period, offset| TimedStream {
        slots: Recurrence::new(period, offset, 3_000).unwrap(),
        early_ns: period,
        ..stream(flow, 100_000, 0, LatePolicy::NextSlot)
    };
    for streams in [
        vec![of(0, 62_500, 0), of(1, 1_000_000_000, 5_000)],
        vec![of(0, 10_007 * 10_000, 0), of(1, 10_009 * 10_000, 4_000)],
    ] {
        let mut timed = with(&streams);
        assert!(!timed.is_expanded());
        let (mut at, mut starts) = (0, vec![]);
        while starts.len() < 20_000 {
            streams.iter().for_each(|stream| timed.ready(stream.flow, now(0).tai));
            match timed.poll(now(at), 0) {
                Action::Slot { flow, launch, .. } => {
                    starts.push((launch.0 - APART, flow.0));
                    timed.sent(flow, 250, false);
                }
                Action::Wait(until) => at = until.0,
                other => panic!("{other:?}"),
            }
        }
        let first = |stream: &TimedStream| {
            let slots = stream.slots;
            (0..).map(move |k| slots.offset_ns() + k * slots.period_ns())
        };
        let end = starts[starts.len() - 1].0;
        let all = streams
            .iter()
            .flat_map(|one| first(one).take_while(|&start| start <= end).map(move |start| (start, one.flow.0)));
        let mut expected: Vec<_> = all.collect();
        expected.sort_unstable();
        assert_eq!(starts, expected);
    }
}

#[test]
fn bad_tables_are_refused_by_name_and_change_nothing() {
    let mut timed = with(&[stream(0, 100_000, 50_000, LatePolicy::Drop)]);
    let good = stream(1, 100_000, 50_000, LatePolicy::Drop);
    let long = Recurrence::new(100_000, 0, 2_999).unwrap();
    let cases = [
        (vec![good; 5], TableError::TooManyStreams(5)),
        (vec![TimedStream { flow: FlowIndex(8), ..good }], TableError::FlowOutOfRange(0)),
        (vec![good, good], TableError::FlowTwice(0, 1)),
        (vec![good, TimedStream { flow: FlowIndex(2), ..good }], TableError::Overlap(0, 1)),
        (vec![TimedStream { bytes: 0, ..good }], TableError::ZeroBytes(0)),
        (vec![TimedStream { bytes: 251, ..good }], TableError::LargerThanSlot(0)),
        (vec![TimedStream { slots: long, ..good }], TableError::LargerThanSlot(0)),
        (vec![TimedStream { early_ns: 100_001, ..good }], TableError::EarlyBeyondPeriod(0)),
    ];
    for (streams, error) in cases {
        assert_eq!(timed.stage(TaiTime(APART), &streams, None, TaiTime(0)), Err(error));
        assert!(!error.to_string().is_empty());
    }
    assert_eq!(timed.stage(TaiTime(u64::MAX - 10), &[good], None, TaiTime(0)), Err(TableError::BeyondTime(0)));
    timed.ready(FlowIndex(0), now(0).tai);
    assert_eq!(timed.poll(now(50_000), 0), slot(0, 50_000));
}

#[test]
fn reports_that_nobody_asked_for_are_counted() {
    let mut timed = with(&[stream(0, 100_000, 50_000, LatePolicy::Drop)]);
    timed.sent(FlowIndex(0), 100, true);
    assert_eq!(timed.misuses(), 1);
    timed.sent(FlowIndex(3), 100, true);
    assert_eq!(timed.misuses(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_numbers_make_it_panic(
        (base, period, offset, length) in any::<(u64, u64, u64, u64)>(),
        (bytes, early, deadline, at) in any::<(u32, u64, u64, u64)>(),
        (turn_ns, lead_ns, step_ns) in any::<(u64, u64, u64)>(),
        calls in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), 0..6_u8), 0..40),
    ) {
        let mut timed = timed(LinkTiming { turn_ns, lead_ns, step_ns, ..timing() });
        if let Ok(slots) = Recurrence::new(period >> (bytes % 40), offset % (period >> (bytes % 40)).max(1), length % 1_000_000 + 1) {
            let one = TimedStream { flow: FlowIndex(0), slots, bytes: bytes % 100_000, early_ns: early, deadline_ns: deadline, late: LatePolicy::SendNow };
            let _named = timed.stage(TaiTime(base), &[one], None, TaiTime(at));
        }
        for (mono, tai, below, call) in calls {
            let at = Now { mono: MonoTime(mono), tai: TaiTime(tai) };
            match call {
                0 => timed.ready(FlowIndex(0), at.tai),
                1 => timed.idle(FlowIndex(0)),
                2 => timed.realign(at),
                3 => timed.sent(FlowIndex(0), below as u32, true),
                _ => match timed.poll(at, below) {
                    Action::Slot { flow, .. } | Action::Late { flow, .. } | Action::Drop { flow } => timed.sent(flow, 1, true),
                    Action::Wait(until) => prop_assert!(until > at.mono || at.mono + Nanos(1) == at.mono),
                    _ => {}
                },
            }
        }
    }
}

#[test]
fn a_shut_gate_keeps_a_message_from_its_slot_and_is_the_cause() {
    // In each 10 us, lane 0 is open for the second half.
    let entries =
        [GateEntry { open_lanes: 0xfe, interval_ns: 5_000 }, GateEntry { open_lanes: 0xff, interval_ns: 5_000 }];
    let gates = Gates::new(TaiTime(APART), Some(10_000), 0, &entries).unwrap();
    let run = |offset: u64| {
        let mut timed = timed(timing());
        timed.lanes().add(FlowIndex(0), Lane::new(0).unwrap(), 1_000).unwrap();
        let streams = [TimedStream {
            slots: Recurrence::new(10_000, offset, 4_500).unwrap(),
            ..stream(0, 10_000, 0, LatePolicy::NextSlot)
        }];
        timed.stage(TaiTime(APART), &streams, Some(&gates), TaiTime(0)).unwrap();
        assert_eq!(timed.poll(now(0), 0), Action::TookOver);
        timed.ready(FlowIndex(0), now(0).tai);
        // 250 bytes take 2 us: with e_turn the last instant is 1.5 us after the start.
        let mut seen = Vec::new();
        for at in (0..10_000).step_by(100) {
            match timed.poll(now(at), 0) {
                Action::Wait(until) => assert!(until > MonoTime(at)),
                action @ (Action::Slot { .. } | Action::Missed { .. }) => {
                    seen.push((at, action));
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        seen
    };
    assert_eq!(run(5_200), [(5_200, slot(0, 5_200))], "open");
    let missed =
        Action::Missed { flow: FlowIndex(0), start: TaiTime(1_000 + APART), count: 1, cause: MissCause::GateShut };
    assert_eq!(run(1_000), [(2_600, missed)], "shut all the while");
    let opens = run(4_000);
    assert_eq!(opens, [(5_000, slot(0, 4_000))], "it opens in time");
}

#[test]
fn a_late_message_with_a_shut_gate_does_not_hold_up_those_of_other_lanes() {
    // Lane 0 is shut for the first 90 us of each 100 us; all have their slots in the rest.
    let entries =
        [GateEntry { open_lanes: 0xfe, interval_ns: 90_000 }, GateEntry { open_lanes: 0xff, interval_ns: 10_000 }];
    let gates = Gates::new(TaiTime(APART), None, 0, &entries).unwrap();
    let mut timed = timed(timing());
    for (flow, lane) in [(0, 0), (1, 0), (2, 1)] {
        timed.lanes().add(FlowIndex(flow), Lane::new(lane).unwrap(), 1_000).unwrap();
    }
    let late = |flow: u16| TimedStream {
        deadline_ns: 1_000_000,
        ..stream(flow, 1_000_000, 90_000 + 3_000 * u64::from(flow), LatePolicy::SendNow)
    };
    timed.stage(TaiTime(APART), &[late(0), late(1), late(2)], Some(&gates), TaiTime(0)).unwrap();
    assert_eq!(timed.poll(now(0), 0), Action::TookOver);
    (0..3).for_each(|flow| timed.ready(FlowIndex(flow), now(0).tai));
    // In their order they become late while the host sleeps.
    for _ in 0..3 {
        assert!(matches!(timed.poll(now(102_000), 0), Action::Missed { .. }));
    }
    assert_eq!(timed.poll(now(102_000), 0), Action::Late { flow: FlowIndex(2), bytes_max: 250 });
    timed.sent(FlowIndex(2), 250, false);
    assert_eq!(timed.poll(now(102_000), 0), wait(190_000), "the others wait for their gate");
    for flow in [0, 1] {
        assert_eq!(timed.poll(now(190_000), 0), Action::Late { flow: FlowIndex(flow), bytes_max: 250 });
        timed.sent(FlowIndex(flow), 250, false);
    }
    assert_eq!(timed.misuses(), 0);
}

#[test]
fn a_late_message_goes_when_what_holds_it_back_is_over() {
    // Nothing else is to be sent that would have the scheduler look again.
    let late = Action::Late { flow: FlowIndex(0), bytes_max: 250 };
    let mut timed = with(&[stream(0, 10_000_000, 10_000, LatePolicy::SendNow)]);
    timed.ready(FlowIndex(0), now(0).tai);
    assert!(matches!(timed.poll(now(12_000), 0), Action::Missed { .. }));
    assert_eq!(timed.poll(now(12_000), 100_000), wait(14_000), "until there is room below");
    assert_eq!(timed.poll(now(14_000), 99_750), late);

    // Lane 0 is open for the second half of each 10 us.
    let entries =
        [GateEntry { open_lanes: 0xfe, interval_ns: 5_000 }, GateEntry { open_lanes: 0xff, interval_ns: 5_000 }];
    let gates = Gates::new(TaiTime(APART), Some(10_000), 0, &entries).unwrap();
    let mut timed = self::timed(timing());
    timed.lanes().add(FlowIndex(0), Lane::new(0).unwrap(), 1_000).unwrap();
    let streams = [stream(0, 100_000, 1_000, LatePolicy::SendNow)];
    timed.stage(TaiTime(APART), &streams, Some(&gates), TaiTime(0)).unwrap();
    assert_eq!(timed.poll(now(0), 0), Action::TookOver);
    timed.ready(FlowIndex(0), now(0).tai);
    assert!(matches!(timed.poll(now(2_000), 0), Action::Missed { .. }));
    assert_eq!(timed.poll(now(2_000), 0), wait(5_000), "until the gate opens");
    assert_eq!(timed.poll(now(7_001), 0), wait(10_000), "it would shut before the end of the message");
    assert_eq!(timed.poll(now(10_000), 0), wait(15_000));
    assert_eq!(timed.poll(now(15_000), 0), late);
}

#[test]
fn who_is_not_late_any_more_holds_nobody_back() {
    let streams = [0, 1].map(|flow| stream(flow, 100_000, 10_000 * (1 + u64::from(flow)), LatePolicy::SendNow));
    let mut timed = with(&streams);
    [FlowIndex(0), FlowIndex(1)].into_iter().for_each(|flow| timed.ready(flow, now(0).tai));
    for at in [12_000, 22_000] {
        // Not a byte of room, so that nothing goes yet.
        assert!(matches!(timed.poll(now(at), 100_000), Action::Missed { .. }));
    }
    timed.idle(FlowIndex(0));
    assert_eq!(timed.poll(now(22_000), 0), Action::Late { flow: FlowIndex(1), bytes_max: 250 });
}

#[test]
fn what_is_known_of_a_flow_is_told() {
    let timed = with(&[stream(0, 10_000, 1_000, LatePolicy::Drop)]);
    // 3 us less 2 us for the message and 1 us e_turn.
    let window = timed.window(FlowIndex(0)).unwrap();
    assert_eq!((window.period_ns, window.early_ns, window.slack_ns), (10_000, 5_000, 0));
    assert_eq!(timed.window(FlowIndex(1)), None);
    assert_eq!(timed.next_start(FlowIndex(0), TaiTime(APART + 1_001), false), Some(TaiTime(APART + 11_000)));
    assert_eq!(timed.next_start(FlowIndex(0), TaiTime(APART), true), None, "nothing was in force before");
}
