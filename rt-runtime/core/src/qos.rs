//! Quality of service: what an application asks for, and the one table that
//! maps it to a lane.
//!
//! | determinism | priority | lane |
//! |---|---|---|
//! | time-sensitive | 6, 7 | 0 |
//! | time-sensitive | 3..=5 | 1 |
//! | time-sensitive | 0..=2 | 2 |
//! | (frames of the overlay itself) | | 3 |
//! | best effort | 6, 7 | 4 |
//! | best effort | 4, 5 | 5 |
//! | best effort | 2, 3 | 6 |
//! | best effort | 0, 1 | 7 |
//!
//! A time-sensitive source whose datapath has links of a configured rate has reserved slots,
//! too, or is refused; its lane then says only which sinks are woken first, and where its
//! messages go until its slots are in force. Where a link has no rate it is refused, unless
//! its datapath is configured with `unscheduled: allow`.
//!
//! Lane 0 goes first. Lanes 0 to 2 are real-time, 3 to 7 best-effort; between
//! lanes priority is strict, within a lane flows share by deficit round robin.

use crate::time::Nanos;
use serde::{Deserialize, Serialize};

/// What happens to a message that meets no room or gets lost.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reliability {
    /// The newest data; what is lost is counted.
    #[default]
    Unreliable,
    /// Nothing is lost: an emit that meets no room is refused and the buffer handed back.
    Reliable,
}

/// Which kind of network technology is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Datapath {
    /// Kernel networking is good enough.
    #[default]
    Standard,
    /// The fastest technology that is free.
    Fast,
}

/// How the receiving side waits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consumption {
    /// Receivers poll and never sleep: no wake-up is ever sent (lowest latency).
    Poll,
    /// Receivers may sleep and are woken.
    #[default]
    Low,
}

/// What is done with a time-sensitive message that missed its slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LatePolicy {
    /// Dropped and counted.
    Drop,
    /// Sent at once.
    SendNow,
    /// Sent in the next slot.
    #[default]
    NextSlot,
    /// Replaced when a newer one is there, else sent in the next slot.
    NewestWins,
}

/// Whether messages have a time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Determinism {
    /// No time is promised.
    #[default]
    BestEffort,
    /// One message a period, in the real-time lanes.
    TimeSensitive {
        /// Length of the cycle, nanoseconds.
        period: Nanos,
        /// Earliest start of the slot inside the cycle, nanoseconds: it has the first free place
        /// between this and the deadline. Zero, with the deadline at the end: any place.
        offset: Nanos,
        /// Latest departure, nanoseconds after the start of the cycle.
        deadline: Nanos,
        /// Largest payload, bytes.
        size: u32,
        /// What is done when the slot is missed.
        late: LatePolicy,
    },
}

impl Determinism {
    /// A time-sensitive contract of one message of at most `size` bytes every
    /// `period`, anywhere in the cycle, due at its end.
    #[must_use]
    pub const fn periodic(period: Nanos, size: u32) -> Self {
        Determinism::TimeSensitive { period, offset: Nanos::ZERO, deadline: period, size, late: LatePolicy::NextSlot }
    }
}

/// Importance inside a lane group, 0 (least) to 7.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct Priority(u8);

impl Priority {
    /// The least important.
    pub const MIN: Priority = Priority(0);
    /// The default.
    pub const NORMAL: Priority = Priority(3);
    /// The most important (premium).
    pub const MAX: Priority = Priority(7);

    /// `None` above 7.
    #[must_use]
    pub const fn new(value: u8) -> Option<Self> {
        if value <= 7 { Some(Priority(value)) } else { None }
    }

    /// The number, 0 to 7.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Priority::NORMAL
    }
}

impl<'de> Deserialize<'de> for Priority {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = u8::deserialize(deserializer)?;
        Priority::new(value).ok_or_else(|| serde::de::Error::custom("a priority is a number from 0 to 7"))
    }
}

/// The quality of service of one stream: hints, from which the runtime chooses
/// the technology, and the lane.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Qos {
    /// Unreliable or reliable.
    pub reliability: Reliability,
    /// Standard or fast.
    pub datapath: Datapath,
    /// Poll or low.
    pub consumption: Consumption,
    /// Best effort or time-sensitive.
    pub determinism: Determinism,
    /// 0 to 7.
    pub priority: Priority,
}

impl Qos {
    /// The lane of this quality of service (the table above).
    #[must_use]
    pub const fn lane(&self) -> Lane {
        let priority = self.priority.get();
        match self.determinism {
            Determinism::TimeSensitive { .. } => match priority {
                6..=7 => Lane(0),
                3..=5 => Lane(1),
                _ => Lane(2),
            },
            Determinism::BestEffort => Lane(7 - priority / 2),
        }
    }
}

impl Qos {
    /// The row of the table above that gives [`lane`](Self::lane), in words.
    #[must_use]
    pub const fn lane_rule(&self) -> &'static str {
        match self.lane().get() {
            0 => "time-sensitive, priority 6 or 7",
            1 => "time-sensitive, priority 3 to 5",
            2 => "time-sensitive, priority 0 to 2",
            4 => "best effort, priority 6 or 7",
            5 => "best effort, priority 4 or 5",
            6 => "best effort, priority 2 or 3",
            7 => "best effort, priority 0 or 1",
            _ => "frames of the overlay itself",
        }
    }
}

/// A traffic class of the packet scheduler; 0 goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lane(u8);

impl Lane {
    /// The last real-time lane.
    pub const LAST_REAL_TIME: Lane = Lane(2);
    /// The lane of the overlay's own frames.
    pub const CONTROL: Lane = Lane(3);
    /// The last lane.
    pub const LAST: Lane = Lane(7);

    /// `None` above 7.
    #[must_use]
    pub const fn new(value: u8) -> Option<Self> {
        if value < crate::limits::LANES as u8 { Some(Lane(value)) } else { None }
    }

    /// The number, 0 to 7.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Whether the lane belongs to the real-time group.
    #[must_use]
    pub const fn is_real_time(self) -> bool {
        self.0 < 3
    }
}

impl core::fmt::Display for Lane {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_qos_maps_as_the_table_says() {
        let periodic = Determinism::periodic(Nanos::from_millis(1), 64);
        let cases = [
            (periodic, 7, 0),
            (periodic, 6, 0),
            (periodic, 5, 1),
            (periodic, 3, 1),
            (periodic, 2, 2),
            (periodic, 0, 2),
            (Determinism::BestEffort, 7, 4),
            (Determinism::BestEffort, 6, 4),
            (Determinism::BestEffort, 5, 5),
            (Determinism::BestEffort, 4, 5),
            (Determinism::BestEffort, 3, 6),
            (Determinism::BestEffort, 2, 6),
            (Determinism::BestEffort, 1, 7),
            (Determinism::BestEffort, 0, 7),
        ];
        for (determinism, priority, lane) in cases {
            let qos = Qos { determinism, priority: Priority::new(priority).unwrap(), ..Qos::default() };
            assert_eq!(qos.lane().get(), lane, "{determinism:?} {priority}");
            assert_eq!(qos.lane().is_real_time(), lane < 3);
            let (kind, priorities) = qos.lane_rule().split_once(", priority ").unwrap();
            assert_eq!(kind == "time-sensitive", determinism == periodic);
            let mut bounds = priorities.split(' ').filter_map(|word| word.parse::<u8>().ok());
            let (least, most) = (bounds.next().unwrap(), bounds.next().unwrap());
            assert!(least <= priority && priority <= most, "{determinism:?} {priority}");
        }
        assert!(Priority::new(8).is_none());
        assert!(Lane::new(8).is_none());
    }
}
