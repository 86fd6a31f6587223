//! The timeline in words.

use super::events::{Event, What, softirq};
use super::own::{Told, deeds};
use super::{Shown, Watched};
use insane_core::{Cause, MonoTime, Nanos};
use insane_shm::trace::{SlotFate, SlotRecord};

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

/// A line of a timeline, and when.
type Line = (MonoTime, String);

/// Where nothing was missed: the last slot, or turn.
pub fn calm(last: MonoTime, events: &[Event], told: &Told, tid: u32) -> String {
    let lines = lines((last - AROUND, last + AROUND), events, told, tid);
    format!("\nnothing was missed; the last slot or turn\n{}", timeline(lines, last))
}

/// One miss, with what happened around it.
pub fn around(shown: &Shown, events: &[Event], told: &Told, tid: u32) -> String {
    let miss = &shown.miss;
    let (from, to) = range(shown);
    let mut lines = lines((from, to), events, told, tid);
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
    format!("\n{}\n{}", heading(shown), timeline(lines, miss.planned))
}

/// What the kernel and the datapath told of a time.
fn lines((from, to): (MonoTime, MonoTime), events: &[Event], told: &Told, tid: u32) -> Vec<Line> {
    let events = events.iter().filter(|event| (from..=to).contains(&event.at));
    let mut lines: Vec<Line> = events.map(|event| (event.at, line(event, tid))).collect();
    for turn in told.turns_in((from, to)) {
        let took = turn.ends.since(turn.begins);
        let vain = match turn.idle_before {
            0 => String::new(),
            count => format!(" ({count} before it moved nothing, and are not shown)"),
        };
        lines.push((turn.begins, format!("- a turn begins, and takes {took}: {}{vain}", deeds(turn))));
    }
    told.slots_in((from, to)).for_each(|slot| lines.extend(of_slot(slot, told)));
    lines
}

/// The start of a slot, and what became of it.
fn of_slot(slot: &SlotRecord, told: &Told) -> [Line; 2] {
    let message = match slot.sequence {
        u64::MAX => "nothing".to_owned(),
        sequence => format!("message {sequence}"),
    };
    let apart = if slot.sent >= slot.planned {
        format!("{} after its start", slot.sent.since(slot.planned))
    } else {
        format!("{} before its start", slot.planned.since(slot.sent))
    };
    let became = match slot.fate {
        SlotFate::Refused => "the link takes nothing: it waits".to_owned(),
        SlotFate::Used | SlotFate::HandedAhead => format!("{message} is {}, {apart}", slot.fate.name()),
        SlotFate::SentLate | SlotFate::Dropped => {
            format!("{message}, which missed its slot, is {}, {apart}", slot.fate.name())
        }
    };
    let begins = format!("- the slot of {} begins", told.whose(slot));
    [(slot.planned, begins), (slot.sent, format!("- {became}"))]
}

/// Lines in order, with instants from `zero` on; the nearest ones where there are too many.
fn timeline(mut lines: Vec<Line>, zero: MonoTime) -> String {
    lines.sort_by_key(|(at, _)| *at);
    // What the runtime says stays, with the lines that are nearest to the slot.
    let left_out = lines.len().saturating_sub(LINES_MAX);
    let mut nearest: Vec<usize> = (0..lines.len()).collect();
    let distance = |at: &usize| lines[*at].0.0.abs_diff(zero.0);
    nearest.sort_by_key(|at| (!lines[*at].1.starts_with('*'), distance(at)));
    nearest.truncate(LINES_MAX);
    nearest.sort_unstable();
    let mut text = String::new();
    for (at, what) in nearest.iter().map(|at| &lines[*at]) {
        let us = (at.0 as f64 - zero.0 as f64) / 1e3;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::own::tests::{slot, turn};

    #[test]
    fn turns_and_slots_stand_between_the_events_of_the_kernel() {
        const US: u64 = 1_000;
        let event = |us: u64| Event {
            at: MonoTime(us * US),
            what: What::Wakeup { tid: 7 },
            name: *b"dp-main\0\0\0\0\0\0\0\0\0",
        };
        let told = Told {
            turns: vec![turn(1_000 * US, 1_010 * US, 1), turn(2_000 * US, 2_001 * US, 0)],
            slots: vec![slot(1_003 * US, 1_003 * US, 1_006 * US, SlotFate::Used)],
            streams: [(3, "axis".to_owned())].into(),
            ..Told::default()
        };
        let text = calm(told.last().unwrap(), &[event(990), event(5_000)], &told, 7);
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what}: {text}"));
        let places = [
            at("-13.0 us  the datapath is woken"),
            at("-3.0 us  - a turn begins, and takes 10.0 us: 1 message sent, 2 frames received, a sink woken"),
            at("+0.0 us  - the slot of stream axis, source 3, lane 0 begins"),
            at("+3.0 us  - message 41 is sent, 3.0 us after its start"),
        ];
        assert!(places.is_sorted(), "{text}");
        assert_eq!(text.matches("turn begins").count(), 1, "the other one is far away: {text}");
    }
}
