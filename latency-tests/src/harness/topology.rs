//! Who runs where.
//!
//! | topology | cpu0 | cpu1 |
//! |---|---|---|
//! | T1 | asking end, busy | answering end, busy |
//! | T2 | both ends, yielding to each other | the relay or runtime, busy |
//! | T3 | one thread with both ends, busy | the relay or runtime, busy |
//! | T4 | asking end and its relay or runtime, yielding | answering end and its own, yielding |
//!
//! Ends are opened by their own threads, after pinning: some libraries give out
//! ends that cannot leave their thread, and memory is touched where it is used.

use super::Bench;
use super::converse::{End, Pace, Relay, answer, ask, relay};
use super::fault::Fault;
use super::flow::{FlowPace, circulate, drain, pour};
use super::sample::Sample;
use super::stage::{Party, Stage, perform};
use super::watch::Idle;

/// A relay as a party of T2 or T3. A runtime in another process, or with threads
/// of its own, needs none.
pub fn relay_party<'a, R: Relay + Send + 'a>(bench: &Bench, pace: &Pace, mut hub: R) -> Party<'a> {
    let pace = *pace;
    Party::new(bench.cores.other, move |stage| {
        stage.meet()?;
        relay(&mut hub, &pace, Idle::Spin, stage)
    })
}

/// A relay that shares the core of the end that it serves, and yields to it.
pub fn yielding_relay<'a, R: Relay + Send + 'a>(core: usize, pace: &Pace, mut hub: R) -> Party<'a> {
    let pace = *pace;
    Party::new(core, move |stage| {
        stage.meet()?;
        relay(&mut hub, &pace, Idle::Yield, stage)
    })
}

/// Round trips between two cores, each of an end and of the relay that serves it. The pace has
/// to yield.
///
/// # Errors
/// An end failed.
pub fn relayed_on_both<A: End + Send, B: End + Send, R: Relay + Send>(
    bench: &Bench,
    pace: &Pace,
    (asking, at_asking): (A, R),
    (answering, at_answering): (B, R),
) -> Result<Sample, Fault> {
    let partner = Party::new(bench.cores.other, |stage| hold_answering(move || Ok(answering), pace, stage));
    let relays = [(bench.cores.app, at_asking), (bench.cores.other, at_answering)];
    let mut others = vec![partner];
    others.extend(relays.map(|(core, hub)| yielding_relay(core, pace, hub)));
    ask_beside(bench, pace, move || Ok(asking), others)
}

/// T1: round trips between two cores.
///
/// # Errors
/// An end could not be opened or failed.
pub fn t1<A: End, B: End>(
    bench: &Bench,
    pace: &Pace,
    open_asking: impl FnOnce() -> Result<A, Fault> + Send,
    open_answering: impl FnOnce() -> Result<B, Fault> + Send,
) -> Result<Sample, Fault> {
    let partner = Party::new(bench.cores.other, |stage| hold_answering(open_answering, pace, stage));
    ask_beside(bench, pace, open_asking, vec![partner])
}

/// T2: round trips between two ends on one core through a relay on the other.
/// The pace has to yield.
///
/// # Errors
/// An end could not be opened or failed.
pub fn t2<A: End, B: End>(
    bench: &Bench,
    pace: &Pace,
    open_asking: impl FnOnce() -> Result<A, Fault> + Send,
    open_answering: impl FnOnce() -> Result<B, Fault> + Send,
    hub: Option<Party<'_>>,
) -> Result<Sample, Fault> {
    let partner = Party::new(bench.cores.app, |stage| hold_answering(open_answering, pace, stage));
    let mut others = vec![partner];
    others.extend(hub);
    ask_beside(bench, pace, open_asking, others)
}

/// T3: both ends in one thread ([`BothEnds`](super::converse::BothEnds)), a relay on
/// the other core; without a relay, an end that hears itself.
///
/// # Errors
/// The end could not be opened or failed.
pub fn t3<A: End>(
    bench: &Bench,
    pace: &Pace,
    open: impl FnOnce() -> Result<A, Fault> + Send,
    hub: Option<Party<'_>>,
) -> Result<Sample, Fault> {
    ask_beside(bench, pace, open, hub.into_iter().collect())
}

fn ask_beside<A: End>(
    bench: &Bench,
    pace: &Pace,
    open: impl FnOnce() -> Result<A, Fault> + Send,
    others: Vec<Party<'_>>,
) -> Result<Sample, Fault> {
    let lead = |stage: &Stage| {
        let mut end = open()?;
        stage.meet()?;
        ask(&mut end, pace, stage)
    };
    Ok(Sample::from_ticks(&perform(bench.cores.app, lead, others)?, bench.rate))
}

fn hold_answering<B: End>(open: impl FnOnce() -> Result<B, Fault>, pace: &Pace, stage: &Stage) -> Result<(), Fault> {
    let mut end = open()?;
    stage.meet()?;
    answer(&mut end, pace, stage)
}

/// T3, one way: both ends in one thread on cpu0; what is between them has cpu1.
///
/// # Errors
/// An end failed.
pub fn flow_t3<P: End + Send, T: End + Send>(
    bench: &Bench,
    pace: &FlowPace,
    (mut put, mut take): (P, T),
) -> Result<Sample, Fault> {
    let lead = |stage: &Stage| {
        stage.meet()?;
        circulate((&mut put, &mut take), pace, bench.rate, stage)
    };
    let reached = perform(bench.cores.app, lead, Vec::new())?;
    Ok(Sample::Value { value: reached.per_second, n: reached.messages })
}

/// T1, one way: messages a second from cpu0 to cpu1.
///
/// # Errors
/// An end could not be opened or failed.
pub fn flow<A: End, B: End>(
    bench: &Bench,
    pace: &FlowPace,
    open_sending: impl FnOnce() -> Result<A, Fault> + Send,
    open_receiving: impl FnOnce() -> Result<B, Fault> + Send,
) -> Result<Sample, Fault> {
    let sender = Party::new(bench.cores.app, |stage| {
        let mut end = open_sending()?;
        stage.meet()?;
        pour(&mut end, pace, stage)
    });
    let lead = |stage: &Stage| {
        let mut end = open_receiving()?;
        stage.meet()?;
        drain(&mut end, pace, bench.rate, stage)
    };
    let reached = perform(bench.cores.other, lead, vec![sender])?;
    Ok(Sample::Value { value: reached.per_second, n: reached.messages })
}
