//! Of a spawned task at least one may wait.
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
    #[task(interval = 10ms, capacity = 0, wcet = 100us)]
    fn alarm(_: alarm::Context, _code: u32) {}
}
fn main() {}
