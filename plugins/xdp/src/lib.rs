//! Link over AF_XDP sockets, IPv4 and IPv6.
//!
//! The link has an IP address of its own on an interface, beside those of the kernel, with
//! the hardware address of that interface: it asks for its neighbours and answers them and
//! echoes itself ([`insane_netstack`]). An XDP program hands it the frames for that address
//! and passes all others, so whatever else the kernel does on the interface goes on. The
//! program is attached by a BPF link: it goes when the process does, however that ends.
//!
//! Where a second address a host cannot be had, the link may borrow the kernel's
//! ([`Neighbours::Borrowed`], [`insane_kernel_neighbours`]): address and neighbours are those of the
//! interface, the kernel asks and answers, and only datagrams to the link's two ports leave it.
//!
//! What goes over the wire is what the udp plugin sends: port P carries real-time lanes, port
//! P+1 all others, and a udp link is a good peer of an xdp link. Small frames of
//! one peer and class that are sent between two flushes share datagrams, as bundles, from either
//! link; larger ones are datagrams of their own.
//!
//! | mode | the program runs | frames are copied |
//! |---|---|---|
//! | zero copy | in the driver | once, by the link, when they are sent |
//! | native | in the driver | once more each way, by the kernel |
//! | skb | behind the driver, on any interface | once more each way, by the kernel |
//!
//! Each class has a socket, with rings of its own: a best-effort flood fills only its own.
//! Nothing is allocated after [`LinkSetup::open`].
//!
//! # Queues
//! A NIC of several queues spreads what arrives over them, by a hash of addresses and ports, and a
//! socket of AF_XDP gets frames of its own queue only. So the link has both sockets on each queue,
//! where there are no more than [`XdpConfig::queues_max`] and the driver says how many there are
//! (`ethtool -l`); else on [`XdpConfig::queue`] alone, and what arrives elsewhere goes to the
//! kernel ([`XdpSetup::queues_unheard`]). It sends by `queue`, whatever it hears.
//! - One look takes real time of all queues before best effort of any, within one budget. Another
//!   queue is first each time, so one that never runs dry keeps no other waiting for more than a
//!   look for each queue.
//! - A hash puts one flow into one queue, so its frames keep their order, which holds while neither
//!   the number of queues nor the table of the hash changes. Between flows there is none.
//! - All queues are had or none: one that another socket has makes the link missing.
//! - Another number of queues is noticed by the keeper's next look, and the interface opened anew.
//!   The kernel takes away no queue that is heard (`ethtool -L` fails): close the link first.
//! - The bound on questions and answers about neighbours, see below, is of all queues together.
//! - Each queue beside the first takes chunks for three rings, and two calls more a second to ask
//!   what the kernel dropped. Where there is one queue there is nothing of this in the way of a
//!   frame.
//!
//! # Neighbours among real time
//! Questions and answers about neighbours are no datagrams of a class, and the way of every class
//! depends on them. With an own address the program gives 16 questions about the address and 16
//! answers to it at once, and one more of each kind a millisecond, to the real-time socket;
//! what exceeds that comes by the best-effort socket, and is lost where that ring is full. So a
//! flood of best effort hides no neighbour, and a storm of questions (common where many devices
//! start at once) fills no ring of real time and hides no answer. What anybody pays for it: a
//! turn of the datapath may find 32 such frames in front of its real-time ones, each of which
//! counts in its budget; afterwards two a millisecond. Echoes, and neighbour discovery that a
//! router has passed on, have no part in it.
//!
//! Who sends what cannot be told so cheaply, and the bound is against storms. An attacker in the
//! same network or VLAN can still
//! - send answers that nobody asked for, more than one a millisecond for each real one, and best
//!   effort beside: then real answers are lost as before. What is known lives on for 30 s and more
//!   ([`insane_netstack`]); who comes anew is not found;
//! - do the same with questions: then others get few answers from this link. Whom the link asks
//!   learns by that where it is, and does not have to ask;
//! - claim the address of a peer that is silent, as ever with ARP and neighbour discovery;
//! - fill the real-time ring itself with datagrams to port P, which cost a stranger nothing. Only
//!   the network can keep those away.
//!
//! # An interface that is not there
//! [`XdpSetup::bind_or_wait`] opens a link whose interface is not to be had yet. An [`XdpKeeper`]
//! opens it when it is, and takes it back when it goes, away from the datapath. So it does when
//! somebody detached the program by force or put another into its place, which nothing tells the
//! sockets: they are up and hear nothing until the keeper's next look. The link refuses frames
//! meanwhile, keeps its peers, and asks for them anew afterwards: the interface that
//! returns may have another hardware address, and so may they.
//!
//! # What the interface has to be
//! Frames for the address must come by a queue that is heard. The other end of a veth pair must
//! finish its frames itself (`ethtool -K IF tx off txvlan off`): one call's many datagrams would
//! arrive as one that is larger than a chunk, and are lost.
//!
//! # VLANs
//! A link in a VLAN ([`XdpConfig::vlan`]) tags what it sends, with the priorities of the lanes
//! ([`insane_netstack::Marks`]), and takes only what has that tag; one in none takes what has no
//! tag, or one that bears a priority alone. All else is the kernel's: other VLANs, service tags and
//! several tags. That holds where a program sees tags: a NIC must leave them in the frames
//! (`ethtool -K IF rxvlan off`; a link in a VLAN is missing until it does), and a veth pair's
//! other end must put them there (`txvlan off`). From where tags are lost on the way, a link in
//! a VLAN gets nothing, and one in none the frames for its address of every VLAN.
#![forbid(unsafe_code)]

mod config;
mod device;
mod inbox;
mod keeper;
mod link;
mod outbox;
mod program;
mod setup;

pub use config::{FRAME_BYTES_LOW, Mode, Neighbours, QUEUES_LIMIT, XdpConfig};
pub use insane_netstack::VlanId;
pub use keeper::XdpKeeper;
pub use link::{XdpCounts, XdpLink, XdpPeer};
pub use setup::{FRAME_BYTES_LIMIT, XdpError, XdpPeers, XdpSetup, memory_bytes};

#[cfg(doc)]
use insane_link::LinkSetup;
