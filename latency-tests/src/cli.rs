//! The command line.

use clap::{Parser, ValueEnum};
use std::path::PathBuf;

/// Latency and throughput of the runtime, each beside its raw baseline in the same
/// run. Needs two processors that nothing else uses.
#[derive(Parser, Debug)]
#[command(name = "latency-tests", version)]
pub struct Cli {
    /// What to measure.
    #[arg(value_enum, required_unless_present = "list")]
    pub scenario: Option<Scenario>,
    /// Write the rows to this file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a page for a person to this file.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Hold the figures to the bounds; exit code 1 where one is missed.
    #[arg(long)]
    pub check: bool,
    /// Bounds other than the ones built in (RON).
    #[arg(long, value_name = "FILE")]
    pub bounds: Option<PathBuf>,
    /// One short round each: for function, not for time.
    #[arg(long)]
    pub smoke: bool,
    /// List the scenarios.
    #[arg(long)]
    pub list: bool,
    /// Valid rounds of each row.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// throughput: only with every byte written and read.
    #[arg(long, conflicts_with = "tokens")]
    pub touch: bool,
    /// throughput: only buffers handed over untouched.
    #[arg(long)]
    pub tokens: bool,
    /// throughput: only this payload, bytes (a multiple of 8); may be repeated.
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    pub size: Vec<usize>,
    /// network, instructions: only this plugin. throughput, sweep, jitter, isolation: only over
    /// this plugin.
    #[arg(long, value_enum)]
    pub plugin: Option<Plugin>,
    /// network, jitter: only this hosting.
    #[arg(long, value_enum)]
    pub hosting: Option<Hosting>,
    /// The daemon to start, instead of the runtime that is built into this program.
    #[arg(long, value_name = "PATH")]
    pub insaned: Option<PathBuf>,
    /// serve: the daemon's configuration; flood: its socket; media-driver: its folder.
    #[arg(long, hide = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// count: whose messages.
    #[arg(long, value_enum, hide = true, default_value_t = Counted::Ours)]
    pub side: Counted,
    /// count: how many messages.
    #[arg(long, hide = true, default_value_t = 10_000)]
    pub messages: u64,
}

fn parse_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size) if size >= 8 && size % 8 == 0 && size <= 100_000_000 => Ok(size),
        _ => Err("a multiple of 8 from 8 to 100000000".to_owned()),
    }
}

/// What to measure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Scenario {
    /// Two applications on one host, busy on a core each (T1).
    Local,
    /// Through the daemon with one udp link open (T3 and T2).
    Hop,
    /// Between runtimes over a plugin, in each hosting.
    Network,
    /// One way, 64 B to 6.22 MB.
    Throughput,
    /// Round trips and flows of every plugin over the sizes of a message, in two plots.
    Sweep,
    /// create_stream to the first message: 1st and 10th stream.
    Setup,
    /// One active stream among 4,096 open ones, and one more local sink.
    Scale,
    /// An idle daemon with two applications, and a message that finds all asleep.
    Idle,
    /// Instructions of one local message, under callgrind.
    Instructions,
    /// System calls of one local message, under strace.
    Syscalls,
    /// Schedules: how long synthesis takes, and how much of a link it uses.
    Admission,
    /// How late messages leave that have a planned instant, beside a bare loop.
    Jitter,
    /// What best effort does to a stream with slots behind a switch.
    Isolation,
    /// Streams that change their link under traffic: what is lost, and the longest gap.
    Migrate,
    /// Premium streams that come where ordinary ones have the better link.
    Displace,
    /// A slot among 4,096: instructions, and time with cold caches.
    Scheduler,
    /// The baselines beside themselves: the noise of the harness.
    Selftest,
    /// All of the above but selftest.
    All,
    /// Every scenario in a short form, for function.
    Smoke,
    /// The daemon's half of a measurement.
    #[value(hide = true)]
    Serve,
    /// A client of best effort.
    #[value(hide = true)]
    Flood,
    /// Aeron's media driver.
    #[cfg(feature = "aeron")]
    #[value(hide = true)]
    MediaDriver,
    /// One side's messages on one thread, for the counting tools.
    #[value(hide = true)]
    Count,
}

impl Scenario {
    /// The scenarios that this one stands for.
    #[must_use]
    pub fn parts(self) -> Vec<Scenario> {
        use Scenario::{
            Admission, All, Displace, Hop, Idle, Instructions, Isolation, Jitter, Local, Migrate, Network, Scale,
            Scheduler, Selftest, Setup, Smoke, Sweep, Syscalls, Throughput,
        };
        let all = [
            Local,
            Hop,
            Network,
            Throughput,
            Sweep,
            Setup,
            Scale,
            Idle,
            Instructions,
            Syscalls,
            Admission,
            Scheduler,
            Jitter,
            Isolation,
            Migrate,
            Displace,
        ];
        match self {
            All => all.to_vec(),
            Smoke => [Selftest].into_iter().chain(all).collect(),
            one => vec![one],
        }
    }

    /// The first part of its rows' names.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Local => "local",
            Scenario::Hop => "hop",
            Scenario::Network => "network",
            Scenario::Throughput => "throughput",
            Scenario::Sweep => "sweep",
            Scenario::Setup => "setup",
            Scenario::Scale => "scale",
            Scenario::Idle => "idle",
            Scenario::Instructions => "instructions",
            Scenario::Syscalls => "syscalls",
            Scenario::Admission => "admission",
            Scenario::Scheduler => "scheduler",
            Scenario::Jitter => "jitter",
            Scenario::Isolation => "isolation",
            Scenario::Migrate => "migrate",
            Scenario::Displace => "displace",
            Scenario::Flood => "flood",
            Scenario::Selftest => "selftest",
            Scenario::All => "all",
            Scenario::Smoke => "smoke",
            Scenario::Count => "count",
            Scenario::Serve => "serve",
            #[cfg(feature = "aeron")]
            Scenario::MediaDriver => "media-driver",
        }
    }
}

/// A network plugin.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Plugin {
    /// Kernel UDP sockets.
    Udp,
    /// Kernel TCP connections (hosting inline only).
    Tcp,
    /// AF_XDP in the driver (hostings inline and daemon; all in jitter).
    #[value(alias = "xdp")]
    XdpNative,
    /// AF_XDP behind the driver (hosting inline only).
    XdpSkb,
    /// DPDK over packet sockets (hosting inline only, but in jitter).
    Dpdk,
    /// DPDK over AF_XDP (hosting inline only).
    DpdkAfXdp,
    /// DPDK over memory that both share (network, hosting inline only).
    DpdkMemif,
    /// RDMA, on the device whose address INSANE_RDMA names (hosting inline only).
    Rdma,
}

impl Plugin {
    /// Its rows are of two hosts joined by veth.
    #[must_use]
    pub fn needs_hosts(self) -> bool {
        self != Plugin::Rdma
    }

    /// Those that streams with slots are measured over.
    pub const TIMED: [Plugin; 3] = [Plugin::Udp, Plugin::XdpNative, Plugin::Dpdk];

    /// In front of the names of rows whose scenario was there before its plugin: nothing for udp.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Plugin::Udp => "",
            Plugin::Tcp => "tcp/",
            Plugin::XdpNative => "xdp-native/",
            Plugin::XdpSkb => "xdp-skb/",
            Plugin::Dpdk => "dpdk/",
            Plugin::DpdkAfXdp => "dpdk-af-xdp/",
            Plugin::DpdkMemif => "dpdk-memif/",
            Plugin::Rdma => "rdma/",
        }
    }

    /// What is attached to the interfaces of a path by it.
    #[must_use]
    pub fn attaches(self) -> &'static str {
        match self {
            Plugin::Udp | Plugin::Tcp => "no XDP",
            Plugin::XdpNative | Plugin::DpdkAfXdp => "XDP native",
            Plugin::XdpSkb => "XDP skb",
            Plugin::Dpdk => "packet sockets, no XDP",
            Plugin::DpdkMemif => "memif, no interface",
            Plugin::Rdma => "verbs, no XDP",
        }
    }
}

/// Who turns the datapath.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Hosting {
    /// The application's own thread.
    Inline,
    /// A thread of the application's process.
    Thread,
    /// The daemon.
    Daemon,
}

/// Whose messages are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Counted {
    /// The runtime's: a buffer is borrowed, filled and emitted.
    Ours,
    /// The runtime's: a message of the application is copied by the emit.
    OursCopied,
    /// The bare ring's.
    Ring,
    /// The runtime's, over udp: two runtimes that this thread turns.
    Network,
    /// The bare socket's.
    Udp,
    /// The runtime's, over xdp in the driver: two runtimes that this thread turns.
    Xdp,
    /// The same, where each knows as many peers as there can be.
    XdpManyPeers,
    /// The bare AF_XDP loop's.
    RawXdp,
    /// The runtime's, over rdma: two runtimes that this thread turns.
    Rdma,
    /// Of raw verbs.
    Verbs,
    /// The scheduler's slots: a table that is written down, of four streams.
    ExpandedFew,
    /// The same of 4,096.
    ExpandedMany,
    /// The scheduler's slots: a table of recurrences, of four streams.
    RecurrencesFew,
    /// The same of 4,096.
    RecurrencesMany,
}

impl Counted {
    /// The word on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Counted::Ours => "ours",
            Counted::OursCopied => "ours-copied",
            Counted::Ring => "ring",
            Counted::Network => "network",
            Counted::Udp => "udp",
            Counted::Xdp => "xdp",
            Counted::XdpManyPeers => "xdp-many-peers",
            Counted::RawXdp => "raw-xdp",
            Counted::Rdma => "rdma",
            Counted::Verbs => "verbs",
            Counted::ExpandedFew => "expanded-few",
            Counted::ExpandedMany => "expanded-many",
            Counted::RecurrencesFew => "recurrences-few",
            Counted::RecurrencesMany => "recurrences-many",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        assert!(Cli::try_parse_from(["latency-tests", "throughput", "--size", "12"]).is_err());
        assert!(Cli::try_parse_from(["latency-tests", "throughput", "--touch", "--tokens"]).is_err());
        let cli = Cli::try_parse_from(["latency-tests", "network", "--plugin", "tcp", "--json", "f"]).unwrap();
        assert_eq!((cli.scenario, cli.plugin), (Some(Scenario::Network), Some(Plugin::Tcp)));
        let cli = Cli::try_parse_from(["latency-tests", "jitter", "--plugin", "xdp"]).unwrap();
        assert_eq!(cli.plugin, Some(Plugin::XdpNative));
    }
}
