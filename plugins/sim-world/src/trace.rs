//! What happened lately, to explain the first violation.

use crate::ledger::{Delivery, Violation};
use insane_core::{MonoTime, PeerIndex};
use insane_overlay::flow::FlowKey;
use insane_overlay::membership::Event;
use std::collections::VecDeque;

/// Entries that are kept of each kind.
const KEPT: usize = 2048;
/// Entries that are shown of each kind.
const SHOWN: usize = 20;

/// One delivery.
#[derive(Clone, Copy, Debug)]
struct Line {
    at: MonoTime,
    host: usize,
    key: FlowKey,
    sequence: u64,
}

/// The last of what happened. See the module.
#[derive(Debug)]
pub struct Trace {
    started: Option<MonoTime>,
    said: VecDeque<(MonoTime, Option<usize>, String)>,
    delivered: VecDeque<Line>,
    /// Peers that came up, went down, and came in a new life; other events.
    pub events: [u64; 4],
    /// Prints as it goes.
    pub aloud: bool,
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

impl Trace {
    /// Nothing has happened.
    #[must_use]
    pub const fn new() -> Self {
        Trace { started: None, said: VecDeque::new(), delivered: VecDeque::new(), events: [0; 4], aloud: false }
    }

    /// Something happens, at a host or to all.
    pub fn say(&mut self, at: MonoTime, host: Option<usize>, what: String) {
        let started = *self.started.get_or_insert(at);
        if self.aloud {
            println!("{}", line(started, at, host, &what));
        }
        if self.said.len() == KEPT {
            self.said.pop_front();
        }
        self.said.push_back((at, host, what));
    }

    /// Membership says something at a host.
    pub fn say_event(&mut self, at: MonoTime, host: usize, event: &Event) {
        let (kind, what) = match event {
            Event::PeerUp { peer, .. } => (0, format!("peer {} is up", name(host, *peer))),
            Event::PeerDown { peer } => (1, format!("peer {} is down", name(host, *peer))),
            Event::PeerIncarnation { peer, incarnation, .. } => {
                (2, format!("peer {} has life {incarnation}", name(host, *peer)))
            }
            other => (3, format!("{other:?}")),
        };
        self.events[kind] += 1;
        let aloud = std::mem::replace(&mut self.aloud, false);
        self.say(at, Some(host), what);
        self.aloud = aloud;
    }

    /// A host delivers a message.
    pub fn deliver(&mut self, at: MonoTime, host: usize, delivery: &Delivery) {
        if self.delivered.len() == KEPT {
            self.delivered.pop_front();
        }
        self.delivered.push_back(Line { at, host, key: delivery.key, sequence: delivery.sequence });
    }

    /// The last that happened at the host of a violation, or anywhere.
    #[must_use]
    pub fn around(&self, violation: &Violation) -> Vec<String> {
        let started = self.started.unwrap_or(violation.at);
        let concerns = |host: Option<usize>| violation.host.is_none() || host.is_none() || host == violation.host;
        let said = self.said.iter().filter(|entry| entry.0 <= violation.at && concerns(entry.1));
        let delivered = self.delivered.iter().filter(|entry| entry.at <= violation.at && concerns(Some(entry.host)));
        let mut lines: Vec<(MonoTime, String)> = last(said)
            .map(|(at, host, what)| (*at, line(started, *at, *host, what)))
            .chain(last(delivered).map(|Line { at, host, key, sequence }| {
                let what =
                    format!("gets {sequence} of source {} of host {} life {}", key.source, key.host, key.incarnation);
                (*at, line(started, *at, Some(*host), &what))
            }))
            .collect();
        lines.sort_by_key(|(at, _)| *at);
        lines.into_iter().map(|(_, line)| line).collect()
    }
}

fn last<T>(entries: impl DoubleEndedIterator<Item = T>) -> impl Iterator<Item = T> {
    let mut last: Vec<T> = entries.rev().take(SHOWN).collect();
    last.reverse();
    last.into_iter()
}

fn name(host: usize, peer: PeerIndex) -> usize {
    crate::mesh::host_at(host, peer)
}

fn line(started: MonoTime, at: MonoTime, host: Option<usize>, what: &str) -> String {
    let seconds = at.since(started).0 as f64 / 1e9;
    match host {
        Some(host) => format!("{seconds:9.3} s  host {host} {what}"),
        None => format!("{seconds:9.3} s  {what}"),
    }
}
