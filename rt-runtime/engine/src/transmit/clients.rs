//! Sessions as clients of the scheduler: one share of a lane and one budget each.
//!
//! A session keeps its place, and what it owes, when its last source goes, until another
//! session needs the place: so opening a source anew brings no new bucket while there is room
//! for 256 sessions.

use super::Transmitter;
use crate::deliver::Outlets;
use insane_core::SessionId;
use insane_core::counters::DatapathCounter;
use insane_scheduler::{CLIENTS_MAX, ClientIndex, FlowIndex, Policing};

/// Which session has which place.
pub(super) struct Clients {
    sessions: [Option<SessionId>; CLIENTS_MAX],
    /// Where a place for another is looked for first, so that the one left longest ago goes.
    next: usize,
}

impl Clients {
    pub const fn new() -> Self {
        Clients { sessions: [None; CLIENTS_MAX], next: 0 }
    }

    /// The place of a session, and whether it is new there. `is_free`: nobody has a source there.
    fn place(&mut self, session: SessionId, is_free: impl Fn(ClientIndex) -> bool) -> Option<(ClientIndex, bool)> {
        let index = |at: usize| ClientIndex(at as u16);
        if let Some(at) = self.sessions.iter().position(|known| *known == Some(session)) {
            return Some((index(at), false));
        }
        let mut places = (0..CLIENTS_MAX).map(|at| (self.next + at) % CLIENTS_MAX);
        let at = places.find(|at| self.sessions[*at].is_none() || is_free(index(*at)))?;
        self.sessions[at] = Some(session);
        self.next = (at + 1) % CLIENTS_MAX;
        Some((index(at), true))
    }
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
        let Some((client, is_new)) = self.clients.place(session, |client| lanes.flows_of(client) == 0) else {
            return budget.is_none();
        };
        if is_new {
            lanes.renew_client(client);
        }
        let frame = lanes.limits().frame_bytes_max.get();
        let budget = budget.map(|budget| Policing { burst_bytes: budget.burst_bytes.max(frame), ..budget });
        lanes.budget(client, budget).is_ok() && lanes.assign(flow, Some(client)).is_ok()
    }

    /// Counts a budget that the last report used up.
    #[inline]
    pub(super) fn count_budget(&mut self, flow: FlowIndex, outlets: &Outlets) {
        let used_up = self.lanes().budgets_used_up();
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
        for number in 0..CLIENTS_MAX {
            assert_eq!(clients.place(session(number), |_| false), Some((ClientIndex(number as u16), true)));
        }
        assert_eq!(clients.place(session(7), |_| true), Some((ClientIndex(7), false)));
        assert_eq!(clients.place(session(999), |_| false), None);
        assert_eq!(clients.place(session(999), |client| client.0 > 3), Some((ClientIndex(4), true)));
        assert_eq!(clients.place(session(4), |_| true), Some((ClientIndex(5), true)));
    }
}
