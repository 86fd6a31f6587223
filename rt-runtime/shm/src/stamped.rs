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

/// Words of an entry beside its stamp.
pub(crate) const CONTENT_WORDS: usize = 7;
/// Words of an entry.
pub(crate) const ENTRY_WORDS: usize = CONTENT_WORDS + 1;

/// Overwrites an entry. Called by the one writer alone; `stamp` is not zero, and no entry of
/// this place had it before.
#[inline]
pub(crate) fn write(entry: &[AtomicU64; ENTRY_WORDS], stamp: u64, content: [u64; CONTENT_WORDS]) {
    entry[0].store(0, Ordering::Relaxed);
    // Release fence: who reads a word of the new entry reads no old stamp after it.
    fence(Ordering::Release);
    entry[1..].iter().zip(content).for_each(|(word, value)| word.store(value, Ordering::Relaxed));
    // Release: who reads this stamp reads the words of its entry.
    entry[0].store(stamp, Ordering::Release);
}

/// The entry of this stamp; `None`: it is not here, or not any more.
pub(crate) fn read(entry: &[AtomicU64; ENTRY_WORDS], stamp: u64) -> Option<[u64; CONTENT_WORDS]> {
    // Acquire: pairs with the stamp's release.
    if entry[0].load(Ordering::Acquire) != stamp {
        return None;
    }
    let mut content = [0; CONTENT_WORDS];
    content.iter_mut().zip(&entry[1..]).for_each(|(value, word)| *value = word.load(Ordering::Relaxed));
    // Acquire fence: pairs with the writer's, so a stamp that is still the same says that
    // no word was of a newer entry.
    fence(Ordering::Acquire);
    (entry[0].load(Ordering::Relaxed) == stamp).then_some(content)
}
