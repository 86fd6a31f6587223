//! A turn allocates nothing, whatever it does: this binary's allocator counts.

mod world;

use insane_core::counters::DatapathCounter;
use insane_core::{Lane, Nanos};
use insane_engine::Command;
use insane_engine::waker::{QUEUE_PLACES, WakerThread};
use insane_shm::port::{SinkPort, SourcePort};
use insane_shm::region::Region;
use insane_shm::trace::{TRACE_BYTES, TraceLog, TraceReader};
use insane_sim::{Chance, Faults, SimConfig, SimNet};
use insane_sys::guard::{self, GuardAllocator};
use std::sync::Arc;
use world::{Host, TOPIC, address, pair};

#[global_allocator]
static ALLOCATOR: GuardAllocator = GuardAllocator;

const SIZES: [usize; 5] = [0, 64, 97, 2_000, 100_000];

fn emit_and_consume(source: &SourcePort, sink: &SinkPort, number: usize) -> u64 {
    if let Ok(mut buffer) = source.get_buffer(SIZES[number % SIZES.len()]) {
        buffer.fill(number as u8);
        assert!(source.emit(buffer, 0).is_sent());
    }
    let mut received = 0;
    while let Ok(Some(message)) = sink.consume() {
        assert_eq!(message.bytes().map(<[u8]>::len), Some(message.len()));
        received += 1;
    }
    received
}

#[test]
fn turn_emit_and_consume_allocate_nothing() {
    let net = SimNet::new(3, SimConfig { frames_max: 4096, ..SimConfig::default() });
    let receive = [(2048, 64), (100_000, 8)];
    let (mut a, mut b) = pair(&net, &receive);
    net.set_faults(
        address(1),
        address(2),
        Faults { loss: Chance::percent(1), duplication: Chance::percent(2), ..Faults::NONE },
    );
    let source = a.source(TOPIC, Lane::LAST, &receive);
    let (near, _) = a.sink(TOPIC);
    let (far, _) = b.sink(TOPIC);
    a.route(TOPIC, &[0], true);
    // While a trace is taken, nothing is different.
    let trace = Region::anonymous(TRACE_BYTES).unwrap();
    let begun = a.command(Command::Trace(TraceLog::new(Arc::clone(&trace))));
    assert!(matches!(begun, Command::Trace(None)));
    let (mut near_count, mut far_count) = (0, 0);
    let before = guard::violations_here();
    guard::seal_thread();
    for number in 0..2_000 {
        near_count += emit_and_consume(&source, &near, number);
        while let Ok(Some(_)) = far.consume() {
            far_count += 1;
        }
        for _ in 0..4 {
            a.engine.turn();
            b.engine.turn();
        }
        net.advance(Nanos::from_millis(1));
        if number % 100 == 0 {
            a.engine.housekeeping();
            b.engine.housekeeping();
        }
    }
    guard::unseal_thread();
    assert!(near_count > 1_500 && far_count > 500, "{near_count} near, {far_count} far");
    let mut records = 0;
    TraceReader::new(trace).unwrap().take(|_| records += 1);
    assert!(records > 2_000, "{records}");
    assert_eq!(guard::violations_here() - before, 0);
}

#[test]
fn a_reliable_stream_allocates_nothing() {
    let net = SimNet::new(4, SimConfig { frames_max: 4096, ..SimConfig::default() });
    let receive = [(2048, 64), (100_000, 8)];
    let (mut a, mut b) = pair(&net, &receive);
    let faults = Faults { loss: Chance::percent(1), duplication: Chance::percent(2), ..Faults::NONE };
    net.set_faults(address(1), address(2), faults);
    let source = a.reliable_source(TOPIC, &receive);
    let (far, _) = b.sink(TOPIC);
    a.route(TOPIC, &[0], false);
    let (mut emitted, mut consumed) = (0, 0);
    let before = guard::violations_here();
    guard::seal_thread();
    for number in 0..3_000 {
        if let Ok(mut buffer) = source.get_buffer(SIZES[number % SIZES.len()]) {
            buffer.fill(number as u8);
            emitted += u64::from(source.emit(buffer, 0).is_sent());
        }
        // Now and then the sink sleeps until it is put out.
        if number % 1_000 < 700 {
            while let Ok(Some(_)) = far.consume() {
                consumed += 1;
            }
        }
        for _ in 0..4 {
            a.engine.turn();
            b.engine.turn();
            net.advance(Nanos::from_micros(500));
        }
        if number % 100 == 0 {
            a.engine.housekeeping();
            b.engine.housekeeping();
        }
    }
    guard::unseal_thread();
    assert_eq!(guard::violations_here() - before, 0);
    assert!(emitted > 1_000 && consumed > 500, "{emitted} emitted, {consumed} consumed");
    let counted = |counter| a.count(counter) + b.count(counter);
    assert!(counted(DatapathCounter::Repairs) > 0 && counted(DatapathCounter::Evictions) > 0);
}

#[test]
fn handing_wake_ups_over_allocates_nothing() {
    let net = SimNet::new(5, SimConfig::default());
    let waker = WakerThread::start().unwrap();
    let mut host = Host::with_waker(&net, 1, 1, &[], &[(2048, 8)], Some(waker.queue()));
    let source = host.source(TOPIC, Lane::LAST, &[]);
    let rates = [1_000_000, 1_000_000, 1_000_000, 1_000_000, 1];
    let sinks = rates.map(|rate| host.sleepy_sink(TOPIC, Lane::LAST, rate, rate));
    host.route(TOPIC, &[], true);
    let before = guard::violations_here();
    guard::seal_thread();
    for _ in 0..1_000 {
        for sink in &sinks {
            while sink.consume().unwrap().is_some() {}
            assert_eq!(sink.arm(), Ok(false));
        }
        assert!(source.emit_copy(b"up", 0).unwrap().is_sent());
        host.engine.turn();
        net.advance(Nanos::from_millis(1));
        host.engine.housekeeping();
    }
    guard::unseal_thread();
    assert_eq!(guard::violations_here() - before, 0);
    // As many at least as find a place if the waker never gets to run.
    assert!(host.count(DatapathCounter::WakesHandedOver) >= QUEUE_PLACES as u64);
    assert!(host.count(DatapathCounter::WakesRefused) > 0);
}

#[test]
fn the_guard_sees_an_allocation() {
    let before = guard::violations_here();
    guard::seal_thread();
    let boxed = std::hint::black_box(Box::new(1));
    drop(boxed);
    guard::unseal_thread();
    assert_eq!(guard::violations_here() - before, 2, "one allocation, one release");
}
