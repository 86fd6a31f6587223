//! Rules of the ports, one by one.

mod common;

use common::{Rings, TestSink, TestSource, assert_pattern, join, join_direct, send};
use insane_core::ConnId;
use insane_core::counters::PortCounter;
use insane_core::limits::INLINE_BYTES_MAX;
use insane_shm::conn::RxConn;
use insane_shm::port::{
    Attachment, ConsumeError, Earlier, Emit, GetBufferError, Outcome, Refusal, SinkPort, Token, end_of_past,
};
use insane_shm::ring::{Payload, Popped};
use std::time::{Duration, Instant};

fn consume(sink: &TestSink) -> Option<u64> {
    sink.port.consume().unwrap().map(|message| message.sequence())
}

#[test]
fn small_and_large_messages_arrive_whole() {
    let (source, sink) = (TestSource::new(&[(128, 4), (1 << 20, 2)], false), TestSink::new());
    join(&source, &sink, 1, 8);
    for len in [0, 1, 7, 8, 15, 16, 31, 33, 64, 95, 96, 97, 128, 129, 1 << 20] {
        assert!(send(&source.port, len));
        let message = sink.port.consume().unwrap().unwrap();
        assert_eq!(message.len(), len);
        assert_eq!(message.bytes().is_some(), len <= 96, "a foreign heap is never a slice");
        assert_pattern(&message.shared().to_vec(), message.sequence());
    }
    assert_eq!(source.port.get_buffer((1 << 20) + 1).unwrap_err(), GetBufferError::TooLarge { max: 1 << 20 });
    assert_eq!(sink.count(PortCounter::Messages), 15);
    assert_eq!(source.count(PortCounter::Bytes), sink.count(PortCounter::Bytes));
}

#[test]
fn a_receiver_that_stops_keeps_no_released_buffer() {
    let (source, sink) = (TestSource::new(&[(128, 64), (4096, 32)], false), TestSink::new());
    join(&source, &sink, 1, 64);
    // Released while more waited, and then the last message was a small one.
    for len in [128, 4096, 128, 4096, 128, 10] {
        assert!(send(&source.port, len));
    }
    while let Some(message) = sink.port.consume().unwrap() {
        let last = message.len() == 10;
        drop(message);
        if last {
            break;
        }
    }
    assert_eq!(source.port.buffers_in_use(), 0, "the receiver polls no more, and holds nothing");
    // Released after the last look.
    assert!(send(&source.port, 4096));
    let message = sink.port.consume().unwrap().unwrap();
    assert_eq!(source.port.buffers_in_use(), 1);
    drop(message);
    assert_eq!(source.port.buffers_in_use(), 0);
}

#[test]
fn a_busy_receiver_gives_buffers_back_in_batches_and_starves_nobody() {
    let (source, sink) = (TestSource::new(&[(128, 64), (4096, 2)], false), TestSink::new());
    join(&source, &sink, 1, 64);
    // The ring is never empty, and yet the two large buffers go round for ever.
    assert!(send(&source.port, 10));
    for _ in 0..200 {
        assert!(send(&source.port, 4096), "a large buffer came back in time");
        assert!(send(&source.port, 10));
        for _ in 0..2 {
            assert!(consume(&sink).is_some());
        }
    }
    let (source, sink) = (TestSource::new(&[(128, 64)], false), TestSink::new());
    join(&source, &sink, 1, 64);
    for _ in 0..20 {
        assert!(send(&source.port, 128));
    }
    for taken in 1..=7 {
        assert!(consume(&sink).is_some());
        assert_eq!(source.port.buffers_in_use(), 20, "{taken} wait for their batch");
    }
    assert!(consume(&sink).is_some());
    assert_eq!(source.port.buffers_in_use(), 12, "eight at a time");
}

#[test]
fn a_full_ring_drops_and_says_how_many() {
    let (source, slow, fast) = (TestSource::new(&[], false), TestSink::new(), TestSink::new());
    join(&source, &slow, 1, 2);
    join(&source, &fast, 2, 64);
    for _ in 0..10 {
        assert!(send(&source.port, 8));
    }
    assert_eq!(source.count(PortCounter::Dropped), 8);
    assert_eq!((consume(&slow), consume(&slow), consume(&slow)), (Some(0), Some(1), None));
    assert!(send(&source.port, 8));
    let message = slow.port.consume().unwrap().unwrap();
    assert_eq!((message.sequence(), message.lost()), (10, 8));
    assert_eq!(slow.count(PortCounter::Lost), 8);
    for sequence in 0..11 {
        assert_eq!(consume(&fast), Some(sequence));
    }
}

#[test]
fn losses_saturate() {
    let (source, sink) = (TestSource::new(&[], false), TestSink::new());
    join(&source, &sink, 1, 2);
    for _ in 0..70_000 {
        assert!(send(&source.port, 1));
    }
    assert_eq!((consume(&sink), consume(&sink)), (Some(0), Some(1)));
    assert!(send(&source.port, 1));
    let message = sink.port.consume().unwrap().unwrap();
    assert_eq!((message.sequence(), message.lost()), (70_000, u16::MAX));
    assert_eq!(source.count(PortCounter::Dropped), 70_000 - 2);
}

#[test]
fn a_reliable_source_refuses_and_hands_the_buffer_back() {
    let (source, sink) = (TestSource::new(&[], true), TestSink::new());
    join(&source, &sink, 1, 2);
    assert!(send(&source.port, 8) && send(&source.port, 8));
    let mut loan = source.port.get_buffer(8).unwrap();
    loan.fill(9);
    let Emit::Refused(loan, Refusal::NoRoom) = source.port.emit(loan, 0) else { panic!("there is no room") };
    assert_eq!(*loan, [9; 8]);
    assert_eq!(source.count(PortCounter::Refused), 1);
    assert_eq!(consume(&sink), Some(0));
    assert!(source.port.emit(loan, 0).is_sent());
    assert_eq!((consume(&sink), consume(&sink), consume(&sink)), (Some(1), Some(2), None));
}

#[test]
fn outcomes_are_kept_and_tell_of_release() {
    let (source, sink) = (TestSource::new(&[(128, 2)], false), TestSink::new());
    join(&source, &sink, 1, 64);
    let emit = |len| -> Token { source.port.emit(source.port.get_buffer(len).unwrap(), 0).sent().unwrap() };
    let published = |released| Outcome::Published { receivers: 1, dropped: 0, released };
    let large = emit(128);
    assert_eq!(source.port.outcome(large), published(false));
    let message = sink.port.consume().unwrap().unwrap();
    assert_eq!(source.port.outcome(large), published(false));
    drop(message);
    assert_eq!(source.port.outcome(large), published(true));
    // The buffer is on loan again: the message in it is long released.
    let loan = source.port.get_buffer(128).unwrap();
    assert_eq!(source.port.outcome(large), published(true));
    drop(loan);
    let small = emit(1);
    assert_eq!(source.port.outcome(small), published(true));
    for _ in 0..62 {
        emit(1);
    }
    assert_eq!(source.port.outcome(large), published(true), "64 are remembered");
    emit(1);
    assert_eq!(source.port.outcome(large), Outcome::Unknown);
}

#[test]
fn a_buffer_that_is_emitted_again_is_no_longer_that_of_its_first_emit() {
    let (source, sink) = (TestSource::new(&[(128, 1)], false), TestSink::new());
    join(&source, &sink, 1, 8);
    let emit = || -> Token { source.port.emit(source.port.get_buffer(128).unwrap(), 0).sent().unwrap() };
    let published = |released| Outcome::Published { receivers: 1, dropped: 0, released };
    let first = emit();
    assert_eq!((source.port.outcome(first), consume(&sink)), (published(false), Some(0)));
    let second = emit();
    assert_eq!([first, second].map(|token| source.port.outcome(token)), [true, false].map(published));
    assert_eq!(consume(&sink), Some(1));
    assert_eq!(source.port.outcome(second), published(true));
}

#[test]
fn outcomes_of_plain_emits_are_told_apart_from_those_around_them() {
    let (source, sink) = (TestSource::new(&[(128, 2)], false), TestSink::new());
    join(&source, &sink, 1, 2);
    let emit = |len| -> Token { source.port.emit(source.port.get_buffer(len).unwrap(), 0).sent().unwrap() };
    let published = |receivers, dropped| Outcome::Published { receivers, dropped, released: true };
    // The ring holds two.
    let tokens = [emit(1), emit(1), emit(1)];
    let expected = [published(1, 0), published(1, 0), published(0, 1)];
    assert_eq!(tokens.map(|token| source.port.outcome(token)), expected);
    let [.., dropped] = tokens;
    assert_eq!((consume(&sink), consume(&sink), consume(&sink)), (Some(0), Some(1), None));
    for emitted in 1..=64 {
        let plain = emit(1);
        assert_eq!(source.port.outcome(plain), published(1, 0), "in the place of one that was dropped, too");
        let known = if emitted < 64 { published(0, 1) } else { Outcome::Unknown };
        assert_eq!(source.port.outcome(dropped), known, "{emitted} later");
        assert_eq!(sink.port.consume().unwrap().unwrap().lost(), u16::from(emitted == 1), "told once");
    }
}

#[test]
fn a_buffer_that_carries_the_past_is_no_longer_that_of_its_emit() {
    let (source, sink, late) = (TestSource::new(&[(128, 1)], false), TestSink::new(), TestSink::new());
    join_direct(&source, &sink, 1, 8);
    let token = source.port.emit(source.port.get_buffer(128).unwrap(), 0).sent().unwrap();
    let released = |released| Outcome::Published { receivers: 1, dropped: 0, released };
    assert_eq!(source.port.outcome(token), released(false));
    assert_eq!(consume(&sink), Some(0));
    join_direct(&source, &late, 2, 8);
    assert_eq!(source.port.replay(&[Earlier { sequence: 0, source_ns: 0, bytes: &[7; 128] }]), 1);
    assert_eq!(source.port.buffers_in_use(), 1, "the late sink has not released it");
    assert_eq!(source.port.outcome(token), released(true));
}

#[test]
fn stages_run_out_into_the_heap_and_come_back() {
    let source = TestSource::new(&[(128, 1)], false);
    let mut loans: Vec<_> = (0..33).map(|_| source.port.get_buffer(10).unwrap()).collect();
    assert_eq!(source.port.buffers_in_use(), 1);
    assert_eq!(source.port.get_buffer(10).unwrap_err(), GetBufferError::Exhausted);
    assert_eq!(source.count(PortCounter::NoBuffer), 1);
    // No two loans share a byte.
    for (loan, value) in loans.iter_mut().zip(0..) {
        loan.fill(value);
    }
    assert!(loans.iter().zip(0..).all(|(loan, value)| **loan == [value; 10]));
    loans.clear();
    assert_eq!(source.port.buffers_in_use(), 0);
    assert!(source.port.get_buffer(10).is_ok());
}

#[test]
fn a_sink_lends_out_a_bounded_number_of_messages() {
    let (source, sink) = (TestSource::new(&[], false), TestSink::new());
    join(&source, &sink, 1, 512);
    for _ in 0..300 {
        assert!(send(&source.port, 16));
    }
    let mut held: Vec<_> = (0..256).map(|_| sink.port.consume().unwrap().unwrap()).collect();
    assert_eq!(sink.port.consume().unwrap_err(), ConsumeError::TooManyHeld);
    assert!(sink.port.is_ready().unwrap());
    for message in &held {
        assert_pattern(message.bytes().unwrap(), message.sequence());
    }
    held.swap_remove(17);
    assert_eq!(consume(&sink), Some(256), "nothing was lost meanwhile");
    drop(held);
    assert_eq!(consume(&sink), Some(257));
}

#[test]
fn senders_take_turns() {
    let (a, b, sink) = (TestSource::new(&[], false), TestSource::new(&[], false), TestSink::new());
    join(&a, &sink, 1, 8);
    join(&b, &sink, 2, 8);
    for _ in 0..3 {
        assert!(a.port.emit_copy(b"a", 0).unwrap().is_sent() && b.port.emit_copy(b"b", 0).unwrap().is_sent());
    }
    let order: Vec<u8> = (0..6).map(|_| sink.port.consume().unwrap().unwrap().bytes().unwrap()[0]).collect();
    assert_eq!(order, *b"ababab");
}

#[test]
#[should_panic(expected = "emitted by the source that lent it")]
fn a_buffer_of_another_source_is_not_emitted() {
    let (a, b) = (TestSource::new(&[], false), TestSource::new(&[], false));
    let _ = a.port.emit(b.port.get_buffer(8).unwrap(), 0);
}

#[test]
fn a_detached_source_refuses_only_without_receivers() {
    let (source, sink) = (TestSource::new(&[], false), TestSink::new());
    assert!(source.mailbox.set_attachment(Attachment::Detached));
    assert!(sink.mailbox.set_attachment(Attachment::Detached));
    assert!(matches!(source.port.emit_copy(b"x", 0), Some(Emit::Refused((), Refusal::Detached))));
    assert_eq!(sink.port.consume().unwrap_err(), ConsumeError::Detached);
    join(&source, &sink, 1, 2);
    assert!(send(&source.port, 1));
    assert_eq!(consume(&sink), Some(0));
    assert!(source.mailbox.set_attachment(Attachment::Attached) && source.mailbox.remove(ConnId(1)));
    assert!(send(&source.port, 1), "nobody listens, and that is no error");
}

#[test]
fn a_retired_feed_is_drained_before_it_goes() {
    let (source, sink) = (TestSource::new(&[(128, 4)], false), TestSink::new());
    join(&source, &sink, 1, 8);
    for len in [1, 128, 1] {
        assert!(send(&source.port, len));
    }
    assert!(sink.mailbox.remove(ConnId(1)));
    assert_eq!(consume(&sink), Some(0));
    let held = sink.port.consume().unwrap().unwrap();
    assert_eq!(consume(&sink), Some(2));
    assert!(consume(&sink).is_none() && consume(&sink).is_none());
    assert_pattern(&held.shared().to_vec(), 1);
    drop(held);
    assert!(consume(&sink).is_none());
    assert!(!sink.port.has_senders());
    assert!(sink.mailbox.collect().is_empty(), "going is no violation");
    assert_eq!(source.port.buffers_in_use(), 0, "the return went out before the feed did");
}

/// The runtime was restarted, twice, while nobody read: what it had delivered before comes first.
#[test]
fn what_waits_in_a_retired_feed_goes_before_what_came_by_the_next_one() {
    let (source, other, sink) = (TestSource::new(&[(128, 8)], false), TestSource::new(&[], false), TestSink::new());
    join(&other, &sink, 1, 8);
    for id in 2..5 {
        join(&source, &sink, id, 8);
        for len in [1, 128] {
            assert!(send(&source.port, len));
        }
        if id < 4 {
            assert!(source.mailbox.let_go(ConnId(id)) && sink.mailbox.remove(ConnId(id)));
        }
    }
    assert!(other.port.emit_copy(b"other", 0).unwrap().is_sent());
    assert_eq!(sink.port.is_ready(), Ok(true));
    let came: Vec<u64> = (0..4).map(|_| consume(&sink).expect("it waits")).collect();
    assert_eq!(came, [0, 1, 2, 3]);
    // Those that are live take turns again, and nothing of them is overlooked.
    assert_eq!(sink.port.is_ready(), Ok(true));
    let mut rest: Vec<(usize, u64)> = std::iter::from_fn(|| {
        let message = sink.port.consume().unwrap()?;
        Some((message.len(), message.sequence()))
    })
    .collect();
    rest.sort_unstable();
    assert_eq!(rest, [(1, 4), (5, 0), (128, 5)]);
    assert!(sink.port.has_senders());
}

/// Who fills a ring and closes it does not stand before others for that.
#[test]
fn what_a_source_of_this_host_leaves_behind_takes_turns_with_others() {
    let (leaves, stays, sink) = (TestSource::new(&[], false), TestSource::new(&[], false), TestSink::new());
    join_direct(&leaves, &sink, 1, 8);
    join_direct(&stays, &sink, 2, 8);
    for _ in 0..8 {
        assert!(send(&leaves.port, 1) && stays.port.emit_copy(b"other", 0).unwrap().is_sent());
    }
    assert!(leaves.mailbox.let_go(ConnId(1)) && sink.mailbox.remove(ConnId(1)));
    let came: Vec<usize> = (0..8).map(|_| sink.port.consume().unwrap().expect("it waits").len()).collect();
    assert_eq!(came.iter().filter(|len| **len == 5).count(), 4, "{came:?}");
}

#[test]
fn a_sender_that_goes_on_does_not_keep_a_retired_feed_alive() {
    let (source, sink) = (TestSource::new(&[], false), TestSink::new());
    join(&source, &sink, 1, 8);
    assert!(send(&source.port, 1) && sink.mailbox.remove(ConnId(1)));
    let mut delivered = 0;
    for _ in 0..1000 {
        delivered += u32::from(consume(&sink).is_some());
        send(&source.port, 1);
    }
    assert!((1..=8).contains(&delivered), "{delivered}");
    assert!(!sink.port.has_senders());
}

/// A reliable source with a sink that takes everything, and one that takes a message in 40 ms:
/// how many messages the slow one took, of how many. All in one thread, so that who waits for it
/// stands still when it does.
fn beside_a_slow_one(len: usize, depth: u32) -> (u64, u64) {
    let (source, slow, quick) = (TestSource::new(&[(128, 64)], true), TestSink::new(), TestSink::new());
    join_direct(&source, &slow, 1, depth);
    join_direct(&source, &quick, 2, depth);
    let start = Instant::now();
    let (mut due, mut taken, mut sent) = (start, 0, 0);
    let take = || slow.port.consume().unwrap().map(|message| assert_eq!(message.lost(), 0, "it lives"));
    while start.elapsed() < Duration::from_secs(2) {
        // Before the next look at it, also where this thread had to stand still.
        if Instant::now() >= due {
            due += Duration::from_millis(40);
            taken += u64::from(take().is_some());
        }
        sent += u64::from(send(&source.port, len));
        while consume(&quick).is_some() {}
        std::thread::sleep(Duration::from_micros(200));
    }
    while take().is_some() {
        taken += 1;
    }
    assert_eq!(source.count(PortCounter::PutOut), 0);
    (taken, sent)
}

#[test]
fn a_slow_receiver_of_a_reliable_stream_is_waited_for_while_it_takes_something() {
    for (len, depth) in [(1, 64), (1, 1024), (128, 128)] {
        let (taken, sent) = beside_a_slow_one(len, depth);
        assert_eq!(taken, sent, "{len} bytes, depth {depth}");
    }
}

#[test]
fn who_was_put_out_and_is_then_alone_is_waited_for() {
    let (source, stands, quick) = (TestSource::new(&[], true), TestSink::new(), TestSink::new());
    join_direct(&source, &stands, 1, 4);
    join_direct(&source, &quick, 2, 4);
    let start = Instant::now();
    while source.count(PortCounter::PutOut) == 0 {
        assert!(start.elapsed() < Duration::from_secs(20), "it is never put out");
        send(&source.port, 1);
        while consume(&quick).is_some() {}
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(source.mailbox.remove(ConnId(2)));
    assert!(!send(&source.port, 1), "nobody would get it");
    while consume(&stands).is_some() {}
    assert!(send(&source.port, 1));
    assert!(stands.port.consume().unwrap().unwrap().lost() > 0);
}

#[test]
fn a_refused_buffer_is_given_up_where_what_follows_an_emit_panics() {
    let (source, sink) = (TestSource::new(&[(128, 8)], true), TestSink::new());
    join(&source, &sink, 1, 2);
    while send(&source.port, 128) {}
    let before = source.port.buffers_in_use();
    let loan = source.port.get_buffer(128).unwrap();
    let emit = std::panic::AssertUnwindSafe(|| source.port.emit_and(loan, 0, || panic!("after it")).is_sent());
    assert!(std::panic::catch_unwind(emit).is_err());
    assert_eq!(source.port.buffers_in_use(), before);
}

#[test]
fn who_is_let_go_and_lives_reads_what_was_sent() {
    let (source, stands, goes_on) = (TestSource::new(&[(128, 8)], true), TestSink::new(), TestSink::new());
    join(&source, &stands, 1, 8);
    join(&source, &goes_on, 2, 8);
    let pass = |number| {
        assert!(send(&source.port, 128), "message {number}");
        assert_eq!(consume(&goes_on), Some(number));
    };
    (0..3).for_each(pass);
    let held = stands.port.consume().unwrap().unwrap();
    assert!(source.mailbox.let_go(ConnId(1)));
    assert_eq!(source.port.receivers(), 1);
    // All other buffers are used anew, many times.
    (3..100).for_each(pass);
    assert_eq!(source.port.buffers_in_use(), 3, "what it may still read is kept");
    assert_pattern(&held.shared().to_vec(), 0);
    for number in 1..3 {
        let message = stands.port.consume().unwrap().unwrap();
        assert_eq!(message.sequence(), number);
        assert_pattern(&message.shared().to_vec(), number);
    }
    assert!(consume(&stands).is_none(), "nothing more was sent to it");
    assert_eq!(source.port.buffers_in_use(), 1, "what it gives back serves again");
    // It is known to be gone.
    assert!(source.mailbox.remove(ConnId(1)));
    (100..120).for_each(pass);
    assert_eq!(source.port.buffers_in_use(), 0);
    drop(held);
}

#[test]
fn what_is_let_go_is_bounded_and_beyond_that_lost_to_the_heap() {
    let source = TestSource::new(&[(128, 80)], false);
    let sinks: Vec<_> = (0..70).map(|_| TestSink::new()).collect();
    for (sink, id) in sinks.iter().zip(0..) {
        join(&source, sink, id, 8);
        assert!(send(&source.port, 128) && source.mailbox.let_go(ConnId(id)));
        assert!(!source.port.has_receivers());
        source.mailbox.collect();
    }
    assert_eq!(source.port.buffers_in_use(), 70);
    for (sink, number) in sinks.iter().zip(0..) {
        let message = sink.port.consume().unwrap().unwrap();
        assert_pattern(&message.shared().to_vec(), number);
    }
    assert_eq!(source.port.buffers_in_use(), 6, "of those beyond 64 nothing comes back");
    (0..70).for_each(|id| assert!(source.mailbox.remove(ConnId(id))));
    assert!(send(&source.port, 128));
    assert_eq!(source.port.buffers_in_use(), 6, "nor is it ever used again");
}

#[test]
fn a_full_mailbox_hands_the_connection_back() {
    let (source, sink) = (TestSource::new(&[], false), TestSink::new());
    for _ in 0..256 {
        assert!(source.mailbox.remove(ConnId(9)));
    }
    let rings = Rings::new(2, &source.geometry);
    let conn = source.mailbox.add(rings.tx(1, 2, &source.geometry, None)).unwrap_err();
    assert!(!source.mailbox.set_attachment(Attachment::Detached));
    assert!(!source.port.has_receivers());
    source.mailbox.add(conn).unwrap();
    assert!(source.port.has_receivers());
    drop(sink);
}

#[test]
fn more_receivers_than_places_are_reported_and_the_mailbox_stays_bounded() {
    let source = TestSource::new(&[], false);
    let sinks: Vec<_> = (0..66).map(|_| Rings::new(2, &source.geometry)).collect();
    for (rings, id) in sinks.iter().zip(0..) {
        source.mailbox.add(rings.tx(id, 2, &source.geometry, None)).unwrap();
    }
    assert!(source.port.has_receivers());
    assert_eq!(source.mailbox.collect(), [ConnId(65)]);
    // Without an agent that collects, what was let go fills the mailbox, and then it is full.
    let mut posted = 0;
    for id in 1000.. {
        let rings = Rings::new(2, &source.geometry);
        let is_in = source.mailbox.add(rings.tx(id, 2, &source.geometry, None)).is_ok();
        if !is_in || !source.mailbox.remove(ConnId(id)) {
            break;
        }
        assert!(source.port.has_receivers());
        posted += 1;
    }
    assert!((250..=256).contains(&posted), "{posted}");
    source.mailbox.collect();
    assert!(source.mailbox.remove(ConnId(0)));
}

#[test]
#[should_panic(expected = "one writer already")]
fn a_region_has_one_writer() {
    let source = TestSource::new(&[], false);
    let rings = Rings::new(2, &source.geometry);
    let _first = rings.tx(1, 2, &source.geometry, None);
    let _second = rings.tx(2, 2, &source.geometry, None);
}

#[test]
fn a_region_that_is_too_short_is_refused() {
    let fd = insane_sys::memfd::create("short", 4096).unwrap();
    assert!(insane_shm::region::Region::map_writable(std::os::fd::AsFd::as_fd(&fd), 8192).is_err());
    assert!(insane_shm::region::Region::map_read_only(std::os::fd::AsFd::as_fd(&fd), 0).is_err());
}

#[test]
fn a_sink_without_wake_says_so() {
    let (port, _mailbox) = SinkPort::new(None, insane_shm::counters::CounterBlock::private()).unwrap();
    assert_eq!(port.arm(), Err(ConsumeError::NoWake));
    assert_eq!(port.sleep(std::time::Duration::ZERO), Err(ConsumeError::NoWake));
}

#[test]
fn a_closed_connection_shows_it() {
    let source = TestSource::new(&[(128, 2)], false);
    let rings = Rings::new(2, &source.geometry);
    let rx = rings.rx(1, 2, &source.geometry, source.heap.as_ref());
    source.mailbox.add(rings.tx(1, 2, &source.geometry, None)).unwrap();
    assert!(source.port.has_receivers() && !rx.is_closed());
    drop(source);
    assert!(rx.is_closed());
}

#[test]
fn ports_move_between_threads() {
    let (source, sink) = (TestSource::new(&[(128, 2)], false), TestSink::new());
    join(&source, &sink, 1, 4);
    let source = std::thread::spawn(move || {
        assert!(send(&source.port, 100));
        source
    })
    .join()
    .unwrap();
    assert_eq!(consume(&sink), Some(0));
    assert_eq!(source.port.buffers_in_use(), 0);
}

#[test]
fn what_was_emitted_earlier_goes_to_new_direct_sinks_alone_and_once() {
    let source = TestSource::new(&[(4096, 8)], false);
    let [early, late, far] = [TestSink::new(), TestSink::new(), TestSink::new()];
    let _rings = join_direct(&source, &early, 1, 8);
    assert_eq!(source.port.replay(&[]), 1, "it joined before there was anything");
    let values: Vec<Vec<u8>> = [10, INLINE_BYTES_MAX, 4_000].map(|len| vec![len as u8; len]).into();
    let kept = |sequence: usize| Earlier { sequence: sequence as u64, source_ns: 77, bytes: &values[sequence] };
    let kept = [kept(0), kept(1), kept(2)];
    let _late_rings = join_direct(&source, &late, 2, 8);
    // A datapath, say.
    let _far_rings = join(&source, &far, 3, 8);
    assert_eq!((source.port.replay(&kept), source.port.replay(&kept)), (1, 0));
    for (sequence, value) in values.iter().enumerate() {
        let message = late.port.consume().unwrap().unwrap();
        assert_eq!((message.sequence(), message.source_ns(), message.lost()), (sequence as u64, 77, 0));
        assert!(message.is_direct() && message.shared().to_vec() == *value);
    }
    assert_eq!([consume(&late), consume(&early), consume(&far)], [None; 3]);
    assert_eq!(source.port.buffers_in_use(), 0, "the buffer came back");
    assert_eq!((source.count(PortCounter::Messages), source.port.next_sequence()), (0, 0), "it is no emit");
}

#[test]
fn a_datapath_gets_the_past_when_it_asks_and_its_ring_has_room() {
    let source = TestSource::new(&[(4096, 2)], false);
    let rings = Rings::new(8, &source.geometry);
    source.mailbox.add(rings.tx(1, 8, &source.geometry, None)).unwrap();
    let mut conn = rings.rx(1, 8, &source.geometry, source.heap.as_ref());
    let large = vec![7; 4_000];
    let kept: Vec<Earlier<'_>> = (0..6).map(|sequence| Earlier { sequence, source_ns: 77, bytes: b"x" }).collect();
    let mut popped = Popped::EMPTY;
    let mut pop = |conn: &mut RxConn| {
        let is_there = conn.pop(&mut popped).unwrap();
        if let (true, Payload::Heap(id)) = (is_there, popped.payload) {
            conn.give_back(id);
        }
        is_there.then_some(popped.meta)
    };
    assert_eq!(source.port.replay(&kept), 0, "nobody asked");
    for _ in 0..4 {
        assert!(send(&source.port, 1));
    }
    let asks = conn.ask_for_past();
    assert_eq!(source.port.replay(&kept), 0, "six and an end do not fit four places");
    for sequence in 0..4 {
        assert_eq!(pop(&mut conn).map(|meta| meta.sequence), Some(sequence));
    }
    assert_eq!(pop(&mut conn), None);
    assert_eq!((source.port.replay(&kept), source.port.replay(&kept)), (1, 0), "once");
    for sequence in 0..6 {
        let meta = pop(&mut conn).unwrap();
        assert_eq!((meta.sequence, meta.source_ns, meta.lost), (sequence, 77, 0));
        assert!(!end_of_past(&meta, asks));
    }
    let end = pop(&mut conn).unwrap();
    assert!(end_of_past(&end, asks) && !end_of_past(&end, asks + 1));
    assert_eq!(pop(&mut conn), None);

    // Of large ones as many as buffers are free: the newest.
    let kept: Vec<Earlier<'_>> = (0..6).map(|sequence| Earlier { sequence, source_ns: 77, bytes: &large }).collect();
    let asks = conn.ask_for_past();
    assert_eq!(source.port.replay(&kept), 1);
    assert_eq!([pop(&mut conn), pop(&mut conn)].map(|meta| meta.unwrap().sequence), [4, 5]);
    assert!(end_of_past(&pop(&mut conn).unwrap(), asks));
    assert_eq!((pop(&mut conn), source.port.buffers_in_use()), (None, 0));

    // A sink of this host has no say in it.
    let sink = TestSink::new();
    let _rings = join_direct(&source, &sink, 2, 8);
    assert_eq!(source.port.replay(&kept[..1]), 1, "it joined");
    assert_eq!(source.port.replay(&kept[..1]), 0);
    assert_eq!(source.port.next_sequence(), 4, "it is no emit");
}

#[test]
fn a_short_ring_gets_the_newest_and_one_that_got_a_message_gets_no_history() {
    let source = TestSource::new(&[], false);
    let kept: Vec<Earlier<'_>> = (0..5).map(|sequence| Earlier { sequence, source_ns: 0, bytes: b"x" }).collect();
    let short = TestSink::new();
    let _rings = join_direct(&source, &short, 1, 2);
    assert_eq!(source.port.replay(&kept), 1);
    assert_eq!([consume(&short), consume(&short), consume(&short)], [Some(3), Some(4), None]);
    let overtaken = TestSink::new();
    let _rings = join_direct(&source, &overtaken, 2, 8);
    assert!(source.port.emit_copy(b"new", 0).unwrap().is_sent());
    assert_eq!(source.port.replay(&kept), 0, "messages come in order");
    assert_eq!([consume(&overtaken), consume(&overtaken)], [Some(0), None]);
}

#[test]
fn without_a_free_buffer_the_history_begins_behind_what_needs_one() {
    let source = TestSource::new(&[(4096, 2)], false);
    let sink = TestSink::new();
    let rings = join_direct(&source, &sink, 1, 8);
    let held = source.port.get_buffer(4_000).unwrap();
    let large = [1; 4_000];
    let earlier = |sequence, bytes| Earlier { sequence, source_ns: 0, bytes };
    let kept = [earlier(0, b"small"), earlier(1, &large), earlier(2, &large), earlier(3, b"small")];
    assert_eq!(source.port.replay(&kept), 1);
    assert_eq!([consume(&sink), consume(&sink), consume(&sink)], [Some(2), Some(3), None], "the newest, in order");
    drop(held);
    assert_eq!(source.port.buffers_in_use(), 0);
    drop(rings);
}

/// Who joins beside others may hold a part of the buffers only.
#[test]
fn a_share_of_the_buffers_goes_to_the_newest_of_the_history() {
    let source = TestSource::new(&[(4096, 8)], false);
    let sinks = [TestSink::new(), TestSink::new()];
    let rings = [1, 2].map(|id| join_direct(&source, &sinks[id as usize - 1], id, 8));
    let large = [1; 4_000];
    let kept: Vec<Earlier<'_>> = (0..6).map(|sequence| Earlier { sequence, source_ns: 0, bytes: &large }).collect();
    assert_eq!(source.port.replay(&kept), 2);
    for sink in &sinks {
        let came: Vec<_> = std::iter::from_fn(|| consume(sink)).collect();
        assert_eq!(came, [3, 4, 5], "three of eight for each of two");
    }
    assert_eq!(source.port.buffers_in_use(), 0);
    drop(rings);
}

#[test]
fn a_client_that_keeps_more_than_a_receiver_gets_loses_no_buffer() {
    let source = TestSource::new(&[(4096, 24)], false);
    let sink = TestSink::new();
    let rings = join_direct(&source, &sink, 1, 32);
    let large = [1; 4_000];
    let kept: Vec<Earlier<'_>> = (0..20).map(|sequence| Earlier { sequence, source_ns: 0, bytes: &large }).collect();
    assert_eq!(source.port.replay(&kept), 1);
    let came: Vec<_> = std::iter::from_fn(|| consume(&sink)).collect();
    assert!(came.into_iter().eq(4..20), "sixteen");
    assert_eq!(source.port.buffers_in_use(), 0);
    drop(rings);
}

/// A datapath's ring is full once; then it asks for the past in the name of a peer that joined.
#[test]
fn a_loss_is_told_with_a_message_of_now_whatever_the_past_holds() {
    for len in [1, 4_000] {
        let source = TestSource::new(&[(4096, 8)], false);
        let rings = Rings::new(2, &source.geometry);
        source.mailbox.add(rings.tx(1, 2, &source.geometry, None)).unwrap();
        let mut conn = rings.rx(1, 2, &source.geometry, source.heap.as_ref());
        (0..3).for_each(|_| assert!(send(&source.port, 1)));
        let mut popped = Popped::EMPTY;
        let mut pop = |conn: &mut RxConn| {
            conn.pop(&mut popped).unwrap().then(|| {
                if let Payload::Heap(id) = popped.payload {
                    conn.give_back(id);
                }
                (popped.meta.sequence, popped.meta.lost)
            })
        };
        assert_eq!([pop(&mut conn), pop(&mut conn), pop(&mut conn)], [Some((0, 0)), Some((1, 0)), None]);
        conn.ask_for_past();
        let value = vec![7; len];
        assert_eq!(source.port.replay(&[Earlier { sequence: 2, source_ns: 77, bytes: &value }]), 1);
        assert_eq!(pop(&mut conn), Some((2, 0)), "{len} bytes of the past tell nobody else's losses");
        assert_eq!(pop(&mut conn), Some((u64::MAX, 0)));
        assert!(send(&source.port, 1));
        assert_eq!(pop(&mut conn), Some((3, 1)), "{len}: all who missed one are told");
    }
}
