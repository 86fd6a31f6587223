//! Where and when a program runs is settled at its start, within what its attributes say.

use insane_rt::Session;
use insane_sys::thread::{SchedPolicy, cores, policy};
use vplc::{Base, MonoTime, Nanos, Placement, Spin, StartError, TaiTime, Unchecked};

/// What the task found: its core if it has one only, its policy, and when it was due.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Found {
    cores: usize,
    policy: SchedPolicy,
    due: MonoTime,
    woke: MonoTime,
}

#[vplc::app(fifo = 20, spin = 100us)]
mod app {
    use super::Found;
    use std::sync::mpsc::Sender;

    /// Given to init.
    pub struct Parts {
        pub found: Sender<Found>,
        pub cycles: u32,
    }

    #[shared]
    struct Shared {
        left: u32,
    }

    #[local]
    struct Local {
        found: Tell,
    }

    /// The end of a queue without bounds does not wait.
    pub struct Tell(Sender<Found>);
    impl vplc::NonBlocking for Tell {}

    #[init]
    fn init(_: init::Context, Parts { found, cycles }: Parts, more: u32) -> (Shared, Local, init::Monotonics) {
        (Shared { left: cycles + more }, Local { found: Tell(found) }, init::Monotonics())
    }

    #[task(priority = 2, cycle = 2ms, offset = 100us, wcet = 200us, lock = 50us, shared = [left], local = [found])]
    fn fast(mut cx: fast::Context) {
        let (due, woke) = (cx.activation.due, cx.activation.woke);
        let _ = cx.local.found.0.send(Found { due, woke, ..super::here() });
        let is_over = cx.shared.left.lock(|left| {
            *left = left.saturating_sub(1);
            *left == 0
        });
        if is_over {
            cx.stop.ask();
        }
    }

    #[task(priority = 1, cycle = 2ms, wcet = 100us, lock = 50us, shared = [left])]
    fn slow(mut cx: slow::Context) {
        cx.shared.left.lock(|_| ());
    }
}

/// Of the current thread.
fn here() -> Found {
    let policy = policy(insane_sys::thread::current_tid()).unwrap().unwrap();
    Found { cores: cores_here(), policy, due: MonoTime(0), woke: MonoTime(0) }
}

fn cores_here() -> usize {
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
    (0..nix::sched::CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).count()
}

/// Runs it for a few cycles.
fn found(placement: Option<Placement>) -> (Vec<Found>, vplc::Report) {
    let session = Session::embedded("placed").unwrap();
    let (found, told) = std::sync::mpsc::channel();
    let parts = app::Parts { found, cycles: 3 };
    let running = match placement {
        Some(placement) => app::start_with(&session, placement, parts, 2).unwrap(),
        None => app::start(&session, parts, 2).unwrap(),
    };
    let report = running.join();
    (told.iter().collect(), report)
}

fn refused(placement: Placement) -> Unchecked {
    let session = Session::embedded("placed").unwrap();
    let (found, told) = std::sync::mpsc::channel();
    let refused = app::start_with(&session, placement, app::Parts { found, cycles: 1 }, 0);
    let Err(StartError::Unchecked(why)) = refused else { panic!("{refused:?}") };
    assert_eq!(told.iter().count(), 0, "init did not run, or gave it back");
    why
}

#[test]
fn a_program_runs_where_its_attributes_say_and_on_what_it_is_given() {
    let (found, report) = found(None);
    assert!(found.len() >= 5, "{found:?}");
    assert_eq!(app::placement(), Placement::declared(cores().last().copied(), 20, false, 100_000));
    assert_eq!(report.threads.iter().map(|thread| thread.fifo).collect::<Vec<_>>(), [Some(21), Some(22)]);
    let is_fifo = insane_sys::privileges::can_use_fifo().is_ok();
    for found in found {
        assert_eq!((found.cores, found.due.0 % 2_000_000), (1, 100_000));
        assert!(!is_fifo || found.policy == SchedPolicy::Fifo(22), "{found:?}");
    }
}

#[test]
fn a_program_runs_where_it_is_placed_when_it_starts() {
    let base = Base::Mono(MonoTime(7_000_500_000));
    let (free, report) = found(Some(Placement { core: None, fifo: None, base, spin: Spin::Never }));
    assert!(free.len() >= 5, "{free:?}");
    for found in &free {
        assert_eq!((found.cores, found.policy), (cores().len(), SchedPolicy::Other));
        assert_eq!(found.due.0 % 2_000_000, 600_000, "its offset counts from the base");
    }
    assert!(report.threads.iter().all(|thread| thread.fifo.is_none()));
    let first = cores()[0];
    let (placed, _) = found(Some(Placement { core: Some(first), fifo: Some(30), ..app::placement() }));
    let is_fifo = insane_sys::privileges::can_use_fifo().is_ok();
    for found in placed {
        assert_eq!(found.cores, 1);
        assert!(!is_fifo || found.policy == SchedPolicy::Fifo(32), "{found:?}");
    }
}

#[test]
fn what_the_analysis_does_not_cover_does_not_start() {
    let declared = app::placement();
    let tai = Placement { base: Base::Tai(TaiTime(0)), ..declared };
    assert_eq!(refused(tai), Unchecked::Tai);
    let asked = Nanos(100_001);
    let spins = Placement { spin: Spin::Learnt(asked), ..declared };
    assert_eq!(refused(spins), Unchecked::Spin { asked, declared: Nanos(100_000) });
    assert_eq!(refused(Placement { fifo: Some(91), ..declared }), Unchecked::Fifo(91));
}

#[test]
fn it_says_when_all_tasks_have_ended() {
    let session = Session::embedded("placed").unwrap();
    let (found, told) = std::sync::mpsc::channel();
    let running = app::start(&session, app::Parts { found, cycles: u32::MAX }, 0).unwrap();
    told.recv().unwrap();
    assert!(!running.is_finished());
    running.stop().ask();
    while !running.is_finished() {
        std::thread::yield_now();
    }
    let _ = running.join();
}
