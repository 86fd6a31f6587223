//! The receiving side of reliable flows: what comes next, where it is put, and what the
//! sender is told.
//!
//! # Time
//! All instants here are of a clock that stands still while the thread is not run
//! ([`Attention`](insane_overlay::reliable::Attention)): for a pause of its own neither a sink is put
//! out nor a message given up of which the rest waits to be read.
//!
//! # Lanes
//! An acknowledgement goes by the lane of its stream, which the sender's heartbeats name: what
//! floods best effort stalls no stream of real time. One of best effort goes by best effort; but
//! where it is asked for by a heartbeat, since none came or none could be sent, by real time, so
//! that a full queue of our own, or a flood at the sender's, does not put a peer out that has
//! everything. Those are one in [`ASKED_APART`] of a datapath, and [`ASKED_BURST`] of them at once at
//! most, of 200 bytes with all around them: 0.4 Mbit/s. All are taken from either queue.

use crate::command::{Port, Topic};
use crate::deliver::{Content, Demand, Joined, Outlets};
use crate::links::Links;
use crate::outflow::stall_max;
use crate::recap::Audience;
use crate::receive::{Assembling, Payload};
use crate::routes::{RouteIndex, Way};
use insane_core::counters::DatapathCounter;
use insane_core::limits::INLINE_BYTES_MAX;
use insane_core::{DomainIndex, HostId, Incarnation, Lane, MonoTime, Nanos, PeerIndex, Stamp};
use insane_link::{Link, SendOutcome};
use insane_overlay::flow::FlowKey;
use insane_overlay::reliable::{Ack, Arrival, Limits, Position, Receiver, Sync};
use insane_shm::cell::Meta;
use insane_sys::SharedBytes;
use insane_wire::data::DataHeader;
use insane_wire::reliable::Body;
use std::collections::VecDeque;

/// Acknowledgements sent, and flows without room looked at, in one turn.
const PER_TURN: usize = 32;
/// Between two acknowledgements of best effort that go by real time, in the mean. In the time of an
/// eviction that is one for each of 125 flows.
const ASKED_APART: Nanos = Nanos::from_millis(4);
/// So much of that may go at once: heartbeats of several flows come together.
const ASKED_BURST: Nanos = Nanos::from_millis(64);
/// A flow that nothing was heard of for this long may give its place to another: it is at rest, or
/// its sender is gone, since one that owes something says so every 100 ms. None does without need:
/// which of its sinks have heard it is known nowhere else.
const REST_MIN: Nanos = Nanos::from_secs(1);
/// The same, of one whose source has closed and of which all is here: what is still under way to it
/// are repetitions, which are to find it for so long.
const CLOSED_REST_MIN: Nanos = Nanos::from_millis(100);
/// One whose source has closed is forgotten after this long.
const CLOSED_LINGER: Nanos = Nanos::from_secs(10);

struct Inflow {
    key: FlowKey,
    topic: Topic,
    peer: PeerIndex,
    /// The lane of its stream, as its sender says.
    lane: Lane,
    /// A heartbeat came since the last acknowledgement.
    asked: bool,
    main: Part,
    audience: Audience,
    /// It is in the list of those with something to say.
    due: bool,
    /// It is in the list of those without room.
    blocked: bool,
    /// Nobody listens any more: said with the next acknowledgement, then forgotten.
    gone: bool,
    /// When its source said that it has closed, and the number behind its last message.
    closed: Option<(MonoTime, u64)>,
}

/// The flow itself, or a recap of it.
pub(crate) struct Part {
    pub machine: Receiver,
    /// The memory of the message that is arriving.
    buffer: Option<Assembling>,
    /// What the message that is arriving needs.
    demand: Demand,
}

/// Where what comes goes.
#[derive(Clone, Copy)]
struct Delivery {
    among: Joined,
    /// It is of the past to them.
    is_past: bool,
}

/// The reliable flows that this runtime receives.
pub(crate) struct Inflows {
    own: (HostId, Incarnation),
    limits: Limits,
    flows: Box<[Option<Inflow>]>,
    free: Vec<u16>,
    active: Vec<u16>,
    /// The flow of the previous frame: the next one is mostly of it, too.
    recent: u16,
    due: VecDeque<u16>,
    blocked: VecDeque<u16>,
    /// By then those of best effort that went by real time have had their time.
    asked_at: MonoTime,
    /// Messages that began to be collected.
    births: u64,
}

/// A frame of a reliable flow, and where it goes.
pub(crate) struct Arrived<'a> {
    pub now: MonoTime,
    pub key: FlowKey,
    pub header: &'a DataHeader,
    pub payload: Payload<'a>,
    pub route: RouteIndex,
    pub domain: DomainIndex,
}

impl Inflows {
    pub fn new(own: (HostId, Incarnation), limits: Limits, flows: usize) -> Self {
        assert!(flows <= usize::from(u16::MAX), "a datapath receives at most 65535 reliable flows");
        Inflows {
            own,
            limits,
            flows: (0..flows).map(|_| None).collect(),
            free: (0..flows as u16).rev().collect(),
            active: Vec::with_capacity(flows),
            recent: 0,
            due: VecDeque::with_capacity(flows),
            blocked: VecDeque::with_capacity(flows),
            asked_at: MonoTime(0),
            births: 0,
        }
    }

    #[inline]
    fn find(&mut self, key: &FlowKey, topic: Topic) -> Option<u16> {
        let is_it = |flow: &Option<Inflow>| flow.as_ref().is_some_and(|flow| flow.key == *key && flow.topic == topic);
        if self.flows.get(self.recent as usize).is_some_and(is_it) {
            return Some(self.recent);
        }
        let at = *self.active.iter().find(|at| is_it(&self.flows[**at as usize]))?;
        self.recent = at;
        Some(at)
    }

    fn list_if_due(&mut self, at: u16) {
        let Some(flow) = &mut self.flows[at as usize] else { return };
        if !flow.due && (flow.gone || flow.main.machine.is_due() || flow.audience.is_due()) {
            flow.due = true;
            // As many places as flows, and each is listed once.
            self.due.push_back(at);
        }
    }

    fn remove(&mut self, at: u16, outlets: &mut Outlets) {
        let Some(mut flow) = self.flows[at as usize].take() else { return };
        flow.main.free(outlets);
        if let Some(recap) = &mut flow.audience.recap {
            recap.part.free(outlets);
        }
        self.active.retain(|other| *other != at);
        self.due.retain(|other| *other != at);
        self.blocked.retain(|other| *other != at);
        self.free.push(at);
    }

    /// A heartbeat of a sender came in, of a stream of this lane; `listens`: a sink for it is here.
    pub fn on_sync(
        &mut self,
        now: MonoTime,
        peer: PeerIndex,
        (key, topic, lane): (FlowKey, Topic, Lane),
        sync: &Sync,
        listens: bool,
        outlets: &mut Outlets,
    ) {
        let at = match self.find(&key, topic) {
            Some(at) if sync.recap > 0 => {
                if let Some(flow) = &mut self.flows[at as usize] {
                    flow.asked = true;
                    flow.audience.on_recap(now, sync, &flow.main.machine, outlets.routes.find(topic), outlets);
                }
                self.list_if_due(at);
                return;
            }
            // It is sent again, when the flow is known.
            None if sync.recap > 0 => return,
            Some(at) => {
                if let Some(flow) = &mut self.flows[at as usize] {
                    // A sender that thought this host dead takes it for new when it is back.
                    // But whoever listened all the while has missed what lies between.
                    let fresh = sync.fresh && (flow.gone || !listens);
                    let is_anew = sync.token > flow.main.machine.token();
                    flow.closed =
                        flow.closed.filter(|(_, next)| !is_anew && sync.base.max(sync.sent.sequence) <= *next);
                    let route = outlets.routes.find(topic);
                    flow.audience.on_sync(sync, &flow.main.machine, route, outlets);
                    if is_anew && !flow.audience.has_heard(route, outlets) {
                        // Of the source's last attachment nobody who is here got anything: what this one
                        // brings, be it of the past, is for all who are.
                        flow.main.free(outlets);
                        flow.main = Part::new(Receiver::new(now, sync));
                        flow.audience = Audience::new(outlets.joined(), sync.keeps);
                    } else if flow.main.machine.on_sync(now, &Sync { fresh, ..*sync }) {
                        flow.main.free(outlets);
                    }
                }
                at
            }
            None => {
                let Some(at) = self.free_place(now, outlets) else {
                    if let Some((_, domain, _)) = outlets.listeners(topic) {
                        outlets.count(domain, DatapathCounter::DroppedNoFlow, 1);
                    }
                    return;
                };
                let main = Part::new(Receiver::new(now, sync));
                let audience = Audience::new(outlets.joined(), sync.keeps);
                let (due, blocked, gone) = (false, false, false);
                let closed = None;
                let asked = false;
                let flow = Inflow { key, topic, peer, lane, asked, main, audience, due, blocked, gone, closed };
                self.flows[at as usize] = Some(flow);
                self.active.push(at);
                at
            }
        };
        if let Some(flow) = &mut self.flows[at as usize] {
            flow.gone = !listens;
            (flow.peer, flow.lane, flow.asked) = (peer, lane, true);
        }
        self.list_if_due(at);
    }

    /// A free place, or that of the flow that was silent for longest, if it may be had; of those
    /// whose source has closed, if any may go.
    #[cold]
    fn free_place(&mut self, now: MonoTime, outlets: &mut Outlets) -> Option<u16> {
        if self.free.is_empty() {
            let flow = |at: &u16| self.flows[usize::from(*at)].as_ref();
            let silent = |at: &u16| flow(at).map_or(Nanos::ZERO, |flow| now.since(flow.main.machine.heard_at()));
            let has_ended = |at: &&u16| flow(at).is_some_and(|flow| flow.has_ended(now));
            let ended = self.active.iter().filter(has_ended).max_by_key(|at| silent(at));
            let at = *ended.or_else(|| self.active.iter().max_by_key(|at| silent(at)))?;
            if ended.is_none() && silent(&at) < REST_MIN {
                return None;
            }
            self.remove(at, outlets);
        }
        self.free.pop()
    }

    /// The source of a flow says that it has closed, and that `next` is the number behind its
    /// last message.
    #[cold]
    pub fn close(&mut self, now: MonoTime, key: &FlowKey, topic: Topic, next: u64) {
        let Some(at) = self.find(key, topic) else { return };
        let Some(flow) = &mut self.flows[at as usize] else { return };
        if next >= flow.main.machine.next().sequence && flow.closed.is_none_or(|(_, known)| known != next) {
            flow.closed = Some((now, next));
        }
    }

    /// A frame came for which nobody listens any more.
    pub fn nobody_listens(&mut self, key: &FlowKey, topic: Topic) {
        if let Some(at) = self.find(key, topic) {
            if let Some(flow) = &mut self.flows[at as usize] {
                flow.gone = true;
            }
            self.list_if_due(at);
        }
    }

    /// The last sink of a conversation has gone: its senders are told.
    pub fn nobody_is_left(&mut self, topic: Topic) {
        for index in 0..self.active.len() {
            let at = self.active[index];
            if let Some(flow) = &mut self.flows[at as usize]
                && flow.topic == topic
            {
                flow.gone = true;
                self.list_if_due(at);
            }
        }
    }

    /// A frame of a message came in.
    pub fn data(&mut self, arrived: &Arrived<'_>, outlets: &mut Outlets, port: &Port) {
        let topic = Topic { key: arrived.header.stream, channel: arrived.header.channel };
        // A flow begins with a heartbeat; before it nobody knows where.
        let Some(at) = self.find(&arrived.key, topic) else { return };
        let Some(flow) = &mut self.flows[at as usize] else { return };
        if flow.audience.recap.is_none() || !flow.recap(arrived, &self.limits, &mut self.births, outlets, port) {
            match flow.main.offer(arrived, &self.limits) {
                Arrival::Next { completes } => {
                    flow.audience.look(arrived.now, &flow.main.machine, &self.limits, arrived.route, outlets);
                    flow.audience.begin();
                    let to = Delivery { among: flow.audience.of_flow(outlets), is_past: false };
                    flow.main.take(arrived, completes, to, &self.limits, &mut self.births, outlets, port);
                }
                Arrival::Duplicate => outlets.count(arrived.domain, DatapathCounter::DroppedDuplicate, 1),
                Arrival::Inconsistent => outlets.count(arrived.domain, DatapathCounter::DroppedIncomplete, 1),
                Arrival::Skipped | Arrival::Ahead => {}
            }
        }
        if flow.is_blocked(arrived.now) && !flow.blocked {
            flow.blocked = true;
            self.blocked.push_back(at);
        }
        self.list_if_due(at);
    }

    /// A place for a frame that is coming in, if it is the next one, by the birth of its
    /// message.
    pub fn place(
        &mut self,
        now: MonoTime,
        key: FlowKey,
        (header, len): (&DataHeader, u32),
        (route, domain): (RouteIndex, DomainIndex),
        outlets: &mut Outlets,
    ) -> Option<u64> {
        let at = self.find(&key, Topic { key: header.stream, channel: header.channel })?;
        let flow = self.flows[at as usize].as_mut()?;
        if !flow.main.awaits(header, len) {
            return None;
        }
        let flow = &mut flow.main;
        flow.machine.hear(now);
        if header.fragment_offset == 0 {
            flow.free(outlets);
            let buffer = outlets.loan(route, header.message_len)?;
            self.births += 1;
            flow.buffer = Some(Assembling { domain, buffer, birth: self.births });
        }
        flow.buffer.map(|place| place.birth)
    }

    /// The memory of the message that a frame belongs to, if it is the next one.
    pub fn placed_at(&mut self, key: &FlowKey, header: &DataHeader, len: u32) -> Option<Assembling> {
        let at = self.find(key, Topic { key: header.stream, channel: header.channel })?;
        let flow = self.flows[at as usize].as_ref()?;
        flow.main.buffer.filter(|_| flow.main.awaits(header, len))
    }

    /// Whether time alone may make something due.
    pub fn is_waiting(&self) -> bool {
        !self.blocked.is_empty() || !self.due.is_empty()
    }

    /// Looks for room where there was none, and acknowledges; once a turn. How many
    /// acknowledgements went by real time.
    #[inline]
    pub fn serve<L: Link>(&mut self, now: MonoTime, links: &mut Links<L>, outlets: &mut Outlets, port: &Port) -> u32 {
        if !self.blocked.is_empty() {
            self.unblock(now, outlets, port);
        }
        if self.due.is_empty() { 0 } else { self.acknowledge(now, links, outlets) }
    }

    fn unblock(&mut self, now: MonoTime, outlets: &mut Outlets, port: &Port) {
        for _ in 0..self.blocked.len().min(PER_TURN) {
            let Some(at) = self.blocked.pop_front() else { break };
            let Some(flow) = &mut self.flows[at as usize] else { continue };
            let route = outlets.routes.find(flow.topic);
            let (of_flow, of_recap) = (flow.audience.of_flow(outlets), flow.audience.of_recap());
            flow.main.unblock(now, route, of_flow, &self.limits, outlets, port);
            if let Some(recap) = &mut flow.audience.recap {
                recap.part.unblock(now, route, of_recap, &self.limits, outlets, port);
            }
            flow.blocked = flow.is_blocked(now);
            if flow.blocked {
                self.blocked.push_back(at);
            }
            self.list_if_due(at);
        }
    }

    fn acknowledge<L: Link>(&mut self, now: MonoTime, links: &mut Links<L>, outlets: &mut Outlets) -> u32 {
        let mut by_real_time = 0;
        for _ in 0..PER_TURN {
            let Some(at) = self.due.pop_front() else { break };
            let Some(flow) = &mut self.flows[at as usize] else { continue };
            flow.due = false;
            let Topic { key, channel } = flow.topic;
            let asked = std::mem::take(&mut flow.asked);
            let lane = match flow.lane {
                lane if lane.is_real_time() => lane,
                _ if asked && self.asked_at <= now + ASKED_BURST => {
                    self.asked_at = self.asked_at.max(now) + ASKED_APART;
                    Lane::LAST_REAL_TIME
                }
                _ => Lane::CONTROL,
            };
            let head = DataHeader { lane, ..DataHeader::reliable(self.own, (key, channel), flow.key.source) }.encode();
            let ack = Ack { gone: flow.gone, ..flow.main.machine.ack(flow.key.incarnation) };
            let mut next = Some(ack);
            while let Some(ack) = next {
                let body = Body::Ack(ack).encode();
                // One that finds no room is asked for by the next heartbeat.
                let outcome = links.send((flow.peer, Way::REACH), lane, &head, SharedBytes::from(&body[..]));
                by_real_time += u32::from(lane.is_real_time());
                if ack.nak
                    && outcome == SendOutcome::Sent
                    && let Some((_, domain, _)) = outlets.listeners(flow.topic)
                {
                    outlets.count(domain, DatapathCounter::Naks, 1);
                }
                // At most one for a recap that ended, and one for the next.
                next = flow.audience.ack(ack);
            }
            if flow.gone {
                self.remove(at, outlets);
            }
        }
        links.flush();
        by_real_time
    }

    /// Gives up what stands still: senders that died in the middle of a message.
    pub fn housekeeping(&mut self, now: MonoTime, outlets: &mut Outlets) {
        for index in (0..self.active.len()).rev() {
            let at = self.active[index];
            let Some(flow) = &mut self.flows[at as usize] else { continue };
            // A sender that is alive and owes something says so more often. When the last frame was
            // taken tells nothing: the flow may have been at rest since.
            let main = &mut flow.main;
            let is_stale = now.since(main.machine.heard_at()).0 >= 2 * self.limits.evict_after.0;
            if is_stale
                && main.machine.blocked_for(now).is_none()
                && let Some(place) = main.buffer.take()
            {
                main.machine.skip();
                outlets.count(place.domain, DatapathCounter::DroppedIncomplete, 1);
                free_buffer(Some(place), outlets);
            }
            if flow.audience.recap.is_some() {
                let route = outlets.routes.find(flow.topic);
                flow.audience.expire(now, &self.limits, &main.machine, route, outlets);
            }
            if flow.closed.is_some() && flow.is_forgettable(now) {
                self.remove(at, outlets);
            }
        }
    }

    /// Forgets the flows that come from a peer which is none any more.
    pub fn remove_peer(&mut self, peer: PeerIndex, outlets: &mut Outlets) {
        for index in (0..self.active.len()).rev() {
            let at = self.active[index];
            let Some(flow) = self.flows[at as usize].as_ref().filter(|flow| flow.peer == peer) else { continue };
            if let Some(place) = &flow.main.buffer {
                outlets.count(place.domain, DatapathCounter::DroppedIncomplete, 1);
            }
            self.remove(at, outlets);
        }
    }

    /// Forgets the flows of a runtime but those of the lives that `keeps` names.
    pub fn retire(&mut self, host: HostId, keeps: impl Fn(Incarnation) -> bool, outlets: &mut Outlets) {
        for index in (0..self.active.len()).rev() {
            let at = self.active[index];
            let is_old = |flow: &Inflow| flow.key.host == host && !keeps(flow.key.incarnation);
            if self.flows[at as usize].as_ref().is_some_and(is_old) {
                self.remove(at, outlets);
            }
        }
    }
}

impl Inflow {
    /// Whether its source has closed, and it may give its place to another.
    fn has_ended(&self, now: MonoTime) -> bool {
        let Some((at, end)) = self.closed else { return false };
        let machine = &self.main.machine;
        let (next, silent) = (machine.next().sequence, now.since(machine.heard_at()).min(now.since(at)));
        let is_complete = next == end && self.audience.recap.is_none();
        next <= end && (silent >= REST_MIN || is_complete && silent >= CLOSED_REST_MIN)
    }

    /// Whether its source has closed so long ago that nothing more comes; one that went on has
    /// not closed.
    fn is_forgettable(&mut self, now: MonoTime) -> bool {
        let machine = &self.main.machine;
        self.closed = self.closed.filter(|(_, end)| machine.next().sequence <= *end);
        let silent = now.since(machine.heard_at());
        self.closed.is_some_and(|(at, _)| now.since(at).min(silent) >= CLOSED_LINGER)
    }

    fn is_blocked(&self, now: MonoTime) -> bool {
        let is_blocked = |part: &Part| part.machine.blocked_for(now).is_some();
        is_blocked(&self.main) || self.audience.recap.as_ref().is_some_and(|recap| is_blocked(&recap.part))
    }

    /// A frame of a message that the flow had: the recap takes it, if it is the next one there.
    /// False if it is none of its business.
    #[cold]
    fn recap(
        &mut self,
        arrived: &Arrived<'_>,
        limits: &Limits,
        births: &mut u64,
        outlets: &mut Outlets,
        port: &Port,
    ) -> bool {
        let among = self.audience.of_recap();
        let Some(recap) = self.audience.recap.as_mut() else { return false };
        let to = Delivery { among, is_past: recap.is_past(arrived.header.sequence) };
        let is_had = arrived.header.sequence < self.main.machine.next().sequence;
        if !is_had || matches!(arrived.payload, Payload::Placed { .. }) {
            return false;
        }
        let before = recap.part.machine.next().sequence;
        match recap.part.offer(arrived, limits) {
            Arrival::Next { completes } => recap.part.take(arrived, completes, to, limits, births, outlets, port),
            Arrival::Skipped => {}
            Arrival::Duplicate | Arrival::Ahead | Arrival::Inconsistent => return false,
        }
        let completes = recap.part.machine.next().sequence > before;
        self.audience.advanced(completes, &self.main.machine, arrived.route, outlets);
        true
    }
}

impl Part {
    pub fn new(machine: Receiver) -> Self {
        Part { machine, buffer: None, demand: Demand { len: 0, has_buffer: false } }
    }

    /// What is there of the message that is arriving is void.
    pub fn free(&mut self, outlets: &mut Outlets) {
        free_buffer(self.buffer.take(), outlets);
    }

    /// Looks whether there is room where there was none; puts out whoever has none for too long.
    fn unblock(
        &mut self,
        now: MonoTime,
        route: Option<RouteIndex>,
        among: Joined,
        limits: &Limits,
        outlets: &mut Outlets,
        port: &Port,
    ) {
        let Some(stalled) = self.machine.blocked_for(now) else { return };
        let Some(route) = route else { return self.machine.reopen() };
        if outlets.admits(port, among, route, self.demand) {
            self.machine.reopen();
        } else if stalled >= stall_max(limits) {
            outlets.evict(among, route, self.demand);
        }
    }

    fn awaits(&self, header: &DataHeader, len: u32) -> bool {
        let from = Position { sequence: header.sequence, offset: header.fragment_offset };
        self.machine.awaits(from, len, header.message_len)
    }

    fn offer(&mut self, arrived: &Arrived<'_>, limits: &Limits) -> Arrival {
        let header = arrived.header;
        let from = Position { sequence: header.sequence, offset: header.fragment_offset };
        self.machine.on_frame(arrived.now, limits, from, arrived.payload.len() as u32, header.message_len)
    }

    /// Puts the frame that comes next where it belongs, or refuses it.
    #[expect(clippy::too_many_arguments, reason = "the parts of an engine, each borrowed by itself")]
    fn take(
        &mut self,
        arrived: &Arrived<'_>,
        completes: bool,
        to: Delivery,
        limits: &Limits,
        births: &mut u64,
        outlets: &mut Outlets,
        port: &Port,
    ) {
        let Arrived { now, header, payload, route, domain, .. } = arrived;
        let is_inline = completes && header.message_len as usize <= INLINE_BYTES_MAX;
        if let Payload::Placed { birth, .. } = payload {
            if self.buffer.is_none_or(|place| place.birth != *birth) {
                // What the link filled is void; the frame will come again.
                return;
            }
        } else if header.fragment_offset == 0 {
            // Of an earlier try, which may have claimed another length.
            free_buffer(self.buffer.take(), outlets);
        }
        if !is_inline && self.buffer.is_none() {
            if outlets.domains[domain.index()].heap.geometry().size_max() < header.message_len {
                outlets.count(*domain, DatapathCounter::DroppedTooLarge, 1);
                self.machine.skip();
                let _ = self.offer(arrived, limits);
                return;
            }
            let Some(buffer) = outlets.loan(*route, header.message_len) else {
                self.demand = Demand { len: header.message_len, has_buffer: false };
                return self.machine.refused(*now);
            };
            *births += 1;
            self.buffer = Some(Assembling { domain: *domain, buffer, birth: *births });
        }
        // Not before the last frame: it is the one that makes a sink's room needed.
        self.demand = Demand { len: header.message_len, has_buffer: true };
        if completes && !outlets.admits(port, to.among, *route, self.demand) {
            return self.machine.refused(*now);
        }
        if let (Some(place), Payload::Bytes(payload)) = (self.buffer, payload) {
            let from = header.fragment_offset as usize;
            let memory = outlets.domains[place.domain.index()].heap.bytes_mut(place.buffer);
            memory[from..from + payload.len()].copy_from_slice(payload);
        }
        if completes {
            let lost = self.machine.lost();
            if lost > 0 {
                outlets.count(*domain, DatapathCounter::Lost, lost);
            }
            let lost = u16::try_from(lost).unwrap_or(u16::MAX);
            let instant = header.source_instant;
            let source_ns = if to.is_past { Stamp::of_past(instant) } else { instant };
            let meta = Meta { sequence: header.sequence, source_ns, lost };
            let content = match (self.buffer.take(), payload) {
                (Some(place), _) => Some(Content::Received(place.buffer, header.message_len)),
                (None, Payload::Bytes(payload)) => Some(Content::Private(payload)),
                (None, Payload::Placed { .. }) => None,
            };
            debug_assert!(content.is_some(), "what is placed has a buffer");
            match content {
                Some(content) if to.among == Joined::ALL => outlets.deliver(port, *route, meta, content),
                Some(content) => outlets.deliver_among(to.among, port, *route, meta, content),
                None => {}
            }
        }
        self.machine.stored(*now, payload.len() as u32);
    }
}

fn free_buffer(place: Option<Assembling>, outlets: &mut Outlets) {
    if let Some(place) = place {
        outlets.domains[place.domain.index()].heap.release(place.buffer);
    }
}
