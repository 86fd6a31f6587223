//! The slots above the lanes, case by case. The simulation (`scheduler/simulation`) goes
//! through what cannot be listed.

mod common;

use common::{APART, LAST, now, stream, timed, timing, with};
use insane_core::{Lane, MonoTime, Nanos, TaiTime};
use insane_scheduler::{
    Action, Besides, FilledTable, FlowIndex, GateEntry, Gates, LatePolicy, LinkTiming, MissCause, Now, Recurrence,
    TableError, TimedStream,
};
use proptest::prelude::*;

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
        assert_eq!(timed.besides(Besides::Lane(7), below), room, "{below} below at {at}");
    }
    // In the window, as long as the slot may be used.
    assert!(matches!(timed.poll(now(50_000), 0), Action::Wait(_)));
    assert_eq!(timed.besides(Besides::Lane(7), 0), 0);
    assert!(matches!(timed.poll(now(60_000), 0), Action::Missed { .. }));
    assert!(matches!(timed.poll(now(60_000), 0), Action::Wait(_)));
    assert_eq!(timed.besides(Besides::Lane(7), 0), (150_000 - 60_000 - 1_000) / 8);

    let list = [GateEntry { open_lanes: 0, interval_ns: 30_000 }, GateEntry { open_lanes: 0x80, interval_ns: 70_000 }];
    let gates = Gates::new(TaiTime(APART), None, 0, &list).unwrap();
    let mut timed = common::timed(timing());
    timed.stage(TaiTime(APART), &[stream(0, 200_000, 150_000, LatePolicy::Drop)], Some(&gates), TaiTime(0)).unwrap();
    assert_eq!(timed.poll(now(0), 0), Action::TookOver);
    for (at, rooms) in [(0, [0, 0]), (30_000, [0, 8_625]), (99_500, [0, 0])] {
        assert!(matches!(timed.poll(now(at), 0), Action::Wait(_)));
        assert_eq!([0, 7].map(|lane| timed.besides(Besides::Lane(lane), 0)), rooms, "at {at}");
        // To the slot, whatever the gates say.
        assert_eq!(timed.besides(Besides::Ungated, 0), (150_000 - at - 1_000) / 8, "at {at}");
    }
}

#[test]
fn what_takes_the_place_of_others_has_the_room_that_is_kept_for_them() {
    let mut timed = common::timed(LinkTiming { foreign_bytes: 500, ..timing() });
    let slots = Recurrence::new(100_000, 50_000, 7_000).unwrap();
    let late = TimedStream { slots, ..stream(0, 100_000, 50_000, LatePolicy::SendNow) };
    timed.stage(TaiTime(APART), &[late], None, TaiTime(0)).unwrap();
    assert_eq!(timed.poll(now(0), 0), Action::TookOver);
    for (at, below, rooms) in [(41_000, 0, [500, 1_000]), (41_000, 900, [0, 100]), (46_000, 0, [0, 375])] {
        assert!(matches!(timed.poll(now(at), below), Action::Wait(_)));
        let room = [Besides::Ungated, Besides::AsForeign].map(|what| timed.besides(what, below));
        assert_eq!(room, rooms, "{below} below at {at}");
    }
    // A late message that does not go has others wait, but not what others would not wait for.
    timed.ready(FlowIndex(0), now(45_000).tai);
    assert!(matches!(timed.poll(now(58_000), 0), Action::Missed { .. }));
    assert!(matches!(timed.poll(now(58_000), 100_000), Action::Wait(_)));
    let room = [Besides::Ungated, Besides::AsForeign].map(|what| timed.besides(what, 0));
    assert_eq!(room, [0, (150_000 - 58_000 - 1_000) / 8]);
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
fn asleep_after_a_miss(late: LatePolicy) -> Box<common::Timed> {
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

/// What was handed over ahead leaves neither before its launch nor later: what waits for room does
/// not wait for it, and what its guard kept back goes as soon as it begins.
#[test]
fn what_is_handed_over_ahead_holds_up_nobody_for_longer_than_its_guard() {
    let mut timed = timed(LinkTiming { lead_ns: 30_000, in_flight_bytes: 1_000, ..timing() });
    timed.stage(TaiTime(APART), &[stream(0, 100_000, 50_000, LatePolicy::Drop)], None, TaiTime(0)).unwrap();
    assert_eq!(timed.poll(now(0), 0), Action::TookOver);
    [FlowIndex(0), LAST].into_iter().for_each(|flow| timed.ready(flow, now(0).tai));
    assert_eq!(timed.poll(now(20_000), 0), slot(0, 50_000));
    timed.sent(FlowIndex(0), 250, false);
    // Of a full link a hundred bytes have to leave: the least that a chunk may be.
    assert_eq!(timed.poll(now(21_000), 250 + 1_000), wait(21_800));
    // No frame ends before the launch; the next slot is handed over 70 us after it.
    assert_eq!(timed.poll(now(48_201), 250), wait(50_000));
    assert!(matches!(timed.poll(now(50_000), 250), Action::Chunk { flow: LAST, .. }));
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
    let mut timed = common::timed(timing());
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

#[test]
fn nothing_goes_besides_while_a_late_message_waits_for_room_below() {
    // 250 bytes take 2 us. Lanes may have 300 bytes below, in frames of 100.
    let run = |bytes: u32, in_flight_bytes: u32| {
        let mut timed = common::timed(LinkTiming { in_flight_bytes, ..timing() });
        let slots = Recurrence::new(1_000_000, 10_000, 10_000).unwrap();
        let late = TimedStream { slots, bytes, deadline_ns: 500_000, ..stream(0, 1_000_000, 0, LatePolicy::SendNow) };
        timed.stage(TaiTime(APART), &[late], None, TaiTime(0)).unwrap();
        assert_eq!(timed.poll(now(0), 0), Action::TookOver);
        timed.ready(LAST, now(0).tai);
        assert!(matches!(timed.poll(now(20_000), 0), Action::Missed { .. }));
        let (mut at, mut left) = (20_000, 20_000_u64);
        for poll in 0..100 {
            // A message that is late comes when the link is full.
            if poll == 10 {
                timed.ready(FlowIndex(0), now(15_000).tai);
            }
            let below = left.saturating_sub(at) / 8;
            match timed.poll(now(at), below) {
                Action::Chunk { budget_bytes, .. } => {
                    assert!(poll < 10, "best effort goes besides, {below} below");
                    let sent = budget_bytes.next_multiple_of(100);
                    left = left.max(at) + u64::from(sent) * 8;
                    timed.sent(LAST, sent, true);
                }
                Action::Late { bytes_max, .. } => {
                    assert_eq!(bytes_max, bytes);
                    assert!(below + u64::from(bytes) <= u64::from(in_flight_bytes.max(bytes)), "{below} below");
                    assert_eq!(timed.besides(Besides::Lane(7), below), 0, "until it has gone");
                    return;
                }
                Action::Wait(until) => at = until.0,
                other => panic!("{other:?}"),
            }
        }
        panic!("it never goes");
    };
    run(250, 300);
    // One that is larger than all that lanes may have below goes when that has left.
    run(450, 300);
}

#[test]
fn a_late_message_that_does_not_fit_before_the_next_slot_lets_others_by() {
    let large = TimedStream {
        slots: Recurrence::new(1_000_000, 10_000, 20_000).unwrap(),
        bytes: 2_000,
        deadline_ns: 900_000,
        ..stream(0, 1_000_000, 0, LatePolicy::SendNow)
    };
    let small = TimedStream { deadline_ns: 900_000, ..stream(1, 1_000_000, 30_000, LatePolicy::SendNow) };
    let next = stream(2, 1_000_000, 45_000, LatePolicy::NextSlot);
    let mut timed = with(&[large, small, next]);
    [FlowIndex(0), FlowIndex(1), LAST].into_iter().for_each(|flow| timed.ready(flow, now(0).tai));
    for _ in 0..2 {
        assert!(matches!(timed.poll(now(34_000), 0), Action::Missed { .. }));
    }
    // 16 us are more than the eleven that are left.
    assert_eq!(timed.poll(now(34_000), 0), Action::Late { flow: FlowIndex(1), bytes_max: 250 });
    timed.sent(FlowIndex(1), 250, false);
    assert!(matches!(timed.poll(now(34_000), 250), Action::Chunk { flow: LAST, .. }));
    assert!(matches!(timed.poll(now(48_000), 0), Action::Missed { .. }));
    assert_eq!(timed.poll(now(48_000), 0), Action::Late { flow: FlowIndex(0), bytes_max: 2_000 });
}
