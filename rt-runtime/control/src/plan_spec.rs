//! From the validated plan to what the hub is told.

use crate::launch;
use crate::links::peers_of;
use crate::memory::heap_specs;
use crate::objects::{COUNTER_LINES, SIZES};
use crate::quota::{Amounts, Quota};
use crate::runtime::Hosting;
use crate::spec::{AccessRule, DatapathSpec, DomainSpec, HubSpec, RealtimeRule, SlotLink, SlotSpec};
use crate::start::StartError;
use insane_clock::{AfterHoldover, ServoConfig};
use insane_config::plan::{GateWindow, GatesPlan};
use insane_config::{
    ClockPlan, DatapathPlan, DomainPlan, Idle, Isolation, LayoutSizes, LinkPlan, Member, Plan, Policy, RatePlan,
};
use insane_core::limits::{DATAPATHS_MAX, LINKS_MAX, PEERS_MAX};
use insane_core::{Lane, Nanos, TaiTime};
use insane_engine::SlotConfig;
use insane_scheduler::{GATE_ENTRIES_MAX, GateEntry, Gates, LinkRate, LinkTiming};
use insane_wire::control::DatapathCore;
use insane_wire::data::HEADER_BYTES;
use std::collections::BTreeSet;

/// Checks what a plan that did not come from a file may have wrong, and translates it.
pub(crate) fn hub_spec(plan: &Plan, hosting: Hosting, own_uid: u32) -> Result<HubSpec, StartError> {
    check(plan, hosting)?;
    let heaps = heap_specs(plan)?;
    let datapath = |datapath: &DatapathPlan| DatapathSpec {
        may_sleep: hosting == Hosting::Thread && datapath.idle.sleeps(),
        lanes: std::array::from_fn(|lane| Lane::new(lane as u8).is_some_and(|lane| datapath.serves.lane(lane))),
        has_links: !datapath.links.is_empty(),
        peers: peers_of(datapath),
        tx_depth: LayoutSizes::default().ring_depth as u32,
        heaps: heaps.clone(),
        slots: slot_spec(plan, datapath),
        allows_unscheduled: datapath.allows_unscheduled,
    };
    Ok(HubSpec {
        domains: plan.domains.iter().map(domain_spec).collect(),
        datapaths: plan.datapaths.iter().map(datapath).collect(),
        operators: BTreeSet::from([0, own_uid]),
        counter_lines: COUNTER_LINES,
        sizes: SIZES,
        cores: if hosting == Hosting::Thread {
            plan.datapaths.iter().filter_map(core_of).collect()
        } else {
            Vec::new()
        },
    })
}

fn core_of(plan: &DatapathPlan) -> Option<DatapathCore> {
    let priority = match plan.policy {
        Policy::Other => None,
        Policy::Fifo(priority) => Some(priority),
    };
    Some(DatapathCore { core: plan.core?, datapath: plan.name.clone(), spins: plan.idle == Idle::Spin, priority })
}

/// Bytes of the lanes that are handed over at a time, as link time: what cannot be taken
/// back when a table is staged, and what the kernel holds while the thread does not run.
const IN_FLIGHT: Nanos = Nanos::from_micros(500);
/// A change of TAI against monotonic time between two looks that the servo did not make.
const STEP: Nanos = Nanos::from_millis(1);

/// What is known of a datapath's links in time, if it is of all.
pub(crate) fn slot_spec(plan: &Plan, datapath: &DatapathPlan) -> Option<SlotSpec> {
    let rates: Option<Vec<_>> = datapath.links.iter().map(|link| link.rate.map(|rate| (link, rate))).collect();
    let rates = rates?;
    let (slowest, rate) = *rates.iter().min_by_key(|(_, rate)| rate.mbps)?;
    let most = |of: fn(&LinkPlan) -> u32| datapath.links.iter().map(of).max().unwrap_or(0);
    let overhead_bytes = most(|link| link.technology.overhead_bytes());
    let frame = most(|link| link.technology.frame_bytes_max()) + overhead_bytes;
    let least = datapath.links.iter().map(|link| link.technology.frame_bytes_max()).min().unwrap_or(0);
    let link_rate = LinkRate::from_bits_per_s(u64::from(rate.mbps) * 1_000_000)?;
    // Two frames at least, or a slow link would rest between them.
    let in_flight_bytes = u32::try_from(link_rate.bytes_in(IN_FLIGHT.0)).unwrap_or(u32::MAX).max(2 * frame);
    let timing = LinkTiming {
        rate: link_rate,
        turn_ns: rates.iter().map(|(_, rate)| rate.turn.0).max().unwrap_or(0),
        foreign_bytes: rates.iter().map(|(_, rate)| rate.foreign_bytes).max().unwrap_or(0),
        in_flight_bytes,
        lead_ns: launch::lead(datapath).0,
        step_ns: STEP.0,
    };
    let asked = rates.iter().enumerate().filter(|(_, (_, rate))| rate.completions);
    let asked_links = asked.fold(0, |asked, (at, _)| asked | 1 << at);
    Some(SlotSpec {
        host: plan.host.name.clone(),
        link: slowest.name.clone(),
        links: rates.iter().map(|(link, rate)| slot_link(link, rate)).collect::<Option<_>>()?,
        config: SlotConfig { timing, overhead_bytes, servo: servo(&plan.clock), asked_links },
        payload_bytes_max: least.saturating_sub(HEADER_BYTES as u32),
        quantile_ppm: datapath.epsilon_quantile_ppm,
        gates: datapath.gates.as_ref().and_then(gates).map(Box::new),
    })
}

fn slot_link(link: &LinkPlan, rate: &RatePlan) -> Option<SlotLink> {
    Some(SlotLink {
        name: link.name.clone(),
        ps_per_byte: LinkRate::from_bits_per_s(u64::from(rate.mbps) * 1_000_000)?.ps_per_byte(),
        foreign_bytes: rate.foreign_bytes,
        frame_bytes_max: link.technology.frame_bytes_max() + link.technology.overhead_bytes(),
    })
}

const _: () = assert!(insane_config::plan::GATE_WINDOWS_MAX == GATE_ENTRIES_MAX);

/// The gate list of a plan. `None`: it is none, which is a bug of the configuration's validation.
fn gates(plan: &GatesPlan) -> Option<Gates> {
    let entry = |window: &GateWindow| GateEntry { open_lanes: window.open_lanes, interval_ns: window.length.0 };
    let entries: Vec<GateEntry> = plan.windows.iter().map(entry).collect();
    Gates::new(TaiTime(plan.base_ns), None, 0, &entries).ok()
}

/// When the real-time lanes may not all send: slots are given in none of these windows.
pub(crate) fn shut_for_slots(gates: &Gates) -> Vec<insane_certificate::Window> {
    let windows = gates.not_all_open((1 << (Lane::LAST_REAL_TIME.get() + 1)) - 1);
    let base = gates.base().0 % gates.cycle_ns();
    let window = |shut: insane_scheduler::Recurrence| insane_certificate::Window {
        offset_ns: (base + shut.offset_ns()) % gates.cycle_ns(),
        length_ns: shut.length_ns(),
        period_ns: shut.period_ns(),
    };
    windows.map(window).collect()
}

/// How the slots follow the clock, and what they do without it.
fn servo(clock: &ClockPlan) -> ServoConfig {
    let after = match clock.after_holdover {
        insane_config::AfterHoldover::Keep => AfterHoldover::Keep,
        insane_config::AfterHoldover::FreeRun => AfterHoldover::FreeRun,
        insane_config::AfterHoldover::StopSlots => AfterHoldover::Halt,
    };
    ServoConfig {
        read_max: clock.read_max,
        holdover: clock.holdover,
        phase_error: clock.holdover_phase,
        after,
        ..ServoConfig::default()
    }
}

fn check(plan: &Plan, hosting: Hosting) -> Result<(), StartError> {
    let datapaths = plan.datapaths.len();
    let objection = if plan.domains.is_empty() {
        Some("it has no domain".to_owned())
    } else if !(1..=DATAPATHS_MAX).contains(&datapaths) {
        Some(format!("it has {datapaths} datapaths; 1 to {DATAPATHS_MAX} are possible"))
    } else if hosting == Hosting::Inline && datapaths != 1 {
        Some(format!("it has {datapaths} datapaths; inline hosting needs exactly one"))
    } else if plan.peers.len() > PEERS_MAX {
        Some(format!("it has {} peers; at most {PEERS_MAX} are possible", plan.peers.len()))
    } else if plan.datapaths.iter().any(|datapath| datapath.links.len() > LINKS_MAX) {
        Some(format!("a datapath has more than {LINKS_MAX} links"))
    } else if let Some((spins, other)) = together(plan).filter(|_| hosting == Hosting::Thread) {
        Some(format!(
            "datapath {spins:?} spins on its core, which is that of {other:?}, too: give it one of its own, or let it \
             sleep (`idle: spin_then_block(us: ...)`)"
        ))
    } else if plan.host.id.0 == 0 {
        Some("the host's id is 0".to_owned())
    } else {
        None
    };
    objection.map_or(Ok(()), |what| Err(StartError::Plan(what)))
}

/// A datapath that spins on the core of another.
fn together(plan: &Plan) -> Option<(&str, &str)> {
    let pinned = || plan.datapaths.iter().enumerate().filter_map(|(at, own)| Some((at, own, own.core?)));
    let spinning = pinned().filter(|(_, own, _)| own.idle == Idle::Spin);
    spinning.into_iter().find_map(|(at, own, core)| {
        let (_, other, _) = pinned().find(|(other, _, its)| *other != at && *its == core)?;
        Some((own.name.as_str(), other.name.as_str()))
    })
}

pub(crate) fn domain_spec(plan: &DomainPlan) -> DomainSpec {
    let quota = plan.quota;
    DomainSpec {
        name: plan.name.clone(),
        access: plan.members.iter().map(access_rule).collect(),
        quota: Quota {
            most: Amounts {
                sessions: quota.sessions.into(),
                streams: quota.streams.into(),
                sources: quota.sources.into(),
                sinks: quota.sinks.into(),
                connections: quota.connections.into(),
                bytes: quota.bytes,
                buffers: quota.buffers.into(),
            },
            requests_per_second: quota.control_messages_per_second,
        },
        isolated: plan.isolation == Isolation::Session,
        streams: plan.streams.clone(),
        realtime: RealtimeRule {
            priority_max: plan.realtime.priority_max,
            cores: plan.realtime.cores.iter().copied().collect(),
            threads_max: plan.realtime.threads_max as usize,
            locked_bytes_max: plan.realtime.locked_bytes_max,
        },
    }
}

fn access_rule(member: &Member) -> AccessRule {
    let (uids, gids) = match member {
        Member::Uid(uid) => (BTreeSet::from([*uid]), BTreeSet::new()),
        Member::Gid(gid) => (BTreeSet::new(), BTreeSet::from([*gid])),
        Member::Any => (BTreeSet::new(), BTreeSet::new()),
    };
    AccessRule { uids, gids }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Credentials, Origin};
    use insane_config::Idle;
    use insane_core::DomainIndex;

    #[test]
    fn members_mean_the_same_here_and_in_the_plan() {
        let mut plan = Plan::embedded_default();
        let domain = plan.domains[0].clone();
        let named = |name: &str, members| DomainPlan { name: name.into(), members, ..domain.clone() };
        plan.domains = vec![
            named("none", vec![]),
            named("mixed", vec![Member::Uid(7), Member::Gid(20)]),
            named("all", vec![Member::Any]),
        ];
        let spec = hub_spec(&plan, Hosting::Thread, 1).unwrap();
        for (uid, gid, groups) in [(7, 1, vec![]), (8, 20, vec![]), (8, 1, vec![20]), (8, 1, vec![])] {
            let mut gids = groups.clone();
            gids.push(gid);
            let origin = Origin::Socket(Credentials { pid: 1, uid, gid, groups });
            for asked in [None, Some("none"), Some("mixed"), Some("all"), Some("other")] {
                assert_eq!(spec.choose_domain(&origin, asked), plan.domain_for(asked, uid, &gids), "{uid} {gids:?}");
            }
        }
        assert_eq!(plan.domain_for(None, 7, &[]), Some(DomainIndex(1)));
    }

    #[test]
    fn a_plan_that_cannot_be_hosted_is_refused() {
        let refused = |change: fn(&mut Plan), hosting| {
            let mut plan = Plan::embedded_default();
            change(&mut plan);
            hub_spec(&plan, hosting, 1).is_err()
        };
        assert!(!refused(|_| {}, Hosting::Inline));
        assert!(refused(|plan| plan.domains.clear(), Hosting::Thread));
        assert!(refused(|plan| plan.datapaths.clear(), Hosting::Thread));
        assert!(refused(|plan| plan.datapaths.push(plan.datapaths[0].clone()), Hosting::Inline));
        assert!(refused(|plan| plan.domains[0].receive[0].size = 0, Hosting::Thread));
        assert!(refused(|plan| plan.host.id.0 = 0, Hosting::Thread));
        let two = |idle: Idle, cores: [u16; 2]| {
            let mut plan = Plan::embedded_default();
            let first = plan.datapaths[0].clone();
            let on = |core, idle| DatapathPlan { core: Some(core), idle, ..first.clone() };
            plan.datapaths = vec![on(cores[0], Idle::Block), on(cores[1], idle)];
            hub_spec(&plan, Hosting::Thread, 1).map(drop).map_err(|error| error.to_string())
        };
        assert!(two(Idle::Spin, [1, 1]).unwrap_err().contains("give it one of its own, or let it sleep"));
        assert!(two(Idle::Spin, [0, 1]).is_ok() && two(Idle::Block, [1, 1]).is_ok());
    }

    #[test]
    fn only_a_thread_that_may_block_is_woken() {
        let mut plan = Plan::embedded_default();
        assert!(hub_spec(&plan, Hosting::Thread, 1).unwrap().datapaths[0].may_sleep);
        assert!(!hub_spec(&plan, Hosting::Inline, 1).unwrap().datapaths[0].may_sleep);
        for idle in [Idle::Spin, Idle::Yield] {
            plan.datapaths[0].idle = idle;
            assert!(!hub_spec(&plan, Hosting::Thread, 1).unwrap().datapaths[0].may_sleep);
        }
    }
}
