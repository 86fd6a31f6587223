//! How long a core takes to be at full speed.

use super::some_of;
use crate::doctor::finding::{Change, Entry, Mend, Outcome, bad, good, warning};
use crate::doctor::host::Host;
use crate::doctor::reader::{Known, Unread, excerpt};
use crate::doctor::wanted::Wanted;

/// Leaving an idle state may cost as much as a message across a ring and a system call.
const EXIT_US_GOOD: u64 = 10;
/// As much as a tenth of a 1 ms cycle is too much.
const EXIT_US_BAD: u64 = 100;

pub const ENTRIES: &[Entry] = &[
    Entry {
        id: "cpu-governor",
        weight: 4,
        reads: "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
        why: "Other governors than `performance` lower the clock of a core that idles between cycles; the task then \
              runs slowly just when it is due, until the clock has risen.",
        source: "kernel docs: admin-guide/pm/cpufreq",
        unread: "In a virtual machine ask the hypervisor's administrator; else run it on the host:\n\
                 $ cpupower frequency-info",
        check: governor,
        mend: Mend::Changes(set_governors),
    },
    Entry {
        id: "cpu-idle",
        weight: 4,
        reads: "/sys/devices/system/cpu/cpu*/cpuidle/state*/latency, disable",
        why: "A core that sleeps deeply needs its exit latency to wake: it is added to the start of a cycle and to \
              the first message after a pause.",
        source: "kernel docs: admin-guide/pm/cpuidle",
        unread: "In a virtual machine ask the hypervisor's administrator; else run it on the host:\n\
                 $ cpupower idle-info",
        check: idle,
        mend: Mend::ByHand("cores that never idle run hot: the administrator's choice"),
    },
];

/// Cores whose speed matters: the quiet ones, or all.
fn matters(core: u16, host: &Host, wanted: &Wanted) -> bool {
    let quiet = wanted.quiet(host);
    quiet.is_empty() || quiet.has(core)
}

/// Cores that matter and have another governor than `performance`.
fn slow_ones(host: &Host, wanted: &Wanted) -> Result<Vec<(u16, String)>, Unread> {
    host.online.known()?;
    let mut slow = Vec::new();
    let mut unread = None;
    for (core, governor) in host.governors.iter().filter(|(core, _)| matters(**core, host, wanted)) {
        match governor {
            Ok(governor) if governor == "performance" => {}
            Ok(governor) => slow.push((*core, governor.clone())),
            Err(reason) => unread = unread.or(Some(reason)),
        }
    }
    match unread {
        Some(unread) if slow.is_empty() => Err(unread.clone()),
        _ => Ok(slow),
    }
}

fn governor(host: &Host, wanted: &Wanted) -> Outcome {
    let slow = slow_ones(host, wanted)?;
    let shown: Vec<String> =
        slow.iter().map(|(core, governor)| format!("{} on core {core}", excerpt(governor))).collect();
    match shown.is_empty() {
        true => good("performance"),
        false => warning(some_of(&shown), "$ cpupower frequency-set -g performance"),
    }
}

fn set_governors(host: &Host, wanted: &Wanted) -> Result<Vec<Change>, String> {
    let slow = slow_ones(host, wanted).map_err(|unread| unread.to_string())?;
    Ok(slow
        .into_iter()
        .map(|(core, from)| Change {
            path: format!("/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor"),
            from,
            to: "performance".into(),
        })
        .collect())
}

fn idle(host: &Host, wanted: &Wanted) -> Outcome {
    host.online.known()?;
    if let Some(value) = host.parameters.as_ref().ok().and_then(|all| all.get("idle")).filter(|idle| *idle == "poll") {
        return good(format!("cores never sleep (idle={value})"));
    }
    // A core whose datapath spins never idles.
    let spins = |core: u16| wanted.spinning().any(|datapath| datapath.core == Some(core));
    let own = host.idle_states.iter().filter(|(core, _)| matters(**core, host, wanted) && !spins(**core));
    let mut deepest: Option<(u64, String)> = None;
    let mut unread = None;
    for (core, states) in own {
        match states {
            Ok(states) if !states.is_empty() => {
                for state in states.iter().filter(|state| state.is_enabled) {
                    if deepest.as_ref().is_none_or(|(exit_us, _)| state.exit_us > *exit_us) {
                        deepest = Some((state.exit_us, format!("{} on core {core}", excerpt(&state.name))));
                    }
                }
            }
            Ok(_) => unread = Some(Unread::because("cpuidle", "it has no states")),
            Err(reason) => unread = Some(reason.clone()),
        }
    }
    let (exit_us, name) = match (deepest, unread) {
        // One deep state is enough to say so; a shallow one is not while others are not known.
        (Some((exit_us, name)), unread) if exit_us > EXIT_US_GOOD || unread.is_none() => (exit_us, name),
        (_, Some(unread)) => return Err(unread),
        (_, None) => return good("no core that matters sleeps"),
    };
    let read = format!("{exit_us} us to leave {name}");
    let remedy = format!(
        "$ cpupower idle-set -D {EXIT_US_GOOD}\nor boot with processor.max_cstate=1 intel_idle.max_cstate=0, or hold \
         /dev/cpu_dma_latency open with a 0 in it."
    );
    match exit_us {
        0..=EXIT_US_GOOD => good(read),
        _ if exit_us > EXIT_US_BAD && wanted.is_given => bad(read, remedy),
        _ => warning(read, remedy),
    }
}
