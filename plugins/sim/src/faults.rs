//! What a direction between two addresses does to frames.

use crate::random::Random;
use insane_core::Nanos;

/// A probability, in millionths.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Chance(u32);

impl Chance {
    /// Never.
    pub const NEVER: Chance = Chance(0);
    /// Always.
    pub const ALWAYS: Chance = Chance(1_000_000);

    /// So many in a million; above a million: always.
    #[must_use]
    pub const fn per_million(parts: u32) -> Self {
        if parts > 1_000_000 { Chance::ALWAYS } else { Chance(parts) }
    }

    /// So many in a hundred; above a hundred: always.
    #[must_use]
    pub const fn percent(parts: u32) -> Self {
        Chance::per_million(parts.saturating_mul(10_000))
    }

    /// Draws; takes one number, whatever the chance is.
    pub(crate) fn strikes(self, random: &mut Random) -> bool {
        random.up_to(999_999) < u64::from(self.0)
    }
}

/// What the sender learns when a direction is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WhenFull {
    /// `Busy`, as from a device queue.
    #[default]
    Busy,
    /// `Sent`, and the frame is lost, as in a switch.
    Lose,
}

/// What one direction does to the frames it carries. Applied when a frame is sent;
/// frames under way keep what was drawn for them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Faults {
    /// Time every frame takes.
    pub delay: Nanos,
    /// Added time, drawn for each frame from 0 to this. It keeps the order.
    pub jitter: Nanos,
    /// Frames that vanish.
    pub loss: Chance,
    /// Frames that arrive twice; the second copy draws its own jitter and order.
    pub duplication: Chance,
    /// Frames that are held back by `reorder_by`, while later ones may overtake.
    pub reordering: Chance,
    /// How long such a frame is held back.
    pub reorder_by: Nanos,
    /// Nothing passes: what is sent is lost.
    pub partitioned: bool,
    /// Larger frames are lost and nobody is told, as at a hop of a smaller MTU; `None`: all
    /// that the net carries pass.
    pub frame_bytes_max: Option<u32>,
    /// Most frames under way, of real time and of all else each: a link has a queue for both.
    /// `None`: as many as the net holds.
    pub queue_frames_max: Option<u32>,
    /// What the sender learns beyond that.
    pub when_full: WhenFull,
}

impl Faults {
    /// At once, in order, and without loss.
    pub const NONE: Faults = Faults {
        delay: Nanos::ZERO,
        jitter: Nanos::ZERO,
        loss: Chance::NEVER,
        duplication: Chance::NEVER,
        reordering: Chance::NEVER,
        reorder_by: Nanos::ZERO,
        partitioned: false,
        frame_bytes_max: None,
        queue_frames_max: None,
        when_full: WhenFull::Busy,
    };
}

impl Default for Faults {
    fn default() -> Self {
        Faults::NONE
    }
}

/// What happened in one direction so far. `sent + duplicated` is `delivered`, `lost`
/// and what is under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PathCounts {
    /// Frames that `send` answered with `Sent`.
    pub sent: u64,
    /// Frames handed to the receiver, copies included.
    pub delivered: u64,
    /// Frames lost: by chance, partition, size, a full queue, or because nobody was there.
    pub lost: u64,
    /// Copies made.
    pub duplicated: u64,
    /// Frames held back.
    pub held_back: u64,
    /// Frames answered with `Busy`.
    pub refused: u64,
}
