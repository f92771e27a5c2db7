//! When requests are due, and what their latencies were. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// At the beginning, requests are sent and not counted.
pub(super) const SETTLE: Duration = Duration::from_millis(500);

/// Requests that are made before the first one counts and after: all of one measurement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// `None` asks again as soon as there is an answer.
    per_s: Option<f64>,
    counted: Duration,
}

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::bench) struct Latencies {
    pub(in crate::bench) count: u64,
    pub(in crate::bench) p50_us: f64,
    pub(in crate::bench) p99_us: f64,
    /// How late the sender itself was at the 99th percentile: below this, latencies say nothing.
    pub(in crate::bench) late_p99_us: f64,
}

impl Plan {
    pub(super) fn closed(seconds: u32) -> Self {
        Self { per_s: None, counted: Duration::from_secs(seconds.into()) }
    }

    pub(super) fn open(per_s: f64, seconds: u32) -> Result<Self, String> {
        if !(per_s.is_finite() && per_s >= 1.0) {
            return Err(format!("{per_s} requests a second cannot be sent"));
        }
        Ok(Self { per_s: Some(per_s), counted: Duration::from_secs(seconds.into()) })
    }

    pub(super) fn lasts(&self) -> Duration {
        SETTLE + self.counted
    }
}

/// A plan being carried out.
pub(super) struct Book {
    plan: Plan,
    start: Instant,
    counted_from: Instant,
    /// Requests of the open loop, and how many have fallen due.
    total: u64,
    fallen_due: u64,
    /// Connections on which nothing is under way, longest idle first.
    idle: VecDeque<usize>,
    /// For each connection, when its request was due.
    due: Vec<Instant>,
    /// Requests that found no idle connection.
    waiting: VecDeque<Instant>,
    answered: u64,
    latencies: Vec<Duration>,
    lateness: Vec<Duration>,
}

impl Book {
    pub(super) fn open(plan: Plan, connections: usize, start: Instant) -> Self {
        let total = plan.per_s.map_or(u64::MAX, |per_s| (plan.lasts().as_secs_f64() * per_s) as u64);
        let room = if total == u64::MAX { 0 } else { total as usize };
        Self {
            plan,
            start,
            counted_from: start + SETTLE,
            total,
            fallen_due: 0,
            idle: (0..connections).collect(),
            due: vec![start; connections],
            waiting: VecDeque::new(),
            answered: 0,
            latencies: Vec::with_capacity(room),
            lateness: Vec::with_capacity(room),
        }
    }

    /// A connection on which a request is to go out now, if one is due.
    pub(super) fn next(&mut self, now: Instant) -> Option<usize> {
        let Some(per_s) = self.plan.per_s else {
            let connection = self.idle.pop_front()?;
            self.due[connection] = now;
            return Some(connection);
        };
        while self.fallen_due < self.total {
            let due = self.start + Duration::from_secs_f64(self.fallen_due as f64 / per_s);
            if now < due {
                break;
            }
            self.fallen_due += 1;
            if due >= self.counted_from {
                self.lateness.push(now - due);
            }
            self.waiting.push_back(due);
        }
        if self.waiting.is_empty() {
            return None;
        }
        let connection = self.idle.pop_front()?;
        self.due[connection] = self.waiting.pop_front()?;
        Some(connection)
    }

    /// The answer on `connection` is there.
    pub(super) fn answered(&mut self, connection: usize, now: Instant) {
        let due = self.due[connection];
        if due >= self.counted_from {
            self.latencies.push(now.saturating_duration_since(due));
        }
        self.answered += 1;
        self.idle.push_back(connection);
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        match self.plan.per_s {
            None => now >= self.start + self.plan.lasts(),
            Some(_) => self.answered == self.total,
        }
    }

    /// What is missing, once it is too late for it.
    pub(super) fn missing(&self, now: Instant, spare: Duration) -> Option<String> {
        let late = now >= self.start + self.plan.lasts() + spare;
        late.then(|| format!("only {} of {} requests were answered in time", self.answered, self.total))
    }

    /// Answers a second, and their latencies.
    pub(super) fn close(mut self) -> (f64, Latencies) {
        let count = self.latencies.len() as u64;
        let per_s = count as f64 / self.plan.counted.as_secs_f64();
        let latencies = Latencies {
            count,
            p50_us: quantile_us(&mut self.latencies, 0.50),
            p99_us: quantile_us(&mut self.latencies, 0.99),
            late_p99_us: quantile_us(&mut self.lateness, 0.99),
        };
        (per_s, latencies)
    }
}

/// Nearest rank.
fn quantile_us(latencies: &mut [Duration], share: f64) -> f64 {
    latencies.sort_unstable();
    let rank = (latencies.len() as f64 * share).ceil() as usize;
    latencies.get(rank.saturating_sub(1)).map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_nearest_rank() {
        let mut latencies: Vec<_> = (1..=200).rev().map(Duration::from_micros).collect();
        assert_eq!(quantile_us(&mut latencies, 0.99), 198.0);
        assert_eq!(quantile_us(&mut latencies, 0.5), 100.0);
        assert_eq!(quantile_us(&mut [], 0.99), 0.0);
    }

    #[test]
    fn a_request_waits_for_a_connection_and_its_clock_runs() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut book = Book::open(Plan::open(100.0, 1).unwrap(), 1, start);
        assert_eq!(book.next(at(600)), Some(0));
        assert_eq!(book.next(at(600)), None, "the connection is busy");
        book.answered(0, at(700));
        assert_eq!(book.next(at(700)), Some(0), "and the next has waited");
        assert_eq!(book.due[0], at(10), "since it was due");
    }

    #[test]
    fn a_closed_loop_asks_again_at_once_and_ends_in_time() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut book = Book::open(Plan::closed(1), 2, start);
        assert_eq!((book.next(at(0)), book.next(at(0)), book.next(at(0))), (Some(0), Some(1), None));
        book.answered(1, at(600));
        assert_eq!(book.next(at(600)), Some(1));
        book.answered(1, at(900));
        assert!(!book.is_over(at(1499)) && book.is_over(at(1500)));
        assert_eq!(book.close().0, 1.0, "what was asked before it counted does not count");
    }
}
