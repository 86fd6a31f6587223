//! Large frames go straight to their places, however the bytes of a connection are cut.

mod common;

use common::{FRAME_BYTES, Places, RawPeer, framed, until, waiting_link};
use insane_link::Link;
use insane_sys::clock::mono_now;
use insane_tcp::TcpLink;
use std::io::Write;

/// `len` bytes that no other frame has.
fn content(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (number.wrapping_mul(131) ^ at.wrapping_mul(7) ^ (at >> 8)) as u8).collect()
}

/// Large frames in a row, small ones between them, and sizes around every limit.
fn frames() -> Vec<Vec<u8>> {
    let max = FRAME_BYTES as usize;
    let sizes = [
        max,
        max,
        max,
        1,
        64,
        65,
        max,
        max - 1,
        8_191,
        8_192,
        8_193,
        8_255,
        8_256,
        3_000,
        max,
        2_000,
        500,
        max,
        9_000,
        1_024,
        1_023,
        12_000,
        max,
        63,
        max,
    ];
    sizes.into_iter().enumerate().map(|(number, len)| content(number, len)).collect()
}

fn take(link: &mut TcpLink, places: &mut Places) -> u32 {
    link.tend(mono_now());
    link.receive(64, true, places)
}

#[test]
fn every_frame_is_whole_and_in_order_however_the_bytes_come() {
    let frames = frames();
    let bytes: Vec<u8> = frames.iter().flat_map(|frame| framed(frame)).collect();
    for step in [17, 68, 1_000, 4_096, 8_200, 16_452, 20_000, 40_000, usize::MAX] {
        let mut link = waiting_link();
        let mut peer = RawPeer::connect(&mut link);
        let mut places = Places::default();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (part, left) = rest.split_at(step.min(rest.len()));
            if step == usize::MAX {
                let mut stream = peer.0[1].try_clone().unwrap();
                let bytes = bytes.clone();
                let writer = std::thread::spawn(move || stream.write_all(&bytes).unwrap());
                until("all frames come", || {
                    take(&mut link, &mut places);
                    places.frames.len() == frames.len()
                });
                writer.join().unwrap();
            } else {
                peer.0[1].write_all(part).unwrap();
                take(&mut link, &mut places);
            }
            rest = left;
        }
        until("all frames come", || {
            take(&mut link, &mut places);
            places.frames.len() == frames.len()
        });
        assert_eq!(places.frames, frames, "in steps of {step}");
        assert!(places.placed > 0, "in steps of {step} none was placed");
    }
}

#[test]
fn a_place_that_is_taken_away_costs_its_frame_and_no_other() {
    let mut link = waiting_link();
    let mut peer = RawPeer::connect(&mut link);
    let mut places = Places::default();
    let frames: Vec<Vec<u8>> = (0..5).map(|number| content(number, FRAME_BYTES as usize)).collect();
    let bytes: Vec<u8> = frames.iter().flat_map(|frame| framed(frame)).collect();
    // Into the third.
    let cut = 2 * (FRAME_BYTES as usize + 4) + 9_000;
    peer.0[1].write_all(&bytes[..cut]).unwrap();
    until("two frames come, and a part of the third", || {
        take(&mut link, &mut places);
        places.frames.len() == 2 && places.take_away()
    });
    peer.0[1].write_all(&bytes[cut..]).unwrap();
    until("the others come", || {
        take(&mut link, &mut places);
        places.frames.len() == 4
    });
    assert_eq!(places.frames, [&frames[..2], &frames[3..]].concat());
}

#[test]
fn a_frame_that_breaks_off_is_never_reported() {
    let mut link = waiting_link();
    let mut peer = RawPeer::connect(&mut link);
    let mut places = Places::default();
    let frame = content(1, FRAME_BYTES as usize);
    let bytes = framed(&frame);
    peer.0[1].write_all(&bytes[..9_000]).unwrap();
    let lost = link.counts().lost;
    until("the frame has a place", || {
        take(&mut link, &mut places);
        places.take_away()
    });
    drop(peer);
    until("the connections are lost", || {
        take(&mut link, &mut places);
        link.counts().lost >= lost + 2
    });
    let mut peer = RawPeer::connect(&mut link);
    peer.0[1].write_all(&bytes).unwrap();
    until("the next connection begins with a frame of its own", || {
        take(&mut link, &mut places);
        !places.frames.is_empty()
    });
    assert_eq!(places.frames, [frame]);
}
