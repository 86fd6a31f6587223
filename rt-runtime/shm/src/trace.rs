//! The record of a trace: what a datapath did in its turns, and which slots it used, for a tool
//! that reads along.
//!
//! ```text
//! 64-bit words: +-----------------------------------------------------------------+
//!               | 0 mark | 1 entries | 2 written | 3-511 -                        |
//!               +-----------------------------------------------------------------+
//!               | 512.. entries of 8 words (a cache line), a ring:                |
//!               | turn: stamp | what | begins  | ends    | messages, frames | 0.. |
//!               | slot: stamp | what | planned | decided | sent | source, bytes   |
//!               |       | sequence | 0                                            |
//!               +-----------------------------------------------------------------+
//! what, bytes:  | kind | flags or fate | lane | - | idle turns, or number (2) |
//! ```
//! The stamp is the number of the record and one; see `stamped` of this crate.
//!
//! Invariants
//! - It exists only while a trace is being taken: the runtime makes it when a tool asks, and
//!   lets it go with that tool's session. The tool has a mapping of its own, which outlives both.
//! - One writer, the datapath; every other mapping is read-only. The writer never reads it
//!   back, neither waits nor calls nor allocates, and overwrites the oldest.
//! - A reader that was lapped knows how many records it lost, by their numbers. It trusts no
//!   word: what cannot be is left out and counted.
//! - Records hold instants and numbers, and no byte of a message.
//!
//! Bounds: [`ENTRIES`] records are held; one look of a reader takes so many at most.

use crate::region::Region;
use crate::stamped;
use insane_core::{Lane, MonoTime};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Records that are held: at a turn that works each microsecond, those of 32 ms. A tool that
/// looks every 20 ms misses none.
pub const ENTRIES: usize = 32_768;
/// A page: what readers poll shares no line with the records.
const HEADER_WORDS: usize = 512;
/// Words of a record beside its stamp.
const CONTENT_WORDS: usize = 7;
const ENTRY_WORDS: usize = CONTENT_WORDS + 1;
/// Bytes of the memory of a trace.
pub const TRACE_BYTES: usize = (HEADER_WORDS + ENTRIES * ENTRY_WORDS) * 8;
const _: () = assert!(TRACE_BYTES == 2_101_248 && TRACE_BYTES.is_multiple_of(4096));
const _: () = assert!(ENTRIES.is_power_of_two());

/// "insaneT" and the version of the layout, raised when a word says another thing, or one more
/// fate is told. A test below keeps what it looks like.
const MARK: u64 = u64::from_le_bytes(*b"insaneT\x01");
const AT_MARK: usize = 0;
const AT_ENTRIES: usize = 1;
const AT_WRITTEN: usize = 2;

const KIND_TURN: u8 = 1;
const KIND_SLOT: u8 = 2;
const DID_COMMANDS: u8 = 1;
const DID_WAKE: u8 = 2;
const DID_HOUSEKEEPING: u8 = 4;

/// One turn that did something, or took long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TurnRecord {
    /// The look at the clock with which it began.
    pub begins: MonoTime,
    /// The one with which it ended.
    pub ends: MonoTime,
    /// Messages or chunks that it sent.
    pub messages: u32,
    /// Frames that it received.
    pub frames: u32,
    /// It carried out commands of the control plane.
    pub took_commands: bool,
    /// It woke a sink.
    pub woke: bool,
    /// It did what has no hurry.
    pub kept_house: bool,
    /// Turns that moved nothing, and are not recorded, between the record before and this one.
    pub idle_before: u32,
}

/// What became of a slot, or of a message that had missed its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum SlotFate {
    /// Its message went in it.
    Used = 1,
    /// Its message was handed over ahead, and the link holds it back until the slot begins.
    HandedAhead = 2,
    /// The message missed its slot, and went between slots.
    SentLate = 3,
    /// The message missed its slot, and was dropped.
    Dropped = 4,
    /// The link took nothing in it.
    Refused = 5,
}

impl SlotFate {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            SlotFate::Used => "sent",
            SlotFate::HandedAhead => "handed over ahead",
            SlotFate::SentLate => "sent between slots",
            SlotFate::Dropped => "dropped",
            SlotFate::Refused => "not taken by the link",
        }
    }

    const fn from_number(number: u8) -> Option<SlotFate> {
        match number {
            1 => Some(SlotFate::Used),
            2 => Some(SlotFate::HandedAhead),
            3 => Some(SlotFate::SentLate),
            4 => Some(SlotFate::Dropped),
            5 => Some(SlotFate::Refused),
            _ => None,
        }
    }
}

/// One slot that was used, or one message that had missed its slot and left otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotRecord {
    /// The start of the slot; of a message that missed its own, of that one if it is known,
    /// else as [`decided`](Self::decided).
    pub planned: MonoTime,
    /// The look at the clock by which it was decided to send.
    pub decided: MonoTime,
    /// The first look after the message was handed to the link and the link was told to send;
    /// of what is sent between slots, or not, as `decided`.
    pub sent: MonoTime,
    /// The source, as the runtime numbers them.
    pub source: u32,
    /// Its number among the sources with slots of the datapath.
    pub number: u16,
    /// Its lane.
    pub lane: Lane,
    /// Bytes on the link, all peers and frames.
    pub bytes: u32,
    /// Sequence of the message; `u64::MAX`: none left.
    pub sequence: u64,
    /// What became of it.
    pub fate: SlotFate,
}

/// What a record tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Record {
    /// A turn.
    Turn(TurnRecord),
    /// A slot.
    Slot(SlotRecord),
}

impl Record {
    #[inline]
    const fn encode(&self) -> [u64; CONTENT_WORDS] {
        match self {
            Record::Turn(turn) => {
                let did = (turn.took_commands as u8 * DID_COMMANDS)
                    | (turn.woke as u8 * DID_WAKE)
                    | (turn.kept_house as u8 * DID_HOUSEKEEPING);
                let what = KIND_TURN as u64 | (did as u64) << 8 | (turn.idle_before as u64) << 32;
                let moved = turn.messages as u64 | (turn.frames as u64) << 32;
                [what, turn.begins.0, turn.ends.0, moved, 0, 0, 0]
            }
            Record::Slot(slot) => {
                let what = KIND_SLOT as u64
                    | (slot.fate as u64) << 8
                    | (slot.lane.get() as u64) << 16
                    | (slot.number as u64) << 32;
                let who = slot.source as u64 | (slot.bytes as u64) << 32;
                [what, slot.planned.0, slot.decided.0, slot.sent.0, who, slot.sequence, 0]
            }
        }
    }

    /// The one place where words become a record: `None`, they are none.
    fn decode(content: [u64; CONTENT_WORDS]) -> Option<Record> {
        let [what, first, second, third, who, sequence, _] = content;
        let [kind, detail, lane, ..] = what.to_le_bytes();
        let high = (what >> 32) as u32;
        match kind {
            KIND_TURN if second >= first => Some(Record::Turn(TurnRecord {
                begins: MonoTime(first),
                ends: MonoTime(second),
                messages: third as u32,
                frames: (third >> 32) as u32,
                took_commands: detail & DID_COMMANDS != 0,
                woke: detail & DID_WAKE != 0,
                kept_house: detail & DID_HOUSEKEEPING != 0,
                idle_before: high,
            })),
            KIND_SLOT if third >= second => Some(Record::Slot(SlotRecord {
                planned: MonoTime(first),
                decided: MonoTime(second),
                sent: MonoTime(third),
                source: who as u32,
                number: u16::try_from(high).ok()?,
                lane: Lane::new(lane)?,
                bytes: (who >> 32) as u32,
                sequence,
                fate: SlotFate::from_number(detail)?,
            })),
            _ => None,
        }
    }
}

/// The memory of a trace.
#[derive(Debug)]
struct Words {
    start: *const AtomicU64,
    /// Keeps the memory mapped.
    _region: Arc<Region>,
}

// SAFETY: the pointer is into the region, which is `Send + Sync`, and leads to atomics.
unsafe impl Send for Words {}

impl Words {
    fn new(region: Arc<Region>) -> Option<Words> {
        if region.len() < TRACE_BYTES {
            return None;
        }
        // A mapping begins at a page, so words are aligned.
        Some(Words { start: region.as_ptr().cast(), _region: region })
    }

    #[inline]
    fn header(&self, at: usize) -> &AtomicU64 {
        assert!(at < HEADER_WORDS, "a word of the header");
        // SAFETY: `new` checked that the region holds the header; it lives as long as `self`, and
        // atomics may be written by others meanwhile.
        unsafe { &*self.start.add(at) }
    }

    #[inline]
    fn entry(&self, number: u64) -> &[AtomicU64; ENTRY_WORDS] {
        let at = HEADER_WORDS + number as usize % ENTRIES * ENTRY_WORDS;
        // SAFETY: the place is below `ENTRIES`, all of which lie inside the region, as `new`
        // checked; as above.
        unsafe { &*self.start.add(at).cast() }
    }
}

/// The writing end: the datapath has it.
#[derive(Debug)]
pub struct TraceLog {
    words: Words,
    /// Records so far. Not read back: what lies in the memory may be seen by others.
    written: u64,
}

impl TraceLog {
    /// A record in a region that nobody else writes, beginning anew. `None`: the region is too
    /// small or not writable.
    #[must_use]
    pub fn new(region: Arc<Region>) -> Option<Self> {
        if !region.is_writable() {
            return None;
        }
        let words = Words::new(region)?;
        words.header(AT_WRITTEN).store(0, Ordering::Relaxed);
        words.header(AT_ENTRIES).store(ENTRIES as u64, Ordering::Relaxed);
        // Release: who finds the mark finds the rest of the header.
        words.header(AT_MARK).store(MARK, Ordering::Release);
        Some(TraceLog { words, written: 0 })
    }

    /// Notes a record, over the oldest one.
    #[inline]
    pub fn note(&mut self, record: &Record) {
        let number = self.written;
        self.written = number.wrapping_add(1);
        let [stamp, entry @ ..] = self.words.entry(number);
        stamped::write(stamp, entry, self.written, record.encode());
        // Release: who reads the number finds the records below it.
        self.words.header(AT_WRITTEN).store(self.written, Ordering::Release);
    }
}

/// What a reader did not get so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Missing {
    /// Records that were overwritten before they were read.
    pub overwritten: u64,
    /// Records that cannot be.
    pub odd: u64,
}

/// The reading end.
#[derive(Debug)]
pub struct TraceReader {
    words: Words,
    /// The number of the next record.
    next: u64,
    missing: Missing,
}

impl TraceReader {
    /// The record in a region; `None`: it holds none of this layout.
    #[must_use]
    pub fn new(region: Arc<Region>) -> Option<Self> {
        let words = Words::new(region)?;
        // Acquire: pairs with the mark's release.
        let is_one = words.header(AT_MARK).load(Ordering::Acquire) == MARK
            && words.header(AT_ENTRIES).load(Ordering::Relaxed) == ENTRIES as u64;
        is_one.then_some(TraceReader { words, next: 0, missing: Missing::default() })
    }

    /// Hands out what was written since the last call, the oldest first: at most [`ENTRIES`]
    /// records. Not for a hot path.
    pub fn take(&mut self, mut each: impl FnMut(Record)) {
        // Acquire: pairs with the writer's release.
        let written = self.words.header(AT_WRITTEN).load(Ordering::Acquire);
        if written < self.next {
            // It never goes back: whatever stands there is no number.
            self.missing.odd = self.missing.odd.saturating_add(1);
            return;
        }
        let first = self.next.max(written.saturating_sub(ENTRIES as u64));
        self.missing.overwritten = self.missing.overwritten.saturating_add(first - self.next);
        for number in first..written {
            let [stamp, entry @ ..] = self.words.entry(number);
            match stamped::read(stamp, entry, number.wrapping_add(1)).map(Record::decode) {
                Some(Some(record)) => each(record),
                Some(None) => self.missing.odd = self.missing.odd.saturating_add(1),
                // The writer came round to it meanwhile.
                None => self.missing.overwritten = self.missing.overwritten.saturating_add(1),
            }
        }
        self.next = written;
    }

    /// What was not handed out.
    #[must_use]
    pub const fn missing(&self) -> Missing {
        self.missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    /// A record that is told by each of its words which one it is.
    fn record(number: u64) -> Record {
        let n = number as u32;
        if number.is_multiple_of(3) {
            return Record::Slot(SlotRecord {
                planned: MonoTime(number * 10),
                decided: MonoTime(number * 10 + 1),
                sent: MonoTime(number * 10 + 2),
                source: n,
                number: n as u16,
                lane: Lane::new((number % 8) as u8).unwrap(),
                bytes: n ^ 7,
                sequence: number,
                fate: SlotFate::from_number((number % 5) as u8 + 1).unwrap(),
            });
        }
        Record::Turn(TurnRecord {
            begins: MonoTime(number * 10),
            ends: MonoTime(number * 10 + 5),
            messages: n,
            frames: n ^ 1,
            took_commands: number & 1 != 0,
            woke: number & 2 != 0,
            kept_house: number & 4 != 0,
            idle_before: n ^ 9,
        })
    }

    /// Who changes this raises the version in [`MARK`], and writes down here what it is then.
    #[test]
    fn the_layout_is_what_its_version_says() {
        let changed = "it has changed: raise the version in `MARK`, then this";
        let (_region, mut log, _reader) = ends();
        let turn = TurnRecord {
            begins: MonoTime(10),
            ends: MonoTime(11),
            messages: 12,
            frames: 13,
            took_commands: true,
            woke: false,
            kept_house: true,
            idle_before: 14,
        };
        let slot = SlotRecord {
            planned: MonoTime(20),
            decided: MonoTime(21),
            sent: MonoTime(22),
            source: 23,
            number: 24,
            lane: Lane::new(2).unwrap(),
            bytes: 25,
            sequence: 26,
            fate: SlotFate::Refused,
        };
        log.note(&Record::Turn(turn));
        log.note(&Record::Slot(slot));
        let header = [AT_MARK, AT_ENTRIES, AT_WRITTEN].map(|at| log.words.header(at).load(Ordering::Relaxed));
        assert_eq!(header, [u64::from_le_bytes(*b"insaneT\x01"), 32_768, 2], "{changed}");
        let entry = |number| log.words.entry(number).each_ref().map(|word| word.load(Ordering::Relaxed));
        assert_eq!(entry(0), [1, 1 | 5 << 8 | 14 << 32, 10, 11, 12 | 13 << 32, 0, 0, 0], "{changed}");
        let what = 2 | 5 << 8 | 2 << 16 | 24 << 32;
        assert_eq!(entry(1), [2, what, 20, 21, 22, 23 | 25 << 32, 26, 0], "{changed}");
        for number in 0..=255 {
            let fate = SlotFate::from_number(number);
            assert_eq!(fate.is_some(), (1..=5).contains(&number), "{changed}");
            assert!(fate.is_none_or(|fate| fate as u8 == number));
        }
    }

    fn ends() -> (Arc<Region>, TraceLog, TraceReader) {
        let region = Region::anonymous(TRACE_BYTES).unwrap();
        let log = TraceLog::new(Arc::clone(&region)).unwrap();
        let reader = TraceReader::new(Arc::clone(&region)).unwrap();
        (region, log, reader)
    }

    fn taken(reader: &mut TraceReader) -> Vec<Record> {
        let mut records = Vec::new();
        reader.take(|record| records.push(record));
        records
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Against a queue that forgets its oldest.
        #[test]
        fn a_reader_gets_what_a_bounded_queue_would_hold(bursts in prop::collection::vec(
            prop_oneof![0..200_u64, ENTRIES as u64 - 2..ENTRIES as u64 + 3, 0..3 * ENTRIES as u64], 1..8,
        )) {
            let (_region, mut log, mut reader) = ends();
            let (mut queue, mut written, mut lost) = (VecDeque::new(), 0, 0);
            for burst in bursts {
                for number in written..written + burst {
                    log.note(&record(number));
                    queue.push_back(record(number));
                    if queue.len() > ENTRIES {
                        queue.pop_front();
                        lost += 1;
                    }
                }
                written += burst;
                let expected: Vec<Record> = queue.drain(..).collect();
                prop_assert_eq!(taken(&mut reader), expected);
                prop_assert_eq!(reader.missing(), Missing { overwritten: lost, odd: 0 });
            }
        }

        #[test]
        fn whatever_words_are_there_are_a_record_that_could_be_written_or_none(content: [u64; CONTENT_WORDS]) {
            if let Some(record) = Record::decode(content) {
                prop_assert_eq!(Record::decode(record.encode()), Some(record));
            }
        }
    }

    #[test]
    fn a_reader_beside_the_writer_sees_whole_records_in_order_and_knows_what_it_lost() {
        const WRITTEN: u64 = 20 * ENTRIES as u64;
        let (_region, mut log, mut reader) = ends();
        let writes = std::thread::spawn(move || (0..WRITTEN).for_each(|number| log.note(&record(number))));
        let (mut seen, mut last) = (0, None);
        loop {
            let is_over = writes.is_finished();
            reader.take(|read| {
                let number = match read {
                    Record::Slot(slot) => slot.sequence,
                    Record::Turn(turn) => turn.begins.0 / 10,
                };
                assert_eq!(read, record(number), "no part is of another record");
                assert!(last.is_none_or(|last| last < number), "in order");
                last = Some(number);
                seen += 1;
            });
            if is_over {
                break;
            }
        }
        writes.join().unwrap();
        assert_eq!(last, Some(WRITTEN - 1), "the newest is never lost");
        assert_eq!(reader.missing(), Missing { overwritten: WRITTEN - seen, odd: 0 });
    }

    #[test]
    fn memory_of_anything_harms_no_reader() {
        let region = Region::anonymous(TRACE_BYTES).unwrap();
        assert!(TraceReader::new(Arc::clone(&region)).is_none(), "no mark");
        assert!(TraceLog::new(Region::anonymous(4096).unwrap()).is_none(), "too small");
        assert!(TraceReader::new(Region::anonymous(4096).unwrap()).is_none(), "too small");
        let (region, mut log, mut reader) = ends();
        (0..5).for_each(|number| log.note(&record(number)));
        assert_eq!(taken(&mut reader).len(), 5);
        // As if somebody wrote there: numbers that go back, or are beyond all, and random words.
        let words = Words::new(region).unwrap();
        words.header(AT_WRITTEN).store(2, Ordering::Relaxed);
        assert_eq!((taken(&mut reader).len(), reader.missing().odd), (0, 1));
        let mut state = 1_u64;
        for number in 0..ENTRIES as u64 {
            for word in words.entry(number) {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                word.store(state, Ordering::Relaxed);
            }
            // Half of them have the stamp that is looked for.
            if number.is_multiple_of(2) {
                let stamp = (number + 1).wrapping_sub(ENTRIES as u64);
                words.entry(number)[0].store(stamp, Ordering::Relaxed);
            }
        }
        words.header(AT_WRITTEN).store(u64::MAX, Ordering::Relaxed);
        let records = taken(&mut reader).len() as u64;
        let Missing { overwritten, odd } = reader.missing();
        assert!(records < ENTRIES as u64 / 32, "two kinds of 256 begin a record: {records}");
        assert!(odd > ENTRIES as u64 / 4, "the others are none: {odd}");
        assert_eq!(overwritten.saturating_add(odd).saturating_add(records), u64::MAX - 5 + 1);
    }
}
