//! Writing and adding up payloads as fast as the processor can: all sides of a
//! measurement use these loops, so that what is measured is how payloads travel, and
//! not how they are touched.
//!
//! Where the processor has AVX2, payloads of a page or more go through loops compiled
//! for it. Both forms do the same.

/// From this size on the wide loops are worth the question whether they may be used.
const WIDE_BYTES_MIN: usize = 4096;
const WORD: usize = 8;

/// Writes `first`, `first + 1`, … (little endian, wrapping) into every whole word.
#[inline(always)]
pub fn count_up(bytes: &mut [u8], first: u64) {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() >= WIDE_BYTES_MIN && std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { count_up_wide(bytes, first) };
    }
    count_up_plain(bytes, first);
}

/// The sum (wrapping) of every whole word.
#[inline(always)]
#[must_use]
pub fn sum(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() >= WIDE_BYTES_MIN && std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { sum_wide(bytes) };
    }
    sum_plain(bytes)
}

/// Runs `touch`, which touches so many bytes, compiled for AVX2 where that serves: for
/// libraries that write payloads themselves. It has to be small enough to be inlined.
#[inline(always)]
pub fn wide<R>(bytes: usize, touch: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    if bytes >= WIDE_BYTES_MIN && std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { run_wide(touch) };
    }
    touch()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn run_wide<R>(touch: impl FnOnce() -> R) -> R {
    touch()
}

#[inline(always)]
fn count_up_plain(bytes: &mut [u8], first: u64) {
    let mut value = first;
    for word in bytes.chunks_exact_mut(WORD) {
        word.copy_from_slice(&value.to_le_bytes());
        value = value.wrapping_add(1);
    }
}

#[inline(always)]
fn sum_plain(bytes: &[u8]) -> u64 {
    let word = |word: &[u8]| u64::from_le_bytes(word.try_into().expect("eight bytes"));
    bytes.chunks_exact(WORD).fold(0, |sum, bytes| sum.wrapping_add(word(bytes)))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn count_up_wide(bytes: &mut [u8], first: u64) {
    count_up_plain(bytes, first);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_wide(bytes: &[u8]) -> u64 {
    sum_plain(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_do_the_same_and_leave_the_rest_alone() {
        for len in [0, 7, 8, 100, WIDE_BYTES_MIN - 8, WIDE_BYTES_MIN, WIDE_BYTES_MIN + 13, 10_000] {
            for first in [0, 3, u64::MAX - 1] {
                let (mut one, mut other) = (vec![9; len], vec![9; len]);
                count_up(&mut one, first);
                count_up_plain(&mut other, first);
                assert_eq!(one, other, "{len} bytes");
                assert!(one[len / WORD * WORD..].iter().all(|byte| *byte == 9));
                assert_eq!(sum(&one), sum_plain(&one), "{len} bytes");
            }
        }
    }
}
