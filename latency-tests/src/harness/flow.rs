//! One-way flows: one end sends as fast as the other takes, for a length of time.

use super::clock::{TickRate, ticks};
use super::converse::End;
use super::fault::Fault;
use super::stage::{Stage, until_stopped};
use super::watch::Idle;
use std::time::Duration;

/// How long a flow goes on.
#[derive(Clone, Copy, Debug)]
pub struct FlowPace {
    /// Messages before counting starts.
    pub warm_up: u64,
    /// Time that is counted.
    pub length: Duration,
    /// After this time the flow has failed.
    pub bound: Duration,
    /// Messages between two looks at the clock: many where they are short.
    pub look_every: u64,
}

/// What a flow reached.
#[derive(Clone, Copy, Debug)]
pub struct FlowRate {
    /// Messages a second.
    pub per_second: f64,
    /// Messages counted.
    pub messages: u64,
}

/// The sending end, until the stage stops.
///
/// # Errors
/// The technology failed, or found no room within the bound.
#[inline(never)]
pub fn pour<E: End>(end: &mut E, pace: &FlowPace, stage: &Stage) -> Result<(), Fault> {
    let mut watch = stage.watch("the receiving end", Idle::Spin, pace.bound);
    for number in 0.. {
        while !end.send(number)? {
            if let Err(ended) = watch.idle() {
                return until_stopped(ended);
            }
        }
        if number.is_multiple_of(pace.look_every) && stage.stopped() {
            break;
        }
    }
    Ok(())
}

/// The receiving end: the rate at which messages came, in order and without a gap.
///
/// # Errors
/// A message was lost or wrong, or none came.
#[inline(never)]
pub fn drain<E: End>(end: &mut E, pace: &FlowPace, rate: TickRate, stage: &Stage) -> Result<FlowRate, Fault> {
    let mut watch = stage.watch("the sending end", Idle::Spin, pace.bound);
    let length_ns = pace.length.as_nanos() as f64;
    let mut start = ticks();
    for expected in 0.. {
        let number = loop {
            match end.receive()? {
                Some(number) => break number,
                None => watch.idle()?,
            }
        };
        if number != expected {
            return Err(Fault::Corrupt { expected, found: number });
        }
        if expected == pace.warm_up {
            start = ticks();
        }
        if expected > pace.warm_up && expected.is_multiple_of(pace.look_every) {
            let ns = rate.ns(ticks().wrapping_sub(start));
            if ns >= length_ns {
                let messages = expected - pace.warm_up;
                return Ok(FlowRate { per_second: messages as f64 * 1e9 / ns, messages });
            }
        }
    }
    unreachable!("message numbers do not run out")
}
