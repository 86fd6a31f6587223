//! The last values for sinks of another host that join late, over udp.

use insane_config::{StreamPlan, Technology, UdpPlan};
use insane_rt::{
    ChannelId, ClassSpec, Hosting, Plan, ProcessOptions, ProcessSink, ProcessSource, ProcessSourceOptions, Qos,
    Reliability, Session, Sink, SinkOptions, Stream, StreamOptions, Validity,
};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

const CHANNEL: ChannelId = ChannelId(1);
const PATIENCE: Duration = Duration::from_secs(20);
const KEPT: usize = 3;

/// A free pair of ports (a link uses its port and the next).
fn free_ports(ip: std::net::IpAddr) -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 12_000 + (std::process::id() % 18_000) as u16;
    for _ in 0..1000 {
        let port = base + 2 * NEXT.fetch_add(1, Ordering::Relaxed);
        if [port, port + 1].iter().all(|port| UdpSocket::bind((ip, *port)).is_ok()) {
            return (ip, port).into();
        }
    }
    panic!("no free pair of ports")
}

fn pair(ip: std::net::IpAddr) -> [Plan; 2] {
    let (at_a, at_b) = (free_ports(ip), free_ports(ip));
    let plan = |own: (&str, SocketAddr), peer: (&str, SocketAddr)| {
        let mut plan = Plan::embedded_over(own.0, Technology::Udp(UdpPlan::at(own.1)));
        plan.domains[0].receive = [(256, 1024), (20_000, 256)].map(|(size, count)| ClassSpec { size, count }).to_vec();
        plan.add_peer(peer.0, &[("udp", peer.1)]);
        plan
    };
    [plan(("a", at_a), ("b", at_b)), plan(("b", at_b), ("a", at_a))]
}

fn open(session: &Session) -> Stream {
    session.stream("history", Qos::default()).unwrap()
}

/// Waits while the engines turn that their applications turn, and the source is called.
#[track_caller]
fn wait_for(sessions: &[&Session], source: &mut ProcessSource, what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "it never happens that {what}");
        source.attend();
        let turned = sessions.iter().filter(|session| session.turn()).count();
        if turned == 0 {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

fn value(number: u64, size: u32) -> Vec<u8> {
    (0..size).map(|at| (u64::from(at) * 7 + number) as u8).collect()
}

fn process_sink(session: &Session, size: u32) -> ProcessSink {
    open(session).process_sink(CHANNEL, ProcessOptions::new(size)).unwrap()
}

#[test]
fn a_sink_of_another_host_gets_the_last_values_when_it_joins() {
    let cases = [
        (Hosting::Thread, Ipv4Addr::LOCALHOST.into(), 40),
        (Hosting::Inline, Ipv4Addr::LOCALHOST.into(), 40),
        (Hosting::Thread, Ipv6Addr::LOCALHOST.into(), 9_000),
    ];
    for (hosting, ip, size) in cases {
        let [plan_a, plan_b] = pair(ip);
        let here = Session::embedded_with(plan_a, hosting, "source").unwrap();
        let options = ProcessSourceOptions::new(size).history(KEPT);
        let mut source = open(&here).process_source(CHANNEL, options).unwrap();
        for number in 0..10 {
            let _ = source.emit(&value(number, size)).unwrap();
            here.turn();
        }

        // Three lives of the other runtime.
        for life in 0..3 {
            let there = Session::embedded_with(plan_b.clone(), hosting, "sinks").unwrap();
            let both = [&here, &there];
            let plain = open(&there).sink(CHANNEL, SinkOptions::default()).unwrap();
            let mut first = process_sink(&there, size);
            let newest = 9 + life;
            wait_for(&both, &mut source, "the last value comes", || first.latest().unwrap().sequence == newest);
            let sample = first.latest().unwrap();
            assert_eq!(sample.bytes, value(newest, size));
            assert_eq!((sample.validity, sample.is_history), (Validity::Held { missed: 0 }, true));
            assert_eq!((sample.edge, sample.lost.total, sample.overtaken), (None, 0, 0));

            // One that joins where there are sinks already, which get nothing twice.
            let mut second = process_sink(&there, size);
            wait_for(&both, &mut source, "the next one gets it, too", || second.latest().unwrap().sequence == newest);
            assert!(second.latest().unwrap().is_history);
            assert!(source.emit(&value(newest + 1, size)).unwrap().is_sent());
            for sink in [&mut first, &mut second] {
                wait_for(&both, &mut source, "the next value comes", || sink.latest().unwrap().sequence == newest + 1);
                let sample = sink.latest().unwrap();
                assert_eq!((sample.validity, sample.is_history), (Validity::Fresh, false));
                assert_eq!(sample.lost.total, 0);
            }
            let mut all = Vec::new();
            while let Some(message) = plain.consume().unwrap() {
                assert_eq!(message.to_vec(), value(message.sequence(), size));
                all.push((message.sequence(), message.is_history()));
            }
            let past = (newest + 1 - KEPT as u64..=newest).map(|number| (number, true));
            assert_eq!(all, past.chain([(newest + 1, false)]).collect::<Vec<_>>(), "{hosting:?}, life {life}");
        }
    }
}

#[test]
fn values_that_go_on_coming_are_none_twice_and_none_late() {
    let [plan_a, plan_b] = pair(Ipv4Addr::LOCALHOST.into());
    let here = Session::embedded_with(plan_a, Hosting::Thread, "source").unwrap();
    let there = Session::embedded_with(plan_b, Hosting::Thread, "sinks").unwrap();
    let mut source = open(&here).process_source(CHANNEL, ProcessSourceOptions::new(40).history(16)).unwrap();
    let mut sinks = Vec::new();
    let mut number = 0;
    for _ in 0..20 {
        sinks.push((open(&there).sink(CHANNEL, SinkOptions::default()).unwrap(), None));
        for _ in 0..200 {
            let _ = source.emit(&value(number, 40)).unwrap();
            number += 1;
            for (sink, newest) in &mut sinks {
                while let Some(message) = sink.consume().unwrap() {
                    assert!(
                        newest.is_none_or(|newest| message.sequence() > newest),
                        "{} {newest:?}",
                        message.sequence()
                    );
                    *newest = Some(message.sequence());
                }
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }
    let lost = sinks.iter().filter(|(_, newest)| newest.is_none()).count();
    assert_eq!(lost, 0, "each heard something");
}

/// All that came to a sink: numbers, and whether they are of the past.
fn all_of(sink: &Sink, size: u32) -> Vec<(u64, bool)> {
    let mut all = Vec::new();
    while let Some(message) = sink.consume().unwrap() {
        assert_eq!(message.to_vec(), value(message.sequence(), size));
        all.push((message.sequence(), message.is_history()));
    }
    all
}

#[test]
fn a_late_host_gets_the_last_values_of_a_reliable_stream() {
    for (hosting, size) in [(Hosting::Thread, 40), (Hosting::Inline, 40), (Hosting::Thread, 9_000)] {
        let [plan_a, plan_b] = pair(Ipv4Addr::LOCALHOST.into());
        let here = Session::embedded_with(plan_a, hosting, "source").unwrap();
        let qos = Qos { reliability: Reliability::Reliable, ..Qos::default() };
        let stream = here.stream("reliable", qos).unwrap();
        let mut source = stream.process_source(CHANNEL, ProcessSourceOptions::new(size).history(KEPT)).unwrap();
        let mut number = 0;
        for _ in 0..5 {
            assert!(source.emit(&value(number, size)).unwrap().is_sent());
            number += 1;
        }
        // Two lives of the other runtime; values that come at once follow the past.
        for life in 0..2 {
            let there = Session::embedded_with(plan_b.clone(), hosting, "sinks").unwrap();
            let both = [&here, &there];
            let sink = there.stream("reliable", qos).unwrap().sink(CHANNEL, SinkOptions::default()).unwrap();
            let mut all = Vec::new();
            wait_for(&both, &mut source, "the last values come", || {
                all.extend(all_of(&sink, size));
                all.len() >= KEPT
            });
            for _ in 0..20 {
                let before = number;
                while number == before {
                    number += u64::from(source.emit(&value(number, size)).is_ok_and(|emit| emit.is_sent()));
                    here.turn();
                    there.turn();
                }
            }
            let expected: Vec<_> = (number - 20 - KEPT as u64..number).map(|at| (at, at < number - 20)).collect();
            wait_for(&both, &mut source, "all that follow come", || {
                all.extend(all_of(&sink, size));
                all.len() >= expected.len()
            });
            assert_eq!(all, expected, "{hosting:?}, {size} bytes, life {life}");
        }
    }
}

/// What a sink of another host got.
struct Late {
    sink: Sink,
    all: Vec<(u64, bool)>,
    /// How many values there were when the first one was here.
    emitted: u64,
}

impl Late {
    fn join(stream: &Stream) -> Late {
        Late { sink: stream.sink(CHANNEL, SinkOptions::default()).unwrap(), all: Vec::new(), emitted: 0 }
    }

    fn take(&mut self, size: u32, emitted: u64) {
        if self.all.is_empty() {
            self.emitted = emitted;
        }
        self.all.extend(all_of(&self.sink, size));
    }

    fn has(&self, newest: u64) -> bool {
        self.all.last().is_some_and(|(last, _)| *last == newest)
    }
}

/// Sinks join one after the other at one host, with a source that goes on and one that rests.
#[test]
fn a_second_sink_of_a_host_gets_the_last_values_of_a_reliable_stream() {
    for (hosting, size) in [(Hosting::Thread, 40), (Hosting::Inline, 40), (Hosting::Thread, 9_000)] {
        let [plan_a, plan_b] = pair(Ipv4Addr::LOCALHOST.into());
        let here = Session::embedded_with(plan_a, hosting, "source").unwrap();
        let there = Session::embedded_with(plan_b, hosting, "sinks").unwrap();
        let both = [&here, &there];
        let qos = Qos { reliability: Reliability::Reliable, ..Qos::default() };
        let options = ProcessSourceOptions::new(size).history(KEPT);
        let mut source = here.stream("reliable", qos).unwrap().process_source(CHANNEL, options).unwrap();
        let stream = there.stream("reliable", qos).unwrap();
        let mut sinks: Vec<Late> = Vec::new();
        let mut number = 0;
        for round in 0..6 {
            let rests = round % 2 == 0;
            let emits = if rests { 5 } else { 40 };
            if !rests {
                sinks.push(Late::join(&stream));
            }
            for _ in 0..emits {
                let before = number;
                while number == before {
                    number += u64::from(source.emit(&value(number, size)).is_ok_and(|emit| emit.is_sent()));
                    both.iter().for_each(|session| {
                        session.turn();
                    });
                    sinks.iter_mut().for_each(|late| late.take(size, number));
                }
            }
            let mut all_have_the_last = |sinks: &mut Vec<Late>| {
                wait_for(&both, &mut source, "each has the last value", || {
                    sinks.iter_mut().for_each(|late| late.take(size, number));
                    sinks.iter().all(|late| late.has(number - 1))
                });
            };
            all_have_the_last(&mut sinks);
            if rests {
                // All is at the other host, so what comes now was sent for this sink.
                sinks.push(Late::join(&stream));
                all_have_the_last(&mut sinks);
                let newest = &sinks[round].all;
                let past: Vec<_> = (number - KEPT as u64..number).map(|at| (at, true)).collect();
                assert_eq!(*newest, past, "{hosting:?}, {size} bytes, round {round}");
            }
        }
        for (at, Late { all, emitted, .. }) in sinks.iter().enumerate() {
            let kept = all.iter().filter(|(_, is_past)| *is_past).count();
            // What had not come to its host comes with all that follows, and is not marked.
            assert!(kept <= KEPT, "sink {at}: {all:?}");
            assert!(all[0].0 + KEPT as u64 <= *emitted, "sink {at}, of {emitted} at its first one: {all:?}");
            assert!(all.is_sorted_by_key(|(_, is_past)| !is_past), "the past comes first, sink {at}: {all:?}");
            assert!(all.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1), "without a gap, sink {at}: {all:?}");
        }
    }
}

#[test]
fn a_late_sink_of_an_isolated_stream_gets_the_last_values() {
    let session = Session::embedded("isolated").unwrap();
    for (reliability, size) in
        [(Reliability::Unreliable, 40), (Reliability::Reliable, 40), (Reliability::Unreliable, 9_000)]
    {
        let qos = Qos { reliability, ..Qos::default() };
        let name = format!("{reliability:?}-{size}");
        let stream = session.stream_with(&name, qos, StreamOptions::default().isolated(true)).unwrap();
        let mut source = stream.process_source(CHANNEL, ProcessSourceOptions::new(size).history(KEPT)).unwrap();
        for number in 0..5 {
            assert!(source.emit(&value(number, size)).unwrap().is_sent());
        }
        let mut sinks = Vec::new();
        for _ in 0..3 {
            sinks.push((stream.sink(CHANNEL, SinkOptions::default()).unwrap(), Vec::new()));
            wait_for(&[&session], &mut source, "each has the last values", || {
                sinks.iter_mut().for_each(|(sink, all)| all.extend(all_of(sink, size)));
                sinks.iter().all(|(_, all)| all.len() >= KEPT)
            });
        }
        assert!(source.emit(&value(5, size)).unwrap().is_sent());
        wait_for(&[&session], &mut source, "each has the next", || {
            sinks.iter_mut().for_each(|(sink, all)| all.extend(all_of(sink, size)));
            sinks.iter().all(|(_, all)| all.len() > KEPT)
        });
        for (_, all) in &sinks {
            assert_eq!(*all, [(2, true), (3, true), (4, true), (5, false)], "{name}");
        }
    }
}

/// What the configuration allows is what a source keeps.
#[test]
fn a_source_keeps_no_more_values_than_are_declared() {
    let mut plan = Plan::embedded_default();
    let most = |name: &str, most| StreamPlan { name: name.into(), history_max: Some(most), ..StreamPlan::default() };
    plan.domains[0].streams = vec![most("two", 2), most("none", 0)];
    let session = Session::embedded_with(plan, Hosting::Thread, "declared").unwrap();
    for (name, kept) in [("two", 2), ("none", 0), ("other", 5)] {
        let stream = session.stream(name, Qos::default()).unwrap();
        let mut source = stream.process_source(CHANNEL, ProcessSourceOptions::new(40).history(5)).unwrap();
        for number in 0..8 {
            assert!(source.emit(&value(number, 40)).unwrap().is_sent());
        }
        let sink = stream.sink(CHANNEL, SinkOptions::default()).unwrap();
        source.wait_for_receivers(PATIENCE).unwrap();
        assert!(source.emit(&value(8, 40)).unwrap().is_sent());
        let expected: Vec<_> = (8 - kept..9).map(|at| (at, at < 8)).collect();
        assert_eq!(all_of(&sink, 40), expected, "{name}");
    }
}
