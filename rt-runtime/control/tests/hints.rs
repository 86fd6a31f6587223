//! What an open stream asks for is changed while it is used, where that is no promise.

mod world;

use insane_config::StreamPlan;
use insane_control::action::Topic;
use insane_core::{ChannelId, Datapath, Priority, Qos, SessionId, stream_key};
use insane_wire::control::{Code, Event, Request};
use world::{World, datapath, spec};

const CHANNEL: ChannelId = ChannelId(5);

fn open(world: &mut World, session: SessionId, qos: Qos, uid: u64) {
    world.request(session, &Request::OpenStream { req: 1, name: "io".into(), qos, isolated: false });
    world.settle();
    let Some(Event::StreamOpened { stream, .. }) = world.clients[&session].events.last() else { panic!("not opened") };
    let stream = *stream;
    world.clients.get_mut(&session).unwrap().asked.insert(2, uid);
    let (classes, schema, keeps, channel) = (Vec::new(), None, false, CHANNEL);
    world.request(session, &Request::CreateSource { req: 2, stream, channel, uid, classes, schema, keeps, line: None });
    world.settle();
    world.interest(0, Topic { key: stream_key("line1", "io"), channel: CHANNEL }, true);
    world.settle();
}

/// The answer to a change of this stream.
fn set(world: &mut World, session: SessionId, stream: &str, datapath: Option<Datapath>, priority: Option<u8>) -> Event {
    let priority = priority.and_then(Priority::new);
    world.request(session, &Request::SetQos { req: 7, stream: stream.into(), datapath, priority });
    world.settle();
    world.clients[&session].events.last().expect("an answer").clone()
}

fn refused(event: &Event, code: Code, words: &str) {
    let Event::Failed { req: 7, code: told, reason } = event else { panic!("{event:?}") };
    assert!(*told == code && reason.contains(words), "{told:?}: {reason}");
}

fn qos(world: &World) -> Qos {
    world.hub.flows().next().expect("it is open").qos
}

#[test]
fn who_has_a_stream_open_changes_it_and_its_lane_and_its_flow_follow() {
    let mut world = World::new(spec(vec![datapath(&[0], true)]));
    let (a, b) = (world.attach(1), world.attach(2));
    open(&mut world, a, Qos::default(), 11);
    let lanes = |world: &World| world.datapaths[0].lanes.values().copied().collect::<Vec<_>>();
    let (first, changes) = (lanes(&world), world.hub.changes());
    assert_eq!(set(&mut world, a, "io", Some(Datapath::Fast), Some(7)), Event::Done { req: 7 });
    let wanted = Qos { datapath: Datapath::Fast, priority: Priority::MAX, ..Qos::default() };
    assert_eq!(qos(&world), wanted);
    assert!(world.hub.changes() > changes, "the policy looks at it anew");
    assert_eq!(lanes(&world), [wanted.lane()]);
    assert_ne!(lanes(&world), first);

    // Who asks for what the first opener asked for fits, and gets what holds now.
    open(&mut world, b, Qos::default(), 12);
    assert_eq!(lanes(&world), [wanted.lane(); 2]);
    // Each of them may say otherwise; what is not said stays as it is.
    assert_eq!(set(&mut world, b, "io", None, Some(1)), Event::Done { req: 7 });
    assert_eq!(qos(&world), Qos { priority: Priority::new(1).unwrap(), ..wanted });
    assert_eq!(set(&mut world, a, "io", Some(Datapath::Standard), None), Event::Done { req: 7 });
    assert_eq!(qos(&world), Qos { priority: Priority::new(1).unwrap(), ..Qos::default() });
    // Nothing said: all is as it was asked for.
    assert_eq!(set(&mut world, b, "io", None, None), Event::Done { req: 7 });
    assert_eq!((qos(&world), lanes(&world)), (Qos::default(), vec![first[0]; 2]));

    // It is forgotten with the last who has it open.
    assert_eq!(set(&mut world, a, "io", Some(Datapath::Fast), None), Event::Done { req: 7 });
    world.interest(0, Topic { key: stream_key("line1", "io"), channel: CHANNEL }, false);
    world.kill(a);
    world.kill(b);
    let c = world.attach(3);
    open(&mut world, c, Qos::default(), 13);
    assert_eq!(qos(&world), Qos::default());
    world.interest(0, Topic { key: stream_key("line1", "io"), channel: CHANNEL }, false);
    world.kill(c);
    world.assert_empty();
}

#[test]
fn strangers_change_nothing_and_what_is_declared_holds() {
    let mut spec = spec(vec![datapath(&[0], true)]);
    let most = Priority::new(4);
    spec.domains[0].streams = vec![StreamPlan { name: "io".into(), priority_max: most, ..StreamPlan::default() }];
    let mut world = World::new(spec);
    let (a, b) = (world.attach(1), world.attach(2));
    open(&mut world, a, Qos::default(), 11);
    refused(&set(&mut world, b, "io", Some(Datapath::Fast), None), Code::Access, "only who has a stream open");
    refused(&set(&mut world, a, "video", Some(Datapath::Fast), None), Code::Unknown, "no stream \"video\"");
    refused(&set(&mut world, a, "io", Some(Datapath::Fast), Some(5)), Code::Mismatch, "priority 4");
    assert_eq!(qos(&world), Qos::default(), "all of it, or nothing");
    assert_eq!(set(&mut world, a, "io", Some(Datapath::Fast), Some(4)), Event::Done { req: 7 });
    assert_eq!(qos(&world).datapath, Datapath::Fast);
    // A reload goes before what was asked for, and leaves the rest.
    let mut domains = world.hub.spec().domains.clone();
    domains[0].streams[0].priority_max = Priority::new(2);
    world.hub.reconfigure(domains, world.now);
    assert_eq!((qos(&world).priority, qos(&world).datapath), (Priority::new(2).unwrap(), Datapath::Fast));
    world.interest(0, Topic { key: stream_key("line1", "io"), channel: CHANNEL }, false);
    world.kill(a);
    world.kill(b);
    world.assert_empty();
}
