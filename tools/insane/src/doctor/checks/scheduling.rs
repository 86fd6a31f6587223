//! What the kernel takes from real-time threads for the others.

use crate::doctor::finding::{Change, Entry, Mend, Outcome, bad, good, warning};
use crate::doctor::host::{FairServer, Host, RtGroup};
use crate::doctor::reader::{Known, Unread, Why};
use crate::doctor::wanted::Wanted;

/// The first kernel in which the fair server replaces throttling (commit 5f6bd380c7bd).
const FAIR_SERVER_SINCE: (u32, u32) = (6, 12);
const RUNTIME: &str = "/proc/sys/kernel/sched_rt_runtime_us";

pub const ENTRIES: &[Entry] = &[
    Entry {
        id: "rt-throttling",
        weight: 5,
        reads: "/proc/sys/kernel/sched_rt_runtime_us, sched_rt_period_us",
        why: "Before 6.12, or with RT_GROUP_SCHED, SCHED_FIFO threads that use a core longer than this in a \
              period are stopped for its rest: 50 ms in which nothing cyclic runs.",
        source: "kernel docs: scheduler/sched-rt-group; commit 5f6bd380c7bd (6.12)",
        unread: "Run it where /proc is mounted.",
        check: throttling,
        mend: Mend::Changes(unthrottle),
    },
    Entry {
        id: "fair-server",
        weight: 4,
        reads: "/sys/kernel/debug/sched/fair_server/cpu*/runtime, period",
        why: "From 6.12 on ordinary threads that starve get this share of a core, before any SCHED_FIFO thread: a \
              datapath that spins under SCHED_FIFO loses it, one that sleeps now and then never does.",
        source: "kernel docs: scheduler/sched-deadline, scheduler/sched-rt-group; kernel/sched/debug.c",
        unread: "As root, on the host (a locked-down kernel refuses even then):\n\
                 $ mount -t debugfs none /sys/kernel/debug",
        check: fair_server,
        mend: Mend::ByHand("without it nothing saves a core from a thread that never sleeps"),
    },
    Entry {
        id: "rt-group-sched",
        weight: 5,
        reads: "cpu.rt_runtime_us of the own cgroup (v1), CONFIG_RT_GROUP_SCHED",
        why: "Where real-time threads are rationed by group, SCHED_FIFO fails with EPERM in every group that was \
              given nothing: containers start with nothing.",
        source: "kernel docs: scheduler/sched-rt-group, admin-guide/cgroup-v2 (cpu), kernel-parameters (rt_group_sched)",
        unread: "$ grep RT_GROUP_SCHED /boot/config-$(uname -r)",
        check: rt_group,
        mend: Mend::ByHand("how much each group gets is the administrator's choice"),
    },
];

/// Whether `sched_rt_runtime_us` stops SCHED_FIFO threads on this kernel.
fn throttles(host: &Host) -> Result<bool, Unread> {
    Ok(*host.kernel.known()? < FAIR_SERVER_SINCE || host.rt_group.as_ref().is_ok_and(|group| *group != RtGroup::Off))
}

fn throttling(host: &Host, wanted: &Wanted) -> Outcome {
    let (runtime, period) = *host.rt_share.known()?;
    let remedy = "$ sysctl -w kernel.sched_rt_runtime_us=-1\n\
                  and the same in /etc/sysctl.d/insane.conf; only where every SCHED_FIFO thread sleeps now and then.";
    if runtime < 0 || runtime >= period {
        return good(format!("off ({runtime})"));
    }
    let read = format!("{runtime} of {period} us");
    if !throttles(host)? {
        return good(format!("{read}, which from 6.12 on bounds SCHED_DEADLINE only"));
    }
    match (runtime, wanted.hogs().next()) {
        (0, _) => bad(format!("{read}: SCHED_FIFO threads never run"), remedy),
        (_, Some(hog)) => bad(
            format!("{read}, and datapath \"{}\" spins under SCHED_FIFO", hog.name),
            "Let the datapath sleep (`idle: spin_then_block(us: ...)`), or isolate its core and use `policy: other`.",
        ),
        (_, None) => warning(read, remedy),
    }
}

fn unthrottle(host: &Host, wanted: &Wanted) -> Result<Vec<Change>, String> {
    let (runtime, _) = *host.rt_share.known().map_err(|unread| unread.to_string())?;
    if !wanted.is_given {
        return Err("only a configuration tells whether every SCHED_FIFO thread sleeps now and then".into());
    }
    if let Some(hog) = wanted.hogs().next() {
        return Err(format!("datapath \"{}\" never sleeps: nothing would save its core", hog.name));
    }
    Ok(vec![Change { path: RUNTIME.into(), from: runtime.to_string(), to: "-1".into() }])
}

fn fair_server(host: &Host, wanted: &Wanted) -> Outcome {
    if *host.kernel.known()? < FAIR_SERVER_SINCE {
        return good("this kernel has none (before 6.12)");
    }
    let servers = host.fair_servers.known()?;
    if servers.is_empty() {
        return Err(Unread { what: "/sys/kernel/debug/sched/fair_server/cpu*".into(), why: Why::Missing });
    }
    let on = |core: u16| servers.iter().find(|server| server.core == core && server.runtime_ns > 0);
    if let Some((hog, server)) = wanted.hogs().find_map(|hog| Some((hog, on(hog.core?)?))) {
        return bad(
            format!(
                "{} on core {}, where datapath \"{}\" spins under SCHED_FIFO",
                share(server),
                server.core,
                hog.name
            ),
            format!(
                "Let the datapath sleep (`idle: spin_then_block(us: ...)`), use `policy: other` on an isolated core, or\n\
                 $ echo 0 > /sys/kernel/debug/sched/fair_server/cpu{}/runtime",
                server.core
            ),
        );
    }
    let is_hogged = |core: u16| wanted.hogs().any(|hog| hog.core == Some(core));
    let unguarded: Vec<String> = servers
        .iter()
        .filter(|server| server.runtime_ns == 0 && !is_hogged(server.core))
        .map(|server| server.core.to_string())
        .collect();
    if unguarded.is_empty() {
        return good(share(&servers[0]));
    }
    warning(
        format!("off on cores {}: a SCHED_FIFO thread that never sleeps locks them up", super::some_of(&unguarded)),
        format!("$ echo 50000000 > /sys/kernel/debug/sched/fair_server/cpu{}/runtime", unguarded[0]),
    )
}

fn share(server: &FairServer) -> String {
    format!("{} of {} ms for ordinary threads that starve", server.runtime_ns / 1_000_000, server.period_ns / 1_000_000)
}

fn rt_group(host: &Host, _: &Wanted) -> Outcome {
    match host.rt_group.known()? {
        RtGroup::Off => good("real-time threads are not rationed by group"),
        RtGroup::Ration { runtime_us: 0, path } => bad(
            "this group has 0 us: SCHED_FIFO fails with EPERM",
            format!(
                "Every group above it needs at least as much first:\n$ echo 900000 > {path}\n\
                 or boot with rt_group_sched=0 (recent kernels)."
            ),
        ),
        RtGroup::Ration { runtime_us, .. } => good(format!("this group has {runtime_us} us in each period")),
        RtGroup::On => warning(
            "rationed by group (RT_GROUP_SCHED); no cgroup of version 1 says how much this one has",
            "Keep the runtime in the root group, or boot with rt_group_sched=0 (recent kernels).",
        ),
    }
}
