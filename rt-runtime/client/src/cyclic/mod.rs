//! Cyclic tasks: a thread that runs a piece of code once a period, at planned instants.
//!
//! ```
#![doc = include_str!("../../examples/cyclic.rs")]
//! ```
//!
//! A task's instants are absolute, so lateness never adds up, and lie on a grid through a
//! base instant, so tasks of one base keep their phase to each other ([`Base`]). It sleeps,
//! and may look at the clock for the last piece ([`Spin`]). After it has started, waiting
//! allocates nothing, takes no lock, and makes one system call; a base of TAI costs nine
//! looks at clocks more.
//!
//! A clock that is stepped while the task sleeps is noticed before the next sleep.
//!
//! A process without rights gets its place from the daemon, if the domain's rule allows it;
//! it needs neither `CAP_SYS_NICE` nor limits.
//!
//! | part | what it is |
//! |---|---|
//! | `cadence` | when a cycle is due; pure |
//! | `margin` | how long to look at the clock before; pure |
//! | `statistics` | what is counted |
//! | `watch` | the task from outside |
//! | `place` | core and priority of a thread, by its own right or by the daemon's |

mod cadence;
mod margin;
pub(crate) mod place;
mod statistics;
mod task;
mod timer;
mod watch;

pub use cadence::{Activation, BadGrid, Overrun};
pub use margin::Spin;
pub use place::{Misplaced, Place};
pub use statistics::{CyclicStatistics, Histogram, Worst};
pub use task::{CyclicTask, Ended, Waited};
pub use timer::Base;
pub use watch::{CyclicWatch, DeadlineMiss, Doing};

use crate::agent::lock;
use crate::callback::{CallbackSink, Callbacks};
use crate::ports;
use crate::session::Core;
use cadence::Cadence;
use insane_core::{Determinism, MonoTime, Nanos, Qos, TaiTime};
use std::sync::Arc;
use timer::Kernel;
use watch::{Progress, Told};

/// `SCHED_FIFO` priority of the least urgent time-sensitive task; the urgency of its
/// quality of service, 0 to 7, is added. Datapaths are to be more urgent.
const FIFO_BASE: u8 = 50;

/// Why a cyclic task cannot start.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CyclicError {
    /// Period or offset are none.
    #[error(transparent)]
    Grid(#[from] BadGrid),
    /// The deadline is none.
    #[error("a deadline of {0} after the start of a cycle: it is at least 1 ns")]
    Deadline(Nanos),
    /// A place is required and refused.
    #[error("the task {0}")]
    Misplaced(#[from] Misplaced),
    /// The core that was asked for is that of a datapath, and the task would keep it from
    /// running, or be kept by it.
    #[error("the task may not run there: {0}")]
    CoreOfDatapath(String),
    /// There is no thread for the callback.
    #[error("the system refuses a thread: {0}")]
    Resources(String),
    /// This process was forked from the one that attached.
    #[error("a forked child cannot use its parent's session: attach anew")]
    Forked,
}

/// A cyclic task that has not started: what it is to be. Made by
/// [`Session::cyclic`](crate::Session::cyclic).
#[must_use = "a task begins with `start`"]
pub struct Cyclic {
    core: Arc<Core>,
    period: Nanos,
    offset: Nanos,
    base: Base,
    overrun: Overrun,
    spin: Spin,
    deadline: Nanos,
    fifo: Option<u8>,
    pin: Option<usize>,
    is_required: bool,
    on_deadline: Option<Box<dyn FnMut(DeadlineMiss) + Send>>,
}

impl Cyclic {
    pub(crate) fn new(core: Arc<Core>, period: Nanos, offset: Nanos) -> Self {
        Cyclic {
            core,
            period,
            offset,
            base: Base::Mono(MonoTime(0)),
            overrun: Overrun::default(),
            spin: Spin::default(),
            deadline: period,
            fifo: None,
            pin: None,
            is_required: false,
            on_deadline: None,
        }
    }

    /// The clock and instant that the phase is locked to; otherwise the zero of the
    /// runtime's clock.
    pub fn base(mut self, base: Base) -> Self {
        self.base = base;
        self
    }

    /// Locks the phase to whole periods of TAI, as slots are.
    pub fn tai(self) -> Self {
        self.base(Base::Tai(TaiTime(0)))
    }

    /// What becomes of activations that came too soon for the task; otherwise they are
    /// left out.
    pub fn overrun(mut self, policy: Overrun) -> Self {
        self.overrun = policy;
        self
    }

    /// Whether to look at the clock before an instant; otherwise the task sleeps to it.
    pub fn spin(mut self, spin: Spin) -> Self {
        self.spin = spin;
        self
    }

    /// A cycle is to end so long after its instant; otherwise a period.
    pub fn deadline(mut self, deadline: Nanos) -> Self {
        self.deadline = deadline;
        self
    }

    /// Is called on the session's callback thread for each cycle that missed its deadline,
    /// and once for one that does not end; with the deadline and about 10 ms to 100 ms (at
    /// most the larger of 10 ms and the deadline) after the miss. That thread is an ordinary
    /// one: it needs a core that the task leaves free.
    pub fn on_deadline(mut self, callback: impl FnMut(DeadlineMiss) + Send + 'static) -> Self {
        self.on_deadline = Some(Box::new(callback));
        self
    }

    /// Asks for `SCHED_FIFO` at that priority, 1 to 99.
    pub fn fifo(mut self, priority: u8) -> Self {
        self.fifo = Some(priority);
        self
    }

    /// Asks for the priority that goes with a quality of service: time-sensitive,
    /// `SCHED_FIFO` 50 to 57 by its priority; best effort, the ordinary policy.
    pub fn urgency(mut self, qos: &Qos) -> Self {
        self.fifo = match qos.determinism {
            Determinism::TimeSensitive { .. } => Some(FIFO_BASE + qos.priority.get()),
            Determinism::BestEffort => None,
        };
        self
    }

    /// Asks for that core. One on which a datapath of the session's runtime spins, or sleeps with
    /// a priority that is not above the task's, is refused when the task starts.
    pub fn core(mut self, core: usize) -> Self {
        self.pin = Some(core);
        self
    }

    /// Where this process may not take the place itself and the session's runtime is a daemon,
    /// that is asked to give it, within the rule of the domain (`realtime` in its configuration).
    ///
    /// Without the priority and core that were asked for, the task does not start.
    /// Otherwise it says so ([`CyclicTask::misplaced`]) and runs where it is.
    pub fn required(mut self) -> Self {
        self.is_required = true;
        self
    }

    /// Makes the current thread the task's: it takes the core and the priority (and keeps
    /// them afterwards), and the task's first activation is the next instant of its grid.
    ///
    /// # Errors
    /// See [`CyclicError`].
    pub fn start(self) -> Result<CyclicTask, CyclicError> {
        let cadence = Cadence::new(self.base.ns(), self.period, self.offset, self.overrun)?;
        if self.deadline == Nanos::ZERO {
            return Err(CyclicError::Deadline(self.deadline));
        }
        let place = place::take(&self.core.shared, self.fifo, self.pin)?;
        if self.is_required
            && let Some(first) = place.misplaced.first()
        {
            return Err(first.clone().into());
        }
        let progress = Arc::new(Progress::new(self.deadline, self.on_deadline.is_some()));
        let told = self.on_deadline.map(|callback| tell(&self.core, &progress, callback)).transpose()?;
        let (line, _) = self.core.shared.take_line();
        let counters = ports::counters(line.as_ref());
        let inner = task::Task::new(Kernel, self.base, cadence, self.spin, self.period, (progress, counters));
        Ok(CyclicTask::new(inner, place, told, line))
    }
}

fn tell(
    core: &Core,
    progress: &Arc<Progress>,
    callback: Box<dyn FnMut(DeadlineMiss) + Send>,
) -> Result<CallbackSink, CyclicError> {
    let mut callbacks = lock(&core.callbacks);
    let thread = match callbacks.take() {
        Some(thread) => thread,
        None => Callbacks::start().map_err(|error| CyclicError::Resources(error.to_string()))?,
    };
    let told = Told { progress: Arc::clone(progress), callback, running: None };
    Ok(callbacks.insert(thread).add(Box::new(told)))
}

impl std::fmt::Debug for Cyclic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cyclic(every {}, at {}, {:?})", self.period, self.offset, self.base)
    }
}
