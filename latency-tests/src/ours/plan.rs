//! Plans of the runtimes that are measured.

use super::daemon::Wanted;
use super::dpdk::Device;
use super::fault;
use crate::cli::Plugin;
use crate::harness::fault::Fault;
use crate::harness::netns::Hosts;
use insane_config::raw::XdpMode;
use insane_config::{
    Idle, InterfaceName, LinkPlan, Machine, Plan, Policy, RatePlan, TcpPlan, Technology, UdpPlan, XdpPlan, parse,
};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

/// Who turns a datapath, and where.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    /// The processor, if the datapath has one to itself or shares a known one.
    pub core: Option<usize>,
    /// What it does when there is nothing to do.
    pub idle: Idle,
    /// How the kernel schedules it.
    pub policy: Policy,
}

impl Seat {
    /// A datapath that sleeps unless something needs it.
    pub const ASLEEP: Seat = Seat { core: None, idle: Idle::Block, policy: Policy::Other };

    /// A datapath that has a processor to itself.
    #[must_use]
    pub fn alone(core: usize) -> Self {
        Seat { core: Some(core), idle: Idle::Spin, policy: Policy::Other }
    }
}

/// For a datapath that never sleeps, which needs no interrupts.
pub const NEVER_SLEEPS: Idle = Idle::Spin;

/// Priority of whoever sends at planned instants, ours and the baselines.
pub const TIMED_PRIORITY: u8 = 50;

impl Seat {
    /// A datapath that shares a core with its application, which yields, too.
    #[must_use]
    pub fn shared(core: usize) -> Self {
        Seat { core: Some(core), idle: Idle::Yield, policy: Policy::Other }
    }

    /// A datapath that sleeps between its slots, before all others on its core.
    #[must_use]
    pub fn timed(core: usize) -> Self {
        Seat { core: Some(core), idle: Idle::Block, policy: Policy::Fifo(TIMED_PRIORITY) }
    }
}

/// Gives the links of a plan a rate, and with it slots.
pub fn rate(plan: &mut Plan, rate: RatePlan) {
    plan.datapaths.iter_mut().flat_map(|datapath| &mut datapath.links).for_each(|link| link.rate = Some(rate));
}

/// A runtime inside this process, without network.
#[must_use]
pub fn local(seat: Seat) -> Plan {
    let mut plan = Plan::embedded_default();
    sit(&mut plan, seat);
    plan
}

/// As [`local`], with room for thousands of streams.
#[must_use]
pub fn roomy(seat: Seat) -> Plan {
    let mut plan = local(seat);
    let quota = &mut plan.domains[0].quota;
    (quota.streams, quota.sources, quota.sinks, quota.connections) = (8_192, 8_192, 8_192, 16_384);
    quota.sessions = 1_024;
    quota.bytes = 1 << 30;
    plan.memory.limit_bytes = 4 << 30;
    plan
}

/// Over an xdp link in one mode, and no other.
fn xdp(mode: XdpMode, bind: SocketAddr) -> Technology {
    xdp_at(Hosts::INTERFACE, mode, bind)
}

/// As [`xdp`], on an interface of that name.
#[must_use]
pub fn xdp_at(interface: &str, mode: XdpMode, bind: SocketAddr) -> Technology {
    let interface = InterfaceName::new(interface).expect("a name that is short enough");
    Technology::Xdp(XdpPlan { mode, ..XdpPlan::at(interface, bind) })
}

/// The link of a plugin, bound there.
fn technology(plugin: Plugin, bind: SocketAddr) -> Technology {
    match plugin {
        Plugin::Udp => Technology::Udp(UdpPlan::at(bind)),
        Plugin::Tcp => Technology::Tcp(TcpPlan::at(bind)),
        Plugin::XdpNative => xdp(XdpMode::Native, bind),
        Plugin::XdpSkb => xdp(XdpMode::Skb, bind),
        Plugin::Dpdk => super::dpdk::technology(Device::PacketSocket, bind),
        Plugin::DpdkAfXdp => super::dpdk::technology(Device::AfXdp, bind),
        Plugin::DpdkMemif => super::dpdk::technology(Device::Memif, bind),
        Plugin::Rdma => super::rdma::technology(bind),
    }
}

/// The same as it stands in a configuration.
fn technology_text(plugin: Plugin, bind: SocketAddr) -> String {
    match technology(plugin, bind) {
        Technology::Xdp(xdp) => {
            let mode = if plugin == Plugin::XdpSkb { "skb" } else { "native" };
            format!(r#"xdp(interface: {:?}, bind: "{bind}", mode: {mode})"#, xdp.interface)
        }
        Technology::Dpdk(dpdk) => format!(r#"dpdk(device: {:?}, bind: "{bind}")"#, dpdk.device),
        plain => format!(r#"{}(bind: "{bind}")"#, plain.name()),
    }
}

/// A runtime that reaches one peer over a plugin: `own` and `peer` are names and
/// addresses.
#[must_use]
pub fn peer(own: (&str, SocketAddr), peer: (&str, SocketAddr), seat: Seat, plugin: Plugin) -> Plan {
    let technology = technology(plugin, own.1);
    let mut plan = Plan::embedded_over(own.0, technology);
    plan.add_peer(peer.0, &[(technology.name(), peer.1)]);
    sit(&mut plan, seat);
    plan.eal.arguments = super::dpdk::arguments();
    plan
}

/// One link of a plan that has several: its name, its technology here, and where the peer is.
pub type Link<'a> = (&'a str, Technology, SocketAddr);

/// A runtime that reaches one peer by several links of one datapath, the preferred one first.
#[must_use]
pub fn peer_by(own: &str, peer: &str, links: &[Link<'_>], seat: Seat) -> Plan {
    let mut plan = Plan::embedded_over(own, links[0].1);
    let ours = &mut plan.datapaths[0].links;
    ours.clear();
    ours.extend(links.iter().map(|(name, technology, _)| LinkPlan {
        name: (*name).into(),
        technology: *technology,
        rate: None,
        peers: Vec::new(),
    }));
    let addresses: Vec<_> = links.iter().map(|(name, _, address)| (*name, *address)).collect();
    plan.add_peer(peer, &addresses);
    sit(&mut plan, seat);
    plan.eal.arguments = super::dpdk::arguments();
    plan
}

/// Makes room for frames of at least `bytes` on the tcp links of a plan.
pub fn widen_tcp_frames(plan: &mut Plan, bytes: u32) {
    for link in plan.datapaths.iter_mut().flat_map(|datapath| &mut datapath.links) {
        if let Technology::Tcp(tcp) = &mut link.technology {
            tcp.frame_bytes_max = tcp.frame_bytes_max.max(bytes);
        }
    }
}

/// Gives the rdma links of a plan frames of `bytes`.
pub fn set_rdma_frames(plan: &mut Plan, bytes: u32) {
    for link in plan.datapaths.iter_mut().flat_map(|datapath| &mut datapath.links) {
        if let Technology::Rdma(rdma) = &mut link.technology {
            rdma.frame_bytes_max = bytes;
        }
    }
}

fn sit(plan: &mut Plan, seat: Seat) {
    plan.datapaths[0].core = seat.core.and_then(|core| u16::try_from(core).ok());
    plan.datapaths[0].idle = seat.idle;
    plan.datapaths[0].policy = seat.policy;
}

/// The daemon's configuration file: one link, open whether or not a peer is there.
#[must_use]
pub fn daemon_file(wanted: &Wanted<'_>, socket: &Path) -> String {
    let Wanted { name, bind, plugin, peer, seat, rate, .. } = *wanted;
    let core = seat.core.map_or(String::new(), |core| format!("core: {core}, "));
    let idle = match seat.idle {
        Idle::Spin => "spin".to_owned(),
        Idle::Yield => "yield".to_owned(),
        Idle::Block => "block".to_owned(),
        Idle::SpinThenBlock { spin } => format!("spin_then_block(us: {})", spin.0 / 1_000),
    };
    let policy = match seat.policy {
        Policy::Other => "other".to_owned(),
        Policy::Fifo(priority) => format!("fifo({priority})"),
    };
    let rate = rate.map_or(String::new(), |rate| {
        let (mbps, turn_us, foreign) = (rate.mbps, rate.turn.0 / 1_000, rate.foreign_bytes);
        format!(", rate_mbps: {mbps}, turn_us: {turn_us}, foreign_bytes: {foreign}")
    });
    let peers =
        peer.map_or(String::new(), |(peer, address)| format!(r#"(name: "{peer}", links: {{"link": "{address}"}})"#));
    let technology = technology_text(plugin, bind);
    let eal = match plugin {
        Plugin::Dpdk | Plugin::DpdkAfXdp | Plugin::DpdkMemif => {
            format!("eal: (arguments: {:?}),", super::dpdk::arguments())
        }
        _ => String::new(),
    };
    format!(
        r#"(
    host: (name: "{name}"),
    control: (socket: "{}", mode: 0o600),
    datapaths: [(name: "main", {core}policy: {policy}, idle: {idle}, links: ["link"])],
    links: [(name: "link", technology: {technology}{rate})],
    peers: [{peers}],
    {eal}
    domains: [(name: "default", members: [any])],
    log: (level: warn),
)
"#,
        socket.display()
    )
}

/// Reads a daemon's configuration.
///
/// # Errors
/// It is wrong, with the places.
pub fn read(path: &Path) -> Result<Plan, Fault> {
    let text = std::fs::read_to_string(path).map_err(Fault::os("read a configuration"))?;
    let loaded = parse(&path.display().to_string(), &text, &Machine::detect()).map_err(fault("configuration"))?;
    Ok(loaded.plan)
}

/// A free pair of ports at an address, for udp and tcp (a link uses its port and the
/// next).
///
/// # Errors
/// None is free.
pub fn free_ports(address: IpAddr) -> Result<SocketAddr, Fault> {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes start at different places, so that two runs seldom meet.
    let start = 20_000 + (std::process::id() % 15_000) as u16;
    for _ in 0..1_000 {
        let port = start + 2 * (NEXT.fetch_add(1, Ordering::Relaxed) % 5_000);
        let free = |port: u16| UdpSocket::bind((address, port)).is_ok() && TcpListener::bind((address, port)).is_ok();
        if free(port) && free(port + 1) {
            return Ok(SocketAddr::new(address, port));
        }
    }
    Err(Fault::Unavailable(format!("no two ports in a row are free at {address}")))
}
