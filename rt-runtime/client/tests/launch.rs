//! Slots that are handed over ahead, through the public interface: two runtimes, one at each
//! end of a cable whose queue holds frames back until their launch time; and what is said where
//! there is no such queue. The former is run in the PREEMPT_RT guest (`cargo xtask rt-guest`).

use insane_config::{RatePlan, Technology};
use insane_control::{Hosting, Runtime};
use insane_rt::{
    ChannelId, Determinism, Nanos, Plan, Priority, Qos, Session, Sink, SinkOptions, Source, SourceOptions,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
/// Long ones: the guest is slow.
const PERIOD: Nanos = Nanos::from_millis(80);
const LEAD: Nanos = Nanos::from_millis(10);
const TURN: Nanos = Nanos::from_millis(8);
const DELTA: Nanos = Nanos::from_millis(8);
const MESSAGES: u64 = 20;

/// A runtime and the folder of its socket; both go with it.
struct Host {
    runtime: Option<Runtime>,
    folder: PathBuf,
}

impl Host {
    fn start(name: &str, own: SocketAddr, peer: (&str, SocketAddr), lead: Nanos) -> Host {
        let folder = std::env::temp_dir().join(format!("insane-launch-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut plan = Plan::embedded_udp(name, own);
        plan.add_peer(peer.0, &[("udp", peer.1)]);
        plan.control.socket = Some(folder.join("control.sock"));
        let link = &mut plan.datapaths[0].links[0];
        link.rate = Some(RatePlan { turn: TURN, ..RatePlan::of(100) });
        if let Technology::Udp(udp) = &mut link.technology {
            udp.launch_lead = lead;
        }
        Host { runtime: Some(Runtime::start(plan, Hosting::Thread).unwrap()), folder }
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().unwrap()
    }

    fn session(&self) -> Session {
        Session::attach(self.folder.join("control.sock"), "launch").unwrap()
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        self.runtime().status().unwrap().datapaths[0].counters.clone().into_iter().collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.stop();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "it never happens that {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sends a message each period, and hears the other end; what came, in its order.
fn talk(a: &Host, b: &Host) -> Vec<u64> {
    let qos = || Qos { determinism: Determinism::periodic(PERIOD, 64), priority: Priority::MAX, ..Qos::default() };
    let (here, there) = (a.session(), b.session());
    let sink: Sink = there.stream("axis", qos()).unwrap().sink(ChannelId(1), SinkOptions::default()).unwrap();
    let source: Source = here.stream("axis", qos()).unwrap().source(ChannelId(1), SourceOptions::default()).unwrap();
    wait_for("the sink is heard of", || source.receivers() == 1);
    wait_for("the slots are in force", || a.counters()["slots_unused"] > 0);
    let mut came = Vec::new();
    for number in 0..MESSAGES {
        let mut buffer = source.get_buffer(8).unwrap();
        buffer.copy_from_slice(&number.to_le_bytes());
        assert!(source.emit(buffer).is_sent());
        let until = Instant::now() + Duration::from(PERIOD);
        while Instant::now() < until {
            if let Some(message) = sink.consume_timeout(Duration::from_millis(1)).unwrap() {
                came.push(u64::from_le_bytes(message.to_vec().try_into().unwrap()));
            }
        }
    }
    let settled = |came: &[u64]| came.len() as u64 + a.counters()["late_launch"] >= MESSAGES;
    let end = Instant::now() + PATIENCE;
    while !settled(&came) && Instant::now() < end {
        if let Some(message) = sink.consume_timeout(Duration::from_millis(10)).unwrap() {
            came.push(u64::from_le_bytes(message.to_vec().try_into().unwrap()));
        }
    }
    assert!(came.is_sorted(), "in order: {came:?}");
    came
}

#[test]
fn without_the_queue_slots_are_kept_by_the_thread_and_the_reason_is_told() {
    let free = |port: u16| [port, port + 1].iter().all(|port| std::net::UdpSocket::bind(("127.0.0.1", *port)).is_ok());
    let base = 10_000 + (std::process::id() % 20_000) as u16;
    let ports: Vec<u16> = (base..40_000).step_by(2).filter(|port| free(*port)).take(2).collect();
    let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let a = Host::start("a", at(ports[0]), ("b", at(ports[1])), LEAD);
    let b = Host::start("b", at(ports[1]), ("a", at(ports[0])), Nanos::ZERO);
    let told = a.runtime().degraded().iter().find(|reason| reason.contains("launch times")).cloned().unwrap();
    for part in ["link \"udp\" are not honoured", "lo has no etf queue", "kept by its thread"] {
        assert!(told.contains(part), "{told}");
    }
    assert!(a.runtime().status().unwrap().degraded.contains(&told), "status says so, too");
    assert!(!b.runtime().degraded().iter().any(|reason| reason.contains("launch")), "who does not ask is not told");
    let came = talk(&a, &b);
    let counted = a.counters();
    assert_eq!(counted["slots_launched"], 0);
    // How well a busy machine keeps slots is not judged, only that nothing is lost unseen.
    assert_eq!(came.len() as u64 + counted["late_dropped"] + counted["late_replaced"], MESSAGES, "{counted:?}");
}

/// Two joined interfaces in namespaces of their own, the first with a queue for launch times.
struct Cable([String; 2]);

fn run(words: &str) -> bool {
    let mut words = words.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output();
    output.is_ok_and(|output| output.status.success())
}

impl Cable {
    fn new() -> Option<Cable> {
        let names = ["a", "b"].map(|end| format!("slots-{end}-{}", std::process::id()));
        let [a, b] = names.clone();
        if !run(&format!("ip netns add {a}")) || !run(&format!("ip netns add {b}")) {
            eprintln!("passed over: no right to make namespaces");
            return None;
        }
        let cable = Cable(names);
        let made =
            run(&format!("ip -n {a} link add eth0 numtxqueues 4 type veth peer name eth0 numtxqueues 4 netns {b}"))
                && run(&format!("ip -n {a} addr add 10.78.0.1/24 dev eth0"))
                && run(&format!("ip -n {b} addr add 10.78.0.2/24 dev eth0"))
                && [&a, &b].iter().all(|name| run(&format!("ip -n {name} link set eth0 up")));
        let classes = "num_tc 3 map 0 0 0 0 0 1 2 0 0 0 0 0 0 0 0 0 queues 1@0 1@1 1@2 hw 0";
        let queued = made
            && run(&format!("tc -n {a} qdisc replace dev eth0 parent root handle 100: mqprio {classes}"))
            && run(&format!("tc -n {a} qdisc replace dev eth0 parent 100:2 etf clockid CLOCK_TAI delta {}", DELTA.0));
        if !queued {
            eprintln!("passed over: this kernel has no etf, or makes no such interfaces");
        }
        queued.then_some(cable)
    }

    fn inside<T: Send>(&self, end: usize, open: impl FnOnce() -> T + Send) -> T {
        let file = std::fs::File::open(format!("/run/netns/{}", self.0[end])).unwrap();
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                open()
            });
            inside.join().unwrap()
        })
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for name in &self.0 {
            run(&format!("ip netns del {name}"));
        }
    }
}

#[test]
fn slots_are_handed_over_ahead_and_every_message_arrives_or_is_counted() {
    let Some(cable) = Cable::new() else { return };
    let at = |host: u8| SocketAddr::from(([10, 78, 0, host], 7400));
    let a = cable.inside(0, || Host::start("ahead-a", at(1), ("ahead-b", at(2)), LEAD));
    let b = cable.inside(1, || Host::start("ahead-b", at(2), ("ahead-a", at(1)), Nanos::ZERO));
    assert!(!a.runtime().degraded().iter().any(|reason| reason.contains("launch")), "{:?}", a.runtime().degraded());
    let came = talk(&a, &b);
    let counted = a.counters();
    println!("{} came; {counted:?}", came.len());
    let dropped = counted["late_launch"] + counted["late_dropped"] + counted["late_replaced"];
    assert_eq!(came.len() as u64 + dropped, MESSAGES, "{counted:?}");
    assert!(counted["slots_launched"] > 0, "{counted:?}");
    assert!(counted["slots_launched"] > counted["late_launch"], "some are launched: {counted:?}");
}
