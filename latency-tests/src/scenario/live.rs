//! Streams that go on at a fixed rate from host a to host b, while a director changes what is
//! beneath them.
//!
//! Both runtimes are turned by their applications, a thread and a core each: the one emits what
//! is due at every source, the other takes what came and notes when. The director sleeps
//! between what it does, beside the sender, where the control planes find room, too.

use super::ours::embed;
use crate::harness::Bench;
use crate::harness::fault::Fault;
use crate::harness::netns::Hosts;
use crate::harness::stage::{Party, Stage, perform};
use crate::ours::fault;
use insane_core::{MonoTime, Nanos};
use insane_rt::{ChannelId, Hosting, Plan, Qos, Session, Sink, SinkOptions, Source, SourceOptions};
use insane_sys::clock::mono_now;
use insane_wire::status::StatusReport;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Payload, bytes.
const MESSAGE_BYTES: usize = 64;
/// Messages that are made up for after a pause of the sender's thread; the rest of the pause is
/// left out, so that no queue is flooded.
const MADE_UP: u64 = 64;
/// Places of a sink: more than come while its thread is not run.
const SINK_DEPTH: u32 = 4_096;
/// How long the director waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// No more messages are under way when none came for so long.
const SILENCE: Duration = Duration::from_millis(300);
/// Streams of one run.
pub const STREAMS_MAX: usize = 16;

/// How much goes.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// From one message of a stream to the next. Streams are a sixteenth of it apart.
    pub period: Nanos,
    /// Most messages that may come of all streams.
    pub capacity: usize,
}

impl Load {
    /// Room for so many streams that go on for so long, and for a minute before and after.
    #[must_use]
    pub fn of(period: Nanos, streams: usize, length: Duration) -> Self {
        let each = (length + Duration::from_secs(60)).as_nanos() as u64 / period.0;
        Load { period, capacity: streams * each as usize }
    }
}

/// A message that came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// Place of its stream, in the order in which they were opened.
    pub stream: usize,
    /// Its number in the stream, from 0.
    pub number: u64,
    /// When it was emitted, nanoseconds of the monotonic clock.
    pub emitted_ns: u64,
    /// When it was taken.
    pub at_ns: u64,
}

impl Arrival {
    fn bytes(&self) -> [u8; MESSAGE_BYTES] {
        let mut bytes = [self.number as u8; MESSAGE_BYTES];
        for (at, word) in [self.number, self.stream as u64, self.emitted_ns].into_iter().enumerate() {
            bytes[8 * at..][..8].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// `None`: the message is damaged.
    fn read(bytes: &[u8; MESSAGE_BYTES], at_ns: u64) -> Option<Self> {
        let word = |at: usize| u64::from_le_bytes(bytes[8 * at..][..8].try_into().unwrap_or_default());
        let arrival = Arrival { stream: word(1) as usize, number: word(0), emitted_ns: word(2), at_ns };
        (arrival.bytes() == *bytes).then_some(arrival)
    }
}

/// What the threads share.
#[derive(Default)]
struct Shared {
    /// The sources are to be silent.
    is_quiet: AtomicBool,
    /// Messages that every stream has emitted.
    emitted: [AtomicU64; STREAMS_MAX],
    /// Turns that the sender's runtime has had.
    turns: AtomicU64,
    /// Messages that came.
    came: AtomicU64,
}

/// Changes what is beneath the streams.
pub struct Director<'s> {
    shared: &'s Shared,
    sessions: [Session; 2],
    sources: Sender<Source>,
    sinks: Sender<Sink>,
    opened: usize,
}

impl Director<'_> {
    /// The session of host a, for what is asked of its runtime.
    #[must_use]
    pub fn sender(&self) -> &Session {
        &self.sessions[0]
    }

    /// Opens one more stream, which begins at once; its place.
    ///
    /// # Errors
    /// A runtime refused, or the ends did not find each other.
    pub fn open(&mut self, name: &str, qos: Qos) -> Result<usize, Fault> {
        let channel = ChannelId(1);
        let sink = self.sessions[1].stream(name, qos).map_err(fault("open a stream"))?;
        let sink = sink.sink(channel, SinkOptions::default().depth(SINK_DEPTH)).map_err(fault("open a sink"))?;
        let source = self.sessions[0].stream(name, qos).map_err(fault("open a stream"))?;
        let source = source.source(channel, SourceOptions::small()).map_err(fault("open a source"))?;
        source.wait_for_receivers(PATIENCE).map_err(fault("wait for a receiver"))?;
        self.wait_for("a link of the stream", |sender| link_of(sender, name).is_some())?;
        self.sinks.send(sink).map_err(fault("hand over a sink"))?;
        self.sources.send(source).map_err(fault("hand over a source"))?;
        self.opened += 1;
        Ok(self.opened - 1)
    }

    /// Messages that a stream has emitted.
    #[must_use]
    pub fn emitted(&self, stream: usize) -> u64 {
        // Relaxed: the count carries no data but itself.
        self.shared.emitted[stream].load(Ordering::Relaxed)
    }

    /// Messages that a stream has emitted, once the datapath of host a has surely done what its
    /// control plane told it until now: status shows what was told, a turn takes it, and the one
    /// under way may have begun before. It has a message away, too, before that is counted.
    ///
    /// # Errors
    /// The sender's thread is not run in time.
    pub fn emitted_by_now(&self, stream: usize) -> Result<u64, Fault> {
        // Acquire: what was emitted in those turns is seen to be.
        let turns = || self.shared.turns.load(Ordering::Acquire);
        let before = turns();
        self.wait_for("two turns of the sender", |_| turns() >= before + 2)?;
        Ok(self.emitted(stream))
    }

    /// What the runtime of host a tells of itself.
    ///
    /// # Errors
    /// It is gone.
    pub fn status(&self) -> Result<StatusReport, Fault> {
        let status = self.sender().runtime().and_then(insane_control::Runtime::status);
        status.ok_or_else(|| Fault::Party("the runtime tells nothing".into()))
    }

    /// What both runtimes count that they lost, kept or dropped, in words.
    #[must_use]
    pub fn losses(&self) -> String {
        let is_told = |name: &str| {
            ["drop", "fail", "lost", "held", "holds", "full", "miss"].iter().any(|word| name.contains(word))
        };
        let mut told = Vec::new();
        for (host, session) in ["a", "b"].into_iter().zip(&self.sessions) {
            let Some(status) = session.runtime().and_then(insane_control::Runtime::status) else { continue };
            let domains = status.domains.iter().map(|domain| (&domain.name, &domain.counters));
            let links = status.datapaths.iter().flat_map(|datapath| &datapath.links);
            let all = domains.chain(links.map(|link| (&link.name, &link.counters)));
            for (of, counters) in all {
                let some = counters.iter().filter(|(name, count)| **count > 0 && is_told(name));
                told.extend(some.map(|(name, count)| format!("{host} {of} {name} {count}")));
            }
        }
        told.join(", ")
    }

    /// Waits until the runtime of host a is as wanted.
    ///
    /// # Errors
    /// It is not so in time.
    pub fn wait_for(&self, what: &'static str, is_so: impl Fn(&StatusReport) -> bool) -> Result<(), Fault> {
        let give_up = Instant::now() + PATIENCE;
        while !is_so(&self.status()?) {
            if Instant::now() > give_up {
                return Err(Fault::Timeout(what));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Waits until heartbeats pass by so many links to the peer.
    ///
    /// # Errors
    /// They do not in time.
    pub fn wait_for_links(&self, count: usize) -> Result<(), Fault> {
        self.wait_for("all links to the peer", |status| {
            status.peers.first().is_some_and(|peer| peer.ways.iter().filter(|way| way.up).count() == count)
        })
    }

    /// Ends the sources and waits until what is under way has come.
    pub fn settle(&self) {
        self.shared.is_quiet.store(true, Ordering::Relaxed);
        loop {
            let before = self.shared.came.load(Ordering::Relaxed);
            std::thread::sleep(SILENCE);
            if self.shared.came.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }
}

/// By which link host a sends a stream.
#[must_use]
pub fn link_of(status: &StatusReport, name: &str) -> Option<String> {
    let stream = status.streams.iter().find(|stream| stream.name == name)?;
    stream.links.values().next().cloned()
}

/// Runs streams between two runtimes as long as `direct` takes: what it returned, and what came.
///
/// # Errors
/// A runtime did not start, a message was damaged, more came than there is room for, or as
/// `direct`.
pub fn live<T: Send>(
    bench: &Bench,
    hosts: &Hosts,
    plans: [Plan; 2],
    load: Load,
    direct: impl FnOnce(&mut Director<'_>) -> Result<T, Fault> + Send,
) -> Result<(T, Vec<Arrival>), Fault> {
    let [first, second] = plans;
    let sessions =
        [hosts.on(0, move || embed(first, Hosting::Inline))?, hosts.on(1, move || embed(second, Hosting::Inline))?];
    let (shared, taken) = (Shared::default(), Mutex::new(Vec::new()));
    let (shared, taken) = (&shared, &taken);
    let (sources, to_send) = channel();
    let (sinks, to_take) = channel();
    let [sender, receiver] = sessions.clone();
    let send = Party::new(bench.cores.app, move |stage| {
        hosts.enter(0)?;
        emit_all(stage, &sender, &to_send, shared, load.period)
    });
    let take = Party::new(bench.cores.other, move |stage| {
        hosts.enter(1)?;
        let arrivals = take_all(stage, &receiver, &to_take, shared, load.capacity)?;
        *taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = arrivals;
        Ok(())
    });
    let lead = move |stage: &Stage| {
        stage.meet()?;
        let mut director = Director { shared, sessions, sources, sinks, opened: 0 };
        let result = direct(&mut director)?;
        director.settle();
        Ok(result)
    };
    let result = perform(bench.cores.app, lead, vec![send, take])?;
    Ok((result, std::mem::take(&mut *taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner))))
}

/// Emits what is due at all sources, until the stage stops.
fn emit_all(
    stage: &Stage,
    session: &Session,
    given: &Receiver<Source>,
    shared: &Shared,
    period: Nanos,
) -> Result<(), Fault> {
    let mut sources: Vec<(Source, MonoTime)> = Vec::with_capacity(STREAMS_MAX);
    stage.meet()?;
    let start = mono_now();
    while !stage.stopped() {
        let now = mono_now();
        if let Some(source) = given.try_recv().ok().filter(|_| sources.len() < STREAMS_MAX) {
            let passed = now.since(start).0.next_multiple_of(period.0);
            sources.push((source, start + Nanos(passed + period.0 * sources.len() as u64 / STREAMS_MAX as u64)));
        }
        for (stream, (source, due)) in sources.iter_mut().enumerate() {
            while *due + Nanos(MADE_UP * period.0) < now {
                *due += period;
            }
            if now < *due || shared.is_quiet.load(Ordering::Relaxed) {
                continue;
            }
            *due += period;
            let number = shared.emitted[stream].load(Ordering::Relaxed);
            let arrival = Arrival { stream, number, emitted_ns: mono_now().0, at_ns: 0 };
            // What has no room is emitted under the same number when the next is due.
            if source.emit_copy(&arrival.bytes()).map_err(fault("emit"))?.is_sent() {
                shared.emitted[stream].store(number + 1, Ordering::Relaxed);
            }
        }
        session.turn();
        shared.turns.fetch_add(1, Ordering::Release);
    }
    Ok(())
}

/// Takes what comes at all sinks, until the stage stops.
fn take_all(
    stage: &Stage,
    session: &Session,
    given: &Receiver<Sink>,
    shared: &Shared,
    capacity: usize,
) -> Result<Vec<Arrival>, Fault> {
    let mut sinks: Vec<Sink> = Vec::with_capacity(STREAMS_MAX);
    // Touched beforehand: a new page is no gap of ours.
    let mut arrivals = vec![Arrival { stream: 1, number: 1, emitted_ns: 1, at_ns: 1 }; capacity];
    arrivals.clear();
    stage.meet()?;
    while !stage.stopped() {
        sinks.extend(given.try_recv().into_iter().take(STREAMS_MAX - sinks.len()));
        for sink in &sinks {
            while let Some(message) = sink.consume().map_err(fault("consume"))? {
                let mut bytes = [0; MESSAGE_BYTES];
                let expected = arrivals.len() as u64;
                let is_whole = message.len() == MESSAGE_BYTES && message.copy_to(&mut bytes) == MESSAGE_BYTES;
                let arrival = Arrival::read(&bytes, mono_now().0).filter(|_| is_whole);
                let arrival = arrival.ok_or(Fault::Corrupt { expected, found: u64::from(bytes[63]) })?;
                if arrivals.len() == capacity {
                    return Err(Fault::Party(format!("more than {capacity} messages came")));
                }
                arrivals.push(arrival);
            }
        }
        shared.came.store(arrivals.len() as u64, Ordering::Relaxed);
        session.turn();
    }
    Ok(arrivals)
}

#[cfg(test)]
mod tests {
    use super::Arrival;

    #[test]
    fn a_message_is_read_as_it_was_written_and_a_damaged_one_is_not() {
        let sent = Arrival { stream: 3, number: 1_000, emitted_ns: 77, at_ns: 0 };
        assert_eq!(Arrival::read(&sent.bytes(), 99), Some(Arrival { at_ns: 99, ..sent }));
        for at in [0, 24, 63] {
            let mut bytes = sent.bytes();
            bytes[at] ^= 1;
            assert_eq!(Arrival::read(&bytes, 99), None, "byte {at}");
        }
    }
}
