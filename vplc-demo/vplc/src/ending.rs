//! What a panic of a program's thread does: it ends the process.
//!
//! A controller of which one task is gone is worse than one that has stopped: others would go on
//! sending what is computed from its last value, and whoever hears them could not tell. So the
//! process ends by SIGABRT before a lock of the program is given back: no task that waits for it sees
//! a value in the middle of a change. Whoever receives sees that nothing comes, as after any crash.
//! The message of the panic comes first, by the process's panic hook, in which a program may say
//! more; until that returns the other tasks run on, so it must not wait for anybody.

/// Until it is forgotten, to leave its scope is a panic.
struct Ends<'a>(&'a str);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        use std::io::Write;
        // Not `eprintln`: a closed terminal must not make another panic of it.
        let _ = writeln!(std::io::stderr(), "vplc: {} panicked: the program ends", self.0);
        std::process::abort();
    }
}

/// Runs what ends the process if it panics; `what` is told then.
pub(crate) fn or_end<R>(what: &str, run: impl FnOnce() -> R) -> R {
    let ends = Ends(what);
    let result = run();
    std::mem::forget(ends);
    result
}
