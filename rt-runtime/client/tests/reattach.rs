//! A runtime that goes away and comes back: direct rings go on, everything else returns.

use insane_control::{Hosting, Runtime};
use insane_rt::{Attachment, ChannelId, Plan, Qos, Session, Sink, SinkOptions, Source, SourceOptions, StreamOptions};
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
