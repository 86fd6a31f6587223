//! Spawning under loom: every interleaving with up to three switches that no thread asked for.
//!
//! Run by `RUSTFLAGS="--cfg loom" cargo test -p vplc --release --lib loom`.

use crate::bell::Bell;
use crate::queue::Queue;
use insane_core::{MonoTime, Nanos};
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use std::sync::Arc;

const INTERVAL: u64 = 3;

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(model);
}

/// A clock that goes on with each look, the same for all.
#[derive(Clone)]
struct Clock(Arc<AtomicU64>);

impl Clock {
    fn now(&self) -> MonoTime {
        MonoTime(self.0.fetch_add(1, Ordering::SeqCst))
    }
}

fn spawner(queue: &Arc<Queue<u64>>, clock: &Clock, number: u64, times: usize) -> thread::JoinHandle<u64> {
    let (queue, clock) = (Arc::clone(queue), clock.clone());
    thread::spawn(move || {
        let spawned = (0..times).filter(|_| queue.spawn_by(number, || clock.now()).is_ok());
        spawned.count() as u64
    })
}

/// Two spawn at once: what is accepted arrives whole, and whoever is accepted was released no
/// sooner than an interval after the job before it was released. A job that the taker did not
/// find at some instant was released after that.
#[test]
fn loom_releases_are_an_interval_apart() {
    check(|| {
        let clock = Clock(Arc::new(AtomicU64::new(0)));
        let queue = Arc::new(Queue::new(Nanos(INTERVAL), 2, &Arc::new(Bell::new())));
        let (one, two) = (spawner(&queue, &clock, 1, 2), spawner(&queue, &clock, 2, 1));
        let (mut taken, mut not_before, mut missing) = (0, 0, 0);
        for _ in 0..3 {
            let now = clock.now();
            match queue.take(now) {
                Some((released, number)) => {
                    assert!(number == 1 || number == 2);
                    assert!(released.0 >= not_before, "{released:?} {not_before}");
                    not_before = missing + INTERVAL;
                    taken += 1;
                }
                None => missing = now.0,
            }
        }
        let accepted = one.join().unwrap() + two.join().unwrap();
        while queue.take(clock.now()).is_some() {
            taken += 1;
        }
        assert_eq!(taken, accepted);
        let refused = queue.gate().refused_early() + queue.gate().refused_full();
        assert_eq!(accepted + refused, 3, "nothing is lost");
    });
}

/// The thread that takes sleeps whenever there is nothing, and misses nothing.
#[test]
fn loom_no_spawn_is_slept_through() {
    check(|| {
        let clock = Clock(Arc::new(AtomicU64::new(0)));
        let bell = Arc::new(Bell::new());
        let queue = Arc::new(Queue::new(Nanos(0), 1, &bell));
        let (theirs, their_clock) = (Arc::clone(&queue), clock.clone());
        let sender = thread::spawn(move || {
            for number in 0..2 {
                while theirs.spawn_by(number, || their_clock.now()).is_err() {
                    thread::yield_now();
                }
            }
        });
        for expected in 0..2 {
            let number = loop {
                match queue.take(clock.now()) {
                    Some((_, number)) => break number,
                    None => _ = bell.sleep(None, || queue.gate().first().is_some()),
                }
            };
            assert_eq!(number, expected);
        }
        sender.join().unwrap();
    });
}

/// Who has rung leaves no sleeper behind, also where another rang first and did not come to its
/// call to the kernel: that other may be less urgent, and not run for long.
#[test]
fn loom_whoever_rings_wakes_the_thread_itself() {
    check(|| {
        let bell = Arc::new(Bell::new());
        let left = Arc::new(AtomicU64::new(0));
        let ringer = || {
            let (bell, left) = (Arc::clone(&bell), Arc::clone(&left));
            thread::spawn(move || {
                left.fetch_add(1, Ordering::Relaxed);
                bell.ring();
                assert!(!bell.is_queued(), "it sleeps behind whoever rang first");
            })
        };
        let ringers = [ringer(), ringer()];
        bell.sleep(None, || left.load(Ordering::Relaxed) > 0);
        ringers.into_iter().for_each(|ringer| ringer.join().unwrap());
    });
}
