//! The simulated link passes the suite, on a plain net and on a slow one.

use insane_conformance::{Fixture, conformance_tests, watch_allocations};
use insane_core::{Lane, Nanos, PeerIndex};
use insane_link::{Link, LinkSetup, PeerSetup};
use insane_sim::{Faults, SimConfig, SimLink, SimNet, SimPeer};
use std::net::SocketAddr;

watch_allocations!();

struct Sim {
    config: SimConfig,
    nets: u64,
    net: SimNet,
}

fn address(number: usize) -> SocketAddr {
    ([10, 0, 0, number as u8], 7000).into()
}

impl Sim {
    fn new(config: SimConfig) -> Self {
        Sim { config, nets: 0, net: SimNet::new(0, config) }
    }
}

impl Fixture for Sim {
    type Link = SimLink;

    fn open(&mut self, count: usize) -> Vec<SimLink> {
        self.nets += 1;
        self.net = SimNet::new(self.nets, self.config);
        let peers = |own| (0..count).map(|peer| (peer != own).then(|| address(peer))).collect::<Vec<_>>();
        (0..count).map(|own| self.net.setup(address(own)).open(&peers(own)).unwrap()).collect()
    }

    fn open_group(&mut self, count: usize) -> Option<Vec<SimLink>> {
        self.nets += 1;
        self.net = SimNet::new(self.nets, self.config);
        let peers = |own| (0..count).map(|peer| (peer != own).then(|| address(peer))).collect::<Vec<_>>();
        Some((0..count).map(|own| self.net.setup(address(own)).in_group().open(&peers(own)).unwrap()).collect())
    }

    fn prepare(&mut self, of: usize, peer: PeerIndex, to: usize) -> SimPeer {
        self.net.setup(address(of)).peers().prepare(peer, address(to)).unwrap()
    }

    fn settle(&mut self) {
        self.net.advance(Nanos::from_millis(1));
    }

    fn send_as_stranger(&mut self, to: usize, bytes: &[u8]) {
        // Bytes over the limit cannot travel on this net at all.
        let _ = self.net.inject("192.0.2.1:9".parse().unwrap(), address(to), Lane::LAST, bytes);
    }
}

mod plain {
    use super::*;
    conformance_tests!(Sim::new(SimConfig::default()));
}

mod slow {
    use super::*;
    conformance_tests!(Sim::new(SimConfig {
        frame_bytes_max: 9000,
        frames_max: 300,
        faults: Faults {
            delay: Nanos::from_micros(200),
            jitter: Nanos::from_micros(400),
            queue_frames_max: Some(100),
            ..Faults::NONE
        },
        ..SimConfig::default()
    }));
}

#[test]
fn a_fixture_is_what_the_suite_believes() {
    let mut fixture = Sim::new(SimConfig::default());
    assert_eq!(fixture.open(3).len(), 3);
    assert_eq!(fixture.open(2)[0].capabilities().technology, "sim");
}
