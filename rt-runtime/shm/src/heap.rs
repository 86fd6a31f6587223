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
    /// The free buffers of each class, one class behind the other, each with room for all
    /// of it.
    free: Box<[u32]>,
    shelves: heapless::Vec<Shelf, CLASSES_MAX>,
}

/// Buffers of this size are loaned in turn, smaller ones as a stack. A small buffer is worth
/// having while it is in the cache. A large one that was just read is in the reader's cache,
/// and to write it means to fetch every line from there: half as fast as when it has been
/// displaced.
const LARGE_BYTES: u32 = 16 * 1024;
/// As many bytes of large buffers take turns: more than a core's own cache, less than what
/// cores share. The others wait until these are all in use.
const TURNS_BYTES: u32 = 8 << 20;

/// The part of [`SenderHeap::free`] that belongs to one class: a ring of those that take
/// turns, and a stack of the others behind it.
#[derive(Clone, Copy, Debug)]
struct Shelf {
    /// Bytes of a buffer.
    size: u32,
    /// Where the ring starts, and its places.
    bottom: u32,
    turns: u32,
    /// The place of the buffer free for longest, and how many are free in the ring.
    first: u32,
    free: u32,
    /// How many are free in the stack.
    others: u32,
}

impl Shelf {
    /// With so many bytes that take turns, if buffers of the class do at all.
    fn full(class: &Class, turns_bytes: u32) -> Self {
        let take_turns = turns_bytes > 0 && class.size >= LARGE_BYTES;
        let turns = if take_turns { (turns_bytes / class.size).max(2).min(class.count) } else { 0 };
        let others = class.count - turns;
        Shelf { size: class.size, bottom: class.first, turns, first: 0, free: turns, others }
    }

    const fn free(&self) -> u32 {
        self.free + self.others
    }

    /// The place that the next buffer is taken from, if one is free.
    #[inline(always)]
    const fn take(&mut self) -> Option<usize> {
        if self.free > 0 {
            let at = self.first;
            self.first = if at + 1 < self.turns { at + 1 } else { 0 };
            self.free -= 1;
            return Some((self.bottom + at) as usize);
        }
        if self.others == 0 {
            return None;
        }
        self.others -= 1;
        Some((self.bottom + self.turns + self.others) as usize)
    }

    /// The place that a buffer is put into.
    #[inline(always)]
    const fn put(&mut self) -> usize {
        if self.free < self.turns {
            let at = self.first + self.free;
            self.free += 1;
            return (self.bottom + if at < self.turns { at } else { at - self.turns }) as usize;
        }
        self.others += 1;
        (self.bottom + self.turns + self.others - 1) as usize
    }
}

impl SenderHeap {
    /// A heap whose large buffers take turns, for applications that write in place.
    ///
    /// # Panics
    /// If the region is read-only, smaller than the geometry says, or has its heap already.
    #[must_use]
    pub fn new(region: Arc<Region>, geometry: Geometry) -> Self {
        Self::with_turns(region, geometry, TURNS_BYTES)
    }

    /// A heap that is only copied into, by the kernel or in blocks: all its buffers are a
    /// stack. Block moves fetch no line that they overwrite, so that the fewest bytes in use
    /// are the best.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    #[must_use]
    pub fn copied_into(region: Arc<Region>, geometry: Geometry) -> Self {
        Self::with_turns(region, geometry, 0)
    }

    fn with_turns(region: Arc<Region>, geometry: Geometry, turns_bytes: u32) -> Self {
        region.claim_writer();
        assert!(region.len() as u64 >= geometry.bytes(), "the region is smaller than the heap");
        let books = (0_u8..).zip(geometry.classes()).flat_map(|(class, spec)| {
            let offset = move |at| spec.offset + u64::from(at) * spec.stride;
            (0..spec.count).map(move |at| Book { holders: FREE, class, offset: offset(at) })
        });
        let books = books.collect();
        let of_class = |class: &Class| (class.first..class.first + class.count).rev();
        let free = geometry.classes().iter().flat_map(of_class).collect();
        let shelves = geometry.classes().iter().map(|class| Shelf::full(class, turns_bytes)).collect();
        SenderHeap { region, geometry, books, free, shelves }
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
        Some(self.loan_at(len)?.0)
    }

    /// As [`loan`](Self::loan), and where the buffer starts.
    #[inline(always)]
    pub(crate) fn loan_at(&mut self, len: u32) -> Option<(BufferId, NonNull<u8>)> {
        let place = self.shelves.iter_mut().filter(|shelf| len <= shelf.size).find_map(Shelf::take)?;
        Some(self.loan_from(place))
    }

    /// As [`loan_at`](Self::loan_at), of the smallest class that fits alone.
    #[inline(always)]
    pub(crate) fn loan_best_at(&mut self, len: u32) -> Option<(BufferId, NonNull<u8>)> {
        let place = self.shelves.iter_mut().find(|shelf| len <= shelf.size)?.take()?;
        Some(self.loan_from(place))
    }

    #[inline(always)]
    fn loan_from(&mut self, place: usize) -> (BufferId, NonNull<u8>) {
        let id = self.free[place];
        let book = &mut self.books[id as usize];
        book.holders = LOANED;
        // SAFETY: the geometry fits the region (`new`), and a mapping is not null.
        (BufferId(id), unsafe { NonNull::new_unchecked(self.region.as_mut_ptr().add(book.offset as usize)) })
    }

    #[inline(always)]
    fn put_back(&mut self, id: BufferId, class: u8) {
        let at = self.shelves[class as usize].put();
        self.free[at] = id.0;
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
        self.shelves.iter().any(|shelf| len <= shelf.size && shelf.free() > 0)
    }

    /// Whether a buffer of the class that this one belongs to is free.
    #[inline(always)]
    pub(crate) fn has_more(&self, id: BufferId) -> bool {
        let class = self.books[id.0 as usize].class;
        self.shelves[class as usize].free() > 0
    }

    /// Buffers that somebody holds.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        self.geometry.buffers() - self.shelves.iter().map(Shelf::free).sum::<u32>()
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
        let specs = [(64, 3), (50_000, 2)].map(|(size, count)| ClassSpec { size, count });
        let geometry = Geometry::new(&specs).unwrap();
        SenderHeap::new(Region::anonymous(geometry.bytes() as usize).unwrap(), geometry)
    }

    fn heap_of(size: u32, count: u32) -> SenderHeap {
        let geometry = Geometry::new(&[ClassSpec { size, count }]).unwrap();
        SenderHeap::new(Region::anonymous(geometry.bytes() as usize).unwrap(), geometry)
    }

    /// Loans and returns with `held` in use all the time; the buffers that were used.
    fn used(heap: &mut SenderHeap, held: usize) -> std::collections::BTreeMap<u32, u32> {
        let mut used = std::collections::BTreeMap::new();
        let mut under_way = std::collections::VecDeque::new();
        for _ in 0..10_000 {
            let id = heap.loan(1).expect("one is free");
            *used.entry(id.0).or_default() += 1;
            under_way.push_back(id);
            if under_way.len() > held {
                heap.release(under_way.pop_front().unwrap());
            }
        }
        under_way.into_iter().for_each(|id| heap.release(id));
        used
    }

    #[test]
    fn small_buffers_are_used_again_while_they_are_in_the_cache() {
        assert_eq!(used(&mut heap_of(LARGE_BYTES - 1, 100), 0).len(), 1);
        assert_eq!(used(&mut heap_of(LARGE_BYTES - 1, 100), 9).len(), 10);
    }

    #[test]
    fn large_buffers_take_turns_but_no_more_than_the_caches_hold() {
        let turns = TURNS_BYTES / LARGE_BYTES;
        let used_of = |count, held| used(&mut heap_of(LARGE_BYTES, count), held);
        // All of a few, as often each.
        let few = used_of(5, 0);
        assert!(few.len() == 5 && few.values().all(|times| *times == 2_000));
        let many = used_of(turns + 100, 3);
        assert!(many.len() as u32 == turns && many.values().all(|times| *times >= 10_000 / turns));
        // More than that only while more are in use.
        assert_eq!(used_of(turns + 100, turns as usize + 10).len() as u32, turns + 11);
        // Of the largest two take turns; one alone does what it can.
        assert_eq!(used(&mut heap_of(TURNS_BYTES, 4), 0).len(), 2);
        assert_eq!(used(&mut heap_of(TURNS_BYTES, 1), 0).len(), 1);
    }

    #[test]
    fn buffers_that_are_only_copied_into_are_a_stack_whatever_their_size() {
        let geometry = Geometry::new(&[ClassSpec { size: TURNS_BYTES, count: 4 }]).unwrap();
        let region = Region::anonymous(geometry.bytes() as usize).unwrap();
        assert_eq!(used(&mut SenderHeap::copied_into(region, geometry), 1).len(), 2);
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
