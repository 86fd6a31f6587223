//! The demonstration as a person starts it, in the form that needs no rights.
//!
//! These tests ask what works, not how fast: a busy machine may miss cycles.

use std::process::{Command, Output};

fn demo(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vplc-demo"));
    command.args(["--embedded", "--no-tui"]).args(arguments).output().expect("it starts")
}

fn last_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned()
}

#[test]
fn a_smoke_run_works_and_writes_its_result() {
    let file = std::env::temp_dir().join(format!("vplc-demo-{}.json", std::process::id()));
    let output = demo(&["--single", "--smoke", "--video-fps", "2", "--json", file.to_str().expect("a plain path")]);
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let _ = std::fs::remove_file(&file);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(last_line(&output).starts_with("works: "), "{output:?}");
    let result: serde_json::Value = serde_json::from_str(&text).expect("the result is JSON");
    assert_eq!(result["judgement"], "works");
    assert!(result["device"]["round_trip"]["count"].as_u64() > Some(0), "{text}");
    for flow in ["video", "telemetry"] {
        let received = &result["flows"][flow][1];
        assert!(received["messages"].as_u64() > Some(0), "{text}");
        assert_eq!(received["damaged"], 0, "{text}");
    }
}

#[test]
fn a_controller_that_stops_for_long_does_not_hold() {
    let output = demo(&["--single", "--seconds", "2", "--no-best-effort", "--pause-ms", "600"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let line = last_line(&output);
    assert!(line.starts_with("did not hold: ") && line.contains("came down"), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("peer late"), "{text}");
}

#[test]
fn wrong_arguments_are_refused_with_what_is_accepted() {
    for arguments in [
        &["--seconds", "0"][..],
        &["--single", "--video-fps", "fast"],
        &["--unknown"],
        &["--margin-us", "301"],
        &["--video-fps", "2"],
    ] {
        let output = demo(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn a_file_that_cannot_be_written_is_told_before_anything_runs() {
    for option in ["--report", "--json"] {
        let output = Command::new(env!("CARGO_BIN_EXE_vplc-demo"))
            .args(["--embedded", "--no-tui", option, "/nonexistent/x.html"])
            .output()
            .expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("could not be written to /nonexistent/x.html") && !said.contains("run 1 of"), "{said}");
    }
}
