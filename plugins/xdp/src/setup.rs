//! The half that opens the interface and checks what it is given.

use crate::config::{FRAME_BYTES_LOW, Mode, Neighbours, QUEUES_LIMIT, XdpConfig};
use crate::device::{Device, Exchange};
use crate::keeper::{Opened, XdpKeeper};
use crate::link::{XdpLink, XdpPeer};
use crate::program::{NoProgram, Program};
use insane_core::PeerIndex;
use insane_core::limits::PEERS_MAX;
use insane_kernel_neighbours::{HeldPorts, KernelNeighbours, has_address};
use insane_link::{Link, LinkSetup, PeerSetup, SwapRefused};
use insane_netstack::{
    Checksums, ETHERNET_BYTES, Host, HostError, IPV4_BYTES, IPV6_BYTES, Mac, Stack, TAG_BYTES, UDP_BYTES,
};
use insane_sys::clock::mono_now;
use insane_sys::interfaces::{LAG_UNKNOWN, completion_lag};
use insane_sys::privileges::{Capability, has_capability};
use insane_sys::{Errno, OsError};
use insane_xdp_sys::interface::Interface;
use insane_xdp_sys::{Binding, QueueRefused, Xsk, XskOptions};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Frames that each class's rings hold: over 10 ms of an interface that brings 100,000 a
/// second, and a burst of the engine's largest message in small frames.
const RING_FRAMES: u32 = 1024;
/// What the kernel keeps free in front of a frame that came (XDP_PACKET_HEADROOM).
const KERNEL_HEADROOM_BYTES: u32 = 256;
/// How often an interface or queue that is taken is tried again, and after which time: what
/// another process had is given back a moment after its end.
const TAKEN_ATTEMPTS: u32 = 40;
const TAKEN_PAUSE: Duration = Duration::from_millis(5);

/// What the kernel will ask for, and for what.
const RIGHTS: [(Capability, &str); 3] = [
    (Capability::NetAdmin, "attaching an XDP program"),
    (Capability::NetRaw, "opening an AF_XDP socket"),
    (Capability::Bpf, "loading an XDP program"),
];

/// Why the link does not open.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum XdpError {
    /// There is no such interface, or it is not Ethernet.
    #[error("interface {interface}: {source}")]
    Interface {
        /// Its name.
        interface: String,
        /// What failed.
        source: OsError,
    },
    /// The interface is down.
    #[error("interface {interface} is down (ip link set {interface} up)")]
    Down {
        /// Its name.
        interface: String,
    },
    /// It is not the interface that was opened: it was made again, or has another hardware
    /// address.
    #[error("interface {interface} is another one now, or has another hardware address; it is opened anew")]
    Changed {
        /// Its name.
        interface: String,
    },
    /// Somebody has detached the program, or put another into its place: no frame comes any more.
    #[error("the XDP program was detached from interface {interface} by somebody else; it is opened anew")]
    Detached {
        /// Its name.
        interface: String,
    },
    /// The device takes tags from frames, so that those of the VLAN cannot be told from others.
    #[error(
        "interface {interface} takes the tags of VLANs from frames (ethtool -K {interface} rxvlan off); the link is in VLAN {vlan}"
    )]
    StripsTags {
        /// Its name.
        interface: String,
        /// The VLAN.
        vlan: u16,
    },
    /// Rights are missing.
    #[error("interface {interface}: {what}: permission denied; CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF are needed")]
    NoRight {
        /// Its name.
        interface: String,
        /// What was attempted.
        what: &'static str,
    },
    /// Another program has the interface, or another socket the queue.
    #[error(
        "interface {interface}, queue {queue}: {what} is taken by another process (`ip link show {interface}` names a program)"
    )]
    Taken {
        /// Its name.
        interface: String,
        /// The queue.
        queue: u32,
        /// What is taken.
        what: &'static str,
    },
    /// There is no such queue.
    #[error("interface {interface} has no queue {queue}")]
    NoQueue {
        /// Its name.
        interface: String,
        /// The queue.
        queue: u32,
    },
    /// It has more or fewer queues than when it was opened.
    #[error("interface {interface} has {queues} queues now; it is opened anew")]
    Queues {
        /// Its name.
        interface: String,
        /// How many that receive.
        queues: u32,
    },
    /// `queues_max` is out of range.
    #[error("queues_max is {given}; it must be from 1 to {QUEUES_LIMIT}")]
    QueuesMax {
        /// The value given.
        given: u32,
    },
    /// The mode asked for, or every one, cannot be had.
    #[error("interface {interface} does not do mode {mode}: {reason}")]
    Mode {
        /// Its name.
        interface: String,
        /// The mode.
        mode: &'static str,
        /// What the kernel said to the last attempt.
        reason: String,
    },
    /// The XDP program is refused.
    #[error("interface {interface}: the XDP program is refused: {reason}")]
    Program {
        /// Its name.
        interface: String,
        /// Why.
        reason: String,
    },
    /// The address, prefix or gateway cannot be.
    #[error("{bind}: {source}")]
    Address {
        /// The address given.
        bind: SocketAddr,
        /// What is wrong.
        source: HostError,
    },
    /// Neither port can be chosen: the kernel knows nothing of them.
    #[error("{bind}: the link needs a port from 1 to 65534, and the one after it")]
    Port {
        /// The address given.
        bind: SocketAddr,
    },
    /// Neighbours are to be borrowed, and the interface does not have the address.
    #[error("interface {interface} does not have the address {address}, which `neighbours: borrowed` takes")]
    NoAddress {
        /// Its name.
        interface: String,
        /// The address given.
        address: IpAddr,
    },
    /// Neighbours are to be borrowed, and the ports cannot be held.
    #[error("{bind} and the port after it: {source}")]
    Ports {
        /// The address given.
        bind: SocketAddr,
        /// What failed.
        source: OsError,
    },
    /// The kernel's neighbours cannot be followed.
    #[error("following the kernel's neighbours: {0}")]
    Follow(OsError),
    /// The kernel has neighbours in a VLAN at an interface of its own.
    #[error("neighbours are borrowed from the interface itself, and not in VLAN {vlan}")]
    BorrowedInVlan {
        /// The VLAN.
        vlan: u16,
    },
    /// `frame_bytes_max` is out of range.
    #[error("frame_bytes_max is {given}; on interface {interface} it must be from {FRAME_BYTES_LOW} to {most}")]
    FrameBytes {
        /// The value given.
        given: u32,
        /// The interface.
        interface: String,
        /// What its MTU and a chunk of 4 KiB allow.
        most: u32,
    },
    /// The code point is out of range.
    #[error("real_time_dscp is {given}; it must be from 0 to 63")]
    Dscp {
        /// The value given.
        given: u8,
    },
    /// More peers than a runtime has.
    #[error("{given} peers; at most {PEERS_MAX} are possible")]
    TooManyPeers {
        /// How many were given.
        given: usize,
    },
    /// A peer that cannot be reached from the link's address.
    #[error(
        "peer {peer}: {address} cannot be reached from {bind}: another family, no port pair, no host, or no gateway"
    )]
    PeerUnusable {
        /// The peer.
        peer: PeerIndex,
        /// Its address.
        address: SocketAddr,
        /// The address of this host.
        bind: SocketAddr,
    },
    /// Two peers have one address: frames could not be told apart.
    #[error("peers {first} and {second} share the address {address}")]
    PeerDuplicate {
        /// The one.
        first: PeerIndex,
        /// The other.
        second: PeerIndex,
        /// What they share.
        address: SocketAddr,
    },
}

/// What a link has for a hardware address while its interface is missing: nothing is sent
/// from there.
const NO_MAC: Mac = Mac([2, 0, 0, 0, 0, 0]);

/// A link that does not know its peers yet.
#[derive(Debug)]
pub struct XdpSetup {
    config: XdpConfig,
    host: Host,
    frame_bytes_max: u32,
    exchange: Arc<Exchange>,
    /// Where neighbours are the kernel's.
    borrowed: Option<Arc<KernelNeighbours>>,
    /// What was opened, or why it was not.
    opened: Result<(Opened, Mode), XdpError>,
}

impl XdpSetup {
    /// Checks the configuration, opens the sockets and attaches the program, in the network
    /// namespace of the calling thread. Tries for some 200 ms where something is taken.
    ///
    /// # Errors
    /// A value is out of range, or the interface is not to be had, with the reason.
    pub fn bind(config: XdpConfig) -> Result<Self, XdpError> {
        check(&config)?;
        let interface = find(&config)?;
        check_host(&config, &interface)?;
        let frame_bytes_max = match config.frame_bytes_max {
            Some(given) => given,
            None => most(&config, interface.mtu_bytes),
        };
        let opened = open_device(&config, frame_bytes_max)?;
        Self::new(config, frame_bytes_max, Ok(opened))
    }

    /// As [`bind`](Self::bind), but an interface that is not to be had is no error: the link
    /// opens without it ([`missing`](Self::missing) says why), and its [`keeper`](Self::keeper)
    /// tries again.
    ///
    /// # Errors
    /// A value is out of range; or the interface is not to be had and `frame_bytes_max` is not
    /// given, so that what the link can do is not known.
    pub fn bind_or_wait(config: XdpConfig) -> Result<Self, XdpError> {
        let Some(frame_bytes_max) = config.frame_bytes_max else { return Self::bind(config) };
        check(&config)?;
        let most = most(&config, u32::MAX);
        if !(FRAME_BYTES_LOW..=most).contains(&frame_bytes_max) {
            let interface = config.interface.clone();
            return Err(XdpError::FrameBytes { given: frame_bytes_max, interface, most });
        }
        let placeholder = Host { mac: NO_MAC, ..host(&config, None) };
        let _checked =
            Stack::<1>::new(placeholder).map_err(|source| XdpError::Address { bind: config.bind, source })?;
        let opened = open_device(&config, frame_bytes_max);
        Self::new(config, frame_bytes_max, opened)
    }

    fn new(
        config: XdpConfig,
        frame_bytes_max: u32,
        opened: Result<(Box<Device>, Opened), XdpError>,
    ) -> Result<Self, XdpError> {
        let borrowed = match config.neighbours {
            Neighbours::Own => None,
            Neighbours::Borrowed => Some(Arc::new(KernelNeighbours::start().map_err(XdpError::Follow)?)),
        };
        let exchange = Arc::new(Exchange::new());
        let opened = opened.map(|(device, opened)| {
            let mode = device.mode;
            if let Some(borrowed) = &borrowed {
                borrowed.set_interface(opened.interface.index);
            }
            exchange.give(device);
            (opened, mode)
        });
        let host = host(&config, opened.as_ref().ok().map(|(opened, _)| &opened.interface));
        Ok(XdpSetup { config, host, frame_bytes_max, exchange, borrowed, opened })
    }

    /// The address with port P: what peers are told.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.config.bind
    }

    /// The mode that was had; `None`: the interface is missing.
    #[must_use]
    pub fn mode(&self) -> Option<Mode> {
        self.opened.as_ref().ok().map(|(_, mode)| *mode)
    }

    /// Why the interface could not be opened, if so.
    #[must_use]
    pub fn missing(&self) -> Option<&XdpError> {
        self.opened.as_ref().err()
    }

    /// Queues of the interface that the link does not hear, as far as its driver says how many it
    /// has: what comes by them for the link is lost. None while the interface is missing.
    #[must_use]
    pub fn queues_unheard(&self) -> u32 {
        self.opened.as_ref().map_or(0, |(opened, _)| unheard(&self.config, &opened.interface))
    }

    /// What looks after the interface from now on: one for each link.
    #[must_use]
    pub fn keeper(&self) -> XdpKeeper {
        let opened = self.opened.as_ref().ok().map(|(opened, _)| opened.clone());
        let exchange = Arc::clone(&self.exchange);
        XdpKeeper::new(self.config.clone(), self.frame_bytes_max, exchange, self.borrowed.clone(), opened)
    }
}

impl LinkSetup for XdpSetup {
    type Link = XdpLink;
    type Error = XdpError;
    type Peers = XdpPeers;

    fn peers(&self) -> XdpPeers {
        XdpPeers { host: self.host, local: self.config.bind, real_time_dscp: self.config.real_time_dscp }
    }

    fn open(self, peers: &[Option<SocketAddr>]) -> Result<XdpLink, XdpError> {
        if peers.len() > PEERS_MAX {
            return Err(XdpError::TooManyPeers { given: peers.len() });
        }
        let setup = self.peers();
        let bind = self.config.bind;
        let stack = Stack::new(self.host).map_err(|source| XdpError::Address { bind, source })?;
        let stack = if self.borrowed.is_some() { stack.borrowing() } else { stack };
        let mut link = XdpLink::new((self.exchange, self.borrowed), stack, bind, self.frame_bytes_max, mono_now());
        for (index, address) in peers.iter().enumerate() {
            let Some(address) = *address else { continue };
            let peer = PeerIndex(index as u16);
            let mut with = Some(setup.prepare(peer, address)?);
            link.swap_peer(peer, &mut with).map_err(|refused| match refused {
                SwapRefused::AddressTaken(first) => XdpError::PeerDuplicate { first, second: peer, address },
                _ => XdpError::PeerUnusable { peer, address, bind },
            })?;
        }
        Ok(link)
    }
}

/// Checks peers that come later.
#[derive(Clone, Copy, Debug)]
pub struct XdpPeers {
    host: Host,
    local: SocketAddr,
    real_time_dscp: u8,
}

impl PeerSetup for XdpPeers {
    type Peer = XdpPeer;
    type Error = XdpError;

    fn prepare(&self, peer: PeerIndex, address: SocketAddr) -> Result<XdpPeer, XdpError> {
        let bind = self.local;
        XdpPeer::new(&self.host, bind.port(), self.real_time_dscp, address).ok_or(XdpError::PeerUnusable {
            peer,
            address,
            bind,
        })
    }
}

fn host(config: &XdpConfig, interface: Option<&Interface>) -> Host {
    Host {
        mac: interface.map_or(NO_MAC, |interface| Mac(interface.mac)),
        address: config.bind.ip(),
        prefix_bits: config.prefix_bits,
        gateway: config.gateway,
        vlan: config.vlan,
        checksums: interface.map_or(Checksums::Verify, checksums),
    }
}

fn checksums(interface: &Interface) -> Checksums {
    // What the other end of a veth pair leaves unfinished never saw a wire.
    if interface.driver == "veth" { Checksums::VerifyOrUnfinished } else { Checksums::Verify }
}

/// What is wrong whatever the interface is.
fn check(config: &XdpConfig) -> Result<(), XdpError> {
    if config.real_time_dscp > 63 {
        return Err(XdpError::Dscp { given: config.real_time_dscp });
    }
    if !(1..=QUEUES_LIMIT).contains(&config.queues_max) {
        return Err(XdpError::QueuesMax { given: config.queues_max });
    }
    if config.bind.port() == 0 || config.bind.port() == u16::MAX {
        return Err(XdpError::Port { bind: config.bind });
    }
    if let (Neighbours::Borrowed, Some(vlan)) = (config.neighbours, config.vlan) {
        return Err(XdpError::BorrowedInVlan { vlan: vlan.get() });
    }
    Ok(())
}

fn check_host(config: &XdpConfig, interface: &Interface) -> Result<(), XdpError> {
    let of_address = |source| XdpError::Address { bind: config.bind, source };
    Stack::<1>::new(host(config, Some(interface))).map(|_| ()).map_err(of_address)
}

/// The interface, if it is up and may be used.
fn find(config: &XdpConfig) -> Result<Interface, XdpError> {
    let of_interface = |source| XdpError::Interface { interface: config.interface.clone(), source };
    let interface = Interface::find(&config.interface).map_err(of_interface)?;
    if !interface.is_up {
        return Err(XdpError::Down { interface: config.interface.clone() });
    }
    for (right, what) in RIGHTS {
        if !has_capability(right) {
            return Err(XdpError::NoRight { interface: config.interface.clone(), what });
        }
    }
    Ok(interface)
}

/// The queues that the link hears: all, where they are known to be few, or the one that is
/// configured.
pub(crate) fn heard(config: &XdpConfig, interface: &Interface) -> Range<u32> {
    match interface.receive_queues {
        Some(count) if config.queue < count && count <= config.queues_max => 0..count,
        _ => config.queue..config.queue.saturating_add(1),
    }
}

fn unheard(config: &XdpConfig, interface: &Interface) -> u32 {
    let heard = heard(config, interface);
    interface.receive_queues.unwrap_or(1).saturating_sub(heard.end - heard.start)
}

/// Whether the address is the interface's, where it has to be.
pub(crate) fn check_address(config: &XdpConfig) -> Result<(), XdpError> {
    if config.neighbours == Neighbours::Own {
        return Ok(());
    }
    let (interface, address) = (config.interface.clone(), config.bind.ip());
    match has_address(&interface, address) {
        Ok(true) => Ok(()),
        Ok(false) => Err(XdpError::NoAddress { interface, address }),
        Err(source) => Err(XdpError::Interface { interface, source }),
    }
}

/// Opens the interface for frames of this size.
pub(crate) fn open_device(config: &XdpConfig, frame_bytes_max: u32) -> Result<(Box<Device>, Opened), XdpError> {
    let interface = find(config)?;
    check_host(config, &interface)?;
    fits(config, &interface, frame_bytes_max)?;
    check_address(config)?;
    let ports = match config.neighbours {
        Neighbours::Own => None,
        Neighbours::Borrowed => {
            let held = HeldPorts::bind(config.bind, interface.index);
            Some(held.map_err(|source| XdpError::Ports { bind: config.bind, source })?)
        }
    };
    let chunk_bytes = chunk_bytes(frame_bytes_max, config.bind.is_ipv4());
    let (program, xsk, mode) = open_interface(config, &interface, chunk_bytes)?;
    // Where nobody says, longer than devices do.
    let lag = completion_lag(&config.interface).unwrap_or(LAG_UNKNOWN);
    let of_frames = (Mac(interface.mac), checksums(&interface), lag);
    let opened = Opened { interface, attachment: program.attachment() };
    Ok((Device::new(program, ports, xsk, mode, of_frames), opened))
}

/// Headers of IP and UDP.
const fn headers_bytes(is_ipv4: bool) -> u32 {
    (UDP_BYTES + if is_ipv4 { IPV4_BYTES } else { IPV6_BYTES }) as u32
}

/// What of a chunk a packet may fill, be there a tag or not.
const fn room(chunk_bytes: u32) -> u32 {
    chunk_bytes - KERNEL_HEADROOM_BYTES - (ETHERNET_BYTES + TAG_BYTES) as u32
}

const fn chunk_bytes(frame_bytes_max: u32, is_ipv4: bool) -> u32 {
    if frame_bytes_max + headers_bytes(is_ipv4) <= room(2048) { 2048 } else { 4096 }
}

/// Memory that a link shares with the kernel where it hears so many queues (at least one), bytes.
#[must_use]
pub const fn memory_bytes(frame_bytes_max: u32, is_ipv4: bool, queues: u32) -> u64 {
    Xsk::chunks(RING_FRAMES, queues - 1) as u64 * chunk_bytes(frame_bytes_max, is_ipv4) as u64
}

/// Largest frame that a chunk holds over IPv4, bytes.
pub const FRAME_BYTES_LIMIT: u32 = room(4096) - headers_bytes(true);

/// The largest frame that packets of an MTU and a chunk hold, bytes.
fn most(config: &XdpConfig, mtu_bytes: u32) -> u32 {
    mtu_bytes.min(room(4096)).saturating_sub(headers_bytes(config.bind.is_ipv4()))
}

/// Whether frames of this size pass the interface, and the VLAN's are seen.
pub(crate) fn fits(config: &XdpConfig, interface: &Interface, frame_bytes_max: u32) -> Result<(), XdpError> {
    if let Some(vlan) = config.vlan.filter(|_| interface.strips_tags) {
        return Err(XdpError::StripsTags { interface: config.interface.clone(), vlan: vlan.get() });
    }
    let most = most(config, interface.mtu_bytes);
    if (FRAME_BYTES_LOW..=most).contains(&frame_bytes_max) {
        Ok(())
    } else {
        Err(XdpError::FrameBytes { given: frame_bytes_max, interface: config.interface.clone(), most })
    }
}

/// One way to open an interface.
struct Attempt {
    mode: Mode,
    in_driver: bool,
    binding: Binding,
}

const ATTEMPTS: [Attempt; 3] = [
    Attempt { mode: Mode::ZeroCopy, in_driver: true, binding: Binding::ZeroCopy },
    Attempt { mode: Mode::Native, in_driver: true, binding: Binding::Copy },
    Attempt { mode: Mode::Skb, in_driver: false, binding: Binding::Copy },
];

fn open_interface(
    config: &XdpConfig,
    interface: &Interface,
    chunk_bytes: u32,
) -> Result<(Program, Xsk, Mode), XdpError> {
    let mut last = None;
    for attempt in ATTEMPTS.iter().filter(|attempt| config.mode == Mode::Auto || config.mode == attempt.mode) {
        match open_as(config, interface, chunk_bytes, attempt) {
            Ok(opened) => return Ok(opened),
            // Whether another mode would do is worth a try only where this one is not known.
            Err(error @ XdpError::Mode { .. }) => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    let reason = "no mode was tried".to_owned();
    let none = XdpError::Mode { interface: config.interface.clone(), mode: config.mode.name(), reason };
    Err(last.unwrap_or(none))
}

fn open_as(
    config: &XdpConfig,
    interface: &Interface,
    chunk_bytes: u32,
    attempt: &Attempt,
) -> Result<(Program, Xsk, Mode), XdpError> {
    let options = XskOptions {
        interface: interface.index,
        queue: config.queue,
        binding: attempt.binding,
        chunk_bytes,
        ring_frames: RING_FRAMES,
    };
    let heard = heard(config, interface);
    let further: Vec<u32> = heard.clone().filter(|queue| *queue != config.queue).collect();
    let told_of = |what, refused| told(config, config.queue, attempt, what, refused);
    let mut program = Program::load(config, &heard).map_err(|refused| told_of("loading the XDP program", refused))?;
    let mut of_further = None;
    let open = || {
        Xsk::open_with(&options, &further).inspect_err(|refused| {
            of_further = Some(*refused).filter(|refused| refused.queue != config.queue).or(of_further);
        })
    };
    let opened = patiently(open, |refused| refused.error.errno);
    let xsk = opened.map_err(|refused| {
        // Where a further one is taken, the first may seem to be: the attempt before had it.
        let QueueRefused { queue, error } = of_further.filter(|_| is_taken(refused.error.errno)).unwrap_or(refused);
        let refused = NoProgram { errno: Some(error.errno), reason: error.to_string() };
        if error.errno == Errno::EINVAL && attempt.binding == Binding::Copy {
            return XdpError::NoQueue { interface: config.interface.clone(), queue };
        }
        told(config, queue, attempt, "the queue", refused)
    })?;
    program.point_to(xsk.sockets()).map_err(|refused| told_of("giving sockets to the program", refused))?;
    let attach = || program.attach(interface.index, attempt.in_driver);
    patiently(attach, |refused| refused.errno.unwrap_or(Errno::UnknownErrno))
        .map_err(|refused| told_of("the XDP hook", refused))?;
    Ok((program, xsk, attempt.mode))
}

/// Tries again while it is taken.
fn patiently<T, E>(mut action: impl FnMut() -> Result<T, E>, errno: impl Fn(&E) -> Errno) -> Result<T, E> {
    for _ in 1..TAKEN_ATTEMPTS {
        match action() {
            Err(error) if is_taken(errno(&error)) => std::thread::sleep(TAKEN_PAUSE),
            other => return other,
        }
    }
    action()
}

fn is_taken(errno: Errno) -> bool {
    matches!(errno, Errno::EBUSY | Errno::EEXIST)
}

/// What a refusal of the kernel means to an operator.
fn told(config: &XdpConfig, queue: u32, attempt: &Attempt, what: &'static str, refused: NoProgram) -> XdpError {
    let interface = config.interface.clone();
    match refused.errno {
        Some(errno) if is_taken(errno) => XdpError::Taken { interface, queue, what },
        Some(Errno::EPERM) => XdpError::NoRight { interface, what },
        Some(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ERANGE | Errno::E2BIG | Errno::ENOSPC) => {
            XdpError::Mode { interface, mode: attempt.mode.name(), reason: refused.reason }
        }
        _ => XdpError::Program { interface, reason: refused.reason },
    }
}
