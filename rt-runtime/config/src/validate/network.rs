//! Links and peers: addresses, ports, and who reaches whom.

use super::{check_names, interfaces, number, quoted};
use crate::diagnostic::nearest;
use crate::plan::{
    DatapathPlan, DeviceName, DpdkPlan, InterfaceName, LinkPlan, MulticastPlan, PeerPlan, RatePlan, RdmaPlan, TcpPlan,
    Technology, UdpPlan, XdpPlan,
};
use crate::raw;
use crate::report::Report;
use insane_core::Nanos;
use insane_core::limits::PEERS_MAX;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Placeholder of an address that is wrong.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// The links with their own addresses; peers come later.
pub(super) fn links(raw: &[raw::Link], report: &mut Report<'_>) -> Vec<LinkPlan> {
    check_names(report, "links", raw.iter().map(|link| link.name.as_str()));
    let mut bound: Vec<(usize, SocketAddr)> = Vec::new();
    let mut links = Vec::new();
    for (at, link) in raw.iter().enumerate() {
        let path = format!("links[{at}].technology.bind");
        let bind = address(report, &path, link.technology.bind());
        if let Some(bind) = bind {
            // Ports of udp and ports of tcp are not the same.
            let mut rivals =
                bound.iter().filter(|(other, _)| have_one_space(&raw[*other].technology, &link.technology));
            if let Some((first, other)) = rivals.find(|(_, other)| binds_collide(*other, bind)) {
                let message = format!(
                    "ports {} and {} are taken: links[{first}] uses {} and {}",
                    bind.port(),
                    bind.port() + 1,
                    other.port(),
                    other.port() + 1
                );
                report.error_accepting(&path, message, "a port at least 2 away from that of every other link");
            }
            bound.push((at, bind));
        }
        interfaces::check_is_its_own(raw, at, report);
        let technology = technology(&link.technology, at, bind.unwrap_or(NOWHERE), report);
        let rate = rate(link, at, report);
        links.push(LinkPlan { name: link.name.clone(), technology, rate, peers: Vec::new() });
    }
    links
}

/// Whether ports of the one are not to be had for the other.
fn have_one_space(a: &raw::Technology, b: &raw::Technology) -> bool {
    let borrows = |of: &raw::Technology| {
        matches!(of, raw::Technology::Xdp { neighbours: raw::Neighbours::Borrowed, .. } | raw::Technology::Udp { .. })
    };
    a.name() == b.name() || borrows(a) && borrows(b)
}

fn rate(raw: &raw::Link, at: usize, report: &mut Report<'_>) -> Option<RatePlan> {
    let path = |field: &str| format!("links[{at}].{field}");
    let turn_us: u32 = number(report, &path("turn_us"), raw.turn_us);
    let foreign_bytes = number(report, &path("foreign_bytes"), raw.foreign_bytes);
    let mbps = raw.rate_mbps.map(|value| number(report, &path("rate_mbps"), value))?;
    Some(RatePlan { mbps, turn: Nanos::from_micros(turn_us.into()), foreign_bytes, completions: raw.completions })
}

fn technology(raw: &raw::Technology, at: usize, bind: SocketAddr, report: &mut Report<'_>) -> Technology {
    let path = |field: &str| format!("links[{at}].technology.{field}");
    match *raw {
        raw::Technology::Udp {
            bind: _,
            frame_bytes_max,
            send_buffer_bytes,
            receive_buffer_bytes,
            busy_poll_us,
            real_time_dscp,
            launch_lead_us,
            ref multicast,
        } => {
            let defaults = UdpPlan::at(bind);
            let frame_bytes_max = frame_bytes_max.map(|value| number(report, &path("frame_bytes_max"), value));
            Technology::Udp(UdpPlan {
                bind,
                frame_bytes_max: frame_bytes_max.unwrap_or(defaults.frame_bytes_max),
                send_buffer_bytes: number(report, &path("send_buffer_bytes"), send_buffer_bytes),
                receive_buffer_bytes: number(report, &path("receive_buffer_bytes"), receive_buffer_bytes),
                busy_poll_us: number(report, &path("busy_poll_us"), busy_poll_us),
                real_time_dscp: number(report, &path("real_time_dscp"), real_time_dscp),
                launch_lead: Nanos::from_micros(number(report, &path("launch_lead_us"), launch_lead_us)),
                multicast: multicast.as_ref().map(|group| self::multicast(group, at, bind, report)),
            })
        }
        raw::Technology::Tcp {
            bind: _,
            frame_bytes_max,
            send_buffer_bytes,
            receive_buffer_bytes,
            busy_poll_us,
            real_time_dscp,
            user_timeout_ms,
        } => {
            if bind != NOWHERE && bind.ip().is_unspecified() {
                let message = format!(
                    "{} is no particular address; which host connects depends on the one that peers have for this host",
                    bind.ip()
                );
                report.error(&path("bind"), message);
            }
            Technology::Tcp(TcpPlan {
                bind,
                frame_bytes_max: number(report, &path("frame_bytes_max"), frame_bytes_max),
                send_buffer_bytes: number(report, &path("send_buffer_bytes"), send_buffer_bytes),
                receive_buffer_bytes: number(report, &path("receive_buffer_bytes"), receive_buffer_bytes),
                busy_poll_us: number(report, &path("busy_poll_us"), busy_poll_us),
                real_time_dscp: number(report, &path("real_time_dscp"), real_time_dscp),
                user_timeout_ms: number(report, &path("user_timeout_ms"), user_timeout_ms),
            })
        }
        raw::Technology::Xdp {
            ref interface,
            bind: _,
            neighbours,
            queue,
            queues_max,
            mode,
            vlan,
            prefix_bits,
            ref gateway,
            frame_bytes_max,
            real_time_dscp,
        } => {
            check_own_address(bind, at, report);
            let name = InterfaceName::new(interface).unwrap_or_else(|| {
                report.error(&path("interface"), format!("\"{interface}\" can be no interface's name"));
                InterfaceName::NONE
            });
            let defaults = XdpPlan::at(name, bind);
            let frame_bytes_max = frame_bytes_max.map(|value| number(report, &path("frame_bytes_max"), value));
            let prefix_bits = prefix_bits.map(|value| self::prefix_bits(value, at, bind, report));
            let gateway = gateway.as_deref().and_then(|text| gateway_address(report, &path("gateway"), text, bind));
            if let (raw::Neighbours::Borrowed, Some(vlan)) = (neighbours, vlan) {
                let message =
                    format!("neighbours are borrowed from the interface itself, which has none in VLAN {vlan}");
                report.error_accepting(&path("neighbours"), message, "own, or no `vlan`");
            }
            Technology::Xdp(XdpPlan {
                neighbours,
                queue: number(report, &path("queue"), queue),
                queues_max: number(report, &path("queues_max"), queues_max),
                mode,
                vlan: vlan.map(|value| number(report, &path("vlan"), value)),
                prefix_bits: prefix_bits.unwrap_or(defaults.prefix_bits),
                gateway,
                frame_bytes_max: frame_bytes_max.unwrap_or(defaults.frame_bytes_max),
                real_time_dscp: number(report, &path("real_time_dscp"), real_time_dscp),
                ..defaults
            })
        }
        raw::Technology::Rdma { bind: _, frame_bytes_max, real_time_dscp } => {
            if bind != NOWHERE && (bind.ip().is_unspecified() || bind.ip().is_loopback()) {
                let message = format!("{} is no address that an RDMA device can have", bind.ip());
                report.error(&path("bind"), message);
            }
            Technology::Rdma(RdmaPlan {
                bind,
                frame_bytes_max: number(report, &path("frame_bytes_max"), frame_bytes_max),
                real_time_dscp: number(report, &path("real_time_dscp"), real_time_dscp),
            })
        }
        raw::Technology::Dpdk {
            ref device,
            bind: _,
            ref mac,
            vlan,
            prefix_bits,
            ref gateway,
            frame_bytes_max,
            real_time_dscp,
            poll_us,
        } => {
            check_own_address(bind, at, report);
            let name = DeviceName::new(device).unwrap_or_else(|| {
                report.error(&path("device"), format!("\"{device}\" can be no device"));
                DeviceName::NONE
            });
            let defaults = DpdkPlan::at(name, bind);
            let mac = mac.as_deref().and_then(|text| {
                let mac = station(text);
                if mac.is_none() {
                    report.error(&path("mac"), format!("\"{text}\" is not the hardware address of one station"));
                }
                mac
            });
            let frame_bytes_max = frame_bytes_max.map(|value| number(report, &path("frame_bytes_max"), value));
            let prefix_bits = prefix_bits.map(|value| self::prefix_bits(value, at, bind, report));
            let gateway = gateway.as_deref().and_then(|text| gateway_address(report, &path("gateway"), text, bind));
            Technology::Dpdk(DpdkPlan {
                mac,
                vlan: vlan.map(|value| number(report, &path("vlan"), value)),
                prefix_bits: prefix_bits.unwrap_or(defaults.prefix_bits),
                gateway,
                frame_bytes_max: frame_bytes_max.unwrap_or(defaults.frame_bytes_max),
                real_time_dscp: number(report, &path("real_time_dscp"), real_time_dscp),
                poll_each: Nanos::from_micros(number(report, &path("poll_us"), poll_us)),
                ..defaults
            })
        }
    }
}

/// Whether a link past the kernel can have this address for its own.
fn check_own_address(bind: SocketAddr, at: usize, report: &mut Report<'_>) {
    if bind != NOWHERE && (bind.ip().is_unspecified() || bind.ip().is_loopback()) {
        let message = format!("{} is no address that frames on an interface can have", bind.ip());
        report.error(&format!("links[{at}].technology.bind"), message);
    }
}

fn prefix_bits(value: i64, at: usize, bind: SocketAddr, report: &mut Report<'_>) -> u8 {
    let path = format!("links[{at}].technology.prefix_bits");
    let bits: u8 = number(report, &path, value);
    if (33..=128).contains(&bits) && bind.is_ipv4() && bind != NOWHERE {
        let message = format!("{bits} bits are more than an IPv4 address has");
        report.error_accepting(&path, message, "0 to 32 bits");
    }
    bits
}

/// The hardware address of one station, as `02:00:00:00:00:01`.
fn station(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut bytes = text.split(':');
    for byte in &mut mac {
        let digits =
            bytes.next().filter(|digits| digits.len() == 2 && digits.chars().all(|c| c.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    let is_one = mac[0] & 1 == 0 && mac != [0; 6];
    (is_one && bytes.next().is_none()).then_some(mac)
}

/// The group of a link that is bound to `bind`.
fn multicast(raw: &raw::Multicast, at: usize, bind: SocketAddr, report: &mut Report<'_>) -> MulticastPlan {
    let path = |field: &str| format!("links[{at}].technology.multicast.{field}");
    let group = group_address(&raw.group, bind).unwrap_or_else(|fault| {
        report.error(&path("group"), fault);
        NOWHERE
    });
    if bind != NOWHERE && bind.ip().is_unspecified() {
        let message = format!("{} is no particular address, and a group is joined at the interface of one", bind.ip());
        report.error_accepting(
            &format!("links[{at}].technology.bind"),
            message,
            "a particular IP address of this machine, or no `multicast`",
        );
    }
    MulticastPlan {
        group,
        ttl: number(report, &path("ttl"), raw.ttl),
        from_peers: number(report, &path("from_peers"), raw.from_peers),
    }
}

fn group_address(text: &str, bind: SocketAddr) -> Result<SocketAddr, String> {
    let group = text.parse::<SocketAddr>().map_err(|_| fault_of_address(text))?;
    match group.port() {
        _ if !group.ip().is_multicast() => Err(format!("{} is not the address of a group", group.ip())),
        0 => Err("port 0 is no port that a member could know".into()),
        u16::MAX => Err("after port 65535 there is no next one, and the group uses two".into()),
        _ if bind != NOWHERE && bind.is_ipv4() != group.is_ipv4() => {
            Err(format!("{} and the link's own address {} are not of one family", group.ip(), bind.ip()))
        }
        _ => Ok(group),
    }
}

/// Whether it is near enough, the link says when it opens.
fn gateway_address(report: &mut Report<'_>, path: &str, text: &str, bind: SocketAddr) -> Option<IpAddr> {
    let Ok(gateway) = text.parse::<IpAddr>() else {
        report.error(path, format!("\"{text}\" is not an IP address"));
        return None;
    };
    if bind != NOWHERE && gateway.is_ipv4() != bind.is_ipv4() {
        report.error(path, format!("{gateway} and the link's own {} are not both IPv4 or both IPv6", bind.ip()));
    }
    Some(gateway)
}

/// The peers; their addresses are put into the links.
pub(super) fn peers(
    config: &raw::Config,
    host: &str,
    links: &mut [LinkPlan],
    report: &mut Report<'_>,
) -> Vec<PeerPlan> {
    if config.peers.len() > PEERS_MAX {
        report.error("peers", format!("there are {} peers", config.peers.len()));
    }
    check_names(report, "peers", config.peers.iter().map(|peer| peer.name.as_str()));
    for link in links.iter_mut() {
        link.peers = vec![None; config.peers.len()];
    }
    let mut known: Vec<(String, &'static str, SocketAddr)> = Vec::new();
    for (at, peer) in config.peers.iter().enumerate() {
        if peer.name == host {
            let message = format!("\"{host}\" is this host itself");
            report.error_accepting(&format!("peers[{at}].name"), message, "the name of another host");
        }
        if peer.links.is_empty() {
            report.error(&format!("peers[{at}].links"), "the peer has no address");
        }
        for (name, text) in &peer.links {
            let path = format!("peers[{at}].links[{}]", key_text(name));
            let Some(to) = peer_address(report, &path, name, text, links) else { continue };
            let Some(link) = links.iter_mut().find(|link| link.name == *name) else { continue };
            let technology = link.technology.name();
            let is_taken =
                |(_, by, other): &&(String, &str, SocketAddr)| *by == technology && ports_overlap(*other, to);
            if let Some((first, ..)) = known.iter().find(is_taken) {
                let message = format!("{to} is the address of {first} already (each uses its port and the next one)");
                report.error_accepting(&path, message, "an address that no other entry of the peers uses");
            }
            known.push((path, technology, to));
            link.peers[at] = Some(to);
        }
    }
    config.peers.iter().map(|peer| PeerPlan { name: peer.name.clone() }).collect()
}

/// The key as it most likely stands in the text; with another spelling (escapes) the
/// message points to the map as a whole.
fn key_text(name: &str) -> String {
    format!("{name:?}")
}

fn peer_address(report: &mut Report<'_>, path: &str, link: &str, text: &str, links: &[LinkPlan]) -> Option<SocketAddr> {
    let names = || links.iter().map(|link| link.name.as_str());
    let Some(own) = links.iter().find(|own| own.name == link) else {
        let near = nearest(link, names()).map(|name| format!("; did you mean \"{name}\"?")).unwrap_or_default();
        report.error_at_key(path, format!("there is no link \"{link}\"{near}"), quoted(names()));
        return None;
    };
    let to = address(report, path, text)?;
    if to.ip().is_unspecified() {
        report.error(path, format!("{} is no address of a host", to.ip()));
        return None;
    }
    let bind = own.technology.bind();
    if bind != NOWHERE && bind.is_ipv4() != to.is_ipv4() {
        let family = |address: SocketAddr| if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let message = format!("the peer's address is {}, but link \"{link}\" is bound to {bind}", family(to));
        report.error_accepting(path, message, format!("an {} address", family(bind)));
        return None;
    }
    let technology = own.technology.name();
    let mut alike = links.iter().filter(|other| other.technology.name() == technology);
    if let Some(own) = alike.find(|own| is_own(own.technology.bind(), to)) {
        let message = format!("{to} is this host itself: link \"{}\" is bound to {}", own.name, own.technology.bind());
        report.error_accepting(path, message, "the address of another host");
        return None;
    }
    Some(to)
}

/// Says where a datapath cannot reach a peer: those lanes would lead nowhere.
pub(super) fn warn_of_unreached_peers(peers: &[PeerPlan], datapaths: &[DatapathPlan], report: &mut Report<'_>) {
    for (at, peer) in peers.iter().enumerate() {
        for datapath in datapaths {
            let reached = datapath.links.iter().any(|link| link.peers.get(at).is_some_and(Option::is_some));
            if !reached && !report.has_errors() {
                let message = format!(
                    "no link of datapath \"{}\" leads to \"{}\": what its lanes carry does not get there",
                    datapath.name, peer.name
                );
                report.warning(&format!("peers[{at}].links"), message, "an address on a link of every datapath");
            }
        }
    }
}

/// Parses an address, and says what is wrong with it.
fn address(report: &mut Report<'_>, path: &str, text: &str) -> Option<SocketAddr> {
    let found = text.parse::<SocketAddr>().map_err(|_| fault_of_address(text)).and_then(usable);
    match found {
        Ok(address) => Some(address),
        Err(fault) => {
            report.error(path, fault);
            None
        }
    }
}

/// Parses the address of one particular host, with any port.
pub(super) fn host_address(report: &mut Report<'_>, path: &str, text: &str) -> Option<SocketAddr> {
    let found = text.parse::<SocketAddr>().map_err(|_| fault_of_address(text)).and_then(|address| {
        // The link's rule for the next port does not concern it.
        usable(SocketAddr::new(address.ip(), address.port().min(u16::MAX - 1)))?;
        let none = || format!("{} is no particular address, and others are to be told one", address.ip());
        if address.ip().is_unspecified() { Err(none()) } else { Ok(address) }
    });
    found.map_err(|fault| report.error(path, fault)).ok()
}

/// The second port has to exist, and one host has to be meant.
fn usable(address: SocketAddr) -> Result<SocketAddr, String> {
    let broadcast = address.ip() == IpAddr::V4(Ipv4Addr::BROADCAST);
    match address.port() {
        0 => Err("port 0 is no port that a peer could know".into()),
        u16::MAX => Err("after port 65535 there is no next one, and the link uses two".into()),
        _ if address.ip().is_multicast() || broadcast => {
            Err(format!("{} is not the address of one host", address.ip()))
        }
        _ => Ok(address),
    }
}

/// Why this is not an address with a port.
fn fault_of_address(text: &str) -> String {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if bare.parse::<IpAddr>().is_ok() {
        return format!("\"{text}\" has no port");
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return format!("\"{text}\" is not an IP address with a port");
    };
    let unbracketed = host.trim_start_matches('[').trim_end_matches(']');
    match unbracketed.parse::<IpAddr>() {
        Ok(IpAddr::V6(_)) if !host.starts_with('[') => {
            format!("an IPv6 address with a port has brackets: \"[{host}]:{port}\"")
        }
        Ok(_) => format!("\"{port}\" is not a port"),
        Err(_) if host.chars().any(char::is_alphabetic) && !host.contains(':') => {
            format!("\"{host}\" is a name, and names are not looked up")
        }
        Err(_) => format!("\"{host}\" is not an IP address"),
    }
}

/// Whether two pairs of ports have one in common.
fn near_ports(a: SocketAddr, b: SocketAddr) -> bool {
    a.port().abs_diff(b.port()) <= 1
}

fn ports_overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.ip() == b.ip() && near_ports(a, b)
}

/// Whether the kernel would refuse the second; an unspecified address takes the port of all.
fn binds_collide(a: SocketAddr, b: SocketAddr) -> bool {
    let one_takes_all = a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified());
    near_ports(a, b) && (a.ip() == b.ip() || one_takes_all)
}

/// Whether frames to `to` would arrive at the link bound to `bind`.
fn is_own(bind: SocketAddr, to: SocketAddr) -> bool {
    let everywhere = bind.ip().is_unspecified() && bind.port() != 0 && to.ip().is_loopback();
    near_ports(bind, to) && (bind.ip() == to.ip() || everywhere)
}
