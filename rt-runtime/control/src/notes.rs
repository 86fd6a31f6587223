//! The event log: what the hub notes, as log lines. Who provokes lines by the
//! thousand gets a few of them and a count of the rest.

use crate::action::{Note, Topic};
use crate::hub::stands::{Stand, State};
use crate::roster::Roster;
use insane_config::Plan;
use insane_core::{DatapathIndex, DomainIndex, MonoTime, Nanos, PeerIndex};
use tracing::{debug, info, warn};

/// Lines of one second.
const LINES_MAX: u32 = 50;
const PERIOD: Nanos = Nanos::from_secs(1);

/// What numbers are called, in the log as in reports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) roster: &'a Roster,
}

impl Names<'_> {
    fn domain(&self, domain: DomainIndex) -> &str {
        self.plan.domains.get(domain.index()).map_or("?", |domain| &domain.name)
    }

    fn peer(&self, peer: PeerIndex) -> &str {
        self.roster.get(peer).map_or("?", |entry| &entry.name)
    }

    fn datapath(&self, datapath: DatapathIndex) -> &str {
        self.plan.datapaths.get(datapath.index()).map_or("?", |datapath| &datapath.name)
    }

    fn link(&self, datapath: DatapathIndex, stand: Stand) -> &str {
        let Some(link) = stand.link else { return "the preferred one" };
        let links = self.plan.datapaths.get(datapath.index()).map(|datapath| &datapath.links);
        links.and_then(|links| links.get(link)).map_or("?", |link| &link.name)
    }
}

/// Writes notes, not too many.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    since: MonoTime,
    lines: u32,
    left_out: u64,
}

impl Notes {
    pub(crate) fn write(&mut self, note: &Note, now: MonoTime, names: Names<'_>) {
        if !self.may_write(now) {
            return;
        }
        match note {
            Note::SessionOpened { session, name, who, domain } => {
                let domain = names.domain(*domain);
                info!(%session, name, pid = who.pid, uid = who.uid, domain, "session opened");
            }
            Note::SessionClosed { session, reason: Some((code, reason)) } => {
                warn!(%session, ?code, reason, "session closed by the runtime");
            }
            Note::SessionClosed { session, reason: None } => info!(%session, "session is gone"),
            Note::Refused { session, code, reason } => debug!(%session, ?code, reason, "request refused"),
            Note::Violated { conn, by } => {
                let by = by.map_or("the runtime".to_owned(), |session| format!("session {session}"));
                warn!(%conn, by, "connection closed: its other end wrote what cannot be");
            }
            Note::SchemaMismatch { peer, topic, ours, theirs } => {
                let (Topic { key, channel }, peer) = (topic, names.peer(*peer));
                warn!(peer, %key, %channel, %ours, %theirs, "a peer's sinks expect another schema; they get nothing");
            }
            Note::SchemaRefused { peer, topic, ours, theirs } => {
                let (Topic { key, channel }, peer) = (topic, names.peer(*peer));
                warn!(peer, %key, %channel, %ours, %theirs, "a peer's sources are of another schema; sinks here get nothing of them");
            }
            Note::SlotsNotWidened { datapath, peers, reason } => {
                let datapath = names.datapath(*datapath);
                warn!(
                    datapath,
                    peers, reason, "slots have no room for a message to each peer; larger ones are dropped"
                );
            }
            Note::SlotsStand { datapath, stream, before, after } => {
                let (from, to) = (names.link(*datapath, *before), names.link(*datapath, *after));
                let datapath = names.datapath(*datapath);
                match after.state {
                    State::InSlots => info!(datapath, stream, from, to, "stream has its slots by this link"),
                    State::Stays => {
                        warn!(datapath, stream, link = to, "the link of a stream with slots has failed, and it stays");
                    }
                    State::Degraded => {
                        warn!(
                            datapath,
                            stream, "the link of a stream with slots has failed, and it goes without slots"
                        );
                    }
                }
            }
            Note::Unjoined { conn, reason } => {
                warn!(%conn, reason, "two ends could not be joined; tried again in a second");
            }
        }
    }

    fn may_write(&mut self, now: MonoTime) -> bool {
        if now.since(self.since) >= PERIOD {
            if self.left_out > 0 {
                warn!(left_out = self.left_out, "events not logged: too many in a second");
            }
            *self = Notes { since: now, lines: 0, left_out: 0 };
        }
        self.lines += 1;
        let may = self.lines <= LINES_MAX;
        self.left_out += u64::from(!may);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_the_next_second_is_free_again() {
        let mut notes = Notes::default();
        let now = MonoTime(5_000_000_000);
        assert_eq!((0..100).filter(|_| notes.may_write(now)).count(), LINES_MAX as usize);
        assert_eq!(notes.left_out, 50);
        assert!(notes.may_write(now + PERIOD));
        assert_eq!(notes.left_out, 0);
    }
}
