//! How an embedded runtime is hosted.

/// How the runtime inside this process runs its datapaths.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Hosting {
    /// On threads of their own, as the plan says.
    #[default]
    Thread,
    /// Inside the application's emits and consumes: the lowest latency. The session's
    /// sources and sinks belong on one thread; a keeper steps in when that thread has
    /// not called for a millisecond. One datapath only.
    Inline,
}
