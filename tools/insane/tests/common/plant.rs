//! Two daemons in namespaces of their own, and certificates for them.

use super::{Daemon, Namespaces, insane, text};
use insane_rt::{Determinism, Nanos, Priority, Qos};
use insane_wire::status::SlotStatus;
use std::process::{Command, Output};

pub const MS: u64 = 1_000_000;
pub const PERIOD: Nanos = Nanos::from_millis(10);

pub struct Pair {
    pub namespaces: Namespaces,
    pub hosts: Vec<Daemon>,
}

impl Pair {
    /// `None`: there is no right to make namespaces.
    pub fn new(test: &str) -> Option<Pair> {
        let namespaces = Namespaces::pair(test)?;
        let start = |at: usize| {
            let (own, other) = (at + 1, 2 - at);
            let config = format!(
                r#"datapaths: [(name: "main", idle: spin_then_block(us: 20), links: ["l{own}"])],
                links: [(name: "l{own}", technology: udp(bind: "10.77.0.{own}:4000"), rate_mbps: 100, turn_us: 200)],
                peers: [(name: "{test}{other}", links: {{"l{own}": "10.77.0.{other}:4000"}})],
                domains: [(name: "line", members: [any], receive: [(size: 2048, count: 256)])]"#
            );
            Daemon::start_in(Some(namespaces.name(at)), &format!("{test}{own}"), &config)
        };
        let hosts = vec![start(0), start(1)];
        Some(Pair { namespaces, hosts })
    }

    /// A certificate for both: "axis" has its slot after `release_ms`.
    pub fn certificate(&self, test: &str, release_ms: u64, rate: u64) -> String {
        let plant = Pair::plant(test, release_ms, rate, true);
        self.synthesise(&release_ms.to_string(), &plant)
    }

    /// A certificate for the second host alone.
    pub fn certificate_of_second(&self, test: &str) -> String {
        self.synthesise("second", &Pair::plant(test, 2, 100, false))
    }

    fn host(test: &str, at: usize) -> String {
        format!(
            r#"(name: "{test}{at}", clock_error_ns: 1_000,
            wake: (quantile_ppm: 990_000, quantile_ns: 100_000, max_ns: 100_000, samples: 1),
            turn: (quantile_ppm: 990_000, quantile_ns: 400_000, max_ns: 400_000, samples: 1))"#
        )
    }

    fn link(test: &str, at: usize, rate: u64) -> String {
        format!(
            r#"(name: "l{at}", host: "{test}{at}", rate_mbps: {rate}, foreign_bytes: 1538, in_flight_bytes: 62_500, frame_bytes_max: 1538, boundary: KernelSocket)"#
        )
    }

    fn stream(name: &str, link: usize, (period_ns, release_ns): (u64, u64)) -> String {
        format!(
            r#"(name: "{name}", class: Statistical, period_ns: {period_ns}, bytes: 256, release_ns: {release_ns}, deadline_ns: {}, path: [(link: "l{link}")])"#,
            period_ns - MS
        )
    }

    fn plant(test: &str, release_ms: u64, rate: u64, both: bool) -> String {
        let after = |ms: u64| (PERIOD.0, ms * MS);
        let answer = Pair::stream("answer", 2, after(release_ms));
        if !both {
            return format!(
                "(hosts: [{}], links: [{}], streams: [{answer}])",
                Pair::host(test, 2),
                Pair::link(test, 2, rate)
            );
        }
        let streams = [
            Pair::stream("axis", 1, after(release_ms)),
            Pair::stream("line:valve/7", 1, after(release_ms + 3)),
            answer,
        ];
        Pair::of_both(test, rate, &streams)
    }

    /// A plant of both hosts; the link of the second has this rate.
    fn of_both(test: &str, rate: u64, streams: &[String]) -> String {
        format!(
            "(hosts: [{}, {}], links: [{}, {}], streams: [{}])",
            Pair::host(test, 1),
            Pair::host(test, 2),
            Pair::link(test, 1, 100),
            Pair::link(test, 2, rate),
            streams.join(", "),
        )
    }

    /// A certificate for both: these streams from the first to the second have this period, and
    /// their slots after `release_ns`.
    pub fn certificate_of(&self, test: &str, streams: &[String], (period_ns, release_ns): (u64, u64)) -> String {
        let streams = streams.iter().map(|name| Pair::stream(name, 1, (period_ns, release_ns)));
        let plant = Pair::of_both(test, 100, &streams.collect::<Vec<_>>());
        self.synthesise(&format!("from{release_ns}"), &plant)
    }

    fn synthesise(&self, name: &str, plant: &str) -> String {
        let folder = &self.hosts[0].folder;
        let (file, path) = (folder.join("plant.ron"), folder.join(format!("{name}.cert")));
        std::fs::write(&file, plant).unwrap();
        let output = insane().args(["schedule", "synth"]).arg(&file).arg("-o").arg(&path).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        path.display().to_string()
    }

    pub fn command(&self, certificate: &str, lead_ms: u64) -> Command {
        let sockets: Vec<String> = self.hosts.iter().map(|host| host.socket().display().to_string()).collect();
        let mut command = insane();
        command.args(["schedule", "activate", certificate, "--local-clock", "--hosts", &sockets.join(",")]);
        command.args(["--lead", &lead_ms.to_string()]);
        command
    }

    pub fn activate(&self, certificate: &str) -> Output {
        self.command(certificate, 1_000).output().unwrap()
    }
}

pub fn every(period: Nanos, size: u32) -> Qos {
    Qos { determinism: Determinism::periodic(period, size), priority: Priority::MAX, ..Qos::default() }
}

/// The slots of a stream at a host.
pub fn slot(host: &Daemon, name: &str) -> Option<SlotStatus> {
    let status = host.status();
    let stream = status.streams.into_iter().find(|stream| stream.name == name)?;
    stream.channels.into_iter().flat_map(|channel| channel.sources).find_map(|source| source.slot)
}
