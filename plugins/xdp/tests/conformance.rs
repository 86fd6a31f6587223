//! The xdp link passes the suite: over a bridge of veth pairs in a network namespace, in both
//! modes that these can do, IPv4 and IPv6, with ordinary and with large packets, with one queue and
//! with several.

use insane_conformance::wire::Namespace;
use insane_conformance::{Fixture, watch_allocations};
use insane_core::PeerIndex;
use insane_link::{FrameSink, Link, LinkSetup, PeerSetup};
use insane_sys::clock::mono_now;
use insane_xdp::{Mode, Neighbours, XdpConfig, XdpLink, XdpPeer, XdpPeers, XdpSetup};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

watch_allocations!();

const PORT: u16 = 7400;

struct Xdp {
    mode: Mode,
    v6: bool,
    mtu: u32,
    neighbours: Neighbours,
    /// Of each interface.
    queues: u32,
    namespace: Namespace,
    /// With borrowed neighbours, each link's host: one of two would take the other's frames for its
    /// own.
    hosts: Vec<Namespace>,
    setups: Vec<XdpPeers>,
    stranger: Option<UdpSocket>,
}

impl Xdp {
    fn new(mode: Mode, v6: bool, mtu: u32) -> Option<Self> {
        let namespace = Namespace::make()?;
        let (neighbours, hosts) = (Neighbours::Own, Vec::new());
        Some(Xdp { mode, v6, mtu, neighbours, queues: 1, namespace, hosts, setups: Vec::new(), stranger: None })
    }

    /// Each link sends by another queue, and what it sends arrives in that of the others.
    fn of_queues(mode: Mode, v6: bool) -> Option<Self> {
        Some(Xdp { queues: 4, ..Self::new(mode, v6, 1500)? })
    }

    fn borrowed(mode: Mode, v6: bool) -> Option<Self> {
        Some(Xdp { neighbours: Neighbours::Borrowed, ..Self::new(mode, v6, 1500)? })
    }

    /// Puts the links' ends into hosts of their own, with their addresses.
    fn move_out(&mut self, count: usize) {
        self.hosts = (0..count).map(|_| Namespace::make().unwrap()).collect();
        for (number, host) in self.hosts.iter().enumerate() {
            self.namespace.ip(&format!("link set x{number} netns {}\n", host.path()));
            let (ip, bits) = (self.address(number).ip(), if self.v6 { "64" } else { "16" });
            let is_quick = if self.v6 { "nodad" } else { "" };
            host.ip(&format!("address add {ip}/{bits} dev x{number} {is_quick}\nlink set x{number} up\n"));
            self.namespace.inside(|| insane_xdp_sys::interface::finish_frames(&format!("p{number}"))).unwrap();
        }
    }

    fn address(&self, number: usize) -> SocketAddr {
        let last = number as u16 + 1;
        let ip: IpAddr = if self.v6 {
            format!("fd00::{last:x}").parse().unwrap()
        } else {
            format!("10.9.0.{last}").parse().unwrap()
        };
        SocketAddr::new(ip, PORT)
    }

    /// A bridge, with a stranger's address on it, and `count` pairs whose other ends are ours.
    fn wire(&mut self, count: usize) {
        let (mtu, queues) = (self.mtu, format!("numrxqueues {0} numtxqueues {0}", self.queues));
        let mut script = format!("link add br0 mtu {mtu} type bridge mcast_snooping 0\n");
        for number in 0..count {
            script += &format!(
                "link add x{number} mtu {mtu} address 02:00:00:00:00:{number:02x} {queues} \
                 type veth peer name p{number} mtu {mtu} {queues}\n\
                 link set x{number} addrgenmode none\n\
                 link set p{number} addrgenmode none\n\
                 link set p{number} master br0 up\n\
                 link set x{number} up\n"
            );
        }
        script += "link set br0 addrgenmode none\nlink set br0 up\n";
        script +=
            if self.v6 { "address add fd00::ff/64 dev br0 nodad\n" } else { "address add 10.9.0.255/16 dev br0\n" };
        for number in 0..count {
            let ip = self.address(number).ip();
            script += &format!("neigh replace {ip} lladdr 02:00:00:00:00:{number:02x} dev br0\n");
        }
        self.namespace.ip(&script);
        let bind = if self.v6 { "[fd00::ff]:0" } else { "10.9.0.255:0" };
        self.stranger = Some(self.namespace.inside(|| UdpSocket::bind(bind)).unwrap());
    }
}

/// What comes before the test begins is nothing.
struct Nothing;

impl FrameSink for Nothing {
    fn frame(&mut self, _from: Option<PeerIndex>, frame: &[u8]) {
        panic!("a frame of {} bytes before any was sent", frame.len());
    }
}

impl Fixture for Xdp {
    type Link = XdpLink;

    fn open(&mut self, count: usize) -> Vec<XdpLink> {
        // A case that opens twice gets a new network.
        self.namespace = Namespace::make().unwrap();
        self.wire(count);
        if self.neighbours == Neighbours::Borrowed {
            self.move_out(count);
        }
        let setup = |number: usize| {
            let config = XdpConfig::new(format!("x{number}"), self.address(number));
            let queue = number as u32 % self.queues;
            let config = XdpConfig { mode: self.mode, neighbours: self.neighbours, queue, ..config };
            self.hosts.get(number).unwrap_or(&self.namespace).inside(|| XdpSetup::bind(config).unwrap())
        };
        let setups: Vec<_> = (0..count).map(setup).collect();
        self.setups = setups.iter().map(LinkSetup::peers).collect();
        assert!(setups.iter().all(|setup| setup.mode() == Some(self.mode)));
        let peers = |own| (0..count).map(|peer| (peer != own).then(|| self.address(peer))).collect::<Vec<_>>();
        let opened = setups.into_iter().enumerate().map(|(own, setup)| setup.open(&peers(own)).unwrap());
        let mut links: Vec<_> = opened.collect();
        // Where neighbours are borrowed, the kernel asks for them, and takes its time.
        let end = Instant::now() + insane_conformance::wire::PATIENCE;
        while !links.iter().all(XdpLink::knows_all_ways) {
            assert!(
                Instant::now() < end,
                "links do not find each other: {:?}",
                links.iter().map(XdpLink::counts).collect::<Vec<_>>()
            );
            for link in &mut links {
                link.tend(mono_now());
                link.receive(64, true, &mut Nothing);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        links
    }

    fn prepare(&mut self, of: usize, peer: PeerIndex, to: usize) -> XdpPeer {
        self.setups[of].prepare(peer, self.address(to)).unwrap()
    }

    fn settle(&mut self) {
        std::thread::sleep(Duration::from_micros(200));
    }

    fn send_as_stranger(&mut self, to: usize, bytes: &[u8]) {
        // To both sockets, but twice the same frame would be one too many for the suite.
        let mut address = self.address(to);
        address.set_port(address.port() + (bytes.len() % 2) as u16);
        let _ = self.stranger.as_ref().unwrap().send_to(bytes, address);
    }
}

/// As `insane_conformance::conformance_tests`, where the fixture may be missing.
macro_rules! suite {
    ($($name:ident: $fixture:expr;)*) => {
        $(mod $name {
            use super::*;
            insane_conformance::conformance_tests_where_possible!($fixture);
        })*
    };
}

suite! {
    native: Xdp::new(Mode::Native, false, 1500);
    native_v6: Xdp::new(Mode::Native, true, 1500);
    native_large: Xdp::new(Mode::Native, false, 3498);
    skb: Xdp::new(Mode::Skb, false, 1500);
    skb_v6: Xdp::new(Mode::Skb, true, 1500);
    native_queues: Xdp::of_queues(Mode::Native, false);
    native_queues_v6: Xdp::of_queues(Mode::Native, true);
    skb_queues: Xdp::of_queues(Mode::Skb, false);
    borrowed: Xdp::borrowed(Mode::Native, false);
    borrowed_v6: Xdp::borrowed(Mode::Native, true);
}
