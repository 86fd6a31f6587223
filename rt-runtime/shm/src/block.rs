//! Copies of small payloads in blocks of sixteen bytes: one vector load and one store
//! each, and no call of a copy routine.
//!
//! Both sides use the same width on purpose: a sixteen-byte load of what was just
//! stored as two eights stalls the processor.

use std::ptr::copy_nonoverlapping;

/// Bytes of a block.
pub(crate) const BYTES: usize = 16;

#[cfg(target_arch = "x86_64")]
type Block = std::arch::x86_64::__m128i;
#[cfg(target_arch = "aarch64")]
type Block = std::arch::aarch64::uint8x16_t;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
type Block = [u64; 2];

const _: () = assert!(size_of::<Block>() == BYTES && align_of::<Block>() <= BYTES);

/// Asks for a cache line.
#[inline(always)]
pub(crate) fn prefetch(line: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch reads nothing that the program sees, and faults nowhere.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.cast());
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    let _ = line;
}

/// Copies `from`, at most 96 bytes, to `to`, and nothing behind it.
///
/// # Safety
/// `to` is writable for as many bytes, does not overlap `from`, and nobody else in this
/// process accesses it meanwhile.
#[inline]
pub(crate) unsafe fn copy_into(from: &[u8], to: *mut u8) {
    let (start, len) = (from.as_ptr(), from.len());
    // SAFETY: every range lies inside the `len` bytes of both sides: fixed pieces from the
    // start, and the last piece, which overlaps the one before, from the end.
    unsafe {
        if len >= 64 {
            copy_nonoverlapping(start, to, 64);
            if len > 64 {
                copy_rest(start, to, len);
            }
        } else if len >= 32 {
            copy_nonoverlapping(start, to, 32);
            copy_nonoverlapping(start.add(len - 32), to.add(len - 32), 32);
        } else if len >= 16 {
            copy_nonoverlapping(start, to, 16);
            copy_nonoverlapping(start.add(len - 16), to.add(len - 16), 16);
        } else if len >= 8 {
            copy_nonoverlapping(start, to, 8);
            copy_nonoverlapping(start.add(len - 8), to.add(len - 8), 8);
        } else if len >= 4 {
            copy_nonoverlapping(start, to, 4);
            copy_nonoverlapping(start.add(len - 4), to.add(len - 4), 4);
        } else if len >= 2 {
            copy_nonoverlapping(start, to, 2);
            copy_nonoverlapping(start.add(len - 2), to.add(len - 2), 2);
        } else if len == 1 {
            to.write(*start);
        }
    }
}

/// # Safety
/// As [`copy_into`], with 64 to 96 bytes.
#[inline]
unsafe fn copy_rest(start: *const u8, to: *mut u8, len: usize) {
    // SAFETY: `len >= 64`, so the last 32 bytes start inside.
    unsafe { copy_nonoverlapping(start.add(len - 32), to.add(len - 32), 32) };
}

/// Copies `len` bytes, at most 96, rounded up to whole blocks. Each block is read by one
/// volatile load, since another process may be writing it: the compiler may neither
/// repeat nor defer the read.
///
/// # Safety
/// Both are valid for 96 bytes, aligned to 16, and do not overlap; `len` is at most 96.
#[inline]
pub(crate) unsafe fn copy_volatile(from: *const u8, to: *mut u8, len: usize) {
    let (from, to) = (from.cast::<Block>(), to.cast::<Block>());
    // SAFETY: blocks 0 to 5 make up the 96 bytes.
    unsafe {
        if len > 32 {
            copy_block(from, to, 0);
            copy_block(from, to, 1);
            copy_block(from, to, 2);
            copy_block(from, to, 3);
            if len > 64 {
                copy_block(from, to, 4);
                copy_block(from, to, 5);
            }
        } else {
            copy_block(from, to, 0);
            copy_block(from, to, 1);
        }
    }
}

/// # Safety
/// As [`copy_volatile`]; `at` is less than 6.
#[inline(always)]
unsafe fn copy_block(from: *const Block, to: *mut Block, at: usize) {
    // SAFETY: handed on to the caller.
    unsafe { to.add(at).write(from.add(at).read_volatile()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(align(16))]
    struct Room([u8; 112]);

    #[test]
    fn every_length_arrives_and_nothing_behind_it_changes() {
        let from: Vec<u8> = (1..=96).collect();
        for len in 0..=96 {
            let mut to = Room([0; 112]);
            // SAFETY: the room holds 112 bytes.
            unsafe { copy_into(&from[..len], to.0.as_mut_ptr()) };
            assert_eq!(to.0[..len], from[..len]);
            assert!(to.0[len..].iter().all(|byte| *byte == 0), "{len}");
        }
    }

    #[test]
    fn every_length_is_read() {
        let mut from = Room([0; 112]);
        from.0.iter_mut().zip(1..).for_each(|(byte, value)| *byte = value);
        for len in 0..=96 {
            let mut to = Room([0; 112]);
            // SAFETY: both rooms hold 112 aligned bytes.
            unsafe { copy_volatile(from.0.as_ptr(), to.0.as_mut_ptr(), len) };
            assert_eq!(to.0[..len], from.0[..len]);
            assert!(to.0[96..].iter().all(|byte| *byte == 0), "{len}");
        }
    }
}
