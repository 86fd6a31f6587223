//! Scenario `scale`: what exists and does nothing must cost what is active next to nothing.

use super::ours::Crowd;
use super::{Findings, ours};
use crate::harness::Bench;
use crate::harness::clock::ticks;
use crate::harness::cores::pin;
use crate::harness::fault::Fault;
use crate::harness::rounds::{Side, Table};
use crate::ours::plan::Seat;
use crate::report::row::{Figures, Ratio, Row};

/// Sources of one datapath, of which those of one stream, two, are active.
pub const SOURCES: usize = 4_096;
/// Sessions of one runtime, each with four streams that do nothing.
const SESSIONS: usize = 500;
/// Emits timed at a time; then the sinks are emptied.
const BATCH: u64 = 128;

/// One active stream among many and alone, through the datapath of one runtime that spins.
pub fn sides<'b>(bench: &'b Bench) -> Vec<Side<'b>> {
    let seat = Seat::alone(bench.cores.other);
    among_and_alone(bench, "among 4,096", seat, Crowd::of(SOURCES - 2))
}

/// The same where the datapath sleeps between the messages.
pub fn asleep<'b>(bench: &'b Bench) -> Vec<Side<'b>> {
    let seat = Seat { core: Some(bench.cores.other), ..Seat::ASLEEP };
    among_and_alone(bench, "among 4,096, asleep", seat, Crowd::of(SOURCES - 2))
}

/// The same among the streams of many sessions, by a datapath that spins.
pub fn sessions<'b>(bench: &'b Bench) -> Vec<Side<'b>> {
    let seat = Seat::alone(bench.cores.other);
    among_and_alone(bench, "among 500 sessions", seat, Crowd { streams: 4 * SESSIONS, a_session: 4 })
}

fn among_and_alone<'b>(bench: &'b Bench, name: &'static str, seat: Seat, crowd: Crowd) -> Vec<Side<'b>> {
    vec![
        Side::new(name, move || ours::hop_among(bench, seat, crowd)),
        Side::new("alone", move || ours::hop_among(bench, seat, Crowd::NOBODY)),
    ]
}

/// What one more local sink costs an emit, ns.
pub fn extra_sink(bench: &Bench, findings: &mut Findings) {
    let name = "scale/extra-sink";
    match measured(bench) {
        Ok((one, two, n)) => findings.add(row(name, two - one, one, n)),
        Err(fault) => findings.note(name, &fault),
    }
}

/// Nanoseconds of an emit to one sink and to two: the least of several rounds each, since
/// what disturbs only adds.
fn measured(bench: &Bench) -> Result<(f64, f64, u64), Fault> {
    let rounds = if bench.effort.smoke { 3 } else { 15 };
    let batches: u64 = if bench.effort.smoke { 50 } else { 500 };
    std::thread::scope(|scope| {
        let timed = scope.spawn(|| {
            let mut least = [f64::INFINITY; 2];
            for _ in 0..rounds {
                for (sinks, least) in (1..).zip(&mut least) {
                    let mut end = ours::fan_out(sinks)?;
                    pin(bench.cores.app)?;
                    let mut spent = 0;
                    for batch in 0..batches {
                        let start = ticks();
                        for number in 0..BATCH {
                            end.emit(batch * BATCH + number)?;
                        }
                        spent += ticks().wrapping_sub(start);
                        end.drain(BATCH)?;
                    }
                    *least = least.min(bench.rate.ns(spent) / (batches * BATCH) as f64);
                }
            }
            Ok((least[0], least[1], batches * BATCH * rounds))
        });
        timed.join().unwrap_or_else(|_| Err(Fault::Party("the emitting party panicked".into())))
    })
}

fn row(name: &str, value: f64, one: f64, n: u64) -> Table {
    let row = Row {
        name: name.to_owned(),
        unit: "ns/emit".to_owned(),
        ours: Figures::Value { value },
        baseline: Figures::Value { value: one },
        ratio: Ratio::Value { value: Some(value / one) },
        n,
        topology: "one thread, sinks emptied between".to_owned(),
        floor_before_us: None,
        floor_after_us: None,
    };
    Table { row, labels: ["a second sink adds".to_owned(), "one sink".to_owned()], curves: Vec::new() }
}
