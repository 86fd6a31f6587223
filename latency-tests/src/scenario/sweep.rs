//! Scenario `sweep`: round trips and flows over the sizes of a message, for every plugin beside
//! the bare technology, all in the same topology: two hosts joined by veth, hosted inline (round
//! trips) or with the sender's datapath on a core of its own (one way). A message is one frame.
//! The page shows all of it in two plots.

use super::compare::{OURS, rows};
use super::ours::{self, Place};
use super::{Findings, baselines, over_dpdk};
use crate::cli::{Cli, Plugin};
use crate::harness::fault::Fault;
use crate::harness::netns::Hosts;
use crate::harness::rounds::Side;
use crate::harness::sample::Sample;
use crate::harness::{Bench, Effort};
use crate::ours::end::Contract;

/// Payloads, bytes: what fits into a frame of every plugin.
const SIZES: [usize; 4] = [64, 256, 1024, 1400];
/// Memif is not among them: DPDK gives none back before the program ends.
const PLUGINS: [Plugin; 6] =
    [Plugin::Udp, Plugin::Tcp, Plugin::XdpNative, Plugin::XdpSkb, Plugin::Dpdk, Plugin::DpdkAfXdp];
/// Cells are many.
const ROUNDS_MAX: u32 = 3;

/// All rows.
pub fn run(bench: &Bench, cli: &Cli, findings: &mut Findings) {
    let mut bench = *bench;
    bench.effort.rounds = bench.effort.rounds.min(ROUNDS_MAX);
    let hosts = match Hosts::make() {
        Ok(hosts) => hosts,
        Err(fault) => return findings.note("sweep", &fault),
    };
    let sizes = || SIZES.into_iter().filter(|size| cli.size.is_empty() || cli.size.contains(size));
    for plugin in PLUGINS.into_iter().filter(|plugin| cli.plugin.is_none_or(|only| only == *plugin)) {
        // What is not there is said once.
        if let Err(fault) = is_there(&hosts, plugin) {
            findings.note(&format!("sweep/{}", word(plugin)), &fault);
            continue;
        }
        sizes().for_each(|size| measure(&bench, findings, &hosts, plugin, size));
    }
}

fn is_there(hosts: &Hosts, plugin: Plugin) -> Result<(), Fault> {
    match plugin {
        Plugin::Dpdk | Plugin::DpdkAfXdp => over_dpdk::is_there(hosts),
        _ => Ok(()),
    }
}

fn word(plugin: Plugin) -> &'static str {
    match plugin.prefix() {
        "" => "udp",
        prefix => prefix.trim_end_matches('/'),
    }
}

fn measure(bench: &Bench, findings: &mut Findings, hosts: &Hosts, plugin: Plugin, size: usize) {
    // A third of a second of round trips: their median does not need more.
    let short = Bench { effort: Effort { smoke: true, ..bench.effort }, ..*bench };
    let contract = Contract { size, ..Contract::SMALL };
    let (short, attached) = (&short, plugin.attaches());
    let inline = move |hosts: &Hosts| ours::network_inline_of(short, Place::Veth(hosts), plugin, contract);
    let sides = vec![
        Side::new(OURS, move || between(hosts, plugin, inline)),
        Side::new("bare", move || between(hosts, plugin, |hosts| raw(short, hosts, plugin, size))),
    ];
    let name = format!("sweep/latency/{}/{size}B", word(plugin));
    rows(bench, findings, &name, "us", &format!("T1 two hosts, {attached}"), sides);
    let sides = vec![
        Side::new(OURS, move || {
            between(hosts, plugin, |hosts| ours::network_flow(bench, Place::Veth(hosts), plugin, size))
        }),
        Side::new("bare", move || between(hosts, plugin, |hosts| raw_flow(bench, hosts, plugin, size))),
    ];
    let name = format!("sweep/throughput/{}/{size}B", word(plugin));
    rows(bench, findings, &name, "messages/s", &format!("T3 and T1 two hosts, {attached}"), sides);
}

/// Between the hosts that a cell of this plugin needs.
fn between(
    hosts: &Hosts,
    plugin: Plugin,
    measure: impl FnOnce(&Hosts) -> Result<Sample, Fault>,
) -> Result<Sample, Fault> {
    match plugin {
        Plugin::DpdkAfXdp => over_dpdk::over(hosts, over_dpdk::device(plugin).0, measure),
        _ => measure(hosts),
    }
}

fn raw(bench: &Bench, hosts: &Hosts, plugin: Plugin, size: usize) -> Result<Sample, Fault> {
    match plugin {
        Plugin::Udp => baselines::udp_veth(bench, hosts, size),
        Plugin::Tcp => baselines::tcp_veth(bench, hosts, size),
        Plugin::XdpNative | Plugin::XdpSkb => baselines::xdp_veth(bench, hosts, plugin == Plugin::XdpNative, size),
        Plugin::Dpdk | Plugin::DpdkAfXdp | Plugin::DpdkMemif => {
            over_dpdk::raw(bench, hosts, over_dpdk::device(plugin).0, size)
        }
        Plugin::Rdma => Err(Fault::Unavailable("veth is no verbs device".to_owned())),
    }
}

fn raw_flow(bench: &Bench, hosts: &Hosts, plugin: Plugin, size: usize) -> Result<Sample, Fault> {
    match plugin {
        Plugin::Udp => baselines::udp_flow(bench, hosts, size, false),
        Plugin::Tcp => baselines::tcp_flow(bench, hosts, size),
        Plugin::XdpNative | Plugin::XdpSkb => baselines::xdp_flow(bench, hosts, plugin == Plugin::XdpNative, size),
        Plugin::Dpdk | Plugin::DpdkAfXdp | Plugin::DpdkMemif => {
            over_dpdk::raw_flow(bench, hosts, over_dpdk::device(plugin).0, size)
        }
        Plugin::Rdma => Err(Fault::Unavailable("veth is no verbs device".to_owned())),
    }
}
