//! What a link runs on, and how it gets there and back while the link is in use.
//!
//! ```text
//!   keeper (control plane)                 link (datapath)
//!        |---------- given ---------------->|   a port that was opened
//!        |<--------- returned --------------|   one that was recalled, with all of its frames
//!        |---------- recall --------------->|   give it back
//!        |<--------- failing ---------------|   the port takes no frames
//! ```
//! There is one port at most: the keeper opens the next when the last has come back. So each
//! way has one place, and finds it free.

use crossbeam_queue::ArrayQueue;
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

/// See the module's documentation. Shared by keeper and link.
#[derive(Debug)]
pub(crate) struct Exchange {
    given: ArrayQueue<Box<Device>>,
    returned: ArrayQueue<Box<Device>>,
    is_recalled: AtomicBool,
    is_failing: AtomicBool,
}

// All loads and stores are relaxed: the port itself is handed over by the queues.
impl Exchange {
    pub(crate) fn new() -> Self {
        Exchange {
            given: ArrayQueue::new(1),
            returned: ArrayQueue::new(1),
            is_recalled: AtomicBool::new(false),
            is_failing: AtomicBool::new(false),
        }
    }

    /// Of the keeper: the device is the link's from now on.
    pub(crate) fn give(&self, device: Box<Device>) {
        // Of a device that came back since.
        self.is_recalled.store(false, Ordering::Relaxed);
        self.is_failing.store(false, Ordering::Relaxed);
        let refused = self.given.push(device);
        debug_assert!(refused.is_ok(), "one device at most");
    }

    /// Of the keeper: it wants the device back.
    pub(crate) fn recall(&self) {
        self.is_recalled.store(true, Ordering::Relaxed);
    }

    /// Of the keeper: the device that came back.
    pub(crate) fn take_back(&self) -> Option<Box<Device>> {
        self.returned.pop()
    }

    /// Of the keeper: the link finds that its port takes no frames.
    pub(crate) fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    /// Of the link: a device that was opened for it.
    pub(crate) fn take(&self) -> Option<Box<Device>> {
        self.given.pop()
    }

    /// Of the link: whether it is to give its device back.
    pub(crate) fn is_recalled(&self) -> bool {
        self.is_recalled.load(Ordering::Relaxed)
    }

    /// Of the link: whether its port takes frames.
    pub(crate) fn set_failing(&self, is_failing: bool) {
        self.is_failing.store(is_failing, Ordering::Relaxed);
    }

    /// Of the link: the device is to be closed.
    pub(crate) fn give_back(&self, device: Box<Device>) {
        if let Err(device) = self.returned.push(device) {
            // A bug elsewhere must not close it here, on the datapath: leak it instead.
            Box::leak(device);
        }
    }
}
