//! Two daemons with a cable between them that can be cut, whatever their links are. Over udp
//! they are on loopback, and what passes datagrams between them is the cable. Links of tcp and past
//! the kernel have interfaces in network namespaces of their own, which a bridge joins.

use crate::hosts::{Namespace, Plant};
use crate::network::two_sockets;
use crate::world::{Daemon, Noise, OPEN, Place};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

pub const QUIET: &str = "log: (level: error)";

/// By what the two reach each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    Udp,
    Tcp,
    Xdp,
    /// Over packet sockets.
    Dpdk,
    /// DPDK's own AF_XDP.
    DpdkXdp,
}

/// Host b can be killed and started again. Daemons end before what is beneath them.
pub struct TwoHosts {
    pub a: Daemon,
    pub b: Daemon,
    places: [Place; 2],
    cable: Cable,
}

enum Cable {
    Relay(Relay),
    Bridge(Plant),
}

impl TwoHosts {
    /// `None`: passed over, and why was said.
    pub fn start(name: &str, way: Way) -> Option<TwoHosts> {
        let (cable, links) = if way == Way::Udp { by_relay(name) } else { by_bridge(way)? };
        let places = ["a", "b"].map(|host| Place::new(&format!("{name}-{way:?}-{host}").to_lowercase()));
        for (at, (place, (link, peer))) in places.iter().zip(&links).enumerate() {
            let (id, peer_id) = (at + 1, 2 - at);
            let rest = format!(
                "datapaths: [(name: \"main\", links: [\"l\"])], links: [(name: \"l\", technology: {link})], \
                 peers: [(name: \"peer{peer_id}\", links: {{\"l\": {peer:?}}})], {QUIET}"
            );
            let config = place.config(OPEN, &rest);
            let text = std::fs::read_to_string(&config).unwrap();
            let named = text.replace("name: \"test\"", &format!("name: \"test\", id: Some({id})"));
            std::fs::write(&config, named).unwrap();
        }
        let [a, b] = [0, 1].map(|at| spawn(&places[at], &cable, at));
        Some(TwoHosts { a, b, places, cable })
    }

    pub fn cut(&self, is_cut: bool) {
        match &self.cable {
            Cable::Relay(relay) => relay.cut(is_cut),
            Cable::Bridge(plant) => {
                assert!(plant.hub.ip(&format!("link set v1 {}", if is_cut { "down" } else { "up" })));
            }
        }
    }

    /// The interface of host b is deleted, or there again: another one of that name.
    pub fn unplug_b(&self, is_unplugged: bool) {
        let Cable::Bridge(plant) = &self.cable else { panic!("loopback stays where it is") };
        if is_unplugged { plant.unplug(1) } else { plant.plug(1) }
    }

    /// After it was killed.
    pub fn start_b_again(&mut self) {
        self.b = spawn(&self.places[1], &self.cable, 1);
    }
}

fn spawn(place: &Place, cable: &Cable, at: usize) -> Daemon {
    match cable {
        Cable::Relay(_) => spawn_by(place, Command::new(INSANED)),
        Cable::Bridge(plant) => spawn_in(place, &plant.hosts[at]),
    }
}

pub const INSANED: &str = env!("CARGO_BIN_EXE_insaned");

/// A daemon in a network namespace, configured as its place is.
pub fn spawn_in(place: &Place, host: &Namespace) -> Daemon {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &host.0, INSANED]);
    spawn_by(place, command)
}

fn spawn_by(place: &Place, mut command: Command) -> Daemon {
    let config = place.path().join("insaned.ron");
    Daemon::spawn(place, command.env("INSANED_LOG", "warn").arg("--config").arg(config))
}

/// The link of each daemon as it is configured, and where its peer is.
type Links = [(String, String); 2];

fn by_relay(name: &str) -> (Cable, Links) {
    let mut noise = Noise(u64::from(std::process::id()) ^ name.len() as u64);
    let mut two = || two_sockets(&mut noise);
    let (near, near_next, near_port) = two();
    let (far, far_next, far_port) = two();
    // Released again, and with that free for the daemons.
    let ((_, _, a_port), (_, _, b_port)) = (two(), two());
    let relay = Relay::lay([near, near_next], [far, far_next], [a_port, b_port]);
    let at = |port: u16| format!("127.0.0.1:{port}");
    let link = |port| Way::Udp.link(&at(port));
    (Cable::Relay(relay), [(link(a_port), at(near_port)), (link(b_port), at(far_port))])
}

impl Way {
    /// Whether this host has what it needs; otherwise a word on standard error.
    pub fn is_there(self) -> bool {
        let shim = Path::new(INSANED).with_file_name("libinsane_dpdk.so");
        let is_there = !matches!(self, Way::Dpdk | Way::DpdkXdp) || shim.exists();
        if !is_there {
            eprintln!("passed over: {} is missing (cargo xtask dpdk-shim)", shim.display());
        }
        is_there
    }

    /// As it is configured, on `eth0` where it has an interface, with neighbours of the same /16.
    pub fn link(self, bind: &str) -> String {
        let dpdk = |device: &str| format!("dpdk(device: {device:?}, bind: {bind:?}, prefix_bits: Some(16))");
        match self {
            Way::Udp => format!("udp(bind: {bind:?})"),
            Way::Tcp => format!("tcp(bind: {bind:?})"),
            Way::Xdp => format!("xdp(interface: \"eth0\", bind: {bind:?}, prefix_bits: Some(16))"),
            Way::Dpdk => dpdk("net_af_packet0,iface=eth0"),
            Way::DpdkXdp => dpdk("net_af_xdp0,iface=eth0"),
        }
    }
}

fn by_bridge(way: Way) -> Option<(Cable, Links)> {
    if !way.is_there() {
        return None;
    }
    let mut plant = Plant::new()?;
    // Addresses of the kernel's: tcp links use them, and they are in the way of none of the others.
    for host in 1..=2 {
        plant.add(&format!("10.77.0.{host}"));
    }
    let network = if way == Way::Tcp { 77 } else { 78 };
    let at = |host: usize| format!("10.{network}.0.{host}:7400");
    Some((Cable::Bridge(plant), [(way.link(&at(1)), at(2)), (way.link(&at(2)), at(1))]))
}

/// Passes datagrams between two daemons that take it for each other, until it is cut.
struct Relay {
    cut: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    /// `near[n]` is a socket that one daemon takes for port `n` of the other, and `far[n]`
    /// the other way round; what comes to one goes out by the other.
    fn lay(near: [UdpSocket; 2], far: [UdpSocket; 2], daemons: [u16; 2]) -> Self {
        let (cut, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let mut threads = Vec::new();
        for (number, (near, far)) in near.into_iter().zip(far).enumerate() {
            let to = daemons.map(|port| SocketAddr::from(([127, 0, 0, 1], port + number as u16)));
            let ways = [(near.try_clone().unwrap(), far.try_clone().unwrap(), to[1]), (far, near, to[0])];
            for (from, by, to) in ways {
                from.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                let (cut, stop) = (Arc::clone(&cut), Arc::clone(&stop));
                threads.push(std::thread::spawn(move || {
                    let mut datagram = [0; 65_536];
                    while !stop.load(Ordering::Relaxed) {
                        let Ok((len, _)) = from.recv_from(&mut datagram) else { continue };
                        if !cut.load(Ordering::Relaxed) {
                            let _ = by.send_to(&datagram[..len], to);
                        }
                    }
                }));
            }
        }
        Relay { cut, stop, threads }
    }

    fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
