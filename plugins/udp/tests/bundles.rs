//! What the UDP link does with several frames between two flushes.

use insane_conformance::watch_allocations;
use insane_core::{ChannelId, HostId, Incarnation, Lane, PeerIndex, SourceId, StreamKey};
use insane_link::{FrameSink, Link, LinkSetup, SendOutcome};
use insane_sys::{SharedBytes, guard};
use insane_udp::{UdpConfig, UdpLink, UdpSetup};
use insane_wire::bundle::{self, MARK};
use insane_wire::data::{DataHeader, Flags, Kind};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

watch_allocations!();

type Frame = (Option<PeerIndex>, Vec<u8>);

fn here() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn setup() -> UdpSetup {
    UdpSetup::bind(UdpConfig::new(here())).unwrap()
}

/// Two links that know each other, and, if they are not alone, a peer that is never there.
fn pair(alone: bool) -> (UdpLink, UdpLink) {
    let (a, b) = (setup(), setup());
    let (at_a, at_b) = (a.local_addr(), b.local_addr());
    let nobody = (!alone).then(|| "127.0.0.1:9".parse().unwrap());
    (a.open(&[Some(at_b), nobody]).unwrap(), b.open(&[Some(at_a), nobody]).unwrap())
}

/// A pair of neighbouring raw sockets, and a link whose only known peers are they and nobody.
fn beside_raw() -> ([UdpSocket; 2], [SocketAddr; 2], UdpLink) {
    let next = |mut address: SocketAddr| {
        address.set_port(address.port() + 1);
        address
    };
    let raw = loop {
        let first = UdpSocket::bind(here()).unwrap();
        if let Ok(second) = UdpSocket::bind(next(first.local_addr().unwrap())) {
            break [first, second];
        }
    };
    let setup = setup();
    let ports = [setup.local_addr(), next(setup.local_addr())];
    let peers = [Some(raw[0].local_addr().unwrap()), Some("127.0.0.1:9".parse().unwrap())];
    for socket in &raw {
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    }
    (raw, ports, setup.open(&peers).unwrap())
}

#[derive(Default)]
struct Keep(Vec<Frame>);

impl FrameSink for Keep {
    fn frame(&mut self, from: Option<PeerIndex>, frame: &[u8]) {
        self.0.push((from, frame.to_vec()));
    }
}

fn message(sequence: u64, lane: u8, payload_len: usize) -> ([u8; 64], Vec<u8>) {
    let header = DataHeader {
        kind: Kind::Data,
        lane: Lane::new(lane).unwrap(),
        flags: Flags::NONE,
        stream: StreamKey(1),
        host: HostId(2),
        incarnation: Incarnation(3),
        sequence,
        source_instant: 0,
        channel: ChannelId(4),
        source: SourceId(5),
        message_len: payload_len as u32,
        fragment_offset: 0,
    };
    (header.encode(), (0..payload_len).map(|at| (at as u64 * 3 + sequence) as u8).collect())
}

fn send(link: &mut UdpLink, sequence: u64, lane: u8, payload_len: usize) -> Vec<u8> {
    let (head, payload) = message(sequence, lane, payload_len);
    let outcome = link.send(PeerIndex(0), Lane::new(lane).unwrap(), &head, SharedBytes::from(&payload[..]));
    assert_eq!(outcome, SendOutcome::Sent);
    [&head[..], &payload].concat()
}

/// Receives with changing budgets until `count` frames are there.
fn take(link: &mut UdpLink, count: usize, budgets: &[u32]) -> Vec<Frame> {
    let mut kept = Keep::default();
    let end = Instant::now() + Duration::from_secs(5);
    let mut budgets = budgets.iter().cycle();
    let mut call = 0_u32;
    while kept.0.len() < count && Instant::now() < end {
        let (before, budget) = (kept.0.len(), *budgets.next().unwrap());
        let handed = link.receive(budget, call.is_multiple_of(16), &mut kept);
        assert_eq!(handed as usize, kept.0.len() - before);
        assert!(handed <= budget, "{handed} frames with a budget of {budget}");
        call += 1;
    }
    assert_eq!(kept.0.len(), count);
    assert_eq!(link.receive(64, true, &mut kept), 0, "nothing came twice");
    assert!(!link.holds_frames());
    kept.0
}

fn from_peer(frames: Vec<Vec<u8>>) -> Vec<Frame> {
    frames.into_iter().map(|frame| (Some(PeerIndex(0)), frame)).collect()
}

#[test]
fn bursts_arrive_frame_by_frame_in_order_within_every_budget() {
    for alone in [true, false] {
        let (mut a, mut b) = pair(alone);
        for (round, sizes) in
            [&[64][..], &[1024], &[1408], &[1408, 1408, 300], &[0, 1, 700, 96, 64, 64]].iter().enumerate()
        {
            for budgets in [&[1][..], &[32], &[7, 1, 64]] {
                let lane = [7, 0][round % 2];
                let burst = |number: u64| send(&mut a, number, lane, sizes[number as usize % sizes.len()]);
                let sent = (0..150).map(burst).collect();
                a.flush();
                assert!(!a.holds_frames());
                assert_eq!(take(&mut b, 150, budgets), from_peer(sent), "{sizes:?} by {budgets:?}");
            }
        }
        assert!(a.counts().trains > 0 && a.counts().cutting_refused == 0);
        assert_eq!((b.counts().bundles_malformed, b.counts().truncated), (0, 0));
    }
}

#[test]
fn a_lone_frame_is_a_plain_datagram_and_a_burst_needs_few() {
    let (raw, _, mut link) = beside_raw();
    let mut buffer = [0; 2000];
    for lane in [0, 7] {
        let socket = &raw[usize::from(lane > 2)];
        let frame = send(&mut link, 1, lane, 64);
        link.flush();
        let len = socket.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..len], frame);
        for sequence in 0..19 {
            send(&mut link, sequence, lane, 64);
        }
        link.flush();
        let len = socket.recv(&mut buffer).unwrap();
        assert!(bundle::is_bundle(&buffer[..len]));
        assert_eq!(bundle::frames_told(&buffer[..len]), 19);
    }
}

#[test]
fn classes_share_no_datagram_and_real_time_goes_first() {
    let (mut a, mut b) = pair(false);
    let mut real_time = Vec::new();
    let mut best_effort = Vec::new();
    for sequence in 0..40 {
        best_effort.push(send(&mut a, sequence, 5, 64));
        real_time.push(send(&mut a, sequence, 1, 64));
    }
    a.flush();
    assert_eq!(take(&mut b, 80, &[32]), from_peer([real_time, best_effort].concat()));
}

#[test]
fn another_peer_begins_another_train() {
    let (raw, _, mut link) = beside_raw();
    for sequence in 0..4 {
        send(&mut link, sequence, 7, 64);
        let (head, payload) = message(sequence, 7, 64);
        let outcome = link.send(PeerIndex(1), Lane::LAST, &head, SharedBytes::from(&payload[..]));
        assert_eq!(outcome, SendOutcome::Sent);
    }
    link.flush();
    let mut buffer = [0; 2000];
    for sequence in 0..4 {
        let (head, payload) = message(sequence, 7, 64);
        let len = raw[1].recv(&mut buffer).unwrap();
        assert_eq!(buffer[..len], [&head[..], &payload].concat());
    }
}

/// A sound bundle, as a link makes it.
fn sound() -> Vec<u8> {
    let (raw, _, mut link) = beside_raw();
    for sequence in 0..5 {
        send(&mut link, sequence, 7, 20);
    }
    link.flush();
    let mut buffer = vec![0; 2000];
    let len = raw[1].recv(&mut buffer).unwrap();
    buffer.truncate(len);
    buffer
}

#[test]
fn garbage_and_cut_bundles_are_counted_and_dropped() {
    let bundle = sound();
    let (raw, ports, mut link) = beside_raw();
    let mut wrong: Vec<Vec<u8>> = (4..bundle.len()).step_by(3).map(|len| bundle[..len].to_vec()).collect();
    wrong.extend((4..8).map(|at| {
        let mut changed = bundle.clone();
        changed[at] ^= 1;
        changed
    }));
    wrong.push([&MARK[..], &[0xff; 1000]].concat());
    for (class, port) in ports.iter().enumerate() {
        for (number, datagram) in wrong.iter().enumerate() {
            let before = link.counts().bundles_malformed;
            raw[class].send_to(datagram, port).unwrap();
            raw[class].send_to(&bundle, port).unwrap();
            let frames = take(&mut link, 5, &[3]);
            assert!(frames.iter().all(|(from, frame)| *from == Some(PeerIndex(0)) && frame.len() == 84));
            assert_eq!(link.counts().bundles_malformed, before + 1, "case {number}");
        }
    }
}

#[test]
fn a_bundle_of_a_stranger_is_not_opened() {
    let bundle = sound();
    let (_raw, ports, mut link) = beside_raw();
    let stranger = UdpSocket::bind(here()).unwrap();
    for port in ports {
        stranger.send_to(&bundle, port).unwrap();
        assert_eq!(take(&mut link, 1, &[64]), [(None, bundle.clone())]);
    }
    assert_eq!(link.counts().bundles_malformed, 0);
}

#[test]
fn a_frame_that_begins_like_a_bundle_is_refused() {
    let (mut a, mut b) = pair(true);
    assert_eq!(a.send(PeerIndex(0), Lane::LAST, &MARK, SharedBytes::EMPTY), SendOutcome::Failed);
    let sent = vec![send(&mut a, 1, 7, 64)];
    a.flush();
    assert_eq!(take(&mut b, 1, &[64]), from_peer(sent));
}

struct Count(u32);

impl FrameSink for Count {
    fn frame(&mut self, _from: Option<PeerIndex>, _frame: &[u8]) {
        self.0 += 1;
    }
}

#[test]
fn nothing_is_allocated_by_trains() {
    let (mut a, mut b) = pair(true);
    let small: Vec<_> = (0..150).map(|sequence| message(sequence, 7, 64)).collect();
    let large: Vec<_> = (0..50).map(|sequence| message(sequence, 0, 1408)).collect();
    let before = guard::violations_here();
    let mut count = Count(0);
    for _ in 0..5 {
        let expected = count.0 + 200;
        let end = Instant::now() + Duration::from_secs(5);
        guard::seal_thread();
        for (messages, lane) in [(&small, Lane::LAST), (&large, Lane::CONTROL)] {
            for (head, payload) in messages {
                let _ = a.send(PeerIndex(0), lane, head, SharedBytes::from(&payload[..]));
            }
        }
        a.flush();
        while count.0 < expected && Instant::now() < end {
            b.receive(32, true, &mut count);
        }
        guard::unseal_thread();
        assert_eq!(count.0, expected);
    }
    assert_eq!(guard::violations_here() - before, 0, "allocations in send, flush or receive");
}
