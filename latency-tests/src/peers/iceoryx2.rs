//! iceoryx2: publish and subscribe over shared memory, payload in place on both
//! sides. Every end has a node of its own, as two processes would.
//!
//! Messages of 64 bytes use a fixed type, others a slice of words; both are
//! written once, in the loaned memory, and read there.

use crate::harness::converse::End;
use crate::harness::fault::Fault;
use crate::harness::payload::read_words;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::{BackpressureStrategy, LogLevel, Node, NodeBuilder, ServiceName, ipc, set_log_level};
use insane_raw_baselines::wide;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

type Service = ipc::Service;
type Word = u64;
/// The message of 64 bytes.
type Fixed = [Word; 8];

/// A subscriber's queue holds about this much, as the raw ring does.
const QUEUE_BYTES: usize = 32 << 20;
const QUEUE_MAX: usize = 256;

/// A service that no other cell and no other process uses, and what its subscriber
/// has taken. A full queue would make the publisher sleep (the library's blocking
/// delivery) or lose the message, so the write end keeps count and never meets one.
#[derive(Clone)]
pub struct Topic {
    name: String,
    words: usize,
    queue: u64,
    taken: Arc<Taken>,
}

/// Alone in its line and the one beside it.
#[repr(align(128))]
#[derive(Default)]
struct Taken(AtomicU64);

impl Topic {
    /// A topic of messages of `size` bytes, a multiple of 8.
    #[must_use]
    pub fn new(size: usize) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        set_log_level(LogLevel::Error);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Topic {
            name: format!("latency-tests/{}/{count}", std::process::id()),
            words: size / size_of::<Word>(),
            queue: (QUEUE_BYTES / size).clamp(4, QUEUE_MAX) as u64,
            taken: Arc::default(),
        }
    }
}

/// How much the write end may still send; it looks at the shared count only when
/// its own copy says that the queue is full.
struct Credit {
    topic: Topic,
    sent: u64,
    taken_cached: u64,
}

impl Credit {
    fn new(topic: &Topic) -> Self {
        Credit { topic: topic.clone(), sent: 0, taken_cached: 0 }
    }

    #[inline(always)]
    fn take(&mut self) -> bool {
        if self.sent - self.taken_cached == self.topic.queue {
            self.taken_cached = self.topic.taken.0.load(Ordering::Acquire);
            if self.sent - self.taken_cached == self.topic.queue {
                return false;
            }
        }
        self.sent += 1;
        true
    }
}

/// What the read end has taken.
struct Progress {
    topic: Topic,
    taken: u64,
}

impl Progress {
    fn new(topic: &Topic) -> Self {
        Progress { topic: topic.clone(), taken: 0 }
    }

    #[inline(always)]
    fn one_more(&mut self) {
        self.taken += 1;
        self.topic.taken.0.store(self.taken, Ordering::Release);
    }
}

fn fault<E: Debug>(what: &'static str) -> impl FnOnce(E) -> Fault {
    move |error| Fault::Party(format!("iceoryx2, {what}: {error:?}"))
}

fn node() -> Result<Node<Service>, Fault> {
    NodeBuilder::new().create::<Service>().map_err(fault("node"))
}

/// Opens one topic on one node; a macro because the two payload types are told
/// apart by the library's traits alone.
macro_rules! open {
    ($topic:expr, $payload:ty) => {{
        let node = node()?;
        let name: ServiceName = $topic.name.as_str().try_into().map_err(fault("name"))?;
        let service = node
            .service_builder(&name)
            .publish_subscribe::<$payload>()
            .enable_safe_overflow(false)
            .history_size(0)
            .max_publishers(1)
            .max_subscribers(1)
            .subscriber_max_buffer_size($topic.queue as usize)
            .open_or_create()
            .map_err(fault("service"))?;
        (node, service)
    }};
}

/// Write end for messages of 64 bytes.
pub struct FixedPut {
    publisher: Publisher<Service, Fixed, ()>,
    credit: Credit,
    _node: Node<Service>,
}

impl FixedPut {
    /// Opens the write end of a topic.
    ///
    /// # Errors
    /// The library refused.
    pub fn open(topic: &Topic) -> Result<Self, Fault> {
        let (node, service) = open!(topic, Fixed);
        let builder = service.publisher_builder().backpressure_strategy(BackpressureStrategy::DiscardData);
        let publisher = builder.create().map_err(fault("publisher"))?;
        Ok(FixedPut { publisher, credit: Credit::new(topic), _node: node })
    }
}

impl End for FixedPut {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        if !self.credit.take() {
            return Ok(false);
        }
        let sample = self.publisher.loan_uninit().map_err(fault("loan"))?;
        let sample = sample.write_payload(std::array::from_fn(|at| number.wrapping_add(at as u64)));
        sample.send().map_err(fault("send"))?;
        Ok(true)
    }

    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        Ok(None)
    }
}

/// Read end for messages of 64 bytes.
pub struct FixedTake {
    subscriber: Subscriber<Service, Fixed, ()>,
    progress: Progress,
    _node: Node<Service>,
}

impl FixedTake {
    /// Opens the read end of a topic.
    ///
    /// # Errors
    /// The library refused.
    pub fn open(topic: &Topic) -> Result<Self, Fault> {
        let (node, service) = open!(topic, Fixed);
        let subscriber = service.subscriber_builder().create().map_err(fault("subscriber"))?;
        Ok(FixedTake { subscriber, progress: Progress::new(topic), _node: node })
    }
}

impl End for FixedTake {
    fn send(&mut self, _number: u64) -> Result<bool, Fault> {
        Ok(false)
    }

    #[inline(always)]
    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        match self.subscriber.receive().map_err(fault("receive"))? {
            Some(sample) => {
                let number = read_words(sample.payload())?;
                drop(sample);
                self.progress.one_more();
                Ok(Some(number))
            }
            None => Ok(None),
        }
    }
}

/// Write end for messages of any size.
pub struct SlicePut {
    publisher: Publisher<Service, [Word], ()>,
    credit: Credit,
    _node: Node<Service>,
}

impl SlicePut {
    /// Opens the write end of a topic.
    ///
    /// # Errors
    /// The library refused.
    pub fn open(topic: &Topic) -> Result<Self, Fault> {
        let (node, service) = open!(topic, [Word]);
        let builder = service.publisher_builder().backpressure_strategy(BackpressureStrategy::DiscardData);
        let publisher = builder.initial_max_slice_len(topic.words).create().map_err(fault("publisher"))?;
        Ok(SlicePut { publisher, credit: Credit::new(topic), _node: node })
    }
}

impl End for SlicePut {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        if !self.credit.take() {
            return Ok(false);
        }
        let sample = self.publisher.loan_slice_uninit(self.credit.topic.words).map_err(fault("loan"))?;
        let bytes = sample.payload().len() * size_of::<u64>();
        let sample = wide(bytes, || sample.write_from_fn(|at| number.wrapping_add(at as u64)));
        sample.send().map_err(fault("send"))?;
        Ok(true)
    }

    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        Ok(None)
    }
}

/// Read end for messages of any size.
pub struct SliceTake {
    subscriber: Subscriber<Service, [Word], ()>,
    progress: Progress,
    _node: Node<Service>,
}

impl SliceTake {
    /// Opens the read end of a topic.
    ///
    /// # Errors
    /// The library refused.
    pub fn open(topic: &Topic) -> Result<Self, Fault> {
        let (node, service) = open!(topic, [Word]);
        let subscriber = service.subscriber_builder().create().map_err(fault("subscriber"))?;
        Ok(SliceTake { subscriber, progress: Progress::new(topic), _node: node })
    }
}

impl End for SliceTake {
    fn send(&mut self, _number: u64) -> Result<bool, Fault> {
        Ok(false)
    }

    #[inline(always)]
    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        match self.subscriber.receive().map_err(fault("receive"))? {
            Some(sample) => {
                let words = sample.payload();
                if words.len() != self.progress.topic.words {
                    return Err(Fault::Corrupt {
                        expected: self.progress.topic.words as u64,
                        found: words.len() as u64,
                    });
                }
                let number = read_words(words)?;
                drop(sample);
                self.progress.one_more();
                Ok(Some(number))
            }
            None => Ok(None),
        }
    }
}
