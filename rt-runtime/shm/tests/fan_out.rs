//! One source, several sinks that come and go: every message is delivered once, in order
//! and whole, or counted as lost just where it is missing; what waits in a ring that ends may be given
//! up, and is counted.

mod common;

use common::{TestSink, TestSource, assert_pattern, fill, join};
use insane_core::ConnId;
use insane_core::counters::PortCounter;
use insane_shm::port::{GetBufferError, Loan, Outcome, Received, Refusal};
use proptest::prelude::*;
use std::collections::VecDeque;

const SINKS: usize = 3;
const CLASSES: &[(u32, u32)] = &[(200, 6), (1000, 3)];

#[derive(Clone, Debug)]
enum Step {
    Join { sink: usize, depth_log: u32 },
    Retire { sink: usize },
    Emit { len: usize },
    Loan { len: usize },
    DropLoan,
    EmitLoan { len: usize },
    Consume { sink: usize, keep: bool },
    Release { sink: usize, newest: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let sink = 0..SINKS;
    let len = prop_oneof![4 => 0..97_usize, 2 => 97..201_usize, 1 => 201..1001_usize];
    prop_oneof![
        1 => (sink.clone(), 1..5_u32).prop_map(|(sink, depth_log)| Step::Join { sink, depth_log }),
        1 => sink.clone().prop_map(|sink| Step::Retire { sink }),
        10 => len.clone().prop_map(|len| Step::Emit { len }),
        1 => len.clone().prop_map(|len| Step::Loan { len }),
        1 => Just(Step::DropLoan),
        1 => len.prop_map(|len| Step::EmitLoan { len }),
        10 => (sink.clone(), any::<bool>()).prop_map(|(sink, keep)| Step::Consume { sink, keep }),
        3 => (sink, any::<bool>()).prop_map(|(sink, newest)| Step::Release { sink, newest }),
    ]
}

/// What is known of one connection. Its messages are those from `joined_at` to
/// `retired_at`, so a sequence number tells which connection of a sink it came by.
struct Life {
    id: u32,
    joined_at: u64,
    retired_at: Option<u64>,
    /// Sequence number after the last one that arrived.
    next: u64,
    delivered: u64,
    lost: u64,
}

struct World<'w> {
    source: &'w TestSource,
    sinks: &'w [TestSink],
    lives: [Vec<Life>; SINKS],
    held: [VecDeque<Received<'w>>; SINKS],
    loans: Vec<Loan<'w>>,
    /// Length of every message.
    emitted: Vec<usize>,
    receivers: u64,
    dropped: u64,
    conns: u32,
    reliable: bool,
}

impl<'w> World<'w> {
    fn live(&mut self, sink: usize) -> Option<&mut Life> {
        self.lives[sink].last_mut().filter(|life| life.retired_at.is_none())
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Join { sink, depth_log } => {
                if self.live(sink).is_none() {
                    self.conns += 1;
                    let joined_at = self.emitted.len() as u64;
                    join(self.source, &self.sinks[sink], self.conns, 1 << depth_log);
                    let life =
                        Life { id: self.conns, joined_at, retired_at: None, next: joined_at, delivered: 0, lost: 0 };
                    self.lives[sink].push(life);
                }
            }
            Step::Retire { sink } => {
                let now = self.emitted.len() as u64;
                if let Some(life) = self.live(sink) {
                    life.retired_at = Some(now);
                    let id = ConnId(life.id);
                    assert!(self.source.mailbox.remove(id) && self.sinks[sink].mailbox.remove(id));
                }
            }
            Step::Emit { len } => {
                let port = &self.source.port;
                match port.get_buffer(len) {
                    Ok(mut loan) => {
                        fill(&mut loan, port.next_sequence());
                        self.emit(loan);
                    }
                    Err(error) => assert_eq!(error, GetBufferError::Exhausted),
                }
            }
            Step::Loan { len } => {
                if self.loans.len() < 4 {
                    self.loans.extend(self.source.port.get_buffer(len));
                }
            }
            Step::DropLoan => drop(self.loans.pop()),
            Step::EmitLoan { len } => {
                if let Some(mut loan) = self.loans.pop() {
                    loan.truncate(len);
                    fill(&mut loan, self.source.port.next_sequence());
                    self.emit(loan);
                }
            }
            Step::Consume { sink, keep } => {
                self.consume(sink, keep);
            }
            Step::Release { sink, newest } => {
                drop(if newest { self.held[sink].pop_back() } else { self.held[sink].pop_front() });
            }
        }
    }

    fn emit(&mut self, loan: Loan<'w>) {
        let len = loan.len();
        let token = match self.source.port.emit(loan, 7) {
            insane_shm::port::Emit::Sent(token) => token,
            insane_shm::port::Emit::Refused(loan, refusal) => {
                assert!(self.reliable && refusal == Refusal::NoRoom);
                assert_eq!(loan.len(), len);
                return;
            }
        };
        assert_eq!(token.sequence(), self.emitted.len() as u64);
        self.emitted.push(len);
        let Outcome::Published { receivers, dropped, .. } = self.source.port.outcome(token) else {
            panic!("the last emit is remembered")
        };
        let live = (0..SINKS).filter(|sink| self.live(*sink).is_some()).count();
        assert_eq!(usize::from(receivers + dropped), live);
        assert!(!self.reliable || dropped == 0);
        self.receivers += u64::from(receivers);
        self.dropped += u64::from(dropped);
    }

    fn consume(&mut self, sink: usize, keep: bool) -> bool {
        let Some(message) = self.sinks[sink].port.consume().unwrap() else { return false };
        let sequence = message.sequence();
        let life = self.lives[sink].iter_mut().rfind(|life| life.joined_at <= sequence).unwrap();
        assert!(sequence >= life.next, "message {sequence} came again or late");
        assert!(life.retired_at.is_none_or(|end| sequence < end));
        assert_eq!(sequence - life.next, u64::from(message.lost()), "just what is missing is counted as lost");
        life.next = sequence + 1;
        life.delivered += 1;
        life.lost += u64::from(message.lost());
        assert_eq!((message.len(), message.source_ns()), (self.emitted[sequence as usize], 7));
        // Also after retirement, though the source uses again what the sink has not read yet.
        assert_pattern(&message.shared().to_vec(), sequence);
        assert!(message.is_whole());
        if keep {
            self.held[sink].push_back(message);
        }
        true
    }

    /// Everything is read and released: then every message is accounted for.
    fn finish(mut self) {
        self.loans.clear();
        for sink in 0..SINKS {
            while self.consume(sink, false) {}
            self.held[sink].clear();
            // The second look buries what was retired.
            assert!(!self.consume(sink, false) && !self.consume(sink, false));
        }
        assert_eq!(self.source.port.buffers_in_use(), 0, "a buffer leaked");
        let lives = || self.lives.iter().flatten();
        let delivered: u64 = lives().map(|life| life.delivered).sum();
        // What waited in a ring that was retired when its buffers were taken back.
        let given_up = self.receivers - delivered;
        let told: u64 = lives().map(|life| life.lost).sum();
        assert_eq!(self.sinks.iter().map(|sink| sink.count(PortCounter::Lost)).sum::<u64>(), told + given_up);
        let end = self.emitted.len() as u64;
        // What was dropped after the last message that arrived is known to the source alone.
        let unseen: u64 = lives().map(|life| life.retired_at.unwrap_or(end) - life.next).sum();
        assert_eq!(told + unseen, self.dropped + given_up);
        assert_eq!(self.source.count(PortCounter::Dropped), self.dropped);
        assert_eq!(self.source.count(PortCounter::Messages), end);
        let received: u64 = self.sinks.iter().map(|sink| sink.count(PortCounter::Messages)).sum();
        assert_eq!(received, delivered);
        assert!(self.source.mailbox.collect().is_empty(), "nobody lied");
        for (sink, lives) in self.sinks.iter().zip(&self.lives) {
            assert!(sink.mailbox.collect().is_empty(), "nobody lied");
            let is_live = lives.last().is_some_and(|life| life.retired_at.is_none());
            assert_eq!(sink.port.has_senders(), is_live, "what was retired and drained is gone");
        }
    }
}

fn run(steps: &[Step], reliable: bool) {
    let source = TestSource::new(CLASSES, reliable);
    let sinks: Vec<TestSink> = (0..SINKS).map(|_| TestSink::new()).collect();
    let mut world = World {
        source: &source,
        sinks: &sinks,
        lives: [const { Vec::new() }; SINKS],
        held: [const { VecDeque::new() }; SINKS],
        loans: Vec::new(),
        emitted: Vec::new(),
        receivers: 0,
        dropped: 0,
        conns: 0,
        reliable,
    };
    for step in steps {
        world.take(step);
    }
    world.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn unreliable_messages_arrive_or_are_counted(steps in prop::collection::vec(step(), 1..400)) {
        run(&steps, false);
    }

    #[test]
    fn reliable_messages_arrive(steps in prop::collection::vec(step(), 1..400)) {
        run(&steps, true);
    }
}
