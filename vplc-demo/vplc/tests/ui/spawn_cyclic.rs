//! A task with a cycle is not spawned.
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
    #[task(cycle = 10ms, wcet = 100us)]
    fn watch(_: watch::Context) {}
    #[task(cycle = 10ms, wcet = 100us)]
    fn other(_: other::Context) {
        let _ = watch::spawn();
    }
}
fn main() {}
