//! The token of one turn.

use insane_core::MonoTime;
use insane_core::time::Clock;
use std::cell::Cell;
use std::marker::PhantomData;

/// Handed to every hot function: made by the engine alone, neither `Send` nor `Sync`.
/// Reads the clock at most once, and only if somebody asks.
#[derive(Debug)]
pub struct Turn<'c, C: Clock> {
    clock: &'c C,
    now: Cell<Option<MonoTime>>,
    thread: PhantomData<*const ()>,
}

impl<'c, C: Clock> Turn<'c, C> {
    pub(crate) fn new(clock: &'c C) -> Self {
        Turn { clock, now: Cell::new(None), thread: PhantomData }
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
