//! What a link runs on.

use dpdk_sys::Port;
use insane_netstack::{Checksums, Mac};
use std::sync::atomic::{AtomicBool, Ordering};

/// A port, and what its frames are to be like.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) port: Port,
    pub(crate) mac: Mac,
    pub(crate) checksums: Checksums,
    pub(crate) is_vdev: bool,
}

/// How a port gets there and back, and how it is. Shared by keeper and link.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    pub(crate) ports: insane_link::Exchange<Device>,
    is_failing: AtomicBool,
}

// Relaxed: it is a word for reports.
impl Exchange {
    /// Of the keeper: the port is the link's from now on.
    pub(crate) fn give(&self, device: Box<Device>) {
        self.set_failing(false);
        self.ports.give(device);
    }

    /// Of the keeper: the link finds that its port takes no frames.
    pub(crate) fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    /// Of the link: whether its port takes frames.
    pub(crate) fn set_failing(&self, is_failing: bool) {
        self.is_failing.store(is_failing, Ordering::Relaxed);
    }
}
