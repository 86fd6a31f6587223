//! The engine that applications turn, whatever its links are.

use crate::links::PluginLink;
use insane_dpdk::DpdkLink;
use insane_engine::inline::InlineEngine;
use insane_rdma::RdmaLink;
use insane_tcp::TcpLink;
use insane_udp::UdpLink;
use insane_xdp::XdpLink;

/// The engine of a runtime whose applications turn it.
#[derive(Debug)]
pub enum InlineHost {
    /// All links are udp, or there is none.
    Udp(InlineEngine<UdpLink>),
    /// All links are tcp.
    Tcp(InlineEngine<TcpLink>),
    /// All links are xdp.
    Xdp(InlineEngine<XdpLink>),
    /// All links are rdma.
    Rdma(InlineEngine<RdmaLink>),
    /// All links are dpdk.
    Dpdk(InlineEngine<DpdkLink>),
    /// Several technologies.
    Mixed(InlineEngine<PluginLink>),
}

impl InlineHost {
    /// One turn, unless somebody else is at it. Says whether it moved anything. The
    /// technology is matched here, once a turn.
    ///
    /// One piece of code for all callers: what turns in vain keeps it in the cache for the turn
    /// that follows an emit.
    #[inline(never)]
    pub fn try_turn(&self) -> bool {
        match self {
            InlineHost::Udp(engine) => engine.try_turn(),
            InlineHost::Tcp(engine) => engine.try_turn(),
            InlineHost::Xdp(engine) => engine.try_turn(),
            InlineHost::Rdma(engine) => engine.try_turn(),
            InlineHost::Dpdk(engine) => engine.try_turn(),
            InlineHost::Mixed(engine) => engine.try_turn(),
        }
    }
}
