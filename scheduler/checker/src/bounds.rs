//! Chains and sporadic lanes.

use crate::{Flaw, common, needs, time};
use insane_certificate::{Certificate, Plant, Step};
use insane_mutation::mutate;

/// Arrivals of a lane in one busy period that are looked at, at most.
const ARRIVALS_MAX: i128 = 1 << 20;

/// When a step reads and has written, how often, and on which host's clock.
struct Part {
    period: i128,
    read: i128,
    written: i128,
    host: usize,
}

pub(crate) fn chains(plant: &Plant, certificate: &Certificate) -> Result<(), Flaw> {
    for (number, (chain, bound)) in plant.chains.iter().zip(&certificate.chains).enumerate() {
        let (reaction, age) = chain_bounds(plant, certificate, &chain.steps).ok_or(Flaw::Malformed)?;
        let claimed = (i128::from(bound.reaction_ns), i128::from(bound.age_ns));
        let believed = mutate!(ChainBelieved, reaction > claimed.0 || age > claimed.1, false);
        if believed || bound.reaction_ns > chain.reaction_ns_max || bound.age_ns > chain.age_ns_max {
            return Err(Flaw::Chain(number));
        }
    }
    Ok(())
}

/// Reaction: a cause just misses a read, and each result just misses the next. Age: each
/// read finds what is about to be renewed, and the effect stays for its last period.
fn chain_bounds(plant: &Plant, certificate: &Certificate, steps: &[Step]) -> Option<(i128, i128)> {
    let mut before: Option<Part> = None;
    let (mut reaction, mut age) = (0, 0);
    for step in steps {
        let part = part(plant, certificate, step)?;
        match &before {
            None => reaction += part.period,
            Some(before) => {
                let (forth, back) = waits(plant, before, &part)?;
                reaction += forth;
                age += back;
            }
        }
        reaction += part.written - part.read;
        age += part.written - part.read;
        before = Some(part);
    }
    let last = before?.period;
    Some((reaction, age + mutate!(AgeForgetsHold, last, 0)))
}

/// From a result to the read that finds it, and from a read back to the result it finds.
fn waits(plant: &Plant, writer: &Part, reader: &Part) -> Option<(i128, i128)> {
    let step = common(writer.period, reader.period);
    let error = |host: usize| Some(i128::from(plant.hosts.get(host)?.clock_error_ns));
    let error = if writer.host == reader.host { 0 } else { error(writer.host)? + error(reader.host)? };
    let error = mutate!(ChainForgetsClocks, error, 0);
    let apart = (reader.read - writer.written).rem_euclid(step);
    // Where the clocks may turn a hit into a miss, a whole step more.
    let most = if apart < error || apart + error >= step { step } else { apart + error };
    Some((reader.period - step + most, writer.period - step + most))
}

fn part(plant: &Plant, certificate: &Certificate, step: &Step) -> Option<Part> {
    match *step {
        Step::Task { host, period_ns, offset_ns, response_ns } => {
            let (period, read) = (i128::from(period_ns), i128::from(offset_ns));
            (period > 0 && host < plant.hosts.len()).then_some(())?;
            Some(Part { period, read, written: read + i128::from(response_ns), host })
        }
        Step::Stream(number) => {
            let stream = plant.streams.get(number)?;
            let read = i128::from(certificate.placed.get(number)?.start_ns);
            let (_, written) = needs(plant, stream, read)?;
            let host = plant.links.get(stream.path.first()?.link)?.host?;
            Some(Part { period: i128::from(stream.period_ns), read, written, host })
        }
    }
}

/// The response-time analysis of fixed priorities without preemption, as revised by
/// Davis, Burns, Bril and Lukkien (2007): every arrival of the busy period counts, not
/// the first alone. A claimed response holds if, with it, the demand before each frame's
/// latest start is met by then.
pub(crate) fn lanes(plant: &Plant, certificate: &Certificate) -> Result<(), Flaw> {
    for (number, (lane, claimed)) in plant.lanes.iter().zip(&certificate.lanes).enumerate() {
        let holds = lane_holds(plant, certificate, number, i128::from(*claimed)).ok_or(Flaw::Malformed)?;
        if mutate!(LaneBelieved, !holds, false) || *claimed > lane.deadline_ns {
            return Err(Flaw::Lane(number));
        }
    }
    Ok(())
}

fn lane_holds(plant: &Plant, certificate: &Certificate, number: usize, claimed: i128) -> Option<bool> {
    let lane = plant.lanes.get(number)?;
    let link = plant.links.get(lane.link)?;
    let turn = i128::from(plant.hosts.get(link.host?)?.turn.max_ns);
    let foreign = i128::from(link.foreign_bytes);
    let cost = |bytes: u32| time(link, i128::from(bytes)) + turn;
    let above = || plant.lanes.iter().enumerate().filter(|(_, other)| other.link == lane.link);
    let interval = i128::from(lane.interval_ns);
    let malformed = |other: &insane_certificate::Lane| other.interval_ns == 0 || other.burst_frames == 0;
    let same = |(at, other): (usize, &insane_certificate::Lane)| at != number && other.priority == lane.priority;
    if above().any(|(at, other)| malformed(other) || same((at, other))) || lane.frame_bytes > link.frame_bytes_max {
        return None;
    }
    // What lower lanes and others have below us, then higher lanes and slots with guards.
    let blocking = time(link, i128::from(link.in_flight_bytes) + foreign) + turn;
    let guard = turn + time(link, foreign + i128::from(link.frame_bytes_max));
    let guard = mutate!(LaneForgetsGuard, guard, 0);
    let windows = plant.streams.iter().zip(&certificate.placed).flat_map(|(stream, placed)| {
        stream.path.iter().zip(&placed.windows).filter(|(hop, _)| hop.link == lane.link).map(|(_, window)| window)
    });
    let windows: alloc::vec::Vec<_> = windows.chain(&link.blocked).collect();
    let interference = |until: i128| {
        let higher = above().filter(|(_, other)| other.priority < lane.priority);
        let higher = higher.map(|(_, other)| {
            (i128::from(other.burst_frames) + until / i128::from(other.interval_ns)) * cost(other.frame_bytes)
        });
        let slots = windows
            .iter()
            .map(|window| (until / i128::from(window.period_ns.max(1)) + 1) * (i128::from(window.length_ns) + guard));
        mutate!(LaneForgetsSlots, slots.sum::<i128>(), 0) + higher.sum::<i128>()
    };
    let (own, burst) = (cost(lane.frame_bytes), i128::from(lane.burst_frames));
    // Any time by which all that came has gone ends the busy period.
    let total = |until: i128| blocking + (burst + until / interval) * own + interference(until);
    let Some(busy) = (0..64).map(|doubled| blocking.max(1) << doubled).find(|&until| total(until) <= until) else {
        return Some(false);
    };
    let arrivals = (burst + busy / interval).min(ARRIVALS_MAX + 1);
    let in_time = |frame: i128| {
        let arrival = mutate!(LaneFirstAlone, (frame - burst + 1).max(0), frame) * interval;
        let latest = claimed - time(link, i128::from(lane.frame_bytes)) - turn + arrival;
        // Demand that is met at some instant up to the latest start; each step is later.
        let mut at = blocking + frame * own;
        while at <= latest {
            let demand = blocking + frame * own + interference(at);
            if demand <= at {
                return true;
            }
            at = demand;
        }
        false
    };
    Some(arrivals <= ARRIVALS_MAX && (0..arrivals).all(in_time))
}
