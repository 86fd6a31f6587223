//! Headers of one flow, made once.
//!
//! All that does not change from datagram to datagram is written, and summed, when the flow
//! is set up. For each datagram its lengths and checksums are added.

use crate::checksum::Sum;
use crate::ethernet::{self, Mac, TYPE_IPV4, TYPE_IPV6};
use crate::ip::{
    self, IPV4_AT_CHECK, IPV4_AT_LENGTH, IPV6_AT_LENGTH, IPV6_BYTES, PROTOCOL_UDP, UDP_AT_CHECK, UDP_AT_LENGTH,
    UDP_BYTES, V6,
};
use crate::marks::Marks;
use crate::stack::Host;
use core::net::{IpAddr, SocketAddr};

/// Most bytes in front of a payload: tagged Ethernet, IPv6, UDP.
pub const HEAD_BYTES_MAX: usize = ethernet::ETHERNET_BYTES + ethernet::TAG_BYTES + IPV6_BYTES + UDP_BYTES;

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    head: [u8; HEAD_BYTES_MAX],
    /// Bytes of it.
    len: usize,
    /// Where IP begins, and UDP.
    at_ip: usize,
    at_udp: usize,
    is_v4: bool,
    /// Sums of what does not change: of the IPv4 header, and of what UDP adds up.
    ip: Sum,
    udp: Sum,
}

impl Template {
    /// Headers from `port` of `host` to `to`. `None`: one is IPv4, the other IPv6.
    #[must_use]
    pub fn new(host: &Host, port: u16, to: SocketAddr, marks: Marks) -> Option<Self> {
        let mut head = [0; HEAD_BYTES_MAX];
        let at_ip = ethernet::head_bytes(host.vlan);
        let room = &mut head[at_ip..];
        let (ip_bytes, ether_type, ip_sum) = match (host.address, to.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let len = ip::write_v4(room, source, destination, PROTOCOL_UDP, marks.dscp, 0);
                room[IPV4_AT_LENGTH..IPV4_AT_LENGTH + 2].fill(0);
                room[IPV4_AT_CHECK..IPV4_AT_CHECK + 2].fill(0);
                (len, TYPE_IPV4, Sum::new().bytes(&room[..len]))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                // Flows differ by their ports; 16 bits of label tell them apart as well.
                let flow = u32::from(port ^ to.port().rotate_left(8)) | 1 << 16;
                let fields = V6 { dscp: marks.dscp, flow, ..V6::of(PROTOCOL_UDP) };
                (ip::write_v6(room, source, destination, fields, 0), TYPE_IPV6, Sum::new())
            }
            _ => return None,
        };
        let at_udp = at_ip + ip_bytes;
        head[at_udp..at_udp + 2].copy_from_slice(&port.to_be_bytes());
        head[at_udp + 2..at_udp + 4].copy_from_slice(&to.port().to_be_bytes());
        ethernet::write(&mut head, Mac([0; 6]), host.mac, host.vlan, marks.priority, ether_type);
        let udp = ip::pseudo(host.address, to.ip(), PROTOCOL_UDP, 0);
        let is_v4 = host.address.is_ipv4();
        Some(Template { head, len: at_udp + UDP_BYTES, at_ip, at_udp, is_v4, ip: ip_sum, udp })
    }

    /// Frames come from this hardware address from now on: no sum counts it.
    pub fn set_source(&mut self, mac: Mac) {
        self.head[6..12].copy_from_slice(&mac.0);
    }

    /// Bytes in front of the payload.
    #[must_use]
    #[inline]
    pub const fn head_bytes(&self) -> usize {
        self.len
    }

    /// Writes the headers in front of a payload that stands in `frame` behind
    /// [`head_bytes`](Self::head_bytes), up to the end of `frame`. With `offloaded` the
    /// checksum of UDP is left to the device: the field holds the sum of what stands before
    /// it, as devices want it. Returns false, and has written nothing that makes a frame, if
    /// the payload is too long for IP.
    #[must_use]
    #[inline]
    pub fn write(&self, to: Mac, offloaded: bool, frame: &mut [u8]) -> bool {
        let Some(payload) = frame.len().checked_sub(self.len) else { return false };
        let ip_bytes = frame.len() - self.at_ip;
        let counted = if self.is_v4 { ip_bytes } else { ip_bytes - IPV6_BYTES };
        let Ok(ip_length) = u16::try_from(counted) else { return false };
        // At most what IP counts.
        let udp_length = (UDP_BYTES + payload) as u16;
        frame[..self.len].copy_from_slice(&self.head[..self.len]);
        frame[..6].copy_from_slice(&to.0);
        let at = self.at_ip + if self.is_v4 { IPV4_AT_LENGTH } else { IPV6_AT_LENGTH };
        frame[at..at + 2].copy_from_slice(&ip_length.to_be_bytes());
        if self.is_v4 {
            let at = self.at_ip + IPV4_AT_CHECK;
            frame[at..at + 2].copy_from_slice(&self.ip.word(ip_length).check().to_be_bytes());
        }
        let udp = &mut frame[self.at_udp..];
        udp[UDP_AT_LENGTH..UDP_AT_LENGTH + 2].copy_from_slice(&udp_length.to_be_bytes());
        let front = self.udp.word(udp_length);
        let check = match front.bytes(udp).check() {
            _ if offloaded => front.folded(),
            // Zero says that there is no checksum; this is the other form of zero.
            0 => 0xffff,
            check => check,
        };
        udp[UDP_AT_CHECK..UDP_AT_CHECK + 2].copy_from_slice(&check.to_be_bytes());
        true
    }
}
