//! Every kind of wrong configuration: the message, its place, and what would be right.

mod datapaths;
mod domains;
mod links;
mod peers;
mod policy;

use insane_config::{Diagnostic, Findings, LoadError, Machine, Severity, load, parse};
use std::path::Path;

fn machine() -> Machine {
    Machine { hostname: "box".into(), cores: Some(vec![0, 1]), ..Machine::unknown() }
}

fn findings(text: &str) -> Findings {
    match parse("x.ron", text, &machine()) {
        Ok(loaded) => loaded.warnings,
        Err(findings) => findings,
    }
}

/// The only thing wrong with the text.
#[track_caller]
fn only(text: &str) -> Diagnostic {
    let findings = findings(text);
    assert_eq!(findings.0.len(), 1, "{findings}");
    findings.0[0].clone()
}

/// Text, then line:column, path, message, and how what is accepted starts.
#[track_caller]
fn expect(text: &str, place: &str, path: &str, message: &str, accepted: &str) {
    let found = only(text);
    assert_eq!(found.severity, Severity::Error);
    assert_eq!(found.message, message);
    assert_eq!(format!("{}:{}", found.line, found.column), place, "{found}");
    assert_eq!(found.path, path);
    assert!(found.accepted.starts_with(accepted), "{found}");
}

const PORT: &str = "an IP address of this machine and a port from 1 to 65534";

#[test]
fn a_finding_is_shown_as_compilers_do() {
    let text = "(\n    memory: (\n        prefualt: true,\n    ),\n)\n";
    assert_eq!(
        only(text).to_string(),
        "error: memory.prefualt: there is no field `prefualt` in `memory`; did you mean `prefault`?\n\
         \x20--> x.ron:3:9\n\
         \x20 |\n\
         3 |         prefualt: true,\n\
         \x20 |         ^^^^^^^^\n\
         \x20 = accepted: limit_bytes, lock, huge_pages, prefault\n"
    );
    assert!(only(text).render(true).contains("\x1b[1;31merror\x1b[0m"));
    assert_eq!(only("(control: (mode: 7))").value, "7");
}

#[test]
fn every_field_that_cannot_be_read_is_told_and_nothing_that_only_follows_from_it() {
    let text = "(\n  hoszt: (name: \"ä\"), control: (mdoe: 0o660),\n  memory: (prefualt: true /* , */ ),\n\
                \x20 datapaths: [(nmae: \"a\", idle: sleepy, serves: all, links: [])],\n\
                \x20 links: [(name: \"l\", technology: udp(bind: \"127.0.0.1:7\", frame_bytes_max: 99_999_999_999))],\n\
                \x20 domains: [(name: \"d\", members: [uid(-1)])],\n)";
    let found: Vec<String> =
        findings(text).0.iter().map(|one| format!("{}:{} {}", one.line, one.column, one.path)).collect();
    assert_eq!(
        found,
        ["2:3 hoszt", "2:33 control.mdoe", "3:12 memory.prefualt", "4:16 datapaths[0].nmae", "4:33 datapaths[0].idle"]
    );
    let two = findings("(memory: (lock: 7, limit_bytes: 99_999_999_999_999_999_999))");
    assert_eq!(two.0.len(), 2, "{two}");
    for between in ["/* x */ ", " // x, y\n "] {
        let two = findings(&format!("(memory: (prefualt: true {between}, lock: 7))"));
        let paths: Vec<&str> = two.0.iter().map(|one| one.path.as_str()).collect();
        assert_eq!(paths, ["memory.prefualt", "memory.lock"], "{two}");
    }
}

#[test]
fn a_missing_file_is_named_with_the_reason() {
    let error = load(Path::new("/nowhere/x.ron"), &machine()).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("error: cannot read the configuration /nowhere/x.ron: No such file"), "{text}");
    assert!(matches!(load(Path::new("/dev/zero"), &machine()), Err(LoadError::TooLarge { .. })));
    assert!(matches!(load(Path::new("/"), &machine()), Err(LoadError::Read { .. })));
}

#[test]
fn a_byte_order_mark_is_passed_over() {
    assert!(insane_config::parse("x", "\u{feff}(log: (level: info))", &machine()).is_ok());
    expect("\u{feff}(log: (level: loud))", "1:15", "log.level", "`loud` is not accepted here", "");
}

#[test]
fn text_that_is_no_configuration() {
    let accepted = "(host: (...), datapaths: [...]";
    expect("", "1:1", "", "the file is empty", accepted);
    expect("{\"host\": 1}", "1:1", "", "a configuration stands in parentheses", accepted);
    expect("(log: (level: info)) x", "1:22", "", "something stands behind the end of the configuration", "");
    expect("(log: (level: info\n\n", "1:18", "", "the file ends before its last bracket is closed", "`)`");
    expect("(host: (name: \"a\" id: 5))", "1:19", "", "a comma is missing before this", "");
    expect("(host: (name: \"a))", "1:16", "", "this text has no closing quote", "");
}

#[test]
fn unknown_missing_and_repeated_fields() {
    expect(
        "(hots: ())",
        "1:2",
        "hots",
        "there is no field `hots` at the top level; did you mean `host`?",
        "host, control, datapaths",
    );
    expect(
        r#"(links: [(name: "a", udp: (bind: "1.1.1.1:1"))])"#,
        "1:22",
        "links[0].udp",
        "there is no field `udp` in `links[0]`",
        "name, technology",
    );
    expect(
        r#"(links: [(name: "a", technology: udp(bnd: "1.1.1.1:1"))])"#,
        "1:38",
        "links[0].technology.bnd",
        "there is no field `bnd` in `links[0].technology`; did you mean `bind`?",
        "bind, frame_bytes_max",
    );
    expect("(datapaths: [(core: 1)])", "1:14", "datapaths[0].name", "the field `name` is missing", "1 to 64 bytes");
    expect(
        r#"(links: [(name: "a", technology: udp())])"#,
        "1:22",
        "links[0].technology.bind",
        "the field `bind` is missing",
        PORT,
    );
    expect(
        "(log: (level: info, level: warn))",
        "1:21",
        "log.level",
        "the field `level` is given twice",
        "each field once",
    );
}

#[test]
fn values_of_the_wrong_kind() {
    expect("(memory: (lock: 5))", "1:17", "memory.lock", "`true` or `false` is expected", "true or false");
    expect("(host: (name: 5))", "1:15", "host.name", "text in double quotes is expected", "1 to 64 bytes");
    expect("(control: (mode: \"rw\"))", "1:18", "control.mode", "a whole number is expected", "permission bits");
    expect(
        "(datapaths: (name: \"a\"))",
        "1:13",
        "datapaths",
        "a list `[...]` is expected",
        "a list of 1 to 4 datapaths",
    );
    expect(
        r#"(peers: [(name: "x", links: ["a"])])"#,
        "1:29",
        "peers[0].links",
        "a map `{...}` is expected",
        "its address",
    );
    expect(
        "(memory: (limit_bytes: 99999999999999999999999))",
        "1:24",
        "memory.limit_bytes",
        "the number is out of range",
        "1_048_576 to",
    );
    expect("(host: (id: -5))", "1:13", "host.id", "the number is out of range", "a whole number from 1");
    expect(
        r#"(datapaths: [(name: "a", idle: spinn)])"#,
        "1:32",
        "datapaths[0].idle",
        "`spinn` is not accepted here; did you mean `spin`?",
        "spin, yield, block, or spin_then_block(us: N)",
    );
    expect(
        r#"(datapaths: [(name: "a", idle: spin_then_block(50))])"#,
        "1:48",
        "datapaths[0].idle",
        "the name of a field is expected before the value",
        "spin, yield, block, or",
    );
    expect(
        r#"(domains: [(name: "x", members: [user(5)])])"#,
        "1:34",
        "domains[0].members[0]",
        "`user` is not accepted here",
        "a list of uid(N), gid(N) and any",
    );
    expect(
        r#"(links: [(name: "a", technology: upd(bind: "1.1.1.1:1"))])"#,
        "1:34",
        "links[0].technology",
        "`upd` is not accepted here; did you mean `udp`?",
        "udp(bind: ...",
    );
}

#[test]
fn host_and_control() {
    expect("(host: (name: \"\"))", "1:15", "host.name", "the name is empty", "1 to 64 bytes");
    expect("(host: (name: \"a\\nb\"))", "1:15", "host.name", "the name holds a control character", "1 to 64 bytes");
    let long = "ä".repeat(33);
    expect(&format!("(host: (name: \"{long}\"))"), "1:15", "host.name", "the name has 66 bytes", "1 to 64 bytes");
    expect("(host: (id: 0))", "1:13", "host.id", "0 stands for no host", "a whole number from 1");
    expect("(control: (socket: \"x.sock\"))", "1:20", "control.socket", "the path is not absolute", "an absolute path");
    let relative = "(control: (state: \"var\"))";
    expect(relative, "1:19", "control.state", "the path is not absolute", "an absolute path");
    expect("(control: (socket: \"/run/\"))", "1:20", "control.socket", "the path names no file", "an absolute path");
    let long = format!("/{}", "x".repeat(107));
    expect(
        &format!("(control: (socket: \"{long}\"))"),
        "1:20",
        "control.socket",
        "the path has 108 bytes",
        "an absolute path",
    );
    let mode = "permission bits from 0o600 to 0o777";
    expect(
        "(control: (mode: 0o460))",
        "1:18",
        "control.mode",
        "0o460 is not a mode of a socket that its owner can use",
        mode,
    );
    expect(
        "(control: (mode: 0o1777))",
        "1:18",
        "control.mode",
        "0o1777 is not a mode of a socket that its owner can use",
        mode,
    );
    expect(
        "(control: (mode: 660))",
        "1:18",
        "control.mode",
        "0o1224 is not a mode of a socket that its owner can use; did you mean 0o660?",
        mode,
    );
}

#[test]
fn what_does_not_fit_is_refused_with_the_biggest_item_and_the_remedy() {
    let found = only("(memory: (limit_bytes: 100_000_000))");
    assert_eq!((found.severity, found.path.as_str()), (Severity::Error, "memory.limit_bytes"));
    assert!(found.message.contains("memory.limit_bytes allows 95.4 MiB (100_000_000 bytes)"), "{found}");
    assert!(found.message.contains("the biggest item is \"source heaps\" of tenant \"default\""), "{found}");
    assert!(found.accepted.ends_with("or a smaller domains[0].quota.bytes"), "{found}");
    expect(
        "(memory: (limit_bytes: 5))",
        "1:24",
        "memory.limit_bytes",
        "5 is too small",
        "1_048_576 to 70_368_744_177_664 bytes",
    );
    let unprivileged = Machine { lockable_bytes: Some(8 << 20), ..machine() };
    let loaded = parse("x.ron", "(memory: (lock: true))", &unprivileged).unwrap();
    assert!(loaded.warnings.0[0].message.contains("the runtime would run unlocked and say so"), "{}", loaded.warnings);
}

#[test]
fn everything_that_is_wrong_is_told_at_once_in_the_order_of_the_lines() {
    let text = "(\nlog: (level: info),\nmemory: (limit_bytes: 5),\nhost: (name: \"\"),\ncontrol: (mode: 0),\n\
                links: [(name: \"a\", technology: udp(bind: \"x:1\", busy_poll_us: -1))],\n)";
    let findings = findings(text);
    let lines: Vec<usize> = findings.0.iter().map(|finding| finding.line).collect();
    assert_eq!(lines, [3, 4, 5, 6, 6], "{findings}");
    assert_eq!(findings.count(), (5, 0));
}

#[test]
fn no_file_can_steer_the_terminal_or_flood_it() {
    let text = format!("(host: (name: \"\u{1b}[31m\", id: 0), /* {} */ control: (mode: 1))", "x".repeat(100_000));
    let findings = findings(&text);
    let shown = findings.to_string();
    assert!(!shown.contains('\u{1b}'));
    assert!(shown.len() < 2_000, "{} bytes", shown.len());
    let carets: Vec<&str> = shown.lines().filter(|line| line.contains('^')).collect();
    let sources: Vec<&str> = shown.lines().filter(|line| line.starts_with("1 |")).collect();
    let column = carets.last().unwrap().find('^').unwrap();
    assert_eq!(&sources.last().unwrap()[column..=column], "1", "{shown}");
}
