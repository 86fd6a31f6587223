//! What the macro refuses of tasks that do not begin with their cycle; each program for itself.

/// A program of these tasks and nothing else.
macro_rules! program {
    ($name:ident $($tasks:tt)*) => {
        #[vplc::app]
        mod $name {
            #[shared]
            struct Shared {}
            #[local]
            struct Local {}
            #[init]
            fn init(_: init::Context) -> (Shared, Local, init::Monotonics) {
                (Shared {}, Local {}, init::Monotonics())
            }
            $($tasks)*
        }
    };
}

// There are no interrupts.
program! { hardware
    #[task(binds = UART0, priority = 2, wcet = 10us)]
    fn uart(_: uart::Context) {}
}

// Of a spawned task at least one may wait.
program! { capacity_zero
    #[task(interval = 10ms, capacity = 0, wcet = 100us)]
    fn alarm(_: alarm::Context, _code: u32) {}
}

// A task with a cycle is not spawned.
program! { cyclic
    #[task(cycle = 10ms, wcet = 100us)]
    fn watch(_: watch::Context) {}
    #[task(cycle = 10ms, wcet = 100us)]
    fn other(_: other::Context) {
        let _ = watch::spawn();
    }
}

// There is no spawning for later.
program! { later
    #[task(interval = 10ms, wcet = 100us)]
    fn alarm(_: alarm::Context) {
        let _ = alarm::spawn_after(1);
    }
}

// A spawned task counts with its interval.
program! { unschedulable
    #[task(priority = 2, interval = 1ms, wcet = 400us)]
    fn alarm(_: alarm::Context) {}
    #[task(priority = 1, cycle = 2ms, wcet = 1.3ms)]
    fn watch(_: watch::Context) {}
}

// What takes arguments is spawned.
program! { with_cycle
    #[task(cycle = 10ms, wcet = 100us)]
    fn alarm(_: alarm::Context, _code: u32) {}
}

// Without an interval nothing is known of how often a task runs.
program! { without_interval
    #[task(priority = 2, wcet = 100us)]
    fn alarm(_: alarm::Context, _code: u32) {}
}

fn main() {}
