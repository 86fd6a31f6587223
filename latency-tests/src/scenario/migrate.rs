//! Scenario `migrate`: a stream of 10,000 messages a second changes its link, between two hosts
//! that are joined by veth, which loses nothing.
//!
//! *Planned*: `Session::move_stream` asks for the next link every 60 ms: udp, xdp in the driver,
//! dpdk where it is to be had, tcp, and again. All are links of one datapath on one interface.
//! Nothing may be lost, repeated or reordered. A gap is the time between two messages that came
//! one after the other. The longest one is set beside that of the same stream that stays on
//! udp for as long, rounds in turns; and so is the longest within 25 ms after a move beside that
//! in the same stretches of the other run, since the longest of all is mostly the host's.
//!
//! *Unplanned*: the link in use, one of each technology, has a device to itself, which is
//! deleted: [`CUTS`] times each. What is lost is set beside what the dead link held, which had not
//! come yet, and what was emitted from then until the runtime had left it.
//!
//! Either is done again where the interfaces themselves say that they dropped frames: they join
//! the hosts without loss only while the kernel finds time to carry frames across.

use super::live::{Arrival, Director, Load, link_of, live};
use super::ours::STREAM;
use super::{Findings, values};
use crate::baseline::dpdk::DpdkEnd;
use crate::harness::Bench;
use crate::harness::fault::Fault;
use crate::harness::netns::Hosts;
use crate::harness::sample::median;
use crate::ours::plan::{self, Link, Seat};
use crate::ours::{dpdk, fault};
use insane_config::raw::XdpMode;
use insane_config::{TcpPlan, Technology, UdpPlan};
use insane_core::Nanos;
use insane_rt::{Plan, Qos};
use insane_sys::clock::mono_now;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// From one message to the next.
const PERIOD: Nanos = Nanos::from_micros(100);
/// From one move to the next: a stream is not moved again before 50 ms.
const REST: Duration = Duration::from_millis(60);
/// How long after a move a gap counts as its: receivers wait for 20 ms at most.
const AFTER: Nanos = Nanos::from_millis(25);
/// Rounds at most, and moves of each in the long form: 4,000, each way of four 1,000 times.
const ROUNDS_MAX: u32 = 20;
const MOVES: u32 = 200;
const MOVES_SMOKE: u32 = 40;
/// Devices deleted of each technology; 100 of all.
const CUTS: u32 = 25;
const CUTS_SMOKE: u32 = 1;
/// How often one run is done again whose interfaces dropped frames.
const REPEATS_MAX: u32 = 3;
/// How long the stream goes on by the link, and by the other one afterwards.
const SETTLED: Duration = Duration::from_millis(300);
const TOPOLOGY: &str = "T1 two hosts";
const PORT: u16 = 7_400;
const OTHER_PORT: u16 = 7_500;
const NAMES: [&str; 2] = ["a", "b"];

/// All rows.
pub fn run(bench: &Bench, findings: &mut Findings) {
    let hosts = match Hosts::make() {
        Ok(hosts) => hosts,
        Err(fault) => return findings.note("migrate", &fault),
    };
    if let Err(fault) = planned(bench, &hosts, findings) {
        findings.note("migrate/planned", &fault);
    }
    for victim in [Victim::Udp, Victim::Tcp, Victim::Xdp, Victim::Dpdk] {
        if let Err(fault) = unplanned(bench, &hosts, victim, findings) {
            findings.note(&format!("migrate/unplanned-{}", victim.name()), &fault);
        }
    }
}

fn dpdk_is_there(hosts: &Hosts) -> Result<(), Fault> {
    hosts.on(0, || DpdkEnd::open(dpdk::Device::PacketSocket, 0, 64, false)).map(drop)
}

fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}

fn plan(host: usize, links: &[Link<'_>]) -> Plan {
    plan::peer_by(NAMES[host], NAMES[1 - host], links, Seat::ASLEEP)
}

/// What became of the messages of one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Numbers that never came, rising.
    lost: Vec<u64>,
    duplicated: u64,
    reordered: u64,
    /// The longest time between two messages.
    gap_ns: u64,
    /// When each message came.
    came_ns: Vec<u64>,
}

impl Seen {
    /// Of the first stream, which emitted so many.
    fn of(arrivals: &[Arrival], emitted: u64) -> Self {
        let mut seen = Seen::default();
        let mut has_come = vec![false; emitted as usize];
        let mut next = 0;
        for arrival in arrivals.iter().filter(|arrival| arrival.stream == 0) {
            match has_come.get_mut(arrival.number as usize) {
                Some(known) if !*known => {
                    *known = true;
                    seen.reordered += u64::from(arrival.number < next);
                }
                _ => seen.duplicated += 1,
            }
            next = next.max(arrival.number + 1);
            seen.came_ns.push(arrival.at_ns);
        }
        seen.gap_ns = longest(&seen.came_ns);
        seen.lost = (0..).zip(&has_come).filter(|(_, came)| !**came).map(|(number, _)| number).collect();
        seen
    }

    /// The longest gaps that ended within [`AFTER`] of these instants.
    fn gaps_after(&self, marks: &[u64]) -> Vec<u64> {
        let after = |mark: &u64| {
            let place = |ns: u64| self.came_ns.partition_point(|came| *came < ns);
            // The message before the mark is one end of the first gap.
            longest(&self.came_ns[place(*mark).saturating_sub(1)..place(*mark + AFTER.0)])
        };
        marks.iter().map(after).collect()
    }
}

fn longest(came_ns: &[u64]) -> u64 {
    came_ns.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or(0)
}

/// What one run gave.
struct Trial {
    seen: Seen,
    /// When the stream was moved, or would have been.
    marks: Vec<u64>,
    emitted: u64,
}

fn planned(bench: &Bench, hosts: &Hosts, findings: &mut Findings) -> Result<(), Fault> {
    let with_dpdk = dpdk_is_there(hosts);
    if let Err(reason) = &with_dpdk {
        println!("migrate: without dpdk: {reason}");
    }
    let with_dpdk = with_dpdk.is_ok();
    let (rounds, moves) =
        if bench.effort.smoke { (1, MOVES_SMOKE) } else { (bench.effort.rounds.min(ROUNDS_MAX), MOVES) };
    let mut trials = Vec::new();
    for _ in 0..rounds {
        let trial = |is_moved| without_drops(|| stay_or_move(bench, hosts, with_dpdk, moves, is_moved));
        trials.push([trial(true)?, trial(false)?]);
    }
    let total = u64::from(rounds * moves);
    println!("migrate/planned: {total} moves by {}", path(with_dpdk).join(", "));
    let sum = |of: fn(&Seen) -> u64, side: usize| trials.iter().map(|trial| of(&trial[side].seen)).sum::<u64>() as f64;
    let n = trials.iter().map(|trial| trial[0].emitted).sum::<u64>();
    let counts: [Count<Seen>; 3] = [
        ("lost", |seen| seen.lost.len() as u64),
        ("duplicated", |seen| seen.duplicated),
        ("reordered", |seen| seen.reordered),
    ];
    for (what, of) in counts {
        let both = (sum(of, 0), sum(of, 1));
        findings.add(values(&format!("migrate/planned/{what}"), "messages", both, n, LABELS, TOPOLOGY));
    }
    add_gaps(findings, "longest-gap", total, &trials, |trial| vec![trial.seen.gap_ns]);
    add_gaps(findings, "gap-after-a-move", total, &trials, |trial| trial.seen.gaps_after(&trial.marks));
    Ok(())
}

/// What is counted, and how.
type Count<T> = (&'static str, fn(&T) -> u64);

const LABELS: [&str; 2] = ["moved", "not moved"];

/// The median over rounds of the median in a round, microseconds.
fn add_gaps(findings: &mut Findings, what: &str, n: u64, trials: &[[Trial; 2]], gaps: impl Fn(&Trial) -> Vec<u64>) {
    let of = |side: usize| {
        let round = |trial: &[Trial; 2]| median(gaps(&trial[side]).into_iter().map(|ns| ns as f64 / 1e3));
        median(trials.iter().filter_map(round)).unwrap_or(0.0)
    };
    let both = (of(0), of(1));
    findings.add(values(&format!("migrate/planned/{what}"), "us", both, n, LABELS, TOPOLOGY));
}

/// The links that a stream goes by, in turns.
fn path(with_dpdk: bool) -> Vec<&'static str> {
    let all = ["udp", "xdp", "dpdk", "tcp"];
    all.into_iter().filter(|name| with_dpdk || *name != "dpdk").collect()
}

fn plans(with_dpdk: bool) -> [Plan; 2] {
    [0, 1].map(|host| {
        let both = |addresses: [IpAddr; 2], port| [addresses[host], addresses[1 - host]].map(|one| at(one, port));
        let udp = both(Hosts::ADDRESSES, PORT);
        let tcp = both(Hosts::ADDRESSES, OTHER_PORT);
        let xdp = both(Hosts::BYPASS_ADDRESSES, PORT);
        let dpdk_at = [dpdk::ADDRESSES[host], dpdk::ADDRESSES[1 - host]];
        let mut links: Vec<Link<'_>> = vec![
            ("udp", Technology::Udp(UdpPlan::at(udp[0])), udp[1]),
            ("xdp", plan::xdp_at(Hosts::INTERFACE, XdpMode::Native, xdp[0]), xdp[1]),
            ("tcp", Technology::Tcp(TcpPlan::at(tcp[0])), tcp[1]),
        ];
        if with_dpdk {
            let device = dpdk::deep_device(host, Hosts::INTERFACE);
            links.push(("dpdk", dpdk::technology_on(&device, dpdk_at[0]), dpdk_at[1]));
        }
        plan(host, &links)
    })
}

/// A run, and how many frames the interfaces dropped in it.
type Counted<T> = Result<(T, u64), Fault>;

/// A run whose interfaces dropped nothing.
fn without_drops<T>(mut run: impl FnMut() -> Counted<T>) -> Result<T, Fault> {
    for _ in 0..=REPEATS_MAX {
        let (result, dropped) = run()?;
        if dropped == 0 {
            return Ok(result);
        }
        println!("migrate: once again: the interfaces dropped {dropped} frames, as their kernel was not run in time");
    }
    Err(Fault::Party(format!("interfaces dropped frames in each of {} runs", REPEATS_MAX + 1)))
}

fn stay_or_move(bench: &Bench, hosts: &Hosts, with_dpdk: bool, moves: u32, is_moved: bool) -> Counted<Trial> {
    let before = hosts.dropped(Hosts::INTERFACE)?;
    let path = path(with_dpdk);
    let direct = |director: &mut Director<'_>| {
        director.wait_for_links(path.len())?;
        director.open(STREAM, Qos::default())?;
        go(director, path[0])?;
        std::thread::sleep(SETTLED);
        let start_ns = mono_now().0;
        let mut marks = Vec::new();
        for to in path.iter().cycle().skip(1).take(moves as usize) {
            marks.push(mono_now().0);
            if is_moved {
                go(director, to)?;
            }
            std::thread::sleep(REST);
        }
        director.settle();
        Ok((start_ns, marks, director.emitted(0), director.losses()))
    };
    let ((start_ns, marks, emitted, counted), arrivals) =
        live(bench, hosts, plans(with_dpdk), Load::of(PERIOD, 1, REST * moves), direct)?;
    let mut seen = Seen::of(&arrivals, emitted);
    if !seen.lost.is_empty() {
        println!("migrate/planned: lost {:?}; counted: {counted}", seen.lost);
    }
    // What stood still before all this began is no gap of it.
    let first = seen.came_ns.partition_point(|came| *came < start_ns);
    seen.gap_ns = longest(&seen.came_ns[first..]);
    Ok((Trial { seen, marks, emitted }, hosts.dropped(Hosts::INTERFACE)? - before))
}

/// Moves the stream, and sees that it goes there.
fn go(director: &Director<'_>, to: &str) -> Result<(), Fault> {
    let ask = || director.sender().move_stream(STREAM, Some(to), None);
    // The policy may have moved it a moment ago.
    let moved = ask().or_else(|_| {
        std::thread::sleep(REST);
        ask()
    });
    moved.map_err(fault("move a stream"))?;
    // A link whose heartbeats were late a moment ago, because the machine stood still, is not
    // taken at once.
    director.wait_for("the link that was asked for", |status| link_of(status, STREAM).as_deref() == Some(to))
}

/// Whose device is deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Victim {
    Udp,
    Tcp,
    Xdp,
    Dpdk,
}

impl Victim {
    const fn name(self) -> &'static str {
        match self {
            Victim::Udp => "udp",
            Victim::Tcp => "tcp",
            Victim::Xdp => "xdp",
            Victim::Dpdk => "dpdk",
        }
    }

    /// The link at an interface of its own, before one of tcp, or for tcp of udp, at the other
    /// interface.
    fn plans(self) -> [Plan; 2] {
        [0, 1].map(|host| {
            let both = |addresses: [IpAddr; 2], port| [addresses[host], addresses[1 - host]].map(|one| at(one, port));
            let [own, peer] = match self {
                Victim::Udp | Victim::Tcp => both(Hosts::SECOND_ADDRESSES, PORT),
                Victim::Xdp | Victim::Dpdk => both(Hosts::SECOND_BYPASS_ADDRESSES, PORT),
            };
            let technology = match self {
                Victim::Udp => Technology::Udp(UdpPlan::at(own)),
                Victim::Tcp => Technology::Tcp(TcpPlan::at(own)),
                Victim::Xdp => plan::xdp_at(Hosts::SECOND_INTERFACE, XdpMode::Native, own),
                Victim::Dpdk => dpdk::technology_on(&dpdk::deep_device(host, Hosts::SECOND_INTERFACE), own),
            };
            let [here, there] = both(Hosts::ADDRESSES, OTHER_PORT);
            let safe = match self {
                Victim::Tcp => Technology::Udp(UdpPlan::at(here)),
                _ => Technology::Tcp(TcpPlan::at(here)),
            };
            let safe = ("safe", safe, there);
            plan(host, &[("victim", technology, peer), safe])
        })
    }
}

/// What one deleted device cost.
struct Cut {
    seen: Seen,
    /// What had come before it was deleted, and what was emitted before its link was left.
    emitted: [u64; 2],
    /// What both runtimes counted that they lost, in words.
    counted: String,
}

impl Cut {
    /// Numbers of messages that neither the link held nor were emitted before it was left.
    fn outside(&self) -> impl Iterator<Item = u64> {
        let [from, to] = self.emitted;
        self.seen.lost.iter().copied().filter(move |number| !(from..to).contains(number))
    }

    fn lost_elsewhere(&self) -> usize {
        self.outside().count()
    }
}

fn unplanned(bench: &Bench, hosts: &Hosts, victim: Victim, findings: &mut Findings) -> Result<(), Fault> {
    if victim == Victim::Dpdk {
        dpdk_is_there(hosts)?;
    }
    let count = if bench.effort.smoke { CUTS_SMOKE } else { CUTS };
    let cuts = (0..count).map(|_| without_drops(|| cut(bench, hosts, victim))).collect::<Result<Vec<_>, _>>()?;
    let name = |what: &str| format!("migrate/unplanned-{}/{what}", victim.name());
    let n = u64::from(count);
    let sum = |of: fn(&Cut) -> u64| cuts.iter().map(of).sum::<u64>() as f64;
    let both = (sum(|cut| cut.seen.lost.len() as u64), sum(|cut| cut.emitted[1] - cut.emitted[0]));
    let labels = ["lost", "held by the link, and emitted until it was left"];
    findings.add(values(&name("lost"), "messages", both, n, labels, TOPOLOGY));
    let counts: [Count<Cut>; 3] = [
        ("lost-elsewhere", |cut| cut.lost_elsewhere() as u64),
        ("duplicated", |cut| cut.seen.duplicated),
        ("reordered", |cut| cut.seen.reordered),
    ];
    for (what, of) in counts {
        findings.add(values(&name(what), "messages", (sum(of), 0.0), n, ["insane-rt", "none"], TOPOLOGY));
    }
    for cut in cuts.iter().filter(|cut| cut.lost_elsewhere() > 0) {
        let (outside, counted) = (cut.outside().collect::<Vec<_>>(), &cut.counted);
        println!("{}: outside of {:?}: {outside:?}; counted: {counted}", name("lost"), cut.emitted);
    }
    let gaps = || cuts.iter().map(|cut| cut.seen.gap_ns as f64 / 1e6);
    let both = (median(gaps()).unwrap_or(0.0), gaps().fold(0.0, f64::max));
    findings.add(values(&name("gap"), "ms", both, n, ["median", "worst"], TOPOLOGY));
    Ok(())
}

fn cut(bench: &Bench, hosts: &Hosts, victim: Victim) -> Counted<Cut> {
    hosts.join_again()?;
    let drops = || Ok::<_, Fault>([hosts.dropped(Hosts::INTERFACE)?, hosts.dropped(Hosts::SECOND_INTERFACE)?]);
    let direct = |director: &mut Director<'_>| {
        director.wait_for_links(2)?;
        // Until its peer was up, too, an interface dropped what it was to send.
        let before = drops()?;
        director.open(STREAM, Qos::default())?;
        go(director, "victim")?;
        std::thread::sleep(SETTLED);
        // A link that was silent a moment ago is returned to first.
        director.wait_for("the link to be deleted", |status| link_of(status, STREAM).as_deref() == Some("victim"))?;
        let [_, second] = drops()?;
        let start_ns = mono_now().0;
        hosts.cut()?;
        director.wait_for("another link", |status| link_of(status, STREAM).as_deref() == Some("safe"))?;
        let left = director.emitted_by_now(0)?;
        std::thread::sleep(SETTLED);
        director.settle();
        let dropped = hosts.dropped(Hosts::INTERFACE)? - before[0] + second - before[1];
        Ok((start_ns, dropped, [left, director.emitted(0)], director.losses()))
    };
    let result = live(bench, hosts, victim.plans(), Load::of(PERIOD, 1, 2 * SETTLED), direct);
    if result.is_err() {
        // The next one makes it anew; it may be gone.
        let _ = hosts.cut();
    }
    let ((start_ns, dropped, [left, all], counted), arrivals) = result?;
    let emitted = [come_before(start_ns, &arrivals), left];
    let mut seen = Seen::of(&arrivals, all);
    let first = seen.came_ns.partition_point(|came| *came < start_ns);
    seen.gap_ns = longest(&seen.came_ns[first.saturating_sub(1)..]);
    Ok((Cut { seen, emitted, counted }, dropped))
}

/// How many messages of the first stream were emitted by when the last one was that had come at
/// this instant: a later one was in the link then.
fn come_before(instant_ns: u64, arrivals: &[Arrival]) -> u64 {
    let come = arrivals.iter().filter(|arrival| arrival.stream == 0 && arrival.at_ns < instant_ns);
    come.map(|arrival| arrival.number + 1).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn came(number: u64, at_us: u64) -> Arrival {
        Arrival { stream: 0, number, emitted_ns: 0, at_ns: at_us * 1_000 }
    }

    #[test]
    fn what_is_lost_repeated_and_reordered_is_told_apart() {
        let all = [came(0, 100), came(2, 200), came(1, 350), came(2, 400), came(4, 500)];
        let seen = Seen::of(&all, 6);
        assert_eq!((seen.lost, seen.duplicated, seen.reordered), (vec![3, 5], 1, 1));
        assert_eq!(seen.gap_ns, 150_000);
        let in_order = Seen::of(&[came(0, 1), came(1, 2)], 2);
        assert_eq!((in_order.lost, in_order.duplicated, in_order.reordered), (vec![], 0, 0));
        let strange = Seen::of(&[came(7, 1)], 2);
        assert_eq!((strange.lost, strange.duplicated), (vec![0, 1], 1), "nobody emitted it");
    }

    #[test]
    fn a_run_whose_interfaces_drop_is_done_again_but_not_for_ever() {
        let mut drops = [2, 1, 0].into_iter();
        assert_eq!(without_drops(|| Ok(("run", drops.next().unwrap()))).unwrap(), "run");
        assert_eq!(drops.next(), None, "it was done three times");
        let mut runs = 0;
        let always = without_drops(|| {
            runs += 1;
            Ok(((), 1))
        });
        assert!(matches!(always, Err(Fault::Party(_))));
        assert_eq!(runs, 4);
    }

    #[test]
    fn a_gap_belongs_to_the_move_before_it() {
        let came_ns = [0, 1, 2, 10, 11, 60, 61].map(|ms| ms * 1_000_000).to_vec();
        let seen = Seen { came_ns, ..Seen::default() };
        assert_eq!(seen.gaps_after(&[3_000_000, 100_000_000]), [8_000_000, 0]);
    }

    #[test]
    fn what_had_not_come_was_in_the_dead_link() {
        let arrivals = [came(0, 100), came(2, 200), came(1, 250), came(3, 400)];
        assert_eq!([100_000, 200_001, 300_000, 400_001].map(|at| come_before(at, &arrivals)), [0, 3, 3, 4]);
    }

    #[test]
    fn a_loss_outside_of_the_dead_link_is_seen() {
        let cut =
            Cut { seen: Seen { lost: vec![4, 5, 9], ..Seen::default() }, emitted: [4, 9], counted: String::new() };
        assert_eq!(cut.lost_elsewhere(), 1);
    }
}
