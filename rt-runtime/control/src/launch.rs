//! Whether the slots of a datapath are handed over ahead, with launch times: decided once, at
//! the start, for all its links together. Frames that are handed over ahead where nothing
//! holds them back would leave early; so all honour launch times, or none is given one.

use insane_config::{DatapathPlan, LinkPlan, Plan, Technology};
use insane_core::Nanos;
use insane_udp::launch_queue;

/// How long before their start slots are handed over; zero: not ahead.
pub(crate) fn lead(datapath: &DatapathPlan) -> Nanos {
    datapath.links.iter().map(lead_of).min().unwrap_or(Nanos::ZERO)
}

const fn lead_of(link: &LinkPlan) -> Nanos {
    match &link.technology {
        Technology::Udp(udp) => udp.launch_lead,
        Technology::Tcp(_) | Technology::Xdp(_) | Technology::Dpdk(_) | Technology::Rdma(_) => Nanos::ZERO,
    }
}

/// Takes launch times out of the plan where they are not honoured, and says why.
pub(crate) fn settle(plan: &mut Plan) -> Vec<String> {
    let mut reasons = Vec::new();
    for datapath in &mut plan.datapaths {
        if datapath.links.iter().all(|link| lead_of(link) == Nanos::ZERO) {
            continue;
        }
        let Some(reason) = datapath.links.iter().find_map(objection) else { continue };
        reasons.push(format!("{reason}; slots of datapath \"{}\" are kept by its thread", datapath.name));
        for link in &mut datapath.links {
            if let Technology::Udp(udp) = &mut link.technology {
                udp.launch_lead = Nanos::ZERO;
            }
        }
    }
    reasons
}

/// Why frames that are handed over ahead are not held back any more; `None`: they are, or none
/// are handed over ahead. It asks the kernel for all queues: not for a hot path.
pub(crate) fn gone(datapath: &DatapathPlan) -> Option<String> {
    if lead(datapath) == Nanos::ZERO { None } else { datapath.links.iter().find_map(objection) }
}

/// Why a link has no launch times.
fn objection(link: &LinkPlan) -> Option<String> {
    let told = |why: &str| Some(format!("launch times of link \"{}\" are not honoured: {why}", link.name));
    let Technology::Udp(udp) = &link.technology else { return told("tcp has none") };
    if udp.launch_lead == Nanos::ZERO {
        return told("it has no launch_lead_us, and another link of its datapath does");
    }
    let Some(rate) = link.rate else { return told("it has no rate_mbps, and so no slots") };
    match launch_queue(udp.bind, udp.launch_lead) {
        Ok(queue) if u64::from(queue.delta_ns) > rate.turn.0 => {
            told(&format!("{queue}, and turn_us allows {}", rate.turn))
        }
        Ok(_) => None,
        Err(why) => told(&why.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insane_config::RatePlan;

    fn plan(lead: Nanos, rate: Option<RatePlan>) -> Plan {
        let mut plan = Plan::embedded_udp("net", ([127, 0, 0, 1], 7_000).into());
        let link = &mut plan.datapaths[0].links[0];
        link.rate = rate;
        if let Technology::Udp(udp) = &mut link.technology {
            udp.launch_lead = lead;
        }
        plan
    }

    #[test]
    fn without_the_queue_the_reason_is_told_and_slots_are_kept_by_the_thread() {
        let mut plan = plan(Nanos::from_millis(1), Some(RatePlan::of(1_000)));
        let name = plan.datapaths[0].links[0].name.clone();
        assert_eq!(lead(&plan.datapaths[0]), Nanos::from_millis(1));
        let told = settle(&mut plan);
        let start = format!("launch times of link \"{name}\" are not honoured: lo has no etf queue");
        assert!(told.len() == 1 && told[0].starts_with(&start), "{told:?}");
        assert_eq!(lead(&plan.datapaths[0]), Nanos::ZERO);
        assert_eq!(settle(&mut plan), [""; 0], "there is nothing more to tell");
    }

    #[test]
    fn a_queue_that_is_gone_is_noticed_where_frames_are_handed_over_ahead() {
        let mut plan = plan(Nanos::from_millis(1), Some(RatePlan::of(1_000)));
        // As if it had been there at the start.
        let why = gone(&plan.datapaths[0]).expect("lo has no such queue");
        assert!(why.contains("lo has no etf queue"), "{why}");
        settle(&mut plan);
        assert_eq!(gone(&plan.datapaths[0]), None, "nothing is handed over ahead");
    }

    #[test]
    fn without_a_rate_there_are_no_slots_to_launch() {
        let told = settle(&mut plan(Nanos::from_millis(1), None));
        assert!(told[0].contains("no rate_mbps"), "{told:?}");
    }

    #[test]
    fn who_asks_for_nothing_is_told_nothing() {
        assert_eq!(settle(&mut plan(Nanos::ZERO, Some(RatePlan::of(1_000)))), [""; 0]);
    }

    #[test]
    fn one_link_without_launch_times_takes_them_from_the_others() {
        let mut plan = plan(Nanos::from_millis(1), Some(RatePlan::of(1_000)));
        let mut other = plan.datapaths[0].links[0].clone();
        other.name = "other".into();
        if let Technology::Udp(udp) = &mut other.technology {
            udp.launch_lead = Nanos::ZERO;
        }
        plan.datapaths[0].links.insert(0, other);
        assert_eq!(lead(&plan.datapaths[0]), Nanos::ZERO);
        let told = settle(&mut plan);
        assert!(told[0].contains("another link of its datapath does"), "{told:?}");
        assert!(plan.datapaths[0].links.iter().all(|link| lead_of(link) == Nanos::ZERO));
    }
}
