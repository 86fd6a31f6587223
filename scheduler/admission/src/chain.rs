//! Worst reaction time and data age of chains of cause and effect.
//!
//! Every step reads at planned instants and overwrites what it wrote before (registers,
//! no queues). Between a writer of period P and a reader of period Q the wait for the
//! next read takes the values c, c + g, ... below Q, with g = gcd(P, Q) and c the distance
//! of their offsets modulo g; so the longest is Q - g + c. With clocks that are apart by
//! up to e, c moves by e, and a whole g is lost where it may cross a read. Looking back
//! from a read the same holds with P. The sum over the chain is a bound, exact for each
//! pair, and needs no hyperperiod. (Reaction and age with hold are equal where all periods
//! are: Guenzel et al. 2023.)

use crate::shape::Shape;
use crate::words::PlantError;
use insane_certificate::{Chain, ChainBound, Plant, Step};
use insane_mutation::mutate;
use insane_scheduler::gcd;

struct Point {
    period_ns: u64,
    read_ns: u64,
    latency_ns: u64,
    host: usize,
}

pub(crate) fn bound(plant: &Plant, shapes: &[Shape], starts: &[u64], chain: &Chain) -> Result<ChainBound, PlantError> {
    let mut points = chain.steps.iter().map(|step| point(plant, shapes, starts, step));
    let first = points.next().ok_or(PlantError::Chain)??;
    let mut reaction = u128::from(mutate!(ReactionForgetsFirst, first.period_ns, 0)) + u128::from(first.latency_ns);
    let mut age = u128::from(first.latency_ns);
    let mut writer = first;
    for reader in points {
        let reader = reader?;
        let lost = lost_ns(plant, &writer, &reader)?;
        let step = u128::from(gcd(writer.period_ns, reader.period_ns));
        reaction += u128::from(reader.period_ns) - step + lost + u128::from(reader.latency_ns);
        age += u128::from(writer.period_ns) - step + lost + u128::from(reader.latency_ns);
        writer = reader;
    }
    age += u128::from(writer.period_ns);
    let narrow = |ns: u128| u64::try_from(ns).map_err(|_| PlantError::Chain);
    Ok(ChainBound { reaction_ns: narrow(reaction)?, age_ns: narrow(age)? })
}

/// The part of a wait that the offsets decide.
fn lost_ns(plant: &Plant, writer: &Point, reader: &Point) -> Result<u128, PlantError> {
    let error =
        |host: usize| plant.hosts.get(host).map(|host| i128::from(host.clock_error_ns)).ok_or(PlantError::Chain);
    let error = if writer.host == reader.host { 0 } else { error(writer.host)? + error(reader.host)? };
    let error = mutate!(ChainForgetsClocks, error, 0);
    let step = i128::from(gcd(writer.period_ns, reader.period_ns));
    let written = i128::from(writer.read_ns) + i128::from(writer.latency_ns);
    let nominal = (i128::from(reader.read_ns) - written).rem_euclid(step);
    let crosses = nominal - error < 0 || nominal + error >= step;
    Ok(if crosses { step } else { nominal + error } as u128)
}

fn point(plant: &Plant, shapes: &[Shape], starts: &[u64], step: &Step) -> Result<Point, PlantError> {
    match *step {
        Step::Task { host, period_ns, offset_ns, response_ns } => {
            if period_ns == 0 || host >= plant.hosts.len() {
                return Err(PlantError::Chain);
            }
            Ok(Point { period_ns, read_ns: offset_ns, latency_ns: response_ns, host })
        }
        Step::Stream(number) => {
            let (shape, start) = shapes.get(number).zip(starts.get(number)).ok_or(PlantError::Chain)?;
            let host = plant.links[shape.parts[0].link].host.ok_or(PlantError::Chain)?;
            Ok(Point { period_ns: shape.period_ns, read_ns: *start, latency_ns: shape.span_ns, host })
        }
    }
}
