//! What is promised of clients: one share of a lane, one budget, however many flows.

mod intervals;

use insane_core::{Lane, MonoTime, Nanos};
use insane_scheduler::{
    AssignError, CLIENTS_MAX, ClientIndex, Decision, FlowIndex, LANES, Limits, PoliceError, Policing, PoolIndex,
    Scheduler,
};
use intervals::keeps_to;
use proptest::prelude::*;
use std::num::NonZeroU64;

const FLOWS: usize = 16;
const CLIENTS: usize = 3;
const POOLS: usize = 2;
/// Flows that may be in a pool: few enough for one poll to put all of them off.
const POOLED: u16 = 5;
const CHUNK: u32 = 4_000;
const FRAME: u32 = 1_000;
const BILLION: i128 = 1_000_000_000;

fn scheduler() -> Scheduler<FLOWS> {
    Scheduler::new(Limits::new(CHUNK, FRAME).unwrap())
}

fn lane(number: u8) -> Lane {
    Lane::new(number).unwrap()
}

fn policing(rate: u64, burst_bytes: u32) -> Policing {
    Policing { rate_bytes_per_s: NonZeroU64::new(rate).unwrap(), burst_bytes }
}

/// A flow of a client, in a lane.
fn add(scheduler: &mut Scheduler<FLOWS>, index: u16, number: u8, client: u16) -> FlowIndex {
    let flow = FlowIndex(index);
    scheduler.add(flow, lane(number), CHUNK).unwrap();
    scheduler.assign(flow, Some(ClientIndex(client))).unwrap();
    flow
}

/// Whole frames while fewer than the budget have gone.
fn burst(budget_bytes: u32, frames: &mut impl Iterator<Item = u32>) -> u32 {
    let mut bytes = 0;
    while bytes < budget_bytes {
        bytes += frames.next().unwrap();
    }
    bytes
}

fn frame_sizes() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(1..=FRAME, 1..20)
}

/// A bucket as the words say it.
#[derive(Clone, Debug)]
struct Tokens {
    rate: i128,
    depth: i128,
    tokens: i128,
    at: u64,
}

impl Tokens {
    fn new(rate: u64, depth: u32, at: u64) -> Self {
        let depth = i128::from(depth) * BILLION;
        Tokens { rate: rate.into(), depth, tokens: depth, at }
    }

    fn can_pay(&mut self, now: u64) -> bool {
        self.tokens = (self.tokens + self.rate * i128::from(now - self.at)).min(self.depth);
        self.at = now;
        self.tokens >= i128::from(FRAME) * BILLION
    }
}

#[derive(Clone, Debug)]
enum Call {
    Ready(u16),
    Idle(u16),
    SetLane(u16, u8),
    Assign(u16, Option<u16>),
    Budget(u16, Option<(u64, u32)>),
    Police(u16, Option<(u64, u32)>),
    JoinPool(u16, Option<u8>),
    SetPool(u8, Option<(u64, u32)>),
    Burst { ahead: u64, part: u32, more: bool },
}

fn call() -> impl Strategy<Value = Call> {
    let flow = 0..FLOWS as u16;
    let client = 0..CLIENTS as u16;
    let bucket = prop::option::weighted(0.7, (1_000..5_000_000_u64, FRAME..9 * FRAME));
    let ahead = prop_oneof![Just(0), 0..2_000_000_u64];
    prop_oneof![
        6 => flow.clone().prop_map(Call::Ready),
        2 => flow.clone().prop_map(Call::Idle),
        1 => (flow.clone(), 0..LANES as u8).prop_map(|(flow, lane)| Call::SetLane(flow, lane)),
        1 => (flow.clone(), prop::option::of(client.clone())).prop_map(|(flow, client)| Call::Assign(flow, client)),
        1 => (client, bucket.clone()).prop_map(|(client, bucket)| Call::Budget(client, bucket)),
        1 => (flow, bucket.clone()).prop_map(|(flow, bucket)| Call::Police(flow, bucket)),
        2 => (0..POOLED, prop::option::weighted(0.8, 0..POOLS as u8)).prop_map(|(flow, pool)| Call::JoinPool(flow, pool)),
        1 => (0..POOLS as u8, bucket).prop_map(|(pool, bucket)| Call::SetPool(pool, bucket)),
        14 => (ahead, 0..=256_u32, prop::bool::weighted(0.8))
            .prop_map(|(ahead, part, more)| Call::Burst { ahead, part, more }),
    ]
}

/// Which flows may send, as the words say it: no order, no shares.
#[derive(Default)]
struct Model {
    ready: [bool; FLOWS],
    lanes: [u8; FLOWS],
    client: [Option<u16>; FLOWS],
    own: [Option<Tokens>; FLOWS],
    shared: [Option<Tokens>; CLIENTS],
    pool: [Option<u8>; FLOWS],
    pools: [Option<Tokens>; POOLS],
    now: u64,
}

impl Model {
    fn may_send(&mut self, flow: usize) -> bool {
        let now = self.now;
        let own = self.own[flow].as_mut().is_none_or(|tokens| tokens.can_pay(now));
        let client = self.client[flow].and_then(|client| self.shared[client as usize].as_mut());
        let pool = self.pool[flow].and_then(|pool| self.pools[pool as usize].as_mut());
        let pool = pool.is_none_or(|tokens| tokens.can_pay(now));
        self.ready[flow] && own && pool && client.is_none_or(|tokens| tokens.can_pay(now))
    }

    /// The first lane with a flow that may send.
    fn lane(&mut self) -> Option<u8> {
        let lanes = self.lanes;
        (0..FLOWS).filter(|flow| self.may_send(*flow)).map(|flow| lanes[flow]).min()
    }

    fn pay(&mut self, flow: usize, bytes: u32) {
        let price = i128::from(bytes) * BILLION;
        let client = self.client[flow];
        let shared = client.and_then(|client| self.shared[client as usize].as_mut());
        let pool = self.pool[flow].and_then(|pool| self.pools[pool as usize].as_mut());
        for tokens in self.own[flow].as_mut().into_iter().chain(shared).chain(pool) {
            tokens.tokens -= price;
            assert!(tokens.tokens >= 0, "more went than was there");
        }
    }
}

fn apply(scheduler: &mut Scheduler<FLOWS>, model: &mut Model, call: &Call) -> Result<(), TestCaseError> {
    match *call {
        Call::Ready(flow) => {
            scheduler.ready(FlowIndex(flow));
            model.ready[flow as usize] = true;
        }
        Call::Idle(flow) => {
            scheduler.idle(FlowIndex(flow));
            model.ready[flow as usize] = false;
        }
        Call::SetLane(flow, number) => {
            scheduler.set_lane(FlowIndex(flow), lane(number));
            model.lanes[flow as usize] = number;
        }
        Call::Assign(flow, client) => {
            scheduler.assign(FlowIndex(flow), client.map(ClientIndex)).unwrap();
            model.client[flow as usize] = client;
        }
        Call::Budget(client, bucket) => {
            let asked = bucket.map(|(rate, depth)| policing(rate, depth));
            scheduler.budget(ClientIndex(client), asked).unwrap();
            model.shared[client as usize] = bucket.map(|(rate, depth)| Tokens::new(rate, depth, model.now));
        }
        Call::Police(flow, bucket) => {
            let asked = bucket.map(|(rate, depth)| policing(rate, depth));
            scheduler.police(FlowIndex(flow), asked).unwrap();
            model.own[flow as usize] = bucket.map(|(rate, depth)| Tokens::new(rate, depth, model.now));
            model.pool[flow as usize] = None;
        }
        Call::JoinPool(flow, pool) => {
            scheduler.join_pool(FlowIndex(flow), pool.map(PoolIndex)).unwrap();
            model.pool[flow as usize] = pool;
            model.own[flow as usize] = None;
        }
        Call::SetPool(pool, bucket) => {
            let asked = bucket.map(|(rate, depth)| policing(rate, depth));
            scheduler.set_pool(PoolIndex(pool), asked).unwrap();
            let tokens = &mut model.pools[pool as usize];
            if let Some(tokens) = tokens {
                // Up to now at the rate that held so far.
                let _ = tokens.can_pay(model.now);
            }
            *tokens = bucket.map(|(rate, depth)| {
                let full = Tokens::new(rate, depth, model.now);
                let has = tokens.as_ref().map_or(full.depth, |tokens| tokens.tokens.min(full.depth));
                Tokens { tokens: has, ..full }
            });
        }
        Call::Burst { ahead, part, more } => {
            model.now += ahead;
            let decision = scheduler.poll(MonoTime(model.now));
            prop_assert_eq!(scheduler.poll(MonoTime(model.now)), decision);
            let lane = model.lane();
            match decision {
                Decision::Send { flow, budget_bytes } => {
                    let index = flow.0 as usize;
                    prop_assert!(model.may_send(index), "{flow:?} may not send");
                    prop_assert_eq!(Some(model.lanes[index]), lane);
                    let bytes = (budget_bytes + FRAME - 1) * part / 256;
                    model.pay(index, bytes);
                    model.ready[index] = more;
                    scheduler.sent(flow, bytes, more);
                }
                Decision::Wait(until) => {
                    prop_assert!(until > MonoTime(model.now));
                    prop_assert_eq!(lane, None, "it waits though a flow may send");
                }
                Decision::Idle => prop_assert!(!model.ready.contains(&true)),
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn who_may_send_does_and_nobody_else(calls in prop::collection::vec(call(), 1..400)) {
        let (mut scheduler, mut model) = (scheduler(), Model::default());
        for flow in 0..FLOWS as u16 {
            model.lanes[flow as usize] = flow as u8 % 3;
            scheduler.add(FlowIndex(flow), lane(flow as u8 % 3), FRAME).unwrap();
        }
        for call in &calls {
            apply(&mut scheduler, &mut model, call)?;
            for flow in 0..FLOWS {
                prop_assert_eq!(scheduler.is_ready(FlowIndex(flow as u16)), model.ready[flow]);
            }
            prop_assert_eq!(scheduler.misuses(), 0);
        }
        // All that is ready gets out in the end, and the clients are left as they were found.
        for _ in 0..16 * FLOWS {
            match scheduler.poll(MonoTime(model.now)) {
                Decision::Send { flow, .. } => scheduler.sent(flow, 1, false),
                Decision::Wait(until) => model.now = until.0,
                Decision::Idle => break,
            }
        }
        prop_assert_eq!(scheduler.poll(MonoTime(model.now)), Decision::Idle);
        for flow in 0..FLOWS as u16 {
            scheduler.remove(FlowIndex(flow));
        }
        prop_assert!((0..CLIENTS as u16).all(|client| scheduler.flows_of(ClientIndex(client)) == 0));
    }

    #[test]
    fn a_client_keeps_to_its_budget_in_every_interval_over_all_lanes(
        rate in 1_000..100_000_000_u64,
        burst_bytes in FRAME..50 * FRAME,
        sizes in frame_sizes(),
        lanes in prop::collection::vec(0..LANES as u8, 4),
        gaps in prop::collection::vec(prop_oneof![Just(0), 0..5_000_u64, 0..20_000_000_u64], 1..100),
    ) {
        let mut scheduler = scheduler();
        for (index, number) in lanes.iter().enumerate() {
            add(&mut scheduler, index as u16, *number, 1);
        }
        let other = add(&mut scheduler, 9, lanes[0], 2);
        scheduler.budget(ClientIndex(1), Some(policing(rate, burst_bytes))).unwrap();
        let mut frames = sizes.iter().copied().cycle();
        let mut now = MonoTime(77);
        let mut history = vec![(now, 0_u128)];
        for gap in gaps {
            now += Nanos(gap);
            (0..4).chain([9]).for_each(|flow| scheduler.ready(FlowIndex(flow)));
            for _ in 0..12 {
                let Decision::Send { flow, budget_bytes } = scheduler.poll(now) else { break };
                let sent = burst(budget_bytes, &mut frames);
                // A new flow of the same client brings no tokens of its own.
                scheduler.sent(flow, sent, !sent.is_multiple_of(3));
                if flow != other {
                    history.push((now, history.last().unwrap().1 + u128::from(sent)));
                    scheduler.remove(FlowIndex(3));
                    add(&mut scheduler, 3, lanes[3], 1);
                    scheduler.budget(ClientIndex(1), Some(policing(rate, burst_bytes))).unwrap();
                    scheduler.ready(FlowIndex(3));
                }
            }
        }
        keeps_to(&history, rate, burst_bytes)?;
    }

    #[test]
    fn clients_share_a_lane_equally_however_many_flows_they_have(
        flows in prop::collection::vec(1..5_u16, CLIENTS),
        sizes in prop::collection::vec(frame_sizes(), FLOWS),
        before in 0..60_usize,
        polls in 50..1_000_usize,
    ) {
        let mut scheduler = scheduler();
        let mut client_of = Vec::new();
        for (client, count) in flows.iter().enumerate() {
            for _ in 0..*count {
                let flow = add(&mut scheduler, client_of.len() as u16, 5, client as u16);
                client_of.push(client);
                scheduler.ready(flow);
            }
        }
        let mut frames: Vec<_> = sizes.iter().map(|sizes| sizes.iter().copied().cycle()).collect();
        let (mut bytes, mut each) = ([0_u64; CLIENTS], [0_u64; FLOWS]);
        for poll in 0..before + polls {
            if poll == before {
                (bytes, each) = ([0; CLIENTS], [0; FLOWS]);
            }
            let Decision::Send { flow, budget_bytes } = scheduler.poll(MonoTime(0)) else {
                return Err(TestCaseError::fail("every flow is ready"));
            };
            let sent = burst(budget_bytes, &mut frames[flow.0 as usize]);
            bytes[client_of[flow.0 as usize]] += u64::from(sent);
            each[flow.0 as usize] += u64::from(sent);
            scheduler.sent(flow, sent, true);
            // Rounds begun differ by one; beyond that, each may owe or be owed a frame.
            let apart = bytes.iter().max().unwrap() - bytes.iter().min().unwrap();
            prop_assert!(apart <= u64::from(CHUNK + 2 * FRAME), "{bytes:?} of {flows:?}");
        }
        // And so do the flows of one client.
        for client in 0..CLIENTS {
            let of = |at: &usize| client_of[*at] == client;
            let shares: Vec<u64> = (0..client_of.len()).filter(of).map(|at| each[at]).collect();
            let apart = shares.iter().max().unwrap() - shares.iter().min().unwrap();
            prop_assert!(apart <= u64::from(CHUNK + 2 * FRAME), "{shares:?}");
        }
        prop_assert_eq!(scheduler.misuses(), 0);
    }
}

#[test]
fn small_flows_of_a_client_go_in_one_turn() {
    let mut scheduler = scheduler();
    let bulk = add(&mut scheduler, 0, 7, 0);
    let small: Vec<_> = (1..11).map(|index| add(&mut scheduler, index, 7, 1)).collect();
    scheduler.ready(bulk);
    small.iter().for_each(|flow| scheduler.ready(*flow));
    assert_eq!(scheduler.poll(MonoTime(0)), Decision::Send { flow: bulk, budget_bytes: CHUNK });
    scheduler.sent(bulk, CHUNK, true);
    for flow in small {
        assert!(matches!(scheduler.poll(MonoTime(0)), Decision::Send { flow: next, .. } if next == flow));
        scheduler.sent(flow, 100, false);
    }
    assert!(matches!(scheduler.poll(MonoTime(0)), Decision::Send { flow, .. } if flow == bulk));
}

#[test]
fn a_client_that_ran_out_waits_in_every_lane_and_is_counted_once() {
    let mut scheduler = scheduler();
    let (first, second) = (add(&mut scheduler, 0, 1, 4), add(&mut scheduler, 1, 6, 4));
    let other = add(&mut scheduler, 2, 7, 5);
    scheduler.budget(ClientIndex(4), Some(policing(1_000_000_000, 2 * FRAME))).unwrap();
    [first, second, other].into_iter().for_each(|flow| scheduler.ready(flow));
    let Decision::Send { flow, budget_bytes } = scheduler.poll(MonoTime(0)) else { panic!("first is ready") };
    assert_eq!((flow, budget_bytes), (first, FRAME + 1));
    scheduler.sent(first, 2 * FRAME, true);
    assert_eq!(scheduler.budgets_used_up(), 1);
    assert_eq!(scheduler.poll(MonoTime(999)), Decision::Send { flow: other, budget_bytes: CHUNK });
    scheduler.sent(other, 100, false);
    assert_eq!(scheduler.poll(MonoTime(999)), Decision::Wait(MonoTime(1_000)));
    assert_eq!(scheduler.poll(MonoTime(1_000)), Decision::Send { flow: first, budget_bytes: 1 });
    // A wider budget holds at once; none at all, too.
    scheduler.sent(first, FRAME, false);
    assert_eq!(scheduler.poll(MonoTime(1_000)), Decision::Wait(MonoTime(2_000)));
    scheduler.budget(ClientIndex(4), Some(policing(1, 3 * FRAME))).unwrap();
    assert_eq!(scheduler.poll(MonoTime(1_000)), Decision::Send { flow: second, budget_bytes: 2 * FRAME + 1 });
    scheduler.sent(second, 3 * FRAME, true);
    scheduler.budget(ClientIndex(4), None).unwrap();
    assert!(matches!(scheduler.poll(MonoTime(1_000)), Decision::Send { flow, .. } if flow == second));
}

#[test]
fn a_client_that_comes_back_finds_its_debts_and_another_in_its_place_does_not() {
    let mut scheduler = scheduler();
    let budget = Some(policing(1_000, 2 * FRAME));
    let flow = add(&mut scheduler, 0, 7, 0);
    scheduler.budget(ClientIndex(0), budget).unwrap();
    scheduler.ready(flow);
    assert!(matches!(scheduler.poll(MonoTime(0)), Decision::Send { .. }));
    scheduler.sent(flow, 2 * FRAME, true);
    scheduler.renew_client(ClientIndex(0));
    scheduler.remove(flow);
    add(&mut scheduler, 0, 7, 0);
    scheduler.budget(ClientIndex(0), budget).unwrap();
    scheduler.ready(flow);
    assert_eq!(scheduler.poll(MonoTime(0)), Decision::Wait(MonoTime(1_000_000_000)));
    scheduler.remove(flow);
    scheduler.renew_client(ClientIndex(0));
    add(&mut scheduler, 0, 7, 0);
    scheduler.budget(ClientIndex(0), budget).unwrap();
    scheduler.ready(flow);
    assert!(matches!(scheduler.poll(MonoTime(0)), Decision::Send { .. }));
}

#[test]
fn what_is_no_client_is_refused() {
    let mut scheduler = scheduler();
    let beyond = ClientIndex(CLIENTS_MAX as u16);
    assert_eq!(scheduler.assign(FlowIndex(0), Some(ClientIndex(0))), Err(AssignError::NoSuchFlow));
    let flow = add(&mut scheduler, 0, 7, 0);
    assert_eq!(scheduler.assign(flow, Some(beyond)), Err(AssignError::NoSuchClient));
    assert_eq!(scheduler.budget(beyond, None), Err(PoliceError::NoSuchFlow));
    let shallow = Some(policing(1, FRAME - 1));
    assert_eq!(scheduler.budget(ClientIndex(0), shallow), Err(PoliceError::BurstTooSmall));
    assert_eq!((scheduler.flows_of(ClientIndex(0)), scheduler.flows_of(beyond)), (1, 0));
}
