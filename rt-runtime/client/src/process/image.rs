//! Several channels as one consistent image of a cycle.
//!
//! # Which values belong together
//! Those whose source instants lie in the same period of one clock: cycle *n* is
//! `[offset + n x period, offset + (n + 1) x period)`. Sequence numbers would not do: each
//! source counts its own emits, begins anew with its own life, and counts on where it left a
//! cycle out. An instant means the same to all sources that share a clock, whichever host
//! they are on, and cyclic tasks stamp the planned start of their cycle
//! ([`emit_as`](super::ProcessSource::emit_as)), so that no jitter moves a value into the
//! neighbouring cycle. The clock is TAI or, for sources of this host on direct rings, the
//! host's monotonic clock; a value on any other belongs to no cycle, and is counted.
//!
//! # All or none
//! Members of one cycle arrive one after the other, so each member keeps its values of the
//! last few cycles. A cycle that is whole is copied to where readers look; what is not whole
//! is never shown as if it were.

use super::clocks::Clocks;
use super::freshness::{Edge, Freshness};
use super::sink::{LOOK_MAX, Lost, Validity};
use crate::error::RequestError;
use crate::message::Message;
use crate::options::SinkOptions;
use crate::sink::Sink;
use crate::stream::Stream;
use insane_core::limits::MESSAGE_BYTES_MAX;
use insane_core::{ChannelId, ClockQuality, MonoTime, Nanos, Schema, SourceInstant};
use insane_shm::port::ConsumeError;
use insane_sys::clock;
use std::time::Duration;

/// Most cycles that each member keeps.
const CYCLES_MAX: usize = 64;
/// Cycles by which a value may be late. One that is older was not so long on its way: the
/// clock was set back.
const LATE_MAX: u64 = 1024;
/// So many values in a row of cycles before the latest, of one member, say that its clock was set
/// back.
const LATE_RUN: u32 = 8;
/// Most members of an image.
const MEMBERS_MAX: usize = 64;

/// Options of a [`ProcessImage`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImageOptions {
    period: Nanos,
    offset: Nanos,
    cycles: usize,
    max_missed: u32,
}

impl ImageOptions {
    /// Cycles of this length, which begin at multiples of it; four are kept.
    #[must_use]
    pub fn new(period: Duration) -> Self {
        ImageOptions { period: period.into(), offset: Nanos::ZERO, cycles: 4, max_missed: 0 }
    }

    /// How much later than at multiples of the period cycles begin.
    #[must_use]
    pub fn offset(mut self, offset: Duration) -> Self {
        self.offset = offset.into();
        self
    }

    /// So many cycles are kept, 1 to 64: by how much members may be ahead of each other.
    #[must_use]
    pub const fn cycles(mut self, cycles: usize) -> Self {
        self.cycles = cycles;
        self
    }

    /// So many whole cycles may fail in a row before the image is stale; none by default.
    #[must_use]
    pub const fn max_missed(mut self, max_missed: u32) -> Self {
        self.max_missed = max_missed;
        self
    }

    fn cycle_of(&self, instant: SourceInstant) -> Option<Cycle> {
        let ns = match instant {
            SourceInstant::Monotonic(MonoTime(ns)) => ns,
            SourceInstant::Tai(at) => at.0,
            SourceInstant::None | SourceInstant::Unnamed(_) => return None,
        };
        let number = ns.checked_sub(self.offset.0)? / self.period.0;
        Some(Cycle { clock: instant.quality(), number })
    }
}

/// One cycle of one clock.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cycle {
    /// The clock that it is counted on.
    pub clock: ClockQuality,
    /// Its number since that clock's beginning.
    pub number: u64,
}

impl Cycle {
    /// Whether this one takes the other's place: it is later, or the sources' clock has
    /// become another, or has been set back.
    fn replaces(self, other: Option<Cycle>) -> bool {
        let Some(other) = other else { return true };
        let behind = other.number.saturating_sub(self.number);
        self.clock != other.clock || self.number > other.number || behind > LATE_MAX
    }
}

/// A channel of an image, as [`ProcessImage::add`] numbered it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Member(usize);

/// Room for one value.
#[derive(Clone, Copy)]
struct Place {
    cycle: Option<Cycle>,
    len: usize,
    sequence: u64,
    instant: SourceInstant,
    is_of_this_host: bool,
}

impl Place {
    const EMPTY: Place =
        Place { cycle: None, len: 0, sequence: 0, instant: SourceInstant::None, is_of_this_host: false };
}

/// One channel.
struct Inflow {
    sink: Sink,
    size: usize,
    /// Room for each cycle, one behind the other; then the value of the last whole image.
    bytes: Box<[u8]>,
    places: Box<[Place]>,
    /// Its place in the last whole image.
    whole: Place,
    lost: Lost,
    /// The latest cycle of its values since the image began, or began anew.
    latest: Option<Cycle>,
    /// Values of earlier cycles since one of a later: not the places tell, in which what was set
    /// back is late only where a value of before the step lies.
    late_run: u32,
}

/// Several channels of process data, read as one image of a cycle. `Send`, not `Sync`.
pub struct ProcessImage {
    options: ImageOptions,
    members: Vec<Inflow>,
    freshness: Freshness,
    newest: Option<Cycle>,
    /// The sources' clock was set back: the next whole cycle is shown, though its number be less.
    begins_anew: bool,
    clocks: Clocks,
    unplaced: u64,
    late: u64,
}

/// The newest image that was whole.
#[derive(Clone, Copy, Debug)]
pub struct Image<'i> {
    of: &'i ProcessImage,
    lived: MonoTime,
    /// Its cycle; `None`: none was ever whole.
    pub cycle: Option<Cycle>,
    /// How good it is; never [`Substituted`](Validity::Substituted).
    pub validity: Validity,
    /// Whether it is stale.
    pub is_stale: bool,
    /// Whether it became whole since the last look.
    pub is_new: bool,
    /// What has changed with this look; each change is told once.
    pub edge: Option<Edge>,
}

impl<'i> Image<'i> {
    /// A member's value; `None` while no image was whole.
    #[must_use]
    pub fn value(&self, member: Member) -> Option<&'i [u8]> {
        let inflow = self.of.members.get(member.0).filter(|_| self.cycle.is_some())?;
        Some(inflow.whole())
    }

    /// A member's value with all that is known of it; `None` while no image was whole.
    ///
    /// # Panics
    /// If the member is of an image with more members.
    #[must_use]
    pub fn part(&self, member: Member) -> Option<Part<'i>> {
        self.cycle?;
        let inflow = &self.of.members[member.0];
        let Place { sequence, instant, is_of_this_host, .. } = inflow.whole;
        let age = self.of.clocks.age_as_known(instant, is_of_this_host, self.lived);
        Some(Part { bytes: inflow.whole(), sequence, instant, age })
    }

    /// Messages of a member that its sources emitted and that never came, whether or not an
    /// image was whole.
    ///
    /// # Panics
    /// If the member is of an image with more members.
    #[must_use]
    pub fn lost(&self, member: Member) -> Lost {
        self.of.members[member.0].lost
    }
}

/// One member's part of an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part<'i> {
    /// The value.
    pub bytes: &'i [u8],
    /// The number that its source gave it.
    pub sequence: u64,
    /// When the source emitted it, and by which clock.
    pub instant: SourceInstant,
    /// How long ago that was, where it can be known (see [`Sample::age`](super::Sample::age)).
    pub age: Option<Nanos>,
}

/// What is there of one cycle.
#[derive(Clone, Copy, Debug)]
pub enum ImageRead<'i> {
    /// Everything.
    Whole(CycleImage<'i>),
    /// Not everything, or no longer.
    Incomplete {
        /// Members without a value.
        missing: usize,
    },
}

/// The values of one cycle.
#[derive(Clone, Copy, Debug)]
pub struct CycleImage<'i> {
    of: &'i ProcessImage,
    cycle: Cycle,
}

impl<'i> CycleImage<'i> {
    /// A member's value.
    ///
    /// # Panics
    /// If the member is of another image.
    #[must_use]
    pub fn value(&self, member: Member) -> &'i [u8] {
        let inflow = &self.of.members[member.0];
        inflow.value(inflow.at(self.cycle))
    }
}

impl ProcessImage {
    /// An image without members.
    ///
    /// # Errors
    /// An option is out of its range.
    pub fn new(options: ImageOptions) -> Result<Self, RequestError> {
        if options.period == Nanos::ZERO || !(1..=CYCLES_MAX).contains(&options.cycles) {
            return Err(RequestError::Option("an image has a period, and keeps 1 to 64 cycles"));
        }
        let freshness = Freshness::new(Some(options.period), options.max_missed);
        Ok(ProcessImage {
            options,
            members: Vec::new(),
            freshness,
            newest: None,
            begins_anew: false,
            clocks: Clocks::new(clock::mono_now()),
            unplaced: 0,
            late: 0,
        })
    }

    /// Adds a channel with values of at most `size` bytes. No image is whole any longer
    /// until the new member is in it.
    ///
    /// # Errors
    /// See [`RequestError`]; an image has at most 64 members.
    pub fn add(&mut self, stream: &Stream, channel: ChannelId, size: u32) -> Result<Member, RequestError> {
        self.open(stream, channel, size, SinkOptions::default())
    }

    /// As [`add`](Self::add), with what the member's bytes mean: a source that declares another
    /// schema is refused, here and on other hosts ([`refused`](Self::refused)).
    ///
    /// # Errors
    /// As [`add`](Self::add), and the sources of this host have another schema.
    pub fn add_with(
        &mut self,
        stream: &Stream,
        channel: ChannelId,
        size: u32,
        schema: Schema,
    ) -> Result<Member, RequestError> {
        self.open(stream, channel, size, SinkOptions::default().schema(schema))
    }

    fn open(
        &mut self,
        stream: &Stream,
        channel: ChannelId,
        size: u32,
        options: SinkOptions,
    ) -> Result<Member, RequestError> {
        if self.members.len() == MEMBERS_MAX || !(1..=MESSAGE_BYTES_MAX).contains(&size) {
            return Err(RequestError::Option("an image has at most 64 members, of 1 byte to 100 MB each"));
        }
        let sink = stream.sink(channel, options.polled())?;
        self.newest = None;
        self.members.push(Inflow::new(sink, size as usize, self.options.cycles));
        Ok(Member(self.members.len() - 1))
    }

    /// Takes what waits on every member, at most 1024 messages of each, and shows the newest
    /// image that is whole, as it is at `now`, an instant of this host's `CLOCK_MONOTONIC`.
    /// It is stale once none became whole for `max_missed + 1` periods, measured as
    /// [`ProcessSink`](super::ProcessSink) does. Never blocks, and allocates nothing.
    ///
    /// # Errors
    /// This is a forked child.
    pub fn poll(&mut self, now: MonoTime) -> Result<Image<'_>, ConsumeError> {
        let mut is_new = false;
        let lived = self.clocks.rest.look(now);
        self.clocks.look(lived);
        for at in 0..self.members.len() {
            self.members[at].lost.since_last = 0;
            for _ in 0..LOOK_MAX {
                match self.take(at) {
                    Ok(Some(Some(cycle))) => is_new |= self.note_whole(cycle),
                    Ok(Some(None)) => {}
                    Ok(None) => break,
                    Err(ConsumeError::Forked) => return Err(ConsumeError::Forked),
                    // Nobody is there: silence, which the freshness tells.
                    Err(_) => break,
                }
            }
        }
        let (edge, counter) = self.freshness.look_and_count(lived, is_new);
        if let (Some(counter), Some(first)) = (counter, self.members.first()) {
            first.sink.count(counter, 1);
        }
        let missed = self.freshness.missed(lived);
        let validity = match self.newest {
            None => Validity::NeverReceived,
            Some(_) if missed > 0 => Validity::Held { missed },
            Some(_) => Validity::Fresh,
        };
        Ok(Image { of: self, lived, cycle: self.newest, validity, is_stale: self.freshness.is_stale(), is_new, edge })
    }

    /// As [`poll`](Self::poll), at the present instant.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn latest(&mut self) -> Result<Image<'_>, ConsumeError> {
        self.poll(clock::mono_now())
    }

    /// What was taken of one cycle: all members' values, or none. Looks at no ring.
    #[must_use]
    pub fn read(&self, cycle: Cycle) -> ImageRead<'_> {
        match self.missing(cycle) {
            0 if !self.members.is_empty() => ImageRead::Whole(CycleImage { of: self, cycle }),
            missing => ImageRead::Incomplete { missing },
        }
    }

    /// The cycle that an instant belongs to; `None`: of no known clock, or before the offset.
    #[must_use]
    pub fn cycle_of(&self, instant: SourceInstant) -> Option<Cycle> {
        self.options.cycle_of(instant)
    }

    /// Values that belonged to no cycle: their clock is not known here, they were too large,
    /// or from before this image.
    #[must_use]
    pub const fn unplaced(&self) -> u64 {
        self.unplaced
    }

    /// The schema of a member's sources on another host, if it is not that of
    /// [`add_with`](Self::add_with): see [`Sink::refused`](crate::Sink::refused).
    ///
    /// # Panics
    /// If the member is of an image with more members.
    #[must_use]
    pub fn refused(&self, member: Member) -> Option<Schema> {
        self.members[member.0].sink.refused()
    }

    /// Values that came when their cycle was no longer kept, or had a later one already.
    #[must_use]
    pub const fn late(&self) -> u64 {
        self.late
    }

    /// One message of one member: `None` if none waits, then the cycle it was put in.
    fn take(&mut self, at: usize) -> Result<Option<Option<Cycle>>, ConsumeError> {
        let Inflow { sink, size, bytes, places, lost, latest, late_run, .. } = &mut self.members[at];
        let Some(message) = sink.consume()? else { return Ok(None) };
        let missing = u64::from(message.lost());
        *lost = Lost { total: lost.total + missing, since_last: lost.since_last + missing };
        let cycle = cycle_of(&self.options, &message).filter(|_| message.len() <= *size);
        let Some(cycle) = cycle else {
            self.unplaced += 1;
            return Ok(Some(None));
        };
        let place = (cycle.number % places.len() as u64) as usize;
        // The same cycle again is its newer value.
        let is_again = places[place].cycle == Some(cycle);
        let is_late = !is_again && !cycle.replaces(places[place].cycle);
        if cycle.replaces(*latest) {
            (*latest, *late_run) = (Some(cycle), 0);
        } else if !is_again {
            *late_run += 1;
        }
        let was_set_back = *late_run >= LATE_RUN;
        if is_late && !was_set_back {
            self.late += 1;
            return Ok(Some(None));
        }
        let len = message.copy_to(&mut bytes[place * *size..][..*size]);
        let (sequence, instant, is_of_this_host) = (message.sequence(), message.stamp().instant, message.is_direct());
        let taken = Place { cycle: Some(cycle), len, sequence, instant, is_of_this_host };
        drop(message);
        if was_set_back {
            self.begin_anew();
        }
        self.members[at].places[place] = taken;
        self.members[at].latest.get_or_insert(cycle);
        Ok(Some(Some(cycle)))
    }

    /// The sources' clock was set back: what is kept is of cycles that come once more.
    #[cold]
    fn begin_anew(&mut self) {
        self.begins_anew = true;
        for member in &mut self.members {
            member.places.fill(Place::EMPTY);
            (member.latest, member.late_run) = (None, 0);
        }
    }

    /// Shows a cycle if it is whole now, and later than the one that is shown.
    fn note_whole(&mut self, cycle: Cycle) -> bool {
        let is_later = self.begins_anew || cycle.replaces(self.newest);
        let is_whole = is_later && self.missing(cycle) == 0;
        if is_whole {
            self.begins_anew = false;
            self.newest = Some(cycle);
            self.members.iter_mut().for_each(|member| member.show(cycle));
        }
        is_whole
    }

    fn missing(&self, cycle: Cycle) -> usize {
        self.members.iter().filter(|member| member.places[member.at(cycle)].cycle != Some(cycle)).count()
    }
}

/// The cycle of a message, if its clock means something here.
fn cycle_of(options: &ImageOptions, message: &Message<'_>) -> Option<Cycle> {
    let stamp = message.stamp();
    let is_placeable = match stamp.instant.quality() {
        ClockQuality::Tai => true,
        ClockQuality::Monotonic => message.is_direct(),
        ClockQuality::None => false,
    };
    options.cycle_of(stamp.instant).filter(|_| is_placeable && !stamp.is_history)
}

impl Inflow {
    fn new(sink: Sink, size: usize, cycles: usize) -> Self {
        let bytes = vec![0; size * (cycles + 1)].into();
        Inflow {
            sink,
            size,
            bytes,
            places: vec![Place::EMPTY; cycles].into(),
            whole: Place::EMPTY,
            lost: Lost::default(),
            latest: None,
            late_run: 0,
        }
    }

    fn at(&self, cycle: Cycle) -> usize {
        (cycle.number % self.places.len() as u64) as usize
    }

    fn value(&self, at: usize) -> &[u8] {
        &self.bytes[at * self.size..][..self.places[at].len]
    }

    fn whole(&self) -> &[u8] {
        &self.bytes[self.places.len() * self.size..][..self.whole.len]
    }

    fn show(&mut self, cycle: Cycle) {
        let at = self.at(cycle);
        let from = at * self.size;
        self.whole = self.places[at];
        self.bytes.copy_within(from..from + self.whole.len, self.places.len() * self.size);
    }
}

impl std::fmt::Debug for ProcessImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProcessImage({} members, newest {:?})", self.members.len(), self.newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insane_core::TaiTime;

    #[test]
    fn a_cycle_is_a_period_of_one_clock() {
        let options = ImageOptions::new(Duration::from_nanos(100)).offset(Duration::from_nanos(30));
        let mono = |ns| options.cycle_of(SourceInstant::Monotonic(MonoTime(ns))).map(|cycle| cycle.number);
        assert_eq!([29, 30, 129, 130].map(mono), [None, Some(0), Some(0), Some(1)]);
        let tai = options.cycle_of(SourceInstant::Tai(TaiTime(130))).unwrap();
        assert_eq!(tai, Cycle { clock: ClockQuality::Tai, number: 1 });
        assert_ne!(Some(tai), options.cycle_of(SourceInstant::Monotonic(MonoTime(130))));
        assert_eq!(options.cycle_of(SourceInstant::Unnamed(130)), None);
    }

    #[test]
    fn later_cycles_and_those_of_another_clock_take_the_place() {
        let cycle = |clock, number| Cycle { clock, number };
        let (mono, tai) = (ClockQuality::Monotonic, ClockQuality::Tai);
        assert!(cycle(mono, 1).replaces(None));
        assert!(cycle(mono, 2).replaces(Some(cycle(mono, 1))));
        assert!(!cycle(mono, 1).replaces(Some(cycle(mono, 1))));
        assert!(!cycle(mono, 0).replaces(Some(cycle(mono, 1))));
        assert!(cycle(mono, 0).replaces(Some(cycle(tai, 9))));
        assert!(!cycle(tai, 0).replaces(Some(cycle(tai, LATE_MAX))));
        assert!(cycle(tai, 0).replaces(Some(cycle(tai, LATE_MAX + 1))), "the clock was set back");
    }
}
