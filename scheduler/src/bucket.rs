//! A token bucket. Tokens are counted in billionths of a byte: a rate in bytes per
//! second times a time in nanoseconds is then an exact number of them, so nothing
//! is lost to rounding however often the bucket is looked at.

use crate::Policing;
use core::num::NonZeroU32;
use insane_core::{MonoTime, Nanos};

/// Billionths in one byte. The deepest bucket, `u32::MAX` bytes, stays below `i64::MAX`.
const BILLION: i64 = 1_000_000_000;

#[derive(Clone, Copy)]
pub(crate) struct Bucket {
    policing: Policing,
    /// Billionths of a byte; negative only after a misuse.
    tokens: i64,
    /// When `tokens` was right.
    at: MonoTime,
}

impl Bucket {
    pub(crate) fn full(policing: Policing, now: MonoTime) -> Self {
        Bucket { policing, tokens: depth(policing), at: now }
    }

    /// With other numbers from now on, and what it has.
    pub(crate) fn with(mut self, policing: Policing, now: MonoTime) -> Self {
        self.refill(now);
        Bucket { policing, tokens: self.tokens.clamp(-depth(policing), depth(policing)), at: self.at }
    }

    pub(crate) fn policing(&self) -> Policing {
        self.policing
    }

    pub(crate) fn refill(&mut self, now: MonoTime) {
        let gained = self.policing.rate_bytes_per_s.get().saturating_mul(now.since(self.at).0);
        let gained = i64::try_from(gained).unwrap_or(i64::MAX);
        self.tokens = self.tokens.saturating_add(gained).min(depth(self.policing));
        self.at = self.at.max(now);
    }

    /// As [`refill`](Self::refill), beyond what the bucket holds: for time in which somebody waited
    /// that could have been paid for.
    pub(crate) fn accrue(&mut self, now: MonoTime) {
        let gained = self.policing.rate_bytes_per_s.get().saturating_mul(now.since(self.at).0);
        self.tokens = self.tokens.saturating_add(i64::try_from(gained).unwrap_or(i64::MAX));
        self.at = self.at.max(now);
    }

    /// False where the tokens did not suffice; they are then owed, up to a full bucket.
    #[must_use]
    pub(crate) fn take(&mut self, bytes: u32) -> bool {
        self.tokens = self.tokens.saturating_sub(i64::from(bytes) * BILLION).max(-depth(self.policing));
        self.tokens >= 0
    }

    /// Takes them in any case: whatever was not covered is owed.
    pub(crate) fn owe(&mut self, bytes: u32) {
        self.tokens = self.tokens.saturating_sub(i64::from(bytes) * BILLION);
    }

    /// When the bucket can pay for one largest frame.
    pub(crate) fn able_at(&self, frame_bytes_max: NonZeroU32) -> MonoTime {
        let price = i64::from(frame_bytes_max.get()) * BILLION;
        let missing = price.saturating_sub(self.tokens).max(0).unsigned_abs();
        self.at + Nanos(missing.div_ceil(self.policing.rate_bytes_per_s.get()))
    }

    /// How much may go so that the frame that runs over the budget is still paid for;
    /// at least 1 once `able_at` has passed and the bucket is refilled.
    pub(crate) fn budget_bytes(&self, frame_bytes_max: NonZeroU32) -> i64 {
        self.tokens / BILLION - i64::from(frame_bytes_max.get()) + 1
    }
}

fn depth(policing: Policing) -> i64 {
    i64::from(policing.burst_bytes) * BILLION
}
