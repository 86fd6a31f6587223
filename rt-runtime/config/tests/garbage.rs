//! Whatever the text is, the answer is a plan or at least one error, and never a panic.

use insane_config::index::Index;
use insane_config::{Machine, parse};
use proptest::prelude::*;

fn check(text: &str) {
    let machine = Machine { cores: Some(vec![0]), ..Machine::unknown() };
    match parse("x.ron", text, &machine) {
        Ok(loaded) => assert!(!loaded.warnings.has_errors()),
        Err(findings) => {
            assert!(findings.has_errors());
            for finding in &findings.0 {
                assert!(finding.line >= 1 && finding.column >= 1 && finding.marked >= 1);
                assert!(!finding.message.is_empty());
                let _ = finding.render(true);
            }
        }
    }
    for node in Index::new(text).nodes() {
        assert!(text.get(node.value.clone()).is_some(), "{node:?}");
    }
}

fn reference() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/reference.ron")).unwrap()
}

/// The reference without its comments, so that changes meet what counts.
fn dense() -> String {
    reference().lines().filter(|line| !line.trim().starts_with("//")).collect::<Vec<_>>().join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text(text in "\\PC{0,200}") {
        check(&text);
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn text_of_the_right_letters(text in "[(){}\\[\\],:\"'a-e0-9 #!rb/*.\\\\\n_-]{0,120}") {
        check(&text);
    }

    #[test]
    fn a_configuration_that_ends_early(cut in any::<prop::sample::Index>()) {
        let text = reference();
        let mut at = cut.index(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        check(&text[..at]);
    }

    #[test]
    fn a_configuration_with_a_few_other_characters(
        changes in prop::collection::vec((any::<prop::sample::Index>(), "[\\PC\n]"), 1..4),
    ) {
        let mut chars: Vec<char> = dense().chars().collect();
        for (at, change) in changes {
            let at = at.index(chars.len());
            chars[at] = change.chars().next().unwrap();
        }
        check(&chars.into_iter().collect::<String>());
    }

    #[test]
    fn a_configuration_with_other_values(at in any::<prop::sample::Index>(), value in "(-?[0-9]{1,22}|\"\\PC{0,70}\"|[a-z]{1,9}|\\(\\)|\\[\\]|None)") {
        let text = dense();
        let index = Index::new(&text);
        let node = &index.nodes()[at.index(index.nodes().len())];
        check(&format!("{}{value}{}", &text[..node.value.start], &text[node.value.end..]));
    }
}
