//! A schedule of several hosts outlives its daemons: two real ones, killed and started again.

mod common;

use common::plant::{MS, PERIOD, Pair, every, slot};
use common::{Daemon, PATIENCE, Process, insane, text, wait_for};
use insane_core::limits::PEERS_MAX;
use insane_core::time::Clock;
use insane_rt::{ChannelId, Emit, Session, Sink, SinkOptions, Source, SourceOptions};
use insane_sys::clock::MonotonicClock;
use insane_wire::status::ScheduleStatus;
use std::process::Output;
use std::time::{Duration, Instant};

const CYCLE_NS: u64 = PERIOD.0;

fn schedule(host: &Daemon) -> ScheduleStatus {
    host.status().schedule.unwrap_or_default()
}

/// A message from the first host to the second, a period.
struct Axis {
    source: Source,
    sink: Sink,
    _sessions: [Session; 2],
}

impl Axis {
    fn new(pair: &Pair) -> Axis {
        let [a, b] = [0, 1].map(|at| Session::attach(pair.hosts[at].socket(), "plc").unwrap());
        let source = a.stream("axis", every(PERIOD, 64)).unwrap();
        let source = source.source(ChannelId(1), SourceOptions::default().buffers(1_024, 8)).unwrap();
        let sink = b.stream("axis", every(PERIOD, 64)).unwrap();
        let sink = sink.sink(ChannelId(1), SinkOptions::default()).unwrap();
        wait_for("they are joined", || source.receivers() == 1);
        Axis { source, sink, _sessions: [a, b] }
    }

    /// Whether a message arrives, sent until `patience` is over.
    fn arrives(&self, patience: Duration) -> bool {
        while self.sink.consume().is_ok_and(|message| message.is_some()) {}
        let start = Instant::now();
        while start.elapsed() < patience {
            if let Ok(mut buffer) = self.source.get_buffer(8) {
                buffer.copy_from_slice(&7_u64.to_le_bytes());
                let _: Emit<_> = self.source.emit(buffer);
            }
            std::thread::sleep(Duration::from_millis(10));
            if self.sink.consume().is_ok_and(|message| message.is_some()) {
                return true;
            }
        }
        false
    }
}

fn forget(hosts: &[&Daemon]) -> Output {
    let sockets: Vec<String> = hosts.iter().map(|host| host.socket().display().to_string()).collect();
    insane().args(["schedule", "forget", "--hosts", &sockets.join(",")]).output().unwrap()
}

/// Of one host alone, which is to be meant.
fn forget_alone(host: &Daemon) -> Output {
    insane().args(["schedule", "forget", "--force", "--hosts"]).arg(host.socket()).output().unwrap()
}

fn activate(pair: &Pair, certificate: &str) {
    let output = pair.activate(certificate);
    assert!(output.status.success(), "{}{}", text(&output.stderr), pair.hosts[0].log());
}

#[test]
fn a_schedule_is_in_force_again_after_a_restart_with_its_slots_phase_and_marks() {
    let Some(mut pair) = Pair::new("kepa") else { return };
    let axis = Axis::new(&pair);
    activate(&pair, &pair.certificate("kepa", 4, 100));
    let before = schedule(&pair.hosts[0]);
    assert!(!before.is_recalled && before.since_tai_ns > 0);
    let size = |host: &Daemon| {
        let monitors = host.status().datapaths.remove(0).monitors;
        monitors.into_iter().find(|monitor| monitor.assumption == "size").unwrap()
    };
    wait_for("a message that is too large is noticed", || {
        let _ = axis.source.emit(axis.source.get_buffer(1_000).unwrap());
        std::thread::sleep(Duration::from_millis(10));
        size(&pair.hosts[0]).violations > 0
    });
    let phase = |host: &Daemon| host.status().datapaths[0].slot_offset_ns.unwrap() % CYCLE_NS;
    let phase_before = phase(&pair.hosts[0]);
    // Killed, ended in order, and both at once, as when the power fails.
    for round in 0..3 {
        match round {
            0 => pair.hosts[0].kill(),
            1 => pair.hosts[0].stop(),
            _ => pair.hosts.iter_mut().for_each(Daemon::kill),
        }
        pair.hosts[0].restart();
        if round == 2 {
            pair.hosts[1].restart();
        }
        for host in &pair.hosts {
            wait_for("the schedule is in force", || {
                schedule(host).id == before.id && schedule(host).withheld.is_none()
            });
        }
        let after = schedule(&pair.hosts[0]);
        assert!(after.is_recalled);
        assert_eq!((after.since_tai_ns, after.streams), (before.since_tai_ns, before.streams));
        wait_for("the source has its slots", || slot(&pair.hosts[0], "axis").is_some());
        let planned = slot(&pair.hosts[0], "axis").unwrap();
        assert_eq!((planned.start_ns, planned.reserved), (4 * MS, true), "its slot is the schedule's");
        let off = phase(&pair.hosts[0]).abs_diff(phase_before);
        assert!(off.min(CYCLE_NS - off) < MS / 2, "the phase is the same: {off} ns");
        assert!(axis.arrives(PATIENCE), "{}", pair.hosts[0].log());
        let mark = size(&pair.hosts[0]);
        assert!(mark.violations > 0 && mark.out_of_spec_s.is_some(), "it stays out of spec: {mark:?}");
        let shown = text(&pair.hosts[0].command("status", &["--once"]).output().unwrap().stdout);
        assert!(shown.contains("taken up again after a restart"), "{shown}");
    }
    // The next schedule begins without them, and that stays so.
    activate(&pair, &pair.certificate("kepa", 5, 100));
    assert_eq!(size(&pair.hosts[0]).violations, 0);
    pair.hosts[0].kill();
    pair.hosts[0].restart();
    wait_for("the source has its slots", || slot(&pair.hosts[0], "axis").is_some_and(|slot| slot.start_ns == 5 * MS));
    assert_eq!(size(&pair.hosts[0]).violations, 0);
}

#[test]
fn what_was_damaged_or_does_not_fit_any_more_is_refused_and_nothing_is_sent_in_slots() {
    let Some(mut pair) = Pair::new("kepb") else { return };
    let axis = Axis::new(&pair);
    activate(&pair, &pair.certificate("kepb", 4, 100));
    let file = pair.hosts[0].folder.join("insaned.sock.schedule");
    let config = pair.hosts[0].folder.join("insaned.ron");
    let (whole, plain) = (std::fs::read(&file).unwrap(), std::fs::read_to_string(&config).unwrap());
    let refused = |pair: &mut Pair, words: &str| {
        pair.hosts[0].restart();
        let why = schedule(&pair.hosts[0]).withheld.expect("nothing is sent in slots");
        assert!(why.contains(words) && why.contains("insane schedule forget"), "{why}");
        assert!(schedule(&pair.hosts[0]).id.is_empty());
        let degraded = pair.hosts[0].status().degraded;
        assert!(degraded.iter().any(|reason| reason.contains(words)), "{degraded:?}");
        wait_for("the source is there again", || slot(&pair.hosts[0], "axis").is_some());
        assert!(!axis.arrives(Duration::from_millis(600)), "nothing is sent");
    };
    for bit in [3, 40 * 8, whole.len() * 4, whole.len() * 8 - 1] {
        pair.hosts[0].kill();
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&file, damaged).unwrap();
        refused(&mut pair, if bit == 3 { "does not begin as" } else { "it is damaged: its digest is wrong" });
    }
    // Another rate than the schedule assumes, and another name.
    for (from, to, words) in [
        ("rate_mbps: 100", "rate_mbps: 1000", "takes 8000 ps a byte here"),
        ("host: (name: \"kepb1\")", "host: (name: \"other\")", "it is of host \"kepb1\""),
    ] {
        pair.hosts[0].kill();
        std::fs::write(&file, &whole).unwrap();
        std::fs::write(&config, plain.replacen(from, to, 1)).unwrap();
        refused(&mut pair, words);
    }
    pair.hosts[0].kill();
    std::fs::write(&config, &plain).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    refused(&mut pair, "it is damaged");
    // As the reason says: the operator lets all hosts be under none.
    let said = forget(&[&pair.hosts[0], &pair.hosts[1]]);
    assert!(said.status.success(), "{}", text(&said.stderr));
    wait_for("slots are used", || pair.hosts.iter().all(|host| schedule(host).withheld.is_none()));
    assert!(axis.arrives(PATIENCE), "{}", pair.hosts[0].log());
    assert!(!slot(&pair.hosts[0], "axis").unwrap().reserved, "it was admitted");
    // That is kept, too.
    pair.hosts[1].kill();
    pair.hosts[1].restart();
    assert_eq!((schedule(&pair.hosts[1]).id.as_str(), schedule(&pair.hosts[1]).withheld), ("", None));
}

#[test]
fn a_host_that_missed_a_change_sends_in_no_slots_that_the_others_no_longer_have() {
    let Some(mut pair) = Pair::new("kepc") else { return };
    let axis = Axis::new(&pair);
    let first = pair.certificate("kepc", 4, 100);
    activate(&pair, &first);
    pair.hosts[0].kill();
    let alone = pair.certificate_of_second("kepc");
    let socket = pair.hosts[1].socket().display().to_string();
    let output =
        insane().args(["schedule", "activate", &alone, "--hosts", &socket, "--lead", "1000"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    pair.hosts[0].restart();
    // Clients are let in when that is known.
    let why = schedule(&pair.hosts[0]).withheld.expect("nothing is sent in slots");
    let theirs = schedule(&pair.hosts[1]).id;
    assert!(why.contains("\"kepc2\"") && why.contains(&theirs) && why.contains("insane schedule activate"), "{why}");
    wait_for("the source is there again", || slot(&pair.hosts[0], "axis").is_some());
    assert!(!axis.arrives(Duration::from_millis(600)), "nothing is sent");
    assert_eq!(pair.hosts[0].status().datapaths[0].counters["slots_sent"], 0, "nor was anything since the start");
    let shown = text(&pair.hosts[0].command("status", &["--once"]).output().unwrap().stdout);
    assert!(shown.contains("nothing is sent in slots"), "{shown}");
    assert_eq!(schedule(&pair.hosts[1]).withheld, None, "who has the later one goes on");
    // Activated again, it holds on both.
    activate(&pair, &first);
    wait_for("it holds", || pair.hosts.iter().all(|host| schedule(host).withheld.is_none()));
    assert!(axis.arrives(PATIENCE), "{}", pair.hosts[0].log());
    // A running host that is contradicted is silent, too: the other forgets what both had.
    let said = forget(&[&pair.hosts[1]]);
    assert_eq!(said.status.code(), Some(1), "a host is missing");
    assert!(text(&said.stderr).contains("is of \"kepc1\" as well"), "{}", text(&said.stderr));
    assert_ne!(schedule(&pair.hosts[1]).id, "", "nothing was forgotten");
    assert!(forget_alone(&pair.hosts[1]).status.success());
    wait_for("it is heard of", || schedule(&pair.hosts[0]).withheld.is_some_and(|why| why.contains("under none")));
    assert!(!axis.arrives(Duration::from_millis(600)), "nothing is sent");
    assert!(forget(&[&pair.hosts[0], &pair.hosts[1]]).status.success());
    wait_for("both are under none", || schedule(&pair.hosts[0]).withheld.is_none());
    assert!(axis.arrives(PATIENCE));
}

/// The schedule is of a plant whose hosts have clocks of their own, as its file says afterwards.
#[test]
fn a_kept_schedule_waits_for_the_clock_that_its_slots_are_of() {
    if MonotonicClock.pair().is_some_and(|read| read.has_offset && read.is_synchronised) {
        eprintln!("passed over: somebody disciplines the clock of this host");
        return;
    }
    let Some(mut pair) = Pair::new("kepf") else { return };
    let axis = Axis::new(&pair);
    let certificate = pair.certificate("kepf", 4, 100);
    activate(&pair, &certificate);
    let before = schedule(&pair.hosts[0]);
    pair.hosts[0].kill();
    let file = pair.hosts[0].folder.join("insaned.sock.schedule");
    let kept = std::fs::read_to_string(&file).unwrap();
    let (head, body) = kept.split_once('\n').unwrap();
    let of_a_plant = body.replacen(r#""local_clock":true"#, r#""local_clock":false"#, 1);
    assert_ne!(of_a_plant, body);
    let (mark, _) = head.rsplit_once(' ').unwrap();
    let digest = insane_certificate::text::digest(of_a_plant.as_bytes());
    std::fs::write(&file, format!("{mark} {digest:016x}\n{of_a_plant}")).unwrap();
    pair.hosts[0].restart();
    let host = &pair.hosts[0];
    let waits = || schedule(host).withheld.is_some_and(|why| why.contains("nobody disciplines the clock of this host"));
    wait_for("it waits for its clock", waits);
    wait_for("the source has its slots", || slot(host, "axis").is_some_and(|slot| slot.reserved));
    assert!(!axis.arrives(Duration::from_millis(600)), "nothing is sent by a phase of its own");
    assert_eq!(host.status().datapaths[0].counters["slots_sent"], 0, "nor was anything since the start");
    assert!(waits() && schedule(host).id == before.id, "it waits on, under the same");
    let clock = || {
        let monitors = host.status().datapaths.remove(0).monitors;
        monitors.into_iter().find(|monitor| monitor.assumption == "clock").unwrap()
    };
    wait_for("what the certificate assumes of the clock is out of spec", || clock().violations > 0);
    // An operator may say that one kernel is all that the hosts have.
    activate(&pair, &certificate);
    wait_for("it holds", || schedule(&pair.hosts[0]).withheld.is_none());
    assert!(axis.arrives(PATIENCE), "{}", pair.hosts[0].log());
}

/// All other numbers of peers are taken, so who comes has the number of who went, within a tick
/// of the control plane where both reloads are quick enough.
#[test]
fn what_a_peer_said_that_is_gone_is_not_taken_for_the_word_of_who_has_its_number() {
    let Some(pair) = Pair::new("kepe") else { return };
    let _axis = Axis::new(&pair);
    activate(&pair, &pair.certificate("kepe", 4, 100));
    let here = &pair.hosts[0];
    let file = here.folder.join("insaned.ron");
    let plain = std::fs::read_to_string(&file).unwrap();
    let peer = |name: &str, last: usize| format!(r#"(name: "{name}", links: {{"l1": "10.77.0.{last}:4000"}})"#);
    let silent: Vec<String> = (0..PEERS_MAX - 1).map(|at| peer(&format!("silent{at}"), 10 + at)).collect();
    let reload = |second: Option<usize>| {
        let peers: Vec<String> = second.map(|last| peer("kepe2", last)).into_iter().chain(silent.clone()).collect();
        let alone = format!("peers: [{}]", peer("kepe2", 2));
        assert!(plain.contains(&alone));
        std::fs::write(&file, plain.replace(&alone, &format!("peers: [{}]", peers.join(", ")))).unwrap();
        // The number may not be free yet.
        let is_done = || here.command("reload", &[]).output().unwrap().status.success();
        wait_for("the peers change", is_done);
    };
    reload(Some(2));
    // The second forgets what both had, and says so.
    assert!(forget_alone(&pair.hosts[1]).status.success());
    for round in 0..6 {
        wait_for("it is heard of", || schedule(here).withheld.is_some_and(|why| why.contains("under none")));
        reload(None);
        // A host of that name, from which nothing was ever heard.
        reload(Some(9));
        let start = Instant::now();
        while let Some(why) = schedule(here).withheld {
            assert!(start.elapsed() < Duration::from_secs(5), "round {round}: {why}");
        }
        reload(None);
        reload(Some(2));
    }
}

/// When a daemon is killed.
#[derive(Clone, Copy, Debug)]
enum When {
    Logged(&'static str),
    /// After both have committed, with a lead of 1 s: the last 500 ms are past recall.
    Committed(u64),
}

#[test]
fn killed_at_any_point_of_an_activation_hosts_come_to_agree() {
    let Some(mut pair) = Pair::new("kepd") else { return };
    let axis = Axis::new(&pair);
    activate(&pair, &pair.certificate("kepd", 2, 100));
    let points = [
        (When::Logged("word=Staged"), [false, true]),
        (When::Logged("word=Committed"), [false, true]),
        (When::Committed(300), [true, false]),
        (When::Committed(700), [false, true]),
        (When::Committed(960), [false, true]),
        (When::Committed(1_000), [true, true]),
        (When::Committed(1_040), [true, false]),
        (When::Committed(1_300), [false, true]),
        (When::Committed(700), [true, true]),
    ];
    for (round, (when, whom)) in points.into_iter().enumerate() {
        let certificate = pair.certificate("kepd", 3 + round as u64 % 3, 100);
        for host in &pair.hosts {
            std::fs::write(host.folder.join("log"), "").unwrap();
        }
        let activating = Process::spawn(&mut pair.command(&certificate, 1_000));
        let is_logged = |word: &str| pair.hosts.iter().all(|host| host.log().contains(word));
        match when {
            When::Logged(word) => wait_for("the log says it", || is_logged(word)),
            When::Committed(ms) => {
                wait_for("both have committed", || is_logged("word=Committed"));
                std::thread::sleep(Duration::from_millis(ms));
            }
        }
        let killed = || whom.iter().enumerate().filter(|(_, killed)| **killed).map(|(at, _)| at);
        killed().for_each(|at| pair.hosts[at].kill());
        killed().for_each(|at| pair.hosts[at].restart());
        let output = activating.wait();
        // An armed host that lost its coordinator's word has to be past its instant.
        wait_for("both are under the same schedule, and send", || {
            let [one, other] = [0, 1].map(|at| schedule(&pair.hosts[at]));
            let all = [&one, &other];
            one.id == other.id && all.iter().all(|one| one.withheld.is_none() && !one.is_armed && !one.id.is_empty())
        });
        let outcome = format!("{}{}", text(&output.stdout), text(&output.stderr));
        wait_for("the source has its slots", || slot(&pair.hosts[0], "axis").is_some_and(|slot| slot.reserved));
        assert!(axis.arrives(PATIENCE), "{when:?} {whom:?}: {outcome}{}", pair.hosts[0].log());
        let is_new = slot(&pair.hosts[0], "axis").unwrap().start_ns == (3 + round as u64 % 3) * MS;
        if outcome.contains("in force on no host") {
            assert!(!is_new, "{when:?} {whom:?}: {outcome}");
        }
        eprintln!(
            "{when:?} {whom:?}: {}; {}",
            if is_new { "new" } else { "old" },
            outcome.lines().next().unwrap_or("")
        );
    }
}
