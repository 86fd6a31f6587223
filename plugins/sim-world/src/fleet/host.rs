//! One host of a fleet: an engine with its rings, heaps and counters, and membership.

use insane_core::counters::{DatapathCounter, PortCounter, TurnCounter};
use insane_core::heap::{ClassSpec, Geometry};
use insane_core::time::Clock;
use insane_core::{ConnId, DomainIndex, HostId, Incarnation, Lane, PeerIndex, SessionId, SourceId};
use insane_engine::{Command, DomainParts, Engine, EngineConfig, EngineParts, NewSink, NewSource, Port, Topic};
use insane_overlay::lanes::Pace;
use insane_overlay::membership::{Event, Limits, Membership};
use insane_shm::cell::{cells_bytes, returns_bytes};
use insane_shm::conn::{RxConn, TxConn};
use insane_shm::counters::CounterBlock;
use insane_shm::heap::{ForeignHeap, SenderHeap};
use insane_shm::port::{SinkPort, SourcePort};
use insane_shm::region::Region;
use insane_shm::returns::places;
use insane_sim::{SimClock, SimLink};
use insane_sys::event::Event as Signal;
use insane_wire::overlay::BODY_BYTES_MAX;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;

/// Messages that a ring holds.
pub const DEPTH: u32 = 256;
/// Classes of the receive heaps of each domain: bytes of a buffer, and how many.
pub const RECEIVE: [(u32, u32); 2] = [(2048, 256), (20_480, 24)];
/// Classes of a source's heap in each domain.
pub const SEND: [(u32, u32); 2] = [(2048, 64), (20_480, 8)];
/// Turns that a command may take.
const TURNS_MAX: usize = 10_000;
const WAKES_PER_SECOND: NonZeroU32 = NonZeroU32::new(1_000).unwrap();

/// A source of this host.
pub struct Source {
    /// The application's end.
    pub port: SourcePort,
    /// Its number on the wire.
    pub id: SourceId,
    /// What the application's end counts.
    pub counters: CounterBlock,
}

/// One host. See the module.
pub struct Host {
    /// The engine.
    pub engine: Engine<SimLink, SimClock>,
    /// What it counts for each domain.
    pub counters: [CounterBlock; 2],
    /// What it counts as a whole.
    pub turn_counters: CounterBlock,
    /// Who wants what.
    pub membership: Membership,
    lanes: Pace,
    /// By number of the stream.
    pub sources: BTreeMap<usize, Source>,
    /// By number of the stream.
    pub sinks: BTreeMap<usize, SinkPort>,
    /// The peers to which each conversation goes.
    pub routes: BTreeMap<Topic, BTreeSet<PeerIndex>>,
    /// Overlay frames given to the engine.
    pub overlay_sent: u64,
    /// Peers that went down.
    pub downs: u64,
    clock: SimClock,
    port: Arc<Port>,
    heaps: [(Arc<Region>, Geometry); 2],
    conns: u32,
}

fn region(bytes: u64) -> Arc<Region> {
    Region::anonymous(bytes as usize).unwrap_or_else(|error| panic!("no memory: {error}"))
}

fn geometry((size, count): (u32, u32)) -> Geometry {
    Geometry::new(&[ClassSpec { size, count }]).unwrap_or_else(|| panic!("{size} bytes are no class"))
}

impl Host {
    /// A host without sources and sinks.
    #[must_use]
    pub fn new(id: HostId, life: Incarnation, link: SimLink, peers: usize, clock: SimClock) -> Self {
        let heaps = RECEIVE.map(|class| {
            let geometry = geometry(class);
            (region(geometry.bytes()), geometry)
        });
        let counters = [CounterBlock::private(), CounterBlock::private()];
        let turn_counters = CounterBlock::private();
        let signal = || Signal::new().unwrap_or_else(|error| panic!("no event: {error}"));
        let port = Port::new(Arc::new(signal())).unwrap_or_else(|error| panic!("no port: {error}"));
        let domains = heaps.iter().zip(&counters).map(|((heap, geometry), counters)| DomainParts {
            heap: SenderHeap::new(Arc::clone(heap), geometry.clone()),
            counters: counters.clone(),
        });
        let parts = EngineParts {
            links: vec![link],
            link_of_peer: vec![Some(0); peers],
            domains: domains.collect(),
            counters: turn_counters.clone(),
            port: Arc::clone(&port),
            waker: None,
        };
        let config = EngineConfig { message_bytes_max: RECEIVE[1].0, ..EngineConfig::new(id, life) };
        Host {
            engine: Engine::new(config, parts, clock.clone()),
            counters,
            turn_counters,
            membership: Membership::new(id, life, peers, Limits::default()),
            lanes: Pace::new(),
            sources: BTreeMap::new(),
            sinks: BTreeMap::new(),
            routes: BTreeMap::new(),
            overlay_sent: 0,
            downs: 0,
            clock,
            port,
            heaps,
            conns: 0,
        }
    }

    /// Has a command carried out at once.
    fn command(&mut self, command: Command) -> Command {
        if self.port.send(command).is_err() {
            panic!("few commands are on the way");
        }
        for _ in 0..TURNS_MAX {
            self.engine.turn();
            match self.port.collect().map(|command| *command) {
                Some(answer) => return answer,
                None => continue,
            }
        }
        panic!("a command does not come back");
    }

    /// Opens the source of a stream.
    pub fn open_source(&mut self, number: usize, topic: Topic, domain: usize, reliable: bool) {
        self.conns += 1;
        let (conn, id) = (ConnId(self.conns), SourceId(self.conns));
        let geometry = geometry(SEND[domain]);
        let (cells, returns) = (region(cells_bytes(DEPTH)), region(returns_bytes(places(geometry.buffers()))));
        let heap = region(geometry.bytes());
        let sender = SenderHeap::new(Arc::clone(&heap), geometry.clone());
        let foreign = ForeignHeap::new(heap, geometry.clone());
        let counters = CounterBlock::private();
        let made = SourcePort::new(Some(sender), reliable, counters.clone());
        let (port, mailbox) = made.unwrap_or_else(|error| panic!("no source: {error}"));
        let tx = TxConn::new(conn, Arc::clone(&cells), Arc::clone(&returns), DEPTH, geometry.buffers(), None);
        let _ = mailbox.add(Box::new(tx));
        let conn = RxConn::new(conn, cells, returns, DEPTH, foreign, false);
        let lane = Lane::LAST;
        let new = NewSource {
            conn,
            source: id,
            topic,
            domain: DomainIndex(domain as u16),
            session: SessionId(0),
            budget: None,
            lane,
            reliable,
            slots: None,
            keeps: false,
        };
        assert!(matches!(self.command(Command::AddSource(new)), Command::Spent), "the engine has no place");
        self.sources.insert(number, Source { port, id, counters });
    }

    /// Opens a sink of a stream.
    pub fn open_sink(&mut self, number: usize, topic: Topic, domain: usize) {
        self.conns += 1;
        let id = ConnId(self.conns);
        let (heap, geometry) = &self.heaps[domain];
        let (cells, returns) = (region(cells_bytes(DEPTH)), region(returns_bytes(places(geometry.buffers()))));
        let conn = TxConn::new(id, Arc::clone(&cells), Arc::clone(&returns), DEPTH, geometry.buffers(), None);
        let made = SinkPort::new(None, CounterBlock::private());
        let (port, mailbox) = made.unwrap_or_else(|error| panic!("no sink: {error}"));
        let foreign = ForeignHeap::new(Arc::clone(heap), geometry.clone());
        let _ = mailbox.add(Box::new(RxConn::new(id, cells, returns, DEPTH, foreign, true)));
        let new = NewSink {
            conn,
            topic,
            domain: DomainIndex(domain as u16),
            session: SessionId(0),
            lane: Lane::LAST,
            wakes_per_second: WAKES_PER_SECOND,
        };
        assert!(matches!(self.command(Command::AddSink(new)), Command::Spent), "the engine has no place");
        self.sinks.insert(number, port);
    }

    /// Takes what the engine says, and does what membership wants; `drain` is called before
    /// a route changes.
    pub fn control(&mut self, domain_of: &BTreeMap<Topic, usize>) {
        let now = self.clock.now();
        while let Some(frame) = self.port.overlay_frame() {
            self.membership.on_frame(now, frame.peer, &frame.body);
            self.pass_events(domain_of);
        }
        if self.membership.next_deadline().is_some_and(|due| due <= now) {
            let mut body = [0; BODY_BYTES_MAX];
            while let Some((peer, len)) = self.membership.poll(now, &mut body) {
                let lane = self.lanes.lane(now, peer, &body[..len]);
                let Ok(body) = heapless::Vec::from_slice(&body[..len]) else { unreachable!("a body fits a frame") };
                self.command(Command::SendOverlay { peer, link: 0, lane, body });
                self.overlay_sent += 1;
            }
            self.pass_events(domain_of);
        }
    }

    fn pass_events(&mut self, domain_of: &BTreeMap<Topic, usize>) {
        while let Some(event) = self.membership.next_event() {
            match event {
                Event::PeerUp { peer, host, incarnation } | Event::PeerIncarnation { peer, host, incarnation } => {
                    self.command(Command::SetPeerLife { peer, host, incarnation: Some(incarnation) });
                }
                Event::PeerDown { peer } => {
                    self.downs += 1;
                    let with: Vec<Topic> =
                        self.routes.iter().filter(|(_, to)| to.contains(&peer)).map(|(topic, _)| *topic).collect();
                    for topic in with {
                        self.change_route(topic, peer, false, domain_of);
                    }
                }
                Event::RemoteInterest { peer, interest, on } => {
                    let topic = Topic { key: interest.stream, channel: interest.channel };
                    self.change_route(topic, peer, on, domain_of);
                }
                other => panic!("{other:?} among honest hosts"),
            }
        }
    }

    fn change_route(&mut self, topic: Topic, peer: PeerIndex, on: bool, domain_of: &BTreeMap<Topic, usize>) {
        // What was emitted so far goes the way it was emitted for, so that it can be counted.
        self.drain();
        let peers = self.routes.entry(topic).or_default();
        if on {
            peers.insert(peer)
        } else {
            peers.remove(&peer)
        };
        let peers = peers.iter().map(|peer| (*peer).into()).collect();
        let domain = DomainIndex(domain_of[&topic] as u16);
        assert!(matches!(self.command(Command::SetRoute { topic, domain, peers, local: false }), Command::Spent));
    }

    /// Turns until the engine has taken every message of the domain of small messages.
    pub fn drain(&mut self) {
        for _ in 0..TURNS_MAX {
            if self.sources.values().all(|source| source.port.buffers_in_use() == 0) && !self.engine.has_work() {
                return;
            }
            self.engine.turn();
        }
    }

    /// A counter of a domain.
    #[must_use]
    pub fn count(&self, domain: usize, counter: DatapathCounter) -> u64 {
        self.counters[domain].get(counter as usize)
    }

    /// A counter of the turn.
    #[must_use]
    pub fn turn_count(&self, counter: TurnCounter) -> u64 {
        self.turn_counters.get(counter as usize)
    }

    /// What the sources of all streams for which `which` is true dropped themselves.
    #[must_use]
    pub fn dropped_at_sources(&self, which: impl Fn(usize) -> bool) -> u64 {
        let sources = self.sources.iter().filter(|(number, _)| which(**number));
        sources.map(|(_, source)| source.counters.get(PortCounter::Dropped as usize)).sum()
    }
}
