//! Latency and throughput of the runtime, each beside its raw baseline.
//!
//! Exit codes: 0 everything that was asked for was measured (and, with `--check`,
//! held); 1 a bound was missed; 2 a row failed or the command line was wrong.
#![forbid(unsafe_code)]

mod baseline;
mod cli;
mod harness;
mod ours;
#[cfg(any(feature = "aeron", feature = "iceoryx2", feature = "zeromq"))]
mod peers;
mod report;
mod scenario;

use clap::{Parser, ValueEnum};
use cli::{Cli, Counted, Scenario};
use harness::converse::Duplex;
use harness::fault::Fault;
use harness::machine::Machine;
use harness::netns::Hosts;
use harness::{Bench, Effort};
use insane_core::limits::PEERS_MAX;
use ours::end::{CopyPut, FixedPut, FixedTake};
use report::bounds::{Bounds, Check, check};
use report::page::Page;
use report::row::Output;
use scenario::count::{OneWay, Waiting};
use scenario::{Findings, compare};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.list {
        list();
        return ExitCode::SUCCESS;
    }
    let Some(scenario) = cli.scenario else { return ExitCode::from(2) };
    match scenario {
        Scenario::Count => finish(count(&cli)),
        Scenario::Serve => finish(serve(&cli)),
        Scenario::Flood => finish(flood(&cli)),
        #[cfg(feature = "aeron")]
        Scenario::MediaDriver => finish(drive(&cli)),
        _ => run(&cli, scenario).unwrap_or_else(|reason| {
            eprintln!("{reason}");
            ExitCode::from(2)
        }),
    }
}

fn finish(result: Result<(), Fault>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("{fault}");
            ExitCode::from(2)
        }
    }
}

fn list() {
    for value in Scenario::value_variants().iter().filter_map(ValueEnum::to_possible_value) {
        if !value.is_hide_set() {
            println!("{:<14}{}", value.get_name(), value.get_help().map(ToString::to_string).unwrap_or_default());
        }
    }
}

fn count(cli: &Cli) -> Result<(), Fault> {
    match cli.side {
        Counted::Ring => scenario::count::run(&mut baseline::ring::to_itself(), cli.messages),
        Counted::Ours => {
            let (put, take, _session) = scenario::ours::to_itself()?;
            scenario::count::run(&mut Duplex::new(FixedPut::new(put), FixedTake::new(take)), cli.messages)
        }
        Counted::OursCopied => {
            let (put, take, _session) = scenario::ours::to_itself()?;
            scenario::count::run(&mut Duplex::new(CopyPut::new(put), FixedTake::new(take)), cli.messages)
        }
        Counted::Network => {
            let (put, take, _sessions) = scenario::ours::to_a_sibling(cli::Plugin::Udp)?;
            scenario::count::run(&mut Waiting(Duplex::new(put, take)), cli.messages)
        }
        Counted::Rdma => {
            let (put, take, _sessions) = scenario::ours::to_a_sibling(cli::Plugin::Rdma)?;
            scenario::count::run_unhurried(&mut Duplex::new(put, take), cli.messages)
        }
        Counted::Verbs => {
            let (put, take) = baseline::verbs::pair(ours::rdma::address()?, baseline::ring::MESSAGE_BYTES, false)?;
            scenario::count::run_unhurried(&mut Duplex::new(put, take), cli.messages)
        }
        Counted::Udp => {
            let end = baseline::udp::UdpEnd::to_itself(scenario::ours::LOOPBACK, baseline::ring::MESSAGE_BYTES)?;
            scenario::count::run(&mut Waiting(end), cli.messages)
        }
        Counted::Xdp | Counted::XdpManyPeers => {
            let hosts = Hosts::make()?;
            let others = if cli.side == Counted::Xdp { 0 } else { PEERS_MAX - 1 };
            let (put, take, _sessions) = scenario::ours::to_a_sibling_over_xdp(&hosts, others)?;
            scenario::count::run(&mut Waiting(Duplex::new(put, take)), cli.messages)
        }
        Counted::RawXdp => {
            let hosts = Hosts::make()?;
            let (put, take) = scenario::baselines::xdp_ends(&hosts, true, baseline::ring::MESSAGE_BYTES, false)?;
            scenario::count::run(&mut Waiting(OneWay { put, take }), cli.messages)
        }
        Counted::ExpandedFew | Counted::ExpandedMany | Counted::RecurrencesFew | Counted::RecurrencesMany => {
            scenario::scheduler::count(cli.side, cli.messages)
        }
    }
}

fn serve(cli: &Cli) -> Result<(), Fault> {
    match &cli.config {
        Some(config) => ours::daemon::serve(config),
        None => Err(Fault::Party("serve needs --config".into())),
    }
}

fn flood(cli: &Cli) -> Result<(), Fault> {
    match &cli.config {
        Some(socket) => scenario::isolation::flood(socket),
        None => Err(Fault::Party("flood needs --config".into())),
    }
}

#[cfg(feature = "aeron")]
fn drive(cli: &Cli) -> Result<(), Fault> {
    match &cli.config {
        Some(folder) => peers::aeron::drive(folder),
        None => Err(Fault::Party("media-driver needs --config".into())),
    }
}

fn run(cli: &Cli, scenario: Scenario) -> Result<ExitCode, String> {
    // The bounds are read first: a wrong file is found before minutes of measuring.
    let bounds = load_bounds(cli)?;
    let machine = Machine::read();
    let effort = Effort { rounds: cli.rounds, smoke: cli.smoke || scenario == Scenario::Smoke };
    let bench = Bench::new(effort).map_err(|fault| fault.to_string())?;
    let mut findings = Findings::default();
    let parts = scenario.parts();
    for part in &parts {
        perform(*part, &bench, cli, &mut findings);
    }
    let rows: Vec<_> = findings.tables.iter().map(|table| &table.row).collect();
    let checked = cli.check.then(|| check(&bounds, &rows, |name| parts.iter().any(|part| part.name() == name)));
    write_output(cli, &findings, &machine, checked.as_ref(), effort.smoke)?;
    Ok(conclude(&findings, checked.as_ref()))
}

fn perform(part: Scenario, bench: &Bench, cli: &Cli, findings: &mut Findings) {
    match part {
        Scenario::Local => compare::local(bench, cli, findings),
        Scenario::Hop => compare::hop(bench, cli, findings),
        Scenario::Network => compare::network(bench, cli, findings),
        Scenario::Throughput => compare::throughput(bench, cli, findings),
        Scenario::Setup => compare::setup(bench, cli, findings),
        Scenario::Scale => compare::scale(bench, findings),
        Scenario::Idle => compare::idle(bench, cli, findings),
        Scenario::Selftest => scenario::selftest::run(bench, findings),
        Scenario::Instructions => scenario::counting::instructions(bench, cli, findings),
        Scenario::Syscalls => scenario::counting::syscalls(bench, findings),
        Scenario::Admission => scenario::admission::run(bench, findings),
        Scenario::Jitter => scenario::jitter::run(bench, cli, findings),
        Scenario::Sweep => scenario::sweep::run(bench, cli, findings),
        Scenario::Isolation => scenario::isolation::run(bench, cli, findings),
        Scenario::Migrate => scenario::migrate::run(bench, findings),
        Scenario::Displace => scenario::displace::run(bench, findings),
        Scenario::Scheduler => scenario::scheduler::run(bench, findings),
        // These stand for others, or are not measured.
        Scenario::All | Scenario::Smoke | Scenario::Count | Scenario::Serve | Scenario::Flood => {}
        #[cfg(feature = "aeron")]
        Scenario::MediaDriver => {}
    }
}

fn load_bounds(cli: &Cli) -> Result<Bounds, String> {
    match &cli.bounds {
        None => Bounds::parse(include_str!("../bounds.ron")),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            Bounds::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
        }
    }
}

fn write_output(
    cli: &Cli,
    findings: &Findings,
    machine: &Machine,
    checked: Option<&Check>,
    smoke: bool,
) -> Result<(), String> {
    let missing: Vec<String> = findings.not_measured.iter().chain(&findings.failed).cloned().collect();
    if let Some(path) = &cli.json {
        let rows = findings.tables.iter().map(|table| &table.row).collect();
        let output = Output { rows, machine, cells_dropped: findings.dropped, not_measured: &missing };
        let text = serde_json::to_string_pretty(&output).map_err(|error| error.to_string())?;
        std::fs::write(path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if let Some(path) = &cli.report {
        let tables = &findings.tables;
        let page = Page { tables, machine, dropped: findings.dropped, missing: &missing, check: checked, smoke };
        std::fs::write(path, page.html()).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// Prints the last lines and finds the exit code.
fn conclude(findings: &Findings, checked: Option<&Check>) -> ExitCode {
    let rows = findings.tables.len();
    let (missing, failed) = (findings.not_measured.len(), findings.failed.len());
    println!("{rows} rows, {missing} not measured here, {failed} failed; {} cells dropped", findings.dropped);
    if let Some(check) = checked {
        check.lines.iter().for_each(|line| println!("{line}"));
        println!("{}", check.summary);
    }
    match (failed, checked.is_none_or(|check| check.passed)) {
        (0, true) => ExitCode::SUCCESS,
        (0, false) => ExitCode::from(1),
        _ => ExitCode::from(2),
    }
}
