//! Gate lists of `tc taprio`: read from a command, from `tc qdisc show` or from
//! `tc -j qdisc show`; written from a certificate.
//!
//! Only the queueing discipline's own words are understood. What is read becomes windows of
//! one cycle; base times count modulo the cycle, so they may be of any time.

use super::words::cycle_ns;
use insane_certificate::{Certificate, Window};
use insane_config::plan::{GateWindow, GatesPlan};
use std::fmt::Write as _;

/// Entries of a list at most; what a kernel or a card takes is less.
pub const ENTRIES_MAX: usize = 1_024;
/// Entries for which `tc` of iproute2 has room. It makes its request in 1,024 bytes (as of version
/// 6.1): at most 176 are taken before the first entry, and each takes 28. What is more it cuts, in the
/// middle of an entry, says "message exceeded bound" and ends with status 0.
pub const TC_ENTRIES_MAX: usize = 30;
/// Bytes of the shortest frame, without its checksum. The kernel takes no gate that is open or
/// shut for less than that takes at the rate of the device (`ETH_ZLEN`, `fill_sched_entry` of
/// `net/sched/sch_taprio.c`).
const FRAME_BYTES_LEAST: u64 = 60;
/// Traffic classes at most, as the kernel has it.
const CLASSES_MAX: u64 = 16;

/// A gate list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Taprio {
    /// Traffic classes.
    pub classes: u32,
    /// First instant of the first cycle; any.
    pub base_ns: i64,
    /// `None`: as long as the entries are.
    pub cycle_ns: Option<u64>,
    /// Open gates, a bit a class, and for how long, nanoseconds.
    pub entries: Vec<(u32, u64)>,
}

/// What is wrong, and where: line and column count from 1.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{line}:{column}: {what}")]
pub struct TaprioError {
    line: usize,
    column: usize,
    what: String,
}

#[derive(Clone, Copy, Debug)]
struct Token<'t> {
    text: &'t str,
    line: usize,
    column: usize,
}

impl Token<'_> {
    fn error(&self, what: impl Into<String>) -> TaprioError {
        TaprioError { line: self.line, column: self.column, what: what.into() }
    }
}

/// Reads a gate list, in whichever of the three forms.
pub fn parse(text: &str) -> Result<Taprio, TaprioError> {
    let list = if text.trim_start().starts_with(['[', '{']) { from_json(text)? } else { from_words(text)? };
    let whole = |what: &str| TaprioError { line: 1, column: 1, what: what.to_owned() };
    if list.entries.is_empty() {
        return Err(whole("the list has no entries"));
    }
    if list.entries.len() > ENTRIES_MAX {
        return Err(whole("the list has more entries than any kernel takes"));
    }
    if !(1..=CLASSES_MAX).contains(&u64::from(list.classes)) {
        return Err(whole("the number of traffic classes is missing, or not 1 to 16"));
    }
    let sum = list.entries.iter().try_fold(0_u64, |sum, entry| sum.checked_add(entry.1));
    let sum = sum.ok_or_else(|| whole("the entries are longer than can be counted"))?;
    match list.cycle_ns {
        Some(cycle) if cycle > sum => Err(whole(
            "the entries are shorter than the cycle time: what gates do in the rest is not the same in all kernels and cards",
        )),
        Some(0) => Err(whole("the cycle time is 0")),
        _ => Ok(list),
    }
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut all = Vec::new();
    for (number, line) in text.lines().enumerate() {
        // Comments, as shells have them, end a line.
        let line = line.split('#').next().unwrap_or("");
        let mut at = 0;
        for word in line.split_whitespace() {
            let found = line[at..].find(word).map_or(at, |more| at + more);
            at = found + word.len();
            let column = line[..found].chars().count() + 1;
            if word != "\\" {
                all.push(Token { text: word, line: number + 1, column });
            }
        }
    }
    all
}

struct Words<'t> {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token<'t>>>,
    last: Token<'t>,
}

impl<'t> Words<'t> {
    fn next(&mut self) -> Option<Token<'t>> {
        let token = self.tokens.next()?;
        self.last = token;
        Some(token)
    }

    fn value(&mut self) -> Result<Token<'t>, TaprioError> {
        let before = self.last;
        self.next().ok_or_else(|| before.error(format!("nothing follows `{}`", before.text)))
    }

    fn number<N: TryFrom<i128>>(&mut self, radix: u32) -> Result<N, TaprioError> {
        let token = self.value()?;
        let digits = token.text.strip_prefix("0x");
        let radix = if digits.is_some() { 16 } else { radix };
        let number = i128::from_str_radix(digits.unwrap_or(token.text), radix).ok().and_then(|n| N::try_from(n).ok());
        number.ok_or_else(|| token.error(format!("`{}` is no number that is possible here", token.text)))
    }

    fn expect(&mut self, word: &str) -> Result<(), TaprioError> {
        let token = self.value()?;
        if token.text == word { Ok(()) } else { Err(token.error(format!("`{}` instead of `{word}`", token.text))) }
    }

    /// Passes over values of a list.
    fn skip_list(&mut self, is_value: impl Fn(&str) -> bool) {
        while self.tokens.next_if(|token| is_value(token.text)).is_some() {}
    }

    fn gates(&mut self) -> Result<(), TaprioError> {
        let command = self.value()?;
        if ["S", "H", "R"].contains(&command.text) {
            return Ok(());
        }
        Err(command.error(format!("`{}` is no gate command: S, H or R", command.text)))
    }

    fn interval(&mut self) -> Result<u64, TaprioError> {
        let interval = self.number(10)?;
        if interval == 0 { Err(self.last.error("an interval of 0")) } else { Ok(interval) }
    }
}

fn from_words(text: &str) -> Result<Taprio, TaprioError> {
    let all = tokens(text);
    let first = Token { text: "", line: 1, column: 1 };
    let starts: Vec<usize> = (0..all.len()).filter(|at| all[*at].text == "taprio").collect();
    let from = match starts[..] {
        [] => return Err(first.error("there is no `taprio` in this text")),
        [from] => from + 1,
        [_, second, ..] => return Err(all[second].error("a second `taprio`: give the text of one interface")),
    };
    let mine: Vec<Token> = all[from..].iter().copied().take_while(|token| token.text != "qdisc").collect();
    let mut words = Words { tokens: mine.into_iter().peekable(), last: all[from - 1] };
    let mut list = Taprio::default();
    let mut has_base = false;
    while let Some(token) = words.next() {
        match token.text {
            "num_tc" | "tc" => list.classes = words.number(10)?,
            "base-time" if has_base => {
                return Err(token.error("a second `base-time`: one of the schedules is not in force yet"));
            }
            "base-time" => (list.base_ns, has_base) = (words.number(10)?, true),
            "cycle-time" => list.cycle_ns = Some(words.number(10)?).filter(|cycle| *cycle != 0),
            "sched-entry" => {
                words.gates()?;
                let gates = words.number(16)?;
                let interval = words.interval()?;
                list.entries.push((gates, interval));
            }
            "index" => {
                words.number::<u32>(10)?;
                words.expect("cmd")?;
                words.gates()?;
                words.expect("gatemask")?;
                let gates = words.number(16)?;
                words.expect("interval")?;
                let interval = words.interval()?;
                list.entries.push((gates, interval));
            }
            "cycle-time-extension" | "txtime-delay" | "flags" | "clockid" | "refcnt" | "dev" | "parent" | "handle" => {
                words.value()?;
            }
            "map" | "max-sdu" => words.skip_list(|word| word.bytes().all(|byte| byte.is_ascii_digit())),
            "fp" => words.skip_list(|word| word == "E" || word == "P"),
            "queues" => words.skip_list(|word| {
                word == "offset" || word == "count" || word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'@')
            }),
            // The handle and place of a discipline that is shown.
            "root" => {}
            handle if handle.ends_with(':') => {}
            other => return Err(token.error(format!("`{other}` is no word of taprio"))),
        }
    }
    Ok(list)
}

fn from_json(text: &str) -> Result<Taprio, TaprioError> {
    let place = |line, column, what: String| TaprioError { line, column, what };
    let value: serde_json::Value = serde_json::from_str(text)
        .map_err(|error| place(error.line().max(1), error.column().max(1), format!("this is no JSON: {error}")))?;
    let whole = |what: &str| place(1, 1, what.to_owned());
    let disciplines = match value {
        serde_json::Value::Array(all) => all,
        one => vec![one],
    };
    let mut mine = disciplines.iter().filter(|one| one["kind"] == "taprio");
    let one = mine.next().ok_or_else(|| whole("there is no `taprio` in this text"))?;
    if mine.next().is_some() {
        return Err(whole("a second `taprio`: give the text of one interface"));
    }
    let options = &one["options"];
    let number = |value: &serde_json::Value, name: &str| {
        let text = value.as_str().map(|text| text.trim_start_matches("0x").to_owned());
        let parsed = text.map_or_else(|| value.as_i64(), |text| i64::from_str_radix(&text, 16).ok());
        parsed.ok_or_else(|| whole(&format!("`{name}` is missing, or no number")))
    };
    let unsigned = |value: &serde_json::Value, name: &str| {
        u64::try_from(number(value, name)?).map_err(|_| whole(&format!("`{name}` is below 0")))
    };
    let classes = unsigned(&options["tc"], "tc")?;
    let entries = options["schedule"].as_array().ok_or_else(|| whole("`schedule` is missing"))?;
    let entry = |entry: &serde_json::Value| {
        let gates = unsigned(&entry["gatemask"], "gatemask")?;
        let gates = u32::try_from(gates).map_err(|_| whole("`gatemask` is too large"))?;
        match unsigned(&entry["interval"], "interval")? {
            0 => Err(whole("an interval of 0")),
            interval => Ok((gates, interval)),
        }
    };
    Ok(Taprio {
        classes: u32::try_from(classes).unwrap_or(u32::MAX),
        base_ns: if options["base_time"].is_null() { 0 } else { number(&options["base_time"], "base_time")? },
        cycle_ns: match &options["cycle_time"] {
            serde_json::Value::Null => None,
            cycle => Some(unsigned(cycle, "cycle_time")?).filter(|cycle| *cycle != 0),
        },
        entries: entries.iter().map(entry).collect::<Result<_, _>>()?,
    })
}

impl Taprio {
    /// The cycle. [`parse`] has seen that it can be counted and is not 0.
    pub fn cycle(&self) -> u64 {
        self.cycle_ns.unwrap_or_else(|| self.entries.iter().map(|entry| entry.1).sum())
    }

    /// When the gate of a class is shut.
    pub fn shut(&self, class: u32) -> Vec<Window> {
        let cycle = self.cycle();
        let mut shut: Vec<(u64, u64)> = Vec::new();
        let mut at = 0;
        for &(gates, interval) in &self.entries {
            // Entries beyond the cycle time are cut.
            let end = (at + interval).min(cycle);
            if gates & (1_u32 << class) == 0 && at < end {
                match shut.last_mut().filter(|last| last.1 == at) {
                    Some(last) => last.1 = end,
                    None => shut.push((at, end)),
                }
            }
            at = end;
        }
        // What ends with the cycle and begins with the next is one window.
        if shut.len() > 1 && shut[0].0 == 0 && shut.last().is_some_and(|last| last.1 == cycle) {
            let first = shut.remove(0);
            if let Some(last) = shut.last_mut() {
                last.1 += first.1;
            }
        }
        let base = i128::from(self.base_ns);
        let offset = |from: u64| (base + i128::from(from)).rem_euclid(i128::from(cycle)) as u64;
        shut.into_iter()
            .map(|(from, to)| Window { offset_ns: offset(from), length_ns: to - from, period_ns: cycle })
            .collect()
    }

    /// What the kernel or `tc` would make of the command otherwise than it says.
    ///
    /// `ps_per_byte`: the rate of the link, picoseconds a byte; `None`: not known.
    pub fn warnings(&self, ps_per_byte: Option<u64>) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.entries.len() > TC_ENTRIES_MAX {
            warnings.push(format!(
                "warning: {} gates: tc of iproute2 takes {TC_ENTRIES_MAX}, cuts the others off and ends with status 0. Read \
                 back what the kernel has (tc qdisc show, `insane schedule taprio import`), or have fewer slots a cycle",
                self.entries.len()
            ));
        }
        // Where the rate is not known, that of 100 Gbit/s: what is refused there is refused anywhere.
        let least_ns = least_ns(ps_per_byte.unwrap_or(80));
        let short = self.entries.iter().filter(|(_, interval)| *interval < least_ns);
        let (count, shortest) = short.fold((0, u64::MAX), |(count, least), (_, ns)| (count + 1, least.min(*ns)));
        if count > 0 {
            warnings.push(format!(
                "warning: {count} gates are shorter than a frame of {FRAME_BYTES_LEAST} bytes takes ({least_ns} ns), the shortest \
                 {shortest} ns: for a card of that rate the kernel refuses the whole list (EINVAL). In the plant let `blocked` windows reach over the \
                 gaps beside them, and give the streams of short slots more `bytes`"
            ));
        }
        warnings
    }

    /// The command that puts this list on a device.
    ///
    /// Two classes: 0 for the runtime's real-time sockets (priority 6), 1 for all others.
    pub fn command(&self, device: &str) -> String {
        let mut text = format!(
            "tc qdisc replace dev {device} parent root handle 100: taprio \\\n    num_tc 2 map 1 1 1 1 1 1 0 1 1 1 1 1 1 1 1 1 queues 1@0 1@1 \\\n    base-time {} cycle-time {} \\\n",
            self.base_ns,
            self.cycle(),
        );
        for (gates, interval) in &self.entries {
            let _ = writeln!(text, "    sched-entry S {gates:02x} {interval} \\");
        }
        text.push_str("    clockid CLOCK_TAI\n");
        text
    }
}

/// The gates of a datapath: a class is open where one of its lanes is. Lanes 0 to 2 share the
/// real-time sockets, and all others the other ones, so a card does not tell more of them apart.
pub fn from_gates(gates: &GatesPlan) -> Result<Taprio, String> {
    let base_ns = i64::try_from(gates.base_ns).map_err(|_| "the base time is beyond what tc takes")?;
    let mut entries: Vec<(u32, u64)> = Vec::new();
    for GateWindow { open_lanes, length } in &gates.windows {
        let open = u32::from(open_lanes & 0b111 != 0) | u32::from(open_lanes & !0b111 != 0) << 1;
        match entries.last_mut().filter(|last| last.0 == open) {
            Some(last) => last.1 += length.0,
            None => entries.push((open, length.0)),
        }
    }
    Ok(Taprio { classes: 2, base_ns, cycle_ns: Some(gates.cycle().0), entries })
}

/// The shortest gate that the kernel takes at a rate, nanoseconds.
const fn least_ns(ps_per_byte: u64) -> u64 {
    FRAME_BYTES_LEAST * ps_per_byte / 1_000
}

/// The gates of a link: in slots only class 0 is open, in blocked windows none, else all;
/// but on a switch's port, where class 0 has nothing outside its slots, there only class 1.
/// Where all would be open beside a slot for less than the shortest frame takes, which the kernel
/// refuses, only class 0 is: nothing of class 1 fits there.
pub fn from_certificate(certificate: &Certificate, link: usize) -> Result<Taprio, String> {
    let plant = &certificate.plant;
    let streams = plant.streams.iter().zip(&certificate.placed);
    let slots = streams.flat_map(|(stream, placed)| {
        stream.path.iter().zip(&placed.windows).filter(|(hop, _)| hop.link == link).map(|(_, window)| (1_u32, window))
    });
    let windows: Vec<(u32, &Window)> =
        slots.chain(plant.links[link].blocked.iter().map(|window| (0, window))).collect();
    if windows.is_empty() {
        return Err("the link has no windows: there is nothing to gate".into());
    }
    let all = windows.iter().map(|(_, window)| window.period_ns);
    let cycle = all.fold(cycle_ns(plant), |cycle, period| insane_scheduler::lcm(cycle?, period));
    // Sums of two cycles are formed below.
    let cycle = cycle.filter(|cycle| *cycle <= i64::MAX as u64);
    let cycle = cycle.ok_or("the periods have no common cycle that can be counted")?;
    let count: u128 = windows.iter().map(|(_, window)| u128::from(cycle / window.period_ns.max(1))).sum();
    if count > ENTRIES_MAX as u128 {
        return Err(format!("{count} windows in a cycle of {cycle} ns are more than {ENTRIES_MAX} entries can hold"));
    }
    let mut pieces: Vec<(u64, u64, u32)> = Vec::new();
    for (gates, window) in windows {
        for number in 0..cycle / window.period_ns.max(1) {
            let from = number * window.period_ns + window.offset_ns;
            let to = from + window.length_ns;
            pieces.push((from, to.min(cycle), gates));
            if to > cycle {
                pieces.push((0, to - cycle, gates));
            }
        }
    }
    pieces.sort_unstable();
    let between = if plant.links[link].host.is_some() { 0b11 } else { 0b10 };
    let mut entries: Vec<(u32, u64)> = Vec::new();
    let mut add = |gates: u32, interval: u64| match entries.last_mut().filter(|last| last.0 == gates) {
        Some(last) => last.1 += interval,
        None if interval > 0 => entries.push((gates, interval)),
        None => {}
    };
    let mut at = 0;
    for (from, to, gates) in pieces {
        // Blocked windows may overlap one another; slots overlap nothing.
        if to <= at {
            continue;
        }
        if from > at {
            add(between, from - at);
        }
        add(gates, to - from.max(at));
        at = to;
    }
    if at < cycle {
        add(between, cycle - at);
    }
    join_gaps(&mut entries, least_ns(plant.links[link].ps_per_byte.into()));
    if entries.len() > ENTRIES_MAX {
        return Err(format!("{} entries are more than {ENTRIES_MAX}", entries.len()));
    }
    Ok(Taprio { classes: 2, base_ns: 0, cycle_ns: Some(cycle), entries })
}

/// Gates of all classes that are too short for a frame become part of a slot beside them; the last
/// entry is beside the first.
fn join_gaps(entries: &mut Vec<(u32, u64)>, least_ns: u64) {
    let count = entries.len();
    let is_slot = |at: usize| entries[at % count].0 == 0b01;
    let is_gap = |at: &usize| {
        let (gates, interval) = entries[*at];
        gates == 0b11 && interval < least_ns && (is_slot(at + count - 1) || is_slot(at + 1))
    };
    for at in (0..entries.len()).filter(is_gap).collect::<Vec<_>>() {
        entries[at].0 = 0b01;
    }
    entries.dedup_by(|next, last| {
        let is_same = next.0 == last.0;
        last.1 += if is_same { next.1 } else { 0 };
        is_same
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMAND: &str = "tc qdisc replace dev eth0 parent root handle 100 taprio \\\n  num_tc 3 map 2 2 1 0 2 2 2 2 2 2 2 2 2 2 2 2 \\\n  queues 1@0 1@1 2@2 base-time 1528743495910289987 \\\n  sched-entry S 01 300000 sched-entry S 02 300000 sched-entry S 04 400000 \\\n  clockid CLOCK_TAI flags 0x0\n";
    const SHOWN: &str = "qdisc taprio 100: root refcnt 9 tc 3 map 2 2 1 0 2 2 2 2 2 2 2 2 2 2 2 2\nqueues offset 0 count 1 offset 1 count 1 offset 2 count 2 \nclockid TAI base-time 1528743495910289987 cycle-time 1000000 cycle-time-extension 0\n\tindex 0 cmd S gatemask 0x1 interval 300000\n\tindex 1 cmd S gatemask 0x2 interval 300000\n\tindex 2 cmd S gatemask 0x4 interval 400000\n\nqdisc pfifo 0: parent 100:1 limit 1000p\n";
    const JSON: &str = r#"[{"kind":"noqueue"},{"kind":"taprio","handle":"100:","options":{"tc":3,"map":[2,2],"queues":[],"clockid":"TAI","base_time":1528743495910289987,"cycle_time":1000000,"cycle_time_extension":0,"schedule":[{"index":0,"cmd":"S","gatemask":"0x1","interval":300000},{"index":1,"cmd":"S","gatemask":"0x2","interval":300000},{"index":2,"cmd":"S","gatemask":"0x4","interval":400000}]}}]"#;

    #[test]
    fn a_command_what_is_shown_and_json_are_one_list() {
        let lists = [COMMAND, SHOWN, JSON].map(|text| parse(text).unwrap());
        assert_eq!(lists[0].entries, [(1, 300_000), (2, 300_000), (4, 400_000)]);
        for list in &lists {
            assert_eq!((list.classes, list.cycle()), (3, 1_000_000));
            assert_eq!((list.base_ns, &list.entries), (lists[0].base_ns, &lists[0].entries));
            // 910,289,987 modulo 1 ms is 289,987; the gate of class 0 is shut 0.3 ms later.
            let shut = Window { offset_ns: 589_987, length_ns: 700_000, period_ns: 1_000_000 };
            assert_eq!(list.shut(0), [shut]);
        }
        // Class 1 is shut at the end of a cycle and at the start of the next: one window.
        let shut = Window { offset_ns: 889_987, length_ns: 700_000, period_ns: 1_000_000 };
        assert_eq!(lists[0].shut(1), [shut]);
    }

    #[test]
    fn gates_of_a_configuration_are_a_list_of_two_classes() {
        let window = |open_lanes, us| GateWindow { open_lanes, length: insane_core::Nanos::from_micros(us) };
        // Real time alone, with another lane of it, nobody, best effort, all.
        let windows = vec![window(1, 100), window(6, 50), window(0, 25), window(0x80, 25), window(0xff, 300)];
        let list = from_gates(&GatesPlan { base_ns: 7, windows }).unwrap();
        let entries = vec![(1, 150_000), (0, 25_000), (2, 25_000), (3, 300_000)];
        assert_eq!(list, Taprio { classes: 2, base_ns: 7, cycle_ns: Some(500_000), entries });
        assert_eq!(parse(&list.command("eth0")), Ok(list));
    }

    #[test]
    fn entries_beyond_the_cycle_time_are_cut() {
        let list = parse(&COMMAND.replacen("clockid", "cycle-time 700000 clockid", 1)).unwrap();
        // Class 2 is open for the last 0.1 ms of 0.7 instead of for 0.4 ms.
        let shut =
            |class| list.shut(class).iter().map(|window| (window.length_ns, window.period_ns)).collect::<Vec<_>>();
        assert_eq!([shut(0), shut(2)], [[(400_000, 700_000)], [(600_000, 700_000)]]);
    }

    #[test]
    fn a_window_over_the_end_of_the_cycle_is_gated_on_both_sides() {
        let text = r#"(
            hosts: [(name: "a", clock_error_ns: 0,
                wake: (quantile_ppm: 990_000, quantile_ns: 1, max_ns: 2, samples: 9),
                turn: (quantile_ppm: 990_000, quantile_ns: 1, max_ns: 2, samples: 9))],
            links: [(name: "up", host: "a", rate_mbps: 100, in_flight_bytes: 0, frame_bytes_max: 1538, boundary: Wire,
                blocked: [(offset_ns: 900_000, length_ns: 300_000, period_ns: 1_000_000)])],
            streams: [],
        )"#;
        let plant = super::super::plant::parse("p.ron", text).unwrap();
        let certificate = Certificate { plant, placed: vec![], chains: vec![], lanes: vec![] };
        let list = from_certificate(&certificate, 0).unwrap();
        assert_eq!(list.entries, [(0, 200_000), (3, 700_000), (0, 100_000)]);
        assert_eq!(list.shut(1), certificate.plant.links[0].blocked, "and comes back as it was");
    }

    #[test]
    fn a_gap_in_which_no_frame_fits_is_part_of_the_slot_beside_it() {
        let mut entries =
            vec![(0b11, 464), (0b01, 900), (0b11, 48), (0b01, 900), (0b11, 480), (0, 500), (0b11, 48), (0, 9)];
        let whole: u64 = entries.iter().map(|entry| entry.1).sum();
        join_gaps(&mut entries, least_ns(8_000));
        assert_eq!(entries, [(0b01, 464 + 900 + 48 + 900), (0b11, 480), (0, 500), (0b11, 48), (0, 9)]);
        assert_eq!(entries.iter().map(|entry| entry.1).sum::<u64>(), whole);
        // The cycle comes round: the last is beside the first.
        for (given, joined) in [
            ([(0b01, 900), (0b11, 480), (0, 500), (0b11, 48)], [(0b01, 900), (0b11, 480), (0, 500), (0b01, 48)]),
            ([(0b11, 48), (0, 500), (0b11, 480), (0b01, 900)], [(0b01, 48), (0, 500), (0b11, 480), (0b01, 900)]),
        ] {
            let mut entries = given.to_vec();
            join_gaps(&mut entries, least_ns(8_000));
            assert_eq!(entries, joined);
        }
    }

    #[test]
    fn gates_that_the_kernel_refuses_are_told() {
        let list = |shortest| Taprio { classes: 2, entries: vec![(1, 9_000), (3, shortest)], ..Taprio::default() };
        let gigabit = Some(8_000);
        assert!(list(480).warnings(gigabit).is_empty(), "60 bytes take 480 ns");
        let said = list(479).warnings(gigabit);
        assert!(
            matches!(said.as_slice(), [one] if one.contains("1 gates are shorter") && one.contains("479 ns")),
            "{said:?}"
        );
        assert!(list(3).warnings(None).len() == 1 && list(48).warnings(None).is_empty());
        let many = Taprio { entries: vec![(1, 9_000); TC_ENTRIES_MAX + 1], ..list(9_000) };
        assert!(many.warnings(gigabit)[0].contains("cuts the others off"));
    }

    #[test]
    fn a_base_time_may_be_of_any_time() {
        let base = |base: i64| parse(&COMMAND.replace("1528743495910289987", &base.to_string())).unwrap().shut(0);
        for far in [i64::MIN, -1, 0, 4_000_000_000_000_000_000, i64::MAX] {
            assert!(base(far).iter().all(|window| window.offset_ns < window.period_ns), "{far}");
        }
        assert_eq!(base(-1)[0].offset_ns, 299_999);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (from, to, (line, column), words) in [
            ("S 01 300000", "S 01 0", (4, 20), "interval of 0"),
            ("S 02", "X 02", (4, 39), "no gate command"),
            ("S 02", "S zz", (4, 41), "no number"),
            ("num_tc", "num_to", (2, 3), "no word of taprio"),
            ("clockid CLOCK_TAI flags 0x0", "cycle-time 2000000", (1, 1), "shorter than the cycle"),
            ("taprio", "pfifo", (1, 1), "no `taprio`"),
            ("flags 0x0", "sched-entry S 01", (5, 35), "nothing follows"),
            ("base-time 1528743495910289987", "base-time 99999999999999999999", (3, 32), "no number"),
        ] {
            let error = parse(&COMMAND.replacen(from, to, 1)).unwrap_err();
            assert!(error.what.contains(words), "{error}");
            assert_eq!((error.line, error.column), (line, column), "{error}");
        }
        assert!(
            parse("").is_err()
                && parse("[").is_err()
                && parse("[]").is_err()
                && parse("{\"kind\":\"taprio\"}").is_err()
        );
        let twice = SHOWN.replacen("clockid", "base-time 5 clockid", 1);
        assert!(parse(&twice).unwrap_err().what.contains("not in force yet"));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let list = Taprio { classes: 2, base_ns: 0, cycle_ns: Some(10), entries: vec![(1, 4), (3, 5), (0, 1)] };
        assert_eq!(parse(&list.command("eth0")), Ok(list));
    }
}
