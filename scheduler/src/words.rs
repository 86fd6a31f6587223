//! What goes into the scheduler and comes out of it.

use core::fmt;
use core::num::{NonZeroU32, NonZeroU64};
use insane_core::MonoTime;

/// A flow, by its place in the scheduler's table; chosen by the caller, below `FLOWS`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FlowIndex(pub u16);

/// Sizes that the whole scheduler works with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Most that one grant allows, bytes. More important traffic waits for one.
    pub chunk_bytes: NonZeroU32,
    /// Largest piece that the caller does not divide (a frame with its headers, or
    /// a segmentation-offload burst), bytes.
    pub frame_bytes_max: NonZeroU32,
}

impl Limits {
    /// `None` where either is zero.
    #[must_use]
    pub const fn new(chunk_bytes: u32, frame_bytes_max: u32) -> Option<Self> {
        match (NonZeroU32::new(chunk_bytes), NonZeroU32::new(frame_bytes_max)) {
            (Some(chunk_bytes), Some(frame_bytes_max)) => Some(Limits { chunk_bytes, frame_bytes_max }),
            _ => None,
        }
    }

    /// The quantum of a flow that gets `weight` shares of its lane: that many of the
    /// smallest quantum. Bytes; saturates.
    #[must_use]
    pub const fn quantum_bytes(self, weight: NonZeroU32) -> u32 {
        self.frame_bytes_max.get().saturating_mul(weight.get())
    }
}

impl Default for Limits {
    /// Chunks of 16 KiB, frames of 1500 bytes.
    fn default() -> Self {
        Limits::new(16 * 1024, 1_500)
            .unwrap_or(Limits { chunk_bytes: NonZeroU32::MIN, frame_bytes_max: NonZeroU32::MIN })
    }
}

/// A token bucket: in every interval of length t the flow sends at most
/// `burst_bytes + rate_bytes_per_s * t`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policing {
    /// Long-term rate, bytes per second.
    pub rate_bytes_per_s: NonZeroU64,
    /// Depth of the bucket, bytes; at least one frame.
    pub burst_bytes: u32,
}

/// What to do now.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Send whole frames of `flow` while fewer than `budget_bytes` (at least 1) have
    /// gone, then report with [`Scheduler::sent`](crate::Scheduler::sent).
    Send {
        /// Whose frames.
        flow: FlowIndex,
        /// How much, bytes.
        budget_bytes: u32,
    },
    /// Nothing may be sent before this instant, which is later than `now`, unless a
    /// flow becomes ready.
    Wait(MonoTime),
    /// No flow has anything.
    Idle,
}

/// Why a flow was not added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddError {
    /// The index is not below `FLOWS`.
    OutOfRange,
    /// There is a flow of this index.
    InUse,
    /// The quantum is smaller than one frame, so a turn could pass without a frame.
    QuantumTooSmall,
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AddError::OutOfRange => "the flow's index is beyond the scheduler's table",
            AddError::InUse => "the flow's index is in use",
            AddError::QuantumTooSmall => "the flow's quantum is smaller than the largest frame",
        })
    }
}

impl core::error::Error for AddError {}

/// Why a flow is not policed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PoliceError {
    /// There is no flow, or client, of this index.
    NoSuchFlow,
    /// The bucket is smaller than one frame, so the flow could never send.
    BurstTooSmall,
}

impl fmt::Display for PoliceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PoliceError::NoSuchFlow => "there is no flow or client of this index",
            PoliceError::BurstTooSmall => "the burst is smaller than the largest frame",
        })
    }
}

impl core::error::Error for PoliceError {}

/// Why a flow does not belong to a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AssignError {
    /// There is no flow of this index.
    NoSuchFlow,
    /// The client's index is not below [`CLIENTS_MAX`](crate::CLIENTS_MAX).
    NoSuchClient,
}

impl fmt::Display for AssignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AssignError::NoSuchFlow => "there is no flow of this index",
            AssignError::NoSuchClient => "the client's index is beyond the scheduler's table",
        })
    }
}

impl core::error::Error for AssignError {}
