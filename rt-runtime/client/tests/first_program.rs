//! What README shows is the example that the documentation tests run; and what may move to another
//! thread, or be shared by several, does.
#![forbid(unsafe_code)]

use insane_rt::{CallbackSink, ProcessSink, ProcessSource, Session, Sink, Source, Stream};

#[test]
fn the_readme_shows_the_first_program_as_it_is() {
    let readme = include_str!("../../../README.md");
    let program = readme.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next());
    assert_eq!(program, Some(include_str!("../examples/first.rs")));
}

/// Fails to compile otherwise; what must not be is in `tests/ui`.
#[test]
fn ports_move_between_threads_and_sessions_and_streams_are_shared() {
    const fn moves<T: Send>() {}
    const fn is_shared<T: Send + Sync>() {}
    moves::<Source>();
    moves::<Sink>();
    moves::<ProcessSource>();
    moves::<ProcessSink>();
    moves::<CallbackSink>();
    is_shared::<Session>();
    is_shared::<Stream>();
}
