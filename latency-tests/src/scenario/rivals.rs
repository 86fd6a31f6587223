//! The rivals' cells, in the form that the scenarios set beside ours.

use super::{Cost, flow_pace, pace};
use crate::harness::Bench;
use crate::harness::converse::Duplex;
use crate::harness::fault::Fault;
use crate::harness::sample::Sample;
use crate::harness::topology::{flow, t1};
use crate::harness::watch::Idle;
use crate::peers::iceoryx2::{FixedPut, FixedTake, SlicePut, SliceTake, Topic};

/// T1: iceoryx2, round trips of 64 bytes.
pub fn iceoryx2_t1(bench: &Bench) -> Result<Sample, Fault> {
    let (there, back) = (Topic::new(64), Topic::new(64));
    let asking = || Ok(Duplex::new(FixedPut::open(&there)?, FixedTake::open(&back)?));
    let answering = || Ok(Duplex::new(FixedPut::open(&back)?, FixedTake::open(&there)?));
    t1(bench, &pace(bench, Cost::Memory, Idle::Spin), asking, answering)
}

/// T1: iceoryx2, one way, messages of `size` bytes written and read in place.
pub fn iceoryx2_flow(bench: &Bench, size: usize) -> Result<Sample, Fault> {
    let (topic, pace) = (Topic::new(size), flow_pace(bench, size));
    if size == 64 {
        return flow(bench, &pace, || FixedPut::open(&topic), || FixedTake::open(&topic));
    }
    flow(bench, &pace, || SlicePut::open(&topic), || SliceTake::open(&topic))
}
