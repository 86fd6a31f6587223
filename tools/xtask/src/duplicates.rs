//! Crates that may stand in the build in two versions, each with its reason. An
//! entry that excuses nothing is refused, so the list does not outlive its reasons.

/// Name of the crate, and why there are two.
pub const ACCEPTED: &[(&str, &str)] = &[
    ("embedded-io", "two optional interfaces of postcard, neither of which is compiled"),
    ("hashbrown", "build time only: under the indexmap of rtic-syntax"),
    ("indexmap", "build time only: rtic-syntax (PLC programs) is a version behind"),
    ("itertools", "build time only: bindgen (under iceoryx2 and Aeron, feature `peers`) is a version behind ratatui"),
    ("shlex", "build time only: bindgen (under iceoryx2, feature `peers`) and cc (under loom) differ"),
    (
        "syn",
        "build time only: bindgen and the macros of iceoryx2 (feature `peers`) are a version behind serde's, rtic-syntax two",
    ),
    ("toml", "trybuild (tests only) is a version ahead of iceoryx2 (feature `peers`)"),
    ("toml_datetime", "comes with each toml"),
    ("winnow", "toml (under iceoryx2, feature `peers`) parses values and documents with different versions"),
];
