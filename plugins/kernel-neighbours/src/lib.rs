//! What a link past the kernel borrows from it: neighbours, an address, and two ports.
//!
//! ```text
//!   link (datapath)              follower (a thread)                    kernel
//!      |--- who is to be found --->|--- asks, makes it look (netlink) --->|
//!      |<-- where somebody is -----|<-- answers, and every change --------|
//! ```
//! Both ways are queues of fixed size, of which the link's ends neither wait nor allocate; it
//! looks when it is tended. The follower keeps who was asked for last, as many as a link has
//! places for. Word about others it drops, however large the kernel's table is.
//!
//! What is lost is asked for again: where the kernel had no room for a notification, or the link
//! none for a word, each of those addresses is asked for once more. The kernel is made to look
//! only by a question whose answer is old or none, so the link's own pace
//! ([`insane_netstack::Neighbours`]) bounds what goes over the network.
#![forbid(unsafe_code)]

mod follower;
mod ports;

use follower::Follower;
use insane_netstack::{NEIGHBOURS, Told};
use insane_sys::event::Event;
use insane_sys::neighbours::NeighbourTable;
use insane_sys::queue::TryQueue;
use insane_sys::{Errno, OsError, host};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;

pub use ports::HeldPorts;

/// Words that may wait for the link: several about each of its neighbours.
pub const WORDS: usize = 4 * NEIGHBOURS;

/// What the thread and the link share.
#[derive(Debug)]
struct Shared {
    /// The interface whose neighbours count; 0: none.
    interface: AtomicU32,
    questions: TryQueue<IpAddr>,
    words: TryQueue<(IpAddr, Told)>,
    /// There are questions, another interface, or it is over.
    wake: Event,
    is_over: AtomicBool,
    refused: AtomicU64,
}

/// The kernel's neighbours at one interface, followed by a thread that ends when this is dropped.
/// Link and keeper share it.
#[derive(Debug)]
pub struct KernelNeighbours {
    shared: Arc<Shared>,
    handle: Option<JoinHandle<()>>,
}

// Loads and stores are relaxed but the end: words go by queues, and what counts is asked for anew.
impl KernelNeighbours {
    /// Of the network namespace of the calling thread; of no interface yet.
    ///
    /// # Errors
    /// No descriptor or thread is to be had, or the kernel has no rtnetlink.
    pub fn start() -> Result<Self, OsError> {
        let shared = Arc::new(Shared::new()?);
        let follower = Follower::new(Arc::clone(&shared), NeighbourTable::new()?)?;
        let thread = std::thread::Builder::new().name("insane-neighs".into());
        let handle = thread.spawn(move || follower.run()).map_err(|error| {
            let errno = error.raw_os_error().map_or(Errno::EAGAIN, Errno::from_raw);
            OsError::new("starting a thread", errno)
        })?;
        Ok(KernelNeighbours { shared, handle: Some(handle) })
    }

    /// Of the keeper: the interface, by its number, whose neighbours count from now on; 0: none.
    pub fn set_interface(&self, interface: u32) {
        self.shared.interface.store(interface, Ordering::Relaxed);
    }

    /// Of the link: this neighbour is to be found. Whoever finds no room is asked for again by the
    /// link anyway. The thread is woken by [`wake`](Self::wake).
    pub fn ask(&self, address: IpAddr) {
        let _ = self.shared.questions.push(address);
    }

    /// Of the link: there were questions. A call of the system.
    pub fn wake(&self) {
        let _ = self.shared.wake.signal();
    }

    /// Of the link: the next word of the kernel's. There may be more than a link has places for.
    #[must_use]
    pub fn next_word(&self) -> Option<(IpAddr, Told)> {
        self.shared.words.pop()
    }

    /// How often the kernel refused to look for somebody, or to say where somebody is.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }
}

impl Drop for KernelNeighbours {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        self.wake();
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

impl Shared {
    fn new() -> Result<Self, OsError> {
        Ok(Shared {
            interface: AtomicU32::new(0),
            questions: TryQueue::new(NEIGHBOURS),
            words: TryQueue::new(WORDS),
            wake: Event::new()?,
            is_over: AtomicBool::new(false),
            refused: AtomicU64::new(0),
        })
    }
}

/// Whether an interface of the kernel's has this address.
///
/// # Errors
/// The kernel refuses to tell.
pub fn has_address(interface: &str, address: IpAddr) -> Result<bool, OsError> {
    let all = host::interface_addresses()?;
    // An address with a label is told under that: `eth0:1`.
    let is_of = |name: &str| name.split(':').next() == Some(interface);
    Ok(all.iter().any(|(name, ip)| is_of(name) && *ip == address))
}
