//! The files in `configs/` are what they claim to be.

use insane_config::fields::{FIELDS, pattern};
use insane_config::index::Index;
use insane_config::{Machine, Member, Plan, Severity, parse, raw};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

/// A machine on which all examples make sense.
fn machine() -> Machine {
    Machine { cores: Some(vec![0, 1]), ..Machine::unknown() }
}

fn plan(name: &str) -> Plan {
    parse(name, &read(name), &machine()).unwrap_or_else(|findings| panic!("{findings}")).plan
}

#[test]
fn every_file_is_valid_and_gives_no_cause_for_warnings() {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let entry = entry.unwrap();
        // Plants are no configurations: `insane schedule` reads them, and its tests.
        if entry.file_type().unwrap().is_dir() {
            continue;
        }
        let name = entry.file_name().into_string().unwrap();
        assert!(name.ends_with(".ron"), "{name}");
        let loaded = parse(&name, &read(&name), &machine()).unwrap_or_else(|findings| panic!("{findings}"));
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
        names.push(name);
    }
    for name in ["single-host.ron", "cell-a.ron", "cell-b.ron", "slots-a.ron", "slots-b.ron", "reference.ron"] {
        assert!(names.iter().any(|other| other == name), "{name} is missing");
    }
}

#[test]
fn each_of_a_pair_of_hosts_has_the_address_that_the_other_expects() {
    for pair in ["cell", "slots"] {
        let [a, b] = ["a", "b"].map(|side| plan(&format!("{pair}-{side}.ron")));
        expect_each_other(&a, &b);
    }
}

fn expect_each_other(a: &Plan, b: &Plan) {
    assert_ne!(a.host.id, b.host.id);
    assert_eq!((a.peers[0].name.as_str(), b.peers[0].name.as_str()), (b.host.name.as_str(), a.host.name.as_str()));
    for (of_a, of_b) in a.datapaths.iter().zip(&b.datapaths) {
        assert_eq!(of_a.serves, of_b.serves);
        for (link_a, link_b) in of_a.links.iter().zip(&of_b.links) {
            assert_eq!(link_a.peers, [Some(link_b.technology.bind())]);
            assert_eq!(link_b.peers, [Some(link_a.technology.bind())]);
        }
    }
    let names = |plan: &Plan| plan.domains.iter().map(|domain| domain.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(a), names(b));
}

/// Paths of all values of the text, without numbers of lists and names of maps.
fn written(text: &str) -> BTreeSet<String> {
    let index = Index::new(text);
    let is_named = |path: &&String| !path.rsplit('.').next().unwrap().starts_with(|c: char| c.is_ascii_digit());
    let path = |path: &str| pattern(&index.field_path(text, path));
    let paths: BTreeSet<String> = index.nodes().iter().map(|node| path(&node.path)).collect();
    paths.iter().filter(is_named).cloned().collect()
}

/// Paths of all fields of a value.
fn fields_of(value: &serde_json::Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, inner) in map {
                // Names of links and of enum variants are no fields.
                let inner_path = match key.as_str() {
                    _ if path.ends_with("peers[].links")
                        || path.ends_with(".advertise")
                        || path == "policy.budgets" =>
                    {
                        format!("{path}[]")
                    }
                    "uid" | "gid" => continue,
                    // As in the table of fields.
                    "tcp" | "xdp" | "rdma" | "dpdk" => {
                        fields_of(inner, &format!("{path}.{key}"), found);
                        continue;
                    }
                    "udp" | "spin_then_block" | "fifo" | "time_sensitive" => path.to_owned(),
                    key if path.is_empty() => key.to_owned(),
                    key => format!("{path}.{key}"),
                };
                found.insert(inner_path.clone());
                fields_of(inner, &inner_path, found);
            }
        }
        serde_json::Value::Array(list) => {
            for inner in list {
                fields_of(inner, &format!("{path}[]"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn the_reference_names_every_field_with_what_it_accepts_and_its_default() {
    let text = read("reference.ron");
    let written = written(&text);
    let options = ron::Options::default().with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME);
    let config: raw::Config = options.from_str(&text).unwrap();
    let mut of_the_types = BTreeSet::new();
    fields_of(&serde_json::to_value(&config).unwrap(), "", &mut of_the_types);
    for path in &of_the_types {
        assert!(written.contains(path), "reference.ron lacks {path}");
        assert!(FIELDS.iter().any(|field| field.path == path), "the table of fields lacks {path}");
    }
    for field in FIELDS {
        assert!(of_the_types.contains(field.path), "{} is no field", field.path);
        let comment = comment_above(&text, field.path);
        assert!(comment.contains(&format!("Accepts: {}\n", field.accepted())), "{}: {comment}", field.path);
        match field.default {
            Some(default) => assert!(comment.contains(&format!("Default: {default}\n")), "{}: {comment}", field.path),
            None => assert!(!comment.contains("Default:"), "{}: {comment}", field.path),
        }
    }
    for variant in ["spin,", "block,", "session:", "Accepts: real_time, best_effort or all", "any;"] {
        assert!(text.contains(variant), "reference.ron does not explain {variant}");
    }
}

/// The comment lines above the first field of this path.
fn comment_above(text: &str, path: &str) -> String {
    let index = Index::new(text);
    let is_it = |written: &str| pattern(&index.field_path(text, written)) == path;
    let node = index.nodes().iter().find(|node| is_it(&node.path)).unwrap_or_else(|| panic!("no {path}"));
    let start = node.key.as_ref().unwrap_or(&node.value).start;
    let line = index.place(text, start).line;
    let before: Vec<&str> = text.lines().take(line - 1).collect();
    let comment = before.iter().rev().map(|line| line.trim()).take_while(|line| line.starts_with("//"));
    let lines: Vec<&str> = comment.collect();
    lines.iter().rev().map(|line| format!("{}\n", line.trim_start_matches('/').trim())).collect()
}

/// The defaults that the reference documents are those of the code.
#[test]
fn what_the_reference_calls_default_is_the_default() {
    let options = ron::Options::default().with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME);
    let reference: raw::Config = options.from_str(&read("reference.ron")).unwrap();
    let default = raw::Config::default();
    assert_eq!(reference.control, default.control);
    assert_eq!(reference.memory, default.memory);
    assert_eq!(default.discovery, raw::Discovery { gossip: None });
    let short = r#"(discovery: (gossip: (bind: "", cluster: "", allow: [])))"#;
    let short = options.from_str::<raw::Config>(short).unwrap().discovery.gossip.unwrap();
    let full = reference.discovery.gossip.clone().unwrap();
    assert_eq!((short.peers_max, short.forget_after_s), (full.peers_max, full.forget_after_s));
    assert_eq!((short.seeds.len(), short.advertise.len()), (0, 0));
    assert_eq!(reference.log, default.log);
    assert_eq!(reference.eal, default.eal);
    assert_eq!(reference.domains[0].quota, raw::Quota::default());
    assert_eq!(reference.datapaths[0].idle, raw::Idle::default());
    let receive = plan("reference.ron").domains[0].receive.clone();
    assert_eq!(receive, insane_config::plan::receive_default());
    let short: raw::Config = options
        .from_str(r#"(links: [(name: "x", technology: udp(bind: "")), (name: "y", technology: udp(bind: ""))])"#)
        .unwrap();
    let raw::Technology::Udp { bind: _, frame_bytes_max, send_buffer_bytes, .. } = &short.links[0].technology else {
        panic!("the first link is udp")
    };
    assert_eq!((*frame_bytes_max, *send_buffer_bytes), (None, 1_048_576));
    let udp = |config: &raw::Config, at: usize| {
        let raw::Technology::Udp {
            bind: _,
            frame_bytes_max: frame,
            send_buffer_bytes: send,
            receive_buffer_bytes: receive,
            busy_poll_us: poll,
            real_time_dscp: dscp,
            launch_lead_us: lead,
            multicast: _,
        } = &config.links[at].technology
        else {
            panic!("link {at} is not udp")
        };
        (*frame, *send, *receive, *poll, *dscp, *lead)
    };
    assert_eq!(udp(&reference, 0), udp(&short, 0));
    assert_eq!(udp(&reference, 1), udp(&short, 0));
    let group = |config: &raw::Config| match &config.links[0].technology {
        raw::Technology::Udp { multicast, .. } => multicast.clone(),
        raw::Technology::Tcp { .. }
        | raw::Technology::Xdp { .. }
        | raw::Technology::Dpdk { .. }
        | raw::Technology::Rdma { .. } => None,
    };
    let short = r#"(links: [(name: "x", technology: udp(bind: "", multicast: (group: "239.192.0.1:7400")))])"#;
    let short: raw::Config = options.from_str(short).unwrap();
    assert!(group(&reference).is_some() && group(&reference) == group(&short));
    let short: raw::Config =
        options.from_str(r#"(links: [(name: "x", technology: tcp(bind: "192.0.2.1:7500"))])"#).unwrap();
    assert_eq!(reference.links[2].technology, short.links[0].technology);
    assert!(matches!(short.links[0].technology, raw::Technology::Tcp { frame_bytes_max: 16_384, .. }));
    let short: raw::Config =
        options.from_str(r#"(links: [(name: "x", technology: rdma(bind: "192.0.2.1:7600"))])"#).unwrap();
    assert_eq!(reference.links[4].technology, short.links[0].technology);
}

#[test]
fn the_empty_configuration_is_all_defaults() {
    let plan = parse("x.ron", "()", &Machine { uid: 7, hostname: "box".into(), ..machine() }).unwrap().plan;
    assert_eq!(plan.host.name, "box");
    assert_eq!(plan.host.id, insane_config::plan::host_id("box"));
    assert_eq!(plan.control.socket.unwrap(), Path::new("/run/insane/insaned.sock"));
    assert_eq!(plan.domains[0].members, [Member::Uid(7)]);
    assert_eq!((plan.datapaths.len(), plan.datapaths[0].name.as_str()), (1, "main"));
    assert!(plan.datapaths[0].links.is_empty() && plan.peers.is_empty());
}

#[test]
fn this_machine_finds_no_error_in_its_own_defaults() {
    let loaded = parse("x.ron", "()", &Machine::detect());
    let errors = loaded.err().map(|findings| findings.0.into_iter().filter(|f| f.severity == Severity::Error).count());
    assert_eq!(errors, None);
}
