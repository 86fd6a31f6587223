//! The rivals' cells, in the form that the scenarios set beside ours.

use super::{Cost, flow_pace, pace};
use crate::harness::Bench;
#[cfg(any(feature = "aeron", feature = "iceoryx2"))]
use crate::harness::converse::Duplex;
use crate::harness::fault::Fault;
use crate::harness::sample::Sample;
use crate::harness::topology::{flow, t1};
use crate::harness::watch::Idle;
#[cfg(feature = "aeron")]
use crate::peers::aeron::{AeronPut, AeronTake, Driver, Log, Route};
#[cfg(feature = "iceoryx2")]
use crate::peers::iceoryx2::{FixedPut, FixedTake, SlicePut, SliceTake, Topic};
#[cfg(feature = "zeromq")]
use crate::peers::zeromq;

/// T1: iceoryx2, round trips of 64 bytes.
#[cfg(feature = "iceoryx2")]
pub fn iceoryx2_t1(bench: &Bench) -> Result<Sample, Fault> {
    let (there, back) = (Topic::new(64), Topic::new(64));
    let asking = || Ok(Duplex::new(FixedPut::open(&there)?, FixedTake::open(&back)?));
    let answering = || Ok(Duplex::new(FixedPut::open(&back)?, FixedTake::open(&there)?));
    t1(bench, &pace(bench, Cost::Memory, Idle::Spin), asking, answering)
}

/// T1: iceoryx2, one way, messages of `size` bytes written and read in place.
#[cfg(feature = "iceoryx2")]
pub fn iceoryx2_flow(bench: &Bench, size: usize) -> Result<Sample, Fault> {
    let (topic, pace) = (Topic::new(size), flow_pace(bench, size));
    if size == 64 {
        return flow(bench, &pace, || FixedPut::open(&topic), || FixedTake::open(&topic));
    }
    flow(bench, &pace, || SlicePut::open(&topic), || SliceTake::open(&topic))
}

/// T1: Aeron IPC, round trips of 64 bytes.
#[cfg(feature = "aeron")]
pub fn aeron_t1(bench: &Bench, log: Log) -> Result<Sample, Fault> {
    let driver = Driver::start()?;
    let [there, back] = [1, 2].map(|stream| Route::new(&driver, stream, 64, log));
    let asking = || Ok(Duplex::new(AeronPut::open(there)?, AeronTake::open(back)?));
    let answering = || Ok(Duplex::new(AeronPut::open(back)?, AeronTake::open(there)?));
    t1(bench, &pace(bench, Cost::Memory, Idle::Spin), asking, answering)
}

/// T1: Aeron IPC, one way, messages of `size` bytes written and read.
#[cfg(feature = "aeron")]
pub fn aeron_flow(bench: &Bench, size: usize) -> Result<Sample, Fault> {
    let driver = Driver::start()?;
    let route = Route::new(&driver, 1, size, Log::Warm);
    flow(bench, &flow_pace(bench, size), || AeronPut::open(route), || AeronTake::open(route))
}

/// T1: ZeroMQ, round trips of 64 bytes.
#[cfg(feature = "zeromq")]
pub fn zeromq_t1(bench: &Bench) -> Result<Sample, Fault> {
    let (asking, answering) = zeromq::pair(64)?;
    t1(bench, &pace(bench, Cost::Kernel, Idle::Spin), move || Ok(asking), move || Ok(answering))
}

/// T1: ZeroMQ, one way, messages of `size` bytes written and read.
#[cfg(feature = "zeromq")]
pub fn zeromq_flow(bench: &Bench, size: usize) -> Result<Sample, Fault> {
    let (put, take) = zeromq::pair(size)?;
    flow(bench, &flow_pace(bench, size), move || Ok(put), move || Ok(take))
}
