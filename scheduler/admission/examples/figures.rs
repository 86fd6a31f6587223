//! What admission takes and reaches: `cargo run --release -p insane-admission --example figures`.
//!
//! Four hosts, each with a link of 1 Gbit/s to a switch, and a port of the switch to each;
//! 1,000 streams from host to host. Then one link that is filled with random streams until
//! the first refusal, beside the limit of one, for harmonic periods and others.

use insane_admission::{Budget, Plan, synthesise};
use insane_certificate::{Boundary, Class, Epsilon, Hop, Host, Link, Plant, Stream};
use std::time::Instant;

fn plant(hosts: usize) -> Plant {
    let epsilon = || Epsilon { quantile_ppm: 999_000, quantile_ns: 500, max_ns: 2_000, samples: 100_000 };
    let host = |at| Host { name: format!("host {at}"), clock_error_ns: 500, wake: epsilon(), turn: epsilon() };
    let link = |at: usize| Link {
        name: format!("link {at}"),
        host: (at < hosts).then_some(at),
        ps_per_byte: 8_000,
        foreign_bytes: 0,
        in_flight_bytes: 16_384,
        frame_bytes_max: 1_538,
        boundary: Boundary::Wire,
        blocked: vec![],
    };
    Plant {
        hosts: (0..hosts).map(host).collect(),
        links: (0..2 * hosts).map(link).collect(),
        streams: vec![],
        chains: vec![],
        lanes: vec![],
    }
}

fn stream(random: &mut u64, hosts: usize, periods: &[u64]) -> Stream {
    let mut next = |below: u64| {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*random >> 33) % below
    };
    let period_ns = periods[next(periods.len() as u64) as usize];
    let (from, to) = (next(hosts as u64) as usize, hosts + next(hosts as u64) as usize);
    Stream {
        name: "stream".into(),
        class: Class::Statistical,
        period_ns,
        bytes: 84 + next(200) as u32,
        release_ns: 0,
        deadline_ns: period_ns,
        path: vec![Hop { link: from, delay_ns: 1_000 }, Hop { link: to, delay_ns: 500 }],
    }
}

fn used(plan: &Plan, link: usize) -> f64 {
    let certificate = plan.certificate();
    let windows = plan.plant().streams.iter().zip(&certificate.placed);
    let on = windows.filter_map(|(stream, placed)| {
        let hop = stream.path.iter().position(|hop| hop.link == link)?;
        Some(placed.windows[hop].length_ns as f64 / stream.period_ns as f64)
    });
    on.sum()
}

fn main() {
    let mut random = 1;
    let harmonic = [8_000_000, 16_000_000, 32_000_000, 64_000_000];
    let mut whole = plant(4);
    whole.streams = (0..1_000).map(|_| stream(&mut random, 4, &harmonic)).collect();
    let start = Instant::now();
    let plan = synthesise(&whole, Budget::default());
    println!("1,000 streams: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    match plan {
        Ok(mut plan) => {
            let one = stream(&mut random, 4, &harmonic);
            let start = Instant::now();
            let admitted = plan.admit(one, Budget::default());
            println!("one more: {:.3} ms, {}", start.elapsed().as_secs_f64() * 1e3, admitted.is_ok());
        }
        Err(refusal) => println!("refused: {refusal}"),
    }
    for (name, periods) in [
        ("harmonic", vec![1_000_000, 2_000_000, 4_000_000, 8_000_000]),
        ("not harmonic", vec![1_000_000, 1_500_000, 2_500_000, 4_000_000]),
    ] {
        let Ok(mut plan) = synthesise(&plant(1), Budget::default()) else { continue };
        let (mut count, mut refused) = (0, 0);
        // One refusal may be of a large one: twenty in a row end it.
        while refused < 20 {
            let mut one = stream(&mut random, 1, &periods);
            one.path.truncate(1);
            match plan.admit(one, Budget::default()) {
                Ok(_) => (count, refused) = (count + 1, 0),
                Err(_) => refused += 1,
            }
        }
        println!("{name}: {count} streams, {:.1} % of the link reserved", used(&plan, 0) * 100.0);
    }
}
