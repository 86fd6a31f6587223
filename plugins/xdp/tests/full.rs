//! What the kernel does not take, or takes and drops: it is counted or kept, and nobody asks again
//! and again in vain.

use insane_conformance::wire::{Hosts, Namespace, PATIENCE, WORLD_LINK, WORLD_PEER, frame, until_known};
use insane_core::{Lane, PeerIndex};
use insane_link::{Link, LinkSetup, SendOutcome};
use insane_xdp::{Mode, XdpConfig, XdpLink, XdpSetup};
use insane_xdp_sys::interface::Interface;
use insane_xdp_sys::{Binding, Kick, Xsk, XskOptions};
use std::process::Command;
use std::time::Instant;

const MODES: [Mode; 2] = [Mode::Native, Mode::Skb];

fn link(hosts: &Hosts, mode: Mode) -> XdpLink {
    let config = XdpConfig { mode, ..XdpConfig::new("x0", WORLD_LINK.parse().unwrap()) };
    let peers = [Some(WORLD_PEER.parse().unwrap())];
    let mut link = hosts.ours.inside(|| XdpSetup::bind(config).unwrap().open(&peers).unwrap());
    until_known(&mut link, XdpLink::knows_all_ways);
    link
}

fn send(link: &mut XdpLink, lane: Lane, bytes: &[u8]) -> SendOutcome {
    link.send(PeerIndex(0), lane, bytes, (&[][..]).into())
}

/// As with a cable that is pulled: the interface is up, and the kernel drops what it takes.
#[test]
fn what_an_interface_without_a_carrier_drops_is_counted_and_holds_up_nothing() {
    const FRAMES: u64 = 500;
    for mode in MODES {
        let Some(hosts) = Hosts::make() else { return };
        hosts.join();
        let mut link = link(&hosts, mode);
        hosts.kernel.ip("link set p0 down\n");
        let full = frame(0, 1400);
        for number in 0..FRAMES {
            let lane = if number % 2 == 0 { Lane::LAST } else { Lane::CONTROL };
            assert_eq!(send(&mut link, lane, &full), SendOutcome::Sent);
            if number % 10 == 9 {
                link.flush();
                assert!(!link.holds_frames(), "{mode:?}: nothing waits for the carrier");
            }
        }
        let counts = link.counts();
        assert_eq!((counts.unsent_lost, counts.sockets.send_dropped), (FRAMES, FRAMES), "{mode:?}: {counts:?}");
        assert_eq!((counts.interface_lost, counts.sockets.kicks_failed), (0, 0));
        hosts.kernel.ip("link set p0 up\n");
        let end = Instant::now() + PATIENCE;
        // The carrier is told a moment later.
        let mut dropped = FRAMES;
        while dropped != 0 {
            assert!(Instant::now() < end, "the carrier is not back");
            let before = link.counts().sockets.send_dropped;
            assert_eq!(send(&mut link, Lane::LAST, &full), SendOutcome::Sent);
            link.flush();
            dropped = link.counts().sockets.send_dropped - before;
        }
    }
}

/// A device below the interface keeps what it was given, so the socket is full and stays so.
#[test]
fn a_socket_that_is_full_costs_one_call_a_look_and_no_frame() {
    const FRAMES: usize = 200;
    const LEN: usize = 1400;
    let Some(namespace) = Namespace::make() else { return };
    namespace.ip("link add y0 type veth peer name p0\nlink set y0 up\nlink set p0 up\n\
         link add x0 link y0 type macvlan mode bridge\nlink set x0 up\n");
    let tc = |words: &str| {
        let run = || Command::new("tc").args(words.split(' ')).status().unwrap();
        assert!(namespace.inside(run).success(), "tc {words}");
    };
    // One frame in a minute or so.
    tc("qdisc add dev y0 root tbf rate 200bit burst 1600 limit 10000000");
    let interface = namespace.inside(|| Interface::find("x0").unwrap().index);
    let options = XskOptions { interface, queue: 0, binding: Binding::Copy, chunk_bytes: 2048, ring_frames: 256 };
    let mut xsk = namespace.inside(|| Xsk::open(&options).unwrap());
    for _ in 0..FRAMES {
        let chunk = xsk.reserve(1).unwrap();
        xsk.bytes(&chunk)[..12].copy_from_slice(&[2; 12]);
        xsk.submit(chunk, 0..LEN);
    }
    assert_eq!(xsk.kick(1), Kick::More, "the socket has no room for all of them");
    let left = xsk.left();
    // Kernels before 6.17 say what they took when they took all, so a look cannot tell.
    let tells = left < FRAMES as u32;
    println!("{left} wait; the kernel says {} what it took", if tells { "at once" } else { "late" });
    assert!(left > 0);
    let (calls, most) = (xsk.counts().calls, if tells { 1 } else { 4 });
    for look in 1..=10 {
        assert_eq!(xsk.kick(1), Kick::More);
        assert_eq!(xsk.left(), left);
        assert!(xsk.counts().calls - calls <= look * most, "{most} calls a look at most");
    }
    assert!(xsk.has_unsent(1));
    // What the device had is dropped by who removes it from there, and the others follow.
    let end = Instant::now() + PATIENCE;
    tc("qdisc del dev y0 root");
    while xsk.kick(1) != Kick::Done {
        assert!(Instant::now() < end, "{} wait", xsk.left());
    }
    while xsk.unfinished(1) > 0 {
        assert!(Instant::now() < end, "{} have not come back", xsk.unfinished(1));
    }
    assert_eq!((xsk.left(), xsk.counts().send_dropped, xsk.counts().kicks_failed), (0, 0, 0));
}
