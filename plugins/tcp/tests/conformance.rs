//! The TCP link passes the suite: IPv4, IPv6, the smallest and the largest frames, over
//! loopback.

use insane_conformance::{Fixture, PATIENCE, conformance_tests, watch_allocations};
use insane_core::PeerIndex;
use insane_link::{Link, LinkSetup, PeerSetup};
use insane_sys::clock::mono_now;
use insane_tcp::{FRAME_BYTES_LIMIT, FRAME_BYTES_LOW, TcpConfig, TcpLink, TcpPeer, TcpPeers, TcpSetup};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

watch_allocations!();

struct Tcp {
    ip: IpAddr,
    frame_bytes_max: Option<u32>,
    addresses: Vec<SocketAddr>,
    setups: Vec<TcpPeers>,
    strangers: Vec<TcpStream>,
}

impl Tcp {
    fn new(ip: impl Into<IpAddr>, frame_bytes_max: Option<u32>) -> Self {
        Tcp { ip: ip.into(), frame_bytes_max, addresses: Vec::new(), setups: Vec::new(), strangers: Vec::new() }
    }
}

impl Fixture for Tcp {
    type Link = TcpLink;

    fn open(&mut self, count: usize) -> Vec<TcpLink> {
        let mut config = TcpConfig::new((self.ip, 0).into());
        config.frame_bytes_max = self.frame_bytes_max.unwrap_or(config.frame_bytes_max);
        let setups: Vec<_> = (0..count).map(|_| TcpSetup::bind(config.clone()).unwrap()).collect();
        self.addresses = setups.iter().map(TcpSetup::local_addr).collect();
        self.setups = setups.iter().map(LinkSetup::peers).collect();
        let peers = |own| self.addresses.iter().enumerate().map(|(i, peer)| (i != own).then_some(*peer)).collect();
        let open = |(own, setup): (usize, TcpSetup)| {
            let peers: Vec<_> = peers(own);
            setup.open(&peers).unwrap()
        };
        let mut links: Vec<_> = setups.into_iter().enumerate().map(open).collect();
        let end = Instant::now() + PATIENCE;
        let all_peers = |own| (0..count).filter(move |peer| *peer != own).map(|peer| PeerIndex(peer as u16));
        while !links.iter().enumerate().all(|(own, link)| all_peers(own).all(|peer| link.is_connected(peer))) {
            assert!(Instant::now() < end, "the links do not connect: {links:?}");
            self.settle();
            for link in &mut links {
                link.tend(mono_now());
            }
        }
        links
    }

    fn prepare(&mut self, of: usize, peer: PeerIndex, to: usize) -> TcpPeer {
        self.setups[of].prepare(peer, self.addresses[to]).unwrap()
    }

    fn settle(&mut self) {
        std::thread::sleep(Duration::from_micros(200));
    }

    fn send_as_stranger(&mut self, to: usize, bytes: &[u8]) {
        let mut address = self.addresses[to];
        address.set_port(address.port() + (bytes.len() % 2) as u16);
        let mut stranger = TcpStream::connect(address).unwrap();
        // A frame by its form, though no hello goes before it. The link may have closed.
        let _ = stranger.write_all(&(bytes.len() as u32).to_le_bytes()).and_then(|()| stranger.write_all(bytes));
        self.strangers.push(stranger);
    }

    fn hands_out_strangers(&self) -> bool {
        false
    }
}

mod v4 {
    use super::*;
    conformance_tests!(Tcp::new(Ipv4Addr::LOCALHOST, None));
}

mod v6 {
    use super::*;
    conformance_tests!(Tcp::new(Ipv6Addr::LOCALHOST, None));
}

mod smallest {
    use super::*;
    conformance_tests!(Tcp::new(Ipv4Addr::LOCALHOST, Some(FRAME_BYTES_LOW)));
}

mod largest {
    use super::*;
    conformance_tests!(Tcp::new(Ipv6Addr::LOCALHOST, Some(FRAME_BYTES_LIMIT)));
}
