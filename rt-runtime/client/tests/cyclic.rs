//! Cyclic tasks on the kernel's clocks. No test says how late a wake-up may be.

use insane_config::{Idle, Policy, RealtimePlan};
use insane_control::{Hosting, Runtime};
use insane_rt::{
    Base, CyclicError, DeadlineMiss, Determinism, Doing, Ended, Misplaced, MonoTime, Nanos, Overrun, Plan, Qos,
    Session, Spin,
};
use insane_sys::clock::mono_now;
use insane_sys::guard::{self, GuardAllocator};
use insane_sys::thread::{SchedPolicy, is_missing_right, policy};
use std::ops::ControlFlow;
use std::sync::mpsc;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: GuardAllocator = GuardAllocator;

const PERIOD: Nanos = Nanos::from_millis(2);

fn session() -> Session {
    Session::embedded("cyclic").unwrap()
}

#[test]
fn no_activation_is_early_and_two_tasks_of_one_base_keep_their_phase() {
    let (session, base) = (session(), mono_now());
    let run = |offset| {
        let mut task = session.cyclic(PERIOD, offset).base(Base::Mono(base)).start().unwrap();
        let activations: Vec<_> = (0..20).map(|_| task.wait().unwrap()).collect();
        for pair in activations.windows(2) {
            assert_eq!(pair[1].cycle, pair[0].cycle + 1 + pair[1].skipped);
        }
        for each in &activations {
            assert!(each.woke >= each.due);
            let phase = each.due.since(base).0 % PERIOD.0;
            assert_eq!(phase, offset.0);
        }
        assert_eq!(task.statistics().cycles, 20);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| run(Nanos::ZERO));
        scope.spawn(|| run(Nanos(700_000)));
    });
}

#[test]
fn a_base_of_tai_is_a_grid_on_tai() {
    let mut task = session().cyclic(PERIOD, Nanos(1)).tai().start().unwrap();
    let cycle = task.wait().unwrap().cycle;
    let now = insane_sys::clock::tai_now().0;
    assert!(now > cycle * PERIOD.0, "not before its instant");
    assert!(now < (cycle + 5_000) * PERIOD.0, "the number is that of this time: {cycle}");
}

#[test]
fn waiting_allocates_nothing() {
    for spin in [Spin::Never, Spin::Learnt(Nanos::from_micros(200))] {
        let mut task = session().cyclic(PERIOD, Nanos::ZERO).tai().spin(spin).deadline(Nanos(1)).start().unwrap();
        let before = guard::violations_here();
        guard::seal_thread();
        let mut left = 20;
        task.run(|_| {
            left -= 1;
            if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        guard::unseal_thread();
        assert_eq!(guard::violations_here(), before);
        assert_eq!(task.statistics().deadline_misses, 20, "a nanosecond is never enough");
        assert_eq!(task.ended(), None);
    }
}

#[test]
fn a_cycle_that_does_not_end_is_told_while_it_runs_and_again_at_its_end() {
    let (told, misses) = mpsc::channel();
    let (end, ends) = mpsc::channel::<()>();
    let (watch, watches) = mpsc::channel();
    let session = session();
    let task = std::thread::spawn(move || {
        let tell = move |miss: DeadlineMiss| {
            let _ = told.send(miss);
        };
        let mut task =
            session.cyclic(PERIOD, Nanos::ZERO).deadline(Nanos::from_millis(1)).on_deadline(tell).start().unwrap();
        watch.send(task.watch()).unwrap();
        let cycle = task.wait().unwrap().cycle;
        ends.recv().unwrap();
        task.done();
        std::thread::sleep(Duration::from_millis(100));
        cycle
    });
    let watch = watches.recv().unwrap();
    let running = misses.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(running.ended, None);
    assert_eq!(running.deadline, running.due + Nanos::from_millis(1));
    assert_eq!(watch.doing(), Doing::Overdue(running));
    end.send(()).unwrap();
    let ended = misses.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(ended.cycle, running.cycle);
    assert!(ended.ended.unwrap() > ended.deadline);
    assert_eq!(task.join().unwrap(), running.cycle);
    assert_eq!((watch.doing(), watch.deadline_misses()), (Doing::Ended, 1));
}

#[test]
fn an_overrun_stops_a_task_that_is_to_stop() {
    let mut task = session().cyclic(PERIOD, Nanos::ZERO).overrun(Overrun::Stop).start().unwrap();
    while task.wait().is_some() {
        std::thread::sleep(Duration::from(Nanos(2 * PERIOD.0)));
    }
    assert_eq!(task.ended(), Some(Ended::Overrun));
}

/// Spins for a moment on a core of two: without a second one the test passes over itself.
#[test]
fn a_task_is_not_put_on_the_core_of_a_datapath_that_it_would_starve() {
    let cores = insane_sys::thread::cores();
    let [.., other, core] = cores[..] else {
        eprintln!("passed over: needs two cores");
        return;
    };
    let with = |policy, idle| {
        let mut plan = Plan::embedded_default();
        let datapath = &mut plan.datapaths[0];
        (datapath.core, datapath.policy, datapath.idle) = (Some(u16::try_from(core).unwrap()), policy, idle);
        Session::embedded_with(plan, insane_rt::Hosting::Thread, "cyclic").unwrap()
    };
    let refused = |session: &Session, core, fifo| {
        let task = session.cyclic(PERIOD, Nanos::ZERO).core(core).fifo(fifo);
        // On a thread of its own: who is placed stays there.
        std::thread::scope(|scope| scope.spawn(|| task.start().err().map(|error| error.to_string())).join().unwrap())
    };
    let spins = with(Policy::Other, Idle::Spin);
    let why = refused(&spins, core, 1).expect("it is refused");
    assert!(
        why.contains("spins there") && why.contains("Take another core") && why.contains("spin_then_block"),
        "{why}"
    );
    assert_eq!(refused(&spins, other, 1), None);
    drop(spins);
    let sleeps = with(Policy::Fifo(20), Idle::Block);
    assert!(refused(&sleeps, core, 20).is_some_and(|why| why.contains("Ask for less than 20")));
    assert_eq!(refused(&sleeps, core, 19), None);
}

#[test]
fn a_place_that_is_refused_is_told_or_fails_as_asked() {
    let session = session();
    let nowhere = || session.cyclic(PERIOD, Nanos::ZERO).core(99_999);
    let mut task = nowhere().start().unwrap();
    assert!(matches!(task.misplaced(), [Misplaced::Core(_)]), "{:?}", task.misplaced());
    assert!(task.wait().is_some(), "it runs all the same");
    assert!(matches!(nowhere().required().start(), Err(CyclicError::Misplaced(Misplaced::Core(_)))));
    let odd = session.cyclic(PERIOD, Nanos::ZERO).fifo(100).required().start().unwrap_err();
    assert!(odd.to_string().contains("SCHED_FIFO priority 100"), "{odd}");
}

/// The daemon gives what its rule allows: no other core than the one that was asked for.
#[test]
fn a_core_that_cannot_be_is_refused_by_a_daemon_too() {
    let socket = std::env::temp_dir().join(format!("insane-cyclic-{}.sock", std::process::id()));
    let mut plan = Plan::embedded_default();
    plan.control.socket = Some(socket.clone());
    plan.domains[0].realtime = RealtimePlan { cores: vec![0], threads_max: 2, ..RealtimePlan::default() };
    let daemon = Runtime::start(plan, Hosting::Thread).unwrap();
    std::thread::spawn(move || {
        let session = Session::attach(&socket, "cyclic").unwrap();
        for core in [99, 99_999] {
            let task = session.cyclic(PERIOD, Nanos::ZERO).core(core).start().unwrap();
            assert!(matches!(task.misplaced(), [Misplaced::Core(_)]), "{core}: {:?}", task.misplaced());
            assert!(!task.is_placed_by_runtime());
        }
    })
    .join()
    .unwrap();
    drop(daemon);
}

#[test]
fn urgency_asks_for_the_priority_of_the_quality_of_service() {
    std::thread::spawn(|| {
        let qos = Qos { determinism: Determinism::periodic(PERIOD, 64), ..Qos::default() };
        let task = session().cyclic(PERIOD, Nanos::ZERO).urgency(&qos).start().unwrap();
        match task.misplaced() {
            [] => assert_eq!(policy(0).unwrap(), Some(SchedPolicy::Fifo(53))),
            [Misplaced::Policy { priority: 53, reason, .. }] => assert!(is_missing_right(reason.errno), "{reason}"),
            other => panic!("{other:?}"),
        }
        drop(task);
        let best_effort = session().cyclic(PERIOD, Nanos::ZERO).urgency(&Qos::default()).required().start();
        assert!(best_effort.is_ok(), "it asks for nothing");
    })
    .join()
    .unwrap();
}

#[test]
fn absurd_numbers_are_named_errors() {
    let session = session();
    for (period, offset, says) in [
        (Nanos::ZERO, Nanos::ZERO, "a period of 0 ns is not between 10.0 us and 3600.00 s"),
        (Nanos(u64::MAX), Nanos::ZERO, "is not between"),
        (PERIOD, PERIOD, "an offset of 2.00 ms is not inside a period of 2.00 ms"),
    ] {
        let error = session.cyclic(period, offset).start().unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    assert!(matches!(session.cyclic(PERIOD, Nanos::ZERO).deadline(Nanos::ZERO).start(), Err(CyclicError::Deadline(_))));
    let far = session.cyclic(PERIOD, Nanos::ZERO).base(Base::Mono(MonoTime(u64::MAX))).start().unwrap().wait();
    assert!(far.is_some(), "of a base in the far future only the phase counts");
}
