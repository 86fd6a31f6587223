//! Counts what the device's cyclic thread writes down. Runs on another thread: the
//! cyclic one only pushes records into a bounded queue.

use crate::cause::{Evidence, Misses, Stall};
use crate::device::{CommandRecord, CycleRecord, Phase};
use crate::percentiles::Times;
use crate::plant::ErrorMetrics;
use crate::report::DeviceReport;
use insane_core::{MonoTime, Nanos};

/// The control error's largest value is kept for stretches of this length.
const TRACE: Nanos = Nanos::from_millis(50);

/// Every so many cycles the carriage's place is kept.
const PATH_CYCLES: u64 = 5;

/// What the cyclic thread writes down.
#[derive(Clone, Copy, Debug)]
pub enum Record {
    /// A cycle started.
    Cycle(CycleRecord),
    /// A command came.
    Command(CommandRecord),
}

/// The running count.
#[derive(Debug)]
pub struct Ledger {
    report: DeviceReport,
    misses: Misses,
    fresh: Nanos,
    round_trip: Times,
    wake: Times,
    errors: ErrorMetrics,
    trace_since: Option<MonoTime>,
    trace_max: f64,
}

impl Ledger {
    /// Nothing counted; lateness explains a miss from `threshold` on, and an answer from
    /// `fresh` on.
    #[must_use]
    pub fn new(threshold: Nanos, fresh: Nanos) -> Self {
        Ledger {
            report: DeviceReport::default(),
            misses: Misses::new(threshold),
            fresh,
            round_trip: Times::new(),
            wake: Times::new(),
            errors: ErrorMetrics::default(),
            trace_since: None,
            trace_max: 0.0,
        }
    }

    /// Counts one record.
    pub fn add(&mut self, record: Record) {
        match record {
            Record::Cycle(cycle) => self.cycle(&cycle),
            Record::Command(command) => self.command(&command),
        }
    }

    fn cycle(&mut self, cycle: &CycleRecord) {
        let report = &mut self.report;
        let counts = report.phase == Phase::Running;
        report.phase = cycle.phase;
        report.down = cycle.down;
        report.falls = cycle.falls;
        report.gap = cycle.gap;
        report.set_point = cycle.set_point;
        self.errors = cycle.errors;
        let own = Evidence {
            late: cycle.start.late.unwrap_or(Nanos::ZERO),
            overrun: cycle.stall == Stall::Overrun,
            preempted: cycle.stall == Stall::Preempted,
            ..Evidence::default()
        };
        // The cycle in which the clamp opens is the last that does not count.
        self.misses.cycle(cycle.start.cycle, own, counts && cycle.missed);
        if counts {
            report.cycles += 1 + cycle.start.skipped;
            self.misses.skipped(cycle.start.skipped, own);
            if let Some(late) = cycle.start.late {
                self.wake.add(late);
            }
            self.trace(cycle);
            if cycle.start.cycle.is_multiple_of(PATH_CYCLES) {
                self.report.path.push(((!cycle.down).then_some(cycle.gap), cycle.set_point));
            }
        }
    }

    fn trace(&mut self, cycle: &CycleRecord) {
        let since = *self.trace_since.get_or_insert(cycle.start.due);
        self.trace_max = self.trace_max.max((cycle.gap - cycle.set_point).abs());
        if cycle.start.due.since(since) >= TRACE {
            self.report.error_trace.push(self.trace_max);
            self.trace_since = Some(cycle.start.due);
            self.trace_max = 0.0;
        }
    }

    fn command(&mut self, command: &CommandRecord) {
        self.report.commands += 1;
        let counts = self.report.phase == Phase::Running;
        if counts {
            self.report.lost += command.lost;
            if let Some(round_trip) = command.round_trip {
                self.round_trip.add(round_trip);
            }
        }
        let peer = Evidence {
            peer_late: command.peer_late,
            peer_skipped: command.peer_skipped,
            lost: command.lost,
            slow: command.round_trip.is_some_and(|time| time > self.fresh),
            ..Evidence::default()
        };
        self.misses.command(command.echo_cycle, peer);
    }

    /// The count so far. What it holds of the error's trace and the path is then forgotten.
    pub fn report(&mut self) -> DeviceReport {
        let causes = self.misses.causes();
        let report = DeviceReport {
            causes,
            misses: causes.total(),
            round_trip: self.round_trip.quantiles(),
            wake: self.wake.quantiles(),
            error_rms: self.errors.rms(),
            error_max: self.errors.max(),
            ..self.report.clone()
        };
        self.report.error_trace.clear();
        self.report.path.clear();
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::Cause;
    use insane_rt::Activation;

    fn cycle(cycle: u64, phase: Phase, missed: bool) -> CycleRecord {
        let due = MonoTime(cycle * 1_000_000);
        CycleRecord {
            start: Activation { cycle, due, woke: due, late: Some(Nanos(500)), skipped: 0, stepped: false },
            stall: Stall::None,
            phase,
            missed,
            gap: 0.0061,
            set_point: 0.006,
            down: false,
            falls: 0,
            errors: ErrorMetrics::default(),
        }
    }

    #[test]
    fn only_the_running_phase_counts() {
        let mut ledger = Ledger::new(Nanos::from_micros(200), Nanos::from_millis(2));
        for number in 0..10 {
            ledger.add(Record::Cycle(cycle(number, Phase::Settling, true)));
        }
        for number in 10..111 {
            ledger.add(Record::Cycle(cycle(number, Phase::Running, number == 50)));
        }
        let report = ledger.report();
        assert_eq!((report.cycles, report.misses), (100, 1));
        assert_eq!(report.wake.count, 100);
        assert_eq!(report.error_trace.len(), 1);
        assert!((report.error_trace[0] - 1e-4).abs() < 1e-9);
        assert_eq!(report.path.len(), 20);
        let next = ledger.report();
        assert!(next.error_trace.is_empty() && next.path.is_empty());
    }

    #[test]
    fn cycles_passed_over_are_cycles_and_misses() {
        let mut ledger = Ledger::new(Nanos::from_micros(200), Nanos::from_millis(2));
        ledger.add(Record::Cycle(cycle(0, Phase::Running, false)));
        let mut late = cycle(5, Phase::Running, false);
        late.start.skipped = 4;
        late.start.late = None;
        late.stall = Stall::Preempted;
        ledger.add(Record::Cycle(late));
        let report = ledger.report();
        assert_eq!((report.cycles, report.misses), (5, 4));
        assert_eq!(report.causes.of(Cause::Preempted), 4);
        assert_eq!(report.wake.count, 0, "it was not asleep: no wake-up was measured");
    }

    #[test]
    fn round_trips_and_losses_are_counted_while_running() {
        let mut ledger = Ledger::new(Nanos::from_micros(200), Nanos::from_millis(2));
        let command = CommandRecord {
            echo_cycle: 1,
            round_trip: Some(Nanos(700)),
            peer_late: Nanos::ZERO,
            peer_skipped: 0,
            lost: 2,
        };
        ledger.add(Record::Command(command));
        ledger.add(Record::Cycle(cycle(0, Phase::Running, false)));
        ledger.add(Record::Command(command));
        ledger.add(Record::Command(CommandRecord { round_trip: None, ..command }));
        let report = ledger.report();
        assert_eq!((report.commands, report.lost, report.round_trip.count), (3, 4, 1));
    }

    #[test]
    fn an_answer_that_came_late_with_nobody_late_was_late_on_its_way() {
        let mut ledger = Ledger::new(Nanos::from_micros(200), Nanos::from_millis(2));
        ledger.add(Record::Cycle(cycle(9, Phase::Running, false)));
        ledger.add(Record::Cycle(cycle(10, Phase::Running, true)));
        ledger.add(Record::Cycle(cycle(11, Phase::Running, true)));
        assert_eq!(ledger.report().causes.of(Cause::Unexplained), 2);
        let answer = |echo_cycle, millis| CommandRecord {
            echo_cycle,
            round_trip: Some(Nanos::from_millis(millis)),
            peer_late: Nanos::ZERO,
            peer_skipped: 0,
            lost: 0,
        };
        ledger.add(Record::Command(answer(10, 3)));
        ledger.add(Record::Command(answer(11, 1)));
        assert_eq!(ledger.report().causes.of(Cause::MessageLate), 2);
    }
}
