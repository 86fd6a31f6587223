//! Changes to inputs at random, from a seed: the same each time.

/// Longest input, bytes.
pub const INPUT_BYTES_MAX: usize = 4096;
/// Words that lengths and counts go wrong at.
const EDGES: [u16; 8] = [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff];

/// A generator of Marsaglia's (xorshift64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed; 0 counts as another.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Random(if seed == 0 { 0x9e37_79b9_7f4a_7c15 } else { seed })
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// 0 to `limit - 1`; 0 where `limit` is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        if limit == 0 { 0 } else { (self.next() % limit as u64) as usize }
    }
}

/// One input made of those in `corpus`, with one to eight changes.
#[must_use]
pub fn input(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus.get(random.below(corpus.len())).cloned().unwrap_or_default();
    for _ in 0..=random.below(8) {
        change(random, corpus, &mut bytes);
    }
    bytes.truncate(INPUT_BYTES_MAX);
    bytes
}

fn change(random: &mut Random, corpus: &[Vec<u8>], bytes: &mut Vec<u8>) {
    let at = random.below(bytes.len());
    match random.below(8) {
        0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        2 if !bytes.is_empty() => bytes[at] = random.next() as u8,
        3 if bytes.len() > at + 1 => {
            let edge = EDGES[random.below(EDGES.len())];
            let word = if random.below(2) == 0 { edge.to_le_bytes() } else { edge.to_be_bytes() };
            bytes[at..at + 2].copy_from_slice(&word);
        }
        4 => bytes.truncate(at),
        5 => {
            let more = random.below(20);
            bytes.splice(at..at, (0..more).map(|_| random.next() as u8).collect::<Vec<_>>());
        }
        6 => {
            // A part of itself, somewhere else.
            let (from, to) = (random.below(bytes.len()), random.below(bytes.len()));
            let part = bytes[from.min(to)..from.max(to)].to_vec();
            bytes.splice(at..at, part);
        }
        _ => {
            // The end of another.
            if let Some(other) = corpus.get(random.below(corpus.len())) {
                let from = random.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
}
