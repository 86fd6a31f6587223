//! What the macro refuses of tasks that do not begin with their cycle; each program for itself.

/// There are no interrupts.
#[vplc::app]
mod hardware {
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

/// Of a spawned task at least one may wait.
#[vplc::app]
mod capacity_zero {
    #[shared]
    struct Shared {}
    #[local]
    struct Local {}
    #[init]
    fn init(_: init::Context) -> (Shared, Local, init::Monotonics) {
        (Shared {}, Local {}, init::Monotonics())
    }
    #[task(interval = 10ms, capacity = 0, wcet = 100us)]
    fn alarm(_: alarm::Context, _code: u32) {}
}

/// A task with a cycle is not spawned.
#[vplc::app]
mod cyclic {
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

/// There is no spawning for later.
#[vplc::app]
mod later {
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

/// A spawned task counts with its interval.
#[vplc::app]
mod unschedulable {
    #[shared]
    struct Shared {}
    #[local]
    struct Local {}
    #[init]
    fn init(_: init::Context) -> (Shared, Local, init::Monotonics) {
        (Shared {}, Local {}, init::Monotonics())
    }
    #[task(priority = 2, interval = 1ms, wcet = 400us)]
    fn alarm(_: alarm::Context) {}
    #[task(priority = 1, cycle = 2ms, wcet = 1.3ms)]
    fn watch(_: watch::Context) {}
}

/// What takes arguments is spawned.
#[vplc::app]
mod with_cycle {
    #[shared]
    struct Shared {}
    #[local]
    struct Local {}
    #[init]
    fn init(_: init::Context) -> (Shared, Local, init::Monotonics) {
        (Shared {}, Local {}, init::Monotonics())
    }
    #[task(cycle = 10ms, wcet = 100us)]
    fn alarm(_: alarm::Context, _code: u32) {}
}

/// Without an interval nothing is known of how often a task runs.
#[vplc::app]
mod without_interval {
    #[shared]
    struct Shared {}
    #[local]
    struct Local {}
    #[init]
    fn init(_: init::Context) -> (Shared, Local, init::Monotonics) {
        (Shared {}, Local {}, init::Monotonics())
    }
    #[task(priority = 2, wcet = 100us)]
    fn alarm(_: alarm::Context, _code: u32) {}
}

fn main() {}
