//! Passive ejection (outlier detection): which backend stands out by failing, what it is held to, and for how long it
//! is out. It sees what checks do not see: a server that takes connections and then fails requests. What checks see
//! (nobody listens) is theirs: [`rotation`](crate::rotation) says how the two go together.
//!
//! Three causes, after Envoy's outlier detection and gRPC's A50, with changes where those are known to go wrong:
//!
//! * **errors in a row**: the one that matters in a small pool. Counted by the workers in the
//!   [`Backend`](crate::backend::Backend) itself, so it is noticed with the request that is one too many;
//! * **success rate**: below mean − 1.9 σ of its peers over an interval. Of n backends, k equally bad ones stand at
//!   z = √((n − k)/k): one of five is 2.0 (barely out), one of four is 1.73 (never), two of nine 1.87 (never). So it is
//!   blind in small pools and to several bad ones at once; and in a calm pool one error in a hundred requests is 2 σ, so
//!   a backend must also be [`STANDS_OUT`] below the mean;
//! * **failure percentage**: nearly everything failed over an interval, whatever the others do.
//!
//! Pure: counts, time and randomness come in.

use std::time::Duration;

use crate::metrics::{BackendTotals, FailureKind};

/// How many standard deviations below the mean of its peers a success rate must be. Envoy's and gRPC's.
pub const SIGMAS: f64 = 1.9;

/// How far below the mean of its peers a success rate must be, as a share of its requests. Of a hundred requests with
/// one expected to fail, five more failures are five standard deviations of chance.
pub const STANDS_OUT: f64 = 0.05;

/// The fewest peers among which 1.9 σ can be reached: one of n stands at √(n − 1).
pub const FEWEST_HOSTS: u32 = 5;

/// Each ejection is shortened by up to this share, so that those ejected together do not come back together.
pub const JITTER: f64 = 0.1;

/// What a backend is held to. A limit of 0 switches its cause off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlierPolicy {
    /// Errors in a row that eject.
    pub consecutive: u32,
    /// Which answers are errors among those in a row.
    pub errors: ErrorAnswers,
    /// How often success rates and failure percentages are looked at. Not zero.
    pub interval: Duration,
    /// The fewest backends with enough requests that are compared; 0 or at least [`FEWEST_HOSTS`].
    pub success_rate_hosts: u32,
    /// The fewest requests of a backend in an interval to be compared.
    pub success_rate_requests: u64,
    /// Percentage of failed requests in an interval that ejects.
    pub failure_percent: u32,
    /// The fewest requests in an interval to be judged by it.
    pub failure_requests: u64,
    /// The largest part of a pool that may be ejected at a time; see [`most_ejected`].
    pub max_ejected_percent: u32,
    /// The first ejection; the n-th takes n times as long.
    pub base_time: Duration,
    /// The longest ejection. At least `base_time`.
    pub max_time: Duration,
}

/// Which answers of a backend are errors when errors in a row are counted. Over an interval every 5xx is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorAnswers {
    /// 502, 503 and 504: it says itself that it cannot serve.
    Gateway,
    /// Every 5xx.
    Server,
}

impl ErrorAnswers {
    /// Whether `status` is such an error.
    pub const fn contains(self, status: u16) -> bool {
        match self {
            Self::Gateway => matches!(status, 502..=504),
            Self::Server => status >= 500,
        }
    }
}

impl OutlierPolicy {
    /// Whether nothing can ever be ejected.
    pub fn is_off(&self) -> bool {
        self.consecutive == 0 && self.success_rate_hosts == 0 && self.failure_percent == 0
    }

    /// How long the ejection number `times` takes. `random` is uniform in 0..1. Grows with `times`, up to `max_time`.
    pub fn ejection_time(&self, times: u32, random: f64) -> Duration {
        self.base_time.saturating_mul(times).min(self.max_time).mul_f64(1.0 - JITTER * random)
    }

    /// From this number on ejections are as long as they get; counting further would only slow the decay.
    fn most_times(&self) -> u32 {
        let base_ms = self.base_time.as_millis().max(1);
        u32::try_from(self.max_time.as_millis().div_ceil(base_ms)).unwrap_or(u32::MAX).max(1)
    }
}

/// The most backends of `wanted` that may be ejected at a time. One always may where there are two, since a setting
/// that rounds down to nothing would be off in silence (Envoy's rule too); the last one in rotation never is.
pub fn most_ejected(percent: u32, wanted: usize) -> usize {
    match wanted {
        0 | 1 => 0,
        _ => (wanted * percent.min(100) as usize / 100).max(1).min(wanted - 1),
    }
}

/// Why a backend was ejected. A fixed set: it is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Errors in a row.
    ConsecutiveErrors,
    /// A success rate far below that of its peers.
    SuccessRate,
    /// Nearly everything failed.
    FailurePercentage,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::ConsecutiveErrors, Self::SuccessRate, Self::FailurePercentage];

    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveErrors => "consecutive_errors",
            Self::SuccessRate => "success_rate",
            Self::FailurePercentage => "failure_percentage",
        }
    }
}

/// The ejections of one backend. Written by the control task only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ejections {
    out: Option<Out>,
    /// How often lately: goes up with each ejection, down with each healthy interval.
    times: u32,
    totals: [u64; Cause::ALL.len()],
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Out {
    until_ms: u64,
    time: Duration,
    words: String,
}

impl Ejections {
    /// When the present one ends; `None` when there is none.
    pub fn until_ms(&self) -> Option<u64> {
        self.out.as_ref().map(|out| out.until_ms)
    }

    /// How often lately; the present one counts.
    pub fn times(&self) -> u32 {
        self.times
    }

    /// How often since the start, by [`Cause`].
    pub fn totals(&self) -> [u64; Cause::ALL.len()] {
        self.totals
    }

    /// Begins one. `words` say what the backend did.
    pub fn begin(&mut self, policy: &OutlierPolicy, cause: Cause, words: String, now_ms: u64, random: f64) {
        self.times = self.times.saturating_add(1).min(policy.most_times());
        self.totals[cause as usize] += 1;
        let time = policy.ejection_time(self.times, random);
        self.out = Some(Out { until_ms: now_ms.saturating_add(time.as_millis() as u64), time, words });
    }

    /// Ends the present one.
    pub fn end(&mut self) {
        self.out = None;
    }

    /// An interval has passed in which it was in rotation and did not stand out.
    pub fn forgive_one(&mut self) {
        self.times = self.times.saturating_sub(1);
    }

    /// What it did and how long it is out, in words that stay true: `5 errors in a row; out for 10s (1st time)`.
    pub fn words(&self) -> Option<String> {
        let out = self.out.as_ref()?;
        Some(format!("{}; out for {} ({})", out.words, seconds(out.time), ordinal(self.times)))
    }

    /// What it did and when it is back, in words for now: `5 errors in a row; back in 7s (1st time)`.
    pub fn words_at(&self, now_ms: u64) -> Option<String> {
        let out = self.out.as_ref()?;
        let left = Duration::from_millis(out.until_ms.saturating_sub(now_ms));
        Some(format!("{}; back in {} ({})", out.words, seconds(left), ordinal(self.times)))
    }
}

/// Whole seconds from two on, else milliseconds: nobody reads `9.357s`.
fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(2) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{} s", (time + Duration::from_millis(500)).as_secs())
    }
}

fn ordinal(number: u32) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending} time")
}

/// Requests that ended at a backend, and how many of them it failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answered or broken.
    pub requests: u64,
    /// Of these, answered with 5xx or broken by the backend.
    pub failed: u64,
}

impl Tally {
    /// Since the start of the process. What is not the backend's fault (a client that left, our own lack of means, the
    /// end of a tunnel) is no failure in `totals`; a kept connection that it had closed meanwhile is one that is excused.
    /// An answer that was thrown away for its status is what it would have been without that.
    pub fn of(totals: &BackendTotals) -> Self {
        let broken = totals.failures.iter().sum::<u64>().saturating_sub(totals.excused + totals.repeated_well);
        // A response whose body broke is among the responses already.
        let unanswered = broken.saturating_sub(totals.failures[FailureKind::Body as usize]);
        let requests = totals.responses.iter().sum::<u64>() + totals.repeated_well + unanswered;
        Self { requests, failed: (totals.responses[4] + broken).min(requests) }
    }

    /// What has come since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let requests = self.requests.saturating_sub(earlier.requests);
        Self { requests, failed: self.failed.saturating_sub(earlier.failed).min(requests) }
    }

    fn failed_share(&self) -> f64 {
        self.failed as f64 / self.requests.max(1) as f64
    }
}

/// A backend that stands out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlier {
    /// Its place among the tallies.
    pub at: usize,
    /// What it is held to.
    pub cause: Cause,
    /// What it did.
    pub words: String,
}

/// Those that stand out over an interval, the worst first. `None` is a backend that was not in rotation all along.
pub fn outliers(policy: &OutlierPolicy, tallies: &[Option<Tally>]) -> Vec<Outlier> {
    let rate = |tally: &Tally| 1.0 - tally.failed_share();
    let compared: Vec<f64> = tallies
        .iter()
        .flatten()
        .filter(|tally| tally.requests >= policy.success_rate_requests.max(1))
        .map(rate)
        .collect();
    let enough = policy.success_rate_hosts > 0 && compared.len() >= policy.success_rate_hosts as usize;
    let mean = compared.iter().sum::<f64>() / compared.len().max(1) as f64;
    let variance = compared.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / compared.len().max(1) as f64;
    let cut = (mean - SIGMAS * variance.sqrt()).min(mean - STANDS_OUT);
    let verdict = |(at, tally): (usize, &Option<Tally>)| {
        let tally = tally.as_ref()?;
        let failed_percent = 100.0 * tally.failed_share();
        let (cause, words) = if policy.failure_percent > 0
            && tally.requests >= policy.failure_requests.max(1)
            && tally.failed * 100 >= tally.requests * u64::from(policy.failure_percent)
        {
            (Cause::FailurePercentage, format!("{failed_percent:.0} % of {} requests failed", tally.requests))
        } else if enough && tally.requests >= policy.success_rate_requests.max(1) && rate(tally) < cut {
            let peers = 100.0 * (1.0 - mean);
            let words =
                format!("{failed_percent:.1} % of {} requests failed, {peers:.1} % in the pool", tally.requests);
            (Cause::SuccessRate, words)
        } else {
            return None;
        };
        Some((tally.failed_share(), Outlier { at, cause, words }))
    };
    let mut found: Vec<(f64, Outlier)> = tallies.iter().enumerate().filter_map(verdict).collect();
    found.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    found.into_iter().map(|(_, outlier)| outlier).collect()
}

#[cfg(test)]
#[path = "outlier_tests.rs"]
mod tests;
