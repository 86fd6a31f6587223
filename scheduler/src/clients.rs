//! Flows that belong together: the share of a lane, and the budget, of a client.
//!
//! In each lane at most one flow of a client, its **front**, stands in the ring or, while
//! the client cannot pay, in the heap of the lane; its other flows that have something are
//! chained behind it. So a client has one place in a round, however many flows it has, and
//! a client that ran out is put aside with one move a lane.
//!
//! A flow that waits for its own tokens is in the heap by itself, and no front.

use crate::bucket::Bucket;
use crate::pools::POOLS_MAX;
use crate::rings::NIL;
use crate::{AssignError, FlowIndex, LANES, PoliceError, Policing, Scheduler, State};
use core::num::NonZeroU32;
use insane_core::MonoTime;
use insane_mutation::mutate;

/// Clients of one scheduler.
pub const CLIENTS_MAX: usize = 256;

const _: () = assert!(CLIENTS_MAX < NIL as usize);

/// A client, by its place in the scheduler's table; chosen by the caller, below
/// [`CLIENTS_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientIndex(pub u16);

#[derive(Clone, Copy)]
pub(crate) struct Client {
    flows: u16,
    bucket: Option<Bucket>,
    /// The front of each lane.
    front: [u16; LANES],
    /// The first flow behind it.
    behind: [u16; LANES],
    /// What is left of the quantum of each lane; negative: what is owed.
    deficit_bytes: [i64; LANES],
    /// For each pool, see [`pools`](crate::pools): they differ in rate, so each counts by itself.
    pub(crate) tags: [u64; POOLS_MAX],
}

impl Client {
    pub(crate) const NEW: Client = Client {
        flows: 0,
        bucket: None,
        front: [NIL; LANES],
        behind: [NIL; LANES],
        deficit_bytes: [0; LANES],
        tags: [0; POOLS_MAX],
    };

    /// Takes `bytes` from share and budget; whether that was more than a grant allows.
    pub(crate) fn charge(&mut self, lane: u8, bytes: u32, floor: i64, now: MonoTime) -> bool {
        let deficit = &mut self.deficit_bytes[lane as usize];
        *deficit = (*deficit - i64::from(bytes)).max(floor);
        let Some(bucket) = &mut self.bucket else { return false };
        bucket.refill(now);
        !bucket.take(mutate!(ClientNotCharged, bytes, 0))
    }

    /// What may go of its share and budget; `is_new`: its turn in the lane begins.
    pub(crate) fn grant(&mut self, lane: u8, is_new: bool, quantum: i64, now: MonoTime, frame: NonZeroU32) -> i64 {
        let deficit = &mut self.deficit_bytes[lane as usize];
        if is_new {
            *deficit += quantum;
        }
        let share = *deficit;
        match &mut self.bucket {
            None => share,
            Some(bucket) => {
                bucket.refill(now);
                share.min(bucket.budget_bytes(frame))
            }
        }
    }

    fn able_at(&self, frame: NonZeroU32) -> MonoTime {
        self.bucket.as_ref().map_or(MonoTime(0), |bucket| bucket.able_at(frame))
    }
}

impl<const FLOWS: usize> Scheduler<FLOWS> {
    /// From now on the flow is one of this client's, or stands for itself (`None`). If it has
    /// something it goes to the tail.
    ///
    /// # Errors
    /// [`AssignError`]; nothing is changed.
    pub fn assign(&mut self, flow: FlowIndex, client: Option<ClientIndex>) -> Result<(), AssignError> {
        let state = self.state(flow);
        if state == State::Absent {
            return Err(AssignError::NoSuchFlow);
        }
        let place = match client {
            Some(client) if usize::from(client.0) < CLIENTS_MAX => client.0,
            Some(_) => return Err(AssignError::NoSuchClient),
            None => NIL,
        };
        self.idle(flow);
        self.leave_client(flow.0);
        self.flows[flow.0 as usize].client = place;
        if let Some(client) = self.clients.get_mut(place as usize) {
            client.flows += 1;
        }
        if state != State::Idle {
            self.ready(flow);
        }
        Ok(())
    }

    /// What all flows of the client together may send: a full bucket in place of the one that
    /// it has, or none. The same numbers again leave the bucket as full as it is. A client
    /// keeps its bucket when its last flow goes.
    ///
    /// # Errors
    /// [`PoliceError`]; nothing is changed.
    pub fn budget(&mut self, client: ClientIndex, policing: Option<Policing>) -> Result<(), PoliceError> {
        if policing.is_some_and(|policing| policing.burst_bytes < self.limits.frame_bytes_max.get()) {
            return Err(PoliceError::BurstTooSmall);
        }
        let now = self.now;
        let entry = self.clients.get_mut(client.0 as usize).ok_or(PoliceError::NoSuchFlow)?;
        if entry.bucket.map(|bucket| bucket.policing()) == policing {
            return Ok(());
        }
        entry.bucket = policing.map(|policing| Bucket::full(policing, now));
        let fronts = entry.front;
        for (lane, front) in fronts.into_iter().enumerate().filter(|(_, front)| *front != NIL) {
            if self.flows[front as usize].state == State::Held {
                self.held.remove(lane as u8, front);
                self.place_front(front);
            }
        }
        Ok(())
    }

    /// Another client of this index begins: what the one before owes is forgotten. Does nothing
    /// while it has flows.
    pub fn renew_client(&mut self, client: ClientIndex) {
        if let Some(entry) = self.clients.get_mut(client.0 as usize)
            && entry.flows == 0
        {
            *entry = Client::NEW;
        }
    }

    /// Flows that belong to the client.
    #[must_use]
    pub fn flows_of(&self, client: ClientIndex) -> u16 {
        self.clients.get(client.0 as usize).map_or(0, |client| client.flows)
    }

    /// How often a client with something to send had used up its budget, since construction.
    #[inline]
    #[must_use]
    pub const fn budgets_used_up(&self) -> u64 {
        self.waits - self.pools_used_up
    }

    /// That, and how often a [pool](Self::pools_used_up) was: one number to look at for both.
    #[inline]
    #[must_use]
    pub const fn waits(&self) -> u64 {
        self.waits
    }

    /// The flow, which is idle, belongs to nobody any more.
    pub(crate) fn leave_client(&mut self, flow: u16) {
        let Some(entry) = self.flows.get_mut(flow as usize) else { return };
        let place = core::mem::replace(&mut entry.client, NIL);
        if let Some(client) = self.clients.get_mut(place as usize) {
            client.flows -= 1;
        }
    }

    /// A flow that can pay takes its place: in the ring, or behind the front of its client.
    pub(crate) fn join(&mut self, flow: u16) {
        let entry = &mut self.flows[flow as usize];
        let lane = entry.lane;
        let Some(client) = self.clients.get_mut(entry.client as usize) else {
            entry.state = State::Active;
            self.rings.push_tail(lane, flow);
            return;
        };
        if client.front[lane as usize] == NIL {
            client.front[lane as usize] = flow;
            self.place_front(flow);
        } else {
            entry.state = State::Behind;
            self.rings.chain(&mut client.behind[lane as usize], flow);
        }
    }

    pub(crate) fn is_front(&self, flow: u16) -> bool {
        let entry = &self.flows[flow as usize];
        self.clients.get(entry.client as usize).is_some_and(|client| client.front[entry.lane as usize] == flow)
    }

    /// A front goes to the tail of its lane, or waits until its client can pay.
    pub(crate) fn place_front(&mut self, flow: u16) {
        let entry = &mut self.flows[flow as usize];
        let able_at = self.clients[entry.client as usize].able_at(self.limits.frame_bytes_max);
        if able_at <= self.now {
            entry.state = State::Active;
            self.rings.push_tail(entry.lane, flow);
        } else {
            entry.state = State::Held;
            self.held.push(entry.lane, flow, able_at);
        }
    }

    /// The turn of an active flow among those of its client is over: the next one stands for
    /// them, in the same place.
    pub(crate) fn let_next_of_client(&mut self, flow: u16) {
        let entry = &self.flows[flow as usize];
        let (lane, place) = (entry.lane, entry.client);
        if entry.state != State::Active {
            return;
        }
        if let Some(next) = self.next_front(place, lane) {
            self.rings.replace(lane, flow, next);
            self.flows[next as usize].state = State::Active;
            self.flows[flow as usize].state = State::Behind;
            self.rings.chain(&mut self.clients[place as usize].behind[lane as usize], flow);
        }
    }

    /// Makes the first flow behind the front the front; that of before is to be taken care of.
    fn next_front(&mut self, place: u16, lane: u8) -> Option<u16> {
        let client = &mut self.clients[place as usize];
        let next = Some(client.behind[lane as usize]).filter(|next| *next != NIL)?;
        self.rings.unchain(&mut client.behind[lane as usize], next);
        client.front[lane as usize] = next;
        Some(next)
    }

    /// A flow that was in `state` and is idle now leaves its place to the next of its client.
    pub(crate) fn leave_place_of_client(&mut self, flow: u16, state: State) {
        let entry = &self.flows[flow as usize];
        let (lane, place) = (entry.lane, entry.client);
        let is_front = self.is_front(flow);
        match state {
            State::Behind => self.rings.unchain(&mut self.clients[place as usize].behind[lane as usize], flow),
            State::Held if !is_front => self.unhold(flow),
            State::Held => {
                self.held.remove(lane, flow);
                match self.next_front(place, lane) {
                    Some(next) => self.place_front(next),
                    None => self.forget_front(place, lane),
                }
            }
            _ => match self.next_front(place, lane) {
                Some(next) => {
                    self.rings.replace(lane, flow, next);
                    self.flows[next as usize].state = State::Active;
                }
                None => {
                    self.forfeit(place, lane, flow);
                    self.rings.remove(lane, flow);
                    self.forget_front(place, lane);
                }
            },
        }
    }

    fn forget_front(&mut self, place: u16, lane: u8) {
        self.clients[place as usize].front[lane as usize] = NIL;
    }

    /// What is left of the turn of the client in the lane, if it is its turn, is over.
    fn forfeit(&mut self, place: u16, lane: u8, front: u16) {
        let deficit = &mut self.clients[place as usize].deficit_bytes[lane as usize];
        *deficit = (*deficit).min(0);
        if self.rings.head(lane) == Some(front) {
            self.granted &= !(1 << lane);
        }
    }

    /// The client goes to the tail if its share is used up, or it gives it up.
    pub(crate) fn end_turn_of_client(&mut self, place: u16, lane: u8, gives_up: bool) {
        let client = &self.clients[place as usize];
        let (front, deficit) = (client.front[lane as usize], client.deficit_bytes[lane as usize]);
        let is_over = mutate!(ClientQuantumEachFlow, gives_up || deficit <= 0, gives_up);
        if front != NIL && self.rings.head(lane) == Some(front) && is_over {
            self.forfeit(place, lane, front);
            self.rings.rotate(lane);
        }
    }

    /// Puts the client aside in all lanes if it cannot pay any more.
    pub(crate) fn hold_client(&mut self, place: u16) {
        let due = self.clients[place as usize].able_at(self.limits.frame_bytes_max);
        if due <= self.now {
            return;
        }
        let mut has_something = false;
        for lane in 0..mutate!(ClientHeldInOneLane, LANES as u8, 7) {
            let front = self.clients[place as usize].front[lane as usize];
            if front == NIL {
                continue;
            }
            has_something = true;
            if self.flows[front as usize].state == State::Held {
                self.held.remove(lane, front);
            } else {
                self.forfeit(place, lane, front);
                self.rings.remove(lane, front);
                self.flows[front as usize].state = State::Held;
            }
            self.held.push(lane, front, due);
        }
        self.waits += u64::from(has_something);
    }
}
