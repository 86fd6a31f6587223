//! Random valid schedules over random loads, drifting and stepping clocks and late
//! applications, in virtual time, with a checker that knows what the wire must show.
//!
//! The scheduler is the one of production. The model of the link (`wire`), the test that
//! a schedule is valid and the walk through gates are written apart from it, in other
//! units (picoseconds) and by going through slots one by one.
//!
//! What is checked: every frame of a slot lies within that slot, and the slot is one of
//! its stream; every other frame ends before the next slot that has not been settled, and
//! within its gate; slots are granted or told as missed in order and without a gap; a
//! message that waits when its slot is polled in time goes in it; late messages follow
//! their policy, and late is what came too late by the clock of the world, not by that of
//! the last poll; waits end before the next event; a staged table takes over at its instant.
//!
//! A seed says everything: the same seed is the same run.

#![forbid(unsafe_code)]

mod random;
mod schedule;
mod wire;
mod world;

pub use world::{Fault, Tally, run};
