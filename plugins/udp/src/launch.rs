//! Frames with a launch time, on a socket and a queue of their own.
//!
//! The kernel honours a launch time where the interface's queue is `etf`, and nowhere else
//! says that it does not: so the queues are looked at (ADR 0027). `etf` drops every frame that
//! bears no launch time; it must therefore stand below `mqprio`, as the queue of a traffic class
//! that only frames of priority [`LAUNCH_PRIORITY`] belong to. Below `taprio`
//! it is not used: when that was tried in the guest (Linux 6.1), no frame came through at all.
//!
//! Without a device that launches frames itself, `etf` lets a frame go up to its `delta` early,
//! and drops it from its instant on. Such a queue is asked for that much later: a frame leaves
//! within `delta` from the instant that was asked for, or is dropped and counted.

use crate::config::UdpConfig;
use insane_core::{MonoTime, Nanos, TaiTime};
use insane_link::{LaunchDrops, SendOutcome};
use insane_sys::launch::{self, Drops, Source};
use insane_sys::netlink::attribute;
use insane_sys::udp::{self, Address, SocketOptions};
use insane_sys::{OsError, SharedBytes, clock, host};
use std::fmt;
use std::net::{SocketAddr, UdpSocket};

/// Priority (`SO_PRIORITY`) of frames with a launch time. Real-time frames without one have 6,
/// best effort has 0.
pub const LAUNCH_PRIORITY: u8 = 5;
/// Priorities of the other sockets, which must not share the queue.
const OTHER_PRIORITIES: [u8; 2] = [0, 6];
/// Drops that are taken from the kernel in one go.
const DROPS_PER_LOOK: u32 = 64;

/// Why launch times are not honoured.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotHonoured {
    /// The link is bound to no particular address.
    #[error("the link is bound to {0}, which belongs to no interface of its own")]
    AnyAddress(SocketAddr),
    /// No interface has the address.
    #[error("no interface has the address {0}")]
    NoInterface(SocketAddr),
    /// There is no `etf`.
    #[error("{device} has no etf queue (tc-etf(8))")]
    NoEtf {
        /// The interface.
        device: String,
    },
    /// `etf` is the only queue.
    #[error("etf is the root of {device}, where it drops every frame without a launch time; put it below mqprio")]
    EtfIsRoot {
        /// The interface.
        device: String,
    },
    /// `etf` stands below `taprio`.
    #[error("{device} has taprio, below which launch times are not used; put etf below mqprio")]
    BelowTaprio {
        /// The interface.
        device: String,
    },
    /// The priority leads elsewhere.
    #[error("on {device} frames of priority {LAUNCH_PRIORITY} do not go to an etf queue alone")]
    OtherClass {
        /// The interface.
        device: String,
    },
    /// Other frames lead there, too.
    #[error("on {device} frames of priority {priority}, which bear no launch time, would go to the etf queue")]
    Shared {
        /// The interface.
        device: String,
        /// Which others.
        priority: u8,
    },
    /// It has another clock or mode.
    #[error("the etf queue of {device} is not strict on CLOCK_TAI")]
    OtherClock {
        /// The interface.
        device: String,
    },
    /// `etf` begins later than frames are handed over.
    #[error("etf on {device} has a delta of {}, and frames are handed over {} ahead: that must be more", Nanos(u64::from(*delta_ns)), lead)]
    LeadTooShort {
        /// The interface.
        device: String,
        /// Its delta.
        delta_ns: u32,
        /// What is configured.
        lead: Nanos,
    },
    /// The kernel refuses.
    #[error(transparent)]
    Kernel(#[from] OsError),
}

/// A queue that honours launch times.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaunchQueue {
    /// The interface.
    pub device: String,
    /// How far from the instant that was asked for a frame may leave, nanoseconds.
    pub delta_ns: u32,
    /// The device launches frames, not the kernel.
    pub offload: bool,
}

impl fmt::Display for LaunchQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = if self.offload { "the device" } else { "the kernel" };
        write!(f, "etf on {}, by {who}, within {}", self.device, Nanos(self.delta_ns.into()))
    }
}

/// What honours the launch times of a link at `bind` that hands its frames over `lead` ahead.
/// For set-up: it asks the kernel.
///
/// # Errors
/// Why nothing does.
pub fn launch_queue(bind: SocketAddr, lead: Nanos) -> Result<LaunchQueue, NotHonoured> {
    if bind.ip().is_unspecified() {
        return Err(NotHonoured::AnyAddress(bind));
    }
    let all = host::interface_addresses()?;
    let device = all.into_iter().find(|(_, ip)| *ip == bind.ip()).ok_or(NotHonoured::NoInterface(bind))?.0;
    let index = host::interface_index(&device)?;
    let mut queues = Vec::new();
    launch::queues(|message| queues.extend(Queue::read(message).filter(|queue| queue.interface == index)))?;
    judge(&device, &queues, lead)
}

/// What the queues of one interface are good for.
fn judge(device: &str, queues: &[Queue], lead: Nanos) -> Result<LaunchQueue, NotHonoured> {
    const ROOT: u32 = u32::MAX;
    let device = || device.to_owned();
    let mut etfs = queues.iter().filter(|queue| matches!(queue.kind, Kind::Etf { .. })).peekable();
    if etfs.peek().is_none() {
        return Err(NotHonoured::NoEtf { device: device() });
    }
    if etfs.any(|etf| etf.parent == ROOT) {
        return Err(NotHonoured::EtfIsRoot { device: device() });
    }
    let root = queues.iter().find(|queue| queue.parent == ROOT);
    if root.is_some_and(|root| root.kind == Kind::Taprio) {
        return Err(NotHonoured::BelowTaprio { device: device() });
    }
    let Some(Queue { handle, kind: Kind::Classes(classes), .. }) = root else {
        return Err(NotHonoured::OtherClass { device: device() });
    };
    let class = classes.class_of(LAUNCH_PRIORITY);
    if let Some(&priority) = OTHER_PRIORITIES.iter().find(|priority| classes.class_of(**priority) == class) {
        return Err(NotHonoured::Shared { device: device(), priority });
    }
    // The class of the first queue of a device is HANDLE:1.
    let parent = handle + u32::from(classes.first[class]) + 1;
    let own = queues.iter().find(|queue| queue.parent == parent).map(|queue| queue.kind);
    let Some(Kind::Etf { delta_ns, clock, flags }) = own.filter(|_| classes.count[class] == 1) else {
        return Err(NotHonoured::OtherClass { device: device() });
    };
    if clock != Queue::CLOCK_TAI || flags & Queue::ETF_DEADLINE != 0 {
        return Err(NotHonoured::OtherClock { device: device() });
    }
    if Nanos(delta_ns.into()) >= lead {
        return Err(NotHonoured::LeadTooShort { device: device(), delta_ns, lead });
    }
    Ok(LaunchQueue { device: device(), delta_ns, offload: flags & Queue::ETF_OFFLOAD != 0 })
}

/// Which queues of a device serve which priority (`tc_mqprio_qopt` of linux/pkt_sched.h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Classes {
    map: [u8; 16],
    count: [u16; 16],
    first: [u16; 16],
}

impl Classes {
    /// ```text
    /// 0 number | 1..17 class of each priority | 17 by the device | 18..50 counts | 50..82 firsts
    /// ```
    fn read(bytes: &[u8]) -> Option<Self> {
        let words = |from: usize| -> Option<[u16; 16]> {
            let bytes = bytes.get(from..from + 32)?;
            Some(std::array::from_fn(|at| u16::from_ne_bytes([bytes[2 * at], bytes[2 * at + 1]])))
        };
        Some(Classes { map: bytes.get(1..17)?.try_into().ok()?, count: words(18)?, first: words(50)? })
    }

    fn class_of(&self, priority: u8) -> usize {
        usize::from(self.map[usize::from(priority & 15)] & 15)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Etf { delta_ns: u32, clock: i32, flags: u32 },
    Classes(Classes),
    Taprio,
    Other,
}

/// One queue of one interface, as `RTM_NEWQDISC` has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Queue {
    interface: u32,
    handle: u32,
    parent: u32,
    kind: Kind,
}

impl Queue {
    const CLOCK_TAI: i32 = 11;
    const ETF_DEADLINE: u32 = 1;
    const ETF_OFFLOAD: u32 = 2;

    /// ```text
    /// 0 nlmsghdr | 16 family, padding | 20 interface | 24 handle | 28 parent | 32 info | 36 attributes
    /// ```
    fn read(message: &[u8]) -> Option<Self> {
        let word = |at: usize| message.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
        let (interface, handle, parent) = (word(20)?, word(24)?, word(28)?);
        let attributes = message.get(36..)?;
        // TCA_KIND, TCA_OPTIONS
        let name = attribute(attributes, 1)?;
        let options = attribute(attributes, 2).unwrap_or_default();
        let kind = match name {
            b"etf\0" => etf(attribute(options, 1)?)?,
            b"mqprio\0" => Kind::Classes(Classes::read(options)?),
            b"taprio\0" => Kind::Taprio,
            _ => Kind::Other,
        };
        Some(Queue { interface, handle, parent, kind })
    }
}

/// `tc_etf_qopt`: delta, clock, flags.
fn etf(bytes: &[u8]) -> Option<Kind> {
    let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    Some(Kind::Etf { delta_ns: word(0)?, clock: word(4)?.cast_signed(), flags: word(8)? })
}

/// The socket of frames with a launch time.
pub(crate) struct Launcher {
    socket: UdpSocket,
    source: Source,
    /// How much later than asked for the queue is told.
    later: Nanos,
    drops: Drops,
}

impl Launcher {
    /// For a link that is bound to `local`.
    pub(crate) fn open(config: &UdpConfig, local: SocketAddr) -> Result<Self, NotHonoured> {
        let queue = launch_queue(local, config.launch_lead.unwrap_or(Nanos::ZERO))?;
        let options = SocketOptions {
            send_buffer_bytes: config.send_buffer_bytes,
            dont_fragment: true,
            dscp: Some(config.real_time_dscp),
            priority: Some(LAUNCH_PRIORITY),
            ..SocketOptions::default()
        };
        let (socket, source) = launch::bind(local, &queue.device, &options)?;
        let later = if queue.offload { Nanos::ZERO } else { Nanos(queue.delta_ns.into()) };
        Ok(Launcher { socket, source, later, drops: Drops::default() })
    }

    /// Hands one frame over. The two clocks are read here, and not once for many frames: TAI
    /// may be set at any time.
    pub(crate) fn send(&self, to: &Address, head: &[u8], payload: SharedBytes<'_>, launch: MonoTime) -> SendOutcome {
        let (mono, tai) = (clock::mono_now(), clock::tai_now());
        let at = TaiTime((tai.0 + launch.0).saturating_sub(mono.0).saturating_add(self.later.0));
        match launch::send(&self.socket, to, self.source, head, payload, at) {
            udp::SendOutcome::Sent => SendOutcome::Sent,
            udp::SendOutcome::WouldBlock => SendOutcome::Busy,
            udp::SendOutcome::Failed(_) => SendOutcome::Failed,
        }
    }

    /// Takes what the kernel says of drops; bounded.
    pub(crate) fn look(&mut self) {
        launch::drops(&self.socket, DROPS_PER_LOOK, &mut self.drops);
    }

    pub(crate) fn take_drops(&mut self) -> LaunchDrops {
        let Drops { missed, refused } = std::mem::take(&mut self.drops);
        LaunchDrops { missed, refused }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAD: Nanos = Nanos::from_micros(1_000);
    const ROOT: u32 = u32::MAX;

    /// Priority 5 to class 1, priority 6 to class 2, others to class 0; one queue each.
    fn classes() -> Classes {
        let mut map = [0; 16];
        (map[5], map[6]) = (1, 2);
        let mut count = [0; 16];
        count[..3].fill(1);
        Classes { map, count, first: std::array::from_fn(|class| class as u16) }
    }

    fn root(classes: Classes) -> Queue {
        Queue { interface: 2, handle: 0x10_0000, parent: ROOT, kind: Kind::Classes(classes) }
    }

    fn etf(parent: u32, flags: u32) -> Queue {
        Queue { interface: 2, handle: 0x20_0000, parent, kind: Kind::Etf { delta_ns: 200_000, clock: 11, flags } }
    }

    #[test]
    fn an_etf_queue_of_its_own_class_is_honoured() {
        let found = judge("eth0", &[root(classes()), etf(0x10_0002, 0)], LEAD).unwrap();
        assert_eq!(found, LaunchQueue { device: "eth0".into(), delta_ns: 200_000, offload: false });
        assert_eq!(found.to_string(), "etf on eth0, by the kernel, within 200.0 us");
        assert!(judge("eth0", &[root(classes()), etf(0x10_0002, 2)], LEAD).unwrap().offload);
    }

    #[test]
    fn every_other_arrangement_is_refused_by_its_reason() {
        let device = || "eth0".to_owned();
        let good = etf(0x10_0002, 0);
        let judged = |queues: &[Queue]| judge("eth0", queues, LEAD).unwrap_err();
        assert_eq!(judged(&[]), NotHonoured::NoEtf { device: device() });
        assert_eq!(judged(&[root(classes())]), NotHonoured::NoEtf { device: device() });
        assert_eq!(judged(&[etf(ROOT, 0)]), NotHonoured::EtfIsRoot { device: device() });
        assert_eq!(judged(&[root(classes()), etf(0x10_0003, 0)]), NotHonoured::OtherClass { device: device() });
        let mut below = root(classes());
        below.kind = Kind::Taprio;
        assert_eq!(judged(&[below, good]), NotHonoured::BelowTaprio { device: device() });
        let mut wide = classes();
        wide.count[1] = 2;
        assert_eq!(judged(&[root(wide), good]), NotHonoured::OtherClass { device: device() });
        let mut shared = classes();
        shared.map[6] = 1;
        assert_eq!(judged(&[root(shared), good]), NotHonoured::Shared { device: device(), priority: 6 });
        shared.map = [1; 16];
        assert_eq!(judged(&[root(shared), good]), NotHonoured::Shared { device: device(), priority: 0 });
        assert_eq!(judged(&[root(classes()), etf(0x10_0002, 1)]), NotHonoured::OtherClock { device: device() });
        let mut utc = good;
        utc.kind = Kind::Etf { delta_ns: 1, clock: 0, flags: 0 };
        assert_eq!(judged(&[root(classes()), utc]), NotHonoured::OtherClock { device: device() });
        let short = judge("eth0", &[root(classes()), good], Nanos::from_micros(200)).unwrap_err();
        assert!(matches!(short, NotHonoured::LeadTooShort { delta_ns: 200_000, .. }), "{short}");
    }

    #[test]
    fn queues_are_read_as_the_kernel_writes_them() {
        let attribute = |kind: u16, bytes: &[u8]| {
            let mut all = ((bytes.len() + 4) as u16).to_ne_bytes().to_vec();
            all.extend(kind.to_ne_bytes());
            all.extend(bytes);
            all.resize(all.len().next_multiple_of(4), 0);
            all
        };
        let message = |name: &[u8], options: &[u8]| {
            let mut all = vec![0; 20];
            for word in [2_u32, 0x10_0000, ROOT, 1] {
                all.extend(word.to_ne_bytes());
            }
            all.extend(attribute(1, name));
            all.extend(attribute(2, options));
            all
        };
        let mut options = vec![3];
        options.extend(classes().map);
        options.push(0);
        classes().count.iter().chain(&classes().first).for_each(|word| options.extend(word.to_ne_bytes()));
        let bare = message(b"mqprio\0", &options);
        assert_eq!(Queue::read(&bare), Some(root(classes())));
        assert_eq!(Queue::read(&message(b"taprio\0", &[])).unwrap().kind, Kind::Taprio);
        let words: Vec<u8> = [200_000_u32, 11, 2].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let read = Queue::read(&message(b"etf\0", &attribute(0x8001, &words))).unwrap();
        assert_eq!(read.kind, Kind::Etf { delta_ns: 200_000, clock: 11, flags: 2 });
        assert_eq!(Queue::read(&message(b"fq\0", &[])).unwrap().kind, Kind::Other);
        for len in 0..bare.len() - 2 {
            // Cut before its padding, it is no queue with classes, and nothing panics.
            assert_ne!(Queue::read(&bare[..len]), Some(root(classes())), "{len}");
        }
    }

    #[test]
    fn an_address_without_a_queue_says_why() {
        let at = |text: &str| launch_queue(text.parse().unwrap(), LEAD).unwrap_err();
        assert!(matches!(at("127.0.0.1:7400"), NotHonoured::NoEtf { device } if device == "lo"));
        assert!(matches!(at("0.0.0.0:7400"), NotHonoured::AnyAddress(_)));
        assert!(matches!(at("192.0.2.77:7400"), NotHonoured::NoInterface(_)));
    }
}
