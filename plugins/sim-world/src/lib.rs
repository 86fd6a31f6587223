//! Worlds of many hosts in virtual time, with everything that goes wrong in a network, and
//! checkers that know what should have happened.
//!
//! [`mesh`] has hundreds of hosts, each with the production's hub, membership, flows and
//! reassembly; [`fleet`] has a few hosts with whole engines; in [`discovery`] hosts find each other. Everything is drawn from one
//! seed, so that a run can be had again: `cargo xtask sim --seed N`.
#![forbid(unsafe_code)]

pub mod defect;
pub mod discovery;
pub mod fleet;
#[path = "../../../rt-runtime/control/tests/world/mod.rs"]
#[allow(missing_docs, reason = "the hub's own tests have it; here a part of it is used")]
mod hub_host;
pub mod ledger;
pub mod mesh;
pub mod plan;
pub mod random;
pub mod trace;
