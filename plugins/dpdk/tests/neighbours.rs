//! Questions and answers about neighbours while best effort has no room left in a dpdk link: they
//! are taken as they come, before frames are sorted by class.

mod common;

use common::{config, dpdk};
use insane_conformance::Keep;
use insane_conformance::wire::{Hosts, PATIENCE, WORLD_LINK, WORLD_PEER};
use insane_core::PeerIndex;
use insane_dpdk::{DpdkLink, DpdkSetup};
use insane_link::{Link, LinkSetup, PeerSetup};
use insane_sys::clock::mono_now;
use std::net::{SocketAddr, UdpSocket};
use std::time::Instant;

/// Fits the ring of the device.
const ROUND: usize = 200;

/// One turn, with a budget for far less than comes: the flood is not drained by the link.
fn turn(link: &mut DpdkLink, kept: &mut Keep) {
    link.tend(mono_now());
    link.receive(1, true, kept);
}

#[test]
fn neighbours_are_heard_and_answered_while_best_effort_has_no_room() {
    let Some(_alone) = dpdk() else { return };
    let Some(hosts) = Hosts::make() else { return };
    hosts.join();
    hosts.kernel.ip("address add 10.9.0.4/24 dev p0\n");
    let here: SocketAddr = WORLD_LINK.parse().unwrap();
    let config = config("net_af_packet77,iface=x0", here);
    let setup = hosts.ours.inside(|| DpdkSetup::bind(config).unwrap());
    let (peers, mut link) = (setup.peers(), setup.open(&[Some(WORLD_PEER.parse().unwrap())]).unwrap());
    let (mut kept, end) = (Keep::default(), Instant::now() + PATIENCE);
    while !link.knows_all_ways() {
        assert!(Instant::now() < end, "the kernel does not answer: {:?}", link.counts());
        turn(&mut link, &mut kept);
    }
    let kernel = hosts.kernel.inside(|| UdpSocket::bind("10.9.0.1:0")).unwrap();
    let best_effort = SocketAddr::new(here.ip(), here.port() + 1);
    while link.counts().flooded == 0 {
        assert!(Instant::now() < end, "there is room without end");
        for _ in 0..ROUND {
            kernel.send_to(&[7; 100], best_effort).unwrap();
        }
        turn(&mut link, &mut kept);
    }
    let mut other = Some(peers.prepare(PeerIndex(1), "10.9.0.4:7400".parse().unwrap()).unwrap());
    link.swap_peer(PeerIndex(1), &mut other).unwrap();
    // So that the kernel asks, too, while the flood goes on.
    hosts.kernel.ip("neigh flush all\n");
    let answered = link.counts().answered;
    while !link.knows_all_ways() || link.counts().answered == answered {
        assert!(Instant::now() < end, "neither heard nor answered: {:?}", link.counts());
        for _ in 0..ROUND {
            kernel.send_to(&[7; 100], best_effort).unwrap();
        }
        turn(&mut link, &mut kept);
    }
}
