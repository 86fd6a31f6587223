//! What a link runs on, and who has to have connections on it.

use crate::core::{Core, Made};
use crate::door::Desk;
use insane_rdma_sys::Device;
use std::net::SocketAddr;
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

/// How a device gets there and back.
pub(crate) type Exchange = insane_link::Exchange<Running>;

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
