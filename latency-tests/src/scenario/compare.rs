//! The scenarios that set ours beside baselines and rivals.

use super::ours::{self, Place, token};
use super::{Findings, STREAMS, baselines, birth, network_sizes, sizes};
use crate::baseline::ring::MESSAGE_BYTES;
use crate::cli::{Cli, Hosting, Plugin};
use crate::harness::Bench;
use crate::harness::netns::Hosts;
use crate::harness::rounds::{Heading, Side, interleave};
use crate::ours::end::{Contract, Handling};
use crate::ours::plan::Seat;
use clap::ValueEnum;

pub(super) const OURS: &str = "insane-rt";
/// One FullHD frame of 24-bit colour: "6 MB".
const FRAME_BYTES: usize = 6_220_800;

/// Measures the sides in one set of rounds; the first is ours. Every other side gives
/// a row: the second is the baseline, whose row bears the plain name, and each further
/// one is a rival, whose name ends its row's.
pub(super) fn rows(
    bench: &Bench,
    findings: &mut Findings,
    name: &str,
    unit: &'static str,
    topology: &str,
    mut sides: Vec<Side<'_>>,
) {
    let rivals: Vec<String> = sides.iter().skip(2).map(|side| side.label.clone()).collect();
    let heading = |name: String| Heading { name, unit, topology: topology.to_owned() };
    match interleave(bench, &mut sides) {
        Err(fault) => findings.note(name, &fault),
        Ok(rounds) => {
            findings.dropped += rounds.dropped;
            let mut tables = rounds.tables(&heading(name.to_owned()), 0, 1);
            for (at, rival) in rivals.iter().enumerate() {
                tables.extend(rounds.tables(&heading(format!("{name}/{rival}")), 0, at + 2));
            }
            tables.into_iter().for_each(|table| findings.add(table));
        }
    }
}

/// Scenario `local`.
pub fn local(bench: &Bench, cli: &Cli, findings: &mut Findings) {
    let program = cli.insaned.as_deref();
    let mut sides = vec![
        Side::new(OURS, || ours::local_t1(bench, Contract::SMALL)),
        Side::new("copying ring", || baselines::ring_t1(bench)),
    ];
    sides.extend(rivals_t1(bench));
    rows(bench, findings, "local/64B", "us", "T1", sides);

    let attached = vec![
        Side::new(OURS, || ours::attached_t1(bench, program)),
        Side::new("copying ring", || baselines::ring_t1(bench)),
    ];
    rows(bench, findings, "local/attached-64B", "us", "T1", attached);

    let tokens = vec![
        Side::new("token for 6.22 MB", || ours::local_t1(bench, token(FRAME_BYTES))),
        // Travels in the cell, without a buffer.
        Side::new("token for 64 B", || ours::local_t1(bench, token(64))),
        // The smallest thing that takes a buffer: what size alone costs.
        Side::new("buffer-128B", || ours::local_t1(bench, token(128))),
    ];
    rows(bench, findings, &format!("local/token-{FRAME_BYTES}B"), "us", "T1", tokens);
}

/// The rivals of scenario `local` that are built in.
fn rivals_t1(_bench: &Bench) -> Vec<Side<'_>> {
    vec![
        #[cfg(feature = "iceoryx2")]
        Side::new("iceoryx2", || super::rivals::iceoryx2_t1(_bench)),
        #[cfg(feature = "aeron")]
        Side::new("aeron", || super::rivals::aeron_t1(_bench, crate::peers::aeron::Log::Default)),
        #[cfg(feature = "aeron")]
        Side::new("aeron-warm", || super::rivals::aeron_t1(_bench, crate::peers::aeron::Log::Warm)),
        #[cfg(feature = "zeromq")]
        Side::new("zeromq", || super::rivals::zeromq_t1(_bench)),
    ]
}

/// The rivals of scenario `throughput` that are built in.
fn rivals_flow(_bench: &Bench, _size: usize) -> Vec<Side<'_>> {
    vec![
        #[cfg(feature = "iceoryx2")]
        Side::new("iceoryx2", move || super::rivals::iceoryx2_flow(_bench, _size)),
        #[cfg(feature = "aeron")]
        Side::new("aeron", move || super::rivals::aeron_flow(_bench, _size)),
        #[cfg(feature = "zeromq")]
        Side::new("zeromq", move || super::rivals::zeromq_flow(_bench, _size)),
    ]
}

/// Scenario `hop`.
pub fn hop(bench: &Bench, cli: &Cli, findings: &mut Findings) {
    let program = cli.insaned.as_deref();
    let t3 = vec![
        Side::new(OURS, || ours::hop_t3(bench, program)),
        Side::new("copying relay", || baselines::relay_t3(bench)),
    ];
    rows(bench, findings, "hop/T3/64B", "us", "T3", t3);
    let t2 = vec![
        Side::new(OURS, || ours::hop_t2(bench, program)),
        Side::new("copying relay", || baselines::relay_t2(bench)),
    ];
    rows(bench, findings, "hop/T2/64B", "us", "T2", t2);
}

/// Scenario `network`.
pub fn network(bench: &Bench, cli: &Cli, findings: &mut Findings) {
    let plugins =
        Plugin::value_variants().iter().copied().filter(|plugin| cli.plugin.is_none_or(|only| only == *plugin));
    let plugins: Vec<Plugin> = plugins.collect();
    for plugin in &plugins {
        match plugin {
            Plugin::Udp => udp_on_one_host(bench, cli, findings),
            Plugin::Tcp => tcp(bench, cli, findings, Place::Loopback),
            Plugin::Rdma => super::over_rdma::network(bench, cli, findings),
            // A loopback interface is no Ethernet.
            _ => {}
        }
    }
    if !plugins.iter().any(|plugin| plugin.needs_hosts()) {
        return;
    }
    match Hosts::make() {
        Ok(hosts) => plugins.iter().for_each(|plugin| match plugin {
            Plugin::Udp => two_hosts(bench, cli, findings, &hosts),
            Plugin::Tcp => tcp(bench, cli, findings, Place::Veth(&hosts)),
            xdp @ (Plugin::XdpNative | Plugin::XdpSkb) => over_xdp(bench, cli, findings, &hosts, *xdp),
            dpdk @ (Plugin::Dpdk | Plugin::DpdkAfXdp) => {
                super::over_dpdk::network(bench, cli, findings, &hosts, *dpdk);
            }
            Plugin::DpdkMemif => super::over_dpdk::over_memif(bench, cli, findings, &hosts),
            Plugin::Rdma => {}
        }),
        Err(fault) => findings.note("network/veth/64B", &fault),
    }
}

/// How XDP is attached for the rows of a plugin, at both ends and for the raw loop, too.
fn attached(plugin: Plugin) -> (&'static str, bool) {
    if plugin == Plugin::XdpSkb { ("skb", false) } else { ("native", true) }
}

/// AF_XDP: the raw loop in the same mode, and the udp plugin without XDP on the path.
fn over_xdp(bench: &Bench, cli: &Cli, findings: &mut Findings, hosts: &Hosts, plugin: Plugin) {
    let (mode, in_driver) = attached(plugin);
    let place = Place::Veth(hosts);
    if plugin == Plugin::XdpNative && wants(cli, Hosting::Daemon) {
        through_daemons(bench, cli, findings, hosts);
    }
    if !wants(cli, Hosting::Inline) {
        return;
    }
    let sides = vec![
        Side::new(OURS, move || ours::network_inline(bench, place, plugin)),
        Side::new("raw AF_XDP", move || baselines::xdp_veth(bench, hosts, in_driver, MESSAGE_BYTES)),
        Side::new("udp-plugin", move || ours::network_inline(bench, place, Plugin::Udp)),
    ];
    let topology = format!("T1 two hosts, XDP {mode}");
    rows(bench, findings, &format!("network/xdp-{mode}-veth/64B/inline"), "us", &topology, sides);
}

/// AF_XDP through two daemons, each on the core of its application: a relay that owns the socket
/// in the same place, and the udp plugin without XDP on the path.
fn through_daemons(bench: &Bench, cli: &Cli, findings: &mut Findings, hosts: &Hosts) {
    let program = cli.insaned.as_deref();
    let seats = [bench.cores.app, bench.cores.other].map(Seat::shared);
    let over = move |plugin| move || ours::network_daemon(bench, hosts, program, plugin, seats);
    let sides = vec![
        Side::new(OURS, over(Plugin::XdpNative)),
        Side::new("raw AF_XDP relay", move || baselines::xdp_relayed(bench, hosts, true)),
        Side::new("udp-plugin", over(Plugin::Udp)),
    ];
    rows(bench, findings, "network/xdp-native-veth/64B/daemon", "us", "T4 two hosts, XDP native", sides);
}

/// AF_XDP one way, in both modes.
fn flows_over_xdp(bench: &Bench, cli: &Cli, findings: &mut Findings, hosts: &Hosts, plugin: Plugin) {
    let (mode, in_driver) = attached(plugin);
    for size in network_sizes(cli).into_iter().filter(|size| *size <= XDP_FLOW_BYTES_MAX) {
        let sides = vec![
            Side::new(OURS, move || ours::network_flow(bench, Place::Veth(hosts), plugin, size)),
            Side::new("raw AF_XDP", move || baselines::xdp_flow(bench, hosts, in_driver, size)),
        ];
        let (name, topology) =
            (format!("throughput/xdp-{mode}-veth/{size}B"), format!("T3 and T1 two hosts, XDP {mode}"));
        rows(bench, findings, &name, "messages/s", &topology, sides);
    }
}

/// A message of one frame: the raw loop has no others.
const XDP_FLOW_BYTES_MAX: usize = 1_400;

fn wants(cli: &Cli, hosting: Hosting) -> bool {
    cli.hosting.is_none_or(|only| only == hosting)
}

fn udp_on_one_host(bench: &Bench, cli: &Cli, findings: &mut Findings) {
    let program = cli.insaned.as_deref();
    if wants(cli, Hosting::Inline) {
        let sides = vec![
            Side::new(OURS, || ours::network_inline(bench, Place::Loopback, Plugin::Udp)),
            Side::new("raw UDP", || baselines::udp_loopback(bench)),
        ];
        rows(bench, findings, "network/loopback/64B/inline", "us", "T1", sides);
    }
    if wants(cli, Hosting::Daemon) {
        let sides = vec![
            Side::new(OURS, || ours::network_self(bench, program)),
            Side::new("raw UDP to itself", || baselines::udp_to_itself(bench)),
        ];
        rows(bench, findings, "network/self/64B/daemon", "us", "T3", sides);
    }
}

/// The row of the tcp plugin at this place.
fn tcp(bench: &Bench, cli: &Cli, findings: &mut Findings, place: Place<'_>) {
    if !wants(cli, Hosting::Inline) {
        return;
    }
    let (name, topology) = match place {
        Place::Loopback => ("network/tcp-loopback/64B/inline", "T1"),
        Place::Veth(_) => ("network/tcp-veth/64B/inline", "T1 two hosts"),
    };
    let raw = move || match place {
        Place::Loopback => baselines::tcp_loopback(bench),
        Place::Veth(hosts) => baselines::tcp_veth(bench, hosts, MESSAGE_BYTES),
    };
    let ours = move || ours::network_inline(bench, place, Plugin::Tcp);
    rows(bench, findings, name, "us", topology, vec![Side::new(OURS, ours), Side::new("raw TCP", raw)]);
}

fn two_hosts(bench: &Bench, cli: &Cli, findings: &mut Findings, hosts: &Hosts) {
    let program = cli.insaned.as_deref();
    for (hosting, name) in [(Hosting::Inline, "inline"), (Hosting::Thread, "thread"), (Hosting::Daemon, "daemon")] {
        if !wants(cli, hosting) {
            continue;
        }
        let ours = move || match hosting {
            Hosting::Inline => ours::network_inline(bench, Place::Veth(hosts), Plugin::Udp),
            Hosting::Thread => ours::network_thread(bench, Place::Veth(hosts)),
            Hosting::Daemon => ours::network_daemon(bench, hosts, program, Plugin::Udp, ours::shared_seats(bench)),
        };
        let sides =
            vec![Side::new(OURS, ours), Side::new("raw UDP", || baselines::udp_veth(bench, hosts, MESSAGE_BYTES))];
        rows(bench, findings, &format!("network/veth/64B/{name}"), "us", "T1 two hosts", sides);
    }
}

/// Scenario `scale`.
pub fn scale(bench: &Bench, findings: &mut Findings) {
    rows(bench, findings, "scale/streams-4096", "us", "T3", super::scale::sides(bench));
    rows(bench, findings, "scale/streams-4096/block", "us", "T3", super::scale::asleep(bench));
    rows(bench, findings, "scale/sessions-500", "us", "T3", super::scale::sessions(bench));
    super::scale::extra_sink(bench, findings);
}

/// Scenario `idle`.
pub fn idle(bench: &Bench, cli: &Cli, findings: &mut Findings) {
    super::idle::cpu(bench, cli.insaned.as_deref(), findings);
    rows(bench, findings, "idle/blocking-64B", "us", "T1", super::idle::sides(bench));
}

/// Scenario `throughput`.
pub fn throughput(bench: &Bench, cli: &Cli, findings: &mut Findings) {
    let wants = |plugin| cli.plugin.is_none_or(|only| only == plugin);
    if !cli.tokens {
        if cli.plugin.is_none_or(Plugin::needs_hosts) {
            match Hosts::make() {
                Ok(hosts) => flows_between_hosts(bench, cli, findings, &hosts),
                Err(fault) => findings.note("throughput over a network", &fault),
            }
        }
        if wants(Plugin::Rdma) {
            super::over_rdma::throughput(bench, cli, findings);
        }
    }
    if cli.plugin.is_some() {
        return;
    }
    for size in sizes(cli) {
        if !cli.tokens {
            touched(bench, cli, findings, size);
        }
        if !cli.touch {
            let sides = vec![
                Side::new(OURS, || ours::flow_in_process(bench, size, Handling::Token)),
                Side::new("ring of numbers", || baselines::number_flow(bench)),
            ];
            rows(bench, findings, &format!("throughput/tokens/{size}B"), "messages/s", "T1", sides);
        }
    }
}

/// Flows over the plugins that are measured between two hosts.
fn flows_between_hosts(bench: &Bench, cli: &Cli, findings: &mut Findings, hosts: &Hosts) {
    let wants = |plugin| cli.plugin.is_none_or(|only| only == plugin);
    if wants(Plugin::Udp) {
        over_udp(bench, cli, findings, hosts);
    }
    if wants(Plugin::Tcp) {
        over_tcp(bench, cli, findings, hosts);
    }
    for plugin in [Plugin::XdpNative, Plugin::XdpSkb].into_iter().filter(|plugin| wants(*plugin)) {
        flows_over_xdp(bench, cli, findings, hosts, plugin);
    }
    for plugin in [Plugin::Dpdk, Plugin::DpdkAfXdp].into_iter().filter(|plugin| wants(*plugin)) {
        super::over_dpdk::throughput(bench, cli, findings, hosts, plugin);
    }
}

fn over_udp(bench: &Bench, cli: &Cli, findings: &mut Findings, hosts: &Hosts) {
    // An application that turns its own engine sends one chunk with each emit, and then waits:
    // a message of several is no measure of it.
    const FRAME: usize = 1408;
    for size in network_sizes(cli) {
        let sides = vec![
            Side::new(OURS, move || ours::network_flow(bench, Place::Veth(hosts), Plugin::Udp, size)),
            Side::new("raw UDP", move || baselines::udp_flow(bench, hosts, size, false)),
        ];
        rows(bench, findings, &format!("throughput/udp-veth/{size}B"), "messages/s", "T3 two hosts", sides);
        if size > FRAME {
            continue;
        }
        let sides = vec![
            Side::new(OURS, move || ours::network_paced(bench, hosts, size)),
            Side::new("raw UDP", move || baselines::udp_flow(bench, hosts, size, true)),
        ];
        rows(bench, findings, &format!("throughput/udp-veth/{size}B/paced"), "messages/s", "T1 two hosts", sides);
    }
}

fn over_tcp(bench: &Bench, cli: &Cli, findings: &mut Findings, hosts: &Hosts) {
    for size in network_sizes(cli) {
        let sides = vec![
            Side::new(OURS, move || ours::network_flow(bench, Place::Veth(hosts), Plugin::Tcp, size)),
            Side::new("raw TCP", move || baselines::tcp_flow(bench, hosts, size)),
        ];
        rows(bench, findings, &format!("throughput/tcp-veth/{size}B"), "messages/s", "T3 two hosts", sides);
        let sides = vec![
            Side::new(OURS, move || ours::network_flow_inline(bench, hosts, size)),
            Side::new("raw TCP", move || baselines::tcp_flow(bench, hosts, size)),
        ];
        rows(bench, findings, &format!("throughput/tcp-veth/{size}B/inline"), "messages/s", "T1 two hosts", sides);
    }
}

fn touched(bench: &Bench, cli: &Cli, findings: &mut Findings, size: usize) {
    let program = cli.insaned.as_deref();
    let mut sides = vec![
        Side::new(OURS, || ours::flow_in_process(bench, size, Handling::Touch)),
        Side::new("copying ring", || baselines::ring_flow(bench, size)),
    ];
    sides.extend(rivals_flow(bench, size));
    rows(bench, findings, &format!("throughput/touch/{size}B"), "messages/s", "T1", sides);
    let sides = vec![
        Side::new(OURS, || ours::flow_composed(bench, size)),
        Side::new("copying ring", || baselines::ring_flow(bench, size)),
    ];
    rows(bench, findings, &format!("throughput/copied/{size}B"), "messages/s", "T1", sides);
    let sides = vec![
        Side::new(OURS, || ours::flow_foreign(bench, size, program)),
        Side::new("copying ring", || baselines::ring_flow(bench, size)),
    ];
    rows(bench, findings, &format!("throughput/foreign/{size}B"), "messages/s", "T1", sides);
}

/// Scenario `setup`.
pub fn setup(bench: &Bench, cli: &Cli, findings: &mut Findings) {
    let program = cli.insaned.as_deref();
    for conversations in STREAMS {
        let birth = birth(bench, conversations);
        let sides = vec![
            Side::new(OURS, || ours::birth(bench, birth, program)),
            Side::new("ring over a socket", || baselines::ring_birth(bench, birth)),
        ];
        rows(bench, findings, &format!("setup/stream-{conversations}"), "us", "T1 yielding", sides);
    }
}
