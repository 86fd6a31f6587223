//! `insane schedule`, as a person runs it.

mod common;

use common::{insane, text};
use insane_certificate::text as certificate;
use std::path::PathBuf;
use std::process::Output;

fn configs(name: &str) -> String {
    format!("{}/../../configs/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A folder of one test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("insane-schedule-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.0.join(name), text).unwrap();
        self.path(name)
    }

    /// The certificate of the example.
    fn example(&self) -> String {
        let path = self.path("plant.cert");
        let output = schedule(&["synth", &configs("plants/cells.ron"), "-o", &path]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("12 streams on 4 links of 2 hosts"), "{}", text(&output.stdout));
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn schedule(arguments: &[&str]) -> Output {
    insane().arg("schedule").args(arguments).output().unwrap()
}

/// Status 1 and these words on standard error.
fn fails(arguments: &[&str], words: &[&str]) {
    let output = schedule(arguments);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    words.iter().for_each(|word| assert!(said.contains(word), "{word:?} is missing in {said}"));
}

fn plant() -> String {
    std::fs::read_to_string(configs("plants/cells.ron")).unwrap()
}

fn changed(from: &str, to: &str) -> String {
    assert!(plant().contains(from), "{from}");
    plant().replacen(from, to, 1)
}

#[test]
fn who_mixes_up_plants_and_configurations_is_told_which_is_which() {
    fails(&["synth", &configs("single-host.ron")], &["a plant has no field `control`", "configuration of a runtime"]);
    fails(&["synth", "/nowhere/x.ron"], &["error: cannot read the plant /nowhere/x.ron: No such file"]);
    let file = configs("plants/cells.ron");
    let output = insane().args(["check", &file]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), format!("{file}: a plant, not a configuration\n"));
    assert!(text(&output.stderr).contains(&format!("`insane schedule synth {file}`")), "{}", text(&output.stderr));
}

#[test]
fn an_error_of_gates_says_so_once() {
    let gates = ["taprio", "gates", &configs("reference.ron"), "nobody", "--dev", "eth0"];
    let said = text(&schedule(&gates).stderr);
    assert!(said.starts_with("error: there is no datapath \"nobody\""), "{said}");
}

#[test]
fn the_example_is_scheduled_checked_explained_and_drawn() {
    let scratch = Scratch::new("example");
    let path = scratch.example();
    let found = certificate::read(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(insane_checker::check(&found.plant, &found), Ok(()));
    let output = schedule(&["check", &path, "--plant", &configs("plants/cells.ron")]);
    assert!(output.status.success() && text(&output.stdout).contains("holds"), "{}", text(&output.stderr));
    let explained = text(&schedule(&["explain", &path]).stdout);
    for words in [
        "\"axes/1\"",
        "cell-a: from",
        "before its deadline",
        "chain \"position\"",
        "lane \"alarms\"",
        "at most 1.0 us off",
        "not exclusive: others put at most 1538 bytes before ours; at most 62500 bytes",
        "    exclusive: nobody else puts anything before ours",
    ] {
        assert!(explained.contains(words), "{words:?} is missing in {explained}");
    }
    // A plant is explained by its schedule.
    assert_eq!(text(&schedule(&["explain", &configs("plants/cells.ron")]).stdout), explained);
    let picture = scratch.path("plant.svg");
    assert!(schedule(&["draw", &path, "-o", &picture]).status.success());
    let drawn = std::fs::read_to_string(&picture).unwrap();
    // In 4 ms: 6 streams of 1 ms, 2 of 2, 4 of 4, each on two links, and two blocked windows.
    let bars = drawn.matches("<title>").count();
    assert!(bars >= 2 * (6 * 4 + 2 * 2 + 4) + 2, "{bars}");
    assert!(drawn.contains("temperatures") && drawn.trim_end().ends_with("</svg>"));
    fails(&["draw", &path, "-o", &picture, "--for-us", "4000000"], &["too many to read", "--for-us"]);
    fails(&["draw", &path, "-o", &picture, "--for-us", "0"], &["nothing to draw"]);
    fails(&["draw", &path, "-o", &picture, "--from-us", "99999", "--for-us", "5"], &["beyond the cycle of"]);
}

#[test]
fn a_certificate_that_was_altered_or_is_of_another_plant_is_refused() {
    let scratch = Scratch::new("altered");
    let path = scratch.example();
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(scratch.path("bit"), bytes).unwrap();
    for command in ["check", "explain"] {
        fails(&[command, &scratch.path("bit")], &["error"]);
    }
    fails(&["check", &scratch.path("bit")], &["altered"]);
    let other = scratch.write("other.ron", &changed("bytes: 1_154", "bytes: 1_155"));
    fails(&["check", &path, "--plant", &other], &["another plant"]);
    // Whole, and untrue: a slot where another one is.
    let mut lie = certificate::read(&std::fs::read_to_string(&path).unwrap()).unwrap();
    lie.placed[1] = lie.placed[0].clone();
    let lie = scratch.write("lie", &certificate::write(&lie).unwrap());
    fails(&["check", &lie], &["does not hold", "\"axes/1\" and", "overlap"]);
    fails(&["check", &configs("plants/cells.ron")], &["does not begin as a certificate"]);
    fails(&["check", &scratch.path("absent")], &["No such file"]);
    assert_eq!(schedule(&["check"]).status.code(), Some(2));
}

#[test]
fn a_plant_without_a_schedule_is_refused_with_a_proof_in_words_and_an_offer() {
    let scratch = Scratch::new("refused");
    // A window of three quarters of a millisecond beside others of the same period.
    let long = scratch
        .write("long.ron", &changed("bytes: 194, deadline_ns: 500_000", "bytes: 120_000, deadline_ns: 1_000_000"));
    fails(&["synth", &long], &["there is no schedule", "it would have one with", "bytes"]);
    fails(&["explain", &long], &["there is no schedule"]);
    let tight = scratch.write("tight.ron", &changed("deadline_ns: 500_000", "deadline_ns: 10_000"));
    fails(&["synth", &tight], &["\"axes/1\" does not fit", "a deadline of"]);
    let chain = scratch.write("chain.ron", &changed("reaction_ns_max: 5_000_000", "reaction_ns_max: 1_000_000"));
    fails(&["synth", &chain], &["chain \"position\" would take up to"]);
    let lane = scratch.write("lane.ron", &changed("deadline_ns: 3_000_000", "deadline_ns: 3_000"));
    fails(&["synth", &lane], &["lane \"alarms\" may take longer"]);
}

#[test]
fn what_means_nothing_is_told_with_file_line_and_column() {
    let scratch = Scratch::new("wrong");
    for (from, to, words) in [
        ("period_ns: 1_000_000, bytes: 194", "period_ns: 0, bytes: 194", "is no period"),
        ("period_ns: 1_000_000, bytes: 194", "period_ns: 9_000_000_000_000_000_000, bytes: 194", "is no period"),
        ("(link: \"to-b\")", "(link: \"to-bee\")", "did you mean \"to-b\"?"),
        ("name: \"axes/2\"", "name: \"axes/1\"", "given twice"),
        ("length_ns: 100_000", "length_ns: 5_000_000", "beyond its period"),
        ("boundary: Wire", "boundary: Wire, colour: 1", "colour"),
        ("Stream(\"axes/1\")", "Stream(\"axis\")", "there is no stream"),
    ] {
        let path = scratch.write("wrong.ron", &changed(from, to));
        fails(&["synth", &path], &[words, &format!("{path}:"), "^"]);
    }
}

#[test]
fn what_is_kept_does_not_move_for_what_is_new() {
    let scratch = Scratch::new("keep");
    let path = scratch.example();
    let old = certificate::read(&std::fs::read_to_string(&path).unwrap()).unwrap();
    // The new one is more frequent than all others, and would come first.
    let more = r#"streams: [
        (name: "new", class: Assured, period_ns: 500_000, bytes: 194, deadline_ns: 400_000, path: [(link: "cell-a", delay_ns: 2_000), (link: "to-b")]),"#;
    let larger = scratch.write("larger.ron", &changed("streams: [", more));
    let kept = scratch.path("kept.cert");
    let output = schedule(&["synth", &larger, "-o", &kept, "--keep", &path]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("12 streams keep their slots, 1 are new"), "{}", text(&output.stdout));
    let new = certificate::read(&std::fs::read_to_string(&kept).unwrap()).unwrap();
    assert_eq!(new.placed[1..], old.placed);
    assert_eq!(insane_checker::check(&new.plant, &new), Ok(()));
}

#[test]
fn gates_are_written_for_tc_and_read_as_blocked_windows() {
    let scratch = Scratch::new("taprio");
    let path = scratch.example();
    let output = schedule(&["taprio", "export", &path, "to-b"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let command = text(&output.stdout);
    assert!(command.starts_with("tc qdisc replace dev to-b parent root handle 100: taprio"), "{command}");
    assert!(command.contains("cycle-time 4000000") && command.contains("sched-entry S 01 "), "{command}");
    let entry = |line: &str| -> Option<(u32, u64)> {
        let rest = line.trim().strip_prefix("sched-entry S ")?;
        let (gates, interval) = rest.trim_end_matches(" \\").split_once(' ')?;
        Some((u32::from_str_radix(gates, 16).ok()?, interval.parse().ok()?))
    };
    let entries: Vec<(u32, u64)> = command.lines().filter_map(entry).collect();
    assert_eq!(entries.iter().map(|entry| entry.1).sum::<u64>(), 4_000_000);
    // The switch's own window comes first, and nobody of ours sends in it.
    assert_eq!(entries[0], (0, 100_000));
    let found = certificate::read(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let on_port = found
        .plant
        .streams
        .iter()
        .zip(&found.placed)
        .filter(|(stream, _)| found.plant.links[stream.path[1].link].name == "to-b");
    let reserved: u64 =
        on_port.map(|(stream, placed)| placed.windows[1].length_ns * (4_000_000 / stream.period_ns)).sum();
    assert_eq!(entries.iter().filter(|entry| entry.0 == 1).map(|entry| entry.1).sum::<u64>(), reserved);
    // Read again: class 0 may not send where nobody has a slot.
    let file = scratch.write("gates.tc", &command);
    let imported = text(&schedule(&["taprio", "import", &file]).stdout);
    assert!(imported.starts_with("blocked: [") && imported.contains("period_ns: 4000000"), "{imported}");
    // What was printed is what a plant understands.
    let blocked = "blocked: [(offset_ns: 0, length_ns: 100_000, period_ns: 4_000_000)],\n        ),\n        (\n            name: \"to-b\"";
    let with_gates =
        changed(blocked, &format!("{},\n        ),\n        (\n            name: \"to-b\"", imported.trim_end()));
    let gated = scratch.write("gated.ron", &with_gates);
    let synth = schedule(&["synth", &gated, "-o", &scratch.path("gated.cert")]);
    assert!(synth.status.success(), "{}", text(&synth.stderr));
    fails(&["taprio", "import", &file, "--class", "7"], &["no class 7"]);
    fails(&["taprio", "export", &path, "to-c"], &["no link \"to-c\"", "cell-a"]);
    fails(&["taprio", "export", &path, "to-b", "--dev", "x; reboot"], &["no name of a device"]);
    fails(
        &["taprio", "import", &scratch.write("bad.tc", "taprio num_tc 2 sched-entry S 01 0")],
        &["bad.tc:1:34", "interval of 0"],
    );
}
