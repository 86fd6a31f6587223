//! How what a link runs on gets to the link and back while the link is in use.
//!
//! ```text
//!   keeper (control plane)                 link (datapath)
//!        |---------- given ---------------->|   a device that was opened
//!        |<--------- returned --------------|   one that is dead, or was recalled
//!        |---------- recall --------------->|   give it back
//! ```
//! There is one device at most: the keeper opens the next when the last has come back. So each
//! way has one place, and finds it free. The link's side neither allocates nor waits.

use insane_sys::queue::TryQueue;
use std::sync::atomic::{AtomicBool, Ordering};

/// See the module's documentation. Shared by the [`LinkKeeper`](crate::LinkKeeper) and its link;
/// `D` is the device.
#[derive(Debug)]
pub struct Exchange<D> {
    given: TryQueue<Box<D>>,
    returned: TryQueue<Box<D>>,
    is_recalled: AtomicBool,
}

impl<D> Default for Exchange<D> {
    fn default() -> Self {
        Self::new()
    }
}

// All loads and stores are relaxed: the device itself is handed over by the queues.
impl<D> Exchange<D> {
    /// With no device yet.
    #[must_use]
    pub fn new() -> Self {
        Exchange { given: TryQueue::new(1), returned: TryQueue::new(1), is_recalled: AtomicBool::new(false) }
    }

    /// Of the keeper: the device is the link's from now on.
    pub fn give(&self, device: Box<D>) {
        // Of a device that came back since.
        self.is_recalled.store(false, Ordering::Relaxed);
        let refused = self.given.push(device);
        debug_assert!(refused.is_ok(), "one device at most");
    }

    /// Of the keeper: it wants the device back.
    pub fn recall(&self) {
        self.is_recalled.store(true, Ordering::Relaxed);
    }

    /// Of the keeper: the device that came back.
    #[must_use]
    pub fn take_back(&self) -> Option<Box<D>> {
        self.returned.pop()
    }

    /// Of the link: a device that was opened for it.
    #[must_use]
    pub fn take(&self) -> Option<Box<D>> {
        self.given.pop()
    }

    /// Of the link: whether it is to give its device back.
    #[must_use]
    pub fn is_recalled(&self) -> bool {
        self.is_recalled.load(Ordering::Relaxed)
    }

    /// Of the link: the device is to be closed.
    pub fn give_back(&self, device: Box<D>) {
        if let Err(device) = self.returned.push(device) {
            // A bug elsewhere must not close it here, on the datapath: leak it instead.
            Box::leak(device);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_goes_and_comes_back_and_a_recall_is_of_one_device() {
        let exchange = Exchange::new();
        assert!(exchange.take().is_none() && exchange.take_back().is_none() && !exchange.is_recalled());
        for number in 0..3 {
            exchange.give(Box::new(number));
            assert!(!exchange.is_recalled(), "the recall was of the device before");
            let device = exchange.take().unwrap();
            assert!(exchange.take().is_none());
            exchange.recall();
            assert!(exchange.is_recalled());
            exchange.give_back(device);
            assert_eq!(exchange.take_back(), Some(Box::new(number)));
        }
    }
}
