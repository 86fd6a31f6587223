//! Which cores are kept free, and what shares them.

use super::{at_boot, named, some_of};
use crate::doctor::cores::Cores;
use crate::doctor::finding::{Entry, Mend, Outcome, bad, good, warning};
use crate::doctor::host::Host;
use crate::doctor::reader::Known;
use crate::doctor::wanted::{Datapath, Wanted};

const UNREAD: &str = "Run it on the host, where /sys and /proc are mounted.";
const BOOT: &str = "it is decided at boot";
const CONFIGURATION: &str = "it is the configuration's to change";

pub const ENTRIES: &[Entry] = &[
    Entry {
        id: "datapath-cores",
        weight: 5,
        reads: "/sys/devices/system/cpu/online, the configuration's cores",
        why: "A datapath cannot be pinned to a core that is not there, and the runtime does not start; one that \
              carries real-time lanes and is not pinned is moved about by the kernel, with cold caches.",
        source: "sched_setaffinity(2); configs/reference.ron (core)",
        unread: UNREAD,
        check: datapath_cores,
        mend: Mend::ByHand(CONFIGURATION),
    },
    Entry {
        id: "isolated-cores",
        weight: 5,
        reads: "/sys/devices/system/cpu/isolated, isolcpus=, cpuset.cpus.isolated",
        why: "The kernel moves no thread to an isolated core by itself. On any other a spinning datapath and \
              cyclic tasks share caches and time with whatever is moved there.",
        source: "kernel docs: ABI/testing/sysfs-devices-system-cpu, admin-guide/kernel-parameters (isolcpus), cgroup-v2 (cpuset)",
        unread: UNREAD,
        check: isolated,
        mend: Mend::ByHand(BOOT),
    },
    Entry {
        id: "core-sharing",
        weight: 8,
        reads: "the configuration's cores, /proc/irq/*/effective_affinity_list",
        why: "A datapath that spins on a core which also serves its card's interrupts, or which another datapath \
              uses, starves what it waits for.",
        source: "docs/ARCHITECTURE.md (turn); kernel docs: core-api/irq/irq-affinity",
        unread: UNREAD,
        check: sharing,
        mend: Mend::ByHand(CONFIGURATION),
    },
    Entry {
        id: "nohz-full",
        weight: 3,
        reads: "/sys/devices/system/cpu/nohz_full",
        why: "The timer tick interrupts a spinning thread 100 to 1000 times a second, for some microseconds each; \
              on these cores it stops while one thread runs.",
        source: "kernel docs: timers/no_hz, ABI/testing/sysfs-devices-system-cpu",
        unread: UNREAD,
        check: nohz_full,
        mend: Mend::ByHand(BOOT),
    },
    Entry {
        id: "rcu-nocbs",
        weight: 2,
        reads: "rcu_nocbs= and nohz_full= of /proc/cmdline",
        why: "Elsewhere the kernel frees memory in soft interrupts on the core that runs the task, in bursts of \
              unknown length.",
        source: "kernel docs: admin-guide/kernel-parameters (rcu_nocbs, nohz_full)",
        unread: UNREAD,
        check: rcu_nocbs,
        mend: Mend::ByHand(BOOT),
    },
];

fn datapath_cores(host: &Host, wanted: &Wanted) -> Outcome {
    if !wanted.is_given {
        return Ok(None);
    }
    let online = host.online.known()?;
    let absent = wanted.pinned().without(online);
    if let Some(lost) = wanted.datapaths.iter().find(|datapath| datapath.core.is_some_and(|core| absent.has(core))) {
        return bad(
            format!("{} wants core {absent}; on line are {online}", named(lost)),
            format!("Give it a core of {online} in the configuration."),
        );
    }
    if let Some(loose) = wanted.datapaths.iter().find(|datapath| datapath.is_real_time && datapath.core.is_none()) {
        return warning(
            format!("{} carries real-time lanes and is not pinned", named(loose)),
            format!("Give it a core of {online} in the configuration: core: N."),
        );
    }
    good(format!("pinned to {}; on line are {online}", wanted.pinned()))
}

/// How to keep cores free; where none are given, the last one.
fn isolate(host: &Host, cores: &Cores) -> String {
    let online = host.online.clone().unwrap_or_default();
    let last = || online.0.last().copied().into_iter().collect();
    let cores = if cores.is_empty() { last() } else { cores.clone() };
    if !online.is_empty() && online.without(&cores).is_empty() {
        return format!(
            "Nothing is left for the rest of the system if {cores} is kept free: use a machine with more cores."
        );
    }
    let list = if cores.is_empty() { "N".to_owned() } else { cores.to_string() };
    // What the kernel is built without it does not take.
    let has_full = !matches!(host.nohz_full, Ok(None));
    let has_nocbs = !matches!(host.option("RCU_NOCB_CPU"), Ok(Some(false)));
    let mut parameters = format!("isolcpus={list}");
    for (name, _) in [("nohz_full", has_full), ("rcu_nocbs", has_nocbs)].iter().filter(|(_, has)| *has) {
        parameters += &format!(" {name}={list}");
    }
    let text = at_boot(&parameters);
    // The boot CPU keeps the time, and interrupts land there by default.
    if cores.has(0) {
        format!("Better move the datapath from core 0, which the kernel uses for its own work. {text}")
    } else {
        text
    }
}

fn isolated(host: &Host, wanted: &Wanted) -> Outcome {
    let isolated = host.isolated.known()?;
    if !wanted.is_given {
        return match isolated.is_empty() {
            true => warning("none", isolate(host, &Cores::default())),
            false => good(isolated.to_string()),
        };
    }
    let spinning: Cores = wanted.spinning().filter_map(|datapath| datapath.core).collect();
    let shared = spinning.without(isolated);
    if !shared.is_empty() {
        return bad(
            format!("{isolated}; a datapath spins on {shared}"),
            format!("{}\nor let it sleep: `idle: spin_then_block(us: ...)`.", isolate(host, &shared)),
        );
    }
    let real_time = wanted.datapaths.iter().filter(|datapath| datapath.is_real_time);
    let on_shared: Cores = real_time.filter_map(|datapath| datapath.core).filter(|core| !isolated.has(*core)).collect();
    match on_shared.is_empty() {
        true => good(format!("{isolated}; nothing real-time is pinned to another core")),
        false => warning(
            format!("{isolated}; a real-time datapath is pinned to {on_shared}, and sleeps between messages"),
            isolate(host, &on_shared),
        ),
    }
}

fn sharing(host: &Host, wanted: &Wanted) -> Outcome {
    if !wanted.is_given {
        return Ok(None);
    }
    const REST: &str = "Let it sleep: `idle: spin_then_block(us: ...)` with `policy: fifo(...)`, or give it an isolated \
                        core with `policy: other`.";
    let Some(_) = wanted.spinning().next() else { return good("no datapath spins") };
    if let Some(loose) = wanted.spinning().find(|datapath| datapath.core.is_none()) {
        return bad(format!("{} spins and is not pinned", named(loose)), REST);
    }
    let shares = |one: &&Datapath| {
        wanted
            .datapaths
            .iter()
            .any(|other| !std::ptr::eq(*one, other) && other.core.is_some() && other.core == one.core)
    };
    if let Some(one) = wanted.spinning().find(shares) {
        return bad(format!("{} spins on a core with another datapath", named(one)), REST);
    }
    for datapath in wanted.spinning().filter(|datapath| !datapath.polls_its_cards) {
        if let Some(verdict) = own_interrupts(datapath, host)? {
            return Ok(Some(verdict));
        }
    }
    let isolated = host.isolated.known()?;
    if let Some(hog) = wanted.hogs().find(|hog| hog.core.is_some_and(|core| !isolated.has(core))) {
        return bad(format!("{} spins under SCHED_FIFO on a core that is not isolated", named(hog)), REST);
    }
    good("every datapath that spins has a core of its own, without its card's interrupts")
}

/// Whether the core of a spinning datapath serves its own cards.
fn own_interrupts(datapath: &Datapath, host: &Host) -> Outcome {
    let Some(core) = datapath.core else { return Ok(None) };
    let own: Vec<_> = host.nics.known()?.iter().filter(|nic| datapath.uses(nic, host)).collect();
    let numbers: Vec<u32> = own.iter().flat_map(|nic| nic.irqs.iter().copied()).collect();
    let mut here = Vec::new();
    for irq in host.irqs.known()?.iter().filter(|irq| numbers.contains(&irq.number)) {
        if irq.cores.known()?.has(core) {
            here.push(irq.number.to_string());
        }
    }
    let Some(first) = here.first() else { return Ok(None) };
    let others =
        host.online.clone().map_or("OTHERS".to_owned(), |all| all.without(&Cores::from_iter([core])).to_string());
    bad(
        format!("{} spins on core {core}, which serves interrupts {} of its card", named(datapath), some_of(&here)),
        format!(
            "$ echo {others} > /proc/irq/{first}/smp_affinity_list\nor poll the card: `busy_poll_us: 50` of its links."
        ),
    )
}

fn nohz_full(host: &Host, wanted: &Wanted) -> Outcome {
    let spinning: Cores = wanted.spinning().filter_map(|datapath| datapath.core).collect();
    let needed = if wanted.is_given { spinning } else { host.isolated.clone().unwrap_or_default() };
    let Some(cores) = host.nohz_full.known()? else {
        let read = "this kernel is built without it";
        return match wanted.is_given && needed.is_empty() {
            true => good(format!("{read}; no datapath spins")),
            false => warning(read, "Use a kernel with CONFIG_NO_HZ_FULL."),
        };
    };
    let missing = needed.without(cores);
    if wanted.is_given && needed.is_empty() {
        return good(format!("{cores}; no datapath spins"));
    }
    if needed.is_empty() && cores.is_empty() {
        return warning("none", isolate(host, &Cores::default()));
    }
    match missing.is_empty() {
        true => good(cores.to_string()),
        false => warning(format!("{cores}; {missing} should be in it"), isolate(host, &needed)),
    }
}

fn rcu_nocbs(host: &Host, wanted: &Wanted) -> Outcome {
    let cores = host.rcu_nocbs.known()?;
    let needed = wanted.quiet(host);
    let missing = needed.without(cores);
    if needed.is_empty() && wanted.is_given {
        return good(format!("{cores}; no datapath needs it"));
    }
    if matches!(host.option("RCU_NOCB_CPU"), Ok(Some(false))) {
        return warning("this kernel is built without it", "Use a kernel with CONFIG_RCU_NOCB_CPU.");
    }
    if needed.is_empty() && cores.is_empty() {
        return warning("none", isolate(host, &Cores::default()));
    }
    match missing.is_empty() {
        true => good(cores.to_string()),
        false => warning(format!("{cores}; {missing} should be in it"), at_boot(&format!("rcu_nocbs={needed}"))),
    }
}
