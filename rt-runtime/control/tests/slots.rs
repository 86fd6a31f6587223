//! Sources with slots: who is admitted, who is refused and why, and what the datapath is told.

mod world;

use insane_certificate::{Boundary, Certificate, Class, Epsilon, Hop, Host, Lane, Link, Plant, Stream};
use insane_clock::ServoConfig;
use insane_control::hub::Packet;
use insane_control::hub::slots::READMISSIONS_PER_EVENT;
use insane_control::spec::{HubSpec, SlotLink, SlotSpec};
use insane_core::{
    ChannelId, Determinism, LatePolicy, MonoTime, Nanos, Qos, Reliability, SessionId, SourceId, StreamId, TaiTime,
};
use insane_engine::{SlotConfig, timed_flow};
use insane_scheduler::{GateEntry, Gates, LinkRate, LinkTiming, TimedStream};
use insane_wire::control::{Code, Event, Request, encode};
use std::sync::Arc;
use world::{World, datapath, spec};

const MS: u64 = 1_000_000;

fn slot_link(name: &str) -> SlotLink {
    SlotLink { name: name.into(), ps_per_byte: 80_000, foreign_bytes: 1_538, frame_bytes_max: 1_538 }
}

/// 100 Mbit/s, e_turn 50 us, one foreign frame.
fn slots() -> SlotSpec {
    let rate = LinkRate::from_bits_per_s(100_000_000).unwrap();
    let timing =
        LinkTiming { rate, turn_ns: 50_000, foreign_bytes: 1_538, in_flight_bytes: 6_250, lead_ns: 0, step_ns: MS };
    let config = SlotConfig { timing, overhead_bytes: 66, servo: ServoConfig::default(), asked_links: 0 };
    SlotSpec {
        host: "here".into(),
        link: "control-net".into(),
        links: vec![slot_link("control-net")],
        config,
        payload_bytes_max: 1_408,
        quantile_ppm: 999_000,
        gates: None,
    }
}

fn timed(peers: &[u16]) -> HubSpec {
    let mut datapath = datapath(peers, true);
    datapath.slots = Some(slots());
    spec(vec![datapath])
}

fn every(period_ms: u64, size: u32) -> Determinism {
    Determinism::periodic(Nanos::from_millis(period_ms), size)
}

/// A source on channel 5.
fn create_source(stream: StreamId, uid: u64) -> Request {
    let (channel, classes) = (ChannelId(5), Vec::new());
    Request::CreateSource { req: 2, stream, channel, uid, classes, schema: None, keeps: false, line: None }
}

/// Opens a stream and a source of it; the source, or why not.
fn open(world: &mut World, session: SessionId, name: &str, qos: Qos, uid: u64) -> Result<SourceId, (Code, String)> {
    world.request(session, &Request::OpenStream { req: 1, name: name.into(), qos, isolated: false });
    world.settle();
    let Some(Event::StreamOpened { stream, .. }) = world.clients[&session].events.last() else { panic!("not opened") };
    let stream = *stream;
    world.clients.get_mut(&session).unwrap().asked.insert(2, uid);
    world.request(session, &create_source(stream, uid));
    world.settle();
    match world.clients[&session].events.last() {
        Some(Event::SourceCreated { source, .. }) => Ok(*source),
        Some(Event::Failed { code, reason, .. }) => Err((*code, reason.clone())),
        other => panic!("{other:?}"),
    }
}

fn of(determinism: Determinism) -> Qos {
    Qos { determinism, ..Qos::default() }
}

/// The last table that the datapath was told.
fn table(world: &World) -> Vec<TimedStream> {
    world.datapaths[0].slots.clone()
}

fn end(mut world: World) {
    let sessions: Vec<SessionId> = world.clients.keys().copied().collect();
    sessions.into_iter().for_each(|session| world.kill(session));
    assert!(table(&world).is_empty(), "slots go with their sources");
    world.assert_empty();
}

#[test]
fn an_admitted_source_has_slots_and_a_certificate_that_the_checker_accepts() {
    let mut world = World::new(timed(&[0, 1]));
    let a = world.attach(1);
    assert_eq!(world.hub.certificate(insane_core::DatapathIndex(0)), None);
    open(&mut world, a, "axis", of(every(2, 64)), 11).unwrap();
    open(&mut world, a, "valve", of(every(4, 200)), 12).unwrap();
    let [axis, valve] = table(&world)[..] else { panic!("{:?}", table(&world)) };
    assert_eq!((axis.flow, valve.flow), (timed_flow(0), timed_flow(1)));
    // Payload, header and what is around it, once for each of the two peers.
    assert_eq!(axis.bytes, 2 * (64 + 64 + 66));
    assert_eq!((axis.slots.period_ns(), valve.slots.period_ns()), (2 * MS, 4 * MS));
    // e_turn until it is looked at and once more, the foreign frame, and the message.
    assert_eq!(axis.slots.length_ns(), 100_000 + (1_538 + u64::from(axis.bytes)) * 80);
    assert!(!axis.slots.overlaps(valve.slots));
    let text = world.hub.certificate(insane_core::DatapathIndex(0)).expect("there are slots");
    let certificate = insane_certificate::text::read(&text).unwrap();
    assert_eq!(insane_checker::check(&certificate.plant, &certificate), Ok(()));
    assert_eq!(certificate.plant.streams.len(), 2);
    // One bit of it altered is found.
    let altered = text.replacen("4000000", "4000001", 1);
    assert!(altered != text && insane_certificate::text::read(&altered).is_err());
    end(world);
}

#[test]
fn who_does_not_fit_is_refused_with_a_reason_and_an_offer_and_fits_when_others_went() {
    let mut world = World::new(timed(&[0]));
    let a = world.attach(1);
    // Each takes more than half of a millisecond.
    let large = of(every(1, 4_000));
    open(&mut world, a, "one", large, 11).unwrap();
    let (code, reason) = open(&mut world, a, "two", large, 12).unwrap_err();
    assert_eq!(code, Code::NotAdmitted);
    let says = |words: &[&str]| assert!(words.iter().all(|word| reason.contains(word)), "{reason}");
    says(&["control-net", "there is no schedule", "Pair", "it would with", "bytes"]);
    assert_eq!(table(&world).len(), 1, "the first one keeps its slots");
    // It never falls back to best effort: there is no source.
    assert_eq!(world.clients[&a].sources.len(), 1);
    let source = *world.clients[&a].sources.keys().next().unwrap();
    world.request(a, &Request::CloseSource { req: 4, source });
    world.settle();
    assert!(table(&world).is_empty());
    open(&mut world, a, "three", large, 13).unwrap();
    assert_eq!(table(&world)[0].flow, timed_flow(0), "the number is free again");
    end(world);
}

#[test]
fn what_cannot_have_slots_is_refused_and_what_needs_none_is_not_asked() {
    let mut world = World::new(timed(&[0]));
    let a = world.attach(1);
    let (code, reason) = open(&mut world, a, "huge", of(every(1, 100_000)), 11).unwrap_err();
    assert_eq!(code, Code::NotAdmitted);
    assert!(reason.contains("DoesNotFit"), "{reason}");
    let reliable = Qos { reliability: Reliability::Reliable, ..of(every(1, 64)) };
    assert_eq!(open(&mut world, a, "reliable", reliable, 12).unwrap_err().0, Code::NotAdmitted);
    assert_eq!(open(&mut world, a, "empty", of(every(1, 0)), 13).unwrap_err().0, Code::Invalid);
    open(&mut world, a, "bulk", Qos::default(), 14).unwrap();
    assert!(table(&world).is_empty());
    // A window inside the cycle is kept.
    let (period, offset, deadline) = (Nanos(10 * MS), Nanos(3 * MS), Nanos(4 * MS));
    let late = LatePolicy::SendNow;
    let qos = of(Determinism::TimeSensitive { period, offset, deadline, size: 64, late });
    open(&mut world, a, "window", qos, 15).unwrap();
    let [window] = table(&world)[..] else { panic!("one") };
    assert!(window.slots.offset_ns() >= 3 * MS && window.slots.offset_ns() + window.slots.length_ns() <= 4 * MS);
    assert_eq!(window.deadline_ns, 4 * MS - window.slots.offset_ns());
    end(world);
}

#[test]
fn without_a_rate_there_are_no_slots_and_nobody_is_asked() {
    let mut world = World::new(spec(vec![datapath(&[0], true)]));
    let a = world.attach(1);
    open(&mut world, a, "axis", of(every(1, 100_000)), 11).unwrap();
    assert!(table(&world).is_empty());
    assert_eq!(world.hub.certificate(insane_core::DatapathIndex(0)), None);
    end(world);
}

#[test]
fn without_a_rate_and_without_leave_a_source_is_refused_and_told_what_to_do() {
    let mut path = datapath(&[0], true);
    path.allows_unscheduled = false;
    let mut world = World::new(spec(vec![path]));
    let a = world.attach(1);
    let (code, reason) = open(&mut world, a, "axis", of(every(1, 64)), 11).unwrap_err();
    assert_eq!(code, Code::NotAdmitted);
    assert!(reason.contains("rate_mbps") && reason.contains("unscheduled: allow"), "{reason}");
    // Who has no period is not asked.
    open(&mut world, a, "bulk", Qos::default(), 12).unwrap();
    end(world);
    // Without links nothing leaves the host: there is nothing to bound.
    let mut path = datapath(&[], true);
    (path.allows_unscheduled, path.has_links) = (false, false);
    let mut world = World::new(spec(vec![path]));
    let a = world.attach(1);
    open(&mut world, a, "axis", of(every(1, 64)), 11).unwrap();
    end(world);
}

#[test]
fn sources_come_and_go_and_the_table_is_always_theirs() {
    let mut world = World::new(timed(&[0]));
    let a = world.attach(1);
    let (mut seed, mut sources) = (5_u64, Vec::new());
    for uid in 0..200 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let period = [2, 4, 5, 8, 20][(seed >> 33) as usize % 5];
        world.wait(Nanos(100 * MS));
        sources.extend(open(&mut world, a, &format!("s{uid}"), of(every(period, 64)), 1_000 + uid));
        if seed >> 40 & 1 == 0 && !sources.is_empty() {
            let source = sources.swap_remove((seed >> 45) as usize % sources.len());
            world.request(a, &Request::CloseSource { req: 4, source });
            world.settle();
        }
        let table = table(&world);
        assert_eq!(table.len(), sources.len());
        for (at, one) in table.iter().enumerate() {
            assert!(table[..at].iter().all(|other| other.flow != one.flow && !other.slots.overlaps(one.slots)));
        }
    }
    end(world);
}

/// A schedule for this host: "axis" every 10 ms, with so many bytes, not before `release_ms`.
fn schedule(release_ms: u64, bytes: u32) -> Arc<Certificate> {
    let epsilon = Epsilon { quantile_ppm: 990_000, quantile_ns: 100_000, max_ns: 100_000, samples: 1 };
    let host = Host { name: "here".into(), clock_error_ns: 0, wake: epsilon.clone(), turn: epsilon };
    let link = Link {
        name: "control-net".into(),
        host: Some(0),
        ps_per_byte: 80_000,
        foreign_bytes: 1_538,
        in_flight_bytes: 6_250,
        frame_bytes_max: 1_538,
        boundary: Boundary::KernelSocket,
        blocked: vec![],
    };
    let stream = Stream {
        name: "axis/5".into(),
        class: Class::Statistical,
        period_ns: 10 * MS,
        bytes,
        release_ns: release_ms * MS,
        deadline_ns: 10 * MS,
        path: vec![Hop { link: 0, delay_ns: 0 }],
    };
    let plant = Plant { hosts: vec![host], links: vec![link], streams: vec![stream], chains: vec![], lanes: vec![] };
    Arc::new(insane_admission::synthesise(&plant, insane_admission::Budget::default()).unwrap().certificate())
}

#[test]
fn under_a_schedule_who_is_named_has_its_slots_and_who_is_not_has_others() {
    let mut world = World::new(timed(&[0]));
    let a = world.attach(1);
    open(&mut world, a, "axis", of(every(10, 64)), 11).unwrap();
    assert_eq!(table(&world)[0].slots.offset_ns(), 0);
    let at = MonoTime(77);
    world.hub.arm_schedule(1, schedule(4, 194), at).unwrap();
    world.pump();
    let [axis] = table(&world)[..] else { panic!("{:?}", table(&world)) };
    assert_eq!((axis.flow, axis.slots.offset_ns(), axis.bytes), (timed_flow(0), 4 * MS, 194));
    assert_eq!(world.datapaths[0].slots_at, Some(at));
    // Until then nobody gets slots, and who goes keeps the table as it is.
    let (code, reason) = open(&mut world, a, "other", of(every(10, 64)), 12).unwrap_err();
    assert!(code == Code::NotAdmitted && reason.contains("about to take over"), "{reason}");
    assert!(world.hub.arm_schedule(2, schedule(5, 194), at).is_err());
    let source = *world.clients[&a].sources.keys().next().unwrap();
    world.request(a, &Request::CloseSource { req: 4, source });
    world.settle();
    assert_eq!(table(&world).len(), 1);
    world.hub.settle_schedule();
    world.pump();
    assert!(table(&world).is_empty() && world.hub.schedule().is_some_and(|schedule| schedule.id == 1));
    // Who comes now has what is reserved, or nothing.
    open(&mut world, a, "axis", of(every(10, 64)), 13).unwrap();
    assert_eq!(table(&world)[0].slots.offset_ns(), 4 * MS);
    let text = world.hub.certificate(insane_core::DatapathIndex(0)).unwrap();
    assert_eq!(insane_certificate::text::read(&text).as_ref(), Ok(&*schedule(4, 194)));
    open(&mut world, a, "other", of(every(10, 64)), 14).unwrap();
    assert!(!table(&world)[0].slots.overlaps(table(&world)[1].slots));
    end(world);
}

/// A schedule for this host of nothing but lanes, by priorities and frames of a burst.
fn with_lanes(lanes: &[(u8, u32)]) -> Arc<Certificate> {
    let lane = |(priority, burst_frames): &(u8, u32)| Lane {
        name: format!("telemetry-{priority}"),
        link: 0,
        priority: *priority,
        frame_bytes: 300,
        burst_frames: *burst_frames,
        interval_ns: 5 * MS,
        deadline_ns: 50 * MS,
    };
    let lanes = lanes.iter().map(lane).collect();
    let plant = Plant { streams: vec![], lanes, ..schedule(4, 194).plant.clone() };
    Arc::new(insane_admission::synthesise(&plant, insane_admission::Budget::default()).unwrap().certificate())
}

/// The frames of a burst that the datapath holds its lanes to.
fn bursts(world: &World) -> [Option<u32>; 8] {
    world.datapaths[0].arrivals.map(|lane| lane.map(|arrivals| arrivals.burst_frames))
}

#[test]
fn lanes_that_a_schedule_names_are_held_to_what_it_says_arrives_as_long_as_it_is_in_force() {
    let mut world = World::new(timed(&[0]));
    let tables = world.datapaths[0].tables;
    world.hub.arm_schedule(1, with_lanes(&[(4, 2), (7, 3)]), MonoTime(5)).unwrap();
    world.pump();
    // Nobody has slots: the datapath is told all the same.
    assert_eq!((world.datapaths[0].tables, world.datapaths[0].slots_at), (tables + 1, Some(MonoTime(5))));
    let mut named = [None; 8];
    (named[4], named[7]) = (Some(2), Some(3));
    assert_eq!(bursts(&world), named);
    let lane = world.datapaths[0].arrivals[4].unwrap();
    assert_eq!((lane.frame_bytes.get(), lane.interval_ns.get()), (300, 5 * MS));
    world.hub.settle_schedule();
    // Another one knows nothing of them; one that is taken back leaves them.
    world.hub.arm_schedule(2, with_lanes(&[]), MonoTime(6)).unwrap();
    world.pump();
    assert_eq!(bursts(&world), [None; 8]);
    world.hub.disarm_schedule();
    world.pump();
    assert_eq!(bursts(&world), named);
    world.hub.drop_schedule().unwrap();
    world.pump();
    assert_eq!(bursts(&world), [None; 8]);
    let reason = world.hub.judge_schedule(&with_lanes(&[(8, 1)])).unwrap_err();
    assert!(reason.contains("\"telemetry-8\" with priority 8"), "{reason}");
    end(world);
}

/// Who has slots there is admitted anew by a book of its own, and the lanes are in it.
#[test]
fn lanes_are_held_to_what_a_schedule_says_arrives_also_when_peers_come_and_go() {
    let mut world = World::new(timed(&[0]));
    let a = world.attach(1);
    open(&mut world, a, "valve", of(every(10, 64)), 11).unwrap();
    world.hub.arm_schedule(1, with_lanes(&[(4, 2)]), MonoTime(5)).unwrap();
    world.hub.settle_schedule();
    world.pump();
    let mut named = [None; 8];
    named[4] = Some(2);
    assert_eq!(bursts(&world), named);
    let one = table(&world)[0].bytes;
    for (reach, peers) in [(&[insane_core::DatapathIndex(0)][..], 2), (&[], 1)] {
        world.hub.set_reach(insane_core::PeerIndex(1), reach);
        world.pump();
        assert_eq!(table(&world)[0].bytes, peers * one);
        assert_eq!(bursts(&world), named, "with {peers} peers");
    }
    world.hub.drop_schedule().unwrap();
    world.pump();
    assert_eq!(bursts(&world), [None; 8]);
    end(world);
}

#[test]
fn two_lanes_of_a_schedule_that_would_be_one_here_are_refused_also_where_they_are_equal() {
    let by_two_links = |bursts: [u32; 2]| {
        let plant = Plant { streams: vec![], ..schedule(4, 194).plant.clone() };
        let second = Link { name: "second-net".into(), ..plant.links[0].clone() };
        let lane = |(link, burst_frames): (usize, u32)| Lane {
            name: format!("telemetry-{link}"),
            link,
            priority: 4,
            frame_bytes: 300,
            burst_frames,
            interval_ns: 5 * MS,
            deadline_ns: 50 * MS,
        };
        let links = vec![plant.links[0].clone(), second];
        let plant = Plant { links, lanes: (0..).zip(bursts).map(lane).collect(), ..plant };
        Arc::new(insane_admission::synthesise(&plant, insane_admission::Budget::default()).unwrap().certificate())
    };
    let mut datapath = datapath(&[0], true);
    let mut both = slots();
    both.links.push(slot_link("second-net"));
    datapath.slots = Some(both);
    let world = World::new(spec(vec![datapath]));
    for bursts in [[2, 3], [2, 2]] {
        let reason = world.hub.judge_schedule(&by_two_links(bursts)).unwrap_err();
        assert!(reason.contains("\"telemetry-0\" and \"telemetry-1\" of the schedule are one here"), "{reason}");
    }
    end(world);
}

#[test]
fn what_differs_from_the_schedule_is_refused_with_the_difference() {
    let mut world = World::new(timed(&[0]));
    let a = world.attach(1);
    world.hub.arm_schedule(1, schedule(4, 194), MonoTime(0)).unwrap();
    world.pump();
    world.hub.settle_schedule();
    world.pump();
    let window = |period: u64, offset: u64, deadline: u64| Determinism::TimeSensitive {
        period: Nanos(period * MS),
        offset: Nanos(offset * MS),
        deadline: Nanos(deadline * MS),
        size: 64,
        late: LatePolicy::Drop,
    };
    for (at, (determinism, words)) in [
        (every(5, 64), "a period of 10.00 ms, and the source asks for 5.00 ms"),
        (every(10, 65), "194 bytes of the link, and the source asks for 195"),
        (window(10, 6, 10), "its slot at 4.00 ms, and the source asks for none before 6.00 ms"),
        (window(10, 0, 9), "arrival by 10.00 ms, and the source asks for 9.00 ms"),
    ]
    .into_iter()
    .enumerate()
    {
        let session = world.attach(1);
        let (code, reason) = open(&mut world, session, "axis", of(determinism), 20 + at as u64).unwrap_err();
        assert!(code == Code::NotAdmitted && reason.contains(words), "{words:?} is missing in {reason}");
        world.kill(session);
    }
    open(&mut world, a, "axis", of(every(10, 64)), 31).unwrap();
    let second = world.attach(1);
    let (_, reason) = open(&mut world, second, "axis", of(every(10, 64)), 32).unwrap_err();
    assert!(reason.contains("another source has the slots"), "{reason}");
    end(world);
}

#[test]
fn a_schedule_that_is_taken_back_leaves_everything_as_it_was() {
    let mut world = World::new(timed(&[0]));
    let a = world.attach(1);
    open(&mut world, a, "axis", of(every(10, 64)), 11).unwrap();
    open(&mut world, a, "other", of(every(10, 64)), 12).unwrap();
    let before = table(&world);
    world.hub.arm_schedule(1, schedule(4, 194), MonoTime(0)).unwrap();
    world.pump();
    assert_ne!(table(&world), before);
    world.hub.disarm_schedule();
    world.pump();
    assert_eq!(table(&world), before);
    assert!(world.hub.schedule().is_none() && world.datapaths[0].slots_at.is_none());
    open(&mut world, a, "third", of(every(10, 64)), 13).unwrap();
    end(world);
}

#[test]
fn a_schedule_that_this_host_is_not_made_for_is_refused_by_name() {
    let mut world = World::new(timed(&[0]));
    let a = world.attach(1);
    let refused = |world: &World, change: &dyn Fn(&mut Certificate), words: &str| {
        let mut certificate = (*schedule(4, 194)).clone();
        change(&mut certificate);
        let reason = world.hub.judge_schedule(&certificate).unwrap_err();
        assert!(reason.contains(words), "{words:?} is missing in {reason}");
    };
    refused(&world, &|one| one.plant.hosts[0].name = "there".into(), "not about host \"here\"");
    refused(&world, &|one| one.plant.links[0].name = "net".into(), "which is not here");
    refused(&world, &|one| one.plant.links[0].ps_per_byte = 8_000, "ps a byte");
    refused(&world, &|one| one.plant.links[0].foreign_bytes = 0, "1538 foreign bytes");
    refused(&world, &|one| one.plant.links[0].in_flight_bytes = 100, "bytes in flight");
    refused(&world, &|one| one.plant.hosts[0].turn.quantile_ns = 99_999, "turn_us");
    // Who has slots now and would find none.
    open(&mut world, a, "axis", of(every(10, 1_000)), 11).unwrap();
    refused(&world, &|_| {}, "would lose its slots");
    end(world);
}

/// A datapath of two links sends by one at a time: what a schedule has on either is kept, and
/// what it has on both at once is refused.
#[test]
fn a_schedule_over_two_links_of_a_datapath_is_kept_on_both_or_refused_where_they_meet() {
    let mut path = datapath(&[0], true);
    path.slots = Some(SlotSpec { links: ["control-net", "other-net"].map(slot_link).into(), ..slots() });
    let mut world = World::new(spec(vec![path]));
    let a = world.attach(1);
    let both = |offset: u64| {
        let mut plant = schedule(4, 194).plant.clone();
        plant.links.push(Link { name: "other-net".into(), ..plant.links[0].clone() });
        let path = vec![Hop { link: 1, delay_ns: 0 }];
        let valve = Stream { name: "valve/5".into(), release_ns: offset, path, ..plant.streams[0].clone() };
        plant.streams.push(valve);
        Arc::new(insane_admission::synthesise(&plant, insane_admission::Budget::default()).unwrap().certificate())
    };
    let reason = world.hub.judge_schedule(&both(4 * MS)).unwrap_err();
    for part in ["\"control-net\" and \"other-net\"", "one datapath", "\"axis/5\" and \"valve/5\" at once"] {
        assert!(reason.contains(part), "{part:?} is missing in {reason}");
    }
    world.hub.arm_schedule(1, both(6 * MS), MonoTime(0)).unwrap();
    world.hub.settle_schedule();
    world.pump();
    open(&mut world, a, "valve", of(every(10, 64)), 11).unwrap();
    assert_eq!(table(&world)[0].slots.offset_ns(), 6 * MS, "what the schedule has on the second link");
    // Who is not named goes beside both.
    for uid in 0..20 {
        world.wait(Nanos(100 * MS));
        open(&mut world, a, &format!("s{uid}"), of(every(10, 64)), 100 + uid).unwrap();
    }
    let axis = insane_scheduler::Recurrence::new(10 * MS, 4 * MS, MS / 10).unwrap();
    assert!(table(&world).iter().all(|one| !one.slots.overlaps(axis)), "{:?}", table(&world));
    end(world);
}

/// Gates from the configuration: they hold from the start, slots are given where the real-time
/// lanes may send, and a schedule that has others is refused.
#[test]
fn gates_hold_from_the_start_and_slots_are_where_they_are_open() {
    // Every 10 ms, from 1 ms after a boundary: lane 2 has no right in the first 6 ms.
    let entry = |open_lanes, ms: u64| GateEntry { open_lanes, interval_ns: ms * MS };
    let gates = Gates::new(TaiTime(MS), None, 0, &[entry(0b1111_1011, 6), entry(0xff, 4)]).unwrap();
    let mut path = datapath(&[0], true);
    path.slots = Some(SlotSpec { gates: Some(Box::new(gates)), ..slots() });
    let mut world = World::new(spec(vec![path]));
    world.pump();
    assert_eq!(world.datapaths[0].tables, 1, "the gates are staged though nobody has slots");
    let a = world.attach(1);
    for uid in 0..8 {
        world.wait(Nanos(100 * MS));
        open(&mut world, a, &format!("s{uid}"), of(every(20, 500)), 100 + uid).unwrap();
    }
    let shut = insane_scheduler::Recurrence::new(10 * MS, MS, 6 * MS).unwrap();
    assert!(table(&world).iter().all(|one| !one.slots.overlaps(shut)), "{:?}", table(&world));
    let (code, reason) = open(&mut world, a, "often", of(every(5, 64)), 300).unwrap_err();
    assert!(code == Code::NotAdmitted && reason.contains("Blocked"), "{reason}");
    let reason = world.hub.judge_schedule(&schedule(4, 194)).unwrap_err();
    assert!(reason.contains("the gates of link \"control-net\"") && reason.contains("\"axis/5\""), "{reason}");
    world.hub.judge_schedule(&schedule(8, 194)).unwrap();
    // They stay when peers come, and are what is blocked, once.
    world.hub.set_reach(insane_core::PeerIndex(1), &[insane_core::DatapathIndex(0)]);
    world.pump();
    assert!(table(&world).iter().all(|one| !one.slots.overlaps(shut)));
    let text = world.hub.certificate(insane_core::DatapathIndex(0)).unwrap();
    assert_eq!(insane_certificate::text::read(&text).unwrap().plant.links[0].blocked.len(), 1);
    end(world);
}

/// Peers that come and go while slots are in force.
#[test]
fn when_peers_come_and_go_slots_have_room_for_a_message_to_each_or_all_stay_as_they_were() {
    let here = insane_core::DatapathIndex(0);
    let mut world = World::new(timed(&[0]));
    let a = world.attach(1);
    open(&mut world, a, "axis", of(every(2, 64)), 11).unwrap();
    open(&mut world, a, "large", of(every(2, 3_000)), 12).unwrap();
    let before = table(&world);
    let flows = |streams: &[TimedStream]| streams.iter().map(|stream| stream.flow).collect::<Vec<_>>();
    world.hub.set_reach(insane_core::PeerIndex(1), &[here]);
    world.pump();
    let [axis, large] = table(&world)[..] else { panic!("{:?}", table(&world)) };
    assert_eq!((axis.bytes, large.bytes), (2 * before[0].bytes, 2 * before[1].bytes));
    assert_eq!(flows(&table(&world)), flows(&before));
    assert!(!axis.slots.overlaps(large.slots));
    let text = world.hub.certificate(here).expect("there are slots");
    let certificate = insane_certificate::text::read(&text).unwrap();
    assert_eq!(insane_checker::check(&certificate.plant, &certificate), Ok(()));
    // With ten peers there is no room: all stay as they were.
    for peer in 2..10 {
        world.hub.set_reach(insane_core::PeerIndex(peer), &[here]);
        world.pump();
    }
    let most = table(&world);
    assert!(most[1].bytes > before[1].bytes && most[1].bytes < 10 * before[1].bytes, "{most:?}");
    assert_eq!(most[0].bytes / before[0].bytes, most[1].bytes / before[1].bytes, "both, or none");
    for peer in 1..10 {
        world.hub.set_reach(insane_core::PeerIndex(peer), &[]);
        world.pump();
    }
    assert_eq!(table(&world).iter().map(|stream| stream.bytes).collect::<Vec<_>>(), [before[0].bytes, before[1].bytes]);
    end(world);
}

/// However many have slots, an event of the control plane admits a few of them anew, and what
/// holds meanwhile is what held before; who comes and goes meanwhile is part of it.
#[test]
fn sources_are_admitted_anew_a_few_at_an_event_while_others_come_and_go() {
    let here = insane_core::DatapathIndex(0);
    let mut world = World::new(timed(&[0]));
    let a = world.attach(1);
    let count = 5 * READMISSIONS_PER_EVENT;
    for uid in 0..count {
        world.wait(Nanos(100 * MS));
        open(&mut world, a, &format!("s{uid}"), of(every(50, 64)), 1_000 + uid as u64).unwrap();
    }
    let before = table(&world);
    let sources: Vec<SourceId> = world.clients[&a].sources.keys().copied().collect();
    world.hub.set_reach(insane_core::PeerIndex(1), &[here]);
    let mut events = 0;
    while world.hub.is_readmitting() {
        world.pump_once();
        assert_eq!(table(&world), before, "after {events} events");
        world.hub.go_on();
        events += 1;
        assert!(events <= count, "it ends");
    }
    world.pump();
    assert_eq!(events, count / READMISSIONS_PER_EVENT);
    assert!(table(&world).iter().zip(&before).all(|(now, before)| now.bytes == 2 * before.bytes));

    // The same with a third peer, while one goes that has its new slots, one that has not, and
    // one comes.
    world.wait(Nanos(100 * MS));
    world.request(a, &Request::OpenStream { req: 7, name: "late".into(), qos: of(every(50, 64)), isolated: false });
    world.settle();
    let Some(Event::StreamOpened { stream, .. }) = world.clients[&a].events.last() else { panic!("not opened") };
    let (stream, uid) = (*stream, 9_000);
    world.clients.get_mut(&a).unwrap().asked.insert(2, uid);
    world.hub.set_reach(insane_core::PeerIndex(2), &[here]);
    world.hub.go_on();
    world.hub.go_on();
    let close = [sources[0], sources[count - 1]].map(|source| Request::CloseSource { req: 4, source });
    let create = create_source(stream, uid);
    for request in close.into_iter().chain([create]) {
        world.hub.packet(a, Packet::plain(&encode(&request)), world.now);
        world.pump_once();
    }
    assert!(world.hub.is_readmitting());
    let old = table(&world).iter().filter(|stream| stream.bytes == 2 * before[0].bytes).count();
    assert_eq!(old, count - 2, "those who stay have what they had");
    world.settle();
    world.pump();
    let table = table(&world);
    assert_eq!(table.len(), count - 1);
    for (at, one) in table.iter().enumerate() {
        assert_eq!(one.bytes, 3 * before[0].bytes);
        assert!(table[..at].iter().all(|other| other.flow != one.flow && !other.slots.overlaps(one.slots)));
    }
    end(world);
}

/// While a schedule waits, slots stay; what peers need is made up for afterwards.
#[test]
fn peers_that_come_while_a_schedule_waits_have_room_when_it_took_over_or_was_taken_back() {
    let here = insane_core::DatapathIndex(0);
    for takes_over in [true, false] {
        let mut world = World::new(timed(&[0]));
        let a = world.attach(1);
        open(&mut world, a, "valve", of(every(10, 64)), 11).unwrap();
        let one = table(&world)[0].bytes;
        world.hub.arm_schedule(1, schedule(4, 194), MonoTime(0)).unwrap();
        world.hub.set_reach(insane_core::PeerIndex(1), &[here]);
        world.pump();
        assert_eq!(table(&world)[0].bytes, one, "the table that waits stays");
        if takes_over {
            world.hub.settle_schedule();
        } else {
            world.hub.disarm_schedule();
        }
        world.pump();
        assert_eq!(table(&world)[0].bytes, 2 * one, "takes over: {takes_over}");
        end(world);
    }
}

/// A search costs the control plane time that others need.
#[test]
fn who_asks_for_slots_in_vain_again_and_again_is_held_up_and_nobody_else_is() {
    let mut path = datapath(&[0], true);
    path.slots = Some(slots());
    let mut spec = spec(vec![path]);
    let other = insane_control::spec::DomainSpec { name: "other".into(), ..spec.domains[0].clone() };
    spec.domains.push(other);
    let mut world = World::new(spec);
    let a = world.attach(1);
    let b = world.connect(1).unwrap();
    world.greet(b, 1, insane_wire::control::Role::Application, Some("other"));
    let huge = of(every(1, 100_000));
    let codes: Vec<Code> = (0..200).map(|uid| open(&mut world, a, "huge", huge, 1_000 + uid).unwrap_err().0).collect();
    let searched = codes.iter().filter(|code| **code == Code::NotAdmitted).count();
    assert_eq!(searched, 32, "of 200");
    assert!(codes[searched..].iter().all(|code| *code == Code::Quota));
    open(&mut world, a, "bulk", Qos::default(), 2_000).unwrap();
    open(&mut world, b, "axis", of(every(10, 64)), 2_001).unwrap();
    world.wait(Nanos(100 * MS));
    open(&mut world, a, "axis", of(every(10, 64)), 2_002).unwrap();
    end(world);
}
