//! Links, and how DPDK is started.

use super::*;

/// One link with this address.
fn bound(bind: &str) -> String {
    format!("(links: [(name: \"net\", technology: udp(bind: \"{bind}\"))])")
}

#[test]
fn addresses() {
    let cases = [
        ("192.0.2.1", "\"192.0.2.1\" has no port"),
        ("::1", "\"::1\" has no port"),
        ("[::1]", "\"[::1]\" has no port"),
        ("", "\"\" is not an IP address with a port"),
        ("fe80::zz:1", "\"fe80::zz\" is not an IP address"),
        ("cell-a:7400", "\"cell-a\" is a name, and names are not looked up"),
        ("300.0.0.1:7400", "\"300.0.0.1\" is not an IP address"),
        ("192.0.2.1:70000", "\"70000\" is not a port"),
        ("192.0.2.1:http", "\"http\" is not a port"),
        ("192.0.2.1:0", "port 0 is no port that a peer could know"),
        ("192.0.2.1:65535", "after port 65535 there is no next one, and the link uses two"),
        ("239.1.1.1:7400", "239.1.1.1 is not the address of one host"),
        ("255.255.255.255:7400", "255.255.255.255 is not the address of one host"),
        ("1:2:3:4:5:6:7:8:7400", "an IPv6 address with a port has brackets: \"[1:2:3:4:5:6:7:8]:7400\""),
    ];
    for (bind, message) in cases {
        expect(&bound(bind), "1:46", "links[0].technology.bind", message, PORT);
    }
    for bind in ["192.0.2.1:65534", "0.0.0.0:1", "[::]:7400", "[fe80::1%2]:7400", "[::1]:7400"] {
        assert!(findings(&bound(bind)).is_empty(), "{bind}");
    }
}

/// Two links with these addresses.
fn two_links(a: &str, b: &str) -> String {
    format!(
        "(links: [\n(name: \"a\", technology: udp(bind: \"{a}\")),\n(name: \"b\", technology: udp(bind: \"{b}\"))])"
    )
}

#[test]
fn links() {
    let far = "a port at least 2 away";
    for (a, b, message) in [
        ("10.0.0.1:7400", "10.0.0.1:7400", "ports 7400 and 7401 are taken: links[0] uses 7400 and 7401"),
        ("10.0.0.1:7400", "10.0.0.1:7401", "ports 7401 and 7402 are taken: links[0] uses 7400 and 7401"),
        ("10.0.0.1:7400", "0.0.0.0:7399", "ports 7399 and 7400 are taken: links[0] uses 7400 and 7401"),
        ("[::]:7400", "[::1]:7401", "ports 7401 and 7402 are taken: links[0] uses 7400 and 7401"),
    ] {
        expect(&two_links(a, b), "3:35", "links[1].technology.bind", message, far);
    }
    for (a, b) in
        [("10.0.0.1:7400", "10.0.0.1:7402"), ("10.0.0.1:7400", "10.0.0.2:7400"), ("0.0.0.0:7400", "[::1]:7400")]
    {
        assert!(findings(&two_links(a, b)).is_empty());
    }
    let udp = |field: &str| format!("(links: [(name: \"a\", technology: udp(bind: \"10.0.0.1:1\", {field}))])");
    expect(
        &udp("frame_bytes_max: 507"),
        "1:75",
        "links[0].technology.frame_bytes_max",
        "507 is too small",
        "508 to 65_000 bytes",
    );
    expect(
        &udp("frame_bytes_max: 65_001"),
        "1:75",
        "links[0].technology.frame_bytes_max",
        "65_001 is too large",
        "508 to 65_000 bytes",
    );
    expect(&udp("send_buffer_bytes: 1"), "1:77", "links[0].technology.send_buffer_bytes", "1 is too small", "4096 to");
    expect(
        &udp("receive_buffer_bytes: -1"),
        "1:80",
        "links[0].technology.receive_buffer_bytes",
        "-1 is too small",
        "4096 to",
    );
    expect(
        &udp("busy_poll_us: 10_001"),
        "1:72",
        "links[0].technology.busy_poll_us",
        "10_001 is too large",
        "0 to 10_000 micro",
    );
    expect(
        &udp("launch_lead_us: 10_001"),
        "1:74",
        "links[0].technology.launch_lead_us",
        "10_001 is too large",
        "0 to 10_000 microseconds",
    );
    expect(&udp("real_time_dscp: 64"), "1:74", "links[0].technology.real_time_dscp", "64 is too large", "0 to 63");
}

#[test]
fn groups_of_links() {
    let link = |bind: &str, group: &str| {
        format!("(links: [(name: \"a\", technology: udp(bind: \"{bind}\", multicast: ({group})))])")
    };
    let path = |field: &str| format!("links[0].technology.multicast.{field}");
    let accepted = "an address of a group, of the family of `bind`, and a port from 1 to 65534";
    for (group, message) in [
        ("10.0.0.2:7400", "10.0.0.2 is not the address of a group"),
        ("239.0.0.1", "\"239.0.0.1\" has no port"),
        ("239.0.0.1:0", "port 0 is no port that a member could know"),
        ("239.0.0.1:65535", "after port 65535 there is no next one, and the group uses two"),
        ("[ff15::1]:7400", "ff15::1 and the link's own address 10.0.0.1 are not of one family"),
        ("all-hosts:7400", "\"all-hosts\" is a name, and names are not looked up"),
    ] {
        expect(&link("10.0.0.1:1", &format!("group: \"{group}\"")), "1:77", &path("group"), message, accepted);
    }
    let more = |field: &str| link("10.0.0.1:1", &format!("group: \"239.0.0.1:1\", {field}"));
    expect(&more("ttl: 0"), "1:97", &path("ttl"), "0 is too small", "1 to 255 networks");
    expect(&more("ttl: 256"), "1:97", &path("ttl"), "256 is too large", "1 to 255 networks");
    expect(&more("from_peers: 1"), "1:104", &path("from_peers"), "1 is too small", "2 to 64 peers");
    expect(&more("from_peers: 65"), "1:104", &path("from_peers"), "65 is too large", "2 to 64 peers");
    let message = "there is no field `tll` in `links[0].technology.multicast`; did you mean `ttl`?";
    expect(&more("tll: 1"), "1:92", &path("tll"), message, "group, ttl, from_peers");
    let message = "the field `group` is missing";
    expect(&link("10.0.0.1:1", "ttl: 1"), "1:58", &path("group"), message, accepted);
    expect(
        &link("0.0.0.0:7400", "group: \"239.0.0.1:7400\""),
        "1:44",
        "links[0].technology.bind",
        "0.0.0.0 is no particular address, and a group is joined at the interface of one",
        "a particular IP address of this machine, or no `multicast`",
    );
    for (bind, group) in [("10.0.0.1:7400", "239.192.0.1:7400"), ("[fd00::1]:7400", "[ff15::1]:65534")] {
        assert!(findings(&link(bind, &format!("group: \"{group}\", ttl: 255, from_peers: 64"))).is_empty());
    }
    expect(
        "(links: [(name: \"a\", technology: tcp(bind: \"10.0.0.1:1\", multicast: (group: \"239.0.0.1:1\")))])",
        "1:58",
        "links[0].technology.multicast",
        "there is no field `multicast` in `links[0].technology`",
        "bind, frame_bytes_max",
    );
}

#[test]
fn tcp_links() {
    let tcp = |field: &str| format!("(links: [(name: \"a\", technology: tcp(bind: \"10.0.0.1:1\", {field}))])");
    let path = |field: &str| format!("links[0].technology.{field}");
    for (field, value, column, message, accepted) in [
        ("frame_bytes_max", "507", 75, "507 is too small", "508 to 1_048_576 bytes"),
        ("frame_bytes_max", "1_048_577", 75, "1_048_577 is too large", "508 to 1_048_576 bytes"),
        ("frame_bytes_max", "\"large\"", 75, "a whole number is expected", "508 to 1_048_576 bytes"),
        ("send_buffer_bytes", "1", 77, "1 is too small", "4096 to"),
        ("receive_buffer_bytes", "-1", 80, "-1 is too small", "4096 to"),
        ("busy_poll_us", "10_001", 72, "10_001 is too large", "0 to 10_000 micro"),
        ("real_time_dscp", "64", 74, "64 is too large", "0 to 63"),
        ("user_timeout_ms", "99", 75, "99 is too small", "100 to 600_000 milliseconds"),
        ("user_timeout_ms", "600_001", 75, "600_001 is too large", "100 to 600_000 milliseconds"),
    ] {
        expect(&tcp(&format!("{field}: {value}")), &format!("1:{column}"), &path(field), message, accepted);
    }
    let bound = |bind: &str| format!("(links: [(name: \"net\", technology: tcp(bind: \"{bind}\"))])");
    for (bind, message) in [
        ("192.0.2.1:65535", "after port 65535 there is no next one, and the link uses two"),
        (
            "0.0.0.0:7400",
            "0.0.0.0 is no particular address; which host connects depends on the one that peers have for this host",
        ),
        (
            "[::]:7400",
            ":: is no particular address; which host connects depends on the one that peers have for this host",
        ),
    ] {
        expect(&bound(bind), "1:46", "links[0].technology.bind", message, "a particular IP address of this machine");
    }
    assert!(findings(&bound("[fe80::1%2]:65534")).is_empty());
    expect(
        "(links: [(name: \"a\", technology: tcp())])",
        "1:22",
        "links[0].technology.bind",
        "the field `bind` is missing",
        "a particular IP address of this machine",
    );
    expect(
        &tcp("user_timeout_s: 1"),
        "1:58",
        "links[0].technology.user_timeout_s",
        "there is no field `user_timeout_s` in `links[0].technology`; did you mean `user_timeout_ms`?",
        "bind, frame_bytes_max, send_buffer_bytes, receive_buffer_bytes, busy_poll_us, real_time_dscp, user_timeout_ms",
    );
}

#[test]
fn xdp_links() {
    let xdp = |field: &str| {
        format!("(links: [(name: \"a\", technology: xdp(interface: \"e\", bind: \"10.0.0.1:1\", {field}))])")
    };
    let path = |field: &str| format!("links[0].technology.{field}");
    for (field, value, message, accepted) in [
        ("queue", "1024", "1024 is too large", "0 to 1023"),
        ("queues_max", "0", "0 is too small", "1 to 8 queues"),
        ("queues_max", "9", "9 is too large", "1 to 8 queues"),
        ("vlan", "0", "0 is too small", "1 to 4094"),
        ("vlan", "4095", "4095 is too large", "1 to 4094"),
        ("prefix_bits", "129", "129 is too large", "0 to 128 bits"),
        ("prefix_bits", "33", "33 bits are more than an IPv4 address has", "0 to 32 bits"),
        ("frame_bytes_max", "507", "507 is too small", "508 to 3794 bytes"),
        ("frame_bytes_max", "3795", "3795 is too large", "508 to 3794 bytes"),
        ("real_time_dscp", "64", "64 is too large", "0 to 63"),
        ("gateway", "\"router\"", "\"router\" is not an IP address", "the IP address of a neighbour"),
        (
            "gateway",
            "\"fd00::1\"",
            "fd00::1 and the link's own 10.0.0.1 are not both IPv4 or both IPv6",
            "the IP address of a neighbour",
        ),
    ] {
        let column = 76 + field.len();
        expect(&xdp(&format!("{field}: {value}")), &format!("1:{column}"), &path(field), message, accepted);
    }
    let on = |interface: &str, bind: &str| {
        format!("(links: [(name: \"a\", technology: xdp(interface: \"{interface}\", bind: \"{bind}\"))])")
    };
    for name in ["", "sixteen-bytes-is", "a/b", "a b", ".", ".."] {
        let message = format!("\"{name}\" can be no interface's name");
        expect(&on(name, "10.0.0.1:1"), "1:49", &path("interface"), &message, "the name of an Ethernet interface");
    }
    for ip in ["0.0.0.0", "127.0.0.1"] {
        let message = format!("{ip} is no address that frames on an interface can have");
        expect(&on("eth0", &format!("{ip}:1")), "1:63", &path("bind"), &message, "an IP address that no machine has");
    }
    assert!(findings(&on("fifteen-bytes-x", "[fd00::1]:65534")).is_empty());
    let mode = only(&xdp("mode: fast")).to_string();
    assert!(mode.contains("auto") && mode.contains("zero_copy"), "{mode}");
    let neighbours = only(&xdp("neighbours: mine")).to_string();
    assert!(neighbours.contains("own") && neighbours.contains("borrowed"), "{neighbours}");
    let in_vlan = xdp("neighbours: borrowed, vlan: 5");
    let message = "neighbours are borrowed from the interface itself, which has none in VLAN 5";
    expect(&in_vlan, "1:86", &path("neighbours"), message, "own, or no `vlan`");
    assert!(findings(&xdp("neighbours: borrowed")).is_empty());
    // Borrowed, its ports are the kernel's.
    let beside_udp = |neighbours: &str| {
        format!(
            "(links: [(name: \"a\", technology: udp(bind: \"10.0.0.1:1\")), (name: \"b\", technology: \
             xdp(interface: \"e\", bind: \"10.0.0.1:2\", neighbours: {neighbours}))], \
             datapaths: [(name: \"m\", links: [\"a\", \"b\"])])"
        )
    };
    assert!(findings(&beside_udp("own")).is_empty());
    let message = "ports 2 and 3 are taken: links[0] uses 1 and 2";
    let taken = only(&beside_udp("borrowed")).to_string();
    assert!(taken.contains(message), "{taken}");
    let unknown = only(&xdp("queu: 1")).to_string();
    assert!(unknown.contains("did you mean `queue`?"), "{unknown}");
}

#[test]
fn rdma_links() {
    let rdma =
        |bind: &str, field: &str| format!("(links: [(name: \"a\", technology: rdma(bind: \"{bind}\", {field}))])");
    let path = |field: &str| format!("links[0].technology.{field}");
    for (field, value, message, accepted) in [
        ("frame_bytes_max", "507", "507 is too small", "508 to 65_536 bytes"),
        ("frame_bytes_max", "65537", "65_537 is too large", "508 to 65_536 bytes"),
        ("real_time_dscp", "64", "64 is too large", "0 to 63"),
    ] {
        let column = 61 + field.len();
        let text = rdma("10.0.0.1:1", &format!("{field}: {value}"));
        expect(&text, &format!("1:{column}"), &path(field), message, accepted);
    }
    for ip in ["0.0.0.0", "127.0.0.1"] {
        let message = format!("{ip} is no address that an RDMA device can have");
        expect(&rdma(&format!("{ip}:1"), ""), "1:45", &path("bind"), &message, "an IP address that an RDMA device");
    }
    assert!(findings(&rdma("[fd00::1]:65534", "frame_bytes_max: 65_536")).is_empty());
    let unknown = only(&rdma("10.0.0.1:1", "frame_byte_max: 1")).to_string();
    assert!(unknown.contains("did you mean `frame_bytes_max`?"), "{unknown}");
}

#[test]
fn dpdk_links_and_how_dpdk_is_started() {
    let dpdk = |field: &str| {
        format!("(links: [(name: \"a\", technology: dpdk(device: \"d\", bind: \"10.0.0.1:1\", {field}))])")
    };
    let path = |field: &str| format!("links[0].technology.{field}");
    for (field, value, message, accepted) in [
        ("vlan", "0", "0 is too small", "1 to 4094"),
        ("vlan", "4095", "4095 is too large", "1 to 4094"),
        ("prefix_bits", "33", "33 bits are more than an IPv4 address has", "0 to 32 bits"),
        ("frame_bytes_max", "507", "507 is too small", "508 to 8972 bytes"),
        ("frame_bytes_max", "8973", "8973 is too large", "508 to 8972 bytes"),
        ("real_time_dscp", "64", "64 is too large", "0 to 63"),
        ("poll_us", "0", "0 is too small", "1 to 10_000 microseconds"),
        ("gateway", "\"router\"", "\"router\" is not an IP address", "the IP address of a neighbour"),
    ] {
        let column = 74 + field.len();
        expect(&dpdk(&format!("{field}: {value}")), &format!("1:{column}"), &path(field), message, accepted);
    }
    for mac in
        ["", "2:0:0:0:0:1", "03:00:00:00:00:01", "00:00:00:00:00:00", "02:00:00:00:00:01:02", "0x:00:00:00:00:01"]
    {
        let message = format!("\"{mac}\" is not the hardware address of one station");
        expect(
            &dpdk(&format!("mac: \"{mac}\"")),
            "1:77",
            &path("mac"),
            &message,
            "the hardware address of one station",
        );
    }
    let on = |device: &str, bind: &str| {
        format!("(links: [(name: \"a\", technology: dpdk(device: \"{device}\", bind: \"{bind}\"))])")
    };
    for device in ["", "-d", ",iface=eth0", "net_null0 -d", &"n".repeat(160)] {
        let message = format!("\"{device}\" can be no device");
        expect(&on(device, "10.0.0.1:1"), "1:47", &path("device"), &message, "a device of DPDK with its arguments");
    }
    let message = "with `zero-copy` its frames lie in memory that the process at the other end can write";
    let lent = "net_memif0,role=client,zero-copy=yes";
    expect(&on(lent, "10.0.0.1:1"), "1:47", &path("device"), message, "a memif without `zero-copy`");
    assert!(findings(&on("net_memif0,zero-copy=no", "10.0.0.1:1")).is_empty());
    let message = "0.0.0.0 is no address that frames on an interface can have";
    expect(&on("eth0", "0.0.0.0:1"), "1:61", &path("bind"), message, "an IP address that no machine has");
    assert!(findings(&on(&"n".repeat(159), "[fd00::1]:65534")).is_empty());
    let two = |first: &str, second: &str| {
        let link = |name: &str, device: &str, bind: &str| {
            format!("(name: \"{name}\", technology: dpdk(device: \"{device}\", bind: \"{bind}\"))")
        };
        format!("(links: [{},\n{}])", link("a", first, "10.0.0.1:1"), link("b", second, "10.0.0.2:1"))
    };
    for (first, second) in [("net_null0", "net_null0,size=64"), ("0000:03:00.0", "03:00.0")] {
        let name = second.split(',').next().unwrap();
        let message = format!("device \"{name}\" is taken: links[0] uses it");
        let path = "links[1].technology.device";
        expect(&two(first, second), "2:38", path, &message, "a device that no other link has");
    }
    let packets = findings(&two("net_af_packet0,iface=eth0", "net_af_packet1,iface=eth0"));
    assert_eq!(packets.count().0, 0, "{packets}");
    let unknown = only(&dpdk("polls_us: 1")).to_string();
    assert!(unknown.contains("did you mean `poll_us`?"), "{unknown}");
    expect("(eal: (shim: \"a.so\"))", "1:14", "eal.shim", "the path is not absolute", "the absolute path of a library");
    let message = "an argument is not empty, and has no zero in it";
    expect("(eal: (arguments: [\"-n\", \"\"]))", "1:26", "eal.arguments[1]", message, "");
}

#[test]
fn who_waits_for_a_driver_is_told() {
    let with = |device: &str, serves: &str, beside: &str| {
        let (udp, name) = match beside {
            "" => (String::new(), String::new()),
            bind => (format!(", (name: \"u\", technology: udp(bind: \"{bind}\"))"), ", \"u\"".to_owned()),
        };
        // The other lanes, which somebody has to serve.
        let rest = if serves == "all" { "" } else { ", (name: \"r\", links: [\"v\"], serves: real_time)" };
        let last = if rest.is_empty() { "" } else { ", (name: \"v\", technology: udp(bind: \"10.0.0.8:1\"))" };
        findings(&format!(
            "(links: [(name: \"d\", technology: dpdk(device: \"{device}\", bind: \"10.0.0.1:1\")){udp}{last}], \
             datapaths: [(name: \"m\", links: [\"d\"{name}], serves: {serves}){rest}])"
        ))
    };
    for (serves, beside, whom) in [
        ("all", "", Some("datapath \"m\" stands still with its real-time lanes")),
        ("all", "10.0.0.9:1", Some("datapath \"m\" stands still with all its links")),
        ("best_effort", "10.0.0.9:1", Some("datapath \"m\" stands still with all its links")),
        ("best_effort", "", None),
    ] {
        let told = with("net_af_packet0,iface=eth0", serves, beside);
        assert_eq!(told.count(), (0, usize::from(whom.is_some())), "{told}");
        assert!(whom.is_none_or(|whom| told.0[0].message.ends_with(whom)), "{told}");
        assert!(with("net_ring0", serves, beside).is_empty());
    }
}

#[test]
fn an_interface_runs_one_program_of_xdp() {
    let xdp = |interface: &str, queue: u32| format!("xdp(interface: \"{interface}\", queue: {queue}");
    let dpdk = |device: &str| format!("dpdk(device: \"{device}\"");
    let two = |first: &str, second: &str| {
        format!(
            "(links: [(name: \"a\", technology: {first}, bind: \"10.0.0.1:1\")),\n(name: \"b\", technology: {second}, \
             bind: \"10.0.0.2:1\"))])"
        )
    };
    let message =
        "interface \"eth0\" is taken: it runs one program of XDP, whatever the queue, and links[0] puts one there";
    let accepted = "an interface on which no other xdp link";
    let by_dpdk = "net_af_xdp0,start_queue=1,iface=eth0";
    for (first, second, column, field) in [
        (xdp("eth0", 0), xdp("eth0", 1), "2:40", "interface"),
        (dpdk(by_dpdk), xdp("eth0", 0), "2:40", "interface"),
        (xdp("eth0", 0), dpdk(by_dpdk), "2:38", "device"),
    ] {
        expect(&two(&first, &second), column, &format!("links[1].technology.{field}"), message, accepted);
    }
    // DPDK's own share one, and each has its queue.
    let path = "links[1].technology.device";
    let (message, accepted) = ("queue 1 of interface \"eth0\" is taken: links[0] uses it", "another `start_queue`");
    expect(&two(&dpdk(by_dpdk), &dpdk("net_af_xdp1,iface=eth0,start_queue=1")), "2:38", path, message, accepted);
    for (first, second) in [
        (xdp("eth0", 0), xdp("eth1", 0)),
        (dpdk(by_dpdk), xdp("eth1", 0)),
        (dpdk(by_dpdk), dpdk("net_af_xdp1,iface=eth0")),
        (xdp("eth0", 0), dpdk("net_af_packet0,iface=eth0")),
        (xdp("eth0", 0), dpdk("0000:03:00.0")),
    ] {
        let findings = findings(&two(&first, &second));
        assert_eq!(findings.count().0, 0, "{findings}");
    }
}

#[test]
fn ports_of_tcp_and_of_udp_do_not_collide() {
    let both = two_links("10.0.0.1:7400", "10.0.0.1:7401");
    assert!(findings(&both.replacen("udp", "tcp", 1)).is_empty());
    expect(
        &both.replace("udp", "tcp"),
        "3:35",
        "links[1].technology.bind",
        "ports 7401 and 7402 are taken: links[0] uses 7400 and 7401",
        "a port at least 2 away",
    );
    let peer = |second: &str| {
        format!(
            "(host: (name: \"me\"), links: [(name: \"u\", technology: udp(bind: \"10.0.0.1:7400\")), \
             (name: \"t\", technology: {second}(bind: \"10.0.0.1:7410\"))],\n\
             peers: [(name: \"b\", links: {{\"t\": \"10.0.0.2:7400\", \"u\": \"10.0.0.2:7400\"}})])"
        )
    };
    assert!(findings(&peer("tcp")).is_empty(), "{}", findings(&peer("tcp")));
    assert_eq!(findings(&peer("udp")).count(), (1, 0));
}
