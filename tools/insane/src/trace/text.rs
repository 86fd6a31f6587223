//! The timeline in words.

use super::events::{Event, What, softirq};
use super::{Shown, Watched};
use insane_core::{Cause, MonoTime, Nanos};

/// Before and after a miss, what is shown.
pub const AROUND: Nanos = Nanos::from_micros(150);
/// Lines of one miss, at most.
const LINES_MAX: usize = 50;

/// What was seen at all.
pub fn summary(watched: &Watched, events: &[Event], lost: u64, shown: &[Shown]) -> String {
    let count = |accept: fn(&What) -> bool| events.iter().filter(|event| accept(&event.what)).count();
    let mut text = format!(
        "{} on core {}: {} switches ({} preemptions), {} wake-ups, {} interrupts, {} softirqs, {} timers\n",
        watched.name,
        watched.core,
        count(|what| matches!(what, What::Switch { .. })),
        count(|what| matches!(what, What::Switch { preempts: true, .. })),
        count(|what| matches!(what, What::Wakeup { .. })),
        count(|what| matches!(what, What::Irq { begins: true, .. })),
        count(|what| matches!(what, What::Softirq { begins: true, .. })),
        count(|what| matches!(what, What::Timer { .. })),
    );
    if lost > 0 {
        text += &format!("{lost} events were lost for want of room: the timeline has holes\n");
    }
    let causes =
        Cause::ALL.into_iter().map(|cause| (cause, shown.iter().filter(|one| one.judged.cause == cause).count()));
    let causes: Vec<String> =
        causes.filter(|(_, count)| *count > 0).map(|(cause, count)| format!("{} {count}", cause.name())).collect();
    match (watched.misses.is_some(), causes.is_empty()) {
        (false, _) => {}
        (true, true) => text += "no message missed its slot\n",
        (true, false) => text += &format!("missed their slots: {}\n", causes.join(", ")),
    }
    text
}

/// The heading of a miss.
pub fn heading(shown: &Shown) -> String {
    let Shown { miss, judged } = shown;
    let late = miss.noticed.since(miss.planned);
    let why = if judged.why.is_empty() { String::new() } else { format!(" ({})", judged.why) };
    format!(
        "source {} message {}: {}{why}, {late} after its slot, {}",
        miss.source,
        miss.sequence,
        judged.cause.name(),
        miss.fate.name()
    )
}

/// What is shown of a miss: from, to.
pub fn range(shown: &Shown) -> (MonoTime, MonoTime) {
    let miss = &shown.miss;
    (miss.planned.min(miss.from) - AROUND, miss.noticed.max(miss.to) + AROUND)
}

/// One miss, with what happened around it.
pub fn around(shown: &Shown, events: &[Event], tid: u32) -> String {
    let miss = &shown.miss;
    let (from, to) = range(shown);
    let mut lines: Vec<(MonoTime, String)> = events
        .iter()
        .filter(|event| (from..=to).contains(&event.at))
        .map(|event| (event.at, line(event, tid)))
        .collect();
    let mut own = |at: MonoTime, what: String| lines.push((at, format!("* {what}")));
    own(miss.planned, "the slot begins".into());
    own(miss.noticed, format!("the message is {}", miss.fate.name()));
    if miss.emitted > MonoTime(0) && miss.emitted >= from {
        own(miss.emitted, "the application emits the message".into());
    }
    if miss.from > MonoTime(0) {
        own(miss.from, format!("{}: from here", miss.cause.name()));
        own(miss.to, format!("{}: to here", miss.cause.name()));
    }
    shown.judged.holes.iter().for_each(|(begins, ends)| {
        own(*begins, "a timer is due, and nothing runs any more".into());
        own(*ends, "something runs again".into());
    });
    lines.sort_by_key(|(at, _)| *at);
    // What the runtime says stays, with the lines that are nearest to the slot.
    let left_out = lines.len().saturating_sub(LINES_MAX);
    let mut nearest: Vec<usize> = (0..lines.len()).collect();
    let distance = |at: &usize| lines[*at].0.0.abs_diff(miss.planned.0);
    nearest.sort_by_key(|at| (!lines[*at].1.starts_with('*'), distance(at)));
    nearest.truncate(LINES_MAX);
    nearest.sort_unstable();
    let mut text = format!("\n{}\n", heading(shown));
    for (at, what) in nearest.iter().map(|at| &lines[*at]) {
        let us = (at.0 as f64 - miss.planned.0 as f64) / 1e3;
        text += &format!("  {us:>+12.1} us  {what}\n");
    }
    if left_out > 0 {
        text += &format!("  {left_out} more\n");
    }
    text
}

fn line(event: &Event, tid: u32) -> String {
    let who = |id: u32, name: String| match id {
        0 => "idle".to_owned(),
        id if id == tid => "the datapath".to_owned(),
        id => format!("{name} ({id})"),
    };
    match event.what {
        What::Wakeup { tid: woken } => format!("{} is woken", who(woken, event.name())),
        What::Switch { to, from, preempts } => {
            let how = if preempts { "preempts" } else { "runs after" };
            let from = if from == tid && tid != 0 { "the datapath".to_owned() } else { format!("thread {from}") };
            format!("{} {how} {from}", who(to, event.name()))
        }
        What::Irq { number, begins } => format!("interrupt {number} {}", if begins { "begins" } else { "ends" }),
        What::Softirq { number, begins } => {
            format!("softirq {} {}", softirq(number), if begins { "begins" } else { "ends" })
        }
        What::Timer { due } => format!("a timer expires, {} after it was due", event.at.since(due)),
    }
}
