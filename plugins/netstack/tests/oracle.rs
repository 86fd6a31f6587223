//! Frames against an independent implementation (etherparse), and against anything at all.

use etherparse::{
    EtherType, LaxSlicedPacket, LinkExtSlice, NetSlice, PacketBuilder, SlicedPacket, TransportSlice,
    VlanId as OracleVlan, VlanPcp,
};
use insane_core::{Lane, MonoTime, Nanos};
use insane_netstack::{
    Checksums, Dropped, HEAD_BYTES_MAX, Host, HostError, Mac, Marks, Received, Stack, Template, VlanId,
};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);
const NOW: MonoTime = MonoTime(1);

fn host(v6: bool, vlan: Option<u16>) -> Host {
    let (address, prefix_bits, gateway) = if v6 {
        ("fd00::1".parse().unwrap(), 64, "fd00::ff".parse().unwrap())
    } else {
        ("10.0.0.1".parse().unwrap(), 24, "10.0.0.254".parse().unwrap())
    };
    Host {
        mac: OWN,
        address,
        prefix_bits,
        gateway: Some(gateway),
        vlan: vlan.and_then(VlanId::new),
        checksums: Checksums::Verify,
    }
}

fn stack(v6: bool, vlan: Option<u16>) -> Stack<8> {
    Stack::new(host(v6, vlan)).unwrap()
}

fn peer(v6: bool) -> IpAddr {
    if v6 { "fd00::2".parse().unwrap() } else { "10.0.0.2".parse().unwrap() }
}

/// A datagram to the stack, built by the oracle.
fn datagram(v6: bool, vlan: Option<u16>, from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(OTHER.0, OWN.0);
    let mut frame = Vec::new();
    macro_rules! finish {
        ($builder:expr) => {
            match (host(v6, vlan).address, peer(v6)) {
                (IpAddr::V4(own), IpAddr::V4(peer)) => {
                    $builder.ipv4(peer.octets(), own.octets(), 9).udp(from, to).write(&mut frame, payload).unwrap();
                }
                (IpAddr::V6(own), IpAddr::V6(peer)) => {
                    $builder.ipv6(peer.octets(), own.octets(), 9).udp(from, to).write(&mut frame, payload).unwrap();
                }
                _ => unreachable!(),
            }
        };
    }
    if let Some(vlan) = vlan {
        finish!(builder.single_vlan(OracleVlan::try_new(vlan).unwrap()));
    } else {
        finish!(builder);
    }
    frame
}

fn take(stack: &mut Stack<8>, frame: &[u8]) -> Received {
    stack.receive(NOW, frame, &mut [0; 2048])
}

fn vlans() -> impl Strategy<Value = Option<u16>> {
    prop_oneof![Just(None), (1u16..4095).prop_map(Some)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// What the oracle builds is taken, and its payload is found.
    #[test]
    fn datagrams_of_the_oracle_are_taken(
        v6: bool, vlan in vlans(), from in 1u16.., to in 1u16..,
        payload in proptest::collection::vec(any::<u8>(), 0..1500), padding in 0usize..40,
    ) {
        let mut frame = datagram(v6, vlan, from, to, &payload);
        frame.extend(std::iter::repeat_n(0xaa, padding));
        let Received::Datagram { from: source, port, payload: found } = take(&mut stack(v6, vlan), &frame) else {
            panic!("{:?}", take(&mut stack(v6, vlan), &frame))
        };
        prop_assert_eq!(source, SocketAddr::new(peer(v6), from));
        prop_assert_eq!(port, to);
        prop_assert_eq!(&frame[found], &payload[..]);
        let other_vlan = stack(v6, if vlan.is_some() { None } else { Some(7) });
        prop_assert_eq!(take(&mut other_vlan.clone(), &frame), Received::Dropped(Dropped::NotForUs));
    }

    /// One flipped bit, or bits, anywhere behind Ethernet's addresses: the frame is dropped, or its
    /// payload, source and port are what they were. (The fields that no checksum covers: the
    /// tag's priority, of IPv6 the traffic class, the label and the hops.)
    #[test]
    fn damage_is_noticed(
        v6: bool, vlan in vlans(), payload in proptest::collection::vec(any::<u8>(), 0..300),
        at: prop::sample::Index, bit in 0u8..8,
    ) {
        let frame = datagram(v6, vlan, 7000, 7001, &payload);
        let mut damaged = frame.clone();
        let at = 12 + at.index(frame.len() - 12);
        damaged[at] ^= 1 << bit;
        match take(&mut stack(v6, vlan), &damaged) {
            Received::Dropped(_) => {}
            Received::Datagram { from, port, payload: found } => {
                prop_assert_eq!(from, SocketAddr::new(peer(v6), 7000));
                prop_assert_eq!(port, 7001);
                prop_assert_eq!(&damaged[found], &payload[..]);
            }
            other => panic!("{other:?}"),
        }
    }

    /// Cut anywhere: dropped, never taken for whole.
    #[test]
    fn a_cut_frame_is_dropped(v6: bool, vlan in vlans(), payload in proptest::collection::vec(any::<u8>(), 0..300)) {
        let frame = datagram(v6, vlan, 7000, 7001, &payload);
        for len in 0..frame.len() {
            let got = take(&mut stack(v6, vlan), &frame[..len]);
            prop_assert!(matches!(got, Received::Dropped(_)), "{len} of {} bytes: {got:?}", frame.len());
        }
    }

    /// What the template writes the oracle reads, with right checksums, marks and tag.
    #[test]
    fn the_oracle_takes_what_is_written(
        v6: bool, vlan in vlans(), from in 1u16.., to in 1u16.., lane in 0u8..8,
        payload in proptest::collection::vec(any::<u8>(), 0..1500),
    ) {
        let marks = Marks::of(Lane::new(lane).unwrap(), 46);
        let template = Template::new(&host(v6, vlan), from, SocketAddr::new(peer(v6), to), marks).unwrap();
        prop_assert!(template.head_bytes() <= HEAD_BYTES_MAX);
        let mut frame = vec![0x55; template.head_bytes()];
        frame.extend_from_slice(&payload);
        prop_assert!(template.write(OTHER, false, &mut frame));

        let written = frame.clone();
        let parsed = SlicedPacket::from_ethernet(&written).unwrap();
        match (vlan, &parsed.link_exts[..]) {
            (None, []) => {}
            (Some(vlan), [LinkExtSlice::Vlan(tag)]) => {
                prop_assert_eq!(tag.vlan_identifier().value(), vlan);
                prop_assert_eq!(tag.priority_code_point(), VlanPcp::try_new(marks.priority).unwrap());
            }
            other => panic!("{other:?}"),
        }
        let Some(TransportSlice::Udp(udp)) = &parsed.transport else { panic!("{parsed:?}") };
        prop_assert_eq!((udp.source_port(), udp.destination_port()), (from, to));
        prop_assert_eq!(udp.payload(), &payload[..]);
        let header = udp.to_header();
        let right = match parsed.net.as_ref().unwrap() {
            NetSlice::Ipv4(v4) => {
                let v4 = v4.header();
                prop_assert_eq!(v4.header_checksum(), v4.to_header().calc_header_checksum());
                prop_assert_eq!(v4.dcp().value(), marks.dscp);
                prop_assert!(v4.dont_fragment());
                header.calc_checksum_ipv4(&v4.to_header(), &payload).unwrap()
            }
            NetSlice::Ipv6(v6) => {
                prop_assert_eq!(v6.header().traffic_class() >> 2, marks.dscp);
                header.calc_checksum_ipv6(&v6.header().to_header(), &payload).unwrap()
            }
            other => panic!("{other:?}"),
        };
        prop_assert_eq!(udp.checksum(), right);
        prop_assert_eq!(&frame[..6], &OTHER.0[..]);

        // Another stack of ours takes it, finished by the device or not.
        let mut receiver = Host { mac: OTHER, address: peer(v6), checksums: Checksums::Verify, ..host(v6, vlan) };
        let got = take(&mut Stack::new(receiver).unwrap(), &frame);
        let is_taken = matches!(got, Received::Datagram { .. });
        prop_assert!(is_taken, "{:?}", got);
        prop_assert!(template.write(OTHER, true, &mut frame));
        if right != u16::from_be_bytes([frame[frame.len() - payload.len() - 2], frame[frame.len() - payload.len() - 1]]) {
            let got = take(&mut Stack::new(receiver).unwrap(), &frame);
            prop_assert_eq!(got, Received::Dropped(Dropped::WrongChecksum), "unfinished");
        }
        receiver.checksums = Checksums::VerifyOrUnfinished;
        let got = take(&mut Stack::new(receiver).unwrap(), &frame);
        let is_taken = matches!(got, Received::Datagram { .. });
        prop_assert!(is_taken, "{:?}", got);
    }

    /// Anything: no panic, and what is handed out lies inside the frame.
    #[test]
    fn anything_may_come(
        v6: bool, vlan in vlans(), frame in proptest::collection::vec(any::<u8>(), 0..200),
        kind in prop_oneof![Just(0x0800u16), Just(0x0806), Just(0x86dd), Just(0x8100), Just(0x88a8), any::<u16>()],
        ip in any::<u8>(), room in 0usize..200,
    ) {
        let mut frame = frame;
        let head = [&OWN.0[..], &OTHER.0, &kind.to_be_bytes(), &[if ip < 128 { 0x45 } else { 0x60 }]].concat();
        for (byte, given) in frame.iter_mut().zip(head) {
            *byte = given;
        }
        let mut answer = vec![0; room];
        match stack(v6, vlan).receive(NOW, &frame, &mut answer) {
            Received::Datagram { payload, .. } => prop_assert!(payload.end <= frame.len()),
            Received::Answer(len) | Received::Echo(len) => prop_assert!(len <= room),
            Received::Heard | Received::Dropped(_) => {}
        }
    }

    /// Well-formed frames with anything changed, so that all depths are reached.
    #[test]
    fn anything_may_be_changed(
        v6: bool, vlan in vlans(), which in 0u8..4, changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut: prop::sample::Index, room in 0usize..200,
    ) {
        let mut asker = stack_of_peer(v6, vlan);
        let mut frame = match which {
            0 => datagram(v6, vlan, 1, 2, b"payload"),
            1 => question(&mut asker, v6),
            2 => echo(v6, vlan, b"are you there"),
            _ => {
                // An answer to a question of the stack's own.
                let mut own = stack(v6, vlan);
                own.acquire(peer(v6), NOW).unwrap();
                let mut question = vec![0; 128];
                let len = own.poll(NOW, &mut question).unwrap();
                let mut answer = vec![0; 128];
                let Received::Answer(len) = asker.receive(NOW, &question[..len], &mut answer) else { panic!() };
                answer[..len].to_vec()
            }
        };
        for (at, byte) in changes {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        if which % 2 == 0 {
            frame.truncate(cut.index(frame.len() + 1));
        }
        let mut stack = stack(v6, vlan);
        stack.acquire(peer(v6), NOW).unwrap();
        let mut answer = vec![0; room];
        match stack.receive(NOW, &frame, &mut answer) {
            Received::Datagram { payload, .. } => prop_assert!(payload.end <= frame.len()),
            Received::Answer(len) | Received::Echo(len) => prop_assert!(len <= room),
            Received::Heard | Received::Dropped(_) => {}
        }
    }

    /// The answer to an echo is one that the oracle takes: to the asker, with its bytes.
    #[test]
    fn an_echo_is_answered(v6: bool, vlan in vlans(), payload in proptest::collection::vec(any::<u8>(), 0..1400)) {
        let frame = echo(v6, vlan, &payload);
        let mut answer = vec![0; 2048];
        let Received::Echo(len) = stack(v6, vlan).receive(NOW, &frame, &mut answer) else { panic!("no answer") };
        let parsed = SlicedPacket::from_ethernet(&answer[..len]).unwrap();
        match (&parsed.net.as_ref().unwrap(), parsed.transport.as_ref().unwrap()) {
            (NetSlice::Ipv4(ip), TransportSlice::Icmpv4(icmp)) => {
                prop_assert_eq!(IpAddr::V4(ip.header().destination_addr()), peer(false));
                prop_assert!(matches!(icmp.icmp_type(), etherparse::Icmpv4Type::EchoReply(of) if of.id == 5 && of.seq == 6));
                prop_assert_eq!(icmp.payload(), &payload[..]);
                prop_assert_eq!(icmp.header().checksum, icmp.icmp_type().calc_checksum(&payload));
            }
            (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
                prop_assert_eq!(IpAddr::V6(ip.header().destination_addr()), peer(true));
                prop_assert!(matches!(icmp.icmp_type(), etherparse::Icmpv6Type::EchoReply(of) if of.id == 5 && of.seq == 6));
                prop_assert_eq!(icmp.payload(), &payload[..]);
                let (from, to) = (ip.header().source(), ip.header().destination());
                prop_assert!(icmp.is_checksum_valid(from, to));
            }
            other => panic!("{other:?}"),
        }
        let small = stack(v6, vlan).receive(NOW, &frame, &mut [0; 60]);
        prop_assert!(matches!(small, Received::Dropped(Dropped::NoRoom) | Received::Echo(..=60)));
    }
}

fn echo(v6: bool, vlan: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(OTHER.0, OWN.0);
    let mut frame = Vec::new();
    macro_rules! finish {
        ($builder:expr) => {
            match (host(v6, vlan).address, peer(v6)) {
                (IpAddr::V4(own), IpAddr::V4(peer)) => {
                    let builder = $builder.ipv4(peer.octets(), own.octets(), 9).icmpv4_echo_request(5, 6);
                    builder.write(&mut frame, payload).unwrap();
                }
                (IpAddr::V6(own), IpAddr::V6(peer)) => {
                    let builder = $builder.ipv6(peer.octets(), own.octets(), 9).icmpv6_echo_request(5, 6);
                    builder.write(&mut frame, payload).unwrap();
                }
                _ => unreachable!(),
            }
        };
    }
    match vlan {
        Some(vlan) => finish!(builder.single_vlan(OracleVlan::try_new(vlan).unwrap())),
        None => finish!(builder),
    }
    frame
}

fn stack_of_peer(v6: bool, vlan: Option<u16>) -> Stack<8> {
    Stack::new(Host { mac: OTHER, address: peer(v6), gateway: None, ..host(v6, vlan) }).unwrap()
}

fn question(asker: &mut Stack<8>, v6: bool) -> Vec<u8> {
    asker.acquire(host(v6, None).address, NOW).unwrap();
    let mut frame = vec![0; 128];
    let len = asker.poll(NOW, &mut frame).unwrap();
    frame.truncate(len);
    frame
}

#[test]
fn two_stacks_find_each_other() {
    for (v6, vlan) in [(false, None), (true, None), (false, Some(9)), (true, Some(4094))] {
        let (mut a, mut b) = (stack(v6, vlan), stack_of_peer(v6, vlan));
        let at_a = a.acquire(peer(v6), NOW).unwrap();
        let at_b = b.acquire(a.host().address, NOW).unwrap();
        let (mut question, mut answer) = ([0; 128], [0; 128]);
        let len = a.poll(NOW, &mut question).unwrap();
        let Received::Answer(len) = b.receive(NOW, &question[..len], &mut answer) else { panic!("no answer") };
        assert_eq!(b.mac(at_b), Some(OWN), "who asks tells where it is");
        assert_eq!(a.mac(at_a), None);
        assert_eq!(a.receive(NOW, &answer[..len], &mut question), Received::Heard);
        assert_eq!(a.mac(at_a), Some(OTHER));
        // b asks whether it was true.
        let len = b.poll(NOW, &mut question).unwrap();
        assert_eq!(question[..6], OWN.0, "the one who claimed it is asked");
        let Received::Answer(len) = a.receive(NOW, &question[..len], &mut answer) else { panic!("no answer") };
        assert_eq!(b.receive(NOW, &answer[..len], &mut question), Received::Heard);
        assert!(!a.is_asking() && !b.is_asking());
        let later = NOW + Nanos::from_secs(29);
        assert_eq!((a.poll(later, &mut question), b.poll(later, &mut question)), (None, None));
    }
}

/// Sets bytes of a frame, and mends the checksum of its IPv4 header.
fn changed(frame: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame[24..26].fill(0);
    let check = insane_netstack::Sum::new().bytes(&frame[14..34]).check();
    frame[24..26].copy_from_slice(&check.to_be_bytes());
    frame
}

#[test]
fn what_is_not_for_us_or_of_nobody_is_dropped_by_name() {
    let good = datagram(false, None, 7000, 7001, b"payload");
    let drops = |frame: &[u8]| match take(&mut stack(false, None), frame) {
        Received::Dropped(why) => Some(why),
        _ => None,
    };
    assert_eq!(drops(&good), None);
    assert_eq!(drops(&changed(&good, 20, &[0x20, 0])), Some(Dropped::Fragment), "more follow");
    assert_eq!(drops(&changed(&good, 20, &[0, 3])), Some(Dropped::Fragment), "not the first");
    assert_eq!(drops(&changed(&good, 30, &[10, 0, 0, 9])), Some(Dropped::NotForUs), "another host");
    assert_eq!(drops(&changed(&good, 23, &[6])), Some(Dropped::Unknown), "tcp");
    for source in [[10, 0, 0, 1], [127, 0, 0, 1], [224, 0, 0, 1], [255; 4], [0; 4]] {
        assert_eq!(drops(&changed(&good, 26, &source)), Some(Dropped::Spoofed), "{source:?}");
    }
    let mut frame = good.clone();
    frame[6..12].copy_from_slice(&OWN.0);
    assert_eq!(drops(&frame), Some(Dropped::Spoofed), "from ourselves");
    frame[6..12].fill(0xff);
    assert_eq!(drops(&frame), Some(Dropped::Spoofed), "from a group");
    frame = good.clone();
    frame[0..6].copy_from_slice(&OTHER.0);
    assert_eq!(drops(&frame), Some(Dropped::NotForUs), "another station");
    frame = good.clone();
    frame[40..42].fill(0);
    assert!(matches!(take(&mut stack(false, None), &frame), Received::Datagram { .. }), "IPv4 needs no checksum");
    let mut frame = datagram(true, None, 7000, 7001, b"payload");
    frame[60..62].fill(0);
    assert_eq!(take(&mut stack(true, None), &frame), Received::Dropped(Dropped::WrongChecksum), "IPv6 does");
    frame[20] = 44;
    assert_eq!(take(&mut stack(true, None), &frame), Received::Dropped(Dropped::Fragment));
}

#[test]
fn tags_are_not_stacked() {
    let inner = datagram(false, Some(5), 1, 2, b"payload");
    let under = |tag: [u8; 4]| [&inner[..12], &tag, &inner[12..]].concat();
    // The link's own VLAN outside, and inside; a service tag of its number; one that bears a
    // priority, around one.
    assert_eq!(take(&mut stack(false, Some(5)), &under([0x81, 0, 0, 5])), Received::Dropped(Dropped::Unknown));
    assert_eq!(take(&mut stack(false, Some(5)), &under([0x81, 0, 0, 6])), Received::Dropped(Dropped::NotForUs));
    assert_eq!(take(&mut stack(false, Some(5)), &under([0x88, 0xa8, 0, 5])), Received::Dropped(Dropped::NotForUs));
    assert_eq!(take(&mut stack(false, None), &under([0x88, 0xa8, 0, 5])), Received::Dropped(Dropped::Unknown));
    assert_eq!(take(&mut stack(false, None), &under([0x81, 0, 0xe0, 0])), Received::Dropped(Dropped::Unknown));
    assert_eq!(take(&mut stack(false, Some(5)), &under([0x81, 0, 0xe0, 0])), Received::Dropped(Dropped::NotForUs));
    // A service tag alone is no VLAN of ours.
    let service = [&inner[..12], &[0x88, 0xa8], &inner[14..]].concat();
    assert_eq!(take(&mut stack(false, Some(5)), &service), Received::Dropped(Dropped::NotForUs));
    // A tag with a priority only is no VLAN (IEEE 802.1Q).
    let mut priority = inner.clone();
    priority[14..16].copy_from_slice(&[0xa0, 0]);
    assert!(matches!(take(&mut stack(false, None), &priority), Received::Datagram { .. }));
    assert_eq!(take(&mut stack(false, Some(5)), &priority), Received::Dropped(Dropped::NotForUs));
    assert!(LaxSlicedPacket::from_ethernet(&priority).is_ok());
}

#[test]
fn a_neighbour_that_speaks_for_another_is_not_heard() {
    for v6 in [false, true] {
        let mut victim = stack(v6, None);
        let id = victim.acquire(peer(v6), NOW).unwrap();
        let mut asker = stack_of_peer(v6, None);
        let mut frame = question(&mut asker, v6);
        // The hardware address inside is not that of the frame.
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 66]);
        assert_eq!(take(&mut victim, &frame), Received::Dropped(Dropped::Spoofed));
        assert_eq!(victim.mac(id), None);
    }
    // From beyond a router: it has taken a hop.
    let mut frame = question(&mut stack_of_peer(true, None), true);
    frame[21] = 254;
    assert_eq!(take(&mut stack(true, None), &frame), Received::Dropped(Dropped::Spoofed));
}

#[test]
fn hosts_that_cannot_be_are_refused_and_ways_are_found() {
    let refused = |host: Host| Stack::<8>::new(host).map(|_| ()).unwrap_err();
    let good = host(false, None);
    assert_eq!(refused(Host { mac: Mac::BROADCAST, ..good }), HostError::Mac);
    assert_eq!(refused(Host { address: Ipv4Addr::BROADCAST.into(), ..good }), HostError::Address);
    assert_eq!(refused(Host { address: Ipv6Addr::UNSPECIFIED.into(), ..good }), HostError::Address);
    assert_eq!(refused(Host { prefix_bits: 33, ..good }), HostError::Prefix);
    assert_eq!(refused(Host { gateway: Some("10.0.1.1".parse().unwrap()), ..good }), HostError::Gateway);
    let next = |host: &Host, to: &str| host.next_hop(to.parse().unwrap());
    assert_eq!(next(&good, "10.0.0.77"), Some("10.0.0.77".parse().unwrap()));
    assert_eq!(next(&good, "10.0.1.77"), good.gateway);
    assert_eq!(next(&Host { gateway: None, ..good }, "10.0.1.77"), None);
    assert_eq!(next(&good, "fd00::2"), None);
    assert_eq!(next(&good, "10.0.0.1"), None, "the host itself is no neighbour");
    assert_eq!(next(&host(true, None), "fe80::7"), Some("fe80::7".parse().unwrap()));
    let other_family = SocketAddr::new(peer(true), 1);
    assert!(Template::new(&good, 1, other_family, Marks::of(Lane::LAST, 0)).is_none());
    let template = Template::new(&good, 1, SocketAddr::new(peer(false), 1), Marks::of(Lane::LAST, 0)).unwrap();
    assert!(!template.write(OTHER, false, &mut vec![0; 14 + 65_536]), "longer than IP can say");
    assert!(template.write(OTHER, false, &mut vec![0; 14 + 65_535]));
    assert_eq!(EtherType::ARP.0, 0x0806);
}
