//! The control law: state feedback that puts all four poles of the loop at one place.
//!
//! With the cart's acceleration `a` as input, small angles, and `y` the needle's
//! centre of percussion, the plant is a chain of four integrators:
//!
//! ```text
//!   y'' = g theta        y'''' = p^2 (g theta - a)        p^2 = 3 g / 2 L
//! ```
//!
//! so `a = g theta - y''''/p^2`, with `y''''` chosen such that `y - reference` dies
//! out as `(s + pole)^4`. The motor's force follows from the cart's equation.

use crate::plant::{CART_KG, FRICTION, GRAVITY, NEEDLE_KG, NEEDLE_M, Reference, State};

/// Where the four poles lie, per second: fast enough to hold the needle, slow
/// enough for one cycle of 1 ms between sample and force.
const POLE: f64 = 40.0;

/// The motor's force for one sample, newtons (not yet bounded).
#[must_use]
pub fn force(s: &State, reference: &Reference) -> f64 {
    let p2 = 3.0 * GRAVITY / (2.0 * NEEDLE_M);
    let lever = GRAVITY / p2;
    let [position, speed, acceleration, jerk, snap] = reference.derivatives;
    let wanted = snap
        - POLE.powi(4) * (s.x + lever * s.theta - position)
        - 4.0 * POLE.powi(3) * (s.v + lever * s.omega - speed)
        - 6.0 * POLE.powi(2) * (GRAVITY * s.theta - acceleration)
        - 4.0 * POLE * (GRAVITY * s.omega - jerk);
    let a = GRAVITY * s.theta - wanted / p2;
    let theta_acceleration = p2 * s.theta - a / lever;
    (CART_KG + NEEDLE_KG) * a + FRICTION * s.v + NEEDLE_KG * NEEDLE_M / 2.0 * theta_acceleration
}
