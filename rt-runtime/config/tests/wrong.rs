//! Every kind of wrong configuration: the message, its place, and what would be right.

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
const LANES: &str = "one datapath with `serves: all`, or one with `real_time` and one with `best_effort`";

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
fn a_missing_file_is_named_with_the_reason() {
    let error = load(Path::new("/nowhere/x.ron"), &machine()).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("error: cannot read the configuration /nowhere/x.ron: No such file"), "{text}");
    assert!(matches!(load(Path::new("/dev/zero"), &machine()), Err(LoadError::TooLarge { .. })));
    assert!(matches!(load(Path::new("/"), &machine()), Err(LoadError::Read { .. })));
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
        "spin, block, or spin_then_block(us: N)",
    );
    expect(
        r#"(datapaths: [(name: "a", idle: spin_then_block(50))])"#,
        "1:48",
        "datapaths[0].idle",
        "the name of a field is expected before the value",
        "spin, block, or",
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
        "0o1224 is not a mode of a socket that its owner can use",
        mode,
    );
}

/// One datapath with these fields.
fn datapath(fields: &str) -> String {
    format!("(datapaths: [(name: \"a\", {fields})])")
}

#[test]
fn datapaths() {
    expect(&datapath("core: 2"), "1:32", "datapaths[0].core", "this machine has no core 2", "one of 0 to 1, or None");
    expect(&datapath("core: -1"), "1:32", "datapaths[0].core", "this machine has no core -1", "one of 0 to 1, or None");
    let priority = "other, or fifo(PRIORITY) with a priority of 1 to 98";
    expect(&datapath("policy: fifo(0)"), "1:34", "datapaths[0].policy", "0 is not a priority of SCHED_FIFO", priority);
    expect(
        &datapath("policy: fifo(99)"),
        "1:34",
        "datapaths[0].policy",
        "priority 99 belongs to the kernel's own watchdogs",
        priority,
    );
    expect(
        &datapath("idle: spin_then_block(us: 0)"),
        "1:52",
        "datapaths[0].idle.us",
        "0 is too small",
        "1 to 1_000_000 microseconds",
    );
    expect(&datapath("serves: real_time"), "1:13", "datapaths", "nobody serves the best-effort lanes", LANES);
    expect(
        "(datapaths: [(name: \"a\"), (name: \"b\", serves: best_effort)])",
        "1:47",
        "datapaths[1].serves",
        "datapaths[0] serves the best-effort lanes already",
        LANES,
    );
    expect(
        "(datapaths: [(name: \"a\", serves: real_time), (name: \"a\", serves: best_effort)])",
        "1:53",
        "datapaths[1].name",
        "\"a\" is the name of datapaths[0] already (line 1)",
        "a name that no other",
    );
    let five = findings("(datapaths: [(name: \"a\"), (name: \"b\"), (name: \"c\"), (name: \"d\"), (name: \"e\")])");
    assert!(
        five.0.iter().any(|f| f.message == "there are 5 datapaths" && f.accepted.starts_with("a list of 1 to 4")),
        "{five}"
    );
}

#[test]
fn spinning_at_a_real_time_priority_never_takes_all() {
    let two = "(datapaths: [\n(name: \"a\", core: 1, policy: fifo(9), idle: spin, serves: real_time),\n\
               (name: \"b\", core: 1, policy: fifo(8), idle: spin, serves: best_effort)])";
    let remedy = "another core, `spin_then_block(us: ...)` or `block`";
    let message = "two SCHED_FIFO datapaths spin on core 1: datapaths[0] and this one would starve each other";
    expect(two, "3:45", "datapaths[1].idle", message, remedy);
    let remedy = "`spin_then_block(us: ...)`, `block`, or `policy: other`";
    let message = "2 spinning SCHED_FIFO datapaths would take all 2 cores of this machine";
    expect(&two.replacen("core: 1", "core: 0", 1), "3:45", "datapaths[1].idle", message, remedy);
    let polite = findings(&two.replacen("fifo(9)", "other", 1));
    assert_eq!((polite.0.len(), polite.0[0].severity), (1, Severity::Warning), "{polite}");
    assert!(findings(&two.replacen("core: 1, policy: fifo(9)", "core: 0, policy: other", 1)).is_empty());

    let one_core = Machine { cores: Some(vec![0]), ..machine() };
    let alone = datapath("policy: fifo(50), idle: spin");
    let refused = parse("x.ron", &alone, &one_core).unwrap_err();
    assert_eq!(refused.0.len(), 1);
    assert_eq!(
        refused.0[0].message,
        "this machine has one core, and a spinning SCHED_FIFO datapath would leave nothing to anybody else"
    );
    assert_eq!(refused.0[0].accepted, remedy);
    assert!(parse("x.ron", &alone, &machine()).is_ok());
    assert!(parse("x.ron", &alone, &Machine::unknown()).is_ok(), "nothing is known of the machine");
    assert!(parse("x.ron", &datapath("policy: fifo(50), idle: block"), &one_core).is_ok());
}

/// One link with this address.
fn bound(bind: &str) -> String {
    format!("(links: [(name: \"net\", technology: udp(bind: \"{bind}\"))])")
}

#[test]
fn addresses() {
    let cases = [
        ("192.0.2.1", "\"192.0.2.1\" has no port"),
        ("::1", "\"::1\" has no port"),
        ("[::1]", "\"[::1]\" has no port"),
        ("", "\"\" is not an IP address with a port"),
        ("fe80::zz:1", "\"fe80::zz\" is not an IP address"),
        ("cell-a:7400", "\"cell-a\" is a name, and names are not looked up"),
        ("300.0.0.1:7400", "\"300.0.0.1\" is not an IP address"),
        ("192.0.2.1:70000", "\"70000\" is not a port"),
        ("192.0.2.1:http", "\"http\" is not a port"),
        ("192.0.2.1:0", "port 0 is no port that a peer could know"),
        ("192.0.2.1:65535", "after port 65535 there is no next one, and the link uses two"),
        ("239.1.1.1:7400", "239.1.1.1 is not the address of one host"),
        ("255.255.255.255:7400", "255.255.255.255 is not the address of one host"),
        ("1:2:3:4:5:6:7:8:7400", "an IPv6 address with a port has brackets: \"[1:2:3:4:5:6:7:8]:7400\""),
    ];
    for (bind, message) in cases {
        expect(&bound(bind), "1:46", "links[0].technology.bind", message, PORT);
    }
    for bind in ["192.0.2.1:65534", "0.0.0.0:1", "[::]:7400", "[fe80::1%2]:7400", "[::1]:7400"] {
        assert!(findings(&bound(bind)).is_empty(), "{bind}");
    }
}

/// Two links with these addresses.
fn two_links(a: &str, b: &str) -> String {
    format!(
        "(links: [\n(name: \"a\", technology: udp(bind: \"{a}\")),\n(name: \"b\", technology: udp(bind: \"{b}\"))])"
    )
}

#[test]
fn links() {
    let far = "a port at least 2 away";
    for (a, b, message) in [
        ("10.0.0.1:7400", "10.0.0.1:7400", "ports 7400 and 7401 are taken: links[0] uses 7400 and 7401"),
        ("10.0.0.1:7400", "10.0.0.1:7401", "ports 7401 and 7402 are taken: links[0] uses 7400 and 7401"),
        ("10.0.0.1:7400", "0.0.0.0:7399", "ports 7399 and 7400 are taken: links[0] uses 7400 and 7401"),
        ("[::]:7400", "[::1]:7401", "ports 7401 and 7402 are taken: links[0] uses 7400 and 7401"),
    ] {
        expect(&two_links(a, b), "3:35", "links[1].technology.bind", message, far);
    }
    for (a, b) in
        [("10.0.0.1:7400", "10.0.0.1:7402"), ("10.0.0.1:7400", "10.0.0.2:7400"), ("0.0.0.0:7400", "[::1]:7400")]
    {
        assert!(findings(&two_links(a, b)).is_empty());
    }
    let udp = |field: &str| format!("(links: [(name: \"a\", technology: udp(bind: \"10.0.0.1:1\", {field}))])");
    expect(
        &udp("frame_bytes_max: 507"),
        "1:75",
        "links[0].technology.frame_bytes_max",
        "507 is too small",
        "508 to 65_000 bytes",
    );
    expect(
        &udp("frame_bytes_max: 65_001"),
        "1:75",
        "links[0].technology.frame_bytes_max",
        "65_001 is too large",
        "508 to 65_000 bytes",
    );
    expect(&udp("send_buffer_bytes: 1"), "1:77", "links[0].technology.send_buffer_bytes", "1 is too small", "4096 to");
    expect(
        &udp("receive_buffer_bytes: -1"),
        "1:80",
        "links[0].technology.receive_buffer_bytes",
        "-1 is too small",
        "4096 to",
    );
    expect(
        &udp("busy_poll_us: 10_001"),
        "1:72",
        "links[0].technology.busy_poll_us",
        "10_001 is too large",
        "0 to 10_000 micro",
    );
    expect(
        &udp("launch_lead_us: 10_001"),
        "1:74",
        "links[0].technology.launch_lead_us",
        "10_001 is too large",
        "0 to 10_000 microseconds",
    );
    expect(&udp("real_time_dscp: 64"), "1:74", "links[0].technology.real_time_dscp", "64 is too large", "0 to 63");
}

#[test]
fn groups_of_links() {
    let link = |bind: &str, group: &str| {
        format!("(links: [(name: \"a\", technology: udp(bind: \"{bind}\", multicast: ({group})))])")
    };
    let path = |field: &str| format!("links[0].technology.multicast.{field}");
    let accepted = "an address of a group, of the family of `bind`, and a port from 1 to 65534";
    for (group, message) in [
        ("10.0.0.2:7400", "10.0.0.2 is not the address of a group"),
        ("239.0.0.1", "\"239.0.0.1\" has no port"),
        ("239.0.0.1:0", "port 0 is no port that a member could know"),
        ("239.0.0.1:65535", "after port 65535 there is no next one, and the group uses two"),
        ("[ff15::1]:7400", "ff15::1 and the link's own address 10.0.0.1 are not of one family"),
        ("all-hosts:7400", "\"all-hosts\" is a name, and names are not looked up"),
    ] {
        expect(&link("10.0.0.1:1", &format!("group: \"{group}\"")), "1:77", &path("group"), message, accepted);
    }
    let more = |field: &str| link("10.0.0.1:1", &format!("group: \"239.0.0.1:1\", {field}"));
    expect(&more("ttl: 0"), "1:97", &path("ttl"), "0 is too small", "1 to 255 networks");
    expect(&more("ttl: 256"), "1:97", &path("ttl"), "256 is too large", "1 to 255 networks");
    expect(&more("from_peers: 1"), "1:104", &path("from_peers"), "1 is too small", "2 to 64 peers");
    expect(&more("from_peers: 65"), "1:104", &path("from_peers"), "65 is too large", "2 to 64 peers");
    let message = "there is no field `tll` in `links[0].technology.multicast`; did you mean `ttl`?";
    expect(&more("tll: 1"), "1:92", &path("tll"), message, "group, ttl, from_peers");
    let message = "the field `group` is missing";
    expect(&link("10.0.0.1:1", "ttl: 1"), "1:58", &path("group"), message, accepted);
    expect(
        &link("0.0.0.0:7400", "group: \"239.0.0.1:7400\""),
        "1:44",
        "links[0].technology.bind",
        "0.0.0.0 is no particular address, and a group is joined at the interface of one",
        "a particular IP address of this machine, or no `multicast`",
    );
    for (bind, group) in [("10.0.0.1:7400", "239.192.0.1:7400"), ("[fd00::1]:7400", "[ff15::1]:65534")] {
        assert!(findings(&link(bind, &format!("group: \"{group}\", ttl: 255, from_peers: 64"))).is_empty());
    }
    expect(
        "(links: [(name: \"a\", technology: tcp(bind: \"10.0.0.1:1\", multicast: (group: \"239.0.0.1:1\")))])",
        "1:58",
        "links[0].technology.multicast",
        "there is no field `multicast` in `links[0].technology`",
        "bind, frame_bytes_max",
    );
}

#[test]
fn tcp_links() {
    let tcp = |field: &str| format!("(links: [(name: \"a\", technology: tcp(bind: \"10.0.0.1:1\", {field}))])");
    let path = |field: &str| format!("links[0].technology.{field}");
    for (field, value, column, message, accepted) in [
        ("frame_bytes_max", "507", 75, "507 is too small", "508 to 1_048_576 bytes"),
        ("frame_bytes_max", "1_048_577", 75, "1_048_577 is too large", "508 to 1_048_576 bytes"),
        ("frame_bytes_max", "\"large\"", 75, "a whole number is expected", "508 to 1_048_576 bytes"),
        ("send_buffer_bytes", "1", 77, "1 is too small", "4096 to"),
        ("receive_buffer_bytes", "-1", 80, "-1 is too small", "4096 to"),
        ("busy_poll_us", "10_001", 72, "10_001 is too large", "0 to 10_000 micro"),
        ("real_time_dscp", "64", 74, "64 is too large", "0 to 63"),
        ("user_timeout_ms", "99", 75, "99 is too small", "100 to 600_000 milliseconds"),
        ("user_timeout_ms", "600_001", 75, "600_001 is too large", "100 to 600_000 milliseconds"),
    ] {
        expect(&tcp(&format!("{field}: {value}")), &format!("1:{column}"), &path(field), message, accepted);
    }
    let bound = |bind: &str| format!("(links: [(name: \"net\", technology: tcp(bind: \"{bind}\"))])");
    for (bind, message) in [
        ("192.0.2.1:65535", "after port 65535 there is no next one, and the link uses two"),
        (
            "0.0.0.0:7400",
            "0.0.0.0 is no particular address; which host connects depends on the one that peers have for this host",
        ),
        (
            "[::]:7400",
            ":: is no particular address; which host connects depends on the one that peers have for this host",
        ),
    ] {
        expect(&bound(bind), "1:46", "links[0].technology.bind", message, "a particular IP address of this machine");
    }
    assert!(findings(&bound("[fe80::1%2]:65534")).is_empty());
    expect(
        "(links: [(name: \"a\", technology: tcp())])",
        "1:22",
        "links[0].technology.bind",
        "the field `bind` is missing",
        "a particular IP address of this machine",
    );
    expect(
        &tcp("user_timeout_s: 1"),
        "1:58",
        "links[0].technology.user_timeout_s",
        "there is no field `user_timeout_s` in `links[0].technology`; did you mean `user_timeout_ms`?",
        "bind, frame_bytes_max, send_buffer_bytes, receive_buffer_bytes, busy_poll_us, real_time_dscp, user_timeout_ms",
    );
}

#[test]
fn xdp_links() {
    let xdp = |field: &str| {
        format!("(links: [(name: \"a\", technology: xdp(interface: \"e\", bind: \"10.0.0.1:1\", {field}))])")
    };
    let path = |field: &str| format!("links[0].technology.{field}");
    for (field, value, message, accepted) in [
        ("queue", "1024", "1024 is too large", "0 to 1023"),
        ("prefix_bits", "129", "129 is too large", "0 to 128 bits"),
        ("prefix_bits", "33", "33 bits are more than an IPv4 address has", "0 to 32 bits"),
        ("frame_bytes_max", "507", "507 is too small", "508 to 3798 bytes"),
        ("frame_bytes_max", "3799", "3799 is too large", "508 to 3798 bytes"),
        ("real_time_dscp", "64", "64 is too large", "0 to 63"),
        ("gateway", "\"router\"", "\"router\" is not an IP address", "the IP address of a neighbour"),
        (
            "gateway",
            "\"fd00::1\"",
            "fd00::1 and the link's own 10.0.0.1 are not both IPv4 or both IPv6",
            "the IP address of a neighbour",
        ),
    ] {
        let column = 76 + field.len();
        expect(&xdp(&format!("{field}: {value}")), &format!("1:{column}"), &path(field), message, accepted);
    }
    let on = |interface: &str, bind: &str| {
        format!("(links: [(name: \"a\", technology: xdp(interface: \"{interface}\", bind: \"{bind}\"))])")
    };
    for name in ["", "sixteen-bytes-is", "a/b", "a b", ".", ".."] {
        let message = format!("\"{name}\" can be no interface's name");
        expect(&on(name, "10.0.0.1:1"), "1:49", &path("interface"), &message, "the name of an Ethernet interface");
    }
    for ip in ["0.0.0.0", "127.0.0.1"] {
        let message = format!("{ip} is no address that frames on an interface can have");
        expect(&on("eth0", &format!("{ip}:1")), "1:63", &path("bind"), &message, "an IP address that no machine has");
    }
    assert!(findings(&on("fifteen-bytes-x", "[fd00::1]:65534")).is_empty());
    let mode = only(&xdp("mode: fast")).to_string();
    assert!(mode.contains("auto") && mode.contains("zero_copy"), "{mode}");
    let unknown = only(&xdp("queu: 1")).to_string();
    assert!(unknown.contains("did you mean `queue`?"), "{unknown}");
}

#[test]
fn rdma_links() {
    let rdma =
        |bind: &str, field: &str| format!("(links: [(name: \"a\", technology: rdma(bind: \"{bind}\", {field}))])");
    let path = |field: &str| format!("links[0].technology.{field}");
    for (field, value, message, accepted) in [
        ("frame_bytes_max", "507", "507 is too small", "508 to 65_536 bytes"),
        ("frame_bytes_max", "65537", "65_537 is too large", "508 to 65_536 bytes"),
        ("real_time_dscp", "64", "64 is too large", "0 to 63"),
    ] {
        let column = 61 + field.len();
        let text = rdma("10.0.0.1:1", &format!("{field}: {value}"));
        expect(&text, &format!("1:{column}"), &path(field), message, accepted);
    }
    for ip in ["0.0.0.0", "127.0.0.1"] {
        let message = format!("{ip} is no address that an RDMA device can have");
        expect(&rdma(&format!("{ip}:1"), ""), "1:45", &path("bind"), &message, "an IP address that an RDMA device");
    }
    assert!(findings(&rdma("[fd00::1]:65534", "frame_bytes_max: 65_536")).is_empty());
    let unknown = only(&rdma("10.0.0.1:1", "frame_byte_max: 1")).to_string();
    assert!(unknown.contains("did you mean `frame_bytes_max`?"), "{unknown}");
}

#[test]
fn dpdk_links_and_how_dpdk_is_started() {
    let dpdk = |field: &str| {
        format!("(links: [(name: \"a\", technology: dpdk(device: \"d\", bind: \"10.0.0.1:1\", {field}))])")
    };
    let path = |field: &str| format!("links[0].technology.{field}");
    for (field, value, message, accepted) in [
        ("prefix_bits", "33", "33 bits are more than an IPv4 address has", "0 to 32 bits"),
        ("frame_bytes_max", "507", "507 is too small", "508 to 8972 bytes"),
        ("frame_bytes_max", "8973", "8973 is too large", "508 to 8972 bytes"),
        ("real_time_dscp", "64", "64 is too large", "0 to 63"),
        ("poll_us", "0", "0 is too small", "1 to 10_000 microseconds"),
        ("gateway", "\"router\"", "\"router\" is not an IP address", "the IP address of a neighbour"),
    ] {
        let column = 74 + field.len();
        expect(&dpdk(&format!("{field}: {value}")), &format!("1:{column}"), &path(field), message, accepted);
    }
    for mac in
        ["", "2:0:0:0:0:1", "03:00:00:00:00:01", "00:00:00:00:00:00", "02:00:00:00:00:01:02", "0x:00:00:00:00:01"]
    {
        let message = format!("\"{mac}\" is not the hardware address of one station");
        expect(
            &dpdk(&format!("mac: \"{mac}\"")),
            "1:77",
            &path("mac"),
            &message,
            "the hardware address of one station",
        );
    }
    let on = |device: &str, bind: &str| {
        format!("(links: [(name: \"a\", technology: dpdk(device: \"{device}\", bind: \"{bind}\"))])")
    };
    for device in ["", "-d", ",iface=eth0", "net_null0 -d", &"n".repeat(160)] {
        let message = format!("\"{device}\" can be no device");
        expect(&on(device, "10.0.0.1:1"), "1:47", &path("device"), &message, "a device of DPDK with its arguments");
    }
    let message = "0.0.0.0 is no address that frames on an interface can have";
    expect(&on("eth0", "0.0.0.0:1"), "1:61", &path("bind"), message, "an IP address that no machine has");
    assert!(findings(&on(&"n".repeat(159), "[fd00::1]:65534")).is_empty());
    let two = |first: &str, second: &str| {
        let link = |name: &str, device: &str, bind: &str| {
            format!("(name: \"{name}\", technology: dpdk(device: \"{device}\", bind: \"{bind}\"))")
        };
        format!("(links: [{},\n{}])", link("a", first, "10.0.0.1:1"), link("b", second, "10.0.0.2:1"))
    };
    for (first, second) in [("net_null0", "net_null0,size=64"), ("0000:03:00.0", "03:00.0")] {
        let name = second.split(',').next().unwrap();
        let message = format!("device \"{name}\" is taken: links[0] uses it");
        let path = "links[1].technology.device";
        expect(&two(first, second), "2:38", path, &message, "a device that no other link has");
    }
    assert!(findings(&two("net_af_packet0,iface=eth0", "net_af_packet1,iface=eth0")).is_empty());
    let unknown = only(&dpdk("polls_us: 1")).to_string();
    assert!(unknown.contains("did you mean `poll_us`?"), "{unknown}");
    expect("(eal: (shim: \"a.so\"))", "1:14", "eal.shim", "the path is not absolute", "the absolute path of a library");
    let message = "an argument is not empty, and has no zero in it";
    expect("(eal: (arguments: [\"-n\", \"\"]))", "1:26", "eal.arguments[1]", message, "");
}

#[test]
fn ports_of_tcp_and_of_udp_do_not_collide() {
    let both = two_links("10.0.0.1:7400", "10.0.0.1:7401");
    assert!(findings(&both.replacen("udp", "tcp", 1)).is_empty());
    expect(
        &both.replace("udp", "tcp"),
        "3:35",
        "links[1].technology.bind",
        "ports 7401 and 7402 are taken: links[0] uses 7400 and 7401",
        "a port at least 2 away",
    );
    let peer = |second: &str| {
        format!(
            "(host: (name: \"me\"), links: [(name: \"u\", technology: udp(bind: \"10.0.0.1:7400\")), \
             (name: \"t\", technology: {second}(bind: \"10.0.0.1:7410\"))],\n\
             peers: [(name: \"b\", links: {{\"t\": \"10.0.0.2:7400\", \"u\": \"10.0.0.2:7400\"}})])"
        )
    };
    assert!(findings(&peer("tcp")).is_empty(), "{}", findings(&peer("tcp")));
    assert_eq!(findings(&peer("udp")).count(), (1, 0));
}

#[test]
fn each_link_belongs_to_exactly_one_datapath() {
    let text = |links: &str, more: &str| {
        format!(
            "(datapaths: [(name: \"d\", links: {links}){more}],\nlinks: [(name: \"net\", technology: udp(bind: \"10.0.0.1:1\"))])"
        )
    };
    expect(
        &text("[]", ""),
        "2:16",
        "links[0].name",
        "link \"net\" belongs to no datapath",
        "a link that one datapath has",
    );
    expect(
        &text("[\"net\", \"nett\"]", ""),
        "1:41",
        "datapaths[0].links[1]",
        "there is no link \"nett\"; did you mean \"net\"?",
        "\"net\"",
    );
    expect(
        &text("[\"net\", \"net\"]", ""),
        "1:41",
        "datapaths[0].links[1]",
        "link \"net\" belongs to datapaths[0] already",
        "each link in one",
    );
    let links: Vec<String> =
        (0..9).map(|at| format!("(name: \"l{at}\", technology: udp(bind: \"10.0.0.{at}:7400\"))")).collect();
    let nine = format!("(links: [{}])", links.join(", "));
    expect(&nine, "1:9", "links", "the only datapath would have 9 links, and one has at most 8", "fewer links");
    let names: Vec<String> = (0..9).map(|at| format!("\"l{at}\"")).collect();
    let named = format!("(datapaths: [(name: \"d\", links: [{}])], links: [{}])", names.join(", "), links.join(", "));
    expect(&named, "1:33", "datapaths[0].links", "there are 9 links", "a list of at most 8");
}

/// One link, and these peers.
fn peers(peers: &str) -> String {
    format!(
        "(host: (name: \"me\"),\nlinks: [(name: \"net\", technology: udp(bind: \"10.0.0.1:7400\"))],\npeers: [{peers}])"
    )
}

#[test]
fn peers_are_others_with_addresses_of_their_own() {
    let ours = "peers[0].links[\"net\"]";
    expect(
        &peers("(name: \"me\", links: {\"net\": \"10.0.0.2:7400\"})"),
        "3:16",
        "peers[0].name",
        "\"me\" is this host itself",
        "the name of another",
    );
    expect(
        &peers("(name: \"b\", links: {\"net\": \"10.0.0.1:7401\"})"),
        "3:36",
        ours,
        "10.0.0.1:7401 is this host itself: link \"net\" is bound to 10.0.0.1:7400",
        "the address of another host",
    );
    expect(
        &peers("(name: \"b\", links: {\"net\": \"127.0.0.1:7400\"})").replace("10.0.0.1:7400", "0.0.0.0:7400"),
        "3:36",
        ours,
        "127.0.0.1:7400 is this host itself: link \"net\" is bound to 0.0.0.0:7400",
        "the address of another host",
    );
    expect(
        &peers("(name: \"b\", links: {\"net\": \"[2001:db8::2]:7400\"})"),
        "3:36",
        ours,
        "the peer's address is IPv6, but link \"net\" is bound to 10.0.0.1:7400",
        "an IPv4 address",
    );
    expect(
        &peers("(name: \"b\", links: {\"net\": \"0.0.0.0:7400\"})"),
        "3:36",
        ours,
        "0.0.0.0 is no address of a host",
        "an IP address of the peer",
    );
    expect(
        &peers("(name: \"b\", links: {\"net\": \"b:7400\"})"),
        "3:36",
        ours,
        "\"b\" is a name, and names are not looked up",
        "an IP address of the peer",
    );
    expect(
        &peers("(name: \"b\", links: {\"ent\": \"10.0.0.2:7400\"})"),
        "3:29",
        "peers[0].links[\"ent\"]",
        "there is no link \"ent\"; did you mean \"net\"?",
        "\"net\"",
    );
    expect(
        &peers("(name: \"b\", links: {})"),
        "3:28",
        "peers[0].links",
        "the peer has no address",
        "its address on each",
    );
    let c = "(name: \"c\", links: {\"net\": \"10.0.0.3:7400\"})";
    expect(
        &peers(&format!("{c},\n{}", c.replace("\"c\"", "\"d\"").replace("7400", "7401"))),
        "4:28",
        "peers[1].links[\"net\"]",
        "10.0.0.3:7401 is the address of peers[0].links[\"net\"] already (each uses its port and the next one)",
        "an address that no other",
    );
    expect(
        &peers(&format!("{c},\n{}", c.replace("7400", "7402"))),
        "4:8",
        "peers[1].name",
        "\"c\" is the name of peers[0] already (line 3)",
        "a name that no other",
    );
    let many: Vec<String> =
        (0..65).map(|at| format!("(name: \"p{at}\", links: {{\"net\": \"10.0.1.{at}:7400\"}})")).collect();
    expect(&peers(&many.join(",")), "3:8", "peers", "there are 65 peers", "a list of at most 64");
}

#[test]
fn a_peer_that_some_lanes_cannot_reach_is_a_warning() {
    let text = "(datapaths: [(name: \"rt\", serves: real_time, links: [\"a\"]), (name: \"be\", serves: best_effort, links: [\"b\"])],\n\
                links: [(name: \"a\", technology: udp(bind: \"10.0.0.1:1\")), (name: \"b\", technology: udp(bind: \"10.0.0.1:3\"))],\n\
                peers: [(name: \"x\", links: {\"a\": \"10.0.0.2:1\"})])";
    let found = only(text);
    assert_eq!(found.severity, Severity::Warning);
    assert_eq!(found.message, "no link of datapath \"be\" leads to \"x\": what its lanes carry does not get there");
}

/// One domain with these fields.
fn domain(fields: &str) -> String {
    format!("(domains: [(name: \"d\", {fields})])")
}

#[test]
fn domains() {
    expect(&domain("members: []"), "1:33", "domains[0].members", "nobody could attach", "a list of uid(N)");
    expect(
        &domain("members: [uid(-1)]"),
        "1:34",
        "domains[0].members[0]",
        "-1 is not the number of a user",
        "0 to 4294967294",
    );
    expect(
        &domain("isolation: shared, members: [gid(4), gid(4294967295)]"),
        "1:61",
        "domains[0].members[1]",
        "4294967295 is not the number of a group",
        "0 to 4294967294",
    );
    expect(
        &domain("isolation: shared, members: [any, any]"),
        "1:58",
        "domains[0].members[1]",
        "the member is there already",
        "each member once",
    );
    expect(
        "(domains: [(name: \"d\", members: [uid(1)]), (name: \"d\", members: [uid(2)])])",
        "1:51",
        "domains[1].name",
        "\"d\" is the name of domains[0] already (line 1)",
        "a name that no other",
    );
    let realtime = |fields: &str| domain(&format!("members: [uid(1)], realtime: ({fields})"));
    let at = "domains[0].realtime";
    expect(
        &realtime("priority_max: 98, cores: [0]"),
        "1:68",
        &format!("{at}.priority_max"),
        "98 is too large",
        "0 to 97",
    );
    expect(
        &realtime("priority_max: 5"),
        "1:68",
        &format!("{at}.priority_max"),
        "a priority without a core: such threads are let run on the named cores only",
        "0, or `cores: [...]` beside it",
    );
    expect(&realtime("cores: [-1]"), "1:62", &format!("{at}.cores[0]"), "this machine has no core -1", "0 to ");
    expect(
        &realtime("cores: [0, 0]"),
        "1:65",
        &format!("{at}.cores[1]"),
        "the core is there already",
        "each core once",
    );
    expect(&realtime("threads_max: 0"), "1:67", &format!("{at}.threads_max"), "0 is too small", "1 to 64");
    let quota = |field: &str| domain(&format!("members: [uid(1)], quota: ({field})"));
    expect(&quota("sessions: 0"), "1:61", "domains[0].quota.sessions", "0 is too small", "1 to 4096");
    expect(&quota("streams: 65_537"), "1:60", "domains[0].quota.streams", "65_537 is too large", "1 to 65_536");
    expect(&quota("sources: 0"), "1:60", "domains[0].quota.sources", "0 is too small", "1 to 65_536");
    expect(&quota("sinks: 0"), "1:58", "domains[0].quota.sinks", "0 is too small", "1 to 65_536");
    expect(&quota("connections: 0"), "1:64", "domains[0].quota.connections", "0 is too small", "1 to 65_536");
    expect(&quota("bytes: 1"), "1:58", "domains[0].quota.bytes", "1 is too small", "4096 to");
    expect(&quota("buffers: 0"), "1:60", "domains[0].quota.buffers", "0 is too small", "1 to");
    expect(
        &quota("wakes_per_second: 0"),
        "1:69",
        "domains[0].quota.wakes_per_second",
        "0 is too small",
        "1 to 10_000_000 a second",
    );
    let clock = |field: &str| format!("(clock: ({field}))");
    expect(&clock("holdover_s: 86_401"), "1:22", "clock.holdover_s", "86_401 is too large", "0 to 86_400 seconds");
    let read = "clock.read_max_us";
    expect(&clock("read_max_us: 0"), "1:23", read, "0 is too small", "1 to 10_000 microseconds");
    let phase = "clock.holdover_phase_us";
    expect(&clock("holdover_phase_us: Some(0)"), "1:29", phase, "0 is too small", "1 to 1_000_000 microseconds");
    let rate = "domains[0].quota.bytes_per_second";
    expect(&quota("bytes_per_second: 999"), "1:69", rate, "999 is too small", "1000 to 100_000_000_000 a second");
    expect(&quota("burst_bytes: 0"), "1:64", "domains[0].quota.burst_bytes", "0 is too small", "1 to");
    let rate = "domains[0].quota.control_messages_per_second";
    expect(&quota("control_messages_per_second: 0"), "1:80", rate, "0 is too small", "1 to 1_000_000 a second");
    let many: Vec<String> = (0..65).map(|at| format!("(name: \"d{at}\", members: [uid(1)])")).collect();
    expect(
        &format!("(memory: (limit_bytes: 70_368_744_177_664), domains: [{}])", many.join(",")),
        "1:54",
        "domains",
        "there are 65 domains",
        "a list of 1 to 64",
    );
}

#[test]
fn receive_heaps() {
    let receive = |classes: &str| domain(&format!("members: [uid(1)], receive: [{classes}]"));
    expect(
        &receive(""),
        "1:52",
        "domains[0].receive",
        "without receive buffers nothing can arrive from other hosts",
        "a list of 1 to 8",
    );
    expect(
        &receive("(size: 0, count: 1)"),
        "1:60",
        "domains[0].receive[0].size",
        "0 is too small",
        "1 to 100_000_000 bytes",
    );
    expect(
        &receive("(size: 100_000_001, count: 1)"),
        "1:60",
        "domains[0].receive[0].size",
        "100_000_001 is too large",
        "1 to",
    );
    expect(
        &receive("(size: 1, count: 0)"),
        "1:70",
        "domains[0].receive[0].count",
        "0 is too small",
        "1 to 65_536 buffers",
    );
    expect(
        &receive("(size: 64, count: 1), (size: 64, count: 2)"),
        "1:82",
        "domains[0].receive[1].size",
        "64 does not rise above the 64 of the class before",
        "classes by rising size",
    );
    expect(
        &receive("(size: 64, count: 65_000), (size: 65, count: 537)"),
        "1:52",
        "domains[0].receive",
        "there are 65537 buffers",
        "at most 65_536 buffers",
    );
    let nine: Vec<String> = (1..10).map(|size| format!("(size: {size}, count: 1)")).collect();
    expect(&receive(&nine.join(",")), "1:52", "domains[0].receive", "there are 9 classes", "a list of 1 to 8");
    expect(
        &receive("(1, 2)"),
        "1:54",
        "domains[0].receive[0]",
        "the name of a field is expected before the value",
        "a list of 1 to 8",
    );
}

#[test]
fn a_rule_as_urgent_as_a_datapath_on_its_cores_is_warned_of() {
    let text = |core: u8, priority: u8| {
        format!(
            "(datapaths: [(name: \"x\", core: {core}, policy: fifo(60), idle: block)], \
             domains: [(name: \"d\", members: [uid(1)], realtime: (priority_max: {priority}, cores: [1]))])"
        )
    };
    let found = only(&text(1, 60));
    assert_eq!((found.severity, found.path.as_str()), (Severity::Warning, "domains[0].realtime.priority_max"));
    assert!(found.message.contains("could keep it from running"), "{found}");
    for (core, priority) in [(1, 59), (0, 60)] {
        assert!(findings(&text(core, priority)).is_empty());
    }
}

#[test]
fn a_domain_of_several_users_says_what_it_wants() {
    for members in ["[uid(1), uid(2)]", "[gid(1)]", "[any]"] {
        let found = only(&domain(&format!("members: {members}")));
        assert_eq!((found.severity, found.path.as_str()), (Severity::Warning, "domains[0].members"));
        for isolation in ["shared", "session"] {
            assert!(findings(&domain(&format!("members: {members}, isolation: {isolation}"))).is_empty());
        }
    }
    assert!(findings(&domain("members: [uid(1)]")).is_empty());
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

/// A configuration with one link and this in `discovery.gossip`, on line 2.
fn gossip(bind: &str, fields: &str) -> String {
    format!("(links: [(name: \"net\", technology: udp(bind: \"{bind}\"))], discovery: (gossip: (\n{fields})))")
}

#[test]
fn discovery_is_told_what_is_wrong_with_it() {
    let good = "bind: \"10.0.0.1:7100\", cluster: \"plant\", allow: [\"10.0.0.0/24\"]";
    let text = gossip("10.0.0.1:7400", good);
    let plan = parse("x.ron", &text, &machine()).unwrap_or_else(|findings| panic!("{findings}")).plan;
    let plan = plan.discovery.unwrap();
    assert_eq!((plan.peers_max, plan.forget_after.0, plan.links.len()), (32, 30_000_000_000, 1));
    assert_eq!(parse("x.ron", "(discovery: ())", &machine()).unwrap().plan.discovery, None);
    // Where the second line has this.
    let place = |text: &str, what: &str| format!("2:{}", text.lines().nth(1).unwrap().rfind(what).unwrap() + 1);
    let wrong = |from: &str, to: &str, field: &str, message: &str, accepted: &str| {
        assert!(good.contains(from), "{from}");
        let path = format!("discovery.gossip.{field}");
        let text = gossip("10.0.0.1:7400", &good.replace(from, to));
        let found = if to.starts_with('[') { to.to_owned() } else { format!("\"{to}\"") };
        expect(&text, &place(&text, &found), &path, message, accepted);
    };
    let port = "a particular IP address of this machine and a port from 1 to 65535";
    wrong(
        "10.0.0.1:7100",
        "0.0.0.0:7100",
        "bind",
        "0.0.0.0 is no particular address, and others are to be told one",
        port,
    );
    wrong("10.0.0.1:7100", "10.0.0.1", "bind", "\"10.0.0.1\" has no port", port);
    wrong(
        "10.0.0.1:7100",
        "10.0.0.1:7401",
        "bind",
        "port 7401 is one of link \"net\", which is bound to 10.0.0.1:7400",
        "a port that no udp link uses",
    );
    wrong("plant", "", "cluster", "the name is empty", "1 to 64 bytes");
    wrong("[\"10.0.0.0/24\"]", "[]", "allow", "nobody is allowed: no host would be found", "a list of 1 to 32");
    let host_bits = "\"10.0.0.1/24\" has bits set behind its prefix";
    wrong("10.0.0.0/24", "10.0.0.1/24", "allow[0]", host_bits, "\"10.0.0.0/24\"");
    let bits = "\"10.0.0.0/33\" has no such number of bits";
    wrong("10.0.0.0/24", "10.0.0.0/33", "allow[0]", bits, "an address and the number");
    wrong("10.0.0.0/24", "plant", "allow[0]", "\"plant\" is not a network", "an address and the number");
    for (more, what, field, message, accepted) in [
        ("peers_max: 65", "65", "peers_max", "65 is too large", "1 to 64"),
        ("forget_after_s: 4", "4)", "forget_after_s", "4 is too small", "5 to 86_400 seconds"),
        (
            "seeds: [\"10.0.1.1:7100\"]",
            "\"10.0.1.1",
            "seeds[0]",
            "10.0.1.1 is outside `allow`: its answers would not be heard",
            "an address in one of the networks",
        ),
        ("seeds: [\"plc-7:7100\"]", "\"plc-7", "seeds[0]", "\"plc-7\" is a name, and names are not looked up", ""),
        (
            "advertise: {\"nte\": \"10.0.0.1:7400\"}",
            "\"nte",
            "advertise[\"nte\"]",
            "there is no link \"nte\"; did you mean \"net\"?",
            "\"net\"",
        ),
        (
            "sedes: []",
            "sedes",
            "sedes",
            "there is no field `sedes` in `discovery.gossip`; did you mean `seeds`?",
            "bind, cluster",
        ),
    ] {
        let text = gossip("10.0.0.1:7400", &format!("{good}, {more}"));
        expect(&text, &place(&text, what), &format!("discovery.gossip.{field}"), message, accepted);
    }
    // It is the reference to the link that is wrong, and this is the remedy.
    let found = only(&gossip("0.0.0.0:7400", good));
    assert_eq!(found.message, "link \"net\" is bound to 0.0.0.0:7400, which is nothing that others could be told");
    assert!(found.accepted.starts_with("{\"net\": \"ADDRESS:7400\"}"), "{found}");
    let advertised = gossip("0.0.0.0:7400", &format!("{good}, advertise: {{\"net\": \"10.0.0.1:7400\"}}"));
    assert_eq!(findings(&advertised).count(), (0, 0));
    let found = only("(discovery: (gossip: (bind: \"10.0.0.1:7100\", cluster: \"p\", allow: [\"10.0.0.0/24\"])))");
    assert_eq!(found.message, "there is no link: hosts that are found could not be reached");
    let found = only("(discovery: (gossip: (bind: \"10.0.0.1:7100\", cluster: \"p\")))");
    assert_eq!(
        (found.path.as_str(), found.message.as_str()),
        ("discovery.gossip.allow", "the field `allow` is missing")
    );
    assert!(only("(discovery: (mdns: ()))").message.starts_with("there is no field `mdns` in `discovery`"));
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

/// One domain with this declaration.
fn declared(stream: &str) -> String {
    format!("(domains: [(name: \"d\", members: [uid(1)], streams: [({stream})])])")
}

#[test]
fn declarations_of_streams() {
    let path = |field: &str| format!("domains[0].streams[0].{field}");
    let at = |field: &str, text: &str| format!("1:{}", declared(text).find(field).unwrap() + field.len() + 3);
    for (field, value, message, accepted) in [
        ("priority", "8", "8 is too large", "0 to 7"),
        ("priority_max", "-1", "-1 is too small", "0 to 7"),
        ("history_max", "17", "17 is too large", "0 to 16 values"),
        ("reliability", "relyable", "`relyable` is not accepted here; did you mean `reliable`?", "unreliable or"),
        ("isolated", "1", "`true` or `false` is expected", "true or false"),
    ] {
        let text = format!("name: \"x\", {field}: {value}");
        expect(&declared(&text), &at(field, &text), &path(field), message, accepted);
    }
    let times = |fields: &str| format!("name: \"x\", determinism: time_sensitive({fields})");
    for (fields, field, message, accepted) in [
        ("period_ns: 0, size_bytes: 1", "period_ns", "0 is too small", "1 to 3_600_000_000_000 nanoseconds"),
        ("period_ns: 9, size_bytes: 0", "size_bytes", "0 is too small", "1 to 100_000_000 bytes"),
        (
            "period_ns: 9, size_bytes: 1, deadline_ns: 10",
            "deadline_ns",
            "the deadline is after the end of the period, which has 9 ns",
            "a deadline of at most the period",
        ),
        (
            "period_ns: 9, size_bytes: 1, offset_ns: 5, deadline_ns: 5",
            "offset_ns",
            "the offset is not before the deadline, which is at 5 ns",
            "an offset before the deadline",
        ),
    ] {
        let text = times(fields);
        let all = findings(&declared(&text));
        let found = all.0.iter().find(|found| found.path == path(&format!("determinism.{field}")));
        let found = found.unwrap_or_else(|| panic!("{all}"));
        assert_eq!((found.message.as_str(), found.severity), (message, Severity::Error));
        assert!(found.accepted.starts_with(accepted), "{found}");
        assert_eq!(format!("{}:{}", found.line, found.column), at(field, &text));
    }
}

#[test]
fn declarations_that_do_not_go_together() {
    let path = |field: &str| format!("domains[0].streams[0].{field}");
    let name = "1:60";
    expect(&declared("name: \"x\""), name, &path("name"), "the declaration fixes nothing", "at least one of");
    expect(
        &declared("name: \"a*b\", priority: 1"),
        name,
        &path("name"),
        "a `*` stands at the end of a name only",
        "a name, or how",
    );
    expect(&declared("name: \"\", priority: 1"), name, &path("name"), "the name is empty", "the name of a stream");
    expect(
        &declared("name: \"x\", priority: 5, priority_max: 6"),
        "1:92",
        &path("priority_max"),
        "the priority is fixed to 5 in line 1, so a bound of 6 has no meaning",
        "`priority` or `priority_max`",
    );
    let twice = declared("name: \"x\", priority: 1), (name: \"x\", priority: 2");
    let found = only(&twice);
    assert_eq!(found.path, "domains[0].streams[1].name");
    assert!(found.message.starts_with("\"x\" is the name of domains[0].streams[0] already"), "{found}");
    let isolated = declared("name: \"x\", isolated: false").replace("members", "isolation: session, members");
    assert!(only(&isolated).message.contains("every stream of the domain is isolated"));
    let periodic = "name: \"x\", determinism: time_sensitive(period_ns: 1_000_000, size_bytes: 64)";
    let with_link = |stream: &str, rate: &str| {
        declared(stream).replacen(
            '(',
            &format!(
                "(datapaths: [(name: \"m\", links: [\"n\"])], \
                 links: [(name: \"n\", {rate} technology: udp(bind: \"10.0.0.1:7400\"))], "
            ),
            1,
        )
    };
    assert!(findings(&with_link(periodic, "rate_mbps: 1000,")).is_empty());
    let no_rate = only(&with_link(periodic, ""));
    assert_eq!((no_rate.severity, no_rate.path.as_str()), (Severity::Warning, path("determinism").as_str()));
    let repaired = only(&with_link(&format!("{periodic}, reliability: reliable"), "rate_mbps: 1000,"));
    assert_eq!((repaired.severity, repaired.path.as_str()), (Severity::Error, path("reliability").as_str()));
    assert!(repaired.message.contains("repairs have no slots"));
}

/// The rules for cores that datapaths share, each with what helps.
#[test]
fn who_spins_has_a_core_of_its_own() {
    let two = |first: &str, second: &str| {
        format!(
            "(datapaths: [\n(name: \"a\", core: 1, {first}, serves: real_time),\n\
             (name: \"b\", core: 1, {second}, serves: best_effort)])"
        )
    };
    let quiet = Machine { isolated: Some(vec![1]), ..machine() };
    let told = |text: &str, machine: &Machine| match insane_config::parse("x.ron", text, machine) {
        Ok(loaded) => (false, loaded.warnings.to_string()),
        Err(findings) => (true, findings.to_string()),
    };
    let (refused, text) = told(&two("policy: fifo(9), idle: spin", "policy: fifo(9), idle: block"), &quiet);
    assert!(refused && text.contains("datapaths[1], which would never run"), "{text}");
    assert!(text.contains("a core of its own, or `idle: block`"), "{text}");
    let (refused, text) = told(&two("policy: other, idle: spin", "policy: fifo(9), idle: block"), &quiet);
    assert!(!refused && text.contains("each delays the other"), "{text}");
    let (refused, text) = told(&two("policy: fifo(5), idle: block", "policy: fifo(5), idle: block"), &quiet);
    assert!(!refused && text.contains("\"a\" with the real-time lanes does not go first"), "{text}");
    let (refused, text) = told(&two("policy: fifo(6), idle: block", "policy: fifo(5), idle: block"), &quiet);
    assert!(!refused && text.is_empty(), "{text}");
    // On a core that others use: told, with what helps; nothing where that is not known.
    let one = |policy: &str| format!("(datapaths: [(name: \"a\", core: 1, policy: {policy}, idle: spin)])");
    let shared = Machine { isolated: Some(vec![]), ..machine() };
    let (refused, text) = told(&one("fifo(9)"), &shared);
    assert!(!refused && text.contains("starves all else there") && text.contains("isolcpus"), "{text}");
    let (refused, text) = told(&one("other"), &shared);
    assert!(!refused && text.contains("other threads take turns"), "{text}");
    for machine in [quiet, machine()] {
        assert_eq!(told(&one("other"), &machine), (false, String::new()));
    }
}

#[test]
fn rules_of_the_policy() {
    let with = |policy: &str| format!("(policy: ({policy}))");
    let one = |policy: &str, path: &str, message: &str, accepted: &str| {
        let found = only(&with(policy));
        assert_eq!((found.path.as_str(), found.message.as_str()), (path, message), "{found}");
        assert!(found.accepted.starts_with(accepted), "{found}");
        assert_eq!(found.severity, Severity::Error);
    };
    let order = "a list of some of udp, tcp, xdp, dpdk, rdma and sim, each once";
    one(
        "rules: [(order: [xpd])]",
        "policy.rules[0].order[0]",
        "`xpd` is not accepted here; did you mean `xdp`?",
        order,
    );
    one("rules: []", "policy.rules", "there are 0 rules", "a list of 1 to 32 rules");
    one("rules: [(order: [])]", "policy.rules[0].order", "it names no technology", order);
    one("rules: [(order: [udp, tcp, udp])]", "policy.rules[0].order", "udp is there twice", order);
    one("rules: [(when: ())]", "policy.rules[0].order", "the field `order` is missing", order);
    one(
        "rules: [(when: (datapath: fast), order: [xdp])]",
        "policy.rules[0]",
        "the last rule is not for all streams, and every stream needs one",
        "a last rule with `when: ()`",
    );
    one(
        "rules: [(when: (datapath: fast), order: [xdp]), (when: (datapath: fast, reliability: reliable), order: [tcp]), \
         (order: [udp])]",
        "policy.rules[1]",
        "it is never used: rules[0] (line 1) is, wherever it could be",
        "the narrower rule before the wider one",
    );
    one(
        "rules: [(when: (datapth: fast), order: [xdp]), (order: [udp])]",
        "policy.rules[0].when.datapth",
        "there is no field `datapth` in `policy.rules[0].when`; did you mean `datapath`?",
        "reliability, datapath, consumption, determinism, bytes_min",
    );
    one(
        "rules: [(when: (priority: 7), order: [xdp]), (order: [udp])]",
        "policy.rules[0].when.priority",
        "there is no field `priority` in `policy.rules[0].when`",
        "reliability, datapath, consumption, determinism, bytes_min",
    );
    one(
        "rules: [(when: (datapath: quick), order: [xdp]), (order: [udp])]",
        "policy.rules[0].when.datapath",
        "`quick` is not accepted here",
        "standard or fast",
    );
    one(
        "rules: [(when: (bytes_min: 0), order: [xdp]), (order: [udp])]",
        "policy.rules[0].when.bytes_min",
        "0 is too small",
        "1 to 100_000_000 bytes",
    );
    // All at once.
    let several = findings(&with("rules: [(order: [udp, udp]), (when: (datapath: fast), order: [])]"));
    assert_eq!(several.0.len(), 4, "{several}");
}

#[test]
fn budgets_and_times_of_the_policy() {
    let with = |policy: &str| {
        format!("(links: [(name: \"net\", technology: udp(bind: \"127.0.0.1:7400\"))], policy: ({policy}))")
    };
    let one = |policy: &str, path: &str, message: &str, accepted: &str| {
        let found = only(&with(policy));
        assert_eq!((found.path.as_str(), found.message.as_str()), (path, message), "{found}");
        assert!(found.accepted.starts_with(accepted), "{found}");
    };
    let at = "policy.budgets[\"nett\"]";
    let message = "there is no link \"nett\"; did you mean \"net\"?";
    one("budgets: {\"nett\": (streams: 1)}", at, message, "\"net\"");
    let at = "policy.budgets[\"net\"]";
    one("budgets: {\"net\": ()}", at, "it bounds nothing", "(streams: ...), (mbps: ...) or both");
    let streams = format!("{at}.streams");
    one("budgets: {\"net\": (streams: -1)}", &streams, "-1 is too small", "0 to 65_536");
    one("budgets: {\"net\": (mbps: 400_001)}", &format!("{at}.mbps"), "400_001 is too large", "0 to 400_000 Mbit/s");
    one("best_effort_kbps: -1", "policy.best_effort_kbps", "-1 is too small", "0 to 400_000_000 kbit/s");
    one("silent_ms: 10", "policy.silent_ms", "10 is too small", "50 to 600_000 milliseconds");
    let times = "return_after_ms: 100, hold_down_max_ms: 99";
    one(times, "policy.hold_down_max_ms", "it is less than `return_after_ms`, 100", "as much or more");
    // Not wrong, but in vain.
    let found = only(&with("rules: [(order: [xdp])]"));
    assert_eq!((found.severity, found.path.as_str()), (Severity::Warning, "policy.rules"));
    assert_eq!(found.message, "no rule names udp: link \"net\" is never used");
    assert!(findings(&with("budgets: {\"net\": (streams: 0, mbps: 5)}")).0.is_empty());
}

#[test]
fn gates_fill_their_cycle_and_let_every_lane_send_a_frame() {
    let with = |rate: &str, gates: &str| {
        format!(
            "(datapaths: [(name: \"a\", links: [\"l\"], gates: {gates})],\n\
             links: [(name: \"l\", technology: udp(bind: \"192.0.2.1:7400\"){rate})])"
        )
    };
    let rate = ", rate_mbps: 100, turn_us: 50";
    let wrong = |rate: &str, gates: &str, path: &str, message: &str| {
        let found = only(&with(rate, gates));
        assert_eq!((found.severity, found.path.as_str()), (Severity::Error, path), "{found}");
        assert!(found.message.contains(message), "{found}");
    };
    let all = "[0, 1, 2, 3, 4, 5, 6, 7]";
    let good = format!("(cycle_us: 1000, windows: [(lanes: [0, 1, 2], us: 400), (lanes: {all}, us: 600)])");
    assert!(findings(&with(rate, &good)).0.is_empty());
    let later = good.replace("windows", "base_time_ns: 9_000_000_000_000_000_007, windows");
    let plan = parse("test.ron", &with(rate, &later), &machine()).unwrap().plan;
    assert_eq!(plan.datapaths[0].gates.as_ref().unwrap().base_ns, 7, "an instant of a cycle, whichever");
    wrong("", &good, "datapaths[0].gates", "only where the rate of each link is known");
    let gates = format!("(cycle_us: 1000, windows: [(lanes: {all}, us: 999)])");
    wrong(rate, &gates, "datapaths[0].gates.windows", "last 999.0 us together, and the cycle 1.00 ms");
    let gates = "(cycle_us: 1000, windows: [(lanes: [0, 1, 2], us: 1000)])";
    wrong(rate, gates, "datapaths[0].gates.windows", "lane 4 may send for 0 ns at a time");
    // 1,538 bytes, as many of others, and e_turn: 296 us. What follows over the end counts as one.
    let ends = |us: u32| {
        let rest = 1_000 - 2 * us;
        format!(
            "(cycle_us: 1000, windows: [(lanes: {all}, us: {us}), (lanes: [0, 1, 2], us: {rest}), (lanes: {all}, us: {us})])"
        )
    };
    assert!(findings(&with(rate, &ends(149))).0.is_empty());
    wrong(rate, &ends(147), "datapaths[0].gates.windows", "lane 4 may send for 294.0 us at a time");
    for (lanes, message) in
        [("[0, 8]", "there is no lane 8"), ("[-1]", "there is no lane -1"), ("[1, 1]", "stands twice")]
    {
        let gates = format!("(cycle_us: 2000, windows: [(lanes: {lanes}, us: 1000), (lanes: {all}, us: 1000)])");
        wrong(rate, &gates, "datapaths[0].gates.windows[0].lanes", message);
    }
    let found =
        only(&with(rate, &format!("(cycle_us: 1000, windows: [(lanes: {all}, us: 1000)], cycle_extension: 1)")));
    assert!(found.message.contains("there is no field `cycle_extension`"), "{found}");
}
