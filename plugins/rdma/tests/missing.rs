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

/// The device that is on an interface, as `rdma link` names it.
fn device_on(interface: &str) -> String {
    let output = Command::new("rdma").args(["link", "show"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.split_whitespace().any(|word| word == interface)).expect(&text);
    let name = line.split_whitespace().find_map(|word| word.split_once('/')).expect("link DEVICE/PORT").0;
    name.to_owned()
}

/// Packets that a device sent, and those that it took.
fn packets(device: &str) -> (u64, u64) {
    let read = |name: &str| {
        let path = format!("/sys/class/infiniband/{device}/ports/1/hw_counters/{name}");
        std::fs::read_to_string(path).unwrap().trim().parse().unwrap()
    };
    (read("sent_pkts"), read("rcvd_pkts"))
}

/// Two links, each with its keeper.
struct Ends([(RdmaLink, RdmaKeeper); 2]);

impl Ends {
    fn new(ip: IpAddr, ports: [u16; 2]) -> Self {
        let [at, to] = ports.map(|port| SocketAddr::new(ip, port));
        Ends([kept(at.port(), ip, to), kept(to.port(), ip, at)])
    }

    fn until_up(&mut self) {
        for (link, keeper) in &mut self.0 {
            until_health("up", link, keeper, |health| *health == LinkHealth::Up);
        }
    }

    fn until_missing(&mut self) {
        for (link, keeper) in &mut self.0 {
            until_health("missing", link, keeper, |health| *health != LinkHealth::Up);
        }
    }

    /// Whether they connect within a few seconds.
    fn connect(&mut self) -> bool {
        let end = Instant::now() + Duration::from_secs(12);
        while !self.0.iter().all(|(link, _)| link.is_connected(PEER)) {
            if Instant::now() > end {
                return false;
            }
            self.0.iter_mut().for_each(|(link, _)| turn(link, &mut Keep::default()));
        }
        true
    }

    /// One frame passes.
    fn exchange(&mut self, round: u64) {
        let [(link, _), (other, _)] = &mut self.0;
        send(link, REAL_TIME, &round.to_le_bytes());
        assert_eq!(wait_for(other, 1), [round.to_le_bytes()]);
    }

    /// All of them have lost `count` devices, and say so of each frame.
    fn are_without(&mut self, count: u64) {
        for (link, keeper) in &mut self.0 {
            link.tend(mono_now());
            assert!(!missing(keeper).is_empty());
            assert_eq!((link.has_device(), named(link, "devices_lost")), (false, count));
            assert_eq!(offer(link, REAL_TIME, b"lost"), SendOutcome::Failed);
        }
    }
}

/// Soft-RoCE (of Linux 6.1 at least) now and then hears no call any more when its address went
/// while connections stood: for every process, until the device is made anew. It sends and takes
/// nothing then, which is looked at here: it must be the device.
fn must_be_deaf(ends: &mut Ends, device: &str) {
    let before = packets(device);
    assert!(!ends.connect(), "they were only slow");
    let after = packets(device);
    assert!(after.0 > before.0 && after.1 == before.1, "the device works, the links do not: {before:?} {after:?}");
}

#[test]
fn an_address_that_goes_and_returns_brings_new_connections_for_the_same_peers() {
    const ROUNDS: u64 = 6;
    let _alone = DEVICE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(ip) = v4() else { return };
    let (interface, prefix) = interface_of(ip).expect("the device has the address");
    // Ports of their own: both links take them again.
    let mut ends = Ends::new(ip, [21_840, 21_841]);
    for round in 0..ROUNDS {
        ends.until_up();
        if !ends.connect() {
            must_be_deaf(&mut ends, &device_on(&interface));
            eprintln!("the device hears nothing after {round} returns; the rest is left out");
            return;
        }
        ends.exchange(round);
        ip_command(&format!("address del {ip}/{prefix} dev {interface}"));
        ends.until_missing();
        ends.are_without(round + 1);
        ip_command(&format!("address add {ip}/{prefix} dev {interface}"));
    }
    let made = named(&ends.0[0].0, "connections_made");
    assert!(made >= 2 * ROUNDS, "of all devices: {made}");
}
