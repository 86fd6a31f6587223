//! Counts to twenty, once a millisecond.
use insane_rt::{Nanos, Session, Spin};
use std::ops::ControlFlow;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let session = Session::embedded("counter")?;
    let mut task = session
        .cyclic(Nanos::from_millis(1), Nanos::ZERO)
        .tai()
        .deadline(Nanos::from_micros(500))
        .spin(Spin::Learnt(Nanos::from_micros(200)))
        .fifo(50)
        .on_deadline(|miss| eprintln!("cycle {} was not done in time", miss.cycle))
        .start()?;
    task.misplaced().iter().for_each(|what| eprintln!("the task {what}"));

    let mut count = 0;
    task.run(|_activation| {
        count += 1;
        if count < 20 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    let statistics = task.statistics();
    let latest = statistics.wake.max().map_or("not measured".to_owned(), |late| format!("{late} late"));
    println!("{} cycles, {} left out; latest wake-up: {latest}", statistics.cycles, statistics.skipped);
    Ok(())
}
