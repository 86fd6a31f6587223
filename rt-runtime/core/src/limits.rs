//! Bounds that several layers share. Every one is a capacity of a table or a
//! queue; nothing in the datapath grows past it.

/// Largest payload of one message, bytes (an 8K video frame).
pub const MESSAGE_BYTES_MAX: u32 = 100_000_000;
/// Largest payload that travels in the ring's cell, bytes.
pub const INLINE_BYTES_MAX: usize = 96;
/// Size classes of one heap.
pub const CLASSES_MAX: usize = 8;
/// Local receivers of one source (direct rings), the runtime not counted.
pub const FANOUT_MAX: usize = 64;
/// Local senders and datapaths that feed one sink.
pub const FANIN_MAX: usize = 64;
/// Peers of one runtime.
pub const PEERS_MAX: usize = 64;
/// Links of one datapath: one of each technology, and some to spare.
pub const LINKS_MAX: usize = 8;
/// Datapath threads of one runtime.
pub const DATAPATHS_MAX: usize = 4;
/// Lanes of the packet scheduler.
pub const LANES: usize = 8;
/// Emits whose outcome a source remembers.
pub const OUTCOMES_KEPT: usize = 64;
/// Length of a stream, domain or session name, bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Length of the name of a schema, bytes: it travels with every interest between hosts.
pub const SCHEMA_NAME_BYTES_MAX: usize = 32;
