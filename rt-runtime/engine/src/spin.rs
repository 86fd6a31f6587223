//! How long who waits looks before it sleeps: the budget, learnt.
//!
//! To look for as long as a sleep and its wake-up cost, and to sleep then, costs at most twice
//! what somebody would pay who knew how long the wait is (the ski-rental problem; Karlin, Li,
//! Manasse and Owicki, "Empirical studies of competitive spinning for a shared-memory
//! multiprocessor", 1991). Two things are not known beforehand, and are learnt:
//!
//! - *The cost.* A sleep that something ended lasted for the rest of the wait and the wake-up, so
//!   its length is an upper bound of the cost, and the shorter it is, the closer. So the cost is
//!   near the least of them: a shorter one than it lowers it, by an eighth at most, and a longer
//!   one, up to [`COST_MAX`], raises it by a 512th, so that what is out of date is forgotten. In
//!   between one in seventy is shorter. What took less than [`COST_MIN`] was no sleep. Sleeps that
//!   their time ends teach nothing: the kernel may end those late on purpose.
//! - *Whether looking is of use.* After [`VAIN_RUN`] waits in a row that outlasted it the budget
//!   is halved, and with each one more; below [`START`] it is nothing. A sleep that ended so soon
//!   that the whole of [`limit`](SpinBudget::limit) would have covered the wait doubles it. (As
//!   the `halt_poll_ns` of Linux' KVM grows and shrinks.)
//!
//! Invariants: the budget is at most the limit, which is at most what was configured, at most
//! the cost, and at most [`COST_MAX`]. A wait is looked through once: the budget counts from its
//! beginning, so after its first sleep there is no looking any more, whatever ends that sleep.
//!
//! Bounds, of whatever sequence of waits: in a run of waits that outlast all looking, however
//! many they are, less than `VAIN_RUN + 1` limits are spent in looking, and after
//! [`SETTLES_VAIN`] of them the budget is nothing. After [`SETTLES_SHORT`] sleeps that ended soon
//! it is the limit. Where the limit is the cost of a sleep, looking and sleeping cost at most
//! three times the least possible, and a constant.
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
/// The most that is believed of the cost, and so the longest looking.
pub const COST_MAX: Nanos = Nanos::from_micros(100);
/// Waits in a row that outlast all looking, after which there is none.
pub const SETTLES_VAIN: u32 = VAIN_RUN + halvings();
/// Sleeps in a row that end soon, after which the budget is the limit.
pub const SETTLES_SHORT: u32 = halvings() + 2;

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
    wait: Option<Wait>,
}

impl SpinBudget {
    /// One of at most `max`.
    #[must_use]
    pub const fn new(max: Nanos) -> Self {
        let mut new = SpinBudget { max, cost: COST_START, budget: max, vain: 0, wait: None };
        new.budget = new.limit();
        new
    }

    /// How long a wait is looked through.
    #[inline]
    #[must_use]
    pub const fn get(&self) -> Nanos {
        least(self.budget, self.limit())
    }

    /// The most that it may be now: what was configured, or what a sleep costs.
    #[inline]
    #[must_use]
    pub const fn limit(&self) -> Nanos {
        least(self.max, self.cost)
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
            self.vain = 0;
            return;
        };
        if slept.is_woken {
            self.learn(slept.length);
        }
        // What came while it slept came before the wake-up.
        match slept.until.since(since).0 <= self.limit().0 + self.cost.0 {
            true => self.grow(),
            false => self.outlasted(),
        }
    }

    fn learn(&mut self, length: Nanos) {
        if (COST_MIN..=COST_MAX).contains(&length) {
            let Nanos(cost) = self.cost;
            self.cost = Nanos(length.0.clamp(cost - cost / 8, cost + cost / 512));
        }
    }

    fn grow(&mut self) {
        self.vain = 0;
        self.budget = least(Nanos(self.get().0 * 2).max(START), self.limit());
    }

    fn outlasted(&mut self) {
        self.vain = self.vain.saturating_add(1);
        if self.vain >= VAIN_RUN {
            let half = Nanos(self.get().0 / 2);
            self.budget = if half < START { Nanos::ZERO } else { half };
        }
    }
}

const fn least(one: Nanos, other: Nanos) -> Nanos {
    if one.0 < other.0 { one } else { other }
}

#[cfg(test)]
mod tests;
