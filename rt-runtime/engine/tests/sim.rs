//! Two engines over a simulated network, in virtual time: the very turn that runs in
//! production. Delivery, fragmentation, lanes, faults, hostile clients.

mod world;

use insane_core::counters::{DatapathCounter, TurnCounter};
use insane_core::limits::MESSAGE_BYTES_MAX;
use insane_core::time::Clock;
use insane_core::{ChannelId, ConnId, HostId, Incarnation, Lane, Nanos, PeerIndex, SessionId};
use insane_engine::{Command, Doorbell, EngineConfig, GRANTS_PER_TURN, Notice, Topic};
use insane_link::SendOutcome;
use insane_shm::counters::CounterBlock;
use insane_shm::port::{SinkPort, SourcePort};
use insane_sim::{Chance, Faults, SimConfig, SimNet};
use insane_sys::event::Event;
use insane_wire::data::{DataHeader, VERSION};
use std::os::fd::AsFd;
use std::sync::Arc;
use world::{DEPTH, Host, TOPIC, address, pair, pass, pattern, run};

#[test]
fn messages_of_every_size_cross_the_network_whole_and_in_order() {
    let net = SimNet::new(1, SimConfig { frames_max: 8192, ..SimConfig::default() });
    let receive = [(2048, 64), (65_536, 16), (7_000_000, 2)];
    let (mut a, mut b) = pair(&net, &receive);
    let source = a.source(TOPIC, Lane::LAST, &receive);
    let (sink, _) = b.sink(TOPIC);
    a.route(TOPIC, &[0], false);
    let sizes = [0, 1, 95, 96, 97, 1407, 1408, 1409, 2048, 65_536, 6_220_800];
    for (sequence, len) in sizes.into_iter().enumerate() {
        let mut buffer = source.get_buffer(len).expect("a buffer is free");
        buffer.copy_from_slice(&pattern(sequence as u64, len));
        assert!(source.emit(buffer, 99).is_sent());
        let mut received = None;
        for _ in 0..2_000 {
            run(&net, &mut [&mut a, &mut b], 1);
            received = sink.consume().unwrap();
            if received.is_some() {
                break;
            }
        }
        let message = received.unwrap_or_else(|| panic!("{len} bytes did not arrive"));
        assert_eq!((message.sequence(), message.len(), message.lost()), (sequence as u64, len, 0));
        assert_eq!(message.source_ns(), 99);
        assert_eq!(message.bytes(), Some(&pattern(sequence as u64, len)[..]), "{len} bytes");
    }
    run(&net, &mut [&mut a, &mut b], 4);
    assert_eq!(source.buffers_in_use(), 0, "the engine gave every buffer back");
    assert_eq!(b.count(DatapathCounter::MessagesToSinks), sizes.len() as u64);
    assert_eq!(b.count(DatapathCounter::Lost), 0);
}

#[test]
fn the_largest_message_crosses_whole() {
    let net = SimNet::new(11, SimConfig { frames_max: 512, frame_bytes_max: 65_000, ..SimConfig::default() });
    let (mut a, mut b) = pair(&net, &[(MESSAGE_BYTES_MAX, 1)]);
    let source = a.source(TOPIC, Lane::LAST, &[(MESSAGE_BYTES_MAX, 1)]);
    let (sink, _) = b.sink(TOPIC);
    a.route(TOPIC, &[0], false);
    let mut buffer = source.get_buffer(MESSAGE_BYTES_MAX as usize).unwrap();
    for (number, word) in buffer.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&(number as u64).to_le_bytes());
    }
    assert!(source.emit(buffer, 0).is_sent());
    for _ in 0..5_000 {
        run(&net, &mut [&mut a, &mut b], 1);
        if let Some(message) = sink.consume().unwrap() {
            let bytes = message.bytes().expect("trusted");
            assert_eq!(bytes.len(), MESSAGE_BYTES_MAX as usize);
            assert!(bytes.chunks_exact(8).enumerate().all(|(n, word)| word == (n as u64).to_le_bytes()));
            return;
        }
    }
    panic!("100 MB did not arrive");
}

#[test]
fn without_a_listening_peer_nothing_leaves_and_the_drop_is_counted() {
    let net = SimNet::new(2, SimConfig::default());
    let (mut a, mut b) = pair(&net, &[(2048, 8)]);
    let source = a.source(TOPIC, Lane::LAST, &[]);
    let _ = source.emit_copy(b"nobody hears", 0);
    run(&net, &mut [&mut a, &mut b], 4);
    assert_eq!(a.count(DatapathCounter::DroppedNoPeer), 1);
    assert_eq!(a.count(DatapathCounter::FramesSent), 0);
    // A route without a sink at the other end: the other end counts it.
    a.route(TOPIC, &[0], false);
    let _ = source.emit_copy(b"still nobody", 0);
    run(&net, &mut [&mut a, &mut b], 4);
    assert_eq!(b.turn_counters.get(TurnCounter::FramesNoListener as usize), 1);
}

/// A flow that keeps coming is not looked up again and again; what changes meanwhile counts
/// from the next frame on.
#[test]
fn what_is_known_of_a_flow_ends_with_each_change() {
    let net = SimNet::new(12, SimConfig::default());
    let (mut a, mut b) = pair(&net, &[(2048, 8)]);
    let source = a.source(TOPIC, Lane::LAST, &[]);
    let mut sink = b.sink(TOPIC).0;
    let mut sink_id = ConnId(b.next);
    a.route(TOPIC, &[0], false);
    let mut sequence = 0;
    for round in 0..4 {
        for number in 0..20_u64 {
            let _ = source.emit_copy(&pattern(number, 64), 7);
            run(&net, &mut [&mut a, &mut b], 3);
            let message = sink.consume().unwrap().expect("delivered");
            assert_eq!((message.sequence(), message.source_ns(), message.lost()), (sequence, 7, 0));
            assert_eq!(message.bytes(), Some(&pattern(number, 64)[..]));
            sequence += 1;
        }
        assert!(matches!(b.command(Command::RemoveSink(sink_id)), Command::Removed { .. }));
        let _ = source.emit_copy(b"nobody hears", 0);
        sequence += 1;
        run(&net, &mut [&mut a, &mut b], 3);
        assert_eq!(b.turn_counters.get(TurnCounter::FramesNoListener as usize), round + 1);
        // Another topic takes the place that the first one had.
        let other = b.sink(Topic { channel: ChannelId(77), ..TOPIC }).0;
        sink = b.sink(TOPIC).0;
        sink_id = ConnId(b.next);
        let _ = source.emit_copy(b"heard", 0);
        run(&net, &mut [&mut a, &mut b], 3);
        assert!(other.consume().unwrap().is_none(), "a message of another channel");
        assert_eq!(sink.consume().unwrap().expect("delivered").bytes(), Some(&b"heard"[..]));
        sequence += 1;
        assert_eq!(b.count(DatapathCounter::FramesReceived), 21 * (round + 1));
    }
}

#[test]
fn a_flood_of_overlay_frames_is_counted_and_leaves_room_for_other_peers() {
    let net = SimNet::new(2, SimConfig { frames_max: 2048, ..SimConfig::default() });
    let mut a = Host::new(&net, 1, &[2, 3], &[]);
    let frame = |host| {
        let header = DataHeader::overlay(HostId(host), Incarnation(1), 3).encode();
        [&header[..], b"abc"].concat()
    };
    for _ in 0..1_000 {
        assert_eq!(net.inject(address(2), address(1), Lane::CONTROL, &frame(2)), SendOutcome::Sent);
    }
    assert_eq!(net.inject(address(3), address(1), Lane::CONTROL, &frame(3)), SendOutcome::Sent);
    run(&net, &mut [&mut a], 100);
    let count = |counter: TurnCounter| a.turn_counters.get(counter as usize);
    assert_eq!((count(TurnCounter::OverlayFrames), count(TurnCounter::OverlayFramesDropped)), (17, 984));
    let peers: Vec<u16> = std::iter::from_fn(|| a.port.overlay_frame()).map(|frame| frame.peer.0).collect();
    assert_eq!(peers, [vec![0; 16], vec![1]].concat());
    // Room again.
    assert_eq!(net.inject(address(2), address(1), Lane::CONTROL, &frame(2)), SendOutcome::Sent);
    run(&net, &mut [&mut a], 4);
    assert!(a.port.overlay_frame().is_some());
}

#[test]
fn frames_of_another_version_are_counted_and_told_and_disturb_nobody() {
    let net = SimNet::new(2, SimConfig::default());
    let mut a = Host::new(&net, 1, &[2, 3], &[]);
    let frame = |version| {
        let mut bytes = [&DataHeader::overlay(HostId(2), Incarnation(1), 3).encode()[..], b"abc"].concat();
        bytes[1] = version;
        bytes
    };
    for version in [1, 200, 3] {
        assert_eq!(net.inject(address(2), address(1), Lane::CONTROL, &frame(version)), SendOutcome::Sent);
    }
    // A peer of our version is heard as ever.
    assert_eq!(net.inject(address(3), address(1), Lane::CONTROL, &frame(VERSION)), SendOutcome::Sent);
    run(&net, &mut [&mut a], 10);
    let count = |counter: TurnCounter| a.turn_counters.get(counter as usize);
    assert_eq!((count(TurnCounter::FramesOtherVersion), count(TurnCounter::FramesMalformed)), (3, 0));
    assert_eq!(a.port.other_version(PeerIndex(0)), Some(3), "the last one");
    assert_eq!(a.port.other_version(PeerIndex(0)), None, "it is told once");
    assert_eq!(a.port.other_version(PeerIndex(1)), None);
    assert_eq!(a.port.overlay_frame().map(|frame| frame.peer), Some(PeerIndex(1)));
    assert!(a.port.overlay_frame().is_none());
}

#[test]
fn an_isolated_stream_is_copied_between_local_applications() {
    let net = SimNet::new(3, SimConfig::default());
    let mut a = Host::new(&net, 1, &[], &[(2048, 8), (100_000, 2)]);
    let source = a.source(TOPIC, Lane::LAST, &[(2048, 4), (100_000, 2)]);
    let sinks = [a.sink(TOPIC), a.sink(TOPIC)];
    a.route(TOPIC, &[], true);
    for (sequence, len) in [10, 96, 97, 2_000, 90_000].into_iter().enumerate() {
        let mut buffer = source.get_buffer(len).unwrap();
        buffer.copy_from_slice(&pattern(sequence as u64, len));
        assert!(source.emit(buffer, 0).is_sent());
        run(&net, &mut [&mut a], 20);
        for (sink, _) in &sinks {
            let message = sink.consume().unwrap().expect("delivered");
            assert_eq!(message.bytes(), Some(&pattern(sequence as u64, len)[..]));
        }
    }
    assert_eq!(source.buffers_in_use(), 0);
}

#[test]
fn a_sink_that_never_consumes_costs_only_itself() {
    let net = SimNet::new(4, SimConfig::default());
    let mut a = Host::new(&net, 1, &[], &[(2048, 601)]);
    let source = a.source(TOPIC, Lane::LAST, &[(2048, 8)]);
    let (slow, _) = a.sink(TOPIC);
    let (quick, _) = a.sink(TOPIC);
    a.route(TOPIC, &[], true);
    let total = 2_000_u64;
    for sequence in 0..total {
        let mut buffer = source.get_buffer(200).unwrap();
        buffer.copy_from_slice(&pattern(sequence, 200));
        assert!(source.emit(buffer, 0).is_sent());
        run(&net, &mut [&mut a], 1);
        let message = quick.consume().unwrap().expect("the quick one gets every message");
        assert_eq!((message.sequence(), message.lost()), (sequence, 0));
    }
    assert_eq!(a.count(DatapathCounter::DroppedRingFull), total - u64::from(DEPTH));
    let (mut got, mut next) = (0_u64, 0);
    while let Some(message) = slow.consume().unwrap() {
        assert_eq!(message.sequence(), next, "what it did get is the oldest, in order");
        (got, next) = (got + 1, next + 1);
    }
    assert_eq!(got, u64::from(DEPTH));
    // What comes next says how much was lost.
    let mut buffer = source.get_buffer(200).unwrap();
    buffer.fill(1);
    assert!(source.emit(buffer, 0).is_sent());
    run(&net, &mut [&mut a], 1);
    let message = slow.consume().unwrap().expect("room again");
    assert_eq!(u64::from(message.lost()), total - u64::from(DEPTH));
}

#[test]
fn a_sink_that_never_releases_leaves_buffers_to_the_others() {
    let net = SimNet::new(10, SimConfig::default());
    let mut a = Host::new(&net, 1, &[], &[(2048, 9)]);
    let source = a.source(TOPIC, Lane::LAST, &[(2048, 8)]);
    let (hoarder, _) = a.sink(TOPIC);
    let (quick, _) = a.sink(TOPIC);
    a.route(TOPIC, &[], true);
    let mut hoard = Vec::new();
    for sequence in 0..100_u64 {
        let mut buffer = source.get_buffer(200).unwrap();
        buffer.copy_from_slice(&pattern(sequence, 200));
        assert!(source.emit(buffer, 0).is_sent());
        run(&net, &mut [&mut a], 1);
        hoard.extend(hoarder.consume().unwrap());
        let message = quick.consume().unwrap().expect("the quick one gets every message");
        assert_eq!((message.sequence(), message.lost()), (sequence, 0));
    }
    assert_eq!(hoard.len(), 4, "its share of nine buffers");
    for (sequence, message) in hoard.iter().enumerate() {
        assert_eq!(message.bytes(), Some(&pattern(sequence as u64, 200)[..]), "what it holds stays as it was");
    }
}

#[test]
fn real_time_goes_first_and_waits_for_at_most_one_chunk() {
    let net = SimNet::new(5, SimConfig { frames_max: 8192, ..SimConfig::default() });
    let (mut a, mut b) = pair(&net, &[(2048, 64), (1_000_000, 4)]);
    let bulk = a.source(TOPIC, Lane::LAST, &[(1_000_000, 4)]);
    let urgent_topic = Topic { channel: ChannelId(2), ..TOPIC };
    let urgent = a.source(urgent_topic, Lane::new(0).unwrap(), &[]);
    let (bulk_sink, _) = b.sink(TOPIC);
    let (urgent_sink, _) = b.sink(urgent_topic);
    a.route(TOPIC, &[0], false);
    a.route(urgent_topic, &[0], false);
    for _ in 0..4 {
        assert!(bulk.emit(bulk.get_buffer(1_000_000).unwrap(), 0).is_sent());
    }
    // 4 MB take about 250 chunks; each turn has 8 grants. The urgent message is emitted
    // between turns and must leave in the very next one, before any further bulk.
    for _ in 0..5 {
        let before = a.count(DatapathCounter::FramesSent);
        assert!(urgent.emit_copy(b"now", 0).unwrap().is_sent());
        a.engine.turn();
        assert!(a.count(DatapathCounter::FramesSent) > before);
        run(&net, &mut [&mut b], 4);
        assert!(urgent_sink.consume().unwrap().is_some(), "left in the next turn, ahead of the backlog");
        assert!(bulk_sink.consume().unwrap().is_none(), "the backlog is still on its way");
    }
}

/// A source with a backlog changes lanes between its messages and in the middle of one:
/// from then on it goes before, or after, another; nothing is lost, doubled or reordered, and
/// what would change its sockets changes nothing.
#[test]
fn a_source_changes_lanes_while_it_sends() {
    let net = SimNet::new(6, SimConfig { frames_max: 8192, ..SimConfig::default() });
    let (mut a, mut b) = pair(&net, &[(2048, 64), (200_000, 16)]);
    let (low, high, real_time) = (Lane::LAST, Lane::new(4).unwrap(), Lane::new(0).unwrap());
    let moving = a.source(TOPIC, low, &[(200_000, 8)]);
    let conn = ConnId(a.next);
    let other_topic = Topic { channel: ChannelId(2), ..TOPIC };
    let other = a.source(other_topic, Lane::new(5).unwrap(), &[(200_000, 8)]);
    let (moving_sink, other_sink) = (b.sink(TOPIC).0, b.sink(other_topic).0);
    a.route(TOPIC, &[0], false);
    a.route(other_topic, &[0], false);
    let (mut emitted, mut received) = ([0_u64; 2], [0_u64; 2]);
    for round in 0..60 {
        for (which, source) in [&moving, &other].into_iter().enumerate() {
            while let Ok(mut buffer) = source.get_buffer(150_000) {
                buffer.copy_from_slice(&pattern(emitted[which], 150_000));
                if !source.emit(buffer, 0).is_sent() {
                    break;
                }
                emitted[which] += 1;
            }
        }
        let lane = [high, low, real_time][round % 3];
        assert!(matches!(a.command(Command::SetLane { conn, lane }), Command::Spent));
        let before = received;
        for _ in 0..60 {
            run(&net, &mut [&mut a, &mut b], 1);
            for (which, sink) in [&moving_sink, &other_sink].into_iter().enumerate() {
                while let Some(message) = sink.consume().unwrap() {
                    assert_eq!((message.sequence(), message.lost()), (received[which], 0));
                    assert_eq!(message.bytes(), Some(&pattern(received[which], 150_000)[..]));
                    received[which] += 1;
                }
            }
        }
        let [moved, others] = [received[0] - before[0], received[1] - before[1]];
        if lane == high {
            assert!(moved > others, "round {round}: it goes before the other: {moved}, {others}");
        } else {
            assert!(others > moved, "round {round}: it goes after the other: {moved}, {others}");
        }
    }
    assert!(received[0] > 10 && received[1] > 10, "{received:?}");
    assert!(matches!(a.command(Command::SetLane { conn: ConnId(999), lane: high }), Command::Spent), "gone meanwhile");
}

#[test]
fn a_turn_sends_one_chunk_of_best_effort_whoever_has_it() {
    let net = SimNet::new(5, SimConfig { frames_max: 8192, ..SimConfig::default() });
    let (mut a, _b) = pair(&net, &[(2048, 64), (1_000_000, 4)]);
    let topics: Vec<Topic> = (1..=8).map(|channel| Topic { channel: ChannelId(channel), ..TOPIC }).collect();
    let sources: Vec<_> = topics.iter().map(|topic| a.source(*topic, Lane::LAST, &[(1_000_000, 2)])).collect();
    for (topic, source) in topics.iter().zip(&sources) {
        a.route(*topic, &[0], false);
        for _ in 0..2 {
            assert!(source.emit(source.get_buffer(1_000_000).unwrap(), 0).is_sent());
        }
    }
    let config = EngineConfig::new(HostId(1), Incarnation(1));
    let most = u64::from(config.chunk_bytes.get()) + 2048;
    for _ in 0..100 {
        let before = a.count(DatapathCounter::BytesSent);
        a.engine.turn();
        let sent = a.count(DatapathCounter::BytesSent) - before;
        assert!(sent > 0 && sent <= most, "{sent} bytes in one turn, between two looks at the real-time lanes");
    }
}

/// 200 sources of one channel, the first one real-time, and a sink for all of them.
fn crowd(a: &mut Host) -> (Vec<(ConnId, SourcePort)>, SinkPort) {
    let (sink, _) = a.sink(TOPIC);
    a.route(TOPIC, &[], true);
    let lane = |number| if number == 0 { Lane::new(0).unwrap() } else { Lane::LAST };
    let make = |number| {
        let source = a.source(TOPIC, lane(number), &[]);
        (ConnId(a.next), source)
    };
    ((0..200).map(make).collect(), sink)
}

#[test]
fn quiet_sources_cost_no_look_a_turn_and_are_found() {
    let net = SimNet::new(5, SimConfig::default());
    let mut a = Host::new(&net, 1, &[], &[]);
    let (sources, sink) = crowd(&mut a);
    let turns_until_found = |a: &mut Host, busy: Option<&SourcePort>, source: &SourcePort| {
        assert!(source.emit_copy(b"found", 0).unwrap().is_sent());
        for turn in 1..=16 * 200 {
            if let Some(busy) = busy {
                assert!(busy.emit_copy(b"busy", 0).unwrap().is_sent());
            }
            a.engine.turn();
            while let Some(message) = sink.consume().unwrap() {
                if message.bytes() == Some(b"found") {
                    return turn;
                }
            }
        }
        panic!("not found");
    };
    for _ in 0..3_000 {
        a.engine.turn();
    }
    for (at, (_, source)) in sources.iter().enumerate() {
        let turns = turns_until_found(&mut a, None, source);
        assert!(turns <= 256 + 200 / 64 + 2, "source {at}: {turns} turns of an idle datapath");
        assert!(at > 0 || turns == 1, "real time is found at once");
    }
    for _ in 0..3_000 {
        a.engine.turn();
    }
    let busy = &sources[1].1;
    turns_until_found(&mut a, None, busy);
    let mut most = 0;
    for (_, source) in &sources[100..110] {
        most = most.max(turns_until_found(&mut a, Some(busy), source));
    }
    assert!(most > 1, "they were quiet");
    assert_eq!(turns_until_found(&mut a, Some(busy), &sources[0].1), 1, "real time is never quiet");
}

/// Turns as a host that sleeps does, until it would: how many there were.
fn turn_until_asleep(host: &mut Host) -> usize {
    for turns in 1..=10_000 {
        if !host.engine.turn() && !host.engine.has_work() {
            return turns;
        }
    }
    panic!("it never sleeps")
}

#[test]
fn a_quiet_source_that_rings_a_sleeping_datapath_is_served_by_its_next_turns() {
    let net = SimNet::new(5, SimConfig::default());
    let mut a = Host::new(&net, 1, &[], &[]);
    let (sources, sink) = crowd(&mut a);
    let busy = &sources[1].1;
    let mut unseen = 0;
    for round in 0..20 {
        // While one is busy all others become quiet, and no turn is free to look at them.
        for _ in 0..1_200 {
            assert!(busy.emit_copy(b"busy", 0).unwrap().is_sent());
            a.engine.turn();
            while sink.consume().unwrap().is_some() {}
        }
        turn_until_asleep(&mut a);
        let ringing = 1 + round * 7 % 150;
        for (_, source) in &sources[ringing..ringing + 1 + round] {
            assert!(source.emit_copy(b"found", 0).unwrap().is_sent());
        }
        // Of those that emit, one of the few that are always looked at may be one.
        a.engine.note_ring(SessionId(9));
        unseen += usize::from(!a.engine.has_work());
        a.engine.note_ring(SessionId(0));
        assert!(a.engine.has_work());
        // 64 looks in each turn that finds nothing before them.
        let turns = turn_until_asleep(&mut a);
        assert!(turns <= 200 / 64 + 1 + round + 2, "{turns} turns for {} messages", 1 + round);
        assert_eq!(std::iter::from_fn(|| sink.consume().unwrap()).count(), 1 + round);
    }
    assert!(unseen > 0, "it looks at all before each sleep, or at those of another session");
}

#[test]
fn where_the_datapath_sleeps_a_source_that_cannot_ring_is_never_quiet() {
    let net = SimNet::new(5, SimConfig::default());
    let mut a = Host::new(&net, 1, &[], &[]);
    a.engine.watch_links();
    let bell = Arc::new(Event::new().unwrap().as_fd().try_clone_to_owned().unwrap());
    let bell = Doorbell { session: SessionId(1), fd: bell, tally: Arc::default() };
    assert!(matches!(a.command(Command::AddDoorbell(bell)), Command::Spent));
    let (sources, sink) = crowd(&mut a);
    a.session = SessionId(1);
    let can_ring = a.source(TOPIC, Lane::LAST, &[]);
    for _ in 0..1_200 {
        a.engine.turn();
    }
    turn_until_asleep(&mut a);
    for (at, (_, source)) in sources.iter().enumerate() {
        assert!(source.emit_copy(b"found", 0).unwrap().is_sent());
        assert!(a.engine.has_work(), "source {at}");
        a.engine.turn();
        assert!(sink.consume().unwrap().is_some());
    }
    assert!(can_ring.emit_copy(b"quiet", 0).unwrap().is_sent());
    assert!(!a.engine.has_work());
}

/// The doorbell of its session may go with it, and what it rang is forgotten then.
#[test]
fn the_last_message_of_a_quiet_source_that_leaves_is_sent_before_the_datapath_sleeps() {
    let net = SimNet::new(5, SimConfig::default());
    let mut a = Host::new(&net, 1, &[], &[]);
    let (sources, sink) = crowd(&mut a);
    let busy = &sources[1].1;
    for _ in 0..1_200 {
        assert!(busy.emit_copy(b"busy", 0).unwrap().is_sent());
        a.engine.turn();
        while sink.consume().unwrap().is_some() {}
    }
    turn_until_asleep(&mut a);
    for (conn, source) in &sources[20..40] {
        assert!(source.emit_copy(b"last", 0).unwrap().is_sent());
        a.port.send(Command::RemoveSource(*conn)).unwrap();
    }
    turn_until_asleep(&mut a);
    assert_eq!(std::iter::from_fn(|| sink.consume().unwrap()).count(), 20);
    let answers = std::iter::from_fn(|| a.port.collect());
    assert_eq!(answers.filter(|command| matches!(**command, Command::Removed { dead: Some(_), .. })).count(), 20);
}

#[test]
fn of_an_engine_that_callers_turn_no_source_becomes_quiet() {
    let net = SimNet::new(5, SimConfig::default());
    let mut a = Host::new(&net, 1, &[], &[]);
    a.engine.is_turned_by_callers();
    let (sources, sink) = crowd(&mut a);
    let busy = &sources[1].1;
    for (_, source) in &sources[2..10] {
        for _ in 0..1_200 {
            assert!(busy.emit_copy(b"busy", 0).unwrap().is_sent());
            a.engine.turn();
            while sink.consume().unwrap().is_some() {}
        }
        assert!(source.emit_copy(b"at once", 0).unwrap().is_sent());
        a.engine.turn();
        let message = sink.consume().unwrap().expect("it leaves in the turn of its emit");
        assert_eq!(message.bytes(), Some(&b"at once"[..]));
    }
}

#[test]
fn quiet_and_watched_sources_may_leave_in_any_order() {
    let net = SimNet::new(5, SimConfig::default());
    let mut a = Host::new(&net, 1, &[], &[]);
    let (mut sources, sink) = crowd(&mut a);
    let mut left = 0_u32;
    for round in 0..150_usize {
        for _ in 0..if round % 3 == 0 { 1_500 } else { 20 } {
            a.engine.turn();
        }
        let (conn, _) = sources.swap_remove(round * 7 % sources.len());
        assert!(matches!(a.command(Command::RemoveSource(conn)), Command::Removed { dead: Some(_), .. }));
        let (_, one) = &sources[round * 13 % sources.len()];
        assert!(one.emit_copy(b"x", 0).unwrap().is_sent());
        left += 1;
    }
    for (_, source) in &sources {
        assert!(source.emit_copy(b"last", 0).unwrap().is_sent());
        left += 1;
    }
    for _ in 0..16 * 200 {
        a.engine.turn();
        while sink.consume().unwrap().is_some() {
            left -= 1;
        }
    }
    // What a source emitted just before it left is sent, too.
    assert_eq!(left, 0);
}

#[test]
fn under_faults_nothing_is_duplicated_reordered_or_torn() {
    for seed in 0..20 {
        let net = SimNet::new(seed, SimConfig { frames_max: 8192, ..SimConfig::default() });
        let (mut a, mut b) = pair(&net, &[(2048, 64), (20_000, 32)]);
        net.set_faults(
            address(1),
            address(2),
            Faults {
                delay: Nanos::from_micros(50),
                jitter: Nanos::from_micros(30),
                loss: Chance::per_million(20_000),
                duplication: Chance::per_million(50_000),
                reordering: Chance::per_million(50_000),
                reorder_by: Nanos::from_micros(200),
                ..Faults::NONE
            },
        );
        let source = a.source(TOPIC, Lane::LAST, &[(2048, 64), (20_000, 32)]);
        let (sink, _) = b.sink(TOPIC);
        a.route(TOPIC, &[0], false);
        let total = 1_500_u64;
        let (mut received, mut lost, mut next) = (0, 0, 0);
        for sequence in 0..total + 400 {
            if sequence < total {
                let len = [8, 700, 5_000, 20_000][sequence as usize % 4];
                let mut buffer = source.get_buffer(len).expect("the engine keeps up");
                buffer.copy_from_slice(&pattern(sequence, len));
                assert!(source.emit(buffer, 0).is_sent());
            }
            run(&net, &mut [&mut a, &mut b], 4);
            while let Some(message) = sink.consume().unwrap() {
                assert!(message.sequence() >= next, "seed {seed}: reordered or duplicated");
                assert_eq!(
                    u64::from(message.lost()),
                    message.sequence() - next,
                    "seed {seed}: losses are told exactly"
                );
                let wanted = pattern(message.sequence(), message.len());
                assert_eq!(message.bytes(), Some(&wanted[..]), "seed {seed}: torn");
                lost += u64::from(message.lost());
                next = message.sequence() + 1;
                received += 1;
            }
        }
        assert!(received > total / 4, "seed {seed}: {received} of {total} arrived");
        assert_eq!(received + lost, next);
        assert_eq!(b.count(DatapathCounter::Lost), lost, "seed {seed}");
        // Nothing that was given up or delivered still holds a buffer.
        pass(&net, &mut b, Nanos::from_secs(1));
        for _ in 0..20_000 {
            b.engine.turn();
        }
        b.engine.housekeeping();
        assert!(!b.engine.is_collecting(), "seed {seed}: what stands still is given up");
        assert_eq!(source.buffers_in_use(), 0, "seed {seed}: the sender has all its buffers");
    }
}

#[test]
fn a_client_that_lies_is_put_out_and_others_lose_nothing() {
    let net = SimNet::new(7, SimConfig::default());
    let mut a = Host::new(&net, 1, &[], &[(2048, 64)]);
    let source = a.source(TOPIC, Lane::LAST, &[(2048, 8)]);
    let (_liar, returns) = a.sink(TOPIC);
    let liar = ConnId(a.next);
    let (honest, _) = a.sink(TOPIC);
    a.route(TOPIC, &[], true);
    // The liar returns, as its first, a buffer that it never had.
    let block = CounterBlock::new(Arc::clone(&returns), 0).unwrap();
    block.add(16, 1 << 32 | 40);
    for sequence in 0..500_u64 {
        let mut buffer = source.get_buffer(300).unwrap();
        buffer.copy_from_slice(&pattern(sequence, 300));
        assert!(source.emit(buffer, 0).is_sent());
        run(&net, &mut [&mut a], 1);
        let message = honest.consume().unwrap().expect("the honest one loses nothing");
        assert_eq!((message.sequence(), message.lost()), (sequence, 0));
    }
    assert_eq!(a.count(DatapathCounter::Violations), 1);
    let notice = a.port.notice().expect("the control plane is told");
    let Notice::Violation { conn, .. } = notice;
    assert_eq!(conn, liar);
    assert!(matches!(a.command(Command::RemoveSink(liar)), Command::Removed { dead: Some(_), .. }));
}

#[test]
fn a_source_that_writes_garbage_is_put_out() {
    let net = SimNet::new(8, SimConfig::default());
    let mut a = Host::new(&net, 1, &[], &[(2048, 64)]);
    let (_liar, cells) = a.source_with_rings(TOPIC, Lane::LAST, &[(2048, 8)]);
    let honest = a.source(TOPIC, Lane::LAST, &[]);
    let (sink, _) = a.sink(TOPIC);
    a.route(TOPIC, &[], true);
    // Message cell 0 is the second cell: stamp 1, then a shape of no known kind.
    let block = CounterBlock::new(cells, 0).unwrap();
    block.add(16 + 1, u64::MAX);
    block.add(16, 1);
    run(&net, &mut [&mut a], 3);
    assert_eq!(a.count(DatapathCounter::Violations), 1, "once, not every turn");
    assert!(honest.emit_copy(b"unharmed", 0).unwrap().is_sent());
    run(&net, &mut [&mut a], 2);
    assert_eq!(sink.consume().unwrap().expect("delivered").bytes(), Some(&b"unharmed"[..]));
}

/// Turns the engine until a source's removal is answered; for at most a second.
fn remove(net: &SimNet, host: &mut Host, id: ConnId) -> Nanos {
    let started = net.clock().now();
    host.port.send(Command::RemoveSource(id)).unwrap();
    for _ in 0..1_000 {
        host.engine.turn();
        if let Some(command) = host.port.collect() {
            assert!(matches!(*command, Command::Removed { dead: Some(_), .. }));
            return net.clock().now().since(started);
        }
        net.advance(Nanos::from_millis(1));
    }
    panic!("the source is never let go");
}

#[test]
fn removal_in_the_middle_of_a_message_leaks_nothing() {
    let net = SimNet::new(9, SimConfig { frames_max: 64, ..SimConfig::default() });
    let (mut a, mut b) = pair(&net, &[(1_000_000, 2)]);
    let source = a.source(TOPIC, Lane::LAST, &[(1_000_000, 1)]);
    let id = ConnId(a.next);
    let (sink, _) = b.sink(TOPIC);
    a.route(TOPIC, &[0], false);
    assert!(source.emit(source.get_buffer(1_000_000).unwrap(), 0).is_sent());
    // Nobody takes frames out of the network, so the link has no room for the rest.
    assert_eq!(remove(&net, &mut a, id), Nanos::from_millis(500));
    assert_eq!(a.count(DatapathCounter::DroppedSourceClosed), 1);
    run(&net, &mut [&mut a, &mut b], 20);
    assert_eq!(source.buffers_in_use(), 0, "the buffer came back with the removal");
    pass(&net, &mut b, Nanos::from_secs(1));
    run(&net, &mut [&mut a, &mut b], 3);
    assert_eq!(b.count(DatapathCounter::DroppedIncomplete), 1);
    assert!(sink.consume().unwrap().is_none());
}

#[test]
fn what_an_unreliable_source_left_behind_is_sent_while_the_link_takes_it() {
    let net = SimNet::new(12, SimConfig { frames_max: 16, ..SimConfig::default() });
    let (mut a, mut b) = pair(&net, &[(20_000, 300)]);
    let source = a.source(TOPIC, Lane::LAST, &[(20_000, 200)]);
    let id = ConnId(a.next);
    let (sink, _) = b.sink(TOPIC);
    a.route(TOPIC, &[0], false);
    for sequence in 0..200 {
        let mut buffer = source.get_buffer(20_000).unwrap();
        buffer.copy_from_slice(&pattern(sequence, 20_000));
        assert!(source.emit(buffer, 0).is_sent());
    }
    drop(source);
    a.port.send(Command::RemoveSource(id)).unwrap();
    let mut received = 0;
    for _ in 0..10_000 {
        run(&net, &mut [&mut a, &mut b], 1);
        while let Some(message) = sink.consume().unwrap() {
            assert_eq!((message.sequence(), message.lost()), (received, 0));
            assert_eq!(message.bytes(), Some(&pattern(received, 20_000)[..]));
            received += 1;
        }
        if let Some(command) = a.port.collect() {
            assert!(matches!(*command, Command::Removed { dead: Some(_), .. }));
            assert!(received >= 190, "let go when all was sent, and not before: {received}");
            break;
        }
    }
    run(&net, &mut [&mut a, &mut b], 20);
    while sink.consume().unwrap().is_some() {
        received += 1;
    }
    assert_eq!(received, 200);
    assert_eq!(a.count(DatapathCounter::DroppedSourceClosed), 0);
}

#[test]
fn what_the_link_does_not_take_in_time_is_counted_to_the_last_message() {
    let net = SimNet::new(13, SimConfig { frames_max: 8, ..SimConfig::default() });
    let (mut a, mut b) = pair(&net, &[(2048, 64)]);
    let source = a.source(TOPIC, Lane::LAST, &[]);
    let id = ConnId(a.next);
    let (sink, _) = b.sink(TOPIC);
    a.route(TOPIC, &[0], false);
    for sequence in 0..u64::from(DEPTH) {
        assert!(source.emit_copy(&sequence.to_le_bytes(), 0).unwrap().is_sent());
    }
    drop(source);
    a.port.send(Command::RemoveSource(id)).unwrap();
    a.engine.turn();
    // Asked twice, it is let go once.
    assert!(matches!(a.command(Command::RemoveSource(id)), Command::Removed { dead: None, .. }));
    pass(&net, &mut a, Nanos::from_millis(499));
    assert!(a.port.collect().is_none(), "it still has time");
    pass(&net, &mut a, Nanos::from_millis(1));
    assert!(matches!(*a.port.collect().unwrap(), Command::Removed { dead: Some(_), .. }));
    run(&net, &mut [&mut a, &mut b], 20);
    let mut received = 0;
    while sink.consume().unwrap().is_some() {
        received += 1;
    }
    assert!(received >= 8 && received < u64::from(DEPTH));
    assert_eq!(received + a.count(DatapathCounter::DroppedSourceClosed), u64::from(DEPTH));
}

/// Chunks of so many bytes that one turn may copy, at most.
const TURN_BYTES: usize = GRANTS_PER_TURN * 16 * 1024;

#[test]
fn a_real_time_message_waits_for_no_more_than_a_chunk_of_a_large_isolated_one() {
    const LARGE: usize = 50_000_000;
    let net = SimNet::new(14, SimConfig::default());
    let mut a = Host::new(&net, 1, &[], &[(2048, 8), (LARGE as u32, 1)]);
    let urgent_topic = Topic { channel: ChannelId(2), ..TOPIC };
    let bulk = a.source(TOPIC, Lane::LAST, &[(LARGE as u32, 1)]);
    let urgent = a.source(urgent_topic, Lane::new(0).unwrap(), &[]);
    let (bulk_sink, _) = a.sink(TOPIC);
    let (urgent_sink, _) = a.sink(urgent_topic);
    a.route(TOPIC, &[], true);
    a.route(urgent_topic, &[], true);
    let mut buffer = bulk.get_buffer(LARGE).unwrap();
    buffer.copy_from_slice(&pattern(0, LARGE));
    assert!(bulk.emit(buffer, 7).is_sent());
    let mut turns = 0;
    let arrived = loop {
        assert!(urgent.emit_copy(b"now", 0).unwrap().is_sent());
        a.engine.turn();
        turns += 1;
        assert!(urgent_sink.consume().unwrap().is_some(), "in the very next turn");
        if let Some(message) = bulk_sink.consume().unwrap() {
            break message;
        }
        assert!(turns < LARGE / 16_384 + 100, "a turn copies a chunk at least");
    };
    assert!(turns >= LARGE / TURN_BYTES, "{turns} turns: one copied more than its grants");
    assert_eq!((arrived.source_ns(), arrived.lost()), (7, 0));
    assert!(arrived.bytes() == Some(&pattern(0, LARGE)[..]), "whole");
    drop(arrived);
    run(&net, &mut [&mut a], 2);
    assert_eq!(bulk.buffers_in_use(), 0);
}

#[test]
fn a_large_isolated_message_reaches_sinks_and_peers_and_small_ones_keep_their_place() {
    let net = SimNet::new(15, SimConfig { frames_max: 8192, ..SimConfig::default() });
    let receive = [(2048, 64), (500_000, 4)];
    let (mut a, mut b) = pair(&net, &receive);
    let source = a.source(TOPIC, Lane::LAST, &receive);
    let (near, _) = a.sink(TOPIC);
    let (far, _) = b.sink(TOPIC);
    a.route(TOPIC, &[0], true);
    let sizes = [10, 500_000, 97, 4_097, 300_000, 0];
    for (sequence, len) in sizes.into_iter().enumerate() {
        let mut buffer = source.get_buffer(len).unwrap();
        buffer.copy_from_slice(&pattern(sequence as u64, len));
        assert!(source.emit(buffer, 0).is_sent());
    }
    let mut counts = [0, 0];
    for _ in 0..500 {
        run(&net, &mut [&mut a, &mut b], 1);
        for (sink, count) in [&near, &far].into_iter().zip(&mut counts) {
            while let Some(message) = sink.consume().unwrap() {
                assert_eq!((message.sequence(), message.lost()), (*count, 0));
                let expected = pattern(*count, sizes[*count as usize]);
                assert!(message.bytes() == Some(&expected[..]), "message {count}");
                *count += 1;
            }
        }
    }
    assert_eq!(counts, [sizes.len() as u64; 2]);
    run(&net, &mut [&mut a, &mut b], 2);
    assert_eq!(source.buffers_in_use(), 0);
}

#[test]
fn ends_may_come_and_go_while_a_large_message_is_copied() {
    const LARGE: usize = 1_000_000;
    let net = SimNet::new(16, SimConfig::default());
    let mut a = Host::new(&net, 1, &[], &[(LARGE as u32, 1)]);
    a.route(TOPIC, &[], true);
    // The one buffer for it must be free again every time.
    for round in 0..4 {
        let source = a.source(TOPIC, Lane::LAST, &[(LARGE as u32, 2)]);
        let source_id = ConnId(a.next);
        let (sink, _) = a.sink(TOPIC);
        let sink_id = ConnId(a.next);
        let mut buffer = source.get_buffer(LARGE).unwrap();
        buffer.copy_from_slice(&pattern(round, LARGE));
        assert!(source.emit(buffer, 0).is_sent());
        a.engine.turn();
        assert!(sink.consume().unwrap().is_none(), "it is under way");
        let mut late = None;
        match round {
            // The source's time is over.
            0 => {
                a.port.send(Command::RemoveSource(source_id)).unwrap();
                a.engine.turn();
                pass(&net, &mut a, Nanos::from_secs(1));
                assert!(matches!(*a.port.collect().unwrap(), Command::Removed { dead: Some(_), .. }));
                assert_eq!(a.count(DatapathCounter::DroppedSourceClosed), 1);
            }
            // The only sink goes.
            1 => assert!(matches!(a.command(Command::RemoveSink(sink_id)), Command::Removed { .. })),
            // Another one comes, and gets it, too.
            2 => late = Some(a.sink(TOPIC).0),
            _ => {}
        }
        run(&net, &mut [&mut a], 100);
        let got = sink.consume().unwrap().map(|message| message.bytes() == Some(&pattern(round, LARGE)[..]));
        assert_eq!(got, (round >= 2).then_some(true), "round {round}");
        if let Some(late) = &late {
            assert!(late.consume().unwrap().is_some());
            assert!(matches!(a.command(Command::RemoveSink(ConnId(a.next))), Command::Removed { .. }));
        }
        run(&net, &mut [&mut a], 2);
        assert_eq!(source.buffers_in_use(), 0);
        if round > 0 {
            let _ = remove(&net, &mut a, source_id);
        }
        if round != 1 {
            assert!(matches!(a.command(Command::RemoveSink(sink_id)), Command::Removed { .. }));
        }
    }
    assert_eq!(a.count(DatapathCounter::DroppedNoBuffer), 0);
}

#[test]
fn a_large_isolated_message_without_a_buffer_is_counted_once_and_told() {
    let net = SimNet::new(17, SimConfig::default());
    let mut a = Host::new(&net, 1, &[], &[(2048, 8), (100_000, 1)]);
    let source = a.source(TOPIC, Lane::LAST, &[(2048, 4), (100_000, 3)]);
    let (sink, _) = a.sink(TOPIC);
    a.route(TOPIC, &[], true);
    for _ in 0..3 {
        assert!(source.emit(source.get_buffer(100_000).unwrap(), 0).is_sent());
        run(&net, &mut [&mut a], 20);
    }
    let first = sink.consume().unwrap().expect("the one buffer was free");
    assert_eq!(first.lost(), 0);
    assert_eq!(a.count(DatapathCounter::DroppedNoBuffer), 2);
    assert!(source.emit_copy(b"small", 0).unwrap().is_sent());
    run(&net, &mut [&mut a], 2);
    assert_eq!(sink.consume().unwrap().expect("it needs no buffer").lost(), 2);
    drop(first);
    assert!(source.emit(source.get_buffer(100_000).unwrap(), 0).is_sent());
    run(&net, &mut [&mut a], 20);
    assert!(sink.consume().unwrap().is_some());
    assert_eq!(source.buffers_in_use(), 0);
}
