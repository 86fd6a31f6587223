//! The servo against simulated clocks: drift, steps, loss of discipline, odd reads.

use insane_clock::{AfterHoldover, ClockState, Followed, Servo, ServoConfig, UNUSABLE_READS, Why};
use insane_core::time::PairedRead;
use insane_core::{MonoTime, Nanos, TaiTime};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
/// 2026, TAI.
const TODAY: u64 = 1_790_000_000 * SECOND;

/// A host: TAI that is true, a monotonic clock that drifts against it.
struct World {
    servo: Servo,
    mono: u64,
    /// TAI less monotonic time.
    apart: i64,
    drift_ppb: i64,
    has_offset: bool,
    is_synchronised: bool,
    /// Half of what a read takes.
    read_ns: u64,
    last: TaiTime,
    told: Vec<Followed>,
    moved: Vec<(TaiTime, i64)>,
}

impl World {
    fn new(config: ServoConfig, cycle_ns: u64) -> World {
        let mut servo = Servo::new(config);
        servo.set_cycle(cycle_ns);
        World {
            servo,
            mono: 5 * SECOND + 123,
            apart: (TODAY - 5 * SECOND) as i64,
            drift_ppb: 0,
            has_offset: true,
            is_synchronised: true,
            read_ns: 100,
            last: TaiTime(0),
            told: Vec::new(),
            moved: Vec::new(),
        }
    }

    fn tai(&self) -> u64 {
        self.mono.wrapping_add_signed(self.apart)
    }

    /// 10 ms, at 100 us a look; then a read.
    fn step(&mut self) {
        for _ in 0..100 {
            self.mono += 100_000;
            self.apart += self.drift_ppb / 10_000;
            let before = self.servo.tai(MonoTime(self.mono));
            if let Some(moved) = self.servo.relock(MonoTime(self.mono)) {
                self.moved.push((before, moved));
            } else if self.moved.last().is_none_or(|last| last.0 < self.last) {
                assert!(before >= self.last, "time goes forward");
            }
            self.last = self.servo.tai(MonoTime(self.mono));
        }
        let read = PairedRead {
            before: MonoTime(self.mono - self.read_ns),
            tai: TaiTime(self.tai()),
            after: MonoTime(self.mono + self.read_ns),
            has_offset: self.has_offset,
            is_synchronised: self.is_synchronised,
        };
        match self.servo.read(MonoTime(self.mono), Some(read)) {
            Followed::Plainly => {}
            told => self.told.push(told),
        }
    }

    fn run(&mut self, seconds_tenth: u64) {
        (0..seconds_tenth * 10).for_each(|_| self.step());
    }

    /// How far the slots' time is off in the cycle.
    fn off_ns(&self, cycle_ns: u64) -> u64 {
        let (a, b) = (self.servo.tai(MonoTime(self.mono)).0 % cycle_ns, self.tai() % cycle_ns);
        let apart = a.abs_diff(b);
        apart.min(cycle_ns - apart)
    }
}

#[test]
fn a_disciplined_clock_is_taken_at_a_boundary_and_followed_while_it_drifts() {
    for drift_ppb in [-200_000, -50_000, 0, 70_000, 200_000] {
        let mut world = World::new(ServoConfig::default(), MS);
        world.drift_ppb = drift_ppb;
        assert_eq!(world.servo.state(), ClockState::Local(Why::NotAsked));
        world.run(1);
        assert_eq!((world.servo.state(), world.servo.relocks()), (ClockState::Locked, 1));
        let (at, _) = world.moved[0];
        assert!(at.0 % MS < 100_000, "within a look of the boundary of the cycle");
        for _ in 0..50 {
            world.run(1);
            // 10 ms at that drift, and the corrections that are under way.
            assert!(world.off_ns(MS) <= 2 * drift_ppb.unsigned_abs() / 100 + 200, "{}", world.off_ns(MS));
        }
        assert_eq!(world.told, [Followed::Pending]);
        assert_eq!(world.servo.relocks(), 1, "followed, not stepped");
    }
}

#[test]
fn steps_by_whole_cycles_move_no_slot() {
    for step in [37 * SECOND as i64, -(3 * 3600 * SECOND as i64), MS as i64] {
        let mut world = World::new(ServoConfig::default(), MS);
        world.run(2);
        world.told.clear();
        world.apart += step;
        world.run(5);
        assert_eq!(world.told, [Followed::WholeCycles(step)]);
        assert_eq!((world.servo.apart_ns(), world.servo.relocks()), (step, 1));
        assert!(world.off_ns(MS) < 300);
        // And back.
        world.apart -= step;
        world.run(5);
        assert_eq!(world.servo.apart_ns(), 0);
    }
}

#[test]
fn a_step_of_the_phase_is_a_relock_at_a_boundary() {
    for step in [300_000_i64, -250_000, 2 * 3600 * SECOND as i64 + 400_000, -37 * SECOND as i64 + 90_000] {
        let mut world = World::new(ServoConfig::default(), MS);
        world.run(2);
        world.told.clear();
        world.moved.clear();
        world.apart += step;
        world.run(5);
        assert_eq!(world.told, [Followed::Pending]);
        let [(at, moved)] = world.moved[..] else { panic!("one re-lock: {:?}", world.moved) };
        assert!(at.0 % MS < 100_000, "inside no cycle");
        assert_eq!(moved, step);
        assert!(world.off_ns(MS) < 300);
        assert_eq!(world.servo.relocks(), 2);
    }
}

#[test]
fn one_odd_read_is_no_step() {
    let mut world = World::new(ServoConfig::default(), MS);
    world.run(2);
    world.told.clear();
    for _ in 0..5 {
        world.apart += 400_000;
        world.step();
        world.apart -= 400_000;
        world.run(1);
    }
    assert!(world.told.is_empty());
    assert_eq!((world.servo.relocks(), world.servo.apart_ns()), (1, 0));
}

#[test]
fn a_read_during_which_the_thread_rested_is_not_used() {
    let mut servo = Servo::new(ServoConfig::default());
    let read = |before, after| PairedRead {
        before: MonoTime(before),
        tai: TaiTime(TODAY),
        after: MonoTime(after),
        has_offset: true,
        is_synchronised: true,
    };
    assert_eq!(servo.read(MonoTime(2 * MS), Some(read(MS, 2 * MS))), Followed::Unused);
    assert_eq!(servo.read(MonoTime(2 * MS), Some(read(2 * MS, MS))), Followed::Unused, "time that goes back");
    assert_eq!(servo.state(), ClockState::Local(Why::NotAsked));
}

#[test]
fn a_clock_that_cannot_be_read_any_more_is_lost() {
    // Either every read takes too long, or each says something else.
    for (read_ns, odd_ns) in [(6_000, 0), (100, 70_000)] {
        let config = ServoConfig { holdover: Nanos::from_secs(3), ..ServoConfig::default() };
        let mut world = World::new(config, MS);
        world.run(5);
        assert_eq!(world.servo.state(), ClockState::Locked);
        let spoil = |world: &mut World, reads: u32| {
            world.read_ns = read_ns;
            for number in 1..=i64::from(reads) {
                world.apart += number * odd_ns;
                world.step();
                world.apart -= number * odd_ns;
            }
            world.read_ns = 100;
        };
        spoil(&mut world, UNUSABLE_READS - 1);
        world.step();
        assert_eq!(world.servo.state(), ClockState::Locked, "a read that is of use came in time");
        spoil(&mut world, UNUSABLE_READS);
        assert!(matches!(world.servo.state(), ClockState::Holdover { why: Why::Unreadable, .. }));
        world.run(1);
        assert_eq!((world.servo.state(), world.servo.relocks()), (ClockState::Locked, 2), "it can be read again");
        spoil(&mut world, 5 * UNUSABLE_READS);
        assert_eq!(world.servo.state(), ClockState::FreeRun(Why::Unreadable), "holdover has its budget");
        world.run(1);
        assert_eq!(world.servo.state(), ClockState::Locked);
    }
    // One that never could be read says so, and is followed when it can.
    let mut world = World::new(ServoConfig::default(), MS);
    world.read_ns = 6_000;
    world.run(15);
    assert_eq!(world.servo.state(), ClockState::Local(Why::Unreadable));
    world.read_ns = 100;
    world.run(1);
    assert_eq!(world.servo.state(), ClockState::Locked);
}

#[test]
fn a_step_that_waits_long_for_its_boundary_is_no_unreadable_clock() {
    let mut world = World::new(ServoConfig::default(), 10 * SECOND);
    world.run(99);
    assert_eq!(world.told, [Followed::Pending], "not lost meanwhile");
    world.run(10);
    assert_eq!(world.servo.state(), ClockState::Locked);
}

#[test]
fn without_discipline_the_slots_run_by_the_local_clock_and_say_why() {
    let mut world = World::new(ServoConfig::default(), MS);
    world.has_offset = false;
    world.run(2);
    assert_eq!(world.servo.state(), ClockState::Local(Why::NoOffset));
    assert_eq!(world.servo.tai(MonoTime(world.mono)), TaiTime(world.mono));
    (world.has_offset, world.is_synchronised) = (true, false);
    world.run(2);
    assert_eq!(world.servo.state(), ClockState::Local(Why::Unsynchronised));
    // The offset is set late, and by 37 s: taken over at a boundary, and told.
    world.is_synchronised = true;
    world.apart += 37 * SECOND as i64;
    world.run(2);
    assert_eq!(world.servo.state(), ClockState::Locked);
    assert_eq!(world.moved.len(), 1);
    assert!(world.off_ns(MS) < 300);
    // Where TAI is not wanted, none of that counts.
    let mut local = World::new(ServoConfig { follows_tai: false, ..ServoConfig::default() }, MS);
    local.run(2);
    assert_eq!((local.servo.state(), local.told.len()), (ClockState::Local(Why::NotAsked), 0));
}

#[test]
fn holdover_has_a_budget_and_an_action() {
    for (after, state) in [
        (AfterHoldover::FreeRun, ClockState::FreeRun(Why::Unsynchronised)),
        (AfterHoldover::Keep, ClockState::Kept(Why::Unsynchronised)),
        (AfterHoldover::Halt, ClockState::Halted(Why::Unsynchronised)),
    ] {
        let config = ServoConfig { holdover: Nanos::from_secs(1), after, ..ServoConfig::default() };
        let mut world = World::new(config, MS);
        world.run(2);
        world.told.clear();
        world.is_synchronised = false;
        world.run(5);
        assert!(matches!(world.servo.state(), ClockState::Holdover { why: Why::Unsynchronised, .. }));
        assert!(world.off_ns(MS) < 300, "the offset stands still");
        world.run(6);
        assert_eq!(world.servo.state(), state);
        assert_eq!(world.told, [Followed::Lost(Why::Unsynchronised), Followed::HoldoverOver(after)]);
        world.is_synchronised = true;
        world.run(2);
        assert_eq!(world.servo.state(), ClockState::Locked);
    }
}

/// Half an hour of holdover: with the rate that was measured the phase stays; without it, it
/// would go by a tenth of a second.
#[test]
fn in_holdover_the_offset_goes_on_at_the_rate_that_it_had() {
    for drift_ppb in [-60_000, 0, 50_000] {
        let config = ServoConfig { holdover: Nanos::from_secs(3_600), ..ServoConfig::default() };
        let mut world = World::new(config, MS);
        world.drift_ppb = drift_ppb;
        world.run(200);
        let rate = world.servo.rate_ppb().expect("locked for long enough");
        assert!(rate.abs_diff(drift_ppb) <= 100, "{rate} of {drift_ppb}");
        world.has_offset = false;
        world.run(600);
        assert!(matches!(world.servo.state(), ClockState::Holdover { why: Why::NoOffset, .. }));
        // What is left of the estimate, over a minute.
        assert!(world.off_ns(MS) <= 8_000, "{} ns at {drift_ppb} ppb", world.off_ns(MS));
        assert!(world.off_ns(MS) <= world.servo.drift(Nanos::from_secs(60)).0 + 1_000);
        world.has_offset = true;
        world.run(2);
        assert_eq!(world.servo.state(), ClockState::Locked);
    }
}

#[test]
fn who_lost_the_clock_before_its_rate_was_known_ends_holdover_by_the_phase() {
    let most = Nanos::from_micros(100);
    let config = ServoConfig { phase_error: Some(most), after: AfterHoldover::Keep, ..ServoConfig::default() };
    let mut world = World::new(config, MS);
    world.run(2);
    assert_eq!(world.servo.rate_ppb(), None);
    world.is_synchronised = false;
    // 500 ppm of 200 ms are 100 us.
    world.run(2);
    assert!(matches!(world.servo.state(), ClockState::Holdover { .. }));
    world.run(1);
    assert_eq!(world.servo.state(), ClockState::Kept(Why::Unsynchronised));

    // With a steady rate the same budget lasts for ten seconds at least; a clock whose rate
    // varies uses it up sooner.
    let mut steady = World::new(config, MS);
    steady.drift_ppb = 40_000;
    steady.run(200);
    steady.is_synchronised = false;
    steady.run(100);
    assert!(matches!(steady.servo.state(), ClockState::Holdover { .. }), "{:?}", steady.servo.state());
    let mut restless = World::new(config, MS);
    for round in 0..10 {
        restless.drift_ppb = if round % 2 == 0 { 80_000 } else { -80_000 };
        restless.run(41);
    }
    restless.is_synchronised = false;
    restless.run(100);
    assert_eq!(restless.servo.state(), ClockState::Kept(Why::Unsynchronised));
}

#[test]
fn kept_slots_go_on_at_the_rate_and_free_running_ones_by_the_local_clock() {
    for (after, least, most) in [(AfterHoldover::Keep, 0, 8_000), (AfterHoldover::FreeRun, 300_000, 500_000)] {
        let config = ServoConfig { holdover: Nanos::from_secs(1), after, ..ServoConfig::default() };
        let mut world = World::new(config, MS);
        world.drift_ppb = 40_000;
        world.run(200);
        world.is_synchronised = false;
        world.run(110);
        assert!((least..most).contains(&world.off_ns(MS)), "{after:?}: {} ns", world.off_ns(MS));
    }
}

#[test]
fn without_a_cycle_every_step_is_one_of_the_phase() {
    let mut world = World::new(ServoConfig::default(), 0);
    world.run(2);
    world.apart += SECOND as i64;
    world.run(2);
    assert_eq!((world.servo.relocks(), world.servo.apart_ns()), (2, 0));
}
