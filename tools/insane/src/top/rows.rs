//! From two reports to rows: pure, without a terminal.
//!
//! Names come from applications: what could steer a terminal is replaced.

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
            Table::Streams => streams(report),
            Table::Lanes => lanes(report),
            Table::Links => links(report),
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
    let Some(rate) = grown(now, earlier, name) else {
        return Cell { text: "-".into(), key: Key::Number(0.0), alarm: false };
    };
    let text = if name.starts_with("bytes") { human(rate as u64) } else { count(rate.round() as u64) };
    Cell { text, key: Key::Number(rate), alarm: false }
}

fn sessions(report: &StatusReport, before: Before<'_>) -> Rows {
    let columns =
        ["session", "domain", "process", "msg/s", "bytes/s", "dropped", "lost", "wakes/s", "refused", "id", "memory"];
    let mut table = Rows::new(&columns, "msg/s");
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
                plain(session.pid.into()),
                per_second(now, earlier, "messages"),
                per_second(now, earlier, "bytes"),
                alarm(number(of(now, "dropped"))),
                alarm(number(of(now, "lost"))),
                per_second(now, earlier, "wakes"),
                number(of(now, "refused")),
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

fn streams(report: &StatusReport) -> Rows {
    let columns =
        ["stream", "lane", "kind", "local", "chan", "src", "sinks", "taps", "peers", "datapath", "memory", "domain"];
    let mut table = Rows::new(&columns, "stream");
    for stream in &report.streams {
        let reliable = stream.qos.as_ref().map_or("-", |qos| &qos.reliability);
        table.rows.push(vec![
            text(&stream.name),
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
    }
    table
}

/// Every lane that has a stream: what its streams have together.
fn lanes(report: &StatusReport) -> Rows {
    let columns = ["lane", "group", "datapath", "streams", "sources", "sinks", "peers", "buffers", "rings"];
    let mut table = Rows::new(&columns, "lane");
    for lane in 0..insane_core::limits::LANES as u8 {
        let of_lane = || report.streams.iter().filter(|stream| stream.lane == lane);
        let Some(first) = of_lane().next() else { continue };
        let mut peers: Vec<&String> = of_lane().flat_map(|stream| &stream.peers).collect();
        peers.sort();
        peers.dedup();
        table.rows.push(vec![
            // Text, so that lane 0 comes first.
            text(lane.to_string()),
            text(if lane < 3 { "real-time" } else { "best-effort" }),
            text(first.datapath.as_deref().unwrap_or("-")),
            plain(of_lane().count() as u64),
            plain(of_lane().map(|stream| u64::from(stream.sources)).sum()),
            plain(of_lane().map(|stream| u64::from(stream.sinks)).sum()),
            plain(peers.len() as u64),
            bytes(of_lane().map(buffers).sum()),
            bytes(of_lane().map(rings).sum()),
        ]);
    }
    table
}

fn links(report: &StatusReport) -> Rows {
    let columns =
        ["link", "datapath", "technology", "address", "frame bytes", "state", "peers up", "round trip", "counted"];
    let mut table = Rows::new(&columns, "link");
    for datapath in &report.datapaths {
        for link in &datapath.links {
            let peers = || report.peers.iter().filter(|peer| peer.links.contains(&link.name));
            // By this very link, where the report says so.
            let way = |peer: &&PeerStatus| peer.ways.iter().find(|way| way.link == link.name).cloned();
            let up = peers().filter(|peer| way(peer).map_or(peer.up, |way| way.up)).count();
            let rtt = peers().filter_map(|peer| way(&peer).map_or(peer.rtt_ns, |way| way.rtt_ns)).max();
            table.rows.push(vec![
                text(&link.name),
                text(&datapath.name),
                text(&link.technology),
                text(&link.address),
                plain(link.frame_bytes_max.into()),
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
                text(counted(link)),
            ]);
        }
    }
    table
}

fn datapaths(report: &StatusReport, before: Before<'_>) -> Rows {
    let columns = [
        "datapath",
        "core",
        "idle",
        "serves",
        "turns/s",
        "busy %",
        "sleeps/s",
        "turn max",
        "malformed",
        "unknown",
        "slots/s",
        "late",
    ];
    let mut table = Rows::new(&columns, "turns/s");
    for datapath in &report.datapaths {
        let earlier = before.and_then(|(report, seconds)| {
            let same = |earlier: &&DatapathStatus| earlier.name == datapath.name;
            Some((&report.datapaths.iter().find(same)?.counters, seconds))
        });
        let now = &datapath.counters;
        let busy = match (grown(now, earlier, "turns"), grown(now, earlier, "turns_idle")) {
            (Some(turns), Some(idle)) if turns > 0.0 => Some((turns - idle).max(0.0) * 100.0 / turns),
            _ => None,
        };
        table.rows.push(vec![
            text(&datapath.name),
            text(datapath.core.map_or("-".to_owned(), |core| core.to_string())),
            text(&datapath.idle),
            text(&datapath.serves),
            per_second(now, earlier, "turns"),
            Cell {
                text: busy.map_or("-".into(), |busy| format!("{busy:.0}")),
                key: Key::Number(busy.unwrap_or(0.0)),
                alarm: false,
            },
            per_second(now, earlier, "sleeps"),
            Cell { text: Nanos(of(now, "turn_ns_max")).to_string(), ..number(of(now, "turn_ns_max")) },
            alarm(number(of(now, "frames_malformed"))),
            alarm(number(of(now, "frames_unknown_peer"))),
            per_second(now, earlier, "slots_sent"),
            alarm(number(late(now))),
        ]);
    }
    table
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
mod tests {
    use super::*;

    fn session(name: &str, id: u32, messages: u64, dropped: u64) -> SessionStatus {
        SessionStatus {
            name: name.into(),
            id,
            counters: [("messages".to_owned(), messages), ("dropped".to_owned(), dropped)].into(),
            ..SessionStatus::default()
        }
    }

    fn report(sessions: Vec<SessionStatus>, turns: u64) -> StatusReport {
        StatusReport {
            domains: vec![DomainStatus { name: "d".into(), sessions, ..DomainStatus::default() }],
            datapaths: vec![DatapathStatus {
                name: "main".into(),
                counters: [("turns".to_owned(), turns), ("turns_idle".to_owned(), turns / 4 * 3)].into(),
                ..DatapathStatus::default()
            }],
            ..StatusReport::default()
        }
    }

    fn column(rows: &Rows, name: &str) -> Vec<String> {
        let at = rows.columns.iter().position(|column| column == name).unwrap();
        rows.rows.iter().map(|row| row[at].text.clone()).collect()
    }

    #[test]
    fn rates_are_differences_of_the_same_life_and_session() {
        let earlier = report(vec![session("a", 1, 100, 0), session("b", 2, 9_000, 0)], 4_000);
        let now = report(vec![session("b", 2, 8_000, 0), session("a", 1, 500, 7), session("c", 3, 50, 0)], 12_000);
        let rows = Table::Sessions.rows(&now, Some((&earlier, 2.0)));
        assert_eq!(column(&rows, "session"), ["b", "a", "c"]);
        assert_eq!(column(&rows, "msg/s"), ["0", "200", "-"], "what fell grew by nothing; who is new has no rate");
        assert_eq!(column(&rows, "dropped"), ["0", "7", "0"]);
        let at = rows.columns.iter().position(|column| column == "dropped").unwrap();
        assert_eq!(rows.rows.iter().map(|row| row[at].alarm).collect::<Vec<_>>(), [false, true, false]);
        let paths = Table::Datapaths.rows(&now, Some((&earlier, 2.0)));
        assert_eq!((column(&paths, "turns/s"), column(&paths, "busy %")), (vec!["4000".into()], vec!["25".into()]));
        let sums = totals(&now, Some((&earlier, 2.0))).unwrap();
        assert_eq!((sums.messages, sums.dropped, sums.turns), (200.0, 3.5, 4_000.0));
        let other_life = StatusReport { pid: 9, ..earlier.clone() };
        assert_eq!(totals(&now, Some((&other_life, 2.0))), None);
        assert_eq!(totals(&now, Some((&earlier, 0.0))), None);
        assert_eq!(column(&Table::Sessions.rows(&now, None), "msg/s"), ["-", "-", "-"]);
    }

    #[test]
    fn rows_are_sorted_by_any_column_both_ways() {
        let earlier = report(vec![session("a", 1, 0, 0), session("b", 2, 0, 0), session("c", 3, 0, 0)], 0);
        let now = report(vec![session("a", 1, 10, 0), session("b", 2, 30, 0), session("c", 3, 20, 0)], 0);
        let mut rows = Table::Sessions.rows(&now, Some((&earlier, 1.0)));
        rows.sort(rows.sorted, false);
        assert_eq!(column(&rows, "session"), ["b", "c", "a"], "the busiest first");
        rows.sort(rows.sorted, true);
        assert_eq!(column(&rows, "session"), ["a", "c", "b"]);
        rows.sort(0, true);
        assert_eq!(column(&rows, "session"), ["c", "b", "a"]);
    }

    #[test]
    fn lanes_add_up_their_streams_and_links_their_peers() {
        use insane_wire::status::{ChannelStatus, LinkStatus, SinkStatus, SourceStatus, WayStatus};
        let stream = |lane, peers: &[&str]| StreamStatus {
            lane,
            sources: 2,
            sinks: 1,
            peers: peers.iter().map(|peer| (*peer).to_owned()).collect(),
            channels: vec![ChannelStatus {
                sources: vec![SourceStatus { heap_bytes: 2048, ..SourceStatus::default() }],
                sinks: vec![SinkStatus { ring_bytes: 1024, ..SinkStatus::default() }],
                ..ChannelStatus::default()
            }],
            ..StreamStatus::default()
        };
        let mut now = report(Vec::new(), 0);
        now.streams = vec![stream(6, &["x"]), stream(0, &[]), stream(6, &["x", "y"])];
        let link = |name: &str, up| LinkStatus { name: name.into(), up, ..LinkStatus::default() };
        now.datapaths[0].links = vec![link("l0", true), link("l1", false)];
        let counts = [("frames_lost", 3), ("sends_repeated", 0), ("trains_sent", 7)];
        now.datapaths[0].links[0].counters = counts.map(|(name, count)| (name.to_owned(), count)).into();
        let peer = |name: &str, up, rtt_ns| PeerStatus {
            name: name.into(),
            up,
            rtt_ns,
            links: vec!["l0".into()],
            ..PeerStatus::default()
        };
        now.peers = vec![peer("x", true, Some(80_000)), peer("y", false, None)];
        let lanes = Table::Lanes.rows(&now, None);
        assert_eq!(column(&lanes, "lane"), ["0", "6"]);
        assert_eq!(column(&lanes, "group"), ["real-time", "best-effort"]);
        assert_eq!(column(&lanes, "sources"), ["2", "4"]);
        assert_eq!(column(&lanes, "peers"), ["0", "2"]);
        assert_eq!((&column(&lanes, "buffers")[1], &column(&lanes, "rings")[1]), (&human(4096), &human(2048)));
        let links = Table::Links.rows(&now, None);
        assert_eq!(column(&links, "peers up"), ["1 of 2", "0 of 0"]);
        assert_eq!(column(&links, "state"), ["up", "down"]);
        assert_eq!(column(&links, "counted"), ["frames lost 3, trains sent 7", "-"], "what is not zero");
        // Where the report knows each link by itself, each counts by itself.
        let way = |link: &str, up, rtt_ns| WayStatus { link: link.into(), up, rtt_ns, ..WayStatus::default() };
        let mut by_way = now.clone();
        by_way.peers[0].links.push("l1".into());
        by_way.peers[0].ways = vec![way("l0", false, None), way("l1", true, Some(7_000))];
        let by_way = Table::Links.rows(&by_way, None);
        assert_eq!(column(&by_way, "peers up"), ["0 of 2", "1 of 1"]);
        assert_eq!(column(&by_way, "round trip"), ["-", "7.0 us"]);
        let alarms: Vec<usize> = links.rows.iter().map(|row| row.iter().filter(|cell| cell.alarm).count()).collect();
        assert_eq!(alarms, [1, 1]);
    }

    #[test]
    fn every_table_takes_an_empty_report_and_names_that_would_steer() {
        for table in Table::ALL {
            assert!(table.rows(&StatusReport::default(), None).rows.is_empty());
            let now = report(vec![session("\u{1b}[2J", 1, 0, 0)], 0);
            for row in table.rows(&now, None).rows {
                assert!(row.iter().all(|cell| !cell.text.contains('\u{1b}')));
            }
        }
    }
}
