//! By which lane the frames of the control plane go.
//!
//! A link has a queue for real time and one for best effort, and whoever floods the second, be it
//! this runtime itself, takes nothing from the first. What says that a peer and a link to it live
//! must not depend on the second one: else a flood there takes all streams from a link that works,
//! real-time ones too.
//!
//! - **Heartbeats of links** go by real time, always: how many there are, [`links`](crate::links)
//!   bounds. So a link is judged by its real-time queue. That its best-effort queue passes nothing,
//!   as where a firewall shuts that port alone, shows in the counters of its streams and takes none
//!   of them away.
//! - **All others** (membership, refusals, schedules, answers to probes) go by real time as far as
//!   [`BYTES_PER_SECOND`] to each peer reach, and by best effort beyond that: heartbeats and changes
//!   of few interests always have room, the whole set of a peer that comes back mostly goes by best
//!   effort. So nobody makes this runtime fill its real-time queues by what he asks it.
//!
//! The receiver takes each from either queue.
//!
//! Bound of what goes by real time, with the wire header: to each peer [`BYTES_PER_SECOND`] and once
//! a burst of [`BURST`] of that; and by each link to it one heartbeat of 120 bytes every 50 ms (the
//! only one: every 500 ms), and one more for each life of the peer that is new. For 2 peers by 2
//! links that is 0.2 Mbit/s, for 63 it is 7 Mbit/s.
//!
//! Pure: the time is an argument.

use insane_core::limits::PEERS_MAX;
use insane_core::{Lane, MonoTime, Nanos, PeerIndex};
use insane_wire::data::HEADER_BYTES;
use insane_wire::link::{LINK_BYTES, is_link_beat};

/// Bytes to one peer, beside heartbeats of links, that go by real time: four times what membership
/// says to one that is at rest.
pub const BYTES_PER_SECOND: u64 = 8_000;
/// So much of that may go at once: two frames of the largest size.
pub const BURST: Nanos = Nanos::from_millis(350);

const _: () = assert!(LINK_BYTES + HEADER_BYTES == 120, "the bound above");

/// Which frames to which peer go by real time. See the module.
#[derive(Clone, Debug)]
pub struct Pace {
    /// By then what went by real time has had its time.
    paid_at: [MonoTime; PEERS_MAX],
}

impl Default for Pace {
    fn default() -> Self {
        Self::new()
    }
}

impl Pace {
    /// Nothing was sent so far.
    #[must_use]
    pub const fn new() -> Self {
        Pace { paid_at: [MonoTime(0); PEERS_MAX] }
    }

    /// The lane of a frame with this body to a peer. It counts as sent.
    pub fn lane(&mut self, now: MonoTime, peer: PeerIndex, body: &[u8]) -> Lane {
        if is_link_beat(body) {
            return Lane::LAST_REAL_TIME;
        }
        let Some(paid_at) = self.paid_at.get_mut(peer.index()) else { return Lane::CONTROL };
        let bytes = (HEADER_BYTES + body.len()) as u64;
        let paid = (*paid_at).max(now) + Nanos(bytes * (1_000_000_000 / BYTES_PER_SECOND));
        if paid > now + BURST {
            return Lane::CONTROL;
        }
        *paid_at = paid;
        Lane::LAST_REAL_TIME
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insane_core::{HostId, Incarnation};
    use insane_wire::link::LinkBeat;
    use insane_wire::overlay::BODY_BYTES_MAX;

    const PEER: PeerIndex = PeerIndex(3);

    fn beat() -> [u8; LINK_BYTES] {
        let (host, incarnation) = (HostId(1), Incarnation(1));
        LinkBeat { host, incarnation, to: Incarnation(2), stamp: 1, echo: 0, held: Nanos::ZERO }.encode()
    }

    #[test]
    fn heartbeats_of_links_always_go_by_real_time() {
        let mut pace = Pace::new();
        for _ in 0..1_000 {
            let _ = pace.lane(MonoTime(1), PEER, &[0; BODY_BYTES_MAX]);
            assert!(pace.lane(MonoTime(1), PEER, &beat()).is_real_time());
        }
    }

    #[test]
    fn what_membership_says_at_rest_goes_by_real_time_also_beside_a_large_change() {
        let mut pace = Pace::new();
        let ms = |ms: u64| MonoTime(ms * 1_000_000);
        assert!(pace.lane(ms(0), PEER, &[0; BODY_BYTES_MAX]).is_real_time(), "a change is not put off");
        for at in 1..600 {
            assert!(pace.lane(ms(at * 100), PEER, &[0; 64]).is_real_time(), "{at}");
            assert!(at % 10 != 0 || pace.lane(ms(at * 100), PEER, &[0; 64]).is_real_time(), "a digest, {at}");
            assert!(at % 50 != 0 || pace.lane(ms(at * 100), PEER, &[0; BODY_BYTES_MAX]).is_real_time(), "{at}");
        }
    }

    #[test]
    fn however_much_is_said_real_time_has_its_bound_and_each_peer_its_own() {
        let mut pace = Pace::new();
        let mut bytes = [0; 2];
        for us in 0..10_000_000 / 100 {
            for (at, bytes) in bytes.iter_mut().enumerate() {
                let peer = PeerIndex(at as u16);
                let body = [0; 500];
                let lane = pace.lane(MonoTime(us * 100_000), peer, &body);
                *bytes += if lane.is_real_time() { (HEADER_BYTES + body.len()) as u64 } else { 0 };
                assert!(lane.is_real_time() || lane == Lane::CONTROL);
            }
        }
        let most = 10 * BYTES_PER_SECOND + BURST.0 * BYTES_PER_SECOND / 1_000_000_000;
        assert!(bytes.iter().all(|bytes| (80_000..=most).contains(bytes)), "{bytes:?}");
        assert_eq!(pace.lane(MonoTime(0), PeerIndex(PEERS_MAX as u16), &[0; 64]), Lane::CONTROL, "no such peer");
    }
}
