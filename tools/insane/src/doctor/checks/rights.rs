//! Rights and limits of the caller. The daemon's may differ: run doctor as its user.

use super::some_of;
use crate::doctor::finding::{Entry, Mend, Outcome, bad, good, warning};
use crate::doctor::host::Host;
use crate::doctor::reader::Known;
use crate::doctor::wanted::Wanted;
use insane_config::planner::human;
use insane_sys::privileges::Capability;

const UNREAD: &str = "Run it as the user that runs the runtime, where /proc is mounted.";
const OWN_RIGHTS: &str = "a process cannot give itself rights";
const OWN_LIMITS: &str = "the limits are those of whoever starts the runtime";

pub const ENTRIES: &[Entry] = &[
    Entry {
        id: "cap-sys-nice",
        weight: 5,
        reads: "capabilities in effect (capget)",
        why: "The runtime puts datapaths and clients' tasks under SCHED_FIFO with it. As ordinary threads they \
              wait milliseconds for any busy program.",
        source: "capabilities(7), sched(7)",
        unread: UNREAD,
        check: sys_nice,
        mend: Mend::ByHand(OWN_RIGHTS),
    },
    Entry {
        id: "cap-ipc-lock",
        weight: 3,
        reads: "capabilities in effect (capget)",
        why: "It lifts the limit on locked memory. A page that is not locked may be fetched from disk in the \
              middle of a cycle.",
        source: "capabilities(7), mlock(2)",
        unread: UNREAD,
        check: ipc_lock,
        mend: Mend::ByHand(OWN_RIGHTS),
    },
    Entry {
        id: "cap-net-admin",
        weight: 2,
        reads: "capabilities in effect (capget)",
        why: "Sockets may have larger buffers than the system's limit with it, and poll their card: bursts get \
              lost, or wait for an interrupt, without. Links over AF_XDP do not open without it.",
        source: "capabilities(7), socket(7)",
        unread: UNREAD,
        check: net_admin,
        mend: Mend::ByHand(OWN_RIGHTS),
    },
    Entry {
        id: "cap-net-raw",
        weight: 1,
        reads: "capabilities in effect (capget)",
        why: "Links over AF_XDP and over packet sockets (dpdk) do not open without it: their streams take another \
              link, or none.",
        source: "capabilities(7), packet(7)",
        unread: UNREAD,
        check: net_raw,
        mend: Mend::ByHand(OWN_RIGHTS),
    },
    Entry {
        id: "cap-bpf",
        weight: 1,
        reads: "capabilities in effect (capget)",
        why: "Links over AF_XDP load a program into the kernel with it, and do not open without; so does \
              `insane trace`.",
        source: "capabilities(7), bpf(2)",
        unread: UNREAD,
        check: bpf,
        mend: Mend::ByHand(OWN_RIGHTS),
    },
    Entry {
        id: "limit-rtprio",
        weight: 3,
        reads: "RLIMIT_RTPRIO",
        why: "Without CAP_SYS_NICE it is the highest SCHED_FIFO priority that the process may use.",
        source: "getrlimit(2), sched(7)",
        unread: UNREAD,
        check: limit_rtprio,
        mend: Mend::ByHand(OWN_LIMITS),
    },
    Entry {
        id: "limit-memlock",
        weight: 3,
        reads: "RLIMIT_MEMLOCK",
        why: "Without CAP_IPC_LOCK it bounds the memory that is kept from being swapped out or dropped.",
        source: "getrlimit(2), mlock(2)",
        unread: UNREAD,
        check: limit_memlock,
        mend: Mend::ByHand(OWN_LIMITS),
    },
    Entry {
        id: "limit-nofile",
        weight: 2,
        reads: "RLIMIT_NOFILE (the hard limit: the runtime raises the soft one)",
        why: "Every session, ring, heap and sink is a descriptor; when they run out, new applications are refused.",
        source: "getrlimit(2); the sum is that of the quotas (module wanted)",
        unread: UNREAD,
        check: limit_nofile,
        mend: Mend::ByHand(OWN_LIMITS),
    },
];

fn has(host: &Host, capability: Capability) -> Result<bool, crate::doctor::reader::Unread> {
    Ok(host.calls.capabilities.known()? >> capability as u32 & 1 == 1)
}

fn grant(capability: &str) -> String {
    let mut all = "cap_sys_nice,cap_ipc_lock,cap_net_admin".to_owned();
    let own = capability.to_lowercase();
    if !all.contains(&own) {
        all = format!("{all},{own}");
    }
    format!(
        "$ setcap {all}+ep \"$(command -v insaned)\"\n\
         or in the unit of systemd: AmbientCapabilities={capability}"
    )
}

/// What RLIMIT_RTPRIO admits.
fn admits(host: &Host, priority: u8) -> bool {
    let bounds = host.calls.priority.as_ref().ok();
    bounds.is_some_and(|bounds| bounds.soft.is_none_or(|soft| soft >= u64::from(priority)))
}

fn sys_nice(host: &Host, wanted: &Wanted) -> Outcome {
    if has(host, Capability::SysNice)? {
        return good("held");
    }
    let remedy = grant("CAP_SYS_NICE");
    match wanted.fifo_max() {
        Some(priority) if admits(host, priority) => {
            warning(format!("missing; the limit admits priority {priority}, but not to set clients' tasks"), remedy)
        }
        Some(priority) => bad(format!("missing, and the configuration wants SCHED_FIFO {priority}"), remedy),
        None => warning("missing", remedy),
    }
}

fn ipc_lock(host: &Host, wanted: &Wanted) -> Outcome {
    if has(host, Capability::IpcLock)? {
        return good("held");
    }
    let remedy = grant("CAP_IPC_LOCK");
    let enough = |bytes| host.calls.locked.as_ref().is_ok_and(|bounds| bounds.soft.is_none_or(|soft| soft >= bytes));
    match wanted.locked_bytes {
        Some(bytes) if enough(bytes) => good("missing, and not needed: the limit on locked memory suffices"),
        Some(_) => bad("missing, and the configuration wants its memory locked", remedy),
        None => warning("missing", remedy),
    }
}

fn net_admin(host: &Host, wanted: &Wanted) -> Outcome {
    if has(host, Capability::NetAdmin)? {
        return good("held");
    }
    let remedy = grant("CAP_NET_ADMIN");
    if let Some(read) = needed_by(wanted.loading()) {
        return bad(read, remedy);
    }
    match wanted.datapaths.iter().any(|datapath| datapath.polls_its_cards) {
        true => bad("missing, and the configuration wants its cards polled", remedy),
        false => warning("missing", remedy),
    }
}

/// What to say of a missing right that links cannot do without; nothing where there are none.
fn needed_by<'w>(links: impl Iterator<Item = &'w String>) -> Option<String> {
    let links: Vec<String> = links.map(|name| format!("\"{name}\"")).collect();
    (!links.is_empty())
        .then(|| format!("missing, and links of the configuration do not open without: {}", some_of(&links)))
}

fn net_raw(host: &Host, wanted: &Wanted) -> Outcome {
    let held = has(host, Capability::NetRaw)?;
    match needed_by(wanted.raw()) {
        _ if held => good("held"),
        Some(read) => bad(read, grant("CAP_NET_RAW")),
        None => good("missing, and not needed: no link is over AF_XDP or packet sockets"),
    }
}

fn bpf(host: &Host, wanted: &Wanted) -> Outcome {
    /// It holds CAP_BPF within it, from the time before that one.
    const SYS_ADMIN: u32 = 21;
    if has(host, Capability::Bpf)? || host.calls.capabilities.known()? >> SYS_ADMIN & 1 == 1 {
        return good("held");
    }
    match needed_by(wanted.loading()) {
        Some(read) => bad(read, grant("CAP_BPF")),
        None => warning("missing", grant("CAP_BPF")),
    }
}

fn limit_rtprio(host: &Host, wanted: &Wanted) -> Outcome {
    /// 99 belongs to the kernel's watchdogs.
    const HIGHEST: u8 = 98;
    let held = has(host, Capability::SysNice);
    if held == Ok(true) {
        return good("not needed beside CAP_SYS_NICE");
    }
    let bounds = host.calls.priority.known()?;
    let read = bounds.soft.map_or("unlimited".to_owned(), |soft| soft.to_string());
    let needed = wanted.fifo_max().unwrap_or(HIGHEST);
    if admits(host, needed) {
        return good(read);
    }
    // A limit that is too low matters only where the right is known to be missing.
    held?;
    let remedy = format!(
        "In /etc/security/limits.d/insane.conf, then log in again:\n  USER - rtprio {needed}\n\
         or in the unit of systemd: LimitRTPRIO={needed}"
    );
    match wanted.fifo_max() {
        Some(priority) => bad(format!("{read}, and the configuration wants SCHED_FIFO {priority}"), remedy),
        None => warning(read, remedy),
    }
}

fn limit_memlock(host: &Host, wanted: &Wanted) -> Outcome {
    let held = has(host, Capability::IpcLock);
    if held == Ok(true) {
        return good("not needed beside CAP_IPC_LOCK");
    }
    let bounds = host.calls.locked.known()?;
    let read = bounds.soft.map_or("unlimited".to_owned(), human);
    if bounds.soft.is_none_or(|soft| soft >= wanted.memory_bytes) {
        return good(read);
    }
    held?;
    let remedy = format!(
        "In /etc/security/limits.d/insane.conf (KiB), then log in again:\n  USER - memlock {}\n\
         or in the unit of systemd: LimitMEMLOCK={}",
        wanted.memory_bytes.div_ceil(1024),
        wanted.memory_bytes
    );
    match wanted.locked_bytes {
        Some(bytes) => bad(format!("{read}, and the configuration wants {} locked", human(bytes)), remedy),
        None => warning(format!("{read}; memory.limit_bytes is {}", human(wanted.memory_bytes)), remedy),
    }
}

fn limit_nofile(host: &Host, wanted: &Wanted) -> Outcome {
    let bounds = host.calls.descriptors.known()?;
    let read = bounds.hard.map_or("unlimited".to_owned(), |hard| format!("{hard} may be open"));
    if bounds.hard.is_none_or(|hard| hard >= wanted.descriptors) {
        return good(read);
    }
    warning(
        format!("{read}; used up, the quotas hold {}", wanted.descriptors),
        format!(
            "In /etc/security/limits.d/insane.conf, then log in again:\n  USER hard nofile {0}\n\
             or in the unit of systemd: LimitNOFILE={0}",
            wanted.descriptors
        ),
    )
}
