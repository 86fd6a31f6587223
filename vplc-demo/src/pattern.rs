//! Contents of best-effort messages that a receiver can check: every 8-byte word is a
//! function of the message's number and the word's place.

/// Odd constants from the fractional part of the golden ratio and of the root of two.
const BY_NUMBER: u64 = 0x9e37_79b9_7f4a_7c15;
const BY_PLACE: u64 = 0x6a09_e667_f3bc_c909;

fn word(number: u64, place: usize) -> u64 {
    (number.wrapping_mul(BY_NUMBER)).wrapping_add((place as u64).wrapping_mul(BY_PLACE)) ^ number
}

/// Fills a message: its number first, the pattern after it. Bytes past the last whole
/// word stay as they are.
pub fn fill(bytes: &mut [u8], number: u64) {
    for (place, at) in bytes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *at = (if place == 0 { number } else { word(number, place) }).to_le_bytes();
    }
}

/// Checks a message of `len` bytes through `read`, which gives the word at a byte
/// offset: its number is in the first word; of the others every `stride`-th is
/// looked at, beginning elsewhere each time, and always the last.
pub fn check(len: usize, stride: usize, mut read: impl FnMut(usize) -> [u8; 8]) -> bool {
    let words = len / 8;
    if words == 0 {
        return false;
    }
    let number = u64::from_le_bytes(read(0));
    let mut right = |place: usize| u64::from_le_bytes(read(place * 8)) == word(number, place);
    let first = 1 + (number as usize) % stride;
    (first..words).step_by(stride).all(&mut right) && (words == 1 || right(words - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks(bytes: &[u8], stride: usize) -> bool {
        check(bytes.len(), stride, |at| bytes[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn what_was_filled_is_right_and_any_change_is_wrong() {
        let mut bytes = [0; 200];
        fill(&mut bytes, 77);
        assert!(checks(&bytes, 1));
        for at in 0..bytes.len() {
            bytes[at] ^= 4;
            assert!(!checks(&bytes, 1), "byte {at}");
            bytes[at] ^= 4;
        }
    }

    #[test]
    fn parts_of_two_messages_are_noticed() {
        let (mut a, mut b) = ([0; 4096], [0; 4096]);
        fill(&mut a, 1);
        fill(&mut b, 2);
        assert!(checks(&a, 61) && checks(&b, 61));
        // Whichever words are looked at, the last is.
        for number in 0..61 {
            fill(&mut a, number);
            a[4095] ^= 1;
            assert!(!checks(&a, 61), "message {number}");
        }
        fill(&mut a, 1);
        a[2048..].copy_from_slice(&b[2048..]);
        assert!(!checks(&a, 61));
    }

    #[test]
    fn sampling_comes_to_every_word_in_the_end() {
        let mut seen = [false; 100];
        for number in 0..17_u64 {
            let mut bytes = [0; 800];
            fill(&mut bytes, number);
            assert!(check(800, 17, |at| {
                seen[at / 8] = true;
                bytes[at..at + 8].try_into().unwrap()
            }));
        }
        assert!(seen.iter().all(|seen| *seen));
    }

    #[test]
    fn no_words_are_not_right() {
        assert!(!checks(&[], 1) && !checks(&[0; 7], 1));
    }
}
