//! What was declared, and what was done.

use insane_core::{MonoTime, Nanos};
use insane_rt::CyclicStatistics;

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

/// What is declared of a task that is spawned, nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpawnedSpec {
    /// Its name.
    pub name: &'static str,
    /// Between two spawns, at least.
    pub interval_ns: u64,
    /// From release to end. The release is what makes the task runnable, inside the call of
    /// `spawn`: what preempts its caller before is the caller's time.
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

/// What a spawned task did.
#[derive(Clone, Debug)]
pub struct SpawnedReport {
    /// What was declared.
    pub spec: SpawnedSpec,
    /// Times it ran.
    pub runs: u64,
    /// Spawns refused since they came before the interval was over.
    pub refused_early: u64,
    /// Spawns refused since as many waited as its capacity.
    pub refused_full: u64,
    /// Runs that ended after their deadline.
    pub deadline_misses: u64,
    /// The longest from release to end; what `init` spawned counts from when the thread began.
    pub response_worst: Nanos,
    /// The most processor time that a run took.
    pub cpu_worst: Nanos,
}

impl SpawnedReport {
    /// As [`TaskReport::kept_wcet`].
    #[must_use]
    pub fn kept_wcet(&self) -> bool {
        self.cpu_worst.0 <= self.spec.wcet_ns
    }

    pub(crate) fn new(spec: SpawnedSpec) -> Self {
        SpawnedReport {
            spec,
            runs: 0,
            refused_early: 0,
            refused_full: 0,
            deadline_misses: 0,
            response_worst: Nanos::ZERO,
            cpu_worst: Nanos::ZERO,
        }
    }

    pub(crate) fn ran(&mut self, released: MonoTime, ended: MonoTime, cpu: Nanos) {
        let response = ended.since(released);
        self.runs += 1;
        self.deadline_misses += u64::from(response.0 > self.spec.deadline_ns);
        self.response_worst = self.response_worst.max(response);
        self.cpu_worst = self.cpu_worst.max(cpu);
    }
}

/// What the thread of one priority did.
#[derive(Clone, Debug, Default)]
pub struct ThreadReport {
    /// The `SCHED_FIFO` priority that was asked for; `None`: none was.
    pub fifo: Option<u8>,
    /// Its tasks with a cycle.
    pub tasks: Vec<TaskReport>,
    /// Its tasks that are spawned.
    pub spawned: Vec<SpawnedReport>,
    /// Times the kernel saw the thread give up its core other than to wait for a task to be due:
    /// a task called something that waits, as a lock that is held, a file, or a page on disk.
    /// At least so often; a sleep that a signal interrupts counts, too.
    pub blocked: u64,
}

/// What a program did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Its threads, the less urgent first.
    pub threads: Vec<ThreadReport>,
    /// Locks that did not raise to their ceilings, where those are lent: the program's threads
    /// were not all on one core.
    pub unraised: u64,
}

impl Report {
    /// The tasks with a cycle, the less urgent first.
    pub fn tasks(&self) -> impl Iterator<Item = &TaskReport> {
        self.threads.iter().flat_map(|thread| &thread.tasks)
    }

    /// The tasks that are spawned, the less urgent first.
    pub fn spawned_tasks(&self) -> impl Iterator<Item = &SpawnedReport> {
        self.threads.iter().flat_map(|thread| &thread.spawned)
    }

    /// The task with a cycle of that name.
    #[must_use]
    pub fn task(&self, name: &str) -> Option<&TaskReport> {
        self.tasks().find(|task| task.spec.name == name)
    }

    /// The spawned task of that name.
    #[must_use]
    pub fn spawned(&self, name: &str) -> Option<&SpawnedReport> {
        self.spawned_tasks().find(|task| task.spec.name == name)
    }
}
