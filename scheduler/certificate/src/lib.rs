//! What a plant is, and what a certificate says of it: plain words without behaviour,
//! so that the synthesiser and the checker share names and no code.
//!
//! A **certificate** is the plant, which holds all assumptions (clock errors, epsilons
//! with their samples, rates, what others may put on a queue, the in-flight limit, path
//! delays, arrival contracts), and the guarantee: where each stream has its slots, and
//! what follows for chains and sporadic lanes. Times are nanoseconds. Starts count from
//! the base time of the schedule, which all hosts share.
//!
//! The text form (module `text`, feature `text`) is a line with a digest over the rest, and
//! the rest in RON. The digest finds what was altered by chance, every single byte for
//! certain; it is no signature.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

#[cfg(feature = "text")]
pub mod text;

macro_rules! words {
    ($($(#[$doc:meta])* $kind:ident $name:ident $body:tt)*) => { $(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Debug)]
        #[cfg_attr(feature = "text", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
        pub $kind $name $body
    )* };
}

words! {
    /// A time that differs from turn to turn, as it was measured.
    struct Epsilon {
        /// Which quantile, parts in a million.
        pub quantile_ppm: u32,
        /// That quantile, nanoseconds.
        pub quantile_ns: u64,
        /// The longest of all, nanoseconds.
        pub max_ns: u64,
        /// How many were measured.
        pub samples: u64,
    }

    /// A host that sends at planned instants.
    struct Host {
        /// Its name.
        pub name: String,
        /// How far its clock is from that of the plant at most, nanoseconds.
        pub clock_error_ns: u64,
        /// From the instant to wake at to being awake: costs only processor time.
        pub wake: Epsilon,
        /// From a poll to bytes that are on their way.
        pub turn: Epsilon,
    }

    /// Where the guarantee ends.
    enum Boundary {
        /// On the wire.
        Wire,
        /// In the queue of the network card.
        NicQueue,
        /// In the socket of the kernel.
        KernelSocket,
    }

    /// A window that comes again.
    struct Window {
        /// First start, from the base time, nanoseconds; below the period.
        pub offset_ns: u64,
        /// Nanoseconds.
        pub length_ns: u64,
        /// Nanoseconds.
        pub period_ns: u64,
    }

    /// A link in one direction: of a host, or of a port of a switch.
    struct Link {
        /// Its name.
        pub name: String,
        /// The host that feeds it; none for the port of a switch.
        pub host: Option<usize>,
        /// Time of a byte, picoseconds, rounded up.
        pub ps_per_byte: u32,
        /// Bytes that others may have put before ours; zero where the queue is exclusive.
        pub foreign_bytes: u32,
        /// Most bytes of the lanes below the scheduler.
        pub in_flight_bytes: u32,
        /// Largest frame of the lanes, bytes.
        pub frame_bytes_max: u32,
        /// Where the guarantee ends.
        pub boundary: Boundary,
        /// Windows that no slot may touch: gates that are shut, slots of strangers.
        pub blocked: Vec<Window>,
    }

    /// On what the guarantee of a stream rests.
    enum Class {
        /// On the longest e_turn that was seen.
        Assured,
        /// On its quantile.
        Statistical,
    }

    /// A link that a stream takes.
    struct Hop {
        /// Which.
        pub link: usize,
        /// From the end of a frame on it to the next link or the receiver, nanoseconds.
        pub delay_ns: u64,
    }

    /// A stream with slots.
    struct Stream {
        /// Its name.
        pub name: String,
        /// Its class.
        pub class: Class,
        /// Nanoseconds.
        pub period_ns: u64,
        /// Largest message, bytes of the link.
        pub bytes: u32,
        /// When a message is ready at the latest, from the start of its period, nanoseconds.
        pub release_ns: u64,
        /// When it has arrived at the latest, from there, nanoseconds.
        pub deadline_ns: u64,
        /// One or two links; the first of a host, a second one of a switch.
        pub path: Vec<Hop>,
    }

    /// Part of a chain.
    enum Step {
        /// A task: reads at its offset, and has written `response_ns` later.
        Task {
            /// Where it runs.
            host: usize,
            /// Nanoseconds.
            period_ns: u64,
            /// Nanoseconds; below the period.
            offset_ns: u64,
            /// Worst response time, nanoseconds.
            response_ns: u64,
        },
        /// A stream: takes what is there at its slot, the newest.
        Stream(usize),
    }

    /// Cause and effect, over any number of hosts.
    struct Chain {
        /// Its name.
        pub name: String,
        /// At least one.
        pub steps: Vec<Step>,
        /// Longest reaction time that is acceptable, nanoseconds.
        pub reaction_ns_max: u64,
        /// Greatest data age that is acceptable, nanoseconds.
        pub age_ns_max: u64,
    }

    /// A lane of sporadic messages: at most `burst_frames`, and one more each interval.
    struct Lane {
        /// Its name.
        pub name: String,
        /// A link of a host.
        pub link: usize,
        /// 0 goes first; no two of one link are equal.
        pub priority: u8,
        /// Largest frame, bytes of the link.
        pub frame_bytes: u32,
        /// At least 1.
        pub burst_frames: u32,
        /// Nanoseconds.
        pub interval_ns: u64,
        /// From arrival to the end on the link, nanoseconds.
        pub deadline_ns: u64,
    }

    /// Everything that is assumed and wanted.
    struct Plant {
        /// Hosts.
        pub hosts: Vec<Host>,
        /// Links.
        pub links: Vec<Link>,
        /// Streams.
        pub streams: Vec<Stream>,
        /// Chains.
        pub chains: Vec<Chain>,
        /// Sporadic lanes.
        pub lanes: Vec<Lane>,
    }

    /// Where a stream has its slots.
    struct Placed {
        /// Start of its slot, nanoseconds; release to the latest possible.
        pub start_ns: u64,
        /// What is reserved on each link of its path.
        pub windows: Vec<Window>,
    }

    /// What holds for a chain.
    struct ChainBound {
        /// Longest time from a cause to its effect, nanoseconds.
        pub reaction_ns: u64,
        /// Greatest age of the data that an effect rests on, until the next effect, nanoseconds.
        pub age_ns: u64,
    }

    /// The plant and what is guaranteed of it.
    struct Certificate {
        /// All assumptions.
        pub plant: Plant,
        /// For each stream.
        pub placed: Vec<Placed>,
        /// For each chain.
        pub chains: Vec<ChainBound>,
        /// For each sporadic lane its worst response time, nanoseconds.
        pub lanes: Vec<u64>,
    }

    /// Why no schedule of the plant exists: each can be checked by hand.
    enum Refutation {
        /// The stream alone does not fit between release and deadline, or into its period.
        DoesNotFit {
            /// Which.
            stream: usize,
        },
        /// The windows of two streams are together longer than the gcd of their periods.
        Pair {
            /// On which link.
            link: usize,
            /// One.
            a: usize,
            /// The other.
            b: usize,
        },
        /// The same of a stream and a window that is blocked.
        Blocked {
            /// On which link.
            link: usize,
            /// Which.
            stream: usize,
            /// Place in the list of blocked windows.
            blocked: usize,
        },
        /// All windows of a link take more than all time.
        Utilisation {
            /// Which.
            link: usize,
        },
        /// What must be sent within an interval takes longer than it.
        Overload {
            /// On which link.
            link: usize,
            /// From the base time, nanoseconds.
            from_ns: u64,
            /// From the base time, nanoseconds.
            to_ns: u64,
        },
    }
}
