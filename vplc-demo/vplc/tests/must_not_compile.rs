//! Programs that the macro and the types refuse, and one that they take.

#[test]
fn what_is_wrong_does_not_compile() {
    let cases = trybuild::TestCases::new();
    cases.pass("examples/level.rs");
    cases.compile_fail("tests/ui/*.rs");
}
