//! The running task: waits, starts and ends cycles, and counts.

use super::cadence::{Activation, Cadence, Next};
use super::margin::{Margin, Spin};
use super::place::{Misplaced, Place};
use super::statistics::CyclicStatistics;
use super::timer::{Base, Kernel, Timer};
use super::watch::{CyclicWatch, Progress};
use crate::callback::CallbackSink;
use crate::counters::Line;
use insane_core::counters::PortCounter;
use insane_core::{MonoTime, Nanos};
use insane_shm::counters::CounterBlock;
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Why a task is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It missed a cycle, and was to end then.
    Overrun,
    /// Its clock has no instant left.
    ClockExhausted,
}

/// What a wait that may be cut short came to.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waited {
    /// A cycle starts.
    Activation(Activation),
    /// The sleep was cut short; the next cycle is still to come.
    CutShort,
    /// The task is over ([`CyclicTask::ended`]).
    Over,
}

/// A cyclic task; belongs to the thread that started it.
pub struct CyclicTask {
    inner: Task<Kernel>,
    place: Place,
    /// Keeps the callback for late cycles.
    _told: Option<CallbackSink>,
    /// Keeps the line that it counts in.
    _line: Option<Line>,
    /// Place and priority are those of this thread.
    _of_this_thread: PhantomData<*const ()>,
}

impl CyclicTask {
    pub(super) fn new(inner: Task<Kernel>, place: Place, told: Option<CallbackSink>, line: Option<Line>) -> Self {
        CyclicTask { inner, place, _told: told, _line: line, _of_this_thread: PhantomData }
    }

    /// Ends the cycle that runs and waits for the next; `None`: the task is over
    /// ([`ended`](Self::ended)).
    pub fn wait(&mut self) -> Option<Activation> {
        self.inner.wait()
    }

    /// As [`wait`](Self::wait), for a thread that has other work beside: `sleep` returns true
    /// no earlier than the instant it is given, or false before, if it was woken. It is
    /// called once at most.
    pub fn wait_by(&mut self, sleep: impl FnOnce(MonoTime) -> bool) -> Waited {
        self.inner.wait_by(|_, until| sleep(until))
    }

    /// Ends the cycle that runs, for deadline and execution time; what the thread does
    /// until [`wait`](Self::wait) is no part of it.
    pub fn done(&mut self) {
        self.inner.done();
    }

    /// Runs `cycle` at each activation until it breaks or the task is over.
    pub fn run(&mut self, mut cycle: impl FnMut(&Activation) -> ControlFlow<()>) -> Option<Ended> {
        while let Some(activation) = self.wait() {
            let flow = cycle(&activation);
            self.done();
            if flow.is_break() {
                break;
            }
        }
        self.ended()
    }

    /// Why the task is over; `None`: it is not.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        self.inner.ended
    }

    /// The instant of the next activation, if the task comes in time for it.
    #[must_use]
    pub fn due(&self) -> Option<MonoTime> {
        self.inner.cadence.due()
    }

    /// How long before its instant the task stops sleeping.
    #[must_use]
    pub fn margin(&self) -> Nanos {
        self.inner.margin.get()
    }

    /// What of core and priority was refused.
    #[must_use]
    pub fn misplaced(&self) -> &[Misplaced] {
        &self.place.misplaced
    }

    /// Whether the daemon gave what this process could not take. The thread cannot raise its
    /// priority further by itself then.
    #[must_use]
    pub fn is_placed_by_runtime(&self) -> bool {
        self.place.is_by_runtime
    }

    /// What happened so far.
    #[must_use]
    pub fn statistics(&self) -> &CyclicStatistics {
        &self.inner.statistics
    }

    /// Shows other threads what the task is doing.
    #[must_use]
    pub fn watch(&self) -> CyclicWatch {
        CyclicWatch { progress: Arc::clone(&self.inner.progress) }
    }
}

impl std::fmt::Debug for CyclicTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CyclicTask(due {:?}, {} cycles)", self.due(), self.inner.statistics.cycles)
    }
}

/// A task on any clocks.
pub(super) struct Task<T> {
    timer: T,
    base: Base,
    cadence: Cadence,
    margin: Margin,
    statistics: CyclicStatistics,
    progress: Arc<Progress>,
    /// What the session's reports show of it.
    counters: CounterBlock,
    running: Option<Activation>,
    ended: Option<Ended>,
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.progress.end();
    }
}

impl<T: Timer> Task<T> {
    /// Takes its place on the grid. Allocates; nothing later does.
    pub fn new(
        timer: T,
        base: Base,
        mut cadence: Cadence,
        spin: Spin,
        period: Nanos,
        (progress, counters): (Arc<Progress>, CounterBlock),
    ) -> Self {
        cadence.begin(timer.look(base));
        let (margin, statistics) = (Margin::new(spin, period), CyclicStatistics::default());
        Task { timer, base, cadence, margin, statistics, progress, counters, running: None, ended: None }
    }

    fn done(&mut self) {
        let Some(activation) = self.running.take() else { return };
        let now = self.timer.now();
        self.statistics.ended(&activation, now);
        self.statistics.deadline_misses += u64::from(self.progress.done(activation.cycle, activation.due, now));
        self.progress.count(&self.statistics);
    }

    fn wait(&mut self) -> Option<Activation> {
        let sleep = |timer: &T, until| {
            timer.sleep_until(until);
            true
        };
        match self.wait_by(sleep) {
            Waited::Activation(activation) => Some(activation),
            Waited::CutShort | Waited::Over => None,
        }
    }

    fn wait_by(&mut self, sleep: impl FnOnce(&T, MonoTime) -> bool) -> Waited {
        self.done();
        let planned = self.cadence.due();
        let look = self.timer.look(self.base);
        let next = self.cadence.ahead(look);
        if planned.is_some_and(|planned| look.mono > planned) {
            self.statistics.overruns += 1;
            self.counters.add(PortCounter::Overruns as usize, 1);
        }
        let slept = match next {
            Next::Wait(due) if self.sleep(due, sleep) => true,
            Next::Wait(_) => return Waited::CutShort,
            Next::Late => false,
            Next::Stop => return self.end(Ended::Overrun),
            Next::Exhausted => return self.end(Ended::ClockExhausted),
        };
        let Some(activation) = self.cadence.arrive(self.timer.now(), slept) else { return self.end(Ended::Overrun) };
        self.statistics.started(&activation);
        self.progress.count(&self.statistics);
        self.progress.started(activation.cycle, activation.due, activation.woke);
        self.running = Some(activation);
        Waited::Activation(activation)
    }

    /// Sleeps to the margin before `due`, and looks at the clock for the rest. The margin
    /// bounds the looks: it is at most half a period. False: the sleep was cut short.
    fn sleep(&mut self, due: MonoTime, sleep: impl FnOnce(&T, MonoTime) -> bool) -> bool {
        let until = due - self.margin.get();
        // What is nearer than the margin needs no sleep, and teaches nothing about sleeps.
        let sleeps = self.timer.now() < until;
        if !sleep(&self.timer, until) {
            return false;
        }
        let mut now = self.timer.now();
        if sleeps {
            self.margin.learn(now.since(until));
        }
        while now < due {
            std::hint::spin_loop();
            now = self.timer.now();
        }
        true
    }

    fn end(&mut self, why: Ended) -> Waited {
        self.ended.get_or_insert(why);
        self.progress.end();
        Waited::Over
    }
}

#[cfg(test)]
mod tests {
    use super::super::cadence::{Look, Overrun};
    use super::super::watch::Doing;
    use super::*;
    use insane_core::TaiTime;
    use std::cell::Cell;
    use std::rc::Rc;

    /// Each look takes 100 ns; a sleep ends late by what the test says.
    #[derive(Default)]
    struct Fake {
        now: Cell<u64>,
        lead: Cell<u64>,
        late: Cell<u64>,
    }

    impl Timer for Rc<Fake> {
        fn now(&self) -> MonoTime {
            self.now.set(self.now.get() + 100);
            MonoTime(self.now.get())
        }

        fn look(&self, base: Base) -> Look {
            let mono = self.now();
            let lead = if matches!(base, Base::Tai(_)) { self.lead.get() } else { 0 };
            Look { mono, base_ns: mono.0 + lead, blur: Nanos(100) }
        }

        fn sleep_until(&self, until: MonoTime) {
            self.now.set(self.now.get().max(until.0) + self.late.get());
        }
    }

    fn task(period: Nanos, base: Base, overrun: Overrun, spin: Spin) -> (Rc<Fake>, Task<Rc<Fake>>) {
        let fake = Rc::new(Fake::default());
        fake.now.set(5_000_000_000);
        fake.lead.set(1_000_000_000_000_000_000);
        let cadence = Cadence::new(base.ns(), period, Nanos::ZERO, overrun).unwrap();
        let progress = Arc::new(Progress::new(Nanos(period.0 / 2), true));
        (Rc::clone(&fake), Task::new(fake, base, cadence, spin, period, (progress, CounterBlock::private())))
    }

    const MS: Nanos = Nanos::from_millis(1);
    const MONO: Base = Base::Mono(MonoTime(0));

    #[test]
    fn long_and_short_periods_keep_their_phase_for_a_day() {
        for period in [Nanos(62_500), MS, Nanos::from_secs(1)] {
            let (_, mut task) = task(period, Base::Tai(TaiTime(77)), Overrun::Skip, Spin::Never);
            let first = task.wait().unwrap();
            for cycle in 1..86_400 {
                let next = task.wait().unwrap();
                assert_eq!((next.cycle, next.due), (first.cycle + cycle, first.due + Nanos(cycle * period.0)));
            }
            assert_eq!((task.statistics.skipped, task.statistics.overruns), (0, 0));
        }
    }

    #[test]
    fn clock_steps_of_hours_and_of_37_s_are_counted_and_cost_no_cycle() {
        let (fake, mut task) = task(MS, Base::Tai(TaiTime(0)), Overrun::Stop, Spin::Never);
        let mut before = task.wait().unwrap();
        for step in [37_000_000_000, 7_200_000_000_000, 3_600_123_456_789_u64] {
            fake.lead.set(fake.lead.get() + step);
            let after = task.wait().unwrap();
            assert!(after.stepped && after.due.since(before.due) < Nanos(2 * MS.0), "{after:?}");
            assert!((after.due.0 + fake.lead.get()).is_multiple_of(MS.0), "on the grid");
            before = after;
        }
        assert_eq!((task.statistics.clock_steps, task.statistics.skipped), (3, 0));
    }

    #[test]
    fn a_margin_hides_wake_ups_that_are_less_late_and_is_learnt() {
        let (fake, mut fixed) = task(MS, MONO, Overrun::Skip, Spin::Fixed(Nanos::from_micros(50)));
        fake.late.set(40_000);
        assert!(fixed.wait().unwrap().late.unwrap() < Nanos::from_micros(1));
        let (fake, mut learnt) = task(MS, MONO, Overrun::Skip, Spin::Learnt(Nanos::from_micros(200)));
        fake.late.set(30_000);
        for _ in 0..20_000 {
            learnt.wait().unwrap();
        }
        let margin = learnt.margin.get();
        assert!((28_000..33_000).contains(&margin.0), "{margin}");
    }

    #[test]
    fn a_sleep_that_is_cut_short_moves_nothing() {
        let (fake, mut task) = task(MS, MONO, Overrun::RunLate, Spin::Never);
        let first = task.wait().unwrap();
        let due = first.due + MS;
        for _ in 0..3 {
            let cut = task.wait_by(|timer, until| {
                timer.now.set(until.0 - 100_000);
                until != due
            });
            assert_eq!((cut, task.cadence.due()), (Waited::CutShort, Some(due)));
        }
        assert_eq!((task.statistics.cycles, task.statistics.overruns), (1, 0));
        let Waited::Activation(second) = task.wait_by(|timer, until| {
            timer.sleep_until(until);
            true
        }) else {
            panic!()
        };
        assert_eq!((second.cycle, second.due, second.skipped), (first.cycle + 1, due, 0));
        // Other work took the thread beyond the instant: the cycle is late, and does not sleep.
        fake.now.set(due.0 + 1_200_000);
        let Waited::Activation(third) = task.wait_by(|_, _| panic!("it is late")) else { panic!() };
        assert_eq!((third.cycle, third.late), (second.cycle + 1, None));
        assert_eq!(task.statistics.overruns, 1);
    }

    #[test]
    fn overruns_and_missed_deadlines_are_counted_and_named() {
        let (fake, mut task) = task(MS, MONO, Overrun::Skip, Spin::Never);
        let first = task.wait().unwrap();
        fake.now.set(fake.now.get() + 700_000);
        let second = task.wait().unwrap();
        assert_eq!(second.cycle, first.cycle + 1, "late for its deadline, in time for the next");
        fake.now.set(fake.now.get() + 2_500_000);
        let third = task.wait().unwrap();
        assert_eq!((third.cycle, third.skipped), (second.cycle + 3, 2));
        let statistics = &task.statistics;
        assert_eq!((statistics.cycles, statistics.skipped), (3, 2));
        assert_eq!((statistics.overruns, statistics.deadline_misses), (1, 2));
        assert_eq!(task.counters.get(PortCounter::Overruns as usize), 1, "as the session's reports have it");
        assert_eq!(statistics.execution_worst.cycle, second.cycle);
        assert_eq!(statistics.execution.count(), 2);
    }

    #[test]
    fn a_task_that_is_to_stop_says_why() {
        let (fake, mut stopped) = task(MS, MONO, Overrun::Stop, Spin::Never);
        stopped.wait().unwrap();
        fake.now.set(fake.now.get() + 3_000_000);
        assert_eq!((stopped.wait(), stopped.wait()), (None, None));
        assert_eq!(stopped.ended, Some(Ended::Overrun));
        let (fake, mut at_end) = task(MS, MONO, Overrun::Skip, Spin::Never);
        fake.now.set(u64::MAX - 1_000);
        assert_eq!(at_end.wait(), None);
        assert_eq!(at_end.ended, Some(Ended::ClockExhausted));
    }

    #[test]
    fn who_watches_sees_a_cycle_that_does_not_end() {
        let (fake, mut task) = task(MS, MONO, Overrun::Skip, Spin::Never);
        let progress = Arc::clone(&task.progress);
        assert_eq!(progress.doing(MonoTime(fake.now.get())), Doing::Waiting);
        let activation = task.wait().unwrap();
        let Doing::Running { cycle, since } = progress.doing(activation.woke) else { panic!() };
        assert_eq!((cycle, since), (activation.cycle, activation.woke));
        let Doing::Overdue(miss) = progress.doing(activation.due + MS) else { panic!() };
        assert_eq!((miss.cycle, miss.ended), (activation.cycle, None));
        task.done();
        assert_eq!(progress.doing(activation.due + MS), Doing::Waiting);
        drop(task);
        assert_eq!(progress.doing(activation.due + MS), Doing::Ended);
    }
}
