//! The thread that makes the wake-ups which no datapath has time for.
//!
//! A wake-up costs its caller up to 10 us in the kernel, so a datapath makes a few in a
//! turn ([`WAKES_PER_TURN`](crate::WAKES_PER_TURN)) and hands the others over. All
//! datapaths of a runtime share one waker. It runs under the ordinary scheduling policy:
//! a flood of wake-ups must not delay tasks that have a priority. So whoever needs a bound
//! on its wake-up is among the first of its turn, or does not sleep.
//!
//! Bounds: [`QUEUE_PLACES`] errands of each kind wait; what finds no place stays with its
//! datapath. An errand keeps the memory that it touches mapped, so a sink may be removed
//! meanwhile; its last mapping then ends here and not on a datapath.

use insane_shm::wake::Errand;
use insane_sys::queue::TryQueue;
use insane_sys::thread;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

/// Errands of real-time sinks that wait at most, and as many of the others.
pub const QUEUE_PLACES: usize = 1024;
/// Longest sleep: a backstop, as every sleeper has one.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// The way to the waker thread; shared by the datapaths of a runtime.
#[derive(Debug)]
pub struct WakeQueue {
    urgent: TryQueue<Errand>,
    ordinary: TryQueue<Errand>,
    thread: OnceLock<Thread>,
    stop: AtomicBool,
}

impl WakeQueue {
    pub(crate) fn new(places: usize) -> Self {
        WakeQueue {
            urgent: TryQueue::new(places),
            ordinary: TryQueue::new(places),
            thread: OnceLock::new(),
            stop: AtomicBool::new(false),
        }
    }

    /// Leaves an errand; false if there is no place. Neither waits nor allocates.
    pub(crate) fn push(&self, errand: Errand, urgent: bool) -> bool {
        let queue = if urgent { &self.urgent } else { &self.ordinary };
        // One that comes back is dropped here: its connection still holds what it held.
        queue.push(errand).is_ok()
    }

    /// Tells the thread that errands were left: once a turn, since it costs a system call
    /// if the thread sleeps.
    pub(crate) fn ring(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn pop(&self) -> Option<Errand> {
        self.urgent.pop().or_else(|| self.ordinary.pop())
    }
}

/// A running waker.
#[derive(Debug)]
pub struct WakerThread {
    queue: Arc<WakeQueue>,
    handle: Option<JoinHandle<()>>,
    tid: i32,
}

impl WakerThread {
    /// Starts it; it runs where the caller may.
    ///
    /// # Errors
    /// No thread.
    pub fn start() -> io::Result<Self> {
        let queue = Arc::new(WakeQueue::new(QUEUE_PLACES));
        let (report, reported) = mpsc::channel();
        let shared = Arc::clone(&queue);
        let handle = std::thread::Builder::new().name("insane-waker".into()).spawn(move || {
            // The starter waits for this, or is gone.
            let _ = report.send(thread::current_tid());
            while !shared.stop.load(Ordering::Acquire) {
                match shared.pop() {
                    Some(errand) => errand.run(),
                    // A ring between the look and the sleep is remembered by the token.
                    None => std::thread::park_timeout(SLEEP_MAX),
                }
            }
        })?;
        // Nobody pushes before this returns.
        let _ = queue.thread.set(handle.thread().clone());
        let tid = reported.recv().map_err(|_| io::Error::other("the waker thread ended while starting"))?;
        Ok(WakerThread { queue, handle: Some(handle), tid })
    }

    /// The way to it, for datapaths.
    #[must_use]
    pub fn queue(&self) -> Arc<WakeQueue> {
        Arc::clone(&self.queue)
    }

    /// The kernel's number for it.
    #[must_use]
    pub const fn tid(&self) -> i32 {
        self.tid
    }

    /// Whether it still runs. It ends when it is dropped, or by a bug.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.handle.as_ref().is_some_and(|handle| !handle.is_finished())
    }
}

impl Drop for WakerThread {
    fn drop(&mut self) {
        self.queue.stop.store(true, Ordering::Release);
        self.queue.ring();
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}
