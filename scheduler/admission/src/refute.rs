//! Proofs that no schedule exists. Each is necessary for any schedule, whatever the
//! search does, and is checked by `insane-checker` on its own.

use crate::shape::Shape;
use alloc::vec::Vec;
use insane_certificate::{Plant, Refutation};
use insane_mutation::mutate;
use insane_scheduler::{Recurrence, WHOLE_SHARE, gcd};

/// Sums of an interval that are formed in search of an overload, at most.
const SUMS_MAX: u32 = 1 << 21;

/// A proof, if one is found.
pub(crate) fn refute(plant: &Plant, shapes: &[Shape]) -> Option<Refutation> {
    if let Some(stream) = shapes.iter().position(|shape| !shape.fits_alone()) {
        return Some(Refutation::DoesNotFit { stream });
    }
    let links = 0..plant.links.len();
    let first = |find: fn(&Plant, usize, &[OnLink]) -> Option<Refutation>| {
        links.clone().find_map(|link| find(plant, link, &on_link(shapes, link)))
    };
    first(blocked).or_else(|| first(pair)).or_else(|| first(utilisation)).or_else(|| first(overload))
}

/// A stream's window on one link.
struct OnLink {
    stream: usize,
    period_ns: u64,
    length_ns: u64,
    /// The window lies between these, relative to the period's start.
    first_ns: i128,
    end_ns: i128,
}

fn on_link(shapes: &[Shape], link: usize) -> Vec<OnLink> {
    let each = |(stream, shape): (usize, &Shape)| {
        let part = shape.parts.iter().find(|part| part.link == link)?;
        Some(OnLink {
            stream,
            period_ns: shape.period_ns,
            length_ns: part.length_ns,
            first_ns: i128::from(shape.release_ns) + part.offset_ns,
            end_ns: shape.latest_ns + part.offset_ns + i128::from(part.length_ns),
        })
    };
    shapes.iter().enumerate().filter_map(each).collect()
}

fn blocked(plant: &Plant, link: usize, on_link: &[OnLink]) -> Option<Refutation> {
    on_link.iter().find_map(|one| {
        let windows = plant.links[link].blocked.iter();
        let at = windows.clone().position(|blocked| {
            u128::from(one.length_ns) + u128::from(blocked.length_ns)
                > u128::from(gcd(one.period_ns, blocked.period_ns))
        })?;
        Some(Refutation::Blocked { link, stream: one.stream, blocked: at })
    })
}

/// Only the longest of each period is compared: O(streams log streams + periods squared).
fn pair(_plant: &Plant, link: usize, on_link: &[OnLink]) -> Option<Refutation> {
    let mut longest: Vec<&OnLink> = on_link.iter().collect();
    longest.sort_by_key(|one| (one.period_ns, core::cmp::Reverse(one.length_ns)));
    let collides = |a: &OnLink, b: &OnLink| {
        let both = u128::from(a.length_ns) + u128::from(b.length_ns);
        both + u128::from(mutate!(PairAtGcd, false, true)) > u128::from(gcd(a.period_ns, b.period_ns))
    };
    let found = |a: &OnLink, b: &OnLink| Refutation::Pair { link, a: a.stream, b: b.stream };
    if let Some(two) =
        longest.chunk_by(|a, b| a.period_ns == b.period_ns).find(|of| of.len() > 1 && collides(of[0], of[1]))
    {
        return Some(found(two[0], two[1]));
    }
    longest.dedup_by_key(|one| one.period_ns);
    longest.iter().enumerate().find_map(|(at, a)| longest[..at].iter().find(|b| collides(a, b)).map(|b| found(a, b)))
}

fn utilisation(plant: &Plant, link: usize, on_link: &[OnLink]) -> Option<Refutation> {
    let share = |period: u64, length: u64| Recurrence::new(period, 0, length).map_or(0, Recurrence::share);
    let streams = on_link.iter().map(|one| share(one.period_ns, one.length_ns));
    let blocked = plant.links[link].blocked.iter().map(|one| share(one.period_ns, one.length_ns));
    // The checker's shares are coarser by 16: what is above by less it would not believe.
    let margin = (on_link.len() + plant.links[link].blocked.len()) as u128 * 16;
    (streams.chain(blocked).sum::<u128>() > WHOLE_SHARE + margin).then_some(Refutation::Utilisation { link })
}

/// An interval from one release to one deadline within which more must be sent than fits.
fn overload(_plant: &Plant, link: usize, on_link: &[OnLink]) -> Option<Refutation> {
    let mut left = SUMS_MAX / (on_link.len() as u32).max(1);
    for from in on_link.iter().map(|one| one.first_ns).filter(|&from| from >= 0) {
        for one in on_link {
            // The first deadline after `from`, and the next two.
            let period = i128::from(one.period_ns);
            let soonest = one.end_ns + (from - one.end_ns).div_euclid(period) * period + period;
            for to in (0..3).map(|k| soonest + k * period) {
                left = left.checked_sub(1)?;
                if demand(on_link, from, to) > to - from {
                    return Some(Refutation::Overload {
                        link,
                        from_ns: u64::try_from(from).ok()?,
                        to_ns: u64::try_from(to).ok()?,
                    });
                }
            }
        }
    }
    None
}

fn demand(on_link: &[OnLink], from: i128, to: i128) -> i128 {
    let each = |one: &OnLink| {
        let period = i128::from(one.period_ns);
        let most = (to - one.end_ns).div_euclid(period);
        let before = (from - one.first_ns - 1).div_euclid(period);
        (most - before + mutate!(OverloadCountsOneMore, 0, 1)).max(0) * i128::from(one.length_ns)
    };
    on_link.iter().map(each).sum()
}
