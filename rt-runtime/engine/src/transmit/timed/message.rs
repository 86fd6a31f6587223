//! One message of a grant: how it leaves, whole or in part, or why it does not.

use super::Slots;
use crate::command::Port;
use crate::deliver::Outlets;
use crate::links::Links;
use crate::transmit::source::{SourceEntry, abandon, begin, condemn, copy_on, finish, send_frame};
use crate::transmit::{FlowIndex, Transmitter};
use insane_core::counters::{DatapathCounter, TurnCounter};
use insane_core::{Fate, Stamp};
use insane_link::Link;
use insane_scheduler::LatePolicy;
use insane_shm::Violation;

/// Messages dropped for a newer one in one grant.
pub(super) const REPLACED_PER_GRANT: usize = 64;

/// What became of a grant for one message.
pub(super) struct OneMessage {
    /// Bytes of the link; zero: the link took nothing.
    pub(super) bytes: u32,
    pub(super) more: bool,
    /// Sequence and stamp of what went, or was dropped halfway. `None`: nothing did.
    pub(super) message: Option<(u64, u64)>,
    /// Half of it went, and the rest was dropped.
    pub(super) is_cut: bool,
    /// Sequence and stamp of the first that was dropped for it, and how many were.
    pub(super) replaced: Option<(u64, u64, u16)>,
}

impl OneMessage {
    /// The grant is used up by nothing.
    pub(super) const NOTHING: OneMessage =
        OneMessage { bytes: 1, more: false, message: None, is_cut: false, replaced: None };

    /// Nothing came of the grant: there was no message.
    pub(super) const fn is_nothing(&self) -> bool {
        self.bytes == 1 && self.message.is_none()
    }
}

impl Slots {
    /// What becomes of messages that give way to a newer one.
    pub(super) fn fate_of_older(&self, flow: FlowIndex) -> Fate {
        if self.timed.late_policy(flow) == Some(LatePolicy::Drop) { Fate::Dropped } else { Fate::Replaced }
    }

    /// Whether the message that was popped last is larger than its slot. One for sinks of this
    /// host alone is held to it, too: it is copied at once.
    fn is_oversize(&self, entry: &SourceEntry, bytes_max: u32, payload_max: u32, outlets: &Outlets) -> bool {
        let peers = peers_of(entry, outlets).max(1);
        self.config.message_bytes(entry.popped.len, payload_max, peers) > bytes_max
    }
}

impl Transmitter {
    /// Sends one message whole, or as much of it as the link takes.
    pub(super) fn send_one<L: Link>(
        &mut self,
        flow: FlowIndex,
        bytes_max: u32,
        newest: bool,
        links: &mut Links<L>,
        outlets: &mut Outlets,
        port: &Port,
    ) -> OneMessage {
        let (Some(slots), Some(entry)) = (self.slots.as_ref(), self.sources[flow.0 as usize].as_mut()) else {
            return OneMessage::NOTHING;
        };
        let result = one_message(entry, flow, (bytes_max, newest), slots, links, outlets, port);
        result.unwrap_or_else(|violation| {
            condemn(entry, violation, outlets, port);
            // The slot is used up: nothing else may go in it.
            OneMessage::NOTHING
        })
    }

    /// Drops one message.
    pub(super) fn drop_one(&mut self, flow: FlowIndex, outlets: &mut Outlets, port: &Port) -> OneMessage {
        let Some(entry) = self.sources[flow.0 as usize].as_mut() else { return OneMessage::NOTHING };
        let was_begun = entry.is_midway();
        if !was_begun {
            match entry.conn.pop(&mut entry.popped) {
                Ok(true) => outlets.count(entry.domain, DatapathCounter::MessagesFromSources, 1),
                Ok(false) => return OneMessage::NOTHING,
                Err(violation) => {
                    condemn(entry, violation, outlets, port);
                    return OneMessage::NOTHING;
                }
            }
        }
        let meta = entry.popped.meta;
        let message = (!is_of_past(entry, meta.source_ns)).then_some((meta.sequence, meta.source_ns));
        if let (Some(newcomers), false) = (&mut entry.newcomers, was_begun) {
            let _whom = newcomers.sort(&meta);
        }
        abandon(entry, outlets);
        OneMessage { more: entry.conn.is_ready(), message, ..OneMessage::NOTHING }
    }
}

fn peers_of(entry: &SourceEntry, outlets: &Outlets) -> u32 {
    outlets.routes.get(entry.route).map_or(0, |route| route.peers.len() as u32)
}

/// Whether a message is one of those that a source keeps for newcomers, or ends them.
fn is_of_past(entry: &SourceEntry, stamp: u64) -> bool {
    entry.newcomers.is_some() && Stamp::is_of_history(stamp)
}

/// The message that was just taken goes to nobody; what it says of the past counts all the same.
fn pass_over(entry: &mut SourceEntry) {
    if let Some(newcomers) = &mut entry.newcomers {
        let _whom = newcomers.sort(&entry.popped.meta);
    }
    finish(entry);
}

/// One message of a source with slots.
fn one_message<L: Link>(
    entry: &mut SourceEntry,
    flow: FlowIndex,
    (bytes_max, newest): (u32, bool),
    slots: &Slots,
    links: &mut Links<L>,
    outlets: &mut Outlets,
    port: &Port,
) -> Result<OneMessage, Violation> {
    let payload_max = links.payload_bytes_max();
    let mut sent = OneMessage::NOTHING;
    let is_midway = entry.is_midway();
    if is_midway && !slots.is_oversize(entry, bytes_max, payload_max, outlets) {
        // The lanes began it before its slots were in force, or the link took none of it.
        if entry.copying.is_some() {
            copy_on(entry, u32::MAX, links, outlets, port);
        }
    } else {
        if is_midway {
            abandon(entry, outlets);
            slots.count(TurnCounter::SlotsOversize, 1);
        }
        for left in (0..REPLACED_PER_GRANT).rev() {
            if !entry.conn.pop(&mut entry.popped)? {
                return Ok(sent);
            }
            let meta = entry.popped.meta;
            let is_past = is_of_past(entry, meta.source_ns);
            // What is kept of the past goes to newcomers alone: it replaces nothing that all get,
            // and nothing replaces it.
            let has_newer = || entry.conn.next_source_ns().is_some_and(|next| !is_of_past(entry, next));
            let replaced = newest && left > 0 && !is_past && has_newer();
            if !replaced && !slots.is_oversize(entry, bytes_max, payload_max, outlets) {
                begin(entry, (u32::MAX, false), links, outlets, port);
                if is_past && meta.sequence == u64::MAX {
                    // It only ends the past: what follows may have the slot.
                    continue;
                }
                break;
            }
            if replaced {
                let (first, stamp, count) = sent.replaced.unwrap_or((meta.sequence, meta.source_ns, 0));
                sent.replaced = Some((first, stamp, count + 1));
            }
            let fate = slots.fate_of_older(flow);
            slots.count(
                match replaced {
                    true if fate == Fate::Dropped => TurnCounter::LateDropped,
                    true => TurnCounter::LateReplaced,
                    false => TurnCounter::SlotsOversize,
                },
                1,
            );
            pass_over(entry);
        }
    }
    let meta = entry.popped.meta;
    // The past missed no slot: nothing is noted of it.
    sent.message = (!is_of_past(entry, meta.source_ns)).then_some((meta.sequence, meta.source_ns));
    let mut has_begun = entry.underway.is_none();
    // As many frames as the message has for all its peers, which the size of the slot bounds.
    while entry.underway.is_some() {
        if send_frame(entry, links, outlets).is_none() {
            if !has_begun {
                return Ok(OneMessage { bytes: 0, more: true, message: None, ..sent });
            }
            // Half a message is of no use later.
            finish(entry);
            slots.count(TurnCounter::LateDropped, 1);
            sent.is_cut = true;
            break;
        }
        has_begun = true;
    }
    let bytes = slots.config.message_bytes(entry.popped.len, payload_max, peers_of(entry, outlets)).max(1);
    Ok(OneMessage { bytes, more: entry.conn.is_ready(), ..sent })
}
