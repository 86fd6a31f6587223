//! The control law: exact linearisation, then two poles at one place.
//!
//! With the wanted acceleration `a` of the gap, the coil's current follows from the
//! plant's equation, `i = CURRENT_A (z / GAP_M) sqrt(1 - a / g)`; and `a` is chosen
//! such that the error `e = z - set point` dies out as `(s + POLE)^2`.

use crate::plant::{CURRENT_A, GAP_M, GRAVITY, SetPoint, State};

/// Where the two poles lie, per second: fast against the plant's own 57 per
/// second, slow enough for samples of 1 ms.
const POLE: f64 = 115.0;

/// The coil's current for one sample, amperes; never negative, not yet bounded above.
#[must_use]
pub fn current(s: &State, set_point: &SetPoint) -> f64 {
    let a = set_point.acceleration - 2.0 * POLE * (s.speed - set_point.speed) - POLE * POLE * (s.gap - set_point.gap);
    CURRENT_A * s.gap / GAP_M * (1.0 - a / GRAVITY).max(0.0).sqrt()
}
