//! The remote I/O device: owns the plant, samples it every cycle, obeys commands.
//!
//! Pure: messages and instants come in as arguments; the thread around it is
//! [`crate::roles::device`]. The clamp opens once the loop has been fresh for a
//! while; from then on cycles count. A carriage that came down is put back and
//! released again once the loop is fresh again, so that a viewer sees more than
//! the first fall; the fall stays on the record.

use crate::cause::{FRESH_CYCLES, Stall};
use crate::plant::{ErrorMetrics, Plant};
use crate::process_data::{BYTES, Command, Sample};
use insane_core::{MonoTime, Nanos};
use insane_rt::Activation;
use serde::{Deserialize, Serialize};

/// Seed of the pushes: every run meets the same.
const SEED: u64 = 0x1ea5;
/// How long a carriage that came down is left there.
const DOWN: Nanos = Nanos::from_secs(1);

/// What the device does at present.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The clamp holds until the loop is fresh; nothing counts yet.
    #[default]
    Settling,
    /// The loop is on its own; best effort has not begun, and nothing counts yet.
    Leading,
    /// The loop is on its own, and counted.
    Running,
}

/// What is written down of one cycle.
#[derive(Clone, Copy, Debug)]
pub struct CycleRecord {
    /// How it started.
    pub start: Activation,
    /// How it came to start late.
    pub stall: Stall,
    /// Whether it counts.
    pub phase: Phase,
    /// Whether no fresh command was there.
    pub missed: bool,
    /// Air gap, metres.
    pub gap: f64,
    /// Set point, metres.
    pub set_point: f64,
    /// Whether the carriage is down.
    pub down: bool,
    /// How often it came down.
    pub falls: u32,
    /// The control error since the release.
    pub errors: ErrorMetrics,
}

/// What is written down of one command.
#[derive(Clone, Copy, Debug)]
pub struct CommandRecord {
    /// Cycle of the sample it answers.
    pub echo_cycle: u64,
    /// From sample to command; only for the first answer to a sample.
    pub round_trip: Option<Nanos>,
    /// How late the controller says it was.
    pub peer_late: Nanos,
    /// Cycles it passed over.
    pub peer_skipped: u64,
    /// Samples and commands that were lost since the command before.
    pub lost: u64,
}

/// The device's state.
#[derive(Debug)]
pub struct Device {
    plant: Plant,
    phase: Phase,
    /// Fresh cycles in a row that open the clamp, and so far.
    settle: u32,
    fresh: u32,
    release_from: MonoTime,
    count_from: MonoTime,
    newest: Option<Command>,
    down_since: Option<MonoTime>,
    falls: u32,
    damaged: u64,
}

impl Device {
    /// A device whose clamp opens after `settle` fresh cycles in a row, not before
    /// `release_from`, and whose cycles count from `count_from` on.
    #[must_use]
    pub fn new(settle: u32, release_from: MonoTime, count_from: MonoTime) -> Self {
        Device {
            plant: Plant::new(SEED),
            phase: Phase::Settling,
            settle,
            fresh: 0,
            release_from,
            count_from,
            newest: None,
            down_since: None,
            falls: 0,
            damaged: 0,
        }
    }

    /// Takes a message that arrived at `now`; `lost` others were lost just before it.
    /// An older command than the newest is written down and not obeyed.
    pub fn command(&mut self, now: MonoTime, bytes: &[u8], lost: u16) -> Option<CommandRecord> {
        let Some(command) = Command::decode(bytes) else {
            self.damaged += 1;
            return None;
        };
        let before = self.newest;
        let is_first_answer = before.is_none_or(|before| command.echo_cycle > before.echo_cycle);
        if before.is_none_or(|before| command.cycle > before.cycle) {
            self.newest = Some(command);
        }
        let samples_lost = before.map_or(0, |before| command.samples_lost.saturating_sub(before.samples_lost));
        Some(CommandRecord {
            echo_cycle: command.echo_cycle,
            round_trip: is_first_answer.then(|| now.since(command.echo_instant)),
            peer_late: command.late,
            peer_skipped: command.skipped,
            lost: samples_lost + u64::from(lost),
        })
    }

    /// Starts a cycle: lets the plant catch up with real time, puts the newest command
    /// on the coil, and samples.
    pub fn cycle(&mut self, start: Activation, stall: Stall) -> ([u8; BYTES], CycleRecord) {
        let missed = self.newest.is_none_or(|newest| newest.echo_cycle + FRESH_CYCLES < start.cycle);
        self.fresh = if missed { 0 } else { self.fresh.saturating_add(1) };
        self.plant.advance(start.woke);
        self.mind_the_clamp(start.woke);
        if let Some(newest) = self.newest.filter(|_| self.plant.released()) {
            self.plant.set_current(newest.current);
        }
        let (state, set_point) = (self.plant.state(), self.plant.set_point());
        let record = CycleRecord {
            start,
            stall,
            phase: self.phase,
            missed,
            gap: state.gap,
            set_point: set_point.gap,
            down: self.plant.down(),
            falls: self.falls,
            errors: self.plant.errors(),
        };
        let sample = Sample { cycle: start.cycle, instant: start.woke, state, set_point };
        (sample.encode(), record)
    }

    /// Opens the clamp, however fresh the loop is.
    pub fn release(&mut self, now: MonoTime) {
        self.plant.release(now);
        self.phase = Phase::Leading;
        self.count(now);
    }

    /// From here on cycles count, and so does the control error.
    fn count(&mut self, now: MonoTime) {
        if self.phase == Phase::Leading && now >= self.count_from {
            self.plant.forget_errors();
            self.falls = u32::from(self.plant.down());
            self.phase = Phase::Running;
        }
    }

    fn mind_the_clamp(&mut self, now: MonoTime) {
        let settled = self.fresh >= self.settle;
        if self.phase == Phase::Settling && settled && now >= self.release_from {
            self.release(now);
        }
        self.count(now);
        if !self.plant.down() {
            return;
        }
        let since = *self.down_since.get_or_insert_with(|| {
            self.falls += 1;
            now
        });
        if now.since(since) >= DOWN && settled {
            self.down_since = None;
            self.plant.release(now);
        }
    }

    /// Messages that were no commands.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Whether cycles count.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::Controller;
    use std::collections::VecDeque;

    const PERIOD: Nanos = Nanos::from_millis(1);

    /// Device and controller on one virtual clock, the controller half a cycle
    /// behind, messages `delay_us` under way; commands in `lost` never come.
    struct Loop {
        device: Device,
        controller: Controller,
        delay_us: u64,
        lost: std::ops::Range<u64>,
        records: Vec<CycleRecord>,
        commands: Vec<CommandRecord>,
        samples: VecDeque<(u64, [u8; BYTES])>,
        answers: VecDeque<(u64, [u8; BYTES], u16)>,
        lost_before: u16,
    }

    impl Loop {
        fn new(delay_us: u64, hold_back: usize) -> Self {
            Loop {
                device: Device::new(50, MonoTime(0), MonoTime(0)),
                controller: Controller::new(hold_back, PERIOD),
                delay_us,
                lost: 0..0,
                records: Vec::new(),
                commands: Vec::new(),
                samples: VecDeque::new(),
                answers: VecDeque::new(),
                lost_before: 0,
            }
        }

        fn run(&mut self, cycles: std::ops::Range<u64>) {
            for cycle in cycles {
                let due = MonoTime(cycle * PERIOD.0);
                let start = Activation { cycle, due, woke: due, late: Some(Nanos::ZERO), skipped: 0, stepped: false };
                self.deliver(due);
                let (sample, record) = self.device.cycle(start, Stall::None);
                self.records.push(record);
                self.samples.push_back((due.0 + self.delay_us * 1_000, sample));
                let half = due + Nanos::from_micros(500);
                while self.samples.front().is_some_and(|(at, _)| *at <= half.0) {
                    let (_, bytes) = self.samples.pop_front().unwrap();
                    self.controller.sample(&bytes, 0);
                }
                let start = Activation { due: half, woke: half, ..start };
                let Some(command) = self.controller.command(&start) else { continue };
                if self.lost.contains(&cycle) {
                    self.lost_before += 1;
                } else {
                    let lost = std::mem::take(&mut self.lost_before);
                    self.answers.push_back((half.0 + self.delay_us * 1_000, command, lost));
                }
            }
        }

        fn deliver(&mut self, now: MonoTime) {
            while self.answers.front().is_some_and(|(at, ..)| *at <= now.0) {
                let (at, bytes, lost) = self.answers.pop_front().unwrap();
                self.commands.extend(self.device.command(MonoTime(at), &bytes, lost));
            }
        }

        fn missed(&self) -> usize {
            self.records.iter().filter(|r| r.phase == Phase::Running && r.missed).count()
        }
    }

    #[test]
    fn a_loop_in_time_settles_holds_and_never_misses() {
        let mut plant = Loop::new(60, 0);
        plant.run(0..10_000);
        let last = plant.records.last().unwrap();
        assert_eq!((last.phase, last.falls, last.down), (Phase::Running, 0, false));
        assert_eq!(plant.missed(), 0);
        assert!(last.errors.rms().unwrap() < 0.2e-3, "{:?}", last.errors.rms());
        let round_trip = plant.commands.last().unwrap().round_trip.unwrap();
        assert_eq!(round_trip, Nanos::from_micros(560));
    }

    #[test]
    fn the_clamp_waits_for_its_instant_and_cycles_count_from_theirs() {
        let mut plant = Loop::new(60, 0);
        let at = |cycle: u64| MonoTime(cycle * PERIOD.0);
        plant.device = Device::new(50, at(300), at(800));
        plant.run(0..1_000);
        let first = |phase| plant.records.iter().position(|record| record.phase == phase);
        // A record says in which phase its cycle began.
        assert_eq!((first(Phase::Leading), first(Phase::Running)), (Some(300), Some(800)));
        assert!(plant.records[790].errors.rms().is_some(), "it hovered before");
        assert!(plant.records[801].errors.count() <= 20, "and that was forgotten");
    }

    #[test]
    fn a_loop_20_ms_late_brings_it_down_again_and_again() {
        let mut plant = Loop::new(60, 20);
        plant.device.release(MonoTime(0));
        plant.run(0..10_000);
        let last = plant.records.last().unwrap();
        // Never fresh again: it stays down after the first fall.
        assert_eq!((last.falls, last.down), (1, true));
        assert!(plant.missed() > 9_000);
    }

    #[test]
    fn lost_commands_are_misses_after_the_second() {
        let mut plant = Loop::new(60, 0);
        plant.run(0..1_000);
        plant.lost = 1_000..1_001;
        plant.run(1_000..1_100);
        assert_eq!(plant.missed(), 0, "one lost command is still fresh enough");
        plant.lost = 1_100..1_105;
        plant.run(1_100..1_200);
        assert_eq!(plant.missed(), 4);
        assert_eq!(plant.commands.iter().map(|c| c.lost).sum::<u64>(), 6);
        assert!(!plant.records.last().unwrap().down);
    }

    #[test]
    fn a_stop_of_100_ms_brings_it_down_and_it_is_put_back() {
        let mut plant = Loop::new(60, 0);
        plant.run(0..3_300);
        plant.lost = 3_300..3_400;
        plant.run(3_300..4_000);
        assert!(plant.records.last().unwrap().down);
        plant.run(4_000..6_000);
        let last = plant.records.last().unwrap();
        assert_eq!((last.falls, last.down), (1, false));
    }

    #[test]
    fn without_a_controller_the_clamp_stays_shut() {
        let mut device = Device::new(50, MonoTime(0), MonoTime(0));
        for cycle in 0..1_000 {
            let due = MonoTime(cycle * PERIOD.0);
            let (_, record) =
                device.cycle(Activation { cycle, due, woke: due, late: None, skipped: 0, stepped: false }, Stall::None);
            assert_eq!(record.phase, Phase::Settling);
            assert!(record.missed || cycle > 1_000);
        }
    }

    #[test]
    fn old_and_damaged_commands_are_not_obeyed() {
        let command = |cycle, echo_cycle| Command {
            echo_cycle,
            echo_instant: MonoTime(5),
            current: cycle as f64,
            cycle,
            late: Nanos::ZERO,
            skipped: 0,
            samples_lost: 0,
        };
        let mut device = Device::new(1, MonoTime(0), MonoTime(0));
        assert!(device.command(MonoTime(9), &command(3, 3).encode(), 0).unwrap().round_trip.is_some());
        assert!(device.command(MonoTime(9), &command(2, 2).encode(), 0).unwrap().round_trip.is_none());
        assert!(device.command(MonoTime(9), &command(4, 3).encode(), 0).unwrap().round_trip.is_none());
        assert!(device.command(MonoTime(9), b"nonsense", 0).is_none());
        assert_eq!((device.newest.unwrap().cycle, device.damaged()), (4, 1));
    }
}
