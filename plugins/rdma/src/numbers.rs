//! Which connection a number is of: completions bear numbers of queue pairs.
//!
//! Open addressing with a quarter of the places filled at most; made anew at each change, which
//! is seldom.

use crate::class::Class;

/// Places; connections of all peers are at most a quarter.
const PLACES: usize = 512;
const _: () = assert!(2 * insane_core::limits::PEERS_MAX * 4 <= PLACES);

/// A connection: class and peer.
pub(crate) type Whose = (Class, usize);

/// See the module.
pub(crate) struct Numbers(Box<[Option<(u32, Whose)>; PLACES]>);

impl Numbers {
    pub(crate) fn new() -> Self {
        Numbers(Box::new([None; PLACES]))
    }

    /// Only these are known from now on.
    pub(crate) fn set(&mut self, known: impl Iterator<Item = (u32, Whose)>) {
        self.0.fill(None);
        for (number, whose) in known {
            let free = places(number).find(|place| self.0[*place].is_none());
            if let Some(place) = free {
                self.0[place] = Some((number, whose));
            }
        }
    }

    #[inline]
    pub(crate) fn whose(&self, number: u32) -> Option<Whose> {
        for place in places(number) {
            let (found, whose) = self.0[place]?;
            if found == number {
                return Some(whose);
            }
        }
        None
    }
}

fn places(number: u32) -> impl Iterator<Item = usize> {
    let first = number as usize;
    (0..PLACES).map(move |step| (first + step) % PLACES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_whatever_they_are() {
        let mut numbers = Numbers::new();
        for spread in [1, 512, 1024, 77] {
            let known = |peer: usize| (17 + peer as u32 * spread, (Class::BOTH[peer % 2], peer));
            numbers.set((0..128).map(known));
            for peer in 0..128 {
                let (number, whose) = known(peer);
                assert_eq!(numbers.whose(number), Some(whose));
                assert_eq!(numbers.whose(number.wrapping_add(1_000_000_007)), None);
            }
        }
        numbers.set(std::iter::empty());
        assert_eq!(numbers.whose(17), None);
    }
}
