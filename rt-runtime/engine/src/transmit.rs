//! From the sources' rings through the lanes to the links.

mod clients;
mod evidence;
mod fences;
mod overlay;
mod paces;
mod quiet;
mod source;
mod timed;

use crate::command::{Command, Dead, NewSource, Port};
use crate::deliver::Outlets;
use crate::links::Links;
use crate::newcomers::{Newcomers, PeerSet};
use crate::outflow::{Outflow, Progress};
use crate::routes::{Hops, RouteIndex, Way};
use crate::trace::Tracer;
use crate::turn::Turn;
use crate::watch::{RESTS_PER_TURN, WatchList};
use crate::{GRANTS_PER_TURN, RELIABLE_PER_TURN, SOURCES_MAX};
use clients::Clients;
use fences::Fences;
use insane_core::counters::DatapathCounter;
use insane_core::time::Clock;
use insane_core::{ConnId, HostId, Incarnation, Lane, MonoTime, Nanos, PeerIndex, SessionId, SourceId};
use insane_link::Link;
use insane_overlay::reliable::{self, Ack, Attention};
use insane_scheduler::{Decision, FlowIndex, Limits, Scheduler};
use insane_shm::ring::Popped;
use insane_wire::data::{DataHeader, Flags, HEADER_BYTES, Kind, Leg};
use insane_wire::flow_head::FlowHead;
use insane_wire::reliable::BODY_BYTES;
use overlay::HeldBack;
pub(crate) use overlay::Said;
pub(crate) use source::deliver_past;
use source::{Grant, SourceEntry, abandon, condemn, send_reliable, send_some};
use timed::Slots;
pub(crate) use timed::slots_of;
pub use timed::{LaneArrivals, SLOTS_WRITTEN_MAX, SlotConfig, SlotLinks, SlotTable, StageSlots, TIMED_MAX, timed_flow};

/// The sources of this datapath and their lanes.
pub(crate) struct Transmitter {
    host: HostId,
    incarnation: Incarnation,
    sources: Vec<Option<SourceEntry>>,
    /// Places of all sources.
    watch: WatchList,
    free: Vec<u16>,
    scheduler: Box<Scheduler<SOURCES_MAX>>,
    /// Sources the scheduler knows to have something.
    ready: usize,
    /// Places of the reliable sources.
    reliable: Vec<u16>,
    /// Where the next turn looks first.
    reliable_at: usize,
    /// How long the thread was not run, for which no peer of theirs is blamed.
    attention: Attention,
    /// For reliable sources to come.
    outflows: Vec<Box<Outflow>>,
    /// Reliable sources so far: their tokens rise.
    generation: u64,
    /// Sources that were let go and are not finished.
    closing: usize,
    /// Places of the unreliable ones among them.
    leaving: Vec<u16>,
    /// Places of the sources that keep values for peers that join.
    keepers: Vec<u16>,
    /// How long an unreliable one may take, of the time in which the thread was run.
    close_after: Nanos,
    /// Sessions as clients of the scheduler.
    clients: Clients,
    /// How often their budgets, and those of links, were used up, at the last look.
    used_up: u64,
    /// Links that are paced, a bit each.
    paces: u8,
    /// All that is ready waits for its budget until then.
    held_until: Option<MonoTime>,
    /// Of streams that move from one link to another.
    fences: Fences,
    /// Where the rate of the links is known: slots may be had.
    slots: Option<Box<Slots>>,
    /// What the control plane says, where it waits for room between slots; nothing without slots.
    held_back: Option<HeldBack>,
    /// Bytes of a best-effort chunk: those of the scheduler's limits.
    chunk_bytes: u32,
    /// Of the turn, too: both write one record.
    pub trace: Tracer,
}

impl Transmitter {
    pub fn new(
        (host, incarnation): (HostId, Incarnation),
        limits: Limits,
        reliable: reliable::Limits,
        reliable_sources: usize,
        slots: Option<Box<Slots>>,
    ) -> Self {
        let places = if slots.is_some() { timed::FIRST_TIMED } else { SOURCES_MAX };
        Transmitter {
            host,
            incarnation,
            sources: (0..SOURCES_MAX).map(|_| None).collect(),
            watch: WatchList::new(SOURCES_MAX),
            free: (0..places as u16).rev().collect(),
            scheduler: Box::new(Scheduler::new(limits)),
            ready: 0,
            reliable: Vec::with_capacity(reliable_sources),
            reliable_at: 0,
            attention: Attention::new(&reliable),
            outflows: (0..reliable_sources).map(|_| Outflow::boxed(reliable)).collect(),
            generation: 0,
            closing: 0,
            leaving: Vec::with_capacity(SOURCES_MAX),
            keepers: Vec::with_capacity(SOURCES_MAX),
            close_after: reliable.evict_after,
            clients: Clients::new(),
            used_up: 0,
            paces: 0,
            held_until: None,
            fences: Fences::new(),
            chunk_bytes: limits.chunk_bytes.get(),
            trace: Tracer::new(slots.as_ref().map(|slots| slots.turn())),
            held_back: slots.as_ref().map(|_| HeldBack::new()),
            slots,
        }
    }

    /// The lanes: below the slots, where there are any.
    fn lanes(&mut self) -> &mut Scheduler<SOURCES_MAX> {
        match &mut self.slots {
            Some(slots) if slots.is_active() => slots.lanes(),
            _ => &mut self.scheduler,
        }
    }

    /// Takes a source in; it comes back if there is no place. `peers` are those of its route:
    /// what it keeps of the past is new to them. `may_rest`: it need not be looked at in every
    /// turn, since it can ring or nobody sleeps here.
    #[expect(clippy::result_large_err, reason = "the refused item is handed back by value: the datapath frees nothing")]
    pub fn add(
        &mut self,
        source: NewSource,
        route: RouteIndex,
        (peers, local): (&[PeerIndex], bool),
        may_rest: bool,
    ) -> Result<(), NewSource> {
        if source.reliable && self.outflows.is_empty() {
            return Err(source);
        }
        let Some(place) = self.take_place(source.slots) else { return Err(source) };
        let limits = self.scheduler.limits();
        let quantum = limits.chunk_bytes.get().max(limits.frame_bytes_max.get());
        if self.lanes().add(FlowIndex(place), source.lane, quantum).is_err() {
            self.free_place(place);
            return Err(source);
        }
        if !self.assign(FlowIndex(place), source.session, source.budget) {
            self.lanes().remove(FlowIndex(place));
            self.free_place(place);
            return Err(source);
        }
        let NewSource { mut conn, source, topic, domain, session, lane, reliable, slots, keeps, budget } = source;
        let has_slots = slots.is_some();
        let head = FlowHead::new(&DataHeader {
            kind: Kind::Data,
            lane,
            flags: Flags::NONE,
            stream: topic.key,
            host: self.host,
            incarnation: self.incarnation,
            sequence: 0,
            source_instant: 0,
            channel: topic.channel,
            source,
            message_len: 0,
            fragment_offset: 0,
        });
        let mut reliable = if reliable { self.outflows.pop() } else { None };
        if let Some(outflow) = &mut reliable {
            self.generation += 1;
            outflow.reset(self.generation << u16::BITS | u64::from(place));
            self.reliable.push(place);
        }
        let mut newcomers = keeps.then(Newcomers::default);
        if let Some(newcomers) = &mut newcomers {
            self.keepers.push(place);
            peers.iter().for_each(|peer| newcomers.join(*peer, false, 0, || conn.ask_for_past()));
            if local {
                newcomers.join_here(|| conn.ask_for_past());
            }
        }
        let mut met = PeerSet::NONE;
        peers.iter().for_each(|peer| met.add(*peer));
        self.sources[place as usize] = Some(SourceEntry {
            conn,
            source,
            route,
            domain,
            lane,
            head,
            popped: Popped::EMPTY,
            copying: None,
            underway: None,
            newest: 0,
            newcomers,
            skip: PeerSet::NONE,
            each_alone: has_slots,
            by: Way::by(slots.and_then(|number| self.slots.as_ref()?.link_of(number))),
            met,
            reliable,
            leaving: None,
            ready: false,
            session,
            has_budget: budget.is_some(),
            is_paced: false,
            must_ask: budget.is_some(),
            is_stuck: false,
            may_rest,
            idle_looks: 0,
            dead: false,
        });
        self.watch.add(session, place);
        Ok(())
    }

    /// A source goes on in another lane of its group; it may have gone meanwhile.
    #[cold]
    pub fn set_lane(&mut self, conn: ConnId, lane: Lane) {
        let Some(place) = self.watch.all().iter().copied().find(|place| {
            let entry = self.sources[*place as usize].as_ref();
            entry.is_some_and(|entry| entry.conn.id() == conn && entry.lane.is_real_time() == lane.is_real_time())
        }) else {
            return;
        };
        if let Some(entry) = &mut self.sources[place as usize] {
            entry.lane = lane;
            entry.head.set_lane(lane);
        }
        self.lanes().set_lane(FlowIndex(place), lane);
    }

    /// A sink of the route joined at a peer: its sources are asked for what they keep.
    /// `is_new`: the peer is not on the route so far.
    #[cold]
    pub fn welcome(&mut self, route: RouteIndex, peer: PeerIndex, is_new: bool) {
        for place in &self.keepers {
            if let Some(SourceEntry { conn, newcomers: Some(newcomers), route: of, dead: false, .. }) =
                &mut self.sources[*place as usize]
                && *of == route
            {
                newcomers.join(peer, is_new, conn.waiting(), || conn.ask_for_past());
            }
        }
    }

    /// A sink of the route joined at this host, which gets local messages from here.
    #[cold]
    pub fn welcome_here(&mut self, route: RouteIndex) {
        for place in &self.keepers {
            if let Some(SourceEntry { conn, newcomers: Some(newcomers), route: of, dead: false, .. }) =
                &mut self.sources[*place as usize]
                && *of == route
            {
                newcomers.join_here(|| conn.ask_for_past());
            }
        }
    }

    /// Lets a source go later if it has something left: the command comes back with
    /// [`closed`](Self::closed). Else it comes back at once, and whether the source is to
    /// be removed now.
    pub fn close(&mut self, now: MonoTime, conn: ConnId, command: Box<Command>) -> Option<(Box<Command>, bool)> {
        let missed = self.attention.turn(now);
        for (at, place) in self.watch.all().iter().copied().enumerate() {
            let Some(entry) = &mut self.sources[place as usize] else { continue };
            if entry.conn.id() != conn || entry.dead || entry.reliable.is_some() {
                continue;
            }
            if entry.leaving.is_some() {
                return Some((command, false));
            }
            if !entry.is_unfinished() {
                return Some((command, true));
            }
            // By a clock that stands still while the thread is not run.
            entry.leaving = Some((command, MonoTime(now.0 - missed.0) + self.close_after));
            self.leaving.push(place);
            self.closing += 1;
            // Its doorbell may go before it does: from now on a turn looks at it.
            entry.conn.heed();
            self.watch.watch(at);
            return None;
        }
        for place in &self.reliable {
            let Some(entry) = &mut self.sources[*place as usize] else { continue };
            if entry.conn.id() == conn
                && !entry.dead
                && let Some(outflow) = &mut entry.reliable
            {
                let was_closing = outflow.is_closing();
                let Some(command) = outflow.close((now, missed), command, &entry.conn) else {
                    self.closing += 1;
                    return None;
                };
                return Some((command, !was_closing));
            }
        }
        Some((command, true))
    }

    /// Whether a source was let go and is not finished.
    pub const fn is_closing(&self) -> bool {
        self.closing > 0
    }

    /// A source that was let go and is finished now, with its command.
    pub fn closed(&mut self, now: MonoTime) -> Option<(ConnId, Box<Command>)> {
        let missed = self.attention.turn(now);
        let seen = MonoTime(now.0 - missed.0);
        let sources = &mut self.sources;
        let left = self.leaving.iter().find_map(|place| {
            let entry = sources[*place as usize].as_mut()?;
            let (_, until) = entry.leaving.as_ref()?;
            if *until > seen && !entry.dead && entry.is_unfinished() {
                return None;
            }
            entry.leaving.take().map(|(command, _)| (entry.conn.id(), command))
        });
        let closed = left.or_else(|| {
            self.reliable.iter().find_map(|place| {
                let entry = sources[*place as usize].as_mut()?;
                let now = if entry.dead { MonoTime(u64::MAX) } else { now };
                let command = entry.reliable.as_mut()?.closed((now, missed), &entry.conn)?;
                Some((entry.conn.id(), command))
            })
        })?;
        self.closing -= 1;
        Some(closed)
    }

    /// A source is about to be let go: whoever may remember its flow is told.
    #[cold]
    pub fn tell_closing<L: Link>(&mut self, now: MonoTime, conn: ConnId, links: &Links<L>, outlets: &Outlets) {
        let entries = self.watch.all().iter().filter_map(|place| self.sources[usize::from(*place)].as_ref());
        let Some(entry) = entries.into_iter().find(|entry| entry.conn.id() == conn) else { return };
        let Some(route) = outlets.routes.get(entry.route) else { return };
        let Some(head) = entry.closing((self.host, self.incarnation), route.topic) else { return };
        for peer in entry.met.iter() {
            if let Some(link) = links.place_of(peer, entry.way(route, peer)) {
                self.fences.push_closing(now, (peer, link), entry.lane, head);
            }
        }
    }

    /// Lets a source go; what is left of its messages is lost with it, and counted.
    pub fn remove(&mut self, conn: ConnId, outlets: &mut Outlets) -> Option<(Dead, RouteIndex)> {
        let is_it = |place: &u16| self.sources[*place as usize].as_ref().is_some_and(|source| source.conn.id() == conn);
        let place = self.watch.all().iter().copied().find(is_it)?;
        let mut entry = self.sources[place as usize].take()?;
        self.watch.remove(entry.session, place);
        if entry.ready {
            self.ready -= 1;
        }
        self.forget_flow(FlowIndex(place));
        self.free_place(place);
        self.leaving.retain(|other| *other != place);
        self.keepers.retain(|other| *other != place);
        outlets.count(entry.domain, DatapathCounter::DroppedSourceClosed, entry.left());
        abandon(&mut entry, outlets);
        if let Some(mut outflow) = entry.reliable.take() {
            outflow.clear(&mut entry.conn, outlets);
            self.outflows.push(outflow);
            self.reliable.retain(|other| *other != place);
        }
        entry.conn.flush();
        Some((Dead::Source(entry.conn), entry.route))
    }

    /// Messages that were taken so far from the sources that a session has here now.
    #[cold]
    pub fn taken_from(&self, session: SessionId) -> u64 {
        let entries = self.watch.all().iter().filter_map(|place| self.sources[usize::from(*place)].as_ref());
        entries.filter(|entry| entry.session == session).map(|entry| entry.conn.taken()).sum()
    }

    /// Sources that it watches.
    pub fn sources(&self) -> usize {
        self.watch.all().len()
    }

    /// The route of the source at this place among those.
    pub fn route_of(&self, at: usize) -> Option<RouteIndex> {
        self.sources[usize::from(*self.watch.all().get(at)?)].as_ref().map(|entry| entry.route)
    }

    /// The sources of a route go on by other links: those of reliable streams just so, since
    /// they repair what is overtaken, all others on another leg.
    #[cold]
    pub fn move_sources(&mut self, now: MonoTime, route: RouteIndex, before: &Hops, after: &Hops) {
        for at in 0..self.sources() {
            if self.route_of(at) == Some(route) {
                self.move_source(now, at, before, after);
            }
        }
    }

    /// As [`move_sources`](Self::move_sources), the one at this place among those that it
    /// watches. Peers behind a fence are told; one that is new has nothing to wait for.
    #[cold]
    pub fn move_source(&mut self, now: MonoTime, at: usize, before: &Hops, after: &Hops) {
        let Some(place) = self.watch.all().get(at) else { return };
        let Some(entry) = &mut self.sources[usize::from(*place)] else { return };
        after.iter().for_each(|(peer, _)| entry.met.add(*peer));
        if entry.reliable.is_some() {
            return;
        }
        // The link of its slots changes with a table, and with nothing else.
        let own = entry.by.link();
        let by = |link: Option<u8>| own.or(link);
        let old = |peer: PeerIndex| before.iter().find(|(other, _)| *other == peer).map(|(_, link)| by(*link));
        let moves = after.iter().any(|(peer, link)| old(*peer).is_some_and(|old| old != by(*link)));
        let after: Hops = after.iter().map(|(peer, link)| (*peer, by(*link))).collect();
        if moves {
            entry.go_on(entry.head.leg().next());
        }
        let leg = entry.head.leg();
        for (peer, link) in &after {
            let (link, last) = match old(*peer) {
                Some(old) if moves => (old, entry.last_whole()),
                None if leg != Leg::FIRST => (*link, 0),
                _ => continue,
            };
            if let Some(link) = link {
                self.fences.push(now, (*peer, link), entry.lane, entry.fence(leg.before(), last));
            }
        }
    }

    /// From now on a source goes by this link to all its peers, which are reached by these
    /// otherwise.
    #[cold]
    fn go_by(&mut self, now: MonoTime, place: u16, by: Way, hops: &Hops) {
        let Some(entry) = &mut self.sources[usize::from(place)] else { return };
        let old = std::mem::replace(&mut entry.by, by);
        let link = |way: Way, usual: Option<u8>| way.link().or(usual);
        if hops.iter().all(|(_, usual)| link(old, *usual) == link(by, *usual)) {
            return;
        }
        entry.go_on(entry.head.leg().next());
        let (leg, last) = (entry.head.leg().before(), entry.last_whole());
        for (peer, usual) in hops {
            if let Some(link) = link(old, *usual) {
                self.fences.push(now, (*peer, link), entry.lane, entry.fence(leg, last));
            }
        }
    }

    /// Whether a reliable source waits for peers or sinks, or a fence is to be sent.
    pub fn is_waiting(&self) -> bool {
        !self.fences.is_empty()
            || self.reliable.iter().any(|place| {
                self.sources[*place as usize]
                    .as_ref()
                    .and_then(|source| source.reliable.as_ref())
                    .is_some_and(|outflow| outflow.is_waiting())
            })
    }

    /// An acknowledgement came in; false if it cannot be one.
    pub fn on_ack(&mut self, now: MonoTime, from: PeerIndex, source: SourceId, ack: &Ack) -> bool {
        let place = (ack.token & u64::from(u16::MAX)) as usize;
        let Some(Some(entry)) = self.sources.get_mut(place) else { return true };
        let Some(outflow) = &mut entry.reliable else { return true };
        // One for a source that was there before is late, not false.
        if outflow.token() != ack.token || entry.source != source || ack.life != self.incarnation {
            return true;
        }
        outflow.on_ack(now, from, ack, &mut entry.conn)
    }

    /// A peer has another life: it joins every reliable flow anew.
    pub fn forget_peer(&mut self, peer: PeerIndex) {
        for place in &self.reliable {
            if let Some(outflow) = self.sources[*place as usize].as_mut().and_then(|entry| entry.reliable.as_mut()) {
                outflow.forget(peer);
            }
        }
    }

    /// A peer is none any more: what reliable sources hold for it is counted and lost.
    pub fn remove_peer(&mut self, peer: PeerIndex, outlets: &Outlets) {
        self.sources.iter_mut().flatten().for_each(|entry| entry.met.remove(peer));
        if let Some(held_back) = &mut self.held_back {
            held_back.forget(peer);
        }
        for place in &self.reliable {
            let Some(entry) = self.sources[*place as usize].as_mut() else { continue };
            let Some(outflow) = entry.reliable.as_mut() else { continue };
            outlets.count(entry.domain, DatapathCounter::DroppedPeerRemoved, outflow.owed_to(peer));
            outflow.forget(peer);
        }
    }

    /// Heartbeats and evictions of reliable sources; at most [`RELIABLE_PER_TURN`].
    #[inline(never)]
    fn serve_reliable<L: Link>(&mut self, now: MonoTime, links: &mut Links<L>, outlets: &mut Outlets, port: &Port) {
        let missed = self.attention.turn(now);
        let mut said = 0;
        for _ in 0..self.reliable.len().min(RELIABLE_PER_TURN) {
            self.reliable_at = (self.reliable_at + 1) % self.reliable.len();
            let Some(entry) = &mut self.sources[self.reliable[self.reliable_at] as usize] else { continue };
            let id = entry.identity((self.host, self.incarnation));
            if let (Some(outflow), false) = (&mut entry.reliable, entry.dead) {
                said +=
                    outflow.serve((now, missed), &id, (&mut entry.conn, &mut entry.newcomers), links, outlets, port);
            }
        }
        self.note_reports(|| now, said);
    }

    /// Sends a frame of the control plane: at once, or where there are slots, between them.
    #[cold]
    pub fn say<L: Link>(&mut self, now: MonoTime, said: Said, links: &mut Links<L>) {
        let has_slots = self.slots.as_ref().is_some_and(|slots| slots.is_active());
        match &mut self.held_back {
            Some(held_back) if has_slots => held_back.push(now, said),
            _ => {
                let _ = said.send((self.host, self.incarnation), links);
            }
        }
    }

    /// So many reports on reliable flows were handed to links by real time: slots hear of them.
    #[inline]
    pub fn note_reports(&mut self, now: impl FnOnce() -> MonoTime, count: u32) {
        if count > 0 && self.slots.is_some() {
            let frames = count as usize;
            self.note_frames(now(), Lane::LAST_REAL_TIME, (frames, frames * (HEADER_BYTES + BODY_BYTES)));
        }
    }

    /// Whether a turn has more to do here than to look at sources and to poll the lanes: a reliable
    /// source, a fence, slots, a source that is let go, a trace. Commands alone change it to
    /// true.
    pub fn is_more_than_lanes(&self) -> bool {
        !self.reliable.is_empty()
            || !self.fences.is_empty()
            || self.slots.is_some()
            || self.is_closing()
            || self.trace.is_on()
    }

    /// One turn's worth: at most [`GRANTS_PER_TURN`] grants. Returns how many of them moved
    /// something: a source whose link has no room is no work. `PLAIN`: [not more](Self::is_more_than_lanes) than that.
    #[inline(always)]
    pub fn run<const PLAIN: bool, L: Link, C: Clock>(
        &mut self,
        turn: &Turn<'_, C>,
        links: &mut Links<L>,
        outlets: &mut Outlets,
        port: &Port,
    ) -> u32 {
        if !PLAIN {
            if !self.reliable.is_empty() {
                self.serve_reliable(turn.now(), links, outlets, port);
            }
            if !self.fences.is_empty() {
                self.send_fences(turn.now(), links);
            }
            self.held_until = None;
            if self.slots.as_ref().is_some_and(|slots| slots.is_active()) {
                return self.run_timed(turn, links, outlets, port);
            }
            // The slots may have gone meanwhile.
            while let Some(said) = self.held_back.as_mut().and_then(HeldBack::take) {
                let _ = said.send((self.host, self.incarnation), links);
            }
        }
        if let Some(lone) = self.look(turn, links.payload_bytes_max()) {
            // Nobody else waits, so there is nothing to decide: the one that has something
            // goes, for one chunk. What is left takes its turn with the others.
            let mut moved = 1;
            if let Some(progress) = self.send_from(turn, lone.0, (self.chunk_bytes, true), links, outlets, port) {
                self.watch.moved(progress.bytes);
                if progress.blocked {
                    moved = u32::from(!progress.is_stuck());
                } else if progress.more {
                    self.enlist(turn, lone);
                }
            }
            links.flush();
            return moved;
        }
        if self.ready == 0 { 0 } else { self.run_lanes(turn, self.chunk_bytes, links, outlets, port) }
    }

    /// Those of moves; those of closed sources go among the slots, if there are any.
    #[cold]
    fn send_fences<L: Link>(&mut self, now: MonoTime, links: &mut Links<L>) {
        for _ in 0..self.fences.send_moves(now, links) {
            self.note_frame(now, Lane::CONTROL, HEADER_BYTES);
        }
        if self.slots.as_ref().is_none_or(|slots| !slots.is_active()) {
            self.fences.send_closings(now, links, |_| true);
        }
    }

    /// What the lanes let go of several sources, or of one with a budget; `best_effort`: bytes of
    /// a chunk. Apart from [`run`](Self::run), so that the code of the plain case lies together.
    #[inline(never)]
    fn run_lanes<L: Link, C: Clock>(
        &mut self,
        turn: &Turn<'_, C>,
        mut best_effort: u32,
        links: &mut Links<L>,
        outlets: &mut Outlets,
        port: &Port,
    ) -> u32 {
        // Only token buckets look at the time, and a late one errs on the safe side.
        let about_now = turn.about_now();
        self.held_until = None;
        let mut moved = 0;
        for _ in 0..GRANTS_PER_TURN {
            let (flow, budget_bytes) = match self.scheduler.poll(about_now) {
                Decision::Send { flow, budget_bytes } => (flow, budget_bytes),
                Decision::Wait(until) => {
                    self.held_until = Some(until);
                    break;
                }
                Decision::Idle => break,
            };
            let Some(lane) = self.sources[flow.0 as usize].as_ref().map(|entry| entry.lane) else {
                self.scheduler.remove(flow);
                continue;
            };
            let budget = if lane.is_real_time() { budget_bytes } else { budget_bytes.min(best_effort) };
            let Some(progress) = self.send_from(turn, flow.0, (budget, false), links, outlets, port) else { continue };
            moved += u32::from(!progress.is_stuck());
            // Busy links: idle until the next turn looks again, so that lanes below this one,
            // on other sockets, get their chance.
            let more = progress.goes_on();
            self.watch.moved(progress.bytes);
            self.scheduler.sent(flow, progress.bytes, more);
            self.count_budget(flow, outlets);
            if !more && let Some(entry) = &mut self.sources[flow.0 as usize] {
                entry.ready = false;
                self.ready -= 1;
            }
            if !lane.is_real_time() {
                // One chunk of best effort a turn, whoever's: the next turn looks for
                // real-time messages first.
                best_effort = best_effort.saturating_sub(progress.bytes);
                if best_effort == 0 {
                    break;
                }
            }
        }
        links.flush();
        moved
    }

    /// Asks sources whether they have something, and tells the scheduler; unless it is one
    /// alone, which is returned instead.
    #[inline(always)]
    fn look<C: Clock>(&mut self, turn: &Turn<'_, C>, payload_max: u32) -> Option<FlowIndex> {
        let mut lone = None;
        let (mut at, mut rests, mut has_new) = (0, RESTS_PER_TURN, false);
        while let Some(place) = self.watch.watched(at) {
            at += 1;
            let Some(source) = &mut self.sources[place as usize] else { continue };
            if source.ready || source.dead {
                continue;
            }
            if source.has_something(payload_max) {
                source.idle_looks = 0;
                // One that waits for room at its link is found in every turn.
                has_new |= !source.is_stuck;
                let must_ask = source.must_ask;
                self.found(turn, place, must_ask, &mut lone);
            } else if self.watch.may_rest() && source.is_idle_again() && rests > 0 {
                rests -= 1;
                if source.be_quiet() {
                    // The last of the watched comes here, and is looked at next.
                    at -= 1;
                    self.watch.rest(at);
                }
            }
        }
        let looks = self.watch.quiet_looks(self.ready > 0 || lone.is_some(), has_new);
        if looks > 0 {
            self.look_at_quiet(turn, looks, payload_max, &mut lone);
        }
        if self.ready > 0
            && let Some(last) = lone.take()
        {
            self.enlist(turn, last);
        }
        lone
    }

    /// A source has something: the first one is put by, any other makes both known to the
    /// scheduler.
    #[inline]
    fn found<C: Clock>(&mut self, turn: &Turn<'_, C>, place: u16, must_ask: bool, lone: &mut Option<FlowIndex>) {
        if must_ask {
            // Even alone it goes only as far as its session's budget, or its link's, does.
            return self.enlist(turn, FlowIndex(place));
        }
        if let Some(other) = lone.replace(FlowIndex(place)) {
            self.enlist(turn, other);
        }
    }

    /// From now on the scheduler knows that the source has something. Slots, and contracts of
    /// lanes, ask when it came.
    #[inline(never)]
    fn enlist<C: Clock>(&mut self, turn: &Turn<'_, C>, flow: FlowIndex) {
        if let Some(source) = &mut self.sources[flow.0 as usize] {
            source.ready = true;
            self.ready += 1;
            match &mut self.slots {
                Some(slots) if slots.is_active() => {
                    slots.ready(flow, turn.now(), source.next_stamp());
                }
                _ => self.scheduler.ready(flow),
            }
        }
    }

    /// Lets a source send for about `budget` bytes; `alone`: no other has anything. `None`:
    /// there is no such source.
    #[inline(always)]
    fn send_from<L: Link, C: Clock>(
        &mut self,
        turn: &Turn<'_, C>,
        place: u16,
        (budget, alone): (u32, bool),
        links: &mut Links<L>,
        outlets: &mut Outlets,
        port: &Port,
    ) -> Option<Progress> {
        let entry = self.sources[place as usize].as_mut()?;
        let result = if entry.reliable.is_none() {
            send_some(entry, Grant { bytes: budget, overhead: 0, alone }, links, outlets, port)
        } else {
            send_reliable(turn.now(), entry, (self.host, self.incarnation), budget, links, outlets, port)
        };
        let progress = result.unwrap_or_else(|violation| condemn(entry, violation, outlets, port));
        if progress.blocked || entry.is_stuck {
            entry.is_stuck = progress.is_stuck();
        }
        Some(progress)
    }
}
