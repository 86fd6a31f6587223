//! What is idle does next to nothing. Turns and wake-ups are counted, not timed, so the bounds
//! hold on any machine: one that is slow makes fewer a second.

use crate::cable::QUIET;
use crate::network::two_sockets;
use crate::world::{Daemon, Noise, OPEN, Place};
use insane_rt::{ChannelId, Qos, Session, Sink, SinkOptions, Source, SourceOptions};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long is counted; the longest sleep of anything that sleeps is 100 ms.
const SPAN: Duration = Duration::from_secs(2);
/// Wake-ups a second of any thread. 50 to 75 of the datapath and 75 to 100 of the control plane
/// were counted, most of them for heartbeats with the peer on two links, to and fro: as many as
/// do not happen to come together.
const WAKES_MAX: f64 = 180.0;
/// Of all threads of a daemon together; 140 to 190 were counted.
const ALL_WAKES_MAX: f64 = 350.0;
/// Turns a second of a datapath that sleeps when a turn moved nothing; two for each wake-up were
/// counted.
const TURNS_MAX: f64 = 3.0 * WAKES_MAX;
/// Wake-ups a second of an application that waits: it looks again every 100 ms.
const APPLICATION_MAX: f64 = 25.0;

/// A thread's name, and how often it gave its core away to wait, from its status.
fn of(status: String) -> (String, u64) {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    (field("Name:"), field("voluntary_ctxt_switches:").parse().unwrap())
}

/// The same of each thread of a process.
fn waits(process: u32) -> Vec<(String, u64)> {
    let folder = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let statuses = folder.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("status")).ok());
    statuses.map(of).collect()
}

fn turns_and_sleeps(daemon: &Daemon) -> [u64; 2] {
    let counters = &daemon.status().datapaths[0].counters;
    ["turns", "sleeps"].map(|name| counters[name])
}

/// A sink and a source, each other's on the other session.
fn ends(session: &Session, own: u32, other: u32) -> (Source, Sink) {
    let stream = session.stream("s", Qos::default()).unwrap();
    let source = stream.source(ChannelId(own), SourceOptions::default()).unwrap();
    (source, stream.sink(ChannelId(other), SinkOptions::default()).unwrap())
}

#[test]
fn an_idle_daemon_with_peers_and_applications_turns_and_wakes_seldom() {
    let mut noise = Noise(u64::from(std::process::id()) ^ 0x1d1e);
    let ports: Vec<[u16; 2]> = (0..2).map(|_| [two_sockets(&mut noise).2, two_sockets(&mut noise).2]).collect();
    let places = ["a", "b"].map(|host| Place::new(&format!("idle-{host}")));
    let daemons: Vec<Daemon> = (0..2)
        .map(|at: usize| {
            let ([udp, tcp], [peer_udp, peer_tcp]) = (ports[at], ports[1 - at]);
            let rest = format!(
                "datapaths: [(name: \"main\", idle: block, links: [\"u\", \"t\"])], \
                 links: [(name: \"u\", technology: udp(bind: \"127.0.0.1:{udp}\")), \
                         (name: \"t\", technology: tcp(bind: \"127.0.0.1:{tcp}\"))], \
                 peers: [(name: \"peer\", links: {{\"u\": \"127.0.0.1:{peer_udp}\", \"t\": \"127.0.0.1:{peer_tcp}\"}})], \
                 {QUIET}"
            );
            Daemon::start(&places[at], OPEN, &rest)
        })
        .collect();
    let sessions = [daemons[0].attach("near"), daemons[0].attach("near-too"), daemons[1].attach("far")];
    let [near, near_too, far] =
        [(0, 1, 2), (1, 2, 1), (2, 3, 1)].map(|(at, own, other)| ends(&sessions[at], own, other));
    // The far one hears the first, so the two daemons know each other.
    near.0.wait_for_receivers(Duration::from_secs(20)).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = &stop;
        let wait = move |sink: Sink| {
            let own = || of(std::fs::read_to_string("/proc/thread-self/status").unwrap()).1;
            let (before, start, mut got) = (own(), Instant::now(), 0);
            while !stop.load(Ordering::Relaxed) {
                got += u32::from(sink.consume_timeout(Duration::from_millis(700)).unwrap().is_some());
            }
            assert_eq!(got, 0, "nobody sends");
            (own() - before) as f64 / start.elapsed().as_secs_f64()
        };
        let (_sources, sinks): (Vec<Source>, Vec<Sink>) = [near, near_too, far].into_iter().unzip();
        let applications: Vec<_> = sinks.into_iter().map(|sink| scope.spawn(move || wait(sink))).collect();
        // What connecting and joining takes is over.
        std::thread::sleep(Duration::from_secs(2));
        let before = (waits(daemons[0].pid().as_raw() as u32), turns_and_sleeps(&daemons[0]));
        let start = Instant::now();
        std::thread::sleep(SPAN);
        let after = (waits(daemons[0].pid().as_raw() as u32), turns_and_sleeps(&daemons[0]));
        let seconds = start.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        for wakes in applications.into_iter().map(|one| one.join().unwrap()) {
            assert!(wakes > 0.0 && wakes <= APPLICATION_MAX, "an application wakes {wakes} times a second");
        }

        let per_second = |before: u64, after: u64| after.saturating_sub(before) as f64 / seconds;
        let rates: Vec<(String, f64)> = before
            .0
            .iter()
            .zip(&after.0)
            .map(|((name, before), (other, after))| {
                assert_eq!(name, other, "threads come and go");
                (name.clone(), per_second(*before, *after))
            })
            .collect();
        let [turns, sleeps] = [0, 1].map(|at: usize| per_second(before.1[at], after.1[at]));
        println!("{rates:?}, {turns} turns and {sleeps} sleeps a second");
        assert!(sleeps > 0.0, "it sleeps");
        for (name, wakes) in &rates {
            assert!(*wakes <= WAKES_MAX, "{name} wakes {wakes} times a second: {rates:?}");
        }
        let all: f64 = rates.iter().map(|(_, wakes)| wakes).sum();
        assert!(all <= ALL_WAKES_MAX, "{all} wake-ups a second: {rates:?}");
        assert!(turns <= TURNS_MAX, "{turns} turns and {sleeps} sleeps a second");
    });
}
