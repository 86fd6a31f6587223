//! What each field accepts: the one table behind error messages, bounds and the
//! comments of `configs/reference.ron` (a test compares them).

/// What one field accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// Path with the numbers and names of lists and maps left out: `datapaths[].core`.
    /// Fields of technologies other than `udp` have its name in theirs.
    pub path: &'static str,
    /// What it accepts.
    pub accepts: Accepts,
    /// Value when it is not given; `None`: it must be.
    pub default: Option<&'static str>,
}

/// What a field accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accepts {
    /// A whole number from the first to the second, and its unit.
    Number(i64, i64, &'static str),
    /// What the text says.
    Text(&'static str),
}

impl Field {
    /// What it accepts, in words.
    #[must_use]
    pub fn accepted(&self) -> String {
        match self.accepts {
            Accepts::Number(least, most, unit) => {
                let (least, most) = (grouped(least), grouped(most));
                if unit.is_empty() { format!("{least} to {most}") } else { format!("{least} to {most} {unit}") }
            }
            Accepts::Text(text) => text.to_owned(),
        }
    }
}

/// A number with its thousands apart, as RON takes it: `1_472`.
#[must_use]
pub fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && digits.len() > 4 {
            text.push('_');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

/// The field of a path such as `datapaths[1].core`.
#[must_use]
pub fn field(path: &str) -> Option<&'static Field> {
    let pattern = pattern(path);
    FIELDS.iter().find(|field| field.path == pattern)
}

/// The path without the numbers and names inside brackets.
#[must_use]
pub fn pattern(path: &str) -> String {
    let mut pattern = String::new();
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => {
                inside = true;
                pattern.push_str("[]");
            }
            ']' => inside = false,
            c if !inside => pattern.push(c),
            _ => {}
        }
    }
    pattern
}

const fn number(path: &'static str, least: i64, most: i64, unit: &'static str, default: &'static str) -> Field {
    Field { path, accepts: Accepts::Number(least, most, unit), default: Some(default) }
}

const fn text(path: &'static str, accepts: &'static str, default: &'static str) -> Field {
    Field { path, accepts: Accepts::Text(accepts), default: Some(default) }
}

const fn required(path: &'static str, accepts: &'static str) -> Field {
    Field { path, accepts: Accepts::Text(accepts), default: None }
}

const NAME: &str = "1 to 64 bytes of text without control characters, in double quotes";

/// Default of what a declaration of a stream may fix.
const ASKED: &str = "None: what the application asks for";

const GOSSIP_ADDRESS: &str =
    "a particular IP address of this machine and a port from 1 to 65535: \"192.0.2.1:7100\", \"[2001:db8::1]:7100\"";

/// Every field.
pub const FIELDS: &[Field] = &[
    text("host", "(name: ..., id: ...)", "()"),
    text("host.name", NAME, "the machine's host name"),
    text("host.id", "a whole number from 1 to 18446744073709551615, or None", "None: a hash of the name"),
    text("control", "(socket: ..., mode: ..., state: ...)", "()"),
    text("control.socket", "an absolute path of at most 107 bytes, in double quotes", "\"/run/insane/insaned.sock\""),
    text("control.mode", "permission bits from 0o600 to 0o777; the owner reads and writes", "0o660"),
    text("control.state", "an absolute path, in double quotes, or None", "None: the directory of the socket"),
    text(
        "datapaths",
        "a list of 1 to 4 datapaths: [(name: ..., ...), ...]",
        "one, \"main\", with all links and all lanes",
    ),
    required("datapaths[].name", NAME),
    text("datapaths[].core", "the number of a core of this machine, or None", "None: not pinned"),
    text("datapaths[].policy", "other, or fifo(PRIORITY) with a priority of 1 to 98", "other"),
    text(
        "datapaths[].idle",
        "spin, yield, block, or spin_then_block(us: N) with N from 1 to 1_000_000 microseconds",
        "spin_then_block(us: 50)",
    ),
    number("datapaths[].idle.us", 1, 1_000_000, "microseconds", "50"),
    text("datapaths[].serves", "real_time, best_effort or all", "all"),
    text("datapaths[].links", "a list of at most 8 names of links", "[]"),
    text("datapaths[].unscheduled", "refuse or allow", "refuse"),
    number("datapaths[].epsilon_quantile_ppm", 500_000, 999_999, "parts in a million", "999_000"),
    text("datapaths[].gates", "(cycle_us: ..., windows: [...]), or None", "None: every lane may always send"),
    Field {
        path: "datapaths[].gates.cycle_us",
        accepts: Accepts::Number(10, 10_000_000, "microseconds"),
        default: None,
    },
    number("datapaths[].gates.base_time_ns", 0, i64::MAX, "nanoseconds", "0"),
    required(
        "datapaths[].gates.windows",
        "a list of 1 to 128 windows that fill the cycle: [(lanes: [...], us: ...), ...]",
    ),
    required("datapaths[].gates.windows[].lanes", "a list of lanes, 0 to 7, each once: [0, 1, 2]"),
    Field {
        path: "datapaths[].gates.windows[].us",
        accepts: Accepts::Number(1, 10_000_000, "microseconds"),
        default: None,
    },
    text("links", "a list of links: [(name: ..., technology: ...), ...]", "[]"),
    required("links[].name", NAME),
    required(
        "links[].technology",
        "udp(bind: ..., ...), tcp(bind: ..., ...), xdp(interface: ..., bind: ..., ...), dpdk(device: ..., bind: ..., ...) or rdma(bind: ..., ...)",
    ),
    number("links[].rate_mbps", 1, 400_000, "Mbit/s", "None: no slots"),
    number("links[].turn_us", 1, 10_000, "microseconds", "100"),
    number("links[].foreign_bytes", 0, 1 << 20, "bytes", "1_538"),
    text("links[].completions", "true or false", "false"),
    required(
        "links[].technology.bind",
        "an IP address of this machine and a port from 1 to 65534: \"192.0.2.1:7400\", \"[2001:db8::1]:7400\"",
    ),
    number("links[].technology.frame_bytes_max", 508, 65_000, "bytes", "None: 1472 over IPv4, 1452 over IPv6"),
    number("links[].technology.send_buffer_bytes", 4096, 1 << 30, "bytes", "1_048_576"),
    number("links[].technology.receive_buffer_bytes", 4096, 1 << 30, "bytes", "4_194_304"),
    number("links[].technology.busy_poll_us", 0, 10_000, "microseconds", "0: off"),
    number("links[].technology.real_time_dscp", 0, 63, "", "46: expedited"),
    number("links[].technology.launch_lead_us", 0, 10_000, "microseconds", "0: no launch times"),
    text("links[].technology.multicast", "(group: ..., ...), or None", "None: each peer gets a frame of its own"),
    required(
        "links[].technology.multicast.group",
        "an address of a group, of the family of `bind`, and a port from 1 to 65534: \"239.192.0.1:7400\", \"[ff15::1]:7400\"",
    ),
    number("links[].technology.multicast.ttl", 1, 255, "networks", "1"),
    number("links[].technology.multicast.from_peers", 2, 64, "peers", "2"),
    // Fields of `tcp`: see `index::Index::field_path`.
    required(
        "links[].technology.tcp.bind",
        "a particular IP address of this machine and a port from 1 to 65534: \"192.0.2.1:7500\", \"[2001:db8::1]:7500\"",
    ),
    number("links[].technology.tcp.frame_bytes_max", 508, 1 << 20, "bytes", "16_384"),
    number("links[].technology.tcp.send_buffer_bytes", 4096, 1 << 30, "bytes", "1_048_576"),
    number("links[].technology.tcp.receive_buffer_bytes", 4096, 1 << 30, "bytes", "1_048_576"),
    number("links[].technology.tcp.busy_poll_us", 0, 10_000, "microseconds", "0: off"),
    number("links[].technology.tcp.real_time_dscp", 0, 63, "", "46: expedited"),
    number("links[].technology.tcp.user_timeout_ms", 100, 600_000, "milliseconds", "2000"),
    required("links[].technology.xdp.interface", "the name of an Ethernet interface, 1 to 15 bytes: \"eth0\""),
    required(
        "links[].technology.xdp.bind",
        "an IP address that no machine has yet and a port from 1 to 65534: \"192.0.2.9:7400\", \"[2001:db8::9]:7400\"",
    ),
    text("links[].technology.xdp.neighbours", "own or borrowed", "own"),
    number("links[].technology.xdp.queue", 0, 1023, "", "0"),
    number("links[].technology.xdp.queues_max", 1, 8, "queues", "8"),
    text("links[].technology.xdp.mode", "auto, zero_copy, native or skb", "auto"),
    number("links[].technology.xdp.vlan", 1, 4094, "", "None: no tag"),
    number("links[].technology.xdp.prefix_bits", 0, 128, "bits", "None: 24 for IPv4, 64 for IPv6"),
    text("links[].technology.xdp.gateway", "the IP address of a neighbour: \"192.0.2.254\"", "None"),
    number("links[].technology.xdp.frame_bytes_max", 508, 3794, "bytes", "None: 1472 over IPv4, 1452 over IPv6"),
    number("links[].technology.xdp.real_time_dscp", 0, 63, "", "46: expedited"),
    required(
        "links[].technology.rdma.bind",
        "an IP address that an RDMA device of this machine has and a port from 1 to 65534: \"192.0.2.1:7600\", \"[2001:db8::1]:7600\"",
    ),
    number("links[].technology.rdma.frame_bytes_max", 508, 1 << 16, "bytes", "16_384"),
    number("links[].technology.rdma.real_time_dscp", 0, 63, "", "46: expedited"),
    required(
        "links[].technology.dpdk.device",
        "a device of DPDK with its arguments, 1 to 159 bytes: \"net_af_packet0,iface=eth0\", \"0000:03:00.0\"",
    ),
    required(
        "links[].technology.dpdk.bind",
        "an IP address that no machine has yet and a port from 1 to 65534: \"192.0.2.9:7400\", \"[2001:db8::9]:7400\"",
    ),
    text(
        "links[].technology.dpdk.mac",
        "the hardware address of one station: \"02:00:00:00:00:01\"",
        "None: the device's",
    ),
    number("links[].technology.dpdk.vlan", 1, 4094, "", "None: no tag"),
    number("links[].technology.dpdk.prefix_bits", 0, 128, "bits", "None: 24 for IPv4, 64 for IPv6"),
    text("links[].technology.dpdk.gateway", "the IP address of a neighbour: \"192.0.2.254\"", "None"),
    number("links[].technology.dpdk.frame_bytes_max", 508, 8972, "bytes", "None: 1472 over IPv4, 1452 over IPv6"),
    number("links[].technology.dpdk.real_time_dscp", 0, 63, "", "46: expedited"),
    number("links[].technology.dpdk.poll_us", 1, 10_000, "microseconds", "100"),
    text("peers", "a list of at most 64 peers: [(name: ..., links: {...}), ...]", "[]"),
    required("peers[].name", NAME),
    required(
        "peers[].links",
        "its address on each of this host's links: {\"LINK\": \"ADDRESS:PORT\", ...}, at least one",
    ),
    required(
        "peers[].links[]",
        "an IP address of the peer and a port from 1 to 65534: \"192.0.2.2:7400\", \"[2001:db8::2]:7400\"",
    ),
    text("eal", "(shim: ..., arguments: [...]), or ()", "(): as below"),
    text("eal.shim", "the absolute path of a library, or None", "None: beside the executable"),
    text(
        "eal.arguments",
        "a list of arguments of DPDK: [\"--no-huge\", ...]",
        "[\"--no-huge\", \"--no-pci\", \"--no-telemetry\", \"--no-shconf\"]",
    ),
    text("discovery", "(gossip: (...)), or ()", "(): peers are those of `peers`"),
    text("discovery.gossip", "(bind: ..., cluster: ..., allow: [...], ...), or None", "None"),
    required("discovery.gossip.bind", GOSSIP_ADDRESS),
    required("discovery.gossip.cluster", NAME),
    required(
        "discovery.gossip.allow",
        "a list of 1 to 32 networks: [\"10.0.0.0/24\", \"2001:db8::/64\", \"192.0.2.7\"]",
    ),
    text("discovery.gossip.seeds", "a list of at most 16 addresses with ports: [\"10.0.0.2:7100\", ...]", "[]"),
    text("discovery.gossip.advertise", "{\"LINK\": \"ADDRESS:PORT\", ...}", "{}"),
    required(
        "discovery.gossip.advertise[]",
        "an IP address of this machine that others reach, and the link's port: \"192.0.2.1:7400\"",
    ),
    number("discovery.gossip.peers_max", 1, 64, "", "32"),
    number("discovery.gossip.forget_after_s", 5, 86_400, "seconds", "30"),
    text(
        "domains",
        "a list of 1 to 64 domains: [(name: ..., members: [...], ...), ...]",
        "one, \"default\", for the daemon's own user",
    ),
    required("domains[].name", NAME),
    required("domains[].members", "a list of uid(N), gid(N) and any; at least one"),
    text("domains[].isolation", "shared or session", "shared"),
    text("domains[].quota", "(sessions: ..., streams: ..., ...)", "()"),
    number("domains[].quota.sessions", 1, 4096, "", "64"),
    number("domains[].quota.streams", 1, 65_536, "", "256"),
    number("domains[].quota.sources", 1, 65_536, "", "256"),
    number("domains[].quota.sinks", 1, 65_536, "", "256"),
    number("domains[].quota.connections", 1, 65_536, "", "512"),
    number("domains[].quota.bytes", 4096, 1 << 40, "bytes", "268_435_456"),
    number("domains[].quota.buffers", 1, 16_777_216, "", "16_384"),
    number("domains[].quota.control_messages_per_second", 1, 1_000_000, "a second", "10_000"),
    number("domains[].quota.wakes_per_second", 1, 10_000_000, "a second", "100_000"),
    number("domains[].quota.bytes_per_second", 1_000, 100_000_000_000, "a second", "None: no bound"),
    number("domains[].quota.burst_bytes", 1, 1 << 30, "bytes", "262_144"),
    text("domains[].realtime", "(priority_max: ..., cores: [...], ...)", "()"),
    number("domains[].realtime.priority_max", 0, 97, "", "0: none"),
    text("domains[].realtime.cores", "a list of numbers of cores of this machine: [1, 2]", "[]"),
    number("domains[].realtime.threads_max", 1, 64, "", "8"),
    number("domains[].realtime.locked_bytes_max", 0, 1 << 40, "bytes", "0: none"),
    text(
        "domains[].receive",
        "a list of 1 to 8 classes of rising size: [(size: ..., count: ...), ...]",
        "[(size: 256, count: 1024), (size: 2048, count: 1024), (size: 65_536, count: 128), \
         (size: 1_048_576, count: 16), (size: 8_388_608, count: 4)]",
    ),
    Field { path: "domains[].receive[].size", accepts: Accepts::Number(1, 100_000_000, "bytes"), default: None },
    Field { path: "domains[].receive[].count", accepts: Accepts::Number(1, 65_536, "buffers"), default: None },
    text("domains[].streams", "a list of at most 256 declarations: [(name: ..., ...), ...]", "[]"),
    required("domains[].streams[].name", "the name of a stream, or how names begin and then `*`, in double quotes"),
    text("domains[].streams[].reliability", "unreliable or reliable", ASKED),
    text("domains[].streams[].datapath", "standard or fast", ASKED),
    text("domains[].streams[].consumption", "poll or low", ASKED),
    text(
        "domains[].streams[].determinism",
        "best_effort, or time_sensitive(period_ns: ..., size_bytes: ..., ...)",
        ASKED,
    ),
    Field {
        path: "domains[].streams[].determinism.period_ns",
        accepts: Accepts::Number(1, 3_600_000_000_000, "nanoseconds"),
        default: None,
    },
    number("domains[].streams[].determinism.offset_ns", 0, 3_600_000_000_000, "nanoseconds", "0"),
    number(
        "domains[].streams[].determinism.deadline_ns",
        1,
        3_600_000_000_000,
        "nanoseconds",
        "None: the end of the period",
    ),
    Field {
        path: "domains[].streams[].determinism.size_bytes",
        accepts: Accepts::Number(1, 100_000_000, "bytes"),
        default: None,
    },
    text("domains[].streams[].determinism.late", "drop, send_now, next_slot or newest_wins", "next_slot"),
    number("domains[].streams[].priority", 0, 7, "", ASKED),
    number("domains[].streams[].priority_max", 0, 7, "", "7"),
    text("domains[].streams[].isolated", "true or false", ASKED),
    number("domains[].streams[].history_max", 0, 16, "values", "16"),
    text("domains[].streams[].alternates", "a list of names of links: [\"...\", ...]", "None: all of its datapath"),
    text("domains[].streams[].on_link_loss", "stay or degrade", "stay"),
    text("memory", "(limit_bytes: ..., lock: ..., huge_pages: ..., prefault: ...)", "()"),
    number("memory.limit_bytes", 1 << 20, 1 << 46, "bytes", "1_073_741_824"),
    text("memory.lock", "true or false", "false"),
    text("memory.huge_pages", "never, try or require", "never"),
    text("memory.prefault", "true or false", "true"),
    text("policy", "(rules: [...], budgets: {...}, ...)", "()"),
    text("policy.rules", "a list of 1 to 32 rules: [(when: (...), order: [...]), ...]", "those of docs/POLICY.md"),
    text("policy.rules[].when", "(reliability: ..., datapath: ..., ...), or () for all", "()"),
    text("policy.rules[].when.reliability", "unreliable or reliable", "None: any"),
    text("policy.rules[].when.datapath", "standard or fast", "None: any"),
    text("policy.rules[].when.consumption", "poll or low", "None: any"),
    text("policy.rules[].when.determinism", "best_effort or time_sensitive", "None: any"),
    number("policy.rules[].when.bytes_min", 1, 100_000_000, "bytes", "None: any"),
    required("policy.rules[].order", "a list of some of udp, tcp, xdp, dpdk, rdma and sim, each once: [xdp, udp]"),
    text("policy.rules[].spare_others", "true or false", "false"),
    text("policy.budgets", "{\"LINK\": (streams: ..., mbps: ...), ...}", "{}"),
    required("policy.budgets[]", "(streams: ...), (mbps: ...) or both, of one of this host's links"),
    number("policy.budgets[].streams", 0, 65_536, "", "None: no bound"),
    number("policy.budgets[].mbps", 0, 400_000, "Mbit/s", "None: no bound"),
    number("policy.best_effort_kbps", 0, 400_000_000, "kbit/s", "0"),
    number("policy.silent_ms", 50, 600_000, "milliseconds", "500"),
    number("policy.return_after_ms", 0, 3_600_000, "milliseconds", "2000"),
    number("policy.hold_down_max_ms", 1, 3_600_000, "milliseconds", "60_000"),
    text("clock", "(read_max_us: ..., holdover_s: ..., holdover_phase_us: ..., after_holdover: ...)", "()"),
    number("clock.read_max_us", 1, 10_000, "microseconds", "10"),
    number("clock.holdover_s", 0, 86_400, "seconds", "60"),
    number("clock.holdover_phase_us", 1, 1_000_000, "microseconds", "None: by time alone"),
    text("clock.after_holdover", "keep, free_run or stop_slots", "free_run"),
    text("log", "(level: ..., format: ...)", "()"),
    text("log.level", "error, warn, info, debug or trace", "info"),
    text("log.format", "text or json", "text"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_their_fields() {
        assert_eq!(pattern("peers[0].links[\"a.b\"]"), "peers[].links[]");
        assert_eq!(field("datapaths[3].idle.us").unwrap().accepted(), "1 to 1_000_000 microseconds");
        assert_eq!(field("nothing"), None);
    }

    #[test]
    fn thousands_are_apart_from_five_digits() {
        assert_eq!(grouped(1472), "1472");
        assert_eq!(grouped(65_507), "65_507");
        assert_eq!(grouped(-1_000_000), "-1_000_000");
    }
}
