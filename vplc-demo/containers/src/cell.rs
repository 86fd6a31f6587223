//! The parts of the check. A plant numbers its samples and wants each answered, once and in
//! order; a controller answers. A camera sends as much as goes through, and a recorder counts.
//!
//! Parts end when their standard input does, and say in lines what they count.

use insane_core::Nanos;
use insane_rt::{ChannelId, Determinism, Priority, Qos, Reliability, Session, SinkOptions, SourceOptions, Stream};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Length of a cycle.
const PERIOD: Nanos = Nanos::from_millis(5);
/// Messages that a ring holds: more than a second of cycles, so that a machine that stands
/// still for a while loses none.
const DEPTH: u32 = 256;
/// From plant to controller.
const SAMPLES: ChannelId = ChannelId(1);
/// From controller to plant.
const ANSWERS: ChannelId = ChannelId(2);
/// Of the camera.
const PICTURES: ChannelId = ChannelId(1);
const PICTURE_BYTES: usize = 100_000;
/// Between two reports.
const REPORT_EVERY: Duration = Duration::from_millis(20);
/// How long a part tries to reach its runtime.
const ATTACH: Duration = Duration::from_secs(10);

/// A part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Part {
    /// Answers samples.
    Controller,
    /// Numbers samples.
    Plant,
    /// Sends pictures.
    Camera,
    /// Counts pictures.
    Recorder,
}

/// What a part needs to know.
#[derive(Clone, Debug, clap::Args)]
pub struct Setup {
    /// What it does.
    pub part: Part,
    /// The control socket.
    #[arg(long)]
    pub socket: PathBuf,
    /// Core of a cyclic part.
    #[arg(long, default_value_t = 0)]
    pub core: usize,
    /// `SCHED_FIFO` priority of a cyclic part.
    #[arg(long, default_value_t = 50)]
    pub fifo: u8,
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Plays the part until standard input ends.
///
/// # Errors
/// What the runtime refuses.
pub fn play(setup: &Setup) -> Outcome {
    // Read before any thread is pinned: a pinned thread sees only its own core.
    let _ = insane_sys::thread::cores();
    let stop = AtomicBool::new(false);
    let session = attach(&setup.socket)?;
    std::thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            stop.store(true, Ordering::Relaxed);
        });
        match setup.part {
            Part::Controller => controller(&session, setup, stop),
            Part::Plant => plant(&session, setup, stop),
            Part::Camera => camera(&session, stop),
            Part::Recorder => recorder(&session, stop),
        }
    })
}

/// The runtime may still be starting, and a session that was killed may not be forgotten yet.
fn attach(socket: &Path) -> Result<Session, insane_rt::SessionError> {
    let give_up = Instant::now() + ATTACH;
    loop {
        match Session::attach(socket, "cell") {
            Err(_) if Instant::now() < give_up => std::thread::sleep(Duration::from_millis(20)),
            other => return other,
        }
    }
}

fn cycle_stream(session: &Session) -> Result<Stream, insane_rt::RequestError> {
    let qos = Qos { determinism: Determinism::periodic(PERIOD, 8), priority: Priority::MAX, ..Qos::default() };
    session.stream("cycle", qos)
}

fn say(line: &str) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}

/// Says how a cyclic part came to its place.
fn say_place(task: &insane_rt::CyclicTask) -> std::io::Result<()> {
    let refused: Vec<String> = task.misplaced().iter().map(ToString::to_string).collect();
    let how = if task.is_placed_by_runtime() { "by the runtime" } else { "by itself" };
    say(&if refused.is_empty() { format!("placed {how}") } else { format!("not placed: {}", refused.join("; ")) })
}

fn controller(session: &Session, setup: &Setup, stop: &AtomicBool) -> Outcome {
    let stream = cycle_stream(session)?;
    let sink = stream.sink(SAMPLES, SinkOptions::default().depth(DEPTH).polled())?;
    let source = stream.source(ANSWERS, SourceOptions::small())?;
    let cyclic = session.cyclic(PERIOD, Nanos(PERIOD.0 / 2)).fifo(setup.fifo).core(setup.core);
    let mut task = cyclic.start()?;
    say_place(&task)?;
    while !stop.load(Ordering::Relaxed) && task.wait().is_some() {
        while let Some(sample) = sink.consume()? {
            let _ = source.emit_copy(&sample.to_vec())?;
        }
    }
    Ok(())
}

/// What a plant counts; its cyclic thread alone writes.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    answered: AtomicU64,
    /// Samples after the first answer whose answers never came, or came out of order.
    missed: AtomicU64,
}

fn plant(session: &Session, setup: &Setup, stop: &AtomicBool) -> Outcome {
    let counts = Counts::default();
    std::thread::scope(|scope| {
        let cyclic = scope.spawn(|| ask(session, setup, stop, &counts).map_err(|error| error.to_string()));
        while !cyclic.is_finished() {
            std::thread::sleep(REPORT_EVERY);
            let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
            say(&format!("counts {} {}", read(&counts.answered), read(&counts.missed)))?;
        }
        cyclic.join().map_err(|_| "the cyclic thread panicked")??;
        Ok(())
    })
}

/// The plant's cyclic thread: a sample a cycle, and a look at the answers.
fn ask(session: &Session, setup: &Setup, stop: &AtomicBool, counts: &Counts) -> Outcome {
    let stream = cycle_stream(session)?;
    let source = stream.source(SAMPLES, SourceOptions::small())?;
    let sink = stream.sink(ANSWERS, SinkOptions::default().depth(DEPTH).polled())?;
    let mut task = session.cyclic(PERIOD, Nanos::ZERO).fifo(setup.fifo).core(setup.core).start()?;
    say_place(&task)?;
    let mut expected: Option<u64> = None;
    while !stop.load(Ordering::Relaxed) && task.wait().is_some() {
        while let Some(answer) = sink.consume()? {
            let Ok(number) = answer.to_vec().try_into().map(u64::from_le_bytes) else { continue };
            let missed = expected.map_or(0, |expected| number.abs_diff(expected));
            counts.missed.fetch_add(missed, Ordering::Relaxed);
            counts.answered.fetch_add(1, Ordering::Relaxed);
            expected = Some(number.wrapping_add(1));
        }
        let number = counts.sent.fetch_add(1, Ordering::Relaxed);
        let _ = source.emit_copy(&number.to_le_bytes())?;
    }
    Ok(())
}

fn pictures(session: &Session) -> Result<Stream, insane_rt::RequestError> {
    session.stream("pictures", Qos { reliability: Reliability::Reliable, ..Qos::default() })
}

fn camera(session: &Session, stop: &AtomicBool) -> Outcome {
    let source = pictures(session)?.source(PICTURES, SourceOptions::default().buffers(PICTURE_BYTES as u32, 8))?;
    say("ready")?;
    let mut number = 0_u8;
    while !stop.load(Ordering::Relaxed) {
        let is_sent = match source.get_buffer(PICTURE_BYTES) {
            Ok(mut buffer) => {
                buffer.fill(number);
                source.emit(buffer).is_sent()
            }
            Err(_) => false,
        };
        if is_sent {
            number = number.wrapping_add(1);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn recorder(session: &Session, stop: &AtomicBool) -> Outcome {
    let sink = pictures(session)?.sink(PICTURES, SinkOptions::default())?;
    let (mut whole, mut damaged, mut expected) = (0_u64, 0_u64, None);
    let mut report_due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        if let Some(picture) = sink.consume_timeout(REPORT_EVERY)? {
            let bytes = picture.to_vec();
            let number = bytes.first().copied().unwrap_or(0);
            // A camera that begins anew begins with its number 0.
            let follows = number == 0 || expected.is_none_or(|expected| expected == number);
            let is_whole = bytes.len() == PICTURE_BYTES && bytes.iter().all(|byte| *byte == number) && follows;
            whole += u64::from(is_whole);
            damaged += u64::from(!is_whole);
            expected = Some(number.wrapping_add(1));
        }
        if Instant::now() >= report_due {
            report_due = Instant::now() + REPORT_EVERY;
            say(&format!("counts {whole} {damaged}"))?;
        }
    }
    Ok(())
}
