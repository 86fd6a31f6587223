//! A shared value is reached through its lock only.
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
    #[task(cycle = 1ms, wcet = 100us, shared = [level])]
    fn write(cx: write::Context) {
        *cx.shared.level = 1.0;
    }
}
fn main() {}
