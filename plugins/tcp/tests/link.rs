//! What the TCP link promises beyond the suite, where both sides keep to the rules.

mod common;

use common::*;
use insane_core::limits::PEERS_MAX;
use insane_core::{Lane, PeerIndex};
use insane_link::{Link, LinkSetup, SendOutcome};
use insane_sys::clock::mono_now;
use insane_tcp::{
    FRAME_BYTES_LIMIT, FRAME_BYTES_LOW, TcpConfig, TcpError, TcpSetup, USER_TIMEOUT_MS_LIMIT, USER_TIMEOUT_MS_LOW,
};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

#[test]
fn the_ports_are_a_pair_and_free_again_at_once() {
    for ip in [Ipv4Addr::LOCALHOST.into(), std::net::IpAddr::from(Ipv6Addr::LOCALHOST)] {
        let setup = TcpSetup::bind(TcpConfig::new((ip, 0).into())).unwrap();
        let local = setup.local_addr();
        assert_ne!(local.port(), 0);
        assert!(TcpListener::bind(local).is_err());
        assert!(TcpListener::bind(next(local)).is_err());
        assert!(matches!(TcpSetup::bind(TcpConfig::new(local)), Err(TcpError::Socket { .. })));
        let link = setup.open(&[]).unwrap();
        assert_eq!(link.local_addr(), local);
        drop(link);
        TcpSetup::bind(TcpConfig::new(local)).unwrap();
    }
    // Also after connections: this side closes first, and its ports wait for stray segments.
    let (a, b) = pair();
    let local = b.local_addr();
    drop(b);
    drop(a);
    TcpSetup::bind(TcpConfig::new(local)).unwrap();
}

#[test]
fn a_wrong_configuration_is_refused() {
    let config = TcpConfig::new(host(1));
    let refused = |config| TcpSetup::bind(config).map(|_| ()).unwrap_err();
    for given in [0, FRAME_BYTES_LOW - 1, FRAME_BYTES_LIMIT + 1, u32::MAX] {
        assert_eq!(refused(TcpConfig { frame_bytes_max: given, ..config.clone() }), TcpError::FrameBytes { given });
    }
    assert_eq!(refused(TcpConfig { real_time_dscp: 64, ..config.clone() }), TcpError::Dscp { given: 64 });
    for given in [0, USER_TIMEOUT_MS_LOW - 1, USER_TIMEOUT_MS_LIMIT + 1] {
        assert_eq!(refused(TcpConfig { user_timeout_ms: given, ..config.clone() }), TcpError::UserTimeout { given });
    }
    for address in [(Ipv4Addr::UNSPECIFIED, 7400).into(), SocketAddr::from((Ipv6Addr::UNSPECIFIED, 7400))] {
        assert_eq!(refused(TcpConfig { bind: address, ..config.clone() }), TcpError::Unspecified { address });
    }
    let address = (Ipv4Addr::LOCALHOST, 65_535).into();
    assert_eq!(refused(TcpConfig { bind: address, ..config.clone() }), TcpError::LastPort { address });
    let elsewhere = refused(TcpConfig { bind: "192.0.2.1:7000".parse().unwrap(), ..config });
    assert!(elsewhere.to_string().contains("192.0.2.1:7000: binding a TCP socket failed"), "{elsewhere}");
}

#[test]
fn peers_that_cannot_be_are_refused() {
    let refused = |peers: &[Option<SocketAddr>]| setup(1).open(peers).map(|_| ()).unwrap_err();
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    assert!(matches!(refused(&[Some(address("[::1]:7000"))]), TcpError::PeerFamily { .. }));
    for unusable in ["127.0.0.1:0", "127.0.0.1:65535", "0.0.0.0:7000", "224.0.0.1:7000"] {
        let expected = TcpError::PeerUnusable { peer: PeerIndex(1), address: address(unusable) };
        assert_eq!(refused(&[None, Some(address(unusable))]), expected);
    }
    let twice = [Some(address("10.0.0.1:7000")), None, Some(address("10.0.0.1:7000"))];
    let (first, second) = (PeerIndex(0), PeerIndex(2));
    assert_eq!(refused(&twice), TcpError::PeerDuplicate { first, second, address: address("10.0.0.1:7000") });
    assert_eq!(refused(&[None; PEERS_MAX + 1]), TcpError::TooManyPeers { given: PEERS_MAX + 1 });
    let own = setup(1);
    let local = own.local_addr();
    let error = own.open(&[Some(local)]).map(|_| ()).unwrap_err();
    assert_eq!(error, TcpError::PeerIsSelf { peer: PEER, address: local });
    let most: Vec<_> = (0..PEERS_MAX).map(|n| Some(([10, 0, 0, n as u8], 7000).into())).collect();
    assert!(setup(1).open(&most).is_ok());
}

#[test]
fn the_lower_address_connects_and_both_classes_stand() {
    let (mut a, mut b) = strangers();
    assert!(!a.is_connected(PEER) && !b.is_connected(PEER));
    // Alone, the side that accepts does nothing.
    for _ in 0..20 {
        assert!(!b.tend(mono_now()), "nothing is under way");
    }
    assert!(a.tend(mono_now()), "it connects");
    connect(&mut a, &mut b);
    assert_eq!((a.counts().connected, b.counts().connected), (2, 2));
    assert!(!a.tend(mono_now()) && !b.tend(mono_now()), "nothing is under way any more");
    for lane in 0..8 {
        send(&mut a, lane, &[lane; 5]);
        assert_eq!(wait_for(&mut b, 1), [[lane; 5]]);
        send(&mut b, lane, &[lane; 9]);
        assert_eq!(wait_for(&mut a, 1), [[lane; 9]]);
    }
}

#[test]
fn frames_to_a_peer_that_is_not_connected_fail_and_leave_nothing() {
    let (mut a, mut b) = strangers();
    for lane in [REAL_TIME, BEST_EFFORT] {
        assert_eq!(offer(&mut a, lane, b"too early"), SendOutcome::Failed);
        assert_eq!(offer(&mut b, lane, b"too early"), SendOutcome::Failed);
    }
    connect(&mut a, &mut b);
    send(&mut a, REAL_TIME, b"now");
    assert_eq!(wait_for(&mut b, 1), [b"now"]);
}

#[test]
fn a_frame_without_a_byte_is_none() {
    let (mut a, _b) = pair();
    assert_eq!(a.send(PEER, Lane::CONTROL, &[], (&[][..]).into()), SendOutcome::Failed);
}

#[test]
fn a_burst_leaves_at_the_flush_and_a_lone_frame_too() {
    let (mut a, mut b) = pair();
    let mut kept = Keep::default();
    for number in 0..100u8 {
        assert_eq!(offer(&mut a, REAL_TIME, &[number; 64]), SendOutcome::Sent);
    }
    for _ in 0..50 {
        b.receive(64, true, &mut kept);
    }
    assert!(kept.0.is_empty(), "small frames are gathered until the flush");
    a.flush();
    let expected: Vec<Vec<u8>> = (0..100u8).map(|number| vec![number; 64]).collect();
    assert_eq!(wait_for(&mut b, 100), expected);
    send(&mut a, REAL_TIME, b"lone");
    assert_eq!(wait_for(&mut b, 1), [b"lone"]);
}

#[test]
fn large_and_small_frames_keep_their_order() {
    let (mut a, mut b) = pair();
    let lens = [1, 10_000, 16_384, 3, 4092, 4093, 5, 4096, 16_383, 7, 7, 8000, 1];
    let mut sent = Vec::new();
    for round in 0..20u8 {
        for (number, len) in lens.into_iter().enumerate() {
            let frame = vec![round.wrapping_mul(13) ^ number as u8; len];
            assert_eq!(offer(&mut a, BEST_EFFORT, &frame), SendOutcome::Sent);
            sent.push(frame);
        }
        if round % 3 == 0 {
            a.flush();
        }
    }
    a.flush();
    assert_eq!(wait_for(&mut b, sent.len()), sent);
}

#[test]
fn what_was_sent_and_not_flushed_goes_out_when_the_link_closes() {
    let (mut a, mut b) = pair();
    assert_eq!(offer(&mut a, REAL_TIME, b"last words"), SendOutcome::Sent);
    drop(a);
    assert_eq!(wait_for(&mut b, 1), [b"last words"]);
    until("the end is noticed", || {
        b.receive(64, true, &mut Keep::default());
        b.counts().lost == 2
    });
    assert!(!b.is_connected(PEER));
    assert_eq!(offer(&mut b, REAL_TIME, b"anybody?"), SendOutcome::Failed);
}

/// Fills a connection that nobody reads; returns the frames it took.
fn fill(link: &mut insane_tcp::TcpLink, lane: u8, len: usize) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    loop {
        let frame: Vec<u8> = (sent.len() as u32).to_le_bytes().into_iter().cycle().take(len).collect();
        match offer(link, lane, &frame) {
            SendOutcome::Sent => sent.push(frame),
            SendOutcome::Busy => {
                link.flush();
                return sent;
            }
            SendOutcome::Failed => panic!("frame {} failed", sent.len()),
        }
    }
}

#[test]
fn a_best_effort_connection_that_is_full_does_not_touch_real_time() {
    let (mut a, mut b) = pair();
    assert!(fill(&mut a, BEST_EFFORT, 16_000).len() > 10);
    for number in 0..100u8 {
        send(&mut a, REAL_TIME, &[number]);
    }
    let mut kept = Keep::default();
    until("real time comes", || {
        b.receive(100, true, &mut kept);
        kept.0.iter().filter(|frame| frame.len() == 1).count() == 100
    });
}

/// What it has not sent waits for that reader, and not for the interface: no slot to anybody else
/// may wait for it.
#[test]
fn a_reader_that_is_slow_does_not_make_the_link_tell_that_it_is_busy() {
    let (mut a, _b) = pair();
    for lane in [BEST_EFFORT, 0] {
        assert!(!fill(&mut a, lane, 10_000).is_empty());
        assert_eq!(a.unfinished(true), None);
    }
}

#[test]
fn what_a_full_connection_took_arrives_whole_and_in_order() {
    for len in [100, 3000, 16_000] {
        let (mut a, mut b) = pair();
        let sent = fill(&mut a, BEST_EFFORT, len);
        let mut kept = Keep::default();
        // The sender only receives, as one does that has nothing more to say.
        until("everything arrives", || {
            b.receive(64, true, &mut kept);
            a.receive(64, true, &mut Keep::default());
            kept.0.len() >= sent.len()
        });
        assert!(kept.0 == sent, "frames of {len} bytes");
        send(&mut a, BEST_EFFORT, b"and on");
        assert_eq!(wait_for(&mut b, 1), [b"and on"]);
    }
}

#[test]
fn a_connection_that_does_not_move_fails_its_frames_until_it_does() {
    let (mut a, mut b) = pair();
    let mut sent = fill(&mut a, BEST_EFFORT, 10_000);
    let next = vec![1; 10_000];
    let mut was_busy = false;
    until("it is no longer waited for", || {
        a.tend(mono_now());
        match offer(&mut a, BEST_EFFORT, &next) {
            // The kernel may find some more room.
            SendOutcome::Sent => sent.push(next.clone()),
            SendOutcome::Busy => was_busy = true,
            SendOutcome::Failed => return true,
        }
        false
    });
    assert!(was_busy, "first it is busy");
    assert!(a.is_connected(PEER));
    let mut kept = Keep::default();
    until("everything arrives", || {
        b.receive(64, true, &mut kept);
        a.flush();
        kept.0.len() >= sent.len()
    });
    assert!(kept.0 == sent);
    send(&mut a, BEST_EFFORT, b"moves again");
    assert_eq!(wait_for(&mut b, 1), [b"moves again"]);
    // Busy again at first, and not failed at once.
    fill(&mut a, BEST_EFFORT, 10_000);
}

#[test]
fn frames_left_for_want_of_budget_are_known_and_not_forgotten() {
    let (mut a, mut b) = pair();
    for number in 0..10u8 {
        assert_eq!(offer(&mut a, BEST_EFFORT, &[number]), SendOutcome::Sent);
    }
    a.flush();
    let mut kept = Keep::default();
    until("the first comes", || b.receive(1, true, &mut kept) == 1);
    for _ in 1..10 {
        assert!(b.holds_frames());
        assert_eq!(b.receive(1, true, &mut kept), 1);
    }
    assert!(!b.holds_frames());
    assert_eq!(kept.0, (0..10).map(|number| vec![number]).collect::<Vec<_>>());
}

#[test]
fn a_hurried_call_looks_where_the_last_frame_was() {
    let (mut a, mut b) = pair();
    for lane in [BEST_EFFORT, REAL_TIME, BEST_EFFORT, 2] {
        send(&mut a, lane, b"first");
        wait_for(&mut b, 1);
        let mut kept = Keep::default();
        assert_eq!(b.receive(8, false, &mut kept) + b.receive(8, false, &mut kept), 0);
        send(&mut a, lane, b"second");
        until("the second comes", || b.receive(8, false, &mut kept) > 0);
        assert_eq!(kept.0, [b"second"], "lane {lane}");
    }
}

#[test]
fn real_time_is_found_by_hurried_calls_while_best_effort_floods() {
    let (mut a, mut b) = pair();
    let mut kept = Keep::default();
    // Best effort is hot.
    send(&mut a, BEST_EFFORT, &[7; 1000]);
    until("best effort comes", || b.receive(64, true, &mut kept) > 0);
    kept.0.clear();
    send(&mut a, REAL_TIME, b"real time");
    until("real time comes", || {
        let _ = offer(&mut a, BEST_EFFORT, &[7; 1000]);
        a.flush();
        b.receive(4, false, &mut kept);
        kept.0.iter().any(|frame| frame == b"real time")
    });
}

#[test]
fn peers_take_turns_in_a_budget() {
    let setups: Vec<_> = (1..=3).map(setup).collect();
    let addresses: Vec<_> = setups.iter().map(|setup| Some(setup.local_addr())).collect();
    let [first, second, third] = <[TcpSetup; 3]>::try_from(setups).unwrap();
    let mut receiver = third.open(&addresses[..2]).unwrap();
    let mut senders = [first, second].map(|setup| setup.open(&[addresses[2]]).unwrap());
    until("all connect", || {
        receiver.tend(mono_now());
        for sender in &mut senders {
            sender.tend(mono_now());
        }
        [0, 1].iter().all(|peer| receiver.is_connected(PeerIndex(*peer)))
            && senders.iter().all(|sender| sender.is_connected(PEER))
    });
    for sender in &mut senders {
        for _ in 0..100 {
            assert_eq!(offer(sender, REAL_TIME, b"frame"), SendOutcome::Sent);
        }
        sender.flush();
    }
    #[derive(Default)]
    struct Count([u32; 2]);
    impl insane_link::FrameSink for Count {
        fn frame(&mut self, from: Option<PeerIndex>, _frame: &[u8]) {
            self.0[from.unwrap().index()] += 1;
        }
    }
    // Wait until both have something here.
    let mut count = Count::default();
    until("both are heard", || {
        receiver.receive(1, true, &mut count);
        count.0.iter().all(|frames| *frames > 0)
    });
    let before = count.0;
    for _ in 0..20 {
        assert_eq!(receiver.receive(2, true, &mut count), 2);
    }
    let [one, other] = [0, 1].map(|at| count.0[at] - before[at]);
    assert!(one.abs_diff(other) <= 2, "{one} and {other}");
}
