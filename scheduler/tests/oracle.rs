//! Random sequences of calls against a naive model that searches plain lists.

use insane_core::{Lane, MonoTime, Nanos};
use insane_scheduler::{Decision, FlowIndex, LANES, Limits, Policing, Scheduler};
use proptest::prelude::*;
use std::num::NonZeroU64;

const FLOWS: usize = 12;
const CHUNK: u32 = 4_000;
const FRAME: u32 = 1_000;

#[derive(Clone, Debug)]
struct Bucket {
    rate: u128,
    depth: u128,
    /// Billionths of a byte.
    tokens: i128,
    at: u64,
}

impl Bucket {
    fn refill(&mut self, now: u64) {
        let gained = self.rate * u128::from(now.saturating_sub(self.at));
        self.tokens = (self.tokens + gained as i128).min((self.depth * 1_000_000_000) as i128);
        self.at = self.at.max(now);
    }

    fn able_at(&self) -> u64 {
        let missing = (i128::from(FRAME) * 1_000_000_000 - self.tokens).max(0) as u128;
        self.at + missing.div_ceil(self.rate) as u64
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Place {
    Idle,
    Active,
    Held(u64),
}

#[derive(Clone, Debug)]
struct ModelFlow {
    index: u16,
    lane: u8,
    quantum: i64,
    deficit: i64,
    granted: bool,
    place: Place,
    bucket: Option<Bucket>,
}

/// Flows stand in the order in which they became active.
#[derive(Default)]
struct Model {
    now: u64,
    flows: Vec<ModelFlow>,
    misuses: u64,
}

impl Model {
    fn position(&self, index: u16) -> Option<usize> {
        self.flows.iter().position(|flow| flow.index == index)
    }

    fn add(&mut self, index: u16, lane: u8, quantum: u32) -> bool {
        let fine = usize::from(index) < FLOWS && quantum >= FRAME && self.position(index).is_none();
        if fine {
            let quantum = i64::from(quantum);
            self.flows.push(ModelFlow {
                index,
                lane,
                quantum,
                deficit: 0,
                granted: false,
                place: Place::Idle,
                bucket: None,
            });
        }
        fine
    }

    fn remove(&mut self, index: u16) {
        match self.position(index) {
            Some(at) => drop(self.flows.remove(at)),
            None => self.misuses += 1,
        }
    }

    fn police(&mut self, index: u16, rate: u64, depth: u32) -> bool {
        let Some(at) = self.position(index).filter(|_| depth >= FRAME) else { return false };
        let now = self.now;
        self.flows[at].bucket =
            Some(Bucket { rate: rate.into(), depth: depth.into(), tokens: i128::from(depth) * 1_000_000_000, at: now });
        if matches!(self.flows[at].place, Place::Held(_)) {
            self.activate(at);
        }
        true
    }

    /// Moves a flow to the end, which is the tail of its lane.
    fn activate(&mut self, at: usize) {
        let mut flow = self.flows.remove(at);
        flow.place = Place::Active;
        self.flows.push(flow);
    }

    fn enter(&mut self, at: usize) {
        match self.flows[at].bucket.as_ref().map(Bucket::able_at) {
            Some(due) if due > self.now => self.flows[at].place = Place::Held(due),
            _ => self.activate(at),
        }
    }

    fn ready(&mut self, index: u16) {
        match self.position(index) {
            None => self.misuses += 1,
            Some(at) if self.flows[at].place == Place::Idle => self.enter(at),
            Some(_) => {}
        }
    }

    fn idle(&mut self, index: u16) {
        match self.position(index) {
            None => self.misuses += 1,
            Some(at) => self.leave(at),
        }
    }

    fn set_lane(&mut self, index: u16, lane: u8) {
        let Some(at) = self.position(index) else {
            self.misuses += 1;
            return;
        };
        let was_idle = self.flows[at].place == Place::Idle;
        self.leave(at);
        self.flows[at].lane = lane;
        if !was_idle {
            self.enter(at);
        }
    }

    fn leave(&mut self, at: usize) {
        let flow = &mut self.flows[at];
        flow.place = Place::Idle;
        flow.granted = false;
        flow.deficit = flow.deficit.min(0);
    }

    fn head(&self, lane: u8) -> Option<usize> {
        self.flows.iter().position(|flow| flow.lane == lane && flow.place == Place::Active)
    }

    fn poll(&mut self, now: u64) -> Decision {
        self.now = self.now.max(now);
        for lane in 0..LANES as u8 {
            let due = |flow: &ModelFlow| match flow.place {
                Place::Held(due) if flow.lane == lane && due <= self.now => Some((due, flow.index)),
                _ => None,
            };
            if let Some((_, index)) = self.flows.iter().filter_map(due).min() {
                self.activate(self.position(index).unwrap());
            }
            let Some(at) = self.head(lane) else { continue };
            let flow = &mut self.flows[at];
            if !flow.granted {
                flow.granted = true;
                flow.deficit += flow.quantum;
            }
            let mut budget = flow.deficit.min(CHUNK.into());
            if let Some(bucket) = &mut flow.bucket {
                bucket.refill(self.now);
                budget = budget.min((bucket.tokens / 1_000_000_000) as i64 - i64::from(FRAME) + 1);
            }
            assert!(budget >= 1);
            return Decision::Send { flow: FlowIndex(flow.index), budget_bytes: budget as u32 };
        }
        let held = self.flows.iter().filter_map(|flow| match flow.place {
            Place::Held(due) => Some(due),
            _ => None,
        });
        held.min().map_or(Decision::Idle, |due| Decision::Wait(MonoTime(due)))
    }

    fn sent(&mut self, index: u16, bytes: u32, more: bool) {
        let Some(at) = self.position(index).filter(|&at| self.flows[at].place == Place::Active) else {
            self.misuses += 1;
            return;
        };
        let (now, head) = (self.now, self.head(self.flows[at].lane) == Some(at));
        let flow = &mut self.flows[at];
        let after = flow.deficit - i64::from(bytes);
        let floor = 1 - i64::from(FRAME);
        let mut overrun = after < floor;
        flow.deficit = after.max(floor);
        let mut able = true;
        if let Some(bucket) = &mut flow.bucket {
            bucket.refill(now);
            let deepest = -((bucket.depth * 1_000_000_000) as i128);
            bucket.tokens = (bucket.tokens - i128::from(bytes) * 1_000_000_000).max(deepest);
            overrun |= bucket.tokens < 0;
            able = bucket.able_at() <= now;
        }
        self.misuses += u64::from(overrun);
        if !more {
            self.leave(at);
        } else if !able {
            self.leave(at);
            self.enter(at);
        } else if head && (self.flows[at].deficit <= 0 || bytes == 0) {
            self.leave(at);
            self.activate(at);
        }
    }
}

#[derive(Clone, Debug)]
enum Call {
    Add {
        index: u16,
        lane: u8,
        quantum: u32,
    },
    Remove {
        index: u16,
    },
    Police {
        index: u16,
        rate: u64,
        depth: u32,
    },
    Unpolice {
        index: u16,
    },
    Ready {
        index: u16,
    },
    Idle {
        index: u16,
    },
    SetLane {
        index: u16,
        lane: u8,
    },
    Poll {
        ahead: u64,
    },
    /// Poll, and send this part (in 256ths) of what the contract allows.
    Burst {
        ahead: u64,
        part: u32,
        more: bool,
    },
    /// A report that nobody asked for.
    Stray {
        index: u16,
        bytes: u32,
        more: bool,
    },
}

fn call() -> impl Strategy<Value = Call> {
    let index = 0..FLOWS as u16 + 2;
    let ahead = prop_oneof![Just(0), 0..2_000_000u64];
    prop_oneof![
        4 => (index.clone(), prop_oneof![Just(2), Just(6), 0..LANES as u8], FRAME - 10..9 * FRAME)
            .prop_map(|(index, lane, quantum)| Call::Add { index, lane, quantum }),
        1 => index.clone().prop_map(|index| Call::Remove { index }),
        2 => (index.clone(), 1..5_000_000u64, FRAME - 10..9 * FRAME)
            .prop_map(|(index, rate, depth)| Call::Police { index, rate, depth }),
        1 => index.clone().prop_map(|index| Call::Unpolice { index }),
        6 => index.clone().prop_map(|index| Call::Ready { index }),
        2 => index.clone().prop_map(|index| Call::Idle { index }),
        2 => (index.clone(), 0..LANES as u8).prop_map(|(index, lane)| Call::SetLane { index, lane }),
        3 => ahead.clone().prop_map(|ahead| Call::Poll { ahead }),
        12 => (ahead, 0..=256u32, prop::bool::weighted(0.8))
            .prop_map(|(ahead, part, more)| Call::Burst { ahead, part, more }),
        1 => (index, prop_oneof![0..3 * FRAME, Just(u32::MAX)], any::<bool>())
            .prop_map(|(index, bytes, more)| Call::Stray { index, bytes, more }),
    ]
}

fn apply(
    scheduler: &mut Scheduler<FLOWS>,
    model: &mut Model,
    time: &mut u64,
    call: &Call,
) -> Result<(), TestCaseError> {
    match *call {
        Call::Add { index, lane, quantum } => {
            let added = scheduler.add(FlowIndex(index), Lane::new(lane).unwrap(), quantum).is_ok();
            prop_assert_eq!(added, model.add(index, lane, quantum));
        }
        Call::Remove { index } => {
            scheduler.remove(FlowIndex(index));
            model.remove(index);
        }
        Call::Police { index, rate, depth } => {
            let policing = Policing { rate_bytes_per_s: NonZeroU64::new(rate).unwrap(), burst_bytes: depth };
            let policed = scheduler.police(FlowIndex(index), Some(policing)).is_ok();
            prop_assert_eq!(policed, model.police(index, rate, depth));
        }
        Call::Unpolice { index } => {
            let done = scheduler.police(FlowIndex(index), None).is_ok();
            prop_assert_eq!(done, model.police(index, 1, FRAME));
            if let Some(at) = model.position(index) {
                model.flows[at].bucket = None;
            }
        }
        Call::Ready { index } => {
            scheduler.ready(FlowIndex(index));
            model.ready(index);
        }
        Call::Idle { index } => {
            scheduler.idle(FlowIndex(index));
            model.idle(index);
        }
        Call::SetLane { index, lane } => {
            scheduler.set_lane(FlowIndex(index), Lane::new(lane).unwrap());
            model.set_lane(index, lane);
        }
        Call::Poll { ahead } => {
            *time += ahead;
            prop_assert_eq!(scheduler.poll(MonoTime(*time)), model.poll(*time));
        }
        Call::Burst { ahead, part, more } => {
            *time += ahead;
            let decision = scheduler.poll(MonoTime(*time));
            prop_assert_eq!(decision, model.poll(*time));
            if let Decision::Send { flow, budget_bytes } = decision {
                let bytes = (budget_bytes + FRAME - 1) * part / 256;
                scheduler.sent(flow, bytes, more);
                model.sent(flow.0, bytes, more);
            }
        }
        Call::Stray { index, bytes, more } => {
            scheduler.sent(FlowIndex(index), bytes, more);
            model.sent(index, bytes, more);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_decision_is_the_naive_models(calls in prop::collection::vec(call(), 1..400)) {
        let mut scheduler = Scheduler::<FLOWS>::new(Limits::new(CHUNK, FRAME).unwrap());
        let (mut model, mut time) = (Model::default(), 1_000);
        for call in &calls {
            apply(&mut scheduler, &mut model, &mut time, call)?;
            prop_assert_eq!(scheduler.misuses(), model.misuses);
            for index in 0..FLOWS as u16 {
                let ready = model.position(index).is_some_and(|at| model.flows[at].place != Place::Idle);
                prop_assert_eq!(scheduler.is_ready(FlowIndex(index)), ready);
            }
        }
        // Whatever happened before, every flow that is ready gets out in the end.
        drain(&mut scheduler, MonoTime(time))?;
    }
}

fn drain(scheduler: &mut Scheduler<FLOWS>, mut now: MonoTime) -> Result<(), TestCaseError> {
    for _ in 0..4 * FLOWS {
        match scheduler.poll(now) {
            Decision::Send { flow, .. } => scheduler.sent(flow, 1, false),
            Decision::Wait(until) => {
                prop_assert!(until > now);
                prop_assert_ne!(scheduler.poll(until - Nanos(1)), Decision::Idle);
                now = until;
            }
            Decision::Idle => {
                prop_assert!((0..FLOWS as u16).all(|index| !scheduler.is_ready(FlowIndex(index))));
                return Ok(());
            }
        }
    }
    Err(TestCaseError::fail("the scheduler did not come to rest"))
}
