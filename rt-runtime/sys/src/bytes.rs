//! A view of memory that another process may be writing.

use std::marker::PhantomData;
use std::ptr;

/// Bytes that somebody else may change while they are looked at.
///
/// Not a `&[u8]`, and does not become one: every read is volatile and copies, so
/// what was checked is what is used. A view of private memory (`From<&[u8]>`) has
/// the same form, so one code path serves both.
#[derive(Clone, Copy)]
pub struct SharedBytes<'a> {
    start: *const u8,
    len: usize,
    memory: PhantomData<&'a u8>,
}

impl<'a> SharedBytes<'a> {
    /// No bytes.
    pub const EMPTY: SharedBytes<'static> =
        SharedBytes { start: ptr::NonNull::dangling().as_ptr(), len: 0, memory: PhantomData };

    /// A view of `len` bytes from `start`.
    ///
    /// # Safety
    /// The range is mapped, readable and stays so for `'a`. It may be written by
    /// another process at any time, but not through a `&mut` of this process.
    #[must_use]
    pub const unsafe fn new(start: *const u8, len: usize) -> Self {
        SharedBytes { start, len, memory: PhantomData }
    }

    /// Length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the bytes start, for a system call that reads them.
    #[must_use]
    pub const fn as_ptr(&self) -> *const u8 {
        self.start
    }

    /// The part from `from`, at most `len` bytes; empty past the end.
    #[must_use]
    pub fn part(&self, from: usize, len: usize) -> SharedBytes<'a> {
        let from = from.min(self.len);
        let len = len.min(self.len - from);
        // SAFETY: `from + len <= self.len`, so the part lies inside the range that
        // `new` promised for `'a`.
        unsafe { SharedBytes::new(self.start.add(from), len) }
    }

    /// Byte `at`, read once; `None` past the end.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<u8> {
        if at >= self.len {
            return None;
        }
        // SAFETY: `at < len`; volatile, since the writer may race.
        Some(unsafe { self.start.add(at).read_volatile() })
    }

    /// Copies into `into` as much as fits both and returns how much that was.
    pub fn copy_to(&self, into: &mut [u8]) -> usize {
        let len = self.len.min(into.len());
        // SAFETY: both ranges hold `len` bytes; `into` is exclusively ours, so they
        // do not overlap; the reads are volatile.
        unsafe { copy_volatile(self.start, into.as_mut_ptr(), len) };
        len
    }

    /// Copies all bytes to where `to` points.
    ///
    /// # Safety
    /// `to` is writable for as many bytes, exclusively ours, and does not overlap them.
    #[inline]
    pub(crate) unsafe fn copy_to_ptr(&self, to: *mut u8) {
        // SAFETY: handed on; the reads are volatile.
        unsafe { copy_volatile(self.start, to, self.len) };
    }

    /// A private copy.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut copy = vec![0; self.len];
        self.copy_to(&mut copy);
        copy
    }

    /// The bytes as a slice.
    ///
    /// # Safety
    /// Nobody writes them for as long as the slice lives: the caller trusts the
    /// writer, and the buffer has not been released.
    #[must_use]
    pub unsafe fn as_slice_unchecked(&self) -> &'a [u8] {
        // SAFETY: mapped for `'a` (`new`), not written (this function's contract).
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl<'a> From<&'a [u8]> for SharedBytes<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        SharedBytes { start: bytes.as_ptr(), len: bytes.len(), memory: PhantomData }
    }
}

impl std::fmt::Debug for SharedBytes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedBytes({} bytes)", self.len)
    }
}

/// From so many bytes on the processor's own block move is used: where another core wrote them
/// it has many lines on their way at once.
#[cfg(target_arch = "x86_64")]
const BLOCK_MOVE_BYTES: usize = 512;

/// Copies `len` bytes, reading each once.
///
/// # Safety
/// `from` is readable and `to` writable for `len` bytes; they do not overlap.
#[inline]
unsafe fn copy_volatile(from: *const u8, to: *mut u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    if len >= BLOCK_MOVE_BYTES {
        // SAFETY: handed on.
        return unsafe { move_block(from, to, len) };
    }
    // Volatile reads of whole blocks: the compiler may neither repeat nor drop one.
    let mut at = 0;
    while len - at >= size_of::<Block>() {
        // SAFETY: both blocks lie inside `len`; they may be unaligned, which the packed type
        // allows.
        unsafe { to.add(at).cast::<Block>().write(from.add(at).cast::<Block>().read_volatile()) };
        at += size_of::<Block>();
    }
    while len - at >= size_of::<Word>() {
        // SAFETY: as above.
        unsafe { to.add(at).cast::<Word>().write(from.add(at).cast::<Word>().read_volatile()) };
        at += size_of::<Word>();
    }
    while at < len {
        // SAFETY: `at < len`.
        unsafe { to.add(at).write(from.add(at).read_volatile()) };
        at += 1;
    }
}

/// Copies `WORDS` words of eight bytes, one by one.
///
/// # Safety
/// `from` is readable and `to` writable for as many; they do not overlap.
#[inline(always)]
pub(crate) unsafe fn copy_words<const WORDS: usize>(from: *const u8, to: *mut u8) {
    for at in 0..WORDS {
        // SAFETY: `at < WORDS`. Volatile, so that the compiler makes no longer reads of it.
        unsafe { to.cast::<Word>().add(at).write(from.cast::<Word>().add(at).read_volatile()) };
    }
}

/// As [`copy_volatile`], with one instruction, of which the compiler knows nothing.
///
/// # Safety
/// As there.
#[cfg(target_arch = "x86_64")]
#[inline]
unsafe fn move_block(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: reads and writes just these bytes, upwards: the direction flag is clear wherever
    // assembly begins, and is not changed.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags)
        );
    }
}

/// Two words without alignment, so that a volatile read of them is one plain load.
#[cfg(target_arch = "x86_64")]
type Block = Unaligned<std::arch::x86_64::__m128i>;
#[cfg(not(target_arch = "x86_64"))]
type Block = Word;

/// The same of one word.
type Word = Unaligned<u64>;

#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Unaligned<T>(T);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_every_length_and_alignment() {
        let bytes: Vec<u8> = (0..=255).collect();
        for from in 0..9 {
            for len in 0..64 {
                let view = SharedBytes::from(bytes.as_slice()).part(from, len);
                assert_eq!(view.to_vec(), &bytes[from..from + len]);
            }
        }
    }

    #[test]
    fn copies_blocks_and_nothing_beside_them() {
        let bytes: Vec<u8> = (0..9_000_u32).map(|at| (at * 7 / 5) as u8).collect();
        for len in (500..530).chain([1_024, 4_096, 8_901]) {
            for shift in 0..9 {
                let mut into = vec![0xa5; len + 20];
                assert_eq!(SharedBytes::from(&bytes[shift..shift + len]).copy_to(&mut into[9..9 + len]), len);
                assert_eq!(into[9..9 + len], bytes[shift..shift + len]);
                assert!(into[..9].iter().chain(&into[9 + len..]).all(|byte| *byte == 0xa5));
            }
        }
    }

    #[test]
    fn a_part_never_leaves_the_range() {
        let bytes = [1, 2, 3];
        let view = SharedBytes::from(bytes.as_slice());
        assert_eq!(view.part(2, 9).len(), 1);
        assert!(view.part(9, 1).is_empty());
        assert_eq!(view.get(3), None);
    }
}
