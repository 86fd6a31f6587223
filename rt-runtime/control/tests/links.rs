//! Two runtimes joined by two links, one of which fails: real sockets, real time.
#![forbid(unsafe_code)]

use insane_config::{Plan, Serves, Technology};
use insane_control::{Hosting, Runtime, StartError};
use insane_wire::status::{PeerStatus, WayStatus};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

fn here(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A cable between two links that can be pulled: forwards what comes from either, at both
/// ports of a link.
struct Cable {
    plugged: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Cable {
    fn new(at: u16, ends: [u16; 2]) -> std::io::Result<Self> {
        let (plugged, stop) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let mut threads = Vec::new();
        for class in 0..2 {
            let socket = UdpSocket::bind(here(at + class))?;
            socket.set_read_timeout(Some(Duration::from_millis(20)))?;
            let (plugged, stop) = (Arc::clone(&plugged), Arc::clone(&stop));
            let [one, other] = ends.map(|port| here(port + class));
            threads.push(std::thread::spawn(move || {
                let mut frame = [0; 65_536];
                while !stop.load(Ordering::Relaxed) {
                    let Ok((len, from)) = socket.recv_from(&mut frame) else { continue };
                    if plugged.load(Ordering::Relaxed) {
                        let _ = socket.send_to(&frame[..len], if from == one { other } else { one });
                    }
                }
            }));
        }
        Ok(Cable { plugged, stop, threads })
    }

    fn plug(&self, plugged: bool) {
        self.plugged.store(plugged, Ordering::Relaxed);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A second datapath, whose link is another one.
fn add_link(plan: &mut Plan, own: u16, peer: u16) {
    let mut second = plan.datapaths[0].clone();
    second.name = "second".into();
    second.links[0].name = "backup".into();
    second.links[0].peers = vec![Some(here(peer))];
    if let Technology::Udp(udp) = &mut second.links[0].technology {
        udp.bind = here(own);
    }
    // The overlay's own lane is one of best effort: it prefers the first link.
    plan.datapaths[0].serves = Serves::BestEffort;
    second.serves = Serves::RealTime;
    plan.datapaths.push(second);
}

/// Ports are tried until all are free.
fn start() -> (Runtime, Runtime, Cable) {
    for attempt in 0..50_u16 {
        let base = 21_000 + (std::process::id() % 20_000) as u16 + attempt * 16;
        let (mut a, mut b) = Plan::loopback_pair(base, base + 2);
        let Ok(cable) = Cable::new(base + 4, [base, base + 2]) else { continue };
        for plan in [&mut a, &mut b] {
            plan.datapaths[0].links[0].peers = vec![Some(here(base + 4))];
        }
        add_link(&mut a, base + 6, base + 8);
        add_link(&mut b, base + 8, base + 6);
        match (Runtime::start(a, Hosting::Thread), Runtime::start(b, Hosting::Thread)) {
            (Ok(a), Ok(b)) => return (a, b, cable),
            (Err(StartError::Link { .. }), _) | (_, Err(StartError::Link { .. })) => {}
            (a, b) => panic!("{a:?} {b:?}"),
        }
    }
    panic!("no free ports");
}

fn peer(runtime: &Runtime) -> PeerStatus {
    runtime.status().expect("a report").peers.remove(0)
}

/// Waits for something that another thread brings about.
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn states(peer: &PeerStatus) -> Vec<(bool, bool)> {
    peer.ways.iter().map(|way: &WayStatus| (way.up, way.speaks)).collect()
}

#[test]
fn each_link_is_known_by_itself_and_the_overlay_speaks_by_one_that_is_up() {
    let (a, b, cable) = start();
    for runtime in [&a, &b] {
        eventually("both links are up", || states(&peer(runtime)).iter().all(|(up, _)| *up));
        eventually("the peer is up", || peer(runtime).up);
        let peer = peer(runtime);
        let names: Vec<(&str, &str)> = peer.ways.iter().map(|way| (way.link.as_str(), way.datapath.as_str())).collect();
        assert_eq!(names.len(), 2);
        assert_eq!(names[1], ("backup", "second"));
        assert!(peer.rtt_ns.is_some_and(|ns| ns > 0));
        assert!(peer.ways.iter().all(|way| way.rtt_ns.is_some() && way.up_ms.is_some() && way.heard_ms_ago.is_some()));
        assert_eq!(peer.ways.iter().filter(|way| way.speaks).count(), 1);
    }
    // The cable is pulled; the peer is spoken to by the other link, and does not go down.
    let life = peer(&a).incarnation;
    cable.plug(false);
    for runtime in [&a, &b] {
        eventually("the overlay speaks by the other link", || states(&peer(runtime)) == [(false, false), (true, true)]);
    }
    std::thread::sleep(Duration::from_secs(1));
    for runtime in [&a, &b] {
        let peer = peer(runtime);
        assert!(peer.up && peer.rtt_ns == peer.ways[1].rtt_ns);
        assert_eq!((peer.ways[0].rtt_ns, peer.ways[0].up_ms), (None, None), "of a link that is down nothing is known");
        assert!(peer.ways[0].downs >= 1);
    }
    assert_eq!(peer(&a).incarnation, life);
    cable.plug(true);
    for runtime in [&a, &b] {
        eventually("the link is back", || peer(runtime).ways[0].up);
    }
    a.stop();
    b.stop();
}
