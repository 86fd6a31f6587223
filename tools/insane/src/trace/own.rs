//! What the datapath itself tells while it is traced: its turns, and the slots that it used.
//!
//! The runtime hands over memory that the datapath writes for as long as this session lives;
//! see `insane_shm::trace`. Its instants are of the monotonic clock, as those of the kernel's
//! events are.

use crate::observer::Observer;
use insane_core::{MonoTime, Nanos};
use insane_shm::trace::{Missing, Record, SlotFate, SlotRecord, TraceReader, TurnRecord};
use insane_wire::status::StatusReport;
use std::collections::BTreeMap;

/// Records that are kept, at most: what comes after is counted.
const RECORDS_MAX: usize = 1 << 20;

/// What a datapath told.
#[derive(Default)]
pub struct Told {
    /// Turns that moved something or took long, in order.
    pub turns: Vec<TurnRecord>,
    /// Slots, in order.
    pub slots: Vec<SlotRecord>,
    /// What was overwritten, or made no sense.
    pub missing: Missing,
    /// What there was no room for.
    pub dropped: u64,
    /// The runtime ended meanwhile, or closed the session.
    pub is_gone: bool,
    /// The streams of sources, as far as they were there at the beginning.
    pub streams: BTreeMap<u32, String>,
}

/// A datapath that is telling.
pub struct Recording {
    observer: Observer,
    datapath: String,
    reader: Option<TraceReader>,
    told: Told,
}

impl Recording {
    /// Not begun.
    pub fn new(observer: Observer, datapath: &str, report: &StatusReport) -> Self {
        let channels = report.streams.iter().flat_map(|stream| stream.channels.iter().map(move |of| (stream, of)));
        let sources = channels.flat_map(|(stream, of)| of.sources.iter().map(move |source| (source.id, stream)));
        let streams = sources.map(|(id, stream)| (id, stream.name.clone())).collect();
        let told = Told { streams, ..Told::default() };
        Recording { observer, datapath: datapath.to_owned(), reader: None, told }
    }

    /// Begins.
    pub fn begin(&mut self) -> Result<(), String> {
        self.reader = Some(self.observer.trace(&self.datapath).map_err(|error| error.to_string())?);
        Ok(())
    }

    /// Takes what came.
    pub fn take(&mut self) {
        let told = &mut self.told;
        let Some(reader) = &mut self.reader else { return };
        reader.take(|record| match record {
            _ if told.turns.len() + told.slots.len() >= RECORDS_MAX => told.dropped += 1,
            Record::Turn(turn) => told.turns.push(turn),
            Record::Slot(slot) => told.slots.push(slot),
        });
        told.missing = reader.missing();
    }

    /// Ends.
    pub fn finish(mut self) -> Told {
        self.take();
        self.told.is_gone = self.observer.is_gone();
        self.told
    }
}

impl Told {
    /// Whether there was no datapath, or it told nothing.
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty() && self.slots.is_empty() && self.missing == Missing::default()
    }

    /// Turns that were under way in a time.
    pub fn turns_in(&self, (from, to): (MonoTime, MonoTime)) -> impl Iterator<Item = &TurnRecord> {
        self.turns.iter().filter(move |turn| turn.ends >= from && turn.begins <= to)
    }

    /// Slots that were to begin, or were used, in a time.
    pub fn slots_in(&self, (from, to): (MonoTime, MonoTime)) -> impl Iterator<Item = &SlotRecord> {
        self.slots.iter().filter(move |slot| {
            let (first, last) = (slot.planned.min(slot.decided), slot.planned.max(slot.sent));
            last >= from && first <= to
        })
    }

    /// What is shown where nothing was missed: the last slot that was used, or else the last turn.
    pub fn last(&self) -> Option<MonoTime> {
        let slot = self.slots.last().map(|slot| slot.planned);
        slot.or_else(|| self.turns.last().map(|turn| turn.begins))
    }

    /// Whose slot it is.
    pub fn whose(&self, slot: &SlotRecord) -> String {
        match self.streams.get(&slot.source) {
            Some(stream) => format!("stream {stream}, source {}, lane {}", slot.source, slot.lane),
            None => format!("source {}, lane {}", slot.source, slot.lane),
        }
    }

    /// In words: how many there were, and what is missing.
    pub fn summary(&self) -> String {
        let longest = self.turns.iter().map(|turn| turn.ends.since(turn.begins)).max().unwrap_or(Nanos::ZERO);
        let count = |fate| self.slots.iter().filter(|slot| slot.fate == fate).count();
        let (used, ahead) = (count(SlotFate::Used), count(SlotFate::HandedAhead));
        let after = self.slots.iter().filter(|slot| slot.fate == SlotFate::Used);
        let after = after.map(|slot| slot.sent.since(slot.planned)).max().unwrap_or(Nanos::ZERO);
        let mut text = format!(
            "the datapath: {} turns that moved something or took long, the longest {longest}; slots used: {}",
            self.turns.len(),
            used + ahead,
        );
        if used > 0 {
            text += &format!(", the latest {after} after its start");
        }
        for fate in [SlotFate::HandedAhead, SlotFate::SentLate, SlotFate::Dropped, SlotFate::Refused] {
            if count(fate) > 0 {
                text += &format!(", {} {}", count(fate), fate.name());
            }
        }
        text.push('\n');
        text += &match self.missing.overwritten {
            0 => "none of its records were overwritten before they were read\n".to_owned(),
            lost => format!("{lost} of its records were overwritten before they were read: its part has holes\n"),
        };
        if self.missing.odd > 0 {
            text += &format!("{} of its records made no sense, and are left out\n", self.missing.odd);
        }
        if self.dropped > 0 {
            text += &format!("{} of its records are left out for want of room: its part ends early\n", self.dropped);
        }
        if self.is_gone {
            text += "the runtime ended meanwhile: so does its part\n";
        }
        text
    }
}

/// What a turn did, in words.
pub fn deeds(turn: &TurnRecord) -> String {
    let plural = |count: u32| if count == 1 { "" } else { "s" };
    let mut deeds = Vec::new();
    if turn.messages > 0 {
        deeds.push(format!("{} message{} sent", turn.messages, plural(turn.messages)));
    }
    if turn.frames > 0 {
        deeds.push(format!("{} frame{} received", turn.frames, plural(turn.frames)));
    }
    let others = [
        (turn.took_commands, "commands of the control plane"),
        (turn.woke, "a sink woken"),
        (turn.kept_house, "housekeeping"),
    ];
    deeds.extend(others.into_iter().filter(|(did, _)| *did).map(|(_, what)| what.to_owned()));
    if deeds.is_empty() { "it moved nothing".to_owned() } else { deeds.join(", ") }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use insane_core::Lane;

    pub(in crate::trace) fn turn(begins: u64, ends: u64, messages: u32) -> TurnRecord {
        TurnRecord {
            begins: MonoTime(begins),
            ends: MonoTime(ends),
            messages,
            frames: 2,
            took_commands: false,
            woke: true,
            kept_house: false,
            idle_before: 3,
        }
    }

    pub(in crate::trace) fn slot(planned: u64, decided: u64, sent: u64, fate: SlotFate) -> SlotRecord {
        SlotRecord {
            planned: MonoTime(planned),
            decided: MonoTime(decided),
            sent: MonoTime(sent),
            source: 3,
            number: 0,
            lane: Lane::new(0).unwrap(),
            bytes: 194,
            sequence: 41,
            fate,
        }
    }

    #[test]
    fn what_is_missing_is_said_and_what_was_late_is_counted_apart() {
        let mut told = Told {
            turns: vec![turn(0, 5_000, 1), turn(9_000, 10_000, 0)],
            slots: vec![slot(1_000, 1_500, 3_000, SlotFate::Used), slot(2_000, 60_000, 60_000, SlotFate::SentLate)],
            ..Told::default()
        };
        let text = told.summary();
        assert!(text.contains("2 turns") && text.contains("the longest 5.0 us; slots used: 1"), "{text}");
        assert!(text.contains("the latest 2.0 us after its start, 1 sent between slots"), "{text}");
        assert!(text.contains("none of its records were overwritten"), "{text}");
        told.missing = Missing { overwritten: 7, odd: 1 };
        told.is_gone = true;
        let text = told.summary();
        assert!(text.contains("7 of its records were overwritten") && text.contains("1 of its records made no sense"));
        assert!(text.contains("the runtime ended meanwhile"), "{text}");
        let at = |from, to| (MonoTime(from), MonoTime(to));
        assert_eq!(told.slots_in(at(30_000, 40_000)).count(), 1, "it waited all that time");
        assert_eq!(told.turns_in(at(5_001, 8_999)).count(), 0);
        assert_eq!(told.last(), Some(MonoTime(2_000)));
    }
}
