//! The likely cause of a late wake-up, from counters alone. The first that fits:
//!
//! | cause | evidence |
//! |---|---|
//! | `preempted` | the thread was ready and waited for its core for at least half of the lateness (`/proc/thread-self/schedstat`) |
//! | `host stolen` | the host took the core away meanwhile (steal time of the core, `/proc/stat`) |
//! | `interrupts` | one interrupt came at least four times as often as it does on average, and eight times more (`/proc/interrupts`) |
//! | `handlers` | interrupt and softirq handlers ran on the core for a tick or more (`/proc/stat`) |
//! | `unexplained` | none of these |
//!
//! The counters of a core are read about every 20 ms, from another core: they tell what
//! happened around a wake-up and not that it was the reason. Only the first row is about
//! this thread and this wake-up.

use super::evidence::{Record, Window};
use insane_core::Nanos;
use serde::Serialize;

/// How many times its average, and how many more, an interrupt is to come to be named.
const TIMES: f64 = 4.0;
const MORE: f64 = 8.0;

/// What is known of one late wake-up.
#[derive(Clone, Copy, Debug)]
pub struct Late {
    /// By how much.
    pub late: Nanos,
    /// Of that and the cycle before it, ready and waiting for the core; `None`: the kernel
    /// does not tell.
    pub waited: Option<Nanos>,
}

/// The likely cause, and the numbers for it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Cause {
    /// Of the table above.
    pub cause: &'static str,
    /// Numbers.
    pub detail: String,
}

impl Cause {
    /// Decides.
    pub fn of(late: Late, record: &Record, around: Option<&Window>) -> Cause {
        let cause = |cause, detail| Cause { cause, detail };
        if let Some(waited) = late.waited
            && waited.0 >= late.late.0 / 2
        {
            return cause("preempted", format!("ready, and waited {waited} for its core"));
        }
        let Some(around) = around else { return cause("unexplained", "no counters around it".to_owned()) };
        if around.steal > 0 {
            return cause("host stolen", format!("{} of steal time within {}", ticks(around.steal), around.length));
        }
        let more = |line: &(usize, u64)| line.1 as f64 - record.expected(line.0, around.length);
        let loudest = around
            .lines
            .iter()
            .copied()
            .enumerate()
            .filter(|line| line.1 as f64 >= TIMES * record.expected(line.0, around.length) && more(line) >= MORE)
            .max_by(|a, b| more(a).total_cmp(&more(b)));
        if let Some((line, count)) = loudest {
            let name = record.names.get(line).map_or("an interrupt", String::as_str);
            let usual = record.expected(line, around.length);
            return cause("interrupts", format!("{name}: {count} within {}, {usual:.1} on average", around.length));
        }
        if around.handlers > 0 {
            return cause(
                "handlers",
                format!("{} in interrupt handlers within {}", ticks(around.handlers), around.length),
            );
        }
        let waited = late.waited.map(|waited| match waited {
            Nanos::ZERO => "the thread did not wait for its core".to_owned(),
            waited => format!("the thread waited {waited} of it for its core"),
        });
        cause("unexplained", waited.unwrap_or_default())
    }
}

/// Ticks of `/proc/stat` are a hundredth of a second on every Linux that programs see.
fn ticks(count: u64) -> Nanos {
    Nanos::from_millis(count.saturating_mul(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        // In ten seconds: 10,000 timer interrupts, 100 of a disk.
        Record::for_tests(&["Local timer interrupts", "disk"], &[10_000, 100], Nanos::from_secs(10))
    }

    fn window() -> Window {
        Window { length: Nanos::from_millis(20), steal: 0, handlers: 0, lines: vec![21, 0] }
    }

    fn cause(waited: Option<u64>, around: Option<&Window>) -> Cause {
        let late = Late { late: Nanos::from_micros(300), waited: waited.map(Nanos::from_micros) };
        Cause::of(late, &record(), around)
    }

    #[test]
    fn each_cause_is_named_by_its_evidence_and_in_order() {
        let stolen = Window { steal: 1, handlers: 1, lines: vec![21, 90], ..window() };
        let busy = Window { handlers: 1, lines: vec![21, 90], ..window() };
        let handled = Window { handlers: 2, ..window() };
        assert_eq!(cause(Some(200), Some(&stolen)).cause, "preempted");
        assert_eq!(cause(Some(100), Some(&stolen)).cause, "host stolen");
        let interrupts = cause(Some(100), Some(&busy));
        assert_eq!(
            (interrupts.cause, interrupts.detail.as_str()),
            ("interrupts", "disk: 90 within 20.00 ms, 0.2 on average")
        );
        assert_eq!(cause(None, Some(&handled)).cause, "handlers");
        assert_eq!(cause(None, Some(&window())).cause, "unexplained");
        assert_eq!(cause(Some(0), None).cause, "unexplained");
        assert_eq!(cause(Some(0), Some(&window())).detail, "the thread did not wait for its core");
        assert_eq!(cause(Some(9), Some(&window())).detail, "the thread waited 9.0 us of it for its core");
    }

    #[test]
    fn what_is_usual_explains_nothing() {
        // Twice the average, and four times with too few more, are chance.
        let noise = Window { lines: vec![40, 7], ..window() };
        assert_eq!(cause(None, Some(&noise)).cause, "unexplained");
    }
}
