//! Runs the check of containers, or a part of it.
#![forbid(unsafe_code)]

mod cell;
mod check;
mod stage;

use clap::{Parser, Subcommand, ValueEnum};
use stage::Technology;
use std::process::ExitCode;
use vplc_containers::engine::Engine;

/// Virtual PLCs in containers without rights.
#[derive(Parser)]
#[command(version, about, long_about = None)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Two controllers and a camera in containers, each killed in turn. Needs root.
    Check {
        /// Only with the controllers' messages by this.
        #[arg(long, value_enum)]
        technology: Option<Technology>,
    },
    /// A part of the check; it is started by it.
    #[command(hide = true)]
    Cell(cell::Setup),
}

fn main() -> ExitCode {
    let result = match Options::parse().command {
        Command::Cell(setup) => cell::play(&setup).map_err(|error| error.to_string()),
        Command::Check { technology } => check(technology),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn check(only: Option<Technology>) -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("containers with users of their own need root".to_owned());
    }
    // Read before any thread is pinned: a pinned thread sees only its own core.
    let _ = insane_sys::thread::cores();
    let engines: Vec<Engine> = Engine::ALL.into_iter().filter(|engine| engine.is_there()).collect();
    for engine in Engine::ALL.into_iter().filter(|engine| !engines.contains(engine)) {
        println!("{}: not installed, not tried", engine.name());
    }
    if engines.is_empty() {
        return Err("no engine is there: apt-get install runc".to_owned());
    }
    let insaned = std::env::current_exe().map_err(|error| error.to_string())?.with_file_name("insaned");
    let mut technologies = Vec::new();
    for technology in Technology::value_variants().iter().filter(|one| only.is_none_or(|only| only == **one)) {
        match technology.lacks(&insaned) {
            None => technologies.push(*technology),
            Some(what) if only.is_some() => return Err(format!("{}: {what}", technology.name())),
            Some(what) => println!("{}: {what}; not tried", technology.name()),
        }
    }
    let all = engines.iter().flat_map(|engine| technologies.iter().map(|one| (*engine, *one)));
    for (engine, technology) in all {
        // What a container sees is the same over all technologies: one engine is enough for the last.
        if only.is_none() && technology == Technology::Dpdk && engine != engines[0] {
            continue;
        }
        let failed = |failure| format!("{}, {}: {failure}", engine.name(), technology.name());
        check::run(engine, technology).map_err(failed)?;
    }
    Ok(())
}
