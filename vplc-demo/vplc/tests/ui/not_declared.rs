//! A task reaches only what it declares.
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
    #[task(cycle = 1ms, wcet = 100us)]
    fn write(mut cx: write::Context) {
        cx.shared.level.lock(|level| *level = 1.0);
    }
}
fn main() {}
