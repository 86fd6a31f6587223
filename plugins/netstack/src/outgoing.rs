//! Headers of one flow, made once.
//!
//! All that does not change from datagram to datagram is written, and summed, when the flow
//! is set up. For each datagram its lengths and checksums are added.

use crate::checksum::Sum;
use crate::ethernet::{self, Mac, TYPE_IPV4, TYPE_IPV6};
use crate::ip::{
    self, IPV4_AT_CHECK, IPV4_AT_LENGTH, IPV4_BYTES, IPV6_AT_LENGTH, IPV6_BYTES, PROTOCOL_UDP, UDP_AT_CHECK,
    UDP_AT_LENGTH, UDP_BYTES, V6,
};
use crate::marks::Marks;
use crate::stack::Host;
use core::net::{IpAddr, SocketAddr};

/// Most bytes in front of a payload: tagged Ethernet, IPv6, UDP.
pub const HEAD_BYTES_MAX: usize = ethernet::ETHERNET_BYTES + ethernet::TAG_BYTES + IPV6_BYTES + UDP_BYTES;

/// Bytes in front of a payload over IPv4 without a tag, which most have.
pub(crate) const PLAIN_BYTES: usize = ethernet::ETHERNET_BYTES + IPV4_BYTES + UDP_BYTES;
/// Where IP and UDP begin there.
pub(crate) const PLAIN_AT_IP: usize = ethernet::ETHERNET_BYTES;
pub(crate) const PLAIN_AT_UDP: usize = PLAIN_AT_IP + IPV4_BYTES;

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
    /// Sums of what does not change: of the IPv4 header, of what UDP puts in front of its own,
    /// and of its ports.
    ip: Sum,
    front: Sum,
    ports: Sum,
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
        let front = ip::pseudo(host.address, to.ip(), PROTOCOL_UDP, 0);
        let ports = Sum::new().word(port).word(to.port());
        let is_v4 = host.address.is_ipv4();
        Some(Template { head, len: at_udp + UDP_BYTES, at_ip, at_udp, is_v4, ip: ip_sum, front, ports })
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
        // The same twice, once with all places known beforehand.
        match (frame.split_first_chunk_mut::<PLAIN_BYTES>(), self.head.first_chunk()) {
            (Some((room, payload)), Some(head)) if self.len == PLAIN_BYTES => {
                let Some(fields) = self.fields(offloaded, payload, true) else { return false };
                *room = *head;
                self.fill(room, (PLAIN_AT_IP, PLAIN_AT_UDP, true), to, fields);
                true
            }
            _ => self.write_any(to, offloaded, frame),
        }
    }

    #[inline(never)]
    fn write_any(&self, to: Mac, offloaded: bool, frame: &mut [u8]) -> bool {
        let Some((room, payload)) = frame.split_at_mut_checked(self.len) else { return false };
        let Some(fields) = self.fields(offloaded, payload, self.is_v4) else { return false };
        room.copy_from_slice(&self.head[..self.len]);
        self.fill(room, (self.at_ip, self.at_udp, self.is_v4), to, fields);
        true
    }

    /// The length in the header of IP, that in UDP's, and UDP's checksum; `None`: the payload
    /// is too long for IP.
    #[inline(always)]
    fn fields(&self, offloaded: bool, payload: &[u8], is_v4: bool) -> Option<(u16, u16, u16)> {
        let udp_length = UDP_BYTES + payload.len();
        // IPv6 does not count its header.
        let ip_length = u16::try_from(udp_length + if is_v4 { IPV4_BYTES } else { 0 }).ok()?;
        let udp_length = udp_length as u16;
        let front = self.front.word(udp_length);
        if offloaded {
            return Some((ip_length, udp_length, front.folded()));
        }
        let check = match front.and(self.ports).word(udp_length).bytes(payload).check() {
            // Zero says that there is no checksum; this is the other form of zero.
            0 => 0xffff,
            check => check,
        };
        Some((ip_length, udp_length, check))
    }

    /// Writes what changes from datagram to datagram, where the caller says.
    #[inline(always)]
    fn fill(
        &self,
        room: &mut [u8],
        (at_ip, at_udp, is_v4): (usize, usize, bool),
        to: Mac,
        (ip_length, udp_length, check): (u16, u16, u16),
    ) {
        room[..6].copy_from_slice(&to.0);
        let at = at_ip + if is_v4 { IPV4_AT_LENGTH } else { IPV6_AT_LENGTH };
        room[at..at + 2].copy_from_slice(&ip_length.to_be_bytes());
        if is_v4 {
            let at = at_ip + IPV4_AT_CHECK;
            room[at..at + 2].copy_from_slice(&self.ip.word(ip_length).check().to_be_bytes());
        }
        let at = at_udp + UDP_AT_LENGTH;
        room[at..at + 2].copy_from_slice(&udp_length.to_be_bytes());
        let at = at_udp + UDP_AT_CHECK;
        room[at..at + 2].copy_from_slice(&check.to_be_bytes());
    }
}
