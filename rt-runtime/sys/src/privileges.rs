//! What this process may do, so that a missing right is told before it is needed.

use crate::error::{OsError, attempted};
use crate::thread::{SchedPolicy, set_policy_current};

/// A limit of the process, bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// No limit.
    Unlimited,
    /// So many bytes.
    Bytes(u64),
}

/// Whether a thread of this process may use a real-time policy, found by trying
/// on a thread made for it.
///
/// # Errors
/// The kernel's reason: a right is missing (`EPERM`), or no thread could be made
/// (`EAGAIN`).
pub fn can_use_fifo() -> Result<(), OsError> {
    let probe = || set_policy_current(SchedPolicy::Fifo(1));
    let thread = std::thread::Builder::new()
        .name("fifo-probe".into())
        .spawn(probe)
        .map_err(|_| OsError::new("starting a thread", crate::Errno::EAGAIN))?;
    thread.join().unwrap_or_else(|_| Err(OsError::new("trying a real-time policy", crate::Errno::EAGAIN)))
}

/// How much memory this process may lock: the soft limit, or none where it has the
/// right to lock any amount (`CAP_IPC_LOCK`).
///
/// # Errors
/// The limit cannot be read.
pub fn rlimit_memlock() -> Result<Limit, OsError> {
    use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
    let (soft, _) = getrlimit(Resource::RLIMIT_MEMLOCK).map_err(attempted("reading the limit on locked memory"))?;
    if soft == RLIM_INFINITY || has_capability(Capability::IpcLock) {
        return Ok(Limit::Unlimited);
    }
    Ok(Limit::Bytes(soft))
}

/// A right of the kernel's list, by its number there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Capability {
    /// Network devices and queues.
    NetAdmin = 12,
    /// Raw packets.
    NetRaw = 13,
    /// Locked memory without limit.
    IpcLock = 14,
    /// Real-time policies and other processes' cores.
    SysNice = 23,
    /// Limits raised above the hard ones.
    SysResource = 24,
    /// eBPF programs.
    Bpf = 39,
}

/// Whether the calling thread has `capability` in effect.
#[must_use]
pub fn has_capability(capability: Capability) -> bool {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0);
    set & (1 << capability as u32) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_about_fifo_agrees_with_the_deed() {
        let deed = std::thread::spawn(|| set_policy_current(SchedPolicy::Fifo(1))).join().unwrap();
        assert_eq!(can_use_fifo(), deed);
        assert_eq!(crate::thread::policy(0).unwrap(), Some(SchedPolicy::Other), "the asking thread is unchanged");
    }

    #[test]
    fn the_limit_on_locked_memory_can_be_read() {
        let limit = rlimit_memlock().unwrap();
        if has_capability(Capability::IpcLock) {
            assert_eq!(limit, Limit::Unlimited);
        }
    }
}
