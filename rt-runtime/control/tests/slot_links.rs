//! By which link streams with slots go: certificates for several links, moves between them, and
//! what becomes of who holds none for a link that works.

mod world;

use insane_admission::{Budget, synthesise};
use insane_certificate::{Boundary, Certificate, Class, Epsilon, Hop, Host, Link, Plant, Stream};
use insane_clock::ServoConfig;
use insane_config::{LinkLoss, StreamPlan};
use insane_control::action::Topic;
use insane_control::hub::stands::{Stand, State, Tally};
use insane_control::hub::{MOVE_PERIOD, Reach, Way};
use insane_control::spec::{HubSpec, SlotLink, SlotSpec};
use insane_core::{
    ChannelId, DatapathIndex, Determinism, DomainIndex, MonoTime, Nanos, PeerIndex, Qos, SessionId, SourceId,
    StreamKey, stream_key,
};
use insane_engine::{SlotConfig, timed_flow};
use insane_scheduler::{LinkRate, LinkTiming};
use insane_wire::control::{Code, Event, Request};
use std::sync::Arc;
use world::{WayTold, World, datapath, spec};

const MS: u64 = 1_000_000;
const HERE: DatapathIndex = DatapathIndex(0);
const LINKS: [&str; 3] = ["plant", "spare", "office"];

fn slot_link(name: &str) -> SlotLink {
    SlotLink { name: name.into(), ps_per_byte: 80_000, foreign_bytes: 1_538, frame_bytes_max: 1_538 }
}

/// Two peers, reached by three links of 100 Mbit/s; with declarations.
fn three_links(streams: &[StreamPlan]) -> HubSpec {
    let rate = LinkRate::from_bits_per_s(100_000_000).unwrap();
    let timing =
        LinkTiming { rate, turn_ns: 50_000, foreign_bytes: 1_538, in_flight_bytes: 6_250, lead_ns: 0, step_ns: MS };
    let mut path = datapath(&[0, 1], true);
    path.slots = Some(SlotSpec {
        host: "here".into(),
        link: "plant".into(),
        links: LINKS.map(slot_link).into(),
        config: SlotConfig { timing, overhead_bytes: 66, servo: ServoConfig::default(), asked_links: 0 },
        payload_bytes_max: 1_408,
        quantile_ppm: 999_000,
        gates: None,
    });
    let mut spec = spec(vec![path]);
    spec.domains[0].streams = streams.to_vec();
    spec
}

fn declared(name: &str, alternates: Option<&[&str]>, on_link_loss: LinkLoss) -> StreamPlan {
    StreamPlan {
        name: name.into(),
        alternates: alternates.map(|links| links.iter().map(|link| (*link).to_owned()).collect()),
        on_link_loss: Some(on_link_loss),
        ..StreamPlan::default()
    }
}

fn timed() -> Qos {
    Qos { determinism: Determinism::periodic(Nanos::from_millis(10), 64), ..Qos::default() }
}

fn key(name: &str) -> StreamKey {
    stream_key("line1", name)
}

fn topic(name: &str) -> Topic {
    Topic { key: key(name), channel: ChannelId(5) }
}

/// Opens a stream with a source, to which these peers listen.
fn open(world: &mut World, session: SessionId, name: &str, qos: Qos, uid: u64, peers: &[u16]) -> SourceId {
    world.request(session, &Request::OpenStream { req: 1, name: name.into(), qos, isolated: false });
    world.settle();
    let Some(Event::StreamOpened { stream, .. }) = world.clients[&session].events.last() else { panic!("not opened") };
    let (stream, channel) = (*stream, ChannelId(5));
    world.clients.get_mut(&session).unwrap().asked.insert(2, uid);
    let (classes, schema, keeps) = (Vec::new(), None, false);
    world.request(session, &Request::CreateSource { req: 2, stream, channel, uid, classes, schema, keeps, line: None });
    world.settle();
    let mut events = world.clients[&session].events.iter().rev();
    let created =
        events.find_map(|event| if let Event::SourceCreated { source, .. } = event { Some(*source) } else { None });
    let source = created.expect("it is admitted");
    for peer in peers {
        world.interest(*peer, topic(name), true);
    }
    world.settle();
    source
}

/// What is known of the links to a peer, and what follows of it a moment later.
fn tell(world: &mut World, peer: u16, link: usize, failed: &[usize]) {
    let reach = Reach { home: 0, link, links: [0, 1, 2].into(), failed: failed.iter().copied().collect() };
    world.hub.set_links(PeerIndex(peer), HERE, reach);
    world.wait(MOVE_PERIOD);
}

fn stand(world: &World, name: &str) -> (Option<usize>, State) {
    let Stand { link, state } = world.hub.stand_of(key(name), HERE).expect("it has slots").stand;
    (link, state)
}

fn tally(world: &World, name: &str) -> Tally {
    world.hub.stand_of(key(name), HERE).unwrap().tally
}

fn end(mut world: World, streams: &[(&str, &[u16])]) {
    for (name, peers) in streams {
        for peer in *peers {
            world.interest(*peer, topic(name), false);
        }
    }
    let sessions: Vec<SessionId> = world.clients.keys().copied().collect();
    sessions.into_iter().for_each(|session| world.kill(session));
    assert!(world.datapaths[0].slots.is_empty() && world.datapaths[0].slot_links.is_empty());
    world.assert_empty();
}

#[test]
fn a_stream_moves_by_a_table_to_a_link_on_which_it_holds_a_certificate_and_returns() {
    let mut world = World::new(three_links(&[]));
    let a = world.attach(1);
    open(&mut world, a, "io", timed(), 11, &[0, 1]);
    open(&mut world, a, "video", Qos::default(), 12, &[0, 1]);
    for peer in 0..2 {
        tell(&mut world, peer, 0, &[]);
    }
    assert_eq!(world.hub.stand_of(key("io"), HERE).unwrap().held, [0, 1, 2]);
    assert_eq!(world.hub.stand_of(key("video"), HERE), None);
    let slots = world.datapaths[0].slots.clone();
    assert_eq!((stand(&world, "io"), &world.datapaths[0].slot_links[..]), ((None, State::InSlots), &[][..]));

    // One peer lost the link: the stream leaves it as a whole, by its table and by no route.
    world.datapaths[0].ways.clear();
    tell(&mut world, 1, 1, &[0]);
    assert_eq!(stand(&world, "io"), (Some(1), State::InSlots));
    assert_eq!((&world.datapaths[0].slot_links[..], &world.datapaths[0].slots), (&[(0, 1)][..], &slots));
    for peer in [0, 1].map(PeerIndex) {
        assert_eq!(world.hub.link_of(key("io"), peer, HERE), Some(1));
        assert_eq!(world.hub.way_of(key("io"), peer, HERE), Way::Alternate);
    }
    assert_eq!(world.hub.link_of(key("video"), PeerIndex(1), HERE), Some(1));
    let away = WayTold::Route(PeerIndex(1), Some(1));
    assert!(!world.datapaths[0].ways.contains(&away), "{:?}", world.datapaths[0].ways);
    assert!(world.hub.alarms().is_empty());

    // That one fails to the other peer: the third is left, and then the first is back.
    tell(&mut world, 0, 0, &[1]);
    assert_eq!(stand(&world, "io"), (Some(2), State::InSlots));
    assert_eq!(world.datapaths[0].slot_links, [(0, 2)]);
    tell(&mut world, 1, 0, &[]);
    assert_eq!((stand(&world, "io"), &world.datapaths[0].slot_links[..]), ((None, State::InSlots), &[][..]));
    assert_eq!(tally(&world, "io"), Tally { moves: 3, stays: 0, degradations: 0 });
    end(world, &[("io", &[0, 1]), ("video", &[0, 1])]);
}

#[test]
fn nothing_moves_twice_in_a_moment_and_nothing_is_staged_where_nothing_changed() {
    let mut world = World::new(three_links(&[]));
    let a = world.attach(1);
    open(&mut world, a, "io", timed(), 11, &[0]);
    tell(&mut world, 0, 0, &[]);
    let before = world.datapaths[0].tables;
    for _ in 0..10 {
        world.wait(MOVE_PERIOD);
    }
    assert_eq!(world.datapaths[0].tables, before);
    let reach = |link, failed: usize| Reach { home: 0, link, links: [0, 1, 2].into(), failed: [failed].into() };
    world.hub.set_links(PeerIndex(0), HERE, reach(1, 0));
    world.wait(Nanos(1));
    assert_eq!((stand(&world, "io").0, world.datapaths[0].tables), (Some(1), before + 1));
    world.hub.set_links(PeerIndex(0), HERE, reach(0, 1));
    world.wait(Nanos(MOVE_PERIOD.0 - 1));
    assert_eq!((stand(&world, "io").0, world.datapaths[0].tables), (Some(1), before + 1), "not yet");
    world.wait(Nanos(1));
    assert_eq!((stand(&world, "io").0, world.datapaths[0].tables), (None, before + 2));
    end(world, &[("io", &[0])]);
}

#[test]
fn who_holds_no_certificate_elsewhere_stays_or_degrades_as_declared_and_both_are_alarmed() {
    let streams = [declared("io", Some(&[]), LinkLoss::Stay), declared("video", Some(&["spare"]), LinkLoss::Degrade)];
    let mut world = World::new(three_links(&streams));
    let a = world.attach(1);
    for (name, uid) in [("io", 11), ("video", 12)] {
        open(&mut world, a, name, timed(), uid, &[0]);
    }
    tell(&mut world, 0, 0, &[]);
    assert_eq!(world.hub.stand_of(key("io"), HERE).unwrap().held, [] as [usize; 0]);
    assert_eq!(world.hub.stand_of(key("video"), HERE).unwrap().held, [1]);
    world.datapaths[0].ways.clear();
    tell(&mut world, 0, 2, &[0]);
    assert_eq!((stand(&world, "io"), stand(&world, "video")), ((None, State::Stays), (Some(1), State::InSlots)));
    assert_eq!(world.hub.link_of(key("io"), PeerIndex(0), HERE), Some(0));
    assert_eq!(world.hub.way_of(key("io"), PeerIndex(0), HERE), Way::Stays);
    // It is pinned before all else leaves.
    assert_eq!(world.datapaths[0].ways.last(), Some(&WayTold::Reach(PeerIndex(0), 2)));
    assert!(world.datapaths[0].ways.contains(&WayTold::Route(PeerIndex(0), Some(0))));

    tell(&mut world, 0, 2, &[0, 1]);
    assert_eq!((stand(&world, "io"), stand(&world, "video")), ((None, State::Stays), (None, State::Degraded)));
    assert_eq!(world.datapaths[0].slots.iter().map(|one| one.flow).collect::<Vec<_>>(), [timed_flow(0)]);
    assert_eq!(world.hub.link_of(key("video"), PeerIndex(0), HERE), Some(2));
    assert_eq!(world.hub.way_of(key("video"), PeerIndex(0), HERE), Way::Degraded);
    let alarms: Vec<(&str, State)> = world.hub.alarms().iter().map(|(name, _, stand)| (*name, stand.state)).collect();
    assert_eq!(alarms.len(), 2);
    assert!(alarms.contains(&("io", State::Stays)) && alarms.contains(&("video", State::Degraded)));
    assert_eq!(tally(&world, "io"), Tally { moves: 0, stays: 1, degradations: 0 });
    assert_eq!(tally(&world, "video"), Tally { moves: 1, stays: 0, degradations: 1 });

    // Its room is kept: it has its slots again where they were.
    tell(&mut world, 0, 0, &[]);
    assert_eq!((stand(&world, "io"), stand(&world, "video")), ((None, State::InSlots), (None, State::InSlots)));
    assert_eq!(world.datapaths[0].slots.len(), 2);
    assert!(world.hub.alarms().is_empty());

    // Where everything fails nobody knows a better link.
    tell(&mut world, 0, 0, &[0, 1, 2]);
    assert_eq!(stand(&world, "video"), (None, State::Stays));

    // Other declarations hold at once.
    let mut domains = world.hub.spec().domains.clone();
    domains[0].streams = vec![declared("*", None, LinkLoss::Stay)];
    world.hub.reconfigure(domains, world.now);
    tell(&mut world, 0, 1, &[0]);
    assert_eq!((stand(&world, "io"), stand(&world, "video")), ((Some(1), State::InSlots), (Some(1), State::InSlots)));
    end(world, &[("io", &[0]), ("video", &[0])]);
}

#[test]
fn a_stream_with_slots_is_placed_by_hand_as_a_whole_where_it_holds_a_certificate() {
    let mut world = World::new(three_links(&[declared("io", Some(&["spare"]), LinkLoss::Stay)]));
    let a = world.attach(1);
    open(&mut world, a, "io", timed(), 11, &[0, 1]);
    for peer in 0..2 {
        tell(&mut world, peer, 0, &[]);
    }
    let (at, both) = (world.hub.movable(DomainIndex(0), "io").unwrap(), [PeerIndex(0), PeerIndex(1)]);
    let refused = |world: &World, link, peers: &[PeerIndex]| {
        let refusal = world.hub.may_place(at, link, peers).unwrap_err();
        assert_eq!(refusal.code, Code::NotAdmitted);
        refusal.reason
    };
    assert!(refused(&world, Some(2), &both).contains("no certificate"));
    assert!(refused(&world, Some(1), &both[..1]).contains("all its peers"));
    for (link, stands) in [(Some(1), Some(1)), (None, None), (Some(1), Some(1)), (Some(0), None)] {
        world.hub.may_place(at, link, &both).unwrap();
        world.hub.move_stream(at.0, &both, link, world.now).unwrap();
        world.wait(MOVE_PERIOD);
        assert_eq!(stand(&world, "io"), (stands, State::InSlots));
    }
    // It is left when it fails, and returned to.
    world.hub.move_stream(at.0, &both, Some(1), world.now).unwrap();
    world.wait(MOVE_PERIOD);
    tell(&mut world, 0, 0, &[1]);
    assert_eq!(stand(&world, "io"), (None, State::InSlots));
    tell(&mut world, 0, 0, &[]);
    assert_eq!(stand(&world, "io"), (Some(1), State::InSlots));
    end(world, &[("io", &[0, 1])]);
}

#[test]
fn the_policys_choice_is_carried_out_for_who_holds_a_certificate_there() {
    let mut world = World::new(three_links(&[declared("io", Some(&["spare"]), LinkLoss::Stay)]));
    let a = world.attach(1);
    open(&mut world, a, "io", timed(), 11, &[0]);
    tell(&mut world, 0, 0, &[]);
    for (link, stands) in [(2, None), (1, Some(1))] {
        let wanted = [((key("io"), PeerIndex(0)), link)].into();
        assert!(world.hub.choose(&wanted, world.now));
        world.wait(MOVE_PERIOD);
        assert_eq!(stand(&world, "io"), (stands, State::InSlots));
    }
    end(world, &[("io", &[0])]);
}

#[test]
fn a_source_that_comes_to_a_stream_that_has_moved_goes_where_that_is() {
    let mut world = World::new(three_links(&[]));
    let a = world.attach(1);
    open(&mut world, a, "io", timed(), 11, &[0]);
    tell(&mut world, 0, 1, &[0]);
    open(&mut world, a, "io", timed(), 12, &[]);
    assert_eq!(world.datapaths[0].slot_links, [(0, 1), (1, 1)]);
    end(world, &[("io", &[0])]);
}

/// "io" every 10 ms from 4 ms on by the first link, and, where it has an alternate, from 7 ms on
/// by the second one.
fn schedule(alternate: Option<u64>) -> Arc<Certificate> {
    let epsilon = Epsilon { quantile_ppm: 990_000, quantile_ns: 100_000, max_ns: 100_000, samples: 1 };
    let host = Host { name: "here".into(), clock_error_ns: 0, wake: epsilon.clone(), turn: epsilon };
    let link = |name: &str| Link {
        name: name.into(),
        host: Some(0),
        ps_per_byte: 80_000,
        foreign_bytes: 1_538,
        in_flight_bytes: 6_250,
        frame_bytes_max: 1_538,
        boundary: Boundary::KernelSocket,
        blocked: vec![],
    };
    let stream = |name: &str, link: usize, release_ms: u64| Stream {
        name: name.into(),
        class: Class::Statistical,
        period_ns: 10 * MS,
        bytes: 388,
        release_ns: release_ms * MS,
        deadline_ns: 10 * MS,
        path: vec![Hop { link, delay_ns: 0 }],
    };
    let alternate = alternate.map(|release_ms| stream("io@spare", 1, release_ms));
    let streams = [Some(stream("io", 0, 4)), alternate].into_iter().flatten().collect();
    let links = vec![link("plant"), link("spare")];
    let plant = Plant { hosts: vec![host], links, streams, chains: vec![], lanes: vec![] };
    Arc::new(synthesise(&plant, Budget::default()).unwrap().certificate())
}

#[test]
fn under_a_schedule_a_stream_moves_only_to_the_slots_that_are_planned_for_it_on_another_link() {
    let starts = |world: &World| world.datapaths[0].slots.iter().map(|one| one.slots.offset_ns()).collect::<Vec<_>>();
    // The slots on one link may be those on the other: it has one at a time.
    for alternate in [7, 4] {
        let mut world = World::new(three_links(&[]));
        let a = world.attach(1);
        world.hub.arm_schedule(1, schedule(Some(alternate)), MonoTime(0)).unwrap();
        world.hub.settle_schedule();
        world.pump();
        open(&mut world, a, "io", timed(), 11, &[0]);
        tell(&mut world, 0, 0, &[]);
        assert_eq!(world.hub.stand_of(key("io"), HERE).unwrap().held, [1]);
        assert_eq!((starts(&world), &world.datapaths[0].slot_links[..]), (vec![4 * MS], &[][..]));
        tell(&mut world, 0, 2, &[0]);
        assert_eq!((starts(&world), &world.datapaths[0].slot_links[..]), (vec![alternate * MS], &[(0, 1)][..]));
        // Another schedule has nothing for it there: it stays where that has its slots.
        world.hub.arm_schedule(2, schedule(None), MonoTime(0)).unwrap();
        world.pump();
        assert_eq!((starts(&world), &world.datapaths[0].slot_links[..]), (vec![4 * MS], &[][..]));
        assert_eq!(stand(&world, "io"), (None, State::Stays));
        world.hub.disarm_schedule();
        world.pump();
        assert_eq!((starts(&world), &world.datapaths[0].slot_links[..]), (vec![alternate * MS], &[(0, 1)][..]));
        tell(&mut world, 0, 0, &[]);
        assert_eq!(starts(&world), [4 * MS]);
        end(world, &[("io", &[0])]);
    }
}
