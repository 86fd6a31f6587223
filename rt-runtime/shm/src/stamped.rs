//! Entries of a ring that its writer overwrites while readers copy them out, without the memory
//! they lie in, so that loom can check them.
//!
//! The first word of an entry is its *stamp*: another for each entry that was ever written, and
//! zero while one is being written. A reader knows which stamp it wants, and looks at it before
//! and after: it has the whole entry of that stamp, or nothing.
//!
//! | writer | reader |
//! |---|---|
//! | 1. stamp = 0; Release fence | 1. stamp (Acquire) is the one wanted? |
//! | 2. the words | 2. the words; Acquire fence |
//! | 3. stamp (Release) | 3. the stamp is still the same? |
//!
//! A reader that sees the stamp in 1 sees the words of that entry or newer ones. If one is
//! newer, the fences join: it then sees the zero of 1, or what came after, in 3.
//!
//! Bounds: one writer; neither side waits for the other.

use crate::sync::{AtomicU64, Ordering, fence};

/// Overwrites an entry. Called by the one writer alone; `new` is not zero, and no entry of this
/// place had it before.
#[inline]
pub(crate) fn write<const N: usize>(stamp: &AtomicU64, words: &[AtomicU64; N], new: u64, content: [u64; N]) {
    stamp.store(0, Ordering::Relaxed);
    // Release fence: who reads a word of the new entry reads no old stamp after it.
    fence(Ordering::Release);
    words.iter().zip(content).for_each(|(word, value)| word.store(value, Ordering::Relaxed));
    // Release: who reads this stamp reads the words of its entry.
    stamp.store(new, Ordering::Release);
}

/// The entry whose stamp is `wanted`; `None`: it is not here, or not any more.
pub(crate) fn read<const N: usize>(stamp: &AtomicU64, words: &[AtomicU64; N], wanted: u64) -> Option<[u64; N]> {
    // Acquire: pairs with the stamp's release.
    if stamp.load(Ordering::Acquire) != wanted {
        return None;
    }
    let mut content = [0; N];
    content.iter_mut().zip(words).for_each(|(value, word)| *value = word.load(Ordering::Relaxed));
    // Acquire fence: pairs with the writer's, so a stamp that is still the same says that
    // no word was of a newer entry.
    fence(Ordering::Acquire);
    (stamp.load(Ordering::Relaxed) == wanted).then_some(content)
}
