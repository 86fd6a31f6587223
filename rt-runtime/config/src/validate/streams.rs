//! Declarations of streams: what is fixed or bounded of them, whatever applications ask for.

use super::{check_names, number};
use crate::plan::{DatapathPlan, DomainPlan, Isolation, StreamPlan};
use crate::raw;
use crate::report::Report;
use insane_core::{Determinism, Nanos, Priority, Qos, Reliability};

/// Most declarations of one domain.
const STREAMS_MAX: usize = 256;

/// The declarations of a domain.
pub(super) fn streams(
    raw: &raw::Domain,
    isolation: Isolation,
    domain: usize,
    report: &mut Report<'_>,
) -> Vec<StreamPlan> {
    let list = format!("domains[{domain}].streams");
    if raw.streams.len() > STREAMS_MAX {
        report.error(&list, format!("there are {} declarations", raw.streams.len()));
    }
    check_names(report, &list, raw.streams.iter().map(|stream| stream.name.as_str()));
    let plans = raw.streams.iter().enumerate().map(|(at, raw)| {
        let path = format!("{list}[{at}]");
        let plan = stream(raw, &path, report);
        check(raw, &plan, isolation, &path, report);
        plan
    });
    plans.collect()
}

fn stream(raw: &raw::Stream, path: &str, report: &mut Report<'_>) -> StreamPlan {
    let mut priority = |field: &str, value: Option<i64>| {
        let value = value.map(|value| number::<u8>(report, &format!("{path}.{field}"), value));
        value.map(|value| Priority::new(value).unwrap_or_default())
    };
    let (fixed, most) = (priority("priority", raw.priority), priority("priority_max", raw.priority_max));
    StreamPlan {
        name: raw.name.clone(),
        reliability: raw.reliability,
        datapath: raw.datapath,
        consumption: raw.consumption,
        determinism: raw.determinism.as_ref().map(|raw| determinism(raw, path, report)),
        priority: fixed,
        priority_max: most,
        isolated: raw.isolated,
        history_max: raw.history_max.map(|most| number(report, &format!("{path}.history_max"), most)),
        alternates: raw.alternates.clone(),
        on_link_loss: raw.on_link_loss,
    }
}

fn determinism(raw: &raw::Determinism, path: &str, report: &mut Report<'_>) -> Determinism {
    let raw::Determinism::TimeSensitive { period_ns, offset_ns, deadline_ns, size_bytes, late } = *raw else {
        return Determinism::BestEffort;
    };
    let at = |field: &str| format!("{path}.determinism.{field}");
    let period = Nanos(number(report, &at("period_ns"), period_ns));
    let offset = Nanos(number(report, &at("offset_ns"), offset_ns));
    let deadline = deadline_ns.map_or(period, |deadline| Nanos(number(report, &at("deadline_ns"), deadline)));
    if deadline > period {
        let message = format!("the deadline is after the end of the period, which has {} ns", period.0);
        report.error_accepting(&at("deadline_ns"), message, "a deadline of at most the period");
    } else if offset >= deadline {
        let message = format!("the offset is not before the deadline, which is at {} ns", deadline.0);
        report.error_accepting(&at("offset_ns"), message, "an offset before the deadline");
    }
    let size = number(report, &at("size_bytes"), size_bytes);
    Determinism::TimeSensitive { period, offset, deadline, size, late }
}

/// What does not go together.
fn check(raw: &raw::Stream, plan: &StreamPlan, isolation: Isolation, path: &str, report: &mut Report<'_>) {
    if raw.name.chars().rev().skip(1).any(|c| c == '*') {
        let accepted = "a name, or how names begin and then `*`";
        report.error_accepting(&format!("{path}.name"), "a `*` stands at the end of a name only", accepted);
    }
    if (StreamPlan { name: plan.name.clone(), ..StreamPlan::default() }) == *plan {
        let accepted = "at least one of reliability, datapath, consumption, determinism, priority, priority_max, \
                        isolated, history_max, alternates, on_link_loss";
        report.error_accepting(&format!("{path}.name"), "the declaration fixes nothing", accepted);
    }
    if let (Some(priority), Some(most)) = (raw.priority, raw.priority_max) {
        let message =
            format!("the priority is fixed to {priority} in line {}", report.line(&format!("{path}.priority")));
        report.error_accepting(
            &format!("{path}.priority_max"),
            format!("{message}, so a bound of {most} has no meaning"),
            "`priority` or `priority_max`",
        );
    }
    if plan.isolated == Some(false) && isolation == Isolation::Session {
        let message = "every stream of the domain is isolated: it has `isolation: session`";
        report.error_accepting(&format!("{path}.isolated"), message, "true, or a domain with `isolation: shared`");
    }
}

/// Links that a declaration names have to be there.
fn check_alternates(stream: &StreamPlan, datapaths: &[DatapathPlan], path: &str, report: &mut Report<'_>) {
    let links = || datapaths.iter().flat_map(|datapath| &datapath.links).map(|link| link.name.as_str());
    for (at, name) in stream.alternates.iter().flatten().enumerate() {
        if !links().any(|link| link == name) {
            let names: Vec<String> = links().map(|link| format!("{link:?}")).collect();
            let message = format!("no datapath has a link {name:?}");
            report.error_accepting(&format!("{path}[{at}]"), message, format!("one of {}", names.join(", ")));
        }
    }
}

/// What does not go with the datapaths: slots and repair, a time and no slots.
pub(super) fn check_slots(domains: &[DomainPlan], datapaths: &[DatapathPlan], report: &mut Report<'_>) {
    for (domain, plan) in domains.iter().enumerate() {
        for (at, stream) in plan.streams.iter().enumerate() {
            check_alternates(stream, datapaths, &format!("domains[{domain}].streams[{at}].alternates"), report);
            let Some(determinism @ Determinism::TimeSensitive { .. }) = stream.determinism else { continue };
            let lane = Qos { determinism, ..Qos::default() }.lane();
            let serving = datapaths.iter().find(|datapath| datapath.serves.lane(lane));
            let Some(serving) = serving.filter(|datapath| !datapath.links.is_empty()) else { continue };
            let path = format!("domains[{domain}].streams[{at}]");
            let has_slots = serving.links.iter().all(|link| link.rate.is_some());
            if has_slots && stream.reliability == Some(Reliability::Reliable) {
                let message = "a stream with slots is unreliable: repairs have no slots";
                report.error_accepting(&format!("{path}.reliability"), message, "unreliable");
            } else if !has_slots {
                let message = format!("the stream gets no slots: a link of datapath \"{}\" has no rate", serving.name);
                report.warning(&format!("{path}.determinism"), message, "`rate_mbps` at each link of the datapath");
            }
        }
    }
}
