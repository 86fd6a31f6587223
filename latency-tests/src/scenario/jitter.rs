//! Scenario `jitter`: how late a message leaves that has a planned instant. Lateness is the
//! first look at the clock after the send call returned, less the planned instant.
//!
//! Ours is a stream with slots, in each hosting, over udp on loopback and over xdp and dpdk
//! between two hosts joined by veth; the next message is emitted when the one before has arrived,
//! and so waits for its slot. The baseline is a bare loop of the same technology at the same
//! priority on the same core: `clock_nanosleep` until a learnt margin before the instant, then a
//! look at the clock again and again, then the same call with as many bytes. Both have a receiver
//! that looks without end on the other core.

use super::ours::{Place, STREAM, embed};
use super::{Findings, baselines, over_dpdk, timed_plugins, values};
use crate::baseline::udp::UdpEnd;
use crate::cli::{Cli, Hosting, Plugin};
use crate::harness::Bench;
use crate::harness::converse::End;
use crate::harness::fault::Fault;
use crate::harness::netns::Hosts;
use crate::harness::rounds::{Heading, Rounds, Side, interleave};
use crate::harness::sample::{Quantiles, Sample};
use crate::harness::stage::{Party, Stage, perform, until_stopped};
use crate::harness::watch::Idle;
use crate::ours::daemon::{Daemon, Told, Wanted};
use crate::ours::dpdk::Device;
use crate::ours::fault;
use crate::ours::plan::{self, Seat, TIMED_PRIORITY};
use insane_config::RatePlan;
use insane_core::{MonoTime, Nanos};
use insane_engine::margin::Margin;
use insane_rt::{
    ChannelId, Consumption, Determinism, LatePolicy, Plan, Priority, Qos, Session, Sink, SinkOptions, Source,
    SourceOptions,
};
use insane_sys::SharedBytes;
use insane_sys::clock::{mono_now, sleep_until};
use insane_sys::thread::{SchedPolicy, set_policy_current};
use insane_sys::udp::{SendOutcome, send};
use std::cell::RefCell;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

/// Payload, bytes.
pub const MESSAGE_BYTES: usize = 64;
/// What the runtime puts before it: the baseline sends as much.
const HEAD: [u8; insane_wire::data::HEADER_BYTES] = [0; insane_wire::data::HEADER_BYTES];
/// The link, as the runtime is told of it.
const RATE: RatePlan = RatePlan { mbps: 1_000, turn: Nanos::from_micros(50), foreign_bytes: 1_538, completions: false };
/// Slots before those that count: the margin is learnt from 100 on.
const WARM_UP: usize = 200;
const PATIENCE: Duration = Duration::from_secs(30);
/// Rounds at most: these cells are long.
const ROUNDS_MAX: u32 = 5;
/// The periods.
const PERIODS: [(&str, Nanos); 2] = [("1ms", Nanos::from_millis(1)), ("250us", Nanos::from_micros(250))];

/// Where in its period a message leaves, for both sides: away from whole milliseconds, at which
/// the kernel's tick comes (at 250 Hz every fourth, and takes 16 us there).
const fn offset(period: Nanos) -> Nanos {
    Nanos(period.0 * 3 / 8)
}

/// How many slots a cell counts.
#[derive(Clone, Copy)]
struct Beat {
    period: Nanos,
    count: usize,
}

/// Slots that were not used, by cause.
type Misses = RefCell<Vec<(String, u64)>>;

/// By what the messages of a cell go, and where its two runtimes are.
#[derive(Clone, Copy)]
struct Way<'h> {
    plugin: Plugin,
    place: Place<'h>,
}

impl Way<'_> {
    fn topology(self) -> String {
        match self.place {
            Place::Loopback => "T1".to_owned(),
            Place::Veth(_) => format!("T1 two hosts, {}", self.plugin.attaches()),
        }
    }

    fn addresses(self) -> Result<[SocketAddr; 2], Fault> {
        self.place.addresses_for(self.plugin)
    }

    /// Where the sender is.
    fn namespace(&self) -> Option<&str> {
        match self.place {
            Place::Loopback => None,
            Place::Veth(hosts) => Some(hosts.name(0)),
        }
    }
}

/// All rows.
pub fn run(bench: &Bench, cli: &Cli, findings: &mut Findings) {
    let mut bench = *bench;
    bench.effort.rounds = bench.effort.rounds.min(ROUNDS_MAX);
    for plugin in timed_plugins("jitter", cli, findings) {
        if plugin == Plugin::Udp {
            over(&bench, cli, findings, Way { plugin, place: Place::Loopback });
            continue;
        }
        // A loopback interface is no Ethernet.
        let there = Hosts::make().and_then(|hosts| match plugin {
            Plugin::Dpdk => over_dpdk::is_there(&hosts).map(|()| hosts),
            _ => Ok(hosts),
        });
        match there {
            Ok(hosts) => over(&bench, cli, findings, Way { plugin, place: Place::Veth(&hosts) }),
            Err(fault) => findings.note(&format!("jitter/{}", plugin.prefix().trim_end_matches('/')), &fault),
        }
    }
}

fn over(bench: &Bench, cli: &Cli, findings: &mut Findings, way: Way<'_>) {
    let hostings = [Hosting::Inline, Hosting::Thread, Hosting::Daemon];
    let hostings: Vec<_> = hostings.into_iter().filter(|one| cli.hosting.is_none_or(|only| only == *one)).collect();
    for (name, period) in PERIODS {
        let name = format!("jitter/{}{name}", way.plugin.prefix());
        let count = if bench.effort.smoke { 100 } else { 1_500 };
        let beat = Beat { period, count };
        let misses: Vec<Misses> = hostings.iter().map(|_| Misses::default()).collect();
        let mut sides: Vec<Side<'_>> = vec![Side::new("bare loop", || bare(bench, way, beat))];
        for (hosting, misses) in hostings.iter().zip(&misses) {
            let program = cli.insaned.as_deref();
            // Whatever threads it starts are where the sender is.
            let cell = move || {
                let (sample, told) = way.place.on(0, || ours(bench, way, *hosting, beat, program))?;
                note_misses(&told, misses);
                Ok(sample)
            };
            sides.push(Side::new(word(*hosting), cell));
        }
        match interleave(bench, &mut sides) {
            Err(fault) => findings.note(&name, &fault),
            Ok(rounds) => {
                drop(sides);
                findings.dropped += rounds.dropped;
                for (at, (hosting, misses)) in hostings.iter().zip(&misses).enumerate() {
                    let name = format!("{name}/{}", word(*hosting));
                    add(findings, &name, &way.topology(), (&rounds, at + 1), &misses.borrow());
                }
            }
        }
    }
}

const fn word(hosting: Hosting) -> &'static str {
    match hosting {
        Hosting::Inline => "inline",
        Hosting::Thread => "thread",
        Hosting::Daemon => "daemon",
    }
}

/// Name, quantile, and the share of the baseline's that ours is held against.
type Figure = (&'static str, fn(Quantiles) -> Option<f64>, f64);

fn add(
    findings: &mut Findings,
    name: &str,
    topology: &str,
    (rounds, side): (&Rounds, usize),
    misses: &[(String, u64)],
) {
    let heading = Heading { name: name.to_owned(), unit: "us", topology: topology.to_owned() };
    rounds.tables(&heading, side, 0).into_iter().for_each(|table| findings.add(table));
    let n = rounds.samples(side);
    let labels = ["insane-rt above it", "bare loop"];
    let figures: [Figure; 2] = [("p50-above-bare", |q| q.p50, 1.0), ("p99-above-1.2-bare", |q| q.p99, 1.2)];
    for (what, read, share) in figures {
        if let Some(both) = rounds.excess([side, 0], read, share) {
            findings.add(values(&format!("{name}/{what}"), "us", both, n, labels, topology));
        }
    }
    let total: u64 = misses.iter().map(|(_, count)| count).sum();
    let causes: Vec<String> = misses.iter().map(|(cause, count)| format!("{cause} {count}")).collect();
    println!("{name}: {total} slots missed of {n}{}{}", if total > 0 { ": " } else { "" }, causes.join(", "));
    findings.add(values(&format!("{name}/missed"), "slots", (total as f64, 0.0), n, ["insane-rt", "none"], topology));
}

/// Bytes of a message of ours with what the runtime puts before it.
const BARE_BYTES: usize = HEAD.len() + MESSAGE_BYTES;

/// A socket that sends what the udp plugin does.
struct BareUdp(UdpSocket);

impl End for BareUdp {
    fn send(&mut self, _number: u64) -> Result<bool, Fault> {
        let payload = SharedBytes::from(&[0; MESSAGE_BYTES][..]);
        Ok(send(&self.0, None, &HEAD, payload) == SendOutcome::Sent)
    }

    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        Ok(None)
    }
}

fn bare(bench: &Bench, way: Way<'_>, beat: Beat) -> Result<Sample, Fault> {
    match way.place {
        Place::Loopback => {
            let [here, there] = way.addresses()?;
            let receiver = UdpEnd::open(there, here, BARE_BYTES)?;
            let sender = UdpSocket::bind(here).map_err(Fault::os("bind a UDP socket"))?;
            sender.connect(there).map_err(Fault::os("connect a UDP socket"))?;
            bare_loop(bench, beat, BareUdp(sender), receiver)
        }
        Place::Veth(hosts) if way.plugin == Plugin::Dpdk => {
            let (sender, receiver) = over_dpdk::ends(hosts, Device::PacketSocket, BARE_BYTES, false)?;
            bare_loop(bench, beat, sender, receiver)
        }
        Place::Veth(hosts) => {
            let (sender, receiver) = baselines::xdp_ends(hosts, true, BARE_BYTES, false)?;
            bare_loop(bench, beat, sender, receiver)
        }
    }
}

fn bare_loop(
    bench: &Bench,
    beat: Beat,
    mut sender: impl End + Send,
    mut receiver: impl End + Send,
) -> Result<Sample, Fault> {
    let lead = move |stage: &Stage| {
        stage.meet()?;
        be_urgent();
        let (mut margin, mut late) = (Margin::default(), Vec::with_capacity(beat.count));
        let mut planned = MonoTime(mono_now().0.next_multiple_of(beat.period.0) + offset(beat.period).0);
        for at in 0..WARM_UP + beat.count {
            let until = planned - margin.get();
            if mono_now() < until {
                sleep_until(until);
                margin.learn(mono_now().since(until));
            }
            while mono_now() < planned {
                std::hint::spin_loop();
            }
            let is_sent = sender.send(at as u64)?;
            let after = mono_now();
            if !is_sent {
                return Err(Fault::Party("a message was not sent".into()));
            }
            if at >= WARM_UP {
                late.push(after.since(planned).0);
            }
            // What was missed is left out, as slots are.
            let passed = after.since(planned).0 / beat.period.0;
            planned += Nanos((passed + 1) * beat.period.0);
        }
        Ok(Sample::from_ns(late))
    };
    let listener = Party::new(bench.cores.app, move |stage| {
        stage.meet()?;
        let mut watch = stage.watch("a sender", Idle::Spin, PATIENCE);
        loop {
            // Only that something came counts.
            let came = !matches!(receiver.receive(), Ok(None));
            if !came && let Err(ended) = watch.idle() {
                return until_stopped(ended);
            }
        }
    });
    perform(bench.cores.other, lead, vec![listener])
}

/// Before all others on this core, where that is allowed: both sides try the same.
fn be_urgent() {
    let _ = set_policy_current(SchedPolicy::Fifo(TIMED_PRIORITY));
}

/// The two ends of a stream with slots.
struct Pair {
    source: Source,
    sink: Sink,
}

pub fn qos(period: Nanos) -> Qos {
    Qos {
        determinism: Determinism::TimeSensitive {
            period,
            offset: offset(period),
            deadline: period,
            size: MESSAGE_BYTES as u32,
            late: LatePolicy::NextSlot,
        },
        priority: Priority::MAX,
        consumption: Consumption::Poll,
        ..Qos::default()
    }
}

fn pair(sender: &Session, receiver: &Session, period: Nanos) -> Result<Pair, Fault> {
    let open = |session: &Session| session.stream(STREAM, qos(period)).map_err(fault("open a stream"));
    let sink = open(receiver)?.sink(ChannelId(1), SinkOptions::default()).map_err(fault("open a sink"))?;
    let source = open(sender)?.source(ChannelId(1), SourceOptions::small()).map_err(fault("open a source"))?;
    source.wait_for_receivers(PATIENCE).map_err(fault("wait for a receiver"))?;
    Ok(Pair { source, sink })
}

fn ours(
    bench: &Bench,
    way: Way<'_>,
    hosting: Hosting,
    beat: Beat,
    program: Option<&Path>,
) -> Result<(Sample, Told), Fault> {
    let (Way { plugin, place }, [here, there]) = (way, way.addresses()?);
    let peer = |own, other, seat| plan::peer(own, other, seat, plugin);
    let seat = Seat::timed(bench.cores.other);
    let receiver = peer(("b", there), ("a", here), Seat::ASLEEP);
    let receiver = place.on(1, || embed(receiver, insane_rt::Hosting::Inline))?;
    let with_slots = || -> Plan {
        let mut plan = peer(("a", here), ("b", there), seat);
        plan::rate(&mut plan, RATE);
        plan
    };
    let told = match hosting {
        Hosting::Daemon => {
            let (peer, rate, namespace) = (Some(("b", there)), Some(RATE), way.namespace());
            let wanted = Wanted { name: "a", bind: here, plugin, peer, seat, rate, namespace, program };
            let daemon = Daemon::start(&wanted)?;
            let session = daemon.attach("sender")?;
            echo(bench, place, pair(&session, &receiver, beat.period)?, beat)?;
            daemon.finish()?
        }
        Hosting::Thread => {
            let session = embed(with_slots(), insane_rt::Hosting::Thread)?;
            echo(bench, place, pair(&session, &receiver, beat.period)?, beat)?;
            told(&session)
        }
        Hosting::Inline => {
            let session = embed(with_slots(), insane_rt::Hosting::Inline)?;
            let ends = pair(&session, &receiver, beat.period)?;
            turn_for_itself(bench, place, session.clone(), ends, beat)?;
            told(&session)
        }
    };
    let counted = told.slots.len().min(beat.count);
    let slots = &told.slots[told.slots.len() - counted..];
    // Whoever missed its slot left a period later.
    let missed = gaps(slots, beat.period).min(misses_of(&told));
    let late = slots.iter().map(|(planned, sent)| sent.saturating_sub(*planned));
    let sample = Sample::from_ns(late.chain((0..missed).map(|_| beat.period.0)));
    Ok((sample, told))
}

/// Slots between the first and the last one that were not used.
fn gaps(slots: &[(u64, u64)], period: Nanos) -> u64 {
    let between = |pair: &[(u64, u64)]| (pair[1].0.saturating_sub(pair[0].0) + period.0 / 2) / period.0;
    slots.windows(2).map(|pair| between(pair).saturating_sub(1)).sum()
}

/// Slots that went by although a message waited.
#[must_use]
pub fn misses_of(told: &Told) -> u64 {
    told.counters.iter().filter(|(name, _)| is_miss(name)).map(|(_, count)| count).sum()
}

fn told(session: &Session) -> Told {
    session.runtime().map(Told::of).unwrap_or_default()
}

/// Keeps the causes of slots that went by although a message waited.
fn note_misses(told: &Told, misses: &Misses) {
    let mut misses = misses.borrow_mut();
    for (name, count) in told.counters.iter().filter(|(name, count)| *count > 0 && is_miss(name)) {
        match misses.iter_mut().find(|(of, _)| of == name) {
            Some((_, sum)) => *sum += count,
            None => misses.push((name.clone(), *count)),
        }
    }
}

/// Whether a counter is of slots that were missed for another reason than that nobody had
/// anything to send.
#[must_use]
pub fn is_miss(counter: &str) -> bool {
    ["late_ring_full", "late_wake", "late_turn", "late_unturned", "late_link_busy", "late_unexplained"]
        .contains(&counter)
}

/// Takes each message and emits the next, until all slots were had.
fn echo(bench: &Bench, place: Place<'_>, ends: Pair, beat: Beat) -> Result<(), Fault> {
    let lead = move |stage: &Stage| {
        // It turns the receiver's engine.
        place.enter(1)?;
        stage.meet()?;
        let mut watch = stage.watch("a runtime with slots", Idle::Spin, PATIENCE);
        emit(&ends.source, 0)?;
        for at in 0..(WARM_UP + beat.count) as u64 {
            while !take(&ends.sink, at)? {
                watch.idle()?;
            }
            emit(&ends.source, at + 1)?;
        }
        Ok(())
    };
    perform(bench.cores.app, lead, Vec::new())
}

/// The sender turns its engine for itself, and sleeps until a margin before each slot.
fn turn_for_itself(bench: &Bench, place: Place<'_>, session: Session, ends: Pair, beat: Beat) -> Result<(), Fault> {
    let Pair { source, sink } = ends;
    let log = session.runtime().and_then(|runtime| runtime.slot_log(0));
    let log = log.ok_or_else(|| Fault::Party("a runtime without slots".into()))?;
    let lead = move |stage: &Stage| {
        stage.meet()?;
        be_urgent();
        let mut margin = Margin::default();
        let mut watch = stage.watch("the slots of this thread", Idle::Spin, PATIENCE);
        for at in 0..(WARM_UP + beat.count) as u64 {
            let before = log.written();
            emit(&source, at)?;
            if let Some(last) = log.since(before.saturating_sub(1)).1.last() {
                let until = last.planned + beat.period - margin.get();
                if mono_now() < until {
                    sleep_until(until);
                    margin.learn(mono_now().since(until));
                }
            }
            // The first messages go before there are slots.
            let give_up: MonoTime = mono_now() + Nanos(8 * beat.period.0);
            while log.written() == before && mono_now() < give_up {
                session.turn();
                watch.idle()?;
            }
        }
        Ok(())
    };
    let listener = Party::new(bench.cores.app, move |stage| {
        place.enter(1)?;
        stage.meet()?;
        let mut watch = stage.watch("a sender", Idle::Spin, PATIENCE);
        loop {
            match sink.consume().map_err(fault("consume"))? {
                Some(message) => message.release(),
                None => {
                    if let Err(ended) = watch.idle() {
                        return until_stopped(ended);
                    }
                }
            }
        }
    });
    perform(bench.cores.other, lead, vec![listener])
}

pub fn emit(source: &Source, number: u64) -> Result<(), Fault> {
    let mut message = [0; MESSAGE_BYTES];
    message[..8].copy_from_slice(&number.to_le_bytes());
    match source.emit_copy(&message) {
        Ok(emitted) if emitted.is_sent() => Ok(()),
        Ok(_) => Err(Fault::Party("a message was refused".into())),
        Err(error) => Err(fault("emit")(error)),
    }
}

fn take(sink: &Sink, number: u64) -> Result<bool, Fault> {
    let Some(message) = sink.consume().map_err(fault("consume"))? else { return Ok(false) };
    let mut found = [0; 8];
    message.copy_to(&mut found);
    match u64::from_le_bytes(found) {
        found if found == number => Ok(true),
        found => Err(Fault::Corrupt { expected: number, found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_that_nobody_used_are_found_between_the_others() {
        let period = Nanos::from_millis(1);
        let slots = [1_000_000, 2_000_000, 5_000_001, 6_000_000].map(|planned| (planned, planned + 9));
        assert_eq!(gaps(&slots, period), 2);
        assert_eq!(gaps(&slots[..1], period), 0);
    }

    #[test]
    fn only_slots_that_a_message_waited_for_are_misses() {
        let counters = vec![("late_wake".into(), 2), ("slots_unused".into(), 7), ("late_link_busy".into(), 1)];
        assert_eq!(misses_of(&Told { slots: Vec::new(), counters }), 3);
    }
}
