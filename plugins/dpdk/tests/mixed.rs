//! A dpdk link and the kernel: udp and xdp links as its peers, and all else on its interface.

mod common;

use common::{config, dpdk};
use insane_conformance::Keep;
use insane_conformance::wire::{self, PATIENCE, frame, send, until_known, wait_for};
use insane_core::{Lane, PeerIndex};
use insane_dpdk::{DpdkConfig, DpdkLink, DpdkSetup, VlanId};
use insane_link::{Link, LinkSetup, SendOutcome};
use insane_sys::clock::mono_now;
use insane_udp::{UdpConfig, UdpLink, UdpSetup};
use insane_xdp::{XdpConfig, XdpSetup};
use insane_xdp_sys::interface;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const DPDK: &str = "10.9.0.2:7400";
const OTHER: &str = "10.9.0.1:7400";
static DEVICES: AtomicU32 = AtomicU32::new(0);

/// Two hosts that are joined: `x0` of the one is the dpdk link's, and the kernel's 10.9.0.3.
struct Hosts(wire::Hosts);

impl Deref for Hosts {
    type Target = wire::Hosts;

    fn deref(&self) -> &wire::Hosts {
        &self.0
    }
}

impl Hosts {
    fn make() -> Option<Self> {
        let hosts = wire::Hosts::make()?;
        hosts.join();
        hosts.ours.ip("address add 10.9.0.3/24 dev x0\naddress add fd00::3/64 dev x0 nodad\n");
        Some(Hosts(hosts))
    }

    /// The dpdk link at `bind`, with the peers given; without waiting for their answers.
    fn open(&self, bind: &str, peers: &[Option<SocketAddr>]) -> DpdkLink {
        let number = DEVICES.fetch_add(1, Ordering::Relaxed);
        let config = config(&format!("net_af_packet{number},iface=x0"), bind.parse().unwrap());
        self.ours.inside(|| DpdkSetup::bind(config).unwrap().open(peers).unwrap())
    }

    fn dpdk(&self, bind: &str, peers: &[Option<SocketAddr>]) -> DpdkLink {
        let mut link = self.open(bind, peers);
        until_known(&mut link, DpdkLink::knows_all_ways);
        link
    }

    fn udp(&self, udp: &str, peer: &str) -> UdpLink {
        let setup = self.kernel.inside(|| UdpSetup::bind(UdpConfig::new(udp.parse().unwrap())).unwrap());
        setup.open(&[Some(peer.parse().unwrap())]).unwrap()
    }
}

/// Frames of many sizes and all lanes, each way.
fn converse<L: Link>(ours: &mut DpdkLink, other: &mut L) {
    for (number, lane) in (0..80).zip((0..8).cycle()) {
        let frame = frame(number, 1 + number * 18);
        send(ours, lane, &frame);
        ours.flush();
        assert_eq!(wait_for(other, ours, 1), [frame.as_slice()], "from the dpdk link, lane {lane}");
        send(other, lane, &frame);
        other.flush();
        assert_eq!(wait_for(ours, other, 1), [frame.as_slice()], "to the dpdk link, lane {lane}");
    }
}

#[test]
fn a_udp_link_is_a_peer_of_a_dpdk_link() {
    let Some(_alone) = dpdk() else { return };
    for (own, udp) in [(DPDK, OTHER), ("[fd00::2]:7400", "[fd00::1]:7400")] {
        let Some(hosts) = Hosts::make() else { return };
        // Checksums are left unfinished here, and single frames pass all the same.
        let mut ours = hosts.dpdk(own, &[Some(udp.parse().unwrap())]);
        let mut kernel = hosts.udp(udp, own);
        converse(&mut ours, &mut kernel);
        assert_eq!((ours.counts().device_failed, ours.counts().flooded), (0, 0));
    }
}

#[test]
fn what_a_udp_link_sends_at_once_is_taken_apart() {
    let Some(_alone) = dpdk() else { return };
    let Some(hosts) = Hosts::make() else { return };
    hosts.kernel.inside(|| interface::finish_frames("p0")).unwrap();
    let mut ours = hosts.dpdk(DPDK, &[Some(OTHER.parse().unwrap())]);
    let mut kernel = hosts.udp(OTHER, DPDK);
    for len in [20, 64, 700, 1400] {
        let frames: Vec<_> = (0..40).map(|number| frame(number, len)).collect();
        for lane in [0, 7] {
            for frame in &frames {
                send(&mut kernel, lane, frame);
            }
            kernel.flush();
            assert_eq!(wait_for(&mut ours, &mut kernel, 40), frames, "{len} bytes each, lane {lane}");
            // And back, where each goes by itself.
            for frame in &frames {
                send(&mut ours, lane, frame);
            }
            ours.flush();
            assert_eq!(wait_for(&mut kernel, &mut ours, 40), frames, "{len} bytes each, lane {lane}");
        }
    }
    assert_eq!((ours.counts().bundles_malformed, ours.counts().truncated), (0, 0));
}

#[test]
fn an_xdp_link_is_a_peer_of_a_dpdk_link() {
    let Some(_alone) = dpdk() else { return };
    let Some(hosts) = Hosts::make() else { return };
    let (own, xdp): (SocketAddr, SocketAddr) = (DPDK.parse().unwrap(), "10.9.0.4:7400".parse().unwrap());
    let mut ours = hosts.open(DPDK, &[Some(xdp)]);
    let setup = hosts.kernel.inside(|| XdpSetup::bind(XdpConfig::new("p0", xdp)).unwrap());
    let mut other = setup.open(&[Some(own)]).unwrap();
    let end = Instant::now() + PATIENCE;
    while !(ours.knows_all_ways() && other.knows_all_ways()) {
        assert!(Instant::now() < end, "they do not find each other");
        ours.tend(mono_now());
        other.tend(mono_now());
        ours.receive(64, true, &mut Keep::default());
        other.receive(64, true, &mut Keep::default());
    }
    converse(&mut ours, &mut other);
}

#[test]
fn what_is_not_the_links_goes_on_to_the_kernel() {
    let Some(_alone) = dpdk() else { return };
    let Some(hosts) = Hosts::make() else { return };
    hosts.kernel.inside(|| interface::finish_frames("p0")).unwrap();
    let mut link = hosts.dpdk(DPDK, &[Some(OTHER.parse().unwrap())]);
    for address in ["10.9.0.3:7400", "[fd00::3]:7400"] {
        let at: SocketAddr = address.parse().unwrap();
        let listener = hosts.ours.inside(|| TcpListener::bind(at)).unwrap();
        let mut client = hosts.kernel.inside(|| TcpStream::connect_timeout(&at, PATIENCE)).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        let mut bytes = [0; 5];
        client.write_all(b"login").unwrap();
        server.read_exact(&mut bytes).unwrap();
        server.write_all(&bytes).unwrap();
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"login");
    }
    let mut kept = Keep::default();
    link.receive(64, true, &mut kept);
    assert_eq!(kept.0.len(), 0, "the link hears that, and none of it is for it");
    assert!(link.counts().dropped > 0);
}

#[test]
fn a_best_effort_flood_is_sorted_behind_real_time() {
    let Some(_alone) = dpdk() else { return };
    let Some(hosts) = Hosts::make() else { return };
    hosts.kernel.inside(|| interface::finish_frames("p0")).unwrap();
    let mut ours = hosts.dpdk(DPDK, &[Some(OTHER.parse().unwrap())]);
    let mut kernel = hosts.udp(OTHER, DPDK);
    // So that the kernel knows where the link is, and nothing of this waits for that.
    send(&mut kernel, 0, b"first");
    kernel.flush();
    wait_for(&mut ours, &mut kernel, 1);
    // More, in rounds, than waits in the link; each round fits the device's ring.
    let mut real_time = Vec::new();
    for round in 0..20u8 {
        for _ in 0..200 {
            let _ = kernel.send(PeerIndex(0), Lane::LAST, &[7; 1000], (&[][..]).into());
            kernel.flush();
        }
        send(&mut kernel, 0, &[round]);
        kernel.flush();
        let end = Instant::now() + PATIENCE;
        while real_time.len() <= usize::from(round) && Instant::now() < end {
            // A budget for far less than comes: the flood is not drained by the link.
            let mut kept = Keep::default();
            ours.receive(2, true, &mut kept);
            real_time.extend(kept.0.iter().filter(|came| came.bytes.len() == 1).map(|came| came.bytes[0]));
        }
    }
    assert_eq!(real_time, (0..20).collect::<Vec<_>>());
    assert!(ours.counts().flooded > 0, "of the flood, what had no room was dropped: {:?}", ours.counts());
}

#[test]
fn an_interface_that_is_down_fails_frames_and_works_when_it_is_up() {
    let Some(_alone) = dpdk() else { return };
    let Some(hosts) = Hosts::make() else { return };
    let mut ours = hosts.dpdk(DPDK, &[Some(OTHER.parse().unwrap())]);
    let mut kernel = hosts.udp(OTHER, DPDK);
    hosts.ours.ip("link set x0 down\n");
    let mut outcomes = Vec::new();
    for _ in 0..60 {
        for _ in 0..20 {
            outcomes.push(ours.send(PeerIndex(0), Lane::CONTROL, b"lost", (&[][..]).into()));
            ours.flush();
        }
        ours.tend(mono_now());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(outcomes.ends_with(&[SendOutcome::Failed; 10]), "nobody waits for an interface that is down");
    assert!(ours.is_failing() && ours.counts().device_failed > 100, "{:?}", ours.counts());
    let tried = outcomes[600..].iter().filter(|outcome| **outcome != SendOutcome::Failed).count();
    assert!(tried <= 31, "one frame a look is tried, not {tried} in 30 looks");
    assert!(!ours.holds_frames(), "nor spins for it");
    hosts.ours.ip("link set x0 up\n");
    let mut kept = Keep::default();
    let end = Instant::now() + PATIENCE;
    let is_there = |kept: &Keep| kept.0.iter().any(|came| came.bytes == b"again");
    while (!is_there(&kept) || ours.is_failing()) && Instant::now() < end {
        let _ = ours.send(PeerIndex(0), Lane::CONTROL, b"again", (&[][..]).into());
        ours.flush();
        ours.tend(mono_now());
        ours.receive(64, true, &mut Keep::default());
        kernel.receive(64, true, &mut kept);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(is_there(&kept), "frames pass again: {:?}", ours.counts());
    assert!(!ours.is_failing());
}

#[test]
fn an_interface_that_is_deleted_fails_frames() {
    let Some(_alone) = dpdk() else { return };
    let Some(hosts) = Hosts::make() else { return };
    let mut ours = hosts.dpdk(DPDK, &[Some(OTHER.parse().unwrap())]);
    hosts.ours.ip("link delete x0\n");
    let mut outcomes = Vec::new();
    for _ in 0..60 {
        for _ in 0..20 {
            outcomes.push(ours.send(PeerIndex(0), Lane::CONTROL, b"lost", (&[][..]).into()));
            ours.flush();
            ours.receive(64, true, &mut Keep::default());
        }
        ours.tend(mono_now());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(outcomes.ends_with(&[SendOutcome::Failed; 10]), "nobody waits for an interface that is gone");
    assert!(!ours.holds_frames(), "nor spins for it");
}

/// Tagged frames of either, also those whose tag the kernel took from the frame on the way.
#[test]
fn in_a_vlan_it_hears_who_is_there_and_nobody_else() {
    let Some(_alone) = dpdk() else { return };
    for vlan in [VlanId::new(5), None] {
        let Some(hosts) = Hosts::make() else { return };
        let (own, xdp): (SocketAddr, SocketAddr) = (DPDK.parse().unwrap(), "10.9.0.4:7400".parse().unwrap());
        let number = DEVICES.fetch_add(1, Ordering::Relaxed);
        let config = DpdkConfig { vlan, ..config(&format!("net_af_packet{number},iface=x0"), own) };
        let mut ours = hosts.ours.inside(|| DpdkSetup::bind(config).unwrap().open(&[Some(xdp)]).unwrap());
        for other_vlan in [vlan, VlanId::new(6), if vlan.is_some() { None } else { VlanId::new(5) }] {
            let config = XdpConfig { vlan: other_vlan, ..XdpConfig::new("p0", xdp) };
            let mut other = hosts.kernel.inside(|| XdpSetup::bind(config).unwrap().open(&[Some(own)]).unwrap());
            let is_heard = other_vlan == vlan;
            let end = Instant::now() + if is_heard { PATIENCE } else { Duration::from_millis(50) };
            let mut kept = Keep::default();
            while Instant::now() < end && !(is_heard && ours.knows_all_ways() && other.knows_all_ways()) {
                ours.tend(mono_now());
                other.tend(mono_now());
                ours.receive(64, true, &mut kept);
                other.receive(64, true, &mut Keep::default());
            }
            assert_eq!(other.knows_all_ways(), is_heard, "{other_vlan:?} asks, {vlan:?} answers");
            if is_heard {
                converse(&mut ours, &mut other);
            }
            // Who has left asks no more.
            drop(other);
        }
    }
}
