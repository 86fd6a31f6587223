//! What certificates, flaws and refusals say, in words and names instead of places.

use crate::output::of;
use insane_admission::{Offer, Reason, Refusal};
use insane_certificate::{Boundary, Certificate, Class, Epsilon, Plant, Refutation, Step, Stream, Window};
use insane_checker::Flaw;
use insane_core::Nanos;
use insane_scheduler::lcm;
use std::fmt::Write as _;

/// The cycle of the streams, if it can be counted.
pub fn cycle_ns(plant: &Plant) -> Option<u64> {
    plant.streams.iter().try_fold(1, |cycle, stream| lcm(cycle, stream.period_ns))
}

fn stream(plant: &Plant, at: usize) -> String {
    plant.streams.get(at).map_or_else(|| format!("stream {at}"), |stream| format!("stream {:?}", stream.name))
}

fn link(plant: &Plant, at: usize) -> String {
    plant.links.get(at).map_or_else(|| format!("link {at}"), |link| format!("link {:?}", link.name))
}

/// Why there is no schedule, and what there would be.
pub fn refusal(plant: &Plant, refusal: &Refusal) -> String {
    let mut text = match &refusal.reason {
        Reason::Invalid(what) => format!("the plant means nothing: {what:?}"),
        Reason::Refuted(proof) => format!("there is no schedule: {}", refutation(plant, proof)),
        Reason::NotFound => "no schedule was found within the search budget; that proves nothing".to_owned(),
        Reason::Chain(at, bound) => {
            let chain = &plant.chains[*at];
            format!(
                "chain {:?} would take up to {} (at most {} is acceptable), its data would be up to {} old (at most {})",
                chain.name,
                Nanos(bound.reaction_ns),
                Nanos(chain.reaction_ns_max),
                Nanos(bound.age_ns),
                Nanos(chain.age_ns_max),
            )
        }
        Reason::Lane(at) => {
            let lane = &plant.lanes[*at];
            format!("a frame of lane {:?} may take longer than {}", lane.name, Nanos(lane.deadline_ns))
        }
    };
    if let Some(at) = refusal.stream {
        let _ = write!(text, "\n{} found no place", stream(plant, at));
    }
    let Offer { deadline_ns, bytes, period_ns } = refusal.offer;
    let offers: Vec<String> = [
        deadline_ns.map(|ns| format!("a deadline of {}", Nanos(ns))),
        bytes.map(|bytes| format!("messages of {bytes} bytes")),
        period_ns.map(|ns| format!("a period of {}", Nanos(ns))),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !offers.is_empty() {
        let _ = write!(text, "\nit would have one with {}", offers.join(", or with "));
    }
    text
}

fn refutation(plant: &Plant, proof: &Refutation) -> String {
    match *proof {
        Refutation::DoesNotFit { stream: at } => {
            format!("{} does not fit between its release and its deadline, or into its period", stream(plant, at))
        }
        Refutation::Pair { link: on, a, b } => format!(
            "on {} the windows of {} and {} are together longer than the greatest common divisor of their periods",
            link(plant, on),
            stream(plant, a),
            stream(plant, b),
        ),
        Refutation::Blocked { link: on, stream: at, blocked } => format!(
            "on {} the window of {} and the blocked window {blocked} are together longer than the greatest common divisor of their periods",
            link(plant, on),
            stream(plant, at),
        ),
        Refutation::Utilisation { link: on } => {
            format!("the windows on {} take more than all of its time", link(plant, on))
        }
        Refutation::Overload { link: on, from_ns, to_ns } => format!(
            "what {} must carry between {} and {} of the schedule takes longer than that",
            link(plant, on),
            Nanos(from_ns),
            Nanos(to_ns),
        ),
    }
}

/// What is wrong with a certificate.
pub fn flaw(plant: &Plant, flaw: &Flaw) -> String {
    match *flaw {
        Flaw::OtherPlant => "it is about another plant".into(),
        Flaw::Malformed => "a list has not one entry for each of the plant, or a number leads nowhere".into(),
        Flaw::BeforeRelease(at) => format!("the slot of {} is not in the period after its release", stream(plant, at)),
        Flaw::AfterDeadline(at) => format!("a message of {} may arrive after its deadline", stream(plant, at)),
        Flaw::WrongWindow(at) => format!("a window of {} is not what its slot needs", stream(plant, at)),
        Flaw::Overlap(a, b) => format!("windows of {} and {} overlap", stream(plant, a), stream(plant, b)),
        Flaw::Blocked(at) => format!("a window of {} overlaps one that is blocked", stream(plant, at)),
        Flaw::Chain(at) => {
            let name = plant.chains.get(at).map_or("", |chain| &chain.name);
            format!("chain {name:?} may take longer than is claimed, or than is acceptable")
        }
        Flaw::Lane(at) => {
            let name = plant.lanes.get(at).map_or("", |lane| &lane.name);
            format!("a frame of lane {name:?} may take longer than is claimed, or than is acceptable")
        }
    }
}

/// `12 streams on 4 links of 2 hosts, cycle 8.00 ms`.
pub fn summary(plant: &Plant) -> String {
    let cycle =
        cycle_ns(plant).map_or_else(|| "no cycle that can be counted".into(), |ns| format!("cycle {}", Nanos(ns)));
    format!(
        "{} on {} of {}, {}, {}, {cycle}",
        of(plant.streams.len(), "stream"),
        of(plant.links.len(), "link"),
        of(plant.hosts.len(), "host"),
        of(plant.chains.len(), "chain"),
        of(plant.lanes.len(), "lane"),
    )
}

/// Microseconds, to the nanosecond.
fn us(ns: u64) -> String {
    format!("{}.{:03} us", ns / 1_000, ns % 1_000)
}

/// Everything that a checked certificate says.
pub fn certificate(certificate: &Certificate) -> String {
    let plant = &certificate.plant;
    let mut text = format!("{}\n\nstreams (slots count from TAI zero):\n", summary(plant));
    for (stream, placed) in plant.streams.iter().zip(&certificate.placed) {
        let arrival = arrival_ns(plant, stream, placed.start_ns);
        let class = match stream.class {
            Class::Assured => "on the longest e_turn seen",
            Class::Statistical => "on a quantile of e_turn",
        };
        let _ =
            writeln!(text, "  {:?}: {} bytes every {}, {class}", stream.name, stream.bytes, Nanos(stream.period_ns));
        for (hop, window) in stream.path.iter().zip(&placed.windows) {
            let Window { offset_ns, length_ns, .. } = *window;
            let (name, end_ns) = (&plant.links[hop.link].name, offset_ns + length_ns);
            let _ = writeln!(text, "    {name}: from {} to {} ({})", us(offset_ns), us(end_ns), us(length_ns));
        }
        let spare = stream.deadline_ns.saturating_sub(arrival);
        let _ = writeln!(text, "    arrives by {}, {} before its deadline", us(arrival), us(spare));
    }
    for (chain, bound) in plant.chains.iter().zip(&certificate.chains) {
        let steps: Vec<String> = chain.steps.iter().map(|one| step(plant, one)).collect();
        let _ = writeln!(text, "\nchain {:?}: {}", chain.name, steps.join(" > "));
        let (reaction, age) = (Nanos(bound.reaction_ns), Nanos(bound.age_ns));
        let (reaction_max, age_max) = (Nanos(chain.reaction_ns_max), Nanos(chain.age_ns_max));
        let _ = writeln!(
            text,
            "  reaction within {reaction} (acceptable: {reaction_max}), data at most {age} old ({age_max})"
        );
    }
    for (lane, response) in plant.lanes.iter().zip(&certificate.lanes) {
        let (name, on) = (&lane.name, &plant.links[lane.link].name);
        let (response, deadline) = (Nanos(*response), Nanos(lane.deadline_ns));
        let _ = writeln!(text, "\nlane {name:?} on {on}: a frame has left within {response} (acceptable: {deadline})");
    }
    text.push_str("\nthis rests on:\n");
    for host in &plant.hosts {
        let _ = writeln!(text, "  host {:?}: its clock is at most {} off", host.name, Nanos(host.clock_error_ns));
        let _ = writeln!(text, "    a turn takes at most {}", epsilon(&host.turn));
        let _ = writeln!(text, "    a wake-up takes at most {}", epsilon(&host.wake));
    }
    for link in &plant.links {
        let mbps = 8_000_000 / u64::from(link.ps_per_byte.max(1));
        let end = match link.boundary {
            Boundary::Wire => "the wire",
            Boundary::NicQueue => "the queue of the network card",
            Boundary::KernelSocket => "the kernel's socket",
        };
        let _ = writeln!(text, "  link {:?}: {mbps} Mbit/s; the guarantee ends at {end}", link.name);
        let foreign = match link.foreign_bytes {
            0 => "exclusive: nobody else puts anything before ours".to_owned(),
            bytes => format!("not exclusive: others put at most {bytes} bytes before ours"),
        };
        let _ = writeln!(text, "    {foreign}; at most {} bytes of lanes are below", link.in_flight_bytes);
        if !link.blocked.is_empty() {
            let _ = writeln!(text, "    {} windows are blocked", link.blocked.len());
        }
    }
    let _ = writeln!(text, "  every stream has one message of its size a period, ready by its release");
    text
}

fn epsilon(epsilon: &Epsilon) -> String {
    let percent = f64::from(epsilon.quantile_ppm) / 10_000.0;
    let (quantile, max) = (Nanos(epsilon.quantile_ns), Nanos(epsilon.max_ns));
    match epsilon.samples {
        0 => format!("{max} (configured, not measured)"),
        samples => format!("{quantile} in {percent} %, {max} in all of {samples} samples"),
    }
}

fn step(plant: &Plant, step: &Step) -> String {
    match *step {
        Step::Task { host, period_ns, .. } => {
            format!("task on {:?} every {}", plant.hosts[host].name, Nanos(period_ns))
        }
        Step::Stream(at) => stream(plant, at),
    }
}

/// When a message has arrived at the latest, from the start of its period: after the worst
/// e_turn, foreign bytes on each link, the delays, and the clock error.
fn arrival_ns(plant: &Plant, stream: &Stream, start_ns: u64) -> u64 {
    let host = stream.path.first().and_then(|hop| plant.links.get(hop.link)?.host).and_then(|at| plant.hosts.get(at));
    let Some(host) = host else { return start_ns };
    let turn = if stream.class == Class::Assured { host.turn.max_ns } else { host.turn.quantile_ns };
    let start = u128::from(start_ns) + u128::from(turn) + u128::from(host.clock_error_ns);
    let arrival = stream.path.iter().fold(start, |at, hop| {
        let link = &plant.links[hop.link];
        let bytes = u128::from(stream.bytes) + u128::from(link.foreign_bytes);
        at + (bytes * u128::from(link.ps_per_byte)).div_ceil(1_000) + u128::from(hop.delay_ns)
    });
    u64::try_from(arrival).unwrap_or(u64::MAX)
}
