//! A program with three priorities, two tasks of one priority, idle, spawned tasks, and every
//! kind of resource. No test says how late a task may be.

use insane_rt::Session;

#[vplc::app(tai = true, datapath_cycle = 1ms, datapath_wcet = 20us)]
mod app {
    use std::sync::mpsc::{Sender, channel};

    pub struct Counter(pub u64);
    impl vplc::NonBlocking for Counter {}

    /// Of what was spawned: how much was accepted, and what ran.
    #[derive(Default)]
    pub struct Spawned {
        pub accepted: u64,
        pub ran: u64,
        pub sum: u64,
        pub from_init: u64,
        pub from_idle: bool,
    }
    impl vplc::NonBlocking for Spawned {}

    #[shared]
    struct Shared {
        spawned: Spawned,
        pair: (u64, u64),
        torn: Counter,
        limit: u64,
    }

    #[local]
    struct Local {
        seen: Sender<(u64, u64)>,
        start: u64,
    }

    #[init(local = [made: u64 = 7])]
    fn init(cx: init::Context) -> (Shared, Local, init::Monotonics) {
        let (seen, _) = channel();
        let local = Local { seen, start: *cx.local.made };
        assert_eq!(alarm::spawn(1, 7), Ok(()), "runs when the program does");
        assert_eq!(alarm::spawn(2, 8), Err((2, 8)), "the interval is not over");
        (Shared { spawned: Spawned::default(), pair: (0, 0), torn: Counter(0), limit: 40 }, local, init::Monotonics())
    }

    #[idle(shared = [pair], local = [seen], lock = 20us)]
    fn idle(mut cx: idle::Context) -> ! {
        loop {
            let pair = cx.shared.pair.lock(|pair| *pair);
            let _ = cx.local.seen.send(pair);
            let _ = hello::spawn(std::time::Duration::from_millis(1));
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// More urgent than who spawns it.
    #[task(priority = 4, capacity = 2, interval = 2ms, wcet = 100us, lock = 50us, shared = [spawned])]
    fn alarm(mut cx: alarm::Context, code: u64, of: u64) {
        assert!(cx.spawned.0 > 0);
        cx.shared.spawned.lock(|spawned| {
            spawned.ran += 1;
            spawned.sum += code * of;
            spawned.from_init += u64::from(code == 1);
        });
    }

    /// Of the same priority as tasks with a cycle, and less urgent than who spawns it.
    #[task(priority = 1, interval = 1ms, wcet = 100us, lock = 50us, shared = [spawned])]
    fn hello(mut cx: hello::Context, time: std::time::Duration) {
        cx.shared.spawned.lock(|spawned| spawned.from_idle |= time.as_millis() == 1);
    }

    #[task(priority = 3, cycle = 3ms, wcet = 200us, lock = 50us, shared = [pair, torn, spawned], local = [start])]
    fn fast(mut cx: fast::Context) {
        let accepted =
            [alarm::spawn(3, *cx.local.start), alarm::spawn(3, 0)].iter().filter(|done| done.is_ok()).count();
        cx.shared.spawned.lock(|spawned| spawned.accepted += accepted as u64);
        *cx.local.start += 1;
        let torn = cx.shared.pair.lock(|pair| {
            let torn = pair.0 != pair.1;
            pair.0 += 1;
            pair.1 += 1;
            torn
        });
        cx.shared.torn.lock(|count| count.0 += u64::from(torn));
    }

    #[task(priority = 1, cycle = 5ms, wcet = 300us, lock = 50us, shared = [pair, torn, spawned, &limit],
           local = [cycles: u64 = 0])]
    fn slow(cx: slow::Context) {
        let (mut pair, mut torn, mut spawned) = (cx.shared.pair, cx.shared.torn, cx.shared.spawned);
        pair.lock(|pair| torn.lock(|count| count.0 += u64::from(pair.0 != pair.1)));
        *cx.local.cycles += 1;
        assert!(cx.activation.woke >= cx.activation.due);
        if *cx.local.cycles >= *cx.shared.limit {
            assert_eq!(torn.lock(|count| count.0), 0, "nobody saw a pair in the middle of a change");
            assert!(pair.lock(|pair| pair.0) > 0, "the fast task ran beside it");
            spawned.lock(|spawned| {
                assert!(spawned.accepted > 0 && spawned.ran > 0);
                assert_eq!(spawned.from_init, 1);
                assert!(spawned.from_idle);
                // What was spawned with another's number, or not at all, would not be a multiple.
                assert_eq!((spawned.sum - 7) % 3, 0);
            });
            cx.stop.ask();
        }
    }

    #[task(priority = 1, cycle = 5ms, wcet = 100us)]
    fn second(_: second::Context) {}
}

#[test]
fn tasks_of_all_priorities_run_and_share_without_tearing() {
    let session = Session::embedded("program").unwrap();
    let running = app::start(&session).unwrap();
    for notice in running.notices() {
        eprintln!("{notice}");
    }
    let report = running.join();
    let cycles = |name| report.task(name).unwrap().statistics.cycles;
    assert_eq!(report.tasks().count(), 3);
    assert!(cycles("slow") >= 40 && cycles("fast") > 0 && cycles("second") > 0);
    for task in report.tasks() {
        assert!(task.cpu_worst.0 > 0, "{}", task.spec.name);
    }
    let alarm = report.spawned("alarm").unwrap();
    assert!(alarm.runs > 0 && alarm.cpu_worst.0 > 0 && alarm.response_worst.0 > 0);
    assert!(alarm.refused_early > cycles("fast") / 2, "of two at once, one comes too early: {alarm:?}");
    assert!(report.spawned("hello").unwrap().runs > 0);
    assert_eq!(report.unraised, 0);
    let name = std::time::Duration::from_millis(3);
    assert_eq!(app::hello::spawn(name), Err(name), "this thread is of no program");
}

/// Tasks that only somebody else begins, and one that begins itself again.
#[vplc::app]
mod chain {
    #[shared]
    struct Shared {
        log: [u32; 8],
    }

    #[local]
    struct Local {}

    #[init]
    fn init(_: init::Context) -> (Shared, Local, init::Monotonics) {
        first::spawn().unwrap();
        (Shared { log: [0; 8] }, Local {}, init::Monotonics())
    }

    #[task(priority = 1, interval = 50us, wcet = 10us, lock = 5us, shared = [log], local = [runs: usize = 0])]
    fn first(mut cx: first::Context) {
        cx.shared.log.lock(|log| log[*cx.local.runs % 8] += 1);
        *cx.local.runs += 1;
        if *cx.local.runs == 8 {
            last::spawn(*cx.local.runs).unwrap();
            cx.shared.log.lock(|log| assert!(log.iter().all(|runs| *runs == 1)));
            return;
        }
        // A task may spawn itself, when its interval is over.
        while first::spawn().is_err() {}
    }

    #[task(priority = 2, interval = 1ms, wcet = 10us, lock = 5us, shared = [log])]
    fn last(mut cx: last::Context, runs: usize) {
        assert_eq!(runs, 8);
        cx.shared.log.lock(|log| log[0] += 1);
        cx.stop.ask();
    }

    #[task(priority = 3, interval = 1ms, wcet = 10us)]
    fn never(_: never::Context) {
        unreachable!("nobody spawns it");
    }
}

#[test]
fn a_program_without_cycles_runs_on_what_is_spawned_and_ends_when_asked() {
    let session = Session::embedded("chain").unwrap();
    let report = chain::start(&session).unwrap().join();
    let runs = |name| report.spawned(name).unwrap().runs;
    assert_eq!((runs("last"), runs("never")), (1, 0));
    assert!(runs("first") >= 1, "it may be interrupted by the end");
    assert_eq!(report.spawned_tasks().count(), 3);
}

/// What a task does that waits is seen, whatever it calls.
#[vplc::app]
mod blocks {
    #[shared]
    struct Shared {}
    #[local]
    struct Local {}
    #[init]
    fn init(_: init::Context) -> (Shared, Local, init::Monotonics) {
        (Shared {}, Local {}, init::Monotonics())
    }
    /// Not seen at build time.
    fn hidden() {
        std::thread::sleep(std::time::Duration::from_micros(100));
    }
    #[task(priority = 2, cycle = 2ms, wcet = 1ms, local = [cycles: u32 = 0])]
    fn waits(cx: waits::Context) {
        hidden();
        *cx.local.cycles += 1;
        if *cx.local.cycles == 20 {
            cx.stop.ask();
        }
    }
    #[task(priority = 1, cycle = 2ms, wcet = 100us)]
    fn works(_: works::Context) {}
}

#[test]
fn a_task_that_waits_where_the_build_does_not_see_it_is_reported() {
    let session = Session::embedded("blocks").unwrap();
    let report = blocks::start(&session).unwrap().join();
    let [works, waits] = report.threads.as_slice() else { panic!("{report:?}") };
    assert!(waits.blocked >= 10, "{}", waits.blocked);
    assert!(works.blocked < waits.blocked / 2, "{}", works.blocked);
}
