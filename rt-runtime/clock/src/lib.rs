//! TAI for the slots: a mapping from monotonic time, fed with paired reads.
//!
//! The kernel's own servo, or that of `ptp4l` and `phc2sys`, disciplines the clock; this one
//! only follows, so that slots see no jump that they do not expect. Time is an argument:
//! nothing here reads a clock.
//!
//! # Rules
//! - **The offset is followed, never stepped inside a cycle.** It moves towards what was
//!   read last by at most [`SLEW_PPM`] of the time that passes, so TAI always goes forward.
//! - **Only the phase in the cycle matters.** A step by whole cycles (hours, the 37 s of a TAI
//!   offset that is set late) moves no slot: it is told, and kept apart.
//! - **Any other step is a re-lock**: believed after [`CONFIRMATIONS`] reads that agree, made
//!   at the next boundary of the cycle, and told.
//! - **Without discipline the slots run by the local clock**, and the state says so and why.
//!   Who was locked and loses it is in *holdover*: the offset goes on at the rate that it had
//!   while locked, until the budget, in time or in how far the phase may be off by then, is
//!   used up; what comes then is configured.
//! - **A clock that cannot be read is lost as well**: so is one of which [`UNUSABLE_READS`]
//!   reads in a row took too long or contradict each other, and they use up holdover.
//! - **The rate is measured while locked**, over stretches of [`RATE_STRETCH`], and with it how
//!   much it varies between them: that, and the width of a read, is what the phase may be off
//!   for each second of holdover. Until two stretches have passed, [`SLEW_PPM`] is.
//!
//! # Bounds
//! Every call is O(1). While locked, with reads every `t` and a clock that drifts by `d`, the
//! phase is off by at most `d * t`, half a read, and what is left of a correction.
#![no_std]
#![forbid(unsafe_code)]

use insane_core::time::PairedRead;
use insane_core::{MonoTime, Nanos, TaiTime};

/// By how much of the passing time the offset moves at most, parts in a million: what a
/// crystal may be off, and as much again.
pub const SLEW_PPM: u64 = 500;
/// Reads in a row that must agree on a step.
pub const CONFIRMATIONS: u32 = 3;
/// So many reads in a row of which none is of use count as one that says that TAI is lost: a
/// second of them, and more than any preemption spoils.
pub const UNUSABLE_READS: u32 = 100;

/// How long a stretch is over which the rate is measured.
pub const RATE_STRETCH: Nanos = Nanos::from_secs(4);
/// Parts in a thousand million in one in a million.
const PPB: i64 = 1_000;

/// What happens when holdover has used up its budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AfterHoldover {
    /// The slots go on by the local clock, out of spec.
    #[default]
    FreeRun,
    /// The slots go on as in holdover, out of spec.
    Keep,
    /// Nothing is sent in slots until the clock is locked again.
    Halt,
}

/// How a [`Servo`] follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServoConfig {
    /// TAI is wanted. Otherwise the local clock is, always.
    pub follows_tai: bool,
    /// The least difference that is a step and no drift.
    pub step: Nanos,
    /// The longest paired read that is used: in a longer one the thread was interrupted.
    pub read_max: Nanos,
    /// How long holdover lasts.
    pub holdover: Nanos,
    /// How far the phase may be off by then, as far as is known; `None`: that ends no holdover.
    pub phase_error: Option<Nanos>,
    /// What comes then.
    pub after: AfterHoldover,
}

impl Default for ServoConfig {
    /// Follows TAI; steps from 20 us, reads up to 10 us, a minute of holdover, then free run.
    fn default() -> Self {
        ServoConfig {
            follows_tai: true,
            step: Nanos::from_micros(20),
            read_max: Nanos::from_micros(10),
            holdover: Nanos::from_secs(60),
            phase_error: None,
            after: AfterHoldover::FreeRun,
        }
    }
}

/// Why the kernel's TAI is not used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// It is not wanted, or was not read yet.
    NotAsked,
    /// The kernel does not know the offset of TAI from UTC.
    NoOffset,
    /// Nobody disciplines the clock.
    Unsynchronised,
    /// Its reads take too long, or contradict each other.
    Unreadable,
}

/// By what the slots run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClockState {
    /// By the local clock: slots of several hosts have no common phase.
    Local(Why),
    /// By TAI.
    Locked,
    /// By what TAI was until then.
    Holdover {
        /// Since when.
        since: MonoTime,
        /// What was lost.
        why: Why,
    },
    /// Holdover is over: by the local clock, out of spec.
    FreeRun(Why),
    /// Holdover is over: no slots.
    Halted(Why),
    /// Holdover is over, and the slots go on by what it assumed, out of spec.
    Kept(Why),
}

impl ClockState {
    /// A number for [`ClockState::words`], where a state must fit a byte.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            ClockState::Local(Why::NotAsked) => 0,
            ClockState::Local(Why::NoOffset) => 1,
            ClockState::Local(Why::Unsynchronised) => 2,
            ClockState::Locked => 3,
            ClockState::Holdover { .. } => 4,
            ClockState::FreeRun(_) => 5,
            ClockState::Halted(_) => 6,
            ClockState::Kept(_) => 7,
            ClockState::Local(Why::Unreadable) => 8,
        }
    }

    /// What a [`number`](Self::number) means, for reports.
    #[must_use]
    pub const fn words(number: u8) -> &'static str {
        match number {
            0 => "local clock",
            1 => "local clock: the kernel does not know the offset of TAI",
            2 => "local clock: nobody disciplines the kernel's clock",
            3 => "TAI",
            4 => "holdover: TAI was lost",
            5 => "free run after holdover: out of spec",
            6 => "halted after holdover: no slots",
            7 => "kept after holdover: out of spec",
            8 => "local clock: reads of TAI take too long (clock.read_max_us), or contradict each other",
            _ => "unknown",
        }
    }
}

/// What became of a read, or of the time.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Followed {
    /// Nothing to tell.
    Plainly,
    /// The read took too long, or contradicts itself, and was not used.
    Unused,
    /// TAI stepped by whole cycles, so many nanoseconds: no slot moves.
    WholeCycles(i64),
    /// TAI stepped, or is there for the first time: a re-lock waits for the boundary.
    Pending,
    /// TAI was lost: holdover, or the local clock where it was never had.
    Lost(Why),
    /// Holdover is over.
    HoldoverOver(AfterHoldover),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Relock {
    /// The offset from then on.
    offset: i64,
    /// The first instant of the slots' time at which it may come.
    at: TaiTime,
}

/// How fast the offset changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Rate {
    ppb: i64,
    /// How much it differed lately from one stretch to the next; `None`: there was one only.
    spread_ppb: Option<u64>,
}

/// The mapping. See the crate's documentation.
#[derive(Clone, Debug)]
pub struct Servo {
    config: ServoConfig,
    /// Zero: no cycle is known, and every step is one of phase.
    cycle_ns: u64,
    state: ClockState,
    /// Slots' time less monotonic time at `from`. Differences of offsets are small, the
    /// offsets may be anything: they wrap.
    offset: i64,
    target: i64,
    from: MonoTime,
    /// Whole cycles by which TAI is ahead of the slots' time, nanoseconds.
    apart: i64,
    /// A step that was seen, and how often.
    suspect: Option<(i64, u32)>,
    relock: Option<Relock>,
    relocks: u64,
    /// Reads since the last that was of use.
    unusable: u32,
    rate: Option<Rate>,
    /// Where the stretch began, and the offset that was read then.
    stretch: Option<(MonoTime, i64)>,
    /// The offset goes on at this rate; `None`: it follows what is read.
    coasting_ppb: Option<i64>,
}

impl Servo {
    /// By the local clock until something was read.
    #[must_use]
    pub const fn new(config: ServoConfig) -> Self {
        Servo {
            config,
            cycle_ns: 0,
            state: ClockState::Local(Why::NotAsked),
            offset: 0,
            target: 0,
            from: MonoTime(0),
            apart: 0,
            suspect: None,
            relock: None,
            relocks: 0,
            unusable: 0,
            rate: None,
            stretch: None,
            coasting_ppb: None,
        }
    }

    /// The length of the cycle in which the phase counts, from the base time zero; zero where
    /// there is none, or none that can be written down.
    pub const fn set_cycle(&mut self, cycle_ns: u64) {
        self.cycle_ns = cycle_ns;
    }

    /// By what the slots run.
    #[must_use]
    pub const fn state(&self) -> ClockState {
        self.state
    }

    /// Re-locks so far: at each the phase of the slots moved.
    #[must_use]
    pub const fn relocks(&self) -> u64 {
        self.relocks
    }

    /// Whole cycles by which TAI is ahead of the slots' time, nanoseconds.
    #[must_use]
    pub const fn apart_ns(&self) -> i64 {
        self.apart
    }

    /// The slots' time at a monotonic instant that is not before the last read.
    #[inline]
    #[must_use]
    pub fn tai(&self, mono: MonoTime) -> TaiTime {
        TaiTime(mono.0.wrapping_add_signed(self.offset_at(mono)))
    }

    #[inline]
    fn offset_at(&self, mono: MonoTime) -> i64 {
        if let Some(ppb) = self.coasting_ppb {
            let passed = i128::from(mono.since(self.from).0);
            // A length of time in nanoseconds, times less than a thousandth, fits again.
            return self.offset.wrapping_add((passed * i128::from(ppb) / 1_000_000_000) as i64);
        }
        let left = self.target.wrapping_sub(self.offset);
        if left == 0 {
            return self.offset;
        }
        // 2^64 ns times 500 exceeds 64 bits: the stretch is cut at an hour, which is plenty.
        let passed = mono.since(self.from).0.min(3_600_000_000_000);
        let most = (passed * SLEW_PPM / 1_000_000) as i64;
        self.offset.wrapping_add(left.clamp(-most, most))
    }

    fn settle(&mut self, mono: MonoTime) {
        self.offset = self.offset_at(mono);
        self.from = mono;
    }

    /// Takes a paired read, every 10 ms or so; `None`: the host has no such clock.
    pub fn read(&mut self, now: MonoTime, read: Option<PairedRead>) -> Followed {
        if !self.config.follows_tai {
            return Followed::Plainly;
        }
        let lost = match read {
            None => Some(Why::NotAsked),
            Some(read) if !read.has_offset => Some(Why::NoOffset),
            Some(read) if !read.is_synchronised => Some(Why::Unsynchronised),
            Some(_) => None,
        };
        match (lost, read) {
            (Some(why), _) => self.lose(now, why),
            (None, Some(read)) => {
                self.unusable = self.unusable.saturating_add(1);
                let followed = self.follow(read);
                if self.unusable < UNUSABLE_READS {
                    return followed;
                }
                // From one of these to the next a step has time to be confirmed.
                self.unusable = 0;
                self.lose(now, Why::Unreadable)
            }
            (None, None) => Followed::Plainly,
        }
    }

    /// Without discipline: from locked to holdover, from holdover to what comes then.
    fn lose(&mut self, now: MonoTime, why: Why) -> Followed {
        self.suspect = None;
        self.relock = None;
        self.stretch = None;
        match self.state {
            ClockState::Locked => {
                self.settle(now);
                self.target = self.offset;
                self.coasting_ppb = Some(self.rate.map_or(0, |rate| rate.ppb));
                self.state = ClockState::Holdover { since: now, why };
                Followed::Lost(why)
            }
            ClockState::Holdover { since, why } if self.is_used_up(now.since(since)) => {
                self.state = match self.config.after {
                    AfterHoldover::FreeRun => ClockState::FreeRun(why),
                    AfterHoldover::Keep => ClockState::Kept(why),
                    AfterHoldover::Halt => ClockState::Halted(why),
                };
                if self.config.after == AfterHoldover::FreeRun {
                    self.settle(now);
                    self.target = self.offset;
                    self.coasting_ppb = None;
                }
                Followed::HoldoverOver(self.config.after)
            }
            ClockState::Local(before) if before != why => {
                self.state = ClockState::Local(why);
                Followed::Lost(why)
            }
            _ => Followed::Plainly,
        }
    }

    /// Whether holdover of this length has used up its budget.
    fn is_used_up(&self, passed: Nanos) -> bool {
        let is_off = self.config.phase_error.is_some_and(|most| self.drift(passed) > most);
        passed >= self.config.holdover || is_off
    }

    /// How far the phase may be off after so much time without a clock.
    #[must_use]
    pub fn drift(&self, passed: Nanos) -> Nanos {
        let read = self.config.read_max.0 * 1_000_000_000 / RATE_STRETCH.0;
        let ppb = match self.rate.and_then(|rate| rate.spread_ppb) {
            Some(spread) => spread + read,
            None => SLEW_PPM * PPB as u64,
        };
        let ns = u128::from(passed.0) * u128::from(ppb) / 1_000_000_000;
        Nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }

    /// By how much the local clock differs from TAI in rate, parts in a thousand million;
    /// `None`: it was not locked for long enough.
    #[must_use]
    pub fn rate_ppb(&self) -> Option<i64> {
        self.rate.map(|rate| rate.ppb)
    }

    /// Measures the rate, of reads that are near to what was expected.
    fn measure_rate(&mut self, at: MonoTime, measured: i64) {
        let (from, before) = *self.stretch.get_or_insert((at, measured));
        let passed = at.since(from).0;
        if passed < RATE_STRETCH.0 {
            return;
        }
        self.stretch = Some((at, measured));
        let most = SLEW_PPM as i64 * PPB;
        let ppb = i128::from(measured.wrapping_sub(before)) * 1_000_000_000 / i128::from(passed);
        let ppb = ppb.clamp(-i128::from(most), i128::from(most)) as i64;
        self.rate = Some(match self.rate {
            None => Rate { ppb, spread_ppb: None },
            Some(rate) => {
                let off = ppb - rate.ppb;
                // A large change is believed at once, and forgotten slowly.
                let spread = rate.spread_ppb.map_or(0, |spread| spread - spread / 8);
                Rate { ppb: rate.ppb + off / 2, spread_ppb: Some(spread.max(off.unsigned_abs())) }
            }
        });
    }

    fn follow(&mut self, read: PairedRead) -> Followed {
        let width = read.after.0.checked_sub(read.before.0);
        let Some(width) = width.filter(|width| *width <= self.config.read_max.0) else { return Followed::Unused };
        let middle = MonoTime(read.before.0 + width / 2);
        self.settle(middle);
        let measured = read.tai.0.wrapping_sub(middle.0) as i64;
        let error = measured.wrapping_sub(self.offset).wrapping_sub(self.apart);
        if self.state == ClockState::Locked && error.unsigned_abs() <= self.config.step.0 {
            self.suspect = None;
            self.relock = None;
            self.unusable = 0;
            self.target = self.offset.wrapping_add(error);
            self.measure_rate(middle, measured);
            return Followed::Plainly;
        }
        let agrees = |before: i64| measured.wrapping_sub(before).unsigned_abs() <= self.config.step.0;
        let seen = match self.suspect {
            Some((before, count)) if agrees(before) => count.saturating_add(1),
            _ => 1,
        };
        self.suspect = Some((measured, seen));
        if seen < CONFIRMATIONS {
            return Followed::Plainly;
        }
        self.unusable = 0;
        let phase = self.phase_of(error);
        if self.state == ClockState::Locked && phase.unsigned_abs() <= self.config.step.0 {
            let whole = error.wrapping_sub(phase);
            self.apart = self.apart.wrapping_add(whole);
            self.target = self.offset.wrapping_add(phase);
            self.suspect = None;
            self.stretch = None;
            return Followed::WholeCycles(whole);
        }
        let was_pending = self.relock.is_some();
        let at = self.relock.map_or_else(|| self.boundary(self.tai(middle)), |relock| relock.at);
        self.relock = Some(Relock { offset: measured, at });
        if was_pending { Followed::Plainly } else { Followed::Pending }
    }

    /// What a step is modulo the cycle, between minus and plus half of it.
    const fn phase_of(&self, step: i64) -> i64 {
        let cycle = self.cycle_ns as i64;
        if cycle <= 0 {
            return step;
        }
        let into = step.rem_euclid(cycle);
        if into > cycle / 2 { into - cycle } else { into }
    }

    fn boundary(&self, now: TaiTime) -> TaiTime {
        if self.cycle_ns == 0 {
            return now;
        }
        TaiTime(now.0.div_ceil(self.cycle_ns).saturating_mul(self.cycle_ns))
    }

    /// Makes the re-lock that is due at `now`, if one is; by how many nanoseconds the slots'
    /// time moved. The scheduler is then to be realigned.
    #[inline]
    pub fn relock(&mut self, now: MonoTime) -> Option<i64> {
        let relock = self.relock?;
        if self.tai(now) < relock.at {
            return None;
        }
        self.settle(now);
        let moved = relock.offset.wrapping_sub(self.offset);
        (self.offset, self.target, self.from) = (relock.offset, relock.offset, now);
        (self.apart, self.suspect, self.relock) = (0, None, None);
        (self.stretch, self.coasting_ppb) = (None, None);
        self.state = ClockState::Locked;
        self.relocks += 1;
        Some(moved)
    }
}
