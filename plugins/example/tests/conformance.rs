//! The example passes the suite that every plugin passes, and stays short.

use insane_conformance::{Fixture, conformance_tests, watch_allocations};
use insane_core::PeerIndex;
use insane_example::{ExampleLink, ExamplePeer, ExamplePeers, ExampleSetup};
use insane_link::{LinkSetup, PeerSetup};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

watch_allocations!();

struct Example {
    addresses: Vec<SocketAddr>,
    setups: Vec<ExamplePeers>,
    stranger: UdpSocket,
}

impl Example {
    fn new() -> Self {
        let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        Example { addresses: Vec::new(), setups: Vec::new(), stranger }
    }
}

/// A link at a pair of ports that is free.
fn setup() -> (SocketAddr, ExampleSetup) {
    loop {
        let probe = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = probe.local_addr().unwrap();
        drop(probe);
        // The next port may be another's.
        if let Ok(setup) = ExampleSetup::bind(address) {
            return (address, setup);
        }
    }
}

impl Fixture for Example {
    type Link = ExampleLink;

    fn open(&mut self, count: usize) -> Vec<ExampleLink> {
        let (addresses, setups): (Vec<_>, Vec<_>) = (0..count).map(|_| setup()).unzip();
        self.addresses = addresses;
        self.setups = setups.iter().map(LinkSetup::peers).collect();
        let peers = |own| {
            let all = self.addresses.iter().enumerate();
            all.map(|(at, peer)| (at != own).then_some(*peer)).collect::<Vec<_>>()
        };
        setups.into_iter().enumerate().map(|(own, setup)| setup.open(&peers(own)).unwrap()).collect()
    }

    fn prepare(&mut self, of: usize, peer: PeerIndex, to: usize) -> ExamplePeer {
        self.setups[of].prepare(peer, self.addresses[to]).unwrap()
    }

    fn settle(&mut self) {
        std::thread::sleep(Duration::from_micros(200));
    }

    fn send_as_stranger(&mut self, to: usize, bytes: &[u8]) {
        let mut address = self.addresses[to];
        address.set_port(address.port() + (bytes.len() % 2) as u16);
        let _ = self.stranger.send_to(bytes, address);
    }
}

mod loopback {
    use super::*;
    conformance_tests!(Example::new());
}

#[test]
fn it_is_short_enough_to_be_read() {
    let lines = include_str!("../src/lib.rs").lines().count();
    assert!(lines <= 300, "{lines} lines");
    assert!(!std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin").exists());
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap().count();
    assert_eq!(files, 1, "all of it is in that file");
}

#[test]
fn what_cannot_be_is_told() {
    let error = |text: &str| ExampleSetup::bind(text.parse().unwrap()).map(|_| ()).unwrap_err().to_string();
    for text in ["127.0.0.1:0", "127.0.0.1:65535", "192.0.2.77:7400"] {
        assert!(error(text).starts_with(text), "{}", error(text));
    }
    let (address, _taken) = setup();
    assert!(error(&address.to_string()).contains("in use"));
    let (_, link) = setup();
    for peer in ["[::1]:7", "127.0.0.1:0", "127.0.0.1:65535"] {
        let told = link.peers().prepare(PeerIndex(3), peer.parse().unwrap()).unwrap_err().to_string();
        assert!(told.contains("peer 3") && told.contains(peer), "{told}");
    }
    let twice = Some(address);
    assert!(link.open(&[twice, twice]).unwrap_err().to_string().contains("peer 0 has that address"));
}
