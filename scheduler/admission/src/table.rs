//! What is reserved on each link, and the search for a start that touches none of it.
//!
//! A placed window (offset o, length m, period q) forbids a new one of length n and
//! period p the starts x with `o - n < x < o + m` modulo g = gcd(p, q): one interval. All
//! intervals of one g are merged; a search that begins at the release jumps from the end
//! of a forbidden interval to the end of the next, over all g, until none forbids it. So
//! it finds the first start there is, and each jump passes over an interval: the
//! hyperperiod is never gone through.

use crate::shape::{Part, Shape};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use insane_certificate::{Plant, Window};
use insane_mutation::mutate;
use insane_scheduler::gcd;

/// Intervals `[begin, end)`.
type Intervals = Vec<(u64, u64)>;

/// Reserved windows of one link: offsets and lengths by period.
#[derive(Clone, Default, Debug)]
pub(crate) struct LinkTable(BTreeMap<u64, Vec<(u64, u64)>>);

/// All links.
#[derive(Clone, Debug)]
pub(crate) struct Tables(Vec<LinkTable>);

/// Why a search found nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Nothing {
    /// There is no start while the others are where they are.
    Full,
    /// The budget is used up.
    Budget,
}

impl Tables {
    /// With what is blocked.
    pub(crate) fn of(plant: &Plant) -> Tables {
        let mut tables = Tables(plant.links.iter().map(|_| LinkTable::default()).collect());
        for (link, entry) in plant.links.iter().enumerate() {
            let blocked = mutate!(BlockedForgotten, &entry.blocked[..], &entry.blocked[..0]);
            blocked.iter().for_each(|window| tables.reserve(link, window));
        }
        tables
    }

    pub(crate) fn reserve(&mut self, link: usize, window: &Window) {
        self.0[link].0.entry(window.period_ns).or_default().push((window.offset_ns, window.length_ns));
    }

    pub(crate) fn place(&mut self, shape: &Shape, start_ns: u64) {
        for (part, window) in shape.parts.iter().zip(shape.windows(start_ns)) {
            self.reserve(part.link, &window);
        }
    }

    /// The first start from `from_ns` to `latest_ns`.
    pub(crate) fn first_start(&self, shape: &Shape, from_ns: u64, latest_ns: i128, jumps: u32) -> Result<u64, Nothing> {
        let forbidden = self.forbidden(shape).ok_or(Nothing::Full)?;
        let (mut start, mut is_free) = (i128::from(from_ns), false);
        let mut left = jumps;
        while !is_free {
            is_free = true;
            for (gcd, intervals) in &forbidden {
                let residue = start.rem_euclid(i128::from(*gcd)) as u64;
                let next = intervals.partition_point(|interval| interval.1 <= residue);
                if let Some(&(_, end)) = intervals.get(next).filter(|interval| interval.0 <= residue) {
                    start += i128::from(end - residue);
                    is_free = mutate!(JumpNotRechecked, false, true);
                    left = left.checked_sub(1).ok_or(Nothing::Budget)?;
                }
            }
            if start > latest_ns {
                return Err(Nothing::Full);
            }
        }
        Ok(start as u64)
    }

    /// Forbidden starts, by gcd: disjoint intervals `[begin, end)` in order. `None` where
    /// all are.
    fn forbidden(&self, shape: &Shape) -> Option<Vec<(u64, Intervals)>> {
        let mut all: BTreeMap<u64, Intervals> = BTreeMap::new();
        let parts = mutate!(SecondHopForgotten, &shape.parts[..], &shape.parts[..1]);
        for part in parts {
            for (period, windows) in &self.0[part.link].0 {
                let gcd = mutate!(GcdIsLesserPeriod, gcd(shape.period_ns, *period), shape.period_ns.min(*period));
                let intervals = all.entry(gcd).or_default();
                windows.iter().try_for_each(|window| forbid(intervals, part, *window, gcd))?;
            }
        }
        Some(all.into_iter().map(|(gcd, intervals)| (gcd, merged(intervals))).collect())
    }
}

/// `None` where the two are longer than their gcd.
fn forbid(intervals: &mut Intervals, part: &Part, (offset, length): (u64, u64), gcd: u64) -> Option<()> {
    let forbidden = part.length_ns.checked_add(length)? - 1;
    if forbidden >= gcd {
        return None;
    }
    let begin = i128::from(offset) - part.offset_ns - i128::from(part.length_ns) + 1;
    let begin = mutate!(ForbiddenBeginsLate, begin, begin + 1).rem_euclid(i128::from(gcd)) as u64;
    let end = begin + mutate!(ForbiddenEndsEarly, forbidden, forbidden.saturating_sub(1));
    intervals.push((begin, end.min(gcd)));
    if end > gcd {
        intervals.push((0, end - gcd));
    }
    Some(())
}

fn merged(mut intervals: Intervals) -> Intervals {
    intervals.sort_unstable();
    let mut merged: Intervals = Vec::with_capacity(intervals.len());
    for (begin, end) in intervals {
        match merged.last_mut() {
            Some(last) if begin <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((begin, end)),
        }
    }
    merged
}
