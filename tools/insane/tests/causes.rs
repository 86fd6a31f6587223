//! Causes of misses with the truth known, on the kernel's own clock and scheduler: an application
//! that sleeps beyond its slot, and a thread of higher priority that takes the datapath's core
//! while it sleeps, or while it spins. What could not be injected as it was meant, since the
//! machine is shared, is left out; the matrix is printed. In tests of their own, links that are
//! slower than they are said to be: what waits below is told by the kernel and keeps others from
//! their slots; where its word is not believed any more, since nothing moved for too long, the
//! socket gets full. And a schedule that takes over while messages wait for slots that are later
//! in it.

mod common;

use common::plant::{self, Pair};
use common::{Daemon, Namespaces, Process, peers_over_loopback, peers_that_wait, wait_for};
use insane_core::{Cause, LatePolicy, SourceInstant, Stamp};
use insane_rt::{
    ChannelId, Determinism, Emit, MonoTime, Nanos, Priority, Qos, Session, Sink, SinkOptions, Source, SourceOptions,
};
use insane_shm::misses::{Miss, file_of, read};
use insane_sys::clock::{mono_now, tai_now};
use insane_sys::thread::{SchedPolicy, cores, pin_current, set_policy_current};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

const MS: u64 = 1_000_000;
const PERIOD: Nanos = Nanos::from_millis(20);
/// Of each kind; the core is taken for 4 ms each time, 160 ms in all.
const EACH: usize = 40;
/// So many of each kind have to be injected as they were meant, or nothing is judged.
const FEWEST: usize = 15;

/// What is done to a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Truth {
    InTime,
    ApplicationLate,
    WakeLate,
    TurnOverrun,
}

/// A message over the link that is slow, bytes.
const BYTES: u32 = 1_000;
/// A message takes one and a half periods.
const SLOW: &str = "tbf rate 300kbit burst 1600 limit 1000000";
/// A message takes thirteen, longer than the kernel is believed that it has not left: the first
/// few are kept waiting for that.
const STUCK: &str = "tbf rate 32kbit burst 1600 limit 1000000";
/// Messages before it is slow, while it is, and before all that is counted.
const ROUNDS: usize = 120;

/// The tests have the same core, and one takes it away.
static CORE: Mutex<()> = Mutex::new(());

/// A core that is not the only one, until the guard is dropped.
fn core_to_itself() -> Option<(usize, MutexGuard<'static, ()>)> {
    let alone = CORE.lock().unwrap_or_else(PoisonError::into_inner);
    let all = cores();
    if all.len() < 2 || insane_sys::privileges::can_use_fifo().is_err() {
        eprintln!("passed over: it takes two cores and SCHED_FIFO");
        return None;
    }
    Some((*all.last()?, alone))
}

/// A stream with messages of so many bytes, which drops what is late.
fn qos_of(size: u32) -> Qos {
    let (period, offset, deadline) = (PERIOD, Nanos::ZERO, PERIOD);
    let determinism = Determinism::TimeSensitive { period, offset, deadline, size, late: LatePolicy::Drop };
    Qos { determinism, priority: Priority::MAX, ..Qos::default() }
}

/// The two ends of the axis, joined, and their sessions.
fn joined(here: &Daemon, there: &Daemon) -> ((Session, Session), Source, Sink) {
    let (a, b) = (Session::attach(here.socket(), "plc").unwrap(), Session::attach(there.socket(), "drive").unwrap());
    let qos = qos_of(64);
    let source = a.stream("axis", qos).unwrap().source(ChannelId(1), SourceOptions::default()).unwrap();
    let sink = b.stream("axis", qos).unwrap().sink(ChannelId(1), SinkOptions::default()).unwrap();
    wait_for("they are joined", || source.receivers() == 1);
    ((a, b), source, sink)
}

/// Where the slots are in their period, once they are in force, and how far their clock is from
/// the monotonic one.
fn slot_of(here: &Daemon) -> (u64, u64) {
    wait_for("the slots are in force", || here.status().datapaths[0].counters["slots_unused"] > 2);
    let status = here.status();
    let sources = status.streams.iter().flat_map(|stream| &stream.channels).flat_map(|channel| &channel.sources);
    let slot = sources.filter_map(|source| source.slot.as_ref()).next().expect("it has slots").start_ns;
    (slot, status.datapaths[0].slot_offset_ns.expect("slots have a clock"))
}

/// The first slot of the next period: there are some milliseconds to prepare it.
fn next_slot(slot: u64, offset: u64) -> MonoTime {
    let tai = mono_now().0.wrapping_add(offset);
    MonoTime((tai / PERIOD.0 + 1).wrapping_mul(PERIOD.0).wrapping_add(slot).wrapping_sub(offset))
}

/// The messages that a record stands for.
fn covered(miss: &Miss) -> std::ops::Range<u64> {
    miss.sequence..miss.sequence + u64::from(miss.messages)
}

fn sleep_until(at: MonoTime) {
    std::thread::sleep(Duration::from(at.since(mono_now())));
}

/// Takes a core from an instant to another, and says from when to when it really had it.
fn hog(core: usize, orders: &mpsc::Receiver<(MonoTime, MonoTime)>, done: &mpsc::Sender<(MonoTime, MonoTime)>) {
    pin_current(core).unwrap();
    set_policy_current(SchedPolicy::Fifo(60)).unwrap();
    while let Ok((from, to)) = orders.recv() {
        sleep_until(from);
        let begun = mono_now();
        while mono_now() < to {
            std::hint::spin_loop();
        }
        done.send((begun, mono_now())).unwrap();
    }
}

/// What was true, and what was told.
type Confusion = BTreeMap<(Truth, &'static str), usize>;

fn of_truth(matrix: &Confusion, truth: Truth) -> usize {
    matrix.iter().filter(|((of, _), _)| *of == truth).map(|(_, count)| count).sum()
}

/// Does each of these to [`EACH`] messages, by turns, and says what was told. `None`: too little
/// could be done as it was meant.
fn inject(name: &str, idle: &str, place: &str, core: usize, truths: &[Truth]) -> Option<Confusion> {
    let (here, there) = peers_that_wait(name, idle, &format!("core: {core}, {place}"));
    let (_sessions, source, _sink) = joined(&here, &there);
    let (slot, offset) = slot_of(&here);

    let ((order, orders), (tell, done)) = (mpsc::channel(), mpsc::channel());
    let hogging = std::thread::spawn(move || hog(core, &orders, &tell));
    let mut done_to: BTreeMap<u64, Truth> = BTreeMap::new();
    for round in 0..EACH * truths.len() {
        let truth = truths[round % truths.len()];
        let is_taken = matches!(truth, Truth::WakeLate | Truth::TurnOverrun);
        // The slot after the next: there is time to prepare it.
        let planned = next_slot(slot, offset) + PERIOD;
        if is_taken {
            order.send((planned - Nanos(2 * MS), planned + Nanos(2 * MS))).unwrap();
        }
        sleep_until(if truth == Truth::ApplicationLate { planned + Nanos(3 * MS) } else { planned - Nanos(6 * MS) });
        let before = mono_now();
        let Ok(Emit::Sent(token)) = source.emit_copy(&[1; 8]) else { panic!("there is room for one a cycle") };
        let after = mono_now();
        let taken = is_taken.then(|| done.recv().unwrap());
        let is_as_meant = match truth {
            Truth::InTime => after + Nanos(4 * MS) < planned,
            Truth::ApplicationLate => before > planned + Nanos(2 * MS) && after < planned + Nanos(9 * MS),
            Truth::WakeLate | Truth::TurnOverrun => taken.is_some_and(|(from, to)| {
                after + Nanos(3 * MS) < planned && from + Nanos(MS) < planned && to > planned + Nanos(MS)
            }),
        };
        if is_as_meant {
            done_to.insert(token.sequence(), truth);
        }
        sleep_until(planned + Nanos(11 * MS));
    }
    drop(order);
    hogging.join().unwrap();
    let records = read(&file_of(&here.socket())).unwrap();
    let noted: BTreeMap<u64, Cause> = records[0].since(0).iter().map(|(_, miss)| (miss.sequence, miss.cause)).collect();
    let mut matrix = Confusion::new();
    for (sequence, truth) in &done_to {
        *matrix.entry((*truth, noted.get(sequence).map_or("in time", |cause| cause.name()))).or_default() += 1;
    }
    println!("{matrix:#?}");
    if truths.iter().any(|truth| of_truth(&matrix, *truth) < FEWEST) {
        eprintln!("passed over: too little could be injected as it was meant: {matrix:?}");
        return None;
    }
    Some(matrix)
}

#[test]
fn causes_that_are_injected_on_a_real_kernel_are_told_as_they_are() {
    let Some((core, _alone)) = core_to_itself() else { return };
    let truths = [Truth::InTime, Truth::ApplicationLate, Truth::WakeLate];
    let Some(matrix) = inject("causes", "block", "policy: fifo(40)", core, &truths) else { return };
    let told = |truth: Truth, name: &str| matrix.get(&(truth, name)).copied().unwrap_or(0);
    // What the host does besides has causes of its own: nine of ten are as injected.
    for (truth, name) in
        [(Truth::ApplicationLate, "application late"), (Truth::WakeLate, "wake late"), (Truth::InTime, "in time")]
    {
        assert!(told(truth, name) * 10 >= of_truth(&matrix, truth) * 9, "{truth:?}: {matrix:?}");
    }
    // Nobody is blamed for what another did.
    assert_eq!(told(Truth::InTime, "application late") + told(Truth::WakeLate, "application late"), 0, "{matrix:?}");
    assert_eq!(told(Truth::ApplicationLate, "wake late"), 0, "{matrix:?}");
}

/// The datapath spins, and its core is taken: it did not sleep, and did not look in time. Others
/// take it, too, on a machine that is shared, so who was in time by our doing is not judged.
#[test]
fn a_datapath_that_is_not_run_while_it_spins_overran_its_turn() {
    let Some((core, _alone)) = core_to_itself() else { return };
    let truths = [Truth::InTime, Truth::TurnOverrun];
    let Some(matrix) = inject("turns", "spin", "policy: other", core, &truths) else { return };
    let told = |truth: Truth, name: &str| matrix.get(&(truth, name)).copied().unwrap_or(0);
    let overran = told(Truth::TurnOverrun, "turn overrun");
    assert!(overran * 100 >= of_truth(&matrix, Truth::TurnOverrun) * 95, "{matrix:?}");
    let is_blamed = |((_, name), _): &(&(Truth, &str), &usize)| !["in time", "turn overrun"].contains(name);
    let wrong: usize = matrix.iter().filter(is_blamed).map(|(_, count)| count).sum();
    assert!(wrong * 100 <= matrix.values().sum::<usize>(), "{matrix:?}");
}

/// The datapath sleeps through two slots, again and again; the stream says of no message when it
/// came, and drops what is late. Four periods later each message is in time again.
#[test]
fn after_a_late_wake_a_stream_without_stamps_that_drops_is_in_time_again() {
    const BETWEEN: usize = 12;
    let Some((core, _alone)) = core_to_itself() else { return };
    let (here, there) = peers_over_loopback("again", &format!("core: {core}, policy: fifo(40)"));
    let (_sessions, source, _sink) = joined(&here, &there);
    let (slot, offset) = slot_of(&here);
    let ((order, orders), (tell, done)) = (mpsc::channel(), mpsc::channel());
    let hogging = std::thread::spawn(move || hog(core, &orders, &tell));
    // Of each message: how many periods after the core was taken it was emitted.
    let (mut since, mut is_taken) = (BTreeMap::new(), 0);
    for round in 0..BETWEEN * 8 {
        let planned = next_slot(slot, offset);
        if round % BETWEEN == 2 {
            order.send((planned - Nanos(2 * MS), planned + Nanos(48 * MS))).unwrap();
            is_taken += 1;
        }
        sleep_until(planned - Nanos(6 * MS));
        let Ok(Emit::Sent(token)) = source.emit_copy(&[1; 8]) else { panic!("there is room for one a cycle") };
        if is_taken > 0 && mono_now() + Nanos(4 * MS) < planned {
            since.insert(token.sequence(), (round + BETWEEN - 2) % BETWEEN);
        }
        sleep_until(planned + Nanos(6 * MS));
    }
    drop(order);
    hogging.join().unwrap();
    assert_eq!(done.iter().count(), is_taken);
    let records = read(&file_of(&here.socket())).unwrap();
    let mut late = vec![(0, 0); BETWEEN];
    let noted: BTreeSet<u64> = records[0].since(0).iter().flat_map(|(_, miss)| covered(miss)).collect();
    for (sequence, after) in &since {
        late[*after].0 += 1;
        late[*after].1 += usize::from(noted.contains(sequence));
    }
    println!("periods after the core was taken: (messages, of which late): {late:?}");
    assert!(late[0].1 * 10 >= late[0].0 * 9, "who slept through a slot missed it: {late:?}");
    let (messages, missed) = late[5..].iter().fold((0, 0), |(all, missed), one| (all + one.0, missed + one.1));
    assert!(missed * 10 <= messages, "what is emitted later is in time: {late:?}");
}

/// The kernel's queue of an interface, by `tc`; false where it has none of that kind.
fn set_queue(namespace: &str, words: &str) -> bool {
    let mut command = std::process::Command::new("tc");
    let (verb, queue) = words.split_once(' ').unwrap_or((words, ""));
    command.args(["-n", namespace, "qdisc", verb, "dev", "eth0", "root"]).args(queue.split_whitespace());
    command.output().is_ok_and(|output| output.status.success())
}

/// What became of messages over a link that becomes slow: whether it was, whether the message
/// arrived, what was told.
type Matrix = BTreeMap<(bool, bool, &'static str), usize>;

fn count(matrix: &Matrix, is_slow: bool, has_arrived: bool, told: Option<&str>) -> usize {
    let fits =
        |key: &(bool, bool, &str)| (key.0, key.1) == (is_slow, has_arrived) && told.is_none_or(|told| key.2 == told);
    matrix.iter().filter(|(key, _)| fits(key)).map(|(_, count)| count).sum()
}

/// Sends over a link of 100 Mbit/s that gets a slow queue halfway, and asserts that what did not
/// get through has this cause, `percent` of it at least, and that nothing else has. Of the slow
/// part the first `settles` messages are not judged.
fn over_a_slow_link((name, queue, settles): (&str, &str, usize), link: &str, cause: Cause, percent: usize) {
    let Some((core, _alone)) = core_to_itself() else { return };
    let Some(namespaces) = Namespaces::pair(name) else { return };
    let is_asked = cause == Cause::LinkBusy;
    let start = |at: usize| {
        let place = if at == 0 { format!("core: {core}, policy: fifo(40)") } else { String::new() };
        let (own, other) = (at + 1, 2 - at);
        let config = format!(
            r#"datapaths: [(name: "main", idle: block, links: ["l0"], {place})],
            links: [(name: "l0", technology: udp(bind: "10.77.0.{own}:4000", {link}),
                rate_mbps: 100, turn_us: 200, completions: {is_asked})],
            peers: [(name: "{name}{other}", links: {{"l0": "10.77.0.{other}:4000"}})],
            domains: [(name: "line", members: [any], receive: [(size: 2048, count: 256)])]"#
        );
        Daemon::start_in(Some(namespaces.name(at)), &format!("{name}{own}"), &config)
    };
    let (here, there) = (start(0), start(1));
    if !set_queue(namespaces.name(0), &format!("replace {queue}")) || !set_queue(namespaces.name(0), "del") {
        eprintln!("passed over: no queue that is slow (tbf)");
        return;
    }
    let (a, b) = (Session::attach(here.socket(), "plc").unwrap(), Session::attach(there.socket(), "drive").unwrap());
    let qos = qos_of(BYTES);
    let source = a.stream("axis", qos).unwrap();
    let source = source.source(ChannelId(1), SourceOptions::default().buffers(BYTES, 32)).unwrap();
    let sink = b.stream("axis", qos).unwrap().sink(ChannelId(1), SinkOptions::default()).unwrap();
    wait_for("they are joined", || source.receivers() == 1);
    let (slot, offset) = slot_of(&here);

    // What was emitted in time, and whether the link was slow then; and what arrived.
    let (mut emitted, mut arrived) = (BTreeMap::new(), BTreeSet::new());
    for round in 0..ROUNDS * 2 {
        let is_slow = round >= ROUNDS;
        if round == ROUNDS {
            assert!(set_queue(namespaces.name(0), &format!("replace {queue}")));
        }
        let planned = next_slot(slot, offset);
        sleep_until(planned - Nanos(6 * MS));
        let Ok(buffer) = source.get_buffer(BYTES as usize) else { continue };
        // It says when it came: otherwise one that waits behind a refused one comes with that.
        let stamp = Stamp { instant: SourceInstant::Monotonic(mono_now()), is_history: false };
        let Emit::Sent(token) = source.emit_at(buffer, stamp.encode()) else { continue };
        if mono_now() + Nanos(4 * MS) < planned && !(ROUNDS..ROUNDS + settles).contains(&round) {
            emitted.insert(token.sequence(), is_slow);
        }
        sleep_until(planned + Nanos(6 * MS));
        while let Ok(Some(message)) = sink.consume() {
            arrived.insert(message.sequence());
        }
    }
    // What waits below arrives, late; what was not taken never does.
    let end = mono_now() + Nanos::from_millis(2_000);
    while mono_now() < end {
        if let Ok(Some(message)) = sink.consume_timeout(Duration::from_millis(10)) {
            arrived.insert(message.sequence());
        }
    }
    let records = read(&file_of(&here.socket())).unwrap();
    let noted: BTreeMap<u64, Cause> = records[0].since(0).iter().map(|(_, miss)| (miss.sequence, miss.cause)).collect();
    let mut matrix = Matrix::new();
    for (sequence, is_slow) in &emitted {
        let told = noted.get(sequence).map_or("in time", |cause| cause.name());
        *matrix.entry((*is_slow, arrived.contains(sequence), told)).or_default() += 1;
    }
    println!("(link is slow, message arrived, told): {matrix:#?}");
    let lost = count(&matrix, true, false, None);
    if lost < FEWEST || count(&matrix, false, true, None) < FEWEST {
        eprintln!("passed over: too little could be injected as it was meant: {matrix:?}");
        return;
    }
    let told = cause.name();
    let right = count(&matrix, true, false, Some(told));
    assert!(right * 100 >= lost * percent, "what did not get through: {matrix:?}");
    let wrong =
        [(false, true), (true, true), (false, false)].map(|(slow, came)| count(&matrix, slow, came, Some(told)));
    assert!(wrong.iter().sum::<usize>() * 100 <= right, "and nothing else: {matrix:?}");
    // The certificate says so, too.
    let monitors = here.status().datapaths.remove(0).monitors;
    let link = monitors.iter().find(|monitor| monitor.assumption == "link").unwrap();
    assert!(link.violations > 0 && link.out_of_spec_s.is_some(), "{link:?}");
}

#[test]
fn what_a_slow_link_has_not_sent_yet_is_the_cause_of_what_it_keeps_from_its_slot() {
    over_a_slow_link(("slow", SLOW, 0), "", Cause::LinkBusy, 95);
}

#[test]
fn what_a_full_socket_does_not_take_has_that_cause() {
    over_a_slow_link(("full", STUCK, 10), "send_buffer_bytes: 4096", Cause::RingFull, 90);
}

/// What waits for its slot while a schedule takes over in which that slot is later.
#[test]
fn what_a_new_schedule_moves_has_missed_its_slot_for_that() {
    const STREAMS: usize = 6;
    /// By turns with early slots and with late ones: every other one moves what waits.
    const SCHEDULES: usize = 6;
    let Some(pair) = Pair::new("remap") else { return };
    let (here, there) = (&pair.hosts[0], &pair.hosts[1]);
    let (a, b) = (Session::attach(here.socket(), "plc").unwrap(), Session::attach(there.socket(), "drive").unwrap());
    let names: Vec<String> = (0..STREAMS).map(|at| format!("s{at}")).collect();
    let sinks = names.iter().map(|name| b.stream(name, qos_of(64)).unwrap().sink(ChannelId(1), SinkOptions::default()));
    let sinks: Vec<Sink> = sinks.map(Result::unwrap).collect();
    let few = || SourceOptions::default().buffers(64, 8);
    let sources = names.iter().map(|name| a.stream(name, qos_of(64)).unwrap().source(ChannelId(1), few()));
    let sources: Vec<Source> = sources.map(Result::unwrap).collect();
    wait_for("they are joined", || sources.iter().all(|source| source.receivers() == 1));
    let (_, offset) = slot_of(here);

    // Messages are emitted right before a period ends, in which schedules take over; the early slots
    // come right after that. All have their slot within the half period for which a message may
    // wait.
    let emitted_at = PERIOD.0 - MS / 2;
    let certificates = [MS / 2, 5 * MS].map(|from| pair.certificate_of("remap", &names, (PERIOD.0, from)));
    let from_kernel = i128::from(offset) + i128::from(mono_now().0) - i128::from(tai_now().0);

    // Of each message: its source, its number, and when it was emitted, in the time of the slots.
    let mut emitted: Vec<(usize, u64, u64)> = Vec::new();
    // Of each schedule: since when, and where the slots are.
    let mut tables: Vec<(u64, Vec<u64>)> = Vec::new();
    for round in 0..SCHEDULES {
        let mut activating = Process::spawn(&mut pair.command(&certificates[round % 2], 1_000));
        while !activating.has_ended() {
            let now = mono_now().0.wrapping_add(offset);
            let at = now / PERIOD.0 * PERIOD.0 + emitted_at;
            sleep_until(MonoTime(if at > now { at } else { at + PERIOD.0 }.wrapping_sub(offset)));
            for (place, source) in sources.iter().enumerate() {
                let Ok(buffer) = source.get_buffer(8) else { continue };
                let now = mono_now();
                let stamp = Stamp { instant: SourceInstant::Monotonic(now), is_history: false };
                let Emit::Sent(token) = source.emit_at(buffer, stamp.encode()) else { continue };
                emitted.push((place, token.sequence(), now.0.wrapping_add(offset)));
            }
            sinks.iter().for_each(|sink| while let Ok(Some(_)) = sink.consume() {});
        }
        assert!(activating.wait().status.success(), "{}", here.log());
        let starts = names.iter().map(|name| plant::slot(here, name).unwrap().start_ns).collect();
        // In the time of the slots; the boundary of their cycle that is nearest is meant.
        let since = i128::from(here.status().schedule.unwrap().since_tai_ns) + from_kernel;
        let period = i128::from(PERIOD.0);
        tables.push((u64::try_from((since + period / 2) / period * period).unwrap(), starts));
    }
    let status = here.status();
    let id_of = |name: &String| {
        let stream = status.streams.iter().find(|stream| stream.name == *name).unwrap();
        stream.channels.iter().flat_map(|channel| &channel.sources).next().unwrap().id
    };
    let ids: Vec<u32> = names.iter().map(id_of).collect();
    let records = read(&file_of(&here.socket())).unwrap();
    let misses = records[0].since(0);
    let noted: BTreeMap<(u32, u64), Cause> =
        misses.iter().map(|(_, miss)| ((miss.source, miss.sequence), miss.cause)).collect();
    // Whether a schedule moved it, and what was told.
    let mut matrix: BTreeMap<(bool, &str), usize> = BTreeMap::new();
    for (place, sequence, at) in &emitted {
        // The first slot of the source in a table from an instant on.
        let next = |table: usize, from: u64| {
            let start = tables[table].1[*place];
            (from + PERIOD.0 - 1 - start) / PERIOD.0 * PERIOD.0 + start
        };
        let Some(table) = tables.iter().rposition(|(since, _)| since <= at) else { continue };
        let planned = next(table, *at);
        let follows = tables.get(table + 1).filter(|(since, _)| *since <= planned);
        let is_moved = follows.is_some_and(|(since, _)| next(table + 1, *since) > planned + 2 * MS);
        // Emitted too late, by a machine that is shared: it belongs to no slot that was meant.
        if planned - at > PERIOD.0 / 2 - MS / 4 || planned - at < MS / 2 {
            continue;
        }
        let told = noted.get(&(ids[*place], *sequence)).map_or("in time", |cause| cause.name());
        *matrix.entry((is_moved, told)).or_default() += 1;
    }
    println!("(a schedule moved it, told): {matrix:#?}");
    let of = |is_moved: bool| {
        matrix.iter().filter(|((moved, _), _)| *moved == is_moved).map(|(_, count)| count).sum::<usize>()
    };
    // A full record has forgotten some.
    if of(true) < STREAMS || misses.len() > 1_000 {
        eprintln!("passed over: too little could be injected as it was meant: {matrix:?}");
        return;
    }
    // What the host does besides has causes of its own, and is not judged.
    let told = |is_moved: bool| matrix.get(&(is_moved, "remap")).copied().unwrap_or(0);
    assert!(told(true) * 100 >= of(true) * 95, "{matrix:?}");
    assert!(told(false) * 100 <= of(false), "and nobody else: {matrix:?}");
}
