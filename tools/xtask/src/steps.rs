//! The steps of the check, in the order in which they run. A step that fails does not
//! keep the next from running.

use crate::bytecode::{self, Compared};
use crate::dpdk;
use crate::fuzz;
use crate::guest;
use crate::licences;
use crate::optimised::{PROFILE, Programs};
use crate::process::{self, Ending, cargo};
use crate::tally::{self, Done, Follower, TestCount, Verdict};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Commands that the tests use, headers that optional features need, and the Debian packages
/// that bring them.
const TOOLS: &[(&str, &str)] = &[
    ("clang", "clang"),
    ("crun", "crun"),
    ("g++", "g++"),
    ("ip", "iproute2"),
    ("llvm-strip", "llvm"),
    ("ps", "procps"),
    ("runc", "runc"),
    ("strace", "strace"),
    ("tshark", "tshark"),
    ("valgrind", "valgrind"),
    ("z3", "z3"),
    (TRACE_HEADERS[0], "libelf-dev"),
    (TRACE_HEADERS[1], "zlib1g-dev"),
    ("pkg-config", "pkg-config"),
    (dpdk::HEADERS, dpdk::PACKAGE),
    // What the structures of RDMA are compared with.
    ("/usr/include/infiniband/verbs.h", "libibverbs-dev"),
    ("/usr/include/rdma/rdma_cma.h", "librdmacm-dev"),
];

/// What `insane trace` is built with.
const TRACE_HEADERS: [&str; 2] = ["/usr/include/libelf.h", "/usr/include/zlib.h"];

struct Step {
    name: &'static str,
    what: &'static str,
    run: fn(&Path) -> (Verdict, TestCount),
}

const STEPS: &[Step] = &[
    Step { name: "packages", what: "install what the tests use and is missing (root)", run: packages },
    Step { name: "fetch", what: "download the crates of the lock file", run: fetch },
    Step { name: "fmt", what: "formatting", run: format },
    Step { name: "clippy", what: "lints of all targets, warnings denied", run: clippy },
    Step { name: "tests", what: "all tests of the workspace", run: tests },
    Step { name: "rt-guest", what: "tests on a PREEMPT_RT kernel, in an emulated machine", run: guest::step },
    Step { name: "gossip", what: "lints and tests of discovery by gossip, a feature", run: gossip },
    Step { name: "trace", what: "lints and tests of `insane trace`, a feature", run: trace },
    Step { name: "loom", what: "the rings, and the queues of spawned tasks, under loom", run: loom },
    Step { name: "miri", what: "the ports under Miri", run: miri },
    Step {
        name: "mutants",
        what: "deliberate faults of scheduler, admission, checker, stack and formats, all noticed",
        run: mutants,
    },
    Step { name: "fuzz", what: "fuzz targets guided by coverage, bounded", run: fuzz },
    Step { name: "licences", what: "licences and duplicates of all dependencies", run: check_licences },
    Step { name: "bytecode", what: "the XDP program's bytecode is what clang makes of its source", run: compare },
    Step { name: "docs", what: "the documentation builds, warnings denied", run: docs },
    Step { name: "sim", what: "simulated worlds of fixed seeds, every rule checked", run: sim },
    Step { name: "latency", what: "every latency test in its short form", run: latency },
    Step { name: "demo", what: "the demo, judged by function and not by time", run: demo },
    Step { name: "containers", what: "controllers in containers, each killed in turn (root)", run: containers },
];

/// Which steps run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Selection {
    /// None: they are named.
    List,
    /// These, in the order of the table.
    Run(Vec<&'static str>),
}

/// Why the command line means nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SelectionError {
    /// An unknown option.
    #[error("`{0}` is no option of test")]
    Option(String),
    /// An option without its value.
    #[error("`{0}` needs the names of steps, with commas between them")]
    NoValue(String),
    /// An unknown step.
    #[error("`{0}` is no step; `cargo xtask test --list` names them")]
    Step(String),
    /// Nothing is left.
    #[error("no step is left to run")]
    Nothing,
}

impl Selection {
    /// Reads the options of `test`.
    ///
    /// # Errors
    /// [`SelectionError`].
    pub fn parse(options: &[&str]) -> Result<Self, SelectionError> {
        let all: Vec<&'static str> = STEPS.iter().map(|step| step.name).collect();
        let (mut only, mut skip) = (None, Vec::new());
        let mut rest = options.iter();
        while let Some(&option) = rest.next() {
            match option {
                "--list" => return Ok(Selection::List),
                "--only" | "--skip" => {
                    let value = rest.next().ok_or_else(|| SelectionError::NoValue(option.to_owned()))?;
                    let names: Vec<&str> = value.split(',').collect();
                    if let Some(unknown) = names.iter().find(|name| !all.contains(name)) {
                        return Err(SelectionError::Step((*unknown).to_owned()));
                    }
                    if option == "--only" { only.get_or_insert_with(Vec::new) } else { &mut skip }.extend(names);
                }
                other => return Err(SelectionError::Option(other.to_owned())),
            }
        }
        let wanted = |name: &&'static str| only.as_ref().is_none_or(|only| only.contains(name)) && !skip.contains(name);
        let chosen: Vec<&'static str> = all.into_iter().filter(wanted).collect();
        if chosen.is_empty() { Err(SelectionError::Nothing) } else { Ok(Selection::Run(chosen)) }
    }
}

/// Runs the chosen steps and prints the table.
pub fn run(root: &Path, selection: &Selection) -> ExitCode {
    let chosen = match selection {
        Selection::List => {
            STEPS.iter().for_each(|step| println!("{:<10} {}", step.name, step.what));
            return ExitCode::SUCCESS;
        }
        Selection::Run(chosen) => chosen,
    };
    let mut done = Vec::new();
    for step in STEPS.iter().filter(|step| chosen.contains(&step.name)) {
        println!("\n==> {}: {}", step.name, step.what);
        let start = Instant::now();
        let (verdict, tests) = (step.run)(root);
        if let Verdict::Failed(reason) | Verdict::Skipped(reason) = &verdict {
            println!("{}: {reason}", step.name);
        }
        done.push(Done { name: step.name, verdict, tests, took: start.elapsed() });
    }
    println!("\n{}{}", tally::failures(&done), tally::table(&done));
    let failed = done.iter().any(|step| matches!(step.verdict, Verdict::Failed(_)));
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn packages(_root: &Path) -> (Verdict, TestCount) {
    let missing: Vec<_> = TOOLS.iter().filter(|tool| !is_installed(tool.0)).map(|tool| tool.1).collect();
    if missing.is_empty() {
        return (Verdict::Passed, TestCount::default());
    }
    let names = missing.join(" ");
    if !nix::unistd::geteuid().is_root() {
        let reason = format!("not root; tests that need them will say so: apt-get install {names}");
        return (Verdict::Skipped(reason), TestCount::default());
    }
    let mut update = Command::new("apt-get");
    update.args(["update", "-q"]);
    // Without fresh lists the installation may still succeed, and it is what counts.
    let _ = simple(&mut update, 3);
    let mut install = Command::new("apt-get");
    install
        .args(["install", "-q", "-y", "--no-install-recommends"])
        .args(missing)
        .env("DEBIAN_FRONTEND", "noninteractive");
    match simple(&mut install, 5).0 {
        Verdict::Failed(reason) => {
            (Verdict::Failed(format!("could not install {names}: {reason}")), TestCount::default())
        }
        other => (other, TestCount::default()),
    }
}

fn is_installed(command: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Administrators' folders are not in everyone's PATH, but the tests look there.
    let extra = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(extra).any(|folder| folder.join(command).is_file())
}

fn fetch(root: &Path) -> (Verdict, TestCount) {
    simple(cargo(root).args(["fetch", "--locked"]), 10)
}

fn format(root: &Path) -> (Verdict, TestCount) {
    simple(cargo(root).args(["fmt", "--all", "--check"]), 2)
}

fn clippy(root: &Path) -> (Verdict, TestCount) {
    simple(cargo(root).args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]), 15)
}

fn tests(root: &Path) -> (Verdict, TestCount) {
    // Without it, tests of dpdk links pass over themselves.
    if let Err(error) = shim(root) {
        return (Verdict::Failed(error.to_string()), TestCount::default());
    }
    counted(cargo(root).args(["test", "--workspace", "--locked", "--no-fail-fast"]), 30)
}

/// Whether the library that links DPDK could be made; one that does not compile is an error.
fn shim(root: &Path) -> Result<bool, dpdk::ShimError> {
    match dpdk::make(root) {
        Ok(_) => Ok(true),
        Err(missing @ dpdk::ShimError::NoDpdk(_)) => {
            println!("{missing}");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// What the default build leaves out: the back end, and daemons that find each other. All
/// commands choose the same packages and features, or the crates below would be compiled for each.
/// The third has them as they are in the whole workspace.
pub(crate) const GOSSIP: [&str; 8] = [
    "-p",
    "insane-discovery",
    "-p",
    "insaned",
    "-p",
    "insane-unified",
    "--features",
    "insane-discovery/gossip,insaned/gossip",
];
/// All tests of discovery, and of the daemon those that need it: the others have run without.
const GOSSIP_TESTS: [&str; 5] = ["--lib", "--test", "gossip", "--test", "discovery"];

fn gossip(root: &Path) -> (Verdict, TestCount) {
    let mut lints = cargo(root);
    lints.args(["clippy", "--locked", "--all-targets"]).args(GOSSIP).args(["--", "-D", "warnings"]);
    let lints = simple(&mut lints, 15);
    if lints.0 != Verdict::Passed {
        return lints;
    }
    counted(cargo(root).args(["test", "--locked", "--no-fail-fast"]).args(GOSSIP).args(GOSSIP_TESTS), 20)
}

/// What the default build leaves out, since it needs headers.
fn trace(root: &Path) -> (Verdict, TestCount) {
    if let Some(missing) = TRACE_HEADERS.into_iter().find(|header| !is_installed(header)) {
        return (
            Verdict::Skipped(format!("there is no {missing}: apt-get install libelf-dev zlib1g-dev")),
            TestCount::default(),
        );
    }
    let feature = ["--locked", "--features", "insane-cli/trace"];
    let mut lints = cargo(root);
    // All packages, or those below would have other features than in the step `clippy`, and be
    // looked at once more.
    lints.args(["clippy", "--workspace", "--all-targets"]).args(feature).args(["--", "-D", "warnings"]);
    let lints = simple(&mut lints, 15);
    if lints.0 != Verdict::Passed {
        return lints;
    }
    let mut tests = cargo(root);
    // The others have nothing of these names: they give crates below the features that they have in
    // the step `tests`.
    tests.arg("test").args(feature).args(["-p", "insane-cli", "-p", "insaned", "-p", "latency-tests"]);
    tests.args(["-p", "insane-unified"]);
    counted(tests.args(["--bin", "insane", "--test", "trace"]), 10)
}

/// In a target folder of its own: the flag would rebuild everything in the other.
fn loom(root: &Path) -> (Verdict, TestCount) {
    let mut command = cargo(root);
    command
        .args(["test", "--locked", "-p", "insane-shm", "-p", "vplc", "--profile", PROFILE, "--lib", "loom"])
        .env("CARGO_TARGET_DIR", process::target(root).join("loom"))
        .env("RUSTFLAGS", flags("RUSTFLAGS", "--cfg loom"));
    counted(&mut command, 20)
}

/// Every access of the ports, followed by Miri, which only a nightly compiler has.
fn miri(root: &Path) -> (Verdict, TestCount) {
    let miri = |arguments: &[&str]| {
        let mut command = Command::new("rustup");
        command.current_dir(root).args(["run", "nightly", "cargo", "miri"]).args(arguments);
        command
    };
    let is_there = || miri(&["--version"]).output().is_ok_and(|output| output.status.success());
    if !is_there() {
        // Judged by whether it is there afterwards.
        let _ = simple(Command::new("rustup").args(MIRI), 10);
    }
    if !is_there() {
        let reason = format!("there is no Miri, and it cannot be installed here: rustup {}", MIRI.join(" "));
        return (Verdict::Skipped(reason), TestCount::default());
    }
    counted(&mut miri(&["test", "--locked", "-p", "insane-shm", "--test", "plain_memory"]), 10)
}

/// How rustup installs it: of nightly compilers the last that has it.
const MIRI: [&str; 8] =
    ["toolchain", "install", "nightly", "--profile", "minimal", "--component", "miri,rust-src", "--no-self-update"];

fn mutants(root: &Path) -> (Verdict, TestCount) {
    let mut command = cargo(root);
    command.args(["test", "--profile", PROFILE, "--locked", "--test", "mutants", "--features"]);
    command
        .args(["insane-slot-simulation/mutants,insane-admission/mutants,insane-checker/mutants,insane-fuzz/mutants"]);
    command.args([
        "-p",
        "insane-slot-simulation",
        "-p",
        "insane-admission",
        "-p",
        "insane-checker",
        "-p",
        "insane-fuzz",
    ]);
    counted(&mut command, 15)
}

fn fuzz(root: &Path) -> (Verdict, TestCount) {
    let verdict = match fuzz::check(root) {
        Ok(()) => Verdict::Passed,
        Err(missing @ fuzz::FuzzError::NoCompiler) => Verdict::Skipped(missing.to_string()),
        Err(found) => Verdict::Failed(found.to_string()),
    };
    (verdict, TestCount::default())
}

fn check_licences(root: &Path) -> (Verdict, TestCount) {
    let verdict = match licences::check(root) {
        Ok(summary) => {
            println!("{summary}");
            Verdict::Passed
        }
        Err(error) => Verdict::Failed(error.to_string()),
    };
    (verdict, TestCount::default())
}

fn compare(root: &Path) -> (Verdict, TestCount) {
    let verdict = match bytecode::compare(root) {
        Ok(Compared::Same) => Verdict::Passed,
        Ok(Compared::NoClang(reason)) => Verdict::Skipped(reason),
        Err(error) => Verdict::Failed(error.to_string()),
    };
    (verdict, TestCount::default())
}

fn docs(root: &Path) -> (Verdict, TestCount) {
    let mut command = cargo(root);
    command
        .args(["doc", "--workspace", "--no-deps", "--locked"])
        .env("RUSTDOCFLAGS", flags("RUSTDOCFLAGS", "-D warnings"));
    simple(&mut command, 15)
}

fn sim(root: &Path) -> (Verdict, TestCount) {
    match Programs::built(root) {
        Ok(programs) => simple(programs.run("insane-sim-world").arg("--check"), 15),
        Err(reason) => (Verdict::Failed(reason), TestCount::default()),
    }
}

/// How simulated worlds are run: optimised, since they are large.
const SIM: [&str; 6] = ["run", "--release", "--locked", "-p", "insane-sim-world", "--"];

/// Runs simulated worlds with these options, without a limit of time.
pub fn simulate(root: &Path, options: &[&str]) -> ExitCode {
    match cargo(root).args(SIM).args(options).status() {
        Ok(status) => ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
        Err(error) => {
            eprintln!("error: the simulation did not start: {error}");
            ExitCode::FAILURE
        }
    }
}

fn latency(root: &Path) -> (Verdict, TestCount) {
    let latency_tests = ["run", "--release", "--locked", "-p", "latency-tests", "--"];
    let mut scenarios = 0;
    let ending = process::run(cargo(root).args(latency_tests).arg("--list"), minutes(15), |line| {
        scenarios += u32::from(!line.trim().is_empty());
    });
    match verdict(&ending, 15) {
        Verdict::Passed if scenarios == 0 => {
            (Verdict::Failed("latency-tests names no scenario".to_owned()), TestCount::default())
        }
        Verdict::Passed => match simple(cargo(root).args(latency_tests).arg("smoke"), 15) {
            (Verdict::Passed, _) => counts(root, &latency_tests),
            other => other,
        },
        other => (other, TestCount::default()),
    }
}

/// What can be counted is held to its bound here, too: counts do not wobble as times do. Each
/// bound is a test; one whose tool is missing is passed over.
fn counts(root: &Path, latency_tests: &[&str]) -> (Verdict, TestCount) {
    let mut count = TestCount::default();
    for scenario in ["instructions", "syscalls", "scheduler"] {
        let mut command = cargo(root);
        command.args(latency_tests).args([scenario, "--check", "--bounds", "latency-tests/counts.ron"]);
        let (mut judged, mut missed) = (None, String::new());
        let ending = process::run(&mut command, minutes(5), |line| {
            judged = bounds_in(line).or(judged);
            if line.ends_with("MISSED") {
                missed += &format!("\n{line}");
            }
        });
        count = count + judged.unwrap_or_default();
        match verdict(&ending, 5) {
            Verdict::Passed if judged.is_none() => {
                return (Verdict::Failed(format!("{scenario} said nothing of its bounds")), count);
            }
            Verdict::Passed => {}
            Verdict::Failed(reason) => return (Verdict::Failed(reason + &missed), count),
            other @ Verdict::Skipped(_) => return (other, count),
        }
    }
    (Verdict::Passed, count)
}

/// Reads `check: N met, N missed, N not measured; …`.
fn bounds_in(line: &str) -> Option<TestCount> {
    let (counts, _) = line.strip_prefix("check: ")?.split_once(';')?;
    let mut words = counts.split(", ").map(|part| part.split_once(' '));
    let mut next = |wanted: &str| match words.next()?? {
        (count, word) if word == wanted => count.parse::<u64>().ok(),
        _ => None,
    };
    let (passed, failed, passed_over) = (next("met")?, next("missed")?, next("not measured")?);
    Some(TestCount { passed, failed, ignored: 0, passed_over })
}

/// The demo over the kernel's sockets and, with the rights for it, over AF_XDP and DPDK. Each is
/// counted, also where it is passed over.
fn demo(root: &Path) -> (Verdict, TestCount) {
    let mut count = TestCount::default();
    let mut carriers = vec!["udp"];
    if nix::unistd::geteuid().is_root() {
        carriers.push("xdp");
        match shim(root) {
            Ok(true) => carriers.push("dpdk"),
            Ok(false) => count.passed_over += 1,
            Err(error) => return (Verdict::Failed(error.to_string()), count),
        }
    } else {
        println!("passed over: the demo over xdp and dpdk takes root");
        count.passed_over += 2;
    }
    let programs = match Programs::built(root) {
        Ok(programs) => programs,
        Err(reason) => return (Verdict::Failed(reason), count),
    };
    for carrier in carriers {
        let mut command = programs.run("vplc-demo");
        command.args(["--no-tui", "--smoke", "--technology", carrier]);
        let mut last = String::new();
        let ending = process::run(&mut command, minutes(15), |line| line.clone_into(&mut last));
        let verdict = match verdict(&ending, 15) {
            Verdict::Passed if last.trim().is_empty() => Verdict::Failed("the demo printed no summary".to_owned()),
            Verdict::Failed(reason) => Verdict::Failed(format!("over {carrier}: {reason}; {last}")),
            other => other,
        };
        if verdict != Verdict::Passed {
            count.failed += 1;
            return (verdict, count);
        }
        count.passed += 1;
    }
    (Verdict::Passed, count)
}

fn containers(root: &Path) -> (Verdict, TestCount) {
    if !nix::unistd::geteuid().is_root() {
        let reason = "not root; containers with users of their own need it".to_owned();
        return (Verdict::Skipped(reason), TestCount::default());
    }
    // Without it, the check says that it does not try dpdk.
    if let Err(error) = shim(root) {
        return (Verdict::Failed(error.to_string()), TestCount::default());
    }
    match Programs::built(root) {
        Ok(programs) => simple(programs.run("vplc-containers").arg("check"), 15),
        Err(reason) => (Verdict::Failed(reason), TestCount::default()),
    }
}

/// The step `containers`, as a command of its own.
pub fn contain(root: &Path) -> ExitCode {
    match containers(root).0 {
        Verdict::Passed => ExitCode::SUCCESS,
        Verdict::Failed(reason) | Verdict::Skipped(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// The demo with its controller in a container.
pub fn demo_in_containers(root: &Path, options: &[&str]) -> ExitCode {
    let demo = ["run", "--release", "--locked", "-p", "vplc-demo", "--", "--single", "--containers"];
    match cargo(root).args(demo).args(options).status() {
        Ok(status) => ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
        Err(error) => {
            eprintln!("error: the demo did not start: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A command of which only the end counts.
fn simple(command: &mut Command, limit_minutes: u64) -> (Verdict, TestCount) {
    let ending = process::run(command, minutes(limit_minutes), |_| {});
    (verdict(&ending, limit_minutes), TestCount::default())
}

/// A command that runs tests, with nothing behind a `--`. None at all is a failure: a filter
/// that matches nothing must not look like success. Tests that all passed over themselves are
/// no success, either.
fn counted(command: &mut Command, limit_minutes: u64) -> (Verdict, TestCount) {
    let mut follower = Follower::default();
    command.args(["--", "--show-output"]);
    let ending = process::run(command, minutes(limit_minutes), |line| follower.line(line));
    if !follower.passed_over.is_empty() {
        println!("\npassed over:");
        follower
            .passed_over_by_reason()
            .iter()
            .for_each(|(reason, tests)| println!("    {reason}: {}", tests.join(", ")));
    }
    judged(&follower, verdict(&ending, limit_minutes))
}

fn judged(follower: &Follower, ended: Verdict) -> (Verdict, TestCount) {
    let count = follower.count();
    let verdict = match ended {
        Verdict::Passed if count.passed == 0 && count.passed_over > 0 => {
            Verdict::Skipped("all tests passed over themselves".to_owned())
        }
        Verdict::Passed if count.passed == 0 => Verdict::Failed("no test ran".to_owned()),
        Verdict::Failed(reason) => Verdict::Failed([&[reason], &follower.failures[..]].concat().join("\n")),
        other => other,
    };
    (verdict, count)
}

fn verdict(ending: &Ending, limit_minutes: u64) -> Verdict {
    match ending {
        Ending::Exited(status) if status.success() => Verdict::Passed,
        Ending::Exited(status) => Verdict::Failed(status.to_string()),
        Ending::TimedOut => Verdict::Failed(format!("killed after {limit_minutes} minutes")),
        Ending::NotStarted(error) => Verdict::Failed(format!("did not start: {error}")),
    }
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

/// The flags that the caller has set already, and one more.
fn flags(variable: &str, more: &str) -> OsString {
    let mut flags = std::env::var_os(variable).unwrap_or_default();
    flags.push(" ");
    flags.push(more);
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_chosen_in_the_order_of_the_table() {
        let run = |options: &[&str]| Selection::parse(options);
        assert_eq!(run(&["--only", "licences,clippy"]), Ok(Selection::Run(vec!["clippy", "licences"])));
        assert_eq!(run(&["--only", "fmt", "--only", "docs"]), Ok(Selection::Run(vec!["fmt", "docs"])));
        assert_eq!(run(&["--only", "fmt,docs", "--skip", "fmt"]), Ok(Selection::Run(vec!["docs"])));
        assert_eq!(run(&["--list"]), Ok(Selection::List));
        let Ok(Selection::Run(all)) = run(&[]) else { panic!("no option is every step") };
        assert_eq!(all.len(), STEPS.len());
    }

    #[test]
    fn every_test_of_discovery_runs_with_gossip() {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../rt-runtime/discovery/tests");
        for entry in std::fs::read_dir(tests).unwrap() {
            let name = entry.unwrap().file_name().to_string_lossy().trim_end_matches(".rs").to_owned();
            assert!(GOSSIP_TESTS.contains(&name.as_str()), "{name}");
        }
    }

    #[test]
    fn wrong_options_are_refused() {
        let refused = |options: &[&str]| Selection::parse(options).unwrap_err();
        assert_eq!(refused(&["--onyl", "fmt"]), SelectionError::Option("--onyl".into()));
        assert_eq!(refused(&["--only"]), SelectionError::NoValue("--only".into()));
        assert_eq!(refused(&["--only", "fmt,lint"]), SelectionError::Step("lint".into()));
        assert_eq!(refused(&["--only", "fmt", "--skip", "fmt"]), SelectionError::Nothing);
    }

    #[test]
    fn bounds_that_were_not_measured_are_none_that_were_met() {
        let count = bounds_in("check: 2 met, 1 missed, 3 not measured; a (b) value <= 1: 2.000 MISSED");
        assert_eq!(count, Some(TestCount { passed: 2, failed: 1, ignored: 0, passed_over: 3 }));
        assert_eq!(bounds_in("check: nothing"), None);
        assert_eq!(bounds_in("3 rows, 0 not measured here, 0 failed; 0 cells dropped"), None);
    }

    #[test]
    fn tests_that_fail_or_are_none_fail_the_step() {
        let shell = |script: &str| {
            // Printing it would make it the result of this very test.
            let mut follower = Follower::default();
            let mut command = Command::new("sh");
            let ending = process::watch(command.args(["-c", script]), minutes(1), |line| follower.line(line));
            judged(&follower, verdict(&ending, 1))
        };
        let (verdict, count) = shell("echo 'test result: ok. 2 passed; 0 failed; 0 ignored'");
        assert_eq!((verdict, count.passed), (Verdict::Passed, 2));
        let (verdict, count) = shell("echo 'test result: FAILED. 1 passed; 1 failed; 0 ignored'; exit 101");
        assert!(matches!(verdict, Verdict::Failed(_)));
        assert_eq!((count.passed, count.failed), (1, 1));
        let (verdict, _) = shell("printf 'failures:\\n---- a stdout ----\\nit broke\\n'; exit 1");
        let Verdict::Failed(reason) = verdict else { panic!("{verdict:?}") };
        assert!(reason.ends_with("\n---- a stdout ----\nit broke"), "{reason}");
        assert_eq!(shell("echo nothing").0, Verdict::Failed("no test ran".into()));
        let over =
            ["successes:", "---- a stdout ----", "passed over: no right", "successes:", "test result: ok. 1 passed"];
        let (verdict, count) = shell(&format!("printf '{}\\n'", over.join("\\n")));
        assert!(matches!(verdict, Verdict::Skipped(_)), "{verdict:?}");
        assert_eq!((count.passed, count.passed_over), (0, 1));
    }
}
