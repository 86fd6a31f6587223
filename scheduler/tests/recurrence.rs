//! Recurrences and rates against windows that are written down.

use insane_scheduler::{LinkRate, PERIOD_NS_MAX, Recurrence, RecurrenceError, WHOLE_SHARE, gcd, lcm};
use proptest::prelude::*;

fn recurrence() -> impl Strategy<Value = Recurrence> {
    (1..=36_u64)
        .prop_flat_map(|period| (Just(period), 0..period, 1..=period))
        .prop_map(|(period, offset, length)| Recurrence::new(period, offset, length).unwrap())
}

/// Which nanoseconds of the hyperperiod are taken, windows that run over its end included.
fn taken(recurrence: Recurrence, hyperperiod: u64) -> Vec<bool> {
    let mut taken = vec![false; hyperperiod as usize];
    for start in (recurrence.offset_ns()..hyperperiod).step_by(recurrence.period_ns() as usize) {
        (start..start + recurrence.length_ns()).for_each(|at| taken[(at % hyperperiod) as usize] = true);
    }
    taken
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn two_overlap_exactly_where_the_hyperperiod_says_so(a in recurrence(), b in recurrence()) {
        let hyperperiod = lcm(a.period_ns(), b.period_ns()).unwrap();
        let both = taken(a, hyperperiod).into_iter().zip(taken(b, hyperperiod));
        let expected = both.into_iter().any(|(a, b)| a && b);
        prop_assert_eq!(a.overlaps(b), expected);
        prop_assert_eq!(b.overlaps(a), expected);
    }

    #[test]
    fn the_next_start_is_the_first_that_is_not_before(recurrence in recurrence(), at in 0..200_u64) {
        let brute = (0..).map(|k| recurrence.offset_ns() + k * recurrence.period_ns()).find(|&start| start >= at);
        prop_assert_eq!(recurrence.next_start(at), brute);
    }

    #[test]
    fn what_does_not_overlap_takes_no_more_than_the_whole(set in prop::collection::vec(recurrence(), 1..6)) {
        let apart = set.iter().enumerate().all(|(at, a)| set[..at].iter().all(|b| !a.overlaps(*b)));
        let sum: u128 = set.iter().map(|one| one.share()).sum();
        prop_assert!(!apart || sum <= WHOLE_SHARE);
    }

    #[test]
    fn any_numbers_are_a_recurrence_or_a_named_error(period: u64, offset: u64, length: u64, at: u64) {
        if let Ok(one) = Recurrence::new(period, offset, length) {
            prop_assert!(period >= length && length > 0 && offset < period);
            if let Some(start) = one.next_start(at) {
                prop_assert!(start >= at && (at <= offset || start - at < period));
            }
            let _ = one.overlaps(Recurrence::new(PERIOD_NS_MAX, PERIOD_NS_MAX - 1, 1).unwrap());
        }
    }

    #[test]
    fn a_rate_never_promises_more_than_the_link_has(bits in 2_000_u64..400_000_000_000, bytes in 0..u64::from(u32::MAX), ns in 0..10_000_000_000_u64) {
        let rate = LinkRate::from_bits_per_s(bits).unwrap();
        let exact = (u128::from(bytes) * 8_000_000_000).div_ceil(u128::from(bits)) as u64;
        prop_assert!(rate.duration_ns(bytes) >= exact);
        // At most a picosecond a byte and one nanosecond too long.
        prop_assert!(rate.duration_ns(bytes) <= exact + bytes / 1_000 + 1);
        let fit = rate.bytes_in(ns);
        prop_assert!(rate.duration_ns(fit) <= ns && rate.duration_ns(fit + 1) > ns);
    }
}

#[test]
fn named_errors() {
    let cases = [
        ((0, 0, 1), RecurrenceError::ZeroPeriod),
        ((PERIOD_NS_MAX + 1, 0, 1), RecurrenceError::PeriodTooLong),
        ((10, 0, 0), RecurrenceError::ZeroLength),
        ((10, 0, 11), RecurrenceError::LongerThanPeriod),
        ((10, 10, 1), RecurrenceError::OffsetBeyondPeriod),
    ];
    for ((period, offset, length), error) in cases {
        assert_eq!(Recurrence::new(period, offset, length), Err(error));
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn far_apart_and_near_coprime_periods_are_exact() {
    let fast = Recurrence::new(62_500, 0, 1_000).unwrap();
    let slow = |offset| Recurrence::new(1_000_000_000, offset, 1_000).unwrap();
    assert!(!fast.overlaps(slow(1_000)) && fast.overlaps(slow(999)) && fast.overlaps(slow(61_501)));
    // gcd 1: nothing that is longer than nothing fits beside the other.
    let (a, b) = (Recurrence::new(999_999_937, 0, 1).unwrap(), Recurrence::new(1_000_000_007, 5, 1).unwrap());
    assert!(a.overlaps(b));
    assert_eq!(gcd(999_999_937, 1_000_000_007), 1);
    assert_eq!(lcm(1 << 60, (1 << 60) - 1), None);
    assert_eq!(LinkRate::from_bits_per_s(0), None);
    assert_eq!(LinkRate::from_bits_per_s(1_000), None);
    assert_eq!(LinkRate::from_bits_per_s(1_000_000_000).unwrap().duration_ns(1_538), 12_304);
}
