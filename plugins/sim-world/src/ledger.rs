//! The checkers. They know what was emitted and who has a sink, and nothing of how the
//! code under test decides.

use crate::plan::Plan;
use insane_core::MonoTime;
use insane_engine::Topic;
use insane_overlay::flow::FlowKey;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes that every payload has: what it is, to tell it from any other.
pub const PAYLOAD_BYTES_MIN: usize = 16;

/// One rule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rule {
    /// Only a host with a sink gets a message.
    Interest,
    /// Only a host of the stream's domain gets one.
    Domain,
    /// Messages of a source come in rising order.
    Order,
    /// None comes twice.
    Duplicates,
    /// Every message is what was emitted.
    Content,
    /// Every buffer that is in use is one of a message under way, and none is at the end.
    Leaks,
    /// Nothing grows beyond its bound.
    Bounds,
    /// After the faults everybody knows who lives and who wants what, in time.
    Convergence,
    /// Without faults everything arrives, and nothing is sent where nobody listens.
    Complete,
    /// What was emitted is what was delivered and what was counted as dropped.
    Accounts,
}

impl Rule {
    /// All of them.
    pub const ALL: [Rule; 10] = [
        Rule::Interest,
        Rule::Domain,
        Rule::Order,
        Rule::Duplicates,
        Rule::Content,
        Rule::Leaks,
        Rule::Bounds,
        Rule::Convergence,
        Rule::Complete,
        Rule::Accounts,
    ];
}

/// A rule that was broken, where and when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which rule.
    pub rule: Rule,
    /// When, in the network's time.
    pub at: MonoTime,
    /// At which host, if at one.
    pub host: Option<usize>,
    /// What was seen, and what should have been.
    pub what: String,
}

/// A message that a host handed to its sinks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// Its flow.
    pub key: FlowKey,
    /// Its conversation.
    pub topic: Topic,
    /// Its number.
    pub sequence: u64,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// What was emitted of one flow.
#[derive(Clone, Copy, Debug)]
struct Emitted {
    stream: usize,
    count: u64,
}

/// What one life of a host got of one flow.
#[derive(Clone, Copy, Debug, Default)]
struct Got {
    newest: Option<u64>,
    seen: u128,
    count: u64,
}

/// What a stream emitted, and how much of it each host got, since everything must arrive.
#[derive(Clone, Debug, Default)]
struct Exact {
    emitted: u64,
    got: BTreeMap<usize, u64>,
}

/// Everything that was emitted and delivered. See the module.
#[derive(Debug)]
pub struct Ledger {
    members: Vec<BTreeSet<usize>>,
    domains: BTreeMap<Topic, usize>,
    sinks: BTreeSet<(usize, Topic)>,
    flows: BTreeMap<FlowKey, Emitted>,
    got: BTreeMap<(usize, u64, FlowKey), Got>,
    /// By stream, while everything must arrive.
    exact: Option<BTreeMap<usize, Exact>>,
    checks: BTreeMap<Rule, u64>,
    violations: Vec<Violation>,
    /// Messages emitted, and delivered.
    pub totals: (u64, u64),
}

/// Violations that are kept; the first is what matters.
const VIOLATIONS_KEPT: usize = 16;

impl Ledger {
    /// For hosts and streams of this plan; sinks are told one by one.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Ledger {
            members: plan.members.clone(),
            domains: plan.streams.iter().map(|stream| (stream.topic, stream.domain)).collect(),
            sinks: BTreeSet::new(),
            flows: BTreeMap::new(),
            got: BTreeMap::new(),
            exact: None,
            checks: BTreeMap::new(),
            violations: Vec::new(),
            totals: (0, 0),
        }
    }

    /// A host has, or no longer has, a sink.
    pub fn sink(&mut self, host: usize, topic: Topic, on: bool) {
        if on {
            self.sinks.insert((host, topic));
        } else {
            self.sinks.remove(&(host, topic));
        }
    }

    /// A source of a stream emits its next message; returns what it must carry.
    pub fn emit(&mut self, key: FlowKey, stream: usize, sequence: u64, len: usize) -> Vec<u8> {
        let flow = self.flows.entry(key).or_insert(Emitted { stream, count: 0 });
        flow.count = sequence + 1;
        self.totals.0 += 1;
        if let Some(exact) = &mut self.exact {
            exact.entry(stream).or_default().emitted += 1;
        }
        payload(&key, sequence, len)
    }

    /// A host delivered a message.
    pub fn deliver(&mut self, at: MonoTime, host: usize, life: u64, delivery: &Delivery) {
        self.totals.1 += 1;
        let Delivery { key, topic, sequence, payload: carried } = delivery;
        let name = format_args!("message {sequence} of source {} of host {}", key.source, key.host).to_string();
        let has_sink = self.sinks.contains(&(host, *topic));
        self.judge(Rule::Interest, at, Some(host), has_sink, || {
            format!("{name} came, but there is no sink of {topic:?}")
        });
        let in_domain = self.domains.get(topic).is_some_and(|domain| self.members[host].contains(domain));
        self.judge(Rule::Domain, at, Some(host), in_domain, || {
            format!("{name} is of a domain that the host is not in")
        });
        let flow = self.flows.get(key).copied();
        let is_true = flow.is_some_and(|flow| *sequence < flow.count)
            && carried.len() >= PAYLOAD_BYTES_MIN
            && *carried == payload(key, *sequence, carried.len());
        self.judge(Rule::Content, at, Some(host), is_true, || format!("{name} is not what was emitted"));
        let got = self.got.entry((host, life, *key)).or_default();
        let newest = got.newest;
        let ahead = newest.map_or(1, |newest| sequence.saturating_sub(newest));
        let seen = match newest {
            Some(newest) if *sequence <= newest => newest - sequence < 128 && got.seen >> (newest - sequence) & 1 == 1,
            _ => {
                got.seen = if ahead < 128 { got.seen << ahead | 1 } else { 1 };
                got.newest = Some(*sequence);
                false
            }
        };
        got.count += 1;
        self.judge(Rule::Duplicates, at, Some(host), !seen, || format!("{name} came twice"));
        let rises = newest.is_none_or(|newest| *sequence > newest);
        self.judge(Rule::Order, at, Some(host), rises || seen, || format!("{name} came after {newest:?}"));
        if let (Some(exact), Some(flow)) = (&mut self.exact, flow) {
            *exact.entry(flow.stream).or_default().got.entry(host).or_default() += 1;
        }
    }

    /// From here on everything must arrive.
    pub fn begin_exact(&mut self) {
        self.exact = Some(BTreeMap::new());
    }

    /// Whether since then every host that listens got everything.
    pub fn end_exact(&mut self, at: MonoTime, plan: &Plan, alive: impl Fn(usize) -> bool) {
        let Some(exact) = self.exact.take() else { return };
        for (number, Exact { emitted, got }) in exact {
            let stream = &plan.streams[number];
            for host in stream.sinks.iter().filter(|host| alive(**host)) {
                let count = got.get(host).copied().unwrap_or(0);
                self.judge(Rule::Complete, at, Some(*host), count == emitted, || {
                    format!("{count} of {emitted} messages of {} arrived without any fault", stream.name)
                });
            }
        }
    }

    /// One look of one rule.
    pub fn judge(&mut self, rule: Rule, at: MonoTime, host: Option<usize>, good: bool, what: impl FnOnce() -> String) {
        *self.checks.entry(rule).or_default() += 1;
        if !good && self.violations.len() < VIOLATIONS_KEPT {
            self.violations.push(Violation { rule, at, host, what: what() });
        }
    }

    /// What was broken, first first.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// How often each rule was looked at.
    pub fn checks(&self) -> impl Iterator<Item = (Rule, u64)> {
        Rule::ALL.into_iter().filter_map(|rule| Some((rule, *self.checks.get(&rule)?)))
    }
}

/// What message `sequence` of a flow carries, if it is `len` bytes long: its name, then a
/// pattern that no other message has.
#[must_use]
pub fn payload(key: &FlowKey, sequence: u64, len: usize) -> Vec<u8> {
    let mut state = key.stream.0 ^ key.incarnation.0.rotate_left(24) ^ u64::from(key.source.0).rotate_left(48);
    state ^= sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::with_capacity(len + 8);
    bytes.extend_from_slice(&sequence.to_le_bytes());
    while bytes.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state ^ state >> 29).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
