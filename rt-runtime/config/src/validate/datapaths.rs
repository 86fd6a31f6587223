//! Datapaths: links, lanes, cores, and what would starve the machine.

use super::{check_name, check_names, number, quoted};
use crate::diagnostic::nearest;
use crate::machine::Machine;
use crate::plan::{
    DatapathPlan, EPSILON_QUANTILE_PPM, GATE_WINDOWS_MAX, GateWindow, GatesPlan, Idle, LinkPlan, Policy, Serves,
};
use crate::raw;
use crate::report::Report;
use insane_core::Nanos;
use insane_core::limits::{DATAPATHS_MAX, LINKS_MAX};

const LANE_RULE: &str = "one datapath with `serves: all`, or one with `real_time` and one with `best_effort`";

/// The datapaths with their links.
pub(super) fn datapaths(
    config: &raw::Config,
    links: Vec<LinkPlan>,
    machine: &Machine,
    report: &mut Report<'_>,
) -> Vec<DatapathPlan> {
    if config.datapaths.is_empty() {
        return vec![main(links, report)];
    }
    if config.datapaths.len() > DATAPATHS_MAX {
        report.error("datapaths", format!("there are {} datapaths", config.datapaths.len()));
    }
    check_names(report, "datapaths", config.datapaths.iter().map(|datapath| datapath.name.as_str()));
    let owned = distribute(config, links, report);
    let mut plans = Vec::new();
    for (at, (raw, links)) in config.datapaths.iter().zip(owned).enumerate() {
        plans.push(DatapathPlan {
            name: raw.name.clone(),
            core: core(raw, at, machine, report),
            policy: policy(raw, at, report),
            idle: idle(raw, at, report),
            serves: serves(raw.serves),
            links,
            allows_unscheduled: raw.unscheduled == raw::Unscheduled::Allow,
            epsilon_quantile_ppm: number(
                report,
                &format!("datapaths[{at}].epsilon_quantile_ppm"),
                raw.epsilon_quantile_ppm,
            ),
            gates: raw.gates.as_ref().map(|raw| gates(raw, at, report)),
        });
    }
    check_lanes(&plans, report);
    check_gates(&plans, report);
    check_spinning(&plans, machine, report);
    check_core_sharing(&plans, machine, report);
    plans
}

/// The one datapath of a configuration that names none.
fn main(links: Vec<LinkPlan>, report: &mut Report<'_>) -> DatapathPlan {
    if links.len() > LINKS_MAX {
        let message = format!("the only datapath would have {} links, and one has at most {LINKS_MAX}", links.len());
        report.error_accepting("links", message, "fewer links, or several datapaths");
    }
    DatapathPlan {
        name: "main".into(),
        core: None,
        policy: Policy::Other,
        idle: Idle::default(),
        serves: Serves::All,
        links,
        allows_unscheduled: false,
        epsilon_quantile_ppm: EPSILON_QUANTILE_PPM,
        gates: None,
    }
}

/// Gives every link to the datapath that names it: each to exactly one.
fn distribute(config: &raw::Config, links: Vec<LinkPlan>, report: &mut Report<'_>) -> Vec<Vec<LinkPlan>> {
    let mut owners: Vec<Option<String>> = vec![None; links.len()];
    let mut owned: Vec<Vec<LinkPlan>> = vec![Vec::new(); config.datapaths.len()];
    for (at, datapath) in config.datapaths.iter().enumerate() {
        if datapath.links.len() > LINKS_MAX {
            report.error(&format!("datapaths[{at}].links"), format!("there are {} links", datapath.links.len()));
        }
        for (place, name) in datapath.links.iter().enumerate() {
            let path = format!("datapaths[{at}].links[{place}]");
            let Some(link) = links.iter().position(|link| link.name == *name) else {
                unknown_link(&path, name, &links, report);
                continue;
            };
            match &owners[link] {
                Some(first) => {
                    let message = format!("link \"{name}\" belongs to {first} already");
                    report.error_accepting(&path, message, "each link in one datapath");
                }
                None => {
                    owners[link] = Some(format!("datapaths[{at}]"));
                    owned[at].push(links[link].clone());
                }
            }
        }
    }
    for (at, link) in links.iter().enumerate().filter(|(at, _)| owners[*at].is_none()) {
        let message = format!("link \"{}\" belongs to no datapath", link.name);
        report.error_accepting(&format!("links[{at}].name"), message, "a link that one datapath has in its `links`");
    }
    owned
}

fn unknown_link(path: &str, name: &str, links: &[LinkPlan], report: &mut Report<'_>) {
    if !check_name(report, path, name) {
        return;
    }
    let names = || links.iter().map(|link| link.name.as_str());
    let near = nearest(name, names()).map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
    report.error_accepting(path, format!("there is no link \"{name}\"{near}"), quoted(names()));
}

fn core(raw: &raw::Datapath, at: usize, machine: &Machine, report: &mut Report<'_>) -> Option<u16> {
    let wanted = raw.core?;
    let path = format!("datapaths[{at}].core");
    let core = u16::try_from(wanted).ok();
    match (&machine.cores, core) {
        (Some(cores), core) if core.is_none_or(|core| !cores.contains(&core)) => {
            let accepted = format!("one of {}, or None", core_ranges(cores));
            report.error_accepting(&path, format!("this machine has no core {wanted}"), accepted);
        }
        (None, None) => report.error(&path, format!("{wanted} is not the number of a core")),
        _ => {}
    }
    core
}

/// A set of cores as people write it: `0 to 3, 8`.
pub(super) fn core_ranges(cores: &[u16]) -> String {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for core in cores {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *core => *last = *core,
            _ => ranges.push((*core, *core)),
        }
    }
    let text = |(first, last): (u16, u16)| if first == last { first.to_string() } else { format!("{first} to {last}") };
    ranges.into_iter().map(text).collect::<Vec<_>>().join(", ")
}

fn policy(raw: &raw::Datapath, at: usize, report: &mut Report<'_>) -> Policy {
    match raw.policy {
        raw::Policy::Other => Policy::Other,
        raw::Policy::Fifo(priority @ 1..=98) => Policy::Fifo(priority as u8),
        raw::Policy::Fifo(99) => {
            let message = "priority 99 belongs to the kernel's own watchdogs";
            report.error(&format!("datapaths[{at}].policy"), message);
            Policy::Other
        }
        raw::Policy::Fifo(priority) => {
            report.error(&format!("datapaths[{at}].policy"), format!("{priority} is not a priority of SCHED_FIFO"));
            Policy::Other
        }
    }
}

fn idle(raw: &raw::Datapath, at: usize, report: &mut Report<'_>) -> Idle {
    match raw.idle {
        raw::Idle::Spin => Idle::Spin,
        raw::Idle::Yield => {
            if raw.policy != raw::Policy::Other {
                let message = "a SCHED_FIFO datapath that yields lets nobody less urgent run, for ever";
                report.error_accepting(
                    &format!("datapaths[{at}].idle"),
                    message,
                    "`policy: other`, `spin_then_block(us: ...)` or `block`",
                );
            }
            Idle::Yield
        }
        raw::Idle::Block => Idle::Block,
        raw::Idle::SpinThenBlock { us } => {
            let us: u64 = number(report, &format!("datapaths[{at}].idle.us"), us);
            Idle::SpinThenBlock { spin: Nanos::from_micros(us) }
        }
    }
}

fn serves(raw: raw::Serves) -> Serves {
    match raw {
        raw::Serves::RealTime => Serves::RealTime,
        raw::Serves::BestEffort => Serves::BestEffort,
        raw::Serves::All => Serves::All,
    }
}

fn gates(raw: &raw::Gates, at: usize, report: &mut Report<'_>) -> GatesPlan {
    let path = |rest: &str| format!("datapaths[{at}].gates.{rest}");
    let cycle_us: u64 = number(report, &path("cycle_us"), raw.cycle_us);
    let base_ns: u64 = number(report, &path("base_time_ns"), raw.base_time_ns);
    // An instant that is yet to come says no more than one that was: a list shuts nothing before
    // its base.
    let base_ns = base_ns % Nanos::from_micros(cycle_us.max(1)).0;
    if !(1..=GATE_WINDOWS_MAX).contains(&raw.windows.len()) {
        report.error(&path("windows"), format!("there are {} windows", raw.windows.len()));
    }
    let mut windows = Vec::new();
    for (place, window) in raw.windows.iter().enumerate() {
        let us: u64 = number(report, &path(&format!("windows[{place}].us")), window.us);
        let mut open_lanes = 0_u8;
        for lane in &window.lanes {
            match u8::try_from(*lane).ok().and_then(insane_core::Lane::new).map(|lane| 1_u8 << lane.get()) {
                Some(bit) if open_lanes & bit == 0 => open_lanes |= bit,
                Some(_) => report.error(&path(&format!("windows[{place}].lanes")), format!("lane {lane} stands twice")),
                None => report.error(&path(&format!("windows[{place}].lanes")), format!("there is no lane {lane}")),
            }
        }
        windows.push(GateWindow { open_lanes, length: Nanos::from_micros(us) });
    }
    let plan = GatesPlan { base_ns, windows };
    let sum = plan.cycle();
    if sum != Nanos::from_micros(cycle_us) && !plan.windows.is_empty() {
        let message = format!("the windows last {sum} together, and the cycle {}", Nanos::from_micros(cycle_us));
        report.error_accepting(
            &path("windows"),
            message,
            "windows that fill the cycle, also those in which no lane sends",
        );
    }
    plan
}

/// A gate is kept by what knows how long a frame takes, and a frame must fit its window.
fn check_gates(plans: &[DatapathPlan], report: &mut Report<'_>) {
    for (at, plan) in plans.iter().enumerate() {
        let Some(gates) = &plan.gates else { continue };
        let rates: Vec<_> = plan.links.iter().filter_map(|link| link.rate.map(|rate| (link, rate))).collect();
        if rates.len() < plan.links.len() || rates.is_empty() {
            let message = "gates are kept only where the rate of each link is known";
            report.error_accepting(
                &format!("datapaths[{at}].gates"),
                message,
                "`rate_mbps` of each link of the datapath",
            );
            continue;
        }
        let frame_ns = |(link, rate): &(&LinkPlan, crate::plan::RatePlan)| {
            let bytes = u64::from(link.technology.frame_bytes_max() + link.technology.overhead_bytes());
            Nanos((bytes + u64::from(rate.foreign_bytes)) * 8_000 / u64::from(rate.mbps.max(1)) + rate.turn.0)
        };
        let needed = rates.iter().map(frame_ns).max().unwrap_or(Nanos::ZERO);
        // Nothing is scheduled in the lane of the overlay's own frames.
        let mut lanes = (0..8).filter_map(insane_core::Lane::new).filter(|lane| *lane != insane_core::Lane::CONTROL);
        // The first one is told.
        if let Some(lane) = lanes.find(|lane| plan.serves.lane(*lane) && gates.longest(*lane) < needed) {
            let message = format!(
                "lane {} may send for {} at a time, and the largest frame with turn_us and foreign_bytes takes {needed}",
                lane.get(),
                gates.longest(lane)
            );
            let accepted = "a longer window for each lane that the datapath serves, or smaller frames";
            report.error_accepting(&format!("datapaths[{at}].gates.windows"), message, accepted);
        }
    }
}

/// Every lane has exactly one datapath.
fn check_lanes(plans: &[DatapathPlan], report: &mut Report<'_>) {
    let classes = [(insane_core::Lane::new(0), "real-time"), (Some(insane_core::Lane::LAST), "best-effort")];
    let mut told = vec![false; plans.len()];
    for (lane, class) in classes {
        let Some(lane) = lane else { continue };
        let servers: Vec<usize> = (0..plans.len()).filter(|at| plans[*at].serves.lane(lane)).collect();
        match servers.split_first() {
            None => report.error_accepting("datapaths", format!("nobody serves the {class} lanes"), LANE_RULE),
            Some((first, others)) => {
                for other in others.iter().filter(|other| !std::mem::replace(&mut told[**other], true)) {
                    let message = format!("datapaths[{first}] serves the {class} lanes already");
                    report.error_accepting(&format!("datapaths[{other}].serves"), message, LANE_RULE);
                }
            }
        }
    }
}

/// A SCHED_FIFO thread that spins gives its core to nobody else, for ever.
fn check_spinning(plans: &[DatapathPlan], machine: &Machine, report: &mut Report<'_>) {
    let spins: Vec<usize> = (0..plans.len()).filter(|at| plans[*at].idle == Idle::Spin).collect();
    let is_fifo = |at: usize| matches!(plans[at].policy, Policy::Fifo(_));
    let mut starved = false;
    for (place, at) in spins.iter().copied().enumerate() {
        let shares = |other: &&usize| plans[**other].core.is_some() && plans[**other].core == plans[at].core;
        let Some(first) = spins[..place].iter().find(shares).copied() else { continue };
        let path = format!("datapaths[{at}].idle");
        let core = plans[at].core.unwrap_or_default();
        starved |= is_fifo(at) && is_fifo(first);
        let message = match is_fifo(at) && is_fifo(first) {
            true => format!(
                "two SCHED_FIFO datapaths spin on core {core}: datapaths[{first}] and this one would starve each other"
            ),
            false => format!("datapaths[{first}] spins on core {core} too: each waits milliseconds for the other"),
        };
        report.error_accepting(&path, message, "another core, `spin_then_block(us: ...)` or `block`");
    }
    let hogs: Vec<usize> = spins.into_iter().filter(|at| is_fifo(*at)).collect();
    let Some(cores) = machine.cores.as_ref().map(Vec::len) else { return };
    if let Some(last) = hogs.last().filter(|_| hogs.len() >= cores && !starved) {
        let message = match cores {
            1 => "this machine has one core, and a spinning SCHED_FIFO datapath would leave nothing to anybody else"
                .to_owned(),
            _ => format!("{} spinning SCHED_FIFO datapaths would take all {cores} cores of this machine", hogs.len()),
        };
        report.error_accepting(
            &format!("datapaths[{last}].idle"),
            message,
            "`spin_then_block(us: ...)`, `block`, or `policy: other`",
        );
    }
}

/// What helps where a spinning datapath shares its core.
const ALONE: &str = "a core of its own, or `idle: block` with the highest `fifo` priority of the core";

/// Who spins needs a core of its own; on a shared one a datapath sleeps between slots, with
/// the highest priority. Interrupts of cards are what `insane doctor` looks at.
fn check_core_sharing(plans: &[DatapathPlan], machine: &Machine, report: &mut Report<'_>) {
    let priority = |plan: &DatapathPlan| match plan.policy {
        Policy::Other => 0,
        Policy::Fifo(priority) => priority,
    };
    for (at, plan) in plans.iter().enumerate() {
        let Some(core) = plan.core else { continue };
        let path = format!("datapaths[{at}].idle");
        let spins = plan.idle == Idle::Spin;
        let others = plans.iter().enumerate().filter(|(other, plan)| *other != at && plan.core == Some(core));
        for (other, sleeper) in others.filter(|(_, other)| other.idle != Idle::Spin) {
            if spins && priority(plan) > 0 && priority(plan) >= priority(sleeper) {
                let message = format!("it spins on core {core} before datapaths[{other}], which would never run");
                report.error_accepting(&path, message, ALONE);
            } else if spins {
                let message = format!("it spins on core {core}, which datapaths[{other}] uses: each delays the other");
                report.error_accepting(&path, message, ALONE);
            } else if at < other && plan.serves != sleeper.serves {
                let (real_time, best_effort) =
                    if plan.serves == Serves::RealTime { (plan, sleeper) } else { (sleeper, plan) };
                if priority(best_effort) >= priority(real_time) {
                    let message = format!(
                        "datapaths[{other}] is on core {core}, too, and \"{}\" with the real-time lanes does not go first",
                        real_time.name
                    );
                    let remedy = "a higher `fifo` priority for the real-time lanes, or another core";
                    // Under the ordinary policy both get their share of time.
                    if priority(best_effort) > 0 {
                        report.error_accepting(&path, message, remedy);
                    } else {
                        report.warning(&path, message, remedy);
                    }
                }
            }
        }
        let is_quiet = machine.isolated.as_ref().is_none_or(|isolated| isolated.contains(&core));
        if spins && !is_quiet {
            let message = match priority(plan) {
                0 => format!("core {core} is not isolated: other threads take turns with what spins there"),
                _ => format!(
                    "core {core} is not isolated, and SCHED_FIFO that spins starves all else there, also what \
                     handles its own packets"
                ),
            };
            let accepted = "an isolated core (isolcpus) under `policy: other`, or `spin_then_block(us: ...)`";
            report.warning(&path, message, accepted);
        }
    }
}
