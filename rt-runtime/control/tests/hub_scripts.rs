//! The hub, one story at a time.
#![forbid(unsafe_code)]

mod world;

use insane_control::action::{Action, Note, ObjectKind, Writer};
use insane_control::hub::{GREETING_MAX, HELLO_TIMEOUT, OBSERVERS_MAX, OBSERVERS_OF_USER_MAX, Packet};
use insane_control::quota::{Amounts, Quota};
use insane_control::spec::HubSpec;
use insane_core::limits::{FANIN_MAX, FANOUT_MAX};
use insane_core::{ChannelId, ConnId, Datapath, Nanos, Priority, Qos, SessionId, SinkId, SourceId, StreamId};
use insane_wire::control::{
    ClassSpec, Code, Event, Hello, Request, Role, SinkWake, VERSION_MAX, WakeKind, encode, encode_hello,
};
use std::collections::BTreeSet;
use world::client::{Client, EndState};
use world::script::*;
use world::{World, datapath, spec};

#[test]
fn a_source_and_a_sink_of_two_sessions_are_joined_directly() {
    let (mut world, [a, b], [_, stream_b]) = two(spec(vec![]));
    assert!(active(&world, a).is_empty());
    let created = world.creates;
    let sink = sink(&mut world, b, stream_b, 22);
    assert_eq!(world.creates - created, 3, "a wake page and two rings");
    let [conn] = active(&world, a)[..] else { panic!("one connection") };
    let opened = world.clients[&b].events.iter().find_map(|event| match event {
        Event::RxOpen { trusted, classes, heap_bytes, .. } => Some((*trusted, classes.clone(), *heap_bytes)),
        _ => None,
    });
    assert_eq!(opened, Some((false, HEAP.to_vec(), 12_288)), "ten buffers of 1024 bytes, in whole pages");
    assert_eq!(
        world.clients[&a]
            .events
            .iter()
            .filter(|e| matches!(e, Event::TxOpen { wake: WakeKind::Page, returns: 16, .. }))
            .count(),
        1
    );

    world.request(b, &Request::CloseSink { req: 9, sink });
    world.clients.get_mut(&b).unwrap().forget_sink(sink);
    world.settle();
    assert!(world.clients[&a].events.contains(&Event::Retire { conn }));
    assert!(!world.clients[&b].events.contains(&Event::Retire { conn }), "it closed the sink itself");
    end(world);
}

#[test]
fn a_session_is_joined_with_itself_and_trusts_itself() {
    let mut world = World::new(spec(vec![]));
    let a = world.attach(1);
    let stream = open(&mut world, a, "io");
    source(&mut world, a, stream, 11);
    sink(&mut world, a, stream, 22);
    assert_eq!(active(&world, a).len(), 1);
    assert!(world.clients[&a].events.iter().any(|event| matches!(event, Event::RxOpen { trusted: true, .. })));
    end(world);
}

#[test]
fn nobody_takes_all_places_of_those_who_watch() {
    let mut world = World::new(spec(vec![]));
    let watch = |world: &mut World, uid: u32| {
        let session = world.connect(uid).unwrap();
        world.greet(session, uid, Role::Observer, None);
        world.settle();
        world.clients.get(&session).is_some_and(|client| client.welcomed).then_some(session)
    };
    let first: Vec<_> = (0..OBSERVERS_OF_USER_MAX).map(|_| watch(&mut world, 1).expect("a place")).collect();
    assert_eq!(watch(&mut world, 1), None, "one user has few");
    // Together they have theirs, and no more.
    let others = (2..10).flat_map(|uid| [uid; 4]).filter(|uid| watch(&mut world, *uid).is_some()).count();
    assert_eq!(others, OBSERVERS_MAX - OBSERVERS_OF_USER_MAX);
    // Who runs the runtime looks all the same, within a bound of its own.
    let operators: Vec<_> = (0..OBSERVERS_MAX).map(|_| watch(&mut world, 0).expect("a place")).collect();
    assert_eq!(watch(&mut world, 0), None);
    // A place that is given up is free, to each for itself.
    world.kill(first[0]);
    assert!(watch(&mut world, 0).is_none() && watch(&mut world, 2).is_none());
    assert!(watch(&mut world, 9).is_some());
    world.kill(operators[0]);
    assert!(watch(&mut world, 1).is_none() && watch(&mut world, 0).is_some());
    end(world);
}

#[test]
fn domains_never_meet() {
    let mut world = World::new(spec(vec![]));
    let (a, b) = (world.attach(1), world.attach(11));
    let (stream_a, stream_b) = (open(&mut world, a, "io"), open(&mut world, b, "io"));
    source(&mut world, a, stream_a, 11);
    sink(&mut world, b, stream_b, 22);
    assert_eq!(world.hub.table_sizes().conns, 0);
    assert_eq!(world.hub.table_sizes().contracts, 2);
    end(world);
}

#[test]
fn the_steps_may_be_acknowledged_in_any_order() {
    // All 24 orders of four acknowledgements: heap, cells, wake page, returns.
    for code in 0..24 {
        let mut left = vec![0, 1, 2, 3];
        let order = [code / 6, code / 2 % 3, code % 2, 0].map(|at| left.remove(at));
        let mut world = World::new(spec(vec![]));
        let (a, b) = (world.attach(1), world.attach(2));
        let (stream_a, stream_b) = (open(&mut world, a, "io"), open(&mut world, b, "io"));
        world.settle();
        let requests =
            [source_request(&mut world, a, stream_a, 11), sink_request(&mut world, b, stream_b, 22, SinkWake::Fd)];
        world.request(a, &requests[0]);
        world.request(b, &requests[1]);
        // Drain both inboxes without answering, then answer in the wanted order.
        let mut answers = Vec::new();
        for session in [a, b] {
            let client = world.clients.get_mut(&session).unwrap();
            while let Some((event, beside)) = client.inbox.pop_front() {
                answers.extend(client.handle(&event, &beside).into_iter().map(|answer| (session, answer)));
            }
        }
        assert_eq!(answers.len(), 4, "heap, cells, wake page, returns");
        for at in order {
            assert!(active(&world, a).is_empty());
            let (session, (answer, object)) = answers[at].clone();
            world.objects.get_mut(&object.unwrap()).unwrap().mapped = true;
            world.request(session, &answer);
        }
        world.settle();
        assert_eq!(active(&world, a).len(), 1, "{order:?}");
        end(world);
    }
}

#[test]
fn a_connection_that_a_datapath_cannot_take_is_tried_again() {
    let mut world = World::new(spec(vec![datapath(&[0], true)]));
    let a = world.attach(1);
    let stream = open(&mut world, a, "io");
    source(&mut world, a, stream, 11);
    world.interest(0, topic(), true);
    world.settle();
    let [conn] = active(&world, a)[..] else { panic!("one connection") };
    world.hub.attach_failed(conn, "the datapath has no place");
    world.pump();
    world.settle();
    assert!(!active(&world, a).contains(&conn));
    world.wait(Nanos::from_secs(1));
    world.settle();
    assert_eq!(active(&world, a).len(), 1);
    world.interest(0, topic(), false);
    end(world);
}

#[test]
fn another_quality_of_service_is_refused_and_both_are_named() {
    let mut world = World::new(spec(vec![datapath(&[], false)]));
    let (a, b) = (world.attach(1), world.attach(2));
    open(&mut world, a, "io");
    let fast = Qos { datapath: Datapath::Fast, priority: Priority::MAX, ..Qos::default() };
    assert_eq!(open_as(&mut world, b, "io", fast, false), Err(Code::Mismatch));
    let (_, reason) = last_failure(&world, b);
    for part in ["standard", "priority 3", "fast", "priority 7"] {
        assert!(reason.contains(part), "{reason}");
    }
    assert_eq!(open_as(&mut world, b, "io", Qos::default(), true), Err(Code::Mismatch));
    // With the last opener the contract ends.
    world.kill(a);
    open_as(&mut world, b, "io", fast, false).unwrap();
    end(world);
}

#[test]
fn what_is_no_hello_is_answered_and_closed() {
    let hello = |change: fn(&mut Vec<u8>)| {
        let mut packet =
            encode_hello(&insane_wire::control::Hello { name: "x".into(), domain: None, role: Role::Application });
        change(&mut packet);
        packet
    };
    let cases: [(Vec<u8>, Code); 8] = [
        (vec![], Code::Protocol),
        (b"GET / HTTP/1.0".to_vec(), Code::Protocol),
        (hello(|p| p.truncate(9)), Code::Protocol),
        (hello(|p| p.push(7)), Code::Protocol),
        (hello(|p| p[4..8].copy_from_slice(&[9, 0, 12, 0])), Code::Version),
        // Earlier versions had other messages, which would be read wrongly.
        (hello(|p| p[4..8].copy_from_slice(&[1, 0, 1, 0])), Code::Version),
        (hello(|p| p[4..8].copy_from_slice(&[2, 0, 2, 0])), Code::Version),
        (encode(&Request::Status { req: 1 }), Code::Protocol),
    ];
    let mut world = World::new(spec(vec![]));
    for (packet, code) in cases {
        let session = world.connect(1).unwrap();
        world.bytes(session, &packet);
        assert_eq!(world.closed[&session].0, code, "{packet:?}");
    }
    let session = world.connect(1).unwrap();
    world.bytes(session, &hello(|p| p[6..8].copy_from_slice(&[200, 0])));
    assert!(!world.closed.contains_key(&session), "a newer client that speaks ours, too");
    assert_eq!(VERSION_MAX, 4);
    world.kill(session);
    world.assert_empty();
}

#[test]
fn whom_no_rule_accepts_is_not_let_in() {
    let mut world = World::new(spec(vec![]));
    let stranger = world.connect(99).unwrap();
    world.greet(stranger, 99, Role::Application, None);
    assert_eq!(world.closed[&stranger].0, Code::Access);
    let wrong = world.connect(1).unwrap();
    world.greet(wrong, 1, Role::Application, Some("line2"));
    assert_eq!(world.closed[&wrong].0, Code::Access);
    let operator = world.connect(0).unwrap();
    world.greet(operator, 0, Role::Observer, None);
    assert!(world.hub.is_operator(operator) && !world.hub.is_operator(stranger));
    let right = world.connect(11).unwrap();
    world.greet(right, 11, Role::Application, Some("line2"));
    assert!(!world.closed.contains_key(&right));
    end(world);
}

#[test]
fn the_silent_and_the_many_are_bounded() {
    let mut world = World::new(spec(vec![]));
    let waiting: Vec<SessionId> = (0..GREETING_MAX).map(|_| world.connect(1).unwrap()).collect();
    assert!(world.connect(1).is_none(), "too many of one user");
    assert!(world.connect(2).is_some(), "another user is not held up");
    world.wait(HELLO_TIMEOUT);
    assert!(waiting.iter().all(|session| world.closed[session].0 == Code::Protocol));
    world.assert_empty();
}

#[test]
fn descriptors_and_huge_packets_end_the_session_and_nobody_else() {
    let mut world = World::new(spec(vec![]));
    let (a, b) = (world.attach(1), world.attach(2));
    world.settle();
    let request = encode(&Request::Status { req: 1 });
    world.hub.packet(a, Packet { bytes: &request, fds: 1, truncated: false }, world.now);
    world.clients.get_mut(&a).unwrap().honest = false;
    world.pump();
    assert_eq!(world.closed[&a].0, Code::Protocol);
    world.hub.packet(a, Packet::plain(&request), world.now);
    world.pump();
    assert!(world.statuses.is_empty(), "a closed session is not heard");
    world.bytes(b, &request);
    assert_eq!(world.statuses, [(b, 1)]);
    world.clients.get_mut(&b).unwrap().honest = false;
    world.hub.packet(b, Packet { bytes: &request, fds: 0, truncated: true }, world.now);
    world.pump();
    assert_eq!(world.closed[&b].0, Code::Protocol);
    world.assert_empty();
}

#[test]
fn acknowledging_what_was_not_asked_ends_the_session() {
    let wrong: [fn(ConnId) -> Request; 8] = [
        |conn| Request::Mapped { conn, step: 1 },
        |conn| Request::Mapped { conn, step: 2 },
        |conn| Request::Mapped { conn, step: 3 },
        |conn| Request::Kept { conn },
        |_| Request::Mapped { conn: ConnId(999), step: 1 },
        |_| Request::SourceMapped { source: SourceId(0) },
        |_| Request::SinkMapped { sink: SinkId(7) },
        |_| Request::SessionMapped,
    ];
    for request in wrong {
        let (mut world, [a, b], [_, stream_b]) = two(spec(vec![]));
        sink(&mut world, b, stream_b, 22);
        let [conn] = active(&world, a)[..] else { panic!("one connection") };
        world.clients.get_mut(&a).unwrap().honest = false;
        world.request(a, &request(conn));
        assert_eq!(world.closed[&a].0, Code::Violation);
        world.settle();
        assert!(world.clients[&b].events.contains(&Event::Retire { conn }), "the other end is told");
        end(world);
    }
}

#[test]
fn a_third_session_cannot_answer_for_a_connection() {
    let mut world = World::new(spec(vec![]));
    let (a, b, c) = (world.attach(1), world.attach(2), world.attach(3));
    let (stream_a, stream_b) = (open(&mut world, a, "io"), open(&mut world, b, "io"));
    source(&mut world, a, stream_a, 11);
    sink(&mut world, b, stream_b, 22);
    let [conn] = active(&world, a)[..] else { panic!("one connection") };
    world.clients.get_mut(&c).unwrap().honest = false;
    world.request(c, &Request::Violation { conn });
    assert_eq!(world.closed[&c].0, Code::Violation);
    assert!(world.hub.is_active(conn));
    end(world);
}

#[test]
fn what_crosses_with_the_end_of_a_connection_is_no_fault() {
    let (mut world, [a, b], [_, stream_b]) = two(spec(vec![]));
    let request = sink_request(&mut world, b, stream_b, 22, SinkWake::Page);
    world.request(b, &request);
    // The source's client dies before the sink's client has handled anything.
    world.kill(a);
    world.settle();
    assert!(world.clients.contains_key(&b), "its acknowledgement came late, and that is all");
    end(world);
}

#[test]
fn a_violation_ends_the_connection_and_only_that() {
    let (mut world, [a, b], [_, stream_b]) = two(spec(vec![datapath(&[0], false)]));
    sink(&mut world, b, stream_b, 22);
    sink(&mut world, b, stream_b, 23);
    let [first, second] = active(&world, a)[..] else { panic!("two connections") };
    world.request(b, &Request::Violation { conn: first });
    world.settle();
    assert!(world.hub.is_active(second) && !world.hub.is_active(first));
    assert!(world.notes.contains(&Note::Violated { conn: first, by: Some(b) }));
    assert_eq!(active(&world, a), [second]);
    // And one that a datapath reports.
    let from_datapath = *world.datapaths[0].rx.keys().next().unwrap();
    world.hub.violated(from_datapath);
    world.pump();
    world.settle();
    assert!(world.clients[&b].events.contains(&Event::Retire { conn: from_datapath }));
    assert_eq!(world.datapaths[0].rx.len(), 1);
    end(world);
}

/// Hands events to the client until the next is one at which it is to stop, which it sees, too.
/// It answers none but those before.
fn until_event(world: &mut World, session: SessionId, stops: impl Fn(&Event) -> Option<ConnId>) -> Option<ConnId> {
    loop {
        let client = world.clients.get_mut(&session)?;
        let (event, beside) = client.inbox.pop_front()?;
        let answers = client.handle(&event, &beside);
        if let Some(conn) = stops(&event) {
            return Some(conn);
        }
        for (answer, object) in answers {
            if let Some(object) = object {
                world.objects.get_mut(&object).unwrap().mapped = true;
            }
            world.request(session, &answer);
        }
    }
}

const fn rx_prepare(event: &Event) -> Option<ConnId> {
    if let Event::RxPrepare { conn, .. } = event { Some(*conn) } else { None }
}

const fn rx_open(event: &Event) -> Option<ConnId> {
    if let Event::RxOpen { conn, .. } = event { Some(*conn) } else { None }
}

const fn tx_open(event: &Event) -> Option<ConnId> {
    if let Event::TxOpen { conn, .. } = event { Some(*conn) } else { None }
}

const fn nothing(_: &Event) -> Option<ConnId> {
    None
}

/// Who has not mapped a connection says that it cannot, and it is tried again; who has says that
/// its other end lied, and it is not.
#[test]
fn a_violation_before_a_connection_is_mapped_is_tried_again_and_one_after_that_is_not() {
    for (stops_at_open, has_mapped) in [(false, false), (true, false), (true, true)] {
        let (mut world, [a, b], [_, stream_b]) = two(spec(vec![]));
        let request = sink_request(&mut world, b, stream_b, 22, SinkWake::Page);
        world.request(b, &request);
        let conn = if stops_at_open {
            assert_eq!(until_event(&mut world, b, nothing), None);
            assert!(until_event(&mut world, a, tx_open).is_some());
            until_event(&mut world, b, rx_open)
        } else {
            until_event(&mut world, b, rx_prepare)
        };
        let conn = conn.expect("the stage is reached");
        if has_mapped {
            world.request(b, &Request::Mapped { conn, step: 2 });
        }
        assert!(!world.hub.is_active(conn));
        world.request(b, &Request::Violation { conn });
        let is_violated = world.notes.contains(&Note::Violated { conn, by: Some(b) });
        let is_unjoined = world.notes.iter().any(|note| matches!(note, Note::Unjoined { conn: of, .. } if *of == conn));
        assert_eq!((is_violated, is_unjoined), (has_mapped, !has_mapped));
        world.settle();
        assert!(world.clients[&b].events.contains(&Event::Retire { conn }));
        world.wait(Nanos::from_secs(1));
        world.settle();
        assert_eq!(active(&world, a).len(), usize::from(!has_mapped));
        assert!(world.closed.is_empty());
        end(world);
    }
}

/// Each attempt is memory that the hub makes: refusing all of them costs the session's pace.
#[test]
fn who_refuses_every_connection_is_paced() {
    let spec = paced(spec(vec![]));
    let (mut world, [a, b], [_, stream_b]) = two(spec);
    world.clients.get_mut(&b).unwrap().honest = false;
    for uid in 0..100 {
        let request = sink_request(&mut world, b, stream_b, 22 + uid, SinkWake::Page);
        world.request(b, &request);
        while let Some(conn) = until_event(&mut world, b, rx_prepare) {
            world.request(b, &Request::Violation { conn });
        }
        if world.closed.contains_key(&b) {
            break;
        }
        world.wait(Nanos::from_secs(1));
    }
    assert_eq!(world.closed[&b].0, Code::Quota);
    assert!(!world.closed.contains_key(&a));
    end(world);
}

/// One that has worked and goes by a datapath is made anew, and not only once: ending it
/// again and again costs the session's pace, too.
#[test]
fn who_ends_every_connection_that_works_is_paced() {
    let spec = paced(spec(vec![datapath(&[0], true)]));
    let (mut world, [a, b], _) = two(spec);
    world.interest(0, topic(), true);
    world.settle();
    world.clients.get_mut(&a).unwrap().honest = false;
    let mut ended = BTreeSet::new();
    for _ in 0..100 {
        let Some(conn) = world.clients.get(&a).and_then(|_| active(&world, a).first().copied()) else { break };
        assert!(ended.insert(conn), "another one than before");
        world.request(a, &Request::Violation { conn });
        world.settle();
    }
    assert_eq!(world.closed.get(&a).map(|(code, _)| *code), Some(Code::Quota), "after {} connections", ended.len());
    assert!(!world.closed.contains_key(&b));
    world.interest(0, topic(), false);
    end(world);
}

/// Who lies to many harms none of them: to say so costs them nothing.
#[test]
fn who_is_lied_to_by_many_is_not_put_out_for_saying_so() {
    let spec = paced(spec(vec![]));
    let (mut world, [a, b], [_, stream_b]) = two(spec);
    for uid in 0..FANOUT_MAX as u64 {
        world.wait(Nanos::from_secs(1));
        sink(&mut world, b, stream_b, 22 + uid);
    }
    let conns = active(&world, a);
    assert_eq!(conns.len(), FANOUT_MAX);
    conns.iter().for_each(|conn| world.request(b, &Request::Violation { conn: *conn }));
    world.settle();
    assert!(active(&world, a).is_empty() && world.closed.is_empty());
    end(world);
}

/// A connection that is over stays until its datapath has let go, and to accuse it costs as much as
/// to accuse one that is gone.
#[test]
fn who_accuses_a_connection_that_goes_is_paced() {
    let spec = paced(spec(vec![datapath(&[0], true)]));
    let (mut world, [a, b], _) = two(spec);
    world.interest(0, topic(), true);
    world.settle();
    let [conn] = active(&world, a)[..] else { panic!("one connection") };
    world.hub.violated(conn);
    world.pump();
    world.clients.get_mut(&a).unwrap().honest = false;
    let accusations = (0..100).take_while(|_| {
        world.request(a, &Request::Violation { conn });
        !world.closed.contains_key(&a)
    });
    assert!(accusations.count() < 100, "for free");
    assert_eq!(world.closed[&a].0, Code::Quota);
    assert!(!world.closed.contains_key(&b));
    world.interest(0, topic(), false);
    end(world);
}

fn with_quota(most: Amounts) -> HubSpec {
    let mut spec = spec(vec![]);
    spec.domains[0].quota = Quota { most, requests_per_second: 100 };
    spec
}

#[test]
fn every_quota_is_a_clear_refusal() {
    const FREE: Amounts = Amounts::UNLIMITED;
    let cases = [
        Amounts { streams: 2, ..FREE },
        Amounts { sources: 1, ..FREE },
        Amounts { sinks: 1, ..FREE },
        Amounts { connections: 1, ..FREE },
        Amounts { bytes: 64 * 128 * 2 + 20_000, ..FREE },
        Amounts { buffers: 15, ..FREE },
    ];
    let names = ["streams", "sources", "sinks", "connections", "bytes", "buffers"];
    for (most, name) in cases.into_iter().zip(names) {
        let (mut world, [a, b], [stream_a, stream_b]) = two(with_quota(most));
        sink(&mut world, b, stream_b, 22);
        let request = match name {
            "streams" => Request::OpenStream { req: 7, name: "other".into(), qos: Qos::default(), isolated: false },
            "sinks" => sink_request(&mut world, a, stream_a, 23, SinkWake::Page),
            _ => source_request(&mut world, a, stream_a, 12),
        };
        world.request(a, &request);
        world.settle();
        let (code, reason) = last_failure(&world, a);
        assert_eq!(code, Code::Quota, "{name}");
        assert!(reason.contains(&format!("quota of {name} is")), "{reason}");
        assert_eq!(active(&world, a).len(), 1, "what was there is untouched");
        let row = world.hub.accounts()[0].rows().find(|row| row.0 == name).unwrap();
        assert_eq!(row.3, 1, "the refusal is counted");
        end(world);
    }
    let mut world = World::new(with_quota(Amounts { sessions: 1, ..FREE }));
    let a = world.attach(1);
    let second = world.attach(2);
    assert_eq!(world.closed[&second].0, Code::Quota);
    let tool = world.connect(3).unwrap();
    world.greet(tool, 3, Role::Observer, None);
    assert!(!world.closed.contains_key(&tool), "a tool may look into a full domain");
    world.request(tool, &Request::Status { req: 4 });
    assert_eq!(world.statuses, [(tool, 4)]);
    world.request(tool, &Request::OpenStream { req: 5, name: "io".into(), qos: Qos::default(), isolated: false });
    world.settle();
    assert_eq!(last_failure(&world, tool).0, Code::Access);
    let _ = a;
    end(world);
}

#[test]
fn who_asks_too_fast_is_refused_then_closed() {
    let mut world = World::new(with_quota(Amounts::UNLIMITED));
    let a = world.attach(1);
    world.settle();
    world.clients.get_mut(&a).unwrap().honest = false;
    let close = Request::CloseSink { req: 6, sink: SinkId(0) };
    for _ in 0..101 {
        world.request(a, &close);
    }
    world.settle();
    let codes: Vec<Code> = world.clients[&a].failures.iter().map(|(_, code, _)| *code).collect();
    assert_eq!(codes[..100], [Code::Unknown; 100]);
    assert_eq!(codes[100], Code::Quota);
    world.wait(Nanos::from_secs(1));
    world.request(a, &close);
    world.settle();
    assert_eq!(world.clients[&a].failures.last().unwrap().1, Code::Unknown, "time heals");
    for _ in 0..300 {
        world.request(a, &close);
    }
    assert_eq!(world.closed[&a].0, Code::Quota);
    end(world);
}

#[test]
fn fan_out_and_fan_in_are_bounded() {
    let mut world = World::new(spec(vec![]));
    let sessions: Vec<SessionId> = (0..4).map(|uid| world.attach(uid)).collect();
    let streams: Vec<StreamId> = sessions.iter().map(|session| open(&mut world, *session, "io")).collect();
    source(&mut world, sessions[0], streams[0], 1);
    for uid in 0..FANOUT_MAX as u64 {
        let at = 1 + (uid % 2) as usize;
        sink(&mut world, sessions[at], streams[at], 100 + uid);
    }
    assert_eq!(active(&world, sessions[0]).len(), FANOUT_MAX);
    let request = sink_request(&mut world, sessions[3], streams[3], 999, SinkWake::Page);
    world.request(sessions[3], &request);
    world.settle();
    assert_eq!(last_failure(&world, sessions[3]).0, Code::Resources);
    for uid in 1..FANIN_MAX as u64 {
        let at = 3 * (uid % 2) as usize;
        source(&mut world, sessions[at], streams[at], 200 + uid);
    }
    let request = source_request(&mut world, sessions[0], streams[0], 999);
    world.request(sessions[0], &request);
    world.settle();
    assert_eq!(last_failure(&world, sessions[0]).0, Code::Resources);
    assert_eq!(world.hub.table_sizes().conns, FANIN_MAX * FANOUT_MAX);
    end(world);
}

/// The same, counting in that line.
fn counting_in(mut request: Request, at: u32) -> Request {
    if let Request::CreateSource { line, .. } | Request::CreateSink { line, .. } = &mut request {
        *line = Some(at);
    }
    request
}

#[test]
fn bad_values_are_refused_with_what_would_be_right() {
    let mut world = World::new(spec(vec![]));
    let (a, b) = (world.attach(1), world.attach(2));
    let stream = open(&mut world, a, "io");
    source(&mut world, a, stream, 11);
    let channel = ChannelId(5);
    let source_of = |stream, uid, size, count| Request::CreateSource {
        req: 2,
        stream,
        channel,
        uid,
        classes: vec![ClassSpec { size, count }],
        schema: None,
        keeps: false,
        line: None,
    };
    let sink_of = |depth| Request::CreateSink {
        req: 2,
        stream,
        channel,
        uid: 1,
        depth,
        wake: SinkWake::Never,
        schema: None,
        line: None,
    };
    let name = |name: &str| Request::OpenStream { req: 2, name: name.into(), qos: Qos::default(), isolated: false };
    let isolated = Request::OpenStream { req: 2, name: "x".into(), qos: Qos::default(), isolated: true };
    let lines = spec(vec![]).counter_lines;
    let cases = [
        (source_of(stream, 1, 0, 1), Code::Invalid),
        (source_of(stream, 1, 1, 0), Code::Invalid),
        (source_of(stream, 1, u32::MAX, 1), Code::Invalid),
        (source_of(stream, 1, 1, u32::MAX), Code::Invalid),
        (source_of(stream, 11, 1, 1), Code::Invalid),
        (source_of(StreamId(77), 1, 1, 1), Code::Unknown),
        (sink_of(0), Code::Invalid),
        (sink_of(1), Code::Invalid),
        (sink_of(3), Code::Invalid),
        (sink_of(1 << 17), Code::Invalid),
        (name(""), Code::Invalid),
        (name(&"x".repeat(65)), Code::Invalid),
        (name("a\u{7}"), Code::Invalid),
        (isolated, Code::Resources),
        (counting_in(source_of(stream, 1, 1, 1), lines), Code::Invalid),
        (counting_in(sink_of(8), u32::MAX), Code::Invalid),
        (Request::CreateTap { req: 2, stream, channel, uid: 1, depth: 8, line: Some(lines) }, Code::Invalid),
        (Request::CloseSource { req: 2, source: SourceId(5) }, Code::Unknown),
        (Request::CloseStream { req: 2, stream: StreamId(5) }, Code::Unknown),
    ];
    for (request, code) in cases {
        world.request(a, &request);
        world.settle();
        assert_eq!(last_failure(&world, a).0, code, "{request:?}");
    }
    // What belongs to another session is as unknown as what is not there.
    world.request(b, &Request::CloseSource { req: 2, source: SourceId(0) });
    world.request(b, &Request::CloseStream { req: 2, stream });
    world.settle();
    assert_eq!(world.clients[&b].failures.iter().filter(|f| f.1 == Code::Unknown).count(), 2);
    end(world);
}

#[test]
fn memory_that_cannot_be_made_is_a_refusal_and_leaks_nothing() {
    let kinds: [fn(&ObjectKind) -> bool; 6] = [
        |kind| matches!(kind, ObjectKind::Counters { .. }),
        |kind| matches!(kind, ObjectKind::Heap { .. }),
        |kind| matches!(kind, ObjectKind::WakePage),
        |kind| matches!(kind, ObjectKind::WakeSocket),
        |kind| matches!(kind, ObjectKind::Cells { .. }),
        |kind| matches!(kind, ObjectKind::Returns { .. }),
    ];
    for (at, fails) in kinds.into_iter().enumerate() {
        let mut world = World::new(spec(vec![datapath(&[0], true)]));
        world.interest(0, topic(), true);
        if at == 0 {
            world.fail_objects = Box::new(fails);
            let a = world.attach(1);
            assert_eq!(world.closed[&a].0, Code::Resources);
            world.interest(0, topic(), false);
            end(world);
            continue;
        }
        let (a, b) = (world.attach(1), world.attach(2));
        let (stream_a, stream_b) = (open(&mut world, a, "io"), open(&mut world, b, "io"));
        world.fail_objects = Box::new(fails);
        let request = source_request(&mut world, a, stream_a, 11);
        world.request(a, &request);
        let request = sink_request(&mut world, b, stream_b, 22, SinkWake::Fd);
        world.request(b, &request);
        world.settle();
        match at {
            1 => assert_eq!(last_failure(&world, a).0, Code::Resources),
            2 | 3 => assert_eq!(last_failure(&world, b).0, Code::Resources),
            _ => {
                assert_eq!(world.hub.table_sizes().unjoined, 3, "direct, to and from the datapath");
                world.fail_objects = Box::new(|_| false);
                world.wait(Nanos::from_secs(1));
                world.settle();
                assert_eq!(active(&world, a).len(), 2, "joined as soon as it can be");
            }
        }
        world.interest(0, topic(), false);
        end(world);
    }
}

#[test]
fn a_doorbell_that_cannot_be_made_is_tried_again() {
    let mut world = World::new(spec(vec![datapath(&[0], true)]));
    let a = world.attach(1);
    let stream = open(&mut world, a, "io");
    world.fail_objects = Box::new(|kind| *kind == ObjectKind::Doorbell);
    source(&mut world, a, stream, 11);
    world.interest(0, topic(), true);
    world.settle();
    assert!(active(&world, a).is_empty());
    world.fail_objects = Box::new(|_| false);
    world.wait(Nanos::from_secs(1));
    world.settle();
    assert_eq!(active(&world, a).len(), 1);
    world.interest(0, topic(), false);
    end(world);
}

/// Attaches the clients of `old` to a new life of the runtime, with the same uids.
fn restart(old: World, spec: HubSpec) -> (World, Vec<SessionId>) {
    let mut world = World::new(spec);
    let mut sessions = Vec::new();
    for client in old.clients.into_values() {
        let session = world.attach(client.uid);
        world.settle();
        let stream = open(&mut world, session, "io");
        let row = world.clients.get_mut(&session).unwrap();
        row.rings_tx.clone_from(&client.rings_tx);
        row.rings_rx.clone_from(&client.rings_rx);
        for uid in client.sources.values() {
            source(&mut world, session, stream, *uid);
        }
        for uid in client.sinks.values() {
            sink(&mut world, session, stream, *uid);
        }
        sessions.push(session);
    }
    (world, sessions)
}

fn joined_pair() -> World {
    let (mut world, [_, b], [_, stream_b]) = two(spec(vec![]));
    sink(&mut world, b, stream_b, 22);
    world
}

#[test]
fn after_a_restart_direct_rings_are_kept() {
    let (mut world, sessions) = restart(joined_pair(), spec(vec![]));
    let (conn, (_, state)) = world.clients[&sessions[0]].tx.iter().next().map(|(c, e)| (*c, *e)).unwrap();
    assert_eq!(state, EndState::Kept);
    assert!(world.hub.is_active(conn));
    let rings = |kind: &ObjectKind| matches!(kind, ObjectKind::Cells { .. } | ObjectKind::Returns { .. });
    assert!(!world.objects.values().any(|object| rings(&object.kind)), "nothing new is held");
    world.kill(sessions[1]);
    world.settle();
    assert!(world.clients[&sessions[0]].events.contains(&Event::Retire { conn }));
    end(world);
}

#[test]
fn memory_of_an_earlier_life_is_adopted_and_no_new_one_made() {
    let mut world = World::new(spec(vec![]));
    let (a, b) = (world.attach(1), world.attach(2));
    let (stream_a, stream_b) = (open(&mut world, a, "io"), open(&mut world, b, "io"));
    let source = encode(&source_request(&mut world, a, stream_a, 11));
    let sink = encode(&sink_request(&mut world, b, stream_b, 22, SinkWake::Fd));
    for (session, bytes, fds) in [(a, source, 1), (b, sink, 2)] {
        world.hub.packet(session, Packet { bytes: &bytes, fds, truncated: false }, world.now);
        world.pump();
    }
    let adopted = world.objects.values().filter(|object| object.writer == Writer::Adopted).count();
    assert_eq!(adopted, 3, "heap, wake page and wake socket");
    world.settle();
    assert_eq!(active(&world, a).len(), 1, "joined without a word about that memory");
    end(world);

    // A counters page comes beside HELLO; it is welcomed without another one, and is not
    // acknowledged.
    let hello = |role| encode_hello(&Hello { name: "again".into(), domain: None, role });
    let mut world = World::new(spec(vec![]));
    let a = world.connect(1).unwrap();
    world.clients.insert(a, Client::new(1));
    world.hub.packet(a, Packet { bytes: &hello(Role::Application), fds: 1, truncated: false }, world.now);
    world.pump();
    assert!(world.objects.values().all(|object| object.writer == Writer::Adopted) && world.objects.len() == 1);
    let stream = open(&mut world, a, "io");
    self::source(&mut world, a, stream, 11);
    world.clients.get_mut(&a).unwrap().honest = false;
    world.request(a, &Request::SessionMapped);
    assert_eq!(world.closed[&a].0, Code::Violation);
    world.assert_empty();
    for (fds, role) in [(2, Role::Application), (1, Role::Observer)] {
        let mut world = World::new(spec(vec![]));
        let a = world.connect(1).unwrap();
        world.hub.packet(a, Packet { bytes: &hello(role), fds, truncated: false }, world.now);
        world.pump();
        assert_eq!(world.closed[&a].0, Code::Protocol);
        world.assert_empty();
    }

    // Where it cannot be taken, the session is turned away and not welcomed first.
    let mut world = World::new(spec(vec![]));
    let a = world.connect(1).unwrap();
    world.hub.packet(a, Packet { bytes: &hello(Role::Application), fds: 1, truncated: false }, world.now);
    let mut closed = None;
    while let Some(action) = world.hub.next_action() {
        match action {
            Action::Create { object, .. } => world.hub.object_failed(object, "it is not sealed"),
            Action::Close { code, .. } => closed = Some(code),
            other => assert!(matches!(other, Action::Note(_)), "{other:?}"),
        }
    }
    assert_eq!(closed, Some(Code::Resources));
    world.assert_empty();

    // More or fewer descriptors than belong to the request end the session.
    for (fds, wake) in [(2, SinkWake::Page), (1, SinkWake::Fd), (1, SinkWake::Never)] {
        let mut world = World::new(spec(vec![]));
        let a = world.attach(1);
        let stream = open(&mut world, a, "io");
        world.clients.get_mut(&a).unwrap().honest = false;
        let bytes = encode(&sink_request(&mut world, a, stream, 22, wake));
        world.hub.packet(a, Packet { bytes: &bytes, fds, truncated: false }, world.now);
        world.pump();
        assert_eq!(world.closed[&a].0, Code::Protocol);
        world.assert_empty();
    }
}

#[test]
fn ends_that_disagree_about_a_ring_get_a_new_one_once() {
    let mut old = joined_pair();
    // The consumer has given its ring up while the runtime was away.
    old.clients.values_mut().for_each(|client| client.rings_rx.clear());
    let (world, sessions) = restart(old, spec(vec![]));
    assert_eq!(active(&world, sessions[0]).len(), 1);
    assert_eq!(world.hub.table_sizes().conns, 1);
    end(world);

    // One that always contradicts gets nothing, and the other end no endless work.
    let (mut world, [a, b], [_, stream_b]) = two(spec(vec![]));
    let request = sink_request(&mut world, b, stream_b, 22, SinkWake::Never);
    world.request(b, &request);
    for conn in [ConnId(0), ConnId(1)] {
        while world.step(a) {}
        world.request(b, &Request::Kept { conn });
    }
    assert_eq!(world.hub.table_sizes().conns, 0);
    end(world);
}

#[test]
fn a_thousand_lives_leave_nothing_behind() {
    let mut world = World::new(spec(vec![datapath(&[0], true)]));
    world.interest(0, topic(), true);
    let a = world.attach(1);
    let stream = open(&mut world, a, "io");
    let mut before = None;
    for round in 0..1_000 {
        let source = source(&mut world, a, stream, 11);
        let sink = sink(&mut world, a, stream, 22);
        assert_eq!(active(&world, a).len(), 2);
        world.request(a, &Request::CloseSource { req: 8, source });
        world.clients.get_mut(&a).unwrap().forget_source(source);
        world.request(a, &Request::CloseSink { req: 8, sink });
        world.clients.get_mut(&a).unwrap().forget_sink(sink);
        world.settle();
        // The doorbell stays from the first round on.
        let sizes = world.hub.table_sizes();
        assert_eq!(*before.get_or_insert(sizes), sizes, "round {round}");
        assert_eq!(sizes.objects, 2, "counters page and doorbell");
    }
    world.request(a, &Request::CloseStream { req: 8, stream });
    world.interest(0, topic(), false);
    end(world);
}

#[test]
fn shutdown_tells_everybody() {
    let mut world = World::new(spec(vec![datapath(&[0], true)]));
    let (a, b) = (world.attach(1), world.connect(2).unwrap());
    let stream = open(&mut world, a, "io");
    source(&mut world, a, stream, 11);
    sink(&mut world, a, stream, 22);
    world.hub.shutdown();
    world.pump();
    assert_eq!(world.closed[&a].0, Code::Shutdown);
    assert_eq!(world.closed[&b].0, Code::Shutdown);
    world.assert_empty();
}
