//! The plant: an iron carriage that hovers under an electromagnet.
//!
//! Pure: time is an argument. One degree of freedom, the air gap `z` (downwards
//! from the magnet), with mass `m`, coil current `i` and a push `P` from outside:
//!
//! ```text
//!   m z'' = m g - C (i / z)^2 + P          C = m g (GAP_M / CURRENT_A)^2
//!
//!   ======[ magnet ]======   z = 0
//!             |  z           (air)
//!          [ carriage ]      z = GAP_M where CURRENT_A just carries it
//! ```
//!
//! The nearer the carriage, the stronger the pull: the plant is unstable with the
//! pole `sqrt(2 g / z)`, 57 per second at the working gap, so an error left alone
//! grows by e every 17 ms. Pushes never cease. The state is advanced in fixed
//! steps of [`STEP`] up to the instant asked for, so a loop that is late in real
//! time is late for the carriage as well.

use insane_core::{MonoTime, Nanos};
use std::f64::consts::{PI, TAU};

/// Step of the integration.
pub const STEP: Nanos = Nanos::from_micros(100);
/// Working gap, metres.
pub const GAP_M: f64 = 0.006;
/// Below this gap the carriage has hit the magnet, metres.
pub const GAP_MIN_M: f64 = 0.001;
/// Above this gap the carriage has dropped, metres.
pub const GAP_MAX_M: f64 = 0.012;
/// Current that carries the carriage at the working gap, amperes.
pub const CURRENT_A: f64 = 1.5;
/// Largest current, amperes; a larger command is cut to it. The smallest is zero.
pub const CURRENT_MAX_A: f64 = 6.0;
/// Mass of the carriage, kilograms.
pub const MASS_KG: f64 = 0.1;
/// Acceleration of free fall, metres per second squared.
pub const GRAVITY: f64 = 9.81;

/// Longest stretch that one call integrates; a plant left alone for longer is down.
const ADVANCE_MAX: Nanos = Nanos::from_secs(2);
/// How far the set point swings to each side, metres.
const SWING_M: f64 = 0.001;
/// How often it swings, per second.
const SWING_HZ: f64 = 0.5;
/// Length of a push, seconds.
const PUSH_S: f64 = 0.005;
/// Mean pause between two pushes, seconds.
const PUSH_PAUSE_S: f64 = 0.04;
/// Largest force of a push, newtons: twice the carriage's weight.
const PUSH_N: f64 = 2.0;

/// Where the carriage is and how it moves.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct State {
    /// Air gap, metres.
    pub gap: f64,
    /// Its rate, metres per second; positive when falling.
    pub speed: f64,
}

/// Where the carriage should be, and how that moves.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SetPoint {
    /// Air gap, metres.
    pub gap: f64,
    /// First derivative, metres per second.
    pub speed: f64,
    /// Second derivative, metres per second squared.
    pub acceleration: f64,
}

impl SetPoint {
    /// The set point `t` seconds after the release: `sin^3`, which starts from rest.
    #[must_use]
    pub fn at(t: f64) -> Self {
        let w = TAU * SWING_HZ;
        let (sin, cos) = (w * t).sin_cos();
        SetPoint {
            gap: GAP_M + SWING_M * sin.powi(3),
            speed: SWING_M * w * 3.0 * sin * sin * cos,
            acceleration: SWING_M * w * w * (6.0 * sin * cos * cos - 3.0 * sin.powi(3)),
        }
    }
}

/// What the control error was.
#[derive(Clone, Copy, Debug, Default)]
pub struct ErrorMetrics {
    squares: f64,
    count: u64,
    max: f64,
}

impl ErrorMetrics {
    /// Takes one error, metres.
    pub fn add(&mut self, error: f64) {
        self.squares += error * error;
        self.count += 1;
        self.max = self.max.max(error.abs());
    }

    /// Root of the mean square, metres; `None` before the first.
    #[must_use]
    pub fn rms(&self) -> Option<f64> {
        (self.count > 0).then(|| (self.squares / self.count as f64).sqrt())
    }

    /// How many were taken.
    #[cfg(test)]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Largest, metres; zero before the first.
    #[must_use]
    pub fn max(&self) -> f64 {
        self.max
    }
}

/// The simulated plant.
#[derive(Clone, Debug)]
pub struct Plant {
    state: State,
    current: f64,
    released: Option<MonoTime>,
    steps: u64,
    down: bool,
    errors: ErrorMetrics,
    push: Push,
}

const AT_REST: State = State { gap: GAP_M, speed: 0.0 };

impl Plant {
    /// A carriage held at the working gap by its clamp. `seed` chooses the pushes.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Plant {
            state: AT_REST,
            current: CURRENT_A,
            released: None,
            steps: 0,
            down: false,
            errors: ErrorMetrics::default(),
            push: Push::new(seed),
        }
    }

    /// Opens the clamp at `now`, the carriage at rest at the working gap. What was
    /// measured of the control error before is kept.
    pub fn release(&mut self, now: MonoTime) {
        self.state = AT_REST;
        self.current = CURRENT_A;
        self.released = Some(now);
        self.steps = 0;
        self.down = false;
        self.push.pause_from(0.0);
    }

    /// Lets time pass up to `now` under the current set last. Does nothing while the
    /// clamp holds or once the carriage is down.
    pub fn advance(&mut self, now: MonoTime) {
        let Some(released) = self.released else { return };
        let since = now.since(released).0;
        if since.saturating_sub(self.steps * STEP.0) > ADVANCE_MAX.0 {
            self.down = true;
        }
        while !self.down && (self.steps + 1) * STEP.0 <= since {
            self.step();
        }
    }

    /// Sets the coil's current, amperes; cut to 0 to [`CURRENT_MAX_A`], and zero if
    /// it is no number.
    pub fn set_current(&mut self, current: f64) {
        self.current = if current.is_finite() { current.clamp(0.0, CURRENT_MAX_A) } else { 0.0 };
    }

    /// Where the carriage is.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The current set last, amperes.
    #[cfg(test)]
    fn current(&self) -> f64 {
        self.current
    }

    /// Where the carriage should be now.
    #[must_use]
    pub fn set_point(&self) -> SetPoint {
        SetPoint::at(self.seconds())
    }

    /// Gap minus set point, metres.
    #[must_use]
    pub fn error(&self) -> f64 {
        self.state.gap - self.set_point().gap
    }

    /// Whether the clamp is open.
    #[must_use]
    pub fn released(&self) -> bool {
        self.released.is_some()
    }

    /// Whether the carriage has dropped or hit the magnet.
    #[must_use]
    pub fn down(&self) -> bool {
        self.down
    }

    /// The control error of all steps in which the carriage hovered.
    #[must_use]
    pub fn errors(&self) -> ErrorMetrics {
        self.errors
    }

    /// Forgets what was measured of the control error.
    pub fn forget_errors(&mut self) {
        self.errors = ErrorMetrics::default();
    }

    fn seconds(&self) -> f64 {
        (self.steps * STEP.0) as f64 * 1e-9
    }

    /// One step: fourth-order Runge-Kutta under constant current and push.
    fn step(&mut self) {
        let push = self.push.force(self.seconds());
        let h = STEP.0 as f64 * 1e-9;
        let s = self.state;
        let k1 = rate(s, self.current, push);
        let k2 = rate(moved(s, k1, h / 2.0), self.current, push);
        let k3 = rate(moved(s, k2, h / 2.0), self.current, push);
        let k4 = rate(moved(s, k3, h), self.current, push);
        self.state = moved(moved(moved(moved(s, k1, h / 6.0), k2, h / 3.0), k3, h / 3.0), k4, h / 6.0);
        self.steps += 1;
        // A gap that is no number counts as down as well.
        self.down = !(self.state.gap > GAP_MIN_M && self.state.gap < GAP_MAX_M);
        if !self.down {
            self.errors.add(self.error());
        }
    }
}

/// Rates of change: of the gap, and of its speed.
fn rate(s: State, current: f64, push: f64) -> (f64, f64) {
    let pull = GRAVITY * (current * GAP_M / (CURRENT_A * s.gap)).powi(2);
    (s.speed, GRAVITY - pull + push / MASS_KG)
}

fn moved(s: State, (gap, speed): (f64, f64), h: f64) -> State {
    State { gap: s.gap + gap * h, speed: s.speed + speed * h }
}

/// Pushes against the carriage: half a sine wave each, up or down, at
/// pseudo-random instants.
#[derive(Clone, Debug)]
struct Push {
    random: u64,
    start: f64,
    peak: f64,
}

impl Push {
    fn new(seed: u64) -> Self {
        // The generator needs a state that is not zero.
        Push { random: seed | 1 << 63, start: 0.0, peak: 0.0 }
    }

    fn force(&mut self, t: f64) -> f64 {
        if t > self.start + PUSH_S {
            self.pause_from(t);
        }
        if t < self.start { 0.0 } else { self.peak * (PI * (t - self.start) / PUSH_S).sin() }
    }

    fn pause_from(&mut self, t: f64) {
        self.start = t + PUSH_PAUSE_S * (0.5 + self.uniform());
        let size = PUSH_N * (0.5 + 0.5 * self.uniform());
        self.peak = if self.uniform() < 0.5 { -size } else { size };
    }

    /// Between 0 and 1 (xorshift64, Marsaglia 2003).
    fn uniform(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::law;
    use std::collections::VecDeque;
    use std::ops::Range;

    const CYCLE: u64 = 1_000_000;

    /// Runs the loop for `cycles` of 1 ms; each current answers the sample of `delay`
    /// cycles before, and the controller stands still during `pause`.
    fn run(cycles: u64, delay: usize, pause: Range<u64>) -> Plant {
        let mut plant = Plant::new(7);
        plant.release(MonoTime(0));
        let mut answers = VecDeque::from(vec![CURRENT_A; delay]);
        for cycle in 0..cycles {
            plant.advance(MonoTime(cycle * CYCLE));
            if pause.contains(&cycle) {
                continue;
            }
            answers.push_back(law::current(&plant.state(), &plant.set_point()));
            if let Some(current) = answers.pop_front() {
                plant.set_current(current);
            }
        }
        plant
    }

    #[test]
    fn fresh_samples_every_millisecond_keep_it_up() {
        let plant = run(60_000, 1, 0..0);
        assert!(!plant.down());
        let (rms, max) = (plant.errors().rms().unwrap(), plant.errors().max());
        assert!(rms < 0.15e-3 && max < 0.5e-3, "rms {rms} max {max}");
    }

    #[test]
    fn the_error_grows_visibly_when_samples_are_some_milliseconds_old() {
        let rms = |delay| run(20_000, delay, 0..0).errors().rms().unwrap();
        let fresh = rms(1);
        assert!(rms(3) > 1.2 * fresh, "{} against {fresh}", rms(3));
        assert!(rms(4) > 1.5 * fresh, "{} against {fresh}", rms(4));
        assert!(rms(5) > 2.5 * fresh, "{} against {fresh}", rms(5));
    }

    #[test]
    fn it_comes_down_when_the_loop_is_12_ms_late() {
        assert!(run(2_000, 12, 0..0).down() && run(2_000, 20, 0..0).down());
    }

    #[test]
    fn it_comes_down_when_the_loop_stops_for_100_ms() {
        // Held current and chance pushes may happen to balance: a few starts in a hundred.
        let stood = (1_000..6_000).step_by(97).filter(|&start| !run(7_000, 1, start..start + 100).down());
        assert!(stood.count() <= 2);
    }

    #[test]
    fn it_survives_a_stop_of_5_ms() {
        for start in (1_000..6_000).step_by(97) {
            assert!(!run(7_000, 1, start..start + 5).down(), "stopped at {start}");
        }
    }

    #[test]
    fn the_clamp_holds_until_it_is_opened() {
        let mut plant = Plant::new(1);
        plant.set_current(6.0);
        plant.advance(MonoTime(1_000_000_000));
        assert_eq!(plant.state(), AT_REST);
        assert!(plant.errors().rms().is_none());
    }

    #[test]
    fn without_control_it_comes_down_and_stays_there() {
        let mut plant = Plant::new(1);
        plant.release(MonoTime(0));
        plant.advance(MonoTime(1_900_000_000));
        assert!(plant.down());
        let lying = plant.state();
        plant.advance(MonoTime(2_500_000_000));
        assert_eq!(plant.state(), lying);
    }

    #[test]
    fn a_plant_left_alone_for_too_long_is_down_without_being_integrated() {
        let mut plant = Plant::new(1);
        plant.release(MonoTime(0));
        plant.advance(MonoTime(u64::MAX));
        assert!(plant.down());
        assert_eq!(plant.state(), AT_REST);
    }

    #[test]
    fn the_coil_is_bounded_and_refuses_nonsense() {
        let mut plant = Plant::new(1);
        for (command, kept) in [(1e9, CURRENT_MAX_A), (-1.0, 0.0), (f64::NAN, 0.0), (2.0, 2.0)] {
            plant.set_current(command);
            assert_eq!(plant.current(), kept);
        }
    }

    #[test]
    fn the_derivatives_of_the_set_point_are_its_derivatives() {
        let h = 1e-6;
        for t in [0.0, 0.3, 0.77, 1.4] {
            let (a, b) = (SetPoint::at(t), SetPoint::at(t + h));
            assert!(((b.gap - a.gap) / h - a.speed).abs() < 1e-5);
            assert!(((b.speed - a.speed) / h - a.acceleration).abs() < 1e-4);
        }
    }

    #[test]
    fn the_pole_is_where_the_text_says() {
        // A small error under the carrying current grows by cosh(p t).
        let mut s = State { gap: GAP_M + 1e-8, speed: 0.0 };
        for _ in 0..100_000 {
            s = moved(s, rate(s, CURRENT_A, 0.0), 1e-6);
        }
        let growth = (s.gap - GAP_M) / 1e-8;
        let expected = (0.1 * (2.0 * GRAVITY / GAP_M).sqrt()).cosh();
        assert!((growth / expected - 1.0).abs() < 0.05, "{growth} {expected}");
    }
}
