//! Schedules of several hosts, carried out: a certificate is read and checked on a thread of
//! its own, the member's machine (`insane_overlay::activation`) decides, the hub changes.
//!
//! A host without a disciplined clock takes part only where it is told that all hosts share
//! one kernel: slots of different phase would be worse than none.

use super::keeping::{Keeping, Known};
use super::{Letter, Server};
use crate::datapath::Datapath;
use crate::hub::Hub;
use crate::launch;
use crate::monitors::{Alarm, Assumption, Holds, Measured, Monitors};
use crate::report::Scope;
use insane_certificate::{Certificate, text};
use insane_config::FILE_BYTES_MAX;
use insane_core::time::{Clock, PairedRead};
use insane_core::{DatapathIndex, Nanos, SessionId, TaiTime};
use insane_overlay::activation::{Deed, Member, MemberCounts, MemberLimits, ScheduleId, Word};
use insane_sys::clock::MonotonicClock;
use insane_wire::control::{Event, ScheduleOrder, ScheduleWord};
use insane_wire::status::{ScheduleStatus, StatusReport};
use std::collections::BTreeMap;
use std::sync::Arc;
use tracing::{debug, error, info, warn};

/// Between two looks at the queues of interfaces that hold frames back.
const QUEUES_PERIOD: Nanos = Nanos::from_secs(1);

/// A certificate that was read, on its way back to the control thread.
#[derive(Debug)]
pub(crate) struct JudgedSchedule {
    asker: (SessionId, u32),
    local_clock: bool,
    id: ScheduleId,
    certificate: Result<(String, Certificate), String>,
}

/// What schedules need to remember.
#[derive(Debug)]
pub(super) struct Schedules {
    pub(super) member: Member,
    uploads: BTreeMap<SessionId, (u32, Vec<u8>)>,
    /// A certificate is being read and checked.
    is_reading: bool,
    /// And whether all its hosts share one kernel.
    staged: Option<(ScheduleId, String, Arc<Certificate>, bool)>,
    /// The schedule in force needs the clock of a plant.
    pub(super) needs_phase: bool,
    needs_phase_next: bool,
    pub(super) keeping: Keeping,
}

impl Default for Schedules {
    fn default() -> Self {
        Schedules {
            member: Member::new(MemberLimits::default()),
            uploads: BTreeMap::new(),
            is_reading: false,
            staged: None,
            needs_phase: false,
            needs_phase_next: false,
            keeping: Keeping::default(),
        }
    }
}

impl Schedules {
    pub(super) fn forget(&mut self, session: SessionId) {
        self.uploads.remove(&session);
    }
}

fn wire(word: Word) -> ScheduleWord {
    match word {
        Word::Staged => ScheduleWord::Staged,
        Word::Refused(why) => ScheduleWord::Refused(why),
        Word::Committed => ScheduleWord::Committed,
        Word::Cannot(why) => ScheduleWord::Cannot(why),
        Word::Aborted => ScheduleWord::Aborted,
        Word::InForce => ScheduleWord::InForce,
    }
}

/// What CLOCK_TAI says, and whether somebody disciplines it.
pub(super) fn tai() -> (TaiTime, bool) {
    let disciplined = |read: PairedRead| (read.tai, read.has_offset && read.is_synchronised);
    MonotonicClock.pair().map_or_else(|| (insane_sys::clock::tai_now(), false), disciplined)
}

impl Server {
    pub(super) fn take_schedule(&mut self, session: SessionId, req: u32, order: ScheduleOrder) {
        let word = match order {
            ScheduleOrder::Stage { local_clock, last, piece } => {
                return self.take_certificate((session, req), local_clock, last, &piece);
            }
            ScheduleOrder::Commit { schedule, at } => match self.commit_schedule(ScheduleId(schedule), at) {
                // Nobody hears that it is committed before it outlives this runtime.
                Word::Committed => return self.keep_armed((session, req), ScheduleId(schedule)),
                word => word,
            },
            ScheduleOrder::Forget => return self.forget_schedule((session, req)),
            ScheduleOrder::Abort { schedule } => {
                // What has taken over since the last look is not taken back.
                self.tend_schedule();
                let (word, deed) = self.schedules.member.abort(ScheduleId(schedule));
                self.carry_out_deed(deed);
                word
            }
            ScheduleOrder::Ask { schedule } => {
                self.tend_schedule();
                // It is asked again and again: that is nothing for a log.
                let word = wire(self.schedules.member.ask(ScheduleId(schedule)));
                return self.send(session, &Event::Schedule { req, word }, &[]);
            }
        };
        self.say_word((session, req), word);
    }

    pub(super) fn say_word(&mut self, (session, req): (SessionId, u32), word: Word) {
        info!(%session, ?word, "a schedule of several hosts");
        self.send(session, &Event::Schedule { req, word: wire(word) }, &[]);
    }

    fn take_certificate(&mut self, asker: (SessionId, u32), local_clock: bool, last: bool, piece: &[u8]) {
        let (session, req) = asker;
        let upload = self.schedules.uploads.entry(session).or_insert((req, Vec::new()));
        if upload.0 != req {
            *upload = (req, Vec::new());
        }
        let most = FILE_BYTES_MAX as usize + 1;
        upload.1.extend(piece.iter().take(most - upload.1.len().min(most)));
        if !last {
            return;
        }
        let Some((_, bytes)) = self.schedules.uploads.remove(&session) else { return };
        if std::mem::replace(&mut self.schedules.is_reading, true) {
            return self.say_word(asker, Word::Refused("another certificate is being checked; try again".into()));
        }
        let (mailbox, bell) = (self.parts.mailbox.clone(), Arc::clone(&self.parts.bell));
        let read = move || {
            let id = ScheduleId(text::digest(&bytes));
            let judged = JudgedSchedule { asker, local_clock, id, certificate: read_text(bytes) };
            // The runtime may have ended meanwhile.
            let _ = mailbox.send(Letter::Judged(Box::new(judged)));
            let _ = bell.signal();
        };
        if let Err(error) = std::thread::Builder::new().name("insane-schedule".into()).spawn(read) {
            self.schedules.is_reading = false;
            self.say_word(asker, Word::Refused(format!("no thread to check it: {error}")));
        }
    }

    /// A certificate was read and checked.
    pub(super) fn schedule_judged(&mut self, judged: JudgedSchedule) {
        self.schedules.is_reading = false;
        let JudgedSchedule { asker, local_clock, id, certificate } = judged;
        let certificate = certificate.and_then(|(text, certificate)| {
            if certificate.plant.hosts.len() > 1 && !local_clock && !tai().1 {
                return Err("nobody disciplines the clock of this host, or the kernel does not know the offset of TAI: its slots would have a phase of their own".into());
            }
            self.parts.hub.judge_schedule(&certificate)?;
            Ok((text, certificate))
        });
        let (certificate, judgement) = match certificate {
            Ok(certificate) => (Some(certificate), Ok(())),
            Err(why) => (None, Err(why)),
        };
        let word = self.schedules.member.stage(id, judgement, self.now);
        if let (Word::Staged, Some((text, certificate)), false) = (&word, certificate, self.schedules.member.is_armed())
        {
            self.schedules.staged = Some((id, text, Arc::new(certificate), local_clock));
        }
        self.say_word(asker, word);
    }

    fn commit_schedule(&mut self, id: ScheduleId, at: TaiTime) -> Word {
        let (word, deed) = self.schedules.member.commit(id, at, insane_sys::clock::mono_now(), tai().0);
        let Some(Deed::Arm(mono)) = deed else {
            self.carry_out_deed(deed);
            return word;
        };
        let staged = self.schedules.staged.take().filter(|(staged, ..)| *staged == id);
        let armed = match staged {
            Some((_, text, certificate, local_clock)) => {
                self.schedules.needs_phase_next = certificate.plant.hosts.len() > 1 && !local_clock;
                self.schedules.keeping.next = Some(Known::new(text, Arc::clone(&certificate), local_clock, at));
                self.parts.hub.arm_schedule(id.0, certificate, mono)
            }
            None => Err("what was staged is gone; this is a bug".into()),
        };
        match armed {
            Ok(()) => word,
            Err(why) => {
                self.schedules.keeping.next = None;
                self.schedules.member.failed(&why).unwrap_or(word)
            }
        }
    }

    fn carry_out_deed(&mut self, deed: Option<Deed>) {
        match deed {
            Some(Deed::Disarm) => {
                self.parts.hub.disarm_schedule();
                self.keep_disarmed();
            }
            Some(Deed::Forget) => self.schedules.staged = None,
            Some(Deed::Arm(_)) | None => {}
        }
    }

    /// Looks whether a schedule has taken over, or what keeps it from that.
    pub(super) fn tend_schedule(&mut self) {
        let taken = self.parts.datapaths.iter().all(crate::datapath::Datapath::has_taken_over);
        let before = self.schedules.member.counts();
        let deed = self.schedules.member.poll(insane_sys::clock::mono_now(), tai().0, taken);
        self.carry_out_deed(deed);
        let counts = self.schedules.member.counts();
        if counts.activated > before.activated {
            info!("the schedule of several hosts is in force");
            self.parts.hub.settle_schedule();
            self.schedules.needs_phase = self.schedules.needs_phase_next;
            self.monitors.iter_mut().for_each(Monitors::begin_anew);
            self.keep_settled();
        }
        if let (true, Some(why)) = (counts.failed > before.failed, self.schedules.member.failure()) {
            error!(why, "a schedule that was committed is not in force here; the old one goes on");
        }
        if counts.expired > before.expired {
            warn!("a schedule was staged and never committed; it is forgotten");
        }
    }
}

/// The lanes of a datapath that were held to their contracts, as the schedule calls them.
fn lanes_cut(hub: &Hub, at: DatapathIndex, datapath: &Datapath) -> Option<String> {
    let set = datapath.epsilons().lanes_cut();
    let names: Vec<&str> = hub.lanes_of(at, set).collect();
    (!names.is_empty()).then(|| format!(" (lanes: {})", names.join(", ")))
}

impl Server {
    /// Whether what the certificates assume still holds.
    pub(super) fn watch_assumptions(&mut self) {
        let looks_at_queues = self.now.since(self.queues_at) >= QUEUES_PERIOD;
        if looks_at_queues {
            self.queues_at = self.now;
        }
        self.make_monitors();
        let Server { parts, monitors, schedules, now, .. } = self;
        for (at, (datapath, monitors)) in parts.datapaths.iter().zip(monitors).enumerate() {
            let index = DatapathIndex(at as u8);
            let is_bound = parts.hub.has_slots(index) || parts.hub.has_contracts(index);
            // Between two looks nothing is said of a queue.
            let gone = if looks_at_queues && is_bound { launch::gone(&datapath.plan) } else { None };
            if let Some(why) = &gone {
                debug!(datapath = datapath.plan.name, why, "frames are handed over ahead to no such queue");
            }
            let holds = Holds { phase: !schedules.needs_phase || datapath.is_locked(), queue: gone.is_none() };
            let count = |counter| datapath.turn_counters.get(counter as usize);
            let [turn, wake] = parts.hub.assumed(DatapathIndex(at as u8)).map_or([None; 2], |both| both.map(Some));
            let epsilons = datapath.epsilons();
            // Before they are counted: what is counted from here on was held against what is
            // assumed from here on.
            for (sketch, basis) in [(&epsilons.turn, turn), (&epsilons.chunk, turn), (&epsilons.wake, wake)] {
                let bounds = basis.map_or((Nanos(u64::MAX), Nanos(u64::MAX)), |basis| (basis.quantile, basis.max));
                sketch.set_bounds(bounds.0, bounds.1);
            }
            // A chunk may take as long as a slot's frame may, until it is on its way.
            let measured = Measured {
                turn: (epsilons.turn.counted(), turn),
                chunk: (epsilons.chunk.counted(), turn),
                wake: (epsilons.wake.counted(), wake),
            };
            for Alarm { assumption, violations } in monitors.look(*now, is_bound, count, &measured, holds) {
                let lanes = lanes_cut(&parts.hub, index, datapath).filter(|_| assumption == Assumption::Arrivals);
                let (lanes, what) = (lanes.unwrap_or_default(), assumption.words());
                let (datapath, assumption) = (&datapath.plan.name, assumption.name());
                warn!(datapath, assumption, violations, "out of spec: {what}{lanes}");
            }
        }
        self.save_marks();
    }

    pub(super) fn make_monitors(&mut self) {
        for datapath in self.parts.datapaths.iter().skip(self.monitors.len()) {
            self.monitors.push(Monitors::new(datapath.plan.epsilon_quantile_ppm));
        }
    }

    pub(super) fn report_schedule(&self, report: &mut StatusReport, scope: Scope) {
        let datapaths = self.parts.datapaths.iter().zip(&self.monitors).enumerate();
        for ((at, (datapath, monitors)), row) in datapaths.zip(&mut report.datapaths) {
            if row.slot_clock.is_none() {
                continue;
            }
            row.monitors = monitors.report(self.now);
            let arrivals = row.monitors.iter_mut().find(|monitor| monitor.assumption == Assumption::Arrivals.name());
            if let Some(why) = arrivals.and_then(|monitor| monitor.why.as_mut())
                && let Some(lanes) = lanes_cut(&self.parts.hub, DatapathIndex(at as u8), datapath)
            {
                why.push_str(&lanes);
            }
        }
        let counts = self.schedules.member.counts();
        if scope != Scope::All || (counts == MemberCounts::default() && self.schedules.keeping.is_empty()) {
            return;
        }
        let MemberCounts { staged, refused, activated, aborted, expired, failed } = counts;
        let counts = [
            ("staged", staged),
            ("refused", refused),
            ("activated", activated),
            ("aborted", aborted),
            ("expired", expired),
            ("failed", failed),
        ];
        let schedule = self.parts.hub.schedule();
        let hosts = schedule.into_iter().flat_map(|schedule| &schedule.certificate.plant.hosts);
        let row = report.schedule.insert(ScheduleStatus {
            id: schedule.map(|schedule| format!("{:016x}", schedule.id)).unwrap_or_default(),
            streams: schedule.map_or(0, |schedule| schedule.certificate.plant.streams.len() as u32),
            hosts: hosts.map(|host| host.name.clone()).collect(),
            is_armed: self.schedules.member.is_armed(),
            failure: self.schedules.member.failure().map(str::to_owned),
            counts: counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
            ..ScheduleStatus::default()
        });
        self.schedules.keeping.report(row);
    }
}

pub(crate) fn read_certificate(bytes: Vec<u8>) -> Result<Certificate, String> {
    read_text(bytes).map(|(_, certificate)| certificate)
}

fn read_text(bytes: Vec<u8>) -> Result<(String, Certificate), String> {
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("a certificate has at most {FILE_BYTES_MAX} bytes here"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "the certificate is no text")?;
    let certificate = text::read(&text).map_err(|error| error.to_string())?;
    insane_checker::check(&certificate.plant, &certificate)
        .map_err(|flaw| format!("the checker does not accept the certificate: {flaw:?}"))?;
    Ok((text, certificate))
}

#[cfg(test)]
mod tests {
    use super::*;
    use insane_certificate::{Placed, Plant};

    fn certificate() -> Certificate {
        let plant = Plant { hosts: vec![], links: vec![], streams: vec![], chains: vec![], lanes: vec![] };
        Certificate { plant, placed: vec![], chains: vec![], lanes: vec![] }
    }

    #[test]
    fn what_comes_is_read_whole_and_checked_or_refused_by_name() {
        let text = text::write(&certificate()).unwrap();
        assert_eq!(read_certificate(text.clone().into_bytes()), Ok(certificate()));
        let refused = |bytes: Vec<u8>, words: &str| {
            let reason = read_certificate(bytes).unwrap_err();
            assert!(reason.contains(words), "{words:?} is missing in {reason}");
        };
        let mut altered = text.into_bytes();
        let last = altered.len() - 2;
        altered[last] ^= 1;
        refused(altered, "altered");
        refused(vec![0xff; 8], "no text");
        refused(b"(hosts: [])".to_vec(), "does not begin as a certificate");
        refused(vec![b' '; FILE_BYTES_MAX as usize + 1], "at most");
        let lie = Certificate { placed: vec![Placed { start_ns: 0, windows: vec![] }], ..certificate() };
        refused(text::write(&lie).unwrap().into_bytes(), "Malformed");
    }
}
