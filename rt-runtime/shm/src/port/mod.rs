//! The hot half of a source and of a sink: what an application's thread touches.
//!
//! A port is owned by one thread at a time (`Send`, not `Sync`); its methods take
//! `&self`, so several loans and messages may be out at once, each borrowing the port.
//! Inside is an `UnsafeCell`; every method takes the one `&mut` it needs, calls no
//! foreign code while it lasts, and lets it go before it returns. So no two exist.
//!
//! Connections come and go through a mailbox that the session's agent fills: the hot
//! path compares one word (the *topology epoch*) and otherwise never looks. The word
//! lives in a page that a forked child sees wiped, so that a child which uses its
//! parent's port is told so instead of corrupting a ring. So does the word that says
//! whether the small buffer at hand is free: one look tells both.
//!
//! The message or small buffer that is lent while no other is lies in the port itself, *at
//! hand*; the others lie in a pool. Who holds one at a time never touches the pool.
//!
//! The plain cases go straight through. What is apart from them is marked as cold, whether rare
//! or not: so the compiler keeps it out of their way.

mod sink;
mod source;

pub use sink::{ConsumeError, Received, SinkPort};
pub use source::{
    Earlier, Emit, GetBufferError, Loan, Outcome, Refusal, SourcePort, Token, end_of_past, spare_buffers,
};

use crate::wake;
use insane_core::ConnId;
use insane_core::counters::PortCounter;
use insane_core::limits::{FANIN_MAX, FANOUT_MAX};
use insane_sys::map::{ForkGuard, GuardWords};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whether a port's runtime is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attachment {
    /// The runtime answers.
    Attached,
    /// The runtime is gone; direct rings go on.
    Detached,
}

#[derive(Debug)]
enum Change<T> {
    Add(Box<T>),
    Remove(ConnId),
    /// Only for a source.
    LetGo(ConnId),
    Attachment(Attachment),
}

/// Connections that a port let go. Boxed as they came: moving one is moving a pointer.
type Graveyard<T> = Vec<Box<T>>;

#[derive(Debug)]
struct Mail<T> {
    changes: Vec<Change<T>>,
    graveyard: Graveyard<T>,
    violations: Vec<ConnId>,
}

/// Where the agent leaves prepared connections, and finds those to be freed.
///
/// In a forked child nothing is posted and nothing is found: the child has no agent.
#[derive(Debug)]
pub struct Mailbox<T> {
    /// The topology epoch; odd numbers only, so that neither the wiped value 0 nor
    /// [`STALE`] is ever one.
    guard: ForkGuard,
    mail: Mutex<Mail<T>>,
}

/// A port's hold on its mailbox, with the place of the guard's words at hand: the hot path looks
/// there for every message, and not through two pointers.
struct Held<T> {
    words: Words,
    mailbox: Arc<Mailbox<T>>,
}

/// The words of a mailbox's guard. Used only while the [`Held`] lives that it was copied from.
#[derive(Clone, Copy)]
struct Words(NonNull<GuardWords>);

impl<T> Held<T> {
    fn new(mailbox: &Arc<Mailbox<T>>) -> Self {
        Held { words: Words(mailbox.guard.words()), mailbox: Arc::clone(mailbox) }
    }

    /// The current topology epoch.
    #[inline(always)]
    fn now(&self) -> u64 {
        self.words.now()
    }
}

impl Words {
    /// The current topology epoch.
    #[inline(always)]
    fn now(self) -> u64 {
        // SAFETY: the word lies in the page of the mailbox's guard, which lives, in its place,
        // as long as the port's hold on the mailbox.
        let word = unsafe { &(*self.0.as_ptr()).shared };
        // Acquire pairs with the Release in `post`: the change is in the mailbox.
        word.load(Ordering::Acquire)
    }

    /// The word beside the epoch. In a forked child it is zero, until the child writes it.
    #[inline(always)]
    fn beside(self) -> u64 {
        // SAFETY: as in `now`; the port, which is one thread's, alone uses the word.
        unsafe { *(*self.0.as_ptr()).own.get() }
    }

    /// Sets the word beside the epoch.
    #[inline(always)]
    fn set_beside(self, value: u64) {
        // SAFETY: as in `beside`.
        unsafe { *(*self.0.as_ptr()).own.get() = value };
    }
}

impl<T> std::ops::Deref for Held<T> {
    type Target = Arc<Mailbox<T>>;
    fn deref(&self) -> &Arc<Mailbox<T>> {
        &self.mailbox
    }
}

/// A connection of a port. Not a box, since the hot path keeps a copy of where it is, and a
/// box must be the only way to what it holds.
struct Owned<T>(NonNull<T>);

// SAFETY: it is the one owner of what it points to, as a box is.
unsafe impl<T: Send> Send for Owned<T> {}

impl<T> Owned<T> {
    fn new(boxed: Box<T>) -> Self {
        Owned(NonNull::from(Box::leak(boxed)))
    }

    fn into_box(self) -> Box<T> {
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: leaked by `new`, and given up here without being dropped.
        unsafe { Box::from_raw(this.0.as_ptr()) }
    }

    /// Where it is, for as long as it is not dropped.
    const fn place(&self) -> NonNull<T> {
        self.0
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: leaked by `new`; dropped once.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl<T> std::ops::Deref for Owned<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: leaked by `new` and not freed before `self`; a port uses the place it
        // copied only where it does not use this reference.
        unsafe { self.0.as_ref() }
    }
}

impl<T> std::ops::DerefMut for Owned<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`.
        unsafe { self.0.as_mut() }
    }
}

/// `N` places that a port lends out one by one, and the stack of those that are free: the
/// last that came back on top, since it is still in the cache. Not a box, for the reason
/// given at [`Owned`].
struct Pool<T, const N: usize> {
    places: NonNull<[T; N]>,
    free: Option<NonNull<T>>,
}

/// What lies in a [`Pool`].
trait Stacked: Sized {
    /// Where a place says which free one is below it. No reference, since the bytes beside it
    /// may still be looked at when it goes back on the stack.
    ///
    /// # Safety
    /// `place` lies in a pool that lives.
    unsafe fn below(place: NonNull<Self>) -> *mut Option<NonNull<Self>>;
}

impl<T: Stacked, const N: usize> Pool<T, N> {
    fn new(places: Box<[T; N]>) -> Self {
        let places = NonNull::from(Box::leak(places));
        let mut pool = Pool { places, free: None };
        let first = places.cast::<T>();
        for at in (0..N).rev() {
            // SAFETY: `at < N`: a place of this pool, which nobody has yet.
            unsafe { pool.leave(first.add(at)) };
        }
        pool
    }

    /// The place that is lent next; it stays on the stack until [`take`](Self::take).
    #[inline(always)]
    const fn top(&self) -> Option<NonNull<T>> {
        self.free
    }

    /// The place of this number, which is less than `N`.
    #[inline(always)]
    fn place(&self, number: usize) -> NonNull<T> {
        debug_assert!(number < N);
        // SAFETY: every caller has the number from a place of this pool.
        unsafe { self.places.cast::<T>().add(number) }
    }

    /// Takes the top of the stack, if there is one.
    #[inline(always)]
    fn take(&mut self) -> Option<NonNull<T>> {
        let top = self.free?;
        // SAFETY: a free place of this pool, to which nothing else refers.
        self.free = unsafe { *T::below(top) };
        Some(top)
    }

    /// Puts a place on the stack.
    ///
    /// # Safety
    /// It is one of this pool's, was taken from it (or never was free), and nobody uses it any
    /// more.
    #[inline(always)]
    unsafe fn leave(&mut self, place: NonNull<T>) {
        // SAFETY: the caller's promise; what is written is the pool's alone.
        unsafe { *T::below(place) = self.free };
        self.free = Some(place);
    }
}

impl<T, const N: usize> Drop for Pool<T, N> {
    fn drop(&mut self) {
        // SAFETY: leaked by `new`; what is lent borrows the port, so nothing is out.
        drop(unsafe { Box::from_raw(self.places.as_ptr()) });
    }
}

/// Most changes that wait at once, and connections to be freed; more wait with the agent.
const CHANGES_MAX: usize = 256;
/// Connections that a source has let go while their receivers may still read; what the
/// receiver of one more holds is lost to the heap.
const LET_GO_MAX: usize = FANOUT_MAX;
/// Those of a source: local receivers, a datapath, and what it has let go.
const TX_MAX: usize = FANOUT_MAX + 1 + LET_GO_MAX;
/// A connection to be freed was a change first or is connected now: so much room, and
/// the port never allocates.
const GRAVES_MAX: usize = CHANGES_MAX + if TX_MAX > FANIN_MAX { TX_MAX } else { FANIN_MAX };
/// An epoch that is never current: the port looks into the mailbox at its next call.
const STALE: u64 = 2;
/// How often a port that has something to report tries for the lock. The agent holds it
/// for a few instructions; should it be interrupted there, the report waits.
const REPORT_TRIES: u32 = 100;
const _: () = assert!(PortCounter::Bytes as usize == PortCounter::Messages as usize + 1);

impl<T> Mailbox<T> {
    pub(crate) fn new() -> std::io::Result<Self> {
        let guard = ForkGuard::new().map_err(std::io::Error::other)?;
        guard.word().store(1, Ordering::Relaxed);
        let mail = Mail {
            changes: Vec::with_capacity(CHANGES_MAX),
            graveyard: Vec::with_capacity(GRAVES_MAX),
            violations: Vec::with_capacity(GRAVES_MAX),
        };
        Ok(Mailbox { guard, mail: Mutex::new(mail) })
    }

    #[inline(always)]
    pub(crate) fn epoch(&self) -> &AtomicU64 {
        self.guard.word()
    }

    /// Whether this process was forked from the port's.
    #[inline]
    pub(crate) fn is_forked(&self) -> bool {
        self.epoch().load(Ordering::Relaxed) == 0
    }

    /// The mail and its epoch, without waiting for the agent.
    fn try_open(&self) -> Option<(MutexGuard<'_, Mail<T>>, u64)> {
        let mail = match self.mail.try_lock() {
            Ok(mail) => mail,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => return None,
        };
        // Acquire pairs with the Release in `post`; under the lock it is the mail's own.
        let epoch = self.epoch().load(Ordering::Acquire);
        Some((mail, epoch))
    }

    fn lock(&self) -> MutexGuard<'_, Mail<T>> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self, change: Change<T>) -> Result<(), Change<T>> {
        if self.is_forked() {
            return Err(change);
        }
        let mut mail = self.lock();
        if mail.changes.len() + mail.graveyard.len() >= CHANGES_MAX {
            return Err(change);
        }
        mail.changes.push(change);
        // Release pairs with the port's Acquire: the change is in the mailbox.
        self.epoch().fetch_add(2, Ordering::Release);
        drop(mail);
        // A sink that sleeps watches its epoch, too.
        wake::wake_sleepers(self.epoch());
        Ok(())
    }

    /// Leaves a connection for the port.
    ///
    /// # Errors
    /// The mailbox is full, and the connection comes back: [`collect`](Self::collect),
    /// and try again later.
    pub fn add(&self, conn: Box<T>) -> Result<(), Box<T>> {
        self.post(Change::Add(conn)).map_err(|change| match change {
            Change::Add(conn) => conn,
            Change::Remove(_) | Change::LetGo(_) | Change::Attachment(_) => unreachable!("what was posted comes back"),
        })
    }

    /// Tells the port to let a connection go, and a source to use anew what the receiver held:
    /// it is dead, has let go of its end, or is expelled. `false` if the mailbox is full:
    /// [`collect`](Self::collect), and try again later.
    #[must_use]
    pub fn remove(&self, conn: ConnId) -> bool {
        self.post(Change::Remove(conn)).is_ok()
    }

    /// Tells a source to send nothing more on a connection whose receiver may still read: it
    /// counts as a receiver no more, and keeps what it does not give back until the connection
    /// is [removed](Self::remove). A source keeps 64 of those; what the receiver of one more
    /// holds is never used anew. `false` if the mailbox is full: [`collect`](Self::collect),
    /// and try again later.
    #[must_use]
    pub fn let_go(&self, conn: ConnId) -> bool {
        self.post(Change::LetGo(conn)).is_ok()
    }

    /// Tells the port whether its runtime is there. `false` if the mailbox is full.
    #[must_use]
    pub fn set_attachment(&self, attachment: Attachment) -> bool {
        self.post(Change::Attachment(attachment)).is_ok()
    }

    /// Frees the connections that the port let go (call this off the hot path), and
    /// returns those whose other side wrote what cannot be.
    pub fn collect(&self) -> Vec<ConnId> {
        if self.is_forked() {
            return Vec::new();
        }
        let (dead, violations) = {
            let mut mail = self.lock();
            let dead: Vec<Box<T>> = mail.graveyard.drain(..).collect();
            let violations: Vec<ConnId> = mail.violations.drain(..).collect();
            (dead, violations)
        };
        drop(dead);
        violations
    }
}
