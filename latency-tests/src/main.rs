//! Latency and throughput of the runtime, each beside its raw baseline.
#![forbid(unsafe_code)]

mod baseline;
mod harness;
mod report;
mod scenario;

fn main() {
    let smoke = std::env::args().any(|a| a == "--smoke");
    let bench = harness::Bench::new(harness::Effort { rounds: 7, smoke }).unwrap();
    let mut findings = scenario::Findings::default();
    scenario::selftest::run(&bench, &mut findings);
    println!("dropped {} failed {:?} not {:?}", findings.dropped, findings.failed, findings.not_measured);
}
