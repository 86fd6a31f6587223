//! What a hub tells peers and datapaths of interest: JOINs, schemas, routes, taps.
#![forbid(unsafe_code)]

mod world;

use insane_control::action::{Note, Topic};
use insane_core::{ChannelId, Nanos, Qos, Schema, SessionId, SinkId, StreamId};
use insane_wire::control::{Code, Event, Receiver, Request, SinkWake, WakeKind};
use world::script::*;
use world::{World, datapath, spec};

#[test]
fn remote_interest_brings_and_takes_the_connection_to_the_datapath() {
    let mut world = World::new(spec(vec![datapath(&[0, 1], true)]));
    let a = world.attach(1);
    let stream = open(&mut world, a, "io");
    source(&mut world, a, stream, 11);
    assert_eq!(world.hub.table_sizes().conns, 0, "nobody listens");
    world.interest(0, topic(), true);
    world.settle();
    assert_eq!(active(&world, a).len(), 1);
    assert!(world.clients[&a].events.iter().any(|e| matches!(e, Event::TxOpen { wake: WakeKind::Event, .. })));
    assert_eq!(world.datapaths[0].doorbells.len(), 1);
    world.interest(1, topic(), true);
    assert_eq!(world.datapaths[0].routes[&topic()].peers.len(), 2);
    world.interest(0, topic(), false);
    assert_eq!(active(&world, a).len(), 1);
    world.interest(1, topic(), false);
    let conn = world.datapaths[0].leaving.first().copied().expect("it is told to leave");
    assert!(world.ended.contains(&conn), "what is left is for nobody, and its buffers are wanted");
    assert!(world.datapaths[0].routes.contains_key(&topic()), "kept until it has left");
    let is_told = |world: &World| world.clients[&a].events.contains(&Event::Retire { conn });
    while world.step(a) {}
    assert!(!is_told(&world), "the datapath may be reading what the source would write");
    // Interest comes back before the datapath has let go: the next connection waits.
    world.interest(0, topic(), true);
    assert_eq!(world.hub.table_sizes().conns, 1);
    world.settle();
    assert!(is_told(&world));
    assert_eq!(active(&world, a).len(), 1);
    assert_eq!(world.datapaths[0].tx.len(), 1);
    world.interest(0, topic(), false);
    end(world);
}

#[test]
fn a_datapath_reads_on_for_who_has_closed_its_source_and_not_for_who_was_put_out() {
    for is_closed in [true, false] {
        let mut world = World::new(spec(vec![datapath(&[0], true)]));
        let a = world.attach(1);
        let stream = open(&mut world, a, "io");
        let source = source(&mut world, a, stream, 11);
        world.interest(0, topic(), true);
        world.settle();
        let conn = *world.datapaths[0].tx.first_key_value().expect("it has a connection").0;
        if is_closed {
            world.request(a, &Request::CloseSource { req: 9, source });
            world.clients.get_mut(&a).unwrap().forget_source(source);
        } else {
            // Its process lives, and its source goes on to local sinks.
            world.clients.get_mut(&a).unwrap().honest = false;
            world.request(a, &Request::Mapped { conn, step: 1 });
            assert!(!world.clients.contains_key(&a));
        }
        assert!(world.datapaths[0].leaving.contains(&conn));
        assert_ne!(world.ended.contains(&conn), is_closed);
        world.settle();
        world.interest(0, topic(), false);
        end(world);
    }
}

#[test]
fn sources_that_keep_the_past_are_asked_for_each_sink_that_joins_at_a_peer() {
    let mut world = World::new(spec(vec![datapath(&[0, 1], true)]));
    let a = world.attach(1);
    let stream = open(&mut world, a, "io");
    source(&mut world, a, stream, 11);
    world.interest(0, topic(), true);
    assert_eq!(world.welcomed, [], "it keeps nothing");
    let Request::CreateSource { req, channel, classes, schema, .. } = source_request(&mut world, a, stream, 12) else {
        panic!("another request")
    };
    world
        .request(a, &Request::CreateSource { req, stream, channel, uid: 12, classes, schema, keeps: true, line: None });
    world.settle();
    let peer = insane_core::PeerIndex;
    world.interest(1, topic(), true);
    assert_eq!(world.welcomed, [(topic(), peer(1))]);
    world.join_again(0, topic(), 1);
    world.join_again(0, topic(), 2);
    assert_eq!(world.welcomed[1..], [(topic(), peer(0)); 2]);
    assert_eq!(world.datapaths[0].routes[&topic()].peers.len(), 2);
    // Who comes back is new; a stream of another name with the same key is not meant.
    world.interest(1, topic(), false);
    world.interest(1, topic(), true);
    let check = world.check_of(topic());
    world.interest_in(1, topic(), check + 1, None, true);
    assert_eq!(world.welcomed.len(), 4);
    world.interest_in(1, topic(), check + 1, None, false);
    world.interest(1, topic(), false);
    world.hub.peer_gone(peer(0));
    world.pump();
    end(world);
}

#[test]
fn peers_are_told_of_each_sink_that_joins() {
    let mut world = World::new(spec(vec![datapath(&[0], true)]));
    let a = world.attach(1);
    let stream = open(&mut world, a, "io");
    let joins = |world: &World| world.told.iter().map(|(.., joins)| *joins).collect::<Vec<_>>();
    sink(&mut world, a, stream, 1);
    world.settle();
    let first = joins(&world);
    assert_eq!(first.len(), 1);
    sink(&mut world, a, stream, 2);
    world.settle();
    let second = joins(&world);
    assert!(second.len() == 1 && second != first, "{first:?} {second:?}");
    let sinks = world.clients[&a].sinks.clone();
    for (number, (sink, _)) in sinks.into_iter().enumerate() {
        world.request(a, &Request::CloseSink { req: 9, sink });
        world.settle();
        let left = if number == 0 { second.clone() } else { Vec::new() };
        assert_eq!(joins(&world), left, "nobody is asked for anything when one leaves");
    }
    sink(&mut world, a, stream, 3);
    world.settle();
    assert!(joins(&world) > second, "the number is never the same");
    end(world);
}

/// The schemas of the tests.
fn schemas() -> [Schema; 2] {
    [("axis v1", 1), ("axis v2", 2)].map(|(name, hash)| Schema::new(name, hash).unwrap())
}

fn with_schema(request: Request, of: Schema) -> Request {
    match request {
        Request::CreateSource { req, stream, channel, uid, classes, .. } => {
            Request::CreateSource { req, stream, channel, uid, classes, schema: Some(of), keeps: false, line: None }
        }
        Request::CreateSink { req, stream, channel, uid, depth, wake, .. } => {
            Request::CreateSink { req, stream, channel, uid, depth, wake, schema: Some(of), line: None }
        }
        other => other,
    }
}

/// A world with two peers and one source, whose messages are of this schema; its session, and
/// the check of its stream.
fn source_of(schema: Schema) -> (World, SessionId, u64) {
    let mut world = World::new(spec(vec![datapath(&[0, 1], true)]));
    let session = world.attach(1);
    let stream = open(&mut world, session, "io");
    let check = world.check_of(topic());
    let request = with_schema(source_request(&mut world, session, stream, 11), schema);
    world.request(session, &request);
    world.settle();
    (world, session, check)
}

#[test]
fn a_peer_whose_sinks_expect_another_schema_gets_nothing() {
    let [one, two] = schemas();
    let (mut world, _, check) = source_of(one);
    // One peer expects the same, and one another; both, for a while, also say nothing.
    world.interest_in(0, topic(), check, Some(one), true);
    world.interest_in(1, topic(), check, Some(two), true);
    world.interest_in(1, topic(), check, None, true);
    world.settle();
    let peers = |world: &World| world.datapaths[0].routes[&topic()].peers.clone();
    assert_eq!(peers(&world), [insane_core::PeerIndex(0)]);
    let is_told =
        |note: &Note| matches!(note, Note::SchemaMismatch { ours, theirs, .. } if (*ours, *theirs) == (one, two));
    assert_eq!(world.notes.iter().filter(|note| is_told(note)).count(), 1);
    world.interest_in(1, topic(), check, Some(two), false);
    assert_eq!(peers(&world).len(), 2, "who says nothing is joined with any");
    world.interest_in(1, topic(), check, None, false);
    world.interest_in(0, topic(), check, Some(one), false);
    world.settle();
    end(world);
}

#[test]
fn a_peer_that_is_refused_is_told_so_as_long_as_it_is() {
    let [one, two] = schemas();
    let (mut world, a, check) = source_of(one);
    world.interest_in(0, topic(), check, Some(one), true);
    world.interest_in(1, topic(), check + 1, Some(two), true);
    world.wait(Nanos::from_secs(2));
    assert_eq!(world.refusals, [], "one expects the same, the other means another stream");
    world.interest_in(1, topic(), check, Some(two), true);
    let told = [(insane_core::PeerIndex(1), topic(), one)];
    assert_eq!(std::mem::take(&mut world.refusals), told, "at once");
    world.wait(Nanos::from_secs(1));
    assert_eq!(std::mem::take(&mut world.refusals), told, "again");
    world.wait(Nanos::from_millis(100));
    assert_eq!(world.refusals, [], "not more often");
    // The source goes: nobody is refused any more.
    let source = *world.clients[&a].sources.keys().next().unwrap();
    world.request(a, &Request::CloseSource { req: 5, source });
    world.settle();
    world.wait(Nanos::from_secs(2));
    assert_eq!(world.refusals, []);
    world.interest_in(0, topic(), check, Some(one), false);
    world.interest_in(1, topic(), check, Some(two), false);
    world.interest_in(1, topic(), check + 1, Some(two), false);
    end(world);
}

#[test]
fn clients_are_told_which_of_their_sinks_a_peer_refuses() {
    let [one, two] = schemas();
    let mut world = World::new(spec(vec![datapath(&[0, 1], true)]));
    let a = world.attach(1);
    let stream = open(&mut world, a, "io");
    let check = world.check_of(topic());
    sink(&mut world, a, stream, 1);
    let request = with_schema(sink_request(&mut world, a, stream, 2, SinkWake::Never), two);
    world.request(a, &request);
    world.settle();
    let told = |world: &mut World| {
        world.settle();
        let events = std::mem::take(&mut world.clients.get_mut(&a).unwrap().events);
        let refused = events.into_iter().filter_map(|event| match event {
            Event::SinkRefused { sink, theirs } => Some((sink, theirs)),
            _ => None,
        });
        refused.collect::<Vec<_>>()
    };
    let refuse = |world: &mut World, peer, check, schema| {
        world.hub.remote_refusal(insane_core::PeerIndex(peer), topic(), check, schema, world.now);
        world.pump();
    };
    // Of another stream; of the schema that the sink has; of a channel without a sink.
    refuse(&mut world, 0, check + 1, one);
    refuse(&mut world, 0, check, two);
    let elsewhere = Topic { channel: ChannelId(77), ..topic() };
    world.hub.remote_refusal(insane_core::PeerIndex(0), elsewhere, check, one, world.now);
    assert_eq!(told(&mut world), []);
    for _ in 0..5 {
        refuse(&mut world, 0, check, one);
        refuse(&mut world, 1, check, one);
        world.wait(Nanos::from_secs(1));
    }
    let events = told(&mut world);
    assert!(
        matches!(events[..], [(_, Some(theirs))] if theirs == one),
        "once, and who expects nothing not: {events:?}"
    );
    let is_noted =
        |note: &&Note| matches!(note, Note::SchemaRefused { ours, theirs, .. } if (*ours, *theirs) == (two, one));
    assert_eq!(world.notes.iter().filter(is_noted).count(), 2, "once for each peer");
    // One of them says no more.
    for _ in 0..5 {
        refuse(&mut world, 1, check, one);
        world.wait(Nanos::from_secs(1));
    }
    let views =
        |world: &World| world.hub.streams().flat_map(|stream| stream.channels).flat_map(|c| c.refused_by).count();
    assert_eq!(views(&world), 1);
    assert_eq!(told(&mut world), [], "the other still does");
    world.wait(Nanos::from_secs(4));
    let events = told(&mut world);
    assert!(matches!(events[..], [(_, None)]) && views(&world) == 0, "{events:?}");
    end(world);
}

#[test]
fn a_source_whose_schema_is_not_that_of_a_remote_sink_is_refused_with_both_names() {
    let [one, two] = schemas();
    let mut world = World::new(spec(vec![datapath(&[0, 1], true)]));
    let a = world.attach(1);
    let stream = open(&mut world, a, "io");
    let check = world.check_of(topic());
    world.interest_in(0, topic(), check, Some(one), true);
    let request = with_schema(source_request(&mut world, a, stream, 11), two);
    world.request(a, &request);
    world.settle();
    let refusal = world.clients[&a].events.iter().find_map(|event| match event {
        Event::Failed { code: Code::Schema, reason, .. } => Some(reason.clone()),
        _ => None,
    });
    let reason = refusal.expect("refused");
    assert!(["'axis v1'", "'axis v2'", "another host"].iter().all(|word| reason.contains(word)), "{reason}");
    // Sinks of two hosts do not meet; the same key of another stream is not meant.
    let request = with_schema(sink_request(&mut world, a, stream, 12, SinkWake::Never), two);
    world.request(a, &request);
    world.settle();
    assert!(world.announced.contains(&(topic(), Some(two))));
    world.interest_in(0, topic(), check, Some(one), false);
    world.interest_in(0, topic(), check + 1, Some(one), true);
    let request = with_schema(source_request(&mut world, a, stream, 13), two);
    world.request(a, &request);
    world.settle();
    assert_eq!(world.clients[&a].sources.len(), 1);
    world.interest_in(0, topic(), check + 1, Some(one), false);
    end(world);
}

#[test]
fn what_the_peers_are_told_of_a_schema_follows_the_sinks() {
    let [one, _] = schemas();
    let mut world = World::new(spec(vec![datapath(&[0], true)]));
    let a = world.attach(1);
    let stream = open(&mut world, a, "io");
    sink(&mut world, a, stream, 1);
    world.settle();
    assert_eq!(world.announced, [(topic(), None)].into());
    let b = world.attach(2);
    let of_b = open(&mut world, b, "io");
    let request = with_schema(sink_request(&mut world, b, of_b, 2, SinkWake::Never), one);
    world.request(b, &request);
    world.settle();
    assert_eq!(world.announced, [(topic(), Some(one))].into());
    world.kill(b);
    world.settle();
    assert_eq!(world.announced, [(topic(), None)].into());
    end(world);
}

#[test]
fn interest_in_another_stream_of_the_same_wire_name_is_none() {
    let mut world = World::new(spec(vec![datapath(&[0, 1], true)]));
    let a = world.attach(1);
    let stream = open(&mut world, a, "io");
    source(&mut world, a, stream, 11);
    world.interest_in(0, topic(), 4711, None, true);
    assert!(world.datapaths[0].routes.is_empty(), "the check is not this stream's");
    world.interest(0, topic(), true);
    world.interest(1, topic(), true);
    world.settle();
    assert_eq!(active(&world, a).len(), 1);
    world.hub.peer_gone(insane_core::PeerIndex(0));
    world.pump();
    assert_eq!(world.datapaths[0].routes[&topic()].peers, [insane_core::PeerIndex(1)]);
    world.hub.peer_gone(insane_core::PeerIndex(1));
    world.pump();
    end(world);
}

fn tap(world: &mut World, session: SessionId, stream: StreamId, uid: u64) {
    world.clients.get_mut(&session).unwrap().asked.insert(3, uid);
    world.request(session, &Request::CreateTap { req: 3, stream, channel: ChannelId(5), uid, depth: 8, line: None });
    world.settle();
}

#[test]
fn a_tap_is_joined_and_neither_announced_nor_routed_for() {
    let mut world = World::new(spec(vec![datapath(&[0], false)]));
    let (a, b) = (world.attach(1), world.attach(2));
    let (stream_a, stream_b) = (open(&mut world, a, "io"), open(&mut world, b, "io"));
    source(&mut world, a, stream_a, 11);
    tap(&mut world, b, stream_b, 22);
    assert_eq!(active(&world, a).len(), 1, "a direct ring");
    assert!(world.clients[&a].events.iter().any(|e| matches!(e, Event::TxPrepare { to: Receiver::Tap(22), .. })));
    assert_eq!(world.datapaths[0].rx.len(), 1, "and one from the datapath");
    assert!(world.announced.is_empty(), "peers hear of sinks only");
    sink(&mut world, b, stream_b, 33);
    assert_eq!(world.announced.len(), 1);
    end(world);

    let mut world = World::new(spec(vec![datapath(&[0], false)]));
    let a = world.attach(1);
    let stream = open_as(&mut world, a, "io", Qos::default(), true).unwrap();
    source(&mut world, a, stream, 11);
    tap(&mut world, a, stream, 22);
    assert!(active(&world, a).is_empty(), "isolated: nothing is sent for a tap alone");
    let there = sink(&mut world, a, stream, 33);
    assert!(world.datapaths[0].routes[&topic()].local);
    world.request(a, &Request::CloseSink { req: 9, sink: there });
    world.clients.get_mut(&a).unwrap().forget_sink(there);
    world.settle();
    assert!(active(&world, a).is_empty(), "nor when the last sink has gone");
    // What goes to a peer anyway, the tap sees, too.
    world.interest(0, topic(), true);
    world.settle();
    let route = &world.datapaths[0].routes[&topic()];
    assert!(route.local && route.peers.len() == 1);
    world.interest(0, topic(), false);
    end(world);
}

#[test]
fn a_sink_is_announced_when_it_can_receive() {
    let mut world = World::new(spec(vec![datapath(&[0], false), datapath(&[1], false), datapath(&[], false)]));
    let a = world.attach(1);
    let stream = open(&mut world, a, "io");
    let request = sink_request(&mut world, a, stream, 22, SinkWake::Never);
    world.request(a, &request);
    assert!(world.announced.is_empty());
    world.settle();
    assert_eq!(world.announced.len(), 1);
    assert_eq!(world.datapaths.iter().map(|d| d.rx.len()).collect::<Vec<_>>(), [1, 1, 0]);
    let second = sink(&mut world, a, stream, 23);
    world.request(a, &Request::CloseSink { req: 1, sink: SinkId(0) });
    assert_eq!(world.announced.len(), 1, "another sink is there");
    world.request(a, &Request::CloseSink { req: 1, sink: second });
    assert!(world.announced.is_empty());
    end(world);
}

#[test]
fn an_isolated_stream_goes_through_the_runtime() {
    let mut world = World::new(spec(vec![datapath(&[], false)]));
    let (a, b) = (world.attach(1), world.attach(2));
    let stream_a = open_as(&mut world, a, "io", Qos::default(), true).unwrap();
    let stream_b = open_as(&mut world, b, "io", Qos::default(), true).unwrap();
    source(&mut world, a, stream_a, 11);
    assert!(world.datapaths[0].routes.is_empty());
    sink(&mut world, b, stream_b, 22);
    assert_eq!((world.datapaths[0].tx.len(), world.datapaths[0].rx.len()), (1, 1));
    assert!(world.datapaths[0].routes[&topic()].local);
    assert!(world.clients[&b].events.iter().any(|e| matches!(e, Event::RxOpen { trusted: true, .. })));
    world.kill(b);
    world.settle();
    assert!(world.datapaths[0].routes.is_empty() && world.datapaths[0].tx.is_empty());
    end(world);
}
