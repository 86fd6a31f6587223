//! The record of missed slots: mapped memory that a tool reads while the datapath writes it,
//! and after the datapath has died.
//!
//! ```text
//! file: one block a datapath
//! block, 64-bit words: +--------------------------------------------------------------+
//!                      | 0 mark | 1 entries | 2 written | 3 life | 4-7 name (32 bytes) |
//!                      | 8 host's pid | 9-15 - | 16-31 misses so far, by cause         |
//!                      +--------------------------------------------------------------+
//!                      | 32.. entries of 8 words, a ring:                             |
//!                      | stamp | sequence | planned | noticed | source, cause, fate,  |
//!                      | messages | emitted | from | to                               |
//!                      +--------------------------------------------------------------+
//! ```
//! The stamp is the number of the miss and one; see `stamped` of this crate.
//!
//! Invariants: one writer a block. Readers trust no word: numbers are checked when they are
//! read, and a file that is cut or of another layout has no blocks.
//!
//! Bounds: [`ENTRIES`] misses a datapath are remembered; the counts go on.

use crate::region::Region;
use crate::stamped;
use insane_core::{Cause, Fate, MonoTime};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Misses that are remembered.
pub const ENTRIES: usize = 1024;
const HEADER_WORDS: usize = 32;
const ENTRY_WORDS: usize = 8;
const BLOCK_WORDS: usize = HEADER_WORDS + ENTRIES * ENTRY_WORDS;
/// Bytes of one block.
pub const BLOCK_BYTES: usize = BLOCK_WORDS * 8;
const _: () = assert!(BLOCK_BYTES == 65_792);
const _: () = assert!(ENTRIES <= u32::MAX as usize);

/// The version of the layout, raised when a word says another thing, or one more cause or fate is
/// told. A test below keeps what it looks like.
const VERSION: u8 = 1;
/// The rest of the mark.
const NAME: [u8; 7] = *b"insaneM";
const MARK: u64 = {
    let [a, b, c, d, e, f, g] = NAME;
    u64::from_le_bytes([a, b, c, d, e, f, g, VERSION])
};
const AT_MARK: usize = 0;
const AT_ENTRIES: usize = 1;
const AT_WRITTEN: usize = 2;
const AT_LIFE: usize = 3;
const AT_NAME: usize = 4;
const NAME_WORDS: usize = 4;
const AT_PID: usize = 8;
const AT_COUNTS: usize = 16;
const COUNTS: usize = 16;
const _: () = assert!(Cause::ALL.len() < COUNTS && AT_COUNTS + COUNTS == HEADER_WORDS);

/// One message that missed its slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Miss {
    /// Of its source.
    pub sequence: u64,
    /// Its source, as the runtime numbers them.
    pub source: u32,
    /// The start of the slot that it missed.
    pub planned: MonoTime,
    /// When it left after all, or was dropped.
    pub noticed: MonoTime,
    /// When the application emitted it, as it says; zero: it does not.
    pub emitted: MonoTime,
    /// Why.
    pub cause: Cause,
    /// What became of it.
    pub fate: Fate,
    /// How many messages this stands for: those that were replaced together.
    pub messages: u16,
    /// From when on the cause held, as far as the datapath knows: its last look before.
    pub from: MonoTime,
    /// Until when.
    pub to: MonoTime,
}

/// A block of a region.
#[derive(Clone, Debug)]
struct Words {
    words: *const [AtomicU64; BLOCK_WORDS],
    /// Keeps the memory mapped.
    _region: Arc<Region>,
}

// SAFETY: the pointer is into the region, which is `Send + Sync`, and leads to atomics.
unsafe impl Send for Words {}
// SAFETY: as above; two writers would tear entries, not memory safety.
unsafe impl Sync for Words {}

impl Words {
    fn new(region: Arc<Region>, block: usize) -> Option<Words> {
        let at = block.checked_mul(BLOCK_BYTES)?;
        if at.checked_add(BLOCK_BYTES)? > region.len() {
            return None;
        }
        // SAFETY: the block lies inside the mapping, as was just checked; it begins a multiple
        // of 8 bytes from the mapping's page-aligned start.
        let words = unsafe { region.as_ptr().add(at) }.cast();
        Some(Words { words, _region: region })
    }

    #[inline]
    fn all(&self) -> &[AtomicU64; BLOCK_WORDS] {
        // SAFETY: `new` checked that the block lies inside the region, which lives as long as
        // `self`; atomics may be written by others meanwhile.
        unsafe { &*self.words }
    }

    fn entry(&self, number: u64) -> &[AtomicU64; ENTRY_WORDS] {
        let (entries, _) = self.all()[HEADER_WORDS..].as_chunks();
        &entries[number as usize % ENTRIES]
    }
}

/// The writing end: the datapath has it.
#[derive(Debug)]
pub struct MissLog {
    words: Words,
}

impl MissLog {
    /// A record in block `block` of a region that nobody else writes, beginning anew. `life` is
    /// the runtime's incarnation; of `name` 32 bytes are kept. `None`: the block is past the end
    /// of the region, or that is not writable.
    #[must_use]
    pub fn new(region: Arc<Region>, block: usize, life: u64, name: &str) -> Option<Self> {
        if !region.is_writable() {
            return None;
        }
        let words = Words::new(region, block)?;
        let all = words.all();
        all.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        let mut bytes = [0; NAME_WORDS * 8];
        let len = (0..=name.len().min(bytes.len())).rev().find(|len| name.is_char_boundary(*len)).unwrap_or(0);
        bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
        for (word, bytes) in all[AT_NAME..].iter().zip(bytes.chunks_exact(8)) {
            word.store(u64::from_le_bytes(bytes.try_into().unwrap_or_default()), Ordering::Relaxed);
        }
        all[AT_ENTRIES].store(ENTRIES as u64, Ordering::Relaxed);
        all[AT_LIFE].store(life, Ordering::Relaxed);
        all[AT_PID].store(u64::from(std::process::id()), Ordering::Relaxed);
        // Release: who finds the mark finds the rest of the header.
        all[AT_MARK].store(MARK, Ordering::Release);
        Some(MissLog { words })
    }

    /// A record in memory of this process.
    ///
    /// # Panics
    /// Without memory: set-up only.
    #[must_use]
    pub fn private(life: u64, name: &str) -> Self {
        let region = Region::anonymous(BLOCK_BYTES).expect("memory for a record of misses");
        MissLog::new(region, 0, life, name).expect("one block fits")
    }

    /// What reads it.
    #[must_use]
    pub fn reader(&self) -> MissReader {
        MissReader { words: self.words.clone() }
    }

    /// Notes a miss. Called by the one writer alone.
    #[inline]
    pub fn note(&self, miss: &Miss) {
        let all = self.words.all();
        let number = all[AT_WRITTEN].load(Ordering::Relaxed);
        let what = u64::from(miss.source)
            | (miss.cause as u64) << 32
            | (miss.fate as u64) << 40
            | u64::from(miss.messages) << 48;
        let words = [miss.sequence, miss.planned.0, miss.noticed.0, what, miss.emitted.0, miss.from.0, miss.to.0];
        let [stamp, entry @ ..] = self.words.entry(number);
        stamped::write(stamp, entry, number + 1, words);
        let count = &all[AT_COUNTS + miss.cause as usize];
        count.store(count.load(Ordering::Relaxed).wrapping_add(u64::from(miss.messages)), Ordering::Relaxed);
        // Release: who reads the number finds the entries below it.
        all[AT_WRITTEN].store(number + 1, Ordering::Release);
    }
}

/// The reading end.
#[derive(Clone, Debug)]
pub struct MissReader {
    words: Words,
}

impl MissReader {
    /// The records in a region, which may be a file that anybody wrote: none where it is of
    /// another layout.
    #[must_use]
    pub fn all_of(region: &Arc<Region>) -> Vec<MissReader> {
        let blocks = region.len() / BLOCK_BYTES;
        let readers = (0..blocks).filter_map(|block| Words::new(Arc::clone(region), block));
        readers.map(|words| MissReader { words }).filter(MissReader::is_valid).collect()
    }

    fn is_valid(&self) -> bool {
        let all = self.words.all();
        // Acquire: pairs with the mark's release.
        all[AT_MARK].load(Ordering::Acquire) == MARK && all[AT_ENTRIES].load(Ordering::Relaxed) == ENTRIES as u64
    }

    /// The name of the datapath, as far as it is kept. What is no text is replaced.
    #[must_use]
    pub fn name(&self) -> String {
        let words = self.words.all()[AT_NAME..AT_NAME + NAME_WORDS].iter();
        let bytes: Vec<u8> = words.flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
        let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..len]).chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
    }

    /// The incarnation of the runtime that wrote it.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.words.all()[AT_LIFE].load(Ordering::Relaxed)
    }

    /// The process that wrote it, as it was numbered there.
    #[must_use]
    pub fn pid(&self) -> u64 {
        self.words.all()[AT_PID].load(Ordering::Relaxed)
    }

    /// How many misses were written so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.words.all()[AT_WRITTEN].load(Ordering::Acquire)
    }

    /// How many messages missed their slots for this cause so far.
    #[must_use]
    pub fn count(&self, cause: Cause) -> u64 {
        self.words.all()[AT_COUNTS + cause as usize].load(Ordering::Relaxed)
    }

    /// The misses from number `from` on, the oldest first, with their numbers, as far as they
    /// are remembered. What is being overwritten, or is none, is left out. Not for a hot path.
    #[must_use]
    pub fn since(&self, from: u64) -> Vec<(u64, Miss)> {
        let written = self.written();
        let first = from.max(written.saturating_sub(ENTRIES as u64));
        (first..written).filter_map(|number| Some((number, self.read(number)?))).collect()
    }

    fn read(&self, number: u64) -> Option<Miss> {
        let [stamp, entry @ ..] = self.words.entry(number);
        let content = stamped::read(stamp, entry, number.wrapping_add(1))?;
        let [sequence, planned, noticed, what, emitted, from, to] = content;
        Some(Miss {
            sequence,
            source: what as u32,
            planned: MonoTime(planned),
            noticed: MonoTime(noticed),
            emitted: MonoTime(emitted),
            cause: Cause::from_number((what >> 32) as u8)?,
            fate: Fate::from_number((what >> 40) as u8)?,
            messages: (what >> 48) as u16,
            from: MonoTime(from),
            to: MonoTime(to),
        })
    }
}

/// The file beside this socket.
#[must_use]
pub fn file_of(socket: &Path) -> PathBuf {
    with_suffix(socket, ".misses")
}

/// That of the runtime's life before.
#[must_use]
pub fn last_file_of(socket: &Path) -> PathBuf {
    with_suffix(socket, ".misses.last")
}

fn with_suffix(socket: &Path, suffix: &str) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The records of a file, for a tool.
///
/// # Errors
/// It cannot be opened or mapped, or is no such file.
pub fn read(path: &Path) -> io::Result<Vec<MissReader>> {
    // Without waiting: what stands there may be a pipe, and opening one waits for a writer.
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    let len = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    let nothing = || io::Error::new(io::ErrorKind::InvalidData, "it is no record of missed slots");
    if !metadata.is_file() || !(BLOCK_BYTES..=BLOCK_BYTES * usize::from(u8::MAX)).contains(&len) {
        return Err(nothing());
    }
    let region = Region::map_read_only(file.as_fd(), len)?;
    let readers = MissReader::all_of(&region);
    if !readers.is_empty() {
        return Ok(readers);
    }
    let mark = Words::new(region, 0).map(|words| words.all()[AT_MARK].load(Ordering::Relaxed).to_le_bytes());
    Err(match mark {
        Some([name @ .., version]) if name == NAME && version != VERSION => {
            let why = format!(
                "it is a record of missed slots of version {version}, this tool reads version {VERSION}: take both from \
                 one build"
            );
            io::Error::new(io::ErrorKind::InvalidData, why)
        }
        _ => nothing(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn miss(sequence: u64) -> Miss {
        Miss {
            sequence,
            source: 7,
            planned: MonoTime(sequence * 10),
            noticed: MonoTime(sequence * 10 + 1),
            emitted: MonoTime(3),
            cause: Cause::ALL[sequence as usize % Cause::ALL.len()],
            fate: Fate::Dropped,
            messages: 1,
            from: MonoTime(1),
            to: MonoTime(2),
        }
    }

    #[test]
    fn what_is_no_file_is_refused_without_waiting_for_it() {
        let pipe = std::env::temp_dir().join(format!("insane-misses-pipe-{}", std::process::id()));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (told, tells) = std::sync::mpsc::channel();
        let path = pipe.clone();
        std::thread::spawn(move || told.send(read(&path).map(drop).map_err(|error| error.kind())));
        let kind = tells.recv_timeout(std::time::Duration::from_secs(20));
        fs::remove_file(&pipe).unwrap();
        assert_eq!(kind, Ok(Err(io::ErrorKind::InvalidData)));
        assert_eq!(read(Path::new("/dev/zero")).map(drop).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    /// Who changes this raises [`VERSION`], and writes down here what it is then.
    #[test]
    fn the_layout_is_what_its_version_says() {
        let region = Region::anonymous(BLOCK_BYTES).unwrap();
        let log = MissLog::new(Arc::clone(&region), 0, 5, "fast").unwrap();
        log.note(&Miss { sequence: 4, messages: 3, ..miss(4) });
        let words = Words::new(region, 0).unwrap();
        let word = |at: usize| words.all()[at].load(Ordering::Relaxed);
        let head: Vec<u64> = (0..8).map(word).collect();
        let name = u64::from_le_bytes(*b"fast\0\0\0\0");
        let mark = u64::from_le_bytes(*b"insaneM\x01");
        assert_eq!(head, [mark, 1024, 1, 5, name, 0, 0, 0], "it has changed: raise `VERSION`, then this");
        let entry: Vec<u64> = (32..40).map(word).collect();
        let what = 7 | 5 << 32 | 3 << 40 | 3 << 48;
        assert_eq!(entry, [1, 4, 40, 41, what, 3, 1, 2], "it has changed: raise `VERSION`, then this");
        assert_eq!((word(AT_PID), word(AT_COUNTS + 5)), (std::process::id().into(), 3));
        let causes: Vec<(u8, &str)> = Cause::ALL.iter().map(|cause| (*cause as u8, cause.name())).collect();
        assert_eq!(
            (causes.len(), causes[0].0, causes[10].0),
            (11, 1, 11),
            "one more cause: raise `VERSION`, then this"
        );
    }

    #[test]
    fn a_file_of_another_version_is_told_from_any_other() {
        let path = std::env::temp_dir().join(format!("insane-misses-version-{}", std::process::id()));
        let mut bytes = vec![0; BLOCK_BYTES];
        let mut why = |mark: &[u8; 8]| {
            bytes[..8].copy_from_slice(mark);
            fs::write(&path, &bytes).unwrap();
            read(&path).map(drop).unwrap_err().to_string()
        };
        let (other, none) = (why(b"insaneM\x02"), why(b"insaneN\x02"));
        fs::remove_file(&path).unwrap();
        assert!(other.contains("of version 2, this tool reads version 1: take both from one build"), "{other}");
        assert_eq!(none, "it is no record of missed slots");
    }

    #[test]
    fn the_last_ones_are_remembered_and_all_are_counted() {
        let log = MissLog::private(5, "fast");
        let reader = log.reader();
        assert_eq!((reader.name().as_str(), reader.life(), reader.since(0)), ("fast", 5, vec![]));
        (0..10).for_each(|sequence| log.note(&miss(sequence)));
        assert_eq!(reader.since(8), vec![(8, miss(8)), (9, miss(9))]);
        let rounds = 11 * ENTRIES as u64;
        (10..rounds).for_each(|sequence| log.note(&miss(sequence)));
        let last = reader.since(0);
        assert_eq!(last.len(), ENTRIES);
        assert!(last.iter().all(|(number, read)| *read == miss(*number)));
        assert!(Cause::ALL.iter().all(|cause| reader.count(*cause) == ENTRIES as u64));
    }

    #[test]
    fn a_reader_beside_the_writer_sees_whole_entries_only() {
        let log = MissLog::private(1, "a");
        let reader = log.reader();
        let looks = std::thread::spawn(move || {
            let mut seen = 0;
            while seen < 1_000_000 {
                // The oldest are those that are overwritten meanwhile.
                for (number, read) in reader.since(0) {
                    assert_eq!(read, miss(number));
                    seen += 1;
                }
            }
        });
        let mut sequence = 0;
        while !looks.is_finished() {
            log.note(&miss(sequence));
            sequence += 1;
        }
        looks.join().unwrap();
    }

    #[test]
    fn a_file_of_anything_has_no_records() {
        let region = Region::anonymous(3 * BLOCK_BYTES).unwrap();
        assert!(MissReader::all_of(&region).is_empty());
        let log = MissLog::new(Arc::clone(&region), 1, 9, "a name that is longer than its thirty-two bytes \u{e4}");
        let found = MissReader::all_of(&region);
        assert_eq!((found.len(), found[0].life()), (1, 9));
        assert!(found[0].name().starts_with("a name that is longer than its t"));
        assert!(MissLog::new(Arc::clone(&region), 3, 0, "").is_none(), "past the end");
        // A count that cannot be, and entries of nonsense, are left out.
        let log = log.unwrap();
        log.words.all()[AT_WRITTEN].store(u64::MAX, Ordering::Relaxed);
        log.words.entry(u64::MAX - 1).iter().for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
        assert!(found[0].since(0).is_empty());
        assert!(MissReader::all_of(&Region::anonymous(100).unwrap()).is_empty());
    }
}
