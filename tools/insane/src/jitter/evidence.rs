//! Counters that may explain a late wake-up: the thread's own, read by itself once a cycle,
//! and those of its core, read by another thread now and then.

use insane_core::{MonoTime, Nanos};
use insane_sys::clock::{mono_now, sleep_until};
use nix::sys::resource::{UsageWho, getrusage};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

/// Between two looks at the counters of the core, at least.
const INTERVAL: Nanos = Nanos::from_millis(20);
/// Looks that are kept; a longer measurement looks less often.
pub const LOOKS_MAX: u64 = 2_000;
/// Interrupts that are told apart.
const LINES_MAX: usize = 4_096;

/// What the current thread can tell about itself. Reading it allocates nothing.
pub struct Own {
    schedstat: Option<File>,
    waited_ns: u64,
    switches: i64,
}

/// The same since the look before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Since {
    /// Ready and waiting for a core; `None`: the kernel does not tell.
    pub waited: Option<Nanos>,
    /// Taken from its core without asking for it.
    pub switches: u64,
}

impl Own {
    /// Of the current thread.
    pub fn new() -> Self {
        let mut own = Own { schedstat: File::open("/proc/thread-self/schedstat").ok(), waited_ns: 0, switches: 0 };
        own.since();
        own
    }

    /// What came since the last call.
    pub fn since(&mut self) -> Since {
        let mut text = [0; 96];
        let read = self.schedstat.as_ref().and_then(|file| file.read_at(&mut text, 0).ok());
        let waited_ns = read.and_then(|length| second_number(&text[..length]));
        let switches =
            getrusage(UsageWho::RUSAGE_THREAD).map_or(self.switches, |usage| usage.involuntary_context_switches());
        let since = Since {
            waited: waited_ns.map(|now| Nanos(now.saturating_sub(self.waited_ns))),
            switches: u64::try_from(switches - self.switches).unwrap_or(0),
        };
        self.waited_ns = waited_ns.unwrap_or(self.waited_ns);
        self.switches = switches;
        since
    }
}

/// Of `run_ns wait_ns slices`.
fn second_number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Counters of one core at one instant.
#[derive(Clone, Debug, Default)]
struct Look {
    at: MonoTime,
    steal: u64,
    handlers: u64,
    lines: Vec<u64>,
}

/// What was read of one core during a measurement.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Names of the interrupts.
    pub names: Vec<String>,
    looks: Vec<Look>,
}

/// What counters gained between two looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Between the looks.
    pub length: Nanos,
    /// Ticks that the host took.
    pub steal: u64,
    /// Ticks in interrupt and softirq handlers.
    pub handlers: u64,
    /// Interrupts by line.
    pub lines: Vec<u64>,
}

impl Record {
    /// Reads the counters of `core` until told to stop.
    pub fn keep(core: usize, length: Nanos, stop: &AtomicBool) -> Record {
        let interval = INTERVAL.max(Nanos(length.0 / LOOKS_MAX));
        let mut record = Record::default();
        let mut next = mono_now();
        for _ in 0..2 * LOOKS_MAX {
            // One more look after the end: the last wake-ups are between two looks, too.
            let is_last = stop.load(Ordering::Acquire);
            let interrupts = std::fs::read_to_string("/proc/interrupts").unwrap_or_default();
            let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
            record.add(mono_now(), core, &interrupts, &stat);
            if is_last {
                break;
            }
            next += interval;
            sleep_until(next);
        }
        record
    }

    fn add(&mut self, at: MonoTime, core: usize, interrupts: &str, stat: &str) {
        let (names, lines): (Vec<_>, Vec<_>) = of_core(interrupts, core).take(LINES_MAX).unzip();
        // Lines that came or went make others incomparable: those looks tell of no line.
        let lines = if self.names.is_empty() || self.names == names { lines } else { Vec::new() };
        if self.names.is_empty() {
            self.names = names;
        }
        let (steal, handlers) = ticks_of_core(stat, core).unwrap_or_default();
        self.looks.push(Look { at, steal, handlers, lines });
    }

    /// What happened around a stretch of time; `None` where nobody looked.
    pub fn around(&self, from: MonoTime, to: MonoTime) -> Option<Window> {
        let before = self.looks.iter().rfind(|look| look.at <= from)?;
        let after = self.looks.iter().find(|look| look.at >= to)?;
        Some(between(before, after))
    }

    /// How often an interrupt comes in such a time on average.
    pub fn expected(&self, line: usize, length: Nanos) -> f64 {
        let last = self.looks.iter().rfind(|look| !look.lines.is_empty());
        let (Some(first), Some(last)) = (self.looks.first(), last) else { return 0.0 };
        let all = between(first, last);
        let count = all.lines.get(line).copied().unwrap_or(0) as f64;
        count * length.0 as f64 / all.length.0.max(1) as f64
    }

    /// One of two looks, the first of which saw nothing.
    #[cfg(test)]
    pub fn for_tests(names: &[&str], counts: &[u64], length: Nanos) -> Record {
        let look = |at, lines| Look { at, lines, ..Look::default() };
        Record {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            looks: vec![look(MonoTime(0), vec![0; counts.len()]), look(MonoTime(length.0), counts.to_vec())],
        }
    }
}

fn between(before: &Look, after: &Look) -> Window {
    Window {
        length: after.at.since(before.at),
        steal: after.steal.saturating_sub(before.steal),
        handlers: after.handlers.saturating_sub(before.handlers),
        lines: after.lines.iter().zip(&before.lines).map(|(after, before)| after.saturating_sub(*before)).collect(),
    }
}

/// Name and count of each interrupt on one core, of `/proc/interrupts`.
fn of_core(text: &str, core: usize) -> impl Iterator<Item = (String, u64)> {
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let wanted = format!("CPU{core}");
    let cores = head.split_whitespace().count();
    let column = head.split_whitespace().position(|name| name == wanted);
    lines.filter_map(move |line| {
        let (id, rest) = line.split_once(':')?;
        let count = rest.split_whitespace().nth(column?)?.parse().ok()?;
        // Numbered interrupts end with the device; the others are named by a sentence.
        let text = match id.trim().parse::<u32>() {
            Ok(_) => rest.split_whitespace().last().unwrap_or_default().to_owned(),
            Err(_) => rest.split_whitespace().skip(cores).collect::<Vec<_>>().join(" "),
        };
        // `TLB: TLB shootdowns` names it once already.
        let id = id.trim();
        let name = if text.starts_with(&format!("{id} ")) { text } else { format!("{id} {text}") };
        Some((name.chars().filter(|letter| !letter.is_control()).take(60).collect(), count))
    })
}

/// Ticks of steal time, and in handlers, of one core, of `/proc/stat`: user, nice, system,
/// idle, iowait, irq, softirq, steal.
fn ticks_of_core(text: &str, core: usize) -> Option<(u64, u64)> {
    let wanted = format!("cpu{core} ");
    let line = text.lines().find_map(|line| line.strip_prefix(wanted.as_str()))?;
    let mut fields = line.split_whitespace().map(|field| field.parse::<u64>().unwrap_or(0)).skip(5);
    let (irq, softirq, steal) = (fields.next()?, fields.next()?, fields.next()?);
    Some((steal, irq.saturating_add(softirq)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERRUPTS: &str = "           CPU0       CPU3
  36:          7    1391241 PCI-MSIX-0000:00:02.0   1-edge      virtio1-req.0
 LOC:     100000     200000   Local timer interrupts
 TLB:          1          2   TLB shootdowns
 ERR:          0
";
    const STAT: &str = "cpu  1 2 3 4 5 6 7 8 0 0\ncpu3 1 2 3 4 5 60 700 9 0 0\n";

    #[test]
    fn counters_of_a_core_are_read_by_its_name() {
        let of = |core| of_core(INTERRUPTS, core).collect::<Vec<_>>();
        let lines = [
            ("36 virtio1-req.0".to_owned(), 1_391_241),
            ("LOC Local timer interrupts".to_owned(), 200_000),
            ("TLB shootdowns".to_owned(), 2),
        ];
        assert_eq!(of(3), lines);
        assert_eq!(of(1), [], "cores that are off have no column");
        assert_eq!(ticks_of_core(STAT, 3), Some((9, 760)));
        assert_eq!(ticks_of_core(STAT, 0), None);
        for garbage in ["", "x", "CPU3\n:::\n36\n36: x\n"] {
            assert_eq!(of_core(garbage, 3).count(), 0, "{garbage:?}");
            assert_eq!(ticks_of_core(garbage, 3), None);
        }
    }

    #[test]
    fn a_window_is_between_the_looks_around_it() {
        let mut record = Record::default();
        let text = |count: u64| format!("CPU0\n 1: {count} dev\n");
        for (at, count) in [(10, 100), (20, 105), (30, 205), (40, 206)] {
            record.add(MonoTime(at), 0, &text(count), "cpu0 0 0 0 0 0 0 0 0\n");
        }
        let around = record.around(MonoTime(22), MonoTime(28)).unwrap();
        assert_eq!((around.length, around.lines.as_slice()), (Nanos(10), &[100][..]));
        assert_eq!(record.around(MonoTime(18), MonoTime(28)).unwrap().lines, [105]);
        assert_eq!(record.around(MonoTime(5), MonoTime(28)), None);
        assert_eq!(record.around(MonoTime(35), MonoTime(48)), None);
        assert!((record.expected(0, Nanos(30)) - 106.0).abs() < 1e-9);
        record.add(MonoTime(50), 0, "CPU0\n 1: 9 dev\n 2: 4 new\n", "");
        assert_eq!(record.around(MonoTime(41), MonoTime(49)).unwrap().lines, [0; 0], "incomparable");
        assert!((record.expected(0, Nanos(30)) - 106.0).abs() < 1e-9, "of those that can be compared");
    }

    #[test]
    fn the_threads_own_counters_are_read() {
        let mut own = Own::new();
        let since = own.since();
        let told = std::path::Path::new("/proc/thread-self/schedstat").exists();
        assert_eq!(since.waited.is_some(), told);
        assert_eq!(second_number(b"12 345 6\n"), Some(345));
        assert_eq!(second_number(b"12"), None);
    }
}
