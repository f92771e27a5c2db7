//! How long to wait before a repeat.

use std::time::Duration;

/// Envoy's base: long enough for a burst of resets to pass, too short for a person to notice.
const BASE_MS: u64 = 25;

/// Ten times the base, as Envoy has it: a request must not spend its time waiting.
const MOST_MS: u64 = 250;

/// The wait before the `nth` repeat (from 1) that waits at all. It doubles from one to the next; of each, the upper half
/// is drawn by `random`, so that requests that broke together do not come back together.
pub fn backoff(nth: u32, random: u64) -> Duration {
    let whole = (BASE_MS << nth.saturating_sub(1).min(8)).min(MOST_MS);
    let half_us = whole * 500;
    Duration::from_micros(half_us + random % (half_us + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_wait_is_within_its_upper_half_and_below_the_cap(nth in any::<u32>(), random in any::<u64>()) {
            let wait = backoff(nth, random);
            let whole = Duration::from_millis(25).saturating_mul(1_u32 << nth.clamp(1, 9).saturating_sub(1));
            let whole = whole.min(Duration::from_millis(250));
            prop_assert!(wait >= whole / 2 && wait <= whole, "{wait:?} of {whole:?}");
        }
    }

    #[test]
    fn the_whole_upper_half_is_drawn_from() {
        let waits: Vec<Duration> = (0..12_501).map(|random| backoff(1, random)).collect();
        let ends = (waits.iter().min(), waits.iter().max());
        assert_eq!(ends, (Some(&Duration::from_micros(12_500)), Some(&Duration::from_millis(25))));
    }
}
