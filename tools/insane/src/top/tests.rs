//! The view, drawn into memory.

use super::view::{Asked, Sample, View};
use insane_wire::status::{
    ChannelStatus, DatapathStatus, DomainStatus, HostStatus, LinkStatus, MemoryStatus, PeerStatus, SessionStatus,
    SinkStatus, SourceStatus, StatusReport, StreamStatus,
};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Color, Modifier};
use std::time::{Duration, Instant};

fn report(messages: u64, sessions: u32) -> StatusReport {
    let session = |id: u32| SessionStatus {
        id,
        name: format!("application-{id:02}"),
        pid: 4_000_000 + id,
        counters: [
            ("messages".to_owned(), messages * u64::from(id)),
            ("bytes".to_owned(), 64 * messages * u64::from(id)),
            ("dropped".to_owned(), if id == 3 { messages } else { 0 }),
        ]
        .into(),
        bytes: 1 << 20,
        ..SessionStatus::default()
    };
    StatusReport {
        version: "0.1.0".into(),
        host: HostStatus { name: "cell-a".into(), ..HostStatus::default() },
        pid: 4711,
        uptime_s: 3_723.0,
        memory: MemoryStatus { used_bytes: 32 << 20, limit_bytes: 512 << 20, ..MemoryStatus::default() },
        datapaths: vec![DatapathStatus {
            name: "real-time".into(),
            core: Some(3),
            counters: [("turns".to_owned(), 10 * messages)].into(),
            links: vec![LinkStatus {
                name: "control-net".into(),
                technology: "udp".into(),
                address: "[2001:db8::1]:7400".into(),
                up: true,
                missing: None,
                counters: [("frames_lost".to_owned(), 3)].into(),
                frame_bytes_max: 1472,
                group: None,
            }],
            ..DatapathStatus::default()
        }],
        domains: vec![DomainStatus {
            name: "line-1".into(),
            sessions: (1..=sessions).map(session).collect(),
            ..DomainStatus::default()
        }],
        streams: vec![StreamStatus {
            name: "axis".into(),
            lane: 1,
            sources: 1,
            channels: vec![ChannelStatus {
                sources: vec![SourceStatus {
                    counters: Some([("messages".to_owned(), messages), ("bytes".to_owned(), 64 * messages)].into()),
                    ..SourceStatus::default()
                }],
                sinks: vec![SinkStatus {
                    session: 1,
                    counters: Some([("messages".to_owned(), messages), ("stale".to_owned(), 1)].into()),
                    ..SinkStatus::default()
                }],
                ..ChannelStatus::default()
            }],
            ..StreamStatus::default()
        }],
        peers: vec![PeerStatus { name: "cell-b".into(), up: true, ..PeerStatus::default() }],
        ..StatusReport::default()
    }
}

struct Screen {
    terminal: Terminal<TestBackend>,
    view: View,
    at: Instant,
}

impl Screen {
    fn new(width: u16, height: u16) -> Screen {
        let terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        Screen { terminal, view: View::new(), at: Instant::now() }
    }

    fn take(&mut self, report: StatusReport) {
        self.at += Duration::from_secs(2);
        self.view.take(Ok(Sample { report, at: self.at }));
    }

    fn press(&mut self, code: KeyCode) -> Asked {
        self.view.press(KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn lines(&mut self) -> Vec<String> {
        self.terminal.draw(|frame| self.view.draw(frame)).unwrap();
        let buffer = self.terminal.backend().buffer();
        let row = |y| (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..buffer.area.height).map(row).map(|line: String| line.trim_end().to_owned()).collect()
    }

    /// First words of the rows of the table.
    fn names(&mut self) -> Vec<String> {
        let rows = &self.lines()[5..];
        let names = rows[..rows.len() - 1].iter().filter_map(|row| row.split_whitespace().next());
        names.map(str::to_owned).collect()
    }
}

#[test]
fn a_screen_of_80_by_24_holds_head_tabs_table_and_keys() {
    let mut screen = Screen::new(80, 24);
    assert_eq!(screen.lines()[0], "waiting for the first report");
    screen.take(report(1_000, 3));
    assert_eq!(screen.lines()[2], "rates come with the second report");
    screen.take(report(3_000, 3));
    let lines = screen.lines();
    assert_eq!(lines.len(), 24);
    assert_eq!(lines[0], "insaned 0.1.0 on cell-a, process 4711, up 1 h 2 min");
    assert_eq!(lines[1], "memory 32 MiB of 512 MiB, sessions 3, streams 1, peers up 1");
    assert_eq!(lines[2], "6000 msg/s, 375 KiB/s, 0 frames/s, 0 wakes/s, 10.0k turns/s, 1000 dropped/s");
    assert_eq!(lines[3], " 1 Sessions   2 Streams   3 Lanes   4 Links   5 Datapaths   6 Domains");
    for head in ["session", "domain", "msg/s▼", "bytes/s", "dropped", "lost", "stale", "overruns"] {
        assert!(lines[4].contains(head), "{head} in {}", lines[4]);
    }
    let cells: Vec<&str> = lines[5].split_whitespace().collect();
    assert_eq!(cells[..5], ["application-03", "line-1", "3000", "187.5", "KiB"], "the busiest first");
    assert!(lines[23].starts_with("q quit  tab/arrows"), "{}", lines[23]);
    assert!(lines[23].ends_with("  stale: 1"), "{}", lines[23]);
    let buffer = screen.terminal.backend().buffer();
    let alarms = (0..80).filter(|x| buffer[(*x, 5)].fg == Color::Red).count();
    assert!(alarms > 0, "what was dropped is red");
    assert!((0..80).all(|x| buffer[(x, 6)].fg != Color::Red));
    assert!(buffer[(0, 5)].modifier.contains(Modifier::REVERSED), "one row is marked");
}

/// What matters most of each table fits the usual terminal, and more a larger one.
#[test]
fn the_columns_that_matter_are_in_sight() {
    let small = [
        &["session", "msg/s", "bytes/s", "dropped", "lost", "stale", "overruns"][..],
        &["stream", "sent/s", "taken/s", "bytes/s", "dropped", "lost", "stale", "schema"],
        &["lane", "group", "sent/s", "taken/s", "bytes/s", "dropped", "lost", "stale", "schema"],
        &["link", "state", "peers up", "round trip", "offered/s", "out/s", "in/s"],
        &["datapath", "turns/s", "busy %", "slots/s", "late", "turn max", "malformed"],
        &["domain", "sources/s", "sinks/s", "bytes out", "bytes in", "dropped", "lost"],
    ];
    let large = [
        &["wakes/s", "refused", "process", "id", "memory"][..],
        &["lane", "kind", "local", "src", "sinks"],
        &["streams", "sources", "sinks", "peers"],
        &["bytes out", "bytes in", "technology"],
        &["core", "idle", "serves"],
        &["wakes/s", "out/s", "in/s", "repairs"],
    ];
    let nothing = [&[][..]; 6];
    for (width, height, heads) in [(80, 24, [small, nothing]), (120, 40, [small, large])] {
        let mut screen = Screen::new(width, height);
        screen.take(report(1_000, 3));
        screen.take(report(2_345_678, 3));
        for (tab, (first, second)) in heads[0].iter().zip(heads[1]).enumerate() {
            screen.press(KeyCode::Char(char::from(b'1' + tab as u8)));
            let lines = screen.lines();
            let shown: Vec<String> = lines[4].split("  ").map(|head| head.trim().replace(['▼', '▲'], "")).collect();
            for head in first.iter().chain(second) {
                assert!(shown.iter().any(|shown| shown == head), "{head} at {width}:\n{}", lines.join("\n"));
            }
        }
    }
}

#[test]
fn keys_choose_table_row_and_order_and_end_it() {
    let mut screen = Screen::new(80, 12);
    screen.take(report(1_000, 9));
    screen.take(report(3_000, 9));
    let name = |id: u32| format!("application-{id:02}");
    assert_eq!(screen.names(), (4..=9).rev().map(name).collect::<Vec<_>>(), "six rows fit");
    screen.press(KeyCode::End);
    assert_eq!(screen.names(), (1..=6).rev().map(name).collect::<Vec<_>>(), "the last row is in sight");
    screen.press(KeyCode::Home);
    screen.press(KeyCode::Char('r'));
    assert_eq!(screen.names()[0], name(1));
    screen.press(KeyCode::Char('r'));
    let column = |screen: &mut Screen| {
        let head = screen.lines()[4].clone();
        head.split_whitespace().find_map(|word| word.strip_suffix(['▼', '▲']).map(str::to_owned))
    };
    assert_eq!(column(&mut screen).as_deref(), Some("msg/s"));
    screen.press(KeyCode::Char('s'));
    assert_eq!(column(&mut screen).as_deref(), Some("bytes/s"));
    screen.press(KeyCode::Char('S'));
    screen.press(KeyCode::Char('S'));
    assert_eq!(column(&mut screen).as_deref(), Some("domain"));
    screen.press(KeyCode::Tab);
    assert_eq!(screen.names(), ["axis"]);
    for (key, shown) in [(KeyCode::Right, "1"), (KeyCode::Right, "control-net"), (KeyCode::Char('5'), "real-time")] {
        screen.press(key);
        assert_eq!(screen.names(), [shown]);
    }
    screen.press(KeyCode::BackTab);
    screen.press(KeyCode::Left);
    assert_eq!(screen.names(), ["1"]);
    assert_eq!(screen.press(KeyCode::Char('x')), Asked::More);
    assert_eq!(screen.press(KeyCode::Char('q')), Asked::End);
    assert_eq!(screen.view.press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Asked::End);
}

#[test]
fn a_runtime_that_is_gone_is_told_and_its_next_life_starts_without_rates() {
    let mut screen = Screen::new(80, 24);
    screen.take(report(1_000, 2));
    screen.take(report(3_000, 2));
    screen.view.take(Err("the runtime is gone\nand more".into()));
    let lines = screen.lines();
    assert_eq!(lines[23], "the runtime is gone; waiting for it to come back; q quits");
    assert!(lines[5].starts_with("application"), "the last report stays in sight");
    screen.take(StatusReport { pid: 4712, ..report(10, 2) });
    let lines = screen.lines();
    assert_eq!(lines[2], "rates come with the second report");
    assert!(lines[23].starts_with("q quit"));
}

#[test]
fn a_pause_holds_the_screen() {
    let mut screen = Screen::new(80, 24);
    screen.take(report(1_000, 2));
    screen.take(report(3_000, 2));
    let before = screen.lines()[..23].to_vec();
    screen.press(KeyCode::Char('p'));
    screen.take(report(9_000, 5));
    assert_eq!(screen.lines()[..23], before);
    assert!(screen.lines()[23].ends_with("PAUSED"));
    screen.press(KeyCode::Char('p'));
    screen.take(report(12_000, 2));
    assert_eq!(screen.lines()[2].split(' ').next(), Some("6750"), "over the four seconds since the last shown");
}

#[test]
fn no_size_of_the_screen_and_no_report_breaks_it() {
    for (width, height) in [(1, 1), (5, 3), (20, 6), (80, 4), (300, 100)] {
        let mut screen = Screen::new(width, height);
        for sessions in [0, 1, 200] {
            screen.take(report(5, sessions));
            for key in [KeyCode::Tab, KeyCode::End, KeyCode::PageUp, KeyCode::Down, KeyCode::Char('s')].repeat(8) {
                screen.press(key);
                screen.lines();
            }
        }
    }
}
