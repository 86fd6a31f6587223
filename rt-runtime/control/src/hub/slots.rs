//! Who has slots: admission, certificates, and the tables of the datapaths.
//!
//! A source of a time-sensitive stream whose datapath has links of a known rate is admitted
//! when it is created, and has its slots until it is closed, whether or not a peer listens
//! just now. Whoever is refused is told the proof, or that nothing was found, and the nearest
//! offer. What the synthesiser found is believed only after the checker, which shares no code
//! with it, agrees.
//!
//! Where the rate is not known there are no slots: the stream goes in its real-time lane,
//! without a bound, and reports say so.

use super::port::Place;
use super::{Hub, Refusal};
use crate::action::Action;
use crate::spec::SlotSpec;
use insane_admission::{Budget, Plan, synthesise};
use insane_certificate::{Boundary, Class, Epsilon, Hop, Host, Link, Plant, Stream};
use insane_core::{DatapathIndex, Determinism, Reliability, SessionId, SourceId};
use insane_engine::{SlotConfig, TIMED_MAX, timed_flow};
use insane_scheduler::{Recurrence, TimedStream};
use insane_wire::control::Code;

/// Search of one admission: a session waits for it.
const BUDGET: Budget = Budget { jumps: 20_000, rounds: 1 };

/// A stream that is admitted.
#[derive(Clone, Debug)]
struct Entry {
    /// `None` between admission and the source's number.
    source: Option<SourceId>,
    timed: TimedStream,
    number: u16,
}

/// The slots of one datapath.
#[derive(Clone, Debug)]
pub struct SlotBook {
    spec: SlotSpec,
    plan: Plan,
    /// In the order of the plan's streams.
    entries: Vec<Entry>,
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
        let timing = spec.config.timing;
        // Configured, not measured: no sample stands behind them.
        let epsilon = |ns| Epsilon { quantile_ppm: 1_000_000, quantile_ns: ns, max_ns: ns, samples: 0 };
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
            blocked: Vec::new(),
        };
        let plant =
            Plant { hosts: vec![host], links: vec![link], streams: Vec::new(), chains: Vec::new(), lanes: Vec::new() };
        let plan = synthesise(&plant, BUDGET).ok()?;
        Some(SlotBook { spec, plan, entries: Vec::new() })
    }

    fn free_number(&self) -> Option<u16> {
        (0..TIMED_MAX as u16).find(|number| self.entries.iter().all(|entry| entry.number != *number))
    }

    /// Admits a stream.
    fn admit(&mut self, stream: Stream, late: insane_core::LatePolicy) -> Result<u16, Refusal> {
        let Some(number) = self.free_number() else {
            let reason = format!("a datapath has slots for at most {TIMED_MAX} sources");
            return Err(Refusal::new(Code::Resources, reason));
        };
        let (period_ns, bytes, deadline_ns) = (stream.period_ns, stream.bytes, stream.deadline_ns);
        let mut plan = self.plan.clone();
        let at = plan.admit(stream, BUDGET).map_err(|refusal| {
            let link = &self.spec.link;
            Refusal::new(Code::NotAdmitted, format!("no slots on link {link:?}: {refusal}"))
        })?;
        let certificate = plan.certificate();
        insane_checker::check(plan.plant(), &certificate).map_err(|flaw| {
            let reason = format!("the schedule that was found does not hold ({flaw:?}); this is a bug");
            Refusal::new(Code::NotAdmitted, reason)
        })?;
        let placed = &certificate.placed[at];
        let window = placed.windows.first().and_then(|window| {
            let slots = Recurrence::new(window.period_ns, window.offset_ns, window.length_ns).ok()?;
            let deadline_ns = deadline_ns.saturating_sub(placed.start_ns);
            // What comes in the half of a period before a slot is meant for it.
            let (flow, early_ns) = (timed_flow(number), period_ns / 2);
            let late = SlotConfig::late_policy(late);
            Some(TimedStream { flow, slots, bytes, early_ns, deadline_ns, late })
        });
        let Some(timed) = window else {
            return Err(Refusal::new(Code::NotAdmitted, "a schedule without windows; this is a bug"));
        };
        self.plan = plan;
        self.entries.push(Entry { source: None, timed, number });
        Ok(number)
    }

    fn dismiss(&mut self, number: u16) {
        if let Some(at) = self.entries.iter().position(|entry| entry.number == number)
            && self.plan.dismiss(at)
        {
            self.entries.remove(at);
        }
    }

    fn streams(&self) -> Vec<TimedStream> {
        self.entries.iter().map(|entry| entry.timed).collect()
    }
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
        let Some(book) = self.slots.get_mut(datapath.index()).and_then(Option::as_mut) else { return Ok(None) };
        if place.qos.reliability == Reliability::Reliable {
            let reason = "a stream with slots is unreliable: repairs have no slots";
            return Err(Refusal::new(Code::NotAdmitted, reason));
        }
        if size == 0 {
            return Err(Refusal::new(Code::Invalid, "a time-sensitive stream needs a size of at least 1 byte"));
        }
        let name = &self.contracts[&place.topic.key].name;
        let stream = Stream {
            name: format!("{name}/{} of session {session}, source {uid:016x}", place.topic.channel.0),
            class: Class::Statistical,
            period_ns: period.0,
            bytes: book.spec.config.message_bytes(size, book.spec.payload_bytes_max, peers),
            release_ns: offset.0,
            deadline_ns: deadline.0,
            path: vec![Hop { link: 0, delay_ns: 0 }],
        };
        let number = book.admit(stream, late)?;
        Ok(Some(Seat { datapath, number }))
    }

    /// The admitted source has its number: its slots are put in force.
    pub(super) fn seat(&mut self, seat: Option<Seat>, source: SourceId) {
        let Some(Seat { datapath, number }) = seat else { return };
        let Some(book) = self.slots[datapath.index()].as_mut() else { return };
        if let Some(entry) = book.entries.iter_mut().find(|entry| entry.number == number) {
            entry.source = Some(source);
        }
        let streams = book.streams();
        self.actions.push_back(Action::StageSlots { datapath, streams });
    }

    /// The admitted source does not come to be.
    pub(super) fn dismiss(&mut self, seat: Option<Seat>) {
        if let Some(Seat { datapath, number }) = seat
            && let Some(book) = self.slots[datapath.index()].as_mut()
        {
            book.dismiss(number);
        }
    }

    /// A source is closed: its slots are free.
    pub(super) fn unseat(&mut self, source: SourceId) {
        for (at, book) in self.slots.iter_mut().enumerate() {
            let Some(book) = book else { continue };
            let Some(number) = book.entries.iter().find(|e| e.source == Some(source)).map(|e| e.number) else {
                continue;
            };
            book.dismiss(number);
            let streams = book.streams();
            self.actions.push_back(Action::StageSlots { datapath: DatapathIndex(at as u8), streams });
        }
    }

    /// The number of a source among those with slots at a datapath.
    pub(super) fn slot_number(&self, datapath: DatapathIndex, source: SourceId) -> Option<u16> {
        let book = self.slots.get(datapath.index())?.as_ref()?;
        book.entries.iter().find(|entry| entry.source == Some(source)).map(|entry| entry.number)
    }

    /// The slots of a source.
    pub(super) fn slot_of(&self, source: SourceId) -> Option<TimedStream> {
        let mut entries = self.slots.iter().flatten().flat_map(|book| &book.entries);
        entries.find(|entry| entry.source == Some(source)).map(|entry| entry.timed)
    }

    /// The certificate of a datapath, in its text form.
    #[must_use]
    pub fn certificate(&self, datapath: DatapathIndex) -> Option<String> {
        let book = self.slots.get(datapath.index())?.as_ref().filter(|book| !book.entries.is_empty())?;
        insane_certificate::text::write(&book.plan.certificate()).ok()
    }
}
