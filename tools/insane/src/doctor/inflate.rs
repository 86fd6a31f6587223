//! Unpacks `/proc/config.gz`: gzip (RFC 1952) around deflate (RFC 1951). The check sum is
//! not compared: a damaged configuration only says nothing.

/// Largest text that is unpacked, bytes. A kernel configuration has about 300 KiB.
const UNPACKED_BYTES_MAX: usize = 4 << 20;
/// Longest code word of deflate, bits.
const CODE_BITS_MAX: usize = 15;

/// The unpacked bytes; `None` if it is no gzip file, is cut off, or unpacks to more than
/// 4 MiB.
pub fn gunzip(packed: &[u8]) -> Option<Vec<u8>> {
    const DEFLATE: u8 = 8;
    let [0x1f, 0x8b, DEFLATE, flags, rest @ ..] = packed else { return None };
    let mut rest = rest.get(6..)?;
    if flags & 4 != 0 {
        let length = usize::from(u16::from_le_bytes([*rest.first()?, *rest.get(1)?]));
        rest = rest.get(2 + length..)?;
    }
    // A file name, and a comment: each ends with a zero.
    for bit in [8, 16] {
        if flags & bit != 0 {
            let end = rest.iter().position(|byte| *byte == 0)?;
            rest = &rest[end + 1..];
        }
    }
    if flags & 2 != 0 {
        rest = rest.get(2..)?;
    }
    inflate(&mut Bits { bytes: rest, at: 0 })
}

/// A stream of bits, the lowest of each byte first.
struct Bits<'p> {
    bytes: &'p [u8],
    /// Place in bits.
    at: usize,
}

impl Bits<'_> {
    fn bit(&mut self) -> Option<u16> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (self.at % 8) & 1;
        self.at += 1;
        Some(u16::from(bit))
    }

    /// A number of so many bits, at most 16.
    fn number(&mut self, bits: u16) -> Option<u16> {
        let mut value = 0;
        for place in 0..bits {
            value |= self.bit()? << place;
        }
        Some(value)
    }
}

/// A Huffman code: how many words of each length, and the symbols in the order of theirs.
struct Code {
    counts: [u16; CODE_BITS_MAX + 1],
    symbols: Vec<u16>,
}

impl Code {
    fn new(lengths: &[u8]) -> Code {
        let mut counts = [0; CODE_BITS_MAX + 1];
        let mut symbols: Vec<u16> =
            (0..lengths.len() as u16).filter(|symbol| lengths[usize::from(*symbol)] > 0).collect();
        symbols.sort_by_key(|symbol| lengths[usize::from(*symbol)]);
        for symbol in &symbols {
            counts[usize::from(lengths[usize::from(*symbol)])] += 1;
        }
        Code { counts, symbols }
    }

    /// The next symbol: words of one length are consecutive numbers.
    fn symbol(&self, bits: &mut Bits<'_>) -> Option<u16> {
        let (mut word, mut first, mut index) = (0i32, 0i32, 0i32);
        for count in &self.counts[1..] {
            word |= i32::from(bits.bit()?);
            let count = i32::from(*count);
            if word - first < count {
                return self.symbols.get(usize::try_from(index + word - first).ok()?).copied();
            }
            index += count;
            first = (first + count) << 1;
            word <<= 1;
        }
        None
    }
}

fn inflate(bits: &mut Bits<'_>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let is_last = bits.bit()? == 1;
        match bits.number(2)? {
            0 => stored(bits, &mut out)?,
            1 => {
                let (literals, distances) = fixed_codes();
                block(bits, &literals, &distances, &mut out)?;
            }
            2 => {
                let (literals, distances) = told_codes(bits)?;
                block(bits, &literals, &distances, &mut out)?;
            }
            _ => return None,
        }
        if is_last {
            return Some(out);
        }
    }
}

fn stored(bits: &mut Bits<'_>, out: &mut Vec<u8>) -> Option<()> {
    let start = bits.at.div_ceil(8);
    let length = usize::from(u16::from_le_bytes([*bits.bytes.get(start)?, *bits.bytes.get(start + 1)?]));
    let from = start + 4;
    out.extend_from_slice(bits.bytes.get(from..from + length)?);
    bits.at = (from + length) * 8;
    (out.len() <= UNPACKED_BYTES_MAX).then_some(())
}

/// The codes of a block that brings none (RFC 1951, 3.2.6).
fn fixed_codes() -> (Code, Code) {
    let length = |symbol: u16| match symbol {
        0..=143 => 8,
        144..=255 => 9,
        256..=279 => 7,
        _ => 8,
    };
    let lengths: Vec<u8> = (0..288).map(length).collect();
    (Code::new(&lengths), Code::new(&[5; 30]))
}

/// The codes that a block brings (RFC 1951, 3.2.7).
fn told_codes(bits: &mut Bits<'_>) -> Option<(Code, Code)> {
    const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    let literals = usize::from(bits.number(5)?) + 257;
    let distances = usize::from(bits.number(5)?) + 1;
    let told = usize::from(bits.number(4)?) + 4;
    let mut lengths = [0u8; 19];
    for place in ORDER.iter().take(told) {
        lengths[*place] = bits.number(3)? as u8;
    }
    let code = Code::new(&lengths);
    let mut lengths: Vec<u8> = Vec::with_capacity(literals + distances);
    while lengths.len() < literals + distances {
        let (value, times) = match code.symbol(bits)? {
            symbol @ 0..=15 => (symbol as u8, 1),
            16 => (*lengths.last()?, 3 + bits.number(2)?),
            17 => (0, 3 + bits.number(3)?),
            _ => (0, 11 + bits.number(7)?),
        };
        lengths.extend(std::iter::repeat_n(value, usize::from(times)));
    }
    let (of_literals, of_distances) = lengths.get(..literals + distances)?.split_at(literals);
    Some((Code::new(of_literals), Code::new(of_distances)))
}

/// One packed block: literals, and copies of what came before.
fn block(bits: &mut Bits<'_>, literals: &Code, distances: &Code, out: &mut Vec<u8>) -> Option<()> {
    const LENGTHS: [u16; 29] = [
        3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227,
        258,
    ];
    const LENGTH_BITS: [u16; 29] =
        [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
    const BACK: [u16; 30] = [
        1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097,
        6145, 8193, 12289, 16385, 24577,
    ];
    const BACK_BITS: [u16; 30] =
        [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13];
    const END: u16 = 256;
    loop {
        if out.len() > UNPACKED_BYTES_MAX {
            return None;
        }
        let symbol = literals.symbol(bits)?;
        if symbol < END {
            out.push(symbol as u8);
            continue;
        }
        if symbol == END {
            return Some(());
        }
        let kind = usize::from(symbol - END - 1);
        let length = LENGTHS.get(kind)? + bits.number(LENGTH_BITS[kind])?;
        let kind = usize::from(distances.symbol(bits)?);
        let back = usize::from(*BACK.get(kind)?) + usize::from(bits.number(BACK_BITS[kind])?);
        let from = out.len().checked_sub(back)?;
        for place in 0..usize::from(length) {
            out.push(out[from + place]);
        }
    }
}
