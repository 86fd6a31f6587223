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
use jobs::{NoProgram, Programs, Role};
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

/// As a command of its own. It fails, too, where the guest cannot be had.
pub fn command(root: &Path) -> ExitCode {
    let (verdict, count) = step(root);
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
    match run(root) {
        Ok(guests) => judge::sum_up(&guests),
        Err(GuestError::NotHere(reason)) => (Verdict::Skipped(reason), TestCount::default()),
        Err(error) => (Verdict::Failed(error.to_string()), TestCount::default()),
    }
}

type Report = (Vec<JobReport>, Result<(), String>);

fn run(root: &Path) -> Result<Vec<Report>, GuestError> {
    if std::env::consts::ARCH != "x86_64" {
        return Err(GuestError::NotHere(format!("the guest is an x86_64 one, this host {}", std::env::consts::ARCH)));
    }
    install()?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |path| root.join(path));
    let cache = target.join("rt-guest");
    std::fs::create_dir_all(&cache).map_err(fetch::file_error(&cache))?;
    let kernel = fetch::kernel(&cache)?;
    let programs = build(root)?;
    let tools: Vec<PathBuf> = TOOLS.iter().filter_map(|tool| find(tool.0)).filter(|path| is_for_guest(path)).collect();
    let loaded: Vec<PathBuf> = LOADED.iter().filter_map(|library| find_library(library.0)).collect();
    let mut base = image::base(&kernel, &tools, &programs.all(), &loaded)?;
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
    let alone = jobs::alone(&programs)?;
    let guest = Guest { name: "guest", setup: &setup, jobs: &alone, wire: None, clock_off_seconds: 0, cores: 2 };
    let mut reports = vec![machine.run(&guest)?];
    reports.extend(run_joined(&machine, &programs, &setup)?);
    println!("\njob                result   ({:.0} s in the guests)", start.elapsed().as_secs_f64());
    reports.iter().flat_map(|report| &report.0).for_each(|job| println!("{}", job.row()));
    Ok(reports)
}

/// Two guests, joined, each with its own clock, seconds apart at the start.
fn run_joined(machine: &Machine, programs: &Programs, setup: &str) -> Result<Vec<Report>, GuestError> {
    let ports = free_ports().map_err(|error| GuestError::NotHere(format!("no ports on loopback: {error}")))?;
    let run = |name: &'static str, role, wire, clock_off_seconds| -> Result<Report, GuestError> {
        let (joining, jobs) = jobs::joined(programs, role)?;
        let setup = format!("{setup}{joining}");
        let guest = Guest { name, setup: &setup, jobs: &jobs, wire: Some(wire), clock_off_seconds, cores: 1 };
        Ok(machine.run(&guest)?)
    };
    let [own, other] = ports;
    std::thread::scope(|scope| {
        let slave = scope.spawn(|| run("guest-2", Role::Slave, Wire { own: other, other: own }, 5));
        let master = run("guest-1", Role::Master, Wire { own, other }, 0)?;
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

/// Builds the tests. Of the whole workspace, as the check's step `tests` does: packages
/// chosen one by one have other features, and would be built once more.
fn build(root: &Path) -> Result<Programs, GuestError> {
    let mut programs = Programs::default();
    let mut command = cargo(root);
    command.args(["test", "--workspace", "--locked", "--no-run", "--message-format=json-render-diagnostics"]);
    command.stderr(Stdio::inherit());
    match process::watch(&mut command, BUILD_LIMIT, |line| programs.add_line(line)) {
        Ending::Exited(status) if status.success() => Ok(programs),
        ending => Err(GuestError::Build(format!("{ending:?}"))),
    }
}
