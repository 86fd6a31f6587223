//! The slow task cannot meet its deadline beside the fast one and its lock.
#[vplc::app(jitter = 50us)]
mod app {
    #[shared]
    struct Shared {
        level: f64,
    }
    #[local]
    struct Local {}
    #[init]
    fn init(_: init::Context) -> (Shared, Local, init::Monotonics) {
        (Shared { level: 0.0 }, Local {}, init::Monotonics())
    }
    #[task(priority = 3, cycle = 1ms, wcet = 400us, shared = [level])]
    fn fast(_: fast::Context) {}
    #[task(priority = 2, cycle = 2ms, deadline = 1.5ms, wcet = 600us)]
    fn middle(_: middle::Context) {}
    #[task(priority = 1, cycle = 10ms, wcet = 1ms, lock = 300us, shared = [level])]
    fn slow(_: slow::Context) {}
}
fn main() {}
