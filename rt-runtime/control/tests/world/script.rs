//! What the stories about a hub are told with.

use super::World;
use super::client::EndState;
use insane_control::action::Topic;
use insane_control::spec::HubSpec;
use insane_core::{ChannelId, ConnId, Qos, SessionId, SinkId, SourceId, StreamId, stream_key};
use insane_wire::control::{ClassSpec, Code, Event, Request, SinkWake};

pub const HEAP: [ClassSpec; 1] = [ClassSpec { size: 1024, count: 10 }];

pub fn open(world: &mut World, session: SessionId, name: &str) -> StreamId {
    open_as(world, session, name, Qos::default(), false).expect("opened")
}

pub fn open_as(world: &mut World, session: SessionId, name: &str, qos: Qos, isolated: bool) -> Result<StreamId, Code> {
    world.request(session, &Request::OpenStream { req: 1, name: name.into(), qos, isolated });
    world.settle();
    match world.clients[&session].events.last() {
        Some(Event::StreamOpened { stream, .. }) => Ok(*stream),
        Some(Event::Failed { code, .. }) => Err(*code),
        other => panic!("{other:?}"),
    }
}

pub fn source_request(world: &mut World, session: SessionId, stream: StreamId, uid: u64) -> Request {
    world.clients.get_mut(&session).unwrap().asked.insert(2, uid);
    Request::CreateSource {
        req: 2,
        stream,
        channel: ChannelId(5),
        uid,
        classes: HEAP.to_vec(),
        schema: None,
        keeps: false,
        line: None,
    }
}

pub fn sink_request(world: &mut World, session: SessionId, stream: StreamId, uid: u64, wake: SinkWake) -> Request {
    world.clients.get_mut(&session).unwrap().asked.insert(3, uid);
    Request::CreateSink { req: 3, stream, channel: ChannelId(5), uid, depth: 8, wake, schema: None, line: None }
}

pub fn source(world: &mut World, session: SessionId, stream: StreamId, uid: u64) -> SourceId {
    let request = source_request(world, session, stream, uid);
    world.request(session, &request);
    world.settle();
    *world.clients[&session].sources.iter().find(|(_, id)| **id == uid).expect("created").0
}

pub fn sink(world: &mut World, session: SessionId, stream: StreamId, uid: u64) -> SinkId {
    let request = sink_request(world, session, stream, uid, SinkWake::Page);
    world.request(session, &request);
    world.settle();
    *world.clients[&session].sinks.iter().find(|(_, id)| **id == uid).expect("created").0
}

/// With a quota that who is not honest soon has used up.
pub fn paced(mut spec: HubSpec) -> HubSpec {
    spec.domains[0].quota.requests_per_second = 8;
    spec
}

/// Two sessions with a stream, of which the first has a source, and their streams.
pub fn two(spec: HubSpec) -> (World, [SessionId; 2], [StreamId; 2]) {
    let mut world = World::new(spec);
    let sessions = [world.attach(1), world.attach(2)];
    let streams = sessions.map(|session| open(&mut world, session, "io"));
    source(&mut world, sessions[0], streams[0], 11);
    (world, sessions, streams)
}

/// The producer's connections that may be used.
pub fn active(world: &World, session: SessionId) -> Vec<ConnId> {
    let ends = world.clients[&session].tx.iter();
    ends.filter(|(_, (_, state))| *state == EndState::Active).map(|(conn, _)| *conn).collect()
}

pub fn last_failure(world: &World, session: SessionId) -> (Code, String) {
    let (_, code, reason) = world.clients[&session].failures.last().expect("a refusal").clone();
    (code, reason)
}

pub fn end(mut world: World) {
    let sessions: Vec<SessionId> = world.clients.keys().copied().collect();
    for session in sessions {
        world.kill(session);
    }
    world.assert_empty();
}

pub fn topic() -> Topic {
    Topic { key: stream_key("line1", "io"), channel: ChannelId(5) }
}
