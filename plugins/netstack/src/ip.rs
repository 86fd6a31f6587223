//! Headers of IPv4 (RFC 791), IPv6 (RFC 8200) and UDP (RFC 768).
//!
//! Only whole packets: a fragment is told as such, since nothing here puts it together. Of
//! IPv6 only packets whose first header behind it is a known one.

use crate::checksum::Sum;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use insane_mutation::mutate;

/// Bytes of an IPv4 header without options.
pub const IPV4_BYTES: usize = 20;
/// Bytes of an IPv6 header.
pub const IPV6_BYTES: usize = 40;
/// Bytes of a UDP header.
pub const UDP_BYTES: usize = 8;

pub(crate) const PROTOCOL_ICMP: u8 = 1;
pub(crate) const PROTOCOL_UDP: u8 = 17;
pub(crate) const PROTOCOL_ICMPV6: u8 = 58;
const IPV6_FRAGMENT: u8 = 44;

/// Hops that a packet of ours may take (RFC 1700 recommends 64).
const HOPS: u8 = 64;

/// Where, inside the headers, fields stand that are written for each packet.
pub(crate) const IPV4_AT_LENGTH: usize = 2;
pub(crate) const IPV4_AT_CHECK: usize = 10;
pub(crate) const IPV6_AT_LENGTH: usize = 4;
pub(crate) const UDP_AT_LENGTH: usize = 4;
pub(crate) const UDP_AT_CHECK: usize = 6;

/// A packet, taken apart. Offsets count from where the packet begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) hops: u8,
    /// Where the payload begins and ends; behind it is what pads the frame.
    pub(crate) at: usize,
    pub(crate) end: usize,
}

/// Why it is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoPacket {
    Malformed,
    WrongChecksum,
    Fragment,
}

/// Takes an IPv4 packet apart; `trusted`: the device checked its checksum.
pub(crate) fn parse_v4(bytes: &[u8], trusted: bool) -> Result<Packet, NoPacket> {
    let head = bytes.first_chunk::<IPV4_BYTES>().ok_or(NoPacket::Malformed)?;
    let at = usize::from(head[0] & 0xf) * 4;
    let end = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let is_cut = mutate!(LengthBelieved, end > bytes.len(), false);
    if head[0] >> 4 != 4 || at < IPV4_BYTES || end < at || is_cut {
        return Err(NoPacket::Malformed);
    }
    if !trusted && !Sum::new().bytes(&bytes[..at]).is_right() {
        return Err(NoPacket::WrongChecksum);
    }
    // More follow, or it is not the first.
    if u16::from_be_bytes([head[6], head[7]]) & mutate!(PiecesTaken, 0x3fff, 0) != 0 {
        return Err(NoPacket::Fragment);
    }
    let address = |at: usize| IpAddr::V4(Ipv4Addr::new(head[at], head[at + 1], head[at + 2], head[at + 3]));
    Ok(Packet { source: address(12), destination: address(16), protocol: head[9], hops: head[8], at, end })
}

/// Takes an IPv6 packet apart.
pub(crate) fn parse_v6(bytes: &[u8]) -> Result<Packet, NoPacket> {
    let head = bytes.first_chunk::<IPV6_BYTES>().ok_or(NoPacket::Malformed)?;
    let end = IPV6_BYTES + usize::from(u16::from_be_bytes([head[4], head[5]]));
    if head[0] >> 4 != 6 || end > bytes.len() {
        return Err(NoPacket::Malformed);
    }
    if head[6] == IPV6_FRAGMENT {
        return Err(NoPacket::Fragment);
    }
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&head[at..at + 16]);
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let (source, destination) = (address(8), address(24));
    Ok(Packet { source, destination, protocol: head[6], hops: head[7], at: IPV6_BYTES, end })
}

/// The sum over both addresses, the protocol and the length, which UDP and ICMPv6 put in
/// front of their own (RFC 768, RFC 8200 section 8.1).
pub(crate) fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, length: u16) -> Sum {
    addresses(source, destination).word(u16::from(protocol)).word(length)
}

pub(crate) fn addresses(source: IpAddr, destination: IpAddr) -> Sum {
    let add = |sum: Sum, address| match address {
        IpAddr::V4(v4) => sum.bytes(&Ipv4Addr::octets(&v4)),
        IpAddr::V6(v6) => sum.bytes(&Ipv6Addr::octets(&v6)),
    };
    add(add(Sum::new(), source), destination)
}

/// Writes an IPv4 header that is not to be cut (its identification is then without meaning,
/// RFC 6864, and zero); returns its length.
pub(crate) fn write_v4(
    room: &mut [u8],
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    dscp: u8,
    payload: usize,
) -> usize {
    let head = &mut room[..IPV4_BYTES];
    head.fill(0);
    head[0] = 0x45;
    head[1] = dscp << 2;
    head[2..4].copy_from_slice(&((IPV4_BYTES + payload) as u16).to_be_bytes());
    head[6] = 0x40;
    head[8] = HOPS;
    head[9] = protocol;
    head[12..16].copy_from_slice(&source.octets());
    head[16..20].copy_from_slice(&destination.octets());
    let check = Sum::new().bytes(head).check();
    head[IPV4_AT_CHECK..IPV4_AT_CHECK + 2].copy_from_slice(&check.to_be_bytes());
    IPV4_BYTES
}

/// What goes into an IPv6 header besides addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct V6 {
    pub(crate) protocol: u8,
    pub(crate) dscp: u8,
    /// 20 bits by which routers spread flows (RFC 6437).
    pub(crate) flow: u32,
    pub(crate) hops: u8,
}

impl V6 {
    pub(crate) const fn of(protocol: u8) -> Self {
        V6 { protocol, dscp: 0, flow: 0, hops: HOPS }
    }
}

/// Writes an IPv6 header; returns its length.
pub(crate) fn write_v6(room: &mut [u8], source: Ipv6Addr, destination: Ipv6Addr, fields: V6, payload: usize) -> usize {
    let first = 6 << 28 | u32::from(fields.dscp) << 22 | fields.flow & 0xf_ffff;
    room[..4].copy_from_slice(&first.to_be_bytes());
    room[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
    room[6] = fields.protocol;
    room[7] = fields.hops;
    room[8..24].copy_from_slice(&source.octets());
    room[24..40].copy_from_slice(&destination.octets());
    IPV6_BYTES
}
