use super::*;
use crate::plan::{DatapathPlan, Quota};
use insane_core::heap::ClassSpec;
use proptest::prelude::*;

fn machine() -> Machine {
    Machine::unknown()
}

#[test]
fn parts_add_up_to_groups_and_groups_to_the_total() {
    let (plan, _) = Plan::loopback_pair(7400, 7402);
    let budget = Budget::of(&plan, &LayoutSizes::default());
    for group in &budget.groups {
        assert_eq!(group.bytes, group.items.iter().map(|item| item.bytes).sum::<u64>(), "{}", group.name);
        for item in &group.items {
            assert_eq!(item.bytes, item.count * item.each_bytes, "{}", item.name);
        }
    }
    assert_eq!(budget.total_bytes, budget.groups.iter().map(|group| group.bytes).sum::<u64>());
    assert_eq!(
        budget.total_bytes - budget.lockable_bytes,
        2 * 2 * 5 * (1 << 20),
        "only socket buffers are not lockable"
    );
    assert!(budget.objections(&plan, &machine()).is_empty());
}

#[test]
fn a_tcp_link_takes_two_connections_for_each_peer_that_it_reaches() {
    let here = |port| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let tcp = TcpPlan { frame_bytes_max: 1 << 20, ..TcpPlan::at(here(7400)) };
    let mut plan = Plan::embedded_over("a", Technology::Tcp(tcp));
    let of = |plan: &Plan| {
        let budget = Budget::of(plan, &LayoutSizes::default());
        let items = budget.groups.iter().flat_map(|group| &group.items);
        items.filter(|item| item.name.starts_with("link ")).map(|item| item.bytes).collect::<Vec<_>>()
    };
    assert_eq!(of(&plan), [0, 0]);
    plan.add_peer("b", &[("tcp", here(7410))]);
    plan.add_peer("unreached", &[]);
    plan.add_peer("c", &[("tcp", here(7420))]);
    let frame = 4 + (1 << 20);
    assert_eq!(of(&plan), [4 * (3 * frame + 16 * 1024), 4 * 2 * (2 << 20)]);
}

#[test]
fn what_sessions_cause_is_their_quota_to_the_byte() {
    for bytes in [4096, 5000, 1 << 20, 20 << 20, 256 << 20, (1 << 40) + 1] {
        let mut plan = Plan::embedded_default();
        plan.domains[0].quota.bytes = bytes;
        let items = sessions(&plan.domains[0], 0, &LayoutSizes::default());
        assert_eq!(items.iter().map(|item| item.bytes).sum::<u64>(), bytes);
    }
}

#[test]
fn receive_heaps_are_those_of_the_shared_geometry() {
    let mut plan = Plan::embedded_default();
    plan.domains[0].receive =
        [(64, 3), (100, 2), (6_220_800, 2)].map(|(size, count)| ClassSpec { size, count }).to_vec();
    plan.datapaths.push(DatapathPlan { name: "second".into(), ..plan.datapaths[0].clone() });
    let budget = Budget::of(&plan, &LayoutSizes::default());
    let tenant = budget.groups.iter().find(|group| group.tenant).unwrap();
    let heaps = tenant.items.iter().filter(|item| item.name.contains(" x ")).map(|item| item.bytes).sum::<u64>();
    assert_eq!(heaps, 2 * Geometry::new(&plan.domains[0].receive).unwrap().bytes());
}

#[test]
fn too_much_is_refused_and_the_biggest_item_named() {
    let mut plan = Plan::embedded_default();
    plan.memory.limit_bytes = 128 << 20;
    let budget = Budget::of(&plan, &LayoutSizes::default());
    let objections = budget.objections(&plan, &machine());
    assert_eq!(objections.len(), 1);
    assert_eq!(objections[0].severity, Severity::Error);
    assert_eq!(objections[0].path, "memory.limit_bytes");
    let text = objections[0].to_string();
    assert!(text.contains("memory.limit_bytes allows 128 MiB (134_217_728 bytes)"), "{text}");
    assert!(text.contains("the biggest item is \"source heaps\" of tenant \"default\" with 231"), "{text}");
    assert!(text.contains("or a smaller domains[0].quota.bytes"), "{text}");
    plan.memory.limit_bytes = budget.total_bytes;
    assert!(Budget::of(&plan, &LayoutSizes::default()).objections(&plan, &machine()).is_empty());
}

#[test]
fn what_the_machine_lacks_is_an_error_only_where_all_is_locked() {
    let mut plan = Plan::embedded_default();
    let small = Machine { available_bytes: Some(1 << 20), ..machine() };
    let budget = Budget::of(&plan, &LayoutSizes::default());
    let severities = |plan: &Plan, machine: &Machine| -> Vec<(Severity, String)> {
        budget.objections(plan, machine).into_iter().map(|o| (o.severity, o.path)).collect()
    };
    assert_eq!(severities(&plan, &small), [(Severity::Warning, "memory.limit_bytes".to_owned())]);
    plan.memory.lock = true;
    assert_eq!(severities(&plan, &small), [(Severity::Error, "memory.lock".to_owned())]);
    let unprivileged = Machine { lockable_bytes: Some(8 << 20), ..machine() };
    assert_eq!(severities(&plan, &unprivileged), [(Severity::Warning, "memory.lock".to_owned())]);
    plan.memory.lock = false;
    assert!(severities(&plan, &unprivileged).is_empty());
}

#[test]
fn a_quota_of_bytes_below_its_own_pages_is_noticed() {
    let mut plan = Plan::embedded_default();
    plan.domains[0].quota.bytes = 1 << 20;
    let objections = Budget::of(&plan, &LayoutSizes::default()).objections(&plan, &machine());
    assert_eq!(objections.len(), 1);
    assert_eq!((objections[0].severity, objections[0].path.as_str()), (Severity::Warning, "domains[0].quota.bytes"));
}

#[test]
fn sizes_read_as_a_person_would_write_them() {
    let cases = [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1 << 20, "1 MiB"),
        (61_132_800, "58.3 MiB"),
        ((1 << 20) - 1, "1 MiB"),
        (1 << 30, "1 GiB"),
        (u64::MAX, "16384 PiB"),
    ];
    for (bytes, text) in cases {
        assert_eq!(human(bytes), text);
    }
}

#[test]
fn the_table_holds_every_item_and_both_sums() {
    let (plan, _) = Plan::loopback_pair(7400, 7402);
    let budget = Budget::of(&plan, &LayoutSizes::default());
    let table = render(&budget);
    for item in budget.groups.iter().flat_map(|group| &group.items) {
        assert!(table.contains(&item.name), "{table}");
        assert!(table.contains(&grouped(item.bytes as i64)), "{table}");
    }
    assert!(table.contains(&grouped(budget.total_bytes as i64)));
    assert!(table.contains("record of a trace, while one is taken") && table.contains(&grouped(2_101_248)), "{table}");
    assert!(table.contains("Fits: "));
    assert!(table.lines().all(|line| line.trim_end() == line && line.chars().count() <= 100), "{table}");
}

proptest! {
    #[test]
    fn no_quota_makes_the_planner_panic_or_lose_a_byte(
        sessions in 1_u32..=4096, sinks in 1_u32..=65_536, connections in 1_u32..=65_536, bytes in 4096_u64..=1 << 40,
    ) {
        let mut plan = Plan::embedded_default();
        plan.domains[0].quota = Quota { sessions, sinks, connections, bytes, ..Quota::default() };
        let budget = Budget::of(&plan, &LayoutSizes::default());
        let tenant = budget.groups.iter().find(|group| group.tenant).unwrap();
        let is_outside = |item: &&Item| item.name.starts_with("receive") || item.name.ends_with("rows");
        let outside: u64 = tenant.items.iter().filter(is_outside).map(|item| item.bytes).sum();
        prop_assert_eq!(tenant.bytes, outside + bytes);
        let _ = budget.objections(&plan, &machine());
        let _ = render(&budget);
    }
}

/// As measured: 3 KB a session, 5.9 KB a stream with a source and a sink (`daemon/tests/memory.rs`).
#[test]
fn rows_of_the_control_plane_grow_with_the_quotas() {
    let total = |change: &dyn Fn(&mut Quota)| {
        let mut plan = Plan::embedded_default();
        change(&mut plan.domains[0].quota);
        let budget = Budget::of(&plan, &LayoutSizes::default());
        let rows = budget.groups.iter().flat_map(|group| &group.items).filter(|item| item.name.ends_with("rows"));
        rows.map(|item| item.bytes).sum::<u64>()
    };
    let before = total(&|_| {});
    assert!(total(&|quota| quota.sessions += 1000) - before >= 3_000_000);
    let of_streams = |quota: &mut Quota| {
        quota.streams = 65_536;
        quota.sources = 65_536;
        quota.sinks = 65_536;
    };
    assert!(total(&of_streams) >= 65_536 * 5_900);
}
