//! A program with two priorities, two tasks of one priority, idle, and every kind of
//! resource. No test says how late a task may be.

use insane_rt::Session;

#[vplc::app(tai = true, datapath_cycle = 1ms, datapath_wcet = 20us)]
mod app {
    use std::sync::mpsc::{Sender, channel};

    pub struct Counter(pub u64);
    impl vplc::NonBlocking for Counter {}

    #[shared]
    struct Shared {
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
        (Shared { pair: (0, 0), torn: Counter(0), limit: 40 }, local, init::Monotonics())
    }

    #[idle(shared = [pair], local = [seen], lock = 20us)]
    fn idle(mut cx: idle::Context) -> ! {
        loop {
            let pair = cx.shared.pair.lock(|pair| *pair);
            let _ = cx.local.seen.send(pair);
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    #[task(priority = 3, cycle = 3ms, wcet = 200us, lock = 50us, shared = [pair, torn], local = [start])]
    fn fast(mut cx: fast::Context) {
        *cx.local.start += 1;
        let torn = cx.shared.pair.lock(|pair| {
            let torn = pair.0 != pair.1;
            pair.0 += 1;
            pair.1 += 1;
            torn
        });
        cx.shared.torn.lock(|count| count.0 += u64::from(torn));
    }

    #[task(priority = 1, cycle = 5ms, wcet = 300us, lock = 50us, shared = [pair, torn, &limit], local = [cycles: u64 = 0])]
    fn slow(cx: slow::Context) {
        let (mut pair, mut torn) = (cx.shared.pair, cx.shared.torn);
        pair.lock(|pair| torn.lock(|count| count.0 += u64::from(pair.0 != pair.1)));
        *cx.local.cycles += 1;
        assert!(cx.activation.woke >= cx.activation.due);
        if *cx.local.cycles >= *cx.shared.limit {
            assert_eq!(torn.lock(|count| count.0), 0, "nobody saw a pair in the middle of a change");
            assert!(pair.lock(|pair| pair.0) > 0, "the fast task ran beside it");
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
    assert_eq!(report.tasks.len(), 3);
    assert!(cycles("slow") >= 40 && cycles("fast") > 0 && cycles("second") > 0);
    for task in &report.tasks {
        assert!(task.cpu_worst.0 > 0, "{}", task.spec.name);
    }
}
