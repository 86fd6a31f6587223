//! A range of memory that may be shared: mapped once, unmapped when the last user lets go.

use crate::block;
use crate::cell::{CELL_BYTES, CELL_WORDS, Cell, Cells, PAYLOAD_WORD, PAYLOAD_WORDS};
use insane_sys::SharedBytes;
use insane_sys::map::{self, HUGE_BYTES};
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A mapping. Writable in at most one process; see the crate's documentation.
#[derive(Debug)]
pub struct Region {
    start: NonNull<u8>,
    len: usize,
    writable: bool,
    /// Whether the one object that writes it has been made.
    has_writer: AtomicBool,
    /// The process that mapped it. A forked child has no such mapping, so it must not
    /// unmap what may have taken its place there.
    process: u32,
}

// SAFETY: a mapping belongs to the process and no thread; who may write which of its bytes
// is decided by `claim_writer` and the types that call it.
unsafe impl Send for Region {}
// SAFETY: as above; `&Region` alone gives addresses and views that copy.
unsafe impl Sync for Region {}

impl Region {
    /// Memory of this process alone.
    ///
    /// # Errors
    /// No memory.
    pub fn anonymous(len: usize) -> io::Result<Arc<Self>> {
        let len = len.max(1);
        let start = map::map_anonymous(len).map_err(refused)?;
        Ok(Arc::new(Region::of(start, len, true)))
    }

    /// Maps the first `len` bytes of `fd` for writing, and keeps the mapping from forked
    /// children.
    ///
    /// # Errors
    /// The file is shorter, the mapping is refused (sealed, say), or memory is short.
    pub fn map_writable(fd: BorrowedFd<'_>, len: usize) -> io::Result<Arc<Self>> {
        Region::map(fd, len, true)
    }

    /// Maps the first `len` bytes of `fd` for reading, and keeps the mapping from forked
    /// children.
    ///
    /// # Errors
    /// As [`map_writable`](Self::map_writable).
    pub fn map_read_only(fd: BorrowedFd<'_>, len: usize) -> io::Result<Arc<Self>> {
        Region::map(fd, len, false)
    }

    fn map(fd: BorrowedFd<'_>, len: usize, writable: bool) -> io::Result<Arc<Self>> {
        check_length(fd, len)?;
        let start = map::map_shared(fd, len, writable).map_err(refused)?;
        Region::of(start, len, writable).keep_from_children()
    }

    fn of(start: NonNull<u8>, len: usize, writable: bool) -> Self {
        Region { start, len, writable, has_writer: AtomicBool::new(false), process: std::process::id() }
    }

    fn keep_from_children(self) -> io::Result<Arc<Self>> {
        // SAFETY: the range is this mapping, which nobody else knows yet.
        unsafe { map::dont_fork(self.start.as_ptr(), self.len) }.map_err(io::Error::other)?;
        Ok(Arc::new(self))
    }

    /// Bytes mapped.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is mapped. Never true.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether this process may write it.
    #[must_use]
    pub const fn is_writable(&self) -> bool {
        self.writable
    }

    /// Where it starts.
    #[must_use]
    pub const fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    /// Takes the right to write the region, which one object has for good: two would
    /// hand out the same bytes as `&mut` twice.
    ///
    /// # Panics
    /// If the region is mapped read-only, or another object took the right.
    pub(crate) fn claim_writer(&self) {
        assert!(self.writable, "the region is mapped read-only");
        assert!(!self.has_writer.swap(true, Ordering::Relaxed), "the region has its one writer already");
    }

    pub(crate) fn as_mut_ptr(&self) -> *mut u8 {
        debug_assert!(self.writable);
        self.start.as_ptr()
    }

    /// A view of the bytes from `at`; `None` unless all lie inside.
    #[must_use]
    pub fn bytes(&self, at: u64, len: usize) -> Option<SharedBytes<'_>> {
        let at = usize::try_from(at).ok()?;
        if at.checked_add(len)? > self.len() {
            return None;
        }
        // SAFETY: the range lies inside the mapping, which lives as long as `self`.
        Some(unsafe { SharedBytes::new(self.as_ptr().add(at), len) })
    }

    /// Touches every page, so that no later access faults. For writable regions the
    /// pages are allocated.
    ///
    /// # Errors
    /// Memory is short.
    pub fn prefault(&self) -> io::Result<()> {
        // SAFETY: the range is this mapping.
        unsafe { map::prefault(self.start.as_ptr(), self.len, self.writable) }.map_err(io::Error::other)
    }

    /// Asks for huge pages, for as long as it takes; call after the first touch. What cannot be had is no error
    /// for the caller to fail on, so it says only whether it worked.
    #[must_use]
    pub fn collapse_huge(&self) -> bool {
        // SAFETY: the range is this mapping.
        unsafe { map::collapse_huge(self.start.as_ptr(), self.len) }.is_ok()
    }

    /// As [`collapse_huge`](Self::collapse_huge), piece by piece, and no further when
    /// `limit` is over: a piece costs milliseconds. Whether every whole huge page of the
    /// region is one now; `None` if it is too short to have any.
    ///
    /// One writer's effort is enough: other mappings of the memory, also those to come, see
    /// its huge pages when they are first touched.
    #[must_use]
    pub fn make_huge(&self, limit: Duration) -> Option<bool> {
        if self.len < HUGE_BYTES {
            return None;
        }
        let give_up = Instant::now() + limit;
        let whole = (0..self.len / HUGE_BYTES).all(|page| {
            // SAFETY: the range lies inside this mapping.
            let piece = || unsafe { map::collapse_huge(self.start.as_ptr().add(page * HUGE_BYTES), HUGE_BYTES) };
            Instant::now() < give_up && piece().is_ok()
        });
        Some(whole)
    }

    /// Keeps the pages in memory.
    ///
    /// # Errors
    /// The right or the limit is missing.
    pub fn lock(&self) -> io::Result<()> {
        // SAFETY: the range is this mapping.
        unsafe { map::lock(self.start.as_ptr(), self.len) }.map_err(io::Error::other)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if std::process::id() == self.process {
            // SAFETY: dropped once, here; nothing uses the mapping afterwards.
            unsafe { map::unmap(self.start, self.len) };
        }
    }
}

/// The system's own number stays visible.
fn refused(error: insane_sys::OsError) -> io::Error {
    io::Error::from_raw_os_error(error.errno as i32)
}

fn check_length(fd: BorrowedFd<'_>, len: usize) -> io::Result<()> {
    let length = insane_sys::memfd::len(fd).map_err(io::Error::other)?;
    if len == 0 || length < len as u64 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("the shared memory has {length} bytes and {len} are needed"),
        ));
    }
    Ok(())
}

/// One word of a region, which others may write.
#[derive(Debug)]
pub(crate) struct RegionWord {
    at: *const AtomicU64,
    _region: Arc<Region>,
}

// SAFETY: the pointer is into the region, which is `Send + Sync`, and leads to an atomic.
unsafe impl Send for RegionWord {}
// SAFETY: as above.
unsafe impl Sync for RegionWord {}

impl RegionWord {
    /// # Panics
    /// Past the end.
    pub(crate) fn new(region: Arc<Region>, word: usize) -> Self {
        assert!((word + 1) * size_of::<AtomicU64>() <= region.len());
        // SAFETY: the word lies inside the mapping, as was just checked.
        let at = unsafe { region.as_ptr().cast::<AtomicU64>().add(word) };
        RegionWord { at, _region: region }
    }
}

impl std::ops::Deref for RegionWord {
    type Target = AtomicU64;
    #[inline(always)]
    fn deref(&self) -> &AtomicU64 {
        // SAFETY: `new` checked that the word lies inside the mapping, which is kept; a mapping
        // is page-aligned, so the word is aligned; it is atomic, so others may write it.
        unsafe { &*self.at }
    }
}

/// A region seen as cells.
#[derive(Clone, Debug)]
pub struct RegionCells {
    start: *const Cell,
    count: usize,
    region: Arc<Region>,
}

// SAFETY: the pointer is into `region`, which is `Send + Sync`; all access through it is
// by atomics, or by `write_payload`, whose single-writer rule the ring upholds.
unsafe impl Send for RegionCells {}

impl RegionCells {
    /// The whole region, in cells; a rest that fills no cell is left out.
    #[must_use]
    pub fn new(region: Arc<Region>) -> Self {
        let count = region.len() / CELL_BYTES;
        RegionCells { start: region.as_ptr().cast(), count, region }
    }

    /// The region itself.
    #[must_use]
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }
}

impl Cells for RegionCells {
    #[inline]
    fn cell(&self, index: usize) -> &Cell {
        assert!(index < self.count);
        // SAFETY: `index < count`, so the cell lies inside the mapping, which `region`
        // keeps; mappings are page-aligned, so it is aligned; a cell is atomics, so a
        // shared reference allows for writers elsewhere.
        unsafe { &*self.start.add(index) }
    }

    #[inline(always)]
    unsafe fn cell_unchecked(&self, index: usize) -> &Cell {
        // SAFETY: as in `cell`; `index < count` is the caller's promise.
        unsafe { &*self.start.add(index) }
    }

    #[inline(always)]
    unsafe fn word_unchecked(&self, at: usize) -> &AtomicU64 {
        // SAFETY: as in `cell`; that the word lies in one of the cells is the caller's promise.
        unsafe { &*self.start.cast::<AtomicU64>().add(at) }
    }

    fn cell_count(&self) -> usize {
        self.count
    }

    #[inline(always)]
    fn fetch_ahead(cell: &Cell) {
        block::prefetch(std::ptr::from_ref(&cell[CELL_WORDS / 2]).cast());
    }

    #[inline]
    unsafe fn write_payload(cell: &Cell, bytes: &[u8]) {
        let to = std::ptr::from_ref(cell).cast::<u8>().cast_mut();
        // SAFETY: the payload has room for 96 bytes, `bytes` are at most that, and atomics
        // allow mutation behind `&`; that the cell is writable and nobody in this process
        // looks is the caller's promise. A dishonest reader is in another process and
        // harms its own copy.
        unsafe { block::copy_into(bytes, to.add(PAYLOAD_WORD * 8)) };
    }

    #[inline]
    unsafe fn read_payload(cell: &Cell, len: usize, into: *mut u8) {
        let from = std::ptr::from_ref(cell).cast::<u8>();
        // SAFETY: the payload is 96 bytes from a multiple of 16 on (cells are aligned to
        // 128 in a page-aligned mapping); `into` is the caller's promise.
        unsafe { block::copy_volatile(from.add(PAYLOAD_WORD * 8), into, len) };
    }
}

const _: () =
    assert!((PAYLOAD_WORD * 8).is_multiple_of(block::BYTES) && (PAYLOAD_WORDS * 8).is_multiple_of(block::BYTES));
const _: () = assert!(CELL_WORDS * 8 == CELL_BYTES);
