//! Frames with content that shows any damage, and ways to wait for them.

use crate::Fixture;
use insane_core::{Lane, PeerIndex};
use insane_link::{FrameSink, Link, SendOutcome};
use insane_sys::SharedBytes;
use insane_sys::clock::mono_now;
use std::time::{Duration, Instant};

/// How long a case waits for a frame that does not come.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// Bytes of the number and length at the start of a [`pattern`].
const MARK: usize = 8;

/// `len` bytes that depend on `number`: number and length (as far as they fit), then
/// a running pattern.
pub(crate) fn pattern(number: u32, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|at| byte_at(number, at)).collect();
    let mark = [number.to_le_bytes(), (len as u32).to_le_bytes()].concat();
    let fits = len.min(MARK);
    bytes[..fits].copy_from_slice(&mark[..fits]);
    bytes
}

fn byte_at(number: u32, at: usize) -> u8 {
    (number as usize).wrapping_mul(31).wrapping_add(at.wrapping_mul(7)).wrapping_add(at >> 8) as u8
}

/// The number of a frame made by [`pattern`] with at least [`MARK`] bytes.
///
/// # Panics
/// The frame is not as it was made.
pub(crate) fn number_of(frame: &[u8]) -> u32 {
    assert!(frame.len() >= MARK, "a frame of {} bytes was never sent", frame.len());
    let number = u32::from_le_bytes([frame[0], frame[1], frame[2], frame[3]]);
    assert_eq!(frame, pattern(number, frame.len()), "frame {number} is damaged");
    number
}

/// A received frame and its sender.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// `None`: a stranger.
    pub from: Option<PeerIndex>,
    /// The frame.
    pub bytes: Vec<u8>,
}

/// Keeps what comes.
#[derive(Default, Debug)]
pub struct Keep(pub Vec<Arrival>);

impl FrameSink for Keep {
    fn frame(&mut self, from: Option<PeerIndex>, frame: &[u8]) {
        self.0.push(Arrival { from, bytes: frame.to_vec() });
    }
}

impl Keep {
    pub(crate) fn numbers(&self) -> Vec<u32> {
        self.0.iter().map(|arrival| number_of(&arrival.bytes)).collect()
    }
}

/// Sends one frame, split after `head` bytes.
pub(crate) fn send_split<L: Link>(link: &mut L, peer: u16, lane: u8, frame: &[u8], head: usize) -> SendOutcome {
    let (head, payload) = frame.split_at(head);
    link.send(PeerIndex(peer), lane_of(lane), head, SharedBytes::from(payload))
}

/// Sends [`pattern`]`(number, len)`, half of it as payload.
pub(crate) fn send_pattern<L: Link>(link: &mut L, peer: u16, lane: u8, number: u32, len: usize) -> SendOutcome {
    send_split(link, peer, lane, &pattern(number, len), len / 2)
}

/// As [`send_pattern`], where the link has no reason to refuse.
pub(crate) fn must_send<L: Link>(link: &mut L, peer: u16, lane: u8, number: u32, len: usize) {
    assert_eq!(send_pattern(link, peer, lane, number, len), SendOutcome::Sent, "frame {number} of {len} bytes");
}

pub(crate) fn lane_of(lane: u8) -> Lane {
    let Some(lane) = Lane::new(lane) else { panic!("lane {lane} does not exist") };
    lane
}

/// Receives until `count` frames are there, or patience is at its end.
pub(crate) fn wait_for<F: Fixture>(fixture: &mut F, link: &mut F::Link, count: usize) -> Keep {
    let mut kept = Keep::default();
    let end = Instant::now() + PATIENCE;
    while kept.0.len() < count && Instant::now() < end {
        fixture.settle();
        link.tend(mono_now());
        receive(link, 64, true, &mut kept);
    }
    assert_eq!(kept.0.len(), count, "frames that came, and frames that should have come");
    kept
}

/// Receives what is there after frames had time to arrive. Rather too long than too
/// short: used where nothing, or not everything, is expected.
pub(crate) fn take_what_is_there<F: Fixture>(fixture: &mut F, link: &mut F::Link) -> Keep {
    let mut kept = Keep::default();
    let mut quiet = 0;
    while quiet < 20 {
        fixture.settle();
        link.tend(mono_now());
        quiet = if receive(link, 64, true, &mut kept) == 0 { quiet + 1 } else { 0 };
    }
    kept
}

/// One call, whose answer must agree with what it handed out.
pub(crate) fn receive<L: Link>(link: &mut L, budget: u32, thorough: bool, kept: &mut Keep) -> u32 {
    let before = kept.0.len();
    let answer = link.receive(budget, thorough, kept);
    assert_eq!(answer as usize, kept.0.len() - before, "frames told, and frames handed out");
    assert!(answer <= budget, "{answer} frames with a budget of {budget}");
    answer
}

/// `count` links.
pub(crate) fn links<F: Fixture, const COUNT: usize>(fixture: &mut F) -> [F::Link; COUNT] {
    let links = fixture.open(COUNT);
    let Ok(links) = links.try_into() else { panic!("the fixture did not make {COUNT} links") };
    links
}

/// The smaller of the link's limit and `len`.
pub(crate) fn fitting<L: Link>(link: &L, len: usize) -> usize {
    len.min(link.capabilities().frame_bytes_max as usize)
}
