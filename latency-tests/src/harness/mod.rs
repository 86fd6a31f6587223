//! The method: pinned threads, floor probes, interleaved rounds, medians.

pub mod birth;
pub mod clock;
pub mod converse;
pub mod cores;
pub mod fault;
pub mod floor;
pub mod flow;
pub mod machine;
pub mod netns;
pub mod paced;
pub mod payload;
pub mod rounds;
pub mod sample;
pub mod stage;
pub mod topology;
pub mod watch;
pub mod witness;

use clock::TickRate;
use cores::Cores;
use fault::Fault;

/// What every measurement needs.
#[derive(Clone, Copy, Debug)]
pub struct Bench {
    /// The two processors.
    pub cores: Cores,
    /// The rate of the cycle counter.
    pub rate: TickRate,
    /// How much to measure.
    pub effort: Effort,
}

impl Bench {
    /// Finds the processors and calibrates the clock.
    ///
    /// # Errors
    /// Fewer than two processors.
    pub fn new(effort: Effort) -> Result<Self, Fault> {
        Ok(Bench { cores: Cores::find()?, rate: TickRate::calibrate(), effort })
    }
}

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Valid rounds wanted of each row.
    pub rounds: u32,
    /// For function, not for time: one round, few messages, no cell is dropped.
    pub smoke: bool,
}
