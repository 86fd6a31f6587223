//! The dpdk plugin beside a raw DPDK loop on the same device, and beside the udp plugin.
//!
//! Two hosts joined by veth, each with packet sockets (`net_af_packet`) or AF_XDP (`net_af_xdp`)
//! on its interface; and memory that both share (`net_memif`). What is measured is what the link
//! adds, not what DPDK can do on a NIC.

use super::compare::{OURS, rows};
use super::ours::{self, Place};
use super::{Cost, Findings, network_flow_pace, network_sizes, pace, values};
use crate::baseline::dpdk::DpdkEnd;
use crate::baseline::ring::MESSAGE_BYTES;
use crate::cli::{Cli, Hosting, Plugin};
use crate::harness::Bench;
use crate::harness::fault::Fault;
use crate::harness::netns::Hosts;
use crate::harness::rounds::{Heading, Side, interleave};
use crate::harness::sample::Sample;
use crate::harness::topology::{flow, t1};
use crate::harness::watch::Idle;
use crate::ours::dpdk::Device;

/// A message of one frame: the raw loop has no others.
const FLOW_BYTES_MAX: usize = 1_400;
/// Rounds of memif at most: DPDK has 32 ports, and gives none of these back (four a round, and
/// up to three times as many rounds where cores move).
const MEMIF_ROUNDS_MAX: u32 = 2;

/// The device of a plugin, and what names its rows.
#[must_use]
pub fn device(plugin: Plugin) -> (Device, &'static str) {
    match plugin {
        Plugin::DpdkAfXdp => (Device::AfXdp, "dpdk-af-xdp-veth"),
        Plugin::DpdkMemif => (Device::Memif, "dpdk-memif"),
        _ => (Device::PacketSocket, "dpdk-veth"),
    }
}

/// Round trips.
pub fn network(bench: &Bench, cli: &Cli, findings: &mut Findings, hosts: &Hosts, plugin: Plugin) {
    if cli.hosting.is_some_and(|only| only != Hosting::Inline) {
        return;
    }
    let (place, (device, name)) = (Place::Veth(hosts), device(plugin));
    let sides = vec![
        Side::new(OURS, move || with_dpdk(hosts, device, || ours::network_inline(bench, place, plugin))),
        Side::new("raw DPDK", move || raw(bench, hosts, device, MESSAGE_BYTES)),
        Side::new("udp-plugin", move || ours::network_inline(bench, place, Plugin::Udp)),
    ];
    let topology = format!("T1 two hosts, {}", plugin.attaches());
    rows(bench, findings, &format!("network/{name}/64B/inline"), "us", &topology, sides);
}

/// Round trips through shared memory: what is judged is by how much ours takes longer.
pub fn over_memif(bench: &Bench, cli: &Cli, findings: &mut Findings, hosts: &Hosts) {
    if cli.hosting.is_some_and(|only| only != Hosting::Inline) {
        return;
    }
    let mut bench = *bench;
    bench.effort.rounds = bench.effort.rounds.min(MEMIF_ROUNDS_MAX);
    let (bench, place, plugin) = (&bench, Place::Veth(hosts), Plugin::DpdkMemif);
    let mut sides = vec![
        Side::new(OURS, move || {
            // Whether DPDK is there is asked of a device that it gives back.
            with_dpdk(hosts, Device::PacketSocket, || ours::network_inline(bench, place, plugin))
        }),
        Side::new("raw DPDK", move || raw(bench, hosts, Device::Memif, MESSAGE_BYTES)),
    ];
    let (name, topology) = ("network/dpdk-memif/64B/inline", format!("T1, {}", plugin.attaches()));
    match interleave(bench, &mut sides) {
        Err(fault) => findings.note(name, &fault),
        Ok(rounds) => {
            findings.dropped += rounds.dropped;
            let heading = Heading { name: name.into(), unit: "us", topology: topology.clone() };
            rounds.tables(&heading, 0, 1).into_iter().for_each(|table| findings.add(table));
            if let Some(above) = rounds.excess([0, 1], |quantiles| quantiles.p50, 1.0) {
                let labels = ["insane-rt above it", "raw DPDK"];
                let (name, n) = (format!("{name}/p50-above-raw"), rounds.samples(0));
                findings.add(values(&name, "us", above, n, labels, &topology));
            }
        }
    }
}

/// One way, as fast as it goes.
pub fn throughput(bench: &Bench, cli: &Cli, findings: &mut Findings, hosts: &Hosts, plugin: Plugin) {
    let (device, name) = device(plugin);
    for size in network_sizes(cli).into_iter().filter(|size| *size <= FLOW_BYTES_MAX) {
        let sides = vec![
            Side::new(OURS, move || {
                with_dpdk(hosts, device, || ours::network_flow(bench, Place::Veth(hosts), plugin, size))
            }),
            Side::new("raw DPDK", move || raw_flow(bench, hosts, device, size)),
        ];
        let (name, topology) =
            (format!("throughput/{name}/{size}B"), format!("T3 and T1 two hosts, {}", plugin.attaches()));
        rows(bench, findings, &name, "messages/s", &topology, sides);
    }
}

/// Without DPDK a runtime starts and has no link: here that is not measured.
pub fn with_dpdk(
    hosts: &Hosts,
    device: Device,
    measure: impl FnOnce() -> Result<Sample, Fault>,
) -> Result<Sample, Fault> {
    is_there(hosts, device)?;
    measure()
}

/// # Errors
/// `Unavailable` without DPDK.
pub fn is_there(hosts: &Hosts, device: Device) -> Result<(), Fault> {
    hosts.on(0, || DpdkEnd::open(device, 0, MESSAGE_BYTES, false)).map(drop)
}

/// Both ends, which know each other.
pub fn ends(hosts: &Hosts, device: Device, size: usize, is_flow: bool) -> Result<(DpdkEnd, DpdkEnd), Fault> {
    let open = |host| hosts.on(host, move || DpdkEnd::open(device, host, size, is_flow));
    let ((mut first, one), (mut second, other)) = (open(0)?, open(1)?);
    first.meet(one, other);
    second.meet(other, one);
    Ok((first, second))
}

/// Round trips of the raw loop.
pub fn raw(bench: &Bench, hosts: &Hosts, device: Device, size: usize) -> Result<Sample, Fault> {
    let (asking, answering) = ends(hosts, device, size, false)?;
    t1(bench, &pace(bench, Cost::Kernel, Idle::Spin), move || Ok(asking), move || Ok(answering))
}

/// The raw loop one way, as fast as it goes.
pub fn raw_flow(bench: &Bench, hosts: &Hosts, device: Device, size: usize) -> Result<Sample, Fault> {
    let (put, take) = ends(hosts, device, size, true)?;
    flow(bench, &network_flow_pace(bench, size), move || Ok(put), move || Ok(take))
}
