//! What admission answers.

use core::fmt;
use insane_certificate::{ChainBound, Refutation};

/// How long is searched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Steps of one search for a start; each passes over at least one forbidden interval.
    pub jumps: u32,
    /// How often a set is placed anew, with the stream that found no place further ahead.
    pub rounds: u32,
}

impl Default for Budget {
    /// 100,000 jumps, 50 rounds.
    fn default() -> Self {
        Budget { jumps: 100_000, rounds: 50 }
    }
}

/// What in a plant means nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlantError {
    /// A period is zero, or above 73 years.
    Period,
    /// A stream has no bytes, or a time above 73 years.
    Stream,
    /// A path is empty or has more than two links, or its first link has no host, or its
    /// second one has one, or a link or host of it does not exist, or has no rate.
    Path,
    /// An epsilon or clock error is above 73 years.
    Host,
    /// A blocked window is empty, longer than its period, or begins after it.
    Window,
    /// A chain is empty, names what there is not, or has a task without a period.
    Chain,
    /// A lane is not on a link of a host, has a priority twice, no burst or no interval,
    /// or frames larger than those of its link.
    Lane,
}

/// What would be admitted instead, each checked by placing it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offer {
    /// The same with a later deadline, the nearest, nanoseconds.
    pub deadline_ns: Option<u64>,
    /// The same with smaller messages, the largest, bytes.
    pub bytes: Option<u32>,
    /// The same with a longer period, the least multiple up to 16, nanoseconds.
    pub period_ns: Option<u64>,
}

/// Why a plant or a stream is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    /// It means nothing.
    Invalid(PlantError),
    /// There is no schedule; the proof can be checked.
    Refuted(Refutation),
    /// None was found within the search budget.
    NotFound,
    /// A chain would take too long; its place, and what would hold.
    Chain(usize, ChainBound),
    /// A lane would take too long; its place.
    Lane(usize),
}

/// A refusal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The stream that found no place, where it is about one.
    pub stream: Option<usize>,
    /// What would be admitted in its stead.
    pub offer: Offer,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Reason::Invalid(what) => write!(f, "the plant means nothing: {what:?}")?,
            Reason::Refuted(proof) => write!(f, "there is no schedule: {proof:?}")?,
            Reason::NotFound => f.write_str("not found within the search budget")?,
            Reason::Chain(at, bound) => write!(f, "chain {at} would take too long: {bound:?}")?,
            Reason::Lane(at) => write!(f, "lane {at} would take too long")?,
        }
        if let Some(stream) = self.stream {
            write!(f, "; stream {stream} found no place")?;
        }
        let Offer { deadline_ns, bytes, period_ns } = self.offer;
        deadline_ns.map_or(Ok(()), |ns| write!(f, "; it would with a deadline of {ns} ns"))?;
        bytes.map_or(Ok(()), |bytes| write!(f, "; it would with {bytes} bytes"))?;
        period_ns.map_or(Ok(()), |ns| write!(f, "; it would with a period of {ns} ns"))
    }
}

impl core::error::Error for Refusal {}
