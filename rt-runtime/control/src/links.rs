//! Opening the links of a datapath.

use crate::start::StartError;
use insane_config::{DatapathPlan, LinkPlan, Technology, UdpPlan};
use insane_core::PeerIndex;
use insane_link::{Link, LinkSetup};
use insane_udp::{UdpConfig, UdpSetup};
use insane_wire::status::LinkStatus;
use std::collections::BTreeSet;

/// The links that datapaths drive. One kind so far; an enum of technologies takes its
/// place here, and nowhere else.
pub type PluginLink = insane_udp::UdpLink;

/// The links of one datapath.
#[derive(Debug)]
pub(crate) struct OpenLinks {
    pub(crate) links: Vec<PluginLink>,
    /// By which link each peer is reached: the first that has an address for it.
    pub(crate) of_peer: Vec<Option<usize>>,
    pub(crate) status: Vec<LinkStatus>,
}

/// The peers that the links of a datapath reach.
pub(crate) fn peers_of(datapath: &DatapathPlan) -> BTreeSet<PeerIndex> {
    let addresses = datapath.links.iter().flat_map(|link| link.peers.iter().enumerate());
    addresses.filter(|(_, address)| address.is_some()).map(|(at, _)| PeerIndex(at as u16)).collect()
}

/// Opens all links of a datapath.
pub(crate) fn open(datapath: &DatapathPlan, peers: usize) -> Result<OpenLinks, StartError> {
    let mut open = OpenLinks { links: Vec::new(), of_peer: vec![None; peers], status: Vec::new() };
    for (at, plan) in datapath.links.iter().enumerate() {
        let (link, status) = open_link(datapath, plan)?;
        open.links.push(link);
        open.status.push(status);
        for (peer, link) in open.of_peer.iter_mut().enumerate() {
            if link.is_none() && plan.peers.get(peer).copied().flatten().is_some() {
                *link = Some(at);
            }
        }
    }
    Ok(open)
}

fn open_link(datapath: &DatapathPlan, plan: &LinkPlan) -> Result<(PluginLink, LinkStatus), StartError> {
    let failed = |source| StartError::Link { datapath: datapath.name.clone(), link: plan.name.clone(), source };
    match plan.technology {
        Technology::Udp(udp) => {
            let setup = UdpSetup::bind(udp_config(&udp)).map_err(failed)?;
            let address = setup.local_addr();
            let link = setup.open(&plan.peers).map_err(failed)?;
            let capabilities = link.capabilities();
            let status = LinkStatus {
                name: plan.name.clone(),
                technology: capabilities.technology.to_owned(),
                address: address.to_string(),
                up: true,
                frame_bytes_max: capabilities.frame_bytes_max,
            };
            Ok((link, status))
        }
    }
}

fn udp_config(plan: &UdpPlan) -> UdpConfig {
    UdpConfig {
        bind: plan.bind,
        frame_bytes_max: plan.frame_bytes_max,
        receive_buffer_bytes: Some(plan.receive_buffer_bytes),
        send_buffer_bytes: Some(plan.send_buffer_bytes),
        busy_poll_us: (plan.busy_poll_us > 0).then_some(plan.busy_poll_us),
        real_time_dscp: plan.real_time_dscp,
    }
}
