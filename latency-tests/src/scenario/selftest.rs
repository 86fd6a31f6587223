//! The harness against itself: each baseline beside a second run of itself.
//! Every ratio should be 1; how far it is off says how much of any other ratio
//! is noise.

use super::{Findings, baselines};
use crate::baseline::ring::MESSAGE_BYTES;
use crate::harness::Bench;
use crate::harness::fault::Fault;
use crate::harness::netns::Hosts;
use crate::harness::rounds::{Heading, Side, interleave};
use crate::harness::sample::Sample;

/// Runs every baseline twice in each round.
pub fn run(bench: &Bench, findings: &mut Findings) {
    twice(bench, findings, "selftest/ring/64B", "us", "T1", baselines::ring_t1);
    twice(bench, findings, "selftest/relay-T3/64B", "us", "T3", baselines::relay_t3);
    twice(bench, findings, "selftest/relay-T2/64B", "us", "T2", baselines::relay_t2);
    twice(bench, findings, "selftest/udp-loopback/64B", "us", "T1", baselines::udp_loopback);
    twice(bench, findings, "selftest/udp-self/64B", "us", "T3", baselines::udp_to_itself);
    match Hosts::make() {
        Ok(hosts) => {
            let cell = |bench: &Bench| baselines::udp_veth(bench, &hosts, MESSAGE_BYTES);
            twice(bench, findings, "selftest/udp-veth/64B", "us", "T1 two hosts", cell);
        }
        Err(fault) => findings.note("selftest/udp-veth/64B", &fault),
    }
    for conversations in super::STREAMS {
        let birth = super::birth(bench, conversations);
        let cell = |bench: &Bench| baselines::ring_birth(bench, birth);
        twice(bench, findings, &format!("selftest/setup/{conversations}"), "us", "T1 yielding", cell);
    }
    #[cfg(feature = "iceoryx2")]
    rivals(bench, findings);
    twice(bench, findings, "selftest/numbers", "messages/s", "T1", baselines::number_flow);
    for size in super::SIZES {
        let cell = |bench: &Bench| baselines::ring_flow(bench, size);
        twice(bench, findings, &format!("selftest/flow/{size}B"), "messages/s", "T1", cell);
    }
}

#[cfg(feature = "iceoryx2")]
fn rivals(bench: &Bench, findings: &mut Findings) {
    use super::rivals::{iceoryx2_flow, iceoryx2_t1};
    twice(bench, findings, "selftest/iceoryx2/64B", "us", "T1", iceoryx2_t1);
    for size in super::SIZES {
        let cell = |bench: &Bench| iceoryx2_flow(bench, size);
        twice(bench, findings, &format!("selftest/iceoryx2-flow/{size}B"), "messages/s", "T1", cell);
    }
}

fn twice(
    bench: &Bench,
    findings: &mut Findings,
    name: &str,
    unit: &'static str,
    topology: &str,
    cell: impl Fn(&Bench) -> Result<Sample, Fault>,
) {
    let mut sides = [Side::new("first", || cell(bench)), Side::new("second", || cell(bench))];
    let heading = Heading { name: name.to_owned(), unit, topology: topology.to_owned() };
    let measured = interleave(bench, &mut sides);
    findings.take(name, measured.map(|rounds| (rounds.tables(&heading, 0, 1), rounds.dropped)));
}
