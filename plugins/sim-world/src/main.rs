//! Runs worlds from the command line: `cargo xtask sim`.
#![forbid(unsafe_code)]

mod options;

use insane_core::Nanos;
use insane_sim_world::discovery::{self, DiscoveryConfig};
use insane_sim_world::fleet::{self, FleetConfig};
use insane_sim_world::ledger::{Rule, Violation};
use insane_sim_world::mesh::scenario::{self, Scenario};
use insane_sim_world::mesh::{self, MeshConfig};
use options::{Options, Select, World};
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "\
usage: cargo xtask sim [--seed N | --seeds A..B] [--scenario NAME] [--hosts H] [--streams S] [--messages M]
       cargo xtask sim --check      the fixed seeds of the check
       cargo xtask sim --list       the names of the scenarios

  --seed N         replay one seed, and print what happens (without it: seed 1, in short)
  --seeds A..B     seeds from A, B excluded, in short
  --scenario NAME  one of them; else all
  --hosts H        hosts of a mesh, 2 to 1000 (200)
  --streams S      streams of a mesh, 1 to 100000 (2000)
  --messages M     messages of a fleet (1000000)
";

/// Hosts of a fleet.
const FLEET_HOSTS: usize = 8;
/// Reliable messages of the check; each is acknowledged, and repaired where it was lost.
const RELIABLE_MESSAGES: u64 = 50_000;

/// Of the check: every mesh of 40 hosts twice, a storm and discovery at full size, and a million messages
/// through engines.
fn check() -> [Select; 5] {
    let all = Select { seeds: 1..3, hosts: 40, streams: 400, ..Select::default() };
    let only = |world| Select { world: Some(world), ..Select::default() };
    [
        Select { messages: 0, ..all },
        only(World::Mesh(Scenario::Storm)),
        only(World::Discovery),
        only(World::Fleet { reliable: false }),
        Select { messages: RELIABLE_MESSAGES, ..only(World::Fleet { reliable: true }) },
    ]
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match Options::parse(&arguments) {
        Ok(Options::List) => {
            World::all().for_each(|world| println!("{}", world.name()));
            ExitCode::SUCCESS
        }
        Ok(Options::Help) => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        Ok(Options::Check) => ending(check().iter().map(run_all).sum()),
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
        for world in World::all().filter(|world| select.world.is_none_or(|only| only == *world)) {
            let kept = match world {
                World::Mesh(scenario) => run_mesh(select, seed, scenario),
                World::Discovery => run_discovery(select, seed),
                World::Fleet { reliable } => select.messages == 0 || run_fleet(select, seed, reliable),
            };
            failed += u32::from(!kept);
        }
    }
    failed
}

fn run_mesh(select: &Select, seed: u64, scenario: Scenario) -> bool {
    let start = Instant::now();
    let Select { hosts, streams, aloud, .. } = *select;
    let config = MeshConfig { seed, hosts, streams, defect: None, skewed: false };
    if aloud {
        println!("--- {} of seed {seed}", scenario.name());
    }
    let outcome = scenario::run(config, scenario, aloud);
    let time = |time: Option<Nanos>| time.map_or("never".to_owned(), |time| time.to_string());
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
        tell_mesh(&outcome);
        tell_checks(&outcome.checks, &outcome.violations);
    }
    let again = format!("--seed {seed} --scenario {} --hosts {hosts} --streams {streams}", scenario.name());
    tell_violations(&outcome.violations, &outcome.trace, &again);
    outcome.violations.is_empty()
}

fn tell_mesh(outcome: &scenario::Outcome) {
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
}

fn run_discovery(select: &Select, seed: u64) -> bool {
    let start = Instant::now();
    let config = DiscoveryConfig { seed, hosts: select.hosts.max(4), never_heals: false };
    if select.aloud {
        println!("--- discovery of seed {seed}");
    }
    let outcome = discovery::run(config, select.aloud);
    let [added, moved, removed] = outcome.changes;
    println!(
        "discovery  seed {seed}  {} hosts: {added} peers found, {moved} moved, {removed} forgotten; {} looks; {:.1} s",
        config.hosts,
        outcome.looks,
        start.elapsed().as_secs_f64()
    );
    if select.aloud {
        println!("  refused: {:?}; {} facts not looked at", outcome.refused, outcome.dropped);
    }
    for what in &outcome.violations {
        println!("BROKEN: {what}");
    }
    if !outcome.violations.is_empty() {
        println!("again: cargo xtask sim --seed {seed} --scenario discovery --hosts {}", config.hosts);
    }
    outcome.violations.is_empty()
}

fn run_fleet(select: &Select, seed: u64, reliable: bool) -> bool {
    let start = Instant::now();
    let name = World::Fleet { reliable }.name();
    let config = FleetConfig { seed, hosts: FLEET_HOSTS, messages: select.messages, reliable, stray: false };
    if select.aloud {
        println!("--- {name} of seed {seed}");
    }
    let outcome = fleet::run(config, select.aloud);
    println!(
        "{name:<10} seed {seed}  {FLEET_HOSTS} engines: {} messages, {} consumed; the network lost {} frames and \
         repeated {}; peers went down {} times; {:.1} s",
        outcome.totals.0,
        outcome.totals.1,
        outcome.network.0,
        outcome.network.1,
        outcome.downs,
        start.elapsed().as_secs_f64()
    );
    if select.aloud {
        println!("  emits refused, or without a buffer: {}", outcome.refused);
        for (domain, counters) in outcome.counters.iter().enumerate() {
            println!("  domain {domain}: {counters:?}");
        }
        tell_checks(&outcome.checks, &outcome.violations);
    }
    let again = format!("--seed {seed} --scenario {name} --messages {}", select.messages);
    tell_violations(&outcome.violations, &outcome.trace, &again);
    outcome.violations.is_empty()
}

fn tell_checks(checks: &[(Rule, u64)], violations: &[Violation]) {
    for (rule, looks) in checks {
        let broken = violations.iter().any(|violation| violation.rule == *rule);
        let verdict = if broken { "BROKEN" } else { "kept" };
        println!("  {:<12} {verdict}, {looks} looks", format!("{rule:?}").to_lowercase());
    }
}

fn tell_violations(violations: &[Violation], trace: &[String], again: &str) {
    let [first, others @ ..] = violations else { return };
    println!("BROKEN: {:?}: {}", first.rule, first.what);
    if let Some(host) = first.host {
        println!("  at host {host}; what happened there before:");
    }
    trace.iter().for_each(|line| println!("  {line}"));
    for other in others {
        println!("  and {:?}: {}", other.rule, other.what);
    }
    println!("again: cargo xtask sim {again}");
}
