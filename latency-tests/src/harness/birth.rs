//! From nothing to the first message: two parties open their ends of one
//! conversation after the other, and the reader times each.

use super::Bench;
use super::clock::ticks;
use super::converse::End;
use super::fault::Fault;
use super::sample::Sample;
use super::stage::{Party, Stage, perform};
use super::watch::Idle;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// After this time a conversation that has not begun has failed.
const BOUND: Duration = Duration::from_secs(20);

/// Which of the conversations that one pair of parties opens is timed.
#[derive(Clone, Copy, Debug)]
pub struct Birth {
    /// Conversations opened, one after the other, all kept open; the last is timed.
    pub conversations: u32,
    /// Pairs of parties, one after the other.
    pub repeats: u32,
}

/// Times from the start of the last conversation's set-up, on both sides at once, to
/// its first message in the reader's hands. Both parties yield, since a runtime's
/// control threads need a core meanwhile.
///
/// `open_parties` makes what stands before the clock starts (sockets, sessions) and
/// returns the two openers, writer first; they are called with the conversation's
/// number.
///
/// # Errors
/// A party could not be opened or failed.
pub fn births<A, B, W, R>(
    bench: &Bench,
    birth: Birth,
    mut open_parties: impl FnMut() -> Result<(W, R), Fault>,
) -> Result<Sample, Fault>
where
    A: End,
    B: End,
    W: FnMut(u32) -> Result<A, Fault> + Send,
    R: FnMut(u32) -> Result<B, Fault> + Send,
{
    let mut times = Vec::with_capacity(birth.repeats as usize);
    for _ in 0..birth.repeats {
        let (writer, reader) = open_parties()?;
        times.push(one(bench, birth.conversations, writer, reader)?);
    }
    Ok(Sample::from_ticks(&times, bench.rate))
}

fn one<A: End, B: End>(
    bench: &Bench,
    conversations: u32,
    mut open_writer: impl FnMut(u32) -> Result<A, Fault> + Send,
    mut open_reader: impl FnMut(u32) -> Result<B, Fault> + Send,
) -> Result<u64, Fault> {
    // The number of the conversation that both are at, from 1.
    let current = AtomicU32::new(0);
    let current = &current;
    let write = Party::new(bench.cores.app, move |stage: &Stage| {
        let mut watch = stage.watch("the reader", Idle::Yield, BOUND);
        let mut held = Vec::new();
        stage.meet()?;
        for number in 1..=conversations {
            // Acquire and Release order the parties; no data goes along.
            while current.load(Ordering::Acquire) < number {
                watch.idle()?;
            }
            let mut end = open_writer(number)?;
            while !end.send(u64::from(number))? {
                watch.idle()?;
            }
            held.push(end);
        }
        // What was opened stays open until the reader has what it waits for.
        while !stage.stopped() {
            std::thread::yield_now();
        }
        Ok(())
    });
    let read = move |stage: &Stage| {
        let mut watch = stage.watch("the writer", Idle::Yield, BOUND);
        let mut held = Vec::new();
        let mut time = 0;
        stage.meet()?;
        for number in 1..=conversations {
            let start = ticks();
            current.store(number, Ordering::Release);
            let mut end = open_reader(number)?;
            let found = loop {
                match end.receive()? {
                    Some(found) => break found,
                    None => watch.idle()?,
                }
            };
            time = ticks().wrapping_sub(start);
            if found != u64::from(number) {
                return Err(Fault::Corrupt { expected: u64::from(number), found });
            }
            held.push(end);
        }
        Ok(time)
    };
    perform(bench.cores.other, read, vec![write])
}
