//! `cargo xtask rt-guest`: tests of the project on a PREEMPT_RT kernel, in a machine that QEMU
//! emulates. Function is judged, never time: an emulated processor has none that counts.
//!
//! | | |
//! |---|---|
//! | `fetch` | the kernel, by apt, kept under `target/rt-guest` |
//! | `image` | what the guest boots into |
//! | `jobs` | what it runs |
//! | `boot` | the machine |
//! | `judge` | what it said |

mod boot;
mod fetch;
mod image;
mod jobs;
mod judge;

use crate::process::{self, Ending, cargo};
use crate::tally::{TestCount, Verdict};
use boot::{Guest, Machine, QEMU, Wire};
use fetch::FetchError;
use jobs::{Choice, Job, Jobs, Need, NoProgram, Programs};
use judge::JobReport;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// What the guests need of this host, with the Debian package that brings it.
const TOOLS: &[(&str, &str)] = &[
    (QEMU, "qemu-system-x86"),
    ("/bin/busybox", "busybox-static"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("rdma", "iproute2"),
    ("ptp4l", "linuxptp"),
    ("perl", "perl-base"),
];
/// Libraries that programs load at run time, as their files' names begin, with the Debian
/// package that brings them. The last is the driver of the software device in the guest.
const LOADED: &[(&str, &str)] = &[
    ("libibverbs.so.1", "libibverbs1"),
    ("librdmacm.so.1", "librdmacm1"),
    ("libibverbs/librxe-rdmav", "ibverbs-providers"),
];
/// What counts instructions, in a run that measures: files, at the paths that they have here.
const COUNTING: &[&str] = &[
    "/usr/bin/valgrind.bin",
    "/usr/libexec/valgrind/callgrind-amd64-linux",
    "/usr/libexec/valgrind/vgpreload_core-amd64-linux.so",
    "/usr/libexec/valgrind/default.supp",
];
/// Where Debian keeps them.
const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";
const INSTALL_LIMIT: Duration = Duration::from_secs(300);
const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);

/// Why no guest was started.
#[derive(Debug, thiserror::Error)]
enum GuestError {
    /// Nothing is wrong, but it cannot be here.
    #[error("{0}")]
    NotHere(String),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Program(#[from] NoProgram),
    #[error("the tests do not build ({0})")]
    Build(String),
}

/// As a command of its own. It fails, too, where the guest cannot be had. `None`: the options
/// mean nothing.
pub fn command(root: &Path, options: &[&str]) -> Option<ExitCode> {
    if options == ["--list"] {
        jobs::names_of_all().iter().for_each(|name| println!("{name}"));
        return Some(ExitCode::SUCCESS);
    }
    let choice = Choice::parse(options)?;
    Some(report(judged(root, &choice)))
}

fn report((verdict, count): (Verdict, TestCount)) -> ExitCode {
    match verdict {
        Verdict::Passed => println!("{} passed, {} failed", count.passed, count.failed),
        Verdict::Failed(reason) | Verdict::Skipped(reason) => {
            println!("{} passed, {} failed", count.passed, count.failed);
            eprintln!("error: {reason}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// As a step of the check.
pub fn step(root: &Path) -> (Verdict, TestCount) {
    judged(root, &Choice::All)
}

fn judged(root: &Path, choice: &Choice) -> (Verdict, TestCount) {
    match run(root, choice) {
        Ok(guests) => judge::sum_up(&guests),
        Err(GuestError::NotHere(reason)) => (Verdict::Skipped(reason), TestCount::default()),
        Err(error) => (Verdict::Failed(error.to_string()), TestCount::default()),
    }
}

type Report = (Vec<JobReport>, Result<(), String>);

fn run(root: &Path, choice: &Choice) -> Result<Vec<Report>, GuestError> {
    if std::env::consts::ARCH != "x86_64" {
        return Err(GuestError::NotHere(format!("the guest is an x86_64 one, this host {}", std::env::consts::ARCH)));
    }
    install()?;
    let target = process::target(root);
    let cache = target.join("rt-guest");
    std::fs::create_dir_all(&cache).map_err(fetch::file_error(&cache))?;
    let kernel = fetch::kernel(&cache)?;
    let mut jobs = Jobs::of(choice);
    let programs = build(root, choice, &jobs.needs())?;
    jobs.fill(&programs)?;
    let tools: Vec<PathBuf> = TOOLS.iter().filter_map(|tool| find(tool.0)).filter(|path| is_for_guest(path)).collect();
    let loaded: Vec<PathBuf> = LOADED.iter().filter_map(|library| find_library(library.0)).collect();
    let mut base = image::base(&kernel, &tools, &programs.all(), &loaded)?;
    if *choice == Choice::Measure {
        for path in COUNTING.iter().map(Path::new).filter(|path| path.is_file()) {
            base.file(&path.display().to_string(), path)?;
        }
        base.link("usr/bin/valgrind", "valgrind.bin");
    }
    // Some tests have cargo build the daemon; here it is built, and there is no cargo.
    base.script(&cargo(root).get_program().to_string_lossy(), "#!/bin/sh\n");
    // Tests write below the target folder, where cargo tells them to; the share is not theirs.
    let scratch = target.join("tmp");
    std::fs::create_dir_all(&scratch).map_err(fetch::file_error(&scratch))?;
    let setup = format!("mount -t tmpfs tmpfs '{}'\n", scratch.display());
    let mut shares = vec![("root".to_owned(), root.to_owned())];
    if !target.starts_with(root) {
        shares.push(("target".to_owned(), target));
    }
    let machine = Machine { kernel: kernel.image, base: base.finish(), shares, cache };
    let start = Instant::now();
    let mut reports = Vec::new();
    if !jobs.alone.is_empty() {
        let alone = &jobs.alone;
        let guest = Guest { name: "guest", setup: &setup, jobs: alone, wire: None, clock_off_seconds: 0, cores: 2 };
        reports.push(machine.run(&guest)?);
    }
    if jobs.joined.iter().any(|(_, jobs)| !jobs.is_empty()) {
        reports.extend(run_joined(&machine, &jobs.joined, &setup)?);
    }
    println!("\njob                    time  result   ({:.0} s in the guests)", start.elapsed().as_secs_f64());
    reports.iter().flat_map(|report| &report.0).for_each(|job| println!("{}", job.row()));
    Ok(reports)
}

/// Two guests, joined, each with its own clock, seconds apart at the start.
fn run_joined(machine: &Machine, joined: &[(String, Vec<Job>); 2], setup: &str) -> Result<Vec<Report>, GuestError> {
    let ports = free_ports().map_err(|error| GuestError::NotHere(format!("no ports on loopback: {error}")))?;
    let run = |name: &'static str, of: usize, wire, clock_off_seconds| -> Result<Report, GuestError> {
        let (joining, jobs) = &joined[of];
        let setup = format!("{setup}{joining}");
        let guest = Guest { name, setup: &setup, jobs, wire: Some(wire), clock_off_seconds, cores: 1 };
        Ok(machine.run(&guest)?)
    };
    let [own, other] = ports;
    std::thread::scope(|scope| {
        let slave = scope.spawn(|| run("guest-2", 1, Wire { own: other, other: own }, 5));
        let master = run("guest-1", 0, Wire { own, other }, 0)?;
        let slave = slave.join().map_err(|_| GuestError::NotHere("a guest could not be watched".to_owned()))??;
        Ok(vec![master, slave])
    })
}

/// Two UDP ports of loopback that were free a moment ago.
fn free_ports() -> std::io::Result<[u16; 2]> {
    let sockets = [UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?];
    Ok([sockets[0].local_addr()?.port(), sockets[1].local_addr()?.port()])
}

fn is_for_guest(tool: &Path) -> bool {
    !tool.ends_with(QEMU) && !tool.ends_with("busybox")
}

/// Installs what is missing, where that may be done.
fn install() -> Result<(), GuestError> {
    let missing = || -> Vec<&str> {
        let tools = TOOLS.iter().filter(|tool| find(tool.0).is_none()).map(|tool| tool.1);
        let loaded = LOADED.iter().filter(|library| find_library(library.0).is_none()).map(|library| library.1);
        tools.chain(loaded).collect()
    };
    let packages = missing();
    if packages.is_empty() {
        return Ok(());
    }
    let names = packages.join(" ");
    if !nix::unistd::geteuid().is_root() {
        return Err(GuestError::NotHere(format!("not root, and missing: apt-get install {names}")));
    }
    for arguments in [&["update", "-q"][..], &["install", "-q", "-y", "--no-install-recommends"]] {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        if arguments.len() > 2 {
            command.args(&packages);
        }
        // Judged by whether the tools are there afterwards.
        let _ = process::run(&mut command, INSTALL_LIMIT, |_| {});
    }
    match missing().is_empty() {
        true => Ok(()),
        false => Err(GuestError::NotHere(format!("cannot be installed here: {}", missing().join(" ")))),
    }
}

/// A program in the places where programs are.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// The library whose file's name begins like that, the shortest if there are several.
fn find_library(begins: &str) -> Option<PathBuf> {
    let path = Path::new(LIBRARIES).join(begins);
    let (folder, name) = (path.parent()?, path.file_name()?.to_str()?);
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    let found = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(name));
    found.map(|entry| entry.path()).min_by_key(|path| path.as_os_str().len())
}

/// Builds what the jobs need. For all of them: all tests of the whole workspace, as the check's
/// step `tests` does. (Packages chosen one by one have other features, and would be built once
/// more.)
fn build(root: &Path, choice: &Choice, needs: &[Need]) -> Result<Programs, GuestError> {
    let mut programs = Programs::default();
    let mut cargo_run = |verb: &[&str], targets: &[&str]| {
        let mut command = cargo(root);
        command.args(verb).args(["--workspace", "--locked", "--message-format=json-render-diagnostics"]);
        command.args(targets).stderr(Stdio::inherit());
        match process::watch(&mut command, BUILD_LIMIT, |line| programs.add_line(line)) {
            Ending::Exited(status) if status.success() => Ok(()),
            ending => Err(GuestError::Build(format!("{ending:?}"))),
        }
    };
    if *choice == Choice::All {
        cargo_run(&["test", "--no-run"], &[])?;
        return Ok(programs);
    }
    let (mut tests, mut binaries) = (Vec::new(), Vec::new());
    for need in needs {
        match need {
            Need::Test(name) => tests.extend(["--test", name.rsplit('/').next().unwrap_or(name)]),
            Need::Binary(name) => binaries.extend(["--bin", *name]),
        }
    }
    if !tests.is_empty() {
        cargo_run(&["test", "--no-run"], &tests)?;
    }
    if !binaries.is_empty() {
        let verb: &[&str] = if *choice == Choice::Measure { &["build", "--release"] } else { &["build"] };
        cargo_run(verb, &binaries)?;
    }
    Ok(programs)
}
