//! State machines of a stream overlay: which messages are new, which fragments are
//! missing, who lives, by which way and lane, who hears a group, who wants what, and when a
//! schedule takes over.
//!
//! Pure: `no_std`, time is an argument, no clock, socket or thread. [`flow`],
//! [`reassembly`] and [`reliable`] belong to a datapath and allocate only when constructed;
//! [`membership`], [`links`], [`lanes`], [`group`], [`discovery`], [`activation`] and
//! [`agreement`] belong to the control plane.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod activation;
pub mod agreement;
pub mod discovery;
pub mod flow;
pub mod group;
pub mod lanes;
pub mod links;
pub mod membership;
pub mod reassembly;
pub mod reliable;
pub mod seen;

#[cfg(test)]
mod activation_tests;
#[cfg(test)]
mod agreement_tests;
#[cfg(test)]
mod discovery_tests;
#[cfg(test)]
mod flow_tests;
#[cfg(test)]
mod group_tests;
#[cfg(test)]
mod links_tests;
#[cfg(test)]
mod membership_tests;
#[cfg(test)]
mod reassembly_tests;
#[cfg(test)]
mod reliable_tests;
