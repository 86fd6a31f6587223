//! Datapaths: cores, lanes, links, gates.

use super::*;

const LANES: &str = "one datapath with `serves: all`, or one with `real_time` and one with `best_effort`";

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
    expect(
        &datapath("policy: fifo(9), idle: yield"),
        "1:49",
        "datapaths[0].idle",
        "a SCHED_FIFO datapath that yields lets nobody less urgent run, for ever",
        "`policy: other`",
    );
    assert!(findings(&datapath("core: 0, idle: yield")).is_empty(), "a core that others use, too, is what it is for");
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
    let polite = two.replacen("fifo(9)", "other", 1);
    let message = "datapaths[0] spins on core 1 too: each waits milliseconds for the other";
    expect(&polite, "3:45", "datapaths[1].idle", message, "another core, `spin_then_block(us: ...)` or `block`");
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
    assert!(refused && text.contains("each delays the other"), "{text}");
    let (refused, text) = told(&two("policy: fifo(5), idle: block", "policy: fifo(5), idle: block"), &quiet);
    assert!(refused && text.contains("a higher `fifo` priority for the real-time lanes"), "{text}");
    let (refused, text) = told(&two("policy: other, idle: block", "policy: fifo(1), idle: block"), &quiet);
    assert!(refused && text.contains("does not go first"), "{text}");
    let (refused, text) = told(&two("policy: other, idle: block", "policy: other, idle: block"), &quiet);
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
