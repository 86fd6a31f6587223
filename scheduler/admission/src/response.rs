//! Response times of sporadic lanes: fixed priorities without preemption, as on CAN, in
//! the revised analysis of Davis, Burns, Bril and Lukkien (Real-Time Systems 35, 2007):
//! the first frame of a busy period need not be the worst, so all of it are looked at.
//!
//! A lane may send `burst` frames at once and one more every interval. Before a frame
//! come: what lower lanes and strangers have below the scheduler (the in-flight limit), the
//! lane's own frames before it, all frames of higher lanes that come until it starts, and
//! every slot that begins until then, with its guard, in which the link may stand idle for
//! the frame does not fit. A frame costs its time on the link and one e_turn.

use crate::shape::duration_ns;
use crate::words::PlantError;
use alloc::vec::Vec;
use insane_certificate::{Lane, Plant, Window};
use insane_mutation::mutate;

/// Rounds of one fixed point, and frames of one busy period, at most.
const ROUNDS_MAX: u32 = 1 << 16;
/// A busy period that is longer counts as endless, nanoseconds.
const BUSY_NS_MAX: u128 = 1 << 50;

/// The worst response time of a lane, nanoseconds; `None` where none was found: the lane
/// may wait for ever.
///
/// # Errors
/// [`PlantError::Lane`].
pub(crate) fn response_ns(plant: &Plant, windows: &[Window], number: usize) -> Result<Option<u64>, PlantError> {
    let lane = &plant.lanes[number];
    let link = plant.links.get(lane.link).ok_or(PlantError::Lane)?;
    let host = link.host.and_then(|host| plant.hosts.get(host)).ok_or(PlantError::Lane)?;
    let others: Vec<(usize, &Lane)> =
        plant.lanes.iter().enumerate().filter(|other| other.1.link == lane.link).collect();
    let means_nothing = |&(at, other): &(usize, &Lane)| {
        other.burst_frames == 0 || other.interval_ns == 0 || at != number && other.priority == lane.priority
    };
    if others.iter().any(means_nothing) || lane.frame_bytes > link.frame_bytes_max || lane.frame_bytes == 0 {
        return Err(PlantError::Lane);
    }
    let turn = u128::from(host.turn.max_ns);
    let cost = |bytes: u32| u128::from(duration_ns(link, u64::from(bytes))) + turn;
    let foreign = u64::from(link.foreign_bytes);
    let blocking = u128::from(duration_ns(link, u64::from(link.in_flight_bytes) + foreign)) + turn;
    let blocking = mutate!(ResponseForgetsBlocking, blocking, 1);
    let guard = u128::from(duration_ns(link, u64::from(link.frame_bytes_max) + foreign)) + turn;
    let higher: Vec<&Lane> =
        others.iter().map(|other| other.1).filter(|other| other.priority < lane.priority).collect();
    let come = |lane: &Lane, until: u128| u128::from(lane.burst_frames) + until / u128::from(lane.interval_ns);
    let before = |until: u128| {
        let lanes: u128 = higher.iter().map(|lane| come(lane, until) * cost(lane.frame_bytes)).sum();
        let slot =
            |window: &Window| (until / u128::from(window.period_ns) + 1) * (u128::from(window.length_ns) + guard);
        let slots: u128 = windows.iter().chain(&link.blocked).map(slot).sum();
        mutate!(ResponseForgetsHigher, lanes, 0) + mutate!(ResponseForgetsSlots, slots, 0)
    };
    let own = cost(lane.frame_bytes);
    let Some(busy) = fixed_point(blocking, |until| blocking + come(lane, until) * own + before(until)) else {
        return Ok(None);
    };
    let frames = come(lane, busy);
    if frames > u128::from(ROUNDS_MAX) {
        return Ok(None);
    }
    let (mut worst, mut start) = (0, blocking);
    for frame in 0..frames {
        // Each frame starts after the one before: its fixed point is where this search begins.
        let Some(found) = fixed_point(start, |until| blocking + frame * own + before(until)) else {
            return Ok(None);
        };
        start = found;
        let arrival = (frame + 1).saturating_sub(u128::from(lane.burst_frames)) * u128::from(lane.interval_ns);
        worst = worst.max((start + own).saturating_sub(arrival));
    }
    Ok(u64::try_from(worst).ok())
}

/// The least fixed point from below of a function that never falls.
fn fixed_point(from: u128, next: impl Fn(u128) -> u128) -> Option<u128> {
    let mut at = from;
    for _ in 0..ROUNDS_MAX {
        let found = next(at);
        if found <= at {
            return Some(at);
        }
        if found > BUSY_NS_MAX {
            return None;
        }
        at = found;
    }
    None
}
