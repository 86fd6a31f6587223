//! Payloads that are written and verified byte by byte.
//!
//! Word `i` of message `n` is `n + i` (little endian, wrapping); bytes beyond the
//! last whole word repeat the low byte of `n`. The reader adds up all words and
//! compares the sum with the one that message `n` must have, so every byte is
//! read and both loops run at the speed of the memory.

use super::fault::Fault;
#[cfg(feature = "iceoryx2")]
use insane_raw_baselines::wide;
use insane_raw_baselines::{count_up, sum};

const WORD: usize = 8;

/// Messages of this size are the common case and have a loop of constant length, in
/// whatever memory they stand: a program knows the size of its process data.
const COMMON_BYTES: usize = 64;

/// Writes every byte of message `number`.
#[inline(always)]
pub fn write(payload: &mut [u8], number: u64) {
    match <&mut [u8; COMMON_BYTES]>::try_from(&mut *payload) {
        Ok(common) => write_any(common, number),
        Err(_) => write_any(payload, number),
    }
}

#[inline(always)]
fn write_any(payload: &mut [u8], number: u64) {
    count_up(payload, number);
    payload.chunks_exact_mut(WORD).into_remainder().fill(number as u8);
}

/// Reads every byte and returns the message's number.
///
/// # Errors
/// The payload is not that of the number it starts with.
///
/// # Panics
/// If the payload is shorter than a word.
#[inline(always)]
pub fn read(payload: &[u8]) -> Result<u64, Fault> {
    match <&[u8; COMMON_BYTES]>::try_from(payload) {
        Ok(common) => read_any(common),
        Err(_) => read_any(payload),
    }
}

#[inline(always)]
fn read_any(payload: &[u8]) -> Result<u64, Fault> {
    let rest = payload.chunks_exact(WORD).remainder();
    let number = u64::from_le_bytes(payload[..WORD].try_into().expect("eight bytes"));
    let count = (payload.len() / WORD) as u64;
    let sum = sum(payload);
    let rest_is_right = rest.iter().all(|byte| *byte == number as u8);
    if sum == expected_sum(number, count) && rest_is_right {
        Ok(number)
    } else {
        Err(Fault::Corrupt { expected: expected_sum(number, count), found: sum })
    }
}

/// Reads a message that comes in parts. Parts before the last are whole words long.
pub struct Reader {
    len: usize,
    seen: usize,
    number: u64,
    sum: u64,
    rest_is_right: bool,
}

impl Reader {
    /// A reader of a message of `len` bytes.
    #[must_use]
    pub fn new(len: usize) -> Self {
        Reader { len, seen: 0, number: 0, sum: 0, rest_is_right: true }
    }

    /// The next part.
    ///
    /// # Panics
    /// If the first part is shorter than a word.
    pub fn add(&mut self, part: &[u8]) {
        if self.seen == 0 {
            self.number = u64::from_le_bytes(part[..WORD].try_into().expect("eight bytes"));
        }
        let words = part.chunks_exact(WORD);
        self.rest_is_right &= words.remainder().iter().all(|byte| *byte == self.number as u8);
        self.sum = self.sum.wrapping_add(sum(part));
        self.seen += part.len();
    }

    /// The message's number.
    ///
    /// # Errors
    /// The payload is not that of the number it starts with, or parts are missing.
    pub fn finish(self) -> Result<u64, Fault> {
        let expected = expected_sum(self.number, (self.len / WORD) as u64);
        let whole = self.seen == self.len && self.rest_is_right;
        if whole && self.sum == expected { Ok(self.number) } else { Err(Fault::Corrupt { expected, found: self.sum }) }
    }
}

/// Reads every word of a message that came as words.
///
/// # Errors
/// The payload is not that of the number it starts with.
#[cfg(feature = "iceoryx2")]
#[inline(always)]
pub fn read_words(words: &[u64]) -> Result<u64, Fault> {
    let number = words.first().copied().unwrap_or(0);
    let sum = wide(size_of_val(words), || words.iter().fold(0_u64, |sum, word| sum.wrapping_add(*word)));
    let expected = expected_sum(number, words.len() as u64);
    if sum == expected { Ok(number) } else { Err(Fault::Corrupt { expected, found: sum }) }
}

/// The sum of `count` words of message `number`.
#[inline(always)]
#[must_use]
pub fn expected_sum(number: u64, count: u64) -> u64 {
    number.wrapping_mul(count).wrapping_add(count.wrapping_mul(count.wrapping_sub(1)) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_in_parts(payload: &[u8]) -> Result<u64, Fault> {
        let mut reader = Reader::new(payload.len());
        payload.chunks(16).for_each(|part| reader.add(part));
        reader.finish()
    }

    #[test]
    fn a_missing_part_is_noticed() {
        let mut payload = vec![0; 64];
        write(&mut payload, 5);
        let mut reader = Reader::new(64);
        reader.add(&payload[..32]);
        assert!(reader.finish().is_err());
    }

    #[test]
    fn what_was_written_reads_back_and_one_changed_byte_does_not() {
        for len in [8, 64, 65, 100, 1024, 4095] {
            for number in [0, 1, 77, u64::MAX] {
                let mut payload = vec![0; len];
                write(&mut payload, number);
                assert_eq!(read(&payload).unwrap(), number, "{len} bytes");
                assert_eq!(read_in_parts(&payload).unwrap(), number, "{len} bytes");
                for at in [0, len / 2, len - 1] {
                    payload[at] ^= 0x40;
                    assert!(len == 8 || read(&payload).is_err(), "{len} bytes, byte {at}");
                    assert!(len == 8 || read_in_parts(&payload).is_err(), "{len} bytes, byte {at}");
                    payload[at] ^= 0x40;
                }
            }
        }
    }
}
