//! What may come in at the daemon's ports.

use crate::cable::{INSANED, Way, spawn_in};
use crate::hosts::Plant;
use crate::world::{Daemon, Noise, OPEN, Pair, Place, until};
use insane_core::{ChannelId, HostId, Incarnation, Lane, SourceId, StreamKey};
use insane_wire::data::{DataHeader, Flags, HEADER_BYTES, Kind, VERSION};
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;

/// Sockets at a port and the next one, both free until then.
pub fn two_sockets(noise: &mut Noise) -> (UdpSocket, UdpSocket, u16) {
    loop {
        let port = 20_000 + noise.below(30_000) as u16;
        let bind = |port| UdpSocket::bind(("127.0.0.1", port));
        if let (Ok(first), Ok(second)) = (bind(port), bind(port + 1)) {
            return (first, second, port);
        }
    }
}

/// A header of the right form. The fields of some are random, so that they do not fit
/// together; the others could be true.
fn random_header(noise: &mut Noise, payload: usize, host: Option<HostId>) -> DataHeader {
    let host = host.unwrap_or(HostId(noise.below(4)));
    let kind = [Kind::Data, Kind::Overlay, Kind::Reliable][noise.below(3) as usize];
    let sound = noise.below(2) == 0;
    let mut any = |bound: u64| if noise.below(3) == 0 { noise.next() } else { noise.below(bound) };
    let header = DataHeader::overlay(host, Incarnation(any(4)), payload as u32);
    if sound && kind == Kind::Overlay {
        return header;
    }
    let header = DataHeader {
        kind,
        lane: Lane::new((any(8) % 8) as u8).expect("a lane"),
        stream: StreamKey(any(4)),
        sequence: any(10),
        source_instant: any(10),
        channel: ChannelId(any(4) as u32),
        source: SourceId(any(4) as u32),
        ..header
    };
    if sound {
        return header;
    }
    DataHeader {
        flags: if any(2).is_multiple_of(2) { Flags::NONE } else { Flags::RELIABLE },
        message_len: if any(2).is_multiple_of(2) { payload as u32 } else { any(100_000_000) as u32 },
        fragment_offset: (any(64) as u32).wrapping_mul(64),
        ..header
    }
}

#[test]
fn a_peer_of_another_version_is_told_of_and_disturbs_nobody() {
    let (place, other_place) = (Place::new("version"), Place::new("version-good"));
    let mut noise = Noise(u64::from(std::process::id()) + 1);
    let (_, _, port) = two_sockets(&mut noise);
    let (_, _, good_port) = two_sockets(&mut noise);
    let (other, other_next, other_port) = two_sockets(&mut noise);
    let rest = |own, peers: &str| {
        format!(
            "datapaths: [(name: \"main\", links: [\"l\"])], \
             links: [(name: \"l\", technology: udp(bind: \"127.0.0.1:{own}\"))], peers: [{peers}]"
        )
    };
    let peer = |name: &str, port| format!("(name: {name:?}, links: {{\"l\": \"127.0.0.1:{port}\"}})");
    let daemon =
        Daemon::start(&place, OPEN, &rest(port, &[peer("good", good_port), peer("other", other_port)].join(",")));
    let path = other_place.config(OPEN, &rest(good_port, &peer("test", port)));
    let text = std::fs::read_to_string(&path).unwrap().replace("name: \"test\"), control", "name: \"good\"), control");
    std::fs::write(&path, text).unwrap();
    let mut command = Command::new(INSANED);
    let _good = Daemon::spawn(&other_place, command.arg("--config").arg(&path));
    let mut pair = Pair::start(&daemon, "direct,isolated");
    let peer_of = |name: &str| daemon.status().peers.into_iter().find(|peer| peer.name == name).unwrap();
    until("the peer of this version is up", || peer_of("good").up);

    // What a build with the version before, and one with the next, would send.
    let ports = [port, port + 1].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let send = |version: u8| {
        let mut frame = DataHeader::overlay(HostId(9), Incarnation(1), 3).encode().to_vec();
        frame[1] = version;
        frame.extend(b"abc");
        other.send_to(&frame, ports[0]).unwrap();
        other_next.send_to(&frame, ports[1]).unwrap();
    };
    let why = |version, older| {
        format!(
            "it sends frames of version {version}, this runtime reads version {VERSION}: run one build on both ({older})"
        )
    };
    let older = why(VERSION - 1, "the peer's is the older one");
    until("it is told", || {
        send(VERSION - 1);
        peer_of("other").why_down.as_ref() == Some(&older)
    });
    assert!(daemon.log().contains(&older), "{}", daemon.log());
    assert!(daemon.status().datapaths[0].counters["frames_other_version"] >= 1);
    // One that changes its version in every frame fills no log.
    for version in 0..=255 {
        if version != VERSION {
            send(version);
        }
    }
    let counted = || daemon.status().datapaths[0].counters["frames_other_version"];
    until("they are counted", || counted() >= 400);
    assert_eq!(daemon.log().matches("it sends frames of version").count(), 1);

    let good = peer_of("good");
    assert!(good.up && good.why_down.is_none() && !peer_of("other").up);
    let carried = pair.finish();
    assert!(carried.iter().all(|count| *count > 0), "{carried:?}");
}

/// Who throws noise at a daemon: its peer, and somebody whom it does not know.
struct Throwers {
    peer: UdpSocket,
    peer_next: UdpSocket,
    stranger: UdpSocket,
}

#[test]
fn noise_at_every_port_is_counted_and_nothing_else_happens() {
    let place = Place::new("udp");
    let mut noise = Noise(u64::from(std::process::id()));
    // Released again, and with that free for the daemon.
    let (_, _, port) = two_sockets(&mut noise);
    let (peer, peer_next, peer_port) = two_sockets(&mut noise);
    // With one peer alone the kernel would keep strangers out.
    let (_other, _other_next, other_port) = two_sockets(&mut noise);
    let stranger = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    let at = |port: u16| format!("127.0.0.1:{port}");
    let link = Way::Udp.link(&at(port));
    place.config(OPEN, &with_peers(&link, &at(peer_port), &at(other_port)));
    let daemon = Daemon::spawn(&place, Command::new(INSANED).arg("--config").arg(place.path().join("insaned.ron")));
    noise_at(daemon, &Throwers { peer, peer_next, stranger }, &at(port), &mut noise);
}

#[test]
fn noise_at_every_port_is_counted_and_nothing_else_happens_over_xdp() {
    noise_past_the_kernel(Way::Xdp);
}

#[test]
fn noise_at_every_port_is_counted_and_nothing_else_happens_over_dpdk() {
    noise_past_the_kernel(Way::Dpdk);
}

/// The peer is the kernel of another host, and the stranger that of a third one.
fn noise_past_the_kernel(way: Way) {
    if !way.is_there() {
        return;
    }
    let Some(mut plant) = Plant::new() else { return };
    let (own, other) = (plant.add("10.77.0.1"), plant.add("10.77.0.2"));
    let place = Place::new(&format!("noise-{way:?}").to_lowercase());
    let mut noise = Noise(u64::from(std::process::id()));
    let bind = |port| plant.hosts[other].inside(|| UdpSocket::bind(("10.77.0.2", port)).unwrap());
    let throwers = Throwers { peer: bind(7400), peer_next: bind(7401), stranger: plant.stranger() };
    let at = "10.77.1.1:7400";
    place.config(OPEN, &with_peers(&way.link(at), "10.77.0.2:7400", "10.77.0.3:7400"));
    noise_at(spawn_in(&place, &plant.hosts[own]), &throwers, at, &mut noise);
}

fn with_peers(link: &str, peer: &str, other: &str) -> String {
    format!(
        "datapaths: [(name: \"main\", links: [\"l\"])], links: [(name: \"l\", technology: {link})], \
         peers: [(name: \"peer\", links: {{\"l\": {peer:?}}}), (name: \"other\", links: {{\"l\": {other:?}}})], \
         log: (level: error)"
    )
}

fn noise_at(mut daemon: Daemon, throwers: &Throwers, link: &str, noise: &mut Noise) {
    // A listener on the network's side of every stream, too.
    let mut pair = Pair::start(&daemon, "direct,isolated");
    let before = daemon.footprint();
    let peer_host = insane_config::Plan::embedded_udp("peer", SocketAddr::from(([127, 0, 0, 1], 1))).host.id;
    let link: SocketAddr = link.parse().unwrap();
    let ports = [link.port(), link.port() + 1].map(|port| SocketAddr::new(link.ip(), port));
    let Throwers { peer, peer_next, stranger } = throwers;
    for round in 0..1500_u64 {
        let to = ports[round as usize % 2];
        let len = match round % 5 {
            0 => 0,
            1 => noise.below(HEADER_BYTES as u64 + 2),
            2 => 60_000,
            _ => noise.below(1400),
        } as usize;
        let junk = noise.bytes(len);
        let host = (round % 2 == 0).then_some(peer_host);
        let mut frame = random_header(noise, len, host).encode().to_vec();
        frame.extend(&junk);
        let mut bent = frame.clone();
        let at = noise.below(bent.len() as u64) as usize;
        bent[at] ^= 1 << noise.below(8);
        for socket in [peer, peer_next, stranger] {
            // A queue that is full loses it: as good as any other loss.
            let _ = socket.send_to(&junk, to);
            let _ = socket.send_to(&frame, to);
            let _ = socket.send_to(&bent, to);
        }
        if round % 50 == 0 {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
    let count = |daemon: &Daemon, what: &str| daemon.status().datapaths[0].counters[what];
    until("they are counted", || {
        count(&daemon, "frames_unknown_peer") > 100 && count(&daemon, "frames_malformed") > 100
    });
    let report = daemon.status();
    let counters = &report.datapaths[0].counters;
    let well_formed = counters["frames_other_life"] + counters["frames_no_listener"] + counters["overlay_frames"];
    assert!(well_formed > 50, "{counters:?}");
    assert!(!report.peers[0].up, "noise is no peer");
    let carried = pair.finish();
    assert!(carried.iter().all(|count| *count > 100), "{carried:?}");
    drop(pair);
    until("the pair is gone", || daemon.used("sessions") == 0);
    assert!(daemon.is_alive());
    daemon.returns_to(before);
}
