//! The datapath engine: one bounded [`Engine::turn`] over rings, lanes and links.
//!
//! The engine owns its links, the consuming ends of its sources' connections, the
//! producing ends of its sinks' connections, and one receive heap a domain. It is
//! generic over link and clock, and hosted three ways with the same turn: by a pinned
//! thread ([`thread`]), inside an application's own calls ([`inline`]), and by a
//! simulation that steps it.
//!
//! Invariants:
//! - The control plane reaches an engine only through its [`Port`]: prepared commands
//!   go down a bounded queue, come back spent, and are freed by the control plane.
//!   The engine neither allocates nor frees, takes no lock, writes no log.
//! - A payload is copied once on its way from the link to the sinks of one domain, and
//!   not at all on its way from a source's heap to the link.
//! - What a client wrote in shared memory is checked by `insane-shm`; a violation ends
//!   that connection, is counted, and is told to the control plane.
//!
//! Bounds of one turn: [`COMMANDS_PER_TURN`] commands, [`FRAMES_PER_TURN`] frames
//! received from each link, [`GRANTS_PER_TURN`] grants of the scheduler of one chunk
//! each, [`WAKES_PER_TURN`] wake-ups, [`WAKE_LOOKS_PER_TURN`] looks for more. A real-time message waits for at most one
//! best-effort chunk and one receive burst.
#![forbid(unsafe_code)]

mod command;
mod deliver;
mod doorbells;
mod engine;
mod epsilons;
mod hold;
mod inflow;
pub mod inline;
mod links;
pub mod margin;
mod newcomers;
mod outflow;
mod recap;
mod receive;
mod routes;
mod rung;
mod slot_log;
pub mod spin;
pub mod thread;
mod trace;
mod transmit;
mod turn;
pub mod waker;
mod wakes;
mod watch;

pub use command::{
    Command, Dead, Hop, NewSink, NewSource, Notice, OVERLAY_BODY_MAX, OverlayFrame, Pace, PeerSwap, Port, Topic,
};
pub use deliver::DomainParts;
pub use doorbells::{Doorbell, DoorbellTally};
pub use engine::{Engine, EngineConfig, EngineParts};
pub use epsilons::{Counted, Epsilons, Sketch};
pub use hold::{HELD_BYTES, HELD_MAX, HELD_OF_HOST_MAX, HOLD_BUSY_MAX, HOLD_MAX};
pub use slot_log::{SlotLog, SlotUse};
pub use transmit::{
    LaneArrivals, SLOTS_WRITTEN_MAX, SlotConfig, SlotLinks, SlotTable, StageSlots, TIMED_MAX, timed_flow,
};
pub use turn::Turn;

/// Commands taken in one turn.
pub const COMMANDS_PER_TURN: usize = 4;
/// Frames taken from each link in one turn.
pub const FRAMES_PER_TURN: u32 = 32;
/// Grants of the scheduler in one turn.
pub const GRANTS_PER_TURN: usize = 8;
/// Reliable sources whose heartbeats and evictions are looked at in one turn.
pub const RELIABLE_PER_TURN: usize = 8;
/// Sinks woken in one turn by the turn itself, since a wake-up costs its caller up to
/// 10 us; the rest are handed to the [`waker`], or wait for the next turns where there is
/// none (inline and simulated hosting).
pub const WAKES_PER_TURN: usize = 2;
/// Sinks that one turn asks whether they sleep: each may be a cache line of another core.
pub const WAKE_LOOKS_PER_TURN: usize = 32;
/// Sources of one datapath.
pub const SOURCES_MAX: usize = 4096;
/// Sinks of one datapath.
pub const SINKS_MAX: usize = 4096;
/// Conversations of one datapath.
pub const ROUTES_MAX: usize = 8192;
