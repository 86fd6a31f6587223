//! libFuzzer over one target, named by `INSANE_FUZZ_TARGET`: see `cargo xtask fuzz`.
#![no_main]

use insane_fuzz::Target;
use std::sync::LazyLock;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("INSANE_FUZZ_TARGET").unwrap_or_default();
    Target::named(&name).unwrap_or_else(|| panic!("INSANE_FUZZ_TARGET is \"{name}\", which is no target"))
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| (TARGET.feed)(input));
