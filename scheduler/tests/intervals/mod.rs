//! What a token bucket promises.

use insane_core::MonoTime;
use proptest::prelude::*;

/// In every interval no more was sent than burst and rate allow; `history` has for each instant the
/// bytes up to and with it.
pub fn keeps_to(history: &[(MonoTime, u128)], rate: u64, burst_bytes: u32) -> Result<(), TestCaseError> {
    for (index, &(from, before)) in history.iter().enumerate() {
        for &(until, after) in &history[index + 1..] {
            let allowed = u128::from(burst_bytes) * 1_000_000_000 + u128::from(rate) * u128::from(until.since(from).0);
            prop_assert!((after - before) * 1_000_000_000 <= allowed, "{} bytes", after - before);
        }
    }
    Ok(())
}
