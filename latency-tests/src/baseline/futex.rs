//! A conversation between two threads that sleep: a copying ring each way, and a futex
//! word beside it that the sender counts up and wakes.

use super::ring::{MESSAGE_BYTES, RingEnd, pair as rings};
use crate::harness::converse::End;
use crate::harness::fault::Fault;
use insane_sys::futex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Longest sleep: how soon an end notices that the measurement is over.
pub const SLEEP_MAX: Duration = Duration::from_millis(1);

/// One end.
pub struct FutexEnd {
    ring: RingEnd<MESSAGE_BYTES>,
    /// Counted up for the other end.
    there: Arc<AtomicU32>,
    /// Counted up by the other end.
    here: Arc<AtomicU32>,
}

/// Both ends.
#[must_use]
pub fn pair() -> (FutexEnd, FutexEnd) {
    let (asking, answering) = rings();
    let (one, other) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let end = |ring, there: &Arc<AtomicU32>, here: &Arc<AtomicU32>| FutexEnd {
        ring,
        there: Arc::clone(there),
        here: Arc::clone(here),
    };
    (end(asking, &one, &other), end(answering, &other, &one))
}

impl End for FutexEnd {
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        let sent = self.ring.send(number)?;
        if sent {
            // Release: who sees the count sees the message.
            self.there.fetch_add(1, Ordering::Release);
            futex::wake(&self.there, 1).map_err(|error| Fault::Party(format!("wake: {error}")))?;
        }
        Ok(sent)
    }

    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        // The count is read before the ring, so that no message is slept through.
        let seen = self.here.load(Ordering::Acquire);
        let found = self.ring.receive()?;
        if found.is_none() {
            let _ = futex::wait(&self.here, seen, Some(SLEEP_MAX))
                .map_err(|error| Fault::Party(format!("wait: {error}")))?;
        }
        Ok(found)
    }
}
