//! A bounded queue between threads of different priority: no end ever waits for the other.
//!
//! Queues that need no lock make room with one store and hand the item over with another. Where a
//! thread is kept from running between the two, whoever meets the place spins until it runs
//! again; and if that is a `SCHED_FIFO` thread on the same core, it never does. Here each end and
//! each place has a lock that is only ever *tried*: what cannot be had now is as if it were not
//! there, or had no room, and is tried again with the caller's next look.
//!
//! ```text
//!           head                 tail
//!             v                    v
//!   | free | item | item | item | free | free |      waiting = 3
//! ```
//! Invariants
//! - `waiting` counts an item once its place is left, and until it was taken out of it: so as
//!   long as there is one end of each kind, what is counted can be taken at once.
//! - Nothing is taken before it is counted: who takes looks at `waiting` once more when nobody else
//!   can take, so it never falls below zero.
//! - Items leave in the order in which they came.
//!
//! Bounds: the places given at the start; a push or pop is a bounded number of steps.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};

/// See the module's documentation. Many may push and many may pop; of two that do so at the same
/// moment, one is told that there is no room, or nothing.
#[derive(Debug)]
pub struct TryQueue<T> {
    /// Where the next item is taken from; only who takes has it.
    head: Mutex<usize>,
    /// Where the next item is put.
    tail: Mutex<usize>,
    waiting: AtomicUsize,
    places: Box<[Mutex<Option<T>>]>,
}

impl<T> TryQueue<T> {
    /// With so many places.
    ///
    /// # Panics
    /// None at all.
    #[must_use]
    pub fn new(places: usize) -> Self {
        assert!(places > 0, "a queue has places");
        TryQueue {
            head: Mutex::new(0),
            tail: Mutex::new(0),
            waiting: AtomicUsize::new(0),
            places: (0..places).map(|_| Mutex::new(None)).collect(),
        }
    }

    /// Whether there is nothing to take.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        // Acquire: pairs with the release of a push.
        self.waiting.load(Ordering::Acquire) == 0
    }

    /// Leaves an item. Allocates nothing.
    ///
    /// # Errors
    /// The item: there is no room, or another is pushing.
    #[inline]
    pub fn push(&self, item: T) -> Result<(), T> {
        let Some(mut tail) = attempt(&self.tail) else { return Err(item) };
        {
            let Some(mut place) = attempt(&self.places[*tail]).filter(|place| place.is_none()) else {
                return Err(item);
            };
            *place = Some(item);
        }
        *tail = self.after(*tail);
        // Release: who finds it counted finds it in its place.
        self.waiting.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Takes the item that has waited longest. Frees nothing.
    #[inline]
    pub fn pop(&self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        self.take()
    }

    /// What is counted by now: another may have taken what was counted before.
    fn take(&self) -> Option<T> {
        let mut head = attempt(&self.head)?;
        if self.is_empty() {
            return None;
        }
        let item = attempt(&self.places[*head])?.take()?;
        *head = self.after(*head);
        // Relaxed: the places say whether there is room.
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(item)
    }

    fn after(&self, place: usize) -> usize {
        if place + 1 == self.places.len() { 0 } else { place + 1 }
    }
}

/// The lock, unless somebody has it. Nothing panics while it is held.
#[inline]
fn attempt<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    #[test]
    fn it_is_a_queue_with_so_many_places() {
        let queue = TryQueue::new(3);
        let mut oracle = VecDeque::new();
        let mut state = 1_u64;
        for number in 0..10_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if state >> 63 == 0 {
                let pushed = queue.push(number);
                assert_eq!(pushed, if oracle.len() < 3 { Ok(()) } else { Err(number) });
                if pushed.is_ok() {
                    oracle.push_back(number);
                }
            } else {
                assert_eq!(queue.pop(), oracle.pop_front());
            }
            assert_eq!(queue.is_empty(), oracle.is_empty());
        }
    }

    /// A thread that was kept from running anywhere in a push or a pop holds some of the locks:
    /// the other end goes on all the same. With a queue that spins this would not end.
    #[test]
    fn who_is_kept_from_running_keeps_nobody() {
        let queue = TryQueue::new(2);
        // In a push: before the item is in its place, in it, and before it is counted.
        let tail = queue.tail.lock().unwrap();
        assert_eq!((queue.pop(), queue.push(0)), (None, Err(0)));
        let place = queue.places[0].lock().unwrap();
        assert_eq!((queue.pop(), queue.push(0)), (None, Err(0)));
        drop((tail, place));
        *queue.places[0].lock().unwrap() = Some(1);
        assert!(queue.is_empty() && queue.pop().is_none(), "not counted yet: a sleeper sleeps on");
        *queue.places[0].lock().unwrap() = None;

        queue.push(1).unwrap();
        queue.push(2).unwrap();
        // In a pop, of a full queue.
        let head = queue.head.lock().unwrap();
        assert_eq!((queue.pop(), queue.push(3)), (None, Err(3)));
        let place = queue.places[0].lock().unwrap();
        assert_eq!((queue.pop(), queue.push(3)), (None, Err(3)));
        drop((head, place));
        // And while another pushes, what is counted is there.
        let tail = queue.tail.lock().unwrap();
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some(1), Some(2), None));
        drop(tail);
        assert_eq!(queue.push(3), Ok(()));
    }

    /// Two take at once, and one of them what both had found counted, while a push is under way.
    #[test]
    fn nothing_is_taken_before_it_is_counted() {
        let queue = TryQueue::new(2);
        *queue.places[0].lock().unwrap() = Some(1);
        assert_eq!((queue.take(), queue.waiting.load(Ordering::Relaxed)), (None, 0));
        queue.waiting.fetch_add(1, Ordering::Release);
        assert_eq!((queue.take(), queue.take(), queue.is_empty()), (Some(1), None, true));
    }

    #[test]
    fn between_threads_nothing_is_lost_doubled_or_overtaken() {
        const EACH: u64 = 20_000;
        let queue = TryQueue::new(4);
        let pushing = |who: u64| {
            let mut next = 0;
            while next < EACH {
                match queue.push((who, next)) {
                    Ok(()) => next += 1,
                    Err(_) => std::thread::yield_now(),
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| pushing(0));
            scope.spawn(|| pushing(1));
            let mut next = [0; 2];
            while next != [EACH; 2] {
                match queue.pop() {
                    Some((who, number)) => {
                        assert_eq!(number, next[who as usize]);
                        next[who as usize] += 1;
                    }
                    None => std::thread::yield_now(),
                }
            }
        });
        assert!(queue.is_empty() && queue.pop().is_none());
    }
}
