//! From two reports to rows: pure, without a terminal.
//!
//! Names come from applications: what could steer a terminal is replaced.

use crate::flows::{self, Earlier, Flow};
use crate::status::table::{Before, count, counted, drops, of, printable, state};
use insane_config::planner::human;
use insane_core::Nanos;
use insane_wire::status::{
    Counters, DatapathStatus, DomainStatus, PeerStatus, SessionStatus, StatusReport, StreamStatus,
};
use std::cmp::Ordering;

/// What a cell is sorted by.
#[derive(Clone, PartialEq, Debug)]
pub enum Key {
    /// The largest first.
    Number(f64),
    /// By the alphabet.
    Text,
}

/// One cell.
#[derive(Clone, PartialEq, Debug)]
pub struct Cell {
    /// What is shown.
    pub text: String,
    /// What it is sorted by.
    pub key: Key,
    /// Something is wrong there.
    pub alarm: bool,
}

fn text(text: impl AsRef<str>) -> Cell {
    Cell { text: printable(text.as_ref()), key: Key::Text, alarm: false }
}

fn number(value: u64) -> Cell {
    Cell { text: count(value), key: Key::Number(value as f64), alarm: false }
}

/// A number that is shown as it is: an identifier, a lane.
fn plain(value: u64) -> Cell {
    Cell { text: value.to_string(), ..number(value) }
}

fn bytes(value: u64) -> Cell {
    Cell { text: human(value), ..number(value) }
}

/// Something that ought to be 0.
fn alarm(cell: Cell) -> Cell {
    Cell { alarm: matches!(cell.key, Key::Number(value) if value > 0.0), ..cell }
}

/// One table.
#[derive(Clone, PartialEq, Debug)]
pub struct Rows {
    /// Names of the columns, the first one that of the rows.
    pub columns: Vec<String>,
    /// The rows, as the report has them.
    pub rows: Vec<Vec<Cell>>,
    /// The column that it is sorted by at first.
    pub sorted: usize,
}

impl Rows {
    fn new(columns: &[&str], sorted: &str) -> Rows {
        let columns: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
        let sorted = columns.iter().position(|column| column == sorted).unwrap_or(0);
        Rows { columns, rows: Vec::new(), sorted }
    }

    /// Whether a column holds numbers, which stand to the right.
    pub fn is_numeric(&self, column: usize) -> bool {
        self.rows.iter().all(|row| matches!(row[column].key, Key::Number(_)))
    }

    /// Sorts by a column, numbers falling, text rising, or the other way round. Equal rows
    /// keep their order.
    pub fn sort(&mut self, column: usize, reversed: bool) {
        let by = |a: &Vec<Cell>, b: &Vec<Cell>| {
            let order = match (&a[column].key, &b[column].key) {
                (Key::Number(a), Key::Number(b)) => b.total_cmp(a),
                (Key::Text, Key::Text) => a[column].text.cmp(&b[column].text),
                (Key::Number(_), Key::Text) => Ordering::Less,
                (Key::Text, Key::Number(_)) => Ordering::Greater,
            };
            if reversed { order.reverse() } else { order }
        };
        self.rows.sort_by(by);
    }
}

/// The tables, in the order of their tabs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Table {
    /// Applications.
    Sessions,
    /// Streams.
    Streams,
    /// Lanes that streams are in.
    Lanes,
    /// Links.
    Links,
    /// Datapaths.
    Datapaths,
    /// Tenants.
    Domains,
}

impl Table {
    /// All of them.
    pub const ALL: [Table; 6] =
        [Table::Sessions, Table::Streams, Table::Lanes, Table::Links, Table::Datapaths, Table::Domains];

    /// Its title.
    pub const fn title(self) -> &'static str {
        match self {
            Table::Sessions => "Sessions",
            Table::Streams => "Streams",
            Table::Lanes => "Lanes",
            Table::Links => "Links",
            Table::Datapaths => "Datapaths",
            Table::Domains => "Domains",
        }
    }

    /// Its rows.
    pub fn rows(self, report: &StatusReport, before: Before<'_>) -> Rows {
        let before = of_same_life(report, before);
        match self {
            Table::Sessions => sessions(report, before),
            Table::Streams => streams(report, before),
            Table::Lanes => lanes(report, before),
            Table::Links => links(report, before),
            Table::Datapaths => datapaths(report, before),
            Table::Domains => domains(report, before),
        }
    }
}

/// Counters of an earlier life of the runtime are no base for rates.
fn of_same_life<'r>(report: &StatusReport, before: Before<'r>) -> Before<'r> {
    before.filter(|(earlier, seconds)| {
        (earlier.pid, earlier.host.incarnation) == (report.pid, report.host.incarnation) && *seconds > 0.0
    })
}

/// How much a counter grew in a second; `None` before the second report. Counters of
/// clients are claims: one that fell grew by nothing.
fn grown(now: &Counters, earlier: Option<(&Counters, f64)>, name: &str) -> Option<f64> {
    let (earlier, seconds) = earlier?;
    Some(of(now, name).saturating_sub(of(earlier, name)) as f64 / seconds)
}

fn per_second(now: &Counters, earlier: Option<(&Counters, f64)>, name: &str) -> Cell {
    let rate = grown(now, earlier, name);
    if name.starts_with("bytes") { byte_rate(rate) } else { rate_of(rate) }
}

/// Of something that is counted; `None`: it is not known.
fn rate_of(rate: Option<f64>) -> Cell {
    let text = rate.map_or("-".into(), |rate| count(rate.round() as u64));
    Cell { text, key: Key::Number(rate.unwrap_or(0.0)), alarm: false }
}

fn byte_rate(rate: Option<f64>) -> Cell {
    Cell { text: rate.map_or("-".into(), |rate| human(rate as u64)), ..rate_of(rate) }
}

/// Messages sent and taken, bytes, and what went wrong.
fn flow_cells(flow: &Flow) -> [Cell; 7] {
    [
        rate_of(flow.sent_rate),
        rate_of(flow.taken_rate),
        byte_rate(flow.bytes_rate),
        alarm(number(flow.dropped)),
        alarm(number(flow.lost)),
        alarm(number(flow.stale)),
        alarm(number(flow.schema)),
    ]
}

fn sessions(report: &StatusReport, before: Before<'_>) -> Rows {
    let columns = [
        "session", "domain", "msg/s", "bytes/s", "dropped", "lost", "stale", "overruns", "wakes/s", "refused",
        "process", "id", "memory",
    ];
    let mut table = Rows::new(&columns, "msg/s");
    let stale = flows::stale_by_session(report);
    for domain in &report.domains {
        for session in &domain.sessions {
            let all = before.map(|(report, seconds)| (report.domains.iter().flat_map(|d| &d.sessions), seconds));
            let earlier = all.and_then(|(mut all, seconds)| {
                Some((&all.find(|earlier: &&SessionStatus| earlier.id == session.id)?.counters, seconds))
            });
            let now = &session.counters;
            table.rows.push(vec![
                text(&session.name),
                text(&domain.name),
                per_second(now, earlier, "messages"),
                per_second(now, earlier, "bytes"),
                alarm(number(of(now, "dropped"))),
                alarm(number(of(now, "lost"))),
                alarm(number(stale.get(&session.id).copied().unwrap_or(0))),
                alarm(number(of(now, "overruns"))),
                per_second(now, earlier, "wakes"),
                number(of(now, "refused")),
                plain(session.pid.into()),
                plain(session.id.into()),
                bytes(session.bytes),
            ]);
        }
    }
    table
}

fn buffers(stream: &StreamStatus) -> u64 {
    let sources = stream.channels.iter().flat_map(|channel| &channel.sources);
    sources.map(|source| source.heap_bytes).sum()
}

fn rings(stream: &StreamStatus) -> u64 {
    stream.channels.iter().flat_map(|channel| &channel.sinks).map(|sink| sink.ring_bytes).sum()
}

fn streams(report: &StatusReport, before: Before<'_>) -> Rows {
    let columns = [
        "stream", "sent/s", "taken/s", "bytes/s", "dropped", "lost", "stale", "schema", "lane", "kind", "local",
        "chan", "src", "sinks", "taps", "peers", "datapath", "memory", "domain",
    ];
    let mut table = Rows::new(&columns, "sent/s");
    let earlier = Earlier::new(before);
    for stream in &report.streams {
        let reliable = stream.qos.as_ref().map_or("-", |qos| &qos.reliability);
        let mut row = vec![text(&stream.name)];
        row.extend(flow_cells(&flows::of_stream(stream, earlier.as_ref())));
        row.extend([
            plain(stream.lane.into()),
            text(reliable),
            text(if stream.isolated { "copied" } else { "direct" }),
            plain(stream.channels.len() as u64),
            plain(stream.sources.into()),
            plain(stream.sinks.into()),
            plain(stream.taps.into()),
            plain(stream.peers.len() as u64),
            text(stream.datapath.as_deref().unwrap_or("-")),
            bytes(buffers(stream) + rings(stream)),
            text(&stream.domain),
        ]);
        table.rows.push(row);
    }
    table
}

/// Every lane that has a stream: what its streams have together.
fn lanes(report: &StatusReport, before: Before<'_>) -> Rows {
    let columns = [
        "lane", "group", "sent/s", "taken/s", "bytes/s", "dropped", "lost", "stale", "schema", "streams", "sources",
        "sinks", "peers", "datapath", "buffers", "rings",
    ];
    let mut table = Rows::new(&columns, "lane");
    let earlier = Earlier::new(before);
    for lane in 0..insane_core::limits::LANES as u8 {
        let of_lane = || report.streams.iter().filter(|stream| stream.lane == lane);
        let Some(first) = of_lane().next() else { continue };
        let mut peers: Vec<&String> = of_lane().flat_map(|stream| &stream.peers).collect();
        peers.sort();
        peers.dedup();
        let flow = of_lane().map(|stream| flows::of_stream(stream, earlier.as_ref())).fold(Flow::default(), Flow::and);
        // Text, so that lane 0 comes first.
        let mut row = vec![text(lane.to_string()), text(if lane < 3 { "real-time" } else { "best-effort" })];
        row.extend(flow_cells(&flow));
        row.extend([
            plain(of_lane().count() as u64),
            plain(of_lane().map(|stream| u64::from(stream.sources)).sum()),
            plain(of_lane().map(|stream| u64::from(stream.sinks)).sum()),
            plain(peers.len() as u64),
            text(first.datapath.as_deref().unwrap_or("-")),
            bytes(of_lane().map(buffers).sum()),
            bytes(of_lane().map(rings).sum()),
        ]);
        table.rows.push(row);
    }
    table
}

/// A datapath counts its frames as a whole: they are a link's where it has no other.
fn links(report: &StatusReport, before: Before<'_>) -> Rows {
    let columns = [
        "link",
        "datapath",
        "state",
        "peers up",
        "round trip",
        "offered/s",
        "out/s",
        "in/s",
        "bytes out",
        "bytes in",
        "technology",
        "address",
        "frame bytes",
        "counted",
    ];
    let mut table = Rows::new(&columns, "link");
    let flows = Earlier::new(before);
    for datapath in &report.datapaths {
        let earlier = earlier_datapath(datapath, before).filter(|_| datapath.links.len() == 1);
        let carried = earlier.map(|(earlier, seconds)| (&earlier.carried, seconds));
        for link in &datapath.links {
            let per_second = |name| per_second(&datapath.carried, carried, name);
            let peers = || report.peers.iter().filter(|peer| peer.links.contains(&link.name));
            // By this very link, where the report says so.
            let way = |peer: &&PeerStatus| peer.ways.iter().find(|way| way.link == link.name).cloned();
            let up = peers().filter(|peer| way(peer).map_or(peer.up, |way| way.up)).count();
            let rtt = peers().filter_map(|peer| way(&peer).map_or(peer.rtt_ns, |way| way.rtt_ns)).max();
            table.rows.push(vec![
                text(&link.name),
                text(&datapath.name),
                Cell { alarm: !link.up, ..text(state(link)) },
                Cell {
                    text: format!("{up} of {}", peers().count()),
                    key: Key::Number(up as f64),
                    alarm: up < peers().count(),
                },
                Cell {
                    text: rtt.map_or("-".into(), |ns| Nanos(ns).to_string()),
                    key: Key::Number(rtt.unwrap_or(0) as f64),
                    alarm: false,
                },
                rate_of(flows::offered_to(report, &link.name, flows.as_ref()).sent_rate),
                per_second("frames_sent"),
                per_second("frames_received"),
                per_second("bytes_sent"),
                per_second("bytes_received"),
                text(&link.technology),
                text(&link.address),
                plain(link.frame_bytes_max.into()),
                text(counted(link)),
            ]);
        }
    }
    table
}

fn datapaths(report: &StatusReport, before: Before<'_>) -> Rows {
    let columns = [
        "datapath",
        "turns/s",
        "busy %",
        "slots/s",
        "late",
        "turn max",
        "sleeps/s",
        "malformed",
        "unknown",
        "core",
        "idle",
        "serves",
    ];
    let mut table = Rows::new(&columns, "turns/s");
    for datapath in &report.datapaths {
        let earlier = earlier_datapath(datapath, before).map(|(earlier, seconds)| (&earlier.counters, seconds));
        let now = &datapath.counters;
        let busy = match (grown(now, earlier, "turns"), grown(now, earlier, "turns_idle")) {
            (Some(turns), Some(idle)) if turns > 0.0 => Some((turns - idle).max(0.0) * 100.0 / turns),
            _ => None,
        };
        table.rows.push(vec![
            text(&datapath.name),
            per_second(now, earlier, "turns"),
            Cell {
                text: busy.map_or("-".into(), |busy| format!("{busy:.0}")),
                key: Key::Number(busy.unwrap_or(0.0)),
                alarm: false,
            },
            per_second(now, earlier, "slots_sent"),
            alarm(number(late(now))),
            Cell { text: Nanos(of(now, "turn_ns_max")).to_string(), ..number(of(now, "turn_ns_max")) },
            per_second(now, earlier, "sleeps"),
            alarm(number(of(now, "frames_malformed"))),
            alarm(number(of(now, "frames_unknown_peer"))),
            text(datapath.core.map_or("-".to_owned(), |core| core.to_string())),
            text(&datapath.idle),
            text(&datapath.serves),
        ]);
    }
    table
}

fn earlier_datapath<'r>(datapath: &DatapathStatus, before: Before<'r>) -> Option<(&'r DatapathStatus, f64)> {
    let (report, seconds) = before?;
    Some((report.datapaths.iter().find(|earlier| earlier.name == datapath.name)?, seconds))
}

/// Slots missed and messages late, of all causes; what became of them is not counted again.
fn late(counters: &Counters) -> u64 {
    let outcomes = ["late_sent", "late_dropped", "late_replaced"];
    let causes = counters.iter().filter(|(name, _)| name.starts_with("late_") && !outcomes.contains(&name.as_str()));
    causes.fold(0, |sum, (_, count)| sum.saturating_add(*count))
}

fn dropped(counters: &Counters) -> u64 {
    drops(counters).fold(0, |sum, (_, count)| sum.saturating_add(count))
}

fn domains(report: &StatusReport, before: Before<'_>) -> Rows {
    let columns = [
        "domain",
        "sources/s",
        "sinks/s",
        "bytes out",
        "bytes in",
        "dropped",
        "lost",
        "wakes/s",
        "out/s",
        "in/s",
        "repairs",
    ];
    let mut table = Rows::new(&columns, "domain");
    for domain in &report.domains {
        let earlier = earlier_domain(domain, before);
        let now = &domain.counters;
        table.rows.push(vec![
            text(&domain.name),
            per_second(now, earlier, "messages_from_sources"),
            per_second(now, earlier, "messages_to_sinks"),
            per_second(now, earlier, "bytes_sent"),
            per_second(now, earlier, "bytes_received"),
            alarm(number(dropped(now))),
            alarm(number(of(now, "lost"))),
            per_second(now, earlier, "wakes"),
            per_second(now, earlier, "frames_sent"),
            per_second(now, earlier, "frames_received"),
            number(of(now, "repairs")),
        ]);
    }
    table
}

fn earlier_domain<'r>(domain: &DomainStatus, before: Before<'r>) -> Option<(&'r Counters, f64)> {
    let (report, seconds) = before?;
    Some((&report.domains.iter().find(|earlier| earlier.name == domain.name)?.counters, seconds))
}

/// Sinks whose value is stale, of all sessions.
pub fn stale(report: &StatusReport) -> u64 {
    flows::stale_by_session(report).into_values().sum()
}

/// What happens in a second, all together.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Totals {
    /// Messages that sessions sent and received.
    pub messages: f64,
    /// Their bytes.
    pub bytes: f64,
    /// Frames to and from other hosts.
    pub frames: f64,
    /// Messages dropped, by sources and by datapaths.
    pub dropped: f64,
    /// Sleepers woken, by sources and by datapaths.
    pub wakes: f64,
    /// Turns of all datapaths.
    pub turns: f64,
}

/// The totals; `None` before the second report.
pub fn totals(report: &StatusReport, before: Before<'_>) -> Option<Totals> {
    let before = of_same_life(report, before)?;
    let mut totals = Totals::default();
    let (earlier, seconds) = before;
    for domain in &report.domains {
        if let Some(counters) = earlier_domain(domain, Some(before)) {
            let rate = |name| grown(&domain.counters, Some(counters), name).unwrap_or(0.0);
            totals.frames += rate("frames_sent") + rate("frames_received");
            totals.wakes += rate("wakes");
            totals.dropped += dropped(&domain.counters).saturating_sub(dropped(counters.0)) as f64 / seconds;
        }
        let sessions = || earlier.domains.iter().flat_map(|domain| &domain.sessions);
        for session in &domain.sessions {
            let Some(same) = sessions().find(|earlier| earlier.id == session.id) else { continue };
            let rate = |name| grown(&session.counters, Some((&same.counters, seconds)), name).unwrap_or(0.0);
            totals.messages += rate("messages");
            totals.bytes += rate("bytes");
            totals.dropped += rate("dropped");
            totals.wakes += rate("wakes");
        }
    }
    for datapath in &report.datapaths {
        let same = earlier.datapaths.iter().find(|earlier| earlier.name == datapath.name);
        let counters = same.map(|same| (&same.counters, seconds));
        totals.turns += grown(&datapath.counters, counters, "turns").unwrap_or(0.0);
    }
    Some(totals)
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
