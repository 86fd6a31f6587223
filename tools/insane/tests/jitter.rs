//! `insane jitter` on this machine. No test says how late a wake-up may be.

mod common;

use common::text;
use std::os::unix::process::CommandExt;

fn measured(arguments: &[&str], nobody: bool) -> serde_json::Value {
    // Outside of folders that only root may enter.
    let folder = std::env::temp_dir().join(format!("insane-jitter-{}-{nobody}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let program = folder.join("insane");
    std::fs::copy(env!("CARGO_BIN_EXE_insane"), &program).unwrap();
    let mut command = std::process::Command::new(&program);
    command.current_dir("/").args(["jitter", "--seconds", "1", "--json"]).args(arguments);
    if nobody {
        command.uid(65_534).gid(65_534);
    }
    let output = command.output().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn both_series_are_measured_within_their_time() {
    let report = measured(&["--period-us", "2000"], false);
    assert_eq!(report["period_ns"], 2_000_000);
    for series in report["series"].as_array().unwrap() {
        let latency = &series["wakeup_latency_ns"];
        let (count, missed) = (latency["count"].as_u64().unwrap(), series["cycles_missed"].as_u64().unwrap());
        assert!(count >= 1 && count + missed <= 260, "half a second of 2 ms cycles: {series}");
        assert!(latency["p99"].is_null(), "250 samples do not carry it");
        let worst = series["worst"].as_array().unwrap();
        assert_eq!(worst[0]["late_ns"], latency["max"]);
        let causes = ["preempted", "host stolen", "interrupts", "handlers", "unexplained"];
        assert!(worst.iter().all(|worst| causes.contains(&worst["cause"].as_str().unwrap())), "{series}");
    }
}

#[test]
fn without_rights_it_says_so_and_measures() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("passed over: needs root to become somebody without rights");
        return;
    }
    let report = measured(&[], true);
    assert_eq!((&report["policy"], &report["priority"]), (&"SCHED_OTHER".into(), &serde_json::Value::Null));
    let notices = report["notices"].to_string();
    assert!(notices.contains("runs without SCHED_FIFO priority 80"), "{notices}");
    assert!(report["series"][1]["wakeup_latency_ns"]["count"].as_u64() > Some(0));
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let refused = |arguments: &[&str]| {
        let output = common::insane().arg("jitter").args(arguments).output().unwrap();
        (output.status.code(), text(&output.stderr).to_owned())
    };
    for wrong in [["--seconds", "0"], ["--seconds", "601"], ["--period-us", "10"], ["--priority", "99"]] {
        assert_eq!(refused(&wrong).0, Some(2), "{wrong:?}");
    }
    let (code, said) = refused(&["--core", "4095"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("core 4095 is not among the cores of this process"), "{said}");
}
