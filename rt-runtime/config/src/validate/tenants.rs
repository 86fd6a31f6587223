//! Domains: members, quotas, receive heaps.

use super::datapaths::core_ranges;
use super::places::{PORTS_OF_DATAPATH, check_places};
use super::{check_names, number, streams};
use crate::machine::Machine;
use crate::plan::{self, BudgetPlan, DatapathPlan, DomainPlan, Idle, Isolation, Member, Policy, Quota, RealtimePlan};
use crate::raw;
use crate::report::Report;
use insane_core::heap::ClassSpec;
use insane_core::limits::CLASSES_MAX;

/// Most domains of one runtime.
pub const DOMAINS_MAX: usize = 64;
/// Most buffers of one heap: their numbers have to fit.
const BUFFERS_MAX: i64 = 65_536;
/// Largest user or group number; the one above means "unchanged" to the kernel.
const ID_MAX: i64 = u32::MAX as i64 - 1;

/// The domains; if none is written, one for the daemon's own user.
pub(super) fn domains(
    raw: &[raw::Domain],
    machine: &Machine,
    datapaths: &[DatapathPlan],
    report: &mut Report<'_>,
) -> Vec<DomainPlan> {
    if raw.is_empty() {
        return vec![DomainPlan {
            name: "default".into(),
            members: vec![Member::Uid(machine.uid)],
            isolation: Isolation::Shared,
            quota: Quota::default(),
            realtime: RealtimePlan::default(),
            receive: plan::receive_default(),
            streams: Vec::new(),
        }];
    }
    if raw.len() > DOMAINS_MAX {
        report.error("domains", format!("there are {} domains", raw.len()));
    }
    check_names(report, "domains", raw.iter().map(|domain| domain.name.as_str()));
    let tenant = |(at, domain)| self::domain(domain, at, (machine, datapaths), report);
    let plans: Vec<DomainPlan> = raw.iter().enumerate().map(tenant).collect();
    check_places(&plans, datapaths, report);
    plans
}

fn domain(
    raw: &raw::Domain,
    at: usize,
    (machine, datapaths): (&Machine, &[DatapathPlan]),
    report: &mut Report<'_>,
) -> DomainPlan {
    let members = members(&raw.members, at, report);
    let isolation = match raw.isolation {
        Some(raw::Isolation::Shared) => Isolation::Shared,
        Some(raw::Isolation::Session) => Isolation::Session,
        None => {
            if spans_users(&members) {
                let message = "several users can attach, and each can read what the others send each other";
                let accepted = "`isolation: shared` if they trust each other, `isolation: session` if not all to leave \
                                a sent message as it is, a domain for each if they may not read each other's";
                report.warning(&format!("domains[{at}].members"), message, accepted);
            }
            Isolation::Shared
        }
    };
    DomainPlan {
        name: raw.name.clone(),
        members,
        isolation,
        quota: quota(&raw.quota, at, report),
        realtime: realtime(&raw.realtime, at, (machine, datapaths), report),
        receive: raw.receive.as_ref().map_or_else(plan::receive_default, |classes| receive(classes, at, report)),
        streams: streams::streams(raw, isolation, at, report),
    }
}

fn members(raw: &[raw::Member], at: usize, report: &mut Report<'_>) -> Vec<Member> {
    if raw.is_empty() {
        report.error(&format!("domains[{at}].members"), "nobody could attach");
    }
    let mut members: Vec<Member> = Vec::new();
    for (place, member) in raw.iter().enumerate() {
        let path = format!("domains[{at}].members[{place}]");
        let mut id = |kind: &str, number: i64| {
            if !(0..=ID_MAX).contains(&number) {
                let message = format!("{number} is not the number of a {kind}");
                report.error_accepting(&path, message, format!("0 to {ID_MAX}"));
            }
            u32::try_from(number).unwrap_or_default()
        };
        let member = match *member {
            raw::Member::Uid(number) => Member::Uid(id("user", number)),
            raw::Member::Gid(number) => Member::Gid(id("group", number)),
            raw::Member::Any => Member::Any,
        };
        if members.contains(&member) {
            report.error_accepting(&path, "the member is there already", "each member once");
        }
        members.push(member);
    }
    members
}

fn spans_users(members: &[Member]) -> bool {
    members.len() > 1 || members.iter().any(|member| !matches!(member, Member::Uid(_)))
}

fn realtime(
    raw: &raw::Realtime,
    at: usize,
    (machine, datapaths): (&Machine, &[DatapathPlan]),
    report: &mut Report<'_>,
) -> RealtimePlan {
    let path = |field: &str| format!("domains[{at}].realtime.{field}");
    let priority: u8 = number(report, &path("priority_max"), raw.priority_max);
    let spinning = |core: u16| {
        let mut there = datapaths.iter().filter(|datapath| datapath.core == Some(core) && datapath.idle == Idle::Spin);
        there.next().map(|datapath| datapath.name.as_str())
    };
    let mut cores = Vec::new();
    for (place, wanted) in raw.cores.iter().enumerate() {
        let path = path(&format!("cores[{place}]"));
        let core = u16::try_from(*wanted).ok();
        match (&machine.cores, core) {
            (Some(there), core) if core.is_none_or(|core| !there.contains(&core)) => {
                report.error_accepting(&path, format!("this machine has no core {wanted}"), core_ranges(there));
            }
            (None, None) => report.error(&path, format!("{wanted} is not the number of a core")),
            (_, Some(core)) if spinning(core).is_some() => {
                let name = spinning(core).unwrap_or_default();
                let message = format!("datapath {name:?} spins on core {core}: no other thread may run there");
                report.error_accepting(
                    &path,
                    message,
                    "another core, or `idle: spin_then_block(us: ...)` of the datapath",
                );
            }
            (_, Some(core)) if cores.contains(&core) => {
                report.error_accepting(&path, "the core is there already", "each core once");
            }
            (_, core) => cores.extend(core),
        }
    }
    cores.sort_unstable();
    if priority > 0 && raw.cores.is_empty() {
        let message = "a priority without a core: such threads are let run on the named cores only";
        report.error_accepting(&path("priority_max"), message, "0, or `cores: [...]` beside it");
    }
    warn_of_datapaths(priority, &cores, &path("priority_max"), datapaths, report);
    RealtimePlan {
        priority_max: (priority > 0).then_some(priority),
        cores,
        threads_max: number(report, &path("threads_max"), raw.threads_max),
        locked_bytes_max: number(report, &path("locked_bytes_max"), raw.locked_bytes_max),
    }
}

/// A thread as urgent as a datapath on its core delays what it waits for itself.
fn warn_of_datapaths(priority: u8, cores: &[u16], path: &str, datapaths: &[DatapathPlan], report: &mut Report<'_>) {
    let meets = |datapath: &&DatapathPlan| datapath.core.is_none_or(|core| cores.contains(&core));
    for datapath in datapaths.iter().filter(meets) {
        if let Policy::Fifo(urgent) = datapath.policy
            && priority >= urgent
        {
            let message =
                format!("datapath {:?} has priority {urgent}: such threads could keep it from running", datapath.name);
            report.warning(path, message, format!("less than {urgent}"));
        }
    }
}

fn quota(raw: &raw::Quota, at: usize, report: &mut Report<'_>) -> Quota {
    let path = |field: &str| format!("domains[{at}].quota.{field}");
    let burst_bytes = number(report, &path("burst_bytes"), raw.burst_bytes);
    let rate = raw.bytes_per_second.map(|rate| number(report, &path("bytes_per_second"), rate));
    for (field, count) in [("sources", raw.sources), ("sinks", raw.sinks)] {
        if count > PORTS_OF_DATAPATH.into() {
            let message = format!("{count} {field}, and a datapath serves {PORTS_OF_DATAPATH} of all domains");
            report.error_accepting(&path(field), message, format!("at most {PORTS_OF_DATAPATH}"));
        }
    }
    let budget = rate.map(|bytes_per_second| BudgetPlan { bytes_per_second, burst_bytes });
    Quota {
        sessions: number(report, &path("sessions"), raw.sessions),
        streams: number(report, &path("streams"), raw.streams),
        sources: number(report, &path("sources"), raw.sources),
        sinks: number(report, &path("sinks"), raw.sinks),
        connections: number(report, &path("connections"), raw.connections),
        bytes: number(report, &path("bytes"), raw.bytes),
        buffers: number(report, &path("buffers"), raw.buffers),
        control_messages_per_second: number(
            report,
            &path("control_messages_per_second"),
            raw.control_messages_per_second,
        ),
        wakes_per_second: number(report, &path("wakes_per_second"), raw.wakes_per_second),
        budget,
    }
}

fn receive(raw: &[raw::Class], at: usize, report: &mut Report<'_>) -> Vec<ClassSpec> {
    let path = format!("domains[{at}].receive");
    if raw.is_empty() {
        report.error(&path, "without receive buffers nothing can arrive from other hosts");
    }
    if raw.len() > CLASSES_MAX {
        report.error(&path, format!("there are {} classes", raw.len()));
    }
    for (place, pair) in raw.windows(2).enumerate().filter(|(_, pair)| pair[1].size > 0 && pair[0].size >= pair[1].size)
    {
        let message = format!("{} does not rise above the {} of the class before", pair[1].size, pair[0].size);
        report.error_accepting(
            &format!("{path}[{}].size", place + 1),
            message,
            "classes by rising size, each size once",
        );
    }
    let class = |(place, class): (usize, &raw::Class)| ClassSpec {
        size: number(report, &format!("{path}[{place}].size"), class.size),
        count: number(report, &format!("{path}[{place}].count"), class.count),
    };
    let classes: Vec<ClassSpec> = raw.iter().enumerate().map(class).collect();
    let buffers: i64 = raw.iter().map(|class| class.count.clamp(0, BUFFERS_MAX + 1)).sum();
    if buffers > BUFFERS_MAX {
        report.error_accepting(&path, format!("there are {buffers} buffers"), "at most 65_536 buffers in all classes");
    }
    classes
}
