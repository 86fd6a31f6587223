//! What a stream is given: what is asked for, as far as the configuration fixes nothing else.
//! Pure.
//!
//! | declared | what a stream is given | refused |
//! |---|---|---|
//! | `reliability` | that | `unreliable`, where reliable was asked for |
//! | `determinism` | that | `best_effort`, where a time was asked for; another period, a smaller size, a later deadline, an earlier offset than asked for |
//! | `isolated` | that | `false`, where isolation was asked for |
//! | `datapath`, `consumption`, `priority` | that | never: they are hints |
//! | `priority_max`, `history_max` | that, where more was asked for | never |
//!
//! So nobody is given less than it asked for and takes it for what it asked for.

use insane_config::StreamPlan;
use insane_core::{Determinism, Qos, Reliability};

/// Values that a source may keep where nothing is declared.
pub const HISTORY_MAX: u8 = 16;

/// What a stream is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Given {
    /// Its quality of service.
    pub qos: Qos,
    /// Whether local messages go through the runtime.
    pub isolated: bool,
    /// Values that its sources may keep for late joiners.
    pub history_max: u8,
}

/// What a stream is given of which this was asked for.
///
/// # Errors
/// It would be less than was asked for; in words.
pub fn give(declared: Option<&StreamPlan>, asked: &Qos, isolated: bool) -> Result<Given, String> {
    let Some(plan) = declared else { return Ok(Given { qos: *asked, isolated, history_max: HISTORY_MAX }) };
    let refused = |what: String| Err(format!("the configuration declares streams {:?} as {what}", plan.name));
    if asked.reliability == Reliability::Reliable && plan.reliability == Some(Reliability::Unreliable) {
        return refused("unreliable, and reliable was asked for".to_owned());
    }
    if isolated && plan.isolated == Some(false) {
        return refused("not isolated, and isolation was asked for".to_owned());
    }
    if let Some(declared) = plan.determinism
        && let Some(lesser) = lesser_time(&declared, &asked.determinism)
    {
        return refused(lesser);
    }
    let priority = plan.priority.unwrap_or(asked.priority);
    let qos = Qos {
        reliability: plan.reliability.unwrap_or(asked.reliability),
        datapath: plan.datapath.unwrap_or(asked.datapath),
        consumption: plan.consumption.unwrap_or(asked.consumption),
        determinism: plan.determinism.unwrap_or(asked.determinism),
        priority: plan.priority_max.map_or(priority, |most| priority.min(most)),
    };
    let history_max = plan.history_max.unwrap_or(HISTORY_MAX);
    Ok(Given { qos, isolated: plan.isolated.unwrap_or(isolated), history_max })
}

/// In what a declared time is less than the one that was asked for.
fn lesser_time(declared: &Determinism, asked: &Determinism) -> Option<String> {
    let Determinism::TimeSensitive { period, offset, deadline, size, .. } = *asked else { return None };
    match *declared {
        Determinism::BestEffort => Some("best effort, and a time was asked for".to_owned()),
        Determinism::TimeSensitive { period: other, .. } if other != period => {
            Some(format!("with a period of {other}, and {period} was asked for"))
        }
        Determinism::TimeSensitive { size: less, .. } if less < size => {
            Some(format!("of at most {less} bytes, and {size} were asked for"))
        }
        Determinism::TimeSensitive { deadline: later, .. } if later > deadline => {
            Some(format!("with a deadline at {later}, and {deadline} was asked for"))
        }
        // Its message may not be there yet.
        Determinism::TimeSensitive { offset: earlier, .. } if earlier < offset => {
            Some(format!("with an offset of {earlier}, and {offset} was asked for"))
        }
        Determinism::TimeSensitive { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insane_core::{Consumption, Datapath, LatePolicy, Nanos, Priority};

    fn priority(value: u8) -> Priority {
        Priority::new(value).unwrap()
    }

    #[test]
    fn without_a_declaration_it_is_what_was_asked_for() {
        let asked = Qos { reliability: Reliability::Reliable, priority: priority(7), ..Qos::default() };
        let given = Given { qos: asked, isolated: true, history_max: HISTORY_MAX };
        assert_eq!(give(None, &asked, true), Ok(given));
        assert_eq!(give(Some(&StreamPlan::default()), &asked, true), Ok(given));
    }

    #[test]
    fn what_is_fixed_holds_in_place_of_what_was_asked_for() {
        let time = Determinism::periodic(Nanos::from_millis(1), 64);
        let plan = StreamPlan {
            name: "x".into(),
            reliability: Some(Reliability::Reliable),
            datapath: Some(Datapath::Fast),
            consumption: Some(Consumption::Poll),
            determinism: Some(time),
            priority: Some(priority(6)),
            priority_max: None,
            isolated: Some(true),
            history_max: Some(2),
            ..StreamPlan::default()
        };
        let given = give(Some(&plan), &Qos::default(), false).unwrap();
        let qos = Qos {
            reliability: Reliability::Reliable,
            datapath: Datapath::Fast,
            consumption: Consumption::Poll,
            determinism: time,
            priority: priority(6),
        };
        assert_eq!(given, Given { qos, isolated: true, history_max: 2 });
    }

    #[test]
    fn bounds_are_kept_and_less_stays_less() {
        let plan = StreamPlan { priority_max: Some(priority(4)), ..StreamPlan::default() };
        for (asked, given) in [(0, 0), (4, 4), (5, 4), (7, 4)] {
            let asked = Qos { priority: priority(asked), ..Qos::default() };
            assert_eq!(give(Some(&plan), &asked, false).unwrap().qos.priority.get(), given);
        }
    }

    #[test]
    fn nobody_is_given_less_than_it_asked_for() {
        let ms = Nanos::from_millis;
        let time = |period, deadline, size| Determinism::TimeSensitive {
            period: ms(period),
            offset: Nanos::ZERO,
            deadline: ms(deadline),
            size,
            late: LatePolicy::Drop,
        };
        let at = |offset| Determinism::TimeSensitive {
            period: ms(4),
            offset: ms(offset),
            deadline: ms(4),
            size: 64,
            late: LatePolicy::Drop,
        };
        let declared = |determinism| StreamPlan { determinism: Some(determinism), ..StreamPlan::default() };
        let asked = |determinism| Qos { determinism, ..Qos::default() };
        for (plan, wanted, why) in [
            (declared(Determinism::BestEffort), time(4, 4, 64), "best effort"),
            (declared(time(5, 4, 64)), time(4, 4, 64), "with a period of"),
            (declared(time(4, 4, 63)), time(4, 4, 64), "at most 63 bytes, and 64"),
            (declared(time(4, 4, 64)), time(4, 3, 64), "with a deadline at"),
            (declared(at(1)), at(2), "with an offset of 1.00 ms, and 2.00 ms was asked for"),
        ] {
            let refused = give(Some(&plan), &asked(wanted), false).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
        assert!(give(Some(&declared(at(2))), &asked(at(1)), false).is_ok(), "later in the period is in time");
        let more = declared(time(4, 2, 100));
        assert!(give(Some(&more), &asked(time(4, 3, 64)), false).is_ok(), "sooner and larger is no less");
        assert!(give(Some(&more), &Qos::default(), false).is_ok(), "who asks for no time may be given one");
        let reliable = Qos { reliability: Reliability::Reliable, ..Qos::default() };
        let unreliable = StreamPlan { reliability: Some(Reliability::Unreliable), ..StreamPlan::default() };
        assert!(give(Some(&unreliable), &reliable, false).unwrap_err().contains("unreliable, and reliable"));
        let open = StreamPlan { isolated: Some(false), ..StreamPlan::default() };
        assert!(give(Some(&open), &Qos::default(), true).unwrap_err().contains("not isolated"));
    }
}
