//! How many repeats a worker may add to the load over time: a budget, not a count per request, so that a failing pool
//! is not pushed over by retries.
//!
//! The scheme is Finagle's (`RetryBudget`): each request deposits a share of a retry, a retry takes a whole one, and a
//! reserve that fills up evenly allows a few when there is little traffic. Deposits expire after ten seconds (its
//! `ttl`), so an hour's calm does not pay for a storm.
//!
//! One budget per worker and pool: no shared memory.

/// Deposits of one second each; the oldest is forgotten when a new second begins.
const SECONDS: usize = 10;

/// What a retry costs, in the budget's unit: thousandths of a retry.
const RETRY_COST: u64 = 1000;

/// How much is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Retries per hundred requests.
    pub percent: u32,
    /// Retries that are always possible within ten seconds, whatever the traffic; one worker's share of it.
    pub reserve: u32,
}

/// A worker's budget for one pool.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    policy: RetryPolicy,
    /// Requests of the current second, not yet turned into a deposit.
    requests: u64,
    /// From requests, in thousandths of a retry, by second; the current one last.
    deposits: [u64; SECONDS],
    /// The second that `deposits` ends with.
    second: u64,
    /// From time, in thousandths of a retry.
    reserve: u64,
    refilled_ms: u64,
}

impl RetryBudget {
    /// A budget with a full reserve.
    pub fn new(policy: RetryPolicy, now_ms: u64) -> Self {
        Self {
            policy,
            requests: 0,
            deposits: [0; SECONDS],
            second: now_ms / 1000,
            reserve: u64::from(policy.reserve) * RETRY_COST,
            refilled_ms: now_ms,
        }
    }

    /// Counts one request in. No more than that: it is done for each request.
    pub fn deposit(&mut self) {
        self.requests += 1;
    }

    /// Time passes: deposits grow old. To be called several times a second; `now_ms` never goes back.
    pub fn pass(&mut self, now_ms: u64) {
        self.deposits[SECONDS - 1] += self.requests * (u64::from(self.policy.percent) * RETRY_COST / 100);
        self.requests = 0;
        let second = now_ms / 1000;
        let gone = usize::try_from(second.saturating_sub(self.second)).unwrap_or(SECONDS).min(SECONDS);
        self.deposits.rotate_left(gone);
        self.deposits[SECONDS - gone..].fill(0);
        self.second = second.max(self.second);
        let full = u64::from(self.policy.reserve) * RETRY_COST;
        // The refill is exact: what does not make a whole thousandth stays for the next time.
        let elapsed_ms = now_ms.saturating_sub(self.refilled_ms).min(10_000);
        let refill = full * elapsed_ms / 10_000;
        if refill > 0 || full == 0 {
            self.reserve = (self.reserve + refill).min(full);
            self.refilled_ms = now_ms;
        }
    }

    /// Takes one retry out, or says that there is none left. What expires first goes first.
    pub fn withdraw(&mut self, now_ms: u64) -> bool {
        self.pass(now_ms);
        if self.deposits.iter().sum::<u64>() >= RETRY_COST {
            let mut owed = RETRY_COST;
            for purse in &mut self.deposits {
                let part = owed.min(*purse);
                *purse -= part;
                owed -= part;
            }
            return true;
        }
        let reserved = self.reserve >= RETRY_COST;
        if reserved {
            self.reserve -= RETRY_COST;
        }
        reserved
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

    #[test]
    fn the_reserve_fills_up_however_often_it_is_looked_at() {
        let mut budget = RetryBudget::new(RetryPolicy { percent: 0, reserve: 1 }, 0);
        assert!(budget.withdraw(0));
        assert_eq!((1..=20_000).filter(|now_ms| budget.withdraw(*now_ms)).count(), 2);
    }

    #[test]
    fn what_was_not_used_is_gone_after_ten_seconds() {
        let mut budget = RetryBudget::new(RetryPolicy { percent: 20, reserve: 0 }, 0);
        (0..1000).for_each(|_| budget.deposit());
        let mut later = budget.clone();
        later.pass(500);
        assert_eq!((0..300).filter(|_| later.withdraw(9999)).count(), 200);
        budget.pass(500);
        assert!(!budget.withdraw(10_000));
    }

    proptest! {
        /// In every stretch of time, not only from the start: `requests` in the ten seconds before it count, and the
        /// reserve at its beginning is at most full.
        #[test]
        fn retries_never_exceed_the_share_of_recent_requests_plus_the_reserve(
            steps in prop::collection::vec((0..200_u64, 0..30_u64, any::<bool>()), 1..200),
            reserve in 0..50_u32, percent in 0..=100_u32,
        ) {
            let mut budget = RetryBudget::new(RetryPolicy { percent, reserve }, 0);
            let mut now_ms = 0;
            let mut made: Vec<(u64, u64, u64)> = Vec::new();
            for (wait_ms, requests, fails) in steps {
                now_ms += wait_ms;
                budget.pass(now_ms);
                (0..requests).for_each(|_| budget.deposit());
                let tries = if fails { requests } else { 0 };
                let granted = (0..tries).filter(|_| budget.withdraw(now_ms)).count() as u64;
                made.push((now_ms, requests, granted));
            }
            for (from, (start_ms, ..)) in made.iter().enumerate() {
                let retries: u64 = made[from..].iter().map(|(.., granted)| granted).sum();
                let recent = made.iter().filter(|(at_ms, ..)| at_ms + 10_000 > *start_ms);
                let requests: u64 = recent.map(|(_, requests, _)| requests).sum();
                let time_ms = now_ms - start_ms;
                let most = requests * u64::from(percent) * 10 + u64::from(reserve) * (1000 + time_ms / 10 + 1);
                prop_assert!(retries * 1000 <= most, "{} retries since {} ms", retries, start_ms);
            }
        }
    }
}
