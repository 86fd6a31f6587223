//! Sinks that only watch: what a source, its receivers and its peers notice of them.
//! Nothing.

use insane_rt::{
    ChannelId, Consumption, Emit, Hosting, Outcome, Plan, Qos, Refusal, Reliability, RequestError, Session, Sink,
    SinkOptions, Source, SourceOptions, StreamOptions,
};
use std::time::Duration;

const CHANNEL: ChannelId = ChannelId(1);
const SECOND: Duration = Duration::from_secs(5);
/// Long enough for anything that should not happen to happen.
const MOMENT: Duration = Duration::from_millis(100);
const SIZES: [usize; 3] = [10, 96, 700];

fn qos(reliability: Reliability) -> Qos {
    Qos { reliability, consumption: Consumption::Poll, ..Qos::default() }
}

fn tap_options(depth: u32) -> SinkOptions {
    SinkOptions::default().depth(depth).observer()
}

fn emit(source: &Source, sequence: usize) -> Result<u64, Refusal> {
    let mut buffer = source.get_buffer_timeout(SIZES[sequence % SIZES.len()], SECOND).expect("a buffer is free");
    buffer.fill(sequence as u8);
    match source.emit(buffer) {
        Emit::Sent(token) => Ok(token.sequence()),
        Emit::Refused(_, refusal) => Err(refusal),
    }
}

/// Takes what waits: how many messages came, and how many were told as lost.
fn drain(sink: &Sink) -> (u64, u64) {
    let (mut got, mut lost) = (0, 0);
    while let Some(message) = sink.consume().unwrap() {
        let sequence = message.sequence() as usize;
        assert_eq!(message.to_vec(), vec![sequence as u8; SIZES[sequence % SIZES.len()]]);
        got += 1;
        lost += u64::from(message.lost());
    }
    (got, lost)
}

fn wait_for(mut condition: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < SECOND, "it never happens");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Emits until the tap sees something, and takes it all; the next number.
fn joined(source: &Source, tap: &Sink) -> usize {
    let mut sent = 0;
    wait_for(|| {
        sent += usize::from(emit(source, sent).is_ok());
        drain(tap).0 > 0
    });
    sent
}

#[test]
fn a_tap_is_no_receiver_and_stalls_no_reliable_source() {
    for reliability in [Reliability::Reliable, Reliability::Unreliable] {
        let session = Session::embedded("tapped").unwrap();
        let watcher = session.sibling("tap").unwrap();
        let stream = session.stream("s", qos(reliability)).unwrap();
        let source = stream.source(CHANNEL, SourceOptions::default()).unwrap();
        let tap = watcher.stream("s", qos(reliability)).unwrap().sink(CHANNEL, tap_options(8)).unwrap();
        assert!(source.wait_for_receivers(MOMENT).is_err(), "{reliability:?}: a tap is no receiver");
        let first = joined(&source, &tap);
        assert_eq!(source.receivers(), 0);
        for sequence in first..first + 100 {
            let mut buffer = source.get_buffer(SIZES[sequence % 3]).unwrap();
            buffer.fill(sequence as u8);
            let token = source.emit(buffer).sent().expect("nobody waits for a tap");
            assert_eq!(token.sequence(), sequence as u64);
            let outcome = source.outcome(token);
            let Outcome::Published { receivers, dropped, .. } = outcome else { panic!("{outcome:?}") };
            assert_eq!((receivers, dropped), (0, 0), "{reliability:?} {sequence}");
        }
        assert_eq!(drain(&tap), (8, 0), "what its ring holds");
        emit(&source, first + 100).unwrap();
        assert_eq!(drain(&tap), (1, 92), "and it is told what it missed");
    }
}

#[test]
fn receivers_get_and_miss_the_same_with_a_tap_beside_them() {
    let session = Session::embedded("beside").unwrap();
    let stream = session.stream("s", qos(Reliability::Reliable)).unwrap();
    let source = stream.source(CHANNEL, SourceOptions::default().buffers(1024, 8)).unwrap();
    let sink = stream.sink(CHANNEL, SinkOptions::default().depth(16)).unwrap();
    let tap = stream.sink(CHANNEL, tap_options(1024)).unwrap();
    let mut sent = joined(&source, &tap);
    source.wait_for_receivers(SECOND).unwrap();
    assert_eq!(source.receivers(), 1);
    // The tap takes nothing, and holds a quarter of the buffers.
    for _ in 0..50 {
        while emit(&source, sent).is_ok() {
            sent += 1;
            if sent.is_multiple_of(5) {
                break;
            }
        }
        assert!(drain(&sink).0 > 0);
    }
    let (seen, missed) = drain(&tap);
    assert!(seen > 0, "the tap sees messages");
    assert!(missed > 0, "buffers are the receiver's first: a tap that takes none misses some");
    // The ring of the sink is full: that, and not the tap, refuses.
    let refusal = loop {
        match emit(&source, sent) {
            Ok(_) => sent += 1,
            Err(refusal) => break refusal,
        }
        drain(&tap);
    };
    assert_eq!(refusal, Refusal::NoRoom);
}

#[test]
fn on_an_isolated_stream_a_tap_sees_what_others_get() {
    let session = Session::embedded("isolated").unwrap();
    let stream = session.stream_with("s", qos(Reliability::Reliable), StreamOptions::default().isolated(true)).unwrap();
    let source = stream.source(CHANNEL, SourceOptions::default()).unwrap();
    let tap = stream.sink(CHANNEL, tap_options(64)).unwrap();
    assert!(source.wait_for_receivers(MOMENT).is_err(), "a datapath that serves a tap alone is no receiver");
    let sink = stream.sink(CHANNEL, SinkOptions::default()).unwrap();
    source.wait_for_receivers(SECOND).unwrap();
    let (mut at_sink, mut at_tap) = ((0, 0), (0, 0));
    for sequence in 0..30 {
        emit(&source, sequence).unwrap();
        wait_for(|| {
            at_sink.0 += drain(&sink).0;
            let (got, lost) = drain(&tap);
            at_tap = (at_tap.0 + got, at_tap.1 + lost);
            at_sink.0 == sequence as u64 + 1 && at_tap.0 + at_tap.1 == sequence as u64 + 1
        });
    }
    assert_eq!(at_tap, (30, 0));
}

#[test]
fn a_tap_calls_for_nothing_from_another_host_and_sees_what_comes() {
    let (port_a, port_b) = two_ports();
    let (plan_a, plan_b) = Plan::loopback_pair(port_a, port_b);
    let a = Session::embedded_with(plan_a, Hosting::Thread, "a").unwrap();
    let b = Session::embedded_with(plan_b, Hosting::Thread, "b").unwrap();
    let source = a.stream("s", qos(Reliability::Reliable)).unwrap().source(CHANNEL, SourceOptions::default()).unwrap();
    let there = b.stream("s", qos(Reliability::Reliable)).unwrap();
    let tap = there.sink(CHANNEL, tap_options(4)).unwrap();
    wait_for(|| {
        let _ = tap.consume();
        tap.has_senders()
    });
    assert!(source.wait_for_receivers(3 * MOMENT).is_err(), "the other host hears of no tap");
    let sink = there.sink(CHANNEL, SinkOptions::default()).unwrap();
    source.wait_for_receivers(SECOND).unwrap();
    // The tap takes nothing, and its ring is small: the reliable flow goes on.
    let mut got = 0;
    for sequence in 0..200 {
        wait_for(|| {
            got += drain(&sink).0;
            emit(&source, sequence).is_ok()
        });
    }
    wait_for(|| {
        got += drain(&sink).0;
        got == 200
    });
    let (seen, _) = drain(&tap);
    assert!((1..=4).contains(&seen), "{seen}");
}

#[test]
fn a_tap_polls() {
    let session = Session::embedded("polls").unwrap();
    let stream = session.stream("s", Qos::default()).unwrap();
    let refused = stream.sink(CHANNEL, SinkOptions::default().observer().pollable());
    assert!(matches!(refused, Err(RequestError::Option(_))), "{refused:?}");
    for _ in 0..4 {
        std::mem::forget(stream.sink(CHANNEL, tap_options(8)).unwrap());
    }
    let refused = stream.sink(CHANNEL, tap_options(8));
    assert!(matches!(&refused, Err(RequestError::Refused { .. })), "{refused:?}");
}

/// Two ports of the loopback interface that were free a moment ago; a link uses its port and
/// the one above it.
fn two_ports() -> (u16, u16) {
    let base = 30_000 + (std::process::id() % 10_000) as u16;
    let free = |port: u16| [port, port + 1].iter().all(|port| std::net::UdpSocket::bind(("127.0.0.1", *port)).is_ok());
    let mut ports = (base..60_000).step_by(2).filter(|port| free(*port));
    (ports.next().expect("a free pair"), ports.next().expect("another free pair"))
}
