//! Operating-system calls behind safe functions.
//!
//! One of the few crates with `unsafe`. Everything here is a thin, argued wrapper;
//! no policy lives here.

mod bytes;

pub use bytes::SharedBytes;
