//! PLC programs in RTIC's syntax, for threads of Linux: tasks that run once a cycle,
//! resources that they share, and the proof that every task meets its deadline, made when
//! the program is built.
//!
//! ```
#![cfg_attr(not(loom), doc = include_str!("../examples/level.rs"))]
//! ```
//!
//! # The language
//! That of RTIC 1 (`#[shared]`, `#[local]`, `#[init]`, `#[idle]`, `#[task]`, `NAME::spawn`), with
//! these arguments of a task beside `priority` (1 to 9, 9 first), `capacity`, `shared` and `local`:
//!
//! | argument | meaning |
//! |---|---|
//! | `cycle` | between two activations; 10 us to an hour |
//! | `interval` | of a task that is spawned, in place of `cycle`: between two spawns, at least |
//! | `offset` | of the activation, inside the cycle; otherwise 0 |
//! | `deadline` | from activation or release to end, at most a cycle or interval; otherwise that |
//! | `wcet` | longest execution, without what others take |
//! | `lock` | longest time the task holds a lock; otherwise `wcet`. Of idle, too |
//!
//! and of the program: `core` (of all its tasks; otherwise the last of the process), `fifo`
//! (added to a priority it is that of the thread; otherwise 40), `jitter` (how late wake-ups
//! may be), `spin` (how long before its instant a task looks at the clock in place of sleeping;
//! otherwise not at all), `tai` (cycles are whole periods of TAI), and `datapath_cycle` with
//! `datapath_wcet` for a datapath on the same core, which is more urgent than all tasks.
//!
//! `init` runs once, before everything, and makes the resources. What it takes beside its context
//! is given to it by whoever starts the program, as an argument of `start`. `idle` runs on the same
//! core under the ordinary policy and never returns. There are no hardware tasks, since programs
//! are given no interrupts: idle may block, and spawns a task when something came. There are no
//! monotonics, and nothing is spawned for later: a task with a cycle keeps the instant.
//!
//! # Where and when it runs
//! `start(&session, ..)` of the program's module runs it where its attributes say. `start_with` runs
//! it where a [`Placement`] says: core, priorities, what cycles are counted from, and how tasks wait
//! for their instants, which whoever builds the program need not know. So a program can keep its
//! phase to slots (`base`), or run under the ordinary policy (`fifo: None`), where nothing is
//! guaranteed:
//!
//! ```
//! # use vplc::{Base, MonoTime, Placement, Session};
//! #[vplc::app(spin = 50us)]
//! mod app {
//!     #[shared]
//!     struct Shared {}
//!     #[local]
//!     struct Local {
//!         left: u32,
//!     }
//!     #[init]
//!     fn init(_: init::Context, cycles: u32) -> (Shared, Local, init::Monotonics) {
//!         (Shared {}, Local { left: cycles }, init::Monotonics())
//!     }
//!     #[task(cycle = 1ms, wcet = 100us, local = [left])]
//!     fn count(cx: count::Context) {
//!         *cx.local.left -= 1;
//!         if *cx.local.left == 0 {
//!             cx.stop.ask();
//!         }
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let session = Session::embedded("placed")?;
//! let placement = Placement { core: None, base: Base::Mono(MonoTime(375_000)), ..app::placement() };
//! let running = app::start_with(&session, placement, 3)?;
//! assert_eq!(running.join().task("count").map(|count| count.statistics.cycles >= 3), Some(true));
//! # Ok(())
//! # }
//! ```
//!
//! The analysis is made at build time, with what the attributes say; a placement that it does not
//! cover is refused ([`Unchecked`]): a base of TAI without `tai`, and a longer spin than `spin`. A shorter
//! one is not, so `jitter` has to hold without any.
//!
//! # Spawned tasks
//! `NAME::spawn(arguments)` lets a task run once more, on the thread of its priority, to its end.
//! Tasks, init and idle may call it; it never waits and allocates nothing. It returns what it was
//! given where it is refused, and counts why ([`SpawnedReport`]):
//!
//! - The `interval` since the last one is not over. It counts from release to release, and is
//!   kept whatever preempts whom, or the analysis would say nothing. So who spawns in each of its
//!   cycles declares an interval that is shorter than its cycle, by how late it may be. While one
//!   task is about to spawn, and is preempted there, others that spawn the same are refused.
//! - As many wait as the `capacity`. In a program that keeps its times none waits when the next
//!   comes, and the 1 that goes without saying is enough; more keep what came while a task was
//!   late.
//!
//! A thread that sleeps is woken by one system call, whatever the priorities, of each that spawns
//! before it runs again; one that is awake, and the thread that spawns for itself, needs none.
//! That call is the time of who spawns; what the
//! task takes counts once an interval. What init spawns runs when its thread has begun.
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
//! Where the daemon gave the priorities, a thread cannot raise itself. There each ceiling that
//! somebody has to be raised to has a thread of its own, which the daemon is asked for too, and
//! which lends it (ADR 0053): such a lock takes about 10 us, which are part of `wcet` and `lock`. A
//! ceiling that the daemon does not give is told by [`Running::notices`].
//!
//! # Panics
//! A task, or idle, that panics ends the process, by SIGABRT and before a lock is given back: the
//! others would go on with what it left. That is so also where a section of a lock panics and the
//! task would catch it. What a program has to say then it says in a panic hook; the other tasks run
//! on until that has returned, so it must not wait. Where init panics, or what makes a local
//! resource, [`start`](App) does; no task runs on.
//!
//! # What is checked, and what is not
//! A set of tasks that may miss a deadline fails the build, with the numbers (response-time
//! analysis: own time, the longest lock below, more urgent tasks, the datapath, jitter). Offsets
//! are taken into account where a task fails without, unless cycles are those of TAI, whose
//! steps move tasks against each other, tasks spin, or there are too many phases to look at. What a
//! task spins counts as the time of those that are less urgent. It is true if
//! the declared times are; what a task really takes is measured ([`TaskReport::cpu_worst`]).
//!
//! Whatever a task holds is [`NonBlocking`]: plain values, and [`In`] and [`Out`] in place of
//! sinks and sources. A sink, a mutex, a file, a channel or a socket of the standard library
//! does not compile as a task's resource. Printing, `thread::sleep` and their like are
//! refused by their names. Neither sees what a function that a task calls does inside, a
//! global, an allocation, or a page fault: that is for the report, which has how often a thread
//! gave up its core other than to wait for its tasks ([`ThreadReport::blocked`]), and for
//! `insane jitter`.
#![forbid(unsafe_code)]

mod bell;
#[cfg(not(loom))]
mod ending;
#[cfg(not(loom))]
mod here;
#[cfg(not(loom))]
mod lender;
#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(not(loom))]
mod placement;
#[cfg(not(loom))]
mod ports;
#[cfg_attr(loom, allow(dead_code, reason = "what calls most of it is not built under loom"))]
mod queue;
#[cfg(not(loom))]
mod report;
#[cfg(not(loom))]
mod resource;
#[cfg(not(loom))]
mod running;
mod sync;
#[cfg(not(loom))]
mod turn;

pub use bell::Bell;
#[cfg(not(loom))]
pub use here::{Entered, Here};
#[cfg(not(loom))]
pub use insane_rt::{Activation, Base, CyclicStatistics, MonoTime, Nanos, Session, Spin, TaiTime};
#[cfg(not(loom))]
pub use lender::Lender;
#[cfg(not(loom))]
pub use placement::{Placement, Unchecked};
#[cfg(not(loom))]
pub use ports::{In, Out, Received};
pub use queue::{Gate, Queue};
#[cfg(not(loom))]
pub use report::{Report, SpawnedReport, SpawnedSpec, TaskReport, TaskSpec, ThreadReport};
#[cfg(not(loom))]
pub use resource::{Locked, Rank, Resource};
#[cfg(not(loom))]
pub use running::{App, Running, StartError, Stop};
#[cfg(not(loom))]
pub use turn::{Next, Spawned};
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
plain!(insane_core::Nanos insane_core::MonoTime insane_core::TaiTime core::time::Duration);
#[cfg(not(loom))]
plain!(In Out Stop);

impl<T: NonBlocking> NonBlocking for Option<T> {}
impl<T: NonBlocking, const N: usize> NonBlocking for [T; N] {}
impl<A: NonBlocking, B: NonBlocking> NonBlocking for (A, B) {}
impl<A: NonBlocking, B: NonBlocking, C: NonBlocking> NonBlocking for (A, B, C) {}

/// Does not compile for other types. Called by generated code.
#[doc(hidden)]
pub fn may_be_held_by_a_task<T: NonBlocking>() {}
