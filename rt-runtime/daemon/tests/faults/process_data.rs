//! A value becomes stale whoever falls silent: its sender, the runtime, or the network.
//! Each is killed here. The receiver is this process; its looks are at planned instants of
//! its own, so that what is checked is the cycle in which it finds out, and not how quick
//! the machine is.

use crate::cable::{QUIET, TwoHosts, Way};
use crate::roles::{BEAT, BEAT_BYTES};
use crate::world::{Daemon, Helper, OPEN, Place, until};
use insane_rt::{
    ClockQuality, Edge, MonoTime, Nanos, ProcessOptions, ProcessSink, ProcessSourceOptions, Qos, Sample, Schema,
    Session, Stream, StreamOptions, Validity,
};
use std::time::Duration;

const PERIOD: Duration = Duration::from_millis(20);
const MAX_MISSED: u32 = 3;

fn options() -> ProcessOptions {
    ProcessOptions::new(BEAT_BYTES as u32).period(PERIOD).max_missed(MAX_MISSED)
}

fn sink(session: &Session, isolated: bool) -> (Stream, ProcessSink) {
    let name = if isolated { "beat-isolated" } else { "beat-direct" };
    let stream = session.stream_with(name, Qos::default(), StreamOptions::default().isolated(isolated)).unwrap();
    let sink = stream.process_sink(BEAT, options()).unwrap();
    (stream, sink)
}

/// A cyclic task of the test: its cycles are planned, and it looks once in each. If the
/// machine is late the cycles come later, but none is left out.
struct Task {
    planned: MonoTime,
}

impl Task {
    fn new() -> Self {
        Task { planned: insane_sys::clock::mono_now() }
    }

    fn next(&mut self) -> MonoTime {
        std::thread::sleep(PERIOD);
        self.planned += Nanos::from(PERIOD);
        self.planned
    }

    /// Cycles until the edge, which is told in the last of them.
    fn cycles_until(&mut self, sink: &mut ProcessSink, edge: Edge) -> u64 {
        let mut cycles = 0;
        loop {
            cycles += 1;
            let sample = sink.poll(self.next()).unwrap();
            if sample.edge == Some(edge) {
                return cycles;
            }
            assert_eq!(sample.edge, None);
            assert!(cycles < 1_000, "no edge {edge:?}: {sample:?}");
        }
    }

    fn assert_stale_in_time(&mut self, sink: &mut ProcessSink) {
        // What was under way may still come: a value or two in the first looks.
        let mut silent = 0;
        for _ in 0..1_000 {
            let Sample { is_new, edge, validity, .. } = sink.poll(self.next()).unwrap();
            silent = if is_new { 0 } else { silent + 1 };
            if edge == Some(Edge::Stale) {
                assert_eq!(silent, u64::from(MAX_MISSED) + 1, "in the very cycle");
                assert_eq!(validity, Validity::Held { missed: silent });
                break;
            }
            assert!(silent <= u64::from(MAX_MISSED), "too late");
        }
        for _ in 0..20 {
            let sample = sink.poll(self.next()).unwrap();
            assert_eq!((sample.edge, sample.is_stale), (None, true), "once");
        }
    }
}

#[test]
fn a_killed_sender_makes_its_values_stale_and_the_next_one_fresh() {
    let place = Place::new("beat-sender");
    let daemon = Daemon::start(&place, OPEN, QUIET);
    let session = daemon.attach("receiver");
    for isolated in [false, true] {
        let (_stream, mut sink) = sink(&session, isolated);
        let mut task = Task::new();
        for _ in 0..2 {
            let mut sender = Helper::start("beat", daemon.socket(), &[]);
            task.cycles_until(&mut sink, Edge::Fresh);
            sender.kill();
            task.assert_stale_in_time(&mut sink);
        }
    }
    let status = daemon.status();
    let receiver = status.domains[0].sessions.iter().find(|session| session.name == "receiver").unwrap();
    assert_eq!(receiver.counters["stale"], 4, "two senders on each path");
}

#[test]
fn a_killed_daemon_makes_stale_what_went_through_it_and_nothing_else() {
    let place = Place::new("beat-daemon");
    let mut daemon = Daemon::start(&place, OPEN, QUIET);
    let session = daemon.attach("receiver");
    let ((_direct_stream, mut direct), (_stream, mut relayed)) = (sink(&session, false), sink(&session, true));
    let _sender = Helper::start("beat", daemon.socket(), &[]);
    let mut task = Task::new();
    task.cycles_until(&mut relayed, Edge::Fresh);
    until("the direct ring carries", || direct.latest().unwrap().validity == Validity::Fresh);

    daemon.kill();
    task.assert_stale_in_time(&mut relayed);
    assert!(direct.latest().unwrap().is_new, "the direct ring goes on");

    let _next = Daemon::start(&place, OPEN, QUIET);
    task.cycles_until(&mut relayed, Edge::Fresh);
}

#[test]
fn a_dead_cable_or_host_makes_values_from_there_stale_over_udp() {
    a_dead_cable_or_host(Way::Udp);
}

#[test]
fn a_dead_cable_or_host_makes_values_from_there_stale_over_tcp() {
    a_dead_cable_or_host(Way::Tcp);
}

/// What a connection held back while the cable was out is no value of now: it comes in order, and
/// the newest is shown, which is one that was emitted afterwards as soon as one came.
#[test]
fn values_that_a_connection_held_back_are_overtaken_by_those_after_them() {
    let Some(hosts) = TwoHosts::start("held-back", Way::Tcp) else { return };
    let session = hosts.a.attach("receiver");
    let (_stream, mut sink) = sink(&session, false);
    let sender = hosts.b.attach("sender");
    let stream = sender.stream_with("beat-direct", Qos::default(), StreamOptions::default()).unwrap();
    let mut source = stream.process_source(BEAT, source_options()).unwrap();
    let number = |sample: &Sample<'_>| u64::from_le_bytes(sample.bytes[..8].try_into().unwrap());
    let mut next = 0_u64;
    let mut emit = |source: &mut insane_rt::ProcessSource| {
        next += 1;
        let mut value = [0; BEAT_BYTES];
        value[..8].copy_from_slice(&next.to_le_bytes());
        let _ = source.emit(&value).unwrap();
        next
    };
    until("a value comes", || {
        emit(&mut source);
        std::thread::sleep(PERIOD);
        sink.latest().unwrap().is_new
    });
    hosts.cut(true);
    let mut task = Task::new();
    let mut stale = 0;
    while stale < 20 {
        emit(&mut source);
        let sample = sink.poll(task.next()).unwrap();
        stale += u64::from(sample.is_stale);
    }
    hosts.cut(false);
    // Whatever comes first, what comes at last is of now, and no look goes back.
    let (mut shown, last) = (0, emit(&mut source));
    until("a value from after the cut comes", || {
        emit(&mut source);
        let sample = sink.poll(task.next()).unwrap();
        assert!(number(&sample) >= shown, "{} after {shown}", number(&sample));
        shown = number(&sample);
        shown > last && sample.validity == Validity::Fresh
    });
}

#[test]
fn a_dead_cable_or_host_makes_values_from_there_stale_over_xdp() {
    a_dead_cable_or_host(Way::Xdp);
}

#[test]
fn a_dead_cable_or_host_makes_values_from_there_stale_over_dpdk() {
    a_dead_cable_or_host(Way::Dpdk);
}

fn a_dead_cable_or_host(way: Way) {
    let Some(mut hosts) = TwoHosts::start("cable", way) else { return };
    let session = hosts.a.attach("receiver");
    let (_stream, mut sink) = sink(&session, false);
    let mut sender = Helper::start("beat", hosts.b.socket(), &[]);
    let mut task = Task::new();
    task.cycles_until(&mut sink, Edge::Fresh);

    let sample = sink.latest().unwrap();
    let is_known = sample.instant.quality() == ClockQuality::Tai;
    assert_eq!(sample.age.is_some(), is_known, "another host's monotonic clock says nothing: {sample:?}");

    hosts.cut(true);
    task.assert_stale_in_time(&mut sink);
    hosts.cut(false);
    task.cycles_until(&mut sink, Edge::Fresh);

    // The host dies: its runtime and its applications.
    hosts.b.kill();
    sender.kill();
    task.assert_stale_in_time(&mut sink);

    // What it left, on its interface, too, is in nobody's way.
    hosts.start_b_again();
    let _sender = Helper::start("beat", hosts.b.socket(), &[]);
    task.cycles_until(&mut sink, Edge::Fresh);
}

#[test]
fn across_hosts_nothing_goes_from_one_schema_to_another() {
    let Some(TwoHosts { a, b, .. }) = &TwoHosts::start("schema", Way::Udp) else { return };
    let [one, two] = [("axis v1", 1), ("axis v2", 2)].map(|(name, hash)| Schema::new(name, hash).unwrap());
    let open = |daemon: &Daemon, name: &str| {
        let session = daemon.attach(name);
        (session.stream("schemas", Qos::default()).unwrap(), session)
    };
    let ((near, _near_session), (far, _far_session)) = (open(a, "near"), open(b, "far"));
    let mut of_one = near.process_sink(BEAT, options().schema(one)).unwrap();
    // The other host has heard of the sink once it refuses a source of another schema.
    let mut reason = String::new();
    until("the other host refuses", || match far.process_source(BEAT, source_options().schema(two)) {
        Ok(source) => {
            drop(source);
            false
        }
        Err(error) => {
            reason = error.to_string();
            true
        }
    });
    assert!(["'axis v1'", "'axis v2'", "another host"].iter().all(|word| reason.contains(word)), "{reason}");
    // One of the same schema is heard.
    let mut source = far.process_source(BEAT, source_options().schema(one)).unwrap();
    until("a value comes", || {
        let _ = source.emit(&[1; BEAT_BYTES]).unwrap();
        of_one.latest().unwrap().is_new
    });
    // A sink that comes later than the source is excluded, whatever it hopes for.
    drop(of_one);
    until("the sink is gone", || {
        let _ = source.emit(&[2; BEAT_BYTES]).unwrap();
        source.receivers() == 0
    });
    let mut of_two = near.process_sink(BEAT, options().schema(two)).unwrap();
    for _ in 0..100 {
        let _ = source.emit(&[3; BEAT_BYTES]).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(of_two.latest().unwrap().validity, Validity::NeverReceived);
    }
    // Its own host knows why, and so does it.
    until("the sink knows", || of_two.refused() == Some(one));
    let count = |daemon: &Daemon| {
        let report = daemon.status();
        let channels = report.streams.into_iter().flat_map(|stream| stream.channels);
        channels.flat_map(|channel| channel.mismatches).collect::<Vec<_>>()
    };
    for (daemon, sinks_are_here) in [(a, true), (b, false)] {
        let [row] = &count(daemon)[..] else { panic!("one mismatch") };
        assert_eq!(
            (&row.sources, &row.sinks, row.sinks_are_here),
            (&one.to_string(), &two.to_string(), sinks_are_here)
        );
    }
    assert!(a.log().contains("a peer's sources are of another schema"), "{}", a.log());
    drop(source);
    until("it is over", || of_two.refused().is_none() && count(a).is_empty() && count(b).is_empty());
    // It is the schema that keeps them apart: a source without one reaches it.
    let mut silent = far.process_source(BEAT, source_options()).unwrap();
    until("a value comes", || {
        let _ = silent.emit(&[4; BEAT_BYTES]).unwrap();
        of_two.latest().unwrap().is_new
    });
}

fn source_options() -> ProcessSourceOptions {
    ProcessSourceOptions::new(BEAT_BYTES as u32)
}
