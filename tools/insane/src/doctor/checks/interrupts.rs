//! What comes before a task on its core.

use super::{named, some_of};
use crate::doctor::cores::Cores;
use crate::doctor::finding::{Change, Entry, Mend, Outcome, bad, good, warning};
use crate::doctor::host::{Host, Irq};
use crate::doctor::reader::{Known, Unread};
use crate::doctor::wanted::{Datapath, Wanted};

const UNREAD: &str = "Run it on the host, where /proc is the host's own.";
/// The highest priority that is not the kernel's own.
const FIFO_MAX: u8 = 98;

pub const ENTRIES: &[Entry] = &[
    Entry {
        id: "irq-affinity",
        weight: 4,
        reads: "/proc/irq/*/effective_affinity_list, smp_affinity_list",
        why: "An interrupt takes its core from whatever runs there, SCHED_FIFO or not; a disk or another card that \
              is busy delays every cycle on that core.",
        source: "kernel docs: core-api/irq/irq-affinity, admin-guide/kernel-parameters (irqaffinity)",
        unread: UNREAD,
        check: affinity,
        mend: Mend::Changes(move_away),
    },
    Entry {
        id: "irq-threads",
        weight: 3,
        reads: "priority of irq/* threads in /proc/*/stat",
        why: "On PREEMPT_RT interrupts are threads (SCHED_FIFO 50 by default). One above a datapath's priority \
              goes before it; one below a datapath that spins never runs.",
        source: "kernel docs: core-api/real-time, kernel-parameters (threadirqs); proc_pid_stat(5)",
        unread: UNREAD,
        check: irq_threads,
        mend: Mend::ByHand("priorities of the kernel's threads are the administrator's choice"),
    },
    Entry {
        id: "softirq-threads",
        weight: 3,
        reads: "priority of ksoftirqd/* threads in /proc/*/stat",
        why: "Under load the kernel leaves received packets to ksoftirqd, an ordinary thread: it waits for every \
              SCHED_FIFO thread of its core, and packets wait with it.",
        source: "kernel docs: core-api/real-time; kernel/softirq.c; proc_pid_stat(5)",
        unread: UNREAD,
        check: softirq_threads,
        mend: Mend::ByHand("priorities of the kernel's threads are the administrator's choice"),
    },
];

/// Interrupts that arrive at quiet cores. Those of the cards of a datapath that sleeps
/// there belong there: their packets are for it.
fn intruders<'h>(host: &'h Host, wanted: &Wanted) -> Result<Vec<&'h Irq>, Unread> {
    let quiet = wanted.quiet(host);
    let mut found = Vec::new();
    for irq in host.irqs.known()? {
        let Ok(cores) = &irq.cores else { continue };
        let here = cores.both(&quiet);
        let is_own = |core: u16| {
            let mut sleeping =
                wanted.datapaths.iter().filter(|datapath| datapath.core == Some(core) && !datapath.spins);
            sleeping.any(|datapath| own_irqs(datapath, host).contains(&irq.number))
        };
        if here.0.iter().any(|core| !is_own(*core)) {
            found.push(irq);
        }
    }
    Ok(found)
}

/// Interrupts of the cards of a datapath.
fn own_irqs(datapath: &Datapath, host: &Host) -> Vec<u32> {
    let nics = host.nics.as_deref().unwrap_or_default().iter();
    nics.filter(|nic| datapath.uses(nic, host)).flat_map(|nic| nic.irqs.iter().copied()).collect()
}

/// Cores that may take what quiet ones are spared; perhaps none.
fn housekeeping(host: &Host, wanted: &Wanted) -> Result<Cores, Unread> {
    Ok(host.online.known()?.without(&wanted.quiet(host)))
}

fn affinity(host: &Host, wanted: &Wanted) -> Outcome {
    let irqs = host.irqs.known()?;
    let quiet = wanted.quiet(host);
    if quiet.is_empty() {
        return Ok(None);
    }
    let found: Vec<String> =
        intruders(host, wanted)?.iter().map(|irq| format!("{} ({})", irq.number, irq.name)).collect();
    if found.is_empty() {
        if let Some(Err(unread)) = irqs.iter().map(|irq| &irq.cores).find(|cores| cores.is_err()) {
            return Err(unread.clone());
        }
        return good(format!("none of {} at cores {quiet}", irqs.len()));
    }
    let others = housekeeping(host, wanted).map_or("OTHERS".to_owned(), |others| others.to_string());
    let remedy = match others.as_str() {
        "none" => "Leave a core to everything else: no other one is there to take the interrupts.".to_owned(),
        _ => format!(
            "Boot with irqaffinity={others}, stop irqbalance, or for each N of them:\n\
             $ echo {others} > /proc/irq/N/smp_affinity_list"
        ),
    };
    warning(format!("at cores {quiet}: {}", some_of(&found)), remedy)
}

fn move_away(host: &Host, wanted: &Wanted) -> Result<Vec<Change>, String> {
    let others = housekeeping(host, wanted).map_err(|unread| unread.to_string())?;
    if others.is_empty() {
        return Err("no core is left that could take the interrupts".into());
    }
    let change = |irq: &&Irq| Change {
        path: format!("/proc/irq/{}/smp_affinity_list", irq.number),
        from: irq.allowed.as_ref().map_or("not read".to_owned(), Cores::to_string),
        to: others.to_string(),
    };
    Ok(intruders(host, wanted).map_err(|unread| unread.to_string())?.iter().map(change).collect())
}

fn irq_threads(host: &Host, wanted: &Wanted) -> Outcome {
    if wanted.fifo_max().is_none() {
        return Ok(None);
    }
    let threads = host.irq_threads.known()?;
    let of_irqs: Vec<_> = threads.iter().filter(|thread| thread.irq().is_some()).collect();
    if of_irqs.is_empty() {
        return good("interrupts are no threads here");
    }
    let cores_of = |number: u32| {
        let irqs = host.irqs.as_deref().unwrap_or_default();
        irqs.iter().find(|irq| irq.number == number).and_then(|irq| irq.cores.as_ref().ok())
    };
    let (mut above, mut highest) = (Vec::new(), 0);
    for datapath in &wanted.datapaths {
        let Some(priority) = datapath.fifo else { continue };
        let own = own_irqs(datapath, host);
        for thread in &of_irqs {
            let number = thread.irq().unwrap_or_default();
            let is_here = match (datapath.core, cores_of(number)) {
                (Some(core), Some(cores)) => cores.has(core),
                _ => true,
            };
            if !is_here {
                continue;
            }
            let is_own = own.contains(&number);
            if is_own && datapath.spins && thread.priority <= priority {
                return bad(
                    format!(
                        "{} (priority {}) never runs: {} spins above it",
                        thread.name,
                        thread.priority,
                        named(datapath)
                    ),
                    raise_above(priority, &format!("$(pgrep -f '{}')", thread.name)),
                );
            }
            if !is_own && thread.priority > priority {
                above.push(format!("{} (priority {})", thread.name, thread.priority));
                highest = highest.max(thread.priority);
            }
        }
    }
    above.dedup();
    if above.is_empty() {
        return good("none goes before a datapath but those of its own card");
    }
    let remedy = match highest {
        0..=FIFO_MAX => format!(
            "Move the interrupt to another core, or raise the datapath in the configuration: policy: fifo({highest})."
        ),
        _ => "Move the interrupt to another core: no datapath can be above it.".to_owned(),
    };
    warning(format!("before a datapath on its core: {}", some_of(&above)), remedy)
}

/// How a thread of the kernel goes before a datapath of `priority`. 99 belongs to the kernel's
/// watchdogs, so a datapath at the highest leaves it no room.
fn raise_above(priority: u8, thread: &str) -> String {
    match priority {
        0..FIFO_MAX => format!("$ chrt -f -p {} {thread}", priority + 1),
        _ => format!(
            "Lower the datapath in the configuration: policy: fifo({}), then\n$ chrt -f -p {FIFO_MAX} {thread}",
            FIFO_MAX - 1
        ),
    }
}

fn softirq_threads(host: &Host, wanted: &Wanted) -> Outcome {
    if wanted.fifo_max().is_none() {
        return Ok(None);
    }
    let threads = host.irq_threads.known()?;
    let mut behind = Vec::new();
    for datapath in &wanted.datapaths {
        let (Some(core), Some(priority)) = (datapath.core, datapath.fifo) else { continue };
        let Some(thread) = threads.iter().find(|thread| thread.softirq_core() == Some(core)) else { continue };
        if thread.priority > priority {
            continue;
        }
        let read = format!("{} (priority {}) runs after {}", thread.name, thread.priority, named(datapath));
        if datapath.spins {
            return bad(
                format!("{read}, which never sleeps"),
                "Let the datapath sleep: `idle: spin_then_block(us: ...)`, or isolate its core and use `policy: other`.",
            );
        }
        let irqs = own_irqs(datapath, host);
        let serves = |irq: &Irq| irqs.contains(&irq.number) && irq.cores.as_ref().is_ok_and(|cores| cores.has(core));
        if host.irqs.as_deref().unwrap_or_default().iter().any(serves) {
            behind.push((read, priority, thread.name.clone()));
        }
    }
    match behind.into_iter().next() {
        Some((read, priority, name)) => warning(
            format!("{read}, and its card's interrupts arrive there"),
            format!(
                "{}\nor move the card's interrupts to another core.",
                raise_above(priority, &format!("$(pgrep -x {name})"))
            ),
        ),
        None => good("none holds up packets of a datapath"),
    }
}
