//! What a step did, and the summary of all.

use std::collections::BTreeMap;
use std::time::Duration;

/// How a step ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// As it should.
    Passed,
    /// Not as it should, with the reason.
    Failed(String),
    /// Not run, with the reason.
    Skipped(String),
}

/// A step that is over.
#[derive(Clone, Debug)]
pub struct Done {
    /// The step.
    pub name: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// Single tests inside the step, if it has any.
    pub tests: TestCount,
    /// How long it took.
    pub took: Duration,
}

/// Tests, added up over the `test result:` lines that the test harness prints.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TestCount {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
    /// Tests that say `ignore`.
    pub ignored: u64,
    /// Tests that lacked something, said so and did nothing; the harness counts them as passed.
    pub passed_over: u64,
}

impl std::ops::Add for TestCount {
    type Output = TestCount;

    fn add(self, more: TestCount) -> TestCount {
        TestCount {
            passed: self.passed + more.passed,
            failed: self.failed + more.failed,
            ignored: self.ignored + more.ignored,
            passed_over: self.passed_over + more.passed_over,
        }
    }
}

impl TestCount {
    /// Adds what a line of output says; lines about anything else add nothing.
    pub fn add_line(&mut self, line: &str) {
        let Some((_, counts)) = line.split_once("test result: ").and_then(|(_, rest)| rest.split_once(". ")) else {
            return;
        };
        for part in counts.split("; ") {
            match part.split_once(' ') {
                Some((count, "passed")) => self.passed += count.parse::<u64>().unwrap_or(0),
                Some((count, "failed")) => self.failed += count.parse::<u64>().unwrap_or(0),
                Some((count, "ignored")) => self.ignored += count.parse::<u64>().unwrap_or(0),
                _ => {}
            }
        }
    }
}

/// How a test begins the line that says what it lacks.
const PASSED_OVER: &str = "passed over: ";

/// Where a test program is in what it prints.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Part {
    /// Its tests run, or its result comes.
    #[default]
    Other,
    /// After a first `successes:` what its passed tests printed, each below a line with its
    /// name. Whatever that looks like, it is no result.
    Output,
    /// After a second one their names.
    Names,
    /// After `failures:` what its failed tests printed, and their names.
    Failures,
}

/// So many lines of one failed test are repeated at the end, and so many of all.
const FAILURE_LINES_MAX: usize = 25;
const FAILURES_LINES_MAX: usize = 200;

/// Follows what `cargo test -- --show-output` prints.
#[derive(Debug, Default)]
pub struct Follower {
    count: TestCount,
    /// The passed test whose output comes, until it said that it passed over itself.
    test: Option<String>,
    part: Part,
    /// Of the program under way.
    over_here: u64,
    /// Tests that passed over themselves, each with its reason.
    pub passed_over: Vec<String>,
    /// What failed tests printed, the first lines of each.
    pub failures: Vec<String>,
    /// Lines so far of the failed test under way.
    failure_lines: usize,
}

impl Follower {
    /// Takes a line.
    pub fn line(&mut self, line: &str) {
        match (line, self.part) {
            ("successes:", Part::Other) => self.part = Part::Output,
            ("successes:", Part::Output) => self.part = Part::Names,
            ("failures:", Part::Other | Part::Names) => self.part = Part::Failures,
            (_, Part::Failures) if !line.contains("test result: ") => self.failure(line),
            (_, Part::Output) => self.output(line),
            _ if line.contains("test result: ") => self.end_program(line),
            _ => {}
        }
    }

    fn end_program(&mut self, line: &str) {
        self.count.add_line(line);
        self.count.passed = self.count.passed.saturating_sub(self.over_here);
        self.count.passed_over += self.over_here;
        (self.part, self.over_here, self.test) = (Part::Other, 0, None);
    }

    fn failure(&mut self, line: &str) {
        if line.starts_with("---- ") {
            self.failure_lines = 0;
        }
        self.failure_lines += 1;
        let is_kept = self.failure_lines <= FAILURE_LINES_MAX && self.failures.len() < FAILURES_LINES_MAX;
        if is_kept && !line.is_empty() {
            self.failures.push(line.to_owned());
        }
    }

    fn output(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            self.test = Some(name.to_owned());
        } else if let Some(reason) = line.strip_prefix(PASSED_OVER)
            && let Some(name) = self.test.take()
        {
            self.over_here += 1;
            self.passed_over.push(format!("{name}: {reason}"));
        }
    }

    /// What tests lacked that passed over themselves, and which these are.
    pub fn passed_over_by_reason(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, reason) in self.passed_over.iter().filter_map(|test| test.split_once(": ")) {
            by_reason.entry(reason).or_default().push(name);
        }
        by_reason
    }

    /// All programs together.
    pub fn count(&self) -> TestCount {
        self.count
    }
}

impl Done {
    /// What the step adds to the last line: its tests where it has some, else itself.
    /// A failed step adds at least one failure, for what failed may have kept its
    /// tests from running.
    fn counts(&self) -> (u64, u64) {
        let TestCount { passed, failed, .. } = self.tests;
        match self.verdict {
            Verdict::Passed => (passed.max(1), failed),
            Verdict::Failed(_) => (passed, failed.max(1)),
            Verdict::Skipped(_) => (0, 0),
        }
    }

    fn row(&self) -> String {
        let (result, reason) = match &self.verdict {
            Verdict::Passed => ("passed", ""),
            Verdict::Failed(reason) => ("FAILED", reason.as_str()),
            Verdict::Skipped(reason) => ("skipped", reason.as_str()),
        };
        // The step has printed the rest of a long reason.
        let reason = reason.lines().next().unwrap_or_default();
        let TestCount { passed, failed, ignored, passed_over } = self.tests;
        let tests = if self.tests == TestCount::default() {
            String::new()
        } else {
            format!("{passed} passed, {failed} failed, {ignored} ignored, {passed_over} passed over")
        };
        let details =
            [tests.as_str(), reason].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ");
        format!("{:<10} {:>8.1} s  {result:<8} {details}", self.name, self.took.as_secs_f64()).trim_end().to_owned()
    }
}

/// Everything that is known of the steps that failed: where only the end of a long output is
/// kept, this is in it.
pub fn failures(steps: &[Done]) -> String {
    let failed = steps.iter().filter_map(|step| match &step.verdict {
        Verdict::Failed(reason) => Some(format!("==> failed: {}: {reason}\n", step.name)),
        Verdict::Passed | Verdict::Skipped(_) => None,
    });
    failed.collect()
}

/// The table of all steps; its last line is `N passed, N failed`.
pub fn table(steps: &[Done]) -> String {
    let mut text = format!("{:<10} {:>10}  {:<8}\n", "step", "time", "result").replace(" \n", "\n");
    let (mut passed, mut failed) = (0, 0);
    for step in steps {
        text += &step.row();
        text.push('\n');
        let counts = step.counts();
        passed += counts.0;
        failed += counts.1;
    }
    text + &format!("{passed} passed, {failed} failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(verdict: Verdict, passed: u64, failed: u64) -> Done {
        Done {
            name: "step",
            verdict,
            tests: TestCount { passed, failed, ..TestCount::default() },
            took: Duration::from_millis(1_500),
        }
    }

    #[test]
    fn result_lines_add_up_and_others_do_not() {
        let mut count = TestCount::default();
        for line in [
            "test result: ok. 11 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.28s",
            "test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 4 filtered out; finished in 0.01s",
            "test the_result ... ok",
            "test result: nonsense",
        ] {
            count.add_line(line);
        }
        assert_eq!(count, TestCount { passed: 13, failed: 3, ignored: 1, passed_over: 0 });
    }

    #[test]
    fn what_passed_over_itself_has_not_passed() {
        let mut follower = Follower::default();
        let output = "\
test a ... ok
test b ... ok
test c ... FAILED

successes:

---- a stdout ----
passed over: no right
passed over: and no tool

---- b stdout ----
it passed over: nothing
test result: FAILED. 0 passed; 7 failed; 0 ignored


successes:
    a
    b

failures:

---- c stdout ----
passed over: in vain

test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s
passed over: nobody's
test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        output.lines().for_each(|line| follower.line(line));
        assert_eq!(follower.count(), TestCount { passed: 4, failed: 1, ignored: 0, passed_over: 1 });
        assert_eq!(follower.passed_over, ["a: no right"]);
        assert_eq!(follower.failures, ["---- c stdout ----", "passed over: in vain"]);
        follower.passed_over.extend(["v4::b: no device: none".to_owned(), "c: no right".to_owned()]);
        let expected = [("no device: none", vec!["v4::b"]), ("no right", vec!["a", "c"])];
        assert_eq!(follower.passed_over_by_reason().into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_last_line_counts_tests_and_steps_without_tests() {
        let steps = [
            done(Verdict::Passed, 0, 0),
            done(Verdict::Passed, 40, 0),
            done(Verdict::Skipped("no right".into()), 0, 0),
            done(Verdict::Failed("does not build\nfor this reason".into()), 0, 0),
            done(Verdict::Failed("exit code 101".into()), 5, 2),
        ];
        let table = table(&steps);
        assert_eq!(table.lines().last(), Some("46 passed, 3 failed"), "{table}");
        assert_eq!(
            failures(&steps),
            "==> failed: step: does not build\nfor this reason\n==> failed: step: exit code 101\n"
        );
        assert!(table.contains("skipped  no right"), "{table}");
        assert_eq!(table.lines().count(), 1 + steps.len() + 1, "{table}");
        assert!(table.contains("FAILED   5 passed, 2 failed, 0 ignored, 0 passed over; exit code 101"), "{table}");
    }
}
