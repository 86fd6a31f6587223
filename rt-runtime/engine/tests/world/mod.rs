//! Hosts with an engine each, joined by a simulated network.
#![allow(dead_code, missing_docs, reason = "each test uses its part")]

use insane_core::counters::DatapathCounter;
use insane_core::heap::{ClassSpec, Geometry};
use insane_core::time::Clock;
use insane_core::{
    ChannelId, ConnId, DomainIndex, HostId, Incarnation, Lane, Nanos, PeerIndex, SessionId, SourceId, StreamKey,
};
use insane_engine::waker::WakeQueue;
use insane_engine::{Command, DomainParts, Engine, EngineConfig, EngineParts, NewSink, NewSource, Port, Topic};
use insane_link::{Link, LinkSetup};
use insane_scheduler::Policing;
use insane_shm::cell::{cells_bytes, returns_bytes};
use insane_shm::conn::{RxConn, TxConn};
use insane_shm::counters::CounterBlock;
use insane_shm::heap::{ForeignHeap, SenderHeap};
use insane_shm::port::{SinkPort, SourcePort};
use insane_shm::region::Region;
use insane_shm::returns::places;
use insane_shm::wake::{How, Sleeper, WAKE_PAGE_BYTES, Waker};
use insane_sim::{SimClock, SimLink, SimNet};
use insane_sys::event::Event;
use insane_wire::data::{DataHeader, Flags, Kind};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

pub const TOPIC: Topic = Topic { key: StreamKey(7), channel: ChannelId(1) };
pub const DOMAIN: DomainIndex = DomainIndex(0);
pub const DEPTH: u32 = 256;
pub const WAKES_PER_SECOND: NonZeroU32 = NonZeroU32::new(100_000).unwrap();

pub fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 7400))
}

fn geometry(specs: &[(u32, u32)]) -> Geometry {
    let specs: Vec<ClassSpec> = specs.iter().map(|&(size, count)| ClassSpec { size, count }).collect();
    Geometry::new(&specs).expect("valid classes")
}

fn region(bytes: u64) -> Arc<Region> {
    Region::anonymous(bytes as usize).expect("memory")
}

pub struct Host<L: Link = SimLink, C: Clock = SimClock> {
    pub engine: Engine<L, C>,
    pub port: Arc<Port>,
    pub counters: CounterBlock,
    pub turn_counters: CounterBlock,
    heap: Arc<Region>,
    geometry: Geometry,
    pub next: u32,
    /// The number of the next source among those with slots.
    pub slots: Option<u16>,
    /// Sources to come keep their last values.
    pub keeps: bool,
    /// Of the sources to come.
    pub session: SessionId,
    pub budget: Option<Policing>,
}

impl Host {
    pub fn new(net: &SimNet, own: u8, peers: &[u8], receive: &[(u32, u32)]) -> Host {
        Host::in_life(net, own, 1, peers, receive)
    }

    pub fn in_life(net: &SimNet, own: u8, life: u64, peers: &[u8], receive: &[(u32, u32)]) -> Host {
        Host::with_waker(net, own, life, peers, receive, None)
    }

    pub fn with_waker(
        net: &SimNet,
        own: u8,
        life: u64,
        peers: &[u8],
        receive: &[(u32, u32)],
        waker: Option<Arc<WakeQueue>>,
    ) -> Host {
        let link = net
            .setup(address(own))
            .open(&peers.iter().map(|peer| Some(address(*peer))).collect::<Vec<_>>())
            .expect("the address is free");
        let config = EngineConfig::new(HostId(u64::from(own)), Incarnation(life));
        Host::of(config, link, net.clock(), peers.len(), receive, waker)
    }
}

impl<L: Link, C: Clock> Host<L, C> {
    /// With one link by which all peers are reached.
    pub fn of(
        config: EngineConfig,
        link: L,
        clock: C,
        peers: usize,
        receive: &[(u32, u32)],
        waker: Option<Arc<WakeQueue>>,
    ) -> Host<L, C> {
        Host::with_links(config, vec![link], clock, peers, receive, waker)
    }

    /// With several links; all peers are reached by the first of them.
    pub fn with_links(
        config: EngineConfig,
        links: Vec<L>,
        clock: C,
        peers: usize,
        receive: &[(u32, u32)],
        waker: Option<Arc<WakeQueue>>,
    ) -> Host<L, C> {
        let geometry = geometry(receive);
        let heap = region(geometry.bytes());
        let counters = CounterBlock::private();
        let turn_counters = CounterBlock::private();
        let port = Port::new(Arc::new(Event::new().unwrap())).unwrap();
        let parts = EngineParts {
            links,
            link_of_peer: vec![Some(0); peers],
            domains: vec![DomainParts {
                heap: SenderHeap::new(Arc::clone(&heap), geometry.clone()),
                counters: counters.clone(),
            }],
            counters: turn_counters.clone(),
            port: Arc::clone(&port),
            waker,
        };
        let engine = Engine::new(config, parts, clock);
        Host {
            engine,
            port,
            counters,
            turn_counters,
            heap,
            geometry,
            next: 0,
            slots: None,
            keeps: false,
            session: SessionId(0),
            budget: None,
        }
    }

    pub fn command(&mut self, command: Command) -> Command {
        self.port.send(command).expect("few commands are on the way");
        self.engine.turn();
        *self.port.collect().expect("the command comes back")
    }

    pub fn source(&mut self, topic: Topic, lane: Lane, classes: &[(u32, u32)]) -> SourcePort {
        self.source_with_rings(topic, lane, classes).0
    }

    pub fn source_with_rings(&mut self, topic: Topic, lane: Lane, classes: &[(u32, u32)]) -> (SourcePort, Arc<Region>) {
        self.source_of((false, false), topic, lane, classes)
    }

    /// A source of a reliable stream.
    pub fn reliable_source(&mut self, topic: Topic, classes: &[(u32, u32)]) -> SourcePort {
        self.source_of((true, true), topic, Lane::LAST, classes).0
    }

    /// A source that its client, and that its runtime, takes for reliable.
    pub fn source_of(
        &mut self,
        (client, reliable): (bool, bool),
        topic: Topic,
        lane: Lane,
        classes: &[(u32, u32)],
    ) -> (SourcePort, Arc<Region>) {
        self.next += 1;
        let id = ConnId(self.next);
        let geometry = geometry(classes);
        let places = places(geometry.buffers());
        let (cells, returns) = (region(cells_bytes(DEPTH)), region(returns_bytes(places)));
        let heap = (geometry.bytes() > 0).then(|| region(geometry.bytes()));
        let sender = heap.as_ref().map(|heap| SenderHeap::new(Arc::clone(heap), geometry.clone()));
        let foreign = heap.and_then(|heap| ForeignHeap::new(heap, geometry.clone()));
        let (port, mailbox) = SourcePort::new(sender, client, CounterBlock::private()).unwrap();
        let tx = TxConn::new(id, Arc::clone(&cells), Arc::clone(&returns), DEPTH, geometry.buffers(), None);
        let _ = mailbox.add(Box::new(tx));
        let conn = RxConn::new(id, Arc::clone(&cells), returns, DEPTH, foreign, false);
        let new = NewSource {
            conn,
            source: SourceId(self.next),
            topic,
            domain: DOMAIN,
            session: self.session,
            budget: self.budget,
            lane,
            reliable,
            slots: self.slots,
            keeps: self.keeps,
        };
        assert!(matches!(self.command(Command::AddSource(new)), Command::Spent));
        (port, cells)
    }

    pub fn sink(&mut self, topic: Topic) -> (SinkPort, Arc<Region>) {
        self.sink_of(topic, Lane::LAST, SessionId(0), WAKES_PER_SECOND, false, false)
    }

    /// A sink that only watches.
    pub fn tap(&mut self, topic: Topic) -> SinkPort {
        self.sink_of(topic, Lane::LAST, SessionId(0), WAKES_PER_SECOND, false, true).0
    }

    /// A sink that may sleep, of a session with this rate of wake-ups.
    pub fn sleepy_sink(&mut self, topic: Topic, lane: Lane, session: u32, wakes_per_second: u32) -> SinkPort {
        let rate = NonZeroU32::new(wakes_per_second).unwrap();
        self.sink_of(topic, lane, SessionId(session), rate, true, false).0
    }

    fn sink_of(
        &mut self,
        topic: Topic,
        lane: Lane,
        session: SessionId,
        wakes_per_second: NonZeroU32,
        sleeps: bool,
        observes: bool,
    ) -> (SinkPort, Arc<Region>) {
        self.next += 1;
        let id = ConnId(self.next);
        let (cells, returns) = (region(cells_bytes(DEPTH)), region(returns_bytes(places(self.geometry.buffers()))));
        let page = sleeps.then(|| region(WAKE_PAGE_BYTES as u64));
        let waker = page.clone().map(|page| Waker::new(page, How::Futex));
        let conn = TxConn::new(id, Arc::clone(&cells), Arc::clone(&returns), DEPTH, self.geometry.buffers(), waker);
        let conn = if observes { conn.observing() } else { conn };
        let new = NewSink { conn, topic, domain: DOMAIN, session, lane, wakes_per_second };
        assert!(matches!(self.command(Command::AddSink(new)), Command::Spent));
        let (port, mailbox) = SinkPort::new(page.map(Sleeper::new), CounterBlock::private()).unwrap();
        let heap = ForeignHeap::new(Arc::clone(&self.heap), self.geometry.clone());
        let _ = mailbox.add(Box::new(RxConn::new(id, cells, Arc::clone(&returns), DEPTH, heap, true)));
        (port, returns)
    }

    pub fn route(&mut self, topic: Topic, peers: &[u16], local: bool) {
        let peers = peers.iter().map(|peer| PeerIndex(*peer).into()).collect();
        let command = Command::SetRoute { topic, domain: DOMAIN, peers, local };
        assert!(matches!(self.command(command), Command::Spent));
    }

    pub fn count(&self, counter: DatapathCounter) -> u64 {
        self.counters.get(counter as usize)
    }
}

pub fn pair(net: &SimNet, receive: &[(u32, u32)]) -> (Host, Host) {
    (Host::new(net, 1, &[2], receive), Host::new(net, 2, &[1], receive))
}

pub fn run(net: &SimNet, hosts: &mut [&mut Host], turns: usize) {
    for _ in 0..turns {
        for host in hosts.iter_mut() {
            host.engine.turn();
        }
        net.advance(Nanos::from_micros(10));
    }
}

/// Lets time pass in which a host turns seldom, and yet so often that it has missed none of it.
pub fn pass(net: &SimNet, host: &mut Host, time: Nanos) {
    let until = net.clock().now() + time;
    while net.clock().now() < until {
        net.advance(until.since(net.clock().now()).min(Nanos::from_millis(50)));
        host.engine.turn();
    }
}

/// Of a whole message of so many bytes, from source 1 of a runtime in a life of it.
pub fn data_header((host, life): (u64, u64), sequence: u64, len: usize) -> DataHeader {
    DataHeader {
        kind: Kind::Data,
        lane: Lane::LAST,
        flags: Flags::NONE,
        stream: TOPIC.key,
        host: HostId(host),
        incarnation: Incarnation(life),
        sequence,
        source_instant: 0,
        channel: TOPIC.channel,
        source: SourceId(1),
        message_len: len as u32,
        fragment_offset: 0,
    }
}

pub fn pattern(sequence: u64, len: usize) -> Vec<u8> {
    (0..len).map(|at| (sequence as usize).wrapping_mul(31).wrapping_add(at.wrapping_mul(7)) as u8).collect()
}
