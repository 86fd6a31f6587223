//! What a link runs on, and how it gets there and back while the link is in use.
//!
//! ```text
//!   keeper (control plane)                 link (datapath)
//!        |---------- given ---------------->|   a device that was opened
//!        |<--------- returned --------------|   one that is dead, or was recalled
//!        |---------- recall --------------->|   give it back
//! ```
//! There is one device at most: the keeper opens the next when the last has come back. So each
//! way has one place, and finds it free.

use crate::config::Mode;
use crate::program::Program;
use crossbeam_queue::ArrayQueue;
use insane_netstack::{Checksums, Mac};
use insane_xdp_sys::Xsk;
use std::sync::atomic::{AtomicBool, Ordering};

/// Sockets and program of an interface, as it was when they were opened.
#[derive(Debug)]
pub(crate) struct Device {
    /// Detached when it is dropped, and so before the sockets.
    _program: Program,
    pub(crate) xsk: Xsk,
    pub(crate) mode: Mode,
    pub(crate) mac: Mac,
    pub(crate) checksums: Checksums,
}

impl Device {
    pub(crate) fn new(program: Program, xsk: Xsk, mode: Mode, mac: Mac, checksums: Checksums) -> Box<Self> {
        Box::new(Device { _program: program, xsk, mode, mac, checksums })
    }
}

/// See the module's documentation. Shared by keeper and link.
#[derive(Debug)]
pub(crate) struct Exchange {
    given: ArrayQueue<Box<Device>>,
    returned: ArrayQueue<Box<Device>>,
    is_recalled: AtomicBool,
}

impl Exchange {
    pub(crate) fn new() -> Self {
        Exchange { given: ArrayQueue::new(1), returned: ArrayQueue::new(1), is_recalled: AtomicBool::new(false) }
    }

    /// Of the keeper: the device is the link's from now on.
    pub(crate) fn give(&self, device: Box<Device>) {
        // Of a device that came back since.
        self.is_recalled.store(false, Ordering::Relaxed);
        let refused = self.given.push(device);
        debug_assert!(refused.is_ok(), "one device at most");
    }

    /// Of the keeper: it wants the device back.
    pub(crate) fn recall(&self) {
        // Relaxed: the device itself is handed over by the queue.
        self.is_recalled.store(true, Ordering::Relaxed);
    }

    /// Of the keeper: the device that came back.
    pub(crate) fn take_back(&self) -> Option<Box<Device>> {
        self.returned.pop()
    }

    /// Of the link: a device that was opened for it.
    pub(crate) fn take(&self) -> Option<Box<Device>> {
        self.given.pop()
    }

    /// Of the link: whether it is to give its device back.
    pub(crate) fn is_recalled(&self) -> bool {
        self.is_recalled.load(Ordering::Relaxed)
    }

    /// Of the link: the device is to be closed.
    pub(crate) fn give_back(&self, device: Box<Device>) {
        if let Err(device) = self.returned.push(device) {
            // A bug elsewhere must not close it here, on the datapath: leak it instead.
            Box::leak(device);
        }
    }
}
