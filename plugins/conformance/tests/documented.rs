//! docs/PLUGINS.md has every rule: each case of the suite stands there, beside what it holds.

/// What `conformance_tests!` lists.
fn cases() -> Vec<&'static str> {
    let source = include_str!("../src/lib.rs");
    let (_, list) = source.split_once("@cases $fixture;\n").unwrap();
    let (list, _) = list.split_once(");").unwrap();
    list.lines().map(|line| line.trim().trim_end_matches(',')).filter(|name| !name.is_empty()).collect()
}

#[test]
fn every_case_is_named_by_the_documentation() {
    let (cases, text) = (cases(), include_str!("../../../docs/PLUGINS.md"));
    assert!(cases.len() >= 30 && cases.contains(&"nothing_is_allocated_for_a_group"), "{cases:?}");
    let missing: Vec<_> = cases.iter().filter(|case| !text.contains(&format!("`{case}`"))).collect();
    assert!(missing.is_empty(), "docs/PLUGINS.md does not name {missing:?}");
}
