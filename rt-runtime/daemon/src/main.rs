//! `insaned`: the daemon that hosts a runtime for the applications of a machine.
//!
//! Reads its configuration, starts, says READY to the service manager, and runs until
//! SIGTERM or SIGINT. SIGHUP makes it read the configuration again. Exit status: 0 it was told to stop, 1 a part of it ended,
//! 2 the command line is wrong, 3 the configuration is wrong, 4 it could not start.
#![forbid(unsafe_code)]

mod logs;
mod service;
mod signals;

use clap::Parser;
use insane_config::{LoadError, Loaded, Machine, Plan};
use insane_control::{Hosting, Runtime, StartError};
use insane_sys::guard::{self, GuardAllocator};
use insane_sys::{OsError, thread};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tracing::{error, info, warn};

/// Counts allocations on sealed threads; see the module of that name.
#[global_allocator]
static ALLOCATOR: GuardAllocator = GuardAllocator;

/// Hosts an insane-rt runtime for the applications of this machine.
///
/// Runs in the foreground until SIGTERM or SIGINT. SIGHUP makes it read its configuration
/// again: it holds as a whole, or nothing changes (see `insane reload`). The variable INSANED_LOG overrides
/// the log level of the configuration (for example INSANED_LOG=insane_control=debug).
///
/// Exit status: 0 it was told to stop, 1 a part of it ended by itself, 2 the command
/// line is wrong, 3 the configuration is wrong, 4 it could not start.
#[derive(Parser)]
#[command(name = "insaned", version, max_term_width = 100)]
struct Arguments {
    /// The configuration file (RON).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Only check the configuration against this machine.
    #[arg(long)]
    check: bool,
}

/// Why the daemon ends otherwise than by being told to.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Config(#[from] LoadError),
    #[error("error: insaned cannot start: {0}")]
    Start(#[from] StartError),
    #[error("error: insaned cannot start: {0}")]
    Os(#[from] OsError),
    #[error("error: insaned cannot start: the configuration has no control.socket, so nobody could attach")]
    NoSocket,
    #[error("error: insaned has failed: {0}; the log says more")]
    Ended(String),
}

impl Failure {
    const fn exit_code(&self) -> u8 {
        match self {
            Failure::Ended(_) => 1,
            Failure::Config(_) => 3,
            Failure::Start(_) | Failure::Os(_) | Failure::NoSocket => 4,
        }
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Loaded { plan, warnings } = insane_config::load(&arguments.config, &Machine::detect())?;
    if arguments.check {
        eprint!("{warnings}");
        insane_control::check_build(&plan)?;
        insane_control::check_addresses(&plan)?;
        println!("{}: the configuration is usable", arguments.config.display());
        return Ok(());
    }
    logs::start(&plan.log);
    for warning in &warnings.0 {
        warn!("{}", warning.to_string().trim_end());
    }
    host(plan, &arguments.config)
}

/// Runs the runtime until it is told to stop, or fails.
fn host(plan: Plan, config: &Path) -> Result<(), Failure> {
    let socket = plan.control.socket.clone().ok_or(Failure::NoSocket)?;
    // Before the first thread: they inherit the mask, and only this one takes signals.
    let signals = signals::Signals::take()?;
    guard::set_abort(std::env::var_os("INSANED_GUARD").is_some_and(|value| value == "abort"));
    match thread::raise_nofile_limit() {
        Ok(limit) => info!(limit, "descriptors"),
        Err(error) => warn!(%error, "the limit on descriptors stays as it is"),
    }
    let host = plan.host.name.clone();
    let mut runtime = Runtime::start(plan, Hosting::Thread)?;
    runtime.list_thread("main", thread::current_tid());
    // Whoever reloads may have another working directory.
    runtime.set_config_file(&std::path::absolute(config).unwrap_or_else(|_| config.to_owned()));
    announce(&runtime);
    info!(host, socket = %socket.display(), version = env!("CARGO_PKG_VERSION"), "ready");
    let service = service::Service::ready(&format!("{host}: {} threads", runtime.threads().len()));
    let ended = service.watch(&signals, &runtime);
    service.stopping();
    runtime.stop();
    let violations = guard::violations();
    if violations > 0 {
        warn!(violations, "allocations on datapath threads: a bug");
    }
    info!("stopped");
    ended
}

/// Says where every thread runs, by which links, and what is missing.
fn announce(runtime: &Runtime) {
    for thread in runtime.threads() {
        let core = thread.core.map_or("any".to_owned(), |core| core.to_string());
        info!(name = thread.name, tid = thread.tid, core, policy = thread.policy, priority = thread.priority, "thread");
    }
    for (name, address) in runtime.links() {
        info!(name, address, "link");
    }
    for reason in runtime.degraded() {
        warn!(reason, "degraded");
    }
}

/// The part of the runtime that ended, as a failure of the daemon.
fn check(runtime: &Runtime) -> Result<(), Failure> {
    match runtime.failure() {
        Some(what) => {
            error!(what, "the daemon ends, so that it can be started anew");
            Err(Failure::Ended(what))
        }
        None => Ok(()),
    }
}
