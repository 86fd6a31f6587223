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
//! parent's port is told so instead of corrupting a ring.

mod sink;
mod source;

pub use sink::{ConsumeError, Received, SinkPort};
pub use source::{Emit, GetBufferError, Loan, Outcome, Refusal, SourcePort, Token};

use insane_core::ConnId;
use insane_sys::map::ForkGuard;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    Attachment(Attachment),
}

#[derive(Debug)]
struct Mail<T> {
    changes: Vec<Change<T>>,
    graveyard: Vec<Box<T>>,
    violations: Vec<ConnId>,
}

/// Where the agent leaves prepared connections, and finds those to be freed.
#[derive(Debug)]
pub struct Mailbox<T> {
    /// The topology epoch; odd numbers only, so that the wiped value 0 is never one.
    guard: ForkGuard,
    mail: Mutex<Mail<T>>,
}

/// Most changes that wait at once; more wait with the agent.
const CHANGES_MAX: usize = 256;

impl<T> Mailbox<T> {
    pub(crate) fn new() -> std::io::Result<Self> {
        let guard = ForkGuard::new().map_err(std::io::Error::other)?;
        guard.word().store(1, Ordering::Relaxed);
        let mail = Mail {
            changes: Vec::with_capacity(CHANGES_MAX),
            graveyard: Vec::with_capacity(CHANGES_MAX),
            violations: Vec::with_capacity(CHANGES_MAX),
        };
        Ok(Mailbox { guard, mail: Mutex::new(mail) })
    }

    #[inline]
    pub(crate) fn epoch(&self) -> &AtomicU64 {
        self.guard.word()
    }

    fn lock(&self) -> MutexGuard<'_, Mail<T>> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self, change: Change<T>) -> bool {
        let mut mail = self.lock();
        if mail.changes.len() >= CHANGES_MAX {
            return false;
        }
        mail.changes.push(change);
        // Release pairs with the port's Acquire: the change is in the mailbox.
        self.epoch().fetch_add(2, Ordering::Release);
        true
    }

    /// Leaves a connection for the port. `false` if the mailbox is full: try again later.
    #[must_use]
    pub fn add(&self, conn: Box<T>) -> bool {
        self.post(Change::Add(conn))
    }

    /// Tells the port to let a connection go. `false` if the mailbox is full: try again later.
    #[must_use]
    pub fn remove(&self, conn: ConnId) -> bool {
        self.post(Change::Remove(conn))
    }

    /// Tells the port whether its runtime is there. `false` if the mailbox is full.
    #[must_use]
    pub fn set_attachment(&self, attachment: Attachment) -> bool {
        self.post(Change::Attachment(attachment))
    }

    /// Frees the connections that the port let go (call this off the hot path), and
    /// returns those whose other side wrote what cannot be.
    pub fn collect(&self) -> Vec<ConnId> {
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
