//! Every entry, good, not good, and not read; facts are put into the snapshot by hand.

use super::entries;
use crate::doctor::calls::Calls;
use crate::doctor::cores::Cores;
use crate::doctor::finding::{Finding, State, score};
use crate::doctor::host::{FairServer, Host, IdleState, Irq, IrqThread, Nic, RtGroup};
use crate::doctor::reader::{Read, Unread, Why};
use crate::doctor::wanted::{Datapath, Hears, Wanted};
use State::{Bad, Good, Warning};
use insane_config::HugePages;
use insane_sys::host::{Bounds, Channels, ClockState, Coalescing};
use std::collections::{BTreeMap, BTreeSet};

fn unread<T>() -> Read<T> {
    Err(Unread { what: "/nowhere".into(), why: Why::Missing })
}

pub(super) fn cores(list: &str) -> Cores {
    Cores::parse(list, &Cores::default()).unwrap()
}

fn set(options: &[(&str, char)]) -> Read<BTreeMap<String, char>> {
    Ok(options.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect())
}

fn bounds(value: u64) -> Read<Bounds> {
    Ok(Bounds { soft: Some(value), hard: Some(value) })
}

fn idle_state(exit_us: u64) -> Read<Vec<IdleState>> {
    Ok(vec![IdleState { name: "C6".into(), exit_us, is_enabled: true }])
}

pub(super) fn irq(number: u32, name: &str, at: &str) -> Irq {
    Irq { number, name: name.into(), allowed: Ok(cores(at)), cores: Ok(cores(at)) }
}

fn thread(name: &str, priority: u8) -> IrqThread {
    IrqThread { name: name.into(), priority }
}

/// Four cores, 2 and 3 kept free, one card with two queues, all as it should be.
pub(super) fn host() -> Host {
    Host {
        kernel: Ok((6, 18)),
        release: Ok("6.18.1-rt".into()),
        build: Ok("#1 SMP PREEMPT_RT".into()),
        realtime: Ok("1".into()),
        config: set(&[("PREEMPT_RT_NEEDS_BH_LOCK", 'n'), ("RCU_NOCB_CPU", 'y')]),
        parameters: Ok(BTreeMap::new()),
        online: Ok(cores("0-3")),
        isolated: Ok(cores("2-3")),
        nohz_full: Ok(Some(cores("2-3"))),
        rcu_nocbs: Ok(cores("2-3")),
        governors: (0..4).map(|core| (core, Ok("performance".to_owned()))).collect(),
        idle_states: (0..4).map(|core| (core, idle_state(2))).collect(),
        rt_share: Ok((-1, 1_000_000)),
        fair_servers: Ok((0..4)
            .map(|core| FairServer { core, runtime_ns: 50_000_000, period_ns: 1_000_000_000 })
            .collect()),
        rt_group: Ok(RtGroup::Off),
        irqs: Ok(vec![irq(30, "eth0-rx-0", "0-1"), irq(31, "eth0-rx-1", "0-1"), irq(40, "nvme0", "0")]),
        irq_threads: Ok(vec![thread("irq/30-eth0-rx-0", 50), thread("ksoftirqd/2", 0), thread("ksoftirqd/3", 0)]),
        huge_pages_for_all: Ok("madvise".into()),
        huge_pages_of_shmem: Ok("never".into()),
        reserved_huge_pages: Ok(0),
        swaps: Ok(vec![]),
        clock_source: Ok("tsc".into()),
        nics: Ok(vec![Nic {
            name: "eth0".into(),
            is_physical: true,
            irqs: vec![30, 31],
            receive_queues: Ok(2),
            defer: Ok(0),
        }]),
        calls: Calls {
            capabilities: Ok(u64::MAX),
            priority: bounds(0),
            locked: bounds(0),
            descriptors: bounds(1 << 20),
            timer_slack_ns: Ok(1),
            clock: Ok(ClockState { tai_offset_s: 37, is_synchronised: true, error_us_max: 500 }),
            addresses: Ok(vec![("eth0".into(), [192, 0, 2, 1].into()), ("lo".into(), [127, 0, 0, 1].into())]),
            coalescing: [("eth0".to_owned(), Ok(gathers(0)))].into(),
            channels: [("eth0".to_owned(), Ok(channels(2)))].into(),
        },
    }
}

fn gathers(receive_us: u32) -> Coalescing {
    Coalescing { receive_us, receive_frames: 0, send_us: 0, is_adaptive: false }
}

fn channels(combined_max: u32) -> Channels {
    Channels { receive: 0, receive_max: 0, combined: 1, combined_max }
}

/// One datapath that spins on core 2 as an ordinary thread, and one for the rest.
fn asked() -> Wanted {
    Wanted {
        is_given: true,
        datapaths: vec![
            Datapath {
                name: "rt".into(),
                core: Some(2),
                fifo: None,
                spins: true,
                is_real_time: true,
                polls_its_cards: false,
                addresses: vec![[192, 0, 2, 1].into()],
                interfaces: vec![],
                loads: vec![],
                hears: vec![],
                raw: vec![],
            },
            Datapath {
                name: "rest".into(),
                core: Some(0),
                fifo: None,
                spins: false,
                is_real_time: false,
                polls_its_cards: false,
                addresses: vec![],
                interfaces: vec![],
                loads: vec![],
                hears: vec![],
                raw: vec![],
            },
        ],
        locked_bytes: Some(1 << 30),
        memory_bytes: 1 << 30,
        huge_pages: HugePages::Require,
        descriptors: 10_000,
        gossip: None,
        timed: Vec::new(),
    }
}

/// Gossip of 192.0.2.1 with one other host, and no other.
fn gossiping() -> Wanted {
    gossip("192.0.2.1:7100", &["10.0.0.0/24", "fd00::/64"], &["192.0.2.1:7100", "10.0.0.7:7100"])
}

fn gossip(bind: &str, allow: &[&str], seeds: &[&str]) -> Wanted {
    let network = |text: &&str| {
        let (base, prefix) = text.split_once('/').unwrap();
        insane_core::Network::new(base.parse().unwrap(), prefix.parse().unwrap()).unwrap()
    };
    let mut allow: Vec<_> = allow.iter().map(network).collect();
    // What the machine itself has is its own.
    allow.extend(bind.starts_with("192.0.2.").then(|| network(&"10.0.1.0/24")));
    let gossip = insane_config::GossipPlan {
        bind: bind.parse().unwrap(),
        cluster: "c".into(),
        allow,
        seeds: seeds.iter().map(|seed| seed.parse().unwrap()).collect(),
        links: Vec::new(),
        peers_max: 8,
        forget_after: insane_core::Nanos::from_secs(30),
    };
    Wanted { gossip: Some(gossip), ..asked() }
}

fn with_slots() -> Wanted {
    Wanted { timed: vec!["line-1/axis/*".into()], ..asked() }
}

/// As [`asked`], with the real-time datapath under SCHED_FIFO 60, asleep between messages.
fn asleep() -> Wanted {
    let mut wanted = asked();
    wanted.datapaths[0].fifo = Some(60);
    wanted.datapaths[0].spins = false;
    wanted
}

/// As [`asked`], with the real-time datapath under SCHED_FIFO 60, never asleep.
fn hog() -> Wanted {
    let mut wanted = asleep();
    wanted.datapaths[0].spins = true;
    wanted
}

/// As [`asleep`] and [`hog`], at the highest priority there is.
fn highest() -> Wanted {
    let mut wanted = asleep();
    wanted.datapaths[0].fifo = Some(98);
    wanted
}

fn highest_hog() -> Wanted {
    let mut wanted = hog();
    wanted.datapaths[0].fifo = Some(98);
    wanted
}

/// As [`asked`], with a link over AF_XDP.
fn over_xdp() -> Wanted {
    let mut wanted = asked();
    wanted.datapaths[1].loads = vec!["fast".into()];
    let interface = "eth0".into();
    wanted.datapaths[1].hears = vec![Hears { link: "fast".into(), interface, queue: 0, queues_max: 4, port: 7400 }];
    wanted
}

/// The same, of one queue alone.
fn over_one_queue() -> Wanted {
    let mut wanted = over_xdp();
    wanted.datapaths[1].hears[0].queues_max = 1;
    wanted
}

/// As [`asked`], with a link over packet sockets.
fn over_packets() -> Wanted {
    let mut wanted = asked();
    wanted.datapaths[1].raw = vec!["slow".into()];
    wanted
}

fn nothing() -> Wanted {
    Wanted::nothing()
}

pub(super) fn find(id: &str, host: &Host, wanted: &Wanted) -> Option<Finding> {
    Finding::of(entries().find(|entry| entry.id == id).unwrap(), host, wanted)
}

pub(super) type Case = (&'static str, fn() -> Wanted, fn(&mut Host), State, &'static str);

/// Without capability `number`.
fn without(number: u32) -> Read<u64> {
    Ok(!(1 << number))
}

/// Entry, configuration, what is changed in the good host, its state then, a part of what
/// is shown.
pub(super) const CASES: &[Case] = &[
    ("kernel-version", nothing, |h| h.kernel = Ok((6, 1)), Good, "6.18.1-rt"),
    ("kernel-version", nothing, |h| h.kernel = Ok((5, 19)), Bad, "6.18.1-rt"),
    ("kernel-version", nothing, |h| h.kernel = unread(), State::Unread, "no such file"),
    ("preempt-rt", nothing, |_| {}, Good, "PREEMPT_RT"),
    ("preempt-rt", nothing, |h| h.realtime = unread(), Good, "PREEMPT_RT"),
    (
        "preempt-rt",
        nothing,
        |h| (h.realtime, h.build) = (unread(), Ok("#1 SMP PREEMPT".into())),
        Warning,
        "#1 SMP PREEMPT",
    ),
    ("preempt-rt", nothing, |h| (h.realtime, h.build) = (unread(), unread()), State::Unread, "no such file"),
    ("softirq-lock", nothing, |_| {}, Good, "without it"),
    ("softirq-lock", nothing, |h| h.config = set(&[("PREEMPT_RT_NEEDS_BH_LOCK", 'y')]), Warning, "with it"),
    ("softirq-lock", nothing, |h| h.config = set(&[]), Warning, "older"),
    ("softirq-lock", nothing, |h| (h.config, h.kernel) = (unread(), Ok((6, 6))), Warning, "before 6.12"),
    ("softirq-lock", nothing, |h| h.config = unread(), State::Unread, "no such file"),
    ("cap-sys-nice", nothing, |_| {}, Good, "held"),
    ("cap-sys-nice", nothing, |h| h.calls.capabilities = without(23), Warning, "missing"),
    ("cap-sys-nice", hog, |h| h.calls.capabilities = without(23), Bad, "SCHED_FIFO 60"),
    (
        "cap-sys-nice",
        hog,
        |h| (h.calls.capabilities, h.calls.priority) = (without(23), bounds(60)),
        Warning,
        "admits priority 60",
    ),
    ("cap-sys-nice", nothing, |h| h.calls.capabilities = unread(), State::Unread, "no such file"),
    ("cap-ipc-lock", nothing, |_| {}, Good, "held"),
    ("cap-ipc-lock", asked, |h| h.calls.capabilities = without(14), Bad, "memory locked"),
    (
        "cap-ipc-lock",
        asked,
        |h| (h.calls.capabilities, h.calls.locked) = (without(14), bounds(1 << 30)),
        Good,
        "suffices",
    ),
    ("cap-ipc-lock", nothing, |h| h.calls.capabilities = without(14), Warning, "missing"),
    ("cap-ipc-lock", nothing, |h| h.calls.capabilities = unread(), State::Unread, ""),
    ("cap-net-admin", nothing, |_| {}, Good, "held"),
    ("cap-net-admin", nothing, |h| h.calls.capabilities = without(12), Warning, "missing"),
    ("cap-net-admin", polled, |h| h.calls.capabilities = without(12), Bad, "polled"),
    ("cap-net-admin", nothing, |h| h.calls.capabilities = unread(), State::Unread, ""),
    ("cap-net-admin", over_xdp, |h| h.calls.capabilities = without(12), Bad, "do not open without: \"fast\""),
    ("cap-net-raw", over_xdp, |_| {}, Good, "held"),
    ("cap-net-raw", asked, |h| h.calls.capabilities = without(13), Good, "not needed"),
    ("cap-net-raw", over_xdp, |h| h.calls.capabilities = without(13), Bad, "do not open without: \"fast\""),
    ("cap-net-raw", over_packets, |h| h.calls.capabilities = without(13), Bad, "do not open without: \"slow\""),
    ("cap-net-raw", over_xdp, |h| h.calls.capabilities = unread(), State::Unread, ""),
    ("cap-bpf", over_xdp, |h| h.calls.capabilities = Ok(1 << 12), Bad, "do not open without: \"fast\""),
    ("cap-bpf", over_packets, |h| h.calls.capabilities = Ok(0), Warning, "missing"),
    ("cap-bpf", nothing, |h| h.calls.capabilities = without(39), Good, "held"),
    ("cap-bpf", nothing, |h| h.calls.capabilities = Ok(1 << 39), Good, "held"),
    ("cap-bpf", nothing, |h| h.calls.capabilities = Ok(0), Warning, "missing"),
    ("cap-bpf", nothing, |h| h.calls.capabilities = unread(), State::Unread, ""),
    ("limit-rtprio", nothing, |_| {}, Good, "CAP_SYS_NICE"),
    ("limit-rtprio", nothing, |h| h.calls.capabilities = unread(), State::Unread, ""),
    ("limit-rtprio", nothing, |h| h.calls.capabilities = without(23), Warning, "0"),
    ("limit-rtprio", hog, |h| h.calls.capabilities = without(23), Bad, "wants SCHED_FIFO 60"),
    ("limit-rtprio", hog, |h| (h.calls.capabilities, h.calls.priority) = (without(23), bounds(60)), Good, "60"),
    ("limit-rtprio", hog, |h| (h.calls.capabilities, h.calls.priority) = (without(23), unread()), State::Unread, ""),
    ("limit-memlock", asked, |_| {}, Good, "CAP_IPC_LOCK"),
    ("limit-memlock", asked, |h| h.calls.capabilities = without(14), Bad, "1 GiB locked"),
    ("limit-memlock", nothing, |h| h.calls.capabilities = without(14), Warning, "memory.limit_bytes"),
    ("limit-memlock", asked, |h| (h.calls.capabilities, h.calls.locked) = (without(14), unread()), State::Unread, ""),
    ("limit-nofile", asked, |_| {}, Good, "1048576"),
    ("limit-nofile", asked, |h| h.calls.descriptors = Ok(Bounds { soft: None, hard: None }), Good, "unlimited"),
    (
        "limit-nofile",
        asked,
        |h| h.calls.descriptors = bounds(1024),
        Warning,
        "1024 may be open; used up, the quotas hold 10000",
    ),
    ("limit-nofile", asked, |h| h.calls.descriptors = unread(), State::Unread, ""),
    ("rt-throttling", nothing, |_| {}, Good, "off"),
    ("rt-throttling", nothing, |h| h.rt_share = Ok((950_000, 1_000_000)), Good, "SCHED_DEADLINE only"),
    (
        "rt-throttling",
        nothing,
        |h| (h.rt_share, h.rt_group) = (Ok((950_000, 1_000_000)), Ok(RtGroup::On)),
        Warning,
        "950000",
    ),
    ("rt-throttling", asleep, |h| (h.rt_share, h.kernel) = (Ok((950_000, 1_000_000)), Ok((6, 11))), Warning, "950000"),
    ("rt-throttling", hog, |h| (h.rt_share, h.kernel) = (Ok((950_000, 1_000_000)), Ok((6, 11))), Bad, "\"rt\" spins"),
    ("rt-throttling", nothing, |h| (h.rt_share, h.kernel) = (Ok((0, 1_000_000)), Ok((6, 11))), Bad, "never run"),
    ("rt-throttling", nothing, |h| h.rt_share = unread(), State::Unread, ""),
    ("fair-server", nothing, |_| {}, Good, "50 of 1000 ms"),
    ("fair-server", nothing, |h| (h.kernel, h.fair_servers) = (Ok((6, 11)), unread()), Good, "has none"),
    ("fair-server", asked, |_| {}, Good, "50 of 1000 ms"),
    ("fair-server", hog, |_| {}, Bad, "on core 2, where datapath \"rt\" spins"),
    ("fair-server", nothing, |h| h.fair_servers.as_mut().unwrap()[1].runtime_ns = 0, Warning, "off on cores 1"),
    ("fair-server", hog, |h| h.fair_servers.as_mut().unwrap()[2].runtime_ns = 0, Good, "50 of 1000 ms"),
    ("fair-server", nothing, |h| h.fair_servers = unread(), State::Unread, "no such file"),
    ("fair-server", nothing, |h| h.fair_servers = Ok(vec![]), State::Unread, "no such file"),
    ("rt-group-sched", nothing, |_| {}, Good, "not rationed"),
    ("rt-group-sched", nothing, |h| h.rt_group = ration(900_000), Good, "900000 us"),
    ("rt-group-sched", nothing, |h| h.rt_group = ration(0), Bad, "EPERM"),
    ("rt-group-sched", nothing, |h| h.rt_group = Ok(RtGroup::On), Warning, "rationed"),
    ("rt-group-sched", nothing, |h| h.rt_group = unread(), State::Unread, ""),
    ("datapath-cores", asked, |_| {}, Good, "pinned to 0,2"),
    ("datapath-cores", asked, |h| h.online = Ok(cores("0-1")), Bad, "\"rt\" wants core 2; on line are 0-1"),
    ("datapath-cores", loose, |_| {}, Warning, "not pinned"),
    ("datapath-cores", asked, |h| h.online = unread(), State::Unread, ""),
    ("isolated-cores", nothing, |_| {}, Good, "2-3"),
    ("isolated-cores", nothing, |h| h.isolated = Ok(Cores::default()), Warning, "none"),
    ("isolated-cores", asked, |_| {}, Good, "2-3"),
    ("isolated-cores", asked, |h| h.isolated = Ok(cores("3")), Bad, "spins on 2"),
    ("isolated-cores", asleep, |h| h.isolated = Ok(cores("3")), Warning, "pinned to 2"),
    ("isolated-cores", asked, |h| h.isolated = unread(), State::Unread, ""),
    ("core-sharing", asked, |_| {}, Good, "core of its own"),
    ("core-sharing", asleep, |_| {}, Good, "no datapath spins"),
    ("core-sharing", asked, |h| h.irqs = Ok(vec![irq(30, "eth0-rx-0", "2")]), Bad, "serves interrupts 30"),
    ("core-sharing", polled, |h| h.irqs = Ok(vec![irq(30, "eth0-rx-0", "2")]), Good, "core of its own"),
    ("core-sharing", hog, |h| h.isolated = Ok(cores("3")), Bad, "not isolated"),
    ("core-sharing", loose, |_| {}, Bad, "not pinned"),
    ("core-sharing", together, |_| {}, Bad, "with another datapath"),
    ("core-sharing", asked, |h| h.irqs = unread(), State::Unread, ""),
    ("nohz-full", asked, |_| {}, Good, "2-3"),
    ("nohz-full", asked, |h| h.nohz_full = Ok(Some(cores("3"))), Warning, "2 should be in it"),
    ("nohz-full", asked, |h| h.nohz_full = Ok(None), Warning, "built without"),
    ("nohz-full", asleep, |h| h.nohz_full = Ok(None), Good, "no datapath spins"),
    (
        "nohz-full",
        nothing,
        |h| (h.nohz_full, h.isolated) = (Ok(Some(Cores::default())), Ok(Cores::default())),
        Warning,
        "none",
    ),
    ("nohz-full", asked, |h| h.nohz_full = unread(), State::Unread, ""),
    ("rcu-nocbs", asked, |_| {}, Good, "2-3"),
    ("rcu-nocbs", asked, |h| h.rcu_nocbs = Ok(cores("3")), Warning, "2 should be in it"),
    ("rcu-nocbs", asked, |h| h.config = set(&[("RCU_NOCB_CPU", 'n')]), Warning, "built without"),
    (
        "rcu-nocbs",
        nothing,
        |h| (h.rcu_nocbs, h.isolated) = (Ok(Cores::default()), Ok(Cores::default())),
        Warning,
        "none",
    ),
    ("rcu-nocbs", asked, |h| h.rcu_nocbs = unread(), State::Unread, ""),
    ("irq-affinity", nothing, |_| {}, Good, "none of 3 at cores 2-3"),
    ("irq-affinity", asked, |h| h.irqs.as_mut().unwrap().push(irq(50, "disk", "0,2")), Warning, "50 (disk)"),
    ("irq-affinity", asleep, |h| h.irqs = Ok(vec![irq(30, "eth0-rx-0", "2")]), Good, "none of 1 at cores 2"),
    ("irq-affinity", nothing, |h| h.irqs.as_mut().unwrap()[0].cores = unread(), State::Unread, ""),
    ("irq-affinity", nothing, |h| h.irqs = unread(), State::Unread, ""),
    ("irq-threads", asleep, |_| {}, Good, "none goes before"),
    ("irq-threads", asleep, |h| h.irq_threads = Ok(vec![]), Good, "no threads here"),
    (
        "irq-threads",
        asleep,
        |h| h.irq_threads = Ok(vec![thread("irq/99-disk", 70)]),
        Warning,
        "irq/99-disk (priority 70)",
    ),
    ("irq-threads", asleep, |h| h.irq_threads = Ok(vec![thread("irq/40-nvme0", 70)]), Good, "none goes before"),
    (
        "irq-threads",
        hog,
        |h| h.irqs = Ok(vec![irq(30, "eth0-rx-0", "2")]),
        Bad,
        "irq/30-eth0-rx-0 (priority 50) never runs",
    ),
    (
        "irq-threads",
        highest_hog,
        |h| h.irqs = Ok(vec![irq(30, "eth0-rx-0", "2")]),
        Bad,
        "irq/30-eth0-rx-0 (priority 50) never runs",
    ),
    (
        "irq-threads",
        highest,
        |h| h.irq_threads = Ok(vec![thread("irq/99-disk", 99)]),
        Warning,
        "irq/99-disk (priority 99)",
    ),
    ("irq-threads", asleep, |h| h.irq_threads = unread(), State::Unread, ""),
    ("softirq-threads", asleep, |_| {}, Good, "none holds up"),
    (
        "softirq-threads",
        asleep,
        |h| h.irqs = Ok(vec![irq(30, "eth0-rx-0", "2")]),
        Warning,
        "ksoftirqd/2 (priority 0) runs after",
    ),
    (
        "softirq-threads",
        highest,
        |h| h.irqs = Ok(vec![irq(30, "eth0-rx-0", "2")]),
        Warning,
        "ksoftirqd/2 (priority 0) runs after",
    ),
    ("softirq-threads", hog, |_| {}, Bad, "never sleeps"),
    ("softirq-threads", hog, |h| h.irq_threads = Ok(vec![thread("ksoftirqd/2", 61)]), Good, "none holds up"),
    ("softirq-threads", asleep, |h| h.irq_threads = unread(), State::Unread, ""),
    ("cpu-governor", nothing, |_| {}, Good, "performance"),
    ("cpu-governor", asked, |h| _ = h.governors.insert(2, Ok("powersave".into())), Warning, "powersave on core 2"),
    ("cpu-governor", asked, |h| _ = h.governors.insert(1, Ok("powersave".into())), Good, "performance"),
    ("cpu-governor", asked, |h| _ = h.governors.insert(2, unread()), State::Unread, ""),
    ("cpu-governor", nothing, |h| h.online = unread(), State::Unread, ""),
    ("cpu-idle", nothing, |_| {}, Good, "2 us to leave C6"),
    ("cpu-idle", nothing, |h| _ = h.idle_states.insert(3, idle_state(50)), Warning, "50 us to leave C6 on core 3"),
    ("cpu-idle", asleep, |h| _ = h.idle_states.insert(2, idle_state(200)), Bad, "200 us"),
    ("cpu-idle", asked, |h| _ = h.idle_states.insert(2, idle_state(200)), Good, "no core that matters sleeps"),
    ("cpu-idle", nothing, |h| h.parameters = Ok([("idle".to_owned(), "poll".to_owned())].into()), Good, "idle=poll"),
    ("cpu-idle", nothing, |h| _ = h.idle_states.insert(3, Ok(vec![])), State::Unread, "no states"),
    ("cpu-idle", asleep, |h| _ = h.idle_states.insert(2, unread()), State::Unread, ""),
    ("transparent-huge-pages", nothing, |_| {}, Good, "madvise"),
    ("transparent-huge-pages", nothing, |h| h.huge_pages_for_all = Ok("always".into()), Warning, "always"),
    ("transparent-huge-pages", nothing, |h| h.huge_pages_for_all = unread(), State::Unread, ""),
    ("swap", nothing, |_| {}, Good, "none"),
    ("swap", asked, |h| h.swaps = Ok(vec!["/dev/sda2".into()]), Warning, "/dev/sda2"),
    ("swap", unlocked, |h| h.swaps = Ok(vec!["/dev/sda2".into()]), Bad, "locks nothing"),
    ("swap", nothing, |h| h.swaps = unread(), State::Unread, ""),
    ("huge-pages", nothing, |h| h.huge_pages_of_shmem = Ok("deny".into()), Good, "not asked for"),
    ("huge-pages", asked, |_| {}, Good, "never"),
    ("huge-pages", asked, |h| h.huge_pages_of_shmem = Ok("deny".into()), Bad, "requires"),
    ("huge-pages", asked, |h| h.huge_pages_of_shmem = unread(), State::Unread, ""),
    ("clock-source", nothing, |_| {}, Good, "tsc"),
    ("clock-source", nothing, |h| h.clock_source = Ok("hpet".into()), Bad, "hpet"),
    ("clock-source", nothing, |h| h.clock_source = Ok("sundial\u{1b}[2J".into()), Warning, "sundial"),
    ("clock-source", nothing, |h| h.clock_source = unread(), State::Unread, ""),
    ("tai-offset", nothing, |_| {}, Good, "37 s"),
    ("tai-offset", nothing, |h| h.calls.clock.as_mut().unwrap().tai_offset_s = 0, Warning, "not set"),
    ("tai-offset", nothing, |h| h.calls.clock = unread(), State::Unread, ""),
    ("clock-sync", nothing, |_| {}, Good, "within 500 us"),
    ("clock-sync", nothing, |h| h.calls.clock.as_mut().unwrap().is_synchronised = false, Warning, "nobody"),
    ("clock-sync", nothing, |h| h.calls.clock = unread(), State::Unread, ""),
    ("clock-sync", with_slots, |_| {}, Good, "within 500 us"),
    (
        "clock-sync",
        with_slots,
        |h| h.calls.clock.as_mut().unwrap().is_synchronised = false,
        Bad,
        "line-1/axis/* have slots",
    ),
    ("gossip-address", gossiping, |_| {}, Good, "of eth0"),
    ("gossip-address", gossiping, |h| h.calls.addresses = unread(), State::Unread, ""),
    ("gossip-address", gossiping, |h| h.calls.addresses = Ok(vec![]), Bad, "no interface has this address"),
    ("gossip-address", || gossip("127.0.0.1:7100", &["127.0.0.0/8"], &[]), |_| {}, Good, "this machine only"),
    (
        "gossip-address",
        || gossip("127.0.0.1:7100", &["10.0.0.0/24"], &["10.0.0.2:7100"]),
        |_| {},
        Bad,
        "10.0.0.2:7100, 10.0.0.0/24 are beyond this machine",
    ),
    (
        "gossip-seeds",
        || gossip("10.0.0.1:7100", &["10.0.0.0/24"], &["10.0.0.1:7100", "10.0.0.7:7100"]),
        |_| {},
        Good,
        "10.0.0.7:7100",
    ),
    (
        "gossip-seeds",
        || gossip("10.0.0.1:7100", &["10.0.0.0/24"], &["10.0.0.7:7100"]),
        |h| h.calls.addresses = unread(),
        State::Unread,
        "",
    ),
    ("gossip-seeds", || gossip("10.0.0.1:7100", &["10.0.0.0/24"], &[]), |_| {}, Warning, "none: this host waits"),
    (
        "gossip-seeds",
        || gossip("10.0.0.1:7100", &["10.0.0.0/24"], &["10.0.0.1:7100"]),
        |_| {},
        Warning,
        "its own only seed",
    ),
    (
        "gossip-seeds",
        || gossip("10.0.0.1:7100", &["10.0.0.0/24"], &["10.0.0.7:7100"]),
        |h| h.calls.addresses = Ok(vec![("eth0".into(), [10, 0, 0, 7].into())]),
        Warning,
        "all 1 are addresses of this host",
    ),
    ("gossip-trust", gossiping, |_| {}, Good, "10.0.0.0/24, fd00::/64, 10.0.1.0/24 by eth0"),
    ("gossip-trust", gossiping, |h| h.calls.addresses = unread(), State::Unread, ""),
    (
        "gossip-trust",
        || gossip("10.0.0.1:7100", &["10.0.0.0/24", "0.0.0.0/0"], &[]),
        |_| {},
        Bad,
        "0.0.0.0/0 can be reached",
    ),
    ("gossip-trust", || gossip("10.0.0.1:7100", &["8.8.8.0/24"], &[]), |_| {}, Bad, "8.8.8.0/24 can be reached"),
    ("gossip-trust", || gossip("10.0.0.1:7100", &["10.0.0.0/7"], &[]), |_| {}, Bad, "can be reached"),
    ("timer-slack", nothing, |_| {}, Good, "1 ns"),
    ("timer-slack", nothing, |h| h.calls.timer_slack_ns = Ok(50_000), Warning, "50000 ns"),
    ("timer-slack", asked, |h| h.calls.timer_slack_ns = Ok(50_000), Warning, "50000 ns"),
    ("timer-slack", alone, |h| h.calls.timer_slack_ns = Ok(50_000), Good, "no datapath"),
    ("timer-slack", nothing, |h| h.calls.timer_slack_ns = unread(), State::Unread, ""),
    ("nic-queues", nothing, |_| {}, Good, "eth0 has 2"),
    ("nic-queues", nothing, |h| h.nics.as_mut().unwrap()[0].receive_queues = Ok(1), Warning, "eth0 has 1"),
    ("nic-queues", over_xdp, |_| {}, Good, "eth0 has 2, all of which link fast hears"),
    ("nic-queues", over_xdp, |h| h.nics.as_mut().unwrap()[0].receive_queues = Ok(4), Good, "eth0 has 4, all"),
    ("nic-queues", over_xdp, |h| h.nics.as_mut().unwrap()[0].receive_queues = Ok(5), Warning, "hears queue 0 alone"),
    ("nic-queues", over_xdp, |h| _ = h.calls.channels.insert("eth0".into(), unread()), Warning, "queue 0 alone"),
    ("nic-queues", over_one_queue, |_| {}, Warning, "eth0 has 2, of which link fast hears queue 0 alone"),
    ("nic-queues", over_xdp, |h| h.nics.as_mut().unwrap()[0].receive_queues = Ok(1), Good, "eth0 has 1"),
    ("nic-queues", elsewhere, |_| {}, Good, "eth0 has 2"),
    ("nic-queues", nothing, |h| h.nics = unread(), State::Unread, ""),
    ("nic-coalescing", asked, |_| {}, Good, "0 us"),
    ("nic-coalescing", asked, |h| _ = h.calls.coalescing.insert("eth0".into(), Ok(gathers(50))), Warning, "50 us"),
    ("nic-coalescing", asked, |h| h.nics.as_mut().unwrap()[0].defer = Ok(2), Warning, "2 empty polls"),
    ("nic-coalescing", asked, |h| _ = h.calls.coalescing.insert("eth0".into(), unread()), State::Unread, ""),
    ("nic-coalescing", asked, |h| h.calls.coalescing.clear(), State::Unread, "not asked"),
];

fn ration(runtime_us: i64) -> Read<RtGroup> {
    Ok(RtGroup::Ration { path: "/sys/fs/cgroup/cpu/x/cpu.rt_runtime_us".into(), runtime_us })
}

fn polled() -> Wanted {
    let mut wanted = asked();
    wanted.datapaths[0].polls_its_cards = true;
    wanted
}

/// Bound to an address that no card has yet.
fn elsewhere() -> Wanted {
    let mut wanted = asked();
    wanted.datapaths[0].addresses = vec![[198, 51, 100, 7].into()];
    wanted
}

fn loose() -> Wanted {
    let mut wanted = asked();
    wanted.datapaths[0].core = None;
    wanted
}

fn together() -> Wanted {
    let mut wanted = asked();
    wanted.datapaths[1].core = Some(2);
    wanted
}

fn unlocked() -> Wanted {
    Wanted { locked_bytes: None, ..asked() }
}

fn alone() -> Wanted {
    let mut wanted = asked();
    wanted.datapaths.pop();
    wanted
}

#[test]
fn every_entry_says_what_it_should() {
    for (id, wanted, change, state, part) in CASES {
        let mut host = host();
        change(&mut host);
        let finding = find(id, &host, &wanted()).unwrap_or_else(|| panic!("{id} is left out"));
        assert_eq!((finding.state, finding.read.contains(part)), (*state, true), "{id}: {}, not {part}", finding.read);
        assert_eq!(finding.remedy.is_empty(), *state == Good, "{id}: {}", finding.remedy);
        assert!(!finding.read.contains(char::is_control) && !finding.read.is_empty());
    }
}

#[test]
fn every_entry_was_seen_good_not_good_and_not_read() {
    for entry in entries() {
        let states: BTreeSet<State> = CASES.iter().filter(|case| case.0 == entry.id).map(|case| case.3).collect();
        assert!(states.contains(&Good) && states.contains(&State::Unread), "{}", entry.id);
        assert!(states.contains(&Warning) || states.contains(&Bad), "{}", entry.id);
    }
}

#[test]
fn questions_that_do_not_arise_are_left_out() {
    let mut host = host();
    for id in [
        "gossip-address",
        "gossip-seeds",
        "gossip-trust",
        "datapath-cores",
        "core-sharing",
        "irq-threads",
        "softirq-threads",
    ] {
        assert!(find(id, &host, &nothing()).is_none(), "{id}");
    }
    host.realtime = Ok("0".into());
    assert!(find("softirq-lock", &host, &nothing()).is_none());
    host.isolated = Ok(Cores::default());
    assert!(find("irq-affinity", &host, &nothing()).is_none());
    let mut local = asked();
    local.datapaths[0].addresses = vec![[127, 0, 0, 1].into()];
    assert!(find("nic-queues", &host, &local).is_none());
    host.nics = Ok(vec![]);
    assert!(find("nic-queues", &host, &nothing()).is_none() && find("nic-coalescing", &host, &nothing()).is_none());
    host.huge_pages_of_shmem = unread();
    assert!(find("huge-pages", &host, &nothing()).is_none());
}

#[test]
fn a_card_of_another_datapath_is_not_its_own() {
    let mut host = host();
    host.irqs = Ok(vec![irq(30, "eth0-rx-0", "2")]);
    let mut wanted = asked();
    wanted.datapaths[0].addresses = vec![[127, 0, 0, 1].into()];
    assert_eq!(find("core-sharing", &host, &wanted).unwrap().state, Good, "loopback has no card");
    wanted.datapaths[0].addresses = vec![[0, 0, 0, 0].into()];
    assert_eq!(find("core-sharing", &host, &wanted).unwrap().state, Bad, "any address may be any card");
    wanted.datapaths[0].addresses = vec![[192, 0, 2, 1].into()];
    host.calls.addresses = unread();
    assert_eq!(find("core-sharing", &host, &wanted).unwrap().state, Bad, "what is not known may be");
}

#[test]
fn remedies_leave_a_core_to_the_system() {
    let mut host = host();
    host.online = Ok(cores("2"));
    host.isolated = Ok(Cores::default());
    let remedy = find("isolated-cores", &host, &nothing()).unwrap().remedy;
    assert!(remedy.starts_with("Nothing is left"), "{remedy}");
    host.online = Ok(cores("0-2"));
    let remedy = find("isolated-cores", &host, &nothing()).unwrap().remedy;
    assert!(remedy.ends_with("\n  isolcpus=2 nohz_full=2 rcu_nocbs=2"), "{remedy}");
    host.nohz_full = Ok(None);
    let remedy = find("isolated-cores", &host, &nothing()).unwrap().remedy;
    assert!(remedy.ends_with("\n  isolcpus=2 rcu_nocbs=2"), "what the kernel has not is not advised: {remedy}");
}

#[test]
fn names_of_interfaces_are_no_commands() {
    let mut host = host();
    let nic = &mut host.nics.as_mut().unwrap()[0];
    nic.name = "a;reboot'".into();
    nic.defer = Ok(1);
    let remedy = find("nic-coalescing", &host, &nothing()).unwrap().remedy;
    assert_eq!(remedy, "$ echo 0 > /sys/class/net/'a;reboot'\\'''/napi_defer_hard_irqs");
}

fn all(host: &Host) -> Vec<Finding> {
    entries().filter_map(|entry| Finding::of(entry, host, &asked())).collect()
}

#[test]
fn the_score_is_as_documented() {
    assert_eq!(score(&all(&host())), Some(100));
    assert_eq!(score(&[]), None);
    let of = |states: &[State]| {
        let findings = states.iter().zip(all(&host())).map(|(state, finding)| Finding { state: *state, ..finding });
        score(&findings.collect::<Vec<_>>())
    };
    // kernel-version weighs 5, preempt-rt 10, softirq-lock 3.
    assert_eq!(of(&[Good, Warning, Bad]), Some(100 * (5 * 2 + 10) / 36));
    assert_eq!(of(&[Good, State::Unread, Bad]), Some(100 * 10 / 16));
    assert_eq!(of(&[State::Unread]), None);
    let mut flawed = host();
    flawed.calls.capabilities = Ok(1 << 12 | 1 << 13 | 1 << 14 | 1 << 23);
    assert_eq!(all(&flawed).iter().filter(|finding| finding.state != Good).count(), 1);
    assert_eq!(score(&all(&flawed)), Some(99), "100 is for a host without a flaw");
}

#[test]
fn the_documented_table_is_the_real_one() {
    let documented: Vec<(String, u32)> = include_str!("../mod.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//! | `"))
        .map(|row| {
            let mut cells = row.split('|').map(str::trim);
            (cells.next().unwrap().trim_end_matches('`').to_owned(), cells.next().unwrap().parse().unwrap())
        })
        .collect();
    let real: Vec<(String, u32)> = entries().map(|entry| (entry.id.to_owned(), entry.weight)).collect();
    assert_eq!(documented, real);
}
