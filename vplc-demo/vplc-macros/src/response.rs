//! Response times of fixed-priority tasks on one core with immediate-ceiling locks.
//!
//! `w = B + C + sum over others of at least that priority: ceil((w + J) / T) * C`, and the
//! response time is `w + J` (Audsley, Burns, Richardson, Tindell, Wellings, "Applying new
//! scheduling theory to static priority pre-emptive scheduling", 1993; release jitter and
//! ceilings as there). `J` is the lateness of wake-ups, `B` the longest lock that a less
//! urgent task may hold under a ceiling of at least this priority; with immediate ceilings
//! a task is blocked once. Tasks of one priority run in turn and count as interference of
//! each other. Deadlines are within periods, so the first instance is the worst. A task that is
//! spawned counts as one with its interval as its period. One that looks at the clock before its
//! instant takes that time from others too, and none from itself: when it is due, that is over.
//!
//! That ignores offsets, which is safe and sometimes too strict. A task that fails it is looked
//! at once more, with offsets, where it has one, and there are not too many phases ([`grid`]).
//!
//! [`grid`]: Set::on_grid

/// Phases that are looked at with offsets; where there are more, offsets are ignored.
const PHASES_MAX: u128 = 100_000;
/// Steps of the search for the longest time that a core is never free.
const STEPS_MAX: usize = 10_000;

/// Longer than that no core is looked at, nanoseconds.
const BUSY_MAX: u128 = u64::MAX as u128;

/// One task; times in nanoseconds.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// A larger number is more urgent; 0 is idle.
    pub priority: u8,
    /// Between two activations.
    pub cycle: u64,
    /// From activation to end.
    pub deadline: u64,
    /// Longest execution.
    pub wcet: u64,
    /// Longest look at the clock before its instant: the time of those that are less urgent.
    pub spin: u64,
    /// Longest time it holds any lock.
    pub lock: u64,
    /// Resources that it locks.
    pub resources: Vec<String>,
    /// Where it is on the grid that it shares with all others that have one; `None`: anywhere.
    pub offset: Option<u64>,
}

impl Task {
    /// One that has done its work when it is due again, takes no locks, does not spin and may be
    /// anywhere on the grid.
    pub fn plain(name: impl Into<String>, priority: u8, cycle: u64, wcet: u64) -> Task {
        let (deadline, resources) = (cycle, Vec::new());
        Task { name: name.into(), priority, cycle, deadline, wcet, spin: 0, lock: 0, resources, offset: None }
    }

    /// What it takes from others each time.
    fn takes(&self) -> u64 {
        self.wcet.saturating_add(self.spin)
    }

    /// In what.
    fn does(&self) -> String {
        let what = if self.spin > 0 { "spins and runs" } else { "runs" };
        format!("{} {what}", self.name)
    }
}

/// Everything on the core.
#[derive(Clone, Debug, Default)]
pub struct Set {
    /// The tasks, the datapath among them.
    pub tasks: Vec<Task>,
    /// What idle may hold: the longest lock, and its resources.
    pub idle: Option<(u64, Vec<String>)>,
    /// How late a wake-up may be.
    pub jitter: u64,
}

/// What a task's response time is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response {
    /// All of it; if it is beyond the deadline, it may be longer still.
    pub total: u64,
    /// By a less urgent task: how long, who, holding what.
    pub blocked: Option<(u64, String, String)>,
    /// By tasks of at least this priority: who does what, how often, how long each time.
    pub others: Vec<(String, u64, u64)>,
    /// How much of this is over before the activation; with offsets only.
    pub before: u64,
}

impl Set {
    /// The priority up to which a lock of a resource raises.
    fn ceiling(&self, resource: &str) -> u8 {
        let users = self.tasks.iter().filter(|task| task.resources.iter().any(|used| used == resource));
        users.map(|task| task.priority).max().unwrap_or(0)
    }

    fn blocked(&self, priority: u8) -> Option<(u64, String, String)> {
        let lower = self.tasks.iter().filter(|task| task.priority < priority);
        let holders = lower.map(|task| (task.lock, task.name.as_str(), &task.resources));
        let idle = self.idle.iter().map(|(lock, resources)| (*lock, "idle", resources));
        let mut longest: Option<(u64, String, String)> = None;
        for (lock, name, resources) in holders.chain(idle) {
            let held = resources.iter().find(|resource| self.ceiling(resource) >= priority);
            if let Some(held) = held
                && longest.as_ref().is_none_or(|longest| lock > longest.0)
            {
                longest = Some((lock, name.to_owned(), held.clone()));
            }
        }
        longest
    }

    /// The response time of a task of the set, by its place.
    pub fn response(&self, at: usize) -> Response {
        let anywhere = self.anywhere(at);
        if anywhere.total <= self.tasks[at].deadline {
            return anywhere;
        }
        self.on_grid(at).unwrap_or(anywhere)
    }

    /// Wherever the others are. The search ends beyond the deadline, so it is bounded by it.
    fn anywhere(&self, at: usize) -> Response {
        let task = &self.tasks[at];
        let blocked = self.blocked(task.priority);
        let others = || {
            let all = self.tasks.iter().enumerate();
            all.filter(|(other, each)| *other != at && each.priority >= task.priority).map(|(_, each)| each)
        };
        let times = |window: u64, other: &Task| window.saturating_add(self.jitter).div_ceil(other.cycle.max(1)).max(1);
        let own = task.wcet.saturating_add(blocked.as_ref().map_or(0, |blocked| blocked.0));
        let mut window = own;
        loop {
            let demand =
                others().fold(own, |sum, other| sum.saturating_add(times(window, other).saturating_mul(other.takes())));
            let total = demand.saturating_add(self.jitter);
            if demand == window || total > task.deadline {
                let others = others().map(|other| (other.does(), times(window, other), other.takes())).collect();
                return Response { total, blocked, others, before: 0 };
            }
            // It grows by at least a nanosecond, and is below the deadline.
            window = demand;
        }
    }

    /// With the offsets of those that have one, or `None`.
    ///
    /// The job that is looked at arrives at `a`. Let `s` be when the core last began to work for
    /// its priority or above. What was released before `s` is done; what was released since
    /// arrived at `s - J` or later. Moved to the latest instant at which it still sees the same
    /// first arrival `b` (`s = b + J`, `b <= a`), the window sees no fewer jobs and ends no
    /// earlier. So these are all instants to look at, for each job within the hyperperiod, and
    /// for each `b` from which the core may be busy until `a`; tasks that may be anywhere count
    /// as often as they can. (The candidates are those of Palencia and Gonzalez Harbour,
    /// "Schedulability analysis for tasks with static and dynamic offsets", 1998, for one
    /// transaction; blocking as above.)
    fn on_grid(&self, at: usize) -> Option<Response> {
        let task = &self.tasks[at];
        let own_offset = u128::from(task.offset?);
        let window = Window::new(self, at)?;
        let grid = window.grid.iter();
        let mut beat = 1_u128;
        for each in grid.clone() {
            beat = beat / gcd(beat, u128::from(each.cycle)) * u128::from(each.cycle);
            if beat / u128::from(task.cycle) > PHASES_MAX {
                return None;
            }
        }
        let reach = window.busy()? + window.jitter;
        let jobs = beat / u128::from(task.cycle);
        let candidates: u128 = grid.clone().map(|each| reach / u128::from(each.cycle) + 1).sum();
        if candidates.checked_mul(jobs)? > PHASES_MAX {
            return None;
        }
        // Late enough that nothing of interest is before 0.
        let late = (reach / beat + 1) * beat;
        let mut worst: Option<Response> = None;
        for job in 0..jobs {
            let arrival = late + own_offset + job * u128::from(task.cycle);
            for each in grid.clone() {
                let (cycle, offset) = (u128::from(each.cycle), u128::from(each.offset?));
                let mut first = arrival.checked_sub((arrival - offset) % cycle);
                while let Some(begins) = first.filter(|begins| begins + reach >= arrival) {
                    let response = window.response(begins, arrival);
                    let is_worse = worst.as_ref().is_none_or(|worst| response.total > worst.total);
                    let is_beyond = response.total > task.deadline;
                    worst = if is_worse { Some(response) } else { worst };
                    if is_beyond {
                        return worst;
                    }
                    first = begins.checked_sub(cycle);
                }
            }
        }
        worst
    }
}

/// What a task competes with, for the analysis with offsets.
struct Window<'a> {
    task: &'a Task,
    blocked: Option<(u64, String, String)>,
    jitter: u128,
    /// Those of at least its priority that have offsets, itself among them.
    grid: Vec<&'a Task>,
    /// Those that may be anywhere.
    free: Vec<&'a Task>,
}

impl<'a> Window<'a> {
    fn new(set: &'a Set, at: usize) -> Option<Self> {
        let task = &set.tasks[at];
        let above = set.tasks.iter().filter(|each| each.priority >= task.priority);
        let (grid, free) = above.partition(|each: &&Task| each.offset.is_some());
        let blocked = set.blocked(task.priority);
        set.tasks.iter().all(|each| each.cycle > 0).then(|| Window {
            task,
            blocked,
            jitter: set.jitter.into(),
            grid,
            free,
        })
    }

    fn blocking(&self) -> u128 {
        self.blocked.as_ref().map_or(0, |blocked| blocked.0.into())
    }

    fn free_times(&self, each: &Task, window: u128) -> u128 {
        (window + self.jitter).div_ceil(each.cycle.into())
    }

    /// The longest time for which the core is never free for less urgent tasks.
    fn busy(&self) -> Option<u128> {
        let mut window = 1;
        for _ in 0..STEPS_MAX {
            let all = self.grid.iter().chain(&self.free);
            let demand = self.blocking() + work(all.map(|each| (self.free_times(each, window), each.wcet)));
            if demand <= window {
                return Some(window);
            }
            window = demand;
            if window > BUSY_MAX {
                return None;
            }
        }
        None
    }

    /// Of the job that arrives at `arrival`, if the core is busy from when what arrived at
    /// `first`, latest, was released.
    fn response(&self, first: u128, arrival: u128) -> Response {
        let begins = first + self.jitter;
        let limit = u128::from(self.task.deadline);
        let is_own = |each: &Task| std::ptr::eq(each, self.task);
        let times = |each: &Task, window: u128| {
            let ends = if is_own(each) { arrival + 1 } else { begins + window };
            arrivals(each, ends) - arrivals(each, first)
        };
        let mut window = 1;
        loop {
            let on_grid = work(self.grid.iter().map(|each| (times(each, window), each.wcet)));
            let free = work(self.free.iter().map(|each| (self.free_times(each, window), each.wcet)));
            let demand = self.blocking() + on_grid + free;
            let total = (begins + demand).saturating_sub(arrival);
            if demand <= window || total > limit {
                let on_grid = self.grid.iter().map(|each| (each, times(each, window) - u128::from(is_own(each))));
                let free = self.free.iter().map(|each| (each, self.free_times(each, window)));
                let others = on_grid.chain(free).filter(|(_, times)| *times > 0);
                let others = others.map(|(each, times)| (each.does(), narrow(times), each.wcet)).collect();
                let (total, before) = (narrow(total), narrow(arrival - first));
                return Response { total, blocked: self.blocked.clone(), others, before };
            }
            window = demand;
        }
    }
}

/// How long so many jobs take; of any numbers, no more than can be added up further.
fn work(jobs: impl Iterator<Item = (u128, u64)>) -> u128 {
    jobs.fold(0, |sum: u128, (times, wcet)| sum.saturating_add(times.saturating_mul(wcet.into()))).min(BUSY_MAX * 2)
}

/// How often a task on the grid arrives before an instant.
fn arrivals(task: &Task, before: u128) -> u128 {
    let offset = u128::from(task.offset.unwrap_or(0));
    before.saturating_sub(offset).div_ceil(task.cycle.into())
}

fn gcd(one: u128, other: u128) -> u128 {
    if other == 0 { one } else { gcd(other, one % other) }
}

fn narrow(ns: u128) -> u64 {
    u64::try_from(ns).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_textbook_example_comes_out() {
        // Periods 7, 12, 20 and times 3, 3, 5: response times 3, 6, 20 (Burns and Wellings).
        let tasks = vec![Task::plain("a", 3, 7, 3), Task::plain("b", 2, 12, 3), Task::plain("c", 1, 20, 5)];
        let set = Set { tasks, ..Set::default() };
        assert_eq!([0, 1, 2].map(|at| set.response(at).total), [3, 6, 20]);
        let mut full = set.clone();
        full.tasks[2].wcet = 6;
        assert!(full.response(2).total > 20, "one unit more does not fit");
        assert_eq!(set.response(2).others, [("a runs".to_owned(), 3, 3), ("b runs".to_owned(), 2, 3)]);
    }

    #[test]
    fn a_lock_blocks_whoever_is_below_its_ceiling() {
        let mut set = Set {
            tasks: vec![
                Task::plain("high", 3, 100, 10),
                Task::plain("mid", 2, 100, 10),
                Task::plain("low", 1, 100, 10),
            ],
            ..Set::default()
        };
        set.tasks[0].resources = vec!["level".into()];
        set.tasks[2].resources = vec!["level".into()];
        set.tasks[2].lock = 4;
        assert_eq!(set.response(0).total, 14);
        assert_eq!(set.response(1).total, 24, "the ceiling is above it, too");
        assert_eq!(set.response(2).blocked, None);
        set.tasks[0].resources.clear();
        assert_eq!(set.response(1).blocked, None, "the ceiling is the lock's own task");
        set.idle = Some((7, vec!["level".into()]));
        assert_eq!(set.response(2).blocked, Some((7, "idle".into(), "level".into())));
    }

    #[test]
    fn one_priority_runs_in_turn_and_jitter_counts() {
        let set =
            Set { tasks: vec![Task::plain("a", 1, 50, 10), Task::plain("b", 1, 50, 15)], jitter: 5, ..Set::default() };
        assert_eq!([0, 1].map(|at| set.response(at).total), [30, 30]);
        let jitter =
            Set { tasks: vec![Task::plain("a", 2, 10, 4), Task::plain("b", 1, 100, 6)], jitter: 1, ..Set::default() };
        // w = 6 + ceil((w + 1) / 10) * 4: 10 -> 14 -> 14.
        assert_eq!(jitter.response(1).total, 15);
    }

    #[test]
    fn absurd_numbers_end() {
        let mut set = Set {
            tasks: vec![Task::plain("a", 2, 1, u64::MAX), Task::plain("b", 1, u64::MAX, u64::MAX)],
            ..Set::default()
        };
        set.jitter = u64::MAX;
        assert_eq!(set.response(1).total, u64::MAX);
    }

    #[test]
    fn offsets_keep_tasks_out_of_each_others_way() {
        let mut set =
            Set { tasks: vec![Task::plain("high", 2, 10, 6), Task::plain("low", 1, 20, 3)], ..Set::default() };
        set.tasks[1].deadline = 5;
        assert_eq!(set.response(1).total, 9, "beside it");
        (set.tasks[0].offset, set.tasks[1].offset) = (Some(0), Some(6));
        assert_eq!(set.response(1).total, 3);
        set.jitter = 1;
        // The one before may be released 1 late, and run until 7; this one is activated at 6.
        let late = set.response(1);
        assert_eq!((late.total, late.before, late.others), (4, 6, vec![("high runs".to_owned(), 1, 6)]));
        set.jitter = 2;
        assert!(set.response(1).total > 5, "the next one of the other comes before its end");
        set.jitter = 1;
        set.tasks[0].offset = None;
        assert!(set.response(1).total > 5, "a spawned one may come at any time");
    }

    /// Jobs that are released late, and spawned ones at any time: none is slower than told.
    #[test]
    fn no_simulated_schedule_with_offsets_is_slower() {
        let mut seed = 11_u64;
        let mut draw = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let (mut gained, mut nearest) = (0, 0);
        for _ in 0..3_000 {
            let jitter = draw(3);
            let mut tasks: Vec<Task> = (0..4)
                .map(|at| {
                    Task::plain(
                        at.to_string(),
                        4 - (at as u8) / 2 - (at as u8) % 2,
                        [10, 20, 40, 30][draw(4) as usize],
                        1 + draw(6),
                    )
                })
                .collect();
            let spawned = draw(4) as usize;
            for (at, each) in tasks.iter_mut().enumerate() {
                each.offset = (at != spawned).then(|| draw(each.cycle));
                each.deadline = 1 + draw(each.cycle);
            }
            let set = Set { tasks, jitter, idle: Some((0, vec![])) };
            let told: Vec<Response> = (0..4).map(|at| set.response(at)).collect();
            if (0..4).any(|at| told[at].total > set.tasks[at].deadline) {
                continue;
            }
            let by_offsets: Vec<usize> =
                (0..4).filter(|at| set.anywhere(*at).total > set.tasks[*at].deadline).collect();
            gained += usize::from(!by_offsets.is_empty());
            // Left to do, when it arrived, when it is released, and when the next arrives.
            let mut jobs: Vec<(u64, u64, u64, u64)> =
                set.tasks.iter().map(|each| (0, 0, 0, each.offset.unwrap_or_else(|| draw(30)))).collect();
            let mut running: Option<usize> = None;
            for now in 0..2_000 {
                for (at, each) in set.tasks.iter().enumerate() {
                    if now == jobs[at].3 {
                        assert_eq!(jobs[at].0, 0, "the one before is done: {set:?}");
                        let (late, more) = match each.offset {
                            Some(_) => (draw(jitter + 1), 0),
                            None => (0, if draw(2) == 0 { 0 } else { draw(25) }),
                        };
                        jobs[at] = (each.wcet, now, now + late, now + each.cycle + more);
                    }
                }
                let ready = (0..4).filter(|at| jobs[*at].0 > 0 && jobs[*at].2 <= now);
                // Of one priority, the one that runs goes on.
                running = ready.max_by_key(|at| (set.tasks[*at].priority, running == Some(*at)));
                if let Some(at) = running {
                    jobs[at].0 -= 1;
                    let took = now + 1 - jobs[at].1;
                    assert!(jobs[at].0 > 0 || took <= told[at].total, "{at} {took} {told:?} {set:?}");
                    nearest += usize::from(jobs[at].0 == 0 && by_offsets.contains(&at) && took == told[at].total);
                }
            }
        }
        assert!(gained > 50 && nearest > 50, "{gained} {nearest}");
    }

    /// By trying: no schedule, step by step, is slower than told, also where tasks look at the
    /// clock before their instants.
    #[test]
    fn no_simulated_schedule_is_slower() {
        let mut seed = 7_u64;
        let mut draw = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let (mut fits, mut nearest) = (0, 0);
        for _ in 0..400 {
            let mut tasks: Vec<Task> =
                (0..4).map(|at| Task::plain(at.to_string(), 4 - at as u8, 10 + draw(30), 1 + draw(6))).collect();
            tasks.iter_mut().for_each(|task| task.spin = draw(4));
            let set = Set { tasks, ..Set::default() };
            let told: Vec<u64> = (0..4).map(|at| set.response(at).total).collect();
            if (0..4).any(|at| told[at] > set.tasks[at].deadline) {
                continue;
            }
            fits += 1;
            let phases: Vec<u64> = (0..4).map(|_| draw(20)).collect();
            // Left to do, and when it was released, of each task.
            let mut jobs = [(0_u64, 0_u64); 4];
            for now in 20..4_000 {
                for (at, each) in set.tasks.iter().enumerate() {
                    if (now - phases[at]).is_multiple_of(each.cycle) {
                        assert_eq!(jobs[at].0, 0, "the one before is done");
                        jobs[at] = (each.wcet, now);
                    }
                }
                let spins = |at: usize| {
                    let Task { cycle, spin, .. } = set.tasks[at];
                    let until = cycle - (now - phases[at]) % cycle;
                    until <= spin
                };
                if let Some(at) = (0..4).find(|at| jobs[*at].0 > 0 || spins(*at))
                    && jobs[at].0 > 0
                {
                    jobs[at].0 -= 1;
                    let took = now + 1 - jobs[at].1;
                    assert!(jobs[at].0 > 0 || took <= told[at], "{at} {took} {told:?} {set:?}");
                    nearest += usize::from(jobs[at].0 == 0 && took == told[at] && at == 3);
                }
            }
        }
        assert!(fits > 50 && nearest > 50, "{fits} {nearest}");
    }
}
