//! A ring that one side of kernel and process fills and the other empties.
//!
//! ```text
//!   consumer          producer                    index modulo size
//!      |                 |
//!  ----+-----------------+-----------------
//!      |  filled         |  empty
//! ```
//! Both counters only grow, and wrap. The producer writes an entry, then publishes its counter
//! (release); the consumer looks at that counter (acquire), reads, then publishes its own
//! (release), which the producer looks at (acquire) before it writes there again.

use insane_sys::OsError;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering, fence};

/// An entry of a ring: numbers only, so that any bytes are one.
///
/// # Safety
/// Every bit pattern is a value, and the layout is the kernel's.
pub(crate) unsafe trait Entry: Copy {}

// SAFETY: an address: any number.
unsafe impl Entry for u64 {}
// SAFETY: three numbers.
unsafe impl Entry for libc::xdp_desc {}

/// A mapping of a ring, and where in it things are.
#[derive(Debug)]
struct Map {
    start: NonNull<u8>,
    len: usize,
    offsets: libc::xdp_ring_offset,
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: mapped by `Ring::map`; no reference into it outlives the ring.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// One ring. Whether the process fills or empties it, its owner knows.
#[derive(Debug)]
pub(crate) struct Ring<E> {
    map: Map,
    size: u32,
    /// The process's own counter: not read back from memory.
    mine: u32,
    /// The kernel's, as it was looked at last.
    theirs: u32,
    entries: PhantomData<E>,
}

// SAFETY: the mapping belongs to the process and is bound to no thread; all access goes by
// `&mut self`, or by atomics.
unsafe impl<E: Send> Send for Ring<E> {}

impl<E: Entry> Ring<E> {
    /// Maps a ring of `size` entries (a power of two) that the socket was told to have.
    pub(crate) fn map(
        socket: BorrowedFd<'_>,
        page_offset: i64,
        offsets: libc::xdp_ring_offset,
        size: u32,
    ) -> Result<Self, OsError> {
        let len = offsets.desc as usize + size as usize * size_of::<E>();
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, socket.as_raw_fd(), page_offset) };
        let start = match NonNull::new(start.cast::<u8>()) {
            Some(mapped) if start != libc::MAP_FAILED => mapped,
            _ => return Err(OsError::last("mapping a ring of the socket")),
        };
        Ok(Ring { map: Map { start, len, offsets }, size, mine: 0, theirs: 0, entries: PhantomData })
    }

    fn word(&self, offset: u64) -> &AtomicU32 {
        // SAFETY: the kernel gave the offset of an aligned word in front of the entries, inside
        // the mapping, which lives as long as `self`.
        unsafe { self.map.start.add(offset as usize).cast().as_ref() }
    }

    fn entry(&self, number: u32) -> NonNull<E> {
        let at = self.map.offsets.desc as usize + (number & (self.size - 1)) as usize * size_of::<E>();
        // SAFETY: `size` is a power of two, so the entry lies inside the mapping.
        unsafe { self.map.start.add(at).cast() }
    }

    /// The other side wants a system call to go on.
    #[inline]
    pub(crate) fn needs_wakeup(&self) -> bool {
        self.word(self.map.offsets.flags).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    /// Whether a ring that the kernel fills has an entry.
    #[inline]
    pub(crate) fn has_any(&mut self) -> bool {
        if self.theirs == self.mine {
            // Pairs with the kernel's release of its counter: the entries before it are written.
            self.theirs = self.word(self.map.offsets.producer).load(Ordering::Acquire);
        }
        self.theirs != self.mine
    }

    /// Takes the next entry of a ring that the kernel fills.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<E> {
        if !self.has_any() {
            return None;
        }
        // SAFETY: inside the mapping, written by the kernel before it published the counter,
        // and not written again before `publish_taken`; any bits are a value.
        let entry = unsafe { self.entry(self.mine).read_volatile() };
        self.mine = self.mine.wrapping_add(1);
        Some(entry)
    }

    /// Tells the kernel which entries were taken.
    #[inline]
    pub(crate) fn publish_taken(&mut self) {
        // Pairs with the kernel's acquire: the entries were read.
        self.word(self.map.offsets.consumer).store(self.mine, Ordering::Release);
    }

    /// Whether a ring that the process fills has a place.
    #[inline]
    pub(crate) fn has_room(&mut self) -> bool {
        if self.mine.wrapping_sub(self.theirs) >= self.size {
            // Pairs with the kernel's release: it has read the entries before its counter.
            self.theirs = self.word(self.map.offsets.consumer).load(Ordering::Acquire);
        }
        self.mine.wrapping_sub(self.theirs) < self.size
    }

    /// Puts an entry into a ring that the process fills; false if it is full.
    #[inline]
    pub(crate) fn put(&mut self, entry: E) -> bool {
        if !self.has_room() {
            return false;
        }
        // SAFETY: inside the mapping; the kernel reads it only after `publish_put`.
        unsafe { self.entry(self.mine).write_volatile(entry) };
        self.mine = self.mine.wrapping_add(1);
        true
    }

    /// Tells the kernel which entries were put in.
    #[inline]
    pub(crate) fn publish_put(&mut self) {
        // Pairs with the kernel's acquire: the entries are written.
        self.word(self.map.offsets.producer).store(self.mine, Ordering::Release);
    }

    /// Whether the kernel wants a call for what was just published.
    ///
    /// It says that it wants one, then looks at the counter once more; whoever published looks
    /// at that word afterwards. Without the fence the look may come before the store is seen:
    /// then each side relies on the other, and the entries lie there. A word that says yes needs
    /// none: the call is made.
    #[inline]
    pub(crate) fn wants_call(&self) -> bool {
        self.needs_wakeup() || {
            fence(Ordering::SeqCst);
            self.needs_wakeup()
        }
    }

    /// How many entries of a ring that the process fills the kernel has not taken.
    pub(crate) fn left(&self) -> u32 {
        let theirs = self.word(self.map.offsets.consumer).load(Ordering::Acquire);
        self.mine.wrapping_sub(theirs).min(self.size)
    }
}
