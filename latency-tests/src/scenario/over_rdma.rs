//! The rdma plugin beside raw verbs on the same device, and beside the udp plugin.
//!
//! A device that speaks with itself: in the guest it is one in software (soft-RoCE), on an
//! emulated processor, where times say little and nothing is bounded by them.

use super::compare::{OURS, rows};
use super::ours::{self, Place};
use super::{Cost, Findings, network_flow_pace, network_sizes, pace};
use crate::baseline::ring::MESSAGE_BYTES;
use crate::baseline::verbs;
use crate::cli::{Cli, Hosting, Plugin};
use crate::harness::Bench;
use crate::harness::fault::Fault;
use crate::harness::rounds::Side;
use crate::harness::sample::Sample;
use crate::harness::topology::{flow, t1};
use crate::harness::watch::Idle;
use crate::ours::rdma;

/// The largest that an rdma link can have.
const FRAME_BYTES_LARGE: u32 = 64 * 1024;

/// Round trips.
pub fn network(bench: &Bench, cli: &Cli, findings: &mut Findings) {
    if cli.hosting.is_some_and(|only| only != Hosting::Inline) {
        return;
    }
    let sides = vec![
        Side::new(OURS, move || with_device(|| ours::network_inline(bench, Place::Loopback, Plugin::Rdma))),
        Side::new("raw verbs", move || raw(bench)),
        Side::new("udp-plugin", move || ours::network_inline(bench, Place::Loopback, Plugin::Udp)),
    ];
    rows(bench, findings, "network/rdma/64B/inline", "us", "T1, a device to itself", sides);
}

/// One way, as fast as it goes.
pub fn throughput(bench: &Bench, cli: &Cli, findings: &mut Findings) {
    for size in network_sizes(cli) {
        let mut sides = vec![
            Side::new(OURS, move || with_device(|| ours::network_flow(bench, Place::Loopback, Plugin::Rdma, size))),
            Side::new("raw verbs", move || raw_flow(bench, size)),
        ];
        if size > FRAME_BYTES_LARGE as usize / 2 {
            // What the largest frames change, where a message is of several.
            let large = move || with_device(|| ours::network_flow_framed(bench, size, FRAME_BYTES_LARGE));
            sides.push(Side::new("frames-64K", large));
        }
        let name = format!("throughput/rdma/{size}B");
        rows(bench, findings, &name, "messages/s", "T3 and T1, a device to itself", sides);
    }
}

/// Without a device a runtime starts and has no link: here that is not measured.
fn with_device(measure: impl FnOnce() -> Result<Sample, Fault>) -> Result<Sample, Fault> {
    drop(verbs::pair(rdma::address()?, MESSAGE_BYTES, false)?);
    measure()
}

fn raw(bench: &Bench) -> Result<Sample, Fault> {
    let (asking, answering) = verbs::pair(rdma::address()?, MESSAGE_BYTES, false)?;
    t1(bench, &pace(bench, Cost::Kernel, Idle::Spin), move || Ok(asking), move || Ok(answering))
}

fn raw_flow(bench: &Bench, size: usize) -> Result<Sample, Fault> {
    let (put, take) = verbs::pair(rdma::address()?, size, true)?;
    flow(bench, &network_flow_pace(bench, size), move || Ok(put), move || Ok(take))
}
