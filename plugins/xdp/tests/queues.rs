//! An interface of several queues: what arrives in any of them reaches the link, real time first.

mod other_end;

use insane_conformance::Keep;
use insane_conformance::wire::{Hosts, PATIENCE, WORLD_LINK, WORLD_PEER, until_known};
use insane_core::{MonoTime, Nanos, PeerIndex};
use insane_link::{Link, LinkHealth, LinkKeeper, LinkSetup};
use insane_netstack::{Checksums, Host, Mac, Marks, Template};
use insane_sys::Errno;
use insane_sys::clock::mono_now;
use insane_xdp::{Mode, XdpConfig, XdpError, XdpKeeper, XdpLink, XdpSetup};
use insane_xdp_sys::interface::{Interface, set_queues};
use insane_xdp_sys::{Binding, Xsk, XskOptions};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use other_end::throw;
use std::net::SocketAddr;
use std::time::Instant;

const MODES: [Mode; 2] = [Mode::Native, Mode::Skb];
const QUEUES: usize = 4;
/// More than a queue beside the first has chunks.
const MANY: usize = 4000;

const REAL_TIME: u16 = 0;
const BEST_EFFORT: u16 = 1;

struct World {
    hosts: Hosts,
    link: XdpLink,
    keeper: XdpKeeper,
    /// By each, frames arrive in another queue of the link's interface.
    wires: Vec<Xsk>,
    macs: [Mac; 2],
    now: MonoTime,
}

fn config(mode: Mode) -> XdpConfig {
    XdpConfig { mode, frame_bytes_max: Some(1000), ..XdpConfig::new("x0", WORLD_LINK.parse().unwrap()) }
}

/// Behind the driver, the queue of a veth pair in which a frame arrives is that by which it left, less
/// one; in the driver, the same, and the other end may not have more of them.
fn behind(mode: Mode) -> u32 {
    u32::from(mode == Mode::Skb)
}

/// The link's interface has that many queues, and what leaves the other end may arrive in any.
fn joined(mode: Mode) -> Option<Hosts> {
    let hosts = Hosts::make()?;
    let of = |count: u32| format!("numrxqueues {count} numtxqueues {count}");
    let (here, there) = (of(QUEUES as u32), of(QUEUES as u32 + behind(mode)));
    hosts.ours.ip(&format!("link add x0 {here} type veth peer name p0 {there} netns {}\n", hosts.kernel.path()));
    hosts.ours.ip("link set x0 up\n");
    hosts.kernel.ip("address add 10.9.0.1/24 dev p0\nlink set p0 up\n");
    Some(hosts)
}

/// A socket on a queue, by which frames leave.
fn socket(interface: &str, queue: u32) -> Xsk {
    let interface = Interface::find(interface).unwrap().index;
    let options = XskOptions { interface, queue, binding: Binding::Copy, chunk_bytes: 2048, ring_frames: 256 };
    Xsk::open(&options).unwrap()
}

fn peers() -> [Option<SocketAddr>; 1] {
    [Some(WORLD_PEER.parse().unwrap())]
}

impl World {
    fn make(config: XdpConfig) -> Option<Self> {
        let (hosts, mode) = (joined(config.mode)?, config.mode);
        let mut world = Self::at(hosts, config);
        world.connect(mode);
        until_known(&mut world.link, XdpLink::knows_all_ways);
        Some(world)
    }

    fn at(hosts: Hosts, config: XdpConfig) -> Self {
        let setup = hosts.ours.inside(|| XdpSetup::bind(config).unwrap());
        let keeper = setup.keeper();
        let link = setup.open(&peers()).unwrap();
        let here = hosts.ours.inside(|| Interface::find("x0").unwrap());
        let there = hosts.kernel.inside(|| Interface::find("p0").unwrap());
        World { hosts, link, keeper, wires: Vec::new(), macs: [Mac(here.mac), Mac(there.mac)], now: mono_now() }
    }

    fn connect(&mut self, mode: Mode) {
        let all = (0..QUEUES as u32).map(|queue| socket("p0", queue + behind(mode)));
        self.wires = self.hosts.kernel.inside(|| all.collect());
    }

    fn each(test: impl Fn(World)) {
        for mode in MODES {
            let Some(world) = World::make(config(mode)) else { return };
            test(world);
        }
    }

    /// A datagram of the peer's, of a class, with these bytes in it.
    fn datagram(&self, class: u16, bytes: &[u8]) -> Vec<u8> {
        let peer: SocketAddr = WORLD_PEER.parse().unwrap();
        let to: SocketAddr = WORLD_LINK.parse().unwrap();
        let to = SocketAddr::new(to.ip(), to.port() + class);
        let host = Host {
            mac: self.macs[1],
            address: peer.ip(),
            prefix_bits: 24,
            gateway: None,
            vlan: None,
            checksums: Checksums::Verify,
        };
        let template = Template::new(&host, peer.port() + class, to, Marks { priority: 0, dscp: 0 }).unwrap();
        let mut frame = vec![0; template.head_bytes() + bytes.len()];
        frame[template.head_bytes()..].copy_from_slice(bytes);
        assert!(template.write(self.macs[0], false, &mut frame));
        frame
    }

    fn throw(&mut self, queue: usize, class: u16, bytes: &[u8]) {
        let frame = self.datagram(class, bytes);
        throw(&mut self.wires[queue], &frame);
    }

    /// Which of the link's descriptors can be read, waiting for so many.
    fn readable(&self, count: usize) -> Vec<usize> {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut fds: Vec<_> = self.link.readable_fds().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            poll(&mut fds, PollTimeout::from(100_u16)).unwrap();
            let can = |fd: &PollFd| fd.revents().is_some_and(|events| events.contains(PollFlags::POLLIN));
            let found: Vec<_> = (0..fds.len()).filter(|at| can(&fds[*at])).collect();
            if found.len() >= count {
                return found;
            }
            assert!(Instant::now() < end, "only {found:?} have something");
        }
    }

    /// Receives so many at a time until there are so many.
    fn take(&mut self, budget: u32, count: usize) -> Vec<Vec<u8>> {
        let (mut kept, end) = (Keep::default(), Instant::now() + PATIENCE);
        while kept.0.len() < count && Instant::now() < end {
            assert!(self.link.receive(budget, true, &mut kept) <= budget);
        }
        assert_eq!(kept.0.len(), count, "frames that came; {:?}", self.link.counts());
        assert!(kept.0.iter().all(|arrival| arrival.from == Some(PeerIndex(0))));
        kept.0.into_iter().map(|arrival| arrival.bytes).collect()
    }

    /// What the keeper says when it looks next, after which the link is tended.
    fn look(&mut self) -> LinkHealth {
        let World { hosts, keeper, link, .. } = self;
        let health = hosts.ours.inside(|| keeper.look());
        link.tend(mono_now());
        health
    }
}

#[test]
fn what_arrives_in_any_queue_is_heard_and_wakes_who_sleeps() {
    World::each(|mut world| {
        assert_eq!(world.link.readable_fds().count(), 2 * QUEUES);
        let mut all = Vec::new();
        for queue in 0..QUEUES {
            for class in [REAL_TIME, BEST_EFFORT] {
                let bytes = [queue as u8, class as u8, b'!'];
                world.throw(queue, class, &bytes);
                let readable = world.readable(1);
                assert_eq!(readable.len(), 1, "{readable:?}");
                all.extend(readable);
                assert_eq!(world.take(64, 1), [bytes]);
            }
        }
        // Each came by a socket of its own.
        all.sort_unstable();
        assert_eq!(all, (0..2 * QUEUES).collect::<Vec<_>>());
    });
}

/// Whichever it sends by.
#[test]
fn all_queues_are_heard_beside_that_by_which_is_sent() {
    for mode in MODES {
        for queue in 0..QUEUES as u32 {
            let Some(mut world) = World::make(XdpConfig { queue, ..config(mode) }) else { return };
            for at in 0..QUEUES {
                world.throw(at, REAL_TIME, &[at as u8]);
                assert_eq!(world.take(64, 1), [[at as u8]], "{mode:?}: it sends by {queue}");
            }
        }
    }
}

#[test]
fn real_time_of_all_queues_is_taken_before_best_effort_of_any() {
    World::each(|mut world| {
        for round in 0..2 * QUEUES {
            for queue in 0..QUEUES {
                (0..10).for_each(|_| world.throw(queue, BEST_EFFORT, b"bulk"));
            }
            for queue in 0..QUEUES {
                world.throw(queue, REAL_TIME, b"now");
            }
            world.readable(2 * QUEUES);
            // Whichever queue is looked at first.
            let came = world.take(1 + round as u32 % 3, 11 * QUEUES);
            assert!(came[..QUEUES].iter().all(|bytes| bytes == b"now"), "{came:?}");
            assert!(came[QUEUES..].iter().all(|bytes| bytes == b"bulk"));
        }
    });
}

#[test]
fn no_queue_waits_for_one_that_never_runs_dry() {
    World::each(|mut world| {
        for class in [REAL_TIME, BEST_EFFORT] {
            for busy in 0..QUEUES {
                let other = (busy + 1) % QUEUES;
                (0..200).for_each(|_| world.throw(busy, class, b"many"));
                world.throw(other, class, b"alone");
                world.readable(2);
                let came = world.take(4, 201);
                let at = came.iter().position(|bytes| bytes == b"alone").unwrap();
                assert!(at < 4 * QUEUES, "{at} were taken before it");
            }
        }
    });
}

#[test]
fn each_flow_keeps_its_order() {
    World::each(|mut world| {
        let mut next = [[0u8; 2]; QUEUES];
        for _ in 0..25 {
            for (queue, next) in next.iter_mut().enumerate() {
                for class in [REAL_TIME, BEST_EFFORT] {
                    for _ in 0..10 {
                        let number = &mut next[usize::from(class)];
                        let bytes = [queue as u8, class as u8, *number];
                        *number = number.wrapping_add(1);
                        world.throw(queue, class, &bytes);
                    }
                }
            }
        }
        let mut expected = [[0u8; 2]; QUEUES];
        for bytes in world.take(7, 25 * 20 * QUEUES) {
            let next = &mut expected[usize::from(bytes[0])][usize::from(bytes[1])];
            assert_eq!(bytes[2], *next, "of queue {}", bytes[0]);
            *next = next.wrapping_add(1);
        }
    });
}

/// A bundle that does not fit the budget is gone on with, in whichever queue it came.
#[test]
fn a_bundle_is_handed_out_whole_before_what_is_behind_it() {
    World::each(|mut world| {
        let bundle = b"Bnd\x01\x10\0\x02\0\x02\0ab\x02\0cd";
        for queue in 0..QUEUES {
            world.throw(queue, REAL_TIME, bundle);
            world.throw(queue, REAL_TIME, b"ef");
        }
        world.readable(QUEUES);
        let came = world.take(1, 3 * QUEUES);
        let places = |what: &[u8]| (0..came.len()).filter(|at| came[*at] == what).collect::<Vec<_>>();
        let (first, second, behind) = (places(b"ab"), places(b"cd"), places(b"ef"));
        assert_eq!((first.len(), second.len(), behind.len()), (QUEUES, QUEUES, QUEUES));
        assert_eq!(second, first.iter().map(|at| at + 1).collect::<Vec<_>>(), "{came:?}");
    });
}

#[test]
fn buffers_of_each_queue_come_back() {
    World::each(|mut world| {
        for queue in 0..QUEUES {
            for _ in 0..MANY / 50 {
                (0..40).for_each(|_| world.throw(queue, BEST_EFFORT, b"frame"));
                // Too long: dropped.
                (0..10).for_each(|_| world.throw(queue, REAL_TIME, &[7; 1001]));
                world.take(16, 40);
            }
        }
        world.take(16, 0);
        let counts = world.link.counts();
        assert_eq!((counts.sockets.claims_refused, counts.truncated), (0, (QUEUES * MANY / 5) as u64), "{counts:?}");
        world.now += Nanos::from_secs(2);
        world.link.tend(world.now);
        let counts = world.link.counts().sockets;
        assert_eq!((counts.dropped, counts.ring_full, counts.fill_empty), (0, 0, 0), "{counts:?}");
    });
}

#[test]
fn a_flood_of_best_effort_in_each_queue_fills_its_own_ring_only_and_is_counted() {
    World::each(|mut world| {
        for queue in 0..QUEUES {
            (0..1500).for_each(|_| world.throw(queue, BEST_EFFORT, b"flood"));
        }
        // What is sent from a core may be heard on another.
        let (mut full, end) = (0, Instant::now() + PATIENCE);
        while full != 476 * QUEUES as u64 {
            assert!(Instant::now() < end, "{full} of {} had no room", 476 * QUEUES);
            world.now += Nanos::from_secs(1);
            world.link.tend(world.now);
            full = world.link.counts().sockets.ring_full;
        }
        for queue in 0..QUEUES {
            (0..1000).for_each(|_| world.throw(queue, REAL_TIME, b"now"));
        }
        world.readable(2 * QUEUES);
        let came = world.take(64, (1000 + 1024) * QUEUES);
        assert_eq!(came.iter().filter(|bytes| *bytes == b"now").count(), 1000 * QUEUES);
    });
}

#[test]
fn of_more_queues_than_it_may_hear_a_link_hears_its_own_and_says_so() {
    for mode in MODES {
        for (queue, queues_max, unheard) in [(0, 3, 3), (2, 1, 3), (3, 4, 0)] {
            let Some(hosts) = joined(mode) else { return };
            let config = XdpConfig { queue, queues_max, ..config(mode) };
            let setup = hosts.ours.inside(|| XdpSetup::bind(config).unwrap());
            assert_eq!(setup.queues_unheard(), unheard, "queue {queue}, at most {queues_max}");
            let link = setup.open(&peers()).unwrap();
            let heard = if unheard == 0 { QUEUES } else { 1 };
            assert_eq!(link.readable_fds().count(), 2 * heard);
        }
    }
    let Some(hosts) = joined(Mode::Native) else { return };
    let mut world = World::at(hosts, XdpConfig { queues_max: 1, ..config(Mode::Native) });
    world.connect(Mode::Native);
    for queue in [3, 1, 2, 0] {
        world.throw(queue, REAL_TIME, &[queue as u8]);
    }
    assert_eq!(world.take(64, 1), [[0]], "all others are the kernel's");
    assert_eq!(world.link.receive(64, true, &mut Keep::default()), 0);
}

#[test]
fn queues_that_cannot_be_are_refused() {
    let Some(hosts) = joined(Mode::Native) else { return };
    let refused = |config| hosts.ours.inside(|| XdpSetup::bind(config).map(|_| ()).unwrap_err());
    for given in [0, 9] {
        let expected = XdpError::QueuesMax { given };
        assert_eq!(refused(XdpConfig { queues_max: given, ..config(Mode::Auto) }), expected);
    }
    let none = XdpError::NoQueue { interface: "x0".to_owned(), queue: 4 };
    assert_eq!(refused(XdpConfig { queue: 4, ..config(Mode::Auto) }), none);
}

/// All or none: a link that hears some of its peers is worse to find than one that is missing.
#[test]
fn a_queue_that_is_taken_makes_the_link_missing_until_it_is_free() {
    for mode in MODES {
        let Some(hosts) = joined(mode) else { return };
        let taken = hosts.ours.inside(|| socket("x0", 2));
        let setup = hosts.ours.inside(|| XdpSetup::bind_or_wait(config(mode)).unwrap());
        let why = setup.missing().unwrap();
        assert!(matches!(why, XdpError::Taken { queue: 2, .. }), "{why}");
        let mut keeper = setup.keeper();
        let mut link = setup.open(&peers()).unwrap();
        drop(taken);
        assert_eq!(hosts.ours.inside(|| keeper.look()), LinkHealth::Up);
        until_known(&mut link, XdpLink::knows_all_ways);
        assert_eq!(link.readable_fds().count(), 2 * QUEUES);
    }
}

#[test]
fn another_number_of_queues_is_noticed_and_all_are_heard() {
    for mode in MODES {
        let Some(hosts) = joined(mode) else { return };
        hosts.kernel.inside(|| set_queues("p0", 1, 1)).unwrap();
        hosts.ours.inside(|| set_queues("x0", 1, 1)).unwrap();
        let mut world = World::at(hosts, config(mode));
        until_known(&mut world.link, XdpLink::knows_all_ways);
        assert_eq!(world.link.readable_fds().count(), 2);
        assert_eq!(world.look(), LinkHealth::Up);
        let (here, there) = (QUEUES as u32, QUEUES as u32 + behind(mode));
        world.hosts.ours.inside(|| set_queues("x0", here, here)).unwrap();
        world.hosts.kernel.inside(|| set_queues("p0", there, there)).unwrap();
        world.connect(mode);
        let LinkHealth::Missing(why) = world.look() else { panic!("it has other queues") };
        assert!(why.contains("has 4 queues now"), "{why}");
        assert_eq!(world.look(), LinkHealth::Up);
        assert_eq!(world.look(), LinkHealth::Up);
        until_known(&mut world.link, XdpLink::knows_all_ways);
        for queue in 0..QUEUES {
            world.throw(queue, REAL_TIME, &[queue as u8]);
            assert_eq!(world.take(64, 1), [[queue as u8]]);
        }
        // Queues that are heard cannot be taken away.
        let refused = world.hosts.ours.inside(|| set_queues("x0", 1, 1)).unwrap_err();
        assert_eq!(refused.errno, Errno::EINVAL, "{mode:?}");
    }
}
