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
use iceoryx2::port::{BackpressureAction, BackpressureInfo};
use iceoryx2::prelude::{LogLevel, Node, NodeBuilder, ServiceName, ipc, set_log_level};
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

type Service = ipc::Service;
type Word = u64;
/// The message of 64 bytes.
type Fixed = [Word; 8];

/// A subscriber's queue holds about this much, as the raw ring does.
const QUEUE_BYTES: usize = 32 << 20;
const QUEUE_MAX: usize = 256;

/// A service that no other cell and no other process uses, and the flag that says
/// that its subscriber has gone.
#[derive(Clone)]
pub struct Topic {
    name: String,
    words: usize,
    queue: usize,
    gone: Arc<AtomicBool>,
}

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
            queue: (QUEUE_BYTES / size).clamp(4, QUEUE_MAX),
            gone: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Retries a full queue until the subscriber has gone: the library's own
    /// blocking delivery, made to end.
    fn retry(&self) -> impl Fn(&BackpressureInfo) -> BackpressureAction + Send + 'static {
        let gone = Arc::clone(&self.gone);
        // Relaxed: the flag carries no data.
        move |_| if gone.load(Ordering::Relaxed) { BackpressureAction::DiscardData } else { BackpressureAction::Retry }
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
            .subscriber_max_buffer_size($topic.queue)
            .open_or_create()
            .map_err(fault("service"))?;
        (node, service)
    }};
}

/// Write end for messages of 64 bytes.
pub struct FixedPut {
    publisher: Publisher<Service, Fixed, ()>,
    _node: Node<Service>,
}

impl FixedPut {
    /// Opens the write end of a topic.
    ///
    /// # Errors
    /// The library refused.
    pub fn open(topic: &Topic) -> Result<Self, Fault> {
        let (node, service) = open!(topic, Fixed);
        let builder = service.publisher_builder().set_backpressure_handler(topic.retry());
        Ok(FixedPut { publisher: builder.create().map_err(fault("publisher"))?, _node: node })
    }
}

impl End for FixedPut {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
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
    topic: Topic,
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
        Ok(FixedTake { subscriber, topic: topic.clone(), _node: node })
    }
}

impl End for FixedTake {
    fn send(&mut self, _number: u64) -> Result<bool, Fault> {
        Ok(false)
    }

    #[inline(always)]
    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        match self.subscriber.receive().map_err(fault("receive"))? {
            Some(sample) => read_words(sample.payload()).map(Some),
            None => Ok(None),
        }
    }
}

impl Drop for FixedTake {
    fn drop(&mut self) {
        self.topic.gone.store(true, Ordering::Relaxed);
    }
}

/// Write end for messages of any size.
pub struct SlicePut {
    publisher: Publisher<Service, [Word], ()>,
    words: usize,
    _node: Node<Service>,
}

impl SlicePut {
    /// Opens the write end of a topic.
    ///
    /// # Errors
    /// The library refused.
    pub fn open(topic: &Topic) -> Result<Self, Fault> {
        let (node, service) = open!(topic, [Word]);
        let builder =
            service.publisher_builder().initial_max_slice_len(topic.words).set_backpressure_handler(topic.retry());
        Ok(SlicePut { publisher: builder.create().map_err(fault("publisher"))?, words: topic.words, _node: node })
    }
}

impl End for SlicePut {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        let sample = self.publisher.loan_slice_uninit(self.words).map_err(fault("loan"))?;
        let sample = sample.write_from_fn(|at| number.wrapping_add(at as u64));
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
    topic: Topic,
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
        Ok(SliceTake { subscriber, topic: topic.clone(), _node: node })
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
                if words.len() == self.topic.words {
                    return read_words(words).map(Some);
                }
                Err(Fault::Corrupt { expected: self.topic.words as u64, found: words.len() as u64 })
            }
            None => Ok(None),
        }
    }
}

impl Drop for SliceTake {
    fn drop(&mut self) {
        self.topic.gone.store(true, Ordering::Relaxed);
    }
}
