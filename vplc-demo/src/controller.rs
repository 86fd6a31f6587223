//! The controller: answers the newest sample, once a cycle.
//!
//! Pure: messages and instants come in as arguments; the program around it is
//! [`crate::roles::controller`].

use crate::law;
use crate::process_data::{BYTES, Command, Sample};
use insane_core::Nanos;
use insane_rt::Activation;
use std::collections::VecDeque;

/// The controller's state.
#[derive(Debug)]
pub struct Controller {
    newest: Option<Sample>,
    /// Samples not looked at before their time; only with `hold_back`.
    held: VecDeque<Sample>,
    hold_back: usize,
    period: Nanos,
    samples: u64,
    samples_lost: u64,
    damaged: u64,
}

impl Controller {
    /// A controller that uses samples `hold_back` cycles old: 0 is what a controller
    /// is for; more shows what lateness does to the plant.
    #[must_use]
    pub fn new(hold_back: usize, period: Nanos) -> Self {
        let held = VecDeque::with_capacity(hold_back + 2);
        Controller { newest: None, held, hold_back, period, samples: 0, samples_lost: 0, damaged: 0 }
    }

    /// Takes a message from the device; `lost` others were lost just before it.
    pub fn sample(&mut self, bytes: &[u8], lost: u64) {
        self.samples_lost += lost;
        let Some(sample) = Sample::decode(bytes) else {
            self.damaged += 1;
            return;
        };
        self.samples += 1;
        self.newest = Some(sample);
    }

    /// Computes this cycle's command; `None` before the first sample.
    pub fn command(&mut self, start: &Activation) -> Option<[u8; BYTES]> {
        let sample = self.held_back(self.newest?);
        let late = start.late.unwrap_or(start.woke.since(start.due));
        let command = Command {
            echo_cycle: sample.cycle,
            echo_instant: sample.instant,
            current: law::current(&sample.state, &sample.set_point),
            cycle: start.cycle,
            late: Nanos(late.0 + self.hold_back as u64 * self.period.0),
            skipped: start.skipped,
            samples_lost: self.samples_lost,
        };
        Some(command.encode())
    }

    fn held_back(&mut self, newest: Sample) -> Sample {
        if self.hold_back == 0 {
            return newest;
        }
        self.held.push_back(newest);
        if self.held.len() > self.hold_back + 1 {
            self.held.pop_front();
        }
        self.held.front().copied().unwrap_or(newest)
    }

    /// Whether the clamp is open, by the newest sample: until then the set point
    /// stands still.
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.newest.is_some_and(|sample| sample.set_point.speed != 0.0)
    }

    /// Samples taken.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Samples that were sent and did not come.
    #[must_use]
    pub fn samples_lost(&self) -> u64 {
        self.samples_lost
    }

    /// Messages that were no samples.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.damaged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plant::{Plant, SetPoint};
    use insane_core::MonoTime;

    const PERIOD: Nanos = Nanos::from_millis(1);

    fn sample(cycle: u64) -> [u8; BYTES] {
        let state = Plant::new(1).state();
        Sample { cycle, instant: MonoTime(cycle * 1_000), state, set_point: SetPoint::at(0.0) }.encode()
    }

    fn start(cycle: u64) -> Activation {
        let due = MonoTime(cycle * PERIOD.0);
        Activation { cycle, due, woke: due + Nanos(700), late: Some(Nanos(700)), skipped: 2, stepped: false }
    }

    #[test]
    fn it_answers_the_newest_sample_and_says_how_late_it_was() {
        let mut controller = Controller::new(0, PERIOD);
        assert_eq!(controller.command(&start(0)), None);
        controller.sample(&sample(4), 0);
        controller.sample(&sample(6), 1);
        let command = Command::decode(&controller.command(&start(9)).unwrap()).unwrap();
        assert_eq!((command.echo_cycle, command.echo_instant), (6, MonoTime(6_000)));
        assert_eq!((command.cycle, command.late, command.skipped), (9, Nanos(700), 2));
        assert_eq!((command.samples_lost, controller.samples()), (1, 2));
        assert!(!controller.is_released());
    }

    #[test]
    fn what_is_no_sample_is_counted_and_not_obeyed() {
        let mut controller = Controller::new(0, PERIOD);
        controller.sample(&[0; 64], 0);
        controller.sample(&[], 0);
        assert_eq!((controller.damaged(), controller.samples()), (2, 0));
        assert_eq!(controller.command(&start(0)), None);
    }

    #[test]
    fn held_back_samples_are_answered_later_and_it_says_so() {
        let mut controller = Controller::new(3, PERIOD);
        let mut echo = 0;
        for cycle in 0..10 {
            controller.sample(&sample(cycle), 0);
            let command = Command::decode(&controller.command(&start(cycle)).unwrap()).unwrap();
            echo = command.echo_cycle;
            assert_eq!(command.late, Nanos(3_000_700));
        }
        assert_eq!(echo, 6);
    }
}
