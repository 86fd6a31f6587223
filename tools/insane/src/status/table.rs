//! A report as text for people: totals, and rates where two reports are known.
//!
//! Names come from applications: what could steer a terminal is replaced.

use crate::flows::{self, Earlier};
use insane_config::planner::human;
use insane_wire::status::{
    Counters, DatapathStatus, DiscoveryStatus, DomainStatus, LinkStatus, PeerStatus, StatusReport, ThreadStatus, Usage,
};
use std::fmt::Write;

/// An earlier report, and how many seconds ago it came.
pub type Before<'r> = Option<(&'r StatusReport, f64)>;

/// The report as text; with rates if an earlier one is given.
pub fn render(report: &StatusReport, before: Before<'_>) -> String {
    // Counters of an earlier life of the runtime are no base for rates.
    let before = before.filter(|(earlier, seconds)| earlier.pid == report.pid && *seconds > 0.0);
    let mut text = head(report);
    if let Some(other) = insane_wire::status::other_format(report) {
        let _ = writeln!(text, "  ! {}", printable(&other));
    }
    for line in &report.degraded {
        let _ = writeln!(text, "  ! {}", printable(line));
    }
    text += &threads(report);
    text += &datapaths(report, before);
    text += &domains(report, before);
    text += &sessions(report, before);
    text += &placed(report);
    text += &streams(report, before);
    text += &peers(&report.peers);
    text += &report.discovery.as_ref().map(discovery).unwrap_or_default();
    text
}

fn head(report: &StatusReport) -> String {
    let memory = &report.memory;
    let yes = |is: bool, word: &str| if is { format!(", {word}") } else { format!(", not {word}") };
    let huge =
        if memory.huge_pages.is_empty() { String::new() } else { format!(", huge pages: {}", memory.huge_pages) };
    format!(
        "insaned {} on \"{}\" (id {}, life {}), process {}, up {}\n\
         memory {} in {} regions, planned {}, limit {}{}{}{}\n",
        printable(&report.version),
        printable(&report.host.name),
        printable(&report.host.id),
        report.host.incarnation,
        report.pid,
        duration(report.uptime_s),
        human(memory.used_bytes),
        memory.regions,
        human(memory.planned_bytes),
        human(memory.limit_bytes),
        yes(memory.locked, "locked"),
        yes(memory.prefaulted, "prefaulted"),
        printable(&huge),
    )
}

fn threads(report: &StatusReport) -> String {
    let mut table = Table::new("threads", &["tid", "core", "policy"]);
    for thread in &report.threads {
        table.row(&thread.name, vec![thread.tid.to_string(), core(thread.core), policy(thread)]);
    }
    table.finish()
}

fn datapaths(report: &StatusReport, before: Before<'_>) -> String {
    let unit = if before.is_some() { "turns/s" } else { "turns" };
    let sleeps = if before.is_some() { "sleeps/s" } else { "sleeps" };
    let mut table = Table::new(
        "datapaths",
        &["core", "idle", "serves", unit, "idle %", sleeps, "malformed", "unknown peer", "turn max"],
    );
    let mut counts = String::new();
    let mut links = Table::new("links", &["datapath", "technology", "address", "frame bytes", "group", "state"]);
    for datapath in &report.datapaths {
        let earlier = before.and_then(|(report, seconds)| {
            let same = report.datapaths.iter().find(|earlier| earlier.name == datapath.name)?;
            Some((&same.counters, seconds))
        });
        table.row(&datapath.name, datapath_cells(datapath, earlier));
        for link in &datapath.links {
            let group = link.group.as_ref().map_or("-".to_owned(), |group| {
                let heard = if group.hears.is_empty() { "nobody".to_owned() } else { group.hears.join(", ") };
                format!("{}, heard by {heard}", group.address)
            });
            let bytes = link.frame_bytes_max.to_string();
            let cells = [&datapath.name, &link.technology, &link.address, &bytes, &group, state(link)];
            links.row(&link.name, cells.map(str::to_owned).to_vec());
            if link.counters.values().any(|count| *count > 0) {
                let _ = writeln!(counts, "  {} counted: {}", printable(&link.name), counted(link));
            }
        }
    }
    table.finish() + &links.finish() + &counts + &slots(report)
}

/// How a link is, in a word; why it is missing stands among what is degraded.
pub fn state(link: &LinkStatus) -> &'static str {
    match (link.up, &link.missing) {
        (true, _) => "up",
        (false, Some(_)) => "missing",
        (false, None) => "down",
    }
}

/// What a link counted that is not zero.
pub fn counted(link: &LinkStatus) -> String {
    let counted = link.counters.iter().filter(|(_, number)| **number > 0);
    let parts: Vec<String> =
        counted.map(|(name, number)| format!("{} {}", name.replace('_', " "), count(*number))).collect();
    if parts.is_empty() { "-".to_owned() } else { printable(&parts.join(", ")) }
}

/// What became of slots: one block for each datapath that has any, causes only where they are.
fn slots(report: &StatusReport) -> String {
    let mut shown = String::new();
    for datapath in &report.datapaths {
        let now = &datapath.counters;
        let Some(clock) = &datapath.slot_clock else { continue };
        shown += &format!("\nslots of {}\n  slots run by {clock}\n  {}\n", datapath.name, slot_counts(now));
        for (monitor, told) in
            datapath.monitors.iter().filter_map(|monitor| Some((monitor, monitor.measured.as_ref()?)))
        {
            let rests = crate::told::rests_on(told).map_or(String::new(), |what| format!(" ({what})"));
            shown += &format!("  {}: {}{rests}\n", monitor.assumption, crate::told::measured(told));
        }
        for monitor in &datapath.monitors {
            let Some(since) = monitor.out_of_spec_s else { continue };
            let why = monitor.why.as_deref().unwrap_or("");
            let (name, times) = (&monitor.assumption, monitor.violations);
            shown += &format!("  out of spec for {since:.0} s: {name}, {times} times: {why}\n");
        }
        if !datapath.misses.is_empty() {
            let counts: Vec<String> = datapath.misses.iter().map(|(cause, count)| format!("{cause} {count}")).collect();
            shown += &format!("  missed their slots: {}\n", counts.join(", "));
        }
        for miss in &datapath.last_misses {
            shown += &format!("    {:.1} s ago: {}\n", miss.ago_s, crate::misses::words(miss));
        }
    }
    if let Some(schedule) = &report.schedule {
        let state = match (schedule.id.as_str(), schedule.is_armed) {
            ("", _) => "none is in force".to_owned(),
            (id, true) => format!("{id} waits for its instant"),
            (id, false) => format!("{id} is in force, {} streams on all hosts", schedule.streams),
        };
        shown += &format!("\nschedule of several hosts\n  {state}\n");
        if schedule.is_recalled {
            shown += "  taken up again after a restart of the runtime\n";
        }
        if let Some(why) = &schedule.withheld {
            shown += &format!("  nothing is sent in slots: {why}\n");
        }
        if let Some(why) = &schedule.failure {
            shown += &format!("  out of spec: one that was committed is not in force: {why}\n");
        }
    }
    shown
}

/// The counters of slots in one line: those that always mean something, and those that are
/// not zero.
fn slot_counts(now: &Counters) -> String {
    let always = ["slots_sent", "slots_unused"];
    let sometimes = now.iter().filter(|(name, count)| {
        **count > 0
            && !always.contains(&name.as_str())
            && (["late_", "slots_"].iter().any(|part| name.starts_with(part))
                || ["clock_step", "turn_overruns"].contains(&name.as_str()))
    });
    let mut parts: Vec<String> = always.iter().map(|name| format!("{name} {}", of(now, name))).collect();
    parts.extend(sometimes.map(|(name, count)| format!("{name} {count}")));
    parts.push(format!("held for guards {}", insane_core::Nanos(of(now, "guard_ns"))));
    parts.join(", ")
}

fn datapath_cells(datapath: &DatapathStatus, before: Option<(&Counters, f64)>) -> Vec<String> {
    let now = &datapath.counters;
    let moved = |name: &str| of(now, name).saturating_sub(before.map_or(0, |(earlier, _)| of(earlier, name)));
    let idle = match moved("turns") {
        0 => "-".to_owned(),
        turns => format!("{:.0}", moved("turns_idle").min(turns) as f64 * 100.0 / turns as f64),
    };
    vec![
        core(datapath.core),
        datapath.idle.clone(),
        datapath.serves.clone(),
        rate(now, before, "turns"),
        idle,
        rate(now, before, "sleeps"),
        count(of(now, "frames_malformed")),
        count(of(now, "frames_unknown_peer")),
        insane_core::Nanos(of(now, "turn_ns_max")).to_string(),
    ]
}

fn domains(report: &StatusReport, before: Before<'_>) -> String {
    let per = if before.is_some() { "/s" } else { "" };
    let heads = ["from sources", "to sinks", "frames out", "frames in", "bytes out", "bytes in"]
        .map(|head| format!("{head}{per}"));
    let mut columns: Vec<&str> = heads.iter().map(String::as_str).collect();
    columns.extend(["dropped", "lost", "violations"]);
    let mut table = Table::new("domains", &columns);
    let mut notes = String::new();
    for domain in &report.domains {
        let earlier = before.and_then(|(report, seconds)| {
            let same = report.domains.iter().find(|earlier| earlier.name == domain.name)?;
            Some((&same.counters, seconds))
        });
        table.row(&domain.name, domain_cells(domain, earlier));
        notes += &notes_of(domain);
    }
    table.finish() + &notes
}

fn domain_cells(domain: &DomainStatus, before: Option<(&Counters, f64)>) -> Vec<String> {
    let now = &domain.counters;
    let rate = |name: &str| rate(now, before, name);
    vec![
        rate("messages_from_sources"),
        rate("messages_to_sinks"),
        rate("frames_sent"),
        rate("frames_received"),
        rate("bytes_sent"),
        rate("bytes_received"),
        count(drops(now).map(|(_, count)| count).sum()),
        count(of(now, "lost")),
        count(of(now, "violations")),
    ]
}

/// What was dropped and why, and which quotas are in use: a line each.
fn notes_of(domain: &DomainStatus) -> String {
    let mut text = String::new();
    let drops: Vec<String> =
        drops(&domain.counters).map(|(why, n)| format!("{} {}", why.replace('_', " "), count(n))).collect();
    if !drops.is_empty() {
        let _ = writeln!(text, "  {} dropped: {}", printable(&domain.name), printable(&drops.join(", ")));
    }
    let quotas: Vec<String> =
        domain.quotas.iter().filter(|(_, usage)| usage.used + usage.refused > 0).map(quota).collect();
    if !quotas.is_empty() {
        let _ = writeln!(text, "  {} uses: {}", printable(&domain.name), printable(&quotas.join(", ")));
    }
    text
}

pub fn drops(counters: &Counters) -> impl Iterator<Item = (&str, u64)> {
    let dropped = counters.iter().filter(|(_, count)| **count > 0);
    dropped.filter_map(|(name, count)| Some((name.strip_prefix("dropped_")?, *count)))
}

fn quota((name, usage): (&String, &Usage)) -> String {
    let amount = |value: u64| if name == "bytes" { human(value) } else { count(value) };
    let refused = if usage.refused > 0 { format!(" ({} refused)", count(usage.refused)) } else { String::new() };
    // A reload may have made it narrower than what is in use.
    let over = if usage.used > usage.limit { " (over)" } else { "" };
    format!("{name} {} of {}{over}{refused}", amount(usage.used), amount(usage.limit))
}

fn sessions(report: &StatusReport, before: Before<'_>) -> String {
    let messages = if before.is_some() { "messages/s" } else { "messages" };
    let mut table = Table::new(
        "sessions",
        &["domain", "id", "process", "user", "streams", "memory", messages, "dropped", "refused", "lost", "overruns"],
    );
    for domain in &report.domains {
        for session in &domain.sessions {
            let earlier = before.and_then(|(report, seconds)| {
                let all = report.domains.iter().flat_map(|domain| &domain.sessions);
                Some((&all.into_iter().find(|earlier| earlier.id == session.id)?.counters, seconds))
            });
            let now = &session.counters;
            table.row(
                &session.name,
                vec![
                    domain.name.clone(),
                    session.id.to_string(),
                    session.pid.to_string(),
                    if session.outside_rules {
                        format!("{} outside rules", session.uid)
                    } else {
                        session.uid.to_string()
                    },
                    session.streams.to_string(),
                    human(session.bytes),
                    rate(now, earlier, "messages"),
                    count(of(now, "dropped")),
                    count(of(now, "refused")),
                    count(of(now, "lost")),
                    count(of(now, "overruns")),
                ],
            );
        }
    }
    table.finish()
}

/// Threads of sessions that the runtime has placed.
fn placed(report: &StatusReport) -> String {
    let mut table = Table::new("placed threads", &["session", "tid", "core", "policy"]);
    for session in report.domains.iter().flat_map(|domain| &domain.sessions) {
        for thread in &session.threads {
            let policy = policy(thread);
            table.row(&thread.name, vec![session.id.to_string(), thread.tid.to_string(), core(thread.core), policy]);
        }
    }
    table.finish()
}

fn policy(thread: &ThreadStatus) -> String {
    if thread.priority == 0 { thread.policy.clone() } else { format!("{} {}", thread.policy, thread.priority) }
}

fn streams(report: &StatusReport, before: Before<'_>) -> String {
    let earlier = Earlier::new(before);
    let [sent, taken] = if before.is_some() { ["sent/s", "taken/s"] } else { ["sent", "taken"] };
    let columns =
        ["domain", "lane", "sources", "sinks", sent, taken, "dropped", "lost", "stale", "schema", "peers with sinks"];
    let mut table = Table::new("streams", &columns);
    for stream in &report.streams {
        let flow = flows::of_stream(stream, earlier.as_ref());
        let number = |total: u64, rate: Option<f64>| match (before, rate) {
            (None, _) => count(total),
            (Some(_), Some(rate)) => count(rate.round() as u64),
            (Some(_), None) => "-".to_owned(),
        };
        let peers = if stream.peers.is_empty() { "-".to_owned() } else { stream.peers.join(", ") };
        let cells = vec![
            stream.domain.clone(),
            stream.lane.to_string(),
            stream.sources.to_string(),
            stream.sinks.to_string(),
            number(flow.sent, flow.sent_rate),
            number(flow.taken, flow.taken_rate),
            count(flow.dropped),
            count(flow.lost),
            count(flow.stale),
            count(flow.schema),
            peers,
        ];
        table.row(&stream.name, cells);
    }
    table.finish()
}

fn peers(peers: &[PeerStatus]) -> String {
    let mut table = Table::new("peers", &["state", "life", "round trip", "heard", "source", "links"]);
    for peer in peers {
        let state = if peer.up { "up" } else { "down" };
        let life = if peer.incarnation == 0 { "-".to_owned() } else { peer.incarnation.to_string() };
        let rtt = peer.rtt_ns.map_or("-".to_owned(), |ns| insane_core::Nanos(ns).to_string());
        let heard =
            peer.heard_ms_ago.map_or("never".to_owned(), |ms| format!("{} ago", insane_core::Nanos::from_millis(ms)));
        table.row(&peer.name, vec![state.to_owned(), life, rtt, heard, peer.source.clone(), links(peer)]);
    }
    let mut text = table.finish();
    for peer in peers {
        if let Some(why) = &peer.why_down {
            text += &format!("  {} is down: {}\n", printable(&peer.name), printable(why));
        }
    }
    text
}

/// How others are found, and who was refused.
fn discovery(discovery: &DiscoveryStatus) -> String {
    let seed = |seed: &insane_wire::status::SeedStatus| format!("{} ({})", seed.address, seed.state);
    let seeds: Vec<String> = discovery.seeds.iter().map(seed).collect();
    let number = |name: &str| count(of(&discovery.counters, name));
    let refused = discovery.counters.iter().filter(|(name, _)| name.starts_with("refused_"));
    let mut text = format!(
        "\ndiscovery by {} at {}, cluster \"{}\"{}: {} hosts heard of, {} of at most {} peers\n  allow {}\n  seeds {}\n  \
         facts {} ({} refused, {} dropped); datagrams {}, of those outside {}, malformed {}, too many {}\n",
        printable(&discovery.backend),
        printable(&discovery.bind),
        printable(&discovery.cluster),
        if discovery.ended { ", ENDED" } else { "" },
        discovery.hosts,
        discovery.found.len(),
        discovery.peers_max,
        printable(&discovery.allow.join(", ")),
        if seeds.is_empty() { "none".to_owned() } else { printable(&seeds.join(", ")) },
        number("facts"),
        count(refused.map(|(_, times)| times).sum()),
        number("facts_dropped"),
        number("datagrams_received"),
        number("datagrams_outside"),
        number("datagrams_malformed"),
        number("datagrams_flooded"),
    );
    let mut table = Table::new("refused", &["from", "times", "last", "why"]);
    for host in &discovery.refused {
        let name = if host.name.is_empty() { "?" } else { &host.name };
        let last = format!("{} ago", insane_core::Nanos::from_millis(host.ms_ago));
        table.row(name, vec![host.from.clone(), count(host.times), last, host.why.clone()]);
    }
    text += &table.finish();
    text
}

/// The links to a peer; where there are several, with what each is and by which the overlay
/// speaks.
fn links(peer: &PeerStatus) -> String {
    if peer.ways.len() < 2 {
        return peer.links.join(", ");
    }
    let link = |way: &insane_wire::status::WayStatus| {
        let state = if way.up { "up" } else { "down" };
        let rtt = way.rtt_ns.map_or(String::new(), |ns| format!(" {}", insane_core::Nanos(ns)));
        let speaks = if way.speaks { ", overlay" } else { "" };
        format!("{} ({state}{rtt}{speaks})", way.link)
    };
    peer.ways.iter().map(link).collect::<Vec<_>>().join(", ")
}

pub fn of(counters: &Counters, name: &str) -> u64 {
    counters.get(name).copied().unwrap_or(0)
}

/// The total, or what came in a second since the earlier report.
fn rate(now: &Counters, before: Option<(&Counters, f64)>, name: &str) -> String {
    let total = of(now, name);
    let value = match before {
        Some((earlier, seconds)) => total.saturating_sub(of(earlier, name)) as f64 / seconds,
        None => total as f64,
    };
    if name.starts_with("bytes") { human(value as u64) } else { count(value.round() as u64) }
}

/// A number as a person reads it at a glance: `1234`, `56.7k`, `8.9M`.
pub fn count(value: u64) -> String {
    match value {
        0..=9_999 => value.to_string(),
        10_000..=999_949 => format!("{:.1}k", value as f64 / 1e3),
        999_950..=999_949_999 => format!("{:.1}M", value as f64 / 1e6),
        _ => format!("{:.1}G", value as f64 / 1e9),
    }
}

fn core(core: Option<u16>) -> String {
    core.map_or("-".to_owned(), |core| core.to_string())
}

pub fn duration(seconds: f64) -> String {
    let whole = if seconds.is_finite() { seconds.max(0.0) as u64 } else { 0 };
    let (days, hours, minutes) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60);
    match whole {
        0..=59 => format!("{:.1} s", seconds.max(0.0)),
        60..=3_599 => format!("{minutes} min {} s", whole % 60),
        3_600..=86_399 => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Columns as wide as their content: names to the left, numbers to the right.
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(title: &str, columns: &[&str]) -> Table {
        let head = std::iter::once(title.to_uppercase()).chain(columns.iter().map(|column| (*column).to_owned()));
        Table { rows: vec![head.collect()] }
    }

    fn row(&mut self, name: &str, cells: Vec<String>) {
        let cells = cells.iter().map(|cell| printable(cell));
        self.rows.push(std::iter::once(format!("  {}", printable(name))).chain(cells).collect());
    }

    /// The text; nothing if there are no rows.
    fn finish(self) -> String {
        if self.rows.len() == 1 {
            return String::new();
        }
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
        let numeric: Vec<bool> = (0..widths.len()).map(|column| self.is_numeric(column)).collect();
        let mut text = String::from("\n");
        for row in &self.rows {
            let cell = |(column, text): (usize, &String)| {
                if numeric[column] {
                    format!("{text:>w$}", w = widths[column])
                } else {
                    format!("{text:<w$}", w = widths[column])
                }
            };
            let cells: Vec<String> = row.iter().enumerate().map(cell).collect();
            let _ = writeln!(text, "{}", cells.join("  ").trim_end());
        }
        text
    }

    /// Whether every cell below the head starts with a digit, or stands for none.
    fn is_numeric(&self, column: usize) -> bool {
        let mut cells = self.rows[1..].iter().map(|row| &row[column]);
        cells.all(|cell| {
            cell == "-" || cell == "never" || cell.starts_with(|c: char| c.is_ascii_digit()) && !cell.contains(':')
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0, "0"),
            (9_999, "9999"),
            (10_000, "10.0k"),
            (999_949, "999.9k"),
            (999_950, "1.0M"),
            (2_500_000_000, "2.5G"),
        ];
        for (value, text) in cases {
            assert_eq!(count(value), text);
        }
        assert_eq!(duration(5.25), "5.2 s");
        assert_eq!(duration(3_723.0), "1 h 2 min");
        assert_eq!(duration(f64::NAN), "0.0 s");
    }

    #[test]
    fn rates_need_an_earlier_report_of_the_same_life() {
        let mut now = StatusReport { pid: 5, ..StatusReport::default() };
        let domain = |from: u64| DomainStatus {
            name: "d".into(),
            counters: [("messages_from_sources".to_owned(), from)].into(),
            ..DomainStatus::default()
        };
        now.domains = vec![domain(3_000)];
        let mut earlier = now.clone();
        earlier.domains = vec![domain(1_000)];
        let line = |text: &str| {
            text.lines().find(|line| line.starts_with("  d")).unwrap().split_whitespace().nth(1).unwrap().to_owned()
        };
        assert_eq!(line(&render(&now, None)), "3000");
        assert_eq!(line(&render(&now, Some((&earlier, 2.0)))), "1000");
        earlier.pid = 4;
        assert_eq!(line(&render(&now, Some((&earlier, 2.0)))), "3000");
    }

    #[test]
    fn a_report_of_another_format_and_a_peer_of_another_version_are_told_of() {
        let format = insane_wire::status::FORMAT;
        let of = |format, peers| render(&StatusReport { format, peers, ..StatusReport::default() }, None);
        assert!(!of(format, vec![]).contains("format"));
        let text = of(format + 1, vec![]);
        let both = format!("reports in format {}, this tool reads format {format}", format + 1);
        assert!(text.contains(&both) && text.contains("Take both from one build"), "{text}");
        let why_down = Some("it sends frames of version 9".to_owned());
        let text = of(format, vec![PeerStatus { name: "cell-b".into(), why_down, ..PeerStatus::default() }]);
        assert!(text.contains("\n  cell-b is down: it sends frames of version 9\n"), "{text}");
    }

    #[test]
    fn names_of_applications_cannot_steer_the_terminal() {
        let report = StatusReport { degraded: vec!["\u{1b}[2J".into()], ..StatusReport::default() };
        assert!(!render(&report, None).contains('\u{1b}'));
    }
}
