//! The schedule of several hosts outlives the runtime, and hosts that differ say so.
//!
//! What is in force, and what is about to be, is in a file (module `kept`) before anybody is
//! told that it is committed. A runtime that starts takes it up again, and lets clients in when
//! it knows from its peers whether it still holds, or has waited for them for
//! [`PATIENCE`](insane_overlay::agreement::PATIENCE). What follows from what peers say
//! `insane_overlay::agreement` judges. Where slots are withheld, streams that have some reach no
//! peer; they keep their slots, and go on when that ends.
//!
//! Files are written by a thread of their own, one at a time: a disk may take its time, and
//! this thread carries heartbeats.

use super::schedule::tai;
use super::{Letter, Server};
use crate::hub::Withheld;
use crate::kept::{Kept, Mark, Record};
use crate::monitors::{Assumption, Monitors};
use insane_certificate::Certificate;
use insane_core::{MonoTime, Nanos, PeerIndex, SessionId, TaiTime};
use insane_overlay::activation::{ScheduleId, Word};
use insane_overlay::agreement::{GRACE, Heard, Judgement, Own, PATIENCE, Standing, judge};
use insane_sys::clock::mono_now;
use insane_wire::schedule::ScheduleBody;
use insane_wire::status::ScheduleStatus;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use tracing::{error, info, warn};

/// Between two words to a peer that nothing has changed.
const WORD_PERIOD: Nanos = Nanos::from_secs(1);
/// Between two files that differ in how often something happened, and after one that could
/// not be written.
const REWRITE_PERIOD: Nanos = Nanos::from_secs(10);

/// What a peer said last.
#[derive(Clone, Copy, Debug)]
struct Told {
    standing: Standing,
    names_us: bool,
}

/// A schedule with its certificate.
#[derive(Clone, Debug)]
pub(super) struct Known {
    record: Record,
    /// Of the record: a digest of a long text is nothing for every tick.
    standing: Standing,
    certificate: Option<Arc<Certificate>>,
}

impl Known {
    pub(super) fn new(text: String, certificate: Arc<Certificate>, local_clock: bool, at: TaiTime) -> Self {
        let record = Record { since_ns: at.0, local_clock, certificate: Some(text) };
        Known::of(record, Some(certificate))
    }

    fn of(record: Record, certificate: Option<Arc<Certificate>>) -> Self {
        Known { standing: record.standing(), record, certificate }
    }

    fn names(&self, host: &str) -> bool {
        self.certificate.as_ref().is_some_and(|known| known.plant.hosts.iter().any(|one| one.name == host))
    }

    fn needs_phase(&self) -> bool {
        !self.record.local_clock && self.certificate.as_ref().is_some_and(|known| known.plant.hosts.len() > 1)
    }
}

/// What is to be remembered of it.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    file: Option<PathBuf>,
    current: Option<Known>,
    /// Armed, or was when the runtime ended.
    pub(super) next: Option<Known>,
    started: MonoTime,
    /// Nobody is let in yet: peers are asked.
    is_recalling: bool,
    is_recalled: bool,
    /// Why what was kept is of no use.
    unusable: Option<String>,
    /// The clock is not that of the plant yet.
    awaits_clock: bool,
    heard: BTreeMap<PeerIndex, Told>,
    withheld: Option<String>,
    contradicted: Option<MonoTime>,
    told_at: MonoTime,
    writer: Option<JoinHandle<()>>,
    /// What is being written is not the last word any more.
    writes_again: bool,
    /// Who waits for the file.
    askers: Vec<((SessionId, u32), Option<ScheduleId>)>,
    unwritten: Option<String>,
    written_marks: Vec<Mark>,
    written_at: MonoTime,
}

impl Keeping {
    fn standing(&self) -> Standing {
        self.current.as_ref().map_or(Standing::NEVER, |known| known.standing)
    }

    /// Whether clients have to wait.
    pub(super) const fn is_recalling(&self) -> bool {
        self.is_recalling
    }

    /// Why nothing is sent in slots, and what could not be kept.
    pub(super) fn flaws(&self) -> impl Iterator<Item = String> {
        let withheld = self.withheld.as_ref().map(|why| format!("nothing is sent in slots: {why}"));
        let unwritten = self.unwritten.as_ref().map(|why| format!("a restart would forget the schedule: {why}"));
        withheld.into_iter().chain(unwritten)
    }

    pub(super) fn report(&self, row: &mut ScheduleStatus) {
        row.withheld.clone_from(&self.withheld);
        row.is_recalled = self.is_recalled;
        row.since_tai_ns = self.current.as_ref().map_or(0, |known| known.record.since_ns);
    }

    /// Whether something happened that the file does not have.
    fn has_more(&self, marks: &[Mark]) -> bool {
        let counts = |marks: &[Mark]| marks.iter().map(|mark| mark.violations).collect::<Vec<_>>();
        counts(marks) != counts(&self.written_marks)
    }

    /// Whether there is anything to say of a schedule.
    pub(super) const fn is_empty(&self) -> bool {
        self.current.is_none() && self.withheld.is_none()
    }
}

impl Server {
    /// At the start: what was kept is in force again, as far as this host knows.
    pub(super) fn recall_schedule(&mut self) {
        let plan = &self.parts.facts.plan;
        let host = plan.host.name.clone();
        let keeping = &mut self.schedules.keeping;
        (keeping.started, keeping.file) = (self.now, plan.control.schedule_file());
        let Some(file) = keeping.file.clone() else { return };
        let kept = match Kept::read(&file) {
            Ok(Some(kept)) => kept,
            Ok(None) => return,
            Err(error) => return self.cannot_recall(&error.to_string()),
        };
        if kept.host != host {
            return self.cannot_recall(&format!("it is of host {:?}, and this is {host:?}", kept.host));
        }
        let known = |record: Option<Record>| record.map(|record| record.read().map(|read| (record, read))).transpose();
        let (current, next) = match (known(kept.current), known(kept.next)) {
            (Ok(current), Ok(next)) => (current, next),
            (Err(why), _) | (_, Err(why)) => return self.cannot_recall(&why),
        };
        let known = |(record, certificate)| Known::of(record, certificate);
        let (current, next) = (current.map(known), next.map(known));
        if let Some(known) = &current
            && let Err(why) = self.install(known)
        {
            return self.cannot_recall(&why);
        }
        if let Some(certificate) = next.as_ref().and_then(|known| known.certificate.as_ref())
            && let Err(why) = self.parts.hub.judge_schedule(certificate)
        {
            return self.cannot_recall(&why);
        }
        self.put_marks(&kept.marks);
        let keeping = &mut self.schedules.keeping;
        keeping.is_recalled = current.as_ref().is_some_and(|known| known.certificate.is_some());
        keeping.awaits_clock = [&current, &next].into_iter().flatten().any(Known::needs_phase);
        (keeping.current, keeping.next, keeping.is_recalling) = (current, next, true);
        info!(file = %file.display(), "a schedule was kept; peers are asked whether it still holds");
        self.judge_standing();
    }

    fn cannot_recall(&mut self, why: &str) {
        let file = self.schedules.keeping.file.as_deref().unwrap_or_else(|| "".as_ref()).display().to_string();
        let why = format!(
            "the schedule that was kept in {file} cannot be taken up again: {why}. Activate one \
             (`insane schedule activate`), or let this host be under none (`insane schedule forget`)"
        );
        self.schedules.keeping.unusable = Some(why);
        self.judge_standing();
    }

    /// Puts a schedule in force at once; its slots have their phase by the clock.
    fn install(&mut self, known: &Known) -> Result<(), String> {
        let Some(certificate) = &known.certificate else { return Ok(()) };
        let Some(id) = known.standing.schedule else { return Ok(()) };
        self.parts.hub.take_up_schedule(id.0, Arc::clone(certificate), self.now)?;
        self.schedules.member.resume(id);
        self.schedules.needs_phase = known.needs_phase();
        Ok(())
    }

    /// A schedule waits for its instant: who asked for that hears of it when it is kept.
    pub(super) fn keep_armed(&mut self, asker: (SessionId, u32), id: ScheduleId) {
        self.schedules.keeping.askers.push((asker, Some(id)));
        self.save();
    }

    /// What waited has taken over.
    pub(super) fn keep_settled(&mut self) {
        let keeping = &mut self.schedules.keeping;
        keeping.current = keeping.next.take().or(keeping.current.take());
        (keeping.unusable, keeping.awaits_clock, keeping.contradicted) = (None, false, None);
        (keeping.is_recalled, keeping.told_at) = (false, MonoTime(0));
        self.save();
        self.judge_standing();
    }

    /// What waited does not take over.
    pub(super) fn keep_disarmed(&mut self) {
        self.schedules.keeping.next = None;
        self.save();
    }

    /// This host is under no schedule any more: an operator says so.
    pub(super) fn forget_schedule(&mut self, asker: (SessionId, u32)) {
        if self.schedules.member.is_armed() {
            let word = Word::Cannot("a schedule is about to take over: abort it, or wait".into());
            return self.say_word(asker, word);
        }
        if let Err(why) = self.parts.hub.drop_schedule() {
            return self.say_word(asker, Word::Cannot(why));
        }
        self.schedules.member.retire();
        self.schedules.needs_phase = false;
        let keeping = &mut self.schedules.keeping;
        // Later than what is forgotten, also where the clock was set back since.
        let since_ns = tai().0.0.max(keeping.standing().since.0.saturating_add(1));
        let none = Record { since_ns, local_clock: false, certificate: None };
        keeping.current = Some(Known::of(none, None));
        (keeping.next, keeping.unusable, keeping.awaits_clock) = (None, None, false);
        (keeping.is_recalled, keeping.told_at) = (false, MonoTime(0));
        self.monitors.iter_mut().for_each(Monitors::begin_anew);
        info!("the schedule is forgotten: this host is under none");
        keeping.askers.push((asker, None));
        self.save();
        self.judge_standing();
    }

    /// Peers have spoken.
    pub(super) fn hear_standings(&mut self) {
        let mut heard = false;
        while let Some((peer, body)) = self.parts.overlay.next_schedule() {
            // It left after it had spoken.
            if self.parts.roster.get(peer).is_none() {
                continue;
            }
            let schedule = Some(ScheduleId(body.schedule)).filter(|id| id.0 != 0);
            let told = Told { standing: Standing { since: body.since, schedule }, names_us: body.names_receiver };
            self.schedules.keeping.heard.insert(peer, told);
            if body.asks {
                self.tell_standing(peer, false);
            }
            heard = true;
        }
        if heard {
            self.judge_standing();
        }
    }

    /// A peer left. Its number may have another bearer before the next tick, who said nothing yet.
    pub(super) fn forget_standing(&mut self, peer: PeerIndex) {
        self.schedules.keeping.heard.remove(&peer);
    }

    /// Says it again, and judges again.
    pub(super) fn tend_standing(&mut self) {
        let peers: Vec<PeerIndex> = self.parts.roster.iter().map(|(peer, _)| peer).collect();
        let keeping = &mut self.schedules.keeping;
        let is_due = self.now.since(keeping.told_at) >= WORD_PERIOD;
        let is_silent = keeping.current.is_none() && keeping.heard.is_empty() && keeping.next.is_none();
        if !is_silent && (is_due || keeping.is_recalling) {
            keeping.told_at = self.now;
            for peer in peers {
                let asks = !self.schedules.keeping.heard.contains_key(&peer);
                self.tell_standing(peer, asks);
            }
        }
        if self.schedules.keeping.unwritten.is_some() {
            self.save_marks();
        }
        self.judge_standing();
    }

    fn tell_standing(&mut self, peer: PeerIndex, asks: bool) {
        let Some((_, entry)) = self.parts.roster.iter().find(|(other, _)| *other == peer) else { return };
        let keeping = &self.schedules.keeping;
        let Standing { since, schedule } = keeping.standing();
        let names = keeping.current.as_ref().is_some_and(|known| known.names(&entry.name));
        let said = |host, incarnation, to| ScheduleBody {
            host,
            incarnation,
            to,
            schedule: schedule.map_or(0, |id| id.0),
            since,
            asks,
            names_receiver: names,
        };
        self.parts.overlay.tell_schedule(self.now, peer, said, &mut self.parts.datapaths);
    }

    /// What follows from what is known by now.
    fn judge_standing(&mut self) {
        // What is about to take over is the last word.
        if self.schedules.member.is_armed() {
            self.schedules.keeping.contradicted = None;
            return self.end_recall();
        }
        if let Some(why) = self.schedules.keeping.unusable.clone() {
            return self.withhold(Some((why, Withheld::All)));
        }
        let keeping = &mut self.schedules.keeping;
        let (tai, is_disciplined) = tai();
        keeping.awaits_clock &= !is_disciplined;
        let known = || [&keeping.current, &keeping.next].into_iter().flatten();
        let roster = self.parts.roster.iter();
        let named = roster.filter(|(_, entry)| known().any(|known| known.names(&entry.name)));
        let named: BTreeSet<PeerIndex> = named.map(|(peer, _)| peer).collect();
        let concerning = keeping.heard.iter().filter(|(peer, told)| told.names_us || named.contains(peer));
        let heard: Vec<Heard<PeerIndex>> =
            concerning.map(|(peer, told)| Heard { peer: *peer, standing: told.standing }).collect();
        let own = Own {
            standing: keeping.standing(),
            next: keeping.next.as_ref().map(|known| known.standing),
            others: named.len(),
            heard: heard.iter().filter(|one| named.contains(&one.peer)).count(),
        };
        let waited = self.now.since(keeping.started);
        let judgement = judge(&own, &heard, tai, waited);
        // While nobody is let in nothing is in use: no need to be sure.
        let is_sudden = match judgement {
            Judgement::Outdated(_) if !keeping.is_recalling => {
                self.now.since(*keeping.contradicted.get_or_insert(self.now)) < GRACE
            }
            _ => {
                keeping.contradicted = None;
                false
            }
        };
        let has_one = keeping.current.as_ref().is_some_and(|known| known.certificate.is_some());
        let named = if has_one { Withheld::Named } else { Withheld::All };
        let waits = matches!(judgement, Judgement::Ask | Judgement::Undecided);
        let withheld = match judgement {
            Judgement::TakeNext => return self.take_next(),
            Judgement::Outdated(_) if is_sudden => return,
            Judgement::Outdated(peer) => Some((self.outdated(peer), named)),
            Judgement::Ask => Some(("peers are asked whether the schedule still holds".to_owned(), named)),
            Judgement::Undecided => Some((
                "the runtime ended while a schedule was about to take over, and no other host of it has said yet \
                 whether it did"
                    .to_owned(),
                Withheld::All,
            )),
            Judgement::Keep if keeping.awaits_clock => Some((
                "nobody disciplines the clock of this host yet: the slots of its schedule would have a phase of their own"
                    .to_owned(),
                named,
            )),
            Judgement::Keep => None,
        };
        self.withhold(withheld);
        if !waits || waited >= PATIENCE {
            self.end_recall();
        }
    }

    fn outdated(&self, peer: PeerIndex) -> String {
        let name = self.parts.roster.iter().find(|(other, _)| *other == peer).map_or("?", |(_, entry)| &entry.name);
        let Standing { since, schedule } = self.schedules.keeping.heard[&peer].standing;
        let theirs = schedule.map_or("none".to_owned(), |id| format!("schedule {:016x}", id.0));
        let ours = self.schedules.keeping.standing().schedule;
        let ours = ours.map_or("none".to_owned(), |id| format!("{:016x}", id.0));
        format!(
            "peer {name:?} has been under {theirs} since TAI {} ns, and this host is under {ours}: activate one on all \
             hosts (`insane schedule activate`)",
            since.0
        )
    }

    /// What was about to take over when the runtime ended has taken over: others say so.
    fn take_next(&mut self) {
        let Some(known) = self.schedules.keeping.next.take() else { return };
        if let Err(why) = self.install(&known) {
            return self.cannot_recall(&why);
        }
        info!("the schedule that was about to take over when the runtime ended is in force: a peer says so");
        let keeping = &mut self.schedules.keeping;
        (keeping.current, keeping.is_recalled, keeping.told_at) = (Some(known), true, MonoTime(0));
        self.monitors.iter_mut().for_each(Monitors::begin_anew);
        self.save();
        self.judge_standing();
    }

    fn withhold(&mut self, withheld: Option<(String, Withheld)>) {
        let (why, what) = withheld.map_or((None, Withheld::Nothing), |(why, what)| (Some(why), what));
        self.parts.hub.withhold(what);
        let keeping = &mut self.schedules.keeping;
        if keeping.withheld == why {
            return;
        }
        match &why {
            Some(why) => warn!(why, "nothing is sent in slots"),
            None => info!("slots are used again"),
        }
        keeping.withheld = why;
    }

    fn end_recall(&mut self) {
        if std::mem::take(&mut self.schedules.keeping.is_recalling) {
            info!(withheld = self.schedules.keeping.withheld.is_some(), "the kept schedule is taken up again");
            // Who waits outside is let in without waiting for the next tick.
            self.admit_callers();
        }
    }
}

/// Files and marks.
impl Server {
    fn kept(&self) -> Kept {
        let keeping = &self.schedules.keeping;
        let record = |known: &Option<Known>| known.as_ref().map(|known| known.record.clone());
        Kept {
            host: self.parts.facts.plan.host.name.clone(),
            current: record(&keeping.current),
            next: record(&keeping.next),
            marks: self.marks(),
        }
    }

    fn save(&mut self) {
        if self.schedules.keeping.writer.is_some() {
            self.schedules.keeping.writes_again = true;
            return;
        }
        let Some(file) = self.schedules.keeping.file.clone() else { return self.schedule_kept(Ok(())) };
        let kept = self.kept();
        let keeping = &mut self.schedules.keeping;
        (keeping.written_at, keeping.written_marks) = (self.now, kept.marks.clone());
        let (mailbox, bell) = (self.parts.mailbox.clone(), Arc::clone(&self.parts.bell));
        let write = move || {
            let written = kept.write(&file).map_err(|error| format!("cannot write {}: {error}", file.display()));
            // The runtime may have ended meanwhile.
            let _ = mailbox.send(Letter::Kept(written));
            let _ = bell.signal();
        };
        match std::thread::Builder::new().name("insane-keep".into()).spawn(write) {
            Ok(writer) => self.schedules.keeping.writer = Some(writer),
            Err(error) => self.schedule_kept(Err(format!("no thread to write it: {error}"))),
        }
    }

    /// A file was written, or not.
    pub(super) fn schedule_kept(&mut self, written: Result<(), String>) {
        if let Some(writer) = self.schedules.keeping.writer.take() {
            // It has sent its last word.
            let _ = writer.join();
        }
        if std::mem::take(&mut self.schedules.keeping.writes_again) {
            return self.save();
        }
        if let Err(why) = &written {
            error!(why, "a schedule is not kept");
            if self.schedules.member.failed(&format!("it cannot be kept here: {why}")).is_some() {
                self.parts.hub.disarm_schedule();
                self.schedules.keeping.next = None;
            }
        }
        self.schedules.keeping.unwritten = written.clone().err();
        for (asker, id) in std::mem::take(&mut self.schedules.keeping.askers) {
            let word = match (id, &written) {
                (Some(id), _) => self.schedules.member.ask(id),
                (None, Ok(())) => Word::Aborted,
                (None, Err(why)) => Word::Cannot(why.clone()),
            };
            self.say_word(asker, word);
        }
    }

    /// The file has the marks of the schedule in force: new ones at once, others now and then.
    pub(super) fn save_marks(&mut self) {
        let keeping = &self.schedules.keeping;
        if keeping.current.is_none() || keeping.writer.is_some() {
            return;
        }
        let marks = self.marks();
        let is_new = marks.len() != keeping.written_marks.len();
        let is_late = self.now.since(keeping.written_at) >= REWRITE_PERIOD;
        if is_new || (is_late && (keeping.has_more(&marks) || keeping.unwritten.is_some())) {
            self.save();
        }
    }

    /// The last word of the runtime.
    pub(super) fn save_last(&mut self) {
        if let Some(writer) = self.schedules.keeping.writer.take() {
            let _ = writer.join();
        }
        let keeping = &self.schedules.keeping;
        let (Some(file), Some(_)) = (&keeping.file, &keeping.current) else { return };
        let kept = self.kept();
        if (keeping.has_more(&kept.marks) || keeping.writes_again)
            && let Err(error) = kept.write(file)
        {
            error!(%error, file = %file.display(), "a schedule is not kept");
        }
    }

    fn marks(&self) -> Vec<Mark> {
        let offset = tai().0.0.wrapping_sub(mono_now().0);
        let mut marks = Vec::new();
        for (datapath, monitors) in self.parts.datapaths.iter().zip(&self.monitors) {
            for (assumption, violations, first, last) in monitors.marks() {
                marks.push(Mark {
                    datapath: datapath.plan.name.clone(),
                    assumption: assumption.name().to_owned(),
                    violations,
                    first_tai_ns: first.0.wrapping_add(offset),
                    last_tai_ns: last.0.wrapping_add(offset),
                });
            }
        }
        marks
    }

    /// Marks of an earlier life.
    fn put_marks(&mut self, marks: &[Mark]) {
        self.make_monitors();
        let (now, tai) = (mono_now(), tai().0);
        // An instant before the host started is told as that of its start.
        let mono = |tai_ns: u64| MonoTime(now.0.saturating_sub(tai.0.saturating_sub(tai_ns)));
        for (datapath, monitors) in self.parts.datapaths.iter().zip(&mut self.monitors) {
            for mark in marks.iter().filter(|mark| mark.datapath == datapath.plan.name) {
                let of = Assumption::ALL.into_iter().find(|assumption| assumption.name() == mark.assumption);
                if let Some(assumption) = of {
                    monitors.put_mark(assumption, mark.violations, (mono(mark.first_tai_ns), mono(mark.last_tai_ns)));
                }
            }
        }
    }
}
