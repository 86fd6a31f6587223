//! The text form of a certificate.
//!
//! ```text
//! insane-certificate 1 0123456789abcdef
//! (plant: (…), placed: […], …)
//! ```
//! The number is the FNV-1a hash (64 bits; Fowler, Noll, Vo) of all bytes that follow its
//! line. Each step of it is a bijection of the state for a given byte, and of the byte
//! for a given state: texts of one length that differ in one byte differ in their hash.

use crate::Certificate;
use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;

/// How the text of a certificate begins.
pub const MARK: &str = "insane-certificate 1 ";

/// Why a text is no certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TextError {
    /// The first line is not that of a certificate of this version.
    NoMark,
    /// The text was altered.
    Altered,
    /// The text is whole and says something else; where and what.
    Malformed(String),
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TextError::NoMark => f.write_str("the text does not begin as a certificate of version 1"),
            TextError::Altered => f.write_str("the certificate was altered: its digest is wrong"),
            TextError::Malformed(what) => write!(f, "the certificate is malformed: {what}"),
        }
    }
}

impl core::error::Error for TextError {}

/// Writes a certificate.
///
/// # Errors
/// [`TextError::Malformed`] where it cannot be written.
pub fn write(certificate: &Certificate) -> Result<String, TextError> {
    let body = ron::ser::to_string_pretty(certificate, ron::ser::PrettyConfig::default());
    let body = body.map_err(|error| TextError::Malformed(error.to_string()))?;
    Ok(format!("{MARK}{:016x}\n{body}", digest(body.as_bytes())))
}

/// Reads one.
///
/// # Errors
/// [`TextError`].
pub fn read(text: &str) -> Result<Certificate, TextError> {
    let (number, body) = text.strip_prefix(MARK).and_then(|rest| rest.split_once('\n')).ok_or(TextError::NoMark)?;
    if number != format!("{:016x}", digest(body.as_bytes())) {
        return Err(TextError::Altered);
    }
    ron::from_str(body).map_err(|error| TextError::Malformed(error.to_string()))
}

/// FNV-1a, 64 bits.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
