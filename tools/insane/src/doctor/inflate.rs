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

#[cfg(test)]
mod tests {
    use super::*;

    /// What [`text`] packs to with `gzip -9`: one block that brings its codes.
    const PACKED: &str = "\
         1f8b08000000000002037592390ec2400c457b4e132fe3f114534502a581237002e8b93d4828f213229d8ba7bfd85e6fd7f3\
         76b92ff3755abfa3ccc73efa7ceee3001045682bc4a2181fc50464528a31c800f15e48573070824a00194c6390598a11e834\
         3003ad9cc5e1e5883cc034ac2f511c7114ad124c838c2a182e5050abe11038554631c143c0cb505d122b442bc3ad60d511a7\
         a356e796ed80c1ef7c34ff7a21b11c2476268e9fe66fbcc3dba4c7020000";

    fn text() -> String {
        (0..60).map(|i| format!("CONFIG_{}={}\n", i * i % 97, ["y", "m", "n"][i % 3])).collect()
    }

    fn packed() -> Vec<u8> {
        let digits = PACKED.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    }

    #[test]
    fn what_gzip_packs_is_unpacked() {
        assert_eq!(gunzip(&packed()).unwrap(), text().as_bytes());
        // "CONFIG_A=y" three times, with the fixed codes.
        let fixed = [
            0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 3, 0x73, 0xf6, 0xf7, 0x73, 0xf3, 0x74, 0x8f, 0x77, 0xb4, 0xad, 0xe4, 0x72,
            0xc6, 0xca, 0x04, 0x00,
        ];
        assert_eq!(gunzip(&fixed).unwrap(), b"CONFIG_A=y\nCONFIG_A=y\nCONFIG_A=y\n");
        // Not packed, behind an extra field, a name, a comment and a check sum of the head.
        let mut stored = vec![0x1f, 0x8b, 8, 0b1_1110, 0, 0, 0, 0, 0, 3, 2, 0, b'x', b'x', b'n', 0, b'c', 0, 0, 0];
        stored.extend([1, 2, 0, 0xfd, 0xff, b'o', b'k']);
        assert_eq!(gunzip(&stored).unwrap(), b"ok");
    }

    #[test]
    fn what_is_cut_off_or_damaged_is_none_or_something_else_and_ends() {
        let whole = packed();
        // The last eight bytes are check sum and length, which nobody looks at.
        for length in 0..whole.len() - 8 {
            assert_eq!(gunzip(&whole[..length]), None, "{length}");
        }
        for at in 10..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                let _ = gunzip(&damaged);
            }
        }
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        // A block with the fixed codes: one zero, then copies of 258 bytes (8 bits a word,
        // 5 for the distance), for ever.
        let mut bits = vec![true, true, false];
        bits.extend([0, 0, 1, 1, 0, 0, 0, 0].map(|bit| bit == 1));
        for _ in 0..40_000 {
            bits.extend([1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0].map(|bit| bit == 1));
        }
        let mut bomb = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
        let byte = |bits: &[bool]| bits.iter().rev().fold(0u8, |byte, bit| byte << 1 | u8::from(*bit));
        bomb.extend(bits.chunks(8).map(byte));
        let small = &bomb[..100];
        assert_eq!(gunzip(small), None, "it never ends");
        assert_eq!(gunzip(&bomb), None);
        let mut out = Vec::new();
        let (literals, distances) = fixed_codes();
        let mut stream = Bits { bytes: &bomb[10..], at: 3 };
        assert_eq!(block(&mut stream, &literals, &distances, &mut out), None);
        assert!((UNPACKED_BYTES_MAX..UNPACKED_BYTES_MAX + 300).contains(&out.len()), "{}", out.len());
    }
}
