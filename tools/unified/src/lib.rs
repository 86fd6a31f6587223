//! Nothing but dependencies: crates from elsewhere, with the features that the workspace's
//! optional features would add to them.
//!
//! cargo compiles a crate once for each set of its features. What discovery by gossip needs adds
//! some to crates that everything stands on, so that with it nearly all would be compiled, and
//! looked at by clippy, once more. Here the additions are part of the workspace always; programs
//! that are built by name do not have them.
#![forbid(unsafe_code)]
