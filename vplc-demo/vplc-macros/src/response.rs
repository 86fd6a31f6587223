//! Response times of fixed-priority tasks on one core with immediate-ceiling locks.
//!
//! `w = B + C + sum over others of at least that priority: ceil((w + J) / T) * C`, and the
//! response time is `w + J` (Audsley, Burns, Richardson, Tindell, Wellings, "Applying new
//! scheduling theory to static priority pre-emptive scheduling", 1993; release jitter and
//! ceilings as there). `J` is the lateness of wake-ups, `B` the longest lock that a less
//! urgent task may hold under a ceiling of at least this priority; with immediate ceilings
//! a task is blocked once. Tasks of one priority run in turn and count as interference of
//! each other. Offsets are ignored, which is safe. Deadlines are within periods, so the
//! first instance is the worst.

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
    /// Longest time it holds any lock.
    pub lock: u64,
    /// Resources that it locks.
    pub resources: Vec<String>,
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
    /// By tasks of at least this priority: who, how often, how long each time.
    pub others: Vec<(String, u64, u64)>,
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

    /// The response time of a task of the set, by its place. The search ends beyond the
    /// deadline, so it is bounded by it.
    pub fn response(&self, at: usize) -> Response {
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
                others().fold(own, |sum, other| sum.saturating_add(times(window, other).saturating_mul(other.wcet)));
            let total = demand.saturating_add(self.jitter);
            if demand == window || total > task.deadline {
                let others = others().map(|other| (other.name.clone(), times(window, other), other.wcet)).collect();
                return Response { total, blocked, others };
            }
            // It grows by at least a nanosecond, and is below the deadline.
            window = demand;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(name: &str, priority: u8, cycle: u64, wcet: u64) -> Task {
        Task { name: name.into(), priority, cycle, deadline: cycle, wcet, lock: 0, resources: Vec::new() }
    }

    #[test]
    fn the_textbook_example_comes_out() {
        // Periods 7, 12, 20 and times 3, 3, 5: response times 3, 6, 20 (Burns and Wellings).
        let tasks = vec![task("a", 3, 7, 3), task("b", 2, 12, 3), task("c", 1, 20, 5)];
        let set = Set { tasks, ..Set::default() };
        assert_eq!([0, 1, 2].map(|at| set.response(at).total), [3, 6, 20]);
        let mut full = set.clone();
        full.tasks[2].wcet = 6;
        assert!(full.response(2).total > 20, "one unit more does not fit");
        assert_eq!(set.response(2).others, [("a".to_owned(), 3, 3), ("b".to_owned(), 2, 3)]);
    }

    #[test]
    fn a_lock_blocks_whoever_is_below_its_ceiling() {
        let mut set = Set {
            tasks: vec![task("high", 3, 100, 10), task("mid", 2, 100, 10), task("low", 1, 100, 10)],
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
        let set = Set { tasks: vec![task("a", 1, 50, 10), task("b", 1, 50, 15)], jitter: 5, ..Set::default() };
        assert_eq!([0, 1].map(|at| set.response(at).total), [30, 30]);
        let jitter = Set { tasks: vec![task("a", 2, 10, 4), task("b", 1, 100, 6)], jitter: 1, ..Set::default() };
        // w = 6 + ceil((w + 1) / 10) * 4: 10 -> 14 -> 14.
        assert_eq!(jitter.response(1).total, 15);
    }

    #[test]
    fn absurd_numbers_end() {
        let mut set =
            Set { tasks: vec![task("a", 2, 1, u64::MAX), task("b", 1, u64::MAX, u64::MAX)], ..Set::default() };
        set.jitter = u64::MAX;
        assert_eq!(set.response(1).total, u64::MAX);
    }

    /// By trying: no schedule of synchronous releases, step by step, is slower than told.
    #[test]
    fn no_simulated_schedule_is_slower() {
        let mut seed = 7_u64;
        let mut draw = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let mut fits = 0;
        for _ in 0..400 {
            let tasks: Vec<Task> =
                (0..4).map(|at| task(&at.to_string(), 4 - at as u8, 10 + draw(30), 1 + draw(6))).collect();
            let set = Set { tasks, ..Set::default() };
            let told: Vec<u64> = (0..4).map(|at| set.response(at).total).collect();
            if (0..4).any(|at| told[at] > set.tasks[at].deadline) {
                continue;
            }
            fits += 1;
            let phases: Vec<u64> = (0..4).map(|_| draw(20)).collect();
            // Left to do, and when it was released, of each task.
            let mut jobs = [(0_u64, 0_u64); 4];
            for now in 0..4_000 {
                for (at, each) in set.tasks.iter().enumerate() {
                    if now >= phases[at] && (now - phases[at]).is_multiple_of(each.cycle) {
                        assert_eq!(jobs[at].0, 0, "the one before is done");
                        jobs[at] = (each.wcet, now);
                    }
                }
                if let Some(at) = jobs.iter().position(|job| job.0 > 0) {
                    jobs[at].0 -= 1;
                    assert!(jobs[at].0 > 0 || now + 1 - jobs[at].1 <= told[at], "{set:?}");
                }
            }
        }
        assert!(fits > 50, "{fits}");
    }
}
