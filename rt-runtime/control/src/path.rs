//! By which link of a datapath whatever names none goes to a peer, and what heartbeats say of
//! each. Pure.

use insane_core::{MonoTime, Nanos};
use insane_overlay::links::WayStatus;
use insane_policy::health::{Health, Signal};

/// What heartbeats say of a way that is there; `all`: every way to the peer.
///
/// When a peer goes, its ways go down one after the other, and they come up so when it is back:
/// only one by which something came since the way went down says that the way, and not the peer,
/// is to blame; one that came up later says so after `silent_after`.
pub(crate) fn signal(
    now: MonoTime,
    silent_after: Nanos,
    way: &WayStatus,
    all: impl IntoIterator<Item = WayStatus>,
) -> Signal {
    if way.up_since.is_some() {
        return Signal::Heard;
    }
    let proves = |other: WayStatus| {
        let (Some(up), Some(heard)) = (other.up_since, other.heard_at) else { return false };
        way.down_since.is_none_or(|down| heard > down && (up <= down || now.since(up) >= silent_after))
    };
    if all.into_iter().any(proves) { Signal::Silent } else { Signal::Unknown }
}

/// The link to take instead of `current`, or that one. `links`: all of the datapath that have an
/// address of the peer, by their places there, and how each of them is.
///
/// One that works is left only for one before it in the order of the configuration, and only when
/// that is good. One that has failed is left for the healthiest; where there is none, nobody
/// knows a better one, and it may come back.
pub(crate) fn choose(current: usize, links: &[(usize, Health)]) -> usize {
    let of = |wanted: Health| links.iter().filter(move |(_, health)| *health == wanted).map(|(link, _)| *link).min();
    let works = links.iter().any(|(link, health)| *link == current && *health != Health::Failed);
    if works {
        return of(Health::Good).map_or(current, |good| good.min(current));
    }
    [Health::Good, Health::HeldDown, Health::Unproven].into_iter().find_map(of).unwrap_or(current)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Health::{Failed, Good, HeldDown, Unproven};
    use insane_core::{HostId, Incarnation, PeerIndex};
    use insane_overlay::links::Monitor;
    use insane_policy::health::{Limits, Tracker};
    use insane_wire::link::LINK_BYTES;

    #[test]
    fn what_works_is_left_only_for_a_better_one_that_is_good() {
        assert_eq!(choose(1, &[(0, Good), (1, Good), (2, Good)]), 0);
        assert_eq!(choose(1, &[(2, Good), (1, HeldDown)]), 1);
        for unsure in [HeldDown, Unproven, Failed] {
            assert_eq!(choose(1, &[(0, unsure), (1, Good)]), 1, "{unsure:?}");
        }
        assert_eq!(choose(0, &[(0, Unproven), (1, Good)]), 0, "it has not failed");
    }

    #[test]
    fn what_failed_is_left_for_the_healthiest() {
        assert_eq!(choose(0, &[(0, Failed), (1, HeldDown), (2, Good), (3, Good)]), 2);
        assert_eq!(choose(0, &[(0, Failed), (1, Unproven), (2, HeldDown)]), 2);
        assert_eq!(choose(2, &[(2, Failed), (0, Failed), (1, Unproven)]), 1);
        assert_eq!(choose(2, &[(2, Failed), (0, Failed)]), 2, "nobody knows a better one");
        assert_eq!(choose(9, &[(1, Good)]), 1, "there is no such link");
        assert_eq!(choose(9, &[]), 9);
    }

    const PEER: PeerIndex = PeerIndex(0);

    /// This runtime, its peer, and how the two ways to that one are.
    struct Pair {
        monitors: [Monitor; 2],
        trackers: [Tracker; 2],
        now: MonoTime,
    }

    impl Pair {
        fn new() -> Pair {
            let monitor = |host: u64, life| Monitor::new(HostId(host), Incarnation(life), [2], Default::default());
            let monitors = [monitor(1, 1), monitor(2, 1)];
            Pair { monitors, trackers: [Tracker::default(); 2], now: MonoTime(1_000_000_000) }
        }

        /// Heartbeats go by the ways that pass, the second of which is slow.
        fn run(&mut self, millis: u64, passes: [bool; 2]) {
            let mut slow: Vec<(usize, usize, [u8; LINK_BYTES])> = Vec::new();
            for _ in 0..millis {
                self.now += Nanos::from_millis(1);
                for (from, way, beat) in std::mem::take(&mut slow) {
                    self.monitors[1 - from].on_frame(self.now, PEER, way, None, &beat);
                }
                for from in 0..2 {
                    let mut beat = [0; LINK_BYTES];
                    while let Some((_, way)) = self.monitors[from].poll(self.now, &mut beat) {
                        match way {
                            way if !passes[way] => {}
                            0 => self.monitors[1 - from].on_frame(self.now, PEER, way, None, &beat),
                            _ => slow.push((from, way, beat)),
                        }
                    }
                    while self.monitors[from].next_event().is_some() {}
                }
                let ways = [0, 1].map(|way| self.monitors[0].way(PEER, way).unwrap());
                for (tracker, way) in self.trackers.iter_mut().zip(&ways) {
                    let limits = Limits::default();
                    let _ = tracker.observe(self.now, signal(self.now, limits.silent_after, way, ways), &limits);
                }
            }
        }

        fn health(&self) -> [Health; 2] {
            self.trackers.each_ref().map(Tracker::health)
        }
    }

    #[test]
    fn a_link_that_is_silent_is_to_blame_and_a_peer_that_is_blames_none() {
        let mut pair = Pair::new();
        pair.run(500, [true; 2]);
        assert_eq!(pair.health(), [Good; 2]);
        pair.run(300, [true, false]);
        assert_eq!(pair.health(), [Good, Failed]);
        pair.run(3_000, [true; 2]);
        assert_eq!(pair.health(), [Good; 2]);
        // It goes and comes back, in another life: for no millisecond is a link held down.
        for life in 2..8 {
            for _ in 0..600 {
                pair.run(1, [false; 2]);
                assert_eq!(pair.health(), [Good; 2]);
            }
            pair.monitors[1] = Monitor::new(HostId(2), Incarnation(life), [2], Default::default());
            pair.run(500, [true; 2]);
            assert_eq!(pair.health(), [Good; 2], "life {life}");
        }
        // By one of its links only.
        pair.run(600, [false; 2]);
        pair.run(300, [true, false]);
        assert_eq!(pair.health(), [Good; 2]);
        pair.run(400, [true, false]);
        assert_eq!(pair.health(), [Good, Failed]);
    }

    /// What goes by default is held back by a link's hold-down as what the policy chooses is.
    #[test]
    fn a_link_that_flaps_takes_what_goes_by_default_with_it_seldom() {
        let (mut first, mut now) = (Tracker::default(), MonoTime(0));
        let (mut link, mut moves) = (0, 0);
        for _ in 0..100 {
            for (signal, millis) in [(Signal::Heard, 3_000), (Signal::Silent, 300)] {
                for _ in 0..millis / 100 {
                    now += Nanos::from_millis(100);
                    let health = first.observe(now, signal, &Limits::default());
                    let next = choose(link, &[(0, health), (1, Good)]);
                    moves += u32::from(next != link);
                    link = next;
                }
            }
        }
        // Away, back after two seconds, away; then the hold-down is longer than it is up.
        assert_eq!((moves, link), (3, 1));
    }
}
