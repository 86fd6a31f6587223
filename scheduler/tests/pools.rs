//! What is promised of pools: one bucket in every lane, first lanes first, clients equally.

mod intervals;

use insane_core::{Lane, MonoTime, Nanos};
use insane_scheduler::{
    ClientIndex, Decision, FlowIndex, LANES, Limits, POOLS_MAX, PoliceError, Policing, PoolIndex, Scheduler,
};
use intervals::keeps_to;
use proptest::prelude::*;
use std::num::NonZeroU64;

const FLOWS: usize = 128;
const CHUNK: u32 = 4_000;
const FRAME: u32 = 1_000;
const POOL: PoolIndex = PoolIndex(3);

fn policing(rate: u64, burst_bytes: u32) -> Policing {
    Policing { rate_bytes_per_s: NonZeroU64::new(rate).unwrap(), burst_bytes }
}

fn scheduler() -> Box<Scheduler<FLOWS>> {
    Box::new(Scheduler::new(Limits::new(CHUNK, FRAME).unwrap()))
}

/// A flow with something, of this client, in the pool or not.
fn add(scheduler: &mut Scheduler<FLOWS>, index: u16, lane: u8, client: Option<u16>, pool: Option<PoolIndex>) {
    let flow = FlowIndex(index);
    scheduler.add(flow, Lane::new(lane).unwrap(), CHUNK).unwrap();
    scheduler.assign(flow, client.map(ClientIndex)).unwrap();
    scheduler.join_pool(flow, pool).unwrap();
    scheduler.ready(flow);
}

/// Lets flows that always have more send frames of so many bytes, a poll each microsecond at least;
/// the bytes of each.
fn run(scheduler: &mut Scheduler<FLOWS>, now: &mut MonoTime, time: Nanos, size: impl Fn(u16) -> u32) -> [u64; FLOWS] {
    let mut bytes = [0; FLOWS];
    let until = *now + time;
    while *now < until {
        for _ in 0..8 {
            let Decision::Send { flow, budget_bytes } = scheduler.poll(*now) else { break };
            let mut sent = 0;
            while sent < budget_bytes {
                sent += size(flow.0);
            }
            bytes[flow.0 as usize] += u64::from(sent);
            scheduler.sent(flow, sent, true);
        }
        *now += Nanos::from_micros(1);
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn flows_of_a_pool_keep_to_it_in_every_interval_over_all_lanes_and_clients(
        rate in 1_000..100_000_000_u64,
        burst_bytes in FRAME..50 * FRAME,
        sizes in prop::collection::vec(1..=FRAME, 1..20),
        flows in prop::collection::vec((0..LANES as u8, prop::option::of(0..3_u16)), 1..30),
        gaps in prop::collection::vec(prop_oneof![Just(0), 0..5_000_u64, 0..20_000_000_u64], 1..60),
        change in 0..60_usize,
    ) {
        let mut scheduler = scheduler();
        for (index, (lane, client)) in flows.iter().enumerate() {
            add(&mut scheduler, index as u16, *lane, *client, Some(POOL));
        }
        add(&mut scheduler, 99, flows[0].0, flows[0].1, None);
        scheduler.set_pool(POOL, Some(policing(rate, burst_bytes))).unwrap();
        let mut sizes = sizes.iter().copied().cycle();
        let mut now = MonoTime(77);
        let mut history = vec![(now, 0_u128)];
        for (at, gap) in gaps.into_iter().enumerate() {
            now += Nanos(gap);
            if at == change {
                // A little less and back: nobody gets a full bucket for that.
                scheduler.set_pool(POOL, Some(policing(rate - 1, burst_bytes))).unwrap();
                scheduler.set_pool(POOL, Some(policing(rate, burst_bytes))).unwrap();
            }
            (0..flows.len() as u16).chain([99]).for_each(|flow| scheduler.ready(FlowIndex(flow)));
            for _ in 0..12 {
                let Decision::Send { flow, budget_bytes } = scheduler.poll(now) else { break };
                let mut sent = 0;
                while sent < budget_bytes {
                    sent += sizes.next().unwrap();
                }
                scheduler.sent(flow, sent, !sent.is_multiple_of(3));
                if flow.0 != 99 {
                    history.push((now, history.last().unwrap().1 + u128::from(sent)));
                }
            }
        }
        keeps_to(&history, rate, burst_bytes)?;
        prop_assert_eq!(scheduler.misuses(), 0);
    }

    #[test]
    fn clients_share_what_a_pool_lets_go_however_many_flows_they_have_and_none_starves(
        flows in prop::collection::vec(1..30_u16, 3),
        alone in 0..10_u16,
        bytes in prop::collection::vec(100..=FRAME, 4),
        // With room for what comes in between two polls.
        burst_bytes in 2 * FRAME..5 * FRAME,
    ) {
        let mut scheduler = scheduler();
        scheduler.set_pool(POOL, Some(policing(50_000_000, burst_bytes))).unwrap();
        let mut owner = Vec::new();
        for (client, count) in flows.iter().enumerate() {
            owner.extend((0..*count).map(|_| Some(client)));
        }
        owner.extend((0..alone).map(|_| None));
        for (index, client) in owner.iter().enumerate() {
            add(&mut scheduler, index as u16, 6, client.map(|client| client as u16), Some(POOL));
        }
        let mut now = MonoTime(0);
        let size = |flow: u16| bytes[owner[flow as usize].unwrap_or(3)];
        let _ = run(&mut scheduler, &mut now, Nanos::from_millis(5), size);
        let got = run(&mut scheduler, &mut now, Nanos::from_millis(40), size);
        let mut shares = [0; 3];
        let mut of_none = Vec::new();
        for (owner, got) in owner.iter().zip(got) {
            match owner {
                Some(client) => shares[*client] += got,
                None => of_none.push(got),
            }
            prop_assert!(got > 0, "{got} of {:?}", owner);
        }
        let all: Vec<u64> = shares.into_iter().chain(of_none).collect();
        let (most, least) = (*all.iter().max().unwrap(), *all.iter().min().unwrap());
        // What is in the pool may go to one at once, and who waited longest for room goes first.
        prop_assert!(most - least <= u64::from(burst_bytes + CHUNK) + 16 * u64::from(FRAME), "{all:?}");
        let total: u64 = all.iter().sum();
        prop_assert!((1_950_000..=2_000_000 + u64::from(burst_bytes)).contains(&total), "{total}");
    }
}

#[test]
fn a_pool_serves_the_first_lanes_first_and_holds_nobody_else() {
    let mut scheduler = scheduler();
    scheduler.set_pool(POOL, Some(policing(10_000_000, 2 * FRAME))).unwrap();
    // Two sessions: floods in the pool, one that is premium there, one of the first that is not in it.
    (0..60).for_each(|index| add(&mut scheduler, index, 6, Some(1), Some(POOL)));
    add(&mut scheduler, 100, 3, Some(2), Some(POOL));
    add(&mut scheduler, 101, 7, Some(1), None);
    let mut now = MonoTime(0);
    let got = run(&mut scheduler, &mut now, Nanos::from_millis(20), |_| FRAME);
    let floods: u64 = got[..60].iter().sum();
    // Premium wants all that there is, and gets it; who is not in the pool has the link besides.
    assert!(got[100] >= 199_000 && floods <= u64::from(4 * FRAME), "{} {floods}", got[100]);
    assert!(got[101] > 10_000_000, "{}", got[101]);
    scheduler.idle(FlowIndex(100));
    let got = run(&mut scheduler, &mut now, Nanos::from_millis(20), |_| FRAME);
    let floods: u64 = got[..60].iter().sum();
    assert!((199_000..=204_000).contains(&floods), "{floods}");
    assert!(scheduler.pools_used_up() > 300 && scheduler.budgets_used_up() == 0);
    // Premium that comes waits for one frame of the pool's at most.
    scheduler.ready(FlowIndex(100));
    let came = now;
    while !matches!(scheduler.poll(now), Decision::Send { flow: FlowIndex(100), .. }) {
        if let Decision::Send { flow, .. } = scheduler.poll(now) {
            scheduler.sent(flow, FRAME, true);
        }
        now += Nanos::from_micros(1);
    }
    assert!(now.since(came) <= Nanos::from_micros(102), "{}", now.since(came));
}

#[test]
fn who_waits_for_a_pool_goes_on_when_that_has_more_or_is_left() {
    let mut scheduler = scheduler();
    scheduler.set_pool(POOL, Some(policing(1_000, FRAME))).unwrap();
    (0..3).for_each(|index| add(&mut scheduler, index, 6, Some(index), Some(POOL)));
    let mut now = MonoTime(0);
    let got = run(&mut scheduler, &mut now, Nanos::from_millis(1), |_| FRAME);
    assert_eq!(got.iter().sum::<u64>(), u64::from(FRAME));
    assert!(matches!(scheduler.poll(now), Decision::Wait(until) if until > now + Nanos::from_millis(900)));
    scheduler.join_pool(FlowIndex(1), None).unwrap();
    let got = run(&mut scheduler, &mut now, Nanos::from_millis(1), |_| FRAME);
    assert!(got[1] > 100_000 && got[0] + got[2] == 0);
    scheduler.set_pool(POOL, Some(policing(1_000_000_000, FRAME))).unwrap();
    let got = run(&mut scheduler, &mut now, Nanos::from_millis(1), |_| FRAME);
    assert!(got[0] > 100_000 && got[2] > 100_000, "{got:?}");
    scheduler.set_pool(POOL, Some(policing(1_000, FRAME))).unwrap();
    let _ = run(&mut scheduler, &mut now, Nanos::from_millis(1), |_| FRAME);
    scheduler.set_pool(POOL, None).unwrap();
    let got = run(&mut scheduler, &mut now, Nanos::from_millis(1), |_| FRAME);
    assert!(got[..3].iter().all(|got| *got > 100_000), "{got:?}");
}

#[test]
fn what_makes_no_pool_is_refused() {
    let mut scheduler = scheduler();
    let beyond = PoolIndex(POOLS_MAX as u8);
    add(&mut scheduler, 1, 6, None, None);
    assert_eq!(scheduler.join_pool(FlowIndex(1), Some(beyond)), Err(PoliceError::NoSuchFlow));
    assert_eq!(scheduler.join_pool(FlowIndex(2), Some(POOL)), Err(PoliceError::NoSuchFlow));
    assert_eq!(scheduler.set_pool(beyond, Some(policing(1, FRAME))), Err(PoliceError::NoSuchFlow));
    assert_eq!(scheduler.set_pool(POOL, Some(policing(1, FRAME - 1))), Err(PoliceError::BurstTooSmall));
}

/// What a client sent by a fast pool says nothing of a slow one.
#[test]
fn who_sent_much_from_one_pool_has_its_share_of_another() {
    let fast = PoolIndex(0);
    let mut scheduler = scheduler();
    scheduler.set_pool(fast, Some(policing(1_000_000_000, 4 * FRAME))).unwrap();
    scheduler.set_pool(POOL, Some(policing(1_000_000, FRAME))).unwrap();
    let mut now = MonoTime(0);
    add(&mut scheduler, 0, 7, Some(0), Some(fast));
    add(&mut scheduler, 1, 7, None, Some(fast));
    let before = run(&mut scheduler, &mut now, Nanos::from_millis(20), |_| FRAME);
    assert!(before[0] > 5_000_000 && before[1] > 5_000_000);
    // The one with a client has a flow by the slow pool besides; the one without goes there itself.
    add(&mut scheduler, 2, 7, Some(0), Some(POOL));
    add(&mut scheduler, 3, 7, Some(1), Some(POOL));
    scheduler.join_pool(FlowIndex(1), Some(POOL)).unwrap();
    let after = run(&mut scheduler, &mut now, Nanos::from_millis(60), |_| FRAME);
    for flow in 1..4 {
        assert!((15_000..=25_000).contains(&after[flow]), "{after:?}");
    }
    assert_eq!(scheduler.misuses(), 0);
}
