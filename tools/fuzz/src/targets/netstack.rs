//! Frames to a stack, from Ethernet up.
//!
//! ```text
//!   0    bit 0: IPv6; bit 1: in a VLAN; bits 2, 3: what is done with checksums
//!        bit 4: sums of IPv4, UDP, ICMP and ICMPv6 are put right first
//!   1..  frames: pause, units of 50 ms 1 | length 2 | bytes
//! ```
//! What must hold is worked out here from the bytes of a frame, beside the stack's own reading.

use insane_core::{MonoTime, Nanos, PeerIndex};
use insane_netstack::{Checksums, Host, Known, Mac, Received, Stack, VlanId};
use std::net::{IpAddr, SocketAddr};

const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
const VLAN: u16 = 5;
/// Frames of one input that are fed.
const FRAMES_MAX: usize = 32;
const FRAME_BYTES_MAX: usize = 2048;
/// An advertisement of a neighbour with a tag: what a short question is answered with.
const ANSWER_BYTES: usize = 14 + 4 + 40 + 32;

fn host(flags: u8) -> Host {
    let is_v6 = flags & 1 != 0;
    Host {
        mac: OWN,
        address: if is_v6 { IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]) } else { IpAddr::from([10, 0, 0, 1]) },
        prefix_bits: if is_v6 { 64 } else { 24 },
        gateway: None,
        vlan: if flags & 2 != 0 { VlanId::new(VLAN) } else { None },
        checksums: [Checksums::Verify, Checksums::Verify, Checksums::VerifyOrUnfinished, Checksums::Trust]
            [usize::from(flags >> 2 & 3)],
    }
}

fn peer(host: &Host) -> IpAddr {
    match host.address {
        IpAddr::V4(_) => [10, 0, 0, 2].into(),
        IpAddr::V6(_) => [0xfd00, 0, 0, 0, 0, 0, 0, 2].into(),
    }
}

pub(crate) fn feed(input: &[u8]) {
    let Some((&flags, mut rest)) = input.split_first() else { return };
    let host = host(flags);
    let mut stack = Stack::<4>::new(host).expect("a host that can be");
    let mut now = MonoTime(1);
    let way = stack.acquire(peer(&host), now).expect("a neighbour");
    let mut spoke = Vec::new();
    let (mut known, mut kept) = (Known::new(), None);
    for _ in 0..FRAMES_MAX {
        let Some((&[pause, low, high], behind)) = rest.split_first_chunk::<3>() else { break };
        let len = usize::from(u16::from_le_bytes([low, high])).min(FRAME_BYTES_MAX).min(behind.len());
        let (frame, behind) = behind.split_at(len);
        rest = behind;
        let mut frame = frame.to_vec();
        if flags & 0x10 != 0 {
            mend(&mut frame);
        }
        now += Nanos::from_millis(50 * u64::from(pause));
        if let Some(from) = frame.get(6..12) {
            spoke.push(from.to_vec());
        }
        let mut answer = [0; FRAME_BYTES_MAX];
        let again = known.again(&frame, host.checksums);
        let received = stack.receive(now, &frame, &mut answer);
        if let Some((from, at)) = again {
            let Received::Datagram { from: sender, port, payload } = &received else {
                panic!("known by its headers, and not taken in full: {received:?}");
            };
            assert!(from == PeerIndex(0) && *payload == at && kept == Some((*sender, *port)), "another datagram");
        } else if let Received::Datagram { from, port, payload } = &received {
            known.keep(PeerIndex(0), &frame, payload);
            if known.again(&frame, host.checksums).is_some() {
                kept = Some((*from, *port));
            }
        }
        judge(&host, &frame, &received, &answer);
        if let Some(mac) = stack.mac(way) {
            assert!(mac.is_unicast() && mac != OWN, "a neighbour at {mac}");
            assert!(spoke.iter().any(|from| from[..] == mac.0), "a neighbour where nobody spoke");
        }
        let mut question = [0; 128];
        for _ in 0..4 {
            let Some(len) = stack.poll(now, &mut question) else { break };
            assert!(len <= ANSWER_BYTES && question[6..12] == OWN.0, "a question of {len} bytes");
        }
    }
}

/// The tag's number (0: none or a priority alone), the type, and where the packet begins.
fn opened(frame: &[u8]) -> Option<(u16, u16, usize)> {
    let word = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    match word(12)? {
        0x8100 => Some((word(14)? & 0xfff, word(16)?, 18)),
        other => Some((0, other, 14)),
    }
}

fn judge(host: &Host, frame: &[u8], received: &Received, answer: &[u8]) {
    let Some((vlan, kind, at)) = opened(frame) else {
        return assert!(matches!(received, Received::Dropped(_)), "too short to be a frame");
    };
    if !matches!(received, Received::Dropped(_)) {
        assert_eq!(vlan, host.vlan.map_or(0, VlanId::get), "of another VLAN");
        assert!(frame[6] & 1 == 0 && frame[6..12] != OWN.0, "from a group, or from itself");
    }
    match received {
        Received::Datagram { from, port, payload } => {
            judge_datagram(host, &frame[at..], (kind, at), (*from, *port), payload.clone());
        }
        Received::Answer(len) | Received::Echo(len) => {
            assert!(
                *len <= answer.len() && *len <= frame.len().max(ANSWER_BYTES),
                "an answer larger than what it is for"
            );
            assert_eq!(answer[6..12], OWN.0, "in another's name");
            let is_to_asker = answer[..6] == frame[6..12];
            assert!(is_to_asker || answer[..6] == [0x33, 0x33, 0, 0, 0, 1], "to somebody else");
            assert_eq!(opened(answer).map(|(vlan, ..)| vlan), Some(vlan), "into another VLAN");
        }
        Received::Heard | Received::Dropped(_) => {}
    }
}

fn judge_datagram(
    host: &Host,
    packet: &[u8],
    (kind, at): (u16, usize),
    (from, port): (SocketAddr, u16),
    payload: std::ops::Range<usize>,
) {
    let word = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let (head, source, destination, protocol) = if host.address.is_ipv4() {
        assert_eq!(kind, 0x0800, "no IPv4");
        assert_eq!(word(6) & 0x3fff, 0, "a piece of a packet");
        let head = usize::from(packet[0] & 15) * 4;
        assert!(host.checksums == Checksums::Trust || ones(&[&packet[..head]]) == 0xffff, "a wrong sum of IPv4");
        (head, &packet[12..16], &packet[16..20], packet[9])
    } else {
        assert_eq!(kind, 0x86dd, "no IPv6");
        (40, &packet[8..24], &packet[24..40], packet[6])
    };
    assert_eq!(protocol, 17, "no UDP");
    assert!(is(host.address, destination), "for another host");
    assert!(is(from.ip(), source) && from.port() == word(head), "from somebody else");
    assert!(from.ip() != host.address && !from.ip().is_multicast() && !from.ip().is_unspecified(), "from {from}");
    assert_eq!(port, word(head + 2));
    let length = usize::from(word(head + 4));
    assert_eq!(payload, at + head + 8..at + head + length, "another payload");
    let check = word(head + 6);
    if host.checksums == Checksums::Verify && (check != 0 || host.address.is_ipv6()) {
        let front = [0, 17, packet[head + 4], packet[head + 5]];
        let sum = ones(&[source, destination, &front, &packet[head..head + length]]);
        assert_eq!(sum, 0xffff, "a wrong sum of UDP");
    }
}

fn is(address: IpAddr, bytes: &[u8]) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets() == bytes,
        IpAddr::V6(v6) => v6.octets() == bytes,
    }
}

/// The sum of RFC 1071 over parts of even length, but for the last.
fn ones(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u64 = words.map(|word| u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0))).sum();
    let mut folded = sum;
    while folded > 0xffff {
        folded = (folded & 0xffff) + (folded >> 16);
    }
    folded as u16
}

/// Puts the sums right, as far as the frame has them.
fn mend(frame: &mut [u8]) {
    let Some((_, kind, at)) = opened(frame) else { return };
    let packet = &mut frame[at..];
    let (head, end, protocol, ends) = match kind {
        0x0800 if packet.len() >= 20 => {
            let head = usize::from(packet[0] & 15) * 4;
            let end = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            if head < 20 || head > packet.len() {
                return;
            }
            packet[10..12].fill(0);
            let check = !ones(&[&packet[..head]]);
            packet[10..12].copy_from_slice(&check.to_be_bytes());
            (head, end, packet[9], packet[12..20].to_vec())
        }
        0x86dd if packet.len() >= 40 => {
            let end = 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]));
            (40, end, packet[6], packet[8..40].to_vec())
        }
        _ => return,
    };
    let Some(body) = packet.get_mut(head..end) else { return };
    let (at, len, front) = match protocol {
        1 if body.len() >= 8 => (2, body.len(), Vec::new()),
        58 if body.len() >= 8 => (2, body.len(), [&ends[..], &[0, 58]].concat()),
        17 if body.len() >= 8 => {
            let len = usize::from(u16::from_be_bytes([body[4], body[5]]));
            (6, len, [&ends[..], &[0, 17]].concat())
        }
        _ => return,
    };
    let Some(body) = body.get_mut(..len).filter(|body| body.len() >= at + 2) else { return };
    body[at..at + 2].fill(0);
    let length = (len as u16).to_be_bytes();
    let lengths: &[u8] = if front.is_empty() { &[] } else { &length };
    let check = match !ones(&[&front, lengths, body]) {
        0 if protocol == 17 => 0xffff,
        check => check,
    };
    body[at..at + 2].copy_from_slice(&check.to_be_bytes());
}
