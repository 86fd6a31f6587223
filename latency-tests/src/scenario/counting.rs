//! Scenarios `instructions` and `syscalls`: this program runs itself under
//! callgrind or strace and reads what they counted.

use super::Findings;
use super::count::{BEGIN_MARK, COUNTED_FUNCTION, END_MARK, WAIT_FUNCTIONS};
use crate::cli::{Cli, Counted, Plugin};
use crate::harness::Bench;
use crate::harness::fault::Fault;
use crate::harness::rounds::Table;
use crate::ours::rdma;
use crate::report::row::{Figures, Ratio, Row};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Instructions of one local message, ours and the bare ring's; of one over udp and over xdp;
/// and of one over rdma, where there is a device.
pub fn instructions(bench: &Bench, cli: &Cli, findings: &mut Findings) {
    let messages = if bench.effort.smoke { 1_000 } else { 20_000 };
    let rows = [
        (None, "instructions/64B", Counted::Ours, Counted::Ring),
        (None, "instructions/copied-64B", Counted::OursCopied, Counted::Ring),
        (Some(Plugin::Udp), "instructions/udp-64B", Counted::Network, Counted::Udp),
        (Some(Plugin::XdpNative), "instructions/xdp-64B", Counted::Xdp, Counted::RawXdp),
        (Some(Plugin::XdpNative), "instructions/xdp-64B/many-peers", Counted::XdpManyPeers, Counted::Xdp),
        (Some(Plugin::Rdma), "instructions/rdma-64B", Counted::Rdma, Counted::Verbs),
    ];
    let wanted = |plugin: &Option<Plugin>| cli.plugin.is_none() || cli.plugin == *plugin;
    for (plugin, name, ours, raw) in rows.into_iter().filter(|row| wanted(&row.0)) {
        let is_there = if plugin == Some(Plugin::Rdma) { rdma::address().map(drop) } else { Ok(()) };
        let both =
            is_there.and_then(|()| collected(ours, messages)).and_then(|ours| Ok((ours, collected(raw, messages)?)));
        match both {
            Ok(figures) => findings.add(table(name, raw, "instructions/message", figures, messages)),
            Err(fault) => findings.note(name, &fault),
        }
    }
}

/// System calls of one local message on the application's thread, in poll mode.
pub fn syscalls(bench: &Bench, findings: &mut Findings) {
    let messages = if bench.effort.smoke { 1_000 } else { 100_000 };
    let both = traced(Counted::Ours, messages).and_then(|ours| Ok((ours, traced(Counted::Ring, messages)?)));
    let name = "syscalls/local";
    match both {
        Ok((ours, ring)) => {
            println!("syscalls: other threads of the process made {} calls meanwhile", ours.others);
            let each = |calls: u64| calls as f64 / messages as f64;
            findings.add(table(
                name,
                Counted::Ring,
                "calls/message",
                (each(ours.counted), each(ring.counted)),
                messages,
            ));
        }
        Err(fault) => findings.note(name, &fault),
    }
}

fn table(name: &str, raw: Counted, unit: &str, figures: (f64, f64), n: u64) -> Table {
    let (ours, baseline) = figures;
    let row = Row {
        name: name.to_owned(),
        unit: unit.to_owned(),
        ours: Figures::Value { value: ours },
        baseline: Figures::Value { value: baseline },
        ratio: Ratio::Value { value: (baseline > 0.0).then_some(ours / baseline) },
        n,
        topology: "one thread".to_owned(),
        floor_before_us: None,
        floor_after_us: None,
    };
    let beside = if raw == Counted::Xdp { "insane-rt, one peer".to_owned() } else { format!("bare {}", raw.name()) };
    Table { row, labels: ["insane-rt".to_owned(), beside], curves: Vec::new() }
}

/// A file for a tool's output, removed when done.
struct Scratch(PathBuf);

impl Scratch {
    fn new(tool: &str, side: Counted) -> Self {
        Scratch(std::env::temp_dir().join(format!("latency-tests.{}.{tool}.{}", std::process::id(), side.name())))
    }

    fn read(&self) -> Result<String, Fault> {
        fs::read_to_string(&self.0).map_err(Fault::os("read what a tool has counted"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Instructions of one message, or slot.
///
/// # Errors
/// The tool is not there, or the counted half failed.
pub fn collected(side: Counted, messages: u64) -> Result<f64, Fault> {
    let scratch = Scratch::new("callgrind", side);
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--collect-atstart=no", "--error-exitcode=0"]);
    // Its threads run one at a time, and the counted one never waits: without turns the control
    // threads were late with heartbeats, the link went down, and a message found none.
    valgrind.arg("--fair-sched=try");
    valgrind.arg(format!("--toggle-collect={COUNTED_FUNCTION}"));
    // Off inside the other: who waits there is not counted.
    valgrind.arg(format!("--toggle-collect={WAIT_FUNCTIONS}"));
    valgrind.arg(format!("--callgrind-out-file={}", scratch.0.display()));
    run_self_under(valgrind, "valgrind", side, messages)?;
    let total = collected_total(&scratch.read()?).ok_or_else(|| Fault::Party("callgrind wrote no total".into()))?;
    if total < messages {
        return Err(Fault::Party(format!("callgrind found no function {COUNTED_FUNCTION}")));
    }
    Ok(total as f64 / messages as f64)
}

/// The instructions in callgrind's output.
fn collected_total(text: &str) -> Option<u64> {
    let total = |line: &str| line.strip_prefix("totals: ").or(line.strip_prefix("summary: "))?.trim().parse().ok();
    text.lines().filter_map(total).next_back()
}

fn run_self_under(mut tool: Command, name: &str, side: Counted, messages: u64) -> Result<(), Fault> {
    let own: PathBuf = std::env::current_exe().map_err(Fault::os("find this program"))?;
    let own: &Path = &own;
    let messages = messages.to_string();
    tool.arg(own).args(["count", "--side", side.name(), "--messages", &messages]);
    let output = tool.stdin(Stdio::null()).output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => Fault::Unavailable(format!("{name} is not installed (Debian: apt install {name})")),
        _ => Fault::os("start a counting tool")(error),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = words.lines().rev().take(3).collect();
    Err(Fault::Party(format!(
        "{name}, counting {}: {}",
        side.name(),
        last.into_iter().rev().collect::<Vec<_>>().join(" / ")
    )))
}

/// Calls between the two marks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Calls {
    /// On the thread that made the marks.
    counted: u64,
    /// On all other threads.
    others: u64,
}

fn traced(side: Counted, messages: u64) -> Result<Calls, Fault> {
    let scratch = Scratch::new("strace", side);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", "signal=none", "-o"]).arg(&scratch.0);
    run_self_under(strace, "strace", side, messages)?;
    calls_between_marks(&scratch.read()?).ok_or_else(|| Fault::Party("strace saw no marks".into()))
}

/// Reads a trace whose lines are `thread call(…`; a call that another thread's
/// call interrupts takes two lines, of which the second begins with `<...`.
fn calls_between_marks(trace: &str) -> Option<Calls> {
    let calls: Vec<(&str, &str)> = trace
        .lines()
        .filter_map(|line| line.trim_start().split_once(char::is_whitespace))
        .map(|(thread, call)| (thread, call.trim_start()))
        .filter(|(_, call)| !call.starts_with("<...") && !call.starts_with('+'))
        .collect();
    let begin = calls.iter().position(|(_, call)| call.contains(BEGIN_MARK))?;
    let end = calls.iter().position(|(_, call)| call.contains(END_MARK))?;
    let counted_thread = calls[begin].0;
    let mut found = Calls::default();
    for (thread, _) in calls.get(begin + 1..end)? {
        if *thread == counted_thread { found.counted += 1 } else { found.others += 1 }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_between_the_marks_by_thread() {
        let trace = format!(
            "10 read(3) = 1\n10 statx(AT_FDCWD, \"{BEGIN_MARK}\") = -1\n10 futex(1) = 0\n 11 epoll_wait(4 <unfinished ...>\n10 write(1) = 1\n11 <... epoll_wait resumed>) = 0\n10 statx(AT_FDCWD, \"{END_MARK}\") = -1\n10 exit(0)\n10 +++ exited with 0 +++\n"
        );
        assert_eq!(calls_between_marks(&trace), Some(Calls { counted: 2, others: 1 }));
        assert_eq!(calls_between_marks("10 read(3) = 1\n"), None);
    }

    #[test]
    fn the_total_is_read_from_callgrinds_output() {
        assert_eq!(collected_total("events: Ir\nfn=(1) f\n1 5\n\ntotals: 12345\n"), Some(12345));
        assert_eq!(collected_total("events: Ir\n"), None);
    }
}
