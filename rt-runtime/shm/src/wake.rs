//! Waking a receiver that sleeps, or telling one that has stopped looking; the protocol is in
//! `wish`.
//!
//! A sender never blocks: a futex wake-up, an eventfd that is only ever added to, a
//! byte by `MSG_DONTWAIT`. It makes one system call for each wish of the receiver. A
//! receiver sleeps on words that only its senders write, each its own, or on a
//! descriptor, which keeps what was signalled. Every sleep has a timeout besides.

use crate::cell::{BELL, Cells, QUIET};
use crate::region::{Region, RegionCells, RegionWord};
use crate::sync::{AtomicU32, AtomicU64};
use crate::wish::{Answer, Wish};
use insane_sys::futex;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a wake page.
pub const WAKE_PAGE_BYTES: usize = 4096;

/// Word of a wake page that is odd while its owner sleeps.
const ASLEEP: usize = 0;
/// Word of a wake page that stays zero: who sleeps on a page and is no datapath always looks at
/// all of its rings.
const NEVER_QUIET: usize = 1;

/// The receiver's side of its wake page.
#[derive(Debug)]
pub struct Sleeper {
    word: RegionWord,
    wish: Wish,
}

impl Sleeper {
    /// # Panics
    /// If the page is not writable, or has its sleeper already.
    #[must_use]
    pub fn new(page: Arc<Region>) -> Self {
        page.claim_writer();
        let word = RegionWord::new(page, ASLEEP);
        let wish = Wish::new(&word);
        Sleeper { word, wish }
    }

    /// Asks to be woken. The caller then looks at its rings once more before it sleeps.
    pub fn arm(&mut self) {
        self.wish.arm(&self.word);
    }

    /// Asks no longer.
    pub fn disarm(&mut self) {
        self.wish.disarm(&self.word);
    }

    /// Whether senders are asked to wake.
    #[must_use]
    pub const fn is_armed(&self) -> bool {
        self.wish.is_armed()
    }
}

/// How a sender wakes.
#[derive(Debug)]
pub enum How {
    /// By futex, on the bell of its connection.
    Futex,
    /// By one byte on a socket.
    Socket(OwnedFd),
    /// By an eventfd.
    Event(OwnedFd),
}

/// A sender's side of a receiver's wake page.
#[derive(Debug)]
pub struct Waker {
    asleep: RegionWord,
    quiet: RegionWord,
    how: Arc<How>,
    answer: Answer,
}

impl Waker {
    /// A waker for the receiver that owns `page`.
    #[must_use]
    pub fn new(page: Arc<Region>, how: How) -> Self {
        let quiet = RegionWord::new(Arc::clone(&page), NEVER_QUIET);
        Waker { asleep: RegionWord::new(page, ASLEEP), quiet, how: Arc::new(how), answer: Answer::default() }
    }

    /// A waker for the datapath that owns `page` and writes `returns`: it may stop looking at
    /// the connection to which they belong, and is told then as if it slept.
    ///
    /// # Panics
    /// If `returns` holds no cell.
    #[must_use]
    pub fn of_datapath(page: Arc<Region>, returns: Arc<Region>, how: How) -> Self {
        Waker { quiet: RegionWord::new(returns, QUIET), ..Waker::new(page, how) }
    }

    /// Whether the receiver asks to be woken, or told of the next message of this connection,
    /// and was not yet. Call after publishing; `published`: how many messages were by this
    /// connection.
    #[inline]
    pub fn is_wanted(&mut self, published: u64) -> bool {
        self.answer.is_wanted((&self.asleep, &self.quiet), published)
    }

    /// The wishes that were answered last count as unanswered: nobody was woken after all.
    pub(crate) fn forget(&mut self) {
        self.answer = Answer::default();
    }

    /// As [`wake`](Self::wake), but the system call is left to whoever runs the errand.
    pub(crate) fn errand(&self, cells: &RegionCells, ring: impl FnOnce()) -> Errand {
        if matches!(*self.how, How::Futex) {
            ring();
        }
        Errand { how: Arc::clone(&self.how), cells: cells.clone() }
    }

    /// Wakes the receiver: one system call that never blocks. `ring` counts up the bell
    /// and is called only if the receiver may sleep on it.
    #[cold]
    pub(crate) fn wake<'b>(&self, ring: impl FnOnce() -> &'b AtomicU64) {
        match &*self.how {
            How::Futex => wake_sleepers(ring()),
            by_fd => by_fd.signal(),
        }
    }
}

impl How {
    fn signal(&self) {
        match self {
            How::Futex => {}
            How::Socket(fd) => {
                let _ = insane_sys::seqpacket::wake_send(fd.as_fd());
            }
            How::Event(fd) => {
                let _ = insane_sys::event::signal(fd.as_fd());
            }
        }
    }
}

/// A wake-up of which only the system call is left, for another thread to make. It keeps
/// what it touches: the connection may be gone by then. The bell stays with its one
/// writer, who has counted it up already.
#[derive(Debug)]
pub struct Errand {
    how: Arc<How>,
    cells: RegionCells,
}

impl Errand {
    /// Makes the system call; it never blocks.
    pub fn run(self) {
        match &*self.how {
            How::Futex => wake_sleepers(&self.cells.cell(0)[BELL]),
            by_fd => by_fd.signal(),
        }
    }
}

/// The half of a bell that a futex looks at: it has 32 bits.
fn low_half(bell: &AtomicU64) -> *mut u32 {
    let half = if cfg!(target_endian = "big") { 1 } else { 0 };
    bell.as_ptr().cast::<u32>().wrapping_add(half)
}

/// Wakes who sleeps on a bell. Call after counting it up.
pub(crate) fn wake_sleepers(bell: &AtomicU64) {
    // SAFETY: half of a live, aligned word. It is passed to the kernel by address and
    // never accessed as 32 bits here.
    let half = unsafe { AtomicU32::from_ptr(low_half(bell)) };
    let _ = futex::wake(half, u32::MAX);
}

/// A bell and what it read before the last look at the rings.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Watched {
    // As the kernel's `struct futex_waitv`.
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

const _: () = assert!(size_of::<Watched>() == 24);
/// `FUTEX2_SIZE_U32`; without the private flag, since senders are other processes.
const WORD_OF_32_BITS: u32 = 2;
/// How long a sleep is where the kernel does not know, or a sandbox forbids, sleeping on
/// several words (Linux 5.16).
const SLICE: Duration = Duration::from_millis(1);

impl Watched {
    /// The bell stays mapped until the sleep is over: the caller keeps its region.
    pub(crate) fn new(bell: &AtomicU64, value: u64) -> Self {
        let address = low_half(bell) as u64;
        Watched { value: u64::from(value as u32), address, flags: WORD_OF_32_BITS, reserved: 0 }
    }
}

/// Sleeps while every bell reads as it did, at most `timeout`. May return early.
pub(crate) fn sleep(bells: &[Watched], timeout: Duration) {
    let until = insane_sys::clock::mono_now() + timeout.into();
    let until = libc::timespec {
        tv_sec: libc::time_t::try_from(until.0 / 1_000_000_000).unwrap_or(libc::time_t::MAX),
        tv_nsec: (until.0 % 1_000_000_000) as libc::c_long,
    };
    let count = bells.len() as libc::c_uint;
    // SAFETY: `bells` has the kernel's layout and `count` entries; `until` is a local. A
    // bad address in an entry would be an error of the call, not an access.
    let result = unsafe {
        libc::syscall(libc::SYS_futex_waitv, bells.as_ptr(), count, 0_u32, &raw const until, libc::CLOCK_MONOTONIC)
    };
    let unknown = result < 0
        && std::io::Error::last_os_error()
            .raw_os_error()
            .is_some_and(|errno| errno == libc::ENOSYS || errno == libc::EPERM);
    if unknown {
        std::thread::sleep(timeout.min(SLICE));
    }
}
