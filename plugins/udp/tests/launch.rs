//! Launch times: refused with the reason where nothing honours them, kept where something does.
//! The latter needs a kernel with `etf` and the right to make namespaces and interfaces; it is
//! run in the PREEMPT_RT guest (`cargo xtask rt-guest`).

use insane_core::{Lane, MonoTime, Nanos, PeerIndex};
use insane_link::{FrameSink, LaunchDrops, Link, LinkSetup, SendOutcome};
use insane_sys::{SharedBytes, clock};
use insane_udp::{NotHonoured, UdpConfig, UdpError, UdpLink, UdpSetup, launch_queue};
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

const LEAD: Nanos = Nanos::from_millis(200);
const DELTA: Nanos = Nanos::from_millis(50);
const FIRST: Lane = match Lane::new(0) {
    Some(lane) => lane,
    None => Lane::LAST,
};
const PEER: PeerIndex = PeerIndex(0);
const PATIENCE: Duration = Duration::from_secs(20);

fn config(bind: &str, launches: bool) -> UdpConfig {
    UdpConfig { launch_lead: launches.then_some(LEAD), ..UdpConfig::new(bind.parse().unwrap()) }
}

#[test]
fn without_the_queue_the_link_says_why_and_opens_without_launch_times() {
    let setup = UdpSetup::bind(config("127.0.0.1:0", true)).unwrap();
    let refused = setup.open(&[]).map(|_| ()).unwrap_err();
    assert!(matches!(&refused, UdpError::Launch(NotHonoured::NoEtf { device }) if device == "lo"), "{refused}");
    assert_eq!(refused.to_string(), "launch times are not honoured: lo has no etf queue (tc-etf(8))");
    let link = UdpSetup::bind(config("127.0.0.1:0", false)).unwrap().open(&[]).unwrap();
    assert!(!link.capabilities().launch_time);
}

/// Priority 5 has a class and a queue of its own.
const MQPRIO: &str = "mqprio num_tc 3 map 0 0 0 0 0 1 2 0 0 0 0 0 0 0 0 0 queues 1@0 1@1 1@2 hw 0";
/// The same, with gates that are always open.
const TAPRIO: &str = "taprio num_tc 3 map 0 0 0 0 0 1 2 0 0 0 0 0 0 0 0 0 queues 1@0 1@1 1@2 \
                      base-time 0 sched-entry S 7 10000000 clockid CLOCK_TAI";

/// Two interfaces that are joined, in namespaces of their own; they go with this value.
struct Cable {
    names: [String; 2],
}

fn run(words: &str) -> bool {
    let mut words = words.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output();
    output.is_ok_and(|output| output.status.success())
}

impl Cable {
    /// `None`, and the reason on standard error, where one cannot be had.
    fn new(test: &str, root: &str) -> Option<Self> {
        let names = ["a", "b"].map(|end| format!("launch-{test}-{end}-{}", std::process::id()));
        let [a, b] = &names;
        if !run(&format!("ip netns add {a}")) || !run(&format!("ip netns add {b}")) {
            eprintln!("passed over: no right to make namespaces");
            return None;
        }
        let cable = Cable { names: names.clone() };
        let made =
            run(&format!("ip -n {a} link add eth0 numtxqueues 4 type veth peer name eth0 numtxqueues 4 netns {b}"))
                && run(&format!("ip -n {a} addr add 10.77.0.1/24 dev eth0"))
                && run(&format!("ip -n {b} addr add 10.77.0.2/24 dev eth0"))
                && [a, b].iter().all(|name| run(&format!("ip -n {name} link set eth0 up")));
        let queued = made
            && run(&format!("tc -n {a} qdisc replace dev eth0 parent root handle 100: {root}"))
            && run(&format!("tc -n {a} qdisc replace dev eth0 parent 100:2 etf clockid CLOCK_TAI delta {}", DELTA.0));
        if !queued {
            eprintln!("passed over: this kernel has no etf, or makes no such interfaces");
            return None;
        }
        Some(cable)
    }

    /// Runs `open` on a thread inside of one namespace.
    fn inside<T: Send>(&self, end: usize, open: impl FnOnce() -> T + Send) -> T {
        let file = std::fs::File::open(format!("/run/netns/{}", self.names[end])).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                open()
            });
            thread.join().unwrap()
        })
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for name in &self.names {
            run(&format!("ip netns del {name}"));
        }
    }
}

/// Frames with the instants at which they came.
#[derive(Default)]
struct Came(Vec<(MonoTime, Option<PeerIndex>, Vec<u8>)>);

impl FrameSink for Came {
    fn frame(&mut self, from: Option<PeerIndex>, frame: &[u8]) {
        self.0.push((clock::mono_now(), from, frame.to_vec()));
    }
}

fn wait_for(link: &mut UdpLink, came: &mut Came, frames: usize) {
    let start = Instant::now();
    while came.0.len() < frames {
        assert!(start.elapsed() < PATIENCE, "{} of {frames} frames came", came.0.len());
        link.receive(16, true, came);
    }
}

const A: &str = "10.77.0.1:7400";
const B: &str = "10.77.0.2:7400";

fn links(cable: &Cable, first: Option<SocketAddr>) -> [UdpLink; 2] {
    let open = |bind: &str, peer: &str, launches| {
        let peers = [Some(peer.parse().unwrap()), first];
        UdpSetup::bind(config(bind, launches)).unwrap().open(&peers).unwrap()
    };
    [cable.inside(0, || open(A, B, true)), cable.inside(1, || open(B, A, false))]
}

#[test]
fn frames_leave_at_their_instants_in_their_order_and_bear_the_name_of_their_peer() {
    let Some(cable) = Cable::new("order", MQPRIO) else { return };
    in_order(&cable);
}

#[test]
fn below_taprio_launch_times_are_refused() {
    let Some(cable) = Cable::new("taprio", TAPRIO) else { return };
    let refused = cable.inside(0, || launch_queue(A.parse().unwrap(), LEAD)).unwrap_err();
    assert!(matches!(refused, NotHonoured::BelowTaprio { .. }), "{refused}");
}

fn in_order(cable: &Cable) {
    let queue = cable.inside(0, || launch_queue(A.parse().unwrap(), LEAD)).unwrap();
    assert_eq!((queue.device.as_str(), queue.delta_ns, queue.offload), ("eth0", DELTA.0 as u32, false));
    // Connected to one peer only, and with several.
    for another in [None, Some("10.77.0.9:7400".parse().unwrap())] {
        let [mut a, mut b] = links(cable, another);
        assert!(a.capabilities().launch_time && !b.capabilities().launch_time);
        let start = clock::mono_now();
        let instants: Vec<MonoTime> = (1..=5).map(|n| start + Nanos::from_millis(400 + 200 * n)).collect();
        for (number, at) in instants.iter().enumerate() {
            let head = [number as u8; 64];
            assert_eq!(a.send_at(PEER, FIRST, &head, SharedBytes::EMPTY, *at), SendOutcome::Sent);
        }
        // Others do not wait for them.
        assert_eq!(a.send(PEER, FIRST, &[90; 64], SharedBytes::EMPTY), SendOutcome::Sent);
        assert_eq!(a.send(PEER, Lane::LAST, &[91; 64], SharedBytes::EMPTY), SendOutcome::Sent);
        a.flush();
        let mut came = Came::default();
        wait_for(&mut b, &mut came, 7);
        assert!(came.0.iter().all(|(_, from, _)| *from == Some(PEER)), "{:?}", came.0);
        let plain: Vec<u8> = came.0[..2].iter().map(|(_, _, frame)| frame[0]).collect();
        assert!(plain.contains(&90) && plain.contains(&91), "{plain:?}");
        for (number, (at, _, frame)) in came.0[2..].iter().enumerate() {
            assert_eq!(usize::from(frame[0]), number);
            assert!(*at >= instants[number], "frame {number} came {} early", instants[number].since(*at));
        }
        a.tend(clock::mono_now());
        assert_eq!(a.take_launch_drops(), LaunchDrops::default());
    }
}

#[test]
fn a_frame_whose_instant_has_passed_is_dropped_and_told() {
    let Some(cable) = Cable::new("late", MQPRIO) else { return };
    let [mut a, mut b] = links(&cable, None);
    // The queue is told DELTA later.
    let past = MonoTime(clock::mono_now().0 - 2 * DELTA.0);
    assert_eq!(a.send_at(PEER, FIRST, &[1; 64], SharedBytes::EMPTY, past), SendOutcome::Sent);
    let at = clock::mono_now() + LEAD;
    assert_eq!(a.send_at(PEER, FIRST, &[2; 64], SharedBytes::EMPTY, at), SendOutcome::Sent);
    let mut came = Came::default();
    wait_for(&mut b, &mut came, 1);
    assert_eq!(came.0[0].2[0], 2);
    a.tend(clock::mono_now());
    assert_eq!(a.take_launch_drops(), LaunchDrops { missed: 0, refused: 1 });
    assert_eq!(a.take_launch_drops(), LaunchDrops::default());
}
