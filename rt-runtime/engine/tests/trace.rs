//! What turns leave for who takes a trace, and what it costs when nobody does.

mod world;

use insane_core::time::Clock;
use insane_core::{HostId, Incarnation, Lane, MonoTime, Nanos};
use insane_engine::{Command, EngineConfig};
use insane_link::LinkSetup;
use insane_shm::region::Region;
use insane_shm::trace::{Missing, Record, TRACE_BYTES, TraceLog, TraceReader, TurnRecord};
use insane_sim::{SimClock, SimConfig, SimLink, SimNet};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use world::{Host, TOPIC, address};

/// A clock that counts who looks at it, and moves on with each look.
#[derive(Clone)]
struct Watched {
    inner: SimClock,
    looks: Rc<Cell<u64>>,
    /// What one look takes.
    step: Rc<Cell<u64>>,
}

impl Clock for Watched {
    fn now(&self) -> MonoTime {
        self.looks.set(self.looks.get() + 1);
        self.inner.now() + Nanos(self.looks.get() * self.step.get())
    }
}

struct World {
    net: SimNet,
    host: Host<SimLink, Watched>,
    peer: Host,
    clock: Watched,
}

fn world() -> World {
    let net = SimNet::new(5, SimConfig::default());
    let clock = Watched { inner: net.clock(), looks: Rc::default(), step: Rc::default() };
    let link = net.setup(address(1)).open(&[Some(address(2))]).unwrap();
    let config = EngineConfig::new(HostId(1), Incarnation(1));
    let host = Host::of(config, link, clock.clone(), 1, &[(2048, 64)], None);
    let peer = Host::new(&net, 2, &[1], &[(2048, 64)]);
    World { net, host, peer, clock }
}

fn begin(host: &mut Host<SimLink, Watched>) -> TraceReader {
    let region = Region::anonymous(TRACE_BYTES).unwrap();
    let before = host.command(Command::Trace(TraceLog::new(Arc::clone(&region))));
    assert!(matches!(before, Command::Trace(None)), "there was none");
    let mut reader = TraceReader::new(region).unwrap();
    // The turn that took the command is on it: the trace began in it.
    taken(&mut reader);
    reader
}

fn end(host: &mut Host<SimLink, Watched>) {
    assert!(matches!(host.command(Command::Trace(None)), Command::Trace(Some(_))), "it comes back, to be let go");
}

fn taken(reader: &mut TraceReader) -> Vec<TurnRecord> {
    let mut turns = Vec::new();
    reader.take(|record| match record {
        Record::Turn(turn) => turns.push(turn),
        Record::Slot(slot) => panic!("there are no slots: {slot:?}"),
    });
    assert_eq!(reader.missing(), Missing::default());
    turns
}

#[test]
fn turns_that_moved_something_are_told_with_what_it_was_and_the_others_are_counted() {
    let World { net, mut host, mut peer, .. } = world();
    let source = host.source(TOPIC, Lane::LAST, &[]);
    let (sink, _) = host.sink(TOPIC);
    host.route(TOPIC, &[0], false);
    let theirs = peer.source(TOPIC, Lane::LAST, &[]);
    peer.route(TOPIC, &[0], false);
    let mut reader = begin(&mut host);
    (0..7).for_each(|_| assert!(!host.engine.turn()));
    assert_eq!(taken(&mut reader), [], "they moved nothing");
    assert!(source.emit_copy(b"out", 0).unwrap().is_sent());
    let sent_at = net.clock().now();
    host.engine.turn();
    (0..3).for_each(|_| assert!(!host.engine.turn()));
    assert!(theirs.emit_copy(b"in", 0).unwrap().is_sent());
    peer.engine.turn();
    net.advance(Nanos::from_millis(1));
    let came_at = net.clock().now();
    host.engine.turn();
    assert!(sink.consume().unwrap().is_some());
    let turn = |at, messages, frames, idle_before| TurnRecord {
        begins: at,
        ends: at,
        messages,
        frames,
        took_commands: false,
        woke: false,
        kept_house: false,
        idle_before,
    };
    assert_eq!(taken(&mut reader), [turn(sent_at, 1, 0, 7), turn(came_at, 0, 1, 3)]);
    end(&mut host);
    assert!(taken(&mut reader).iter().all(|turn| turn.took_commands), "the last one let the trace go");
    assert!(source.emit_copy(b"out", 0).unwrap().is_sent());
    host.engine.turn();
    assert_eq!(taken(&mut reader), [], "nothing is told when it is over");
}

#[test]
fn a_turn_that_took_long_is_told_though_it_moved_nothing() {
    let World { mut host, clock, .. } = world();
    let mut reader = begin(&mut host);
    (0..5).for_each(|_| assert!(!host.engine.turn()));
    clock.step.set(25_000);
    assert!(!host.engine.turn());
    let turns = taken(&mut reader);
    assert_eq!(turns.len(), 1, "{turns:?}");
    assert!(turns[0].ends.since(turns[0].begins) >= Nanos::from_micros(25));
    assert_eq!((turns[0].messages, turns[0].frames, turns[0].idle_before), (0, 0, 5));
}

#[test]
fn without_a_trace_a_turn_looks_at_the_clock_no_more_often_than_before() {
    /// Looks of turns that send and of turns in vain, two rounds of housekeeping among them.
    fn looks(World { host, clock, .. }: &mut World, source: &insane_shm::port::SourcePort) -> u64 {
        let before = clock.looks.get();
        for number in 0..2_048 {
            if number % 8 == 0 {
                assert!(source.emit_copy(b"out", 0).unwrap().is_sent());
            }
            host.engine.turn();
        }
        clock.looks.get() - before
    }
    let mut world = world();
    let source = world.host.source(TOPIC, Lane::LAST, &[]);
    world.host.route(TOPIC, &[0], false);
    let before = looks(&mut world, &source);
    let reader = begin(&mut world.host);
    let during = looks(&mut world, &source);
    end(&mut world.host);
    drop(reader);
    let after = looks(&mut world, &source);
    assert_eq!(before, after);
    // Two a turn, one of which those had that are measured anyway.
    assert_eq!(during, before + 2 * 2_048 - 2);
}
