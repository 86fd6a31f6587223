//! What is in a frame.

use crate::Fixture;
use crate::frames::{lane_of, links, pattern, receive, send_split, take_what_is_there, wait_for};
use insane_core::PeerIndex;
use insane_link::{Link, SendOutcome};
use insane_sys::SharedBytes;

/// Head and payload arrive as one frame, wherever the border between them is.
pub fn a_frame_is_head_and_payload<F: Fixture>(fixture: &mut F) {
    let [mut a, mut b] = links(fixture);
    let frame = pattern(1, 100);
    for head in [1, 2, 7, 8, 32, 64, 99, 100] {
        assert_eq!(send_split(&mut a, 1, 0, &frame, head), SendOutcome::Sent, "head of {head} bytes");
        a.flush();
        let arrivals = wait_for(fixture, &mut b, 1).0;
        assert_eq!(arrivals[0].bytes, frame, "head of {head} bytes");
        assert_eq!(arrivals[0].from, Some(PeerIndex(0)));
    }
}

/// Every length from one byte to the limit arrives whole. Limits above 2,000 bytes:
/// a selection, with both ends.
pub fn every_size_up_to_the_limit_passes<F: Fixture>(fixture: &mut F) {
    let [mut a, mut b] = links(fixture);
    let limit = a.capabilities().frame_bytes_max as usize;
    let step = if limit <= 2_000 { 1 } else { limit / 400 };
    let ends = [1, 2, 3, limit - 2, limit - 1, limit];
    for (number, len) in (1..=limit).step_by(step).chain(ends).enumerate() {
        let frame = pattern(number as u32, len);
        let lane = (number % 8) as u8;
        assert_eq!(send_split(&mut a, 1, lane, &frame, len.min(24)), SendOutcome::Sent, "{len} bytes");
        a.flush();
        let arrivals = wait_for(fixture, &mut b, 1).0;
        assert_eq!(arrivals[0].bytes, frame, "{len} bytes");
    }
}

/// A frame over the limit is refused whole, and the next is not harmed.
pub fn a_frame_over_the_limit_is_refused<F: Fixture>(fixture: &mut F) {
    let [mut a, mut b] = links(fixture);
    let limit = a.capabilities().frame_bytes_max as usize;
    for lane in [0, 7] {
        for len in [limit + 1, limit + 1000, limit + 200_000] {
            for head in [1, 24, limit, len] {
                let outcome = send_split(&mut a, 1, lane, &pattern(1, len), head);
                assert_eq!(outcome, SendOutcome::Failed, "{len} bytes, {head} of them head");
            }
        }
    }
    a.flush();
    assert_eq!(take_what_is_there(fixture, &mut b).0, [], "nothing of a refused frame arrives");
    assert_eq!(send_split(&mut a, 1, 0, &pattern(2, limit), 24), SendOutcome::Sent);
    a.flush();
    assert_eq!(wait_for(fixture, &mut b, 1).0[0].bytes, pattern(2, limit));
}

/// After `send` the link does not look at the payload again.
pub fn a_sent_payload_may_change<F: Fixture>(fixture: &mut F) {
    let [mut a, mut b] = links(fixture);
    let mut head = pattern(1, 24);
    let mut payload = pattern(2, 200);
    for round in 0..8u8 {
        let expected = [head.as_slice(), payload.as_slice()].concat();
        let outcome = a.send(PeerIndex(1), lane_of(round), &head, SharedBytes::from(payload.as_slice()));
        assert_eq!(outcome, SendOutcome::Sent);
        head.fill(round);
        payload.fill(!round);
        a.flush();
        let arrivals = wait_for(fixture, &mut b, 1).0;
        assert_eq!(arrivals[0].bytes, expected, "as it was when it was sent");
    }
    let mut kept = crate::frames::Keep::default();
    assert_eq!(receive(&mut b, 8, true, &mut kept), 0);
}
