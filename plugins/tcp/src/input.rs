//! Bytes that came, and the frames in them. Pure.
//!
//! ```text
//!  0          start                    end            capacity
//! +----------+------------------------+--------------+
//! | done     | frames, the last maybe | room for     |
//! |          | cut                    | what comes   |
//! +----------+------------------------+--------------+
//! ```
//! From `start` there is always room for one whole frame; where there was not, the cut
//! frame has been moved to the front, which happens once in `capacity / 2` bytes at most.

use crate::PREFIX_BYTES;

/// Least capacity: a read takes what a burst of small frames brings.
const BYTES_LOW: usize = 64 * 1024;

/// See the module.
pub(crate) struct Input {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    frame_bytes_max: usize,
}

/// What stands at the front.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Next<'i> {
    /// A frame, now taken.
    Frame(&'i [u8]),
    /// Not even one frame is whole.
    Cut,
    /// No frame: this is not our format.
    Garbage,
}

/// Bytes that the input of one connection takes.
pub(crate) const fn input_bytes(frame_bytes_max: usize) -> usize {
    let two = 2 * (PREFIX_BYTES + frame_bytes_max);
    if two > BYTES_LOW { two } else { BYTES_LOW }
}

impl Input {
    pub(crate) fn new(frame_bytes_max: usize) -> Self {
        // Not zero: what is filled is there, and faults in no page later.
        let bytes = vec![u8::MAX; input_bytes(frame_bytes_max)].into_boxed_slice();
        Input { bytes, start: 0, end: 0, frame_bytes_max }
    }

    /// Takes the next frame.
    #[inline]
    pub(crate) fn next(&mut self) -> Next<'_> {
        let Some(len) = self.front() else { return Next::Cut };
        if len == 0 || len > self.frame_bytes_max {
            return Next::Garbage;
        }
        let first = self.start + PREFIX_BYTES;
        if self.end - first < len {
            return Next::Cut;
        }
        self.start = first + len;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        Next::Frame(&self.bytes[first..first + len])
    }

    /// Whether [`next`](Self::next) has an answer without new bytes.
    pub(crate) fn has_next(&self) -> bool {
        self.front().is_some_and(|len| len > self.frame_bytes_max || self.end - self.start - PREFIX_BYTES >= len)
    }

    /// The length at the front, if it is there.
    #[inline]
    fn front(&self) -> Option<usize> {
        let prefix = self.bytes[self.start..self.end].first_chunk::<PREFIX_BYTES>()?;
        Some(u32::from_le_bytes(*prefix) as usize)
    }

    /// The cut frame at the front: its length, and what is there of it. `None`: not even its
    /// length is, or it is no length.
    pub(crate) fn cut(&self) -> Option<(usize, &[u8])> {
        let len = self.front().filter(|len| (1..=self.frame_bytes_max).contains(len))?;
        Some((len, &self.bytes[self.start + PREFIX_BYTES..self.end]))
    }

    /// Where new bytes go, at most `limit` of them: never empty, once [`next`](Self::next) has
    /// said `Cut` and `limit` is not 0.
    #[inline]
    pub(crate) fn room(&mut self, limit: usize) -> &mut [u8] {
        if self.start > 0 && self.bytes.len() - self.start < PREFIX_BYTES + self.frame_bytes_max {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let end = self.bytes.len().min(self.end.saturating_add(limit));
        &mut self.bytes[self.end..end]
    }

    /// The first `count` bytes of the room hold something now.
    #[inline]
    pub(crate) fn filled(&mut self, count: usize) {
        self.end += count;
        debug_assert!(self.end <= self.bytes.len());
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(frames: &[Vec<u8>]) -> Vec<u8> {
        let with_prefix = |frame: &Vec<u8>| [&(frame.len() as u32).to_le_bytes()[..], frame].concat();
        frames.iter().flat_map(with_prefix).collect()
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        const LIMIT: usize = 40_000;
        let frames: Vec<Vec<u8>> = (0..400usize).map(|n| vec![n as u8; 1 + (n * n * 7919) % LIMIT]).collect();
        let stream = framed(&frames);
        for step in [1usize, 3, 4, 5, 1447, 40_003, 40_004, 64 * 1024, usize::MAX] {
            // Byte by byte takes long; a part shows the same.
            let frames = if step < 100 { &frames[..20] } else { &frames[..] };
            let mut rest = &stream[..framed(frames).len()];
            let mut input = Input::new(LIMIT);
            let mut out = Vec::new();
            while !rest.is_empty() {
                let room = input.room(usize::MAX);
                assert!(!room.is_empty());
                let count = room.len().min(step).min(rest.len());
                room[..count].copy_from_slice(&rest[..count]);
                input.filled(count);
                rest = &rest[count..];
                loop {
                    let has_next = input.has_next();
                    match input.next() {
                        Next::Frame(frame) => out.push(frame.to_vec()),
                        Next::Cut => {
                            assert!(!has_next);
                            break;
                        }
                        Next::Garbage => panic!("garbage"),
                    }
                    assert!(has_next);
                }
            }
            assert_eq!(out, frames, "step {step}");
        }
    }

    #[test]
    fn impossible_lengths_are_garbage_and_stay_so() {
        for len in [0u32, 1001, u32::MAX] {
            let mut input = Input::new(1000);
            input.room(usize::MAX)[..4].copy_from_slice(&len.to_le_bytes());
            input.filled(3);
            assert_eq!(input.next(), Next::Cut);
            input.filled(1);
            assert!(input.has_next());
            assert_eq!(input.next(), Next::Garbage);
            assert_eq!(input.next(), Next::Garbage);
            input.clear();
            assert_eq!(input.next(), Next::Cut);
        }
    }
}
