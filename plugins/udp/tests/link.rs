//! What the UDP link promises beyond the suite.

use insane_core::limits::PEERS_MAX;
use insane_core::{Lane, PeerIndex};
use insane_link::{FrameSink, Link, LinkSetup, SendOutcome};
use insane_udp::{
    FRAME_BYTES_LIMIT, FRAME_BYTES_LOW, UdpConfig, UdpError, UdpGroup, UdpLink, UdpSetup, frame_bytes_default,
};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

fn here() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn setup() -> UdpSetup {
    UdpSetup::bind(UdpConfig::new(here())).unwrap()
}

fn pair() -> (UdpLink, UdpLink) {
    let (a, b) = (setup(), setup());
    let (at_a, at_b) = (a.local_addr(), b.local_addr());
    (a.open(&[None, Some(at_b)]).unwrap(), b.open(&[Some(at_a), None]).unwrap())
}

fn next(mut address: SocketAddr) -> SocketAddr {
    address.set_port(address.port() + 1);
    address
}

#[derive(Default)]
struct Keep(Vec<(Option<PeerIndex>, Vec<u8>)>);

impl FrameSink for Keep {
    fn frame(&mut self, from: Option<PeerIndex>, frame: &[u8]) {
        self.0.push((from, frame.to_vec()));
    }
}

fn wait_for(link: &mut UdpLink, count: usize) -> Vec<(Option<PeerIndex>, Vec<u8>)> {
    let mut kept = Keep::default();
    let end = Instant::now() + Duration::from_secs(5);
    while kept.0.len() < count && Instant::now() < end {
        link.receive(64, true, &mut kept);
    }
    assert_eq!(kept.0.len(), count);
    kept.0
}

/// Sends a frame alone.
fn send(link: &mut UdpLink, peer: u16, lane: u8, frame: &[u8]) -> SendOutcome {
    let outcome = hold(link, peer, lane, frame);
    link.flush();
    outcome
}

/// Gives the link a frame, and does not flush it.
fn hold(link: &mut UdpLink, peer: u16, lane: u8, frame: &[u8]) -> SendOutcome {
    link.send(PeerIndex(peer), Lane::new(lane).unwrap(), frame, (&[][..]).into())
}

#[test]
fn the_ports_are_a_pair_and_both_are_taken() {
    for ip in [Ipv4Addr::LOCALHOST.into(), std::net::IpAddr::from(Ipv6Addr::LOCALHOST)] {
        let setup = UdpSetup::bind(UdpConfig::new((ip, 0).into())).unwrap();
        let local = setup.local_addr();
        assert_ne!(local.port(), 0);
        assert!(UdpSocket::bind(local).is_err());
        assert!(UdpSocket::bind(next(local)).is_err());
        assert!(matches!(UdpSetup::bind(UdpConfig::new(local)), Err(UdpError::Socket { .. })));
        let link = setup.open(&[]).unwrap();
        assert_eq!(link.local_addr(), local);
        drop(link);
        let again = UdpSetup::bind(UdpConfig::new(local)).unwrap();
        assert_eq!(again.local_addr(), local, "the address is free at once");
    }
}

#[test]
fn a_wrong_configuration_is_refused() {
    let config = UdpConfig::new(here());
    let refused = |config| UdpSetup::bind(config).map(|_| ()).unwrap_err();
    for given in [0, FRAME_BYTES_LOW - 1, FRAME_BYTES_LIMIT + 1, u32::MAX] {
        assert_eq!(refused(UdpConfig { frame_bytes_max: given, ..config.clone() }), UdpError::FrameBytes { given });
    }
    assert_eq!(refused(UdpConfig { real_time_dscp: 64, ..config.clone() }), UdpError::Dscp { given: 64 });
    let address = (Ipv4Addr::LOCALHOST, 65_535).into();
    assert_eq!(refused(UdpConfig { bind: address, ..config.clone() }), UdpError::LastPort { address });
    for group in ["10.0.0.1:7000", "239.0.0.1:0", "239.0.0.1:65535"] {
        let address = group.parse().unwrap();
        let group = Some(UdpGroup { address, ttl: 1 });
        assert_eq!(refused(UdpConfig { group, ..config.clone() }), UdpError::GroupUnusable { address });
    }
    let group = |text: &str| Some(UdpGroup { address: text.parse().unwrap(), ttl: 1 });
    let other = refused(UdpConfig { group: group("[ff15::1]:7000"), ..config.clone() });
    assert!(matches!(other, UdpError::GroupBind { .. }));
    let everywhere = UdpConfig::new((Ipv4Addr::UNSPECIFIED, 0).into());
    let nowhere = refused(UdpConfig { group: group("239.0.0.1:7000"), ..everywhere });
    assert!(matches!(nowhere, UdpError::GroupBind { .. }));
    let elsewhere = refused(UdpConfig { bind: "192.0.2.1:7000".parse().unwrap(), ..config });
    assert!(elsewhere.to_string().contains("192.0.2.1:7000: binding a UDP socket failed"), "{elsewhere}");
    assert_eq!(frame_bytes_default(here()), 1472);
    assert_eq!(frame_bytes_default((Ipv6Addr::LOCALHOST, 0).into()), 1452);
}

#[test]
fn peers_that_cannot_be_are_refused() {
    let refused = |peers: &[Option<SocketAddr>]| setup().open(peers).map(|_| ()).unwrap_err();
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    assert!(matches!(refused(&[Some(address("[::1]:7000"))]), UdpError::PeerFamily { .. }));
    for unusable in ["127.0.0.1:0", "127.0.0.1:65535", "0.0.0.0:7000", "224.0.0.1:7000"] {
        let expected = UdpError::PeerUnusable { peer: PeerIndex(1), address: address(unusable) };
        assert_eq!(refused(&[None, Some(address(unusable))]), expected);
    }
    let twice = [Some(address("10.0.0.1:7000")), None, Some(address("10.0.0.1:7000"))];
    let (first, second) = (PeerIndex(0), PeerIndex(2));
    assert_eq!(refused(&twice), UdpError::PeerDuplicate { first, second, address: address("10.0.0.1:7000") });
    assert_eq!(refused(&[None; PEERS_MAX + 1]), UdpError::TooManyPeers { given: PEERS_MAX + 1 });
    let most: Vec<_> = (0..PEERS_MAX).map(|n| Some(([10, 0, 0, n as u8], 7000).into())).collect();
    assert!(setup().open(&most).is_ok());
    let neighbours = [Some(address("10.0.0.1:7000")), Some(address("10.0.0.1:7001"))];
    assert!(setup().open(&neighbours).is_ok(), "sockets tell lanes apart, so these two can be told apart, too");
}

#[test]
fn lanes_use_their_ports_and_a_peer_is_one_only_on_its_own() {
    let receiver = setup();
    let (raw, raw_next) = loop {
        let first = UdpSocket::bind(here()).unwrap();
        if let Ok(second) = UdpSocket::bind(next(first.local_addr().unwrap())) {
            break (first, second);
        }
    };
    let (port_p, port_next) = (receiver.local_addr(), next(receiver.local_addr()));
    // The second peer is never there; with one alone the kernel would drop strangers' frames.
    let second = "127.0.0.1:9".parse().unwrap();
    let mut link = receiver.open(&[Some(raw.local_addr().unwrap()), Some(second)]).unwrap();

    for socket in [&raw, &raw_next] {
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    }
    let mut buffer = [0; 16];
    for lane in 0..8 {
        assert_eq!(send(&mut link, 0, lane, &[lane]), SendOutcome::Sent);
        let (socket, source) = if lane < 3 { (&raw, port_p) } else { (&raw_next, port_next) };
        assert_eq!(socket.recv_from(&mut buffer).unwrap(), (1, source));
        assert_eq!(buffer[0], lane);
    }

    let (peer, nobody) = (Some(PeerIndex(0)), None);
    for (socket, to, from) in
        [(&raw, port_p, peer), (&raw_next, port_next, peer), (&raw, port_next, nobody), (&raw_next, port_p, nobody)]
    {
        socket.send_to(b"frame", to).unwrap();
        assert_eq!(wait_for(&mut link, 1), [(from, b"frame".to_vec())]);
    }
}

#[test]
fn a_best_effort_flood_costs_no_real_time_frame() {
    let (mut a, mut b) = pair();
    // Far more than the receiver's socket holds.
    for _ in 0..50_000 {
        let _ = send(&mut a, 1, 7, &[7; 1000]);
    }
    for number in 0..100u8 {
        assert_eq!(send(&mut a, 1, 0, &[number]), SendOutcome::Sent);
    }
    let mut real_time = Vec::new();
    let end = Instant::now() + Duration::from_secs(5);
    while real_time.len() < 100 && Instant::now() < end {
        let mut kept = Keep::default();
        b.receive(100, true, &mut kept);
        real_time.extend(kept.0.iter().filter(|(_, frame)| frame.len() == 1).map(|(_, frame)| frame[0]));
    }
    assert_eq!(real_time, (0..100).collect::<Vec<_>>());
    let mut rest = Keep::default();
    assert_eq!(b.receive(1, true, &mut rest), 1);
    assert_eq!(rest.0[0].1, [7; 1000], "the flood did arrive");
}

#[test]
fn a_datagram_over_the_limit_is_counted_and_dropped() {
    let a = UdpSetup::bind(UdpConfig { frame_bytes_max: 2000, ..UdpConfig::new(here()) }).unwrap();
    let b = setup();
    let (at_a, at_b) = (a.local_addr(), b.local_addr());
    let (mut a, mut b) = (a.open(&[Some(at_b)]).unwrap(), b.open(&[Some(at_a)]).unwrap());
    // Met by a single call, and then by a batch behind a frame that fits.
    for (round, in_front) in [(1, false), (2, true), (3, false)] {
        if in_front {
            assert_eq!(send(&mut a, 0, 0, b"in front"), SendOutcome::Sent);
        }
        assert_eq!(send(&mut a, 0, 0, &[9; 1473]), SendOutcome::Sent);
        assert_eq!(send(&mut a, 0, 0, &[8; 1472]), SendOutcome::Sent);
        let frames: Vec<_> = wait_for(&mut b, 1 + usize::from(in_front)).into_iter().map(|(_, frame)| frame).collect();
        assert_eq!(frames.last().unwrap(), &[8; 1472]);
        assert_eq!(b.counts().truncated, round);
    }
}

#[test]
fn a_lone_peer_is_the_only_one_heard() {
    let (a, b) = (setup(), setup());
    let (at_a, at_b) = (a.local_addr(), b.local_addr());
    let mut a = a.open(&[None, Some(at_b)]).unwrap();
    let stranger = UdpSocket::bind(here()).unwrap();
    // Before the link knows its peer the sockets are open to all.
    let mut early = Vec::new();
    for to in [at_b, next(at_b)] {
        stranger.send_to(b"early stranger", to).unwrap();
        early.push((None, b"early stranger".to_vec()));
    }
    assert_eq!(send(&mut a, 1, 0, b"early peer"), SendOutcome::Sent);
    early.insert(1, (Some(PeerIndex(0)), b"early peer".to_vec()));
    let mut b = b.open(&[Some(at_a)]).unwrap();
    for to in [at_b, next(at_b)] {
        stranger.send_to(b"late stranger", to).unwrap();
    }
    let mut kept = Keep::default();
    let end = Instant::now() + Duration::from_secs(5);
    while kept.0.len() < 3 && Instant::now() < end {
        b.receive(1, true, &mut kept);
    }
    assert_eq!(kept.0, early);
    for lane in [0, 7, 0, 7] {
        assert_eq!(send(&mut a, 1, lane, b"peer"), SendOutcome::Sent);
        assert_eq!(wait_for(&mut b, 1), [(Some(PeerIndex(0)), b"peer".to_vec())]);
        stranger.send_to(b"late stranger", at_b).unwrap();
        assert_eq!(b.receive(1, true, &mut kept), 0);
    }
}

#[test]
fn a_peer_that_is_not_there_costs_no_later_frame() {
    let (mut a, b) = pair();
    let address = b.local_addr();
    drop(b);
    for _ in 0..10 {
        assert_ne!(send(&mut a, 1, 0, b"into the void"), SendOutcome::Busy);
    }
    let mut b = UdpSetup::bind(UdpConfig::new(address)).unwrap().open(&[Some(a.local_addr())]).unwrap();
    for number in 0..10u8 {
        assert_eq!(send(&mut a, 1, 0, &[number]), SendOutcome::Sent);
        assert_eq!(wait_for(&mut b, 1), [(Some(PeerIndex(0)), vec![number])]);
    }
    assert!(a.counts().repeated > 0, "the error of an earlier frame was met");
}

#[test]
fn a_host_may_be_its_own_peer() {
    let setup = setup();
    let own = setup.local_addr();
    let mut link = setup.open(&[Some(own)]).unwrap();
    assert_eq!(send(&mut link, 0, 5, b"to myself"), SendOutcome::Sent);
    assert_eq!(wait_for(&mut link, 1), [(Some(PeerIndex(0)), b"to myself".to_vec())]);
}

#[test]
fn a_hurried_call_looks_where_the_last_frame_was() {
    let (mut a, mut b) = pair();
    for lane in [7, 0, 3, 2] {
        assert_eq!(send(&mut a, 1, lane, b"first"), SendOutcome::Sent);
        wait_for(&mut b, 1);
        // Nothing follows: the link goes back to single calls.
        let mut kept = Keep::default();
        assert_eq!(b.receive(8, false, &mut kept) + b.receive(8, false, &mut kept), 0);
        assert_eq!(send(&mut a, 1, lane, b"second"), SendOutcome::Sent);
        let end = Instant::now() + Duration::from_secs(5);
        while kept.0.is_empty() && Instant::now() < end {
            b.receive(8, false, &mut kept);
        }
        assert_eq!(kept.0, [(Some(PeerIndex(0)), b"second".to_vec())], "lane {lane}");
        assert_eq!(b.receive(8, false, &mut kept) + b.receive(8, false, &mut kept), 0);
    }
}

/// Two links in a group that only this test uses, each the other's peer 1 or 0.
fn members() -> [UdpLink; 2] {
    let port = setup().local_addr().port();
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    let group = Some(UdpGroup { address: (Ipv4Addr::new(239, 194, high, low), port).into(), ttl: 1 });
    let setups = [(), ()].map(|()| UdpSetup::bind(UdpConfig { group, ..UdpConfig::new(here()) }).unwrap());
    let [at_a, at_b] = [&setups[0], &setups[1]].map(UdpSetup::local_addr);
    let [a, b] = setups;
    [a.open(&[None, Some(at_b)]).unwrap(), b.open(&[Some(at_a), None]).unwrap()]
}

/// A sender that changes from a peer to the group is not overtaken by itself in a receiver
/// that looks late; real time goes first by either way.
#[test]
fn what_came_to_the_link_alone_goes_before_what_came_to_its_group() {
    let [mut a, mut b] = members();
    let group = |link: &mut UdpLink, lane, frame: &[u8]| {
        let sent = link.send_group(Lane::new(lane).unwrap(), frame, (&[][..]).into());
        assert_eq!(sent, SendOutcome::Sent);
    };
    group(&mut a, 7, b"best effort, to all");
    group(&mut a, 0, b"real time, to all");
    assert_eq!(hold(&mut a, 1, 7, b"best effort, to one"), SendOutcome::Sent);
    assert_eq!(hold(&mut a, 1, 0, b"real time, to one"), SendOutcome::Sent);
    a.flush();
    let frames: Vec<_> =
        wait_for(&mut b, 4).into_iter().map(|(from, frame)| (from, String::from_utf8(frame))).collect();
    let expected = ["real time, to one", "real time, to all", "best effort, to one", "best effort, to all"];
    assert_eq!(frames, expected.map(|frame| (Some(PeerIndex(0)), Ok(frame.to_owned()))));
    // Nobody hears himself, on the loopback interface neither.
    assert!(!a.holds_frames());
    assert_eq!(a.receive(8, true, &mut Keep::default()), 0);
}
