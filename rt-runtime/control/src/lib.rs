//! The control plane: sessions, streams, interest, connection set-up.
//!
//! [`hub::Hub`] decides: a pure state machine without I/O or clock, whose inputs are
//! packets, deaths, interest and the time, and whose output is a queue of
//! [`action::Action`]s. The server, one thread with one epoll set, is its host: it owns
//! the sockets, the shared memory, the datapaths and the overlay's membership.
//! [`runtime::Runtime`] is all of it together, in a daemon or in an application.
#![forbid(unsafe_code)]

pub mod action;
mod counted;
mod datapath;
pub mod declaration;
mod discovery;
mod epsilons;
pub mod hub;
mod identity;
mod inline;
mod keepers;
mod kept;
mod launch;
mod links;
mod memory;
pub mod misses;
pub mod monitors;
mod notes;
mod objects;
mod overlay;
mod paces;
mod path;
mod places;
mod plan_spec;
mod policy;
mod preparer;
pub mod quota;
mod report;
mod roster;
pub mod runtime;
mod server;
mod sockets;
pub mod spec;
mod start;

pub use inline::InlineHost;
pub use links::PluginLink;
pub use runtime::{Hosting, Runtime, check_addresses, check_build};
pub use start::{LinkError, StartError};
