//! The packet scheduler: which flow may send next, and how much.
//!
//! A **flow** is one source's connection to a datapath. It has a lane, a quantum
//! and, where it is policed, a token bucket. The scheduler never sees a frame, a
//! ring, a clock or a thread: the engine tells it which flows have something
//! ([`Scheduler::ready`], [`Scheduler::idle`]), asks what to do
//! ([`Scheduler::poll`]) and reports what it did ([`Scheduler::sent`]).
//!
//! ```
//! use insane_core::{Lane, MonoTime};
//! use insane_scheduler::{Decision, FlowIndex, Limits, Scheduler};
//!
//! let mut scheduler = Scheduler::<64>::new(Limits::default());
//! let flow = FlowIndex(5);
//! scheduler.add(flow, Lane::LAST, 16_384)?;
//! scheduler.ready(flow);
//! let now = MonoTime(0); // the one clock read of the turn
//! while let Decision::Send { flow, budget_bytes } = scheduler.poll(now) {
//!     // Send whole frames while fewer than `budget_bytes` have gone.
//!     let (bytes, more) = (budget_bytes.min(1_000), false);
//!     scheduler.sent(flow, bytes, more);
//! }
//! # Ok::<(), insane_scheduler::AddError>(())
//! ```
//!
//! # Rules
//! - **Between lanes: strict priority.** A flow is granted only when no lane
//!   before its own holds an eligible flow.
//! - **Within a lane: deficit round robin** in the surplus form. At the head of its
//!   lane a flow gets its quantum on top of what it owes, sends until that is used
//!   up, and goes to the tail. The last frame may run over; the flow then owes it.
//! - **Clients share as one.** Flows of one client ([`Scheduler::assign`]) have one place in
//!   each lane and one quantum of it, that of the flow whose turn it is; inside it they take
//!   turns by their own quanta. Who opens more flows gets no more of a lane.
//! - **A grant is at most one chunk** ([`Limits::chunk_bytes`]) in every lane, so
//!   that more important traffic is looked at again after each.
//! - **A token bucket** ([`Scheduler::police`]) holds a flow back until it can pay
//!   for a whole frame. A flow that is held back does not hold back its lane.
//! - **A client's budget** ([`Scheduler::budget`]) is a token bucket beside those of its flows,
//!   which all of them pay from, in every lane.
//! - **A pool** ([`Scheduler::set_pool`]) is a token bucket that flows of several clients pay from,
//!   in every lane: the first lanes first, and in a lane clients equally.
//!
//! # Contract of the caller
//! After `Send { flow, budget_bytes }` the caller sends whole frames *while fewer
//! than `budget_bytes` have gone*, so at most `budget_bytes + frame_bytes_max - 1`
//! bytes, and reports them with `sent`. A poll without a `sent` changes nothing:
//! the next poll at the same instant decides the same. A link that takes nothing
//! is no reason to poll again: strict priority means that the lanes below wait.
//! Make the flow idle until its link has room, or end the burst.
//!
//! # Invariants
//! - A flow is in exactly one state: absent, idle, active (in the ring of its
//!   lane), held (in the heap of its lane, waiting for tokens), or behind (another flow of
//!   its client stands in the ring or the heap for it).
//! - Every active flow, and its client, can pay for at least one frame, but for one whose pool ran
//!   empty, which is put off when its turn comes; no grant is empty.
//! - A flow owes at most `frame_bytes_max - 1` and has at most its quantum.
//! - In every interval of length t, a policed flow, all flows of a client with a budget
//!   together, and all flows of a pool together, send at most `burst + rate * t`.
//!
//! # Bounds
//! | call | cost |
//! |---|---|
//! | `poll` | one look at each of the [`LANES`] lanes, at most eight releases of held flows in each: O(lanes log FLOWS) |
//! | `sent`, `ready`, `idle`, `remove` | O(1) for a flow without a bucket, else O(log FLOWS) |
//! | `poll`, where pools have run empty | at most eight flows put off in each lane besides: O(lanes log FLOWS) |
//! | `set_pool` | O(lanes log FLOWS) |
//! | `sent`, when the client's budget is used up | one move in each lane: O(lanes log FLOWS) |
//! | memory | fixed at construction; nothing is allocated |
//!
//! - While a lane-0 flow is ready, at most one chunk and one frame of any other
//!   lane go before it.
//! - A flow that becomes active waits, within its lane, for at most
//!   `quantum + frame_bytes_max - 1` bytes of each other flow that is active then.
//! - Over any interval in which two flows i and j of one lane always have a backlog
//!   and tokens, and both keep going when granted:
//!   `|bytes_i / quantum_i - bytes_j / quantum_j| <= 1 + frame_bytes_max / quantum_i + frame_bytes_max / quantum_j`.
//!   The same holds of clients whose flows have one quantum, and of a client and a flow that
//!   has none.
//! - Of several flows of a lane that can pay again at one instant, one enters the
//!   ring with each poll that reaches the lane, the longest due first.
//!
//! # Misuse
//! Reports about a flow that is absent, out of range or not active, and reports of
//! more than the contract allows, change nothing else: they are counted in
//! [`Scheduler::misuses`]. An overrun is charged up to one frame.
//!
//! # Time-triggered sending
//! [`TimedScheduler`] puts reserved slots and gates above these lanes, behind the same
//! two calls: `poll` says what may be sent at `now`, or until when nothing changes by
//! itself. Its slots are [`Recurrence`]s, its gates [`Gates`].
#![no_std]
#![forbid(unsafe_code)]

mod bucket;
mod clients;
mod gates;
mod held;
#[cfg(feature = "mutants")]
mod mutants;
mod pools;
mod rate;
mod recurrence;
mod rings;
mod timed;
mod waiting;
mod words;

pub use clients::{CLIENTS_MAX, ClientIndex};
pub use gates::{GATE_ENTRIES_MAX, GateEntry, GateError, GateState, Gates};
pub use insane_core::limits::LANES;
#[cfg(feature = "mutants")]
pub use mutants::{Mutation, turn_on};
pub use pools::{POOLS_MAX, PoolIndex};
pub use rate::LinkRate;
pub use recurrence::{PERIOD_NS_MAX, Recurrence, RecurrenceError, WHOLE_SHARE, gcd, lcm};
pub use timed::{
    Action, Arrivals, Besides, FilledTable, LatePolicy, LinkTiming, MissCause, Now, TableError, TimedScheduler,
    TimedStream, Window,
};
pub use words::{AddError, AssignError, Decision, FlowIndex, Limits, PoliceError, Policing};

use bucket::Bucket;
use clients::Client;
use held::Held;
use insane_core::{Lane, MonoTime, Nanos};
use pools::{Pays, Pool};
use rings::{NIL, Rings};
use waiting::Waiting;

/// Held flows that one poll releases in a lane, at most.
const RELEASES_MAX: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Absent,
    Idle,
    Active,
    Held,
    Behind,
}

#[derive(Clone, Copy)]
struct Flow {
    state: State,
    lane: u8,
    /// Among the clients; `NIL`: it stands for itself.
    client: u16,
    /// Of a client's flow: it has had the quantum of its turn.
    has_quantum: bool,
    quantum_bytes: u32,
    /// What is left of the quantum; negative: what the flow owes.
    deficit_bytes: i64,
    pays: Pays,
    /// Of one in a pool: see [`pools`].
    tag: u64,
}

impl Flow {
    const ABSENT: Flow = Flow {
        state: State::Absent,
        lane: 0,
        client: NIL,
        has_quantum: false,
        quantum_bytes: 0,
        deficit_bytes: 0,
        pays: Pays::Nothing,
        tag: 0,
    };
}

/// The packet scheduler of one datapath. See the crate's documentation.
pub struct Scheduler<const FLOWS: usize> {
    limits: Limits,
    /// The latest instant that `poll` was told.
    now: MonoTime,
    flows: [Flow; FLOWS],
    clients: [Client; CLIENTS_MAX],
    pools: [Pool; POOLS_MAX],
    rings: Rings<FLOWS>,
    held: Held<FLOWS>,
    /// Those that wait for pools, of which the first of each lane and pool are among the held.
    waiting: Waiting<FLOWS>,
    /// Bit i: the head of lane i has had its quantum of this round.
    granted: u8,
    misuses: u64,
    /// Times that a client or a pool was used up, and those of pools among them.
    waits: u64,
    pools_used_up: u64,
}

impl<const FLOWS: usize> Scheduler<FLOWS> {
    const FITS: () = assert!(FLOWS >= 1 && FLOWS < rings::NIL as usize, "FLOWS is 1 to 65534");

    /// A scheduler without flows. The value is large (about 130 bytes a flow): make it
    /// where it will stay.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        let () = Self::FITS;
        Scheduler {
            limits,
            now: MonoTime(0),
            flows: [Flow::ABSENT; FLOWS],
            clients: [Client::NEW; CLIENTS_MAX],
            pools: [Pool::NEW; POOLS_MAX],
            rings: Rings::new(),
            held: Held::new(),
            waiting: Waiting::new(),
            granted: 0,
            misuses: 0,
            waits: 0,
            pools_used_up: 0,
        }
    }

    /// The sizes given at construction.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// Reports that broke the contract of the caller, since construction.
    #[must_use]
    pub const fn misuses(&self) -> u64 {
        self.misuses
    }

    /// Adds a flow: idle, owing nothing, not policed. `quantum_bytes` is its share of
    /// the lane, relative to the quanta of the other flows there.
    ///
    /// # Errors
    /// [`AddError`]; nothing is changed.
    pub fn add(&mut self, flow: FlowIndex, lane: Lane, quantum_bytes: u32) -> Result<(), AddError> {
        if quantum_bytes < self.limits.frame_bytes_max.get() {
            return Err(AddError::QuantumTooSmall);
        }
        let entry = self.flows.get_mut(flow.0 as usize).ok_or(AddError::OutOfRange)?;
        if entry.state != State::Absent {
            return Err(AddError::InUse);
        }
        *entry = Flow { state: State::Idle, lane: lane.get(), quantum_bytes, ..Flow::ABSENT };
        Ok(())
    }

    /// Takes a flow out, whatever its state. A report about it that comes later is a
    /// misuse, unless the index was given out again.
    pub fn remove(&mut self, flow: FlowIndex) {
        self.idle(flow);
        self.leave_client(flow.0);
        if let Some(entry) = self.flows.get_mut(flow.0 as usize) {
            *entry = Flow::ABSENT;
        }
    }

    /// Gives the flow a full token bucket in place of the one it has, or takes it
    /// away (`None`). It leaves its pool.
    ///
    /// # Errors
    /// [`PoliceError`]; nothing is changed.
    pub fn police(&mut self, flow: FlowIndex, policing: Option<Policing>) -> Result<(), PoliceError> {
        if policing.is_some_and(|policing| policing.burst_bytes < self.limits.frame_bytes_max.get()) {
            return Err(PoliceError::BurstTooSmall);
        }
        let state = self.state(flow);
        if state == State::Absent {
            return Err(PoliceError::NoSuchFlow);
        }
        let now = self.now;
        self.pay_from(flow, state, policing.map_or(Pays::Nothing, |policing| Pays::Own(Bucket::full(policing, now))));
        Ok(())
    }

    fn pay_from(&mut self, flow: FlowIndex, state: State, pays: Pays) {
        if state == State::Held {
            self.idle(flow);
        }
        let entry = &mut self.flows[flow.0 as usize];
        (entry.pays, entry.tag) = (pays, 0);
        if state == State::Held {
            self.ready(flow);
        }
    }

    /// The flow has something to send. Does nothing for a flow that was ready.
    #[inline]
    pub fn ready(&mut self, flow: FlowIndex) {
        match self.state(flow) {
            State::Absent => self.misuses += 1,
            State::Idle => self.enter(flow.0),
            State::Active | State::Held | State::Behind => {}
        }
    }

    /// The flow has nothing to send, or may not. What was left of its quantum is
    /// forfeit; what it owes stays. Does nothing for a flow that was idle.
    #[inline]
    pub fn idle(&mut self, flow: FlowIndex) {
        match self.state(flow) {
            State::Absent => self.misuses += 1,
            State::Idle => {}
            State::Active | State::Held | State::Behind => self.leave(flow.0),
        }
    }

    /// Whether the flow is known to have something to send.
    #[must_use]
    pub fn is_ready(&self, flow: FlowIndex) -> bool {
        matches!(self.state(flow), State::Active | State::Held | State::Behind)
    }

    /// What to do at `now`. An instant before that of an earlier poll counts as that one.
    #[inline]
    pub fn poll(&mut self, now: MonoTime) -> Decision {
        self.poll_lanes(now, u8::MAX)
    }

    /// The same for some lanes alone: bit i of `open` for lane i. What waits in the
    /// others is left out, also when it says until when to wait.
    #[inline]
    pub fn poll_lanes(&mut self, now: MonoTime, open: u8) -> Decision {
        // The last instant of all means never: it does not come.
        self.now = self.now.max(now).min(MonoTime(u64::MAX - 1));
        let mut wait: Option<MonoTime> = None;
        // At most LANES rounds: each takes one bit away.
        let mut lanes = self.waiting_lanes() & open;
        while lanes != 0 {
            let lane = lanes.trailing_zeros() as u8;
            lanes &= lanes - 1;
            let due = self.release_one(lane);
            if let Some(head) = self.rings.head(lane) {
                return self.grant(lane, head, open);
            }
            wait = match (wait, due) {
                (Some(wait), Some(due)) => Some(wait.min(due)),
                (wait, due) => wait.or(due),
            };
        }
        wait.map_or(Decision::Idle, Decision::Wait)
    }

    /// Bit i: a flow of lane i has something, whether it may send now or not.
    #[inline]
    #[must_use]
    pub fn waiting_lanes(&self) -> u8 {
        self.rings.occupied() | self.held.occupied()
    }

    /// Lanes with a flow that nothing of its own holds back at `now`: no bucket, no budget.
    #[cold]
    #[inline(never)]
    fn able_lanes(&self, now: MonoTime) -> u8 {
        let mut able = self.rings.occupied();
        // At most LANES rounds.
        let mut held = self.held.occupied() & !able;
        while held != 0 {
            let lane = held.trailing_zeros() as u8;
            held &= held - 1;
            if self.held.first(lane).is_some_and(|(due, _)| due <= now) {
                able |= 1 << lane;
            }
        }
        able
    }

    /// Moves a flow to another lane, at its tail if it has something. What it owes goes with
    /// it; what was left of its quantum is forfeit.
    pub fn set_lane(&mut self, flow: FlowIndex, lane: Lane) {
        let state = self.state(flow);
        if state == State::Absent {
            self.misuses += 1;
            return;
        }
        self.idle(flow);
        self.flows[flow.0 as usize].lane = lane.get();
        if state != State::Idle {
            self.ready(flow);
        }
    }

    /// The lane of a flow; `None` for one that there is not.
    #[inline]
    #[must_use]
    pub fn lane_of(&self, flow: FlowIndex) -> Option<u8> {
        let entry = self.flows.get(flow.0 as usize)?;
        (entry.state != State::Absent).then_some(entry.lane)
    }

    /// Charges the flow for what it sent after a grant; `more` says whether it has
    /// more (`false` is as good as [`Scheduler::idle`]). Zero bytes with `more`: the
    /// flow could not go, and gives up the rest of its quantum. A flow that sent
    /// without a grant while it was ready is charged all the same.
    #[inline]
    pub fn sent(&mut self, flow: FlowIndex, bytes: u32, more: bool) {
        if !matches!(self.state(flow), State::Active | State::Behind) {
            self.misuses += 1;
            return;
        }
        let able = self.charge(flow.0, bytes);
        let entry = &mut self.flows[flow.0 as usize];
        let (client, lane) = (entry.client, entry.lane);
        if !more {
            self.leave(flow.0);
        } else if !able {
            let is_pool = u64::from(matches!(entry.pays, Pays::Pool(_)));
            self.pools_used_up += is_pool;
            self.waits += is_pool;
            self.leave(flow.0);
            self.enter(flow.0);
        } else if entry.deficit_bytes <= 0 || bytes == 0 {
            entry.deficit_bytes = entry.deficit_bytes.min(0);
            entry.has_quantum = false;
            if client != NIL {
                self.let_next_of_client(flow.0);
            } else if self.rings.head(lane) == Some(flow.0) {
                self.granted &= !(1 << lane);
                self.rings.rotate(lane);
            }
        }
        if client != NIL {
            self.end_turn_of_client(client, lane, more && bytes == 0);
            self.hold_client(client);
        }
    }

    fn state(&self, flow: FlowIndex) -> State {
        self.flows.get(flow.0 as usize).map_or(State::Absent, |entry| entry.state)
    }

    /// Takes `bytes` from quantum and bucket; whether the bucket can pay for one more frame.
    fn charge(&mut self, flow: u16, bytes: u32) -> bool {
        let frame_bytes_max = self.limits.frame_bytes_max;
        let entry = &mut self.flows[flow as usize];
        // The floor makes one quantum enough to send again: no round without a frame.
        let floor = 1 - i64::from(frame_bytes_max.get());
        let mut overrun = entry.deficit_bytes - i64::from(bytes) < floor;
        entry.deficit_bytes = (entry.deficit_bytes - i64::from(bytes)).max(floor);
        let able = match &mut entry.pays {
            Pays::Nothing => true,
            Pays::Own(bucket) => {
                bucket.refill(self.now);
                overrun |= !bucket.take(bytes);
                bucket.able_at(frame_bytes_max) <= self.now
            }
            Pays::Pool(pool) => {
                let at = usize::from(pool.0);
                let (had, able) = self.pools[at].charge(entry.tag, bytes, self.now, frame_bytes_max);
                if let Some(client) = self.clients.get_mut(entry.client as usize) {
                    entry.tag = entry.tag.max(client.tags[at]);
                    client.tags[at] = entry.tag + u64::from(bytes);
                }
                entry.tag += u64::from(bytes);
                overrun |= !had;
                able
            }
        };
        if let Some(client) = self.clients.get_mut(entry.client as usize) {
            overrun |= client.charge(entry.lane, bytes, floor, self.now);
        }
        self.misuses += u64::from(overrun);
        able
    }

    /// From idle to active, or to held where the bucket cannot pay for a frame yet.
    fn enter(&mut self, flow: u16) {
        let able_at = match self.flows[flow as usize].pays {
            Pays::Nothing => MonoTime(0),
            Pays::Own(bucket) => bucket.able_at(self.limits.frame_bytes_max),
            Pays::Pool(pool) => self.pool_able_at(pool),
        };
        if able_at <= self.now {
            self.join(flow);
        } else if let Some(pool) = self.pool_of(flow) {
            self.wait_for(pool, flow);
        } else {
            let entry = &mut self.flows[flow as usize];
            entry.state = State::Held;
            self.held.push(entry.lane, flow, able_at);
        }
    }

    /// From active, held or behind to idle.
    fn leave(&mut self, flow: u16) {
        let entry = &mut self.flows[flow as usize];
        let (state, lane, client) = (entry.state, entry.lane, entry.client);
        entry.state = State::Idle;
        entry.deficit_bytes = entry.deficit_bytes.min(0);
        entry.has_quantum = false;
        if client != NIL {
            self.leave_place_of_client(flow, state);
        } else if state == State::Held {
            self.unhold(flow);
        } else {
            if self.rings.head(lane) == Some(flow) {
                self.granted &= !(1 << lane);
            }
            self.rings.remove(lane, flow);
        }
    }

    /// Lets the held flow of the lane that is due longest into the ring, if one is due;
    /// otherwise says when the first will be.
    fn release_one(&mut self, lane: u8) -> Option<MonoTime> {
        // One whose client cannot pay makes room for the next, a few times.
        for _ in 0..RELEASES_MAX {
            let (due, flow) = self.held.first(lane)?;
            if due > self.now {
                return Some(due);
            }
            let pool_able_at = self.pool_of(flow).map_or(MonoTime(0), |pool| self.pool_able_at(pool));
            let can_pay = pool_able_at <= self.now;
            if self.is_front(flow) && !can_pay {
                // From its client's budget to its pool.
                self.leave(flow);
                self.enter(flow);
            } else if self.is_front(flow) {
                self.held.remove(lane, flow);
                self.place_front(flow);
            } else if !can_pay {
                // Others were faster.
                self.held.remove(lane, flow);
                self.held.push(lane, flow, pool_able_at);
            } else {
                self.unhold(flow);
                self.join(flow);
            }
            if self.rings.head(lane).is_some() {
                return None;
            }
        }
        Some(self.now + Nanos(1))
    }

    fn grant(&mut self, lane: u8, flow: u16, open: u8) -> Decision {
        let frame_bytes_max = self.limits.frame_bytes_max;
        let entry = &mut self.flows[flow as usize];
        let is_new = self.granted & (1 << lane) == 0;
        self.granted |= 1 << lane;
        let quantum = i64::from(entry.quantum_bytes);
        let mut budget = i64::from(self.limits.chunk_bytes.get());
        let has_turn = match self.clients.get_mut(entry.client as usize) {
            None => is_new,
            Some(client) => {
                budget = budget.min(client.grant(lane, is_new, quantum, self.now, frame_bytes_max));
                !core::mem::replace(&mut entry.has_quantum, true)
            }
        };
        if has_turn {
            entry.deficit_bytes += quantum;
        }
        budget = budget.min(entry.deficit_bytes);
        match &mut entry.pays {
            Pays::Nothing => {}
            Pays::Own(bucket) => {
                bucket.refill(self.now);
                budget = budget.min(bucket.budget_bytes(frame_bytes_max));
            }
            Pays::Pool(pool) => match self.pools[usize::from(pool.0)].budget_bytes(self.now, frame_bytes_max) {
                Some(left) => budget = budget.min(left),
                None => return self.put_off(lane, flow, open),
            },
        }
        debug_assert!(budget >= 1, "an active flow can send");
        Decision::Send { flow: FlowIndex(flow), budget_bytes: budget.clamp(1, i64::from(u32::MAX)) as u32 }
    }
}
