//! `insane doctor`: how far this host is from determinism, and what to do about it.
//!
//! One pass of reading ([`gather`]) makes a snapshot ([`host::Host`]): files below one
//! directory ([`reader`]) and answers of system calls ([`calls`]). The checks ([`checks`]) are pure
//! functions of the snapshot and of what the configuration asks ([`mod@wanted`]). What cannot be
//! read is a finding of its own and never an error; what is read is never trusted.
//!
//! Bounds: a file is read up to 1 MiB, a directory up to 65,536 entries, 256 interfaces,
//! 16,384 interrupts.
//!
//! # States
//! *good*; *warning*: it costs determinism; *bad*: it breaks determinism, or what the
//! configuration asks for; *cannot read*: not known. A question that does not arise (core
//! sharing without a configuration) is left out.
//!
//! # Score
//! Each entry has a weight. The score is 100 x (weights of what is good + half the weights of
//! warnings) / weights of all that could be read, rounded down: 100 means without a flaw. What
//! cannot be read does not count, so a score says little where much was not read; the count
//! stands beside it.
//!
//! # Entries
//! `insane doctor --list` says why each matters. Sources are documents of the kernel
//! (`Documentation/` of its tree, without the ending) and manual pages.
//!
//! | entry | weight | good is | source |
//! |---|---|---|---|
//! | `kernel-version` | 5 | 6.1 or later | README, `memfd_create(2)` |
//! | `preempt-rt` | 10 | a PREEMPT_RT kernel | `core-api/real-time` |
//! | `softirq-lock` | 3 | no lock a core around soft interrupts | `locking/locktypes`, commit 3253cb49cbad |
//! | `cap-sys-nice` | 5 | held | `capabilities(7)` |
//! | `cap-ipc-lock` | 3 | held, or not needed | `capabilities(7)` |
//! | `cap-net-admin` | 2 | held | `capabilities(7)`, `socket(7)` |
//! | `cap-net-raw` | 1 | held, or not needed | `capabilities(7)`, `packet(7)` |
//! | `cap-bpf` | 1 | held | `capabilities(7)` |
//! | `limit-rtprio` | 3 | the configuration's priority | `sched(7)` |
//! | `limit-memlock` | 3 | `memory.limit_bytes` | `mlock(2)` |
//! | `limit-nofile` | 2 | what the quotas hold | `getrlimit(2)` |
//! | `rt-throttling` | 5 | off, or 6.12 without RT_GROUP_SCHED | `scheduler/sched-rt-group`, commit 5f6bd380c7bd |
//! | `fair-server` | 4 | on, and no SCHED_FIFO thread spins there | `scheduler/sched-deadline` |
//! | `rt-group-sched` | 5 | off, or the own group has a share | `scheduler/sched-rt-group` |
//! | `datapath-cores` | 5 | they are on line; real-time is pinned | `sched_setaffinity(2)` |
//! | `isolated-cores` | 5 | those of real-time datapaths | `admin-guide/kernel-parameters` |
//! | `core-sharing` | 8 | who spins is alone, without its card's interrupts | `docs/ARCHITECTURE.md` |
//! | `nohz-full` | 3 | cores of spinning datapaths | `timers/no_hz` |
//! | `rcu-nocbs` | 2 | cores of datapaths | `admin-guide/kernel-parameters` |
//! | `irq-affinity` | 4 | no foreign interrupt at quiet cores | `core-api/irq/irq-affinity` |
//! | `irq-threads` | 3 | none above a datapath | `core-api/real-time` |
//! | `softirq-threads` | 3 | none that a datapath's packets wait for | `core-api/real-time` |
//! | `cpu-governor` | 4 | `performance` | `admin-guide/pm/cpufreq` |
//! | `cpu-idle` | 4 | no state with an exit over 10 us | `admin-guide/pm/cpuidle` |
//! | `transparent-huge-pages` | 2 | `madvise` or `never` | `admin-guide/mm/transhuge` |
//! | `swap` | 4 | none | `proc_swaps(5)` |
//! | `huge-pages` | 2 | not forbidden where asked for | `admin-guide/mm/transhuge` |
//! | `clock-source` | 4 | the core's own counter | `timers/timekeeping` |
//! | `tai-offset` | 3 | set | `adjtimex(2)` |
//! | `clock-sync` | 4 | somebody disciplines the clock | `adjtimex(2)` |
//! | `timer-slack` | 2 | 1 us at most | `PR_SET_TIMERSLACK(2const)` |
//! | `nic-queues` | 3 | two or more; below an xdp link no more than it hears, or rules by hand | `networking/scaling` |
//! | `nic-coalescing` | 3 | 10 us at most, not adaptive | `networking/ethtool-netlink` |
//! | `gossip-address` | 4 | an interface has it, and others reach it | `configs/reference.ron` |
//! | `gossip-seeds` | 3 | another host than this | `configs/reference.ron` |
//! | `gossip-trust` | 5 | private networks only | RFC 1918, RFC 4193 |
//!
//! Thresholds that no document gives are this project's own: 10 us (idle states, cards) is
//! what a message costs anyway, 100 us a tenth of a cycle of a millisecond, 1 us less than a
//! wake-up.

mod apply;
mod calls;
mod checks;
mod cores;
mod finding;
mod gather;
mod host;
mod inflate;
mod print;
mod reader;
mod wanted;

use crate::output::{colour, print_findings};
use apply::{Applied, make, plan};
use finding::{Finding, State, score};
use host::Host;
use insane_config::{LoadError, Machine, load};
use print::Printer;
use reader::Reader;
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use wanted::Wanted;

/// The command line means nothing.
const USAGE: u8 = 2;

/// Options of the command.
#[derive(clap::Args)]
pub struct Arguments {
    /// The configuration that the host is to run; without, the host alone is examined.
    #[arg(value_name = "CONFIG")]
    file: Option<PathBuf>,
    /// Examine the tree in this directory instead: a copy, or another machine's, mounted.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Change what can be mended while the machine runs, then examine it again.
    #[arg(long)]
    apply: bool,
    /// Show what --apply would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Say what is looked at, why, and where the facts come from.
    #[arg(long, conflicts_with_all = ["file", "root", "apply", "dry_run", "json"])]
    list: bool,
}

/// Examines the host. Exit status: 0 nothing is bad, 1 something is, 2 a wrong command line.
pub fn run(arguments: &Arguments) -> std::io::Result<ExitCode> {
    let mut output = std::io::stdout().lock();
    let printer = Printer { colour: colour(&output) };
    if arguments.list {
        output.write_all(printer.list(checks::entries()).as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let reader = match Reader::at(&arguments.root) {
        Ok(reader) => reader,
        Err(error) => {
            writeln!(std::io::stderr(), "error: cannot examine {}: {error}", arguments.root.display())?;
            return Ok(ExitCode::from(USAGE));
        }
    };
    let wanted = match wanted(arguments) {
        Ok(wanted) => wanted,
        Err(error) => {
            match error {
                LoadError::Invalid(findings) => print_findings(&findings)?,
                error => writeln!(std::io::stderr(), "{error}")?,
            }
            return Ok(ExitCode::FAILURE);
        }
    };
    let doctor = Doctor { arguments, reader, wanted, printer };
    let findings = doctor.visit(&mut output)?;
    output.flush()?;
    let is_bad = findings.iter().any(|finding| finding.state == State::Bad);
    Ok(if is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What the configuration asks. It is not compared with this machine's cores and memory:
/// that is what the findings are for.
fn wanted(arguments: &Arguments) -> Result<Wanted, LoadError> {
    match &arguments.file {
        Some(file) => load(file, &Machine::unknown()).map(|loaded| Wanted::of(&loaded.plan)),
        None => Ok(Wanted::nothing()),
    }
}

struct Doctor<'a> {
    arguments: &'a Arguments,
    reader: Reader,
    wanted: Wanted,
    printer: Printer,
}

impl Doctor<'_> {
    /// Examines, mends where asked, examines again, and prints; the last findings.
    fn visit(&self, output: &mut impl Write) -> std::io::Result<Vec<Finding>> {
        let Arguments { apply, dry_run, json, .. } = *self.arguments;
        let mut host = Host::read(&self.reader);
        let mut findings = self.examine(&host);
        let is_mending = apply && !dry_run;
        let mut applied = Applied::default();
        if apply || dry_run {
            applied = plan(&findings, &host, &self.wanted);
            self.mend(&mut applied, is_mending, output)?;
        }
        if is_mending {
            host = Host::read(&self.reader);
            findings = self.examine(&host);
        }
        if json {
            let mut report = json!({
                "score": score(&findings),
                "findings": findings.iter().map(Finding::json).collect::<Vec<_>>(),
            });
            if apply || dry_run {
                report["applied"] = applied.json();
            }
            writeln!(output, "{report:#}")?;
        } else {
            let file = self.arguments.file.as_ref().map(|file| file.display().to_string());
            output.write_all(self.printer.head(&host, file.as_deref()).as_bytes())?;
            output.write_all(self.printer.findings(&findings).as_bytes())?;
        }
        Ok(findings)
    }

    fn examine(&self, host: &Host) -> Vec<Finding> {
        checks::entries().filter_map(|entry| Finding::of(entry, host, &self.wanted)).collect()
    }

    /// Makes the changes, each shown before it is made and its outcome afterwards.
    fn mend(&self, applied: &mut Applied, is_mending: bool, output: &mut impl Write) -> std::io::Result<()> {
        let is_told = !self.arguments.json;
        for step in &mut applied.steps {
            if is_told {
                output.write_all(self.printer.change(step).as_bytes())?;
                output.flush()?;
            }
            if is_mending {
                step.fate = make(&step.change, &self.reader);
            }
            if is_told {
                output.write_all(self.printer.outcome(step).as_bytes())?;
            }
        }
        if is_told {
            if applied.steps.is_empty() {
                let word = if is_mending { "was" } else { "would be" };
                writeln!(output, "Nothing {word} changed: no finding can be mended while the machine runs.")?;
            }
            let left = self.printer.left(applied);
            writeln!(output, "{left}")?;
        }
        Ok(())
    }
}
