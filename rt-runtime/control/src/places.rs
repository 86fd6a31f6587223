//! Threads of clients that the runtime has placed: given a priority and cores that they could
//! not take themselves.
//!
//! A client says which thread by a number; which thread that is, and that it belongs to the
//! client's process, the kernel says ([`ForeignThread`]). What was given is taken back when
//! the session ends, and when a look finds the thread outside of what the rule allows: under
//! `SCHED_FIFO` an ordinary process may still choose its cores.
//!
//! Bounds: `threads_max` of the domain's rule; [`PLACES_PER_SECOND`] requests of a domain.

use crate::quota::{Bucket, Pace};
use crate::spec::RealtimeRule;
use insane_core::{DomainIndex, MonoTime, Nanos, SessionId};
use insane_sys::OsError;
use insane_sys::foreign_thread::{ForeignThread, Placement};
use insane_sys::thread::SchedPolicy;
use insane_wire::control::DatapathCore;
use std::collections::BTreeMap;

/// Requests of one domain: each makes the control plane read a process's files.
pub(crate) const PLACES_PER_SECOND: u32 = 32;

/// Between two looks at what was given.
const WATCH_EVERY: Nanos = Nanos::from_secs(1);

/// What one thread was given.
#[derive(Debug)]
struct Place {
    session: SessionId,
    domain: DomainIndex,
    thread: ForeignThread,
    before: Placement,
    priority: Option<u8>,
}

/// A thread that was put back, and why.
#[derive(Debug)]
pub(crate) struct Revoked {
    pub(crate) session: SessionId,
    pub(crate) tid: i32,
    pub(crate) why: String,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Places {
    places: Vec<Place>,
    pace: BTreeMap<DomainIndex, Bucket>,
    is_keeping: bool,
    watch_at: MonoTime,
}

impl Places {
    /// Whether a domain may ask now.
    pub(crate) fn may_ask(&mut self, domain: DomainIndex, now: MonoTime) -> bool {
        let bucket = self.pace.entry(domain).or_insert_with(|| Bucket::new(PLACES_PER_SECOND, now));
        if bucket.take(1, now) == Pace::Fine {
            return true;
        }
        // Who asks too fast gets no debt by it: the next second serves everybody again.
        bucket.set_rate(PLACES_PER_SECOND, now);
        false
    }

    /// Whether there is room for one more of the domain; `tid`, which may be there already,
    /// apart.
    pub(crate) fn has_room(&mut self, domain: DomainIndex, tid: i32, rule: &RealtimeRule) -> bool {
        self.places.retain(|place| place.thread.is_alive());
        let others = self.places.iter().filter(|place| place.domain == domain && place.thread.tid() != tid);
        others.count() < rule.threads_max
    }

    /// Places a thread that may be placed so.
    pub(crate) fn give(
        &mut self,
        (session, domain): (SessionId, DomainIndex),
        thread: ForeignThread,
        priority: Option<u8>,
        cores: &[u16],
    ) -> Result<(), OsError> {
        let mut before = thread.placement()?;
        let cores: Vec<usize> = cores.iter().map(|core| usize::from(*core)).collect();
        thread.place(priority.map(SchedPolicy::Fifo), &cores)?;
        let tid = thread.tid();
        let mut priority = priority;
        // One place a thread, whichever session of its process asks: with two, the end of one
        // would put it back to what the other had given.
        if let Some(at) = self.places.iter().position(|place| place.thread.tid() == tid) {
            let earlier = self.places.swap_remove(at);
            if earlier.thread.is_alive() {
                before = earlier.before;
                priority = priority.or(earlier.priority);
            }
        }
        self.places.push(Place { session, domain, thread, before, priority });
        Ok(())
    }

    /// The session is over: its threads are put back.
    pub(crate) fn forget(&mut self, session: SessionId) {
        let is_keeping = self.is_keeping;
        self.places.retain(|place| {
            if place.session == session && !is_keeping {
                // Gone: nothing is to be put back.
                let _ = place.thread.put_back(&place.before, place.priority.is_some());
            }
            place.session != session
        });
    }

    /// What was given stays from now on, also when sessions end.
    pub(crate) fn keep(&mut self) {
        self.is_keeping = true;
    }

    /// Once a second: puts back who is outside of what the rules allow now; forgets who is
    /// gone.
    pub(crate) fn watch<'r>(
        &mut self,
        now: MonoTime,
        rule: impl Fn(DomainIndex) -> &'r RealtimeRule,
        datapaths: &[DatapathCore],
    ) -> Vec<Revoked> {
        let mut revoked = Vec::new();
        if now < self.watch_at {
            return revoked;
        }
        self.watch_at = now + WATCH_EVERY;
        self.places.retain(|place| {
            let Ok(cores) = place.thread.cores() else { return false };
            let Some(why) = outside(rule(place.domain), place.priority, &cores, datapaths) else { return true };
            let _ = place.thread.put_back(&place.before, place.priority.is_some());
            revoked.push(Revoked { session: place.session, tid: place.thread.tid(), why });
            false
        });
        revoked
    }

    /// Names and numbers of a session's threads.
    pub(crate) fn of(&self, session: SessionId) -> impl Iterator<Item = (String, i32)> + '_ {
        let mine = self.places.iter().filter(move |place| place.session == session && place.thread.is_alive());
        mine.map(|place| (place.thread.name(), place.thread.tid()))
    }
}

/// Why a thread may not be where it is.
fn outside(rule: &RealtimeRule, priority: Option<u8>, cores: &[usize], datapaths: &[DatapathCore]) -> Option<String> {
    let is_allowed = |core: &usize| u16::try_from(*core).is_ok_and(|core| rule.cores.contains(&core));
    if !cores.iter().all(is_allowed) {
        return Some(format!("it may run on cores {cores:?}, and the domain's rule gives {:?}", rule.cores));
    }
    let disturbs = |one: &&DatapathCore| cores.contains(&usize::from(one.core));
    if let Some(why) = datapaths.iter().filter(disturbs).find_map(|one| one.refuses(priority)) {
        return Some(why);
    }
    let priority = priority?;
    rule.priority_max.is_none_or(|most| priority > most).then(|| {
        format!("it was given priority {priority}, and the domain's rule gives {} now", rule.priority_max.unwrap_or(0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const SECOND: insane_core::Nanos = insane_core::Nanos::from_secs(1);

    #[test]
    fn a_thousand_requests_are_a_few_and_the_next_second_is_free_again() {
        let mut places = Places::default();
        let now = MonoTime(5_000_000_000);
        let served = (0..1_000).filter(|_| places.may_ask(DomainIndex(0), now)).count();
        assert_eq!(served, PLACES_PER_SECOND as usize);
        assert!(places.may_ask(DomainIndex(1), now), "another tenant is not held up");
        assert!(places.may_ask(DomainIndex(0), now + SECOND));
    }

    #[test]
    fn a_thread_is_outside_where_cores_or_priority_are_not_of_the_rule() {
        let rule = RealtimeRule { priority_max: Some(50), cores: BTreeSet::from([1, 2]), ..RealtimeRule::default() };
        assert_eq!(outside(&rule, Some(50), &[1], &[]), None);
        assert_eq!(outside(&rule, None, &[1, 2], &[]), None);
        assert!(outside(&rule, Some(50), &[0, 1], &[]).unwrap().contains("[0, 1]"));
        assert!(outside(&rule, Some(51), &[1], &[]).unwrap().contains("51"));
        assert!(outside(&RealtimeRule { priority_max: None, ..rule.clone() }, Some(1), &[1], &[]).is_some());
        let core = DatapathCore { core: 2, datapath: "main".into(), spins: true, priority: None };
        assert!(outside(&rule, None, &[1, 2], std::slice::from_ref(&core)).unwrap().contains("spins there"));
        assert_eq!(outside(&rule, None, &[1], std::slice::from_ref(&core)), None);
        let sleeps = DatapathCore { spins: false, priority: Some(40), ..core };
        assert!(outside(&rule, Some(40), &[2], std::slice::from_ref(&sleeps)).unwrap().contains("less than 40"));
        assert_eq!(outside(&rule, Some(39), &[2], &[sleeps]), None);
    }
}
