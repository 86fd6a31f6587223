//! Engines that send in slots, in virtual time, over a wire that tells when each frame left.

mod control_frames;
mod talkers;
mod world;

use insane_clock::ClockState;
use insane_core::counters::{DatapathCounter, TurnCounter};
use insane_core::time::Clock;
use insane_core::{
    Cause, ConnId, HostId, Incarnation, Lane, MonoTime, Nanos, PeerIndex, SourceInstant, Stamp, TaiTime,
};
use insane_engine::{Command, EngineConfig, LaneArrivals, SlotConfig};
use insane_link::LinkSetup;
use insane_scheduler::{Arrivals, GateEntry, Gates, LatePolicy, LinkTiming, Recurrence, TimedStream};
use insane_shm::port::{SinkPort, SourcePort};
use insane_shm::region::Region;
use insane_shm::trace::{Missing, Record, SlotFate, SlotRecord, TRACE_BYTES, TraceLog, TraceReader};
use insane_sim::{SimConfig, SimNet};
use insane_sys::guard::{self, GuardAllocator};
use insane_wire::data::HEADER_BYTES;
use std::num::{NonZeroU32, NonZeroU64};
use std::rc::Rc;
use std::sync::Arc;
use talkers::*;
use world::{Host, TOPIC, address};

#[global_allocator]
static ALLOCATOR: GuardAllocator = GuardAllocator;

#[test]
fn every_message_leaves_in_its_window_while_best_effort_fills_the_rest() {
    for (seen, talker) in run(GOOD, 1_500) {
        assert_eq!(seen.outside, 0, "{seen:?}");
        assert!((1_295..=1_301).contains(&seen.timed), "{seen:?}");
        // A period holds a slot and before it a guard of a frame and e_turn at most.
        let slot = slot_ns(&config(GOOD));
        let guard = 1_538 * WIRE_NS_PER_BYTE + TURN_NS;
        assert!(seen.bulk_share_percent * PERIOD >= 80 * (PERIOD - slot - guard), "{seen:?}");
        assert_eq!(talker.host.engine.slot_clock(), Some(ClockState::Locked));
        assert!(talker.taken + 3 >= talker.emitted);
        // The first ones went before the table was in force.
        assert!(talker.count(TurnCounter::SlotsSent) + 5 >= talker.emitted);
        assert!(talker.count(TurnCounter::GuardNs) > 0);
        assert_eq!(talker.count(TurnCounter::ClockStep), 1, "the clock was locked once");
        // Each of them was measured, and a host looks as late as it may and no later.
        let turn = talker.host.port.epsilons().turn.counted();
        assert_eq!(turn.samples(), talker.count(TurnCounter::SlotsSent));
        assert!((GOOD.sleeps_ns / 2..=TURN_NS).contains(&turn.max.0), "{}", turn.max);
        // So was what went between them, which keeps to e_turn as well.
        let chunk = talker.host.port.epsilons().chunk.counted();
        assert!(chunk.samples() > 0 && chunk.max.0 <= TURN_NS, "{}, {}", chunk.samples(), chunk.max);
        // It moved the slots to where bulk was on its way already.
        assert!(talker.count(TurnCounter::LateLinkBusy) <= 1);
        for counter in [TurnCounter::LateTurn, TurnCounter::LateUnexplained, TurnCounter::TurnOverruns] {
            assert_eq!(talker.count(counter), 0, "{}", counter.name());
        }
    }
}

#[test]
fn what_is_handed_over_ahead_leaves_in_its_window_however_late_the_host_wakes() {
    let oversleeps = Setting { sleeps_ns: 150 * US, ..GOOD };
    for (seen, talker) in run(Setting { lead_ns: 400 * US, ..oversleeps }, 1_000) {
        assert_eq!(seen.outside, 0, "{seen:?}");
        assert!(seen.timed >= 795, "{seen:?}");
        assert!(seen.bulk_share_percent > 0, "best effort goes on: {seen:?}");
        let (launched, sent) = (talker.since(TurnCounter::SlotsLaunched), talker.since(TurnCounter::SlotsSent));
        assert!(launched == sent && sent >= 795, "{launched} of {sent}");
        for counter in [TurnCounter::LateTurn, TurnCounter::LateUnexplained, TurnCounter::LateLaunch] {
            assert_eq!(talker.since(counter), 0, "{}", counter.name());
        }
    }
    // The same host without launch times.
    for (_, talker) in run(oversleeps, 600) {
        let missed = talker.since(TurnCounter::LateTurn) + talker.since(TurnCounter::LateUnexplained);
        assert!(missed > 100, "{missed}");
        assert_eq!(talker.since(TurnCounter::SlotsLaunched), 0);
    }
}

#[test]
#[should_panic(expected = "frames go ahead only where they are held back")]
fn nothing_is_handed_over_ahead_where_nothing_holds_it_back() {
    let net = SimNet::new(7, SimConfig::default());
    let inner = net.setup(address(1)).open(&[Some(address(2))]).unwrap();
    let slots = config(Setting { lead_ns: 400 * US, ..GOOD });
    let engine = EngineConfig { slots: Some(slots), ..EngineConfig::new(HostId(1), Incarnation(1)) };
    let _host = Host::of(engine, inner, net.clock(), 1, &[(2048, 64)], None);
}

#[test]
fn a_guard_that_takes_the_link_for_faster_than_it_is_displaces_messages() {
    for (seen, _) in run(Setting { bits_per_s: 125_000_000, ..GOOD }, 600) {
        assert!(seen.outside > seen.timed / 2, "{seen:?}");
    }
}

#[test]
fn a_lane_without_slots_displaces_messages() {
    for (seen, _) in run(Setting { has_slots: false, ..GOOD }, 600) {
        assert!(seen.outside > seen.timed / 2, "{seen:?}");
    }
}

#[test]
fn without_discipline_the_slots_run_by_the_local_clock() {
    for (seen, talker) in run(Setting { is_synchronised: false, ..GOOD }, 600) {
        let state = talker.host.engine.slot_clock().unwrap();
        assert!(matches!(state, ClockState::Local(_)), "{state:?}");
        // They are sent at their own instants, which have no phase in common with TAI.
        assert!(seen.outside > 0);
        assert!(talker.count(TurnCounter::SlotsSent) + 5 >= talker.emitted);
    }
}

#[test]
fn late_messages_follow_their_policy_and_have_a_cause() {
    let late = |late| Setting { late, late_every: Some(10), ..GOOD };
    for (_, talker) in run(late(LatePolicy::Drop), 800) {
        let (dropped, cause) = (talker.since(TurnCounter::LateDropped), talker.since(TurnCounter::LateApplication));
        let emitted = talker.emitted - talker.before.0;
        assert!(emitted > 400 && dropped.abs_diff(emitted / 10) <= 1, "{dropped} of {emitted}");
        assert_eq!(dropped, cause, "the application was late, and nobody else");
    }
    for (_, talker) in run(late(LatePolicy::SendNow), 800) {
        let (sent, emitted) = (talker.since(TurnCounter::LateSent), talker.emitted - talker.before.0);
        assert!(emitted > 400 && sent.abs_diff(emitted / 10) <= 1, "{sent} of {emitted}");
        assert_eq!(sent, talker.since(TurnCounter::LateApplication));
        assert_eq!(talker.since(TurnCounter::LateDropped), 0);
    }
}

fn turns_until(a: &mut Talker, net: &SimNet, until: u64) {
    while net.clock().now().0 < until {
        while a.host.engine.turn() {}
        net.advance(Nanos(10 * US));
    }
}

/// A host whose clock is locked, and whose messages have gone.
fn locked(setting: Setting) -> (SimNet, Talker) {
    let net = SimNet::new(7, SimConfig { frames_max: 8_192, ..SimConfig::default() });
    let mut a = talker(&net, 1, 2, 0, 300 * US, setting);
    let start = net.clock().now().0;
    a.emit_at = start;
    while net.clock().now().0 < start + 250 * MS {
        a.act(net.clock().now().0, setting);
        net.advance(Nanos(10 * US));
    }
    turns_until(&mut a, &net, start + 260 * MS);
    a.remember();
    (net, a)
}

#[test]
fn a_late_message_that_the_link_does_not_take_goes_when_it_does_and_not_in_its_next_slot() {
    let setting = Setting { late: LatePolicy::SendNow, ..GOOD };
    let (net, mut a) = locked(setting);
    let slot = (net.clock().now().0 / PERIOD + 2) * PERIOD + a.offset_ns;
    turns_until(&mut a, &net, slot + slot_ns(&config(setting)) + 10 * US);
    a.is_full.set(true);
    assert!(a.timed.emit_copy(&[0; SIZE], 0).is_some_and(|emit| emit.is_sent()));
    turns_until(&mut a, &net, slot + 150 * US);
    assert_eq!(a.since(TurnCounter::LateSent), 0, "nothing was sent");
    a.is_full.set(false);
    turns_until(&mut a, &net, slot + PERIOD - 50 * US);
    assert_eq!((a.since(TurnCounter::LateSent), a.since(TurnCounter::SlotsSent)), (1, 0));
    turns_until(&mut a, &net, slot + 2 * PERIOD);
    assert_eq!((a.since(TurnCounter::LateSent), a.since(TurnCounter::SlotsSent)), (1, 0), "once");
}

#[test]
fn a_message_that_is_early_when_the_host_wakes_waits_for_its_slot() {
    for late in [LatePolicy::Drop, LatePolicy::SendNow] {
        let setting = Setting { late, ..GOOD };
        let (net, mut a) = locked(setting);
        for round in 0..20 {
            // A slot goes by without a message; then the host sleeps, and wakes for one.
            let slot = (net.clock().now().0 / PERIOD + 2) * PERIOD + a.offset_ns;
            turns_until(&mut a, &net, slot + slot_ns(&config(setting)) + 10 * US);
            net.advance(Nanos(slot + PERIOD / 2 - net.clock().now().0));
            assert!(a.timed.emit_copy(&[0; SIZE], 0).is_some_and(|emit| emit.is_sent()));
            turns_until(&mut a, &net, slot + PERIOD - 20 * US);
            assert_eq!(a.since(TurnCounter::SlotsSent), round, "{late:?}: its slot has not begun");
            turns_until(&mut a, &net, slot + PERIOD + slot_ns(&config(setting)) + 10 * US);
            assert_eq!(a.since(TurnCounter::SlotsSent), round + 1, "{late:?}: it goes in its slot");
            assert_eq!((a.since(TurnCounter::LateSent), a.since(TurnCounter::LateDropped)), (0, 0), "{late:?}");
        }
    }
}

#[test]
fn a_crowd_of_sources_that_close_right_before_a_slot_displaces_nobody() {
    const CROWD: usize = 64;
    let closing = HEADER_BYTES as u64 + u64::from(OVERHEAD);
    for has_bulk in [false, true] {
        let (net, mut a) = locked(GOOD);
        let crowd: Vec<(SourcePort, ConnId)> =
            (0..CROWD).map(|_| (a.host.source(BULK, Lane::LAST, &[]), ConnId(a.host.next))).collect();
        let begin = (net.clock().now().0 / PERIOD + 2) * PERIOD + a.offset_ns - 160 * US;
        turns_until(&mut a, &net, begin);
        a.handed.borrow_mut().clear();
        a.remember();
        a.emit_at = begin;
        let mut leaving = crowd.iter().map(|(_, conn)| *conn).peekable();
        let mut removed = 0;
        while net.clock().now().0 < begin + 60 * MS {
            while let Some(conn) = leaving.peek()
                && a.host.port.send(Command::RemoveSource(*conn)).is_ok()
            {
                leaving.next();
            }
            let now = net.clock().now().0;
            if has_bulk {
                a.act(now, GOOD)
            } else {
                a.act_alone(now)
            }
            while let Some(command) = a.host.port.collect() {
                removed += usize::from(matches!(*command, Command::Removed { .. }));
            }
            net.advance(Nanos(2 * US));
        }
        assert_eq!(removed, CROWD);
        let handed = a.handed.borrow();
        let told = handed.iter().filter(|frame| !frame.lane.is_real_time() && frame.bytes == closing).count();
        assert_eq!(told, 3 * CROWD, "each of them says so, three times");
        let seen = look_at_wire(&handed, a.offset_ns, slot_ns(&config(GOOD)), CLOCK_NS);
        let emitted = a.emitted - a.before.0;
        assert!(emitted >= 59 && seen.outside == 0, "{seen:?} of {emitted}");
        assert!(a.since(TurnCounter::SlotsSent) + 1 >= emitted && seen.timed + 1 >= emitted, "{seen:?} of {emitted}");
    }
}

/// Frames of the control plane come right before every slot, in its guard: they go behind it, before
/// best effort, and soon.
#[test]
fn what_the_control_plane_says_displaces_no_slot_and_does_not_wait_for_best_effort() {
    const SAID: usize = 300;
    let bytes = (SAID + HEADER_BYTES) as u64 + u64::from(OVERHEAD);
    for has_bulk in [false, true] {
        let (net, mut a) = locked(GOOD);
        let begin = (net.clock().now().0 / PERIOD + 2) * PERIOD + a.offset_ns - 160 * US;
        turns_until(&mut a, &net, begin);
        a.handed.borrow_mut().clear();
        a.remember();
        a.emit_at = begin;
        let (mut said, mut at) = (0, Vec::new());
        while net.clock().now().0 < begin + 60 * MS {
            let now = net.clock().now().0;
            let to_slot = PERIOD - (now + PERIOD - a.offset_ns % PERIOD) % PERIOD;
            if at.len() * PERIOD as usize <= (now - begin) as usize && to_slot < 20 * US {
                at.push(now);
                for _ in 0..3 {
                    let body = heapless::Vec::from_slice(&[7; SAID]).unwrap();
                    let lane = Lane::CONTROL;
                    a.host.port.send(Command::SendOverlay { peer: PeerIndex(0), link: 0, lane, body }).unwrap();
                    said += 1;
                }
            }
            if has_bulk {
                a.act(now, GOOD)
            } else {
                a.act_alone(now)
            }
            while a.host.port.collect().is_some() {}
            net.advance(Nanos(2 * US));
        }
        let handed = a.handed.borrow();
        let went: Vec<u64> = handed.iter().filter(|frame| frame.bytes == bytes).map(|frame| frame.at_ns).collect();
        assert!(said >= 150 && went.len() >= said - 3, "{} of {said}", went.len());
        for (number, went) in went.iter().enumerate() {
            let waited = went - at[number / 3];
            assert!(waited <= 500 * US, "bulk: {has_bulk}: number {number} waited for {waited} ns");
        }
        let seen = look_at_wire(&handed, a.offset_ns, slot_ns(&config(GOOD)), CLOCK_NS);
        let emitted = a.emitted - a.before.0;
        assert!(emitted >= 59 && seen.outside == 0, "bulk: {has_bulk}: {seen:?} of {emitted}");
        assert!(seen.timed + 1 >= emitted, "bulk: {has_bulk}: {seen:?} of {emitted}");
    }
}

/// Emits what claims to have come so long ago.
fn emit_late(a: &Talker, ago: u64) {
    let instant = SourceInstant::Monotonic(MonoTime(a.local.now().0 - ago));
    let stamp = Stamp { instant, is_history: false }.encode();
    assert!(a.timed.emit_copy(&[0; SIZE], stamp).is_some_and(|emit| emit.is_sent()));
}

#[test]
fn what_came_while_the_host_slept_is_judged_by_its_own_instant() {
    let setting = Setting { late: LatePolicy::Drop, ..GOOD };
    let (net, mut a) = locked(setting);
    let slot = (net.clock().now().0 / PERIOD + 2) * PERIOD + a.offset_ns;
    turns_until(&mut a, &net, slot + slot_ns(&config(setting)) + 10 * US);
    // It is found when messages are early for the next slot, and came before.
    net.advance(Nanos(slot + PERIOD / 2 - net.clock().now().0));
    emit_late(&a, PERIOD / 2 - 100 * US);
    turns_until(&mut a, &net, slot + PERIOD + 200 * US);
    assert_eq!((a.since(TurnCounter::LateDropped), a.since(TurnCounter::SlotsSent)), (1, 0));
}

#[test]
fn what_waits_behind_a_late_message_is_judged_by_its_own_instant() {
    let setting = Setting { late: LatePolicy::Drop, ..GOOD };
    let (net, mut a) = locked(setting);
    let slot = (net.clock().now().0 / PERIOD + 2) * PERIOD + a.offset_ns;
    turns_until(&mut a, &net, slot + slot_ns(&config(setting)) + 10 * US);
    // The host sleeps beyond the next slot: the first is late, the second early for the one after.
    net.advance(Nanos(slot + PERIOD + PERIOD / 2 - net.clock().now().0));
    emit_late(&a, PERIOD + PERIOD / 2 - 100 * US);
    emit_late(&a, 10 * US);
    turns_until(&mut a, &net, slot + 2 * PERIOD + 200 * US);
    assert_eq!((a.since(TurnCounter::LateDropped), a.since(TurnCounter::SlotsSent)), (1, 1));
}

/// Best effort without end, in a lane that a schedule says is rarely used: with slots and without.
#[test]
fn what_floods_a_lane_with_a_contract_is_held_to_it_and_told() {
    let frame = config(GOOD).message_bytes(1_300, 1_400, 1);
    let burst = 4;
    let mut arrivals = LaneArrivals::default();
    let (frame_bytes, interval_ns) = (NonZeroU32::new(frame).unwrap(), NonZeroU64::new(2 * MS).unwrap());
    arrivals[7] = Some(Arrivals { frame_bytes, burst_frames: burst, interval_ns });
    let (net, mut a) = locked(GOOD);
    for streams in [&[stream_at(300 * US, GOOD)][..], &[]] {
        stage_with(&mut a.host, &config(GOOD), (streams, None, arrivals), PERIOD, None);
        a.emit_at = if streams.is_empty() { u64::MAX } else { net.clock().now().0 };
        // In force, and the burst is gone.
        for part in 0..3 {
            let (cuts, used_up) = (a.count(TurnCounter::LanesCut), a.host.count(DatapathCounter::ContractUsedUp));
            a.handed.borrow_mut().clear();
            let end = net.clock().now().0 + 40 * MS;
            while net.clock().now().0 < end {
                a.act(net.clock().now().0, GOOD);
                net.advance(Nanos(2 * US));
            }
            if part == 0 {
                continue;
            }
            let lanes: Vec<Lane> = a.handed.borrow().iter().map(|frame| frame.lane).collect();
            let sent = lanes.iter().filter(|lane| **lane == Lane::LAST).count();
            assert!((19..=21).contains(&sent), "{sent} in 40 ms");
            let in_slots = lanes.len() - sent;
            assert_eq!(in_slots >= 39, !streams.is_empty(), "{in_slots}");
            assert!(a.count(TurnCounter::LanesCut) > cuts && a.host.count(DatapathCounter::ContractUsedUp) > used_up);
            assert_eq!(a.host.port.epsilons().lanes_cut(), 1 << 7);
        }
    }
    // Without the contract it has what is free.
    stage_with(&mut a.host, &config(GOOD), (&[], None, LaneArrivals::default()), PERIOD, None);
    turns_until(&mut a, &net, net.clock().now().0 + 5 * MS);
    assert_eq!(a.host.port.epsilons().lanes_cut(), 0, "those were lanes of another table");
    a.handed.borrow_mut().clear();
    let end = net.clock().now().0 + 40 * MS;
    while net.clock().now().0 < end {
        a.act(net.clock().now().0, GOOD);
        net.advance(Nanos(2 * US));
    }
    assert!(a.handed.borrow().len() > 300, "{}", a.handed.borrow().len());
}

/// What conforms goes at once also where nobody turned the engine for a while, or where the link
/// took nothing, as far as the engine can know it.
#[test]
fn what_keeps_its_contract_is_not_cut_where_the_thread_or_the_link_stood_still() {
    let frame = config(GOOD).message_bytes(1_300, 1_400, 1);
    let mut arrivals = LaneArrivals::default();
    let (frame_bytes, interval_ns) = (NonZeroU32::new(frame).unwrap(), NonZeroU64::new(MS).unwrap());
    for (lane, is_full, slept) in [(7, false, false), (7, false, true), (1, true, false)] {
        let (net, mut a) = locked(GOOD);
        arrivals[lane] = Some(Arrivals { frame_bytes, burst_frames: 2, interval_ns });
        let source = a.host.source(BULK, Lane::new(lane as u8).unwrap(), &[(1_300, 64)]);
        stage_with(&mut a.host, &config(GOOD), (&[stream_at(300 * US, GOOD)], None, arrivals), PERIOD, None);
        turns_until(&mut a, &net, net.clock().now().0 + 100 * MS);
        a.handed.borrow_mut().clear();
        a.remember();
        a.is_full.set(is_full);
        // A burst, and then one each millisecond.
        for message in 0..10 {
            if message >= 2 {
                // Who is refused by a link has something to do at once.
                (0..if is_full { 20 } else { 1 }).for_each(|_| {
                    net.advance(Nanos(MS / if is_full { 20 } else { 1 }));
                    let _worked = is_full && a.host.engine.turn();
                });
            }
            assert!(source.emit(source.get_buffer(1_300).unwrap(), 0).is_sent());
        }
        a.is_full.set(false);
        if slept {
            // It was asleep, and what came has woken it: then it did not come before.
            a.host.engine.note_wake(a.local.now());
        }
        // Ten of them take 1.1 ms.
        turns_until(&mut a, &net, net.clock().now().0 + 1_600 * US);
        let (gone, cuts) = (a.handed.borrow().len(), a.since(TurnCounter::LanesCut));
        assert_eq!(cuts > 0, slept, "lane {lane}: {gone} of ten");
        assert!(if slept { (2..=5).contains(&gone) } else { gone == 10 }, "lane {lane}: {gone} of ten");
    }
}

#[test]
fn gates_hold_without_streams_that_have_slots() {
    let (net, mut a) = locked(GOOD);
    let lanes = |open_lanes, interval_ns| GateEntry { open_lanes, interval_ns };
    let (shut, open) = (600 * US, 400 * US);
    let gates = Gates::new(TaiTime(0), None, 0, &[lanes(0b111, shut), lanes(!0b111, open)]).unwrap();
    stage_with(&mut a.host, &config(GOOD), (&[], Some(gates), LaneArrivals::default()), PERIOD, None);
    turns_until(&mut a, &net, net.clock().now().0 + 5 * MS);
    a.handed.borrow_mut().clear();
    let end = net.clock().now().0 + 50 * MS;
    a.emit_at = u64::MAX;
    while net.clock().now().0 < end {
        a.act(net.clock().now().0, GOOD);
        net.advance(Nanos(10 * US));
    }
    let (mut left, handed) = (0, a.handed.borrow());
    assert!(handed.len() > 100, "best effort has its window: {}", handed.len());
    for frame in handed.iter() {
        let begins = frame.at_ns / PERIOD * PERIOD;
        left = frame.at_ns.max(left) + frame.bytes * WIRE_NS_PER_BYTE;
        assert!(frame.at_ns - begins + CLOCK_NS >= shut, "while its gate is shut: {frame:?}");
        assert!(left <= begins + PERIOD + CLOCK_NS, "it has not left when its gate shuts: {frame:?}");
    }
}

#[test]
fn a_message_larger_than_its_slot_is_dropped_and_harms_nobody() {
    let net = SimNet::new(7, SimConfig::default());
    let mut a = talker(&net, 1, 2, 0, 300 * US, GOOD);
    for at in 0..4_000 {
        if (2_000..2_003).contains(&at) {
            assert!(a.timed.emit_copy(&[0; SIZE + 1], 0).is_some_and(|emit| emit.is_sent()));
        }
        net.advance(Nanos(2_000));
        a.host.engine.turn();
    }
    assert_eq!(a.count(TurnCounter::SlotsOversize), 3);
    assert!(a.handed.borrow().iter().all(|frame| !frame.lane.is_real_time()));
}

/// More than one turn copies.
const LARGE: usize = 600_000;

/// At 100 Gbit/s, so that a large message fits a slot.
fn fast_config() -> SlotConfig {
    let slow = config(Setting { bits_per_s: 100_000_000_000, ..GOOD });
    SlotConfig { timing: LinkTiming { in_flight_bytes: 1_000_000, ..slow.timing }, ..slow }
}

/// A message that its lane has begun to copy for a sink of this host when the first table takes
/// over; the slot has room for `room` bytes.
fn begun_before_the_table(room: u32) -> (Host<WireLink, HostClock>, SourcePort, SinkPort) {
    let net = SimNet::new(7, SimConfig::default());
    let (local, slots) = (net.clock(), fast_config());
    let inner = net.setup(address(1)).open(&[]).unwrap();
    let (base, is_full, handed) = (net.clock(), Rc::default(), Rc::default());
    let link = WireLink { inner, base, local: local.clone(), launches: false, is_full, handed };
    let clock = HostClock { local, base: net.clock(), apart_ns: Rc::default(), is_synchronised: Rc::default() };
    let engine = EngineConfig { slots: Some(slots), ..EngineConfig::new(HostId(1), Incarnation(1)) };
    let mut host = Host::of(engine, link, clock, 0, &[(LARGE as u32, 2)], None);
    host.slots = Some(0);
    let timed = host.source(TOPIC, Lane::new(0).unwrap(), &[(LARGE as u32, 2)]);
    let (sink, _) = host.sink(TOPIC);
    host.route(TOPIC, &[], true);
    let buffer = timed.get_buffer(LARGE).unwrap();
    assert!(timed.emit(buffer, 0).is_sent());
    host.engine.turn();
    let recurrence = Recurrence::new(PERIOD, 300 * US, 200 * US).unwrap();
    stage(&mut host, &slots, &[TimedStream { slots: recurrence, bytes: room, ..stream_at(0, GOOD) }], PERIOD);
    for _ in 0..2 * PERIOD / 500 {
        net.advance(Nanos(PERIOD + 500));
        host.engine.turn();
    }
    (host, timed, sink)
}

#[test]
fn a_message_that_a_lane_began_is_finished_in_its_slot_or_dropped() {
    let fits = fast_config().message_bytes(LARGE as u32, 1_400, 1);
    for (room, arrives) in [(fits, true), (200, false)] {
        let (host, timed, sink) = begun_before_the_table(room);
        assert_eq!(sink.consume().unwrap().is_some(), arrives, "{room} bytes");
        let count = |counter: TurnCounter| host.turn_counters.get(counter as usize);
        assert_eq!(count(TurnCounter::SlotsOversize), u64::from(!arrives));
        // Nothing is left of it that would take slots, and its buffer is back.
        assert!(count(TurnCounter::SlotsSent) <= 1, "{}", count(TurnCounter::SlotsSent));
        let buffers = [timed.get_buffer(LARGE), timed.get_buffer(LARGE)];
        assert!(buffers.iter().all(Result::is_ok), "{buffers:?}");
    }
}

#[test]
fn only_a_slot_that_has_its_message_is_waited_for_with_open_eyes() {
    const MARGIN: Nanos = Nanos(300 * US);
    let net = SimNet::new(7, SimConfig::default());
    let mut a = talker(&net, 1, 2, 0, 300 * US, GOOD);
    for _ in 0..2_000 {
        net.advance(Nanos(2_000));
        a.host.engine.turn();
    }
    let due = |a: &Talker| a.host.engine.slot_due().expect("slots are in force");
    // The message is made on this core, perhaps: nobody is kept from it, however near the slot is.
    // Once it has begun, what follows may be another's slot that has its message.
    let (mut slept, mut looked) = (0, 0);
    for _ in 0..3 * PERIOD / 2_000 {
        net.advance(Nanos(2_000));
        a.host.engine.turn();
        match a.host.engine.sleep_until(MARGIN) {
            Some(until) if until == due(&a) => slept += 1,
            until => {
                assert_eq!(until, Some(due(&a) - MARGIN));
                looked += 1;
            }
        }
    }
    assert!(looked > 0 && slept > 2 * looked, "{slept} and {looked} turns");
    let emits = a.timed.emit_copy(&[0; SIZE], 0);
    assert!(emits.is_some_and(|emit| emit.is_sent()));
    net.advance(Nanos(2_000));
    a.host.engine.turn();
    assert_eq!(a.count(TurnCounter::SlotsSent), 0, "its slot is still to come");
    assert_eq!(a.host.engine.sleep_until(MARGIN), Some(due(&a) - MARGIN));
}

#[test]
fn the_last_stream_that_goes_gives_the_lanes_back() {
    let net = SimNet::new(7, SimConfig::default());
    let mut a = talker(&net, 1, 2, 0, 300 * US, GOOD);
    let step = |a: &mut Talker, turns: usize| {
        for _ in 0..turns {
            net.advance(Nanos(2_000));
            a.host.engine.turn();
        }
    };
    step(&mut a, 2_000);
    assert!(a.host.engine.slot_due().is_some());
    assert!(a.timed.emit_copy(&[0; SIZE], 0).is_some_and(|emit| emit.is_sent()));
    step(&mut a, 1_000);
    assert_eq!(a.count(TurnCounter::SlotsSent), 1);
    stage(&mut a.host, &config(GOOD), &[], 0);
    step(&mut a, 1_000);
    assert_eq!(a.host.engine.slot_due(), None);
    // Its lane carries it now, at once.
    let before = a.handed.borrow().len();
    assert!(a.timed.emit_copy(&[0; SIZE], 0).is_some_and(|emit| emit.is_sent()));
    step(&mut a, 1);
    assert_eq!(a.handed.borrow().len(), before + 1);
    assert_eq!(a.count(TurnCounter::SlotsSent), 1);
}

#[test]
fn a_table_takes_over_at_the_instant_that_it_is_given_and_not_before() {
    let net = SimNet::new(7, SimConfig { frames_max: 8_192, ..SimConfig::default() });
    let (old_ns, new_ns) = (300 * US, 650 * US);
    let mut a = talker(&net, 1, 2, 80_000, old_ns, GOOD);
    a.emit_at = net.clock().now().0 + 10 * US;
    let advance = |a: &mut Talker, until: u64| {
        loop {
            let now = net.clock().now().0;
            if now >= until {
                break;
            }
            a.act(now, GOOD);
            net.advance(Nanos(a.next(now).clamp(now + 200, now + 50 * US) - now));
        }
    };
    // The clock locks first.
    advance(&mut a, net.clock().now().0 + 300 * MS);
    a.handed.borrow_mut().clear();
    let now = net.clock().now().0;
    let at = (now + 40 * MS).next_multiple_of(PERIOD);
    let mono = MonoTime(a.local.now().0 + (at - now));
    stage_at(&mut a.host, &config(GOOD), &[stream_at(new_ns, GOOD)], PERIOD, Some(mono));
    advance(&mut a, at);
    a.offset_ns = new_ns;
    advance(&mut a, at + 40 * MS);
    let handed = a.handed.borrow();
    let timed: Vec<u64> = handed.iter().filter(|frame| frame.lane.is_real_time()).map(|frame| frame.at_ns).collect();
    let length = slot_ns(&config(GOOD)) + CLOCK_NS;
    let is_in = |at_ns: u64, offset_ns: u64| (at_ns + CLOCK_NS - offset_ns) % PERIOD <= length + CLOCK_NS;
    for frame in &timed {
        let offset_ns = if *frame + CLOCK_NS < at { old_ns } else { new_ns };
        assert!(is_in(*frame, offset_ns), "{frame} {at}");
    }
    let before = timed.iter().filter(|frame| **frame < at).count() as u64;
    assert!(
        before * PERIOD >= 38 * MS && (timed.len() as u64 - before) * PERIOD >= 38 * MS,
        "{before} of {}",
        timed.len()
    );
}

/// Every slot that the first talker used, as a trace has it from the first turn on.
fn traced(setting: Setting, milliseconds: u64) -> (Vec<SlotRecord>, Talker) {
    let mut reader: Option<TraceReader> = None;
    let mut slots = Vec::new();
    let mut last = MonoTime(0);
    let [(_, talker), _] = run_beside(setting, milliseconds, |talker| {
        let reader = reader.get_or_insert_with(|| {
            let region = Region::anonymous(TRACE_BYTES).unwrap();
            let _none = talker.host.command(Command::Trace(TraceLog::new(Arc::clone(&region))));
            TraceReader::new(region).unwrap()
        });
        reader.take(|record| match record {
            Record::Slot(slot) => slots.push(slot),
            Record::Turn(turn) => {
                assert!(last <= turn.begins && turn.begins <= turn.ends, "one after the other");
                last = turn.ends;
            }
        });
        assert_eq!(reader.missing(), Missing::default());
    });
    (slots, talker)
}

/// The log of slots, the record of misses, what estimates the epsilons and follows the clock, and
/// a trace, all at work.
#[test]
fn slots_that_are_used_and_missed_with_all_their_records_allocate_nothing() {
    for late in [LatePolicy::SendNow, LatePolicy::Drop] {
        let setting = Setting { late, late_every: Some(5), ..GOOD };
        let (net, mut a) = locked(setting);
        let trace = Region::anonymous(TRACE_BYTES).unwrap();
        let _none = a.host.command(Command::Trace(TraceLog::new(Arc::clone(&trace))));
        // What the test itself notes has room beforehand.
        a.handed.borrow_mut().reserve(100_000);
        let begin = net.clock().now().0;
        a.emit_at = begin;
        let before = guard::violations_here();
        guard::seal_thread();
        for step in 0..30_000 {
            a.act(net.clock().now().0, setting);
            if step % 1_000 == 0 {
                a.host.engine.housekeeping();
            }
            net.advance(Nanos(10 * US));
        }
        guard::unseal_thread();
        assert_eq!(guard::violations_here() - before, 0);
        let (used, late) = (a.since(TurnCounter::SlotsSent), a.since(TurnCounter::LateApplication));
        assert!(used > 200 && late > 20, "{used} used, {late} late");
        assert!(!a.host.port.slot_log().unwrap().since(0).1.is_empty());
        assert!(!a.host.port.misses().unwrap().since(0).is_empty());
        let mut traced = 0;
        TraceReader::new(trace).unwrap().take(|record| traced += u64::from(matches!(record, Record::Slot(_))));
        assert!(traced > 0);
    }
}

#[test]
fn a_trace_has_each_slot_as_the_log_and_the_counters_have_it() {
    for late in [LatePolicy::SendNow, LatePolicy::Drop] {
        let (slots, talker) = traced(Setting { late, late_every: Some(5), ..GOOD }, 600);
        let of = |fate| slots.iter().filter(move |slot| slot.fate == fate);
        let (_, log) = talker.host.port.slot_log().unwrap().since(0);
        let used: Vec<_> = of(SlotFate::Used).map(|slot| (slot.planned, slot.sent)).collect();
        assert!(used.len() > 400, "{}", used.len());
        assert_eq!(used, log.iter().map(|slot| (slot.planned, slot.sent)).collect::<Vec<_>>());
        assert_eq!(of(SlotFate::SentLate).count() as u64, talker.count(TurnCounter::LateSent));
        assert_eq!(of(SlotFate::Dropped).count() as u64, talker.count(TurnCounter::LateDropped));
        let missed = slots.iter().filter(|slot| matches!(slot.fate, SlotFate::SentLate | SlotFate::Dropped));
        assert!(missed.clone().count() > 50);
        // The start of the slot that was missed, as the record of misses has it, and then it left.
        let misses = talker.host.port.misses().unwrap().since(0);
        for slot in missed {
            let of = misses.iter().find(|(_, miss)| miss.sequence == slot.sequence).map(|(_, miss)| miss);
            assert!(of.is_none_or(|miss| miss.planned == slot.planned), "{slot:?}, {of:?}");
            // A slot that a step of the clock moved may be yet to come.
            let was_moved = of.is_some_and(|miss| miss.cause == Cause::ClockStep);
            assert!(was_moved || slot.decided >= slot.planned, "{slot:?}, {of:?}");
        }
        assert!(slots.iter().all(|slot| (slot.source, slot.number, slot.lane) == (1, 0, Lane::new(0).unwrap())));
        let bytes = config(GOOD).message_bytes(SIZE as u32, 1_400, 1);
        assert!(of(SlotFate::Used).all(|slot| slot.bytes == bytes));
        assert!(slots.is_sorted_by_key(|slot| slot.decided));
    }
    let oversleeps = Setting { sleeps_ns: 150 * US, lead_ns: 400 * US, ..GOOD };
    let (slots, talker) = traced(oversleeps, 600);
    let ahead = slots.iter().filter(|slot| slot.fate == SlotFate::HandedAhead);
    assert!(ahead.clone().all(|slot| slot.decided < slot.planned), "before it begins");
    assert_eq!(ahead.count() as u64, talker.count(TurnCounter::SlotsLaunched));
}
