//! What a task is given must not block it either.
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
    #[task(interval = 10ms, wcet = 100us)]
    fn alarm(_: alarm::Context, _text: String) {}
}
fn main() {}
