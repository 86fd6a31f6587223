//! How long who waits looks before it sleeps: the budget, learnt.
//!
//! To look for as long as a sleep and its wake-up cost, and to sleep then, costs at most twice
//! what somebody would pay who knew how long the wait is (the ski-rental problem; Karlin, Li,
//! Manasse and Owicki, "Empirical studies of competitive spinning for a shared-memory
//! multiprocessor", 1991). But whom one waits for most often sleeps, too: the answer comes after
//! *its* wake-up, which takes as long, and what it does then. So the looking is for **twice** the cost
//! at most: a wait in vain costs up to one more, and such a round trip half its time. Two things are
//! not known beforehand, and are learnt:
//!
//! - *The cost.* A sleep that something ended lasted for the rest of the wait and the wake-up, so
//!   its length is an upper bound of the cost, and the shorter it is, the closer. Some are too short:
//!   what ended them came before the thread had left its core. So the cost is near the quantile of
//!   one in eight: a shorter one lowers it, by a 64th at most, and a longer one, up to [`COST_MAX`],
//!   raises it by a 448th. What took less than [`COST_MIN`] was no sleep. Sleeps that their time ends
//!   teach nothing: the kernel may end those late on purpose.
//! - *Whether looking is of use.* After [`VAIN_RUN`] waits in a row that outlasted it the budget
//!   is halved, and with each one more, until something is found by looking or it is nothing
//!   (below [`START`]). A sleep that ended so soon that the whole of [`limit`](SpinBudget::limit)
//!   would have covered the wait, as far as is known, doubles it. (As the `halt_poll_ns` of Linux'
//!   KVM grows and shrinks.) Where a budget became nothing and had found nothing, twice as many such
//!   sleeps are waited for the next time, up to [`PATIENCE_MAX`]: they may be waits that are a little
//!   too long.
//!
//! Invariants: the budget is at most the limit, which is at most what was configured, at most
//! twice the cost, and at most [`COST_MAX`]. A wait is looked through once: the budget counts from its
//! beginning, so after its first sleep there is no looking any more, whatever ends that sleep.
//!
//! Bounds, of whatever sequence of waits: in a run of waits that outlast all looking, however
//! many they are, less than `VAIN_RUN + 1` limits are spent in looking, and after
//! [`SETTLES_VAIN`] of them the budget is nothing. After [`SETTLES_SHORT`] sleeps that ended soon,
//! and [`PATIENCE_MAX`] more at most, it is the limit. Where that is one or two costs of a sleep,
//! looking and sleeping cost at most three or four times the least possible, and a constant.
//!
//! Pure: time is an argument, nothing allocates. Each has one owner, the thread that waits: a
//! datapath that spins and then sleeps, and each sink of a client that may sleep.

use insane_core::{MonoTime, Nanos};

/// Waits in a row that outlasted the looking, before it becomes shorter.
pub const VAIN_RUN: u32 = 8;
/// The least budget but none, unless the limit is below it.
pub const START: Nanos = Nanos::from_micros(4);
/// What a sleep and its wake-up are believed to cost before one was seen.
pub const COST_START: Nanos = Nanos::from_micros(30);
/// No sleep and wake-up cost less: what returned sooner did not sleep.
pub const COST_MIN: Nanos = Nanos::from_micros(2);
/// The most that is believed of the cost, and the longest looking.
pub const COST_MAX: Nanos = Nanos::from_micros(100);
/// The most sleeps that have to end soon before there is looking again.
pub const PATIENCE_MAX: u32 = 64;
/// Waits in a row that outlast all looking, after which there is none.
pub const SETTLES_VAIN: u32 = VAIN_RUN + halvings();
/// Sleeps in a row that end soon, after which the budget is the limit, where looking was of use when
/// there was any last; where it was not, up to [`PATIENCE_MAX`] more.
pub const SETTLES_SHORT: u32 = halvings() + 3;

/// From [`COST_MAX`] to below [`START`], after the first.
const fn halvings() -> u32 {
    (COST_MAX.0 / START.0).ilog2()
}

/// A wait that has not ended.
#[derive(Clone, Copy, Debug)]
struct Wait {
    since: MonoTime,
    slept: Option<Slept>,
}

/// Its last sleep.
#[derive(Clone, Copy, Debug)]
struct Slept {
    length: Nanos,
    until: MonoTime,
    /// Something ended it, and not its time.
    is_woken: bool,
}

/// How long to look before the next sleep.
#[derive(Clone, Copy, Debug)]
pub struct SpinBudget {
    max: Nanos,
    cost: Nanos,
    budget: Nanos,
    /// Waits in a row that outlasted it.
    vain: u32,
    /// Sleeps that ended so soon that looking would have been of use, since the budget was nothing,
    /// and how many it takes to believe that.
    soon: u32,
    patience: u32,
    /// Something was found by looking since the budget was nothing.
    has_paid: bool,
    wait: Option<Wait>,
}

impl SpinBudget {
    /// One of at most `max`.
    #[must_use]
    pub const fn new(max: Nanos) -> Self {
        let mut new = SpinBudget {
            max,
            cost: COST_START,
            budget: max,
            vain: 0,
            soon: 0,
            patience: 1,
            has_paid: false,
            wait: None,
        };
        new.budget = new.limit();
        new
    }

    /// How long a wait is looked through.
    #[inline]
    #[must_use]
    pub const fn get(&self) -> Nanos {
        least(self.budget, self.limit())
    }

    /// The most that it may be now: what was configured, or twice what a sleep costs.
    #[inline]
    #[must_use]
    pub const fn limit(&self) -> Nanos {
        least(self.max, least(Nanos(2 * self.cost.0), COST_MAX))
    }

    /// What a sleep and its wake-up cost, as far as it is known.
    #[must_use]
    pub const fn cost(&self) -> Nanos {
        self.cost
    }

    /// Nothing is there `now`: whether to look again, or to sleep. The first call after
    /// [`found`](Self::found) or [`give_up`](Self::give_up) begins a wait.
    #[inline]
    #[must_use]
    pub fn looks_on(&mut self, now: MonoTime) -> bool {
        let budget = self.get();
        let wait = self.wait.get_or_insert(Wait { since: now, slept: None });
        now.since(wait.since) < budget
    }

    /// It slept within the wait; `is_woken`: something ended that, and not its time.
    pub fn slept(&mut self, from: MonoTime, until: MonoTime, is_woken: bool) {
        if let Some(wait) = &mut self.wait {
            wait.slept = Some(Slept { length: until.since(from), until, is_woken });
        }
    }

    /// The wait, if there is one, is over: something is there.
    #[inline(always)]
    pub fn found(&mut self) {
        if self.wait.is_some() {
            self.end();
        }
    }

    /// The wait is over, and nothing came. One that ended while it was looked through says
    /// nothing.
    pub fn give_up(&mut self) {
        if self.wait.take().is_some_and(|wait| wait.slept.is_some()) {
            self.outlasted();
        }
    }

    #[cold]
    #[inline(never)]
    fn end(&mut self) {
        let Some(Wait { since, slept }) = self.wait.take() else { return };
        let Some(slept) = slept else {
            (self.vain, self.patience, self.has_paid) = (0, 1, true);
            return;
        };
        if slept.is_woken {
            self.learn(slept.length);
        }
        // What came while it slept came before the wake-up; and after all that was looked through.
        let is_soon = slept.until.since(since).0 <= self.limit().0 + self.cost.0;
        self.soon = self.soon.saturating_add(u32::from(is_soon));
        // While it becomes shorter, that goes on to nothing, or until something is found.
        let may_grow = (self.vain < VAIN_RUN || self.budget == Nanos::ZERO) && self.get() < self.limit();
        match is_soon && self.soon >= self.patience && may_grow {
            true => self.grow(),
            false => self.outlasted(),
        }
    }

    fn learn(&mut self, length: Nanos) {
        if (COST_MIN..=COST_MAX).contains(&length) {
            let Nanos(cost) = self.cost;
            self.cost = Nanos(length.0.clamp(cost - cost / 64, cost + cost / 448));
        }
    }

    fn grow(&mut self) {
        self.vain = 0;
        self.budget = least(Nanos(self.get().0 * 2).max(START), self.limit());
    }

    fn outlasted(&mut self) {
        self.vain = self.vain.saturating_add(1);
        if self.vain < VAIN_RUN || self.budget == Nanos::ZERO {
            return;
        }
        self.budget = Nanos(self.get().0 / 2);
        if self.budget < START {
            let patience = if self.has_paid { 1 } else { (2 * self.patience).min(PATIENCE_MAX) };
            (self.budget, self.soon, self.patience, self.has_paid) = (Nanos::ZERO, 0, patience, false);
        }
    }
}

const fn least(one: Nanos, other: Nanos) -> Nanos {
    if one.0 < other.0 { one } else { other }
}

#[cfg(test)]
mod tests;
