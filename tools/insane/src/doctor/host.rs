//! A snapshot of what determinism depends on. Every fact is read once ([`super::gather`]),
//! and is either there or says why it is not; no check reads anything itself.

use super::calls::Calls;
use super::cores::Cores;
use super::reader::{Known, Read};
use std::collections::BTreeMap;

/// What was read.
pub struct Host {
    /// Version of the kernel, major and minor.
    pub kernel: Read<(u32, u32)>,
    /// Its name, as `uname -r` says it.
    pub release: Read<String>,
    /// How it was built, as `uname -v` says it.
    pub build: Read<String>,
    /// What `/sys/kernel/realtime` holds, on PREEMPT_RT kernels.
    pub realtime: Read<String>,
    /// Options of the build: `y`, `m`, `n`.
    pub config: Read<BTreeMap<String, char>>,
    /// Parameters of the boot; the last of a name counts.
    pub parameters: Read<BTreeMap<String, String>>,
    /// Cores on line.
    pub online: Read<Cores>,
    /// Cores without load balancing.
    pub isolated: Read<Cores>,
    /// Cores whose tick stops; `None`: the kernel cannot.
    pub nohz_full: Read<Option<Cores>>,
    /// Cores whose RCU callbacks run elsewhere.
    pub rcu_nocbs: Read<Cores>,
    /// Governor of each core on line.
    pub governors: BTreeMap<u16, Read<String>>,
    /// Idle states of each core on line.
    pub idle_states: BTreeMap<u16, Read<Vec<IdleState>>>,
    /// `sched_rt_runtime_us` and `sched_rt_period_us`.
    pub rt_share: Read<(i64, i64)>,
    /// The fair server of each core.
    pub fair_servers: Read<Vec<FairServer>>,
    /// Whether real-time threads are rationed by group.
    pub rt_group: Read<RtGroup>,
    /// Interrupts that somebody handles.
    pub irqs: Read<Vec<Irq>>,
    /// Threads of the kernel that handle interrupts.
    pub irq_threads: Read<Vec<IrqThread>>,
    /// `[always] madvise never`, whichever is chosen.
    pub huge_pages_for_all: Read<String>,
    /// The same of memory that has a descriptor.
    pub huge_pages_of_shmem: Read<String>,
    /// Pages of `nr_hugepages`.
    pub reserved_huge_pages: Read<u64>,
    /// Places that memory is swapped to.
    pub swaps: Read<Vec<String>>,
    /// Name of the clock source.
    pub clock_source: Read<String>,
    /// Interfaces, but loopback.
    pub nics: Read<Vec<Nic>>,
    /// Answers of system calls.
    pub calls: Calls,
}

/// One way to idle.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdleState {
    /// Name.
    pub name: String,
    /// How long leaving it takes, microseconds.
    pub exit_us: u64,
    /// Whether it is used.
    pub is_enabled: bool,
}

/// What ordinary threads of a core get beside real-time ones that never sleep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FairServer {
    /// Which core.
    pub core: u16,
    /// So long, nanoseconds; 0: nothing.
    pub runtime_ns: u64,
    /// In every so long, nanoseconds.
    pub period_ns: u64,
}

/// Whether real-time threads are rationed by group (RT_GROUP_SCHED).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RtGroup {
    /// No.
    Off,
    /// Yes, and nothing says what this process's group has.
    On,
    /// Yes, and the group has so many microseconds.
    Ration {
        /// The file that says so.
        path: String,
        /// Microseconds in each period.
        runtime_us: i64,
    },
}

/// One interrupt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Irq {
    /// Its number.
    pub number: u32,
    /// Who handles it.
    pub name: String,
    /// The cores that it may arrive at.
    pub allowed: Read<Cores>,
    /// The cores that it arrives at.
    pub cores: Read<Cores>,
}

/// A thread of the kernel that handles interrupts: `irq/...` or `ksoftirqd/...`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IrqThread {
    /// Its name.
    pub name: String,
    /// Real-time priority; 0: an ordinary thread.
    pub priority: u8,
}

impl IrqThread {
    /// The interrupt that it handles; `None`: it is a `ksoftirqd`.
    pub fn irq(&self) -> Option<u32> {
        let rest = self.name.strip_prefix("irq/")?;
        rest.split('-').next()?.parse().ok()
    }

    /// The core whose soft interrupts it handles; `None`: it is an `irq/`.
    pub fn softirq_core(&self) -> Option<u16> {
        self.name.strip_prefix("ksoftirqd/")?.parse().ok()
    }
}

/// One interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nic {
    /// Name.
    pub name: String,
    /// Whether a device stands behind it.
    pub is_physical: bool,
    /// Its interrupts.
    pub irqs: Vec<u32>,
    /// Queues that receive.
    pub receive_queues: Read<usize>,
    /// How often interrupts stay off after an empty poll.
    pub defer: Read<u64>,
}

impl Host {
    /// An option of the kernel's build: `Some(true)`: set; `None`: it knows no such option.
    pub fn option(&self, name: &str) -> Read<Option<bool>> {
        Ok(self.config.known()?.get(name).map(|value| *value != 'n'))
    }

    /// Whether the kernel is PREEMPT_RT.
    pub fn is_preempt_rt(&self) -> Read<bool> {
        match (&self.realtime, &self.build) {
            (Ok(text), _) => Ok(text.trim() == "1"),
            (Err(_), Ok(build)) => Ok(build.split_whitespace().any(|word| word == "PREEMPT_RT" || word == "RT")),
            (Err(_), Err(unread)) => Err(unread.clone()),
        }
    }
}
