//! There is no spawning for later.
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
    fn alarm(_: alarm::Context) {
        let _ = alarm::spawn_after(1);
    }
}
fn main() {}
