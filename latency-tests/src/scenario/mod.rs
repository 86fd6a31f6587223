//! The scenarios: what is measured against what.

pub mod admission;
pub mod baselines;
pub mod compare;
pub mod count;
pub mod counting;
pub mod displace;
pub mod idle;
pub mod isolation;
pub mod jitter;
pub mod live;
pub mod migrate;
pub mod ours;
pub mod over_dpdk;
pub mod over_rdma;
#[cfg(any(feature = "aeron", feature = "iceoryx2", feature = "zeromq"))]
pub mod rivals;
pub mod scale;
pub mod scheduler;
pub mod selftest;
pub mod sweep;

use crate::cli::{Cli, Plugin};
use crate::harness::Bench;
use crate::harness::birth::Birth;
use crate::harness::converse::Pace;
use crate::harness::fault::Fault;
use crate::harness::flow::FlowPace;
use crate::harness::rounds::Table;
use crate::harness::watch::Idle;
use crate::report::row::{Figures, Ratio, Row};
use std::time::Duration;

/// Payloads of the throughput rows, bytes: up to one FullHD frame of 24-bit colour.
pub const SIZES: [usize; 5] = [64, 1024, 64 * 1024, 1024 * 1024, 6_220_800];

/// Payloads of the throughput rows over a network, bytes.
pub const NETWORK_SIZES: [usize; 3] = [64, 1024, 64 * 1024];

/// What the scenarios of one run brought.
#[derive(Default)]
pub struct Findings {
    /// Rows with their curves.
    pub tables: Vec<Table>,
    /// Cells dropped because the floor moved.
    pub dropped: u32,
    /// Rows that this machine or build cannot have, each with its reason.
    pub not_measured: Vec<String>,
    /// Rows that should be there and failed, each with its reason.
    pub failed: Vec<String>,
}

impl Findings {
    /// Sorts a failed row into "not to be had here" and "failed".
    pub fn note(&mut self, row: &str, fault: &Fault) {
        let line = format!("{row}: {fault}");
        eprintln!("{line}");
        match fault {
            Fault::Unavailable(_) => self.not_measured.push(line),
            _ => self.failed.push(line),
        }
    }

    /// Takes one finished table.
    pub fn add(&mut self, table: Table) {
        println!("{}", crate::report::line(&table.row));
        self.tables.push(table);
    }

    /// Takes the tables of one comparison, or notes why there are none.
    pub fn take(&mut self, row: &str, tables: Result<(Vec<Table>, u32), Fault>) {
        match tables {
            Ok((tables, dropped)) => {
                self.dropped += dropped;
                tables.into_iter().for_each(|table| self.add(table));
            }
            Err(fault) => self.note(row, &fault),
        }
    }
}

/// A row of two numbers.
#[must_use]
pub fn values(
    name: &str,
    unit: &str,
    (ours, baseline): (f64, f64),
    n: u64,
    labels: [&str; 2],
    topology: &str,
) -> Table {
    let row = Row {
        name: name.to_owned(),
        unit: unit.to_owned(),
        ours: Figures::Value { value: ours },
        baseline: Figures::Value { value: baseline },
        ratio: Ratio::Value { value: (baseline > 0.0).then_some(ours / baseline) },
        n,
        topology: topology.to_owned(),
        floor_before_us: None,
        floor_after_us: None,
    };
    Table { row, labels: labels.map(str::to_owned), curves: Vec::new() }
}

/// How many round trips a cell counts, by what one costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cost {
    /// Below 2 us: cores only.
    Memory,
    /// Some microseconds: system calls.
    Kernel,
}

/// The pace of round trips.
#[must_use]
pub fn pace(bench: &Bench, cost: Cost, idle: Idle) -> Pace {
    let (warm_up, count) = match (bench.effort.smoke, cost) {
        (true, _) => (200, 10_000),
        (false, Cost::Memory) => (20_000, 200_000),
        (false, Cost::Kernel) => (2_000, 30_000),
    };
    let enough = if bench.effort.smoke { Duration::from_millis(300) } else { Duration::from_secs(3) };
    Pace { warm_up, count, enough, bound: Duration::from_secs(15), idle, think: Duration::ZERO }
}

/// The pace of flows of messages of `size` bytes.
#[must_use]
pub fn flow_pace(bench: &Bench, size: usize) -> FlowPace {
    let length = Duration::from_millis(if bench.effort.smoke { 20 } else { 200 });
    let look_every = (64 * 1024 / size).clamp(1, 256) as u64;
    // Every place of the largest queue is touched before counting starts.
    let warm_up = if size <= 64 * 1024 { 2_000 } else { 80 };
    FlowPace { warm_up, length, bound: Duration::from_secs(15), look_every, lossy: false }
}

/// The pace of flows of messages of `size` bytes over a network: it may lose some.
#[must_use]
pub fn network_flow_pace(bench: &Bench, size: usize) -> FlowPace {
    let look_every = (4 * 1024 / size).clamp(1, 64) as u64;
    // Large ones would take longer to warm up than a flow may take.
    let warm_up = if size <= 64 * 1024 { 200 } else { 16 };
    FlowPace { warm_up, look_every, lossy: true, ..flow_pace(bench, size) }
}

/// The plugins that a run of a scenario with slots asks for; notes it if that is another one.
#[must_use]
pub fn timed_plugins(scenario: &str, cli: &Cli, findings: &mut Findings) -> Vec<Plugin> {
    let plugins = Plugin::TIMED.into_iter().filter(|plugin| cli.plugin.is_none_or(|only| only == *plugin));
    let plugins: Vec<Plugin> = plugins.collect();
    if plugins.is_empty() {
        findings.note(scenario, &Fault::Unavailable("it goes over udp, xdp-native and dpdk".into()));
    }
    plugins
}

/// The payloads that a run over a network asks for.
#[must_use]
pub fn network_sizes(cli: &Cli) -> Vec<usize> {
    if cli.size.is_empty() { NETWORK_SIZES.to_vec() } else { cli.size.clone() }
}

/// The payloads that a run asks for.
#[must_use]
pub fn sizes(cli: &Cli) -> Vec<usize> {
    if cli.size.is_empty() { SIZES.to_vec() } else { cli.size.clone() }
}

/// Which streams of one session the set-up rows time.
pub const STREAMS: [u32; 2] = [1, 10];

/// How often a set-up is repeated in one cell.
#[must_use]
pub fn birth(bench: &Bench, conversations: u32) -> Birth {
    Birth { conversations, repeats: if bench.effort.smoke { 20 } else { 60 } }
}
