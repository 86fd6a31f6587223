//! Questions and answers about neighbours while best effort has filled its ring: a bounded number of
//! them comes by real time's, so that real time keeps its ways, and no storm of them fills that.

mod other_end;

use insane_conformance::Keep;
use insane_conformance::wire::{Hosts, PATIENCE, until_known};
use insane_core::{MonoTime, Nanos, PeerIndex};
use insane_link::{Link, LinkSetup, PeerSetup};
use insane_netstack::{Checksums, Host, Mac, Marks, Received, Stack, Template};
use insane_sys::clock::mono_now;
use insane_xdp::{Mode, XdpConfig, XdpLink, XdpPeers, XdpSetup};
use insane_xdp_sys::interface::Interface;
use insane_xdp_sys::{Binding, Xsk, XskOptions};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use other_end::throw;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

const MODES: [Mode; 2] = [Mode::Native, Mode::Skb];
/// The link, and its peer: the kernel at the other end.
const ENDS: [(&str, &str); 2] = [("10.9.0.2:7400", "10.9.0.1:7400"), ("[fd00::2]:7400", "[fd00::1]:7400")];
/// What the kernel has besides the peer's address.
const OTHERS: [&str; 2] = ["10.9.0.4:7400", "[fd00::4]:7400"];
/// More than a ring of the link's holds, by half.
const FLOOD: usize = 1500;
/// More than a ring holds, several times.
const STORM: usize = 5000;

struct World {
    hosts: Hosts,
    link: XdpLink,
    peers: XdpPeers,
    /// The peer's port for real time, at the kernel.
    peer: UdpSocket,
    /// Puts any bytes on the wire, past the kernel at the peer's end.
    wire: Xsk,
    /// Of the link and of the other end.
    macs: [Mac; 2],
    ends: [SocketAddr; 2],
    now: MonoTime,
}

impl World {
    fn make(mode: Mode, (link, peer): (&str, &str)) -> Option<Self> {
        let hosts = Hosts::make()?;
        hosts.join();
        let ends: [SocketAddr; 2] = [link.parse().unwrap(), peer.parse().unwrap()];
        let config = XdpConfig { mode, ..XdpConfig::new("x0", ends[0]) };
        let setup = hosts.ours.inside(|| XdpSetup::bind(config).unwrap());
        let peers = setup.peers();
        let link = setup.open(&[Some(ends[1])]).unwrap();
        hosts.kernel.ip("address add 10.9.0.4/24 dev p0\naddress add fd00::4/64 dev p0 nodad\n");
        let peer = hosts.kernel.inside(|| UdpSocket::bind(ends[1])).unwrap();
        let here = hosts.ours.inside(|| Interface::find("x0").unwrap());
        let there = hosts.kernel.inside(|| Interface::find("p0").unwrap());
        let options = XskOptions {
            interface: there.index,
            queue: 0,
            binding: Binding::Copy,
            chunk_bytes: 2048,
            ring_frames: 256,
        };
        let wire = hosts.kernel.inside(|| Xsk::open(&options).unwrap());
        let macs = [Mac(here.mac), Mac(there.mac)];
        let mut world = World { hosts, link, peers, peer, wire, macs, ends, now: mono_now() };
        // And has the interfaces ready.
        until_known(&mut world.link, XdpLink::knows_all_ways);
        Some(world)
    }

    /// A peer more, which the link asks for when it is tended.
    fn meet_another(&mut self) {
        let address = OTHERS[usize::from(self.ends[1].is_ipv6())].parse().unwrap();
        let peer = PeerIndex(1);
        let mut other = Some(self.peers.prepare(peer, address).unwrap());
        self.link.swap_peer(peer, &mut other).unwrap();
        assert!(!self.link.knows_all_ways());
    }

    fn each(test: impl Fn(World)) {
        for mode in MODES {
            for ends in ENDS {
                let Some(world) = World::make(mode, ends) else { return };
                test(world);
            }
        }
    }

    /// Somebody at the other end, with the address of the peer but for its last byte.
    fn somebody(&self, last: u8) -> Host {
        let address = match self.ends[1] {
            SocketAddr::V4(_) => [10, 9, 0, last].into(),
            SocketAddr::V6(_) => [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)].into(),
        };
        let prefix_bits = if self.ends[1].is_ipv4() { 24 } else { 64 };
        Host { mac: self.macs[1], address, prefix_bits, gateway: None, vlan: None, checksums: Checksums::Verify }
    }

    /// Who has the link's address?
    fn question(&self) -> Vec<u8> {
        let mut asker = Stack::<1>::new(self.somebody(66)).unwrap();
        asker.acquire(self.ends[0].ip(), self.now).unwrap();
        let mut frame = vec![0; 128];
        let len = asker.poll(self.now, &mut frame).unwrap();
        frame.truncate(len);
        frame
    }

    /// One that answers what the link never asked.
    fn answer(&self) -> Vec<u8> {
        let mut asker =
            Stack::<1>::new(Host { mac: self.macs[0], address: self.ends[0].ip(), ..self.somebody(0) }).unwrap();
        let other = self.somebody(66);
        asker.acquire(other.address, self.now).unwrap();
        let (mut question, mut frame) = (vec![0; 128], vec![0; 128]);
        let len = asker.poll(self.now, &mut question).unwrap();
        let other = Host { mac: Mac([2, 0, 0, 0, 0, 66]), ..other };
        let told = Stack::<1>::new(other).unwrap().receive(self.now, &question[..len], &mut frame);
        let Received::Answer(len) = told else { panic!("{told:?}") };
        frame.truncate(len);
        frame
    }

    /// A datagram to the link's port of best effort.
    fn best_effort(&self) -> Vec<u8> {
        let to = SocketAddr::new(self.ends[0].ip(), self.ends[0].port() + 1);
        let template = Template::new(&self.somebody(66), 9, to, Marks { priority: 0, dscp: 0 }).unwrap();
        let mut frame = vec![0; template.head_bytes() + 20];
        assert!(template.write(self.macs[0], false, &mut frame));
        frame
    }

    /// Puts so many copies of a frame on the wire.
    fn throw(&mut self, frame: &[u8], count: usize) {
        (0..count).for_each(|_| throw(&mut self.wire, frame));
    }

    /// As the datapath does, a second later: the link asks for who it does not know.
    fn tend(&mut self) {
        self.now += Nanos::from_secs(1);
        self.link.tend(self.now);
    }

    /// Nobody takes what comes for best effort, until the kernel has no room for more of it.
    fn fill_best_effort(&mut self) {
        let (frame, end) = (self.best_effort(), Instant::now() + PATIENCE);
        while self.link.counts().sockets.ring_full == 0 {
            assert!(Instant::now() < end, "the ring is never full");
            self.throw(&frame, FLOOD);
            self.tend();
        }
    }

    /// Waits for a frame of real time's socket, and takes it; of best effort's, none.
    fn take_by_real_time(&mut self, kept: &mut Keep) {
        assert!(self.has_real_time(PATIENCE.as_millis() as u16), "nothing comes by real time's socket");
        self.link.receive(1, true, kept);
    }

    fn has_real_time(&self, millis: u16) -> bool {
        self.has_come(0, millis)
    }

    /// Whether a frame comes by the socket of this side within so many milliseconds.
    fn has_come(&self, side: usize, millis: u16) -> bool {
        let fd = self.link.readable_fds().nth(side).unwrap();
        poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], PollTimeout::from(millis)).unwrap() == 1
    }
}

#[test]
fn an_answer_is_heard_while_best_effort_has_filled_its_ring() {
    World::each(|mut world| {
        world.fill_best_effort();
        world.meet_another();
        world.tend();
        let mut kept = Keep::default();
        while !world.link.knows_all_ways() {
            world.take_by_real_time(&mut kept);
        }
        assert_eq!(kept.0.len(), 0, "nothing of best effort was taken");
    });
}

#[test]
fn a_question_is_answered_while_best_effort_has_filled_its_ring() {
    World::each(|mut world| {
        world.fill_best_effort();
        let mut kept = Keep::default();
        while world.has_real_time(100) {
            world.take_by_real_time(&mut kept);
        }
        // It may have learned from the link's own questions.
        world.hosts.kernel.ip("neigh flush all\n");
        world.peer.send_to(b"waits for the way", world.ends[0]).unwrap();
        let answered = world.link.counts().answered;
        while kept.0.is_empty() {
            world.take_by_real_time(&mut kept);
        }
        assert_eq!(kept.0[0].bytes, b"waits for the way");
        assert_eq!(kept.0[0].from, Some(PeerIndex(0)));
        assert!(world.link.counts().answered > answered, "it asked");
    });
}

/// Neither kind takes more of real time's ring than its bound, and real time has the rest.
#[test]
fn a_storm_of_questions_or_answers_costs_no_real_time_frame() {
    World::each(|mut world| {
        world.hosts.kernel.ip(&format!("neigh replace {} lladdr {} dev p0\n", world.ends[0].ip(), text(world.macs[0])));
        for storm in [world.question(), world.answer()] {
            world.throw(&storm, STORM);
            for number in 0..100u8 {
                world.peer.send_to(&[number], world.ends[0]).unwrap();
            }
            let (mut kept, end) = (Keep::default(), Instant::now() + PATIENCE);
            while kept.0.len() < 100 && Instant::now() < end {
                world.link.receive(64, true, &mut kept);
            }
            let came: Vec<u8> = kept.0.iter().map(|came| came.bytes[0]).collect();
            assert_eq!(came, (0..100).collect::<Vec<_>>());
            while world.link.receive(64, true, &mut kept) > 0 {}
        }
    });
}

/// As a frame does, so that no turn is longer for them.
#[test]
fn each_question_takes_its_place_in_the_budget() {
    const QUESTIONS: u64 = 12;
    World::each(|mut world| {
        let question = world.question();
        world.throw(&question, QUESTIONS as usize);
        world.peer.send_to(b"behind them", world.ends[0]).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let (mut kept, end) = (Keep::default(), Instant::now() + PATIENCE);
        let first = world.link.counts().answered;
        while kept.0.is_empty() || world.link.counts().answered - first < QUESTIONS {
            assert!(Instant::now() < end, "they do not come: {:?}", world.link.counts());
            let before = world.link.counts().answered;
            let handed = world.link.receive(1, true, &mut kept);
            assert!(u64::from(handed) + world.link.counts().answered - before <= 1);
        }
        assert_eq!(kept.0[0].bytes, b"behind them");
    });
}

/// Each kind has a bound of its own.
#[test]
fn an_answer_is_heard_in_a_storm_of_questions() {
    World::each(|mut world| {
        let question = world.question();
        world.fill_best_effort();
        world.meet_another();
        // Nobody takes them, and none has room any more when the link asks.
        world.throw(&question, STORM);
        world.tend();
        let (mut kept, end) = (Keep::default(), Instant::now() + PATIENCE);
        while !world.link.knows_all_ways() {
            assert!(Instant::now() < end, "the answer is not heard");
            world.take_by_real_time(&mut kept);
        }
        assert_eq!(kept.0.len(), 0, "nothing of best effort was taken");
    });
}

/// Echoes are nobody's way, and what a router has passed on tells nobody's.
#[test]
fn what_is_no_question_and_no_answer_stays_with_best_effort() {
    World::each(|mut world| {
        let (mut other, mut echo) = (world.answer(), world.best_effort());
        if world.ends[0].is_ipv4() {
            // Another operation of ARP; ICMP, echo.
            other[21] = 3;
            (echo[23], echo[34]) = (1, 8);
        } else {
            // The hop limit; ICMPv6, echo.
            other[21] = 254;
            (echo[20], echo[21], echo[54]) = (58, 255, 128);
        }
        for frame in [other, echo] {
            world.throw(&frame, 1);
            assert!(world.has_come(1, PATIENCE.as_millis() as u16), "it comes by best effort's socket");
            assert!(!world.has_come(0, 0));
            world.link.receive(1, true, &mut Keep::default());
            assert!(!world.has_come(1, 0));
        }
    });
}

fn text(mac: Mac) -> String {
    mac.0.map(|byte| format!("{byte:02x}")).join(":")
}
