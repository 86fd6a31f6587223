//! The threads of a program.

use crate::resource::Rank;
use insane_core::{MonoTime, Nanos, TaiTime};
use insane_rt::{Activation, Base, CyclicError, CyclicStatistics, CyclicTask, Misplaced, Overrun, Session};
use insane_sys::OsError;
use insane_sys::privileges::can_use_fifo;
use insane_sys::thread::{cores, pin_current, set_name};
use nix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// Why a program does not start.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StartError {
    /// A task cannot be had.
    #[error("task {task}: {why}")]
    Task {
        /// Its name.
        task: &'static str,
        /// Why.
        why: CyclicError,
    },
    /// No thread, or no mutex.
    #[error("the system refuses a resource: {0}")]
    Resources(String),
}

impl From<OsError> for StartError {
    fn from(error: OsError) -> Self {
        StartError::Resources(error.to_string())
    }
}

/// Asks a program to end; clones ask the same one.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Each task ends when it is activated the next time.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked.
    #[must_use]
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is declared of a task, nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TaskSpec {
    /// Its name.
    pub name: &'static str,
    /// Between two activations.
    pub cycle_ns: u64,
    /// Of the activation, inside the cycle.
    pub offset_ns: u64,
    /// From activation to end.
    pub deadline_ns: u64,
    /// Longest execution.
    pub wcet_ns: u64,
}

/// What a task did.
#[derive(Clone, Debug)]
pub struct TaskReport {
    /// What was declared.
    pub spec: TaskSpec,
    /// Its cycles, the one at which it ended among them. A task that waited for another of
    /// its priority counts as late.
    pub statistics: CyclicStatistics,
    /// The most processor time that a cycle took.
    pub cpu_worst: Nanos,
}

impl TaskReport {
    /// Whether it kept its `wcet`, without which the analysis at build time says nothing.
    #[must_use]
    pub fn kept_wcet(&self) -> bool {
        self.cpu_worst.0 <= self.spec.wcet_ns
    }
}

/// What a program did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Its tasks, the less urgent first.
    pub tasks: Vec<TaskReport>,
}

impl Report {
    /// The task of that name.
    #[must_use]
    pub fn task(&self, name: &str) -> Option<&TaskReport> {
        self.tasks.iter().find(|task| task.spec.name == name)
    }
}

/// A program that is being started. Used by generated code.
#[derive(Debug)]
pub struct App {
    session: Session,
    core: Option<usize>,
    base: Base,
    stop: Stop,
    threads: Vec<JoinHandle<Vec<TaskReport>>>,
    notices: Vec<String>,
    ready: (Sender<Ready>, Receiver<Ready>),
}

type Ready = Result<Vec<String>, StartError>;

/// What follows from a priority that a thread cannot raise itself.
const GIVEN: &str = "given by the daemon: locks do not raise the thread to their ceilings, so a task may wait for a \
                     less urgent one once for each resource that it locks, where the analysis counts one wait";

impl App {
    /// Nothing runs yet.
    #[must_use]
    pub fn new(session: &Session, core: Option<usize>, tai: bool) -> Self {
        let core = core.or_else(|| cores().last().copied());
        let base = if tai { Base::Tai(TaiTime(0)) } else { Base::Mono(MonoTime(0)) };
        App {
            session: session.clone(),
            core,
            base,
            stop: Stop::default(),
            threads: Vec::new(),
            notices: Vec::new(),
            ready: mpsc::channel(),
        }
    }

    /// Ends the program.
    #[must_use]
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Starts the thread of one priority.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn thread<F>(&mut self, fifo: u8, specs: &[TaskSpec], body: F) -> Result<(), StartError>
    where
        F: FnMut(usize, Activation, Rank, &Stop) + Send + 'static,
    {
        let (session, core, base, stop) = (self.session.clone(), self.core, self.base, self.stop.clone());
        let (specs, ready) = (specs.to_vec(), self.ready.0.clone());
        let run = move || {
            set_name(&format!("vplc-fifo-{fifo}"));
            match begin(&session, core, base, fifo, &specs) {
                Ok((tasks, misplaced)) => {
                    let is_given = tasks.iter().any(CyclicTask::is_placed_by_runtime);
                    let is_fifo = !misplaced.iter().any(|what| matches!(what, Misplaced::Policy { .. }));
                    let rank = if is_fifo && !is_given { Rank::Fifo(fifo) } else { Rank::Unprivileged };
                    let mut notices: Vec<String> = misplaced.iter().map(ToString::to_string).collect();
                    notices.extend(is_given.then(|| GIVEN.to_owned()));
                    let _ = ready.send(Ok(notices));
                    turn(tasks, &specs, rank, &stop, body)
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                    Vec::new()
                }
            }
        };
        let thread = std::thread::Builder::new().spawn(run);
        let thread =
            thread.map_err(|error| StartError::Resources(error.to_string())).inspect_err(|_| self.stop.ask())?;
        self.threads.push(thread);
        let told = self.ready.1.recv().unwrap_or_else(|_| Err(StartError::Resources("a thread ended".into())));
        for what in told.inspect_err(|_| self.stop.ask())? {
            self.notices.push(format!("priority {fifo}: {what}"));
        }
        Ok(())
    }

    /// Starts idle. It has no end, so nobody waits for it.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn idle<F>(&mut self, body: F) -> Result<(), StartError>
    where
        F: FnOnce(Rank, Stop) + Send + 'static,
    {
        let (core, stop) = (self.core, self.stop.clone());
        let run = move || {
            set_name("vplc-idle");
            // Elsewhere its locks are guarded by the mutex alone.
            let _ = core.map(pin_current);
            let rank = if can_use_fifo().is_ok() { Rank::Idle } else { Rank::Unprivileged };
            body(rank, stop);
        };
        let thread = std::thread::Builder::new().spawn(run);
        thread.map(drop).map_err(|error| StartError::Resources(error.to_string()))
    }

    /// All of it runs.
    ///
    /// # Errors
    /// None; as the others for the sake of generated code.
    pub fn run(self) -> Result<Running, StartError> {
        Ok(Running { stop: self.stop, threads: self.threads, notices: self.notices })
    }
}

/// A program that runs.
#[derive(Debug)]
pub struct Running {
    stop: Stop,
    threads: Vec<JoinHandle<Vec<TaskReport>>>,
    notices: Vec<String>,
}

impl Running {
    /// What of core and priority was refused, or given by the daemon, so that locks do not
    /// raise: where there are any, the analysis made at build time may not hold.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Ends the program.
    #[must_use]
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Waits for the tasks to end.
    ///
    /// # Panics
    /// If a task did.
    #[must_use]
    pub fn join(self) -> Report {
        let mut tasks = Vec::new();
        for thread in self.threads {
            match thread.join() {
                Ok(of_thread) => tasks.extend(of_thread),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Report { tasks }
    }
}

type Begun = (Vec<CyclicTask>, Vec<Misplaced>);

fn begin(
    session: &Session,
    core: Option<usize>,
    base: Base,
    fifo: u8,
    specs: &[TaskSpec],
) -> Result<Begun, StartError> {
    let (mut tasks, mut misplaced) = (Vec::new(), Vec::new());
    for spec in specs {
        let cyclic =
            session.cyclic(Nanos(spec.cycle_ns), Nanos(spec.offset_ns)).base(base).deadline(Nanos(spec.deadline_ns));
        // Late means: after another task of this priority.
        let mut cyclic = cyclic.overrun(Overrun::RunLate).fifo(fifo);
        if let Some(core) = core {
            cyclic = cyclic.core(core);
        }
        let task = cyclic.start().map_err(|why| StartError::Task { task: spec.name, why })?;
        misplaced = task.misplaced().to_vec();
        tasks.push(task);
    }
    Ok((tasks, misplaced))
}

/// Runs the tasks of one thread until told to stop: always the one that is due first, in
/// the order of the program where they are due together.
fn turn<F>(mut tasks: Vec<CyclicTask>, specs: &[TaskSpec], rank: Rank, stop: &Stop, mut body: F) -> Vec<TaskReport>
where
    F: FnMut(usize, Activation, Rank, &Stop),
{
    let mut worst = vec![Nanos::ZERO; tasks.len()];
    loop {
        let due = tasks.iter().enumerate().filter_map(|(at, task)| Some((task.due()?, at))).min();
        let Some((_, next)) = due else { break };
        let Some(activation) = tasks[next].wait() else { break };
        if stop.asked() {
            break;
        }
        let before = used();
        body(next, activation, rank, stop);
        worst[next] = worst[next].max(Nanos(used().0.saturating_sub(before.0)));
        tasks[next].done();
    }
    let each = specs.iter().zip(&tasks).zip(worst);
    each.map(|((spec, task), cpu_worst)| TaskReport { spec: *spec, statistics: task.statistics().clone(), cpu_worst })
        .collect()
}

/// Processor time of the current thread.
fn used() -> Nanos {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Nanos::ZERO, |time| Duration::from(time).into())
}
