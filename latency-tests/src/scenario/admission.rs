//! Scenario `admission`: what it takes to find a schedule, what one more stream takes, and
//! how much of a link is reserved when no more fits.
//!
//! Four hosts, each with a link of 1 Gbit/s to a switch, and a port of the switch to each;
//! 1,000 streams from host to host. For the share, one link that is filled with random
//! streams; the limit is all of its time, which no window can exceed. The sets are the same
//! in every run, so the shares are, too.

use super::{Findings, values};
use crate::harness::Bench;
use crate::harness::clock::ticks;
use crate::harness::cores::pin;
use crate::harness::fault::Fault;
use crate::harness::sample::median;
use insane_admission::{Budget, Plan, synthesise};
use insane_certificate::{Boundary, Class, Epsilon, Hop, Host, Link, Plant, Stream};

const HOSTS: usize = 4;
const STREAMS: usize = 1_000;
const US: u64 = 1_000;
const MS: u64 = 1_000 * US;
/// Periods of the 1,000 streams.
const PLANT_PERIODS: [u64; 4] = [8 * MS, 16 * MS, 32 * MS, 64 * MS];
/// Periods of the sets that fill a link: each divides the next, or few divide another.
const SETS: [(&str, [u64; 4]); 2] =
    [("harmonic", [MS, 2 * MS, 4 * MS, 8 * MS]), ("not-harmonic", [MS, 1_500 * US, 2_500 * US, 4 * MS])];
/// The search that the control plane allows for one stream, while a session waits.
const BUDGET: Budget = Budget { jumps: 20_000, rounds: 1 };
/// Refusals that end a set: one may be of a large stream. Each takes its time, for proof and
/// offers are searched for.
const REFUSALS: usize = 30;
const LABELS: [&str; 2] = ["reserved", "all of the link's time"];

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// A plant without streams.
fn plant(hosts: usize) -> Plant {
    let epsilon = || Epsilon { quantile_ppm: 999_000, quantile_ns: 500, max_ns: 2_000, samples: 100_000 };
    let host = |at| Host { name: format!("host {at}"), clock_error_ns: 500, wake: epsilon(), turn: epsilon() };
    let link = |at: usize| Link {
        name: format!("link {at}"),
        host: (at < hosts).then_some(at),
        ps_per_byte: 8_000,
        foreign_bytes: 0,
        in_flight_bytes: 16_384,
        frame_bytes_max: 1_538,
        boundary: Boundary::Wire,
        blocked: vec![],
    };
    let (hosts, links) = ((0..hosts).map(host).collect(), (0..2 * hosts).map(link).collect());
    Plant { hosts, links, streams: vec![], chains: vec![], lanes: vec![] }
}

/// A stream of 84 to 283 bytes from one host to another.
fn stream(random: &mut Random, hosts: usize, periods: &[u64]) -> Stream {
    let period_ns = periods[random.below(periods.len() as u64) as usize];
    let (from, to) = (random.below(hosts as u64) as usize, hosts + random.below(hosts as u64) as usize);
    Stream {
        name: "stream".into(),
        class: Class::Statistical,
        period_ns,
        bytes: 84 + random.below(200) as u32,
        release_ns: 0,
        deadline_ns: period_ns,
        path: vec![Hop { link: from, delay_ns: 1_000 }, Hop { link: to, delay_ns: 500 }],
    }
}

/// All rows.
pub fn run(bench: &Bench, findings: &mut Findings) {
    for (name, result) in
        [("admission/synthesis-1000", times(bench, findings)), ("admission/used", used(bench, findings))]
    {
        if let Err(fault) = result {
            findings.note(name, &fault);
        }
    }
}

fn refused(refusal: &insane_admission::Refusal) -> Fault {
    Fault::Party(format!("the plant is refused: {refusal}"))
}

/// Synthesis, and one more stream: as it is, and as the control plane does it, on a copy and
/// with a certificate that the checker has read.
fn times(bench: &Bench, findings: &mut Findings) -> Result<(), Fault> {
    let (repeats, more) = if bench.effort.smoke { (1, 20) } else { (5, 400) };
    let measured = std::thread::scope(|scope| {
        let timed = scope.spawn(move || {
            pin(bench.cores.app)?;
            let mut random = Random(1);
            let mut whole = plant(HOSTS);
            whole.streams = (0..STREAMS).map(|_| stream(&mut random, HOSTS, &PLANT_PERIODS)).collect();
            let mut synthesis = Vec::new();
            let mut plan = None;
            for _ in 0..repeats {
                let start = ticks();
                let found = synthesise(&whole, Budget::default()).map_err(|refusal| refused(&refusal))?;
                synthesis.push(bench.rate.ns(ticks().wrapping_sub(start)));
                plan = Some(found);
            }
            let plan = plan.ok_or_else(|| Fault::Party("nothing was synthesised".into()))?;
            insane_checker::check(plan.plant(), &plan.certificate())
                .map_err(|flaw| Fault::Party(format!("the schedule does not hold: {flaw:?}")))?;
            let (mut bare, mut checked) = (Vec::new(), Vec::new());
            for _ in 0..more {
                let one = stream(&mut random, HOSTS, &PLANT_PERIODS);
                bare.push(bench.rate.ns(admit(plan.clone(), one.clone())?));
                let start = ticks();
                let mut copy = plan.clone();
                copy.admit(one, Budget::default()).map_err(|refusal| refused(&refusal))?;
                insane_checker::check(copy.plant(), &copy.certificate())
                    .map_err(|flaw| Fault::Party(format!("the schedule does not hold: {flaw:?}")))?;
                checked.push(bench.rate.ns(ticks().wrapping_sub(start)));
            }
            Ok((synthesis, bare, checked))
        });
        timed.join().unwrap_or_else(|_| Err(Fault::Party("synthesis panicked".into())))
    });
    let (synthesis, bare, checked) = measured?;
    let worst = |ns: &[f64]| ns.iter().copied().fold(0.0, f64::max) / 1e6;
    let rows = [
        ("admission/synthesis-1000", worst(&synthesis), synthesis.len()),
        ("admission/one-more", quantile(&bare, 0.99) / 1e6, bare.len()),
        ("admission/one-more/worst", worst(&bare), bare.len()),
        ("admission/one-more-checked", quantile(&checked, 0.99) / 1e6, checked.len()),
    ];
    for (name, ms, n) in rows {
        findings.add(values(name, "ms", (ms, 0.0), n as u64, ["insane-rt", "nothing"], "one thread"));
    }
    Ok(())
}

/// Ticks that one more stream takes.
fn admit(mut plan: Plan, one: Stream) -> Result<u64, Fault> {
    let start = ticks();
    let admitted = plan.admit(one, Budget::default());
    let taken = ticks().wrapping_sub(start);
    admitted.map(|_| taken).map_err(|refusal| refused(&refusal))
}

/// The least of the values that so large a share of them does not exceed.
fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(at.max(1) - 1).copied().unwrap_or(0.0)
}

/// Shares of a link that random sets reach.
fn used(bench: &Bench, findings: &mut Findings) -> Result<(), Fault> {
    let (sets, most) = if bench.effort.smoke { (1, 2) } else { (2, REFUSALS) };
    let mut refusals = Vec::new();
    for (name, periods) in SETS {
        let reached: Result<Vec<_>, _> = (1..=sets).map(|seed| fill(bench, (seed, most), &periods)).collect();
        let reached = reached?;
        let first = median(reached.iter().map(|reached| reached.first)).unwrap_or(0.0);
        let full = median(reached.iter().map(|reached| reached.full)).unwrap_or(0.0);
        refusals.extend(reached.into_iter().flat_map(|reached| reached.refusals_ns));
        let topology = "one link, random sets";
        for (what, value) in [("first-refusal", first), ("full", full)] {
            let name = format!("admission/used-{name}/{what}");
            findings.add(values(&name, "% of the link", (value * 100.0, 100.0), sets, LABELS, topology));
        }
    }
    // With the search for a proof and for offers.
    let (ms, n) = (quantile(&refusals, 0.5) / 1e6, refusals.len() as u64);
    findings.add(values("admission/refusal", "ms", (ms, 0.0), n, ["insane-rt", "nothing"], "one thread"));
    Ok(())
}

/// Of one set.
struct Reached {
    /// Share that was reserved when the first stream was refused.
    first: f64,
    /// And when all refusals were made.
    full: f64,
    /// How long the refusals took.
    refusals_ns: Vec<f64>,
}

fn fill(bench: &Bench, (seed, most): (u64, usize), periods: &[u64]) -> Result<Reached, Fault> {
    let mut random = Random(seed);
    let mut plan = synthesise(&plant(1), BUDGET).map_err(|refusal| refused(&refusal))?;
    let (mut first, mut refusals_ns) = (None, Vec::new());
    while refusals_ns.len() < most {
        let mut one = stream(&mut random, 1, periods);
        one.path.truncate(1);
        let start = ticks();
        if plan.admit(one, BUDGET).is_err() {
            refusals_ns.push(bench.rate.ns(ticks().wrapping_sub(start)));
            first = first.or_else(|| Some(share(&plan)));
        }
    }
    let certificate = plan.certificate();
    insane_checker::check(plan.plant(), &certificate)
        .map_err(|flaw| Fault::Party(format!("the schedule does not hold: {flaw:?}")))?;
    let full = share(&plan);
    Ok(Reached { first: first.unwrap_or(full), full, refusals_ns })
}

/// How much of link 0 is reserved.
fn share(plan: &Plan) -> f64 {
    let windows = plan.certificate().placed.into_iter().filter_map(|placed| placed.windows.into_iter().next());
    windows.map(|window| window.length_ns as f64 / window.period_ns as f64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bench() -> Option<Bench> {
        let bench = Bench::new(crate::harness::Effort { rounds: 1, smoke: true });
        bench.inspect_err(|fault| eprintln!("passed over: {fault}")).ok()
    }

    #[test]
    fn a_link_is_filled_to_no_more_than_all_of_it_and_the_same_each_time() {
        let Some(bench) = bench() else { return };
        let fill = || fill(&bench, (3, 1), &SETS[0].1).unwrap();
        let (one, again) = (fill(), fill());
        assert!(one.first <= one.full && one.full <= 1.0 && one.first > 0.1, "{} {}", one.first, one.full);
        assert!((one.full - again.full).abs() < f64::EPSILON);
    }

    #[test]
    fn quantiles_are_values_that_occurred() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert!((quantile(&values, 0.99) - 198.0).abs() < f64::EPSILON);
        assert!((quantile(&[7.0], 0.99) - 7.0).abs() < f64::EPSILON);
    }
}
