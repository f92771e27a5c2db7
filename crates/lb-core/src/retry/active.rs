//! How many repeats may be under way at a time: a share of the requests under way, as in Envoy's retry budget. It
//! follows the load by itself, and bites where a rate does not: when everything becomes slow.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

/// So many are always possible: Envoy's `min_retry_concurrency`.
const FLOOR: u64 = 3;

/// Repeats under way, of all workers. Written by whoever repeats, which is rare; relaxed, since no other memory depends
/// on it.
#[derive(Debug, Default)]
pub struct ActiveRetries(CachePadded<AtomicU64>);

impl ActiveRetries {
    /// Takes a place, or says that there is none while `active` requests are under way; pair it with [`Self::leave`].
    pub fn enter(&self, active: u64, percent: u32) -> bool {
        let most = (active.saturating_mul(u64::from(percent)) / 100).max(FLOOR);
        let more = |now: u64| (now < most).then_some(now + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Gives a place back.
    pub fn leave(&self) {
        let before = self.0.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "left more often than entered");
    }

    /// How many are under way.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn never_more_than_the_share_of_active_requests_or_the_floor(
            steps in prop::collection::vec((any::<bool>(), 0..500_u64), 1..500),
            percent in 0..=100_u32,
        ) {
            let retries = ActiveRetries::default();
            let mut held = 0_u64;
            for (enters, active) in steps {
                if enters {
                    let most = (active * u64::from(percent) / 100).max(3);
                    let entered = retries.enter(active, percent);
                    prop_assert_eq!(entered, held < most, "{} under way of {}", held, most);
                    held += u64::from(entered);
                } else if held > 0 {
                    retries.leave();
                    held -= 1;
                }
                prop_assert_eq!(retries.count(), held);
            }
        }
    }
}
