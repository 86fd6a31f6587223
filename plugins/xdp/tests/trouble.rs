//! What keeps an xdp link from opening is told by name, and what ends it leaves nothing.

use insane_conformance::wire::Namespace;
use insane_core::PeerIndex;
use insane_core::limits::PEERS_MAX;
use insane_link::{Link, LinkSetup, PeerSetup};
use insane_xdp::{Mode, XdpConfig, XdpError, XdpSetup};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

fn here() -> SocketAddr {
    "10.9.0.2:7400".parse().unwrap()
}

fn config(mode: Mode) -> XdpConfig {
    XdpConfig { mode, ..XdpConfig::new("x0", here()) }
}

/// A veth pair.
fn namespace() -> Option<Namespace> {
    let namespace = Namespace::make()?;
    namespace.ip("link add x0 type veth peer name p0\nlink set x0 up\nlink set p0 up\n");
    Some(namespace)
}

fn refused(namespace: &Namespace, config: XdpConfig) -> XdpError {
    namespace.inside(|| XdpSetup::bind(config).map(|_| ()).unwrap_err())
}

/// Runs the test of this name of this binary in a process of its own, as a part of a test.
fn child(namespace: &Namespace, part: &str) -> Child {
    namespace.inside(|| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", part, "--ignored", "--nocapture"]);
        command.stdout(Stdio::piped()).spawn().unwrap()
    })
}

#[test]
fn what_is_no_interface_is_told() {
    let Some(namespace) = namespace() else { return };
    let of = |interface: &str| XdpConfig { interface: interface.to_owned(), ..config(Mode::Auto) };
    let text = refused(&namespace, of("nosuch0")).to_string();
    assert!(text.contains("nosuch0") && text.contains("finding the interface"), "{text}");
    let text = refused(&namespace, of("lo")).to_string();
    assert!(text.contains("lo") && text.contains("Ethernet"), "{text}");
    namespace.ip("link set x0 down\n");
    assert_eq!(refused(&namespace, config(Mode::Auto)), XdpError::Down { interface: "x0".to_owned() });
}

#[test]
fn a_wrong_configuration_is_refused() {
    let Some(namespace) = namespace() else { return };
    let good = config(Mode::Auto);
    let refused = |config| refused(&namespace, config);
    assert_eq!(refused(XdpConfig { real_time_dscp: 64, ..good.clone() }), XdpError::Dscp { given: 64 });
    for port in [0, u16::MAX] {
        let bind = SocketAddr::new(here().ip(), port);
        assert_eq!(refused(XdpConfig { bind, ..good.clone() }), XdpError::Port { bind });
    }
    for given in [0, 507, 1473, 65_000] {
        let interface = "x0".to_owned();
        let expected = XdpError::FrameBytes { given, interface, most: 1472 };
        assert_eq!(refused(XdpConfig { frame_bytes_max: Some(given), ..good.clone() }), expected);
    }
    assert!(matches!(refused(XdpConfig { prefix_bits: 33, ..good.clone() }), XdpError::Address { .. }));
    let gateway = Some("10.8.0.1".parse().unwrap());
    assert!(matches!(refused(XdpConfig { gateway, ..good.clone() }), XdpError::Address { .. }));
    let bind = "0.0.0.0:7400".parse().unwrap();
    assert!(matches!(refused(XdpConfig { bind, ..good.clone() }), XdpError::Address { .. }));
    let no_queue = refused(XdpConfig { queue: 77, ..good });
    assert_eq!(no_queue, XdpError::NoQueue { interface: "x0".to_owned(), queue: 77 });
}

#[test]
fn peers_that_cannot_be_are_refused() {
    let Some(namespace) = namespace() else { return };
    let open = |peers: &[Option<SocketAddr>]| {
        namespace.inside(|| XdpSetup::bind(config(Mode::Skb)).unwrap().open(peers).map(|_| ()).unwrap_err())
    };
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    for unusable in
        ["10.9.0.1:0", "10.9.0.1:65535", "0.0.0.0:7", "224.0.0.1:7", "10.9.0.2:7", "10.8.0.1:7", "[fd00::1]:7"]
    {
        let expected = XdpError::PeerUnusable { peer: PeerIndex(1), address: address(unusable), bind: here() };
        assert_eq!(open(&[None, Some(address(unusable))]), expected);
    }
    let twice = address("10.9.0.1:7400");
    let (first, second) = (PeerIndex(0), PeerIndex(2));
    assert_eq!(open(&[Some(twice), None, Some(twice)]), XdpError::PeerDuplicate { first, second, address: twice });
    let with_gateway = XdpConfig { gateway: Some("10.9.0.1".parse().unwrap()), ..config(Mode::Skb) };
    let setup = namespace.inside(|| XdpSetup::bind(with_gateway).unwrap());
    assert!(setup.peers().prepare(PeerIndex(0), address("10.8.0.1:7")).is_ok(), "a gateway leads there");
}

#[test]
fn peers_may_come_and_go_without_end() {
    let Some(namespace) = namespace() else { return };
    let config = XdpConfig { prefix_bits: 16, ..config(Mode::Skb) };
    let (peers, mut link) = namespace.inside(|| {
        let setup = XdpSetup::bind(config).unwrap();
        (setup.peers(), setup.open(&[]).unwrap())
    });
    let peer = PeerIndex(0);
    // More than there are places for.
    for number in 0..3 * PEERS_MAX {
        let address = SocketAddr::from(([10, 9, 1 + (number / 200) as u8, (1 + number % 200) as u8], 7400));
        assert_eq!(link.swap_peer(peer, &mut Some(peers.prepare(peer, address).unwrap())), Ok(()), "{address}");
    }
    assert_eq!(link.swap_peer(peer, &mut None), Ok(()));
}

#[test]
fn modes_are_tried_in_order_and_refused_by_name() {
    let Some(namespace) = namespace() else { return };
    let XdpError::Mode { mode, reason, .. } = refused(&namespace, config(Mode::ZeroCopy)) else {
        panic!("a veth pair has no zero copy")
    };
    assert_eq!(mode, "zero_copy");
    assert!(reason.contains("binding"), "{reason}");
    let had = namespace.inside(|| XdpSetup::bind(config(Mode::Auto)).unwrap().mode());
    assert_eq!(had, Some(Mode::Native), "the best that a veth pair does");
}

#[test]
fn an_interface_that_is_taken_is_told_and_free_again_at_once() {
    let Some(namespace) = namespace() else { return };
    for mode in [Mode::Native, Mode::Skb] {
        let first = namespace.inside(|| XdpSetup::bind(config(mode)).unwrap());
        for other in [Mode::Auto, Mode::Native, Mode::Skb] {
            let error = refused(&namespace, config(other));
            assert!(matches!(error, XdpError::Taken { queue: 0, .. }), "{error}");
            assert!(error.to_string().contains("interface x0, queue 0"), "{error}");
        }
        drop(first);
    }
}

/// What the kernel says of the interface.
fn shown(namespace: &Namespace) -> String {
    let show = || Command::new("ip").args(["link", "show", "x0"]).output().unwrap();
    String::from_utf8_lossy(&namespace.inside(show).stdout).into_owned()
}

#[test]
fn nothing_is_left_of_a_link_that_is_killed() {
    let Some(namespace) = namespace() else { return };
    for _ in 0..3 {
        let mut child = child(&namespace, "part_open_until_killed");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("it is open")), "the child did not open it");
        assert!(shown(&namespace).contains("prog/xdp"), "{}", shown(&namespace));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!shown(&namespace).contains("prog/xdp"), "{}", shown(&namespace));
        drop(namespace.inside(|| XdpSetup::bind(config(Mode::Native)).unwrap()));
    }
}

#[test]
#[ignore = "a part of nothing_is_left_of_a_link_that_is_killed"]
fn part_open_until_killed() {
    let link = XdpSetup::bind(config(Mode::Native)).unwrap().open(&[]).unwrap();
    println!("\nit is open");
    // Longer than any test waits, and it ends by itself.
    std::thread::sleep(std::time::Duration::from_secs(60));
    drop(link);
}

#[test]
fn without_rights_it_is_told_which_are_missing() {
    let Some(namespace) = namespace() else { return };
    let mut child = child(&namespace, "part_without_rights");
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    assert!(said.contains("interface x0: attaching an XDP program: permission denied"), "{said}");
    assert!(said.contains("CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF are needed"), "{said}");
}

#[test]
#[ignore = "a part of without_rights_it_is_told_which_are_missing"]
fn part_without_rights() {
    nix::unistd::setuid(nix::unistd::Uid::from_raw(65_534)).unwrap();
    println!("\n{}", XdpSetup::bind(config(Mode::Auto)).map(|_| ()).unwrap_err());
}
