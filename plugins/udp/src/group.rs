//! The group of a link: what it sends to all members at once, and what they send.
//!
//! The group has two ports, as the link has. Its two sockets are bound to the group's address
//! and only receive; what goes to the group leaves by the link's own sockets, so that members
//! know the sender by its address, as they do for every other frame. The kernel does not hand
//! a sender its own frames; where they come all the same (the loopback interface), they are
//! dropped.
//!
//! Frames to the group and frames to a peer pass different sockets of the receiver, which
//! therefore knows no order between the two. It takes what came to itself before it takes
//! what came to the group, so that a sender which changes from peers to the group is
//! overtaken by itself only if both arrive between two looks.

use crate::config::UdpConfig;
use crate::inbox::Inbox;
use crate::setup::{UdpError, next_port, options};
use crate::train::Train;
use insane_sys::udp::{self, Address, SocketOptions};
use std::net::{SocketAddr, UdpSocket};

/// Sockets that are members, and the interface where they are.
#[derive(Debug)]
pub(crate) struct Members {
    sockets: [UdpSocket; 2],
    ports: [SocketAddr; 2],
}

impl Members {
    /// Joins the group of the configuration at the interface of `local`, and lets `senders`
    /// send to it.
    pub(crate) fn join(
        config: &UdpConfig,
        local: SocketAddr,
        senders: [&UdpSocket; 2],
    ) -> Result<Option<Self>, UdpError> {
        let Some(group) = config.group else { return Ok(None) };
        let mut address = group.address;
        let second = next_port(address).filter(|_| address.port() != 0 && address.ip().is_multicast());
        if second.is_none() {
            return Err(UdpError::GroupUnusable { address });
        }
        if address.is_ipv4() != local.is_ipv4() || local.ip().is_unspecified() {
            return Err(UdpError::GroupBind { address, bind: local });
        }
        let refused = |address| move |source| UdpError::Socket { address, source };
        let interface = udp::interface_of(local).map_err(refused(local))?;
        if let SocketAddr::V6(v6) = &mut address
            && v6.ip().octets()[1] & 0xf == LINK_SCOPE
        {
            v6.set_scope_id(interface);
        }
        for sender in senders {
            udp::send_to_groups_by(sender, interface, group.ttl).map_err(refused(local))?;
        }
        let member = |address| {
            let options = SocketOptions { shared: true, ..options(config) };
            let socket = udp::bind(address, &options).map_err(refused(address))?;
            udp::join_group(&socket, address.ip(), interface).map_err(refused(address))?;
            Ok::<_, UdpError>(socket)
        };
        let ports = [address, next_port(address).unwrap_or(address)];
        Ok(Some(Members { sockets: [member(ports[0])?, member(ports[1])?], ports }))
    }
}

/// Scope of an IPv6 group whose address means something at one interface only (RFC 4291).
const LINK_SCOPE: u8 = 2;

/// See the module's documentation.
pub(crate) struct Group {
    pub(crate) sockets: [UdpSocket; 2],
    pub(crate) inboxes: [Inbox; 2],
    /// Frames to the group that wait for the flush.
    pub(crate) trains: [Train; 2],
    /// The group's addresses.
    pub(crate) to: [Address; 2],
    /// One's own addresses, as a frame bears them.
    pub(crate) own: [SocketAddr; 2],
    /// The last frame that came, came to the group.
    pub(crate) is_hot: bool,
}

impl Group {
    pub(crate) fn boxed(members: Members, local: SocketAddr, frame_bytes_max: usize) -> Box<Self> {
        let Members { sockets, ports } = members;
        Box::new(Group {
            sockets,
            inboxes: [Inbox::new(frame_bytes_max), Inbox::new(frame_bytes_max)],
            trains: [Train::new(frame_bytes_max), Train::new(frame_bytes_max)],
            to: ports.map(Address::from),
            own: [local, next_port(local).unwrap_or(local)],
            is_hot: false,
        })
    }
}
