//! The `insane` command: checks configurations, shows where memory goes, examines the host,
//! measures its wake-ups, shows what a runtime is doing, changes its configuration, makes
//! schedules of plants, and taps its messages.
//!
//! Exit status: 0 all is well, 1 something is wrong (a configuration, the host, a runtime
//! that does not answer), 2 the command line is wrong.
#![forbid(unsafe_code)]

mod check;
mod doctor;
mod explain;
mod flows;
mod jitter;
mod misses;
mod moves;
mod observer;
mod output;
mod plan;
mod qos;
mod reload;
mod schedule;
mod signals;
mod status;
mod tap;
mod told;
mod top;
mod trace;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Checks configurations and hosts of insane-rt, and shows what a runtime is doing.
#[derive(Parser)]
#[command(name = "insane", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Say everything that is wrong with configuration files: fields that cannot be read first,
    /// and what they mean once all can be.
    Check {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The files are for other machines: do not compare with this one's cores and memory.
        #[arg(long)]
        elsewhere: bool,
    },
    /// Show where every byte goes that a configuration may need.
    Plan {
        /// The configuration file.
        file: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// The file is for another machine: do not compare with this one's cores and memory.
        #[arg(long)]
        elsewhere: bool,
    },
    /// Examine how far this host is from determinism, and say what to do.
    Doctor(doctor::Arguments),
    /// Measure how late this host wakes a thread, and say why.
    Jitter(jitter::Arguments),
    /// Show which messages missed their slots, and why: of a running or a dead runtime.
    Misses(misses::Arguments),
    /// Let a stream go by another link while it is used.
    Move(moves::Arguments),
    /// Changes what an open stream asks for: its kind of technology, its importance.
    Qos(qos::Arguments),
    /// Make another configuration hold in a running runtime: all of it, or nothing.
    Reload(reload::Arguments),
    /// Schedules of a plant of several hosts: find, check, explain, draw, import and export.
    Schedule(schedule::Arguments),
    /// Show what a runtime is doing; again every interval, until Ctrl-C.
    Status(status::Arguments),
    /// Watch a runtime live: sessions, streams, lanes, links, with rates.
    Top(top::Arguments),
    /// Say what a stream was given, and why.
    Explain(explain::Arguments),
    /// Watch the core of a datapath in the kernel beside what the datapath missed, on one timeline.
    Trace(trace::Arguments),
    /// Write the messages of a domain as they pass, local ones included, for Wireshark.
    Tap(tap::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Check { files, elsewhere } => check::run(&files, elsewhere),
        Command::Plan { file, json, elsewhere } => plan::run(&file, json, elsewhere),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Jitter(arguments) => jitter::run(&arguments),
        Command::Misses(arguments) => misses::run(&arguments),
        Command::Move(arguments) => moves::run(&arguments),
        Command::Qos(arguments) => qos::run(&arguments),
        Command::Reload(arguments) => reload::run(&arguments),
        Command::Schedule(arguments) => schedule::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Top(arguments) => top::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Trace(arguments) => trace::run(&arguments),
        Command::Tap(arguments) => tap::run(&arguments),
    };
    match done {
        Ok(code) => code,
        // The reader of a pipe that goes away (`| head`) has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot write: {error}");
            ExitCode::FAILURE
        }
    }
}
