//! What differs between two plans, in the words of the file, and what of it can change
//! while the runtime is in use. Pure.
//!
//! Things that have a name are compared by it, whatever their order; where the order means
//! something (which domain a process gets, by which link a peer is reached), it is compared
//! as a field of its own.

use crate::plan::{
    ClockPlan, DatapathPlan, DomainPlan, GossipPlan, HugePages, Idle, Isolation, LinkBudget, LinkPlan, LogFormat,
    Member, Plan, Policy, PolicyPlan, Quota, Serves, StreamPlan, Technology,
};
use crate::planner::exact;
use crate::raw::AfterHoldover;
use insane_core::heap::ClassSpec;
use insane_core::{Consumption, Datapath, Determinism, LatePolicy, Reliability};
use insane_policy::Rule;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

/// What a change takes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Takes {
    /// Nothing: it holds from the reload on.
    Reload,
    /// Nothing, but it holds only for what comes later, as the text says.
    Later(&'static str),
    /// Memory, threads and sockets are made at start.
    Restart,
}

/// One difference. One of `old` and `new` is there, or both.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The section of the file: `peers`.
    pub section: &'static str,
    /// The name of the thing, where there are several: `cell-b`.
    pub item: Option<String>,
    /// What of it, `links["net"]`; `None`: it has come or gone as a whole.
    pub field: Option<String>,
    /// The value before.
    pub old: Option<String>,
    /// The value after.
    pub new: Option<String>,
    /// What it takes.
    pub takes: Takes,
}

impl Change {
    /// The path as findings have it: `peers["cell-b"].links["net"]`.
    #[must_use]
    pub fn path(&self) -> String {
        let mut path = self.section.to_owned();
        if let Some(item) = &self.item {
            path.push_str(&format!("[{item:?}]"));
        }
        if let Some(field) = &self.field {
            path.push_str(&format!(".{field}"));
        }
        path
    }

    /// `added`, `removed` or `changed`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match (&self.old, &self.new) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path();
        match (&self.old, &self.new) {
            (None, Some(new)) => write!(f, "{path}: added, {new}"),
            (Some(old), None) => write!(f, "{path}: removed, was {old}"),
            (old, new) => {
                let text = |value: &Option<String>| value.clone().unwrap_or_default();
                write!(f, "{path}: {} -> {}", text(old), text(new))
            }
        }
    }
}

/// Everything that differs, by section.
#[must_use]
pub fn between(old: &Plan, new: &Plan) -> Vec<Change> {
    let mut changes = Vec::new();
    compare(&mut changes, &single(old), &single(new));
    for (section, of) in SECTIONS {
        named(&mut changes, section, &of(old), &of(new));
    }
    changes
}

/// A value, and what its change takes.
type Field = (String, Takes);

/// The fields of one thing.
type Fields = BTreeMap<String, Field>;

/// All things of a section with a name.
type Things = BTreeMap<String, Thing>;

struct Thing {
    fields: Fields,
    /// What it takes that it comes or goes.
    takes: Takes,
}

type Section = (&'static str, fn(&Plan) -> Things);

const SECTIONS: [Section; 4] = [("datapaths", datapaths), ("links", links), ("peers", peers), ("domains", domains)];

fn named(changes: &mut Vec<Change>, section: &'static str, old: &Things, new: &Things) {
    let whole = |thing: &Thing| {
        let fields: Vec<_> = thing.fields.iter().map(|(name, (value, _))| format!("{name}: {value}")).collect();
        fields.join(", ")
    };
    for (name, before) in old {
        let item = Some(name.clone());
        let Some(after) = new.get(name) else {
            let old = Some(whole(before));
            changes.push(Change { section, item, field: None, old, new: None, takes: before.takes });
            continue;
        };
        fields(changes, section, &item, &before.fields, &after.fields);
    }
    for (name, after) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        let (item, new) = (Some(name.clone()), Some(whole(after)));
        changes.push(Change { section, item, field: None, old: None, new, takes: after.takes });
    }
}

fn fields(changes: &mut Vec<Change>, section: &'static str, item: &Option<String>, old: &Fields, new: &Fields) {
    let added = new.iter().filter(|(name, _)| !old.contains_key(*name));
    for (name, field) in old.iter().chain(added) {
        let (before, after) = (old.get(name).map(|(value, _)| value), new.get(name).map(|(value, _)| value));
        if before != after {
            changes.push(Change {
                section,
                item: item.clone(),
                field: Some(name.clone()),
                old: before.cloned(),
                new: after.cloned(),
                takes: field.1,
            });
        }
    }
}

/// The sections that are one thing each.
fn compare(changes: &mut Vec<Change>, old: &[(&'static str, Fields); 9], new: &[(&'static str, Fields); 9]) {
    for ((section, old), (_, new)) in old.iter().zip(new) {
        fields(changes, section, &None, old, new);
    }
}

fn clock(clock: &ClockPlan) -> [(&'static str, String); 4] {
    let after = match clock.after_holdover {
        AfterHoldover::Keep => "keep",
        AfterHoldover::FreeRun => "free_run",
        AfterHoldover::StopSlots => "stop_slots",
    };
    let phase = clock.holdover_phase.map_or("None".to_owned(), |phase| phase.to_string());
    [
        ("read_max_us", format!("{} us", clock.read_max.0 / 1_000)),
        ("holdover_s", format!("{} s", clock.holdover.0 / 1_000_000_000)),
        ("holdover_phase_us", phase),
        ("after_holdover", after.to_owned()),
    ]
}

fn single(plan: &Plan) -> [(&'static str, Fields); 9] {
    let restart = |fields: &[(&str, String)]| -> Fields {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (value.clone(), Takes::Restart))).collect()
    };
    let socket = plan.control.socket.as_ref().map_or("none".to_owned(), |path| format!("{path:?}"));
    let state = plan.control.state.as_ref().map_or("none".to_owned(), |path| format!("{path:?}"));
    let mut memory = restart(&[
        ("lock", plan.memory.lock.to_string()),
        ("huge_pages", huge_pages(plan.memory.huge_pages).to_owned()),
        ("prefault", plan.memory.prefault.to_string()),
    ]);
    // Only a bound, which the planner holds against everything else.
    memory.insert("limit_bytes".into(), (exact(plan.memory.limit_bytes), Takes::Reload));
    let format = if plan.log.format == LogFormat::Text { "text" } else { "json" };
    [
        ("host", restart(&[("name", format!("{:?}", plan.host.name)), ("id", plan.host.id.0.to_string())])),
        ("control", restart(&[("socket", socket), ("mode", format!("0o{:o}", plan.control.mode)), ("state", state)])),
        ("memory", memory),
        ("policy", policy(&plan.policy)),
        ("clock", restart(&clock(&plan.clock))),
        ("log", restart(&[("level", plan.log.level.name().to_owned()), ("format", format.to_owned())])),
        ("eal", restart(&[("shim", format!("{:?}", plan.eal.shim)), ("arguments", plan.eal.arguments.join(" "))])),
        ("discovery", plan.discovery.as_ref().map(gossip).unwrap_or_default()),
        ("order", restart(&[("domains", listed(plan.domains.iter().map(|domain| &domain.name)))])),
    ]
}

/// All of it holds from the reload on: what changes is who is to use which link.
fn policy(policy: &PolicyPlan) -> Fields {
    let rule = |(at, rule): (usize, &Rule)| {
        let order: Vec<&str> = rule.order.iter().map(|technology| technology.name()).collect();
        let spares = if rule.spares_others { ", sparing others" } else { "" };
        (format!("rules[{at}]"), format!("{}: {}{spares}", rule.when, order.join(", ")))
    };
    let budget = |budget: &LinkBudget| {
        let bound =
            |value: Option<u32>, unit: &str| value.map_or(format!("any{unit}"), |value| format!("{value}{unit}"));
        let value = format!("{}, {}", bound(budget.streams, " streams"), bound(budget.mbps, " Mbit/s"));
        (format!("budgets[{:?}]", budget.link), value)
    };
    let single = [
        ("best_effort_kbps".to_owned(), format!("{} kbit/s", policy.best_effort_kbps)),
        ("silent_ms".to_owned(), policy.silent_after.to_string()),
        ("return_after_ms".to_owned(), policy.return_after.to_string()),
        ("hold_down_max_ms".to_owned(), policy.hold_down_max.to_string()),
    ];
    let rules = policy.rules.all().iter().enumerate().map(rule);
    let all = rules.chain(policy.budgets.iter().map(budget)).chain(single);
    all.map(|(name, value)| (name, (value, Takes::Reload))).collect()
}

fn gossip(gossip: &GossipPlan) -> Fields {
    let texts = |all: &mut dyn Iterator<Item = String>| format!("[{}]", all.collect::<Vec<_>>().join(", "));
    let advertised = |(name, _, address): &(String, &str, SocketAddr)| format!("{name:?}: {address}");
    // Their order means nothing.
    let mut links: Vec<String> = gossip.links.iter().map(advertised).collect();
    links.sort_unstable();
    let all = [
        ("bind", gossip.bind.to_string(), Takes::Restart),
        ("cluster", format!("{:?}", gossip.cluster), Takes::Restart),
        ("advertise", texts(&mut links.into_iter()), Takes::Restart),
        ("allow", texts(&mut gossip.allow.iter().map(ToString::to_string)), Takes::Reload),
        ("seeds", texts(&mut gossip.seeds.iter().map(ToString::to_string)), Takes::Reload),
        ("peers_max", gossip.peers_max.to_string(), Takes::Reload),
        ("forget_after_s", format!("{} s", gossip.forget_after.0 / 1_000_000_000), Takes::Reload),
    ];
    all.into_iter().map(|(name, value, takes)| (format!("gossip.{name}"), (value, takes))).collect()
}

fn things<'p, T: 'p>(
    all: impl Iterator<Item = &'p T>,
    one: impl Fn(&'p T) -> (&'p String, Fields),
    takes: Takes,
) -> Things {
    let thing = |each: &'p T| {
        let (name, fields) = one(each);
        (name.clone(), Thing { fields, takes })
    };
    all.map(thing).collect()
}

fn datapaths(plan: &Plan) -> Things {
    let fields = |datapath: &DatapathPlan| {
        let core = datapath.core.map_or("none".to_owned(), |core| core.to_string());
        let policy = match datapath.policy {
            Policy::Other => "other".to_owned(),
            Policy::Fifo(priority) => format!("fifo({priority})"),
        };
        let idle = match datapath.idle {
            Idle::Spin => "spin".to_owned(),
            Idle::Yield => "yield".to_owned(),
            Idle::SpinThenBlock { spin } => format!("spin_then_block(us: {})", spin.0 / 1000),
            Idle::Block => "block".to_owned(),
        };
        let serves = match datapath.serves {
            Serves::RealTime => "real_time",
            Serves::BestEffort => "best_effort",
            Serves::All => "all",
        };
        let links = listed(datapath.links.iter().map(|link| &link.name));
        let unscheduled = if datapath.allows_unscheduled { "allow" } else { "refuse" };
        let (serves, unscheduled) = (serves.to_owned(), unscheduled.to_owned());
        [
            ("core", core),
            ("policy", policy),
            ("idle", idle),
            ("serves", serves),
            ("links", links),
            ("unscheduled", unscheduled),
            ("gates", datapath.gates.as_ref().map_or_else(|| "None".to_owned(), ToString::to_string)),
            ("epsilon_quantile_ppm", datapath.epsilon_quantile_ppm.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), (value, Takes::Restart)))
        .into()
    };
    things(plan.datapaths.iter(), |datapath| (&datapath.name, fields(datapath)), Takes::Restart)
}

fn all_links(plan: &Plan) -> impl Iterator<Item = &LinkPlan> {
    plan.datapaths.iter().flat_map(|datapath| &datapath.links)
}

fn links(plan: &Plan) -> Things {
    let fields = |link: &LinkPlan| {
        let technology = &link.technology;
        let mut all = vec![
            ("technology", technology.name().to_owned()),
            ("bind", technology.bind().to_string()),
            ("frame_bytes_max", exact(technology.frame_bytes_max().into())),
        ];
        let vlan = |vlan: Option<u16>| vlan.map_or_else(|| "None".to_owned(), |vlan| vlan.to_string());
        let buffers = match technology {
            Technology::Udp(udp) => {
                all.push(("launch_lead_us", udp.launch_lead.to_string()));
                all.push(("real_time_dscp", udp.real_time_dscp.to_string()));
                Some((udp.send_buffer_bytes, udp.receive_buffer_bytes, udp.busy_poll_us))
            }
            Technology::Tcp(tcp) => {
                all.push(("user_timeout_ms", format!("{} ms", tcp.user_timeout_ms)));
                all.push(("real_time_dscp", tcp.real_time_dscp.to_string()));
                Some((tcp.send_buffer_bytes, tcp.receive_buffer_bytes, tcp.busy_poll_us))
            }
            Technology::Xdp(xdp) => {
                all.push(("interface", xdp.interface.as_str().to_owned()));
                all.push(("neighbours", xdp.neighbours.name().to_owned()));
                all.push(("queue", xdp.queue.to_string()));
                all.push(("queues_max", xdp.queues_max.to_string()));
                all.push(("mode", xdp.mode.name().to_owned()));
                all.push(("vlan", vlan(xdp.vlan)));
                all.push(("prefix_bits", xdp.prefix_bits.to_string()));
                all.push(("gateway", xdp.gateway.map_or_else(|| "None".to_owned(), |gateway| gateway.to_string())));
                all.push(("real_time_dscp", xdp.real_time_dscp.to_string()));
                None
            }
            Technology::Rdma(rdma) => {
                all.push(("real_time_dscp", rdma.real_time_dscp.to_string()));
                None
            }
            Technology::Dpdk(dpdk) => {
                all.push(("device", dpdk.device.as_str().to_owned()));
                all.push(("mac", format!("{:x?}", dpdk.mac)));
                all.push(("vlan", vlan(dpdk.vlan)));
                all.push(("prefix_bits", dpdk.prefix_bits.to_string()));
                all.push(("gateway", dpdk.gateway.map_or_else(|| "None".to_owned(), |gateway| gateway.to_string())));
                all.push(("real_time_dscp", dpdk.real_time_dscp.to_string()));
                all.push(("poll_us", dpdk.poll_each.to_string()));
                None
            }
        };
        if let Some((send, receive, poll)) = buffers {
            all.push(("send_buffer_bytes", exact(send.into())));
            all.push(("receive_buffer_bytes", exact(receive.into())));
            all.push(("busy_poll_us", format!("{poll} us")));
        }
        if let Some(multicast) = technology.multicast() {
            all.push(("multicast.group", multicast.group.to_string()));
            all.push(("multicast.ttl", multicast.ttl.to_string()));
            all.push(("multicast.from_peers", multicast.from_peers.to_string()));
        }
        if let Some(rate) = link.rate {
            all.push(("rate_mbps", format!("{} Mbit/s", rate.mbps)));
            all.push(("turn_us", rate.turn.to_string()));
            all.push(("foreign_bytes", exact(rate.foreign_bytes.into())));
            all.push(("completions", rate.completions.to_string()));
        }
        all.into_iter().map(|(name, value)| (name.to_owned(), (value, Takes::Restart))).collect()
    };
    things(all_links(plan), |link| (&link.name, fields(link)), Takes::Restart)
}

fn peers(plan: &Plan) -> Things {
    let peers = plan.peers.iter().enumerate().map(|(at, peer)| {
        let address = |link: &LinkPlan| {
            let address = link.peers.get(at).copied().flatten()?;
            Some((format!("links[{:?}]", link.name), (address.to_string(), Takes::Reload)))
        };
        (peer.name.clone(), Thing { fields: all_links(plan).filter_map(address).collect(), takes: Takes::Reload })
    });
    peers.collect()
}

/// For whom a change holds that is agreed upon when a stream is opened.
const OPENED: &str = "for streams that are opened from now on; an open one keeps what it has";

const BUDGETED: &str = "for sources that are opened from now on";

/// Rate and burst of a budget, in words.
fn budget(quota: &Quota) -> (String, String) {
    let none = || "None".to_owned();
    quota.budget.map_or((none(), none()), |budget| {
        (format!("{} a second", exact(budget.bytes_per_second)), exact(budget.burst_bytes.into()))
    })
}

fn domains(plan: &Plan) -> Things {
    let fields = |domain: &DomainPlan| {
        let quota = &domain.quota;
        let isolation = if domain.isolation == Isolation::Shared { "shared" } else { "session" };
        let count = |value: u32| value.to_string();
        let rate = |value: u32| format!("{value} a second");
        let all = [
            ("members", members(&domain.members), Takes::Later("for who attaches from now on; who is attached stays")),
            ("isolation", isolation.to_owned(), Takes::Later(OPENED)),
            ("receive", classes(&domain.receive), Takes::Restart),
            (
                "realtime.priority_max",
                domain.realtime.priority_max.map_or("none".to_owned(), |priority| priority.to_string()),
                Takes::Reload,
            ),
            ("realtime.cores", format!("{:?}", domain.realtime.cores), Takes::Reload),
            ("realtime.threads_max", count(domain.realtime.threads_max), Takes::Reload),
            (
                "realtime.locked_bytes_max",
                exact(domain.realtime.locked_bytes_max),
                Takes::Later("for processes that ask from now on; what one may lock already stays"),
            ),
            ("quota.sessions", count(quota.sessions), Takes::Reload),
            ("quota.streams", count(quota.streams), Takes::Reload),
            ("quota.sources", count(quota.sources), Takes::Reload),
            ("quota.sinks", count(quota.sinks), Takes::Reload),
            ("quota.connections", count(quota.connections), Takes::Reload),
            ("quota.bytes", exact(quota.bytes), Takes::Reload),
            ("quota.buffers", count(quota.buffers), Takes::Reload),
            ("quota.control_messages_per_second", rate(quota.control_messages_per_second), Takes::Reload),
            (
                "quota.wakes_per_second",
                rate(quota.wakes_per_second),
                Takes::Later("for sessions that have no sink at the datapath yet"),
            ),
            ("quota.bytes_per_second", budget(quota).0, Takes::Later(BUDGETED)),
            ("quota.burst_bytes", budget(quota).1, Takes::Later(BUDGETED)),
        ];
        let all = all.into_iter().map(|(name, value, takes)| (name.to_owned(), (value, takes)));
        let streams = domain.streams.iter().flat_map(|stream| {
            let of =
                |(name, value): (&str, String)| (format!("streams[{:?}].{name}", stream.name), (value, takes(name)));
            declared(stream).into_iter().map(of)
        });
        all.chain(streams).collect()
    };
    things(plan.domains.iter(), |domain| (&domain.name, fields(domain)), Takes::Restart)
}

/// What a declaration fixes, in the words of the file.
#[must_use]
pub fn declared(stream: &StreamPlan) -> Vec<(&'static str, String)> {
    let reliability = |value: Reliability| match value {
        Reliability::Unreliable => "unreliable",
        Reliability::Reliable => "reliable",
    };
    let datapath = |value: Datapath| match value {
        Datapath::Standard => "standard",
        Datapath::Fast => "fast",
    };
    let consumption = |value: Consumption| match value {
        Consumption::Poll => "poll",
        Consumption::Low => "low",
    };
    let all = [
        ("reliability", stream.reliability.map(|value| reliability(value).to_owned())),
        ("datapath", stream.datapath.map(|value| datapath(value).to_owned())),
        ("consumption", stream.consumption.map(|value| consumption(value).to_owned())),
        ("determinism", stream.determinism.map(determinism)),
        ("priority", stream.priority.map(|value| value.get().to_string())),
        ("priority_max", stream.priority_max.map(|value| value.get().to_string())),
        ("isolated", stream.isolated.map(|value| value.to_string())),
        ("history_max", stream.history_max.map(|value| value.to_string())),
        ("alternates", stream.alternates.as_ref().map(|links| format!("{links:?}"))),
        ("on_link_loss", stream.on_link_loss.map(|value| value.name().to_owned())),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn determinism(value: Determinism) -> String {
    let Determinism::TimeSensitive { period, offset, deadline, size, late } = value else {
        return "best_effort".to_owned();
    };
    let late = match late {
        LatePolicy::Drop => "drop",
        LatePolicy::SendNow => "send_now",
        LatePolicy::NextSlot => "next_slot",
        LatePolicy::NewestWins => "newest_wins",
    };
    let (period, offset, deadline) = (period.0, offset.0, deadline.0);
    format!(
        "time_sensitive(period_ns: {period}, offset_ns: {offset}, deadline_ns: {deadline}, size_bytes: {size}, \
         late: {late})"
    )
}

/// What it takes to change a field of a declaration: sources change lanes while they send; the
/// rest is agreed upon when a stream is opened.
fn takes(field: &str) -> Takes {
    match field {
        "priority" | "priority_max" => Takes::Reload,
        _ => Takes::Later(OPENED),
    }
}

fn members(members: &[Member]) -> String {
    let member = |member: &Member| match member {
        Member::Uid(uid) => format!("uid({uid})"),
        Member::Gid(gid) => format!("gid({gid})"),
        Member::Any => "any".to_owned(),
    };
    // Their order means nothing.
    let mut members: Vec<_> = members.to_vec();
    members.sort_unstable();
    format!("[{}]", members.iter().map(member).collect::<Vec<_>>().join(", "))
}

fn classes(classes: &[ClassSpec]) -> String {
    let class = |class: &ClassSpec| format!("(size: {}, count: {})", class.size, class.count);
    format!("[{}]", classes.iter().map(class).collect::<Vec<_>>().join(", "))
}

fn listed<'n>(names: impl Iterator<Item = &'n String>) -> String {
    format!("[{}]", names.map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", "))
}

const fn huge_pages(huge_pages: HugePages) -> &'static str {
    match huge_pages {
        HugePages::Never => "never",
        HugePages::Try => "try",
        HugePages::Require => "require",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Machine, parse};

    const BASE: &str = r#"(
        host: (name: "a"),
        control: (socket: "/tmp/a.sock"),
        datapaths: [(name: "main", links: ["net", "spare"])],
        links: [
            (name: "net", technology: udp(bind: "10.0.0.1:7400")),
            (name: "spare", technology: tcp(bind: "10.1.0.1:7400")),
        ],
        peers: [
            (name: "b", links: {"net": "10.0.0.2:7400"}),
            (name: "c", links: {"net": "10.0.0.3:7400", "spare": "10.1.0.3:7400"}),
        ],
        domains: [(name: "d", members: [uid(5), gid(7)]), (name: "e", members: [any])],
    )"#;

    fn plan(text: &str) -> Plan {
        parse("x.ron", text, &Machine::unknown()).unwrap_or_else(|findings| panic!("{findings}")).plan
    }

    /// The changes in words, when each text is replaced by the other.
    fn changed(edits: &[(&str, &str)]) -> Vec<(String, Takes)> {
        let mut text = BASE.to_owned();
        for (from, to) in edits {
            assert!(text.contains(from), "{from}");
            text = text.replacen(from, to, 1);
        }
        between(&plan(BASE), &plan(&text)).iter().map(|change| (change.to_string(), change.takes)).collect()
    }

    #[test]
    fn what_is_the_same_in_other_words_is_no_change() {
        assert_eq!(changed(&[]), []);
        let swapped = [
            ("uid(5), gid(7)", "gid(7), uid(5)"),
            (
                "links: {\"net\": \"10.0.0.3:7400\", \"spare\": \"10.1.0.3:7400\"}",
                "links: {\"spare\": \"10.1.0.3:7400\", \"net\": \"10.0.0.3:7400\"}",
            ),
            ("bind: \"10.0.0.1:7400\"", "bind: \"10.0.0.1:7400\", frame_bytes_max: Some(1472)"),
            ("(name: \"b\", links: {\"net\": \"10.0.0.2:7400\"}),", ""),
            ("    ],\n        domains", "   (name: \"b\", links: {\"net\": \"10.0.0.2:7400\"}), ],\n        domains"),
        ];
        assert_eq!(changed(&swapped), [], "order, defaults");
    }

    #[test]
    fn peers_come_go_and_move() {
        let text = |edits: &[(&str, &str)]| {
            let changes = changed(edits);
            assert!(changes.iter().all(|(_, takes)| *takes == Takes::Reload), "{changes:?}");
            changes.into_iter().map(|(text, _)| text).collect::<Vec<_>>()
        };
        assert_eq!(
            text(&[("(name: \"b\", links: {\"net\": \"10.0.0.2:7400\"}),", "")]),
            ["peers[\"b\"]: removed, was links[\"net\"]: 10.0.0.2:7400"]
        );
        assert_eq!(
            text(&[("peers: [", "peers: [(name: \"z\", links: {\"net\": \"10.0.0.9:7400\"}),")]),
            ["peers[\"z\"]: added, links[\"net\"]: 10.0.0.9:7400"]
        );
        assert_eq!(
            text(&[("10.0.0.2:7400", "10.0.0.8:7400"), (", \"spare\": \"10.1.0.3:7400\"", "")]),
            [
                "peers[\"b\"].links[\"net\"]: 10.0.0.2:7400 -> 10.0.0.8:7400",
                "peers[\"c\"].links[\"spare\"]: removed, was 10.1.0.3:7400"
            ]
        );
    }

    #[test]
    fn quotas_and_rules_change_in_units_and_say_for_whom() {
        let changes = changed(&[
            ("members: [any]", "members: [uid(9)], isolation: Some(session), quota: (bytes: 536870912, sinks: 3)"),
            ("host:", "memory: (limit_bytes: 2147483648), host:"),
        ]);
        let texts: Vec<_> = changes.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "memory.limit_bytes: 1 GiB (1_073_741_824 bytes) -> 2 GiB (2_147_483_648 bytes)",
                "domains[\"e\"].isolation: shared -> session",
                "domains[\"e\"].members: [any] -> [uid(9)]",
                "domains[\"e\"].quota.bytes: 256 MiB (268_435_456 bytes) -> 512 MiB (536_870_912 bytes)",
                "domains[\"e\"].quota.sinks: 256 -> 3"
            ]
        );
        assert!(changes.iter().all(|(_, takes)| *takes != Takes::Restart));
        assert!(matches!(changes[2].1, Takes::Later(text) if text.contains("stays")));
    }

    #[test]
    fn declarations_of_streams_change_by_field_and_say_for_whom() {
        let before = "members: [any]";
        let now = "members: [any], streams: [(name: \"axis/*\", priority: 6, reliability: reliable), \
                   (name: \"video\", determinism: time_sensitive(period_ns: 1_000, size_bytes: 9, late: drop))]";
        let changes = changed(&[(before, now)]);
        let words: Vec<_> = changes.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(
            words,
            [
                "domains[\"e\"].streams[\"axis/*\"].priority: added, 6",
                "domains[\"e\"].streams[\"axis/*\"].reliability: added, reliable",
                "domains[\"e\"].streams[\"video\"].determinism: added, time_sensitive(period_ns: 1000, \
                 offset_ns: 0, deadline_ns: 1000, size_bytes: 9, late: drop)",
            ]
        );
        assert_eq!(changes[0].1, Takes::Reload);
        assert!(matches!(changes[1].1, Takes::Later(text) if text.contains("keeps what it has")));
        assert!(matches!(changes[2].1, Takes::Later(_)));
    }

    #[test]
    fn the_policy_changes_by_rule_and_budget_and_takes_no_restart() {
        let policy = "policy: (rules: [(when: (datapath: Some(fast)), order: [xdp, udp], spare_others: true), \
                      (order: [udp])], budgets: {\"spare\": (streams: Some(2))}, silent_ms: 700), host:";
        let changes = changed(&[("host:", policy)]);
        let texts: Vec<_> = changes.iter().map(|(text, _)| text.as_str()).collect();
        assert!(texts[0].ends_with("-> fast: xdp, udp, sparing others"), "{}", texts[0]);
        assert!(texts[1].ends_with("-> all others: udp"), "{}", texts[1]);
        assert!(texts[2].starts_with("policy.rules[2]: removed, was fast: "), "{}", texts[2]);
        assert_eq!(
            texts[5..],
            ["policy.silent_ms: 500.00 ms -> 700.00 ms", "policy.budgets[\"spare\"]: added, 2 streams, any Mbit/s"]
        );
        assert!(changes.iter().all(|(_, takes)| *takes == Takes::Reload));
    }

    /// Every field that memory, threads or sockets are made of.
    #[test]
    fn what_is_made_at_start_needs_a_restart() {
        for (from, to, path) in [
            ("name: \"a\"", "name: \"aa\"", "host.name"),
            ("name: \"a\"", "name: \"a\", id: Some(7)", "host.id"),
            ("/tmp/a.sock", "/tmp/b.sock", "control.socket"),
            ("/tmp/a.sock\"", "/tmp/a.sock\", mode: 0o666", "control.mode"),
            ("/tmp/a.sock\"", "/tmp/a.sock\", state: \"/tmp/s\"", "control.state"),
            ("host:", "memory: (lock: true), host:", "memory.lock"),
            ("host:", "memory: (huge_pages: try), host:", "memory.huge_pages"),
            ("host:", "memory: (prefault: false), host:", "memory.prefault"),
            ("host:", "log: (level: debug), host:", "log.level"),
            ("host:", "clock: (read_max_us: 9), host:", "clock.read_max_us"),
            ("host:", "clock: (holdover_s: 9), host:", "clock.holdover_s"),
            ("host:", "clock: (holdover_phase_us: 9), host:", "clock.holdover_phase_us"),
            ("host:", "clock: (after_holdover: keep), host:", "clock.after_holdover"),
            ("host:", "log: (format: json), host:", "log.format"),
            ("name: \"main\"", "name: \"main\", core: Some(1)", "datapaths[\"main\"].core"),
            ("name: \"main\"", "name: \"main\", policy: fifo(9)", "datapaths[\"main\"].policy"),
            ("name: \"main\"", "name: \"main\", idle: spin_then_block(us: 70)", "datapaths[\"main\"].idle"),
            ("[\"net\", \"spare\"]", "[\"spare\", \"net\"]", "datapaths[\"main\"].links"),
            ("10.0.0.1:7400", "10.0.0.1:7500", "links[\"net\"].bind"),
            ("10.0.0.1:7400\"", "10.0.0.1:7400\", busy_poll_us: 5", "links[\"net\"].busy_poll_us"),
            ("10.0.0.1:7400\"", "10.0.0.1:7400\", launch_lead_us: 5", "links[\"net\"].launch_lead_us"),
            (
                "10.0.0.1:7400\"",
                "10.0.0.1:7400\", multicast: (group: \"239.0.0.1:7400\")",
                "links[\"net\"].multicast.group",
            ),
            ("10.1.0.1:7400\"", "10.1.0.1:7400\", user_timeout_ms: 500", "links[\"spare\"].user_timeout_ms"),
            ("10.1.0.1:7400\"", "10.1.0.1:7400\", frame_bytes_max: 9000", "links[\"spare\"].frame_bytes_max"),
            ("gid(7)]", "gid(7)], receive: Some([(size: 64, count: 9)])", "domains[\"d\"].receive"),
            (
                "(name: \"e\", members: [any])",
                "(name: \"e\", members: [any]), (name: \"f\", members: [any])",
                "domains[\"f\"]",
            ),
        ] {
            let mut text = BASE.to_owned();
            text = text.replacen(from, to, 1);
            let changes = between(&plan(BASE), &plan(&text));
            let found = changes.iter().find(|change| change.path() == path);
            let found = found.unwrap_or_else(|| panic!("{path}: {changes:?}"));
            assert_eq!(found.takes, Takes::Restart, "{path}");
        }
        let reordered = [(
            "(name: \"d\", members: [uid(5), gid(7)]), (name: \"e\", members: [any])",
            "(name: \"e\", members: [any]), (name: \"d\", members: [uid(5), gid(7)])",
        )];
        let changes = changed(&reordered);
        assert_eq!(changes, [("order.domains: [\"d\", \"e\"] -> [\"e\", \"d\"]".to_owned(), Takes::Restart)]);
    }
}
