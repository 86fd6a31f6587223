//! What a domain may use, what it uses, and how fast a session may ask.

use insane_core::{MonoTime, Nanos};
use std::fmt;

/// How much of everything: a bound, a use, or the charge of one thing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Amounts {
    /// Sessions.
    pub sessions: u64,
    /// Opened streams, over all sessions.
    pub streams: u64,
    /// Sources.
    pub sources: u64,
    /// Sinks.
    pub sinks: u64,
    /// Connections.
    pub connections: u64,
    /// Bytes of shared memory.
    pub bytes: u64,
    /// Buffers of the sources' heaps.
    pub buffers: u64,
}

/// The name of a field of [`Amounts`], and how to read it.
type Kind = (&'static str, fn(&Amounts) -> u64);

/// All fields, in the order of the struct.
const KINDS: [Kind; 7] = [
    ("sessions", |a| a.sessions),
    ("streams", |a| a.streams),
    ("sources", |a| a.sources),
    ("sinks", |a| a.sinks),
    ("connections", |a| a.connections),
    ("bytes", |a| a.bytes),
    ("buffers", |a| a.buffers),
];

impl Amounts {
    /// No bound at all.
    pub const UNLIMITED: Amounts = Amounts {
        sessions: u64::MAX,
        streams: u64::MAX,
        sources: u64::MAX,
        sinks: u64::MAX,
        connections: u64::MAX,
        bytes: u64::MAX,
        buffers: u64::MAX,
    };

    /// Each with its name.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        KINDS.iter().map(|(name, of)| (*name, of(self)))
    }

    fn join(&self, other: &Amounts, with: fn(u64, u64) -> u64) -> Amounts {
        Amounts {
            sessions: with(self.sessions, other.sessions),
            streams: with(self.streams, other.streams),
            sources: with(self.sources, other.sources),
            sinks: with(self.sinks, other.sinks),
            connections: with(self.connections, other.connections),
            bytes: with(self.bytes, other.bytes),
            buffers: with(self.buffers, other.buffers),
        }
    }
}

impl std::ops::Add for Amounts {
    type Output = Amounts;
    fn add(self, rhs: Amounts) -> Amounts {
        self.join(&rhs, u64::saturating_add)
    }
}

/// What a domain may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quota {
    /// Most of each kind at a time.
    pub most: Amounts,
    /// Requests a second of one session, on average; a burst may be as large.
    pub requests_per_second: u32,
}

impl Quota {
    /// No bound at all.
    pub const UNLIMITED: Quota = Quota { most: Amounts::UNLIMITED, requests_per_second: u32::MAX };
}

/// More was asked for than the quota leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub struct Shortage {
    /// Of what: a field of [`Amounts`].
    pub what: &'static str,
    /// The quota.
    pub limit: u64,
    /// In use.
    pub used: u64,
    /// Asked for.
    pub asked: u64,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shortage { what, limit, used, asked } = self;
        write!(f, "the domain's quota of {what} is {limit}; {used} in use, {asked} more asked for")
    }
}

/// What a domain uses of its quota.
#[derive(Clone, Debug)]
pub struct Account {
    quota: Quota,
    used: Amounts,
    refused: [u64; KINDS.len()],
    requests_refused: u64,
}

impl Account {
    /// Nothing is used yet.
    #[must_use]
    pub const fn new(quota: Quota) -> Self {
        Account {
            quota,
            used: Amounts { sessions: 0, streams: 0, sources: 0, sinks: 0, connections: 0, bytes: 0, buffers: 0 },
            refused: [0; KINDS.len()],
            requests_refused: 0,
        }
    }

    /// Another quota holds from now on. What is used beyond it stays, and nothing more is
    /// given until enough of it has come back.
    pub const fn set_quota(&mut self, quota: Quota) {
        self.quota = quota;
    }

    /// Whether `charge` fits; a refusal is counted.
    ///
    /// # Errors
    /// The first kind that is short.
    pub fn check(&mut self, charge: &Amounts) -> Result<(), Shortage> {
        for (at, (what, of)) in KINDS.iter().enumerate() {
            let (limit, used, asked) = (of(&self.quota.most), of(&self.used), of(charge));
            if asked > 0 && used.saturating_add(asked) > limit {
                self.refused[at] += 1;
                return Err(Shortage { what, limit, used, asked });
            }
        }
        Ok(())
    }

    /// Uses `charge`, checked before.
    pub fn add(&mut self, charge: &Amounts) {
        self.used = self.used + *charge;
    }

    /// Gives `charge` back.
    ///
    /// # Panics
    /// If more comes back than went out: a bug of the hub.
    pub fn release(&mut self, charge: &Amounts) {
        self.used = self.used.join(charge, |used, back| used.checked_sub(back).expect("quota released twice"));
    }

    /// What is used.
    #[must_use]
    pub const fn used(&self) -> &Amounts {
        &self.used
    }

    /// Counts a request refused for its rate.
    pub fn refuse_request(&mut self) {
        self.requests_refused += 1;
    }

    /// Requests refused for their rate.
    #[must_use]
    pub const fn requests_refused(&self) -> u64 {
        self.requests_refused
    }

    /// Requests a second and session.
    #[must_use]
    pub const fn requests_per_second(&self) -> u32 {
        self.quota.requests_per_second
    }

    /// Name, use, limit and refusals of each kind.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, u64, u64, u64)> + '_ {
        let rows = KINDS.iter().zip(self.refused);
        rows.map(|((name, of), refused)| (*name, of(&self.used), of(&self.quota.most), refused))
    }
}

/// Requests a session may still make. One token comes back every `1 / rate` second,
/// at most a second's worth; requests beyond run into debt, which ends the session
/// at a second's worth.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    rate: u32,
    /// Nanotokens: a token is 10⁹ of them. Negative: debt.
    level: i128,
    filled: MonoTime,
}

/// What a bucket says to a request.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// Carry it out.
    Fine,
    /// Refuse it.
    TooFast,
    /// End the session: it goes on asking in spite of refusals.
    Flood,
}

const TOKEN: i128 = Nanos::from_secs(1).0 as i128;

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub const fn new(rate: u32, now: MonoTime) -> Self {
        Bucket { rate, level: rate as i128 * TOKEN, filled: now }
    }

    /// Another rate holds from now on.
    pub fn set_rate(&mut self, rate: u32, now: MonoTime) {
        // No more is saved up than the new rate lets be saved, and no debt is kept.
        let _ = self.take(0, now);
        self.rate = rate;
        self.level = self.level.clamp(0, i128::from(rate) * TOKEN);
    }

    /// Takes `tokens`.
    pub fn take(&mut self, tokens: u32, now: MonoTime) -> Pace {
        let capacity = i128::from(self.rate) * TOKEN;
        let refill = i128::from(now.since(self.filled).0) * i128::from(self.rate);
        self.filled = self.filled.max(now);
        self.level = (self.level + refill).min(capacity) - i128::from(tokens) * TOKEN;
        match self.level {
            level if level >= 0 => Pace::Fine,
            level if level >= -capacity => Pace::TooFast,
            _ => Pace::Flood,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_says_limit_and_use_in_words() {
        let mut account =
            Account::new(Quota { most: Amounts { sinks: 3, ..Amounts::UNLIMITED }, requests_per_second: 1 });
        let sink = Amounts { sinks: 2, bytes: 10, ..Amounts::default() };
        account.check(&sink).unwrap();
        account.add(&sink);
        let shortage = account.check(&sink).unwrap_err();
        assert_eq!(shortage.to_string(), "the domain's quota of sinks is 3; 2 in use, 2 more asked for");
        assert_eq!(account.rows().find(|row| row.0 == "sinks"), Some(("sinks", 2, 3, 1)));
        account.release(&sink);
        assert_eq!(*account.used(), Amounts::default());
    }

    #[test]
    fn what_is_full_still_serves_those_who_ask_for_nothing_of_it() {
        let mut account = Account::new(Quota { most: Amounts::default(), requests_per_second: 1 });
        account.check(&Amounts::default()).unwrap();
    }

    #[test]
    fn a_bucket_refuses_then_ends_and_recovers_with_time() {
        let mut now = MonoTime(0);
        let mut bucket = Bucket::new(10, now);
        assert!((0..10).all(|_| bucket.take(1, now) == Pace::Fine));
        assert!((0..10).all(|_| bucket.take(1, now) == Pace::TooFast));
        assert_eq!(bucket.take(1, now), Pace::Flood);
        now += Nanos::from_millis(1_200);
        assert_eq!(bucket.take(1, now), Pace::Fine);
        now += Nanos::from_secs(1_000);
        assert_eq!(bucket.take(10, now), Pace::Fine);
        assert_eq!(bucket.take(1, now), Pace::TooFast);
    }
}
