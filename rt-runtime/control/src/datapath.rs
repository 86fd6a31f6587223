//! The control plane's side of a datapath: prepares connections for it, sends it
//! commands, and collects what comes back.

use crate::action::{AddRx, AddTx, Rings, Route, Topic};
use crate::inline::InlineHost;
use crate::keepers::{self, Health};
use crate::links::{LinkSet, OpenLinks, PeerMaker};
use crate::memory::{DatapathMemory, OwnRegion};
use crate::objects::Objects;
use crate::plan_spec::slot_spec;
use crate::preparer::Handover;
use crate::runtime::Hosting;
use crate::start::StartError;
use insane_config::{DatapathPlan, Idle, Plan, Policy};
use insane_core::heap::Geometry;
use insane_core::limits::LINKS_MAX;
use insane_core::{
    ConnId, DatapathIndex, DomainIndex, HostId, Incarnation, Lane, LinkIndex, MonoTime, PeerIndex, SessionId, TaiTime,
};
use insane_engine::inline::InlineEngine;
use insane_engine::thread::{self, DatapathThread, RunConfig};
use insane_engine::waker::WakeQueue;
use insane_engine::{
    Command, DomainParts, Doorbell, DoorbellTally, EngineConfig, EngineParts, Hop, LaneArrivals, NewSink, NewSource,
    Notice, OverlayFrame, Pace, PeerSwap, Port, SlotConfig, SlotLinks, SlotLog, SlotTable, StageSlots, TIMED_MAX,
};
use insane_link::{Link, LinkHealth, SwapRefused};
use insane_scheduler::{Gates, Policing, TableError, TimedStream, lcm};
use insane_shm::conn::{RxConn, TxConn};
use insane_shm::counters::CounterBlock;
use insane_shm::heap::ForeignHeap;
use insane_shm::misses::MissReader;
use insane_shm::region::Region;
use insane_shm::trace::{TRACE_BYTES, TraceLog};
use insane_shm::wake::{How, Waker};
use insane_sys::event::Event;
use insane_sys::thread::SchedPolicy;
use insane_wire::control::SinkWake;
use insane_wire::overlay::BODY_BYTES_MAX;
use insane_wire::status::LinkStatus;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::Arc;

const _: () = assert!(insane_config::PORTS_OF_DATAPATH as usize == insane_engine::SOURCES_MAX);
const _: () = assert!(insane_config::PORTS_OF_DATAPATH as usize == insane_engine::SINKS_MAX);
const _: () = assert!(insane_config::SLOTS_OF_DATAPATH as usize == TIMED_MAX);
const _: () = assert!(insane_config::DOORBELLS_OF_DATAPATH as usize == insane_engine::SOURCES_MAX);
const _: () = assert!(insane_config::BUDGETED_SESSIONS as usize == insane_scheduler::CLIENTS_MAX);
const _: () = assert!(BODY_BYTES_MAX <= insane_engine::OVERLAY_BODY_MAX);

/// Who turns the engine.
#[derive(Debug)]
enum Host {
    Thread(DatapathThread),
    Inline(Arc<InlineHost>),
}

/// What becomes of a connection on its way to the datapath.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// It is handed over.
    Wanted,
    /// It was removed before it arrived.
    Removed,
}

/// What came back from a datapath, or what it says.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A connection is gone.
    Detached(ConnId),
    /// There was no place for a connection.
    NoPlace(ConnId),
    /// There was no place for a route.
    NoRoute(Topic),
    /// A session cannot wake it.
    NoDoorbell(SessionId),
    /// A client wrote what it may not.
    Violated(ConnId, insane_shm::Violation),
    /// A change of a peer was tried.
    PeerSwapped(PeerSwap, Result<(), SwapRefused>),
    /// A peer that left is forgotten.
    PeerForgotten(PeerIndex),
    /// A table of slots was not taken.
    NoSlots(TableError),
    /// An overlay frame came in.
    Overlay(Box<OverlayFrame>),
}

/// What all datapaths of a runtime share.
#[derive(Debug)]
pub(crate) struct SharedParts {
    /// Signalled when one has something to collect.
    pub(crate) answer: Arc<Event>,
    /// Makes the wake-ups they have no time for.
    pub(crate) waker: Option<Arc<WakeQueue>>,
}

/// One datapath.
#[derive(Debug)]
pub(crate) struct Datapath {
    pub(crate) plan: DatapathPlan,
    links: Vec<LinkStatus>,
    /// How each link is, if it may go and come.
    health: Vec<Option<Health>>,
    pub(crate) turn_counters: CounterBlock,
    /// What was asked for and not had, and what follows.
    pub(crate) degraded: Vec<String>,
    pub(crate) tid: Option<i32>,
    pub(crate) totals: (u64, u64),
    /// What prepares peers that come later, for each link.
    pub(crate) makers: Vec<PeerMaker>,
    slots: Option<SlotConfig>,
    gates: Option<Box<Gates>>,
    /// Tables of slots that were sent so far.
    tables: Tables,
    host: Host,
    port: Arc<Port>,
    /// Commands for which the port had no room yet, in order.
    outbox: VecDeque<Command>,
    wake_page: OwnRegion,
    heaps: Vec<Option<OwnRegion>>,
    /// What is counted of the doorbell of each session.
    doorbells: BTreeMap<SessionId, Arc<DoorbellTally>>,
    /// To what best effort of each link is held, as it was told.
    paces: [Option<Policing>; LINKS_MAX],
    /// Connections whose memory is being touched.
    expected: BTreeMap<ConnId, Fate>,
    /// Who takes a trace, and its memory.
    trace: Option<(SessionId, OwnRegion)>,
}

impl Datapath {
    /// Starts a datapath.
    pub(crate) fn start(
        plan: &Plan,
        at: DatapathIndex,
        life: (HostId, Incarnation),
        hosting: Hosting,
        links: OpenLinks,
        memory: DatapathMemory,
        shared: &SharedParts,
    ) -> Result<Self, StartError> {
        let own = &plan.datapaths[at.index()];
        let (slots, gates) = slot_spec(plan, own).map_or((None, None), |slots| (Some(slots.config), slots.gates));
        let port = Port::new(Arc::clone(&shared.answer))?;
        let totals = memory.totals();
        let DatapathMemory { wake_page, heaps, parts, turn_counters, misses } = memory;
        port.set_misses(misses);
        let starter = Starter {
            hosting,
            config: EngineConfig { slots, ..engine_config(plan, life) },
            run: run_config(own),
            wake_page: Arc::clone(&wake_page.region),
            link_of_peer: links.of_peer,
            domains: parts,
            counters: turn_counters.clone(),
            port: Arc::clone(&port),
            waker: shared.waker.clone(),
        };
        let started = match links.links {
            LinkSet::Udp(links) => starter.start(links, InlineHost::Udp),
            LinkSet::Tcp(links) => starter.start(links, InlineHost::Tcp),
            LinkSet::Xdp(links) => starter.start(links, InlineHost::Xdp),
            LinkSet::Rdma(links) => starter.start(links, InlineHost::Rdma),
            LinkSet::Dpdk(links) => starter.start(links, InlineHost::Dpdk),
            LinkSet::Mixed(links) => starter.start(links, InlineHost::Mixed),
        };
        let failed = |source| StartError::Thread { what: format!("datapath \"{}\"", own.name), source };
        let (host, tid, degraded) = started.map_err(failed)?;
        Ok(Datapath {
            plan: own.clone(),
            links: links.status,
            health: links.health,
            turn_counters,
            degraded,
            tid,
            totals,
            makers: links.makers,
            slots,
            gates,
            tables: Tables::default(),
            host,
            port,
            outbox: VecDeque::new(),
            wake_page,
            heaps,
            doorbells: BTreeMap::new(),
            paces: [None; LINKS_MAX],
            expected: BTreeMap::new(),
            trace: None,
        })
    }

    /// Name and address of each link.
    pub(crate) fn links(&self) -> &[LinkStatus] {
        &self.links
    }

    /// Whether a link is there and has what it runs on.
    pub(crate) fn is_link_up(&self, link: usize) -> bool {
        let is_missing = |health: &Health| keepers::now(health) != LinkHealth::Up;
        let is_there = self.links.get(link).is_some_and(|link| link.up);
        is_there && !self.health.get(link).is_some_and(|health| health.as_ref().is_some_and(is_missing))
    }

    /// Each link, as it is now and with what it has counted.
    pub(crate) fn link_rows(&self) -> Vec<LinkStatus> {
        let rows = self.links.iter().zip(&self.health).enumerate();
        rows.map(|(at, (link, health))| {
            let missing = health.as_ref().and_then(|health| match keepers::now(health) {
                LinkHealth::Up => None,
                LinkHealth::Missing(why) => Some(why),
            });
            let counters = self.port.link_counts(at).map(|(name, value)| (name.to_owned(), value)).collect();
            LinkStatus { up: link.up && missing.is_none(), missing, counters, ..link.clone() }
        })
        .collect()
    }

    /// The engine that applications turn, if it is hosted inline.
    pub(crate) fn inline(&self) -> Option<Arc<InlineHost>> {
        match &self.host {
            Host::Inline(engine) => Some(Arc::clone(engine)),
            Host::Thread(_) => None,
        }
    }

    /// Whether it still turns.
    pub(crate) fn is_alive(&self) -> bool {
        match &self.host {
            Host::Thread(thread) => thread.is_alive(),
            Host::Inline(_) => true,
        }
    }

    /// The wake page, for clients.
    pub(crate) fn wake_page(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.wake_page.fd)
    }

    /// The receive heap of a domain, for its clients.
    pub(crate) fn heap(&self, domain: DomainIndex) -> Option<Arc<OwnedFd>> {
        self.heaps.get(domain.index())?.as_ref().map(|own| Arc::clone(&own.fd))
    }

    /// Sends a command, after those that wait.
    pub(crate) fn send(&mut self, command: Command) {
        self.outbox.push_back(command);
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(command) = self.outbox.pop_front() {
            if let Err(command) = self.port.send(command) {
                self.outbox.push_front(*command);
                return;
            }
        }
    }

    /// Sends an overlay frame by one of its links if there is room: a lost one is repeated.
    pub(crate) fn send_overlay(&mut self, peer: PeerIndex, (link, lane): (usize, Lane), body: &[u8]) {
        if let (true, Ok(body)) = (self.outbox.is_empty(), heapless::Vec::from_slice(body)) {
            let _ = self.port.send(Command::SendOverlay { peer, link, lane, body });
        }
    }

    /// As [`send_overlay`](Self::send_overlay), to the group of one of its links.
    pub(crate) fn send_group(&mut self, link: usize, lane: Lane, body: &[u8]) {
        if let (true, Ok(body)) = (self.outbox.is_empty(), heapless::Vec::from_slice(body)) {
            let _ = self.port.send(Command::SendGroup { link, lane, body });
        }
    }

    /// The next thing that came back.
    pub(crate) fn answer(&mut self) -> Option<Answer> {
        while let Some(command) = self.port.collect() {
            let answer = match *command {
                Command::Removed { conn, dead } => {
                    // Unmapping happens here, never on the datapath.
                    drop(dead);
                    Some(Answer::Detached(conn))
                }
                Command::AddSource(source) => Some(Answer::NoPlace(source.conn.id())),
                Command::AddSink(sink) => Some(Answer::NoPlace(sink.conn.id())),
                Command::SetRoute { topic, .. } => Some(Answer::NoRoute(topic)),
                Command::AddDoorbell(bell) => Some(Answer::NoDoorbell(bell.session)),
                Command::PeerSwapped(swap, swapped) => Some(Answer::PeerSwapped(swap, swapped)),
                Command::RemovePeer(peer) => Some(Answer::PeerForgotten(peer)),
                Command::SlotsStaged(_, Err(error)) => Some(Answer::NoSlots(error)),
                _ => None,
            };
            self.flush();
            if answer.is_some() {
                return answer;
            }
        }
        if let Some(Notice::Violation { conn, violation }) = self.port.notice() {
            return Some(Answer::Violated(conn, violation));
        }
        self.port.overlay_frame().map(|frame| Answer::Overlay(Box::new(frame)))
    }

    /// Of which version frames of a peer are that were refused for that since the last look.
    pub(crate) fn other_version(&self, peer: PeerIndex) -> Option<u8> {
        self.port.other_version(peer)
    }

    /// Prepares a source's connection. `budget` is what its session may send.
    pub(crate) fn prepare_tx(
        &self,
        add: &AddTx,
        budget: Option<Policing>,
        objects: &mut Objects,
    ) -> io::Result<Handover> {
        let Rings { cells, returns, depth, .. } = add.rings;
        let (cells, returns) = (objects.read(cells)?, objects.written(returns)?);
        let mut regions = vec![Arc::clone(&cells), Arc::clone(&returns)];
        let heap = match add.heap {
            Some(heap) => {
                let geometry = Geometry::new(&add.classes).ok_or_else(|| io::Error::other("a heap of no geometry"))?;
                let region = objects.read(heap)?;
                regions.push(Arc::clone(&region));
                ForeignHeap::new(region, geometry)
            }
            None => None,
        };
        let conn = RxConn::new(add.conn, cells, returns, depth, heap, false);
        let source = NewSource {
            conn,
            source: add.source,
            topic: add.topic,
            domain: add.domain,
            session: add.session,
            budget,
            lane: add.lane,
            reliable: add.qos.reliability == insane_core::Reliability::Reliable,
            slots: add.slots,
            keeps: add.keeps,
        };
        Ok(Handover { datapath: add.datapath, conn: add.conn, command: Command::AddSource(source), regions })
    }

    /// Prepares a sink's connection. `buffers` is the number of buffers of the receive heap,
    /// `wakes_per_second` what its session may ask for.
    pub(crate) fn prepare_rx(
        &self,
        add: &AddRx,
        buffers: u32,
        wakes_per_second: NonZeroU32,
        objects: &mut Objects,
    ) -> io::Result<Handover> {
        let Rings { cells, returns, depth, .. } = add.rings;
        let (cells, returns) = (objects.written(cells)?, objects.read(returns)?);
        let regions = vec![Arc::clone(&cells), Arc::clone(&returns)];
        let how = match (add.wake, add.wake_socket) {
            (SinkWake::Never, _) => None,
            (SinkWake::Fd, Some(socket)) => Some(How::Socket(objects.wake_writer(socket)?)),
            (SinkWake::Page | SinkWake::Fd, _) => Some(How::Futex),
        };
        let waker = match (how, add.wake_page) {
            (Some(how), Some(page)) => Some(Waker::new(objects.read(page)?, how)),
            _ => None,
        };
        let conn = TxConn::new(add.conn, cells, returns, depth, buffers, waker);
        let conn = if add.observes { conn.observing() } else { conn };
        let AddRx { topic, domain, session, .. } = *add;
        let sink = NewSink { conn, topic, domain, session, lane: add.qos.lane(), wakes_per_second };
        Ok(Handover { datapath: add.datapath, conn: add.conn, command: Command::AddSink(sink), regions })
    }

    /// A connection is on its way here.
    pub(crate) fn expect(&mut self, conn: ConnId) {
        self.expected.insert(conn, Fate::Wanted);
    }

    /// The connection is ready: it is handed over, unless it was removed meanwhile.
    pub(crate) fn hand_over(&mut self, handover: Handover) -> Fate {
        let fate = self.expected.remove(&handover.conn).unwrap_or(Fate::Wanted);
        if fate == Fate::Wanted {
            self.send(handover.command);
        }
        fate
    }

    /// Removes a connection, or makes sure that it never comes.
    pub(crate) fn remove(&mut self, conn: ConnId, command: Command) {
        match self.expected.get_mut(&conn) {
            Some(fate) => *fate = Fate::Removed,
            None => self.send(command),
        }
    }

    pub(crate) fn set_route(&mut self, topic: Topic, domain: DomainIndex, route: &Route) {
        // At most PEERS_MAX peers exist, so none is cut off.
        let hop = |peer: &PeerIndex| Hop { peer: *peer, link: route.links.get(peer).copied() };
        let peers = route.peers.iter().map(hop).collect();
        self.send(Command::SetRoute { topic, domain, peers, local: route.local });
    }

    /// Puts another table of slots in place of the one in force: as soon as may be, or at `at`.
    /// `links`: by number, of those that go by another than their routes say.
    pub(crate) fn stage_slots(
        &mut self,
        streams: &[TimedStream],
        links: &[(u16, u8)],
        arrivals: Box<LaneArrivals>,
        at: Option<MonoTime>,
    ) -> Result<(), TableError> {
        let Some(config) = self.slots else { return Err(TableError::OtherTiming) };
        let (table, number) = self.tables.fill(config, streams)?;
        let gates = self.gates.clone();
        let gate_cycle = gates.as_deref().map(Gates::cycle_ns);
        let mut periods = streams.iter().map(|stream| stream.slots.period_ns()).chain(gate_cycle).peekable();
        let has_none = periods.peek().is_none();
        let cycle_ns = periods.try_fold(1, lcm);
        let cycle_ns = if has_none { 0 } else { cycle_ns.unwrap_or(0) };
        let mut by: Box<SlotLinks> = Box::new([None; TIMED_MAX]);
        for (number, link) in links {
            by[usize::from(*number)] = Some(*link);
        }
        let streams = streams.len();
        self.send(Command::StageSlots(StageSlots { table, streams, cycle_ns, at, gates, links: by, arrivals, number }));
        Ok(())
    }

    /// Whether the last table that was sent is in force.
    pub(crate) fn has_taken_over(&self) -> bool {
        self.tables.is_last(self.port.slot_table())
    }

    /// The misses so far; `None`: it has no slots.
    pub(crate) fn misses(&self) -> Option<MissReader> {
        self.port.misses()
    }

    /// What it measures of e_turn and e_wake.
    pub(crate) fn epsilons(&self) -> &insane_engine::Epsilons {
        self.port.epsilons()
    }

    /// What became of the last slots; `None`: there are none.
    pub(crate) fn slot_log(&self) -> Option<Arc<SlotLog>> {
        self.port.slot_log()
    }

    /// By what the slots run, in words; `None`: there are none.
    pub(crate) fn slot_clock(&self) -> Option<&'static str> {
        self.slots.map(|_| self.port.slot_clock())
    }

    /// The slots' time less the monotonic clock; `None`: there are none.
    pub(crate) fn slot_offset(&self) -> Option<u64> {
        self.slots.map(|_| self.port.slot_offset())
    }

    /// Whether its slots run by TAI.
    pub(crate) fn is_locked(&self) -> bool {
        self.port.is_slot_clock_locked()
    }

    /// Holds all best effort of a link together to this from now on.
    pub(crate) fn set_pace(&mut self, link: LinkIndex, most: Option<Policing>) {
        if let Some(pace) = self.paces.get_mut(link.index()).filter(|pace| **pace != most) {
            *pace = most;
            self.send(Command::SetPace(Pace { link: link.0, most }));
        }
    }

    /// Whether it holds any.
    pub(crate) fn is_paced(&self) -> bool {
        self.paces.iter().any(Option::is_some)
    }

    pub(crate) fn welcome(&mut self, topic: Topic, peer: PeerIndex) {
        self.send(Command::Welcome { topic, peer });
    }

    /// Which session takes a trace of it.
    pub(crate) fn traced_by(&self) -> Option<SessionId> {
        self.trace.as_ref().map(|(session, _)| *session)
    }

    /// The memory of the trace, for who takes it.
    pub(crate) fn trace_memory(&self) -> Option<Arc<OwnedFd>> {
        self.trace.as_ref().map(|(_, own)| Arc::clone(&own.fd))
    }

    /// Lets it record what it does, for this session. Bytes of the memory, which is touched
    /// here: some milliseconds, once.
    pub(crate) fn begin_trace(&mut self, session: SessionId) -> io::Result<u64> {
        let own = OwnRegion::new("insane-trace", TRACE_BYTES as u64)?;
        own.region.prefault()?;
        let log = TraceLog::new(Arc::clone(&own.region)).ok_or_else(|| io::Error::other("it is too small"))?;
        self.send(Command::Trace(Some(log)));
        self.trace = Some((session, own));
        Ok(TRACE_BYTES as u64)
    }

    /// No longer. The datapath's own mapping is unmapped when it gave the record back.
    pub(crate) fn end_trace(&mut self) {
        self.trace = None;
        self.send(Command::Trace(None));
    }

    /// Lets a session wake the datapath.
    pub(crate) fn add_doorbell(&mut self, session: SessionId, fd: Arc<OwnedFd>) {
        let tally = Arc::clone(self.doorbells.entry(session).or_default());
        self.send(Command::AddDoorbell(Doorbell { session, fd, tally }));
    }

    pub(crate) fn remove_doorbell(&mut self, session: SessionId) {
        if self.doorbells.remove(&session).is_some() {
            self.send(Command::RemoveDoorbell(session));
        }
    }

    /// What is counted of the doorbell of a session, or of all that there ever were.
    pub(crate) fn doorbell_counts(&self, session: Option<SessionId>) -> [(&'static str, u64); 2] {
        let tally = session.map_or(Some(self.port.doorbells()), |session| self.doorbells.get(&session));
        let (in_vain, put_out) = tally.map_or((0, 0), |tally| (tally.in_vain(), tally.put_out()));
        [("doorbells_in_vain", in_vain), ("doorbells_put_out", put_out)]
    }
}

/// The tables of slots that a datapath was to be given, by number.
#[derive(Debug, Default)]
struct Tables {
    last: u32,
}

impl Tables {
    /// One more, and its number. One that cannot be filled has a number, too: whoever waits for
    /// the last one to be in force must not take the one before for it.
    fn fill(&mut self, config: SlotConfig, streams: &[TimedStream]) -> Result<(Box<SlotTable>, u32), TableError> {
        self.last = self.last.wrapping_add(1);
        let mut table = Box::new(SlotTable::new(config.timing));
        // Slots count from TAI zero, so hosts agree without a word.
        table.fill(TaiTime(0), streams)?;
        Ok((table, self.last))
    }

    /// Whether the one in force is the last one.
    const fn is_last(&self, in_force: u32) -> bool {
        self.last == in_force
    }
}

/// What a datapath starts with, beside its links.
struct Starter {
    hosting: Hosting,
    config: EngineConfig,
    run: RunConfig,
    wake_page: Arc<Region>,
    link_of_peer: Vec<Option<usize>>,
    domains: Vec<DomainParts>,
    counters: CounterBlock,
    port: Arc<Port>,
    waker: Option<Arc<WakeQueue>>,
}

impl Starter {
    /// Starts an engine made for links of this kind: who turns it, its thread, and what it
    /// asked for and did not get.
    fn start<L: Link + Send + 'static>(
        self,
        links: Vec<L>,
        inline: fn(InlineEngine<L>) -> InlineHost,
    ) -> io::Result<(Host, Option<i32>, Vec<String>)> {
        let Starter { hosting, config, run, wake_page, link_of_peer, domains, counters, port, waker } = self;
        let parts = EngineParts { links, link_of_peer, domains, counters, port, waker };
        Ok(match hosting {
            Hosting::Thread => {
                let thread = DatapathThread::start(config, parts, wake_page, run)?;
                let started = thread.started.clone();
                (Host::Thread(thread), Some(started.tid), started.degraded)
            }
            Hosting::Inline => {
                let engine = inline(InlineEngine::start(config, parts)?);
                (Host::Inline(Arc::new(engine)), None, Vec::new())
            }
        })
    }
}

/// The numbers of the reliable contract, the same for every datapath.
pub(crate) fn reliable_limits() -> insane_overlay::reliable::Limits {
    EngineConfig::new(HostId(0), Incarnation(0)).reliable
}

fn engine_config(plan: &Plan, (host, incarnation): (HostId, Incarnation)) -> EngineConfig {
    let sizes = insane_config::LayoutSizes::default();
    let largest = plan.domains.iter().flat_map(|domain| &domain.receive).map(|class| class.size).max();
    EngineConfig {
        flows: sizes.flows as usize,
        reassemblies: sizes.reassemblies as usize,
        // Larger messages would find no buffer anyway.
        message_bytes_max: largest.unwrap_or(0).max(insane_core::limits::INLINE_BYTES_MAX as u32),
        reliable: reliable_limits(),
        reliable_sources: insane_config::RELIABLE_SOURCES_OF_DATAPATH as usize,
        ..EngineConfig::new(host, incarnation)
    }
}

fn run_config(plan: &DatapathPlan) -> RunConfig {
    let mut name = format!("dp-{}", plan.name);
    while name.len() > 15 {
        name.pop();
    }
    RunConfig {
        name,
        core: plan.core.map(usize::from),
        policy: match plan.policy {
            Policy::Other => SchedPolicy::Other,
            Policy::Fifo(priority) => SchedPolicy::Fifo(priority),
        },
        idle: match plan.idle {
            Idle::Spin => thread::Idle::Spin,
            Idle::Yield => thread::Idle::Yield,
            Idle::SpinThenBlock { spin } => thread::Idle::SpinThenBlock(spin),
            Idle::Block => thread::Idle::Block,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insane_scheduler::{LatePolicy, LinkRate, LinkTiming, Recurrence};

    #[test]
    fn a_table_that_cannot_be_filled_is_not_taken_for_one_that_took_over() {
        let rate = LinkRate::from_bits_per_s(1_000_000_000).unwrap();
        let timing =
            LinkTiming { rate, turn_ns: 1_000, foreign_bytes: 0, in_flight_bytes: 9_000, lead_ns: 0, step_ns: 500 };
        let config =
            SlotConfig { timing, overhead_bytes: 0, servo: insane_clock::ServoConfig::default(), asked_links: 0 };
        let stream = |number: u16, offset: u64| TimedStream {
            flow: insane_engine::timed_flow(number),
            slots: Recurrence::new(100_000, offset, 10_000).unwrap(),
            bytes: 100,
            early_ns: 0,
            deadline_ns: 0,
            late: LatePolicy::Drop,
        };
        let mut tables = Tables::default();
        assert!(tables.is_last(0), "none was asked for");
        let (_, first) = tables.fill(config, &[stream(0, 0), stream(1, 50_000)]).unwrap();
        assert!(!tables.is_last(0) && tables.is_last(first));
        assert!(tables.fill(config, &[stream(0, 0), stream(1, 5_000)]).is_err(), "they overlap");
        assert!(!tables.is_last(first), "the old one is in force, and not what was asked for");
        let (_, third) = tables.fill(config, &[]).unwrap();
        assert!(tables.is_last(third) && !tables.is_last(first));
    }
}
