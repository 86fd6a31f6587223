//! Sleeping in a task.
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
    #[task(cycle = 1ms, wcet = 100us)]
    fn sleepy(_: sleepy::Context) {
        std::thread::sleep(std::time::Duration::from_micros(10));
    }
}
fn main() {}
