//! Frames that no peer would send, thrown at a link from the other end of its wire: whatever
//! they are, nothing panics, no buffer is lost, nothing is handed out in a peer's name that it
//! did not send, and frames of peers pass afterwards.

mod other_end;

use insane_conformance::Keep;
use insane_conformance::hostile::{self, FRAME_BYTES_MAX, FRAMES, GENUINE, Hostile, LINK, NOBODY, PEER};
use insane_conformance::wire::Namespace;
use insane_core::{Lane, MonoTime, Nanos, PeerIndex};
use insane_link::{Link, LinkSetup, SendOutcome};
use insane_sys::clock::mono_now;
use insane_udp::{UdpConfig, UdpLink, UdpSetup};
use insane_xdp::{Mode, XdpConfig, XdpLink, XdpSetup};
use insane_xdp_sys::interface::{Interface, finish_frames};
use insane_xdp_sys::{Binding, Xsk, XskOptions};
use other_end::throw;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    _ours: Namespace,
    _kernel: Namespace,
    link: XdpLink,
    peer: UdpLink,
    /// Puts any bytes on the wire, past the kernel at the peer's end.
    wire: Xsk,
    /// Hardware addresses of the link and of its peer.
    macs: [[u8; 6]; 2],
    /// How far the link's time is ahead.
    ahead: Nanos,
}

impl World {
    fn make(mode: Mode) -> Option<Self> {
        let (ours, kernel) = (Namespace::make()?, Namespace::make()?);
        ours.ip(&format!("link add x0 type veth peer name p0 netns {}\nlink set x0 up\n", kernel.path()));
        kernel.ip("address add 10.9.0.1/24 dev p0\nlink set p0 up\n");
        kernel.inside(|| finish_frames("p0")).unwrap();
        let bind = LINK.parse().unwrap();
        let config = XdpConfig { mode, frame_bytes_max: Some(FRAME_BYTES_MAX), ..XdpConfig::new("x0", bind) };
        let peers: [Option<SocketAddr>; 2] = [Some(PEER.parse().unwrap()), Some(NOBODY.parse().unwrap())];
        let link = ours.inside(|| XdpSetup::bind(config).unwrap().open(&peers).unwrap());
        let peer = kernel.inside(|| UdpSetup::bind(UdpConfig::new(PEER.parse().unwrap())).unwrap());
        let peer = peer.open(&[Some(bind)]).unwrap();
        let at = |namespace: &Namespace, name: &str| namespace.inside(|| Interface::find(name).unwrap());
        let (here, there) = (at(&ours, "x0"), at(&kernel, "p0"));
        let (interface, binding) = (there.index, Binding::Copy);
        let options = XskOptions { interface, queue: 0, binding, chunk_bytes: 2048, ring_frames: 256 };
        let wire = kernel.inside(|| Xsk::open(&options).unwrap());
        let macs = [here.mac, there.mac];
        Some(World { _ours: ours, _kernel: kernel, link, peer, wire, macs, ahead: Nanos(0) })
    }

    /// As the datapath does.
    fn tend(&mut self) {
        let now = MonoTime(mono_now().0 + self.ahead.0);
        self.link.tend(now);
    }

    fn wait_for_peer(&mut self) {
        let end = Instant::now() + PATIENCE;
        while self.link.send(PeerIndex(0), Lane::LAST, GENUINE, (&[][..]).into()) != SendOutcome::Sent {
            assert!(Instant::now() < end, "the peer does not answer: {:?}", self.link.counts());
            self.tend();
            self.link.receive(64, true, &mut Keep::default());
        }
        self.link.flush();
    }

    /// Frames pass both ways, and to the peer at its own hardware address.
    fn exchange(&mut self) {
        for number in 0..100u8 {
            let frame = [number; 60];
            assert_eq!(self.link.send(PeerIndex(0), Lane::LAST, &frame, (&[][..]).into()), SendOutcome::Sent);
            assert_eq!(self.peer.send(PeerIndex(0), Lane::LAST, &frame, (&[][..]).into()), SendOutcome::Sent);
            self.link.flush();
            self.peer.flush();
            let (mut here, mut there) = (Keep::default(), Keep::default());
            let end = Instant::now() + PATIENCE;
            let is_it = |kept: &Keep| kept.0.iter().any(|came| came.from.is_some() && came.bytes[..] == frame);
            while !is_it(&here) || !is_it(&there) {
                assert!(Instant::now() < end, "frame {number} is missing: {:?}", self.link.counts());
                self.link.receive(64, true, &mut here);
                self.peer.receive(64, true, &mut there);
                self.tend();
            }
        }
    }
}

#[test]
fn hostile_frames_cost_nothing_but_their_place() {
    for (mode, seed) in [(Mode::Native, 1), (Mode::Skb, 2)] {
        let Some(mut world) = World::make(mode) else { return };
        world.wait_for_peer();
        let mut hostile = Hostile::new(world.macs[0], world.macs[1], seed);
        let mut kept = Keep::default();
        for number in 0..FRAMES {
            throw(&mut world.wire, &hostile.frame());
            if number % 16 == 0 {
                world.link.receive(1 + number % 64, true, &mut kept);
                world.tend();
            }
        }
        while world.link.receive(64, true, &mut kept) > 0 {}
        hostile::judge(&kept);
        let counts = world.link.counts();
        assert!(counts.dropped > 1_000 && counts.truncated > 100, "{mode:?}: {counts:?}");
        assert_eq!(counts.sockets.claims_refused, 0);
        assert_eq!(counts.interface_lost, 0);
        world.exchange();
    }
}

/// It is asked for, ever more rarely, without end; nobody else notices, and no buffer is lost.
#[test]
fn a_neighbour_that_never_answers_costs_nothing() {
    let Some(mut world) = World::make(Mode::Native) else { return };
    world.wait_for_peer();
    // Hours of virtual time, and more questions than there are buffers.
    for _ in 0..8_000 {
        world.ahead.0 += Nanos::from_secs(2).0;
        world.tend();
        world.link.receive(64, true, &mut Keep::default());
        let sent = world.link.send(PeerIndex(1), Lane::LAST, GENUINE, (&[][..]).into());
        assert_eq!(sent, SendOutcome::Failed);
    }
    let counts = world.link.counts();
    assert_eq!((counts.answers_lost, counts.sockets.claims_refused), (0, 0), "{counts:?}");
    assert!(counts.unresolved >= 8_000);
    world.wait_for_peer();
    world.exchange();
}
