//! A link without its device: it refuses frames and counts them meanwhile, and goes on with the
//! same peers when there is one.

mod common;

use common::*;
use insane_core::{Lane, PeerIndex};
use insane_link::{Link, LinkHealth, LinkKeeper, LinkSetup, PeerSetup, SendOutcome, SwapRefused};
use insane_rdma::{FRAME_BYTES_LIMIT, RdmaConfig, RdmaError, RdmaKeeper, RdmaLink, RdmaSetup};
use insane_sys::clock::mono_now;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// An address for documentation: no host has it, whatever devices there are.
const NOWHERE: &str = "192.0.2.1:7400";
/// One test takes the address away from the device.
static DEVICE: Mutex<()> = Mutex::new(());

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn named(link: &RdmaLink, name: &str) -> u64 {
    let counts = link.link_counts();
    let mut rows = counts.names().iter().zip(counts.values());
    *rows.find(|(given, _)| **given == name).unwrap_or_else(|| panic!("nothing is called {name}")).1
}

fn missing(keeper: &mut RdmaKeeper) -> String {
    match keeper.look() {
        LinkHealth::Missing(why) => why,
        LinkHealth::Up => panic!("there is no such device"),
    }
}

#[test]
fn a_link_without_a_device_opens_says_why_and_refuses_every_frame() {
    let setup = RdmaSetup::bind_or_wait(RdmaConfig::new(address(NOWHERE))).unwrap();
    let why = setup.missing().expect("no host has this address").to_string();
    assert_eq!(setup.local_addr(), address(NOWHERE));
    let (mut keeper, peers) = (setup.keeper(), setup.peers());
    let mut link = setup.open(&[Some(address("192.0.2.2:7400"))]).unwrap();
    assert_eq!(missing(&mut keeper), why, "nothing has changed");
    for count in 1..=3 {
        let sent = link.send(PEER, Lane::LAST, b"frame", (&[][..]).into());
        assert_eq!(sent, SendOutcome::Failed);
        link.flush();
        assert!(!link.tend(mono_now()));
        assert_eq!(link.receive(64, true, &mut Keep::default()), 0);
        assert_eq!(named(&link, "frames_device_missing"), count);
    }
    assert!(!link.has_device() && !link.is_connected(PEER));
    assert!(!link.holds_frames() && link.readable_fds().count() == 0, "nobody spins or wakes for it");
    // Peers come and go meanwhile.
    let second = PeerIndex(1);
    let prepare = |text| Some(peers.prepare(second, address(text)).unwrap());
    assert_eq!(link.swap_peer(second, &mut prepare("192.0.2.2:7400")), Err(SwapRefused::AddressTaken(PEER)));
    let mut with = prepare("192.0.2.3:7400");
    assert_eq!(link.swap_peer(second, &mut with), Ok(()));
    assert!(with.is_none());
    assert_eq!(link.swap_peer(second, &mut with), Ok(()));
    assert!(with.is_some(), "it comes back");
    assert!(peers.prepare(second, address("[::1]:7400")).is_err() && peers.prepare(second, address(NOWHERE)).is_err());
    missing(&mut keeper);
}

/// What is wrong whatever the device is stays an error.
#[test]
fn a_wrong_configuration_is_not_waited_for() {
    let refused = |config| RdmaSetup::bind_or_wait(config).map(|_| ()).unwrap_err();
    let good = RdmaConfig::new(address(NOWHERE));
    let given = FRAME_BYTES_LIMIT + 1;
    assert_eq!(refused(RdmaConfig { frame_bytes_max: given, ..good.clone() }), RdmaError::FrameBytes { given });
    assert_eq!(refused(RdmaConfig { real_time_dscp: 64, ..good.clone() }), RdmaError::Dscp { given: 64 });
    let bind = address("192.0.2.1:0");
    assert!(matches!(refused(RdmaConfig { bind, ..good }), RdmaError::Verbs(_)), "peers could not be told the port");
}

/// A link that keeps an eye on its device, with one that is always there.
fn kept(port: u16, ip: IpAddr, peer: SocketAddr) -> (RdmaLink, RdmaKeeper) {
    let setup = RdmaSetup::bind_or_wait(RdmaConfig::new((ip, port).into())).unwrap();
    let keeper = setup.keeper();
    (setup.open(&[Some(peer)]).unwrap(), keeper)
}

fn until_health(what: &str, link: &mut RdmaLink, keeper: &mut RdmaKeeper, is_it: impl Fn(&LinkHealth) -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let health = keeper.look();
        link.tend(mono_now());
        if is_it(&health) {
            return;
        }
        assert!(Instant::now() < end, "never {what}: {health:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_port_that_is_taken_is_had_when_it_is_free() {
    let _alone = DEVICE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(ip) = v4() else { return };
    let (holder, other) = (setup(ip), setup(ip));
    let at = holder.local_addr();
    let (mut link, mut keeper) = kept(at.port(), ip, other.local_addr());
    let mut other = other.open(&[Some(at)]).unwrap();
    missing(&mut keeper);
    assert!(!link.has_device());
    drop(holder);
    until_health("up", &mut link, &mut keeper, |health| *health == LinkHealth::Up);
    assert!(link.has_device() && link.take_new_fds());
    connect(&mut link, &mut other);
    send(&mut link, REAL_TIME, b"there");
    assert_eq!(wait_for(&mut other, 1), [b"there"]);
    send(&mut other, BEST_EFFORT, b"back");
    assert_eq!(wait_for(&mut link, 1), [b"back"]);
    assert_eq!(named(&link, "devices_lost"), 0);
}

/// The interface that has an address, with the length of its prefix: `rdma0`, `24`.
fn interface_of(ip: IpAddr) -> Option<(String, String)> {
    let output = Command::new("ip").args(["-o", "address", "show"]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (name, _family, address) = (words.next()?, words.next()?, words.next()?);
        let (found, prefix) = address.split_once('/')?;
        (found.parse() == Ok(ip)).then(|| (name.to_owned(), prefix.to_owned()))
    })
}

fn ip_command(arguments: &str) {
    assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success(), "ip {arguments}");
}

#[test]
fn an_address_that_goes_and_returns_brings_new_connections_for_the_same_peers() {
    let _alone = DEVICE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(ip) = v4() else { return };
    let (interface, prefix) = interface_of(ip).expect("the device has the address");
    // Ports of their own: both links take them again.
    let ports = [21_840, 21_841];
    let [at, to] = ports.map(|port| SocketAddr::new(ip, port));
    let (mut link, mut keeper) = kept(at.port(), ip, to);
    let (mut other, mut other_keeper) = kept(to.port(), ip, at);
    // A second return within moments did not connect again over soft-RoCE: not known why, and not
    // promised (docs/SPECIFICATION.md).
    for round in 0..2_u64 {
        let up = |health: &LinkHealth| *health == LinkHealth::Up;
        until_health("up", &mut link, &mut keeper, up);
        until_health("up", &mut other, &mut other_keeper, up);
        let end = Instant::now() + Duration::from_secs(20);
        while !link.is_connected(PEER) || !other.is_connected(PEER) {
            assert!(Instant::now() < end, "round {round}: never connected: {link:?}, {other:?}");
            turn(&mut link, &mut Keep::default());
            turn(&mut other, &mut Keep::default());
        }
        send(&mut link, REAL_TIME, &round.to_le_bytes());
        assert_eq!(wait_for(&mut other, 1), [round.to_le_bytes()]);
        ip_command(&format!("address del {ip}/{prefix} dev {interface}"));
        let gone = |health: &LinkHealth| *health != LinkHealth::Up;
        until_health("missing", &mut link, &mut keeper, gone);
        until_health("missing", &mut other, &mut other_keeper, gone);
        for (link, keeper) in [(&mut link, &mut keeper), (&mut other, &mut other_keeper)] {
            link.tend(mono_now());
            assert!(missing(keeper).contains(&ip.to_string()));
            assert_eq!((link.has_device(), named(link, "devices_lost")), (false, round + 1));
            assert_eq!(offer(link, REAL_TIME, b"lost"), SendOutcome::Failed);
        }
        ip_command(&format!("address add {ip}/{prefix} dev {interface}"));
    }
    assert!(named(&link, "connections_made") >= 4, "of all devices: {:?}", link.counts());
}
