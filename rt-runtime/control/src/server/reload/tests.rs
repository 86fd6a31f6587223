//! Reloads of whole runtimes on loopback, with links that refuse in the middle.

use super::*;
use crate::runtime::{Hosting, Runtime};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Which change of the next reload is made one that its link refuses; 0: none.
static SPOILED: AtomicUsize = AtomicUsize::new(0);
/// Tests that reload take turns.
static TURN: Mutex<()> = Mutex::new(());

/// Makes a change impossible, where a test wants that: there is no such link.
pub(super) fn spoil(swaps: &mut [(usize, PeerSwap)]) {
    let spoiled = SPOILED.swap(0, Ordering::Relaxed);
    if let Some((_, swap)) = spoiled.checked_sub(1).and_then(|at| swaps.get_mut(at)) {
        swap.link = usize::MAX;
    }
}

struct Place {
    runtime: Runtime,
    file: PathBuf,
    port: u16,
    _turn: MutexGuard<'static, ()>,
}

impl Place {
    /// A runtime with two datapaths of a link each, and peers `b` and `c` on both.
    fn new(name: &str) -> Place {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let file = std::env::temp_dir().join(format!("insane-reload-{name}-{}.ron", std::process::id()));
        for attempt in 0..50_u16 {
            let port = 21_000 + (std::process::id() % 20_000) as u16 + attempt * 16;
            std::fs::write(&file, text(port, &PEERS, "")).unwrap();
            let Loaded { plan, .. } = insane_config::load(&file, &Machine::detect()).unwrap();
            if let Ok(runtime) = Runtime::start(plan, Hosting::Thread) {
                runtime.set_config_file(&file);
                return Place { runtime, file, port, _turn: turn };
            }
        }
        panic!("no free ports");
    }

    fn reload(&self, peers: &[(&str, u16)], rest: &str, dry_run: bool) -> ReloadReport {
        std::fs::write(&self.file, text(self.port, peers, rest)).unwrap();
        self.runtime.reload(dry_run).expect("an answer")
    }

    fn names(&self) -> Vec<String> {
        self.runtime.status().expect("a report").peers.into_iter().map(|peer| peer.name).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

const PEERS: [(&str, u16); 2] = [("b", 20_000), ("c", 20_004)];

/// Peers by name and first port; the second datapath reaches them two ports on.
fn text(port: u16, peers: &[(&str, u16)], rest: &str) -> String {
    let peer = |(name, port): &(&str, u16)| {
        let tcp = port + 2;
        format!("(name: {name:?}, links: {{\"u\": \"127.0.0.1:{port}\", \"t\": \"127.0.0.1:{tcp}\"}}),")
    };
    let peers: String = peers.iter().map(peer).collect();
    format!(
        "(control: (socket: \"/tmp/insane-reload-unit-{port}.sock\"), datapaths: [
            (name: \"rt\", serves: real_time, links: [\"u\"], idle: block),
            (name: \"be\", serves: best_effort, links: [\"t\"], idle: block)],
         links: [(name: \"u\", technology: udp(bind: \"127.0.0.1:{port}\")),
                 (name: \"t\", technology: tcp(bind: \"127.0.0.1:{tcp}\"))],
         peers: [{peers}], {rest})",
        tcp = port + 2
    )
}

#[test]
fn whatever_link_refuses_everything_is_as_before() {
    let place = Place::new("back");
    // b leaves, c moves, d and e come: ten changes of links on two datapaths.
    let new = [("c", 20_008), ("d", 20_000), ("e", 20_012)];
    let other = "domains: [(name: \"default\", members: [any], quota: (sinks: 3), \
                 streams: [(name: \"*\", priority: 7)])]";
    for spoiled in 1..=10 {
        SPOILED.store(spoiled, Ordering::Relaxed);
        let report = place.reload(&new, other, false);
        assert_eq!(report.outcome, Outcome::RolledBack, "{spoiled}: {report:?}");
        assert!(!report.errors.is_empty() && report.errors[0].contains("cannot be done"), "{report:?}");
        assert!(!report.undone.is_empty(), "{report:?}");
        assert!(report.undone.iter().all(|line| line.starts_with("peers[\"")), "{report:?}");
        assert_eq!(place.names(), ["b", "c"]);
        let status = place.runtime.status().unwrap();
        assert_eq!(status.domains[0].quotas["sinks"].limit, 256, "nothing else has changed either");
    }
    let report = place.reload(&PEERS, "", false);
    assert_eq!(report.outcome, Outcome::Unchanged, "{report:?}");
    let report = place.reload(&new, other, false);
    assert_eq!(report.outcome, Outcome::Applied, "{report:?}");
    let mut names = place.names();
    names.sort();
    assert_eq!(names, ["c", "d", "e"]);
    assert_eq!(place.runtime.status().unwrap().domains[0].quotas["sinks"].limit, 3);
}

#[test]
fn what_cannot_be_is_refused_before_anything_changes() {
    let place = Place::new("refused");
    let refused = |peers: &[(&str, u16)], rest: &str, why: &str| {
        for dry_run in [true, false] {
            let report = place.reload(peers, rest, dry_run);
            assert_eq!(report.outcome, Outcome::Refused, "{why}: {report:?}");
            assert!(report.errors.join("\n").contains(why), "{why}: {report:?}");
            assert_eq!(place.names(), ["b", "c"]);
        }
    };
    refused(&[("d", 20_000)], "memory: (lock: true)", "memory.lock cannot change online: it needs a restart");
    refused(&[("d", 20_000)], "colour: 3", "colour");
    refused(&[("d", 20_000), ("e", 20_000)], "", "is the address of");
    refused(&[("d", 20_000)], "memory: (limit_bytes: 1000)", "limit_bytes");
    let many: Vec<(String, u16)> = (0..65).map(|at| (format!("p{at}"), 20_000 + at * 4)).collect();
    let many: Vec<(&str, u16)> = many.iter().map(|(name, port)| (name.as_str(), *port)).collect();
    refused(&many, "", "peers");
    std::fs::remove_file(&place.file).unwrap();
    let report = place.runtime.reload(false).unwrap();
    assert!(report.outcome == Outcome::Refused && report.errors[0].contains("cannot read"), "{report:?}");
    assert_eq!(place.names(), ["b", "c"]);
}

/// All 64 numbers, over and over: none is lost on the way, and none used before it is free.
#[test]
fn numbers_of_peers_that_left_come_back() {
    let place = Place::new("numbers");
    let peer = |round: usize, at: usize| (format!("p{round}-{at}"), 20_000 + at as u16 * 4);
    for round in 0..12 {
        let peers: Vec<(String, u16)> = (0..30).map(|at| peer(round, at)).collect();
        let peers: Vec<(&str, u16)> = peers.iter().map(|(name, port)| (name.as_str(), *port)).collect();
        let mut tries = 0;
        loop {
            let report = place.reload(&peers, "", false);
            tries += 1;
            match report.outcome {
                Outcome::Applied => break,
                // The numbers of the round before last are on their way back.
                Outcome::Refused if tries < 1000 => {
                    assert!(report.errors[0].contains("no numbers are left"), "{report:?}");
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
                _ => panic!("{report:?}"),
            }
        }
        let mut names = place.names();
        names.sort();
        let mut expected: Vec<&str> = peers.iter().map(|(name, _)| *name).collect();
        expected.sort_unstable();
        assert_eq!(names, expected);
    }
}

/// The decision alone: what leaves and what comes, in which places.
#[test]
fn only_what_differs_moves_and_discovered_peers_are_left_alone() {
    let plan = |peers: &[(&str, u16)]| {
        let mut plan = Plan::embedded_udp("a", ([127, 0, 0, 1], 7000).into());
        for (name, port) in peers {
            plan.add_peer(name, &[("udp", ([127, 0, 0, 1], *port).into())]);
        }
        plan
    };
    let old = plan(&[("b", 7010), ("c", 7020), ("d", 7030)]);
    let mut roster = Roster::new(&old);
    let discovered = |name: &str, port: u16| {
        let addresses = vec![vec![Some(([127, 0, 0, 1], port).into())]];
        Entry { name: name.into(), source: PeerSource::Discovery, host: None, addresses }
    };
    roster.insert(PeerIndex(10), discovered("found", 7040));
    roster.insert(PeerIndex(11), discovered("other", 7050));
    let decide = |new: &[(&str, u16)]| {
        let (leaving, coming) = moves(&roster, &old, &plan(new)).unwrap();
        let coming: Vec<_> = coming.into_iter().map(|(peer, entry)| (peer.0, entry.name)).collect();
        (leaving.iter().map(|peer| peer.0).collect::<Vec<_>>(), coming)
    };
    assert_eq!(decide(&[("d", 7030), ("c", 7020), ("b", 7010)]), (vec![], vec![]));
    assert_eq!(decide(&[("b", 7010), ("d", 7031)]), (vec![1, 2], vec![(12, "d".to_owned())]));
    assert_eq!(decide(&[("bb", 7010), ("c", 7020), ("d", 7030)]), (vec![0], vec![(12, "bb".to_owned())]));
    let all = [("b", 7010), ("c", 7020), ("d", 7030)];
    assert_eq!(decide(&[&all[..], &[("found", 7060)]].concat()), (vec![10], vec![(12, "found".to_owned())]));
    assert_eq!(decide(&[&all[..], &[("e", 7050)]].concat()), (vec![11], vec![(12, "e".to_owned())]));
}
