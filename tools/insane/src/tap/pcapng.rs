//! Files of the pcap-ng format (draft-ietf-opsawg-pcapng), as far as a tap needs them.
//!
//! Every number is little-endian, which the section header says. A block is
//!
//! ```text
//!  0        4        8                    len-4      len
//!  +--------+--------+--------------------+----------+
//!  | type   | len    | body, options      | len      |
//!  +--------+--------+--------------------+----------+
//! ```
//!
//! and everything in it starts at a multiple of four bytes.

use std::io::{self, Write};

/// `LINKTYPE_USER0`: private use; here a data header of `insane_wire::data` and its payload.
pub const LINK_TYPE: u16 = 147;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// Of time stamps: ten to the minus so much seconds.
const NANOSECONDS: u8 = 9;

const COMMENT: u16 = 1;
const SECTION_APPLICATION: u16 = 4;
const INTERFACE_NAME: u16 = 2;
const INTERFACE_DESCRIPTION: u16 = 3;
const INTERFACE_RESOLUTION: u16 = 9;
const PACKET_DROPS: u16 = 4;
const STATISTICS_START: u16 = 2;
const STATISTICS_END: u16 = 3;
const STATISTICS_RECEIVED: u16 = 4;
const STATISTICS_DROPS: u16 = 5;

/// Nanoseconds since 1970.
pub type Instant = u64;

/// A packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Number of its interface, from 0 in the order in which they were written.
    pub interface: u32,
    /// When it was taken.
    pub at: Instant,
    /// What was kept of it.
    pub bytes: &'a [u8],
    /// Its whole length, bytes.
    pub len: u32,
    /// Packets of its interface lost between the one before and this one.
    pub lost: u64,
}

/// What came at an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Statistics {
    /// Since when.
    pub start: Instant,
    /// Until when.
    pub end: Instant,
    /// Packets that came, lost ones included.
    pub received: u64,
    /// Lost ones.
    pub lost: u64,
}

/// Writes one section.
#[derive(Debug)]
pub struct Writer<W> {
    into: W,
    interfaces: u32,
    block: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Starts a file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(into: W, application: &str) -> io::Result<Self> {
        let mut writer = Writer { into, interfaces: 0, block: Vec::new() };
        writer.put(&BYTE_ORDER.to_le_bytes());
        // Version 1.0; a section of unknown length.
        writer.put(&[1, 0, 0, 0]);
        writer.put(&u64::MAX.to_le_bytes());
        writer.option(SECTION_APPLICATION, application.as_bytes());
        writer.finish(SECTION)?;
        Ok(writer)
    }

    /// Adds an interface; its number. `kept` is the most that is kept of a packet, bytes.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn interface(&mut self, name: &str, description: &str, kept: u32) -> io::Result<u32> {
        self.put(&LINK_TYPE.to_le_bytes());
        self.put(&[0, 0]);
        self.put(&kept.to_le_bytes());
        self.option(INTERFACE_NAME, name.as_bytes());
        self.option(INTERFACE_DESCRIPTION, description.as_bytes());
        self.option(INTERFACE_RESOLUTION, &[NANOSECONDS]);
        self.finish(INTERFACE)?;
        self.interfaces += 1;
        Ok(self.interfaces - 1)
    }

    /// Adds a packet.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn packet(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        self.put(&packet.interface.to_le_bytes());
        self.put(&instant(packet.at));
        self.put(&(packet.bytes.len() as u32).to_le_bytes());
        self.put(&packet.len.to_le_bytes());
        self.put(packet.bytes);
        self.pad();
        if packet.lost > 0 {
            let words = if packet.lost == 1 { "message was" } else { "messages were" };
            self.option(COMMENT, format!("{} {words} lost before this one", packet.lost).as_bytes());
            self.option(PACKET_DROPS, &packet.lost.to_le_bytes());
        }
        self.finish(PACKET)
    }

    /// Adds what an interface saw.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn statistics(&mut self, interface: u32, seen: Statistics) -> io::Result<()> {
        self.put(&interface.to_le_bytes());
        self.put(&instant(seen.end));
        self.option(STATISTICS_START, &instant(seen.start));
        self.option(STATISTICS_END, &instant(seen.end));
        self.option(STATISTICS_RECEIVED, &seen.received.to_le_bytes());
        self.option(STATISTICS_DROPS, &seen.lost.to_le_bytes());
        self.finish(STATISTICS)
    }

    /// Hands on what is buffered.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.into.flush()
    }

    fn put(&mut self, bytes: &[u8]) {
        self.block.extend_from_slice(bytes);
    }

    fn pad(&mut self) {
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        // No value here is longer; a longer text is cut.
        let value = &value[..value.len().min(1024)];
        self.put(&code.to_le_bytes());
        self.put(&(value.len() as u16).to_le_bytes());
        self.put(value);
        self.pad();
    }

    /// Ends the options and writes the block.
    fn finish(&mut self, kind: u32) -> io::Result<()> {
        self.put(&[0; 4]);
        let len = (self.block.len() as u32 + 12).to_le_bytes();
        self.into.write_all(&kind.to_le_bytes())?;
        self.into.write_all(&len)?;
        self.into.write_all(&self.block)?;
        self.into.write_all(&len)?;
        self.block.clear();
        Ok(())
    }
}

/// Upper and lower half, as every time stamp of the format.
fn instant(at: Instant) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&((at >> 32) as u32).to_le_bytes());
    bytes[4..].copy_from_slice(&(at as u32).to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// Type and body of every block, with its two lengths compared.
    fn blocks(mut bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut blocks = Vec::new();
        while !bytes.is_empty() {
            let len = word(bytes, 4) as usize;
            assert!(len.is_multiple_of(4));
            assert_eq!(word(bytes, len - 4) as usize, len);
            blocks.push((word(bytes, 0), bytes[8..len - 4].to_vec()));
            bytes = &bytes[len..];
        }
        blocks
    }

    /// The options of a block, from where they start; the end of options is asserted.
    fn options(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
        let mut options = Vec::new();
        loop {
            let (code, len) = (word(bytes, 0) as u16, (word(bytes, 0) >> 16) as usize);
            if code == 0 {
                assert_eq!(bytes, [0; 4]);
                return options;
            }
            options.push((code, bytes[4..4 + len].to_vec()));
            bytes = &bytes[4 + len.next_multiple_of(4)..];
        }
    }

    #[test]
    fn the_blocks_are_those_of_the_format() {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file, "test").unwrap();
        assert_eq!(writer.interface("d/s:1", "odd", 1000).unwrap(), 0);
        assert_eq!(writer.interface("d/t:1", "even", 1000).unwrap(), 1);
        let at = 0x0001_0002_0003_0004;
        writer.packet(&Packet { interface: 1, at, bytes: b"hello", len: 7000, lost: 3 }).unwrap();
        writer.packet(&Packet { interface: 0, at, bytes: b"", len: 0, lost: 0 }).unwrap();
        writer.statistics(1, Statistics { start: 1, end: at, received: 4, lost: 3 }).unwrap();
        let blocks = blocks(&file);
        let kinds: Vec<u32> = blocks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [SECTION, INTERFACE, INTERFACE, PACKET, PACKET, STATISTICS]);
        let section = &blocks[0].1;
        assert_eq!((word(section, 0), word(section, 4)), (BYTE_ORDER, 1));
        assert_eq!(section[8..16], [0xff; 8]);
        assert_eq!(options(&section[16..]), [(4, b"test".to_vec())]);
        let interface = &blocks[1].1;
        assert_eq!((word(interface, 0), word(interface, 4)), (147, 1000));
        let named = [(2, b"d/s:1".to_vec()), (3, b"odd".to_vec()), (9, vec![9])];
        assert_eq!(options(&interface[8..]), named);
        let packet = &blocks[3].1;
        let words: Vec<u32> = (0..5).map(|at| word(packet, 4 * at)).collect();
        assert_eq!(words, [1, 0x0001_0002, 0x0003_0004, 5, 7000]);
        assert_eq!(&packet[20..28], b"hello\0\0\0");
        let told = [(1, b"3 messages were lost before this one".to_vec()), (4, 3_u64.to_le_bytes().to_vec())];
        assert_eq!(options(&packet[28..]), told);
        assert_eq!(blocks[4].1[20..], [0; 4], "no loss, no option");
        let seen = options(&blocks[5].1[12..]);
        assert_eq!(seen.iter().map(|(code, _)| *code).collect::<Vec<_>>(), [2, 3, 4, 5]);
        assert_eq!(seen[2].1, 4_u64.to_le_bytes());
        assert_eq!(seen[3].1, 3_u64.to_le_bytes());
    }
}
