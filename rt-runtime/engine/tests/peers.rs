//! Peers that come and go on a running engine, over a simulated network, in virtual time.

mod world;

use insane_core::counters::DatapathCounter;
use insane_core::{ChannelId, StreamKey};
use insane_core::{HostId, Incarnation, Lane, Nanos, PeerIndex};
use insane_engine::{Command, PeerSwap, Topic};
use insane_link::{LinkSetup, PeerSetup, SendOutcome, SwapRefused};
use insane_shm::port::{SinkPort, SourcePort};
use insane_sim::{SimConfig, SimNet, SimPeer};
use world::{Host, TOPIC, address, data_header, pattern, run};

const CLASSES: [(u32, u32); 2] = [(2048, 64), (20_000, 16)];
const OTHER: Topic = Topic { key: StreamKey(8), channel: ChannelId(1) };

/// A change of peer `peer` at the only link of host `own`.
fn swap(net: &SimNet, own: u8, peer: u16, to: Option<u8>) -> PeerSwap {
    let peer = PeerIndex(peer);
    let new = to.map(|to| net.setup(address(own)).peers().prepare(peer, address(to)).unwrap());
    PeerSwap { peer, link: 0, place: Box::new(new), reach: to.map(|_| 0) }
}

fn must_swap(host: &mut Host, swap: PeerSwap) -> PeerSwap {
    match host.command(Command::SwapPeer(swap)) {
        Command::PeerSwapped(swap, Ok(())) => swap,
        other => panic!("{other:?}"),
    }
}

fn remove(host: &mut Host, peer: u16) {
    let peer = PeerIndex(peer);
    assert!(matches!(host.command(Command::RemovePeer(peer)), Command::RemovePeer(back) if back == peer));
}

/// Whether a swap holds a peer.
fn holds(swap: &PeerSwap) -> bool {
    swap.place.downcast_ref::<Option<SimPeer>>().expect("a simulated peer").is_some()
}

fn emit(source: &SourcePort, sequence: u64, len: usize) {
    let mut buffer = source.get_buffer(len).expect("a buffer is free");
    buffer.copy_from_slice(&pattern(sequence, len));
    assert!(source.emit(buffer, 0).is_sent());
}

/// Takes all there is, which has to be without a gap; returns the number of the next.
fn read(sink: &SinkPort, mut next: u64) -> u64 {
    while let Some(message) = sink.consume().expect("nobody lies") {
        assert_eq!((message.sequence(), message.lost()), (next, 0), "exactly once, in order, none lost");
        assert_eq!(message.bytes(), Some(&pattern(next, message.len())[..]), "torn");
        next += 1;
    }
    next
}

/// One host sends on a reliable and on an unreliable stream to another, messages of one
/// and of several frames, while a third comes and goes, by one number and by the next,
/// before the other in the order of the route and behind it.
#[test]
fn while_a_peer_comes_and_goes_others_lose_nothing() {
    for (own_place, seed) in [(0_u16, 1), (9, 2)] {
        let net = SimNet::new(seed, SimConfig { frames_max: 8192, ..SimConfig::default() });
        let mut a = Host::new(&net, 1, &[], &CLASSES);
        let mut b = Host::new(&net, 2, &[1], &CLASSES);
        let mut c = Host::new(&net, 3, &[1], &CLASSES);
        must_swap(&mut a, swap(&net, 1, own_place, Some(2)));
        let reliable = a.reliable_source(TOPIC, &CLASSES);
        let unreliable = a.source(OTHER, Lane::LAST, &CLASSES);
        let (at_b, _) = b.sink(TOPIC);
        let (at_b_too, _) = b.sink(OTHER);
        let (at_c, _) = c.sink(OTHER);
        a.route(TOPIC, &[own_place], false);
        a.route(OTHER, &[own_place], false);
        let (mut next, mut next_too, mut got_at_c) = (0, 0, 0);
        for round in 0..400_u64 {
            for source in [&reliable, &unreliable] {
                let sequence = source.next_sequence();
                let len = [8, 700, 20_000, 5_000][sequence as usize % 4];
                if let Ok(mut buffer) = source.get_buffer(len) {
                    buffer.copy_from_slice(&pattern(sequence, len));
                    let _ = source.emit(buffer, 0);
                }
            }
            // Not one turn for each change: what is under way is cut in its middle.
            let place = 3 + (round / 20 % 4) as u16;
            let with_it = if place < own_place { vec![place, own_place] } else { vec![own_place, place] };
            match round % 20 {
                3 => {
                    must_swap(&mut a, swap(&net, 1, place, Some(3)));
                    a.route(TOPIC, &with_it, false);
                    a.route(OTHER, &with_it, false);
                }
                13 => {
                    assert!(holds(&must_swap(&mut a, swap(&net, 1, place, None))));
                    remove(&mut a, place);
                    a.route(TOPIC, &[own_place], false);
                    a.route(OTHER, &[own_place], false);
                    remove(&mut a, place);
                }
                _ => {}
            }
            run(&net, &mut [&mut a, &mut b, &mut c], 6);
            (next, next_too) = (read(&at_b, next), read(&at_b_too, next_too));
            while at_c.consume().expect("nobody lies").is_some() {
                got_at_c += 1;
            }
        }
        for _ in 0..200 {
            run(&net, &mut [&mut a, &mut b, &mut c], 40);
            net.advance(Nanos::from_millis(1));
            (next, next_too) = (read(&at_b, next), read(&at_b_too, next_too));
        }
        assert_eq!((next, next_too), (reliable.next_sequence(), unreliable.next_sequence()), "none is missing");
        assert!(next_too >= 300 && got_at_c > 50, "{next_too} {got_at_c}");
        assert_eq!(b.count(DatapathCounter::Lost), 0);
        assert_eq!((reliable.buffers_in_use(), unreliable.buffers_in_use()), (0, 0));
    }
}

/// What a removed peer had not acknowledged is counted, and nobody waits for it; what
/// was half received from it is given up; its number can be used for another.
#[test]
fn what_is_owed_to_a_removed_peer_is_counted_and_its_number_can_be_used_again() {
    let net = SimNet::new(3, SimConfig { frames_max: 8192, ..SimConfig::default() });
    let mut a = Host::new(&net, 1, &[2], &CLASSES);
    let mut b = Host::new(&net, 2, &[1], &CLASSES);
    let mut c = Host::new(&net, 3, &[1], &CLASSES);
    let source = a.reliable_source(TOPIC, &CLASSES);
    let (at_b, _) = b.sink(TOPIC);
    let (at_c, _) = c.sink(TOPIC);
    a.command(Command::SetPeerLife { peer: PeerIndex(0), host: HostId(2), incarnation: Some(Incarnation(1)) });
    a.route(TOPIC, &[0], false);
    emit(&source, 0, 50);
    run(&net, &mut [&mut a, &mut b], 30);
    assert_eq!(read(&at_b, 0), 1);
    net.set_partitioned(address(1), address(2), true);
    for sequence in 1..6 {
        emit(&source, sequence, 700);
    }
    run(&net, &mut [&mut a, &mut b], 30);
    assert!(source.buffers_in_use() > 0);
    drop(must_swap(&mut a, swap(&net, 1, 0, None)));
    remove(&mut a, 0);
    a.route(TOPIC, &[], false);
    run(&net, &mut [&mut a, &mut b], 10);
    assert_eq!(a.count(DatapathCounter::DroppedPeerRemoved), 5);
    assert_eq!(source.buffers_in_use(), 0, "nobody waits for it");
    assert_eq!(a.count(DatapathCounter::Evictions), 0);
    // Another at the same number: it is heard as itself, and gets what comes from then on.
    must_swap(&mut a, swap(&net, 1, 0, Some(3)));
    a.command(Command::SetPeerLife { peer: PeerIndex(0), host: HostId(3), incarnation: Some(Incarnation(1)) });
    a.route(TOPIC, &[0], false);
    let first = source.next_sequence();
    for sequence in first..first + 3 {
        emit(&source, sequence, 700);
    }
    for _ in 0..20 {
        run(&net, &mut [&mut a, &mut b, &mut c], 10);
        net.advance(Nanos::from_millis(1));
    }
    assert_eq!(read(&at_c, first), first + 3);
    assert_eq!(read(&at_b, 1), 1, "who was removed gets nothing more");
    assert_eq!(a.count(DatapathCounter::DroppedPeerRemoved), 5, "and nothing is counted for the new one");
}

/// What one link refuses is handed back; the others' changes are undone by the command that
/// came back, and everything goes on as before.
#[test]
fn a_refused_change_is_undone_by_what_came_back() {
    let net = SimNet::new(4, SimConfig::default());
    let mut a = Host::new(&net, 1, &[2], &CLASSES);
    let mut b = Host::new(&net, 2, &[1], &CLASSES);
    let source = a.source(TOPIC, Lane::LAST, &[]);
    let (sink, _) = b.sink(TOPIC);
    a.route(TOPIC, &[0], false);
    let gone = must_swap(&mut a, swap(&net, 1, 0, None));
    assert!(holds(&gone) && gone.reach == Some(0));
    let came = must_swap(&mut a, swap(&net, 1, 1, Some(3)));
    assert!(!holds(&came) && came.reach.is_none());
    net.set_refusing_peers(address(1), true);
    let refused = swap(&net, 1, 2, Some(4));
    let Command::PeerSwapped(refused, Err(SwapRefused::Technology(_))) = a.command(Command::SwapPeer(refused)) else {
        panic!("it refuses")
    };
    assert!(holds(&refused), "what was to be put in is handed back");
    net.set_refusing_peers(address(1), false);
    assert!(holds(&must_swap(&mut a, came)));
    assert!(!holds(&must_swap(&mut a, gone)));
    let _ = source.emit_copy(&pattern(0, 90), 0);
    run(&net, &mut [&mut a, &mut b], 10);
    assert_eq!(read(&sink, 0), 1);
    for (peer, link) in [(64, 0), (0, 1)] {
        let nowhere = PeerSwap { link, ..swap(&net, 1, peer, None) };
        let answer = a.command(Command::SwapPeer(nowhere));
        assert!(matches!(answer, Command::PeerSwapped(_, Err(SwapRefused::NoPlace))), "{answer:?}");
    }
    let of_another = PeerSwap { place: Box::new(None::<u8>), ..swap(&net, 1, 0, None) };
    let answer = a.command(Command::SwapPeer(of_another));
    assert!(matches!(answer, Command::PeerSwapped(_, Err(SwapRefused::NoPlace))), "{answer:?}");
}

/// A runtime is heard at an address before anything is known of it, and its name is another's:
/// a frame that the network repeats is no new message, whichever of the two is known when.
#[test]
fn nothing_comes_twice_from_one_whose_name_is_anothers() {
    let frame = |sequence: u64| {
        let payload = pattern(sequence, 40);
        let header = data_header((2, 1), sequence, payload.len());
        [&header.encode()[..], &payload].concat()
    };
    let life = |peer, life| Command::SetPeerLife {
        peer: PeerIndex(peer),
        host: HostId(2),
        incarnation: Some(Incarnation(life)),
    };
    for is_known in [false, true] {
        let net = SimNet::new(5, SimConfig::default());
        let mut a = Host::new(&net, 1, &[2, 3], &CLASSES);
        drop(Host::new(&net, 2, &[1], &CLASSES));
        let (sink, _) = a.sink(TOPIC);
        let hear = |a: &mut Host, sequence| {
            assert_eq!(net.inject(address(2), address(1), Lane::LAST, &frame(sequence)), SendOutcome::Sent);
            run(&net, &mut [a], 20);
        };
        if is_known {
            a.command(life(0, 1));
        }
        hear(&mut a, 0);
        a.command(life(1, 5));
        hear(&mut a, 0);
        assert_eq!(read(&sink, 0), 1, "known: {is_known}");
        // Who was known goes on; who was not is not heard until it is.
        hear(&mut a, 1);
        assert_eq!(read(&sink, 1), if is_known { 2 } else { 1 });
        a.command(life(0, 1));
        hear(&mut a, 2);
        assert_eq!(sink.consume().expect("nobody lies").expect("it is heard").sequence(), 2);
        // The other one leaves.
        a.command(Command::SetPeerLife { peer: PeerIndex(1), host: HostId(2), incarnation: None });
        hear(&mut a, 2);
        assert_eq!(read(&sink, 3), 3, "what was heard stays known");
    }
}
