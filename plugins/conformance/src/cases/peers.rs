//! Who sends, who receives, and who is nobody.

use crate::Fixture;
use crate::frames::{
    Keep, fitting, links, must_send, number_of, pattern, receive, send_pattern, take_what_is_there, wait_for,
};
use insane_core::PeerIndex;
use insane_link::{Link, SendOutcome};

/// A peer without an address here, or without an entry, is refused.
pub fn a_peer_that_is_none_is_refused<F: Fixture>(fixture: &mut F) {
    let [mut a, mut b] = links(fixture);
    for peer in [0, 2, 3, 64, 65, 1000, u16::MAX] {
        for lane in [0, 7] {
            assert_eq!(send_pattern(&mut a, peer, lane, 1, 40), SendOutcome::Failed, "peer {peer}");
        }
    }
    a.flush();
    assert_eq!(take_what_is_there(fixture, &mut b).0, []);
}

/// Frames cross each other.
pub fn both_directions_at_once<F: Fixture>(fixture: &mut F) {
    let [mut a, mut b] = links(fixture);
    for round in 0..50u32 {
        let lane = (round % 8) as u8;
        must_send(&mut a, 1, lane, round, 70);
        must_send(&mut b, 0, lane, 1000 + round, 80);
        a.flush();
        b.flush();
        let at_b = wait_for(fixture, &mut b, 1);
        let at_a = wait_for(fixture, &mut a, 1);
        assert_eq!((at_b.0[0].from, at_b.numbers()[0]), (Some(PeerIndex(0)), round));
        assert_eq!((at_a.0[0].from, at_a.numbers()[0]), (Some(PeerIndex(1)), 1000 + round));
    }
}

/// Eight links, each sending to each: every frame arrives where it should, and
/// bears the right sender.
pub fn every_peer_is_told_apart<F: Fixture>(fixture: &mut F) {
    let mut links: [F::Link; 8] = links(fixture);
    for round in 0..3u32 {
        for (from, link) in links.iter_mut().enumerate() {
            for to in (0..8).filter(|to| *to != from) {
                for lane in [1, 6] {
                    let number = round << 16 | (from as u32) << 8 | to as u32;
                    must_send(link, to as u16, lane, number, 90);
                }
            }
            link.flush();
        }
        for (to, link) in links.iter_mut().enumerate() {
            let mut seen = [0; 8];
            for arrival in wait_for(fixture, link, 14).0 {
                let number = number_of(&arrival.bytes);
                let from = number >> 8 & 0xff;
                assert_eq!((number >> 16, number & 0xff), (round, to as u32), "a frame for somebody else");
                assert_eq!(arrival.from, Some(PeerIndex(from as u16)), "the sender of a frame");
                seen[from as usize] += 1;
            }
            assert!((0..8).all(|from| seen[from] == if from == to { 0 } else { 2 }), "{seen:?} at {to}");
        }
    }
}

/// Whatever comes from an address that is no peer is handed out without one, harms
/// nothing, and leaves the frames of peers as they are. A link with one peer only
/// may drop it instead, and one that knows its peers by a handshake does.
pub fn strangers_are_no_peers<F: Fixture>(fixture: &mut F) {
    for count in [2, 3] {
        let mut links = fixture.open(count);
        let [a, b, ..] = links.as_mut_slice() else { panic!("the fixture did not make {count} links") };
        let from_strangers = count_strangers(fixture, a, b);
        let must_hand_out = count > 2 && fixture.hands_out_strangers();
        assert!(
            !must_hand_out || from_strangers > 0,
            "frames of strangers are handed out, so that they can be counted"
        );
        assert!(fixture.hands_out_strangers() || from_strangers == 0, "a stranger passed the handshake");
    }
}

fn count_strangers<F: Fixture>(fixture: &mut F, a: &mut F::Link, b: &mut F::Link) -> usize {
    let limit = a.capabilities().frame_bytes_max as usize;
    let mut from_strangers = 0;
    for (number, len) in [0, 1, 7, 24, 100, limit - 1, limit, limit + 1, limit + 400].into_iter().enumerate() {
        let number = number as u32;
        // As like a peer's frame as can be.
        fixture.send_as_stranger(1, &pattern(number, len));
        must_send(a, 1, 0, 100 + number, 64);
        a.flush();
        let mut kept = take_what_is_there(fixture, b).0;
        let ours = kept.iter().position(|arrival| arrival.from == Some(PeerIndex(0)));
        let Some(ours) = ours else { panic!("a stranger's {len} bytes pushed out a peer's frame") };
        assert_eq!(number_of(&kept.remove(ours).bytes), 100 + number);
        for arrival in kept {
            assert_eq!(arrival.from, None, "a stranger passed for a peer");
            assert_eq!(arrival.bytes, pattern(number, len), "cut frames are not handed out");
            from_strangers += 1;
        }
    }
    from_strangers
}

/// A link may be opened on one thread and used on another.
pub fn a_link_moves_between_threads<F: Fixture>(fixture: &mut F) {
    let [mut a, b] = links(fixture);
    let mut b = std::thread::scope(|scope| {
        let sent_elsewhere = scope.spawn(move || {
            let mut b = b;
            let len = fitting(&b, 1000);
            must_send(&mut b, 0, 0, 1, len);
            b.flush();
            b
        });
        sent_elsewhere.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    assert_eq!(wait_for(fixture, &mut a, 1).numbers(), [1]);
    for number in 0..40 {
        must_send(&mut a, 1, 0, number, 64);
    }
    a.flush();
    assert_eq!(wait_for(fixture, &mut b, 40).numbers(), (0..40).collect::<Vec<_>>());
    let mut kept = Keep::default();
    assert_eq!(receive(&mut b, 1, true, &mut kept), 0);
}
