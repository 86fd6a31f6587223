//! Small plants, and the truth about them by trying everything.
#![allow(dead_code, reason = "each test uses its part")]

use insane_certificate::{Boundary, Class, Epsilon, Hop, Host, Link, Plant, Stream, Window};

pub fn epsilon(quantile_ns: u64, max_ns: u64) -> Epsilon {
    Epsilon { quantile_ppm: 999_000, quantile_ns, max_ns, samples: 100_000 }
}

pub fn host(clock_error_ns: u64, turn: (u64, u64)) -> Host {
    Host { name: "h".into(), clock_error_ns, wake: epsilon(0, 0), turn: epsilon(turn.0, turn.1) }
}

/// A byte takes a nanosecond.
pub fn link(host: Option<usize>) -> Link {
    Link {
        name: "l".into(),
        host,
        ps_per_byte: 1_000,
        foreign_bytes: 0,
        in_flight_bytes: 0,
        frame_bytes_max: 1_538,
        boundary: Boundary::Wire,
        blocked: vec![],
    }
}

pub fn stream(period_ns: u64, bytes: u32, release_ns: u64, deadline_ns: u64, links: &[usize]) -> Stream {
    let path = links.iter().map(|&link| Hop { link, delay_ns: 0 }).collect();
    Stream { name: "s".into(), class: Class::Assured, period_ns, bytes, release_ns, deadline_ns, path }
}

pub fn plant(hosts: Vec<Host>, links: Vec<Link>, streams: Vec<Stream>) -> Plant {
    Plant { hosts, links, streams, chains: vec![], lanes: vec![] }
}

/// One occurrence of a stream's window on a link: first and last bit at `start`.
/// The physics again: the earliest first bit, the latest last bit, clock error on links
/// that are not the first.
fn occupied(plant: &Plant, stream: &Stream, start: i64) -> (Vec<(usize, i64, i64)>, i64) {
    let host = &plant.hosts[plant.links[stream.path[0].link].host.unwrap()];
    let turn = if stream.class == Class::Assured { host.turn.max_ns } else { host.turn.quantile_ns } as i64;
    let error = host.clock_error_ns as i64;
    let (mut early, mut late) = (start, start + turn);
    let mut all = Vec::new();
    for (number, hop) in stream.path.iter().enumerate() {
        let link = &plant.links[hop.link];
        let ns = |bytes: u32| (i64::from(bytes) * i64::from(link.ps_per_byte) + 999) / 1_000;
        late += ns(stream.bytes + link.foreign_bytes);
        let widen = if number > 0 { error } else { 0 };
        all.push((hop.link, early - widen, late + widen));
        early += ns(stream.bytes) + hop.delay_ns as i64;
        late += hop.delay_ns as i64;
    }
    (all, late + error)
}

/// Whether starts are a schedule, by writing every nanosecond of the hyperperiod down.
pub fn is_schedule(plant: &Plant, starts: &[u64]) -> bool {
    let periods = plant.streams.iter().map(|stream| stream.period_ns);
    let blocked = plant.links.iter().flat_map(|link| link.blocked.iter().map(|window| window.period_ns));
    let cycle = periods.chain(blocked).fold(1, |cycle, period| {
        (1..).map(|k| cycle * k).find(|multiple: &u64| multiple.is_multiple_of(period)).unwrap()
    });
    let mut taken = vec![vec![false; cycle as usize]; plant.links.len()];
    let mut take = |link: usize, from: i64, to: i64, period: u64| {
        (0..cycle / period).all(|k| {
            let shift = (k * period) as i64;
            (from + shift..to + shift).all(|at| {
                let cell = &mut taken[link][at.rem_euclid(cycle as i64) as usize];
                !std::mem::replace(cell, true)
            })
        })
    };
    for (number, link) in plant.links.iter().enumerate() {
        for Window { offset_ns, length_ns, period_ns } in link.blocked.iter().cloned() {
            take(number, offset_ns as i64, (offset_ns + length_ns) as i64, period_ns);
        }
    }
    plant.streams.iter().zip(starts).all(|(stream, &start)| {
        let (windows, arrival) = occupied(plant, stream, start as i64);
        start >= stream.release_ns
            && arrival <= stream.deadline_ns as i64
            && windows.into_iter().all(|(link, from, to)| take(link, from, to, stream.period_ns))
    })
}

/// Whether any starts are a schedule.
pub fn has_schedule(plant: &Plant) -> bool {
    fn extend(plant: &Plant, starts: &mut Vec<u64>) -> bool {
        let part = Plant { streams: plant.streams[..starts.len()].to_vec(), ..plant.clone() };
        if !is_schedule(&part, starts) {
            return false;
        }
        let Some(next) = plant.streams.get(starts.len()) else { return true };
        (next.release_ns..next.release_ns + next.period_ns).any(|start| {
            starts.push(start);
            let found = extend(plant, starts);
            starts.pop();
            found
        })
    }
    extend(plant, &mut Vec::new())
}
