//! The dpdk plugin beside a raw DPDK loop on the same device, and beside the udp plugin.
//!
//! Two hosts joined by veth, each with packet sockets (`net_af_packet`) on its interface: what
//! is measured is what the link adds, not what DPDK can do on a NIC.

use super::compare::{OURS, rows};
use super::ours::{self, Place};
use super::{Cost, Findings, network_flow_pace, network_sizes, pace};
use crate::baseline::dpdk::DpdkEnd;
use crate::baseline::ring::MESSAGE_BYTES;
use crate::cli::{Cli, Hosting, Plugin};
use crate::harness::Bench;
use crate::harness::fault::Fault;
use crate::harness::netns::Hosts;
use crate::harness::rounds::Side;
use crate::harness::sample::Sample;
use crate::harness::topology::{flow, t1};
use crate::harness::watch::Idle;

/// A message of one frame: the raw loop has no others.
const FLOW_BYTES_MAX: usize = 1_400;

/// Round trips.
pub fn network(bench: &Bench, cli: &Cli, findings: &mut Findings, hosts: &Hosts) {
    if cli.hosting.is_some_and(|only| only != Hosting::Inline) {
        return;
    }
    let place = Place::Veth(hosts);
    let sides = vec![
        Side::new(OURS, move || with_dpdk(hosts, || ours::network_inline(bench, place, Plugin::Dpdk))),
        Side::new("raw DPDK", move || raw(bench, hosts)),
        Side::new("udp-plugin", move || ours::network_inline(bench, place, Plugin::Udp)),
    ];
    rows(bench, findings, "network/dpdk-veth/64B/inline", "us", "T1 two hosts, packet sockets", sides);
}

/// One way, as fast as it goes.
pub fn throughput(bench: &Bench, cli: &Cli, findings: &mut Findings, hosts: &Hosts) {
    for size in network_sizes(cli).into_iter().filter(|size| *size <= FLOW_BYTES_MAX) {
        let sides = vec![
            Side::new(OURS, move || {
                with_dpdk(hosts, || ours::network_flow(bench, Place::Veth(hosts), Plugin::Dpdk, size))
            }),
            Side::new("raw DPDK", move || raw_flow(bench, hosts, size)),
        ];
        let name = format!("throughput/dpdk-veth/{size}B");
        rows(bench, findings, &name, "messages/s", "T3 and T1 two hosts, packet sockets", sides);
    }
}

/// Without DPDK a runtime starts and has no link: here that is not measured.
fn with_dpdk(hosts: &Hosts, measure: impl FnOnce() -> Result<Sample, Fault>) -> Result<Sample, Fault> {
    drop(hosts.on(0, || DpdkEnd::open(0, MESSAGE_BYTES, false))?);
    measure()
}

/// Both ends, which know each other.
fn ends(hosts: &Hosts, size: usize, is_flow: bool) -> Result<(DpdkEnd, DpdkEnd), Fault> {
    let open = |host| hosts.on(host, move || DpdkEnd::open(host, size, is_flow));
    let ((mut first, one), (mut second, other)) = (open(0)?, open(1)?);
    first.meet(one, other);
    second.meet(other, one);
    Ok((first, second))
}

fn raw(bench: &Bench, hosts: &Hosts) -> Result<Sample, Fault> {
    let (asking, answering) = ends(hosts, MESSAGE_BYTES, false)?;
    t1(bench, &pace(bench, Cost::Kernel, Idle::Spin), move || Ok(asking), move || Ok(answering))
}

fn raw_flow(bench: &Bench, hosts: &Hosts, size: usize) -> Result<Sample, Fault> {
    let (put, take) = ends(hosts, size, true)?;
    flow(bench, &network_flow_pace(bench, size), move || Ok(put), move || Ok(take))
}
