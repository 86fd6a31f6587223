//! What init is given may block; what a task holds of it may not.
use std::sync::mpsc::Receiver;
#[vplc::app]
mod app {
    use std::sync::mpsc::Receiver;
    #[shared]
    struct Shared {}
    #[local]
    struct Local {
        orders: Receiver<u32>,
    }
    #[init]
    fn init(_: init::Context, orders: Receiver<u32>) -> (Shared, Local, init::Monotonics) {
        (Shared {}, Local { orders }, init::Monotonics())
    }
    #[task(cycle = 1ms, wcet = 100us, local = [orders])]
    fn one(_: one::Context) {}
}
fn main() {
    let (_, orders): (_, Receiver<u32>) = std::sync::mpsc::channel();
    let _ = app::start(&insane_rt::Session::embedded("one").unwrap(), orders);
}
