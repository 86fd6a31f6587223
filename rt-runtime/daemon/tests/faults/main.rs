//! Faults: what clients, networks and users may do to the daemon, done to a real one.
//! It answers with a clear error or a counted drop, and nobody else loses anything.
//!
//! Each test starts a daemon of its own. Applications are processes, too: this program
//! starts itself again with a part to play (`roles`).
#![forbid(unsafe_code)]

#[path = "../../../control/tests/peer/mod.rs"]
mod peer;

#[path = "../hosts/mod.rs"]
mod hosts;

mod access;
mod cable;
mod control_socket;
mod crashes;
mod delivery;
mod idle;
mod interfaces;
mod leaks;
mod memory;
mod network;
mod process_data;
mod realtime;
mod roles;
mod shutdown;
mod world;
