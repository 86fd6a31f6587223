//! From the sources' rings through the lanes to the links.

mod timed;

use crate::command::{Command, Dead, NewSource, Notice, Port};
use crate::deliver::{Content, Copying, Outlets, is_piecemeal};
use crate::engine::Links;
use crate::newcomers::{Kept, Newcomers, PeerSet};
use crate::outflow::{Identity, Outflow, Progress};
use crate::routes::RouteIndex;
use crate::turn::Turn;
use crate::watch::{QUIET_AFTER, WatchList};
use crate::{GRANTS_PER_TURN, RELIABLE_PER_TURN, SOURCES_MAX};
use insane_core::counters::DatapathCounter;
use insane_core::time::Clock;
use insane_core::{ConnId, DomainIndex, HostId, Incarnation, Lane, MonoTime, Nanos, PeerIndex, SourceId};
use insane_link::{Link, SendOutcome};
use insane_overlay::reliable::{self, Ack};
use insane_scheduler::{Decision, FlowIndex, Limits, Scheduler};
use insane_shm::Violation;
use insane_shm::conn::RxConn;
use insane_shm::ring::{Payload, Popped};
use insane_sys::SharedBytes;
use insane_wire::data::{DataHeader, Flags, Fragment, FragmentPlan, HEADER_BYTES, Kind};
use insane_wire::flow_head::FlowHead;
use timed::Slots;
pub(crate) use timed::slots_of;
pub use timed::{SLOTS_WRITTEN_MAX, SlotConfig, SlotTable, StageSlots, TIMED_MAX, timed_flow};

/// Bytes that a message without a frame is charged: what its way through costs.
const LOCAL_CHARGE: u32 = 64;

/// A message of which not every fragment went to every peer.
#[derive(Debug)]
struct Underway {
    plan: FragmentPlan,
    fragment: Fragment,
    /// The last peer of the route that has this fragment: those with smaller numbers have it,
    /// too. Not a count: the route may change meanwhile.
    reached: Option<PeerIndex>,
    /// The fragment's header.
    head: [u8; HEADER_BYTES],
}

struct SourceEntry {
    conn: RxConn,
    source: SourceId,
    route: RouteIndex,
    domain: DomainIndex,
    lane: Lane,
    head: FlowHead,
    popped: Popped,
    /// A large message on its way to local sinks; its fragments follow when it is there.
    copying: Option<Copying>,
    underway: Option<Underway>,
    /// Peers that are to get what the source keeps of the past, if it keeps any.
    newcomers: Option<Newcomers>,
    /// Peers that do not get the message that was popped last.
    skip: PeerSet,
    /// What a reliable source has under way; it uses neither `popped` nor `underway`.
    reliable: Option<Box<Outflow>>,
    /// An unreliable source that was let go and has something left: the command to be
    /// answered, and when at the latest.
    leaving: Option<(Box<Command>, MonoTime)>,
    /// The scheduler knows that it has something.
    ready: bool,
    /// Looks since it had something, while it is not quiet.
    idle_looks: u32,
    /// Its client lied; it is silent until the control plane removes it.
    dead: bool,
}

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
    /// How long an unreliable one may take.
    close_after: Nanos,
    /// Where the rate of the links is known: slots may be had.
    slots: Option<Box<Slots>>,
}

impl SourceEntry {
    const fn identity(&self, (host, incarnation): (HostId, Incarnation)) -> Identity {
        let SourceEntry { source, lane, domain, route, .. } = *self;
        Identity { host, incarnation, source, lane, domain, route }
    }

    /// Whether it has something for a link or a sink.
    #[inline]
    fn has_something(&mut self, payload_max: u32) -> bool {
        match &mut self.reliable {
            None => self.is_midway() || self.conn.is_ready(),
            Some(outflow) => outflow.can_go(&self.conn, payload_max),
        }
    }
}

impl SourceEntry {
    /// Counts a look that found nothing; whether it is quiet now. Others depend on a source
    /// that is real-time or reliable, which is always watched.
    #[inline]
    fn is_idle_again(&mut self) -> bool {
        self.idle_looks += 1;
        self.idle_looks >= QUIET_AFTER && !self.lane.is_real_time() && self.reliable.is_none()
    }

    /// Whether an unreliable source has messages that did not go yet.
    fn is_unfinished(&self) -> bool {
        self.is_midway() || self.conn.is_ready()
    }

    /// Whether a message was taken from the ring and is not done with.
    const fn is_midway(&self) -> bool {
        self.copying.is_some() || self.underway.is_some()
    }

    /// Messages that are lost if it is let go now. A liar's are not worth counting.
    fn left(&self) -> u64 {
        if self.dead {
            return 0;
        }
        let underway = self.reliable.as_ref().map_or(u64::from(self.is_midway()), |r| r.unacknowledged());
        underway + self.conn.waiting()
    }
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
            outflows: (0..reliable_sources).map(|_| Outflow::boxed(reliable)).collect(),
            generation: 0,
            closing: 0,
            leaving: Vec::with_capacity(SOURCES_MAX),
            keepers: Vec::with_capacity(SOURCES_MAX),
            close_after: reliable.evict_after,
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
    /// what it keeps of the past is new to them.
    #[expect(clippy::result_large_err, reason = "the refused item is handed back by value: the datapath frees nothing")]
    pub fn add(&mut self, source: NewSource, route: RouteIndex, peers: &[PeerIndex]) -> Result<(), NewSource> {
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
        let NewSource { mut conn, source, topic, domain, lane, reliable, slots: _, keeps } = source;
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
        // A reliable flow takes its messages in the order of their numbers.
        let mut newcomers = (keeps && reliable.is_none()).then(Newcomers::default);
        if let Some(newcomers) = &mut newcomers {
            self.keepers.push(place);
            peers.iter().for_each(|peer| newcomers.join(*peer, false, 0, || conn.ask_for_past()));
        }
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
            newcomers,
            skip: PeerSet::NONE,
            reliable,
            leaving: None,
            ready: false,
            idle_looks: 0,
            dead: false,
        });
        self.watch.add(place);
        Ok(())
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

    /// Lets a source go later if it has something left: the command comes back with
    /// [`closed`](Self::closed). Else it comes back at once, and whether the source is to
    /// be removed now.
    pub fn close(&mut self, now: MonoTime, conn: ConnId, command: Box<Command>) -> Option<(Box<Command>, bool)> {
        for place in self.watch.all() {
            let Some(entry) = &mut self.sources[*place as usize] else { continue };
            if entry.conn.id() != conn || entry.dead || entry.reliable.is_some() {
                continue;
            }
            if entry.leaving.is_some() {
                return Some((command, false));
            }
            if !entry.is_unfinished() {
                return Some((command, true));
            }
            entry.leaving = Some((command, now + self.close_after));
            self.leaving.push(*place);
            self.closing += 1;
            return None;
        }
        for place in &self.reliable {
            let Some(entry) = &mut self.sources[*place as usize] else { continue };
            if entry.conn.id() == conn
                && !entry.dead
                && let Some(outflow) = &mut entry.reliable
            {
                let was_closing = outflow.is_closing();
                let Some(command) = outflow.close(now, command, &entry.conn) else {
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
        let sources = &mut self.sources;
        let left = self.leaving.iter().find_map(|place| {
            let entry = sources[*place as usize].as_mut()?;
            let (_, until) = entry.leaving.as_ref()?;
            if *until > now && !entry.dead && entry.is_unfinished() {
                return None;
            }
            entry.leaving.take().map(|(command, _)| (entry.conn.id(), command))
        });
        let closed = left.or_else(|| {
            self.reliable.iter().find_map(|place| {
                let entry = sources[*place as usize].as_mut()?;
                let now = if entry.dead { MonoTime(u64::MAX) } else { now };
                let command = entry.reliable.as_mut()?.closed(now, &entry.conn)?;
                Some((entry.conn.id(), command))
            })
        })?;
        self.closing -= 1;
        Some(closed)
    }

    /// Lets a source go; what is left of its messages is lost with it, and counted.
    pub fn remove(&mut self, conn: ConnId, outlets: &mut Outlets) -> Option<(Dead, RouteIndex)> {
        let at =
            self.watch.all().iter().position(|place| {
                self.sources[*place as usize].as_ref().is_some_and(|source| source.conn.id() == conn)
            })?;
        let place = self.watch.remove(at);
        let mut entry = self.sources[place as usize].take()?;
        if entry.ready {
            self.ready -= 1;
        }
        self.forget_flow(FlowIndex(place));
        self.free_place(place);
        self.leaving.retain(|other| *other != place);
        self.keepers.retain(|other| *other != place);
        outlets.count(entry.domain, DatapathCounter::DroppedSourceClosed, entry.left());
        if let Some(copying) = entry.copying.take() {
            outlets.discard(copying);
            finish(&mut entry);
        }
        if entry.underway.is_some() {
            finish(&mut entry);
        }
        if let Some(mut outflow) = entry.reliable.take() {
            outflow.clear(&mut entry.conn, outlets);
            self.outflows.push(outflow);
            self.reliable.retain(|other| *other != place);
        }
        entry.conn.flush();
        Some((Dead::Source(entry.conn), entry.route))
    }

    /// Whether any source has something, for a datapath about to sleep.
    pub fn has_work(&mut self, payload_max: u32) -> bool {
        let is_due = self.slots.as_ref().is_none_or(|slots| slots.is_due());
        let sources = &mut self.sources;
        self.ready > 0 && is_due
            || self.watch.all().iter().any(|place| {
                sources[*place as usize].as_mut().is_some_and(|source| {
                    !source.dead && (is_due || !source.ready) && source.has_something(payload_max)
                })
            })
    }

    /// Whether a reliable source waits for peers or sinks.
    pub fn is_waiting(&self) -> bool {
        self.reliable.iter().any(|place| {
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
        for _ in 0..self.reliable.len().min(RELIABLE_PER_TURN) {
            self.reliable_at = (self.reliable_at + 1) % self.reliable.len();
            let Some(entry) = &mut self.sources[self.reliable[self.reliable_at] as usize] else { continue };
            let id = entry.identity((self.host, self.incarnation));
            if let (Some(outflow), false) = (&mut entry.reliable, entry.dead) {
                outflow.serve(now, &id, &mut entry.conn, links, outlets, port);
            }
        }
    }

    /// One turn's worth: at most [`GRANTS_PER_TURN`] grants. Returns how many messages
    /// or fragments moved.
    #[inline]
    pub fn run<L: Link, C: Clock>(
        &mut self,
        turn: &Turn<'_, C>,
        links: &mut Links<L>,
        outlets: &mut Outlets,
        port: &Port,
    ) -> u32 {
        if !self.reliable.is_empty() {
            self.serve_reliable(turn.now(), links, outlets, port);
        }
        if self.slots.as_ref().is_some_and(|slots| slots.is_active()) {
            return self.run_timed(turn, links, outlets, port);
        }
        let mut best_effort = self.scheduler.limits().chunk_bytes.get();
        if let Some(lone) = self.look(links.payload_bytes_max()) {
            // Nobody else waits, so there is nothing to decide: the one that has something
            // goes, for one chunk. What is left takes its turn with the others.
            if let Some(progress) = self.send_from(turn, lone.0, (best_effort, true), links, outlets, port) {
                self.watch.moved(progress.bytes);
                if progress.goes_on() {
                    self.enlist(lone);
                }
            }
            links.flush();
            return 1;
        }
        if self.ready == 0 {
            return 0;
        }
        // Only token buckets look at the time, and a late one errs on the safe side.
        let about_now = turn.about_now();
        let mut moved = 0;
        for _ in 0..GRANTS_PER_TURN {
            let Decision::Send { flow, budget_bytes } = self.scheduler.poll(about_now) else { break };
            moved += 1;
            let Some(lane) = self.sources[flow.0 as usize].as_ref().map(|entry| entry.lane) else {
                self.scheduler.remove(flow);
                continue;
            };
            let budget = if lane.is_real_time() { budget_bytes } else { budget_bytes.min(best_effort) };
            let Some(progress) = self.send_from(turn, flow.0, (budget, false), links, outlets, port) else { continue };
            // Busy links: idle until the next turn looks again, so that lanes below this one,
            // on other sockets, get their chance.
            let more = progress.goes_on();
            self.watch.moved(progress.bytes);
            self.scheduler.sent(flow, progress.bytes, more);
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
    #[inline]
    fn look(&mut self, payload_max: u32) -> Option<FlowIndex> {
        let mut lone = None;
        let mut at = 0;
        while let Some(place) = self.watch.watched(at) {
            at += 1;
            let Some(source) = &mut self.sources[place as usize] else { continue };
            if source.ready || source.dead {
                continue;
            }
            if source.has_something(payload_max) {
                source.idle_looks = 0;
                self.found(place, &mut lone);
            } else if self.watch.may_rest() && source.is_idle_again() {
                // The last of the watched comes here, and is looked at next.
                at -= 1;
                self.watch.rest(at);
            }
        }
        let looks = self.watch.quiet_looks(self.ready > 0 || lone.is_some());
        if looks > 0 {
            self.look_at_quiet(looks, payload_max, &mut lone);
        }
        if self.ready > 0
            && let Some(last) = lone.take()
        {
            self.enlist(last);
        }
        lone
    }

    #[inline(never)]
    fn look_at_quiet(&mut self, looks: u32, payload_max: u32, lone: &mut Option<FlowIndex>) {
        for _ in 0..looks {
            let Some((at, place)) = self.watch.next_quiet() else { return };
            let Some(source) = &mut self.sources[place as usize] else { continue };
            if !source.dead && source.has_something(payload_max) {
                source.idle_looks = 0;
                self.watch.watch(at);
                self.found(place, lone);
            }
        }
    }

    /// A source has something: the first one is put by, any other makes both known to the
    /// scheduler.
    #[inline]
    fn found(&mut self, place: u16, lone: &mut Option<FlowIndex>) {
        if let Some(other) = lone.replace(FlowIndex(place)) {
            self.enlist(other);
        }
    }

    /// From now on the scheduler knows that the source has something.
    fn enlist(&mut self, flow: FlowIndex) {
        if let Some(source) = &mut self.sources[flow.0 as usize] {
            source.ready = true;
            self.ready += 1;
            match &mut self.slots {
                Some(slots) if slots.is_active() => slots.ready(flow),
                _ => self.scheduler.ready(flow),
            }
        }
    }

    /// Lets a source send for about `budget` bytes; `alone`: no other has anything. `None`:
    /// there is no such source.
    #[inline]
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
            send_some(entry, (budget, alone), links, outlets, port)
        } else {
            send_reliable(turn.now(), entry, (self.host, self.incarnation), budget, links, outlets, port)
        };
        Some(result.unwrap_or_else(|violation| {
            outlets.count(entry.domain, DatapathCounter::Violations, 1);
            port.tell(Notice::Violation { conn: entry.conn.id(), violation });
            entry.dead = true;
            Progress { bytes: 0, more: false, blocked: false }
        }))
    }
}

/// As [`send_some`], for a reliable source.
#[inline(never)]
fn send_reliable<L: Link>(
    now: MonoTime,
    entry: &mut SourceEntry,
    identity: (HostId, Incarnation),
    budget: u32,
    links: &mut Links<L>,
    outlets: &mut Outlets,
    port: &Port,
) -> Result<Progress, Violation> {
    let id = entry.identity(identity);
    match &mut entry.reliable {
        Some(outflow) => outflow.send_some(now, budget, &id, &mut entry.conn, links, outlets, port),
        None => Ok(Progress { bytes: 0, more: false, blocked: false }),
    }
}

/// Sends whole messages and fragments while fewer than `budget` bytes have gone.
fn send_some<L: Link>(
    entry: &mut SourceEntry,
    (budget, alone): (u32, bool),
    links: &mut Links<L>,
    outlets: &mut Outlets,
    port: &Port,
) -> Result<Progress, Violation> {
    let mut bytes = 0_u32;
    while bytes < budget {
        if entry.copying.is_some() {
            bytes = bytes.saturating_add(copy_on(entry, budget - bytes, links, outlets, port));
        } else if entry.underway.is_none() {
            if !entry.conn.pop(&mut entry.popped)? {
                return Ok(Progress { bytes, more: false, blocked: false });
            }
            let alone = alone && bytes == 0 && !entry.conn.is_ready();
            let charge = begin(entry, (budget - bytes, alone), links, outlets, port);
            bytes = bytes.saturating_add(charge);
        } else {
            match send_frame(entry, links, outlets) {
                Some(sent) => bytes = bytes.saturating_add(sent),
                None => return Ok(Progress { bytes, more: true, blocked: true }),
            }
        }
    }
    let more = entry.is_midway() || entry.conn.is_ready();
    Ok(Progress { bytes, more, blocked: false })
}

/// A message was taken from the ring: local delivery now, or in pieces; then the frame if it
/// is the only one, else fragments to come. `alone`: no other message waits. Returns what it
/// cost so far, bytes.
#[inline]
fn begin<L: Link>(
    entry: &mut SourceEntry,
    (budget, alone): (u32, bool),
    links: &mut Links<L>,
    outlets: &mut Outlets,
    port: &Port,
) -> u32 {
    if let Some(newcomers) = &mut entry.newcomers {
        match newcomers.sort(&entry.popped.meta) {
            Kept::Now(but) => entry.skip = but,
            Kept::Past(but) => return begin_past(entry, but, links, outlets),
            Kept::End => {
                finish(entry);
                return LOCAL_CHARGE;
            }
        }
    }
    outlets.count(entry.domain, DatapathCounter::MessagesFromSources, 1);
    let Some(route) = outlets.routes.get(entry.route) else {
        finish(entry);
        return LOCAL_CHARGE;
    };
    let mut charge = LOCAL_CHARGE;
    if route.local {
        charge = charge.max(entry.popped.len);
        let meta = entry.popped.meta;
        match entry.popped.payload {
            Payload::Inline => {
                let bytes = inline_bytes(&entry.popped);
                outlets.deliver(port, entry.route, meta, Content::Private(bytes));
            }
            Payload::Heap(_) if is_piecemeal(entry.popped.len, budget) => {
                entry.copying = outlets.start_copy(entry.route, meta, entry.popped.len);
                if entry.copying.is_some() {
                    return 0;
                }
            }
            Payload::Heap(id) => {
                let bytes = entry.conn.view(id, entry.popped.len);
                outlets.deliver(port, entry.route, meta, Content::Foreign(bytes));
            }
        }
    }
    charge.max(send_or_fragment(entry, alone, links, outlets))
}

/// As [`begin`], a message that was emitted before the peers joined that it is for; sinks of
/// this host get nothing of it.
#[cold]
fn begin_past<L: Link>(entry: &mut SourceEntry, but: PeerSet, links: &mut Links<L>, outlets: &mut Outlets) -> u32 {
    let is_for_any =
        outlets.routes.get(entry.route).is_some_and(|route| route.peers.iter().any(|peer| !but.contains(*peer)));
    entry.skip = but;
    if is_for_any {
        send_or_fragment(entry, false, links, outlets).max(LOCAL_CHARGE)
    } else {
        finish(entry);
        LOCAL_CHARGE
    }
}

/// Copies more of a message for local sinks, at most `budget` bytes, and delivers it when
/// all of it is there. The bytes that were copied.
#[inline(never)]
fn copy_on<L: Link>(
    entry: &mut SourceEntry,
    budget: u32,
    links: &mut Links<L>,
    outlets: &mut Outlets,
    port: &Port,
) -> u32 {
    let (Some(mut copying), Payload::Heap(id)) = (entry.copying.take(), entry.popped.payload) else { return 0 };
    let copied = outlets.copy_piece(&mut copying, entry.conn.view(id, entry.popped.len), budget);
    if copying.left() > 0 {
        entry.copying = Some(copying);
    } else {
        outlets.deliver(port, entry.route, entry.popped.meta, copying.finished());
        send_or_fragment(entry, false, links, outlets);
    }
    copied
}

/// Local sinks have the message, or get none: now the peers. Sends the frame if it is the
/// only one; the bytes that went. Else fragments are to come.
#[inline]
fn send_or_fragment<L: Link>(entry: &mut SourceEntry, alone: bool, links: &mut Links<L>, outlets: &mut Outlets) -> u32 {
    let Some(route) = outlets.routes.get(entry.route) else {
        finish(entry);
        return 0;
    };
    if route.peers.is_empty() || (!entry.skip.is_empty() && all_are_in(entry.skip, &route.peers)) {
        if !route.local {
            outlets.count(entry.domain, DatapathCounter::DroppedNoPeer, 1);
        }
        finish(entry);
        return 0;
    }
    if let Some(sent) = send_whole(entry, alone, links, outlets) {
        finish(entry);
        return sent;
    }
    let plan = FragmentPlan::new(entry.popped.len, links.payload_bytes_max());
    let Some((plan, fragment)) = plan.and_then(|mut plan| plan.next().map(|fragment| (plan, fragment))) else {
        outlets.count(entry.domain, DatapathCounter::DroppedTooLarge, 1);
        finish(entry);
        return 0;
    };
    entry.underway = Some(Underway { plan, fragment, reached: None, head: [0; HEADER_BYTES] });
    set_head(entry);
    0
}

#[cold]
fn all_are_in(set: PeerSet, peers: &[PeerIndex]) -> bool {
    peers.iter().all(|peer| set.contains(*peer))
}

/// The plain case, straight through: a message of one frame for one peer. The bytes that
/// went; `None` if it is not that plain, or the link is busy, and nothing went.
#[inline]
fn send_whole<L: Link>(entry: &SourceEntry, alone: bool, links: &mut Links<L>, outlets: &mut Outlets) -> Option<u32> {
    let route = outlets.routes.get(entry.route)?;
    let [peer] = route.peers[..] else { return None };
    if entry.popped.len > links.payload_bytes_max() {
        return None;
    }
    let head = header(entry, 0);
    let payload = payload_of(&entry.popped, &entry.conn);
    let sent = entry.popped.len + HEADER_BYTES as u32;
    let outcome = if alone {
        links.send_alone(peer, entry.lane, &head, payload)
    } else {
        links.send(peer, entry.lane, &head, payload)
    };
    count_frame(outcome, entry.domain, sent, outlets)
}

/// Counts a frame that was offered to a link; `None` if it was busy.
#[inline]
fn count_frame(outcome: SendOutcome, domain: DomainIndex, bytes: u32, outlets: &Outlets) -> Option<u32> {
    match outcome {
        SendOutcome::Sent => {
            outlets.count(domain, DatapathCounter::BytesSent, u64::from(bytes));
            outlets.count(domain, DatapathCounter::FramesSent, 1);
        }
        SendOutcome::Failed => outlets.count(domain, DatapathCounter::FramesFailed, 1),
        SendOutcome::Busy => return None,
    }
    Some(bytes)
}

#[inline]
fn payload_of<'e>(popped: &'e Popped, conn: &'e RxConn) -> SharedBytes<'e> {
    match popped.payload {
        Payload::Inline => SharedBytes::from(inline_bytes(popped)),
        Payload::Heap(id) => conn.view(id, popped.len),
    }
}

/// Sends the current fragment to the next peer that does not have it; `None` if its
/// link is busy. The bytes that went.
fn send_frame<L: Link>(entry: &mut SourceEntry, links: &mut Links<L>, outlets: &mut Outlets) -> Option<u32> {
    let underway = entry.underway.as_mut()?;
    let peers = outlets.routes.get(entry.route).map_or(&[][..], |route| &route.peers);
    let Fragment { offset, len } = underway.fragment;
    let mut sent = 0;
    // The route may have changed since the message began: a peer that came late lacks
    // fragments and drops the rest, one that left is not asked any more.
    let mut left = next_peers(peers, underway.reached, entry.skip);
    if let Some(peer) = left.next() {
        let payload = payload_of(&entry.popped, &entry.conn).part(offset as usize, len as usize);
        let outcome = links.send(*peer, entry.lane, &underway.head, payload);
        sent = count_frame(outcome, entry.domain, len + HEADER_BYTES as u32, outlets)?;
        underway.reached = Some(*peer);
    }
    if left.next().is_none() {
        match underway.plan.next() {
            Some(fragment) => {
                underway.fragment = fragment;
                underway.reached = None;
                set_head(entry);
            }
            None => finish(entry),
        }
    }
    Some(sent)
}

/// The peers of a route, which stand in the order of their numbers, behind `reached`, but
/// for those to be left out.
fn next_peers(peers: &[PeerIndex], reached: Option<PeerIndex>, skip: PeerSet) -> impl Iterator<Item = &PeerIndex> {
    peers.iter().filter(move |peer| reached.is_none_or(|reached| **peer > reached) && !skip.contains(**peer))
}

/// Encodes the header of the current fragment, the same for every peer.
fn set_head(entry: &mut SourceEntry) {
    let Some(underway) = &entry.underway else { return };
    let head = header(entry, underway.fragment.offset);
    if let Some(underway) = &mut entry.underway {
        underway.head = head;
    }
}

#[inline]
fn header(entry: &SourceEntry, fragment_offset: u32) -> [u8; HEADER_BYTES] {
    let Popped { meta, len, .. } = &entry.popped;
    entry.head.encode(meta.sequence, meta.source_ns, *len, fragment_offset)
}

fn inline_bytes(popped: &Popped) -> &[u8] {
    &popped.inline.0[..(popped.len as usize).min(popped.inline.0.len())]
}

/// The message is done with: its buffer goes back.
fn finish(entry: &mut SourceEntry) {
    entry.underway = None;
    if let Payload::Heap(id) = entry.popped.payload {
        entry.conn.give_back(id);
        entry.popped.payload = Payload::Inline;
    }
}

impl<L: Link> Links<L> {
    /// Hands a frame to the link that reaches the peer.
    #[inline]
    pub fn send(&mut self, peer: PeerIndex, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
        match self.of_peer(peer) {
            Some(link) => link.send(peer, lane, head, payload),
            None => SendOutcome::Failed,
        }
    }

    /// As [`send`](Self::send); no other frame follows before the flush.
    #[inline]
    fn send_alone(&mut self, peer: PeerIndex, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
        match self.of_peer(peer) {
            Some(link) => link.send_alone(peer, lane, head, payload),
            None => SendOutcome::Failed,
        }
    }
}
