//! The fault is the argument's, and is shown there.
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
    #[task(priority = 12, cycle = 1ms, wcet = 400us)]
    fn fast(_: fast::Context) {}
}
fn main() {}
