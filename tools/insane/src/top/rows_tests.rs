//! Rows from made-up reports.

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
    assert_eq!(column(&links, "out/s"), ["-", "-"], "the datapath counts for both");
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
fn streams_and_lanes_have_the_rates_of_their_sources_and_sinks_and_what_went_wrong() {
    use insane_wire::status::{ChannelStatus, SinkStatus, SourceStatus};
    let counters = |counts: &[(&str, u64)]| Some(counts.iter().map(|(n, count)| ((*n).to_owned(), *count)).collect());
    let stream = |name: &str, id: u32, messages: u64| StreamStatus {
        name: name.into(),
        lane: 1,
        channels: vec![ChannelStatus {
            sources: vec![SourceStatus {
                id,
                counters: counters(&[("messages", messages), ("bytes", 2048 * messages), ("dropped", messages / 100)]),
                ..SourceStatus::default()
            }],
            sinks: vec![SinkStatus {
                id,
                session: id,
                counters: counters(&[("messages", messages / 2), ("stale", 1), ("schema_refused", 2)]),
                ..SinkStatus::default()
            }],
            ..ChannelStatus::default()
        }],
        ..StreamStatus::default()
    };
    let with = |streams| StatusReport { streams, ..report(vec![session("a", 1, 0, 0)], 0) };
    let (earlier, now) = (
        with(vec![stream("x", 1, 0), stream("y", 2, 0)]),
        with(vec![stream("x", 1, 1_000), stream("y", 2, 20), stream("new", 3, 5_000)]),
    );
    let streams = Table::Streams.rows(&now, Some((&earlier, 2.0)));
    assert_eq!(column(&streams, "sent/s"), ["500", "10", "-"]);
    assert_eq!(column(&streams, "taken/s"), ["250", "5", "-"]);
    assert_eq!(column(&streams, "bytes/s"), ["1000 KiB", "20 KiB", "-"]);
    assert_eq!(column(&streams, "dropped"), ["10", "0", "50"]);
    assert_eq!((column(&streams, "stale")[0].as_str(), column(&streams, "schema")[0].as_str()), ("1", "2"));
    assert_eq!(streams.columns[streams.sorted], "sent/s");
    let alarms = streams.rows[1].iter().filter(|cell| cell.alarm).count();
    assert_eq!(alarms, 2, "a stale value and a refusal");
    let lanes = Table::Lanes.rows(&now, Some((&earlier, 2.0)));
    assert_eq!((column(&lanes, "sent/s"), column(&lanes, "taken/s")), (vec!["510".into()], vec!["255".into()]));
    assert_eq!((column(&lanes, "dropped"), column(&lanes, "stale")), (vec!["60".into()], vec!["3".into()]));
    let sessions = Table::Sessions.rows(&now, Some((&earlier, 2.0)));
    assert_eq!(column(&sessions, "stale"), ["1"], "its own sink");
    assert_eq!(stale(&now), 3);
    // The next life of the runtime begins with numbers of its own.
    let next_life = StatusReport { pid: 9, ..now.clone() };
    assert_eq!(column(&Table::Streams.rows(&next_life, Some((&earlier, 2.0))), "sent/s"), ["-", "-", "-"]);
}

#[test]
fn a_link_has_the_frames_of_its_datapath_where_it_is_the_only_one() {
    use insane_wire::status::{ChannelStatus, LinkStatus, SourceStatus};
    let with = |messages: u64, frames: u64, links: &[&str]| {
        let mut report = report(Vec::new(), 0);
        let link = |name: &&str| LinkStatus { name: (*name).into(), up: true, ..LinkStatus::default() };
        report.datapaths[0].links = links.iter().map(link).collect();
        let carried = [("frames_sent", frames), ("frames_received", 2 * frames), ("bytes_sent", 1024 * frames)];
        report.datapaths[0].carried = carried.map(|(name, count)| (name.to_owned(), count)).into();
        let counters = Some([("messages".to_owned(), messages)].into());
        let source = SourceStatus { id: 1, counters, ..SourceStatus::default() };
        let channel = ChannelStatus { sources: vec![source], peers: vec!["x".into()], ..ChannelStatus::default() };
        report.streams = vec![StreamStatus {
            links: [("x".to_owned(), "l0".to_owned())].into(),
            channels: vec![channel],
            ..StreamStatus::default()
        }];
        report
    };
    let links = |names: &[&str]| Table::Links.rows(&with(300, 250, names), Some((&with(100, 50, names), 2.0)));
    let one = links(&["l0"]);
    let cell = |name| column(&one, name).remove(0);
    assert_eq!(
        ["offered/s", "out/s", "in/s", "bytes out", "bytes in"].map(cell),
        ["100", "100", "200", "100 KiB", "0 B"]
    );
    let two = links(&["l0", "l1"]);
    assert_eq!(
        (column(&two, "offered/s"), column(&two, "out/s")),
        (vec!["100".into(), "-".into()], vec!["-".into(); 2])
    );
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
