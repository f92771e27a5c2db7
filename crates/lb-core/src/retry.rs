//! How many repeats the balancer may add to the load: a budget, not a count per request, so that a failing pool is
//! not pushed over by retries.
//!
//! The scheme is Finagle's (`RetryBudget`): each request deposits a share of a retry, a retry takes a whole one, and
//! a reserve allows a few when there is little traffic. The balance cannot grow beyond what ten seconds' reserve and
//! the deposits of the last ten thousand requests give, so an idle hour does not pay for a storm.
//!
//! One budget per worker and pool: no shared memory. Connecting again after a refused connection does not come out of
//! it: the broken backend did no work, and at most [`MAX_ATTEMPTS`](crate::policy::MAX_ATTEMPTS) are made.

/// Deposits that stay: about ten seconds of a busy worker; more would let a long calm pay for a storm.
const DEPOSITS_KEPT: u32 = 10_000;

/// What a retry costs, in the budget's unit: thousandths of a retry.
const RETRY_COST: u64 = 1000;

/// How much is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Retries per hundred requests, in the long run.
    pub percent: u32,
    /// Retries that are always possible within ten seconds, whatever the traffic; one worker's share of it.
    pub reserve: u32,
}

/// A worker's budget for one pool.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    policy: RetryPolicy,
    /// From requests, in thousandths of a retry.
    deposits: u64,
    /// From time, in thousandths of a retry.
    reserve: u64,
    refilled_ms: u64,
}

impl RetryBudget {
    /// A budget with a full reserve.
    pub fn new(policy: RetryPolicy, now_ms: u64) -> Self {
        Self { policy, deposits: 0, reserve: u64::from(policy.reserve) * RETRY_COST, refilled_ms: now_ms }
    }

    /// Counts one request in.
    pub fn deposit(&mut self) {
        let share = u64::from(self.policy.percent) * RETRY_COST / 100;
        self.deposits = (self.deposits + share).min(share * u64::from(DEPOSITS_KEPT));
    }

    /// Takes one retry out, or says that there is none left. `now_ms` never goes back.
    pub fn withdraw(&mut self, now_ms: u64) -> bool {
        self.refill(now_ms);
        for purse in [&mut self.deposits, &mut self.reserve] {
            if *purse >= RETRY_COST {
                *purse -= RETRY_COST;
                return true;
            }
        }
        false
    }

    /// The reserve fills up evenly within ten seconds.
    fn refill(&mut self, now_ms: u64) {
        let full = u64::from(self.policy.reserve) * RETRY_COST;
        let elapsed_ms = now_ms.saturating_sub(self.refilled_ms).min(10_000);
        self.reserve = (self.reserve + full * elapsed_ms / 10_000).min(full);
        self.refilled_ms = now_ms;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: RetryPolicy = RetryPolicy { percent: 20, reserve: 10 };

    #[test]
    fn the_reserve_serves_a_quiet_balancer() {
        let mut budget = RetryBudget::new(POLICY, 0);
        assert_eq!((0..20).filter(|_| budget.withdraw(0)).count(), 10);
        assert!(!budget.withdraw(900));
        assert!(budget.withdraw(2000));
    }

    proptest! {
        #[test]
        fn retries_never_exceed_the_share_of_requests_plus_the_reserve(
            steps in prop::collection::vec((0..50_u64, any::<bool>()), 1..2000),
        ) {
            let mut budget = RetryBudget::new(POLICY, 0);
            let (mut now_ms, mut requests, mut retries) = (0, 0_u64, 0_u64);
            for (wait_ms, fails) in steps {
                now_ms += wait_ms;
                requests += 1;
                budget.deposit();
                retries += u64::from(fails && budget.withdraw(now_ms));
                prop_assert!(retries * 100 <= requests * 20 + 1000 + now_ms / 10 + 100);
            }
        }
    }
}
