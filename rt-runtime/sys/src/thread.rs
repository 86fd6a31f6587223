//! Where and how urgently a thread runs.

use crate::error::{Errno, OsError, attempted, check};
use std::sync::OnceLock;

/// How the kernel chooses when a thread runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SchedPolicy {
    /// The ordinary, fair policy.
    #[default]
    Other,
    /// First in, first out, at a real-time priority from 1 to 99: runs until it
    /// sleeps or something more urgent comes.
    Fifo(u8),
}

/// Why a thread is not pinned.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PinError {
    /// The process may not use that core, or there is none.
    #[error("core {core} is not among the cores of this process: {available:?}")]
    NoSuchCore {
        /// The core asked for.
        core: usize,
        /// The cores there are.
        available: &'static [usize],
    },
    /// The kernel refused.
    #[error("the kernel refused to pin the thread to core {core}")]
    Refused {
        /// The core asked for.
        core: usize,
    },
}

/// Names the current thread, as tools show it; cut after 15 bytes.
pub fn set_name(name: &str) {
    let mut bytes = [0u8; 16];
    for (to, from) in bytes.iter_mut().zip(name.bytes().take(15)) {
        *to = from;
    }
    // SAFETY: the kernel reads at most 16 bytes, ended by a zero.
    unsafe { libc::prctl(libc::PR_SET_NAME, bytes.as_ptr()) };
}

/// The cores this process could use when it first asked. Called before any thread
/// is pinned: a pinned thread sees only its own.
#[must_use]
pub fn cores() -> &'static [usize] {
    static CORES: OnceLock<Vec<usize>> = OnceLock::new();
    CORES.get_or_init(|| core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect())
}

/// Pins the current thread to one core.
///
/// # Errors
/// See [`PinError`].
pub fn pin_current(core: usize) -> Result<(), PinError> {
    let available = cores();
    if !available.contains(&core) {
        return Err(PinError::NoSuchCore { core, available });
    }
    if core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        Ok(())
    } else {
        Err(PinError::Refused { core })
    }
}

/// The kernel's number of the current thread.
#[must_use]
pub fn current_tid() -> i32 {
    nix::unistd::gettid().as_raw()
}

/// Sets the policy of the current thread.
///
/// # Errors
/// The process may not (`EPERM`), or the priority is not 1 to 99 (`EINVAL`).
pub fn set_policy_current(policy: SchedPolicy) -> Result<(), OsError> {
    set_policy(0, policy)
}

/// Sets the policy of thread `tid` (0: the current one).
///
/// # Errors
/// As [`set_policy_current`]; or there is no such thread (`ESRCH`).
pub fn set_policy(tid: i32, policy: SchedPolicy) -> Result<(), OsError> {
    set_policy_with(tid, policy, 0)
}

/// As [`set_policy`]; what the thread starts afterwards runs under the ordinary policy, so
/// that a priority that was granted to one thread does not become that of many. Nobody
/// without the right to set the policy can undo that.
///
/// # Errors
/// As [`set_policy`].
pub fn set_policy_reset_on_fork(tid: i32, policy: SchedPolicy) -> Result<(), OsError> {
    set_policy_with(tid, policy, libc::SCHED_RESET_ON_FORK)
}

fn set_policy_with(tid: i32, policy: SchedPolicy, flags: i32) -> Result<(), OsError> {
    let (number, priority) = match policy {
        SchedPolicy::Other => (libc::SCHED_OTHER, 0),
        SchedPolicy::Fifo(priority) => (libc::SCHED_FIFO, i32::from(priority)),
    };
    let parameter = libc::sched_param { sched_priority: priority };
    // SAFETY: `parameter` lives through the call.
    check(unsafe { libc::sched_setscheduler(tid, number | flags, &parameter) }, "setting a thread's scheduling policy")
        .map(drop)
}

/// The policy of thread `tid` (0: the current one); `None` for one that this crate
/// never sets.
///
/// # Errors
/// There is no such thread (`ESRCH`).
pub fn policy(tid: i32) -> Result<Option<SchedPolicy>, OsError> {
    const ATTEMPT: &str = "reading a thread's scheduling policy";
    // SAFETY: takes a number.
    let number = check(unsafe { libc::sched_getscheduler(tid) }, ATTEMPT)? & !libc::SCHED_RESET_ON_FORK;
    let mut parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel writes into `parameter`.
    check(unsafe { libc::sched_getparam(tid, &mut parameter) }, ATTEMPT)?;
    Ok(match number {
        libc::SCHED_OTHER => Some(SchedPolicy::Other),
        libc::SCHED_FIFO => u8::try_from(parameter.sched_priority).ok().map(SchedPolicy::Fifo),
        _ => None,
    })
}

/// Keeps all memory of the process, present and future, out of swap.
///
/// # Errors
/// The limit on locked memory is too small (`ENOMEM`, `EPERM`).
pub fn lock_all_memory() -> Result<(), OsError> {
    // SAFETY: changes where memory is kept, not what is in it.
    check(unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) }, "locking all memory").map(drop)
}

/// Raises what another process may lock to `bytes`, if it is less; returns what it was.
///
/// # Errors
/// There is no such process (`ESRCH`), or `CAP_SYS_RESOURCE` is missing (`EPERM`).
pub fn raise_memlock_of(process: i32, bytes: u64) -> Result<u64, OsError> {
    const ATTEMPT: &str = "raising what a process may lock";
    let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes into `before`, which lives through the call.
    check(unsafe { libc::prlimit(process, libc::RLIMIT_MEMLOCK, std::ptr::null(), &mut before) }, ATTEMPT)?;
    if before.rlim_cur < bytes {
        let wanted = libc::rlimit { rlim_cur: bytes, rlim_max: before.rlim_max.max(bytes) };
        // SAFETY: the kernel reads `wanted`, which lives through the call.
        check(unsafe { libc::prlimit(process, libc::RLIMIT_MEMLOCK, &wanted, std::ptr::null_mut()) }, ATTEMPT)?;
    }
    Ok(before.rlim_cur)
}

/// Raises the limit on descriptors as far as the process may; returns it.
///
/// # Errors
/// The limit cannot be read or set.
pub fn raise_nofile_limit() -> Result<u64, OsError> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(attempted("reading the limit on descriptors"))?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(attempted("raising the limit on descriptors"))?;
    }
    Ok(hard)
}

/// Whether `errno` says that a right is missing.
#[must_use]
pub fn is_missing_right(errno: Errno) -> bool {
    matches!(errno, Errno::EPERM | Errno::EACCES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_takes_name_core_and_policy() {
        let all = cores();
        std::thread::spawn(move || {
            set_name("a name that is much too long");
            let name = std::fs::read_to_string(format!("/proc/self/task/{}/comm", current_tid())).unwrap();
            assert_eq!(name.trim_end_matches('\n'), "a name that is ");
            pin_current(all[0]).unwrap();
            assert_eq!(core_affinity::get_core_ids().unwrap().len(), 1, "pinned");
            assert_eq!(cores(), all, "the cores were read before");
            assert_eq!(policy(0).unwrap(), Some(SchedPolicy::Other));
            match set_policy_current(SchedPolicy::Fifo(1)) {
                Ok(()) => assert_eq!(policy(current_tid()).unwrap(), Some(SchedPolicy::Fifo(1))),
                Err(error) => assert!(is_missing_right(error.errno), "{error}"),
            }
            set_policy(current_tid(), SchedPolicy::Other).unwrap();
            assert_eq!(policy(0).unwrap(), Some(SchedPolicy::Other));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn what_cannot_be_is_an_error() {
        assert!(matches!(pin_current(99_999), Err(PinError::NoSuchCore { core: 99_999, .. })));
        assert_eq!(set_policy_current(SchedPolicy::Fifo(100)).unwrap_err().errno, Errno::EINVAL);
    }

    #[test]
    fn the_limit_on_descriptors_reaches_the_hard_one() {
        let limit = raise_nofile_limit().unwrap();
        let (soft, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(soft, limit);
    }
}
