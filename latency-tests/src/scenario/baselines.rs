//! The baselines' cells, in the form that the scenarios set beside ours.

use super::{Cost, flow_pace, network_flow_pace, pace};
use crate::baseline::ring::{self, FlowPut, FlowTake, MESSAGE_BYTES};
use crate::baseline::tcp::TcpEnd;
use crate::baseline::tcp_flow::{TcpPut, TcpTake};
use crate::baseline::udp::UdpEnd;
use crate::baseline::udp_flow::{UdpPut, UdpTake};
use crate::baseline::xdp::{Route, XdpEnd, XdpRelay};
use crate::harness::Bench;
use crate::harness::birth::{Birth, births};
use crate::harness::converse::BothEnds;
use crate::harness::fault::Fault;
use crate::harness::netns::Hosts;
use crate::harness::paced::paced;
use crate::harness::sample::Sample;
use crate::harness::topology::{flow, relay_party, relayed_on_both, t1, t2, t3};
use crate::harness::watch::Idle;
use insane_raw_baselines::mac_of;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Where the raw sockets of two hosts talk.
const RAW_PORT: u16 = 24_242;
/// How long one side of a hand-over waits for the other.
const HANDSHAKE_BOUND: Duration = Duration::from_secs(10);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// T1: copying ring, round trips.
pub fn ring_t1(bench: &Bench) -> Result<Sample, Fault> {
    let (asking, answering) = ring::pair::<MESSAGE_BYTES>();
    t1(bench, &pace(bench, Cost::Memory, Idle::Spin), move || Ok(asking), move || Ok(answering))
}

/// T2: copying relay between two ends that yield to each other.
pub fn relay_t2(bench: &Bench) -> Result<Sample, Fault> {
    let pace = pace(bench, Cost::Kernel, Idle::Yield);
    let (asking, answering, hub) = ring::relayed_pair();
    t2(bench, &pace, move || Ok(asking), move || Ok(answering), Some(relay_party(bench, &pace, hub)))
}

/// T3: copying relay, both ends in one thread.
pub fn relay_t3(bench: &Bench) -> Result<Sample, Fault> {
    let pace = pace(bench, Cost::Memory, Idle::Spin);
    let (asking, answering, hub) = ring::relayed_pair();
    t3(bench, &pace, move || Ok(BothEnds::new(asking, answering)), Some(relay_party(bench, &pace, hub)))
}

/// T1: raw spinning sockets on loopback.
pub fn udp_loopback(bench: &Bench) -> Result<Sample, Fault> {
    let (asking, answering) = UdpEnd::pair(LOOPBACK, MESSAGE_BYTES)?;
    t1(bench, &pace(bench, Cost::Kernel, Idle::Spin), move || Ok(asking), move || Ok(answering))
}

/// T1: raw spinning sockets on two hosts joined by veth.
pub fn udp_veth(bench: &Bench, hosts: &Hosts, size: usize) -> Result<Sample, Fault> {
    let [first, second] = Hosts::ADDRESSES.map(|address| SocketAddr::new(address, RAW_PORT));
    let open = move |host: usize, here, there| {
        hosts.enter(host)?;
        UdpEnd::open(here, there, size)
    };
    let pace = pace(bench, Cost::Kernel, Idle::Spin);
    t1(bench, &pace, move || open(0, first, second), move || open(1, second, first))
}

/// T1: raw spinning connection on loopback.
pub fn tcp_loopback(bench: &Bench) -> Result<Sample, Fault> {
    let (asking, answering) = TcpEnd::pair(LOOPBACK, MESSAGE_BYTES)?;
    t1(bench, &pace(bench, Cost::Kernel, Idle::Spin), move || Ok(asking), move || Ok(answering))
}

/// T1: raw spinning connection between two hosts joined by veth.
pub fn tcp_veth(bench: &Bench, hosts: &Hosts, size: usize) -> Result<Sample, Fault> {
    let at = SocketAddr::new(Hosts::ADDRESSES[1], RAW_PORT);
    let connect = move || hosts.enter(0).and_then(|()| TcpEnd::connect(at, size));
    let accept = move || hosts.enter(1).and_then(|()| TcpEnd::accept(at, size));
    t1(bench, &pace(bench, Cost::Kernel, Idle::Spin), connect, accept)
}

/// A route from each of two hosts to the other.
fn xdp_routes(hosts: &Hosts, in_driver: bool, size: usize, is_flow: bool) -> Result<[Route; 2], Fault> {
    let mac = |host| hosts.on(host, || mac_of(Hosts::INTERFACE).map_err(Fault::os("ask for a hardware address")));
    let (first, second) = (mac(0)?, mac(1)?);
    Ok([(first, second), (second, first)].map(|(from, to)| Route { from, to, in_driver, size, is_flow }))
}

/// Raw AF_XDP sockets on two hosts. Both are opened before the first frame: a program that is
/// attached resets its queue.
pub fn xdp_ends(hosts: &Hosts, in_driver: bool, size: usize, is_flow: bool) -> Result<(XdpEnd, XdpEnd), Fault> {
    let [first, second] = xdp_routes(hosts, in_driver, size, is_flow)?;
    let open = |host, route| hosts.on(host, move || XdpEnd::open(Hosts::INTERFACE, route));
    Ok((open(0, first)?, open(1, second)?))
}

/// T1: raw AF_XDP sockets on two hosts joined by veth.
pub fn xdp_veth(bench: &Bench, hosts: &Hosts, in_driver: bool, size: usize) -> Result<Sample, Fault> {
    let (asking, answering) = xdp_ends(hosts, in_driver, size, false)?;
    t1(bench, &pace(bench, Cost::Kernel, Idle::Spin), move || Ok(asking), move || Ok(answering))
}

/// T4: raw AF_XDP sockets on two hosts joined by veth, each owned by a relay that an application
/// talks to through rings, and that shares its core.
pub fn xdp_relayed(bench: &Bench, hosts: &Hosts, in_driver: bool) -> Result<Sample, Fault> {
    let (first, second) = xdp_ends(hosts, in_driver, MESSAGE_BYTES, false)?;
    let serve = |end: XdpEnd| {
        let (application, from, to) = ring::end_of_relay();
        (application, XdpRelay { end, from, to })
    };
    relayed_on_both(bench, &pace(bench, Cost::Kernel, Idle::Yield), serve(first), serve(second))
}

/// T1, one way: raw AF_XDP sockets on two hosts joined by veth, as fast as it goes.
pub fn xdp_flow(bench: &Bench, hosts: &Hosts, in_driver: bool, size: usize) -> Result<Sample, Fault> {
    let (put, take) = xdp_ends(hosts, in_driver, size, true)?;
    flow(bench, &network_flow_pace(bench, size), move || Ok(put), move || Ok(take))
}

/// One raw socket that talks to itself: one thread, no partner.
pub fn udp_to_itself(bench: &Bench) -> Result<Sample, Fault> {
    let end = UdpEnd::to_itself(LOOPBACK, MESSAGE_BYTES)?;
    t3(bench, &pace(bench, Cost::Kernel, Idle::Spin), move || Ok(end), None)
}

/// T1, one way: raw sockets on two hosts joined by veth; one message after the other has
/// arrived, or as fast as it goes.
pub fn udp_flow(bench: &Bench, hosts: &Hosts, size: usize, one_by_one: bool) -> Result<Sample, Fault> {
    let [first, second] = Hosts::ADDRESSES.map(|address| SocketAddr::new(address, RAW_PORT));
    let put = hosts.on(0, || UdpPut::open(first, second, size))?;
    let take = hosts.on(1, || UdpTake::open(second, first, size))?;
    let pace = network_flow_pace(bench, size);
    if one_by_one {
        let (put, take) = paced(put, take);
        return flow(bench, &pace, move || Ok(put), move || Ok(take));
    }
    flow(bench, &pace, move || Ok(put), move || Ok(take))
}

/// T1, one way: a raw connection between two hosts joined by veth, as fast as it goes.
pub fn tcp_flow(bench: &Bench, hosts: &Hosts, size: usize) -> Result<Sample, Fault> {
    let at = SocketAddr::new(Hosts::ADDRESSES[1], RAW_PORT);
    let connect = move || hosts.enter(0).and_then(|()| TcpPut::connect(at, size));
    let accept = move || hosts.enter(1).and_then(|()| TcpTake::accept(at, size));
    flow(bench, &network_flow_pace(bench, size), connect, accept)
}

/// T1: copying ring, one way, messages of `size` bytes written and read.
pub fn ring_flow(bench: &Bench, size: usize) -> Result<Sample, Fault> {
    let pace = flow_pace(bench, size);
    match size {
        64 => small_flow::<64>(bench),
        1024 => small_flow::<1024>(bench),
        _ => {
            let (put, take) = ring::flow(size);
            flow(bench, &pace, move || Ok(put), move || Ok(take))
        }
    }
}

fn small_flow<const SIZE: usize>(bench: &Bench) -> Result<Sample, Fault> {
    let (put, take) = ring::pair::<SIZE>();
    flow(bench, &flow_pace(bench, SIZE), move || Ok(put), move || Ok(take))
}

/// T1: ring of bare numbers, one way: the yardstick of tokens.
pub fn number_flow(bench: &Bench) -> Result<Sample, Fault> {
    let (put, take) = ring::numbers();
    flow(bench, &flow_pace(bench, 64), move || Ok(put), move || Ok(take))
}

/// A shared-memory ring set up by hand over a socket, to its first message.
pub fn ring_birth(bench: &Bench, birth: Birth) -> Result<Sample, Fault> {
    births(bench, birth, || {
        let (here, there) = UnixStream::pair().map_err(Fault::os("make a socket pair"))?;
        for socket in [&here, &there] {
            // The hand-over blocks; it must end even if the other party has failed.
            socket.set_read_timeout(Some(HANDSHAKE_BOUND)).map_err(Fault::os("bound a socket"))?;
        }
        Ok((move |_| FlowPut::offer(&here), move |_| FlowTake::accept(&there)))
    })
}
