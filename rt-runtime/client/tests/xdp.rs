//! Runtimes of two hosts: one over an xdp link, the other over a kernel udp link.

mod bypass;

use bypass::{LARGEST, a_missing_link_stops_nothing_and_comes_back, conversation, exchange, hosts, plan, start};
use insane_config::raw::XdpMode;
use insane_config::{InterfaceName, Technology, UdpPlan, XdpPlan};
use insane_rt::{Hosting, Reliability, Session};

#[test]
fn every_size_crosses_between_xdp_and_udp_reliable_and_not() {
    for (mode, ours, theirs) in
        [(XdpMode::Native, "10.9.0.2:7400", "10.9.0.1:7400"), (XdpMode::Skb, "[fd00::2]:7400", "[fd00::1]:7400")]
    {
        let Some(hosts) = hosts() else { return };
        let (ours, theirs) = (ours.parse().unwrap(), theirs.parse().unwrap());
        let xdp = XdpPlan { mode, ..XdpPlan::at(InterfaceName::new("x0").unwrap(), ours) };
        let a = plan("a", Technology::Xdp(xdp), ("b", theirs));
        let b = plan("b", Technology::Udp(UdpPlan::at(theirs)), ("a", ours));
        // Threads that a runtime makes are in the namespace of the one that starts it.
        let a = hosts.ours.inside(|| start(a));
        let b = hosts.kernel.inside(|| start(b));
        for reliability in [Reliability::Reliable, Reliability::Unreliable] {
            exchange(conversation(&a, &b, reliability), reliability, LARGEST);
            exchange(conversation(&b, &a, reliability), reliability, LARGEST);
        }
    }
}

#[test]
fn a_link_that_is_missing_stops_nothing_and_comes_back() {
    let xdp = XdpPlan::at(InterfaceName::new("x0").unwrap(), "10.9.0.2:7400".parse().unwrap());
    let counters = ["frames_interface_missing", "interfaces_lost"];
    a_missing_link_stops_nothing_and_comes_back(Technology::Xdp(xdp), counters, |_| false);
}

#[test]
fn a_link_that_does_not_open_is_told_with_its_reason() {
    let Some(hosts) = hosts() else { return };
    let xdp = XdpPlan::at(InterfaceName::new("x7").unwrap(), "10.9.0.2:7400".parse().unwrap());
    let plan = plan("a", Technology::Xdp(xdp), ("b", "10.9.0.1:7400".parse().unwrap()));
    let error = hosts.ours.inside(|| Session::embedded_with(plan, Hosting::Thread, "xdp").map(|_| ()).unwrap_err());
    let text = error.to_string();
    assert!(text.contains("link \"xdp\": interface x7: finding the interface failed"), "{text}");
}
