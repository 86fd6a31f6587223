//! Frames that no peer would send, thrown at a link from the other end of its wire: whatever
//! they are, nothing panics, no buffer is lost, nothing is handed out in a peer's name that it
//! did not send, and frames of peers pass afterwards.
//!
//! The frames follow from a seed: a failure comes again.

use insane_conformance::wire::Namespace;
use insane_core::{Lane, MonoTime, Nanos, PeerIndex};
use insane_link::{FrameSink, Link, LinkSetup, SendOutcome};
use insane_netstack::{Checksums, Host, Mac, Marks, Template};
use insane_sys::clock::mono_now;
use insane_udp::{UdpConfig, UdpLink, UdpSetup};
use insane_xdp::{Mode, XdpConfig, XdpLink, XdpSetup};
use insane_xdp_sys::interface::{Interface, finish_frames};
use insane_xdp_sys::{Binding, Kick, Xsk, XskOptions};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
const FRAME_BYTES_MAX: u32 = 1000;
/// The link, its peer (the kernel at the other end), and one that is not there.
const LINK: &str = "10.9.0.2:7400";
const PEER: &str = "10.9.0.1:7400";
const NOBODY: &str = "10.9.0.99:7400";
/// What the peer really sends, and a bundle of it.
const GENUINE: &[u8] = b"a frame of the peer, long enough to be cut";
const BUNDLE: &[u8] = b"Bnd\x01\x10\0\x02\0\x02\0ab\x02\0cd";
/// More than the link has buffers, several times.
const FRAMES: u32 = 20_000;

/// A generator of Marsaglia's (xorshift64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

#[derive(Default)]
struct Keep(Vec<(Option<PeerIndex>, Vec<u8>)>);

impl FrameSink for Keep {
    fn frame(&mut self, from: Option<PeerIndex>, frame: &[u8]) {
        self.0.push((from, frame.to_vec()));
    }
}

struct World {
    _ours: Namespace,
    _kernel: Namespace,
    link: XdpLink,
    peer: UdpLink,
    /// Puts any bytes on the wire, past the kernel at the peer's end.
    wire: Xsk,
    macs: [Mac; 2],
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
        let macs = [Mac(here.mac), Mac(there.mac)];
        Some(World { _ours: ours, _kernel: kernel, link, peer, wire, macs, ahead: Nanos(0) })
    }

    /// As the datapath does.
    fn tend(&mut self) {
        let now = MonoTime(mono_now().0 + self.ahead.0);
        self.link.tend(now);
    }

    /// Puts a frame on the wire.
    fn throw(&mut self, frame: &[u8]) {
        let end = Instant::now() + PATIENCE;
        let chunk = loop {
            if let Some(chunk) = self.wire.reserve(0) {
                break chunk;
            }
            assert!(Instant::now() < end, "the wire is full");
            let _ = self.wire.kick_again(0);
        };
        self.wire.bytes(&chunk)[..frame.len()].copy_from_slice(frame);
        self.wire.submit(chunk, 0..frame.len());
        let _: Kick = self.wire.kick(0);
    }

    /// A datagram to the link, from a port of an address.
    fn datagram(&self, from: SocketAddr, to_port: u16, payload: &[u8], vlan: Option<u16>) -> Vec<u8> {
        let host = Host {
            mac: self.macs[1],
            address: from.ip(),
            prefix_bits: 0,
            gateway: None,
            vlan: vlan.and_then(insane_netstack::VlanId::new),
            checksums: Checksums::Verify,
        };
        let mut to: SocketAddr = LINK.parse().unwrap();
        to.set_port(to_port);
        let template = Template::new(&host, from.port(), to, Marks { priority: 5, dscp: 0 }).unwrap();
        let mut frame = vec![0; template.head_bytes()];
        frame.extend_from_slice(payload);
        assert!(template.write(self.macs[0], false, &mut frame));
        frame
    }

    /// One frame that a peer would not send, or that is cut, changed or tagged on its way.
    fn hostile(&self, random: &mut Random) -> Vec<u8> {
        let peer: SocketAddr = PEER.parse().unwrap();
        let from = |ip: [u8; 4], port| SocketAddr::from((ip, port));
        let port = 7400 + (random.below(3) as u16);
        let long = vec![7; FRAME_BYTES_MAX as usize + 1 + random.below(400)];
        let payload = [GENUINE, BUNDLE, &long, b""][random.below(4)];
        let mut frame = match random.below(7) {
            0 => self.datagram(peer, port, payload, None),
            // This host itself, a group, everybody, a stranger, another port of the peer.
            1 => {
                let spoofed = [[10, 9, 0, 2], [224, 0, 0, 1], [255, 255, 255, 255], [10, 9, 0, 66], [0, 0, 0, 0]];
                self.datagram(from(spoofed[random.below(5)], 7400), port, payload, None)
            }
            2 => self.datagram(from([10, 9, 0, 1], 9), port, payload, None),
            3 => self.datagram(peer, port, payload, Some(1 + random.below(4000) as u16)),
            // A stack of tags.
            4 => {
                let mut frame = self.datagram(peer, port, payload, Some(7));
                let tag: Vec<u8> = frame[12..16].to_vec();
                for _ in 0..=random.below(4) {
                    frame.splice(12..12, tag.iter().copied());
                }
                frame
            }
            // Somebody claims an address: the peer's, the link's, nobody's.
            5 => self.claim(random),
            _ => (0..14 + random.below(200)).map(|_| random.next() as u8).collect(),
        };
        match random.below(5) {
            // Cut.
            0 => frame.truncate(14.max(random.below(frame.len()))),
            // A piece of a packet, with the right checksum.
            1 if frame[12..14] == [8, 0] && frame.len() >= 34 => {
                let piece = [0x20, 0x00, 0x20, 0x10, 0x00, 0x10];
                let at = 2 * random.below(3);
                frame[20..22].copy_from_slice(&piece[at..at + 2]);
                seal_ip(&mut frame);
            }
            // A length that does not add up, with the right checksum.
            2 if frame[12..14] == [8, 0] && frame.len() >= 42 => {
                let at = [16, 38][random.below(2)];
                frame[at..at + 2].copy_from_slice(&(random.next() as u16).to_be_bytes());
                seal_ip(&mut frame);
            }
            // Changed.
            3 => {
                for _ in 0..=random.below(4) {
                    let at = random.below(frame.len());
                    frame[at] ^= 1 << random.below(8);
                }
            }
            _ => {}
        }
        frame
    }

    /// An answer of ARP that nobody asked for, or a question, in another's name.
    fn claim(&self, random: &mut Random) -> Vec<u8> {
        let thief = Mac([2, 0, 0, 0, 0, 66]);
        let mut frame = Vec::new();
        frame.extend_from_slice(&self.macs[0].0);
        frame.extend_from_slice(&thief.0);
        frame.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1 + random.below(2) as u8]);
        frame.extend_from_slice(&thief.0);
        frame.extend_from_slice(&[10, 9, 0, [1, 2, 99, 55][random.below(4)]]);
        frame.extend_from_slice(&self.macs[0].0);
        frame.extend_from_slice(&[10, 9, 0, 2]);
        frame
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
            let is_it = |kept: &Keep| kept.0.iter().any(|(from, bytes)| from.is_some() && bytes[..] == frame);
            while !is_it(&here) || !is_it(&there) {
                assert!(Instant::now() < end, "frame {number} is missing: {:?}", self.link.counts());
                self.link.receive(64, true, &mut here);
                self.peer.receive(64, true, &mut there);
                self.tend();
            }
        }
    }
}

/// The checksum of the IPv4 header of a frame without tags.
fn seal_ip(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let words = frame[14..34].chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let check = !(folded as u16 + (folded >> 16) as u16);
    frame[24..26].copy_from_slice(&check.to_be_bytes());
}

#[test]
fn hostile_frames_cost_nothing_but_their_place() {
    for (mode, seed) in [(Mode::Native, 1), (Mode::Skb, 2)] {
        let Some(mut world) = World::make(mode) else { return };
        world.wait_for_peer();
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ seed);
        let mut kept = Keep::default();
        for number in 0..FRAMES {
            let frame = world.hostile(&mut random);
            world.throw(&frame);
            if number % 16 == 0 {
                world.link.receive(1 + number % 64, true, &mut kept);
                world.tend();
            }
        }
        while world.link.receive(64, true, &mut kept) > 0 {}
        for (from, bytes) in &kept.0 {
            assert!(bytes.len() <= FRAME_BYTES_MAX as usize, "longer than a frame");
            let is_genuine = [GENUINE, BUNDLE, b"ab", b"cd", b""].contains(&&bytes[..]);
            assert!(from.is_none() || is_genuine, "{mode:?}: in the peer's name: {}", bytes.escape_ascii());
            assert_ne!(*from, Some(PeerIndex(1)), "nobody speaks from there");
        }
        let counts = world.link.counts();
        // Most of what is whole goes to a port that nobody has, or bears a tag.
        assert!(kept.0.len() > 300, "some frames are whole: {}", kept.0.len());
        assert!(counts.dropped > 1_000 && counts.truncated > 100, "{counts:?}");
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
