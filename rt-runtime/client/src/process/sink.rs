//! The read end of process data: the newest value, and how good it is.

use super::clocks::Clocks;
use super::freshness::{Edge, Freshness};
use super::options::{OnStale, ProcessOptions};
use crate::callback::Attended;
use crate::message::Message;
use crate::sink::Sink;
use insane_core::counters::PortCounter;
use insane_core::{MonoTime, Nanos, Schema, SourceInstant, Stamp};
use insane_shm::port::ConsumeError;
use insane_sys::clock;
use std::os::fd::BorrowedFd;

/// Messages taken in one look at most, so that a look has an end though senders go on.
pub(super) const LOOK_MAX: usize = 1024;

/// How good a value is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Validity {
    /// It arrived less than a period ago. What was held back on its way is fresh when it comes,
    /// however old it is: [`Sample::age`] tells, where that is known.
    Fresh,
    /// It is the last one, and so many whole periods have passed without another.
    Held {
        /// Periods.
        missed: u64,
    },
    /// The last one is stale; this is the substitute.
    Substituted,
    /// None has ever arrived. There is nothing to show but the substitute, if one was given.
    NeverReceived,
}

/// Messages that are missing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Lost {
    /// Since the sink was made.
    pub total: u64,
    /// Since the last look.
    pub since_last: u64,
}

/// What a process sink shows.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'s> {
    /// The value; empty if there is none.
    pub bytes: &'s [u8],
    /// The number that its source gave the last value; 0 before the first.
    pub sequence: u64,
    /// When the source emitted the last value, and by which clock.
    pub instant: SourceInstant,
    /// How long ago that was. Known only where both ends have the same clock: the source
    /// stamps its monotonic clock and is on this host, joined by a direct ring; or it
    /// stamps TAI, and this host's clock is synchronised, too. It is as good as those clocks.
    pub age: Option<Nanos>,
    /// Messages that sources emitted and that never came: dropped for want of room, or
    /// lost on the network.
    pub lost: Lost,
    /// Values that came since the last look, and that this one has overtaken.
    pub overtaken: u64,
    /// How good the value is.
    pub validity: Validity,
    /// Whether the last value is stale, whatever is shown instead.
    pub is_stale: bool,
    /// Whether the value came since the last look.
    pub is_new: bool,
    /// Whether the last value is from before this sink joined.
    pub is_history: bool,
    /// What has changed with this look; each change is told once.
    pub edge: Option<Edge>,
}

/// The last value, in memory of its own.
struct Kept {
    bytes: Box<[u8]>,
    len: usize,
    sequence: u64,
    instant: SourceInstant,
    is_of_this_host: bool,
    is_history: bool,
    /// Whether there is one.
    is_there: bool,
    /// Where the age was known when the value was found: how old it was then, and which lived
    /// instant that was.
    found: Option<(Nanos, MonoTime)>,
}

/// What one look at the rings brought.
#[derive(Default)]
struct Look {
    taken: usize,
    lost: u64,
    fresh: u64,
    unfit: u64,
    is_new: bool,
}

/// The read end of a channel of process data: it keeps the newest value, and says how good
/// it is. `Send`, not `Sync`.
///
/// # Time
/// Staleness is measured on this host's monotonic clock alone, from look to look, and the time
/// for which the host was suspended is added: a value from before is as old as it is. So it is
/// found within `max_missed + 1` periods whoever fell silent: sender, host, network, or the
/// runtime. A cyclic task gives [`poll`](Self::poll) the planned start of its cycle; then
/// jitter of its own moves no edge to another cycle. What a look finds counts as having
/// arrived at that look.
///
/// # Sources
/// One source a channel is usual. With several, each look shows the value that came last.
/// Values of a plain [`Source`](crate::Source) are taken, too; they have no clock, so no age.
pub struct ProcessSink {
    sink: Sink,
    kept: Kept,
    freshness: Freshness,
    substitute: Option<Box<[u8]>>,
    clocks: Clocks,
    lost_total: u64,
    unfit_total: u64,
}

impl ProcessSink {
    pub(super) fn new(sink: Sink, options: ProcessOptions) -> Self {
        let ProcessOptions { size, period, max_missed, on_stale, .. } = options;
        let kept = Kept {
            bytes: vec![0; size as usize].into(),
            len: 0,
            sequence: 0,
            instant: SourceInstant::None,
            is_of_this_host: false,
            is_history: false,
            is_there: false,
            found: None,
        };
        ProcessSink {
            sink,
            kept,
            freshness: Freshness::new(period, max_missed),
            substitute: match on_stale {
                OnStale::Hold => None,
                OnStale::Substitute(bytes) => Some(bytes.into()),
            },
            clocks: Clocks::new(clock::mono_now()),
            lost_total: 0,
            unfit_total: 0,
        }
    }

    /// Takes everything that waits, keeps the newest, and says how good it is at `now`, an
    /// instant of this host's `CLOCK_MONOTONIC`. Never blocks, and allocates nothing; takes
    /// 1024 messages at most, so that senders who never rest do not hold it up.
    ///
    /// # Errors
    /// This is a forked child. That the runtime is gone is no error: the value becomes stale.
    pub fn poll(&mut self, now: MonoTime) -> Result<Sample<'_>, ConsumeError> {
        let lived = self.clocks.rest.look(now);
        let (look, edge) = self.look(lived)?;
        Ok(self.sample(lived, &look, edge))
    }

    /// As [`poll`](Self::poll), at the present instant: the newest value, without a queue.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn latest(&mut self) -> Result<Sample<'_>, ConsumeError> {
        self.poll(clock::mono_now())
    }

    /// The present, on the clock that [`poll`](Self::poll) takes its instants of.
    #[must_use]
    pub fn now(&self) -> MonoTime {
        clock::mono_now()
    }

    /// When the value becomes stale unless another comes; `None`: it is stale, there is none,
    /// or no period was declared.
    #[must_use]
    pub fn deadline(&self) -> Option<MonoTime> {
        self.freshness.deadline().map(|lived| self.clocks.rest.mono(lived))
    }

    /// Messages that were larger than this sink's values, and were passed over.
    #[must_use]
    pub const fn unfit(&self) -> u64 {
        self.unfit_total
    }

    /// Whether a source, or the network, is connected.
    #[must_use]
    pub fn has_senders(&self) -> bool {
        self.sink.has_senders()
    }

    /// The schema of sources of another host, if it is not this sink's: see
    /// [`Sink::refused`](crate::Sink::refused).
    #[must_use]
    pub fn refused(&self) -> Option<Schema> {
        self.sink.refused()
    }

    fn look(&mut self, lived: MonoTime) -> Result<(Look, Option<Edge>), ConsumeError> {
        let look = self.take(lived)?;
        self.lost_total += look.lost;
        self.unfit_total += look.unfit;
        let (edge, counter) = self.freshness.look_and_count(lived, look.fresh > 0);
        if let Some(counter) = counter {
            self.sink.count(counter, 1);
        }
        Ok((look, edge))
    }

    fn take(&mut self, lived: MonoTime) -> Result<Look, ConsumeError> {
        let mut look = Look::default();
        let mut newest: Option<(Message<'_>, Stamp)> = None;
        while look.taken < LOOK_MAX {
            let message = match self.sink.consume() {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(ConsumeError::Forked) => return Err(ConsumeError::Forked),
                // Nobody is there: silence, which the freshness tells.
                Err(_) => break,
            };
            look.taken += 1;
            look.lost += u64::from(message.lost());
            if message.len() > self.kept.bytes.len() {
                look.unfit += 1;
                continue;
            }
            let stamp = message.stamp();
            look.fresh += u64::from(!stamp.is_history);
            // A source whose runtime was restarted sends the past again.
            let knows_it = self.kept.sequence == message.sequence() && self.kept.instant == stamp.instant;
            let knows_better = self.kept.is_there && (!self.kept.is_history || knows_it);
            if !stamp.is_history || !(knows_better || look.fresh > 0) {
                newest = Some((message, stamp));
            }
        }
        if let Some((message, stamp)) = newest {
            look.is_new = true;
            self.kept.set(&message, stamp);
            let is_of_this_host = self.kept.is_of_this_host;
            self.kept.found = self.clocks.age(stamp.instant, is_of_this_host, lived).map(|age| (age, lived));
        }
        Ok(look)
    }

    fn sample(&self, lived: MonoTime, look: &Look, edge: Option<Edge>) -> Sample<'_> {
        let kept = &self.kept;
        let is_stale = self.freshness.is_stale();
        let missed = self.freshness.missed(lived);
        let value = &kept.bytes[..kept.len];
        let (bytes, validity) = match &self.substitute {
            Some(substitute) if is_stale => (&**substitute, Validity::Substituted),
            Some(substitute) if !kept.is_there => (&**substitute, Validity::NeverReceived),
            _ if !kept.is_there => (&[][..], Validity::NeverReceived),
            // History is the last value, but nothing of now.
            _ if missed > 0 || kept.is_history => (value, Validity::Held { missed }),
            _ => (value, Validity::Fresh),
        };
        Sample {
            bytes,
            sequence: kept.sequence,
            instant: kept.instant,
            age: kept.found.map(|(age, at)| Nanos(age.0.saturating_add(lived.since(at).0))),
            lost: Lost { total: self.lost_total, since_last: look.lost },
            overtaken: look.fresh.saturating_sub(1),
            validity,
            is_stale,
            is_new: look.is_new,
            is_history: kept.is_history,
            edge,
        }
    }
}

impl Kept {
    fn set(&mut self, message: &Message<'_>, stamp: Stamp) {
        self.len = message.copy_to(&mut self.bytes);
        self.sequence = message.sequence();
        self.instant = stamp.instant;
        self.is_of_this_host = message.is_direct();
        self.is_history = stamp.is_history;
        self.is_there = true;
    }
}

impl std::fmt::Debug for ProcessSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProcessSink({} bytes, {:?})", self.kept.bytes.len(), self.freshness)
    }
}

/// A process sink that the session's callback thread looks after.
pub(super) struct Called<C> {
    pub sink: ProcessSink,
    pub callback: C,
}

impl<C: FnMut(Sample<'_>) + Send> Attended for Called<C> {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.sink.sink.fd()
    }

    fn attend(&mut self) -> bool {
        let lived = self.sink.clocks.rest.look(clock::mono_now());
        let Ok((look, edge)) = self.sink.look(lived) else { return false };
        if look.is_new || edge.is_some() {
            (self.callback)(self.sink.sample(lived, &look, edge));
        }
        look.taken == LOOK_MAX
    }

    fn deadline(&self) -> Option<MonoTime> {
        self.sink.deadline()
    }

    fn count_panic(&self) {
        self.sink.sink.count(PortCounter::CallbackPanics, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ChannelId, ProcessSourceOptions, Qos, Session};
    use std::time::Duration;

    const HOUR: Nanos = Nanos::from_secs(3600);

    /// What was there before the host was suspended looks as old as it is after it, whether it
    /// was taken before or is found then; what comes after it is fresh.
    #[test]
    fn after_the_host_was_suspended_nothing_from_before_looks_fresh() {
        let session = Session::embedded("suspended").unwrap();
        let stream = session.stream("s", Qos::default()).unwrap();
        let mut sink =
            stream.process_sink(ChannelId(1), ProcessOptions::new(8).period(Duration::from_secs(1))).unwrap();
        let mut source = stream.process_source(ChannelId(1), ProcessSourceOptions::new(8)).unwrap();
        source.wait_for_receivers(Duration::from_secs(10)).unwrap();
        let is_old = |age: Option<Nanos>| age.is_none_or(|age| age.0 >= HOUR.0 - 60_000_000_000);

        assert!(source.emit(b"taken").unwrap().is_sent());
        let now = clock::mono_now();
        let sample = sink.poll(now).unwrap();
        assert_eq!((sample.bytes, sample.validity, is_old(sample.age)), (&b"taken"[..], Validity::Fresh, false));
        sink.clocks.rest.suspend(HOUR);
        let sample = sink.poll(now + Nanos(1_000)).unwrap();
        assert_eq!((sample.edge, sample.is_stale), (Some(Edge::Stale), true), "an hour is more than a period");
        assert!(
            matches!(sample.validity, Validity::Held { missed: 3_590..=3_610 }) && is_old(sample.age),
            "{sample:?}"
        );

        assert!(source.emit(b"waiting").unwrap().is_sent());
        sink.clocks.rest.suspend(HOUR);
        let sample = sink.latest().unwrap();
        assert!(sample.bytes == b"waiting" && is_old(sample.age), "{sample:?}");

        assert!(source.emit(b"after").unwrap().is_sent());
        let sample = sink.latest().unwrap();
        assert_eq!((sample.bytes, sample.validity, is_old(sample.age)), (&b"after"[..], Validity::Fresh, false));
        let deadline = sink.deadline().unwrap();
        assert!(deadline.since(clock::mono_now()) <= Nanos::from_secs(1), "an instant of the monotonic clock");
    }
}
