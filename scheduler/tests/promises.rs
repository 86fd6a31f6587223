//! The promises of the crate's documentation, each checked by what it says and not
//! by how it is kept.

mod intervals;

use insane_core::{Lane, MonoTime, Nanos};
use insane_scheduler::{AddError, Decision, FlowIndex, LANES, Limits, PoliceError, Policing, Scheduler};
use intervals::keeps_to;
use proptest::prelude::*;
use std::num::NonZeroU64;

const FLOWS: usize = 16;
const CHUNK: u32 = 4_000;
const FRAME: u32 = 1_000;

fn scheduler() -> Scheduler<FLOWS> {
    Scheduler::new(Limits::new(CHUNK, FRAME).unwrap())
}

fn lane(number: u8) -> Lane {
    Lane::new(number).unwrap()
}

/// What the contract has a caller send: whole frames, each of the size that `frames`
/// gives, while fewer than the budget have gone.
fn burst(budget_bytes: u32, frames: &mut impl Iterator<Item = u32>) -> u32 {
    let mut bytes = 0;
    while bytes < budget_bytes {
        bytes += frames.next().unwrap();
    }
    bytes
}

/// Frame sizes that repeat a random pattern.
fn frame_sizes() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(1..=FRAME, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn the_first_lane_with_something_goes_first(
        lanes in prop::collection::vec(0..LANES as u8, FLOWS),
        steps in prop::collection::vec((0..FLOWS as u16, any::<bool>(), 1..=CHUNK), 1..300),
    ) {
        let mut scheduler = scheduler();
        for (index, &number) in lanes.iter().enumerate() {
            scheduler.add(FlowIndex(index as u16), lane(number), FRAME).unwrap();
        }
        let mut ready = [false; FLOWS];
        for (index, make_ready, bytes) in steps {
            if make_ready { scheduler.ready(FlowIndex(index)) } else { scheduler.idle(FlowIndex(index)) }
            ready[index as usize] = make_ready;
            let first = (0..FLOWS).filter(|&at| ready[at]).map(|at| lanes[at]).min();
            match scheduler.poll(MonoTime(0)) {
                Decision::Send { flow, budget_bytes } => {
                    prop_assert!(ready[flow.0 as usize]);
                    prop_assert_eq!(Some(lanes[flow.0 as usize]), first);
                    prop_assert!((1..=CHUNK).contains(&budget_bytes));
                    scheduler.sent(flow, bytes.min(budget_bytes), true);
                }
                Decision::Idle => prop_assert_eq!(first, None),
                Decision::Wait(_) => prop_assert!(false, "nothing is policed"),
            }
        }
        prop_assert_eq!(scheduler.misuses(), 0);
    }

    #[test]
    fn backlogged_flows_of_a_lane_share_by_their_quanta(
        quanta in prop::collection::vec(FRAME..20 * FRAME, 2..FLOWS),
        sizes in prop::collection::vec(frame_sizes(), FLOWS),
        before in 0..100usize,
        polls in 50..1_500usize,
    ) {
        let mut scheduler = scheduler();
        for (index, &quantum) in quanta.iter().enumerate() {
            scheduler.add(FlowIndex(index as u16), lane(5), quantum).unwrap();
            scheduler.ready(FlowIndex(index as u16));
        }
        let mut frames: Vec<_> = sizes.iter().map(|sizes| sizes.iter().copied().cycle()).collect();
        let mut bytes = vec![0u64; quanta.len()];
        for poll in 0..before + polls {
            if poll == before { bytes.fill(0) }
            let Decision::Send { flow, budget_bytes } = scheduler.poll(MonoTime(0)) else {
                return Err(TestCaseError::fail("every flow is ready"));
            };
            let index = flow.0 as usize;
            let sent = burst(budget_bytes, &mut frames[index]);
            bytes[index] += u64::from(sent);
            scheduler.sent(flow, sent, true);
            // Rounds begun differ by one; beyond that, each may owe or be owed a frame.
            let share = |at: usize| bytes[at] as f64 / f64::from(quanta[at]);
            let frame = |at: usize| f64::from(FRAME) / f64::from(quanta[at]);
            let most = (0..quanta.len()).map(|at| share(at) - frame(at)).fold(f64::MIN, f64::max);
            let least = (0..quanta.len()).map(|at| share(at) + frame(at)).fold(f64::MAX, f64::min);
            prop_assert!(most - least <= 1.0 + 1e-9, "{bytes:?} of {quanta:?}");
        }
        prop_assert_eq!(scheduler.misuses(), 0);
    }

    #[test]
    fn a_flow_that_becomes_ready_waits_for_one_turn_of_each_other(
        quanta in prop::collection::vec(FRAME..9 * FRAME, FLOWS),
        sizes in frame_sizes(),
        before in 0..100usize,
    ) {
        let mut scheduler = scheduler();
        for (index, &quantum) in quanta.iter().enumerate() {
            scheduler.add(FlowIndex(index as u16), lane(7), quantum).unwrap();
        }
        let late = FlowIndex(0);
        (1..FLOWS as u16).for_each(|index| scheduler.ready(FlowIndex(index)));
        let mut frames = sizes.iter().copied().cycle();
        for _ in 0..before {
            step(&mut scheduler, &mut frames);
        }
        scheduler.ready(late);
        let mut waited = [0u64; FLOWS];
        loop {
            let (flow, sent) = step(&mut scheduler, &mut frames);
            if flow == late { break }
            waited[flow.0 as usize] += u64::from(sent);
            prop_assert!(waited[flow.0 as usize] < u64::from(quanta[flow.0 as usize] + FRAME));
        }
    }

    #[test]
    fn a_policed_flow_keeps_to_its_bucket_in_every_interval(
        rate in 1_000..100_000_000u64,
        burst_bytes in FRAME..50 * FRAME,
        sizes in frame_sizes(),
        gaps in prop::collection::vec(prop_oneof![Just(0), 0..5_000u64, 0..20_000_000u64], 1..100),
        busy in any::<bool>(),
    ) {
        let mut scheduler = scheduler();
        let (policed, other) = (FlowIndex(3), FlowIndex(4));
        scheduler.add(policed, lane(6), 2 * FRAME).unwrap();
        scheduler.add(other, lane(6), FRAME).unwrap();
        let policing = Policing { rate_bytes_per_s: NonZeroU64::new(rate).unwrap(), burst_bytes };
        scheduler.police(policed, Some(policing)).unwrap();
        let mut frames = sizes.iter().copied().cycle();
        let mut now = MonoTime(77);
        // (instant, bytes sent up to and with it)
        let mut history = vec![(now, 0u128)];
        for gap in gaps {
            now += Nanos(gap);
            scheduler.ready(policed);
            if busy { scheduler.ready(other) }
            // As many grants as the instant has, up to a few.
            for _ in 0..8 {
                let Decision::Send { flow, budget_bytes } = scheduler.poll(now) else { break };
                let sent = burst(budget_bytes, &mut frames);
                scheduler.sent(flow, sent, true);
                if flow == policed {
                    history.push((now, history.last().unwrap().1 + u128::from(sent)));
                }
            }
        }
        keeps_to(&history, rate, burst_bytes)?;
        prop_assert_eq!(scheduler.misuses(), 0);
    }

    #[test]
    fn a_policed_flow_gets_its_rate(rate in 10_000..2_000_000u64, sizes in frame_sizes(), seconds in 1..4u64) {
        let mut scheduler = scheduler();
        let flow = FlowIndex(0);
        scheduler.add(flow, Lane::LAST, FRAME).unwrap();
        scheduler.police(flow, Some(Policing { rate_bytes_per_s: NonZeroU64::new(rate).unwrap(), burst_bytes: 2 * FRAME })).unwrap();
        scheduler.ready(flow);
        let mut frames = sizes.iter().copied().cycle();
        let (mut now, end, mut bytes) = (MonoTime(0), MonoTime(0) + Nanos::from_secs(seconds), 0u64);
        // Waits exactly as long as it is told to.
        while now < end {
            match scheduler.poll(now) {
                Decision::Send { flow, budget_bytes } => {
                    let sent = burst(budget_bytes, &mut frames);
                    bytes += u64::from(sent);
                    scheduler.sent(flow, sent, true);
                }
                Decision::Wait(until) => {
                    prop_assert!(until > now);
                    now = until;
                }
                Decision::Idle => return Err(TestCaseError::fail("the flow has something")),
            }
        }
        prop_assert!(bytes + u64::from(FRAME) >= rate * seconds, "{bytes} bytes at {rate} in {seconds} s");
    }

    #[test]
    fn polling_twice_decides_the_same(
        steps in prop::collection::vec((0..FLOWS as u16, 0..3u8, 0..1_000_000u64), 1..200),
    ) {
        let mut scheduler = scheduler();
        let policing = Policing { rate_bytes_per_s: NonZeroU64::new(1_000_000).unwrap(), burst_bytes: 2 * FRAME };
        for index in 0..FLOWS as u16 {
            scheduler.add(FlowIndex(index), lane(index as u8 % 4), FRAME).unwrap();
            scheduler.police(FlowIndex(index), (index % 2 == 0).then_some(policing)).unwrap();
        }
        let mut now = MonoTime(0);
        for (index, what, gap) in steps {
            now += Nanos(gap);
            if what == 0 { scheduler.idle(FlowIndex(index)) } else { scheduler.ready(FlowIndex(index)) }
            let decision = scheduler.poll(now);
            prop_assert_eq!(scheduler.poll(now), decision);
            prop_assert_eq!(scheduler.poll(now - Nanos(1)), decision);
            if let (2, Decision::Send { flow, budget_bytes }) = (what, decision) {
                scheduler.sent(flow, budget_bytes, true);
            }
        }
    }
}

fn step(scheduler: &mut Scheduler<FLOWS>, frames: &mut impl Iterator<Item = u32>) -> (FlowIndex, u32) {
    let Decision::Send { flow, budget_bytes } = scheduler.poll(MonoTime(0)) else { panic!("a flow is ready") };
    let sent = burst(budget_bytes, frames);
    scheduler.sent(flow, sent, true);
    (flow, sent)
}

#[test]
fn real_time_waits_for_one_chunk_and_one_frame_at_most() {
    let mut scheduler = scheduler();
    let (bulk, task) = (FlowIndex(1), FlowIndex(2));
    scheduler.add(bulk, Lane::LAST, 1_000_000).unwrap();
    scheduler.add(task, lane(0), FRAME).unwrap();
    scheduler.ready(bulk);
    let Decision::Send { flow, budget_bytes } = scheduler.poll(MonoTime(0)) else { panic!("bulk is ready") };
    assert_eq!((flow, budget_bytes), (bulk, CHUNK));
    scheduler.ready(task);
    scheduler.sent(bulk, CHUNK + FRAME - 1, true);
    assert!(matches!(scheduler.poll(MonoTime(0)), Decision::Send { flow, .. } if flow == task));
}

#[test]
fn a_held_flow_does_not_hold_back_its_lane_and_is_first_before_later_lanes_when_due() {
    let mut scheduler = scheduler();
    let (policed, free, below) = (FlowIndex(1), FlowIndex(2), FlowIndex(3));
    scheduler.add(policed, lane(4), FRAME).unwrap();
    scheduler.add(free, lane(4), FRAME).unwrap();
    scheduler.add(below, lane(7), FRAME).unwrap();
    let policing = Policing { rate_bytes_per_s: NonZeroU64::new(1_000_000_000).unwrap(), burst_bytes: FRAME };
    scheduler.police(policed, Some(policing)).unwrap();
    [policed, free, below].into_iter().for_each(|flow| scheduler.ready(flow));
    assert_eq!(scheduler.poll(MonoTime(0)), Decision::Send { flow: policed, budget_bytes: 1 });
    scheduler.sent(policed, FRAME, true);
    assert_eq!(scheduler.poll(MonoTime(0)), Decision::Send { flow: free, budget_bytes: FRAME });
    scheduler.sent(free, FRAME, false);
    assert_eq!(scheduler.poll(MonoTime(u64::from(FRAME) - 1)), Decision::Send { flow: below, budget_bytes: FRAME });
    assert_eq!(scheduler.poll(MonoTime(u64::from(FRAME))), Decision::Send { flow: policed, budget_bytes: 1 });
    scheduler.sent(policed, FRAME, true);
    scheduler.idle(below);
    assert_eq!(scheduler.poll(MonoTime(0)), Decision::Wait(MonoTime(2 * u64::from(FRAME))));
    scheduler.remove(policed);
    assert_eq!(scheduler.poll(MonoTime(0)), Decision::Idle);
}

#[test]
fn a_flow_that_cannot_go_passes_its_turn_on() {
    let mut scheduler = scheduler();
    let (blocked, other) = (FlowIndex(0), FlowIndex(1));
    scheduler.add(blocked, lane(5), FRAME).unwrap();
    scheduler.add(other, lane(5), FRAME).unwrap();
    scheduler.ready(blocked);
    scheduler.ready(other);
    for _ in 0..3 {
        assert_eq!(scheduler.poll(MonoTime(0)), Decision::Send { flow: blocked, budget_bytes: FRAME });
        scheduler.sent(blocked, 0, true);
        assert_eq!(scheduler.poll(MonoTime(0)), Decision::Send { flow: other, budget_bytes: FRAME });
        scheduler.sent(other, FRAME, true);
    }
    assert_eq!(scheduler.misuses(), 0);
}

#[test]
fn misuse_is_counted_and_changes_nothing_else() {
    let mut scheduler = scheduler();
    let (here, gone, beyond) = (FlowIndex(1), FlowIndex(2), FlowIndex(FLOWS as u16));
    assert_eq!(scheduler.add(beyond, lane(0), FRAME), Err(AddError::OutOfRange));
    assert_eq!(scheduler.add(here, lane(0), FRAME - 1), Err(AddError::QuantumTooSmall));
    scheduler.add(here, lane(5), FRAME).unwrap();
    assert_eq!(scheduler.add(here, lane(5), FRAME), Err(AddError::InUse));
    let policing = Policing { rate_bytes_per_s: NonZeroU64::MIN, burst_bytes: FRAME };
    assert_eq!(scheduler.police(gone, Some(policing)), Err(PoliceError::NoSuchFlow));
    let shallow = Policing { burst_bytes: FRAME - 1, ..policing };
    assert_eq!(scheduler.police(here, Some(shallow)), Err(PoliceError::BurstTooSmall));
    assert_eq!(scheduler.misuses(), 0);

    scheduler.ready(here);
    scheduler.add(gone, lane(0), FRAME).unwrap();
    scheduler.ready(gone);
    assert!(matches!(scheduler.poll(MonoTime(0)), Decision::Send { flow, .. } if flow == gone));
    scheduler.remove(gone);
    scheduler.sent(gone, FRAME, true);
    for flow in [gone, beyond, FlowIndex(u16::MAX)] {
        scheduler.sent(flow, 1, true);
        scheduler.ready(flow);
        scheduler.idle(flow);
        scheduler.remove(flow);
    }
    assert_eq!(scheduler.misuses(), 13);
    assert_eq!(scheduler.poll(MonoTime(0)), Decision::Send { flow: here, budget_bytes: FRAME });

    // An overrun costs one quantum and no more.
    scheduler.sent(here, u32::MAX, true);
    assert_eq!(scheduler.misuses(), 14);
    assert_eq!(scheduler.poll(MonoTime(0)), Decision::Send { flow: here, budget_bytes: 1 });
}

#[test]
fn extreme_times_and_rates_do_not_overflow() {
    let mut scheduler = Scheduler::<2>::new(Limits::new(u32::MAX, u32::MAX).unwrap());
    let flow = FlowIndex(1);
    scheduler.add(flow, lane(7), u32::MAX).unwrap();
    for rate in [NonZeroU64::MIN, NonZeroU64::MAX] {
        scheduler.police(flow, Some(Policing { rate_bytes_per_s: rate, burst_bytes: u32::MAX })).unwrap();
        scheduler.ready(flow);
        for now in [0, 1, u64::MAX / 2, u64::MAX] {
            if let Decision::Send { flow, budget_bytes } = scheduler.poll(MonoTime(now)) {
                assert!(budget_bytes >= 1);
                scheduler.sent(flow, u32::MAX, true);
            }
        }
        scheduler.idle(flow);
    }
}
