//! Domains, their heaps, and what they declare of streams.

use super::*;

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
    let little = "quota: (sessions: 1, sources: 1, sinks: 1)";
    let many: Vec<String> = (0..65).map(|at| format!("(name: \"d{at}\", members: [uid(1)], {little})")).collect();
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
fn a_rule_gives_no_core_on_which_a_datapath_spins() {
    let text = |core: u8| {
        format!(
            "(datapaths: [(name: \"x\", core: {core}, idle: spin)], \
             domains: [(name: \"d\", members: [uid(1)], realtime: (cores: [0, 1]))])"
        )
    };
    let quiet = Machine { isolated: Some(vec![0, 1]), ..machine() };
    let findings = parse("x.ron", &text(1), &quiet).unwrap_err();
    let [found] = findings.0.as_slice() else { panic!("{findings}") };
    assert_eq!(found.path, "domains[0].realtime.cores[1]");
    assert!(found.message.contains("\"x\" spins on core 1") && found.accepted.starts_with("another core"), "{found}");
    assert!(parse("x.ron", &text(1).replace("idle: spin", "idle: block"), &quiet).is_ok());
}

#[test]
fn a_domain_of_several_users_says_what_it_wants() {
    for members in ["[uid(1), uid(2)]", "[gid(1)]", "[any]"] {
        let found = only(&domain(&format!("members: {members}")));
        assert_eq!((found.severity, found.path.as_str()), (Severity::Warning, "domains[0].members"));
        assert!(found.accepted.contains("a domain for each if they may not read"), "no secret is promised: {found}");
        for isolation in ["shared", "session"] {
            assert!(findings(&domain(&format!("members: {members}, isolation: {isolation}"))).is_empty());
        }
    }
    assert!(findings(&domain("members: [uid(1)]")).is_empty());
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
        ("on_link_loss", "stey", "`stey` is not accepted here; did you mean `stay`?", "stay or degrade"),
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
fn a_declaration_names_links_that_are_there() {
    let text = |alternates: &str| {
        format!(
            "(links: [(name: \"one\", technology: udp(bind: \"192.0.2.1:7400\"))],
              datapaths: [(name: \"main\", links: [\"one\"])],
              domains: [(name: \"d\", members: [uid(1)], streams: [(name: \"x\", alternates: {alternates})])])"
        )
    };
    assert!(findings(&text("[\"one\"]")).is_empty() && findings(&text("[]")).is_empty());
    let found = only(&text("[\"one\", \"two\"]"));
    assert_eq!((found.severity, found.path.as_str()), (Severity::Error, "domains[0].streams[0].alternates[1]"));
    assert_eq!(found.message, "no datapath has a link \"two\"");
    assert_eq!(found.accepted, "one of \"one\"");
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

#[test]
fn more_sources_or_sinks_than_a_datapath_serves_are_refused() {
    for field in ["sources", "sinks"] {
        let found = only(&domain(&format!("members: [uid(1)], quota: ({field}: 4_097)")));
        assert_eq!((found.severity, found.path), (Severity::Error, format!("domains[0].quota.{field}")));
        let message = format!("4097 {field}, and a datapath serves 4096 of all domains");
        assert_eq!((found.message, &*found.accepted), (message, "at most 4096"));
        assert!(findings(&domain(&format!("members: [uid(1)], quota: ({field}: 4_096)"))).is_empty());
    }
}

#[test]
fn sources_and_sinks_of_all_domains_have_a_place_at_a_datapath() {
    let with = |quotas: &[&str]| {
        let domain = |(at, quota): (usize, &&str)| format!("(name: \"d{at}\", members: [uid(1)], quota: ({quota}))");
        format!("(domains: [{}])", quotas.iter().enumerate().map(domain).collect::<Vec<_>>().join(", "))
    };
    for field in ["sources", "sinks"] {
        let quota = |count: u32| format!("{field}: {count}");
        let [most, little, one] = [4_000, 96, 1].map(quota);
        assert!(findings(&with(&[&most, &little])).is_empty());
        let found = only(&with(&[&most, &little, &one]));
        assert_eq!((found.severity, found.path), (Severity::Error, format!("domains[2].quota.{field}")));
        let message =
            format!("1 {field}, 4097 with those of the domains before, and a datapath serves 4096 of all domains");
        assert_eq!((found.message, &*found.accepted), (message, "lower quotas of the domains before"));
        // Told once, also where more domains follow.
        let found = only(&with(&[&most, &quota(4_000), &most]));
        assert_eq!(found.path, format!("domains[1].quota.{field}"));
        assert_eq!(found.accepted, "at most 96, or lower quotas of the domains before");
    }
    // What is not written counts, too: 256 of each.
    let small = "bytes: 1_048_576, buffers: 64";
    let found = findings(&with(&[small; 17]));
    let paths: Vec<&str> = found.0.iter().map(|found| found.path.as_str()).collect();
    assert_eq!(paths, ["domains[16].quota.sources", "domains[16].quota.sinks"]);
}

/// Places for sources that only those with slots have are no places for others.
#[test]
fn where_a_datapath_has_slots_their_places_are_not_for_all_sources() {
    let with = |sources: u32, rate: &str| {
        format!(
            "(links: [(name: \"l\", technology: udp(bind: \"10.0.0.1:7400\"){rate})], datapaths: [(name: \"dp\", \
             links: [\"l\"])], domains: [(name: \"d\", members: [uid(1)], quota: (sources: {sources}))])"
        )
    };
    assert!(findings(&with(4_096, "")).is_empty());
    assert!(findings(&with(3_840, ", rate_mbps: 1000")).is_empty());
    let found = only(&with(3_841, ", rate_mbps: 1000"));
    assert_eq!((found.severity, &*found.path), (Severity::Error, "domains[0].quota.sources"));
    let message = "3841 sources, and a datapath serves 3840 of all domains, beside 256 with slots (the links of \"dp\" \
                   have a rate)";
    assert_eq!((&*found.message, &*found.accepted), (message, "at most 3840"));
}

#[test]
fn sessions_of_all_domains_have_a_doorbell_and_those_with_a_budget_a_place_for_it() {
    let with = |quotas: &[String]| {
        let domain = |(at, quota): (usize, &String)| {
            format!("(name: \"d{at}\", members: [uid(1)], quota: ({quota}, bytes: 1_048_576, buffers: 64))")
        };
        let domains: Vec<String> = quotas.iter().enumerate().map(domain).collect();
        format!("(memory: (limit_bytes: 70_368_744_177_664), domains: [{}])", domains.join(", "))
    };
    let errors = |text: &str| -> Vec<(String, String, String)> {
        let errors = findings(text).0.into_iter().filter(|found| found.severity == Severity::Error);
        errors.map(|found| (found.path, found.message, found.accepted)).collect()
    };
    let plain = |count: u32| format!("sessions: {count}");
    let bounded = |count: u32| format!("sessions: {count}, bytes_per_second: Some(1_000_000)");
    assert_eq!(errors(&with(&[plain(4_000), plain(96)])), []);
    let [(path, message, accepted)] = &errors(&with(&[plain(4_000), plain(97)]))[..] else { panic!("one error") };
    assert_eq!(path, "domains[1].quota.sessions");
    assert_eq!(
        message,
        "97 sessions, 4097 with those of the domains before, and a datapath serves 4096 of all domains"
    );
    assert_eq!(accepted, "at most 96, or lower quotas of the domains before");
    // Who has no budget needs no place for it.
    assert_eq!(errors(&with(&[bounded(200), plain(1_000), bounded(56)])), []);
    let [(path, message, accepted)] = &errors(&with(&[bounded(200), plain(1_000), bounded(57)]))[..] else {
        panic!("one error")
    };
    assert_eq!(path, "domains[2].quota.sessions");
    let words = "57 sessions with a budget (`bytes_per_second`), 257 with those of the domains before, and a datapath \
                 serves 256 with a budget of all domains";
    assert_eq!((&**message, &**accepted), (words, "at most 56, or lower quotas of the domains before"));
}
