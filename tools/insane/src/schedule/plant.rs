//! Plant files: hosts, links, streams, chains and lanes by their names, in RON.
//!
//! The certificate counts; people name. Here names become places in lists, and what means
//! nothing is told with its line, before anybody searches for a schedule.

use insane_certificate::{Boundary, Chain, Class, Epsilon, Hop, Host, Lane, Link, Plant, Step, Stream, Window};
use insane_config::diagnostic::nearest;
use insane_config::index::{Index, Place};
use insane_config::{BYTE_ORDER_MARK, Diagnostic, Findings, Severity};
use insane_scheduler::PERIOD_NS_MAX;
use ron::extensions::Extensions;
use serde::Deserialize;
use std::collections::BTreeSet;

/// Fastest link of a plant, Mbit/s: above it a byte has no whole number of picoseconds left.
const RATE_MBPS_MAX: u64 = 400_000;
/// Longest period of a plant file: a day. Longer ones are slips of the unit.
const PERIOD_NS_SENSIBLE: u64 = 86_400_000_000_000;
const _: () = assert!(PERIOD_NS_SENSIBLE < PERIOD_NS_MAX);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPlant {
    hosts: Vec<Host>,
    links: Vec<RawLink>,
    #[serde(default)]
    streams: Vec<RawStream>,
    #[serde(default)]
    chains: Vec<RawChain>,
    #[serde(default)]
    lanes: Vec<RawLane>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLink {
    name: String,
    host: Option<String>,
    rate_mbps: u64,
    #[serde(default)]
    foreign_bytes: u32,
    in_flight_bytes: u32,
    frame_bytes_max: u32,
    boundary: Boundary,
    #[serde(default)]
    blocked: Vec<Window>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStream {
    name: String,
    class: Class,
    period_ns: u64,
    bytes: u32,
    #[serde(default)]
    release_ns: u64,
    deadline_ns: u64,
    path: Vec<RawHop>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHop {
    link: String,
    #[serde(default)]
    delay_ns: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawChain {
    name: String,
    steps: Vec<RawStep>,
    reaction_ns_max: u64,
    age_ns_max: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
enum RawStep {
    Task { host: String, period_ns: u64, offset_ns: u64, response_ns: u64 },
    Stream(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLane {
    name: String,
    link: String,
    priority: u8,
    frame_bytes: u32,
    burst_frames: u32,
    interval_ns: u64,
    deadline_ns: u64,
}

/// What is wrong where a text is no plant at all, and what would be accepted.
fn no_plant(code: &ron::Error) -> (String, &'static str) {
    // Fields that a configuration has and a plant has not.
    const OF_CONFIGURATIONS: [&str; 7] = ["host", "control", "datapaths", "peers", "domains", "memory", "log"];
    const OF_PLANTS: &str = "hosts, links, streams, chains, lanes";
    match code {
        ron::Error::NoSuchStructField { found, outer, .. } if outer.as_deref() == Some("RawPlant") => {
            let is_configuration = OF_CONFIGURATIONS.contains(&found.as_str());
            let but = if is_configuration { ": this is the configuration of a runtime" } else { "" };
            (format!("a plant has no field `{found}`{but}"), OF_PLANTS)
        }
        ron::Error::MissingStructField { field, outer } if outer.as_deref() == Some("RawPlant") => {
            (format!("no plant: the field `{field}` is missing"), OF_PLANTS)
        }
        // The types are this tool's own, and no word of a file.
        code => (format!("no plant: {}", code.to_string().replace("`Raw", "`")), ""),
    }
}

/// Reads the text of a plant file.
///
/// # Errors
/// Everything that means nothing, with its place.
pub fn parse(file: &str, text: &str) -> Result<Plant, Findings> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let mut reader = Reader { file, text, index: Index::new(text), findings: Vec::new() };
    let options = ron::Options::default().with_default_extension(Extensions::IMPLICIT_SOME);
    let raw: RawPlant = match options.from_str(text) {
        Ok(raw) => raw,
        Err(error) => {
            let end = error.span.end;
            let at = reader.index.offset(text, Place { line: end.line, column: end.col });
            let (what, accepted) = no_plant(&error.code);
            reader.add(at, at, "", what, accepted);
            return Err(Findings(reader.findings));
        }
    };
    let plant = reader.plant(raw);
    if reader.findings.is_empty() {
        Ok(plant)
    } else {
        reader.findings.sort_by_key(|finding| (finding.line, finding.column));
        Err(Findings(reader.findings))
    }
}

struct Reader<'t> {
    file: &'t str,
    text: &'t str,
    index: Index,
    findings: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn add(&mut self, from: usize, to: usize, path: &str, message: String, accepted: &str) {
        let place = self.index.place(self.text, from);
        let source = self.text.lines().nth(place.line - 1).unwrap_or("").to_owned();
        let value = self.text.get(from..to).unwrap_or("");
        let rest = source.chars().count().saturating_sub(place.column - 1);
        let marked = value.chars().take_while(|c| *c != '\n').count().min(rest).max(1);
        self.findings.push(Diagnostic {
            severity: Severity::Error,
            file: self.file.to_owned(),
            line: place.line,
            column: place.column,
            path: path.to_owned(),
            value: value.chars().take(40).collect(),
            message,
            accepted: accepted.to_owned(),
            source,
            marked,
        });
    }

    fn error(&mut self, path: &str, message: impl Into<String>, accepted: &str) {
        let range = self.index.find(path).map_or(0..0, |node| node.value.clone());
        self.add(range.start, range.end, path, message.into(), accepted);
    }

    fn plant(&mut self, raw: RawPlant) -> Plant {
        let hosts: Vec<String> = raw.hosts.iter().map(|host| host.name.clone()).collect();
        let links: Vec<String> = raw.links.iter().map(|link| link.name.clone()).collect();
        let streams: Vec<String> = raw.streams.iter().map(|stream| stream.name.clone()).collect();
        let chains: Vec<String> = raw.chains.iter().map(|chain| chain.name.clone()).collect();
        let lanes: Vec<String> = raw.lanes.iter().map(|lane| lane.name.clone()).collect();
        for (list, names) in
            [("hosts", &hosts), ("links", &links), ("streams", &streams), ("chains", &chains), ("lanes", &lanes)]
        {
            self.names(list, names);
        }
        for (at, host) in raw.hosts.iter().enumerate() {
            self.host(&format!("hosts[{at}]"), host);
        }
        let links_of = raw.links.into_iter().enumerate();
        let links_plan: Vec<Link> =
            links_of.map(|(at, link)| self.link(&format!("links[{at}]"), link, &hosts)).collect();
        let streams_of = raw.streams.into_iter().enumerate();
        let streams_plan: Vec<_> = streams_of
            .map(|(at, stream)| self.stream(&format!("streams[{at}]"), stream, &links, &links_plan))
            .collect();
        let chains_of = raw.chains.into_iter().enumerate();
        let chains = chains_of.map(|(at, chain)| self.chain(&format!("chains[{at}]"), chain, &hosts, &streams));
        let chains = chains.collect();
        let lanes_of = raw.lanes.into_iter().enumerate();
        let lanes = lanes_of.map(|(at, lane)| self.lane(&format!("lanes[{at}]"), lane, &links, &links_plan)).collect();
        Plant { hosts: raw.hosts, links: links_plan, streams: streams_plan, chains, lanes }
    }

    fn names(&mut self, list: &str, names: &[String]) {
        let mut seen = BTreeSet::new();
        for (at, name) in names.iter().enumerate() {
            let path = format!("{list}[{at}].name");
            if name.is_empty() || name.chars().any(char::is_control) {
                self.error(&path, "this is no name", "printable text");
            } else if !seen.insert(name) {
                self.error(&path, format!("the name {name:?} is given twice in `{list}`"), "each name once");
            }
        }
    }

    /// The place of a name; 0, with an error, where there is none.
    fn place(&mut self, path: &str, what: &str, name: &str, names: &[String]) -> usize {
        if let Some(at) = names.iter().position(|one| one == name) {
            return at;
        }
        let meant = nearest(name, names.iter().map(String::as_str));
        let meant = meant.map(|meant| format!("; did you mean {meant:?}?")).unwrap_or_default();
        self.error(path, format!("there is no {what} {name:?}{meant}"), &names.join(", "));
        0
    }

    fn time(&mut self, path: &str, ns: u64) {
        if ns > PERIOD_NS_SENSIBLE {
            self.error(path, "more than a day; the unit is a nanosecond", &format!("0 to {PERIOD_NS_SENSIBLE}"));
        }
    }

    fn period(&mut self, path: &str, ns: u64) {
        if ns == 0 || ns > PERIOD_NS_SENSIBLE {
            let message = format!("{ns} ns is no period");
            self.error(path, message, &format!("1 to {PERIOD_NS_SENSIBLE} nanoseconds (a day)"));
        }
    }

    fn host(&mut self, path: &str, host: &Host) {
        self.time(&format!("{path}.clock_error_ns"), host.clock_error_ns);
        for (name, epsilon) in [("wake", &host.wake), ("turn", &host.turn)] {
            self.epsilon(&format!("{path}.{name}"), epsilon);
        }
    }

    fn epsilon(&mut self, path: &str, epsilon: &Epsilon) {
        self.time(&format!("{path}.max_ns"), epsilon.max_ns);
        if epsilon.quantile_ppm > 1_000_000 {
            self.error(&format!("{path}.quantile_ppm"), "a quantile is at most all of a million", "0 to 1000000");
        }
        if epsilon.quantile_ns > epsilon.max_ns {
            let message = format!("a quantile above the longest of all, {} ns", epsilon.max_ns);
            self.error(&format!("{path}.quantile_ns"), message, "at most max_ns");
        }
    }

    fn link(&mut self, path: &str, raw: RawLink, hosts: &[String]) -> Link {
        let host = raw.host.map(|name| self.place(&format!("{path}.host"), "host", &name, hosts));
        if raw.rate_mbps == 0 || raw.rate_mbps > RATE_MBPS_MAX {
            let accepted = format!("1 to {RATE_MBPS_MAX} Mbit/s");
            self.error(&format!("{path}.rate_mbps"), "no rate of a link", &accepted);
        }
        for (at, window) in raw.blocked.iter().enumerate() {
            let path = format!("{path}.blocked[{at}]");
            self.period(&format!("{path}.period_ns"), window.period_ns);
            if window.length_ns == 0 || window.length_ns > window.period_ns {
                self.error(&format!("{path}.length_ns"), "a window of no time, or beyond its period", "1 to period_ns");
            }
            if window.offset_ns >= window.period_ns {
                self.error(&format!("{path}.offset_ns"), "a window that begins after its period", "below period_ns");
            }
        }
        let mbps = raw.rate_mbps.clamp(1, RATE_MBPS_MAX);
        Link {
            name: raw.name,
            host,
            // 8 bits at 10^6 bit/s are 8 us.
            ps_per_byte: 8_000_000_u64.div_ceil(mbps) as u32,
            foreign_bytes: raw.foreign_bytes,
            in_flight_bytes: raw.in_flight_bytes,
            frame_bytes_max: raw.frame_bytes_max,
            boundary: raw.boundary,
            blocked: raw.blocked,
        }
    }

    fn stream(&mut self, path: &str, raw: RawStream, names: &[String], links: &[Link]) -> Stream {
        self.period(&format!("{path}.period_ns"), raw.period_ns);
        self.time(&format!("{path}.release_ns"), raw.release_ns);
        self.time(&format!("{path}.deadline_ns"), raw.deadline_ns);
        if raw.bytes == 0 {
            self.error(&format!("{path}.bytes"), "a message of no bytes", "bytes on the link, headers included");
        }
        if raw.deadline_ns <= raw.release_ns {
            let message = "a deadline that is not after the release";
            self.error(&format!("{path}.deadline_ns"), message, "more than release_ns");
        }
        let hops = raw.path.into_iter().enumerate();
        let hop = |(at, hop): (usize, RawHop)| {
            let path = format!("{path}.path[{at}]");
            self.time(&format!("{path}.delay_ns"), hop.delay_ns);
            Hop { link: self.place(&format!("{path}.link"), "link", &hop.link, names), delay_ns: hop.delay_ns }
        };
        let hops: Vec<Hop> = hops.map(hop).collect();
        let is_hosts = |hop: &Hop| links.get(hop.link).is_some_and(|link| link.host.is_some());
        let is_path = match &hops[..] {
            [first] => is_hosts(first),
            [first, second] => is_hosts(first) && !is_hosts(second),
            _ => false,
        };
        if !is_path && self.findings.is_empty() {
            let accepted = "a link of a host, then at most one of a switch (a link without `host`)";
            self.error(&format!("{path}.path"), "this is no path", accepted);
        }
        Stream {
            name: raw.name,
            class: raw.class,
            period_ns: raw.period_ns,
            bytes: raw.bytes,
            release_ns: raw.release_ns,
            deadline_ns: raw.deadline_ns,
            path: hops,
        }
    }

    fn chain(&mut self, path: &str, raw: RawChain, hosts: &[String], streams: &[String]) -> Chain {
        if raw.steps.is_empty() {
            self.error(&format!("{path}.steps"), "a chain of nothing", "at least one step");
        }
        let mut step = |(at, step): (usize, RawStep)| {
            let path = format!("{path}.steps[{at}]");
            match step {
                RawStep::Stream(name) => Step::Stream(self.place(&path, "stream", &name, streams)),
                RawStep::Task { host, period_ns, offset_ns, response_ns } => {
                    self.period(&format!("{path}.period_ns"), period_ns);
                    self.time(&format!("{path}.response_ns"), response_ns);
                    if offset_ns >= period_ns.max(1) {
                        let message = "an offset that is not below the period";
                        self.error(&format!("{path}.offset_ns"), message, "below period_ns");
                    }
                    let host = self.place(&format!("{path}.host"), "host", &host, hosts);
                    Step::Task { host, period_ns, offset_ns, response_ns }
                }
            }
        };
        let steps = raw.steps.into_iter().enumerate().map(&mut step).collect();
        Chain { name: raw.name, steps, reaction_ns_max: raw.reaction_ns_max, age_ns_max: raw.age_ns_max }
    }

    fn lane(&mut self, path: &str, raw: RawLane, names: &[String], links: &[Link]) -> Lane {
        let link = self.place(&format!("{path}.link"), "link", &raw.link, names);
        if links.get(link).is_some_and(|link| link.host.is_none()) {
            self.error(&format!("{path}.link"), "lanes are those of a host's link", "a link with `host`");
        }
        for (name, value) in [
            ("interval_ns", raw.interval_ns),
            ("burst_frames", raw.burst_frames.into()),
            ("frame_bytes", raw.frame_bytes.into()),
        ] {
            if value == 0 {
                self.error(&format!("{path}.{name}"), format!("`{name}` is 0"), "at least 1");
            }
        }
        Lane {
            name: raw.name,
            link,
            priority: raw.priority,
            frame_bytes: raw.frame_bytes,
            burst_frames: raw.burst_frames,
            interval_ns: raw.interval_ns,
            deadline_ns: raw.deadline_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"(
    hosts: [(name: "a", clock_error_ns: 0,
        wake: (quantile_ppm: 990_000, quantile_ns: 1, max_ns: 2, samples: 9),
        turn: (quantile_ppm: 990_000, quantile_ns: 1, max_ns: 2, samples: 9))],
    links: [(name: "up", host: "a", rate_mbps: 100, in_flight_bytes: 0, frame_bytes_max: 1538, boundary: Wire)],
    streams: [(name: "s", class: Assured, period_ns: 1_000_000, bytes: 100, deadline_ns: 1_000_000, path: [(link: "up")])],
)"#;

    fn wrong(from: &str, to: &str) -> Diagnostic {
        assert!(GOOD.contains(from), "{from}");
        parse("p.ron", &GOOD.replacen(from, to, 1)).unwrap_err().0.remove(0)
    }

    #[test]
    fn names_become_places() {
        let plant = parse("p.ron", GOOD).unwrap();
        assert_eq!((plant.links[0].host, plant.links[0].ps_per_byte), (Some(0), 80_000));
        assert_eq!(plant.streams[0].path, [Hop { link: 0, delay_ns: 0 }]);
    }

    #[test]
    fn what_means_nothing_is_told_with_line_and_column() {
        for (from, to, (line, column), words) in [
            ("link: \"up\")]", "link: \"ub\")]", (6, 115), "did you mean \"up\"?"),
            ("period_ns: 1_000_000, b", "period_ns: 0, b", (6, 54), "no period"),
            ("period_ns: 1_000_000, b", "period_ns: 18_446_744_073_709_551_615, b", (6, 54), "no period"),
            ("bytes: 100", "bytes: 0", (6, 72), "no bytes"),
            ("deadline_ns: 1_000_000", "deadline_ns: 0", (6, 90), "not after the release"),
            ("rate_mbps: 100", "rate_mbps: 0", (5, 48), "no rate"),
            ("quantile_ns: 1, max_ns: 2", "quantile_ns: 5, max_ns: 2", (3, 52), "above the longest"),
            ("rate_mbps", "rate_gbps", (5, 46), "rate_gbps"),
            ("boundary: Wire", "boundary: Moon", (5, 110), "Moon"),
            (", path: [(link: \"up\")]", ", path: []", (6, 107), "no path"),
        ] {
            let finding = wrong(from, to);
            assert!(finding.message.contains(words), "{words}: {finding}");
            assert_eq!((finding.line, finding.column), (line, column), "{finding}");
        }
        assert!(parse("p.ron", "").is_err() && parse("p.ron", "(hosts: [").is_err());
    }
}
