//! Applications that are killed in the middle of everything.

use crate::cable::{TwoHosts, Way};
use crate::roles::{BURST, PROBE, is_of_burst};
use crate::world::{Daemon, Helper, Noise, OPEN, Pair, Place, until};
use insane_rt::{
    Attachment, ChannelId, Message, Qos, Reliability, Session, SinkOptions, Source, SourceOptions, Stream,
    StreamOptions,
};
use nix::sys::signal::{Signal, kill};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const KILLS: usize = 200;
/// Victims at a time: also joined to each other.
const AT_A_TIME: usize = 8;

#[test]
fn two_hundred_killed_clients_cost_nobody_a_message_and_leak_nothing() {
    let place = Place::new("crashes");
    two_hundred_killed_clients(&mut Daemon::start(&place, OPEN, "log: (level: error)"));
}

#[test]
fn two_hundred_killed_clients_leak_nothing_over_udp() {
    two_hundred_killed_clients_beside(Way::Udp);
}

#[test]
fn two_hundred_killed_clients_leak_nothing_over_xdp() {
    two_hundred_killed_clients_beside(Way::Xdp);
}

#[test]
fn two_hundred_killed_clients_leak_nothing_over_dpdk() {
    two_hundred_killed_clients_beside(Way::Dpdk);
}

/// Another host hears what they send.
fn two_hundred_killed_clients_beside(way: Way) {
    let Some(mut hosts) = TwoHosts::start("crashes", way) else { return };
    let session = hosts.b.attach("listener");
    let sinks = ["load", "relayed"].map(|name| {
        let options = StreamOptions::default().isolated(name == "relayed");
        let stream = session.stream_with(name, Qos::default(), options).unwrap();
        stream.sink(ChannelId(1), SinkOptions::default().depth(256)).unwrap()
    });
    until("the hosts know each other", || hosts.a.status().peers[0].up && hosts.b.status().peers[0].up);
    let (heard, stop) = (&AtomicUsize::new(0), &AtomicBool::new(false));
    std::thread::scope(|scope| {
        let listener = scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                for sink in &sinks {
                    while let Some(message) = sink.consume().unwrap() {
                        // Of a victim, and whole.
                        let bytes = message.to_vec();
                        assert!(matches!(bytes.len(), 20 | 1800) && bytes.iter().all(|byte| *byte == 0));
                        heard.fetch_add(1, Ordering::Relaxed);
                    }
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        let result = catch_unwind(AssertUnwindSafe(|| two_hundred_killed_clients(&mut hosts.a)));
        stop.store(true, Ordering::Relaxed);
        listener.join().unwrap();
        result.unwrap_or_else(|panic| resume_unwind(panic));
        assert!(heard.load(Ordering::Relaxed) > 1000, "{heard:?} messages crossed");
    });
    assert!(hosts.b.is_alive());
}

fn two_hundred_killed_clients(daemon: &mut Daemon) {
    let mut pair = Pair::start(daemon, "direct,isolated");
    let (before, report) = (daemon.footprint(), daemon.status());
    let mut noise = Noise(4);
    let mut killed = 0;
    while killed < KILLS {
        let seeds: Vec<String> = (0..AT_A_TIME).map(|at| (killed + at).to_string()).collect();
        let mut victims: Vec<Helper> =
            seeds.iter().map(|seed| Helper::start("victim", daemon.socket(), &[("INSANED_SEED", seed)])).collect();
        // Most are at work, some are still attaching.
        for victim in victims.iter_mut().take(AT_A_TIME / 2) {
            victim.hear("ready");
        }
        for victim in &mut victims {
            std::thread::sleep(Duration::from_millis(noise.below(12)));
            assert!(victim.is_alive(), "it ends by being killed, not by itself");
            victim.kill();
            killed += 1;
        }
        assert!(pair.is_alive() && daemon.is_alive(), "after {killed} kills");
    }
    // The observer itself is a session, in both reports.
    until("the tables are as before", || {
        let now = daemon.status();
        let used = |report: &insane_wire::status::StatusReport| {
            let quotas = report.domains[0].quotas.iter();
            quotas.map(|(name, usage)| (name.clone(), usage.used)).collect::<Vec<_>>()
        };
        now.memory.regions == report.memory.regions
            && now.memory.used_bytes == report.memory.used_bytes
            && now.domains[0].sessions.len() == report.domains[0].sessions.len()
            && used(&now) == used(&report)
    });
    daemon.returns_to(before);
    assert!(daemon.status().domains[0].counters["messages_from_sources"] > 1000, "there was load");
    // Says that every buffer has come back, too.
    let carried = pair.finish();
    assert!(carried.iter().all(|count| *count > 1000), "{carried:?}");
}

#[test]
fn what_a_killed_client_had_emitted_still_arrives() {
    let place = Place::new("burst");
    let daemon = Daemon::start(&place, OPEN, "log: (level: error)");
    let session = daemon.attach("heir");
    let stream = session.stream_with("burst", Qos::default(), StreamOptions::default().isolated(true)).unwrap();
    let sink = stream.sink(ChannelId(1), SinkOptions::default().depth(256)).unwrap();
    let mut client = Helper::start("burst", daemon.socket(), &[]);
    client.hear("ready");
    let is_probe = |message: Message<'_>| message.to_vec() == PROBE;
    until("the way stands", || sink.consume().unwrap().is_some_and(is_probe));
    // While the daemon stands still, all of it stays in the ring.
    kill(daemon.pid(), Signal::SIGSTOP).unwrap();
    client.tell();
    client.hear("emitted");
    client.kill();
    kill(daemon.pid(), Signal::SIGCONT).unwrap();
    let mut number = 0;
    while number < BURST {
        let message = sink.consume_timeout(Duration::from_secs(20)).unwrap();
        let message = message.unwrap_or_else(|| panic!("message {number}: {:?}", daemon.status().domains[0].counters));
        assert_eq!(message.lost(), 0);
        let bytes = message.to_vec();
        if bytes != PROBE {
            assert!(is_of_burst(&bytes, number), "message {number}");
            number += 1;
        }
    }
    until("its session ends", || daemon.status().domains[0].sessions.iter().all(|row| row.name != "burst"));
    assert_eq!(daemon.status().domains[0].counters["dropped_source_closed"], 0);
}

/// When a client is killed, seen from the daemon's end and its next life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Killed {
    Before,
    Between,
    /// It stood still from before to after, and never came back.
    AfterTheOther,
    AfterBoth,
}

#[test]
fn a_client_killed_around_a_restart_of_the_daemon_leaves_its_partner_nothing() {
    const POINTS: [Killed; 4] = [Killed::Before, Killed::Between, Killed::AfterTheOther, Killed::AfterBoth];
    let place = Place::new("ghosts");
    let mut daemon = Daemon::start(&place, OPEN, "log: (level: error)");
    let regions = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains("/memfd:insane")).count()
    };
    let session = daemon.attach("partner");
    let qos = Qos { reliability: Reliability::Reliable, ..Qos::default() };
    let ports = POINTS.map(|point| {
        let stream = session.stream(&format!("{point:?}"), qos).unwrap();
        let source = stream.source(ChannelId(1), SourceOptions::default().buffers(4000, 8)).unwrap();
        (stream.sink(ChannelId(2), SinkOptions::default()).unwrap(), source)
    });
    let alone = regions();
    let mut clients = POINTS.map(|point| {
        let name = format!("{point:?}");
        let mut client = Helper::start("partner", daemon.socket(), &[("INSANED_STREAM", &name)]);
        client.hear("ready");
        client
    });
    for (sink, source) in &ports {
        until("they are joined", || source.receivers() == 1);
        until("a message comes", || sink.consume().unwrap().is_some());
    }
    let killed = |clients: &mut [Helper; 4], point: Killed| clients[point as usize].kill();
    killed(&mut clients, Killed::Before);
    let stopped = nix::unistd::Pid::from_raw(clients[Killed::AfterTheOther as usize].pid() as i32);
    kill(stopped, Signal::SIGSTOP).unwrap();
    daemon.kill();
    until("the session notices", || session.attachment() == Attachment::Detached);
    killed(&mut clients, Killed::Between);
    // What nobody takes any more fills the rings.
    for (_, source) in &ports {
        while source.receivers() > 0 && source.get_buffer(4000).is_ok_and(|buffer| source.emit(buffer).is_sent()) {}
    }
    let next = Daemon::start(&place, OPEN, "log: (level: error)");
    until("the session returns", || session.attachment() == Attachment::Attached);
    until("so does the last client", || next.status().domains[0].sessions.iter().any(|row| row.name == "client"));
    killed(&mut clients, Killed::AfterTheOther);
    killed(&mut clients, Killed::AfterBoth);
    for (point, (sink, source)) in POINTS.iter().zip(&ports) {
        until(&format!("{point:?}: the ring is let go"), || source.receivers() == 0 && source.buffers_in_use() == 0);
        while sink.consume().unwrap().is_some() {}
        assert!(source.emit(source.get_buffer(4000).unwrap()).is_sent(), "{point:?}");
    }
    // Those of the other direction, too.
    until("no mapping is left", || {
        ports.iter().for_each(|(sink, _)| assert!(sink.consume().unwrap().is_none()));
        regions() <= alone
    });
}

/// What waits for a reader that stands still.
const WAIT: u64 = 5;

/// Sends it messages of 4,000 bytes that are their number; it stands still with the first of them
/// unread.
struct BesideOneThatStands {
    client: Helper,
    pid: nix::unistd::Pid,
    source: Source,
    stream: Stream,
    session: Session,
}

impl BesideOneThatStands {
    fn new(daemon: &Daemon) -> Self {
        let session = daemon.attach("partner");
        let stream = session.stream("s", Qos::default()).unwrap();
        let source = stream.source(ChannelId(1), SourceOptions::default().buffers(4000, 8)).unwrap();
        let mut client = Helper::start("reader", daemon.socket(), &[]);
        client.hear("ready");
        until("they are joined", || source.receivers() == 1);
        let pid = nix::unistd::Pid::from_raw(client.pid() as i32);
        kill(pid, Signal::SIGSTOP).unwrap();
        let new = BesideOneThatStands { client, pid, source, stream, session };
        (0..WAIT).for_each(|number| new.emit(number));
        new
    }

    fn emit(&self, number: u64) {
        let mut buffer = self.source.get_buffer(4000).expect("a buffer is free");
        buffer.fill(number as u8);
        assert!(self.source.emit(buffer).is_sent());
    }

    fn goes_on(&self) {
        kill(self.pid, Signal::SIGCONT).unwrap();
    }
}

#[test]
fn a_client_that_stood_still_across_a_restart_reads_what_was_sent() {
    let place = Place::new("still");
    let mut daemon = Daemon::start(&place, OPEN, "log: (level: error)");
    let mut beside = BesideOneThatStands::new(&daemon);
    daemon.kill();
    until("the session notices", || beside.session.attachment() == Attachment::Detached);
    let _next = Daemon::start(&place, OPEN, "log: (level: error)");
    until("the session returns", || beside.session.attachment() == Attachment::Attached);
    until("the ring is let go", || beside.source.receivers() == 0);
    (WAIT..100).for_each(|number| beside.emit(number));
    assert_eq!(u64::from(beside.source.buffers_in_use()), WAIT);
    beside.goes_on();
    (0..WAIT).for_each(|number| _ = beside.client.hear(&format!("{number} whole")));
    until("its buffers are back", || beside.source.buffers_in_use() == 0);
    until("it is joined again", || beside.source.receivers() == 1);
    beside.emit(100);
    beside.client.hear("100 whole");
}

/// Its control socket is full of what comes and goes on its channel, so it is put out.
#[test]
fn a_client_that_stood_still_and_was_put_out_reads_nothing_of_others() {
    let place = Place::new("putout");
    let daemon = Daemon::start(&place, OPEN, "log: (level: error)");
    let mut beside = BesideOneThatStands::new(&daemon);
    until("it is put out", || {
        for _ in 0..20 {
            // Each costs it two packets that it does not take.
            drop(beside.stream.source(ChannelId(1), SourceOptions::small()));
        }
        beside.source.receivers() == 0
    });
    // All buffers are used anew.
    (WAIT..100).for_each(|number| beside.emit(number));
    assert_eq!(beside.source.buffers_in_use(), 0);
    beside.goes_on();
    // It panics if bytes of a message are not its own.
    std::thread::sleep(Duration::from_secs(1));
    assert!(beside.client.is_alive(), "it read bytes of others");
    beside.client.kill();
}
