//! The sender's heap: who holds which buffer. All of its books are private memory;
//! only the buffers themselves are shared.
//!
//! A buffer is *free*, *loaned* (one owner fills it, nobody else sees it) or *lent*
//! (counted holders read it, nobody writes it). Only a loaned buffer is ever seen as
//! `&mut [u8]`, which is what makes that sound.

use crate::region::Region;
use insane_core::heap::{BufferId, Geometry};
use insane_sys::SharedBytes;
use std::sync::Arc;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Free,
    Loaned,
    Lent { holders: u16 },
}

/// The heap of one sender.
#[derive(Debug)]
pub struct SenderHeap {
    region: Arc<Region>,
    geometry: Geometry,
    states: Box<[State]>,
    /// Free buffers of each class; the last returned is the first loaned again, since
    /// it is the one still in the cache.
    free: Box<[Vec<u32>]>,
}

impl SenderHeap {
    /// # Panics
    /// If the region is read-only or smaller than the geometry says.
    #[must_use]
    pub fn new(region: Arc<Region>, geometry: Geometry) -> Self {
        assert!(region.is_writable() && region.len() as u64 >= geometry.bytes());
        let states = vec![State::Free; geometry.buffers() as usize].into();
        let free = geometry.classes().iter().map(|c| (c.first..c.first + c.count).rev().collect()).collect();
        SenderHeap { region, geometry, states, free }
    }

    /// Where the buffers lie.
    #[must_use]
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Takes a buffer of at least `len` bytes: of the smallest class that fits, or of
    /// a larger one if that is used up.
    #[inline]
    pub fn loan(&mut self, len: u32) -> Option<BufferId> {
        for (class, free) in self.geometry.classes().iter().zip(self.free.iter_mut()) {
            if len <= class.size
                && let Some(id) = free.pop()
            {
                self.states[id as usize] = State::Loaned;
                return Some(BufferId(id));
            }
        }
        None
    }

    /// The whole of a loaned buffer.
    ///
    /// # Panics
    /// If it is not loaned.
    #[inline]
    pub fn bytes_mut(&mut self, id: BufferId) -> &mut [u8] {
        let (start, len) = self.range_of_loaned(id);
        // SAFETY: the range lies inside the mapping; the buffer is loaned, so no other
        // reference to it exists (`&mut self` for this one), and this is the one
        // process that maps it writable.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    /// Start and length of a loaned buffer, for a loan that outlives this borrow.
    pub(crate) fn range_of_loaned(&mut self, id: BufferId) -> (*mut u8, usize) {
        assert!(self.states[id.0 as usize] == State::Loaned, "only a loaned buffer may be written");
        let class = self.geometry.classes().iter().rfind(|class| class.first <= id.0).expect("the buffer exists");
        let at = class.offset + u64::from(id.0 - class.first) * class.stride;
        // SAFETY: the geometry fits the region (`new`).
        (unsafe { self.region.as_mut_ptr().add(at as usize) }, class.size as usize)
    }

    /// Whether at least one buffer of `len` bytes is free.
    #[must_use]
    pub fn has_free(&self, len: u32) -> bool {
        self.geometry.classes().iter().zip(self.free.iter()).any(|(class, free)| len <= class.size && !free.is_empty())
    }

    /// Buffers that somebody holds.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        self.geometry.buffers() - self.free.iter().map(|free| free.len() as u32).sum::<u32>()
    }

    /// From loaned to lent, with one holder: the caller, until it calls [`release`](Self::release).
    ///
    /// # Panics
    /// If it is not loaned.
    #[inline]
    pub fn lend(&mut self, id: BufferId) {
        let state = &mut self.states[id.0 as usize];
        assert!(*state == State::Loaned, "only a loaned buffer can be lent");
        *state = State::Lent { holders: 1 };
    }

    /// One more holder of a lent buffer.
    ///
    /// # Panics
    /// If it is not lent.
    #[inline]
    pub fn retain(&mut self, id: BufferId) {
        let State::Lent { holders } = &mut self.states[id.0 as usize] else {
            panic!("only a lent buffer gets more holders")
        };
        *holders += 1;
    }

    /// One holder less, or the end of a loan; the last one frees the buffer.
    ///
    /// # Panics
    /// If nobody holds it.
    #[inline]
    pub fn release(&mut self, id: BufferId) {
        let state = &mut self.states[id.0 as usize];
        match state {
            State::Lent { holders } if *holders > 1 => *holders -= 1,
            State::Lent { .. } | State::Loaned => {
                *state = State::Free;
                let class =
                    self.geometry.classes().iter().rposition(|class| class.first <= id.0).expect("the buffer exists");
                self.free[class].push(id.0);
            }
            State::Free => panic!("a free buffer was released"),
        }
    }

    /// Whether anybody holds it.
    #[must_use]
    pub fn is_free(&self, id: BufferId) -> bool {
        self.states.get(id.0 as usize).is_none_or(|state| *state == State::Free)
    }
}

/// A sender's heap, seen by a receiver.
#[derive(Clone, Debug)]
pub struct ForeignHeap {
    region: Arc<Region>,
    geometry: Geometry,
}

impl ForeignHeap {
    /// `None` if the region is smaller than the geometry says.
    #[must_use]
    pub fn new(region: Arc<Region>, geometry: Geometry) -> Option<Self> {
        (region.len() as u64 >= geometry.bytes()).then_some(ForeignHeap { region, geometry })
    }

    /// Buffers it has.
    #[must_use]
    pub const fn buffers(&self) -> u32 {
        self.geometry.buffers()
    }

    /// The one check of a claimed buffer: its first `len` bytes, if there is such a buffer.
    #[inline]
    #[must_use]
    pub fn view(&self, id: BufferId, len: u32) -> Option<SharedBytes<'_>> {
        self.region.bytes(self.geometry.locate(id, len)?, len as usize)
    }
}
