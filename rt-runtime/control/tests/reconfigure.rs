//! The hub when rules, quotas and peers change under its sessions.
#![forbid(unsafe_code)]

mod world;

use insane_config::StreamPlan;
use insane_control::action::Topic;
use insane_control::quota::Amounts;
use insane_control::spec::{Credentials, DomainSpec, Origin};
use insane_core::{
    ChannelId, DatapathIndex, Determinism, Nanos, PeerIndex, Priority, Qos, Reliability, SessionId, StreamId, TaiTime,
    stream_key,
};
use insane_wire::control::{ClassSpec, Code, Event, Request, Role, ScheduleOrder, SinkWake};
use std::collections::{BTreeMap, BTreeSet};
use world::{World, datapath, spec};

const CHANNEL: ChannelId = ChannelId(5);

fn open(world: &mut World, session: SessionId, name: &str, isolated: bool) -> Result<StreamId, Code> {
    world.request(session, &Request::OpenStream { req: 1, name: name.into(), qos: Qos::default(), isolated });
    world.settle();
    match world.clients[&session].events.last() {
        Some(Event::StreamOpened { stream, .. }) => Ok(*stream),
        Some(Event::Failed { code, .. }) => Err(*code),
        other => panic!("{other:?}"),
    }
}

fn sink(world: &mut World, session: SessionId, stream: StreamId, uid: u64) -> Result<(), Code> {
    world.clients.get_mut(&session).unwrap().asked.insert(3, uid);
    let (channel, wake) = (CHANNEL, SinkWake::Page);
    let before = world.clients[&session].failures.len();
    world.request(
        session,
        &Request::CreateSink { req: 3, stream, channel, uid, depth: 8, wake, schema: None, line: None },
    );
    world.settle();
    world.clients[&session].failures.get(before).map_or(Ok(()), |(_, code, _)| Err(*code))
}

fn source(world: &mut World, session: SessionId, stream: StreamId, uid: u64) -> Result<(), Code> {
    world.clients.get_mut(&session).unwrap().asked.insert(2, uid);
    let classes = vec![ClassSpec { size: 1024, count: 10 }];
    let before = world.clients[&session].failures.len();
    world.request(
        session,
        &Request::CreateSource {
            req: 2,
            stream,
            channel: CHANNEL,
            uid,
            classes,
            schema: None,
            keeps: false,
            line: None,
        },
    );
    world.settle();
    world.clients[&session].failures.get(before).map_or(Ok(()), |(_, code, _)| Err(*code))
}

fn change(world: &mut World, change: impl FnOnce(&mut Vec<DomainSpec>)) {
    let mut domains = world.hub.spec().domains.clone();
    change(&mut domains);
    world.hub.reconfigure(domains, world.now);
    world.pump();
}

fn outside(world: &World) -> Vec<SessionId> {
    world.hub.sessions().filter(|session| session.outside_rules).map(|session| session.id).collect()
}

fn end(mut world: World) {
    let sessions: Vec<SessionId> = world.clients.keys().copied().collect();
    for session in sessions {
        world.kill(session);
    }
    world.assert_empty();
}

#[test]
fn who_is_outside_new_rules_keeps_what_it_has_and_gets_nothing_new() {
    let mut world = World::new(spec(vec![datapath(&[0], false)]));
    let (a, b) = (world.attach(1), world.attach(2));
    let (stream_a, stream_b) = (open(&mut world, a, "io", false).unwrap(), open(&mut world, b, "io", false).unwrap());
    source(&mut world, a, stream_a, 1).unwrap();
    sink(&mut world, b, stream_b, 2).unwrap();
    let conns = world.hub.table_sizes().conns;
    change(&mut world, |domains| domains[0].access[0].uids = BTreeSet::from([2]));
    assert_eq!(outside(&world), [a]);
    assert_eq!(world.hub.table_sizes().conns, conns, "nothing was taken away");
    assert_eq!(sink(&mut world, a, stream_a, 3), Err(Code::Access));
    assert_eq!(source(&mut world, a, stream_a, 4), Err(Code::Access));
    assert_eq!(open(&mut world, a, "other", false), Err(Code::Access));
    let (_, _, reason) = world.clients[&a].failures.last().unwrap();
    assert!(reason.contains("rules have changed") && reason.contains("user 1"), "{reason}");
    sink(&mut world, b, stream_b, 5).unwrap();
    assert_eq!(
        world.hub.table_sizes().conns,
        conns + 2,
        "others' new sinks hear it: one ring of it, one of the network"
    );
    world.request(a, &Request::CloseStream { req: 9, stream: stream_a });
    world.settle();
    assert!(matches!(world.clients[&a].events.last(), Some(Event::Done { req: 9 })), "it may give back");
    let again = world.attach(1);
    assert_eq!(world.closed[&again].0, Code::Access, "it is not let in again");
    change(&mut world, |domains| domains[0].access[0].uids = BTreeSet::from([1, 2]));
    assert_eq!(outside(&world), []);
    open(&mut world, a, "other", false).unwrap();
    end(world);
}

#[test]
fn a_narrower_quota_takes_nothing_away_and_gives_nothing_more() {
    let mut world = World::new(spec(vec![]));
    let a = world.attach(1);
    let stream = open(&mut world, a, "io", false).unwrap();
    for uid in 0..4 {
        sink(&mut world, a, stream, uid).unwrap();
    }
    let most = world.hub.spec().domains[0].quota.most;
    let narrow = |sinks| Amounts { sinks, ..most };
    let mut domains = world.hub.spec().domains.clone();
    domains[0].quota.most = narrow(2);
    let told = world.hub.excess(&domains);
    assert!(told.len() == 1 && told[0].1.starts_with("4 sinks are in use, 2 are the quota"), "{told:?}");
    assert_eq!(world.hub.accounts()[0].used().sinks, 4, "asking changes nothing");
    sink(&mut world, a, stream, 4).unwrap();
    change(&mut world, |domains| domains[0].quota.most = narrow(3));
    assert_eq!(world.hub.table_sizes().sinks, 5);
    assert_eq!(sink(&mut world, a, stream, 5), Err(Code::Quota));
    let sinks: Vec<_> = world.clients[&a].sinks.keys().copied().collect();
    for closed in &sinks[..2] {
        world.request(a, &Request::CloseSink { req: 6, sink: *closed });
        world.settle();
    }
    assert_eq!(sink(&mut world, a, stream, 6), Err(Code::Quota), "three are in use, three are the quota");
    world.request(a, &Request::CloseSink { req: 6, sink: sinks[2] });
    world.settle();
    sink(&mut world, a, stream, 7).unwrap();
    change(&mut world, |domains| domains[0].quota.most = narrow(100));
    sink(&mut world, a, stream, 8).unwrap();
    end(world);
}

#[test]
fn another_rate_holds_for_sessions_that_are_there() {
    let mut world = World::new(spec(vec![]));
    let a = world.attach(1);
    change(&mut world, |domains| domains[0].quota.requests_per_second = 4);
    let close = Request::CloseSink { req: 6, sink: insane_core::SinkId(0) };
    for _ in 0..5 {
        world.request(a, &close);
    }
    world.settle();
    let codes = |world: &World| world.clients[&a].failures.iter().map(|(_, code, _)| *code).collect::<Vec<_>>();
    assert_eq!(codes(&world), [Code::Unknown, Code::Unknown, Code::Unknown, Code::Unknown, Code::Quota]);
    change(&mut world, |domains| domains[0].quota.requests_per_second = 1000);
    world.wait(Nanos::from_millis(100));
    for _ in 0..50 {
        world.request(a, &close);
    }
    world.settle();
    assert_eq!(codes(&world)[5..], [Code::Unknown; 50], "no debt is kept");
    end(world);
}

/// The domain's word counts for streams opened after it; whoever asks for a stream that is
/// open, as its first opener did, gets that one.
#[test]
fn isolation_changes_for_streams_opened_from_then_on() {
    let mut world = World::new(spec(vec![datapath(&[], false)]));
    let (a, b) = (world.attach(1), world.attach(2));
    let early = open(&mut world, a, "early", false).unwrap();
    change(&mut world, |domains| domains[0].isolated = true);
    let isolated = |world: &World, name: &str| {
        let found = world.hub.streams().find(|stream| stream.name == name).map(|stream| stream.isolated);
        found.expect("it is open")
    };
    open(&mut world, b, "early", false).unwrap();
    assert!(!isolated(&world, "early"));
    assert_eq!(open(&mut world, b, "early", true), Err(Code::Mismatch), "who asked for it must have it");
    let late = open(&mut world, b, "late", false).unwrap();
    assert!(isolated(&world, "late"));
    change(&mut world, |domains| domains[0].isolated = false);
    open(&mut world, a, "late", false).unwrap();
    assert!(isolated(&world, "late"));
    source(&mut world, a, early, 1).unwrap();
    source(&mut world, b, late, 2).unwrap();
    open(&mut world, a, "later", false).unwrap();
    assert!(!isolated(&world, "later"));
    end(world);
}

/// A datapath that had links and no peers: what is there already is heard of, and reaches
/// the first peer that comes; when it leaves, nothing goes there any more.
#[test]
fn the_first_peer_finds_what_is_there_and_the_last_leaves_nothing() {
    let mut plain = datapath(&[], false);
    plain.has_links = true;
    let mut world = World::new(spec(vec![plain]));
    let a = world.attach(1);
    let stream = open(&mut world, a, "io", false).unwrap();
    source(&mut world, a, stream, 1).unwrap();
    sink(&mut world, a, stream, 2).unwrap();
    let topic = Topic { key: stream_key("line1", "io"), channel: CHANNEL };
    assert_eq!(world.announced.len(), 1, "whoever comes is told");
    assert!(world.datapaths[0].routes.is_empty());
    let peer = PeerIndex(7);
    for _ in 0..3 {
        world.interest(7, topic, true);
        assert!(world.datapaths[0].routes.is_empty(), "no datapath reaches it");
        world.hub.peer_gone(peer);
        world.hub.set_reach(peer, &[DatapathIndex(0)]);
        world.interest(7, topic, true);
        world.settle();
        assert_eq!(world.datapaths[0].routes[&topic].peers, [peer]);
        assert_eq!(world.datapaths[0].tx.len(), 1);
        world.hub.set_reach(peer, &[]);
        world.hub.peer_gone(peer);
        world.pump();
        world.settle();
        world.detach_all();
        world.settle();
        assert!(world.datapaths[0].tx.is_empty() && world.datapaths[0].routes.is_empty());
        assert_eq!(world.announced.len(), 1);
    }
    end(world);
}

#[test]
fn only_who_runs_the_runtime_may_reload() {
    let mut world = World::new(spec(vec![]));
    let reload = Request::Reload { req: 4, dry_run: true, file: None, last: true, piece: Vec::new() };
    let user = world.attach(1);
    let tool = world.connect(3).unwrap();
    world.greet(tool, 3, Role::Observer, None);
    for session in [user, tool] {
        world.request(session, &reload);
        world.settle();
        let (_, code, reason) = world.clients[&session].failures.last().unwrap();
        assert!(*code == Code::Access && reason.contains("may not change the configuration"), "{reason}");
    }
    assert_eq!(world.reloads, []);
    let operator = world.connect(0).unwrap();
    world.greet(operator, 0, Role::Observer, None);
    change(&mut world, |domains| domains[0].quota.requests_per_second = 1);
    for _ in 0..9 {
        world.request(operator, &reload);
    }
    world.settle();
    assert_eq!(world.reloads, [(operator, 4); 9], "a quota that leaves no request can be widened");
    end(world);
}

#[test]
fn only_who_runs_the_runtime_may_change_the_schedule() {
    let mut world = World::new(spec(vec![]));
    let orders = [
        ScheduleOrder::Stage { local_clock: true, last: true, piece: Vec::new() },
        ScheduleOrder::Commit { schedule: 1, at: TaiTime(0) },
        ScheduleOrder::Abort { schedule: 1 },
        ScheduleOrder::Ask { schedule: 1 },
        ScheduleOrder::Forget,
    ];
    let requests = orders.map(|order| Request::Schedule { req: 4, order });
    world.is_for_operators_only(&requests, 4, "may not change the schedule");
    end(world);
}

#[test]
fn only_who_runs_the_runtime_may_take_a_trace() {
    let mut world = World::new(spec(vec![]));
    let request = Request::Trace { req: 4, datapath: "main".into() };
    world.is_for_operators_only(&[request], 4, "may not take a trace");
    end(world);
}

/// Who gets no thread placed and no memory locked, whatever the domain's rule gives.
#[test]
fn threads_and_memory_are_for_applications_of_other_processes_that_may_attach() {
    let mut world = World::new(spec(vec![]));
    let favours =
        [Request::PlaceThread { req: 4, tid: 1, priority: None, core: None }, Request::LockMemory { req: 4, bytes: 1 }];
    let user = world.attach(1);
    let tool = world.connect(1).unwrap();
    world.greet(tool, 1, Role::Observer, None);
    let who = Credentials { pid: 1, uid: 1, gid: 1, groups: Vec::new() };
    let host = world.hub.accept(Origin::InProcess(who), world.now).unwrap();
    world.greet(host, 1, Role::Application, None);
    for favour in &favours {
        for session in [user, tool, host] {
            world.request(session, favour);
            world.settle();
        }
        for (session, words) in [(tool, "the status only"), (host, "this very process")] {
            let (_, code, reason) = world.clients[&session].failures.last().unwrap();
            assert!(*code == Code::Access && reason.contains(words), "{reason}");
        }
        assert_eq!(std::mem::take(&mut world.favours), [(user, 4)]);
    }
    change(&mut world, |domains| domains[0].access[0].uids = BTreeSet::from([2]));
    for favour in &favours {
        world.request(user, favour);
        world.settle();
        let (_, code, reason) = world.clients[&user].failures.last().unwrap();
        assert!(*code == Code::Access && reason.contains("rules have changed"), "{reason}");
    }
    assert_eq!(world.favours, []);
    end(world);
}

/// A declaration of streams of these names, from what it fixes.
fn declares(name: &str, fixes: StreamPlan) -> StreamPlan {
    StreamPlan { name: name.into(), ..fixes }
}

fn priority(value: u8) -> Option<Priority> {
    Priority::new(value)
}

fn ask(world: &mut World, session: SessionId, name: &str, qos: Qos, isolated: bool) -> Result<Event, (Code, String)> {
    world.request(session, &Request::OpenStream { req: 1, name: name.into(), qos, isolated });
    world.settle();
    match world.clients[&session].events.last() {
        Some(event @ Event::StreamOpened { .. }) => Ok(event.clone()),
        Some(Event::Failed { code, reason, .. }) => Err((*code, reason.clone())),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stream_is_given_what_is_declared_and_nobody_less_than_it_asked_for() {
    let mut world = World::new(spec(vec![datapath(&[0], false)]));
    let fixes = StreamPlan {
        reliability: Some(Reliability::Reliable),
        priority_max: priority(4),
        history_max: Some(3),
        ..StreamPlan::default()
    };
    let lossy = StreamPlan { reliability: Some(Reliability::Unreliable), ..StreamPlan::default() };
    change(&mut world, |domains| domains[0].streams = vec![declares("axis/*", fixes), declares("axis/9", lossy)]);
    let a = world.attach(1);
    let asked = Qos { priority: Priority::MAX, ..Qos::default() };
    let Ok(Event::StreamOpened { qos, lane, history_max, .. }) = ask(&mut world, a, "axis/1", asked, false) else {
        panic!("refused")
    };
    assert_eq!((qos.reliability, qos.priority.get(), lane, history_max), (Reliability::Reliable, 4, qos.lane(), 3));
    let Ok(Event::StreamOpened { qos, history_max, .. }) = ask(&mut world, a, "other", asked, false) else {
        panic!("refused")
    };
    assert_eq!((qos, history_max), (asked, 16), "of another name: as asked for");
    let reliable = Qos { reliability: Reliability::Reliable, ..Qos::default() };
    let (code, reason) = ask(&mut world, a, "axis/9", reliable, false).unwrap_err();
    assert_eq!(code, Code::Mismatch);
    assert!(reason.contains("\"axis/9\" as unreliable, and reliable was asked for"), "{reason}");
    ask(&mut world, a, "axis/9", Qos::default(), false).unwrap();
    // Another opener that asks otherwise, and is given the same.
    let b = world.attach(2);
    ask(&mut world, b, "axis/1", Qos { priority: Priority::new(5).unwrap(), ..reliable }, false).unwrap();
    let less = ask(&mut world, b, "axis/1", Qos { priority: Priority::MIN, ..reliable }, false);
    assert_eq!(less.unwrap_err().0, Code::Mismatch, "less than the bound is another priority");
    end(world);
}

/// Priorities follow the declarations while sources send; the rest keeps to what was agreed
/// upon, and the reload says so.
#[test]
fn open_streams_change_lanes_and_keep_the_rest() {
    let mut world = World::new(spec(vec![datapath(&[0], false)]));
    let a = world.attach(1);
    let (io, video) = (open(&mut world, a, "io", false).unwrap(), open(&mut world, a, "video", false).unwrap());
    source(&mut world, a, io, 1).unwrap();
    source(&mut world, a, video, 2).unwrap();
    let domain = world.hub.spec().domains[0].name.clone();
    for name in ["io", "video"] {
        let (key, check) = (stream_key(&domain, name), insane_core::stream_check(&domain, name));
        world.hub.remote_interest(PeerIndex(0), Topic { key, channel: CHANNEL }, check, (None, 1), true);
    }
    world.pump();
    world.settle();
    let lanes = |world: &World| -> BTreeMap<Topic, u8> {
        let path = &world.datapaths[0];
        path.tx.iter().map(|(conn, topic)| (*topic, path.lanes[conn].get())).collect()
    };
    let topic = |name: &str| Topic { key: stream_key(&domain, name), channel: CHANNEL };
    assert_eq!(lanes(&world), BTreeMap::from([(topic("io"), 6), (topic("video"), 6)]));
    let fixes = StreamPlan { priority: priority(7), reliability: Some(Reliability::Reliable), ..StreamPlan::default() };
    let declared = vec![declares("i*", fixes)];
    let mut domains = world.hub.spec().domains.clone();
    domains[0].streams = declared.clone();
    let told = world.hub.effects(&domains);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].1 == "io" && told[0].2.contains("priority 3 -> 7, lane 6 -> 4: at once"), "{told:?}");
    assert!(told[0].2.contains("opened anew it is (reliable"), "{told:?}");
    assert_eq!(lanes(&world)[&topic("io")], 6, "asking changes nothing");
    change(&mut world, |domains| domains[0].streams = declared);
    assert_eq!(lanes(&world), BTreeMap::from([(topic("io"), 4), (topic("video"), 6)]));
    let view =
        |world: &World| world.hub.streams().find(|stream| stream.name == "io").map(|s| (s.qos, s.later)).unwrap();
    assert_eq!(view(&world).0.reliability, Reliability::Unreliable, "what is open keeps it");
    assert!(view(&world).1.contains("opened anew"));
    // Who asks for the same gets the same; a source that comes now has the lane of now.
    let Ok(Event::StreamOpened { qos, .. }) = ask(&mut world, a, "io", Qos::default(), false) else { panic!() };
    assert_eq!((qos.reliability, qos.priority.get()), (Reliability::Unreliable, 7));
    source(&mut world, a, io, 3).unwrap();
    assert!(world.datapaths[0].tx.iter().filter(|(_, of)| **of == topic("io")).count() == 2);
    assert!(
        world.datapaths[0]
            .tx
            .iter()
            .all(|(conn, of)| { world.datapaths[0].lanes[conn].get() == if *of == topic("io") { 4 } else { 6 } })
    );
    // A declaration that would refuse it, if it were opened anew.
    let open_only =
        StreamPlan { determinism: Some(Determinism::BestEffort), priority: priority(1), ..StreamPlan::default() };
    change(&mut world, |domains| domains[0].streams = vec![declares("*", open_only)]);
    assert_eq!(lanes(&world), BTreeMap::from([(topic("io"), 7), (topic("video"), 7)]));
    change(&mut world, |domains| domains[0].streams.clear());
    assert_eq!(lanes(&world), BTreeMap::from([(topic("io"), 6), (topic("video"), 6)]), "as they were opened");
    assert_eq!(view(&world), (Qos::default(), String::new()));
    world.hub.peer_gone(PeerIndex(0));
    end(world);
}
