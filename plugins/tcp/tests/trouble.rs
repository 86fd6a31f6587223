//! Peers that vanish, cut their frames, send garbage, flood, or are nobody.

mod common;

use common::*;
use insane_link::{Link, LinkSetup, SendOutcome};
use insane_sys::clock::mono_now;
use insane_tcp::{TcpConfig, TcpLink, TcpSetup};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

fn idle(link: &mut TcpLink) -> Keep {
    let mut kept = Keep::default();
    for _ in 0..20 {
        std::thread::sleep(Duration::from_micros(200));
        link.tend(mono_now());
        link.receive(64, true, &mut kept);
    }
    kept
}

/// A link at `address` whose peer is at `peer`.
fn link_at(address: SocketAddr, peer: SocketAddr) -> TcpLink {
    let config = TcpConfig { bind: address, ..patient(1) };
    TcpSetup::bind(config).unwrap().open(&[Some(peer)]).unwrap()
}

#[test]
fn a_peer_that_comes_back_is_connected_again_whichever_side_it_was() {
    let (mut a, mut b) = pair();
    let (at_a, at_b) = (a.local_addr(), b.local_addr());
    for round in 0..3 {
        drop(b);
        until("the loss is noticed", || {
            a.receive(64, true, &mut Keep::default());
            a.counts().lost == 2 * (round + 1)
        });
        assert_eq!(offer(&mut a, REAL_TIME, b"nobody"), SendOutcome::Failed);
        b = link_at(at_b, at_a);
        connect(&mut a, &mut b);
        send(&mut a, REAL_TIME, b"there again");
        send(&mut b, BEST_EFFORT, b"and here");
        assert_eq!(wait_for(&mut b, 1), [b"there again"]);
        assert_eq!(wait_for(&mut a, 1), [b"and here"]);
    }
    drop(a);
    until("the loss is noticed", || {
        b.receive(64, true, &mut Keep::default());
        b.counts().lost == 2
    });
    let mut a = link_at(at_a, at_b);
    connect(&mut a, &mut b);
    send(&mut b, REAL_TIME, b"there again");
    assert_eq!(wait_for(&mut a, 1), [b"there again"]);
}

#[test]
fn while_nobody_is_there_attempts_grow_rare_and_succeed_in_the_end() {
    let (a, b) = (setup(1), setup(2));
    let (at_a, at_b) = (a.local_addr(), b.local_addr());
    let mut a = a.open(&[Some(at_b)]).unwrap();
    drop(b);
    // Time is an argument: a minute passes at once.
    let mut now = mono_now();
    let step = insane_core::Nanos::from_millis(10);
    let mut failed = Vec::new();
    for _ in 0..6_000 {
        now += step;
        let before = a.counts().attempts_failed;
        a.tend(now);
        if a.counts().attempts_failed > before {
            failed.push(now);
        }
    }
    // Both classes: 50, 100, 200, 400, 800, 1600 ms, then two seconds each; give or take a
    // quarter.
    assert!((50..=100).contains(&a.counts().attempts_failed), "{:?}", a.counts());
    assert!(failed[failed.len() - 1].since(failed[0]).0 > 50_000_000_000);
    let mut b = link_at(at_b, at_a);
    until("the links connect", || {
        now += step;
        a.tend(now);
        b.tend(now);
        a.is_connected(PEER) && b.is_connected(PEER)
    });
}

#[test]
fn a_reset_ends_one_connection_and_leaves_the_other() {
    let mut link = waiting_link();
    let peer = RawPeer::connect(&mut link);
    let [mut real_time, best_effort] = peer.0;
    send(&mut link, BEST_EFFORT, b"not read by the peer");
    // Closed with bytes unread: a reset.
    until("bytes come", || best_effort.peek(&mut [0; 1]).is_ok_and(|count| count == 1));
    drop(best_effort);
    until("the loss is noticed", || {
        link.receive(64, true, &mut Keep::default());
        link.counts().lost == 1
    });
    assert_eq!(offer(&mut link, BEST_EFFORT, b"lost"), SendOutcome::Failed);
    real_time.write_all(&framed(b"still here")).unwrap();
    assert_eq!(wait_for(&mut link, 1), [b"still here"]);
    send(&mut link, REAL_TIME, b"yes");
    let mut answer = [0; 7];
    real_time.read_exact(&mut answer).unwrap();
    assert_eq!(answer.to_vec(), framed(b"yes"));
}

#[test]
fn frames_that_come_in_pieces_are_put_together() {
    let mut link = waiting_link();
    let [_, mut best_effort] = RawPeer::connect(&mut link).0;
    let frames: Vec<Vec<u8>> = [1, 2, 300, 5].into_iter().map(|len| vec![len as u8; len]).collect();
    let bytes: Vec<u8> = frames.iter().flat_map(|frame| framed(frame)).collect();
    let mut kept = Keep::default();
    for byte in &bytes {
        best_effort.write_all(std::slice::from_ref(byte)).unwrap();
        link.receive(64, true, &mut kept);
    }
    until("all frames are whole", || {
        link.receive(64, true, &mut kept);
        kept.0.len() == frames.len()
    });
    assert_eq!(kept.0, frames);
}

#[test]
fn a_peer_that_dies_in_the_middle_of_a_frame_leaves_nothing_of_it() {
    let mut link = waiting_link();
    let [real_time, mut best_effort] = RawPeer::connect(&mut link).0;
    best_effort.write_all(&framed(b"whole")).unwrap();
    best_effort.write_all(&framed(&[9; 1000])[..500]).unwrap();
    assert_eq!(wait_for(&mut link, 1), [b"whole"]);
    drop((real_time, best_effort));
    until("the loss is noticed", || {
        link.receive(64, true, &mut Keep::default());
        link.counts().lost == 2
    });
    let [_real_time, mut best_effort] = RawPeer::connect(&mut link).0;
    best_effort.write_all(&framed(b"new")).unwrap();
    assert_eq!(wait_for(&mut link, 1), [b"new"], "nothing of the cut frame");
    assert_eq!(link.counts().garbage, 0);
}

#[test]
fn what_is_no_frame_ends_the_connection_after_the_frames_before_it() {
    for len in [0, FRAME_BYTES + 1, u32::MAX, u32::from_le_bytes(*b"GET ")] {
        let mut link = waiting_link();
        let [_real_time, mut best_effort] = RawPeer::connect(&mut link).0;
        let mut bytes = framed(b"before");
        bytes.extend(len.to_le_bytes());
        bytes.extend([1; 100]);
        best_effort.write_all(&bytes).unwrap();
        assert_eq!(wait_for(&mut link, 1), [b"before"]);
        until("garbage is noticed", || {
            assert_eq!(link.receive(64, true, &mut Keep::default()), 0);
            link.counts().garbage == 1
        });
        until("the connection is closed", || is_closed(&best_effort));
        assert_eq!(link.counts().lost, 1, "the other class lives");
        RawPeer::connect(&mut link);
    }
}

#[test]
fn garbage_behind_a_spent_budget_is_found_too() {
    let mut link = waiting_link();
    let [_real_time, mut best_effort] = RawPeer::connect(&mut link).0;
    best_effort.write_all(&[framed(b"before"), vec![0; 8]].concat()).unwrap();
    let mut kept = Keep::default();
    until("the frame comes", || link.receive(1, true, &mut kept) == 1);
    until("garbage is noticed", || {
        link.receive(1, true, &mut kept);
        link.counts().garbage == 1
    });
    assert!(!link.holds_frames());
}

#[test]
fn a_hello_that_is_wrong_closes_the_connection_and_is_counted() {
    let mut link = waiting_link();
    let right = hello(0, RAW_PORT, FRAME_BYTES);
    let changed = |at: usize, to: u8| {
        let mut hello = right.clone();
        hello[at] = to;
        hello
    };
    let wrong = [
        ("another version", changed(4, 2)),
        ("version 0", changed(4, 0)),
        ("another magic", changed(0, b'i')),
        ("another class", hello(1, RAW_PORT, FRAME_BYTES)),
        ("no class", hello(2, RAW_PORT, FRAME_BYTES)),
        ("a port that no peer has", hello(0, RAW_PORT + 1, FRAME_BYTES)),
        ("larger frames", hello(0, RAW_PORT, FRAME_BYTES + 1)),
        ("smaller frames", hello(0, RAW_PORT, FRAME_BYTES - 1)),
        ("a request of another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ];
    for (number, (what, bytes)) in (1..).zip(wrong) {
        let mut stream = call(&link, 0);
        stream.write_all(&bytes).unwrap();
        until(what, || {
            link.tend(mono_now());
            link.counts().hellos_refused == number
        });
        until("it is closed", || is_closed(&stream));
    }
    assert_eq!(link.counts().connected, 0);
    // Nothing of that harms the right one.
    RawPeer::connect(&mut link);
}

#[test]
fn a_hello_in_pieces_is_one_and_what_follows_at_once_is_not_lost() {
    let mut link = waiting_link();
    let mut real_time = call(&link, 0);
    for byte in hello(0, RAW_PORT, FRAME_BYTES) {
        real_time.write_all(&[byte]).unwrap();
        link.tend(mono_now());
    }
    let mut best_effort = call(&link, 1);
    best_effort.write_all(&[hello(1, RAW_PORT, FRAME_BYTES), framed(b"at once")].concat()).unwrap();
    until("both are known", || {
        link.tend(mono_now());
        link.is_connected(PEER)
    });
    assert_eq!(wait_for(&mut link, 1), [b"at once"]);
}

#[test]
fn an_answer_from_somebody_else_is_not_believed() {
    let [real_time, best_effort] = listeners(2);
    let at = real_time.local_addr().unwrap();
    let mut link = setup(1).open(&[Some(at)]).unwrap();
    let answers = [
        hello(0, at.port() + 2, FRAME_BYTES),
        hello(1, at.port(), FRAME_BYTES),
        hello(0, at.port(), 2 * FRAME_BYTES),
        b"INSt\x02_______".to_vec(),
        b"HTTP/1.1 400".to_vec(),
    ];
    real_time.set_nonblocking(true).unwrap();
    for (number, answer) in (1..).zip(answers) {
        let mut answered = None;
        until("the answer is refused", || {
            link.tend(mono_now());
            if answered.is_none()
                && let Ok((mut stream, from)) = real_time.accept()
            {
                assert_eq!(from.ip(), host(1).ip(), "it comes from the address that peers have for it");
                stream.write_all(&answer).unwrap();
                answered = Some(stream);
            }
            link.counts().attempts_failed >= number
        });
    }
    assert_eq!(link.counts().connected, 0);
    drop(best_effort);
}

#[test]
fn a_peer_that_accepts_and_says_nothing_is_given_up_and_tried_again() {
    let listeners = listeners(2);
    let at = listeners[0].local_addr().unwrap();
    let mut link = setup(1).open(&[Some(at)]).unwrap();
    let mut now = mono_now();
    for _ in 0..600 {
        now += insane_core::Nanos::from_millis(10);
        link.tend(now);
    }
    // Six seconds: two for each attempt, and the waits between.
    assert!((4..=8).contains(&link.counts().attempts_failed), "{:?}", link.counts());
}

#[test]
fn hosts_that_no_peer_is_on_are_closed_on_sight() {
    let mut link = waiting_link();
    let config = TcpConfig::new(host(3));
    let options = insane_sys::tcp::StreamOptions::default();
    for number in 1..=20 {
        let stream = insane_sys::tcp::connect(config.bind, link.local_addr(), &options).unwrap();
        until("the stranger is closed", || {
            link.tend(mono_now());
            link.counts().strangers == number
        });
        until("it is closed", || is_closed(&stream));
    }
    RawPeer::connect(&mut link);
}

#[test]
fn silent_callers_are_closed_after_two_seconds() {
    let mut link = waiting_link();
    let callers = [call(&link, 0), call(&link, 1)];
    let mut now = mono_now();
    until("they are heard", || link.tend(now));
    now += insane_core::Nanos::from_millis(1900);
    assert!(link.tend(now), "somebody is listened to");
    assert_eq!(link.counts().silent, 0);
    now += insane_core::Nanos::from_millis(200);
    link.tend(now);
    assert_eq!(link.counts().silent, 2);
    assert!(callers.iter().all(is_closed));
    assert!(!link.tend(now));
}

#[test]
fn a_flood_of_callers_is_bounded_and_keeps_no_peer_out() {
    let mut link = waiting_link();
    // All that the kernel queues, and more than there are places.
    let flood: Vec<TcpStream> = (0..100).map(|_| call(&link, 0)).collect();
    // Each call accepts eight, and there are sixteen places.
    for accepted in (8..100u64).step_by(8) {
        assert!(link.tend(mono_now()));
        assert_eq!(link.counts().crowded_out, accepted.saturating_sub(16));
    }
    until("the flood is in", || {
        link.tend(mono_now());
        link.counts().crowded_out == 100 - 16
    });
    let [mut real_time, _] = RawPeer::connect(&mut link).0;
    assert!(link.counts().crowded_out <= 100 - 16 + 1);
    real_time.write_all(&framed(b"through")).unwrap();
    assert_eq!(wait_for(&mut link, 1), [b"through"]);
    drop(flood);
    until("their ends are noticed", || !link.tend(mono_now()));
}

#[test]
fn strangers_wake_nobody() {
    let mut link = waiting_link();
    let peer = RawPeer::connect(&mut link);
    let mut knocking = call(&link, 0);
    knocking.write_all(b"knock").unwrap();
    let other = call(&link, 1);
    link.tend(mono_now());
    idle(&mut link);
    let is_readable = |link: &TcpLink| {
        let fd = link.readable_fds().next().unwrap();
        let epoll = insane_sys::event::Epoll::new().unwrap();
        epoll.add(fd, 1, insane_sys::event::Interest::Read, insane_sys::event::Trigger::Level).unwrap();
        let mut ready = [insane_sys::event::Ready::NONE; 1];
        epoll.wait(&mut ready, Some(insane_core::Nanos::from_millis(20))).unwrap() == 1
    };
    assert!(!is_readable(&link));
    drop(other);
    let [mut real_time, _] = peer.0;
    real_time.write_all(&framed(b"a peer")).unwrap();
    until("a peer does", || is_readable(&link));
}

#[test]
fn a_new_connection_of_a_peer_takes_the_place_of_the_old_one() {
    let mut link = waiting_link();
    let mut old = RawPeer::connect(&mut link);
    old.0[0].write_all(&framed(&[1; 1000])[..500]).unwrap();
    let mut kept = Keep::default();
    for _ in 0..20 {
        link.receive(64, true, &mut kept);
    }
    // As after a cut cable: the old connection has no end, and there is a new one.
    let mut new = RawPeer::connect(&mut link);
    assert_eq!((link.counts().replaced, link.counts().lost), (2, 2));
    assert!(old.0.iter().all(is_closed));
    new.0[0].write_all(&framed(b"new")).unwrap();
    assert_eq!(wait_for(&mut link, 1), [b"new"]);
    send(&mut link, BEST_EFFORT, b"to the new one");
    let mut answer = [0; 18];
    new.0[1].read_exact(&mut answer).unwrap();
    assert_eq!(answer.to_vec(), framed(b"to the new one"));
}

#[test]
fn a_peer_without_a_sign_of_life_is_given_up() {
    let config = TcpConfig { user_timeout_ms: 100, ..TcpConfig::new(host(1)) };
    let raw = (Ipv4Addr::LOCALHOST, RAW_PORT).into();
    let mut link = TcpSetup::bind(config).unwrap().open(&[Some(raw)]).unwrap();
    let _peer = RawPeer::connect(&mut link);
    // It never reads, so what is sent stays unacknowledged in the end.
    until("its connection is given up", || {
        while offer(&mut link, BEST_EFFORT, &[5; 10_000]) == SendOutcome::Sent {}
        link.receive(64, true, &mut Keep::default());
        link.counts().lost == 1
    });
}
