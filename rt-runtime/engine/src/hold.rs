//! Messages that overtook others while their stream moved from one link to another.
//!
//! What is kept is whole and belongs to an unreliable flow. It is released in the order of the
//! flow's numbers: when all before it has come, when a fence says that no more will, or when
//! it was kept for [`HOLD_MAX`] (and the links have nothing more, or [`HOLD_BUSY_MAX`] have
//! passed in which turns were made).
//!
//! A thread that stood still finds a backlog at the link that was left, and another at the
//! link by which the stream goes on. What is missing is in the first of them. So once
//! [`CROWDED`] messages are kept, links that are *ahead* hand out one frame a turn, as long as
//! another one still has frames: what is kept grows by one a turn then, and not by as much as
//! the other link hands out.
//!
//! Bounds: [`HELD_MAX`] messages, of one runtime [`HELD_OF_HOST_MAX`], so that one that claims
//! to move leaves places to others. Small ones are kept here, larger ones in a buffer of their
//! domain's heap each. Look-ups are binary searches.

use crate::command::Topic;
use insane_core::heap::BufferId;
use insane_core::limits::{INLINE_BYTES_MAX, LINKS_MAX};
use insane_core::{DomainIndex, HostId, MonoTime, Nanos};
use insane_overlay::flow::FlowKey;
use insane_wire::data::Leg;

/// A message is kept so long at most. Longer than links of one site differ in delay, much
/// shorter than it takes to notice that a link is dead.
pub const HOLD_MAX: Nanos = Nanos::from_millis(20);
/// The same, while links have more frames for the datapath than it takes in a turn. A turn
/// counts for `TURN_COUNTS_MAX` at most.
pub const HOLD_BUSY_MAX: Nanos = Nanos::from_millis(100);
/// What was not looked for meanwhile, because the thread stood still, has not been waited for.
const TURN_COUNTS_MAX: Nanos = Nanos::from_millis(1);
/// Messages that are kept at once.
pub const HELD_MAX: usize = 1024;
/// Of those, messages of one runtime.
pub const HELD_OF_HOST_MAX: usize = 512;
/// So many that are kept limit the links that are ahead: what one link hands out in two turns.
const CROWDED: usize = 2 * crate::FRAMES_PER_TURN as usize;
/// Links are limited in so many turns at most, until nothing is kept once: some milliseconds.
/// One that claims to move cannot keep others waiting for longer.
const LIMITED_TURNS_MAX: u16 = 512;

/// The content of a message that is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kept {
    /// A small one.
    Inline(u8, [u8; INLINE_BYTES_MAX]),
    /// In a buffer of the domain's heap, with its length.
    Buffer(BufferId, u32),
}

const _: () = assert!(INLINE_BYTES_MAX <= u8::MAX as usize);

/// A message that is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub key: FlowKey,
    pub sequence: u64,
    pub leg: Leg,
    pub source_ns: u64,
    pub topic: Topic,
    pub domain: DomainIndex,
    /// Place of the link that it came by.
    pub by: u8,
    /// Kept until then at most.
    pub until: MonoTime,
    pub content: Kept,
}

/// Memory of one that is kept, with its place in the order, bytes.
pub const HELD_BYTES: usize = 192;
const _: () = assert!(size_of::<Option<Held>>() + 2 * size_of::<u16>() <= HELD_BYTES);

/// Why a message is not kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotHeld {
    /// It is here already.
    Duplicate,
    NoPlace,
}

/// See the module.
pub(crate) struct Holds {
    places: Box<[Option<Held>]>,
    free: Vec<u16>,
    /// Taken places, by flow and sequence.
    order: Vec<u16>,
    /// No message has to go before.
    due: MonoTime,
    /// The last turn that looked for what is missing, or began to.
    looked_at: MonoTime,
    /// How many came by each link.
    of_link: [u16; LINKS_MAX],
    /// Turns in which links may still be limited.
    patience: u16,
}

const _: () = assert!(HELD_MAX <= u16::MAX as usize && LINKS_MAX <= u8::BITS as usize);

impl Holds {
    pub fn new() -> Self {
        Holds {
            places: vec![None; HELD_MAX].into(),
            free: (0..HELD_MAX as u16).rev().collect(),
            order: Vec::with_capacity(HELD_MAX),
            due: MonoTime(u64::MAX),
            looked_at: MonoTime(0),
            of_link: [0; LINKS_MAX],
            patience: LIMITED_TURNS_MAX,
        }
    }

    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn at(&self, position: usize) -> Option<&Held> {
        self.places[usize::from(*self.order.get(position)?)].as_ref()
    }

    /// The first position whose message does not come before.
    fn position(&self, is_before: impl Fn(&Held) -> bool) -> usize {
        self.order.partition_point(|place| self.places[usize::from(*place)].as_ref().is_some_and(&is_before))
    }

    /// Keeps a message, from `now` on.
    pub fn put(&mut self, now: MonoTime, held: Held) -> Result<(), NotHeld> {
        let (key, sequence) = (held.key, held.sequence);
        let position = self.position(|other| (other.key, other.sequence) < (key, sequence));
        if self.at(position).is_some_and(|other| (other.key, other.sequence) == (key, sequence)) {
            return Err(NotHeld::Duplicate);
        }
        let of_host =
            self.position(|other| other.key.host <= key.host) - self.position(|other| other.key.host < key.host);
        if of_host >= HELD_OF_HOST_MAX {
            return Err(NotHeld::NoPlace);
        }
        let place = self.free.pop().ok_or(NotHeld::NoPlace)?;
        if self.order.is_empty() {
            self.looked_at = now;
        }
        self.due = self.due.min(held.until);
        if let Some(count) = self.of_link.get_mut(usize::from(held.by)) {
            *count += 1;
        }
        self.places[usize::from(place)] = Some(held);
        self.order.insert(position, place);
        Ok(())
    }

    /// The oldest message of a flow that is kept.
    pub fn first_of(&self, key: &FlowKey) -> Option<&Held> {
        let position = self.position(|other| other.key < *key);
        self.at(position).filter(|held| held.key == *key)
    }

    /// Takes the oldest message of a flow out.
    pub fn take_first_of(&mut self, key: &FlowKey) -> Option<Held> {
        let position = self.position(|other| other.key < *key);
        self.at(position).filter(|held| held.key == *key)?;
        self.take(position)
    }

    /// Takes a message of a runtime out that `keep` does not want.
    pub fn take_of_host(&mut self, host: HostId, keep: impl Fn(&FlowKey) -> bool) -> Option<Held> {
        let from = self.position(|other| other.key.host < host);
        let is_it = |held: &Held| held.key.host == host && !keep(&held.key);
        let position = (from..self.order.len()).find(|position| self.at(*position).is_some_and(is_it))?;
        self.take(position)
    }

    fn take(&mut self, position: usize) -> Option<Held> {
        let place = self.order.remove(position);
        self.free.push(place);
        if self.order.is_empty() {
            self.due = MonoTime(u64::MAX);
            self.patience = LIMITED_TURNS_MAX;
        }
        let held = self.places[usize::from(place)].take()?;
        if let Some(count) = self.of_link.get_mut(usize::from(held.by)) {
            *count -= 1;
        }
        Some(held)
    }

    /// Which of so many links are limited in the next turn, a bit each. `rest`: those that may
    /// have more frames. Ahead is a link by which more came of what is kept than by another:
    /// one that brought as few as any may have what is missing.
    #[cold]
    pub fn limited(&mut self, links: usize, rest: u8) -> u8 {
        let counts = &self.of_link[..links.min(LINKS_MAX)];
        let fewest = counts.iter().min().copied().unwrap_or(0);
        let bits = counts.iter().enumerate().map(|(link, count)| u8::from(*count > fewest) << link);
        let ahead = bits.fold(0, |ahead, bit| ahead | bit);
        let is_crowded = self.order.len() >= CROWDED && self.patience > 0;
        if ahead == 0 || !is_crowded || rest & !ahead == 0 {
            return 0;
        }
        self.patience -= 1;
        ahead
    }

    /// A turn looked for what is missing; `has_drained`: it found all that links had. Until
    /// when messages are overdue by now.
    pub fn looked(&mut self, now: MonoTime, has_drained: bool) -> MonoTime {
        let passed = now.since(std::mem::replace(&mut self.looked_at, now));
        if has_drained {
            return now;
        }
        if passed > TURN_COUNTS_MAX {
            self.put_off(Nanos(passed.0 - TURN_COUNTS_MAX.0), now + HOLD_MAX);
        }
        MonoTime(now.0.saturating_sub(HOLD_BUSY_MAX.0 - HOLD_MAX.0))
    }

    /// Messages whose time ends before that are kept for longer.
    #[cold]
    fn put_off(&mut self, by: Nanos, before: MonoTime) {
        for held in self.places.iter_mut().flatten().filter(|held| held.until < before) {
            held.until += by;
        }
        // Found anew by the next look.
        self.due = MonoTime(0);
    }

    /// A flow of which a message was kept for long enough. Looks at all of them when one is
    /// due, and not before.
    pub fn overdue(&mut self, now: MonoTime) -> Option<FlowKey> {
        if now < self.due {
            return None;
        }
        let held = || self.order.iter().filter_map(|place| self.places[usize::from(*place)].as_ref());
        let overdue = held().find(|held| held.until <= now).map(|held| held.key);
        if overdue.is_none() {
            self.due = held().map(|held| held.until).min().unwrap_or(MonoTime(u64::MAX));
        }
        overdue
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insane_core::{ChannelId, Incarnation, SourceId, StreamKey};
    use std::collections::BTreeMap;

    fn held(host: u64, source: u32, sequence: u64, until: u64) -> Held {
        let key =
            FlowKey { host: HostId(host), incarnation: Incarnation(1), source: SourceId(source), stream: StreamKey(1) };
        let topic = Topic { key: key.stream, channel: ChannelId(1) };
        let content = Kept::Inline(0, [0; INLINE_BYTES_MAX]);
        let until = MonoTime(until);
        let by = (sequence % 5) as u8;
        Held { key, sequence, leg: Leg::FIRST, source_ns: 0, topic, domain: DomainIndex(0), by, until, content }
    }

    #[test]
    fn it_gives_back_each_flow_in_order_and_keeps_its_bounds() {
        let mut holds = Holds::new();
        let mut model: BTreeMap<(FlowKey, u64), u64> = BTreeMap::new();
        let mut state = 1_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let (mut refused, mut limited) = (0, [0; 2]);
        for now in 0..100_000 {
            let message = held(random(3), random(4) as u32, random(600), now + 1_000);
            let entry = (message.key, message.sequence);
            let of_host = model.keys().filter(|(key, _)| key.host == message.key.host).count();
            if random(100) < 60 {
                let expected = if model.contains_key(&entry) {
                    Err(NotHeld::Duplicate)
                } else if of_host >= HELD_OF_HOST_MAX || model.len() >= HELD_MAX {
                    refused += 1;
                    Err(NotHeld::NoPlace)
                } else {
                    model.insert(entry, now + 1_000);
                    Ok(())
                };
                assert_eq!(holds.put(MonoTime(now), message), expected);
            } else {
                let first = model.range((message.key, 0)..).next().map(|(entry, _)| *entry);
                let first = first.filter(|(key, _)| *key == message.key);
                assert_eq!(holds.first_of(&message.key).map(|held| held.sequence), first.map(|(_, sequence)| sequence));
                assert_eq!(
                    holds.take_first_of(&message.key).map(|held| held.sequence),
                    first.map(|(_, sequence)| sequence)
                );
                first.map(|entry| model.remove(&entry));
            }
            if now % 997 == 0 {
                let is_due = |key: &FlowKey| model.iter().any(|((of, _), until)| of == key && *until <= now);
                match holds.overdue(MonoTime(now)) {
                    Some(key) => assert!(is_due(&key)),
                    None => assert!(model.values().all(|until| *until > now)),
                }
            }
            assert_eq!(holds.is_empty(), model.is_empty());
            if now % 97 == 0 {
                let links = 1 + random(LINKS_MAX as u64) as usize;
                let rest = random(256) as u8;
                let mut counts = [0_u16; LINKS_MAX];
                model.keys().for_each(|(_, sequence)| counts[(sequence % 5) as usize] += 1);
                assert_eq!(holds.of_link, counts);
                let patience = holds.patience;
                let mask = holds.limited(links, rest);
                let fewest = counts[..links].iter().min().copied().unwrap_or(0);
                let ahead: Vec<_> = (0..links).filter(|link| counts[*link] > fewest).collect();
                let others_have_more = (0..8).any(|link| rest >> link & 1 == 1 && !ahead.contains(&link));
                let is_due = model.len() >= CROWDED && patience > 0 && !ahead.is_empty() && others_have_more;
                let expected = if is_due { ahead.iter().fold(0, |mask, link| mask | 1_u8 << link) } else { 0 };
                assert_eq!((mask, holds.patience), (expected, patience - u16::from(is_due)));
                limited[usize::from(is_due)] += 1;
            }
        }
        assert!(refused > 0, "the bound was met");
        assert!(limited[0] > 10 && limited[1] > 10, "{limited:?}");
        let hosts: Vec<_> = model.keys().map(|(key, _)| key.host).collect();
        let mine = hosts.iter().filter(|host| **host == HostId(1)).count();
        let taken = std::iter::from_fn(|| holds.take_of_host(HostId(1), |_| false)).count();
        assert_eq!((taken, holds.order.len()), (mine, hosts.len() - mine));
        for host in 0..3 {
            while holds.take_of_host(HostId(host), |_| false).is_some() {}
        }
        assert_eq!((holds.of_link, holds.patience), ([0; LINKS_MAX], LIMITED_TURNS_MAX));
    }

    /// So many of one flow, in turns by each of these links.
    fn kept_by(links: &[u8], count: usize) -> Holds {
        let mut holds = Holds::new();
        for (sequence, by) in (0..count as u64).zip(links.iter().cycle()) {
            assert_eq!(holds.put(MonoTime(0), Held { by: *by, ..held(1, 1, sequence, 1_000) }), Ok(()));
        }
        holds
    }

    #[test]
    fn a_link_that_is_ahead_is_limited_while_another_may_have_what_is_missing() {
        assert_eq!(kept_by(&[1], CROWDED - 1).limited(2, 0b11), 0, "few are kept");
        assert_eq!(kept_by(&[1], CROWDED).limited(2, 0b11), 0b10);
        assert_eq!(kept_by(&[0], CROWDED).limited(2, u8::MAX), 0b01);
        assert_eq!(kept_by(&[1], CROWDED).limited(2, 0b10), 0, "no other link has anything");
        assert_eq!(kept_by(&[0], CROWDED).limited(1, u8::MAX), 0, "there is no other");
        assert_eq!(kept_by(&[0, 1], CROWDED).limited(2, 0b11), 0, "neither is ahead");
        assert_eq!(kept_by(&[0, 1, 1], CROWDED).limited(2, 0b11), 0b10, "what one brings lets the other be ahead");
        assert_eq!(kept_by(&[1, 2], CROWDED).limited(3, 0b001), 0b110);
    }

    #[test]
    fn nobody_is_limited_for_long_until_nothing_is_kept_once() {
        let mut holds = kept_by(&[1], CROWDED + 1);
        for turn in 0..2 * LIMITED_TURNS_MAX {
            let expected = if turn < LIMITED_TURNS_MAX { 0b10 } else { 0 };
            assert_eq!(holds.limited(2, 0b01), expected, "turn {turn}");
        }
        assert!(holds.take(0).is_some());
        assert_eq!(holds.limited(2, 0b01), 0, "some are still kept");
        while !holds.is_empty() {
            assert!(holds.take(0).is_some());
        }
        assert_eq!(holds.patience, LIMITED_TURNS_MAX);
    }

    #[test]
    fn a_message_is_kept_for_longer_by_what_nobody_looked() {
        let from = MonoTime(1_000_000_000);
        let until = from + HOLD_MAX;
        let mut holds = Holds::new();
        assert_eq!(holds.put(from, held(1, 1, 1, until.0)), Ok(()));
        // A turn that followed at once, and one after a second.
        assert_eq!(
            holds.looked(from + Nanos::from_micros(5), false).0 + (HOLD_BUSY_MAX.0 - HOLD_MAX.0),
            from.0 + 5_000
        );
        let back = from + Nanos::from_secs(1);
        assert_eq!(holds.put(back, held(1, 1, 2, (back + HOLD_MAX).0)), Ok(()));
        let overdue = holds.looked(back, false);
        assert_eq!(holds.overdue(overdue), None);
        let put_off = Nanos::from_secs(1).0 - 5_000 - TURN_COUNTS_MAX.0;
        assert_eq!(holds.at(0).map(|held| held.until), Some(MonoTime(until.0 + put_off)));
        assert_eq!(holds.at(1).map(|held| held.until), Some(back + HOLD_MAX), "it came in this very turn");
        // Turns that are rare count, too: it ends.
        let mut now = back;
        let turns = (1..).find(|_| {
            now += Nanos::from_millis(30);
            let overdue = holds.looked(now, false);
            holds.overdue(overdue).is_some()
        });
        assert_eq!(turns, Some(HOLD_BUSY_MAX.0 / TURN_COUNTS_MAX.0 - 1));
        // Where links have nothing more, what is missing will not come.
        let mut holds = Holds::new();
        assert_eq!(holds.put(from, held(1, 1, 1, until.0)), Ok(()));
        let overdue = holds.looked(back, true);
        assert!(holds.overdue(overdue).is_some());
    }
}
