//! Opening the links of a datapath, and the technologies they can be of.
//!
//! A datapath whose links are all of one technology (almost every one) drives them as
//! what they are: the technology is matched once, when its engine is made. Only where
//! the configuration mixes technologies in one datapath, its links are [`PluginLink`]s,
//! which match in each call; see ADR 0008.

use crate::keepers::{Health, Kept};
use crate::start::{LinkError, StartError};
use insane_config::raw::{self, XdpMode};
use insane_config::{DatapathPlan, DpdkPlan, Idle, LinkPlan, Plan, RdmaPlan, TcpPlan, Technology, UdpPlan, XdpPlan};
use insane_core::{Lane, MonoTime, Nanos, PeerIndex};
use insane_dpdk::{DpdkConfig, DpdkLink, DpdkPeer, DpdkPeers, DpdkSetup, EalOptions};
use insane_link::{
    FrameSink, LaunchDrops, Link, LinkCapabilities, LinkCounts, LinkHealth, LinkKeeper, LinkSetup, PeerSetup,
    SendOutcome, SwapRefused, Unfinished,
};
use insane_rdma::{RdmaConfig, RdmaLink, RdmaPeer, RdmaPeers, RdmaSetup};
use insane_sys::SharedBytes;
use insane_tcp::{TcpConfig, TcpLink, TcpPeer, TcpPeers, TcpSetup};
use insane_udp::{UdpConfig, UdpGroup, UdpLink, UdpPeer, UdpPeers, UdpSetup};
use insane_wire::status::{Counters, LinkStatus};
use insane_xdp::{Mode, Neighbours, VlanId, XdpConfig, XdpLink, XdpPeer, XdpPeers, XdpSetup};
use std::any::Any;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

/// A link of a datapath that mixes technologies.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a datapath has eight at most, and asks each for every frame")]
pub enum PluginLink {
    /// Kernel UDP sockets.
    Udp(UdpLink),
    /// Kernel TCP connections.
    Tcp(TcpLink),
    /// AF_XDP sockets.
    Xdp(XdpLink),
    /// RDMA connections.
    Rdma(RdmaLink),
    /// A port of DPDK.
    Dpdk(DpdkLink),
}

/// A peer of such a link.
#[derive(Debug)]
pub enum PluginPeer {
    /// By kernel UDP sockets.
    Udp(UdpPeer),
    /// By kernel TCP connections.
    Tcp(TcpPeer),
    /// By AF_XDP sockets.
    Xdp(XdpPeer),
    /// By RDMA connections.
    Rdma(RdmaPeer),
    /// By a port of DPDK.
    Dpdk(DpdkPeer),
}

/// `$call` on the link, whichever it is.
macro_rules! of_any {
    ($plugin:expr, $link:ident => $call:expr) => {
        match $plugin {
            PluginLink::Udp($link) => $call,
            PluginLink::Tcp($link) => $call,
            PluginLink::Xdp($link) => $call,
            PluginLink::Rdma($link) => $call,
            PluginLink::Dpdk($link) => $call,
        }
    };
}

/// Swaps a peer of one technology in a link that takes it as one of several.
macro_rules! swap_as {
    ($kind:ident, $link:ident, $peer:ident, $with:ident) => {{
        let mut inner = match $with.take() {
            Some(PluginPeer::$kind(inner)) => Some(inner),
            None => None,
            other => {
                // Prepared for another technology: a bug of the control plane, refused.
                *$with = other;
                return Err(SwapRefused::NoPlace);
            }
        };
        let swapped = $link.swap_peer($peer, &mut inner);
        *$with = inner.map(PluginPeer::$kind);
        swapped
    }};
}

impl Link for PluginLink {
    type Peer = PluginPeer;

    fn swap_peer(&mut self, peer: PeerIndex, with: &mut Option<PluginPeer>) -> Result<(), SwapRefused> {
        match self {
            PluginLink::Udp(link) => swap_as!(Udp, link, peer, with),
            PluginLink::Tcp(link) => swap_as!(Tcp, link, peer, with),
            PluginLink::Xdp(link) => swap_as!(Xdp, link, peer, with),
            PluginLink::Rdma(link) => swap_as!(Rdma, link, peer, with),
            PluginLink::Dpdk(link) => swap_as!(Dpdk, link, peer, with),
        }
    }

    fn capabilities(&self) -> LinkCapabilities {
        of_any!(self, link => link.capabilities())
    }

    #[inline]
    fn send(&mut self, peer: PeerIndex, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
        of_any!(self, link => link.send(peer, lane, head, payload))
    }

    #[inline]
    fn send_alone(&mut self, peer: PeerIndex, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
        of_any!(self, link => link.send_alone(peer, lane, head, payload))
    }

    fn send_at(
        &mut self,
        peer: PeerIndex,
        lane: Lane,
        head: &[u8],
        payload: SharedBytes<'_>,
        launch: MonoTime,
    ) -> SendOutcome {
        of_any!(self, link => link.send_at(peer, lane, head, payload, launch))
    }

    fn take_launch_drops(&mut self) -> LaunchDrops {
        of_any!(self, link => link.take_launch_drops())
    }

    #[inline]
    fn send_group(&mut self, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
        of_any!(self, link => link.send_group(lane, head, payload))
    }

    fn unfinished(&mut self, best_effort: bool) -> Option<Unfinished> {
        of_any!(self, link => link.unfinished(best_effort))
    }

    #[inline]
    fn flush(&mut self) {
        of_any!(self, link => link.flush());
    }

    #[inline]
    fn receive<S: FrameSink>(&mut self, budget: u32, thorough: bool, sink: &mut S) -> u32 {
        of_any!(self, link => link.receive(budget, thorough, sink))
    }

    fn readable_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let (udp, tcp, xdp, rdma) = match self {
            PluginLink::Udp(udp) => (Some(udp), None, None, None),
            PluginLink::Tcp(tcp) => (None, Some(tcp), None, None),
            PluginLink::Xdp(xdp) => (None, None, Some(xdp), None),
            PluginLink::Rdma(rdma) => (None, None, None, Some(rdma)),
            // No descriptor tells of its frames.
            PluginLink::Dpdk(_) => (None, None, None, None),
        };
        let kernel = udp.into_iter().flat_map(Link::readable_fds).chain(tcp.into_iter().flat_map(Link::readable_fds));
        let kernel = kernel.chain(xdp.into_iter().flat_map(Link::readable_fds));
        kernel.chain(rdma.into_iter().flat_map(Link::readable_fds))
    }

    fn take_new_fds(&mut self) -> bool {
        of_any!(self, link => link.take_new_fds())
    }

    fn sleep_max(&self) -> Option<Nanos> {
        of_any!(self, link => link.sleep_max())
    }

    fn holds_frames(&self) -> bool {
        of_any!(self, link => link.holds_frames())
    }

    fn link_counts(&self) -> LinkCounts {
        of_any!(self, link => link.link_counts())
    }

    fn tend(&mut self, now: MonoTime) -> bool {
        of_any!(self, link => link.tend(now))
    }
}

/// The links of one datapath, as what they are.
#[derive(Debug)]
pub(crate) enum LinkSet {
    /// All udp, or none at all.
    Udp(Vec<UdpLink>),
    /// All tcp.
    Tcp(Vec<TcpLink>),
    /// All xdp.
    Xdp(Vec<XdpLink>),
    /// All rdma.
    Rdma(Vec<RdmaLink>),
    /// All dpdk.
    Dpdk(Vec<DpdkLink>),
    /// Several technologies.
    Mixed(Vec<PluginLink>),
}

impl LinkSet {
    fn new(links: Vec<PluginLink>) -> Self {
        let is_udp = |link: &PluginLink| matches!(link, PluginLink::Udp(_));
        let is_tcp = |link: &PluginLink| matches!(link, PluginLink::Tcp(_));
        let is_xdp = |link: &PluginLink| matches!(link, PluginLink::Xdp(_));
        let is_rdma = |link: &PluginLink| matches!(link, PluginLink::Rdma(_));
        let as_udp = |link| if let PluginLink::Udp(udp) = link { Some(udp) } else { None };
        let as_tcp = |link| if let PluginLink::Tcp(tcp) = link { Some(tcp) } else { None };
        let as_xdp = |link| if let PluginLink::Xdp(xdp) = link { Some(xdp) } else { None };
        let as_rdma = |link| if let PluginLink::Rdma(rdma) = link { Some(rdma) } else { None };
        let is_dpdk = |link: &PluginLink| matches!(link, PluginLink::Dpdk(_));
        let as_dpdk = |link| if let PluginLink::Dpdk(dpdk) = link { Some(dpdk) } else { None };
        if links.iter().all(is_udp) {
            LinkSet::Udp(links.into_iter().filter_map(as_udp).collect())
        } else if links.iter().all(is_tcp) {
            LinkSet::Tcp(links.into_iter().filter_map(as_tcp).collect())
        } else if links.iter().all(is_xdp) {
            LinkSet::Xdp(links.into_iter().filter_map(as_xdp).collect())
        } else if links.iter().all(is_rdma) {
            LinkSet::Rdma(links.into_iter().filter_map(as_rdma).collect())
        } else if links.iter().all(is_dpdk) {
            LinkSet::Dpdk(links.into_iter().filter_map(as_dpdk).collect())
        } else {
            LinkSet::Mixed(links)
        }
    }
}

/// Prepares peers of one link that come later.
#[derive(Debug)]
pub(crate) struct PeerMaker {
    setup: PeerMakerOf,
    /// Its datapath drives it as one of several technologies.
    is_mixed: bool,
}

#[derive(Debug)]
enum PeerMakerOf {
    Udp(UdpPeers),
    Tcp(TcpPeers),
    Xdp(XdpPeers),
    Rdma(RdmaPeers),
    Dpdk(DpdkPeers),
}

impl PeerMaker {
    /// A peer for the link, with all that it needs.
    pub(crate) fn prepare(&self, peer: PeerIndex, address: SocketAddr) -> Result<Box<dyn Any + Send>, LinkError> {
        Ok(match &self.setup {
            PeerMakerOf::Udp(setup) => {
                let peer = setup.prepare(peer, address)?;
                if self.is_mixed { Box::new(Some(PluginPeer::Udp(peer))) } else { Box::new(Some(peer)) }
            }
            PeerMakerOf::Tcp(setup) => {
                let peer = setup.prepare(peer, address)?;
                if self.is_mixed { Box::new(Some(PluginPeer::Tcp(peer))) } else { Box::new(Some(peer)) }
            }
            PeerMakerOf::Xdp(setup) => {
                let peer = setup.prepare(peer, address)?;
                if self.is_mixed { Box::new(Some(PluginPeer::Xdp(peer))) } else { Box::new(Some(peer)) }
            }
            PeerMakerOf::Rdma(setup) => {
                let peer = setup.prepare(peer, address)?;
                if self.is_mixed { Box::new(Some(PluginPeer::Rdma(peer))) } else { Box::new(Some(peer)) }
            }
            PeerMakerOf::Dpdk(setup) => {
                let peer = setup.prepare(peer, address)?;
                if self.is_mixed { Box::new(Some(PluginPeer::Dpdk(peer))) } else { Box::new(Some(peer)) }
            }
        })
    }

    /// Nobody, as the link takes it.
    pub(crate) fn nobody(&self) -> Box<dyn Any + Send> {
        match &self.setup {
            _ if self.is_mixed => Box::new(None::<PluginPeer>),
            PeerMakerOf::Udp(_) => Box::new(None::<UdpPeer>),
            PeerMakerOf::Tcp(_) => Box::new(None::<TcpPeer>),
            PeerMakerOf::Xdp(_) => Box::new(None::<XdpPeer>),
            PeerMakerOf::Rdma(_) => Box::new(None::<RdmaPeer>),
            PeerMakerOf::Dpdk(_) => Box::new(None::<DpdkPeer>),
        }
    }
}

/// What comes of opening the links of one datapath.
#[derive(Debug)]
pub(crate) struct OpenLinks {
    pub(crate) links: LinkSet,
    /// By which link each peer is reached: the first that has an address for it.
    pub(crate) of_peer: Vec<Option<usize>>,
    pub(crate) status: Vec<LinkStatus>,
    /// What prepares peers that come later, for each link.
    pub(crate) makers: Vec<PeerMaker>,
    /// How each link is, if it may go and come.
    pub(crate) health: Vec<Option<Health>>,
    /// What looks after those.
    pub(crate) kept: Vec<Kept>,
    /// The first that is missing, and why.
    pub(crate) missing: Option<(String, LinkError)>,
}

impl OpenLinks {
    /// Whether a link is open that frames can go by.
    pub(crate) fn has_any_open(&self) -> bool {
        let is_up = |health: &Option<Health>| {
            health.as_ref().is_none_or(|health| crate::keepers::now(health) == LinkHealth::Up)
        };
        self.health.iter().any(is_up)
    }
}

/// The peers that the links of a datapath reach.
pub(crate) fn peers_of(datapath: &DatapathPlan) -> BTreeSet<PeerIndex> {
    let addresses = datapath.links.iter().flat_map(|link| link.peers.iter().enumerate());
    addresses.filter(|(_, address)| address.is_some()).map(|(at, _)| PeerIndex(at as u16)).collect()
}

/// Opens all links of a datapath. One whose interface is not to be had opens without it, and is
/// looked after.
pub(crate) fn open(datapath: &DatapathPlan, peers: usize, eal: &EalOptions) -> Result<OpenLinks, StartError> {
    let mut links = Vec::new();
    let mut status = Vec::new();
    let mut setups = Vec::new();
    let (mut health, mut kept, mut missing) = (Vec::new(), Vec::new(), None);
    for plan in &datapath.links {
        let Opened { link, address, peers: setup, keeper } = open_link(plan, datapath.idle, eal).map_err(|source| {
            StartError::Link { datapath: datapath.name.clone(), link: plan.name.clone(), source: Box::new(source) }
        })?;
        status.push(link_status(plan, &link, address));
        links.push(link);
        setups.push(setup);
        health.push(keeper.map(|(keeper, why)| {
            let found = why.as_ref().map_or(LinkHealth::Up, |why| LinkHealth::Missing(why.to_string()));
            if let Some(why) = why {
                let (datapath, link) = (&datapath.name, &plan.name);
                tracing::warn!(datapath, link, %why, "a link is missing");
                missing.get_or_insert((plan.name.clone(), why));
            }
            let health = Health::new(found.into());
            let (datapath, link) = (datapath.name.clone(), plan.name.clone());
            kept.push(Kept { datapath, link, keeper, health: Health::clone(&health) });
            health
        }));
    }
    let reaches = |link: &LinkPlan, peer: usize| link.peers.get(peer).copied().flatten().is_some();
    let links_of = |peer| datapath.links.iter().position(|link| reaches(link, peer));
    let of_peer = (0..peers).map(links_of).collect();
    let links = LinkSet::new(links);
    let is_mixed = matches!(links, LinkSet::Mixed(_));
    let makers = setups.into_iter().map(|setup| PeerMaker { setup, is_mixed }).collect();
    Ok(OpenLinks { links, of_peer, status, makers, health, kept, missing })
}

/// What comes of opening one link.
struct Opened {
    link: PluginLink,
    address: SocketAddr,
    peers: PeerMakerOf,
    /// Who looks after it, if it may go and come; and why it is missing, if it is.
    keeper: Option<(Box<dyn LinkKeeper>, Option<LinkError>)>,
}

fn open_link(plan: &LinkPlan, idle: Idle, eal: &EalOptions) -> Result<Opened, LinkError> {
    Ok(match &plan.technology {
        Technology::Udp(udp) => {
            let setup = UdpSetup::bind(udp_config(udp))?;
            let address = setup.local_addr();
            let peers = PeerMakerOf::Udp(setup.peers());
            Opened { link: PluginLink::Udp(setup.open(&plan.peers)?), address, peers, keeper: None }
        }
        Technology::Tcp(tcp) => {
            let setup = TcpSetup::bind(tcp_config(tcp))?;
            let address = setup.local_addr();
            let peers = PeerMakerOf::Tcp(setup.peers());
            Opened { link: PluginLink::Tcp(setup.open(&plan.peers)?), address, peers, keeper: None }
        }
        Technology::Xdp(xdp) => {
            let setup = XdpSetup::bind_or_wait(xdp_config(xdp))?;
            let others = setup.queues_unheard();
            if others > 0 {
                let (link, interface, queue) = (&plan.name, xdp.interface.as_str(), xdp.queue);
                tracing::warn!(link, interface, queue, others, "the link hears one queue, and nothing of the others");
            }
            let address = setup.local_addr();
            let peers = PeerMakerOf::Xdp(setup.peers());
            let missing = setup.missing().cloned().map(LinkError::from);
            let keeper: Option<(Box<dyn LinkKeeper>, _)> = Some((Box::new(setup.keeper()), missing));
            Opened { link: PluginLink::Xdp(setup.open(&plan.peers)?), address, peers, keeper }
        }
        Technology::Rdma(rdma) => {
            let setup = RdmaSetup::bind_or_wait(rdma_config(rdma, idle))?;
            let address = setup.local_addr();
            let peers = PeerMakerOf::Rdma(setup.peers());
            let missing = setup.missing().cloned().map(LinkError::from);
            let keeper: Option<(Box<dyn LinkKeeper>, _)> = Some((Box::new(setup.keeper()), missing));
            Opened { link: PluginLink::Rdma(setup.open(&plan.peers)?), address, peers, keeper }
        }
        Technology::Dpdk(dpdk) => {
            let setup = DpdkSetup::bind_or_miss(dpdk_config(dpdk, eal))?;
            let address = setup.local_addr();
            let peers = PeerMakerOf::Dpdk(setup.peers());
            let missing = setup.missing().cloned().map(LinkError::from);
            let keeper: Option<(Box<dyn LinkKeeper>, _)> = Some((Box::new(setup.keeper()), missing));
            Opened { link: PluginLink::Dpdk(setup.open(&plan.peers)?), address, peers, keeper }
        }
    })
}

fn link_status(plan: &LinkPlan, link: &PluginLink, address: SocketAddr) -> LinkStatus {
    let capabilities = link.capabilities();
    LinkStatus {
        name: plan.name.clone(),
        technology: capabilities.technology.to_owned(),
        address: address.to_string(),
        // What changes is added when it is asked for.
        up: true,
        missing: None,
        counters: Counters::new(),
        frame_bytes_max: capabilities.frame_bytes_max,
        // The overlay knows who hears it.
        group: None,
    }
}

fn udp_config(plan: &UdpPlan) -> UdpConfig {
    UdpConfig {
        bind: plan.bind,
        frame_bytes_max: plan.frame_bytes_max,
        receive_buffer_bytes: Some(plan.receive_buffer_bytes),
        send_buffer_bytes: Some(plan.send_buffer_bytes),
        busy_poll_us: (plan.busy_poll_us > 0).then_some(plan.busy_poll_us),
        real_time_dscp: plan.real_time_dscp,
        launch_lead: (plan.launch_lead > Nanos::ZERO).then_some(plan.launch_lead),
        group: plan.multicast.map(|multicast| UdpGroup { address: multicast.group, ttl: multicast.ttl }),
    }
}

fn tcp_config(plan: &TcpPlan) -> TcpConfig {
    TcpConfig {
        bind: plan.bind,
        frame_bytes_max: plan.frame_bytes_max,
        receive_buffer_bytes: Some(plan.receive_buffer_bytes),
        send_buffer_bytes: Some(plan.send_buffer_bytes),
        busy_poll_us: (plan.busy_poll_us > 0).then_some(plan.busy_poll_us),
        real_time_dscp: plan.real_time_dscp,
        user_timeout_ms: plan.user_timeout_ms,
    }
}

fn xdp_config(plan: &XdpPlan) -> XdpConfig {
    XdpConfig {
        interface: plan.interface.as_str().to_owned(),
        queue: plan.queue,
        queues_max: plan.queues_max,
        mode: match plan.mode {
            XdpMode::Auto => Mode::Auto,
            XdpMode::ZeroCopy => Mode::ZeroCopy,
            XdpMode::Native => Mode::Native,
            XdpMode::Skb => Mode::Skb,
        },
        bind: plan.bind,
        neighbours: match plan.neighbours {
            raw::Neighbours::Own => Neighbours::Own,
            raw::Neighbours::Borrowed => Neighbours::Borrowed,
        },
        vlan: plan.vlan.and_then(VlanId::new),
        prefix_bits: plan.prefix_bits,
        gateway: plan.gateway,
        frame_bytes_max: Some(plan.frame_bytes_max),
        real_time_dscp: plan.real_time_dscp,
    }
}

fn rdma_config(plan: &RdmaPlan, idle: Idle) -> RdmaConfig {
    RdmaConfig {
        bind: plan.bind,
        frame_bytes_max: plan.frame_bytes_max,
        real_time_dscp: plan.real_time_dscp,
        wakes: idle.sleeps(),
    }
}

/// What DPDK takes for itself and its devices beside their frames, bytes: of its memory, not of
/// the process's.
const EAL_BYTES: u64 = 32 << 20;
const EAL_LINK_BYTES: u64 = 4 << 20;

/// How DPDK is started: its threads keep off the datapaths' cores.
pub(crate) fn eal_options(plan: &Plan) -> EalOptions {
    let links = plan.datapaths.iter().flat_map(|datapath| &datapath.links);
    let bytes = links.filter_map(|link| match &link.technology {
        Technology::Dpdk(dpdk) => Some(insane_dpdk::memory_bytes(dpdk.frame_bytes_max, dpdk.bind.is_ipv4())),
        _ => None,
    });
    let bytes = EAL_BYTES + bytes.map(|frames| frames + EAL_LINK_BYTES).sum::<u64>();
    EalOptions {
        shim: plan.eal.shim.clone(),
        arguments: plan.eal.arguments.clone(),
        memory_mib: u32::try_from(bytes >> 20).unwrap_or(u32::MAX),
        keep_off: plan.datapaths.iter().filter_map(|datapath| datapath.core).map(usize::from).collect(),
    }
}

fn dpdk_config(plan: &DpdkPlan, eal: &EalOptions) -> DpdkConfig {
    DpdkConfig {
        eal: eal.clone(),
        device: plan.device.as_str().to_owned(),
        bind: plan.bind,
        mac: plan.mac,
        vlan: plan.vlan.and_then(VlanId::new),
        prefix_bits: plan.prefix_bits,
        gateway: plan.gateway,
        frame_bytes_max: Some(plan.frame_bytes_max),
        real_time_dscp: plan.real_time_dscp,
        poll_each: plan.poll_each,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insane_config::{DeviceName, InterfaceName, LayoutSizes, Plan};

    fn here() -> SocketAddr {
        ([127, 0, 0, 1], 0).into()
    }

    fn set_of(technologies: &[Technology]) -> LinkSet {
        let mut plan = Plan::embedded_default();
        for (at, technology) in technologies.iter().enumerate() {
            let link = LinkPlan { name: at.to_string(), technology: *technology, rate: None, peers: Vec::new() };
            plan.datapaths[0].links.push(link);
        }
        open(&plan.datapaths[0], 0, &eal_options(&plan)).unwrap().links
    }

    #[test]
    fn links_of_one_technology_are_driven_as_what_they_are() {
        let (udp, tcp) = (Technology::Udp(UdpPlan::at(here())), Technology::Tcp(TcpPlan::at(here())));
        assert!(matches!(set_of(&[]), LinkSet::Udp(links) if links.is_empty()));
        assert!(matches!(set_of(&[udp, udp]), LinkSet::Udp(links) if links.len() == 2));
        assert!(matches!(set_of(&[tcp, tcp, tcp]), LinkSet::Tcp(links) if links.len() == 3));
        let LinkSet::Mixed(mixed) = set_of(&[tcp, udp, tcp]) else { panic!("two technologies") };
        let names: Vec<_> = mixed.iter().map(|link| link.capabilities().technology).collect();
        assert_eq!(names, ["tcp", "udp", "tcp"]);
        assert_eq!(mixed.iter().map(|link| link.readable_fds().count()).collect::<Vec<_>>(), [1, 2, 1]);
    }

    /// The defaults and sizes that the configuration has are those of the plugins.
    #[test]
    fn plans_and_plugins_agree() {
        assert_eq!(tcp_config(&TcpPlan::at(here())), TcpConfig::new(here()));
        assert_eq!(udp_config(&UdpPlan::at(here())), UdpConfig::new(here()));
        let xdp = XdpPlan::at(InterfaceName::new("eth0").unwrap(), here());
        let frame_bytes_max = Some(xdp.frame_bytes_max);
        assert_eq!(xdp_config(&xdp), XdpConfig { frame_bytes_max, ..XdpConfig::new("eth0", here()) });
        let plan = Plan::embedded_default();
        let dpdk = DpdkPlan::at(DeviceName::new("net_null0").unwrap(), here());
        let eal = eal_options(&plan);
        let frame_bytes_max = Some(dpdk.frame_bytes_max);
        let defaults = DpdkConfig::new("net_null0", here());
        assert_eq!(eal.arguments, defaults.eal.arguments);
        assert_eq!(dpdk_config(&dpdk, &eal), DpdkConfig { eal: eal.clone(), frame_bytes_max, ..defaults });
        for (frame_bytes_max, is_ipv4) in [(508, true), (2000, true), (8972, true), (8952, false)] {
            let sizes = LayoutSizes::default();
            let planned = sizes.dpdk_frames * sizes.dpdk_frame_bytes(frame_bytes_max, is_ipv4);
            assert_eq!(planned, insane_dpdk::memory_bytes(frame_bytes_max, is_ipv4), "{frame_bytes_max}");
        }
        for (frame_bytes_max, is_ipv4) in [
            (508, true),
            (1746, true),
            (1747, true),
            (1726, false),
            (1727, false),
            (insane_xdp::FRAME_BYTES_LIMIT, true),
        ] {
            let sizes = LayoutSizes::default();
            for queues in 1..=insane_xdp::QUEUES_LIMIT {
                let planned = sizes.xdp_chunks_of(queues) * sizes.xdp_chunk_bytes(frame_bytes_max, is_ipv4);
                let taken = insane_xdp::memory_bytes(frame_bytes_max, is_ipv4, queues);
                assert_eq!(planned, taken, "{frame_bytes_max} bytes, {queues} queues");
            }
        }
        assert_eq!(rdma_config(&RdmaPlan::at(here()), Idle::Block), RdmaConfig::new(here()));
        assert!(!rdma_config(&RdmaPlan::at(here()), Idle::Spin).wakes);
        for frame_bytes_max in [insane_rdma::FRAME_BYTES_LOW, 5_000, 16_384, insane_rdma::FRAME_BYTES_LIMIT] {
            let planned = LayoutSizes::default().rdma_peer_bytes(frame_bytes_max);
            assert_eq!(planned, insane_rdma::peer_bytes(frame_bytes_max) as u64, "{frame_bytes_max}");
        }
        for frame_bytes_max in [insane_tcp::FRAME_BYTES_LOW, 16_384, 40_000, insane_tcp::FRAME_BYTES_LIMIT] {
            let planned = LayoutSizes::default().tcp_connection_bytes(frame_bytes_max);
            assert_eq!(planned, insane_tcp::connection_bytes(frame_bytes_max) as u64);
        }
    }
}
