//! Frames that go straight to where they belong.

use crate::Fixture;
use crate::frames::{PATIENCE, links, number_of, pattern, send_split};
use insane_core::PeerIndex;
use insane_link::{FrameSink, Link, SendOutcome, Ticket};
use insane_sys::clock::mono_now;

const HEAD_BYTES: usize = 24;
/// Frames that are sent: so many, or as few as this many bytes are, but not less than the fewest.
const FRAMES_MAX: u32 = 200;
const FRAMES_MIN: u32 = 24;
const BYTES: u32 = 4 << 20;

/// Gives each frame a place, unless it is told not to, and takes some away.
#[derive(Default)]
struct Places {
    frames: Vec<Vec<u8>>,
    /// The place that is being filled, and the looks at it that are left.
    open: Option<(Ticket, Vec<u8>, u32)>,
    tickets: u64,
    placed: usize,
    /// Every so many places are taken away after the first look; 0: none.
    taken_each: u64,
    lost: Vec<u32>,
}

impl FrameSink for Places {
    const HEAD_BYTES: usize = HEAD_BYTES;

    fn frame(&mut self, _from: Option<PeerIndex>, frame: &[u8]) {
        self.frames.push(frame.to_vec());
    }

    fn place(&mut self, from: PeerIndex, head: &[u8], rest: usize) -> Option<Ticket> {
        assert_eq!((from, head.len()), (PeerIndex(0), HEAD_BYTES));
        let number = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        if number % 5 == 4 {
            return None;
        }
        self.tickets += 1;
        let is_taken = self.taken_each > 0 && self.tickets.is_multiple_of(self.taken_each);
        if is_taken {
            self.lost.push(number);
        }
        self.open = Some((Ticket(self.tickets), vec![0; rest], if is_taken { 1 } else { u32::MAX }));
        Some(Ticket(self.tickets))
    }

    fn memory(&mut self, _from: PeerIndex, head: &[u8], rest: usize, ticket: Ticket) -> Option<&mut [u8]> {
        assert_eq!(head.len(), HEAD_BYTES);
        let (_, memory, looks) = self.open.as_mut().filter(|(open, ..)| *open == ticket)?;
        *looks = looks.checked_sub(1)?;
        assert_eq!(memory.len(), rest);
        Some(memory)
    }

    fn placed(&mut self, _from: PeerIndex, head: &[u8], rest: usize, ticket: Ticket) {
        let (open, memory, looks) = self.open.take().expect("a place");
        assert_eq!((open, memory.len()), (ticket, rest));
        assert!(looks > 0, "it was taken away");
        self.placed += 1;
        self.frames.push([head, &memory].concat());
    }
}

/// Where a sink has places, every frame arrives whole and once, by one way or the other, and
/// frames whose place is taken away harm no other.
pub fn frames_in_their_places_are_whole<F: Fixture>(fixture: &mut F) {
    for taken_each in [0, 3] {
        let [mut a, mut b] = links(fixture);
        let limit = a.capabilities().frame_bytes_max as usize;
        let count = (BYTES / limit as u32).clamp(FRAMES_MIN, FRAMES_MAX);
        let mut places = Places { taken_each, ..Places::default() };
        let expected = |places: &Places| count as usize - places.lost.len();
        let patience = insane_core::Nanos(PATIENCE.as_nanos() as u64);
        let (mut sent, mut moved, mut moved_at) = (0, 0, mono_now());
        while (sent < count || places.frames.len() < expected(&places)) && mono_now().since(moved_at) < patience {
            let progress = sent as usize + places.frames.len();
            if progress > moved {
                (moved, moved_at) = (progress, mono_now());
            }
            let len = if sent % 3 == 2 { 24 + sent as usize } else { limit - sent as usize * 7 % (limit / 2) };
            if sent < count && sent < places.frames.len() as u32 + places.lost.len() as u32 + 4 {
                match send_split(&mut a, 1, 7, &pattern(sent, len), HEAD_BYTES) {
                    SendOutcome::Sent => sent += 1,
                    SendOutcome::Busy => {}
                    SendOutcome::Failed => panic!("frame {sent} fails"),
                }
            }
            a.flush();
            a.receive(8, true, &mut crate::frames::Keep::default());
            b.receive(8, true, &mut places);
            fixture.settle();
        }
        let numbers: Vec<u32> = places.frames.iter().map(|frame| number_of(frame)).collect();
        let wanted: Vec<u32> = (0..count).filter(|number| !places.lost.contains(number)).collect();
        assert_eq!(numbers, wanted);
        assert!(places.placed > 0 || places.tickets == 0, "places were given and none was filled");
    }
}
