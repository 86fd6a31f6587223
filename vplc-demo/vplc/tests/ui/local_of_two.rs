//! A local resource belongs to one task.
#[vplc::app]
mod app {
    #[shared]
    struct Shared {}
    #[local]
    struct Local {
        count: u32,
    }
    #[init]
    fn init(_: init::Context) -> (Shared, Local, init::Monotonics) {
        (Shared {}, Local { count: 0 }, init::Monotonics())
    }
    #[task(cycle = 1ms, wcet = 100us, local = [count])]
    fn one(_: one::Context) {}
    #[task(cycle = 1ms, wcet = 100us, local = [count])]
    fn two(_: two::Context) {}
}
fn main() {}
