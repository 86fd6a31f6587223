//! Best effort that is held to what a link may carry of it.
//!
//! A link that is paced has a pool of the scheduler, by its place, from which all best-effort
//! sources pay whose frames go by it. What has no room waits in its ring. Real time is in no
//! pool: it goes at once, and counts where the pace is chosen.
//!
//! A source whose peers are reached by several links pays with all that it sends for the first of
//! its peers whose link is paced.
//!
//! Who pays changes with commands alone, so a turn asks nothing that it would not ask for the
//! budgets of sessions.

use super::Transmitter;
use crate::command::Pace;
use crate::routes::Hops;
use insane_core::limits::LINKS_MAX;
use insane_scheduler::{FlowIndex, Policing, PoolIndex};

impl Transmitter {
    /// Whether any link is paced.
    pub const fn has_paces(&self) -> bool {
        self.paces != 0
    }

    /// What a link may carry of best effort from now on.
    #[cold]
    pub fn set_pace(&mut self, pace: &Pace) {
        if usize::from(pace.link) >= LINKS_MAX {
            return;
        }
        let lanes = self.lanes();
        let frame = lanes.limits().frame_bytes_max.get();
        let most = pace.most.map(|most| Policing { burst_bytes: most.burst_bytes.max(frame), ..most });
        // The burst has room for a frame, and there is such a pool.
        let _ = lanes.set_pool(PoolIndex(pace.link), most);
        let bit = 1 << pace.link;
        self.paces = if most.is_some() { self.paces | bit } else { self.paces & !bit };
    }

    /// The source at this place among those that it watches, which goes by these links, pays for
    /// the first of them that is paced.
    #[cold]
    pub fn pay_for_link(&mut self, at: usize, hops: &Hops) {
        let Some(place) = self.watch.all().get(at).copied() else { return };
        let Some(entry) = &mut self.sources[usize::from(place)] else { return };
        let paced = hops.iter().filter_map(|(_, link)| *link).find(|link| self.paces >> *link & 1 != 0);
        let paced = paced.filter(|_| !entry.lane.is_real_time());
        entry.is_paced = paced.is_some();
        entry.must_ask = entry.has_budget || entry.is_paced;
        let _ = self.lanes().join_pool(FlowIndex(place), paced.map(PoolIndex));
    }
}
