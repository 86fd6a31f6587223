//! Threads that clients hand over, and memory that they want to lock.
//!
//! The runtime's own rights stand behind it: `CAP_SYS_NICE` for priorities and cores of other
//! users' threads, `CAP_SYS_RESOURCE` for what they may lock. A refusal says which is missing.

use super::Server;
use crate::action::Note;
use crate::hub::Refusal;
use crate::identity;
use crate::places::PLACES_PER_SECOND;
use crate::spec::{HubSpec, undisturbed};
use insane_core::SessionId;
use insane_sys::foreign_thread::ForeignThread;
use insane_sys::privileges::{Capability, has_capability};
use insane_sys::thread::raise_memlock_of;
use insane_sys::{Errno, OsError};
use insane_wire::control::{Code, Event};
use tracing::{info, warn};

impl Server {
    /// Says how it went.
    pub(super) fn answer_done(&mut self, session: SessionId, req: u32, done: Result<(), Refusal>) {
        let event = match done {
            Ok(()) => Event::Done { req },
            Err(Refusal { code, reason }) => {
                self.note(&Note::Refused { session, code, reason: reason.clone() });
                Event::Failed { req, code, reason }
            }
        };
        self.send(session, &event, &[]);
    }

    pub(super) fn place_thread(
        &mut self,
        session: SessionId,
        tid: u32,
        priority: Option<u8>,
        core: Option<u16>,
    ) -> Result<(), Refusal> {
        let Some(domain) = self.parts.hub.domain_of(session) else { return Ok(()) };
        if !self.places.may_ask(domain, self.now) {
            let reason = format!("the domain may hand over {PLACES_PER_SECOND} threads a second; try again");
            return Err(Refusal::new(Code::Quota, reason));
        }
        let spec = self.parts.hub.spec();
        let rule = spec.domains[domain.index()].realtime.clone();
        let cores = rule.cores_for(priority, core).and_then(|cores| undisturbed(&cores, priority, &spec.cores));
        let cores = cores.map_err(|reason| Refusal::new(Code::Access, reason))?;
        let process = self.process_of(session)?;
        let thread = ForeignThread::find(process, i32::try_from(tid).unwrap_or(0))
            .map_err(|error| Refusal::new(Code::Access, error.to_string()))?;
        // The number of a process that has ended may be another's by now.
        self.process_of(session)?;
        let here = thread.tid();
        if !self.places.has_room(domain, here, &rule) {
            let most = rule.threads_max;
            let reason = format!("the domain's rule gives {most} threads, which are there (`realtime.threads_max`)");
            return Err(Refusal::new(Code::Quota, reason));
        }
        self.places.give((session, domain), thread, priority, &cores).map_err(|error| refusal(error, here))?;
        info!(%session, tid = here, ?priority, ?cores, "thread placed");
        Ok(())
    }

    pub(super) fn lock_memory(&mut self, session: SessionId, bytes: u64) -> Result<(), Refusal> {
        let Some(domain) = self.parts.hub.domain_of(session) else { return Ok(()) };
        let most = self.parts.hub.spec().domains[domain.index()].realtime.locked_bytes_max;
        if bytes > most {
            let reason = format!(
                "{bytes} bytes are to be locked, and the domain's rule gives {most} (`realtime.locked_bytes_max`)"
            );
            return Err(Refusal::new(Code::Access, reason));
        }
        let process = self.process_of(session)?;
        raise_memlock_of(process, bytes).map(drop).map_err(|error| {
            let remedy = "the runtime lacks CAP_SYS_RESOURCE: give it that right, or start the client with a larger \
                          limit on locked memory (RLIMIT_MEMLOCK)";
            let reason = if error.errno == Errno::EPERM { remedy.to_owned() } else { error.to_string() };
            Refusal::new(Code::Resources, reason)
        })
    }

    /// Threads that went where they may not, or whose rule has changed, are put back.
    pub(super) fn watch_places(&mut self) {
        let HubSpec { domains, cores, .. } = self.parts.hub.spec();
        for revoked in self.places.watch(self.now, |domain| &domains[domain.index()].realtime, cores) {
            let (session, tid, why) = (revoked.session, revoked.tid, revoked.why);
            warn!(%session, tid, why, "a thread's priority and cores are taken back");
        }
    }

    /// The process of a session, which is still there.
    fn process_of(&self, session: SessionId) -> Result<i32, Refusal> {
        let refused = |reason: &str| Err(Refusal::new(Code::Access, reason));
        let process = self.sockets.get(&session).and_then(|socket| socket.process());
        let Some(process) = process else { return refused("the kernel does not say which process asks (no pidfd)") };
        if identity::is_gone(process) {
            return refused("the process that attached has ended");
        }
        match self.parts.hub.pid_of(session).map(i32::try_from) {
            Some(Ok(pid)) if pid > 0 => Ok(pid),
            _ => refused("the process is in a pid namespace that the runtime does not see: run it in the host's"),
        }
    }
}

/// The kernel's refusal, and what to do about it.
fn refusal(error: OsError, tid: i32) -> Refusal {
    let reason = match error.errno {
        Errno::EPERM if !has_capability(Capability::SysNice) => {
            "the runtime lacks CAP_SYS_NICE: run it as root, or with AmbientCapabilities=CAP_SYS_NICE".to_owned()
        }
        Errno::EPERM => match rt_share(tid) {
            Some((path, 0)) => format!(
                "{path} is 0, so no thread of that group may have a priority: write a share of time into it, or \
                 move the container to a group that has one"
            ),
            _ => error.to_string(),
        },
        Errno::EINVAL => "the cores of the domain's rule are not in the cpuset of the thread's container".to_owned(),
        Errno::ESRCH => "the thread has ended".to_owned(),
        _ => error.to_string(),
    };
    Refusal::new(Code::Resources, reason)
}

/// The share of time that the thread's group has for real-time policies, microseconds, and
/// the file that says so; `None` where the kernel does not divide it (RT_GROUP_SCHED).
fn rt_share(tid: i32) -> Option<(String, i64)> {
    const HIERARCHIES: [&str; 2] = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"];
    let groups = std::fs::read_to_string(format!("/proc/{tid}/cgroup")).ok()?;
    let group = cpu_group(&groups)?;
    HIERARCHIES.iter().find_map(|hierarchy| {
        let path = format!("{hierarchy}{}/cpu.rt_runtime_us", group.trim_end_matches('/'));
        let share = std::fs::read_to_string(&path).ok()?.trim().parse().ok()?;
        Some((path, share))
    })
}

/// The group of the controller `cpu` in `/proc/PID/cgroup`.
fn cpu_group(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let is_cpu = parts.nth(1)?.split(',').any(|controller| controller == "cpu");
        is_cpu.then(|| parts.next()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_the_cpu_controller_is_found() {
        assert_eq!(cpu_group("4:memory:/a\n3:cpu,cpuacct:/plc/1:2\n0::/"), Some("/plc/1:2"));
        assert_eq!(cpu_group("2:cpuacct:/x\n1:cpu:/\n"), Some("/"));
        assert_eq!(cpu_group("3:cpuset:/\n0::/user.slice\n"), None);
    }

    #[test]
    fn what_the_kernel_refuses_is_told_with_a_remedy() {
        let told = |errno| refusal(OsError::new("setting", errno), 0).reason;
        assert!(told(Errno::ESRCH).contains("ended"));
        assert!(told(Errno::EINVAL).contains("cpuset"));
        if !has_capability(Capability::SysNice) {
            assert!(told(Errno::EPERM).contains("CAP_SYS_NICE"));
        }
    }
}
