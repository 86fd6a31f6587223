//! What a runtime says of its choices: the key `policy` of its status report, as JSON.
//!
//! As with the rest of the report, every field has a default and an unknown one is skipped.

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// All choices.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyReport {
    /// Each stream that has a source here, and each peer that has a sink of it.
    pub flows: Vec<FlowReport>,
    /// Links whose capacity is bounded.
    pub budgets: Vec<BudgetReport>,
}

/// A stream and a peer.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowReport {
    /// Its tenant.
    pub domain: String,
    /// The stream's name.
    pub stream: String,
    /// The peer's name.
    pub peer: String,
    /// The rule that gives the order: its number from 1, and for whom it is.
    pub rule: String,
    /// Every link of the stream's datapath: those that can be used in their order, then the
    /// others.
    pub links: Vec<RankedReport>,
    /// The link that the policy gives it; `None`: none can carry it.
    pub takes: Option<String>,
    /// For how many seconds.
    pub takes_s: f64,
    /// Why it was given that one and no longer the one before.
    pub because: String,
    /// The link that the policy would give it if that failed; `None`: none.
    pub fallback: Option<String>,
    /// What it takes of a budget.
    pub need: String,
    /// The link by which its messages really go; `None`: none reaches the peer.
    pub used: Option<String>,
    /// Why it is that one.
    pub used_because: String,
}

/// A link in the order of a flow.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RankedReport {
    /// Its name.
    pub link: String,
    /// What carries it.
    pub technology: String,
    /// From 1; `None`: it cannot be used.
    pub place: Option<u8>,
    /// How it is: `good`, `held down`, `unproven`, `failed`.
    pub health: String,
    /// For how long it has to be good before it is trusted again, milliseconds; `None`: it is
    /// not held down.
    pub held_ms: Option<u64>,
    /// Why it has its place, or none.
    pub reasons: Vec<String>,
}

/// The budget of a link.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BudgetReport {
    /// Its name.
    pub link: String,
    /// Streams that use it, each counted for every peer; `None`: who asks may not see all
    /// tenants.
    pub streams_used: Option<u32>,
    /// At most; `None`: no bound.
    pub streams_max: Option<u32>,
    /// Bandwidth that they take, bits a second; `None`: who asks may not see all tenants.
    pub bits_per_s_used: Option<u64>,
    /// At most; `None`: no bound.
    pub bits_per_s_max: Option<u64>,
    /// To what all best effort that goes by it is held, bits a second: what time-sensitive streams leave.
    /// `None`: no bound, or who asks may not see all tenants.
    pub best_effort_bits_per_s: Option<u64>,
}
