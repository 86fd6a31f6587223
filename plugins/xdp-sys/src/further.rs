//! A queue that is heard beside the first, and by which nothing is sent.
//!
//! A socket of AF_XDP gets frames of its own queue only, so each side has one here as well. They
//! share the memory of the first queue's, with a range of chunks of their own, since each queue has
//! its own fill ring. The kernel asks for a completion ring, too; nothing ever comes by it.

use crate::ring::Ring;
use crate::xsk::{SIDES, Statistics, XskOptions, bind, new_socket, offsets, set, statistics, wake_device};
use insane_sys::OsError;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Least that the kernel takes for a ring, as far as it matters here.
const COMPLETION_ENTRIES: u32 = 2;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Further {
    queue: u32,
    rx: [Ring<libc::xdp_desc>; SIDES],
    fill: Ring<u64>,
    /// Its chunks, all of them for receiving.
    chunks: Range<u32>,
    filled: bool,
    /// Whether entries of each side's `rx` were taken, and the kernel was not told.
    has_taken: [bool; SIDES],
    /// Last, so that the rings are unmapped before they are closed.
    sockets: [OwnedFd; SIDES],
}

impl Further {
    /// Opens both sockets, on the memory of a socket that is bound and with its mode.
    pub(crate) fn open(
        options: &XskOptions,
        queue: u32,
        chunks: Range<u32>,
        shares_with: BorrowedFd<'_>,
    ) -> Result<Self, OsError> {
        let sockets = [new_socket()?, new_socket()?];
        let first = sockets[0].as_fd();
        // As the first queue has it: twice the places of what may ever be in it.
        let fill_size = 2 * (chunks.end - chunks.start).next_power_of_two();
        set(first, libc::XDP_UMEM_FILL_RING, &fill_size, "making the fill ring")?;
        set(first, libc::XDP_UMEM_COMPLETION_RING, &COMPLETION_ENTRIES, "making the completion ring")?;
        for socket in &sockets {
            set(socket.as_fd(), libc::XDP_RX_RING, &options.ring_frames, "making the receive ring")?;
        }
        let offsets = offsets(first)?;
        let fill = Ring::map(first, libc::XDP_UMEM_PGOFF_FILL_RING as i64, offsets.fr, fill_size)?;
        let map =
            |socket: &OwnedFd| Ring::map(socket.as_fd(), libc::XDP_PGOFF_RX_RING, offsets.rx, options.ring_frames);
        // Before they are bound, as those of the first queue.
        let rx = [map(&sockets[0])?, map(&sockets[1])?];
        let here = XskOptions { queue, ..*options };
        bind(first, &here, libc::XDP_SHARED_UMEM, Some(shares_with))?;
        bind(sockets[1].as_fd(), &here, libc::XDP_SHARED_UMEM, Some(first))?;
        Ok(Further { queue, rx, fill, chunks, filled: false, has_taken: [false; SIDES], sockets })
    }

    pub(crate) fn queue(&self) -> u32 {
        self.queue
    }

    pub(crate) fn chunks(&self) -> Range<u32> {
        self.chunks.clone()
    }

    pub(crate) fn sockets(&self) -> [BorrowedFd<'_>; SIDES] {
        [self.sockets[0].as_fd(), self.sockets[1].as_fd()]
    }

    /// As the kernel counts for each side, if it tells.
    pub(crate) fn statistics(&self) -> Option<[Statistics; SIDES]> {
        let [first, second] = self.sockets();
        Some([statistics(first)?, statistics(second)?])
    }

    /// What the kernel says came for a side: a claim, and not looked at.
    pub(crate) fn take(&mut self, side: usize) -> Option<libc::xdp_desc> {
        let entry = self.rx.get_mut(side)?.take()?;
        self.has_taken[side] = true;
        Some(entry)
    }

    pub(crate) fn has_come(&mut self, side: usize) -> bool {
        self.rx.get_mut(side).is_some_and(Ring::has_any)
    }

    pub(crate) fn has_come_to_any(&mut self) -> bool {
        let [first, second] = &mut self.rx;
        first.has_any() | second.has_any()
    }

    /// Puts a chunk of its own into the fill ring; false if that is full, which it never is.
    pub(crate) fn fill(&mut self, address: u64) -> bool {
        let is_put = self.fill.put(address);
        self.filled |= is_put;
        is_put
    }

    /// As [`Xsk::refill`](crate::Xsk::refill).
    pub(crate) fn refill(&mut self) {
        for (rx, has_taken) in self.rx.iter_mut().zip(&mut self.has_taken) {
            if std::mem::take(has_taken) {
                rx.publish_taken();
            }
        }
        if std::mem::take(&mut self.filled) {
            self.fill.publish_put();
        }
    }

    /// As [`Xsk::wake_device`](crate::Xsk::wake_device), where the device writes the chunks itself.
    pub(crate) fn wake_device(&self) {
        if self.fill.wants_call() {
            wake_device(self.sockets[0].as_fd());
        }
    }
}
