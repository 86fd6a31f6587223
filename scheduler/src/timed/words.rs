//! What goes into the time-triggered scheduler and comes out of it.

use crate::{FlowIndex, LinkRate, Recurrence};
use core::fmt;
use core::num::{NonZeroU32, NonZeroU64};
use insane_core::{MonoTime, TaiTime};

/// One look at both clocks: slots are TAI, buckets and waits are monotonic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Monotonic time.
    pub mono: MonoTime,
    /// TAI at the same moment.
    pub tai: TaiTime,
}

/// What is known of the link and of the thread that feeds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkTiming {
    /// The rate, as configured or measured.
    pub rate: LinkRate,
    /// e_turn: longest time from a `poll` to the moment its bytes are on their way,
    /// nanoseconds. It is kept free before every slot, and within it.
    pub turn_ns: u64,
    /// Most bytes of others that are on the same queue at a time and that the caller does
    /// not see; zero where the queue is ours alone.
    pub foreign_bytes: u32,
    /// Most bytes of the lanes below us at a time, at least one frame: what is handed over
    /// cannot be taken back when a table is staged. One takes over safely no sooner than
    /// they and e_turn take.
    pub in_flight_bytes: u32,
    /// How long before its start a slot may be handed to the link: above zero only on a
    /// link that honours launch instants, on a queue of its own, nanoseconds.
    pub lead_ns: u64,
    /// A change of TAI against monotonic time above this, between two polls, is a step
    /// of the clock, nanoseconds.
    pub step_ns: u64,
}

/// What becomes of a message that missed its slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LatePolicy {
    /// It is dropped. One that waited through a slot, and may yet go in the next, is dropped for
    /// one behind it.
    Drop,
    /// It goes as soon as it fits between slots, before all lanes, while its deadline
    /// has not passed; then it is dropped.
    SendNow,
    /// It goes in the next slot, those behind it each one slot later.
    NextSlot,
    /// The newest message goes in the next slot; older ones are dropped.
    NewestWins,
}

/// A stream with reserved slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimedStream {
    /// Whose messages; each flow at most once in a table.
    pub flow: FlowIndex,
    /// The slots, from the base time of the table.
    pub slots: Recurrence,
    /// Largest message, bytes of the link (preamble and gap included); it fits the slot.
    pub bytes: u32,
    /// A message that becomes ready within this time before a slot belongs to it; one
    /// that comes earlier belongs to the slot before, and is late if that one went by
    /// without. At most the period, nanoseconds.
    pub early_ns: u64,
    /// For how long after the start of its slot a late message is of use, nanoseconds.
    pub deadline_ns: u64,
    /// What becomes of late messages.
    pub late: LatePolicy,
}

/// When the messages of a flow may go, for whoever asks why one did not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// The period of its slots, nanoseconds.
    pub period_ns: u64,
    /// From how long before a slot on a message belongs to it, nanoseconds.
    pub early_ns: u64,
    /// How long after its start the largest message can still begin in it, e_turn and what
    /// others may have put before it apart, nanoseconds.
    pub slack_ns: u64,
}

/// What arrives in a lane at most, as a certificate assumes it: so many frames at once, and one
/// more each interval.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrivals {
    /// Largest frame, bytes of the link.
    pub frame_bytes: NonZeroU32,
    /// At once; 0 counts as 1.
    pub burst_frames: u32,
    /// Nanoseconds.
    pub interval_ns: NonZeroU64,
}

/// What goes besides all flows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Besides {
    /// A frame that obeys the gate of this lane.
    Lane(u8),
    /// A frame that has no gate.
    Ungated,
    /// As [`Ungated`](Self::Ungated), and it takes the place of what others may add unseen
    /// ([`LinkTiming::foreign_bytes`]).
    AsForeign,
}

/// Why a slot went by unused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MissCause {
    /// There was no message.
    NoMessage,
    /// There was one, but what was below us would not have been gone in time.
    LinkBusy,
    /// There was one, but the gate of the flow's lane was shut.
    GateShut,
    /// There was one, but `poll` came too late, or the link took nothing.
    PolledLate,
}

/// What to do now.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Send one message of at most `bytes_max`, then report with `sent`.
    Slot {
        /// Whose message.
        flow: FlowIndex,
        /// Start of the slot: the launch instant, where the link honours one.
        launch: TaiTime,
        /// Most that may go, bytes of the link.
        bytes_max: u32,
        /// Send the newest message and drop those before it.
        newest: bool,
    },
    /// Send one late message of at most `bytes_max` at once, then report with `sent`.
    Late {
        /// Whose message.
        flow: FlowIndex,
        /// Most that may go, bytes of the link.
        bytes_max: u32,
    },
    /// Drop one message that came too late, then report with `sent` and zero bytes.
    Drop {
        /// Whose message.
        flow: FlowIndex,
    },
    /// Slots went by unused; they are told once. Poll again.
    Missed {
        /// Whose slots.
        flow: FlowIndex,
        /// Start of the last of them.
        start: TaiTime,
        /// How many.
        count: u64,
        /// Why the last of them did.
        cause: MissCause,
    },
    /// The host rested for more than two cycles of a table that is written down: the next
    /// slots of all streams, for so many nanoseconds, went by unused. Poll again.
    Skipped {
        /// A multiple of every period.
        ns: u64,
    },
    /// Send whole frames while fewer than `budget_bytes` have gone, then report with `sent`.
    Chunk {
        /// Whose frames.
        flow: FlowIndex,
        /// How much, bytes of the link.
        budget_bytes: u32,
    },
    /// Nothing may be sent before this instant unless a flow becomes ready or bytes
    /// below us finish.
    Wait(MonoTime),
    /// No slot will come and no flow has anything.
    Idle,
    /// The staged table has taken over; it is told once. Flows that lost or gained their
    /// slots by it are to be reported `ready` again. Poll again.
    TookOver,
    /// TAI has stepped by so many nanoseconds against monotonic time. Nothing goes
    /// before [`TimedScheduler::realign`](crate::TimedScheduler::realign).
    Stepped(i64),
}

/// Why a table was not staged. Places are those in the list of streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TableError {
    /// More streams than the table holds; how many there are.
    TooManyStreams(usize),
    /// The flow's index is beyond the scheduler.
    FlowOutOfRange(usize),
    /// The flow has slots already.
    FlowTwice(usize, usize),
    /// The slots of two streams overlap.
    Overlap(usize, usize),
    /// The message is empty.
    ZeroBytes(usize),
    /// The largest message, with e_turn and what others may have put before it, takes
    /// longer than its slot.
    LargerThanSlot(usize),
    /// `early_ns` is above the period.
    EarlyBeyondPeriod(usize),
    /// The first slot would begin beyond 64 bits of nanoseconds.
    BeyondTime(usize),
    /// The table was filled for a link of another timing.
    OtherTiming,
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TableError::TooManyStreams(count) => write!(f, "{count} streams are more than the table holds"),
            TableError::FlowOutOfRange(at) => write!(f, "the flow of stream {at} is beyond the scheduler"),
            TableError::FlowTwice(a, b) => write!(f, "streams {a} and {b} have the same flow"),
            TableError::Overlap(a, b) => write!(f, "the slots of streams {a} and {b} overlap"),
            TableError::ZeroBytes(at) => write!(f, "the messages of stream {at} are empty"),
            TableError::LargerThanSlot(at) => write!(f, "a message of stream {at} takes longer than its slot"),
            TableError::EarlyBeyondPeriod(at) => write!(f, "stream {at} may be early by more than its period"),
            TableError::BeyondTime(at) => write!(f, "stream {at} would begin after the end of time"),
            TableError::OtherTiming => f.write_str("the table was filled for a link of another timing"),
        }
    }
}

impl core::error::Error for TableError {}
