//! PLC programs in RTIC's syntax, for threads of Linux: tasks that run once a cycle,
//! resources that they share, and the proof that every task meets its deadline, made when
//! the program is built.
//!
//! ```
#![doc = include_str!("../examples/level.rs")]
//! ```
//!
//! # The language
//! That of RTIC 1 (`#[shared]`, `#[local]`, `#[init]`, `#[idle]`, `#[task]`), with these
//! arguments of a task beside `priority` (1 to 9, 9 first), `shared` and `local`:
//!
//! | argument | meaning |
//! |---|---|
//! | `cycle` | between two activations; 10 us to an hour |
//! | `offset` | of the activation, inside the cycle; otherwise 0 |
//! | `deadline` | from activation to end, at most a cycle; otherwise a cycle |
//! | `wcet` | longest execution, without what others take |
//! | `lock` | longest time the task holds a lock; otherwise `wcet`. Of idle, too |
//!
//! and of the program: `core` (of all its tasks; otherwise the last of the process), `fifo`
//! (added to a priority it is that of the thread; otherwise 40), `jitter` (how late wake-ups
//! may be), `tai` (cycles are whole periods of TAI), and `datapath_cycle` with
//! `datapath_wcet` for a datapath on the same core, which is more urgent than all tasks.
//!
//! `init` runs once, before everything, and makes the resources. `idle` runs on the same
//! core under the ordinary policy and never returns. There are no hardware tasks, no
//! monotonics, and nothing is spawned: tasks are activated by their cycle.
//!
//! # What runs
//! One `SCHED_FIFO` thread a priority, all on one core. Tasks of one priority run in turn.
//! A lock raises its thread to the ceiling of the resource (the highest priority that uses
//! it, found at build time) and back afterwards: whoever could want it does not run
//! meanwhile, so a task waits for a less urgent one once at most, and never in a circle. A
//! thread at the ceiling calls the kernel for nothing. Below it there is a mutex with
//! priority inheritance, which nobody contends for as long as the ceilings hold; without the
//! right to `SCHED_FIFO` it is what protects, the program runs all the same, and says so.
//!
//! # What is checked, and what is not
//! A set of tasks that may miss a deadline fails the build, with the numbers (response-time
//! analysis: own time, the longest lock below, more urgent tasks, the datapath, jitter). It
//! is true if the declared times are; what a task really takes is measured
//! ([`TaskReport::cpu_worst`]).
//!
//! Whatever a task holds is [`NonBlocking`]: plain values, and [`In`] and [`Out`] in place of
//! sinks and sources. A sink, a mutex, a file, a channel or a socket of the standard library
//! does not compile as a task's resource. Printing, `thread::sleep` and their like are
//! refused by their names. Neither sees what a function that a task calls does inside, a
//! global, an allocation, or a page fault: that is for the report and for `insane jitter`.
#![forbid(unsafe_code)]

mod ports;
mod resource;
mod running;

pub use insane_rt::{Activation, CyclicStatistics, Session};
pub use ports::{In, Out};
pub use resource::{Locked, Rank, Resource};
pub use running::{App, Report, Running, StartError, Stop, TaskReport, TaskSpec};
pub use vplc_macros::app;

/// Values that a task may hold: using them never waits for anybody.
///
/// Implement it for a type of your own if that is true of it:
/// `impl vplc::NonBlocking for Pid {}`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be held by a task: using it may block",
    note = "sinks and sources are held as `vplc::In` and `vplc::Out`; for a type of your own that never waits, `impl vplc::NonBlocking for {Self} {{}}`"
)]
pub trait NonBlocking {}

macro_rules! plain {
    ($($plain:ty)*) => { $(impl NonBlocking for $plain {})* };
}

plain!(() bool char u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64);
plain!(insane_core::Nanos insane_core::MonoTime insane_core::TaiTime core::time::Duration In Out Stop);

impl<T: NonBlocking> NonBlocking for Option<T> {}
impl<T: NonBlocking, const N: usize> NonBlocking for [T; N] {}
impl<A: NonBlocking, B: NonBlocking> NonBlocking for (A, B) {}
impl<A: NonBlocking, B: NonBlocking, C: NonBlocking> NonBlocking for (A, B, C) {}

/// Does not compile for other types. Called by generated code.
#[doc(hidden)]
pub fn may_be_held_by_a_task<T: NonBlocking>() {}
