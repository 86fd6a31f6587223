//! The look at the clock of the urgent task is the time of the other.
#[vplc::app(spin = 200us)]
mod app {
    #[shared]
    struct Shared {}
    #[local]
    struct Local {}
    #[init]
    fn init(_: init::Context) -> (Shared, Local, init::Monotonics) {
        (Shared {}, Local {}, init::Monotonics())
    }
    #[task(priority = 2, cycle = 1ms, wcet = 400us)]
    fn fast(_: fast::Context) {}
    #[task(priority = 1, cycle = 1ms, wcet = 500us)]
    fn slow(_: slow::Context) {}
}
fn main() {}
