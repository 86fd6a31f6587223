//! When a cyclic task is next due. Pure: clocks are arguments, nothing waits here.
//!
//! A task's instants are a grid on its base clock: `base % period + offset + n * period`.
//! Only the phase of the base counts, so it may lie in any past or future, and all tasks
//! with one base and period give one cycle one number, on every host.
//!
//! The thread sleeps on the monotonic clock, which no one steps. `lead` is by how much the
//! base clock is ahead of it. When the lead changes, the base clock was corrected:
//! - less than the look at both clocks is blurred: nothing changes;
//! - the phase moves by at most an eighth of a period: the next instant moves with it;
//! - more: the task locks anew to the first instant of the grid that is no earlier than
//!   the one that was planned, so two activations are one to two periods apart.
//!
//! Whole periods never move the phase, whatever the step: the number jumps, the beat stays.

use insane_core::{MonoTime, Nanos};

/// Shortest period: below it a timer and a wake-up take longer than the cycle.
pub const PERIOD_MIN: Nanos = Nanos::from_micros(10);
/// Longest period.
pub const PERIOD_MAX: Nanos = Nanos::from_secs(3_600);
/// A phase that moves by at most the period over this is trimmed.
const TRIM_SHARE: i128 = 8;

/// What becomes of an activation whose instant passed before the task came back for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Overrun {
    /// It is left out; the task waits for the next instant to come.
    #[default]
    Skip,
    /// The latest activation that is due runs at once, late; those before it are left out.
    RunLate,
    /// The task ends.
    Stop,
}

/// Both clocks, read as one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look {
    /// The monotonic clock.
    pub mono: MonoTime,
    /// The base clock, nanoseconds.
    pub base_ns: u64,
    /// How far apart the two readings may be.
    pub blur: Nanos,
}

/// What a task does now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Wait for this instant.
    Wait(MonoTime),
    /// Run: its instant has passed.
    Late,
    /// End: its instant has passed.
    Stop,
    /// End: the base clock has no instant left.
    Exhausted,
}

/// How one cycle started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Activation {
    /// Number of the cycle: whole periods of the base clock since the first of its grid.
    pub cycle: u64,
    /// When it was due.
    pub due: MonoTime,
    /// When it started.
    pub woke: MonoTime,
    /// How late the wake-up was; `None` if the task did not sleep for it.
    pub late: Option<Nanos>,
    /// Cycles left out before this one.
    pub skipped: u64,
    /// The base clock was stepped since the activation before: the number may have jumped.
    pub stepped: bool,
}

/// A task's grid, and where on it the task is.
#[derive(Clone, Copy, Debug)]
pub struct Cadence {
    period_ns: u64,
    start_ns: u64,
    overrun: Overrun,
    lead_ns: i128,
    /// The cycle that comes; its instant exists.
    cycle: Option<u64>,
    skipped: u64,
    stepped: bool,
}

/// Where in a grid no task can be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadGrid {
    /// The period is out of range.
    #[error("a period of {0} is not between {PERIOD_MIN} and {PERIOD_MAX}")]
    Period(Nanos),
    /// The offset is no part of the period.
    #[error("an offset of {offset} is not inside a period of {period}")]
    Offset {
        /// What was asked for.
        offset: Nanos,
        /// The period.
        period: Nanos,
    },
}

impl Cadence {
    /// A task that has not begun.
    pub fn new(base_ns: u64, period: Nanos, offset: Nanos, overrun: Overrun) -> Result<Self, BadGrid> {
        if !(PERIOD_MIN..=PERIOD_MAX).contains(&period) {
            return Err(BadGrid::Period(period));
        }
        if offset >= period {
            return Err(BadGrid::Offset { offset, period });
        }
        // Both parts are below the longest period: the sum cannot overflow.
        let start_ns = base_ns % period.0 + offset.0;
        Ok(Cadence { period_ns: period.0, start_ns, overrun, lead_ns: 0, cycle: None, skipped: 0, stepped: false })
    }

    /// Takes its place on the grid: the first instant after `look` is the next.
    pub fn begin(&mut self, look: Look) {
        self.lead_ns = lead(look);
        self.cycle = self.first_from(i128::from(look.base_ns) + 1);
        self.skipped = 0;
        self.stepped = false;
    }

    /// The instant that comes next.
    pub fn due(&self) -> Option<MonoTime> {
        self.mono(self.instant(self.cycle?)?)
    }

    /// What to do now.
    pub fn ahead(&mut self, look: Look) -> Next {
        self.follow(look);
        let (Some(due), Some(cycle)) = (self.due(), self.cycle) else { return Next::Exhausted };
        if look.mono <= due {
            return Next::Wait(due);
        }
        match self.overrun {
            Overrun::RunLate => Next::Late,
            Overrun::Stop => Next::Stop,
            Overrun::Skip => {
                let now = i128::from(look.mono.0) + self.lead_ns;
                self.cycle = self.first_from(now + 1);
                self.skipped += self.cycle.unwrap_or(cycle) - cycle;
                self.due().map_or(Next::Exhausted, Next::Wait)
            }
        }
    }

    /// The activation that starts at `woke`, which is no earlier than its instant; the next
    /// one comes after it. If whole periods have passed, the latest that is due starts.
    /// `None`: the clock is exhausted, or the task is to end when it misses a cycle.
    pub fn arrive(&mut self, woke: MonoTime, slept: bool) -> Option<Activation> {
        let (planned, cycle) = (self.due()?, self.cycle?);
        let passed = woke.since(planned).0 / self.period_ns;
        if passed > 0 && self.overrun == Overrun::Stop {
            return None;
        }
        self.cycle = cycle.checked_add(passed);
        let activation = Activation {
            cycle: self.cycle?,
            due: self.due()?,
            woke,
            late: slept.then(|| woke.since(planned)),
            skipped: std::mem::take(&mut self.skipped) + passed,
            stepped: std::mem::take(&mut self.stepped),
        };
        self.cycle = activation.cycle.checked_add(1).filter(|next| self.instant(*next).is_some());
        Some(activation)
    }

    /// Follows the base clock where it was corrected.
    fn follow(&mut self, look: Look) {
        let (Some(planned), Some(cycle)) = (self.due(), self.cycle) else { return };
        let lead_ns = lead(look);
        let shift = lead_ns - self.lead_ns;
        if shift.unsigned_abs() <= u128::from(look.blur.0) {
            return;
        }
        self.lead_ns = lead_ns;
        let period = i128::from(self.period_ns);
        let rest = shift.rem_euclid(period);
        let phase = if rest > period / 2 { rest - period } else { rest };
        let jump = (shift - phase) / period;
        let trimmed = u64::try_from(i128::from(cycle) + jump).ok().filter(|_| phase.abs() <= period / TRIM_SHARE);
        self.stepped |= jump != 0 || trimmed.is_none();
        self.cycle = match trimmed {
            Some(cycle) => Some(cycle).filter(|cycle| self.instant(*cycle).is_some()),
            None => self.first_from(i128::from(planned.0) + lead_ns),
        };
    }

    /// The first cycle whose instant is no earlier than that of the base clock.
    fn first_from(&self, base: i128) -> Option<u64> {
        let after = base - i128::from(self.start_ns);
        let period = i128::from(self.period_ns);
        let cycle = u64::try_from((after.max(0) + period - 1) / period).ok()?;
        self.instant(cycle).map(|_| cycle)
    }

    fn instant(&self, cycle: u64) -> Option<u64> {
        cycle.checked_mul(self.period_ns)?.checked_add(self.start_ns)
    }

    /// An instant of the base clock on the monotonic one; one before its zero is its zero.
    fn mono(&self, base_ns: u64) -> Option<MonoTime> {
        u64::try_from((i128::from(base_ns) - self.lead_ns).max(0)).ok().map(MonoTime)
    }
}

fn lead(look: Look) -> i128 {
    i128::from(look.base_ns) - i128::from(look.mono.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Nanos = Nanos::from_millis(1);

    fn look(mono: u64, lead: i128) -> Look {
        Look { mono: MonoTime(mono), base_ns: u64::try_from(i128::from(mono) + lead).unwrap(), blur: Nanos(200) }
    }

    /// A task of 1 ms that has run its cycle due at 11 ms, on a base clock ahead by `lead`.
    fn running(lead: i128, overrun: Overrun) -> Cadence {
        let mut cadence = Cadence::new(0, MS, Nanos::ZERO, overrun).unwrap();
        cadence.begin(look(10_500_000, lead));
        let due = cadence.due().unwrap();
        assert_eq!(cadence.ahead(look(10_600_000, lead)), Next::Wait(due));
        cadence.arrive(due + Nanos(700), true).unwrap();
        cadence
    }

    #[test]
    fn what_is_no_grid_is_refused_by_name() {
        let new = |period, offset| Cadence::new(7, period, offset, Overrun::Skip).unwrap_err();
        assert_eq!(new(Nanos::ZERO, Nanos::ZERO), BadGrid::Period(Nanos::ZERO));
        assert_eq!(new(Nanos(u64::MAX), Nanos::ZERO), BadGrid::Period(Nanos(u64::MAX)));
        assert_eq!(new(MS, MS), BadGrid::Offset { offset: MS, period: MS });
        for period in [Nanos(62_500), Nanos::from_secs(1)] {
            assert!(Cadence::new(u64::MAX, period, Nanos(period.0 - 1), Overrun::Skip).is_ok());
        }
    }

    #[test]
    fn a_task_that_is_in_time_wakes_at_every_instant() {
        let mut cadence = running(0, Overrun::Skip);
        for cycle in 12..1_000 {
            let Next::Wait(due) = cadence.ahead(look(cycle * MS.0 - 300_000, 0)) else { panic!() };
            assert_eq!(due, MonoTime(cycle * MS.0));
            let activation = cadence.arrive(due + Nanos(50_000), true).unwrap();
            assert_eq!((activation.cycle, activation.skipped), (cycle, 0));
            assert_eq!(activation.late, Some(Nanos(50_000)), "lateness does not add up");
        }
    }

    #[test]
    fn an_overrun_follows_its_policy() {
        // Cycle 12 is due, the task comes back in the middle of cycle 14.
        let late = look(14_400_000, 0);
        let mut skip = running(0, Overrun::Skip);
        assert_eq!(skip.ahead(late), Next::Wait(MonoTime(15_000_000)));
        let activation = skip.arrive(MonoTime(15_000_100), true).unwrap();
        assert_eq!((activation.cycle, activation.skipped, activation.late), (15, 3, Some(Nanos(100))));

        let mut once = running(0, Overrun::RunLate);
        assert_eq!(once.ahead(late), Next::Late);
        let activation = once.arrive(late.mono, false).unwrap();
        assert_eq!((activation.cycle, activation.skipped, activation.late), (14, 2, None));
        assert_eq!(once.ahead(look(14_600_000, 0)), Next::Wait(MonoTime(15_000_000)), "once, and then in time");

        assert_eq!(running(0, Overrun::Stop).ahead(late), Next::Stop);
    }

    #[test]
    fn a_wake_up_late_by_periods_leaves_their_cycles_out() {
        for overrun in [Overrun::Skip, Overrun::RunLate] {
            let mut cadence = running(0, overrun);
            let activation = cadence.arrive(MonoTime(15_500_000), true).unwrap();
            assert_eq!((activation.cycle, activation.skipped, activation.due), (15, 3, MonoTime(15_000_000)));
            assert_eq!(activation.late, Some(Nanos(3_500_000)), "measured from what it slept for");
        }
        assert_eq!(running(0, Overrun::Stop).arrive(MonoTime(15_500_000), true), None);
    }

    #[test]
    fn a_step_of_whole_periods_keeps_the_beat() {
        for step in [37_000_000_000, -37_000_000_000, 3 * 3_600_000_000_000_i128] {
            let mut cadence = running(1_000_000_000_000, Overrun::Skip);
            assert_eq!(cadence.ahead(look(11_500_000, 1_000_000_000_000 + step)), Next::Wait(MonoTime(12_000_000)));
            let activation = cadence.arrive(MonoTime(12_000_000), true).unwrap();
            assert!(activation.stepped);
            assert_eq!(i128::from(activation.cycle), 1_000_012 + step / 1_000_000);
            assert_eq!(activation.skipped, 0, "a number that jumps is no cycle left out");
            let Next::Wait(_) = cadence.ahead(look(12_500_000, 1_000_000_000_000 + step)) else { panic!() };
            assert!(!cadence.arrive(MonoTime(13_000_000), true).unwrap().stepped, "told once");
        }
    }

    #[test]
    fn a_small_shift_of_phase_is_followed_and_a_large_one_locks_anew() {
        let lead = 5_000_000_000;
        let mut blurred = running(lead, Overrun::Skip);
        assert_eq!(blurred.ahead(look(11_500_000, lead + 150)), Next::Wait(MonoTime(12_000_000)));
        let mut trimmed = running(lead, Overrun::Skip);
        assert_eq!(trimmed.ahead(look(11_500_000, lead + 30_000)), Next::Wait(MonoTime(11_970_000)));
        assert!(!trimmed.arrive(MonoTime(11_970_000), true).unwrap().stepped);
        let mut anew = running(lead, Overrun::Skip);
        assert_eq!(anew.ahead(look(11_500_000, lead + 400_000)), Next::Wait(MonoTime(12_600_000)));
        assert!(anew.arrive(MonoTime(12_600_000), true).unwrap().stepped);
    }

    #[test]
    fn a_clock_set_back_to_its_beginning_is_waited_for_no_longer_than_two_periods() {
        let mut cadence = running(1_700_000_000_000_000_000, Overrun::Skip);
        let Next::Wait(due) = cadence.ahead(look(11_500_000, -11_400_000)) else { panic!() };
        assert!(due >= MonoTime(12_000_000) && due <= MonoTime(14_000_000), "{due:?}");
    }

    #[test]
    fn a_clock_near_its_end_ends_the_task() {
        let mut cadence = Cadence::new(0, MS, Nanos::ZERO, Overrun::Skip).unwrap();
        let near = |left: u64| Look { mono: MonoTime(u64::MAX - left), base_ns: u64::MAX - left, blur: Nanos(200) };
        cadence.begin(near(2_500_000));
        let mut activations = 0;
        while let Next::Wait(due) = cadence.ahead(near(2_400_000)) {
            cadence.arrive(due, true).unwrap();
            activations += 1;
            assert!(activations <= 3);
        }
        assert!(activations >= 1);
        assert_eq!(cadence.ahead(near(100)), Next::Exhausted);
        assert_eq!(cadence.arrive(MonoTime(u64::MAX), true), None);
    }

    proptest! {
        /// Whatever the base, the instants are those that counting from it gives.
        #[test]
        fn instants_are_a_grid_through_the_base(
            base in any::<u64>(), period in 10_000_u64..1_000_000_000, share in 0_u64..1_000, now in 0..u64::MAX / 2,
        ) {
            let offset = period * share / 1_000;
            let mut cadence = Cadence::new(base, Nanos(period), Nanos(offset), Overrun::Skip).unwrap();
            cadence.begin(look(now, 0));
            let due = cadence.due().unwrap().0;
            let distance = i128::from(due) - i128::from(base) - i128::from(offset);
            prop_assert_eq!(distance.rem_euclid(i128::from(period)), 0);
            prop_assert!(due > now && (due - now <= period || due < 2 * period), "the first one, {} {}", due, now);
        }

        /// Under any clock, delays and policy nothing panics, instants go forward by at
        /// least 7/8 of a period, and without steps every cycle ran or is told as left out.
        #[test]
        fn no_clock_makes_it_panic_or_go_back(
            period in 10_000_u64..1_000_000_000,
            late in any::<bool>(),
            moves in proptest::collection::vec((0_u64..5_000_000_000, -10_i128.pow(15)..10_i128.pow(15), 0_u8..4), 1..100),
        ) {
            let overrun = if late { Overrun::RunLate } else { Overrun::Skip };
            let mut cadence = Cadence::new(9, Nanos(period), Nanos(3), overrun).unwrap();
            let (mut now, mut lead) = (1_000_000_000_u64, 10_i128.pow(18));
            cadence.begin(look(now, lead));
            let mut before: Option<Activation> = None;
            for (busy, step, kind) in moves {
                lead += if kind == 0 { step } else { 0 };
                now += busy % (if kind == 1 { 5 * period } else { period / 2 });
                let slept = match cadence.ahead(look(now, lead)) {
                    Next::Wait(due) => { now = due.0 + busy % 1_000; true }
                    Next::Late => false,
                    other => panic!("{other:?}"),
                };
                let activation = cadence.arrive(MonoTime(now), slept).unwrap();
                if let Some(before) = before {
                    let gap = activation.due.since(before.due).0;
                    prop_assert!(gap >= period - period / 8 - 1, "{} of {}", gap, period);
                    if !activation.stepped {
                        prop_assert_eq!(activation.cycle, before.cycle + 1 + activation.skipped);
                    }
                }
                before = Some(activation);
            }
        }
    }
}
