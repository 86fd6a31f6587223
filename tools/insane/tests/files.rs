//! `insane check` and `insane plan`, as a person runs them.

use std::path::PathBuf;
use std::process::{Command, Output};

fn insane(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_insane")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn configs(name: &str) -> String {
    format!("{}/../../configs/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A file of this test alone, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, content: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("insane-cli-{}-{name}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        Scratch(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn check_accepts_the_examples() {
    let files = [
        "reference.ron",
        "single-host.ron",
        "cell-a.ron",
        "cell-b.ron",
        "slots-a.ron",
        "slots-b.ron",
        "../vplc-demo/hosts/a.ron",
        "../vplc-demo/hosts/b.ron",
    ]
    .map(configs);
    let mut arguments = vec!["check", "--elsewhere"];
    arguments.extend(files.iter().map(String::as_str));
    let output = insane(&arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let expected: String = files.iter().map(|file| format!("{file}: ok\n")).collect();
    assert_eq!(text(&output.stdout), expected);
    assert!(output.stderr.is_empty());
}

#[test]
fn check_shows_every_error_and_exits_with_one() {
    let file = Scratch::new("wrong.ron", "(\n    memory: (limit_bytes: 5),\n    host: (name: \"\"),\n)\n");
    let good = configs("single-host.ron");
    let output = insane(&["check", file.path(), &good, "/nowhere/x.ron"]);
    assert_eq!(output.status.code(), Some(1));
    let shown = text(&output.stderr);
    let first = format!(
        "error: memory.limit_bytes: 5 is too small\n --> {}:2:27\n  |\n2 |     memory: (limit_bytes: 5),\n  |                           ^\n\
         \x20 = accepted: 1_048_576 to 70_368_744_177_664 bytes\n\n",
        file.path()
    );
    assert!(shown.starts_with(&first), "{shown}");
    assert!(shown.contains(":3:18\n"), "{shown}");
    assert!(shown.contains("error: cannot read the configuration /nowhere/x.ron: No such file"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "no colours into a pipe");
    assert_eq!(text(&output.stdout), format!("{}: 2 errors\n{good}: ok\n/nowhere/x.ron: not read\n", file.path()));
}

#[test]
fn warnings_are_no_failure() {
    let file = Scratch::new("warned.ron", "(domains: [(name: \"d\", members: [any])])");
    let output = insane(&["check", file.path()]);
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), format!("{}: ok, with 1 warning\n", file.path()));
    assert!(text(&output.stderr).starts_with("warning: domains[0].members: several users"));
}

#[test]
fn plan_shows_tenants_and_both_sums() {
    let output = insane(&["plan", "--elsewhere", &configs("cell-a.ron")]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    for part in [
        "tenant \"line-1\"",
        "tenant \"guests\"",
        "datapath \"real-time\"",
        "link \"best-effort\": socket buffers",
        "\ntotal ",
        "Fits: ",
    ] {
        assert!(table.contains(part), "{part} in\n{table}");
    }
}

#[test]
fn plan_speaks_json_whose_parts_add_up() {
    let output = insane(&["plan", "--json", "--elsewhere", &configs("cell-a.ron")]);
    let budget: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let groups = budget["groups"].as_array().unwrap();
    let sum: u64 = groups.iter().map(|group| group["bytes"].as_u64().unwrap()).sum();
    assert_eq!(budget["total_bytes"].as_u64(), Some(sum));
    let tenants: Vec<_> = groups.iter().filter(|group| group["tenant"] == true).map(|group| &group["name"]).collect();
    assert_eq!(tenants, ["tenant \"line-1\"", "tenant \"guests\""]);
    assert_eq!(budget["host"], "cell-a");
}

#[test]
fn plan_shows_what_does_not_fit_and_refuses_it() {
    let file = Scratch::new("large.ron", "(memory: (limit_bytes: 100_000_000))");
    let output = insane(&["plan", "--elsewhere", file.path()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("Does not fit: "));
    assert!(text(&output.stderr).contains("the biggest item is \"source heaps\" of tenant \"default\""));
}

#[test]
fn a_wrong_command_line_is_two() {
    assert_eq!(insane(&[]).status.code(), Some(2));
    assert_eq!(insane(&["check"]).status.code(), Some(2));
    assert_eq!(insane(&["status", "--interval", "1"]).status.code(), Some(2));
}
