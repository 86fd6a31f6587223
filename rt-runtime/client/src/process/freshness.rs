//! When a value is stale: a state machine without a clock.
//!
//! It knows only when its owner looked and whether something had arrived by then, all on the
//! receiver's own monotonic clock. So the answer is the same whoever fell silent: sender,
//! host, link or runtime.
//!
//! ```text
//!              arrival                       arrival
//!          +------------+                 +----------+
//!          |            v                 v          |
//!   not fresh yet     fresh -- limit --> stale ------+
//!          (edge Fresh)    (edge Stale)    (edge Fresh)
//! ```
//!
//! The limit is `(max_missed + 1) x period` after the last arrival. Each edge is told once,
//! by the look that finds it.

use insane_core::counters::PortCounter;
use insane_core::{MonoTime, Nanos};

/// A change between fresh and stale.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Edge {
    /// A value arrived, and before it there was none or the last one was stale.
    Fresh,
    /// The last value has become too old.
    Stale,
}

/// Whether what arrives keeps its period.
#[derive(Clone, Debug)]
pub(crate) struct Freshness {
    /// `None`: nothing is expected, so nothing becomes stale.
    period: Option<Nanos>,
    limit: Nanos,
    last_arrival: Option<MonoTime>,
    is_fresh: bool,
}

impl Freshness {
    /// `max_missed` arrivals may fail in a row.
    pub const fn new(period: Option<Nanos>, max_missed: u32) -> Self {
        let limit = match period {
            Some(period) => Nanos(period.0.saturating_mul(max_missed as u64 + 1)),
            None => Nanos(u64::MAX),
        };
        Freshness { period, limit, last_arrival: None, is_fresh: false }
    }

    /// Its owner looked at `now`, and something `has_arrived` since the last look. A look
    /// before the last arrival counts as one at it.
    ///
    /// What a late look finds has arrived at that look: a sender is not blamed for a
    /// receiver that overslept.
    pub fn look(&mut self, now: MonoTime, has_arrived: bool) -> Option<Edge> {
        if has_arrived {
            self.last_arrival = Some(self.last_arrival.map_or(now, |last| last.max(now)));
            return (!std::mem::replace(&mut self.is_fresh, true)).then_some(Edge::Fresh);
        }
        if self.is_fresh && self.silence(now) >= self.limit && self.period.is_some() {
            self.is_fresh = false;
            return Some(Edge::Stale);
        }
        None
    }

    /// As [`look`](Self::look), with what is to be counted: that it became stale, or was and is
    /// no more.
    pub fn look_and_count(&mut self, now: MonoTime, has_arrived: bool) -> (Option<Edge>, Option<PortCounter>) {
        let was_stale = self.is_stale();
        let edge = self.look(now, has_arrived);
        let counter = match edge {
            Some(Edge::Stale) => Some(PortCounter::Stale),
            Some(Edge::Fresh) => was_stale.then_some(PortCounter::Recovered),
            None => None,
        };
        (edge, counter)
    }

    /// Whether the last value became stale. Before the first arrival nothing is.
    pub const fn is_stale(&self) -> bool {
        self.last_arrival.is_some() && !self.is_fresh
    }

    /// Whole periods without an arrival: 0 where no period is declared, or nothing arrived yet.
    pub fn missed(&self, now: MonoTime) -> u64 {
        self.period.map_or(0, |period| self.silence(now).0 / period.0.max(1))
    }

    /// When it becomes stale unless something arrives.
    pub fn deadline(&self) -> Option<MonoTime> {
        let last = self.last_arrival.filter(|_| self.is_fresh && self.period.is_some())?;
        Some(last + self.limit)
    }

    fn silence(&self, now: MonoTime) -> Nanos {
        self.last_arrival.map_or(Nanos::ZERO, |last| now.since(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the definition says, from the whole past: `looks` are (instant, arrived).
    fn oracle(period: u64, max_missed: u64, looks: &[(u64, bool)]) -> Vec<Option<Edge>> {
        let limit = period * (max_missed + 1);
        let stale_by = |upto: usize| {
            let arrival = (0..=upto).rev().find(|at| looks[*at].1)?;
            // Any look between the last arrival and this one may have found the limit passed.
            Some((arrival + 1..=upto).any(|at| looks[at].0 >= looks[arrival].0 + limit))
        };
        let state = |upto: usize| stale_by(upto);
        (0..looks.len())
            .map(|at| {
                let before = at.checked_sub(1).and_then(state);
                match (before, state(at)) {
                    (None | Some(true), Some(false)) => Some(Edge::Fresh),
                    (Some(false), Some(true)) => Some(Edge::Stale),
                    _ => None,
                }
            })
            .collect()
    }

    proptest! {
        #[test]
        fn edges_are_those_of_the_definition(
            period in 1..50_u64, max_missed in 0..5_u32, steps in prop::collection::vec((0..60_u64, prop::bool::weighted(0.4)), 0..80),
        ) {
            let mut now = 1000;
            let looks: Vec<(u64, bool)> = steps.iter().map(|(step, arrived)| { now += step; (now, *arrived) }).collect();
            let mut freshness = Freshness::new(Some(Nanos(period)), max_missed);
            let mut counts = [0_i32; 2];
            let look = |(at, arrived): &(u64, bool)| {
                let (edge, counter) = freshness.look_and_count(MonoTime(*at), *arrived);
                counts[0] += i32::from(counter == Some(PortCounter::Stale));
                counts[1] += i32::from(counter == Some(PortCounter::Recovered));
                assert_eq!(counts[0] - counts[1], i32::from(freshness.is_stale()));
                edge
            };
            let told: Vec<Option<Edge>> = looks.iter().map(look).collect();
            prop_assert_eq!(&told, &oracle(period, u64::from(max_missed), &looks));
            // Edges alternate, beginning with Fresh.
            let edges: Vec<Edge> = told.into_iter().flatten().collect();
            for (number, edge) in edges.iter().enumerate() {
                prop_assert_eq!(*edge, [Edge::Fresh, Edge::Stale][number % 2]);
            }
        }

        #[test]
        fn looked_at_every_cycle_the_edge_comes_with_cycle_max_missed_plus_one(
            period in 1..1_000_000_u64, max_missed in 0..20_u32, alive in 1..30_u64,
        ) {
            let mut freshness = Freshness::new(Some(Nanos(period)), max_missed);
            for cycle in 0..alive {
                freshness.look(MonoTime(cycle * period), true);
            }
            let last = alive - 1;
            let found = (last + 1..).find(|cycle| freshness.look(MonoTime(cycle * period), false) == Some(Edge::Stale));
            prop_assert_eq!(found, Some(last + u64::from(max_missed) + 1));
        }

        #[test]
        fn the_deadline_is_the_first_look_that_finds_it_stale(period in 1..1000_u64, max_missed in 0..9_u32, at in 0..9999_u64) {
            let mut freshness = Freshness::new(Some(Nanos(period)), max_missed);
            prop_assert_eq!(freshness.deadline(), None);
            freshness.look(MonoTime(at), true);
            let deadline = freshness.deadline().unwrap();
            prop_assert_eq!(freshness.look(MonoTime(deadline.0 - 1), false), None);
            prop_assert_eq!(freshness.look(deadline, false), Some(Edge::Stale));
            prop_assert!(freshness.is_stale() && freshness.deadline().is_none());
            prop_assert_eq!(freshness.missed(deadline), u64::from(max_missed) + 1);
        }
    }

    #[test]
    fn without_a_period_nothing_becomes_stale() {
        let mut freshness = Freshness::new(None, 0);
        assert_eq!(freshness.look(MonoTime(1), true), Some(Edge::Fresh));
        assert_eq!(freshness.look(MonoTime(u64::MAX), false), None);
        assert_eq!((freshness.deadline(), freshness.missed(MonoTime(u64::MAX))), (None, 0));
    }

    #[test]
    fn nothing_is_stale_before_the_first_arrival_and_time_that_steps_back_harms_nothing() {
        let mut freshness = Freshness::new(Some(Nanos(10)), 1);
        assert_eq!(freshness.look(MonoTime(1_000), false), None);
        assert!(!freshness.is_stale());
        assert_eq!(freshness.look(MonoTime(1_000), true), Some(Edge::Fresh));
        assert_eq!(freshness.look(MonoTime(900), true), None);
        assert_eq!(freshness.look(MonoTime(800), false), None);
        assert_eq!(freshness.deadline(), Some(MonoTime(1_020)), "an earlier instant moves nothing back");
    }
}
