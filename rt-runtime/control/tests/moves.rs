//! Streams that somebody places on a link, and links that fail: what datapaths are told.
#![forbid(unsafe_code)]

mod world;

use insane_control::action::Topic;
use insane_control::hub::{MOVE_PERIOD, Reach, Way};
use insane_core::{ChannelId, DatapathIndex, DomainIndex, Nanos, PeerIndex, Qos, SessionId, stream_key};
use insane_wire::control::{Code, Event, Request};
use std::collections::BTreeMap;
use world::{WayTold, World, datapath, spec};

const HERE: DatapathIndex = DatapathIndex(0);
const PEER: PeerIndex = PeerIndex(0);

fn topic(name: &str) -> Topic {
    Topic { key: stream_key("line1", name), channel: ChannelId(5) }
}

/// A stream with a source here and a sink at both peers.
fn open(world: &mut World, session: SessionId, name: &str, uid: u64) {
    let request = Request::OpenStream { req: 1, name: name.into(), qos: Qos::default(), isolated: false };
    world.request(session, &request);
    world.settle();
    let Some(Event::StreamOpened { stream, .. }) = world.clients[&session].events.last() else { panic!("not opened") };
    let (stream, channel) = (*stream, ChannelId(5));
    world.clients.get_mut(&session).unwrap().asked.insert(2, uid);
    let (classes, schema, keeps) = (Vec::new(), None, false);
    world.request(session, &Request::CreateSource { req: 2, stream, channel, uid, classes, schema, keeps, line: None });
    world.settle();
    for peer in 0..2 {
        world.interest(peer, topic(name), true);
    }
    world.settle();
}

fn reach(link: usize, failed: &[usize]) -> Reach {
    Reach { home: 0, link, links: [0, 1].into(), failed: failed.iter().copied().collect() }
}

/// What the datapath is told by this.
fn told(world: &mut World, change: impl FnOnce(&mut World)) -> Vec<WayTold> {
    world.datapaths[0].ways.clear();
    change(world);
    world.pump();
    world.datapaths[0].ways.clone()
}

#[test]
fn a_placed_stream_leaves_a_link_that_failed_and_is_back_when_it_works() {
    let mut world = World::new(spec(vec![datapath(&[0, 1], true)]));
    let a = world.attach(1);
    open(&mut world, a, "io", 11);
    open(&mut world, a, "video", 12);
    let (io, other) = (topic("io").key, PeerIndex(1));
    let placed = told(&mut world, |world| world.hub.move_stream(io, &[PEER], Some(1), world.now).unwrap());
    assert_eq!(placed, [WayTold::Route(PEER, Some(1)), WayTold::Route(other, None)]);
    assert_eq!(world.hub.link_of(io, PEER, HERE), Some(1));
    let failed = told(&mut world, |world| world.hub.set_links(PEER, HERE, reach(0, &[1])));
    assert_eq!(failed, [WayTold::Route(PEER, None), WayTold::Route(other, None)], "nothing else used it");
    assert_eq!(world.hub.link_of(io, PEER, HERE), Some(0));
    let works = told(&mut world, |world| world.hub.set_links(PEER, HERE, reach(0, &[])));
    assert_eq!(works, [WayTold::Route(PEER, Some(1)), WayTold::Route(other, None)]);
    // What is not placed leaves by one word.
    let left = told(&mut world, |world| world.hub.set_links(PEER, HERE, reach(1, &[0])));
    assert_eq!(left, [WayTold::Reach(PEER, 1)]);
    assert_eq!(world.hub.link_of(topic("video").key, PEER, HERE), Some(1));
    world.wait(MOVE_PERIOD);
    let usual = told(&mut world, |world| world.hub.move_stream(io, &[PEER], None, world.now).unwrap());
    assert_eq!(usual, [WayTold::Route(PEER, None), WayTold::Route(other, None)]);
    assert!(world.hub.alarms().is_empty(), "nothing has slots");
}

#[test]
fn a_stream_is_not_moved_again_at_once_and_forgets_its_place_when_it_is_closed() {
    let mut world = World::new(spec(vec![datapath(&[0, 1], true)]));
    let a = world.attach(1);
    open(&mut world, a, "io", 11);
    let io = topic("io").key;
    world.hub.move_stream(io, &[PEER], Some(1), world.now).unwrap();
    world.wait(Nanos(MOVE_PERIOD.0 - 1));
    let again = world.hub.move_stream(io, &[PEER], Some(0), world.now);
    assert_eq!(again.map_err(|refusal| refusal.code), Err(Code::Quota));
    assert_eq!(world.hub.link_of(io, PEER, HERE), Some(1));
    world.wait(Nanos(1));
    world.hub.move_stream(io, &[PEER], Some(1), world.now).unwrap();
    world.kill(a);
    let b = world.attach(1);
    open(&mut world, b, "io", 12);
    assert_eq!(world.hub.link_of(io, PEER, HERE), None);
    let missing = world.hub.movable(DomainIndex(0), "absent").map_err(|refusal| refusal.code);
    assert_eq!(missing, Err(Code::Unknown));
}

#[test]
fn only_who_runs_the_runtime_moves_streams() {
    let mut world = World::new(spec(vec![datapath(&[0, 1], true)]));
    let request = Request::MoveStream { req: 7, stream: "io".into(), link: None, peer: None };
    world.is_for_operators_only(&[request], 7, "may not change the links");
}

#[test]
fn what_the_policy_chose_is_carried_out_behind_hands_and_failures() {
    let mut world = World::new(spec(vec![datapath(&[0, 1], true)]));
    let a = world.attach(1);
    open(&mut world, a, "io", 11);
    open(&mut world, a, "video", 12);
    let (io, video, other) = (topic("io").key, topic("video").key, PeerIndex(1));
    let chosen = BTreeMap::from([((io, PEER), 1)]);
    let choose = |world: &mut World, wanted: &BTreeMap<_, _>| {
        let wanted = wanted.clone();
        told(world, |world| {
            let waits = !world.hub.choose(&wanted, world.now);
            assert_eq!(waits, world.hub.chosen(io, PEER) != wanted.get(&(io, PEER)).copied());
        })
    };
    assert_eq!(choose(&mut world, &chosen), [WayTold::Route(PEER, Some(1)), WayTold::Route(other, None)]);
    assert_eq!((world.hub.link_of(io, PEER, HERE), world.hub.way_of(io, PEER, HERE)), (Some(1), Way::Chosen));
    assert_eq!(world.hub.way_of(video, PEER, HERE), Way::Usual);
    world.wait(MOVE_PERIOD);
    assert_eq!(choose(&mut world, &chosen), [], "it is so already");
    // By hand goes first; a link that failed is taken by neither.
    world.hub.move_stream(io, &[PEER], Some(0), world.now).unwrap();
    world.pump();
    assert_eq!((world.hub.link_of(io, PEER, HERE), world.hub.way_of(io, PEER, HERE)), (Some(0), Way::Placed));
    world.wait(MOVE_PERIOD);
    world.hub.move_stream(io, &[PEER], None, world.now).unwrap();
    world.pump();
    assert_eq!(world.hub.way_of(io, PEER, HERE), Way::Chosen);
    let failed = told(&mut world, |world| world.hub.set_links(PEER, HERE, reach(0, &[1])));
    assert_eq!(failed, [WayTold::Route(PEER, None), WayTold::Route(other, None)]);
    assert_eq!(world.hub.way_of(io, PEER, HERE), Way::Usual);
    world.hub.set_links(PEER, HERE, reach(0, &[]));
    world.pump();
    // Not at once after the last move, and then when it is asked for once more.
    let back = BTreeMap::new();
    assert_eq!(choose(&mut world, &back), []);
    assert_eq!(world.hub.way_of(io, PEER, HERE), Way::Chosen);
    world.wait(MOVE_PERIOD);
    assert_eq!(choose(&mut world, &back), [WayTold::Route(PEER, None), WayTold::Route(other, None)]);
    // Who closes a stream leaves no choice behind.
    world.wait(MOVE_PERIOD);
    choose(&mut world, &chosen);
    world.kill(a);
    assert_eq!(world.hub.chosen(io, PEER), None);
}
