//! Scenario `displace`: premium streams come where ordinary ones have the better link.
//!
//! Two hosts are joined by udp and by xdp in the driver, links of one datapath. All streams ask
//! for the fast datapath, so all want xdp; its budget has room for some. Four ordinary streams
//! come first, then premium ones, one after the other, until the budget is theirs. Each sends
//! 2,000 messages a second. After each arrival all streams are watched for a while: by which
//! link they go, and the time from the emit to the taking.
//!
//! What premium streams are held against is the same streams without any ordinary ones; what
//! ordinary ones are, is themselves before they gave way.

use super::live::{Arrival, Director, Load, link_of, live};
use super::{Findings, values};
use crate::harness::Bench;
use crate::harness::fault::Fault;
use crate::harness::netns::Hosts;
use crate::harness::rounds::table;
use crate::harness::sample::{empty, quantiles};
use crate::ours::plan::{self, Link, Seat};
use hdrhistogram::Histogram;
use insane_config::raw::XdpMode;
use insane_config::{LinkBudget, Technology, UdpPlan};
use insane_core::Nanos;
use insane_rt::{Datapath, Plan, Priority, Qos};
use insane_sys::clock::mono_now;
use std::net::SocketAddr;
use std::time::Duration;

const PERIOD: Nanos = Nanos::from_micros(500);
const ORDINARY: usize = 4;
/// Streams that the better link has room for.
const BUDGETS: [usize; 3] = [1, 2, 4];
const ROUNDS_MAX: u32 = 3;
/// Between an arrival and the watching: a move has its end.
const SETTLED: Duration = Duration::from_millis(200);
const TOPOLOGY: &str = "T1 two hosts";
const PORT: u16 = 7_400;
const NAMES: [&str; 2] = ["a", "b"];

/// All rows.
pub fn run(bench: &Bench, findings: &mut Findings) {
    let hosts = match Hosts::make() {
        Ok(hosts) => hosts,
        Err(fault) => return findings.note("displace", &fault),
    };
    let budgets = if bench.effort.smoke { &BUDGETS[1..2] } else { &BUDGETS };
    for budget in budgets {
        if let Err(fault) = rows(bench, &hosts, *budget, findings) {
            findings.note(&format!("displace/{budget}"), &fault);
        }
    }
}

fn qos(is_premium: bool) -> Qos {
    let priority = if is_premium { Priority::MAX } else { Priority::MIN };
    Qos { datapath: Datapath::Fast, priority, ..Qos::default() }
}

fn plans(budget: usize) -> [Plan; 2] {
    [0, 1].map(|host| {
        let at = |addresses: [std::net::IpAddr; 2], of: usize| SocketAddr::new(addresses[of], PORT);
        let (udp, xdp) = (Hosts::ADDRESSES, Hosts::BYPASS_ADDRESSES);
        let links: [Link<'_>; 2] = [
            ("udp", Technology::Udp(UdpPlan::at(at(udp, host))), at(udp, 1 - host)),
            ("xdp", plan::xdp_at(Hosts::INTERFACE, XdpMode::Native, at(xdp, host)), at(xdp, 1 - host)),
        ];
        let mut plan = plan::peer_by(NAMES[host], NAMES[1 - host], &links, Seat::ASLEEP);
        plan.policy.budgets = vec![LinkBudget { link: "xdp".into(), streams: Some(budget as u32), mbps: None }];
        plan
    })
}

/// While nobody came: who went by which link.
#[derive(Clone, Debug)]
struct Phase {
    from_ns: u64,
    to_ns: u64,
    /// Of each stream, whether it went by xdp.
    by_xdp: Vec<bool>,
}

impl Phase {
    /// How long messages of some streams were under way, tenths of a nanosecond.
    fn times(&self, arrivals: &[Arrival], of: impl Fn(usize) -> bool) -> Histogram<u64> {
        let mut times = empty();
        let in_time = |ns: u64| (self.from_ns..self.to_ns).contains(&ns);
        for arrival in arrivals.iter().filter(|arrival| of(arrival.stream) && in_time(arrival.emitted_ns)) {
            times.saturating_record(10 * arrival.at_ns.saturating_sub(arrival.emitted_ns));
        }
        times
    }
}

/// One run: its phases, and what came.
struct Trial {
    phases: Vec<Phase>,
    arrivals: Vec<Arrival>,
    /// By each stream.
    emitted: Vec<u64>,
}

fn trial(bench: &Bench, hosts: &Hosts, budget: usize, ordinary: usize) -> Result<Trial, Fault> {
    let watched = Duration::from_millis(if bench.effort.smoke { 100 } else { 1_000 });
    let direct = |director: &mut Director<'_>| {
        director.wait_for_links(2)?;
        let mut names = Vec::new();
        for at in 0..ordinary {
            names.push(format!("ordinary-{at}"));
            director.open(&names[at], qos(false))?;
        }
        let mut phases = Vec::new();
        if ordinary > 0 {
            phases.push(watch(director, &names, budget.min(ordinary), watched)?);
        }
        for at in 0..budget {
            names.push(format!("premium-{at}"));
            director.open(&names[ordinary + at], qos(true))?;
            let expected = if ordinary > 0 { budget } else { at + 1 };
            phases.push(watch(director, &names, expected, watched)?);
        }
        director.settle();
        let emitted: Vec<u64> = (0..names.len()).map(|stream| director.emitted(stream)).collect();
        Ok((phases, emitted, director.losses()))
    };
    let load = Load::of(PERIOD, ordinary + budget, (watched + SETTLED) * (budget + 1) as u32);
    let ((phases, emitted, losses), arrivals) = live(bench, hosts, plans(budget), load, direct)?;
    let trial = Trial { phases, arrivals, emitted };
    if trial.lost() > 0 {
        println!("displace/{budget}: counted: {losses}");
        (0..trial.emitted.len()).for_each(|stream| trial.tell_lost(budget, stream));
    }
    Ok(trial)
}

impl Trial {
    fn lost(&self) -> u64 {
        self.emitted.iter().sum::<u64>().saturating_sub(self.arrivals.len() as u64)
    }

    /// When messages of a stream were lost, after the first phase began: between two that came.
    fn tell_lost(&self, budget: usize, stream: usize) {
        let start_ns = self.phases.first().map_or(0, |phase| phase.from_ns);
        let mut before: Option<&Arrival> = None;
        for arrival in self.arrivals.iter().filter(|arrival| arrival.stream == stream) {
            let from = before.map_or(0, |before| before.number + 1);
            if arrival.number > from {
                let (lost, ms) = (arrival.number - from, arrival.emitted_ns.saturating_sub(start_ns) / 1_000_000);
                println!("displace/{budget}: stream {stream} lost {lost} before {ms} ms");
            }
            before = Some(arrival);
        }
    }
}

/// Waits until so many streams go by xdp, and the latest that came, if it is a premium one, and
/// then watches.
fn watch(director: &Director<'_>, names: &[String], expected: usize, watched: Duration) -> Result<Phase, Fault> {
    let by_xdp = |status: &insane_wire::status::StatusReport| -> Vec<bool> {
        names.iter().map(|name| link_of(status, name).as_deref() == Some("xdp")).collect()
    };
    let all_premium = |of: &[bool]| names.iter().zip(of).all(|(name, xdp)| *xdp || !name.starts_with("premium"));
    director.wait_for("xdp for as many streams as it has room for", |status| {
        let of = by_xdp(status);
        of.iter().filter(|xdp| **xdp).count() == expected && all_premium(&of)
    })?;
    std::thread::sleep(SETTLED);
    let from_ns = mono_now().0;
    std::thread::sleep(watched);
    Ok(Phase { from_ns, to_ns: mono_now().0, by_xdp: by_xdp(&director.status()?) })
}

fn rows(bench: &Bench, hosts: &Hosts, budget: usize, findings: &mut Findings) -> Result<(), Fault> {
    let rounds = if bench.effort.smoke { 1 } else { bench.effort.rounds.min(ROUNDS_MAX) };
    let mut premium = [empty(), empty()];
    let mut ordinary = [empty(), empty()];
    let (mut lost, mut emitted) = (0, 0);
    // Premium and ordinary streams by xdp, at the end and before.
    let mut by_xdp = [[0; 2]; 2];
    for _ in 0..rounds {
        let beside = trial(bench, hosts, budget, ORDINARY)?;
        let alone = trial(bench, hosts, budget, 0)?;
        let (Some(first), Some(last), Some(last_alone)) =
            (beside.phases.first(), beside.phases.last(), alone.phases.last())
        else {
            return Err(Fault::Party("a run without phases".into()));
        };
        for (at, phase) in beside.phases.iter().enumerate() {
            tell(budget, at, phase, &beside.arrivals);
        }
        let is_premium = |stream: usize| stream >= ORDINARY;
        let gave_way = |stream: usize| stream < ORDINARY && first.by_xdp[stream] && !last.by_xdp[stream];
        let [premium_beside, premium_alone] = &mut premium;
        let [ordinary_after, ordinary_before] = &mut ordinary;
        let pairs = [
            (premium_beside, last.times(&beside.arrivals, is_premium)),
            (premium_alone, last_alone.times(&alone.arrivals, |_| true)),
            (ordinary_after, last.times(&beside.arrivals, gave_way)),
            (ordinary_before, first.times(&beside.arrivals, gave_way)),
        ];
        for (sum, one) in pairs {
            sum.add(one).map_err(|error| Fault::Party(error.to_string()))?;
        }
        for (at, phase) in [last, first].into_iter().enumerate() {
            for (stream, _) in phase.by_xdp.iter().enumerate().filter(|(_, xdp)| **xdp) {
                by_xdp[usize::from(stream < ORDINARY)][at] += 1;
            }
        }
        for trial in [&beside, &alone] {
            emitted += trial.emitted.iter().sum::<u64>();
            lost += trial.lost();
        }
    }
    let name = |what: &str| format!("displace/{budget}/{what}");
    let labels = ["beside ordinary ones", "without them"];
    findings.add(table(&name("premium"), TOPOLOGY, labels, [&premium[0], &premium[1]]));
    findings.add(table(&name("ordinary"), TOPOLOGY, ["gave way", "before"], [&ordinary[0], &ordinary[1]]));
    let mean = |count: usize| count as f64 / f64::from(rounds);
    for (class, [at_end, before]) in ["premium", "ordinary"].into_iter().zip(by_xdp) {
        let both = (mean(at_end), mean(before));
        let name = name(&format!("{class}-by-xdp"));
        findings.add(values(&name, "streams", both, u64::from(rounds), ["at the end", "at first"], TOPOLOGY));
    }
    findings.add(values(&name("lost"), "messages", (lost as f64, 0.0), emitted, ["insane-rt", "none"], TOPOLOGY));
    Ok(())
}

/// A line of the table.
fn tell(budget: usize, premium: usize, phase: &Phase, arrivals: &[Arrival]) {
    let mut line = format!("displace/{budget}: {ORDINARY} ordinary, {premium} premium;");
    for (class, is_ordinary) in [("ordinary", true), ("premium", false)] {
        for (link, by_xdp) in [("xdp", true), ("udp", false)] {
            let is_it = |stream: usize| (stream < ORDINARY) == is_ordinary && phase.by_xdp.get(stream) == Some(&by_xdp);
            let count = (0..phase.by_xdp.len()).filter(|stream| is_it(*stream)).count();
            if count > 0 {
                let of = quantiles(&phase.times(arrivals, is_it));
                let us = |figure: Option<f64>| figure.map_or("-".to_owned(), |us| format!("{us:.1}"));
                line += &format!(" {count} {class} by {link}: p50 {} p99 {} us;", us(of.p50), us(of.p99));
            }
        }
    }
    println!("{}", line.trim_end_matches(';'));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_of_the_streams_and_the_phase_that_are_asked_for() {
        let came = |stream, emitted_ns, at_ns| Arrival { stream, number: 0, emitted_ns, at_ns };
        let phase = Phase { from_ns: 1_000, to_ns: 2_000, by_xdp: vec![true, false] };
        let arrivals = [came(0, 1_000, 6_000), came(1, 1_500, 1_900), came(0, 999, 5_000), came(0, 2_000, 2_100)];
        let times = phase.times(&arrivals, |stream| stream == 0);
        assert_eq!(times.len(), 1);
        assert_eq!(quantiles(&times).max.map(f64::round), Some(5.0));
    }
}
