//! Deliberate faults in the scheduler: each must be noticed, by the simulation or by one
//! of the few direct tests below.

use insane_core::{Lane, MonoTime, TaiTime};
use insane_scheduler::{
    Action, Arrivals, ClientIndex, Decision, FlowIndex, GateEntry, Gates, LatePolicy, Limits, LinkRate, LinkTiming,
    Mutation, Now, Policing, PoolIndex, Recurrence, Scheduler, TimedScheduler, TimedStream, turn_on,
};
use std::num::{NonZeroU32, NonZeroU64};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Enough worlds for every fault to show; a right scheduler goes through all of them.
const SLOTS: u64 = 400_000;

fn simulation() -> bool {
    insane_slot_simulation::run(1, SLOTS).is_ok()
}

/// Windows of small periods, nanosecond by nanosecond.
fn recurrences() -> bool {
    let all: Vec<Recurrence> = [(4, 0, 2), (4, 2, 2), (6, 0, 1), (6, 1, 1), (6, 2, 2), (8, 3, 1), (3, 0, 1), (3, 2, 1)]
        .into_iter()
        .filter_map(|(period, offset, length)| Recurrence::new(period, offset, length).ok())
        .collect();
    let is_in =
        |one: &Recurrence, at: u64| (at + one.period_ns() - one.offset_ns()) % one.period_ns() < one.length_ns();
    let pairs = all.iter().flat_map(|a| all.iter().map(move |b| (a, b)));
    let mut overlaps = pairs.map(|(a, b)| (a.overlaps(*b), (0..24).any(|at| is_in(a, at) && is_in(b, at))));
    let mut starts = all.iter().flat_map(|one| (0..24).map(move |at| (one, at)));
    overlaps.all(|(said, is)| said == is)
        && starts.all(|(one, at)| {
            one.next_start(at) == (at..).find(|&at| at % one.period_ns() == one.offset_ns() && at >= one.offset_ns())
        })
}

/// The hand-over of one list to the next.
fn gates() -> bool {
    let list = [GateEntry { open_lanes: 1, interval_ns: 60 }, GateEntry { open_lanes: 2, interval_ns: 40 }];
    let Ok(gates) = Gates::new(TaiTime(1_000), None, 30, &list) else { return false };
    let open = |at, next| gates.state(TaiTime(at), Some(TaiTime(next))).map(|state| (state.open_lanes, state.until.0));
    open(1_200, 1_230) == Some((2, 1_230)) && open(1_200, 1_231) == Some((1, 1_231)) && open(999, 2_000).is_none()
}

/// A slot that more is in front of than its window can bear, until it has drained.
fn busy() -> bool {
    let Some(rate) = LinkRate::from_bits_per_s(1_000_000_000) else { return false };
    let timing = LinkTiming { rate, turn_ns: 0, foreign_bytes: 0, in_flight_bytes: 10_000, lead_ns: 0, step_ns: 1_000 };
    let mut timed = Box::new(TimedScheduler::<4, 2, 8>::new(timing, Scheduler::new(Limits::default())));
    let Ok(slots) = Recurrence::new(100_000, 50_000, 1_000) else { return false };
    let (flow, late) = (FlowIndex(0), LatePolicy::NextSlot);
    let stream = TimedStream { flow, slots, bytes: 100, early_ns: 100_000, deadline_ns: 0, late };
    let staged = timed.stage(TaiTime(0), &[stream], None, TaiTime(0)).is_ok();
    let now = |ns| Now { mono: MonoTime(ns), tai: TaiTime(ns) };
    let took = timed.poll(now(1), 0) == Action::TookOver;
    timed.ready(flow, TaiTime(1));
    // 26 bytes and 100 are 1,008 ns: eight too many. Drained by one byte, they fit.
    let waits = timed.poll(now(50_000), 26) == Action::Wait(MonoTime(50_201));
    let goes = matches!(timed.poll(now(50_000), 25), Action::Slot { launch: TaiTime(50_000), .. });
    staged && took && waits && goes
}

/// A client that has spent its budget waits in the first lane and in the last; and two of them
/// share a lane though one has two flows.
fn clients() -> bool {
    let Some(limits) = Limits::new(4_000, 1_000) else { return false };
    let (Some(first), budget) = (Lane::new(0), Policing { rate_bytes_per_s: NonZeroU64::MIN, burst_bytes: 2_000 })
    else {
        return false;
    };
    let mut scheduler = Box::new(Scheduler::<4>::new(limits));
    let mut add = |flow, lane, client| {
        let is_added = scheduler.add(FlowIndex(flow), lane, 4_000).is_ok();
        let is_assigned = scheduler.assign(FlowIndex(flow), Some(ClientIndex(client))).is_ok();
        scheduler.ready(FlowIndex(flow));
        is_added && is_assigned
    };
    let all = [add(0, first, 0), add(1, Lane::LAST, 0)];
    let mut is_right = all == [true; 2] && scheduler.budget(ClientIndex(0), Some(budget)).is_ok();
    is_right &= scheduler.poll(MonoTime(0)) == Decision::Send { flow: FlowIndex(0), budget_bytes: 1_001 };
    scheduler.sent(FlowIndex(0), 2_000, true);
    is_right &= matches!(scheduler.poll(MonoTime(0)), Decision::Wait(_));
    is_right &= scheduler.budget(ClientIndex(0), None).is_ok();
    scheduler.set_lane(FlowIndex(0), Lane::LAST);
    is_right &= scheduler.add(FlowIndex(2), Lane::LAST, 4_000).is_ok();
    scheduler.ready(FlowIndex(2));
    let mut sent = [0_u32; 3];
    for _ in 0..100 {
        let Decision::Send { flow, budget_bytes } = scheduler.poll(MonoTime(0)) else { return false };
        sent[usize::from(flow.0)] += budget_bytes;
        scheduler.sent(flow, budget_bytes, true);
    }
    is_right && sent[2] > 100_000 && (sent[0] + sent[1]).abs_diff(sent[2]) <= 6_000
}

/// Two flows of a pool that has spent its burst wait.
fn pools() -> bool {
    let Some(limits) = Limits::new(4_000, 1_000) else { return false };
    let mut scheduler = Box::new(Scheduler::<4>::new(limits));
    let most = Policing { rate_bytes_per_s: NonZeroU64::MIN, burst_bytes: 2_000 };
    let mut is_right = scheduler.set_pool(PoolIndex(0), Some(most)).is_ok();
    for flow in [FlowIndex(0), FlowIndex(1)] {
        is_right &= scheduler.add(flow, Lane::LAST, 4_000).is_ok();
        is_right &= scheduler.join_pool(flow, Some(PoolIndex(0))).is_ok();
        scheduler.ready(flow);
    }
    is_right &= scheduler.poll(MonoTime(0)) == Decision::Send { flow: FlowIndex(0), budget_bytes: 1_001 };
    scheduler.sent(FlowIndex(0), 2_000, true);
    is_right && matches!(scheduler.poll(MonoTime(0)), Decision::Wait(_))
}

/// A lane that always has something sends what its contract allows, also after it was kept waiting.
fn contracts() -> bool {
    let Some(rate) = LinkRate::from_bits_per_s(1_000_000_000) else { return false };
    let timing = LinkTiming { rate, turn_ns: 0, foreign_bytes: 0, in_flight_bytes: 10_000, lead_ns: 0, step_ns: 1_000 };
    let mut lanes = Scheduler::new(Limits::default());
    let flow = FlowIndex(0);
    let is_added = lanes.add(flow, Lane::LAST, 10_000).is_ok();
    let mut timed = Box::new(TimedScheduler::<4, 2, 8>::new(timing, lanes));
    let (Some(frame_bytes), Some(interval_ns)) = (NonZeroU32::new(100), NonZeroU64::new(10_000)) else { return false };
    let mut arrivals = [None; insane_scheduler::LANES];
    arrivals[7] = Some(Arrivals { frame_bytes, burst_frames: 2, interval_ns });
    timed.set_arrivals(&arrivals);
    timed.ready(flow, TaiTime(0));
    let mut sent = 0;
    for at in 0..1_000 {
        let now = Now { mono: MonoTime(at * 100), tai: TaiTime(at * 100) };
        if let Action::Chunk { budget_bytes, .. } = timed.poll(now, 0) {
            let frames = budget_bytes.div_ceil(100);
            timed.sent(flow, frames * 100, true);
            sent += frames;
        }
    }
    is_added && (10..=12).contains(&sent)
}

/// A test that holds as long as nothing is wrong.
type Named = (&'static str, fn() -> bool);

#[test]
fn every_fault_is_noticed() {
    let fails = |test: fn() -> bool| !catch_unwind(AssertUnwindSafe(test)).unwrap_or(false);
    let tests: [Named; 7] = [
        ("recurrences", recurrences),
        ("gates", gates),
        ("busy", busy),
        ("clients", clients),
        ("pools", pools),
        ("contracts", contracts),
        ("simulation", simulation),
    ];
    turn_on(None);
    for (name, test) in tests {
        assert!(!fails(test), "{name} fails though no fault is turned on");
    }
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut alive = Vec::new();
    for &mutation in Mutation::ALL {
        turn_on(Some(mutation));
        let by = tests.iter().find(|(_, test)| fails(*test)).map(|(name, _)| *name);
        println!("{:<24} {:<12} {}", format!("{mutation:?}"), by.unwrap_or("ALIVE"), mutation.what());
        alive.extend(by.is_none().then_some(mutation));
    }
    turn_on(None);
    std::panic::set_hook(hook);
    assert!(alive.is_empty(), "not noticed: {alive:?}");
}
