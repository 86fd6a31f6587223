//! The checker of certificates and refutations. It believes nothing that a certificate
//! says, shares no code with the synthesiser (only the words of `insane-certificate`),
//! and has its own arithmetic: 128-bit integers, times on each link counted forward
//! through the path, overlap of two windows by Bezout's identity, response times by
//! trying the claimed value. It is short so that it can be read whole.
//!
//! A certificate that passes says: on every link no reserved window ever touches another
//! or a blocked one; every message has its slot after its release and arrives by its
//! deadline with the worst e_turn of its class, foreign bytes and clock error; chains and
//! lanes keep to their bounds.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

mod bounds;
#[cfg(feature = "mutants")]
mod mutants;

#[cfg(feature = "mutants")]
pub use mutants::{Mutation, turn_on};

use alloc::vec::Vec;
use insane_certificate::{Certificate, Class, Hop, Link, Plant, Refutation, Stream, Window};
use insane_mutation::mutate;

/// What is wrong with a certificate. Numbers are places in the lists of the plant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// It is about another plant.
    OtherPlant,
    /// A list has not one entry for each of the plant, or a number leads nowhere.
    Malformed,
    /// A slot begins before the release of its stream, or a period later.
    BeforeRelease(usize),
    /// The message of a stream may arrive after its deadline.
    AfterDeadline(usize),
    /// A window of a stream is not what its slot needs.
    WrongWindow(usize),
    /// Windows of two streams overlap on a link.
    Overlap(usize, usize),
    /// A window of a stream overlaps a blocked one.
    Blocked(usize),
    /// A chain may take longer than is claimed, or than is acceptable.
    Chain(usize),
    /// A message of a lane may take longer than is claimed, or than is acceptable.
    Lane(usize),
}

/// Checks a certificate against a plant.
///
/// # Errors
/// The first [`Flaw`].
pub fn check(plant: &Plant, certificate: &Certificate) -> Result<(), Flaw> {
    if certificate.plant != *plant {
        return mutate!(OtherPlantAccepted, Err(Flaw::OtherPlant), Ok(()));
    }
    let counts = [certificate.placed.len(), certificate.chains.len(), certificate.lanes.len()];
    if counts != [plant.streams.len(), plant.chains.len(), plant.lanes.len()] {
        return Err(Flaw::Malformed);
    }
    let mut reserved = Vec::new();
    for (number, (stream, placed)) in plant.streams.iter().zip(&certificate.placed).enumerate() {
        let start = i128::from(placed.start_ns);
        let release = i128::from(stream.release_ns);
        let earliest = mutate!(ReleaseIgnored, release, 0);
        if start < earliest || start >= release + i128::from(stream.period_ns) {
            return Err(Flaw::BeforeRelease(number));
        }
        let (needs, arrival) = needs(plant, stream, start).ok_or(Flaw::Malformed)?;
        if arrival > i128::from(mutate!(DeadlineOffByOne, stream.deadline_ns, stream.deadline_ns + 1)) {
            return Err(Flaw::AfterDeadline(number));
        }
        if placed.windows.len() != needs.len() {
            return Err(Flaw::WrongWindow(number));
        }
        for (window, need) in placed.windows.iter().zip(&needs) {
            let need_offset = need.from.rem_euclid(i128::from(stream.period_ns));
            let same = i128::from(window.offset_ns) == need_offset && i128::from(window.length_ns) >= need.length;
            if mutate!(WindowsBelieved, !same || window.period_ns != stream.period_ns, false) {
                return Err(Flaw::WrongWindow(number));
            }
            // A window that is longer than its period overlaps itself.
            if window.length_ns > window.period_ns {
                return Err(Flaw::Overlap(number, number));
            }
            reserved.push((number, need.link, window));
        }
    }
    apart(plant, &reserved)?;
    bounds::chains(plant, certificate)?;
    bounds::lanes(plant, certificate)
}

fn apart(plant: &Plant, reserved: &[(usize, usize, &Window)]) -> Result<(), Flaw> {
    for (at, &(number, link, window)) in reserved.iter().enumerate() {
        let before = reserved[..mutate!(LastPairForgotten, at, at.saturating_sub(1))].iter();
        if let Some(&(other, ..)) = before.clone().find(|other| other.1 == link && !are_apart(window, other.2)) {
            return Err(Flaw::Overlap(other, number));
        }
        let blocked = &plant.links[link].blocked;
        if mutate!(BlockedIgnored, blocked.iter().any(|blocked| !are_apart(window, blocked)), false) {
            return Err(Flaw::Blocked(number));
        }
    }
    Ok(())
}

/// What a stream needs of a link, from a start on.
pub(crate) struct Need {
    link: usize,
    from: i128,
    length: i128,
}

/// What a stream that starts at `start` needs of each link, and when it has arrived.
pub(crate) fn needs(plant: &Plant, stream: &Stream, start: i128) -> Option<(Vec<Need>, i128)> {
    let host = plant.hosts.get(plant.links.get(stream.path.first()?.link)?.host?)?;
    let turn = match stream.class {
        Class::Assured => mutate!(QuantileForAssured, host.turn.max_ns, host.turn.quantile_ns),
        Class::Statistical => host.turn.quantile_ns,
    };
    let error = i128::from(mutate!(ClockErrorForgotten, host.clock_error_ns, 0));
    if stream.bytes == 0 || stream.period_ns == 0 {
        return None;
    }
    let mut all = Vec::new();
    // The first bit at the earliest, the last bit at the latest.
    let (mut first, mut last) = (start, start + i128::from(mutate!(TurnForgotten, turn, 0)));
    for (number, Hop { link, delay_ns }) in stream.path.iter().enumerate() {
        let entry = plant.links.get(*link)?;
        // A link of a host begins a path, one of a switch goes on.
        if entry.host.is_some() != (number == 0) {
            return None;
        }
        let foreign = mutate!(ForeignForgotten, entry.foreign_bytes, 0);
        last += time(entry, i128::from(stream.bytes) + i128::from(foreign));
        // Slots of one host keep their order whatever its clock; those of two do not.
        let error = if number == 0 { 0 } else { error };
        all.push(Need { link: *link, from: first - error, length: last - first + 2 * error });
        first += time(entry, i128::from(stream.bytes)) + i128::from(*delay_ns);
        last += i128::from(mutate!(PathDelayForgotten, *delay_ns, 0));
    }
    Some((all, last + error))
}

/// Nanoseconds, rounded up, of bytes on a link.
pub(crate) fn time(link: &Link, bytes: i128) -> i128 {
    (bytes * i128::from(link.ps_per_byte) + 999) / 1_000
}

/// Two windows are apart if no difference of starts `b - a + k * gcd` is in
/// `(-length of b, length of a)`.
fn are_apart(a: &Window, b: &Window) -> bool {
    let step = common(i128::from(a.period_ns), i128::from(b.period_ns));
    if step == 0 {
        return false;
    }
    // The smallest difference above -length of b.
    let difference = i128::from(b.offset_ns) - i128::from(a.offset_ns);
    let above = -i128::from(b.length_ns) + mutate!(ApartOffByOne, 1, 2);
    let smallest = above + (difference - above).rem_euclid(step);
    smallest >= i128::from(a.length_ns)
}

/// The greatest common divisor, by subtraction of multiples.
pub(crate) fn common(a: i128, b: i128) -> i128 {
    if b == 0 { a } else { common(b, a % b) }
}

/// Whether a refutation is true: there is no schedule of the plant then.
#[must_use]
pub fn is_refuted(plant: &Plant, refutation: &Refutation) -> bool {
    holds(plant, refutation).unwrap_or(false)
}

/// What a stream needs of a link: (from, length), counted from its start.
fn need_of(plant: &Plant, stream: &Stream, link: usize) -> Option<(i128, i128)> {
    let (all, _) = needs(plant, stream, 0)?;
    all.iter().find(|need| need.link == link).map(|need| (need.from, need.length))
}

fn holds(plant: &Plant, refutation: &Refutation) -> Option<bool> {
    let period = |stream: &Stream| i128::from(stream.period_ns);
    Some(match *refutation {
        Refutation::DoesNotFit { stream } => {
            let stream = plant.streams.get(stream)?;
            let (all, arrival) = needs(plant, stream, i128::from(stream.release_ns))?;
            arrival > i128::from(stream.deadline_ns) || all.iter().any(|need| need.length > period(stream))
        }
        Refutation::Pair { link, a, b } => {
            let (one, other) = (plant.streams.get(a)?, plant.streams.get(b)?);
            let both = need_of(plant, one, link)?.1 + need_of(plant, other, link)?.1;
            a != b && both > common(period(one), period(other))
        }
        Refutation::Blocked { link, stream, blocked } => {
            let stream = plant.streams.get(stream)?;
            let blocked = plant.links.get(link)?.blocked.get(blocked)?;
            let both = need_of(plant, stream, link)?.1 + i128::from(blocked.length_ns);
            both > common(period(stream), i128::from(blocked.period_ns))
        }
        Refutation::Utilisation { link } => {
            // Shares in units of 2^-60, rounded down: their sum is never too large.
            let share = |length: i128, period: i128| (length << 60) / period.max(1);
            let streams = plant.streams.iter();
            let streams = streams.filter_map(|one| Some(share(need_of(plant, one, link)?.1, period(one))));
            let blocked = plant.links.get(link)?.blocked.iter();
            let blocked = blocked.map(|one| share(i128::from(one.length_ns), i128::from(one.period_ns)));
            streams.chain(blocked).sum::<i128>() > mutate!(UtilisationHalf, 1 << 60, 1 << 59)
        }
        Refutation::Overload { link, from_ns, to_ns } => {
            let (from, to) = (i128::from(from_ns), i128::from(to_ns));
            let demand = |stream: &Stream| {
                let (offset, length) = need_of(plant, stream, link)?;
                let (_, arrival) = needs(plant, stream, 0)?;
                let latest = i128::from(stream.release_ns) + period(stream) - 1;
                let slack = latest.min(i128::from(stream.deadline_ns) - arrival);
                // A window lies between the release and the latest start.
                let (first, end) = (i128::from(stream.release_ns) + offset, slack + offset + length);
                // Periods k with from <= first + k * period and end + k * period <= to.
                let least = -(first - from).div_euclid(period(stream));
                let most = (to - end).div_euclid(period(stream));
                Some((most - least + 1).max(0) * length)
            };
            plant.streams.iter().filter_map(demand).sum::<i128>() > to - from
        }
    })
}
