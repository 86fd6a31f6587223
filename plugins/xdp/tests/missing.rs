//! A link whose interface is missing, goes away, or returns as another: it refuses frames and
//! counts them meanwhile, and goes on with the same peers.

mod common;

use common::Namespace;
use insane_core::{Lane, PeerIndex};
use insane_link::{FrameSink, Link, LinkHealth, LinkKeeper, LinkSetup, SendOutcome};
use insane_sys::clock::mono_now;
use insane_xdp::{Mode, XdpConfig, XdpError, XdpKeeper, XdpLink, XdpSetup};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
const MODES: [Mode; 2] = [Mode::Native, Mode::Skb];
const FRAME_BYTES_MAX: u32 = 1000;
const PEER: &str = "10.9.0.1:7400";
/// Where it has frames of the lane that is used here: not a real-time one.
const PEER_SOCKET: &str = "10.9.0.1:7401";
const PEER_INDEX: PeerIndex = PeerIndex(0);

#[derive(Default)]
struct Keep(Vec<Vec<u8>>);

impl FrameSink for Keep {
    fn frame(&mut self, _from: Option<PeerIndex>, frame: &[u8]) {
        self.0.push(frame.to_vec());
    }
}

/// A host with a link at `x0`, and one with the kernel at `p0`.
struct World {
    ours: Namespace,
    kernel: Namespace,
    link: XdpLink,
    keeper: XdpKeeper,
}

fn config(mode: Mode) -> XdpConfig {
    let bind = "10.9.0.2:7400".parse().unwrap();
    XdpConfig { mode, frame_bytes_max: Some(FRAME_BYTES_MAX), ..XdpConfig::new("x0", bind) }
}

fn setup(ours: &Namespace, mode: Mode) -> XdpSetup {
    ours.inside(|| XdpSetup::bind_or_wait(config(mode)).unwrap())
}

impl World {
    /// Without an interface yet.
    fn make(mode: Mode) -> Option<Self> {
        let (ours, kernel) = (Namespace::make()?, Namespace::make()?);
        let setup = setup(&ours, mode);
        let keeper = setup.keeper();
        let peers: [Option<SocketAddr>; 1] = [Some(PEER.parse().unwrap())];
        Some(World { ours, kernel, link: setup.open(&peers).unwrap(), keeper })
    }

    /// Joins both hosts by a veth pair. Its hardware addresses are others each time.
    fn join(&self) {
        self.ours.ip(&format!("link add x0 type veth peer name p0 netns {}\nlink set x0 up\n", self.kernel.path()));
        self.kernel.ip("address add 10.9.0.1/24 dev p0\nlink set p0 up\n");
    }

    fn look(&mut self) -> LinkHealth {
        let keeper = &mut self.keeper;
        self.ours.inside(|| keeper.look())
    }

    /// What the datapath and the keeper do, until the keeper says so.
    fn wait_until(&mut self, what: &str, is_it: impl Fn(&LinkHealth) -> bool) -> LinkHealth {
        let end = Instant::now() + PATIENCE;
        loop {
            let health = self.look();
            self.link.tend(mono_now());
            if is_it(&health) {
                return health;
            }
            assert!(Instant::now() < end, "never {what}: {health:?}");
        }
    }

    fn wait_until_up(&mut self) {
        self.wait_until("up", |health| *health == LinkHealth::Up);
        let end = Instant::now() + PATIENCE;
        while !self.link.knows_all_ways() {
            assert!(Instant::now() < end, "the kernel does not answer: {:?}", self.link.counts());
            self.link.tend(mono_now());
            self.link.receive(64, true, &mut Keep::default());
        }
    }

    /// The reason, in words.
    fn wait_until_missing(&mut self) -> String {
        let health = self.wait_until("missing", |health| *health != LinkHealth::Up);
        let LinkHealth::Missing(why) = health else { unreachable!() };
        let end = Instant::now() + PATIENCE;
        while self.link.mode().is_some() {
            assert!(Instant::now() < end, "the link keeps what it has");
            self.link.tend(mono_now());
        }
        why
    }

    fn send(&mut self, frame: &[u8]) -> SendOutcome {
        let outcome = self.link.send(PEER_INDEX, Lane::CONTROL, frame, (&[][..]).into());
        self.link.flush();
        outcome
    }

    /// Frames pass both ways.
    fn exchange(&mut self, round: u32) {
        let socket = self.kernel.inside(|| UdpSocket::bind(PEER_SOCKET)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let (there, back) = (format!("there {round}"), format!("back {round}"));
        assert_eq!(self.send(there.as_bytes()), SendOutcome::Sent);
        let (mut came, mut kept) = ([0; 100], Keep::default());
        let end = Instant::now() + PATIENCE;
        let (from, len) = loop {
            match socket.recv_from(&mut came) {
                Ok((len, from)) => break (from, len),
                Err(_) => assert!(Instant::now() < end, "round {round}: nothing comes"),
            }
        };
        assert_eq!((&came[..len], from), (there.as_bytes(), "10.9.0.2:7401".parse().unwrap()));
        socket.send_to(back.as_bytes(), from).unwrap();
        while !kept.0.iter().any(|frame| frame == back.as_bytes()) {
            assert!(Instant::now() < end, "round {round}: no answer comes: {:?}", kept.0);
            self.link.receive(64, true, &mut kept);
            self.link.tend(mono_now());
        }
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_link_opens_without_its_interface_and_works_when_that_comes() {
    for mode in MODES {
        let Some(mut world) = World::make(mode) else { return };
        assert_eq!(world.link.capabilities().frame_bytes_max, FRAME_BYTES_MAX);
        assert_eq!(world.send(b"lost"), SendOutcome::Failed);
        assert_eq!(world.link.receive(64, true, &mut Keep::default()), 0);
        assert!(!world.link.tend(mono_now()) && !world.link.holds_frames(), "nothing keeps a datapath awake");
        assert_eq!(world.link.counts().absent, 1);
        let why = world.wait_until_missing();
        assert!(why.contains("x0") && why.contains("finding the interface"), "{why}");
        world.join();
        world.wait_until_up();
        assert_eq!(world.link.mode(), Some(mode));
        world.exchange(0);
        assert_eq!(world.link.counts().interface_lost, 0);
    }
}

#[test]
fn an_interface_that_is_taken_is_had_when_it_is_free() {
    let Some(mut world) = World::make(Mode::Auto) else { return };
    world.join();
    let bind = "10.9.0.7:7400".parse().unwrap();
    let other = world.ours.inside(|| XdpSetup::bind(XdpConfig::new("x0", bind)).unwrap());
    let why = world.wait_until_missing();
    assert!(why.contains("taken by another process"), "{why}");
    drop(other);
    world.wait_until_up();
    world.exchange(0);
}

#[test]
fn an_interface_that_is_down_is_missing_until_it_is_up() {
    for mode in MODES {
        let Some(mut world) = World::make(mode) else { return };
        world.join();
        world.wait_until_up();
        world.exchange(0);
        world.ours.ip("link set x0 down\n");
        let outcomes: Vec<SendOutcome> = (0..3_000).map(|_| world.send(b"lost")).collect();
        assert!(outcomes.ends_with(&[SendOutcome::Failed]), "nobody waits for an interface that is down");
        assert!(!world.link.holds_frames(), "nor spins for it");
        let sent = outcomes.iter().filter(|outcome| **outcome == SendOutcome::Sent).count() as u64;
        let counts = world.link.counts();
        assert_eq!((counts.unsent_lost, counts.absent), (sent, 3_000 - sent), "{counts:?}");
        assert!(counts.sockets.kicks_failed > 0);
        let why = world.wait_until_missing();
        assert!(why.contains("interface x0 is down"), "{why}");
        world.ours.ip("link set x0 up\n");
        world.wait_until_up();
        world.exchange(1);
    }
}

#[test]
fn an_interface_that_flaps_a_hundred_times_comes_back_each_time() {
    const FLAPS: u32 = 100;
    let Some(mut world) = World::make(Mode::Native) else { return };
    let before = descriptors();
    for round in 0..FLAPS {
        world.join();
        world.wait_until_up();
        world.exchange(round);
        world.ours.ip("link delete x0\n");
        if round % 2 == 0 {
            // The link itself notices by its next frame, or the keeper does.
            while world.send(b"lost") == SendOutcome::Sent {}
            assert_eq!(world.link.mode(), None);
        }
        world.wait_until_missing();
    }
    // What was returned last is closed with the next look.
    world.look();
    assert_eq!(world.link.counts().interface_lost, u64::from(FLAPS));
    // Other tests of this process open some, too, but not as many.
    let kept = descriptors().saturating_sub(before);
    assert!(kept < FLAPS as usize, "{kept} descriptors are left of interfaces that went");
}

#[test]
fn a_link_that_only_listens_notices_that_its_interface_was_made_again() {
    let Some(mut world) = World::make(Mode::Skb) else { return };
    for round in 0..3 {
        world.join();
        world.wait_until_up();
        world.exchange(round);
        // Made again between two looks: there is an interface of that name at each.
        world.ours.ip("link delete x0\n");
    }
    world.join();
    world.wait_until_missing();
    world.wait_until_up();
    world.exchange(3);
}

#[test]
fn an_mtu_that_no_longer_holds_a_frame_makes_the_interface_missing() {
    let Some(mut world) = World::make(Mode::Native) else { return };
    world.join();
    world.wait_until_up();
    world.exchange(0);
    world.ours.ip("link set x0 mtu 1400\n");
    assert_eq!(world.look(), LinkHealth::Up, "frames of this link fit");
    world.exchange(1);
    world.ours.ip("link set x0 mtu 900\n");
    let why = world.wait_until_missing();
    assert!(why.contains("frame_bytes_max is 1000") && why.contains("508 to 872"), "{why}");
    assert_eq!(world.send(b"lost"), SendOutcome::Failed);
    world.ours.ip("link set x0 mtu 1500\n");
    world.wait_until_up();
    world.exchange(2);
}

#[test]
fn another_hardware_address_is_taken_over() {
    let Some(mut world) = World::make(Mode::Native) else { return };
    world.join();
    world.wait_until_up();
    world.ours.ip("link set x0 address 02:00:00:00:00:77\n");
    world.wait_until_missing();
    world.wait_until_up();
    world.exchange(0);
}

/// What is wrong whatever the interface is stays an error.
#[test]
fn a_wrong_configuration_is_not_waited_for() {
    let Some(namespace) = Namespace::make() else { return };
    let refused = |config| namespace.inside(|| XdpSetup::bind_or_wait(config).map(|_| ()).unwrap_err());
    let good = config(Mode::Auto);
    assert_eq!(refused(XdpConfig { real_time_dscp: 64, ..good.clone() }), XdpError::Dscp { given: 64 });
    let bind = SocketAddr::from(([10, 9, 0, 2], 0));
    assert_eq!(refused(XdpConfig { bind, ..good.clone() }), XdpError::Port { bind });
    assert!(matches!(refused(XdpConfig { prefix_bits: 33, ..good.clone() }), XdpError::Address { .. }));
    for given in [507, insane_xdp::FRAME_BYTES_LIMIT + 1] {
        let error = refused(XdpConfig { frame_bytes_max: Some(given), ..good.clone() });
        assert!(matches!(error, XdpError::FrameBytes { .. }), "{error}");
    }
    let error = refused(XdpConfig { frame_bytes_max: None, ..good });
    assert!(matches!(error, XdpError::Interface { .. }), "what it can do is not known: {error}");
}
