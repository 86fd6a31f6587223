//! Runtimes of two hosts: one over a dpdk link, the other over a kernel udp link.

mod bypass;

use bypass::{LARGEST, a_missing_link_stops_nothing_and_comes_back, conversation, exchange, hosts, plan, start};
use insane_config::{DeviceName, DpdkPlan, Technology, UdpPlan};
use insane_rt::{Hosting, Reliability, Session};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// DPDK's drivers are loaded with the first link, and some change the environment as they are:
/// another test that starts a program meanwhile may hand it one that is not there any more
/// (`EFAULT`). So these are one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Also where nobody spins: frames come without a word, and are looked for.
#[test]
fn every_size_crosses_between_dpdk_and_udp_reliable_and_not() {
    let _alone = alone();
    if let Err(reason) = dpdk_sys::check_shim(None) {
        eprintln!("passed over: {reason}");
        return;
    }
    for (number, (ours, theirs)) in
        [("10.9.0.2:7400", "10.9.0.1:7400"), ("[fd00::2]:7400", "[fd00::1]:7400")].into_iter().enumerate()
    {
        let Some(hosts) = hosts() else { return };
        let (ours, theirs) = (ours.parse().unwrap(), theirs.parse().unwrap());
        let device = DeviceName::new(&format!("net_af_packet{number},iface=x0")).unwrap();
        let mut a = plan("a", Technology::Dpdk(DpdkPlan::at(device, ours)), ("b", theirs));
        a.datapaths[0].idle = insane_config::Idle::Block;
        let b = plan("b", Technology::Udp(UdpPlan::at(theirs)), ("a", ours));
        // Threads that a runtime makes are in the namespace of the one that starts it.
        let a = hosts.ours.inside(|| start(a));
        let b = hosts.kernel.inside(|| start(b));
        exchange(conversation(&a, &b, Reliability::Reliable), Reliability::Reliable, LARGEST);
        exchange(conversation(&b, &a, Reliability::Reliable), Reliability::Reliable, LARGEST);
        exchange(conversation(&a, &b, Reliability::Unreliable), Reliability::Unreliable, LARGEST);
        // A larger one may be more than the device's ring holds while the datapath sleeps.
        exchange(conversation(&b, &a, Reliability::Unreliable), Reliability::Unreliable, 60_000);
    }
}

fn dpdk_at(device: &str) -> Technology {
    Technology::Dpdk(DpdkPlan::at(DeviceName::new(device).unwrap(), "10.9.0.2:7400".parse().unwrap()))
}

#[test]
fn a_link_that_is_the_only_one_and_does_not_open_is_told_with_its_reason() {
    let _alone = alone();
    let Some(hosts) = hosts() else { return };
    let plan = plan("a", dpdk_at("net_af_packet7,iface=x7"), ("b", "10.9.0.1:7400".parse().unwrap()));
    let error = hosts.ours.inside(|| Session::embedded_with(plan, Hosting::Thread, "dpdk").map(|_| ()).unwrap_err());
    let text = error.to_string();
    assert!(text.contains("link \"dpdk\"") && text.contains("interface x7: finding the interface"), "{text}");
}

#[test]
fn a_link_that_is_missing_stops_nothing_and_comes_back() {
    let _alone = alone();
    let counters = ["frames_device_missing", "devices_lost"];
    let cannot_be = |why: &str| why.contains("library for DPDK");
    a_missing_link_stops_nothing_and_comes_back(dpdk_at("net_af_packet8,iface=x0"), counters, cannot_be);
}
