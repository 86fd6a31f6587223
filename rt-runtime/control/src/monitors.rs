//! Whether the assumptions of certificates hold: a monitor for each that a host can watch.
//!
//! Datapaths count; here counts become violations, every tick: how many, since when, what it
//! was. The mark "out of spec" stays until another schedule is in force: what was promised was
//! not kept, whatever holds now. Alarms are for the log, of each assumption one in
//! [`ALARM_PERIOD`] at most, with how often it happened.
//!
//! e_turn (of slots, and as `e_chunk` of what goes besides) and e_wake are measured: what counts
//! against them depends on the class of the streams that have slots (module `epsilons`).
//!
//! Pure: the time is an argument, counts are given. Nothing is watched while no stream has
//! slots: nobody was promised anything.

use crate::epsilons::{Basis, Estimate};
use insane_core::counters::TurnCounter;
use insane_core::{MonoTime, Nanos};
use insane_engine::Counted;
use insane_wire::status::MonitorStatus;

/// Between two alarms about one assumption of one datapath.
pub const ALARM_PERIOD: Nanos = Nanos::from_secs(10);

/// After the first stream has slots: until then the clock is found, and nothing is blamed.
pub const SETTLE: Nanos = Nanos::from_secs(1);

/// What a certificate assumes and a host can watch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Assumption {
    /// A turn takes no longer than e_turn.
    Turn,
    /// The thread is awake for its slots (e_wake).
    Wake,
    /// The clock has the phase of the plant, without steps.
    Clock,
    /// What is below leaves in time: the rate, the bytes in flight, the foreign bytes.
    Link,
    /// A message is ready by its release.
    Release,
    /// No message is larger than planned.
    Size,
    /// What is handed over ahead is held back until its slot.
    Launch,
    /// Chunks of best effort are on their way within e_turn, too.
    Chunk,
    /// No more arrives in a lane than its contract says.
    Arrivals,
}

impl Assumption {
    /// All, in the order of reports.
    pub const ALL: [Assumption; 9] = [
        Assumption::Turn,
        Assumption::Wake,
        Assumption::Clock,
        Assumption::Link,
        Assumption::Release,
        Assumption::Size,
        Assumption::Launch,
        Assumption::Chunk,
        Assumption::Arrivals,
    ];

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Assumption::Turn => "e_turn",
            Assumption::Wake => "e_wake",
            Assumption::Clock => "clock",
            Assumption::Link => "link",
            Assumption::Release => "release",
            Assumption::Size => "size",
            Assumption::Launch => "launch",
            Assumption::Chunk => "e_chunk",
            Assumption::Arrivals => "arrivals",
        }
    }

    /// What was violated, in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Assumption::Turn => "turns took longer than is assumed (turn_us), or the thread was not run",
            Assumption::Wake => "the thread woke later than is assumed, or slept beyond slots",
            Assumption::Clock => "the clock of the slots stepped, or is not that of the plant",
            Assumption::Link => {
                "what was below had not left: the link is slower than rate_mbps, or others put more on it than foreign_bytes"
            }
            Assumption::Release => "a message came after its slot",
            Assumption::Size => "a message was larger than its slot, and was dropped",
            Assumption::Launch => {
                "the queue that held frames back until their slots is gone or another: they leave ahead, or not at all"
            }
            Assumption::Chunk => {
                "chunks between slots took longer than is assumed to be on their way (turn_us): they may reach into slots"
            }
            Assumption::Arrivals => {
                "more was to be sent in a lane than its contract says arrives: it was held to that, and has no bound"
            }
        }
    }

    /// The counters that tell of it; of what is measured, those of slots that were missed for it.
    const fn counters(self) -> &'static [TurnCounter] {
        match self {
            Assumption::Turn => &[TurnCounter::LateTurn, TurnCounter::LateUnturned],
            Assumption::Wake => &[TurnCounter::LateWake],
            Assumption::Clock => &[TurnCounter::ClockStep],
            Assumption::Link => &[TurnCounter::LateLinkBusy, TurnCounter::LateRingFull],
            Assumption::Release => &[TurnCounter::LateApplication],
            Assumption::Size => &[TurnCounter::SlotsOversize],
            Assumption::Arrivals => &[TurnCounter::LanesCut],
            Assumption::Launch | Assumption::Chunk => &[],
        }
    }
}

/// An alarm for the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Alarm {
    /// Which.
    pub assumption: Assumption,
    /// How often since the last alarm about it.
    pub violations: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    /// The counters, as they were at the last look.
    seen: u64,
    violations: u64,
    first: Option<MonoTime>,
    last: Option<MonoTime>,
    alarmed: Option<MonoTime>,
    untold: u64,
}

/// What a datapath measured of e_turn and e_wake, and what is assumed of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// e_turn.
    pub turn: (Counted, Option<Basis>),
    /// e_turn of chunks.
    pub chunk: (Counted, Option<Basis>),
    /// e_wake.
    pub wake: (Counted, Option<Basis>),
}

/// What is looked at, and not counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holds {
    /// The clock is the plant's, where that is assumed.
    pub phase: bool,
    /// The queue that holds frames back is as it was found, where frames are handed over ahead.
    pub queue: bool,
}

impl Holds {
    /// Everything.
    pub const ALL: Holds = Holds { phase: true, queue: true };
}

/// The monitors of one datapath.
#[derive(Clone, Debug)]
pub struct Monitors {
    turn: Estimate,
    chunk: Estimate,
    wake: Estimate,
    watched: [Watched; Assumption::ALL.len()],
    /// Since when streams have had slots.
    bound: Option<MonoTime>,
}

impl Monitors {
    /// Monitors that tell this quantile of what is measured.
    #[must_use]
    pub fn new(quantile_ppm: u32) -> Self {
        let estimate = Estimate::new(quantile_ppm);
        Monitors {
            turn: estimate.clone(),
            chunk: estimate.clone(),
            wake: estimate,
            watched: Default::default(),
            bound: None,
        }
    }

    /// A look. `is_bound`: streams have slots here; `count`: the counters of the datapath;
    /// `measured`: what it measured; `holds`: what is looked at and not counted.
    pub fn look(
        &mut self,
        now: MonoTime,
        is_bound: bool,
        count: impl Fn(TurnCounter) -> u64,
        measured: &Measured,
        holds: Holds,
    ) -> Vec<Alarm> {
        self.bound = if is_bound { self.bound.or(Some(now)) } else { None };
        let is_settled = self.bound.is_some_and(|since| now.since(since) >= SETTLE);
        let mut alarms = Vec::new();
        for (assumption, watched) in Assumption::ALL.into_iter().zip(&mut self.watched) {
            let counters = assumption.counters().iter();
            let seen = counters.fold(0_u64, |sum, counter| sum.wrapping_add(count(*counter)));
            let counted = seen.wrapping_sub(std::mem::replace(&mut watched.seen, seen));
            let mut new = match assumption {
                // Until it is settled nothing is assumed of anybody.
                Assumption::Turn => self.turn.look(measured.turn.0, seen, measured.turn.1.filter(|_| is_settled)),
                Assumption::Chunk => self.chunk.look(measured.chunk.0, 0, measured.chunk.1.filter(|_| is_settled)),
                Assumption::Wake => self.wake.look(measured.wake.0, seen, measured.wake.1.filter(|_| is_settled)),
                _ => counted,
            };
            if !is_settled {
                // What was counted before anybody had slots is nobody's.
                continue;
            }
            new += u64::from(assumption == Assumption::Clock && !holds.phase);
            new += u64::from(assumption == Assumption::Launch && !holds.queue);
            if new == 0 {
                continue;
            }
            watched.violations = watched.violations.saturating_add(new);
            watched.untold = watched.untold.saturating_add(new);
            watched.first.get_or_insert(now);
            watched.last = Some(now);
            if watched.alarmed.is_none_or(|at| now.since(at) >= ALARM_PERIOD) {
                watched.alarmed = Some(now);
                alarms.push(Alarm { assumption, violations: std::mem::take(&mut watched.untold) });
            }
        }
        alarms
    }

    /// Another schedule is in force: what was before counts no more against it.
    pub fn begin_anew(&mut self) {
        for watched in &mut self.watched {
            *watched = Watched { seen: watched.seen, ..Watched::default() };
        }
        [&mut self.turn, &mut self.chunk, &mut self.wake].into_iter().for_each(Estimate::begin_anew);
    }

    /// What is out of spec: how often, since when, when last.
    pub fn marks(&self) -> impl Iterator<Item = (Assumption, u64, MonoTime, MonoTime)> + '_ {
        let mark = |(assumption, watched): (Assumption, &Watched)| {
            Some((assumption, watched.violations, watched.first?, watched.last?))
        };
        Assumption::ALL.into_iter().zip(&self.watched).filter_map(mark)
    }

    /// What was out of spec in an earlier life of the runtime is so still.
    pub fn put_mark(&mut self, assumption: Assumption, violations: u64, (first, last): (MonoTime, MonoTime)) {
        for (_, watched) in Assumption::ALL.into_iter().zip(&mut self.watched).filter(|(one, _)| *one == assumption) {
            watched.violations = watched.violations.saturating_add(violations);
            watched.first = Some(watched.first.map_or(first, |known| known.min(first)));
            watched.last = Some(watched.last.map_or(last, |known| known.max(last)));
        }
    }

    /// For reports: every assumption, violated or not.
    #[must_use]
    pub fn report(&self, now: MonoTime) -> Vec<MonitorStatus> {
        let seconds = |at: Option<MonoTime>| at.map(|at| now.since(at).0 as f64 / 1e9);
        let row = |(assumption, watched): (Assumption, &Watched)| MonitorStatus {
            assumption: assumption.name().to_owned(),
            violations: watched.violations,
            out_of_spec_s: seconds(watched.first),
            last_s: seconds(watched.last),
            why: watched.first.map(|_| assumption.words().to_owned()),
            measured: match assumption {
                Assumption::Turn => Some(self.turn.report()),
                Assumption::Wake => Some(self.wake.report()),
                Assumption::Chunk => Some(self.chunk.report()),
                _ => None,
            },
        };
        Assumption::ALL.into_iter().zip(&self.watched).map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const SECOND: u64 = 1_000_000_000;

    /// Nothing was measured, and a stream of class `assured` rests on both.
    fn assured() -> Measured {
        let (quantile, max) = (Nanos(1_000), Nanos(1_000));
        let basis = Basis { is_assured: true, is_statistical: false, quantile, quantile_ppm: 999_000, max };
        let nothing = (Counted::default(), Some(basis));
        Measured { turn: nothing, chunk: nothing, wake: nothing }
    }

    fn monitors() -> Monitors {
        let mut monitors = Monitors::new(999_000);
        // The first stream has slots, and a second goes by.
        let look = |monitors: &mut Monitors, at| monitors.look(MonoTime(at), true, |_| 0, &assured(), Holds::ALL);
        assert_eq!((look(&mut monitors, 0), look(&mut monitors, SECOND)), (vec![], vec![]));
        monitors
    }

    #[derive(Default)]
    struct Counts(BTreeMap<usize, u64>);

    impl Counts {
        fn add(&mut self, counter: TurnCounter, by: u64) {
            *self.0.entry(counter as usize).or_default() += by;
        }

        fn look(&self, monitors: &mut Monitors, second: u64) -> Vec<Alarm> {
            let count = |counter| self.0.get(&(counter as usize)).copied().unwrap_or(0);
            monitors.look(MonoTime(second * SECOND), true, count, &assured(), Holds::ALL)
        }
    }

    #[test]
    fn every_assumption_has_counters_of_its_own_and_each_is_told() {
        for (at, assumption) in Assumption::ALL.into_iter().enumerate() {
            for counter in assumption.counters() {
                let (mut monitors, mut counts) = (monitors(), Counts::default());
                counts.add(*counter, 3);
                assert_eq!(counts.look(&mut monitors, 1), [Alarm { assumption, violations: 3 }]);
                let report = monitors.report(MonoTime(5 * SECOND));
                assert!(report.iter().enumerate().all(|(other, row)| (row.violations == 3) == (other == at)));
                assert_eq!((report[at].out_of_spec_s, report[at].last_s), (Some(4.0), Some(4.0)));
                assert_eq!(report[at].why.as_deref(), Some(assumption.words()));
            }
        }
    }

    #[test]
    fn alarms_are_few_and_lose_no_count_and_the_mark_stays() {
        let (mut monitors, mut counts) = (monitors(), Counts::default());
        let mut told = 0;
        for second in 1..=30 {
            counts.add(TurnCounter::SlotsOversize, 2);
            told += counts.look(&mut monitors, second).iter().map(|alarm| alarm.violations).sum::<u64>();
        }
        // At 1, 11 and 21: the first alone, then ten seconds' worth.
        assert_eq!(told, 2 + 20 + 20);
        assert_eq!(counts.look(&mut monitors, 100), [], "nothing new");
        let report = monitors.report(MonoTime(100 * SECOND));
        assert_eq!((report[5].violations, report[5].out_of_spec_s, report[5].last_s), (60, Some(99.0), Some(70.0)));
        monitors.begin_anew();
        assert_eq!(monitors.report(MonoTime(100 * SECOND))[5].out_of_spec_s, None);
        assert_eq!(counts.look(&mut monitors, 101), []);
    }

    #[test]
    fn marks_outlive_the_monitors_that_made_them() {
        let (mut before, mut counts) = (monitors(), Counts::default());
        counts.add(TurnCounter::SlotsOversize, 2);
        assert_eq!(counts.look(&mut before, 3).len(), 1);
        let mut after = monitors();
        for (assumption, violations, first, last) in before.marks() {
            after.put_mark(assumption, violations, (first, last));
        }
        assert_eq!(after.report(MonoTime(9 * SECOND))[5], before.report(MonoTime(9 * SECOND))[5]);
        assert_eq!(Counts::default().look(&mut after, 9), [], "an old mark is no new alarm");
        counts.look(&mut after, 10);
        let row = &after.report(MonoTime(10 * SECOND))[5];
        assert_eq!((row.violations, row.out_of_spec_s, row.last_s), (4, Some(7.0), Some(0.0)));
        after.begin_anew();
        assert_eq!(after.marks().count(), 0);
    }

    #[test]
    fn nobody_is_blamed_for_what_was_before_the_first_slot_or_without_the_plants_clock() {
        let mut monitors = Monitors::new(999_000);
        let look = |monitors: &mut Monitors, second: u64, bound, missed: u64, has_phase| {
            let count = |counter| if counter == TurnCounter::LateTurn { missed } else { 0 };
            monitors
                .look(MonoTime(second * SECOND), bound, count, &assured(), Holds { phase: has_phase, queue: true })
                .len()
        };
        assert_eq!(look(&mut monitors, 0, false, 5, false), 0);
        assert_eq!(look(&mut monitors, 1, true, 9, true), 0);
        assert_eq!(look(&mut monitors, 2, true, 9, false), 1, "the clock is not the plant's");
        assert_eq!(look(&mut monitors, 3, true, 10, true), 1);
    }

    #[test]
    fn a_queue_that_is_gone_is_told_as_long_as_it_is() {
        let mut monitors = monitors();
        let mut look = |second: u64, queue| {
            let holds = Holds { queue, ..Holds::ALL };
            monitors.look(MonoTime(second * SECOND), true, |_| 0, &assured(), holds)
        };
        assert_eq!(look(2, true), []);
        assert_eq!(look(3, false), [Alarm { assumption: Assumption::Launch, violations: 1 }]);
        (4..14).for_each(|second| drop(look(second, false)));
        let report = monitors.report(MonoTime(14 * SECOND));
        assert_eq!((report[6].assumption.as_str(), report[6].violations), ("launch", 11));
        assert!(report.iter().enumerate().all(|(at, row)| at == 6 || row.violations == 0));
    }

    #[test]
    fn what_is_measured_counts_by_class_and_is_told() {
        let sketch = insane_engine::Sketch::default();
        sketch.set_bounds(Nanos(1_000), Nanos(1_000));
        let mut monitors = monitors();
        (0..20).for_each(|_| sketch.note(Nanos(1_001)));
        let measured = Measured { turn: (sketch.counted(), assured().turn.1), ..assured() };
        let alarms = monitors.look(MonoTime(2 * SECOND), true, |_| 0, &measured, Holds::ALL);
        assert_eq!(alarms, [Alarm { assumption: Assumption::Turn, violations: 20 }]);
        let report = monitors.report(MonoTime(3 * SECOND));
        let told = report[0].measured.as_ref().expect("e_turn is measured");
        assert_eq!((told.samples, told.max_ns, told.assumed_max_ns), (20, 1_001, Some(1_000)));
        assert_eq!((told.quantile_ns, told.assumed_quantile_ns), (None, None), "20 samples carry no quantile");
        assert!(report[1].measured.is_some() && report[2..7].iter().all(|row| row.measured.is_none()));
    }

    #[test]
    fn chunks_are_held_to_e_turn_and_told_apart_from_slots() {
        let sketch = insane_engine::Sketch::default();
        sketch.set_bounds(Nanos(1_000), Nanos(1_000));
        let mut monitors = monitors();
        (0..3).for_each(|_| sketch.note(Nanos(1_001)));
        sketch.note(Nanos(1_000));
        let measured = Measured { chunk: (sketch.counted(), assured().turn.1), ..assured() };
        let alarms = monitors.look(MonoTime(2 * SECOND), true, |_| 0, &measured, Holds::ALL);
        assert_eq!(alarms, [Alarm { assumption: Assumption::Chunk, violations: 3 }]);
        let report = monitors.report(MonoTime(2 * SECOND));
        let told = report[7].measured.as_ref().expect("e_chunk is measured");
        assert_eq!((report[7].assumption.as_str(), told.samples, told.max_ns), ("e_chunk", 4, 1_001));
        assert_eq!(report[0].violations, 0, "no slot took longer");
    }
}
