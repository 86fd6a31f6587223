//! Whose doorbell rang: whose quiet sources are to be looked at.
//!
//! A session has one doorbell at a datapath, so a ring says which session it was and not which
//! source. A session has at most 256 sources and sinks, and sources that a turn looks at anyway
//! cost nothing here.
//!
//! Invariants: `members` is sorted. Every session in `waiting` has a member, and stands there
//! once, but for the first, which may have rung again since it was begun with. So `waiting`
//! needs room for as many as there are sources, and one more.
//!
//! Bounds: a ring costs a look at each of the session's sources once, and is noted by a search
//! through `waiting`; commands cost a move of `members`.

use insane_core::SessionId;
use std::collections::VecDeque;

/// The sources of each session, and the sessions that rang.
#[derive(Debug)]
pub(crate) struct Rung {
    members: Vec<(SessionId, u16)>,
    waiting: VecDeque<SessionId>,
    /// Where the next member of the first of them stands; `None`: it was not begun with.
    at: Option<usize>,
}

impl Rung {
    /// Room for `capacity` sources; nothing allocates afterwards.
    pub fn new(capacity: usize) -> Self {
        let waiting = VecDeque::with_capacity(capacity + 1);
        Rung { members: Vec::with_capacity(capacity), waiting, at: None }
    }

    /// A source of a session.
    pub fn add(&mut self, session: SessionId, place: u16) {
        if let Err(at) = self.members.binary_search(&(session, place)) {
            self.members.insert(at, (session, place));
        }
        // Members have moved: the first is begun with anew.
        self.at = None;
    }

    /// It is gone.
    pub fn remove(&mut self, session: SessionId, place: u16) {
        if let Ok(at) = self.members.binary_search(&(session, place)) {
            self.members.remove(at);
        }
        if !self.is_member(session, self.first_of(session)) {
            self.waiting.retain(|waiting| *waiting != session);
        }
        self.at = None;
    }

    fn first_of(&self, session: SessionId) -> usize {
        self.members.partition_point(|(of, _)| *of < session)
    }

    fn is_member(&self, session: SessionId, at: usize) -> bool {
        self.members.get(at).is_some_and(|(of, _)| *of == session)
    }

    /// The doorbell of a session rang.
    pub fn ring(&mut self, session: SessionId) {
        let begun = usize::from(self.at.is_some());
        if self.is_member(session, self.first_of(session)) && !self.waiting.iter().skip(begun).any(|it| *it == session)
        {
            self.waiting.push_back(session);
        }
    }

    /// Whether the sources of some session are still to be looked at.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// How many of the first of those sessions are still to be looked at.
    #[inline]
    pub fn left(&self) -> u32 {
        self.waiting.front().map_or(0, |session| self.left_of(*session))
    }

    #[cold]
    fn left_of(&self, session: SessionId) -> u32 {
        let until = self.members.partition_point(|(of, _)| *of <= session);
        (until - self.at.unwrap_or_else(|| self.first_of(session))) as u32
    }

    /// The place of the next of them.
    pub fn next(&mut self) -> Option<u16> {
        let session = *self.waiting.front()?;
        let at = self.at.unwrap_or_else(|| self.first_of(session));
        let (_, place) = *self.members.get(at)?;
        self.at = Some(at + 1);
        if !self.is_member(session, at + 1) {
            self.waiting.pop_front();
            self.at = None;
        }
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rung() -> Rung {
        let mut rung = Rung::new(8);
        for (session, place) in [(3, 7), (1, 2), (3, 0), (2, 4), (3, 5)] {
            rung.add(SessionId(session), place);
        }
        rung
    }

    fn rest(rung: &mut Rung) -> Vec<u16> {
        std::iter::from_fn(|| rung.next()).collect()
    }

    #[test]
    fn the_sources_of_who_rang_come_once_and_no_others() {
        let mut rung = rung();
        assert_eq!((rung.is_waiting(), rung.next()), (false, None));
        for session in [3, 1, 3, 9] {
            rung.ring(SessionId(session));
        }
        assert_eq!((rung.left(), rung.next(), rung.left()), (3, Some(0), 2));
        assert_eq!(rest(&mut rung), [5, 7, 2]);
        assert!(!rung.is_waiting());
    }

    #[test]
    fn who_rings_again_meanwhile_is_looked_at_once_more() {
        let mut rung = rung();
        rung.ring(SessionId(3));
        assert_eq!(rung.next(), Some(0));
        rung.ring(SessionId(3));
        rung.ring(SessionId(3));
        assert_eq!(rest(&mut rung), [5, 7, 0, 5, 7]);
    }

    #[test]
    fn sources_that_come_and_go_leave_nobody_out() {
        let mut rung = rung();
        [3, 1].into_iter().for_each(|session| rung.ring(SessionId(session)));
        assert_eq!(rung.next(), Some(0));
        rung.remove(SessionId(3), 0);
        rung.add(SessionId(3), 9);
        rung.remove(SessionId(1), 2);
        assert_eq!(rest(&mut rung), [5, 7, 9], "who has no source any more does not wait");
    }

    #[test]
    fn there_is_room_for_all_sessions_to_ring() {
        let mut rung = Rung::new(4);
        let capacity = rung.waiting.capacity();
        (0..4).for_each(|number| rung.add(SessionId(number), number as u16));
        for place in 0..3 {
            (0..4).for_each(|number| rung.ring(SessionId(number)));
            assert_eq!(rung.next(), Some(place));
        }
        assert_eq!(rest(&mut rung), [3, 0, 1]);
        assert_eq!(rung.waiting.capacity(), capacity);
    }
}
