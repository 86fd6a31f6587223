//! Whether the host took the core away: the one cause that no datapath can know.
//!
//! A datapath that did not look in time says that it woke late, or that a turn took long. The
//! trace says more: if a timer of the core was due at one instant, expired at a later one, and
//! nothing at all happened on the core between, then nothing ran there. A loop that is busy does
//! not do that: timers interrupt it. (A kernel that keeps interrupts off for as long does; a
//! trace from inside cannot tell the two apart, and one that long is a fault of its own.)
//!
//! So `host stolen` is said only if such holes cover at least half of the time from the slot's
//! start until the datapath looked again. Otherwise the cause stays as the datapath has it.

use super::events::{Event, What};
use insane_core::{Cause, MonoTime, Nanos};
use insane_shm::misses::Miss;

/// A hole is at least so long: handlers and late interrupts of an ordinary kernel are shorter.
pub const HOLE_MIN: Nanos = Nanos::from_micros(50);
/// Timers of other clocks than the monotonic one seem to be late by far more.
const HOLE_MAX: Nanos = Nanos::from_secs(1);

/// What is thought of a miss.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Judged {
    /// The cause, with the trace.
    pub cause: Cause,
    /// When nothing ran.
    pub holes: Vec<(MonoTime, MonoTime)>,
    /// In words.
    pub why: String,
}

/// Times in which a timer was due and nothing at all happened.
pub fn holes(events: &[Event]) -> Vec<(MonoTime, MonoTime)> {
    let mut holes: Vec<(MonoTime, MonoTime)> = Vec::new();
    for (at, event) in events.iter().enumerate() {
        let What::Timer { due } = event.what else { continue };
        // Several timers that expire in one interrupt tell of the same hole; what is traced
        // before the first of them in this interrupt ends it.
        let Some(before) = at.checked_sub(1).map(|at| events[at].at) else { continue };
        let from = due.max(before);
        let length = event.at.since(from);
        if length >= HOLE_MIN && event.at.since(due) <= HOLE_MAX {
            holes.push((from, event.at));
        }
    }
    holes
}

/// What is thought of a miss, with the trace of the core and the datapath's thread.
pub fn judge(miss: &Miss, events: &[Event], tid: u32) -> Judged {
    let (from, to) = (miss.planned.max(miss.from), miss.to);
    let stays = |why: String| Judged { cause: miss.cause, holes: Vec::new(), why };
    if !miss.cause.may_be_the_host() || to <= from {
        return stays(String::new());
    }
    if events.first().is_none_or(|first| first.at > from) || events.last().is_none_or(|last| last.at < from) {
        return stays("the trace does not reach there".to_owned());
    }
    let within = |hole: &(MonoTime, MonoTime)| hole.1.min(to).since(hole.0.max(from));
    let found: Vec<(MonoTime, MonoTime)> =
        holes(events).into_iter().filter(|hole| within(hole) > Nanos::ZERO).collect();
    let stolen = found.iter().fold(0, |sum, hole| sum + within(hole).0);
    let late = to.since(from);
    if stolen * 2 >= late.0 {
        let why = format!("nothing ran on the core for {} of {late}, though timers were due", Nanos(stolen));
        return Judged { cause: Cause::HostStolen, holes: found, why };
    }
    Judged { cause: miss.cause, holes: found, why: who_ran(events, tid, (from, to)) }
}

/// Who had the core, in words.
fn who_ran(events: &[Event], tid: u32, (from, to): (MonoTime, MonoTime)) -> String {
    let within = |span: &super::events::Span| span.to.min(to).since(span.from.max(from)).0;
    let mut times: Vec<(u64, String)> = Vec::new();
    for run in super::events::runs(events).iter().filter(|run| within(run) > 0) {
        let name =
            if run.id == tid && tid != 0 { "the datapath".to_owned() } else { format!("{} ({})", run.name, run.id) };
        match times.iter_mut().find(|(_, other)| *other == name) {
            Some((time, _)) => *time += within(run),
            None => times.push((within(run), name)),
        }
    }
    times.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
    let words: Vec<String> =
        times.iter().take(3).map(|(time, name)| format!("{name} ran for {}", Nanos(*time))).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use insane_core::Fate;

    const US: u64 = 1_000;

    fn event(at_us: u64, what: What) -> Event {
        Event { at: MonoTime(at_us * US), what, name: *b"hog\0\0\0\0\0\0\0\0\0\0\0\0\0" }
    }

    fn timer(at_us: u64, due_us: u64) -> Event {
        event(at_us, What::Timer { due: MonoTime(due_us * US) })
    }

    fn switch(at_us: u64, from: u32, to: u32) -> Event {
        event(at_us, What::Switch { to, from, preempts: false })
    }

    fn miss(cause: Cause, from_us: u64, to_us: u64) -> Miss {
        Miss {
            sequence: 1,
            source: 1,
            planned: MonoTime(1_000 * US),
            noticed: MonoTime(to_us * US),
            emitted: MonoTime(1),
            cause,
            fate: Fate::Dropped,
            messages: 1,
            from: MonoTime(from_us * US),
            to: MonoTime(to_us * US),
        }
    }

    #[test]
    fn a_core_on_which_nothing_ran_though_a_timer_was_due_was_taken_away() {
        // The datapath (7) sleeps; its timer is due at 950 and expires at 1,600.
        let events = [switch(900, 7, 0), timer(1_600, 950), switch(1_601, 0, 7), switch(1_700, 7, 0)];
        let judged = judge(&miss(Cause::WakeLate, 900, 1_602), &events, 7);
        assert_eq!(judged.cause, Cause::HostStolen, "{judged:?}");
        assert_eq!(judged.holes, [(MonoTime(950 * US), MonoTime(1_600 * US))]);
        // The application's lateness is its own, whatever else happened.
        assert_eq!(judge(&miss(Cause::ApplicationLate, 900, 1_602), &events, 7).cause, Cause::ApplicationLate);
    }

    #[test]
    fn a_core_on_which_another_ran_was_not_and_who_it_was_is_told() {
        // Timers are on time, and interrupt a hog of higher priority.
        let events = [
            switch(900, 7, 9),
            timer(952, 950),
            timer(1_252, 1_250),
            timer(1_552, 1_550),
            switch(1_601, 9, 7),
            switch(1_700, 7, 0),
        ];
        let judged = judge(&miss(Cause::TurnOverrun, 900, 1_602), &events, 7);
        assert_eq!(judged.cause, Cause::TurnOverrun);
        assert!(judged.why.starts_with("hog (9) ran for 601"), "{}", judged.why);
    }

    #[test]
    fn a_timer_that_waited_for_handlers_is_no_hole() {
        let begins = |at, begins| event(at, What::Softirq { number: 3, begins });
        let events =
            [switch(900, 7, 0), begins(1_000, true), begins(1_590, false), timer(1_600, 950), switch(1_601, 0, 7)];
        assert_eq!(judge(&miss(Cause::WakeLate, 900, 1_602), &events, 7).cause, Cause::WakeLate);
    }

    #[test]
    fn without_a_trace_of_that_time_nothing_is_said() {
        let events = [switch(5_000, 7, 0), timer(5_600, 5_050)];
        let judged = judge(&miss(Cause::WakeLate, 900, 1_602), &events, 7);
        assert_eq!((judged.cause, judged.why.as_str()), (Cause::WakeLate, "the trace does not reach there"));
        assert_eq!(judge(&miss(Cause::WakeLate, 900, 1_602), &[], 7).cause, Cause::WakeLate);
    }
}
