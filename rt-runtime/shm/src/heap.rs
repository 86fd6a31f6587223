//! The sender's heap: who holds which buffer. All of its books are private memory;
//! only the buffers themselves are shared.
//!
//! A buffer is *free*, *loaned* (one owner fills it, nobody else sees it) or *lent*
//! (counted holders read it, nobody writes it). Only a loaned buffer is ever seen as
//! `&mut [u8]`, which is what makes that sound.

use crate::region::Region;
use insane_core::heap::{BufferId, Class, Geometry};
use insane_core::limits::CLASSES_MAX;
use insane_sys::SharedBytes;
use std::ptr::NonNull;
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
    /// A stack of free buffers for each class, one behind the other, each with room for
    /// its whole class; the last returned is the first loaned again, since it is the one
    /// still in the cache.
    free: Box<[u32]>,
    stacks: heapless::Vec<Stack, CLASSES_MAX>,
}

/// The part of [`SenderHeap::free`] that belongs to one class.
#[derive(Clone, Copy, Debug)]
struct Stack {
    /// Bytes of a buffer.
    size: u32,
    /// Where the stack starts, and where it ends now.
    bottom: u32,
    top: u32,
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
        let of_class = |class: &Class| (class.first..class.first + class.count).rev();
        let free = geometry.classes().iter().flat_map(of_class).collect();
        let full = |class: &Class| Stack { size: class.size, bottom: class.first, top: class.first + class.count };
        let stacks = geometry.classes().iter().map(full).collect();
        SenderHeap { region, geometry, books, free, stacks }
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
        for stack in &mut self.stacks {
            if len <= stack.size && stack.top > stack.bottom {
                stack.top -= 1;
                let id = self.free[stack.top as usize];
                self.books[id as usize].holders = LOANED;
                return Some(BufferId(id));
            }
        }
        None
    }

    /// As [`loan`](Self::loan), and where the buffer starts.
    #[inline(always)]
    pub(crate) fn loan_at(&mut self, len: u32) -> Option<(BufferId, NonNull<u8>)> {
        let id = self.loan(len)?;
        let offset = self.books[id.0 as usize].offset;
        // SAFETY: the geometry fits the region (`new`), and a mapping is not null.
        Some((id, unsafe { NonNull::new_unchecked(self.region.as_mut_ptr().add(offset as usize)) }))
    }

    #[inline(always)]
    fn put_back(&mut self, id: BufferId, class: u8) {
        let stack = &mut self.stacks[class as usize];
        self.free[stack.top as usize] = id.0;
        stack.top += 1;
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

    /// Whether a buffer of the smallest class that holds `len` bytes is free.
    #[inline]
    pub(crate) fn has_best(&self, len: u32) -> bool {
        self.stacks.iter().find(|stack| len <= stack.size).is_some_and(|stack| stack.top > stack.bottom)
    }

    /// Whether at least one buffer of `len` bytes is free.
    #[must_use]
    pub fn has_free(&self, len: u32) -> bool {
        self.stacks.iter().any(|stack| len <= stack.size && stack.top > stack.bottom)
    }

    /// Buffers that somebody holds.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        self.geometry.buffers() - self.stacks.iter().map(|stack| stack.top - stack.bottom).sum::<u32>()
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
            let class = book.class;
            self.put_back(id, class);
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
            let class = book.class;
            self.put_back(id, class);
        }
    }

    /// Whether receivers hold it.
    #[must_use]
    pub(crate) fn is_lent(&self, id: BufferId) -> bool {
        self.books.get(id.0 as usize).is_some_and(|book| book.holders != FREE && book.holders != LOANED)
    }

    /// Whether nobody holds it.
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
    #[inline(always)]
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

#[cfg(test)]
mod tests {
    use super::*;
    use insane_core::heap::ClassSpec;
    use proptest::prelude::*;

    fn heap() -> SenderHeap {
        let specs = [(64, 3), (5000, 2)].map(|(size, count)| ClassSpec { size, count });
        let geometry = Geometry::new(&specs).unwrap();
        SenderHeap::new(Region::anonymous(geometry.bytes() as usize).unwrap(), geometry)
    }

    proptest! {
        /// Against a table of who holds what: 0 free, -1 on loan, else holders.
        #[test]
        fn nobody_gets_what_another_holds(steps in prop::collection::vec((0..5_u8, 0..5_u32), 0..300)) {
            let mut heap = heap();
            let mut model = [0_i32; 5];
            for (step, which) in steps {
                let (id, holders) = (BufferId(which), model[which as usize]);
                match (step, holders) {
                    (0, _) => {
                        let len = if which < 3 { 64 } else { 65 };
                        let first = if len == 64 { 0 } else { 3 };
                        match heap.loan(len) {
                            Some(id) => {
                                prop_assert!(id.0 >= first && model[id.0 as usize] == 0);
                                model[id.0 as usize] = -1;
                                heap.bytes_mut(id).fill(id.0 as u8 + 1);
                            }
                            None => prop_assert!(model[first as usize..].iter().all(|holders| *holders != 0)),
                        }
                    }
                    (1, -1) => {
                        heap.lend(id);
                        model[which as usize] = 1;
                    }
                    (2, -1) => {
                        heap.lend_to(id, which as u16);
                        model[which as usize] = which as i32;
                    }
                    (3, 1..) => {
                        heap.retain(id);
                        model[which as usize] += 1;
                    }
                    (4, -1) | (4, 1..) => {
                        heap.release(id);
                        model[which as usize] = (holders - 1).max(0);
                    }
                    _ => {}
                }
                for (id, holders) in (0..).map(BufferId).zip(model) {
                    prop_assert_eq!(heap.is_free(id), holders == 0);
                    // Nobody else's bytes were written.
                    if holders == -1 {
                        prop_assert!(heap.bytes_mut(id).iter().all(|byte| *byte == id.0 as u8 + 1));
                    }
                }
                prop_assert_eq!(heap.in_use() as usize, model.iter().filter(|holders| **holders != 0).count());
            }
        }
    }

    #[test]
    #[should_panic(expected = "only a loaned buffer may be written")]
    fn a_lent_buffer_is_not_written() {
        let mut heap = heap();
        let id = heap.loan(1).unwrap();
        heap.lend(id);
        heap.bytes_mut(id);
    }

    #[test]
    #[should_panic(expected = "a free buffer was released")]
    fn a_buffer_is_released_once() {
        let mut heap = heap();
        let id = heap.loan(1).unwrap();
        heap.release(id);
        heap.release(id);
    }

    #[test]
    fn a_foreign_heap_shows_nothing_outside_its_buffers() {
        let specs = [ClassSpec { size: 64, count: 3 }];
        let geometry = Geometry::new(&specs).unwrap();
        let region = Region::anonymous(geometry.bytes() as usize).unwrap();
        let heap = ForeignHeap::new(Arc::clone(&region), geometry.clone()).unwrap();
        assert_eq!(heap.view(BufferId(2), 64).unwrap().len(), 64);
        assert!(heap.view(BufferId(2), 65).is_none() && heap.view(BufferId(3), 0).is_none());
        assert!(heap.locate(BufferId(u32::MAX), 0).is_none());
        let two = Geometry::new(&[ClassSpec { size: 64, count: 3000 }]).unwrap();
        assert!(ForeignHeap::new(region, two).is_none());
    }
}
