//! The token of one turn.

use insane_core::MonoTime;
use insane_core::time::{Clock, PairedRead};
use std::cell::Cell;
use std::marker::PhantomData;

/// Handed to every hot function: made by the engine alone, neither `Send` nor `Sync`.
/// Reads the clock at most once, and only if somebody asks.
#[derive(Debug)]
pub struct Turn<'c, C: Clock> {
    clock: &'c C,
    now: Cell<Option<MonoTime>>,
    before: MonoTime,
    thread: PhantomData<*const ()>,
}

impl<'c, C: Clock> Turn<'c, C> {
    /// `before`: an instant not after now, for whom a late one will do.
    pub(crate) fn new(clock: &'c C, before: MonoTime) -> Self {
        Turn { clock, now: Cell::new(None), before, thread: PhantomData }
    }

    /// The same turn once more, with what it has seen of the clock.
    pub(crate) fn resumed(clock: &'c C, before: MonoTime, seen: Option<MonoTime>) -> Self {
        Turn { now: Cell::new(seen), ..Turn::new(clock, before) }
    }

    /// Its look at the clock, if there was one.
    #[inline]
    pub(crate) fn seen(&self) -> Option<MonoTime> {
        self.now.get()
    }

    /// An instant of this or a recent turn, without a look at the clock: at most
    /// 1,024 turns old (the stride of housekeeping), and where
    /// the host sleeps or leaves the engine alone, no older than the end of that (inline
    /// hosting: than the keeper's last look, 8 ms). Never later than [`now`](Self::now).
    #[inline]
    #[must_use]
    pub fn about_now(&self) -> MonoTime {
        self.now.get().unwrap_or_else(|| self.clock.about(self.before))
    }

    /// Looks at the clock anew: who sends at planned instants cannot do with one look a turn.
    #[inline]
    pub fn look(&self) -> MonoTime {
        let now = self.clock.now();
        self.now.set(Some(now));
        now
    }

    /// TAI beside monotonic time.
    pub(crate) fn pair(&self) -> Option<PairedRead> {
        self.clock.pair()
    }

    /// The instant of this turn.
    #[inline]
    pub fn now(&self) -> MonoTime {
        if let Some(now) = self.now.get() {
            return now;
        }
        let now = self.clock.now();
        self.now.set(Some(now));
        now
    }
}
