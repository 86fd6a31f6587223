//! Which link a stream takes to each peer: the table of the policy, and what is really used.

use super::facts::wrap;
use insane_core::Nanos;
use insane_policy::reason::Bits;
use insane_policy::report::{BudgetReport, FlowReport, PolicyReport, RankedReport};
use insane_wire::status::StreamStatus;
use serde::Serialize;
use std::fmt::Write;

/// What the policy says of one stream.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Choices {
    /// Each peer that has a sink of it.
    pub flows: Vec<FlowReport>,
    /// The budgets of links that it could take.
    pub budgets: Vec<BudgetReport>,
}

/// What of a report is about a stream.
pub fn of_stream(policy: &PolicyReport, stream: &StreamStatus) -> Choices {
    let is_it = |flow: &&FlowReport| flow.stream == stream.name && flow.domain == stream.domain;
    let flows: Vec<FlowReport> = policy.flows.iter().filter(is_it).cloned().collect();
    let could = |budget: &&BudgetReport| flows.iter().flat_map(|flow| &flow.links).any(|row| row.link == budget.link);
    let budgets = policy.budgets.iter().filter(could).cloned().collect();
    Choices { flows, budgets }
}

/// As text.
pub fn put(text: &mut String, choices: &Choices) {
    for flow in &choices.flows {
        put_flow(text, flow);
    }
    for budget in &choices.budgets {
        let _ = writeln!(text, "budget of link {}: {}", budget.link, usage(budget));
    }
}

fn put_flow(text: &mut String, flow: &FlowReport) {
    let _ = writeln!(text, "links to peer {} by {}", flow.peer, flow.rule);
    let width = |of: fn(&RankedReport) -> &str| flow.links.iter().map(|row| of(row).chars().count()).max().unwrap_or(0);
    let (name, technology, health) = (width(|row| &row.link), width(|row| &row.technology), width(|row| &row.health));
    for row in &flow.links {
        let place = row.place.map_or("-".to_owned(), |place| place.to_string());
        let head = format!("  {place}  {:name$}  {:technology$}  {:health$}  ", row.link, row.technology, row.health);
        let held = row.held_ms.map(|ms| format!("; trusted again after {} more", Nanos::from_millis(ms)));
        wrap(text, &head, &(row.reasons.join("; ") + &held.unwrap_or_default()));
    }
    let or_none = |link: &Option<String>| link.clone().unwrap_or_else(|| "none".to_owned());
    let since = match Nanos::from_millis((flow.takes_s * 1e3) as u64) {
        Nanos::ZERO => "just now".to_owned(),
        since => format!("for {since}"),
    };
    wrap(text, "  chosen   ", &format!("{}, {since}", or_none(&flow.takes)));
    wrap(text, "             because: ", &flow.because);
    wrap(text, "  used     ", &or_none(&flow.used));
    wrap(text, "             because: ", &flow.used_because);
    wrap(text, "  if the chosen one failed  ", &or_none(&flow.fallback));
    wrap(text, "  counts as  ", &flow.need);
}

fn usage(budget: &BudgetReport) -> String {
    let part = |used: Option<String>, most: Option<String>, unit: &str| {
        let most = most?;
        Some(used.map_or_else(|| format!("at most {most}{unit}"), |used| format!("{used} of {most}{unit}")))
    };
    let streams = part(
        budget.streams_used.map(|streams| streams.to_string()),
        budget.streams_max.map(|streams| streams.to_string()),
        " streams",
    );
    let bits = |bits: u64| Bits(bits).to_string();
    let bandwidth = part(budget.bits_per_s_used.map(bits), budget.bits_per_s_max.map(bits), "");
    let held = budget.best_effort_bits_per_s.map(|most| format!("best effort held to {}", bits(most)));
    streams.into_iter().chain(bandwidth).chain(held).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(link: &str, technology: &str, place: Option<u8>, health: &str, reasons: &[&str]) -> RankedReport {
        RankedReport {
            link: link.into(),
            technology: technology.into(),
            place,
            health: health.into(),
            held_ms: (health == "held down").then_some(1_900),
            reasons: reasons.iter().map(|reason| (*reason).to_owned()).collect(),
        }
    }

    fn flow() -> FlowReport {
        FlowReport {
            domain: "line".into(),
            stream: "axis".into(),
            peer: "cell-b".into(),
            rule: "rule 3, for fast".into(),
            links: vec![
                row("plant", "udp", Some(1), "good", &["nothing is before it", "udp is number 4 of the rule"]),
                row("office", "tcp", Some(2), "held down", &["the one before is in better health"]),
                row(
                    "fast",
                    "xdp",
                    None,
                    "failed",
                    &[
                        "it failed: it is gone, or silent while another link hears the peer",
                        "its budget of streams is used up by streams that are as important, or more",
                    ],
                ),
            ],
            takes: Some("plant".into()),
            takes_s: 12.5,
            because: "it gave way to stream \"robot\" to peer cell-b, which goes first".into(),
            fallback: Some("office".into()),
            need: "1 stream, 1 Mbit/s".into(),
            used: Some("office".into()),
            used_because: "datapaths use the first link".into(),
        }
    }

    #[test]
    fn the_table_reads_as_a_table() {
        let budget = BudgetReport {
            link: "fast".into(),
            streams_used: Some(1),
            streams_max: Some(2),
            bits_per_s_used: Some(999_500),
            bits_per_s_max: Some(5_000_000),
            best_effort_bits_per_s: Some(4_000_000),
        };
        let mut text = String::new();
        put(&mut text, &Choices { flows: vec![flow()], budgets: vec![budget.clone()] });
        assert_eq!(
            text,
            "links to peer cell-b by rule 3, for fast\n\
             \x20 1  plant   udp  good       nothing is before it; udp is number 4 of the rule\n\
             \x20 2  office  tcp  held down  the one before is in better health; trusted again after 1.90 s more\n\
             \x20 -  fast    xdp  failed     it failed: it is gone, or silent while another link hears the peer; its\n\
             \x20                            budget of streams is used up by streams that are as important, or more\n\
             \x20 chosen   plant, for 12.50 s\n\
             \x20            because: it gave way to stream \"robot\" to peer cell-b, which goes first\n\
             \x20 used     office\n\
             \x20            because: datapaths use the first link\n\
             \x20 if the chosen one failed  office\n\
             \x20 counts as  1 stream, 1 Mbit/s\n\
             budget of link fast: 1 of 2 streams, 1000 kbit/s of 5 Mbit/s, best effort held to 4 Mbit/s\n"
        );
        text.clear();
        put_flow(&mut text, &FlowReport { takes_s: 0.000_9, ..flow() });
        assert!(text.contains("  chosen   plant, just now\n"), "{text}");
        let hidden = BudgetReport {
            streams_used: None,
            bits_per_s_used: None,
            bits_per_s_max: None,
            best_effort_bits_per_s: None,
            ..budget
        };
        assert_eq!(usage(&hidden), "at most 2 streams");
    }

    #[test]
    fn only_what_is_about_the_stream_is_told() {
        let budget = |link: &str| BudgetReport { link: link.into(), ..BudgetReport::default() };
        let other = FlowReport { domain: "apart".into(), ..flow() };
        let policy = PolicyReport { flows: vec![other, flow()], budgets: vec![budget("fast"), budget("else")] };
        let stream = StreamStatus { name: "axis".into(), domain: "line".into(), ..StreamStatus::default() };
        assert_eq!(of_stream(&policy, &stream), Choices { flows: vec![flow()], budgets: vec![budget("fast")] });
        let nobody = StreamStatus { name: "other".into(), ..stream };
        assert_eq!(of_stream(&policy, &nobody), Choices::default());
    }
}
