//! A cyclic task: absolute deadlines, so that lateness never adds up, and a wake-up
//! whose lateness is measured.
//!
//! The task sleeps until `margin` before the deadline and then looks at the clock
//! until it has come: a larger margin buys punctuality with processor time.

use insane_core::{MonoTime, Nanos};

/// A clock that can be waited for: the kernel's, or a test's.
pub trait Timer {
    /// The current instant.
    fn now(&self) -> MonoTime;
    /// Returns no earlier than `until`.
    fn sleep_until(&self, until: MonoTime);
}

/// `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug)]
pub struct Kernel;

impl Timer for Kernel {
    fn now(&self) -> MonoTime {
        insane_sys::clock::mono_now()
    }

    fn sleep_until(&self, until: MonoTime) {
        insane_sys::clock::sleep_until(until);
    }
}

/// How one cycle started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// Number of the cycle: whole periods since the task's first deadline.
    pub cycle: u64,
    /// When it was due.
    pub due: MonoTime,
    /// When it started.
    pub woke: MonoTime,
    /// How late the wake-up was; `None` if the task had not gone to sleep in time.
    pub late: Option<Nanos>,
    /// Cycles passed over before this one, because their whole period was missed.
    pub skipped: u64,
}

/// A cyclic task's deadlines.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    first: MonoTime,
    next: MonoTime,
    period: Nanos,
    margin: Nanos,
}

impl Task {
    /// A task with its first deadline at `first`.
    ///
    /// # Panics
    /// If `period` is zero.
    #[must_use]
    pub fn new(first: MonoTime, period: Nanos, margin: Nanos) -> Self {
        assert!(period > Nanos::ZERO, "a cycle has a length");
        Task { first, next: first, period, margin }
    }

    /// Makes cycle number `cycle` the next, without waiting.
    pub fn skip_to(&mut self, cycle: u64) {
        self.next = self.first + Nanos(cycle * self.period.0);
    }

    /// The deadline that [`wait`](Self::wait) waits for.
    #[must_use]
    pub fn next(&self) -> MonoTime {
        self.next
    }

    /// Waits for the next deadline. If whole periods have been missed, their cycles
    /// are skipped: the latest one that is due starts.
    pub fn wait(&mut self, timer: &impl Timer) -> Start {
        let in_time = timer.now() <= self.next;
        if in_time {
            timer.sleep_until(self.next - self.margin);
            while timer.now() < self.next {
                std::hint::spin_loop();
            }
        }
        let woke = timer.now();
        let skipped = woke.since(self.next).0 / self.period.0;
        let due = self.next + Nanos(skipped * self.period.0);
        let start = Start {
            cycle: due.since(self.first).0 / self.period.0,
            due,
            woke,
            late: in_time.then(|| woke.since(self.next)),
            skipped,
        };
        self.next = due + self.period;
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Each look takes 100 ns; a sleep ends late by what the test says.
    struct Fake {
        now: Cell<u64>,
        late: Cell<u64>,
    }

    impl Timer for Fake {
        fn now(&self) -> MonoTime {
            self.now.set(self.now.get() + 100);
            MonoTime(self.now.get())
        }

        fn sleep_until(&self, until: MonoTime) {
            self.now.set(self.now.get().max(until.0) + self.late.get());
        }
    }

    const PERIOD: Nanos = Nanos::from_millis(1);

    fn fake() -> (Fake, Task) {
        let fake = Fake { now: Cell::new(0), late: Cell::new(0) };
        (fake, Task::new(MonoTime(10_000_000), PERIOD, Nanos::from_micros(50)))
    }

    #[test]
    fn a_late_wake_up_is_measured_and_does_not_shift_the_next() {
        let (timer, mut task) = fake();
        assert_eq!(task.wait(&timer).cycle, 0);
        timer.late.set(300_000);
        let late = task.wait(&timer);
        assert_eq!((late.cycle, late.due, late.skipped), (1, MonoTime(11_000_000), 0));
        assert!(late.late.unwrap() >= Nanos::from_micros(250), "{late:?}");
        timer.late.set(0);
        let next = task.wait(&timer);
        assert_eq!((next.cycle, next.due), (2, MonoTime(12_000_000)));
        assert!(next.late.unwrap() < Nanos::from_micros(1), "{next:?}");
    }

    #[test]
    fn the_margin_hides_a_wake_up_that_is_less_late() {
        let (timer, mut task) = fake();
        timer.late.set(40_000);
        assert!(task.wait(&timer).late.unwrap() < Nanos::from_micros(1));
    }

    #[test]
    fn a_wake_up_late_by_periods_skips_their_cycles() {
        let (timer, mut task) = fake();
        task.wait(&timer);
        timer.late.set(3_500_000);
        let start = task.wait(&timer);
        assert_eq!((start.cycle, start.skipped), (4, 3));
        assert!(start.late.unwrap() >= Nanos::from_millis(3));
        assert_eq!(task.next(), MonoTime(15_000_000));
    }

    #[test]
    fn a_task_that_came_back_too_late_was_not_woken_late() {
        let (timer, mut task) = fake();
        task.wait(&timer);
        timer.now.set(13_200_000);
        let start = task.wait(&timer);
        assert_eq!((start.cycle, start.skipped, start.late), (3, 2, None));
    }
}
