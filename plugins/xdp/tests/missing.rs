//! A link whose interface is missing, goes away, or returns as another: it refuses frames and
//! counts them meanwhile, and goes on with the same peers.

use insane_conformance::Keep;
use insane_conformance::wire::{self, Namespace, PATIENCE, WORLD_LINK, WORLD_PEER, descriptors};
use insane_link::{Link, LinkHealth, LinkSetup, SendOutcome};
use insane_sys::clock::mono_now;
use insane_xdp::{Mode, XdpConfig, XdpError, XdpKeeper, XdpLink, XdpSetup};
use insane_xdp_sys::attachment::detach_by_force;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Instant;

const MODES: [Mode; 2] = [Mode::Native, Mode::Skb];
const FRAME_BYTES_MAX: u32 = 1000;

fn config(mode: Mode) -> XdpConfig {
    let bind = WORLD_LINK.parse().unwrap();
    XdpConfig { mode, frame_bytes_max: Some(FRAME_BYTES_MAX), ..XdpConfig::new("x0", bind) }
}

fn setup(ours: &Namespace, mode: Mode) -> XdpSetup {
    ours.inside(|| XdpSetup::bind_or_wait(config(mode)).unwrap())
}

type World = wire::World<XdpLink, XdpKeeper>;

/// Without an interface yet.
fn world(mode: Mode) -> Option<World> {
    let hosts = wire::Hosts::make()?;
    let setup = setup(&hosts.ours, mode);
    let keeper = setup.keeper();
    let peers: [Option<SocketAddr>; 1] = [Some(WORLD_PEER.parse().unwrap())];
    Some(World { hosts, link: setup.open(&peers).unwrap(), keeper, is_ready: XdpLink::knows_all_ways })
}

/// The reason, in words, once the link has given back what it had.
fn wait_until_missing(world: &mut World) -> String {
    let why = world.wait_until_missing();
    // Without another look, which might open it anew.
    let end = Instant::now() + PATIENCE;
    while world.link.mode().is_some() {
        assert!(Instant::now() < end, "the link keeps what it has");
        world.link.tend(mono_now());
    }
    why
}

#[test]
fn a_link_opens_without_its_interface_and_works_when_that_comes() {
    for mode in MODES {
        let Some(mut world) = world(mode) else { return };
        assert_eq!(world.link.capabilities().frame_bytes_max, FRAME_BYTES_MAX);
        assert_eq!(world.send(b"lost"), SendOutcome::Failed);
        assert_eq!(world.link.receive(64, true, &mut Keep::default()), 0);
        assert!(!world.link.tend(mono_now()) && !world.link.holds_frames(), "nothing keeps a datapath awake");
        assert_eq!(world.link.counts().absent, 1);
        let why = wait_until_missing(&mut world);
        assert!(why.contains("x0") && why.contains("finding the interface"), "{why}");
        world.hosts.join();
        world.wait_until_up();
        assert_eq!(world.link.mode(), Some(mode));
        world.exchange(0, false);
        assert_eq!(world.link.counts().interface_lost, 0);
    }
}

#[test]
fn an_interface_that_is_taken_is_had_when_it_is_free() {
    let Some(mut world) = world(Mode::Auto) else { return };
    world.hosts.join();
    let bind = "10.9.0.7:7400".parse().unwrap();
    let other = world.hosts.ours.inside(|| XdpSetup::bind(XdpConfig::new("x0", bind)).unwrap());
    let why = wait_until_missing(&mut world);
    assert!(why.contains("taken by another process"), "{why}");
    drop(other);
    world.wait_until_up();
    world.exchange(0, false);
}

#[test]
fn an_interface_that_is_down_is_missing_until_it_is_up() {
    for mode in MODES {
        let Some(mut world) = world(mode) else { return };
        world.hosts.join();
        world.wait_until_up();
        world.exchange(0, false);
        world.hosts.ours.ip("link set x0 down\n");
        let outcomes: Vec<SendOutcome> = (0..3_000).map(|_| world.send(b"lost")).collect();
        assert!(outcomes.ends_with(&[SendOutcome::Failed]), "nobody waits for an interface that is down");
        assert!(!world.link.holds_frames(), "nor spins for it");
        let sent = outcomes.iter().filter(|outcome| **outcome == SendOutcome::Sent).count() as u64;
        let counts = world.link.counts();
        assert_eq!((counts.unsent_lost, counts.absent), (sent, 3_000 - sent), "{counts:?}");
        assert!(counts.sockets.kicks_failed > 0);
        let why = wait_until_missing(&mut world);
        assert!(why.contains("interface x0 is down"), "{why}");
        world.hosts.ours.ip("link set x0 up\n");
        world.wait_until_up();
        world.exchange(1, false);
    }
}

#[test]
fn an_interface_that_flaps_a_hundred_times_comes_back_each_time() {
    const FLAPS: u32 = 100;
    let Some(mut world) = world(Mode::Native) else { return };
    let before = descriptors();
    for round in 0..FLAPS {
        world.hosts.join();
        world.wait_until_up();
        world.exchange(round, false);
        world.hosts.ours.ip("link delete x0\n");
        if round % 2 == 0 {
            // The link itself notices by its next frame, or the keeper does.
            while world.send(b"lost") == SendOutcome::Sent {}
            assert_eq!(world.link.mode(), None);
        }
        wait_until_missing(&mut world);
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
    let Some(mut world) = world(Mode::Skb) else { return };
    for round in 0..3 {
        world.hosts.join();
        world.wait_until_up();
        world.exchange(round, false);
        // Made again between two looks: there is an interface of that name at each.
        world.hosts.ours.ip("link delete x0\n");
    }
    world.hosts.join();
    wait_until_missing(&mut world);
    world.wait_until_up();
    world.exchange(3, false);
}

#[test]
fn an_mtu_that_no_longer_holds_a_frame_makes_the_interface_missing() {
    let Some(mut world) = world(Mode::Native) else { return };
    world.hosts.join();
    world.wait_until_up();
    world.exchange(0, false);
    world.hosts.ours.ip("link set x0 mtu 1400\n");
    assert_eq!(world.look(), LinkHealth::Up, "frames of this link fit");
    world.exchange(1, false);
    world.hosts.ours.ip("link set x0 mtu 900\n");
    let why = wait_until_missing(&mut world);
    assert!(why.contains("frame_bytes_max is 1000") && why.contains("508 to 872"), "{why}");
    assert_eq!(world.send(b"lost"), SendOutcome::Failed);
    world.hosts.ours.ip("link set x0 mtu 1500\n");
    world.wait_until_up();
    world.exchange(2, false);
}

#[test]
fn another_hardware_address_is_taken_over() {
    let Some(mut world) = world(Mode::Native) else { return };
    world.hosts.join();
    world.wait_until_up();
    world.hosts.ours.ip("link set x0 address 02:00:00:00:00:77\n");
    wait_until_missing(&mut world);
    world.wait_until_up();
    world.exchange(0, false);
}

/// As `bpftool link detach` does: the sockets stand as before, and no frame comes by them.
#[test]
fn a_program_that_is_detached_by_force_is_noticed_and_attached_anew() {
    for mode in MODES {
        let Some(mut world) = world(mode) else { return };
        world.hosts.join();
        world.wait_until_up();
        // Not by everybody: what a link has attached is not taken away without it.
        for hook in ["xdp", "xdpdrv", "xdpgeneric"] {
            let off = || Command::new("ip").args(["link", "set", "x0", hook, "off"]).stderr(Stdio::null()).status();
            let _ = world.hosts.ours.inside(off).unwrap();
        }
        assert_eq!(world.look(), LinkHealth::Up);
        for round in 0..3 {
            world.exchange(round, false);
            detach_by_force(program_at(&world.hosts.ours)).unwrap();
            let why = wait_until_missing(&mut world);
            assert!(why.contains("detached from interface x0"), "{why}");
            assert_eq!(world.send(b"lost"), SendOutcome::Failed);
            world.wait_until_up();
            assert_eq!(world.link.counts().interface_lost, u64::from(round) + 1);
        }
        world.exchange(3, false);
    }
}

/// The number of the program at the interface, as the kernel tells it.
fn program_at(ours: &Namespace) -> u32 {
    let show = || Command::new("ip").args(["-details", "link", "show", "x0"]).output().unwrap();
    let shown = String::from_utf8_lossy(&ours.inside(show).stdout).into_owned();
    let (_, behind) = shown.split_once("prog/xdp id ").expect("a program");
    behind.split_whitespace().next().unwrap().parse().unwrap()
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
