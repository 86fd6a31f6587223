//! The program as its users meet it: output, check, exit codes, and what it leaves
//! behind when it is killed. Nothing here judges a time.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A directory of one test, removed when done.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("latency-tests-{}-{test}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latency-tests"));
    command.stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn last_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned()
}

fn two_processors() -> bool {
    std::thread::available_parallelism().is_ok_and(|count| count.get() >= 2)
}

#[test]
fn the_list_names_every_scenario() {
    let output = run(&["--list"]);
    assert!(output.status.success());
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    for scenario in [
        "local",
        "hop",
        "network",
        "throughput",
        "sweep",
        "setup",
        "instructions",
        "syscalls",
        "admission",
        "scheduler",
        "jitter",
        "isolation",
        "migrate",
        "displace",
        "smoke",
    ] {
        assert!(listed.lines().any(|line| line.starts_with(scenario)), "{scenario} in {listed}");
    }
    assert!(!listed.contains("count"), "the counted half is not for people");
}

#[test]
fn rows_have_the_documented_shape_and_the_page_stands_alone() {
    if !two_processors() {
        eprintln!("passed over: two processors are needed");
        return;
    }
    let scratch = Scratch::new("shape");
    let (json, page) = (scratch.file("rows.json"), scratch.file("page.html"));
    let output = run(&["selftest", "--smoke", "--json", text(&json), "--report", text(&page)]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let written: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    let rows = written["rows"].as_array().unwrap();
    assert!(rows.len() >= 8, "{} rows", rows.len());
    for row in rows {
        let keys: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
        for key in ["name", "unit", "ours", "baseline", "ratio", "n", "topology", "floor_before_us", "floor_after_us"] {
            assert!(keys.contains(&key), "{key} in {row}");
        }
        assert_eq!(keys.len(), 9, "nothing else in {row}");
        let figures = if row["unit"] == "us" { &["p50", "p99", "p999", "max"][..] } else { &["value"] };
        for side in ["ours", "baseline"] {
            for figure in figures {
                assert!(row[side].get(figure).is_some(), "{side}.{figure} in {row}");
            }
        }
        assert!(row["n"].as_u64().unwrap() > 0, "{row}");
    }

    let html = fs::read_to_string(&page).unwrap();
    assert!(html.contains("<svg") && html.contains("selftest/ring/64B"));
    assert!(!html.contains("http"), "nothing is loaded from elsewhere");
}

/// The names of the rows that one scenario brings in its short form.
fn rows_of(arguments: &[&str]) -> Vec<String> {
    let scratch = Scratch::new(arguments[0]);
    let json = scratch.file("rows.json");
    let output = run(&[arguments, &["--smoke", "--json", text(&json)]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let written: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    let rows = written["rows"].as_array().unwrap();
    rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_scenario_brings_its_rows() {
    if !two_processors() {
        eprintln!("passed over: two processors are needed");
        return;
    }
    let expected: [(&[&str], &[&str]); 9] = [
        (&["local"], &["local/64B", "local/attached-64B", "local/token-6220800B"]),
        (&["hop"], &["hop/T3/64B", "hop/T2/64B"]),
        // The rows on two hosts need root.
        (&["network", "--plugin", "udp"], &["network/loopback/64B/inline", "network/self/64B/daemon"]),
        (&["network", "--plugin", "tcp"], &["network/tcp-loopback/64B/inline"]),
        (
            &["throughput", "--size", "4096"],
            &[
                "throughput/touch/4096B",
                "throughput/copied/4096B",
                "throughput/foreign/4096B",
                "throughput/tokens/4096B",
            ],
        ),
        (&["throughput", "--touch", "--size", "64"], &["throughput/touch/64B"]),
        (&["setup"], &["setup/stream-1", "setup/stream-10"]),
        (&["admission"], &["admission/synthesis-1000", "admission/one-more", "admission/used-harmonic/full"]),
        (&["jitter", "--hosting", "thread"], &["jitter/1ms/thread", "jitter/250us/thread/p50-above-bare"]),
    ];
    for (arguments, names) in expected {
        let rows = rows_of(arguments);
        for name in names {
            assert!(rows.iter().any(|row| row == name), "{name} among {rows:?}");
        }
    }
}

/// Counts alone are judged: nothing is lost, repeated or reordered, whatever else the machine does.
#[test]
fn streams_change_their_link_and_what_that_costs_is_as_promised() {
    if !two_processors() {
        eprintln!("passed over: two processors are needed");
        return;
    }
    for (scenario, row) in [("migrate", "migrate/planned/lost"), ("displace", "displace/2/premium")] {
        let scratch = Scratch::new(scenario);
        let json = scratch.file("rows.json");
        let output = run(&[scenario, "--smoke", "--check", "--json", text(&json)]);
        let words = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words}");
        let written: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
        if !written["not_measured"].as_array().unwrap().is_empty() {
            eprintln!("passed over: {words}");
            continue;
        }
        let rows = written["rows"].as_array().unwrap();
        assert!(rows.iter().any(|found| found["name"] == row), "{row}: {words}");
    }
}

#[test]
fn a_missed_bound_is_on_the_last_line_and_in_the_exit_code() {
    if !two_processors() {
        eprintln!("passed over: two processors are needed");
        return;
    }
    let scratch = Scratch::new("bounds");
    let bounds = scratch.file("bounds.ron");
    let with = |max: &str| {
        let text = format!(r#"(bounds: [(row: "selftest/relay-T3/64B", figure: ratio_p50, max: Some({max}))])"#);
        fs::write(&bounds, text).unwrap();
        run(&["selftest", "--smoke", "--check", "--bounds", bounds.to_str().unwrap()])
    };
    let missed = with("0.000001");
    assert_eq!(missed.status.code(), Some(1), "{}", String::from_utf8_lossy(&missed.stderr));
    assert!(last_line(&missed).contains("MISSED"), "{}", last_line(&missed));
    let met = with("1000000.0");
    assert_eq!(met.status.code(), Some(0), "{}", last_line(&met));
    assert!(last_line(&met).starts_with("check: 1 met, 0 missed"), "{}", last_line(&met));
}

#[test]
fn wrong_bounds_are_refused_before_anything_is_measured() {
    let scratch = Scratch::new("wrong");
    let bounds = scratch.file("bounds.ron");
    fs::write(&bounds, "(bounds: [\n  (row: \"a\", figure: ratio_p51, max: Some(1.0)),\n])").unwrap();
    let output = run(&["selftest", "--smoke", "--check", "--bounds", text(&bounds)]);
    assert_eq!(output.status.code(), Some(2));
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("2:") && words.contains("ratio_p51"), "{words}");
    assert!(output.stdout.is_empty());
    let absent = run(&["local", "--bounds", text(&scratch.file("nothing.ron"))]);
    assert_eq!(absent.status.code(), Some(2));
}

#[test]
fn a_killed_run_leaves_no_namespace() {
    let namespaces = |pid: u32| -> Vec<String> {
        let Ok(entries) = fs::read_dir("/var/run/netns") else { return Vec::new() };
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with(&format!("lt{pid}"))).collect()
    };
    let mut child =
        program().args(["selftest", "--smoke"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let pid = child.id();
    let give_up = Instant::now() + Duration::from_secs(60);
    let appeared = loop {
        if namespaces(pid).len() == 2 {
            break true;
        }
        if child.try_wait().unwrap().is_some() || Instant::now() > give_up {
            break false;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    if !appeared {
        eprintln!("passed over: no right to make namespaces");
        return;
    }
    let give_up = Instant::now() + Duration::from_secs(30);
    while !namespaces(pid).is_empty() {
        assert!(Instant::now() < give_up, "left behind: {:?}", namespaces(pid));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(feature = "aeron")]
#[test]
fn a_killed_run_leaves_no_media_driver_and_none_of_its_files() {
    use std::os::unix::fs::PermissionsExt;
    let folders = |pid: u32| -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir("/dev/shm") else { return Vec::new() };
        let start = format!("latency-tests.{pid}.aeron");
        let ours = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start));
        entries.flatten().map(|entry| entry.path()).filter(ours).collect()
    };
    let mut child = program().args(["local", "--smoke"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let pid = child.id();
    let give_up = Instant::now() + Duration::from_secs(60);
    let folder = loop {
        if let Some(folder) = folders(pid).into_iter().find(|folder| folder.join("aeron/cnc.dat").exists()) {
            break folder;
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended before a driver was there");
        assert!(Instant::now() < give_up, "no driver came");
        std::thread::sleep(Duration::from_millis(1));
    };
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    child.kill().unwrap();
    child.wait().unwrap();
    let give_up = Instant::now() + Duration::from_secs(30);
    while !folders(pid).is_empty() {
        assert!(Instant::now() < give_up, "left behind: {:?}", folders(pid));
        std::thread::sleep(Duration::from_millis(20));
    }
}
