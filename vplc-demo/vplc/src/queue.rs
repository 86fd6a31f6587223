//! What was spawned and has not run: a bounded queue for each task, with its interval kept.
//!
//! ```text
//! next   earliest instant at which the task may be spawned again; BUSY while somebody spawns it
//! tail   spawned so far            stamps, slots   releases and arguments of those from head to tail
//! head   taken so far              taken           when the last one was
//! ```
//!
//! Tasks of several priorities spawn, and none waits for another: who spawns takes `next` by one
//! compare-and-exchange, and has the write end alone until it gives it back. A task that comes
//! meanwhile finds BUSY, which is later than any instant: it came too early, and is refused.
//! One thread takes.
//!
//! **The interval holds from release to release**, or the analysis would not: an instant that was
//! read before a preemption may be long past. So `next` is given back after the job was made
//! available and its thread was woken, and counts from the clock then; or, where the job was
//! taken meanwhile, from when that was, lest the time that the job ran be added to its interval.
//! Both are no earlier than the release.
//!
//! The locks of slots are never waited for: `head` and `tail` keep both ends apart.

use crate::bell::Bell;
use crate::sync::{AtomicU64, Mutex, Ordering};
use insane_core::{MonoTime, Nanos};
use std::sync::Arc;

/// Somebody spawns the task.
const BUSY: u64 = u64::MAX;
/// Attempts to take the write end. Each that fails means that another has spawned meanwhile.
const TRIES: usize = 4;

/// Admits spawns; of any argument.
#[derive(Debug)]
pub struct Gate {
    interval: Nanos,
    bell: Arc<Bell>,
    next: AtomicU64,
    tail: AtomicU64,
    head: AtomicU64,
    taken: AtomicU64,
    /// When what waits was released; as many as the capacity.
    stamps: Box<[AtomicU64]>,
    early: AtomicU64,
    full: AtomicU64,
}

impl Gate {
    fn place(&self, number: u64) -> usize {
        (number % self.stamps.len() as u64) as usize
    }

    /// Takes the write end; gives what `next` was.
    fn claim(&self, now: MonoTime) -> Option<u64> {
        let mut next = self.next.load(Ordering::Relaxed);
        for _ in 0..TRIES {
            if now.0 < next {
                break;
            }
            // Acquire pairs with the Release of whoever had the write end before.
            match self.next.compare_exchange(next, BUSY, Ordering::Acquire, Ordering::Relaxed) {
                Ok(next) => return Some(next),
                Err(other) => next = other,
            }
        }
        None
    }

    /// When the first that waits was released. For the thread that takes.
    #[must_use]
    pub fn first(&self) -> Option<MonoTime> {
        let head = self.head.load(Ordering::Relaxed);
        // Acquire pairs with the Release of `spawn`.
        let waits = self.tail.load(Ordering::Acquire) != head;
        waits.then(|| MonoTime(self.stamps[self.place(head)].load(Ordering::Relaxed)))
    }

    /// Spawns that were refused since they came before the interval was over, or while another
    /// was under way.
    #[must_use]
    pub fn refused_early(&self) -> u64 {
        self.early.load(Ordering::Relaxed)
    }

    /// Spawns that were refused since as many wait as there is room for.
    #[must_use]
    pub fn refused_full(&self) -> u64 {
        self.full.load(Ordering::Relaxed)
    }
}

/// Spawns of one task, with their arguments.
#[derive(Debug)]
pub struct Queue<T> {
    gate: Arc<Gate>,
    slots: Box<[Mutex<Option<T>>]>,
}

impl<T> Queue<T> {
    /// An empty one. Allocates; nothing later does.
    ///
    /// # Panics
    /// The capacity is 0.
    #[must_use]
    pub fn new(interval: Nanos, capacity: u8, bell: &Arc<Bell>) -> Self {
        assert!(capacity > 0, "the macro lets no capacity of 0 through");
        let zero = || AtomicU64::new(0);
        let gate = Gate {
            interval,
            bell: Arc::clone(bell),
            next: zero(),
            tail: zero(),
            head: zero(),
            taken: zero(),
            stamps: (0..capacity).map(|_| zero()).collect(),
            early: zero(),
            full: zero(),
        };
        Queue { gate: Arc::new(gate), slots: (0..capacity).map(|_| Mutex::new(None)).collect() }
    }

    /// What admits.
    #[must_use]
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Lets the task run once more. From any thread; never waits.
    ///
    /// # Errors
    /// The interval since the last one is not over, or there is no room: the argument comes back.
    #[cfg(not(loom))]
    pub fn spawn(&self, argument: T) -> Result<(), T> {
        self.spawn_by(argument, insane_sys::clock::mono_now)
    }

    pub(crate) fn spawn_by(&self, argument: T, now: impl Fn() -> MonoTime) -> Result<(), T> {
        let gate = &*self.gate;
        let Some(next) = gate.claim(now()) else {
            gate.early.fetch_add(1, Ordering::Relaxed);
            return Err(argument);
        };
        let tail = gate.tail.load(Ordering::Relaxed);
        // Acquire pairs with the Release of `take`: the place is empty again.
        if tail - gate.head.load(Ordering::Acquire) == self.slots.len() as u64 {
            gate.full.fetch_add(1, Ordering::Relaxed);
            gate.next.store(next, Ordering::Release);
            return Err(argument);
        }
        let at = gate.place(tail);
        *self.slots[at].try_lock().expect("only who has the write end is at the tail") = Some(argument);
        // The release, as near as a clock tells. What is between the call and it is the time of who
        // spawns, who may be preempted there for as long as it likes.
        gate.stamps[at].store(now().0, Ordering::Relaxed);
        gate.tail.store(tail + 1, Ordering::Release);
        gate.bell.ring();
        // Nobody else can have spawned, so what was taken last is this one, if it was.
        let is_taken = gate.head.load(Ordering::Acquire) > tail;
        let released = if is_taken { gate.taken.load(Ordering::Relaxed) } else { now().0 };
        gate.next.store(released.saturating_add(gate.interval.0).min(BUSY - 1), Ordering::Release);
        Ok(())
    }

    /// Takes the first that waits: when it was released, and its argument. One thread only.
    pub fn take(&self, now: MonoTime) -> Option<(MonoTime, T)> {
        let gate = &*self.gate;
        let released = gate.first()?;
        let head = gate.head.load(Ordering::Relaxed);
        let mut slot = self.slots[gate.place(head)].try_lock().expect("only who takes is at the head");
        let argument = slot.take().expect("it was filled before the tail moved");
        drop(slot);
        gate.taken.store(now.0, Ordering::Relaxed);
        gate.head.store(head + 1, Ordering::Release);
        Some((released, argument))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;
    use std::collections::VecDeque;

    const INTERVAL: Nanos = Nanos(100);

    fn queue(capacity: u8) -> Queue<u64> {
        Queue::new(INTERVAL, capacity, &Arc::new(Bell::new()))
    }

    fn at(ns: u64) -> impl Fn() -> MonoTime {
        move || MonoTime(ns)
    }

    #[test]
    fn what_comes_before_the_interval_is_refused_counted_and_handed_back() {
        let queue = queue(2);
        assert_eq!(queue.spawn_by(1, at(0)), Ok(()), "the first may come at any time");
        assert_eq!(queue.spawn_by(2, at(99)), Err(2));
        assert_eq!(queue.spawn_by(3, at(100)), Ok(()));
        assert_eq!(queue.spawn_by(4, at(250)), Err(4), "there is no room");
        assert_eq!((queue.gate.refused_early(), queue.gate.refused_full()), (1, 1));
        assert_eq!(queue.take(MonoTime(250)), Some((MonoTime(0), 1)));
        assert_eq!(queue.spawn_by(5, at(250)), Ok(()), "a refusal costs no interval");
        assert_eq!(queue.take(MonoTime(260)), Some((MonoTime(100), 3)));
        assert_eq!(queue.take(MonoTime(260)), Some((MonoTime(250), 5)));
        assert_eq!(queue.take(MonoTime(260)), None);
    }

    #[test]
    fn interval_and_response_count_from_the_release_and_not_from_the_call() {
        // Preempted for 40 between the call and the release, and for 40 after it.
        let queue = queue(2);
        let clock = Cell::new(0);
        let slow = || MonoTime(clock.replace(clock.get() + 40));
        queue.spawn_by(1, slow).unwrap();
        assert_eq!(queue.spawn_by(2, at(179)), Err(2));
        assert_eq!(queue.spawn_by(2, at(180)), Ok(()));
        assert_eq!(queue.take(MonoTime(200)), Some((MonoTime(40), 1)));
    }

    #[test]
    fn who_comes_while_another_spawns_is_early() {
        let queue = queue(2);
        let next = queue.gate.claim(MonoTime(7)).unwrap();
        assert_eq!(queue.spawn_by(1, at(u64::MAX - 1)), Err(1));
        queue.gate.next.store(next, Ordering::Release);
        assert_eq!(queue.spawn_by(1, at(7)), Ok(()));
    }

    #[test]
    fn an_instant_at_the_end_of_time_is_not_taken_for_busy() {
        let queue = queue(1);
        queue.spawn_by(1, at(u64::MAX - 5)).unwrap();
        assert_eq!(queue.gate.next.load(Ordering::Relaxed), BUSY - 1);
    }

    proptest! {
        #[test]
        fn it_does_what_a_deque_with_a_clock_does(
            capacity in 1_u8..5, moves in proptest::collection::vec((0_u64..150, any::<bool>()), 1..200),
        ) {
            let (queue, mut oracle, mut now, mut next) = (queue(capacity), VecDeque::new(), 0, 0);
            for (number, (passed, spawns)) in moves.into_iter().enumerate() {
                now += passed;
                if spawns {
                    let fits = now >= next && oracle.len() < usize::from(capacity);
                    prop_assert_eq!(queue.spawn_by(number as u64, at(now)).is_ok(), fits);
                    if fits {
                        oracle.push_back((MonoTime(now), number as u64));
                        next = now + INTERVAL.0;
                    }
                } else {
                    prop_assert_eq!(queue.gate.first(), oracle.front().map(|first| first.0));
                    prop_assert_eq!(queue.take(MonoTime(now)), oracle.pop_front());
                }
            }
        }
    }
}
