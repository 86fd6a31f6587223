//! One schedule for several hosts: staged on each, acknowledged by all, and in force on all
//! from one instant of TAI, or on none.
//!
//! ```text
//!   coordinator                      member (one a host)
//!     | Stage(id)      ------------>|  checks it against what it is; keeps it aside
//!     |<------------- Staged | Refused
//!     |   all staged: an instant far enough ahead
//!     | Commit(id, at) ------------>|  arms its datapaths for `at`
//!     |<---------- Committed | Cannot
//!     | Ask(id) again and again     |  a committed host that steps, dies or falls silent shows
//!     |   all committed at the last instant to take it back: done, but for the look
//!     |   anything missing: Abort to all, and what was armed is disarmed
//!     | Ask(id)        ------------>|  after `at`
//!     |<------------ InForce | Cannot
//! ```
//! # Rules
//! - Nothing is committed before every host has staged; nothing stays committed unless every
//!   host has said so by [`Timing::last_word`] before the instant.
//! - Who has committed and falls silent before that takes the schedule down with it, on all
//!   hosts that can be reached. Who falls silent after it is told by name, and the others go on:
//!   no protocol can tell a dead host from a mute one, so [`Outcome`] says which it may have been.
//! - Who fails to stage ends it for all, but the others are heard for [`Timing::others`] more:
//!   who repairs it wants to know all that is wrong.
//! - A member whose clock steps between commit and instant, or whose instant has passed, goes
//!   on with the old schedule, and says so.
//! - A member that hears nothing after staging forgets it; one that has committed goes on.
//!
//! # Bounds
//! One order a host each [`Timing::repeat`]; every wait has an end, so [`Coordinator::outcome`]
//! is there after at most `patience`, `lead`, and twice `patience` more.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use insane_core::{MonoTime, Nanos, TaiTime};

/// Which schedule: the digest of its certificate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ScheduleId(pub u64);

/// From the coordinator to a host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Check it and keep it aside.
    Stage(ScheduleId),
    /// Let it take over at this instant.
    Commit(ScheduleId, TaiTime),
    /// Forget it, armed or not.
    Abort(ScheduleId),
    /// Say what holds.
    Ask(ScheduleId),
}

/// From a host to the coordinator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Word {
    /// It is kept aside.
    Staged,
    /// It cannot be, for this reason.
    Refused(String),
    /// The datapaths are armed.
    Committed,
    /// The old schedule stays, for this reason.
    Cannot(String),
    /// Nothing of it is left.
    Aborted,
    /// It has taken over.
    InForce,
}

/// Who was not heard of for so many repetitions is silent.
const FRESH_REPEATS: u64 = 4;

/// What is said of a host that never answered.
const SILENT: &str = "nothing was heard of it in time";

/// The same, where it had less than [`Timing::patience`].
const NOT_YET: &str = "it had not answered yet when this was called off for what another host said";

/// How long things take, at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// For all hosts to stage; and again for aborts and for the last look.
    pub patience: Nanos,
    /// After the first host that cannot stage, for what the others say.
    pub others: Nanos,
    /// From the commit to the instant.
    pub lead: Nanos,
    /// Before the instant: later than that nothing is taken back.
    pub last_word: Nanos,
    /// Between two orders to a host that has not answered.
    pub repeat: Nanos,
    /// After the instant, until it is looked at what holds.
    pub settle: Nanos,
    /// The instant is a multiple of it: the cycle of the schedule, nanoseconds. Zero counts as 1.
    pub cycle_ns: u64,
}

impl Default for Timing {
    /// 5 s of patience, 1 s for the others, 2 s of lead of which the last 500 ms are past recall, again every
    /// 200 ms, a look 500 ms after the instant.
    fn default() -> Self {
        Timing {
            patience: Nanos::from_secs(5),
            others: Nanos::from_secs(1),
            lead: Nanos::from_secs(2),
            last_word: Nanos::from_millis(500),
            repeat: Nanos::from_millis(200),
            settle: Nanos::from_millis(500),
            cycle_ns: 1,
        }
    }
}

/// What became of a host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// The new schedule is in force there.
    InForce,
    /// The old one is.
    Old(String),
    /// It acknowledged and was not heard of again: either.
    Unknown(String),
}

/// What became of it all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// In force on every host from this instant.
    Activated(TaiTime),
    /// In force on none: what every host said.
    Aborted(Vec<Fate>),
    /// Past recall when something failed: in force on some from this instant.
    Partly(TaiTime, Vec<Fate>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Staging {
        until: MonoTime,
        /// A host has failed: the others are only heard.
        failed: bool,
    },
    /// The instant, by both clocks of the coordinator.
    Committing {
        at: TaiTime,
        mono: MonoTime,
        /// It is past recall.
        sealed: bool,
    },
    Aborting {
        at: Option<TaiTime>,
        until: MonoTime,
    },
    Asking {
        at: TaiTime,
        until: MonoTime,
    },
    Done,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Row {
    word: Option<Word>,
    /// What it said or did before an abort.
    why: Option<String>,
    lost: bool,
    again_at: MonoTime,
    heard_at: MonoTime,
}

/// The side that gives the orders. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Coordinator {
    id: ScheduleId,
    timing: Timing,
    rows: Vec<Row>,
    phase: Phase,
    orders: VecDeque<(usize, Order)>,
    outcome: Option<Outcome>,
    /// The last look at the time.
    now: MonoTime,
}

impl Coordinator {
    /// For so many hosts, from `now` on.
    #[must_use]
    pub fn new(id: ScheduleId, hosts: usize, timing: Timing, now: MonoTime) -> Self {
        let row = Row { word: None, why: None, lost: false, again_at: now, heard_at: now };
        Coordinator {
            id,
            timing,
            rows: alloc::vec![row; hosts],
            phase: Phase::Staging { until: now + timing.patience, failed: false },
            orders: VecDeque::new(),
            outcome: None,
            now,
        }
    }

    /// The next order to carry to a host.
    pub fn next_order(&mut self) -> Option<(usize, Order)> {
        self.orders.pop_front()
    }

    /// What became of it; `None`: it is under way.
    #[must_use]
    pub const fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// A host has spoken. Words of a host beyond the number are of nobody.
    pub fn heard(&mut self, host: usize, word: Word) {
        let Some(row) = self.rows.get_mut(host) else { return };
        row.heard_at = self.now;
        // A late answer to an order before says nothing about this one.
        let is_old = match self.phase {
            Phase::Aborting { .. } => matches!(word, Word::Staged | Word::Committed),
            Phase::Committing { .. } | Phase::Asking { .. } => word == Word::Staged,
            Phase::Staging { .. } | Phase::Done => false,
        };
        if !is_old {
            if let Word::Refused(why) | Word::Cannot(why) = &word {
                row.why.get_or_insert_with(|| why.clone());
            }
            row.word = Some(word);
        }
    }

    /// A host cannot be reached any more.
    pub fn lost(&mut self, host: usize, why: &str) {
        if let Some(row) = self.rows.get_mut(host) {
            row.lost = true;
            row.why.get_or_insert_with(|| why.into());
        }
    }

    /// The time, by both clocks of the coordinator.
    pub fn poll(&mut self, now: MonoTime, tai: TaiTime) {
        self.now = now;
        match self.phase {
            Phase::Staging { until, failed } => {
                if self.all(|row| row.word == Some(Word::Staged) && !row.lost) {
                    let soonest = tai.0.saturating_add(self.timing.lead.0);
                    let cycle = self.timing.cycle_ns.max(1);
                    let at = TaiTime(soonest.div_ceil(cycle).saturating_mul(cycle));
                    let mono = now + at.since(tai);
                    self.enter(Phase::Committing { at, mono, sealed: false }, now);
                    self.repeat(Order::Commit(self.id, at), now, |row| row.word != Some(Word::Committed));
                } else if now >= until || (self.any_failed() && self.all(|row| row.word.is_some() || row.lost)) {
                    let why = if failed { NOT_YET } else { SILENT };
                    self.blame(why, |row| row.word.is_none());
                    self.abort(None, now);
                } else {
                    if self.any_failed() && !failed {
                        self.phase = Phase::Staging { until: until.min(now + self.timing.others), failed: true };
                    }
                    self.repeat(Order::Stage(self.id), now, |row| row.word.is_none());
                }
            }
            Phase::Committing { at, mono, sealed } => self.tend_commit(now, (at, mono), sealed),
            Phase::Aborting { at, until } => {
                let is_over = |row: &Row| matches!(row.word, Some(Word::Aborted | Word::InForce)) || row.lost;
                if self.all(is_over) || now >= until {
                    self.close_abort(at);
                } else {
                    self.repeat(Order::Abort(self.id), now, |row| !is_over(row));
                }
            }
            Phase::Asking { at, until } => {
                let is_known = |row: &Row| matches!(row.word, Some(Word::InForce | Word::Cannot(_))) || row.lost;
                if self.all(is_known) || now >= until {
                    let fates: Vec<Fate> = self.rows.iter().map(|row| fate(row, true)).collect();
                    let all = fates.iter().all(|fate| *fate == Fate::InForce);
                    self.finish(if all { Outcome::Activated(at) } else { Outcome::Partly(at, fates) });
                } else {
                    self.repeat(Order::Ask(self.id), now, |row| !is_known(row));
                }
            }
            Phase::Done => {}
        }
    }

    fn tend_commit(&mut self, now: MonoTime, (at, mono): (TaiTime, MonoTime), sealed: bool) {
        let has_committed = |row: &Row| matches!(row.word, Some(Word::Committed | Word::InForce));
        if sealed {
            if now >= mono + self.timing.settle {
                self.enter(Phase::Asking { at, until: now + self.timing.patience }, now);
            }
            return;
        }
        let is_last = now + self.timing.last_word >= mono;
        if is_last {
            let fresh = Nanos(self.timing.repeat.0.saturating_mul(FRESH_REPEATS));
            self.blame("it did not acknowledge the commit in time", |row| !has_committed(row));
            self.blame("it acknowledged the commit and fell silent", |row| row.heard_at + fresh < now);
            let is_well = |row: &Row| has_committed(row) && !row.lost && row.heard_at + fresh >= now;
            if self.all(is_well) {
                self.phase = Phase::Committing { at, mono, sealed: true };
            } else {
                self.abort(Some(at), now);
            }
        } else if self.any_failed() {
            self.abort(Some(at), now);
        } else {
            self.repeat(Order::Commit(self.id, at), now, |row| !has_committed(row));
            self.repeat(Order::Ask(self.id), now, has_committed);
        }
    }

    fn all(&self, is: impl Fn(&Row) -> bool) -> bool {
        self.rows.iter().all(is)
    }

    fn any_failed(&self) -> bool {
        self.rows.iter().any(|row| row.lost || matches!(row.word, Some(Word::Refused(_) | Word::Cannot(_))))
    }

    fn blame(&mut self, why: &str, is: impl Fn(&Row) -> bool) {
        for row in self.rows.iter_mut().filter(|row| is(row)) {
            row.why.get_or_insert_with(|| why.into());
        }
    }

    fn enter(&mut self, phase: Phase, now: MonoTime) {
        self.phase = phase;
        self.rows.iter_mut().for_each(|row| row.again_at = now);
    }

    fn repeat(&mut self, order: Order, now: MonoTime, to: impl Fn(&Row) -> bool) {
        for (host, row) in self.rows.iter_mut().enumerate() {
            if to(row) && !row.lost && row.again_at <= now {
                row.again_at = now + self.timing.repeat;
                self.orders.push_back((host, order));
            }
        }
    }

    fn abort(&mut self, at: Option<TaiTime>, now: MonoTime) {
        self.enter(Phase::Aborting { at, until: now + self.timing.patience }, now);
        self.repeat(Order::Abort(self.id), now, |_| true);
    }

    fn close_abort(&mut self, at: Option<TaiTime>) {
        let committed = at.is_some();
        let fates: Vec<Fate> = self.rows.iter().map(|row| fate(row, committed)).collect();
        let on_none = fates.iter().all(|fate| matches!(fate, Fate::Old(_)));
        let partly = at.filter(|_| !on_none);
        self.finish(partly.map_or(Outcome::Aborted(fates.clone()), |at| Outcome::Partly(at, fates)));
    }

    fn finish(&mut self, outcome: Outcome) {
        self.phase = Phase::Done;
        self.orders.clear();
        self.outcome = Some(outcome);
    }
}

/// `committed`: it may have been armed.
fn fate(row: &Row, committed: bool) -> Fate {
    let why = || row.why.clone().unwrap_or_else(|| "another host failed".into());
    match &row.word {
        Some(Word::InForce) => Fate::InForce,
        Some(Word::Aborted | Word::Refused(_) | Word::Cannot(_)) => Fate::Old(why()),
        // A host that was never asked to commit has nothing armed.
        _ if !committed => Fate::Old(why()),
        _ => Fate::Unknown(row.why.clone().unwrap_or_else(|| "it did not say what holds".into())),
    }
}

/// What a host is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// Arm the datapaths for this instant of the monotonic clock.
    Arm(MonoTime),
    /// Put back what held before.
    Disarm,
    /// Forget what was staged.
    Forget,
}

/// What happened at a host, counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemberCounts {
    /// Schedules that were staged.
    pub staged: u64,
    /// Schedules that could not be.
    pub refused: u64,
    /// Schedules that took over.
    pub activated: u64,
    /// Staged or armed, and taken back by the coordinator.
    pub aborted: u64,
    /// Staged, and the coordinator was not heard of again.
    pub expired: u64,
    /// Commits that could not be, or did not come to be: late, a step of the clock, a
    /// datapath that did not take over.
    pub failed: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum MemberState {
    Idle,
    Staged { id: ScheduleId, until: MonoTime },
    Armed { id: ScheduleId, at: TaiTime, mono: MonoTime },
    Failed { id: ScheduleId, why: String },
}

/// How a [`Member`] judges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemberLimits {
    /// A commit must come so long before its instant.
    pub notice: Nanos,
    /// An instant further away than this is a slip, or another clock.
    pub horizon: Nanos,
    /// How long what is staged waits for its commit.
    pub keeps: Nanos,
    /// TAI against monotonic time: a greater change before the instant is a step.
    pub step: Nanos,
    /// After the instant: a datapath that has not taken over by then did not.
    pub grace: Nanos,
}

impl Default for MemberLimits {
    /// 50 ms of notice, a minute of horizon, half a minute kept, steps from 1 ms, 1 s of grace.
    fn default() -> Self {
        MemberLimits {
            notice: Nanos::from_millis(50),
            horizon: Nanos::from_secs(60),
            keeps: Nanos::from_secs(30),
            step: Nanos::from_millis(1),
            grace: Nanos::from_secs(1),
        }
    }
}

/// A host's side. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Member {
    limits: MemberLimits,
    state: MemberState,
    /// What took over last: it holds whatever becomes of another.
    in_force: Option<ScheduleId>,
    /// TAI less monotonic time when it was armed.
    offset: i64,
    counts: MemberCounts,
}

impl Member {
    /// Without a schedule.
    #[must_use]
    pub const fn new(limits: MemberLimits) -> Self {
        let counts = MemberCounts { staged: 0, refused: 0, activated: 0, aborted: 0, expired: 0, failed: 0 };
        Member { limits, state: MemberState::Idle, in_force: None, offset: 0, counts }
    }

    /// What happened so far.
    #[must_use]
    pub const fn counts(&self) -> MemberCounts {
        self.counts
    }

    /// Whether a schedule waits for its instant: nobody may change slots meanwhile.
    #[must_use]
    pub const fn is_armed(&self) -> bool {
        matches!(self.state, MemberState::Armed { .. })
    }

    /// A schedule that was in force before the runtime was restarted is in force again.
    pub const fn resume(&mut self, id: ScheduleId) {
        self.in_force = Some(id);
    }

    /// No schedule is in force here any more. What is armed goes on.
    pub const fn retire(&mut self) {
        self.in_force = None;
    }

    /// Why the last schedule that was committed is not in force.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        match &self.state {
            MemberState::Failed { why, .. } => Some(why),
            _ => None,
        }
    }

    /// A schedule came and was judged by who knows the host.
    pub fn stage(&mut self, id: ScheduleId, judged: Result<(), String>, now: MonoTime) -> Word {
        match (&self.state, judged) {
            (MemberState::Armed { id: armed, .. }, _) if *armed == id => Word::Staged,
            (MemberState::Armed { .. }, _) => {
                self.counts.refused += 1;
                Word::Refused("another schedule is about to take over".into())
            }
            (_, Err(why)) => {
                self.counts.refused += 1;
                Word::Refused(why)
            }
            (state, Ok(())) => {
                let again = matches!(state, MemberState::Staged { id: staged, .. } if *staged == id);
                self.counts.staged += u64::from(!again);
                self.state = MemberState::Staged { id, until: now + self.limits.keeps };
                Word::Staged
            }
        }
    }

    /// The instant is known. With [`Deed::Arm`] comes [`Word::Committed`]; who then cannot arm
    /// says so with [`failed`](Self::failed).
    pub fn commit(&mut self, id: ScheduleId, at: TaiTime, now: MonoTime, tai: TaiTime) -> (Word, Option<Deed>) {
        match self.state {
            MemberState::Armed { id: armed, at: agreed, .. } if armed == id && agreed == at => {
                return (Word::Committed, None);
            }
            MemberState::Staged { id: staged, .. } if staged == id => {}
            _ if self.in_force == Some(id) => return (Word::Committed, None),
            _ => return (Word::Cannot("it is not staged here".into()), None),
        }
        let ahead = at.since(tai);
        if ahead < self.limits.notice {
            return (self.fails(id, "its instant has passed, or is too near"), Some(Deed::Forget));
        }
        if ahead > self.limits.horizon {
            let why = "its instant is too far ahead: the clocks of the hosts differ, or somebody slipped";
            return (self.fails(id, why), Some(Deed::Forget));
        }
        let mono = now + ahead;
        self.offset = tai.0.wrapping_sub(now.0) as i64;
        self.state = MemberState::Armed { id, at, mono };
        (Word::Committed, Some(Deed::Arm(mono)))
    }

    /// The datapaths cannot be armed, or were and did not take over.
    pub fn failed(&mut self, why: &str) -> Option<Word> {
        let MemberState::Armed { id, .. } = self.state else { return None };
        Some(self.fails(id, why))
    }

    fn fails(&mut self, id: ScheduleId, why: &str) -> Word {
        self.counts.failed += 1;
        self.state = MemberState::Failed { id, why: why.into() };
        Word::Cannot(why.into())
    }

    /// It is taken back. What has taken over stays.
    pub fn abort(&mut self, id: ScheduleId) -> (Word, Option<Deed>) {
        let deed = match self.state {
            MemberState::Staged { id: staged, .. } if staged == id => Deed::Forget,
            MemberState::Armed { id: armed, .. } if armed == id => Deed::Disarm,
            _ if self.in_force == Some(id) => return (Word::InForce, None),
            _ => return (Word::Aborted, None),
        };
        self.counts.aborted += 1;
        self.state = MemberState::Idle;
        (Word::Aborted, Some(deed))
    }

    /// What holds.
    #[must_use]
    pub fn ask(&self, id: ScheduleId) -> Word {
        match &self.state {
            MemberState::Armed { id: armed, .. } if *armed == id => Word::Committed,
            MemberState::Failed { id: failed, why } if *failed == id => Word::Cannot(why.clone()),
            _ if self.in_force == Some(id) => Word::InForce,
            _ => Word::Cannot("it is not known here: the host was restarted, or it was taken back".into()),
        }
    }

    /// The time. `taken`: all datapaths have taken over what they were armed with.
    pub fn poll(&mut self, now: MonoTime, tai: TaiTime, taken: bool) -> Option<Deed> {
        match self.state {
            MemberState::Staged { until, .. } if now >= until => {
                self.counts.expired += 1;
                self.state = MemberState::Idle;
                Some(Deed::Forget)
            }
            MemberState::Armed { id, mono, .. } => {
                let moved = (tai.0.wrapping_sub(now.0) as i64).wrapping_sub(self.offset);
                if now >= mono && taken {
                    self.counts.activated += 1;
                    (self.state, self.in_force) = (MemberState::Idle, Some(id));
                    None
                } else if now < mono && moved.unsigned_abs() > self.limits.step.0 {
                    let why = alloc::format!("the clock stepped by {moved} ns before its instant");
                    let _ = self.fails(id, &why);
                    Some(Deed::Disarm)
                } else if now >= mono + self.limits.grace {
                    let _ = self.fails(id, "a datapath did not take it over at its instant");
                    Some(Deed::Disarm)
                } else {
                    None
                }
            }
            _ => None,
        }
    }
}

/// For a stream in both schedules: the longest time between a slot of the old one and the
/// next one of the new one, where the new one takes over at a common boundary of both cycles,
/// and how much of it exceeds the longer period (the stated extension). Starts count from the
/// boundary, modulo the period.
#[must_use]
pub const fn gap_ns((old_start, old_period): (u64, u64), (new_start, new_period): (u64, u64)) -> (u64, u64) {
    if old_period == 0 || new_period == 0 {
        return (0, 0);
    }
    let (old, new) = (old_start % old_period, new_start % new_period);
    let gap = old_period - old + new;
    let longer = if old_period > new_period { old_period } else { new_period };
    (gap, gap.saturating_sub(longer))
}
