//! Messages that overtook others while their stream moved from one link to another.
//!
//! What is kept is whole and belongs to an unreliable flow. It is released in the order of the
//! flow's numbers: when all before it has come, when a fence says that no more will, or when
//! it was kept for [`HOLD_MAX`] (and the links have nothing more, or [`HOLD_BUSY_MAX`] have passed).
//!
//! Bounds: [`HELD_MAX`] messages, of one runtime [`HELD_OF_HOST_MAX`], so that one that claims
//! to move leaves places to others. Small ones are kept here, larger ones in a buffer of their
//! domain's heap each. Look-ups are binary searches.

use crate::command::Topic;
use insane_core::heap::BufferId;
use insane_core::limits::INLINE_BYTES_MAX;
use insane_core::{DomainIndex, HostId, MonoTime, Nanos};
use insane_overlay::flow::FlowKey;
use insane_wire::data::Leg;

/// A message is kept so long at most. Longer than links of one site differ in delay, much
/// shorter than it takes to notice that a link is dead.
pub const HOLD_MAX: Nanos = Nanos::from_millis(20);
/// The same, while links have more frames for the datapath than it takes in a turn.
pub const HOLD_BUSY_MAX: Nanos = Nanos::from_millis(100);
/// Messages that are kept at once.
pub const HELD_MAX: usize = 1024;
/// Of those, messages of one runtime.
pub const HELD_OF_HOST_MAX: usize = 512;

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
}

impl Holds {
    pub fn new() -> Self {
        Holds {
            places: vec![None; HELD_MAX].into(),
            free: (0..HELD_MAX as u16).rev().collect(),
            order: Vec::with_capacity(HELD_MAX),
            due: MonoTime(u64::MAX),
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

    /// Keeps a message.
    pub fn put(&mut self, held: Held) -> Result<(), NotHeld> {
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
        self.due = self.due.min(held.until);
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
        }
        self.places[usize::from(place)].take()
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
        Held { key, sequence, leg: Leg::FIRST, source_ns: 0, topic, domain: DomainIndex(0), until, content }
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
        let mut refused = 0;
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
                assert_eq!(holds.put(message), expected);
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
        }
        assert!(refused > 0, "the bound was met");
        let hosts: Vec<_> = model.keys().map(|(key, _)| key.host).collect();
        let mine = hosts.iter().filter(|host| **host == HostId(1)).count();
        let taken = std::iter::from_fn(|| holds.take_of_host(HostId(1), |_| false)).count();
        assert_eq!((taken, holds.order.len()), (mine, hosts.len() - mine));
    }
}
