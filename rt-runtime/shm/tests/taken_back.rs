//! A receiver that was put out and lives: its buffers are taken back and written anew while it
//! stands still. When it goes on it reads nothing of others. All in one thread, so that who stands
//! still does so.

mod common;

use common::{TestSink, TestSource, join};
use insane_core::ConnId;
use insane_core::counters::PortCounter;
use insane_shm::port::Emit;

const LEN: usize = 500;
const DEPTH: u32 = 8;

/// Emits a message of which all bytes are its number: in a buffer, or in line.
fn emit(source: &TestSource, len: usize) {
    let number = source.port.next_sequence();
    let mut loan = source.port.get_buffer(len).unwrap();
    loan.fill(number as u8);
    assert!(matches!(source.port.emit(loan, 0), Emit::Sent(_)));
}

/// The number of the next message, all of whose bytes have to be of it.
fn consume(sink: &TestSink) -> Option<u64> {
    let message = sink.port.consume().unwrap()?;
    assert!(message.shared().to_vec().iter().all(|byte| u64::from(*byte) == message.sequence()), "{message:?}");
    assert!(message.is_whole());
    Some(message.sequence())
}

/// Writes all buffers of the source anew, some of them several times.
fn use_all_anew(source: &TestSource) {
    let goes_on = TestSink::new();
    join(source, &goes_on, 9, DEPTH);
    for _ in 0..20 {
        emit(source, LEN);
        assert!(consume(&goes_on).is_some());
    }
    assert!(source.mailbox.remove(ConnId(9)));
}

fn joined() -> (TestSource, TestSink) {
    let (source, sink) = (TestSource::new(&[(LEN as u32, 8)], false), TestSink::new());
    join(&source, &sink, 1, DEPTH);
    (source, sink)
}

/// With another sender beside, which the sink takes in turn with the first, and without.
#[test]
fn who_stood_still_while_its_buffers_were_taken_back_reads_nothing_of_others() {
    for has_other in [false, true] {
        let (source, sink) = joined();
        let (other, quiet) = (TestSource::new(&[], false), has_other);
        if quiet {
            join(&other, &sink, 2, DEPTH);
        }
        // Two are read, four wait in buffers, and one between them in line.
        (0..4).for_each(|_| emit(&source, LEN));
        assert_eq!([consume(&sink), consume(&sink)], [Some(0), Some(1)]);
        emit(&source, 50);
        (5..7).for_each(|_| emit(&source, LEN));
        assert!(source.mailbox.remove(ConnId(1)));
        use_all_anew(&source);
        assert_eq!(consume(&sink), None, "the rest of its ring is given up");
        assert!(!sink.port.is_ready().unwrap());
        assert_eq!(sink.count(PortCounter::Lost), 5);
        assert_eq!(consume(&sink), None);
        assert_eq!((sink.count(PortCounter::Lost), sink.count(PortCounter::Violations)), (5, 0));
        // The end of the connection comes to it as to any.
        assert!(sink.mailbox.remove(ConnId(1)));
        assert_eq!((consume(&sink), sink.port.has_senders()), (None, has_other));
    }
}

#[test]
fn what_needs_no_buffer_is_read_though_buffers_were_taken_back() {
    let (source, sink) = joined();
    emit(&source, 50);
    emit(&source, 50);
    emit(&source, LEN);
    assert!(source.mailbox.remove(ConnId(1)));
    use_all_anew(&source);
    assert_eq!([consume(&sink), consume(&sink), consume(&sink)], [Some(0), Some(1), None]);
    assert_eq!(sink.count(PortCounter::Lost), 1);
}

#[test]
fn a_message_that_was_held_meanwhile_says_that_it_is_not_whole() {
    let (source, sink) = joined();
    emit(&source, LEN);
    emit(&source, 50);
    let (held, small) = (sink.port.consume().unwrap().unwrap(), sink.port.consume().unwrap().unwrap());
    assert!(held.is_whole() && small.is_whole());
    assert!(source.mailbox.remove(ConnId(1)));
    use_all_anew(&source);
    assert!(!held.is_whole() && small.is_whole());
    // Given back late, it is nobody's any more.
    drop(held);
    use_all_anew(&source);
    assert_eq!(source.port.buffers_in_use(), 0);
}

/// As a datapath reads.
#[test]
fn a_receiver_that_pops_gets_nothing_of_others_either() {
    let source = TestSource::new(&[(LEN as u32, 8)], false);
    let rings = common::Rings::new(DEPTH, &source.geometry);
    let mut rx = rings.rx(1, DEPTH, &source.geometry, source.heap.as_ref());
    source.mailbox.add(rings.tx(1, DEPTH, &source.geometry, None)).unwrap();
    (0..3).for_each(|_| emit(&source, LEN));
    let mut popped = insane_shm::ring::Popped::EMPTY;
    assert_eq!(rx.pop(&mut popped), Ok(true));
    assert!(!rx.is_taken_back());
    assert!(source.mailbox.remove(ConnId(1)));
    use_all_anew(&source);
    assert!(rx.is_taken_back() && rx.is_closed());
    assert_eq!(rx.pop(&mut popped), Ok(false));
    assert_eq!((rx.is_ready(), rx.held(), rx.taken()), (false, 1, 3));
}
