//! Tables of a datapath that all domains share.
//!
//! What each domain may have it can have, whoever else was there first: so the quotas of all are
//! to fit a table together, as those of memory are.

use crate::plan::{DatapathPlan, DomainPlan};
use crate::report::Report;

/// Sources of one datapath, and sinks: `SOURCES_MAX`, `SINKS_MAX` of `insane-engine`.
pub const PORTS_OF_DATAPATH: u32 = 4096;
/// Of the places for sources, those that only sources with slots have, where there are slots:
/// `TIMED_MAX` of `insane-engine`.
pub const SLOTS_OF_DATAPATH: u32 = 256;
/// Sessions that can wake one datapath.
pub const DOORBELLS_OF_DATAPATH: u32 = 4096;
/// Sessions whose budget one datapath knows: `CLIENTS_MAX` of `insane-scheduler`.
pub const BUDGETED_SESSIONS: u32 = 256;
/// Reliable sources of one datapath. No quota is theirs: each domain may have its equal part, and
/// one more is refused.
pub const RELIABLE_SOURCES_OF_DATAPATH: u32 = 256;

const _: () = assert!(RELIABLE_SOURCES_OF_DATAPATH as usize >= super::DOMAINS_MAX);

/// A table: the field of the quotas that fills it, what that counts, its places and who has them.
struct Table {
    field: &'static str,
    what: &'static str,
    most: u32,
    whose: String,
}

pub(super) fn check_places(domains: &[DomainPlan], datapaths: &[DatapathPlan], report: &mut Report<'_>) {
    let quotas = || domains.iter().map(|domain| &domain.quota);
    let table = |field, what, most, whose: &str| Table { field, what, most, whose: whose.to_owned() };
    let all = "of all domains";
    let sources = sources(datapaths);
    check(&sources, quotas().map(|quota| quota.sources), report);
    let sinks = table("sinks", "sinks", PORTS_OF_DATAPATH, all);
    check(&sinks, quotas().map(|quota| quota.sinks), report);
    let doorbells = table("sessions", "sessions", DOORBELLS_OF_DATAPATH, all);
    check(&doorbells, quotas().map(|quota| quota.sessions), report);
    let what = "sessions with a budget (`bytes_per_second`)";
    let budgets = table("sessions", what, BUDGETED_SESSIONS, "with a budget of all domains");
    check(&budgets, quotas().map(|quota| quota.budget.map_or(0, |_| quota.sessions)), report);
}

/// Where a datapath has slots, some places are for sources with slots alone.
fn sources(datapaths: &[DatapathPlan]) -> Table {
    let (field, what) = ("sources", "sources");
    match datapaths.iter().find(|datapath| datapath.has_slots()) {
        None => Table { field, what, most: PORTS_OF_DATAPATH, whose: "of all domains".into() },
        Some(datapath) => {
            let whose = format!(
                "of all domains, beside {SLOTS_OF_DATAPATH} with slots (the links of {:?} have a rate)",
                datapath.name
            );
            Table { field, what, most: PORTS_OF_DATAPATH - SLOTS_OF_DATAPATH, whose }
        }
    }
}

fn check(table: &Table, counts: impl Iterator<Item = u32>, report: &mut Report<'_>) {
    let Table { field, what, most, whose } = table;
    let mut before = 0;
    for (at, own) in counts.enumerate() {
        // What alone is beyond every datapath was told.
        if own > PORTS_OF_DATAPATH {
            return;
        }
        let sum = before + own;
        if sum > *most {
            let beside = if before > 0 { format!(", {sum} with those of the domains before") } else { String::new() };
            let message = format!("{own} {what}{beside}, and a datapath serves {most} {whose}");
            let accepted = match (most - before, before) {
                (0, _) => "lower quotas of the domains before".to_owned(),
                (left, 0) => format!("at most {left}"),
                (left, _) => format!("at most {left}, or lower quotas of the domains before"),
            };
            report.error_accepting(&format!("domains[{at}].quota.{field}"), message, accepted);
            return;
        }
        before = sum;
    }
}
