//! ARP for IPv4 over Ethernet (RFC 826).
//!
//! ```text
//!    0     2     4    5    6     8          14         18         24        28
//!    +-----+-----+----+----+-----+----------+----------+----------+---------+
//!    |  1  | IPv4| 6  | 4  | op  | sender's hardware, IP | target's hardware, IP |
//!    +-----+-----+----+----+-----+----------+----------+----------+---------+
//! ```

use crate::ethernet::{Mac, TYPE_IPV4};
use core::net::Ipv4Addr;

pub(crate) const ARP_BYTES: usize = 28;
const ETHERNET: u16 = 1;
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Arp {
    pub(crate) is_request: bool,
    pub(crate) sender: (Mac, Ipv4Addr),
    pub(crate) target: (Mac, Ipv4Addr),
}

impl Arp {
    /// `None`: not one about IPv4 over Ethernet.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let b = bytes.first_chunk::<ARP_BYTES>()?;
        let word = |at: usize| u16::from_be_bytes([b[at], b[at + 1]]);
        if word(0) != ETHERNET || word(2) != TYPE_IPV4 || (b[4], b[5]) != (6, 4) {
            return None;
        }
        let is_request = match word(6) {
            REQUEST => true,
            REPLY => false,
            _ => return None,
        };
        let mac = |at: usize| Mac([b[at], b[at + 1], b[at + 2], b[at + 3], b[at + 4], b[at + 5]]);
        let ip = |at: usize| Ipv4Addr::new(b[at], b[at + 1], b[at + 2], b[at + 3]);
        Some(Arp { is_request, sender: (mac(8), ip(14)), target: (mac(18), ip(24)) })
    }

    /// Writes it into `room` of [`ARP_BYTES`] at least.
    pub(crate) fn write(&self, room: &mut [u8]) {
        room[..2].copy_from_slice(&ETHERNET.to_be_bytes());
        room[2..4].copy_from_slice(&TYPE_IPV4.to_be_bytes());
        room[4..6].copy_from_slice(&[6, 4]);
        room[6..8].copy_from_slice(&if self.is_request { REQUEST } else { REPLY }.to_be_bytes());
        for (at, (mac, ip)) in [(8, self.sender), (18, self.target)] {
            room[at..at + 6].copy_from_slice(&mac.0);
            room[at + 6..at + 10].copy_from_slice(&ip.octets());
        }
    }
}
