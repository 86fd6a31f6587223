//! Idle says how long it holds locks.
#[vplc::app]
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
    #[idle(shared = [level])]
    fn idle(_: idle::Context) -> ! {
        loop {}
    }
    #[task(cycle = 1ms, wcet = 100us, shared = [level])]
    fn write(_: write::Context) {}
}
fn main() {}
