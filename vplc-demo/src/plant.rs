//! The plant: a needle balanced on the cart of a linear motor.
//!
//! Pure: time is an argument. The equations of motion (Lagrange, uniform needle of
//! mass `m` and length `L`, half length `l`, on a cart of mass `M` with viscous
//! friction `b`; `theta` from upright, positive to the right):
//!
//! ```text
//!   (M + m) x'' + b x' + m l (theta'' cos theta - theta'^2 sin theta) = F + P
//!   (4/3) m l^2 theta'' + m l x'' cos theta - m g l sin theta         = P L cos theta
//! ```
//!
//! `F` is the motor's force (bounded), `P` a push against the tip (the disturbance).
//! The needle's unstable pole is `sqrt(3 g / 2 L)`, 24 per second: an error left
//! alone grows by e every 41 ms. The state is advanced in fixed steps of
//! [`STEP`], up to the instant asked for, so a loop that is late in real time is
//! late for the plant as well.

use insane_core::{MonoTime, Nanos};
use std::f64::consts::{PI, TAU};

/// Step of the integration.
pub const STEP: Nanos = Nanos::from_micros(100);
/// Largest force of the motor, newtons; a larger command is cut to it.
pub const FORCE_MAX_N: f64 = 30.0;
/// The motor's rail ends this far from its middle, metres.
pub const RAIL_M: f64 = 0.15;
/// The needle counts as fallen beyond this angle from upright, radians.
pub const FALL_RAD: f64 = 0.5;
/// Length of the needle, metres.
pub const NEEDLE_M: f64 = 0.025;
/// Mass of the cart, kilograms.
pub const CART_KG: f64 = 0.2;
/// Mass of the needle, kilograms.
pub const NEEDLE_KG: f64 = 0.02;
/// Viscous friction of the cart, newton seconds per metre.
pub const FRICTION: f64 = 0.5;
/// Acceleration of free fall, metres per second squared.
pub const GRAVITY: f64 = 9.81;

/// Longest stretch that one call integrates; a plant left alone for longer has fallen.
const ADVANCE_MAX: Nanos = Nanos::from_secs(2);
/// How far the reference swings to each side, metres.
const SWING_M: f64 = 0.06;
/// How often it swings, per second.
const SWING_HZ: f64 = 0.25;
/// Length of a push, seconds.
const PUSH_S: f64 = 0.004;
/// Mean time between two pushes, seconds.
const PUSH_GAP_S: f64 = 0.04;
/// Largest force of a push against the tip, newtons.
const PUSH_N: f64 = 0.05;

/// Where things are and how they move.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct State {
    /// Cart from the middle of the rail, metres.
    pub x: f64,
    /// Speed of the cart, metres per second.
    pub v: f64,
    /// Needle from upright, radians; positive to the right.
    pub theta: f64,
    /// Speed of the needle, radians per second.
    pub omega: f64,
}

impl State {
    /// Position of the needle's centre of percussion (two thirds up), metres: the
    /// point that the controller is to keep on the reference.
    #[must_use]
    pub fn working_point(&self) -> f64 {
        self.x + 2.0 / 3.0 * NEEDLE_M * self.theta.sin()
    }
}

/// Where the working point should be, and how that moves.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Reference {
    /// Position (metres) and its first four derivatives (per second each).
    pub derivatives: [f64; 5],
}

impl Reference {
    /// The reference `t` seconds after the release: `SWING_M sin^5(2 pi SWING_HZ t)`,
    /// whose first four derivatives start from zero, as the needle does.
    #[must_use]
    pub fn at(t: f64) -> Self {
        let mut derivatives = [0.0; 5];
        // sin^5 a = (10 sin a - 5 sin 3a + sin 5a) / 16
        for (harmonic, share) in [(1.0, 10.0 / 16.0), (3.0, -5.0 / 16.0), (5.0, 1.0 / 16.0)] {
            let w = harmonic * TAU * SWING_HZ;
            let mut gain = SWING_M * share;
            for (order, value) in derivatives.iter_mut().enumerate() {
                *value += gain * (w * t + order as f64 * PI / 2.0).sin();
                gain *= w;
            }
        }
        Reference { derivatives }
    }

    /// Position, metres.
    #[must_use]
    pub fn position(&self) -> f64 {
        self.derivatives[0]
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

    /// Largest, metres.
    #[must_use]
    pub fn max(&self) -> f64 {
        self.max
    }
}

/// The simulated plant.
#[derive(Clone, Debug)]
pub struct Plant {
    state: State,
    force: f64,
    released: Option<MonoTime>,
    steps: u64,
    fallen: bool,
    errors: ErrorMetrics,
    push: Push,
}

impl Plant {
    /// A plant held upright by its clamp. `seed` chooses the pushes.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Plant {
            state: State::default(),
            force: 0.0,
            released: None,
            steps: 0,
            fallen: false,
            errors: ErrorMetrics::default(),
            push: Push::new(seed),
        }
    }

    /// Opens the clamp at `now`; the needle stands upright at rest. What was
    /// measured of the control error before is kept.
    pub fn release(&mut self, now: MonoTime) {
        self.state = State::default();
        self.force = 0.0;
        self.released = Some(now);
        self.steps = 0;
        self.fallen = false;
    }

    /// Lets time pass up to `now` under the force set last. Does nothing while the
    /// clamp holds or once the needle has fallen.
    pub fn advance(&mut self, now: MonoTime) {
        let Some(released) = self.released else { return };
        let since = now.since(released).0;
        if since.saturating_sub(self.steps * STEP.0) > ADVANCE_MAX.0 {
            self.fallen = true;
        }
        while !self.fallen && (self.steps + 1) * STEP.0 <= since {
            self.step();
        }
    }

    /// Sets the motor's force, newtons; cut to [`FORCE_MAX_N`], and zero if it is no number.
    pub fn set_force(&mut self, force: f64) {
        self.force = if force.is_finite() { force.clamp(-FORCE_MAX_N, FORCE_MAX_N) } else { 0.0 };
    }

    /// Where things are.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The force set last, newtons.
    #[must_use]
    pub fn force(&self) -> f64 {
        self.force
    }

    /// Where the working point should be now.
    #[must_use]
    pub fn reference(&self) -> Reference {
        if self.released.is_some() { Reference::at(self.seconds()) } else { Reference::default() }
    }

    /// Working point minus reference, metres.
    #[must_use]
    pub fn error(&self) -> f64 {
        self.state.working_point() - self.reference().position()
    }

    /// Whether the needle has fallen, or the cart has met the end of its rail.
    #[must_use]
    pub fn fallen(&self) -> bool {
        self.fallen
    }

    /// The control error so far, over all steps in which the needle stood.
    #[must_use]
    pub fn errors(&self) -> ErrorMetrics {
        self.errors
    }

    fn seconds(&self) -> f64 {
        (self.steps * STEP.0) as f64 * 1e-9
    }

    /// One step: fourth-order Runge-Kutta under constant force and push.
    fn step(&mut self) {
        let push = self.push.force(self.seconds());
        let h = STEP.0 as f64 * 1e-9;
        let s = self.state;
        let k1 = derivative(s, self.force, push);
        let k2 = derivative(s.plus(k1, h / 2.0), self.force, push);
        let k3 = derivative(s.plus(k2, h / 2.0), self.force, push);
        let k4 = derivative(s.plus(k3, h), self.force, push);
        self.state = s.plus(k1, h / 6.0).plus(k2, h / 3.0).plus(k3, h / 3.0).plus(k4, h / 6.0);
        self.steps += 1;
        self.fallen = self.state.theta.abs() > FALL_RAD || self.state.x.abs() > RAIL_M;
        self.errors.add(self.error());
    }
}

impl State {
    fn plus(self, rate: State, h: f64) -> State {
        State {
            x: self.x + rate.x * h,
            v: self.v + rate.v * h,
            theta: self.theta + rate.theta * h,
            omega: self.omega + rate.omega * h,
        }
    }
}

/// The rates of change: the module's two equations solved for the accelerations.
fn derivative(s: State, force: f64, push: f64) -> State {
    let l = NEEDLE_M / 2.0;
    let (sin, cos) = s.theta.sin_cos();
    let a11 = CART_KG + NEEDLE_KG;
    let a12 = NEEDLE_KG * l * cos;
    let a22 = 4.0 / 3.0 * NEEDLE_KG * l * l;
    let b1 = force + push - FRICTION * s.v + NEEDLE_KG * l * s.omega * s.omega * sin;
    let b2 = NEEDLE_KG * GRAVITY * l * sin + push * NEEDLE_M * cos;
    let det = a11 * a22 - a12 * a12;
    State { x: s.v, v: (b1 * a22 - a12 * b2) / det, theta: s.omega, omega: (a11 * b2 - a12 * b1) / det }
}

/// Pushes against the tip: half a sine wave each, at pseudo-random instants.
#[derive(Clone, Debug)]
struct Push {
    random: u64,
    start: f64,
    peak: f64,
}

impl Push {
    fn new(seed: u64) -> Self {
        let mut push = Push { random: seed | 1, start: 0.0, peak: 0.0 };
        push.next(0.0);
        push
    }

    fn force(&mut self, t: f64) -> f64 {
        if t > self.start + PUSH_S {
            self.next(t);
        }
        if t < self.start { 0.0 } else { self.peak * (PI * (t - self.start) / PUSH_S).sin() }
    }

    fn next(&mut self, t: f64) {
        self.start = t + PUSH_GAP_S * (0.5 + self.uniform());
        let size = PUSH_N * (0.5 + 0.5 * self.uniform());
        self.peak = if self.uniform() < 0.5 { -size } else { size };
    }

    /// Between 0 and 1 (xorshift, Marsaglia 2003).
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

    const CYCLE: u64 = 1_000_000;

    /// Runs the loop for `cycles` of 1 ms; each force answers the sample of `delay`
    /// cycles before, and the controller stands still in `pause`.
    fn run(cycles: u64, delay: usize, pause: std::ops::Range<u64>) -> Plant {
        let mut plant = Plant::new(7);
        plant.release(MonoTime(0));
        let mut forces = std::collections::VecDeque::from(vec![0.0; delay]);
        for cycle in 0..cycles {
            plant.advance(MonoTime(cycle * CYCLE));
            if pause.contains(&cycle) {
                continue;
            }
            forces.push_back(law::force(&plant.state(), &plant.reference()));
            if let Some(force) = forces.pop_front() {
                plant.set_force(force);
            }
        }
        plant
    }

    #[test]
    fn fresh_samples_every_millisecond_keep_it_up() {
        let plant = run(60_000, 1, 0..0);
        assert!(!plant.fallen());
        let rms = plant.errors().rms().unwrap();
        assert!(rms < 1.0e-3, "rms {rms}");
        assert!(plant.errors().max() < 5.0e-3, "max {}", plant.errors().max());
    }

    #[test]
    fn the_error_grows_visibly_when_samples_are_some_milliseconds_old() {
        let fresh = run(20_000, 1, 0..0).errors().rms().unwrap();
        let mut before = fresh;
        for delay in 1..24 {
            let p = run(20_000, delay, 0..0);
            eprintln!("{delay} {:?} {} {}", p.errors().rms(), p.errors().max(), p.fallen());
        }
        for delay in [4, 6, 8] {
            let rms = run(20_000, delay, 0..0).errors().rms().unwrap();
            assert!(rms > before, "delay {delay}: {rms} after {before}");
            before = rms;
        }
        assert!(before > 2.0 * fresh, "{before} against {fresh}");
    }

    #[test]
    fn it_falls_when_the_loop_is_20_ms_late() {
        assert!(run(5_000, 20, 0..0).fallen());
    }

    #[test]
    fn it_falls_when_the_loop_stops_for_100_ms() {
        // Wherever in the swing it stops.
        for start in (3_000..8_000).step_by(97) {
            assert!(run(10_000, 1, start..start + 100).fallen(), "stopped at {start}");
        }
    }

    #[test]
    fn it_stands_when_the_loop_stops_for_5_ms() {
        for start in (3_000..8_000).step_by(97) {
            assert!(!run(10_000, 1, start..start + 5).fallen(), "stopped at {start}");
        }
    }

    #[test]
    fn the_clamp_holds_until_it_is_opened() {
        let mut plant = Plant::new(1);
        plant.set_force(10.0);
        plant.advance(MonoTime(1_000_000_000));
        assert_eq!(plant.state(), State::default());
        assert!(plant.errors().rms().is_none());
    }

    #[test]
    fn without_control_it_falls_and_stays_down() {
        let mut plant = Plant::new(1);
        plant.release(MonoTime(0));
        plant.advance(MonoTime(1_900_000_000));
        assert!(plant.fallen());
        let lying = plant.state();
        plant.advance(MonoTime(2_500_000_000));
        assert_eq!(plant.state(), lying);
    }

    #[test]
    fn a_plant_left_alone_for_too_long_has_fallen_without_being_integrated() {
        let mut plant = Plant::new(1);
        plant.release(MonoTime(0));
        plant.advance(MonoTime(u64::MAX));
        assert!(plant.fallen());
        assert_eq!(plant.state(), State::default());
    }

    #[test]
    fn the_motor_is_bounded_and_refuses_nonsense() {
        let mut plant = Plant::new(1);
        plant.set_force(1e9);
        assert_eq!(plant.force(), FORCE_MAX_N);
        plant.set_force(f64::NAN);
        assert_eq!(plant.force(), 0.0);
    }

    #[test]
    fn energy_is_kept_without_friction_force_and_push() {
        // A check of the equations themselves: frictionless fall from 0.1 rad.
        let l = NEEDLE_M / 2.0;
        let energy = |s: State| {
            0.5 * (CART_KG + NEEDLE_KG) * s.v * s.v
                + NEEDLE_KG * l * s.v * s.omega * s.theta.cos()
                + 2.0 / 3.0 * NEEDLE_KG * l * l * s.omega * s.omega
                + NEEDLE_KG * GRAVITY * l * s.theta.cos()
        };
        let mut s = State { theta: 0.1, ..State::default() };
        let before = energy(s);
        let h = 1e-6;
        let mut lost = 0.0;
        for _ in 0..100_000 {
            s = s.plus(derivative(s, 0.0, 0.0), h);
            lost += FRICTION * s.v * s.v * h;
        }
        assert!(s.theta > 0.5, "it did not move: {s:?}");
        assert!((energy(s) + lost - before).abs() < 1e-4 * before, "{} {lost} {before}", energy(s));
    }
}
