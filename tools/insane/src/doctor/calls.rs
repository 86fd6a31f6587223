//! What is no file: answers of system calls about this process, its clock, its network.
//!
//! Of another tree than `/` nothing is asked, since the answers would be this machine's;
//! what such a tree itself says of rights and limits (`proc/self`) is taken from there.

use super::reader::{Read, Reader, Unread, Why};
use insane_sys::OsError;
use insane_sys::host::{self, Bounded, Bounds, Channels, ClockState, Coalescing};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Answers of system calls.
pub struct Calls {
    /// Capabilities in effect, a bit each.
    pub capabilities: Read<u64>,
    /// RLIMIT_RTPRIO.
    pub priority: Read<Bounds>,
    /// RLIMIT_MEMLOCK, bytes.
    pub locked: Read<Bounds>,
    /// RLIMIT_NOFILE.
    pub descriptors: Read<Bounds>,
    /// Nanoseconds.
    pub timer_slack_ns: Read<u64>,
    /// State of the wall clock.
    pub clock: Read<ClockState>,
    /// Addresses, each with its interface.
    pub addresses: Read<Vec<(String, IpAddr)>>,
    /// How each interface gathers packets; those that were not asked are missing.
    pub coalescing: BTreeMap<String, Read<Coalescing>>,
    /// Queues of each interface; those that were not asked are missing.
    pub channels: BTreeMap<String, Read<Channels>>,
}

impl Calls {
    /// Asks about this machine (`/`), or looks what another tree says.
    pub fn of(reader: &Reader, interfaces: &[String]) -> Calls {
        if reader.is_live() { Calls::ask(interfaces) } else { Calls::in_tree(reader) }
    }

    fn ask(interfaces: &[String]) -> Calls {
        let each = |name: &String| name.clone();
        Calls {
            capabilities: answer("capget", host::capabilities_in_effect()),
            priority: answer("RLIMIT_RTPRIO", host::bounds(Bounded::RealTimePriority)),
            locked: answer("RLIMIT_MEMLOCK", host::bounds(Bounded::LockedMemory)),
            descriptors: answer("RLIMIT_NOFILE", host::bounds(Bounded::Descriptors)),
            timer_slack_ns: answer("PR_GET_TIMERSLACK", host::timer_slack_ns()),
            clock: answer("adjtimex", host::clock_state()),
            addresses: answer("getifaddrs", host::interface_addresses()),
            coalescing: interfaces
                .iter()
                .map(|name| (each(name), answer("ETHTOOL_GCOALESCE", host::coalescing(name))))
                .collect(),
            channels: interfaces
                .iter()
                .map(|name| (each(name), answer("ETHTOOL_GCHANNELS", host::channels(name))))
                .collect(),
        }
    }

    fn in_tree(reader: &Reader) -> Calls {
        const STATUS: &str = "/proc/self/status";
        const LIMITS: &str = "/proc/self/limits";
        const ELSEWHERE: &str = "not asked, since the tree is not this machine's";
        let capabilities = reader.text(STATUS).and_then(|text| {
            let set = text.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default();
            u64::from_str_radix(set.trim(), 16).map_err(|_| Unread::nonsense(STATUS, set, "a set of capabilities"))
        });
        let limits = reader.text(LIMITS);
        let bounds = |name: &str| {
            let text = limits.as_ref().map_err(Clone::clone)?;
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            bounds_in(line).ok_or_else(|| Unread::nonsense(LIMITS, line, "a limit"))
        };
        Calls {
            capabilities,
            priority: bounds("Max realtime priority"),
            locked: bounds("Max locked memory"),
            descriptors: bounds("Max open files"),
            timer_slack_ns: reader.number("/proc/self/timerslack_ns"),
            clock: Err(Unread::because("adjtimex", ELSEWHERE)),
            addresses: Err(Unread::because("getifaddrs", ELSEWHERE)),
            coalescing: BTreeMap::new(),
            channels: BTreeMap::new(),
        }
    }
}

/// The soft and the hard limit at the start of a line.
fn bounds_in(line: &str) -> Option<Bounds> {
    let mut words = line.split_whitespace();
    let mut next = || match words.next()? {
        "unlimited" => Some(None),
        word => word.parse().ok().map(Some),
    };
    Some(Bounds { soft: next()?, hard: next()? })
}

fn answer<T>(what: &str, answer: Result<T, OsError>) -> Read<T> {
    answer.map_err(|error| {
        let why = match insane_sys::thread::is_missing_right(error.errno) {
            true => Why::Denied,
            false => Why::Other(error.errno.desc().to_owned()),
        };
        Unread { what: what.to_owned(), why }
    })
}
