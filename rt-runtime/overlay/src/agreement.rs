//! Whether the hosts of a schedule are still under the same one: after a restart, and ever
//! after.
//!
//! Every host says of itself under which schedule it is, and since which instant of TAI
//! ([`Standing`]). That instant was agreed upon when the schedule was activated, so of two
//! schedules the later one is the one that holds: whoever has the earlier one missed the
//! change. [`judge`] says what follows from that for one host.
//!
//! # Rules
//! - A word counts where one of both names the other as a host of its schedule: cells of one
//!   network have schedules of their own.
//! - Who hears of a later schedule withholds its own: it does not send in slots that the others
//!   no longer have. Who has the later one goes on.
//! - A host that ended between commit and instant does not know whether the schedule took over.
//!   It did, if one other host says so. Nothing is sent in slots before the instant has passed
//!   and one host was heard, where there are others.
//! - Who hears nobody for [`PATIENCE`] goes on with what was in force: a host that is alone
//!   after a power cut is in nobody's way.

use crate::activation::ScheduleId;
use insane_core::{Nanos, TaiTime};

/// After a restart: so long the words of others are waited for.
pub const PATIENCE: Nanos = Nanos::from_secs(1);
/// A running host is contradicted for so long before it believes that: all take over at one
/// instant, and look at what they took over a moment later.
pub const GRACE: Nanos = Nanos::from_secs(1);
/// After its instant it is known of a schedule whether it took over.
pub const SETTLE: Nanos = Nanos::from_millis(1_500);

/// Under which schedule a host is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Standing {
    /// Since when; of hosts that differ, the later one holds.
    pub since: TaiTime,
    /// Which; `None`: under none.
    pub schedule: Option<ScheduleId>,
}

impl Standing {
    /// Of a host that never was under a schedule.
    pub const NEVER: Standing = Standing { since: TaiTime(0), schedule: None };
}

/// What another host said last, of those that [concern](self) this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heard<P> {
    /// Which host.
    pub peer: P,
    /// What it said.
    pub standing: Standing,
}

/// What a host knows of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Own {
    /// What is in force.
    pub standing: Standing,
    /// What was about to take over when the runtime ended.
    pub next: Option<Standing>,
    /// How many hosts its schedules name that could be heard.
    pub others: usize,
    /// How many of them were heard.
    pub heard: usize,
}

/// What follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judgement<P> {
    /// What is in force stays so.
    Keep,
    /// What was about to take over when the runtime ended did: it is in force.
    TakeNext,
    /// Nothing is sent in slots: others have not been heard yet.
    Ask,
    /// Nothing is sent in slots: whether the next one took over is not known yet.
    Undecided,
    /// Nothing is sent in slots: this host has a later one.
    Outdated(P),
}

/// What follows from what was heard. `waited`: how long ago the runtime was started.
pub fn judge<P: Copy>(own: &Own, heard: &[Heard<P>], tai: TaiTime, waited: Nanos) -> Judgement<P> {
    let says_next = |one: &Heard<P>| own.next.is_some_and(|next| one.standing == next);
    if heard.iter().any(says_next) {
        return Judgement::TakeNext;
    }
    let later = |one: &&Heard<P>| one.standing > own.standing && one.standing.schedule != own.standing.schedule;
    if let Some(rival) = heard.iter().filter(later).max_by_key(|one| one.standing) {
        return Judgement::Outdated(rival.peer);
    }
    let is_patient = own.heard < own.others && waited < PATIENCE;
    match own.next {
        Some(next) if tai < next.since + SETTLE => Judgement::Undecided,
        Some(_) if is_patient || (own.heard == 0 && own.others > 0) => Judgement::Undecided,
        None if is_patient => Judgement::Ask,
        Some(_) | None => Judgement::Keep,
    }
}
