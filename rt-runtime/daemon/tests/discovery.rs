//! Discovery between real daemons, each in a network namespace of its own, joined by a bridge.
//!
//! They need root and `ip`; without, they say so and pass over themselves. Those about hosts
//! that find each other are built with the feature `gossip` only.
#![forbid(unsafe_code)]

#[path = "../../control/tests/peer/mod.rs"]
mod peer;

mod hosts;

use hosts::{Daemon, Namespace, folder, write};
#[cfg(feature = "gossip")]
use hosts::{PATIENCE, Plant, wait_for};
#[cfg(not(feature = "gossip"))]
use std::process::Command;

/// The sockets of a namespace, as the kernel lists them for a process in it.
fn open_ports(pid: u32) -> Vec<String> {
    let tables = ["udp", "udp6", "udplite", "tcp", "tcp6", "raw", "raw6", "packet"];
    let rows = |table: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        text.lines().skip(1).map(|line| format!("{table}: {line}")).collect::<Vec<_>>()
    };
    tables.into_iter().flat_map(rows).collect()
}

#[test]
fn without_peers_and_discovery_no_port_opens() {
    let Some(namespace) = Namespace::new() else { return };
    for (name, rest) in [("silent", ""), ("silent-too", "discovery: (), peers: []")] {
        let daemon = Daemon::start(&namespace, name, rest);
        assert_eq!(open_ports(daemon.child.id()), Vec::<String>::new());
        let status = daemon.status();
        assert_eq!((status.discovery, status.peers.len()), (None, 0));
        assert!(!status.threads.iter().any(|thread| thread.name == "gossip"));
    }
    // The list is no empty promise: a link's two ports stand in it.
    let rest = "datapaths: [(name: \"main\", links: [\"net\"])], \
                links: [(name: \"net\", technology: udp(bind: \"127.0.0.1:7400\"))]";
    assert_eq!(open_ports(Daemon::start(&namespace, "heard", rest).child.id()).len(), 2);
}

#[cfg(not(feature = "gossip"))]
#[test]
fn a_program_without_gossip_refuses_a_file_that_asks_for_it_and_names_the_remedy() {
    let folder = folder("unbuilt");
    let rest = "datapaths: [(name: \"main\", links: [\"net\"])],
        links: [(name: \"net\", technology: udp(bind: \"127.0.0.1:17400\"))],
        discovery: (gossip: (bind: \"127.0.0.1:17100\", cluster: \"c\", allow: [\"127.0.0.0/8\"]))";
    write(&folder, "unbuilt", rest);
    for arguments in [&["--check"][..], &[]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_insaned"));
        command.args(arguments).arg("--config").arg(folder.join("insaned.ron"));
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(4), "{text}");
        assert!(text.contains("cargo build --release -p insaned --features gossip"), "{text}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[cfg(feature = "gossip")]
mod found {
    use super::*;
    use insane_rt::{ChannelId, Qos, Reliability, Session, Sink, SinkOptions, Source, SourceOptions};
    use insane_wire::status::{DiscoveryStatus, PeerStatus};
    use std::time::Duration;

    const CHANNEL: ChannelId = ChannelId(7);

    /// The file of the host at this address.
    fn config(address: &str, allow: &str, peers: &str) -> String {
        format!(
            "datapaths: [(name: \"main\", links: [\"net\"])],
             links: [(name: \"net\", technology: udp(bind: \"{address}:7400\"))],
             peers: [{peers}],
             discovery: (gossip: (
                 bind: \"{address}:7100\", cluster: \"plant\", allow: [{allow:?}],
                 seeds: [\"10.77.0.1:7100\", \"10.77.0.99:7100\"], forget_after_s: 5,
             ))"
        )
    }

    const NEAR: &str = "10.77.0.0/24";
    const ALL: &str = "10.77.0.0/16";

    impl Daemon {
        fn discovery(&self) -> DiscoveryStatus {
            self.status().discovery.unwrap()
        }

        /// Names of the peers that are up, with where they are known from.
        fn up(&self) -> Vec<(String, String)> {
            let up = |peer: PeerStatus| peer.up.then_some((peer.name, peer.source));
            let mut names: Vec<_> = self.status().peers.into_iter().filter_map(up).collect();
            names.sort();
            names
        }

        /// Waits until it has exactly these peers, all up, and all found.
        #[track_caller]
        fn wait_for_found(&self, names: &[&str]) {
            let wanted: Vec<_> = names.iter().map(|name| ((*name).to_owned(), "discovery".to_owned())).collect();
            wait_for(&format!("{names:?} at {}", self.folder.display()), || {
                self.up() == wanted && self.status().peers.len() == wanted.len()
            });
        }

        fn session(&self) -> Session {
            Session::attach(self.socket(), "app").unwrap()
        }
    }

    fn ends(session: &Session) -> (Source, Sink) {
        let qos = Qos { reliability: Reliability::Reliable, ..Qos::default() };
        let stream = session.stream("orders", qos).unwrap();
        let source = stream.source(CHANNEL, SourceOptions::default()).unwrap();
        (source, stream.sink(CHANNEL, SinkOptions::default()).unwrap())
    }

    /// What is emitted at one host arrives at the others.
    #[track_caller]
    fn cross(source: &Source, sinks: &[&Sink], word: &[u8]) {
        let mut arrived = vec![false; sinks.len()];
        wait_for("a message arrives everywhere", || {
            // Refused while a peer that is dead holds the window; it is put out of that.
            let _ = source.emit_copy(word).unwrap();
            for (sink, arrived) in sinks.iter().zip(&mut arrived) {
                while let Some(message) = sink.consume().unwrap() {
                    *arrived |= message.to_vec() == word;
                }
            }
            arrived.iter().all(|arrived| *arrived)
        });
    }

    #[test]
    fn three_hosts_that_know_one_seed_find_lose_and_find_each_other_elsewhere() {
        let Some(mut plant) = Plant::new() else { return };
        let addresses = ["10.77.0.1", "10.77.0.2", "10.77.0.3"];
        let mut daemons: Vec<Daemon> = Vec::new();
        for (at, address) in addresses.into_iter().enumerate() {
            plant.add(address);
            daemons.push(Daemon::start(&plant.hosts[at], &format!("h{}", at + 1), &config(address, NEAR, "")));
        }
        let sessions: Vec<Session> = daemons.iter().map(Daemon::session).collect();
        let all: Vec<(Source, Sink)> = sessions.iter().map(ends).collect();
        daemons[0].wait_for_found(&["h2", "h3"]);
        daemons[1].wait_for_found(&["h1", "h3"]);
        daemons[2].wait_for_found(&["h1", "h2"]);
        cross(&all[0].0, &[&all[1].1, &all[2].1], b"from the first");
        cross(&all[2].0, &[&all[0].1, &all[1].1], b"from the third");
        let told = daemons[0].discovery();
        let states: Vec<_> = told.seeds.iter().map(|seed| seed.state.as_str()).collect();
        assert_eq!(states, ["own", "silent"], "oneself, and nobody: neither does harm");
        assert_eq!((told.found.len(), told.refused.len(), told.counters["peers_added"]), (2, 0, 2));
        wait_for("that it is silent is told", || daemons[0].log().contains("a seed of discovery does not answer"));
        assert_eq!(daemons[0].log().matches("a seed of discovery does not answer").count(), 1);
        assert_eq!(daemons[0].log().matches("is this host itself").count(), 1);
        assert!(daemons[0].status().threads.iter().any(|thread| thread.name == "gossip"));

        // kill -9.
        daemons[2].child.kill().unwrap();
        daemons[2].child.wait().unwrap();
        daemons[0].wait_for_found(&["h2"]);
        daemons[1].wait_for_found(&["h1"]);
        assert_eq!(daemons[0].discovery().counters["peers_removed"], 1);
        cross(&all[0].0, &[&all[1].1], b"between those who are left");

        // It comes back with another address.
        assert!(plant.hosts[2].ip("addr flush dev eth0") && plant.hosts[2].ip("addr add 10.77.0.33/16 dev eth0"));
        write(&daemons[2].folder, "h3", &config("10.77.0.33", NEAR, ""));
        daemons[2].child = Daemon::spawn(&plant.hosts[2], &daemons[2].folder);
        daemons[2].wait_until_it_listens();
        daemons[0].wait_for_found(&["h2", "h3"]);
        daemons[1].wait_for_found(&["h1", "h3"]);
        daemons[2].wait_for_found(&["h1", "h2"]);
        cross(&all[0].0, &[&all[1].1, &all[2].1], b"with the third again");
    }

    #[test]
    fn a_host_outside_is_refused_and_shown_and_noise_changes_nothing() {
        let Some(mut plant) = Plant::new() else { return };
        let mut start = |name: &str, address: &str, allow: &str| {
            let at = plant.add(address);
            // The one that the first does not hear has to know somebody else.
            let rest = config(address, allow, "").replace("10.77.0.99", "10.77.0.2");
            Daemon::start(&plant.hosts[at], name, &rest)
        };
        let strict = start("strict", "10.77.0.1", NEAR);
        let lenient = start("lenient", "10.77.0.2", ALL);
        let outside = start("outside", "10.77.1.1", ALL);
        strict.wait_for_found(&["lenient"]);
        // The one knows both, and tells each of the other.
        lenient.wait_for_found(&["outside", "strict"]);
        let refused =
            |what: &dyn Fn(&insane_wire::status::RefusedStatus) -> bool| strict.discovery().refused.iter().any(what);
        wait_for("what comes from there is refused", || {
            refused(&|refused| {
                refused.reason == "outside" && refused.from == "10.77.1.1:7100" && refused.name.is_empty()
            })
        });
        wait_for("what others tell of it is refused", || {
            refused(&|refused| refused.reason == "outside" && refused.name == "outside")
        });
        assert!(strict.log().contains("a host is refused"), "{}", strict.log());
        assert!(strict.discovery().counters["datagrams_outside"] > 0);
        assert!(strict.discovery().counters["refused_outside"] > 0);
        strict.wait_for_found(&["lenient"]);

        let noise = plant.stranger();
        let (one, other) = (strict.session(), lenient.session());
        let (source, sink) = (ends(&one).0, ends(&other).1);
        source.wait_for_receivers(PATIENCE).unwrap();
        let before = strict.discovery().counters;
        for round in 0..3000_u32 {
            let len = (round * 37 % 1400) as usize;
            let mut bytes: Vec<u8> = (0..len).map(|at| (at as u32 * 167 + round * 31) as u8).collect();
            // Some look like gossip at first sight.
            if round % 3 == 0 {
                bytes.splice(0..len.min(4), [0x53, 0xb0, 0, (round % 5) as u8].into_iter().take(len.min(4)));
            }
            let _ = noise.send_to(&bytes, "10.77.0.1:7100");
            if round % 100 == 0 {
                cross(&source, &[&sink], &round.to_le_bytes());
            }
        }
        wait_for("it is counted", || {
            strict.discovery().counters["datagrams_malformed"] > before["datagrams_malformed"] + 1000
        });
        strict.wait_for_found(&["lenient"]);
        let counters = strict.discovery().counters;
        assert_eq!((counters["peers_added"], counters["peers_removed"], counters["restarts"]), (1, 0, 0));
        cross(&source, &[&sink], b"as before");
        assert!(outside.up().iter().all(|(name, _)| name != "strict"), "both have to agree");

        // Wider rules, while it runs.
        write(&strict.folder, "strict", &config("10.77.0.1", ALL, ""));
        let reload = |daemon: &Daemon| {
            let pid = nix::unistd::Pid::from_raw(daemon.child.id().cast_signed());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
        };
        reload(&strict);
        strict.wait_for_found(&["lenient", "outside"]);
        cross(&source, &[&sink], b"and after");

        // A file that names the peer takes it over from discovery, and gives it back.
        let fixed = "(name: \"lenient\", links: {\"net\": \"10.77.0.2:7400\"})";
        write(&strict.folder, "strict", &config("10.77.0.1", ALL, fixed));
        reload(&strict);
        let of = |name: &str| strict.up().into_iter().find(|(other, _)| other == name).map(|(_, source)| source);
        wait_for("it is of the configuration", || of("lenient").as_deref() == Some("configuration"));
        assert_eq!(strict.status().peers.len(), 2);
        wait_for("what is told of it is refused", || strict.discovery().counters["refused_configured"] > 1);
        cross(&source, &[&sink], b"by the configuration");
        write(&strict.folder, "strict", &config("10.77.0.1", ALL, ""));
        reload(&strict);
        strict.wait_for_found(&["lenient", "outside"]);
        cross(&source, &[&sink], b"by discovery again");

        // Where it listens is made at start.
        write(&strict.folder, "strict", &config("10.77.0.1", ALL, "").replace(":7100\", cl", ":7111\", cl"));
        reload(&strict);
        wait_for("it says so", || {
            strict.log().contains("discovery.gossip.bind cannot change online: it needs a restart")
        });
    }

    #[test]
    fn gossip_that_fails_costs_no_peer_that_answers() {
        let Some(mut plant) = Plant::new() else { return };
        let start = |plant: &mut Plant, name: &str, address: &str, gossip: &str| {
            let at = plant.add(address);
            assert!(address == gossip || plant.hosts[at].ip(&format!("addr add {gossip}/16 dev eth0")));
            let rest =
                config(address, NEAR, "").replace(&format!("{address}:7100\", cl"), &format!("{gossip}:7100\", cl"));
            Daemon::start(&plant.hosts[at], name, &rest)
        };
        let one = start(&mut plant, "one", "10.77.0.1", "10.77.0.1");
        let mut other = start(&mut plant, "other", "10.77.0.2", "10.77.0.102");
        one.wait_for_found(&["other"]);
        other.wait_for_found(&["one"]);
        let sessions = [one.session(), other.session()];
        let [here, there] = sessions.each_ref().map(ends);
        // Its gossip has no address any more; its link has.
        assert!(plant.hosts[1].ip("addr del 10.77.0.102/16 dev eth0"));
        let facts = |daemon: &Daemon| daemon.discovery().counters["facts"];
        let mut before = facts(&one);
        // Longer than it takes to forget somebody.
        wait_for("nothing is told any more", || {
            std::thread::sleep(Duration::from_secs(8));
            let now = facts(&one);
            std::mem::replace(&mut before, now) == now
        });
        one.wait_for_found(&["other"]);
        assert_eq!(one.discovery().counters["peers_removed"], 0);
        cross(&here.0, &[&there.1], b"all the same");
        other.child.kill().unwrap();
        one.wait_for_found(&[]);
    }

    #[test]
    fn two_hosts_of_one_identifier_are_told_and_the_first_stays() {
        let Some(mut plant) = Plant::new() else { return };
        for last in 1..=3 {
            plant.add(&format!("10.77.0.{last}"));
        }
        let start =
            |at: usize, name: &str, address: &str| Daemon::start(&plant.hosts[at], name, &config(address, NEAR, ""));
        let first = start(0, "first", "10.77.0.1");
        let mut twin = start(1, "twin", "10.77.0.2");
        first.wait_for_found(&["twin"]);
        let folder = folder("twin-again");
        write(&folder, "twin", &config("10.77.0.3", NEAR, ""));
        let mut again = Daemon { child: Daemon::spawn(&plant.hosts[2], &folder), folder };
        again.wait_until_it_listens();
        wait_for("it is refused", || {
            first.discovery().refused.iter().any(|refused| {
                refused.reason == "twin_host" && refused.name == "twin" && refused.from == "10.77.0.3:7100"
            })
        });
        wait_for("they tell each other", || {
            again.discovery().counters["refused_own_host"] > 0 || twin.discovery().counters["refused_own_host"] > 0
        });
        assert_eq!(first.up(), [("twin".to_owned(), "discovery".to_owned())]);
        let link = |daemon: &Daemon| daemon.status().peers[0].incarnation;
        assert_eq!(link(&first), twin.status().host.incarnation);
        // When the first of them is gone, the other takes its place.
        twin.child.kill().unwrap();
        wait_for("the other takes its place", || {
            first.up().len() == 1 && link(&first) == again.status().host.incarnation
        });
    }
}
