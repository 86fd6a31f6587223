//! Peers, and discovery.

use super::*;

/// One link, and these peers.
fn peers(peers: &str) -> String {
    format!(
        "(host: (name: \"me\"),\nlinks: [(name: \"net\", technology: udp(bind: \"10.0.0.1:7400\"))],\npeers: [{peers}])"
    )
}

#[test]
fn peers_are_others_with_addresses_of_their_own() {
    let ours = "peers[0].links[\"net\"]";
    expect(
        &peers("(name: \"me\", links: {\"net\": \"10.0.0.2:7400\"})"),
        "3:16",
        "peers[0].name",
        "\"me\" is this host itself",
        "the name of another",
    );
    expect(
        &peers("(name: \"b\", links: {\"net\": \"10.0.0.1:7401\"})"),
        "3:36",
        ours,
        "10.0.0.1:7401 is this host itself: link \"net\" is bound to 10.0.0.1:7400",
        "the address of another host",
    );
    expect(
        &peers("(name: \"b\", links: {\"net\": \"127.0.0.1:7400\"})").replace("10.0.0.1:7400", "0.0.0.0:7400"),
        "3:36",
        ours,
        "127.0.0.1:7400 is this host itself: link \"net\" is bound to 0.0.0.0:7400",
        "the address of another host",
    );
    expect(
        &peers("(name: \"b\", links: {\"net\": \"[2001:db8::2]:7400\"})"),
        "3:36",
        ours,
        "the peer's address is IPv6, but link \"net\" is bound to 10.0.0.1:7400",
        "an IPv4 address",
    );
    expect(
        &peers("(name: \"b\", links: {\"net\": \"0.0.0.0:7400\"})"),
        "3:36",
        ours,
        "0.0.0.0 is no address of a host",
        "an IP address of the peer",
    );
    expect(
        &peers("(name: \"b\", links: {\"net\": \"b:7400\"})"),
        "3:36",
        ours,
        "\"b\" is a name, and names are not looked up",
        "an IP address of the peer",
    );
    expect(
        &peers("(name: \"b\", links: {\"ent\": \"10.0.0.2:7400\"})"),
        "3:29",
        "peers[0].links[\"ent\"]",
        "there is no link \"ent\"; did you mean \"net\"?",
        "\"net\"",
    );
    expect(
        &peers("(name: \"b\", links: {})"),
        "3:28",
        "peers[0].links",
        "the peer has no address",
        "its address on each",
    );
    let c = "(name: \"c\", links: {\"net\": \"10.0.0.3:7400\"})";
    expect(
        &peers(&format!("{c},\n{}", c.replace("\"c\"", "\"d\"").replace("7400", "7401"))),
        "4:28",
        "peers[1].links[\"net\"]",
        "10.0.0.3:7401 is the address of peers[0].links[\"net\"] already (each uses its port and the next one)",
        "an address that no other",
    );
    expect(
        &peers(&format!("{c},\n{}", c.replace("7400", "7402"))),
        "4:8",
        "peers[1].name",
        "\"c\" is the name of peers[0] already (line 3)",
        "a name that no other",
    );
    let many: Vec<String> =
        (0..65).map(|at| format!("(name: \"p{at}\", links: {{\"net\": \"10.0.1.{at}:7400\"}})")).collect();
    expect(&peers(&many.join(",")), "3:8", "peers", "there are 65 peers", "a list of at most 64");
}

#[test]
fn a_peer_that_some_lanes_cannot_reach_is_a_warning() {
    let text = "(datapaths: [(name: \"rt\", serves: real_time, links: [\"a\"]), (name: \"be\", serves: best_effort, links: [\"b\"])],\n\
                links: [(name: \"a\", technology: udp(bind: \"10.0.0.1:1\")), (name: \"b\", technology: udp(bind: \"10.0.0.1:3\"))],\n\
                peers: [(name: \"x\", links: {\"a\": \"10.0.0.2:1\"})])";
    let found = only(text);
    assert_eq!(found.severity, Severity::Warning);
    assert_eq!(found.message, "no link of datapath \"be\" leads to \"x\": what its lanes carry does not get there");
}

/// A configuration with one link and this in `discovery.gossip`, on line 2.
fn gossip(bind: &str, fields: &str) -> String {
    format!("(links: [(name: \"net\", technology: udp(bind: \"{bind}\"))], discovery: (gossip: (\n{fields})))")
}

#[test]
fn discovery_is_told_what_is_wrong_with_it() {
    let good = "bind: \"10.0.0.1:7100\", cluster: \"plant\", allow: [\"10.0.0.0/24\"]";
    let text = gossip("10.0.0.1:7400", good);
    let plan = parse("x.ron", &text, &machine()).unwrap_or_else(|findings| panic!("{findings}")).plan;
    let plan = plan.discovery.unwrap();
    assert_eq!((plan.peers_max, plan.forget_after.0, plan.links.len()), (32, 30_000_000_000, 1));
    assert_eq!(parse("x.ron", "(discovery: ())", &machine()).unwrap().plan.discovery, None);
    // Where the second line has this.
    let place = |text: &str, what: &str| format!("2:{}", text.lines().nth(1).unwrap().rfind(what).unwrap() + 1);
    let wrong = |from: &str, to: &str, field: &str, message: &str, accepted: &str| {
        assert!(good.contains(from), "{from}");
        let path = format!("discovery.gossip.{field}");
        let text = gossip("10.0.0.1:7400", &good.replace(from, to));
        let found = if to.starts_with('[') { to.to_owned() } else { format!("\"{to}\"") };
        expect(&text, &place(&text, &found), &path, message, accepted);
    };
    let port = "a particular IP address of this machine and a port from 1 to 65535";
    wrong(
        "10.0.0.1:7100",
        "0.0.0.0:7100",
        "bind",
        "0.0.0.0 is no particular address, and others are to be told one",
        port,
    );
    wrong("10.0.0.1:7100", "10.0.0.1", "bind", "\"10.0.0.1\" has no port", port);
    wrong(
        "10.0.0.1:7100",
        "10.0.0.1:7401",
        "bind",
        "port 7401 is one of link \"net\", which is bound to 10.0.0.1:7400",
        "a port that no udp link uses",
    );
    wrong("plant", "", "cluster", "the name is empty", "1 to 64 bytes");
    wrong("[\"10.0.0.0/24\"]", "[]", "allow", "nobody is allowed: no host would be found", "a list of 1 to 32");
    let host_bits = "\"10.0.0.1/24\" has bits set behind its prefix";
    wrong("10.0.0.0/24", "10.0.0.1/24", "allow[0]", host_bits, "\"10.0.0.0/24\"");
    let bits = "\"10.0.0.0/33\" has no such number of bits";
    wrong("10.0.0.0/24", "10.0.0.0/33", "allow[0]", bits, "an address and the number");
    wrong("10.0.0.0/24", "plant", "allow[0]", "\"plant\" is not a network", "an address and the number");
    for (more, what, field, message, accepted) in [
        ("peers_max: 65", "65", "peers_max", "65 is too large", "1 to 64"),
        ("forget_after_s: 4", "4)", "forget_after_s", "4 is too small", "5 to 86_400 seconds"),
        (
            "seeds: [\"10.0.1.1:7100\"]",
            "\"10.0.1.1",
            "seeds[0]",
            "10.0.1.1 is outside `allow`: its answers would not be heard",
            "an address in one of the networks",
        ),
        ("seeds: [\"plc-7:7100\"]", "\"plc-7", "seeds[0]", "\"plc-7\" is a name, and names are not looked up", ""),
        (
            "advertise: {\"nte\": \"10.0.0.1:7400\"}",
            "\"nte",
            "advertise[\"nte\"]",
            "there is no link \"nte\"; did you mean \"net\"?",
            "\"net\"",
        ),
        (
            "sedes: []",
            "sedes",
            "sedes",
            "there is no field `sedes` in `discovery.gossip`; did you mean `seeds`?",
            "bind, cluster",
        ),
    ] {
        let text = gossip("10.0.0.1:7400", &format!("{good}, {more}"));
        expect(&text, &place(&text, what), &format!("discovery.gossip.{field}"), message, accepted);
    }
    // It is the reference to the link that is wrong, and this is the remedy.
    let found = only(&gossip("0.0.0.0:7400", good));
    assert_eq!(found.message, "link \"net\" is bound to 0.0.0.0:7400, which is nothing that others could be told");
    assert!(found.accepted.starts_with("{\"net\": \"ADDRESS:7400\"}"), "{found}");
    let advertised = gossip("0.0.0.0:7400", &format!("{good}, advertise: {{\"net\": \"10.0.0.1:7400\"}}"));
    assert_eq!(findings(&advertised).count(), (0, 0));
    let found = only("(discovery: (gossip: (bind: \"10.0.0.1:7100\", cluster: \"p\", allow: [\"10.0.0.0/24\"])))");
    assert_eq!(found.message, "there is no link: hosts that are found could not be reached");
    let found = only("(discovery: (gossip: (bind: \"10.0.0.1:7100\", cluster: \"p\")))");
    assert_eq!(
        (found.path.as_str(), found.message.as_str()),
        ("discovery.gossip.allow", "the field `allow` is missing")
    );
    assert!(only("(discovery: (mdns: ()))").message.starts_with("there is no field `mdns` in `discovery`"));
}
