//! Programs that the macro and the types refuse. One that they take is in the crate's documentation,
//! and runs as its test: a case of it here would have all others built instead of checked, one by
//! one.

#[test]
fn what_is_wrong_does_not_compile() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
}
