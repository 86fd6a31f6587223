//! Mapping shared memory, advice on what is mapped, and a page that forgets its content
//! in a forked child.
//!
//! The mappings belong to `insane-shm`; advice takes a range and tells the kernel what is
//! wanted of it. Start and length are multiples of the page size (the kernel refuses
//! others).

use crate::error::{OsError, check};
use std::cell::UnsafeCell;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// `MADV_POPULATE_READ` (Linux 5.14), `MADV_POPULATE_WRITE` and `MADV_COLLAPSE`
/// (6.1), by number: not every C library names them.
const MADV_POPULATE_READ: i32 = 22;
const MADV_POPULATE_WRITE: i32 = 23;
const MADV_COLLAPSE: i32 = 25;

/// Bytes of a huge page. Memory of at least this length is mapped to a multiple of it:
/// huge pages of a file are seen as such only by mappings that are aligned like the file.
pub const HUGE_BYTES: usize = 2 << 20;

/// Maps the first `len` bytes of a file, shared, for reading and, with `write`, writing.
///
/// # Errors
/// The mapping is refused (sealed, say), or memory is short.
pub fn map_shared(fd: BorrowedFd<'_>, len: usize, write: bool) -> Result<NonNull<u8>, OsError> {
    let prot = if write { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
    if len >= HUGE_BYTES
        && let Some(place) = aligned_place(len)
    {
        // Another thread may have taken the place: then any other will do.
        let flags = libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE;
        // SAFETY: NOREPLACE takes only what is free; an older kernel takes it as a hint.
        let start = unsafe { libc::mmap(place.cast(), len, prot, flags, fd.as_raw_fd(), 0) };
        if let Some(start) = mapped(start) {
            return Ok(start);
        }
    }
    // SAFETY: a new mapping at an address the kernel chooses.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
    mapped(start).ok_or_else(|| OsError::last("mapping shared memory"))
}

/// Maps zeroed memory of this process alone, for reading and writing.
///
/// # Errors
/// No memory.
pub fn map_anonymous(len: usize) -> Result<NonNull<u8>, OsError> {
    let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at an address the kernel chooses.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0) };
    mapped(start).ok_or_else(|| OsError::last("mapping memory"))
}

/// Ends a mapping.
///
/// # Safety
/// The range is a mapping of this process that nothing uses any more.
pub unsafe fn unmap(start: NonNull<u8>, len: usize) {
    // SAFETY: the caller's promise. It cannot fail for a range that is mapped.
    unsafe { libc::munmap(start.as_ptr().cast(), len) };
}

fn mapped(start: *mut libc::c_void) -> Option<NonNull<u8>> {
    if start == libc::MAP_FAILED { None } else { NonNull::new(start.cast()) }
}

/// Where `len` bytes fit at a multiple of [`HUGE_BYTES`], as things stand.
fn aligned_place(len: usize) -> Option<*mut u8> {
    let room = len.checked_add(HUGE_BYTES)?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address the kernel chooses, which nobody touches.
    let start = mapped(unsafe { libc::mmap(std::ptr::null_mut(), room, libc::PROT_NONE, flags, -1, 0) })?;
    // SAFETY: it was just mapped, and is nobody else's.
    unsafe { unmap(start, room) };
    let start = start.as_ptr();
    Some(start.wrapping_add(start.align_offset(HUGE_BYTES)))
}

/// Keeps the range out of children made by `fork`: a child that touches it faults.
///
/// # Safety
/// The range is a mapping of this process, and no child relies on it.
///
/// # Errors
/// The range is not mapped.
pub unsafe fn dont_fork(start: *mut u8, len: usize) -> Result<(), OsError> {
    // SAFETY: handed on to the caller.
    unsafe { advise(start, len, libc::MADV_DONTFORK, "keeping memory out of forked children") }
}

/// Makes every page of the range present now, so that no first touch is paid later.
/// With `write`, pages are ready to be written.
///
/// # Safety
/// The range is a mapping of this process; with `write`, a writable one.
///
/// # Errors
/// The range is not mapped so, memory is short, or the kernel is older than 5.14
/// (`EINVAL`).
pub unsafe fn prefault(start: *mut u8, len: usize, write: bool) -> Result<(), OsError> {
    let advice = if write { MADV_POPULATE_WRITE } else { MADV_POPULATE_READ };
    // SAFETY: handed on to the caller.
    unsafe { advise(start, len, advice, "touching memory beforehand") }
}

/// Joins the pages of the range into huge pages where alignment allows.
///
/// # Safety
/// The range is a mapping of this process.
///
/// # Errors
/// The kernel found no huge page, or does not know the call; the memory is usable
/// either way.
pub unsafe fn collapse_huge(start: *mut u8, len: usize) -> Result<(), OsError> {
    // SAFETY: handed on to the caller.
    unsafe { advise(start, len, MADV_COLLAPSE, "joining memory into huge pages") }
}

/// Keeps the range in memory.
///
/// # Safety
/// The range is a mapping of this process.
///
/// # Errors
/// The limit on locked memory is reached (see [`crate::privileges::rlimit_memlock`]).
pub unsafe fn lock(start: *mut u8, len: usize) -> Result<(), OsError> {
    // SAFETY: mlock changes no content; the range is mapped (the caller's promise).
    check(unsafe { libc::mlock(start.cast(), len) }, "locking memory").map(drop)
}

/// # Safety
/// As the advice demands; see the public functions.
unsafe fn advise(start: *mut u8, len: usize, advice: i32, attempted: &'static str) -> Result<(), OsError> {
    loop {
        // SAFETY: the caller's promise.
        let result = check(unsafe { libc::madvise(start.cast(), len, advice) }, attempted);
        match result {
            // Populating is interruptible and may be asked to start again.
            Err(error) if matches!(error.errno, nix::errno::Errno::EINTR) => {}
            other => return other.map(drop),
        }
    }
}

/// Size of a page, bytes.
#[must_use]
pub fn page_bytes() -> usize {
    // SAFETY: sysconf reads a constant.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Words that read zero in a forked child, so that a child notices that it is one. The parent
/// stores something else first.
#[derive(Debug)]
pub struct ForkGuard {
    page: NonNull<GuardWords>,
}

/// The words of a [`ForkGuard`], each in cache lines of its own.
#[derive(Debug)]
#[repr(C)]
pub struct GuardWords {
    /// For all threads.
    pub shared: AtomicU64,
    apart: [u64; 15],
    /// For one thread, or who else makes sure that one at a time uses it.
    pub own: UnsafeCell<u64>,
}

// SAFETY: the page is a mapping of the process, bound to no thread; the word in it
// is only reached as an atomic.
unsafe impl Send for ForkGuard {}
// SAFETY: as above.
unsafe impl Sync for ForkGuard {}

impl ForkGuard {
    /// A guard whose words are zero.
    ///
    /// # Errors
    /// No memory is left, or the kernel is older than 4.14.
    pub fn new() -> Result<Self, OsError> {
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new anonymous mapping at an address the kernel chooses.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), page_bytes(), prot, flags, -1, 0) };
        let page = match NonNull::new(start.cast::<GuardWords>()) {
            Some(page) if start != libc::MAP_FAILED => page,
            _ => return Err(OsError::last("mapping the fork guard")),
        };
        let guard = ForkGuard { page };
        // Miri has neither the advice nor children.
        #[cfg(not(miri))]
        // SAFETY: the page was mapped above and is ours alone.
        unsafe {
            advise(start.cast(), page_bytes(), libc::MADV_WIPEONFORK, "wiping the fork guard in children")?;
        }
        Ok(guard)
    }

    /// The word for all threads.
    #[must_use]
    pub fn word(&self) -> &AtomicU64 {
        // SAFETY: mapped, aligned and zeroed by `new`; unmapped only by `drop`.
        unsafe { &(*self.page.as_ptr()).shared }
    }

    /// Where the words are, for as long as the guard lives.
    #[must_use]
    pub const fn words(&self) -> NonNull<GuardWords> {
        self.page
    }
}

impl Drop for ForkGuard {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`; no reference outlives `self`.
        unsafe { libc::munmap(self.page.as_ptr().cast(), page_bytes()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};
    use std::os::fd::AsFd;
    use std::sync::atomic::Ordering;

    #[test]
    fn a_forked_child_reads_zero() {
        let guard = ForkGuard::new().unwrap();
        guard.word().store(42, Ordering::Relaxed);
        // SAFETY: the child only loads a word and exits.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let seen = guard.word().load(Ordering::Relaxed);
                // SAFETY: ends the child without running anything else.
                unsafe { libc::_exit(if seen == 0 { 17 } else { 1 }) }
            }
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 17));
                assert_eq!(guard.word().load(Ordering::Relaxed), 42);
            }
        }
    }

    #[test]
    fn a_range_kept_from_children_faults_there() {
        let guard = ForkGuard::new().unwrap();
        // SAFETY: the guard's own page.
        unsafe { dont_fork(guard.page.as_ptr().cast(), page_bytes()).unwrap() };
        // SAFETY: the child only touches the page, which ends it.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                // No core file and no handler of the test harness: the fault is wanted.
                // SAFETY: plain calls; the load faults, or the child says that it did not.
                unsafe {
                    libc::signal(libc::SIGSEGV, libc::SIG_DFL);
                    guard.page.cast::<u8>().as_ptr().read_volatile();
                    libc::_exit(0)
                }
            }
            ForkResult::Parent { child } => {
                assert!(matches!(waitpid(child, None).unwrap(), WaitStatus::Signaled(..)));
            }
        }
    }

    #[test]
    fn large_memory_is_aligned_for_huge_pages_and_small_is_mapped_too() {
        for (len, write) in [(4096, true), (HUGE_BYTES, true), (HUGE_BYTES * 3 + 4096, false)] {
            let fd = crate::memfd::create("test", len as u64).unwrap();
            let start = map_shared(fd.as_fd(), len, write).unwrap();
            assert!(len < HUGE_BYTES || start.as_ptr().align_offset(HUGE_BYTES) == 0, "{len} bytes");
            // SAFETY: just mapped; the last byte lies inside.
            unsafe {
                assert_eq!(start.as_ptr().add(len - 1).read_volatile(), 0);
                unmap(start, len);
            }
        }
        let fd = crate::memfd::create("test", 4096).unwrap();
        crate::memfd::seal_writers(&fd).unwrap();
        assert!(map_shared(fd.as_fd(), 4096, true).is_err(), "sealed");
        assert!(map_anonymous(usize::MAX / 2).is_err());
    }

    #[test]
    fn memory_can_be_touched_and_locked_beforehand() {
        let guard = ForkGuard::new().unwrap();
        let start = guard.page.as_ptr().cast::<u8>();
        // SAFETY: the guard's own page.
        unsafe {
            prefault(start, page_bytes(), true).unwrap();
            prefault(start, page_bytes(), false).unwrap();
            lock(start, page_bytes()).unwrap();
        }
    }

    #[test]
    fn a_range_that_is_not_mapped_is_an_error() {
        // SAFETY: page zero is never mapped, and the kernel says so.
        let error = unsafe { prefault(std::ptr::null_mut(), page_bytes(), true) }.unwrap_err();
        assert_eq!(error.errno, nix::errno::Errno::ENOMEM);
    }
}
