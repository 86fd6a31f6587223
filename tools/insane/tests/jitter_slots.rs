//! `insane jitter --slots` between two daemons in network namespaces. No test says how late a
//! message may be. Apart from the other tests of the command, which start copies of it.

mod common;

use common::{Daemon, Namespaces, text};

#[test]
fn slots_between_two_hosts_are_measured_and_the_worst_have_their_causes() {
    let Some(namespaces) = Namespaces::pair("jitter") else { return };
    let start = |own: usize, peer: usize| {
        let config = format!(
            r#"datapaths: [(name: "main", idle: spin_then_block(us: 20), links: ["l0"], epsilon_quantile_ppm: 900_000)],
            links: [(name: "l0", technology: udp(bind: "10.77.0.{own}:4000"), rate_mbps: 100, turn_us: 200)],
            peers: [(name: "jitter-{peer}", links: {{"l0": "10.77.0.{peer}:4000"}})],
            domains: [(name: "line", members: [any], receive: [(size: 2048, count: 256)])]"#
        );
        Daemon::start_in(Some(namespaces.name(own - 1)), &format!("jitter-{own}"), &config)
    };
    let hosts = [start(1, 2), start(2, 1)];
    let run = |format: &[&str]| {
        let mut command = common::insane();
        command.args(["jitter", "--seconds", "2", "--period-us", "4000"]).args(format).arg("--slots");
        let output = command.args(hosts.iter().map(Daemon::socket)).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        output.stdout
    };
    let report: serde_json::Value = serde_json::from_slice(&run(&["--json"])).unwrap();
    let series = report["series"].as_array().unwrap();
    let slots = series.iter().find(|series| series["name"] == "slots").expect("a series of slots");
    let latency = &slots["wakeup_latency_ns"];
    let (count, missed) = (latency["count"].as_u64().unwrap(), slots["cycles_missed"].as_u64().unwrap());
    assert!(count > 0 && count + missed <= 510, "two seconds of 4 ms cycles: {slots}");
    // A frame of 194 bytes takes 15 us on the link, and nobody arrives before its slot begins.
    assert!(latency["min"].as_u64() > Some(0), "{latency}");
    let worst = slots["worst"].as_array().unwrap();
    assert_eq!(worst[0]["late_ns"], latency["max"]);
    for worst in worst {
        let detail = worst["detail"].as_str().unwrap();
        assert!(detail.starts_with("it was in its slot") || detail.starts_with("it missed its slot"), "{worst}");
    }
    // Whether the certificate rests on what was measured, and on what of it.
    let turn = report["sender"].as_array().unwrap().iter().find(|row| row["name"] == "e_turn").expect("of the sender");
    assert!(turn["measured"].as_str().unwrap().contains("90 %"), "{turn}");
    assert_eq!(turn["rests_on"], "statistical: the quantile is at most 200.0 us");
    let shown = run(&[]);
    let shown = text(&shown);
    assert!(shown.contains("slots  messages in slots") && shown.contains("e_turn of the sender's runtime"), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= 90), "{shown}");

    // Who has no slots is told so.
    let none = Daemon::start(
        "jitter-none",
        r#"domains: [(name: "line", members: [any], receive: [(size: 2048, count: 64)])]"#,
    );
    let output = common::insane()
        .args(["jitter", "--seconds", "1", "--slots"])
        .args([none.socket(), none.socket()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("the sender has no slots"), "{}", text(&output.stderr));
}
