//! What sessions and datapaths count, read from their pages for one report.
//!
//! A session writes its page itself, and says which line is whose. All of it is a claim: any
//! number may stand there, and it is shown as that session's alone.

use crate::hub::view::SessionView;
use crate::objects::{COUNTER_LINES, Objects};
use insane_core::SessionId;
use insane_core::counters::{DatapathCounter, PORT_BASE, PortCounter};
use insane_shm::counters::CounterBlock;
use insane_shm::region::Region;
use insane_wire::status::Counters;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The pages of the sessions of one report, mapped once each.
pub(crate) struct Counted(BTreeMap<SessionId, Arc<Region>>);

impl Counted {
    /// Pages that are not sealed yet are left out: nobody may punch holes under a reader.
    pub(crate) fn new<'a>(sessions: impl Iterator<Item = SessionView<'a>>, objects: &Objects) -> Self {
        let page = |session: SessionView<'_>| {
            let page = session.counters.filter(|page| objects.is_sealed(*page))?;
            Some((session.id, objects.look(page).ok()?))
        };
        Counted(sessions.filter_map(page).collect())
    }

    fn block(&self, session: SessionId, line: u32) -> Option<CounterBlock> {
        CounterBlock::new(Arc::clone(self.0.get(&session)?), line)
    }

    /// All that a session has counted, in ports that are gone, too.
    pub(crate) fn of_session(&self, session: SessionId) -> Counters {
        if !self.0.contains_key(&session) {
            return Counters::new();
        }
        let blocks: Vec<CounterBlock> = (0..COUNTER_LINES).filter_map(|line| self.block(session, line)).collect();
        let sum =
            |counter: &PortCounter| blocks.iter().fold(0, |sum: u64, b| sum.wrapping_add(b.get(*counter as usize)));
        PortCounter::ALL.iter().map(|counter| (counter.name().to_owned(), sum(counter))).collect()
    }

    /// What the port that has a line has counted there, where it is not 0. `None`: it says no
    /// line, or its page cannot be read.
    pub(crate) fn of_port(&self, session: SessionId, line: Option<u32>) -> Option<Counters> {
        let block = self.block(session, line?)?;
        let own = |counter: &PortCounter| {
            let at = *counter as usize;
            let count = block.get(at).saturating_sub(block.get(PORT_BASE + at));
            (count > 0).then(|| (counter.name().to_owned(), count))
        };
        Some(PortCounter::ALL.iter().filter_map(own).collect())
    }
}

/// What stands in blocks of datapaths, added up.
pub(crate) fn datapath_counts(blocks: impl Iterator<Item = CounterBlock>) -> Counters {
    let blocks: Vec<CounterBlock> = blocks.collect();
    let sum = |counter: &DatapathCounter| blocks.iter().map(|block| block.get(*counter as usize)).sum();
    DatapathCounter::ALL.iter().map(|counter| (counter.name().to_owned(), sum(counter))).collect()
}
