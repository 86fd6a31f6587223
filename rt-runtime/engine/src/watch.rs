//! Which sources a turn looks at: a turn costs what is active, not what exists.
//!
//! Best-effort sources that had nothing for [`QUIET_AFTER`] looks are *quiet*. Since their
//! memory is in no cache, a look at one costs as much as relaying a small message, and is
//! paid for with *credit*: a turn brings a sixteenth of a look, and each KiB that it moves one
//! more. A datapath that has found nothing for [`IDLE_TURNS`] turns looks at
//! [`QUIET_LOOKS_MAX`] in each. So of `n` quiet sources the one that has something is found
//! within `16 n` turns of a datapath that relays small messages (2 ms of 4,096), while it
//! moves `n` KiB of bulk, or within `n / 64` turns of an idle one. A datapath that is about to
//! sleep looks at all, and every quiet one that has something is watched then: it goes in the
//! next turn. Real-time and reliable sources are never quiet (their owner sees to that), nor
//! are the last [`WATCHED_MIN`], nor any of an engine that is turned by who emits, within
//! whose emit a message is to leave.
//!
//! Invariant: `places[..watched]` are watched, the others are quiet; each place stands once.

/// Looks without anything after which a source is quiet.
pub(crate) const QUIET_AFTER: u32 = 1024;
/// So many are looked at in every turn in any case.
const WATCHED_MIN: usize = 4;
/// Quiet sources looked at in one turn at most.
const QUIET_LOOKS_MAX: u32 = 64;
/// What a look at a quiet source costs; a turn brings 1.
const LOOK_CREDIT: u32 = 16;
/// What a turn moves to bring 1 more.
const BYTES_PER_CREDIT: u32 = 1024 / LOOK_CREDIT;
/// Turns without anything after which a datapath has nothing better to do than to look.
const IDLE_TURNS: u32 = 256;

/// The places of all sources.
#[derive(Debug)]
pub(crate) struct WatchList {
    places: Vec<u16>,
    watched: usize,
    /// The quiet one that was looked at last, counted from the first.
    quiet_at: usize,
    credit: u32,
    /// Turns since a source had something.
    idle_turns: u32,
    /// None is ever quiet.
    keeps_all: bool,
}

impl WatchList {
    /// Room for `capacity` sources; nothing allocates afterwards.
    pub fn new(capacity: usize) -> Self {
        WatchList {
            places: Vec::with_capacity(capacity),
            watched: 0,
            quiet_at: 0,
            credit: 0,
            idle_turns: 0,
            keeps_all: false,
        }
    }

    /// All sources, in no order that means anything.
    pub fn all(&self) -> &[u16] {
        &self.places
    }

    /// From now on no source becomes quiet; those that are are watched again.
    pub fn keep_all(&mut self) {
        (self.watched, self.keeps_all) = (self.places.len(), true);
    }

    /// A new source; it is watched.
    pub fn add(&mut self, place: u16) {
        self.places.push(place);
        self.watch(self.places.len() - 1);
    }

    /// Takes out the source that stands at `at` of [`all`](Self::all).
    pub fn remove(&mut self, at: usize) -> u16 {
        if at >= self.watched {
            return self.places.swap_remove(at);
        }
        self.rest(at);
        self.places.swap_remove(self.watched)
    }

    /// How many are watched: so many are the first of [`all`](Self::all).
    pub const fn watched_count(&self) -> usize {
        self.watched
    }

    /// The watched source at `at`; `None` behind the last.
    #[inline]
    pub fn watched(&self, at: usize) -> Option<u16> {
        if at < self.watched { Some(self.places[at]) } else { None }
    }

    /// Whether a source that is watched may become quiet.
    #[inline]
    pub const fn may_rest(&self) -> bool {
        self.watched > WATCHED_MIN && !self.keeps_all
    }

    /// The watched source at `at` is quiet from now on; another one stands there then.
    pub fn rest(&mut self, at: usize) {
        self.watched -= 1;
        self.places.swap(at, self.watched);
    }

    /// The source at `at` of all is watched from now on, if it was quiet.
    pub fn watch(&mut self, at: usize) {
        if at >= self.watched {
            self.places.swap(at, self.watched);
            self.watched += 1;
        }
    }

    /// A turn moved so much.
    #[inline]
    pub const fn moved(&mut self, bytes: u32) {
        self.credit = self.credit.saturating_add(bytes / BYTES_PER_CREDIT);
    }

    /// How many quiet sources this turn looks at; `found`: a watched one had something.
    #[inline]
    pub fn quiet_looks(&mut self, found: bool) -> u32 {
        if self.watched == self.places.len() {
            return 0;
        }
        self.idle_turns = if found { 0 } else { self.idle_turns.saturating_add(1) };
        self.credit =
            if self.idle_turns > IDLE_TURNS { QUIET_LOOKS_MAX * LOOK_CREDIT } else { self.credit.saturating_add(1) };
        if self.credit < LOOK_CREDIT {
            return 0;
        }
        (std::mem::take(&mut self.credit) / LOOK_CREDIT).min(QUIET_LOOKS_MAX)
    }

    /// The next quiet source in turn, and where it stands in [`all`](Self::all).
    pub fn next_quiet(&mut self) -> Option<(usize, u16)> {
        let quiet = self.places.len() - self.watched;
        // Some may have left since the last look.
        self.quiet_at = if self.quiet_at + 1 < quiet { self.quiet_at + 1 } else { 0 };
        let at = self.watched + self.quiet_at;
        self.places.get(at).map(|place| (at, *place))
    }
}
