//! Slots end to end: messages of one stream from a runtime to another on this machine, each from
//! the start of its slot to its arrival.
//!
//! When a slot begins is what the sender's runtime says: its start modulo the period, by the
//! slots' time, and how far that is from the monotonic clock, which both ends share. The offset is
//! asked for anew every [`ASKED`], since the slots follow TAI.
//!
//! # Bounds
//! One message a period. The thread sleeps until it is woken for a message, which is part of what
//! is measured: one that looked all the time would take the core from the runtimes. A message
//! that has not come a quarter of a period after its slot began is taken whenever it comes.

use super::Arguments;
use super::cause::Cause;
use super::evidence::{Own, Record};
use super::metric::{Metric, Wake};
use crate::observer::Observer;
use insane_core::{MonoTime, Nanos};
use insane_rt::{
    ChannelId, Consumption, Determinism, LatePolicy, Priority, Qos, Session, Sink, SinkOptions, Source, SourceOptions,
};
use insane_shm::misses::{Miss, file_of, read};
use insane_sys::clock::{mono_now, sleep_until};
use insane_sys::thread::{SchedPolicy, cores, pin_current, set_name, set_policy_current};
use insane_wire::status::{MeasuredStatus, SlotStatus, StatusReport};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const STREAM: &str = "insane-jitter";
const CHANNEL: ChannelId = ChannelId(1);
/// Bytes of a message.
const BYTES: usize = 64;
/// How long the two may take to be joined, and the slots to be in force.
const PATIENCE: Nanos = Nanos::from_secs(10);
/// Between two looks at the sender's offset.
const ASKED: Nanos = Nanos::from_millis(200);
/// Messages whose slots are remembered.
const UNDER_WAY: usize = 1_024;

/// What came out.
pub struct Slots {
    /// Arrivals; the number of a cycle is that of its message.
    pub metric: Metric,
    /// Counters of the core on which they were taken.
    pub record: Record,
    /// What was not as it should be.
    pub notices: Vec<String>,
    /// e_turn and e_wake of the sender's datapath.
    pub measured: Vec<(String, MeasuredStatus)>,
    misses: Vec<Miss>,
}

impl Slots {
    /// Why a message was late: what the sender's runtime noted of its slot, or `otherwise`.
    pub fn cause(&self, sequence: u64, otherwise: Cause) -> Cause {
        let is_it = |miss: &&Miss| {
            let messages = miss.sequence..miss.sequence + u64::from(miss.messages.max(1));
            messages.contains(&sequence)
        };
        match self.misses.iter().find(is_it) {
            Some(miss) => {
                Cause { cause: miss.cause.name(), detail: format!("it missed its slot: {}", miss.fate.name()) }
            }
            None => {
                let detail = match otherwise.detail.as_str() {
                    "" => "it was in its slot".to_owned(),
                    detail => format!("it was in its slot; {detail}"),
                };
                Cause { detail, ..otherwise }
            }
        }
    }
}

/// Measures for as long as asked, on a core.
pub fn measure(arguments: &Arguments, core: usize, sockets: &[PathBuf]) -> Result<Slots, String> {
    let [sender, receiver] = sockets else { return Err("--slots takes two sockets".into()) };
    let attach = |socket: &Path| {
        Session::attach(socket, "insane jitter").map_err(|error| format!("{}: {error}", socket.display()))
    };
    let (here, there) = (attach(sender)?, attach(receiver)?);
    let period = arguments.period();
    // One that is late makes way for the next one: otherwise it would hold up all behind it.
    let (offset, deadline, size) = (Nanos::ZERO, period, BYTES as u32);
    let determinism = Determinism::TimeSensitive { period, offset, deadline, size, late: LatePolicy::NewestWins };
    let qos = Qos { determinism, priority: Priority::MAX, consumption: Consumption::Low, ..Qos::default() };
    let words = |error: insane_rt::RequestError| error.to_string();
    let source = here.stream(STREAM, qos).map_err(words)?.source(CHANNEL, SourceOptions::default()).map_err(words)?;
    let sink = there.stream(STREAM, qos).map_err(words)?.sink(CHANNEL, SinkOptions::default()).map_err(words)?;
    let mut observer = Observer::attach(sender, PATIENCE, "insane jitter", None).map_err(|error| error.to_string())?;
    let mut ask = move || observer.status().map_err(|error| error.to_string());
    wait(|| Ok(source.receivers() > 0), "the second runtime is no peer of the first, or not reached")?;
    // A slot that went by unused says that the table is in force.
    let runs = |report: &StatusReport| {
        let count = |path: usize, name: &str| report.datapaths[path].counters.get(name).copied().unwrap_or(0);
        of(report).is_some_and(|(path, _)| count(path, "slots_unused") + count(path, "slots_sent") > 0)
    };
    wait(|| Ok(runs(&ask()?)), "the sender has no slots: a link has no `rate_mbps`, or they are not in force")?;
    let (path, (number, slot)) = of(&ask()?).ok_or("the sender's slots are gone")?;
    let offset = AtomicU64::new(0);
    let refresh = |report: &StatusReport| {
        let told = report.datapaths.get(path).and_then(|datapath| datapath.slot_offset_ns);
        offset.store(told.unwrap_or(0), Ordering::Relaxed);
    };
    refresh(&ask()?);
    let rest = cores().iter().copied().find(|other| *other != core);
    let stop = AtomicBool::new(false);
    let length = Nanos::from_secs(arguments.seconds);
    let (metric, record, notices, last) = std::thread::scope(|scope| {
        let asker = scope.spawn(|| {
            set_name("jitter-ask");
            rest.map(pin_current);
            let mut last = ask();
            while !stop.load(Ordering::Acquire) {
                std::thread::sleep(ASKED.into());
                last = ask();
                last.iter().for_each(refresh);
            }
            last
        });
        let watcher = scope.spawn(|| {
            set_name("jitter-watch");
            rest.map(pin_current);
            Record::keep(core, length, &stop)
        });
        // Each end belongs to one thread.
        let (slot, offset) = (&slot, &offset);
        let exchange = scope.spawn(move || {
            set_name("jitter-slots");
            let mut notices = Vec::new();
            let placed = pin_current(core).map_err(|error| error.to_string()).and_then(|()| match rest {
                Some(_) => set_policy_current(SchedPolicy::Fifo(arguments.priority)).map_err(|error| error.to_string()),
                None => Err("this process has one core only".to_owned()),
            });
            notices.extend(placed.err().map(|why| format!("slots are taken without SCHED_FIFO: {why}")));
            let ends = (&source, &sink);
            let metric = exchange(ends, (slot, offset), mono_now() + length, arguments);
            // Back, since the slots go with them: the sender is asked once more.
            (metric.map(|metric| (metric, notices)), (source, sink))
        });
        let exchanged = exchange.join();
        stop.store(true, Ordering::Release);
        let record = watcher.join().map_err(|_| "the thread that watches the core panicked")?;
        let last = asker.join().map_err(|_| "the thread that asks the sender panicked")?;
        let (exchanged, _ends) = exchanged.map_err(|_| "the measuring thread panicked")?;
        let (metric, notices) = exchanged?;
        Ok::<_, String>((metric, record, notices, last))
    })?;
    let last = last?;
    let datapath = last.datapaths.get(path).ok_or("the sender's datapath is gone")?;
    let rows = datapath.monitors.iter();
    let measured = rows.filter_map(|row| Some((row.assumption.clone(), row.measured.clone()?))).collect();
    // Without the record there are no causes of it; that the sender's user alone may read it is no error.
    let mut notices: Vec<String> = notices;
    let misses = match read(&file_of(sender)) {
        Ok(readers) => {
            let of = readers.into_iter().filter(|reader| reader.name() == datapath.name);
            let all = of.flat_map(|reader| reader.since(0)).map(|(_, miss)| miss);
            all.filter(|miss| miss.source == number).collect()
        }
        Err(error) => {
            notices.push(format!("causes of missed slots are not told: {}: {error}", file_of(sender).display()));
            Vec::new()
        }
    };
    Ok(Slots { metric, record, notices, measured, misses })
}

/// The place of the datapath, and the source with its slots.
fn of(report: &StatusReport) -> Option<(usize, (u32, SlotStatus))> {
    let stream = report.streams.iter().find(|stream| stream.name == STREAM)?;
    let path = report.datapaths.iter().position(|path| stream.datapath.as_ref() == Some(&path.name))?;
    let mut sources = stream.channels.iter().flat_map(|channel| &channel.sources);
    let found = sources.find_map(|source| Some((source.id, source.slot.clone()?)))?;
    Some((path, found))
}

fn wait(mut is: impl FnMut() -> Result<bool, String>, otherwise: &str) -> Result<(), String> {
    let end = mono_now() + PATIENCE;
    while !is()? {
        if mono_now() >= end {
            return Err(otherwise.to_owned());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// The start of the first slot after `from`, by the monotonic clock.
fn next_slot(slot: &SlotStatus, offset: u64, from: MonoTime) -> MonoTime {
    let (period, now) = (slot.period_ns.max(1), from.0.wrapping_add(offset));
    let into = (now % period + period - slot.start_ns % period) % period;
    from + Nanos(period - into)
}

/// One message a slot, until `end`.
fn exchange(
    (source, sink): (&Source, &Sink),
    (slot, offset): (&SlotStatus, &AtomicU64),
    end: MonoTime,
    arguments: &Arguments,
) -> Result<Metric, String> {
    let mut metric = Metric::new(arguments.outlier());
    let mut under_way = [MonoTime(0); UNDER_WAY];
    let period = Nanos(slot.period_ns);
    let mut own = Own::new();
    let mut planned = mono_now() + period;
    for number in 0_u64.. {
        // Less than half a period ahead: what comes before is late for the slot before.
        planned = next_slot(slot, offset.load(Ordering::Relaxed), planned + Nanos(period.0 / 4));
        if planned >= end {
            break;
        }
        sleep_until(planned - Nanos(period.0 / 8 * 3));
        if mono_now() + Nanos(period.0 / 4) > planned {
            // This thread came too late itself.
            metric.missed += 1;
            planned = mono_now() + period;
            continue;
        }
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        let mut buffer = source.get_buffer(BYTES).map_err(|error| error.to_string())?;
        buffer.copy_from_slice(&bytes);
        if !source.emit(buffer).is_sent() {
            metric.missed += 1;
            continue;
        }
        under_way[number as usize % UNDER_WAY] = planned;
        own.since();
        let mut waits = true;
        while waits {
            let rest = (planned + Nanos(period.0 / 4)).since(mono_now());
            let message = sink.consume_timeout(rest.into()).map_err(|error| error.to_string())?;
            let now = mono_now();
            if let Some(message) = message {
                let mut told = [0; 8];
                message.copy_to(&mut told);
                let told = u64::from_le_bytes(told);
                waits = told != number;
                let at = under_way[told as usize % UNDER_WAY];
                let late = now.since(at);
                metric.record(Wake { cycle: message.sequence(), planned: at, late, own: own.since() });
                // Those that made way for it never come.
                metric.missed += u64::from(message.lost());
            } else {
                waits = now < planned + Nanos(period.0 / 4);
            }
        }
    }
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use super::*;
    use insane_core::{Cause as Missed, Fate};

    #[test]
    fn a_message_that_missed_its_slot_has_the_cause_that_was_noted_and_no_other_has() {
        let miss = Miss {
            sequence: 7,
            source: 1,
            planned: MonoTime(0),
            noticed: MonoTime(1),
            emitted: MonoTime(0),
            cause: Missed::WakeLate,
            fate: Fate::LaterSlot,
            messages: 2,
            from: MonoTime(0),
            to: MonoTime(1),
        };
        let slots = Slots {
            metric: Metric::new(Nanos(1)),
            record: Record::default(),
            notices: vec![],
            measured: vec![],
            misses: vec![miss],
        };
        let likely = || Cause { cause: "preempted", detail: "waited".to_owned() };
        for (sequence, cause, detail) in [
            (6, "preempted", "it was in its slot; waited"),
            (7, Missed::WakeLate.name(), "it missed its slot: "),
            (8, Missed::WakeLate.name(), "it missed its slot: "),
            (9, "preempted", "it was in its slot; waited"),
        ] {
            let told = slots.cause(sequence, likely());
            assert!(told.cause == cause && told.detail.starts_with(detail), "{sequence}: {told:?}");
        }
    }

    #[test]
    fn the_next_slot_is_after_an_instant_wherever_the_slots_time_is() {
        let slot = SlotStatus { start_ns: 300, period_ns: 1_000, ..SlotStatus::default() };
        // The last one is behind.
        for offset in [0, 7_000, 0_u64.wrapping_sub(1_000)] {
            let of = |from| next_slot(&slot, offset, MonoTime(from)).0;
            assert_eq!([of(5_000), of(5_299), of(5_300)], [5_300, 5_300, 6_300], "{offset}");
        }
        assert_eq!(next_slot(&slot, 100, MonoTime(5_000)), MonoTime(5_200));
    }
}
