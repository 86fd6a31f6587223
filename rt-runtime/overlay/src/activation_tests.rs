//! The two sides under loss, crashes, partitions and clocks that step, in virtual time.

use crate::activation::{
    Coordinator, Deed, Fate, Member, MemberLimits, Order, Outcome, ScheduleId, Timing, Word, gap_ns,
};
use insane_core::{MonoTime, TaiTime};
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

const ID: ScheduleId = ScheduleId(7);
const MS: u64 = 1_000_000;
const TAI: u64 = 1_000_000_000_000_000_000;

/// What goes wrong.
#[derive(Clone, Debug, Default)]
struct Faults {
    /// Of a hundred messages so many are lost.
    loss_percent: u64,
    /// Host and millisecond of its death.
    crash: Option<(usize, u64)>,
    /// Host, from and to in milliseconds: nothing passes.
    cut: Option<(usize, u64, u64)>,
    /// Host, millisecond, and by how much its TAI steps.
    step: Option<(usize, u64, i64)>,
    /// Host that refuses to stage.
    refuses: Option<usize>,
    /// Host whose datapath never takes over.
    stuck: Option<usize>,
    seed: u64,
}

struct Host {
    member: Member,
    alive: bool,
    armed: Option<MonoTime>,
    /// When the new schedule took over.
    took: Option<MonoTime>,
    tai_moved: i64,
}

struct World {
    coordinator: Coordinator,
    hosts: Vec<Host>,
    faults: Faults,
    random: u64,
}

impl World {
    fn new(hosts: usize, faults: Faults) -> World {
        let timing = Timing { cycle_ns: 8 * MS, ..Timing::default() };
        let host = || Host {
            member: Member::new(MemberLimits::default()),
            alive: true,
            armed: None,
            took: None,
            tai_moved: 0,
        };
        World {
            coordinator: Coordinator::new(ID, hosts, timing, MonoTime(0)),
            hosts: (0..hosts).map(|_| host()).collect(),
            random: faults.seed | 1,
            faults,
        }
    }

    fn passes(&mut self, host: usize, ms: u64) -> bool {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let lost = (self.random >> 33) % 100 < self.faults.loss_percent;
        let cut = self.faults.cut.is_some_and(|(cut, from, to)| cut == host && (from..to).contains(&ms));
        !lost && !cut && self.hosts[host].alive
    }

    fn carry(&mut self, host: usize, order: Order, now: MonoTime) -> Word {
        let refuses = self.faults.refuses == Some(host);
        let row = &mut self.hosts[host];
        let tai = TaiTime((TAI + now.0).wrapping_add_signed(row.tai_moved));
        let (word, deed) = match order {
            Order::Stage(id) => {
                let judged = if refuses { Err("no such link".into()) } else { Ok(()) };
                (row.member.stage(id, judged, now), None)
            }
            Order::Commit(id, at) => row.member.commit(id, at, now, tai),
            Order::Abort(id) => row.member.abort(id),
            Order::Ask(id) => (row.member.ask(id), None),
        };
        row.does(deed);
        word
    }

    /// Runs to the end, and a little longer; the outcome.
    fn run(&mut self) -> Outcome {
        let mut ended = None;
        for ms in 0..60_000 {
            let now = MonoTime(ms * MS);
            self.faults_at(ms);
            for (at, host) in self.hosts.iter_mut().enumerate().filter(|(_, host)| host.alive) {
                if let Some(armed) = host.armed
                    && armed <= now
                    && self.faults.stuck != Some(at)
                {
                    (host.took, host.armed) = (Some(armed), None);
                }
                let taken = host.took.is_some();
                let tai = TaiTime((TAI + now.0).wrapping_add_signed(host.tai_moved));
                let deed = host.member.poll(now, tai, taken);
                host.does(deed);
            }
            self.coordinator.poll(now, TaiTime(TAI + now.0));
            while let Some((host, order)) = self.coordinator.next_order() {
                if self.passes(host, ms) {
                    let word = self.carry(host, order, now);
                    if self.passes(host, ms) {
                        self.coordinator.heard(host, word);
                    }
                }
            }
            if self.coordinator.outcome().is_some() {
                ended.get_or_insert(ms);
            }
            if ended.is_some_and(|ended| ms > ended + 5_000) {
                break;
            }
        }
        assert!(ended.is_some(), "it never ends: {:?}", self.faults);
        self.coordinator.outcome().cloned().unwrap()
    }

    fn faults_at(&mut self, ms: u64) {
        if let Some((host, at)) = self.faults.crash
            && at == ms
        {
            self.hosts[host].alive = false;
            self.coordinator.lost(host, "the connection broke");
        }
        if let Some((host, at, by)) = self.faults.step
            && at == ms
        {
            self.hosts[host].tai_moved = by;
        }
    }

    fn took(&self) -> Vec<Option<MonoTime>> {
        self.hosts.iter().map(|host| host.took).collect()
    }
}

impl Host {
    fn does(&mut self, deed: Option<Deed>) {
        match deed {
            Some(Deed::Arm(at)) => self.armed = Some(at),
            Some(Deed::Disarm) => (self.armed, self.took) = (None, None),
            Some(Deed::Forget) | None => {}
        }
    }
}

#[test]
fn all_hosts_take_over_at_one_instant_that_is_a_boundary_of_the_cycle() {
    let mut world = World::new(3, Faults::default());
    let Outcome::Activated(at) = world.run() else { panic!("{:?}", world.coordinator.outcome()) };
    assert_eq!(at.0 % (8 * MS), 0);
    assert_eq!(world.took(), vec![Some(MonoTime(at.0 - TAI)); 3]);
    assert!(world.hosts.iter().all(|host| host.member.counts().activated == 1));
}

#[test]
fn a_host_that_refuses_is_named_and_nobody_changes() {
    let mut world = World::new(3, Faults { refuses: Some(1), ..Faults::default() });
    let Outcome::Aborted(fates) = world.run() else { panic!("{:?}", world.coordinator.outcome()) };
    assert_eq!(fates[1], Fate::Old("no such link".into()));
    assert_eq!(world.took(), [None; 3]);
    assert_eq!(world.hosts[0].member.counts().aborted, 1);
}

#[test]
fn all_that_refuse_within_a_second_are_told_and_who_had_not_answered_is_not_called_silent() {
    let timing = Timing::default();
    let mut coordinator = Coordinator::new(ID, 4, timing, MonoTime(0));
    let mut at = |ms: u64, said: &[(usize, &str)]| {
        coordinator.poll(MonoTime(ms * MS), TaiTime(TAI));
        said.iter().for_each(|(host, why)| coordinator.heard(*host, Word::Refused((*why).into())));
        coordinator.poll(MonoTime(ms * MS), TaiTime(TAI));
        std::iter::from_fn(|| coordinator.next_order()).any(|(_, order)| matches!(order, Order::Abort(_)))
    };
    assert!(!at(0, &[(0, "no such link")]), "the others are heard");
    assert!(!at(600, &[(2, "another rate")]));
    assert!(!at(999, &[]));
    assert!(at(1_000, &[]), "not for ever");
    coordinator.heard(3, Word::Aborted);
    coordinator.poll(MonoTime(1_000 * MS) + timing.patience, TaiTime(TAI));
    let Some(Outcome::Aborted(fates)) = coordinator.outcome() else { panic!("{:?}", coordinator.outcome()) };
    let why = |at: usize| match &fates[at] {
        Fate::Old(why) => why.as_str(),
        other => panic!("{other:?}"),
    };
    assert_eq!([why(0), why(2)], ["no such link", "another rate"]);
    assert!([1, 3].into_iter().all(|at| why(at).starts_with("it had not answered yet")), "{fates:?}");
    // All have spoken: there is nobody to wait for.
    let mut coordinator = Coordinator::new(ID, 2, timing, MonoTime(0));
    coordinator.heard(0, Word::Refused("no such link".into()));
    coordinator.heard(1, Word::Staged);
    coordinator.poll(MonoTime(0), TaiTime(TAI));
    assert_eq!(coordinator.next_order(), Some((0, Order::Abort(ID))));
}

#[test]
fn a_host_that_acknowledges_and_dies_takes_the_schedule_down_while_there_is_time() {
    let mut world = World::new(3, Faults { crash: Some((2, 600)), ..Faults::default() });
    let Outcome::Partly(_, fates) = world.run() else { panic!("{:?}", world.coordinator.outcome()) };
    // Nothing that lives has changed; of the dead one nobody can know.
    assert_eq!(world.took(), [None; 3]);
    assert_eq!(fates[2], Fate::Unknown("the connection broke".into()));
    assert!(fates[..2].iter().all(|fate| matches!(fate, Fate::Old(_))), "{fates:?}");
    assert_eq!(world.hosts[0].member.counts().aborted, 1);
}

#[test]
fn a_host_that_dies_past_recall_is_named_and_the_others_go_on() {
    let mut world = World::new(3, Faults { crash: Some((2, 1_800)), ..Faults::default() });
    let Outcome::Partly(at, fates) = world.run() else { panic!("{:?}", world.coordinator.outcome()) };
    assert_eq!(fates[..2], [Fate::InForce, Fate::InForce]);
    assert_eq!(fates[2], Fate::Unknown("the connection broke".into()));
    assert_eq!(world.took()[..2], [Some(MonoTime(at.0 - TAI)); 2]);
}

#[test]
fn a_host_that_acknowledges_and_falls_silent_takes_it_down_without_a_broken_connection() {
    let mut world = World::new(3, Faults { cut: Some((2, 300, 20_000)), ..Faults::default() });
    let Outcome::Partly(at, fates) = world.run() else { panic!("{:?}", world.coordinator.outcome()) };
    assert_eq!(fates[2], Fate::Unknown("it acknowledged the commit and fell silent".into()));
    // It lives and cannot hear: what nobody can prevent is told.
    assert_eq!(world.took(), [None, None, Some(MonoTime(at.0 - TAI))]);
}

#[test]
fn a_host_that_is_cut_off_before_it_acknowledges_takes_it_down() {
    let mut world = World::new(3, Faults { cut: Some((0, 0, 20_000)), ..Faults::default() });
    let Outcome::Aborted(fates) = world.run() else { panic!("{:?}", world.coordinator.outcome()) };
    assert_eq!(fates[0], Fate::Old("nothing was heard of it in time".into()));
    assert_eq!(world.took(), [None; 3]);
}

#[test]
fn clocks_that_step_by_37_s_or_hours_keep_the_old_schedule_and_say_so() {
    for by in [37_000_000_000, -37_000_000_000, 7_200_000_000_000, -7_200_000_000_000] {
        // While there is time it is taken back everywhere.
        let mut world = World::new(3, Faults { step: Some((1, 900, by)), ..Faults::default() });
        let Outcome::Aborted(fates) = world.run() else { panic!("{:?}", world.coordinator.outcome()) };
        assert!(matches!(&fates[1], Fate::Old(why) if why.contains("the clock stepped by")), "{fates:?}");
        assert_eq!(world.took(), [None; 3]);
        let mut world = World::new(3, Faults { step: Some((1, 1_800, by)), ..Faults::default() });
        let Outcome::Partly(_, fates) = world.run() else { panic!("{:?}", world.coordinator.outcome()) };
        assert!(matches!(&fates[1], Fate::Old(why) if why.contains("the clock stepped by")), "{fates:?}");
        assert_eq!(world.took()[1], None);
        assert!(world.hosts[1].member.failure().is_some());
        assert_eq!(world.hosts[1].member.counts().failed, 1);
    }
}

#[test]
fn a_clock_that_was_wrong_from_the_start_cannot_commit_and_nobody_changes() {
    for by in [37_000_000_000, -7_200_000_000_000] {
        let mut world = World::new(3, Faults { step: Some((1, 0, by)), ..Faults::default() });
        let outcome = world.run();
        let Outcome::Aborted(fates) = outcome else { panic!("{outcome:?}") };
        assert!(matches!(&fates[1], Fate::Old(why) if why.contains("instant")), "{fates:?}");
        assert_eq!(world.took(), [None; 3]);
    }
}

#[test]
fn a_datapath_that_does_not_take_over_is_told() {
    let mut world = World::new(2, Faults { stuck: Some(0), ..Faults::default() });
    let Outcome::Partly(_, fates) = world.run() else { panic!("{:?}", world.coordinator.outcome()) };
    assert!(matches!(&fates[0], Fate::Old(why) if why.contains("did not take it over")), "{fates:?}");
    assert_eq!(fates[1], Fate::InForce);
}

#[test]
fn what_is_staged_and_never_committed_is_forgotten_and_counted() {
    let mut member = Member::new(MemberLimits::default());
    assert_eq!(member.stage(ID, Ok(()), MonoTime(0)), Word::Staged);
    assert_eq!(member.stage(ID, Ok(()), MonoTime(1)), Word::Staged);
    assert_eq!(member.poll(MonoTime(29_000 * MS), TaiTime(0), false), None);
    assert_eq!(member.poll(MonoTime(31_000 * MS), TaiTime(0), false), Some(Deed::Forget));
    assert_eq!((member.counts().staged, member.counts().expired), (1, 1));
    let (word, deed) = member.commit(ID, TaiTime(TAI), MonoTime(0), TaiTime(TAI - 1_000 * MS));
    assert!(matches!(word, Word::Cannot(_)) && deed.is_none());
}

#[test]
fn while_one_schedule_is_armed_no_other_is_staged() {
    let mut member = Member::new(MemberLimits::default());
    let _ = member.stage(ID, Ok(()), MonoTime(0));
    let at = TaiTime(TAI + 1_000 * MS);
    assert_eq!(member.commit(ID, at, MonoTime(0), TaiTime(TAI)).1, Some(Deed::Arm(MonoTime(1_000 * MS))));
    assert_eq!(member.commit(ID, at, MonoTime(5), TaiTime(TAI + 5)), (Word::Committed, None));
    assert!(member.is_armed());
    assert!(matches!(member.stage(ScheduleId(8), Ok(()), MonoTime(6)), Word::Refused(_)));
    assert_eq!(member.abort(ScheduleId(8)), (Word::Aborted, None), "another one's abort touches nothing");
    assert_eq!(member.abort(ID), (Word::Aborted, Some(Deed::Disarm)));
}

/// Slots of both schedules written down around the boundary.
#[test]
fn what_is_in_force_is_known_whatever_becomes_of_the_next_one() {
    let (now, tai) = (MonoTime(0), TaiTime(TAI));
    let next = ScheduleId(8);
    let in_force = || {
        let mut member = Member::new(MemberLimits::default());
        let at = TaiTime(TAI + 100 * MS);
        assert_eq!(member.stage(ID, Ok(()), now), Word::Staged);
        assert_eq!(member.commit(ID, at, now, tai).0, Word::Committed);
        assert_eq!(member.poll(MonoTime(100 * MS), at, true), None);
        assert_eq!(member.ask(ID), Word::InForce);
        member
    };
    let (later, tai) = (MonoTime(200 * MS), TaiTime(TAI + 200 * MS));
    let staged = || {
        let mut member = in_force();
        assert_eq!(member.stage(next, Ok(()), later), Word::Staged);
        member
    };
    let armed = || {
        let mut member = staged();
        assert!(matches!(member.commit(next, TaiTime(tai.0 + 100 * MS), later, tai).1, Some(Deed::Arm(_))));
        member
    };
    let mut taken_back = [staged(), armed(), staged(), armed(), armed()];
    assert_eq!(taken_back[0].abort(next), (Word::Aborted, Some(Deed::Forget)));
    assert_eq!(taken_back[1].abort(next), (Word::Aborted, Some(Deed::Disarm)));
    let keeps = MonoTime(later.0 + MemberLimits::default().keeps.0);
    assert_eq!(taken_back[2].poll(keeps, tai, true), Some(Deed::Forget), "nobody committed it");
    assert!(taken_back[3].failed("no table").is_some());
    assert_eq!(taken_back[4].poll(later, TaiTime(tai.0 + 37_000 * MS), false), Some(Deed::Disarm), "a step");
    for (at, member) in taken_back.iter_mut().enumerate() {
        assert_eq!(member.ask(ID), Word::InForce, "{at}");
        assert_eq!(member.abort(ID), (Word::InForce, None), "{at}: it stays");
        assert!(matches!(member.ask(next), Word::Cannot(_)), "{at}");
    }
    // The next one takes its place.
    let mut member = armed();
    let _ = member.poll(MonoTime(300 * MS), TaiTime(TAI + 300 * MS), true);
    assert_eq!((member.ask(next), matches!(member.ask(ID), Word::Cannot(_))), (Word::InForce, true));
}

#[test]
fn the_gap_is_what_the_slots_leave() {
    for (old, new) in [((0, 4), (0, 4)), ((3, 4), (1, 8)), ((0, 4), (3, 4)), ((1, 2), (7, 8)), ((9, 4), (0, 2))] {
        let boundary = 800_i64;
        let starts = |(start, period): (u64, u64)| {
            (0..2_000_i64).filter(move |at| (at - start as i64).rem_euclid(period as i64) == 0)
        };
        let last = starts(old).filter(|at| *at < boundary).max().unwrap();
        let next = starts(new).filter(|at| *at >= boundary).min().unwrap();
        let (gap, extension) = gap_ns(old, new);
        assert_eq!(gap as i64, next - last, "{old:?} {new:?}");
        assert!(gap <= old.1.max(new.1) + extension);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever is lost: who takes over does so at the one instant, an outcome that says
    /// "all" means all, and one that says "none" means none.
    #[test]
    fn no_two_hosts_take_over_at_different_instants_and_outcomes_are_true(
        hosts in 1..5_usize,
        loss_percent in 0..70_u64,
        crash in prop::option::of((0..5_usize, 0..4_000_u64)),
        cut in prop::option::of((0..5_usize, 0..4_000_u64, 0..4_000_u64)),
        step in prop::option::of((0..5_usize, 0..4_000_u64, prop::sample::select(vec![37_000_000_000_i64, -37_000_000_000, 3_600_000_000_000]))),
        seed: u64,
    ) {
        let crash = crash.map(|(host, at)| (host % hosts, at));
        let cut = cut.map(|(host, from, length)| (host % hosts, from, from + length));
        let step = step.map(|(host, at, by)| (host % hosts, at, by));
        let mut world = World::new(hosts, Faults { loss_percent, crash, cut, step, seed, ..Faults::default() });
        let outcome = world.run();
        let took: Vec<MonoTime> = world.took().into_iter().flatten().collect();
        // A stepped clock counts from its own TAI; the member refuses, so nobody differs.
        prop_assert!(took.windows(2).all(|pair| pair[0] == pair[1]), "{took:?}");
        match outcome {
            Outcome::Activated(at) => {
                prop_assert_eq!(took, vec![MonoTime(at.0 - TAI); hosts]);
            }
            Outcome::Aborted(_) => prop_assert!(took.is_empty(), "{:?}", took),
            Outcome::Partly(at, fates) => {
                for (host, fate) in world.hosts.iter().zip(&fates) {
                    match fate {
                        Fate::InForce => prop_assert_eq!(host.took, Some(MonoTime(at.0 - TAI))),
                        Fate::Old(_) => prop_assert_eq!(host.took, None),
                        Fate::Unknown(_) => {}
                    }
                }
            }
        }
    }
}
