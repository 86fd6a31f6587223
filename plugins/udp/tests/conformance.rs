//! The UDP link passes the suite: IPv4, IPv6, and jumbo frames over loopback.

use insane_conformance::{Fixture, conformance_tests, watch_allocations};
use insane_core::PeerIndex;
use insane_link::{LinkSetup, PeerSetup};
use insane_udp::{UdpConfig, UdpGroup, UdpLink, UdpPeer, UdpPeers, UdpSetup};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

watch_allocations!();

struct Udp {
    ip: IpAddr,
    frame_bytes_max: Option<u32>,
    addresses: Vec<SocketAddr>,
    setups: Vec<UdpPeers>,
    stranger: UdpSocket,
}

impl Udp {
    fn new(ip: impl Into<IpAddr>, frame_bytes_max: Option<u32>) -> Self {
        let ip = ip.into();
        Udp {
            ip,
            frame_bytes_max,
            addresses: Vec::new(),
            setups: Vec::new(),
            stranger: UdpSocket::bind((ip, 0)).unwrap(),
        }
    }
}

impl Udp {
    fn open_with(&mut self, count: usize, group: Option<UdpGroup>) -> Vec<UdpLink> {
        let mut config = UdpConfig::new((self.ip, 0).into());
        config.group = group;
        config.frame_bytes_max = self.frame_bytes_max.unwrap_or(config.frame_bytes_max);
        let setups: Vec<_> = (0..count).map(|_| UdpSetup::bind(config.clone()).unwrap()).collect();
        self.addresses = setups.iter().map(UdpSetup::local_addr).collect();
        self.setups = setups.iter().map(LinkSetup::peers).collect();
        let peers = |own| self.addresses.iter().enumerate().map(|(i, peer)| (i != own).then_some(*peer)).collect();
        setups
            .into_iter()
            .enumerate()
            .map(|(own, setup)| {
                let peers: Vec<_> = peers(own);
                setup.open(&peers).unwrap()
            })
            .collect()
    }
}

impl Fixture for Udp {
    type Link = UdpLink;

    fn open(&mut self, count: usize) -> Vec<UdpLink> {
        self.open_with(count, None)
    }

    fn open_group(&mut self, count: usize) -> Option<Vec<UdpLink>> {
        // A group of this test alone: by process and number, at a port that is free.
        static NUMBER: AtomicU16 = AtomicU16::new(1);
        let (process, number) = (std::process::id() as u16, NUMBER.fetch_add(1, Ordering::Relaxed));
        let port = UdpSetup::bind(UdpConfig::new((self.ip, 0).into())).unwrap().local_addr().port();
        let [high, low] = process.to_be_bytes();
        // The loopback interface has no way to groups of IPv6; `insaned` tests them with a bridge.
        let IpAddr::V4(_) = self.ip else { return None };
        let group = Ipv4Addr::new(239, 192 + (number % 32) as u8, high, low);
        Some(self.open_with(count, Some(UdpGroup { address: (group, port).into(), ttl: 1 })))
    }

    fn prepare(&mut self, of: usize, peer: PeerIndex, to: usize) -> UdpPeer {
        self.setups[of].prepare(peer, self.addresses[to]).unwrap()
    }

    fn settle(&mut self) {
        std::thread::sleep(Duration::from_micros(200));
    }

    fn send_as_stranger(&mut self, to: usize, bytes: &[u8]) {
        // To both sockets, but twice the same frame would be one too many for the suite.
        let mut address = self.addresses[to];
        address.set_port(address.port() + (bytes.len() % 2) as u16);
        // Over 65,507 bytes there is no datagram, and nothing to be sent.
        let _ = self.stranger.send_to(bytes, address);
    }
}

mod v4 {
    use super::*;
    conformance_tests!(Udp::new(Ipv4Addr::LOCALHOST, None));
}

mod v6 {
    use super::*;
    conformance_tests!(Udp::new(Ipv6Addr::LOCALHOST, None));
}

mod jumbo {
    use super::*;
    conformance_tests!(Udp::new(Ipv4Addr::LOCALHOST, Some(65_000)));
}
