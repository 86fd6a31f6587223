//! What the configuration asks of the host; without one, what the defaults would ask.

use super::cores::Cores;
use super::host::{Host, Nic};
use insane_config::{DomainPlan, GossipPlan, HugePages, Idle, LinkPlan, Plan, Policy, Quota, Technology, raw};
use std::net::IpAddr;

/// What is asked of the host.
pub struct Wanted {
    /// Whether a configuration asks; otherwise nothing is known of the datapaths.
    pub is_given: bool,
    /// Threads that move messages.
    pub datapaths: Vec<Datapath>,
    /// Memory that is to be locked, bytes; `None`: none.
    pub locked_bytes: Option<u64>,
    /// What everything together may take, bytes.
    pub memory_bytes: u64,
    /// Whether heaps are to be of huge pages.
    pub huge_pages: HugePages,
    /// Descriptors that the runtime holds when every quota is used up.
    pub descriptors: u64,
    /// How others are to be found.
    pub gossip: Option<GossipPlan>,
    /// Streams that are declared as time-sensitive.
    pub timed: Vec<String>,
}

/// One datapath.
pub struct Datapath {
    /// Its name.
    pub name: String,
    /// Where it is pinned.
    pub core: Option<u16>,
    /// Its priority under SCHED_FIFO.
    pub fifo: Option<u8>,
    /// Whether it looks again at once, for ever.
    pub spins: bool,
    /// Whether it carries real-time lanes.
    pub is_real_time: bool,
    /// Whether every link polls its card in the datapath's own calls.
    pub polls_its_cards: bool,
    /// Own addresses of its links that are the kernel's.
    pub addresses: Vec<IpAddr>,
    /// Interfaces that its links name.
    pub interfaces: Vec<String>,
    /// Names of its links that load a program into the kernel (AF_XDP): they need CAP_NET_ADMIN,
    /// CAP_NET_RAW and CAP_BPF, and do not open without.
    pub loads: Vec<String>,
    /// Its links that hear some queues of an interface each.
    pub hears: Vec<Hears>,
    /// Names of its links over packet sockets: they need CAP_NET_RAW, and do not open without.
    pub raw: Vec<String>,
}

/// A link over AF_XDP.
pub struct Hears {
    /// Its name.
    pub link: String,
    /// Its interface.
    pub interface: String,
    /// The queue that it hears in any case.
    pub queue: u32,
    /// Of how many queues it hears all.
    pub queues_max: u32,
    /// Its first port; it has the next one, too.
    pub port: u16,
}

impl Wanted {
    /// Nothing in particular: the defaults of a configuration.
    pub fn nothing() -> Wanted {
        Wanted {
            is_given: false,
            datapaths: Vec::new(),
            locked_bytes: None,
            memory_bytes: Plan::embedded_default().memory.limit_bytes,
            huge_pages: HugePages::Never,
            descriptors: descriptors(std::iter::once(&Quota::default())),
            gossip: None,
            timed: Vec::new(),
        }
    }

    /// What a plan asks.
    pub fn of(plan: &Plan) -> Wanted {
        Wanted {
            is_given: true,
            datapaths: plan.datapaths.iter().map(datapath).collect(),
            locked_bytes: plan.memory.lock.then_some(plan.memory.limit_bytes),
            memory_bytes: plan.memory.limit_bytes,
            huge_pages: plan.memory.huge_pages,
            descriptors: descriptors(plan.domains.iter().map(|domain: &DomainPlan| &domain.quota)),
            gossip: plan.discovery.clone(),
            timed: timed(plan),
        }
    }

    /// Cores that datapaths are pinned to.
    pub fn pinned(&self) -> Cores {
        self.datapaths.iter().filter_map(|datapath| datapath.core).collect()
    }

    /// Cores that should be quiet: those of datapaths that spin or carry real-time lanes, or
    /// the isolated ones.
    pub fn quiet(&self, host: &Host) -> Cores {
        if !self.is_given {
            return host.isolated.clone().unwrap_or_default();
        }
        let matter = self.datapaths.iter().filter(|datapath| datapath.spins || datapath.is_real_time);
        matter.filter_map(|datapath| datapath.core).collect()
    }

    /// The highest priority under SCHED_FIFO.
    pub fn fifo_max(&self) -> Option<u8> {
        self.datapaths.iter().filter_map(|datapath| datapath.fifo).max()
    }

    /// Datapaths that spin.
    pub fn spinning(&self) -> impl Iterator<Item = &Datapath> {
        self.datapaths.iter().filter(|datapath| datapath.spins)
    }

    /// Datapaths that spin under SCHED_FIFO: they leave their core to nobody.
    pub fn hogs(&self) -> impl Iterator<Item = &Datapath> {
        self.spinning().filter(|datapath| datapath.fifo.is_some())
    }

    /// Links that need a program in the kernel.
    pub fn loading(&self) -> impl Iterator<Item = &String> {
        self.datapaths.iter().flat_map(|datapath| &datapath.loads)
    }

    /// The link that hears queues of this interface by itself, if one does.
    pub fn hears(&self, interface: &str) -> Option<&Hears> {
        self.datapaths.iter().flat_map(|datapath| &datapath.hears).find(|hears| hears.interface == interface)
    }

    /// Links that need raw sockets: those, and the ones over packet sockets.
    pub fn raw(&self) -> impl Iterator<Item = &String> {
        self.loading().chain(self.datapaths.iter().flat_map(|datapath| &datapath.raw))
    }

    /// Interfaces of the configuration; where it does not tell, the physical ones.
    pub fn nics<'h>(&self, host: &'h Host) -> Vec<&'h Nic> {
        let all = host.nics.as_deref().unwrap_or_default();
        let mut addresses = self.datapaths.iter().flat_map(|datapath| &datapath.addresses);
        if self.is_given && addresses.all(IpAddr::is_loopback) {
            return Vec::new();
        }
        let own: Vec<&Nic> = all.iter().filter(|nic| self.datapaths.iter().any(|path| path.uses(nic, host))).collect();
        // The address may not be there yet.
        if own.is_empty() { all.iter().filter(|nic| nic.is_physical).collect() } else { own }
    }
}

impl Datapath {
    /// Whether a link of it goes through the interface. Where addresses are not known,
    /// every physical one may be it.
    pub fn uses(&self, nic: &Nic, host: &Host) -> bool {
        let is_named = self.interfaces.contains(&nic.name);
        is_named
            || self.addresses.iter().any(|address| {
                if address.is_loopback() {
                    return false;
                }
                match &host.calls.addresses {
                    Ok(known) if !address.is_unspecified() => {
                        known.iter().any(|(name, ip)| *name == nic.name && ip == address)
                    }
                    _ => nic.is_physical,
                }
            })
    }
}

fn datapath(plan: &insane_config::DatapathPlan) -> Datapath {
    let polls = |technology: &Technology| match technology {
        Technology::Udp(udp) => udp.busy_poll_us > 0,
        Technology::Tcp(tcp) => tcp.busy_poll_us > 0,
        Technology::Xdp(_) | Technology::Rdma(_) => false,
        // Of those that the kernel does not drive; the others' cards are the kernel's to poll.
        Technology::Dpdk(dpdk) => dpdk.device.interface().is_none(),
    };
    // The address of an xdp or dpdk link is its own, as a rule; its interface, if any, is known by
    // name.
    let has_own_address = |link: &&LinkPlan| match &link.technology {
        Technology::Xdp(xdp) => xdp.neighbours == raw::Neighbours::Own,
        Technology::Dpdk(_) => true,
        Technology::Udp(_) | Technology::Tcp(_) | Technology::Rdma(_) => false,
    };
    let interface = |link: &LinkPlan| match &link.technology {
        Technology::Xdp(xdp) => Some(xdp.interface.as_str().to_owned()),
        Technology::Dpdk(dpdk) => dpdk.device.interface().map(str::to_owned),
        Technology::Udp(_) | Technology::Tcp(_) | Technology::Rdma(_) => None,
    };
    let address = |link: &LinkPlan| link.technology.bind().ip();
    let loads = |link: &&LinkPlan| match &link.technology {
        Technology::Xdp(_) => true,
        Technology::Dpdk(dpdk) => dpdk.device.is_af_xdp(),
        _ => false,
    };
    let is_raw = |link: &&LinkPlan| matches!(&link.technology, Technology::Dpdk(dpdk) if dpdk.device.is_af_packet());
    let name = |link: &LinkPlan| link.name.clone();
    Datapath {
        name: plan.name.clone(),
        core: plan.core,
        fifo: match plan.policy {
            Policy::Other => None,
            Policy::Fifo(priority) => Some(priority),
        },
        spins: plan.idle == Idle::Spin,
        is_real_time: plan.serves != insane_config::Serves::BestEffort,
        polls_its_cards: !plan.links.is_empty() && plan.links.iter().all(|link| polls(&link.technology)),
        addresses: plan.links.iter().filter(|link| !has_own_address(link)).map(address).collect(),
        interfaces: plan.links.iter().filter_map(interface).collect(),
        loads: plan.links.iter().filter(loads).map(name).collect(),
        hears: plan.links.iter().filter_map(hears).collect(),
        raw: plan.links.iter().filter(is_raw).map(name).collect(),
    }
}

fn hears(link: &LinkPlan) -> Option<Hears> {
    let Technology::Xdp(xdp) = &link.technology else { return None };
    let interface = xdp.interface.as_str().to_owned();
    let (queue, queues_max, port) = (xdp.queue, xdp.queues_max, xdp.bind.port());
    Some(Hears { link: link.name.clone(), interface, queue, queues_max, port })
}

/// Streams that are declared as time-sensitive, with their domains.
fn timed(plan: &Plan) -> Vec<String> {
    let of_domain = |domain: &DomainPlan| {
        let is_timed = |stream: &&insane_config::StreamPlan| {
            matches!(stream.determinism, Some(insane_core::Determinism::TimeSensitive { .. }))
        };
        let name = |stream: &insane_config::StreamPlan| format!("{}/{}", domain.name, stream.name);
        domain.streams.iter().filter(is_timed).map(name).collect::<Vec<_>>()
    };
    plan.domains.iter().flat_map(of_domain).collect()
}

/// A session has its socket, a descriptor of its process, a doorbell and a counters page; a
/// connection two regions; a source its heap; a sink its wake page and its wake socket. The
/// runtime itself needs some dozens.
fn descriptors<'q>(quotas: impl Iterator<Item = &'q Quota>) -> u64 {
    const OWN: u64 = 64;
    let each = |quota: &Quota| {
        let [sessions, connections] = [quota.sessions, quota.connections].map(u64::from);
        let [sources, sinks] = [quota.sources, quota.sinks].map(u64::from);
        4 * sessions + 2 * connections + sources + 2 * sinks
    };
    OWN + quotas.map(each).sum::<u64>()
}
