//! What device and controller tell each other every cycle: 64 bytes each way.
//!
//! ```text
//!   0       4       8              16              24              32 ... 64
//!   +-------+-------+---------------+---------------+------------------------+
//!   | kind  | check | cycle         | instant, ns   | five words             |
//!   +-------+-------+---------------+---------------+------------------------+
//! ```
//!
//! Little-endian. `check` is FNV-1a (32 bit) over all other bytes, so a message that
//! was damaged, or is none of ours, is counted and not obeyed. A command repeats
//! cycle and instant of the sample it answers: the round trip is then measured on
//! the device's clock alone.

use crate::plant::{SetPoint, State};
use insane_core::{MonoTime, Nanos};

/// Bytes of one message.
pub const BYTES: usize = 64;

const SAMPLE: u32 = u32::from_le_bytes(*b"SENS");
const COMMAND: u32 = u32::from_le_bytes(*b"ACTU");

/// What the device sends: its sensors at the start of a cycle.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sample {
    /// The device's cycle.
    pub cycle: u64,
    /// When the sensors were read, on the device's clock.
    pub instant: MonoTime,
    /// Where the carriage is.
    pub state: State,
    /// Where it should be.
    pub set_point: SetPoint,
}

/// What the controller sends.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Command {
    /// Cycle of the sample it answers.
    pub echo_cycle: u64,
    /// Instant of that sample, on the device's clock.
    pub echo_instant: MonoTime,
    /// The coil's current, amperes.
    pub current: f64,
    /// The controller's own cycle.
    pub cycle: u64,
    /// How late the controller was in this cycle by its own account: wake-up, or
    /// samples held back.
    pub late: Nanos,
    /// Cycles that the controller passed over just before this one.
    pub skipped: u64,
    /// Samples that never reached the controller, since its start.
    pub samples_lost: u64,
}

impl Sample {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; BYTES] {
        let words = [
            self.state.gap.to_bits(),
            self.state.speed.to_bits(),
            self.set_point.gap.to_bits(),
            self.set_point.speed.to_bits(),
            self.set_point.acceleration.to_bits(),
        ];
        encode(SAMPLE, self.cycle, self.instant, words)
    }

    /// From bytes; `None`: they are no sample.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (cycle, instant, [gap, speed, set_gap, set_speed, set_acceleration]) = decode(SAMPLE, bytes)?;
        Some(Sample {
            cycle,
            instant,
            state: State { gap: f64::from_bits(gap), speed: f64::from_bits(speed) },
            set_point: SetPoint {
                gap: f64::from_bits(set_gap),
                speed: f64::from_bits(set_speed),
                acceleration: f64::from_bits(set_acceleration),
            },
        })
    }
}

impl Command {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; BYTES] {
        let words = [self.current.to_bits(), self.cycle, self.late.0, self.skipped, self.samples_lost];
        encode(COMMAND, self.echo_cycle, self.echo_instant, words)
    }

    /// From bytes; `None`: they are no command.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (echo_cycle, echo_instant, [current, cycle, late, skipped, samples_lost]) = decode(COMMAND, bytes)?;
        let current = f64::from_bits(current);
        Some(Command { echo_cycle, echo_instant, current, cycle, late: Nanos(late), skipped, samples_lost })
    }
}

fn encode(kind: u32, cycle: u64, instant: MonoTime, words: [u64; 5]) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    let [a, b, c, d, e] = words;
    for (place, word) in bytes[8..].chunks_exact_mut(8).zip([cycle, instant.0, a, b, c, d, e]) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    let check = check(&bytes);
    bytes[4..8].copy_from_slice(&check.to_le_bytes());
    bytes
}

fn decode(kind: u32, bytes: &[u8]) -> Option<(u64, MonoTime, [u64; 5])> {
    let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
    let head = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if head(0) != kind || head(4) != check(bytes) {
        return None;
    }
    let mut words = [0; 7];
    for (word, place) in words.iter_mut().zip(bytes[8..].as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*place);
    }
    let [cycle, instant, a, b, c, d, e] = words;
    Some((cycle, MonoTime(instant), [a, b, c, d, e]))
}

fn check(bytes: &[u8; BYTES]) -> u32 {
    let covered = bytes[..4].iter().chain(&bytes[8..]);
    covered.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Sample {
        Sample {
            cycle: 7,
            instant: MonoTime(u64::MAX),
            state: State { gap: 0.006, speed: -0.1 },
            set_point: SetPoint { gap: 0.007, speed: 0.5, acceleration: -9.0 },
        }
    }

    fn command() -> Command {
        Command {
            echo_cycle: 7,
            echo_instant: MonoTime(9),
            current: 1.5,
            cycle: 11,
            late: Nanos(13),
            skipped: 17,
            samples_lost: 19,
        }
    }

    #[test]
    fn both_survive_the_way() {
        assert_eq!(Sample::decode(&sample().encode()), Some(sample()));
        assert_eq!(Command::decode(&command().encode()), Some(command()));
    }

    #[test]
    fn one_is_not_the_other_and_a_part_is_neither() {
        assert_eq!(Command::decode(&sample().encode()), None);
        assert_eq!(Sample::decode(&command().encode()), None);
        assert_eq!(Sample::decode(&sample().encode()[..63]), None);
        assert_eq!(Sample::decode(&[]), None);
    }

    #[test]
    fn every_damaged_bit_is_noticed() {
        let good = command().encode();
        for bit in 0..BYTES * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Command::decode(&bad), None, "bit {bit}");
        }
    }
}
