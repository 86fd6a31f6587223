//! The dpdk link passes the suite: over packet sockets and over AF_XDP on a bridge of veth
//! pairs in a network namespace, and over rings and memif through a switch of the test's own.

mod common;

use common::{config, dpdk};
use dpdk_sys::{Eal, Frame, Port, PortOptions};
use insane_conformance::wire::Namespace;
use insane_conformance::{Fixture, watch_allocations};
use insane_core::{Lane, PeerIndex};
use insane_dpdk::{DpdkConfig, DpdkError, DpdkLink, DpdkPeer, DpdkPeers, DpdkSetup};
use insane_link::{FrameSink, Link, LinkSetup, PeerSetup};
use insane_netstack::{Checksums, Host, Mac, Marks, Template};
use insane_sys::clock::mono_now;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

watch_allocations!();

const PORT: u16 = 7400;
/// Names of devices are never used twice.
static DEVICES: AtomicU32 = AtomicU32::new(0);

fn mac(number: usize) -> [u8; 6] {
    [2, 0, 0, 0, 0, number as u8]
}

fn address(number: usize, v6: bool) -> SocketAddr {
    let last = number as u16 + 1;
    let ip: IpAddr =
        if v6 { format!("fd00::{last:x}").parse().unwrap() } else { format!("10.9.0.{last}").parse().unwrap() };
    SocketAddr::new(ip, PORT)
}

/// What comes before the test begins is nothing.
struct Nothing;

impl FrameSink for Nothing {
    fn frame(&mut self, _from: Option<PeerIndex>, frame: &[u8]) {
        panic!("a frame of {} bytes before any was sent", frame.len());
    }
}

/// Opens links with these set-ups as peers of each other, and lets them find each other.
fn open(setups: Vec<DpdkSetup>, v6: bool, mut settle: impl FnMut()) -> Vec<DpdkLink> {
    let count = setups.len();
    let peers = |own| (0..count).map(|peer| (peer != own).then(|| address(peer, v6))).collect::<Vec<_>>();
    let opened = setups.into_iter().enumerate().map(|(own, setup)| setup.open(&peers(own)).unwrap());
    let mut links: Vec<_> = opened.collect();
    let end = Instant::now() + insane_conformance::PATIENCE;
    while !links.iter().all(DpdkLink::knows_all_ways) {
        assert!(Instant::now() < end, "links do not find each other: {:?}", links[0].counts());
        for link in &mut links {
            link.tend(mono_now());
            link.receive(64, true, &mut Nothing);
        }
        settle();
    }
    links
}

/// Whether this build of DPDK has the driver; otherwise a word on standard error.
fn has_driver(opened: &Result<DpdkSetup, DpdkError>) -> bool {
    let text = opened.as_ref().err().map(ToString::to_string).unwrap_or_default();
    let is_missing = text.contains("failed to parse device");
    if is_missing {
        eprintln!("passed over: {text}");
    }
    !is_missing
}

/// Interfaces of the kernel.
struct Interfaces {
    driver: &'static str,
    v6: bool,
    namespace: Namespace,
    setups: Vec<DpdkPeers>,
    stranger: Option<UdpSocket>,
    _alone: MutexGuard<'static, ()>,
}

impl Interfaces {
    fn new(driver: &'static str, v6: bool) -> Option<Self> {
        let alone = dpdk()?;
        let namespace = Namespace::make()?;
        let mut fixture = Interfaces { driver, v6, namespace, setups: Vec::new(), stranger: None, _alone: alone };
        fixture.wire(1);
        let config = fixture.config(0);
        let has_it = has_driver(&fixture.namespace.inside(|| DpdkSetup::bind(config)));
        has_it.then_some(fixture)
    }

    fn config(&self, number: usize) -> DpdkConfig {
        let device = format!("{}{},iface=x{number}", self.driver, DEVICES.fetch_add(1, Ordering::Relaxed));
        config(&device, address(number, self.v6))
    }

    /// A bridge, with a stranger's address on it, and `count` pairs whose other ends are ours.
    fn wire(&mut self, count: usize) {
        let mut script = "link add br0 type bridge mcast_snooping 0\n".to_owned();
        for number in 0..count {
            script += &format!(
                "link add x{number} address 02:00:00:00:00:{number:02x} type veth peer name p{number}\n\
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
            let ip = address(number, self.v6).ip();
            script += &format!("neigh replace {ip} lladdr 02:00:00:00:00:{number:02x} dev br0\n");
        }
        self.namespace.ip(&script);
        let bind = if self.v6 { "[fd00::ff]:0" } else { "10.9.0.255:0" };
        self.stranger = Some(self.namespace.inside(|| UdpSocket::bind(bind)).unwrap());
    }
}

impl Fixture for Interfaces {
    type Link = DpdkLink;

    fn open(&mut self, count: usize) -> Vec<DpdkLink> {
        // A case that opens twice gets a new network.
        self.namespace = Namespace::make().unwrap();
        self.wire(count);
        let configs: Vec<_> = (0..count).map(|number| self.config(number)).collect();
        let bind = || configs.into_iter().map(|config| DpdkSetup::bind(config).unwrap()).collect::<Vec<_>>();
        let setups = self.namespace.inside(bind);
        self.setups = setups.iter().map(LinkSetup::peers).collect();
        assert!(setups.iter().all(|setup| setup.device().unwrap().driver == self.driver));
        open(setups, self.v6, || std::thread::sleep(Duration::from_micros(200)))
    }

    fn prepare(&mut self, of: usize, peer: PeerIndex, to: usize) -> DpdkPeer {
        self.setups[of].prepare(peer, address(to, self.v6)).unwrap()
    }

    fn settle(&mut self) {
        std::thread::sleep(Duration::from_micros(200));
    }

    fn send_as_stranger(&mut self, to: usize, bytes: &[u8]) {
        // To both ports, but twice the same frame would be one too many for the suite.
        let mut address = address(to, self.v6);
        address.set_port(address.port() + (bytes.len() % 2) as u16);
        let _ = self.stranger.as_ref().unwrap().send_to(bytes, address);
    }
}

/// How a port of a link and one of the switch are joined.
#[derive(Clone, Copy)]
enum Cable {
    Rings,
    Memif,
    /// The link's end is `net_virtio_user`, the switch's `net_vhost`.
    Virtio,
}

/// Devices that are joined in pairs, and a switch between them.
struct Switched {
    cable: Cable,
    v6: bool,
    frame_bytes_max: Option<u32>,
    ports: Vec<Port>,
    setups: Vec<DpdkPeers>,
    sockets: Vec<PathBuf>,
    _alone: MutexGuard<'static, ()>,
}

impl Switched {
    fn new(cable: Cable, v6: bool, frame_bytes_max: Option<u32>) -> Option<Self> {
        // A memif is not given back before its process ends, and DPDK has 32 ports.
        if matches!(cable, Cable::Memif | Cable::Virtio) && std::env::var_os(PART).is_none() {
            in_a_process_of_its_own();
            return None;
        }
        let alone = dpdk()?;
        let mut fixture =
            Switched { cable, v6, frame_bytes_max, ports: vec![], setups: vec![], sockets: vec![], _alone: alone };
        let has_it = has_driver(&DpdkSetup::bind(fixture.cable(0).0));
        fixture.ports.clear();
        has_it.then_some(fixture)
    }

    /// What a link is opened with, and the port at the other end.
    fn cable(&mut self, number: usize) -> (DpdkConfig, Port) {
        let eal = Eal::start(&common::eal()).unwrap();
        let pair = DEVICES.fetch_add(1, Ordering::Relaxed);
        let (ours, theirs) = match self.cable {
            Cable::Rings => {
                let names = (format!("net_ring_l{pair}"), format!("net_ring_s{pair}"));
                eal.ring_pair(&names.0, &names.1, 1024).unwrap();
                names
            }
            Cable::Memif => {
                // Not an abstract name: DPDK goes on listening there when a port is closed.
                let path = std::env::temp_dir().join(format!("insane-memif-{}-{pair}", std::process::id()));
                self.sockets.push(path.clone());
                let socket = format!("id=0,socket-abstract=no,socket={}", path.display());
                (format!("net_memif{pair},role=client,{socket}"), format!("net_memif_s{pair},role=server,{socket}"))
            }
            Cable::Virtio => {
                let path = std::env::temp_dir().join(format!("insane-virtio-{}-{pair}", std::process::id()));
                self.sockets.push(path.clone());
                let path = path.display();
                (format!("net_virtio_user{pair},path={path}"), format!("net_vhost{pair},iface={path}"))
            }
        };
        let options = PortOptions {
            device: theirs,
            packet_bytes: self.frame_bytes_max.unwrap_or(1472) + 28,
            ring_frames: 1024,
            pool_frames: 4095,
            is_promiscuous: true,
        };
        let (port, _) = Port::open(eal, &options).unwrap();
        let bind = address(number, self.v6);
        let config =
            DpdkConfig { mac: Some(mac(number)), frame_bytes_max: self.frame_bytes_max, ..config(&ours, bind) };
        (config, port)
    }

    /// Moves what came to where it belongs: a frame for one station to that, all others to all.
    fn switch(&mut self) {
        for from in 0..self.ports.len() {
            while let Some(frame) = self.ports[from].receive() {
                let bytes = self.ports[from].bytes(&frame).to_vec();
                self.ports[from].release(frame);
                let to = (0..self.ports.len()).find(|to| bytes[..6] == mac(*to));
                for port in to.map_or(0..self.ports.len(), |to| to..to + 1) {
                    if port != from {
                        self.put(port, &bytes);
                    }
                }
            }
        }
    }

    /// As a switch does it: what finds no room is lost.
    fn put(&mut self, port: usize, bytes: &[u8]) {
        let port = &mut self.ports[port];
        let Some(mut frame) = port.reserve() else { return };
        let Some(room) = port.room(&frame).get_mut(..bytes.len()) else {
            // Longer than anything on this network.
            return port.release(frame);
        };
        room.copy_from_slice(bytes);
        frame.set_len(bytes.len());
        let mut frames: Vec<Frame> = vec![frame];
        port.send(&mut frames);
        frames.into_iter().for_each(|frame| port.release(frame));
    }
}

impl Drop for Switched {
    fn drop(&mut self) {
        // Of a memif; some may be gone.
        self.sockets.iter().for_each(|path| drop(std::fs::remove_file(path)));
    }
}

/// Says that this process is one of a single test.
const PART: &str = "INSANE_CONFORMANCE_PART";

/// Runs the test of this thread once more.
fn in_a_process_of_its_own() {
    let test = std::thread::current().name().unwrap().to_owned();
    let mut part = Command::new(std::env::current_exe().unwrap());
    let output = part.args(["--exact", &test, "--nocapture"]).env(PART, "1").output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{}: {text}", output.status);
    if let Some(at) = text.find("passed over: ") {
        eprintln!("{}", text[at..].lines().next().unwrap_or_default());
    }
}

impl Fixture for Switched {
    type Link = DpdkLink;

    fn open(&mut self, count: usize) -> Vec<DpdkLink> {
        let (configs, ports): (Vec<_>, Vec<_>) = (0..count).map(|number| self.cable(number)).unzip();
        self.ports = ports;
        let setups: Vec<_> = configs.into_iter().map(|config| DpdkSetup::bind(config).unwrap()).collect();
        self.setups = setups.iter().map(LinkSetup::peers).collect();
        open(setups, self.v6, || self.settle())
    }

    fn prepare(&mut self, of: usize, peer: PeerIndex, to: usize) -> DpdkPeer {
        self.setups[of].prepare(peer, address(to, self.v6)).unwrap()
    }

    fn settle(&mut self) {
        self.switch();
        if matches!(self.cable, Cable::Memif | Cable::Virtio) {
            // Connecting is done by another thread.
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    fn send_as_stranger(&mut self, to: usize, bytes: &[u8]) {
        let host = Host {
            mac: Mac([2, 0, 0, 0, 1, 0]),
            address: if self.v6 { "fd00::ff".parse().unwrap() } else { "10.9.0.250".parse().unwrap() },
            prefix_bits: if self.v6 { 64 } else { 24 },
            gateway: None,
            vlan: None,
            checksums: Checksums::Verify,
        };
        let mut at = address(to, self.v6);
        at.set_port(at.port() + (bytes.len() % 2) as u16);
        let template = Template::new(&host, 9, at, Marks::of(Lane::LAST, 0)).unwrap();
        let mut frame = vec![0; template.head_bytes()];
        frame.extend_from_slice(bytes);
        assert!(template.write(Mac(mac(to)), false, &mut frame));
        self.put(to, &frame);
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
    rings: Switched::new(Cable::Rings, false, None);
    rings_v6: Switched::new(Cable::Rings, true, None);
    rings_large: Switched::new(Cable::Rings, false, Some(8972));
    memif: Switched::new(Cable::Memif, false, None);
    virtio: Switched::new(Cable::Virtio, false, None);
    af_packet: Interfaces::new("net_af_packet", false);
    af_packet_v6: Interfaces::new("net_af_packet", true);
    af_xdp: Interfaces::new("net_af_xdp", false);
}
