//! What becomes of a frame that came.

use crate::arp::{ARP_BYTES, Arp};
use crate::checksum::Sum;
use crate::ethernet::{self, Ethernet, Mac, TYPE_ARP, TYPE_IPV4, TYPE_IPV6, VlanId};
use crate::icmp::{self, ECHO_BYTES, NEIGHBOUR_BYTES, NEIGHBOUR_HOPS, Neighbour};
use crate::ip::{
    self, IPV4_BYTES, IPV6_BYTES, NoPacket, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_UDP, Packet, UDP_AT_CHECK,
    UDP_BYTES, V6,
};
use crate::neighbour::{NeighbourId, Neighbours, Question, Told, Word};
use crate::outgoing::{PLAIN_AT_IP, PLAIN_AT_UDP, PLAIN_BYTES};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::ops::Range;
use insane_core::MonoTime;
use insane_mutation::mutate;

/// How far the checksums of received frames are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checksums {
    /// All of them.
    Verify,
    /// All, but UDP's may be unfinished: a sum of the addresses only, as the kernel leaves it
    /// where the device is to finish it. On a virtual interface such a frame never saw a wire.
    VerifyOrUnfinished,
    /// None of IPv4 and UDP: the device looked at them.
    Trust,
}

/// Who the stack is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Host {
    /// Hardware address.
    pub mac: Mac,
    /// The one IP address.
    pub address: IpAddr,
    /// How many leading bits of it its neighbours share: 0 to 32, or 128.
    pub prefix_bits: u8,
    /// Who takes frames for all others. `None`: nobody, they cannot be reached.
    pub gateway: Option<IpAddr>,
    /// The VLAN; `None`: untagged.
    pub vlan: Option<VlanId>,
    /// How far received frames are looked at.
    pub checksums: Checksums,
}

/// What cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostError {
    /// The hardware address is not one station's.
    Mac,
    /// The IP address is not one host's.
    Address,
    /// The prefix is longer than the address.
    Prefix,
    /// The gateway is no neighbour.
    Gateway,
}

impl core::fmt::Display for HostError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            HostError::Mac => "the hardware address must be that of one station",
            HostError::Address => "the IP address must be that of one host",
            HostError::Prefix => "the prefix is longer than the address",
            HostError::Gateway => "the gateway is not a neighbour of the address",
        })
    }
}

impl core::error::Error for HostError {}

/// Why a frame went no further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dropped {
    /// A length in it does not add up.
    Malformed,
    /// A checksum is wrong.
    WrongChecksum,
    /// A piece of a packet: nobody puts it together.
    Fragment,
    /// Another VLAN, or another station's.
    NotForUs,
    /// A protocol that nobody speaks here.
    Unknown,
    /// A source that no frame can have: a group, nobody, or this host itself.
    Spoofed,
    /// The answer does not fit the memory given.
    NoRoom,
}

/// What became of a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Received {
    /// A datagram.
    Datagram {
        /// Who sent it.
        from: SocketAddr,
        /// To which port.
        port: u16,
        /// Where in the frame its payload is.
        payload: Range<usize>,
    },
    /// The first bytes of `answer`, so many, are a frame to be sent: without it the asker, who may
    /// be a peer, has no way to this host.
    Answer(usize),
    /// As [`Answer`](Received::Answer), and nobody depends on it.
    Echo(usize),
    /// A neighbour told where it is.
    Heard,
    /// Nothing.
    Dropped(Dropped),
}

/// See the crate's documentation.
#[derive(Clone, Debug)]
pub struct Stack<const PLACES: usize> {
    host: Host,
    /// Address and neighbours are the kernel's, which answers whoever asks.
    is_borrowing: bool,
    neighbours: Neighbours<PLACES>,
}

impl<const PLACES: usize> Stack<PLACES> {
    /// A stack that knows nobody yet.
    ///
    /// # Errors
    /// [`HostError`]: what `host` says cannot be.
    pub fn new(host: Host) -> Result<Self, HostError> {
        let bits_max = if host.address.is_ipv4() { 32 } else { 128 };
        if !host.mac.is_unicast() {
            Err(HostError::Mac)
        } else if !is_one_host(host.address) {
            Err(HostError::Address)
        } else if host.prefix_bits > bits_max {
            Err(HostError::Prefix)
        } else if host.gateway.is_some_and(|gateway| !is_one_host(gateway) || !host.is_neighbour(gateway)) {
            Err(HostError::Gateway)
        } else {
            Ok(Stack { host, is_borrowing: false, neighbours: Neighbours::new() })
        }
    }

    /// The same with the kernel's address and neighbours: it takes datagrams and nothing else, and
    /// knows of neighbours what it is told ([`tell`](Self::tell)).
    #[must_use]
    pub fn borrowing(mut self) -> Self {
        self.is_borrowing = true;
        self
    }

    /// The kernel says where a neighbour is. Returns whether that is one of the stack's.
    pub fn tell(&mut self, address: IpAddr, told: Told, now: MonoTime) -> bool {
        self.neighbours.tell(address, told, now)
    }

    /// The next neighbour that the kernel is to be asked for; called again until there is none.
    pub fn next_question(&mut self, now: MonoTime) -> Option<Question> {
        self.neighbours.poll(now)
    }

    /// Who it is.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The device is another, or was away: it has this hardware address, and whoever was known
    /// is asked again before frames go there. Ways and their users stay.
    pub fn restart(&mut self, mac: Mac, checksums: Checksums, now: MonoTime) {
        self.host.mac = mac;
        self.host.checksums = checksums;
        self.neighbours.ask_all(now);
    }

    /// One user more of the way to `destination`: the neighbour that frames for it go to,
    /// asked for from now on. `None`: there is no way there, or no place for it.
    pub fn acquire(&mut self, destination: IpAddr, now: MonoTime) -> Option<NeighbourId> {
        self.neighbours.acquire(self.host.next_hop(destination)?, now)
    }

    /// One user less.
    pub fn release(&mut self, id: NeighbourId) {
        self.neighbours.release(id);
    }

    /// Where frames go that take this way; `None`: not known yet.
    #[must_use]
    #[inline]
    pub fn mac(&self, id: NeighbourId) -> Option<Mac> {
        self.neighbours.mac(id)
    }

    /// Whether a neighbour that is in use has not been found.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        self.neighbours.is_asking()
    }

    /// Writes the next question that is due into `frame`, and returns its length; called
    /// again until there is none. `frame` has 86 bytes at least (a solicitation with a tag
    /// is 90).
    pub fn poll(&mut self, now: MonoTime, frame: &mut [u8]) -> Option<usize> {
        let question = self.neighbours.poll(now)?;
        self.host.write_question(question, frame)
    }

    /// Takes a frame that came. What it is to be answered with goes into `answer`, which
    /// should have room for the largest frame.
    #[inline]
    pub fn receive(&mut self, now: MonoTime, frame: &[u8], answer: &mut [u8]) -> Received {
        match self.host.plain_datagram(frame) {
            Some(datagram) => datagram,
            None => self.take(now, frame, answer).unwrap_or_else(Received::Dropped),
        }
    }

    #[inline(never)]
    fn take(&mut self, now: MonoTime, frame: &[u8], answer: &mut [u8]) -> Result<Received, Dropped> {
        let ethernet = Ethernet::parse(frame).ok_or(Dropped::Malformed)?;
        let is_other_vlan = mutate!(AnyVlan, ethernet.vlan != self.host.vlan.map_or(0, VlanId::get), false);
        if is_other_vlan || !self.host.hears(ethernet.destination) {
            return Err(Dropped::NotForUs);
        }
        if !ethernet.source.is_unicast() || ethernet.source == self.host.mac {
            return Err(Dropped::Spoofed);
        }
        let body = &frame[ethernet.at..];
        let trusted = self.host.checksums == Checksums::Trust;
        let packet = match (ethernet.ether_type, self.host.address) {
            (TYPE_ARP, _) if self.is_borrowing => return Err(Dropped::Unknown),
            (TYPE_ARP, IpAddr::V4(own)) => return self.take_arp(now, own, &ethernet, body, answer),
            (TYPE_IPV4, IpAddr::V4(_)) => ip::parse_v4(body, trusted),
            (TYPE_IPV6, IpAddr::V6(_)) => ip::parse_v6(body),
            _ => return Err(Dropped::Unknown),
        };
        let packet = packet.map_err(|why| match why {
            NoPacket::Malformed => Dropped::Malformed,
            NoPacket::WrongChecksum => Dropped::WrongChecksum,
            NoPacket::Fragment => Dropped::Fragment,
        })?;
        let bytes = &body[packet.at..packet.end];
        if self.is_borrowing && packet.protocol != PROTOCOL_UDP {
            return Err(Dropped::Unknown);
        }
        if packet.protocol == PROTOCOL_ICMPV6 {
            return self.take_icmpv6(now, &ethernet, &packet, bytes, answer);
        }
        self.host.check_ends(&packet)?;
        match packet.protocol {
            PROTOCOL_UDP => self.host.datagram(&packet, bytes, ethernet.at + packet.at),
            PROTOCOL_ICMP if self.host.address.is_ipv4() => self.host.echo(&ethernet, &packet, bytes, answer),
            _ => Err(Dropped::Unknown),
        }
    }

    fn take_arp(
        &mut self,
        now: MonoTime,
        own: Ipv4Addr,
        ethernet: &Ethernet,
        body: &[u8],
        answer: &mut [u8],
    ) -> Result<Received, Dropped> {
        let arp = Arp::parse(body).ok_or(Dropped::Malformed)?;
        let (mac, address) = arp.sender;
        // Who speaks for another station, for a group, or for this host is not heard. Nobody
        // may ask: that is how a host looks whether an address is free (RFC 5227).
        if mac != ethernet.source || address == own || !(address.is_unspecified() || is_one_host(address.into())) {
            return Err(Dropped::Spoofed);
        }
        let is_for_us = arp.target.1 == own;
        let word = if is_for_us && !arp.is_request { Word::Answer } else { Word::Claim };
        let is_known = self.neighbours.hear(address.into(), mac, word, now);
        if arp.is_request && is_for_us {
            let reply = Arp { is_request: false, sender: (self.host.mac, own), target: arp.sender };
            let from = mutate!(AnswerFromAsker, self.host, Host { mac: arp.target.0, ..self.host });
            return from.write_arp(&reply, mac, answer).map(Received::Answer).ok_or(Dropped::NoRoom);
        }
        if is_known { Ok(Received::Heard) } else { Err(Dropped::NotForUs) }
    }

    fn take_icmpv6(
        &mut self,
        now: MonoTime,
        ethernet: &Ethernet,
        packet: &Packet,
        bytes: &[u8],
        answer: &mut [u8],
    ) -> Result<Received, Dropped> {
        let (IpAddr::V6(own), IpAddr::V6(source)) = (self.host.address, packet.source) else {
            return Err(Dropped::Unknown);
        };
        let front = ip::pseudo(packet.source, packet.destination, PROTOCOL_ICMPV6, bytes.len() as u16);
        let kind = *bytes.first().ok_or(Dropped::Malformed)?;
        if !front.bytes(bytes).is_right() {
            return Err(Dropped::WrongChecksum);
        }
        if kind == icmp::ECHO_V6 {
            self.host.check_ends(packet)?;
            return self.host.echo(ethernet, packet, bytes, answer);
        }
        if kind != icmp::SOLICITATION && kind != icmp::ADVERTISEMENT {
            return Err(Dropped::Unknown);
        }
        if packet.hops != NEIGHBOUR_HOPS {
            return Err(Dropped::Spoofed);
        }
        let message = Neighbour::parse(bytes).ok_or(Dropped::Malformed)?;
        let is_to_us = packet.destination == self.host.address;
        let is_to_group = packet.destination == IpAddr::V6(icmp::solicited_node(own));
        if message.is_solicitation {
            if message.target != own || !(is_to_us || is_to_group) {
                return Err(Dropped::NotForUs);
            }
            return self.answer_solicitation(now, ethernet, source, &message, answer);
        }
        // An advertisement to all is one that nobody asked for.
        let word = if message.is_solicited && is_to_us { Word::Answer } else { Word::Claim };
        let mac = message.mac.unwrap_or(ethernet.source);
        if mac != ethernet.source || message.target == own || !is_one_host(message.target.into()) {
            return Err(Dropped::Spoofed);
        }
        let is_known = self.neighbours.hear(message.target.into(), mac, word, now);
        if is_known { Ok(Received::Heard) } else { Err(Dropped::NotForUs) }
    }

    fn answer_solicitation(
        &mut self,
        now: MonoTime,
        ethernet: &Ethernet,
        source: Ipv6Addr,
        asked: &Neighbour,
        answer: &mut [u8],
    ) -> Result<Received, Dropped> {
        let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        // Nobody asks whether the address is free: told to all (RFC 4861, section 7.2.4).
        let (to, mac) = if source.is_unspecified() {
            (all_nodes, icmp::mac_of_group(all_nodes))
        } else if !is_one_host(source.into()) || IpAddr::V6(source) == self.host.address {
            return Err(Dropped::Spoofed);
        } else {
            (source, ethernet.source)
        };
        if let Some(told) = asked.mac {
            if told != ethernet.source || source.is_unspecified() {
                return Err(Dropped::Spoofed);
            }
            self.neighbours.hear(source.into(), told, Word::Claim, now);
        }
        let told = Neighbour { is_solicitation: false, is_solicited: to == source, target: asked.target, mac: None };
        self.host.write_neighbour(&told, to, mac, answer).map(Received::Answer).ok_or(Dropped::NoRoom)
    }
}

/// Whether the checksums of a datagram of IPv4 without options are right, as far as they are
/// looked at. Its lengths were.
#[inline(always)]
pub(crate) fn is_intact(head: &[u8; PLAIN_BYTES], payload: &[u8], checksums: Checksums) -> bool {
    if checksums == Checksums::Trust {
        return true;
    }
    if !Sum::new().bytes(&head[PLAIN_AT_IP..PLAIN_AT_UDP]).is_right() {
        return false;
    }
    let check = u16::from_be_bytes([head[PLAIN_AT_UDP + UDP_AT_CHECK], head[PLAIN_AT_UDP + UDP_AT_CHECK + 1]]);
    // At most what IP counts.
    let length = (UDP_BYTES + payload.len()) as u16;
    let front = |to: usize| Sum::new().bytes(&head[PLAIN_AT_IP + 12..to]).word(u16::from(PROTOCOL_UDP)).word(length);
    // Without a checksum: allowed in IPv4. Most are right, and few unfinished.
    check == 0
        || front(PLAIN_BYTES).bytes(payload).is_right()
        || (checksums == Checksums::VerifyOrUnfinished && front(PLAIN_AT_UDP).folded() == check)
}

impl Host {
    /// Whether `address` is reached without a gateway.
    fn is_neighbour(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros() >= u32::from(self.prefix_bits)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                // Addresses of the link are neighbours whatever the prefix is.
                other.is_unicast_link_local()
                    || (own.to_bits() ^ other.to_bits()).leading_zeros() >= u32::from(self.prefix_bits)
            }
            _ => false,
        }
    }

    /// To which neighbour frames for `destination` go.
    #[must_use]
    pub fn next_hop(&self, destination: IpAddr) -> Option<IpAddr> {
        if destination.is_ipv4() != self.address.is_ipv4() || !is_one_host(destination) || destination == self.address {
            return None;
        }
        if self.is_neighbour(destination) { Some(destination) } else { self.gateway }
    }

    fn hears(&self, destination: Mac) -> bool {
        let group = match self.address {
            IpAddr::V4(_) => Mac::BROADCAST,
            IpAddr::V6(own) => icmp::mac_of_group(icmp::solicited_node(own)),
        };
        // Unasked advertisements go to all nodes.
        destination == self.mac
            || destination == group
            || (self.address.is_ipv6() && destination == Mac([0x33, 0x33, 0, 0, 0, 1]))
    }

    fn check_ends(&self, packet: &Packet) -> Result<(), Dropped> {
        if mutate!(AnyAddress, packet.destination != self.address, false) {
            Err(Dropped::NotForUs)
        } else if !is_one_host(packet.source) || packet.source == self.address {
            Err(Dropped::Spoofed)
        } else {
            Ok(())
        }
    }

    /// A datagram of IPv4 without tag and options, which nearly all frames are: what
    /// [`Stack::take`] makes of it, with every place known beforehand. `None`: it is another, or
    /// something is wrong with it, and the long way says what.
    #[inline]
    fn plain_datagram(&self, frame: &[u8]) -> Option<Received> {
        let (head, behind) = frame.split_first_chunk::<PLAIN_BYTES>()?;
        let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let address = |at: usize| Ipv4Addr::new(head[at], head[at + 1], head[at + 2], head[at + 3]);
        let mac = |at: usize| Mac([head[at], head[at + 1], head[at + 2], head[at + 3], head[at + 4], head[at + 5]]);
        let (to, source, mac_from) = (address(PLAIN_AT_IP + 16), address(PLAIN_AT_IP + 12), mac(6));
        let is_plain = self.vlan.is_none()
            && mac(0) == self.mac
            && word(12) == TYPE_IPV4
            && head[PLAIN_AT_IP] == 4 << 4 | (IPV4_BYTES / 4) as u8
            && word(PLAIN_AT_IP + 6) & 0x3fff == 0
            && head[PLAIN_AT_IP + 9] == PROTOCOL_UDP
            && IpAddr::V4(to) == self.address;
        let is_spoofed = !mac_from.is_unicast() || mac_from == self.mac || !is_one_host(source.into()) || source == to;
        let (ip_length, length) = (usize::from(word(PLAIN_AT_IP + 2)), usize::from(word(PLAIN_AT_UDP + 4)));
        let fits = length >= UDP_BYTES && IPV4_BYTES + length <= ip_length && ip_length <= frame.len() - PLAIN_AT_IP;
        if !is_plain || is_spoofed || !fits {
            return None;
        }
        let payload = behind.get(..length - UDP_BYTES)?;
        if !is_intact(head, payload, self.checksums) {
            return None;
        }
        let from = SocketAddr::new(source.into(), word(PLAIN_AT_UDP));
        let payload = PLAIN_BYTES..PLAIN_BYTES + payload.len();
        Some(Received::Datagram { from, port: word(PLAIN_AT_UDP + 2), payload })
    }

    #[inline]
    fn datagram(&self, packet: &Packet, bytes: &[u8], at: usize) -> Result<Received, Dropped> {
        let head = bytes.first_chunk::<UDP_BYTES>().ok_or(Dropped::Malformed)?;
        let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let length = usize::from(word(4));
        if length < UDP_BYTES || length > bytes.len() {
            return Err(Dropped::Malformed);
        }
        let check = word(UDP_AT_CHECK);
        let front = ip::pseudo(packet.source, packet.destination, PROTOCOL_UDP, length as u16);
        let is_right = match (check, self.checksums) {
            // Without a checksum: allowed in IPv4 only (RFC 8200, section 8.1).
            (0, _) => packet.source.is_ipv4(),
            (_, Checksums::Trust) => true,
            (_, Checksums::VerifyOrUnfinished) if front.folded() == check => true,
            _ => mutate!(SumOfUdpUnread, front.bytes(&bytes[..length]).is_right(), true),
        };
        if !is_right {
            return Err(Dropped::WrongChecksum);
        }
        let from = SocketAddr::new(packet.source, word(0));
        Ok(Received::Datagram { from, port: word(2), payload: at + UDP_BYTES..at + length })
    }

    fn echo(&self, ethernet: &Ethernet, packet: &Packet, bytes: &[u8], answer: &mut [u8]) -> Result<Received, Dropped> {
        let is_v4 = self.address.is_ipv4();
        let head = bytes.first_chunk::<ECHO_BYTES>().ok_or(Dropped::Malformed)?;
        // ICMPv6 was looked at before.
        if is_v4 && !Sum::new().bytes(bytes).is_right() {
            return Err(Dropped::WrongChecksum);
        }
        if is_v4 && head[0] != icmp::ECHO_V4 || head[1] != 0 {
            return Err(Dropped::Unknown);
        }
        let front = ip::pseudo(self.address, packet.source, PROTOCOL_ICMPV6, bytes.len() as u16);
        let (protocol, kind, front) = if is_v4 {
            (PROTOCOL_ICMP, icmp::ECHO_REPLY_V4, Sum::new())
        } else {
            (PROTOCOL_ICMPV6, icmp::ECHO_REPLY_V6, front)
        };
        let at = self.write_packet(ethernet.source, packet.source, V6::of(protocol), bytes.len(), answer);
        let at = at.ok_or(Dropped::NoRoom)?;
        let reply = &mut answer[at..at + bytes.len()];
        reply.copy_from_slice(bytes);
        reply[0] = kind;
        icmp::seal(front, reply);
        Ok(Received::Echo(at + bytes.len()))
    }

    /// Writes Ethernet and IP in front of `payload` bytes; where those begin. `None`: no room.
    fn write_packet(&self, mac: Mac, to: IpAddr, fields: V6, payload: usize, frame: &mut [u8]) -> Option<usize> {
        let at = ethernet::head_bytes(self.vlan);
        if frame.len() < at + IPV6_BYTES + payload {
            return None;
        }
        let (ether_type, ip_bytes) = match (self.address, to) {
            (IpAddr::V4(own), IpAddr::V4(to)) => {
                (TYPE_IPV4, ip::write_v4(&mut frame[at..], own, to, fields.protocol, 0, payload))
            }
            (IpAddr::V6(own), IpAddr::V6(to)) => (TYPE_IPV6, ip::write_v6(&mut frame[at..], own, to, fields, payload)),
            _ => return None,
        };
        ethernet::write(frame, mac, self.mac, self.vlan, 0, ether_type);
        Some(at + ip_bytes)
    }

    fn write_arp(&self, arp: &Arp, to: Mac, frame: &mut [u8]) -> Option<usize> {
        let at = ethernet::head_bytes(self.vlan);
        let room = frame.get_mut(at..at + ARP_BYTES)?;
        arp.write(room);
        ethernet::write(frame, to, self.mac, self.vlan, 0, TYPE_ARP);
        Some(at + ARP_BYTES)
    }

    fn write_neighbour(&self, message: &Neighbour, to: Ipv6Addr, mac: Mac, frame: &mut [u8]) -> Option<usize> {
        let fields = V6 { hops: NEIGHBOUR_HOPS, ..V6::of(PROTOCOL_ICMPV6) };
        let at = self.write_packet(mac, to.into(), fields, NEIGHBOUR_BYTES, frame)?;
        let front = ip::pseudo(self.address, to.into(), PROTOCOL_ICMPV6, NEIGHBOUR_BYTES as u16);
        let room = &mut frame[at..at + NEIGHBOUR_BYTES];
        message.write(self.mac, room);
        icmp::seal(front, room);
        Some(at + NEIGHBOUR_BYTES)
    }

    fn write_question(&self, question: Question, frame: &mut [u8]) -> Option<usize> {
        match (self.address, question.address) {
            (IpAddr::V4(own), IpAddr::V4(target)) => {
                let arp = Arp { is_request: true, sender: (self.mac, own), target: (Mac([0; 6]), target) };
                self.write_arp(&arp, question.to.unwrap_or(Mac::BROADCAST), frame)
            }
            (IpAddr::V6(_), IpAddr::V6(target)) => {
                let message = Neighbour { is_solicitation: true, is_solicited: false, target, mac: None };
                let group = icmp::solicited_node(target);
                let (to, mac) = match question.to {
                    Some(mac) => (target, mac),
                    None => (group, icmp::mac_of_group(group)),
                };
                self.write_neighbour(&message, to, mac, frame)
            }
            _ => None,
        }
    }
}

/// Whether an address can be one host's on a network: what a source must be.
fn is_one_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast() || v4.is_loopback() || v4.octets()[0] == 0)
        }
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_multicast() || v6.is_loopback()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{Marks, Template};
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    /// A host of the network 10.0.0.0/24, by the last byte of its addresses.
    pub fn host(last: u8, checksums: Checksums) -> Host {
        Host {
            mac: Mac([2, 0, 0, 0, 0, last]),
            address: [10, 0, 0, last].into(),
            prefix_bits: 24,
            gateway: None,
            vlan: None,
            checksums,
        }
    }

    proptest! {
        /// What is found out by one look is what the long way finds, whatever was changed in the
        /// frame; and a frame that nobody changed is found out by one look.
        #[test]
        fn one_look_sees_what_the_long_way_sees(
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            cut in 0usize..3, is_short: bool,
            checksums in prop_oneof![
                Just(Checksums::Verify), Just(Checksums::VerifyOrUnfinished), Just(Checksums::Trust)
            ],
            is_offloaded: bool,
        ) {
            let (from, to) = (host(1, checksums), host(2, checksums));
            let template = Template::new(&from, 7, SocketAddr::new(to.address, 8), Marks { priority: 0, dscp: 46 });
            let template = template.unwrap();
            let mut frame: Vec<u8> = vec![0; template.head_bytes()];
            frame.extend_from_slice(&payload);
            prop_assert!(template.write(to.mac, is_offloaded, &mut frame));
            let is_whole = changes.is_empty() && !(is_short && cut > 0);
            for (at, byte) in &changes {
                let at = at.index(frame.len());
                frame[at] = *byte;
            }
            if is_short {
                frame.truncate(frame.len() - cut);
            }
            let mut stack = Stack::<4>::new(to).unwrap();
            let quick = to.plain_datagram(&frame);
            let long = stack.take(MonoTime(1), &frame, &mut [0; 512]);
            if let Some(quick) = quick {
                prop_assert_eq!(Ok(quick), long);
            } else if is_whole && (!is_offloaded || checksums != Checksums::Verify) {
                prop_assert!(false, "not seen by one look: {:?}", long);
            }
        }
    }
}
