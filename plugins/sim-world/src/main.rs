//! Runs worlds from the command line: `cargo xtask sim`.
#![forbid(unsafe_code)]

mod options;

use insane_sim_world::mesh::{self, MeshConfig, scenario};
use options::{Options, Select};
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "\
usage: cargo xtask sim [--seed N | --seeds A..B] [--scenario NAME] [--hosts H] [--streams S]
       cargo xtask sim --check      the fixed seeds of the check
       cargo xtask sim --list       the names of the scenarios

  --seed N         replay one seed, and print what happens (without it: seed 1, in short)
  --seeds A..B     seeds from A, B excluded, in short
  --scenario NAME  one of them; else all
  --hosts H        hosts of a mesh, 2 to 1000 (200)
  --streams S      streams of a mesh, 1 to 100000 (2000)
";

/// Of the check: scenario, seeds, hosts, streams. `None`: all scenarios.
const CHECK: [(Option<scenario::Scenario>, std::ops::Range<u64>, usize, usize); 2] =
    [(None, 1..3, 40, 400), (Some(scenario::Scenario::Storm), 1..2, 200, 2000)];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match Options::parse(&arguments) {
        Ok(Options::List) => {
            scenario::Scenario::ALL.iter().for_each(|scenario| println!("{}", scenario.name()));
            ExitCode::SUCCESS
        }
        Ok(Options::Help) => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        Ok(Options::Check) => {
            let runs = CHECK.into_iter().map(|(scenario, seeds, hosts, streams)| {
                run_all(&Select { scenario, seeds, hosts, streams, aloud: false })
            });
            ending(runs.sum())
        }
        Ok(Options::Run(select)) => ending(run_all(&select)),
        Err(error) => {
            eprintln!("error: {error}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn ending(failed: u32) -> ExitCode {
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        println!("{failed} runs broke a rule");
        ExitCode::FAILURE
    }
}

/// Runs all that is selected; how many runs broke a rule.
fn run_all(select: &Select) -> u32 {
    let mut failed = 0;
    for seed in select.seeds.clone() {
        for scenario in scenario::Scenario::ALL {
            if select.scenario.is_none_or(|only| only == scenario) {
                failed += u32::from(!run_mesh(select, seed, scenario));
            }
        }
    }
    failed
}

fn run_mesh(select: &Select, seed: u64, scenario: scenario::Scenario) -> bool {
    let start = Instant::now();
    let Select { hosts, streams, aloud, .. } = *select;
    let config = MeshConfig { seed, hosts, streams, defect: None, skewed: false };
    if aloud {
        println!("--- {} of seed {seed}", scenario.name());
    }
    let outcome = scenario::run(config, scenario, aloud);
    let time = |time: Option<insane_core::Nanos>| time.map_or("never".to_owned(), |time| time.to_string());
    println!(
        "{:<10} seed {seed}  {hosts} hosts, {streams} streams: joined in {}, agreed {} after the faults; \
         {} messages, {} deliveries; {:.1} s",
        scenario.name(),
        time(outcome.joined),
        time(outcome.agreed),
        outcome.totals.0,
        outcome.totals.1,
        start.elapsed().as_secs_f64()
    );
    if aloud {
        tell_counts(&outcome);
    }
    tell_violations(&outcome, select, seed, scenario.name());
    outcome.violations.is_empty()
}

fn tell_counts(outcome: &scenario::Outcome) {
    let (data, sent, members) = &outcome.counts;
    let [up, down, again, other] = outcome.events;
    let (buffers, messages, flows) = outcome.most_in_use;
    println!("  peers: {up} times up, {down} down, {again} in a new life; {other} other events");
    println!("  received: {data:?}");
    println!("  sent: {sent:?}");
    println!("  membership: {members:?}");
    println!(
        "  most in use at one host: {buffers} of {} buffers, {messages} of {} messages, {flows} of {} flows",
        mesh::BUFFERS,
        mesh::PLACES,
        mesh::FLOWS_MAX
    );
    for (rule, looks) in &outcome.checks {
        let broken = outcome.violations.iter().filter(|violation| violation.rule == *rule).count();
        let verdict = if broken == 0 { "kept" } else { "BROKEN" };
        println!("  {:<12} {verdict}, {looks} looks", format!("{rule:?}").to_lowercase());
    }
}

fn tell_violations(outcome: &scenario::Outcome, select: &Select, seed: u64, scenario: &str) {
    let Some(first) = outcome.violations.first() else { return };
    println!("BROKEN: {:?}: {}", first.rule, first.what);
    if let Some(host) = first.host {
        println!("  at host {host}; what happened there before:");
    }
    outcome.trace.iter().for_each(|line| println!("  {line}"));
    for other in &outcome.violations[1..] {
        println!("  and {:?}: {}", other.rule, other.what);
    }
    let Select { hosts, streams, .. } = select;
    println!("again: cargo xtask sim --seed {seed} --scenario {scenario} --hosts {hosts} --streams {streams}");
}
