//! One side's messages on one thread, for tools that count: callgrind collects
//! inside [`counted_messages`] alone, strace looks between the two marks.

use crate::harness::converse::End;
use crate::harness::fault::Fault;
use crate::harness::watch::{Idle, Watch};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// The part of the function's name by which callgrind finds it.
pub const COUNTED_FUNCTION: &str = "*counted_messages*";
/// A path that does not exist; asking for it shows in a trace where counting begins.
pub const BEGIN_MARK: &str = "/latency-tests-counting-begins";
/// The same for where it ends.
pub const END_MARK: &str = "/latency-tests-counting-ends";
/// Messages before counting: enough to use every buffer and place once.
const WARM_UP: u64 = 2_000;
/// The part of the names of the functions inside which callgrind stops: they wait.
pub const WAIT_FUNCTIONS: &str = "*uncounted_*";
/// How long a message over a device takes at most, nearly always.
const PAUSE: Duration = Duration::from_millis(2);
/// Looks for a message before it is sent once more, and in all.
const LOOKS_EACH: u32 = 500;
const LOOKS: u32 = 20 * LOOKS_EACH;
/// Counting tools slow everything down fifty times; what is counted takes some seconds then.
const BOUND: Duration = Duration::from_secs(20);

/// Sends `messages` messages from an end to itself, one after the other.
///
/// # Errors
/// The end failed or a message did not come.
pub fn run<E: End>(end: &mut E, messages: u64) -> Result<(), Fault> {
    counted_nowhere(end, WARM_UP)?;
    mark(BEGIN_MARK);
    let result = counted_messages(end, WARM_UP, messages);
    mark(END_MARK);
    result
}

/// As [`run`], over a device that takes its time: who sent waits until the message is there, so
/// that looks in vain, which depend on the machine, are not counted. A message that is lost, as
/// one of an unreliable stream may be on a machine that stalls, is sent once more.
///
/// # Errors
/// As [`run`].
pub fn run_unhurried<E: End>(end: &mut E, messages: u64) -> Result<(), Fault> {
    let warm_up = WARM_UP.min(messages);
    for number in 0..warm_up {
        uncounted_exchange(end, number)?;
    }
    counted_messages_of_a_device(end, warm_up, messages)
}

#[inline(never)]
fn counted_messages_of_a_device<E: End>(end: &mut E, first: u64, messages: u64) -> Result<(), Fault> {
    for number in first..first + messages {
        let is_sent = end.send(number)?;
        uncounted_pause();
        if is_sent {
            match end.receive()? {
                Some(found) if found == number => continue,
                Some(found) if found > number => return Err(Fault::Corrupt { expected: number, found }),
                _ => {}
            }
        }
        uncounted_exchange(end, number)?;
    }
    Ok(())
}

#[inline(never)]
fn uncounted_pause() {
    std::thread::sleep(PAUSE);
}

/// Until the message is there; sent once more where it does not come.
#[inline(never)]
fn uncounted_exchange<E: End>(end: &mut E, number: u64) -> Result<(), Fault> {
    for look in 0..LOOKS {
        match end.receive()? {
            Some(found) if found == number => return Ok(()),
            // What was sent twice came twice.
            Some(found) if found < number => continue,
            Some(found) => return Err(Fault::Corrupt { expected: number, found }),
            None => {}
        }
        if look % LOOKS_EACH == LOOKS_EACH - 1 || look == 0 {
            // No room is looked for again later.
            let _ = end.send(number)?;
        }
        std::thread::sleep(PAUSE);
    }
    Err(Fault::Party("a message does not come, however often it is sent".into()))
}

fn mark(path: &str) {
    // It fails, and only the attempt matters.
    let _ = std::fs::read_link(path);
}

/// The warm-up has a function of its own, so that it is not collected.
#[inline(never)]
fn counted_nowhere<E: End>(end: &mut E, messages: u64) -> Result<(), Fault> {
    send_and_receive(end, 0, messages)
}

#[inline(never)]
fn counted_messages<E: End>(end: &mut E, first: u64, messages: u64) -> Result<(), Fault> {
    send_and_receive(end, first, messages)
}

#[inline(always)]
fn send_and_receive<E: End>(end: &mut E, first: u64, messages: u64) -> Result<(), Fault> {
    let stop = AtomicBool::new(false);
    let mut watch = Watch::new("the other end of the same thread", Idle::Spin, BOUND, &stop);
    for number in first..first + messages {
        if !end.send(number)? {
            send_again(end, number, &mut watch)?;
        }
        let found = match end.receive()? {
            Some(found) => found,
            None => receive_again(end, &mut watch)?,
        };
        if found != number {
            return Err(Fault::Corrupt { expected: number, found });
        }
    }
    Ok(())
}

/// Apart, so that the compiler prepares nothing for a second try in the path that is counted:
/// on one thread there always is room, and the message is there.
#[cold]
#[inline(never)]
fn send_again<E: End>(end: &mut E, number: u64, watch: &mut Watch<'_>) -> Result<(), Fault> {
    loop {
        watch.idle()?;
        if end.send(number)? {
            return Ok(());
        }
    }
}

/// As [`send_again`].
#[cold]
#[inline(never)]
fn receive_again<E: End>(end: &mut E, watch: &mut Watch<'_>) -> Result<u64, Fault> {
    loop {
        watch.idle()?;
        if let Some(found) = end.receive()? {
            return Ok(found);
        }
    }
}

/// Two ends as one: what the first sends, the second receives.
pub struct OneWay<E> {
    pub put: E,
    pub take: E,
}

impl<E: End> End for OneWay<E> {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        self.put.send(number)
    }

    #[inline(always)]
    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        self.take.receive()
    }
}

/// An end that looks in vain before each message, as one does that waits for it.
pub struct Waiting<E>(pub E);

impl<E: End> End for Waiting<E> {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        match self.0.receive()? {
            None => self.0.send(number),
            Some(found) => Err(Fault::Corrupt { expected: number, found }),
        }
    }

    #[inline(always)]
    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        self.0.receive()
    }
}
