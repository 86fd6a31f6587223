//! Two sockets on one queue of an interface that share one memory.
//!
//! ```text
//!             XDP program: which frame goes to which side
//!                  |                          |
//!    side 0   rx ring 0                  rx ring 1   side 1
//!             tx ring 0                  tx ring 1
//!                  \                          /
//!         memory (UMEM): chunks of one size, one fill ring, one completion ring
//! ```
//! Each side has rings of its own, so that a flood on one fills only its own: chunks for
//! receiving suffice for both rings full, and more. Chunks for sending are each side's own.
//!
//! # Further queues
//! What a device puts into another queue, a socket of this one does not get. So further queues may
//! be heard ([`Xsk::open_with`]): each has two sockets more, with the same memory and chunks, rings
//! to be filled and rings for what comes of its own. All is sent by the first.
//! ```text
//!   chunks: | first: receiving | sending, side 0 | side 1 | further queue | further queue | ...
//! ```
//!
//! # Who has a chunk
//! A chunk is the kernel's (in the fill ring, a tx ring, or on its way), or the process's. A
//! table in private memory says which; what the kernel names in a ring is looked up there
//! first, and only a [`Chunk`] of the process's reads or writes memory. So no memory is
//! referred to while the kernel may write it, whatever a ring says.

use crate::further::Further;
use crate::ring::Ring;
use insane_sys::{Errno, OsError, map};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

/// Sockets of one [`Xsk`].
pub const SIDES: usize = 2;

/// Entries of a transmit ring that the kernel sends in one call in copy mode (net/xdp/xsk.c,
/// 32 by default): a full ring needs so many calls.
const SENT_A_CALL: u32 = 32;
/// Calls of a look after which nothing was seen to go, where the kernel may say later what went.
const UNTOLD_CALLS: u32 = 4;

/// So many chunks of a side are on their way, or sent and not taken back, before they are.
const REAPED_AT: u32 = 64;

/// How a socket is tied to its queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Binding {
    /// The device writes and reads the chunks itself.
    ZeroCopy,
    /// The kernel copies.
    Copy,
}

/// What is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct XskOptions {
    /// Number of the interface.
    pub interface: u32,
    /// Which of its queues: the first, or only one.
    pub queue: u32,
    /// How.
    pub binding: Binding,
    /// Bytes of a chunk: 2048 or 4096.
    pub chunk_bytes: u32,
    /// Frames that each side's rings hold, a power of two.
    pub ring_frames: u32,
}

/// Why a queue is not to be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueRefused {
    /// Which.
    pub queue: u32,
    /// What the kernel said.
    pub error: OsError,
}

/// What the kernel counts for a socket.
pub(crate) type Statistics = libc::xdp_statistics;

/// What no outcome of a call tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct XskCounts {
    /// Entries of the kernel that named a chunk which it did not have, or bytes outside it.
    pub claims_refused: u64,
    /// Calls that the kernel refused for another reason than being busy (device gone or down).
    pub kicks_failed: u64,
    /// Calls of the kernel to send what was submitted.
    pub calls: u64,
    /// Frames that the kernel took to be sent and dropped, since the interface has no carrier (a
    /// device that reads the chunks itself tells of none), or that found no room in its ring.
    pub send_dropped: u64,
    /// Frames that the kernel dropped because the ring of their side was full. This and the two
    /// below as of the last [`count_losses`](Xsk::count_losses).
    pub ring_full: u64,
    /// Frames that the kernel dropped for want of a chunk, or because they had no room in one.
    pub dropped: u64,
    /// How often the kernel, or a device that writes chunks itself, found none to be filled.
    pub fill_empty: u64,
}

impl XskCounts {
    /// With what was counted before by sockets that are closed.
    #[must_use]
    pub const fn and(self, before: XskCounts) -> Self {
        XskCounts {
            claims_refused: self.claims_refused + before.claims_refused,
            kicks_failed: self.kicks_failed + before.kicks_failed,
            calls: self.calls + before.calls,
            send_dropped: self.send_dropped + before.send_dropped,
            ring_full: self.ring_full + before.ring_full,
            dropped: self.dropped + before.dropped,
            fill_empty: self.fill_empty + before.fill_empty,
        }
    }
}

/// Whether the kernel has taken what was to be sent.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kick {
    /// All of it.
    Done,
    /// It has no room now; another call is needed.
    More,
    /// It refuses: the device is down or gone. What waits goes when it is back and something
    /// else is sent.
    Refused,
}

/// A piece of memory that is the process's: for a frame to be sent, or of one that came.
#[derive(Debug)]
pub struct Chunk {
    number: u32,
    /// Of the frame, inside the chunk.
    start: u32,
    len: u32,
}

impl Chunk {
    /// Bytes of the frame, or room for one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a chunk without room for a frame is none")]
    pub fn len(&self) -> usize {
        self.len as usize
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owner {
    Kernel,
    /// The process, which keeps it for later.
    Spare,
    /// The process, by a [`Chunk`].
    Held,
}

#[derive(Debug)]
struct Side {
    rx: Ring<libc::xdp_desc>,
    tx: Ring<libc::xdp_desc>,
    /// Chunks for sending that nobody uses.
    spare: Vec<u32>,
    /// The kernel was seen to say what a call took that left something.
    tells_what_it_took: bool,
    /// Last, so that the rings are unmapped before it is closed.
    socket: OwnedFd,
}

/// The mapping of all chunks.
#[derive(Debug)]
struct Memory {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the process and is bound to no thread; access goes by
// `&mut Xsk`.
unsafe impl Send for Memory {}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped by `Xsk::open`. The sockets may be open still: the kernel holds the
        // pages itself.
        unsafe { map::unmap(self.start, self.len) };
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Xsk {
    queue: u32,
    sides: [Side; SIDES],
    fill: Ring<u64>,
    completion: Ring<u64>,
    /// Queues that are heard besides.
    further: Box<[Further]>,
    owners: Box<[Owner]>,
    /// Chunks below this number are for receiving; those of side 0 for sending come next.
    receiving: u32,
    chunk_bytes: u32,
    ring_frames: u32,
    /// By which both are powers of two: a division costs as much as the rest of a frame.
    chunk_shift: u32,
    ring_shift: u32,
    is_zero_copy: bool,
    filled: bool,
    /// Whether frames of each side wait for a call.
    has_unsent: [bool; SIDES],
    /// Whether entries of each side's `rx` were taken, and the kernel was not told.
    has_taken: [bool; SIDES],
    counts: XskCounts,
    memory: Memory,
}

impl Xsk {
    /// How many chunks there are with rings of so many frames, and so many queues beside the first.
    ///
    /// For receiving: both rings full, what the link has in hand and gives back in one burst (a
    /// ring), and a ring more for the kernel to go on filling meanwhile. For sending: both rings
    /// full. For a further queue: both rings full, and a ring for what is in hand and being filled;
    /// what is in hand of all queues is no more than of one.
    #[must_use]
    pub const fn chunks(ring_frames: u32, further: u32) -> u32 {
        Self::further_at(ring_frames) + further * Self::of_further(ring_frames)
    }

    /// Where the chunks of further queues begin.
    const fn further_at(ring_frames: u32) -> u32 {
        Self::receiving(ring_frames) + SIDES as u32 * ring_frames
    }

    const fn of_further(ring_frames: u32) -> u32 {
        (SIDES as u32 + 1) * ring_frames
    }

    const fn receiving(ring_frames: u32) -> u32 {
        (SIDES as u32 + 2) * ring_frames
    }

    /// As [`open_with`](Self::open_with), of one queue.
    ///
    /// # Errors
    /// See there.
    pub fn open(options: &XskOptions) -> Result<Self, OsError> {
        Self::open_with(options, &[]).map_err(|refused| refused.error)
    }

    /// Opens both sockets of each queue and takes all memory: all queues or none. Frames come once
    /// the sockets are in the map of an XDP program.
    ///
    /// # Errors
    /// `EBUSY`: another socket has the queue (or had it a moment ago). `EOPNOTSUPP`: the
    /// driver has no zero copy. `EINVAL`: no such queue, or sizes that are no powers of two.
    /// `EPERM`: no right (CAP_NET_RAW).
    pub fn open_with(options: &XskOptions, further: &[u32]) -> Result<Self, QueueRefused> {
        let of_first = |error| QueueRefused { queue: options.queue, error };
        let mut xsk = Self::open_first(options, further.len() as u32).map_err(of_first)?;
        let of_further = Self::of_further(options.ring_frames);
        let mut opened = Vec::with_capacity(further.len());
        for (number, &queue) in (0..).zip(further) {
            let begin = Self::further_at(options.ring_frames) + number * of_further;
            let first = xsk.sides[0].socket.as_fd();
            let one = Further::open(options, queue, begin..begin + of_further, first);
            opened.push(one.map_err(|error| QueueRefused { queue, error })?);
        }
        xsk.further = opened.into_boxed_slice();
        for number in 0..xsk.receiving {
            xsk.fill_with(number);
        }
        for at in 0..xsk.further.len() {
            xsk.further[at].chunks().for_each(|number| xsk.fill_further(at, number));
        }
        xsk.refill();
        Ok(xsk)
    }

    /// The first queue, with memory for so many further ones. Nothing is filled yet.
    fn open_first(options: &XskOptions, further: u32) -> Result<Self, OsError> {
        let ring = options.ring_frames;
        if !(ring.is_power_of_two() && options.chunk_bytes.is_power_of_two()) {
            return Err(OsError::new("dividing memory into chunks", Errno::EINVAL));
        }
        let (receiving, chunks) = (Self::receiving(ring), Self::chunks(ring, further));
        let len = chunks as usize * options.chunk_bytes as usize;
        let memory = Memory { start: map::map_anonymous(len)?, len };
        // SAFETY: the mapping that was just made, writable.
        unsafe { map::prefault(memory.start.as_ptr(), len, true)? };
        // Chunks take turns, so each frame is in another page than the one before. Where there are
        // no huge pages it is as it is.
        // SAFETY: the same mapping; no content changes.
        let _ = unsafe { map::collapse_huge(memory.start.as_ptr(), len) };

        let sockets = [new_socket()?, new_socket()?];
        let first = sockets[0].as_fd();
        let umem = libc::xdp_umem_reg {
            addr: memory.start.as_ptr() as u64,
            len: len as u64,
            chunk_size: options.chunk_bytes,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        set(first, libc::XDP_UMEM_REG, &umem, "giving memory to the socket")?;
        // Both rings hold all chunks that may ever be in them. The fill ring is always nearly
        // full: with twice the places it is known to have room, without a look at the kernel's
        // counter for each frame, which the core that sends has just written.
        let (fill_size, completion_size) =
            (2 * receiving.next_power_of_two(), (SIDES as u32 * ring).next_power_of_two());
        set(first, libc::XDP_UMEM_FILL_RING, &fill_size, "making the fill ring")?;
        set(first, libc::XDP_UMEM_COMPLETION_RING, &completion_size, "making the completion ring")?;
        for socket in &sockets {
            set(socket.as_fd(), libc::XDP_RX_RING, &ring, "making the receive ring")?;
            set(socket.as_fd(), libc::XDP_TX_RING, &ring, "making the transmit ring")?;
        }
        let offsets = offsets(first)?;
        let (fill_at, completion_at) =
            (libc::XDP_UMEM_PGOFF_FILL_RING as i64, libc::XDP_UMEM_PGOFF_COMPLETION_RING as i64);
        let fill = Ring::map(first, fill_at, offsets.fr, fill_size)?;
        let completion = Ring::map(first, completion_at, offsets.cr, completion_size)?;

        // Before they are bound: kernels before 6.18 map no ring of a socket that is.
        let map_side = |(number, socket): (usize, OwnedFd)| {
            let rx = Ring::map(socket.as_fd(), libc::XDP_PGOFF_RX_RING, offsets.rx, ring)?;
            let tx = Ring::map(socket.as_fd(), libc::XDP_PGOFF_TX_RING, offsets.tx, ring)?;
            let begin = receiving + number as u32 * ring;
            Ok(Side { rx, tx, spare: (begin..begin + ring).collect(), tells_what_it_took: false, socket })
        };
        let sides: Vec<Side> = sockets.into_iter().enumerate().map(map_side).collect::<Result<_, OsError>>()?;
        let Ok(sides): Result<[Side; SIDES], _> = sides.try_into() else { unreachable!("one for each socket") };
        let first = sides[0].socket.as_fd();

        let binding = match options.binding {
            Binding::ZeroCopy => libc::XDP_ZEROCOPY,
            Binding::Copy => libc::XDP_COPY,
        };
        bind(first, options, binding | libc::XDP_USE_NEED_WAKEUP, None)?;
        // The second takes the memory, rings and mode of the first.
        bind(sides[1].socket.as_fd(), options, libc::XDP_SHARED_UMEM, Some(first))?;

        let owners = vec![Owner::Spare; chunks as usize].into_boxed_slice();
        let is_zero_copy = options.binding == Binding::ZeroCopy;
        Ok(Xsk {
            queue: options.queue,
            sides,
            fill,
            completion,
            further: Box::default(),
            owners,
            receiving,
            chunk_bytes: options.chunk_bytes,
            ring_frames: ring,
            chunk_shift: options.chunk_bytes.trailing_zeros(),
            ring_shift: ring.trailing_zeros(),
            is_zero_copy,
            filled: false,
            has_unsent: [false; SIDES],
            has_taken: [false; SIDES],
            counts: XskCounts::default(),
            memory,
        })
    }

    /// The descriptors of both sides of each queue, with the queue's number: the first one's first.
    pub fn sockets(&self) -> impl Iterator<Item = (u32, [BorrowedFd<'_>; SIDES])> {
        let first = [self.sides[0].socket.as_fd(), self.sides[1].socket.as_fd()];
        let further = self.further.iter().map(|further| (further.queue(), further.sockets()));
        std::iter::once((self.queue, first)).chain(further)
    }

    /// How many queues are heard.
    #[must_use]
    #[inline]
    pub fn queues(&self) -> usize {
        1 + self.further.len()
    }

    /// Whether the device reads and writes the chunks itself.
    #[must_use]
    pub fn is_zero_copy(&self) -> bool {
        self.is_zero_copy
    }

    /// What was counted.
    #[must_use]
    pub fn counts(&self) -> XskCounts {
        self.counts
    }

    /// Asks the kernel what it dropped: two calls for each queue, so for now and then.
    pub fn count_losses(&mut self) {
        let [first, second] = [0, 1].map(|side: usize| statistics(self.sides[side].socket.as_fd()));
        // One that does not tell leaves what is known.
        let (Some(first), Some(second)) = (first, second) else { return };
        let mut counts = XskCounts { ring_full: 0, dropped: 0, fill_empty: 0, ..self.counts };
        let further = self.further.iter().filter_map(Further::statistics);
        for [first, second] in std::iter::once([first, second]).chain(further) {
            counts.ring_full += first.rx_ring_full + second.rx_ring_full;
            counts.dropped += first.rx_dropped + second.rx_dropped;
            // Both have one ring of chunks to be filled.
            counts.fill_empty += first.rx_fill_ring_empty_descs;
        }
        self.counts = counts;
    }

    /// Takes the next frame of a side (0 or 1; there is none of any other) of the first queue.
    #[inline]
    pub fn receive(&mut self, side: usize) -> Option<Chunk> {
        // A claim that is refused costs its place only; there are no more of them than frames.
        for _ in 0..self.ring_frames {
            let from = self.sides.get_mut(side)?;
            let entry = from.rx.take()?;
            self.has_taken[side] = true;
            if let Some(chunk) = self.claim(entry, 0..self.receiving) {
                return Some(chunk);
            }
            self.counts.claims_refused += 1;
        }
        None
    }

    /// As [`receive`](Self::receive), of the queue that is the `at`th in
    /// [`sockets`](Self::sockets); of one behind the last there is nothing.
    pub fn receive_of(&mut self, at: usize, side: usize) -> Option<Chunk> {
        let Some(at) = at.checked_sub(1) else { return self.receive(side) };
        for _ in 0..self.ring_frames {
            let from = self.further.get_mut(at)?;
            let (entry, own) = (from.take(side)?, from.chunks());
            if let Some(chunk) = self.claim(entry, own) {
                return Some(chunk);
            }
            self.counts.claims_refused += 1;
        }
        None
    }

    /// As [`has_come`](Self::has_come), of the queue that is the `at`th.
    pub fn has_come_of(&mut self, at: usize, side: usize) -> bool {
        match at.checked_sub(1) {
            None => self.has_come(side),
            Some(at) => self.further.get_mut(at).is_some_and(|further| further.has_come(side)),
        }
    }

    /// Whether a frame of a side of the first queue has come.
    #[inline]
    pub fn has_come(&mut self, side: usize) -> bool {
        self.sides.get_mut(side).is_some_and(|side| side.rx.has_any())
    }

    /// Whether a frame of any side of any queue has come.
    #[inline]
    pub fn has_come_to_any(&mut self) -> bool {
        let [first, second] = &mut self.sides;
        let has_come = first.rx.has_any() | second.rx.has_any();
        has_come || !self.further.is_empty() && self.has_come_to_further()
    }

    #[inline(never)]
    fn has_come_to_further(&mut self) -> bool {
        self.further.iter_mut().any(Further::has_come_to_any)
    }

    /// Turns what the kernel says into a chunk, one of those that the queue has for receiving: the
    /// only place that does.
    #[inline]
    fn claim(&mut self, entry: libc::xdp_desc, own: Range<u32>) -> Option<Chunk> {
        let number = u32::try_from(entry.addr >> self.chunk_shift).ok()?;
        let start = entry.addr as u32 & (self.chunk_bytes - 1);
        let owner = self.owners.get_mut(number as usize)?;
        let is_inside = entry.len <= self.chunk_bytes - start;
        if !own.contains(&number) || *owner != Owner::Kernel || !is_inside {
            return None;
        }
        *owner = Owner::Held;
        Some(Chunk { number, start, len: entry.len })
    }

    /// The bytes of a chunk. Empty for one of another socket, unless that has the same one in
    /// hand.
    #[inline(always)]
    pub fn bytes(&mut self, chunk: &Chunk) -> &mut [u8] {
        let is_inside = chunk.start.checked_add(chunk.len).is_some_and(|end| end <= self.chunk_bytes);
        if self.owners.get(chunk.number as usize) != Some(&Owner::Held) || !is_inside {
            return &mut [];
        }
        let at = ((chunk.number as usize) << self.chunk_shift) + chunk.start as usize;
        // SAFETY: the chunk lies inside the mapping (there is an owner for each chunk) and the
        // range inside the chunk. It is the process's, so the kernel neither reads nor writes
        // it; nobody else has a reference, since this one borrows `self`.
        unsafe { std::slice::from_raw_parts_mut(self.memory.start.as_ptr().add(at), chunk.len as usize) }
    }

    /// Gives the chunk of a frame that came back, or of one that is not to be sent.
    #[inline(always)]
    pub fn give_back(&mut self, chunk: Chunk) {
        let Some(owner) = self.owners.get_mut(chunk.number as usize).filter(|owner| **owner == Owner::Held) else {
            return;
        };
        *owner = Owner::Spare;
        if chunk.number < self.receiving {
            self.fill_with(chunk.number);
        } else {
            let side = self.side_of(chunk.number);
            match self.sides.get_mut(side) {
                Some(side) => side.spare.push(chunk.number),
                None => self.give_back_further(chunk.number),
            }
        }
    }

    #[inline(never)]
    fn give_back_further(&mut self, number: u32) {
        let behind = number.saturating_sub(Self::further_at(self.ring_frames));
        self.fill_further((behind / Self::of_further(self.ring_frames)) as usize, number);
    }

    /// As [`fill_with`](Self::fill_with), of a queue beside the first.
    fn fill_further(&mut self, at: usize, number: u32) {
        let address = u64::from(number) << self.chunk_shift;
        if self.further.get_mut(at).is_some_and(|further| further.fill(address)) {
            self.owners[number as usize] = Owner::Kernel;
        }
    }

    /// To which side a chunk for sending belongs: to none, if it is of a further queue.
    #[inline]
    fn side_of(&self, number: u32) -> usize {
        ((number - self.receiving) >> self.ring_shift) as usize
    }

    #[inline]
    fn fill_with(&mut self, number: u32) {
        // There is room: the ring holds all chunks for receiving.
        if self.fill.put(u64::from(number) << self.chunk_shift) {
            self.owners[number as usize] = Owner::Kernel;
            self.filled = true;
        }
    }

    /// Hands what was given back to the kernel, and lets others' frames come: once a burst.
    #[inline]
    pub fn refill(&mut self) {
        // A call that found nothing writes nothing: most do.
        for (side, has_taken) in self.sides.iter_mut().zip(&mut self.has_taken) {
            if std::mem::take(has_taken) {
                side.rx.publish_taken();
            }
        }
        if std::mem::take(&mut self.filled) {
            self.fill.publish_put();
        }
        if !self.further.is_empty() {
            self.refill_further();
        }
        self.wake_device();
    }

    #[inline(never)]
    fn refill_further(&mut self) {
        self.further.iter_mut().for_each(Further::refill);
    }

    /// Lets a device go on that waits for chunks to be filled: only those ask for it that write
    /// the chunks themselves.
    #[inline]
    pub fn wake_device(&mut self) {
        if self.is_zero_copy {
            if self.fill.wants_call() {
                wake_device(self.sides[0].socket.as_fd());
            }
            self.further.iter().for_each(Further::wake_device);
        }
    }

    /// A chunk for a frame to be sent by this side. `None`: all are on their way.
    #[inline]
    pub fn reserve(&mut self, side: usize) -> Option<Chunk> {
        // Some at a time: the kernel's counter is cold, too. And early: a few chunks that are used
        // again and again stay in the cache.
        let free = self.sides.get(side)?.spare.len() as u32;
        if free == 0 || free + REAPED_AT <= self.ring_frames {
            self.reap();
        }
        if !self.sides[side].tx.has_room() {
            // It gave chunks back before it said that it took them.
            return None;
        }
        let number = self.sides.get_mut(side)?.spare.pop()?;
        self.owners[number as usize] = Owner::Held;
        Some(Chunk { number, start: 0, len: self.chunk_bytes })
    }

    /// Chunks of this side that are on their way, or in hand. Costs no system call.
    pub fn unfinished(&mut self, side: usize) -> u32 {
        self.reap();
        self.sides.get(side).map_or(0, |side| self.ring_frames.saturating_sub(side.spare.len() as u32))
    }

    /// Takes back what the kernel has sent.
    #[inline(never)]
    fn reap(&mut self) {
        let mut has_taken = false;
        // No more than the ring holds: one for each chunk for sending.
        for _ in 0..SIDES as u32 * self.ring_frames {
            let Some(address) = self.completion.take() else { break };
            has_taken = true;
            let number = address >> self.chunk_shift;
            let owner = usize::try_from(number).ok().and_then(|number| self.owners.get_mut(number));
            // One for receiving has no side.
            let side = (number.wrapping_sub(u64::from(self.receiving)) >> self.ring_shift) as usize;
            match (owner, self.sides.get_mut(side)) {
                (Some(owner), Some(side)) if *owner == Owner::Kernel => {
                    *owner = Owner::Spare;
                    side.spare.push(number as u32);
                }
                _ => self.counts.claims_refused += 1,
            }
        }
        if has_taken {
            self.completion.publish_taken();
        }
    }

    /// Puts this part of a reserved chunk into the queue of its side; it goes with the next
    /// [`kick`](Self::kick).
    #[inline(always)]
    pub fn submit(&mut self, chunk: Chunk, frame: Range<usize>) {
        let is_held = self.owners.get(chunk.number as usize) == Some(&Owner::Held);
        let is_inside = frame.start <= frame.end && frame.end <= self.chunk_bytes as usize;
        if !is_held || chunk.number < self.receiving || !is_inside {
            return self.give_back(chunk);
        }
        let at = self.side_of(chunk.number);
        // It may be of a further queue, which sends nothing.
        let Some(side) = self.sides.get_mut(at) else { return self.give_back(chunk) };
        let addr = (u64::from(chunk.number) << self.chunk_shift) + frame.start as u64;
        // There is room, since the ring holds all chunks of its side, where the kernel says at once
        // what it took. Before Linux 6.17 it gives chunks back that it has not said it took.
        if side.tx.put(libc::xdp_desc { addr, len: frame.len() as u32, options: 0 }) {
            self.owners[chunk.number as usize] = Owner::Kernel;
            self.has_unsent[at] = true;
        } else {
            self.counts.send_dropped += 1;
            self.give_back(chunk);
        }
    }

    /// Whether frames of a side wait for [`kick`](Self::kick).
    #[must_use]
    #[inline]
    pub fn has_unsent(&self, side: usize) -> bool {
        self.has_unsent.get(side).is_some_and(|has_unsent| *has_unsent)
    }

    /// Whether frames of any side wait for [`kick`](Self::kick).
    #[must_use]
    #[inline]
    pub fn has_unsent_of_any(&self) -> bool {
        self.has_unsent != [false; SIDES]
    }

    /// Frames that were submitted and not taken by the kernel.
    #[must_use]
    pub fn left(&self) -> u32 {
        self.sides.iter().map(|side| side.tx.left()).sum()
    }

    /// Whether the interface is gone: the sockets are good for nothing any more. Asks the
    /// kernel, which says it once.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let mut error: libc::c_int = 0;
        let mut len = size_of_val(&error) as libc::socklen_t;
        let socket = self.sides[0].socket.as_raw_fd();
        // SAFETY: the kernel writes `len` bytes at most into a value that lives during the call.
        let asked = unsafe {
            let into = (&raw mut error).cast();
            libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_ERROR, into, &raw mut len)
        };
        asked == 0 && error != 0
    }

    /// As [`kick`](Self::kick), also for what the kernel refused before: for a side whose chunks
    /// are all on their way.
    #[cold]
    pub fn kick_again(&mut self, side: usize) -> Kick {
        if let (Some(side), Some(has_unsent)) = (self.sides.get(side), self.has_unsent.get_mut(side)) {
            *has_unsent |= side.tx.left() > 0;
        }
        self.kick(side)
    }

    /// Lets the kernel send what waits, in a bounded number of calls.
    #[inline]
    pub fn kick(&mut self, side: usize) -> Kick {
        // Asked each turn, and most have nothing.
        if self.has_unsent(side) { self.push_out(side) } else { Kick::Done }
    }

    fn push_out(&mut self, side: usize) -> Kick {
        let calls = 2 + self.ring_frames / SENT_A_CALL;
        let (Some(side), Some(has_unsent)) = (self.sides.get_mut(side), self.has_unsent.get_mut(side)) else {
            return Kick::Done;
        };
        side.tx.publish_put();
        let (mut waiting, mut in_vain) = (side.tx.left(), 0);
        for _ in 0..calls {
            if waiting == 0 || !side.tx.wants_call() {
                *has_unsent = false;
                return Kick::Done;
            }
            let socket = side.socket.as_raw_fd();
            self.counts.calls += 1;
            // Not the C library's function, which is a place where a thread may be cancelled, and
            // pays for that at every call.
            let nothing = std::ptr::null::<libc::c_void>();
            // SAFETY: no memory is handed over.
            let sent =
                unsafe { libc::syscall(libc::SYS_sendto, socket, nothing, 0_usize, libc::MSG_DONTWAIT, nothing, 0) };
            let waited = std::mem::replace(&mut waiting, side.tx.left());
            if sent < 0 {
                match Errno::last() {
                    // It sent as many as it sends in one call; or the device, or the room of the
                    // socket, is full.
                    Errno::EAGAIN | Errno::EINTR => {}
                    // There is no carrier: where the kernel copies, it took frames, and has dropped
                    // the last of them.
                    Errno::EBUSY if !self.is_zero_copy => {
                        self.counts.send_dropped += 1;
                        in_vain = 0;
                        continue;
                    }
                    // No memory, or the device is busy.
                    Errno::EBUSY | Errno::ENOBUFS => return Kick::More,
                    _ => {
                        // Not tried again and again: a device may be down for days.
                        self.counts.kicks_failed += 1;
                        *has_unsent = false;
                        return Kick::Refused;
                    }
                }
            }
            if waiting < waited {
                side.tells_what_it_took |= waiting > 0;
                continue;
            }
            // Where the kernel copies, the call itself takes frames: one that took none would be
            // repeated in vain. Before Linux 6.17 it does not say what it took until it took all.
            in_vain += 1;
            if !self.is_zero_copy && (side.tells_what_it_took || in_vain >= UNTOLD_CALLS) {
                return Kick::More;
            }
        }
        if waiting == 0 {
            *has_unsent = false;
            return Kick::Done;
        }
        Kick::More
    }
}

pub(crate) fn new_socket() -> Result<OwnedFd, OsError> {
    // SAFETY: a plain call.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(OsError::last("opening an AF_XDP socket"));
    }
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets a device that waits for chunks look at the fill ring.
pub(crate) fn wake_device(socket: BorrowedFd<'_>) {
    let nobody = std::ptr::null_mut();
    // SAFETY: no memory is handed over.
    unsafe {
        libc::recvfrom(socket.as_raw_fd(), nobody, 0, libc::MSG_DONTWAIT, std::ptr::null_mut(), std::ptr::null_mut())
    };
}

pub(crate) fn set<T>(socket: BorrowedFd<'_>, option: i32, value: &T, attempted: &'static str) -> Result<(), OsError> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of a value that lives during the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_XDP, option, std::ptr::from_ref(value).cast(), len) };
    if result < 0 { Err(OsError::last(attempted)) } else { Ok(()) }
}

pub(crate) fn offsets(socket: BorrowedFd<'_>) -> Result<libc::xdp_mmap_offsets, OsError> {
    let attempted = "asking where the rings are";
    // SAFETY: a structure of numbers, for which zero is a value.
    let mut offsets: libc::xdp_mmap_offsets = unsafe { std::mem::zeroed() };
    let mut len = size_of_val(&offsets) as libc::socklen_t;
    // SAFETY: the kernel writes `len` bytes at most into a value that lives during the call.
    let result = unsafe {
        let into = (&raw mut offsets).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, into, &raw mut len)
    };
    if result < 0 {
        return Err(OsError::last(attempted));
    }
    // An older kernel (before 5.4) has no flags, and says so by its length.
    if len as usize != size_of_val(&offsets) {
        return Err(OsError::new(attempted, Errno::EOPNOTSUPP));
    }
    Ok(offsets)
}

pub(crate) fn statistics(socket: BorrowedFd<'_>) -> Option<Statistics> {
    // SAFETY: a structure of numbers, for which zero is a value.
    let mut statistics: Statistics = unsafe { std::mem::zeroed() };
    let mut len = size_of_val(&statistics) as libc::socklen_t;
    // SAFETY: the kernel writes `len` bytes at most into a value that lives during the call.
    let result = unsafe {
        let into = (&raw mut statistics).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_XDP, libc::XDP_STATISTICS, into, &raw mut len)
    };
    (result == 0).then_some(statistics)
}

pub(crate) fn bind(
    socket: BorrowedFd<'_>,
    options: &XskOptions,
    flags: u16,
    shares_with: Option<BorrowedFd<'_>>,
) -> Result<(), OsError> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: options.interface,
        sxdp_queue_id: options.queue,
        sxdp_shared_umem_fd: shares_with.map_or(0, |socket| socket.as_raw_fd() as u32),
    };
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of a value that lives during the call.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
    if result < 0 { Err(OsError::last("binding an AF_XDP socket to the queue")) } else { Ok(()) }
}
