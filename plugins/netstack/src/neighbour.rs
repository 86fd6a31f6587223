//! Who has which hardware address: a table of fixed size.
//!
//! ```text
//!   acquire ──▶ Asking ──answer──▶ Known ──30 s, or another claims it──▶ Probing
//!                 ▲  ▲               ▲                                    │  │
//!                 │  │               └──────────────answer────────────────┘  │
//!     1 s each ───┘  └──────────────three unanswered─────────────────────────┘
//! ```
//! A place belongs to an address that the caller sends to, so a stranger cannot fill the
//! table. The hardware address is used in *Known* and *Probing*, and for 30 s of *Asking*: while a
//! neighbour is asked again, frames go on to where it was. Questions and answers may be lost where
//! frames are not, so a neighbour that was known is given up only when all questions of half a
//! minute, more than thirty, were in vain. A claim that nobody asked for changes nothing but
//! that the neighbour is asked; only if it is silent is everybody asked, and the answer
//! believed. (RFC 4861 would believe it at once where it bears the override flag; ARP knows
//! no better.)
//!
//! A released place keeps what is known until it is needed for another address.
//!
//! Where neighbours are the kernel's, its word ([`Told`]) takes the place of answers and claims, and
//! counts at once: it has weighed them.

use crate::ethernet::Mac;
use core::net::IpAddr;
use insane_core::{MonoTime, Nanos};

/// How long an answer counts (RFC 4861, REACHABLE_TIME).
const KNOWN_FOR: Nanos = Nanos::from_secs(30);
/// Between questions to a neighbour that was known.
const PROBE_EACH: Nanos = Nanos::from_millis(250);
/// Questions that a neighbour that was known may leave unanswered.
const PROBES: u8 = 3;
/// How long frames go on to where a neighbour was that has left so many unanswered, from when
/// everybody is asked.
const KEPT_FOR: Nanos = Nanos::from_secs(30);
/// Between the first questions to everybody, and between all after [`HURRIED`] of them
/// (RFC 4861, RETRANS_TIMER).
const ASK_SOON: Nanos = Nanos::from_millis(50);
const ASK_EACH: Nanos = Nanos::from_secs(1);
const HURRIED: u8 = 5;

/// The place of an address in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NeighbourId(u16);

/// Whom to ask what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question {
    /// Whose hardware address is wanted.
    pub address: IpAddr,
    /// The one that is to confirm its own; `None`: everybody is asked.
    pub to: Option<Mac>,
}

/// How somebody told its hardware address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Word {
    /// As an answer.
    Answer,
    /// In a question of its own, or to everybody.
    Claim,
}

/// What the kernel says of a neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// It is there.
    At(Mac),
    /// It does not answer.
    Nowhere,
    /// It is forgotten, which says nothing of where it is.
    Unknown,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// With where it was, and until when frames go there.
    Asking {
        was: Option<(Mac, MonoTime)>,
        asked: u8,
        next: MonoTime,
    },
    Known {
        mac: Mac,
        until: MonoTime,
    },
    /// `is_sure`: it was an answer once, and not only somebody's claim.
    Probing {
        mac: Mac,
        is_sure: bool,
        asked: u8,
        next: MonoTime,
    },
}

#[derive(Clone, Copy, Debug)]
struct Place {
    address: IpAddr,
    users: u16,
    state: State,
}

impl State {
    /// Everybody is asked from `now` on, and no frame goes anywhere before the answer.
    const fn lost(now: MonoTime) -> Self {
        State::Asking { was: None, asked: 0, next: now }
    }

    /// Whether it is still there is asked from `now` on.
    const fn probing(mac: Mac, now: MonoTime) -> Self {
        State::Probing { mac, is_sure: true, asked: 0, next: now }
    }
}

/// See the module's documentation. `PLACES` is 65,535 at most.
#[derive(Clone, Debug)]
pub struct Neighbours<const PLACES: usize> {
    places: [Option<Place>; PLACES],
    /// Where the next look for a question begins, so that each has its turn.
    turn: usize,
}

impl<const PLACES: usize> Neighbours<PLACES> {
    /// An empty table.
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(PLACES > 0 && PLACES <= u16::MAX as usize) };
        Neighbours { places: [None; PLACES], turn: 0 }
    }

    /// One user more of an address; it is asked for from now on. `None`: every place has one.
    pub fn acquire(&mut self, address: IpAddr, now: MonoTime) -> Option<NeighbourId> {
        let is_same = |place: &Option<Place>| place.is_some_and(|place| place.address == address);
        let at = self
            .places
            .iter()
            .position(is_same)
            .or_else(|| self.places.iter().position(Option::is_none))
            .or_else(|| self.places.iter().position(|place| place.is_some_and(|place| place.users == 0)))?;
        let place = self.places.get_mut(at)?;
        match place {
            Some(place) if place.address == address => {
                place.users = place.users.checked_add(1)?;
                // What was kept without a user may be old.
                match (place.state, place.users) {
                    (State::Known { mac, .. }, 1) => place.state = State::probing(mac, now),
                    (State::Asking { .. }, 1) => place.state = State::lost(now),
                    _ => {}
                }
            }
            other => *other = Some(Place { address, users: 1, state: State::lost(now) }),
        }
        Some(NeighbourId(at as u16))
    }

    /// One user less. Without any, nothing is asked any more.
    pub fn release(&mut self, id: NeighbourId) {
        if let Some(Some(place)) = self.places.get_mut(usize::from(id.0)) {
            place.users = place.users.saturating_sub(1);
        }
    }

    /// What is known counts no more: everybody is asked from `now` on.
    pub fn ask_all(&mut self, now: MonoTime) {
        for place in self.places.iter_mut().flatten() {
            place.state = State::lost(now);
        }
    }

    /// The hardware address to send to, if one is known.
    #[must_use]
    #[inline]
    pub fn mac(&self, id: NeighbourId) -> Option<Mac> {
        match self.places.get(usize::from(id.0))?.as_ref()?.state {
            State::Known { mac, .. } | State::Probing { mac, .. } => Some(mac),
            State::Asking { was, .. } => was.map(|(mac, _)| mac),
        }
    }

    /// Whether everybody is asked for an address that is in use: it has no hardware address yet,
    /// or does not answer at the one it had.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        let asks = |place: &Place| place.users > 0 && matches!(place.state, State::Asking { .. });
        self.places.iter().flatten().any(asks)
    }

    /// Somebody told where `address` is. Returns whether that is one of the table.
    pub(crate) fn hear(&mut self, address: IpAddr, told: Mac, word: Word, now: MonoTime) -> bool {
        let Some(place) = self.places.iter_mut().flatten().find(|place| place.address == address) else {
            return false;
        };
        let known = State::Known { mac: told, until: now + KNOWN_FOR };
        place.state = match (place.state, word) {
            (State::Asking { .. }, Word::Answer) => known,
            // Everybody is asked already; a claim does not take the place of what was an answer.
            (asking @ State::Asking { was: Some((mac, _)), .. }, Word::Claim) if mac != told => asking,
            // Good enough to answer to, and asked at once whether it is true.
            (State::Asking { .. }, Word::Claim) => State::Probing { mac: told, is_sure: false, asked: 0, next: now },
            (State::Known { mac, .. } | State::Probing { mac, .. }, Word::Answer) if mac == told => known,
            (State::Known { mac, .. }, _) if mac != told => State::probing(mac, now),
            (unchanged, _) => unchanged,
        };
        true
    }

    /// The kernel says where `address` is. Returns whether that is one of the table.
    pub fn tell(&mut self, address: IpAddr, told: Told, now: MonoTime) -> bool {
        let Some(place) = self.places.iter_mut().flatten().find(|place| place.address == address) else {
            return false;
        };
        place.state = match (place.state, told) {
            (_, Told::At(mac)) => State::Known { mac, until: now + KNOWN_FOR },
            (State::Known { .. } | State::Probing { .. }, Told::Nowhere) => State::lost(now),
            (State::Asking { asked, next, .. }, Told::Nowhere) => State::Asking { was: None, asked, next },
            // Frames go on to where it was, while it is asked for.
            (State::Known { mac, .. }, Told::Unknown) => State::probing(mac, now),
            (unchanged, _) => unchanged,
        };
        true
    }

    /// The next question that is due; called again until there is none. At most one a place
    /// and `now`.
    pub fn poll(&mut self, now: MonoTime) -> Option<Question> {
        for step in 0..PLACES {
            let at = (self.turn + step) % PLACES;
            if let Some(place) = &mut self.places[at]
                && let Some(question) = place.poll(now)
            {
                self.turn = (at + 1) % PLACES;
                return Some(question);
            }
        }
        None
    }
}

impl<const PLACES: usize> Default for Neighbours<PLACES> {
    fn default() -> Self {
        Self::new()
    }
}

impl Place {
    fn poll(&mut self, now: MonoTime) -> Option<Question> {
        if self.users == 0 {
            return None;
        }
        if let State::Known { mac, until } = self.state
            && now >= until
        {
            self.state = State::probing(mac, now);
        }
        if let State::Probing { mac, is_sure, asked: PROBES, next } = self.state
            && now >= next
        {
            let was = is_sure.then_some((mac, now + KEPT_FOR));
            self.state = State::Asking { was, asked: 0, next: now };
        }
        if let State::Asking { was, .. } = &mut self.state
            && was.is_some_and(|(_, until)| now >= until)
        {
            *was = None;
        }
        match &mut self.state {
            State::Probing { mac, asked, next, .. } if now >= *next => {
                *asked += 1;
                *next = now + PROBE_EACH;
                Some(Question { address: self.address, to: Some(*mac) })
            }
            State::Asking { asked, next, .. } if now >= *next => {
                *next = now + if *asked < HURRIED { ASK_SOON } else { ASK_EACH };
                *asked = asked.saturating_add(1);
                Some(Question { address: self.address, to: None })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 1));
    const HERE: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const THIEF: Mac = Mac([2, 0, 0, 0, 0, 66]);

    fn at(millis: u64) -> MonoTime {
        MonoTime(0) + Nanos::from_millis(millis)
    }

    fn known() -> (Neighbours<4>, NeighbourId) {
        let mut table = Neighbours::new();
        let id = table.acquire(A, at(0)).unwrap();
        assert_eq!((table.mac(id), table.is_asking()), (None, true));
        assert_eq!(table.poll(at(0)), Some(Question { address: A, to: None }));
        assert_eq!(table.poll(at(0)), None);
        assert!(table.hear(A, HERE, Word::Answer, at(1)));
        assert_eq!((table.mac(id), table.is_asking()), (Some(HERE), false));
        (table, id)
    }

    #[test]
    fn a_neighbour_is_asked_again_while_frames_go_on() {
        let (mut table, id) = known();
        assert_eq!(table.poll(at(30_000)), None);
        for turn in 0..3 {
            assert_eq!(table.poll(at(30_001 + 250 * turn)), Some(Question { address: A, to: Some(HERE) }));
            assert_eq!(table.mac(id), Some(HERE));
        }
        assert!(table.hear(A, HERE, Word::Answer, at(30_700)));
        assert_eq!(table.poll(at(60_000)), None, "it counts for as long again");
    }

    #[test]
    fn a_thief_is_not_believed_while_the_neighbour_answers() {
        for word in [Word::Claim, Word::Answer] {
            let (mut table, id) = known();
            for millis in 10..2_000 {
                table.hear(A, THIEF, word, at(millis));
                if let Some(question) = table.poll(at(millis)) {
                    assert_eq!(question.to, Some(HERE), "the known one is asked");
                    table.hear(A, HERE, Word::Answer, at(millis));
                }
                assert_eq!(table.mac(id), Some(HERE));
            }
        }
    }

    #[test]
    fn a_claim_takes_nobodys_place_and_is_not_kept() {
        let (mut table, id) = known();
        let mut millis = 30_001;
        while !table.is_asking() {
            table.poll(at(millis));
            millis += 1;
        }
        // Its answers are lost, and frames go on to where it was.
        for millis in millis..millis + 20_000 {
            table.hear(A, THIEF, Word::Claim, at(millis));
            table.poll(at(millis));
            assert_eq!((table.mac(id), table.is_asking()), (Some(HERE), true));
        }
        // Of one that never answered, a claim counts for as long as it is asked about.
        let mut table = Neighbours::<4>::new();
        let id = table.acquire(A, at(0)).unwrap();
        table.poll(at(0));
        table.hear(A, THIEF, Word::Claim, at(1));
        assert_eq!(table.mac(id), Some(THIEF), "good enough to answer to");
        for millis in 1..=751 {
            table.poll(at(millis));
        }
        assert_eq!((table.mac(id), table.is_asking()), (None, true));
    }

    #[test]
    fn a_neighbour_that_moved_is_found() {
        let (mut table, id) = known();
        table.hear(A, THIEF, Word::Claim, at(10));
        let mut millis = 10;
        // The old place is asked first, and then everybody.
        while !table.is_asking() {
            table.poll(at(millis));
            millis += 10;
            assert!(millis < 1_000);
        }
        assert_eq!(table.mac(id), Some(HERE));
        table.hear(A, THIEF, Word::Answer, at(millis));
        assert_eq!(table.mac(id), Some(THIEF));
    }

    #[test]
    fn the_kernels_word_counts_at_once() {
        let (mut table, id) = known();
        assert!(table.tell(A, Told::At(THIEF), at(10)));
        assert_eq!((table.mac(id), table.poll(at(10))), (Some(THIEF), None));
        // Forgotten: it is asked for, and frames go on.
        table.tell(A, Told::Unknown, at(20));
        assert_eq!(table.mac(id), Some(THIEF));
        assert_eq!(table.poll(at(20)), Some(Question { address: A, to: Some(THIEF) }));
        table.tell(A, Told::Unknown, at(21));
        assert_eq!(table.poll(at(21)), None, "it is being asked for");
        table.tell(A, Told::At(HERE), at(22));
        assert_eq!((table.mac(id), table.poll(at(30_021))), (Some(HERE), None));
        assert_eq!(table.poll(at(30_022)).map(|question| question.to), Some(Some(HERE)), "and looked at again");
        // Silent: no frame goes there, and the pace of the questions is its own.
        table.tell(A, Told::Nowhere, at(30_030));
        assert_eq!((table.mac(id), table.is_asking()), (None, true));
        assert_eq!(table.poll(at(30_030)), Some(Question { address: A, to: None }));
        for told in [Told::Nowhere, Told::Unknown] {
            table.tell(A, told, at(30_031));
            assert_eq!(table.poll(at(30_079)), None);
        }
        assert!(table.poll(at(30_080)).is_some());
        // Without a word it is as for one that does not answer.
        table.tell(A, Told::At(HERE), at(40_000));
        table.tell(A, Told::Unknown, at(40_000));
        let asked = (40_000..40_750).filter(|millis| table.poll(at(*millis)).is_some()).count();
        assert_eq!((asked, table.mac(id)), (3, Some(HERE)));
        table.poll(at(40_750));
        assert_eq!((table.mac(id), table.is_asking()), (Some(HERE), true));
        // Its word that nobody is there counts at once, and the pace stays.
        table.tell(A, Told::Nowhere, at(40_760));
        assert_eq!((table.mac(id), table.poll(at(40_799))), (None, None));
        assert!(table.poll(at(40_800)).is_some());
        assert!(!table.tell(IpAddr::from([10, 0, 0, 9]), Told::At(HERE), at(50_000)), "a stranger takes no place");
    }

    #[test]
    fn who_is_not_there_is_asked_for_ever_and_ever_more_rarely() {
        let mut table = Neighbours::<4>::new();
        table.acquire(A, at(0)).unwrap();
        let questions = (0..10_000).filter(|millis| table.poll(at(*millis)).is_some()).count();
        assert_eq!(questions, 15, "at 0, 50, 100, 150, 200, 250 ms, and then each second");
        assert!(table.is_asking());
    }

    #[test]
    fn what_was_known_of_another_network_counts_no_more() {
        let (mut table, id) = known();
        table.ask_all(at(10));
        assert_eq!((table.mac(id), table.is_asking()), (None, true));
        assert_eq!(table.poll(at(10)), Some(Question { address: A, to: None }), "everybody is asked, at once");
        table.hear(A, THIEF, Word::Answer, at(11));
        assert_eq!(table.mac(id), Some(THIEF), "whoever has the address now");
    }

    #[test]
    fn strangers_take_no_place_and_released_ones_are_kept_for_a_while() {
        let (mut table, id) = known();
        let other = |last| IpAddr::from([10, 0, 0, last]);
        assert!(!table.hear(other(9), THIEF, Word::Answer, at(2)));
        table.release(id);
        assert_eq!(table.poll(at(100_000)), None, "nobody needs it");
        let again = table.acquire(A, at(100_000)).unwrap();
        assert_eq!((again, table.mac(again)), (id, Some(HERE)), "it is still known");
        assert_eq!(table.poll(at(100_000)), Some(Question { address: A, to: Some(HERE) }), "and asked");
        for last in 2..5 {
            table.acquire(other(last), at(0)).unwrap();
        }
        assert_eq!(table.acquire(other(5), at(0)), None, "every place has a user");
        table.release(again);
        assert_eq!(table.acquire(other(5), at(0)), Some(id));
        assert_eq!(table.mac(id), None);
    }

    #[test]
    fn what_was_given_up_without_a_user_is_not_used_again_unasked() {
        let (mut table, id) = known();
        for millis in (30_001..31_000).step_by(10) {
            table.poll(at(millis));
        }
        assert_eq!((table.mac(id), table.is_asking()), (Some(HERE), true));
        table.release(id);
        let again = table.acquire(A, at(90_000)).unwrap();
        assert_eq!((again, table.mac(again)), (id, None));
    }

    proptest! {
        /// Of each `lost` + 1 questions one is answered, and some time none any more, as where the
        /// peer is there and its answers are not. Frames for it are refused at no time before
        /// `KNOWN_FOR` and `KEPT_FOR` are over since the last answer, and soon after that they are.
        #[test]
        fn lost_questions_cost_no_frame_for_a_minute(
            lost in 0u32..30, each in 10u64..100, answers in 0u32..6, delay in 0u64..40,
        ) {
            let (mut table, id) = known();
            let (mut now, mut questions, mut answered, mut last) = (1, 0, 0, 1);
            while now < last + 60_000 {
                now += each;
                while table.poll(at(now)).is_some() {
                    questions += 1;
                    if questions > lost && answered < answers {
                        (questions, answered, last) = (0, answered + 1, now + delay);
                        table.hear(A, HERE, Word::Answer, at(last));
                        now = last;
                    }
                }
                prop_assert_eq!(table.mac(id), Some(HERE), "{} ms after the last answer", now - last);
            }
            // And the three questions to it alone, each of which may be a look late.
            let end = last + 60_750 + 8 * each;
            while now < end {
                now += each;
                table.poll(at(now));
            }
            prop_assert_eq!(table.mac(id), None);
            prop_assert!(answered == answers);
        }

        /// Whatever is heard and asked: a hardware address in use was told by somebody, a place
        /// is asked for at most once an instant, and users are counted right.
        #[test]
        fn anything_may_be_heard(
            steps in proptest::collection::vec((0u8..7, 0u8..6, 0u8..4, 0u64..5_000), 1..200),
        ) {
            let mut table = Neighbours::<4>::new();
            let mut users = [0u16; 6];
            let mut places = [None; 6];
            let mut now = at(0);
            for (what, who, mac, later) in steps {
                let address = IpAddr::from([10, 0, 0, who]);
                let who = usize::from(who);
                now += Nanos::from_millis(later);
                match what {
                    0 => match table.acquire(address, now) {
                        Some(id) => {
                            users[who] += 1;
                            places[who] = Some(id);
                        }
                        None => prop_assert!(users.iter().filter(|users| **users > 0).count() == 4),
                    },
                    1 if users[who] > 0 => {
                        table.release(places[who].unwrap());
                        users[who] -= 1;
                    }
                    2 => { table.hear(address, Mac([2, 0, 0, 0, 0, mac]), Word::Answer, now); }
                    3 => { table.hear(address, Mac([2, 0, 0, 0, 0, mac]), Word::Claim, now); }
                    4 => { table.tell(address, Told::At(Mac([2, 0, 0, 0, 0, mac])), now); }
                    5 => {
                        table.tell(address, if mac == 0 { Told::Nowhere } else { Told::Unknown }, now);
                    }
                    _ => {
                        let mut asked = std::collections::BTreeSet::new();
                        while let Some(question) = table.poll(now) {
                            prop_assert!(asked.insert(question.address));
                        }
                        for address in asked {
                            let IpAddr::V4(v4) = address else { panic!() };
                            prop_assert!(users[usize::from(v4.octets()[3])] > 0);
                        }
                    }
                }
                let in_use: std::vec::Vec<_> = (0..6).filter(|who| users[*who] > 0).map(|who| places[who]).collect();
                let apart: std::collections::BTreeSet<_> = in_use.iter().map(|id| id.unwrap().0).collect();
                prop_assert_eq!(apart.len(), in_use.len());
            }
        }
    }
}
