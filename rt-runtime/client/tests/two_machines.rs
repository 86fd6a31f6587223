//! Two runtimes on machines with a clock each, which something else keeps together (`ptp4l`):
//! slots run by that clock on both, and the clocks are as near as the messages can tell. Each
//! machine runs this program with the addresses of both ends; `cargo xtask rt-guest` does.
//! Without them there is nothing to test.

use insane_config::RatePlan;
use insane_control::{Hosting, Runtime};
use insane_rt::{
    ChannelId, Determinism, Nanos, Plan, Priority, Qos, Session, Sink, SinkOptions, Source, SourceOptions,
};
use insane_sys::clock::tai_now;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Emulated machines are slow, and do not begin together.
const PATIENCE: Duration = Duration::from_secs(90);
const PERIOD: Nanos = Nanos::from_millis(50);
/// Messages are emitted a little more seldom than slots come, so that some meet theirs at
/// once, and the least time from emit to consume is that of the way.
const EMIT_EVERY: Duration = Duration::from_millis(53);
const TURN: Nanos = Nanos::from_millis(8);
const MESSAGES: u32 = 100;
/// Each end goes on until both have heard so many, and then says so with some more.
const HEARD: u32 = 50;
const LAST_WORDS: u32 = 20;
/// The clocks differed by seconds; what is left is of software time stamps on emulated machines,
/// and of the way, which may take longer in one direction.
const APART_NS_MAX: i64 = 20_000_000;

fn address(variable: &str) -> Option<SocketAddr> {
    std::env::var(variable).ok().map(|text| text.parse().expect("an address"))
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "it never happens that {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What one end hears of the other.
#[derive(Default)]
struct Heard {
    messages: u32,
    lost: u64,
    /// Least time from emit to consume, over both clocks.
    least_ns: Option<i64>,
    /// The same of the other end, as it told.
    theirs_ns: Option<i64>,
    /// How many it had heard by then.
    theirs: i64,
}

impl Heard {
    fn take(&mut self, sink: &Sink) {
        while let Some(message) = sink.consume_timeout(Duration::from_millis(1)).unwrap() {
            let bytes = message.to_vec();
            let number = |at: usize| i64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
            let took = tai_now().0.cast_signed() - number(0);
            self.messages += 1;
            self.lost += u64::from(message.lost());
            self.least_ns = Some(self.least_ns.map_or(took, |least| least.min(took)));
            self.theirs_ns = Some(number(8)).filter(|theirs| *theirs != i64::MAX);
            self.theirs = number(16);
        }
    }
}

#[test]
fn slots_run_by_synchronised_clocks_on_both_machines() {
    let (Some(own), Some(peer)) = (address("INSANE_OWN"), address("INSANE_PEER")) else {
        eprintln!("passed over: INSANE_OWN and INSANE_PEER do not name two machines");
        return;
    };
    let [own_name, peer_name] = [own, peer].map(|address| format!("host-{}", address.ip()));
    let socket = std::env::temp_dir().join(format!("insane-two-machines-{}.sock", std::process::id()));
    let mut plan = Plan::embedded_udp(&own_name, own);
    plan.add_peer(&peer_name, &[("udp", peer)]);
    plan.control.socket = Some(socket.clone());
    // An emulated processor is slow to read its clocks.
    plan.clock.read_max = Nanos::from_millis(1);
    plan.datapaths[0].links[0].rate = Some(RatePlan { turn: TURN, ..RatePlan::of(100) });
    let runtime = Runtime::start(plan, Hosting::Thread).unwrap();
    let session = Session::attach(&socket, "machine").unwrap();
    let clock = || runtime.status().unwrap().datapaths[0].slot_clock.clone().unwrap_or_default();

    let qos = || Qos { determinism: Determinism::periodic(PERIOD, 64), priority: Priority::MAX, ..Qos::default() };
    let stream = session.stream("axis", qos()).unwrap();
    let channel = |address: SocketAddr| ChannelId(if address == own.min(peer) { 1 } else { 2 });
    let sink: Sink = stream.sink(channel(peer), SinkOptions::default()).unwrap();
    let source: Source = stream.source(channel(own), SourceOptions::default()).unwrap();
    wait_for("the other machine listens", || source.receivers() == 1);
    wait_for("the slots run by TAI", || clock() == "TAI");
    println!("slots run by {}", clock());

    let mut heard = Heard::default();
    let start = Instant::now();
    let (mut number, mut last) = (0, u32::MAX);
    while number < last {
        let mut buffer = source.get_buffer(24).unwrap();
        buffer[..8].copy_from_slice(&tai_now().0.to_le_bytes());
        buffer[8..16].copy_from_slice(&heard.least_ns.unwrap_or(i64::MAX).to_le_bytes());
        buffer[16..].copy_from_slice(&i64::from(heard.messages).to_le_bytes());
        assert!(source.emit(buffer).is_sent());
        number += 1;
        while start.elapsed() < EMIT_EVERY * number {
            heard.take(&sink);
        }
        // The other may have begun later.
        let both_heard = heard.messages > HEARD && heard.theirs > i64::from(HEARD);
        if last == u32::MAX && number >= MESSAGES && (both_heard || start.elapsed() > PATIENCE) {
            last = number + LAST_WORDS;
        }
    }
    let counted = runtime.status().unwrap().datapaths[0].counters.clone();
    println!("{} heard, {} lost; {counted:?}", heard.messages, heard.lost);
    assert!(heard.messages > HEARD && heard.theirs > i64::from(HEARD), "{} and {}", heard.messages, heard.theirs);
    assert!(counted["slots_sent"] > 0, "{counted:?}");
    let (least, theirs) = (heard.least_ns.unwrap(), heard.theirs_ns.expect("the other end heard us"));
    // What the way takes is the same in both directions, or nearly; the rest is the clocks.
    let apart = (least - theirs) / 2;
    let way = (least + theirs) / 2;
    println!(
        "rt-guest: clocks apart by {}, the way takes {}, {} messages in slots, by {}",
        Nanos(apart.unsigned_abs()),
        Nanos(way.unsigned_abs()),
        counted["slots_sent"],
        clock()
    );
    assert!(apart.abs() < APART_NS_MAX + way, "{apart} ns apart, the way takes {way} ns");
    drop((source, sink, session));
    runtime.stop();
}
