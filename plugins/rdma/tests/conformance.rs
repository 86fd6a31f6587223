//! The RDMA link passes the suite, over IPv4 and IPv6, with frames of several sizes, on a
//! verbs device of this host that speaks with itself. `cargo xtask rt-guest` has one (rxe).

mod common;

use insane_conformance::{Fixture, PATIENCE, conformance_tests_where_possible, watch_allocations};
use insane_core::PeerIndex;
use insane_link::{FrameSink, Link, LinkSetup, PeerSetup};
use insane_rdma::{FRAME_BYTES_LIMIT, FRAME_BYTES_LOW, RdmaConfig, RdmaLink, RdmaPeer, RdmaPeers, RdmaSetup};
use insane_sys::clock::mono_now;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

watch_allocations!();

struct Rdma {
    ip: IpAddr,
    frame_bytes_max: Option<u32>,
    addresses: Vec<SocketAddr>,
    setups: Vec<RdmaPeers>,
}

impl Rdma {
    fn new(ip: Option<IpAddr>, frame_bytes_max: Option<u32>) -> Option<Self> {
        Some(Rdma { ip: ip?, frame_bytes_max, addresses: Vec::new(), setups: Vec::new() })
    }
}

/// What comes before the test begins is nothing.
struct Nothing;

impl FrameSink for Nothing {
    fn frame(&mut self, _from: Option<PeerIndex>, frame: &[u8]) {
        panic!("a frame of {} bytes before any was sent", frame.len());
    }
}

impl Fixture for Rdma {
    type Link = RdmaLink;

    fn open(&mut self, count: usize) -> Vec<RdmaLink> {
        let mut config = RdmaConfig::new((self.ip, 0).into());
        config.frame_bytes_max = self.frame_bytes_max.unwrap_or(config.frame_bytes_max);
        let setups: Vec<_> = (0..count).map(|_| RdmaSetup::bind(config.clone()).unwrap()).collect();
        self.addresses = setups.iter().map(RdmaSetup::local_addr).collect();
        self.setups = setups.iter().map(LinkSetup::peers).collect();
        let peers = |own| self.addresses.iter().enumerate().map(|(i, peer)| (i != own).then_some(*peer)).collect();
        let open = |(own, setup): (usize, RdmaSetup)| {
            let peers: Vec<_> = peers(own);
            setup.open(&peers).unwrap()
        };
        let mut links: Vec<_> = setups.into_iter().enumerate().map(open).collect();
        // Many connections, on a machine that may be emulated.
        let end = Instant::now() + 10 * PATIENCE;
        let all_peers = |own| (0..count).filter(move |peer| *peer != own).map(|peer| PeerIndex(peer as u16));
        while !links.iter().enumerate().all(|(own, link)| all_peers(own).all(|peer| link.is_connected(peer))) {
            assert!(Instant::now() < end, "the links do not connect: {links:?}");
            self.settle();
            for link in &mut links {
                link.tend(mono_now());
                link.receive(64, true, &mut Nothing);
            }
        }
        links
    }

    fn prepare(&mut self, of: usize, peer: PeerIndex, to: usize) -> RdmaPeer {
        self.setups[of].prepare(peer, self.addresses[to]).unwrap()
    }

    fn settle(&mut self) {
        std::thread::sleep(Duration::from_micros(200));
    }

    fn send_as_stranger(&mut self, to: usize, bytes: &[u8]) {
        assert!(!common::call(self.addresses[to], bytes), "a stranger is let in");
    }

    fn hands_out_strangers(&self) -> bool {
        false
    }
}

mod v4 {
    use super::*;
    conformance_tests_where_possible!(Rdma::new(common::v4(), None));
}

mod v6 {
    use super::*;
    conformance_tests_where_possible!(Rdma::new(common::v6(), None));
}

mod smallest {
    use super::*;
    conformance_tests_where_possible!(Rdma::new(common::v4(), Some(FRAME_BYTES_LOW)));
}

mod largest {
    use super::*;
    conformance_tests_where_possible!(Rdma::new(common::v4(), Some(FRAME_BYTES_LIMIT)));
}
