//! What a status report says in words, as the types that it means.

use insane_core::{Consumption, Datapath, Determinism, LatePolicy, Nanos, Priority, Qos, Reliability, TaiTime};
use insane_wire::status::{MeasuredStatus, QosStatus};

/// The quality of service that a report tells; `None` if it says what this version does not
/// know.
pub fn qos_of(told: &QosStatus) -> Option<Qos> {
    let determinism = match &told.time {
        None => Determinism::BestEffort,
        Some(time) => Determinism::TimeSensitive {
            period: Nanos(time.period_ns),
            offset: Nanos(time.offset_ns),
            deadline: Nanos(time.deadline_ns),
            size: time.size_bytes,
            late: match time.late.as_str() {
                "drop" => LatePolicy::Drop,
                "send_now" => LatePolicy::SendNow,
                "next_slot" => LatePolicy::NextSlot,
                "newest_wins" => LatePolicy::NewestWins,
                _ => return None,
            },
        },
    };
    Some(Qos {
        reliability: match told.reliability.as_str() {
            "unreliable" => Reliability::Unreliable,
            "reliable" => Reliability::Reliable,
            _ => return None,
        },
        datapath: match told.datapath.as_str() {
            "standard" => Datapath::Standard,
            "fast" => Datapath::Fast,
            _ => return None,
        },
        consumption: match told.consumption.as_str() {
            "poll" => Consumption::Poll,
            "low" => Consumption::Low,
            _ => return None,
        },
        determinism,
        priority: Priority::new(told.priority)?,
    })
}

/// What was measured of e_turn or e_wake: `12.3 us in 99.9 % of 12345, 40.0 us at most`.
pub fn measured(told: &MeasuredStatus) -> String {
    let percent = f64::from(told.quantile_ppm) / 10_000.0;
    let (samples, max) = (told.samples, Nanos(told.max_ns));
    match told.quantile_ns {
        Some(quantile) => format!("{} in {percent} % of {samples}, {max} at most", Nanos(quantile)),
        None if is_carried(told) => {
            format!("beyond measure in {percent} % of {samples} (slots missed for it), else {max} at most")
        }
        None if samples == 0 => "no sample yet".to_owned(),
        None => format!("{max} at most in {samples} samples, too few for {percent} % ({})", carrying(told)),
    }
}

/// An instant of TAI as a date: `2026-11-27 06:17:36.016 TAI`. Days to dates by eras of 400 years that
/// begin in March, as H. Hinnant describes (`civil_from_days`).
pub fn date(at: TaiTime) -> String {
    let (seconds, millis) = (at.0 / 1_000_000_000, at.0 % 1_000_000_000 / 1_000_000);
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{millis:03} TAI")
}

/// Whether ten samples may lie beyond the quantile.
fn is_carried(told: &MeasuredStatus) -> bool {
    told.samples >= carrying(told)
}

/// How many samples it takes for that.
fn carrying(told: &MeasuredStatus) -> u64 {
    10_000_000_u64.div_ceil(u64::from(1_000_000_u32.saturating_sub(told.quantile_ppm).max(1)))
}

/// What of it the slots rest on; `None`: on nothing.
pub fn rests_on(told: &MeasuredStatus) -> Option<String> {
    let quantile = told.assumed_quantile_ns.map(|ns| format!("statistical: the quantile is at most {}", Nanos(ns)));
    let max = told.assumed_max_ns.map(|ns| format!("assured: the longest is at most {}", Nanos(ns)));
    let both: Vec<String> = quantile.into_iter().chain(max).collect();
    (!both.is_empty()).then(|| both.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_of_tai_is_told_as_a_date() {
        assert_eq!(date(TaiTime(0)), "1970-01-01 00:00:00.000 TAI");
        assert_eq!(date(TaiTime(951_782_399_999_000_000)), "2000-02-28 23:59:59.999 TAI");
        assert_eq!(date(TaiTime(1_795_758_656_016_000_000)), "2026-11-27 05:50:56.016 TAI");
    }

    #[test]
    fn what_is_measured_is_told_with_its_samples_and_what_rests_on_it() {
        let few = MeasuredStatus { quantile_ppm: 999_000, samples: 12, max_ns: 40_000, ..MeasuredStatus::default() };
        assert_eq!(measured(&few), "40.0 us at most in 12 samples, too few for 99.9 % (10000)");
        assert_eq!(measured(&MeasuredStatus { samples: 0, ..few.clone() }), "no sample yet");
        assert_eq!(rests_on(&few), None);
        let missed = MeasuredStatus { samples: 20_000, ..few.clone() };
        assert_eq!(measured(&missed), "beyond measure in 99.9 % of 20000 (slots missed for it), else 40.0 us at most");
        let assumed_quantile_ns = Some(200_000);
        let more = MeasuredStatus { quantile_ns: Some(12_300), samples: 12_345, assumed_quantile_ns, ..few };
        assert_eq!(measured(&more), "12.3 us in 99.9 % of 12345, 40.0 us at most");
        assert_eq!(rests_on(&more).unwrap(), "statistical: the quantile is at most 200.0 us");
        let both = MeasuredStatus { assumed_max_ns: Some(300_000), ..more };
        assert!(rests_on(&both).unwrap().ends_with("; assured: the longest is at most 300.0 us"));
    }
}
