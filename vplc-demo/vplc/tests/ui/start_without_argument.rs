//! What init takes is given at the start.
#[vplc::app]
mod app {
    #[shared]
    struct Shared {
        limit: f64,
    }
    #[local]
    struct Local {}
    #[init]
    fn init(_: init::Context, limit: f64) -> (Shared, Local, init::Monotonics) {
        (Shared { limit }, Local {}, init::Monotonics())
    }
    #[task(cycle = 1ms, wcet = 100us, shared = [&limit])]
    fn one(cx: one::Context) {
        let _: &f64 = cx.shared.limit;
    }
}
fn main() {
    let session = insane_rt::Session::embedded("one").unwrap();
    let _ = app::start(&session);
    let _ = app::start_with(&session, app::placement(), 1);
}
