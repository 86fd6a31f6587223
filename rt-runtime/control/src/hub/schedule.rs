//! A schedule of several hosts at this one: what it reserves for whom, whether this host is
//! what it assumes, and the change from one schedule to another.
//!
//! The certificate was accepted by the checker before it comes here. What this module asks is
//! whether it is about this host: links by their names, rates, e_turn, foreign bytes, bytes in
//! flight. A certificate that assumes more of the host than its configuration promises is
//! refused.
//!
//! Its sporadic lanes are lanes of the datapath, by their priorities: what is sent there is held
//! to what it says arrives.

use super::Hub;
use super::slots::{Contracts, SlotBook};
use crate::action::Topic;
use crate::plan_spec::shut_for_slots;
use crate::spec::SlotSpec;
use insane_certificate::{Certificate, Class, Host, Lane, Link, Placed, Plant, Stream, Window};
use insane_core::{DatapathIndex, Determinism, MonoTime, Nanos};
use insane_scheduler::{Arrivals, Recurrence};
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;

/// Who a stream is: of a plan, `[domain:]stream[/channel]`; with the domain where the stream's
/// own name has a colon.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Named {
    pub(super) domain: String,
    pub(super) stream: String,
    pub(super) channel: u32,
}

/// Between the name of a stream of a plan and that of the link on which it has other slots.
const ALTERNATE_AT: char = '@';

/// Whether a name of a plan is that of a stream.
fn names(name: &str, Named { domain, stream, channel }: &Named) -> bool {
    let name = match name.strip_prefix(domain).and_then(|rest| rest.strip_prefix(':')) {
        Some(name) => name,
        // A tenant may call its stream `other:stream`, and has no claim to what is another's.
        None if stream.contains(':') => return false,
        None => name,
    };
    name == stream || name.strip_prefix(stream.as_str()).is_some_and(|rest| rest == format!("/{channel}"))
}

/// What a schedule keeps for a stream of this host.
#[derive(Clone, Debug)]
pub(super) struct Reserved {
    pub(super) stream: Stream,
    pub(super) placed: Placed,
    /// It is the alternate of another one, on the link at this place of the datapath.
    pub(super) elsewhere: Option<usize>,
}

impl Reserved {
    pub(super) fn is_for(&self, named: &Named) -> bool {
        self.elsewhere.is_none() && names(&self.stream.name, named)
    }

    /// Whether it is what the stream has on another link.
    pub(super) fn is_alternate_for(&self, named: &Named) -> bool {
        let base = self.stream.name.rsplit_once(ALTERNATE_AT);
        self.elsewhere.is_some() && base.is_some_and(|(base, _)| names(base, named))
    }

    /// Whether what a source asks for is what was planned.
    ///
    /// # Errors
    /// What differs.
    pub(super) fn suits(&self, asked: &Stream) -> Result<(), String> {
        let planned = &self.stream;
        let differs = |what: &str, planned: String, asked: String| {
            Err(format!(
                "the schedule plans stream {:?} with {what} {planned}, and the source asks for {asked}",
                self.stream.name
            ))
        };
        if asked.period_ns != planned.period_ns {
            return differs("a period of", Nanos(planned.period_ns).to_string(), Nanos(asked.period_ns).to_string());
        }
        if asked.bytes > planned.bytes {
            let bytes = |stream: &Stream| format!("{} bytes of the link", stream.bytes);
            return differs("at most", bytes(planned), bytes(asked));
        }
        if asked.release_ns > self.placed.start_ns {
            let (start, release) = (Nanos(self.placed.start_ns).to_string(), Nanos(asked.release_ns).to_string());
            return differs("its slot at", start, format!("none before {release}"));
        }
        if asked.deadline_ns < planned.deadline_ns {
            return differs("arrival by", Nanos(planned.deadline_ns).to_string(), Nanos(asked.deadline_ns).to_string());
        }
        Ok(())
    }
}

/// A schedule that is, or is about to be, in force.
#[derive(Clone, Debug)]
pub struct Installed {
    /// Its digest.
    pub id: u64,
    /// What it says.
    pub certificate: Arc<Certificate>,
    /// The instant since when it is in force, or from when on.
    pub since: MonoTime,
}

/// Whose messages reach no peer, as long as it is not known whether their slots hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Withheld {
    /// Nobody's.
    Nothing,
    /// Those of streams that the schedule names.
    Named,
    /// Those of all time-sensitive streams with slots.
    All,
}

impl SlotBook {
    /// The link on which something is reserved for this stream.
    pub(super) fn reserves(&self, named: &Named) -> Option<&str> {
        self.reserved.iter().any(|reserved| reserved.is_for(named)).then_some(&self.spec.link)
    }

    /// The book of a datapath under a schedule, with all who have slots there now.
    fn under(certificate: &Certificate, host: usize, old: &SlotBook) -> Result<SlotBook, String> {
        let plant = &certificate.plant;
        let spec = old.spec.clone();
        // Whichever link a window is on: the datapath is one thread, and sends by one at a time.
        let is_ours = |link: &Link| link.host == Some(host) && spec.links.iter().any(|own| own.name == link.name);
        let (mut reserved, mut blocked, mut taken) = (Vec::new(), Vec::new(), Vec::new());
        for (at, link) in plant.links.iter().enumerate().filter(|(_, link)| is_ours(link)) {
            let from = reserved.len();
            for (stream, placed) in plant.streams.iter().zip(&certificate.placed) {
                let windows = stream.path.iter().zip(&placed.windows).filter(|(hop, _)| hop.link == at);
                for (_, window) in windows {
                    excludes_others(&taken, link, stream, window)?;
                    is_open(&spec, stream, window)?;
                    taken.push((link, stream, window));
                    blocked.push(window.clone());
                }
                if stream.path.first().is_some_and(|hop| hop.link == at) {
                    let elsewhere = is_alternate(plant, stream, link).then(|| place_of(&spec, link)).flatten();
                    reserved.push(Reserved { stream: stream.clone(), placed: placed.clone(), elsewhere });
                }
            }
            blocked.extend(link.blocked.iter().cloned());
            is_met(&spec, &plant.hosts[host], link, &reserved[from..])?;
        }
        let mut contracts = Contracts::default();
        let mut lanes = plant.lanes.iter().filter(|lane| plant.links.get(lane.link).is_some_and(is_ours));
        lanes.try_for_each(|lane| contract(&mut contracts, lane))?;
        let link = spec.link.clone();
        let none = || format!("the windows on link {link:?} cannot be kept beside others");
        let mut book = SlotBook::beside(spec, reserved, blocked, contracts).ok_or_else(none)?;
        book.take_over(old)?;
        Ok(book)
    }
}

/// Takes an arrival contract among those of its datapath.
fn contract(contracts: &mut Contracts, lane: &Lane) -> Result<(), String> {
    let last = contracts.len() - 1;
    let none = || {
        format!(
            "the schedule plans lane {:?} with priority {}, and lanes here are 0 to {last}",
            lane.name, lane.priority
        )
    };
    let place = contracts.get_mut(usize::from(lane.priority)).ok_or_else(none)?;
    let numbers = NonZeroU32::new(lane.frame_bytes).zip(NonZeroU64::new(lane.interval_ns));
    let (frame_bytes, interval_ns) = numbers.ok_or_else(|| format!("lane {:?} is of nothing", lane.name))?;
    let arrivals = Arrivals { frame_bytes, burst_frames: lane.burst_frames, interval_ns };
    // Of equal ones, too, the plan allows each: one alone would hold up who keeps both.
    match place {
        Some((other, _)) => Err(format!(
            "lanes {other:?} and {:?} of the schedule are one here, priority {} of a datapath that sends by one link \
             at a time, and each has a contract",
            lane.name, lane.priority
        )),
        None => {
            *place = Some((lane.name.clone(), arrivals));
            Ok(())
        }
    }
}

/// Whether a stream is what another one of the plan has on this link instead.
fn is_alternate(plant: &Plant, stream: &Stream, link: &Link) -> bool {
    base_of(&stream.name)
        .is_some_and(|(base, on)| on == link.name && plant.streams.iter().any(|other| other.name == base))
}

fn base_of(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once(ALTERNATE_AT)
}

fn place_of(spec: &SlotSpec, link: &Link) -> Option<usize> {
    spec.links.iter().position(|own| own.name == link.name)
}

/// Whether a window is apart from those of other links of the same datapath.
fn excludes_others(
    taken: &[(&Link, &Stream, &Window)],
    link: &Link,
    stream: &Stream,
    window: &Window,
) -> Result<(), String> {
    let slots = |window: &Window| Recurrence::new(window.period_ns, window.offset_ns, window.length_ns).ok();
    // Of the slots of a stream on one link and on another it has one at a time.
    let base = |name: &str| base_of(name).map_or(name, |(base, _)| base).to_owned();
    let is_own = |rival: &Stream| base(&rival.name) == base(&stream.name);
    let mut others = taken.iter().filter(|(other, rival, _)| other.name != link.name && !is_own(rival));
    let other = others.find(|(.., other)| {
        let pair = slots(other).zip(slots(window));
        pair.is_some_and(|(one, other)| one.overlaps(other))
    });
    match other {
        Some((other, rival, _)) => Err(format!(
            "links {:?} and {:?} are of one datapath, which sends by one at a time, and the schedule plans {:?} and \
             {:?} at once there",
            other.name, link.name, rival.name, stream.name
        )),
        None => Ok(()),
    }
}

/// Whether the gates of the datapath let a slot through.
fn is_open(spec: &SlotSpec, stream: &Stream, window: &Window) -> Result<(), String> {
    let shut = spec.gates.as_deref().map(shut_for_slots).unwrap_or_default();
    let slots = |window: &Window| Recurrence::new(window.period_ns, window.offset_ns, window.length_ns).ok();
    let meets = |shut: &Window| slots(shut).zip(slots(window)).is_some_and(|(shut, slot)| shut.overlaps(slot));
    if shut.iter().any(meets) {
        return Err(format!(
            "the gates of link {:?} (`gates` of its datapath) are shut in slots that the schedule plans for {:?}",
            spec.link, stream.name
        ));
    }
    Ok(())
}

/// Whether the link is what the schedule assumes of it.
fn is_met(spec: &SlotSpec, host: &Host, link: &Link, reserved: &[Reserved]) -> Result<(), String> {
    let timing = spec.config.timing;
    let name = &link.name;
    if link.ps_per_byte != timing.rate.ps_per_byte() {
        return Err(format!(
            "link {name:?} takes {} ps a byte here (rate_mbps of the datapath's slowest), and the schedule assumes {}",
            timing.rate.ps_per_byte(),
            link.ps_per_byte
        ));
    }
    // A turn looks at a slot as late as the turn before may take, and as late again it sends.
    let turn_ns = timing.turn_ns.saturating_mul(2);
    let assured = reserved.iter().any(|reserved| reserved.stream.class == Class::Assured);
    let statistical = reserved.iter().any(|reserved| reserved.stream.class == Class::Statistical);
    let assumed = [(assured, host.turn.max_ns), (statistical, host.turn.quantile_ns)];
    if let Some((_, assumed)) = assumed.into_iter().find(|(is_used, assumed)| *is_used && *assumed < turn_ns) {
        return Err(format!(
            "two turns on link {name:?} may take {} here (turn_us), and the schedule assumes {}",
            Nanos(turn_ns),
            Nanos(assumed)
        ));
    }
    let more = [
        ("foreign bytes", timing.foreign_bytes, link.foreign_bytes),
        ("bytes in flight", timing.in_flight_bytes, link.in_flight_bytes),
        (
            "bytes of a frame",
            spec.config.message_bytes(spec.payload_bytes_max, spec.payload_bytes_max, 1),
            link.frame_bytes_max,
        ),
    ];
    match more.into_iter().find(|(_, here, assumed)| here > assumed) {
        Some((what, here, assumed)) => {
            Err(format!("link {name:?} may have {here} {what} here, and the schedule assumes {assumed}"))
        }
        None => Ok(()),
    }
}

impl Hub {
    /// Whether a schedule could be in force here, with all who have slots now.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn judge_schedule(&self, certificate: &Certificate) -> Result<(), String> {
        self.books_under(certificate).map(drop)
    }

    /// Lets a schedule take over at an instant: until then nobody gets slots. The certificate
    /// was checked.
    ///
    /// # Errors
    /// As [`judge_schedule`](Self::judge_schedule), which looked at who had slots then; or
    /// another schedule waits already.
    pub fn arm_schedule(&mut self, id: u64, certificate: Arc<Certificate>, at: MonoTime) -> Result<(), String> {
        if self.armed.is_some() {
            return Err("another schedule is about to take over".into());
        }
        let books = self.books_under(&certificate)?;
        // It is begun anew when the schedule has taken over, or not.
        self.widenings.clear();
        let before = std::mem::replace(&mut self.slots, books);
        // Other certificates hold on other links.
        let _ = self.decide_stands(None);
        for (number, old) in before.iter().enumerate() {
            let has_some = |book: &Option<SlotBook>| book.as_ref().is_some_and(SlotBook::is_used);
            // A datapath without slots before and after has nothing to take over; its gates stay.
            if has_some(old) || has_some(&self.slots[number]) {
                self.stage(DatapathIndex(number as u8), Some(at));
            }
        }
        self.armed = Some(before);
        self.schedule_before = self.schedule.replace(Installed { id, certificate, since: at });
        Ok(())
    }

    /// A schedule is in force at once: it was before the runtime was restarted. The certificate
    /// was checked.
    ///
    /// # Errors
    /// As [`judge_schedule`](Self::judge_schedule).
    pub fn take_up_schedule(&mut self, id: u64, certificate: Arc<Certificate>, now: MonoTime) -> Result<(), String> {
        let books = self.books_under(&certificate)?;
        self.put_books(books);
        self.schedule = Some(Installed { id, certificate, since: now });
        self.readmit_all();
        Ok(())
    }

    /// No schedule is in force any more: who was named by it is admitted as others are.
    ///
    /// # Errors
    /// Who would lose its slots.
    pub fn drop_schedule(&mut self) -> Result<(), String> {
        let without = |book: &Option<SlotBook>| {
            let Some(old) = book else { return Ok(None) };
            let mut book = SlotBook::new(old.spec.clone()).ok_or("the links make no plant; this is a bug")?;
            book.take_over(old)?;
            Ok(Some(book))
        };
        let books = self.slots.iter().map(without).collect::<Result<Vec<_>, String>>()?;
        self.put_books(books);
        self.schedule = None;
        self.readmit_all();
        Ok(())
    }

    fn put_books(&mut self, books: Vec<Option<SlotBook>>) {
        self.widenings.clear();
        let before = std::mem::replace(&mut self.slots, books);
        // Other certificates hold on other links.
        let _ = self.decide_stands(None);
        for (at, old) in before.iter().enumerate() {
            let is_used = |book: &Option<SlotBook>| book.as_ref().is_some_and(SlotBook::is_used);
            if is_used(old) || is_used(&self.slots[at]) {
                self.stage(DatapathIndex(at as u8), None);
            }
        }
    }

    /// Whose messages reach no peer from now on.
    pub fn withhold(&mut self, what: Withheld) {
        if std::mem::replace(&mut self.withheld, what) != what {
            let topics: Vec<Topic> = self.channels.keys().copied().collect();
            topics.into_iter().for_each(|topic| self.update_routes(topic));
        }
    }

    pub(super) fn is_withheld(&self, topic: Topic) -> bool {
        let Some(contract) = self.contracts.get(&topic.key).filter(|_| self.withheld != Withheld::Nothing) else {
            return false;
        };
        if !matches!(contract.qos.determinism, Determinism::TimeSensitive { .. }) {
            return false;
        }
        let domain = self.spec.domain(contract.domain).name.clone();
        let named = Named { domain, stream: contract.name.clone(), channel: topic.channel.0 };
        let mut books = self.slots.iter().flatten();
        books.any(|book| self.withheld == Withheld::All || book.reserves(&named).is_some())
    }

    /// The schedule that waited does not take over: what held before does.
    pub fn disarm_schedule(&mut self) {
        let Some(before) = self.armed.take() else { return };
        self.slots = before;
        self.changes += 1;
        let _ = self.decide_stands(None);
        self.schedule = self.schedule_before.take();
        self.deferred.clear();
        for at in 0..self.slots.len() {
            self.stage(DatapathIndex(at as u8), None);
        }
        self.readmit_all();
    }

    /// The schedule has taken over.
    pub fn settle_schedule(&mut self) {
        self.armed = None;
        self.schedule_before = None;
        self.changes += 1;
        for datapath in std::mem::take(&mut self.deferred) {
            self.stage(datapath, None);
        }
        self.readmit_all();
    }

    /// The schedule of several hosts that the slots rest on.
    #[must_use]
    pub const fn schedule(&self) -> Option<&Installed> {
        self.schedule.as_ref()
    }

    /// Peers that came or went while a schedule waited changed no slots then.
    fn readmit_all(&mut self) {
        for at in 0..self.slots.len() {
            self.readmit(DatapathIndex(at as u8));
        }
    }

    fn books_under(&self, certificate: &Certificate) -> Result<Vec<Option<SlotBook>>, String> {
        let plant = &certificate.plant;
        let name = self.slots.iter().flatten().map(|book| &book.spec.host).next();
        let name = name.ok_or("no link here has a rate (rate_mbps), so there are no slots")?;
        let host = plant.hosts.iter().position(|host| host.name == *name);
        let host = host.ok_or_else(|| format!("the schedule is not about host {name:?}"))?;
        let has = |link: &&Link| {
            self.slots.iter().flatten().any(|book| book.spec.links.iter().any(|own| own.name == link.name))
        };
        if let Some(link) = plant.links.iter().filter(|link| link.host == Some(host)).find(|link| !has(link)) {
            return Err(format!(
                "the schedule has a link {:?} of host {name:?}, which is not here, or has no rate",
                link.name
            ));
        }
        let under =
            |book: &Option<SlotBook>| book.as_ref().map(|book| SlotBook::under(certificate, host, book)).transpose();
        self.slots.iter().map(under).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_for(planned: &str, domain: &str, stream: &str, channel: u32) -> bool {
        let stream_planned = Stream {
            name: planned.into(),
            class: Class::Statistical,
            period_ns: 1,
            bytes: 1,
            release_ns: 0,
            deadline_ns: 1,
            path: vec![],
        };
        let placed = Placed { start_ns: 0, windows: vec![] };
        let reserved = Reserved { stream: stream_planned, placed, elsewhere: None };
        reserved.is_for(&Named { domain: domain.into(), stream: stream.into(), channel })
    }

    #[test]
    fn a_reservation_is_for_who_is_named_and_no_tenant_takes_anothers_by_a_name() {
        assert!(is_for("axis", "press", "axis", 5) && is_for("axis/5", "press", "axis", 5));
        assert!(is_for("press:axis", "press", "axis", 5) && is_for("press:axis/5", "press", "axis", 5));
        assert!(!is_for("axis/5", "press", "axis", 6) && !is_for("press:axis", "other", "axis", 5));
        assert!(!is_for("press:axis", "other", "press:axis", 5), "a stream of that name, of another tenant");
        assert!(!is_for("press:axis/5", "other", "press:axis", 5));
        assert!(is_for("other:press:axis", "other", "press:axis", 5), "named with its domain it has its own");
    }
}
