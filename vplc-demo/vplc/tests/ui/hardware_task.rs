//! There are no interrupts.
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
    #[task(binds = UART0, priority = 2, wcet = 10us)]
    fn uart(_: uart::Context) {}
}
fn main() {}
