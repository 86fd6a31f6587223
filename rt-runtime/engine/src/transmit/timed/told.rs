//! What the links say themselves of frames that have not left.
//!
//! What is below is counted, at the rate that was configured (see the module above). Where a link
//! tells ([`Link::unfinished`](insane_link::Link::unfinished)), its word is heard beside the count:
//! if by the count all has left, and the link says that something has not, then the link is slower
//! than it was said to be, or others are before us. Nothing more is begun then until all has left,
//! or the word is not believed any more: a slot that goes by meanwhile found the link busy.
//!
//! # When it is asked
//! Where the configuration says so (`completions` of the link), and only while frames were handed
//! over since it said that all had left, and a slot is near that has its message. A link that was
//! found slow is asked at each decision for [`SLOW`], and gets one grant at a time, so that no queue
//! grows below which slots then have to wait for. How long grants take then, against what they
//! should, stretches the guard before slots meanwhile.
//!
//! # What may be wrong with its word
//! - A device gives back what it has sent some time after it left: its `lag` is added to the count.
//! - One that does so only when the next frame comes, or a frame that waits for a neighbour who
//!   does not answer, would hold up everything for ever. So while nothing is begun, there has to be
//!   less below than ever since then, again and again within [`SLOTS_WAITED`] periods of the
//!   shortest stream; nothing else is a sign of life, and least of all frames that are handed over
//!   meanwhile (heartbeats are). Otherwise the word is not believed any more, until the link has
//!   said [`PROOFS`] times that all had left, twice as often after each such time.
//! - One that gives back everything, always late, cannot be told from a slow link, and neither can
//!   one that gives back a little at a time. So all such waiting is paid from one purse,
//!   [`WAITED_MAX`], which gets [`EARNS`] of the time; an empty one ends belief as above.
//!
//! # The largest harm
//! A neighbour that dies or a driver keeps others from their slots: once for [`SLOTS_WAITED`]
//! periods of the shortest stream, and not again before [`PROOFS`], then twice as many (up to
//! [`PROOFS_MAX`]) looks found the link empty, each of them before a slot with its message. All
//! together, whatever links and neighbours do: [`WAITED_MAX`], and [`EARNS`] of the time. It is not
//! none: whose frames a link holds is not told.
//!
//! Pure: the time is an argument.

use insane_core::{MonoTime, Nanos};
use insane_link::Unfinished;

/// After how many periods of the shortest stream without a sign of life the link is not believed,
/// and the bounds of that time.
const SLOTS_WAITED: u64 = 4;
const STUCK_MIN: Nanos = Nanos::from_millis(1);
const STUCK_MAX: Nanos = Nanos::from_millis(100);
/// For how long slots wait for links altogether, and which part of the time adds to that: a
/// hundredth.
const WAITED_MAX: Nanos = Nanos::from_secs(10);
const EARNS: u64 = 100;
/// For how long a link that was slow is taken for slow.
const SLOW: Nanos = Nanos::from_secs(1);
/// How often it has to say that all has left before it is believed again.
const PROOFS: u32 = 64;
/// The most that are ever asked for.
const PROOFS_MAX: u32 = 1 << 16;
/// A look that is a moment ago.
const RECENT: Nanos = Nanos::from_micros(50);
/// The slowest link that guards are stretched for: 64 times slower than it should be.
const SLOWER_MAX: u8 = 6;
/// When it is asked again that said that something is there.
pub(super) const AGAIN: Nanos = Nanos::from_micros(5);
/// What is below a link that holds frames longer than it should, bytes: more than any slot or
/// guard has room for.
pub(super) const BLOCKED: u64 = 1 << 40;

/// What was said by the links of one datapath.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    /// Frames were handed over since they said that all had left; of best-effort lanes, too.
    handed: bool,
    best_effort: bool,
    /// Nothing is to be begun.
    is_blocked: bool,
    amount: u64,
    /// Since when nothing is begun, all the time; and the last sign of life from then on: less than
    /// ever.
    blocked: Option<MonoTime>,
    since: MonoTime,
    least: u64,
    /// After which time without one it is not believed.
    stuck: Nanos,
    /// What is left of the purse, in hundredths ([`EARNS`]) of a nanosecond.
    purse: u64,
    slow_until: MonoTime,
    /// The first hand-over since all had left, and the last time it was asked.
    first: MonoTime,
    asked: MonoTime,
    /// How much slower than it should be it is, as a power of two.
    slower: u8,
    /// Proofs that are still to come before it is believed, and that it takes the next time.
    owed: u32,
    proofs: u32,
}

impl Told {
    pub const fn new() -> Self {
        let never = MonoTime(0);
        Told {
            handed: false,
            best_effort: false,
            is_blocked: false,
            amount: 0,
            blocked: None,
            since: never,
            least: u64::MAX,
            stuck: STUCK_MAX,
            purse: WAITED_MAX.0 * EARNS,
            slow_until: never,
            first: never,
            asked: never,
            slower: 0,
            owed: 0,
            proofs: PROOFS,
        }
    }

    /// Frames were handed over.
    #[inline]
    pub fn hand_over(&mut self, now: MonoTime) {
        if !std::mem::replace(&mut self.handed, true) {
            self.first = now;
        }
    }

    /// The shortest period of the streams that have slots from now on.
    pub fn set_period(&mut self, period_ns: Option<u64>) {
        let wait = period_ns.map_or(STUCK_MAX.0, |period| period.saturating_mul(SLOTS_WAITED));
        self.stuck = Nanos(wait.clamp(STUCK_MIN.0, STUCK_MAX.0));
    }

    /// There are best-effort frames among those that are handed over.
    #[inline]
    pub fn has_best_effort(&mut self) {
        self.best_effort = true;
    }

    /// Whether best-effort frames are to be asked for, too.
    pub const fn of_best_effort(&self) -> bool {
        self.best_effort
    }

    /// Whether the links are asked before what is decided at `now`; `is_near`: whether a slot is.
    #[inline]
    pub fn is_asked(&self, now: MonoTime, is_near: impl FnOnce() -> bool) -> bool {
        self.handed && (now < self.slow_until || is_near())
    }

    /// Whether nothing is to be begun, by what was said last.
    pub const fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    /// How much slower than it should be the link is at `now`, as a power of two.
    #[inline]
    pub fn slower(&self, now: MonoTime) -> u8 {
        if now < self.slow_until { self.slower } else { 0 }
    }

    /// Who was not asked has said nothing.
    #[inline]
    pub fn forget(&mut self) {
        (self.is_blocked, self.blocked) = (false, None);
    }

    /// The links said so at `now`; by the count all leaves by `left`. Whether nothing is to be begun.
    pub fn hear(&mut self, now: MonoTime, left: MonoTime, said: Option<Unfinished>) -> bool {
        let asked = std::mem::replace(&mut self.asked, now);
        self.pay(now.since(asked));
        self.is_blocked = match said {
            None | Some(Unfinished { amount: 0, .. }) => {
                // It is known when it left only if somebody looked a moment ago.
                if now < self.slow_until && self.amount > 0 && now.since(asked) <= RECENT {
                    let ratio = now.since(self.first).0 / left.since(self.first).0.max(1);
                    self.slower = self.slower.max((u64::BITS - ratio.leading_zeros()) as u8).min(SLOWER_MAX);
                }
                (self.handed, self.best_effort, self.amount) = (false, false, 0);
                self.blocked = None;
                self.owed = self.owed.saturating_sub(1);
                false
            }
            Some(said) => self.something(now, left, said),
        };
        self.is_blocked
    }

    fn something(&mut self, now: MonoTime, left: MonoTime, said: Unfinished) -> bool {
        self.amount = said.amount;
        if self.owed > 0 {
            return false;
        }
        let has_time = now <= left + said.lag;
        // A slow link gets one grant at a time.
        if has_time && now >= self.slow_until {
            self.blocked = None;
            return false;
        }
        if self.blocked.is_none() {
            (self.blocked, self.since, self.least) = (Some(now), now, said.amount);
        }
        if said.amount < self.least {
            (self.since, self.least) = (now, said.amount);
        }
        if now.since(self.since) >= self.stuck || self.purse == 0 {
            self.blocked = None;
            self.owed = self.proofs;
            self.proofs = (self.proofs * 2).min(PROOFS_MAX);
            self.slow_until = now;
            return false;
        }
        if !has_time {
            if now >= self.slow_until {
                self.slower = 0;
            }
            self.slow_until = now + SLOW;
        }
        true
    }

    /// For so long it was not asked: what nothing was begun in is paid.
    fn pay(&mut self, passed: Nanos) {
        let paid = if self.is_blocked { passed.0.saturating_mul(EARNS) } else { 0 };
        self.purse = self.purse.saturating_add(passed.0).min(WAITED_MAX.0 * EARNS).saturating_sub(paid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn said(amount: u64) -> Option<Unfinished> {
        Some(Unfinished { amount, lag: Nanos::from_micros(50) })
    }

    fn handed(told: &mut Told, ms: u64) -> MonoTime {
        told.hand_over(MonoTime(ms * MS));
        MonoTime(ms * MS + 10_000)
    }

    #[test]
    fn it_is_asked_where_frames_went_and_a_slot_is_near_and_not_otherwise() {
        let mut told = Told::new();
        let never = || -> bool { panic!("nothing was handed over: whether a slot is near does not matter") };
        assert!(!told.is_asked(MonoTime(MS), never));
        let left = handed(&mut told, 1);
        assert!(!told.is_asked(MonoTime(2 * MS), || false));
        assert!(told.is_asked(MonoTime(2 * MS), || true));
        assert!(!told.hear(MonoTime(2 * MS), left, said(0)));
        assert!(!told.is_asked(MonoTime(2 * MS), || true), "all has left");
    }

    #[test]
    fn what_should_have_left_holds_up_what_follows_until_it_has() {
        let mut told = Told::new();
        let left = handed(&mut told, 1);
        assert!(!told.hear(left, left, said(700)), "it has its time");
        assert!(!told.hear(left + Nanos(50_000), left, said(700)), "and a device its lag");
        assert!(told.hear(left + Nanos(50_001), left, said(700)));
        assert!(told.is_asked(MonoTime(20 * MS), || false), "a slow link is asked at each decision");
        assert!(!told.hear(MonoTime(20 * MS), left, said(0)));
        // One at a time, then.
        let left = handed(&mut told, 21);
        assert!(told.hear(MonoTime(21 * MS + 1), left, said(700)));
        assert!(!told.hear(MonoTime(21 * MS + 2), left, said(0)));
        // It has been as fast as it should for a second.
        let left = handed(&mut told, 1_100);
        assert!(!told.hear(MonoTime(1_100 * MS + 1), left, said(700)));
        assert!(!told.is_asked(MonoTime(1_100 * MS), || false));
    }

    #[test]
    fn frames_that_do_not_move_hold_up_the_others_for_a_while_once_and_no_link_for_ever() {
        let mut told = Told::new();
        let (mut at, mut waits) = (0, Vec::new());
        // The device gives a frame back when the next comes.
        for _round in 0..2_000 {
            at += 20;
            let (left, begun) = (handed(&mut told, at), at);
            at += 20;
            while told.is_asked(MonoTime(at * MS), || true) && told.hear(MonoTime(at * MS), left, said(700)) {
                at += 20;
            }
            waits.push(at - begun);
        }
        assert!(waits.iter().all(|wait| *wait <= 120), "{waits:?}");
        assert_eq!(waits.iter().filter(|wait| **wait > 20).count(), 1, "once is enough");
        // By luck it gives back each second one by itself: it is believed, and found out, ever more rarely.
        let mut held_up = 0;
        for _round in 0..4_000 {
            at += 20;
            let left = handed(&mut told, at);
            at += 20;
            while told.hear(MonoTime(at * MS), left, said(700)) {
                (at, held_up) = (at + 20, held_up + 1);
            }
            let left = handed(&mut told, at);
            assert!(!told.hear(MonoTime(at * MS), left, said(0)));
        }
        assert!((1..60).contains(&held_up), "{held_up}");
    }

    /// For how long nothing is begun in so many rounds of a millisecond, each looked at four times:
    /// what is below then, and whether something is handed over first.
    fn held_up(told: &mut Told, rounds: u64, below: impl Fn(u64) -> (u64, bool)) -> Nanos {
        let (mut left, mut held_up) = (handed(told, 1), 0);
        for quarter in 4..rounds * 4 {
            let at = MonoTime(quarter * MS / 4);
            let (amount, is_handed) = below(quarter);
            if is_handed {
                told.hand_over(at);
                left = at;
            }
            if told.is_asked(at, || true) && told.hear(at, left, said(amount)) {
                held_up += MS / 4;
            }
        }
        Nanos(held_up)
    }

    #[test]
    fn what_is_handed_over_meanwhile_is_no_sign_of_life() {
        // A heartbeat each 50 ms (200 looks) that is not held back: behind the first one to a
        // neighbour who does not answer; to another one, past it, gone by the next look; to a
        // device that gives back with the next frame what went before.
        let dead = |at: u64| (700 * (1 + at / 200), at.is_multiple_of(200));
        let other = |at: u64| (if at.is_multiple_of(200) { 1_400 } else { 700 }, at.is_multiple_of(200));
        let lazy = |at: u64| (if at % 200 < 100 { 700 } else { 701 }, at.is_multiple_of(200));
        let cases: [&dyn Fn(u64) -> (u64, bool); 3] = [&dead, &other, &lazy];
        for (case, below) in cases.into_iter().enumerate() {
            for (period, most) in [(None, STUCK_MAX), (Some(2 * MS), Nanos(8 * MS)), (Some(1), STUCK_MIN)] {
                let mut told = Told::new();
                told.set_period(period);
                let held_up = held_up(&mut told, 60_000, below);
                assert!((1..=most.0 + MS / 4).contains(&held_up.0), "case {case}: {held_up:?} of {most:?}");
            }
        }
    }

    #[test]
    fn a_neighbour_that_is_given_up_and_tried_again_costs_ever_less() {
        let mut told = Told::new();
        told.set_period(Some(MS));
        // Each 3 s the kernel gives it up, and 100 ms later something is sent to it again.
        let below = |at: u64| (if at % 12_000 < 400 { 0 } else { 700 + at % 12_000 / 400 }, at.is_multiple_of(4));
        let early = held_up(&mut told, 60_000, below);
        let mut told = Told::new();
        told.set_period(Some(MS));
        let all = held_up(&mut told, 600_000, below);
        // Four periods a time: after 64, 128, ... looks at an empty link, 400 of which are in 3 s.
        assert!((4 * MS..=6 * 5 * MS).contains(&early.0), "{early:?} in a minute");
        assert!(all.0 <= 12 * 5 * MS, "{all:?} in ten minutes");
    }

    #[test]
    fn all_waiting_together_is_bounded_whatever_links_say() {
        let mut told = Told::new();
        told.set_period(Some(2 * MS));
        // Everything is given back, 3 ms after it should.
        let always_late = |at: u64| (u64::from(at % 16 < 12), at.is_multiple_of(16));
        let held_up = held_up(&mut told, 1_000_000, always_late);
        assert!(held_up.0 >= WAITED_MAX.0, "a slow link would be waited for: {held_up:?}");
        let most = WAITED_MAX.0 + 1_000_000 * MS / EARNS + MS;
        assert!(held_up.0 <= most, "{held_up:?} of {most} ns");
    }

    #[test]
    fn how_slow_a_link_is_is_learnt_from_grants_that_were_watched() {
        let mut told = Told::new();
        let watch = |told: &mut Told, begun: u64, took: u64| {
            let left = handed(told, begun);
            // 10 us at its rate.
            let end = begun * MS + took;
            let mut at = begun * MS + 2_000;
            while at < end {
                told.hear(MonoTime(at), left, said(700));
                at += 5_000;
            }
            assert!(!told.hear(MonoTime(at), left, said(0)));
            told.slower(MonoTime(at))
        };
        assert_eq!(watch(&mut told, 1, 30_000), 0, "within its lag it is not slow");
        assert_eq!(watch(&mut told, 2, 72_000), 3, "between four and eight times");
        assert_eq!(watch(&mut told, 3, 25_000), 3);
        assert_eq!(watch(&mut told, 4, 50_000_000), SLOWER_MAX);
        // Who did not look does not know.
        let left = handed(&mut told, 2_000);
        assert_eq!(told.slower(MonoTime(2_000 * MS)), 0, "it was not slow for a second");
        assert!(told.hear(MonoTime(2_001 * MS), left, said(700)));
        assert!(!told.hear(MonoTime(2_020 * MS), left, said(0)));
        assert_eq!(told.slower(MonoTime(2_020 * MS)), 0);
    }

    #[test]
    fn a_long_queue_that_moves_is_waited_for() {
        let mut told = Told::new();
        let left = handed(&mut told, 1);
        assert!((1..100).all(|round| told.hear(MonoTime((1 + 90 * round) * MS), left, said(200 - round))));
    }
}
