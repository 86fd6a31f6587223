//! Frames of the control plane among slots.

use crate::talkers::*;
use crate::{locked, turns_until};
use insane_clock::{AfterHoldover, ClockState};
use insane_core::counters::TurnCounter;
use insane_core::time::Clock;
use insane_core::{Lane, Nanos, PeerIndex, TaiTime};
use insane_engine::{Command, GRANTS_PER_TURN, LaneArrivals, timed_flow};
use insane_scheduler::{GateEntry, Gates, LatePolicy, Recurrence, TimedStream};
use insane_sim::SimNet;
use insane_wire::data::HEADER_BYTES;

/// Of a heartbeat, and of a page of membership.
const SMALL: usize = 120;
const LARGE: usize = 1_300;

fn on_wire(said: usize) -> u64 {
    (said + HEADER_BYTES) as u64 + u64::from(OVERHEAD)
}

fn say(a: &Talker, said: usize) {
    let body = heapless::Vec::from_slice(&[7; 1_400][..said]).unwrap();
    a.host.port.send(Command::SendOverlay { peer: PeerIndex(0), link: 0, lane: Lane::CONTROL, body }).unwrap();
}

/// Turns, and looks at what comes back, for so long.
fn pass(a: &mut Talker, net: &SimNet, time_ns: u64) {
    let until = net.clock().now().0 + time_ns;
    while net.clock().now().0 < until {
        while a.host.engine.turn() {}
        while a.host.port.collect().is_some() {}
        net.advance(Nanos(2 * US));
    }
}

/// When frames of so many bytes were handed over, by true time.
fn went(a: &Talker, said: usize) -> Vec<u64> {
    a.handed.borrow().iter().filter(|frame| frame.bytes == on_wire(said)).map(|frame| frame.at_ns).collect()
}

/// The table in force has windows that nobody uses: this period, start and length. Without one it is
/// that of the talker.
fn with_windows(setting: Setting, window: Option<(u64, u64, u64)>) -> (SimNet, Talker) {
    let (net, mut a) = locked(setting);
    if let Some((period, offset, length)) = window {
        let slots = Recurrence::new(period, offset, length).unwrap();
        let unused = TimedStream { flow: timed_flow(1), slots, early_ns: period / 2, ..stream_at(0, setting) };
        stage(&mut a.host, &config(setting), &[unused], PERIOD);
        pass(&mut a, &net, 5 * MS);
    }
    a.handed.borrow_mut().clear();
    (net, a)
}

#[test]
fn they_have_no_gate() {
    let (net, mut a) = locked(GOOD);
    let gates = Gates::new(TaiTime(0), None, 0, &[GateEntry { open_lanes: 0b1000_0111, interval_ns: PERIOD }]).unwrap();
    stage_with(&mut a.host, &config(GOOD), (&[], Some(gates), LaneArrivals::default()), PERIOD, None);
    pass(&mut a, &net, 5 * MS);
    let begin = net.clock().now().0;
    (0..3).for_each(|_| say(&a, SMALL));
    pass(&mut a, &net, MS);
    let went = went(&a, SMALL);
    assert!(went.len() == 3 && went.iter().all(|at| at - begin <= 100 * US), "{went:?} from {begin} on");
}

#[test]
fn small_ones_pass_a_large_one_that_fits_nowhere_and_that_goes_at_last() {
    let window = slot_ns(&config(GOOD));
    let (net, mut a) = with_windows(GOOD, Some((100 * US, 0, window)));
    let begin = net.clock().now().0;
    say(&a, LARGE);
    (0..3).for_each(|_| say(&a, SMALL));
    pass(&mut a, &net, 39 * MS);
    assert!(went(&a, SMALL).iter().all(|at| at - begin <= 300 * US), "{:?} from {begin} on", went(&a, SMALL));
    assert_eq!((went(&a, SMALL).len(), went(&a, LARGE).len()), (3, 0));
    pass(&mut a, &net, 2 * MS);
    assert_eq!(went(&a, LARGE).len(), 1, "the table does not cut its link off");
}

#[test]
fn one_to_a_peer_that_was_removed_does_not_go() {
    let (net, mut a) = with_windows(GOOD, Some((100 * US, 0, slot_ns(&config(GOOD)))));
    say(&a, LARGE);
    pass(&mut a, &net, MS);
    a.host.port.send(Command::RemovePeer(PeerIndex(0))).unwrap();
    pass(&mut a, &net, 60 * MS);
    assert_eq!(went(&a, LARGE).len(), 0);
}

#[test]
fn a_table_without_room_gives_an_eighth_of_the_link_to_them() {
    let (net, mut a) = with_windows(GOOD, Some((40 * US, 0, 40 * US)));
    let (begin, said) = (net.clock().now().0, 300);
    for _ in 0..12 {
        (0..5).for_each(|_| say(&a, said));
        pass(&mut a, &net, 10 * US);
    }
    pass(&mut a, &net, 39 * MS);
    assert_eq!(went(&a, said), [], "they wait");
    pass(&mut a, &net, 25 * MS);
    let went = went(&a, said);
    let takes = on_wire(said) * WIRE_NS_PER_BYTE;
    assert_eq!(went.len(), 60, "from {begin} on: {went:?}");
    assert!(went.windows(2).all(|pair| pair[1] - pair[0] >= 8 * takes - US), "of {takes} ns each: {went:?}");
}

#[test]
fn overdue_ones_take_the_place_of_others_and_displace_no_slot() {
    let setting = Setting { foreign_bytes: 1_538, ..GOOD };
    let length = slot_ns(&config(setting));
    let (net, mut a) = locked(setting);
    // What the slot leaves is a window that nobody uses.
    let rest = TimedStream {
        flow: timed_flow(1),
        slots: Recurrence::new(PERIOD, a.offset_ns + length, PERIOD - length).unwrap(),
        ..stream_at(0, setting)
    };
    stage(&mut a.host, &config(setting), &[stream_at(a.offset_ns, setting), rest], PERIOD);
    pass(&mut a, &net, 5 * MS);
    a.handed.borrow_mut().clear();
    let begin = (net.clock().now().0 / PERIOD + 1) * PERIOD + a.offset_ns - 200 * US;
    turns_until(&mut a, &net, begin);
    a.remember();
    let (said, mut emitted, mut left) = (300, 0, 60);
    while net.clock().now().0 < begin + 60 * MS {
        if net.clock().now().0 >= begin + emitted * PERIOD {
            assert!(a.timed.emit_copy(&[0; SIZE], 0).is_some_and(|emit| emit.is_sent()));
            emitted += 1;
        }
        if emitted == 3 && left > 0 {
            (0..5).for_each(|_| say(&a, said));
            left -= 5;
        }
        pass(&mut a, &net, 2 * US);
    }
    let went = went(&a, said);
    assert_eq!(went.len(), 60);
    assert!(went.iter().all(|at| (20 * MS..40 * MS).contains(&(at - begin - 2 * MS))), "{went:?}");
    let seen = look_at_wire(&a.handed.borrow(), a.offset_ns, length, CLOCK_NS);
    assert!(seen.outside == 0 && seen.timed >= emitted, "{seen:?} of {emitted}");
    assert_eq!(a.since(TurnCounter::LateLinkBusy), 0);
}

#[test]
fn they_go_at_once_while_the_clock_of_the_slots_is_halted() {
    let (net, mut a) = locked(Setting { after_holdover: AfterHoldover::Halt, ..GOOD });
    a.is_synchronised.set(false);
    pass(&mut a, &net, 200 * MS);
    assert!(matches!(a.host.engine.slot_clock(), Some(ClockState::Halted(_))));
    let begin = net.clock().now().0;
    for _ in 0..8 {
        (0..5).for_each(|_| say(&a, SMALL));
        pass(&mut a, &net, 2 * US);
    }
    pass(&mut a, &net, MS);
    let went = went(&a, SMALL);
    assert!(went.len() == 40 && went.iter().all(|at| at - begin <= 100 * US), "{went:?} from {begin} on");
}

/// More than may be below, or more than go in one turn: who sleeps wakes when there is room, and
/// does not sleep before.
#[test]
fn a_host_that_sleeps_is_told_when_there_is_room() {
    for in_flight_bytes in [GOOD.in_flight_bytes, 40_000] {
        let (net, mut a) = with_windows(Setting { in_flight_bytes, ..GOOD }, None);
        // No message moves in a slot.
        pass(&mut a, &net, 60 * MS);
        let begin = net.clock().now().0;
        for _ in 0..12 {
            (0..5).for_each(|_| say(&a, SMALL));
            // Commands alone.
            a.host.engine.turn();
            while a.host.port.collect().is_some() {}
        }
        a.emit_at = u64::MAX;
        while net.clock().now().0 < begin + 10 * MS {
            while a.host.engine.turn() {}
            let now = net.clock().now().0;
            net.advance(Nanos(a.next(now).clamp(now + 200, begin + 10 * MS) - now));
        }
        let went = went(&a, SMALL);
        // At the rate of the link, and for a slot in each period nothing goes.
        let takes = 60 * on_wire(SMALL) * WIRE_NS_PER_BYTE;
        assert!(went.len() == 60 && went[59] - begin <= takes * 3 / 2, "of {takes} ns: {went:?} from {begin} on");
    }
}

/// Real-time lanes that have more than a turn sends have them wait until they are overdue, and no
/// longer.
#[test]
fn a_flood_of_real_time_does_not_keep_them_for_ever() {
    let (net, mut a) = with_windows(Setting { bits_per_s: 100_000_000_000, in_flight_bytes: 100_000, ..GOOD }, None);
    let flood: Vec<_> =
        (0..=GRANTS_PER_TURN).map(|_| a.host.source(BULK, Lane::new(2).unwrap(), &[(1_300, 64)])).collect();
    let begin = net.clock().now().0;
    (0..5).for_each(|_| say(&a, SMALL));
    while net.clock().now().0 < begin + 22 * MS {
        for source in &flood {
            while let Ok(buffer) = source.get_buffer(1_300)
                && source.emit(buffer, 0).is_sent()
            {}
        }
        a.host.engine.turn();
        net.advance(Nanos(100 * US));
    }
    let went = went(&a, SMALL);
    assert!(went.len() == 5 && went[0] - begin >= 20 * MS, "{went:?} from {begin} on");
}

/// Best effort goes on while the gate of a late message is shut, and so do they.
#[test]
fn a_late_message_that_lets_best_effort_by_lets_them_by() {
    let setting = Setting { late: LatePolicy::SendNow, ..GOOD };
    let (net, mut a) = locked(setting);
    let period = 100 * MS;
    let gates = Gates::new(TaiTime(0), None, 0, &[GateEntry { open_lanes: !1, interval_ns: PERIOD }]).unwrap();
    let slots = Recurrence::new(period, 0, slot_ns(&config(setting))).unwrap();
    let shut = TimedStream { slots, early_ns: period, deadline_ns: 90 * MS, ..stream_at(0, setting) };
    stage_with(&mut a.host, &config(setting), (&[shut], Some(gates), LaneArrivals::default()), period, None);
    pass(&mut a, &net, 150 * MS - net.clock().now().0 % period);
    assert!(a.timed.emit_copy(&[0; SIZE], 0).is_some_and(|emit| emit.is_sent()));
    // Its slot is over, and it may yet go.
    pass(&mut a, &net, 60 * MS);
    a.handed.borrow_mut().clear();
    a.emit_at = u64::MAX;
    let begin = net.clock().now().0;
    (0..3).for_each(|_| say(&a, SMALL));
    while net.clock().now().0 < begin + 10 * MS {
        a.act(net.clock().now().0, setting);
        while a.host.port.collect().is_some() {}
        net.advance(Nanos(2 * US));
    }
    let went = went(&a, SMALL);
    assert!(a.handed.borrow().len() > 50, "best effort goes on: {}", a.handed.borrow().len());
    assert!(went.len() == 3 && went.iter().all(|at| at - begin <= 500 * US), "{went:?} from {begin} on");
}

#[test]
fn who_sleeps_when_the_last_table_goes_leaves_none_behind() {
    const SAID: usize = 10;
    let (net, mut a) = with_windows(GOOD, Some((100 * US, 0, slot_ns(&config(GOOD)))));
    for _ in 0..SAID / 5 {
        (0..5).for_each(|_| say(&a, LARGE));
        pass(&mut a, &net, 10 * US);
    }
    stage(&mut a.host, &config(GOOD), &[], PERIOD);
    for _ in 0..500 {
        for _ in 0..64 {
            if !a.host.engine.turn() && !a.host.engine.has_work() {
                break;
            }
        }
        assert!(went(&a, LARGE).len() == SAID || a.host.engine.slot_due().is_some(), "it would sleep");
        net.advance(Nanos(10 * US));
    }
    assert!(!a.host.engine.is_repairing() && a.host.engine.slot_due().is_none(), "there is no table");
    assert_eq!(went(&a, LARGE).len(), SAID);
}
