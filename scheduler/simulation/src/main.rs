//! `insane-slot-simulation --slots 100000000 --seed 1`: see the library.

#![forbid(unsafe_code)]

use clap::Parser;
use std::process::ExitCode;
use std::time::Instant;

/// Runs random schedules in virtual time and checks every frame.
#[derive(Parser)]
struct Options {
    /// How many slots are settled.
    #[arg(long, default_value_t = 1_000_000)]
    slots: u64,
    /// The first seed; each world has its own, one more than that of the world before.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let start = Instant::now();
    match insane_slot_simulation::run(options.seed, options.slots) {
        Ok(tally) => {
            println!("{tally:#?}\n{:.1} s, no frame outside its slot", start.elapsed().as_secs_f64());
            ExitCode::SUCCESS
        }
        Err(fault) => {
            eprintln!("{fault}\nagain: --seed {} --slots 1", fault.seed);
            ExitCode::FAILURE
        }
    }
}
