//! The half that opens the device and checks what it is given.

use crate::class::Class;
use crate::config::{FRAME_BYTES_LIMIT, FRAME_BYTES_LOW, RdmaConfig};
use crate::connection::{Connection, RECEIVES, SENDS_MAX, buffer_bytes, outbox_bytes};
use crate::core::{Core, Extra, Made, Parts, Side};
use crate::credit::WINDOW;
use crate::device::{Enrolled, Exchange, Opened, Registry, Running, Spare};
use crate::door::{Desk, Door, Maker};
use crate::hello::Hello;
use crate::keeper::RdmaKeeper;
use crate::line::{Line, Role};
use crate::link::{RdmaLink, RdmaPeer};
use insane_core::PeerIndex;
use insane_core::limits::PEERS_MAX;
use insane_link::{Link, LinkSetup, PeerSetup};
use insane_rdma_sys::{Channel, CmEvents, CmId, Connecting, Cq, Device, Inbox, QpOptions, VerbsError};
use insane_sys::OsError;
use std::net::SocketAddr;
use std::sync::Arc;

/// Peers that have a place, and some that left and are not freed yet.
const REGIONS_MAX: u32 = PEERS_MAX as u32 + 16;
/// Receive buffers that one peer brings.
const PER_REGION: u32 = RECEIVES * 2;
/// What goes into the send queue itself, bytes: grants and small messages, which the device then
/// need not fetch.
const INLINE_BYTES: u32 = 128;
/// Calls that the kernel keeps until they are looked at.
const BACKLOG: u16 = 128;
/// What a small device may have too few of.
const SHARED_RECEIVES: &str = "receive buffers that connections share";

/// Bytes of locked memory that one peer takes.
#[must_use]
pub const fn peer_bytes(frame_bytes_max: u32) -> usize {
    PER_REGION as usize * buffer_bytes(frame_bytes_max) + 2 * outbox_bytes(frame_bytes_max)
}

/// Why the link does not open.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RdmaError {
    /// `frame_bytes_max` is out of range.
    #[error("frame_bytes_max is {given}; it must be from {FRAME_BYTES_LOW} to {FRAME_BYTES_LIMIT}")]
    FrameBytes {
        /// The value given.
        given: u32,
    },
    /// The code point is out of range.
    #[error("real_time_dscp is {given}; it must be from 0 to 63")]
    Dscp {
        /// The value given.
        given: u8,
    },
    /// The own address is none that peers could know this host by.
    #[error("{address} is no particular address; the device is found by it, and peers know this host by it")]
    Unspecified {
        /// The address given.
        address: SocketAddr,
    },
    /// The device can hold too little.
    #[error("{address}: the device holds {given} {what}; the link needs {needed}")]
    TooSmall {
        /// The address of the device.
        address: SocketAddr,
        /// Of what.
        what: &'static str,
        /// How many it holds.
        given: u32,
        /// How many are needed.
        needed: u32,
    },
    /// More peers than a runtime has.
    #[error("{given} peers; at most {PEERS_MAX} are possible")]
    TooManyPeers {
        /// How many were given.
        given: usize,
    },
    /// A peer's address is none that can be called.
    #[error("peer {peer}: {address} has no usable address or port")]
    PeerUnusable {
        /// The peer.
        peer: PeerIndex,
        /// Its address.
        address: SocketAddr,
    },
    /// IPv4 cannot reach IPv6, nor the other way round.
    #[error("peer {peer}: {address} and this host's {bind} are not both IPv4 or both IPv6")]
    PeerFamily {
        /// The peer.
        peer: PeerIndex,
        /// Its address.
        address: SocketAddr,
        /// The address of this host.
        bind: SocketAddr,
    },
    /// A peer has this host's own address.
    #[error("peer {peer}: {address} is this host's own address")]
    PeerIsSelf {
        /// The peer.
        peer: PeerIndex,
        /// Its address.
        address: SocketAddr,
    },
    /// Two peers share an address: they could not be told apart.
    #[error("peers {first} and {second} share the address {address}")]
    PeerDuplicate {
        /// The one.
        first: PeerIndex,
        /// The other.
        second: PeerIndex,
        /// What they share.
        address: SocketAddr,
    },
    /// The libraries, the device or a right is missing, or the device refuses.
    #[error(transparent)]
    Verbs(#[from] VerbsError),
    /// The kernel refuses.
    #[error(transparent)]
    Os(#[from] OsError),
}

/// A device with its queues, and a listener that nobody answers yet.
#[derive(Debug)]
pub(crate) struct Bound {
    local: SocketAddr,
    device: Device,
    channel: Option<Arc<Channel>>,
    came: [Arc<Cq>; 2],
    sent: Arc<Cq>,
    inbox: Inbox,
    /// Peers that it has receive buffers for.
    peers_max: usize,
    events: CmEvents,
    listener: CmId,
    desk: Arc<Desk>,
}

impl Bound {
    /// Opens the device that has the address.
    pub(crate) fn open(config: &RdmaConfig) -> Result<Self, RdmaError> {
        let address = config.bind;
        let device = Device::at(address)?;
        let limits = device.limits();
        let too_small = |what, given, needed| RdmaError::TooSmall { address, what, given, needed };
        let regions_max = REGIONS_MAX.min(limits.shared_receives_max / PER_REGION);
        if regions_max == 0 {
            return Err(too_small(SHARED_RECEIVES, limits.shared_receives_max, PER_REGION));
        }
        let (receives, sends) = (regions_max * PER_REGION, REGIONS_MAX * 2 * SENDS_MAX);
        let completions = receives.max(sends);
        if limits.completions_max < completions {
            return Err(too_small("completions", limits.completions_max, completions));
        }
        if limits.queue_max < SENDS_MAX {
            return Err(too_small("sends of a connection", limits.queue_max, SENDS_MAX));
        }
        let channel = if config.wakes { Some(Arc::new(Channel::new(&device)?)) } else { None };
        let queue = |class: Class| Cq::new(&device, receives, channel.as_ref(), class as usize);
        let came = [queue(Class::RealTime)?, queue(Class::BestEffort)?];
        let sent = Cq::new(&device, sends, None, 0)?;
        let inbox = Inbox::new(&device, buffer_bytes(config.frame_bytes_max), PER_REGION, regions_max)?;
        let events = CmEvents::new()?;
        let listener = CmId::new(&events, 0)?;
        listener.reuse_address();
        listener.bind(address)?;
        listener.listen(BACKLOG)?;
        let mut local = address;
        local.set_port(listener.port());
        let peers_max = regions_max as usize;
        Ok(Bound { local, device, channel, came, sent, inbox, peers_max, events, listener, desk: Desk::new()? })
    }

    /// Begins to answer.
    fn start(self, config: &RdmaConfig, generation: u64) -> Result<Core, RdmaError> {
        let options = QpOptions { sends_max: SENDS_MAX, inline_bytes: INLINE_BYTES };
        let window = WINDOW as u16;
        let frame_bytes_max = config.frame_bytes_max;
        let maker = Maker {
            device: self.device,
            events: self.events,
            _listener: self.listener,
            connecting: Connecting::into(&self.inbox, options),
            sent: Arc::clone(&self.sent),
            came: self.came.clone(),
            local: self.local,
            own: Hello { class: Class::RealTime, port: self.local.port(), frame_bytes_max, window },
            dscp: config.real_time_dscp,
        };
        let buffers_max = self.inbox.buffers_max();
        Ok(Core::new(Parts {
            sides: self.came.map(|cq| Side::new(cq, buffers_max)),
            sent: self.sent,
            channel: self.channel,
            inbox: self.inbox,
            door: Door::open(maker, Arc::clone(&self.desk))?,
            desk: self.desk,
            generation,
            frame_bytes_max,
        }))
    }

    /// As [`start`](Self::start), with connections of all peers that were prepared before.
    pub(crate) fn start_for_all(self, config: &RdmaConfig, registry: &Registry) -> Result<Box<Running>, RdmaError> {
        let (local, peers_max) = (self.local, self.peers_max);
        let (opened, before) = registry.publish(self.device.clone(), Arc::clone(&self.desk));
        let start = || {
            if before.len() > peers_max {
                let (given, needed) = (peers_max as u32 * PER_REGION, before.len() as u32 * PER_REGION);
                return Err(RdmaError::TooSmall { address: local, what: SHARED_RECEIVES, given, needed });
            }
            let make = |(id, address)| {
                let made = make(&opened, local, address, config.frame_bytes_max)?;
                Ok::<_, RdmaError>(Spare { id, made: Some(made) })
            };
            let spares = before.into_iter().map(make).collect::<Result<_, _>>()?;
            Ok(Box::new(Running {
                core: self.start(config, opened.generation)?,
                generation: opened.generation,
                spares,
            }))
        };
        start().inspect_err(|_| registry.withdraw())
    }
}

/// What a peer has on a device.
fn make(opened: &Opened, local: SocketAddr, address: SocketAddr, frame_bytes_max: u32) -> Result<Made, RdmaError> {
    let Opened { device, desk, generation } = opened;
    let role = if place(local) < place(address) { Role::Calls } else { Role::Answers };
    let region = Inbox::region(device, buffer_bytes(frame_bytes_max), PER_REGION)?;
    let connect = |class| {
        let line = Line::new(class, address, role, Arc::clone(&desk.signals));
        let connection = Connection::new(Arc::clone(&line), device, frame_bytes_max)?;
        desk.introduce(line);
        Ok::<_, RdmaError>(connection)
    };
    let connections = [connect(Class::RealTime)?, connect(Class::BestEffort)?];
    let extra = Extra { region: Some(region), ..Extra::default() };
    Ok(Made { generation: *generation, connections, extra })
}

/// A link that does not know its peers yet.
#[derive(Debug)]
pub struct RdmaSetup {
    /// With the port that was chosen.
    config: RdmaConfig,
    registry: Arc<Registry>,
    exchange: Arc<Exchange>,
    /// The device, and its number; or why it is missing.
    bound: Result<(Bound, u64), RdmaError>,
}

impl RdmaSetup {
    /// Checks the configuration, and opens the device that has the address.
    ///
    /// # Errors
    /// A value is out of range, or there is no RDMA here, with the reason.
    pub fn bind(config: RdmaConfig) -> Result<Self, RdmaError> {
        check(&config)?;
        let bound = Bound::open(&config)?;
        Ok(Self::new(config, Ok(bound)))
    }

    /// As [`bind`](Self::bind), but a device that is not to be had is no error: the link opens
    /// without it ([`missing`](Self::missing) says why), and its [`keeper`](Self::keeper) tries
    /// again.
    ///
    /// # Errors
    /// A value is out of range; or there is no RDMA here and the port is to be chosen, so that
    /// peers could not be told.
    pub fn bind_or_wait(config: RdmaConfig) -> Result<Self, RdmaError> {
        if config.bind.port() == 0 {
            return Self::bind(config);
        }
        check(&config)?;
        let bound = Bound::open(&config);
        Ok(Self::new(config, bound))
    }

    fn new(mut config: RdmaConfig, bound: Result<Bound, RdmaError>) -> Self {
        let registry = Arc::new(Registry::default());
        let bound = bound.map(|bound| {
            config.bind = bound.local;
            let (opened, _nobody) = registry.publish(bound.device.clone(), Arc::clone(&bound.desk));
            (bound, opened.generation)
        });
        RdmaSetup { config, registry, exchange: Arc::new(Exchange::new()), bound }
    }

    /// The address with port P: what peers are told.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.config.bind
    }

    /// Why the device is missing, if it is.
    #[must_use]
    pub fn missing(&self) -> Option<&RdmaError> {
        self.bound.as_ref().err()
    }

    /// What looks after the device from now on: one for each link.
    #[must_use]
    pub fn keeper(&self) -> RdmaKeeper {
        RdmaKeeper::new(self.config.clone(), Arc::clone(&self.registry), Arc::clone(&self.exchange))
    }
}

/// What is wrong whatever the device is.
fn check(config: &RdmaConfig) -> Result<(), RdmaError> {
    if !(FRAME_BYTES_LOW..=FRAME_BYTES_LIMIT).contains(&config.frame_bytes_max) {
        return Err(RdmaError::FrameBytes { given: config.frame_bytes_max });
    }
    if config.real_time_dscp > 63 {
        return Err(RdmaError::Dscp { given: config.real_time_dscp });
    }
    if config.bind.ip().is_unspecified() {
        return Err(RdmaError::Unspecified { address: config.bind });
    }
    Ok(())
}

impl LinkSetup for RdmaSetup {
    type Link = RdmaLink;
    type Error = RdmaError;
    type Peers = RdmaPeers;

    fn peers(&self) -> RdmaPeers {
        RdmaPeers {
            local: self.config.bind,
            frame_bytes_max: self.config.frame_bytes_max,
            registry: Arc::clone(&self.registry),
        }
    }

    fn open(self, peers: &[Option<SocketAddr>]) -> Result<RdmaLink, RdmaError> {
        if peers.len() > PEERS_MAX {
            return Err(RdmaError::TooManyPeers { given: peers.len() });
        }
        let setup = self.peers();
        let mut prepared = Vec::new();
        for (index, address) in peers.iter().enumerate() {
            let Some(address) = *address else { continue };
            let peer = PeerIndex(index as u16);
            setup.check(peer, address)?;
            if let Some(first) = peers[..index].iter().position(|other| *other == Some(address)) {
                return Err(RdmaError::PeerDuplicate { first: PeerIndex(first as u16), second: peer, address });
            }
            prepared.push((peer, setup.prepare(peer, address)?));
        }
        let (mut running, mut peers_max) = (None, PEERS_MAX);
        if let Ok((bound, generation)) = self.bound {
            peers_max = bound.peers_max;
            let core = bound.start(&self.config, generation)?;
            running = Some(Box::new(Running { core, generation, spares: Vec::new() }));
        }
        let mut link = RdmaLink::new(running, self.exchange, self.config.bind, self.config.frame_bytes_max);
        for (peer, new) in prepared {
            let mut with = Some(new);
            if link.swap_peer(peer, &mut with).is_err() {
                let address = peers[peer.index()].unwrap_or(setup.local);
                let given = peers_max as u32 * PER_REGION;
                let (what, needed) = (SHARED_RECEIVES, given + PER_REGION);
                return Err(RdmaError::TooSmall { address, what, given, needed });
            }
        }
        Ok(link)
    }
}

/// Checks peers that come later, and takes the memory of their connections, if there is a
/// device.
#[derive(Clone, Debug)]
pub struct RdmaPeers {
    local: SocketAddr,
    frame_bytes_max: u32,
    registry: Arc<Registry>,
}

impl PeerSetup for RdmaPeers {
    type Peer = RdmaPeer;
    type Error = RdmaError;

    fn prepare(&self, peer: PeerIndex, address: SocketAddr) -> Result<RdmaPeer, RdmaError> {
        self.check(peer, address)?;
        let Enrolled { id, token, opened } = self.registry.enrol(address);
        let made = opened.map(|opened| make(&opened, self.local, address, self.frame_bytes_max)).transpose()?;
        Ok(RdmaPeer { address, id, _token: token, made })
    }
}

impl RdmaPeers {
    fn check(&self, peer: PeerIndex, address: SocketAddr) -> Result<(), RdmaError> {
        if address.is_ipv4() != self.local.is_ipv4() {
            return Err(RdmaError::PeerFamily { peer, address, bind: self.local });
        }
        if address.ip().is_unspecified() || address.ip().is_multicast() || address.port() == 0 {
            return Err(RdmaError::PeerUnusable { peer, address });
        }
        if place(address) == place(self.local) {
            return Err(RdmaError::PeerIsSelf { peer, address });
        }
        Ok(())
    }
}

/// What decides who calls.
fn place(address: SocketAddr) -> (std::net::IpAddr, u16) {
    (address.ip(), address.port())
}
