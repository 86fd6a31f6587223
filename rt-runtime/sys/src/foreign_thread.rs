//! Threads of other processes: found by what the kernel says, and placed.
//!
//! A thread is known by an open file of its own in `/proc`. The kernel binds that file to the
//! thread and not to its number: once the thread is gone, reading fails, whoever bears the
//! number by then.

use crate::error::{Errno, OsError, attempted};
use crate::thread::{SchedPolicy, policy, set_policy_reset_on_fork};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Threads of a process in a namespace of its own that are looked through for one of them:
/// each costs reading a file.
pub const THREADS_MAX: usize = 256;
/// Longer than any `/proc/PID/task/TID/stat`.
const STAT_BYTES: usize = 1024;

/// Why a thread is not found.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FindError {
    /// The process cannot be seen from here.
    #[error("its process is not in this process's pid namespace")]
    OutOfSight,
    /// None of its threads has that number.
    #[error("process {process} has no thread {tid}, as it counts them")]
    NotOfProcess {
        /// The process, as it is numbered here.
        process: i32,
        /// The thread, as the process numbers it.
        tid: i32,
    },
    /// There are too many to look through.
    #[error("process {process} has a pid namespace of its own and more than {THREADS_MAX} threads")]
    TooMany {
        /// The process.
        process: i32,
    },
}

/// A thread of another process.
#[derive(Debug)]
pub struct ForeignThread {
    tid: i32,
    stat: File,
}

/// Where and how urgently a thread runs.
#[derive(Clone, Debug)]
pub struct Placement {
    policy: SchedPolicy,
    cores: CpuSet,
}

impl ForeignThread {
    /// The thread of `process` that calls itself `tid` (`gettid` there, in whatever pid
    /// namespace that is). The caller sees to it that `process` is still the same one
    /// afterwards.
    ///
    /// # Errors
    /// See [`FindError`].
    pub fn find(process: i32, tid: i32) -> Result<Self, FindError> {
        if process <= 0 {
            return Err(FindError::OutOfSight);
        }
        let missing = FindError::NotOfProcess { process, tid };
        let own = std::fs::read_to_string(format!("/proc/{process}/status")).map_err(|_| missing.clone())?;
        if numbers(&own).is_some_and(|(_, is_nested)| !is_nested) {
            return Self::open(process, tid, tid).ok_or(missing);
        }
        let tasks = std::fs::read_dir(format!("/proc/{process}/task")).map_err(|_| missing.clone())?;
        for (count, task) in tasks.flatten().enumerate() {
            if count >= THREADS_MAX {
                return Err(FindError::TooMany { process });
            }
            let found = task.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(thread) = found.and_then(|here| Self::open(process, here, tid)) {
                return Ok(thread);
            }
        }
        Err(missing)
    }

    /// Thread `here` of the process, if it calls itself `there`.
    fn open(process: i32, here: i32, there: i32) -> Option<Self> {
        // First the file that is the thread's own: what is read after it, and is read from
        // it again, is of one thread.
        let stat = File::open(format!("/proc/{process}/task/{here}/stat")).ok()?;
        let status = std::fs::read_to_string(format!("/proc/{process}/task/{here}/status")).ok()?;
        let thread = ForeignThread { tid: here, stat };
        (numbers(&status)?.0 == there && thread.is_alive()).then_some(thread)
    }

    /// Its number, as this process's namespace counts.
    #[must_use]
    pub const fn tid(&self) -> i32 {
        self.tid
    }

    /// Whether the thread still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let mut bytes = [0; STAT_BYTES];
        let Ok(len) = self.stat.read_at(&mut bytes, 0) else { return false };
        let text = String::from_utf8_lossy(&bytes[..len]);
        // The name before it is in parentheses, and may hold any.
        let state = text.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
        state.is_some_and(|state| !matches!(state, 'Z' | 'X' | 'x'))
    }

    /// What the thread calls itself; empty if it is gone.
    #[must_use]
    pub fn name(&self) -> String {
        std::fs::read_to_string(format!("/proc/{0}/comm", self.tid)).unwrap_or_default().trim_end().to_owned()
    }

    /// Where it runs.
    ///
    /// # Errors
    /// The thread is gone (`ESRCH`).
    pub fn placement(&self) -> Result<Placement, OsError> {
        let policy = policy(self.tid)?.unwrap_or_default();
        let cores = sched_getaffinity(Pid::from_raw(self.tid)).map_err(attempted("reading a thread's cores"))?;
        self.still_alive(Placement { policy, cores })
    }

    /// The cores that it may run on.
    ///
    /// # Errors
    /// As [`placement`](Self::placement).
    pub fn cores(&self) -> Result<Vec<usize>, OsError> {
        let cores = self.placement()?.cores;
        Ok((0..CpuSet::count()).filter(|core| cores.is_set(*core).unwrap_or(false)).collect())
    }

    /// Lets it run on `cores` only, and under `policy` if one is given; both, or neither.
    /// What it starts afterwards runs under the ordinary policy.
    ///
    /// # Errors
    /// A right is missing (`EPERM`), the cores are none of its cpuset (`EINVAL`), or it is
    /// gone (`ESRCH`).
    pub fn place(&self, policy: Option<SchedPolicy>, cores: &[usize]) -> Result<(), OsError> {
        let mut set = CpuSet::new();
        for core in cores {
            set.set(*core).map_err(attempted("naming a core"))?;
        }
        let before = self.placement()?;
        self.set(&Placement { policy: policy.unwrap_or(before.policy), cores: set }, policy.is_some())
            .and_then(|()| self.still_alive(()))
            // A number that has passed to another thread in between was touched by mistake.
            .inspect_err(|_| {
                let _ = self.set(&before, true);
            })
    }

    /// Puts it back on its cores, and under the ordinary policy if `is_given` says that it was
    /// given another: what it was before may have been given, too.
    ///
    /// # Errors
    /// As [`place`](Self::place).
    pub fn put_back(&self, before: &Placement, is_given: bool) -> Result<(), OsError> {
        self.still_alive(())?;
        self.set(&Placement { policy: SchedPolicy::Other, cores: before.cores }, is_given)
    }

    fn set(&self, to: &Placement, with_policy: bool) -> Result<(), OsError> {
        sched_setaffinity(Pid::from_raw(self.tid), &to.cores).map_err(attempted("setting a thread's cores"))?;
        if with_policy { set_policy_reset_on_fork(self.tid, to.policy) } else { Ok(()) }
    }

    fn still_alive<T>(&self, value: T) -> Result<T, OsError> {
        if self.is_alive() { Ok(value) } else { Err(OsError::new("looking for a thread", Errno::ESRCH)) }
    }
}

/// What a thread is called in the innermost of its pid namespaces, and whether that is
/// another than the one it is looked at from.
fn numbers(status: &str) -> Option<(i32, bool)> {
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    let mut all = line.split_whitespace();
    let first = all.next()?;
    let last = all.next_back();
    Some((last.unwrap_or(first).parse().ok()?, last.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thread::current_tid;
    use std::sync::mpsc::channel;

    fn own_process() -> i32 {
        i32::try_from(std::process::id()).unwrap()
    }

    /// A thread that lives until the sender is dropped.
    fn sleeper() -> (i32, std::sync::mpsc::Sender<()>, std::thread::JoinHandle<()>) {
        let (tell, told) = channel();
        let (end, ended) = channel::<()>();
        let thread = std::thread::spawn(move || {
            tell.send(current_tid()).unwrap();
            let _ = ended.recv();
        });
        (told.recv().unwrap(), end, thread)
    }

    #[test]
    fn a_thread_is_found_by_its_process_and_by_no_other() {
        let (tid, end, thread) = sleeper();
        let found = ForeignThread::find(own_process(), tid).unwrap();
        assert!(found.is_alive() && found.tid() == tid);
        let parent = nix::unistd::getppid().as_raw();
        assert_eq!(
            ForeignThread::find(parent, tid).unwrap_err(),
            FindError::NotOfProcess { process: parent, tid },
            "of another process"
        );
        assert_eq!(ForeignThread::find(own_process(), parent).unwrap_err(), {
            FindError::NotOfProcess { process: own_process(), tid: parent }
        });
        assert_eq!(ForeignThread::find(0, tid).unwrap_err(), FindError::OutOfSight);
        for none in [0, -1, i32::MAX, i32::MIN] {
            assert!(ForeignThread::find(own_process(), none).is_err());
        }
        drop(end);
        thread.join().unwrap();
    }

    #[test]
    fn a_thread_that_ended_is_dead_and_cannot_be_placed() {
        let (tid, end, thread) = sleeper();
        let found = ForeignThread::find(own_process(), tid).unwrap();
        drop(end);
        thread.join().unwrap();
        // The kernel reaps it a moment after its end can be seen.
        while found.is_alive() {
            std::thread::yield_now();
        }
        assert_eq!(found.place(Some(SchedPolicy::Other), &[0]).unwrap_err().errno, Errno::ESRCH);
        assert!(ForeignThread::find(own_process(), tid).is_err());
    }

    #[test]
    fn cores_and_policy_are_set_together_or_not_at_all() {
        let (tid, end, thread) = sleeper();
        let found = ForeignThread::find(own_process(), tid).unwrap();
        let before = found.placement().unwrap();
        let cores = found.cores().unwrap();
        found.place(None, &cores[..1]).unwrap();
        assert_eq!(found.cores().unwrap(), cores[..1]);
        found.put_back(&before, true).unwrap();
        assert_eq!(policy(tid).unwrap(), Some(SchedPolicy::Other));
        assert_eq!(found.cores().unwrap(), cores);
        assert_eq!(found.place(Some(SchedPolicy::Fifo(100)), &cores[..1]).unwrap_err().errno, Errno::EINVAL);
        assert_eq!(found.cores().unwrap(), cores, "the cores went back, too");
        drop(end);
        thread.join().unwrap();
    }

    #[test]
    fn the_innermost_number_counts() {
        assert_eq!(numbers("Name:\tx\nNSpid:\t71\n"), Some((71, false)));
        assert_eq!(numbers("NSpid:\t4711\t812\t7\n"), Some((7, true)));
        assert_eq!(numbers("Name:\tx\n"), None);
    }
}
