//! The threads of a program.

use crate::bell::Bell;
use crate::ending::or_end;
use crate::lender::{Found, Lenders};
use crate::placement::{Placement, Unchecked};
use crate::report::{Report, TaskSpec, ThreadReport};
use crate::resource::{Rank, Resource};
use crate::turn::{Next, Spawned, Thread};
use insane_core::{MonoTime, Nanos};
use insane_rt::{CyclicError, CyclicTask, Misplaced, Overrun, Place, Session};
use insane_sys::OsError;
use insane_sys::privileges::can_use_fifo;
use insane_sys::thread::pin_current;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

/// Why a program does not start.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StartError {
    /// A task cannot be had, or the place of those of its priority.
    #[error("task {task}: {why}")]
    Task {
        /// Its name.
        task: &'static str,
        /// Why.
        why: CyclicError,
    },
    /// The analysis made at build time says nothing of that placement.
    #[error(transparent)]
    Unchecked(#[from] Unchecked),
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
pub struct Stop(Arc<Asked>);

#[derive(Debug, Default)]
struct Asked {
    asked: AtomicBool,
    /// Of the threads that sleep until something is spawned.
    bells: OnceLock<Vec<Arc<Bell>>>,
}

impl Stop {
    /// Each task ends when it is activated the next time; what was spawned and waits does not
    /// run any more.
    pub fn ask(&self) {
        self.0.asked.store(true, Ordering::Relaxed);
        for bell in self.0.bells.get().into_iter().flatten() {
            bell.ring();
        }
    }

    /// Whether somebody asked.
    #[must_use]
    pub fn asked(&self) -> bool {
        self.0.asked.load(Ordering::Relaxed)
    }
}

/// A program that is being started. Used by generated code.
#[derive(Debug)]
pub struct App {
    session: Session,
    placement: Placement,
    stop: Stop,
    threads: Vec<JoinHandle<ThreadReport>>,
    lenders: Arc<Lenders>,
    notices: Vec<String>,
    unless_run: StopsUnlessRun,
}

/// A start that is refused, or panics, leaves no task running.
#[derive(Debug)]
struct StopsUnlessRun(Option<Stop>);

impl Drop for StopsUnlessRun {
    fn drop(&mut self) {
        if let Some(stop) = &self.0 {
            stop.ask();
        }
    }
}

/// What follows where a ceiling can neither be taken nor lent.
const NOT_RAISED: &str = "locks do not raise a thread to it, so a task may wait for a less urgent one once for each \
                          resource that it locks, where the analysis counts one wait";
/// What the daemon can do about it.
const RULE: &str = "let the domain's `realtime` rule give that priority to one thread more for each ceiling";

/// What is told of a ceiling; `None`: all is well.
fn notice(ceiling: u8, found: Found) -> Option<String> {
    let Found::Refused { why, by_runtime } = found else { return None };
    let rule = if by_runtime { format!("; {RULE}") } else { String::new() };
    Some(format!("ceiling {ceiling}: {why}: {NOT_RAISED}{rule}"))
}

impl App {
    /// Nothing runs yet.
    ///
    /// # Errors
    /// The placement is none that `declared`, what the program's attributes say, allows.
    pub fn new(session: &Session, declared: &Placement, placement: Placement) -> Result<Self, StartError> {
        placement.check(declared)?;
        let stop = Stop::default();
        Ok(App {
            session: session.clone(),
            placement,
            stop: stop.clone(),
            threads: Vec::new(),
            lenders: Arc::default(),
            notices: Vec::new(),
            unless_run: StopsUnlessRun(Some(stop)),
        })
    }

    /// Ends the program.
    #[must_use]
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// The bells of the threads that run spawned tasks; called once, before anything is spawned.
    pub fn bells(&mut self, count: usize) -> Vec<Arc<Bell>> {
        let bells: Vec<_> = (0..count).map(|_| Arc::new(Bell::new())).collect();
        let _ = self.stop.0.bells.set(bells.clone());
        bells
    }

    /// Those that may lend the ceilings of these priorities once everything runs; called once,
    /// before any resource is made.
    ///
    /// # Errors
    /// The system has no mutexes with inheritance.
    pub fn lend(&mut self, priorities: &[u8]) -> Result<(), StartError> {
        if let Some(base) = self.placement.fifo {
            let ceilings: Vec<u8> = priorities.iter().map(|priority| base + priority).collect();
            self.lenders = Arc::new(Lenders::new(&ceilings)?);
        }
        Ok(())
    }

    /// A value that tasks share, of which the most urgent has that priority.
    ///
    /// # Errors
    /// The system has no mutexes with inheritance.
    pub fn resource<T>(&self, value: T, priority: u8) -> Result<Resource<T>, StartError> {
        // Under the ordinary policy nobody is raised.
        let ceiling = self.placement.fifo.map_or(0, |base| base + priority);
        Ok(Resource::new(value, ceiling)?.lent_by(self.lenders.of(ceiling)))
    }

    /// Starts the thread of one priority. `enter` is called on it and gives what runs a task.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn thread<E, F>(
        &mut self,
        priority: u8,
        specs: &[TaskSpec],
        spawned: Spawned,
        enter: E,
    ) -> Result<(), StartError>
    where
        E: FnOnce() -> F + Send + 'static,
        F: FnMut(Next, Rank, &Stop) -> Option<MonoTime>,
    {
        let (session, placement, stop) = (self.session.clone(), self.placement, self.stop.clone());
        let (specs, lenders) = (specs.to_vec(), Arc::clone(&self.lenders));
        let (ready, told) = mpsc::channel();
        let fifo = placement.fifo.map(|base| base + priority);
        let run = move || {
            // Until the thread ends.
            let _lenders = lenders;
            match begin(&session, placement, fifo, &specs) {
                Ok((tasks, place)) => {
                    let _ = ready.send(Ok(place.misplaced.clone()));
                    let thread = Thread::new(fifo, tasks, specs, spawned, stop);
                    or_end("the thread of a priority", || thread.run(rank(fifo, &place), enter()))
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                    ThreadReport::default()
                }
            }
        };
        let name = match fifo {
            Some(fifo) => format!("vplc-fifo-{fifo}"),
            None => format!("vplc-other-{priority}"),
        };
        let thread = std::thread::Builder::new().name(name).spawn(run);
        self.threads.push(thread.map_err(|error| StartError::Resources(error.to_string()))?);
        let told = told.recv().unwrap_or_else(|_| Err(StartError::Resources("a thread ended".into())))?;
        self.notices.extend(told.iter().map(|what| format!("priority {}: {what}", fifo.unwrap_or(priority))));
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
        let (Placement { core, fifo, .. }, stop) = (self.placement, self.stop.clone());
        let run = move || {
            // Elsewhere its locks are guarded by the mutex alone.
            let _ = core.map(pin_current);
            let rank = match fifo {
                None => Rank::Unprivileged,
                Some(_) if can_use_fifo().is_ok() => Rank::Idle,
                Some(_) => Rank::Given(None),
            };
            or_end("idle", || body(rank, stop));
        };
        let thread = std::thread::Builder::new().name("vplc-idle".into()).spawn(run);
        thread.map(drop).map_err(|error| StartError::Resources(error.to_string()))
    }

    /// All of it runs. Tasks have the first call on the places that the daemon gives; ceilings
    /// are lent from now on.
    ///
    /// # Errors
    /// None; as the others for the sake of generated code.
    pub fn run(mut self) -> Result<Running, StartError> {
        for lender in self.lenders.all() {
            self.notices.extend(notice(lender.ceiling(), lender.start(&self.session, self.placement.core)));
        }
        self.unless_run.0 = None;
        Ok(Running { stop: self.stop, threads: self.threads, lenders: self.lenders, notices: self.notices })
    }
}

/// A program that runs. It goes on without this, until its tasks are asked to end, and nobody
/// hears how it did.
#[must_use = "what was refused, how to end the program, and its report are here"]
#[derive(Debug)]
pub struct Running {
    stop: Stop,
    threads: Vec<JoinHandle<ThreadReport>>,
    lenders: Arc<Lenders>,
    notices: Vec<String>,
}

impl Running {
    /// What of core, priority and ceilings was refused: where there are any, the analysis made
    /// at build time may not hold.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Ends the program.
    #[must_use]
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Whether all tasks have ended, and `join` does not wait.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits for the tasks to end. One that panics ends the process.
    #[must_use]
    pub fn join(self) -> Report {
        let mut report = Report::default();
        for thread in self.threads {
            report.threads.push(thread.join().expect("what panics ends the process"));
        }
        report.unraised = self.lenders.unraised();
        report
    }
}

/// How a thread takes its locks.
fn rank(fifo: Option<u8>, place: &Place) -> Rank {
    let is_fifo = !place.misplaced.iter().any(|what| matches!(what, Misplaced::Policy { .. }));
    match (fifo.filter(|_| is_fifo), place.is_by_runtime) {
        (Some(fifo), false) => Rank::Fifo(fifo),
        (Some(fifo), true) => Rank::Given(Some(fifo)),
        (None, _) => Rank::Unprivileged,
    }
}

/// The place of the thread, and its tasks that begin by themselves.
fn begin(
    session: &Session,
    Placement { core, base, spin, .. }: Placement,
    fifo: Option<u8>,
    specs: &[TaskSpec],
) -> Result<(Vec<CyclicTask>, Place), StartError> {
    let refused = |task| move |why| StartError::Task { task, why };
    let place = session.place_current(fifo, core).map_err(refused("of this priority"))?;
    let mut tasks = Vec::new();
    for spec in specs {
        let cyclic = session.cyclic(Nanos(spec.cycle_ns), Nanos(spec.offset_ns));
        let cyclic = cyclic.base(base).spin(spin).deadline(Nanos(spec.deadline_ns));
        // Late means: after another task of this priority. The thread has its place already.
        let task = cyclic.overrun(Overrun::RunLate).start().map_err(refused(spec.name))?;
        tasks.push(task);
    }
    Ok((tasks, place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_are_lent_for_as_long_as_a_task_runs_whoever_watches() {
        let session = Session::embedded("unwatched").unwrap();
        let placement = Placement::declared(None, 40, false, 0);
        let mut app = App::new(&session, &placement, placement).unwrap();
        app.lend(&[7]).unwrap();
        let (lender, stop) = (app.lenders.of(47).unwrap(), app.stop());
        let spec = TaskSpec { name: "t", cycle_ns: 1_000_000, offset_ns: 0, deadline_ns: 1_000_000, wcet_ns: 1 };
        let (runs, ran) = mpsc::channel();
        let seen = Arc::clone(&lender);
        let body = move |_: Next, _: Rank, _: &Stop| {
            let _ = runs.send(seen.has_ended());
            None
        };
        app.thread(6, &[spec], (Vec::new(), None), move || body).unwrap();
        drop(app.run().unwrap());
        while ran.try_recv().is_ok() {}
        assert!(!ran.iter().take(3).any(|ended| ended), "the task runs");
        stop.ask();
        assert!(ran.iter().all(|ended| !ended), "to the last cycle");
        while !lender.has_ended() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_daemons_rule_is_named_where_there_is_a_daemon() {
        let told = |by_runtime| notice(9, Found::Refused { why: "no right".into(), by_runtime }).unwrap();
        assert!(told(true).starts_with("ceiling 9: no right: ") && told(true).contains("`realtime`"));
        assert!(!told(false).contains("`realtime`"));
        assert!(notice(9, Found::Lends).is_none() && notice(9, Found::NotNeeded).is_none());
    }
}
