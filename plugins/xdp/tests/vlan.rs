//! Links in VLANs behind a switch (a bridge of the kernel's, which knows nothing of VLANs and
//! passes all frames on to everybody): who hears whom, and what is seen on the wire.

use insane_conformance::Keep;
use insane_conformance::shark::Row;
use insane_conformance::wire::{Namespace, PATIENCE, frame};
use insane_core::{Lane, PeerIndex};
use insane_link::{Link, LinkSetup, SendOutcome};
use insane_netstack::{Checksums, Host, Mac, Marks, Template};
use insane_sys::clock::mono_now;
use insane_xdp::{Mode, VlanId, XdpConfig, XdpLink, XdpSetup};
use insane_xdp_sys::interface::{Interface, finish_frames};
use insane_xdp_sys::{Binding, Xsk, XskOptions};
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

const MODES: [Mode; 2] = [Mode::Native, Mode::Skb];
const SENDER: &str = "10.9.0.1:7400";
const RECEIVER: &str = "10.9.0.2:7400";
/// What every receiver has for a hardware address.
const RECEIVER_MAC: &str = "02:00:00:00:00:02";
/// How long nothing is waited for.
const QUIET: Duration = Duration::from_millis(50);

/// `x0` to `x3` of the one are joined to `p0` to `p3` of the other, at a bridge.
struct Switch {
    ours: Namespace,
    net: Namespace,
}

impl Switch {
    const PORTS: u8 = 4;

    fn make() -> Option<Self> {
        let switch = Switch { ours: Namespace::make()?, net: Namespace::make()? };
        // It learns nothing, so that only VLANs keep links apart.
        let mut net = "link add br0 type bridge mcast_snooping 0 ageing_time 0\nlink set br0 up\n".to_owned();
        let mut ours = String::new();
        for port in 0..Self::PORTS {
            let mac = if port == 0 { "02:00:00:00:00:01" } else { RECEIVER_MAC };
            ours += &format!("link set x{port} up\n");
            net += &format!(
                "link add p{port} type veth peer name x{port} address {mac} netns {}\n\
                 link set p{port} master br0\nlink set p{port} up\n",
                switch.ours.path()
            );
        }
        switch.net.ip(&net);
        switch.ours.ip(&ours);
        for port in 0..Self::PORTS {
            switch.net.inside(|| finish_frames(&format!("p{port}"))).unwrap();
        }
        Some(switch)
    }

    /// A link at a port, with one peer.
    fn link(&self, port: u8, mode: Mode, vlan: Option<u16>, bind: &str, peer: &str) -> XdpLink {
        let vlan = vlan.map(|vlan| VlanId::new(vlan).unwrap());
        let config = XdpConfig { mode, vlan, ..XdpConfig::new(format!("x{port}"), bind.parse().unwrap()) };
        let peers: [Option<SocketAddr>; 1] = [Some(peer.parse().unwrap())];
        self.ours.inside(|| XdpSetup::bind(config).unwrap().open(&peers).unwrap())
    }
}

fn turn(links: &mut [XdpLink], kept: &mut [Keep]) {
    for (link, kept) in links.iter_mut().zip(kept) {
        link.tend(mono_now());
        link.receive(64, true, kept);
    }
}

fn keeps(links: &[XdpLink]) -> Vec<Keep> {
    links.iter().map(|_| Keep::default()).collect()
}

fn send(link: &mut XdpLink, lane: u8, bytes: &[u8]) -> SendOutcome {
    link.send(PeerIndex(0), Lane::new(lane).unwrap(), bytes, (&[][..]).into())
}

/// Waits until the first two know each other.
fn meet(links: &mut [XdpLink]) {
    let end = Instant::now() + PATIENCE;
    while !links[..2].iter().all(XdpLink::knows_all_ways) {
        assert!(Instant::now() < end, "they do not find each other: {:?}", links[0].counts());
        let mut kept = keeps(links);
        turn(links, &mut kept);
    }
}

/// All receivers have one address, and one hardware address: the tag alone tells them apart.
#[test]
fn who_is_in_a_vlan_hears_and_is_heard_there_only() {
    for mode in MODES {
        for vlan in [Some(5), None] {
            let Some(switch) = Switch::make() else { return };
            let others = [Some(5), Some(6), None].into_iter().filter(|other| *other != vlan);
            let receivers = std::iter::once(vlan).chain(others).zip(1..);
            let mut links = vec![switch.link(0, mode, vlan, SENDER, RECEIVER)];
            links.extend(receivers.map(|(vlan, port)| switch.link(port, mode, vlan, RECEIVER, SENDER)));
            meet(&mut links);
            let mut kept = keeps(&links);
            let frames: Vec<_> = (0..80).map(|number| frame(number, 1 + number * 18)).collect();
            for (frame, lane) in frames.iter().zip((0..8).cycle()) {
                for link in &mut links[..2] {
                    assert_eq!(send(link, lane, frame), SendOutcome::Sent);
                    link.flush();
                }
                turn(&mut links, &mut kept);
            }
            let end = Instant::now() + PATIENCE;
            while kept[..2].iter().any(|kept| kept.0.len() < frames.len()) && Instant::now() < end {
                turn(&mut links, &mut kept);
            }
            for came in &kept[..2] {
                let mut bytes: Vec<_> = came.0.iter().map(|arrival| arrival.bytes.clone()).collect();
                bytes.sort_by_key(Vec::len);
                assert_eq!(bytes, frames, "{mode:?}, VLAN {vlan:?}");
            }
            let end = Instant::now() + QUIET;
            while Instant::now() < end {
                turn(&mut links, &mut kept);
            }
            for (other, kept) in links.iter().zip(&kept).skip(2) {
                assert_eq!((kept.0.len(), other.counts().dropped), (0, 0), "{mode:?}: not of VLAN {vlan:?}");
                assert!(!other.knows_all_ways(), "{mode:?}: who is asked in VLAN {vlan:?} answers there");
            }
        }
    }
}

/// tshark at `p0`.
struct Shark(insane_conformance::shark::Shark);

impl Shark {
    const FIELDS: [&str; 5] = ["vlan.id", "vlan.priority", "ip.dsfield.dscp", "udp.dstport", "udp.payload"];

    fn watch(net: &Namespace) -> Option<Self> {
        let start = |command: &mut Command| net.inside(|| command.spawn());
        insane_conformance::shark::Shark::watch(&["p0"], "udp", &Self::FIELDS, start).map(Shark)
    }

    /// The fields of each datagram up to the one with this payload, as hexadecimal digits, which
    /// is sent by `again` until it is seen.
    fn rows_until(&self, payload: &str, again: impl FnMut()) -> Vec<Row> {
        self.0.rows_until(|row| row.last().is_some_and(|data| data == payload), again)
    }
}

/// The table of `Marks`, as an independent program sees it; also where frames of several lanes
/// might have shared a datagram.
#[test]
fn frames_bear_the_priorities_of_their_lanes() {
    const PRIORITIES: [u8; 8] = [6, 5, 4, 3, 2, 0, 0, 1];
    for mode in MODES {
        let Some(switch) = Switch::make() else { return };
        let mut links = vec![switch.link(0, mode, Some(5), SENDER, RECEIVER)];
        links.push(switch.link(1, mode, Some(5), RECEIVER, SENDER));
        meet(&mut links);
        let Some(shark) = Shark::watch(&switch.net) else { return };
        let mut alone = |lane: u8, bytes: &[u8]| {
            assert_eq!(send(&mut links[0], lane, bytes), SendOutcome::Sent);
            links[0].flush();
        };
        // It has begun to look; what it was shown twice comes before what follows.
        shark.rows_until("aaaaaaaa", || alone(0, &[0xaa; 4]));
        (0..8).for_each(|lane| alone(lane, &[lane; 4]));
        // Lanes 5 and 6 have one priority, and share a datagram.
        for lane in 0..8 {
            assert_eq!(send(&mut links[0], lane, &[lane; 4]), SendOutcome::Sent);
        }
        links[0].flush();
        let mut rows = shark.rows_until("bbbbbbbb", || {
            assert_eq!(send(&mut links[0], 7, &[0xbb; 4]), SendOutcome::Sent);
            links[0].flush();
        });
        rows.retain(|row| row.last().is_none_or(|data| data != "aaaaaaaa"));
        assert_eq!(rows.len(), 8 + 7, "{rows:?}");
        let row = |lane: u8| -> Vec<String> {
            let (dscp, port) = if lane < 3 { (46, 7400) } else { (0, 7401) };
            let priority = PRIORITIES[usize::from(lane)];
            let data = format!("{lane:02x}").repeat(4);
            vec!["5".into(), priority.to_string(), dscp.to_string(), port.to_string(), data]
        };
        for lane in 0..8 {
            assert_eq!(rows[usize::from(lane)], row(lane), "{mode:?}: lane {lane} alone");
        }
        for lane in [0, 1, 2, 3, 4, 7] {
            assert!(rows[8..].contains(&row(lane)), "{mode:?}: lane {lane} among others: {:?}", &rows[8..]);
        }
        let shared: Vec<_> = rows[8..].iter().filter(|row| row[1] == "0").collect();
        let [bundle] = shared[..] else { panic!("{shared:?}") };
        assert!(bundle[4].contains("05050505") && bundle[4].contains("06060606"), "{bundle:?}");
    }
}

/// Tags of every kind, from the other end of the wire.
#[test]
fn frames_with_other_tags_are_not_the_links() {
    for mode in MODES {
        for vlan in [None, Some(5)] {
            let Some(switch) = Switch::make() else { return };
            let mut link = switch.link(0, mode, vlan, RECEIVER, SENDER);
            let at = switch.net.inside(|| Interface::find("p0")).unwrap();
            let to = switch.ours.inside(|| Interface::find("x0")).unwrap();
            let options = XskOptions {
                interface: at.index,
                queue: 0,
                binding: Binding::Copy,
                chunk_bytes: 2048,
                ring_frames: 64,
            };
            let mut wire = switch.net.inside(|| Xsk::open(&options)).unwrap();
            let peer: SocketAddr = SENDER.parse().unwrap();
            let host = Host {
                mac: Mac(at.mac),
                address: peer.ip(),
                prefix_bits: 24,
                gateway: None,
                vlan: None,
                checksums: Checksums::Verify,
            };
            let template = Template::new(&host, 7400, RECEIVER.parse().unwrap(), Marks { priority: 0, dscp: 0 });
            let template = template.unwrap();
            let tagged = |tags: &[u8], payload: &[u8]| {
                let mut frame = vec![0; template.head_bytes()];
                frame.extend_from_slice(payload);
                assert!(template.write(Mac(to.mac), false, &mut frame));
                frame.splice(12..12, tags.iter().copied());
                frame
            };
            // What a frame says is who should take it: the link in none, the one in 5, or nobody.
            let (none, five, nobody) = (&b"none"[..], &b"five"[..], &b"nobody"[..]);
            let frames = [
                tagged(&[], none),
                tagged(&[0x81, 0, 0xa0, 0], none),
                tagged(&[0x81, 0, 0, 5], five),
                tagged(&[0x81, 0, 0xf0, 5], five),
                tagged(&[0x81, 0, 0, 6], nobody),
                tagged(&[0x81, 0, 0x0f, 0xff], nobody),
                tagged(&[0x88, 0xa8, 0, 5], nobody),
                tagged(&[0x88, 0xa8, 0, 0], nobody),
                tagged(&[0x81, 0, 0, 5, 0x81, 0, 0, 5], nobody),
                tagged(&[0x81, 0, 0, 0, 0x81, 0, 0, 0], nobody),
                tagged(&[0x88, 0xa8, 0, 7, 0x81, 0, 0, 5], nobody),
            ];
            for frame in frames.iter().chain(&frames) {
                let chunk = wire.reserve(0).unwrap();
                wire.bytes(&chunk)[..frame.len()].copy_from_slice(frame);
                wire.submit(chunk, 0..frame.len());
            }
            let _ = wire.kick(0);
            let mut kept = Keep::default();
            let end = Instant::now() + PATIENCE;
            while kept.0.len() < 4 && Instant::now() < end {
                link.receive(64, true, &mut kept);
            }
            let end = Instant::now() + QUIET;
            while Instant::now() < end {
                link.receive(64, true, &mut kept);
            }
            let expected = if vlan.is_some() { five } else { none };
            let came: Vec<_> = kept.0.iter().map(|arrival| &arrival.bytes[..]).collect();
            assert_eq!(came, [expected; 4], "{mode:?}, VLAN {vlan:?}");
            assert_eq!(link.counts().dropped, 0, "all others are the kernel's");
        }
    }
}
