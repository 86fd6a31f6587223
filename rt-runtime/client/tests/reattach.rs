//! A runtime that goes away and comes back: direct rings go on, everything else returns.

use insane_config::StreamPlan;
use insane_control::{Hosting, Runtime};
use insane_rt::{
    Attachment, ChannelId, Datapath, Emit, Plan, Priority, Qos, Refusal, Reliability, RequestError, Session, Sink,
    SinkOptions, Source, SourceOptions, Stream, StreamOptions,
};
use insane_sys::seqpacket::{self, RecvOutcome};
use insane_wire::control::{Code, Event, encode};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(5);

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let folder = std::env::temp_dir().join(format!("insane-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Place(folder)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn runtime(socket: &Path) -> Runtime {
    let mut plan = Plan::embedded_default();
    plan.control.socket = Some(socket.to_path_buf());
    Runtime::start(plan, Hosting::Thread).expect("the runtime starts")
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let give_up = Instant::now() + SECOND;
    while !condition() {
        assert!(Instant::now() < give_up, "{what} within five seconds");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn pass(source: &Source, sink: &Sink, number: u64, len: usize) {
    let mut buffer = source.get_buffer_timeout(len, SECOND).expect("a buffer");
    buffer.fill(number as u8);
    buffer[..8].copy_from_slice(&number.to_le_bytes());
    assert!(source.emit(buffer).is_sent());
    let message = sink.consume_timeout(SECOND).unwrap().unwrap_or_else(|| panic!("message {number} of {len} bytes"));
    let bytes = message.to_vec();
    assert_eq!((message.lost(), bytes.len()), (0, len));
    assert_eq!(bytes[..8], number.to_le_bytes());
    assert!(bytes[8..].iter().all(|byte| *byte == number as u8));
}

#[test]
fn direct_rings_outlive_the_runtime_and_the_session_returns() {
    let place = Place::new("direct");
    let first = runtime(&place.socket());
    let writer = Session::attach(place.socket(), "writer").unwrap();
    let reader = Session::attach(place.socket(), "reader").unwrap();
    let (out, into) = (writer.stream("s", Qos::default()).unwrap(), reader.stream("s", Qos::default()).unwrap());
    let source = out.source(ChannelId(1), SourceOptions::default().buffers(10_000, 8)).unwrap();
    let sinks = [SinkOptions::default(), SinkOptions::default().polled(), SinkOptions::default().pollable()]
        .map(|options| into.sink(ChannelId(1), options).unwrap());
    wait_for("three receivers", || source.receivers() == 3);
    let pass_all = |number: u64, len: usize| {
        let mut buffer = source.get_buffer_timeout(len, SECOND).unwrap();
        buffer.fill(number as u8);
        assert!(source.emit(buffer).is_sent());
        for sink in &sinks {
            let message = sink.consume_timeout(SECOND).unwrap().unwrap_or_else(|| panic!("message {number}"));
            assert_eq!((message.lost(), message.to_vec()), (0, vec![number as u8; len]));
        }
    };
    pass_all(0, 64);
    drop(first);
    wait_for("both sessions notice", || {
        writer.attachment() == Attachment::Detached && reader.attachment() == Attachment::Detached
    });
    for number in 1..50 {
        pass_all(number, [64, 9_000][number as usize % 2]);
    }
    assert!(writer.stream("other", Qos::default()).is_err(), "what needs the runtime says so");

    let _second = runtime(&place.socket());
    wait_for("both sessions return", || {
        writer.attachment() == Attachment::Attached && reader.attachment() == Attachment::Attached
    });
    for number in 50..100 {
        pass_all(number, [64, 9_000][number as usize % 2]);
    }
    // The ends are known to the new runtime: a newcomer joins them, and each ring is one.
    let late = into.sink(ChannelId(1), SinkOptions::default()).unwrap();
    wait_for("the newcomer and no double", || source.receivers() == 4);
    let mut buffer = source.get_buffer(9_000).unwrap();
    buffer.fill(7);
    assert!(source.emit(buffer).is_sent());
    for sink in sinks.iter().chain([&late]) {
        assert_eq!(sink.consume_timeout(SECOND).unwrap().unwrap().to_vec(), vec![7; 9_000]);
        assert!(sink.consume().unwrap().is_none(), "once");
    }
    drop(late);
    wait_for("the newcomer is gone", || source.receivers() == 3);
}

#[test]
fn what_goes_through_the_runtime_returns_with_it() {
    let place = Place::new("through");
    let first = runtime(&place.socket());
    let session = Session::attach(place.socket(), "both").unwrap();
    let stream = session.stream_with("s", Qos::default(), StreamOptions::default().isolated(true)).unwrap();
    let sink = stream.sink(ChannelId(1), SinkOptions::default()).unwrap();
    let source = stream.source(ChannelId(1), SourceOptions::default()).unwrap();
    source.wait_for_receivers(SECOND).unwrap();
    for number in 0..10 {
        pass(&source, &sink, number, 1_000);
    }
    drop(first);
    wait_for("the session notices", || session.attachment() == Attachment::Detached);
    wait_for("emits are refused", || !source.emit_copy(b"into the void").unwrap().is_sent());
    assert!(sink.consume().is_err(), "nobody can send to it");
    let _second = runtime(&place.socket());
    wait_for("the session returns", || session.attachment() == Attachment::Attached);
    source.wait_for_receivers(SECOND).unwrap();
    for number in 10..20 {
        pass(&source, &sink, number, 1_000);
    }
}

#[test]
fn a_session_survives_ten_restarts() {
    let place = Place::new("restarts");
    let mut current = Some(runtime(&place.socket()));
    let session = Session::attach(place.socket(), "steady").unwrap();
    let stream = session.stream("s", Qos::default()).unwrap();
    let sink = stream.sink(ChannelId(1), SinkOptions::default()).unwrap();
    let source = stream.source(ChannelId(1), SourceOptions::default()).unwrap();
    source.wait_for_receivers(SECOND).unwrap();
    for round in 0..10 {
        drop(current.take());
        pass(&source, &sink, round, 500);
        current = Some(runtime(&place.socket()));
        wait_for("the session returns", || session.attachment() == Attachment::Attached);
        pass(&source, &sink, round, 500);
        assert_eq!(source.receivers(), 1);
    }
}

/// The far end of a direct ring goes while there is no runtime, so nobody tells the near one.
#[test]
fn a_receiver_that_goes_while_there_is_no_runtime_is_let_go_after_its_return() {
    let place = Place::new("ghosts");
    let first = runtime(&place.socket());
    let (near, far) =
        (Session::attach(place.socket(), "near").unwrap(), Session::attach(place.socket(), "far").unwrap());
    let reliable = Qos { reliability: Reliability::Reliable, ..Qos::default() };
    let streams = [("u", Qos::default()), ("r", reliable)];
    let ours = streams.map(|(name, qos)| near.stream(name, qos).unwrap());
    let theirs = streams.map(|(name, qos)| far.stream(name, qos).unwrap());
    let sources =
        ours.each_ref().map(|stream| stream.source(ChannelId(1), SourceOptions::default().buffers(9_000, 8)).unwrap());
    // One that stays and takes everything, and one that goes and takes nothing.
    let stays = ours.each_ref().map(|stream| stream.sink(ChannelId(1), SinkOptions::default().depth(4)).unwrap());
    let goes = theirs.each_ref().map(|stream| stream.sink(ChannelId(1), SinkOptions::default().depth(4)).unwrap());
    sources.iter().for_each(|source| wait_for("two receivers", || source.receivers() == 2));
    drop(first);
    wait_for("both notice", || [&near, &far].iter().all(|one| one.attachment() == Attachment::Detached));
    drop((goes, theirs, far));
    let emit = |at: usize| {
        let is_sent = sources[at].get_buffer(9_000).is_ok_and(|buffer| sources[at].emit(buffer).is_sent());
        while stays[at].consume().unwrap().is_some() {}
        is_sent
    };
    for at in [0, 1] {
        (0..20).for_each(|_| _ = emit(at));
        assert!(sources[at].buffers_in_use() >= 3, "what has gone holds its share");
    }
    let _second = runtime(&place.socket());
    wait_for("the session returns", || near.attachment() == Attachment::Attached);
    let give_up = Instant::now() + Duration::from_secs(30);
    for (at, source) in sources.iter().enumerate() {
        while source.receivers() > 1 || source.buffers_in_use() > 0 {
            assert!(Instant::now() < give_up, "{} receivers for ever", source.receivers());
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!((0..20).all(|_| emit(at)), "the one that stays has all of it");
    }
}

#[test]
fn what_a_session_reads_of_its_own_does_not_change_when_one_end_is_not_taken_again() {
    let place = Place::new("half");
    let first = runtime(&place.socket());
    let session = Session::attach(place.socket(), "both").unwrap();
    let stream = session.stream("s", Qos::default()).unwrap();
    let sink = stream.sink(ChannelId(1), SinkOptions::default().depth(4)).unwrap();
    let source = stream.source(ChannelId(1), SourceOptions::default().buffers(9_000, 8)).unwrap();
    source.wait_for_receivers(SECOND).unwrap();
    let emit = |value: u8| {
        let mut buffer = source.get_buffer(9_000).expect("a buffer is free");
        buffer.fill(value);
        assert!(source.emit(buffer).is_sent());
    };
    emit(1);
    emit(2);
    let held = sink.consume().unwrap().unwrap();
    let bytes = held.bytes().expect("this process wrote it");
    drop(first);
    wait_for("the session notices", || session.attachment() == Attachment::Detached);
    let mut plan = Plan::embedded_default();
    plan.control.socket = Some(place.socket());
    plan.domains[0].quota.sinks = 0;
    let _second = Runtime::start(plan, Hosting::Thread).unwrap();
    wait_for("the session returns", || session.attachment() == Attachment::Attached);
    let give_up = Instant::now() + Duration::from_secs(30);
    while source.receivers() > 0 {
        assert!(Instant::now() < give_up, "the ring is not let go");
        std::thread::sleep(Duration::from_millis(20));
    }
    (0..100).for_each(|_| emit(3));
    assert_eq!(source.buffers_in_use(), 2);
    assert!(bytes.iter().all(|byte| *byte == 1), "a slice changed while it was read");
    let waited = sink.consume().unwrap().expect("what waited is still read");
    assert!(waited.bytes().unwrap().iter().all(|byte| *byte == 2));
    drop((held, waited));
    // A sink that the runtime did not take again says so once it has nothing.
    wait_for("all is given back", || !matches!(sink.consume(), Ok(Some(_))) && source.buffers_in_use() == 0);
}

/// What the session's sources and sinks have counted, as the runtime shows it.
fn shown(runtime: &Runtime, session: &str, counter: &str) -> u64 {
    let report = runtime.status().expect("a report");
    let sessions = report.domains[0].sessions.iter().filter(|row| row.name == session);
    sessions.map(|row| row.counters.get(counter).copied().unwrap_or(0)).sum()
}

#[test]
fn counters_go_on_where_they_were() {
    let place = Place::new("counters");
    let mut current = Some(runtime(&place.socket()));
    let session = Session::attach(place.socket(), "counting").unwrap();
    let stream = session.stream("s", Qos::default()).unwrap();
    let sink = stream.sink(ChannelId(1), SinkOptions::default()).unwrap();
    let source = stream.source(ChannelId(1), SourceOptions::default()).unwrap();
    source.wait_for_receivers(SECOND).unwrap();
    let mut passed = 0;
    for _ in 0..3 {
        pass(&source, &sink, passed, 500);
        passed += 1;
        drop(current.take());
        wait_for("the session notices", || session.attachment() == Attachment::Detached);
        // What is counted while there is no runtime is shown by the next one.
        pass(&source, &sink, passed, 500);
        passed += 1;
        let next = current.insert(runtime(&place.socket()));
        wait_for("the session returns", || session.attachment() == Attachment::Attached);
        wait_for("its counts are shown", || shown(next, "counting", "messages") == 2 * passed);
        pass(&source, &sink, passed, 500);
        passed += 1;
        assert_eq!(shown(next, "counting", "messages"), 2 * passed, "emitted and consumed");
        assert_eq!(shown(next, "counting", "bytes"), 2 * passed * 500);
    }
    // A newcomer gets a line of its own, and leaves what it counted in the sum.
    let last = current.as_ref().unwrap();
    let late = stream.source(ChannelId(2), SourceOptions::small()).unwrap();
    for _ in 0..5 {
        assert!(late.emit_copy(b"alone").unwrap().is_sent());
    }
    pass(&source, &sink, passed, 500);
    passed += 1;
    assert_eq!(shown(last, "counting", "messages"), 2 * passed + 5);
    drop(late);
    assert_eq!(shown(last, "counting", "messages"), 2 * passed + 5);
}

/// What each source, and then each sink, of the first stream has counted.
fn by_port(runtime: &Runtime, counter: &str) -> Vec<Option<u64>> {
    let report = runtime.status().expect("a report");
    let channels = report.streams.first().map(|stream| stream.channels.as_slice()).unwrap_or_default();
    let sources = channels.iter().flat_map(|channel| &channel.sources).map(|source| &source.counters);
    let sinks = channels.iter().flat_map(|channel| &channel.sinks).map(|sink| &sink.counters);
    let count = |counters: &Option<insane_wire::status::Counters>| {
        counters.as_ref().map(|counters| counters.get(counter).copied().unwrap_or(0))
    };
    sources.chain(sinks).map(count).collect()
}

#[test]
fn each_port_has_its_own_counts_where_another_counted_before_and_after_restarts() {
    let place = Place::new("ports");
    let mut current = Some(runtime(&place.socket()));
    let session = Session::attach(place.socket(), "counting").unwrap();
    let stream = session.stream("s", Qos::default()).unwrap();
    let first = stream.source(ChannelId(1), SourceOptions::default()).unwrap();
    let sink = stream.sink(ChannelId(1), SinkOptions::default()).unwrap();
    first.wait_for_receivers(SECOND).unwrap();
    (0..3).for_each(|number| pass(&first, &sink, number, 500));
    assert_eq!(by_port(current.as_ref().unwrap(), "messages"), [Some(3), Some(3)]);
    drop(first);
    // It counts where the first one did.
    let second = stream.source(ChannelId(1), SourceOptions::default()).unwrap();
    second.wait_for_receivers(SECOND).unwrap();
    assert_eq!(by_port(current.as_ref().unwrap(), "messages"), [Some(0), Some(3)]);
    for round in 1..=2 {
        drop(current.take());
        wait_for("the session notices", || session.attachment() == Attachment::Detached);
        pass(&second, &sink, round, 500);
        let next = current.insert(runtime(&place.socket()));
        wait_for("the session returns", || session.attachment() == Attachment::Attached);
        assert_eq!(by_port(next, "messages"), [Some(round), Some(3 + round)]);
        assert_eq!(by_port(next, "bytes"), [Some(500 * round), Some(500 * (3 + round))]);
    }
    assert_eq!(shown(current.as_ref().unwrap(), "counting", "messages"), 2 * 5, "the session's are all of them");
}

/// A runtime of another build: it turns callers away so often, and goes. What they brought each time.
fn turned_away(place: &Place, times: usize) -> Vec<usize> {
    let listener = seqpacket::listen(&place.socket()).unwrap();
    let brought = (0..times)
        .map(|_| {
            let mut caller = None;
            wait_for("the session calls", || {
                caller = seqpacket::accept(&listener).unwrap();
                caller.is_some()
            });
            let caller = caller.unwrap();
            let mut fds = None;
            wait_for("it says HELLO", || match seqpacket::recv(&caller, &mut [0; 4096]).unwrap() {
                RecvOutcome::Packet(packet) => {
                    fds = Some(packet.fds.len());
                    true
                }
                _ => false,
            });
            let refusal = Event::Closing { code: Code::Resources, reason: "of another size".into() };
            let _ = seqpacket::send(&caller, &encode(&refusal), &[]).unwrap();
            fds.unwrap()
        })
        .collect();
    drop(listener);
    let _ = std::fs::remove_file(place.socket());
    brought
}

/// A session with a source and a sink, whose next runtime is one that turned it away so often
/// before; what it brought each time is judged, and then what is there again.
fn turned_away_at_first(name: &str, brought: &[usize], judge: impl FnOnce(&Runtime, &Stream)) {
    let place = Place::new(name);
    let first = runtime(&place.socket());
    let session = Session::attach(place.socket(), "modest").unwrap();
    let stream = session.stream("s", Qos::default()).unwrap();
    let sink = stream.sink(ChannelId(1), SinkOptions::default()).unwrap();
    let source = stream.source(ChannelId(1), SourceOptions::default()).unwrap();
    source.wait_for_receivers(SECOND).unwrap();
    drop(first);
    wait_for("the session notices", || session.attachment() == Attachment::Detached);
    assert_eq!(turned_away(&place, brought.len()), brought);
    let second = runtime(&place.socket());
    wait_for("the session returns", || session.attachment() == Attachment::Attached);
    source.wait_for_receivers(SECOND).unwrap();
    pass(&source, &sink, 0, 500);
    judge(&second, &stream);
}

#[test]
fn a_runtime_that_does_not_take_the_counters_is_asked_without_them() {
    // With its page, then without.
    turned_away_at_first("stranger", &[1, 0], |second, _| assert!(second.status().is_some()));
}

/// A runtime of another page than its ports count in does not show what stands there as theirs.
#[test]
fn ports_that_count_in_a_page_that_the_runtime_has_not_are_shown_without_counts() {
    turned_away_at_first("other-page", &[1], |second, stream| {
        assert_eq!(by_port(second, "messages"), [None, None]);
        // Whoever comes now counts in the page that it has.
        let late = stream.source(ChannelId(2), SourceOptions::small()).unwrap();
        assert!(late.emit_copy(b"alone").unwrap().is_sent());
        assert_eq!(by_port(second, "messages"), [None, Some(1), None]);
    });
}

/// What is asked of a stream while it is open ends with the runtime: who opened it before that was
/// changed, and who after, meet again.
#[test]
fn a_stream_that_was_asked_for_otherwise_meanwhile_is_one_again() {
    let place = Place::new("asked");
    let first = runtime(&place.socket());
    let writer = Session::attach(place.socket(), "writer").unwrap();
    let reader = Session::attach(place.socket(), "reader").unwrap();
    let out = writer.stream("s", Qos::default()).unwrap();
    let source = out.source(ChannelId(1), SourceOptions::default()).unwrap();
    writer.set_qos("s", Some(Datapath::Fast), Priority::new(5)).unwrap();
    let into = reader.stream("s", Qos::default()).unwrap();
    assert_eq!((out.qos().datapath, into.qos().datapath), (Datapath::Standard, Datapath::Fast));
    let sink = into.sink(ChannelId(1), SinkOptions::default()).unwrap();
    source.wait_for_receivers(SECOND).unwrap();
    pass(&source, &sink, 0, 1_000);
    drop(first);
    let is = |attachment: Attachment| writer.attachment() == attachment && reader.attachment() == attachment;
    wait_for("both sessions notice", || is(Attachment::Detached));
    let second = runtime(&place.socket());
    wait_for("both sessions return", || is(Attachment::Attached));
    let late = into.sink(ChannelId(1), SinkOptions::default()).unwrap();
    wait_for("both have it open", || source.receivers() == 2);
    let streams = second.status().unwrap().streams;
    assert_eq!((streams.len(), streams[0].sources, streams[0].sinks), (1, 1, 2));
    pass(&source, &sink, 1, 1_000);
    assert_eq!(late.consume_timeout(SECOND).unwrap().unwrap().len(), 1_000);
}

/// Ports are made for what a stream was given; a runtime that comes back and declares another
/// reliability does not get them, and the rest of the session returns.
#[test]
fn a_stream_that_is_declared_otherwise_meanwhile_stays_closed() {
    let place = Place::new("declared");
    let declared = |reliability| {
        let mut plan = Plan::embedded_default();
        plan.control.socket = Some(place.socket());
        let stream = StreamPlan { name: "axis".into(), reliability, ..StreamPlan::default() };
        plan.domains[0].streams = vec![stream];
        Runtime::start(plan, Hosting::Thread).expect("the runtime starts")
    };
    let first = declared(None);
    let session = Session::attach(place.socket(), "app").unwrap();
    let (axis, other) =
        (session.stream("axis", Qos::default()).unwrap(), session.stream("io", Qos::default()).unwrap());
    let source = axis.source(ChannelId(1), SourceOptions::default()).unwrap();
    assert_eq!(axis.refused(), None);
    drop(first);
    wait_for("the session notices", || session.attachment() == Attachment::Detached);
    assert_eq!((axis.refused(), open_sink(&axis)), (None, Some(RequestError::Detached)));
    let second = declared(Some(Reliability::Reliable));
    wait_for("the session returns", || session.attachment() == Attachment::Attached);
    wait_for("the other one is closed again", || second.status().unwrap().streams.len() == 1);
    assert_eq!(second.status().unwrap().streams[0].name, "io");
    assert!(other.sink(ChannelId(1), SinkOptions::default()).is_ok());
    // The application can see which stream it is, and why.
    let refused = axis.refused().expect("it is not open");
    let RequestError::Refused { code: Code::Mismatch, reason } = &refused else { panic!("{refused}") };
    for word in ["\"axis\"", "Unreliable", "declared Reliable", "anew"] {
        assert!(reason.contains(word), "{reason}");
    }
    assert_eq!((open_sink(&axis), other.refused()), (Some(refused), None));
    assert!(matches!(source.emit_copy(b"x").unwrap(), Emit::Refused((), Refusal::Detached)));
    assert_eq!(session.stream("axis", Qos::default()).unwrap().qos().reliability, Reliability::Reliable);
    // With what it was made for, it returns.
    drop(second);
    wait_for("the session notices again", || session.attachment() == Attachment::Detached);
    assert_eq!((axis.refused(), open_sink(&axis)), (None, Some(RequestError::Detached)));
    let _third = declared(None);
    wait_for("the session returns again", || session.attachment() == Attachment::Attached);
    let sink = axis.sink(ChannelId(1), SinkOptions::default()).unwrap();
    source.wait_for_receivers(SECOND).unwrap();
    pass(&source, &sink, 0, 1_000);
}

/// Why no sink of the stream can be had, if so.
fn open_sink(stream: &Stream) -> Option<RequestError> {
    stream.sink(ChannelId(1), SinkOptions::default()).err()
}

#[test]
fn a_stream_that_the_runtime_itself_refuses_on_return_says_why() {
    let place = Place::new("refused");
    let with_streams = |streams| {
        let mut plan = Plan::embedded_default();
        plan.control.socket = Some(place.socket());
        plan.domains[0].quota.streams = streams;
        Runtime::start(plan, Hosting::Thread).expect("the runtime starts")
    };
    let first = with_streams(2);
    let session = Session::attach(place.socket(), "app").unwrap();
    let streams = ["a", "b"].map(|name| session.stream(name, Qos::default()).unwrap());
    drop(first);
    wait_for("the session notices", || session.attachment() == Attachment::Detached);
    let _second = with_streams(1);
    wait_for("the session returns", || session.attachment() == Attachment::Attached);
    let refused: Vec<RequestError> = streams.iter().filter_map(Stream::refused).collect();
    let [RequestError::Refused { code: Code::Quota, reason }] = &refused[..] else { panic!("{refused:?}") };
    let at = streams.iter().position(|stream| stream.refused().is_some()).unwrap();
    assert!(reason.contains(["\"a\"", "\"b\""][at]), "{reason}");
    assert_eq!(open_sink(&streams[at]), Some(refused[0].clone()));
    assert_eq!(open_sink(&streams[1 - at]), None);
}

/// The runtime of before may have gone before it heard that their memory is mapped, and sealed it.
#[test]
fn ports_that_were_just_made_when_the_runtime_went_return() {
    let place = Place::new("justmade");
    let mut life = runtime(&place.socket());
    let session = Session::attach(place.socket(), "app").unwrap();
    let stream = session.stream("s", Qos::default()).unwrap();
    let mut ports = Vec::new();
    for number in 1..=8 {
        let channel = ChannelId(number);
        let sink = stream.sink(channel, SinkOptions::default()).unwrap();
        ports.push((stream.source(channel, SourceOptions::default()).unwrap(), sink));
        drop(life);
        wait_for("the session notices", || session.attachment() == Attachment::Detached);
        life = runtime(&place.socket());
        wait_for("the session returns", || session.attachment() == Attachment::Attached);
        let stream = &life.status().unwrap().streams[0];
        assert_eq!((stream.sources as usize, stream.sinks as usize), (ports.len(), ports.len()));
    }
    for (source, sink) in &ports {
        source.wait_for_receivers(SECOND).unwrap();
        pass(source, sink, 0, 1_000);
    }
}
