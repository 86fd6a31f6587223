//! Which technology a stream gets to a peer, and why.
//!
//! Three parts, each pure: `no_std`, no clock (instants are arguments), no I/O.
//!
//! - [`rank()`]: from what is asked for and what the links offer to an order of the links, with
//!   every reason. The rules are data ([`rules`]).
//! - [`budget`]: who may use links whose capacity is bounded, the most important first.
//! - [`health`]: when a link that failed is trusted again.
//!
//! Bounds: at most [`LINKS_MAX`](insane_core::limits::LINKS_MAX) offers and
//! [`RULES_MAX`](rules::RULES_MAX) rules a call, neither of which allocates; an account holds
//! as many claims as it was made for.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod budget;
pub mod health;
pub mod offer;
pub mod rank;
pub mod reason;
pub mod report;
pub mod request;
pub mod rules;
pub mod technology;

pub use offer::{Amount, Offer, Room};
pub use rank::{Ranking, Verdict, rank};
pub use reason::{Aspect, Reason};
pub use request::{Importance, Request};
pub use rules::{Kind, Rule, Rules, When};
pub use technology::Technology;
