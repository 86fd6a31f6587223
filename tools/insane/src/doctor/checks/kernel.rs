//! The kernel itself.

use crate::doctor::finding::{Entry, Mend, Outcome, bad, good, warning};
use crate::doctor::host::Host;
use crate::doctor::reader::{Known, excerpt};
use crate::doctor::wanted::Wanted;

pub const ENTRIES: &[Entry] = &[
    Entry {
        id: "kernel-version",
        weight: 5,
        reads: "/proc/sys/kernel/osrelease",
        why: "The runtime is built on calls of Linux 6.1 and later: sealed memory that nobody can map for \
              writing again, huge pages on demand.",
        source: "README.md; memfd_create(2), madvise(2)",
        unread: "Run it where /proc is mounted.",
        check: version,
        mend: Mend::ByHand("another kernel needs a boot"),
    },
    Entry {
        id: "preempt-rt",
        weight: 10,
        reads: "/sys/kernel/realtime, /proc/sys/kernel/version",
        why: "Without PREEMPT_RT the kernel may hold a core for milliseconds in code that nothing interrupts, \
              and every task on it misses its cycle.",
        source: "kernel docs: core-api/real-time; the file comes with the RT patches",
        unread: "Run it where /sys and /proc are mounted.",
        check: preempt_rt,
        mend: Mend::ByHand("another kernel needs a boot"),
    },
    Entry {
        id: "softirq-lock",
        weight: 3,
        reads: "CONFIG_PREEMPT_RT_NEEDS_BH_LOCK in /boot/config-*, /proc/config.gz",
        why: "PREEMPT_RT kernels from before this option (6.18), and those that set it, have one lock a core around \
              all soft interrupts: real-time packets wait for an interrupted handler of best-effort ones.",
        source: "kernel docs: locking/locktypes; kernel/Kconfig.preempt (commit 3253cb49cbad)",
        unread: "$ grep PREEMPT_RT_NEEDS_BH_LOCK /boot/config-$(uname -r)",
        check: softirq_lock,
        mend: Mend::ByHand("another kernel needs a boot"),
    },
];

fn version(host: &Host, _: &Wanted) -> Outcome {
    let version = *host.kernel.known()?;
    let read = excerpt(host.release.known()?);
    if version >= (6, 1) { good(read) } else { bad(read, "Install Linux 6.1 or later (Debian 12 has it).") }
}

fn preempt_rt(host: &Host, _: &Wanted) -> Outcome {
    if host.is_preempt_rt()? {
        return good("PREEMPT_RT");
    }
    let build = host.build.as_deref().map_or("not PREEMPT_RT".to_owned(), excerpt);
    warning(build, "$ apt install linux-image-rt-amd64\n(Debian's name of it), then boot it.")
}

fn softirq_lock(host: &Host, _: &Wanted) -> Outcome {
    const OPTION: &str = "PREEMPT_RT_NEEDS_BH_LOCK";
    if !host.is_preempt_rt()? {
        return Ok(None);
    }
    let remedy = "Use Linux 6.18 or later without that option; until then keep best-effort cards' interrupts off \
                  the cores of real-time cards.";
    match host.option(OPTION) {
        Ok(Some(false)) => good("the kernel is built without it"),
        Ok(Some(true)) => warning("the kernel is built with it", remedy),
        Ok(None) => warning("the kernel is older than the choice, so it has the lock", remedy),
        // Some stable kernels since 6.12 have the choice too.
        Err(unread) if *host.kernel.known()? >= (6, 12) => Err(unread),
        Err(_) => warning("a kernel before 6.12 has the lock", remedy),
    }
}
