//! What a link runs on, how it gets there and back while the link is in use, and who has to
//! have connections on it.
//!
//! ```text
//!   keeper (control plane)                 link (datapath)
//!        |---------- given ---------------->|   a device that was opened, with the connections of
//!        |                                  |   all peers that were prepared before
//!        |<--------- returned --------------|   one that was recalled
//!        |---------- recall --------------->|   give it back
//! ```
//! There is one device at most: the keeper opens the next when the last has come back. So each
//! way has one place, and finds it free.

use crate::core::{Core, Made};
use crate::door::Desk;
use crossbeam_queue::ArrayQueue;
use insane_rdma_sys::Device;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A device in use.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) core: Core,
    pub(crate) generation: u64,
    /// What peers that were prepared before have on this device, until it is fetched.
    pub(crate) spares: Vec<Spare>,
}

/// See [`Running::spares`]. What the peer had on another device comes here in exchange, to be
/// freed elsewhere.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) id: u64,
    pub(crate) made: Option<Made>,
}

/// See the module's documentation. Shared by keeper and link.
#[derive(Debug)]
pub(crate) struct Exchange {
    given: ArrayQueue<Box<Running>>,
    returned: ArrayQueue<Box<Running>>,
    is_recalled: AtomicBool,
}

// All loads and stores are relaxed: the device itself is handed over by the queues.
impl Exchange {
    pub(crate) fn new() -> Self {
        Exchange { given: ArrayQueue::new(1), returned: ArrayQueue::new(1), is_recalled: AtomicBool::new(false) }
    }

    /// Of the keeper: the device is the link's from now on.
    pub(crate) fn give(&self, device: Box<Running>) {
        // Of a device that came back since.
        self.is_recalled.store(false, Ordering::Relaxed);
        let refused = self.given.push(device);
        debug_assert!(refused.is_ok(), "one device at most");
    }

    /// Of the keeper: it wants the device back.
    pub(crate) fn recall(&self) {
        self.is_recalled.store(true, Ordering::Relaxed);
    }

    /// Of the keeper: the device that came back.
    pub(crate) fn take_back(&self) -> Option<Box<Running>> {
        self.returned.pop()
    }

    /// Of the link: a device that was opened for it.
    pub(crate) fn take(&self) -> Option<Box<Running>> {
        self.given.pop()
    }

    /// Of the link: whether it is to give its device back.
    pub(crate) fn is_recalled(&self) -> bool {
        self.is_recalled.load(Ordering::Relaxed)
    }

    /// Of the link: the device is to be closed.
    pub(crate) fn give_back(&self, device: Box<Running>) {
        if let Err(device) = self.returned.push(device) {
            // A bug elsewhere must not close it here, on the datapath: leak it instead.
            Box::leak(device);
        }
    }
}

/// Where peers get their connections.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub(crate) device: Device,
    pub(crate) desk: Arc<Desk>,
    pub(crate) generation: u64,
}

/// A peer that was prepared; it is there as long as its token.
#[derive(Debug)]
struct Known {
    id: u64,
    address: SocketAddr,
    token: Weak<()>,
}

#[derive(Debug, Default)]
struct Book {
    opened: Option<Opened>,
    generations: u64,
    ids: u64,
    known: Vec<Known>,
}

/// Peers and the device that there is for them: a peer gets its connections either from whoever
/// prepares it, or from whoever opens the next device, and never from neither. Of the control
/// plane; a link never locks it.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<Book>);

/// A peer's place in the registry.
#[derive(Debug)]
pub(crate) struct Enrolled {
    pub(crate) id: u64,
    pub(crate) token: Arc<()>,
    /// The device that it is to have connections on; `None`: the next.
    pub(crate) opened: Option<Opened>,
}

impl Registry {
    fn book(&self) -> MutexGuard<'_, Book> {
        // Nothing in it is half done between two statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn enrol(&self, address: SocketAddr) -> Enrolled {
        let mut book = self.book();
        book.known.retain(|known| known.token.strong_count() > 0);
        book.ids += 1;
        let (id, token) = (book.ids, Arc::new(()));
        book.known.push(Known { id, address, token: Arc::downgrade(&token) });
        Enrolled { id, token, opened: book.opened.clone() }
    }

    /// A device was opened. Returns it as peers have it from now on, and those that were prepared
    /// before: number and address.
    pub(crate) fn publish(&self, device: Device, desk: Arc<Desk>) -> (Opened, Vec<(u64, SocketAddr)>) {
        let mut book = self.book();
        book.generations += 1;
        let opened = Opened { device, desk, generation: book.generations };
        book.opened = Some(opened.clone());
        let alive = book.known.iter().filter(|known| known.token.strong_count() > 0);
        let before = alive.map(|known| (known.id, known.address)).collect();
        (opened, before)
    }

    /// The device goes.
    pub(crate) fn withdraw(&self) {
        self.book().opened = None;
    }

    pub(crate) fn opened(&self) -> Option<Opened> {
        self.book().opened.clone()
    }
}
