//! Made and closed a thousand times: the daemon holds no more than before.

use crate::world::{Daemon, OPEN, Place, until};
use insane_rt::{ChannelId, Qos, Session, SinkOptions, SourceOptions, StreamOptions};
use std::time::Duration;

const TIMES: u32 = 1000;
const QUIET: &str = "log: (level: error)";

/// Does `once` a hundred times, so that tables and allocator have their size, and then
/// a thousand times: the daemon's descriptors and mappings are as before, and its memory
/// is within the tolerance of [`Daemon::returns_to`].
fn repeat(name: &str, mut once: impl FnMut(&Session, u32)) {
    let place = Place::new(name);
    let mut daemon = Daemon::start(&place, OPEN, QUIET);
    let session = daemon.attach("churn");
    for round in 0..TIMES / 10 {
        once(&session, round);
    }
    let is_empty = |daemon: &Daemon| {
        ["streams", "sources", "sinks", "connections", "buffers"].iter().all(|what| daemon.used(what) == 0)
            && daemon.used("sessions") == 1
    };
    until("all is closed", || is_empty(&daemon));
    let (before, regions) = (daemon.footprint(), daemon.status().memory.regions);
    for round in 0..TIMES {
        once(&session, round);
    }
    until("all is closed", || is_empty(&daemon) && daemon.status().memory.regions == regions);
    daemon.returns_to(before);
    assert!(daemon.is_alive());
}

#[test]
fn streams() {
    repeat("streams", |session, round| {
        let options = StreamOptions::default().isolated(round % 2 == 0);
        let _stream = session.stream_with(&format!("s{}", round % 7), Qos::default(), options).unwrap();
    });
}

#[test]
fn sources_and_sinks_that_talk() {
    repeat("ports", |session, round| {
        let options = StreamOptions::default().isolated(round % 2 == 0);
        let stream = session.stream_with(&format!("s{}", round % 2), Qos::default(), options).unwrap();
        let sink = stream.sink(ChannelId(1), SinkOptions::default()).unwrap();
        let source = stream.source(ChannelId(1), SourceOptions::default()).unwrap();
        // Some talk, some close while they are being joined.
        if round % 4 < 2 {
            source.wait_for_receivers(Duration::from_secs(20)).unwrap();
            assert!(source.emit_copy(&[1; 500]).unwrap().is_sent());
            assert!(sink.consume_timeout(Duration::from_secs(20)).unwrap().is_some());
        }
    });
}

#[test]
fn sessions() {
    let place = Place::new("sessions");
    let mut daemon = Daemon::start(&place, OPEN, QUIET);
    let once = || {
        let session = daemon.attach("short");
        let stream = session.stream("s", Qos::default()).unwrap();
        let _sink = stream.sink(ChannelId(1), SinkOptions::default()).unwrap();
        let _source = stream.source(ChannelId(1), SourceOptions::small()).unwrap();
    };
    (0..TIMES / 10).for_each(|_| once());
    until("all are gone", || daemon.used("sessions") == 0);
    let before = daemon.footprint();
    (0..TIMES).for_each(|_| once());
    until("all are gone", || daemon.used("sessions") == 0 && daemon.used("bytes") == 0);
    daemon.returns_to(before);
    assert!(daemon.is_alive());
}
