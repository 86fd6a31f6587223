//! Sessions as clients of the scheduler: one share of a lane and one budget each.
//!
//! A session keeps its place, and what it owes, when its last source goes, until another
//! session needs the place: so opening a source anew brings no new bucket while there is room
//! for 256 sessions. Where there is none, a session without a budget makes room for one that has
//! one: its sources share their lanes for themselves then.

use super::Transmitter;
use crate::deliver::Outlets;
use insane_core::SessionId;
use insane_core::counters::DatapathCounter;
use insane_scheduler::{CLIENTS_MAX, ClientIndex, FlowIndex, Policing};

/// Which session has which place.
pub(super) struct Clients {
    sessions: [Option<SessionId>; CLIENTS_MAX],
    /// Whether that has a budget.
    has_budget: [bool; CLIENTS_MAX],
    /// Where a place for another is looked for first, so that the one left longest ago goes.
    next: usize,
}

impl Clients {
    pub const fn new() -> Self {
        Clients { sessions: [None; CLIENTS_MAX], has_budget: [false; CLIENTS_MAX], next: 0 }
    }

    /// The place of a session. `is_free`: nobody has a source there.
    fn place(&mut self, session: SessionId, has_budget: bool, is_free: impl Fn(ClientIndex) -> bool) -> Option<Place> {
        let index = |at: usize| ClientIndex(at as u16);
        if let Some(at) = self.sessions.iter().position(|known| *known == Some(session)) {
            self.has_budget[at] = has_budget;
            return Some(Place { client: index(at), was: Was::Its });
        }
        let mut places = (0..CLIENTS_MAX).map(|at| (self.next + at) % CLIENTS_MAX);
        let free = places.find(|at| self.sessions[*at].is_none() || is_free(index(*at)));
        let lent = || self.has_budget.iter().position(|other| has_budget && !other);
        let at = free.or_else(lent)?;
        let before = self.sessions[at].replace(session);
        self.has_budget[at] = has_budget;
        self.next = (at + 1) % CLIENTS_MAX;
        let was = if free.is_some() { Was::Free } else { before.map_or(Was::Free, Was::Anothers) };
        Some(Place { client: index(at), was })
    }
}

/// Where a session is among the clients of the scheduler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    client: ClientIndex,
    was: Was,
}

/// Whose a place was before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Was {
    /// The session's own.
    Its,
    /// That of nobody who has a source.
    Free,
    /// That of a session without a budget, which has sources.
    Anothers(SessionId),
}

impl Transmitter {
    /// Makes a source, which has a place among the flows, one of its session. False: there is
    /// no place for the session's budget. A session without a budget and without a place shares
    /// lanes by its sources.
    #[cold]
    pub(super) fn assign(&mut self, flow: FlowIndex, session: SessionId, budget: Option<Policing>) -> bool {
        let lanes = match &mut self.slots {
            Some(slots) if slots.is_active() => slots.lanes(),
            _ => &mut self.scheduler,
        };
        let Some(Place { client, was }) =
            self.clients.place(session, budget.is_some(), |client| lanes.flows_of(client) == 0)
        else {
            return budget.is_none();
        };
        if let Was::Anothers(other) = was {
            // At most as many as a session has lines of counters.
            for place in self.watch.all() {
                if self.sources[usize::from(*place)].as_ref().is_some_and(|entry| entry.session == other) {
                    let _ = lanes.assign(FlowIndex(*place), None);
                }
            }
        }
        if was != Was::Its {
            lanes.renew_client(client);
        }
        let frame = lanes.limits().frame_bytes_max.get();
        let budget = budget.map(|budget| Policing { burst_bytes: budget.burst_bytes.max(frame), ..budget });
        lanes.budget(client, budget).is_ok() && lanes.assign(flow, Some(client)).is_ok()
    }

    /// Counts a budget, of a session or of a link, that the last report used up.
    #[inline]
    pub(super) fn count_budget(&mut self, flow: FlowIndex, outlets: &Outlets) {
        let used_up = self.lanes().waits();
        if used_up != self.used_up {
            self.used_up = used_up;
            if let Some(entry) = &self.sources[flow.0 as usize] {
                outlets.count(entry.domain, DatapathCounter::BudgetUsedUp, 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_keeps_its_place_until_another_needs_it() {
        let mut clients = Clients::new();
        let session = |number: usize| SessionId(number as u32);
        let place = |clients: &mut Clients, number, has_budget, is_free: &dyn Fn(u16) -> bool| {
            let place = clients.place(session(number), has_budget, |client| is_free(client.0))?;
            Some((place.client.0, place.was))
        };
        for number in 0..CLIENTS_MAX {
            let there = place(&mut clients, number, number != 9, &|_| false);
            assert_eq!(there, Some((number as u16, Was::Free)));
        }
        assert_eq!(place(&mut clients, 7, true, &|_| true), Some((7, Was::Its)));
        assert_eq!(place(&mut clients, 999, false, &|_| false), None);
        assert_eq!(place(&mut clients, 999, true, &|client| client > 3), Some((4, Was::Free)));
        assert_eq!(place(&mut clients, 4, true, &|_| true), Some((5, Was::Free)));
        // Session 9 has none.
        assert_eq!(place(&mut clients, 1_000, true, &|_| false), Some((9, Was::Anothers(session(9)))));
        assert_eq!(place(&mut clients, 1_001, true, &|_| false), None);
    }
}
