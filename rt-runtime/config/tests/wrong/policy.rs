//! The policy: rules and budgets.

use super::*;

#[test]
fn rules_of_the_policy() {
    let with = |policy: &str| format!("(policy: ({policy}))");
    let one = |policy: &str, path: &str, message: &str, accepted: &str| {
        let found = only(&with(policy));
        assert_eq!((found.path.as_str(), found.message.as_str()), (path, message), "{found}");
        assert!(found.accepted.starts_with(accepted), "{found}");
        assert_eq!(found.severity, Severity::Error);
    };
    let order = "a list of some of udp, tcp, xdp, dpdk, rdma and sim, each once";
    one(
        "rules: [(order: [xpd])]",
        "policy.rules[0].order[0]",
        "`xpd` is not accepted here; did you mean `xdp`?",
        order,
    );
    one("rules: []", "policy.rules", "there are 0 rules", "a list of 1 to 32 rules");
    one("rules: [(order: [])]", "policy.rules[0].order", "it names no technology", order);
    one("rules: [(order: [udp, tcp, udp])]", "policy.rules[0].order", "udp is there twice", order);
    one("rules: [(when: ())]", "policy.rules[0].order", "the field `order` is missing", order);
    one(
        "rules: [(when: (datapath: fast), order: [xdp])]",
        "policy.rules[0]",
        "the last rule is not for all streams, and every stream needs one",
        "a last rule with `when: ()`",
    );
    one(
        "rules: [(when: (datapath: fast), order: [xdp]), (when: (datapath: fast, reliability: reliable), order: [tcp]), \
         (order: [udp])]",
        "policy.rules[1]",
        "it is never used: rules[0] (line 1) is, wherever it could be",
        "the narrower rule before the wider one",
    );
    one(
        "rules: [(when: (datapth: fast), order: [xdp]), (order: [udp])]",
        "policy.rules[0].when.datapth",
        "there is no field `datapth` in `policy.rules[0].when`; did you mean `datapath`?",
        "reliability, datapath, consumption, determinism, bytes_min",
    );
    one(
        "rules: [(when: (priority: 7), order: [xdp]), (order: [udp])]",
        "policy.rules[0].when.priority",
        "there is no field `priority` in `policy.rules[0].when`",
        "reliability, datapath, consumption, determinism, bytes_min",
    );
    one(
        "rules: [(when: (datapath: quick), order: [xdp]), (order: [udp])]",
        "policy.rules[0].when.datapath",
        "`quick` is not accepted here",
        "standard or fast",
    );
    one(
        "rules: [(when: (bytes_min: 0), order: [xdp]), (order: [udp])]",
        "policy.rules[0].when.bytes_min",
        "0 is too small",
        "1 to 100_000_000 bytes",
    );
    one(
        "rules: [(when: (determinism: best_effort, bytes_min: 9), order: [xdp]), (order: [udp])]",
        "policy.rules[0].when.bytes_min",
        "of best-effort streams no size is known: it is never used",
        "`determinism: time_sensitive`",
    );
    // All at once.
    let several = findings(&with("rules: [(order: [udp, udp]), (when: (datapath: fast), order: [])]"));
    assert_eq!(several.0.len(), 4, "{several}");
}

#[test]
fn budgets_and_times_of_the_policy() {
    let with = |policy: &str| {
        format!("(links: [(name: \"net\", technology: udp(bind: \"127.0.0.1:7400\"))], policy: ({policy}))")
    };
    let one = |policy: &str, path: &str, message: &str, accepted: &str| {
        let found = only(&with(policy));
        assert_eq!((found.path.as_str(), found.message.as_str()), (path, message), "{found}");
        assert!(found.accepted.starts_with(accepted), "{found}");
    };
    let at = "policy.budgets[\"nett\"]";
    let message = "there is no link \"nett\"; did you mean \"net\"?";
    one("budgets: {\"nett\": (streams: 1)}", at, message, "\"net\"");
    let at = "policy.budgets[\"net\"]";
    one("budgets: {\"net\": ()}", at, "it bounds nothing", "(streams: ...), (mbps: ...) or both");
    let streams = format!("{at}.streams");
    one("budgets: {\"net\": (streams: -1)}", &streams, "-1 is too small", "0 to 65_536");
    one("budgets: {\"net\": (mbps: 400_001)}", &format!("{at}.mbps"), "400_001 is too large", "0 to 400_000 Mbit/s");
    one("best_effort_kbps: -1", "policy.best_effort_kbps", "-1 is too small", "0 to 400_000_000 kbit/s");
    one("silent_ms: 10", "policy.silent_ms", "10 is too small", "50 to 600_000 milliseconds");
    let times = "return_after_ms: 100, hold_down_max_ms: 99";
    one(times, "policy.hold_down_max_ms", "it is less than `return_after_ms`, 100", "as much or more");
    // Not wrong, but in vain.
    let found = only(&with("rules: [(order: [xdp])]"));
    assert_eq!((found.severity, found.path.as_str()), (Severity::Warning, "policy.rules"));
    assert_eq!(found.message, "no rule names udp: link \"net\" is never used");
    assert!(findings(&with("budgets: {\"net\": (streams: 0, mbps: 5)}")).0.is_empty());
}
