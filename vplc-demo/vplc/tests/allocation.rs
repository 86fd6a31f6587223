//! After its first run no task's thread allocates: not to wait, to spawn, to be spawned, or to
//! lock.

use insane_rt::Session;
use insane_sys::guard::{self, GuardAllocator};
use std::sync::atomic::{AtomicU64, Ordering};

#[global_allocator]
static ALLOCATOR: GuardAllocator = GuardAllocator;

/// Threads that were looked at to the end, and what they allocated.
static LOOKED: AtomicU64 = AtomicU64::new(0);
static ALLOCATED: AtomicU64 = AtomicU64::new(0);

/// Seals the thread in its first run, and says in its last what there was.
fn look(run: u32, runs: u32) {
    if run == 1 {
        guard::seal_thread();
    } else if run == runs {
        guard::unseal_thread();
        LOOKED.fetch_add(1, Ordering::Relaxed);
        ALLOCATED.fetch_add(guard::violations_here(), Ordering::Relaxed);
    }
}

#[vplc::app]
mod app {
    #[shared]
    struct Shared {
        count: u32,
    }
    #[local]
    struct Local {}
    #[init]
    fn init(_: init::Context) -> (Shared, Local, init::Monotonics) {
        (Shared { count: 0 }, Local {}, init::Monotonics())
    }

    #[task(priority = 2, cycle = 2ms, wcet = 100us, lock = 20us, shared = [count], local = [cycles: u32 = 0])]
    fn watch(mut cx: watch::Context) {
        *cx.local.cycles += 1;
        let _ = (more::spawn([1; 16]), less::spawn(), less::spawn());
        cx.shared.count.lock(|count| *count += 1);
        super::look(*cx.local.cycles, 40);
        if *cx.local.cycles == 40 {
            cx.stop.ask();
        }
    }

    #[task(priority = 3, interval = 1ms, wcet = 50us, lock = 20us, shared = [count], local = [runs: u32 = 0])]
    fn more(mut cx: more::Context, bytes: [u8; 16]) {
        *cx.local.runs += 1;
        cx.shared.count.lock(|count| *count += u32::from(bytes[0]));
        super::look(*cx.local.runs, 10);
    }

    #[task(priority = 1, interval = 1ms, wcet = 50us, lock = 20us, shared = [count], local = [runs: u32 = 0])]
    fn less(mut cx: less::Context) {
        *cx.local.runs += 1;
        cx.shared.count.lock(|count| *count += 1);
        super::look(*cx.local.runs, 10);
    }
}

#[test]
fn neither_waiting_nor_spawning_nor_locking_allocates() {
    let session = Session::embedded("allocation").unwrap();
    let report = app::start(&session).unwrap().join();
    assert_eq!(LOOKED.load(Ordering::Relaxed), 3, "{report:?}");
    assert_eq!(ALLOCATED.load(Ordering::Relaxed), 0);
}
