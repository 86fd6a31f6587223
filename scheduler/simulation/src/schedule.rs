//! Random schedules that are valid by construction, each pair of streams compared slot
//! by slot.

use crate::random::Random;
use insane_scheduler::{FlowIndex, GateEntry, LatePolicy, LinkRate, LinkTiming, Recurrence, TimedStream};

/// Streams of a schedule at most; the flows above them are of the lanes.
pub(crate) const STREAMS_MAX: usize = 12;

/// A gate list in plain words.
#[derive(Clone, Debug)]
pub(crate) struct GateList {
    pub base: u64,
    pub cycle: u64,
    pub entries: Vec<GateEntry>,
}

#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    pub base: u64,
    pub streams: Vec<TimedStream>,
    pub gates: Option<GateList>,
}

pub(crate) fn timing(random: &mut Random) -> LinkTiming {
    let bits = random.pick(&[100_000_000, 1_000_000_000, 1_000_000_000, 2_500_000_000, 10_000_000_000]);
    LinkTiming {
        rate: LinkRate::from_bits_per_s(bits).unwrap_or_else(|| unreachable!("a rate of the list above")),
        turn_ns: random.pick(&[0, 1, 300, 2_000, 5_000]),
        foreign_bytes: random.pick(&[0, 0, 0, 84, 1_538]),
        in_flight_bytes: random.between(3_100, 40_000) as u32,
        lead_ns: random.pick(&[0, 0, 0, 1_000, 20_000]),
        step_ns: 10_000,
    }
}

/// A schedule in force some time from `now` on.
pub(crate) fn schedule(random: &mut Random, timing: &LinkTiming, now: u64) -> Schedule {
    let mut streams: Vec<TimedStream> = Vec::new();
    let count = random.between(0, STREAMS_MAX as u64);
    let unit = random.between(100_000, 400_000);
    let periods: Vec<u64> = match random.between(0, 3) {
        0 => vec![unit, unit * 2, unit * 4, unit * 8],
        1 => vec![unit, unit * 3 / 2, unit * 5 / 3, unit * 2],
        2 => vec![62_500 * 4, 1_000_000_000],
        // Near-coprime: a small gcd, so that few fit.
        _ => vec![20_000 * 13, 20_000 * 17, 20_000 * 19],
    };
    for flow in 0..count {
        for _ in 0..20 {
            let Some(one) = stream(random, timing, flow as u16, &periods) else { continue };
            if streams.iter().all(|other| are_apart(other.slots, one.slots)) {
                streams.push(one);
                break;
            }
        }
    }
    // A base time of the far past, of now, or of the near future.
    let base = match random.between(0, 2) {
        0 => random.between(0, now),
        1 => now,
        _ => now + random.between(0, 3_000_000),
    };
    let gates = random.chance(50).then(|| gate_list(random, now));
    Schedule { base, streams, gates }
}

fn stream(random: &mut Random, timing: &LinkTiming, flow: u16, periods: &[u64]) -> Option<TimedStream> {
    let period = random.pick(periods);
    let bytes = random.between(84, 1_538);
    let foreign = u64::from(timing.foreign_bytes);
    let need = timing.turn_ns + (bytes + foreign) * u64::from(timing.rate.ps_per_byte()) / 1_000 + 1;
    let exact = ((bytes + foreign) * u64::from(timing.rate.ps_per_byte())).is_multiple_of(1_000);
    let slack = random.pick(&[0, 0, 0, 1, 3_000]);
    // `None` where the message takes longer than the period.
    let slots = Recurrence::new(period, random.between(0, period - 1), need - u64::from(exact) + slack).ok()?;
    Some(TimedStream {
        flow: FlowIndex(flow),
        slots,
        bytes: bytes as u32,
        early_ns: random.pick(&[period, period / 2, 10_000]),
        deadline_ns: random.pick(&[0, 20_000, period / 2, period]),
        late: random.pick(&[LatePolicy::Drop, LatePolicy::SendNow, LatePolicy::NextSlot, LatePolicy::NewestWins]),
    })
}

/// Goes through all slots of one until the other's period has come round.
fn are_apart(a: Recurrence, b: Recurrence) -> bool {
    let (fast, slow) = if a.period_ns() <= b.period_ns() { (a, b) } else { (b, a) };
    let (p, q) = (fast.period_ns(), slow.period_ns());
    let first = slow.offset_ns() % p;
    let mut offset = first;
    loop {
        // This window of the slow one, seen from the window of the fast one before it.
        let after = (offset + p - fast.offset_ns()) % p;
        if after < fast.length_ns() || after + slow.length_ns() > p {
            return false;
        }
        offset = (offset + q) % p;
        if offset == first {
            return true;
        }
    }
}

fn gate_list(random: &mut Random, now: u64) -> GateList {
    let entry = |random: &mut Random| GateEntry {
        open_lanes: random.next() as u8,
        interval_ns: random.between(20_000, 300_000),
    };
    let entries: Vec<GateEntry> = (0..random.between(1, 5)).map(|_| entry(random)).collect();
    let cycle = entries.iter().map(|entry| entry.interval_ns).sum::<u64>() + random.pick(&[0, 5_000]);
    GateList { base: (now + 500_000).saturating_sub(random.between(0, 3_000_000)), cycle, entries }
}

impl GateList {
    /// The entry at an instant, and when the next begins; `None` before the base time.
    pub(crate) fn at(&self, at: u64) -> Option<(u8, u64)> {
        let mut left = at.checked_sub(self.base)? % self.cycle;
        for (number, entry) in self.entries.iter().enumerate() {
            let is_last = number + 1 == self.entries.len();
            let length = if is_last { u64::MAX } else { entry.interval_ns };
            if left < length {
                let into = (at - self.base) % self.cycle;
                let end = if is_last { self.cycle } else { into - left + length };
                return Some((entry.open_lanes, at - into + end));
            }
            left -= length;
        }
        None
    }

    /// Whether a lane is open from one instant to another, in picoseconds.
    pub(crate) fn is_open(&self, lane: u8, from_ps: u128, to_ps: u128) -> bool {
        let mut at = (from_ps / 1_000) as u64;
        while u128::from(at) * 1_000 < to_ps {
            match self.at(at) {
                Some((open, _)) if open >> lane & 1 == 0 => return false,
                Some((_, end)) => at = end,
                None => at = self.base,
            }
        }
        true
    }
}
