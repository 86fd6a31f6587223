//! Who has slots: admission, certificates, and the tables of the datapaths.
//!
//! A source of a time-sensitive stream whose datapath has links of a known rate is admitted
//! when it is created, and has its slots until it is closed, whether or not a peer listens
//! just now. Whoever is refused is told the proof, or that nothing was found, and the nearest
//! offer. What the synthesiser found is believed only after the checker, which shares no code
//! with it, agrees.
//!
//! Under a schedule of several hosts (module `schedule`) a source of a stream that it names
//! takes the slots that it reserves, or is refused: never others. Who is not named is admitted
//! beside, as without one.
//!
//! When peers come or go, all who were admitted here are admitted anew, with a message's bytes
//! for each peer, as a whole: all get their new slots by one table, or all keep the old ones and
//! it is noted; then messages for more peers are too large, and counted. What a schedule reserves
//! stays as it is. That is done a few at a time ([`READMISSIONS_PER_EVENT`]), between other
//! events; who comes or goes meanwhile is part of it, and what holds until it is done is what
//! held before.
//!
//! Where the rate is not known there are no slots: a source that could reach a peer is refused,
//! unless the configuration says that it may go in its real-time lane, without a bound; then
//! reports say so.

use super::port::Place;
use super::schedule::{Named, Reserved};
use super::stands::{Stand, State};
use super::{Hub, Refusal};
use crate::action::Note;
use crate::epsilons::Basis;
use crate::plan_spec::shut_for_slots;
use crate::quota::Pace;
use crate::spec::{SlotLink, SlotSpec};
use insane_admission::{Budget, Plan, synthesise};
use insane_certificate::{Boundary, Class, Epsilon, Hop, Host, Link, Plant, Stream};
use insane_certificate::{Certificate, Placed, Window};
use insane_core::limits::LANES;
use insane_core::{DatapathIndex, Determinism, DomainIndex, Nanos, Reliability, SessionId, SourceId, StreamKey};
use insane_engine::{LaneArrivals, SlotConfig, TIMED_MAX, timed_flow};
use insane_scheduler::{Arrivals, Recurrence, TimedStream};
use insane_wire::control::Code;
use std::collections::{BTreeMap, VecDeque};

/// Search of one admission: a session waits for it.
const BUDGET: Budget = Budget { jumps: 20_000, rounds: 1 };

/// Requests for slots of one domain, so that its searches leave the control plane time for
/// others: all that a datapath has slots for may come at once, as after a restart.
pub const ADMISSIONS_PER_SECOND: u32 = TIMED_MAX as u32;
/// What a request costs that finds no place: it was searched for to the end, and then offers
/// and a proof.
const REFUSAL_COST: u32 = 8;

/// Sources that are admitted anew at one event of the control plane, when peers came or went:
/// as much searching as so many requests for slots, which a session may send at once.
pub const READMISSIONS_PER_EVENT: usize = 8;

/// What a source wants slots for.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) named: Named,
    pub(super) key: StreamKey,
    /// In the words of a plan: its period, bytes of the link, release and deadline.
    pub(super) stream: Stream,
    pub(super) late: insane_core::LatePolicy,
    /// Bytes of the link for one peer.
    pub(super) bytes_each: u32,
}

/// A stream that is admitted.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// `None` between admission and the source's number.
    source: Option<SourceId>,
    timed: TimedStream,
    number: u16,
    pub(super) asked: Asked,
    /// What a schedule reserves for it on other links of the datapath, by their places.
    elsewhere: Vec<(usize, TimedStream)>,
}

impl Entry {
    /// Its slots on a link; `None`: on the usual one.
    fn on(&self, link: Option<usize>) -> TimedStream {
        let there = self.elsewhere.iter().find(|(other, _)| Some(*other) == link);
        there.map_or(self.timed, |(_, timed)| *timed)
    }
}

/// What a schedule assumes of the lanes, by their numbers: its names for them, and what arrives.
pub(super) type Contracts = [Option<(String, Arrivals)>; LANES];

/// The slots of one datapath.
#[derive(Clone, Debug)]
pub struct SlotBook {
    pub(super) spec: SlotSpec,
    plan: Plan,
    /// In the order of the plan's streams.
    entries: Vec<Entry>,
    /// What a schedule of several hosts keeps for streams of this datapath.
    pub(super) reserved: Vec<Reserved>,
    /// Who has taken a reservation: its place there.
    seated: Vec<(usize, Entry)>,
    /// Links of the datapath, by their places, on which the checker accepts the same slots for
    /// those that were admitted here.
    held: Vec<bool>,
    contracts: Contracts,
}

/// All who were admitted at a datapath, on their way to being admitted for other peers.
#[derive(Clone, Debug)]
pub(super) struct Widening {
    peers: u32,
    /// Those that have their new slots.
    book: SlotBook,
    /// The numbers of the others.
    todo: VecDeque<u16>,
}

/// A place that was admitted and waits for its source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Seat {
    datapath: DatapathIndex,
    number: u16,
}

impl SlotBook {
    /// Without streams. `None`: the link's numbers make no plant, which is a bug of the
    /// configuration's validation.
    #[must_use]
    pub fn new(spec: SlotSpec) -> Option<Self> {
        SlotBook::beside(spec, Vec::new(), Vec::new(), Contracts::default())
    }

    /// With what a schedule reserves, the windows that are its own, and what it says arrives.
    pub(super) fn beside(
        spec: SlotSpec,
        reserved: Vec<Reserved>,
        blocked: Vec<Window>,
        contracts: Contracts,
    ) -> Option<Self> {
        let timing = spec.config.timing;
        let shut = spec.gates.as_deref().map(shut_for_slots).unwrap_or_default();
        let blocked = disjoint(blocked.into_iter().chain(shut));
        // Configured, not measured: no sample stands behind them.
        let quantile_ppm = spec.quantile_ppm;
        let epsilon = |ns| Epsilon { quantile_ppm, quantile_ns: ns, max_ns: ns, samples: 0 };
        let host = Host {
            name: spec.host.clone(),
            clock_error_ns: 0,
            wake: epsilon(insane_engine::margin::MAX.0),
            // A turn looks at a slot as late as the turn before may take, and what it decides
            // is on its way as late again.
            turn: epsilon(timing.turn_ns.saturating_mul(2)),
        };
        let link = Link {
            name: spec.link.clone(),
            host: Some(0),
            ps_per_byte: timing.rate.ps_per_byte(),
            foreign_bytes: timing.foreign_bytes,
            in_flight_bytes: timing.in_flight_bytes,
            frame_bytes_max: spec.config.message_bytes(spec.payload_bytes_max, spec.payload_bytes_max, 1),
            boundary: Boundary::KernelSocket,
            blocked,
        };
        let plant =
            Plant { hosts: vec![host], links: vec![link], streams: Vec::new(), chains: Vec::new(), lanes: Vec::new() };
        let plan = synthesise(&plant, BUDGET).ok()?;
        let held = vec![true; spec.links.len()];
        Some(SlotBook { spec, plan, entries: Vec::new(), reserved, seated: Vec::new(), held, contracts })
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().chain(self.seated.iter().map(|(_, entry)| entry))
    }

    /// What arrives in each lane at most.
    pub(super) fn arrivals(&self) -> LaneArrivals {
        self.contracts.each_ref().map(|contract| contract.as_ref().map(|(_, arrivals)| *arrivals))
    }

    /// Whether a datapath has to be told of it.
    pub(super) fn is_used(&self) -> bool {
        self.all().next().is_some() || self.contracts.iter().any(Option::is_some)
    }

    fn free_number(&self) -> Option<u16> {
        (0..TIMED_MAX as u16).find(|number| self.all().all(|entry| entry.number != *number))
    }

    /// Gives a stream the slots that are reserved for it, or admits it beside them.
    fn give(&mut self, asked: Asked) -> Result<u16, Refusal> {
        let Some(number) = self.free_number() else {
            let reason = format!("a datapath has slots for at most {TIMED_MAX} sources");
            return Err(Refusal::new(Code::Resources, reason));
        };
        match self.reserved.iter().position(|reserved| reserved.is_for(&asked.named)) {
            Some(at) => self.take_reserved(at, asked, number)?,
            None => self.admit(asked, number)?,
        }
        Ok(number)
    }

    fn take_reserved(&mut self, at: usize, asked: Asked, number: u16) -> Result<(), Refusal> {
        let reserved = &self.reserved[at];
        if self.seated.iter().any(|(taken, _)| *taken == at) {
            let reason =
                format!("another source has the slots that the schedule reserves for {:?}", reserved.stream.name);
            return Err(Refusal::new(Code::NotAdmitted, reason));
        }
        reserved.suits(&asked.stream).map_err(|reason| Refusal::new(Code::NotAdmitted, reason))?;
        let timed = timed_stream(&reserved.stream, &reserved.placed, number, asked.late);
        let elsewhere = self.reserved_elsewhere(&asked, number);
        let Some(timed) = timed else {
            return Err(Refusal::new(Code::NotAdmitted, "a schedule without windows; this is a bug"));
        };
        self.seated.push((at, Entry { source: None, timed, number, asked, elsewhere }));
        Ok(())
    }

    /// Takes over who has slots in another book of this datapath, under the same numbers. What
    /// finds no place is told.
    ///
    /// Bounded by the sources of a datapath ([`TIMED_MAX`]) and the search for each; the checker
    /// looks once, at all of them.
    pub(super) fn take_over(&mut self, old: &SlotBook) -> Result<(), String> {
        for entry in old.all() {
            let reserved = self.reserved.iter().position(|reserved| reserved.is_for(&entry.asked.named));
            let placed = match reserved {
                Some(at) => self.take_reserved(at, entry.asked.clone(), entry.number),
                None => self.place(entry.asked.clone(), entry.number),
            };
            placed.map_err(|refusal| {
                format!("{} is open and would lose its slots: {refusal}", entry.asked.stream.name)
            })?;
            let last =
                if reserved.is_some() { self.seated.last_mut().map(|(_, last)| last) } else { self.entries.last_mut() };
            if let Some(last) = last {
                last.source = entry.source;
            }
        }
        self.verify().map_err(|refusal| refusal.to_string())
    }

    /// Admits a stream.
    fn admit(&mut self, asked: Asked, number: u16) -> Result<(), Refusal> {
        self.place(asked, number)?;
        self.verify().inspect_err(|_| self.dismiss(number))
    }

    /// Finds a place for a stream beside the others, which nobody has checked yet.
    fn place(&mut self, asked: Asked, number: u16) -> Result<(), Refusal> {
        let at = self.plan.admit(asked.stream.clone(), BUDGET).map_err(|refusal| {
            let link = &self.spec.link;
            Refusal::new(Code::NotAdmitted, format!("no slots on link {link:?}: {refusal}"))
        })?;
        let placed = self.plan.certificate().placed;
        let timed = placed.get(at).and_then(|placed| timed_stream(&asked.stream, placed, number, asked.late));
        let Some(timed) = timed else {
            self.plan.dismiss(at);
            return Err(Refusal::new(Code::NotAdmitted, "a schedule without windows; this is a bug"));
        };
        self.entries.push(Entry { source: None, timed, number, asked, elsewhere: Vec::new() });
        Ok(())
    }

    /// Whether the checker, too, finds that all places hold; and on which other links they do.
    fn verify(&mut self) -> Result<(), Refusal> {
        let certificate = self.plan.certificate();
        insane_checker::check(self.plan.plant(), &certificate).map_err(|flaw| {
            let reason = format!("the schedule that was found does not hold ({flaw:?}); this is a bug");
            Refusal::new(Code::NotAdmitted, reason)
        })?;
        let holds = |link: &SlotLink| link.name == self.spec.link || holds_on(&certificate, link);
        self.held = self.spec.links.iter().map(holds).collect();
        Ok(())
    }

    /// Whether all sources of a stream hold a certificate on a link, by its place.
    pub(super) fn holds(&self, key: StreamKey, link: usize) -> bool {
        let of_stream = |entry: &&Entry| entry.asked.key == key;
        let seated = self.seated.iter().map(|(_, entry)| entry);
        let mut named = seated.filter(of_stream);
        named.all(|entry| entry.elsewhere.iter().any(|(other, _)| *other == link))
            && (self.held.get(link).copied().unwrap_or(false) || !self.entries.iter().any(|entry| of_stream(&entry)))
    }

    /// What a datapath is told: the streams with slots, and the links of those that go by
    /// another than is usual.
    pub(super) fn table(&self, stand: impl Fn(StreamKey) -> Stand) -> (Vec<TimedStream>, Vec<(u16, u8)>) {
        let (mut streams, mut links) = (Vec::new(), Vec::new());
        for entry in self.all() {
            let Stand { link, state } = stand(entry.asked.key);
            if state != State::Degraded {
                streams.push(entry.on(link));
            }
            links.extend(link.map(|link| (entry.number, link as u8)));
        }
        (streams, links)
    }

    fn dismiss(&mut self, number: u16) {
        self.seated.retain(|(_, entry)| entry.number != number);
        if let Some(at) = self.entries.iter().position(|entry| entry.number == number)
            && self.plan.dismiss(at)
        {
            self.entries.remove(at);
        }
    }

    /// The book without anybody who was admitted here.
    fn emptied(&self) -> Option<SlotBook> {
        let blocked = self.plan.plant().links.first().map(|link| link.blocked.clone());
        let contracts = self.contracts.clone();
        SlotBook::beside(self.spec.clone(), self.reserved.clone(), blocked.unwrap_or_default(), contracts)
    }

    fn sit(&mut self, number: u16, source: SourceId) {
        let seated = self.seated.iter_mut().map(|(_, entry)| entry);
        if let Some(entry) = self.entries.iter_mut().chain(seated).find(|entry| entry.number == number) {
            entry.source = Some(source);
        }
    }

    /// Whether the source has what a schedule reserves.
    pub(super) fn is_seated(&self, source: SourceId) -> bool {
        self.seated.iter().any(|(_, entry)| entry.source == Some(source))
    }

    fn number_of(&self, source: SourceId) -> Option<u16> {
        self.all().find(|entry| entry.source == Some(source)).map(|entry| entry.number)
    }

    /// What the schedule reserves for a stream on links of this datapath besides.
    fn reserved_elsewhere(&self, asked: &Asked, number: u16) -> Vec<(usize, TimedStream)> {
        let alternates = self
            .reserved
            .iter()
            .filter(|reserved| reserved.is_alternate_for(&asked.named) && reserved.suits(&asked.stream).is_ok());
        let timed = |of: &Reserved| Some((of.elsewhere?, timed_stream(&of.stream, &of.placed, number, asked.late)?));
        alternates.filter_map(timed).collect()
    }
}

/// Whether the checker accepts the places of a certificate on another link of the datapath, too.
///
/// The windows are the same, and that they are apart was checked: so each stream is asked for by
/// itself, and another link costs a look at each of them, not at each pair.
fn holds_on(certificate: &Certificate, on: &SlotLink) -> bool {
    let Plant { hosts, links, streams, .. } = &certificate.plant;
    let mut links = links.clone();
    if let Some(link) = links.first_mut() {
        link.name.clone_from(&on.name);
        link.ps_per_byte = on.ps_per_byte;
        link.foreign_bytes = on.foreign_bytes;
        link.frame_bytes_max = on.frame_bytes_max;
    }
    let plant = Plant { hosts: hosts.clone(), links, streams: Vec::new(), chains: Vec::new(), lanes: Vec::new() };
    let mut alone = Certificate { plant, placed: Vec::new(), chains: Vec::new(), lanes: Vec::new() };
    streams.iter().zip(&certificate.placed).all(|(stream, placed)| {
        alone.plant.streams = vec![stream.clone()];
        alone.placed = vec![placed.clone()];
        insane_checker::check(&alone.plant, &alone).is_ok()
    })
}

/// The same windows, of which those of one period do not overlap: a proof adds them up.
fn disjoint(windows: impl Iterator<Item = Window>) -> Vec<Window> {
    let mut by_period: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
    for Window { offset_ns, length_ns, period_ns } in windows {
        let pieces = by_period.entry(period_ns).or_default();
        let end = offset_ns.saturating_add(length_ns);
        pieces.push((offset_ns, end.min(period_ns)));
        if end > period_ns {
            pieces.push((0, end - period_ns));
        }
    }
    let mut all = Vec::new();
    for (period_ns, mut pieces) in by_period {
        pieces.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for (from, to) in pieces {
            match joined.last_mut().filter(|last| from <= last.1) {
                Some(last) => last.1 = last.1.max(to),
                None => joined.push((from, to)),
            }
        }
        all.extend(joined.iter().map(|(from, to)| Window { offset_ns: *from, length_ns: to - from, period_ns }));
    }
    all
}

/// What the datapath is told of a stream that has its place.
fn timed_stream(stream: &Stream, placed: &Placed, number: u16, late: insane_core::LatePolicy) -> Option<TimedStream> {
    let window = placed.windows.first()?;
    let slots = Recurrence::new(window.period_ns, window.offset_ns, window.length_ns).ok()?;
    let deadline_ns = stream.deadline_ns.saturating_sub(placed.start_ns);
    // What comes in the half of a period before a slot is meant for it.
    let (flow, early_ns) = (timed_flow(number), stream.period_ns / 2);
    let late = SlotConfig::late_policy(late);
    Some(TimedStream { flow, slots, bytes: stream.bytes, early_ns, deadline_ns, late })
}

impl Hub {
    /// Admits a new source, where it needs slots.
    pub(super) fn admit_source(
        &mut self,
        place: &Place,
        session: SessionId,
        uid: u64,
    ) -> Result<Option<Seat>, Refusal> {
        let Determinism::TimeSensitive { period, offset, deadline, size, late } = place.qos.determinism else {
            return Ok(None);
        };
        let Some(datapath) = self.spec.tx_datapath(place.qos.lane(), place.isolated) else { return Ok(None) };
        let peers = self.spec.datapath(datapath).peers.len().max(1) as u32;
        if self.slots.get(datapath.index()).is_none_or(Option::is_none) {
            let spec = self.spec.datapath(datapath);
            if spec.allows_unscheduled || !spec.is_networked() {
                return Ok(None);
            }
            let reason = "a time-sensitive stream needs slots, and a link of its datapath has no rate: \
                          configure its `rate_mbps`, or say `unscheduled: allow` of the datapath and have no bound in time";
            return Err(Refusal::new(Code::NotAdmitted, reason));
        }
        if place.qos.reliability == Reliability::Reliable {
            let reason = "a stream with slots is unreliable: repairs have no slots";
            return Err(Refusal::new(Code::NotAdmitted, reason));
        }
        if size == 0 {
            return Err(Refusal::new(Code::Invalid, "a time-sensitive stream needs a size of at least 1 byte"));
        }
        if self.armed.is_some() {
            let reason = "another schedule is about to take over: slots are given again in a moment";
            return Err(Refusal::new(Code::NotAdmitted, reason));
        }
        self.pace_admission(place.domain)?;
        let name = &self.contracts[&place.topic.key].name;
        let domain = self.spec.domain(place.domain).name.clone();
        let named = Named { domain, stream: name.clone(), channel: place.topic.channel.0 };
        let elsewhere = self.slots.iter().enumerate().filter(|(at, _)| *at != datapath.index());
        if let Some(link) = elsewhere.flat_map(|(_, book)| book).find_map(|book| book.reserves(&named)) {
            let reason = format!("the schedule has its slots on link {link:?}, and its lane goes by another");
            return Err(Refusal::new(Code::NotAdmitted, reason));
        }
        let Some(book) = self.slots[datapath.index()].as_mut() else { return Ok(None) };
        let bytes_each = book.spec.config.message_bytes(size, book.spec.payload_bytes_max, 1);
        let stream = Stream {
            name: format!("{name}/{} of session {session}, source {uid:016x}", place.topic.channel.0),
            class: Class::Statistical,
            period_ns: period.0,
            bytes: bytes_each.saturating_mul(peers),
            release_ns: offset.0,
            deadline_ns: deadline.0,
            path: vec![Hop { link: 0, delay_ns: 0 }],
        };
        match book.give(Asked { named, key: place.topic.key, stream, late, bytes_each }) {
            Ok(number) => {
                if let Some(widening) = self.widenings.get_mut(&datapath) {
                    widening.todo.push_back(number);
                }
                Ok(Some(Seat { datapath, number }))
            }
            Err(refusal) => {
                let _ = self.admissions[place.domain.index()].take(REFUSAL_COST - 1, self.asked_at);
                Err(refusal)
            }
        }
    }

    /// Whether a domain may ask for slots now.
    fn pace_admission(&mut self, domain: DomainIndex) -> Result<(), Refusal> {
        let bucket = &mut self.admissions[domain.index()];
        if bucket.take(1, self.asked_at) == Pace::Fine {
            return Ok(());
        }
        // Who asks too fast gets no debt by it: the next moment serves it again.
        bucket.set_rate(ADMISSIONS_PER_SECOND, self.asked_at);
        let reason = format!(
            "the domain may ask for slots {ADMISSIONS_PER_SECOND} times a second, or {} times in vain; try again",
            ADMISSIONS_PER_SECOND / REFUSAL_COST
        );
        Err(Refusal::new(Code::Quota, reason))
    }

    /// The admitted source has its number: its slots are put in force.
    pub(super) fn seat(&mut self, seat: Option<Seat>, source: SourceId) {
        let Some(Seat { datapath, number }) = seat else { return };
        let Some(book) = self.slots[datapath.index()].as_mut() else { return };
        book.sit(number, source);
        // One more source is one more certificate, which may not hold where the stream is.
        self.changes += 1;
        let _ = self.decide_stands(None);
        self.stage(datapath, None);
    }

    /// The peers of a datapath are others: slots are to have room for a message to each of them.
    pub(super) fn readmit(&mut self, datapath: DatapathIndex) {
        // What was under way was for other peers.
        self.widenings.remove(&datapath);
        let peers = self.spec.datapath(datapath).peers.len().max(1) as u32;
        let Some(book) = self.slots.get(datapath.index()).and_then(Option::as_ref) else { return };
        let is_right = |entry: &Entry| entry.asked.stream.bytes == entry.asked.bytes_each.saturating_mul(peers);
        if book.entries.iter().all(is_right) {
            return;
        }
        if self.armed.is_some() {
            let reason = "another schedule is about to take over".to_owned();
            return self.note(Note::SlotsNotWidened { datapath, peers, reason });
        }
        let todo = book.entries.iter().map(|entry| entry.number).collect();
        if let Some(book) = book.emptied() {
            self.widenings.insert(datapath, Widening { peers, book, todo });
        }
    }

    /// Whether sources are still to be admitted anew: then [`go_on`](Self::go_on) is to be
    /// called soon.
    #[must_use]
    pub fn is_readmitting(&self) -> bool {
        !self.widenings.is_empty()
    }

    /// Admits some of them, at most [`READMISSIONS_PER_EVENT`].
    pub fn go_on(&mut self) {
        let Some((datapath, widening)) = self.widenings.pop_first() else { return };
        let peers = widening.peers;
        match self.widen(datapath, widening) {
            Ok(Some(unfinished)) => drop(self.widenings.insert(datapath, unfinished)),
            Ok(None) => {}
            Err(refusal) => {
                self.note(Note::SlotsNotWidened { datapath, peers, reason: refusal.to_string() });
            }
        }
    }

    /// A step of it: `None` when all have their new slots, and those are on their way.
    fn widen(&mut self, datapath: DatapathIndex, mut widening: Widening) -> Result<Option<Widening>, Refusal> {
        let Some(now) = self.slots.get_mut(datapath.index()).and_then(Option::as_mut) else { return Ok(None) };
        for _ in 0..READMISSIONS_PER_EVENT {
            let Some(number) = widening.todo.pop_front() else { break };
            let Some(entry) = now.entries.iter().find(|entry| entry.number == number) else { continue };
            let mut asked = entry.asked.clone();
            asked.stream.bytes = asked.bytes_each.saturating_mul(widening.peers);
            widening.book.place(asked, number)?;
        }
        if !widening.todo.is_empty() {
            return Ok(Some(widening));
        }
        widening.book.verify()?;
        // Who sits where is as it is now.
        let mut book = widening.book;
        for entry in &mut book.entries {
            let before = now.entries.iter().find(|before| before.number == entry.number);
            entry.source = before.and_then(|before| before.source);
        }
        book.seated = std::mem::take(&mut now.seated);
        *now = book;
        self.changes += 1;
        self.stage(datapath, None);
        Ok(None)
    }

    /// Somebody has slots no more: nor among those that are admitted anew.
    fn forget_widened(&mut self, datapath: DatapathIndex, number: u16) {
        if let Some(widening) = self.widenings.get_mut(&datapath) {
            widening.todo.retain(|waiting| *waiting != number);
            widening.book.dismiss(number);
        }
    }

    /// The admitted source does not come to be.
    pub(super) fn dismiss(&mut self, seat: Option<Seat>) {
        if let Some(Seat { datapath, number }) = seat
            && let Some(book) = self.slots[datapath.index()].as_mut()
        {
            book.dismiss(number);
            self.forget_widened(datapath, number);
        }
    }

    /// A source is closed: its slots are free.
    pub(super) fn unseat(&mut self, source: SourceId) {
        // A table that waits for its instant is not replaced before: its slot goes by unused.
        for (at, book) in self.armed.iter_mut().flatten().enumerate() {
            if let Some((book, number)) = book.as_mut().and_then(|book| book.number_of(source).map(|n| (book, n))) {
                book.dismiss(number);
                self.deferred.insert(DatapathIndex(at as u8));
            }
        }
        for at in 0..self.slots.len() {
            let datapath = DatapathIndex(at as u8);
            let book = &mut self.slots[at];
            let Some((book, number)) = book.as_mut().and_then(|book| book.number_of(source).map(|n| (book, n))) else {
                continue;
            };
            book.dismiss(number);
            if self.armed.is_some() {
                self.deferred.insert(datapath);
            } else {
                self.stage(datapath, None);
            }
            self.changes += 1;
            self.forget_widened(datapath, number);
        }
    }

    /// The number of a source among those with slots at a datapath.
    pub(super) fn slot_number(&self, datapath: DatapathIndex, source: SourceId) -> Option<u16> {
        self.slots.get(datapath.index())?.as_ref()?.number_of(source)
    }

    /// The slots of a source.
    pub(super) fn slot_of(&self, source: SourceId) -> Option<TimedStream> {
        self.slots.iter().enumerate().find_map(|(at, book)| {
            let entry = book.as_ref()?.all().find(|entry| entry.source == Some(source))?;
            let link = self.standing(entry.asked.key, DatapathIndex(at as u8)).and_then(|stand| stand.link);
            Some(entry.on(link))
        })
    }

    /// Whether anybody has slots at a datapath.
    #[must_use]
    pub fn has_slots(&self, datapath: DatapathIndex) -> bool {
        self.slots.get(datapath.index()).and_then(Option::as_ref).is_some_and(|book| book.all().next().is_some())
    }

    /// Whether lanes of a datapath have contracts.
    pub(crate) fn has_contracts(&self, datapath: DatapathIndex) -> bool {
        self.lanes_of(datapath, u64::MAX).next().is_some()
    }

    /// What the schedule calls lanes of a datapath that have contracts, of a set of lanes.
    pub(crate) fn lanes_of(&self, datapath: DatapathIndex, set: u64) -> impl Iterator<Item = &str> {
        let book = self.slots.get(datapath.index()).and_then(Option::as_ref);
        let contracts = book.into_iter().flat_map(|book| book.contracts.iter().enumerate());
        let among = contracts.filter(move |(lane, _)| set >> lane & 1 == 1);
        among.filter_map(|(_, contract)| contract.as_ref().map(|(name, _)| name.as_str()))
    }

    /// What the certificates on which slots of a datapath rest assume of e_turn and e_wake, in
    /// this order; `None`: nobody has slots there.
    #[must_use]
    pub(crate) fn assumed(&self, datapath: DatapathIndex) -> Option<[Basis; 2]> {
        let book = self.slots.get(datapath.index())?.as_ref()?;
        // The certificate counts a turn twice.
        let basis = |host: &Host, is_assured, is_statistical| {
            [(&host.turn, 2), (&host.wake, 1)].map(|(epsilon, times)| Basis {
                is_assured,
                is_statistical,
                quantile: Nanos(epsilon.quantile_ns / times),
                quantile_ppm: epsilon.quantile_ppm,
                max: Nanos(epsilon.max_ns / times),
            })
        };
        let own = book.plan.plant().hosts.first().filter(|_| !book.entries.is_empty());
        let own = own.map(|host| basis(host, false, true));
        let plant = self.schedule.as_ref().map(|schedule| &schedule.certificate.plant);
        let named = plant.and_then(|plant| plant.hosts.iter().find(|host| host.name == book.spec.host));
        let named = named.filter(|_| !book.seated.is_empty()).map(|host| {
            let is = |class: Class| book.seated.iter().any(|(at, _)| book.reserved[*at].stream.class == class);
            basis(host, is(Class::Assured), is(Class::Statistical))
        });
        match (own, named) {
            (Some(own), Some(named)) => Some([own[0].and(named[0]), own[1].and(named[1])]),
            (own, named) => own.or(named),
        }
    }

    /// The certificate of a datapath, in its text form: of the schedule of several hosts where
    /// all who have slots are named by it, else of those that were admitted here.
    #[must_use]
    pub fn certificate(&self, datapath: DatapathIndex) -> Option<String> {
        let book = self.slots.get(datapath.index())?.as_ref()?;
        let certificate = match (&book.entries[..], &book.seated[..], &self.schedule) {
            ([], [], _) => return None,
            // Only who the schedule names: it is the schedule's that speaks of them.
            ([], _, Some(schedule)) => (*schedule.certificate).clone(),
            _ => book.plan.certificate(),
        };
        insane_certificate::text::write(&certificate).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insane_clock::ServoConfig;
    use insane_scheduler::{LinkRate, LinkTiming};

    /// Slots that were found with the numbers of one link hold on a link that is as good or
    /// better, and on no worse one.
    #[test]
    fn slots_hold_on_another_link_if_its_own_numbers_let_them() {
        let link = |name: &str, ps_per_byte, foreign_bytes| SlotLink {
            name: name.into(),
            ps_per_byte,
            foreign_bytes,
            frame_bytes_max: 1_538,
        };
        let links = vec![
            link("counted", 80_000, 1_538),
            link("faster", 8_000, 0),
            link("slower", 800_000, 1_538),
            link("busier", 80_000, 15_380),
        ];
        let timing = LinkTiming {
            rate: LinkRate::from_bits_per_s(100_000_000).unwrap(),
            turn_ns: 50_000,
            foreign_bytes: 1_538,
            in_flight_bytes: 6_250,
            lead_ns: 0,
            step_ns: 1_000_000,
        };
        let spec = SlotSpec {
            host: "here".into(),
            link: "counted".into(),
            links,
            config: SlotConfig { timing, overhead_bytes: 66, servo: ServoConfig::default(), asked_links: 0 },
            payload_bytes_max: 1_408,
            quantile_ppm: 999_000,
            gates: None,
        };
        let mut book = SlotBook::new(spec).unwrap();
        let asked = |channel: u32| Asked {
            named: Named { domain: "d".into(), stream: "axis".into(), channel },
            key: StreamKey(7),
            stream: Stream {
                name: format!("axis/{channel}"),
                class: Class::Statistical,
                period_ns: 10_000_000,
                bytes: 500,
                release_ns: 0,
                deadline_ns: 10_000_000,
                path: vec![Hop { link: 0, delay_ns: 0 }],
            },
            late: insane_core::LatePolicy::NextSlot,
            bytes_each: 500,
        };
        for channel in 0..3 {
            book.give(asked(channel)).unwrap();
        }
        assert_eq!([0, 1, 2, 3, 4].map(|link| book.holds(StreamKey(7), link)), [true, true, false, false, false]);
    }
}
