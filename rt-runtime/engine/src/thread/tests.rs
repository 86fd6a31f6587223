//! A datapath thread that sleeps, and clients that ring. Its longest sleep is longer here than
//! anybody waits ([`SLEEP_MAX`](super::SLEEP_MAX)), so a ring that is missed is seen.

use super::*;
use crate::command::{Command, NewSink, NewSource, Port, Topic};
use crate::spin::SETTLES_VAIN;
use crate::watch::QUIET_AFTER;
use crate::{DomainParts, Doorbell};
use insane_core::counters::{PortCounter, TurnCounter};
use insane_core::heap::{ClassSpec, Geometry};
use insane_core::{ChannelId, ConnId, DomainIndex, HostId, Incarnation, Lane, SourceId, StreamKey};
use insane_shm::cell::{cells_bytes, returns_bytes};
use insane_shm::conn::{RxConn, TxConn};
use insane_shm::counters::CounterBlock;
use insane_shm::heap::{ForeignHeap, SenderHeap};
use insane_shm::port::{SinkPort, SourcePort};
use insane_shm::returns::places;
use insane_shm::wake::{How, WAKE_PAGE_BYTES, Waker};
use insane_sim::SimLink;
use insane_sys::event::Event;
use std::num::NonZeroU32;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

const TOPIC: Topic = Topic { key: StreamKey(7), channel: ChannelId(1) };
const DOMAIN: DomainIndex = DomainIndex(0);
const DEPTH: u32 = 8;
/// Long beside any delay of a scheduler, and short enough for a test that fails.
const BACKSTOP: Duration = Duration::from_secs(10);

/// A datapath thread and what its clients need of it.
struct Sleepy {
    thread: DatapathThread,
    port: Arc<Port>,
    page: Arc<Region>,
    heap: (Arc<Region>, Geometry),
    turns: CounterBlock,
    conns: u32,
}

fn region(bytes: u64) -> Arc<Region> {
    Region::anonymous(bytes as usize).unwrap()
}

impl Sleepy {
    fn start(idle: Idle) -> Self {
        let geometry = Geometry::new(&[ClassSpec { size: 2048, count: 8 }]).unwrap();
        let heap = region(geometry.bytes());
        let (counters, turns) = (CounterBlock::private(), CounterBlock::private());
        let port = Port::new(Arc::new(Event::new().unwrap())).unwrap();
        let parts = EngineParts::<SimLink> {
            links: Vec::new(),
            link_of_peer: Vec::new(),
            domains: vec![DomainParts { heap: SenderHeap::new(Arc::clone(&heap), geometry.clone()), counters }],
            counters: turns.clone(),
            port: Arc::clone(&port),
            waker: None,
        };
        let page = region(WAKE_PAGE_BYTES as u64);
        let run = RunConfig { name: "sleepy".to_owned(), core: None, policy: SchedPolicy::Other, idle };
        let config = EngineConfig::new(HostId(1), Incarnation(1));
        let thread = DatapathThread::start(config, parts, Arc::clone(&page), run).unwrap();
        Sleepy { thread, port, page, heap: (heap, geometry), turns, conns: 0 }
    }

    fn command(&self, command: Command) {
        self.port.send(command).unwrap();
        let until = Instant::now() + BACKSTOP;
        let back = loop {
            match self.port.collect() {
                Some(back) => break back,
                None => assert!(Instant::now() < until, "a command ends a sleep"),
            }
            std::thread::yield_now();
        };
        assert!(matches!(*back, Command::Spent));
    }

    fn sink(&mut self) -> SinkPort {
        self.conns += 1;
        let (id, buffers) = (ConnId(self.conns), self.heap.1.buffers());
        let (cells, returns) = (region(cells_bytes(DEPTH)), region(returns_bytes(places(buffers))));
        let conn = TxConn::new(id, Arc::clone(&cells), Arc::clone(&returns), DEPTH, buffers, None);
        let (session, lane, wakes_per_second) = (SessionId(0), Lane::LAST, NonZeroU32::MIN);
        let new = NewSink { conn, topic: TOPIC, domain: DOMAIN, session, lane, wakes_per_second };
        self.command(Command::AddSink(new));
        let (port, mailbox) = SinkPort::new(None, CounterBlock::private()).unwrap();
        let heap = ForeignHeap::new(Arc::clone(&self.heap.0), self.heap.1.clone());
        let _ = mailbox.add(Box::new(RxConn::new(id, cells, returns, DEPTH, heap, true)));
        let (peers, local) = (heapless::Vec::new(), true);
        self.command(Command::SetRoute { topic: TOPIC, domain: DOMAIN, peers, local });
        port
    }

    /// Sources of one session, which has a doorbell, and what they count.
    fn sources(&mut self, session: u32, count: u32) -> Vec<(SourcePort, CounterBlock)> {
        let (session, doorbell) = (SessionId(session), Event::new().unwrap());
        let fd = Arc::new(doorbell.as_fd().try_clone_to_owned().unwrap());
        self.command(Command::AddDoorbell(Doorbell { session, fd, tally: Arc::default() }));
        let one = |sleepy: &mut Sleepy| {
            sleepy.conns += 1;
            let id = ConnId(sleepy.conns);
            let (cells, returns) = (region(cells_bytes(DEPTH)), region(returns_bytes(places(0))));
            let how = How::Event(doorbell.as_fd().try_clone_to_owned().unwrap());
            let waker = Waker::of_datapath(Arc::clone(&sleepy.page), Arc::clone(&returns), how);
            let tx = TxConn::new(id, Arc::clone(&cells), Arc::clone(&returns), DEPTH, 0, Some(waker));
            let counters = CounterBlock::private();
            let (port, mailbox) = SourcePort::new(None, false, counters.clone()).unwrap();
            let _ = mailbox.add(Box::new(tx));
            let conn = RxConn::new(id, cells, returns, DEPTH, None, false);
            sleepy.command(Command::AddSource(NewSource {
                conn,
                source: SourceId(sleepy.conns),
                topic: TOPIC,
                domain: DOMAIN,
                session,
                budget: None,
                lane: Lane::LAST,
                reliable: false,
                slots: None,
                keeps: false,
            }));
            (port, counters)
        };
        (0..count).map(|_| one(self)).collect()
    }

    fn count(&self, counter: TurnCounter) -> u64 {
        self.turns.get(counter as usize)
    }
}

/// Emits and waits for it. Nobody else emits, so nothing but its own ring wakes the datapath.
fn hop(source: &SourcePort, sink: &SinkPort, number: u64) {
    assert!(source.emit_copy(&number.to_ne_bytes(), 0).unwrap().is_sent());
    let until = Instant::now() + BACKSTOP;
    while sink.consume().unwrap().is_none() {
        assert!(Instant::now() < until, "message {number} was slept through");
        std::hint::spin_loop();
    }
}

/// Each source is quiet again when its turn comes, and emits some time after the datapath was
/// done with the last message: before, while and after it goes to sleep.
fn emit_around_the_sleep(idle: Idle) {
    const SESSIONS: u32 = 5;
    const ROUNDS: u64 = 20;
    let mut sleepy = Sleepy::start(idle);
    let sink = sleepy.sink();
    let sources: Vec<_> = (1..=SESSIONS).flat_map(|session| sleepy.sources(session, 240)).collect();
    let turns = |sleepy: &Sleepy| sleepy.count(TurnCounter::Turns);
    let (mut number, mut rung, mut asleep) = (0_u64, 0, 0);
    for _ in 0..ROUNDS {
        let before = turns(&sleepy);
        for (source, rings) in &sources {
            let (wakes, sleeps) = (rings.get(PortCounter::Wakes as usize), sleepy.count(TurnCounter::Sleeps));
            hop(source, &sink, number);
            rung += rings.get(PortCounter::Wakes as usize) - wakes;
            asleep += sleepy.count(TurnCounter::Sleeps) - sleeps;
            number += 1;
            // No two the same, and all within what a datapath needs to fall asleep.
            (0..number * 7 % 509 * 8).for_each(|_| std::hint::spin_loop());
        }
        // A round lasts longer than it takes to become quiet.
        assert!(turns(&sleepy) - before > u64::from(QUIET_AFTER));
    }
    assert!(rung > number / 2 && asleep > number / 10, "{number} messages, {rung} rings, {asleep} sleeps");
    sleepy.thread.stop();
}

#[test]
fn no_message_of_a_quiet_source_is_slept_through() {
    emit_around_the_sleep(Idle::Block);
}

#[test]
fn no_message_of_a_quiet_source_is_slept_through_by_who_spins_before() {
    emit_around_the_sleep(Idle::SpinThenBlock(Nanos::from_micros(3)));
}

/// One message each two milliseconds, and a configured maximum that is longer than that.
#[test]
fn who_spins_in_vain_soon_sleeps_as_soon_as_a_turn_moves_nothing() {
    const MESSAGES: u64 = 100;
    let mut sleepy = Sleepy::start(Idle::SpinThenBlock(Nanos::from_millis(10)));
    let sink = sleepy.sink();
    let (source, _) = sleepy.sources(1, 1).remove(0);
    let seldom = |messages: u64| {
        for number in 0..messages {
            std::thread::sleep(Duration::from_millis(2));
            hop(&source, &sink, number);
        }
    };
    seldom(2 * u64::from(SETTLES_VAIN));
    let both = || [TurnCounter::Turns, TurnCounter::Sleeps].map(|counter| sleepy.count(counter));
    let before = both();
    seldom(MESSAGES);
    let after = both();
    let [turns, sleeps] = [0, 1].map(|at: usize| after[at] - before[at]);
    println!("{turns} turns and {sleeps} sleeps for {MESSAGES} messages");
    assert!(sleeps >= MESSAGES * 9 / 10, "{sleeps} sleeps for {MESSAGES} messages");
    assert!(turns <= MESSAGES * 8, "{turns} turns for {MESSAGES} messages");
    sleepy.thread.stop();
}
