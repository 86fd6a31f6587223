//! What keeps a dpdk link from opening is told by name, and ends nothing.

mod common;

use common::{config, dpdk};
use dpdk_sys::{Eal, Port, PortOptions};
use insane_conformance::wire::Namespace;
use insane_core::limits::PEERS_MAX;
use insane_core::{Lane, PeerIndex};
use insane_dpdk::{DpdkConfig, DpdkError, DpdkSetup, EalError, EalOptions, memory_bytes};
use insane_link::{FrameSink, Link, LinkSetup, PeerSetup, SendOutcome};
use insane_sys::clock::mono_now;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

fn here() -> SocketAddr {
    "10.9.0.2:7400".parse().unwrap()
}

/// On a device that needs nothing.
fn good() -> DpdkConfig {
    DpdkConfig { mac: Some([2, 0, 0, 0, 0, 2]), ..config("net_null0", here()) }
}

fn refused(config: DpdkConfig) -> DpdkError {
    DpdkSetup::bind(config).map(|_| ()).unwrap_err()
}

struct Nothing;

impl FrameSink for Nothing {
    fn frame(&mut self, _from: Option<PeerIndex>, _frame: &[u8]) {}
}

#[test]
fn a_wrong_configuration_is_refused_before_anything_opens() {
    // Also where there is no DPDK, and also by a link that may do without its device.
    let without = || DpdkConfig { eal: EalOptions { shim: Some("/nosuch.so".into()), ..common::eal() }, ..good() };
    let wrong = |config: DpdkConfig| {
        assert_eq!(DpdkSetup::bind_or_miss(config.clone()).map(|_| ()).unwrap_err(), refused(config.clone()));
        refused(config)
    };
    assert_eq!(wrong(DpdkConfig { real_time_dscp: 64, ..without() }), DpdkError::Dscp { given: 64 });
    for port in [0, u16::MAX] {
        let bind = SocketAddr::new(here().ip(), port);
        assert_eq!(wrong(DpdkConfig { bind, ..without() }), DpdkError::Port { bind });
    }
    for (given, most) in [(0, 8972), (507, 8972), (8973, 8972)] {
        let expected = DpdkError::FrameBytes { given, device: "net_null0".to_owned(), most };
        assert_eq!(wrong(DpdkConfig { frame_bytes_max: Some(given), ..without() }), expected);
    }
    assert!(matches!(wrong(DpdkConfig { prefix_bits: 33, ..without() }), DpdkError::Address { .. }));
    let gateway = Some("10.8.0.1".parse().unwrap());
    assert!(matches!(wrong(DpdkConfig { gateway, ..without() }), DpdkError::Address { .. }));
    let bind = "0.0.0.0:7400".parse().unwrap();
    assert!(matches!(wrong(DpdkConfig { bind, ..without() }), DpdkError::Address { .. }));
    let group = Some([3, 0, 0, 0, 0, 1]);
    let text = wrong(DpdkConfig { mac: group, ..without() }).to_string();
    assert!(text.contains("hardware address") && text.contains("`mac` gives the link one"), "{text}");
}

#[test]
fn a_link_without_dpdk_opens_and_refuses_every_frame() {
    let text = part("part_without_dpdk");
    assert!(text.contains("missing: the library for DPDK cannot be loaded"), "{text}");
    assert!(text.contains("/nosuch.so"), "{text}");
}

#[test]
#[ignore = "a part of a_link_without_dpdk_opens_and_refuses_every_frame"]
fn part_without_dpdk() {
    let eal = EalOptions { shim: Some("/nosuch.so".into()), ..common::eal() };
    let config = DpdkConfig { eal, ..good() };
    assert!(matches!(refused(config.clone()), DpdkError::Eal(EalError::Shim(_))));
    misses(config);
}

/// Opens without its device, and says why.
fn misses(config: DpdkConfig) {
    let setup = DpdkSetup::bind_or_miss(config).unwrap();
    println!("\nmissing: {}", setup.missing().unwrap());
    assert_eq!(setup.device(), None);
    let peers = [Some("10.9.0.1:7400".parse().unwrap())];
    let mut link = setup.open(&peers).unwrap();
    assert!(link.is_failing());
    for count in 1..=3 {
        let sent = link.send(PeerIndex(0), Lane::LAST, b"frame", (&[][..]).into());
        assert_eq!(sent, SendOutcome::Failed);
        link.flush();
        link.tend(mono_now());
        assert_eq!(link.receive(64, true, &mut Nothing), 0);
        assert_eq!(link.counts().device_failed, count);
    }
    assert!(!link.holds_frames() && link.sleep_max().is_none(), "nobody spins or wakes for it");
}

/// Runs the test of this name of this binary in a process of its own, as a part of a test.
fn part(name: &str) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", name, "--ignored", "--nocapture"]).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    text
}

#[test]
fn arguments_that_dpdk_refuses_end_nothing_but_the_link() {
    let Some(_alone) = dpdk() else { return };
    let text = part("part_wrong_arguments");
    assert!(text.contains("missing: DPDK does not start with the arguments [\"--no-such-thing\""), "{text}");
}

#[test]
#[ignore = "a part of arguments_that_dpdk_refuses_end_nothing_but_the_link"]
fn part_wrong_arguments() {
    let eal = EalOptions { arguments: vec!["--no-such-thing".to_owned()], ..common::eal() };
    misses(DpdkConfig { eal, ..good() });
}

#[test]
fn what_is_no_device_is_told() {
    let Some(_alone) = dpdk() else { return };
    let Some(namespace) = Namespace::make() else { return };
    namespace.ip("link add x0 type veth peer name p0\n");
    let of = |device: &str| {
        let config = DpdkConfig { mac: None, ..config(device, here()) };
        namespace.inside(|| refused(config)).to_string()
    };
    let text = of("net_nosuch0");
    assert!(text.starts_with("device net_nosuch0: finding the device"), "{text}");
    let text = of("net_af_packet0,iface=nosuch0");
    assert!(text.contains("interface nosuch0: finding the interface"), "{text}");
    let text = of("net_af_packet0,iface=x0");
    assert!(text.contains("interface x0 is down (ip link set x0 up)"), "{text}");
    let text = of("0000:03:00.0");
    assert!(text.contains("0000:03:00.0 is a NIC, and DPDK is started with --no-pci"), "{text}");
    namespace.ip("link set x0 up\nlink set p0 up\n");
    let large = DpdkConfig { frame_bytes_max: Some(1473), ..config("net_af_packet0,iface=x0", here()) };
    let device = large.device.clone();
    let expected = DpdkError::FrameBytes { given: 1473, device, most: 1472 };
    assert_eq!(namespace.inside(|| refused(large)), expected, "more than the interface's packets hold");
    // And now it opens, and its name is free again afterwards.
    for _ in 0..3 {
        let config = config("net_af_packet0,iface=x0", here());
        drop(namespace.inside(|| DpdkSetup::bind(config).unwrap()));
    }
}

#[test]
fn a_device_that_is_another_links_is_told_and_left_to_it() {
    let Some(_alone) = dpdk() else { return };
    let eal = dpdk_sys::Eal::start(&common::eal()).unwrap();
    eal.ring_pair("net_ring_one", "net_ring_other", 64).unwrap();
    let ends = ["net_ring_one", "net_ring_other"].map(|device| DpdkConfig { device: device.to_owned(), ..good() });
    let [first, second] = ends.map(|config| DpdkConfig { bind: here(), ..config });
    let second = DpdkConfig { bind: "10.9.0.1:7400".parse().unwrap(), mac: Some([2, 0, 0, 0, 0, 1]), ..second };
    let (at, other) = (here(), second.bind);
    let mut link = DpdkSetup::bind(first.clone()).unwrap().open(&[Some(other)]).unwrap();
    let text = refused(first).to_string();
    assert!(text.contains("device net_ring_one: taking the device, which is another link's"), "{text}");
    let mut peer = DpdkSetup::bind(second).unwrap().open(&[Some(at)]).unwrap();
    let end = Instant::now() + Duration::from_secs(5);
    while !link.knows_all_ways() && Instant::now() < end {
        link.tend(mono_now());
        peer.receive(64, true, &mut Nothing);
        link.receive(64, true, &mut Nothing);
    }
    assert!(link.knows_all_ways(), "the first link goes on");
}

#[test]
fn a_device_without_a_hardware_address_needs_one() {
    let Some(_alone) = dpdk() else { return };
    let eal = dpdk_sys::Eal::start(&common::eal()).unwrap();
    eal.ring_pair("net_ring_bare", "net_ring_end", 64).unwrap();
    let text = refused(config("net_ring_bare", here())).to_string();
    assert!(text.contains("`mac` gives the link one"), "{text}");
}

#[test]
fn frames_take_no_more_memory_than_is_planned() {
    let Some(_alone) = dpdk() else { return };
    for frame_bytes in [508, 1472, 8972] {
        let setup = DpdkSetup::bind(DpdkConfig { frame_bytes_max: Some(frame_bytes), ..good() }).unwrap();
        let taken = u64::from(setup.device().unwrap().pool_bytes);
        let planned = memory_bytes(frame_bytes, true);
        assert!(taken <= planned && 2 * taken > planned, "{frame_bytes}: {taken} of {planned}");
    }
}

#[test]
fn peers_that_cannot_be_are_refused_and_others_come_and_go_without_end() {
    let Some(_alone) = dpdk() else { return };
    let open = |peers: &[Option<SocketAddr>]| DpdkSetup::bind(good()).unwrap().open(peers).map(|_| ()).unwrap_err();
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    for unusable in
        ["10.9.0.1:0", "10.9.0.1:65535", "0.0.0.0:7", "224.0.0.1:7", "10.9.0.2:7", "10.8.0.1:7", "[fd00::1]:7"]
    {
        let expected = DpdkError::PeerUnusable { peer: PeerIndex(1), address: address(unusable), bind: here() };
        assert_eq!(open(&[None, Some(address(unusable))]), expected);
    }
    let twice = address("10.9.0.1:7400");
    let (first, second) = (PeerIndex(0), PeerIndex(2));
    assert_eq!(open(&[Some(twice), None, Some(twice)]), DpdkError::PeerDuplicate { first, second, address: twice });
    let setup = DpdkSetup::bind(DpdkConfig { prefix_bits: 16, ..good() }).unwrap();
    let (peers, mut link) = (setup.peers(), setup.open(&[]).unwrap());
    // More than there are places for.
    for number in 0..3 * PEERS_MAX {
        let address = SocketAddr::from(([10, 9, 1 + (number / 200) as u8, (1 + number % 200) as u8], 7400));
        assert_eq!(link.swap_peer(first, &mut Some(peers.prepare(first, address).unwrap())), Ok(()), "{address}");
    }
    assert_eq!(link.swap_peer(first, &mut None), Ok(()));
}

/// More often than DPDK has ports, under the same names: both ends of virtio's shared memory.
#[test]
fn a_virtio_device_is_given_back_and_had_again() {
    let Some(_alone) = dpdk() else { return };
    let text = part("part_virtio");
    assert!(text.contains("40 devices were given back") || text.contains("passed over: "), "{text}");
}

#[test]
#[ignore = "a part of a_virtio_device_is_given_back_and_had_again, in a process of its own"]
fn part_virtio() {
    let Some(_alone) = dpdk() else { return };
    let socket = std::env::temp_dir().join(format!("insane-virtio-{}", std::process::id()));
    let path = socket.display();
    let eal = Eal::start(&common::eal()).unwrap();
    let mut open = 0;
    for round in 0..40 {
        let options = PortOptions {
            device: format!("net_vhost0,iface={path}"),
            packet_bytes: 1500,
            ring_frames: 256,
            pool_frames: 1023,
            is_promiscuous: true,
        };
        let mut other = match Port::open(eal, &options) {
            Ok((port, _)) => port,
            Err(error) if error.stage == "finding the device" && round == 0 => {
                return println!("passed over: {error}");
            }
            Err(error) => panic!("round {round}: {error}"),
        };
        let config =
            DpdkConfig { mac: Some([2, 0, 0, 0, 0, 2]), ..config(&format!("net_virtio_user0,path={path}"), here()) };
        let mut link = DpdkSetup::bind(config).unwrap().open(&[Some("10.9.0.1:7400".parse().unwrap())]).unwrap();
        // It asks for its neighbour, which is seen at the other end.
        let end = Instant::now() + Duration::from_secs(20);
        let frame = loop {
            assert!(Instant::now() < end, "round {round}: nothing comes");
            link.tend(mono_now());
            link.flush();
            if let Some(frame) = other.receive() {
                break frame;
            }
        };
        other.release(frame);
        drop(link);
        drop(other);
        let now = insane_conformance::wire::descriptors();
        if round == 1 {
            open = now;
        }
        assert!(round < 2 || now <= open, "round {round}: {now} descriptors, {open} before");
    }
    let _ = std::fs::remove_file(&socket);
    println!("40 devices were given back");
}

/// Two processes, joined by a memif; the other is killed, and one that comes after it is a good
/// peer again.
#[test]
fn a_peer_in_another_process_may_be_killed_and_come_back() {
    let Some(_alone) = dpdk() else { return };
    let text = part("part_survivor");
    assert!(text.contains("three peers were heard"), "{text}");
}

const PEER: &str = "10.9.0.1:7400";
const SOCKET: &str = "INSANE_TEST_MEMIF";

fn memif(role: &str, socket: &str, bind: &str) -> DpdkConfig {
    let device = format!("net_memif0,role={role},id=0,socket-abstract=no,socket={socket}");
    let bind: SocketAddr = bind.parse().unwrap();
    DpdkConfig { eal: EalOptions { memory_mib: 64, ..common::eal() }, ..config(&device, bind) }
}

#[derive(Default)]
struct Last(Vec<u8>);

impl FrameSink for Last {
    fn frame(&mut self, from: Option<PeerIndex>, frame: &[u8]) {
        assert_eq!(from, Some(PeerIndex(0)));
        self.0 = frame.to_vec();
    }
}

#[test]
#[ignore = "a part of a_peer_in_another_process_may_be_killed_and_come_back"]
fn part_survivor() {
    let socket = std::env::temp_dir().join(format!("insane-memif-{}", std::process::id()));
    let peers = [Some(PEER.parse().unwrap())];
    let setup = DpdkSetup::bind(memif("server", socket.to_str().unwrap(), "10.9.0.2:7400")).unwrap();
    let mut link = setup.open(&peers).unwrap();
    for round in 0..3u8 {
        let mut other = Command::new(std::env::current_exe().unwrap());
        other.args(["--exact", "part_echo", "--ignored"]).env(SOCKET, &socket);
        let mut other = other.spawn().unwrap();
        let (mut last, end) = (Last::default(), Instant::now() + Duration::from_secs(20));
        while last.0 != [round; 100] && Instant::now() < end {
            let _ = link.send(PeerIndex(0), Lane::CONTROL, &[round; 100], (&[][..]).into());
            link.flush();
            link.tend(mono_now());
            link.receive(64, true, &mut last);
            std::thread::sleep(Duration::from_millis(1));
        }
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(last.0, [round; 100], "{:?}", link.counts());
        // Frames for one that is gone are refused before long.
        let end = Instant::now() + Duration::from_secs(20);
        while !link.is_failing() && Instant::now() < end {
            let _ = link.send(PeerIndex(0), Lane::CONTROL, b"lost", (&[][..]).into());
            link.tend(mono_now());
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(link.is_failing() && !link.holds_frames());
    }
    std::fs::remove_file(&socket).unwrap();
    println!("\nthree peers were heard");
}

#[test]
#[ignore = "a part of a_peer_in_another_process_may_be_killed_and_come_back"]
fn part_echo() {
    let socket = std::env::var(SOCKET).unwrap();
    let setup = DpdkSetup::bind(memif("client", &socket, PEER)).unwrap();
    let mut link = setup.open(&[Some("10.9.0.2:7400".parse().unwrap())]).unwrap();
    // It is killed long before that.
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        let mut last = Last::default();
        if link.receive(64, true, &mut last) > 0 {
            let _ = link.send(PeerIndex(0), Lane::CONTROL, &last.0, (&[][..]).into());
        }
        link.flush();
        link.tend(mono_now());
        std::thread::sleep(Duration::from_micros(200));
    }
}
