//! The rules: which technologies are preferred for which requests. Data.
//!
//! The first rule whose conditions all hold gives the order. Priority is no condition: it
//! decides who gets scarce capacity ([`crate::budget`]), not what is best for a stream. So a
//! premium stream has every choice of an ordinary one that asks for the same.
//!
//! The default table, with the reasons for each order, is in docs/POLICY.md; a test holds both
//! together.

use crate::request::Request;
use crate::technology::Technology;
use alloc::vec::Vec;
use core::fmt;
use insane_core::{Consumption, Datapath, Reliability};
use serde::{Deserialize, Serialize};

/// Most rules of a table.
pub const RULES_MAX: usize = 32;

/// Whether messages have a time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// They have none.
    BestEffort,
    /// They have one.
    TimeSensitive,
}

/// Conditions; what is `None` is none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize)]
pub struct When {
    /// The reliability that is asked for.
    pub reliability: Option<Reliability>,
    /// The datapath that is asked for.
    pub datapath: Option<Datapath>,
    /// How receivers wait.
    pub consumption: Option<Consumption>,
    /// Whether messages have a time.
    pub determinism: Option<Kind>,
    /// Messages are known to be of this size at least, bytes. So they have a time: of others no
    /// size is known before they are sent.
    pub bytes_min: Option<u32>,
}

impl When {
    /// Holds for every request.
    pub const ALWAYS: When =
        When { reliability: None, datapath: None, consumption: None, determinism: None, bytes_min: None };

    /// Whether all conditions hold.
    #[must_use]
    pub fn holds(&self, request: &Request) -> bool {
        let kind = if request.is_time_sensitive() { Kind::TimeSensitive } else { Kind::BestEffort };
        self.reliability.is_none_or(|wanted| wanted == request.qos.reliability)
            && self.datapath.is_none_or(|wanted| wanted == request.qos.datapath)
            && self.consumption.is_none_or(|wanted| wanted == request.qos.consumption)
            && self.determinism.is_none_or(|wanted| wanted == kind)
            && self.bytes_min.is_none_or(|least| request.bytes().is_some_and(|bytes| bytes >= least))
    }

    /// What `determinism` has to be.
    const fn kind(&self) -> Option<Kind> {
        if self.bytes_min.is_some() { Some(Kind::TimeSensitive) } else { self.determinism }
    }

    /// Whether a request can be so.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        self.determinism.is_none_or(|determinism| self.kind() == Some(determinism))
    }

    /// Whether this holds wherever `other` does.
    #[must_use]
    pub fn covers(&self, other: &When) -> bool {
        fn one<T: PartialEq>(here: Option<T>, there: Option<T>) -> bool {
            here.is_none() || here == there
        }
        one(self.reliability, other.reliability)
            && one(self.datapath, other.datapath)
            && one(self.consumption, other.consumption)
            && one(self.kind(), other.kind())
            && self.bytes_min.is_none_or(|least| other.bytes_min.is_some_and(|theirs| theirs >= least))
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            self.datapath.map(|value| match value {
                Datapath::Standard => "standard",
                Datapath::Fast => "fast",
            }),
            self.determinism.map(|value| match value {
                Kind::BestEffort => "best effort",
                Kind::TimeSensitive => "time-sensitive",
            }),
            self.reliability.map(|value| match value {
                Reliability::Unreliable => "unreliable",
                Reliability::Reliable => "reliable",
            }),
            self.consumption.map(|value| match value {
                Consumption::Poll => "consumption poll",
                Consumption::Low => "consumption low",
            }),
        ];
        let mut is_first = true;
        for word in words.into_iter().flatten() {
            f.write_str(if is_first { "" } else { ", " })?;
            f.write_str(word)?;
            is_first = false;
        }
        if let Some(bytes) = self.bytes_min {
            write!(f, "{}messages of {bytes} bytes or more", if is_first { "" } else { ", " })?;
            is_first = false;
        }
        if is_first { f.write_str("all others") } else { Ok(()) }
    }
}

/// An order of technologies, and for whom.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Rule {
    /// For whom.
    pub when: When,
    /// The best first. What is not in it is not used.
    pub order: Vec<Technology>,
    /// Links that cost other traffic go behind all that do not.
    pub spares_others: bool,
}

impl Rule {
    /// The place of a technology in the order, from 0.
    #[must_use]
    pub fn place(&self, technology: Technology) -> Option<u8> {
        self.order.iter().position(|one| *one == technology).map(|at| at as u8)
    }

    fn new(when: When, order: [Technology; Technology::COUNT], spares_others: bool) -> Self {
        Rule { when, order: Vec::from(order), spares_others }
    }
}

/// What is wrong with a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RulesError {
    /// There are none, or more than [`RULES_MAX`].
    Count,
    /// The last one is not for every request.
    NotTotal,
    /// The first of the two numbers, from 0, is of a rule that never applies: the second
    /// applies wherever it would.
    Unreachable(usize, usize),
    /// A rule that never applies: it is for messages without a time, of a known size.
    Impossible(usize),
    /// A rule prefers no technology.
    NoOrder(usize),
    /// A rule names a technology twice.
    Twice(usize, Technology),
}

/// A table that has a rule for every request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(transparent)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// Checks a table.
    ///
    /// # Errors
    /// It is not total, or part of it means nothing: all that is wrong.
    pub fn new(rules: Vec<Rule>) -> Result<Self, Vec<RulesError>> {
        if rules.is_empty() || rules.len() > RULES_MAX {
            return Err(Vec::from([RulesError::Count]));
        }
        let mut errors = Vec::new();
        for (at, rule) in rules.iter().enumerate() {
            let covers = rules[..at].iter().position(|first| first.when.covers(&rule.when));
            errors.extend(covers.map(|first| RulesError::Unreachable(at, first)));
            errors.extend((!rule.when.is_possible()).then_some(RulesError::Impossible(at)));
            errors.extend(rule.order.is_empty().then_some(RulesError::NoOrder(at)));
            let repeated = rule.order.iter().enumerate().filter(|(place, one)| rule.order[..*place].contains(one));
            errors.extend(repeated.map(|(_, technology)| RulesError::Twice(at, *technology)));
        }
        if rules.last().is_some_and(|last| last.when != When::ALWAYS) {
            errors.push(RulesError::NotTotal);
        }
        if errors.is_empty() { Ok(Rules(rules)) } else { Err(errors) }
    }

    /// The rule for a request, and its number from 0.
    #[must_use]
    pub fn rule(&self, request: &Request) -> (usize, &Rule) {
        let last = self.0.len() - 1;
        let at = self.0[..last].iter().position(|rule| rule.when.holds(request)).unwrap_or(last);
        (at, &self.0[at])
    }

    /// All rules, the first first.
    #[must_use]
    pub fn all(&self) -> &[Rule] {
        &self.0
    }
}

impl Default for Rules {
    /// The table of docs/POLICY.md.
    fn default() -> Self {
        use Technology::{Dpdk, Rdma, Sim, Tcp, Udp, Xdp};
        let fast = When { datapath: Some(Datapath::Fast), ..When::ALWAYS };
        let timed = Some(Kind::TimeSensitive);
        Rules(Vec::from([
            Rule::new(When { determinism: timed, ..fast }, [Dpdk, Xdp, Udp, Rdma, Tcp, Sim], false),
            Rule::new(When { consumption: Some(Consumption::Poll), ..fast }, [Rdma, Dpdk, Xdp, Udp, Tcp, Sim], false),
            Rule::new(fast, [Rdma, Xdp, Dpdk, Udp, Tcp, Sim], false),
            Rule::new(When { determinism: timed, ..When::ALWAYS }, [Udp, Xdp, Dpdk, Rdma, Tcp, Sim], true),
            Rule::new(When::ALWAYS, [Udp, Tcp, Rdma, Dpdk, Xdp, Sim], true),
        ]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    #[test]
    fn the_default_is_a_table() {
        assert_eq!(Rules::new(Rules::default().0), Ok(Rules::default()));
        // It leaves no technology out: what is configured is used, if last.
        assert!(Rules::default().all().iter().all(|rule| rule.order.len() == Technology::COUNT));
    }

    #[test]
    fn what_is_no_table_is_refused() {
        let always = Rule::new(When::ALWAYS, Technology::ALL, false);
        let fast = |bytes_min| Rule {
            when: When { datapath: Some(Datapath::Fast), bytes_min, ..When::ALWAYS },
            ..always.clone()
        };
        let new = |rules: &[Rule]| Rules::new(rules.to_vec()).err().unwrap_or_default();
        assert_eq!(new(&[]), [RulesError::Count]);
        assert_eq!(new(&vec![always.clone(); RULES_MAX + 1]), [RulesError::Count]);
        assert_eq!(new(&[fast(None)]), [RulesError::NotTotal]);
        // Both: what is behind the last rule that means something is the last one.
        assert_eq!(new(&[always.clone(), fast(None)]), [RulesError::Unreachable(1, 0), RulesError::NotTotal]);
        assert_eq!(new(&[fast(Some(9)), fast(Some(10)), always.clone()]), [RulesError::Unreachable(1, 0)]);
        assert_eq!(new(&[fast(Some(10)), fast(Some(9)), fast(None), always.clone()]), []);
        // The size of messages without a time is not known.
        let of = |determinism, bytes_min| Rule {
            when: When { determinism: Some(determinism), bytes_min, ..When::ALWAYS },
            ..always.clone()
        };
        assert_eq!(new(&[of(Kind::BestEffort, Some(9)), always.clone()]), [RulesError::Impossible(0)]);
        let sized = Rule { when: When { bytes_min: Some(9), ..When::ALWAYS }, ..always.clone() };
        let timed = of(Kind::TimeSensitive, None);
        assert_eq!(new(&[timed.clone(), sized.clone(), always.clone()]), [RulesError::Unreachable(1, 0)]);
        assert_eq!(new(&[sized, timed, always.clone()]), []);
        let twice = Rule { order: vec![Technology::Udp, Technology::Udp], ..always.clone() };
        assert_eq!(new(&[twice]), [RulesError::Twice(0, Technology::Udp)]);
        assert_eq!(new(&[Rule { order: Vec::new(), ..always }]), [RulesError::NoOrder(0)]);
    }

    #[test]
    fn conditions_read_as_words() {
        let rules = Rules::default();
        let words: Vec<_> = rules.all().iter().map(|rule| rule.when.to_string()).collect();
        assert_eq!(words[0], "fast, time-sensitive");
        assert_eq!(words[1], "fast, consumption poll");
        assert_eq!(words[4], "all others");
        let large = When { datapath: Some(Datapath::Fast), bytes_min: Some(65_536), ..When::ALWAYS };
        assert_eq!(large.to_string(), "fast, messages of 65536 bytes or more");
    }
}
