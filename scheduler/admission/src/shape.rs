//! What a stream takes of its links, relative to its start.

use crate::words::PlantError;
use alloc::vec::Vec;
use insane_certificate::{Class, Link, Plant, Stream, Window};
use insane_mutation::mutate;
use insane_scheduler::PERIOD_NS_MAX;

/// Longest release, deadline, delay, error or epsilon, nanoseconds: sums stay far below 2^63.
const TIME_NS_MAX: u64 = PERIOD_NS_MAX;
/// Links of a path at most.
const HOPS_MAX: usize = 2;

/// A window relative to the start of its stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Part {
    pub link: usize,
    /// From the start; below zero where a clock error comes before it.
    pub offset_ns: i128,
    pub length_ns: u64,
}

/// All that placing a stream needs to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    pub period_ns: u64,
    pub parts: Vec<Part>,
    /// From the start to the latest arrival.
    pub span_ns: u64,
    pub release_ns: u64,
    /// Latest start; below the release where nothing fits.
    pub latest_ns: i128,
}

impl Shape {
    pub(crate) fn of(plant: &Plant, stream: &Stream) -> Result<Shape, PlantError> {
        if stream.period_ns == 0 || stream.period_ns > PERIOD_NS_MAX {
            return Err(PlantError::Period);
        }
        if stream.bytes == 0 || stream.release_ns > TIME_NS_MAX || stream.deadline_ns > TIME_NS_MAX {
            return Err(PlantError::Stream);
        }
        if stream.path.is_empty() || stream.path.len() > HOPS_MAX {
            return Err(PlantError::Path);
        }
        let first = plant.links.get(stream.path[0].link).ok_or(PlantError::Path)?;
        let host = plant.hosts.get(first.host.ok_or(PlantError::Path)?).ok_or(PlantError::Path)?;
        let turn = match stream.class {
            Class::Assured => mutate!(QuantileForAssured, host.turn.max_ns, host.turn.quantile_ns),
            Class::Statistical => host.turn.quantile_ns,
        };
        let error = mutate!(ClockErrorForgotten, host.clock_error_ns, 0);
        if turn > TIME_NS_MAX || error > TIME_NS_MAX {
            return Err(PlantError::Host);
        }
        let (mut begin, mut end) = (0_i128, mutate!(TurnForgotten, i128::from(turn), 0));
        let mut parts = Vec::new();
        for (number, hop) in stream.path.iter().enumerate() {
            let link = plant.links.get(hop.link).ok_or(PlantError::Path)?;
            if link.host.is_some() != (number == 0) || hop.delay_ns > TIME_NS_MAX || link.ps_per_byte == 0 {
                return Err(PlantError::Path);
            }
            let foreign = mutate!(ForeignForgotten, link.foreign_bytes, 0);
            end += i128::from(duration_ns(link, u64::from(stream.bytes) + u64::from(foreign)));
            let widen = if number == 0 { 0 } else { i128::from(error) };
            let length_ns = u64::try_from(end - begin + 2 * widen).map_err(|_| PlantError::Path)?;
            parts.push(Part { link: hop.link, offset_ns: begin - widen, length_ns });
            begin += i128::from(duration_ns(link, u64::from(stream.bytes))) + i128::from(hop.delay_ns);
            end += i128::from(hop.delay_ns);
        }
        let span_ns = u64::try_from(end + i128::from(error)).map_err(|_| PlantError::Path)?;
        let by_deadline = i128::from(stream.deadline_ns) - i128::from(span_ns);
        let latest_ns = by_deadline.min(i128::from(stream.release_ns) + i128::from(stream.period_ns) - 1);
        let latest_ns = mutate!(LatestOffByOne, latest_ns, latest_ns + 1);
        Ok(Shape { period_ns: stream.period_ns, parts, span_ns, release_ns: stream.release_ns, latest_ns })
    }

    /// Whether the stream fits, alone on its links.
    pub(crate) fn fits_alone(&self) -> bool {
        self.latest_ns >= i128::from(self.release_ns) && self.parts.iter().all(|part| part.length_ns <= self.period_ns)
    }

    /// What is reserved when the stream starts at `start_ns`.
    pub(crate) fn windows(&self, start_ns: u64) -> Vec<Window> {
        let window = |part: &Part| {
            let offset = (i128::from(start_ns) + part.offset_ns).rem_euclid(i128::from(self.period_ns));
            Window { offset_ns: offset as u64, length_ns: part.length_ns, period_ns: self.period_ns }
        };
        self.parts.iter().map(window).collect()
    }
}

/// How long bytes take on a link, nanoseconds, rounded up.
pub(crate) fn duration_ns(link: &Link, bytes: u64) -> u64 {
    // 33 bits times 32 bits.
    (u128::from(bytes) * u128::from(link.ps_per_byte)).div_ceil(1_000) as u64
}
