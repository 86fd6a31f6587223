//! Scenario `isolation`: what best effort that never ends does to a stream with slots, seen
//! behind an emulated switch; over udp, xdp and dpdk.
//!
//! Host a sends to host b through a third namespace, whose port to b sends at 100 Mbit/s and
//! has all that it cannot send yet in one queue. The error of an arrival is its instant, as the
//! kernel of b took the frame (past which xdp goes: there as the port gave the frame away), less the instant at which the slot was planned: sending and the
//! way are in it, equally with and without best effort. So what is judged is by how much its
//! quantiles grow, and the frames that come later than they would behind one more frame.
//!
//! The sender's datapath has cpu1, before all others. One thread on cpu0 is the application of
//! both hosts: it floods, emits the next timed message when the one before had its slot, turns
//! the receiver's engine, and reads the witness.
//!
//! With the feature `mutants` a third side runs with a scheduler that forgets the last frame
//! before a slot: it must miss what the others hold.

use super::jitter::{MESSAGE_BYTES, emit, is_miss, misses_of, qos};
use super::ours::{Place, STREAM, embed};
use super::{Findings, over_dpdk, timed_plugins, values};
use crate::cli::{Cli, Plugin};
use crate::harness::Bench;
use crate::harness::fault::Fault;
use crate::harness::netns::Hosts;
use crate::harness::rounds::{Heading, Rounds, Side, interleave};
use crate::harness::sample::{Sample, median};
use crate::harness::stage::{Stage, perform};
use crate::harness::watch::Idle;
use crate::harness::witness::{Seen, Witness};
use crate::ours::daemon::{Daemon, Told, Wanted};
use crate::ours::fault;
use crate::ours::plan::{self, Seat};
use insane_certificate::Certificate;
use insane_config::RatePlan;
use insane_core::Nanos;
use insane_rt::{ChannelId, Qos, Session, Sink, SinkOptions, Source, SourceOptions};
use insane_sys::clock::mono_now;
use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PERIOD: Nanos = Nanos::from_millis(1);
/// e_turn as the runtime is told of it. The queue is the datapath's alone.
const TURN: Nanos = Nanos::from_micros(30);
const RATE: RatePlan = RatePlan { mbps: 100, turn: TURN, foreign_bytes: 0, completions: false };
/// One way of a byte at the switch, nanoseconds.
const NS_PER_BYTE: u64 = 80;
/// The largest frame of best effort with all that is around it.
const FRAME_BYTES: u64 = 1_538;
/// Payload of best effort: one frame.
const BULK_BYTES: usize = 1_400;
/// Messages that do not count.
const WARM_UP: u64 = 200;
/// Most messages that the application of best effort hands over at a time.
const BULK_BURST: usize = 16;
const BULK: &str = "bulk";
/// Late frames that are told one by one.
const TOLD_MAX: usize = 30;
/// How far back is looked for what the port has not forwarded: slots and guards of some cycles
/// make up for a standstill.
const LOOK_BACK: Nanos = Nanos(8 * PERIOD.0);
const PATIENCE: Duration = Duration::from_secs(30);
const ROUNDS_MAX: u32 = 5;
/// Clients that are killed.
const KILLS: u32 = 100;
/// How long each has flooded by then.
const FLOODED: Duration = Duration::from_millis(5);

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Arrival {
    /// From the plan to its frame at the receiver, nanoseconds.
    late_ns: u64,
    /// From the plan to the sender's look after it was sent, nanoseconds.
    sent_ns: u64,
    /// How much less than usual the port had forwarded until the plan, as its time, nanoseconds.
    owed_ns: u64,
}

/// What one cell saw.
#[derive(Clone, Debug, Default)]
struct Trial {
    /// Of each message.
    arrivals: Vec<Arrival>,
    /// Messages that never came.
    lost: u64,
    told: Told,
    /// Of the link's time, best effort had this share.
    bulk_share: f64,
    /// The certificate's share of slots, and what guards may take at most beside them.
    reserved_share: f64,
    /// The share of slots alone.
    slot_share: f64,
}

/// All rows.
pub fn run(bench: &Bench, cli: &Cli, findings: &mut Findings) {
    let mut bench = *bench;
    bench.effort.rounds = bench.effort.rounds.min(ROUNDS_MAX);
    for plugin in timed_plugins("isolation", cli, findings) {
        let name = format!("isolation/{}", plugin.prefix());
        let there = Hosts::make_switched(RATE.mbps).and_then(|hosts| match plugin {
            Plugin::Dpdk => over_dpdk::is_there(&hosts).map(|()| hosts),
            _ => Ok(hosts),
        });
        match there {
            Ok(hosts) => over(&bench, findings, &name, Way { plugin, hosts: &hosts }),
            Err(fault) => findings.note(title(&name), &fault),
        }
    }
}

/// By what the messages of a trial go, and between which hosts.
#[derive(Clone, Copy)]
struct Way<'h> {
    plugin: Plugin,
    hosts: &'h Hosts,
}

impl Way<'_> {
    fn addresses(self) -> Result<[SocketAddr; 2], Fault> {
        Place::Veth(self.hosts).addresses_for(self.plugin)
    }

    fn topology(self) -> String {
        format!("two hosts, {} Mbit/s, {}", RATE.mbps, self.plugin.attaches())
    }

    /// What a driver's program takes, the receiver's kernel does not see.
    fn witness(self) -> Result<Witness, Fault> {
        match self.plugin {
            Plugin::XdpNative => self.hosts.on(Hosts::SWITCH, || Witness::of_leaving(Hosts::SWITCH_PORT)),
            _ => self.hosts.on(1, Witness::open),
        }
    }
}

fn over(bench: &Bench, findings: &mut Findings, name: &str, way: Way<'_>) {
    let trials: [RefCell<Vec<Trial>>; 3] = Default::default();
    let side = |label: &str, at: usize, flood: bool| {
        let trials = &trials;
        let cell = move || {
            guard_off(at == GUARD_OFF);
            let trial = trial(bench, way, flood);
            guard_off(false);
            let trial = trial?;
            let sample = Sample::from_ns(trial.arrivals.iter().map(|arrival| arrival.late_ns));
            trials[at].borrow_mut().push(trial);
            Ok(sample)
        };
        Side::new(label, cell)
    };
    let mut sides = vec![side("beside best effort", BESIDE, true), side("alone", ALONE, false)];
    if cfg!(feature = "mutants") {
        sides.push(side("guard off", GUARD_OFF, true));
    }
    match interleave(bench, &mut sides) {
        Err(fault) => findings.note(&format!("{name}arrivals"), &fault),
        Ok(rounds) => {
            drop(sides);
            findings.dropped += rounds.dropped;
            let heading = Heading { name: format!("{name}arrivals"), unit: "us", topology: way.topology() };
            rounds.tables(&heading, BESIDE, ALONE).into_iter().for_each(|table| findings.add(table));
            judge(findings, name, way, &rounds, BESIDE, &trials);
            if cfg!(feature = "mutants") {
                judge(findings, &format!("{name}guard-off/"), way, &rounds, GUARD_OFF, &trials);
            }
        }
    }
    match kills(bench, way) {
        Ok(told) => add_misses(findings, &format!("{name}kill/"), way, &[&told]),
        Err(fault) => findings.note(&format!("{name}kill"), &fault),
    }
}

/// Places of the sides.
const BESIDE: usize = 0;
const ALONE: usize = 1;
const GUARD_OFF: usize = 2;

/// Only a build that was asked for it has faults to turn on.
fn guard_off(_is_off: bool) {
    #[cfg(feature = "mutants")]
    insane_scheduler::turn_on(_is_off.then_some(insane_scheduler::Mutation::GuardForgetsFrame));
}

/// The rows of one side; `name` is the first part of theirs.
fn judge(
    findings: &mut Findings,
    name: &str,
    way: Way<'_>,
    rounds: &Rounds,
    side: usize,
    trials: &[RefCell<Vec<Trial>>; 3],
) {
    let topology = &way.topology();
    let n = rounds.samples(side);
    let labels = ["beside best effort", "alone"];
    if let Some(growth) = rounds.excess([side, ALONE], |q| q.p99, 1.0) {
        findings.add(values(&format!("{name}p99-growth"), "us", growth, n, labels, topology));
    }
    let usual = rounds.excess([ALONE, ALONE], |q| q.p50, 0.0).map_or(0.0, |(p50, _)| p50 * 1e3) as u64;
    let trials = trials[side].borrow();
    let frame_ns = FRAME_BYTES * NS_PER_BYTE;
    let late: Vec<Arrival> = trials
        .iter()
        .flat_map(|trial| &trial.arrivals)
        .filter(|arrival| arrival.late_ns > usual + frame_ns)
        .copied()
        .collect();
    // A sender that was itself late by more than its window was not run, and a port that owes as
    // much as the frame is late stood still: neither is the guard's doing.
    let excused = |arrival: &Arrival| {
        arrival.sent_ns > 3 * TURN.0 || arrival.owed_ns + frame_ns >= arrival.late_ns.saturating_sub(usual)
    };
    for arrival in late.iter().take(TOLD_MAX) {
        let Arrival { late_ns, sent_ns, owed_ns } = arrival;
        let us = [late_ns, sent_ns, owed_ns].map(|ns| ns / 1_000);
        println!("{}: late by {} us, sent after {} us, the port owed {} us", title(name), us[0], us[1], us[2]);
    }
    let lost = trials.iter().map(|trial| trial.lost as usize).sum::<usize>();
    if lost > 0 {
        println!("{}: {lost} messages were sent and never came", title(name));
    }
    let displaced = lost + late.iter().filter(|arrival| !excused(arrival)).count();
    // Their share is judged: a port that stood still for milliseconds owes for ten times as long,
    // so which frames are its doing cannot be told of each.
    for (what, count) in [("late-by-a-frame", lost + late.len()), ("displaced", displaced)] {
        let (labels, both) = (["these", "all"], (count as f64, n as f64));
        findings.add(values(&format!("{name}{what}"), "frames", both, n, labels, topology));
    }
    let told: Vec<&Told> = trials.iter().map(|trial| &trial.told).collect();
    add_misses(findings, name, way, &told);
    let mean = |of: fn(&Trial) -> f64| trials.iter().map(of).sum::<f64>() / trials.len().max(1) as f64;
    let (bulk, left) = (mean(|trial| trial.bulk_share), mean(|trial| 1.0 - trial.reserved_share));
    // What is neither best effort nor a slot.
    let guard = 1.0 - bulk - mean(|trial| trial.slot_share);
    let labels = ["best effort", "what slots and guards leave"];
    findings.add(values(&format!("{name}best-effort"), "of the link", (bulk, left), n, labels, topology));
    let labels = ["guards", "the whole link"];
    findings.add(values(&format!("{name}guard"), "% of the link", (guard * 100.0, 100.0), n, labels, topology));
}

/// What stands in front of a line that is told, by the first part of names of rows.
fn title(name: &str) -> &str {
    name.trim_end_matches('/')
}

/// Slots that were missed, all of them and those that cannot be the host's doing, whatever
/// their cause; and by cause.
fn add_misses(findings: &mut Findings, name: &str, way: Way<'_>, told: &[&Told]) {
    let n: u64 = told.iter().map(|told| told.count("slots_sent")).sum();
    let of = |counter: &str| told.iter().map(|told| told.count(counter)).sum::<u64>();
    let total: u64 = told.iter().map(|told| misses_of(told)).sum();
    // The thread slept beyond the slot or was not run: that may be the host's doing, or not.
    let ours = total - of("late_wake") - of("late_turn") + of("late_application");
    let mut names: Vec<&str> = told.iter().flat_map(|told| &told.counters).map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let causes: Vec<String> = names
        .into_iter()
        .filter(|name| (is_miss(name) || *name == "late_application") && of(name) > 0)
        .map(|name| format!("{name} {}", of(name)))
        .collect();
    println!("{}: {total} slots missed of {n}: {}", title(name), causes.join(", "));
    let (labels, topology) = (["insane-rt", "none"], &way.topology());
    findings.add(values(&format!("{name}missed"), "slots", (total as f64, 0.0), n, labels, topology));
    findings.add(values(&format!("{name}missed-by-us"), "slots", (ours as f64, 0.0), n, labels, topology));
}

/// The two streams from host a to host b.
struct Ends {
    source: Source,
    sink: Sink,
    bulk: Source,
    drain: Sink,
}

fn bulk_source(session: &Session) -> Result<Source, Fault> {
    let stream = session.stream(BULK, Qos::default()).map_err(fault("open a stream"))?;
    let source = stream.source(ChannelId(2), SourceOptions::default().buffers(BULK_BYTES as u32, 64));
    source.map_err(fault("open a source"))
}

fn sinks(receiver: &Session) -> Result<(Sink, Sink), Fault> {
    let options = || SinkOptions::default().depth(256);
    let timed = receiver.stream(STREAM, qos(PERIOD)).map_err(fault("open a stream"))?;
    let bulk = receiver.stream(BULK, Qos::default()).map_err(fault("open a stream"))?;
    let timed = timed.sink(ChannelId(1), options()).map_err(fault("open a sink"))?;
    Ok((timed, bulk.sink(ChannelId(2), options()).map_err(fault("open a sink"))?))
}

fn timed_source(sender: &Session) -> Result<Source, Fault> {
    let stream = sender.stream(STREAM, qos(PERIOD)).map_err(fault("open a stream"))?;
    let source = stream.source(ChannelId(1), SourceOptions::small()).map_err(fault("open a source"))?;
    source.wait_for_receivers(PATIENCE).map_err(fault("wait for a receiver"))?;
    Ok(source)
}

/// The receiving runtime, turned by the application.
fn receiver(way: Way<'_>) -> Result<Session, Fault> {
    let [here, there] = way.addresses()?;
    let plan = plan::peer(("b", there), ("a", here), Seat::ASLEEP, way.plugin);
    way.hosts.on(1, move || embed(plan, insane_rt::Hosting::Inline))
}

fn trial(bench: &Bench, way: Way<'_>, flood: bool) -> Result<Trial, Fault> {
    let count = if bench.effort.smoke { 100 } else { 1_500 };
    let [here, there] = way.addresses()?;
    let receiver = receiver(way)?;
    let witness = way.witness()?;
    let mut plan = plan::peer(("a", here), ("b", there), Seat::timed(bench.cores.other), way.plugin);
    plan::rate(&mut plan, RATE);
    let sender = way.hosts.on(0, move || embed(plan, insane_rt::Hosting::Thread))?;
    let (sink, drain) = sinks(&receiver)?;
    let bulk = bulk_source(&sender)?;
    bulk.wait_for_receivers(PATIENCE).map_err(fault("wait for a receiver"))?;
    let ends = Ends { source: timed_source(&sender)?, sink, bulk, drain };
    wait_for_slots(&sender)?;
    let certificate = certificate(&sender)?;
    let load = Load { flood, count: WARM_UP + count, port: there.port() };
    let (arrived, bulk) = converse(bench, way, &sender, ends, witness, load)?;
    let span_ns = bulk.last().map_or(0, |last| last.0 - bulk[0].0);
    let told = sender.runtime().map(Told::of).unwrap_or_default();
    let log = sender.runtime().and_then(|runtime| runtime.slot_log(0)).map(|log| log.since(0));
    let (first, slots) = log.ok_or_else(|| Fault::Party("a runtime without slots".into()))?;
    // Message n went in the n-th slot that was used.
    let arrivals = arrived.iter().filter(|(number, _)| *number >= WARM_UP).filter_map(|(number, at_ns)| {
        let slot = slots.get(usize::try_from(number.checked_sub(first)?).ok()?)?;
        let planned = slot.planned.0;
        let forwarded = bytes_between(&bulk, planned.saturating_sub(LOOK_BACK.0), planned);
        let (late_ns, sent_ns) = (at_ns.saturating_sub(planned), slot.sent.since(slot.planned).0);
        Some((Arrival { late_ns, sent_ns, owed_ns: 0 }, forwarded))
    });
    let arrivals: Vec<(Arrival, u64)> = arrivals.collect();
    let usual = median(arrivals.iter().map(|(_, forwarded)| *forwarded as f64)).unwrap_or(0.0) as u64;
    let owed = |(arrival, forwarded): &(Arrival, u64)| {
        let owed_ns = usual.saturating_sub(*forwarded) * NS_PER_BYTE;
        Arrival { owed_ns, ..*arrival }
    };
    let arrivals: Vec<Arrival> = arrivals.iter().map(owed).collect();
    let lost = count.saturating_sub(arrivals.len() as u64);
    if lost > count / 2 {
        return Err(Fault::Party(format!("{lost} of {count} messages were not seen")));
    }
    let window =
        certificate.placed.iter().flat_map(|placed| &placed.windows).map(|window| window.length_ns).sum::<u64>();
    let guard = TURN.0 + FRAME_BYTES * NS_PER_BYTE;
    Ok(Trial {
        arrivals,
        lost,
        bulk_share: (bytes_between(&bulk, 0, u64::MAX) * NS_PER_BYTE) as f64 / span_ns.max(1) as f64,
        reserved_share: (window + guard) as f64 / PERIOD.0 as f64,
        slot_share: window as f64 / PERIOD.0 as f64,
        told,
    })
}

/// Bytes of the frames that came from one instant up to before another.
fn bytes_between(frames: &[(u64, u64)], from_ns: u64, to_ns: u64) -> u64 {
    let at = |ns: u64| frames.partition_point(|(came, _)| *came < ns);
    frames[at(from_ns)..at(to_ns)].iter().map(|(_, bytes)| bytes).sum()
}

/// A slot that nobody used went by: the table is in force.
fn wait_for_slots(sender: &Session) -> Result<(), Fault> {
    let give_up = mono_now() + Nanos::from_secs(20);
    while sender.runtime().map(Told::of).unwrap_or_default().count("slots_unused") == 0 {
        if mono_now() > give_up {
            return Err(Fault::Timeout("the table of slots"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn certificate(sender: &Session) -> Result<Certificate, Fault> {
    let status = sender.runtime().and_then(insane_control::Runtime::status);
    let text = status.and_then(|status| status.datapaths.first()?.certificate.clone());
    let text = text.ok_or_else(|| Fault::Party("no certificate".into()))?;
    insane_certificate::text::read(&text).map_err(fault("read the certificate"))
}

/// Numbers and instants of the timed messages that came; instants and bytes on the wire of the
/// frames of best effort.
type Witnessed = (Vec<(u64, u64)>, Vec<(u64, u64)>);

/// What a trial sends: so many timed messages, and best effort or none, to the port after this.
#[derive(Clone, Copy)]
struct Load {
    flood: bool,
    count: u64,
    port: u16,
}

fn converse(
    bench: &Bench,
    way: Way<'_>,
    sender: &Session,
    ends: Ends,
    mut witness: Witness,
    Load { flood, count, port }: Load,
) -> Result<Witnessed, Fault> {
    let log = sender.runtime().and_then(|runtime| runtime.slot_log(0));
    let log = log.ok_or_else(|| Fault::Party("a runtime without slots".into()))?;
    let lead = move |stage: &Stage| {
        // It turns the receiver's engine.
        way.hosts.enter(1)?;
        stage.meet()?;
        let mut watch = stage.watch("a runtime with slots", Idle::Spin, PATIENCE);
        let (mut arrived, mut bulk) = (Vec::with_capacity(count as usize), Vec::with_capacity(10 * count as usize));
        let mut show = |seen: Seen<'_>| {
            if seen.port == port + 1 {
                bulk.push((seen.at_ns, seen.wire_bytes));
            } else if let Some(number) = timed(seen) {
                arrived.push((number, seen.at_ns));
            }
        };
        let (mut emitted, mut looked) = (0, mono_now());
        while log.written() < count {
            if emitted <= log.written() && emitted < count {
                emit(&ends.source, emitted)?;
                emitted += 1;
            }
            if flood {
                pour(&ends.bulk);
            }
            for sink in [&ends.sink, &ends.drain] {
                while sink.consume().map_err(fault("consume"))?.is_some() {}
            }
            if mono_now().since(looked) > PERIOD {
                looked = mono_now();
                witness.look(&mut show)?;
            }
            watch.idle()?;
        }
        // What is under way.
        std::thread::sleep(Duration::from_millis(20));
        (0..64).try_for_each(|_| witness.look(&mut show))?;
        Ok((arrived, bulk))
    };
    perform(bench.cores.app, lead, Vec::new())
}

/// The number of a timed message; `None`: the datagram is another.
fn timed(seen: Seen<'_>) -> Option<u64> {
    let message = seen.payload.get(insane_wire::data::HEADER_BYTES..)?;
    let is_ours = message.len() == MESSAGE_BYTES && message[8..].iter().all(|byte| *byte == 0);
    is_ours.then(|| u64::from_le_bytes(*message.first_chunk().unwrap_or(&[0; 8])))
}

/// Hands over as much best effort as there is room for.
fn pour(bulk: &Source) {
    for _ in 0..BULK_BURST {
        let Ok(mut buffer) = bulk.get_buffer(BULK_BYTES) else { return };
        buffer[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        if !bulk.emit(buffer).is_sent() {
            return;
        }
    }
}

/// The hidden half: a client of best effort that says when it floods, and never ends.
///
/// # Errors
/// The daemon refused.
pub fn flood(socket: &Path) -> Result<(), Fault> {
    let session = Session::attach(socket, "flood").map_err(fault("attach to the daemon"))?;
    let bulk = bulk_source(&session)?;
    bulk.wait_for_receivers(PATIENCE).map_err(fault("wait for a receiver"))?;
    pour(&bulk);
    println!("flooding");
    std::io::stdout().flush().map_err(Fault::os("tell the parent"))?;
    loop {
        pour(&bulk);
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// A daemon whose clients of best effort are killed one after the other; what became of the
/// slots.
fn kills(bench: &Bench, way: Way<'_>) -> Result<Told, Fault> {
    let [here, there] = way.addresses()?;
    let receiver = receiver(way)?;
    let (sink, drain) = sinks(&receiver)?;
    let (seat, rate, peer) = (Seat::timed(bench.cores.other), Some(RATE), Some(("b", there)));
    let (plugin, namespace) = (way.plugin, Some(way.hosts.name(0)));
    let wanted = Wanted { name: "a", bind: here, plugin, peer, seat, rate, namespace, program: None };
    let daemon = Daemon::start(&wanted)?;
    let session = daemon.attach("timed")?;
    let source = timed_source(&session)?;
    let (kills, socket) = (if bench.effort.smoke { 5 } else { KILLS }, daemon.socket());
    let is_done = AtomicBool::new(false);
    let is_done = &is_done;
    std::thread::scope(|scope| {
        let killer = scope.spawn(move || {
            let result = (0..kills).try_for_each(|_| kill_one(&socket));
            is_done.store(true, Ordering::Relaxed);
            result
        });
        let lead = move |stage: &Stage| {
            way.hosts.enter(1)?;
            stage.meet()?;
            let mut watch = stage.watch("the clients that are killed", Idle::Yield, 4 * PATIENCE);
            let (mut number, mut emitted_at) = (0, mono_now());
            emit(&source, number)?;
            while !is_done.load(Ordering::Relaxed) {
                while drain.consume().map_err(fault("consume"))?.is_some() {}
                let has_come = sink.consume().map_err(fault("consume"))?.is_some();
                // A lost one must not end it.
                if has_come || mono_now().since(emitted_at) > Nanos(8 * PERIOD.0) {
                    number += 1;
                    emitted_at = mono_now();
                    emit(&source, number)?;
                }
                watch.idle()?;
            }
            Ok(())
        };
        let result = perform(bench.cores.app, lead, Vec::new());
        is_done.store(true, Ordering::Relaxed);
        killer.join().unwrap_or_else(|_| Err(Fault::Party("the killer panicked".into()))).and(result)
    })?;
    drop(session);
    let told = daemon.finish()?;
    // None that was missed of none says nothing.
    match told.count("slots_sent") {
        0 if !bench.effort.smoke => Err(Fault::Party("no slot was used while clients were killed".into())),
        _ => Ok(told),
    }
}

fn kill_one(socket: &Path) -> Result<(), Fault> {
    let own = std::env::current_exe().map_err(Fault::os("find this program"))?;
    let mut client = Command::new(own)
        .args(["flood", "--config"])
        .arg(socket)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(Fault::os("start a client"))?;
    let mut word = String::new();
    let output = client.stdout.take().ok_or_else(|| Fault::Party("a client without output".into()))?;
    BufReader::new(output).read_line(&mut word).map_err(Fault::os("wait for a client"))?;
    std::thread::sleep(FLOODED);
    client.kill().map_err(Fault::os("kill a client"))?;
    client.wait().map_err(Fault::os("wait for a client"))?;
    if word.trim() == "flooding" { Ok(()) } else { Err(Fault::Party("a client did not come to flood".into())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_the_frames_between_two_instants() {
        let frames = [(10, 100), (20, 200), (30, 400)];
        assert_eq!(bytes_between(&frames, 0, u64::MAX), 700);
        assert_eq!(bytes_between(&frames, 10, 30), 300);
        assert_eq!(bytes_between(&frames, 31, 40), 0);
    }
}
