//! Memory of a ring: from the heap, or a shared mapping of a file.

use memmap2::MmapRaw;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Alignment of the heap form, bytes: one page, as a mapping has it.
const PAGE_BYTES: usize = 4096;

/// Zeroed, page-aligned memory that two threads may share.
pub(crate) struct Memory {
    base: NonNull<u8>,
    len: usize,
    owner: Owner,
}

enum Owner {
    Heap(Layout),
    Map { _map: MmapRaw },
}

impl Memory {
    /// Zeroed memory from the heap; aborts when there is none.
    ///
    /// # Panics
    /// If `len` is zero or absurdly large.
    #[must_use]
    pub(crate) fn heap(len: usize) -> Self {
        assert!(len > 0, "a ring needs memory");
        let layout = Layout::from_size_align(len, PAGE_BYTES).expect("a size that fits the address space");
        // SAFETY: the layout's size is not zero (asserted above).
        let base = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else { handle_alloc_error(layout) };
        Memory { base, len, owner: Owner::Heap(layout) }
    }

    /// A shared mapping, all of it.
    ///
    /// # Panics
    /// If the mapping is empty.
    #[must_use]
    pub(crate) fn map(map: MmapRaw) -> Self {
        let base = NonNull::new(map.as_mut_ptr()).expect("a mapping has an address");
        let len = map.len();
        assert!(len > 0, "a ring needs memory");
        Memory { base, len, owner: Owner::Map { _map: map } }
    }

    /// First byte.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Owner::Heap(layout) = self.owner {
            // SAFETY: `base` came from `alloc_zeroed` with this very layout in
            // `heap`, and this is the only place that gives it back.
            unsafe { dealloc(self.base.as_ptr(), layout) }
        }
    }
}

// SAFETY: the memory is plain bytes that belong to no thread. Who may touch
// which byte when is the matter of the ring, which uses atomics for it.
unsafe impl Send for Memory {}
// SAFETY: as above; `Memory` itself hands out nothing but its address.
unsafe impl Sync for Memory {}
