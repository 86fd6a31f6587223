//! What the kernel tells only when asked: rights and limits of this process, the state
//! of the clock, what a network card is set to, and which addresses it has.
//!
//! For tools that examine a host. Nothing here changes anything.

use crate::error::{Errno, OsError, attempted, check};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;

/// The set of capabilities that this thread has in effect; bit `n` is capability `n` of
/// `linux/capability.h` (see [`crate::privileges::Capability`]).
///
/// # Errors
/// The kernel does not know this form of the call.
pub fn capabilities_in_effect() -> Result<u64, OsError> {
    /// `_LINUX_CAPABILITY_VERSION_3`: sets of 64 bits.
    const VERSION_3: u32 = 0x2008_0522;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Half {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut halves = [Half::default(); 2];
    // SAFETY: `header` asks for version 3, which fills two halves.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, halves.as_mut_ptr()) };
    if result == -1 {
        return Err(OsError::last("reading this process's capabilities"));
    }
    Ok(u64::from(halves[0].effective) | u64::from(halves[1].effective) << 32)
}

/// A limit of the process. `None`: no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// What holds now.
    pub soft: Option<u64>,
    /// How far the process itself may raise it.
    pub hard: Option<u64>,
}

/// Which limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bounded {
    /// Real-time priority, 0 to 99.
    RealTimePriority,
    /// Locked memory, bytes.
    LockedMemory,
    /// Open descriptors.
    Descriptors,
}

/// A limit of this process.
///
/// # Errors
/// It cannot be read.
pub fn bounds(of: Bounded) -> Result<Bounds, OsError> {
    use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
    let resource = match of {
        Bounded::RealTimePriority => Resource::RLIMIT_RTPRIO,
        Bounded::LockedMemory => Resource::RLIMIT_MEMLOCK,
        Bounded::Descriptors => Resource::RLIMIT_NOFILE,
    };
    let (soft, hard) = getrlimit(resource).map_err(attempted("reading a limit of this process"))?;
    let finite = |value| (value != RLIM_INFINITY).then_some(value);
    Ok(Bounds { soft: finite(soft), hard: finite(hard) })
}

/// How late the kernel may end a sleep of this thread to save wake-ups, nanoseconds. It
/// does not hold for threads under a real-time policy.
///
/// # Errors
/// The kernel refuses to tell.
pub fn timer_slack_ns() -> Result<u64, OsError> {
    // SAFETY: takes numbers. The call itself, since the library's wrapper cuts the value to an int.
    let slack = unsafe { libc::syscall(libc::SYS_prctl, libc::PR_GET_TIMERSLACK, 0, 0, 0, 0) };
    u64::try_from(slack).map_err(|_| OsError::last("reading the timer slack"))
}

/// How the kernel's wall clock is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockState {
    /// TAI less UTC, seconds; 0: nobody has told the kernel.
    pub tai_offset_s: i64,
    /// Whether somebody disciplines the clock.
    pub is_synchronised: bool,
    /// The largest error that the one who disciplines it claims, microseconds.
    pub error_us_max: i64,
}

/// Asks about the wall clock without changing it.
///
/// # Errors
/// The call is forbidden here.
pub fn clock_state() -> Result<ClockState, OsError> {
    // SAFETY: all zero asks for nothing to be changed.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills `state`.
    let result = check(unsafe { libc::adjtimex(&mut state) }, "asking for the state of the clock")?;
    Ok(ClockState {
        tai_offset_s: i64::from(state.tai),
        is_synchronised: result != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0,
        error_us_max: state.maxerror,
    })
}

/// How a network card gathers packets before it interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Coalescing {
    /// How long a received packet may wait, microseconds.
    pub receive_us: u32,
    /// How many received packets it gathers at most; 0: no such bound.
    pub receive_frames: u32,
    /// How long the news of a sent packet may wait, microseconds.
    pub send_us: u32,
    /// Whether the driver chooses by the load, receiving or sending.
    pub is_adaptive: bool,
}

/// Asks a card's driver how it gathers packets.
///
/// # Errors
/// There is no such interface (`ENODEV`), or its driver does not say (`EOPNOTSUPP`).
pub fn coalescing(interface: &str) -> Result<Coalescing, OsError> {
    const GET: u32 = 0x0e;
    // `struct ethtool_coalesce` of linux/ethtool.h: 23 words, the command first.
    let words = ethtool::<23>(interface, GET, "asking how a network card gathers packets")?;
    Ok(Coalescing {
        receive_us: words[1],
        receive_frames: words[2],
        send_us: words[5],
        is_adaptive: words[10] != 0 || words[11] != 0,
    })
}

/// Queues of a network card; a combined queue receives and sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Channels {
    /// Queues that receive, in use.
    pub receive: u32,
    /// Queues that receive, at most.
    pub receive_max: u32,
    /// Queues that do both, in use.
    pub combined: u32,
    /// Queues that do both, at most.
    pub combined_max: u32,
}

/// Asks a card's driver for its queues.
///
/// # Errors
/// There is no such interface (`ENODEV`), or its driver does not say (`EOPNOTSUPP`).
pub fn channels(interface: &str) -> Result<Channels, OsError> {
    const GET: u32 = 0x3c;
    // `struct ethtool_channels` of linux/ethtool.h: 9 words, the command first.
    let words = ethtool::<9>(interface, GET, "asking a network card for its queues")?;
    Ok(Channels { receive: words[5], receive_max: words[1], combined: words[8], combined_max: words[4] })
}

/// One question to a driver; the answer replaces the words after the command.
fn ethtool<const WORDS: usize>(
    interface: &str,
    command: u32,
    attempted: &'static str,
) -> Result<[u32; WORDS], OsError> {
    let mut words = [0u32; WORDS];
    words[0] = command;
    // SAFETY: all zero is a request without a name.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(OsError::new(attempted, Errno::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    let reason = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or_default());
    // Not at the host's own address: where `lo` is down there is none.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(|error| OsError::new(attempted, reason(error)))?;
    // SAFETY: `request` points at `words`, which is as large as the structure of this
    // command (the callers' part), and both live through the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    check(result, attempted)?;
    Ok(words)
}

/// Addresses of this host, each with the name of its interface.
///
/// # Errors
/// The kernel refuses to tell.
pub fn interface_addresses() -> Result<Vec<(String, IpAddr)>, OsError> {
    let all = nix::ifaddrs::getifaddrs().map_err(attempted("asking for the addresses of this host"))?;
    Ok(all
        .filter_map(|entry| {
            let address = entry.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            let ip = v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))?;
            Some((entry.interface_name, ip))
        })
        .collect())
}

/// The kernel's number of an interface.
///
/// # Errors
/// There is none of that name.
pub fn interface_index(name: &str) -> Result<u32, OsError> {
    nix::net::if_::if_nametoindex(name).map_err(attempted("asking for the number of an interface"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privileges::{Capability, has_capability};

    #[test]
    fn capabilities_agree_with_what_proc_says() {
        let set = capabilities_in_effect().unwrap();
        for capability in [Capability::NetAdmin, Capability::SysNice, Capability::SysResource, Capability::Bpf] {
            assert_eq!(set >> capability as u32 & 1 == 1, has_capability(capability), "{capability:?}");
        }
    }

    #[test]
    fn limits_agree_with_what_proc_says() {
        let shown = std::fs::read_to_string("/proc/self/limits").unwrap();
        let number = |value: Option<u64>| value.map_or("unlimited".to_owned(), |value| value.to_string());
        for (of, name) in [
            (Bounded::RealTimePriority, "Max realtime priority"),
            (Bounded::LockedMemory, "Max locked memory"),
            (Bounded::Descriptors, "Max open files"),
        ] {
            // Another test may raise a soft limit in between; the hard one stays.
            let line = shown.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            assert_eq!(line.split_whitespace().nth(1), Some(number(bounds(of).unwrap().hard).as_str()), "{name}");
        }
    }

    #[test]
    fn the_timer_slack_is_what_proc_says() {
        std::thread::spawn(|| {
            // SAFETY: takes numbers, for this thread alone.
            assert_eq!(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 12_345, 0, 0, 0) }, 0);
            assert_eq!(timer_slack_ns().unwrap(), 12_345);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn the_clock_agrees_about_tai() {
        assert_eq!(clock_state().unwrap().tai_offset_s != 0, crate::clock::tai_offset_is_set());
    }

    #[test]
    fn loopback_has_its_address_and_no_interrupts_to_gather() {
        let addresses = interface_addresses().unwrap();
        assert!(addresses.contains(&("lo".to_owned(), IpAddr::V4(Ipv4Addr::LOCALHOST))), "{addresses:?}");
        assert_eq!(coalescing("lo").unwrap_err().errno, Errno::EOPNOTSUPP);
        assert_eq!(channels("no-such-if").unwrap_err().errno, Errno::ENODEV);
        assert_eq!(channels(&"x".repeat(4096)).unwrap_err().errno, Errno::ENODEV);
    }
}
