//! Applications that use the runtime to its limits, and none beyond.

use crate::world::{Daemon, Helper, OPEN, Place, until};
use insane_rt::{
    ChannelId, ClassSpec, Code, Emit, GetBufferError, Outcome, Qos, Refusal, Reliability, RequestError, SinkOptions,
    SourceOptions, StreamOptions,
};
use nix::sys::signal::{Signal, kill};
use std::time::Duration;

const QUIET: &str = "log: (level: error)";
const LONG: Duration = Duration::from_secs(20);
const CHANNEL: ChannelId = ChannelId(1);

fn through(isolated: bool) -> StreamOptions {
    StreamOptions::default().isolated(isolated)
}

#[test]
fn an_oversize_message_is_refused_or_counted_and_the_next_one_arrives() {
    let place = Place::new("oversize");
    // Messages that go through the runtime have at most 1,000 bytes here.
    let domain = "(name: \"d\", members: [any], receive: Some([(size: 1000, count: 16)]))";
    let daemon = Daemon::start(&place, domain, QUIET);
    let session = daemon.attach("large");
    let mut peer = daemon.peer();
    let id = peer.open("raw", Qos::default(), false);
    let (code, reason) = peer.source(id, &[ClassSpec { size: 100_000_001, count: 1 }]).unwrap_err();
    assert!(code == Code::Invalid && !reason.is_empty(), "{code:?} {reason}");
    for isolated in [false, true] {
        let stream = session.stream_with(&format!("s{isolated}"), Qos::default(), through(isolated)).unwrap();
        assert!(matches!(
            stream.source(CHANNEL, SourceOptions::default().buffers(100_000_001, 1)),
            Err(RequestError::Option(_))
        ));
        let sink = stream.sink(CHANNEL, SinkOptions::default()).unwrap();
        let source = stream.source(CHANNEL, SourceOptions::default().buffers(5000, 8)).unwrap();
        source.wait_for_receivers(LONG).unwrap();
        assert_eq!(source.get_buffer(5001).unwrap_err(), GetBufferError::TooLarge { max: 5000 });
        until("the way stands", || {
            let _ = source.emit_copy(b"probe").unwrap();
            sink.consume_timeout(Duration::from_millis(50)).unwrap().is_some()
        });
        while sink.consume().unwrap().is_some() {}
        assert!(source.emit_copy(&[1; 5000]).unwrap().is_sent());
        assert!(source.emit_copy(&[2; 999]).unwrap().is_sent());
        let first = sink.consume_timeout(LONG).unwrap().expect("a message");
        if isolated {
            assert_eq!((first.len(), first.lost()), (999, 1), "the large one is counted as lost");
        } else {
            assert_eq!((first.len(), first.lost()), (5000, 0), "no copy, no limit but the source's");
        }
        drop(first);
        until("its buffers come back", || {
            while sink.consume().unwrap().is_some() {}
            source.buffers_in_use() == 0
        });
    }
    let counters = &daemon.status().domains[0].counters;
    assert!(counters["dropped_no_buffer"] + counters["dropped_too_large"] == 1, "{counters:?}");
}

#[test]
fn an_exhausted_pool_says_so_and_recovers() {
    let place = Place::new("pool");
    let daemon = Daemon::start(&place, OPEN, QUIET);
    let (one, two) = (daemon.attach("one"), daemon.attach("two"));
    for isolated in [false, true] {
        let name = format!("s{isolated}");
        let of_one = one.stream_with(&name, Qos::default(), through(isolated)).unwrap();
        let of_two = two.stream_with(&name, Qos::default(), through(isolated)).unwrap();
        let sink = of_two.sink(CHANNEL, SinkOptions::default()).unwrap();
        let source = of_one.source(CHANNEL, SourceOptions::default().buffers(1000, 4)).unwrap();
        source.wait_for_receivers(LONG).unwrap();
        let held: Vec<_> = (0..4).map(|_| source.get_buffer(1000).unwrap()).collect();
        assert_eq!(source.get_buffer(1000).unwrap_err(), GetBufferError::Exhausted);
        drop(held);
        if !isolated {
            let kept: Vec<_> = (0..4)
                .map(|_| {
                    assert!(source.emit_copy(&[7; 1000]).unwrap().is_sent());
                    sink.consume_timeout(LONG).unwrap().expect("a message")
                })
                .collect();
            assert_eq!(source.get_buffer(1000).unwrap_err(), GetBufferError::Exhausted);
            // What fits a cell needs no buffer.
            assert!(source.emit_copy(b"small").unwrap().is_sent());
            drop(kept);
        }
        until("buffers come back", || {
            while sink.consume().unwrap().is_some() {}
            source.buffers_in_use() == 0
        });
        assert!(source.get_buffer(1000).is_ok());
    }
}

#[test]
fn a_sink_that_never_consumes_fills_its_ring_and_costs_the_others_nothing() {
    let place = Place::new("lazy");
    let daemon = Daemon::start(&place, OPEN, QUIET);
    let (one, two) = (daemon.attach("one"), daemon.attach("two"));
    for isolated in [false, true] {
        let name = format!("s{isolated}");
        let of_one = one.stream_with(&name, Qos::default(), through(isolated)).unwrap();
        let of_two = two.stream_with(&name, Qos::default(), through(isolated)).unwrap();
        let busy = of_one.sink(CHANNEL, SinkOptions::default()).unwrap();
        let lazy = of_two.sink(CHANNEL, SinkOptions::default().depth(8)).unwrap();
        let source = of_one.source(CHANNEL, SourceOptions::default()).unwrap();
        source.wait_for_receivers(LONG).unwrap();
        until("both are joined", || {
            let joined = if isolated { lazy.has_senders() } else { source.receivers() == 2 };
            let _ = source.emit_copy(b"probe").unwrap();
            joined && busy.consume_timeout(Duration::from_millis(50)).unwrap().is_some()
        });
        std::thread::sleep(Duration::from_millis(50));
        while busy.consume().unwrap().is_some() {}
        for number in 0..1000_u64 {
            assert!(source.emit_copy(&number.to_le_bytes()).unwrap().is_sent());
            let message = busy.consume_timeout(LONG).unwrap().expect("every message");
            assert_eq!((message.bytes().unwrap(), message.lost()), (&number.to_le_bytes()[..], 0));
        }
        let mut taken = 0;
        while lazy.consume().unwrap().is_some() {
            taken += 1;
        }
        assert_eq!(taken, 8, "what its ring holds");
        let _ = source.emit_copy(b"news").unwrap();
        let message = lazy.consume_timeout(LONG).unwrap().expect("it is served again");
        assert!(message.lost() > 900, "and told what it missed: {}", message.lost());
    }
}

#[test]
fn a_full_ring_of_a_reliable_stream_refuses_and_of_another_drops() {
    let place = Place::new("full");
    let daemon = Daemon::start(&place, OPEN, QUIET);
    let (one, two) = (daemon.attach("one"), daemon.attach("two"));
    for reliability in [Reliability::Reliable, Reliability::Unreliable] {
        let name = format!("{reliability:?}");
        let qos = Qos { reliability, ..Qos::default() };
        let (of_one, of_two) = (one.stream(&name, qos).unwrap(), two.stream(&name, qos).unwrap());
        let sink = of_two.sink(CHANNEL, SinkOptions::default().depth(4)).unwrap();
        let source = of_one.source(CHANNEL, SourceOptions::default()).unwrap();
        source.wait_for_receivers(LONG).unwrap();
        let emitted: Vec<Emit<()>> = (0..6_u8).map(|number| source.emit_copy(&[number]).unwrap()).collect();
        let refused = emitted.iter().filter(|emit| matches!(emit, Emit::Refused((), Refusal::NoRoom))).count();
        assert_eq!(refused, if reliability == Reliability::Reliable { 2 } else { 0 });
        for number in 0..4_u8 {
            assert_eq!(sink.consume().unwrap().unwrap().bytes(), Some(&[number][..]));
        }
        assert!(source.emit_copy(&[9]).unwrap().is_sent());
        let next = sink.consume_timeout(LONG).unwrap().unwrap();
        assert_eq!(u16::from(reliability == Reliability::Unreliable) * 2, next.lost());
    }
}

#[test]
fn names_are_labels_and_two_may_have_the_same() {
    let place = Place::new("same");
    let daemon = Daemon::start(&place, OPEN, QUIET);
    let (one, two) = (daemon.attach("twin"), daemon.attach("twin"));
    let sink = two.stream("s", Qos::default()).unwrap().sink(CHANNEL, SinkOptions::default()).unwrap();
    let source = one.stream("s", Qos::default()).unwrap().source(CHANNEL, SourceOptions::small()).unwrap();
    source.wait_for_receivers(LONG).unwrap();
    assert!(source.emit_copy(b"hello").unwrap().is_sent());
    assert_eq!(sink.consume_timeout(LONG).unwrap().unwrap().bytes(), Some(&b"hello"[..]));
    let report = daemon.status();
    let twins: Vec<u32> = report.domains[0].sessions.iter().filter(|s| s.name == "twin").map(|s| s.id).collect();
    assert!(twins.len() == 2 && twins[0] != twins[1], "told apart by their number: {twins:?}");
}

#[test]
fn with_nobody_listening_messages_go_nowhere_and_buffers_come_back() {
    let place = Place::new("nobody");
    let daemon = Daemon::start(&place, OPEN, QUIET);
    let session = daemon.attach("alone");
    for isolated in [false, true] {
        let stream = session.stream_with(&format!("s{isolated}"), Qos::default(), through(isolated)).unwrap();
        let source = stream.source(CHANNEL, SourceOptions::default()).unwrap();
        for _ in 0..500 {
            if let Ok(buffer) = source.get_buffer_timeout(1000, LONG) {
                assert!(source.emit(buffer).is_sent());
            }
        }
        until("its buffers come back", || {
            let _ = source.emit_copy(b"x");
            source.buffers_in_use() == 0
        });
        // The first listener gets what comes after it.
        let sink = stream.sink(CHANNEL, SinkOptions::default()).unwrap();
        until("it is heard", || {
            let _ = source.emit_copy(b"now").unwrap();
            sink.consume_timeout(Duration::from_millis(20)).unwrap().is_some()
        });
    }
}

#[test]
fn who_asks_for_too_many_wake_ups_waits_and_loses_nothing() {
    let place = Place::new("wakes");
    let domain = "(name: \"d\", members: [any], quota: (wakes_per_second: 5))";
    let daemon = Daemon::start(&place, domain, QUIET);
    assert!(daemon.status().threads.iter().any(|thread| thread.name == "waker" && thread.policy == "other"));
    let session = daemon.attach("sleeper");
    let stream = session.stream_with("s", Qos::default(), through(true)).unwrap();
    let sink = stream.sink(CHANNEL, SinkOptions::default()).unwrap();
    let source = stream.source(CHANNEL, SourceOptions::small()).unwrap();
    source.wait_for_receivers(LONG).unwrap();
    until("the way stands", || {
        let _ = source.emit_copy(b"probe").unwrap();
        sink.consume_timeout(Duration::from_millis(50)).unwrap().is_some()
    });
    std::thread::sleep(Duration::from_millis(50));
    while sink.consume().unwrap().is_some() {}
    std::thread::scope(|scope| {
        let taken = scope.spawn(move || {
            (0..30_u8).all(|number| {
                let message = sink.consume_timeout(LONG).unwrap().expect("every message comes");
                message.to_vec() == [number] && message.lost() == 0
            })
        });
        for number in 0..30_u8 {
            // So that the sink sleeps again before the next one comes.
            std::thread::sleep(Duration::from_millis(10));
            assert!(source.emit_copy(&[number]).unwrap().is_sent());
        }
        assert!(taken.join().unwrap());
    });
    let counters = &daemon.status().domains[0].counters;
    assert!(counters["wakes_refused"] > 0, "{counters:?}");
}

#[test]
fn a_stopped_application_holds_a_reliable_source_back_for_a_moment_only() {
    let place = Place::new("stopped");
    let daemon = Daemon::start(&place, OPEN, QUIET);
    let mut other = Helper::start("partner", daemon.socket(), &[("INSANED_STREAM", "s")]);
    other.hear("ready");
    let session = daemon.attach("source");
    let qos = Qos { reliability: Reliability::Reliable, ..Qos::default() };
    let stream = session.stream("s", qos).unwrap();
    let sink = stream.sink(CHANNEL, SinkOptions::default()).unwrap();
    let source = stream.source(CHANNEL, SourceOptions::default()).unwrap();
    until("both are joined", || source.receivers() == 2 && sink.has_senders());
    let stopped = nix::unistd::Pid::from_raw(other.pid() as i32);
    kill(stopped, Signal::SIGSTOP).unwrap();
    for sequence in 0..2_000 {
        // Its ring fills, and then nobody waits for it.
        until("the others go on", || source.emit_copy(b"small").unwrap().is_sent());
        let message = sink.consume().unwrap().expect("every message");
        assert_eq!((message.lost(), message.sequence()), (0, sequence));
    }
    let put_out = || {
        let report = daemon.status();
        let row = report.domains[0].sessions.iter().find(|row| row.name == "source");
        row.unwrap().counters["put_out"]
    };
    assert_eq!(put_out(), 1);
    kill(stopped, Signal::SIGCONT).unwrap();
    until("it gets messages again", || {
        let emitted = source.emit_copy(b"small").unwrap().sent();
        while sink.consume().unwrap().is_some() {}
        emitted.is_some_and(|token| {
            source.outcome(token) == Outcome::Published { receivers: 2, dropped: 0, released: true }
        })
    });
    assert_eq!(put_out(), 1);
}
