//! Which seed is asked when. Pure.
//!
//! A seed that is heard is asked now and then, so that groups that grew apart find each other
//! again; one that is silent is asked ever more seldom. A seed that is this host itself is
//! left alone. That a seed does not answer is told once, until it has been heard.
//!
//! A host that was heard once and is silent is asked, too, one of them after the other: after a
//! partition that lasts longer than the library remembers the dead, hosts would find each other
//! only by a seed, and that may be dead itself.
//!
//! Bounds: [`FORMER_MAX`] such hosts, for [`FORMER_FOR`] each; one question in [`FORMER_EVERY`].

use insane_core::{MonoTime, Nanos};
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Time before a seed is asked a second time.
pub const WAIT_MIN: Nanos = Nanos::from_secs(1);
/// Longest time before a seed is asked again.
pub const WAIT_MAX: Nanos = Nanos::from_secs(30);

/// Hosts that were heard, and are not, of which it is known where they were; more take the place
/// of the one that has been silent for longest.
pub const FORMER_MAX: usize = 64;
/// For how long it is known.
pub const FORMER_FOR: Nanos = Nanos::from_secs(7 * 24 * 60 * 60);
/// Time between two questions to such hosts: each is asked once in about two minutes.
pub const FORMER_EVERY: Nanos = Nanos::from_secs(2);

/// What became of a seed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeedState {
    /// It is this host.
    Own,
    /// It has been asked, and was not heard yet.
    Silent,
    /// It is heard.
    Heard,
}

impl SeedState {
    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            SeedState::Own => "own",
            SeedState::Silent => "silent",
            SeedState::Heard => "heard",
        }
    }
}

#[derive(Debug)]
struct Seed {
    address: SocketAddr,
    state: SeedState,
    next_at: MonoTime,
    wait: Nanos,
    asked: u32,
    is_told: bool,
}

/// The seeds of a host.
#[derive(Debug)]
pub struct Seeds {
    own: SocketAddr,
    seeds: Vec<Seed>,
    /// Who was heard, and since when he is not; he who was asked longest ago comes first.
    former: VecDeque<(SocketAddr, MonoTime)>,
    former_next_at: MonoTime,
}

/// What is to be done now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Due {
    /// Who is to be asked.
    pub ask: Vec<SocketAddr>,
    /// Of whom it is to be told that they do not answer.
    pub tell_silent: Vec<SocketAddr>,
}

impl Seeds {
    /// Seeds of the host at `own`.
    #[must_use]
    pub fn new(own: SocketAddr, seeds: &[SocketAddr]) -> Self {
        let mut all = Seeds { own, seeds: Vec::new(), former: VecDeque::new(), former_next_at: MonoTime(0) };
        all.set(seeds);
        all
    }

    /// Other seeds; what is known of those that stay is kept.
    pub fn set(&mut self, seeds: &[SocketAddr]) {
        self.seeds.retain(|seed| seeds.contains(&seed.address));
        for address in seeds {
            if self.seeds.iter().any(|seed| seed.address == *address) {
                continue;
            }
            let state = if *address == self.own { SeedState::Own } else { SeedState::Silent };
            let (address, next_at) = (*address, MonoTime(0));
            self.seeds.push(Seed { address, state, next_at, wait: WAIT_MIN, asked: 0, is_told: false });
        }
    }

    /// A host was heard for a while, and is not any more.
    pub fn fell_silent(&mut self, now: MonoTime, address: SocketAddr) {
        let is_seed = self.seeds.iter().any(|seed| seed.address == address);
        if is_seed || address == self.own || self.former.iter().any(|(other, _)| *other == address) {
            return;
        }
        if self.former.len() == FORMER_MAX {
            let oldest = (0..FORMER_MAX).min_by_key(|at| self.former[*at].1);
            oldest.map(|at| self.former.remove(at));
        }
        self.former.push_back((address, now));
    }

    /// The next host to be asked that was heard once.
    fn ask_former(&mut self, now: MonoTime, is_heard: impl Fn(SocketAddr) -> bool) -> Option<SocketAddr> {
        self.former.retain(|(address, since)| !is_heard(*address) && now.since(*since) < FORMER_FOR);
        if now < self.former_next_at {
            return None;
        }
        let next = self.former.pop_front()?;
        self.former.push_back(next);
        self.former_next_at = now + FORMER_EVERY;
        Some(next.0)
    }

    /// What is due; `is_heard` says of an address whether its host shows signs of life.
    pub fn poll(&mut self, now: MonoTime, is_heard: impl Fn(SocketAddr) -> bool) -> Due {
        let mut due = Due { ask: self.ask_former(now, &is_heard).into_iter().collect(), ..Due::default() };
        for seed in self.seeds.iter_mut().filter(|seed| seed.state != SeedState::Own) {
            if is_heard(seed.address) {
                if seed.state == SeedState::Silent {
                    (seed.state, seed.is_told, seed.wait) = (SeedState::Heard, false, WAIT_MAX);
                    seed.next_at = now + WAIT_MAX;
                }
            } else if seed.state == SeedState::Heard {
                (seed.state, seed.wait, seed.next_at, seed.asked) = (SeedState::Silent, WAIT_MIN, now, 0);
            }
            if now < seed.next_at {
                continue;
            }
            // It had the time between two questions to answer, more than once.
            if seed.state == SeedState::Silent && seed.asked >= 3 && !seed.is_told {
                seed.is_told = true;
                due.tell_silent.push(seed.address);
            }
            due.ask.push(seed.address);
            seed.asked = seed.asked.saturating_add(1);
            seed.next_at = now + seed.wait;
            seed.wait = Nanos((seed.wait.0 * 2).min(WAIT_MAX.0));
        }
        due
    }

    /// Each seed, and what became of it.
    pub fn states(&self) -> impl Iterator<Item = (SocketAddr, SeedState)> {
        self.seeds.iter().map(|seed| (seed.address, seed.state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    fn s(seconds: u64) -> MonoTime {
        MonoTime(seconds * 1_000_000_000)
    }

    #[test]
    fn a_silent_seed_is_asked_ever_more_seldom_and_told_once() {
        let mut seeds = Seeds::new(at(1), &[at(1), at(2)]);
        let (mut asked, mut told) = (Vec::new(), 0);
        for second in 0..200 {
            let due = seeds.poll(s(second), |_| false);
            asked.extend(due.ask.iter().map(|seed| (second, *seed)));
            told += due.tell_silent.len();
        }
        let at_seconds: Vec<u64> = asked.iter().map(|(second, _)| *second).collect();
        assert_eq!(at_seconds, [0, 1, 3, 7, 15, 31, 61, 91, 121, 151, 181]);
        assert!(asked.iter().all(|(_, seed)| *seed == at(2)), "never oneself");
        assert_eq!(told, 1);
        assert_eq!(seeds.states().collect::<Vec<_>>(), [(at(1), SeedState::Own), (at(2), SeedState::Silent)]);
    }

    #[test]
    fn a_seed_that_was_heard_is_asked_at_once_when_it_falls_silent() {
        let mut seeds = Seeds::new(at(1), &[at(2)]);
        seeds.poll(s(0), |_| false);
        assert_eq!(seeds.poll(s(1), |_| true), Due::default());
        assert_eq!(seeds.states().next(), Some((at(2), SeedState::Heard)));
        assert_eq!(seeds.poll(s(31), |_| true).ask, [at(2)], "now and then");
        assert_eq!(seeds.poll(s(40), |_| false).ask, [at(2)]);
        assert_eq!(seeds.poll(s(41), |_| false).ask, [at(2)]);
    }

    #[test]
    fn halves_that_forgot_each_other_meet_again_though_the_only_seed_is_dead() {
        // The seed is dead; the other half was heard until a partition of an hour.
        let mut seeds = Seeds::new(at(1), &[at(9)]);
        let others: Vec<SocketAddr> = (2..8).map(at).collect();
        others.iter().for_each(|other| seeds.fell_silent(s(10), *other));
        others.iter().for_each(|other| seeds.fell_silent(s(11), *other));
        let asked_in = |seeds: &mut Seeds, from: u64, to: u64| {
            let due = (from..to).flat_map(|second| seeds.poll(s(second), |_| false).ask);
            due.filter(|address| *address != at(9)).collect::<Vec<_>>()
        };
        assert_eq!(asked_in(&mut seeds, 12, 24), others, "each in turn, one in two seconds");
        assert_eq!(asked_in(&mut seeds, 3_600, 3_612), others, "and still after an hour");
        // The partition is over: whoever is heard is asked no more.
        assert_eq!(seeds.poll(s(3_700), |address| others.contains(&address)).ask, [at(9)]);
        assert!(asked_in(&mut seeds, 3_701, 3_800).is_empty());
    }

    #[test]
    fn who_was_heard_is_remembered_within_bounds() {
        let mut seeds = Seeds::new(at(1), &[at(2)]);
        (1..100).for_each(|host| seeds.fell_silent(s(host.into()), at(host)));
        let asked: Vec<SocketAddr> = (0..200).flat_map(|turn| seeds.poll(s(1_000 + 2 * turn), |_| false).ask).collect();
        let count = |host: u16| asked.iter().filter(|address| **address == at(host)).count();
        assert_eq!(count(1), 0, "never oneself");
        assert!((100 - FORMER_MAX as u16..100).all(|host| count(host) >= 3), "the last ones");
        assert!((3..100 - FORMER_MAX as u16).all(|host| count(host) == 0), "made room");
        let week = MonoTime(FORMER_FOR.0) + Nanos::from_secs(2_000);
        assert_eq!(seeds.poll(week, |_| false).ask, [at(2)], "not for ever");
    }

    #[test]
    fn seeds_that_stay_keep_their_state() {
        let mut seeds = Seeds::new(at(1), &[at(2), at(3)]);
        seeds.poll(s(5), |_| true);
        seeds.set(&[at(4), at(3)]);
        let states: Vec<_> = seeds.states().collect();
        assert_eq!(states, [(at(3), SeedState::Heard), (at(4), SeedState::Silent)]);
        assert_eq!(seeds.poll(s(6), |seed| seed == at(3)).ask, [at(4)]);
    }
}
