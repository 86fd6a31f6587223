//! Which seed is asked when. Pure.
//!
//! A seed that is heard is asked now and then, so that groups that grew apart find each other
//! again; one that is silent is asked ever more seldom. A seed that is this host itself is
//! left alone. That a seed does not answer is told once, until it has been heard.

use insane_core::{MonoTime, Nanos};
use std::net::SocketAddr;

/// Time before a seed is asked a second time.
pub const WAIT_MIN: Nanos = Nanos::from_secs(1);
/// Longest time before a seed is asked again.
pub const WAIT_MAX: Nanos = Nanos::from_secs(30);

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
        let mut all = Seeds { own, seeds: Vec::new() };
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

    /// What is due; `is_heard` says of an address whether its host shows signs of life.
    pub fn poll(&mut self, now: MonoTime, is_heard: impl Fn(SocketAddr) -> bool) -> Due {
        let mut due = Due::default();
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
    fn seeds_that_stay_keep_their_state() {
        let mut seeds = Seeds::new(at(1), &[at(2), at(3)]);
        seeds.poll(s(5), |_| true);
        seeds.set(&[at(4), at(3)]);
        let states: Vec<_> = seeds.states().collect();
        assert_eq!(states, [(at(3), SeedState::Heard), (at(4), SeedState::Silent)]);
        assert_eq!(seeds.poll(s(6), |seed| seed == at(3)).ask, [at(4)]);
    }
}
