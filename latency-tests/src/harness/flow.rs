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
    /// Whether a message may be lost. One that arrives counts, and is whole and in order.
    pub lossy: bool,
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

/// The receiving end: the rate at which messages came, in order, and without a gap unless
/// the pace allows one.
///
/// # Errors
/// A message was lost or wrong, or none came.
#[inline(never)]
pub fn drain<E: End>(end: &mut E, pace: &FlowPace, rate: TickRate, stage: &Stage) -> Result<FlowRate, Fault> {
    let mut watch = stage.watch("the sending end", Idle::Spin, pace.bound);
    let mut count = Count::new(*pace, rate);
    loop {
        let number = loop {
            match end.receive()? {
                Some(number) => break number,
                None => watch.idle()?,
            }
        };
        if let Some(reached) = count.add(number)? {
            return Ok(reached);
        }
    }
}

/// Messages sent before the receiving end is looked at again.
const BURST: u64 = 64;

/// Both ends in one thread: bursts are sent while there is room, and what has arrived is
/// taken in between. A message that finds no room is lost, so the pace must be lossy.
///
/// # Errors
/// An end failed, or none came.
#[inline(never)]
pub fn circulate<P: End, T: End>(
    (put, take): (&mut P, &mut T),
    pace: &FlowPace,
    rate: TickRate,
    stage: &Stage,
) -> Result<FlowRate, Fault> {
    let mut watch = stage.watch("the other end", Idle::Spin, pace.bound);
    let mut count = Count::new(*pace, rate);
    let mut number = 0;
    loop {
        for _ in 0..BURST {
            let had_room = put.send(number)?;
            number += 1;
            if !had_room {
                break;
            }
        }
        let mut came = 0;
        while came < 2 * BURST
            && let Some(number) = take.receive()?
        {
            came += 1;
            if let Some(reached) = count.add(number)? {
                return Ok(reached);
            }
        }
        if came == 0 {
            watch.idle()?;
        }
    }
}

/// What came, in order.
struct Count {
    pace: FlowPace,
    rate: TickRate,
    expected: u64,
    came: u64,
    start: u64,
}

impl Count {
    fn new(pace: FlowPace, rate: TickRate) -> Self {
        Count { pace, rate, expected: 0, came: 0, start: ticks() }
    }

    /// One more; the rate once the time is over.
    #[inline(always)]
    fn add(&mut self, number: u64) -> Result<Option<FlowRate>, Fault> {
        if number != self.expected && !(self.pace.lossy && number > self.expected) {
            return Err(Fault::Corrupt { expected: self.expected, found: number });
        }
        self.expected = number + 1;
        self.came += 1;
        if self.came <= self.pace.warm_up {
            self.start = ticks();
        } else if self.came.is_multiple_of(self.pace.look_every) {
            let ns = self.rate.ns(ticks().wrapping_sub(self.start));
            if ns >= self.pace.length.as_nanos() as f64 {
                let messages = self.came - self.pace.warm_up;
                return Ok(Some(FlowRate { per_second: messages as f64 * 1e9 / ns, messages }));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(lossy: bool) -> Count {
        let length = Duration::from_secs(3600);
        let pace = FlowPace { warm_up: 1, length, bound: length, look_every: 1, lossy };
        Count::new(pace, TickRate::calibrate())
    }

    #[test]
    fn a_gap_is_an_error_unless_the_pace_allows_it_and_disorder_always_is() {
        let mut strict = count(false);
        assert!(strict.add(0).is_ok() && strict.add(1).is_ok());
        assert!(strict.add(3).is_err());
        let mut lossy = count(true);
        assert!(lossy.add(0).is_ok() && lossy.add(3).is_ok());
        assert!(lossy.add(3).is_err(), "twice");
        assert!(lossy.add(2).is_err(), "late");
    }
}
