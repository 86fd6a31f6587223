//! A sink can be waited for; a task holds it as `vplc::In`.
#[vplc::app]
mod app {
    #[shared]
    struct Shared {}
    #[local]
    struct Local {
        sink: insane_rt::Sink,
    }
    #[init]
    fn init(_: init::Context) -> (Shared, Local, init::Monotonics) {
        unreachable!()
    }
    #[task(cycle = 1ms, wcet = 100us, local = [sink])]
    fn listen(_: listen::Context) {}
}
fn main() {}
