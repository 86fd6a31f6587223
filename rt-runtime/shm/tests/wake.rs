//! Sleeping and waking, over futexes. The timeout of a sleep is a backstop: these tests
//! count the times it was needed.

mod common;

use common::{TestSink, TestSource, join, send};
use insane_core::counters::PortCounter;
use insane_shm::port::{Attachment, ConsumeError};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Long beside any delay of a scheduler.
const BACKSTOP: Duration = Duration::from_secs(5);

/// Waits for one message; whether a sleep lasted to its end although one had come.
fn wait(sink: &TestSink, needed: &mut u32) -> u64 {
    loop {
        if let Some(message) = sink.port.consume().unwrap() {
            return message.sequence();
        }
        let asleep = Instant::now();
        sink.port.sleep(BACKSTOP).unwrap();
        *needed += u32::from(asleep.elapsed() >= BACKSTOP);
    }
}

#[test]
fn a_hundred_thousand_handoffs_miss_no_wake() {
    const ROUNDS: u64 = 50_000;
    let (there, back) = (TestSource::new(&[], false), TestSource::new(&[], false));
    let (far, near) = (TestSink::new(), TestSink::new());
    join(&there, &far, 1, 4);
    join(&back, &near, 2, 4);
    let other = std::thread::spawn(move || {
        let mut needed = 0;
        for round in 0..ROUNDS {
            assert_eq!(wait(&far, &mut needed), round);
            assert!(send(&back.port, 8));
        }
        (needed, back.count(PortCounter::Wakes))
    });
    let mut needed = 0;
    for round in 0..ROUNDS {
        assert!(send(&there.port, 8));
        assert_eq!(wait(&near, &mut needed), round);
    }
    let (needed_there, wakes_back) = other.join().unwrap();
    assert_eq!((needed, needed_there), (0, 0), "the backstop made progress");
    let wakes = wakes_back + there.count(PortCounter::Wakes);
    assert!(wakes > 0 && wakes <= 2 * ROUNDS, "at most one system call a message: {wakes}");
}

#[test]
fn one_wish_is_answered_once() {
    let (source, sink) = (TestSource::new(&[], false), TestSink::new());
    join(&source, &sink, 1, 64);
    assert!(sink.port.consume().unwrap().is_none());
    assert_eq!(sink.port.arm(), Ok(false));
    for _ in 0..10 {
        assert!(send(&source.port, 8));
    }
    assert_eq!(source.count(PortCounter::Wakes), 1);
    assert_eq!(sink.port.arm(), Ok(true), "a message waits: nothing was asked");
    assert!(send(&source.port, 8));
    assert_eq!(source.count(PortCounter::Wakes), 1);
    while sink.port.consume().unwrap().is_some() {}
    assert_eq!(sink.port.arm(), Ok(false));
    assert!(send(&source.port, 8));
    assert_eq!(source.count(PortCounter::Wakes), 2);
    sink.port.disarm();
    assert!(send(&source.port, 8));
    assert_eq!(source.count(PortCounter::Wakes), 2);
}

#[test]
fn any_of_several_senders_wakes_and_so_does_the_mailbox() {
    let sink = TestSink::new();
    let sources: Vec<TestSource> = (0..3).map(|_| TestSource::new(&[], false)).collect();
    for (source, id) in sources.iter().zip(0..) {
        join(source, &sink, id, 4);
    }
    let late = TestSource::new(&[], false);
    let stop = AtomicBool::new(false);
    let mailbox = std::sync::Arc::clone(&sink.mailbox);
    let wake_page = sink.wake.reader();
    std::thread::scope(|scope| {
        let (stop, sources, late) = (&stop, sources, late);
        // One message at a time, each from another sender, when the last was taken.
        let senders = scope.spawn(move || {
            let mut rounds = 0_usize;
            let mut joined = None;
            while !stop.load(Ordering::Acquire) {
                // A sink that joins while it sleeps learns of it, and hears the new sender.
                if rounds == 300 {
                    let rings = common::Rings::new(4, &late.geometry);
                    let waker = insane_shm::wake::Waker::new(wake_page.clone(), insane_shm::wake::How::Futex);
                    late.mailbox.add(rings.tx(9, 4, &late.geometry, Some(waker))).unwrap();
                    mailbox.add(rings.rx(9, 4, &late.geometry, None)).unwrap();
                    joined = Some(rings);
                }
                let source = if joined.is_some() { &late } else { &sources[rounds % 3] };
                assert!(send(&source.port, 1));
                rounds += 1;
                std::thread::yield_now();
            }
        });
        let mut needed = 0;
        for _ in 0..600 {
            wait(&sink, &mut needed);
        }
        stop.store(true, Ordering::Release);
        senders.join().unwrap();
        assert_eq!(needed, 0);
    });
}

#[test]
fn a_sleeping_sink_learns_that_its_runtime_is_gone() {
    let sink = TestSink::new();
    let mailbox = std::sync::Arc::clone(&sink.mailbox);
    let sleeper = std::thread::spawn(move || {
        let mut needed = 0;
        while matches!(sink.port.consume(), Ok(None)) {
            let asleep = Instant::now();
            sink.port.sleep(BACKSTOP).unwrap();
            needed += u32::from(asleep.elapsed() >= BACKSTOP);
        }
        (needed, sink.port.consume().unwrap_err())
    });
    std::thread::sleep(Duration::from_millis(20));
    assert!(mailbox.set_attachment(Attachment::Detached));
    assert_eq!(sleeper.join().unwrap(), (0, ConsumeError::Detached));
}

#[test]
fn a_sleep_ends_by_itself() {
    let (source, sink) = (TestSource::new(&[], false), TestSink::new());
    join(&source, &sink, 1, 4);
    assert!(sink.port.consume().unwrap().is_none());
    let asleep = Instant::now();
    sink.port.sleep(Duration::from_millis(30)).unwrap();
    assert!(asleep.elapsed() >= Duration::from_millis(30));
}
