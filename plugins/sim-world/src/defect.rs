//! Faults that are built into a world on purpose, so that the tests see every checker fail.

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Defect {
    /// A message reaches a host of the domain that has no sink.
    Unasked,
    /// A message reaches a host of another domain.
    Leaky,
    /// What is late is delivered.
    Late,
    /// What is a duplicate is delivered.
    Twice,
    /// A byte changes on the way to the sink.
    Torn,
    /// The memory of messages given up is not given back.
    Kept,
    /// The queue of overlay frames has no bound.
    Unbounded,
    /// A host hears no JOIN or LEAVE.
    Deaf,
    /// One message in a hundred vanishes without a trace.
    Swallowed,
}
