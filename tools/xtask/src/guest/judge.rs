//! What a guest says, and what is made of it.
//!
//! A guest marks where each job begins and ends with lines that bear a word which was
//! chosen for this boot, so that nothing a job prints is taken for a mark:
//! ```text
//! @@WORD begin NAME
//! @@WORD end NAME STATUS
//! @@WORD done
//! ```
//! It passes if the last mark came, if every job that it was given ended with status 0, and
//! if the machine then ended with [`CODE_DONE`]. Any of these alone may be had by accident.

use crate::process::Ending;
use crate::tally::{TestCount, Verdict};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What a guest writes to its exit port when all jobs have ended.
pub const CODE_DONE: u8 = 0x10;

/// So many of the last lines of a job that failed are repeated at the end.
const TAIL_LINES: usize = 40;

/// What became of a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JobEnd {
    /// It never began.
    Missing,
    /// It began, and the guest ended before it did.
    Unfinished,
    /// Its exit status; above 128 it was killed.
    Status(u8),
}

/// One job of one guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobReport {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub end: JobEnd,
    /// The tests that it ran, if it is a test program.
    pub tests: TestCount,
    /// What it says of itself in one line: the last that begins with `rt-guest: `.
    pub note: String,
    /// How long it took, of this host's time.
    pub took: Duration,
    /// The last lines that it printed.
    tail: VecDeque<String>,
}

/// Follows what a guest prints.
#[derive(Debug)]
pub struct Judge {
    mark: String,
    jobs: Vec<JobReport>,
    /// The job under way.
    current: Option<usize>,
    /// When it began.
    began: Instant,
    is_done: bool,
}

impl Judge {
    /// For a guest that was given these jobs and this word.
    pub fn new<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> Self {
        let job = |name: &str| JobReport {
            name: name.to_owned(),
            end: JobEnd::Missing,
            tests: TestCount::default(),
            note: String::new(),
            took: Duration::ZERO,
            tail: VecDeque::new(),
        };
        let jobs = names.into_iter().map(job).collect();
        Judge { mark: format!("@@{word} "), jobs, current: None, began: Instant::now(), is_done: false }
    }

    /// Takes one line of the guest's console.
    pub fn line(&mut self, line: &str) {
        if let Some((_, mark)) = line.split_once(&self.mark) {
            self.marked(mark);
        } else if let Some(job) = self.current.and_then(|job| self.jobs.get_mut(job)) {
            job.tests.add_line(line);
            if job.tail.len() == TAIL_LINES {
                job.tail.pop_front();
            }
            job.tail.push_back(line.to_owned());
            if let Some(note) = line.strip_prefix("rt-guest: ") {
                note.clone_into(&mut job.note);
            }
        }
    }

    fn marked(&mut self, mark: &str) {
        let words: Vec<&str> = mark.split_whitespace().collect();
        let place = |name: &str, jobs: &[JobReport]| jobs.iter().position(|job| job.name == name);
        match words[..] {
            ["begin", name] => {
                self.current = place(name, &self.jobs);
                self.began = Instant::now();
                if let Some(job) = self.current {
                    self.jobs[job].end = JobEnd::Unfinished;
                }
            }
            ["end", name, status] => {
                self.current = None;
                if let (Some(job), Ok(status)) = (place(name, &self.jobs), status.parse()) {
                    self.jobs[job].end = JobEnd::Status(status);
                    self.jobs[job].took = self.began.elapsed();
                }
            }
            ["done"] => self.is_done = true,
            _ => {}
        }
    }

    /// The jobs, and why the guest as a whole failed if it did.
    pub fn finish(self, ending: &Ending, limit_seconds: u64) -> (Vec<JobReport>, Result<(), String>) {
        // isa-debug-exit ends the machine with twice the value, plus one.
        let wanted = i32::from(CODE_DONE) * 2 + 1;
        let whole = match ending {
            Ending::Exited(status) if status.code() == Some(wanted) && self.is_done => Ok(()),
            Ending::Exited(status) if status.code() == Some(wanted) => Err("the last mark is missing".to_owned()),
            Ending::Exited(status) => Err(format!("ended with {status} instead of {wanted}")),
            Ending::TimedOut => Err(format!("killed after {limit_seconds} s")),
            Ending::NotStarted(error) => Err(format!("did not start: {error}")),
        };
        (self.jobs, whole)
    }
}

impl JobReport {
    /// Whether it did what it should. A job that counts tests must have run some.
    pub fn has_passed(&self) -> bool {
        self.end == JobEnd::Status(0) && self.tests.failed == 0
    }

    /// What it adds to the tally: its tests, or itself where it has none.
    pub fn counts(&self) -> TestCount {
        let TestCount { passed, failed, .. } = self.tests;
        if self.has_passed() {
            TestCount { passed: passed.max(1), ..self.tests }
        } else {
            TestCount { failed: failed.max(1), ..self.tests }
        }
    }

    /// Its line in the table of the guest.
    pub fn row(&self) -> String {
        let result = match (self.has_passed(), self.end) {
            (true, _) => "passed".to_owned(),
            (false, JobEnd::Missing) => "FAILED: never began".to_owned(),
            (false, JobEnd::Unfinished) => "FAILED: did not end".to_owned(),
            (false, JobEnd::Status(status)) => format!("FAILED: status {status}"),
        };
        let tests = match self.tests.passed + self.tests.failed {
            0 => String::new(),
            _ => format!("{} passed, {} failed", self.tests.passed, self.tests.failed),
        };
        let details: Vec<&str> =
            [tests.as_str(), self.note.as_str()].into_iter().filter(|text| !text.is_empty()).collect();
        let took = self.took.as_secs_f64();
        format!("{:<18} {took:6.1} s  {result:<8} {}", self.name, details.join("; ")).trim_end().to_owned()
    }
}

/// The verdict over all guests, and what they add to the tally.
pub fn sum_up(guests: &[(Vec<JobReport>, Result<(), String>)]) -> (Verdict, TestCount) {
    let mut count = TestCount::default();
    let (mut reasons, mut tails) = (Vec::new(), String::new());
    for (jobs, whole) in guests {
        let failed: Vec<&str> = jobs.iter().filter(|job| !job.has_passed()).map(|job| job.name.as_str()).collect();
        count = jobs.iter().fold(count, |count, job| count + job.counts());
        for job in jobs.iter().filter(|job| !job.has_passed()) {
            tails += &format!("\n---- {} ----", job.name);
            job.tail.iter().for_each(|line| tails += &format!("\n{line}"));
        }
        if !failed.is_empty() {
            reasons.push(format!("in the guest: {}", failed.join(", ")));
        }
        if let Err(reason) = whole {
            reasons.push(format!("the guest {reason}"));
        }
    }
    match reasons.is_empty() {
        true if count.passed > 0 => (Verdict::Passed, count),
        true => (Verdict::Failed("no job ran".to_owned()), count),
        false => (Verdict::Failed(reasons.join("; ") + &tails), count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    const GOOD: i32 = 33;

    fn judged(lines: &[&str], code: i32) -> (Vec<JobReport>, Result<(), String>) {
        let mut judge = Judge::new("w7", ["kernel", "udp"]);
        lines.iter().for_each(|line| judge.line(line));
        judge.finish(&Ending::Exited(ExitStatus::from_raw(code << 8)), 60)
    }

    const ALL: &[&str] = &[
        "@@w7 begin kernel",
        "rt-guest: 6.1 PREEMPT_RT",
        "@@w7 end kernel 0",
        "[    9.1] a word of the kernel @@w7 begin udp",
        "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out",
        "@@w7 end udp 0",
        "@@w7 done",
    ];

    #[test]
    fn a_guest_that_did_everything_passes_and_counts() {
        let guest = judged(ALL, GOOD);
        assert_eq!(guest.0[0].row(), "kernel                0.0 s  passed   6.1 PREEMPT_RT");
        let (verdict, count) = sum_up(&[guest]);
        assert_eq!((verdict, count.passed, count.failed), (Verdict::Passed, 13, 0));
    }

    #[test]
    fn exit_code_and_last_mark_are_both_needed() {
        for (lines, code) in [(ALL, 0), (ALL, 35), (&ALL[..6], GOOD)] {
            assert!(matches!(sum_up(&[judged(lines, code)]).0, Verdict::Failed(_)), "{code}");
        }
        let mut judge = Judge::new("w7", ["kernel"]);
        ["@@w7 begin kernel", "@@w7 end kernel 0", "@@w7 done"].iter().for_each(|line| judge.line(line));
        let (verdict, _) = sum_up(&[judge.finish(&Ending::TimedOut, 60)]);
        assert_eq!(verdict, Verdict::Failed("the guest killed after 60 s".into()));
    }

    #[test]
    fn a_job_that_fails_hangs_or_never_begins_fails_the_guest() {
        let cases: &[(&str, &str)] =
            &[("@@w7 end udp 0", "@@w7 end udp 101"), ("@@w7 end udp 0", ""), ("begin udp", "begin another")];
        for (from, to) in cases {
            let lines: Vec<String> = ALL.iter().map(|line| line.replace(from, to)).collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).filter(|line| !line.is_empty()).collect();
            // The marks of a job that never began: its end goes, too.
            let lines: Vec<&str> =
                lines.into_iter().filter(|line| *to != "begin another" || !line.contains("end udp")).collect();
            let (verdict, count) = sum_up(&[judged(&lines, GOOD)]);
            let Verdict::Failed(reason) = verdict else { panic!("{lines:?}") };
            let said = reason.strip_prefix("in the guest: udp\n---- udp ----").expect("what failed comes first");
            assert_eq!(said.contains("test result: ok. 12 passed"), *to != "begin another", "{said}");
            assert_eq!(count.failed, 1);
        }
    }

    #[test]
    fn a_failed_test_fails_whatever_the_status_says() {
        let lines: Vec<String> = ALL.iter().map(|line| line.replace("0 failed", "2 failed")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        assert_eq!(sum_up(&[judged(&lines, GOOD)]).1.failed, 2);
    }

    #[test]
    fn what_a_job_prints_is_no_mark() {
        let mut lines = ALL.to_vec();
        lines[4] = "@@other end udp 0";
        lines[5] = "@@w8 end udp 0";
        assert!(matches!(sum_up(&[judged(&lines, GOOD)]).0, Verdict::Failed(_)));
    }
}
