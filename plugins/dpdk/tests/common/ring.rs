//! A link at one end of a ring, and its peer, who is a stack and no link, at the other. What goes by
//! does not depend on how quick the machine is.

use crate::common::{self, config};
use dpdk_sys::{Eal, Frame, Port, PortOptions};
use insane_conformance::Keep;
use insane_dpdk::{DpdkConfig, DpdkLink, DpdkSetup};
use insane_link::{Link, LinkSetup};
use insane_netstack::{Checksums, Host, Mac, Received, Stack};
use insane_sys::clock::mono_now;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

/// Places of the ring.
pub const RING: u32 = 64;
static PAIRS: AtomicU32 = AtomicU32::new(0);

pub fn mac(last: usize) -> [u8; 6] {
    [2, 0, 0, 0, 1, last as u8]
}

pub fn address(last: usize, v6: bool) -> IpAddr {
    if v6 { format!("fd00::{last:x}") } else { format!("10.9.0.{last}") }.parse().unwrap()
}

/// Who is on the wire besides the link.
pub fn neighbour(last: usize, v6: bool) -> Stack<1> {
    let prefix_bits = if v6 { 64 } else { 24 };
    let mac = Mac(mac(last));
    let (gateway, vlan, checksums) = (None, None, Checksums::Verify);
    Stack::new(Host { mac, address: address(last, v6), prefix_bits, gateway, vlan, checksums }).unwrap()
}

/// Host 2 is the link, which knows its peer, host 1.
pub struct Wire {
    pub is_v6: bool,
    pub link: DpdkLink,
    other: Port,
    peer: Stack<1>,
}

impl Wire {
    /// `None`: frames as large as fit an ordinary packet.
    pub fn make(is_v6: bool, frame_bytes_max: Option<u32>) -> Self {
        let eal = Eal::start(&common::eal()).unwrap();
        let pair = PAIRS.fetch_add(1, Ordering::Relaxed);
        let (near, far) = (format!("net_ring_u{pair}"), format!("net_ring_v{pair}"));
        eal.ring_pair(&near, &far, RING).unwrap();
        let options =
            PortOptions { device: far, packet_bytes: 1500, ring_frames: RING, pool_frames: 1023, is_promiscuous: true };
        let (other, _) = Port::open(eal, &options).unwrap();
        let at = |last| SocketAddr::new(address(last, is_v6), 7400);
        let config = DpdkConfig { mac: Some(mac(2)), frame_bytes_max, ..config(&near, at(2)) };
        let link = DpdkSetup::bind(config).unwrap().open(&[Some(at(1))]).unwrap();
        let mut wire = Wire { is_v6, link, other, peer: neighbour(1, is_v6) };
        wire.link.tend(mono_now());
        wire.drain();
        wire.link.receive(64, true, &mut Keep::default());
        assert!(wire.link.knows_all_ways());
        wire
    }

    /// Sends a frame to the link.
    pub fn put(&mut self, bytes: &[u8]) {
        let mut frame = self.other.reserve().unwrap();
        self.other.room(&frame)[..bytes.len()].copy_from_slice(bytes);
        frame.set_len(bytes.len());
        let mut frames: Vec<Frame> = vec![frame];
        assert_eq!(self.other.send(&mut frames), 1);
    }

    /// What the link sent and the device holds, oldest first; the peer answers what it is asked.
    pub fn drain(&mut self) -> Vec<Vec<u8>> {
        let mut came = Vec::new();
        while let Some(frame) = self.other.receive() {
            let bytes = self.other.bytes(&frame).to_vec();
            self.other.release(frame);
            let mut answer = [0; 256];
            if let Received::Answer(len) = self.peer.receive(mono_now(), &bytes, &mut answer) {
                self.put(&answer[..len]);
            }
            came.push(bytes);
        }
        came
    }
}
