//! An xdp link with the kernel's address and neighbours: the kernel finds and answers them, and all
//! else on that address goes on beside the link.

use insane_conformance::Keep;
use insane_conformance::wire::{self, PATIENCE, WORLD_LINK, WORLD_PEER, descriptors, frame, send, wait_for};
use insane_core::{Lane, PeerIndex};
use insane_link::{Link, LinkHealth, LinkSetup, SendOutcome};
use insane_sys::clock::mono_now;
use insane_udp::{UdpConfig, UdpLink, UdpSetup};
use insane_xdp::{Mode, Neighbours, VlanId, XdpConfig, XdpError, XdpKeeper, XdpLink, XdpSetup};
use insane_xdp_sys::interface;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Instant;

const MODES: [Mode; 2] = [Mode::Native, Mode::Skb];
/// The link, and its peer in the kernel, of both families.
const ENDS: [(&str, &str); 2] = [("10.9.0.3:7400", "10.9.0.1:7400"), ("[fd00::3]:7400", "[fd00::1]:7400")];
const ADDRESSES: &str = "address add 10.9.0.3/24 dev x0\naddress add fd00::3/64 dev x0 nodad\n";

fn config(mode: Mode, bind: &str) -> XdpConfig {
    let bind = bind.parse().unwrap();
    XdpConfig { mode, neighbours: Neighbours::Borrowed, ..XdpConfig::new("x0", bind) }
}

/// Two hosts that are joined: `x0` of the one has addresses of the kernel's, which are the link's.
fn hosts() -> Option<wire::Hosts> {
    let hosts = wire::Hosts::make()?;
    hosts.join();
    hosts.ours.ip(ADDRESSES);
    hosts.kernel.inside(|| interface::finish_frames("p0")).unwrap();
    Some(hosts)
}

fn open(hosts: &wire::Hosts, mode: Mode, bind: &str, peer: &str) -> XdpLink {
    let peers: [Option<SocketAddr>; 1] = [Some(peer.parse().unwrap())];
    hosts.ours.inside(|| XdpSetup::bind(config(mode, bind)).unwrap().open(&peers).unwrap())
}

fn meet(link: &mut XdpLink) {
    let end = Instant::now() + PATIENCE;
    while !link.knows_all_ways() {
        assert!(Instant::now() < end, "the kernel tells nothing: {:?}", link.counts());
        link.tend(mono_now());
    }
}

fn udp(hosts: &wire::Hosts, bind: &str, peer: &str) -> UdpLink {
    let setup = hosts.kernel.inside(|| UdpSetup::bind(UdpConfig::new(bind.parse().unwrap())).unwrap());
    setup.open(&[Some(peer.parse().unwrap())]).unwrap()
}

/// A link, and one of kernel sockets on the other host, which it knows the way to.
fn met(mode: Mode, xdp: &str, udp_at: &str) -> Option<(wire::Hosts, UdpLink, XdpLink)> {
    let hosts = hosts()?;
    let kernel = udp(&hosts, udp_at, xdp);
    let mut ours = open(&hosts, mode, xdp, udp_at);
    meet(&mut ours);
    Some((hosts, kernel, ours))
}

fn exchange(ours: &mut XdpLink, kernel: &mut UdpLink, frames: usize) {
    for (number, lane) in (0..frames).zip((0..8).cycle()) {
        let frame = frame(number, 1 + number * 18);
        send(ours, lane, &frame);
        ours.flush();
        assert_eq!(wait_for(kernel, ours, 1), [frame.as_slice()], "to the kernel, lane {lane}");
        send(kernel, lane, &frame);
        kernel.flush();
        assert_eq!(wait_for(ours, kernel, 1), [frame.as_slice()], "from the kernel, lane {lane}");
    }
}

/// What the kernel of a host counts under this name.
fn counted(host: &wire::Namespace, protocol: &str, name: &str) -> u64 {
    let text = host.inside(|| std::fs::read_to_string("/proc/thread-self/net/snmp")).unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(&format!("{protocol}: ")));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split(' ').position(|given| given == name).unwrap();
    values.split(' ').nth(at).unwrap().parse().unwrap()
}

/// What the kernel of our host has of the peer.
fn entry(hosts: &wire::Hosts, peer: &str) -> String {
    let ip = peer.parse::<SocketAddr>().unwrap().ip().to_string();
    let show = || Command::new("ip").args(["neigh", "show", "to", &ip, "dev", "x0"]).output().unwrap();
    String::from_utf8_lossy(&hosts.ours.inside(show).stdout).into_owned()
}

#[test]
fn a_udp_link_is_a_peer_and_the_kernel_has_no_part_in_it() {
    for mode in MODES {
        for (xdp, udp_at) in ENDS {
            let Some((hosts, mut kernel, mut ours)) = met(mode, xdp, udp_at) else { return };
            exchange(&mut ours, &mut kernel, 80);
            // Small ones at once, too, in bundles.
            let frames: Vec<_> = (0..40).map(|number| frame(number, 64)).collect();
            for frame in &frames {
                send(&mut kernel, 7, frame);
                send(&mut ours, 7, frame);
            }
            kernel.flush();
            ours.flush();
            let mut came = Keep::default();
            let end = Instant::now() + PATIENCE;
            while came.0.len() < 40 && Instant::now() < end {
                ours.receive(64, true, &mut came);
            }
            assert!(came.0.iter().map(|arrival| &arrival.bytes).eq(&frames), "{} frames came", came.0.len());
            assert_eq!(wait_for(&mut kernel, &mut ours, 40), frames);
            let counts = ours.counts();
            let wrong = (counts.dropped, counts.unresolved, counts.lookups_refused, counts.answered);
            assert_eq!(wrong, (0, 0, 0, 0), "{counts:?}");
            for name in ["InDatagrams", "NoPorts", "InErrors", "RcvbufErrors"] {
                assert_eq!(counted(&hosts.ours, "Udp", name), 0, "{name}");
            }
            assert_eq!(counted(&hosts.ours, "Icmp", "OutDestUnreachs"), 0);
        }
    }
}

/// An echo request, and whether it is answered.
fn ping(host: &wire::Namespace, to: &str) -> bool {
    use nix::sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, setsockopt, socket,
        sockopt,
    };
    use nix::sys::time::TimeVal;
    use std::os::fd::AsRawFd;
    let to: std::net::SocketAddrV4 = to.parse().unwrap();
    let fd = host.inside(|| socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Icmp)).unwrap();
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(20, 0)).unwrap();
    // Kind 8, number 0x1234, and the checksum of these.
    let echo = [8, 0, 0xe5, 0xcb, 0x12, 0x34, 0, 0];
    sendto(fd.as_raw_fd(), &echo, &SockaddrIn::from(to), MsgFlags::empty()).unwrap();
    let mut packet = [0; 200];
    // Behind the header of IP: an answer with that number.
    let is_answer = |packet: &[u8]| packet.get(20) == Some(&0) && packet.get(24..26) == Some(&echo[4..6]);
    (0..10).any(|_| recv(fd.as_raw_fd(), &mut packet, MsgFlags::empty()).is_ok_and(|len| is_answer(&packet[..len])))
}

#[test]
fn all_else_on_the_same_address_goes_on() {
    for mode in MODES {
        for (xdp, udp_at) in ENDS {
            let Some((hosts, mut kernel, mut ours)) = met(mode, xdp, udp_at) else { return };
            let at = |port| SocketAddr::new(xdp.parse::<SocketAddr>().unwrap().ip(), port);
            let listener = hosts.ours.inside(|| TcpListener::bind(at(7400))).unwrap();
            let mut client = hosts.kernel.inside(|| TcpStream::connect_timeout(&at(7400), PATIENCE)).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            for stream in [&client, &server] {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
            }
            // Ports beside the link's two.
            for port in [7399, 7402] {
                let datagrams = hosts.ours.inside(|| UdpSocket::bind(at(port))).unwrap();
                datagrams.set_read_timeout(Some(PATIENCE)).unwrap();
                let any: SocketAddr = if at(0).is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
                let sender = hosts.kernel.inside(|| UdpSocket::bind(any)).unwrap();
                sender.send_to(b"datagram", at(port)).unwrap();
                assert_eq!(datagrams.recv(&mut [0; 64]).unwrap(), 8);
            }
            for round in 0..20 {
                let line = [round; 1000];
                let mut bytes = [0; 1000];
                client.write_all(&line).unwrap();
                server.read_exact(&mut bytes).unwrap();
                server.write_all(&bytes).unwrap();
                exchange(&mut ours, &mut kernel, 4);
                client.read_exact(&mut bytes).unwrap();
                assert_eq!(bytes, line);
            }
            assert!(!xdp.starts_with("10.") || ping(&hosts.kernel, xdp), "an echo is answered");
            // The ports themselves are nobody else's.
            for port in [7400, 7401] {
                let taken = hosts.ours.inside(|| UdpSocket::bind(at(port))).unwrap_err();
                assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
            }
            assert_eq!(ours.counts().dropped, 0, "nothing of that came to the link");
            drop(ours);
            // A child that another test starts has what this process has open, until it runs its program.
            let end = Instant::now() + PATIENCE;
            while let Err(taken) = hosts.ours.inside(|| UdpSocket::bind(at(7400))) {
                assert!(Instant::now() < end, "the port is not given back: {taken}");
                std::thread::yield_now();
            }
        }
    }
}

/// Sends until a frame arrives, while the peer's kernel says where it is.
fn send_until_one_comes(hosts: &wire::Hosts, ours: &mut XdpLink, kernel: &mut UdpLink, bytes: &[u8]) {
    let end = Instant::now() + PATIENCE;
    let mut kept = Keep::default();
    while kept.0.is_empty() {
        assert!(Instant::now() < end, "none comes: {:?}", ours.counts());
        // It forgets us, and asks: our kernel hears where it is now.
        hosts.kernel.ip("neigh flush dev p0\n");
        send(kernel, 0, b"here I am");
        kernel.flush();
        let until = Instant::now() + std::time::Duration::from_millis(50);
        while kept.0.is_empty() && Instant::now() < until {
            let _ = ours.send(PeerIndex(0), Lane::LAST, bytes, (&[][..]).into());
            ours.flush();
            ours.tend(mono_now());
            ours.receive(64, true, &mut Keep::default());
            kernel.receive(64, true, &mut kept);
        }
    }
    assert_eq!(kept.0[0].bytes, bytes);
}

#[test]
fn a_neighbour_with_another_hardware_address_is_followed() {
    for (xdp, udp_at) in ENDS {
        let Some((hosts, mut kernel, mut ours)) = met(Mode::Native, xdp, udp_at) else { return };
        exchange(&mut ours, &mut kernel, 4);
        for last in [0x11, 0x22] {
            let mac = format!("02:00:00:00:00:{last}");
            hosts.kernel.ip(&format!("link set p0 address {mac}\n"));
            send_until_one_comes(&hosts, &mut ours, &mut kernel, mac.as_bytes());
            assert!(entry(&hosts, udp_at).contains(&mac), "{}", entry(&hosts, udp_at));
        }
        assert_eq!(ours.counts().unresolved, 0, "frames went somewhere all the time");
    }
}

#[test]
fn an_entry_that_is_deleted_is_found_again_and_no_frame_waits_for_it() {
    for (xdp, udp_at) in ENDS {
        let Some((hosts, mut kernel, mut ours)) = met(Mode::Native, xdp, udp_at) else { return };
        for round in 0..5 {
            let before = entry(&hosts, udp_at);
            assert!(before.contains("lladdr"), "{before}");
            hosts.ours.ip("neigh flush dev x0\n");
            exchange(&mut ours, &mut kernel, 8);
            let end = Instant::now() + PATIENCE;
            while !entry(&hosts, udp_at).contains("lladdr") {
                assert!(Instant::now() < end, "round {round}: the kernel is not made to look");
                ours.tend(mono_now());
            }
        }
        assert_eq!(ours.counts().unresolved, 0);
        // One whose neighbour is silent is refused, and found again when that answers.
        hosts.kernel.ip("link set p0 arp off\nlink set p0 address 02:00:00:00:00:33\n");
        hosts.ours.ip("neigh flush dev x0\n");
        let end = Instant::now() + PATIENCE;
        // When the kernel has given up, and not before.
        while ours.send(PeerIndex(0), Lane::LAST, b"x", (&[][..]).into()) != SendOutcome::Failed {
            assert!(Instant::now() < end, "the link does not hear of it");
            ours.flush();
            ours.tend(mono_now());
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        hosts.kernel.ip("link set p0 arp on\n");
        meet(&mut ours);
        exchange(&mut ours, &mut kernel, 4);
    }
}

#[test]
fn a_peer_that_does_not_answer_is_refused_and_found_when_it_comes() {
    for (xdp, late) in [("10.9.0.3:7400", "10.9.0.9:7400"), ("[fd00::3]:7400", "[fd00::9]:7400")] {
        let Some(hosts) = hosts() else { return };
        let mut ours = open(&hosts, Mode::Native, xdp, late);
        // Longer than the kernel asks for one question.
        let silence = Instant::now() + std::time::Duration::from_secs(4);
        let mut refused = 0;
        while Instant::now() < silence {
            assert!(ours.tend(mono_now()), "it wants to go on asking");
            let sent = ours.send(PeerIndex(0), Lane::LAST, b"frame", (&[][..]).into());
            assert_eq!(sent, SendOutcome::Failed, "there is no way yet");
            refused += 1;
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(ours.counts().unresolved, refused);
        let ip = late.parse::<SocketAddr>().unwrap().ip();
        let bits = if ip.is_ipv4() { "24" } else { "64 nodad" };
        hosts.kernel.ip(&format!("address add {ip}/{} dev p0 {}\n", &bits[..2], &bits[2..]));
        let mut kernel = udp(&hosts, late, xdp);
        meet(&mut ours);
        exchange(&mut ours, &mut kernel, 4);
        assert!(!ours.tend(mono_now()), "nothing is left to ask");
    }
}

type World = wire::World<XdpLink, XdpKeeper>;

/// Without an interface yet.
fn world(mode: Mode) -> Option<World> {
    let hosts = wire::Hosts::make()?;
    let config = XdpConfig { frame_bytes_max: Some(1000), ..config(mode, WORLD_LINK) };
    let setup = hosts.ours.inside(|| XdpSetup::bind_or_wait(config).unwrap());
    let keeper = setup.keeper();
    let peers: [Option<SocketAddr>; 1] = [Some(WORLD_PEER.parse().unwrap())];
    Some(World { hosts, link: setup.open(&peers).unwrap(), keeper, is_ready: XdpLink::knows_all_ways })
}

const WORLD_ADDRESS: &str = "address add 10.9.0.2/24 dev x0\n";

#[test]
fn an_interface_that_flaps_comes_back_with_its_neighbours_each_time() {
    const FLAPS: u32 = 20;
    for mode in MODES {
        let Some(mut world) = world(mode) else { return };
        let before = descriptors();
        for round in 0..FLAPS {
            // Both ends have other hardware addresses each time.
            world.hosts.join();
            world.hosts.ours.ip(WORLD_ADDRESS);
            world.wait_until_up();
            world.exchange(round, false);
            world.hosts.ours.ip("link set x0 down\n");
            world.wait_until_missing();
            world.hosts.ours.ip("link set x0 up\n");
            world.wait_until_up();
            world.exchange(round, true);
            world.hosts.ours.ip("link delete x0\n");
            world.wait_until_missing();
            world.link.tend(mono_now());
        }
        world.look();
        assert_eq!(world.link.counts().interface_lost, u64::from(2 * FLAPS));
        let kept = descriptors().saturating_sub(before);
        assert!(kept < FLAPS as usize, "{kept} descriptors are left of interfaces that went");
    }
}

#[test]
fn an_address_or_port_that_is_not_there_makes_the_link_missing_until_it_is() {
    let Some(mut world) = world(Mode::Auto) else { return };
    world.hosts.join();
    let why = world.wait_until(
        "without its address",
        |_, health| matches!(health, LinkHealth::Missing(why) if !why.contains("finding the interface")),
    );
    let LinkHealth::Missing(why) = why else { panic!() };
    assert!(why.contains("x0 does not have the address 10.9.0.2"), "{why}");
    world.hosts.ours.ip("address add 10.9.0.2/24 dev x0\n");
    let other = world.hosts.ours.inside(|| UdpSocket::bind("10.9.0.2:7401")).unwrap();
    let LinkHealth::Missing(why) = world.look() else { panic!("the port is taken") };
    assert!(why.contains("10.9.0.2:7400 and the port after it") && why.contains("EADDRINUSE"), "{why}");
    drop(other);
    world.wait_until_up();
    world.exchange(0, false);
    // Taken away while the link is in use: nobody answers for it any more.
    world.hosts.ours.ip("address del 10.9.0.2/24 dev x0\n");
    let why = world.wait_until_missing();
    assert!(why.contains("does not have the address"), "{why}");
    world.hosts.ours.ip(WORLD_ADDRESS);
    world.wait_until_up();
    world.exchange(1, true);
}

#[test]
fn what_cannot_be_borrowed_is_refused() {
    let vlan = VlanId::new(5);
    let refused = XdpSetup::bind_or_wait(XdpConfig { vlan, ..config(Mode::Auto, WORLD_LINK) }).map(|_| ());
    assert_eq!(refused.unwrap_err(), XdpError::BorrowedInVlan { vlan: 5 });
}
