//! An allocator that notices allocations where there must be none.
//!
//! A binary installs it as its global allocator; a thread that is done with
//! set-up seals itself. From then on each allocation or release on that thread
//! counts as a violation, and aborts the process where that is asked for (tests).
//!
//! ```
//! use insane_sys::guard::{self, GuardAllocator};
//!
//! #[global_allocator]
//! static ALLOCATOR: GuardAllocator = GuardAllocator;
//!
//! guard::seal_thread();
//! let forbidden = Box::new(1);
//! assert_eq!(guard::violations_here(), 1);
//! {
//!     let _paused = guard::pause();
//!     drop(forbidden);
//! }
//! guard::unseal_thread();
//! assert_eq!(guard::violations(), 1);
//! ```

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

thread_local! {
    // Constant and without a destructor: reading them neither allocates nor fails.
    static SEALED: Cell<bool> = const { Cell::new(false) };
    static VIOLATIONS_HERE: Cell<u64> = const { Cell::new(0) };
}

/// Violations of all threads. Relaxed: a count orders nothing.
static VIOLATIONS: AtomicU64 = AtomicU64::new(0);
/// Whether a violation ends the process. Relaxed: set once, before threads seal.
static ABORTS: AtomicBool = AtomicBool::new(false);

/// The system's allocator, watched.
#[derive(Clone, Copy, Debug, Default)]
pub struct GuardAllocator;

// SAFETY: every call goes to `System` unchanged; what is added neither allocates nor
// unwinds.
unsafe impl GlobalAlloc for GuardAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        notice();
        // SAFETY: the caller's promise, handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        notice();
        // SAFETY: the caller's promise, handed on.
        unsafe { System.dealloc(start, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        notice();
        // SAFETY: the caller's promise, handed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        notice();
        // SAFETY: the caller's promise, handed on.
        unsafe { System.realloc(start, layout, size) }
    }
}

#[inline]
fn notice() {
    if SEALED.get() {
        violation();
    }
}

#[cold]
fn violation() {
    VIOLATIONS_HERE.set(VIOLATIONS_HERE.get() + 1);
    VIOLATIONS.fetch_add(1, Ordering::Relaxed);
    if ABORTS.load(Ordering::Relaxed) {
        const MESSAGE: &[u8] = b"insane: memory was allocated or released on a sealed thread\n";
        // SAFETY: writes a constant; `abort` does not return.
        unsafe {
            libc::write(2, MESSAGE.as_ptr().cast(), MESSAGE.len());
            libc::abort()
        }
    }
}

/// From now on the current thread must not allocate or release memory.
pub fn seal_thread() {
    SEALED.set(true);
}

/// The current thread may allocate again.
pub fn unseal_thread() {
    SEALED.set(false);
}

/// Whether the current thread is sealed.
#[must_use]
pub fn is_sealed() -> bool {
    SEALED.get()
}

/// Whether a violation ends the process (it does not unless asked).
pub fn set_abort(abort: bool) {
    ABORTS.store(abort, Ordering::Relaxed);
}

/// Violations of all threads since the process started.
#[must_use]
pub fn violations() -> u64 {
    VIOLATIONS.load(Ordering::Relaxed)
}

/// Violations of the current thread since it started.
#[must_use]
pub fn violations_here() -> u64 {
    VIOLATIONS_HERE.get()
}

/// Lets the current thread allocate until the result is dropped; then it is sealed
/// again if it was.
pub fn pause() -> Pause {
    Pause { was_sealed: SEALED.replace(false), here: PhantomData }
}

/// See [`pause`].
#[must_use]
#[derive(Debug)]
pub struct Pause {
    was_sealed: bool,
    /// Not `Send`: it belongs to the thread that paused.
    here: PhantomData<*const ()>,
}

impl Drop for Pause {
    fn drop(&mut self) {
        SEALED.set(self.was_sealed);
    }
}
