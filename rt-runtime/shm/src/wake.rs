//! Waking a receiver that sleeps.
//!
//! The receiver's wake page holds one word that only it writes: odd while it wants to
//! be woken, even while it does not; it grows by one at each change, so a sender knows
//! whether it has already answered this very wish and makes one system call for it.
//!
//! Nobody is missed: the receiver stores the odd word, *then* (SeqCst fence) looks at
//! its rings once more and sleeps; the sender publishes, *then* (SeqCst fence) looks at
//! the word. One of the two sees the other. Every sleep has a timeout besides.
//!
//! A sender never blocks: a futex wake-up, an eventfd that is only ever added to, a
//! byte by `MSG_DONTWAIT`.

use crate::region::Region;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::Duration;

/// Bytes of a wake page.
pub const WAKE_PAGE_BYTES: usize = 4096;

fn word(region: &Region) -> &AtomicU32 {
    debug_assert!(region.len() >= 4);
    // SAFETY: a region is page-aligned and holds at least one byte's page; the word is
    // atomic, so others may write it.
    unsafe { &*region.as_ptr().cast::<AtomicU32>() }
}

/// The receiver's side of its wake page.
#[derive(Debug)]
pub struct Sleeper {
    page: Arc<Region>,
    value: u32,
}

impl Sleeper {
    /// # Panics
    /// If the page is not writable.
    #[must_use]
    pub fn new(page: Arc<Region>) -> Self {
        assert!(page.is_writable());
        let value = word(&page).load(Ordering::Relaxed) & !1;
        Sleeper { page, value }
    }

    /// Asks to be woken. The caller then looks at its rings once more before it sleeps.
    pub fn arm(&mut self) {
        self.value = self.value.wrapping_add(1) | 1;
        word(&self.page).store(self.value, Ordering::Relaxed);
        // SeqCst pairs with the fence in `Waker::is_wanted`.
        fence(Ordering::SeqCst);
    }

    /// Asks no longer.
    pub fn disarm(&mut self) {
        if self.value & 1 == 1 {
            self.value = self.value.wrapping_add(1);
            word(&self.page).store(self.value, Ordering::Relaxed);
        }
    }

    /// Whether senders are asked to wake.
    #[must_use]
    pub const fn is_armed(&self) -> bool {
        self.value & 1 == 1
    }

    /// Sleeps until a sender wakes, or `timeout` is over. May return early.
    pub fn sleep(&self, timeout: Duration) {
        let _ = insane_sys::futex::wait(word(&self.page), self.value, Some(timeout));
    }
}

/// How a sender wakes.
#[derive(Debug)]
pub enum How {
    /// By futex on the wake page.
    Futex,
    /// By one byte on a socket.
    Socket(OwnedFd),
    /// By an eventfd.
    Event(OwnedFd),
}

/// A sender's side of a receiver's wake page.
#[derive(Debug)]
pub struct Waker {
    page: Arc<Region>,
    how: How,
    answered: u32,
}

impl Waker {
    /// A waker for the receiver that owns `page`.
    #[must_use]
    pub fn new(page: Arc<Region>, how: How) -> Self {
        Waker { page, how, answered: 0 }
    }

    /// Whether the receiver asks to be woken and was not yet. Call after publishing.
    #[inline]
    pub fn is_wanted(&mut self) -> bool {
        // SeqCst pairs with the fence in `Sleeper::arm`.
        fence(Ordering::SeqCst);
        let wish = word(&self.page).load(Ordering::Relaxed);
        if wish & 1 == 0 || wish == self.answered {
            return false;
        }
        self.answered = wish;
        true
    }

    /// Wakes the receiver: one system call that never blocks.
    #[cold]
    pub fn wake(&self) {
        match &self.how {
            How::Futex => {
                let _ = insane_sys::futex::wake(word(&self.page), 1);
            }
            How::Socket(fd) => {
                let _ = insane_sys::seqpacket::wake_send(fd.as_fd());
            }
            How::Event(fd) => {
                let _ = insane_sys::event::signal(fd.as_fd());
            }
        }
    }
}
