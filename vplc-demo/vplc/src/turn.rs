//! What the thread of one priority does: always what is due first.
//!
//! A task with a cycle is due at its instant, a spawned one since its release. Where several
//! are, the one that has been for longest runs, to its end. Where none is, the thread sleeps
//! until the next instant, or until somebody rings. Nothing allocates.

use crate::bell::Bell;
use crate::ending::or_end;
use crate::queue::Gate;
use crate::report::{SpawnedReport, SpawnedSpec, TaskReport, TaskSpec, ThreadReport};
use crate::resource::Rank;
use crate::running::Stop;
use insane_core::{MonoTime, Nanos};
use insane_rt::{Activation, CyclicTask, Waited};
use insane_sys::clock::mono_now;
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::time::Duration;

/// What runs next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// A task with a cycle, by its place among them.
    Cycle(usize, Activation),
    /// A spawned task, by its place among them; when it is taken.
    Spawned(usize, MonoTime),
}

/// The spawned tasks of a thread, and what wakes it for them; none without any.
pub type Spawned = (Vec<(SpawnedSpec, Arc<Gate>)>, Option<Arc<Bell>>);

/// The thread.
pub struct Thread {
    report: ThreadReport,
    tasks: Vec<CyclicTask>,
    gates: Vec<Arc<Gate>>,
    bell: Option<Arc<Bell>>,
    stop: Stop,
    /// Times it gave up its core to wait for a task, at most.
    sleeps: u64,
}

impl Thread {
    /// On the thread itself.
    #[must_use]
    pub fn new(
        fifo: Option<u8>,
        tasks: Vec<CyclicTask>,
        specs: Vec<TaskSpec>,
        (spawned, bell): Spawned,
        stop: Stop,
    ) -> Self {
        let of_tasks = specs.into_iter().zip(&tasks).map(|(spec, task)| TaskReport {
            spec,
            statistics: task.statistics().clone(),
            cpu_worst: Nanos::ZERO,
        });
        let tasks_of = of_tasks.collect();
        let (specs, gates): (Vec<_>, Vec<_>) = spawned.into_iter().unzip();
        let spawned = specs.into_iter().map(SpawnedReport::new).collect();
        let report = ThreadReport { fifo, tasks: tasks_of, spawned, blocked: 0 };
        Thread { report, tasks, gates, bell, stop, sleeps: 0 }
    }

    /// Runs until told to stop. `body` runs a task, and says when a spawned one was released.
    pub fn run<F>(mut self, rank: Rank, mut body: F) -> ThreadReport
    where
        F: FnMut(Next, Rank, &Stop) -> Option<MonoTime>,
    {
        let (began, given_up) = (mono_now(), given_up());
        while let Some(next) = self.next() {
            let before = used();
            let name = match next {
                Next::Cycle(at, _) => self.report.tasks[at].spec.name,
                Next::Spawned(at, _) => self.report.spawned[at].spec.name,
            };
            let released = or_end(name, || body(next, rank, &self.stop));
            let cpu = Nanos(used().0.saturating_sub(before.0));
            match next {
                Next::Cycle(at, _) => {
                    let worst = &mut self.report.tasks[at].cpu_worst;
                    *worst = cpu.max(*worst);
                    self.tasks[at].done();
                }
                Next::Spawned(at, _) => {
                    let since = released.unwrap_or(began).max(began);
                    self.report.spawned[at].ran(since, mono_now(), cpu);
                }
            }
        }
        self.ended(given_up)
    }

    /// Waits for what runs next; `None`: the thread is to end.
    fn next(&mut self) -> Option<Next> {
        while !self.stop.asked() {
            let due = self.tasks.iter().enumerate().filter_map(|(at, task)| Some((task.due()?, at))).min();
            let waits = self.gates.iter().enumerate().filter_map(|(at, gate)| Some((gate.first()?, at))).min();
            if let Some((since, at)) = waits
                && due.is_none_or(|(due, _)| since <= due)
            {
                return Some(Next::Spawned(at, mono_now()));
            }
            self.sleeps += 1;
            match (due, &self.bell) {
                (None, None) => return None,
                (None, Some(bell)) => {
                    bell.sleep(None, || has_work(&self.gates, &self.stop));
                }
                (Some((_, at)), bell) => {
                    let waited = match bell {
                        None => self.tasks[at].wait().map_or(Waited::Over, Waited::Activation),
                        Some(bell) => self.tasks[at]
                            .wait_by(|until| !bell.sleep(Some(until), || has_work(&self.gates, &self.stop))),
                    };
                    match waited {
                        // The cycle at which the task ends.
                        Waited::Activation(_) if self.stop.asked() => return None,
                        Waited::Activation(activation) => return Some(Next::Cycle(at, activation)),
                        Waited::CutShort => {}
                        Waited::Over => return None,
                    }
                }
            }
        }
        None
    }

    fn ended(mut self, given_up_before: u64) -> ThreadReport {
        self.report.blocked = given_up().saturating_sub(given_up_before).saturating_sub(self.sleeps);
        for (report, task) in self.report.tasks.iter_mut().zip(&self.tasks) {
            report.statistics = task.statistics().clone();
        }
        for (report, gate) in self.report.spawned.iter_mut().zip(&self.gates) {
            (report.refused_early, report.refused_full) = (gate.refused_early(), gate.refused_full());
        }
        self.report
    }
}

fn has_work(gates: &[Arc<Gate>], stop: &Stop) -> bool {
    stop.asked() || gates.iter().any(|gate| gate.first().is_some())
}

/// Processor time of the current thread.
fn used() -> Nanos {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Nanos::ZERO, |time| Duration::from(time).into())
}

/// Times the current thread gave up its core of itself.
fn given_up() -> u64 {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).map_or(0, |usage| usage.voluntary_context_switches());
    u64::try_from(usage).unwrap_or(0)
}
