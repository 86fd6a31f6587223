//! The gates of IEEE 802.1Qbv: which lanes may send when.
//!
//! A list of entries (open lanes, interval) is repeated every cycle from a base time in
//! TAI. Facts of the standard (8.6.9, its state machines) that are kept here:
//! - A base time in the past rolls forward by whole cycles, so only its remainder
//!   modulo the cycle matters; one in the future means that the list is not yet in force.
//! - A list that is shorter than the cycle holds its last entry until the cycle ends.
//! - When another list takes over in the middle of a cycle, and what would be left of
//!   that cycle is at most the *cycle time extension*, the cycle is not begun: the last
//!   entry of the cycle before holds until then.
//!
//! A list that is longer than its cycle is refused: the standard would cut it silently.
//!
//! Bounds: `state` is one division and a binary search over the entries; nothing is
//! allocated.

use crate::LANES;
use crate::recurrence::{PERIOD_NS_MAX, Recurrence};
use core::fmt;
use insane_core::TaiTime;
use insane_mutation::mutate;

/// Most entries of a list.
pub const GATE_ENTRIES_MAX: usize = 128;

/// One entry of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GateEntry {
    /// Bit i: lane i may send.
    pub open_lanes: u8,
    /// How long, nanoseconds; at least 1.
    pub interval_ns: u64,
}

/// Why a list is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GateError {
    /// There is no entry.
    Empty,
    /// There are more than [`GATE_ENTRIES_MAX`] entries.
    TooManyEntries,
    /// An entry lasts no time; its place in the list.
    ZeroInterval(usize),
    /// The cycle is zero.
    ZeroCycle,
    /// The cycle is above [`PERIOD_NS_MAX`].
    CycleTooLong,
    /// The entries last longer than the cycle; by how many nanoseconds.
    LongerThanCycle(u64),
    /// The extension is not below the cycle.
    ExtensionTooLong,
}

impl fmt::Display for GateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GateError::Empty => f.write_str("the gate list has no entry"),
            GateError::TooManyEntries => write!(f, "the gate list has more than {GATE_ENTRIES_MAX} entries"),
            GateError::ZeroInterval(at) => write!(f, "entry {at} of the gate list lasts no time"),
            GateError::ZeroCycle => f.write_str("the cycle is zero"),
            GateError::CycleTooLong => f.write_str("the cycle is longer than 73 years"),
            GateError::LongerThanCycle(by) => write!(f, "the entries last {by} ns longer than the cycle"),
            GateError::ExtensionTooLong => f.write_str("the cycle time extension is not below the cycle"),
        }
    }
}

impl core::error::Error for GateError {}

/// What the gates say at an instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GateState {
    /// Bit i: lane i may send.
    pub open_lanes: u8,
    /// The end of this entry: nothing changes before.
    pub until: TaiTime,
    /// When each lane's gate shuts next; the instant itself for one that is shut, and
    /// `u64::MAX` for one that never does.
    pub shuts: [TaiTime; LANES],
}

/// A gate list in force from its base time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gates {
    base: TaiTime,
    cycle_ns: u64,
    extension_ns: u64,
    length: usize,
    /// Where each entry begins in the cycle, nanoseconds.
    starts: [u64; GATE_ENTRIES_MAX],
    open: [u8; GATE_ENTRIES_MAX],
    /// How long after the end of an entry each lane stays open; `u64::MAX`: for ever.
    open_after: [[u64; LANES]; GATE_ENTRIES_MAX],
}

impl Gates {
    /// A list. Without `cycle_ns`, the cycle is the sum of the intervals.
    ///
    /// # Errors
    /// [`GateError`].
    pub fn new(
        base: TaiTime,
        cycle_ns: Option<u64>,
        extension_ns: u64,
        entries: &[GateEntry],
    ) -> Result<Self, GateError> {
        if entries.is_empty() {
            return Err(GateError::Empty);
        }
        if entries.len() > GATE_ENTRIES_MAX {
            return Err(GateError::TooManyEntries);
        }
        if let Some(at) = entries.iter().position(|entry| entry.interval_ns == 0) {
            return Err(GateError::ZeroInterval(at));
        }
        let sum = entries.iter().fold(0, |sum: u64, entry| sum.saturating_add(entry.interval_ns));
        let cycle_ns = cycle_ns.unwrap_or(sum);
        if cycle_ns == 0 {
            return Err(GateError::ZeroCycle);
        }
        if cycle_ns > PERIOD_NS_MAX {
            return Err(GateError::CycleTooLong);
        }
        if sum > cycle_ns {
            return Err(GateError::LongerThanCycle(sum - cycle_ns));
        }
        if extension_ns >= cycle_ns {
            return Err(GateError::ExtensionTooLong);
        }
        let mut gates = Gates {
            base,
            cycle_ns,
            extension_ns,
            length: entries.len(),
            starts: [0; GATE_ENTRIES_MAX],
            open: [0; GATE_ENTRIES_MAX],
            open_after: [[0; LANES]; GATE_ENTRIES_MAX],
        };
        let mut start = 0;
        for (at, entry) in entries.iter().enumerate() {
            gates.starts[at] = start;
            gates.open[at] = entry.open_lanes;
            start += entry.interval_ns;
        }
        gates.look_ahead();
        Ok(gates)
    }

    /// From which instant the list is in force, as configured.
    #[must_use]
    pub const fn base(&self) -> TaiTime {
        self.base
    }

    /// The cycle, nanoseconds.
    #[must_use]
    pub const fn cycle_ns(&self) -> u64 {
        self.cycle_ns
    }

    /// The first cycle start at or after `now`: where a base time in the past rolls to.
    /// `None` beyond 64 bits.
    #[must_use]
    pub fn cycle_start_from(&self, now: TaiTime) -> Option<TaiTime> {
        let past = now.since(self.base).0;
        if past == 0 {
            return Some(self.base);
        }
        let into = past % self.cycle_ns;
        if into == 0 { Some(now) } else { now.0.checked_add(self.cycle_ns - into).map(TaiTime) }
    }

    /// What the gates say at `now`; `next_base` is when another list takes over, if one
    /// does. `None` before the base time: the list is not in force.
    #[must_use]
    pub fn state(&self, now: TaiTime, next_base: Option<TaiTime>) -> Option<GateState> {
        let base = mutate!(GateBaseOffByOne, self.base.0, self.base.0 + 1);
        let since = now.0.checked_sub(base)?;
        let into = since % self.cycle_ns;
        let start = now.0 - into;
        if let Some(next) = next_base {
            // What would be left of this cycle is too short to begin it.
            let rest = next.0.saturating_sub(start);
            let is_extended = since >= self.cycle_ns && rest < self.cycle_ns && rest <= self.extension_ns;
            if mutate!(GateExtensionIgnored, is_extended, false) {
                return Some(held(self.open[self.length - 1], now, next));
            }
        }
        // At least one entry begins at 0.
        let entry = self.starts[..self.length].partition_point(|&begins| begins <= into) - 1;
        let entry_open = mutate!(GateMaskShifted, entry, (entry + 1) % self.length);
        let until = TaiTime(start.saturating_add(self.end_of(entry)));
        let mut state = GateState { open_lanes: self.open[entry_open], until, shuts: [now; LANES] };
        for lane in 0..LANES {
            if state.open_lanes & (1 << lane) != 0 {
                state.shuts[lane] = TaiTime(until.0.saturating_add(self.open_after[entry][lane]));
            }
        }
        if let Some(next) = next_base {
            state.until = state.until.min(next);
            state.shuts = state.shuts.map(|shuts| shuts.min(next));
        }
        Some(state)
    }

    /// The windows in which `lane` may send, as recurrences whose offsets count from the
    /// base time; neighbouring entries are joined.
    pub fn open_windows(&self, lane: u8) -> impl Iterator<Item = Recurrence> + '_ {
        self.windows(lane, true)
    }

    /// The windows in which `lane` may not send.
    pub fn shut_windows(&self, lane: u8) -> impl Iterator<Item = Recurrence> + '_ {
        self.windows(lane, false)
    }

    /// The windows in which one of these lanes, at least, may not send; bit i: lane i.
    pub fn not_all_open(&self, lanes: u8) -> impl Iterator<Item = Recurrence> + '_ {
        self.windows_where(move |open| open & lanes != lanes)
    }

    fn windows(&self, lane: u8, open: bool) -> impl Iterator<Item = Recurrence> + '_ {
        self.windows_where(move |lanes| (lanes >> lane & 1 == 1) == open)
    }

    fn windows_where<'a>(&'a self, holds: impl Fn(u8) -> bool + 'a) -> impl Iterator<Item = Recurrence> + 'a {
        let is = move |at: usize| holds(self.open[at]);
        let all = (0..self.length).all(&is);
        (0..self.length).filter_map(move |first| {
            let before = if first == 0 { self.length - 1 } else { first - 1 };
            let begins = if all { first == 0 } else { is(first) && !is(before) };
            if !begins {
                return None;
            }
            // At most `length` rounds.
            let (mut at, mut length) = (first, 0);
            loop {
                length += self.end_of(at) - self.starts[at];
                at = (at + 1) % self.length;
                if at == first || !is(at) {
                    return Recurrence::new(self.cycle_ns, self.starts[first], length).ok();
                }
            }
        })
    }

    fn end_of(&self, entry: usize) -> u64 {
        if entry + 1 < self.length { self.starts[entry + 1] } else { self.cycle_ns }
    }

    /// Two rounds backwards through the list: after them every sum has gone round once.
    fn look_ahead(&mut self) {
        for lane in 0..LANES {
            let open = |open: u8| open & (1 << lane) != 0;
            if self.open[..self.length].iter().all(|&entry| open(entry)) {
                self.open_after.iter_mut().for_each(|after| after[lane] = u64::MAX);
                continue;
            }
            let mut after = 0;
            for step in (0..2 * self.length).rev() {
                let entry = step % self.length;
                self.open_after[entry][lane] = after;
                after = if open(self.open[entry]) { after + self.end_of(entry) - self.starts[entry] } else { 0 };
            }
        }
    }
}

fn held(open_lanes: u8, now: TaiTime, until: TaiTime) -> GateState {
    let mut shuts = [now; LANES];
    for (lane, shuts) in shuts.iter_mut().enumerate() {
        if open_lanes & (1 << lane) != 0 {
            *shuts = until;
        }
    }
    GateState { open_lanes, until, shuts }
}
