//! What the kernel told, as `bpf/trace.bpf.c` writes it.

use insane_core::MonoTime;
use std::collections::BTreeMap;

/// Bytes of an event in the ring.
#[cfg(feature = "trace")]
const BYTES: usize = 40;

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// A thread of this core was woken.
    Wakeup {
        /// Which.
        tid: u32,
    },
    /// Another thread runs.
    Switch {
        /// Which.
        to: u32,
        /// The one before would have gone on.
        preempts: bool,
        /// The one before.
        from: u32,
    },
    /// An interrupt, by its number.
    Irq {
        /// Which.
        number: u32,
        /// It begins, or it ends.
        begins: bool,
    },
    /// A softirq, by its number.
    Softirq {
        /// Which.
        number: u32,
        /// It begins, or it ends.
        begins: bool,
    },
    /// A timer expired.
    Timer {
        /// When it was due; of another clock for some.
        due: MonoTime,
    },
}

/// One event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// When.
    pub at: MonoTime,
    /// What.
    pub what: What,
    /// The name of who was woken or runs.
    pub name: [u8; 16],
}

impl Event {
    /// An event of the ring; `None`: it is of another version.
    #[cfg(feature = "trace")]
    pub fn decode(bytes: &[u8]) -> Option<Event> {
        if bytes.len() < BYTES {
            return None;
        }
        let u64_at = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let u32_at = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let (at, kind, a, b) = (MonoTime(u64_at(0)?), u32_at(8)?, u32_at(12)?, u64_at(16)?);
        let what = match kind {
            1 => What::Wakeup { tid: a },
            2 => What::Switch { to: b as u32, preempts: b >> 32 != 0, from: a },
            3 | 4 => What::Irq { number: a, begins: kind == 3 },
            5 | 6 => What::Softirq { number: a, begins: kind == 5 },
            7 => What::Timer { due: MonoTime(b) },
            _ => return None,
        };
        Some(Event { at, what, name: bytes[24..40].try_into().ok()? })
    }

    /// The name, of what can be shown.
    pub fn name(&self) -> String {
        let len = self.name.iter().position(|byte| *byte == 0).unwrap_or(self.name.len());
        let name = String::from_utf8_lossy(&self.name[..len]);
        name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
    }
}

/// A time in which one thread ran, or one handler.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Span {
    /// From.
    pub from: MonoTime,
    /// To.
    pub to: MonoTime,
    /// The thread; zero is the idle one. For handlers the number.
    pub id: u32,
    /// Its name.
    pub name: String,
}

/// Who ran when, as far as it was seen from the first switch on.
pub fn runs(events: &[Event]) -> Vec<Span> {
    let mut runs: Vec<Span> = Vec::new();
    for event in events {
        if let What::Switch { to, .. } = event.what {
            if let Some(last) = runs.last_mut() {
                last.to = event.at;
            }
            let name = if to == 0 { "idle".to_owned() } else { event.name() };
            runs.push(Span { from: event.at, to: event.at, id: to, name });
        }
    }
    if let (Some(run), Some(event)) = (runs.last_mut(), events.last()) {
        run.to = event.at;
    }
    runs
}

/// Interrupts and softirqs.
pub fn handlers(events: &[Event]) -> Vec<Span> {
    let mut open: BTreeMap<(bool, u32), MonoTime> = BTreeMap::new();
    let mut spans = Vec::new();
    for event in events {
        let (is_soft, number, begins) = match event.what {
            What::Irq { number, begins } => (false, number, begins),
            What::Softirq { number, begins } => (true, number, begins),
            _ => continue,
        };
        if begins {
            open.insert((is_soft, number), event.at);
        } else if let Some(from) = open.remove(&(is_soft, number)) {
            let name = if is_soft { softirq(number).to_owned() } else { format!("irq {number}") };
            spans.push(Span { from, to: event.at, id: number, name });
        }
    }
    spans
}

/// The names of softirqs, as `/proc/softirqs` has them.
pub fn softirq(number: u32) -> &'static str {
    const NAMES: [&str; 10] =
        ["HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU"];
    NAMES.get(number as usize).copied().unwrap_or("softirq")
}
