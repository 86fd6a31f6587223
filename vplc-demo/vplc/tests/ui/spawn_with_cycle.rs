//! What takes arguments is spawned.
#[vplc::app]
mod app {
    #[shared]
    struct Shared {}
    #[local]
    struct Local {}
    #[init]
    fn init(_: init::Context) -> (Shared, Local, init::Monotonics) {
        (Shared {}, Local {}, init::Monotonics())
    }
    #[task(cycle = 10ms, wcet = 100us)]
    fn alarm(_: alarm::Context, _code: u32) {}
}
fn main() {}
