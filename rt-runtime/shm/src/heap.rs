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

/// What is known of one buffer.
#[derive(Clone, Copy, Debug)]
struct Book {
    /// [`FREE`], [`LOANED`], or how many hold it.
    holders: u16,
    /// Its size class.
    class: u8,
    /// Where it lies, bytes from the start of the heap.
    offset: u64,
}

const FREE: u16 = 0;
const LOANED: u16 = u16::MAX;

/// The heap of one sender.
#[derive(Debug)]
pub struct SenderHeap {
    region: Arc<Region>,
    geometry: Geometry,
    books: Box<[Book]>,
    /// Free buffers of each class; the last returned is the first loaned again, since
    /// it is the one still in the cache.
    free: Box<[Vec<u32>]>,
}

impl SenderHeap {
    /// # Panics
    /// If the region is read-only, smaller than the geometry says, or has its heap already.
    #[must_use]
    pub fn new(region: Arc<Region>, geometry: Geometry) -> Self {
        region.claim_writer();
        assert!(region.len() as u64 >= geometry.bytes(), "the region is smaller than the heap");
        let books = (0_u8..).zip(geometry.classes()).flat_map(|(class, spec)| {
            let offset = move |at| spec.offset + u64::from(at) * spec.stride;
            (0..spec.count).map(move |at| Book { holders: FREE, class, offset: offset(at) })
        });
        let books = books.collect();
        // Room for all of a class: a release never allocates.
        let free = geometry.classes().iter().map(|c| (c.first..c.first + c.count).rev().collect()).collect();
        SenderHeap { region, geometry, books, free }
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
                self.books[id as usize].holders = LOANED;
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
        // reference to it exists (`&mut self` for this one), and this is the one object
        // that writes the region (`new` claimed it).
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    /// Start and length of a loaned buffer, for a loan that outlives this borrow.
    #[inline]
    pub(crate) fn range_of_loaned(&mut self, id: BufferId) -> (*mut u8, usize) {
        let book = self.books[id.0 as usize];
        assert!(book.holders == LOANED, "only a loaned buffer may be written");
        let size = self.geometry.classes()[book.class as usize].size as usize;
        // SAFETY: the geometry fits the region (`new`).
        (unsafe { self.region.as_mut_ptr().add(book.offset as usize) }, size)
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
        let book = &mut self.books[id.0 as usize];
        assert!(book.holders == LOANED, "only a loaned buffer can be lent");
        book.holders = 1;
    }

    /// One more holder of a lent buffer.
    ///
    /// # Panics
    /// If it is not lent, or has 65,533 holders already.
    #[inline]
    pub fn retain(&mut self, id: BufferId) {
        let book = &mut self.books[id.0 as usize];
        assert!(book.holders != FREE && book.holders < LOANED - 1, "only a lent buffer gets more holders");
        book.holders += 1;
    }

    /// What [`lend`](Self::lend), `holders` times [`retain`](Self::retain) and
    /// [`release`](Self::release) come to.
    ///
    /// # Panics
    /// If it is not loaned.
    #[inline]
    pub(crate) fn lend_to(&mut self, id: BufferId, holders: u16) {
        let book = &mut self.books[id.0 as usize];
        assert!(book.holders == LOANED && holders < LOANED, "only a loaned buffer can be lent");
        book.holders = holders;
        if holders == FREE {
            self.free[book.class as usize].push(id.0);
        }
    }

    /// One holder less, or the end of a loan; the last one frees the buffer.
    ///
    /// # Panics
    /// If nobody holds it.
    #[inline]
    pub fn release(&mut self, id: BufferId) {
        let book = &mut self.books[id.0 as usize];
        assert!(book.holders != FREE, "a free buffer was released");
        book.holders = if book.holders == LOANED { FREE } else { book.holders - 1 };
        if book.holders == FREE {
            self.free[book.class as usize].push(id.0);
        }
    }

    /// Whether anybody holds it.
    #[must_use]
    pub fn is_free(&self, id: BufferId) -> bool {
        self.books.get(id.0 as usize).is_none_or(|book| book.holders == FREE)
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

    /// Buffers of its smallest class, in number; 0 without classes.
    pub(crate) fn fewest(&self) -> u32 {
        self.geometry.classes().iter().map(|class| class.count).min().unwrap_or(0)
    }

    /// Where a buffer of at least `len` bytes starts, if there is such a buffer.
    #[inline]
    pub(crate) fn locate(&self, id: BufferId, len: u32) -> Option<*const u8> {
        let at = self.geometry.locate(id, len)?;
        // SAFETY: `new` checked that the whole geometry lies inside the region.
        Some(unsafe { self.region.as_ptr().add(at as usize) })
    }

    /// The one check of a claimed buffer: its first `len` bytes, if there is such a buffer.
    #[inline]
    #[must_use]
    pub fn view(&self, id: BufferId, len: u32) -> Option<SharedBytes<'_>> {
        self.region.bytes(self.geometry.locate(id, len)?, len as usize)
    }
}
