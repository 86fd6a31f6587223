//! Baselines: what a competent engineer would write by hand for the same job.

pub mod dpdk;
pub mod futex;
pub mod ring;
pub mod tcp;
pub mod tcp_flow;
pub mod udp;
pub mod udp_flow;
pub mod verbs;
pub mod xdp;
