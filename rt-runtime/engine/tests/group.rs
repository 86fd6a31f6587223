//! One frame for several peers: who gets it, who gets frames of their own, and what happens
//! when that changes. Over the simulated network, in virtual time.

mod world;

use insane_clock::ServoConfig;
use insane_core::counters::{DatapathCounter, TurnCounter};
use insane_core::{ChannelId, HostId, Incarnation, Lane, PeerIndex};
use insane_engine::{Command, EngineConfig, Hop, PeerSwap, SlotConfig, Topic};
use insane_link::LinkSetup;
use insane_scheduler::{LinkRate, LinkTiming};
use insane_shm::port::{SinkPort, SourcePort};
use insane_sim::{SimConfig, SimNet, SimPeer};
use world::{Host, TOPIC, address, pattern, run};

const RECEIVE: [(u32, u32); 2] = [(2048, 64), (65_536, 16)];

/// Host 1 with peers 2, 3 and 4, which are its `PeerIndex` 0 to 2; all are in one group.
struct Plant {
    net: SimNet,
    sender: Host,
    receivers: Vec<Host>,
    sinks: Vec<SinkPort>,
}

fn host(net: &SimNet, own: u8, peers: &[u8]) -> Host {
    let peers: Vec<_> = peers.iter().map(|peer| Some(address(*peer))).collect();
    let link = net.setup(address(own)).in_group().open(&peers).expect("the address is free");
    let config = EngineConfig::new(HostId(u64::from(own)), Incarnation(1));
    Host::of(config, link, net.clock(), peers.len(), &RECEIVE, None)
}

impl Plant {
    fn new(seed: u64) -> Plant {
        let net = SimNet::new(seed, SimConfig { frames_max: 8192, ..SimConfig::default() });
        let sender = host(&net, 1, &[2, 3, 4]);
        let mut receivers: Vec<_> = (2..5).map(|own| host(&net, own, &[1])).collect();
        let sinks = receivers.iter_mut().map(|host| host.sink(TOPIC).0).collect();
        Plant { net, sender, receivers, sinks }
    }

    fn group(&mut self, hears: &[u16], peers_min: u32) {
        let hears = hears.iter().map(|peer| PeerIndex(*peer)).collect();
        assert!(matches!(self.sender.command(Command::SetGroup { link: 0, hears, peers_min }), Command::Spent));
    }

    fn run(&mut self, turns: usize) {
        let mut hosts = vec![&mut self.sender];
        hosts.extend(&mut self.receivers);
        run(&self.net, &mut hosts, turns);
    }

    /// Emits a message and lets it arrive.
    fn send(&mut self, source: &SourcePort, sequence: u64, len: usize) {
        let mut buffer = source.get_buffer(len).expect("a buffer is free");
        buffer.copy_from_slice(&pattern(sequence, len));
        assert!(source.emit(buffer, 5).is_sent());
        self.run(4 + len / 500);
    }

    /// That every receiver got exactly these messages, in order.
    #[track_caller]
    fn got(&mut self, sequences: std::ops::Range<u64>, len: usize) {
        for (at, sink) in self.sinks.iter().enumerate() {
            for sequence in sequences.clone() {
                let message = sink.consume().unwrap().unwrap_or_else(|| panic!("{sequence} at receiver {at}"));
                assert_eq!((message.sequence(), message.lost(), message.len()), (sequence, 0, len), "receiver {at}");
                assert_eq!(message.bytes(), Some(&pattern(sequence, len)[..]));
            }
            assert!(sink.consume().unwrap().is_none(), "one too many at receiver {at}");
        }
    }

    /// Frames so far: all that were handed to the link, and those of them to the group.
    fn frames(&self) -> (u64, u64) {
        let group = self.sender.count(DatapathCounter::GroupFrames);
        assert_eq!(group, self.net.group_frames(address(1)));
        (self.sender.count(DatapathCounter::FramesSent), group)
    }
}

#[test]
fn a_message_for_several_goes_once_to_those_that_hear_and_alone_to_the_others() {
    let mut plant = Plant::new(1);
    let source = plant.sender.source(TOPIC, Lane::LAST, &RECEIVE);
    plant.sender.route(TOPIC, &[0, 1, 2], false);
    let cases: [(&[u16], u32, (u64, u64)); 6] = [
        // Nobody was asked, or nobody answers.
        (&[], 0, (3, 0)),
        (&[], 2, (3, 0)),
        // One alone is not worth it, nor are fewer than the configuration wants.
        (&[1], 2, (3, 0)),
        (&[0, 1], 3, (3, 0)),
        (&[0, 2], 2, (2, 1)),
        (&[0, 1, 2], 3, (1, 1)),
    ];
    let mut sequence = 0;
    for (hears, peers_min, (frames, by_group)) in cases {
        plant.group(hears, peers_min);
        for peer in 0..3 {
            plant.net.set_deaf(address(2 + peer as u8), !hears.contains(&peer));
        }
        for (len, fragments) in [(64, 1), (1000, 1), (5000, 4)] {
            let before = plant.frames();
            plant.send(&source, sequence, len);
            let after = plant.frames();
            let sent = (after.0 - before.0, after.1 - before.1);
            assert_eq!(sent, (frames * fragments, by_group * fragments), "{hears:?} {peers_min} {len}");
            plant.got(sequence..sequence + 1, len);
            sequence += 1;
        }
    }
    let bytes = plant.sender.count(DatapathCounter::BytesSent);
    plant.send(&source, sequence, 1000);
    assert_eq!(plant.sender.count(DatapathCounter::BytesSent) - bytes, 1064, "bytes are counted once");
    assert_eq!(source.buffers_in_use(), 0);
    for receiver in &plant.receivers {
        assert_eq!(receiver.count(DatapathCounter::DroppedDuplicate), 0, "each way was the only one");
    }
}

/// One that hears and is not known to, as while it is being asked, gets both, and drops one.
#[test]
fn one_that_gets_both_delivers_one() {
    let mut plant = Plant::new(7);
    let source = plant.sender.source(TOPIC, Lane::LAST, &RECEIVE);
    plant.sender.route(TOPIC, &[0, 1, 2], false);
    plant.group(&[0, 1], 2);
    for (sequence, len) in [64, 1000, 1400].into_iter().enumerate() {
        plant.send(&source, sequence as u64, len);
        plant.got(sequence as u64..sequence as u64 + 1, len);
    }
    let duplicates = plant.receivers.iter().map(|host| host.count(DatapathCounter::DroppedDuplicate));
    assert_eq!(duplicates.collect::<Vec<_>>(), [0, 0, 3]);
}

/// Who hears and who is interested change all the time, also in the middle of messages of
/// many fragments: each receiver gets each message once, without a gap.
#[test]
fn a_change_of_way_loses_and_repeats_nothing() {
    let mut plant = Plant::new(2);
    let source = plant.sender.source(TOPIC, Lane::LAST, &RECEIVE);
    plant.sender.route(TOPIC, &[0, 1, 2], false);
    let mut random = 3_u64;
    for sequence in 0..300 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let hears: Vec<u16> = (0..3).filter(|peer| random >> (40 + peer) & 1 == 1).collect();
        let len = [64, 1400, 4000, 30_000][(random >> 50) as usize % 4];
        let mut buffer = source.get_buffer(len).expect("a buffer is free");
        buffer.copy_from_slice(&pattern(sequence, len));
        assert!(source.emit(buffer, 5).is_sent());
        // The command arrives before, or in the middle of, the message.
        plant.run((random >> 55) as usize % 3);
        plant.group(&hears, 2);
        plant.run(4 + len / 500);
        plant.got(sequence..sequence + 1, len);
    }
    let (frames, by_group) = plant.frames();
    assert!(by_group > 100 && by_group < frames, "{by_group} of {frames}");
}

#[test]
fn a_member_without_a_sink_drops_what_the_group_gets() {
    let mut plant = Plant::new(3);
    let other = Topic { channel: ChannelId(99), ..TOPIC };
    let elsewhere = plant.receivers[2].sink(other).0;
    let source = plant.sender.source(other, Lane::LAST, &RECEIVE);
    let _sink = plant.receivers[0].sink(other).0;
    let _sink_too = plant.receivers[1].sink(other).0;
    plant.sender.route(other, &[0, 1], false);
    plant.group(&[0, 1, 2], 2);
    // Receiver 3 has a sink of the channel that the sender has not heard of: it is early.
    plant.send(&source, 0, 64);
    assert_eq!(elsewhere.consume().unwrap().expect("an early one").sequence(), 0);
    // One that has none drops and counts.
    let nobody = Topic { channel: ChannelId(100), ..TOPIC };
    let source = plant.sender.source(nobody, Lane::LAST, &RECEIVE);
    plant.sender.route(nobody, &[0, 1], false);
    plant.send(&source, 0, 64);
    for receiver in &plant.receivers {
        assert_eq!(receiver.turn_counters.get(TurnCounter::FramesNoListener as usize), 1);
    }
    plant.got(0..0, 0);
}

#[test]
fn reliable_streams_go_to_each_alone() {
    let mut plant = Plant::new(4);
    plant.group(&[0, 1, 2], 2);
    let source = plant.sender.reliable_source(TOPIC, &RECEIVE);
    plant.sender.route(TOPIC, &[0, 1, 2], false);
    for sequence in 0..10 {
        plant.send(&source, sequence, 64);
    }
    plant.run(50);
    assert_eq!(plant.frames().1, 0);
    plant.got(0..10, 64);
}

/// The room of a slot is counted for each peer, and a launch time is a frame's to one peer.
#[test]
fn sources_with_slots_go_to_each_alone() {
    let net = SimNet::new(8, SimConfig::default());
    let link = net.setup(address(1)).in_group().open(&[Some(address(2)), Some(address(3))]).unwrap();
    let rate = LinkRate::from_bits_per_s(100_000_000).unwrap();
    let (turn_ns, step_ns, in_flight_bytes) = (4_000, 1_000_000, 4_000);
    let timing = LinkTiming { rate, turn_ns, foreign_bytes: 0, in_flight_bytes, lead_ns: 0, step_ns };
    let slots = SlotConfig { timing, overhead_bytes: 66, servo: ServoConfig::default(), asked_links: 0 };
    let config = EngineConfig { slots: Some(slots), ..EngineConfig::new(HostId(1), Incarnation(1)) };
    let mut sender = Host::of(config, link, net.clock(), 2, &RECEIVE, None);
    let hears = [PeerIndex(0), PeerIndex(1)].into_iter().collect();
    assert!(matches!(sender.command(Command::SetGroup { link: 0, hears, peers_min: 2 }), Command::Spent));
    for (slots, frames) in [(None, (1, 1)), (Some(0), (2, 0))] {
        sender.slots = slots;
        let topic = Topic { channel: ChannelId(slots.map_or(1, |_| 2)), ..TOPIC };
        let source = sender.source(topic, Lane::LAST, &[]);
        sender.route(topic, &[0, 1], false);
        let counts = |host: &Host| {
            [DatapathCounter::FramesSent, DatapathCounter::GroupFrames].map(|counter| host.count(counter))
        };
        let before = counts(&sender);
        let _ = source.emit_copy(b"to each", 0);
        run(&net, &mut [&mut sender], 6);
        let [sent, by_group] = counts(&sender);
        assert_eq!((sent - before[0], by_group - before[1]), frames, "{slots:?}");
    }
}

/// What was in the ring when a peer joined is part of the past, which comes to it later: it
/// goes to each of the others alone, though all hear the group.
#[test]
fn what_a_newcomer_is_not_to_get_does_not_go_to_the_group() {
    let mut plant = Plant::new(8);
    plant.sender.keeps = true;
    plant.group(&[0, 1, 2], 2);
    plant.sender.route(TOPIC, &[0, 1], false);
    let source = plant.sender.source(TOPIC, Lane::LAST, &RECEIVE);
    let _ = source.emit_copy(&pattern(0, 64), 5);
    assert!(matches!(plant.sender.command(Command::Welcome { topic: TOPIC, peer: PeerIndex(2) }), Command::Spent));
    plant.sender.route(TOPIC, &[0, 1, 2], false);
    plant.run(4);
    assert_eq!(plant.frames(), (2, 0));
    assert!(plant.sinks[2].consume().unwrap().is_none());
    plant.send(&source, 1, 64);
    assert_eq!(plant.frames(), (3, 1));
    assert_eq!(plant.sinks[2].consume().unwrap().expect("one of now").sequence(), 1);
}

/// What was known of a peer is not believed of the next one in its place.
#[test]
fn a_peer_that_left_hears_no_more() {
    let mut plant = Plant::new(5);
    let source = plant.sender.source(TOPIC, Lane::LAST, &RECEIVE);
    plant.sender.route(TOPIC, &[0, 1], false);
    plant.group(&[0, 1], 2);
    plant.send(&source, 0, 64);
    assert_eq!(plant.frames(), (1, 1));
    let swap = PeerSwap { peer: PeerIndex(1), link: 0, place: Box::new(None::<SimPeer>), reach: None };
    let Command::PeerSwapped(swap, Ok(())) = plant.sender.command(Command::SwapPeer(swap)) else { panic!("taken out") };
    let Command::PeerSwapped(_, Ok(())) = plant.sender.command(Command::SwapPeer(swap)) else { panic!("put back") };
    plant.send(&source, 1, 64);
    assert_eq!(plant.frames(), (3, 1), "each alone");
    // Who is not reached by the link cannot hear its group.
    plant.group(&[0, 40], 2);
    plant.send(&source, 2, 64);
    assert_eq!(plant.frames(), (5, 1));
}

/// It goes to that peer alone, though its link be that of the group.
#[test]
fn a_peer_for_which_a_stream_names_a_link_is_not_served_by_a_group() {
    let mut plant = Plant::new(8);
    let source = plant.sender.source(TOPIC, Lane::LAST, &RECEIVE);
    plant.group(&[0, 1, 2], 2);
    for (sequence, named, frames) in [(0, None, (1, 1)), (1, Some(2), (3, 2)), (2, None, (4, 3))] {
        let hop = |peer| Hop { peer: PeerIndex(peer), link: (named == Some(peer)).then_some(0) };
        let (peers, domain) = ([0, 1, 2].map(hop).into_iter().collect(), world::DOMAIN);
        let command = Command::SetRoute { topic: TOPIC, domain, peers, local: false };
        assert!(matches!(plant.sender.command(command), Command::Spent));
        plant.run(10);
        plant.send(&source, sequence, 64);
        assert_eq!(plant.frames(), frames);
        plant.got(sequence..sequence + 1, 64);
    }
}

/// A link without a group is never asked to send to one.
#[test]
fn a_link_without_a_group_serves_nobody_by_it() {
    let net = SimNet::new(6, SimConfig::default());
    let mut a = Host::new(&net, 1, &[2, 3], &RECEIVE);
    let (mut b, mut c) = (Host::new(&net, 2, &[1], &RECEIVE), Host::new(&net, 3, &[1], &RECEIVE));
    let sinks = [b.sink(TOPIC).0, c.sink(TOPIC).0];
    let hears = [PeerIndex(0), PeerIndex(1)].into_iter().collect();
    assert!(matches!(a.command(Command::SetGroup { link: 0, hears, peers_min: 2 }), Command::Spent));
    let source = a.source(TOPIC, Lane::LAST, &[]);
    a.route(TOPIC, &[0, 1], false);
    let _ = source.emit_copy(b"to each", 0);
    run(&net, &mut [&mut a, &mut b, &mut c], 6);
    assert!(sinks.iter().all(|sink| sink.consume().unwrap().is_some()));
    assert_eq!((a.count(DatapathCounter::FramesSent), a.count(DatapathCounter::GroupFrames)), (2, 0));
}
