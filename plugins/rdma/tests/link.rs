//! What the RDMA link promises beyond the suite.

mod common;

use common::*;
use insane_core::PeerIndex;
use insane_core::limits::PEERS_MAX;
use insane_link::{Link, LinkSetup, SendOutcome};
use insane_rdma::{FRAME_BYTES_LIMIT, FRAME_BYTES_LOW, RdmaConfig, RdmaError, RdmaLink, RdmaSetup};
use insane_rdma_sys::{Batch, CmEvent, CmEvents, CmId, Connecting, Cq, Device, Inbox, Outbox, Qp, QpOptions};
use insane_sys::clock::mono_now;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

#[test]
fn a_wrong_configuration_is_refused_and_what_is_missing_is_told() {
    let config = RdmaConfig::new((Ipv4Addr::LOCALHOST, 7400).into());
    let refused = |config| RdmaSetup::bind(config).map(|_| ()).unwrap_err();
    for given in [0, FRAME_BYTES_LOW - 1, FRAME_BYTES_LIMIT + 1, u32::MAX] {
        assert_eq!(refused(RdmaConfig { frame_bytes_max: given, ..config.clone() }), RdmaError::FrameBytes { given });
    }
    assert_eq!(refused(RdmaConfig { real_time_dscp: 64, ..config.clone() }), RdmaError::Dscp { given: 64 });
    for address in [(Ipv4Addr::UNSPECIFIED, 7400).into(), SocketAddr::from((Ipv6Addr::UNSPECIFIED, 7400))] {
        assert_eq!(refused(RdmaConfig { bind: address, ..config.clone() }), RdmaError::Unspecified { address });
    }
    // An address for documentation: no host has it, whatever devices there are.
    let elsewhere = refused(RdmaConfig { bind: "192.0.2.1:7400".parse().unwrap(), ..config });
    assert!(matches!(elsewhere, RdmaError::Verbs(_)), "{elsewhere}");
    assert!(!elsewhere.to_string().is_empty());
}

#[test]
fn peers_that_cannot_be_are_refused() {
    let Some(ip) = v4() else { return };
    let refused = |peers: &[Option<SocketAddr>]| setup(ip).open(peers).map(|_| ()).unwrap_err();
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    assert!(matches!(refused(&[Some(address("[::1]:7000"))]), RdmaError::PeerFamily { .. }));
    for unusable in ["10.80.0.7:0", "0.0.0.0:7000", "224.0.0.1:7000"] {
        let expected = RdmaError::PeerUnusable { peer: PeerIndex(1), address: address(unusable) };
        assert_eq!(refused(&[None, Some(address(unusable))]), expected);
    }
    let twice = [Some(address("10.0.0.1:7000")), None, Some(address("10.0.0.1:7000"))];
    let (first, second) = (PeerIndex(0), PeerIndex(2));
    assert_eq!(refused(&twice), RdmaError::PeerDuplicate { first, second, address: address("10.0.0.1:7000") });
    assert_eq!(refused(&[None; PEERS_MAX + 1]), RdmaError::TooManyPeers { given: PEERS_MAX + 1 });
    let own = setup(ip);
    let local = own.local_addr();
    assert_eq!(own.open(&[Some(local)]).map(|_| ()).unwrap_err(), RdmaError::PeerIsSelf { peer: PEER, address: local });
    let taken = setup(ip);
    assert!(RdmaSetup::bind(RdmaConfig::new(taken.local_addr())).is_err(), "the port is taken");
}

/// How often a receiver of this host's devices had no buffer, as they count it.
fn receiver_not_ready() -> u64 {
    let devices = std::fs::read_dir("/sys/class/infiniband").unwrap().flatten();
    let files = ["rcvd_rnr_err", "send_rnr_err", "out_of_buffer", "rnr_nak_retry_err"];
    let paths = devices.flat_map(|device| files.map(|file| device.path().join("ports/1/hw_counters").join(file)));
    paths.filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()).sum()
}

/// Fills a connection that nobody looks at; returns what it took.
fn fill(link: &mut RdmaLink, lane: u8, len: usize) -> Vec<Vec<u8>> {
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
fn a_receiver_that_does_not_look_is_never_sent_more_than_it_has_room_for() {
    let Some(ip) = v4() else { return };
    let before = receiver_not_ready();
    let (mut a, mut b) = pair(ip);
    for len in [100, 3_000, 16_000] {
        for lane in [BEST_EFFORT, REAL_TIME] {
            let sent = fill(&mut a, lane, len);
            assert!(sent.len() > 10, "{} frames", sent.len());
            // Time for what went too far to be refused.
            std::thread::sleep(std::time::Duration::from_millis(100));
            let mut kept = Keep::default();
            until("everything arrives", || {
                turn(&mut b, &mut kept);
                turn(&mut a, &mut Keep::default());
                kept.0.len() >= sent.len()
            });
            assert!(kept.0 == sent, "frames of {len} bytes");
        }
    }
    assert_eq!(receiver_not_ready(), before, "a message found no buffer");
    assert_eq!((a.counts().lost, b.counts().lost), (0, 0));
}

/// Both sides send all they can, in both classes, in frames of changing size, and take what
/// comes in portions.
#[test]
fn floods_in_both_directions_lose_nothing_and_find_buffers() {
    const FRAMES: u32 = 3_000;
    let Some(ip) = v4() else { return };
    let before = receiver_not_ready();
    let (a, b) = pair(ip);
    let mut ends = [(a, [0; 2], [0; 2]), (b, [0; 2], [0; 2])];
    let frame = |number: u32| -> Vec<u8> {
        let most = if number.is_multiple_of(16) { 16_000 } else { 300 };
        let len = 4 + (number as usize * 37) % most;
        number.to_le_bytes().into_iter().cycle().take(len).collect()
    };
    let mut round = 0_u32;
    until("all frames came", || {
        for _ in 0..50 {
            round += 1;
            for (link, sent, came) in &mut ends {
                for (lane, sent) in [REAL_TIME, BEST_EFFORT].into_iter().zip(sent.iter_mut()) {
                    while *sent < FRAMES && offer(link, lane, &prefixed(lane, &frame(*sent))) == SendOutcome::Sent {
                        *sent += 1;
                    }
                }
                link.flush();
                let mut kept = Keep::default();
                link.tend(mono_now());
                link.receive(1 + round % 90, true, &mut kept);
                for came_frame in kept.0 {
                    let number = &mut came[usize::from(came_frame[0] != REAL_TIME)];
                    assert!(came_frame[1..] == frame(*number), "frame {number}");
                    *number += 1;
                }
            }
        }
        ends.iter().all(|(_, sent, came)| *sent == [FRAMES; 2] && *came == [FRAMES; 2])
    });
    assert_eq!(receiver_not_ready(), before, "a message found no buffer");
    assert!(ends.iter().all(|(link, ..)| link.counts().lost == 0));
}

/// A frame that says its lane.
fn prefixed(lane: u8, frame: &[u8]) -> Vec<u8> {
    [&[lane][..], frame].concat()
}

#[test]
fn a_best_effort_connection_that_is_full_does_not_touch_real_time() {
    let Some(ip) = v4() else { return };
    let (mut a, mut b) = pair(ip);
    fill(&mut a, BEST_EFFORT, 16_000);
    for number in 0..100u8 {
        send(&mut a, REAL_TIME, &[number]);
        if number % 10 == 9 {
            let mut kept = Keep::default();
            until("real time comes", || {
                b.receive(10, true, &mut kept);
                a.receive(10, true, &mut Keep::default());
                kept.0.iter().any(|frame| frame == &[number])
            });
        }
    }
}

#[test]
fn a_connection_that_does_not_move_fails_its_frames_until_it_does() {
    let Some(ip) = v4() else { return };
    let (mut a, mut b) = pair(ip);
    let sent = fill(&mut a, BEST_EFFORT, 10_000);
    until("it is no longer waited for", || {
        a.tend(mono_now());
        offer(&mut a, BEST_EFFORT, &[1; 10_000]) == SendOutcome::Failed
    });
    assert!(a.is_connected(PEER));
    let mut kept = Keep::default();
    until("it moves", || {
        turn(&mut b, &mut kept);
        turn(&mut a, &mut Keep::default());
        kept.0.len() == sent.len() && offer(&mut a, BEST_EFFORT, b"on") == SendOutcome::Sent
    });
}

#[test]
fn small_frames_of_a_burst_go_in_one_message() {
    let Some(ip) = v4() else { return };
    let (mut a, mut b) = pair(ip);
    // More than a window of messages, and nobody looks meanwhile.
    for number in 0..100u8 {
        assert_eq!(offer(&mut a, REAL_TIME, &[number; 64]), SendOutcome::Sent);
    }
    a.flush();
    let mut kept = Keep::default();
    until("all come", || {
        b.receive(64, true, &mut kept);
        kept.0.len() == 100
    });
    assert_eq!(kept.0, (0..100u8).map(|number| vec![number; 64]).collect::<Vec<_>>());
}

#[test]
fn what_was_sent_and_not_flushed_goes_out_when_the_link_closes_and_the_port_is_free_again() {
    let Some(ip) = v4() else { return };
    let (mut a, mut b) = pair(ip);
    let (at_a, at_b) = (a.local_addr(), b.local_addr());
    assert_eq!(offer(&mut a, REAL_TIME, b"last words"), SendOutcome::Sent);
    drop(a);
    assert_eq!(wait_for(&mut b, 1), [b"last words"]);
    until_lost(&mut b);
    assert!(!b.is_connected(PEER));
    assert_eq!(offer(&mut b, REAL_TIME, b"anybody?"), SendOutcome::Failed);
    // Whoever called calls again, and whoever answered answers.
    let mut a = RdmaSetup::bind(RdmaConfig::new(at_a)).unwrap().open(&[Some(at_b)]).unwrap();
    connect(&mut a, &mut b);
    send(&mut a, REAL_TIME, b"here again");
    assert_eq!(wait_for(&mut b, 1), [b"here again"]);
    send(&mut b, BEST_EFFORT, b"welcome");
    assert_eq!(wait_for(&mut a, 1), [b"welcome"]);
}

/// The port that a raw peer says is its own: lower than any that a link gets, so it calls.
const RAW_PORT: u16 = 1;

/// A peer by hand: one connection with the right words, and what goes over it.
struct RawPeer {
    qp: Arc<Qp>,
    outbox: Outbox,
    sent: Arc<Cq>,
    _events: CmEvents,
}

impl RawPeer {
    fn call(link: &mut RdmaLink, class: u8) -> RawPeer {
        let to = link.local_addr();
        let device = Device::at(to).unwrap();
        let (sent, came) = (Cq::new(&device, 64, None, 0).unwrap(), Cq::new(&device, 64, None, 0).unwrap());
        let mut inbox = Inbox::new(&device, 4096, 8, 1).unwrap();
        assert!(inbox.add(Inbox::region(&device, 4096, 8).unwrap()).is_ok());
        let events = CmEvents::new().unwrap();
        let id = CmId::new(&events, 1).unwrap();
        id.resolve_address((to.ip(), 0).into(), to, 2_000).unwrap();
        let (mut id, mut qp, mut stands) = (Some(id), None, false);
        until("it is answered", || {
            turn(link, &mut Keep::default());
            match events.take() {
                Some(CmEvent::AddressResolved { .. }) => id.as_ref().unwrap().resolve_route(2_000).unwrap(),
                Some(CmEvent::RouteResolved { .. }) => {
                    let with = Connecting::into(&inbox, QpOptions { sends_max: 32, inline_bytes: 0 });
                    let made = id.take().unwrap().queues(&device, [sent.clone(), came.clone()], &with).unwrap();
                    made.connect(&hello(class, RAW_PORT, 16 * 1024)).unwrap();
                    qp = Some(made);
                }
                Some(CmEvent::Established { private, .. }) => {
                    assert_eq!(private[..14], hello(class, to.port(), 16 * 1024));
                    stands = true;
                }
                Some(CmEvent::Failed { status, .. }) => panic!("refused: {status}"),
                _ => {}
            }
            stands
        });
        let outbox = Outbox::new(&device, 64 * 1024).unwrap();
        RawPeer { qp: qp.unwrap(), outbox, sent, _events: events }
    }

    fn say(&mut self, message: &[u8]) {
        self.outbox.bytes()[..message.len()].copy_from_slice(message);
        self.qp.send(&self.outbox, 0, message.len(), 0).unwrap();
        let mut batch: Option<Batch> = None;
        until("it went", || {
            batch = self.sent.poll().ok().filter(|batch| !batch.is_empty());
            batch.is_some()
        });
    }
}

/// A message by its form.
fn message(grant: u32, frames: &[&[u8]]) -> Vec<u8> {
    let mut bytes = grant.to_le_bytes().to_vec();
    for frame in frames {
        bytes.extend((frame.len() as u32).to_le_bytes());
        bytes.extend(*frame);
    }
    bytes
}

fn waiting_link(ip: IpAddr) -> RdmaLink {
    setup(ip).open(&[Some((ip, RAW_PORT).into())]).unwrap()
}

#[test]
fn what_is_no_message_ends_its_connection_and_no_other() {
    let Some(ip) = v4() else { return };
    let mut link = waiting_link(ip);
    let mut real_time = RawPeer::call(&mut link, 0);
    real_time.say(&message(16, &[b"one", b"two"]));
    assert_eq!(wait_for(&mut link, 2), [b"one", b"two"]);
    let garbage: [&[u8]; 6] = [
        // Too short, a frame of no bytes, one that is cut, one that is too large, and grants of
        // less and of more than can be.
        &[1, 2],
        &message(16, &[b""]),
        &message(16, &[b"cut"])[..9],
        &[&message(16, &[])[..], &[255, 255, 0, 0, 1]].concat(),
        &message(15, &[b"x"]),
        &message(33, &[]),
    ];
    for (number, garbage) in garbage.into_iter().enumerate() {
        let mut best_effort = RawPeer::call(&mut link, 1);
        best_effort.say(&message(16, &[]));
        until("it stands", || {
            turn(&mut link, &mut Keep::default());
            link.is_connected(PEER)
        });
        best_effort.say(garbage);
        until("it is noticed", || {
            turn(&mut link, &mut Keep::default());
            link.counts().garbage == number as u64 + 1
        });
        assert!(!link.is_connected(PEER));
        real_time.say(&message(16, &[b"still here"]));
        assert_eq!(wait_for(&mut link, 1), [b"still here"], "after garbage {number}");
    }
}

#[test]
fn who_sends_more_than_was_granted_is_thrown_out() {
    let Some(ip) = v4() else { return };
    let mut link = waiting_link(ip);
    let mut peer = RawPeer::call(&mut link, 1);
    // The link looks at nothing meanwhile: a window, and the spare buffers.
    for _ in 0..17 {
        peer.say(&message(16, &[b"more"]));
    }
    until("it is noticed", || {
        turn(&mut link, &mut Keep::default());
        link.counts().garbage == 1
    });
}

#[test]
fn calls_of_others_are_refused_and_a_new_call_of_a_peer_replaces_the_old() {
    let Some(ip) = v4() else { return };
    let mut link = waiting_link(ip);
    let at = link.local_addr();
    for wrong in [&b"nothing"[..], &hello(0, RAW_PORT + 1, 16 * 1024), &hello(0, RAW_PORT, 16 * 1024 + 1)] {
        assert!(!call(at, wrong), "{wrong:?}");
    }
    assert_eq!(link.counts().hellos_refused, 3);
    let mut old = RawPeer::call(&mut link, 0);
    old.say(&message(16, &[b"old"]));
    assert_eq!(wait_for(&mut link, 1), [b"old"]);
    let mut new = RawPeer::call(&mut link, 0);
    new.say(&message(16, &[b"new"]));
    assert_eq!(wait_for(&mut link, 1), [b"new"]);
    assert_eq!((link.counts().replaced, link.counts().connected), (1, 2));
    let nobody = setup(ip).open(&[]).unwrap();
    assert!(!call(nobody.local_addr(), &hello(0, RAW_PORT, 16 * 1024)));
    assert_eq!(nobody.counts().strangers, 1);
}

/// Sends best effort as long as it is taken, more than a raw peer has buffers for.
fn flood(link: &mut RdmaLink, len: usize) {
    let mut taken = 0;
    while offer(link, BEST_EFFORT, &vec![7; len]) == SendOutcome::Sent {
        taken += 1;
    }
    link.flush();
    assert!(taken > 10, "{taken} frames");
}

/// It says a window of sixteen messages and has eight buffers: its device refuses the ninth, again
/// and again, until ours gives the connection up.
#[test]
fn a_peer_with_fewer_buffers_than_it_says_loses_its_connection_and_no_other_waits() {
    let Some(ip) = v4() else { return };
    let mut link = waiting_link(ip);
    let mut real_time = RawPeer::call(&mut link, 0);
    real_time.say(&message(16, &[b"one"]));
    assert_eq!(wait_for(&mut link, 1), [b"one"]);
    let mut best_effort = RawPeer::call(&mut link, 1);
    best_effort.say(&message(16, &[]));
    until("it stands", || {
        turn(&mut link, &mut Keep::default());
        link.is_connected(PEER)
    });
    flood(&mut link, 3_000);
    let mut number = 0_u8;
    until("it is given up", || {
        // Real time passes meanwhile.
        number = number.wrapping_add(1);
        real_time.say(&message(16, &[&[number]]));
        assert_eq!(wait_for(&mut link, 1), [[number]]);
        link.counts().lost == 1
    });
    assert_eq!(link.counts().garbage, 0);
    assert!(!link.is_connected(PEER));
    assert_eq!(offer(&mut link, BEST_EFFORT, b"gone"), SendOutcome::Failed);
    let mut again = RawPeer::call(&mut link, 1);
    again.say(&message(16, &[b"again"]));
    assert_eq!(wait_for(&mut link, 1), [b"again"]);
    assert!(link.is_connected(PEER));
}

/// What is under way then is lost, and nothing of it is sent by the next connection.
#[test]
fn a_peer_that_vanishes_with_messages_under_way_is_noticed_and_may_return() {
    let Some(ip) = v4() else { return };
    let mut link = waiting_link(ip);
    for round in 1..=3_u64 {
        let mut peers = [RawPeer::call(&mut link, 0), RawPeer::call(&mut link, 1)];
        for peer in &mut peers {
            peer.say(&message(16, &[b"here"]));
        }
        assert_eq!(wait_for(&mut link, 2), [b"here", b"here"]);
        assert!(link.is_connected(PEER));
        // More than it has buffers for: some are under way, some wait.
        flood(&mut link, 3_000);
        drop(peers);
        until("it is noticed", || {
            turn(&mut link, &mut Keep::default());
            link.counts().lost == 2 * round
        });
        for lane in [REAL_TIME, BEST_EFFORT] {
            assert_eq!(offer(&mut link, lane, b"gone"), SendOutcome::Failed);
        }
        assert!(!link.holds_frames(), "nobody spins for it");
    }
    assert_eq!((link.counts().garbage, link.counts().connected), (0, 6));
}
