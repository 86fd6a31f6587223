//! Memory that the device knows: receive buffers in a queue that all connections share, and
//! what is sent.

use crate::VerbsError;
use crate::abi::{ACCESS_LOCAL_WRITE, Mr, Piece, ReceiveWork, Srq, SrqInit};
use crate::device::Device;
use crate::queue::{Completion, RECEIVE_BIT};
use insane_sys::{Errno, OsError};
use libc::c_int;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Pages that are this process's alone and registered with the device: it may read and write
/// them when it is asked to, the other side of a connection may not.
#[derive(Debug)]
pub struct Region {
    start: NonNull<u8>,
    len: usize,
    mr: NonNull<Mr>,
    key: u32,
    device: Device,
}

// SAFETY: the memory belongs to the region, and is reached by what owns it.
unsafe impl Send for Region {}
// SAFETY: a shared region hands out addresses and keys only.
unsafe impl Sync for Region {}

impl Region {
    /// At least `len` bytes.
    ///
    /// # Errors
    /// There is no memory, or this process may not lock so much (`ulimit -l`).
    pub fn new(device: &Device, len: usize) -> Result<Self, VerbsError> {
        let len = len.max(1).next_multiple_of(4096);
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe { libc::mmap(null_mut(), len, prot, flags | libc::MAP_POPULATE, -1, 0) };
        let start = match NonNull::new(start.cast::<u8>()) {
            Some(mapped) if start != libc::MAP_FAILED => mapped,
            _ => return Err(OsError::last("mapping memory for RDMA").into()),
        };
        // A child of this process must not have the pages: the device would write into copies.
        // SAFETY: the mapping is ours.
        unsafe { libc::madvise(start.as_ptr().cast(), len, libc::MADV_DONTFORK) };
        // SAFETY: the range is mapped, and stays so until it is registered no more.
        let mr =
            unsafe { (device.api().ibv_reg_mr)(device.pd().as_ptr(), start.as_ptr().cast(), len, ACCESS_LOCAL_WRITE) };
        let Some(mr) = NonNull::new(mr) else {
            let error = OsError::last("registering memory with the device");
            // SAFETY: mapped above, and nobody knows it.
            unsafe { libc::munmap(start.as_ptr().cast(), len) };
            return Err(error.into());
        };
        // SAFETY: the library has filled in the structure.
        let key = unsafe { (*mr.as_ptr()).lkey };
        Ok(Region { start, len, mr, key, device: device.clone() })
    }

    /// Its length, bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// It has no bytes: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: made in `new`. Afterwards the device does not touch the memory any more,
        // whatever requests are still queued.
        unsafe { (self.device.api().ibv_dereg_mr)(self.mr.as_ptr()) };
        // SAFETY: mapped in `new`; references into it ended with their borrow of the region.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Memory that is sent from.
#[derive(Debug)]
pub struct Outbox(Region);

impl Outbox {
    /// At least `len` bytes.
    ///
    /// # Errors
    /// As [`Region::new`].
    pub fn new(device: &Device, len: usize) -> Result<Self, VerbsError> {
        Region::new(device, len).map(Outbox)
    }

    /// All of it. What is being sent may be overwritten: then that is what arrives.
    #[inline]
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: mapped, and nobody writes there but through this borrow: the device only
        // reads.
        unsafe { std::slice::from_raw_parts_mut(self.0.start.as_ptr(), self.0.len) }
    }

    pub(crate) fn key(&self) -> u32 {
        self.0.key
    }

    pub(crate) fn address(&self, at: usize, len: usize) -> Option<u64> {
        let is_inside = at.checked_add(len)? <= self.0.len;
        is_inside.then(|| self.0.start.as_ptr().addr() as u64 + at as u64)
    }
}

/// The queue itself, which queue pairs hold.
#[derive(Debug)]
pub(crate) struct SharedQueue {
    srq: NonNull<Srq>,
    post: unsafe extern "C" fn(*mut Srq, *mut ReceiveWork, *mut *mut ReceiveWork) -> c_int,
    device: Device,
}

// SAFETY: the driver locks the queue.
unsafe impl Send for SharedQueue {}
// SAFETY: as above.
unsafe impl Sync for SharedQueue {}

impl SharedQueue {
    pub(crate) fn as_ptr(&self) -> *mut Srq {
        self.srq.as_ptr()
    }
}

impl Drop for SharedQueue {
    fn drop(&mut self) {
        // SAFETY: made in `Inbox::new`; queue pairs that use it hold it.
        unsafe { (self.device.api().ibv_destroy_srq)(self.as_ptr()) };
    }
}

/// A receive buffer that the device is done with. To be given back.
#[derive(Debug)]
pub struct Buffer {
    inbox: u32,
    number: u32,
}

/// Receive buffers that all connections share.
#[derive(Debug)]
pub struct Inbox {
    // Before the memory: the device lets go first.
    shared: Arc<SharedQueue>,
    regions: Vec<Region>,
    number: u32,
    buffer_bytes: usize,
    per_region: u32,
}

impl Inbox {
    /// No buffers yet, and room for those of `regions_max` regions, each of `per_region`
    /// buffers of `buffer_bytes`.
    ///
    /// # Errors
    /// The device refuses.
    pub fn new(device: &Device, buffer_bytes: usize, per_region: u32, regions_max: u32) -> Result<Self, VerbsError> {
        static NUMBERS: AtomicU32 = AtomicU32::new(0);
        let max_wr = per_region.saturating_mul(regions_max);
        let mut init = SrqInit { srq_context: null_mut(), max_wr, max_sge: 1, srq_limit: 0 };
        // SAFETY: the domain lives, and the structure is the library's.
        let srq = unsafe { (device.api().ibv_create_srq)(device.pd().as_ptr(), &raw mut init) };
        let srq = NonNull::new(srq).ok_or_else(|| OsError::last("creating a shared receive queue"))?;
        // SAFETY: the driver has filled in its functions before the context was handed out.
        let post = unsafe { (*device.context().as_ptr()).ops.post_srq_recv };
        let Some(post) = post else {
            // SAFETY: made above, and nobody knows it.
            unsafe { (device.api().ibv_destroy_srq)(srq.as_ptr()) };
            return Err(OsError::new("looking for the driver's functions", Errno::ENOSYS).into());
        };
        let shared = Arc::new(SharedQueue { srq, post, device: device.clone() });
        // 31 bits, above them the mark of receive buffers.
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed) & 0x7fff_ffff;
        Ok(Inbox { shared, regions: Vec::with_capacity(regions_max as usize), number, buffer_bytes, per_region })
    }

    pub(crate) fn shared(&self) -> &Arc<SharedQueue> {
        &self.shared
    }

    /// Memory for one [`add`](Self::add).
    ///
    /// # Errors
    /// As [`Region::new`].
    pub fn region(device: &Device, buffer_bytes: usize, per_region: u32) -> Result<Region, VerbsError> {
        Region::new(device, buffer_bytes * per_region as usize)
    }

    /// How many regions it has.
    #[must_use]
    pub fn regions(&self) -> usize {
        self.regions.len()
    }

    /// How many buffers it has room for.
    #[must_use]
    pub fn buffers_max(&self) -> usize {
        self.regions.capacity() * self.per_region as usize
    }

    /// Takes the memory, and gives all of its buffers to the device. Allocates nothing.
    ///
    /// # Errors
    /// There is no room, or the memory is too small: it is handed back.
    pub fn add(&mut self, region: Region) -> Result<(), Region> {
        let is_large_enough = region.len >= self.buffer_bytes * self.per_region as usize;
        if self.regions.len() == self.regions.capacity() || !is_large_enough {
            return Err(region);
        }
        let first = self.regions.len() as u32 * self.per_region;
        self.regions.push(region);
        for number in first..first + self.per_region {
            // The queue was made for as many.
            let _ = self.give_back(Buffer { inbox: self.number, number });
        }
        Ok(())
    }

    /// The buffer of a completion, good or not. `None`: it is of something else.
    #[must_use]
    pub fn buffer(&self, completion: Completion) -> Option<Buffer> {
        let (inbox, number) = ((completion.id >> 32) as u32 & 0x7fff_ffff, completion.id as u32);
        let is_ours = completion.id & RECEIVE_BIT != 0 && inbox == self.number;
        is_ours.then_some(Buffer { inbox, number })
    }

    fn start(&self, buffer: &Buffer) -> Option<(NonNull<u8>, u32)> {
        if buffer.inbox != self.number {
            return None;
        }
        let region = self.regions.get((buffer.number / self.per_region) as usize)?;
        let at = (buffer.number % self.per_region) as usize * self.buffer_bytes;
        // SAFETY: `add` saw that the region holds as many buffers.
        Some((unsafe { region.start.add(at) }, region.key))
    }

    /// The first `len` bytes of a buffer; fewer if it is shorter.
    #[inline]
    #[must_use]
    pub fn bytes(&self, buffer: &Buffer, len: usize) -> &[u8] {
        let Some((start, _)) = self.start(buffer) else { return &[] };
        // SAFETY: inside the region, which lives as long as `self`. Who has the `Buffer` has it
        // from a completion and has not given it back (that takes the value), so the device
        // does not write there.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), len.min(self.buffer_bytes)) }
    }

    /// Gives a buffer to the device.
    ///
    /// # Errors
    /// The device refuses: the buffer is lost.
    #[inline]
    pub fn give_back(&mut self, buffer: Buffer) -> Result<(), OsError> {
        let Some((start, lkey)) = self.start(&buffer) else {
            return Err(OsError::new("giving a receive buffer back", Errno::EINVAL));
        };
        let mut piece = Piece { addr: start.as_ptr().addr() as u64, length: self.buffer_bytes as u32, lkey };
        let mut work = ReceiveWork {
            wr_id: RECEIVE_BIT | u64::from(self.number) << 32 | u64::from(buffer.number),
            next: null_mut(),
            sg_list: &raw mut piece,
            num_sge: 1,
        };
        let mut bad = null_mut();
        // SAFETY: the queue lives; the driver has read the request when it returns. Nobody has
        // a reference into the buffer: they borrow `self`.
        let answer = unsafe { (self.shared.post)(self.shared.as_ptr(), &raw mut work, &raw mut bad) };
        if answer == 0 { Ok(()) } else { Err(OsError::new("giving a receive buffer back", Errno::from_raw(answer))) }
    }
}
