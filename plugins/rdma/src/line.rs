//! One class of one peer, as the link and the door share it.

use crate::class::Class;
use insane_rdma_sys::Qp;
use insane_sys::event::Event;
use insane_sys::queue::TryQueue;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Connections that wait for the link, of one line.
pub(crate) const FRESH_MAX: usize = 2;

/// Who calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Calls,
    Answers,
}

/// What a line is at present.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    /// Its peer has no place: nobody calls or is answered, what stands stays.
    Rests = 0,
    /// Its peer has a place in the link.
    Serves = 1,
    /// Its peer was freed.
    Gone = 2,
}

/// A connection that the door hands over.
#[derive(Debug)]
pub(crate) struct Fresh {
    pub(crate) qp: Arc<Qp>,
    /// What the other side has room for.
    pub(crate) window: u32,
    /// It stands. Otherwise it stands once a message came by it.
    pub(crate) is_open: bool,
}

/// See the module. One writer each: the link (or who frees the peer) says what it is used for,
/// the door what has ended.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) class: Class,
    /// The peer's address with its port.
    pub(crate) address: SocketAddr,
    pub(crate) role: Role,
    state: AtomicU32,
    /// Filled by the door, emptied by the link.
    pub(crate) fresh: TryQueue<Fresh>,
    /// The number of the connection that the door saw end last; 0: none.
    ended: AtomicU32,
    signals: Arc<Signals>,
}

/// How door and link wake each other.
#[derive(Debug)]
pub(crate) struct Signals {
    /// Wakes the door.
    pub(crate) bell: Event,
    /// Wakes the link's datapath.
    pub(crate) answer: Event,
    /// The answer is to be looked at.
    answered: AtomicBool,
    pub(crate) stopping: AtomicBool,
}

impl Signals {
    pub(crate) fn new() -> Result<Self, insane_sys::OsError> {
        let (bell, answer) = (Event::new()?, Event::new()?);
        Ok(Signals { bell, answer, answered: AtomicBool::new(false), stopping: AtomicBool::new(false) })
    }

    /// The door has something for the link.
    pub(crate) fn tell_link(&self) {
        // Release: pairs with `is_told`; what the door wrote before is seen.
        self.answered.store(true, Ordering::Release);
        let _ = self.answer.signal();
    }

    /// Whether the door has something; said once.
    #[inline]
    pub(crate) fn is_told(&self) -> bool {
        if !self.answered.load(Ordering::Relaxed) {
            return false;
        }
        let _ = self.answer.clear();
        // Acquire: pairs with `tell_link`. Cleared before, so that what comes now is told again.
        self.answered.swap(false, Ordering::Acquire)
    }

    /// The link has something for the door.
    pub(crate) fn tell_door(&self) {
        let _ = self.bell.signal();
    }
}

impl Line {
    pub(crate) fn new(class: Class, address: SocketAddr, role: Role, signals: Arc<Signals>) -> Arc<Self> {
        Arc::new(Line {
            class,
            address,
            role,
            state: AtomicU32::new(Use::Rests as u32),
            fresh: TryQueue::new(FRESH_MAX),
            ended: AtomicU32::new(0),
            signals,
        })
    }

    pub(crate) fn is_used(&self) -> Use {
        // Acquire: pairs with `set_use`.
        match self.state.load(Ordering::Acquire) {
            0 => Use::Rests,
            1 => Use::Serves,
            _ => Use::Gone,
        }
    }

    pub(crate) fn set_use(&self, state: Use) {
        // Release: pairs with `is_used`; what was let go before is seen as let go.
        self.state.store(state as u32, Ordering::Release);
        self.signals.tell_door();
    }

    /// The link let its connection go.
    pub(crate) fn let_go(&self) {
        self.signals.tell_door();
    }

    /// The door hands a connection over. What nobody took is let go.
    pub(crate) fn hand_over(&self, fresh: Fresh) {
        // Numbers come again: an old one ended, not this.
        let number = fresh.qp.number();
        let _ = self.ended.compare_exchange(number, 0, Ordering::AcqRel, Ordering::Relaxed);
        let mut fresh = fresh;
        // Where there is no room, or the link is just taking one, the door tries again: it may wait.
        while let Err(back) = self.fresh.push(fresh) {
            drop(self.fresh.pop());
            fresh = back;
            std::thread::yield_now();
        }
        self.signals.tell_link();
    }

    /// The door saw a connection end.
    pub(crate) fn set_ended(&self, number: u32) {
        self.ended.store(number, Ordering::Release);
        self.signals.tell_link();
    }

    pub(crate) fn has_ended(&self, number: u32) -> bool {
        self.ended.load(Ordering::Acquire) == number
    }
}
