//! Clocks and timers.

use crate::doctor::finding::{Entry, Mend, Outcome, bad, good, warning};
use crate::doctor::host::Host;
use crate::doctor::reader::{Known, excerpt};
use crate::doctor::wanted::Wanted;

/// A sleep that ends a microsecond late is lost in what waking costs anyway.
const SLACK_NS_GOOD: u64 = 1_000;

const SYNC: &str = "One of them, with the master or server of your plant:\n\
                    $ apt install linuxptp    # ptp4l and phc2sys\n\
                    $ apt install chrony";

pub const ENTRIES: &[Entry] = &[
    Entry {
        id: "clock-source",
        weight: 4,
        reads: "/sys/devices/system/clocksource/clocksource0/current_clocksource",
        why: "Every turn of a datapath reads the clock. From the core's own counter it takes some ten nanoseconds; \
              from a device (hpet, acpi_pm) a system call and microseconds.",
        source: "kernel docs: timers/timekeeping, admin-guide/kernel-parameters (clocksource, tsc); vdso(7)",
        unread: "Run it where /sys is mounted.",
        check: clock_source,
        mend: Mend::ByHand("the kernel left the other clock for a reason, which its log tells"),
    },
    Entry {
        id: "tai-offset",
        weight: 3,
        reads: "adjtimex: tai",
        why: "Plans of several hosts are in TAI. Where nobody has told the kernel its offset from UTC (37 s since \
              2017), CLOCK_TAI is UTC and instants lie 37 s apart.",
        source: "adjtimex(2), clock_gettime(2) (CLOCK_TAI); IERS Bulletin C",
        unread: "Run it on this machine itself (without --root).",
        check: tai_offset,
        mend: Mend::ByHand("whoever disciplines the clock has to tell it"),
    },
    Entry {
        id: "clock-sync",
        weight: 4,
        reads: "adjtimex: STA_UNSYNC, TIME_ERROR, maxerror",
        why: "Slots, deadlines and ages of messages compare clocks of several hosts; a clock that nobody disciplines \
              drifts by some tens of microseconds a second.",
        source: "adjtimex(2)",
        unread: "Run it on this machine itself (without --root).",
        check: clock_sync,
        mend: Mend::ByHand("it needs a clock of the plant to follow"),
    },
    Entry {
        id: "timer-slack",
        weight: 2,
        reads: "prctl: PR_GET_TIMERSLACK",
        why: "The kernel may end sleeps of ordinary threads so much later, to save wake-ups. SCHED_FIFO threads are \
              exempt.",
        source: "PR_SET_TIMERSLACK(2const), proc_pid_timerslack_ns(5)",
        unread: "Run it on this machine itself (without --root).",
        check: timer_slack,
        mend: Mend::ByHand("it is inherited from whoever starts the runtime"),
    },
];

fn clock_source(host: &Host, _: &Wanted) -> Outcome {
    let name = host.clock_source.known()?.trim();
    match name {
        "tsc" | "arch_sys_counter" | "riscv_clocksource" | "kvm-clock" | "hyperv_clocksource_tsc_page" => good(name),
        "hpet" | "acpi_pm" | "jiffies" | "refined-jiffies" | "pit" => bad(
            name,
            "$ dmesg | grep -i -e tsc -e clocksource\n\
             tells why the counter is not used; update the firmware. Where the counter is sound, boot with tsc=reliable.",
        ),
        other => warning(
            format!("{}, whose cost is not known", excerpt(other)),
            "Prefer tsc (x86) or arch_sys_counter (ARM).",
        ),
    }
}

fn tai_offset(host: &Host, _: &Wanted) -> Outcome {
    match host.calls.clock.known()?.tai_offset_s {
        0 => warning(
            "0 s: not set",
            "With chrony: `leapsectz right/UTC` in /etc/chrony/chrony.conf. With PTP, ptp4l and phc2sys set it:\n\
             $ phc2sys -a -r",
        ),
        offset => good(format!("{offset} s")),
    }
}

fn clock_sync(host: &Host, wanted: &Wanted) -> Outcome {
    let clock = host.calls.clock.known()?;
    match clock.is_synchronised {
        true => good(format!("synchronised, within {} us as it claims", clock.error_us_max)),
        false if !wanted.timed.is_empty() => {
            bad(format!("nobody disciplines the clock, and {} have slots", super::some_of(&wanted.timed)), SYNC)
        }
        false => warning("nobody disciplines the clock", SYNC),
    }
}

fn timer_slack(host: &Host, wanted: &Wanted) -> Outcome {
    let slack = *host.calls.timer_slack_ns.known()?;
    let read = format!("{slack} ns");
    if slack <= SLACK_NS_GOOD {
        return good(read);
    }
    // Only ordinary threads that sleep are concerned.
    let is_late = |spins: bool, fifo: Option<u8>| !spins && fifo.is_none();
    if wanted.is_given && !wanted.datapaths.iter().any(|datapath| is_late(datapath.spins, datapath.fifo)) {
        return good(format!("{read}; no datapath is an ordinary thread that sleeps"));
    }
    warning(read, "In the unit of systemd: TimerSlackNSec=1; or let what must be on time be SCHED_FIFO.")
}
