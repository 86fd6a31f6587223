//! Frames of Ethernet that no peer would send, for links that have a stack of their own: whatever
//! they are, nothing panics, no buffer is lost, and nothing is handed out in a peer's name that it
//! did not send.
//!
//! The frames follow from a seed: a failure comes again.

use crate::Keep;
use insane_core::PeerIndex;
use insane_netstack::{Checksums, Host, Mac, Marks, Template, VlanId};
use std::net::SocketAddr;

/// The largest frame of the link.
pub const FRAME_BYTES_MAX: u32 = 1000;
/// The link, its peer 0, and its peer 1, which is not there.
pub const LINK: &str = "10.9.0.2:7400";
/// See [`LINK`].
pub const PEER: &str = "10.9.0.1:7400";
/// See [`LINK`].
pub const NOBODY: &str = "10.9.0.99:7400";
/// What the peer really sends.
pub const GENUINE: &[u8] = b"a frame of the peer, long enough to be cut";
/// What others send, and what is meant for another network.
const FOREIGN: &[u8] = b"a frame of somebody else, long enough to be cut";
/// A bundle that it sends.
const BUNDLE: &[u8] = b"Bnd\x01\x10\0\x02\0\x02\0ab\x02\0cd";
/// More than the link has buffers, several times.
pub const FRAMES: u32 = 20_000;

/// Makes them.
#[derive(Debug)]
pub struct Hostile {
    /// Of the link and of its peer.
    macs: [Mac; 2],
    /// State of a generator of Marsaglia's (xorshift64).
    random: u64,
}

impl Hostile {
    /// For a link and a peer with these hardware addresses.
    #[must_use]
    pub fn new(link: [u8; 6], peer: [u8; 6], seed: u64) -> Self {
        Hostile { macs: [Mac(link), Mac(peer)], random: 0x9e37_79b9_7f4a_7c15 ^ seed }
    }

    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// A datagram to the link, from a port of an address.
    ///
    /// # Panics
    /// The address cannot be that of a host.
    #[must_use]
    pub fn datagram(&self, from: SocketAddr, to_port: u16, payload: &[u8], vlan: Option<u16>) -> Vec<u8> {
        let host = Host {
            mac: self.macs[1],
            address: from.ip(),
            prefix_bits: 0,
            gateway: None,
            vlan: vlan.and_then(VlanId::new),
            checksums: Checksums::Verify,
        };
        let mut to: SocketAddr = LINK.parse().unwrap();
        to.set_port(to_port);
        let template = Template::new(&host, from.port(), to, Marks { priority: 5, dscp: 0 }).unwrap();
        let mut frame = vec![0; template.head_bytes()];
        frame.extend_from_slice(payload);
        assert!(template.write(self.macs[0], false, &mut frame));
        frame
    }

    /// One frame that a peer would not send, or that is cut, changed or tagged on its way.
    #[must_use]
    pub fn frame(&mut self) -> Vec<u8> {
        let peer: SocketAddr = PEER.parse().unwrap();
        let from = |ip: [u8; 4], port| SocketAddr::from((ip, port));
        let port = 7400 + (self.below(3) as u16);
        let long = vec![7; FRAME_BYTES_MAX as usize + 1 + self.below(400)];
        let at = self.below(4);
        let (payload, foreign) = ([GENUINE, BUNDLE, &long, b""][at], [FOREIGN, FOREIGN, &long, FOREIGN][at]);
        let mut frame = match self.below(7) {
            0 => self.datagram(peer, port, payload, None),
            // This host itself, a group, everybody, a stranger, another port of the peer.
            1 => {
                let spoofed = [[10, 9, 0, 2], [224, 0, 0, 1], [255, 255, 255, 255], [10, 9, 0, 66], [0, 0, 0, 0]];
                let address = from(spoofed[self.below(5)], 7400);
                self.datagram(address, port, foreign, None)
            }
            2 => self.datagram(from([10, 9, 0, 1], 9), port, foreign, None),
            3 => {
                let vlan = 1 + self.below(4000) as u16;
                self.datagram(peer, port, foreign, Some(vlan))
            }
            // A stack of tags.
            4 => {
                let mut frame = self.datagram(peer, port, foreign, Some(7));
                let tag: Vec<u8> = frame[12..16].to_vec();
                for _ in 0..=self.below(4) {
                    frame.splice(12..12, tag.iter().copied());
                }
                frame
            }
            // Somebody claims an address: the peer's, the link's, nobody's.
            5 => self.claim(),
            _ => (0..14 + self.below(200)).map(|_| self.next() as u8).collect(),
        };
        match self.below(5) {
            // Cut.
            0 => frame.truncate(14.max(self.below(frame.len()))),
            // A piece of a packet, with the right checksum.
            1 if frame[12..14] == [8, 0] && frame.len() >= 34 => {
                let piece = [0x20, 0x00, 0x20, 0x10, 0x00, 0x10];
                let at = 2 * self.below(3);
                frame[20..22].copy_from_slice(&piece[at..at + 2]);
                seal_ip(&mut frame);
            }
            // A length that does not add up, with the right checksum.
            2 if frame[12..14] == [8, 0] && frame.len() >= 42 => {
                let at = [16, 38][self.below(2)];
                frame[at..at + 2].copy_from_slice(&(self.next() as u16).to_be_bytes());
                seal_ip(&mut frame);
            }
            // Changed.
            3 => {
                for _ in 0..=self.below(4) {
                    let at = self.below(frame.len());
                    frame[at] ^= 1 << self.below(8);
                }
            }
            _ => {}
        }
        frame
    }

    /// An answer of ARP that nobody asked for, or a question, in another's name.
    fn claim(&mut self) -> Vec<u8> {
        let thief = Mac([2, 0, 0, 0, 0, 66]);
        let mut frame = Vec::new();
        frame.extend_from_slice(&self.macs[0].0);
        frame.extend_from_slice(&thief.0);
        frame.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1 + self.below(2) as u8]);
        frame.extend_from_slice(&thief.0);
        frame.extend_from_slice(&[10, 9, 0, [1, 2, 99, 55][self.below(4)]]);
        frame.extend_from_slice(&self.macs[0].0);
        frame.extend_from_slice(&[10, 9, 0, 2]);
        frame
    }
}

/// The checksum of the IPv4 header of a frame without tags.
fn seal_ip(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let words = frame[14..34].chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let check = !(folded as u16 + (folded >> 16) as u16);
    frame[24..26].copy_from_slice(&check.to_be_bytes());
}

/// What the link made of all of them.
///
/// # Panics
/// It handed out what it must not, or nearly nothing.
pub fn judge(kept: &Keep) {
    for arrival in &kept.0 {
        let bytes = &arrival.bytes[..];
        assert!(bytes.len() <= FRAME_BYTES_MAX as usize, "longer than a frame");
        let is_genuine = [GENUINE, BUNDLE, b"ab", b"cd", b""].contains(&bytes);
        assert!(arrival.from.is_none() || is_genuine, "in the peer's name: {}", bytes.escape_ascii());
        assert_ne!(arrival.from, Some(PeerIndex(1)), "nobody speaks from there");
    }
    // Most of what is whole goes to a port that nobody has, or bears a tag.
    assert!(kept.0.len() > 300, "some frames are whole: {}", kept.0.len());
}
