//! A spawned task counts with its interval.
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
    #[task(priority = 2, interval = 1ms, wcet = 400us)]
    fn alarm(_: alarm::Context) {}
    #[task(priority = 1, cycle = 2ms, wcet = 1.3ms)]
    fn watch(_: watch::Context) {}
}
fn main() {}
