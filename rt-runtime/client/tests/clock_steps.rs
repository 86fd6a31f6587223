//! Steps of the machine's clock while slots run by TAI: by seconds that are no whole cycles, by
//! hours and by the 37 s of a TAI offset that is set late, which are. A message waits for its
//! slot meanwhile, and who misses it for that is told so, and nobody else. The test sets the
//! clock, so it is run in the PREEMPT_RT guest (`cargo xtask rt-guest`) alone.

use insane_config::RatePlan;
use insane_control::{Hosting, Runtime};
use insane_core::Cause;
use insane_rt::{
    ChannelId, Determinism, Emit, LatePolicy, MonoTime, Nanos, Plan, Priority, Qos, Session, SinkOptions, SourceOptions,
};
use insane_shm::misses::{file_of, read};
use insane_sys::clock::{mono_now, sleep_until};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
const MS: u64 = 1_000_000;
/// A step is believed after three reads, 10 ms apart, and an emulated machine is slow. So many
/// are 37 s.
const PERIOD: Nanos = Nanos::from_millis(500);
const TURN: Nanos = Nanos::from_millis(8);
/// By how much a step moves the phase.
const MOVED: u64 = 130 * MS;
/// Who arrives by so much later has missed its slot, however slow the machine is.
const LATE: Nanos = Nanos(MOVED / 2);
/// Before its slot a message is emitted: what comes in the first half of the period is late for
/// the slot before.
const AHEAD: Nanos = Nanos::from_millis(235);
/// Of each kind.
const EACH: usize = 9;
/// So many of each kind have to be injected as they were meant.
const FEWEST: usize = 6;

/// Modes of adjtimex(2).
const MAX_ERROR: u32 = 0x4;
const STATUS: u32 = 0x10;
const TAI: u32 = 0x80;
const SET_OFFSET: u32 = 0x100;
const NANO: u32 = 0x2000;

/// What is done while a message waits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Truth {
    Nothing,
    /// The clock steps by whole cycles: no slot moves.
    WholeCycles,
    ClockStep,
}

/// Sets the machine's clock, by a process that waits for orders: to start one takes too long.
struct ClockSetter {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl ClockSetter {
    fn start() -> ClockSetter {
        // struct timex of 64 bits: modes, status, constant, seconds, nanoseconds.
        let script = r#"$| = 1; while (<STDIN>) { my ($modes, $constant, $s, $ns) = split;
            my $b = "\0" x 208; substr($b, 0, 4) = pack("I", $modes); substr($b, 48, 8) = pack("q", $constant);
            substr($b, 72, 16) = pack("qq", $s, $ns); print syscall(159, $b) < 0 ? "no\n" : "done\n"; }"#;
        let command = Command::new("perl").args(["-e", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = command.unwrap();
        let (orders, answers) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        ClockSetter { process, orders, answers }
    }

    fn adjust(&mut self, modes: u32, constant: i64, seconds: i64, nanos: u64) {
        writeln!(self.orders, "{modes} {constant} {seconds} {nanos}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer, "done\n", "the clock can be set");
    }

    /// The kernel is told that somebody disciplines its clock.
    fn declare(&mut self) {
        self.adjust(STATUS | MAX_ERROR, 0, 0, 0);
    }

    fn set_tai_offset(&mut self, seconds: i64) {
        self.adjust(TAI, seconds, 0, 0);
    }

    /// Moves the clock, which stays declared.
    fn step(&mut self, seconds: i64, nanos: u64) {
        self.adjust(SET_OFFSET | NANO | STATUS | MAX_ERROR, 0, seconds, nanos);
    }
}

impl Drop for ClockSetter {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "it never happens that {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn start(name: &str, own: SocketAddr, peer: (&str, SocketAddr), socket: Option<PathBuf>) -> Runtime {
    let mut plan = Plan::embedded_udp(name, own);
    plan.add_peer(peer.0, &[("udp", peer.1)]);
    plan.control.socket = socket;
    // An emulated processor is slow to read its clocks.
    plan.clock.read_max = Nanos::from_millis(1);
    plan.datapaths[0].links[0].rate = Some(RatePlan { turn: TURN, ..RatePlan::of(100) });
    Runtime::start(plan, Hosting::Thread).unwrap()
}

#[test]
fn who_misses_its_slot_for_a_step_of_the_clock_is_told_so_and_nobody_else() {
    if std::env::var_os("INSANE_SETS_CLOCK").is_none() {
        eprintln!("passed over: INSANE_SETS_CLOCK does not say that the machine's clock may be set");
        return;
    }
    let mut clock = ClockSetter::start();
    clock.declare();
    clock.set_tai_offset(37);
    let folder = std::env::temp_dir().join(format!("insane-steps-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let [here, there] = ["here.sock", "there.sock"].map(|name| folder.join(name));
    let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let a = start("steps-a", at(7_410), ("steps-b", at(7_420)), Some(here.clone()));
    let b = start("steps-b", at(7_420), ("steps-a", at(7_410)), Some(there.clone()));
    let (plc, drive) = (Session::attach(&here, "plc").unwrap(), Session::attach(&there, "drive").unwrap());
    let determinism = Determinism::TimeSensitive {
        period: PERIOD,
        offset: Nanos::ZERO,
        deadline: PERIOD,
        size: 64,
        late: LatePolicy::NextSlot,
    };
    let qos = || Qos { determinism, priority: Priority::MAX, ..Qos::default() };
    let sink = drive.stream("axis", qos()).unwrap().sink(ChannelId(1), SinkOptions::default()).unwrap();
    let source = plc.stream("axis", qos()).unwrap().source(ChannelId(1), SourceOptions::default()).unwrap();
    let datapath = || a.status().unwrap().datapaths.remove(0);
    wait_for("they are joined", || source.receivers() == 1);
    wait_for("the slots run by TAI", || datapath().slot_clock.as_deref() == Some("TAI"));
    wait_for("the slots are in force", || datapath().counters["slots_unused"] > 1);
    let status = a.status().unwrap();
    let slot = status.streams.iter().flat_map(|stream| &stream.channels).flat_map(|channel| &channel.sources);
    let slot = slot.filter_map(|source| source.slot.as_ref()).next().expect("it has slots").start_ns;

    let mut truths: BTreeMap<u64, Truth> = BTreeMap::new();
    for round in 0..EACH * 3 {
        let truth = [Truth::Nothing, Truth::ClockStep, Truth::WholeCycles][round % 3];
        let offset = datapath().slot_offset_ns.expect("slots have a clock");
        // The slot after the next: its message comes when the next one is over.
        let tai = mono_now().0.wrapping_add(offset);
        let planned = (tai / PERIOD.0 + 2).wrapping_mul(PERIOD.0).wrapping_add(slot);
        let planned = MonoTime(planned.wrapping_sub(offset));
        sleep_until(planned - AHEAD);
        let Ok(Emit::Sent(token)) = source.emit_copy(&(round as u64).to_le_bytes()) else { panic!("there is room") };
        let turn = round / 3;
        let (is_even, is_first) = (turn % 2 == 0, turn % 4 < 2);
        match truth {
            Truth::Nothing => {}
            Truth::ClockStep if is_even => clock.step(10, MOVED),
            Truth::ClockStep => clock.step(-11, 1_000 * MS - MOVED),
            Truth::WholeCycles if is_even => clock.set_tai_offset(if is_first { 74 } else { 37 }),
            Truth::WholeCycles => clock.step(if is_first { 7_200 } else { -3_600 }, 0),
        }
        let done = mono_now();
        let mut came = None;
        let end = Instant::now() + PATIENCE;
        while came.is_none() && Instant::now() < end {
            if let Some(message) = sink.consume_timeout(Duration::from_millis(1)).unwrap() {
                assert_eq!(message.to_vec(), (round as u64).to_le_bytes(), "in order, and none twice");
                came = Some(mono_now());
            }
        }
        let came = came.unwrap_or_else(|| panic!("{truth:?}: what waits for its slot goes in one"));
        let is_late = came > planned + LATE;
        let (before, by) = (planned.since(done), came.since(planned));
        println!("{truth:?} {turn}: {before} before the slot, message {}, late by {by}", token.sequence());
        // Three reads, the boundary, and an emulated machine's own pace.
        if done + Nanos(120 * MS) < planned && is_late == (truth == Truth::ClockStep) {
            truths.insert(token.sequence(), truth);
        }
        // A step that came too late for this slot is over before the next round.
        sleep_until(came + PERIOD);
        wait_for("the slots run by TAI again", || datapath().slot_clock.as_deref() == Some("TAI"));
    }

    let records = read(&file_of(&here)).unwrap();
    let noted: BTreeMap<u64, Cause> = records[0].since(0).iter().map(|(_, miss)| (miss.sequence, miss.cause)).collect();
    let mut matrix: BTreeMap<(Truth, &str), usize> = BTreeMap::new();
    for (sequence, truth) in &truths {
        *matrix.entry((*truth, noted.get(sequence).map_or("in time", |cause| cause.name()))).or_default() += 1;
    }
    println!("{matrix:#?}");
    let count = |truth: Truth| truths.values().filter(|other| **other == truth).count();
    let told = |truth: Truth| matrix.get(&(truth, Cause::ClockStep.name())).copied().unwrap_or(0);
    println!("rt-guest: clock step: {} of {} told right", told(Truth::ClockStep), count(Truth::ClockStep));
    for truth in [Truth::Nothing, Truth::WholeCycles, Truth::ClockStep] {
        assert!(count(truth) >= FEWEST, "too few were as they were meant: {matrix:?}");
    }
    assert!(told(Truth::ClockStep) * 100 >= count(Truth::ClockStep) * 95, "{matrix:?}");
    assert_eq!(told(Truth::Nothing) + told(Truth::WholeCycles), 0, "{matrix:?}");
    // Steps that move no slot are counted as well.
    let counted = datapath().counters["clock_step"];
    assert!(counted as usize >= count(Truth::ClockStep) + count(Truth::WholeCycles), "{counted}");
    drop((source, sink, plc, drive));
    a.stop();
    b.stop();
    let _ = std::fs::remove_dir_all(&folder);
}
