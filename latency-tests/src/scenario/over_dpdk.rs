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
    let (device, name) = device(plugin);
    let ours = move |hosts: &Hosts, plugin| ours::network_inline(bench, Place::Veth(hosts), plugin);
    let sides = vec![
        Side::new(OURS, move || over(hosts, device, |hosts| ours(hosts, plugin))),
        Side::new("raw DPDK", move || over(hosts, device, |hosts| raw(bench, hosts, device, MESSAGE_BYTES))),
        Side::new("udp-plugin", move || ours(hosts, Plugin::Udp)),
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
        Side::new(OURS, move || over(hosts, Device::Memif, |_| ours::network_inline(bench, place, plugin))),
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
                over(hosts, device, |hosts| ours::network_flow(bench, Place::Veth(hosts), plugin, size))
            }),
            Side::new("raw DPDK", move || over(hosts, device, |hosts| raw_flow(bench, hosts, device, size))),
        ];
        let (name, topology) =
            (format!("throughput/{name}/{size}B"), format!("T3 and T1 two hosts, {}", plugin.attaches()));
        rows(bench, findings, &name, "messages/s", &topology, sides);
    }
}

/// Measures where a device can be opened: AF_XDP's driver leaves an interface so that the same
/// process cannot have it again, so each cell has hosts of its own. Without DPDK a runtime
/// starts and has no link: that is not measured.
pub fn over<T>(hosts: &Hosts, device: Device, measure: impl FnOnce(&Hosts) -> Result<T, Fault>) -> Result<T, Fault> {
    is_there(hosts)?;
    if device == Device::AfXdp { measure(&Hosts::make()?) } else { measure(hosts) }
}

/// # Errors
/// `Unavailable` without DPDK.
pub fn is_there(hosts: &Hosts) -> Result<(), Fault> {
    hosts.on(0, || DpdkEnd::open(Device::PacketSocket, 0, MESSAGE_BYTES, false).map(drop))
}

/// Both ends, which know each other.
pub fn ends(hosts: &Hosts, device: Device, size: usize, is_flow: bool) -> Result<(DpdkEnd, DpdkEnd), Fault> {
    let open = |host| hosts.on(host, move || DpdkEnd::open(device, host, size, is_flow));
    let ((mut first, one), (mut second, other)) = (open(0)?, open(1)?);
    first.meet(one, other);
    second.meet(other, one);
    first.wait_until_up().and(second.wait_until_up())?;
    Ok((first, second))
}

/// Round trips of the raw loop.
pub fn raw(bench: &Bench, hosts: &Hosts, device: Device, size: usize) -> Result<Sample, Fault> {
    let (asking, answering) = ends(hosts, device, size, false)?;
    let at = move |host: usize, end: DpdkEnd| hosts.enter(host).map(|()| end);
    t1(bench, &pace(bench, Cost::Kernel, Idle::Spin), move || at(0, asking), move || at(1, answering))
}

/// The raw loop one way, as fast as it goes.
pub fn raw_flow(bench: &Bench, hosts: &Hosts, device: Device, size: usize) -> Result<Sample, Fault> {
    let (put, take) = ends(hosts, device, size, true)?;
    let at = move |host: usize, end: DpdkEnd| hosts.enter(host).map(|()| end);
    flow(bench, &network_flow_pace(bench, size), move || at(0, put), move || at(1, take))
}
