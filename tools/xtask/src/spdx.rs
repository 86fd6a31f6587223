//! Evaluates SPDX licence expressions (SPDX specification 2.3, annex D) against a
//! list of licences that may be combined with `MIT OR Apache-2.0`.
//!
//! `WITH` binds closer than `AND`, `AND` closer than `OR`. The slash that older
//! crates write (`MIT/Apache-2.0`) means `OR`. A trailing `+` (or any later version)
//! is accepted where the version named is.

/// Permissive licences that ask for no more than attribution.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    // LLVM's former one: attribution, as BSD-3-Clause.
    "NCSA",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Zlib",
];

/// Licences with an exception that only adds permissions.
const ALLOWED_WITH: &[(&str, &str)] = &[("Apache-2.0", "LLVM-exception")];

/// Parentheses in parentheses that are followed, so that no input exhausts the stack.
const DEPTH_MAX: u32 = 32;

/// Why an expression means nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SpdxError {
    /// It ends where a licence or a parenthesis should follow.
    #[error("it ends too early")]
    EndsEarly,
    /// A word stands where it cannot.
    #[error("`{0}` cannot stand where it does")]
    Unexpected(String),
    /// Parentheses are nested too deeply.
    #[error("its parentheses are nested more than {DEPTH_MAX} deep")]
    TooDeep,
}

/// Whether the expression can be satisfied with allowed licences alone.
///
/// # Errors
/// The expression is malformed.
pub fn is_allowed(expression: &str) -> Result<bool, SpdxError> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut parser = Parser { words: spaced.split_whitespace().collect(), at: 0 };
    let allowed = parser.any(0)?;
    match parser.next() {
        None => Ok(allowed),
        Some(word) => Err(SpdxError::Unexpected(word.to_owned())),
    }
}

struct Parser<'a> {
    words: Vec<&'a str>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.at).copied();
        self.at += 1;
        word
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.words.get(self.at) == Some(&word);
        self.at += usize::from(found);
        found
    }

    fn any(&mut self, depth: u32) -> Result<bool, SpdxError> {
        let mut allowed = self.all(depth)?;
        while self.take("OR") {
            allowed |= self.all(depth)?;
        }
        Ok(allowed)
    }

    fn all(&mut self, depth: u32) -> Result<bool, SpdxError> {
        let mut allowed = self.one(depth)?;
        while self.take("AND") {
            allowed &= self.one(depth)?;
        }
        Ok(allowed)
    }

    fn one(&mut self, depth: u32) -> Result<bool, SpdxError> {
        if depth > DEPTH_MAX {
            return Err(SpdxError::TooDeep);
        }
        if self.take("(") {
            let allowed = self.any(depth + 1)?;
            return match self.next() {
                Some(")") => Ok(allowed),
                Some(word) => Err(SpdxError::Unexpected(word.to_owned())),
                None => Err(SpdxError::EndsEarly),
            };
        }
        let licence = self.identifier()?;
        let licence = licence.strip_suffix('+').unwrap_or(licence);
        if self.take("WITH") {
            let exception = self.identifier()?;
            return Ok(ALLOWED_WITH
                .iter()
                .any(|pair| pair.0.eq_ignore_ascii_case(licence) && pair.1.eq_ignore_ascii_case(exception)));
        }
        Ok(ALLOWED.iter().any(|allowed| allowed.eq_ignore_ascii_case(licence)))
    }

    fn identifier(&mut self) -> Result<&'a str, SpdxError> {
        match self.next() {
            None => Err(SpdxError::EndsEarly),
            Some(word @ ("AND" | "OR" | "WITH" | "(" | ")")) => Err(SpdxError::Unexpected(word.to_owned())),
            Some(word) => Ok(word),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_licence_is_on_the_list_or_not() {
        for (expression, allowed) in [
            ("MIT", true),
            ("mit", true),
            ("Apache-2.0+", true),
            ("GPL-3.0-only", false),
            ("EUPL-1.2", false),
            ("MPL-2.0", false),
            ("LicenseRef-own", false),
        ] {
            assert_eq!(is_allowed(expression), Ok(allowed), "{expression}");
        }
    }

    #[test]
    fn or_needs_one_and_needs_all_and_binds_closer() {
        for (expression, allowed) in [
            ("MIT OR GPL-2.0", true),
            ("GPL-2.0 OR MIT", true),
            ("GPL-2.0 OR AGPL-3.0", false),
            ("MIT AND GPL-2.0", false),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("(MIT OR GPL-2.0) AND GPL-2.0", false),
            ("MIT OR Apache-2.0 AND GPL-2.0", true),
            ("(MIT OR Apache-2.0) AND GPL-2.0", false),
            ("GPL-2.0 AND MIT OR ISC", true),
            ("((MIT))", true),
        ] {
            assert_eq!(is_allowed(expression), Ok(allowed), "{expression}");
        }
    }

    #[test]
    fn the_old_slash_is_or() {
        assert_eq!(is_allowed("MIT/Apache-2.0"), Ok(true));
        assert_eq!(is_allowed("GPL-2.0 / MIT"), Ok(true));
        assert_eq!(is_allowed("GPL-2.0/AGPL-3.0"), Ok(false));
    }

    #[test]
    fn an_exception_counts_with_its_licence_only() {
        assert_eq!(is_allowed("Apache-2.0 WITH LLVM-exception"), Ok(true));
        assert_eq!(is_allowed("Apache-2.0 WITH LLVM-exception OR GPL-2.0"), Ok(true));
        assert_eq!(is_allowed("GPL-2.0 WITH LLVM-exception"), Ok(false));
        assert_eq!(is_allowed("MIT WITH Classpath-exception-2.0"), Ok(false));
    }

    #[test]
    fn malformed_expressions_are_errors() {
        for expression in ["", "   ", "MIT OR", "MIT AND", "(MIT", "MIT WITH", "("] {
            assert_eq!(is_allowed(expression), Err(SpdxError::EndsEarly), "{expression}");
        }
        for (expression, word) in [
            ("OR MIT", "OR"),
            ("MIT)", ")"),
            ("MIT Apache-2.0", "Apache-2.0"),
            ("MIT or Apache-2.0", "or"),
            ("MIT AND OR ISC", "OR"),
            ("()", ")"),
            ("(MIT ISC)", "ISC"),
            ("(MIT) WITH LLVM-exception", "WITH"),
        ] {
            assert_eq!(is_allowed(expression), Err(SpdxError::Unexpected(word.to_owned())), "{expression}");
        }
        let deep = "(".repeat(100_000) + "MIT" + &")".repeat(100_000);
        assert_eq!(is_allowed(&deep), Err(SpdxError::TooDeep));
    }
}
