//! The memory planner: what a plan will need at most, before anything is allocated.
//!
//! Every item is a commented product of a count and a size. What the sessions of a tenant
//! make the runtime allocate is bounded by `quota.bytes`, whatever they ask for; the
//! table splits that sum into what its pages and rings take when every other quota is
//! used up, and the rest, which is left for source heaps. So the total is an upper
//! bound, and the parts add up to it exactly.

mod table;

pub use table::{human, render};

use crate::diagnostic::Severity;
use crate::fields::grouped;
use crate::machine::Machine;
use crate::plan::{DomainPlan, DpdkPlan, LinkPlan, Plan, RdmaPlan, TcpPlan, Technology, UdpPlan, XdpPlan};
use insane_core::Nanos;
use insane_core::heap::Geometry;
use serde::Serialize;

/// Sizes of the structures that the plan is computed with. The crates that own the
/// structures assert that these are theirs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct LayoutSizes {
    /// A page of memory; regions are whole pages.
    pub page_bytes: u64,
    /// One message in a ring.
    pub cell_bytes: u64,
    /// One completion in the returns region.
    pub completion_bytes: u64,
    /// One block of counters: of a source or sink, or of a datapath for a domain.
    pub counter_block_bytes: u64,
    /// Blocks in the counters page of a session: the sources and sinks it may have.
    pub session_counter_blocks: u64,
    /// The wake page of a sink.
    pub wake_page_bytes: u64,
    /// Messages that a ring holds, unless its sink asks for another depth.
    pub ring_depth: u64,
    /// Places of the completion ring of an ordinary source's heap.
    pub ring_returns: u64,
    /// Books of one buffer of a heap that the runtime itself writes: its state and its
    /// place in the free list.
    pub buffer_book_bytes: u64,
    /// Tables of one datapath that are as large whatever the configuration says: its sources, sinks
    /// and routes, the lanes, reliable flows, slots. Measured, and held by `daemon/tests/memory.rs`.
    pub tables_bytes: u64,
    /// Flows of one datapath: sources of other hosts, over all streams.
    pub flows: u64,
    /// One flow, its places in the index included.
    pub flow_bytes: u64,
    /// Messages that one datapath reassembles at a time.
    pub reassemblies: u64,
    /// Bytes of payload for which one bit says whether they have arrived.
    pub fragment_unit_bytes: u64,
    /// Messages that one datapath keeps while their streams move from link to link.
    pub held: u64,
    /// One of them.
    pub held_bytes: u64,
    /// Commands that wait for one datapath, and their answers.
    pub commands: u64,
    /// One command.
    pub command_bytes: u64,
    /// The record of a trace, as long as a tool takes one of a datapath: one at a time.
    pub trace_bytes: u64,
    /// Datagrams that one socket takes in one call.
    pub link_batch: u64,
    /// Sockets of one `udp` link.
    pub udp_sockets: u64,
    /// Connections of one `tcp` link to one peer.
    pub tcp_connections: u64,
    /// Length in front of a frame on a `tcp` connection.
    pub tcp_prefix_bytes: u64,
    /// Least room for what comes on one `tcp` connection; at least two frames it is.
    pub tcp_input_bytes: u64,
    /// Room for gathered frames of one `tcp` connection, beside one frame.
    pub tcp_gather_bytes: u64,
    /// What each of them holds besides single frames, bytes.
    pub udp_train_bytes: u64,
    /// Frames that a `dpdk` link has memory for.
    pub dpdk_frames: u64,
    /// What stands around the data of each: DPDK's own structures and room.
    pub dpdk_frame_extra_bytes: u64,
    /// Pieces of memory that an `xdp` link shares with the kernel, of one queue.
    pub xdp_chunks: u64,
    /// Those of each queue that it hears besides.
    pub xdp_queue_chunks: u64,
    /// What such a piece holds besides header and payload of a frame over IPv4: what the kernel
    /// keeps free, and headers. Over IPv6 20 bytes more.
    pub xdp_front_bytes: u64,
    /// Buffers of an `rdma` link for one peer: those of two connections that receive, and those
    /// that they send from.
    pub rdma_buffers: u64,
    /// What such a buffer holds besides a frame, and the least that it holds, bytes.
    pub rdma_front_bytes: u64,
    /// See above.
    pub rdma_buffer_bytes_min: u64,
    /// What a peer of such a link takes besides, bytes.
    pub rdma_grant_bytes: u64,
    /// Stack of one thread.
    pub stack_bytes: u64,
    /// Threads beside the datapaths: control, waker.
    pub threads: u64,
    /// Code, static data and what of the control plane is there without sessions.
    pub process_bytes: u64,
    /// Rows of the control plane for a session, and for a stream, a source, a sink each: together
    /// a third more than `daemon/tests/memory.rs` measures.
    pub session_row_bytes: u64,
    /// See above.
    pub port_row_bytes: u64,
}

impl Default for LayoutSizes {
    fn default() -> Self {
        LayoutSizes {
            page_bytes: 4096,
            cell_bytes: 128,
            completion_bytes: 8,
            counter_block_bytes: 256,
            session_counter_blocks: 256,
            wake_page_bytes: 4096,
            ring_depth: 256,
            ring_returns: 256,
            buffer_book_bytes: 8,
            // 15.1 MB, with slots 16.
            tables_bytes: 17 << 20,
            flows: 4096,
            flow_bytes: 144,
            reassemblies: 64,
            fragment_unit_bytes: 64,
            held: 1024,
            held_bytes: 192,
            commands: 1024,
            command_bytes: 64,
            trace_bytes: 4096 + 32_768 * 64,
            link_batch: 64,
            udp_sockets: 2,
            tcp_connections: 2,
            tcp_prefix_bytes: 4,
            tcp_input_bytes: 64 * 1024,
            tcp_gather_bytes: 16 * 1024,
            // One that waits for the flush (a chunk), one that the kernel joined.
            udp_train_bytes: (16 << 10) + (64 << 10),
            // Both rings of the device; what waits of both classes, in and out; what the port
            // has at hand.
            dpdk_frames: 2 * 1024 + 512 + 1024 + 2 * 64 + 3 * 64,
            dpdk_frame_extra_bytes: 128 + 128 + 64 + 128,
            // Rings of 1,024 frames: both receive rings and two more, both transmit rings; of a
            // further queue both receive rings and one more.
            xdp_chunks: 6 * 1024,
            xdp_queue_chunks: 3 * 1024,
            xdp_front_bytes: 256 + 14 + 4 + 20 + 8,
            // Of each connection a window of 16 and two; as many on either side.
            rdma_buffers: 2 * 2 * (16 + 2),
            rdma_front_bytes: 4 + 4,
            rdma_buffer_bytes_min: 4096,
            rdma_grant_bytes: 2 * 4 * 64,
            stack_bytes: 2 << 20,
            threads: 2,
            process_bytes: 16 << 20,
            session_row_bytes: 4 << 10,
            // A stream with a source and a sink takes 5.9 KB.
            port_row_bytes: 8 << 10,
        }
    }
}

impl LayoutSizes {
    /// Both regions of one connection at the usual depth: a header cell and the messages;
    /// a header cell and the completions.
    #[must_use]
    pub const fn ring_bytes(&self) -> u64 {
        let cells = (self.ring_depth + 1) * self.cell_bytes;
        let returns = self.cell_bytes + self.ring_returns * self.completion_bytes;
        cells.next_multiple_of(self.page_bytes) + returns.next_multiple_of(self.page_bytes)
    }

    /// What one connection of a `tcp` link takes in this process.
    #[must_use]
    pub const fn tcp_connection_bytes(&self, frame_bytes_max: u32) -> u64 {
        let frame = self.tcp_prefix_bytes + frame_bytes_max as u64;
        let input = if 2 * frame > self.tcp_input_bytes { 2 * frame } else { self.tcp_input_bytes };
        input + self.tcp_gather_bytes + frame
    }

    /// One frame of the memory of a `dpdk` link.
    #[must_use]
    pub const fn dpdk_frame_bytes(&self, frame_bytes_max: u32, is_ipv4: bool) -> u64 {
        // Ethernet's header with two tags, IP and UDP; in lines of 64 bytes.
        let front = 22 + 8 + if is_ipv4 { 20 } else { 40 };
        let data = (front + frame_bytes_max as u64).next_multiple_of(64);
        (if data > 2048 { data } else { 2048 }) + self.dpdk_frame_extra_bytes
    }

    /// Pieces of the memory of an `xdp` link that hears so many queues, one at least.
    #[must_use]
    pub const fn xdp_chunks_of(&self, queues: u32) -> u64 {
        self.xdp_chunks + (queues as u64).saturating_sub(1) * self.xdp_queue_chunks
    }

    /// One piece of the memory of an `xdp` link.
    #[must_use]
    pub const fn xdp_chunk_bytes(&self, frame_bytes_max: u32, is_ipv4: bool) -> u64 {
        let front = self.xdp_front_bytes + if is_ipv4 { 0 } else { 20 };
        if front + frame_bytes_max as u64 <= 2048 { 2048 } else { 4096 }
    }

    /// What one peer of an `rdma` link takes, all of it locked.
    #[must_use]
    pub const fn rdma_peer_bytes(&self, frame_bytes_max: u32) -> u64 {
        let frame = self.rdma_front_bytes + frame_bytes_max as u64;
        let buffer = if frame < self.rdma_buffer_bytes_min { self.rdma_buffer_bytes_min } else { frame };
        self.rdma_buffers * buffer.next_multiple_of(64) + self.rdma_grant_bytes
    }

    /// The counters page of one session.
    #[must_use]
    pub const fn session_counters_bytes(&self) -> u64 {
        (self.session_counter_blocks * self.counter_block_bytes).next_multiple_of(self.page_bytes)
    }
}

/// What kind of memory it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A memfd that applications map too.
    Shared,
    /// The runtime's own.
    Private,
    /// The kernel's, for sockets; never locked.
    Kernel,
}

/// One thing that takes memory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Item {
    /// What it is.
    pub name: String,
    /// Which kind of memory.
    pub kind: Kind,
    /// How many.
    pub count: u64,
    /// Bytes of one; where they differ, of all (and `count` is 1).
    pub each_bytes: u64,
    /// Bytes of all.
    pub bytes: u64,
    /// The field whose lowering makes it smaller, if one does.
    pub lower: Option<String>,
}

impl Item {
    fn new(name: impl Into<String>, kind: Kind, count: u64, each_bytes: u64) -> Item {
        Item { name: name.into(), kind, count, each_bytes, bytes: count.saturating_mul(each_bytes), lower: None }
    }

    fn lowered_by(mut self, path: String) -> Item {
        self.lower = Some(path);
        self
    }
}

/// What belongs together in the table: the runtime itself, a datapath, a tenant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Group {
    /// Whose memory it is.
    pub name: String,
    /// Whether it is a tenant.
    pub tenant: bool,
    /// Bytes of all items.
    pub bytes: u64,
    /// What takes them.
    pub items: Vec<Item>,
}

/// Where every byte goes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Budget {
    /// Name of the host.
    pub host: String,
    /// `memory.limit_bytes`.
    pub limit_bytes: u64,
    /// Bytes of all groups.
    pub total_bytes: u64,
    /// Those of them that would be locked.
    pub lockable_bytes: u64,
    /// The runtime, its datapaths, its tenants.
    pub groups: Vec<Group>,
}

/// Something about the budget that refuses the start, or that should be known.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{path}: {message}; accepted: {accepted}")]
pub struct Objection {
    /// How bad it is.
    pub severity: Severity,
    /// The field that is in the way.
    pub path: String,
    /// What does not fit, and the biggest item.
    pub message: String,
    /// What would fit.
    pub accepted: String,
}

impl Budget {
    /// Computes what the plan needs at most.
    #[must_use]
    pub fn of(plan: &Plan, sizes: &LayoutSizes) -> Budget {
        let mut groups = vec![runtime(plan, sizes)];
        groups.extend((0..plan.datapaths.len()).map(|at| datapath(plan, at, sizes)));
        groups.extend(plan.domains.iter().enumerate().map(|(at, domain)| tenant(plan, domain, at, sizes)));
        let items = || groups.iter().flat_map(|group| &group.items);
        let sum = |bytes: &mut dyn Iterator<Item = u64>| bytes.fold(0, u64::saturating_add);
        Budget {
            host: plan.host.name.clone(),
            limit_bytes: plan.memory.limit_bytes,
            total_bytes: sum(&mut items().map(|item| item.bytes)),
            lockable_bytes: sum(&mut items().filter(|item| item.kind != Kind::Kernel).map(|item| item.bytes)),
            groups,
        }
    }

    /// What is left below the limit; 0 if nothing is.
    #[must_use]
    pub const fn spare_bytes(&self) -> u64 {
        self.limit_bytes.saturating_sub(self.total_bytes)
    }

    /// The biggest item that some field can make smaller, and whose it is.
    #[must_use]
    pub fn biggest(&self) -> Option<(&Group, &Item)> {
        let items = self.groups.iter().flat_map(|group| group.items.iter().map(move |item| (group, item)));
        items.filter(|(_, item)| item.lower.is_some()).max_by_key(|(_, item)| item.bytes)
    }

    /// What does not fit: the limit is an error; so is more than the machine has where
    /// all is to be locked. Without a lock the kernel may still manage, and without the
    /// right to lock the runtime runs unlocked and says so: those are warnings.
    #[must_use]
    pub fn objections(&self, plan: &Plan, machine: &Machine) -> Vec<Objection> {
        let mut objections = Vec::new();
        if self.total_bytes > self.limit_bytes {
            let bound = format!("memory.limit_bytes allows {}", exact(self.limit_bytes));
            let least = format!("at least {}", grouped(self.total_bytes as i64));
            objections.push(self.objection(Severity::Error, "memory.limit_bytes", self.total_bytes, &bound, &least));
        }
        if let Some(free) = machine.available_bytes.filter(|free| self.total_bytes > *free) {
            let severity = if plan.memory.lock { Severity::Error } else { Severity::Warning };
            let path = if plan.memory.lock { "memory.lock" } else { "memory.limit_bytes" };
            let bound = format!("this machine has {} available", exact(free));
            objections.push(self.objection(severity, path, self.total_bytes, &bound, "a machine with more memory"));
        }
        if let Some(most) = machine.lockable_bytes.filter(|most| plan.memory.lock && self.lockable_bytes > *most) {
            let bound = format!(
                "this user may lock {} (RLIMIT_MEMLOCK): the runtime would run unlocked and say so",
                exact(most)
            );
            let other = "`lock: false`, a higher RLIMIT_MEMLOCK or CAP_IPC_LOCK";
            objections.push(self.objection(Severity::Warning, "memory.lock", self.lockable_bytes, &bound, other));
        }
        objections.extend(self.cramped(plan));
        objections
    }

    fn objection(&self, severity: Severity, path: &str, need: u64, bound: &str, other: &str) -> Objection {
        let (biggest, lower) = self.biggest().map_or_else(Default::default, |(group, item)| {
            let name = format!("; the biggest item is \"{}\" of {} with {}", item.name, group.name, human(item.bytes));
            (name, item.lower.as_deref().map(|path| format!(", or a smaller {path}")).unwrap_or_default())
        });
        let message = format!("the runtime needs up to {}, and {bound}{biggest}", exact(need));
        Objection { severity, path: path.into(), message, accepted: format!("{other}{lower}") }
    }

    /// Tenants whose quota of bytes is used up before the others are.
    fn cramped(&self, plan: &Plan) -> Vec<Objection> {
        let tenants = self.groups.iter().filter(|group| group.tenant).zip(plan.domains.iter().enumerate());
        let cramped = tenants.filter(|(group, _)| !group.items.iter().any(|item| item.name == SOURCE_HEAPS));
        cramped
            .map(|(group, (at, domain))| Objection {
                severity: Severity::Warning,
                path: format!("domains[{at}].quota.bytes"),
                message: format!(
                    "{} is used up by pages and rings before the quotas of sessions, sinks and connections of {} are, \
                     and leaves nothing for source heaps",
                    exact(domain.quota.bytes),
                    group.name
                ),
                accepted: "more bytes, or fewer connections".into(),
            })
            .collect()
    }
}

const SOURCE_HEAPS: &str = "source heaps";

fn group(name: String, tenant: bool, items: Vec<Item>) -> Group {
    let bytes = items.iter().fold(0, |sum: u64, item| sum.saturating_add(item.bytes));
    Group { name, tenant, bytes, items }
}

fn runtime(plan: &Plan, sizes: &LayoutSizes) -> Group {
    let threads = sizes.threads + plan.datapaths.len() as u64;
    let items = vec![
        Item::new("process: code, control plane", Kind::Private, 1, sizes.process_bytes),
        Item::new("thread stacks", Kind::Private, threads, sizes.stack_bytes),
    ];
    group("the runtime".into(), false, items)
}

fn datapath(plan: &Plan, at: usize, sizes: &LayoutSizes) -> Group {
    let datapath = &plan.datapaths[at];
    // A message in the making has one bit a unit of the largest buffer that any domain has.
    let largest = plan.domains.iter().flat_map(|domain| &domain.receive).map(|class| u64::from(class.size)).max();
    let bitmap = largest.unwrap_or(0).div_ceil(sizes.fragment_unit_bytes).div_ceil(64) * 8;
    let counters = (plan.domains.len() as u64 + 1) * sizes.counter_block_bytes;
    let mut items = vec![
        Item::new("sources, sinks, routes, lanes: fixed tables", Kind::Private, 1, sizes.tables_bytes),
        Item::new("flow table", Kind::Private, sizes.flows, sizes.flow_bytes),
        Item::new("reassembly bitmaps", Kind::Private, sizes.reassemblies, bitmap),
        Item::new("messages kept while streams move", Kind::Private, sizes.held, sizes.held_bytes),
        Item::new("command queues, there and back", Kind::Private, 2 * sizes.commands, sizes.command_bytes),
        Item::new("counters page", Kind::Shared, 1, counters.next_multiple_of(sizes.page_bytes)),
        Item::new("record of a trace, while one is taken", Kind::Shared, 1, sizes.trace_bytes),
    ];
    for link in &datapath.links {
        items.extend(match &link.technology {
            Technology::Udp(udp) => udp_link(link, udp, sizes),
            Technology::Tcp(tcp) => tcp_link(link, peers_by(plan, link), tcp, sizes).into(),
            Technology::Xdp(xdp) => vec![xdp_link(link, xdp, sizes)],
            Technology::Rdma(rdma) => vec![rdma_link(link, peers_by(plan, link), rdma, sizes)],
            Technology::Dpdk(dpdk) => vec![dpdk_link(link, dpdk, sizes)],
        });
    }
    group(format!("datapath \"{}\"", datapath.name), false, items)
}

fn udp_link(link: &LinkPlan, udp: &UdpPlan, sizes: &LayoutSizes) -> Vec<Item> {
    let name = &link.name;
    // A group has as many sockets as the link itself.
    let sockets_all = sizes.udp_sockets * if udp.multicast.is_some() { 2 } else { 1 };
    let frames = sockets_all * sizes.link_batch;
    let batch =
        Item::new(format!("link \"{name}\": receive batches"), Kind::Private, frames, udp.frame_bytes_max.into());
    let sockets = Item::new(
        format!("link \"{name}\": socket buffers"),
        Kind::Kernel,
        sockets_all,
        socket_buffers(udp.send_buffer_bytes, udp.receive_buffer_bytes),
    );
    let trains =
        Item::new(format!("link \"{name}\": trains, out and in"), Kind::Private, sockets_all, sizes.udp_train_bytes);
    let mut items = vec![trains];
    if udp.launch_lead > Nanos::ZERO {
        let bytes = socket_buffers(udp.send_buffer_bytes, 0);
        items.push(Item::new(format!("link \"{name}\": socket of launch times"), Kind::Kernel, 1, bytes));
    }
    items.extend(lowered_by_frames_and_buffers(link, batch, sockets));
    items
}

/// The peers that a link may have at most: those of the file, and those that discovery may find.
fn peers_by(plan: &Plan, link: &LinkPlan) -> u64 {
    let found = plan.discovery.as_ref().map_or(0, |gossip| gossip.peers_max);
    (link.peers.iter().flatten().count() + found).min(insane_core::limits::PEERS_MAX) as u64
}

/// Two connections to each peer. What the kernel holds for connections that are not known
/// yet, a few dozen at most, is not counted.
fn tcp_link(link: &LinkPlan, peers: u64, tcp: &TcpPlan, sizes: &LayoutSizes) -> [Item; 2] {
    let name = &link.name;
    let connections = sizes.tcp_connections * peers;
    let frames = Item::new(
        format!("link \"{name}\": frames that come and go"),
        Kind::Private,
        connections,
        sizes.tcp_connection_bytes(tcp.frame_bytes_max),
    );
    let sockets = Item::new(
        format!("link \"{name}\": socket buffers"),
        Kind::Kernel,
        connections,
        socket_buffers(tcp.send_buffer_bytes, tcp.receive_buffer_bytes),
    );
    lowered_by_frames_and_buffers(link, frames, sockets)
}

/// The memory that sockets and kernel share, where the interface has as many queues as the link may
/// hear. What the kernel copies into before it has a chunk is not counted, nor are the rings, some
/// 160 KiB for each queue.
fn xdp_link(link: &LinkPlan, xdp: &XdpPlan, sizes: &LayoutSizes) -> Item {
    let name = format!("link \"{}\": frames that come and go", link.name);
    let bytes = sizes.xdp_chunk_bytes(xdp.frame_bytes_max, xdp.bind.is_ipv4());
    Item::new(name, Kind::Private, sizes.xdp_chunks_of(xdp.queues_max), bytes)
        .lowered_by(format!("the queues_max or the frame_bytes_max of link \"{}\"", link.name))
}

/// Registered memory of each peer. Queues of the device, a few hundred KiB, are not counted.
fn rdma_link(link: &LinkPlan, peers: u64, rdma: &RdmaPlan, sizes: &LayoutSizes) -> Item {
    let name = format!("link \"{}\": registered buffers", link.name);
    Item::new(name, Kind::Private, peers, sizes.rdma_peer_bytes(rdma.frame_bytes_max))
}

/// The mbufs of the port. What DPDK has for itself, some 20 MiB, is not counted, nor is what a
/// device shares with others.
fn dpdk_link(link: &LinkPlan, dpdk: &DpdkPlan, sizes: &LayoutSizes) -> Item {
    let name = format!("link \"{}\": frames that come and go", link.name);
    let bytes = sizes.dpdk_frame_bytes(dpdk.frame_bytes_max, dpdk.bind.is_ipv4());
    Item::new(name, Kind::Private, sizes.dpdk_frames, bytes)
        .lowered_by(format!("the frame_bytes_max of link \"{}\"", link.name))
}

/// The kernel doubles what is asked for, to cover its own overhead (socket(7)).
fn socket_buffers(send_bytes: u32, receive_bytes: u32) -> u64 {
    2 * (u64::from(send_bytes) + u64::from(receive_bytes))
}

fn lowered_by_frames_and_buffers(link: &LinkPlan, frames: Item, sockets: Item) -> [Item; 2] {
    let name = &link.name;
    [
        frames.lowered_by(format!("the frame_bytes_max of link \"{name}\"")),
        sockets.lowered_by(format!("the socket buffers of link \"{name}\"")),
    ]
}

fn tenant(plan: &Plan, domain: &DomainPlan, at: usize, sizes: &LayoutSizes) -> Group {
    let datapaths = plan.datapaths.len() as u64;
    let quota = &domain.quota;
    let receive = format!("domains[{at}].receive");
    let mut items = Vec::new();
    let geometry = Geometry::new(&domain.receive).unwrap_or_default();
    for class in geometry.classes() {
        // Each class of each datapath's heap is whole pages.
        let bytes = (class.stride * u64::from(class.count)).next_multiple_of(sizes.page_bytes);
        let name = format!("receive heaps: {} x {}", class.count, human(class.size.into()));
        items.push(Item::new(name, Kind::Shared, datapaths, bytes).lowered_by(receive.clone()));
    }
    // Of each receive heap: the books of its buffers, and for each sink's ring from that
    // datapath one bit a buffer that says whether it is lent there.
    let rings = u64::from(quota.sinks.min(quota.connections));
    let bitmaps = rings * u64::from(geometry.buffers()).div_ceil(64) * 8;
    let books = u64::from(geometry.buffers()) * sizes.buffer_book_bytes + bitmaps;
    items.push(Item::new("receive heaps: books", Kind::Private, datapaths, books).lowered_by(receive));

    // What the control plane keeps of sessions and their ends, each quota used up.
    let quota_path = |field: &str| format!("domains[{at}].quota.{field}");
    let rows = |name: &str, count: u32, bytes| Item::new(name, Kind::Private, count.into(), bytes);
    items.push(rows("sessions: rows", quota.sessions, sizes.session_row_bytes).lowered_by(quota_path("sessions")));
    let (most, field) = [(quota.streams, "streams"), (quota.sources, "sources"), (quota.sinks, "sinks")]
        .into_iter()
        .max_by_key(|(count, _)| *count)
        .unwrap_or_default();
    items.push(rows("streams with their ends: rows", most, sizes.port_row_bytes).lowered_by(quota_path(field)));

    items.extend(sessions(domain, at, sizes));
    group(format!("tenant \"{}\"", domain.name), true, items)
}

/// What `quota.bytes` is used for when the other quotas are used up; adds up to it exactly.
fn sessions(domain: &DomainPlan, at: usize, sizes: &LayoutSizes) -> Vec<Item> {
    let quota = &domain.quota;
    let wanted = [
        ("sessions: counters pages", u64::from(quota.sessions), sizes.session_counters_bytes(), "sessions"),
        ("sinks: wake pages", u64::from(quota.sinks), sizes.wake_page_bytes, "sinks"),
        ("connections: rings", u64::from(quota.connections), sizes.ring_bytes(), "connections"),
    ];
    let path = |field: &str| format!("domains[{at}].quota.{field}");
    let mut left = quota.bytes;
    let mut items = Vec::new();
    for (name, count, each, field) in wanted {
        // The quota ends some of them early; then fewer than `count` can exist.
        let count = count.min(left / each);
        left -= count * each;
        items.push(Item::new(name, Kind::Shared, count, each).lowered_by(path(field)));
    }
    if left > 0 {
        let name = if left < sizes.page_bytes { "too little for a page" } else { SOURCE_HEAPS };
        items.push(Item::new(name, Kind::Shared, 1, left).lowered_by(path("bytes")));
    }
    items
}

pub(crate) fn exact(bytes: u64) -> String {
    format!("{} ({} bytes)", human(bytes), grouped(i64::try_from(bytes).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests;
