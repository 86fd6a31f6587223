//! Streams whose hosts are joined by two links: each goes by the one that its route names, and
//! may move to the other while it is used.

mod world;

use insane_core::{HostId, Incarnation, Lane, PeerIndex};
use insane_engine::{Command, EngineConfig, Hop};
use insane_link::LinkSetup;
use insane_sim::{SimConfig, SimNet};
use std::net::SocketAddr;
use world::{DOMAIN, Host, TOPIC, run};

const RECEIVE: [(u32, u32); 2] = [(2048, 256), (65_536, 16)];

/// Where a host is at one of its links.
fn at(host: u8, link: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, link, host], 7400))
}

/// A host of two links, both of which reach all peers.
fn host(net: &SimNet, own: u8, peers: &[u8]) -> Host {
    let links = [0, 1].map(|link| {
        let peers: Vec<_> = peers.iter().map(|peer| Some(at(*peer, link))).collect();
        net.setup(at(own, link)).open(&peers).expect("the address is free")
    });
    let config = EngineConfig::new(HostId(u64::from(own)), Incarnation(1));
    Host::with_links(config, links.into(), net.clock(), peers.len(), &RECEIVE, None)
}

/// The only peer of a host gets a stream by this link.
fn send_by(host: &mut Host, link: Option<u8>) {
    let peers = [Hop { peer: PeerIndex(0), link }].into_iter().collect();
    let command = Command::SetRoute { topic: TOPIC, domain: DOMAIN, peers, local: false };
    assert!(matches!(host.command(command), Command::Spent));
}

/// Frames that passed from one host to another by a link so far.
fn frames(net: &SimNet, from: u8, to: u8, link: u8) -> u64 {
    net.counts(at(from, link), at(to, link)).delivered
}

#[test]
fn a_route_says_by_which_link_its_messages_go_and_any_link_is_heard() {
    let net = SimNet::new(1, SimConfig::default());
    let (mut a, mut b) = (host(&net, 1, &[2]), host(&net, 2, &[1]));
    let source = a.source(TOPIC, Lane::LAST, &RECEIVE);
    let sink = b.sink(TOPIC).0;
    let mut sequence = 0;
    let mut passes = |a: &mut Host, b: &mut Host, expected: u8| {
        let before = [0, 1].map(|link| frames(&net, 1, 2, link));
        for len in [8_usize, 5_000] {
            let mut buffer = source.get_buffer(len).unwrap();
            buffer.fill(7);
            assert!(source.emit(buffer, 0).is_sent());
            run(&net, &mut [a, b], 20);
            let message = sink.consume().unwrap().expect("delivered");
            assert_eq!((message.sequence(), message.len(), message.lost()), (sequence, len, 0));
            sequence += 1;
        }
        let grew = [0, 1].map(|link| frames(&net, 1, 2, link) > before[usize::from(link)]);
        assert_eq!(grew, [expected == 0, expected == 1]);
    };
    for (link, expected) in [(None, 0), (Some(1), 1), (Some(0), 0), (Some(1), 1), (None, 0)] {
        send_by(&mut a, link);
        run(&net, &mut [&mut a, &mut b], 10_000);
        passes(&mut a, &mut b, expected);
    }
    // Whatever names no link goes by the one that reaches the peer.
    assert!(matches!(a.command(Command::SetReach { peer: PeerIndex(0), link: Some(1) }), Command::Spent));
    run(&net, &mut [&mut a, &mut b], 10_000);
    passes(&mut a, &mut b, 1);
    send_by(&mut a, Some(0));
    run(&net, &mut [&mut a, &mut b], 10_000);
    passes(&mut a, &mut b, 0);
}

#[test]
fn a_link_that_is_not_there_loses_messages_and_nothing_else() {
    let net = SimNet::new(2, SimConfig::default());
    let (mut a, mut b) = (host(&net, 1, &[2]), host(&net, 2, &[1]));
    let source = a.source(TOPIC, Lane::LAST, &RECEIVE);
    let sink = b.sink(TOPIC).0;
    send_by(&mut a, Some(3));
    let _ = source.emit_copy(b"nowhere", 0);
    run(&net, &mut [&mut a, &mut b], 20);
    assert!(sink.consume().unwrap().is_none());
    assert_eq!(a.count(insane_core::counters::DatapathCounter::FramesFailed), 1);
    send_by(&mut a, Some(1));
    run(&net, &mut [&mut a, &mut b], 20);
    let _ = source.emit_copy(b"there", 0);
    run(&net, &mut [&mut a, &mut b], 20);
    assert_eq!(sink.consume().unwrap().unwrap().bytes(), Some(&b"there"[..]));
}
