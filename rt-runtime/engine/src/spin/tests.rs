//! Waits in virtual time: somebody who does what its budget says, on a machine where a sleep
//! costs what it costs.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

/// Between two looks.
const LOOK: Nanos = Nanos(100);
/// Longer than anything that a budget may cover.
const LONG: Nanos = Nanos::from_millis(10);

struct Waiter {
    now: MonoTime,
    /// From the beginning of a sleep to its end, where what ends it is there already.
    cost: Nanos,
    spin: SpinBudget,
    spun: u64,
    sleeps: u64,
}

impl Waiter {
    fn new(cost: Nanos, max: Nanos) -> Self {
        Waiter { now: MonoTime(1_000_000_000), cost, spin: SpinBudget::new(max), spun: 0, sleeps: 0 }
    }

    /// Something comes after so long; says how long it looked.
    fn wait(&mut self, length: Nanos) -> u64 {
        let (since, comes) = (self.now, self.now + length);
        while self.now < comes && self.spin.looks_on(self.now) {
            self.now += LOOK;
        }
        let spun = self.now.since(since).0;
        if self.now < comes {
            let from = self.now;
            self.now = comes.max(from) + self.cost;
            self.spin.slept(from, self.now, true);
            self.sleeps += 1;
        }
        self.spin.found();
        self.spun += spun;
        spun
    }

    fn waits(&mut self, count: u32, length: Nanos) {
        for _ in 0..count {
            self.wait(length);
        }
    }
}

fn us(us: u64) -> Nanos {
    Nanos::from_micros(us)
}

#[test]
fn who_waits_long_soon_does_not_look_at_all() {
    let mut idle = Waiter::new(us(10), us(50));
    idle.waits(SETTLES_VAIN, LONG);
    assert_eq!(idle.spin.get(), Nanos::ZERO);
    let spun = idle.spun;
    assert!(spun <= u64::from(VAIN_RUN + 1) * (us(50).0 + LOOK.0), "{spun}");
    idle.waits(10_000, LONG);
    assert_eq!((idle.spun, idle.sleeps), (spun, 10_000 + u64::from(SETTLES_VAIN)));
}

#[test]
fn who_waits_shortly_looks_and_does_not_sleep() {
    let mut busy = Waiter::new(us(10), us(50));
    busy.waits(1_000, us(5));
    assert_eq!(busy.sleeps, 0, "from the beginning on");
    busy.waits(100, LONG);
    busy.sleeps = 0;
    busy.waits(1_000, us(5));
    assert!(busy.sleeps <= 2, "and after a rest: {} sleeps", busy.sleeps);
    let spun = busy.spun;
    busy.waits(SETTLES_VAIN, LONG);
    assert!(busy.spun - spun <= u64::from(VAIN_RUN + 1) * (us(50).0 + LOOK.0), "and back");
    assert_eq!(busy.spin.get(), Nanos::ZERO);
}

#[test]
fn bursts_with_rests_between_them_are_looked_through() {
    let mut bursts = Waiter::new(us(10), us(50));
    bursts.waits(100, LONG);
    bursts.sleeps = 0;
    (0..100).for_each(|_| {
        bursts.waits(3, us(8));
        bursts.wait(us(1_000));
    });
    // One for each rest, and those by which it learns.
    assert!(bursts.sleeps <= 100 + u64::from(SETTLES_SHORT), "{}", bursts.sleeps);
}

#[test]
fn who_would_look_for_longer_than_a_sleep_costs_sleeps() {
    let mut spun = Vec::new();
    for cost in [5, 20] {
        let mut waiter = Waiter::new(us(cost), us(50));
        // Sleeps that end as soon as they began, one of four: then the cost is seen.
        for at in 0..800 {
            let just_missed = Nanos(waiter.spin.get().0 + LOOK.0);
            waiter.wait(if at % 4 == 0 { just_missed } else { us(700) });
        }
        let found = waiter.spin.cost().0;
        assert!((us(cost).0 * 3 / 4..=us(cost).0 * 3 / 2).contains(&found), "{found} ns, and it is {cost} us");
        spun.push(waiter.wait(us(80)));
        waiter.waits(100, us(80));
        assert_eq!(waiter.wait(us(80)), 0, "it sleeps at once");
    }
    assert!(spun[0] < us(16).0, "{spun:?}");
}

/// One asks another who sleeps: the answer takes a wake-up, and some work.
#[test]
fn an_answer_of_somebody_who_has_to_be_woken_is_looked_for() {
    for cost in [5, 10, 20, 30] {
        let mut asker = Waiter::new(us(cost), us(50));
        let mut answer = Nanos::ZERO;
        for at in 0..20_000_u64 {
            // One in ten takes long, and one of those comes when it has just begun to sleep.
            answer = Nanos(us(cost).0 + (at * 7 % 11) * us(cost).0 / 40);
            let just_missed = Nanos(asker.spin.get().0 + LOOK.0);
            asker.wait(match at % 100 {
                50 => just_missed,
                at if at % 10 == 0 => us(40 + at),
                _ => answer,
            });
        }
        asker.sleeps = 0;
        asker.waits(1_000, answer);
        assert!(asker.sleeps <= u64::from(SETTLES_SHORT), "{} sleeps where one costs {cost} us", asker.sleeps);
    }
}

#[test]
fn the_cost_follows_both_ways_and_believes_neither_too_much_nor_too_little() {
    let mut spin = SpinBudget::new(us(1_000_000));
    assert_eq!((spin.get(), spin.cost()), (Nanos(2 * COST_START.0), COST_START));
    let learn = |spin: &mut SpinBudget, length: Nanos, count: u32| (0..count).for_each(|_| spin.learn(length));
    // Neither was a wake-up.
    learn(&mut spin, Nanos(COST_MIN.0 - 1), 1_000);
    learn(&mut spin, Nanos(COST_MAX.0 + 1), 1_000);
    assert_eq!(spin.cost(), COST_START);
    learn(&mut spin, us(60), 1_000);
    assert!((us(59)..=us(60)).contains(&spin.cost()), "{:?}", spin.cost());
    learn(&mut spin, us(7), 1_000);
    assert!((us(7)..us(8)).contains(&spin.cost()), "{:?}", spin.cost());
    learn(&mut spin, COST_MIN, 1_000);
    assert!((COST_MIN..us(3)).contains(&spin.cost()), "{:?}", spin.cost());
    learn(&mut spin, COST_MAX, 3_000);
    assert!((us(99)..=COST_MAX).contains(&spin.cost()), "{:?}", spin.cost());
    // One in a hundred that is shorter by chance takes little away.
    (0..100).for_each(|_| {
        learn(&mut spin, COST_MIN, 1);
        learn(&mut spin, us(95), 99);
    });
    assert!(spin.cost() > us(80), "{:?}", spin.cost());
}

#[test]
fn a_wait_is_looked_through_once_whatever_ends_its_sleeps() {
    let mut spin = SpinBudget::new(us(50));
    let mut now = MonoTime(1_000);
    assert!(spin.looks_on(now));
    now += us(50);
    assert!(!spin.looks_on(now));
    for is_woken in [true, false, true] {
        spin.slept(now, now + us(5), is_woken);
        now += us(5);
        assert!(!spin.looks_on(now), "nothing was there, so it sleeps on");
    }
    spin.found();
    assert!(spin.looks_on(now), "the next wait");
}

#[test]
fn who_gives_up_while_it_looks_learns_nothing_and_later_that_it_was_in_vain() {
    let mut spin = SpinBudget::new(us(50));
    let mut now = MonoTime(1_000);
    for sleeps in [false, true] {
        for _ in 0..SETTLES_VAIN {
            let _ = spin.looks_on(now);
            if sleeps {
                spin.slept(now + us(30), now + us(1_000), false);
            }
            spin.give_up();
            now += us(2_000);
        }
        assert_eq!(spin.get(), if sleeps { Nanos::ZERO } else { us(50) });
    }
    assert_eq!(spin.cost(), COST_START, "sleeps that their time ended");
}

/// Anything that may be told to a budget, in any order.
#[derive(Clone, Copy, Debug)]
enum Told {
    Nothing(u64),
    Slept(u64, u64, bool),
    Found,
    GaveUp,
}

fn told() -> impl Strategy<Value = Told> {
    prop_oneof![
        (0..400_000_u64).prop_map(Told::Nothing),
        (0..400_000_u64, 0..400_000_u64, any::<bool>())
            .prop_map(|(from, until, woken)| Told::Slept(from, until, woken)),
        Just(Told::Found),
        Just(Told::GaveUp),
    ]
}

/// How long waits are: mostly near what a sleep costs, where mistakes are dear.
fn lengths(count: usize) -> impl Strategy<Value = Vec<Nanos>> {
    let length =
        prop_oneof![1..10_u64, 1..200_u64, 1..1_500_u64, Just(LONG.0 / LOOK.0)].prop_map(|looks| looks * LOOK.0);
    vec((length, prop_oneof![1..14_usize, 50..80_usize]), 0..count)
        .prop_map(|runs| runs.into_iter().flat_map(|(length, times)| vec![Nanos(length); times]).collect())
}

/// Each looks as if looking for the whole limit would have been of use: nobody knows what of a sleep
/// was the wake-up.
#[test]
fn waits_that_are_a_little_too_long_are_seldom_looked_through() {
    for (cost, length) in [2, 10, 20, 30].into_iter().flat_map(|cost| (55..125).step_by(5).map(move |us| (cost, us))) {
        let mut waiter = Waiter::new(us(cost), us(50));
        waiter.waits(20_000, us(length));
        assert!(waiter.spun < 20_000 * us(7).0, "{} ns in all of waits of {length} us", waiter.spun);
    }
}

proptest! {
    #[test]
    fn nothing_that_is_told_leads_beyond_the_bounds(max in 0..2_000_000_u64, all in vec(told(), 0..300)) {
        let mut spin = SpinBudget::new(Nanos(max));
        for one in all {
            match one {
                Told::Nothing(at) => {
                    let looks = spin.looks_on(MonoTime(at));
                    prop_assert!(!looks || spin.get() > Nanos::ZERO);
                }
                // Clocks that go backwards, too.
                Told::Slept(from, until, woken) => spin.slept(MonoTime(from), MonoTime(until), woken),
                Told::Found => spin.found(),
                Told::GaveUp => spin.give_up(),
            }
            prop_assert!((COST_MIN..=COST_MAX).contains(&spin.cost()));
            prop_assert!(spin.get() <= spin.limit() && spin.limit() <= Nanos(max));
        }
    }

    #[test]
    fn from_wherever_it_settles_in_the_stated_number_of_waits(
        cost in 2_000..30_000_u64,
        max in 1_000..200_000_u64,
        before in lengths(10),
    ) {
        let mut waiter = Waiter::new(Nanos(cost), Nanos(max));
        for length in before {
            waiter.wait(length);
        }
        let mut idle = Waiter { spin: waiter.spin, spun: 0, sleeps: 0, ..waiter };
        let limit = idle.spin.limit();
        idle.waits(SETTLES_VAIN, LONG);
        prop_assert_eq!(idle.spin.get(), Nanos::ZERO);
        idle.waits(50, LONG);
        prop_assert!(idle.spun <= u64::from(VAIN_RUN + 1) * (limit.0 + LOOK.0));
        // So that looking is better than sleeping.
        let short = Nanos(cost.min(max) * 3 / 4);
        idle.sleeps = 0;
        idle.waits(100, short);
        let most = u64::from(SETTLES_SHORT + PATIENCE_MAX);
        prop_assert!(idle.sleeps <= most, "{} sleeps of waits of {:?}", idle.sleeps, short);
    }

    #[test]
    fn no_sequence_of_waits_costs_much_more_than_it_must(
        cost in 2_000..30_000_u64,
        costs in 1..=2_u64,
        all in lengths(15),
    ) {
        // The limit is so many costs of a sleep at most.
        let mut waiter = Waiter::new(Nanos(cost), Nanos(costs * cost));
        let mut least = 0;
        for length in all {
            waiter.wait(length);
            least += length.0.min(cost);
        }
        let paid = waiter.spun + waiter.sleeps * cost;
        // The looks are a little apart.
        let looks = (waiter.sleeps + 1) * LOOK.0;
        prop_assert!(paid <= (2 + costs) * least + u64::from(SETTLES_SHORT) * cost + looks, "{paid} of {least}");
    }
}
