//! Slow start: a backend that comes into rotation begins with a tenth of its share and gets the whole of it within a
//! window, so that cold caches, pools and compilers are not met by full load. Linear, as Envoy's and HAProxy's.
//!
//! It works on weights, before a policy is built from them, so it is the same for every policy. Weights are relative:
//! when all that are in rotation came in together they have equal tenths, which is equal shares, so nobody waits for
//! a full weight that nobody has.

use std::time::Duration;

/// A whole share, in the unit of shares: tenths. So fine are the steps, and so many new snapshots at most does one
/// window cost, however many backends come in during it.
pub const WHOLE: u32 = 10;

/// The longest round-robin table while shares are fractional; some ten milliseconds to build. Above it weights are
/// rounded, by less than a hundredth of an average backend's.
pub const MOST_SLOTS: u64 = 65_536;

/// Time from one step to the next; not zero.
pub fn step_ms(window: Duration) -> u64 {
    (window.as_millis() as u64 / u64::from(WHOLE)).max(1)
}

/// The share of a backend that came in `elapsed_ms` ago: 1 to [`WHOLE`] tenths, to the nearest. The lowest is the floor
/// of a tenth: less would measure nothing, and never warm it.
pub fn share(window: Duration, elapsed_ms: u64) -> u32 {
    let window_ms = window.as_millis() as u64;
    if elapsed_ms >= window_ms {
        return WHOLE;
    }
    // Below the window, which is at most u64::MAX / 1000 ms.
    let tenths = (elapsed_ms.saturating_mul(2 * u64::from(WHOLE)) / window_ms.max(1)).div_ceil(2);
    (tenths as u32).clamp(1, WHOLE)
}

/// Weights by which a policy is built, from `(weight, share)` pairs: in proportion to their products, none 0 that was
/// not, and their sum bounded by [`MOST_SLOTS`] and one for each. Untouched when all shares are equal.
pub fn scaled(weights: &[(u32, u32)]) -> Vec<u32> {
    let first = weights.first().map(|(_, share)| *share);
    if weights.iter().all(|(_, share)| Some(*share) == first) {
        return weights.iter().map(|(weight, _)| *weight).collect();
    }
    let products = || weights.iter().map(|(weight, share)| u64::from(*weight) * u64::from(*share));
    let divisor = products().fold(0, gcd).max(1);
    let sum: u64 = products().sum::<u64>() / divisor;
    let fit = |product: u64| match product / divisor {
        0 => 0,
        exact if sum <= MOST_SLOTS => exact as u32,
        exact => ((exact * MOST_SLOTS + sum / 2) / sum).max(1) as u32,
    };
    products().map(fit).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(5);

    #[test]
    fn a_share_grows_by_a_tenth_per_step_from_a_tenth_to_the_whole() {
        let shares: Vec<u32> = (0..=10).map(|step| share(WINDOW, step * step_ms(WINDOW))).collect();
        assert_eq!(shares, [1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!((share(WINDOW, 2740), share(WINDOW, 2760), share(WINDOW, 4999)), (5, 6, 10));
        assert_eq!((share(Duration::ZERO, 0), share(WINDOW, u64::MAX)), (WHOLE, WHOLE));
    }

    #[test]
    fn equal_shares_leave_weights_alone() {
        assert_eq!(scaled(&[(3, 1), (1, 1)]), [3, 1]);
        assert_eq!(scaled(&[(256, 10), (255, 10)]), [256, 255]);
        assert_eq!(scaled(&[(1, 10), (1, 10), (1, 4)]), [5, 5, 2]);
        assert_eq!(scaled(&[]), [0_u32; 0]);
    }

    proptest! {
        #[test]
        fn scaled_weights_are_bounded_in_proportion_and_never_vanish(
            weights in prop::collection::vec((1..=256_u32, 1..=WHOLE), 1..1024),
        ) {
            let scaled = scaled(&weights);
            let sum: u64 = scaled.iter().map(|weight| u64::from(*weight)).sum();
            let untouched = weights.iter().all(|(_, share)| *share == weights[0].1);
            prop_assert!(untouched || sum <= MOST_SLOTS + weights.len() as u64);
            let wanted: f64 = weights.iter().map(|(weight, share)| f64::from(weight * share)).sum();
            for ((weight, share), got) in weights.iter().zip(&scaled) {
                prop_assert!(*got > 0);
                // Half a slot of rounding, one for those that would vanish, and as much for the sum's own rounding.
                let exact = f64::from(weight * share) / wanted * sum as f64;
                prop_assert!((f64::from(*got) - exact).abs() <= 1.0 + exact * weights.len() as f64 / sum as f64);
            }
        }

        #[test]
        fn shares_never_shrink_with_time(window_ms in 0..100_000_u64, a in 0..200_000_u64, b in 0..200_000_u64) {
            let window = Duration::from_millis(window_ms);
            prop_assert!(share(window, a.min(b)) <= share(window, a.max(b)));
            prop_assert!((1..=WHOLE).contains(&share(window, a)));
        }
    }
}
