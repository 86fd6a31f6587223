//! Reassembly against an oracle that has one flag a byte, with real payloads, and an
//! account of every handle.

use crate::flow::FlowKey;
use crate::reassembly::*;
use insane_core::{HostId, Incarnation, MonoTime, Nanos, SourceId, StreamKey};
use insane_wire::data::{FRAGMENT_UNIT, FragmentPlan};
use proptest::prelude::*;
use std::collections::HashMap;
use std::vec::Vec;
use std::{format, vec};

fn key(n: u32) -> FlowKey {
    FlowKey { host: HostId(1), incarnation: Incarnation(1), source: SourceId(n), stream: StreamKey(7) }
}

fn at_ms(ms: u64) -> MonoTime {
    MonoTime(0) + Nanos::from_millis(ms)
}

/// The byte at `at` of a message.
fn content(flow: u32, sequence: u64, at: u32) -> u8 {
    (u64::from(flow).wrapping_mul(31) ^ sequence.wrapping_mul(17) ^ u64::from(at).wrapping_mul(7) ^ u64::from(at >> 8))
        as u8
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    flow: u32,
    sequence: u64,
    message_len: u32,
    offset: u32,
    len: u32,
}

/// One message being collected, as the oracle sees it.
struct Memory {
    flow: u32,
    sequence: u64,
    bytes: Vec<Option<u8>>,
}

/// Whether the range is no fragment of the message: outside, uneven, empty, or half there.
fn is_no_fragment(bytes: &[Option<u8>], offset: usize, len: usize) -> bool {
    let Some(range) = bytes.get(offset..).and_then(|rest| rest.get(..len)) else { return true };
    let unit = FRAGMENT_UNIT as usize;
    let is_last = offset + len == bytes.len();
    let half = (1..len).contains(&range.iter().filter(|byte| byte.is_some()).count());
    !offset.is_multiple_of(unit) || len == 0 || (!is_last && !len.is_multiple_of(unit)) || half
}

/// A caller that hands out handles and keeps an account of them.
struct Caller {
    reassembler: Reassembler<usize>,
    memories: HashMap<usize, Memory>,
    handles: usize,
    completed: Vec<(u32, u64)>,
}

impl Caller {
    fn new(places: usize, message_bytes_max: u32) -> Self {
        Caller {
            reassembler: Reassembler::new(places, message_bytes_max),
            memories: HashMap::new(),
            handles: 0,
            completed: Vec::new(),
        }
    }

    fn came_back(&mut self, handle: usize) -> Memory {
        self.memories.remove(&handle).expect("a handle comes back once, and only if it was given")
    }

    fn take(&mut self, now: MonoTime, piece: Piece) -> Arrival<usize> {
        let Piece { flow, sequence, message_len, offset, len } = piece;
        let held = self.memories.iter().find(|(_, m)| (m.flow, m.sequence) == (flow, sequence)).map(|(h, _)| *h);
        let arrival = self.reassembler.fragment(now, &key(flow), sequence, message_len, offset, len);
        assert_eq!(held.is_none(), arrival == Arrival::Unknown);
        match arrival {
            Arrival::Store { handle } | Arrival::Complete { handle } => {
                assert_eq!(Some(handle), held);
                let memory = self.memories.get_mut(&handle).unwrap();
                for at in offset..offset + len {
                    let byte = &mut memory.bytes[at as usize];
                    assert_eq!(*byte, None, "stored twice");
                    *byte = Some(content(flow, sequence, at));
                }
                let whole = memory.bytes.iter().all(Option::is_some);
                assert_eq!(whole, matches!(arrival, Arrival::Complete { .. }));
                if whole {
                    let memory = self.came_back(handle);
                    assert!((0..message_len).all(|at| memory.bytes[at as usize] == Some(content(flow, sequence, at))));
                    self.completed.push((flow, sequence));
                }
            }
            Arrival::Duplicate => {
                let bytes = &self.memories[&held.unwrap()].bytes;
                assert!(bytes[offset as usize..(offset + len) as usize].iter().all(Option::is_some));
            }
            Arrival::Inconsistent => {
                let bytes = &self.memories[&held.unwrap()].bytes;
                let is_another = bytes.len() != message_len as usize;
                assert!(is_another || is_no_fragment(bytes, offset as usize, len as usize), "refused without cause");
            }
            Arrival::Unknown => {}
        }
        arrival
    }

    fn begin(&mut self, now: MonoTime, piece: Piece) {
        let handle = self.handles;
        self.handles += 1;
        let bytes = vec![None; piece.message_len as usize];
        self.memories.insert(handle, Memory { flow: piece.flow, sequence: piece.sequence, bytes });
        match self.reassembler.begin(now, &key(piece.flow), piece.sequence, piece.message_len, handle) {
            Begin::Started { evicted } => {
                if let Some(evicted) = evicted {
                    self.came_back(evicted);
                }
            }
            Begin::TooLarge { refused } | Begin::Present { refused } => {
                assert_eq!(refused, handle);
                self.came_back(refused);
            }
        }
        assert_eq!(self.reassembler.len(), self.memories.len());
    }

    /// As an engine does it: begin when unknown, then offer the fragment again.
    fn accept(&mut self, now: MonoTime, piece: Piece) -> Arrival<usize> {
        match self.take(now, piece) {
            Arrival::Unknown => {
                self.begin(now, piece);
                self.take(now, piece)
            }
            arrival => arrival,
        }
    }

    fn end(mut self) -> Vec<(u32, u64)> {
        while let Some(handle) = self.reassembler.give_up(|_, _, _| true) {
            self.came_back(handle);
        }
        assert!(self.memories.is_empty(), "a handle was lost");
        assert!(self.reassembler.is_empty());
        self.completed
    }
}

/// The fragments of a message; sizes may change on the way, as after a change of link.
fn pieces(flow: u32, sequence: u64, message_len: u32, frame_a: u32, frame_b: u32, change_at: u32) -> Vec<Piece> {
    let mut all = Vec::new();
    let mut offset = 0;
    loop {
        let frame = if all.len() as u32 >= change_at { frame_b } else { frame_a };
        let len = FragmentPlan::new(message_len - offset, frame).unwrap().next().unwrap().len;
        all.push(Piece { flow, sequence, message_len, offset, len });
        offset += len;
        if offset >= message_len {
            return all;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Enough places, nothing dropped: every message completes once, in any order of
    /// fragments, with any of them repeated before the end.
    #[test]
    fn everything_completes_in_any_order(
        lens in prop::collection::vec(0..30_000_u32, 1..8),
        frames in (64..2000_u32, 64..2000_u32, 0..20_u32),
        repeats in prop::collection::vec(any::<prop::sample::Index>(), 0..50),
        order in prop::collection::vec(any::<u64>(), 4000),
    ) {
        let mut caller = Caller::new(lens.len(), 30_000);
        let mut all: Vec<Piece> = Vec::new();
        for (n, len) in lens.iter().enumerate() {
            all.extend(pieces(n as u32 / 2, n as u64, *len, frames.0, frames.1, frames.2));
        }
        let originals = all.len();
        for repeat in repeats {
            all.push(all[repeat.index(originals)]);
        }
        let mut shuffled: Vec<(u64, Piece)> = order.iter().copied().cycle().zip(all).collect();
        shuffled.sort_by_key(|(order, _)| *order);
        for (_, piece) in shuffled {
            // A repeat after the end would begin anew; the flow table keeps that away.
            if !caller.completed.contains(&(piece.flow, piece.sequence)) {
                let arrival = caller.accept(at_ms(0), piece);
                prop_assert!(arrival != Arrival::Inconsistent && arrival != Arrival::Unknown);
            }
        }
        prop_assert_eq!(caller.end().len(), lens.len());
    }

    /// Few places, losses, repeats, nonsense, expiry and giving up: the account stays right.
    #[test]
    fn every_handle_comes_back_once(
        places in 1..5_usize,
        lens in prop::collection::vec(0..9_000_u32, 12),
        frame in 64..3000_u32,
        steps in prop::collection::vec((any::<prop::sample::Index>(), 0..100_u8, any::<u32>(), any::<u32>()), 0..400),
    ) {
        let mut caller = Caller::new(places, 8_000);
        let all: Vec<Piece> =
            lens.iter().enumerate().flat_map(|(n, len)| pieces(n as u32 % 3, n as u64, *len, frame, 640, 3)).collect();
        for (n, (which, action, a, b)) in steps.into_iter().enumerate() {
            let now = at_ms(n as u64);
            let piece = all[which.index(all.len())];
            match action {
                0..80 => {
                    let _ = caller.accept(now, piece);
                }
                80..88 => {
                    let wild = Piece { message_len: a % 9_000, offset: b % 10_000, len: a % 3_000, ..piece };
                    let _ = caller.take(now, wild);
                    let wild = Piece { offset: b % 10_000 / 64 * 64, len: a % 3_000 / 64 * 64, ..piece };
                    let _ = caller.take(now, wild);
                    let _ = caller.take(now, Piece { offset: b, len: a, ..piece });
                }
                88..92 => caller.begin(now, piece),
                92..96 => {
                    if let Some(handle) = caller.reassembler.expire(now, Nanos::from_millis(20)) {
                        caller.came_back(handle);
                    }
                }
                96..98 => {
                    let sequence = piece.sequence;
                    while let Some(handle) = caller.reassembler.give_up(|k, s, _| *k == key(piece.flow) && s < sequence) {
                        let memory = caller.came_back(handle);
                        prop_assert!(memory.flow == piece.flow && memory.sequence < sequence);
                    }
                }
                _ => {
                    if let Some(handle) = caller.reassembler.give_up_for(&key(piece.flow), piece.sequence) {
                        caller.came_back(handle);
                    }
                }
            }
        }
        caller.end();
    }
}

fn piece(flow: u32, sequence: u64, offset: u32) -> Piece {
    Piece { flow, sequence, message_len: 256, offset, len: 64 }
}

#[test]
fn a_full_house_gives_up_the_oldest_of_the_same_flow_first() {
    let mut caller = Caller::new(3, 1000);
    let _ = caller.accept(at_ms(0), piece(9, 1, 0));
    let _ = caller.accept(at_ms(1), piece(1, 5, 0));
    let _ = caller.accept(at_ms(2), piece(1, 4, 0));
    let _ = caller.accept(at_ms(3), piece(1, 6, 0));
    let left = |caller: &Caller| {
        let mut left: Vec<_> = caller.memories.values().map(|m| (m.flow, m.sequence)).collect();
        left.sort_unstable();
        left
    };
    assert_eq!(left(&caller), [(1, 5), (1, 6), (9, 1)]);
    let _ = caller.accept(at_ms(4), piece(2, 0, 0));
    assert_eq!(left(&caller), [(1, 5), (1, 6), (2, 0)], "without one of its own: the one idle longest");
    let _ = caller.accept(at_ms(5), piece(1, 5, 64));
    let _ = caller.accept(at_ms(6), piece(3, 0, 0));
    assert_eq!(left(&caller), [(1, 5), (2, 0), (3, 0)], "progress counts, not age");
    caller.end();
}

#[test]
fn only_what_made_no_progress_expires() {
    let mut caller = Caller::new(2, 1000);
    let _ = caller.accept(at_ms(0), piece(1, 1, 0));
    let _ = caller.accept(at_ms(0), piece(2, 1, 0));
    let _ = caller.accept(at_ms(9), piece(1, 1, 64));
    let timeout = Nanos::from_millis(10);
    assert_eq!(caller.reassembler.expire(at_ms(9), timeout), None);
    let handle = caller.reassembler.expire(at_ms(10), timeout).unwrap();
    assert_eq!(caller.came_back(handle).flow, 2);
    assert_eq!(caller.reassembler.expire(at_ms(10), timeout), None);
    caller.end();
}

#[test]
fn too_large_is_refused_with_its_handle() {
    let mut reassembler = Reassembler::new(1, 1000);
    assert_eq!(reassembler.begin(at_ms(0), &key(0), 0, 1001, 'h'), Begin::TooLarge { refused: 'h' });
    assert_eq!(reassembler.begin(at_ms(0), &key(0), 0, 1000, 'h'), Begin::Started { evicted: None });
    assert_eq!(reassembler.begin(at_ms(0), &key(0), 0, 1000, 'i'), Begin::Present { refused: 'i' });
    assert_eq!(format!("{:?}", reassembler.fragment(at_ms(0), &key(0), 0, 1000, 0, 1000)), "Complete { handle: 'h' }");
}

#[test]
fn a_place_starts_clean_after_an_evicted_message() {
    let mut caller = Caller::new(1, 100_000);
    for sequence in 0..20_u64 {
        // The last fragment first, so that everything before it is cleared; then half of the rest.
        let all = pieces(1, sequence, 100_000, 6400, 6400, 0);
        for piece in all.iter().rev().step_by(1 + sequence as usize % 3) {
            let _ = caller.accept(at_ms(sequence), *piece);
        }
    }
    assert_eq!(caller.end().len(), 7);
}
