//! Without an interval nothing is known of how often a task runs.
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
    #[task(priority = 2, wcet = 100us)]
    fn alarm(_: alarm::Context, _code: u32) {}
}
fn main() {}
